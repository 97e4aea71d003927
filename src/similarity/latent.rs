//! Pearson correlation between the rows of a truncated SVD of the centred table.
//!
//! The table minus its column means is replaced by the nearest table of rank d (Eckart and Young, Psychometrika 1936),
//! whose rows are correlated over their n cells. Cells that are related across many photos (a blue and a black shoe
//! of the same person are never both there) then count for each other. With V the d leading eigenvectors of the cells'
//! covariance, v their means over the cells and c = n |v|^2, the coordinates `S V'(x - m)` of a row, where
//! `S = I - (1 - sqrt(1 - c)) v v' / |v|^2`, have the same dot products as the centred rows. That takes d products per
//! pair instead of n.

use std::ops::Range;

use nalgebra::{DMatrix, DVector, SymmetricEigen};

use super::sparse::{BLOCK, SparseRow, SparseRows};

/// If a projected row is no longer than this, relative to the row, its direction is nothing but rounding error.
const LEAST_LENGTH: f64 = 1e-9;
/// Minimum rows, columns and dimensions of a matrix product; smaller ones are padded with zeros. nalgebra multiplies
/// smaller matrices with other code, which rounds differently, and a correlation must not depend on how the work is
/// split.
const LEAST_SIZE: usize = 8;

/// The projection from a row to its unit vector in the d dimensions, and the vectors of the table.
#[derive(Debug)]
pub(super) struct Latent {
    /// `[d, cells]`.
    axes: DMatrix<f64>,
    /// The projected column means, `[d]`.
    offset: DVector<f64>,
    /// Share of the table's variance that the d dimensions explain, 0 to 1.
    pub(super) variance_share: f64,
    /// The unit vectors of each block, `[photos of the block, d]`.
    blocks: Vec<DMatrix<f32>>,
}

impl Latent {
    /// Decomposes the table `rows` with at most `dimensions` dimensions: fewer if the table has fewer, but at least
    /// one.
    pub(super) fn new(rows: &SparseRows, dimensions: usize) -> Self {
        let cells = rows.cell_count();
        let (means, covariance) = covariance(rows);
        // Of the cells that vary, or of any one: many rows of zeros make the decomposition fail.
        let mut used: Vec<usize> = (0..cells).filter(|&cell| covariance[(cell, cell)] > 0.0).collect();
        if used.is_empty() {
            used.push(0);
        }
        let covariance = covariance.select_rows(&used).select_columns(&used);
        let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(covariance);
        let mut order: Vec<usize> = (0..used.len()).collect();
        order.sort_by(|&a, &b| eigenvalues[b].total_cmp(&eigenvalues[a]));
        let total: f64 = eigenvalues.iter().map(|value| value.max(0.0)).sum();
        let held = order.iter().filter(|&&it| eigenvalues[it] > total * f64::EPSILON * cells as f64).count();
        order.truncate(held.clamp(1, dimensions));
        let share = order.iter().map(|&it| eigenvalues[it]).sum::<f64>() / total;
        let mut vectors = DMatrix::zeros(order.len().max(LEAST_SIZE), cells);
        for (row, &column) in order.iter().enumerate() {
            used.iter().enumerate().for_each(|(place, &cell)| vectors[(row, cell)] = eigenvectors[(place, column)]);
        }
        let axes = centred(vectors);
        let offset = &axes * means;
        let variance_share = if total > 0.0 { share } else { 0.0 };
        let mut latent = Self { axes, offset, variance_share, blocks: Vec::new() };
        let (d, vectors) = (latent.dimensions(), latent.vectors(rows));
        latent.blocks = vectors.chunks(BLOCK * d).map(|vectors| filled_up(vectors, d).transpose()).collect();
        latent
    }

    pub(super) fn dimensions(&self) -> usize {
        self.axes.nrows()
    }

    /// The unit vectors of `rows`, `[rows, d]`; NaN if nothing is worn or the row's projection onto the d dimensions
    /// vanishes.
    pub(super) fn vectors(&self, rows: &SparseRows) -> Vec<f32> {
        (0..rows.len()).flat_map(|row| self.vector(rows.row(row))).collect()
    }

    /// What the cells of `a` contribute to its correlation with `b`: the terms `a_p A_p . b / (|a| |b|)` of the cells p of either,
    /// by ascending cell, with `A_p` the projection of a cell and `a` and `b` the projected rows; and that of the column means,
    /// which are taken off. Their sum is the correlation.
    pub(super) fn terms(&self, a: SparseRow, b: SparseRow) -> (Vec<f64>, f64) {
        let [of_a, of_b] = [a, b].map(|row| self.projected(row));
        let scale = 1.0 / (of_a.norm() * of_b.norm());
        let term = |(cell, share, _): (usize, f64, f64)| share * self.axes.column(cell).dot(&of_b) * scale;
        (a.either(b).map(term).collect(), -self.offset.dot(&of_b) * scale)
    }

    fn projected(&self, row: SparseRow) -> DVector<f64> {
        let mut projected = -&self.offset;
        row.iter().for_each(|(cell, share)| projected.axpy(share, &self.axes.column(cell), 1.0));
        projected
    }

    fn vector(&self, row: SparseRow) -> Vec<f32> {
        let projected = self.projected(row);
        let size = row.iter().map(|(_, share)| share * share).sum::<f64>().sqrt();
        let length = projected.norm();
        let defined = length > LEAST_LENGTH * size && !row.cells.is_empty();
        projected.iter().map(|value| if defined { (value / length) as f32 } else { f32::NAN }).collect()
    }

    /// The correlations of the unit vectors `rows`, `[rows, d]`, with those of `block`, one row every `stride`
    /// elements.
    pub(super) fn correlate(&self, rows: &[f32], block: Range<usize>, correlations: &mut [f32], stride: usize) {
        // A column of `products` is a row of the correlations.
        let products = &self.blocks[block.start / BLOCK] * filled_up(rows, self.dimensions());
        let lines = correlations.chunks_mut(stride).take(rows.len() / self.dimensions());
        for (line, products) in lines.zip(products.column_iter()) {
            for (correlation, product) in line[..block.len()].iter_mut().zip(products.iter()) {
                *correlation = product.clamp(-1.0, 1.0);
            }
        }
    }
}

/// Vectors `[rows, d]` as the columns of a matrix, padded to [`LEAST_SIZE`] columns.
fn filled_up(vectors: &[f32], d: usize) -> DMatrix<f32> {
    let columns = (vectors.len() / d).max(LEAST_SIZE);
    DMatrix::from_iterator(d, columns, vectors.iter().copied().chain(std::iter::repeat(0.0)).take(d * columns))
}

/// Column means, and the sums of squares and products of the deviations from them.
fn covariance(rows: &SparseRows) -> (DVector<f64>, DMatrix<f64>) {
    let cells = rows.cell_count();
    let mut means = DVector::zeros(cells);
    let mut products = DMatrix::zeros(cells, cells);
    for row in (0..rows.len()).map(|row| rows.row(row)) {
        for (a, share) in row.iter() {
            means[a] += share;
            row.iter().for_each(|(b, other)| products[(b, a)] += share * other);
        }
    }
    means /= rows.len() as f64;
    let covariance = products - &means * means.transpose() * rows.len() as f64;
    (means, covariance)
}

/// `S V'`: the projection whose dot products are those of the rows minus their means over the cells.
fn centred(vectors: DMatrix<f64>) -> DMatrix<f64> {
    let means = vectors.column_mean();
    let square = means.norm_squared();
    if square == 0.0 {
        return vectors;
    }
    let shrink = 1.0 - (1.0 - vectors.ncols() as f64 * square).max(0.0).sqrt();
    let along = means.transpose() * &vectors;
    vectors - &means * along * (shrink / square)
}
