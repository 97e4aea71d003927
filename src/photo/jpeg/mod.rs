//! JPEG photos, decoded by libjpeg-turbo: strictly, and with bounded work.
//!
//! One walk over the markers finds what the photo needs: its size, its EXIF data, and whether every component comes
//! with a scan before the EOI marker. libjpeg-turbo then decodes a copy of the segments that matter for the pixels.
//! It only warns about missing data and fills them with grey, so a photo with a warning is decoded again without pixels
//! ([`entropy`]), which tells a cut or damaged photo from one with a few stray bytes. Section and figure numbers in
//! comments refer to ITU-T T.81.

use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat, ScalingFactor};

use super::pixels::{Photo, check_size};
use super::problem::PhotoProblem;
use crate::{error, reason};

mod entropy;
mod markers;
mod standard;

use markers::{Markers, damaged, undecodable};

/// Photos with more scans are refused: each costs a pass over all pixels, however few bytes it has. Encoders write
/// about ten, and a scan for every bit of every component would be fewer than this.
const MAX_SCANS: usize = 100;
/// Texts of libjpeg-turbo's warnings (`jerror.h`); other messages are errors.
const WARNINGS: [&str; 4] =
    ["Corrupt JPEG data", "Premature end of JPEG file", "Inconsistent progression", "Invalid SOS parameters"];
/// Start of the file, of entropy-coded data, and end of the file (table B.1).
const SOI: u8 = 0xD8;
const SOS: u8 = 0xDA;
const EOI: u8 = 0xD9;
/// Scales at which blocks are transformed to fewer pixels, as divisors, largest first.
const REDUCTIONS: [u32; 3] = [8, 4, 2];

/// A JPEG file with all its scans.
pub(super) struct Jpeg {
    pub(super) width_px: u32,
    pub(super) height_px: u32,
    /// The TIFF data of its EXIF segments; empty without one.
    pub(super) exif: Vec<u8>,
    /// The segments that the pixels depend on.
    essence: Vec<u8>,
}

/// What the markers tell.
#[derive(Default)]
struct Found {
    essence: Vec<u8>,
    exif: Vec<u8>,
    frame: Option<Frame>,
    scans: usize,
    /// Where in `essence` the colour transform of an Adobe segment is.
    transform: Option<usize>,
}

/// The parts of a frame header (B.2.2) that are checked here.
struct Frame {
    width_px: u32,
    height_px: u32,
    components: usize,
    /// Identifiers of the components that have had no scan yet.
    missing: Vec<u8>,
}

impl Jpeg {
    /// Walks over the markers of a file up to its EOI marker.
    ///
    /// # Errors
    /// [`reason::TRUNCATED`] if its end is missing; [`reason::TOO_LARGE`] above `max_pixels`;
    /// [`reason::TOO_MANY_SCANS`] above [`MAX_SCANS`]; [`reason::UNDECODABLE`] if its coding is not supported.
    pub(super) fn open(bytes: &[u8], max_pixels: u64) -> Result<Self, PhotoProblem> {
        let mut markers = Markers::new(bytes);
        let mut found = Found { essence: vec![0xFF, SOI], ..Found::default() };
        loop {
            let (marker, start) = markers.next()?;
            match marker {
                // SOI of a second picture, RSTn and TEM have no segment.
                0x01 | 0xD0..=SOI => continue,
                EOI => break,
                _ => {}
            }
            let segment = markers.segment()?;
            if marker == SOS {
                markers.skip_data();
            }
            found.take(marker, segment, markers.since(start), max_pixels)?;
        }
        found.essence.extend_from_slice(&[0xFF, EOI]);
        found.whole()
    }

    /// Decodes the photo, at a half, a quarter or an eighth of its size if that is at least `wanted` (width, height).
    ///
    /// # Errors
    /// [`reason::TRUNCATED`] if data are missing; [`reason::UNDECODABLE`] if they are damaged.
    pub(super) fn decode(&self, wanted: Option<(u32, u32)>) -> Result<Photo, PhotoProblem> {
        let fits = |by: u32| {
            wanted.is_some_and(|(width, height)| {
                self.width_px.div_ceil(by) >= width && self.height_px.div_ceil(by) >= height
            })
        };
        let by = REDUCTIONS.into_iter().find(|&by| fits(by)).unwrap_or(1);
        let (width_px, height_px) = (self.width_px.div_ceil(by), self.height_px.div_ceil(by));
        let mut decoder = Decompressor::new().map_err(failed)?;
        decoder.set_scaling_factor(ScalingFactor::new(1, by as usize)).map_err(failed)?;
        let colors = decoder.read_header(&self.essence).map_err(failed)?.colorspace;
        let inks = matches!(colors, Colorspace::CMYK | Colorspace::YCCK);
        let format = if inks { PixelFormat::CMYK } else { PixelFormat::RGB };
        let (width, height, pitch) = (width_px as usize, height_px as usize, width_px as usize * format.size());
        let mut pixels = vec![0; pitch * height];
        let image = Image { pixels: &mut *pixels, width, pitch, height, format };
        if let Err(problem) = decoder.decompress(&self.essence, image) {
            entropy::check(&self.essence)?;
            let is_warning = |message: &str| WARNINGS.iter().any(|it| message.starts_with(it));
            if !matches!(&problem, turbojpeg::Error::TurboJpegError(message) if is_warning(message)) {
                return Err(failed(problem));
            }
        }
        let rgb = if inks { rgb_of_inks(&pixels) } else { pixels };
        Ok(Photo { width_px, height_px, rgb })
    }
}

/// What libjpeg-turbo says of a photo, or of the memory that it did not get for it.
fn failed(problem: turbojpeg::Error) -> PhotoProblem {
    match error::refused(&problem.to_string()) {
        Some(_) => PhotoProblem::new(reason::LIMIT_REACHED, problem),
        None => undecodable(problem),
    }
}

impl Found {
    /// Takes over what matters of a segment, which with its marker and data is `raw`.
    fn take(&mut self, marker: u8, segment: &[u8], raw: &[u8], max_pixels: u64) -> Result<(), PhotoProblem> {
        // Where the content of the segment will be.
        let at = self.essence.len() + 4;
        match marker {
            0xE1 => {
                self.exif.extend_from_slice(segment.strip_prefix(b"Exif\0\0").unwrap_or_default());
                return Ok(());
            }
            // Other APPn than JFIF and Adobe, and COM.
            0xE2..=0xED | 0xEF | 0xFE => return Ok(()),
            0xEE if segment.starts_with(b"Adobe") && segment.len() > 11 => self.transform = Some(at + 11),
            // DHT, JPG and DAC are between the frame headers.
            0xC4 | 0xC8 | 0xCC => {}
            0xC0..=0xCF => self.frame = Some(Frame::parse(marker, segment, max_pixels)?),
            SOS => self.check_scan(segment)?,
            _ => {}
        }
        self.essence.extend_from_slice(raw);
        if marker == 0xE0 && segment.starts_with(b"JFIF\0") && segment.len() > 5 {
            // libjpeg-turbo warns about all versions but 1.
            self.essence[at + 5] = 1;
        }
        Ok(())
    }

    /// Checks a scan header (B.2.3) against the limit and marks its components as present.
    fn check_scan(&mut self, header: &[u8]) -> Result<(), PhotoProblem> {
        self.scans += 1;
        if self.scans > MAX_SCANS {
            let detail = format!("the JPEG file has more than the {MAX_SCANS} scans allowed");
            return Err(PhotoProblem::new(reason::TOO_MANY_SCANS, detail));
        }
        let frame = self.frame.as_mut().ok_or_else(|| damaged("the order of segments"))?;
        let count = header.first().map_or(0, |&count| usize::from(count));
        let components = header.get(1..=count * 2).ok_or_else(|| damaged("a scan header"))?;
        frame.missing.retain(|id| !components.chunks_exact(2).any(|it| it[0] == *id));
        Ok(())
    }

    /// The file, if the photo is whole.
    fn whole(mut self) -> Result<Jpeg, PhotoProblem> {
        let frame = self.frame.filter(|_| self.scans > 0);
        let frame = frame.ok_or_else(|| undecodable("the JPEG file holds no picture"))?;
        if !frame.missing.is_empty() {
            return Err(PhotoProblem::new(reason::TRUNCATED, "the JPEG file ends before all its components"));
        }
        if let Some(transform) = self.transform.map(|at| &mut self.essence[at]) {
            // What libjpeg-turbo takes unknown transforms for, with a warning.
            *transform = match (frame.components, *transform) {
                (_, 0) => 0,
                (4, _) => 2,
                _ => 1,
            };
        }
        Ok(Jpeg { width_px: frame.width_px, height_px: frame.height_px, exif: self.exif, essence: self.essence })
    }
}

impl Frame {
    fn parse(marker: u8, segment: &[u8], max_pixels: u64) -> Result<Self, PhotoProblem> {
        let &[precision, h0, h1, w0, w1, _, ref components @ ..] = segment else {
            return Err(damaged("the frame header"));
        };
        let (width_px, height_px) = (u16::from_be_bytes([w0, w1]).into(), u16::from_be_bytes([h0, h1]).into());
        check_size(width_px, height_px, max_pixels)?;
        let coding = match marker {
            0xC0..=0xC2 if precision == 8 => None,
            0xC0..=0xC2 => Some(format!("{precision} bits per channel")),
            0xC9 | 0xCA => Some("arithmetic coding".to_owned()),
            0xC3 | 0xCB => Some("lossless coding".to_owned()),
            _ => Some("hierarchical coding".to_owned()),
        };
        if let Some(coding) = coding {
            return Err(undecodable(format!("the JPEG file has {coding}, which is not supported")));
        }
        let missing: Vec<u8> = components.chunks_exact(3).map(|it| it[0]).collect();
        Ok(Self { width_px, height_px, components: missing.len(), missing })
    }
}

/// Converts inverted CMYK, as Adobe's programs store it, to RGB as Pillow does: no colour profiles.
fn rgb_of_inks(pixels: &[u8]) -> Vec<u8> {
    let product = |a: u8, b: u8| {
        let product = u32::from(a) * u32::from(b) + 128;
        ((product >> 8) + product) >> 8
    };
    pixels.chunks_exact(4).flat_map(|it| [0, 1, 2].map(|c| it[3] - product(255 - it[c], it[3]) as u8)).collect()
}
