//! One subcommand per stage: maps flags to that stage's `Config` and prints its summary to stdout.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use lookbook::engine::Device;
use lookbook::error::{Error, Result, shown};
use lookbook::mirror::{self, Mirror};
use lookbook::runs::{Destination, Recorder};
use lookbook::settings::Settings;
use lookbook::shard::Shard;
use lookbook::stage::{self, Common, Outcome, StageConfig, Summary};
use lookbook::train::Resume;
use lookbook::{
    convert, doctor, duplicates, evaluate, export, parser, recommend, report, run, sample, segment, similarity, status,
    store, threads, train, units,
};
use lookbook_ops::process::stdout_was_closed;
use serde::Serialize;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::manual;

/// Turns a fashion-parsing data set into tables, a segmentation model, a similarity matrix and recommended looks.
///
/// Exit codes: 0 success, 1 failed or held back by a gate, 2 usage error, 3 finished with more rejects than allowed, 75
/// another run holds the folder or an object store does not answer, 130 and 143 stopped by SIGINT and SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "lookbook", version, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(flatten)]
    common: CommonFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Options of all commands")]
struct CommonFlags {
    /// Settings: a file, or the name of built-in ones (sample, real, best, full); the section named after a stage sets
    /// defaults for that stage's flags [default: sample for run without --source, else none]
    #[arg(long, global = true, value_name = "FILE_OR_NAME")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Random seed [default: 0]
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// Worker threads [default: all processors]
    #[arg(long, global = true)]
    threads: Option<usize>,
    /// Network operators: native (CPU only) or portable (standard ONNX) [default: auto: native on the CPU, on CUDA standard ones
    /// and cuDNN's]
    #[arg(long, global = true, value_parser = ["auto", "portable", "native"])]
    dialect: Option<String>,
    /// Instruction set of the native operators [default: auto, the best this processor supports]
    #[arg(long, global = true, value_parser = ["auto", "portable", "avx2", "avx512"])]
    instructions: Option<String>,
    /// Run the quick checks and print what would be done, without writing anything
    #[arg(long, global = true)]
    #[serde(skip)]
    dry_run: bool,
    /// Do nothing if the published folder is up to date, as `status` would say
    #[arg(long, global = true)]
    #[serde(skip)]
    if_changed: bool,
    /// Exit code when --if-changed finds nothing to do; Airflow treats 99 as skipped
    #[arg(long, global = true, value_name = "CODE", default_value_t = 0)]
    #[serde(skip)]
    skip_exit_code: u8,
    /// How long to wait for another run to release the folder, e.g. 90s, 10m or 2h
    #[arg(long, global = true, value_name = "TIME", value_parser = units::seconds, default_value = "0s")]
    #[serde(skip)]
    lock_wait: u64,
    /// Versions of the output folder to keep, including the published one [default: 2]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    #[serde(skip)]
    keep_versions: Option<u8>,
    /// Name of the whole run that this command is part of, for the run records [default: the current time]
    #[arg(long, global = true, value_name = "NAME")]
    #[serde(skip)]
    run_name: Option<String>,
    /// Format of logs (stderr) and summaries (stdout)
    #[arg(long, global = true, value_parser = ["text", "json"], default_value = "text")]
    #[serde(skip)]
    log_format: String,
    /// Log more; set `RUST_LOG` for finer control, e.g. `RUST_LOG=object_store=debug`
    #[arg(short, long, global = true)]
    #[serde(skip)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every stale stage in order, from the data set (or the built-in sample) to the report
    Run(RunFlags),
    /// Generate the built-in sample: drawings of dressed figures in the Colorful Fashion Parsing data set's layout
    Sample(SampleFlags),
    /// Convert labelled photos into the dataset tables: CFPD, CCP, COCO, folders of masks or Label Studio, detected
    Convert(ConvertFlags),
    /// Train the network on the train split
    Train(TrainFlags),
    /// Evaluate a model against the labels of one split of the dataset
    Evaluate(EvaluateFlags),
    /// Copy a model's ONNX graphs and weights for use elsewhere
    Export(ExportFlags),
    /// Turn a photo catalogue into the feature table: each photo's shares of categories and colours
    Segment(SegmentFlags),
    /// Compute the similarity of every pair of photos
    Similarity(SimilarityFlags),
    /// Group near-duplicates: photos that are one another resized, recompressed, cropped, mirrored or with a border
    Duplicates(DuplicatesFlags),
    /// Recommend looks from the catalogue for your own photos
    Recommend(RecommendFlags),
    /// Write an HTML page that shows the results of a run
    Report(ReportFlags),
    /// Show the last runs in a run folder, and which of its stage folders are stale and why
    Status(StatusFlags),
    /// Restore the previous version of a published folder; run it again to undo
    Rollback(RollbackFlags),
    /// Work with parsers and embedders: ONNX third-party networks (docs/parsers.md)
    #[command(subcommand)]
    Parser(ParserCommand),
    /// Check this machine for everything the stages need, and say how to fix what is missing
    Doctor(DoctorFlags),
    /// Print a stage's resolved settings as JSON, or the settings file as it is, to begin one of your own
    Settings(SettingsFlags),
    /// Print the completions of commands and flags for a shell
    Completions(CompletionsFlags),
    /// Print the manual page, or write those of all commands to a folder
    Man(ManFlags),
}

impl Command {
    /// Whether it does work that is worth starting threads for.
    fn works(&self) -> bool {
        !matches!(self, Self::Settings(_) | Self::Doctor(_) | Self::Completions(_) | Self::Man(_))
    }
}

const MEASURES: [&str; 5] = ["pearson", "co_rated", "cosine", "latent", "embedding"];

// A stage's flags have the same names as its settings; a flag that is not given leaves the value to the settings file.

#[derive(Debug, Args)]
struct RunFlags {
    /// Run folder, which holds the stages' folders [default: the one in the settings, else output]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Data set folder [default: the one in the settings, else the built-in sample]
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Photos to segment [default: those in the settings, else the data set's own]
    #[arg(long, value_name = "DIR_OR_TABLE")]
    catalogue: Option<PathBuf>,
    /// Run only these stages: a single one, or a range such as segment..report
    #[arg(long, value_name = "STAGES", value_parser = stages)]
    only: Option<[String; 2]>,
    /// Run a stage even if it is up to date; may be given several times
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// Process one shard of segment or similarity, e.g. 2/8, into its own folder (env: the one that an array job says); requires
    /// --only
    #[arg(long, value_name = "I/N", requires = "only")]
    shard: Option<Shard>,
    /// Merge the shards of segment or similarity; requires --only
    #[arg(long, requires = "only", conflicts_with = "shard")]
    merge: bool,
}

#[derive(Debug, Args, Serialize)]
struct SampleFlags {
    /// Data set folder to write
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Number of photos [default: 64]
    #[arg(long)]
    photos: Option<u32>,
}

#[derive(Debug, Args, Serialize)]
struct ConvertFlags {
    /// Data set folder
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Folder to write the dataset tables to
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Categories and colours of the data set: `cfpd`, `source` (those that the source names) or a labels.toml
    /// [default: cfpd]
    #[arg(long, value_name = "LABELS")]
    labels: Option<PathBuf>,
    /// Settings file whose table `[fold]` maps the source's category names to them [default: none, but that of CCP]
    #[arg(long, value_name = "FILE")]
    fold: Option<PathBuf>,
    /// Fail if more than this fraction of the photos is rejected [default: 0.05]
    #[arg(long)]
    max_reject_fraction: Option<f64>,
}

#[derive(Debug, Args, Serialize)]
struct TrainFlags {
    /// Folder with the dataset tables
    #[arg(long, value_name = "DIR")]
    dataset: Option<PathBuf>,
    /// Folder to write the model to
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Training recipe: defaults for the settings that neither the settings file nor a flag gives [default: best]
    #[arg(long, value_parser = ["seed", "best", "pretrained"])]
    recipe: Option<String>,
    /// File of a pretrained encoder [default with the recipe pretrained: the one that `make encoder` installed]
    #[arg(long, value_name = "FILE")]
    encoder: Option<PathBuf>,
    /// Model folder to start from: its published weights, of the same network [default: none]
    #[arg(long, value_name = "DIR")]
    start_from: Option<PathBuf>,
    /// Model folder, or a parser's, that labels the photos of the train part in place of their own labels [default: none]
    #[arg(long, value_name = "DIR")]
    labels_from: Option<PathBuf>,
    /// Passes over the train split [default: 25]
    #[arg(long)]
    epochs: Option<u32>,
    /// Photos per step
    #[arg(long)]
    batch_size: Option<usize>,
    /// Photos processed at once, if memory is too small for a whole step; 0 for all
    #[arg(long)]
    micro_batch_size: Option<usize>,
    /// Peak learning rate of Adam
    #[arg(long)]
    learning_rate: Option<f32>,
    /// Learning rate schedule
    #[arg(long, value_parser = ["constant", "cosine"])]
    schedule: Option<String>,
    /// Loss function, which also decides how the network's output maps are read
    #[arg(long, value_parser = ["bce", "softmax"])]
    loss: Option<String>,
    /// Device to run the network on
    #[arg(long, value_parser = ["auto", "cpu", "cuda"])]
    device: Option<String>,
    /// Weights to publish: the last ones, or those with the best validation score [default: last]
    #[arg(long, value_parser = ["last", "best"])]
    publish: Option<String>,
    /// Stop after N epochs without a better validation mean IoU; 0 never stops early [default: 0]
    #[arg(long, value_name = "N")]
    patience: Option<u32>,
    /// Stop after this many minutes, once the current step is done, and publish the weights so far
    #[arg(long, value_name = "MINUTES")]
    max_minutes: Option<f64>,
    /// Resume an unfinished run; if it does not match the settings, `auto` starts over and `always` fails
    #[arg(long, value_name = "HOW", value_enum, num_args = 0..=1, require_equals = true, default_value_t,
          default_missing_value = "always")]
    #[serde(skip)]
    resume: Resume,
}

#[derive(Debug, Args, Serialize)]
struct EvaluateFlags {
    /// Folder with the dataset tables
    #[arg(long, value_name = "DIR")]
    dataset: Option<PathBuf>,
    /// Model folder, or a parser's
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Folder to write evaluation.json to [default: that of the model]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Split of the dataset
    #[arg(long, value_parser = ["train", "validation", "test"])]
    split: Option<String>,
    /// Also predict the photos of the other parts, to look for true neighbours in the whole data set [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    whole_dataset: Option<bool>,
    /// Minimum share of a cell that is present, as in `segment` [default: 0.15]
    #[arg(long, value_name = "FRACTION")]
    min_share: Option<f64>,
    /// Minimum connected region of a cell that is present, as in `segment` [default: 0.05]
    #[arg(long, value_name = "FRACTION")]
    min_region: Option<f64>,
    /// Device to run the network on
    #[arg(long, value_parser = ["auto", "cpu", "cuda"])]
    device: Option<String>,
    /// Number format of the network's arithmetic, as in `segment`; other than f32 with --output [default: f32]
    #[arg(long, value_parser = ["f32", "bf16", "int8", "auto"])]
    precision: Option<String>,
    /// First measure the ranges of the model's maps that int8 needs, on photos of the train part [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    calibrate: Option<bool>,
}

#[derive(Debug, Args, Serialize)]
struct ExportFlags {
    /// Model folder
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Folder to write the exported files to
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args, Serialize)]
struct SegmentFlags {
    /// Photos to segment: a dataset folder, a folder tree of photos, or a Parquet or CSV list of ids and paths
    #[arg(long, value_name = "DIR_OR_TABLE")]
    catalogue: Option<PathBuf>,
    /// Model folder, or a parser's
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Embedder folder: also write a vector for each photo, for the similarity measure `embedding` [default: none]
    #[arg(long, value_name = "DIR")]
    embedder: Option<PathBuf>,
    /// Folder to write the feature table to
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Source of the categories: the model, or the data set's labels
    #[arg(long, value_parser = ["model", "labels"])]
    from: Option<String>,
    /// How a category's colour is chosen
    #[arg(long, value_parser = ["per_pixel", "first_pixel"])]
    color_rule: Option<String>,
    /// Minimum share of the apparel for a category in a colour to be present, as a fraction of the category's usual share
    /// [default: 0.15]
    #[arg(long, value_name = "FRACTION")]
    min_share: Option<f64>,
    /// Minimum share of its largest connected region, likewise [default: 0.05]
    #[arg(long, value_name = "FRACTION")]
    min_region: Option<f64>,
    /// Write Parquet only, or Arrow IPC as well
    #[arg(long, value_parser = ["parquet", "arrow"])]
    format: Option<String>,
    /// Commit the table as a Delta table as well, beside the output [default: folder]
    #[arg(long, value_parser = ["folder", "delta"])]
    table: Option<String>,
    /// Also write each photo's label map, at the photo's size: as a palette PNG, and with `coco` or `label-studio` in files
    /// for labelling tools as well [default: none]
    #[arg(long, value_parser = ["none", "png", "coco", "label-studio"])]
    masks: Option<String>,
    /// Write masks only for the N photos that the network is least certain of; 0 for all [default: 0]
    #[arg(long, value_name = "N")]
    uncertain: Option<u32>,
    /// Reject photos larger than N megapixels [default: 100]
    #[arg(long, value_name = "N")]
    max_megapixels: Option<u32>,
    /// Keep the rows of photos that are no longer in the catalogue [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    keep_vanished: Option<bool>,
    /// Device to run the network on
    #[arg(long, value_parser = ["auto", "cpu", "cuda"])]
    device: Option<String>,
    /// Number format of the network's arithmetic; auto is bf16 if the processor supports it
    #[arg(long, value_parser = ["f32", "bf16", "int8", "auto"])]
    precision: Option<String>,
    /// Let --precision auto choose int8 if the processor and the model allow it [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    allow_int8: Option<bool>,
    /// Fail if more than this fraction of the photos is rejected [default: 0.05]
    #[arg(long)]
    max_reject_fraction: Option<f64>,
    /// Segment only the photos of shard I of N, e.g. 2/8, into the shard's own folder; env: the shard that an array job says
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// How photos are divided among shards: by a hash of the name, by part of the table (a merge takes whole parts over
    /// unread), or by part in large folder trees
    #[arg(long, value_parser = ["auto", "name", "part"])]
    shard_by: Option<String>,
    /// Merge the folders of all shards into one table
    #[arg(long)]
    merge: bool,
}

#[derive(Debug, Args, Serialize)]
struct SimilarityFlags {
    /// Folder with the feature table
    #[arg(long, value_name = "DIR")]
    features: Option<PathBuf>,
    /// Folder to write the matrix and the neighbours to
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    choice: ChoiceFlags,
    /// Similarity measure
    #[arg(long, value_parser = MEASURES)]
    measure: Option<String>,
    /// Nearest neighbours to list for each photo [default: 10]
    #[arg(long, value_name = "K")]
    top: Option<u32>,
    /// Minimum number of cells two photos must share to be compared, for `co_rated` [default: 3]
    #[arg(long)]
    min_common: Option<u32>,
    /// Maximum dimensions of the truncated SVD, for `latent` [default: 32]
    #[arg(long)]
    latent_dimensions: Option<usize>,
    /// Write the full matrix, or only the neighbours [default: full]
    #[arg(long, value_parser = ["full", "none"])]
    matrix: Option<String>,
    /// Number format of the matrix [default: f32]
    #[arg(long, value_parser = ["f32", "f16"])]
    precision: Option<String>,
    /// Also write a long table of the pairs with at least this correlation
    #[arg(long, value_name = "CORRELATION", allow_negative_numbers = true)]
    threshold: Option<f32>,
    /// Commit the neighbours as a Delta table as well, beside the output [default: folder]
    #[arg(long, value_parser = ["folder", "delta"])]
    table: Option<String>,
    /// Take the neighbours of more than N photos from an approximate index (with --matrix none) [default: 1000000]
    #[arg(long, value_name = "N")]
    exact_up_to: Option<usize>,
    /// Maximum memory for correlations, e.g. 512MiB [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Compute only shard I of N of the rows, into its own folder beside the output; env: the shard that an array job says
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// Merge the folders of all shards into one, using the settings they were made with
    #[arg(long)]
    merge: bool,
}

/// Which photos of the feature table are taken.
#[derive(Debug, Args, Serialize)]
struct ChoiceFlags {
    /// Parquet or CSV table with one row for a photo, joined by its column `photo_id`, `path` or `file_name`
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,
    /// Take only photos that fulfil a condition in SQL on columns of --metadata and of the feature table, such as
    /// "price < 80 and brand = 'X'"
    #[arg(long = "where", value_name = "CONDITION")]
    #[serde(rename = "where")]
    condition: Option<String>,
}

#[derive(Debug, Args, Serialize)]
struct SteeringFlags {
    /// Only these categories count in the correlation, such as dress,shoe
    #[arg(long, value_name = "CATEGORIES", value_delimiter = ',')]
    wearing: Option<Vec<String>>,
    /// Only the colours of this garment count
    #[arg(long, value_name = "CATEGORY")]
    garment: Option<String>,
    /// Add a weight (1, or as in dress=2) times the share of these categories, colours or cells to what photos are ranked by
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    like: Option<Vec<String>>,
    /// Take it off
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    unlike: Option<Vec<String>>,
    /// Only photos with these categories in the photo's main colour of them
    #[arg(long, value_name = "CATEGORIES", value_delimiter = ',')]
    same: Option<Vec<String>>,
    /// Only photos without these categories in the photo's main colour of them
    #[arg(long, value_name = "CATEGORIES", value_delimiter = ',')]
    different: Option<Vec<String>>,
    /// Only the nearest of each group of duplicates, and none of the photo's own group [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    no_duplicates: Option<bool>,
    /// Folder with the groups of duplicates
    #[arg(long, value_name = "DIR")]
    duplicates: Option<PathBuf>,
    /// How much unlikeness among the recommended photos counts against likeness to the photo, 0 to 1 [default: 0]
    #[arg(long, value_name = "SHARE")]
    diverse: Option<f32>,
    /// Only photos with at least this correlation
    #[arg(long, value_name = "CORRELATION", allow_negative_numbers = true)]
    min_correlation: Option<f32>,
}

/// What goes with a photo, and who chose it.
#[derive(Debug, Args, Serialize)]
struct OutfitFlags {
    /// Also name the N garments that most go with each photo, by what the catalogue's photos wear together [default without
    /// N: 3]
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "3")]
    complete: Option<u32>,
    /// For --complete: photos of the catalogue that have to wear a garment with the others [default: 10]
    #[arg(long, value_name = "PHOTOS")]
    min_support: Option<u32>,
    /// Parquet or CSV table of who chose which photo of the catalogue, with the columns `user`, `photo_id` (or `path`, or
    /// `file_name`) and, if they differ, `weight`: photos that the same people chose come first
    #[arg(long, value_name = "FILE")]
    interactions: Option<PathBuf>,
    /// Weight of the interactions, from 0 (looks alone) to 1 [default: 0.3]
    #[arg(long, value_name = "SHARE")]
    blend: Option<f64>,
}

#[derive(Debug, Args, Serialize)]
struct DuplicatesFlags {
    /// Folder with the feature table
    #[arg(long, value_name = "DIR")]
    features: Option<PathBuf>,
    /// Folder to write the groups to
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Bits in which the hashes of near-duplicates may differ, 0 to 11 of 64 [default: 8]
    #[arg(long, value_name = "BITS")]
    distance: Option<u32>,
}

#[derive(Debug, Args, Serialize)]
struct RecommendFlags {
    /// Photos, or folders of photos
    #[arg(required_unless_present = "list", value_name = "PHOTO")]
    #[serde(skip)]
    photos: Vec<PathBuf>,
    /// Photos to answer at once, into tables in --output: a folder tree, a dataset folder, or a Parquet or CSV list of ids and
    /// paths
    #[arg(long = "photos", value_name = "DIR_OR_TABLE", conflicts_with = "photos")]
    #[serde(rename = "photos")]
    list: Option<PathBuf>,
    /// With --photos: fail if more than this fraction of the photos is rejected [default: 0.05]
    #[arg(long, value_name = "FRACTION", requires = "list")]
    max_reject_fraction: Option<f64>,
    /// Model folder, or a parser's
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Embedder that the features were made with, for the measure `embedding`
    #[arg(long, value_name = "DIR")]
    embedder: Option<PathBuf>,
    /// Folder with the feature table
    #[arg(long, value_name = "DIR")]
    features: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    choice: ChoiceFlags,
    #[command(flatten)]
    #[serde(flatten)]
    steering: SteeringFlags,
    #[command(flatten)]
    #[serde(flatten)]
    outfit: OutfitFlags,
    /// Looks to recommend for each photo [default: 5]
    #[arg(long)]
    top: Option<u32>,
    /// Similarity measure
    #[arg(long, value_parser = MEASURES)]
    measure: Option<String>,
    /// Folder to write contact sheets to, one per photo; with --photos, folder to write the tables to
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Output format
    #[arg(long, value_parser = ["text", "json"])]
    format: Option<String>,
    /// Device to run the network on
    #[arg(long, value_parser = ["auto", "cpu", "cuda"])]
    device: Option<String>,
}

#[derive(Debug, Args, Serialize)]
struct ReportFlags {
    /// Run folder, which holds the stages' folders
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Model folder, or a parser's, to show [default: that of the run]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Folder to write the page to
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Parquet or CSV file with columns about the photos, for the gallery's filters
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,
    /// Folder of `duplicates`, whose groups the gallery folds [default: that of the run, if it has one]
    #[arg(long, value_name = "DIR")]
    duplicates: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct StatusFlags {
    /// Run folder, which holds the stages' folders
    #[arg(value_name = "DIR", default_value = "output")]
    run: PathBuf,
    /// Also verify the checksum of every published file
    #[arg(long)]
    verify: bool,
}

#[derive(Debug, Args)]
struct RollbackFlags {
    /// Published folder, e.g. output/features
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

#[derive(Debug, Args)]
struct DoctorFlags {
    /// Folder the stages will write to
    #[arg(long, value_name = "DIR", default_value = "output")]
    output: PathBuf,
}

#[derive(Debug, Subcommand)]
enum ParserCommand {
    /// Say what is understood of a parser's folder, run it, and compare its labels with those of another program
    Check(ParserCheckFlags),
}

#[derive(Debug, Args)]
struct ParserCheckFlags {
    /// Parser folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Photo to run it on
    #[arg(long, value_name = "FILE")]
    photo: Option<PathBuf>,
    /// Labels that the photo should have: a PNG of its size, one byte a pixel, with places in output.labels
    #[arg(long, value_name = "PNG", requires = "photo")]
    expect: Option<PathBuf>,
    /// Device to run the network on
    #[arg(long, value_enum, default_value_t)]
    device: Device,
}

#[derive(Debug, Args)]
struct SettingsFlags {
    /// Stage name, or another section of the settings; without one, the text of the settings file is printed
    stage: Option<String>,
}

#[derive(Debug, Args)]
struct CompletionsFlags {
    /// Shell to complete in
    shell: Shell,
}

#[derive(Debug, Args)]
struct ManFlags {
    /// Folder to write the manual pages to, one for each command
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl Cli {
    /// Logs to stderr: our own messages from `info` up (`debug` with `--verbose`), and libraries' errors only.
    /// `RUST_LOG` overrides this.
    pub(crate) fn start_logging(&self) {
        let ours = if self.common.verbose { LevelFilter::DEBUG } else { LevelFilter::INFO };
        let named = std::env::var("RUST_LOG").ok().and_then(|it| it.parse::<Targets>().ok());
        let by_default = || Targets::new().with_default(LevelFilter::ERROR).with_target("lookbook", ours);
        let levels = named.unwrap_or_else(by_default);
        let registry = tracing_subscriber::registry().with(levels);
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        if self.json() {
            registry.with(layer.json()).init();
        } else {
            registry.with(layer.with_target(false).with_ansi(false)).init();
        }
    }

    /// Prints an error with its causes to stderr.
    pub(crate) fn print_error(&self, error: &Error) {
        self.print_problem(&error.with_causes(), error.exit_code());
    }

    fn print_problem(&self, message: &str, exit_code: u8) {
        if self.json() {
            tracing::error!(exit_code, "{message}");
        } else {
            let _ = writeln!(std::io::stderr(), "lookbook: {message}");
        }
    }

    /// Runs the command; returns the exit code.
    pub(crate) fn run(&self) -> Result<u8> {
        if let Command::Doctor(flags) = &self.command {
            return self.doctor(flags);
        }
        let settings = self.settings()?;
        let common = self.common.resolve(&settings)?;
        store::configure(settings.store()?);
        if self.command.works() {
            threads::set_global(common.threads)?;
        }
        match &self.command {
            Command::Run(flags) => return self.run_all(flags, &settings, &common),
            Command::Sample(flags) => return self.run_stage(flags, &settings, &common, sample::run),
            Command::Convert(flags) => return self.run_stage(flags, &settings, &common, convert::run),
            Command::Train(flags) => {
                let run = |config: &_, common: &_| train::run_or_resume(config, flags.resume, common);
                return self.run_stage(flags, &settings, &common, run);
            }
            Command::Export(flags) => return self.run_stage(flags, &settings, &common, export::run),
            Command::Segment(flags) => return self.run_stage(flags, &settings, &common, segment::run),
            Command::Similarity(flags) => return self.run_stage(flags, &settings, &common, similarity::run),
            Command::Duplicates(flags) => return self.run_stage(flags, &settings, &common, duplicates::run),
            Command::Report(flags) => return self.run_stage(flags, &settings, &common, report::run),
            Command::Evaluate(flags) => self.evaluate(flags, &settings, &common)?,
            Command::Recommend(flags) if flags.photos.is_empty() => {
                return self.run_stage(flags, &settings, &common, recommend::many::run);
            }
            Command::Recommend(flags) => recommend(&settings, flags, &common)?,
            Command::Parser(ParserCommand::Check(flags)) => {
                let ParserCheckFlags { folder, photo, expect, device } = flags;
                let [photo, expect] = [photo, expect].map(Clone::clone);
                let folder = Mirror::new().bring(folder)?;
                let request = parser::check::Request { folder, photo, expect, device: *device };
                self.show(&parser::check::run(&request, &common)?)?;
            }
            Command::Settings(SettingsFlags { stage: Some(stage) }) => print_json(&settings.resolved(stage)?)?,
            Command::Settings(SettingsFlags { stage: None }) => print(settings.text().trim_end())?,
            Command::Completions(CompletionsFlags { shell }) => {
                print(manual::completions(Self::command(), *shell).trim_end())?;
            }
            Command::Man(ManFlags { output: None }) => print(manual::page(Self::command()).trim_end())?,
            Command::Man(ManFlags { output: Some(folder) }) => manual::write_pages(Self::command(), folder)?,
            Command::Status(flags) => {
                let run = Mirror::new().bring_run(&flags.run)?;
                self.show(&status::run(&run, &settings, flags.verify)?)?;
            }
            Command::Rollback(flags) => roll_back(&flags.folder, common.dry_run)?,
            Command::Doctor(_) => {}
        }
        Ok(0)
    }

    /// Checks the machine and whether a run could begin; unlike other commands it goes on if the settings are wrong.
    fn doctor(&self, flags: &DoctorFlags) -> Result<u8> {
        let output = Mirror::new().local(&flags.output)?;
        let mut report = doctor::run(self.common.config.as_deref(), &output);
        if let Ok(settings) = self.settings() {
            let request = run::Request { output: Some(flags.output.clone()), ..run::Request::default() };
            let common = self.common.resolve(&settings);
            report.add_run(common.and_then(|common| run::check(&request, &settings, &common)));
        }
        self.show(&report)?;
        Ok(report.exit_code())
    }

    /// The settings that `--config` names, or else those of the sample for what runs it; a single stage, and a run over a data
    /// set of one's own, have the defaults of each stage.
    fn settings(&self) -> Result<Settings> {
        let config = self.common.config.as_deref();
        let is_sample = match &self.command {
            Command::Run(flags) => flags.source.is_none(),
            Command::Doctor(_) | Command::Settings(SettingsFlags { stage: None }) => true,
            _ => false,
        };
        if config.is_some() || is_sample { Settings::read(config) } else { Ok(Settings::default()) }
    }

    /// Runs every stale stage.
    fn run_all(&self, flags: &RunFlags, settings: &Settings, common: &Common) -> Result<u8> {
        let RunFlags { output, source, catalogue, only, force, shard, merge } = flags;
        let [output, source, catalogue] = [output, source, catalogue].map(Clone::clone);
        let (only, force) = (only.clone(), force.clone());
        let request = run::Request { output, source, catalogue, only, force, shard: *shard, merge: *merge };
        let report = run::run(&request, settings, common)?;
        if let Some(problem) = report.problem() {
            return self.end(problem);
        }
        if common.if_changed && report.stages.iter().all(|it| it.did == run::Did::Nothing) {
            return self.end(&Outcome::NothingToDo { output: report.output });
        }
        self.show(&report)?;
        Ok(0)
    }

    /// Prints what a stage did to stdout, a problem to stderr; returns the exit code.
    fn end(&self, outcome: &Outcome) -> Result<u8> {
        if let Some(problem) = outcome.problem() {
            self.print_problem(&problem, outcome.exit_code());
        }
        match outcome {
            Outcome::NothingToDo { .. } => {
                self.show(&Nothing { nothing_to_do: outcome.to_string() })?;
                return Ok(self.common.skip_exit_code);
            }
            Outcome::Published(summary) | Outcome::Planned(summary) => self.show_summary(summary)?,
            // The rejects matter more than a lost summary.
            Outcome::TooManyRejects { summary, .. } => drop(self.show_summary(summary)),
            Outcome::KeptBack { .. } | Outcome::Stopped { .. } => {}
        }
        Ok(outcome.exit_code())
    }

    /// Runs a stage, records its start and outcome, and prints its summary.
    fn run_stage<C: StageConfig>(
        &self,
        flags: &impl Serialize,
        settings: &Settings,
        common: &Common,
        run: impl FnOnce(&C, &Common) -> Result<Outcome>,
    ) -> Result<u8> {
        let mut mirror = Mirror::new();
        let config: C = mirror.here(settings.resolve(C::NAME, flags)?)?;
        config.check()?;
        if common.if_changed && stage::reasons(&config, common, mirror.depth(&config.folder()))?.is_empty() {
            mirror.catch_up(&config.folder(), common)?;
            return self.end(&run::nothing_to_do(&config, settings, common)?);
        }
        let outcome = if common.dry_run {
            run(&config, common)
        } else {
            run::recorded(&config, settings, common, |config| {
                run::run_and_deliver(config, &mut mirror, common, |config| run(config, common))
            })
        };
        self.end(&outcome?)
    }

    fn evaluate(&self, flags: &EvaluateFlags, settings: &Settings, common: &Common) -> Result<()> {
        let mut mirror = Mirror::new();
        let config: evaluate::Config = mirror.settings(settings.resolve("evaluate", flags)?)?;
        let output = config.output.as_ref().unwrap_or(&config.model);
        let recorder = Recorder::start(settings.runs()?, "evaluate", &Destination::new(output, output.clone()), common);
        let result = mirror.around(output, common, || evaluate::run(&config, common), |_| true);
        let outcome = result.as_ref().map(|(_, summary)| Outcome::Published(summary.clone()));
        recorder.end(outcome.as_ref().map_err(|error| *error));
        let (evaluation, summary) = result?;
        self.show(&evaluation)?;
        if self.json() { Ok(()) } else { print_summary(&summary) }
    }

    fn show_summary(&self, summary: &Summary) -> Result<()> {
        if self.json() { print_json(summary) } else { print_summary(summary) }
    }

    fn show(&self, result: &(impl std::fmt::Display + Serialize)) -> Result<()> {
        if self.json() { print_json(result) } else { print(result) }
    }

    fn json(&self) -> bool {
        self.common.log_format == "json"
    }
}

impl CommonFlags {
    /// Resolves the settings common to all stages: flags first, then the settings file, then defaults.
    fn resolve(&self, settings: &Settings) -> Result<Common> {
        let common = settings.common(self)?;
        Ok(Common {
            dry_run: self.dry_run,
            if_changed: self.if_changed,
            lock_wait_secs: self.lock_wait,
            keep_versions: self.keep_versions.map_or(common.keep_versions, usize::from),
            run_name: self.run_name.clone().unwrap_or_else(|| common.run_name.clone()),
            ..common
        })
    }
}

/// Parses one stage, or a range `first..last`.
#[allow(clippy::unnecessary_wraps, reason = "clap expects this signature")]
fn stages(text: &str) -> std::result::Result<[String; 2], String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    Ok([first, last].map(|it| it.trim().to_owned()))
}

/// Printed when there is nothing to do.
#[derive(Serialize)]
struct Nothing {
    nothing_to_do: String,
}

impl std::fmt::Display for Nothing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.nothing_to_do)
    }
}

fn roll_back(folder: &Path, dry_run: bool) -> Result<()> {
    let verb = if dry_run { "would become" } else { "is now" };
    let mut mirror = Mirror::new();
    let local = mirror.local(folder)?;
    let summary = match (mirror::is_stored(folder), dry_run) {
        (true, _) => mirror.roll_back(folder, dry_run)?,
        (false, true) => stage::previous(&local)?,
        (false, false) => stage::roll_back(&local)?,
    };
    print(&format!("{} {verb} the version of {}", folder.display(), summary.started_at))
}

fn recommend(settings: &Settings, flags: &RecommendFlags, common: &Common) -> Result<()> {
    let config: recommend::Config = settings.resolve("recommend", flags)?;
    if config.output.as_deref().is_some_and(store::is_url) {
        return Err(Error::config("output", "is a URL, but contact sheets are drawn on this machine; name a folder"));
    }
    let config = Mirror::new().settings(config)?;
    let recommendations = recommend::run(&config, &flags.photos, common)?;
    match config.format {
        recommend::Format::Json => print_json(&recommendations),
        recommend::Format::Text => recommendations.iter().try_for_each(print),
    }
}

fn print_summary(summary: &Summary) -> Result<()> {
    let verb = if summary.dry_run { "would write" } else { "wrote" };
    let mut lines = vec![format!("{}: {verb} {}", summary.stage, shown(&summary.output).display())];
    lines.extend(summary.counts.single().map(|(name, value)| format!("  {name}: {value}")));
    if !summary.dry_run {
        lines.push(format!("  seconds: {:.1}", summary.elapsed_secs));
    }
    print(&lines.join("\n"))
}

fn print_json(value: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value).expect("results are plain data"))
}

/// Prints to stdout, in one write, so that a reader such as `head` has it all before it closes the pipe.
///
/// # Errors
/// [`Error::Io`] if the disk is full, or the pipe or standard output is closed: what is printed is the result, and must
/// not get lost unnoticed.
fn print<T: std::fmt::Display + ?Sized>(text: &T) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = if stdout_was_closed() {
        Err(ErrorKind::BrokenPipe.into())
    } else {
        out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush())
    };
    written.map_err(Error::io("print the results", "standard output"))
}
