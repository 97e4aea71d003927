//! Decoded pixels, and how many there may be.

use super::problem::PhotoProblem;
use crate::reason;

/// Decoded pixels: `[height, width, 3]`, row-major, sRGB u8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Photo {
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
    /// `height x width x 3` bytes.
    pub rgb: Vec<u8>,
}

impl Photo {
    /// Width and height.
    #[must_use]
    pub fn size(&self) -> (u32, u32) {
        (self.width_px, self.height_px)
    }
}

/// Checks the size of a picture before it takes memory.
pub(super) fn check_size(width_px: u32, height_px: u32, max_pixels: u64) -> Result<(), PhotoProblem> {
    if u64::from(width_px) * u64::from(height_px) > max_pixels {
        let detail = format!(
            "the photo has {width_px} x {height_px} pixels, more than the {max_pixels} allowed (max_megapixels)"
        );
        return Err(PhotoProblem::new(reason::TOO_LARGE, detail));
    }
    if width_px == 0 || height_px == 0 {
        return Err(PhotoProblem::new(reason::UNDECODABLE, format!("the picture has {width_px} x {height_px} pixels")));
    }
    Ok(())
}
