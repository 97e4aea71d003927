//! The two matrix products that all convolutions are built from, computed in registers.
//!
//! In NHWC a pixel's channels are contiguous, and so are those of its neighbours in the row: for one pixel, a kernel
//! row of a 3x3 convolution reads one run of 3 x channels numbers of the input. A convolution is therefore a sum of
//! matrix products whose left matrix is the input as it lies in memory, with overlapping rows.
//!
//! - [`RowProduct`]: a row of pixels times weights: forward convolutions, and gradients of their inputs.
//! - [`OuterProduct`]: the sum over pixels of input times output gradient: gradients of weights.

use super::activation::Finish;
use super::maps::Source;
use super::simd::{Job, Simd, Vector};

/// A matrix of weights in the order in which [`RowProduct`] reads it: one tile of columns after another.
#[derive(Debug, PartialEq)]
pub(super) struct Packed {
    weights: Vec<f32>,
    depth: usize,
    /// Columns of each of the two outputs.
    outputs: [usize; 2],
    /// Columns of each tile.
    widths: Vec<usize>,
}

impl Packed {
    /// A column of the matrix.
    pub(super) fn column(&self, mut column: usize) -> impl Iterator<Item = f32> {
        let mut tile = &self.weights[..];
        let mut width = 1;
        for &it in &self.widths {
            width = it;
            if column < it {
                break;
            }
            column -= it;
            tile = &tile[self.depth * it..];
        }
        tile[column..].iter().step_by(width).take(self.depth).copied()
    }
}

/// Positions of a matrix's elements in a tensor of weights: row k, column n is at `rows[k] + columns[n]`.
pub(super) struct Places {
    pub(super) rows: Vec<usize>,
    pub(super) columns: Vec<usize>,
}

/// Packs a matrix.
pub(super) struct Pack<'a> {
    pub(super) tensor: &'a [f32],
    pub(super) places: Places,
    /// Number of columns that go into the first of two outputs; all of them if there is only one output.
    pub(super) first_output: usize,
}

impl Job for Pack<'_> {
    type Output = Packed;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Packed {
        let Self { tensor, places: Places { rows, columns }, first_output } = self;
        // A tile must not straddle the two outputs.
        let outputs = [first_output, columns.len() - first_output];
        let widths: Vec<usize> = outputs.into_iter().flat_map(|it| tile_widths(S::IS_512, it)).collect();
        let mut weights = Vec::with_capacity(rows.len() * columns.len());
        let mut tiles = &columns[..];
        for &width in &widths {
            let (tile, rest) = tiles.split_at(width);
            tiles = rest;
            for row in &rows {
                weights.extend(tile.iter().map(|column| tensor[row + column]));
            }
        }
        Packed { weights, depth: rows.len(), outputs, widths }
    }
}

/// The columns of a tile of 8 whose sums are in pairs of lanes of a vector of 16, in the order in which the pairs are added up:
/// those of lanes 0 to 3, 8 to 11, 4 to 7 and 12 to 15.
pub(super) const FOLDED: [usize; 8] = [0, 1, 4, 5, 2, 3, 6, 7];

/// The widths of the tiles that a multiple of 8 columns are cut into, the widest first.
pub(super) fn tile_widths(is_512: bool, mut columns: usize) -> impl Iterator<Item = usize> {
    let widths: &[usize] = if is_512 { &[64, 32, 16, 8] } else { &[16, 8] };
    std::iter::from_fn(move || {
        let width = *widths.iter().find(|&&width| width <= columns)?;
        columns -= width;
        Some(width)
    })
}

/// For each pixel p of a row and each column n of the weights,
/// `output[p * width + n] = finish(bias[n] + sum over k of input(p, k) * weights(k, n))`, where input(p, ..) are the elements
/// that pixel p reads from all sources, one after the other.
pub(super) struct RowProduct<'a> {
    pub(super) sources: &'a [Source<'a, f32>],
    pub(super) weights: &'a Packed,
    /// `[columns]`.
    pub(super) bias: &'a [f32],
    pub(super) pixels: usize,
    pub(super) finish: Finish<'a>,
    /// The outputs that share the columns: two if two maps were read as one.
    pub(super) outputs: [&'a mut [f32]; 2],
}

impl Job for RowProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { sources, weights, pixels, .. } = self;
        assert_eq!(weights.depth, sources.iter().map(|it| it.run).sum::<usize>());
        assert!(sources.iter().all(|it| it.holds(pixels)));
        let widths = weights.outputs;
        assert_eq!(self.bias.len(), widths[0] + widths[1]);
        assert_eq!(self.outputs.each_ref().map(|it| it.len()), widths.map(|it| pixels * it));
        assert!(self.finish.is_bare() || widths[1] == 0 && self.finish.fits(self.outputs[0].len()));
        let (mut first, mut rest) = (0, &weights.weights[..]);
        for &width in &weights.widths {
            let (tile, others) = rest.split_at(weights.depth * width);
            rest = others;
            let part = usize::from(first >= widths[0]);
            let column = first - part * widths[0];
            let tile = Tile {
                sources,
                weights: tile,
                bias: &self.bias[first..first + width],
                pixels,
                output_stride: widths[part],
                finish: self.finish.map(|it| &it[column..]),
            };
            first += width;
            // 20 sums each: enough to hide the latency of a multiply-add, and the block sizes divide 400, 200, 100, 50
            // and 25.
            let output = &mut self.outputs[part][column..];
            match (S::IS_512, width) {
                (true, 64) => tile.blocks::<S::Wide, 4, 5, 2>(simd.wide(), output),
                (true, 32) => tile.blocks::<S::Wide, 2, 10, 5>(simd.wide(), output),
                (true, 16) => tile.blocks::<S::Wide, 1, 20, 10>(simd.wide(), output),
                (true, _) => tile.blocks::<S::Eight, 1, 20, 10>(simd.eight(), output),
                (false, 16) => tile.blocks::<S::Eight, 2, 5, 2>(simd.eight(), output),
                (false, _) => tile.blocks::<S::Eight, 1, 10, 5>(simd.eight(), output),
            }
        }
    }
}

/// A tile of `N` vectors of columns.
struct Tile<'a> {
    sources: &'a [Source<'a, f32>],
    weights: &'a [f32],
    bias: &'a [f32],
    pixels: usize,
    output_stride: usize,
    finish: Finish<'a>,
}

impl Tile<'_> {
    /// Blocks of `P` pixels, and one of `H`, its half, where that is enough for the rest; the last one overlaps the one before
    /// if there are too few pixels for it.
    #[inline(always)]
    fn blocks<V: Vector, const N: usize, const P: usize, const H: usize>(&self, token: V::Token, output: &mut [f32]) {
        let mut start = 0;
        // SAFETY: all pixels of each block are in the row.
        unsafe {
            while start + P <= self.pixels {
                self.block::<V, N, P>(token, start, output);
                start += P;
            }
            match self.pixels - start {
                0 => {}
                rest if rest <= H && self.pixels >= H => self.block::<V, N, H>(token, self.pixels - H, output),
                _ if self.pixels >= P => self.block::<V, N, P>(token, self.pixels - P, output),
                _ => (start..self.pixels).for_each(|pixel| self.block::<V, N, 1>(token, pixel, output)),
            }
        }
    }

    /// # Safety
    /// `start + P <= pixels`; everything else was checked by [`RowProduct::run`].
    #[inline(always)]
    unsafe fn block<V: Vector, const N: usize, const P: usize>(
        &self,
        token: V::Token,
        start: usize,
        output: &mut [f32],
    ) {
        let mut sums = [vectors(token, self.bias); P];
        let mut weights = self.weights.as_ptr();
        for source in self.sources {
            // SAFETY: pixel start + P - 1 reads up to (pixels - 1) * stride + run, which is within the row; the weights of all
            // sources are depth vectors of the tile's width.
            unsafe {
                let input = source.elements.as_ptr().add(start * source.stride);
                // With a constant stride the pixels are fixed offsets from one address.
                weights = match source.stride {
                    8 => add_products::<V, N, P, 8>(token, &mut sums, input, source, weights),
                    16 => add_products::<V, N, P, 16>(token, &mut sums, input, source, weights),
                    32 => add_products::<V, N, P, 32>(token, &mut sums, input, source, weights),
                    64 => add_products::<V, N, P, 64>(token, &mut sums, input, source, weights),
                    128 => add_products::<V, N, P, 128>(token, &mut sums, input, source, weights),
                    _ => add_products::<V, N, P, 0>(token, &mut sums, input, source, weights),
                };
            }
        }
        for (p, sums) in sums.into_iter().enumerate() {
            for (n, sum) in sums.into_iter().enumerate() {
                let place = (start + p) * self.output_stride + n * V::LANES;
                self.finish.of(sum, place).put(&mut output[place..]);
            }
        }
    }
}

/// `N` vectors in a row.
#[inline(always)]
pub(super) fn vectors<V: Vector, const N: usize>(token: V::Token, from: &[f32]) -> [V; N] {
    std::array::from_fn(|n| V::of(token, &from[n * V::LANES..]))
}

/// Adds what `P` pixels read from a source, the first of them at `input`, times weights; returns where the weights go on.
///
/// # Safety
/// The elements of all pixels and their weights can be read.
#[inline(always)]
unsafe fn add_products<V: Vector, const N: usize, const P: usize, const STRIDE: usize>(
    token: V::Token,
    sums: &mut [[V; N]; P],
    mut input: *const f32,
    source: &Source<'_, f32>,
    mut weights: *const f32,
) -> *const f32 {
    let stride = if STRIDE == 0 { source.stride } else { STRIDE };
    for _ in 0..source.run {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let weight: [V; N] = std::array::from_fn(|n| V::load(token, weights.add(n * V::LANES)));
            for (p, sums) in sums.iter_mut().enumerate() {
                let input = V::splat(token, *input.add(p * stride));
                for (sum, weight) in sums.iter_mut().zip(weight) {
                    *sum = input.times_plus(weight, *sum);
                }
            }
            weights = weights.add(N * V::LANES);
            input = input.add(1);
        }
    }
    weights
}

/// `sums[k * columns + n] += sum over pixels p of left(p, k) * right(p, n)` for several pairs of rows, where left(p,
/// ..) is `left[p * left_stride..]`, and right likewise.
pub(super) struct OuterProduct<'a> {
    /// Rows of pixels, left and right.
    pub(super) rows: &'a [[&'a [f32]; 2]],
    /// Numbers from one pixel to the next, left and right.
    pub(super) strides: [usize; 2],
    pub(super) pixels: usize,
    /// Rows of the result.
    pub(super) depth: usize,
    /// Columns of the result.
    pub(super) columns: usize,
    /// `[depth, columns]`, row-major.
    pub(super) sums: &'a mut [f32],
}

impl Job for OuterProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        assert_eq!(self.sums.len(), self.depth * self.columns);
        assert!(self.pixels > 0);
        for [left, right] in self.rows {
            assert!(left.len() >= (self.pixels - 1) * self.strides[0] + self.depth);
            assert!(right.len() >= (self.pixels - 1) * self.strides[1] + self.columns);
        }
        let mut column = 0;
        while column < self.columns {
            // Up to 24 sums: as many as the registers can hold.
            column += match (S::IS_512, self.columns - column) {
                (true, 64..) => self.strip::<S::Wide, 4, 6, 4>(simd.wide(), column),
                (true, 48) => self.strip::<S::Wide, 3, 8, 4>(simd.wide(), column),
                (true, 32..) => self.strip::<S::Wide, 2, 12, 8>(simd.wide(), column),
                (true, 24) => self.strip::<S::Eight, 3, 8, 4>(simd.eight(), column),
                (true, 16..) => self.strip::<S::Wide, 1, 24, 8>(simd.wide(), column),
                (true, 8..) => self.strip::<S::Eight, 1, 24, 9>(simd.eight(), column),
                (false, 24) => self.strip::<S::Eight, 3, 4, 4>(simd.eight(), column),
                (false, 16..) => self.strip::<S::Eight, 2, 6, 4>(simd.eight(), column),
                (false, 8..) => self.strip::<S::Eight, 1, 12, 9>(simd.eight(), column),
                _ => unreachable!("columns are multiples of 8"),
            };
        }
    }
}

impl OuterProduct<'_> {
    /// Processes all rows of the result for `N` vectors of columns: `K` rows at a time, then `L`, then one. Returns the
    /// number of columns.
    #[inline(always)]
    fn strip<V: Vector, const N: usize, const K: usize, const L: usize>(
        &mut self,
        token: V::Token,
        column: usize,
    ) -> usize {
        let mut k = 0;
        // SAFETY: k + the rows processed at once never exceeds the depth, and N vectors of columns are left.
        unsafe {
            while k + K <= self.depth {
                self.block::<V, N, K>(token, k, column);
                k += K;
            }
            while k + L <= self.depth {
                self.block::<V, N, L>(token, k, column);
                k += L;
            }
            while k < self.depth {
                self.block::<V, N, 1>(token, k, column);
                k += 1;
            }
        }
        N * V::LANES
    }

    /// # Safety
    /// `k + K <= depth` and `column + N * LANES <= columns`; everything else was checked by `run`.
    #[inline(always)]
    unsafe fn block<V: Vector, const N: usize, const K: usize>(&mut self, token: V::Token, k: usize, column: usize) {
        let mut sums = [[V::splat(token, 0.0); N]; K];
        for [left, right] in self.rows {
            // SAFETY: the last pixel reads the left row up to (pixels - 1) * stride + k + K, and the right row
            // likewise.
            unsafe {
                let mut left = left.as_ptr().add(k);
                let mut right = right.as_ptr().add(column);
                for _ in 0..self.pixels {
                    let factors: [V; N] = std::array::from_fn(|n| V::load(token, right.add(n * V::LANES)));
                    for (k, sums) in sums.iter_mut().enumerate() {
                        let left = V::splat(token, *left.add(k));
                        for (sum, factor) in sums.iter_mut().zip(factors) {
                            *sum = left.times_plus(factor, *sum);
                        }
                    }
                    left = left.wrapping_add(self.strides[0]);
                    right = right.wrapping_add(self.strides[1]);
                }
            }
        }
        for (at, sums) in (k..).zip(sums) {
            for (n, sum) in sums.into_iter().enumerate() {
                let place = &mut self.sums[at * self.columns + column + n * V::LANES..];
                V::of(token, place).plus(sum).put(place);
            }
        }
    }
}

/// Adds the sum over pixels of each column of `maps`, `[pixels, columns]`, to `sums`.
pub(super) struct ColumnSums<'a> {
    pub(super) maps: &'a [f32],
    /// `[columns]`.
    pub(super) sums: &'a mut [f32],
}

impl Job for ColumnSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for pixel in self.maps.chunks_exact(self.sums.len()) {
            for (sum, element) in self.sums.iter_mut().zip(pixel) {
                *sum += element;
            }
        }
    }
}
