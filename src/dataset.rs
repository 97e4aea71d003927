//! Source records to dataset tables (`convert`), and the dataset tables as later stages read them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::stage::{Common, Summary};

/// Settings of `convert`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of the source.
    pub source: PathBuf,
    /// The folder of the dataset tables.
    pub output: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { source: PathBuf::from("data"), output: PathBuf::from("output/dataset") }
    }
}

/// The part of the data set that a photo belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Learnt from.
    Train,
    /// Watched while learning.
    Validation,
    /// Looked at once, at the end.
    Test,
}

/// One row of `photos.parquet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoRecord {
    /// Row order of the source.
    pub photo_id: u32,
    /// File name in the source.
    pub file_name: String,
    /// Part of the data set.
    pub split: Split,
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
    /// The encoded file as found.
    pub encoded: Vec<u8>,
    /// `[height, width]`, 0-based superpixel numbers.
    pub superpixels: Vec<u16>,
    /// Category of each superpixel, 0 to 22.
    pub superpixel_category: Vec<u8>,
    /// Colour of each superpixel, 0 to 12; `None` where the source has none.
    pub superpixel_color: Option<Vec<u8>>,
}

impl PhotoRecord {
    /// Category of each pixel, `[height, width]`.
    #[must_use]
    pub fn category_map(&self) -> Vec<u8> {
        self.superpixels.iter().map(|&s| self.superpixel_category[usize::from(s)]).collect()
    }

    /// Colour of each pixel, `[height, width]`; `None` where the source has no colours.
    #[must_use]
    pub fn color_map(&self) -> Option<Vec<u8>> {
        let colors = self.superpixel_color.as_ref()?;
        Some(self.superpixels.iter().map(|&s| colors[usize::from(s)]).collect())
    }
}

/// The tables of a dataset folder, checked.
#[derive(Debug)]
pub struct Dataset {
    /// The folder.
    pub folder: PathBuf,
}

impl Dataset {
    /// Opens a dataset folder and checks that its tables are there, of this schema, and of this program's label lists.
    ///
    /// # Errors
    /// As [`crate::table::read_table`].
    pub fn open(_folder: &Path) -> Result<Self> {
        unimplemented!()
    }

    /// Number of photos of all splits.
    #[must_use]
    pub fn len(&self) -> usize {
        unimplemented!()
    }

    /// Streams the photos in the order of the table; of one split where one is named.
    ///
    /// # Errors
    /// As [`crate::table::read_table`]; a damaged row as an item.
    pub fn photos(&self, _split: Option<Split>) -> Result<Box<dyn Iterator<Item = Result<PhotoRecord>>>> {
        unimplemented!()
    }

    /// The file that [`Dataset::photos`] reads.
    #[must_use]
    pub fn photos_path(&self) -> PathBuf {
        self.folder.join("photos.parquet")
    }
}

/// Converts the source into the dataset folder.
///
/// # Errors
/// Bad sources by name; more rejects than allowed after publishing.
pub fn run(_config: &Config, _common: &Common) -> Result<Summary> {
    unimplemented!()
}
