//! `similarity`: feature table to correlation matrix and neighbours.
//!
//! In: a features folder. Out: `photos.parquet`, `neighbours.parquet`, and as asked for `matrix/part-NNNNN.parquet` and
//! `pairs/part-NNNNN.parquet`, `run.json` (see [`crate::table::similarity`]). The numbers do not depend on how the work is
//! cut, nor on the number of workers.

use std::path::{Path, PathBuf};

use polars::prelude::{LazyFrame, PlRefPath, PolarsError, ScanArgsParquet, col};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::features::{FeatureStatistics, FeatureTable};
use crate::files::OpenFolder;
use crate::labels::CELL_COUNT;
use crate::settings::ByteSize;
use crate::shard::Shard;
use crate::stage::{self, Common, Stage, Summary};
use crate::table;
use crate::table::similarity::{
    MATRIX_FOLDER, NEIGHBOURS_FILE, PAIRS_FOLDER, PHOTOS_FILE, write_neighbours, write_photos,
};

mod co_rated;
mod correlator;
pub mod evaluation;
mod latent;
mod merge;
mod nearest;
mod pass;
mod pearson;
mod sparse;

pub use correlator::{Comparison, Correlator, SharedCell};
use nearest::Nearest;
use pass::{Cut, Folders};

/// Default of `top`.
pub const DEFAULT_TOP: u32 = 10;
/// Default of `min_common`: two points always lie on a line.
pub const DEFAULT_MIN_COMMON: u32 = 3;
/// Default of `latent_dimensions`.
pub const DEFAULT_LATENT_DIMENSIONS: usize = 32;
/// Default of `memory`.
pub const DEFAULT_MEMORY: ByteSize = ByteSize(1 << 30);
const STAGE: &str = "similarity";
/// The figures of a run that are those of the feature table, whatever rows are done.
const FEATURE_COUNTS: [&str; 4] =
    ["photos_without_apparel", "mean_cells_per_photo", "commonest_cells", "latent_variance_share"];

/// How alike two photos are. Nothing is defined for photos in which nothing is worn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Pearson correlation over all 228 cells, absent = 0.
    #[default]
    Pearson,
    /// Pearson correlation over the cells present in both (the seed's).
    CoRated,
    /// The cosine over all 228 cells, absent = 0.
    Cosine,
    /// Pearson correlation between the rows of a truncated SVD of the centred table.
    Latent,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pearson, Self::CoRated, Self::Cosine, Self::Latent];

    /// As settings and flags name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pearson => "pearson",
            Self::CoRated => "co_rated",
            Self::Cosine => "cosine",
            Self::Latent => "latent",
        }
    }
}

/// Whether the matrix is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Matrix {
    /// Every photo with every photo.
    #[default]
    Full,
    /// The neighbours alone.
    None,
}

/// The type of the matrix's correlations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 4 bytes, exact to 1e-7.
    #[default]
    F32,
    /// 2 bytes, exact to 5e-4 (11 significant bits).
    F16,
}

impl Precision {
    /// Bytes of a correlation.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// Settings of `similarity`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The features folder.
    pub features: PathBuf,
    /// The folder of the matrix and the neighbours.
    pub output: PathBuf,
    /// How alike two photos are.
    pub measure: Measure,
    /// Neighbours of each photo ([`DEFAULT_TOP`]).
    pub top: u32,
    /// Cells that two photos must have in common, for `co_rated` ([`DEFAULT_MIN_COMMON`]).
    pub min_common: u32,
    /// Dimensions of the truncated SVD at most, for `latent` ([`DEFAULT_LATENT_DIMENSIONS`]).
    pub latent_dimensions: usize,
    /// Whether the matrix is written, not the neighbours alone.
    pub matrix: Matrix,
    /// The type of the matrix's correlations.
    pub precision: Precision,
    /// The pairs whose correlation is this or more are written as a long table; none where not named.
    pub threshold: Option<f32>,
    /// Memory for correlations at most ([`DEFAULT_MEMORY`]); the feature table and the neighbours come on top.
    pub memory: ByteSize,
    /// The part of the rows to be done; all where not named.
    pub shard: Option<Shard>,
    /// Nothing is computed: the folders of all shards become one, with the settings that they were made with.
    pub merge: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            features: PathBuf::from("output/features"),
            output: PathBuf::from("output/similarity"),
            measure: Measure::default(),
            top: DEFAULT_TOP,
            min_common: DEFAULT_MIN_COMMON,
            latent_dimensions: DEFAULT_LATENT_DIMENSIONS,
            matrix: Matrix::default(),
            precision: Precision::default(),
            threshold: None,
            memory: DEFAULT_MEMORY,
            shard: None,
            merge: false,
        }
    }
}

impl Config {
    fn comparison(&self) -> Comparison {
        let Self { measure, min_common, latent_dimensions, .. } = *self;
        Comparison { measure, min_common, latent_dimensions }
    }

    /// The folder that is published: the output, or the shard's part of it.
    fn folder(&self) -> PathBuf {
        self.shard.map_or_else(|| self.output.clone(), |shard| shard.folder(&self.output))
    }
}

/// One row of `neighbours.parquet`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// The photo whose neighbour it is.
    pub photo_id: u32,
    /// 1 = nearest.
    pub rank: u32,
    /// The neighbour.
    pub neighbour_id: u32,
    /// Correlation of the two, -1 to 1.
    pub correlation: f32,
    /// Cells present in both.
    pub cells_in_common: u32,
}

/// Reads `neighbours.parquet` of a similarity folder.
///
/// # Errors
/// As [`crate::table::read_table`].
pub fn read_neighbours(folder: &Path) -> Result<Vec<Neighbour>> {
    table::similarity::read_neighbours(&folder.join(NEIGHBOURS_FILE))
}

/// Computes and writes the neighbours, and the matrix and the pairs where asked for; a shard's part of them; or merges all
/// shards.
///
/// # Errors
/// Bad settings, feature tables, shards and disks by name.
pub fn run(config: &Config, common: &Common) -> Result<Summary> {
    check(config)?;
    if config.merge {
        return merge::merge(&config.output, common);
    }
    let folder = OpenFolder::open(&config.features)?;
    let features = FeatureTable::open(folder.root())?;
    if features.is_empty() {
        return Err(Error::input(&config.features, "holds no photos; there is nothing to compare"));
    }
    let cut = Cut::new(config, features.len(), rayon::current_num_threads())?;
    check_space(config, &cut, features.len())?;
    if common.dry_run {
        let mut summary = stage::dry_run(STAGE, &config.folder(), common, config)?;
        summary.counts.insert("photos".to_owned(), cut.rows().into());
        return Ok(summary);
    }
    let mut stage = Stage::begin(STAGE, &config.folder(), common, config)?;
    for part in table::parts(folder.root())? {
        stage.input_of(&folder, part.file_name().unwrap_or_default())?;
    }
    let folders = folders(config, &stage)?;
    let correlator = Correlator::new(&features, config.comparison());
    write_photos(&stage.path(PHOTOS_FILE), &features)?;
    let neighbours = pass::run(config, &correlator, &cut, &folders)?;
    write_neighbours(&stage.path(NEIGHBOURS_FILE), &neighbours)?;
    stage.count("photos", cut.rows());
    stage.count("neighbours", neighbours.len());
    count_features(folder.root(), correlator.variance_share(), &mut stage)?;
    count_nearest(&mut stage)?;
    stage.publish()
}

fn check(config: &Config) -> Result<()> {
    let numbers = [
        ("top", config.top as usize),
        ("min_common", config.min_common as usize),
        ("latent_dimensions", config.latent_dimensions),
    ];
    if let Some((setting, _)) = numbers.iter().find(|(_, value)| *value == 0) {
        return Err(Error::config(*setting, "is 0; take 1 or more"));
    }
    if config.merge && config.shard.is_some() {
        return Err(Error::config("merge", "goes without --shard: it takes all shards"));
    }
    if config.latent_dimensions > CELL_COUNT {
        let problem = format!("is {}; a table of {CELL_COUNT} cells has no more dimensions", config.latent_dimensions);
        return Err(Error::config("latent_dimensions", problem));
    }
    match config.threshold {
        Some(threshold) if !(-1.0..=1.0).contains(&threshold) => {
            Err(Error::config("threshold", format!("{threshold} is no correlation; take -1 to 1")))
        }
        _ => Ok(()),
    }
}

/// The matrix hardly compresses: room for all of it must be there before the first row is computed.
fn check_space(config: &Config, cut: &Cut, photos: usize) -> Result<()> {
    let needed = cut.bytes(config);
    let output = config.folder();
    let existing = output.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let disk =
        rustix::fs::statvfs(existing).map_err(|errno| Error::io("tell the free space of", existing)(errno.into()))?;
    let free = disk.f_bavail * disk.f_frsize;
    if needed <= free {
        return Ok(());
    }
    Err(Error::Limit {
        what: format!("disk space at {}", existing.display()),
        problem: format!(
            "{} rows of the {photos} x {photos} matrix and the neighbours need {needed} bytes, {free} are free; make room, \
             or take --precision f16, --matrix none or a --shard on another machine",
            cut.rows()
        ),
    })
}

/// Makes the folders of the tables that are asked for.
fn folders(config: &Config, stage: &Stage) -> Result<Folders> {
    let folder = |name, wanted: bool| wanted.then(|| stage.create_folder(name)).transpose();
    Ok(Folders {
        matrix: folder(MATRIX_FOLDER, config.matrix == Matrix::Full)?,
        pairs: folder(PAIRS_FOLDER, config.threshold.is_some())?,
    })
}

fn count_features(features: &Path, variance_share: Option<f64>, stage: &mut Stage) -> Result<()> {
    let statistics = FeatureStatistics::scan(features)?;
    let counts: [serde_json::Value; 4] = [
        statistics.photos_without_apparel.into(),
        statistics.mean_cells_per_photo.into(),
        serde_json::json!(statistics.commonest_cells),
        variance_share.into(),
    ];
    FEATURE_COUNTS.into_iter().zip(counts).for_each(|(name, value)| stage.count(name, value));
    Ok(())
}

fn count_nearest(stage: &mut Stage) -> Result<()> {
    let path = stage.path(NEIGHBOURS_FILE);
    let (with_neighbours, mean_nearest) =
        nearest_statistics(&path).map_err(|cause| Error::input(&path, format!("cannot be summarised: {cause}")))?;
    stage.count("photos_with_neighbours", with_neighbours);
    stage.count("mean_nearest_correlation", mean_nearest);
    Ok(())
}

/// Photos that have a neighbour, and the mean correlation with the nearest; `None` where there is none.
fn nearest_statistics(path: &Path) -> Result<(u64, Option<f64>), PolarsError> {
    let scan = LazyFrame::scan_parquet(PlRefPath::try_from_path(path)?, ScanArgsParquet::default())?;
    let nearest = scan.filter(col("rank").eq(1_u32)).select([col("correlation")]).collect()?;
    let correlation = nearest.column("correlation")?.f32()?;
    let sum: f64 = correlation.iter().flatten().map(f64::from).sum();
    let count = correlation.len();
    Ok((count as u64, (count > 0).then(|| sum / count as f64)))
}
