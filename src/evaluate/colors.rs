//! Colours and features of a split: how well the colour table agrees with the colour labels, and how far features from
//! the model differ from features from the labels.

use crate::color::{self, ColorTable};
use crate::dataset::PhotoRecord;
use crate::features::{ColorRule, FeatureTable, PixelCounts};
use crate::labels::{self, BACKGROUND, CELL_COUNT, COLOR_COUNT};
use crate::model::evaluation::{ColorEvaluation, FeatureComparison};
use crate::photo::Photo;
use crate::similarity::{Correlator, Measure};

/// Number of neighbours compared.
const NEIGHBOURS: usize = 10;
const COLOR_RULES: [ColorRule; 2] = [ColorRule::PerPixel, ColorRule::FirstPixel];

/// The comparison of one photo.
pub(super) struct Compared {
    confusion: [[u64; COLOR_COUNT]; COLOR_COUNT],
    superpixels: u64,
    right_superpixels: u64,
    /// By colour rule: the 228 cells from the labels and from the model.
    cells: Vec<[Vec<f32>; 2]>,
}

impl Compared {
    /// Compares a photo; `photo`, its labels and `predicted` have the same size.
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
            // Without colour labels, the table names the colours on both sides.
            let labelled = |pixel: usize| named.as_ref().map_or(ours[pixel], |colors| colors[pixel]);
            let by_labels = PixelCounts::of(&truth, record.width_px, rule, labelled);
            [by_labels, table.count(photo, predicted, rule)]
                .map(|counts| counts.shares().into_iter().map(Option::unwrap_or_default).collect())
        });
        Self { confusion, superpixels: superpixels.len() as u64, right_superpixels: right as u64, cells: cells.into() }
    }
}

/// The figures of a split; those of colours only if it has colour labels.
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

/// For the photos that have ten neighbours by the labels: the share of these neighbours that the model finds too.
fn neighbours_found(by_labels: &[&[f32]], by_model: &[&[f32]]) -> Option<f64> {
    let [expected, found] = [by_labels, by_model].map(nearest);
    let pairs = expected.iter().zip(&found).filter(|(expected, _)| expected.len() == NEIGHBOURS);
    let shares = pairs.map(|(expected, found)| expected.iter().filter(|row| found.contains(row)).count());
    let shares: Vec<usize> = shares.collect();
    let enough = by_labels.len() > NEIGHBOURS + 1 && !shares.is_empty();
    enough.then(|| shares.iter().sum::<usize>() as f64 / (shares.len() * NEIGHBOURS) as f64)
}

/// The ten nearest other photos of each photo.
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
        assert_eq!(found.true_neighbours_found, None, "two photos do not have ten neighbours");
    }

    #[test]
    fn the_same_table_finds_all_neighbours() {
        let rows: Vec<_> = (0..30).map(|it| row(&[(it % 7, 0.6), (20 + it, 0.4)])).collect();
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        assert_eq!(neighbours_found(&rows, &rows), Some(1.0));
        // 11 and 30 are coprime: every row occurs once, in another place.
        let mixed: Vec<&[f32]> = (0..30).map(|it| rows[it * 11 % 30]).collect();
        assert!(neighbours_found(&rows, &mixed).is_some_and(|share| share < 0.9));
    }
}
