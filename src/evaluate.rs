//! `evaluate`: a model against the labels of one split.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dataset::Split;

/// The content of `evaluation.json`. Rates are 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The part that was looked at.
    pub split: Split,
    /// Number of photos.
    pub photos: u64,
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
    /// Why `seed_mean_iou` flatters.
    pub seed_mean_iou_note: String,
    /// Mean binary cross-entropy over all pixels and maps.
    pub bce: f64,
    /// Intersection over union by category name; null where the truth holds none of it.
    pub iou: BTreeMap<String, Option<f64>>,
    /// Pixels by truth (rows) and prediction (columns), 23 x 23.
    pub confusion: Vec<Vec<u64>>,
    /// Share of apparel pixels of the split that the colour table names as the labels do; null without colour labels.
    pub color_pixel_accuracy: Option<f64>,
}
