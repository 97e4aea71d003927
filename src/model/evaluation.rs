//! How good a model is: `evaluation.json` in its folder.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::features::ColorRule;
use crate::files;
use crate::labels::LabelSet;

/// File name of the result, in the model folder or where `evaluate --output` says.
pub const EVALUATION_FILE: &str = "evaluation.json";

/// The content of `evaluation.json`. Rates are 0 to 1. Pixels are counted at each photo's own size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The split that was evaluated.
    pub split: Split,
    /// Number of photos.
    pub photos: u64,
    /// Identity of the model.
    pub model_id: String,
    /// The categories and colours of data set and model; left out for the default ones.
    #[serde(default, skip_serializing_if = "LabelSet::is_cfpd")]
    pub labels: LabelSet,
    /// Share of pixels whose category is predicted correctly.
    pub pixel_accuracy: f64,
    /// Pixel accuracy over the pixels whose true category is not background; null if every pixel is background.
    pub foreground_accuracy: Option<f64>,
    /// Mean of `iou` over the categories that occur in the truth.
    pub mean_iou: f64,
    /// Mean of `iou` weighted by each category's number of true pixels.
    pub frequency_weighted_iou: f64,
    /// Mean over photos of |predicted and true categories| / |predicted or true categories|, without background.
    pub category_set_jaccard: f64,
    /// The seed's per-photo mean IoU.
    pub seed_mean_iou: f64,
    /// The `seed_mean_iou` that a model predicting background everywhere gets on these photos.
    pub seed_mean_iou_of_background: f64,
    /// Why `seed_mean_iou` is flattering.
    pub seed_mean_iou_note: String,
    /// Mean binary cross-entropy over all pixels and maps, at the network's resolution; null for third-party parsers.
    pub bce: Option<f64>,
    /// Intersection over union by category name; null if the category does not occur in the truth.
    pub iou: BTreeMap<String, Option<f64>>,
    /// Pixel counts by truth (rows) and prediction (columns), `[categories, categories]`.
    pub confusion: Vec<Vec<u64>>,
    /// Share of the split's apparel pixels whose colour name agrees with the labels; null without colour labels.
    pub color_pixel_accuracy: Option<f64>,
    /// Quality of the colour table; null without colour labels.
    #[serde(default)]
    pub colors: Option<ColorEvaluation>,
    /// Features from the model compared with features from the labels, for each colour rule.
    #[serde(default)]
    pub features: Vec<FeatureComparison>,
    /// Each photo, in the order of the data set.
    #[serde(default)]
    pub by_photo: Vec<PhotoEvaluation>,
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} photos of the {} part", self.photos, self.split.name())?;
        for (name, value) in [
            ("pixel accuracy", Some(self.pixel_accuracy)),
            ("foreground accuracy", self.foreground_accuracy),
            ("mean IoU", Some(self.mean_iou)),
            ("frequency-weighted IoU", Some(self.frequency_weighted_iou)),
            ("category-set Jaccard", Some(self.category_set_jaccard)),
            ("binary cross-entropy", self.bce),
            ("colour accuracy", self.color_pixel_accuracy),
            ("superpixel colours", self.colors.as_ref().map(|it| it.superpixel_accuracy)),
            ("the seed's mean IoU", Some(self.seed_mean_iou)),
        ] {
            writeln!(f, "  {name:24} {}", figure(value))?;
        }
        writeln!(f, "  ({})", self.seed_mean_iou_note)?;
        self.features.first().map_or(Ok(()), |it| it.write(f))?;
        writeln!(f, "IoU by category:")?;
        self.iou.iter().try_for_each(|(name, iou)| writeln!(f, "  {name:24} {}", figure(*iou)))
    }
}

/// A figure for display; '-' if it is undefined.
fn figure(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.4}"))
}

/// Reads the evaluation of a model folder.
///
/// # Errors
/// [`Error::Io`] if there is none, [`Error::Input`] if it is damaged.
pub fn read(model: &Path) -> Result<Evaluation> {
    let path = model.join(EVALUATION_FILE);
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    serde_json::from_str(&text)
        .map_err(|cause| Error::input(&path, "is not an evaluation; run `lookbook evaluate` again").because(cause))
}

/// As [`read`]; `None` if the model was not evaluated.
///
/// # Errors
/// [`Error::Input`] if the file is damaged, [`Error::Io`].
pub fn find(model: &Path) -> Result<Option<Evaluation>> {
    if files::is_there(&model.join(EVALUATION_FILE))? { read(model).map(Some) } else { Ok(None) }
}

/// Quality of the colour table on the apparel pixels of a split, which are taken from the true categories. Rates are 0
/// to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColorEvaluation {
    /// Share of labelled pixels that get the same colour name from `segment` as from the labels.
    pub pixel_accuracy: f64,
    /// Share of labelled superpixels whose mean colour gets the same name from the table as from the labels.
    pub superpixel_accuracy: f64,
    /// Number of labelled superpixels.
    pub superpixels: u64,
    /// Pixel counts by the labels' colour (rows) and ours (columns), both by colour id from 1 (`bk` is not a
    /// colour of clothing).
    pub confusion: Vec<Vec<u64>>,
}

/// One photo of the split, at its own size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhotoEvaluation {
    /// Index of the photo in the source's order.
    pub photo_id: u32,
    /// File name in the source.
    pub file_name: String,
    /// Share of pixels whose category is predicted correctly.
    pub pixel_accuracy: f64,
    /// The same over the pixels whose true category is not background; null if every pixel is background.
    pub foreground_accuracy: Option<f64>,
    /// Mean IoU over the categories that occur in the photo's labels.
    pub mean_iou: f64,
    /// Number of cells that are present by the labels (colour rule `per_pixel`).
    pub cells_by_labels: u32,
    /// Number of cells that are present by the model.
    pub cells_by_model: u32,
    /// Ids of its ten nearest photos by the labels, nearest first (`per_pixel`, `pearson`): among all photos of the data set if
    /// they were predicted, otherwise within the split.
    pub nearest_by_labels: Vec<u32>,
    /// Likewise by the model.
    pub nearest_by_model: Vec<u32>,
}

/// Features from the model compared with features from the labels: `segment --from model` against `--from labels`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureComparison {
    /// How the pixels of a category get their colour.
    pub color_rule: ColorRule,
    /// Mean absolute difference over photos and cells, absent = 0.
    pub mean_absolute_difference: f64,
    /// The same for an empty table, as a baseline.
    pub mean_absolute_difference_of_nothing: f64,
    /// Mean absolute difference over photos, by cell.
    pub cells: BTreeMap<String, f64>,
    /// Share of a photo's ten nearest neighbours by the labels (`pearson`, within the split) that are also among its
    /// ten nearest by the model; null if the split has ten photos or fewer.
    pub true_neighbours_found: Option<f64>,
    /// The same for ten photos drawn at random.
    pub true_neighbours_found_at_random: Option<f64>,
    /// The same for other numbers of neighbours, and among all photos of the data set.
    #[serde(default)]
    pub neighbours: Vec<NeighboursFound>,
    /// What the photos wear by the model and by the labels; null in evaluations by older versions.
    #[serde(default)]
    pub presence: Option<PresenceEvaluation>,
}

/// The photos among which neighbours are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Among {
    /// Those of the evaluated part.
    Part,
    /// All photos of the data set.
    Dataset,
}

/// How many of the nearest photos by the labels are among the nearest by the model, by `pearson`; means over the photos of the
/// split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NeighboursFound {
    /// Where neighbours are looked for.
    pub among: Among,
    /// Number of photos there, the photo itself included.
    pub photos: u64,
    /// Number of nearest photos that are compared.
    pub top: u32,
    /// Share of a photo's `top` nearest by the labels that are also among its `top` nearest by the model; null with no more than
    /// `top + 1` photos.
    pub true_neighbours_found: Option<f64>,
    /// The same for photos drawn at random.
    pub at_random: Option<f64>,
}

/// The cells and categories that are present in the photos of a split, by the model and by the labels. Rates are null if they
/// are undefined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PresenceEvaluation {
    /// The rule on both sides ([`crate::features::Presence`]): the minimum share of a cell that is present.
    pub min_share: f64,
    /// The minimum region of a cell that is present.
    pub min_region: f64,
    /// Mean number of cells per photo by the labels.
    pub cells_by_labels: f64,
    /// Mean number of cells per photo by the model.
    pub cells_by_model: f64,
    /// Mean of the categories' `precision` over those that occur by the labels, with 0 for those that the model never finds.
    pub macro_precision: Option<f64>,
    /// Mean of the categories' `recall` over those that occur by the labels.
    pub macro_recall: Option<f64>,
    /// Precision over all pairs of a photo and a category.
    pub micro_precision: Option<f64>,
    /// Recall over all pairs of a photo and a category.
    pub micro_recall: Option<f64>,
    /// Each apparel category, by name.
    pub categories: BTreeMap<String, CategoryPresence>,
}

/// In how many photos a category is present.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CategoryPresence {
    /// Photos in which it is present by the labels.
    pub photos_by_labels: u64,
    /// Photos in which it is present by the model.
    pub photos_by_model: u64,
    /// Photos in which it is present by both.
    pub photos_by_both: u64,
    /// `photos_by_both / photos_by_model`; null if the model never finds it.
    pub precision: Option<f64>,
    /// `photos_by_both / photos_by_labels`; null if it does not occur by the labels.
    pub recall: Option<f64>,
}

impl CategoryPresence {
    /// From the number of photos by the labels, by the model, and by both.
    #[must_use]
    pub fn new([photos_by_labels, photos_by_model, photos_by_both]: [u64; 3]) -> Self {
        let share = |of: u64| (of > 0).then(|| photos_by_both as f64 / of as f64);
        let (precision, recall) = (share(photos_by_model), share(photos_by_labels));
        Self { photos_by_labels, photos_by_model, photos_by_both, precision, recall }
    }
}

impl FeatureComparison {
    /// Writes what people ask of features: what is worn, and whether the right looks are found.
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(it) = &self.presence {
            let (labels, model) = (it.cells_by_labels, it.cells_by_model);
            writeln!(f, "  {:24} {labels:.2} by the labels, {model:.2} by the model", "cells per photo")?;
            for (name, rates) in
                [("micro", [it.micro_precision, it.micro_recall]), ("macro", [it.macro_precision, it.macro_recall])]
            {
                let [precision, recall] = rates.map(figure);
                writeln!(f, "  {:24} precision {precision}, recall {recall}", format!("categories, {name}"))?;
            }
        }
        for it in &self.neighbours {
            let place = match it.among {
                Among::Part => "in the part",
                Among::Dataset => "in the data set",
            };
            let (found, at_random) = (figure(it.true_neighbours_found), figure(it.at_random));
            writeln!(f, "  {:24} {found} (at random {at_random})", format!("true top {:>2} {place}", it.top))?;
        }
        Ok(())
    }
}
