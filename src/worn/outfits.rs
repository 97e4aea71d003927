//! The outfits of a catalogue, as sets of garments: 8 bytes a photo.

use rayon::prelude::*;

use super::association::Association;
use crate::features::FeatureTable;

/// Rows that are read together.
const BATCH_ROWS: usize = 8192;

/// A set of garments: bit r stands for the r-th apparel category of a label set, which has fewer than 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Garments(u64);

impl Garments {
    /// Those of a photo's cells (absent = 0), of which every category has `cells_per_category`.
    #[must_use]
    pub fn of(cells: &[f32], cells_per_category: usize) -> Self {
        let categories = cells.chunks_exact(cells_per_category).enumerate();
        let worn = categories.filter(|(_, cells)| cells.iter().any(|share| *share != 0.0));
        Self(worn.fold(0, |bits, (rank, _)| bits | 1 << rank))
    }

    /// These and one more.
    #[must_use]
    pub fn and(self, rank: usize) -> Self {
        Self(self.0 | 1 << rank)
    }

    /// Whether all of `others` are among these.
    #[must_use]
    pub fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Their ranks, ascending.
    pub fn ranks(self) -> impl Iterator<Item = usize> {
        (0..u64::BITS as usize).filter(move |rank| self.0 >> rank & 1 == 1)
    }
}

/// What is worn in each photo of a catalogue.
#[derive(Debug)]
pub struct Outfits {
    /// By row of the feature table.
    worn: Vec<Garments>,
    /// Photos in which anything is worn.
    photos: u32,
    /// Photos with each apparel category.
    with: Vec<u32>,
}

impl Outfits {
    /// Reads the cells of `features` once.
    #[must_use]
    pub fn new(features: &FeatureTable) -> Self {
        let (cells, per_category) = (features.labels.cell_count(), features.labels.cells_per_category());
        let rows = features.cells.par_chunks_exact(cells).with_min_len(BATCH_ROWS);
        let worn: Vec<Garments> = rows.map(|row| Garments::of(row, per_category)).collect();
        let mut with = vec![0; cells / per_category];
        worn.iter().flat_map(|it| it.ranks()).for_each(|rank| with[rank] += 1);
        let photos = worn.iter().filter(|it| **it != Garments::default()).count() as u32;
        Self { worn, photos, with }
    }

    /// What is worn in the photo of that row.
    #[must_use]
    pub fn worn(&self, row: usize) -> Garments {
        self.worn[row]
    }

    /// Photos in which anything is worn.
    #[must_use]
    pub fn photos(&self) -> u32 {
        self.photos
    }

    /// Photos that wear all of these.
    #[must_use]
    pub fn photos_with(&self, garments: Garments) -> u32 {
        self.worn.iter().filter(|worn| worn.has(garments)).count() as u32
    }

    /// As many of the garments, `ranks` in order of importance, as at least `least` photos wear together: the last are left
    /// out first. `None` if too few wear even the first.
    #[must_use]
    pub fn common(&self, ranks: &[usize], least: u32) -> Option<Garments> {
        let firsts = (1..=ranks.len()).rev().map(|count| &ranks[..count]);
        let mut sets = firsts.map(|ranks| ranks.iter().fold(Garments::default(), |set, &rank| set.and(rank)));
        sets.find(|&set| self.photos_with(set) >= least)
    }

    /// How each apparel category goes with `garments`, by rank; `None` for those that nobody wears, and for all if nobody
    /// wears the garments.
    #[must_use]
    pub fn associations(&self, garments: Garments) -> Vec<Option<Association>> {
        let (mut with_a, mut with_both) = (0, vec![0; self.with.len()]);
        for worn in self.worn.iter().filter(|worn| worn.has(garments)) {
            with_a += 1;
            worn.ranks().for_each(|rank| with_both[rank] += 1);
        }
        let association = |(&with_b, with_both): (&u32, u32)| {
            let counts = Association { photos: self.photos, with_a, with_b, with_both };
            (with_a > 0 && with_b > 0).then_some(counts)
        };
        self.with.iter().zip(with_both).map(association).collect()
    }

    /// The number of photos in which each colour of the category of that rank is worn together with `garments`; colours by
    /// id, without the background.
    #[must_use]
    pub fn colors(&self, features: &FeatureTable, garments: Garments, rank: usize) -> Vec<u32> {
        let count = features.labels.cells_per_category();
        let mut colors = vec![0; count];
        let wanted = garments.and(rank);
        for (row, _) in self.worn.iter().enumerate().filter(|(_, worn)| worn.has(wanted)) {
            let cells = &features.row(row)[rank * count..(rank + 1) * count];
            colors.iter_mut().zip(cells).for_each(|(photos, share)| *photos += u32::from(*share != 0.0));
        }
        colors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::{CELL_COUNT, LabelSet};

    /// Ranks of the default label set: T-shirt 0, bag 1, belt 2, blazer 3; 12 colours each.
    fn outfits(rows: &[&[usize]]) -> (FeatureTable, Outfits) {
        let mut cells = vec![0.0; rows.len() * CELL_COUNT];
        for (row, worn) in rows.iter().enumerate() {
            worn.iter().for_each(|cell| cells[row * CELL_COUNT + cell] = 1.0 / worn.len() as f32);
        }
        let features = FeatureTable::unnamed(cells, LabelSet::cfpd());
        let outfits = Outfits::new(&features);
        (features, outfits)
    }

    fn set(ranks: &[usize]) -> Garments {
        ranks.iter().fold(Garments::default(), |set, &rank| set.and(rank))
    }

    #[test]
    fn garments_are_categories_in_any_colour() {
        let (_, outfits) = outfits(&[&[0, 11, 12], &[], &[35], &[CELL_COUNT - 1]]);
        assert_eq!(outfits.worn(0), set(&[0, 1]));
        assert_eq!(outfits.worn(1), Garments::default());
        assert_eq!((outfits.worn(2), outfits.worn(3)), (set(&[2]), set(&[18])));
        assert_eq!(outfits.photos(), 3, "nothing is worn in the second");
        assert!(set(&[0, 1]).has(set(&[1])) && !set(&[1]).has(set(&[0, 1])) && set(&[1]).has(set(&[])));
    }

    #[test]
    fn what_goes_with_a_set_is_counted_among_those_who_wear_all_of_it() {
        let rows: [&[usize]; 6] = [&[0, 12, 24], &[1, 12, 25], &[0, 12], &[0], &[24], &[]];
        let (features, outfits) = outfits(&rows);
        let with_shirt_and_bag = outfits.associations(set(&[0, 1]));
        assert_eq!(with_shirt_and_bag[2], Some(Association { photos: 5, with_a: 3, with_b: 3, with_both: 2 }));
        assert_eq!(with_shirt_and_bag[3], None, "nobody wears a blazer");
        assert_eq!(outfits.associations(set(&[3]))[0], None);
        assert_eq!(outfits.colors(&features, set(&[0, 1]), 2)[..3], [1, 1, 0]);
        assert_eq!(outfits.colors(&features, set(&[]), 2)[..3], [2, 1, 0]);
    }

    #[test]
    fn the_least_important_garments_are_left_out_until_enough_photos_remain() {
        let (_, outfits) = outfits(&[&[0, 12, 24], &[0, 12], &[0, 12], &[0], &[24]]);
        assert_eq!(outfits.common(&[0, 1, 2], 1), Some(set(&[0, 1, 2])));
        assert_eq!(outfits.common(&[0, 1, 2], 2), Some(set(&[0, 1])));
        assert_eq!(outfits.common(&[2, 1, 0], 2), Some(set(&[2])));
        assert_eq!(outfits.common(&[0, 1, 2], 4), Some(set(&[0])));
        assert_eq!(outfits.common(&[0, 1, 2], 5), None);
        assert_eq!(outfits.common(&[], 1), None);
    }
}
