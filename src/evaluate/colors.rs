//! Colours and features of a split: how well the colour table names what the labels name, and how far the features by the model
//! are from those by the labels.

use crate::color::{self, ColorTable};
use crate::dataset::PhotoRecord;
use crate::features::{ColorRule, FeatureTable, PixelCounts};
use crate::labels::{self, BACKGROUND, CELL_COUNT, COLOR_COUNT};
use crate::model::evaluation::{ColorEvaluation, FeatureComparison};
use crate::photo::Photo;
use crate::similarity::{Correlator, Measure};

/// Neighbours that are compared.
const NEIGHBOURS: usize = 10;
const COLOR_RULES: [ColorRule; 2] = [ColorRule::PerPixel, ColorRule::FirstPixel];

/// What has been compared of one photo.
pub(super) struct Compared {
    confusion: [[u64; COLOR_COUNT]; COLOR_COUNT],
    superpixels: u64,
    right_superpixels: u64,
    /// By rule: the 228 cells by the labels and by the model.
    cells: Vec<[Vec<f32>; 2]>,
}

impl Compared {
    /// Compares a photo that has its labels' size; `predicted` is of that size too.
    pub(super) fn new(record: &PhotoRecord, photo: &Photo, predicted: &[u8], table: &ColorTable) -> Self {
        let truth = record.category_map();
        let ours = table.name_pixels(photo, &truth);
        let named = record.color_map();
        let mut confusion = [[0; COLOR_COUNT]; COLOR_COUNT];
        for (&label, &ours) in named.iter().flatten().zip(&ours) {
            confusion[usize::from(label)][usize::from(ours)] += 1;
        }
        let superpixels = color::labelled_superpixels(record, photo);
        let right = superpixels.iter().filter(|it| table.color_of(it.mean) == it.color).count();
        let cells = COLOR_RULES.map(|rule| {
            // Where there are no colour labels both sides name them.
            let labelled = |pixel: usize| named.as_ref().map_or(ours[pixel], |colors| colors[pixel]);
            let by_labels = PixelCounts::of(&truth, record.width_px, rule, labelled);
            [by_labels, table.count(photo, predicted, rule)]
                .map(|counts| counts.shares().into_iter().map(Option::unwrap_or_default).collect())
        });
        Self { confusion, superpixels: superpixels.len() as u64, right_superpixels: right as u64, cells: cells.into() }
    }
}

/// The figures of a split; those of colours where it has any.
pub(super) fn summarize(photos: &[Compared]) -> (Option<ColorEvaluation>, Vec<FeatureComparison>) {
    let features = COLOR_RULES.iter().enumerate().map(|(index, &rule)| {
        let [labels, model] = [0, 1].map(|side| photos.iter().map(|it| &it.cells[index][side][..]).collect::<Vec<_>>());
        compare(rule, &labels, &model)
    });
    (colors(photos), features.collect())
}

fn colors(photos: &[Compared]) -> Option<ColorEvaluation> {
    let named = usize::from(BACKGROUND) + 1..COLOR_COUNT;
    let count = |truth: usize, ours: usize| photos.iter().map(|it| it.confusion[truth][ours]).sum();
    // Pixels that are not worn are nobody's; those that are worn have a colour by the table.
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

fn compare(color_rule: ColorRule, by_labels: &[&[f32]], by_model: &[&[f32]]) -> FeatureComparison {
    let photos = by_labels.len() as f64;
    let difference = |cell: usize| {
        let pairs = by_labels.iter().zip(by_model);
        pairs.map(|(a, b)| f64::from((a[cell] - b[cell]).abs())).sum::<f64>() / photos
    };
    let cells: Vec<f64> = (0..CELL_COUNT).map(difference).collect();
    let there: f64 = by_labels.iter().flat_map(|row| row.iter()).map(|&share| f64::from(share)).sum();
    let others = by_labels.len().saturating_sub(1);
    FeatureComparison {
        color_rule,
        mean_absolute_difference: cells.iter().sum::<f64>() / CELL_COUNT as f64,
        mean_absolute_difference_of_nothing: there / photos / CELL_COUNT as f64,
        cells: labels::cell_names().into_iter().zip(cells).collect(),
        true_neighbours_found: neighbours_found(by_labels, by_model),
        true_neighbours_found_at_random: (others > NEIGHBOURS).then(|| NEIGHBOURS as f64 / others as f64),
    }
}

/// Over the photos that have ten neighbours by the labels: how many of them are found by the model.
fn neighbours_found(by_labels: &[&[f32]], by_model: &[&[f32]]) -> Option<f64> {
    let [expected, found] = [by_labels, by_model].map(nearest);
    let pairs = expected.iter().zip(&found).filter(|(expected, _)| expected.len() == NEIGHBOURS);
    let shares = pairs.map(|(expected, found)| expected.iter().filter(|row| found.contains(row)).count());
    let shares: Vec<usize> = shares.collect();
    let enough = by_labels.len() > NEIGHBOURS + 1 && !shares.is_empty();
    enough.then(|| shares.iter().sum::<usize>() as f64 / (shares.len() * NEIGHBOURS) as f64)
}

/// Of each photo the nearest ten others.
fn nearest(rows: &[&[f32]]) -> Vec<Vec<usize>> {
    let table = FeatureTable::unnamed(rows.concat());
    let correlator = Correlator::new(&table, Measure::Pearson.into());
    let of = |row: usize| {
        let nearest = correlator.nearest(&correlator.row(row), NEIGHBOURS, |other| other != row);
        nearest.into_iter().map(|(other, _)| other).collect()
    };
    (0..rows.len()).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[(usize, f32)]) -> Vec<f32> {
        let mut row = vec![0.0; CELL_COUNT];
        for &(cell, share) in cells {
            row[cell] = share;
        }
        row
    }

    #[test]
    fn differences_are_those_worked_out_by_hand() {
        let (labels, model) = (row(&[(0, 0.75), (5, 0.25)]), row(&[(0, 0.5), (7, 0.5)]));
        let found = compare(ColorRule::PerPixel, &[&labels, &labels], &[&model, &labels]);
        let cells = f64::from(CELL_COUNT as u32);
        assert!((found.mean_absolute_difference - (0.25 + 0.25 + 0.5) / 2.0 / cells).abs() < 1e-12);
        assert!((found.mean_absolute_difference_of_nothing - 1.0 / cells).abs() < 1e-12);
        assert_eq!(found.cells["Tshirt_beige"], 0.125);
        assert_eq!(found.true_neighbours_found, None, "two photos have no ten neighbours");
    }

    #[test]
    fn the_same_table_finds_all_neighbours() {
        let rows: Vec<_> = (0..30).map(|it| row(&[(it % 7, 0.6), (20 + it, 0.4)])).collect();
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        assert_eq!(neighbours_found(&rows, &rows), Some(1.0));
        // 11 and 30 have no divisor in common: every row comes once, beside others than before.
        let mixed: Vec<&[f32]> = (0..30).map(|it| rows[it * 11 % 30]).collect();
        assert!(neighbours_found(&rows, &mixed).is_some_and(|share| share < 0.9));
    }
}
