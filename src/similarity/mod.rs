//! `similarity`: feature table to correlation matrix and neighbours.

use std::path::Path;

use crate::error::Result;

/// One row of `neighbours.parquet`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// The photo whose neighbour it is.
    pub photo_id: u32,
    /// 1 = nearest.
    pub rank: u32,
    /// The neighbour.
    pub neighbour_id: u32,
    /// Correlation of the two, -1 to 1.
    pub correlation: f32,
    /// Cells present in both.
    pub cells_in_common: u32,
}

/// Reads `neighbours.parquet` of a similarity folder.
///
/// # Errors
/// As [`crate::table::read_table`].
pub fn read_neighbours(_folder: &Path) -> Result<Vec<Neighbour>> {
    unimplemented!()
}
