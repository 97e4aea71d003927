//! `segment`: a catalogue of photos to the feature table.
//!
//! In: a catalogue, and the model's network and colour table (or, with `from = "labels"`, the dataset's own labels). Out:
//! `part-NNNNN.parquet`, `rejects.parquet`, `run.json`; of a shard in a folder of its own, until a merge. Photos are scaled to fit 400 x 600 and their pixels counted at that
//! size; a dataset's own label maps are counted as they are.

use std::path::PathBuf;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::color::{self, ColorTable};
use crate::error::{Error, Result};
use crate::features::{ColorRule, FeatureStatistics, PixelCounts};
use crate::labels;
use crate::photo::{self, FIT_HEIGHT_PX, FIT_WIDTH_PX, Photo, PhotoProblem};
use crate::predict::Predictor;
use crate::progress::Progress;
use crate::runtime::{Device, PrecisionChoice};
use crate::shard::Shard;
use crate::stage::{self, Common, Stage, Summary};
use crate::stop;
use crate::table::features::{FeatureRow, FeatureWriter, Format};
use crate::table::rejects::{self, DEFAULT_MAX_REJECT_FRACTION, Reject};
use crate::train::PREDICT_FILE;

pub mod catalogue;
mod merge;

use catalogue::{Catalogue, Item};

/// Default of `batch_photos`: a decoded batch is 46 MB.
pub const DEFAULT_BATCH_PHOTOS: usize = 64;
/// `model_id` of features that come from the source's own labels.
pub const LABELS_MODEL_ID: &str = "labels";
const STAGE: &str = "segment";
/// The count of pixels by apparel category in `run.json`.
const CATEGORY_PX: &str = "apparel_category_px";

/// Where label maps come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelSource {
    /// The network.
    #[default]
    Model,
    /// The labels of the dataset folder.
    Labels,
}

/// Settings of `segment`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A dataset folder, a folder tree of photos, or a Parquet or CSV list with the columns `photo_id` and `path`.
    pub catalogue: PathBuf,
    /// The model folder; not read where `from` is `labels`.
    pub model: PathBuf,
    /// The folder of the feature table.
    pub output: PathBuf,
    /// Where label maps come from.
    pub from: LabelSource,
    /// How the pixels of a category get their colour.
    pub color_rule: ColorRule,
    /// Where the network runs.
    pub device: Device,
    /// The numbers that it computes in.
    pub precision: PrecisionChoice,
    /// In which formats the table is written.
    pub format: Format,
    /// Photos held in memory at a time ([`DEFAULT_BATCH_PHOTOS`]).
    pub batch_photos: usize,
    /// The largest share of photos that may be rejected, 0 to 1 ([`DEFAULT_MAX_REJECT_FRACTION`]).
    pub max_reject_fraction: f64,
    /// The photos of one shard alone, into a folder of its own.
    pub shard: Option<Shard>,
    /// Nothing is segmented: the folders of all shards become one table, as a run without shards makes it.
    pub merge: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            catalogue: PathBuf::from("output/dataset"),
            model: PathBuf::from("output/model"),
            output: PathBuf::from("output/features"),
            from: LabelSource::default(),
            color_rule: ColorRule::default(),
            device: Device::default(),
            precision: PrecisionChoice::default(),
            format: Format::default(),
            batch_photos: DEFAULT_BATCH_PHOTOS,
            max_reject_fraction: DEFAULT_MAX_REJECT_FRACTION,
            shard: None,
            merge: false,
        }
    }
}

/// Segments the catalogue, or its part that is one shard's, into the feature table; or merges the tables of all shards.
///
/// # Errors
/// Bad settings, catalogues, models and shards by name; gates; more rejects than allowed after publishing.
pub fn run(config: &Config, common: &Common) -> Result<Summary> {
    check(config)?;
    let catalogue = Catalogue::open(&config.catalogue)?;
    if config.from == LabelSource::Labels && !matches!(catalogue, Catalogue::Dataset(_)) {
        let problem = "'labels' needs a dataset folder as the catalogue; other catalogues have no labels, take 'model'";
        return Err(Error::config("from", problem));
    }
    let output = config.shard.map_or_else(|| config.output.clone(), |shard| shard.folder(&config.output));
    if common.dry_run {
        let mut summary = stage::planned(STAGE, &output, common, config);
        summary.counts.insert("photos".to_owned(), catalogue.len().into());
        return Ok(summary);
    }
    let mut stage = Stage::begin(STAGE, &output, common, config)?;
    let rejects = if config.merge {
        merge::merge(config, &catalogue, &mut stage)?
    } else {
        stage.input(&catalogue.source())?;
        let mut counter = Counter::load(config, common, &mut stage)?;
        count_photos(config, &catalogue, &mut counter, &stage)?
    };
    rejects::write(&stage.path(rejects::FILE), STAGE, &rejects)?;
    let photos = count_statistics(config, common, rejects.len() as u64, &mut stage)?;
    // Of a shard nothing is too much: the merge sees the whole.
    let allowed = if config.shard.is_some() { 1.0 } else { config.max_reject_fraction };
    rejects::publish(stage, rejects.len() as u64, photos + rejects.len() as u64, allowed)
}

fn check(config: &Config) -> Result<()> {
    if config.batch_photos == 0 {
        return Err(Error::config("batch_photos", "0 photos at a time are none; take 1 or more"));
    }
    if !(0.0..=1.0).contains(&config.max_reject_fraction) {
        let problem = format!("{} is no share; take 0 to 1", config.max_reject_fraction);
        return Err(Error::config("max_reject_fraction", problem));
    }
    if config.merge && config.shard.is_some() {
        return Err(Error::config("merge", "goes without --shard: it takes all shards"));
    }
    if config.from == LabelSource::Model && !config.merge {
        for file in [PREDICT_FILE, color::FILE] {
            let path = config.model.join(file);
            if !path.is_file() {
                return Err(Error::input(path, "is missing; run `lookbook train` first, or name another --model"));
            }
        }
    }
    Ok(())
}

/// Writes the parts; returns the photos left out.
fn count_photos(config: &Config, catalogue: &Catalogue, counter: &mut Counter, stage: &Stage) -> Result<Vec<Reject>> {
    let mut writer = FeatureWriter::new(&stage.path(""), config.format);
    let progress = Progress::new(STAGE, catalogue.len() as u64, "photos");
    let mut rejects = Vec::new();
    let wanted = |item: &Result<Item>| match (config.shard, item) {
        (Some(shard), Ok(item)) => shard.holds(catalogue.name_of(&item.entry)),
        _ => true,
    };
    let mut items = catalogue.items()?.filter(wanted);
    loop {
        let chunk = items.by_ref().take(config.batch_photos).collect::<Result<Vec<_>>>()?;
        if chunk.is_empty() {
            break;
        }
        stop::check()?;
        for row in counter.rows(&chunk)? {
            match row {
                Ok(row) => writer.push(row)?,
                Err(reject) => rejects.push(reject),
            }
        }
        progress.inc(chunk.len() as u64);
    }
    writer.close()?;
    Ok(rejects)
}

/// Counts what the table holds, and compares it with the gates; returns the number of photos.
fn count_statistics(config: &Config, common: &Common, rejects: u64, stage: &mut Stage) -> Result<u64> {
    let statistics = FeatureStatistics::scan(&stage.path(""))?;
    let photos = statistics.photos;
    stage.count("photos", photos);
    stage.count("rejects", rejects);
    stage.count("photos_without_apparel", statistics.photos_without_apparel);
    stage.count(CATEGORY_PX, named_px(&statistics.apparel_category_px));
    if config.shard.is_none() {
        let before = Summary::read(&config.output).ok().and_then(|summary| px_of(&summary));
        let nothing_worn_share = statistics.photos_without_apparel as f64 / photos.max(1) as f64;
        stage.gates(common.gates.photos(photos, rejects));
        let pixels = &statistics.apparel_category_px;
        stage.gates(common.gates.features(nothing_worn_share, pixels, before.as_deref()));
    }
    Ok(photos)
}

/// Pixels of the apparel categories by name.
fn named_px(pixels: &[u64]) -> serde_json::Value {
    let names = labels::apparel_categories().map(labels::column_name);
    names.zip(pixels).map(|(name, &px)| (name, px.into())).collect::<serde_json::Map<_, _>>().into()
}

/// What [`named_px`] wrote.
fn px_of(summary: &Summary) -> Option<Vec<u64>> {
    let named = summary.counts.get(CATEGORY_PX)?;
    labels::apparel_categories().map(|it| named.get(labels::column_name(it))?.as_u64()).collect()
}

/// Turns photos into rows: from labels where there is no network.
struct Counter {
    rule: ColorRule,
    /// The learnt table; typical values for labels of a source without colours.
    colors: ColorTable,
    predictor: Option<Predictor>,
}

impl Counter {
    fn load(config: &Config, common: &Common, stage: &mut Stage) -> Result<Self> {
        let rule = config.color_rule;
        if config.from == LabelSource::Labels {
            return Ok(Self { rule, colors: ColorTable::typical(), predictor: None });
        }
        let table = config.model.join(color::FILE);
        stage.input(&config.model.join(PREDICT_FILE))?;
        stage.input(&table)?;
        let predictor = Predictor::load(&config.model, common.engine(config.device), config.precision)?;
        stage.backend(predictor.backend());
        stage.count("precision", predictor.precision().name());
        Ok(Self { rule, colors: ColorTable::read(&table)?, predictor: Some(predictor) })
    }

    fn rows(&mut self, items: &[Item]) -> Result<Vec<Result<FeatureRow, Reject>>> {
        let (rule, colors) = (self.rule, &self.colors);
        let Some(predictor) = &mut self.predictor else {
            return Ok(items.par_iter().map(|item| labelled_row(item, rule, colors)).collect());
        };
        let mut photos = Vec::with_capacity(items.len());
        let mut digests = Vec::with_capacity(items.len());
        for decoded in items.par_iter().map(decode).collect::<Vec<_>>() {
            digests.push(decoded.map(|(photo, digest)| {
                photos.push(photo);
                digest
            }));
        }
        let label_maps = predictor.label_maps(&photos)?;
        let counts = photos.par_iter().zip(&label_maps).map(|(photo, map)| count(photo, map, rule, colors));
        let mut counted = photos.iter().zip(counts.collect::<Vec<_>>());
        let model_id = predictor.model_id();
        let rows = items.iter().zip(digests).map(|(item, digest)| {
            let digest = digest.map_err(|problem| reject(item, &problem))?;
            let (photo, counts) = counted.next().expect("each good photo was counted");
            Ok(row(item, digest, model_id, (photo.width_px, photo.height_px), counts))
        });
        Ok(rows.collect())
    }
}

/// Counts the pixels of a photo with its predicted label map (both of the same size).
pub(crate) fn count(photo: &Photo, label_map: &[u8], rule: ColorRule, colors: &ColorTable) -> PixelCounts {
    PixelCounts::of(label_map, photo.width_px, rule, |pixel| {
        colors.color_of([photo.rgb[pixel * 3], photo.rgb[pixel * 3 + 1], photo.rgb[pixel * 3 + 2]])
    })
}

fn decode(item: &Item) -> Result<(Photo, String), PhotoProblem> {
    let read;
    let bytes = if let Some(record) = &item.record {
        &record.encoded
    } else {
        read = photo::read_bytes(&item.entry.path)?;
        &read
    };
    Ok((photo::fit(&photo::decode(bytes)?, FIT_WIDTH_PX, FIT_HEIGHT_PX), digest(bytes)))
}

fn labelled_row(item: &Item, rule: ColorRule, typical: &ColorTable) -> Result<FeatureRow, Reject> {
    let record = item.record.as_ref().expect("labels come with a dataset's photos");
    let label_map = record.category_map();
    let counts = if let Some(colors) = record.color_map() {
        PixelCounts::of(&label_map, record.width_px, rule, |pixel| colors[pixel])
    } else {
        let photo = photo::decode(&record.encoded).map_err(|problem| reject(item, &problem))?;
        if (photo.width_px, photo.height_px) != (record.width_px, record.height_px) {
            let detail = format!("labels of {} x {} pixels do not lie on it", record.width_px, record.height_px);
            return Err(reject(item, &PhotoProblem::new(photo::reason::OTHER_SIZE, detail)));
        }
        count(&photo, &label_map, rule, typical)
    };
    let size = (record.width_px, record.height_px);
    Ok(row(item, digest(&record.encoded), LABELS_MODEL_ID, size, counts))
}

fn row(item: &Item, digest: String, model_id: &str, size: (u32, u32), counts: PixelCounts) -> FeatureRow {
    FeatureRow {
        photo_id: item.entry.photo_id,
        file_name: item.entry.file_name.clone(),
        path: item.entry.path.to_string_lossy().into_owned(),
        content_sha256: digest,
        model_id: model_id.to_owned(),
        width_px: size.0,
        height_px: size.1,
        counts,
    }
}

fn reject(item: &Item, problem: &PhotoProblem) -> Reject {
    Reject::new(item.entry.path.to_string_lossy(), problem.reason, &problem.detail)
}

/// SHA-256 of an encoded photo, lower-case hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    stage::hexadecimal(&Sha256::digest(bytes))
}
