//! One subcommand a stage: flags to that stage's `Config`, its summary to stdout.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use lookbook::error::{Error, Result};
use lookbook::runs::{Place, Recorder};
use lookbook::settings::Settings;
use lookbook::shard::Shard;
use lookbook::stage::{self, Common, Depth, StageConfig, Summary};
use lookbook::train::Resume;
use lookbook::{convert, doctor, evaluate, export, recommend, report, run, sample, segment, similarity, status, train};
use serde::Serialize;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Turns a fashion-parsing data set into tables, a segmentation model, a similarity matrix and looks to recommend.
///
/// Exit codes: 0 complete, 1 failed or kept back by a gate, 2 usage, 3 finished with more rejects than allowed, 75 another
/// run holds the folder, 130 and 143 stopped by SIGINT and SIGTERM.
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
    /// Settings file; its section of the stage's name holds what the stage's flags set (pipelines/*.toml)
    #[arg(long, global = true, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Seed of everything random [default: 0]
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// Worker threads [default: all processors]
    #[arg(long, global = true)]
    threads: Option<usize>,
    /// Operators of the network: native ones (CPU) or those of ONNX [default: auto: native on the CPU]
    #[arg(long, global = true, value_parser = ["auto", "portable", "native"])]
    dialect: Option<String>,
    /// Instructions of native operators [default: auto: the best that the processor has]
    #[arg(long, global = true, value_parser = ["auto", "portable", "avx2", "avx512"])]
    instructions: Option<String>,
    /// Check everything that is quick to check, say what would be done, write nothing
    #[arg(long, global = true)]
    #[serde(skip)]
    dry_run: bool,
    /// Do nothing where program, settings, inputs and what is published are as the last run left them
    #[arg(long, global = true)]
    #[serde(skip)]
    if_changed: bool,
    /// Exit code where --if-changed finds nothing to do; Airflow takes 99 as skipped
    #[arg(long, global = true, value_name = "CODE", default_value_t = 0)]
    #[serde(skip)]
    skip_exit_code: u8,
    /// How long to wait for a run that holds the folder, as 90s, 10m or 2h
    #[arg(long, global = true, value_name = "TIME", value_parser = seconds, default_value = "0s")]
    #[serde(skip)]
    lock_wait: u64,
    /// Versions of the folder that are kept, the published one included [default: 2]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    #[serde(skip)]
    keep_versions: Option<u8>,
    /// Name of the whole run that this is a part of, for the records [default: the time]
    #[arg(long, global = true, value_name = "NAME")]
    #[serde(skip)]
    run_name: Option<String>,
    /// How logs (stderr) and summaries (stdout) are written
    #[arg(long, global = true, value_parser = ["text", "json"], default_value = "text")]
    #[serde(skip)]
    log_format: String,
    /// Log more; the variable `RUST_LOG` says what in detail, as `RUST_LOG=lookbook=trace`
    #[arg(short, long, global = true)]
    #[serde(skip)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every stage that is stale, in order: from the data set, or the built-in sample, to the report
    Run(RunFlags),
    /// Draw the built-in data set: dressed figures, in the layout of the Colorful Fashion Parsing data set
    Sample(SampleFlags),
    /// Convert a data set (CFPD or CCP layout, detected) into the dataset tables
    Convert(ConvertFlags),
    /// Train the network on the dataset's train part
    Train(TrainFlags),
    /// Compare a model with the labels of a part of the dataset
    Evaluate(EvaluateFlags),
    /// Copy a model's ONNX graphs and weights for use elsewhere
    Export(ExportFlags),
    /// Turn a photo catalogue into the feature table: the shares of categories and colours
    Segment(SegmentFlags),
    /// Correlate all photos with all photos
    Similarity(SimilarityFlags),
    /// Recommend looks of the catalogue for photos of your own
    Recommend(RecommendFlags),
    /// Make the page that shows a run
    Report(ReportFlags),
    /// Print the last runs of a run folder, and which of its folders are stale and why
    Status(StatusFlags),
    /// Put the version before into the place of a published folder; a second time takes it back
    Rollback(RollbackFlags),
    /// Say what this machine has of what the stages need, and what to do about the rest
    Doctor(DoctorFlags),
    /// Print a stage's settings as they resolve, as JSON
    Settings(SettingsFlags),
}

const MEASURES: [&str; 4] = ["pearson", "co_rated", "cosine", "latent"];

// The flags of a stage have the names of its settings; what is not given is left to the settings file.

#[derive(Debug, Args)]
struct RunFlags {
    /// Folder that holds the folders of the stages [default: that of the settings, else output]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Folder of the data set [default: that of the settings, else the built-in sample]
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Photos to segment [default: those of the settings, else the data set's own]
    #[arg(long, value_name = "DIR_OR_TABLE")]
    catalogue: Option<PathBuf>,
    /// Only these stages: one, or the first and the last, as in segment..report
    #[arg(long, value_name = "STAGES", value_parser = stages)]
    only: Option<[String; 2]>,
    /// Run a stage though it is up to date; may be given several times
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// Make one shard of segment or similarity, as 2/8, into a folder of its own; with --only
    #[arg(long, value_name = "I/N", requires = "only")]
    shard: Option<Shard>,
    /// Merge the shards of segment or similarity; with --only
    #[arg(long, requires = "only", conflicts_with = "shard")]
    merge: bool,
}

#[derive(Debug, Args, Serialize)]
struct SampleFlags {
    /// Folder of the data set
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Number of photos [default: 64]
    #[arg(long)]
    photos: Option<u32>,
}

#[derive(Debug, Args, Serialize)]
struct ConvertFlags {
    /// Folder of the data set
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Folder of the dataset tables
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Largest share of photos that may be rejected [default: 0.05]
    #[arg(long)]
    max_reject_fraction: Option<f64>,
}

#[derive(Debug, Args, Serialize)]
struct TrainFlags {
    /// Folder of the dataset tables
    #[arg(long, value_name = "DIR")]
    dataset: Option<PathBuf>,
    /// Folder of the model
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The way to train: what the settings are that neither a file nor a flag gives [default: best]
    #[arg(long, value_parser = ["seed", "best"])]
    recipe: Option<String>,
    /// Passes over the train part [default: 25]
    #[arg(long)]
    epochs: Option<u32>,
    /// Photos a step
    #[arg(long)]
    batch_size: Option<usize>,
    /// Photos that are worked on at once, where memory is too small for a whole step; 0 for all
    #[arg(long)]
    micro_batch_size: Option<usize>,
    /// Highest learning rate of Adam
    #[arg(long)]
    learning_rate: Option<f32>,
    /// How the learning rate goes over the run
    #[arg(long, value_parser = ["constant", "cosine"])]
    schedule: Option<String>,
    /// What the network's maps mean
    #[arg(long, value_parser = ["bce", "softmax"])]
    loss: Option<String>,
    /// Where the network runs
    #[arg(long, value_parser = ["auto", "cpu", "cuda"])]
    device: Option<String>,
    /// Which weights are published: the last, or the best over the validation part [default: last]
    #[arg(long, value_parser = ["last", "best"])]
    publish: Option<String>,
    /// End after so many epochs without a better mean IoU over the validation part; 0: never [default: 0]
    #[arg(long, value_name = "EPOCHS")]
    patience: Option<u32>,
    /// End after so many minutes with the current step, and publish what there is
    #[arg(long, value_name = "MINUTES")]
    max_minutes: Option<f64>,
    /// Go on with a run that was left unfinished; `auto` begins anew where it was another run, `always` fails
    #[arg(long, value_name = "HOW", value_enum, num_args = 0..=1, require_equals = true, default_value_t,
          default_missing_value = "always")]
    #[serde(skip)]
    resume: Resume,
}

#[derive(Debug, Args, Serialize)]
struct EvaluateFlags {
    /// Folder of the dataset tables
    #[arg(long, value_name = "DIR")]
    dataset: Option<PathBuf>,
    /// Folder of the model; evaluation.json goes there
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Part of the dataset
    #[arg(long, value_parser = ["train", "validation", "test"])]
    split: Option<String>,
    /// Where the network runs
    #[arg(long, value_parser = ["auto", "cpu", "cuda"])]
    device: Option<String>,
}

#[derive(Debug, Args, Serialize)]
struct ExportFlags {
    /// Folder of the model
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Folder of the exported files
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args, Serialize)]
struct SegmentFlags {
    /// A dataset folder, a folder tree of photos, or a Parquet or CSV list of ids and paths
    #[arg(long, value_name = "DIR_OR_TABLE")]
    catalogue: Option<PathBuf>,
    /// Folder of the model
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Folder of the feature table
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Where the categories come from
    #[arg(long, value_parser = ["model", "labels"])]
    from: Option<String>,
    /// How a category gets its colour
    #[arg(long, value_parser = ["per_pixel", "first_pixel"])]
    color_rule: Option<String>,
    /// Parquet alone, or Arrow IPC beside it
    #[arg(long, value_parser = ["parquet", "arrow"])]
    format: Option<String>,
    /// Write each photo's label map at the photo's own size, as a palette PNG [default: none]
    #[arg(long, value_parser = ["none", "png"])]
    masks: Option<String>,
    /// Most million pixels that a photo may have [default: 100]
    #[arg(long, value_name = "N")]
    max_megapixels: Option<u32>,
    /// Whether photos that are no longer in the catalogue keep their rows [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    keep_vanished: Option<bool>,
    /// Where the network runs
    #[arg(long, value_parser = ["auto", "cpu", "cuda"])]
    device: Option<String>,
    /// Numbers that the network computes in; auto: bf16 where the processor has it
    #[arg(long, value_parser = ["f32", "bf16", "auto"])]
    precision: Option<String>,
    /// Largest share of photos that may be rejected [default: 0.05]
    #[arg(long)]
    max_reject_fraction: Option<f64>,
    /// Segment the photos of one shard alone, as 2/8, into a folder of its own
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// Make one table of the folders of all shards
    #[arg(long)]
    merge: bool,
}

#[derive(Debug, Args, Serialize)]
struct SimilarityFlags {
    /// Folder of the feature table
    #[arg(long, value_name = "DIR")]
    features: Option<PathBuf>,
    /// Folder of the matrix and the neighbours
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// How alike two photos are
    #[arg(long, value_parser = MEASURES)]
    measure: Option<String>,
    /// Neighbours of each photo [default: 10]
    #[arg(long, value_name = "K")]
    top: Option<u32>,
    /// Cells that two photos must have in common to be co-rated [default: 3]
    #[arg(long)]
    min_common: Option<u32>,
    /// Dimensions of the truncated SVD at most, for `latent` [default: 32]
    #[arg(long)]
    latent_dimensions: Option<usize>,
    /// Whether the matrix is written, not the neighbours alone [default: full]
    #[arg(long, value_parser = ["full", "none"])]
    matrix: Option<String>,
    /// The type of the matrix's correlations [default: f32]
    #[arg(long, value_parser = ["f32", "f16"])]
    precision: Option<String>,
    /// Write the pairs whose correlation is this or more as a long table
    #[arg(long, value_name = "CORRELATION", allow_negative_numbers = true)]
    threshold: Option<f32>,
    /// Memory for correlations at most, as in 512MiB [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Do piece I of N of the rows, into a folder of its own beside the output
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// Make one folder of the folders of all shards, with the settings that they were made with
    #[arg(long)]
    merge: bool,
}

#[derive(Debug, Args, Serialize)]
struct RecommendFlags {
    /// Photos, or folders of photos
    #[arg(required = true, value_name = "PHOTO")]
    #[serde(skip)]
    photos: Vec<PathBuf>,
    /// Folder of the model
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Folder of the feature table
    #[arg(long, value_name = "DIR")]
    features: Option<PathBuf>,
    /// Looks for each photo [default: 5]
    #[arg(long)]
    top: Option<u32>,
    /// How alike two photos are
    #[arg(long, value_parser = MEASURES)]
    measure: Option<String>,
    /// Folder for contact sheets, one a photo
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// How the result is printed
    #[arg(long, value_parser = ["text", "json"])]
    format: Option<String>,
    /// Where the network runs
    #[arg(long, value_parser = ["auto", "cpu", "cuda"])]
    device: Option<String>,
}

#[derive(Debug, Args, Serialize)]
struct ReportFlags {
    /// Folder that holds the folders of the stages
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Folder of the page
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct StatusFlags {
    /// Folder that holds the folders of the stages
    #[arg(value_name = "DIR", default_value = "output")]
    run: PathBuf,
    /// Also read every published file and compare it with its checksum
    #[arg(long)]
    verify: bool,
}

#[derive(Debug, Args)]
struct RollbackFlags {
    /// A published folder, as output/features
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

#[derive(Debug, Args)]
struct DoctorFlags {
    /// Folder that the stages will write into
    #[arg(long, value_name = "DIR", default_value = "output")]
    output: PathBuf,
}

#[derive(Debug, Args)]
struct SettingsFlags {
    /// The stage
    stage: String,
}

impl Cli {
    /// Logs go to stderr: ours from `info` on (`debug` with `--verbose`), of libraries what went wrong; or as `RUST_LOG` says.
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
        let message = error.with_causes();
        if self.json() {
            tracing::error!(exit_code = error.exit_code(), "{message}");
        } else {
            let _ = writeln!(std::io::stderr(), "lookbook: {message}");
        }
    }

    /// Runs the command; returns the exit code.
    pub(crate) fn run(&self) -> Result<u8> {
        if let Command::Doctor(flags) = &self.command {
            let report = doctor::run(self.common.config.as_deref(), &flags.output);
            self.show(&report);
            return Ok(report.exit_code());
        }
        let settings = Settings::read(self.common.config.as_deref())?;
        let common = self.common.resolve(&settings)?;
        // The pool can be built once; a second time is no error worth a word.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(common.threads).build_global();
        match self.run_command(&settings, &common) {
            Err(done @ Error::NothingToDo { .. }) => {
                self.show(&Nothing { nothing_to_do: done.to_string() });
                Ok(self.common.skip_exit_code)
            }
            other => other.map(|()| 0),
        }
    }

    fn run_command(&self, settings: &Settings, common: &Common) -> Result<()> {
        match &self.command {
            Command::Run(flags) => self.run_all(flags, settings, common),
            Command::Sample(flags) => self.run_stage(flags, settings, common, sample::run),
            Command::Convert(flags) => self.run_stage(flags, settings, common, convert::run),
            Command::Train(flags) => self.run_stage(flags, settings, common, |config, common| {
                train::run_or_resume(config, flags.resume, common)
            }),
            Command::Evaluate(flags) => self.evaluate(flags, settings, common),
            Command::Export(flags) => self.run_stage(flags, settings, common, export::run),
            Command::Segment(flags) => self.run_stage(flags, settings, common, segment::run),
            Command::Similarity(flags) => self.run_stage(flags, settings, common, similarity::run),
            Command::Report(flags) => self.run_stage(flags, settings, common, report::run),
            Command::Recommend(flags) => recommend(settings, flags, common),
            Command::Settings(flags) => {
                print_json(&settings.resolved(&flags.stage)?);
                Ok(())
            }
            Command::Status(flags) => {
                self.show(&status::run(&flags.run, settings, flags.verify)?);
                Ok(())
            }
            Command::Rollback(flags) => roll_back(&flags.folder),
            Command::Doctor(_) => Ok(()),
        }
    }

    /// Runs every stage that is stale.
    fn run_all(&self, flags: &RunFlags, settings: &Settings, common: &Common) -> Result<()> {
        let RunFlags { output, source, catalogue, only, force, shard, merge } = flags;
        let [output, source, catalogue] = [output, source, catalogue].map(Clone::clone);
        let (only, force) = (only.clone(), force.clone());
        let request = run::Request { output, source, catalogue, only, force, shard: *shard, merge: *merge };
        let report = run::run(&request, settings, common)?;
        if common.if_changed && report.stages.iter().all(|it| it.did == run::Did::Nothing) {
            return Err(Error::NothingToDo { output: report.output });
        }
        self.show(&report);
        Ok(())
    }

    /// Runs a stage, records that it began and how it ended, and prints its summary.
    fn run_stage<C: StageConfig>(
        &self,
        flags: &impl Serialize,
        settings: &Settings,
        common: &Common,
        run: impl FnOnce(&C, &Common) -> Result<Summary>,
    ) -> Result<()> {
        let config: C = settings.resolve(C::NAME, flags)?;
        config.check()?;
        if common.if_changed && stage::reasons(&config, common, Depth::Contents)?.is_empty() {
            run::nothing_to_do(&config, settings, common)?;
            return Err(Error::NothingToDo { output: config.folder() });
        }
        let result = if common.dry_run {
            run(&config, common)
        } else {
            run::recorded(&config, settings, common, |config| run(config, common))
        };
        if let Err(Error::TooManyRejects { table, .. }) = &result
            && let Ok(summary) = Summary::read(table.parent().unwrap_or(table))
        {
            // It is published: what it came to is told like any other.
            self.show_summary(&summary);
        }
        self.show_summary(&result?);
        Ok(())
    }

    fn evaluate(&self, flags: &EvaluateFlags, settings: &Settings, common: &Common) -> Result<()> {
        let config: evaluate::Config = settings.resolve("evaluate", flags)?;
        let recorder = Recorder::start(settings.runs()?, "evaluate", &Place::of(&config)?, common);
        let result = evaluate::run(&config, common);
        let (evaluation, result) = match result {
            Ok((evaluation, summary)) => (Some(evaluation), Ok(summary)),
            Err(error) => (None, Err(error)),
        };
        recorder.end(result.as_ref());
        if let Some(evaluation) = evaluation {
            self.show(&evaluation);
        }
        let summary = result?;
        if !self.json() {
            print_summary(&summary);
        }
        Ok(())
    }

    fn show_summary(&self, summary: &Summary) {
        if self.json() { print_json(summary) } else { print_summary(summary) }
    }

    fn show(&self, result: &(impl std::fmt::Display + Serialize)) {
        if self.json() { print_json(result) } else { print(result) }
    }

    fn json(&self) -> bool {
        self.common.log_format == "json"
    }
}

impl CommonFlags {
    /// What all stages take: flags, then the settings file, then defaults.
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

/// One stage, or the first and the last of several.
#[allow(clippy::unnecessary_wraps, reason = "a parser of clap")]
fn stages(text: &str) -> std::result::Result<[String; 2], String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    Ok([first, last].map(|it| it.trim().to_owned()))
}

/// A length of time: a number with s, m or h.
fn seconds(text: &str) -> std::result::Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let parsed = units.iter().find_map(|(unit, secs)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*secs));
    parsed.ok_or_else(|| format!("'{text}' is no length of time; write 90s, 10m or 2h"))
}

/// What is printed where there is nothing to do.
#[derive(Serialize)]
struct Nothing {
    nothing_to_do: String,
}

impl std::fmt::Display for Nothing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.nothing_to_do)
    }
}

fn roll_back(folder: &Path) -> Result<()> {
    let summary = stage::roll_back(folder)?;
    print(&format!("{} is now the version of {}", folder.display(), summary.started_at));
    Ok(())
}

fn recommend(settings: &Settings, flags: &RecommendFlags, common: &Common) -> Result<()> {
    let config: recommend::Config = settings.resolve("recommend", flags)?;
    let recommendations = recommend::run(&config, &flags.photos, common)?;
    match config.format {
        recommend::Format::Json => print_json(&recommendations),
        recommend::Format::Text => recommendations.iter().for_each(print),
    }
    Ok(())
}

fn print_summary(summary: &Summary) {
    let verb = if summary.dry_run { "would write" } else { "wrote" };
    let mut lines = vec![format!("{}: {verb} {}", summary.stage, summary.output.display())];
    let plain = summary.counts.iter().filter(|(_, value)| !value.is_object() && !value.is_array());
    lines.extend(plain.map(|(name, value)| format!("  {name}: {value}")));
    if !summary.dry_run {
        lines.push(format!("  seconds: {:.1}", summary.elapsed_secs));
    }
    print(&lines.join("\n"));
}

fn print_json(value: &impl Serialize) {
    print(&serde_json::to_string_pretty(value).expect("results are plain data"));
}

/// A reader that has seen enough closes the pipe: no reason to complain.
fn print<T: std::fmt::Display>(text: &T) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
