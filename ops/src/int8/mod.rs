//! The layers of a U-Net for prediction in 8-bit integers: a quarter of the bytes of f32, and four multiplications per lane
//! of an instruction.
//!
//! Maps are u8: an element q means (q - zero point) x scale, with one scale and one zero point for a map. Weights are i8,
//! [packed](crate::quantised::pack); sums are i32 and exact. What is written is `max(0, scale[n] sum + bias[n])`, which
//! is a layer's `ReLU` in the unit of its output: rounded to the nearest u8 if that is u8, else in f32 or bf16. Scales of the
//! inputs, their zero points and the layer's own bias are folded into `scale` and `bias`. Requires AVX-512-VNNI.

use std::arch::x86_64::{
    __m256, __m512, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_fmadd_ps, _mm256_set1_ps, _mm256_slli_epi32,
    _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_fmadd_ps, _mm512_set1_ps, _mm512_slli_epi32,
};
use std::arch::x86_64::{_mm_loadu_si128, _mm256_loadu_si256};

use crate::Spread;
use crate::bf16::photos::copy_photo;
use crate::bf16::pool::max_pool_of_bits;
use crate::element::Element;
use crate::maps::{Band, Photos, Shape, Source, cut, padded_row};
use crate::quantised::held_channels;
use crate::spread::{spread_items, with_scratch};

mod parameters;
mod row;
mod up_skip;

pub use parameters::{Avx512Vnni, Int8Parameters};
pub use row::Output;
use row::Row;
pub use up_skip::{UpSkipParameters, int8_up_skip_convolution};

/// Maps that a convolution reads.
#[derive(Debug, Clone, Copy)]
pub enum Int8Maps<'a> {
    /// Feature maps and their zero point, which lies beyond their edge.
    Features(&'a [u8], u8),
    /// Photos; channels of zeros are added up to a multiple of 8. What lies beyond the edge is rounded to a whole byte.
    Photos(Photos<'a>),
}

impl Int8Maps<'_> {
    fn elements(&self) -> &[u8] {
        match self {
            Self::Features(elements, _) => elements,
            Self::Photos(photos) => photos.bytes,
        }
    }

    /// A pixel beyond the edge: `own` real channels, the rest of `held` zeros.
    fn edge(&self, own: usize, held: usize) -> Vec<u8> {
        match self {
            Self::Features(_, zero) => vec![*zero; held],
            Self::Photos(Photos { fill, .. }) => {
                assert!(fill.is_empty() || fill.len() == own);
                let mut edge = vec![0; held];
                edge.iter_mut().zip(*fill).for_each(|(edge, fill)| *edge = (fill * 255.0).round() as u8);
                edge
            }
        }
    }
}

/// A 3x3 convolution with `ReLU`; `weights` are `[3, 3, held channels, out]`, packed.
#[inline(never)]
pub fn int8_convolution(
    token: Avx512Vnni,
    spread: &dyn Spread,
    shape: Shape,
    input: Int8Maps<'_>,
    parameters: Int8Parameters<'_>,
    output: Output<'_>,
) {
    match output {
        Output::U8(output) => convolve(token, spread, shape, input, parameters, output),
        Output::Bf16(output) => convolve(token, spread, shape, input, parameters, output),
        Output::F32(output) => convolve(token, spread, shape, input, parameters, output),
    }
}

fn convolve<E: Element>(
    token: Avx512Vnni,
    spread: &dyn Spread,
    shape: Shape,
    input: Int8Maps<'_>,
    parameters: Int8Parameters<'_>,
    output: &mut [E],
) {
    let (own, out) = (shape.channels, parameters.scale.len());
    let elements = input.elements();
    assert_eq!(elements.len(), shape.len());
    assert_eq!(output.len(), shape.pixels() * out);
    let shape = shape.with_channels(held_channels(own));
    let channels = shape.channels;
    let edge = input.edge(own, channels);
    let copy = |pixel: usize, to: &mut [u8]| copy_photo([own, channels], &elements[pixel * own..], to, |byte| byte);
    let Int8Parameters { weights, scale, bias } = parameters;
    let bands = Band::all(shape, spread.threads());
    spread_items(spread, cut(&bands, shape.with_channels(out), output), |index, part| {
        let band = bands[index];
        with_scratch(band.padded_len(shape), |scratch: &mut [u8]| {
            band.pad(shape, &edge, scratch, copy);
            for (row, output) in part.chunks_exact_mut(shape.columns * out).enumerate() {
                let sources = [0, 1, 2].map(|tap| Source {
                    elements: &scratch[(row + tap) * padded_row(shape)..][..padded_row(shape)],
                    stride: channels,
                    run: 3 * channels,
                });
                let (pixels, bias) = (shape.columns, bias.into());
                Row { token, sources: &sources, weights, scale, bias, pixels, gap: 0 }.product(output);
            }
        });
    });
}

/// [`max_pool`](crate::pool::max_pool) on u8 maps.
pub fn int8_max_pool(token: Avx512Vnni, spread: &dyn Spread, shape: Shape, input: &[u8], output: &mut [u8]) {
    max_pool_of_bits(token.bf16(), spread, shape, input, output);
}

/// u8 maps from bf16 ones, as raw bits, of the same number of elements, a multiple of 8: the nearest whole number to
/// `factor x + zero`, within 0 to 255.
pub fn int8_narrow(_: Avx512Vnni, spread: &dyn Spread, input: &[u16], factor: f32, zero: u8, output: &mut [u8]) {
    assert!(input.len() == output.len() && input.len().is_multiple_of(8));
    let parts = output.chunks_mut(NARROWED_ELEMENTS).collect();
    spread_items(spread, parts, |index, part: &mut [u8]| {
        let input = &input[index * NARROWED_ELEMENTS..][..part.len()];
        // SAFETY: the token proves that the processor has the instructions, and the lengths are the same multiple of 8.
        unsafe { narrow(input, factor, f32::from(zero), part) }
    });
}

/// Elements of a task of [`int8_narrow`].
const NARROWED_ELEMENTS: usize = 1 << 16;

/// # Safety
/// The processor has the instructions; both slices have the same multiple of 8 elements.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn narrow(input: &[u16], factor: f32, zero: f32, output: &mut [u8]) {
    let wide = input.len() - input.len() % 16;
    for at in (0..wide).step_by(16) {
        // SAFETY: 16 elements follow in both slices.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(input.as_ptr().add(at).cast()));
            let values: __m512 = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits));
            let values = _mm512_fmadd_ps(values, _mm512_set1_ps(factor), _mm512_set1_ps(zero));
            u8::store_16(output.as_mut_ptr().add(at), values);
        }
    }
    if wide < input.len() {
        // SAFETY: 8 elements follow in both slices.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(input.as_ptr().add(wide).cast()));
            let values: __m256 = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits));
            let values = _mm256_fmadd_ps(values, _mm256_set1_ps(factor), _mm256_set1_ps(zero));
            u8::store_8(output.as_mut_ptr().add(wide), values);
        }
    }
}
