//! How well the colour table agrees with the colour labels of a split.

use crate::color::{self, ColorTable};
use crate::dataset::PhotoRecord;
use crate::labels::BACKGROUND;
use crate::model::evaluation::ColorEvaluation;
use crate::photo::Photo;

/// The colours of one photo by the table and by its labels.
pub(super) struct ComparedColors {
    /// `[colours, colours]`, the background included.
    confusion: Vec<u64>,
    superpixels: u64,
    right_superpixels: u64,
}

impl ComparedColors {
    /// Compares a photo of the size of its labels.
    pub(super) fn new(record: &PhotoRecord, photo: &Photo, table: &ColorTable) -> Self {
        let ours = table.name_pixels(photo, &record.category_map());
        let colors = table.labels().color_count();
        let mut confusion = vec![0; colors * colors];
        for (&label, &ours) in record.color_map().iter().flatten().zip(&ours) {
            confusion[usize::from(label) * colors + usize::from(ours)] += 1;
        }
        let superpixels = color::labelled_superpixels(table.labels(), record, photo);
        let right = superpixels.iter().filter(|it| table.color_of(it.mean) == it.color).count();
        Self { confusion, superpixels: superpixels.len() as u64, right_superpixels: right as u64 }
    }
}

/// The figures of a split with so many `colors`, the background included; `None` without colour labels.
pub(super) fn summarize(photos: &[ComparedColors], colors: usize) -> Option<ColorEvaluation> {
    let named = usize::from(BACKGROUND) + 1..colors;
    let count = |truth: usize, ours: usize| photos.iter().map(|it| it.confusion[truth * colors + ours]).sum();
    // Pixels without apparel have no colour; the table gives every apparel pixel one.
    let confusion: Vec<Vec<u64>> =
        named.clone().map(|truth| named.clone().map(|ours| count(truth, ours)).collect()).collect();
    let all: u64 = confusion.iter().flatten().sum();
    let right: u64 = (0..confusion.len()).map(|color| confusion[color][color]).sum();
    let superpixels: u64 = photos.iter().map(|it| it.superpixels).sum();
    let right_superpixels: u64 = photos.iter().map(|it| it.right_superpixels).sum();
    (all > 0).then(|| ColorEvaluation {
        pixel_accuracy: right as f64 / all as f64,
        superpixel_accuracy: right_superpixels as f64 / superpixels.max(1) as f64,
        superpixels,
        confusion,
    })
}
