//! Photo files: decodes bytes to upright RGB pixels, strictly.
//!
//! The format is determined by the content, never by the name. What a lenient decoder would fill with grey (such as a
//! truncated file) is rejected here: [`crate::reason`] lists all the ways in which a photo can be invalid.

use std::io::{Cursor, ErrorKind};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, RgbImage};
use lookbook_ops::resize::{Filter, Scaling};
use serde::Deserialize;

use crate::error::Error;
use crate::{guard, reason, store};

pub mod hashes;
mod jpeg;
mod orientation;
mod pixels;
mod problem;

use jpeg::Jpeg;
pub use pixels::Photo;
use pixels::check_size;
pub use problem::PhotoProblem;

/// File name extensions of photos in a folder tree, case-insensitive.
pub const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "jpe", "jfif", "jif", "pjpeg", "pjp", "png", "webp"];
/// Width into which photos are fitted.
pub const FIT_WIDTH_PX: u32 = 400;
/// Height into which photos are fitted.
pub const FIT_HEIGHT_PX: u32 = 600;
/// Default limit on a photo's pixels: far above any camera, but low enough to fit in memory several times.
pub const MAX_PIXELS: u64 = 100_000_000;
/// Maximum size of an encoded photo in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 29;
/// Maximum bytes per pixel in a decoder: four channels of 16 bits.
const MAX_PIXEL_BYTES: u64 = 8;

/// How a photo is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoding {
    /// Maximum number of pixels.
    pub max_pixels: u64,
    /// Width and height into which the photo is fitted; `None` leaves it unchanged.
    pub fit: Option<(u32, u32)>,
}

impl Decoding {
    /// How a photo of a catalogue is decoded, and one that is compared with them.
    #[must_use]
    pub fn fitted(max_pixels: u64) -> Self {
        Self { max_pixels, fit: Some((FIT_WIDTH_PX, FIT_HEIGHT_PX)) }
    }
}

/// A decoded photo, and the upright size of the picture in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The photo, fitted if requested.
    pub photo: Photo,
    /// Width of the upright photo before fitting.
    pub own_width_px: u32,
    /// Height of the upright photo before fitting.
    pub own_height_px: u32,
}

/// Decodes a photo file and turns it upright (EXIF). Transparent pixels are composited over white, 16-bit channels are
/// reduced to 8, grey and CMYK are converted to RGB, and only the first frame of an animation is used.
///
/// # Errors
/// [`PhotoProblem`] if the photo is invalid.
pub fn decode(bytes: &[u8]) -> Result<Photo, PhotoProblem> {
    decode_with(bytes, Decoding { max_pixels: MAX_PIXELS, fit: None }).map(|it| it.photo)
}

/// Like [`decode`], with limits and fitting. A large JPEG file is decoded only at the resolution that its fitted size
/// needs.
///
/// # Errors
/// As [`decode`].
pub fn decode_with(bytes: &[u8], decoding: Decoding) -> Result<Decoded, PhotoProblem> {
    if bytes.is_empty() {
        return Err(PhotoProblem::new(reason::EMPTY, "the file has zero bytes"));
    }
    let format = detect(bytes)?;
    // Decoders are many and old: a panic in one of them should cost one photo, not a whole night's run.
    guard::no_panic(|| decode_as(format, bytes, decoding)).unwrap_or_else(|panic| {
        let detail = format!("the decoder crashed on damaged content ({panic})");
        Err(PhotoProblem::new(reason::UNDECODABLE, detail))
    })
}

/// Reads and decodes a photo file.
///
/// # Errors
/// As [`read_bytes`] and [`decode`].
pub fn read(path: &Path) -> Result<Photo, PhotoProblem> {
    decode(&read_bytes(path)?)
}

/// Reads a photo without decoding it, from a file or a URL.
///
/// # Errors
/// As [`stat`]; [`reason::TOO_LARGE`] above [`MAX_FILE_BYTES`].
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, PhotoProblem> {
    if store::is_url(path) {
        return fetch(path).map(|(_, bytes)| bytes);
    }
    let size = stat(path)?.len();
    if size > MAX_FILE_BYTES {
        return Err(too_large(size));
    }
    std::fs::read(path).map_err(|cause| unreadable(&cause))
}

/// Reads a photo at a URL without decoding it, with what the store says about it.
///
/// # Errors
/// As [`read_bytes`].
pub fn fetch(url: &Path) -> Result<(store::Object, Vec<u8>), PhotoProblem> {
    let location = store::Location::parse(url).map_err(|problem| PhotoProblem::new(reason::MISSING, problem))?;
    let (object, bytes) = store::read(&location, MAX_FILE_BYTES).map_err(|cause| unreadable(&cause))?;
    Ok((object.clone(), bytes.ok_or_else(|| too_large(object.bytes))?.into()))
}

fn too_large(size: u64) -> PhotoProblem {
    let detail = format!("the file has {size} bytes, more than the {MAX_FILE_BYTES} allowed");
    PhotoProblem::new(reason::TOO_LARGE, detail)
}

/// Metadata of a photo file. Nothing is opened, because opening a pipe would wait for its other end.
///
/// # Errors
/// [`reason::MISSING`], [`reason::NO_PERMISSION`], [`reason::IO_ERROR`], [`reason::NOT_A_FILE`].
pub fn stat(path: &Path) -> Result<std::fs::Metadata, PhotoProblem> {
    let metadata = std::fs::metadata(path).map_err(|cause| unreadable(&cause))?;
    if metadata.is_file() {
        return Ok(metadata);
    }
    let found = if metadata.is_dir() { "a folder" } else { "a pipe, a socket or a device" };
    Err(PhotoProblem::new(reason::NOT_A_FILE, format!("is {found}, not a file")))
}

/// Why a file cannot be read, distinguished by who has to act.
#[must_use]
pub fn unreadable(cause: &std::io::Error) -> PhotoProblem {
    if Error::limit(cause, Path::new("")).is_some() {
        return PhotoProblem::new(reason::LIMIT_REACHED, cause);
    }
    let reason = match cause.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => reason::MISSING,
        ErrorKind::PermissionDenied => reason::NO_PERMISSION,
        _ => reason::IO_ERROR,
    };
    PhotoProblem::new(reason, cause)
}

/// Scales a photo to the largest size of the same aspect within `width_px` x `height_px`, up or down.
#[must_use]
pub fn fit(photo: &Photo, width_px: u32, height_px: u32) -> Photo {
    let (width, height) = fitted_size((photo.width_px, photo.height_px), (width_px, height_px));
    resize(photo, width, height)
}

/// The largest size (width, height) with the aspect ratio of `size` within `limit`; at least one pixel in each
/// direction.
#[must_use]
pub fn fitted_size(size: (u32, u32), limit: (u32, u32)) -> (u32, u32) {
    let scale = (f64::from(limit.0) / f64::from(size.0)).min(f64::from(limit.1) / f64::from(size.1));
    let side = |length: u32, limit: u32| ((f64::from(length) * scale).round() as u32).clamp(1, limit);
    (side(size.0, limit.0), side(size.1, limit.1))
}

/// How a third-party network wants its photos scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resample {
    /// [`Filter::Bilinear`].
    #[default]
    Bilinear,
    /// [`Filter::Bicubic`].
    Bicubic,
    /// [`Filter::Nearest`].
    Nearest,
}

/// Scales a photo to exactly `width_px` x `height_px`, with a triangle filter as wide as the reduction requires. All
/// photos and pictures are resized here, by `fast_image_resize`: that of `image` differs by at most 1 and takes 11
/// times as long (2000 x 3000 to 400 x 600: 26 ms instead of 2.4).
#[must_use]
pub fn resize(photo: &Photo, width_px: u32, height_px: u32) -> Photo {
    if (photo.width_px, photo.height_px) == (width_px, height_px) {
        return photo.clone();
    }
    let whole = [0.0, 0.0, f64::from(photo.width_px), f64::from(photo.height_px)];
    resize_part(photo, whole, (width_px, height_px), Resample::Bilinear)
}

/// Scales the part of a photo with the bounds `[left, top, width, height]`, in pixels, to the size `to` (width, height).
#[must_use]
pub fn resize_part(photo: &Photo, part: [f64; 4], to: (u32, u32), resample: Resample) -> Photo {
    let filter = match resample {
        Resample::Bilinear => Filter::Bilinear,
        Resample::Bicubic => Filter::Bicubic,
        Resample::Nearest => Filter::Nearest,
    };
    let rgb = Scaling { from: photo.size(), part, to, filter }.rgb(&photo.rgb);
    Photo { width_px: to.0, height_px: to.1, rgb }
}

fn detect(bytes: &[u8]) -> Result<ImageFormat, PhotoProblem> {
    let undecodable = |found: &str| {
        PhotoProblem::new(
            reason::UNDECODABLE,
            format!("{found}; photos must be JPEG, PNG or WebP, whatever their name"),
        )
    };
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => Ok(format),
        Ok(other) => Err(undecodable(&format!("the content is {other:?}"))),
        Err(_) => Err(undecodable("the content is not a picture")),
    }
}

fn decode_as(format: ImageFormat, bytes: &[u8], decoding: Decoding) -> Result<Decoded, PhotoProblem> {
    if format == ImageFormat::Jpeg {
        let file = Jpeg::open(bytes, decoding.max_pixels)?;
        let layout = Layout::new((file.width_px, file.height_px), orientation::of_tiff(&file.exif), decoding.fit);
        return Ok(layout.lay_out(file.decode(layout.stored)?));
    }
    let whole = check_whole(format, bytes);
    let decoded = decode_png_or_webp(format, bytes, decoding);
    // A file that ends early is reported as such, whatever the decoder made of the rest.
    match (whole, decoded) {
        (_, Err(problem)) if problem.reason == reason::TOO_LARGE => Err(problem),
        (Err(problem), _) | (Ok(()), Err(problem)) => Err(problem),
        (Ok(()), Ok(decoded)) => Ok(decoded),
    }
}

fn decode_png_or_webp(format: ImageFormat, bytes: &[u8], decoding: Decoding) -> Result<Decoded, PhotoProblem> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(decoding.max_pixels * MAX_PIXEL_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|cause| problem_of(&cause))?;
    let (width_px, height_px) = decoder.dimensions();
    check_size(width_px, height_px, decoding.max_pixels)?;
    let picture = DynamicImage::from_decoder(decoder).map_err(|cause| problem_of(&cause))?;
    let rgb = if picture.color().has_alpha() { over_white(&picture) } else { picture.into_rgb8() };
    let layout = Layout::new((width_px, height_px), orientation::of_png_or_webp(format, bytes), decoding.fit);
    Ok(layout.lay_out(Photo { width_px, height_px, rgb: rgb.into_raw() }))
}

/// How the picture in a file becomes a photo. Sizes are width and height in pixels.
struct Layout {
    orientation: Orientation,
    /// Size of the upright picture.
    own: (u32, u32),
    /// Size of the fitted picture before it is turned upright; `None` leaves the size unchanged.
    stored: Option<(u32, u32)>,
}

impl Layout {
    fn new(size: (u32, u32), orientation: Orientation, fit: Option<(u32, u32)>) -> Self {
        let turned = matches!(
            orientation,
            Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
        );
        let swap = |(width, height)| if turned { (height, width) } else { (width, height) };
        let own = swap(size);
        Self { orientation, own, stored: fit.map(|limit| swap(fitted_size(own, limit))) }
    }

    /// Scales a picture to its stored size and turns it upright.
    fn lay_out(&self, picture: Photo) -> Decoded {
        let fitted = match self.stored {
            Some(size) if size != (picture.width_px, picture.height_px) => resize(&picture, size.0, size.1),
            _ => picture,
        };
        Decoded { photo: upright(fitted, self.orientation), own_width_px: self.own.0, own_height_px: self.own.1 }
    }
}

fn upright(photo: Photo, orientation: Orientation) -> Photo {
    if orientation == Orientation::NoTransforms {
        return photo;
    }
    let picture = RgbImage::from_raw(photo.width_px, photo.height_px, photo.rgb);
    let mut picture = DynamicImage::from(picture.expect("a photo has three bytes per pixel"));
    picture.apply_orientation(orientation);
    let rgb = picture.into_rgb8();
    Photo { width_px: rgb.width(), height_px: rgb.height(), rgb: rgb.into_raw() }
}

fn over_white(picture: &DynamicImage) -> RgbImage {
    let rgba = picture.to_rgba8();
    let rgb = rgba.pixels().flat_map(|pixel| {
        let [r, g, b, alpha] = pixel.0.map(u16::from);
        [r, g, b].map(|value| ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
    });
    RgbImage::from_raw(rgba.width(), rgba.height(), rgb.collect()).expect("three bytes per pixel")
}

fn problem_of(cause: &ImageError) -> PhotoProblem {
    let reason = match cause {
        ImageError::Limits(_) => reason::TOO_LARGE,
        ImageError::IoError(io) if io.kind() == ErrorKind::UnexpectedEof => reason::TRUNCATED,
        _ => reason::UNDECODABLE,
    };
    PhotoProblem::new(reason, cause)
}

/// Checks from its structure whether the file contains the whole picture: decoders fill missing parts with grey.
fn check_whole(format: ImageFormat, bytes: &[u8]) -> Result<(), PhotoProblem> {
    match format {
        ImageFormat::Png => check_png_whole(bytes),
        ImageFormat::WebP => check_webp_whole(bytes),
        _ => Ok(()),
    }
}

/// PNG (ISO/IEC 15948): eight bytes, then chunks of length, name, content and CRC, up to IEND.
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

/// WebP (RFC 9649): a RIFF header with the size of the rest.
fn check_webp_whole(bytes: &[u8]) -> Result<(), PhotoProblem> {
    let told = bytes.get(4..8).map_or(0, |size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize);
    if bytes.len() < 8 + told {
        let detail = format!("the WebP file has {} of its {} bytes", bytes.len(), 8 + told);
        return Err(PhotoProblem::new(reason::TRUNCATED, detail));
    }
    Ok(())
}
