//! RGB -> colour name: `color_table.parquet`, learnt from the labelled pixels of the train split.

use std::path::Path;

use crate::dataset::{Dataset, Split};
use crate::error::Result;

/// The learnt table.
#[derive(Debug, Clone, PartialEq)]
pub struct ColorTable {}

impl ColorTable {
    /// Learns the table from the train split; from typical values of the colour names where the data set has no colours.
    ///
    /// # Errors
    /// As [`Dataset::photos`].
    pub fn learn(_dataset: &Dataset) -> Result<Self> {
        unimplemented!()
    }

    /// Reads `color_table.parquet`.
    ///
    /// # Errors
    /// As [`crate::table::read_table`].
    pub fn read(_path: &Path) -> Result<Self> {
        unimplemented!()
    }

    /// Writes `color_table.parquet`.
    ///
    /// # Errors
    /// As [`crate::table::write_table`].
    pub fn write(&self, _path: &Path) -> Result<()> {
        unimplemented!()
    }

    /// The colour of an sRGB value, 1 to 12 (never `bk`).
    #[must_use]
    pub fn color_of(&self, _rgb: [u8; 3]) -> u8 {
        unimplemented!()
    }

    /// Share of the apparel pixels of a split whose colour the table names as the labels do; `None` where the data set
    /// has no colours.
    ///
    /// # Errors
    /// As [`Dataset::photos`].
    pub fn pixel_accuracy(&self, _dataset: &Dataset, _split: Split) -> Result<Option<f64>> {
        unimplemented!()
    }
}
