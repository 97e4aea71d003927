//! The two matrix products of [`crate::product`] on bf16: an instruction multiplies pairs of neighbouring numbers.

use super::token::{Avx512Bf16, rounded};
use super::vector::PairVector;
use crate::activation::Finish;
use crate::element::Element;
use crate::lines::Bias;
use crate::maps::Source;
use crate::product::{FOLDED, tile_widths, vectors};
use crate::simd::{Job, Simd, Stored, Vector};
use crate::x86::{Of8, Of16};

/// A matrix of weights in pairs of rows, tile by tile of columns.
pub(super) struct PackedPairs {
    /// `[depth / 2, width, 2]` for each tile; `[depth / 4, 8, 4]` for one of 8 columns, in the order [`FOLDED`].
    weights: Vec<u16>,
    depth: usize,
    /// Columns of each of the two outputs.
    outputs: [usize; 2],
    /// Columns of each tile.
    widths: Vec<usize>,
}

impl PackedPairs {
    /// Packs the matrix whose element in row k and column n is `tensor[rows[k] + columns[n]]`; rows without a position
    /// are zero. The columns belong to one or two outputs; no tile straddles them.
    pub(super) fn new(
        token: Avx512Bf16,
        tensor: &[f32],
        scale: f32,
        rows: &[Option<usize>],
        outputs: [&[usize]; 2],
    ) -> Self {
        let widths: Vec<usize> = outputs.iter().flat_map(|it| tile_widths(true, it.len())).collect();
        assert!(rows.len().is_multiple_of(4), "channels come in fours");
        let columns = outputs.concat();
        // All at once: this way several are rounded by one instruction.
        let halves = token.instructions().run(Rounded { tensor, scale });
        let mut weights = vec![0; rows.len() * columns.len()];
        let (mut tiles, mut packed) = (&columns[..], &mut weights[..]);
        for &width in &widths {
            let (tile, others) = tiles.split_at(width);
            tiles = others;
            let (to, others) = packed.split_at_mut(rows.len() * width);
            packed = others;
            match width {
                8 => pack::<4>(&halves, rows, &FOLDED.map(|at| tile[at]), to),
                _ => pack::<2>(&halves, rows, tile, to),
            }
        }
        Self { weights, depth: rows.len(), outputs: outputs.map(<[usize]>::len), widths }
    }
}

/// Packs a tile, `N` rows at a time: `[rows / N, columns, N]`.
fn pack<const N: usize>(halves: &[u16], rows: &[Option<usize>], columns: &[usize], to: &mut [u16]) {
    for (rows, to) in rows.as_chunks::<N>().0.iter().zip(to.chunks_exact_mut(N * columns.len())) {
        let to = to.as_chunks_mut::<N>().0.iter_mut().zip(columns);
        // Side by side, as those of a 1x1 convolution are: moved as one.
        match rows[0] {
            Some(first) if rows.iter().zip(first..).all(|(row, place)| *row == Some(place)) => {
                to.for_each(|(to, column)| to.copy_from_slice(&halves[first + column..][..N]));
            }
            _ => to.for_each(|(to, column)| *to = rows.map(|row| row.map_or(0, |row| halves[row + column]))),
        }
    }
}

/// The nearest bf16 numbers, times `scale`.
struct Rounded<'a> {
    tensor: &'a [f32],
    scale: f32,
}

impl Job for Rounded<'_> {
    type Output = Vec<u16>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<u16> {
        let mut halves = vec![0; self.tensor.len()];
        let (numbers, rest) = self.tensor.as_chunks::<8>();
        let (to, rest_to) = halves.as_chunks_mut::<8>();
        for (numbers, to) in numbers.iter().zip(to) {
            let numbers = S::Eight::of(simd.eight(), numbers);
            u16::put(numbers.times(numbers.all(self.scale)), to);
        }
        for (number, to) in rest.iter().zip(rest_to) {
            *to = rounded(number * self.scale);
        }
        halves
    }
}

/// `output[p * (width + gap) + n] = finish(bias(p, n) + sum over k of input(p, k) * weights(k, n))`; see
/// [`RowProduct`](crate::product::RowProduct).
pub(super) struct Row<'a> {
    pub(super) token: Avx512Bf16,
    pub(super) sources: &'a [Source<'a, u16>],
    pub(super) weights: &'a PackedPairs,
    pub(super) bias: Bias<'a>,
    pub(super) pixels: usize,
    pub(super) finish: Finish<'a, u16>,
    /// Elements between the outputs of a pixel and those of the next.
    pub(super) gap: usize,
}

/// A tile of columns of a [`Row`].
struct Tile<'a> {
    row: &'a Row<'a>,
    weights: &'a [u16],
    bias: Bias<'a>,
    finish: Finish<'a, u16>,
    output_stride: usize,
}

impl Row<'_> {
    /// Writes the outputs that share the columns.
    pub(super) fn product<E: Element>(&self, outputs: [&mut [E]; 2]) {
        let (weights, pixels, widths) = (self.weights, self.pixels, self.weights.outputs);
        assert_eq!(weights.depth, self.sources.iter().map(|it| it.run).sum::<usize>());
        assert!(self.sources.iter().all(|it| it.holds(pixels) && it.run.is_multiple_of(4)));
        assert!(self.bias.fits(widths[0] + widths[1]));
        assert!(widths[1] == 0 || self.gap == 0);
        assert_eq!(outputs[0].len() + self.gap, pixels * (widths[0] + self.gap));
        assert_eq!(outputs[1].len(), pixels * widths[1]);
        assert!(self.finish.is_bare() || widths[1] == 0 && self.finish.fits(outputs[0].len()));
        let [first_output, second_output] = outputs;
        let (mut first, mut rest) = (0, &weights.weights[..]);
        for &width in &weights.widths {
            let (tile, others) = rest.split_at(weights.depth * width);
            rest = others;
            let part = usize::from(first >= widths[0]);
            let column = first - part * widths[0];
            let output = if part == 0 { &mut first_output[column..] } else { &mut second_output[column..] };
            let tile = Tile {
                row: self,
                weights: tile,
                bias: self.bias.starting_at(first),
                finish: self.finish.map(|it| &it[column..]),
                output_stride: widths[part] + self.gap,
            };
            first += width;
            assert!(column + width <= widths[part], "no tile straddles the outputs");
            // SAFETY: the token proves that the processor has the instructions, and the lengths were checked.
            unsafe {
                match width {
                    64 => tile.blocks::<E, 4, 5>(output),
                    32 => tile.blocks::<E, 2, 10>(output),
                    16 => tile.blocks::<E, 1, 20>(output),
                    _ => tile.blocks::<E, 0, 20>(output),
                }
            }
        }
    }
}

impl Tile<'_> {
    /// Blocks of `P` pixels, for `N` vectors of 16 columns, or 0 for 8 columns; the last one overlaps the previous one if the
    /// row is not a multiple of `P`.
    ///
    /// # Safety
    /// The processor has AVX-512-BF16, as the row's token proves; lengths as [`Row::product`] checks them.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn blocks<E: Element, const N: usize, const P: usize>(&self, output: &mut [E]) {
        let pixels = self.row.pixels;
        // SAFETY: all P pixels from `start` on, or the one pixel, are within the rows and the output.
        unsafe {
            if pixels < P {
                for pixel in 0..pixels {
                    self.block::<E, N, 1>(pixel, output);
                }
                return;
            }
            for start in (0..pixels).step_by(P) {
                self.block::<E, N, P>(start.min(pixels - P), output);
            }
        }
    }

    /// # Safety
    /// As above, and `start + P <= pixels`.
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn block<E: Element, const N: usize, const P: usize>(&self, start: usize, output: &mut [E]) {
        // SAFETY: as promised by the caller.
        unsafe {
            match N {
                0 => self.block_of_8::<E, P>(start, output),
                _ => self.block_of_16s::<E, N, P>(start, output),
            }
        }
    }

    /// # Safety
    /// As above.
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn block_of_16s<E: Element, const N: usize, const P: usize>(&self, start: usize, output: &mut [E]) {
        let (row, token) = (self.row, self.row.token);
        // SAFETY: as promised by the caller; the tile has depth / 2 x N vectors of pairs.
        unsafe {
            let mut sums = first_sums::<Of16, N, P>(Of16::token_of(token), self.bias, start);
            let mut weights = self.weights.as_ptr();
            for source in row.sources {
                let input = source.elements.as_ptr().add(start * source.stride);
                // With a constant stride the pixels are fixed offsets from one address.
                weights = match source.stride {
                    8 => add_pairs::<N, P, 8>(token, &mut sums, input, source, weights),
                    16 => add_pairs::<N, P, 16>(token, &mut sums, input, source, weights),
                    32 => add_pairs::<N, P, 32>(token, &mut sums, input, source, weights),
                    64 => add_pairs::<N, P, 64>(token, &mut sums, input, source, weights),
                    128 => add_pairs::<N, P, 128>(token, &mut sums, input, source, weights),
                    _ => add_pairs::<N, P, 0>(token, &mut sums, input, source, weights),
                };
            }
            for (p, sums) in sums.into_iter().enumerate() {
                for (n, sum) in sums.into_iter().enumerate() {
                    let place = (start + p) * self.output_stride + n * Of16::LANES;
                    self.finish.of(sum, place).store_as(token, output.as_mut_ptr().add(place));
                }
            }
        }
    }

    /// For 8 columns, which are half a vector: each has two lanes, for the two pairs of four neighbours, that are added in
    /// the end.
    ///
    /// # Safety
    /// As above.
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn block_of_8<E: Element, const P: usize>(&self, start: usize, output: &mut [E]) {
        let (row, token) = (self.row, self.row.token);
        // SAFETY: as promised by the caller; the tile has depth / 4 vectors of pairs.
        unsafe {
            let mut sums = [Of16::splat(Of16::token_of(token), 0.0); P];
            let mut weights = self.weights.as_ptr();
            for source in row.sources {
                let input = source.elements.as_ptr().add(start * source.stride);
                weights = match source.stride {
                    8 => add_fours::<P, 8>(token, &mut sums, input, source, weights),
                    16 => add_fours::<P, 16>(token, &mut sums, input, source, weights),
                    _ => add_fours::<P, 0>(token, &mut sums, input, source, weights),
                };
            }
            let bias = Of8::of(Of8::token_of(token), self.bias.all);
            for (p, sum) in sums.into_iter().enumerate() {
                self.put_8(start + p, sum, bias, output);
            }
            if let Some((pixel, other)) = self.bias.other_of(start, P) {
                let bias = Of8::of(Of8::token_of(token), other);
                for (p, sum) in sums.into_iter().enumerate() {
                    if p == pixel {
                        self.put_8(start + p, sum, bias, output);
                    }
                }
            }
        }
    }
}

impl Tile<'_> {
    /// Writes the 8 outputs of a pixel.
    ///
    /// # Safety
    /// The processor has AVX-512-BF16; the pixel is in the output.
    #[inline(always)]
    unsafe fn put_8<E: Element>(&self, pixel: usize, sum: Of16, bias: Of8, output: &mut [E]) {
        let (token, place) = (self.row.token, pixel * self.output_stride);
        // SAFETY: as promised by the caller.
        unsafe {
            let sum = sum.folded(token).plus(bias);
            self.finish.of(sum, place).store_as(token, output.as_mut_ptr().add(place));
        }
    }
}

/// Adds what `P` pixels read from a source, the first of them at `input`, times weights; returns where the weights go on.
///
/// # Safety
/// The processor has AVX-512-BF16; the elements of all pixels and their weights can be read.
#[inline(always)]
unsafe fn add_pairs<const N: usize, const P: usize, const STRIDE: usize>(
    token: Avx512Bf16,
    sums: &mut [[Of16; N]; P],
    mut input: *const u16,
    source: &Source<'_, u16>,
    mut weights: *const u16,
) -> *const u16 {
    let stride = if STRIDE == 0 { source.stride } else { STRIDE };
    for _ in 0..source.run / 2 {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let pairs: [_; N] = std::array::from_fn(|n| Of16::pairs(token, weights.add(2 * n * Of16::LANES)));
            for (p, sums) in sums.iter_mut().enumerate() {
                let input = Of16::splat_pair(token, input.add(p * stride).cast::<u32>().read_unaligned());
                for (sum, pairs) in sums.iter_mut().zip(pairs) {
                    *sum = sum.plus_dot(token, input, pairs);
                }
            }
            weights = weights.add(2 * N * Of16::LANES);
            input = input.add(2);
        }
    }
    weights
}

/// The same for 8 columns.
///
/// # Safety
/// As above.
#[inline(always)]
unsafe fn add_fours<const P: usize, const STRIDE: usize>(
    token: Avx512Bf16,
    sums: &mut [Of16; P],
    mut input: *const u16,
    source: &Source<'_, u16>,
    mut weights: *const u16,
) -> *const u16 {
    let stride = if STRIDE == 0 { source.stride } else { STRIDE };
    for _ in 0..source.run / 4 {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let pairs = Of16::pairs(token, weights);
            for (p, sum) in sums.iter_mut().enumerate() {
                let four = input.add(p * stride).cast::<u64>().read_unaligned();
                *sum = sum.plus_dot(token, Of16::splat_two(token, four), pairs);
            }
            weights = weights.add(2 * Of16::LANES);
            input = input.add(4);
        }
    }
    weights
}

/// What an [`OuterPairs`] reads.
pub(super) struct Grid<'a> {
    /// Rows of pairs of pixels, left and right: `[pixels, channels, 2]`.
    pub(super) rows: &'a [[&'a [u16]; 2]],
    /// Numbers from one pair of pixels to the next, left and right.
    pub(super) strides: [usize; 2],
    /// Pairs of pixels.
    pub(super) pairs: usize,
    /// Rows of the result.
    pub(super) depth: usize,
    /// Columns of the result, a multiple of 8.
    pub(super) columns: usize,
}

/// `sums[k * columns + n] += sum over pixels p of left(p, k) * right(p, n)`, two pixels at a time; see
/// [`OuterProduct`](crate::product::OuterProduct).
pub(super) struct OuterPairs<'a> {
    pub(super) token: Avx512Bf16,
    pub(super) grid: Grid<'a>,
    /// `[depth, columns]`.
    pub(super) sums: &'a mut [f32],
}

impl OuterPairs<'_> {
    pub(super) fn add(mut self) {
        let Grid { rows, strides, pairs, depth, columns } = self.grid;
        assert!(self.sums.len() == depth * columns && pairs > 0);
        for [left, right] in rows {
            assert!(left.len() >= (pairs - 1) * strides[0] + 2 * depth);
            assert!(right.len() >= (pairs - 1) * strides[1] + 2 * columns);
        }
        let mut column = 0;
        while column < columns {
            // SAFETY: the token proves that the processor has the instructions, the lengths were checked, and these many
            // columns are left.
            unsafe {
                // Up to 24 sums, as many as the registers can hold.
                column += match columns - column {
                    64.. => self.strip::<Of16, 64, 4, 6, 4>(column),
                    48 => self.strip::<Of16, 48, 3, 8, 4>(column),
                    32.. => self.strip::<Of16, 32, 2, 12, 8>(column),
                    24 => self.strip::<Of16, 24, 2, 12, 8>(column),
                    16.. => self.strip::<Of16, 16, 1, 24, 8>(column),
                    8.. => self.strip::<Of8, 8, 1, 24, 9>(column),
                    _ => unreachable!("columns are multiples of 8"),
                };
            }
        }
    }

    /// Processes all rows of the result for `W` columns in `N` vectors, the last of which may overlap the one before it: `K`
    /// rows at a time, then `L`, then one. Returns the number of columns.
    ///
    /// # Safety
    /// The processor has AVX-512-BF16, as the token proves, and `W` columns are left.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn strip<V: PairVector, const W: usize, const N: usize, const K: usize, const L: usize>(
        &mut self,
        column: usize,
    ) -> usize {
        let (mut k, depth) = (0, self.grid.depth);
        // SAFETY: k + the rows processed at once never exceeds the depth.
        unsafe {
            while k + K <= depth {
                self.block::<V, W, N, K>(k, column);
                k += K;
            }
            while k + L <= depth {
                self.block::<V, W, N, L>(k, column);
                k += L;
            }
            while k < depth {
                self.block::<V, W, N, 1>(k, column);
                k += 1;
            }
        }
        W
    }

    /// # Safety
    /// `k + K <= depth` and `column + W <= columns`; everything else was checked by `add`.
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn block<V: PairVector, const W: usize, const N: usize, const K: usize>(&mut self, k: usize, column: usize) {
        let (token, grid) = (self.token, &self.grid);
        let offset = |n: usize| (n * V::LANES).min(W - V::LANES);
        let mut sums = [[V::splat(V::token_of(token), 0.0); N]; K];
        for [left, right] in grid.rows {
            // SAFETY: the last pair reads the left row up to (pairs - 1) * stride + 2 (k + K), and the right row likewise.
            unsafe {
                let mut left = left.as_ptr().add(2 * k);
                let mut right = right.as_ptr().add(2 * column);
                for _ in 0..grid.pairs {
                    let factors: [V::Pairs; N] = std::array::from_fn(|n| V::pairs(token, right.add(2 * offset(n))));
                    for (k, sums) in sums.iter_mut().enumerate() {
                        let left = V::splat_pair(token, left.add(2 * k).cast::<u32>().read_unaligned());
                        for (sum, factor) in sums.iter_mut().zip(factors) {
                            *sum = sum.plus_dot(token, left, factor);
                        }
                    }
                    left = left.wrapping_add(grid.strides[0]);
                    right = right.wrapping_add(grid.strides[1]);
                }
            }
        }
        for (at, sums) in (k..).zip(sums) {
            for (n, sum) in sums.into_iter().enumerate() {
                let place = &mut self.sums[at * self.grid.columns + column + offset(n)..][..V::LANES];
                let mut lanes = [0.0; 16];
                sum.put(&mut lanes);
                // Without those of the vector before it.
                let new = n * V::LANES - offset(n)..V::LANES;
                place[new.clone()].iter_mut().zip(&lanes[new]).for_each(|(place, lane)| *place += lane);
            }
        }
    }
}

/// Adds the sum over pixels of each column of pairs of pixels, `[pixels / 2, columns, 2]`, to `sums`.
pub(super) fn add_columns(token: Avx512Bf16, pairs: &[u16], sums: &mut [f32]) {
    // SAFETY: the token proves that the processor has the instructions.
    unsafe { add_columns_with(token, pairs, sums) }
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn add_columns_with(token: Avx512Bf16, pairs: &[u16], sums: &mut [f32]) {
    /// Sums that do not wait for each other.
    const CHAINS: usize = 4;
    let columns = sums.len();
    // 1 in bf16, twice.
    let ones = Of8::splat_pair(token, 0x3f80_3f80);
    for (at, sums) in sums.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let mut chains = [Of8::splat(Of8::token_of(token), 0.0); CHAINS];
        for pixels in pairs.chunks(CHAINS * 2 * columns) {
            for (pixels, sum) in pixels.chunks_exact(2 * columns).zip(&mut chains) {
                let (eight, _) = pixels[16 * at..].split_first_chunk::<16>().expect("columns are multiples of 8");
                // SAFETY: there are 8 pairs.
                *sum = sum.plus_dot(token, ones, unsafe { Of8::pairs(token, eight.as_ptr()) });
            }
        }
        chains.into_iter().fold(Of8::of(Of8::token_of(token), sums), Of8::plus).put(sums);
    }
}

/// Each pixel of a row, `[columns, channels]`, beside the one to its right, the last beside zeros: `[columns, channels, 2]`.
pub(super) fn pair_neighbours(_: Avx512Bf16, row: &[u16], channels: usize, to: &mut [u16]) {
    let (inner, last) = to.split_at_mut(2 * (row.len() - channels));
    // SAFETY: the token proves that the processor has the instructions.
    unsafe {
        pair(row, &row[channels..], inner);
        pair(&row[row.len() - channels..], &vec![0; channels], last);
    }
}

/// Each pixel of an even column of a row, `[columns, channels]`, beside the one to its right, or beside zeros:
/// `[columns / 2 rounded up, channels, 2]`.
pub(super) fn pair_columns(_: Avx512Bf16, row: &[u16], channels: usize, to: &mut [u16]) {
    let whole = row.len() / (2 * channels) * 2 * channels;
    let (row, last) = row.split_at(whole);
    let (to, last_to) = to.split_at_mut(whole);
    // SAFETY: the token proves that the processor has the instructions.
    unsafe {
        if channels == 8 {
            pair_eights(row, to);
        } else {
            for (pixels, to) in row.chunks_exact(2 * channels).zip(to.chunks_exact_mut(2 * channels)) {
                pair(&pixels[..channels], &pixels[channels..], to);
            }
        }
        pair(last, &vec![0; channels], last_to);
    }
}

/// Elements of two slices in turns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn pair(left: &[u16], right: &[u16], to: &mut [u16]) {
    for ((to, &left), &right) in to.as_chunks_mut::<2>().0.iter_mut().zip(left).zip(right) {
        *to = [left, right];
    }
}

/// Pixels of 8 channels, two and two, their elements in turns: a call for each would take longer than the work.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn pair_eights(row: &[u16], to: &mut [u16]) {
    for (to, pixels) in to.as_chunks_mut::<16>().0.iter_mut().zip(row.as_chunks::<16>().0) {
        *to = std::array::from_fn(|at| pixels[at / 2 + at % 2 * 8]);
    }
}

/// The sums of `P` pixels from `start` on before anything is added to the bias.
#[inline(always)]
fn first_sums<V: Vector, const N: usize, const P: usize>(token: V::Token, bias: Bias<'_>, start: usize) -> [[V; N]; P] {
    let mut sums = [vectors(token, bias.all); P];
    if let Some((pixel, other)) = bias.other_of(start, P) {
        let other = vectors(token, other);
        for (p, sums) in sums.iter_mut().enumerate() {
            if p == pixel {
                *sums = other;
            }
        }
    }
    sums
}
