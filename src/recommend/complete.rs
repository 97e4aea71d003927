//! What goes with a photo: the garments that the catalogue's photos wear together with those of the photo, and photos that
//! show it.

use std::path::Path;

use super::answer::{Completion, Garment, Recommended, UsualColor};
use crate::error::Result;
use crate::features::FeatureTable;
use crate::files;
use crate::labels::LabelSet;
use crate::worn::{Association, Garments, Outfits, PAIRS_FILE, PairCounts, write_pairs};

/// Times `min_support` that so many photos have to wear what the photo wears: a share of fewer says little.
const BASIS_FACTOR: u32 = 5;
/// Colours named for each garment.
const COLORS: usize = 3;

/// Finds what goes with photos.
#[derive(Debug)]
pub(super) struct Completer {
    outfits: Outfits,
    /// Most garments for a photo.
    count: usize,
    /// Photos that have to wear a garment with the others.
    min_support: u32,
}

impl Completer {
    /// For the photos of `features`: up to `count` garments, each worn with the others in at least `min_support` photos.
    pub(super) fn new(features: &FeatureTable, count: u32, min_support: u32) -> Self {
        Self { outfits: Outfits::new(features), count: count as usize, min_support }
    }

    /// What goes with a photo of these cells. `looks` finds those among the photos it is given that are most like it.
    pub(super) fn complete(
        &self,
        features: &FeatureTable,
        cells: &[f32],
        looks: impl Fn(&dyn Fn(usize) -> bool) -> Vec<Recommended>,
    ) -> Completion {
        let labels = &features.labels;
        let worn = Garments::of(cells, labels.cells_per_category());
        let least = self.min_support.saturating_mul(BASIS_FACTOR);
        let basis = self.outfits.common(&by_share(labels, cells), least);
        let mut completion = Completion {
            with: basis.map_or(Vec::new(), |it| it.ranks().map(|rank| name(labels, rank)).collect()),
            photos: basis.map_or(0, |it| self.outfits.photos_with(it)),
            catalogue_photos: self.outfits.photos(),
            garments: Vec::new(),
        };
        let Some(basis) = basis else { return completion };
        let mut found: Vec<(usize, Association)> = self
            .outfits
            .associations(basis)
            .into_iter()
            .enumerate()
            .filter_map(|(rank, counts)| Some((rank, counts?)))
            .filter(|(rank, counts)| self.goes_with(worn, *rank, counts))
            .collect();
        found.sort_by(|a, b| b.1.smoothed_lift().total_cmp(&a.1.smoothed_lift()).then(a.0.cmp(&b.0)));
        found.truncate(self.count);
        completion.garments = found
            .into_iter()
            .map(|(rank, counts)| {
                let wanted = basis.and(rank);
                let looks = looks(&|row| self.outfits.worn(row).has(wanted));
                garment(labels, rank, &counts, &self.outfits.colors(features, basis, rank), looks)
            })
            .collect();
        completion
    }

    /// Whether a garment that is not worn goes with the others in enough photos, and more often than elsewhere.
    fn goes_with(&self, worn: Garments, rank: usize, counts: &Association) -> bool {
        let is_new = worn.and(rank) != worn;
        is_new && counts.with_both >= self.min_support && counts.smoothed_lift() > 1.0
    }
}

/// Writes `pairs_worn.parquet` of the photos of `features` into the folder `output`, completely or not at all.
///
/// # Errors
/// As [`write_pairs`].
pub(super) fn write_pairs_worn(output: &Path, features: &FeatureTable) -> Result<()> {
    let partial = output.join(format!(".partial-{PAIRS_FILE}"));
    write_pairs(&partial, &PairCounts::of(features))?;
    files::rename(&partial, &output.join(PAIRS_FILE))
}

fn garment(labels: &LabelSet, rank: usize, counts: &Association, colors: &[u32], looks: Vec<Recommended>) -> Garment {
    let photos = counts.with_both;
    let mut colors: Vec<_> = labels.colors()[1..].iter().zip(colors).filter(|(_, photos)| **photos > 0).collect();
    // Stable: of equally usual colours, the first of the label set.
    colors.sort_by_key(|(_, photos)| std::cmp::Reverse(**photos));
    let color = |(color, &of_color): (&crate::labels::Color, &u32)| UsualColor {
        name: color.name.clone(),
        share: f64::from(of_color) / f64::from(photos),
    };
    Garment {
        name: name(labels, rank),
        photos,
        support: counts.support(),
        confidence: counts.confidence(),
        usual: counts.usual(),
        lift: counts.lift(),
        smoothed_lift: counts.smoothed_lift(),
        pmi: counts.pmi(),
        colors: colors.into_iter().take(COLORS).map(color).collect(),
        looks,
    }
}

/// The name of the apparel category of that rank.
fn name(labels: &LabelSet, rank: usize) -> String {
    let category = labels.apparel_categories().nth(rank).expect("ranks are those of the label set");
    labels.category_name(category).to_owned()
}

/// Ranks of the worn categories, the largest share of the apparel first.
fn by_share(labels: &LabelSet, cells: &[f32]) -> Vec<usize> {
    let categories = cells.chunks_exact(labels.cells_per_category());
    let mut worn: Vec<(usize, f32)> = categories.map(|cells| cells.iter().sum()).enumerate().collect();
    worn.retain(|(_, share)| *share > 0.0);
    worn.sort_by(|a, b| b.1.total_cmp(&a.1));
    worn.into_iter().map(|(rank, _)| rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::CELL_COUNT;

    const SHIRT: usize = 0;
    const BAG: usize = 12;
    const BELT: usize = 24;
    const BLAZER: usize = 36;

    /// So many photos with each set of cells, of which the first covers most.
    fn features(outfits: &[(usize, &[usize])]) -> FeatureTable {
        let rows = outfits.iter().flat_map(|&(photos, worn)| std::iter::repeat_n(cells(worn), photos));
        FeatureTable::unnamed(rows.flatten().collect(), LabelSet::cfpd())
    }

    fn cells(worn: &[usize]) -> Vec<f32> {
        let mut cells = vec![0.0; CELL_COUNT];
        worn.iter().enumerate().for_each(|(number, &cell)| cells[cell] = 0.5 / (number + 1) as f32);
        cells
    }

    fn complete(features: &FeatureTable, worn: &[usize], min_support: u32) -> Completion {
        let looks = |allowed: &dyn Fn(usize) -> bool| {
            let look = |row: usize| Recommended {
                photo_id: row as u32,
                file_name: format!("{row}.jpg"),
                correlation: 0.5,
                ..Recommended::default()
            };
            (0..features.len()).filter(|row| allowed(*row)).take(2).map(look).collect()
        };
        Completer::new(features, 2, min_support).complete(features, &cells(worn), looks)
    }

    #[test]
    fn a_garment_goes_with_another_if_it_is_worn_with_it_more_than_elsewhere() {
        // 30 of 100 photos wear a belt, 20 of the 50 with a shirt; bags are worn by half of either.
        let (blue, red) = (BELT + 2, BELT + 9);
        let table = features(&[
            (5, &[SHIRT, BAG, blue]),
            (15, &[SHIRT, red, blue]),
            (20, &[SHIRT, BAG]),
            (10, &[SHIRT]),
            (25, &[BLAZER, BAG]),
            (10, &[BLAZER, blue]),
            (15, &[BLAZER]),
        ]);
        let found = complete(&table, &[SHIRT + 3], 10);
        assert_eq!((found.with.join(" "), found.photos, found.catalogue_photos), ("T-shirt".to_owned(), 50, 100));
        let [belt] = &found.garments[..] else { panic!("{found:?}") };
        assert_eq!((belt.name.as_str(), belt.photos, belt.support, belt.confidence), ("belt", 20, 0.2, 0.4));
        assert!((belt.lift - 4.0 / 3.0).abs() < 1e-12 && (belt.usual - 0.3).abs() < 1e-12);
        let colors: Vec<_> = belt.colors.iter().map(|it| (it.name.as_str(), it.share)).collect();
        assert_eq!(colors, [("blue", 1.0), ("red", 0.75)]);
        assert_eq!(belt.looks.iter().map(|it| it.photo_id).collect::<Vec<_>>(), [0, 1]);
        let text = found.to_string();
        assert!(text.contains("belt: 40 % of them, 30 % of all (lift 1.33); blue 100 %, red 75 %"), "{text}");
        assert!(text.contains("0.jpg (0.500), 1.jpg (0.500)"), "{text}");
    }

    #[test]
    fn few_photos_are_no_ground() {
        let table = features(&[(9, &[SHIRT, BELT]), (40, &[SHIRT]), (51, &[BAG])]);
        assert!(complete(&table, &[SHIRT], 10).with.is_empty(), "49 photos are fewer than 5 times 10");
        let found = complete(&table, &[SHIRT], 9);
        assert_eq!(found.garments.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["belt"]);
        let none = complete(&features(&[(8, &[SHIRT, BELT]), (42, &[SHIRT]), (50, &[BAG])]), &[SHIRT], 9);
        assert!(none.garments.is_empty() && none.to_string().contains("nothing in particular, by 50"), "{none}");
    }

    #[test]
    fn the_smallest_garments_are_left_out_of_what_is_too_rare() {
        let table = features(&[(50, &[SHIRT, BAG, BELT]), (2, &[SHIRT, BAG, BLAZER]), (60, &[BAG])]);
        let found = complete(&table, &[SHIRT, BAG, BLAZER], 10);
        assert_eq!((found.with.join(" "), found.photos), ("T-shirt bag".to_owned(), 52));
        assert_eq!(found.garments.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["belt"]);
        assert!(complete(&table, &[], 10).with.is_empty());
    }
}
