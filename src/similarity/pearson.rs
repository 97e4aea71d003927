//! Pearson correlation over all 228 cells, absent = 0, and the cosine.
//!
//! A photo has about 9 of the 228 cells, so the products are sums over the common cells, in double precision. With m
//! the means and s the norms of the centred rows, `r = (a . b - 228 m_a m_b) / (s_a s_b)`.

use super::sparse::{BLOCK, Postings, SparseRow, SparseRows};
use crate::labels::CELL_COUNT;

/// Mean of a row, and 1 / norm of the row minus its mean.
#[derive(Debug, Clone, Copy)]
struct Moments {
    mean: f64,
    /// NaN if all cells are equal: the correlation is then undefined.
    scale: f64,
}

/// Pearson, or the cosine if rows are not centred.
#[derive(Debug)]
pub(super) struct Centred {
    centre: bool,
    /// The moments of the rows, each kind in its own list so that loops over them are vectorized.
    means: Vec<f64>,
    scales: Vec<f64>,
    postings: Postings,
}

impl Centred {
    pub(super) fn new(rows: &SparseRows, centre: bool) -> Self {
        let moments = (0..rows.len()).map(|row| moments(rows.row(row), centre));
        let (means, scales) = moments.map(|it| (it.mean, it.scale)).unzip();
        Self { centre, means, scales, postings: Postings::new(rows) }
    }

    /// The correlations of `row` with the photos of `block`; NaN if undefined.
    pub(super) fn correlate(&self, row: SparseRow, block: usize, correlations: &mut [f32]) {
        let own = moments(row, self.centre);
        let mut products = [0.0; BLOCK];
        self.postings.dot_products(row, block, &mut products);
        let (means, scales) = (&self.means[block * BLOCK..], &self.scales[block * BLOCK..]);
        for (((correlation, product), mean), scale) in correlations.iter_mut().zip(&products).zip(means).zip(scales) {
            let covariance = product - CELL_COUNT as f64 * (own.mean * mean);
            *correlation = (covariance * (own.scale * scale)).clamp(-1.0, 1.0) as f32;
        }
    }

    /// As [`terms`].
    pub(super) fn terms(&self, a: SparseRow, b: SparseRow) -> Vec<f64> {
        terms(a, b, self.centre)
    }
}

/// The terms `(a_p - m_a)(b_p - m_b) / (s_a s_b)` of the common cells p, by ascending cell.
pub(super) fn terms(a: SparseRow, b: SparseRow, centre: bool) -> Vec<f64> {
    let (of_a, of_b) = (moments(a, centre), moments(b, centre));
    let term = |(_, a, b): (usize, f64, f64)| (a - of_a.mean) * (b - of_b.mean) * (of_a.scale * of_b.scale);
    a.common(b).map(term).collect()
}

fn moments(row: SparseRow, centre: bool) -> Moments {
    let absent = CELL_COUNT - row.cells.len();
    let mean = if centre { row.iter().map(|(_, share)| share).sum::<f64>() / CELL_COUNT as f64 } else { 0.0 };
    let squares = row.iter().map(|(_, share)| (share - mean).powi(2)).sum::<f64>() + absent as f64 * mean * mean;
    let constant = match row.shares {
        [] => true,
        [first, ..] => centre && absent == 0 && row.shares.iter().all(|share| share == first),
    };
    Moments { mean, scale: if constant { f64::NAN } else { 1.0 / squares.sqrt() } }
}
