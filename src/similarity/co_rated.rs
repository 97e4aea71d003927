//! Correlation over the cells that both photos have (the seed's measure).
//!
//! `r = sum over P of (a_p - mean a)(b_p - mean b) / sqrt(sum (a_p - mean a)^2 * sum (b_p - mean b)^2)`, P = the cells
//! present in both, means over P.

use super::sparse::{BLOCK, Postings, SparseRow, SparseRows};
use crate::labels::CELL_COUNT;

/// The table by cell, to find the photos that have enough cells in common.
#[derive(Debug)]
pub(super) struct CoRated {
    min_common: u32,
    postings: Postings,
}

impl CoRated {
    pub(super) fn new(rows: &SparseRows, min_common: u32) -> Self {
        Self { min_common, postings: Postings::new(rows) }
    }

    /// The correlations of `row` with the photos of `block` of `rows`; NaN where fewer than `min_common` cells are in both
    /// or a side does not vary over them.
    pub(super) fn correlate(&self, row: SparseRow, rows: &SparseRows, block: usize, correlations: &mut [f32]) {
        let mut common = [0; BLOCK];
        self.postings.cells_in_common(row, block, &mut common);
        let mut shares = [0.0; CELL_COUNT];
        row.iter().for_each(|(cell, share)| shares[cell] = share);
        let mut pairs = [(0.0, 0.0); CELL_COUNT + 1];
        for (place, (correlation, &common)) in correlations.iter_mut().zip(&common).enumerate() {
            *correlation = f32::NAN;
            if u32::from(common) >= self.min_common {
                *correlation = correlate(&shares, rows.row(block * BLOCK + place), &mut pairs);
            }
        }
    }
}

/// One pass, with the first common cell as the origin: sums over differences from a value of the sample lose no more than
/// the digits of their count, and are exactly 0 where a side does not vary. `pairs` is room to work in.
fn correlate(shares: &[f64; CELL_COUNT], row: SparseRow, pairs: &mut [(f64, f64); CELL_COUNT + 1]) -> f32 {
    let mut common = 0;
    // Written always and kept where both have the cell: which cells those are cannot be predicted.
    for (cell, share) in row.iter() {
        pairs[common] = (shares[cell], share);
        common += usize::from(shares[cell] != 0.0);
    }
    let (first_a, first_b) = pairs[0];
    let (mut sum_a, mut sum_b, mut sum_aa, mut sum_bb, mut sum_ab) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (a, b) in pairs[..common].iter().skip(1).map(|(a, b)| (a - first_a, b - first_b)) {
        sum_a += a;
        sum_b += b;
        sum_aa += a * a;
        sum_bb += b * b;
        sum_ab += a * b;
    }
    if sum_aa == 0.0 || sum_bb == 0.0 {
        return f32::NAN;
    }
    let common = common as f64;
    let (square_a, square_b) = (sum_aa - sum_a * sum_a / common, sum_bb - sum_b * sum_b / common);
    ((sum_ab - sum_a * sum_b / common) / (square_a * square_b).sqrt()).clamp(-1.0, 1.0) as f32
}

/// The terms `(a_p - mean a)(b_p - mean b) / norms` of the cells p that both rows have, by ascending cell.
pub(super) fn terms(a: SparseRow, b: SparseRow) -> Vec<f64> {
    let common: Vec<_> = a.common(b).map(|(_, a, b)| (a, b)).collect();
    let count = common.len() as f64;
    let mean_a = common.iter().map(|it| it.0).sum::<f64>() / count;
    let mean_b = common.iter().map(|it| it.1).sum::<f64>() / count;
    let squares =
        common.iter().fold((0.0, 0.0), |sum, it| (sum.0 + (it.0 - mean_a).powi(2), sum.1 + (it.1 - mean_b).powi(2)));
    let norms = (squares.0 * squares.1).sqrt();
    common.into_iter().map(|(a, b)| (a - mean_a) * (b - mean_b) / norms).collect()
}
