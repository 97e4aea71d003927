//! Correlation over the cells that both photos have (the seed's measure).
//!
//! `r = sum over P of (a_p - mean a)(b_p - mean b) / sqrt(sum (a_p - mean a)^2 * sum (b_p - mean b)^2)`, P = the cells
//! present in both, means over P.

use super::sparse::{SparseRow, SparseTable, co_rated_cells};

/// The correlation of `query` with every row; `None` where fewer than `min_common` cells are in both or a side does not
/// vary over them.
pub(super) fn correlate(table: &SparseTable, query: &SparseRow, min_common: u32) -> Vec<Option<f32>> {
    let mut cells = Vec::new();
    let common = table.cells_in_common(query);
    let correlation = |(row, &common): (usize, &u32)| {
        if common < min_common {
            return None;
        }
        cells.clear();
        cells.extend(co_rated_cells(query, table.row(row)).map(|(_, a, b)| (a, b)));
        correlation(&cells)
    };
    common.iter().enumerate().map(correlation).collect()
}

fn correlation(cells: &[(f64, f64)]) -> Option<f32> {
    let &(first_a, first_b) = cells.first()?;
    if cells.iter().all(|&(a, _)| a == first_a) || cells.iter().all(|&(_, b)| b == first_b) {
        return None;
    }
    let count = cells.len() as f64;
    let (mean_a, mean_b) =
        (cells.iter().map(|it| it.0).sum::<f64>() / count, cells.iter().map(|it| it.1).sum::<f64>() / count);
    let (mut covariance, mut square_a, mut square_b) = (0.0, 0.0, 0.0);
    for (a, b) in cells.iter().map(|(a, b)| (a - mean_a, b - mean_b)) {
        covariance += a * b;
        square_a += a * a;
        square_b += b * b;
    }
    Some((covariance / (square_a * square_b).sqrt()).clamp(-1.0, 1.0) as f32)
}
