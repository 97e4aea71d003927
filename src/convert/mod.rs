//! `convert`: turns source records into dataset tables.
//!
//! All threads read, inflate and check; one more writes. Only a few dozen photos are in memory at once, however many
//! the source has.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::dataset::{LICENSE_FILE, PhotoRecord, Split, names, photos};
use crate::error::{Error, Result};
use crate::labels::LabelSet;
use crate::mat::Annotation;
use crate::photo::PhotoProblem;
use crate::progress::Progress;
use crate::rejects::{self, DEFAULT_MAX_REJECT_FRACTION, Reject};
use crate::stage::{self, Common, Listing, Outcome, Read, RunFolders, Stage, StageConfig};
use crate::table::TableWriter;
use crate::{files, photo, reason, stop, threads};

mod coco;
mod format;
mod label_studio;
mod masks;
mod source;

use format::MAX_LABELLED_PIXELS;
use source::Source;
pub use source::{Labels, Layout};

/// Name of this stage.
pub const STAGE: &str = "convert";
/// Default of the setting `split`: the seed's train, validation and test splits, in per cent.
pub const DEFAULT_SPLIT: [u32; 3] = [81, 9, 10];
/// Number of photos read before they are passed to the writer.
const BATCH: usize = photos::ROW_GROUP_ROWS;
/// Number of pixels that are read before they are passed to the writer, unless a single photo has more.
const BATCH_PIXELS: u64 = 1 << 26;
/// Maximum size of a photo file: a batch of them goes into one column of bytes, whose offsets have 31 bits.
const MAX_PHOTO_BYTES: u64 = 64 << 20;

/// Settings of `convert`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of the source.
    pub source: PathBuf,
    /// The folder of the dataset tables.
    pub output: PathBuf,
    /// Ratio of the train, validation and test splits; photos are assigned to them in file order. A split of 0 has no
    /// photos: `[0, 0, 1]` is a data set for `evaluate` alone. A source with parts of its own keeps them.
    pub split: [u32; 3],
    /// The largest fraction of entries that may be rejected, 0 to 1.
    pub max_reject_fraction: f64,
    /// The categories and colours of the data set: `cfpd`, `source` for those that the source names, or a `labels.toml`.
    pub labels: Labels,
    /// The settings file whose table `[fold]` maps the source's category names to those of `labels`, and `[colors]` its colour
    /// names; those that are the same need no line. If none is given, Clothing Co-Parsing is folded by the built-in one
    /// (`pipelines/ccp_fold.toml`) for `cfpd`.
    pub fold: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source: PathBuf::from("data"),
            output: PathBuf::from("output/dataset"),
            split: DEFAULT_SPLIT,
            max_reject_fraction: DEFAULT_MAX_REJECT_FRACTION,
            labels: Labels::default(),
            fold: None,
        }
    }
}

impl Config {
    /// Checks that a model can be trained on the splits.
    ///
    /// # Errors
    /// [`Error::Config`] if there are no photos to learn from, or none to validate with.
    pub fn check_for_training(&self) -> Result<()> {
        let missing = ["train", "validation"].into_iter().zip(self.split).find(|(_, ratio)| *ratio == 0);
        missing.map_or(Ok(()), |(part, _)| {
            let problem =
                format!("{:?} has no {part} split, so nothing can be trained; use e.g. [81, 9, 10]", self.split);
            Err(Error::config("convert.split", problem))
        })
    }

    /// The split of the photo at `position` among `total` photos.
    fn split_of(&self, position: usize, total: usize) -> Split {
        let sum: u64 = self.split.iter().map(|&part| u64::from(part)).sum();
        let end = |parts: u64| (total as u64 * parts * 2 + sum) / (sum * 2);
        let train = u64::from(self.split[0]);
        match position as u64 {
            at if at < end(train) => Split::Train,
            at if at < end(train + u64::from(self.split[1])) => Split::Validation,
            _ => Split::Test,
        }
    }
}

impl StageConfig for Config {
    const NAME: &'static str = STAGE;
    const WITHOUT_EFFECT: &'static [&'static str] = &["source", "output", "fold", "max_reject_fraction"];

    fn folder(&self) -> PathBuf {
        self.output.clone()
    }

    fn in_run(run: &RunFolders) -> Vec<(&'static str, PathBuf)> {
        let source = run.source.map_or_else(|| run.folder("sample"), Path::to_owned);
        vec![("source", source), ("output", run.folder("dataset"))]
    }

    fn check(&self) -> Result<()> {
        if self.split == [0; 3] {
            let problem = format!("{:?} has no part at all; use e.g. [81, 9, 10]", self.split);
            return Err(Error::config("convert.split", problem));
        }
        if !(0.0..=1.0).contains(&self.max_reject_fraction) {
            let problem = format!("{} is not a fraction from 0 to 1", self.max_reject_fraction);
            return Err(Error::config("convert.max_reject_fraction", problem));
        }
        self.labels.check()
    }

    fn reads(&self) -> Result<Vec<Read>> {
        let source = Read::below(&self.source)?;
        let labels = if let Labels::File(path) = &self.labels { Some(path.clone()) } else { None };
        Ok(std::iter::once(source).chain(labels.into_iter().chain(self.fold.clone()).map(Read::File)).collect())
    }

    fn run(&self, common: &Common) -> Result<Outcome> {
        run(self, common)
    }
}

/// Converts the source into the dataset folder.
///
/// # Errors
/// Invalid sources, by name.
pub fn run(config: &Config, common: &Common) -> Result<Outcome> {
    config.check()?;
    let source = Source::open(&config.source, &config.labels, config.fold.as_deref())?;
    // An entry's place in the source is its photo_id.
    if u32::try_from(source.len()).is_err() {
        let problem = format!("has {} entries, but photo_id ends at {}; split it", source.len(), u32::MAX);
        return Err(Error::input(&config.source, problem));
    }
    if common.dry_run {
        let mut summary = stage::dry_run(STAGE, &config.output, common, config)?;
        summary.counts.set("layout", source.layout.name());
        summary.counts.set("entries", source.len());
        return Ok(Outcome::Planned(summary));
    }
    let mut stage = Stage::begin(STAGE, &config.output, common, config)?;
    let known = Listing::read(&config.output);
    config.reads()?.iter().try_for_each(|read| stage.input(read, &known).map(drop))?;
    if let Some(license) = source.license()? {
        let content = std::fs::read(&license).map_err(Error::io("read", &license))?;
        files::write(&stage.path(LICENSE_FILE), &content)?;
    }
    let (mut rejects, mut splits) = write_photos(config, common, &source, &stage.path(photos::FILE))?;
    stop::check()?;
    let (total, rejected) = (source.len(), rejects.len());
    if rejected > 0 {
        if !source.has_parts() {
            assign_splits(config, total - rejected, &stage.path(photos::FILE))?;
            let photos = total - rejected;
            splits = Split::ALL.map(|split| (0..photos).filter(|&at| config.split_of(at, photos) == split).count());
        }
        let first = &rejects[0];
        tracing::warn!(
            rejected,
            total,
            "photos were left out, e.g. {}: {} ({})",
            first.item,
            first.reason,
            first.detail
        );
    }
    let [categories, colors] = [names::CATEGORIES_FILE, names::COLORS_FILE].map(|name| stage.path(name));
    names::write(&categories, &colors, &with_usual_shares(&source.labels, &stage.path(photos::FILE))?)?;
    let without_labels = source.listed().iter().filter(|it| it.reason == reason::NO_PIXEL_LABELS).count();
    let unplaced = source.listed().len() - without_labels;
    if unplaced > 0 {
        tracing::warn!(unplaced, "annotations belong to no photo; {} lists them", rejects::FILE);
    }
    rejects.extend_from_slice(source.listed());
    rejects::write(&stage.path(rejects::FILE), STAGE, &rejects)?;
    stage.count("layout", source.layout.name());
    stage.gates(common.gates.photos((total - rejected) as u64, rejected as u64));
    stage.count("entries", total);
    stage.count("photos", total - rejected);
    stage.count("rejects", rejected);
    stage.count("without_pixel_labels", without_labels);
    stage.count("annotations_without_photo", unplaced);
    for (split, count) in Split::ALL.into_iter().zip(splits) {
        stage.count(split.name(), count);
    }
    stage.publish_with_rejects(rejected as u64, total as u64, config.max_reject_fraction, rejects::FILE)
}

/// The label set with the usual shares that the photos have, where they are not known; those of the default set are.
fn with_usual_shares(labels: &LabelSet, photos: &Path) -> Result<LabelSet> {
    if labels.is_cfpd() {
        return Ok(labels.clone());
    }
    Ok(labels.with_usual_shares(&photos::usual_shares(photos, labels)?))
}

/// Rejects, and the number of photos in each split.
type Found = (Vec<Reject>, [usize; 3]);

/// Writes all valid photos. The splits are assigned as if there were no rejects.
fn write_photos(config: &Config, common: &Common, source: &Source, path: &Path) -> Result<Found> {
    // The writer writes one batch while the next one is read.
    let (sender, receiver) = sync_channel(1);
    std::thread::scope(|scope| {
        let writer = threads::spawn_in(scope, move || write_batches(path, &receiver))?;
        let rejects = threads::with(common.threads, || read_batches(config, source, &sender)).flatten();
        drop(sender);
        match writer.join() {
            // If the writer failed, the reading ended early without an error of its own.
            Ok(written) => written.and(rejects),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn write_batches(path: &Path, batches: &Receiver<Vec<PhotoRecord>>) -> Result<()> {
    let mut writer = TableWriter::create(path, photos::schema(), photos::ROW_GROUP_ROWS)?;
    for records in batches {
        writer.write(&photos::to_rows(&records))?;
    }
    writer.close().map(drop)
}

/// Reads and checks all entries in order; stops early if the writer failed or the run was asked to stop. Fails if the
/// file system does.
fn read_batches(config: &Config, source: &Source, batches: &SyncSender<Vec<PhotoRecord>>) -> Result<Found> {
    let total = source.len();
    let progress = Progress::new("converting", total as u64, "photos");
    let (mut seen, mut rejects, mut splits) = (HashSet::new(), Vec::new(), [0; 3]);
    let split_of = |index| source.split(index).unwrap_or_else(|| config.split_of(index, total));
    let mut first = 0;
    while first < total {
        let batch = first..first + batch_len(source, first);
        first = batch.end;
        let read = |index| (index, read_photo(source, index, split_of(index)));
        let results: Vec<_> = batch.into_par_iter().map(read).collect();
        progress.inc(results.len() as u64);
        let mut records = Vec::with_capacity(results.len());
        for (index, result) in results {
            match result?.and_then(|record| unseen(&mut seen, index, record)) {
                Ok(record) => {
                    splits[record.split as usize] += 1;
                    records.push(record);
                }
                Err(reject) => rejects.push(reject),
            }
        }
        if batches.send(records).is_err() || stop::check().is_err() {
            break;
        }
    }
    Ok((rejects, splits))
}

/// Number of entries from `first` on to read at once: few if they are large.
fn batch_len(source: &Source, first: usize) -> usize {
    let (mut entries, mut pixels) = (0, 0);
    for index in first..source.len().min(first + BATCH) {
        pixels += source.pixels(index);
        if entries > 0 && pixels > BATCH_PIXELS {
            break;
        }
        entries += 1;
    }
    entries
}

fn unseen(seen: &mut HashSet<String>, index: usize, record: PhotoRecord) -> Result<PhotoRecord, Reject> {
    if seen.insert(record.file_name.clone()) {
        return Ok(record);
    }
    let detail = format!("entry {} has the same photo as an earlier entry", index + 1);
    Err(Reject::new(record.file_name, reason::NAME_DUPLICATE, detail))
}

/// Reads an entry; the inner result says why it is left out.
fn read_photo(source: &Source, index: usize, split: Split) -> Result<Result<PhotoRecord, Reject>> {
    let labels = match source.annotation(index)? {
        Ok(labels) => labels,
        Err(reject) => return Ok(Err(reject)),
    };
    let path = source.photo_path(&labels.file_name);
    let encoded = read_file(source, &path);
    match encoded.as_ref().err().and_then(|problem| problem.limit(&path)) {
        Some(limit) => Err(limit),
        None => Ok(with_photo(encoded, &path, labels, index, split)),
    }
}

fn with_photo(
    encoded: Result<Vec<u8>, PhotoProblem>,
    path: &Path,
    labels: Annotation,
    index: usize,
    split: Split,
) -> Result<PhotoRecord, Reject> {
    let item = labels.file_name.as_str();
    let unusable =
        |problem: PhotoProblem| Reject::new(item, problem.reason, format!("{}: {}", path.display(), problem.detail));
    let encoded = encoded.map_err(unusable)?;
    let photo = photo::decode(&encoded).map_err(unusable)?;
    if (photo.width_px, photo.height_px) != (labels.width_px, labels.height_px) {
        let detail = format!(
            "the photo has {} x {} pixels, but its labels have {} x {}",
            photo.width_px, photo.height_px, labels.width_px, labels.height_px
        );
        return Err(Reject::new(item, reason::OTHER_SIZE, detail));
    }
    if u64::from(photo.width_px) * u64::from(photo.height_px) > MAX_LABELLED_PIXELS {
        let detail = format!(
            "the photo has {} x {} pixels; with labels, {MAX_LABELLED_PIXELS} are allowed",
            photo.width_px, photo.height_px
        );
        return Err(Reject::new(item, reason::TOO_LARGE, detail));
    }
    Ok(PhotoRecord {
        photo_id: index as u32,
        file_name: labels.file_name,
        split,
        width_px: labels.width_px,
        height_px: labels.height_px,
        encoded,
        superpixels: labels.superpixels,
        superpixel_category: labels.superpixel_category,
        superpixel_color: labels.superpixel_color,
    })
}

fn read_file(source: &Source, path: &Path) -> Result<Vec<u8>, PhotoProblem> {
    let bytes = photo::stat(path)?.len();
    let io_error = |error: Error| PhotoProblem::new(reason::IO_ERROR, error.with_causes());
    if let Some(target) = source.link_out(path).map_err(io_error)? {
        let detail = format!("is a link out of the source, to {}", target.display());
        return Err(PhotoProblem::new(reason::OUTSIDE_SOURCE, detail));
    }
    if bytes > MAX_PHOTO_BYTES {
        let detail = format!("the file has {bytes} bytes, more than the {MAX_PHOTO_BYTES} allowed");
        return Err(PhotoProblem::new(reason::TOO_LARGE, detail));
    }
    photo::read_bytes(path)
}

/// Rewrites the table after entries were rejected, since the remaining photos may belong to other splits.
fn assign_splits(config: &Config, total: usize, path: &Path) -> Result<()> {
    let before = path.with_extension("before");
    files::rename(path, &before)?;
    let mut writer = TableWriter::create(path, photos::schema(), photos::ROW_GROUP_ROWS)?;
    let mut position = 0;
    for rows in crate::table::read_table(&before, photos::TABLE, &photos::COLUMNS, photos::ROW_GROUP_ROWS)? {
        let rows = rows?;
        let splits: Vec<Split> =
            (position..position + rows.num_rows()).map(|position| config.split_of(position, total)).collect();
        position += splits.len();
        writer.write(&photos::with_splits(&rows, &splits))?;
    }
    writer.close()?;
    files::remove_file(&before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(total: usize) -> [usize; 3] {
        parts_of(&Config::default(), total)
    }

    fn parts_of(config: &Config, total: usize) -> [usize; 3] {
        Split::ALL.map(|split| (0..total).filter(|&at| config.split_of(at, total) == split).count())
    }

    #[test]
    fn the_seeds_train_part_is_136_steps_of_16() {
        assert_eq!(parts(2682), [2172, 242, 268]);
        assert_eq!(2172_usize.div_ceil(16), 136);
    }

    #[test]
    fn every_photo_is_in_one_part_in_file_order() {
        assert_eq!(parts(64), [52, 6, 6]);
        assert_eq!(parts(1), [1, 0, 0]);
        let config = Config::default();
        let order: Vec<Split> = (0..804).map(|at| config.split_of(at, 804)).collect();
        assert!(order.is_sorted_by_key(|&split| split as u8));
    }

    #[test]
    fn a_part_of_nothing_is_empty() {
        for (split, parts) in
            [([0, 0, 1], [0, 0, 7]), ([0, 1, 0], [0, 7, 0]), ([0, 1, 1], [0, 4, 3]), ([1, 0, 0], [7, 0, 0])]
        {
            assert_eq!(parts_of(&Config { split, ..Config::default() }, 7), parts);
        }
    }
}
