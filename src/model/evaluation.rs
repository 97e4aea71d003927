//! How good a model is: `evaluation.json` in its folder.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::features::ColorRule;

/// File name of the result, in the model folder.
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
    /// Share of pixels whose category is predicted correctly.
    pub pixel_accuracy: f64,
    /// Pixel accuracy over the pixels whose true category is not background; null if there are none.
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
    /// Mean binary cross-entropy over all pixels and maps, at the network's resolution.
    pub bce: f64,
    /// Intersection over union by category name; null if the category does not occur in the truth.
    pub iou: BTreeMap<String, Option<f64>>,
    /// Pixel counts by truth (rows) and prediction (columns), 23 x 23.
    pub confusion: Vec<Vec<u64>>,
    /// Share of the split's apparel pixels whose colour name agrees with the labels; null without colour labels.
    pub color_pixel_accuracy: Option<f64>,
    /// Quality of the colour table; null without colour labels.
    #[serde(default)]
    pub colors: Option<ColorEvaluation>,
    /// Features from the model compared with features from the labels, for each colour rule.
    #[serde(default)]
    pub features: Vec<FeatureComparison>,
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
            ("binary cross-entropy", Some(self.bce)),
            ("colour accuracy", self.color_pixel_accuracy),
            ("superpixel colours", self.colors.as_ref().map(|it| it.superpixel_accuracy)),
            ("true neighbours found", self.features.first().and_then(|it| it.true_neighbours_found)),
            ("the seed's mean IoU", Some(self.seed_mean_iou)),
        ] {
            writeln!(f, "  {name:24} {}", figure(value))?;
        }
        writeln!(f, "  ({})", self.seed_mean_iou_note)?;
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
    /// Pixel counts by the labels' colour (rows) and ours (columns), 12 x 12, both by colour id from 1 (`bk` is not a
    /// colour of clothing).
    pub confusion: Vec<Vec<u64>>,
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
}
