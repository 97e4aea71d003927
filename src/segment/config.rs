//! Settings of `segment`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::catalogue::Form;
use crate::dataset::Dataset;
use crate::engine::{Device, PrecisionChoice};
use crate::error::{Error, Result, shown};
use crate::features::rows::Format;
use crate::features::{CellRule, ColorRule, DEFAULT_MIN_REGION, DEFAULT_MIN_SHARE, Presence};
use crate::gates::Gates;
use crate::model::{Colors, Model};
use crate::parser::Parser;
use crate::photo;
use crate::rejects::DEFAULT_MAX_REJECT_FRACTION;
use crate::shard::{Division, Shard};
use crate::stage::TableForm;

/// Default of `max_megapixels`.
pub const DEFAULT_MAX_MEGAPIXELS: u32 = (photo::MAX_PIXELS / PIXELS_OF_MEGAPIXEL) as u32;

const PIXELS_OF_MEGAPIXEL: u64 = 1_000_000;

/// Default of `keep_every_photos`: about ten seconds of work on two cores.
pub const DEFAULT_KEEP_EVERY_PHOTOS: usize = 256;

/// `model_id` of features computed from the source's own labels.
pub const LABELS_MODEL_ID: &str = "labels";

/// Name of this stage.
pub const STAGE: &str = "segment";

/// Which masks to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Masks {
    /// None.
    #[default]
    None,
    /// The label map of each photo, at the photo's own size, as a palette PNG.
    Png,
    /// The same, and all of a part in a file of COCO's.
    Coco,
    /// The same, and all of a part in a file of Label Studio's, as pre-annotations.
    LabelStudio,
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
    /// The model folder, or a parser's; not read if `from` is `labels`.
    pub model: PathBuf,
    /// The folder of an embedder: a parser's, whose network gives a vector for each photo. Without one, the table has no
    /// embeddings.
    pub embedder: Option<PathBuf>,
    /// The folder of the feature table.
    pub output: PathBuf,
    /// Where label maps come from.
    pub from: LabelSource,
    /// How a category's colour is chosen.
    pub color_rule: ColorRule,
    /// Minimum share of the photo's apparel pixels for a cell to be present, as a fraction of its category's
    /// [usual share](crate::labels::Category::usual_share), 0 to 1 ([`DEFAULT_MIN_SHARE`]).
    pub min_share: f64,
    /// Minimum share of the largest connected region of a cell for it to be present, likewise ([`DEFAULT_MIN_REGION`]).
    pub min_region: f64,
    /// Device to run the network on.
    pub device: Device,
    /// Number format of the network's arithmetic.
    pub precision: PrecisionChoice,
    /// Whether `precision = "auto"` may choose int8, if the processor and the model allow it.
    pub allow_int8: bool,
    /// File formats to write the table in.
    pub format: Format,
    /// Whether the table is committed as a Delta table as well.
    pub table: TableForm,
    /// How to write the photos' label maps for people and labelling tools.
    pub masks: Masks,
    /// Write masks only for this many photos, those that the network is least certain of; 0 for all.
    pub uncertain: u32,
    /// Reject photos with more than this many million pixels ([`DEFAULT_MAX_MEGAPIXELS`]).
    pub max_megapixels: u32,
    /// Whether photos that are no longer in the catalogue keep their rows.
    pub keep_vanished: bool,
    /// Save progress every this many photos, so that the next run can reuse it if this one is killed
    /// ([`DEFAULT_KEEP_EVERY_PHOTOS`]).
    pub keep_every_photos: usize,
    /// The largest fraction of photos that may be rejected, 0 to 1 ([`DEFAULT_MAX_REJECT_FRACTION`]).
    pub max_reject_fraction: f64,
    /// Segment only the photos of this shard, into the shard's own folder.
    pub shard: Option<Shard>,
    /// How photos are divided among shards.
    pub shard_by: Division,
    /// Segment nothing, but merge the folders of all shards into the table that a run without shards would make.
    pub merge: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            catalogue: PathBuf::from("output/dataset"),
            model: PathBuf::from("output/model"),
            embedder: None,
            output: PathBuf::from("output/features"),
            from: LabelSource::default(),
            color_rule: ColorRule::default(),
            min_share: DEFAULT_MIN_SHARE,
            min_region: DEFAULT_MIN_REGION,
            device: Device::default(),
            precision: PrecisionChoice::default(),
            allow_int8: false,
            format: Format::default(),
            table: TableForm::default(),
            masks: Masks::default(),
            uncertain: 0,
            max_megapixels: DEFAULT_MAX_MEGAPIXELS,
            keep_vanished: false,
            keep_every_photos: DEFAULT_KEEP_EVERY_PHOTOS,
            max_reject_fraction: DEFAULT_MAX_REJECT_FRACTION,
            shard: None,
            shard_by: Division::default(),
            merge: false,
        }
    }
}

impl Config {
    /// The folder that is published: a shard's own, or the output.
    pub(super) fn folder(&self) -> PathBuf {
        self.shard.map_or_else(|| self.output.clone(), |shard| shard.folder(&self.output))
    }

    /// How the cells are made.
    pub(super) fn cell_rule(&self) -> CellRule {
        let Self { color_rule, min_share, min_region, .. } = *self;
        CellRule { color: color_rule, presence: Presence { min_share, min_region } }
    }

    /// Whether all photos with a row have a mask. With `uncertain`, the masks of a few are made when all are known; a
    /// merge takes them from the shards.
    pub(super) fn keeps_masks(&self) -> bool {
        self.masks != Masks::None && (self.uncertain == 0 || self.merge)
    }

    /// Whether the network's certainty is needed.
    pub(super) fn needs_certainty(&self) -> bool {
        let is_shown = matches!(self.masks, Masks::Coco | Masks::LabelStudio);
        self.from == LabelSource::Model && (self.uncertain > 0 || is_shown)
    }

    /// The number format that is asked for.
    #[must_use]
    pub fn precision(&self) -> PrecisionChoice {
        match self.precision {
            PrecisionChoice::Auto if self.allow_int8 => PrecisionChoice::Narrowest,
            precision => precision,
        }
    }

    /// Whether the ranges of the model's maps may be read.
    pub(super) fn may_be_int8(&self) -> bool {
        matches!(self.precision(), PrecisionChoice::Int8 | PrecisionChoice::Narrowest)
    }

    pub(super) fn max_pixels(&self) -> u64 {
        u64::from(self.max_megapixels) * PIXELS_OF_MEGAPIXEL
    }
}

pub(super) fn without_labels() -> Error {
    let problem = "'labels' needs a dataset folder as the catalogue; other catalogues have no labels, use 'model'";
    Error::config("segment.from", problem)
}

pub(super) fn check_values(config: &Config) -> Result<()> {
    for (setting, value) in [
        ("segment.max_megapixels", config.max_megapixels as usize),
        ("segment.keep_every_photos", config.keep_every_photos),
    ] {
        if value == 0 {
            return Err(Error::config(setting, "is 0; use 1 or more"));
        }
    }
    if !(0.0..=1.0).contains(&config.max_reject_fraction) {
        let problem = format!("{} is not a fraction; use 0 to 1", config.max_reject_fraction);
        return Err(Error::config("segment.max_reject_fraction", problem));
    }
    config.cell_rule().presence.check()?;
    if config.merge && config.shard.is_some() {
        return Err(Error::config("merge", "cannot be combined with --shard: it merges all shards"));
    }
    let places = [config.catalogue.clone(), shown(&config.output)];
    let [catalogue, output] = places.map(|it| std::path::absolute(it).unwrap_or_default());
    if config.uncertain > 0 && config.masks == Masks::None {
        return Err(Error::config(
            "segment.uncertain",
            "selects masks, but none are written; set masks, e.g. to \"coco\"",
        ));
    }
    if config.uncertain > 0 && config.from == LabelSource::Labels {
        return Err(Error::config("segment.uncertain", "needs a network; labels are certain"));
    }
    if config.embedder.is_some() && config.from == LabelSource::Labels {
        return Err(Error::config(
            "segment.embedder",
            "needs decoded photos, and labels are counted without; use --from model",
        ));
    }
    if config.masks != Masks::None && output.starts_with(&catalogue) {
        let problem = "lies within the catalogue: its masks would be mistaken for photos; choose a folder outside";
        return Err(Error::config("output", problem));
    }
    Ok(())
}

/// Checks, without reading a photo, that the catalogue is there and has labels if they are wanted.
///
/// # Errors
/// [`Error::Input`] if it is not there or not a catalogue; [`Error::Config`] if labels are wanted and it has none.
pub fn check_catalogue(config: &Config) -> Result<()> {
    match (Form::of(&config.catalogue)?, config.from) {
        (Form::Dataset, _) | (_, LabelSource::Model) => Ok(()),
        (_, LabelSource::Labels) => Err(without_labels()),
    }
}

/// Checks that the model labels photos as the catalogue is labelled, if that is a dataset.
///
/// # Errors
/// [`Error::Config`] with the first difference; as [`Dataset::open`] and [`Model::labels`].
pub fn check_labels(config: &Config, model: &Model) -> Result<()> {
    if Form::of(&config.catalogue)? != Form::Dataset {
        return Ok(());
    }
    Dataset::open(&config.catalogue)?.check_labels(&model.labels()?, "segment.model", &config.model)
}

/// Opens the model, or checks that there are labels instead: before the lock is taken, and long before the photos are
/// read. `None` for labels and for a merge, which segments nothing.
///
/// # Errors
/// As [`Model::open_allowed`] and [`Model::colors`].
pub fn open_model(config: &Config, gates: &Gates) -> Result<Option<(Model, Colors)>> {
    match config.from {
        LabelSource::Labels => check_catalogue(config).map(|()| None),
        LabelSource::Model if !config.merge => {
            let model = Model::open_allowed(&config.model, gates)?;
            let colors = model.colors()?;
            Ok(Some((model, colors)))
        }
        LabelSource::Model => Ok(None),
    }
}

/// Opens the embedder, if there is one: likewise. `None` for a merge, which embeds nothing.
///
/// # Errors
/// As [`Parser::read_embedder`].
pub fn open_embedder(config: &Config, gates: &Gates) -> Result<Option<Parser>> {
    config.embedder.as_ref().filter(|_| !config.merge).map(|it| Parser::read_embedder(it, gates)).transpose()
}
