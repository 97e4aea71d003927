//! Correlation over the cells that both photos have (the seed's measure).
//!
//! `r = sum over P of (a_p - mean a)(b_p - mean b) / sqrt(sum (a_p - mean a)^2 * sum (b_p - mean b)^2)`, P = the cells
//! present in both, means over P.

use lookbook_ops::pairs::PairSums;

use super::sparse::{BLOCK, Postings, SparseRow, SparseRows};

/// The table by cell: each cell of a photo is matched with all photos that have it.
#[derive(Debug)]
pub(super) struct CoRated {
    min_common: u32,
    postings: Postings,
}

impl CoRated {
    pub(super) fn new(rows: &SparseRows, min_common: u32) -> Self {
        Self { min_common, postings: Postings::new(rows) }
    }

    /// The correlations of `row` with the photos of `block` of `rows`; NaN for fewer than `min_common` common cells, or
    /// if one side does not vary over them.
    pub(super) fn correlate(&self, row: SparseRow, rows: &SparseRows, block: usize, correlations: &mut [f32]) {
        let mut sums = vec![PairSums::default(); correlations.len()];
        self.postings.pair_sums(row, block, &mut sums);
        // The processor cannot predict which photos have enough in common, so there is no branch: each place is
        // written, and is overwritten by the next if it did not count.
        let (mut places, mut count) = ([0; BLOCK], 0);
        for (place, sums) in sums.iter().enumerate() {
            places[count] = place;
            count += usize::from(sums.count() >= f64::from(self.min_common));
        }
        correlations.fill(f32::NAN);
        for &place in &places[..count] {
            let correlation = sums[place].correlation();
            let correlation = correlation.or_else(|| from_the_first(row, rows.row(block * BLOCK + place)));
            correlations[place] = correlation.map_or(f32::NAN, |it| it as f32);
        }
    }

    /// The correlation of two rows; NaN if undefined.
    pub(super) fn pair(&self, a: SparseRow, b: SparseRow) -> f32 {
        let mut sums = PairSums::default();
        a.common(b).for_each(|(_, a, b)| sums.add(a, b));
        let correlation = if sums.count() >= f64::from(self.min_common) {
            sums.correlation().or_else(|| from_the_first(a, b))
        } else {
            None
        };
        correlation.map_or(f32::NAN, |it| it as f32)
    }
}

/// The same with the first common cell as the origin: sums of differences from a value of the sample lose no more
/// digits than their count has, and are exactly 0 if a side does not vary; the result is then `None`.
fn from_the_first(a: SparseRow, b: SparseRow) -> Option<f64> {
    let (_, first_a, first_b) = a.common(b).next()?;
    let mut sums = PairSums::default();
    a.common(b).for_each(|(_, a, b)| sums.add(a - first_a, b - first_b));
    sums.correlation()
}

/// The terms `(a_p - mean a)(b_p - mean b) / norms` of the cells p that both rows have, and 0 for the others of either, by
/// ascending cell. Their sum is the correlation.
pub(super) fn terms(a: SparseRow, b: SparseRow) -> Vec<f64> {
    let common: Vec<_> = a.common(b).map(|(_, a, b)| (a, b)).collect();
    let count = common.len() as f64;
    let mean_a = common.iter().map(|it| it.0).sum::<f64>() / count;
    let mean_b = common.iter().map(|it| it.1).sum::<f64>() / count;
    let squares =
        common.iter().fold((0.0, 0.0), |sum, it| (sum.0 + (it.0 - mean_a).powi(2), sum.1 + (it.1 - mean_b).powi(2)));
    let norms = (squares.0 * squares.1).sqrt();
    let term = |(_, a, b): (usize, f64, f64)| if a * b == 0.0 { 0.0 } else { (a - mean_a) * (b - mean_b) / norms };
    a.either(b).map(term).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::CELL_COUNT;

    /// Photos with up to 9 of 12 cells, most of whose shares vary by a factor of 1, 1e-2, 1e-4 or 1e-6, or not at all.
    fn table() -> Vec<f32> {
        let mut table = vec![0.0; 60 * CELL_COUNT];
        for (photo, cells) in table.chunks_exact_mut(CELL_COUNT).enumerate() {
            let spread = [1.0, 1e-2, 1e-4, 1e-6, 0.0][photo % 5];
            for cell in (0..12).filter(|cell| (photo * 7 + cell * 5) % 12 < 8) {
                cells[cell] = 0.125 * (1.0 + spread * ((photo * 31 + cell * 17) % 23) as f32 / 23.0);
            }
            cells[0] = [0.0, 0.5][photo % 2];
        }
        table
    }

    /// The definition, computed in two passes over the common cells.
    fn expected(a: SparseRow, b: SparseRow) -> Option<f64> {
        let common: Vec<_> = a.common(b).collect();
        let varies = |of: fn(&(usize, f64, f64)) -> f64| common.iter().any(|it| of(it) != of(&common[0]));
        (common.len() >= 3 && varies(|it| it.1) && varies(|it| it.2)).then(|| terms(a, b).iter().sum())
    }

    #[test]
    fn rows_that_hardly_vary_lose_no_digits() {
        let rows = SparseRows::new(&table(), CELL_COUNT);
        let co_rated = CoRated::new(&rows, 3);
        let mut defined = 0;
        for a in 0..rows.len() {
            let mut found = vec![0.0; rows.len()];
            co_rated.correlate(rows.row(a), &rows, 0, &mut found);
            for (b, &found) in found.iter().enumerate() {
                let expected = expected(rows.row(a), rows.row(b));
                assert_eq!(!found.is_nan(), expected.is_some(), "photos {a} and {b}");
                let Some(expected) = expected else { continue };
                assert!((f64::from(found) - expected).abs() < 1e-6, "photos {a} and {b}: {found}, expected {expected}");
                assert!((-1.0..=1.0).contains(&found));
                assert_eq!(co_rated.pair(rows.row(a), rows.row(b)), found);
                defined += 1;
            }
        }
        assert!(defined > 1500 && defined < 3600, "{defined} of 3600");
    }
}
