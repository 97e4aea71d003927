//! `segment`: a catalogue of photos to the feature table.
//!
//! In: a catalogue, and the model's network and colour table (or, with `from = "labels"`, the dataset's own labels). Out:
//! `part-NNNNN.parquet` with `state-NNNNN.parquet` beside each, `rejects.parquet`, `masks/` where they are asked for,
//! `run.json`; of a shard in a folder of its own, until a merge. Photos are scaled to fit 400 x 600 and their pixels counted
//! at that size; a dataset's own label maps are counted as they are. What the version before, or a run that was killed, has
//! made of the same content by the same model and settings is taken over.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::color::ColorTable;
use crate::error::{Error, Result};
use crate::features::{ColorRule, FeatureStatistics, PixelCounts};
use crate::files;
use crate::labels;
use crate::model::Model;
use crate::photo::{self, Photo};
use crate::predict::Predictor;
use crate::progress::Progress;
use crate::runtime::{Device, PrecisionChoice};
use crate::shard::Shard;
use crate::stage::{self, Common, Stage, Summary};
use crate::table::features::Format;
use crate::table::rejects::{self, DEFAULT_MAX_REJECT_FRACTION, Reject};

pub mod catalogue;
mod earlier;
mod masks;
mod merge;
mod parts;
mod stream;

use catalogue::Catalogue;
use earlier::{Earlier, Folder, Wanted};
pub use parts::UNFINISHED;
use parts::{Fate, Parts, Tally, Unfinished, Writer, Written};

/// Default of `max_megapixels`.
pub const DEFAULT_MAX_MEGAPIXELS: u32 = (photo::MAX_PIXELS / PIXELS_OF_MEGAPIXEL) as u32;
const PIXELS_OF_MEGAPIXEL: u64 = 1_000_000;
/// Default of `keep_every_photos`: on two cores the work of ten seconds.
pub const DEFAULT_KEEP_EVERY_PHOTOS: usize = 256;
/// `model_id` of features that come from the source's own labels.
pub const LABELS_MODEL_ID: &str = "labels";
/// Raised when the same photo, model and settings give another row.
const ROW_VERSION: u32 = 1;
const STAGE: &str = "segment";
/// The count of pixels by apparel category in `run.json`.
const CATEGORY_PX: &str = "apparel_category_px";
/// The next id of a folder tree in `run.json`.
const NEXT_PHOTO_ID: &str = "next_photo_id";

/// Which masks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Masks {
    /// None.
    #[default]
    None,
    /// The label map of each photo, at the photo's own size, as a palette PNG.
    Png,
}

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
    /// Whether each photo's label map is written as a picture.
    pub masks: Masks,
    /// Most million pixels that a photo may have ([`DEFAULT_MAX_MEGAPIXELS`]).
    pub max_megapixels: u32,
    /// Whether photos that are no longer in the catalogue keep their rows.
    pub keep_vanished: bool,
    /// Photos after which what was made is put down for the next run to find, should this one be killed
    /// ([`DEFAULT_KEEP_EVERY_PHOTOS`]).
    pub keep_every_photos: usize,
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
            masks: Masks::default(),
            max_megapixels: DEFAULT_MAX_MEGAPIXELS,
            keep_vanished: false,
            keep_every_photos: DEFAULT_KEEP_EVERY_PHOTOS,
            max_reject_fraction: DEFAULT_MAX_REJECT_FRACTION,
            shard: None,
            merge: false,
        }
    }
}

impl Config {
    /// The folder that is published: a shard's own, or the output.
    fn folder(&self) -> PathBuf {
        self.shard.map_or_else(|| self.output.clone(), |shard| shard.folder(&self.output))
    }

    fn max_pixels(&self) -> u64 {
        u64::from(self.max_megapixels) * PIXELS_OF_MEGAPIXEL
    }
}

/// Segments the catalogue, or its part that is one shard's, into the feature table; or merges the tables of all shards.
///
/// # Errors
/// Bad settings, catalogues, models and shards by name; gates; more rejects than allowed after publishing.
pub fn run(config: &Config, common: &Common) -> Result<Summary> {
    check(config)?;
    let config = &if config.merge { merge::settings(config)? } else { config.clone() };
    if common.dry_run {
        return dry_run(config, common);
    }
    let kept: &[&str] = if config.masks == Masks::Png { &[UNFINISHED, masks::FOLDER] } else { &[UNFINISHED] };
    let mut stage = Stage::begin_again(STAGE, &config.folder(), common, config, kept)?;
    let written = if config.merge { merge::merge(config, &mut stage)? } else { segment(config, common, &mut stage)? };
    stage.remove_before_publishing(UNFINISHED);
    rejects::write(&stage.path(rejects::FILE), STAGE, &written.rejects)?;
    stage.count("rejects_by_reason", by_reason(&written.rejects));
    let rejected = written.rejects.len() as u64;
    let photos = count_statistics(config, common, rejected, &mut stage)?;
    // Of a shard nothing is too much: the merge sees the whole.
    let allowed = if config.shard.is_some() { 1.0 } else { config.max_reject_fraction };
    rejects::publish(stage, rejected, photos + rejected, allowed)
}

/// Number of rejects of each reason.
fn by_reason(rejects: &[Reject]) -> serde_json::Value {
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    for reject in rejects {
        *counts.entry(&reject.reason).or_default() += 1;
    }
    json!(counts)
}

fn check(config: &Config) -> Result<()> {
    for (setting, value) in
        [("max_megapixels", config.max_megapixels as usize), ("keep_every_photos", config.keep_every_photos)]
    {
        if value == 0 {
            return Err(Error::config(setting, "is 0; take 1 or more"));
        }
    }
    if !(0.0..=1.0).contains(&config.max_reject_fraction) {
        let problem = format!("{} is no share; take 0 to 1", config.max_reject_fraction);
        return Err(Error::config("max_reject_fraction", problem));
    }
    if config.merge && config.shard.is_some() {
        return Err(Error::config("merge", "goes without --shard: it takes all shards"));
    }
    let [catalogue, output] = [&config.catalogue, &config.output].map(|it| std::path::absolute(it).unwrap_or_default());
    if config.masks == Masks::Png && output.starts_with(&catalogue) {
        let problem = "lies within the catalogue: its masks would be taken for photos; name a folder outside";
        return Err(Error::config("output", problem));
    }
    if config.from == LabelSource::Labels && !config.catalogue.join("photos.parquet").is_file() {
        return Err(without_labels());
    }
    if config.from == LabelSource::Model && !config.merge {
        // Before the lock is taken, and long before the photos are read.
        Model::open(&config.model)?.colors()?;
    }
    Ok(())
}

/// The catalogue and what earlier runs know of it.
struct Plan {
    catalogue: Catalogue,
    earlier: Earlier,
    wanted: Wanted,
    fates: Vec<Fate>,
    /// Photos of the published table that the catalogue no longer has, and that are dropped.
    vanished: u64,
    next_photo_id: u32,
}

impl Plan {
    /// Opens the catalogue and decides from names, sizes and times what is to be looked at.
    fn new(config: &Config, made_by: &MadeBy) -> Result<Self> {
        let mut earlier = published(config)?;
        // What a killed run, one that a gate kept back, or one of this shard has made.
        let folder = config.folder();
        let versions = stage::Versions::of(&folder)?;
        earlier.folders.extend(Folder::unfinished(&versions.partial())?);
        earlier.folders.extend(Folder::open(&versions.rejected())?);
        if config.shard.is_some() {
            earlier.folders.extend(Folder::open(&folder)?);
        }
        let (mut catalogue, next_photo_id) = open_catalogue(config, &earlier)?;
        let row_key = row_key(config, made_by, &catalogue)?;
        let wanted = Wanted { row_key, mask: config.masks == Masks::Png };
        let before = earlier.published().iter().filter(|it| it.row.is_some());
        let before = before.map(|it| (it.state.name.clone(), it.state.photo_id));
        let before = before.filter(|(name, _)| config.shard.is_none_or(|shard| shard.holds(Path::new(&**name))));
        let vanished = catalogue.keep(before, config.keep_vanished);
        let fates = catalogue.entries.par_iter().map(|entry| {
            let known = if entry.kept {
                earlier.in_published(&entry.name)
            } else if catalogue.dataset().is_some() {
                None
            } else {
                // Where there is nothing to compare with, the worker that reads the file finds out what it is.
                earlier
                    .by_name(&entry.name, wanted)
                    .and_then(|_| earlier.unchanged(&entry.name, stream::stat(&catalogue.path_of(entry)).ok()?, wanted))
            };
            known.map_or(Fate::Todo, Fate::Take)
        });
        let fates = fates.collect();
        Ok(Self { catalogue, earlier, wanted, fates, vanished, next_photo_id })
    }

    /// Indices of the photos that are to be looked at.
    fn todo(&self) -> Vec<u32> {
        let todo = self.fates.iter().zip(0..).filter(|(fate, _)| matches!(fate, Fate::Todo));
        todo.map(|(_, index)| index).collect()
    }
}

/// The published table, as far as it tells what it was made of.
fn published(config: &Config) -> Result<Earlier> {
    let mut earlier = Earlier::default();
    if let Some(mut folder) = Folder::open(&config.output)? {
        folder.compare_paths(&config.catalogue);
        earlier.published = Some(0);
        earlier.folders.push(folder);
    }
    Ok(earlier)
}

/// Opens the catalogue, its shard where there is one; photos of a folder tree have the ids that the published table gave
/// them. Also the next id.
fn open_catalogue(config: &Config, earlier: &Earlier) -> Result<(Catalogue, u32)> {
    let recorded = earlier.published.and_then(|it| earlier.folders[usize::from(it)].recorded.as_ref());
    let next = recorded.and_then(|it| it.counts.get(NEXT_PHOTO_ID)?.as_u64());
    let numbering = earlier.numbering(next.unwrap_or(0) as u32);
    let mut catalogue = Catalogue::open(&config.catalogue, &numbering)?;
    let next = catalogue.entries.iter().map(|it| it.photo_id.saturating_add(1)).max().unwrap_or(0);
    if let Some(shard) = config.shard {
        catalogue.take(shard);
    }
    Ok((catalogue, next.max(numbering.next)))
}

/// Looks at what is new, takes over the rest, and writes the parts.
fn segment(config: &Config, common: &Common, stage: &mut Stage) -> Result<Written> {
    let mut counter = Counter::load(config, common, stage)?;
    let mut predictor = counter.predictor.take();
    let plan = Plan::new(config, &counter.made_by)?;
    let wanted = plan.wanted;
    plan.catalogue.record(stage)?;
    let masks_were_left = stage.path(masks::FOLDER).exists();
    let todo = plan.todo();
    if todo.len() >= config.keep_every_photos {
        stage.keep_unfinished();
    }
    let model_id = predictor.as_ref().map_or(LABELS_MODEL_ID, Predictor::model_id).to_owned();
    let work = stream::Work {
        config,
        catalogue: &plan.catalogue,
        earlier: &plan.earlier,
        counter: &counter,
        wanted,
        masks: wanted.mask.then(|| stage.path(masks::FOLDER)),
        spec: predictor.as_ref().map(|it| it.spec().clone()),
        model_id: &model_id,
    };
    let mut parts = plan.parts(config, stage);
    let mut writer = Writer::new(&mut parts);
    let progress = Progress::new(STAGE, todo.len() as u64, "photos");
    stream::run(&work, predictor.as_mut(), plan.catalogue.items(&todo)?, common.threads, |outcome| {
        progress.inc(1);
        writer.push(outcome)
    })?;
    let written = writer.close()?;
    if masks_were_left {
        masks::retain(&stage.path(masks::FOLDER), &written.masks)?;
    }
    count_written(stage, &written, &plan);
    Ok(written)
}

impl Plan {
    fn parts<'a>(&'a self, config: &Config, stage: &Stage) -> Parts<'a> {
        Parts {
            catalogue: &self.catalogue,
            earlier: &self.earlier,
            fates: &self.fates,
            folder: stage.path(""),
            format: config.format,
            masks: self.wanted.mask,
            row_key: self.wanted.row_key,
            unfinished: Unfinished::new(
                &stage.path(UNFINISHED),
                self.wanted.mask.then(|| stage.path(masks::FOLDER)),
                config.keep_every_photos,
            ),
        }
    }
}

/// Says what would be done, from names, sizes and times; files are read where these differ.
fn dry_run(config: &Config, common: &Common) -> Result<Summary> {
    let mut summary = stage::dry_run(STAGE, &config.folder(), common, config)?;
    if config.merge {
        let (catalogue, _) = open_catalogue(config, &published(config)?)?;
        summary.counts.insert("photos".to_owned(), catalogue.entries.len().into());
        return Ok(summary);
    }
    let made_by = match config.from {
        LabelSource::Labels => MadeBy::Labels,
        LabelSource::Model => {
            let model = Model::open(&config.model)?;
            let precision = config.precision.resolve(common.engine(config.device))?.name();
            MadeBy::Model { checksums: model.checksums(&model.colors()?), precision }
        }
    };
    let plan = Plan::new(config, &made_by)?;
    let tally = plan.foretell()?;
    let photos = plan.catalogue.entries.len() as u64;
    let counts = [
        ("photos", photos),
        ("known", tally.known + tally.resumed),
        ("new", tally.new),
        ("changed", tally.changed),
        ("outdated", tally.outdated),
        ("vanished", plan.vanished),
        ("kept", tally.kept),
    ];
    summary.counts.extend(counts.map(|(name, count)| (name.to_owned(), count.into())));
    Ok(summary)
}

impl Plan {
    /// What a run would find.
    fn foretell(&self) -> Result<Tally> {
        let wanted = self.wanted;
        let mut tally = Tally::default();
        let kept = self.catalogue.entries.iter().filter(|it| it.kept).count() as u64;
        let todo = self.todo();
        tally.kept = kept;
        tally.known = (self.fates.len() - todo.len()) as u64 - kept;
        for item in self.catalogue.items(&todo)? {
            let item = item?;
            let name = &self.catalogue.entries[item.index as usize].name;
            let usable = self.earlier.by_name(name, wanted);
            let same = || {
                let content = stream::content_of(&self.catalogue, &item)?;
                self.earlier.by_content(name, &content, wanted)
            };
            let count = match (usable, self.earlier.in_published(name)) {
                (Some(_), _) if same().is_some() => &mut tally.known,
                (Some(_), Some(_)) => &mut tally.changed,
                (None, Some(_)) => &mut tally.outdated,
                (_, None) => &mut tally.new,
            };
            *count += 1;
        }
        Ok(tally)
    }
}

/// What makes rows out of photos.
enum MadeBy {
    Labels,
    Model {
        /// Of the network and of the colour table.
        checksums: [String; 2],
        precision: &'static str,
    },
}

/// What rows depend on beside the photo's content, as a number.
fn row_key(config: &Config, made_by: &MadeBy, catalogue: &Catalogue) -> Result<u64> {
    let source = match (made_by, catalogue.dataset()) {
        (MadeBy::Labels, Some(dataset)) => json!(files::checksum(&dataset.photos_path())?.1),
        (MadeBy::Labels, None) => return Err(without_labels()),
        (MadeBy::Model { checksums: [model, colors], precision }, _) => {
            json!({ "model": model, "colors": colors, "precision": precision })
        }
    };
    let all = json!({ "version": ROW_VERSION, "source": source, "color_rule": config.color_rule }).to_string();
    let digest = Sha256::digest(all.as_bytes());
    Ok(u64::from_be_bytes(std::array::from_fn(|byte| digest[byte])))
}

fn without_labels() -> Error {
    let problem = "'labels' needs a dataset folder as the catalogue; other catalogues have no labels, take 'model'";
    Error::config("from", problem)
}

fn count_written(stage: &mut Stage, written: &Written, plan: &Plan) {
    for (name, count) in written.tally.named() {
        stage.count(name, count);
    }
    stage.count("vanished", plan.vanished);
    stage.count("parts_unchanged", written.linked_parts);
    count_parts(stage, written, plan);
}

fn count_parts(stage: &mut Stage, written: &Written, plan: &Plan) {
    stage.count("parts", written.parts);
    stage.count(NEXT_PHOTO_ID, plan.next_photo_id);
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
        let before = Summary::find(&config.output)?.and_then(|summary| px_of(&summary));
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

/// What turns label maps into counts, and photos into label maps.
struct Counter {
    rule: ColorRule,
    /// The learnt table; typical values for labels of a source without colours.
    colors: ColorTable,
    predictor: Option<Predictor>,
    made_by: MadeBy,
}

impl Counter {
    fn load(config: &Config, common: &Common, stage: &mut Stage) -> Result<Self> {
        let rule = config.color_rule;
        if config.from == LabelSource::Labels {
            return Ok(Self { rule, colors: ColorTable::typical(), predictor: None, made_by: MadeBy::Labels });
        }
        let model = Model::open(&config.model)?;
        let colors = model.colors()?;
        model.record(&colors, stage);
        let predictor = model.predictor(common.engine(config.device), config.precision)?;
        let precision = predictor.precision().name();
        stage.backend(predictor.backend());
        stage.count("precision", precision);
        let made_by = MadeBy::Model { checksums: model.checksums(&colors), precision };
        Ok(Self { rule, colors: colors.table, predictor: Some(predictor), made_by })
    }
}

/// Counts the pixels of a photo with its label map (both of the same size), colours by the table.
pub(crate) fn count(photo: &Photo, label_map: &[u8], rule: ColorRule, colors: &ColorTable) -> PixelCounts {
    let colors = colors.name_pixels(photo, label_map);
    PixelCounts::of(label_map, photo.width_px, rule, |pixel| colors[pixel])
}

/// SHA-256 of an encoded photo, lower-case hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    files::hexadecimal(&earlier::digest(bytes))
}
