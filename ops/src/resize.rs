//! Scaling of pictures, by the crate `fast_image_resize`. Its functions are generic: they are compiled with this crate, for
//! speed in every profile, because every photo passes through them several times.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

/// How pixels are interpolated. All filters but [`Filter::Nearest`] are as wide as the reduction requires (antialiasing), as in
/// Pillow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// A triangle filter.
    Bilinear,
    /// Keys' cubic convolution with a = -0.5 (1981).
    Bicubic,
    /// A sinc, windowed by the wider one of three lobes (Lanczos).
    Lanczos,
    /// The pixel at the centre.
    Nearest,
}

/// A part of a picture, and the size that it is scaled to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// Width and height of the picture, in pixels.
    pub from: (u32, u32),
    /// Left, top, width and height of the part, in pixels; within the picture.
    pub part: [f64; 4],
    /// Width and height of the result, in pixels.
    pub to: (u32, u32),
    /// How pixels are interpolated.
    pub filter: Filter,
}

impl Scaling {
    /// Scales a picture of one channel: `[height, width]` to `[height, width]`.
    ///
    /// # Panics
    /// If the picture does not have the pixels of its size, or the part is not within it.
    #[must_use]
    pub fn grey(&self, pixels: &[u8]) -> Vec<u8> {
        self.resize::<U8>(pixels)
    }

    /// Scales a picture of three channels: `[height, width, 3]` to `[height, width, 3]`.
    ///
    /// # Panics
    /// As [`Scaling::grey`].
    #[must_use]
    pub fn rgb(&self, pixels: &[u8]) -> Vec<u8> {
        self.resize::<U8x3>(pixels)
    }

    fn resize<P: PixelTrait>(&self, pixels: &[u8]) -> Vec<u8> {
        const WHOLE: &str = "a picture has all bytes of its pixels";
        let Self { from, part: [left, top, width, height], to, filter } = *self;
        let algorithm = match filter {
            Filter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Filter::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
            Filter::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
            Filter::Nearest => ResizeAlg::Nearest,
        };
        let source = TypedImageRef::<P>::from_buffer(from.0, from.1, pixels).expect(WHOLE);
        let mut scaled = vec![0; to.0 as usize * to.1 as usize * P::size()];
        let mut target = TypedImage::<P>::from_buffer(to.0, to.1, &mut scaled).expect(WHOLE);
        let options = ResizeOptions::new().resize_alg(algorithm).crop(left, top, width, height);
        Resizer::new().resize_typed(&source, &mut target, &options).expect("the part is within the picture");
        scaled
    }
}
