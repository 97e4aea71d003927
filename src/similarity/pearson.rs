//! Pearson correlation over all cells, absent = 0, and the cosine.
//!
//! A photo has about 9 of 228 cells, so the products are sums over the common cells, in double precision. With n the number
//! of cells, m the means and s the norms of the centred rows, `r = (a . b - n m_a m_b) / (s_a s_b)`. For rows that hardly vary,
//! whose difference would cancel, the centred values are multiplied instead.

use lookbook_ops::pairs::Moments;

use super::sparse::{BLOCK, Postings, SparseRow, SparseRows};

/// Product of two rows' [flatness](Moments::flatness) above which the difference is not accurate enough: its error is
/// about 1e-15 times the root of the product.
const MAX_FLATNESS: f64 = 1e12;

/// Pearson, or the cosine if rows are not centred.
#[derive(Debug)]
pub(super) struct Centred {
    centre: bool,
    /// Number of cells.
    cells: f64,
    /// The moments of the rows, each kind in its own list so that loops over them are vectorized.
    means: Vec<f64>,
    scales: Vec<f64>,
    /// The largest flatness of a row.
    flattest: f64,
    postings: Postings,
}

impl Centred {
    pub(super) fn new(rows: &SparseRows, centre: bool) -> Self {
        let moments: Vec<_> = (0..rows.len()).map(|row| moments(rows.row(row), centre)).collect();
        let cells = rows.cell_count() as f64;
        let flattest = moments.iter().map(|it| it.flatness(cells)).fold(0.0, f64::max);
        let (means, scales) = moments.into_iter().map(|it| (it.mean, it.scale)).unzip();
        Self { centre, cells, means, scales, flattest, postings: Postings::new(rows) }
    }

    /// The correlations of `row` with the photos of `block` of the table `rows`; NaN if undefined.
    pub(super) fn correlate(&self, row: SparseRow, rows: &SparseRows, block: usize, correlations: &mut [f32]) {
        let own = moments(row, self.centre);
        let mut products = [0.0; BLOCK];
        self.postings.dot_products(row, block, &mut products);
        let (means, scales) = (&self.means[block * BLOCK..], &self.scales[block * BLOCK..]);
        own.correlate(self.cells, &products, means, scales, correlations);
        if own.flatness(self.cells) * self.flattest > MAX_FLATNESS {
            self.correct(row, own, rows, block, correlations);
        }
    }

    /// The correlation of two rows of the table `rows`; NaN if undefined.
    pub(super) fn pair(&self, rows: &SparseRows, a: usize, b: usize) -> f32 {
        let [of_a, of_b] = [a, b].map(|row| Moments { mean: self.means[row], scale: self.scales[row] });
        let (row_a, row_b) = (rows.row(a), rows.row(b));
        let covariance = if of_a.flatness(self.cells) * of_b.flatness(self.cells) > MAX_FLATNESS {
            centred(row_a, of_a.mean).iter().zip(centred(row_b, of_b.mean)).map(|(a, b)| a * b).sum()
        } else {
            let product: f64 = row_a.common(row_b).map(|(_, a, b)| a * b).sum();
            product - self.cells * (of_a.mean * of_b.mean)
        };
        (covariance * (of_a.scale * of_b.scale)).clamp(-1.0, 1.0) as f32
    }

    /// Computes the correlations with rows that hardly vary from the centred values.
    fn correct(&self, row: SparseRow, own: Moments, rows: &SparseRows, block: usize, correlations: &mut [f32]) {
        let centred = centred(row, own.mean);
        for (place, correlation) in correlations.iter_mut().enumerate() {
            let other = block * BLOCK + place;
            let of_other = Moments { mean: self.means[other], scale: self.scales[other] };
            if own.flatness(self.cells) * of_other.flatness(self.cells) > MAX_FLATNESS {
                let other = self::centred(rows.row(other), of_other.mean);
                let covariance: f64 = centred.iter().zip(&other).map(|(a, b)| a * b).sum();
                *correlation = (covariance * (own.scale * of_other.scale)).clamp(-1.0, 1.0) as f32;
            }
        }
    }

    /// As [`terms`].
    pub(super) fn terms(&self, a: SparseRow, b: SparseRow) -> (Vec<f64>, f64) {
        terms(a, b, self.centre)
    }
}

/// The terms `(a_p - m_a)(b_p - m_b) / (s_a s_b)` of the cells p of either, by ascending cell, and the sum of those of all
/// other cells, each of which is `m_a m_b / (s_a s_b)`. Their sum is the correlation.
pub(super) fn terms(a: SparseRow, b: SparseRow, centre: bool) -> (Vec<f64>, f64) {
    let (of_a, of_b) = (moments(a, centre), moments(b, centre));
    let scale = of_a.scale * of_b.scale;
    let terms: Vec<_> = a.either(b).map(|(_, a, b)| (a - of_a.mean) * (b - of_b.mean) * scale).collect();
    let others = (a.cell_count - terms.len()) as f64 * of_a.mean * of_b.mean * scale;
    (terms, others)
}

/// All values of a row, minus its mean.
fn centred(row: SparseRow, mean: f64) -> Vec<f64> {
    let mut values = vec![-mean; row.cell_count];
    row.iter().for_each(|(cell, share)| values[cell] = share - mean);
    values
}

fn moments(row: SparseRow, centre: bool) -> Moments {
    let absent = row.cell_count - row.cells.len();
    let mean = if centre { row.iter().map(|(_, share)| share).sum::<f64>() / row.cell_count as f64 } else { 0.0 };
    let squares = row.iter().map(|(_, share)| (share - mean).powi(2)).sum::<f64>() + absent as f64 * mean * mean;
    let constant = match row.shares {
        [] => true,
        [first, ..] => centre && absent == 0 && row.shares.iter().all(|share| share == first),
    };
    Moments { mean, scale: if constant { f64::NAN } else { 1.0 / squares.sqrt() } }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::labels::CELL_COUNT;

    /// Pearson's r of two rows in twice the precision of f64, as integers: f32 shares are multiples of 2^-149, those
    /// here of 2^-40.
    fn exact(a: &[f32], b: &[f32]) -> f64 {
        let whole = |row: &[f32]| row.iter().map(|&it| (f64::from(it) * 2_f64.powi(40)) as i128).collect::<Vec<_>>();
        let (a, b, n) = (whole(a), whole(b), CELL_COUNT as i128);
        let sum = |of: &dyn Fn(usize) -> i128| (0..CELL_COUNT).map(of).sum::<i128>();
        let covariance = |a: &[i128], b: &[i128]| n * sum(&|it| a[it] * b[it]) - sum(&|it| a[it]) * sum(&|it| b[it]);
        covariance(&a, &b) as f64 / ((covariance(&a, &a) as f64).sqrt() * (covariance(&b, &b) as f64).sqrt())
    }

    #[test]
    fn rows_that_hardly_vary_have_the_exact_correlation() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        for spread in [1e-6_f32, 1e-5, 1e-3, 0.1, 1.0] {
            let mut table: Vec<f32> =
                (0..12 * CELL_COUNT).map(|_| 0.5 + spread * random.random_range(-0.4..0.4_f32)).collect();
            // Rows with few cells beside them.
            (0..2 * CELL_COUNT).for_each(|it| {
                if it % 7 != 0 {
                    table[it] = 0.0;
                }
            });
            let rows = SparseRows::new(&table, CELL_COUNT);
            let kernel = Centred::new(&rows, true);
            for (row, values) in table.chunks(CELL_COUNT).enumerate() {
                let mut found = vec![0.0; rows.len()];
                kernel.correlate(rows.row(row), &rows, 0, &mut found);
                assert_eq!(found[row], 1.0, "row {row} with itself, spread {spread}");
                for (other, (found, others)) in found.iter().zip(table.chunks(CELL_COUNT)).enumerate() {
                    let expected = exact(values, others);
                    let error = (f64::from(*found) - expected).abs();
                    assert!(error < 1e-6, "{row}, {other}, spread {spread}: {found} for {expected}");
                }
            }
        }
    }
}
