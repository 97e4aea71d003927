//! Pixel counts by true and predicted category, and the metrics derived from them.
//!
//! Intersection over union as in the PASCAL VOC segmentation challenge (Everingham et al., 2015).

use crate::labels::{BACKGROUND, CATEGORY_COUNT};

/// Pixel counts by truth (rows) and prediction (columns).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    counts: Box<[[u64; CATEGORY_COUNT]; CATEGORY_COUNT]>,
}

impl Default for Confusion {
    fn default() -> Self {
        Self { counts: Box::new([[0; CATEGORY_COUNT]; CATEGORY_COUNT]) }
    }
}

impl Confusion {
    /// Counts pixels; both slices have the same length and hold categories 0 to 22.
    pub fn add(&mut self, truth: &[u8], predicted: &[u8]) {
        for (&truth, &predicted) in truth.iter().zip(predicted) {
            self.counts[usize::from(truth)][usize::from(predicted)] += 1;
        }
    }

    /// Adds the counts of another matrix.
    pub fn merge(&mut self, other: &Self) {
        for (row, other) in self.counts.iter_mut().zip(other.counts.iter()) {
            row.iter_mut().zip(other).for_each(|(count, other)| *count += other);
        }
    }

    /// The counts, one row for each true category.
    #[must_use]
    pub fn rows(&self) -> Vec<Vec<u64>> {
        self.counts.iter().map(|row| row.to_vec()).collect()
    }

    fn truth_px(&self, category: usize) -> u64 {
        self.counts[category].iter().sum()
    }

    fn predicted_px(&self, category: usize) -> u64 {
        self.counts.iter().map(|row| row[category]).sum()
    }

    fn right_px(&self, categories: impl Iterator<Item = usize>) -> u64 {
        categories.map(|category| self.counts[category][category]).sum()
    }

    fn total_px(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Share of pixels classified correctly, 0 to 1; 0 if there are no pixels.
    #[must_use]
    pub fn pixel_accuracy(&self) -> f64 {
        share(self.right_px(0..CATEGORY_COUNT), self.total_px()).unwrap_or(0.0)
    }

    /// Pixel accuracy over the pixels whose true category is not background; `None` if every pixel is background.
    #[must_use]
    pub fn foreground_accuracy(&self) -> Option<f64> {
        let foreground = usize::from(BACKGROUND) + 1..CATEGORY_COUNT;
        share(self.right_px(foreground.clone()), foreground.map(|it| self.truth_px(it)).sum())
    }

    /// Intersection over union of a category; `None` if the category does not occur in the truth.
    #[must_use]
    pub fn iou(&self, category: usize) -> Option<f64> {
        let truth = self.truth_px(category);
        let right = self.counts[category][category];
        if truth == 0 { None } else { share(right, truth + self.predicted_px(category) - right) }
    }

    /// Mean of [`Confusion::iou`] over the categories that occur in the truth; 0 without pixels.
    #[must_use]
    pub fn mean_iou(&self) -> f64 {
        let ious: Vec<f64> = (0..CATEGORY_COUNT).filter_map(|it| self.iou(it)).collect();
        ious.iter().sum::<f64>() / (ious.len().max(1) as f64)
    }

    /// Mean of [`Confusion::iou`] weighted by each category's number of true pixels.
    #[must_use]
    pub fn frequency_weighted_iou(&self) -> f64 {
        let weighted = (0..CATEGORY_COUNT).filter_map(|it| Some(self.iou(it)? * self.truth_px(it) as f64));
        weighted.sum::<f64>() / (self.total_px().max(1) as f64)
    }

    /// |true and predicted categories| / |true or predicted categories|, without background; 1 if both sets are empty.
    #[must_use]
    pub fn category_set_jaccard(&self) -> f64 {
        let (mut both, mut either) = (0, 0);
        for category in usize::from(BACKGROUND) + 1..CATEGORY_COUNT {
            let (truth, predicted) = (self.truth_px(category) > 0, self.predicted_px(category) > 0);
            both += u64::from(truth && predicted);
            either += u64::from(truth || predicted);
        }
        share(both, either).unwrap_or(1.0)
    }

    /// The seed's mean IoU of one photo: the mean over all 23 categories, counting 1 for each category that occurs in
    /// neither truth nor prediction.
    #[must_use]
    pub fn seed_mean_iou(&self) -> f64 {
        let iou = |category: usize| {
            let right = self.counts[category][category];
            share(right, self.truth_px(category) + self.predicted_px(category) - right).unwrap_or(1.0)
        };
        (0..CATEGORY_COUNT).map(iou).sum::<f64>() / CATEGORY_COUNT as f64
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Truth: 4 pixels of background, 4 of category 1, 2 of category 2; one pixel of each is misclassified.
    fn confusion() -> Confusion {
        let mut confusion = Confusion::default();
        confusion.add(&[0, 0, 0, 0, 1, 1, 1, 1, 2, 2], &[0, 0, 0, 1, 1, 1, 1, 0, 2, 3]);
        confusion
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn metrics_are_those_worked_out_by_hand() {
        let it = confusion();
        close(it.pixel_accuracy(), 7.0 / 10.0);
        close(it.foreground_accuracy().expect("there is foreground"), 4.0 / 6.0);
        close(it.iou(0).expect("present"), 3.0 / 5.0);
        close(it.iou(1).expect("present"), 3.0 / 5.0);
        close(it.iou(2).expect("present"), 1.0 / 2.0);
        assert_eq!(it.iou(3), None, "predicted, but absent from the truth");
        close(it.mean_iou(), (0.6 + 0.6 + 0.5) / 3.0);
        close(it.frequency_weighted_iou(), 0.4 * 0.6 + 0.4 * 0.6 + 0.2 * 0.5);
        close(it.category_set_jaccard(), 2.0 / 3.0);
        close(it.seed_mean_iou(), (0.6 + 0.6 + 0.5 + 0.0 + 19.0) / 23.0);
    }

    #[test]
    fn a_missed_category_is_0_and_an_absent_one_is_none() {
        let mut it = Confusion::default();
        it.add(&[0, 5], &[0, 0]);
        assert_eq!(it.iou(5), Some(0.0));
        assert_eq!(it.iou(6), None);
        assert_eq!(Confusion::default().foreground_accuracy(), None);
    }

    #[test]
    fn merging_is_counting_together() {
        let (mut twice, mut merged) = (confusion(), confusion());
        twice.add(&[7], &[8]);
        let mut other = Confusion::default();
        other.add(&[7], &[8]);
        merged.merge(&other);
        assert_eq!(twice, merged);
    }
}
