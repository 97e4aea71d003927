//! Pictures that people look at: learning curves, overlays, contact sheets.

use crate::error::Result;
use crate::photo::Photo;
use crate::train::history::EpochRecord;

/// A captioned picture of a contact sheet.
#[derive(Debug, Clone)]
pub struct Tile {
    /// The picture.
    pub photo: Photo,
    /// One or two lines below it.
    pub caption: String,
}

/// Draws loss and metrics by epoch.
///
/// # Errors
/// Where drawing fails.
pub fn learning_curve(_history: &[EpochRecord]) -> Result<Photo> {
    unimplemented!()
}

/// Lays out captioned pictures in rows of `columns`.
///
/// # Errors
/// Where drawing fails.
pub fn contact_sheet(_tiles: &[Tile], _columns: usize) -> Result<Photo> {
    unimplemented!()
}

/// The photo with its categories in the palette's colours over it.
#[must_use]
pub fn overlay(_photo: &Photo, _label_map: &[u8]) -> Photo {
    unimplemented!()
}

/// Encodes as PNG.
#[must_use]
pub fn png(_photo: &Photo) -> Vec<u8> {
    unimplemented!()
}
