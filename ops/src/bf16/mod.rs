//! The layers of the network for prediction in bfloat16: half the bytes and twice the multiplications per instruction.
//!
//! Maps are bf16, stored as u16; sums are f32. An instruction multiplies pairs of neighbouring channels, so photos with
//! 3 channels get a fourth one of zeros. The last layer outputs f32. Requires AVX-512-BF16.

use std::arch::x86_64::{
    __m128bh, __m128i, __m256, __m256bh, __m256i, __m512, __m512bh, __m512i, _mm_loadu_si128, _mm_storeu_si128,
    _mm256_add_ps, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_cvtneps_pbh, _mm256_dpbf16_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_max_ps, _mm256_min_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_slli_epi32, _mm256_storeu_ps, _mm256_storeu_si256, _mm512_add_ps, _mm512_castsi512_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_max_ps,
    _mm512_min_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps,
};
use std::mem::transmute;

use crate::activation::Activation;
use crate::convolution::taps;
use crate::maps::{Band, Photos, Shape, cut, interleave, padded_row};
use crate::pointwise::chunk_pixels;
use crate::pool::pooled_shape;
use crate::product::tile_widths;
use crate::spread::{spread_items, with_scratch};
use crate::up::up_shape;
use crate::{Avx512, Spread};

/// Taps of a kernel.
const TAPS: usize = 9;

/// The proof that the processor has AVX-512 and AVX-512-BF16. Only [`Avx512Bf16::detect`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Bf16(());

impl Avx512Bf16 {
    /// Asks the processor.
    #[must_use]
    pub fn detect() -> Option<Self> {
        (Avx512::detect().is_some() && is_x86_feature_detected!("avx512bf16")).then_some(Self(()))
    }
}

/// The nearest bf16, ties to even.
fn rounded(value: f32) -> u16 {
    half::bf16::from_f32(value).to_bits()
}

/// Element type of a layer's output.
pub trait Element: Copy + Send + Sync + 'static {
    /// # Safety
    /// 8 elements can be written to `to`.
    #[doc(hidden)]
    unsafe fn store_8(token: Avx512Bf16, to: *mut Self, values: __m256);
    /// # Safety
    /// 16 elements can be written to `to`.
    #[doc(hidden)]
    unsafe fn store_16(token: Avx512Bf16, to: *mut Self, values: __m512);
}

impl Element for u16 {
    #[inline(always)]
    unsafe fn store_8(_: Avx512Bf16, to: *mut Self, values: __m256) {
        // SAFETY: the token proves that the processor has the instructions, the caller guarantees the pointer, and bf16
        // vectors are plain bits.
        unsafe { _mm_storeu_si128(to.cast(), transmute::<__m128bh, __m128i>(_mm256_cvtneps_pbh(values))) }
    }
    #[inline(always)]
    unsafe fn store_16(_: Avx512Bf16, to: *mut Self, values: __m512) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(to.cast(), transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values))) }
    }
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn store_8(_: Avx512Bf16, to: *mut Self, values: __m256) {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
        unsafe { _mm256_storeu_ps(to, values) }
    }
    #[inline(always)]
    unsafe fn store_16(_: Avx512Bf16, to: *mut Self, values: __m512) {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
        unsafe { _mm512_storeu_ps(to, values) }
    }
}

/// Maps that a layer reads.
#[derive(Debug, Clone, Copy)]
pub enum Bf16Maps<'a> {
    /// Feature maps.
    Features(&'a [u16]),
    /// Photos: if the number of channels is odd, a channel of zeros is added.
    Photos(Photos<'a>),
}

/// Integers up to 255 are exact in bf16: the division by 255 is folded into the weights.
const PHOTO_SCALE: f32 = 1.0 / 255.0;

impl Bf16Maps<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Features(elements) => elements.len(),
            Self::Photos(photos) => photos.bytes.len(),
        }
    }

    /// A pixel beyond the edge: `own` real channels, the rest of `held` zeros.
    fn edge(&self, [own, held]: [usize; 2]) -> Vec<u16> {
        let mut edge = vec![0; held];
        if let Self::Photos(Photos { fill, .. }) = self {
            assert!(fill.is_empty() || fill.len() == own);
            edge.iter_mut().zip(*fill).for_each(|(edge, fill)| *edge = rounded(fill * 255.0));
        }
        edge
    }
}

/// Copies pixels with `own` channels to ones with `held`; the rest are zeros.
fn copy_photo([own, held]: [usize; 2], pixels: &[u8], to: &mut [u16]) {
    for (to, pixel) in to.chunks_exact_mut(held).zip(pixels.chunks_exact(own)) {
        to.fill(0);
        for (to, &element) in to.iter_mut().zip(pixel) {
            // The upper half of an f32.
            *to = (f32::from(element).to_bits() >> 16) as u16;
        }
    }
}

/// A matrix of weights in pairs of rows, tile by tile of columns.
struct PackedPairs {
    /// `[depth / 2, width, 2]` for each tile.
    weights: Vec<u16>,
    depth: usize,
    outputs: usize,
    /// Columns of each tile.
    widths: Vec<usize>,
}

impl PackedPairs {
    /// Packs the matrix whose element in row k and column n is `tensor[rows[k] + columns[n]]`; rows without a position
    /// are zero.
    fn new(tensor: &[f32], scale: f32, rows: &[Option<usize>], columns: &[usize]) -> Self {
        let widths: Vec<usize> = tile_widths(true, columns.len()).collect();
        let element = |row: Option<usize>, column: usize| row.map_or(0, |row| rounded(tensor[row + column] * scale));
        let (pairs, rest) = rows.as_chunks::<2>();
        assert!(rest.is_empty(), "channels come in pairs");
        let mut weights = Vec::with_capacity(rows.len() * columns.len());
        let mut tiles = columns;
        for &width in &widths {
            let (tile, others) = tiles.split_at(width);
            tiles = others;
            for pair in pairs {
                weights.extend(tile.iter().flat_map(|&column| pair.map(|row| element(row, column))));
            }
        }
        Self { weights, depth: rows.len(), outputs: columns.len(), widths }
    }
}

/// `output[p * outputs + n] = activation(bias[n] + sum over k of input(p, k) * weights(k, n)) + residual`; see
/// [`RowProduct`](crate::product::RowProduct).
struct Row<'a> {
    token: Avx512Bf16,
    rows: &'a [&'a [u16]],
    stride: usize,
    run: usize,
    weights: &'a PackedPairs,
    bias: &'a [f32],
    pixels: usize,
    activation: Activation,
    /// `[pixels, outputs]`.
    residual: Option<&'a [u16]>,
}

impl Row<'_> {
    fn product<E: Element>(&self, output: &mut [E]) {
        let weights = self.weights;
        assert_eq!(weights.depth, self.rows.len() * self.run);
        assert!(weights.outputs == self.bias.len() && self.run.is_multiple_of(2));
        assert!(self.rows.iter().all(|row| row.len() >= (self.pixels - 1) * self.stride + self.run));
        assert_eq!(output.len(), self.pixels * weights.outputs);
        assert!(self.residual.is_none_or(|it| it.len() == output.len()));
        let (mut first, mut rest) = (0, &weights.weights[..]);
        for &width in &weights.widths {
            let (tile, others) = rest.split_at(weights.depth * width);
            rest = others;
            // SAFETY: the token proves that the processor has the instructions, and the lengths were checked.
            unsafe {
                match width {
                    64 => self.any_stride::<E, Of16, 4, 5>(tile, first, output),
                    32 => self.any_stride::<E, Of16, 2, 10>(tile, first, output),
                    16 => self.any_stride::<E, Of16, 1, 20>(tile, first, output),
                    _ => self.any_stride::<E, Of8, 1, 20>(tile, first, output),
                }
            }
            first += width;
        }
    }

    /// # Safety
    /// The processor has AVX-512-BF16, as `self.token` proves; lengths as [`Row::product`] checks them.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn any_stride<E: Element, V: PairVector, const N: usize, const P: usize>(
        &self,
        tile: &[u16],
        first: usize,
        output: &mut [E],
    ) {
        // SAFETY: as promised by the caller.
        unsafe {
            if self.pixels < P {
                return self.blocks::<E, V, N, 1, 0>(tile, first, output);
            }
            match self.stride {
                8 => self.blocks::<E, V, N, P, 8>(tile, first, output),
                16 => self.blocks::<E, V, N, P, 16>(tile, first, output),
                32 => self.blocks::<E, V, N, P, 32>(tile, first, output),
                64 => self.blocks::<E, V, N, P, 64>(tile, first, output),
                128 => self.blocks::<E, V, N, P, 128>(tile, first, output),
                _ => self.blocks::<E, V, N, P, 0>(tile, first, output),
            }
        }
    }

    /// # Safety
    /// As above.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn blocks<E: Element, V: PairVector, const N: usize, const P: usize, const STRIDE: usize>(
        &self,
        tile: &[u16],
        first: usize,
        output: &mut [E],
    ) {
        let (token, stride) = (self.token, if STRIDE == 0 { self.stride } else { STRIDE });
        for start in (0..self.pixels).step_by(P) {
            let start = start.min(self.pixels - P);
            // SAFETY: all P pixels from `start` on are within the rows and the output; the tile has depth / 2 x N
            // vectors of pairs.
            unsafe {
                let bias: [V; N] =
                    std::array::from_fn(|n| V::load(token, self.bias.as_ptr().add(first + n * V::LANES)));
                let mut sums = [bias; P];
                let mut weights = tile.as_ptr();
                for row in self.rows {
                    let mut input = row.as_ptr().add(start * stride);
                    for _ in 0..self.run / 2 {
                        let pairs: [V::Pairs; N] =
                            std::array::from_fn(|n| V::pairs(token, weights.add(2 * n * V::LANES)));
                        for (p, sums) in sums.iter_mut().enumerate() {
                            let input = V::splat(token, input.add(p * stride).cast::<u32>().read_unaligned());
                            for (sum, pairs) in sums.iter_mut().zip(pairs) {
                                *sum = sum.plus_dot(input, pairs);
                            }
                        }
                        weights = weights.add(2 * N * V::LANES);
                        input = input.add(2);
                    }
                }
                for (p, sums) in sums.into_iter().enumerate() {
                    for (n, sum) in sums.into_iter().enumerate() {
                        let place = (start + p) * self.weights.outputs + first + n * V::LANES;
                        self.finished(sum, place).store(output.as_mut_ptr().add(place));
                    }
                }
            }
        }
    }
}

impl Row<'_> {
    /// What is written at `place` of the output.
    ///
    /// # Safety
    /// The residual, if there is one, has `LANES` elements from there on.
    #[inline(always)]
    unsafe fn finished<V: PairVector>(&self, sum: V, place: usize) -> V {
        let output = match self.activation {
            Activation::None => sum,
            Activation::Relu => sum.positive(),
            Activation::Relu6 => sum.positive().up_to_6(),
        };
        match self.residual {
            // SAFETY: guaranteed by the caller.
            Some(residual) => unsafe { output.plus_halves(residual.as_ptr().add(place)) },
            None => output,
        }
    }
}

/// Sums in f32 of products of pairs of bf16; like [`Vector`](crate::simd::Vector), made from a token only.
trait PairVector: Copy {
    const LANES: usize;
    type Pairs: Copy;

    /// # Safety
    /// `LANES` numbers can be read from `from`.
    unsafe fn load(token: Avx512Bf16, from: *const f32) -> Self;
    /// # Safety
    /// `2 LANES` numbers can be read from `from`.
    unsafe fn pairs(token: Avx512Bf16, from: *const u16) -> Self::Pairs;
    fn splat(token: Avx512Bf16, pair: u32) -> Self::Pairs;
    fn plus_dot(self, a: Self::Pairs, b: Self::Pairs) -> Self;
    fn positive(self) -> Self;
    fn up_to_6(self) -> Self;
    /// Adds bf16 numbers.
    ///
    /// # Safety
    /// `LANES` numbers can be read from `from`.
    unsafe fn plus_halves(self, from: *const u16) -> Self;
    /// # Safety
    /// `LANES` elements can be written to `to`.
    unsafe fn store<E: Element>(self, to: *mut E);
}

#[derive(Clone, Copy)]
struct Of16(__m512, Avx512Bf16);

#[derive(Clone, Copy)]
struct Of8(__m256, Avx512Bf16);

impl PairVector for Of16 {
    const LANES: usize = 16;
    type Pairs = __m512bh;

    #[inline(always)]
    unsafe fn load(token: Avx512Bf16, from: *const f32) -> Self {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
        Self(unsafe { _mm512_loadu_ps(from) }, token)
    }
    #[inline(always)]
    unsafe fn pairs(_: Avx512Bf16, from: *const u16) -> __m512bh {
        // SAFETY: as above; vectors are plain bits.
        unsafe { transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast())) }
    }
    #[inline(always)]
    fn splat(_: Avx512Bf16, pair: u32) -> __m512bh {
        // SAFETY: the token proves that the processor has the instructions; vectors are plain bits.
        unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair.cast_signed())) }
    }
    #[inline(always)]
    fn plus_dot(self, a: __m512bh, b: __m512bh) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm512_dpbf16_ps(self.0, a, b) }, self.1)
    }
    #[inline(always)]
    fn positive(self) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm512_max_ps(self.0, _mm512_setzero_ps()) }, self.1)
    }
    #[inline(always)]
    fn up_to_6(self) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm512_min_ps(self.0, _mm512_set1_ps(6.0)) }, self.1)
    }
    #[inline(always)]
    unsafe fn plus_halves(self, from: *const u16) -> Self {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
        unsafe {
            let wide = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())));
            Self(_mm512_add_ps(self.0, _mm512_castsi512_ps(wide)), self.1)
        }
    }
    #[inline(always)]
    unsafe fn store<E: Element>(self, to: *mut E) {
        // SAFETY: guaranteed by the caller.
        unsafe { E::store_16(self.1, to, self.0) }
    }
}

impl PairVector for Of8 {
    const LANES: usize = 8;
    type Pairs = __m256bh;

    #[inline(always)]
    unsafe fn load(token: Avx512Bf16, from: *const f32) -> Self {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
        Self(unsafe { _mm256_loadu_ps(from) }, token)
    }
    #[inline(always)]
    unsafe fn pairs(_: Avx512Bf16, from: *const u16) -> __m256bh {
        // SAFETY: as above; vectors are plain bits.
        unsafe { transmute::<__m256i, __m256bh>(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    fn splat(_: Avx512Bf16, pair: u32) -> __m256bh {
        // SAFETY: the token proves that the processor has the instructions; vectors are plain bits.
        unsafe { transmute::<__m256i, __m256bh>(_mm256_set1_epi32(pair.cast_signed())) }
    }
    #[inline(always)]
    fn plus_dot(self, a: __m256bh, b: __m256bh) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm256_dpbf16_ps(self.0, a, b) }, self.1)
    }
    #[inline(always)]
    fn positive(self) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm256_max_ps(self.0, _mm256_setzero_ps()) }, self.1)
    }
    #[inline(always)]
    fn up_to_6(self) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm256_min_ps(self.0, _mm256_set1_ps(6.0)) }, self.1)
    }
    #[inline(always)]
    unsafe fn plus_halves(self, from: *const u16) -> Self {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
        unsafe {
            let wide = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())));
            Self(_mm256_add_ps(self.0, _mm256_castsi256_ps(wide)), self.1)
        }
    }
    #[inline(always)]
    unsafe fn store<E: Element>(self, to: *mut E) {
        // SAFETY: guaranteed by the caller.
        unsafe { E::store_8(self.1, to, self.0) }
    }
}

/// [`convolution`](crate::convolution::convolution) on bf16 maps.
///
/// `shape` is the shape of the first input; `weight` is `[out, channels of all inputs, 3, 3]`.
pub fn bf16_convolution<E: Element>(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    inputs: &[Bf16Maps<'_>],
    [weight, bias]: [&[f32]; 2],
    activation: Activation,
    output: &mut [E],
) {
    assert_eq!(inputs[0].len(), shape.len());
    assert!(inputs.iter().all(|input| input.len().is_multiple_of(shape.pixels())));
    let widths: Vec<usize> = inputs.iter().map(|input| input.len() / shape.pixels()).collect();
    let (out, own) = (bias.len(), widths.iter().sum::<usize>());
    let shape = shape.with_channels(own.next_multiple_of(2));
    let channels = shape.channels;
    assert_eq!(weight.len(), out * own * TAPS);
    assert_eq!(output.len(), shape.pixels() * out);
    let scale = if matches!(inputs[0], Bf16Maps::Photos(_)) { PHOTO_SCALE } else { 1.0 };
    let columns: Vec<usize> = (0..out).map(|n| n * own * TAPS).collect();
    let mut rows: Vec<Option<usize>> = taps(own).map(Some).collect();
    if own < channels {
        rows = rows.chunks_exact(own).flat_map(|pixel| pixel.iter().copied().chain([None])).collect();
    }
    let packed = PackedPairs::new(weight, scale, &rows, &columns);
    let edge = if inputs.len() == 1 { inputs[0].edge([own, channels]) } else { vec![0; channels] };
    let copy = |pixel: usize, to: &mut [u16]| match *inputs {
        [Bf16Maps::Features(maps)] => to.copy_from_slice(&maps[pixel * own..][..to.len()]),
        [Bf16Maps::Photos(photos)] => copy_photo([own, channels], &photos.bytes[pixel * own..], to),
        [Bf16Maps::Features(first), Bf16Maps::Features(second)] => {
            let parts = [(first, widths[0]), (second, widths[1])];
            interleave(&parts.map(|(maps, width)| (&maps[pixel * width..], width)), to);
        }
        _ => unreachable!("there are photos, or one or two maps"),
    };
    let bands = Band::all(shape, spread.threads());
    spread_items(spread, cut(&bands, shape.with_channels(out), output), |index, part| {
        let band = bands[index];
        with_scratch(band.padded_len(shape), |scratch: &mut [u16]| {
            band.pad(shape, &edge, scratch, copy);
            for (row, output) in part.chunks_exact_mut(shape.columns * out).enumerate() {
                let rows = [0, 1, 2].map(|tap| &scratch[(row + tap) * padded_row(shape)..][..padded_row(shape)]);
                let (stride, run, pixels) = (channels, 3 * channels, shape.columns);
                let (weights, residual) = (&packed, None);
                Row { token, rows: &rows, stride, run, weights, bias, pixels, activation, residual }.product(output);
            }
        });
    });
}

/// [`pointwise`](crate::pointwise::pointwise) on bf16 maps.
pub fn bf16_pointwise(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    input: &[u16],
    [weight, bias]: [&[f32]; 2],
    (activation, residual): (Activation, Option<&[u16]>),
    output: &mut [u16],
) {
    let (out, channels) = (bias.len(), shape.channels);
    let output_shape = shape.with_channels(out);
    assert!(input.len() == shape.len() && output.len() == output_shape.len());
    assert!(weight.len() == channels * out && residual.is_none_or(|it| it.len() == output.len()));
    let rows: Vec<Option<usize>> = (0..channels).map(Some).collect();
    let columns: Vec<usize> = (0..out).map(|n| n * channels).collect();
    let weights = PackedPairs::new(weight, 1.0, &rows, &columns);
    let chunk = chunk_pixels(channels);
    let bands = Band::all(shape, spread.threads());
    spread_items(spread, cut(&bands, output_shape, output), |index, part| {
        let band = bands[index];
        let residual = residual.map(|it| band.of(output_shape, it));
        let inputs = band.of(shape, input).chunks(chunk * channels);
        for (at, (input, output)) in inputs.zip(part.chunks_mut(chunk * out)).enumerate() {
            let residual = residual.map(|it| &it[at * chunk * out..][..output.len()]);
            let (rows, weights, pixels) = (&[input], &weights, output.len() / out);
            Row { token, rows, stride: channels, run: channels, weights, bias, pixels, activation, residual }
                .product(output);
        }
    });
}

/// [`max_pool`](crate::pool::max_pool) on bf16 maps without negative elements, whose order is that of their bits.
pub fn bf16_max_pool(_: Avx512Bf16, spread: &dyn Spread, shape: Shape, input: &[u16], output: &mut [u16]) {
    let pooled = pooled_shape(shape);
    assert!(input.len() == shape.len() && output.len() == pooled.len());
    let windows = pooled.with_channels(4 * pooled.channels);
    let bands = Band::all(pooled, spread.threads());
    spread_items(spread, cut(&bands, pooled, output), |index, part| {
        let rows = bands[index].of(windows, input).chunks_exact(2 * shape.row_len());
        for (rows, output) in rows.zip(part.chunks_exact_mut(pooled.row_len())) {
            // SAFETY: the token proves that the processor has the instructions.
            unsafe { pool_row(rows, shape.channels, output) }
        }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn pool_row(rows: &[u16], channels: usize, output: &mut [u16]) {
    let (upper, lower) = rows.split_at(rows.len() / 2);
    let windows = upper.chunks_exact(2 * channels).zip(lower.chunks_exact(2 * channels));
    for (output, (upper, lower)) in output.chunks_exact_mut(channels).zip(windows) {
        for (channels, output) in (0..).step_by(8).zip(output.as_chunks_mut::<8>().0) {
            let corner = |of: &[u16], at: usize| -> [u16; 8] { of[at..at + 8].try_into().expect("it is 8 long") };
            let right = upper.len() / 2 + channels;
            let corners =
                [corner(upper, channels), corner(upper, right), corner(lower, channels), corner(lower, right)];
            *output = std::array::from_fn(|at| corners.iter().map(|it| it[at]).max().expect("there are four"));
        }
    }
}

/// [`up_convolution`](crate::up::up_convolution) on bf16 maps.
pub fn bf16_up_convolution(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    input: &[u16],
    [weight, bias]: [&[f32]; 2],
    output: &mut [u16],
) {
    let (out, channels) = (bias.len(), shape.channels);
    assert_eq!(input.len(), shape.len());
    assert_eq!(weight.len(), channels * out * 4);
    assert_eq!(output.len(), up_shape(shape, out).len());
    let columns: Vec<usize> = (0..2 * out).map(|n| n % out * 4 + n / out).collect();
    let packed = [0, 1].map(|row| {
        let rows: Vec<Option<usize>> = (0..channels).map(|k| Some(k * out * 4 + 2 * row)).collect();
        PackedPairs::new(weight, 1.0, &rows, &columns)
    });
    let bias = [bias, bias].concat();
    let bands = Band::all(shape, spread.threads());
    spread_items(spread, cut(&bands, shape.with_channels(4 * out), output), |index, part| {
        let rows = bands[index].of(shape, input).chunks_exact(shape.row_len());
        for (input, outputs) in rows.zip(part.chunks_exact_mut(4 * shape.columns * out)) {
            for (weights, output) in packed.iter().zip(outputs.chunks_exact_mut(2 * shape.columns * out)) {
                let (stride, run, pixels) = (channels, channels, shape.columns);
                let (rows, bias, activation, residual) = (&[input], &bias, Activation::None, None);
                Row { token, rows, stride, run, weights, bias, pixels, activation, residual }.product(output);
            }
        }
    });
}
