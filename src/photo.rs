//! Photo files: bytes in, upright RGB pixels out, strictly.
//!
//! The format is told by the content, never by the name. What a lenient decoder would patch up with grey (a file that was
//! cut off) is refused here: see [`reason`] for all the ways in which a photo can be no good.

use std::io::{Cursor, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, RgbImage, imageops};

mod jpeg;

/// Width that photos are fitted into.
pub const FIT_WIDTH_PX: u32 = 400;
/// Height that photos are fitted into.
pub const FIT_HEIGHT_PX: u32 = 600;
/// Most pixels that a photo may have: far above any camera, below what memory holds a few times.
pub const MAX_PIXELS: u64 = 100_000_000;
/// Most bytes that an encoded photo may have.
pub const MAX_FILE_BYTES: u64 = 1 << 29;
/// Most memory that a decoder may take: [`MAX_PIXELS`] of four channels of 16 bits.
const MAX_DECODER_BYTES: u64 = MAX_PIXELS * 8;
/// Above this reduction a photo is first averaged down to twice its final size: four times as fast, no visible difference.
const COARSE_REDUCTION: u32 = 4;

/// The stable reason codes of photos that are no good, as `rejects.parquet` holds them.
pub mod reason {
    /// The file cannot be opened or read.
    pub const UNREADABLE: &str = "photo_unreadable";
    /// The file has zero bytes.
    pub const EMPTY: &str = "photo_empty";
    /// Neither JPEG nor PNG nor WebP, or one that is damaged.
    pub const UNDECODABLE: &str = "photo_undecodable";
    /// The file ends before the picture does.
    pub const TRUNCATED: &str = "photo_truncated";
    /// Its labels are of another size than the upright photo.
    pub const OTHER_SIZE: &str = "photo_other_size";
    /// More than [`super::MAX_PIXELS`] or [`super::MAX_FILE_BYTES`].
    pub const TOO_LARGE: &str = "photo_too_large";
}

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
    /// A stable reason code of `rejects.parquet`, one of [`reason`].
    pub reason: &'static str,
    /// What was found, for people.
    pub detail: String,
}

impl PhotoProblem {
    /// A problem for `reason`.
    pub fn new(reason: &'static str, detail: impl std::fmt::Display) -> Self {
        Self { reason, detail: detail.to_string() }
    }
}

/// Decodes a photo file and turns it upright (EXIF). Transparent pixels are laid over white; 16 bits become 8; grey and
/// CMYK become RGB; of an animation the first frame is taken.
///
/// # Errors
/// [`PhotoProblem`].
pub fn decode(bytes: &[u8]) -> Result<Photo, PhotoProblem> {
    if bytes.is_empty() {
        return Err(PhotoProblem::new(reason::EMPTY, "the file has zero bytes"));
    }
    let format = detect(bytes)?;
    // Decoders are many and old; a panic in one of them is one bad photo, not the end of a night's run.
    catch_unwind(AssertUnwindSafe(|| decode_as(format, bytes)))
        .unwrap_or_else(|_| Err(PhotoProblem::new(reason::UNDECODABLE, "the decoder gave up on damaged content")))
}

/// Reads and decodes a photo file.
///
/// # Errors
/// [`PhotoProblem`]; [`reason::UNREADABLE`] where the file cannot be read.
pub fn read(path: &Path) -> Result<Photo, PhotoProblem> {
    decode(&read_bytes(path)?)
}

/// Reads a photo file without decoding it.
///
/// # Errors
/// [`reason::UNREADABLE`] where it cannot be read, [`reason::TOO_LARGE`] above [`MAX_FILE_BYTES`].
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, PhotoProblem> {
    let unreadable = |cause| PhotoProblem::new(reason::UNREADABLE, cause);
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_FILE_BYTES {
        let detail = format!("a file of {size} bytes, more than the {MAX_FILE_BYTES} allowed");
        return Err(PhotoProblem::new(reason::TOO_LARGE, detail));
    }
    std::fs::read(path).map_err(unreadable)
}

/// Scales a photo to the largest size of the same aspect within `width_px` x `height_px`, up or down.
#[must_use]
pub fn fit(photo: &Photo, width_px: u32, height_px: u32) -> Photo {
    let (width, height) = fitted_size((photo.width_px, photo.height_px), (width_px, height_px));
    resize(photo, width, height)
}

/// The largest size (width, height) of the aspect of `size` within `limit`; at least one pixel each way.
#[must_use]
pub fn fitted_size(size: (u32, u32), limit: (u32, u32)) -> (u32, u32) {
    let scale = (f64::from(limit.0) / f64::from(size.0)).min(f64::from(limit.1) / f64::from(size.1));
    let side = |length: u32, limit: u32| ((f64::from(length) * scale).round() as u32).clamp(1, limit);
    (side(size.0, limit.0), side(size.1, limit.1))
}

/// Scales a photo to exactly `width_px` x `height_px`, with a triangle filter as wide as the reduction asks for.
#[must_use]
pub fn resize(photo: &Photo, width_px: u32, height_px: u32) -> Photo {
    if (photo.width_px, photo.height_px) == (width_px, height_px) {
        return photo.clone();
    }
    let mut picture = RgbImage::from_raw(photo.width_px, photo.height_px, photo.rgb.clone())
        .expect("a photo has three bytes for each pixel");
    if photo.width_px / width_px >= COARSE_REDUCTION && photo.height_px / height_px >= COARSE_REDUCTION {
        picture = imageops::thumbnail(&picture, width_px * 2, height_px * 2);
    }
    Photo { width_px, height_px, rgb: imageops::resize(&picture, width_px, height_px, imageops::Triangle).into_raw() }
}

fn detect(bytes: &[u8]) -> Result<ImageFormat, PhotoProblem> {
    let undecodable = |found: &str| {
        PhotoProblem::new(reason::UNDECODABLE, format!("{found}; photos are JPEG, PNG or WebP, whatever their name"))
    };
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => Ok(format),
        Ok(other) => Err(undecodable(&format!("the content is {other:?}"))),
        Err(_) => Err(undecodable("the content is not a picture")),
    }
}

fn decode_as(format: ImageFormat, bytes: &[u8]) -> Result<Photo, PhotoProblem> {
    let whole = check_whole(format, bytes);
    let pixels = decode_pixels(format, bytes);
    // A file that ends early says so, whatever the decoder made of the rest.
    match (whole, pixels) {
        (_, Err(problem)) if problem.reason == reason::TOO_LARGE => Err(problem),
        (Err(problem), _) | (Ok(()), Err(problem)) => Err(problem),
        (Ok(()), Ok(photo)) => Ok(photo),
    }
}

fn decode_pixels(format: ImageFormat, bytes: &[u8]) -> Result<Photo, PhotoProblem> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|cause| problem_of(&cause))?;
    let (width_px, height_px) = decoder.dimensions();
    if u64::from(width_px) * u64::from(height_px) > MAX_PIXELS {
        let detail = format!("{width_px} x {height_px} pixels, more than the {MAX_PIXELS} allowed");
        return Err(PhotoProblem::new(reason::TOO_LARGE, detail));
    }
    if width_px == 0 || height_px == 0 {
        return Err(PhotoProblem::new(reason::UNDECODABLE, format!("a picture of {width_px} x {height_px} pixels")));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|cause| problem_of(&cause))?;
    picture.apply_orientation(orientation);
    let rgb = if picture.color().has_alpha() { over_white(&picture) } else { picture.into_rgb8() };
    Ok(Photo { width_px: rgb.width(), height_px: rgb.height(), rgb: rgb.into_raw() })
}

fn over_white(picture: &DynamicImage) -> RgbImage {
    let rgba = picture.to_rgba8();
    let rgb = rgba.pixels().flat_map(|pixel| {
        let [r, g, b, alpha] = pixel.0.map(u16::from);
        [r, g, b].map(|value| ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
    });
    RgbImage::from_raw(rgba.width(), rgba.height(), rgb.collect()).expect("three bytes for each pixel")
}

fn problem_of(cause: &ImageError) -> PhotoProblem {
    let reason = match cause {
        ImageError::Limits(_) => reason::TOO_LARGE,
        ImageError::IoError(io) if io.kind() == ErrorKind::UnexpectedEof => reason::TRUNCATED,
        _ => reason::UNDECODABLE,
    };
    PhotoProblem::new(reason, cause)
}

/// Whether the file holds the whole picture, told from its structure: decoders fill what is missing with grey.
fn check_whole(format: ImageFormat, bytes: &[u8]) -> Result<(), PhotoProblem> {
    match format {
        ImageFormat::Jpeg => jpeg::check_whole(bytes),
        ImageFormat::Png => check_png_whole(bytes),
        ImageFormat::WebP => check_webp_whole(bytes),
        _ => Ok(()),
    }
}

/// PNG (ISO/IEC 15948): eight bytes, then chunks of length, name, content and CRC up to IEND.
fn check_png_whole(bytes: &[u8]) -> Result<(), PhotoProblem> {
    let mut at = 8;
    while let Some(header) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        at += 12 + length;
        if &header[4..] == b"IEND" && at <= bytes.len() {
            return Ok(());
        }
    }
    Err(PhotoProblem::new(reason::TRUNCATED, "the PNG file ends before its IEND chunk"))
}

/// WebP (RFC 9649): a RIFF header that tells the size of the rest.
fn check_webp_whole(bytes: &[u8]) -> Result<(), PhotoProblem> {
    let told = bytes.get(4..8).map_or(0, |size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize);
    if bytes.len() < 8 + told {
        let detail = format!("the WebP file has {} of its {} bytes", bytes.len(), 8 + told);
        return Err(PhotoProblem::new(reason::TRUNCATED, detail));
    }
    Ok(())
}
