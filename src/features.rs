//! Label maps and colours to the feature table; the feature table as later stages read it.

use std::path::Path;

use crate::error::Result;

/// The feature table in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureTable {
    /// Ids, in the order of the parts.
    pub photo_ids: Vec<u32>,
    /// File names.
    pub file_names: Vec<String>,
    /// Paths of the photos; for a dataset's own photos the path inside the source.
    pub paths: Vec<String>,
    /// Number of apparel pixels.
    pub apparel_px: Vec<u64>,
    /// `[photos, 228]`, row-major; 0 where there is none.
    pub cells: Vec<f32>,
}

impl FeatureTable {
    /// Scans the parts of a features folder with polars.
    ///
    /// # Errors
    /// [`crate::Error::Input`], [`crate::Error::Schema`].
    pub fn open(_folder: &Path) -> Result<Self> {
        unimplemented!()
    }
}
