//! `similarity`: feature table to correlation matrix and neighbours.
//!
//! In: a features folder. Out: `photos.parquet`, `matrix/part-NNNNN.parquet`, `neighbours.parquet`, `run.json` (see
//! [`crate::table::similarity`]). Rows are independent of each other: parts are worked on by all cores, and the numbers do
//! not depend on how the rows are split.

use std::path::{Path, PathBuf};

use polars::prelude::{LazyFrame, PlRefPath, PolarsError, ScanArgsParquet, col};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::features::{FeatureStatistics, FeatureTable};
use crate::labels;
use crate::progress::Progress;
use crate::stage::{self, Common, Stage, Summary};
use crate::stop;
use crate::table;
use crate::table::similarity::{
    MATRIX_FOLDER, MatrixWriter, NEIGHBOURS_FILE, PHOTOS_FILE, write_neighbours, write_photos,
};

mod co_rated;
mod pearson;
mod sparse;

use sparse::{SparseTable, co_rated_cells, sparse_row};

/// Default of `top`.
pub const DEFAULT_TOP: u32 = 10;
/// Default of `min_common`: two points always lie on a line.
pub const DEFAULT_MIN_COMMON: u32 = 3;
/// Default of `part_rows`.
pub const DEFAULT_PART_ROWS: usize = 512;
/// Largest part of the matrix before compression; parts of wide matrices have fewer rows than `part_rows`.
const MAX_PART_BYTES: usize = 1 << 26;
/// Rows of the matrix that are encoded at a time.
const WRITE_ROWS: usize = 16;
const STAGE: &str = "similarity";

/// How alike two photos are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Pearson correlation over all 228 cells, absent = 0. Undefined for photos in which nothing is worn.
    #[default]
    Pearson,
    /// Pearson correlation over the cells present in both (the seed's).
    CoRated,
    /// The cosine over all 228 cells, absent = 0.
    Cosine,
}

/// Settings of `similarity`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Whether the matrix is written, not the neighbours alone.
    pub matrix: bool,
    /// Rows of a part of the matrix at most ([`DEFAULT_PART_ROWS`]).
    pub part_rows: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            features: PathBuf::from("output/features"),
            output: PathBuf::from("output/similarity"),
            measure: Measure::default(),
            top: DEFAULT_TOP,
            min_common: DEFAULT_MIN_COMMON,
            matrix: true,
            part_rows: DEFAULT_PART_ROWS,
        }
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

/// Computes and writes the matrix and the neighbours.
///
/// # Errors
/// Bad settings, feature tables and disks by name.
pub fn run(config: &Config, common: &Common) -> Result<Summary> {
    check(config)?;
    let features = FeatureTable::open(&config.features)?;
    let photos = features.len();
    if photos == 0 {
        return Err(Error::input(&config.features, "holds no photos; there is nothing to compare"));
    }
    if config.matrix {
        check_space(&config.output, photos as u64)?;
    }
    if common.dry_run {
        let mut summary = stage::planned(STAGE, &config.output, common, config);
        summary.counts.insert("photos".to_owned(), photos.into());
        return Ok(summary);
    }
    let mut stage = Stage::begin(STAGE, &config.output, common, config)?;
    for part in table::parts(&config.features)? {
        stage.input(&part)?;
    }
    stage.create_folder(MATRIX_FOLDER)?;
    write_photos(&stage.path(PHOTOS_FILE), &features)?;
    let neighbours = write_parts(config, &features, &stage.path(MATRIX_FOLDER))?;
    write_neighbours(&stage.path(NEIGHBOURS_FILE), &neighbours)?;
    stage.count("photos", photos);
    stage.count("neighbours", neighbours.len());
    count_statistics(config, &mut stage)?;
    stage.publish()
}

fn check(config: &Config) -> Result<()> {
    let numbers =
        [("top", config.top as usize), ("min_common", config.min_common as usize), ("part_rows", config.part_rows)];
    match numbers.iter().find(|(_, value)| *value == 0) {
        Some((setting, _)) => Err(Error::config(*setting, "is 0; take 1 or more")),
        None => Ok(()),
    }
}

/// The matrix hardly compresses: room for all of it must be there before the first row is computed.
fn check_space(output: &Path, photos: u64) -> Result<()> {
    let needed = photos * photos * 4;
    let Some(existing) = output.ancestors().find(|folder| folder.is_dir()).or(Some(Path::new("."))) else {
        return Ok(());
    };
    let disk =
        rustix::fs::statvfs(existing).map_err(|errno| Error::io("tell the free space of", existing)(errno.into()))?;
    let free = disk.f_bavail * disk.f_frsize;
    if needed > free {
        return Err(Error::Limit {
            what: format!("disk space at {}", existing.display()),
            problem: format!(
                "the matrix of {photos} x {photos} photos needs {needed} bytes, {free} are free; \
                 make room, or set matrix = false for the neighbours alone"
            ),
        });
    }
    Ok(())
}

/// Writes the parts of the matrix; returns the neighbours in the order of the photos.
fn write_parts(config: &Config, features: &FeatureTable, folder: &Path) -> Result<Vec<Neighbour>> {
    let photos = features.len();
    let correlator = Correlator::new(features, config.measure, config.min_common);
    let part_rows = (MAX_PART_BYTES / (photos * 4)).clamp(1, config.part_rows);
    let progress = Progress::new(STAGE, photos as u64, "photos");
    let parts: Vec<_> = (0..photos).step_by(part_rows).enumerate().collect();
    let write = |&(number, first): &(usize, usize)| {
        let rows = first..(first + part_rows).min(photos);
        let path = folder.join(table::part_name(number));
        let mut writer = if config.matrix { Some(MatrixWriter::create(&path, photos, part_rows)?) } else { None };
        let mut neighbours = Vec::new();
        for first in rows.clone().step_by(WRITE_ROWS) {
            let block = first..(first + WRITE_ROWS).min(rows.end);
            let mut correlations = Vec::with_capacity(block.len() * photos);
            for row in block.clone() {
                let of_row = correlator.row(row);
                neighbours.extend(correlator.neighbours(row, &of_row, config.top as usize));
                correlations.extend(of_row);
            }
            progress.inc(block.len() as u64);
            stop::check()?;
            if let Some(writer) = &mut writer {
                writer.write(features.photo_ids[block].to_vec(), correlations)?;
            }
        }
        writer.map_or(Ok(()), MatrixWriter::close)?;
        Ok(neighbours)
    };
    Ok(parts.par_iter().map(write).collect::<Result<Vec<_>>>()?.concat())
}

fn count_statistics(config: &Config, stage: &mut Stage) -> Result<()> {
    let statistics = FeatureStatistics::scan(&config.features)?;
    stage.count("photos_without_apparel", statistics.photos_without_apparel);
    stage.count("mean_cells_per_photo", statistics.mean_cells_per_photo);
    stage.count("commonest_cells", serde_json::json!(statistics.commonest_cells));
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

/// The feature table made ready to be compared with: rows of its own, or rows of other photos.
#[derive(Debug)]
pub struct Correlator {
    photo_ids: Vec<u32>,
    table: SparseTable,
    measure: Prepared,
}

#[derive(Debug)]
enum Prepared {
    Centred(pearson::Centred),
    CoRated { min_common: u32 },
}

/// A cell that two photos share.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SharedCell {
    /// The cell, `<category>_<color>`.
    pub name: String,
    /// Share of the query's apparel pixels.
    pub share: f32,
    /// Share of the neighbour's apparel pixels.
    pub neighbour_share: f32,
}

impl Correlator {
    /// Prepares the rows of `features`.
    #[must_use]
    pub fn new(features: &FeatureTable, measure: Measure, min_common: u32) -> Self {
        let table = SparseTable::new(&features.cells);
        let measure = match measure {
            Measure::Pearson => Prepared::Centred(pearson::Centred::new(&table, true)),
            Measure::Cosine => Prepared::Centred(pearson::Centred::new(&table, false)),
            Measure::CoRated => Prepared::CoRated { min_common },
        };
        Self { photo_ids: features.photo_ids.clone(), table, measure }
    }

    /// The correlation of a photo of the table with all, itself included; `None` where undefined.
    #[must_use]
    pub fn row(&self, row: usize) -> Vec<Option<f32>> {
        self.correlate_sparse(self.table.row(row))
    }

    /// The correlation of another photo's 228 cells (0 where there is none) with all photos of the table.
    #[must_use]
    pub fn correlate(&self, cells: &[f32]) -> Vec<Option<f32>> {
        self.correlate_sparse(&sparse_row(cells))
    }

    fn correlate_sparse(&self, query: &sparse::SparseRow) -> Vec<Option<f32>> {
        match &self.measure {
            Prepared::Centred(centred) => centred.correlate(&self.table, query),
            Prepared::CoRated { min_common } => co_rated::correlate(&self.table, query, *min_common),
        }
    }

    /// The rows of the `top` largest correlations that `allowed` lets pass, nearest first, ties by photo id.
    #[must_use]
    pub fn nearest(
        &self,
        correlations: &[Option<f32>],
        top: usize,
        allowed: impl Fn(usize) -> bool,
    ) -> Vec<(usize, f32)> {
        let defined = correlations.iter().enumerate().filter_map(|(row, value)| Some((row, (*value)?)));
        let mut nearest: Vec<_> = defined.filter(|(row, _)| allowed(*row)).collect();
        let order = |a: &(usize, f32), b: &(usize, f32)| {
            b.1.total_cmp(&a.1).then_with(|| self.photo_ids[a.0].cmp(&self.photo_ids[b.0]))
        };
        if top < nearest.len() {
            nearest.select_nth_unstable_by(top, order);
            nearest.truncate(top);
        }
        nearest.sort_unstable_by(order);
        nearest
    }

    /// The cells that a photo's 228 cells share with row `row`, those that both have most of first.
    #[must_use]
    pub fn shared_cells(&self, cells: &[f32], row: usize) -> Vec<SharedCell> {
        let names = labels::cell_names();
        let query = sparse_row(cells);
        let mut shared: Vec<_> = co_rated_cells(&query, self.table.row(row)).collect();
        shared.sort_by(|a, b| b.1.min(b.2).total_cmp(&a.1.min(a.2)));
        let named = |(cell, share, other): (u16, f64, f64)| SharedCell {
            name: names[usize::from(cell)].clone(),
            share: share as f32,
            neighbour_share: other as f32,
        };
        shared.into_iter().map(named).collect()
    }

    fn neighbours(&self, row: usize, correlations: &[Option<f32>], top: usize) -> Vec<Neighbour> {
        let nearest = self.nearest(correlations, top, |other| other != row);
        let neighbour = |((other, correlation), rank): ((usize, f32), u32)| Neighbour {
            photo_id: self.photo_ids[row],
            rank,
            neighbour_id: self.photo_ids[other],
            correlation,
            cells_in_common: co_rated_cells(self.table.row(row), self.table.row(other)).count() as u32,
        };
        nearest.into_iter().zip(1..).map(neighbour).collect()
    }
}
