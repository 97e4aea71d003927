//! Pixel counts by true and predicted category, and the metrics derived from them.
//!
//! Intersection over union as in the PASCAL VOC segmentation challenge (Everingham et al., 2015).

use crate::labels::BACKGROUND;

/// Pixel counts by truth (rows) and prediction (columns).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// Number of categories.
    categories: usize,
    /// `[categories, categories]`.
    counts: Vec<u64>,
}

impl Confusion {
    /// Without pixels.
    #[must_use]
    pub fn new(categories: usize) -> Self {
        Self { categories, counts: vec![0; categories * categories] }
    }

    /// Counts pixels; both slices have the same length and hold categories.
    pub fn add(&mut self, truth: &[u8], predicted: &[u8]) {
        for (&truth, &predicted) in truth.iter().zip(predicted) {
            self.counts[usize::from(truth) * self.categories + usize::from(predicted)] += 1;
        }
    }

    /// Adds the counts of another matrix.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, other)| *count += other);
    }

    /// The counts, one row for each true category.
    #[must_use]
    pub fn rows(&self) -> Vec<Vec<u64>> {
        self.counts.chunks_exact(self.categories).map(<[u64]>::to_vec).collect()
    }

    fn at(&self, truth: usize, predicted: usize) -> u64 {
        self.counts[truth * self.categories + predicted]
    }

    fn truth_px(&self, category: usize) -> u64 {
        self.counts[category * self.categories..][..self.categories].iter().sum()
    }

    fn predicted_px(&self, category: usize) -> u64 {
        self.counts[category..].iter().step_by(self.categories).sum()
    }

    fn right_px(&self, categories: impl Iterator<Item = usize>) -> u64 {
        categories.map(|category| self.at(category, category)).sum()
    }

    fn total_px(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Share of pixels classified correctly, 0 to 1; 0 if there are no pixels.
    #[must_use]
    pub fn pixel_accuracy(&self) -> f64 {
        share(self.right_px(0..self.categories), self.total_px()).unwrap_or(0.0)
    }

    /// Pixel accuracy over the pixels whose true category is not background; `None` if every pixel is background.
    #[must_use]
    pub fn foreground_accuracy(&self) -> Option<f64> {
        let foreground = usize::from(BACKGROUND) + 1..self.categories;
        share(self.right_px(foreground.clone()), foreground.map(|it| self.truth_px(it)).sum())
    }

    /// Intersection over union of a category; `None` if the category does not occur in the truth.
    #[must_use]
    pub fn iou(&self, category: usize) -> Option<f64> {
        let truth = self.truth_px(category);
        let right = self.at(category, category);
        if truth == 0 { None } else { share(right, truth + self.predicted_px(category) - right) }
    }

    /// Mean of [`Confusion::iou`] over the categories that occur in the truth; 0 without pixels.
    #[must_use]
    pub fn mean_iou(&self) -> f64 {
        let ious: Vec<f64> = (0..self.categories).filter_map(|it| self.iou(it)).collect();
        ious.iter().sum::<f64>() / (ious.len().max(1) as f64)
    }

    /// Mean of [`Confusion::iou`] weighted by each category's number of true pixels.
    #[must_use]
    pub fn frequency_weighted_iou(&self) -> f64 {
        let weighted = (0..self.categories).filter_map(|it| Some(self.iou(it)? * self.truth_px(it) as f64));
        weighted.sum::<f64>() / (self.total_px().max(1) as f64)
    }

    /// |true and predicted categories| / |true or predicted categories|, without background; 1 if both sets are empty.
    #[must_use]
    pub fn category_set_jaccard(&self) -> f64 {
        let (mut both, mut either) = (0, 0);
        for category in usize::from(BACKGROUND) + 1..self.categories {
            let (truth, predicted) = (self.truth_px(category) > 0, self.predicted_px(category) > 0);
            both += u64::from(truth && predicted);
            either += u64::from(truth || predicted);
        }
        share(both, either).unwrap_or(1.0)
    }

    /// The seed's mean IoU of one photo: the mean over all categories, counting 1 for each category that occurs in
    /// neither truth nor prediction.
    #[must_use]
    pub fn seed_mean_iou(&self) -> f64 {
        let iou = |category: usize| {
            let right = self.at(category, category);
            share(right, self.truth_px(category) + self.predicted_px(category) - right).unwrap_or(1.0)
        };
        (0..self.categories).map(iou).sum::<f64>() / self.categories as f64
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::CATEGORY_COUNT;

    /// Truth: 4 pixels of background, 4 of category 1, 2 of category 2; one pixel of each is misclassified.
    fn confusion() -> Confusion {
        let mut confusion = Confusion::new(CATEGORY_COUNT);
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
        let mut it = Confusion::new(CATEGORY_COUNT);
        it.add(&[0, 5], &[0, 0]);
        assert_eq!(it.iou(5), Some(0.0));
        assert_eq!(it.iou(6), None);
        assert_eq!(Confusion::new(CATEGORY_COUNT).foreground_accuracy(), None);
    }

    #[test]
    fn merging_is_counting_together() {
        let (mut twice, mut merged) = (confusion(), confusion());
        twice.add(&[7], &[8]);
        let mut other = Confusion::new(CATEGORY_COUNT);
        other.add(&[7], &[8]);
        merged.merge(&other);
        assert_eq!(twice, merged);
    }
}
