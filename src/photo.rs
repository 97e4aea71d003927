//! Photo files: bytes in, upright RGB pixels out, strictly.

/// Width that photos are fitted into.
pub const FIT_WIDTH_PX: u32 = 400;
/// Height that photos are fitted into.
pub const FIT_HEIGHT_PX: u32 = 600;

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

/// Why a photo file is no good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoProblem {
    /// A stable reason code of `rejects.parquet`.
    pub reason: &'static str,
    /// What was found, for people.
    pub detail: String,
}

/// Decodes a photo file and turns it upright (EXIF).
///
/// # Errors
/// [`PhotoProblem`].
pub fn decode(_bytes: &[u8]) -> Result<Photo, PhotoProblem> {
    unimplemented!()
}

/// Scales a photo to the largest size of the same aspect within `width_px` x `height_px`.
#[must_use]
pub fn fit(_photo: &Photo, _width_px: u32, _height_px: u32) -> Photo {
    unimplemented!()
}
