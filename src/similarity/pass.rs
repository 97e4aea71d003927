//! The pass over all pairs: tile by tile, it correlates, ranks and, if the matrix or the pairs are requested, writes.
//!
//! The work is split into parts of rows, a part into strips of rows, a strip into tiles of [`BLOCK`] columns. If whole
//! rows are needed (for the matrix, or for the neighbours of only a shard's rows), a strip covers all columns.
//! Otherwise it covers those right of the diagonal, and each tile is ranked for both its rows and its columns, so that
//! each product is computed once.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

use rayon::prelude::*;

use super::config::{Config, Matrix, STAGE};
use super::correlator::Correlator;
use super::nearest::Nearest;
use super::sparse::BLOCK;
use super::tables::{MatrixWriter, Neighbour, Pair, PairsWriter};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::table::{self, Ended};
use crate::{stop, threads};

/// Maximum rows of a strip: a tile of 64 x 2048 correlations fits in the second-level cache. A divisor of [`BLOCK`], so
/// that a strip lies in one block.
const STRIP_ROWS: usize = 64;
/// Rows of a part if there is no matrix.
const PART_ROWS: usize = 1024;
/// Maximum bytes of a part of the matrix, unless a single strip is larger.
const PART_BYTES: usize = 1 << 26;
/// Bytes of a row of `neighbours.parquet`, before compression.
const NEIGHBOUR_BYTES: usize = 20;

/// How the work is split. Parts depend only on the table and the settings, strips and row groups also on the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    photos: usize,
    /// The rows to process: all, unless this is a shard.
    rows: Range<usize>,
    part_rows: usize,
    strip_rows: usize,
    row_group_rows: usize,
    /// Whether only the pairs right of the diagonal are computed.
    once: bool,
}

impl Cut {
    /// Splits the pairs of `photos` photos so that `workers` workers stay within the memory limit of the settings.
    pub(super) fn new(config: &Config, photos: usize, workers: usize) -> Result<Self> {
        let row_bytes = photos * config.precision.bytes();
        let part_rows = match config.matrix {
            Matrix::Full => (PART_BYTES / row_bytes.max(1) / STRIP_ROWS * STRIP_ROWS).clamp(STRIP_ROWS, PART_ROWS),
            Matrix::None => PART_ROWS,
        };
        let parts = photos.div_ceil(part_rows);
        let shard = config.shard.map_or(0..parts, |shard| shard.range(parts));
        let rows = shard.start * part_rows..(shard.end * part_rows).min(photos);
        let held_rows = match config.matrix {
            Matrix::Full => held_rows(config, photos, workers)?,
            Matrix::None => STRIP_ROWS,
        };
        let strip_rows = 1 << held_rows.min(STRIP_ROWS).ilog2();
        let row_group_rows = (held_rows / strip_rows * strip_rows).min(part_rows);
        let once = config.matrix == Matrix::None && config.shard.is_none();
        Ok(Self { photos, rows, part_rows, strip_rows, row_group_rows, once })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The rows to process.
    pub(super) fn range(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Bytes of matrix and neighbours on disk. Pairs are not included: how many exceed a threshold is not known in
    /// advance.
    pub(super) fn bytes(&self, config: &Config) -> u64 {
        let matrix = if config.matrix == Matrix::Full { self.photos * config.precision.bytes() } else { 0 };
        let neighbours = (config.top as usize).min(self.photos.saturating_sub(1)) * NEIGHBOUR_BYTES;
        (self.rows() * (matrix + neighbours)) as u64
    }

    /// The parts: their numbers and rows.
    fn parts(&self) -> Vec<(usize, Range<usize>)> {
        let starts = self.rows.clone().step_by(self.part_rows);
        starts.map(|start| (start / self.part_rows, start..(start + self.part_rows).min(self.photos))).collect()
    }
}

/// Matrix rows that a worker may hold, both as correlations and encoded, until they are on disk.
fn held_rows(config: &Config, photos: usize, workers: usize) -> Result<usize> {
    let needed = (workers * photos * (size_of::<f32>() + config.precision.bytes())) as u64;
    let rows = config.memory.0 / needed.max(1);
    if rows == 0 {
        return Err(Error::Limit {
            what: "memory".to_owned(),
            problem: format!(
                "{workers} workers need {needed} bytes for a row of {photos} photos each, but only {} are allowed; \
                 raise --memory, or use fewer --threads or --matrix none",
                config.memory
            ),
        });
    }
    Ok(rows as usize)
}

/// The folders of the requested tables.
#[derive(Debug)]
pub(super) struct Folders {
    pub(super) matrix: Option<PathBuf>,
    pub(super) pairs: Option<PathBuf>,
}

/// Correlates the photos of `cut`, writes the parts, and returns the neighbours in the order of the photos.
pub(super) fn run(config: &Config, correlator: &Correlator, cut: &Cut, folders: &Folders) -> Result<Vec<Neighbour>> {
    let blocks = (0..cut.photos.div_ceil(BLOCK)).map(|block| correlator.block(block).len());
    let nearest = |len| Mutex::new(Nearest::new(correlator.photo_ids(), len, config.top as usize));
    let pass = Pass {
        config,
        correlator,
        cut,
        nearest: blocks.map(nearest).collect(),
        progress: Progress::new(STAGE, cut.rows() as u64, "photos"),
    };
    let path = |folder: &Option<PathBuf>, part| folder.as_ref().map(|folder| folder.join(table::part_name(part)));
    let compute = |(number, rows)| {
        let writers = Writers::create(path(&folders.matrix, number), path(&folders.pairs, number), cut, config)?;
        pass.part(rows, writers)
    };
    compute_and_check(cut.parts(), compute, |it: Ended| it.check().map(drop))?;
    Ok(pass.neighbours())
}

/// Computes the parts of a table, each of which ends some files, and flushes and checks these while the next parts are
/// computed. A failed check ends the run then, with its error.
fn compute_and_check<P: Send, F: Send>(
    parts: Vec<P>,
    compute: impl Fn(P) -> Result<Vec<F>> + Sync,
    check: impl Fn(F) -> Result<()> + Send,
) -> Result<()> {
    let (ended, to_check) = mpsc::channel();
    std::thread::scope(|scope| {
        let checked = threads::spawn_in(scope, move || to_check.into_iter().try_for_each(check))?;
        let computed = parts.into_par_iter().try_for_each_with(ended, |ended, part| {
            // The receiver is gone if a check failed: end here too, with the error of the check.
            compute(part)?.into_iter().try_for_each(|file| ended.send(file).map_err(|_| None))
        });
        checked.join().expect("no check panics")?;
        computed.map_err(|error| error.expect("the check has failed only if it says so"))
    })
}

/// The writers of a part.
struct Writers {
    matrix: Option<MatrixWriter>,
    pairs: Option<PairsWriter>,
}

impl Writers {
    fn create(matrix_path: Option<PathBuf>, pairs_path: Option<PathBuf>, cut: &Cut, config: &Config) -> Result<Self> {
        let matrix = |path: PathBuf| MatrixWriter::create(&path, cut.photos, config.precision, cut.row_group_rows);
        let pairs = |path: PathBuf| PairsWriter::create(&path);
        Ok(Self { matrix: matrix_path.map(matrix).transpose()?, pairs: pairs_path.map(pairs).transpose()? })
    }
}

struct Pass<'a> {
    config: &'a Config,
    correlator: &'a Correlator,
    cut: &'a Cut,
    /// By block.
    nearest: Vec<Mutex<Nearest<'a>>>,
    progress: Progress,
}

/// Correlations of the rows `rows` with the photos `columns`, one row every `stride` elements.
struct Tile<'a> {
    rows: Range<usize>,
    columns: Range<usize>,
    correlations: &'a [f32],
    stride: usize,
}

impl Tile<'_> {
    /// Each row, with its correlations left of the diagonal.
    fn left(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.lines().map(|(row, line)| (row, &line[..self.place(row)]))
    }

    /// Each row, with the first column right of the diagonal and the correlations from there on.
    fn right(&self) -> impl Iterator<Item = (usize, usize, &[f32])> {
        self.lines().map(|(row, line)| {
            let place = self.place(row + 1);
            (row, self.columns.start + place, &line[place..])
        })
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.rows
            .clone()
            .zip(self.correlations.chunks(self.stride))
            .map(|(row, line)| (row, &line[..self.columns.len()]))
    }

    /// Position of `column` in a line, clamped to the line's start and end.
    fn place(&self, column: usize) -> usize {
        column.clamp(self.columns.start, self.columns.end) - self.columns.start
    }
}

impl Pass<'_> {
    /// Computes and writes a part, and returns what was written.
    fn part(&self, rows: Range<usize>, mut writers: Writers) -> Result<Vec<Ended>> {
        for start in rows.clone().step_by(self.cut.strip_rows) {
            let strip = start..(start + self.cut.strip_rows).min(rows.end);
            let (correlations, pairs) = self.strip(strip.clone(), writers.matrix.is_some());
            if let Some(writer) = &mut writers.matrix {
                writer.write(&self.correlator.photo_ids()[strip.clone()], &correlations)?;
            }
            if let Some(writer) = &mut writers.pairs {
                writer.write(&pairs)?;
            }
            self.progress.inc(strip.len() as u64);
            stop::check()?;
        }
        let matrix = writers.matrix.map(MatrixWriter::end);
        matrix.into_iter().chain(writers.pairs.map(PairsWriter::end)).collect()
    }

    /// Correlates and ranks a strip. Returns the correlations (whole rows if `whole`) and the pairs at or above the
    /// threshold.
    fn strip(&self, rows: Range<usize>, whole: bool) -> (Vec<f32>, Vec<Pair>) {
        let stride = if whole { self.cut.photos } else { BLOCK };
        let mut correlations = vec![0.0; rows.len() * stride];
        let mut pairs = Vec::new();
        let first = if self.cut.once { rows.start / BLOCK } else { 0 };
        for block in first..self.nearest.len() {
            let columns = self.correlator.block(block);
            let place = if whole { columns.start } else { 0 };
            self.correlator.tile(rows.clone(), block, &mut correlations[place..], stride);
            let tile = Tile { rows: rows.clone(), columns, correlations: &correlations[place..], stride };
            self.rank(&tile);
            if let Some(threshold) = self.config.threshold {
                pairs.extend(above(&tile, threshold));
            }
        }
        pairs.sort_unstable_by_key(|(row, other, _)| (*row, *other));
        (correlations, pairs.into_iter().map(|(row, other, correlation)| self.pair(row, other, correlation)).collect())
    }

    /// Ranks a tile for its rows, and also for its columns if only pairs right of the diagonal are computed.
    fn rank(&self, tile: &Tile) {
        let mut nearest = lock(&self.nearest[tile.rows.start / BLOCK]);
        tile.right().for_each(|(row, first, line)| nearest.offer_row(row % BLOCK, first, line));
        if !self.cut.once {
            tile.left().for_each(|(row, line)| nearest.offer_row(row % BLOCK, tile.columns.start, line));
            return;
        }
        drop(nearest);
        let mut nearest = lock(&self.nearest[tile.columns.start / BLOCK]);
        tile.right().for_each(|(row, first, line)| nearest.offer_column(row, first % BLOCK, line));
    }

    fn pair(&self, row: usize, other: usize, correlation: f32) -> Pair {
        let ids = self.correlator.photo_ids();
        let cells_in_common = self.correlator.cells_in_common(row, other);
        Pair { photo_id: ids[row], other_id: ids[other], correlation, cells_in_common }
    }

    fn neighbours(self) -> Vec<Neighbour> {
        let blocks = self.nearest.iter().map(|block| std::mem::take(&mut lock(block).lists));
        let lists: Vec<_> = blocks.flatten().collect();
        let of_photo = |(row, list): (usize, &Vec<(u32, f32)>)| {
            let neighbour = |(&(other, correlation), rank): (&(u32, f32), u32)| {
                let pair = self.pair(row, other as usize, correlation);
                Neighbour {
                    photo_id: pair.photo_id,
                    rank,
                    neighbour_id: pair.other_id,
                    correlation,
                    cells_in_common: pair.cells_in_common,
                }
            };
            list.iter().zip(1..).map(neighbour).collect::<Vec<_>>()
        };
        lists.par_iter().enumerate().flat_map_iter(of_photo).collect()
    }
}

/// The pairs of a tile right of the diagonal with a correlation of at least `threshold`: both rows and the correlation.
fn above(tile: &Tile, threshold: f32) -> impl Iterator<Item = (usize, usize, f32)> {
    tile.right().flat_map(move |(row, first, line)| {
        let pairs = (first..).zip(line).filter(move |(_, correlation)| **correlation >= threshold);
        pairs.map(move |(other, &correlation)| (row, other, correlation))
    })
}

/// Ignores poisoning: a worker that panics ends the run, so what it left behind is never used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::shard::Shard;
    use crate::units::ByteSize;

    fn cut(photos: usize, change: impl FnOnce(&mut Config)) -> Result<Cut> {
        let mut config = Config::default();
        change(&mut config);
        Cut::new(&config, photos, 2)
    }

    #[test]
    fn parts_depend_on_the_table_and_not_on_memory_or_shards() -> Result<()> {
        let whole = cut(20_000, |_| {})?;
        assert_eq!((whole.part_rows, whole.strip_rows, whole.row_group_rows, whole.rows()), (832, 64, 832, 20_000));
        let small = cut(20_000, |config| config.memory = ByteSize(2 * 20_000 * 8 * 9))?;
        assert_eq!((small.part_rows, small.strip_rows, small.row_group_rows), (832, 8, 8));
        let shards = (1..=3).map(|number| cut(20_000, |config| config.shard = Shard::new(number, 3)));
        let parts = shards.map(|cut| Ok(cut?.parts())).collect::<Result<Vec<_>>>()?.concat();
        assert_eq!(parts, whole.parts());
        Ok(())
    }

    #[test]
    fn a_failed_check_ends_the_run_then() {
        const PARTS: usize = 5000;
        let (computed, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let compute = |part| {
            // The check of the first part is never late; what comes after it takes its time.
            while part > 0 && !failed.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(u64::from(part > 0)));
            computed.fetch_add(1, Ordering::SeqCst);
            Ok(vec![part])
        };
        let check = |part| {
            assert_eq!(part, 0, "nothing is checked after it");
            failed.store(true, Ordering::SeqCst);
            Err(Error::input("part-00000.parquet", "is damaged"))
        };
        let ended = compute_and_check((0..PARTS).collect(), compute, check).expect_err("its error");
        assert!(ended.to_string().contains("part-00000.parquet: is damaged"), "{ended}");
        assert!(computed.load(Ordering::SeqCst) < PARTS / 2, "{computed:?} of {PARTS} parts were computed");
        let checked = AtomicUsize::new(0);
        let count = |_| {
            checked.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        compute_and_check(vec![1, 2, 3], |part| Ok(vec![part; part]), count).expect("all are good");
        assert_eq!(checked.load(Ordering::SeqCst), 6);
        let failing = |part| if part == 2 { Err(Error::input("two", "fails")) } else { Ok(vec![part]) };
        let ended = compute_and_check(vec![1, 2, 3], failing, |_| Ok(())).expect_err("that of the computation");
        assert!(ended.to_string().contains("two: fails"), "{ended}");
    }

    #[test]
    fn too_little_memory_for_one_row_is_said_to_be_so() {
        let refused = cut(100_000, |config| config.memory = ByteSize(1_000_000)).expect_err("a row is 800 kB a worker");
        assert!(matches!(refused, Error::Limit { .. }) && refused.to_string().contains("--memory"), "{refused}");
        let neighbours = |config: &mut Config| (config.memory, config.matrix) = (ByteSize(1_000_000), Matrix::None);
        assert!(cut(100_000, neighbours).expect("no rows are held").once);
    }
}
