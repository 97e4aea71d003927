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

/// The content of `evaluation.json`. Rates are 0 to 1. Pixels are those of the photos at their own size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The part that was looked at.
    pub split: Split,
    /// Number of photos.
    pub photos: u64,
    /// Identity of the model.
    pub model_id: String,
    /// Share of pixels whose category is right.
    pub pixel_accuracy: f64,
    /// The same over pixels whose truth is not background; null where there are none.
    pub foreground_accuracy: Option<f64>,
    /// Mean of `iou` over the categories that the truth holds.
    pub mean_iou: f64,
    /// Mean of `iou` weighted by the pixels of the truth.
    pub frequency_weighted_iou: f64,
    /// Mean over photos of |predicted and true categories| / |predicted or true|, background left out.
    pub category_set_jaccard: f64,
    /// The seed's per-photo mean IoU.
    pub seed_mean_iou: f64,
    /// What `seed_mean_iou` is for a model that answers background everywhere, on these photos.
    pub seed_mean_iou_of_background: f64,
    /// Why `seed_mean_iou` flatters.
    pub seed_mean_iou_note: String,
    /// Mean binary cross-entropy over all pixels and maps, at the network's size.
    pub bce: f64,
    /// Intersection over union by category name; null where the truth holds none of it.
    pub iou: BTreeMap<String, Option<f64>>,
    /// Pixels by truth (rows) and prediction (columns), 23 x 23.
    pub confusion: Vec<Vec<u64>>,
    /// Share of apparel pixels of the split that are named as the labels name them; null without colour labels.
    pub color_pixel_accuracy: Option<f64>,
    /// How the colour table does; null without colour labels.
    #[serde(default)]
    pub colors: Option<ColorEvaluation>,
    /// Features by the model beside features by the labels, for each colour rule.
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
            ("same of superpixels", self.colors.as_ref().map(|it| it.superpixel_accuracy)),
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

/// A figure for people; '-' where it is undefined.
fn figure(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.4}"))
}

/// Reads the evaluation of a model folder.
///
/// # Errors
/// [`Error::Io`] where there is none, [`Error::Input`] where it is damaged.
pub fn read(model: &Path) -> Result<Evaluation> {
    let path = model.join(EVALUATION_FILE);
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    serde_json::from_str(&text)
        .map_err(|cause| Error::input(&path, format!("is not an evaluation: {cause}; run `lookbook evaluate` again")))
}

/// How the colour table does on the apparel of a split, by its true categories. Rates are 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColorEvaluation {
    /// Share of labelled pixels whose colour `segment` names as the labels do.
    pub pixel_accuracy: f64,
    /// Share of labelled superpixels whose mean the table names as the labels do.
    pub superpixel_accuracy: f64,
    /// Labelled superpixels.
    pub superpixels: u64,
    /// Pixels by the labels' colour (rows) and ours, 12 x 12, both by colour id from 1 (`bk` is no colour of clothes).
    pub confusion: Vec<Vec<u64>>,
}

/// Features by the model beside features by the labels, `segment --from model` and `--from labels`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureComparison {
    /// How the pixels of a category get their colour.
    pub color_rule: ColorRule,
    /// Mean over photos and cells of the absolute difference, absent = 0.
    pub mean_absolute_difference: f64,
    /// The same for a table that is empty: what is there to be found.
    pub mean_absolute_difference_of_nothing: f64,
    /// Mean over photos of the absolute difference, by cell.
    pub cells: BTreeMap<String, f64>,
    /// Share of the ten nearest photos of the split by the labels (`pearson`) that are among the ten nearest by the model;
    /// null in a split of ten photos or fewer.
    pub true_neighbours_found: Option<f64>,
    /// The same where ten others are drawn at random.
    pub true_neighbours_found_at_random: Option<f64>,
}
