//! Settings of `report`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::Device;

/// Name of this stage.
pub const STAGE: &str = "report";
/// Default of [`Config::photos`].
pub const DEFAULT_PHOTOS: usize = 6;

/// Default of [`Config::gallery_photos`].
pub const DEFAULT_GALLERY_PHOTOS: usize = 20_000;

/// Maximum of [`Config::photos`]: the pictures are embedded in the page, which a browser must be able to load.
pub const MAX_PHOTOS: usize = 100;

/// Settings of `report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder that holds the folders of the stages.
    pub run: PathBuf,
    /// The model folder, or a parser's, whose segmentations and evaluation are shown; by default that of the run.
    pub model: Option<PathBuf>,
    /// The folder to write the page to.
    pub output: PathBuf,
    /// Photos shown with truth and prediction: [`DEFAULT_PHOTOS`], at most [`MAX_PHOTOS`].
    pub photos: usize,
    /// Maximum number of photos in the gallery ([`DEFAULT_GALLERY_PHOTOS`]).
    pub gallery_photos: usize,
    /// A Parquet or CSV file with more columns about the photos, joined by `photo_id`, `path` or `file_name`, for the gallery's
    /// filters.
    pub metadata: Option<PathBuf>,
    /// The folder of `duplicates`, whose groups the gallery folds; by default that of the run, if there is one.
    pub duplicates: Option<PathBuf>,
    /// Where the network runs.
    pub device: Device,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            run: PathBuf::from("output"),
            model: None,
            output: PathBuf::from("output/report"),
            photos: DEFAULT_PHOTOS,
            gallery_photos: DEFAULT_GALLERY_PHOTOS,
            metadata: None,
            duplicates: None,
            device: Device::Auto,
        }
    }
}
