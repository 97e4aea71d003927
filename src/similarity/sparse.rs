//! The feature table by rows and by cells, storing only the cells that are present: about 9 of 228 per photo.

pub(super) use lookbook_ops::pairs::BLOCK;
use lookbook_ops::pairs::{Lists, PairSums};

/// The cells of each photo (compressed sparse rows), 6 bytes per cell.
#[derive(Debug)]
pub(super) struct SparseRows {
    /// Number of cells that a photo may have.
    cell_count: usize,
    starts: Vec<usize>,
    cells: Vec<u16>,
    shares: Vec<f32>,
}

/// The cells of a table that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellChoice {
    /// Their numbers in the table, ascending.
    pub cells: Vec<usize>,
    /// Whether their shares are of these cells alone, so that they sum to 1, in place of all apparel.
    pub as_whole: bool,
}

impl CellChoice {
    /// All cells.
    #[must_use]
    pub fn all(cell_count: usize) -> Self {
        Self { cells: (0..cell_count).collect(), as_whole: false }
    }
}

/// The cells of one photo in ascending order, with their shares of the apparel pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct SparseRow<'a> {
    pub(super) cells: &'a [u16],
    pub(super) shares: &'a [f32],
    /// Number of cells that a photo may have.
    pub(super) cell_count: usize,
}

impl SparseRows {
    /// All cells of a table.
    #[cfg(test)]
    pub(super) fn new(table: &[f32], cell_count: usize) -> Self {
        Self::of(table, cell_count, &CellChoice::all(cell_count))
    }

    /// From a table `[photos, cell_count]`, in which 0 means absent: the cells of `choice`, which are numbered anew.
    pub(super) fn of(table: &[f32], cell_count: usize, choice: &CellChoice) -> Self {
        let mut rows = Self { cell_count: choice.cells.len(), starts: vec![0], cells: Vec::new(), shares: Vec::new() };
        for row in table.chunks_exact(cell_count) {
            let sum: f32 = if choice.as_whole { choice.cells.iter().map(|&cell| row[cell]).sum() } else { 1.0 };
            for (cell, share) in (0..).zip(choice.cells.iter().map(|&cell| row[cell])).filter(|it| it.1 != 0.0) {
                rows.cells.push(cell);
                rows.shares.push(share / sum);
            }
            rows.starts.push(rows.cells.len());
        }
        rows
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    pub(super) fn cell_count(&self) -> usize {
        self.cell_count
    }

    pub(super) fn row(&self, row: usize) -> SparseRow<'_> {
        let range = self.starts[row]..self.starts[row + 1];
        SparseRow { cells: &self.cells[range.clone()], shares: &self.shares[range], cell_count: self.cell_count }
    }
}

impl<'a> SparseRow<'a> {
    /// Cells and shares, by ascending cell.
    pub(super) fn iter(self) -> impl Iterator<Item = (usize, f64)> + 'a {
        self.cells.iter().zip(self.shares).map(|(&cell, &share)| (usize::from(cell), f64::from(share)))
    }

    /// The common cells: cell, share here, share in `other`.
    pub(super) fn common(self, other: SparseRow<'a>) -> impl Iterator<Item = (usize, f64, f64)> + 'a {
        let mut rest = other.iter().peekable();
        self.iter().filter_map(move |(cell, share)| {
            while rest.next_if(|&(other, _)| other < cell).is_some() {}
            rest.next_if(|&(other, _)| other == cell).map(|(_, other)| (cell, share, other))
        })
    }

    /// The cells of either, ascending: cell, share here, share in `other`; 0 in the one that does not have it.
    pub(super) fn either(self, other: SparseRow<'a>) -> impl Iterator<Item = (usize, f64, f64)> + 'a {
        let (mut here, mut there) = (self.iter().peekable(), other.iter().peekable());
        std::iter::from_fn(move || {
            let next = [here.peek(), there.peek()].into_iter().flatten().map(|&(cell, _)| cell).min()?;
            let share = here.next_if(|it| it.0 == next).map_or(0.0, |it| it.1);
            let other = there.next_if(|it| it.0 == next).map_or(0.0, |it| it.1);
            Some((next, share, other))
        })
    }
}

/// The same table by cell: for each block of [`BLOCK`] photos and each cell, the photos that have the cell, in
/// ascending order, with their shares.
#[derive(Debug)]
pub(super) struct Postings {
    cell_count: usize,
    /// Start of each list, by block and cell, and the end of the last one.
    starts: Vec<usize>,
    /// Positions in the block.
    places: Vec<u16>,
    shares: Vec<f32>,
}

impl Postings {
    pub(super) fn new(rows: &SparseRows) -> Self {
        let cell_count = rows.cell_count;
        let lists = rows.len().div_ceil(BLOCK) * cell_count;
        let list_of = |row: usize, cell: usize| row / BLOCK * cell_count + cell;
        let mut starts = vec![0; lists + 1];
        for row in 0..rows.len() {
            rows.row(row).iter().for_each(|(cell, _)| starts[list_of(row, cell) + 1] += 1);
        }
        for list in 0..lists {
            starts[list + 1] += starts[list];
        }
        let mut ends = starts.clone();
        let (mut places, mut shares) = (vec![0; starts[lists]], vec![0.0; starts[lists]]);
        for row in 0..rows.len() {
            let SparseRow { cells, shares: of_row, .. } = rows.row(row);
            for (&cell, &share) in cells.iter().zip(of_row) {
                let end = &mut ends[list_of(row, usize::from(cell))];
                (places[*end], shares[*end]) = ((row % BLOCK) as u16, share);
                *end += 1;
            }
        }
        Self { cell_count, starts, places, shares }
    }

    fn lists(&self, block: usize) -> Lists<'_> {
        let starts = &self.starts[block * self.cell_count..][..=self.cell_count];
        Lists { starts, places: &self.places, shares: &self.shares }
    }

    /// Adds each photo's dot product with `row` to `products`, for the photos of `block`. Terms are added by ascending
    /// cell, so that the product of two photos is the same in either order.
    pub(super) fn dot_products(&self, row: SparseRow, block: usize, products: &mut [f64; BLOCK]) {
        self.lists(block).add_products(row.cells, row.shares, products);
    }

    /// Adds the cells that each photo has in common with `row` to `sums`, for the photos of `block`, by ascending cell.
    pub(super) fn pair_sums(&self, row: SparseRow, block: usize, sums: &mut [PairSums]) {
        self.lists(block).add_pairs(row.cells, row.shares, sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::CELL_COUNT;

    /// Three photos beyond the first block, so that blocks and positions differ.
    fn table() -> Vec<f32> {
        let mut table = vec![0.0; (BLOCK + 3) * CELL_COUNT];
        for (row, cells) in
            [(0, vec![(1, 0.5), (7, 0.5)]), (BLOCK, vec![(7, 1.0)]), (BLOCK + 2, vec![(1, 0.25), (7, 0.75)])]
        {
            for (cell, share) in cells {
                table[row * CELL_COUNT + cell] = share;
            }
        }
        table
    }

    #[test]
    fn products_and_sums_of_a_block_are_those_of_its_photos() {
        let rows = SparseRows::new(&table(), CELL_COUNT);
        let postings = Postings::new(&rows);
        let (mut products, mut sums) = ([0.0; BLOCK], [PairSums::default(); 3]);
        postings.dot_products(rows.row(0), 1, &mut products);
        postings.pair_sums(rows.row(0), 1, &mut sums);
        assert_eq!(products[..3], [0.5, 0.0, 0.5 * 0.25 + 0.5 * 0.75]);
        assert_eq!(sums.map(|it| it.count()), [1.0, 0.0, 2.0]);
        assert_eq!(sums[2].0, [2.0, 1.0, 0.5, 1.0, 0.25 * 0.25 + 0.75 * 0.75, 0.5 * 0.25 + 0.5 * 0.75]);
    }

    #[test]
    fn chosen_cells_are_numbered_anew() {
        let table = [0.5, 0.0, 0.1, 0.3, 0.0, 0.0, 0.0, 0.25];
        let cells = |as_whole| {
            let rows = SparseRows::of(&table, 4, &CellChoice { cells: vec![2, 3], as_whole });
            assert_eq!((rows.len(), rows.cell_count()), (2, 2));
            [0, 1].map(|row| rows.row(row).iter().collect::<Vec<_>>())
        };
        let [first, second] = cells(false);
        assert_eq!((first, second), (vec![(0, 0.1_f32.into()), (1, 0.3_f32.into())], vec![(1, 0.25)]));
        let [first, second] = cells(true);
        assert!((first[0].1 - 0.25).abs() < 1e-7 && (first[1].1 - 0.75).abs() < 1e-7, "{first:?}");
        assert_eq!(second, [(1, 1.0)]);
    }

    #[test]
    fn cells_of_either_come_with_both_shares() {
        let rows = SparseRows::new(&[0.5, 0.0, 0.25, 0.0, 0.0, 1.0, 0.75, 0.0], 4);
        let either: Vec<_> = rows.row(0).either(rows.row(1)).collect();
        assert_eq!(either, [(0, 0.5, 0.0), (1, 0.0, 1.0), (2, 0.25, 0.75)]);
    }

    #[test]
    fn common_cells_come_with_both_shares() {
        let rows = SparseRows::new(&table(), CELL_COUNT);
        let common: Vec<_> = rows.row(0).common(rows.row(BLOCK + 2)).collect();
        assert_eq!(common, [(1, 0.5, 0.25), (7, 0.5, 0.75)]);
        assert_eq!(rows.row(0).common(rows.row(5)).count(), 0);
    }
}
