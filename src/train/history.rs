//! The course of a training run: `history.parquet` and `loss.csv`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;

/// One epoch. Rates are 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// 1-based.
    pub epoch: u32,
    /// Learning rate of the last step.
    pub learning_rate: f32,
    /// Mean loss over the steps of the epoch.
    pub train_loss: f32,
    /// Share of train pixels that were right at the time of their step.
    pub train_pixel_accuracy: f32,
    /// Loss over the validation part after the epoch.
    pub validation_loss: f32,
    /// Share of validation pixels that are right.
    pub validation_pixel_accuracy: f32,
    /// The same over pixels whose truth is not background.
    pub validation_foreground_accuracy: f32,
    /// Mean IoU over the categories that the validation part holds.
    pub validation_mean_iou: f32,
    /// Training speed of the epoch.
    pub photos_per_sec: f32,
    /// Wall-clock time since the start of the run.
    pub elapsed_secs: f32,
}

/// Reads `history.parquet`.
///
/// # Errors
/// As [`crate::table::read_table`].
pub fn read(_path: &Path) -> Result<Vec<EpochRecord>> {
    unimplemented!()
}
