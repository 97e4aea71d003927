//! A row of pixels times weights: u8 times i8 into i32.

use std::arch::x86_64::{
    __m256, __m512, __m512i, _mm256_add_epi32, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cvtepi32_ps,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_shuffle_ps,
    _mm512_castsi512_si256, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_extracti64x4_epi64, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_max_ps, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setzero_ps,
    _mm512_setzero_si512,
};

use super::parameters::Avx512Vnni;
use crate::element::Element;
use crate::lines::Bias;
use crate::maps::Source;
use crate::product::tile_widths;
use crate::quantised::{FINE, QUAD};

/// Where a layer's output goes.
pub enum Output<'a> {
    /// 8-bit integers.
    U8(&'a mut [u8]),
    /// bf16, as raw bits.
    Bf16(&'a mut [u16]),
    /// f32.
    F32(&'a mut [f32]),
}

impl<'a> From<&'a mut [u8]> for Output<'a> {
    fn from(elements: &'a mut [u8]) -> Self {
        Self::U8(elements)
    }
}

impl<'a> From<&'a mut [u16]> for Output<'a> {
    fn from(elements: &'a mut [u16]) -> Self {
        Self::Bf16(elements)
    }
}

impl<'a> From<&'a mut [f32]> for Output<'a> {
    fn from(elements: &'a mut [f32]) -> Self {
        Self::F32(elements)
    }
}

/// `output[p * (outputs + gap) + n] = max(0, scale[n] * (sum over k of input(p, k) * weights(k, n)) + bias(p, n))`, with
/// input(p, ..) the elements that pixel p reads from all sources, one after the other.
pub(super) struct Row<'a> {
    pub(super) token: Avx512Vnni,
    pub(super) sources: &'a [Source<'a, u8>],
    /// See [`Int8Parameters`](super::parameters::Int8Parameters).
    pub(super) weights: &'a [i8],
    pub(super) scale: &'a [f32],
    pub(super) bias: Bias<'a>,
    pub(super) pixels: usize,
    /// Elements between the outputs of a pixel and those of the next.
    pub(super) gap: usize,
}

impl Row<'_> {
    pub(super) fn product<E: Element>(&self, output: &mut [E]) {
        let Self { weights, pixels, gap, .. } = *self;
        let depth: usize = self.sources.iter().map(|it| it.run).sum();
        let outputs = self.scale.len();
        let is_fine = weights.len() == 2 * depth * outputs;
        assert!(is_fine || weights.len() == depth * outputs);
        assert!(self.bias.fits(outputs));
        assert!(self.sources.iter().all(|it| it.holds(pixels) && it.run.is_multiple_of(2 * QUAD)));
        assert_eq!(output.len() + gap, pixels * (outputs + gap));
        let (mut first, mut rest) = (0, weights);
        let coarse = tile_widths(true, outputs).filter(|_| !is_fine);
        let fine = std::iter::repeat_n(8, outputs / 8).filter(|_| is_fine);
        for width in coarse.chain(fine) {
            let (tile, others) = rest.split_at(weights.len() / outputs * width);
            rest = others;
            // SAFETY: the token proves that the processor has the instructions, and the lengths were checked.
            unsafe {
                match width {
                    _ if is_fine => self.tile::<E, Of8Fine, 1, 20>(tile, first, output),
                    64 => self.tile::<E, Of16, 4, 5>(tile, first, output),
                    32 => self.tile::<E, Of16, 2, 10>(tile, first, output),
                    16 => self.tile::<E, Of16, 1, 20>(tile, first, output),
                    _ => self.tile::<E, Of8, 1, 20>(tile, first, output),
                }
            }
            first += width;
        }
    }

    /// A tile of columns; the last block of pixels overlaps the one before it if there are pixels left.
    ///
    /// # Safety
    /// The processor has AVX-512-VNNI, as `self.token` proves; lengths as [`Row::product`] checks them.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")]
    unsafe fn tile<E: Element, V: QuadVector, const N: usize, const P: usize>(
        &self,
        tile: &[i8],
        first: usize,
        output: &mut [E],
    ) {
        // SAFETY: as promised by the caller.
        unsafe {
            if self.pixels < P {
                for pixel in 0..self.pixels {
                    self.block::<E, V, N, 1>(tile, first, pixel, output);
                }
                return;
            }
            for start in (0..self.pixels).step_by(P) {
                self.block::<E, V, N, P>(tile, first, start.min(self.pixels - P), output);
            }
        }
    }

    /// # Safety
    /// As above; `P` pixels follow from `start` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")]
    unsafe fn block<E: Element, V: QuadVector, const N: usize, const P: usize>(
        &self,
        tile: &[i8],
        first: usize,
        start: usize,
        output: &mut [E],
    ) {
        // SAFETY: all P pixels from `start` on are within the sources and the output; the tile has depth / 4 x N vectors of
        // quads, and scale and bias have as many elements as the output has channels.
        unsafe {
            let mut sums = [[V::zero(self.token); N]; P];
            let mut weights = tile.as_ptr();
            for source in self.sources {
                let input = source.elements.as_ptr().add(start * source.stride);
                // A stride that is known leaves no address to be computed.
                weights = match source.stride {
                    8 => quads::<V, N, P, 8>(&mut sums, input, source, weights),
                    16 => quads::<V, N, P, 16>(&mut sums, input, source, weights),
                    32 => quads::<V, N, P, 32>(&mut sums, input, source, weights),
                    64 => quads::<V, N, P, 64>(&mut sums, input, source, weights),
                    128 => quads::<V, N, P, 128>(&mut sums, input, source, weights),
                    256 => quads::<V, N, P, 256>(&mut sums, input, source, weights),
                    _ => quads::<V, N, P, 0>(&mut sums, input, source, weights),
                };
            }
            let scales = self.floats::<V, N>(self.scale, first);
            let biases = self.floats::<V, N>(self.bias.all, first);
            for (p, sums) in sums.into_iter().enumerate() {
                self.put(start + p, first, sums, [scales, biases], output);
            }
            if let Some((pixel, others)) = self.bias.other_of(start, P) {
                let biases = self.floats::<V, N>(others, first);
                for (p, sums) in sums.into_iter().enumerate() {
                    if p == pixel {
                        self.put(start + p, first, sums, [scales, biases], output);
                    }
                }
            }
        }
    }
}

impl Row<'_> {
    /// The numbers of a tile of columns.
    ///
    /// # Safety
    /// The processor has AVX-512-VNNI; the tile is within `from`.
    #[inline(always)]
    unsafe fn floats<V: QuadVector, const N: usize>(&self, from: &[f32], first: usize) -> [V::Floats; N] {
        // SAFETY: as promised by the caller.
        std::array::from_fn(|n| unsafe { V::floats(self.token, from.as_ptr().add(first + n * V::LANES)) })
    }

    /// Writes the outputs of a pixel for a tile of columns, by their scales and biases.
    ///
    /// # Safety
    /// The processor has AVX-512-VNNI; the pixel and the tile are within the output.
    #[inline(always)]
    unsafe fn put<E: Element, V: QuadVector, const N: usize>(
        &self,
        pixel: usize,
        first: usize,
        sums: [V; N],
        [scales, biases]: [[V::Floats; N]; 2],
        output: &mut [E],
    ) {
        for (n, sum) in sums.into_iter().enumerate() {
            let place = pixel * (self.scale.len() + self.gap) + first + n * V::LANES;
            // SAFETY: as promised by the caller.
            unsafe { sum.store(scales[n], biases[n], output.as_mut_ptr().add(place)) }
        }
    }
}

/// Adds what `P` pixels read from a source, the first of them at `input`; returns where the weights go on.
///
/// # Safety
/// The processor has AVX-512-VNNI; the elements of all pixels and their weights can be read.
#[inline(always)]
unsafe fn quads<V: QuadVector, const N: usize, const P: usize, const STRIDE: usize>(
    sums: &mut [[V; N]; P],
    mut input: *const u8,
    source: &Source<'_, u8>,
    mut weights: *const i8,
) -> *const i8 {
    let stride = if STRIDE == 0 { source.stride } else { STRIDE };
    for _ in 0..source.run / V::INPUTS {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let columns: [V::Quads; N] = std::array::from_fn(|n| sums[0][n].quads(weights.add(n * V::WEIGHTS)));
            for (p, sums) in sums.iter_mut().enumerate() {
                let pixel = sums[0].splat(input.add(p * stride));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = sum.plus_dot(pixel, column);
                }
            }
            weights = weights.add(N * V::WEIGHTS);
            input = input.add(V::INPUTS);
        }
    }
    weights
}

/// Sums in i32 of products of quads of u8 and i8; made from a token only.
trait QuadVector: Copy {
    /// Outputs.
    const LANES: usize;
    /// Elements of a pixel that are multiplied at once.
    const INPUTS: usize = QUAD;
    /// Their weights.
    const WEIGHTS: usize = Self::INPUTS * Self::LANES;
    type Quads: Copy;
    type Floats: Copy;

    fn zero(token: Avx512Vnni) -> Self;
    /// # Safety
    /// `LANES` numbers can be read from `from`.
    unsafe fn floats(token: Avx512Vnni, from: *const f32) -> Self::Floats;
    /// # Safety
    /// `WEIGHTS` numbers can be read from `from`.
    unsafe fn quads(self, from: *const i8) -> Self::Quads;
    /// # Safety
    /// `INPUTS` elements can be read from `from`.
    unsafe fn splat(self, from: *const u8) -> Self::Quads;
    /// Adds the products of u8 and i8.
    fn plus_dot(self, unsigned: Self::Quads, signed: Self::Quads) -> Self;
    /// Writes max(0, scale x sum + bias).
    ///
    /// # Safety
    /// `LANES` elements can be written to `to`.
    unsafe fn store<E: Element>(self, scale: Self::Floats, bias: Self::Floats, to: *mut E);
}

#[derive(Clone, Copy)]
struct Of16(__m512i);

/// The sums of 8 outputs over even and over odd quads, in pairs of lanes.
#[derive(Clone, Copy)]
struct Of8(__m512i);

/// The sums of 8 outputs with the upper halves of their weights, then with the lower ones.
#[derive(Clone, Copy)]
struct Of8Fine(__m512i);

impl QuadVector for Of16 {
    const LANES: usize = 16;
    type Quads = __m512i;
    type Floats = __m512;

    #[inline(always)]
    fn zero(_: Avx512Vnni) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm512_setzero_si512() })
    }
    #[inline(always)]
    unsafe fn floats(_: Avx512Vnni, from: *const f32) -> __m512 {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn quads(self, from: *const i8) -> __m512i {
        // SAFETY: a vector was made from a token; the caller guarantees the pointer.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(self, from: *const u8) -> __m512i {
        // SAFETY: a vector was made from a token; the caller guarantees the pointer.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    fn plus_dot(self, unsigned: __m512i, signed: __m512i) -> Self {
        // SAFETY: a vector was made from a token.
        Self(unsafe { _mm512_dpbusd_epi32(self.0, unsigned, signed) })
    }
    #[inline(always)]
    unsafe fn store<E: Element>(self, scale: __m512, bias: __m512, to: *mut E) {
        // SAFETY: a vector was made from a token; the caller guarantees the pointer.
        unsafe {
            let values = _mm512_fmadd_ps(_mm512_cvtepi32_ps(self.0), scale, bias);
            E::store_16(to, _mm512_max_ps(values, _mm512_setzero_ps()));
        }
    }
}

impl QuadVector for Of8 {
    const LANES: usize = 8;
    const INPUTS: usize = 2 * QUAD;
    type Quads = __m512i;
    type Floats = __m256;

    #[inline(always)]
    fn zero(token: Avx512Vnni) -> Self {
        Self(Of16::zero(token).0)
    }
    #[inline(always)]
    unsafe fn floats(_: Avx512Vnni, from: *const f32) -> __m256 {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn quads(self, from: *const i8) -> __m512i {
        // SAFETY: guaranteed by the caller.
        unsafe { Of16(self.0).quads(from) }
    }
    #[inline(always)]
    unsafe fn splat(self, from: *const u8) -> __m512i {
        // SAFETY: a vector was made from a token; the caller guarantees the pointer.
        unsafe { _mm512_set1_epi64(from.cast::<i64>().read_unaligned()) }
    }
    #[inline(always)]
    fn plus_dot(self, unsigned: __m512i, signed: __m512i) -> Self {
        Self(Of16(self.0).plus_dot(unsigned, signed).0)
    }
    #[inline(always)]
    unsafe fn store<E: Element>(self, scale: __m256, bias: __m256, to: *mut E) {
        // SAFETY: a vector was made from a token; the caller guarantees the pointer.
        unsafe {
            // The order in which the columns are packed is that of these lanes.
            let low = _mm256_castsi256_ps(_mm512_castsi512_si256(self.0));
            let high = _mm256_castsi256_ps(_mm512_extracti64x4_epi64::<1>(self.0));
            let even = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(low, high));
            let odd = _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(low, high));
            let values = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(even, odd)), scale, bias);
            E::store_8(to, _mm256_max_ps(values, _mm256_setzero_ps()));
        }
    }
}

impl QuadVector for Of8Fine {
    const LANES: usize = 8;
    const WEIGHTS: usize = 2 * QUAD * Self::LANES;
    type Quads = __m512i;
    type Floats = __m256;

    #[inline(always)]
    fn zero(token: Avx512Vnni) -> Self {
        Self(Of16::zero(token).0)
    }
    #[inline(always)]
    unsafe fn floats(token: Avx512Vnni, from: *const f32) -> __m256 {
        // SAFETY: guaranteed by the caller.
        unsafe { Of8::floats(token, from) }
    }
    #[inline(always)]
    unsafe fn quads(self, from: *const i8) -> __m512i {
        // SAFETY: guaranteed by the caller.
        unsafe { Of16(self.0).quads(from) }
    }
    #[inline(always)]
    unsafe fn splat(self, from: *const u8) -> __m512i {
        // SAFETY: guaranteed by the caller.
        unsafe { Of16(self.0).splat(from) }
    }
    #[inline(always)]
    fn plus_dot(self, unsigned: __m512i, signed: __m512i) -> Self {
        Self(Of16(self.0).plus_dot(unsigned, signed).0)
    }
    #[inline(always)]
    unsafe fn store<E: Element>(self, scale: __m256, bias: __m256, to: *mut E) {
        // SAFETY: a vector was made from a token; the caller guarantees the pointer.
        unsafe {
            let upper = _mm256_cvtepi32_ps(_mm512_castsi512_si256(self.0));
            let lower = _mm256_cvtepi32_ps(_mm512_extracti64x4_epi64::<1>(self.0));
            let sums = _mm256_fmadd_ps(upper, _mm256_set1_ps(FINE as f32), lower);
            let values = _mm256_fmadd_ps(sums, scale, bias);
            E::store_8(to, _mm256_max_ps(values, _mm256_setzero_ps()));
        }
    }
}
