//! The nearest photos of each photo of a block, updated as correlations arrive in any order.

use lookbook_ops::pairs::{any_at_least, any_at_least_its_own};

/// Correlations that are checked together for one that may be among the nearest.
const CHUNK: usize = 64;

/// The `top` nearest photos so far of each photo of a block.
#[derive(Debug)]
pub(super) struct Nearest<'a> {
    photo_ids: &'a [u32],
    top: usize,
    /// For each photo of the block: rows and correlations, nearest first.
    pub(super) lists: Vec<Vec<(u32, f32)>>,
    /// For each photo of the block: the minimum for a correlation to be among the nearest.
    floors: Vec<f32>,
}

impl<'a> Nearest<'a> {
    /// For a block of `len` photos; ties are ordered by `photo_ids`, which are given by row.
    pub(super) fn new(photo_ids: &'a [u32], len: usize, top: usize) -> Self {
        Self { photo_ids, top, lists: vec![Vec::new(); len], floors: vec![f32::NEG_INFINITY; len] }
    }

    /// Offers the correlations of photo `photo` of the block with the rows from `first` on; NaN if undefined.
    pub(super) fn offer_row(&mut self, photo: usize, first: usize, correlations: &[f32]) {
        for (chunk, values) in correlations.chunks(CHUNK).enumerate() {
            if any_at_least(values, self.floors[photo]) {
                let rows = first + chunk * CHUNK..;
                rows.zip(values).for_each(|(row, &value)| self.offer(photo, row as u32, value));
            }
        }
    }

    /// Offers the correlations of row `row` with the photos of the block from `first` on.
    pub(super) fn offer_column(&mut self, row: usize, first: usize, correlations: &[f32]) {
        for (chunk, values) in correlations.chunks(CHUNK).enumerate() {
            let photos = first + chunk * CHUNK..;
            if any_at_least_its_own(values, &self.floors[photos.start..]) {
                photos.zip(values).for_each(|(photo, &value)| self.offer(photo, row as u32, value));
            }
        }
    }

    fn offer(&mut self, photo: usize, row: u32, correlation: f32) {
        if correlation.is_nan() || correlation < self.floors[photo] {
            return;
        }
        let (ids, list) = (self.photo_ids, &mut self.lists[photo]);
        let id = ids[row as usize];
        let place = list
            .partition_point(|&(other, value)| value > correlation || value == correlation && ids[other as usize] < id);
        list.insert(place, (row, correlation));
        list.truncate(self.top);
        if list.len() == self.top {
            self.floors[photo] = list[self.top - 1].1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two chunks of correlations with ties and undefined ones, and ids that run against the order of the rows.
    fn correlations() -> (Vec<u32>, Vec<f32>) {
        let ids = (0..128).rev().collect();
        let values = (0..128).map(|row| if row % 5 == 0 { f32::NAN } else { (row % 7) as f32 / 7.0 }).collect();
        (ids, values)
    }

    fn expected(ids: &[u32], values: &[f32], top: usize) -> Vec<(u32, f32)> {
        let mut all: Vec<_> = (0..).zip(values.iter().copied()).filter(|(_, value)| !value.is_nan()).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(ids[a.0 as usize].cmp(&ids[b.0 as usize])));
        all.truncate(top);
        all
    }

    #[test]
    fn a_row_gives_its_largest_with_ties_by_id() {
        let (ids, values) = correlations();
        for top in [1, 10, 200] {
            let mut nearest = Nearest::new(&ids, 1, top);
            // In two pieces, the later first: the order of arrival does not matter.
            nearest.offer_row(0, 70, &values[70..]);
            nearest.offer_row(0, 0, &values[..70]);
            assert_eq!(nearest.lists, [expected(&ids, &values, top)]);
        }
    }

    #[test]
    fn columns_give_each_photo_what_rows_would() {
        let (ids, values) = correlations();
        let mut nearest = Nearest::new(&ids, 130, 3);
        for (row, &value) in values.iter().enumerate() {
            nearest.offer_column(row, 1, &vec![value; 129]);
        }
        let lists = nearest.lists;
        assert!(lists[0].is_empty());
        assert!(lists[1..].iter().all(|list| *list == expected(&ids, &values, 3)));
    }
}
