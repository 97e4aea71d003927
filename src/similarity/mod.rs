//! `similarity`: computes a correlation matrix and nearest neighbours from a feature table.
//!
//! In: a features folder. Out: `photos.parquet`, `neighbours.parquet`, `pairs_worn.parquet` ([`crate::worn`]), `run.json`
//! and, if requested, `matrix/part-NNNNN.parquet` and `pairs/part-NNNNN.parquet` (see [`crate::similarity::tables`]). The numbers depend
//! neither on how the work is split nor on the number of workers.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::features::{FeatureStatistics, FeatureTable};
use crate::files::OpenFolder;
use crate::labels::MAX_CELLS;
use crate::metadata::{self, Condition};
use crate::stage::{self, Common, Listing, Outcome, Read, RunFolders, Stage, StageConfig, TableForm};
use crate::table;
use crate::worn::{PAIRS_FILE, PairCounts, write_pairs};

use tables::{MATRIX_FOLDER, NEIGHBOURS_FILE, PAIRS_FOLDER, PHOTOS_FILE, write_neighbours, write_photos};

mod approximate;
mod co_rated;
mod config;
mod correlator;
mod counts;
mod latent;
pub mod likeness;
mod merge_matrix;
mod nearest;
mod pass;
mod pearson;
mod sparse;
pub mod tables;
mod why;

pub use config::{
    Config, DEFAULT_EXACT_UP_TO, DEFAULT_LATENT_DIMENSIONS, DEFAULT_MEMORY, DEFAULT_MIN_COMMON, DEFAULT_TOP, Matrix,
    Measure, NumberFormat, STAGE,
};
pub use correlator::{Comparison, Correlator};
use counts::{count_features, count_nearest};
use pass::{Cut, Folders};
pub use sparse::CellChoice;
pub use tables::Neighbour;
pub use why::{SharedCell, Why};

/// The count in `run.json`, only of approximate neighbours, with the share of exact ones that were found, 0 to 1.
const RECALL: &str = "recall";

/// Reads `neighbours.parquet` of a similarity folder.
///
/// # Errors
/// As [`crate::table::read_table`].
pub fn read_neighbours(folder: &Path) -> Result<Vec<Neighbour>> {
    tables::read_neighbours(&folder.join(NEIGHBOURS_FILE))
}

impl StageConfig for Config {
    const NAME: &'static str = STAGE;
    const WITHOUT_EFFECT: &'static [&'static str] =
        &["features", "metadata", "output", "memory", "shard", "merge", "table"];

    fn folder(&self) -> PathBuf {
        Config::folder(self)
    }

    fn output(&self) -> PathBuf {
        self.output.clone()
    }

    fn in_run(run: &RunFolders) -> Vec<(&'static str, PathBuf)> {
        vec![("features", run.folder("features")), ("output", run.folder("similarity"))]
    }

    fn check(&self) -> Result<()> {
        let numbers = [
            ("similarity.top", self.top as usize),
            ("similarity.min_common", self.min_common as usize),
            ("similarity.latent_dimensions", self.latent_dimensions),
        ];
        if let Some((setting, _)) = numbers.iter().find(|(_, value)| *value == 0) {
            return Err(Error::config(*setting, "is 0; use 1 or more"));
        }
        if self.merge && self.shard.is_some() {
            return Err(Error::config("merge", "cannot be used with --shard: it merges all shards"));
        }
        self.check_dimensions(MAX_CELLS)?;
        self.parsed_condition()?;
        match self.threshold {
            Some(threshold) if !(-1.0..=1.0).contains(&threshold) => {
                Err(Error::config("similarity.threshold", format!("{threshold} is not a correlation; use -1 to 1")))
            }
            _ => Ok(()),
        }
    }

    fn delta_part(&self) -> Option<fn(&Path) -> bool> {
        let is_whole = self.table == TableForm::Delta && self.shard.is_none();
        is_whole.then_some(|name| name == Path::new(NEIGHBOURS_FILE))
    }

    fn reads(&self) -> Result<Vec<Read>> {
        let files = table::parts(&self.features)?.into_iter().chain(self.metadata.clone());
        Ok(files.map(Read::File).collect())
    }

    fn run(&self, common: &Common) -> Result<Outcome> {
        run(self, common)
    }
}

impl Config {
    fn parsed_condition(&self) -> Result<Option<Condition>> {
        self.condition.as_deref().map(|it| Condition::parse("similarity.where", it)).transpose()
    }

    /// Checks that a table of `cells` cells may have so many dimensions; the default is taken for "at most".
    fn check_dimensions(&self, cells: usize) -> Result<()> {
        if self.latent_dimensions <= cells.max(DEFAULT_LATENT_DIMENSIONS) {
            return Ok(());
        }
        let problem = format!("is {}; a table of {cells} cells has no more dimensions", self.latent_dimensions);
        Err(Error::config("similarity.latent_dimensions", problem))
    }
}

/// Computes and writes the neighbours and, if requested, the matrix and the pairs, of all rows or of one shard; or
/// merges all shards.
///
/// # Errors
/// Errors that name the invalid setting, feature table or shard, or the disk that is full.
pub fn run(config: &Config, common: &Common) -> Result<Outcome> {
    config.check()?;
    if config.merge {
        return merge_matrix::merge(&config.output, common);
    }
    let folder = OpenFolder::open(&config.features)?;
    let features = chosen_features(config, &folder)?;
    if features.is_empty() && config.condition.is_none() {
        return Err(Error::input(&config.features, "holds no photos; there is nothing to compare"));
    }
    config.check_dimensions(features.labels.cell_count())?;
    let cut = Cut::new(config, features.len(), rayon::current_num_threads())?;
    check_space(config, &cut, features.len())?;
    if common.dry_run {
        let mut summary = stage::dry_run(STAGE, &config.folder(), common, config)?;
        summary.counts.set("photos", cut.rows());
        return Ok(Outcome::Planned(summary));
    }
    let mut stage = Stage::begin(STAGE, &config.folder(), common, config)?;
    for part in table::parts(folder.root())? {
        stage.input_of(&folder, part.file_name().unwrap_or_default())?;
    }
    if let Some(metadata) = &config.metadata {
        stage.input(&Read::File(metadata.clone()), &Listing::default())?;
    }
    if features.is_empty() {
        return publish_nothing(config, &features, stage);
    }
    let folders = folders(config, &stage)?;
    let correlator = Correlator::new(&features, Comparison::from(config));
    write_photos(&stage.path(PHOTOS_FILE), &features)?;
    write_pairs(&stage.path(PAIRS_FILE), &PairCounts::of(&features))?;
    let neighbours = if config.is_approximate(features.len()) {
        let found = approximate::run(config, &correlator, &cut.range())?;
        tracing::info!("{STAGE}: {:.1} % of the exact neighbours of a sample were found", 100.0 * found.recall);
        stage.count(RECALL, found.recall);
        found.neighbours
    } else {
        pass::run(config, &correlator, &cut, &folders)?
    };
    write_neighbours(&stage.path(NEIGHBOURS_FILE), &neighbours)?;
    stage.count("photos", cut.rows());
    stage.count("neighbours", neighbours.len());
    let statistics = statistics(config, folder.root(), &features)?;
    count_features(&statistics, &correlator, &mut stage);
    count_nearest(&mut stage)?;
    stage.publish()
}

/// The rows of the feature table that are compared.
fn chosen_features(config: &Config, folder: &OpenFolder) -> Result<FeatureTable> {
    let mut features = open_features(folder, config.measure)?;
    let condition = config.parsed_condition()?;
    let metadata = config.metadata.as_deref();
    let kept = metadata::chosen(metadata, condition.as_ref(), folder.root(), &features)?;
    if let (Some(kept), Some(text)) = (kept, &config.condition) {
        let photos = features.len();
        features.retain(&kept);
        tracing::info!("{STAGE}: {} of {photos} photos fulfil {text}", features.len());
    }
    Ok(features)
}

/// Publishes empty tables: no photo fulfils the condition.
fn publish_nothing(config: &Config, features: &FeatureTable, mut stage: Stage) -> Result<Outcome> {
    folders(config, &stage)?;
    write_photos(&stage.path(PHOTOS_FILE), features)?;
    write_neighbours(&stage.path(NEIGHBOURS_FILE), &[])?;
    for name in ["photos", "neighbours"] {
        stage.count(name, 0);
    }
    stage.publish()
}

/// Figures of the photos that are compared.
fn statistics(config: &Config, folder: &Path, features: &FeatureTable) -> Result<FeatureStatistics> {
    if config.condition.is_some() { Ok(FeatureStatistics::of(features)) } else { FeatureStatistics::scan(folder) }
}

/// Opens the feature table in `folder` with what `measure` compares.
///
/// # Errors
/// As [`FeatureTable::open`]; [`Error::Input`] if it has no embeddings, but `measure` needs them.
pub fn open_features(folder: &OpenFolder, measure: Measure) -> Result<FeatureTable> {
    let mut features = FeatureTable::open(folder.root())?;
    if measure != Measure::Embedding {
        return Ok(features);
    }
    features.read_embeddings(folder.root())?;
    match &features.embeddings {
        None => {
            let problem = "has no column 'embedding', which the measure 'embedding' compares; set [segment] embedder (or \
                           --embedder) and run `lookbook segment` again";
            return Err(Error::input(folder.name(), problem));
        }
        Some(embeddings) if embeddings.missing() > 0 => tracing::info!(
            "{}: {} of {} photos have no embedding and are nobody's neighbours",
            folder.name().display(),
            embeddings.missing(),
            embeddings.len()
        ),
        Some(_) => {}
    }
    Ok(features)
}

/// The matrix hardly compresses, so there must be room for all of it before the first row is computed.
fn check_space(config: &Config, cut: &Cut, photos: usize) -> Result<()> {
    let needed = cut.bytes(config);
    let output = config.folder();
    let existing = output.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let disk =
        rustix::fs::statvfs(existing).map_err(|errno| Error::io("check the free space of", existing)(errno.into()))?;
    let free = disk.f_bavail * disk.f_frsize;
    if needed <= free {
        return Ok(());
    }
    Err(Error::Limit {
        what: format!("disk space at {}", existing.display()),
        problem: format!(
            "{} rows of the {photos} x {photos} matrix and the neighbours need {needed} bytes, only {free} are free; \
             make room, or use --precision f16, --matrix none or a --shard on another machine",
            cut.rows()
        ),
    })
}

/// Creates the folders of the requested tables.
fn folders(config: &Config, stage: &Stage) -> Result<Folders> {
    let folder = |name, wanted: bool| wanted.then(|| stage.create_folder(name)).transpose();
    Ok(Folders {
        matrix: folder(MATRIX_FOLDER, config.matrix == Matrix::Full)?,
        pairs: folder(PAIRS_FOLDER, config.threshold.is_some())?,
    })
}
