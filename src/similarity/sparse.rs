//! The feature table by rows and by cells, holding only what is there: about 9 cells of 228 a photo.

use crate::labels::CELL_COUNT;

/// The cells that a photo has, ascending, each with its share of the apparel pixels.
pub(super) type SparseRow = [(u16, f64)];

/// The cells that are not 0.
pub(super) fn sparse_row(cells: &[f32]) -> Vec<(u16, f64)> {
    let present = cells.iter().enumerate().filter(|(_, share)| **share != 0.0);
    present.map(|(cell, &share)| (cell as u16, f64::from(share))).collect()
}

/// All photos' cells.
#[derive(Debug)]
pub(super) struct SparseTable {
    rows: Vec<Vec<(u16, f64)>>,
    /// By cell: the rows that have it, ascending, with their shares.
    postings: Vec<Vec<(u32, f64)>>,
}

impl SparseTable {
    /// Of a table `[photos, 228]`.
    pub(super) fn new(cells: &[f32]) -> Self {
        let rows: Vec<_> = cells.chunks_exact(CELL_COUNT).map(sparse_row).collect();
        let mut postings = vec![Vec::new(); CELL_COUNT];
        for (row, cells) in rows.iter().enumerate() {
            for &(cell, share) in cells {
                postings[usize::from(cell)].push((row as u32, share));
            }
        }
        Self { rows, postings }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn row(&self, row: usize) -> &SparseRow {
        &self.rows[row]
    }

    /// The dot product of `query` with every row. Terms are added by ascending cell, so that it is the same both ways.
    pub(super) fn dot_products(&self, query: &SparseRow) -> Vec<f64> {
        let mut products = vec![0.0; self.len()];
        for &(cell, share) in query {
            for &(row, other) in &self.postings[usize::from(cell)] {
                products[row as usize] += share * other;
            }
        }
        products
    }

    /// How many cells of `query` every row has.
    pub(super) fn cells_in_common(&self, query: &SparseRow) -> Vec<u32> {
        let mut common = vec![0; self.len()];
        for &(cell, _) in query {
            for &(row, _) in &self.postings[usize::from(cell)] {
                common[row as usize] += 1;
            }
        }
        common
    }
}

/// The shares of the cells that both rows have: cell, share in `a`, share in `b`.
pub(super) fn co_rated_cells<'a>(a: &'a SparseRow, b: &'a SparseRow) -> impl Iterator<Item = (u16, f64, f64)> + 'a {
    let mut rest = b;
    a.iter().filter_map(move |&(cell, share)| {
        while rest.first().is_some_and(|&(other, _)| other < cell) {
            rest = &rest[1..];
        }
        rest.first().filter(|&&(other, _)| other == cell).map(|&(_, other)| (cell, share, other))
    })
}
