//! The learning curve of a run as a picture.

use crate::error::Result;
use crate::model::history::EpochRecord;
use crate::photo::Photo;
use crate::picture::{self, Chart};

const BLUE: [u8; 3] = [31, 119, 180];
const ORANGE: [u8; 3] = [255, 127, 14];
const GREEN: [u8; 3] = [44, 160, 44];
const PURPLE: [u8; 3] = [148, 60, 150];

/// Draws loss (left) and metrics (right) by epoch.
///
/// # Errors
/// [`Error::Input`](crate::Error::Input) if the history is empty or drawing fails.
pub(super) fn draw(history: &[EpochRecord]) -> Result<Photo> {
    let values = |of: fn(&EpochRecord) -> f32| history.iter().map(|epoch| (epoch.epoch, of(epoch))).collect();
    let losses = vec![
        ("train", BLUE, values(|epoch| epoch.train_loss)),
        ("validation", ORANGE, values(|epoch| epoch.validation_loss)),
    ];
    let metrics = vec![
        ("pixel accuracy, train", BLUE, values(|epoch| epoch.train_pixel_accuracy)),
        ("pixel accuracy", ORANGE, values(|epoch| epoch.validation_pixel_accuracy)),
        ("foreground accuracy", GREEN, values(|epoch| epoch.validation_foreground_accuracy)),
        ("mean IoU", PURPLE, values(|epoch| epoch.validation_mean_iou)),
    ];
    picture::side_by_side(&[
        Chart { title: "Loss", top: None, lines: losses },
        Chart { title: "Validation metrics", top: Some(1.0), lines: metrics },
    ])
}
