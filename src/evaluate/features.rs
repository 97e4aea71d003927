//! How far the features of the model, as `segment` makes them, are from those of the labels.

use std::collections::BTreeMap;

use crate::color::ColorTable;
use crate::dataset::PhotoRecord;
use crate::features::{CellRule, ColorRule, PixelCounts, Presence};
use crate::labels::LabelSet;
use crate::model::evaluation::{CategoryPresence, FeatureComparison, PresenceEvaluation};
use crate::photo::Photo;

/// The colour rules that are compared.
pub(super) const COLOR_RULES: [ColorRule; 2] = [ColorRule::PerPixel, ColorRule::FirstPixel];

/// The cells of a photo, absent = 0, by its labels and by the model.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Cells {
    pub(super) by_labels: Vec<f32>,
    pub(super) by_model: Vec<f32>,
}

/// The cells of a photo by each of [`COLOR_RULES`]; `photo`, its labels and `predicted` have the same size.
pub(super) fn cells(
    record: &PhotoRecord,
    photo: &Photo,
    predicted: &[u8],
    table: &ColorTable,
    presence: Presence,
) -> [Cells; 2] {
    let (truth, named) = (record.category_map(), record.color_map());
    // Without colour labels, the table names the colours on both sides.
    let named = named.unwrap_or_else(|| table.name_pixels(photo, &truth));
    COLOR_RULES.map(|color| {
        let rule = CellRule { color, presence };
        let by_labels = PixelCounts::of(table.labels(), &truth, record.width_px, rule, |pixel| named[pixel]);
        let shares = |counts: PixelCounts| counts.shares().into_iter().map(Option::unwrap_or_default).collect();
        Cells { by_labels: shares(by_labels), by_model: shares(table.count(photo, predicted, rule)) }
    })
}

/// Compares the cells of the photos of a split.
pub(super) fn compare(
    labels: &LabelSet,
    color_rule: ColorRule,
    presence: Presence,
    photos: &[&Cells],
) -> FeatureComparison {
    let count = labels.cell_count();
    let difference = |cell: usize| {
        photos.iter().map(|it| f64::from((it.by_labels[cell] - it.by_model[cell]).abs())).sum::<f64>()
            / photos.len() as f64
    };
    let cells: Vec<f64> = (0..count).map(difference).collect();
    let there: f64 = photos.iter().flat_map(|it| &it.by_labels).map(|&share| f64::from(share)).sum();
    FeatureComparison {
        color_rule,
        mean_absolute_difference: cells.iter().sum::<f64>() / count as f64,
        mean_absolute_difference_of_nothing: there / photos.len() as f64 / count as f64,
        cells: labels.cell_names().iter().cloned().zip(cells).collect(),
        true_neighbours_found: None,
        true_neighbours_found_at_random: None,
        neighbours: Vec::new(),
        presence: Some(compare_presence(labels, presence, photos)),
    }
}

/// Number of cells that are present.
pub(super) fn count_present(cells: &[f32]) -> usize {
    cells.iter().filter(|&&share| share > 0.0).count()
}

fn compare_presence(labels: &LabelSet, rule: Presence, photos: &[&Cells]) -> PresenceEvaluation {
    let mean =
        |count: &dyn Fn(&Cells) -> usize| photos.iter().map(|it| count(it)).sum::<usize>() as f64 / photos.len() as f64;
    let colors = labels.cells_per_category();
    let worn: Vec<[Vec<bool>; 2]> =
        photos.iter().map(|it| [&it.by_labels, &it.by_model].map(|it| worn(it, colors))).collect();
    let category = |(rank, category): (usize, u8)| {
        let count = |wanted: &dyn Fn(bool, bool) -> bool| {
            worn.iter().filter(|[by_labels, model]| wanted(by_labels[rank], model[rank])).count() as u64
        };
        let counts = [count(&|by_labels, _| by_labels), count(&|_, model| model), count(&|a, b| a && b)];
        (labels.category_name(category).to_owned(), CategoryPresence::new(counts))
    };
    let categories: BTreeMap<String, CategoryPresence> =
        labels.apparel_categories().enumerate().map(category).collect();
    let all = CategoryPresence::new([
        categories.values().map(|it| it.photos_by_labels).sum(),
        categories.values().map(|it| it.photos_by_model).sum(),
        categories.values().map(|it| it.photos_by_both).sum(),
    ]);
    let occurring: Vec<&CategoryPresence> = categories.values().filter(|it| it.photos_by_labels > 0).collect();
    // A category that the model never finds counts as 0.
    let of_occurring = |rate: fn(&CategoryPresence) -> Option<f64>| {
        let sum: f64 = occurring.iter().map(|it| rate(it).unwrap_or(0.0)).sum();
        (!occurring.is_empty()).then(|| sum / occurring.len() as f64)
    };
    PresenceEvaluation {
        min_share: rule.min_share,
        min_region: rule.min_region,
        cells_by_labels: mean(&|it| count_present(&it.by_labels)),
        cells_by_model: mean(&|it| count_present(&it.by_model)),
        macro_precision: of_occurring(|it| it.precision),
        macro_recall: of_occurring(|it| it.recall),
        micro_precision: all.precision,
        micro_recall: all.recall,
        categories,
    }
}

/// Which of the apparel categories are present; each has `colors` cells.
fn worn(cells: &[f32], colors: usize) -> Vec<bool> {
    cells.chunks_exact(colors).map(|colors| colors.iter().any(|&share| share > 0.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::CELL_COUNT;

    /// The 228 cells with these shares.
    fn row(cells: &[(usize, f32)]) -> Vec<f32> {
        let mut row = vec![0.0; CELL_COUNT];
        for &(cell, share) in cells {
            row[cell] = share;
        }
        row
    }

    #[test]
    fn differences_are_those_worked_out_by_hand() {
        let labels = row(&[(0, 0.75), (5, 0.25)]);
        let one = Cells { by_labels: labels.clone(), by_model: row(&[(0, 0.5), (7, 0.5)]) };
        let same = Cells { by_labels: labels.clone(), by_model: labels };
        let found = compare(&LabelSet::cfpd(), ColorRule::PerPixel, Presence::EVERYTHING, &[&one, &same]);
        let cells = f64::from(CELL_COUNT as u32);
        assert!((found.mean_absolute_difference - (0.25 + 0.25 + 0.5) / 2.0 / cells).abs() < 1e-12);
        assert!((found.mean_absolute_difference_of_nothing - 1.0 / cells).abs() < 1e-12);
        assert_eq!(found.cells["Tshirt_beige"], 0.125);
    }

    #[test]
    fn precision_and_recall_are_those_worked_out_by_hand() {
        // Cells 0 to 11 are T-shirts, 12 to 23 bags, 24 to 35 belts, 36 to 47 blazers.
        let photo = |labels: &[usize], model: &[usize]| {
            let [by_labels, by_model] =
                [labels, model].map(|it| row(&it.iter().map(|&cell| (cell, 0.1)).collect::<Vec<_>>()));
            Cells { by_labels, by_model }
        };
        let photos = [photo(&[0, 1, 12], &[2, 36]), photo(&[0, 24], &[0, 12]), photo(&[13], &[14])];
        let found = compare_presence(&LabelSet::cfpd(), Presence::EVERYTHING, &photos.iter().collect::<Vec<_>>());
        assert_eq!((found.cells_by_labels, found.cells_by_model), (2.0, 5.0 / 3.0));
        let of = |name: &str| {
            let it = &found.categories[name];
            ([it.photos_by_labels, it.photos_by_model, it.photos_by_both], it.precision, it.recall)
        };
        assert_eq!(of("T-shirt"), ([2, 2, 2], Some(1.0), Some(1.0)), "whatever the colours");
        assert_eq!(of("bag"), ([2, 2, 1], Some(0.5), Some(0.5)));
        assert_eq!(of("belt"), ([1, 0, 0], None, Some(0.0)));
        assert_eq!(of("blazer"), ([0, 1, 0], Some(0.0), None));
        // Of 5 pairs by labels and 5 by the model, 3 are the same; T-shirt, bag and belt occur by the labels.
        assert_eq!((found.micro_precision, found.micro_recall), (Some(0.6), Some(0.6)));
        assert_eq!((found.macro_precision, found.macro_recall), (Some(0.5), Some(0.5)));
    }

    #[test]
    fn without_apparel_nothing_is_divided_by_zero() {
        let nothing = Cells { by_labels: row(&[]), by_model: row(&[]) };
        let found = compare_presence(&LabelSet::cfpd(), Presence::default(), &[&nothing]);
        assert_eq!((found.micro_precision, found.macro_recall, found.cells_by_model), (None, None, 0.0));
    }
}
