//! 3x3 convolutions with a quarter of the multiplications: 4x4 pixels at a time by Winograd's F(4x4, 3x3), after Lavin and Gray,
//! Fast Algorithms for Convolutional Neural Networks (CVPR 2016).
//!
//! A tile of 4x4 pixels reads 6x6. Sums of them, the tile's numbers at 6x6 points, are multiplied by the kernel's at the same
//! points; sums of the 36 products are the pixels. With channels last all but the products goes vector by vector, and each point
//! is a matrix product of many tiles.

use super::activation::{Activation, Finish};
use super::convolution::{Inputs, TAPS};
use super::maps::{Band, Maps, Shape, Source, cut};
use super::product::{Pack, Packed, Places, RowProduct};
use super::simd::{Job, Simd, Vector};
use super::spread::{spread_items, with_scratch};
use super::{Instructions, Workers};

/// Rows and columns of a tile.
const TILE: usize = 4;
/// Points of a row or column of a tile, and pixels that it reads.
const POINTS: usize = 6;
/// Points of a tile.
pub const TILE_POINTS: usize = POINTS * POINTS;
/// The points are 0, plus and minus [`NEAR`], plus and minus [`FAR`], and infinity. That one is the reciprocal of the other keeps
/// the sums of about the same size: by row or column their error is 1.3 times that of a plain sum, where the usual points 1 and 2
/// have 2.3.
const NEAR: f32 = 2.0 / 3.0;
const FAR: f32 = 3.0 / 2.0;
const NEAR_SQUARE: f32 = 4.0 / 9.0;
const FAR_SQUARE: f32 = 9.0 / 4.0;
/// The sum of the squares.
const SQUARES: f32 = 97.0 / 36.0;
/// The kernel's numbers at each point of a row, as sums of those of its three columns.
const KERNEL: [[f32; 3]; POINTS] = {
    // One over the product of the differences between a point and the others.
    let [near, far] = [-81.0 / 130.0, 8.0 / 65.0];
    [
        [1.0, 0.0, 0.0],
        [near, near * NEAR, near * NEAR_SQUARE],
        [near, -near * NEAR, near * NEAR_SQUARE],
        [far, far * FAR, far * FAR_SQUARE],
        [far, -far * FAR, far * FAR_SQUARE],
        [0.0, 0.0, 1.0],
    ]
};
/// Numbers that are worked on at once: about as many as stay in a core's second-level cache.
const CHUNK_ELEMENTS: usize = 1 << 18;
/// Rows of tiles that are worked on at once at most.
const MAX_LINES: usize = 4;
/// Minimum number of chunks per thread, to balance the load.
const CHUNKS_PER_THREAD: usize = 4;

/// Whether so many channels are convolved faster this way: for few of them the sums take longer than the products.
#[must_use]
pub fn is_worthwhile(channels: usize) -> bool {
    channels >= 16
}

/// A kernel, `[out, in, 3, 3]`, at all points: `[6 x 6, in, out]`.
#[must_use]
pub fn at_points(weight: &[f32], out: usize) -> Vec<f32> {
    let kernels = weight.as_chunks::<TAPS>().0;
    let channels = kernels.len() / out;
    assert_eq!(weight.len(), out * channels * TAPS);
    let mut found = vec![0.0; TILE_POINTS * kernels.len()];
    for place in 0..kernels.len() {
        let kernel = &kernels[place % out * channels + place / out];
        let sum = |of: [f32; 3], numbers: [f32; 3]| -> f32 { of.iter().zip(numbers).map(|(of, it)| of * it).sum() };
        let of_rows = [0, 3, 6].map(|row| KERNEL.map(|of| sum(of, [kernel[row], kernel[row + 1], kernel[row + 2]])));
        for (point, to) in found.chunks_exact_mut(kernels.len()).enumerate() {
            to[place] = sum(KERNEL[point / POINTS], of_rows.map(|it| it[point % POINTS]));
        }
    }
    found
}

/// `output = ReLU(bias + inputs * weight)`, with zeros around the inputs.
///
/// `shape` is the shape of the first of one or two feature maps; the numbers of channels are multiples of 8, as is that of the
/// outputs. `weight` are the numbers [at all points](at_points), `bias` is `[out]`, `output` `[batch, rows, columns, out]`.
pub fn winograd_convolution(
    workers: Workers<'_>,
    shape: Shape,
    inputs: &[Maps<'_>],
    [weight, bias]: [&[f32]; 2],
    output: &mut [f32],
) {
    let instructions = workers.instructions;
    let inputs = Inputs::new(shape, inputs);
    let (out, shape) = (bias.len(), inputs.shape());
    assert!(shape.channels.is_multiple_of(8) && out.is_multiple_of(8));
    assert_eq!(weight.len(), TILE_POINTS * shape.channels * out);
    let output_shape = shape.with_channels(out);
    let kernel = packed(workers, weight, out);
    let lines = Lines::of(shape, out, workers.spread.threads());
    let bands = Band::of_height(shape, lines.rows * TILE);
    spread_items(workers.spread, cut(&bands, output_shape, output), |index, part| {
        let band = bands[index];
        let lines = Lines { rows: band.rows.div_ceil(TILE), ..lines };
        let lengths = [lines.padded_len(), TILE_POINTS * lines.len() * shape.channels, TILE_POINTS * lines.len() * out];
        with_scratch(lengths.iter().sum(), |scratch| {
            let (padded, rest) = scratch.split_at_mut(lengths[0]);
            let (points, products) = rest.split_at_mut(lengths[1]);
            for line in 0..lines.rows {
                for (row, to) in padded.chunks_exact_mut(lines.padded_row()).enumerate() {
                    inputs.pad_row_or_zeros(band, line * TILE + row, to);
                }
                instructions.run(ToPoints { lines, line, padded, points });
            }
            lines.multiply(instructions, points, &kernel, products);
            instructions.run(ToPixels { lines, rows: band.rows, products, bias, output: part });
        });
    });
}

/// The matrix of each point.
fn packed(workers: Workers<'_>, weight: &[f32], out: usize) -> Vec<Packed> {
    let mut packed: Vec<Option<Packed>> = (0..TILE_POINTS).map(|_| None).collect();
    let tensors = weight.chunks_exact(weight.len() / TILE_POINTS);
    spread_items(workers.spread, packed.iter_mut().zip(tensors).collect(), |_, (packed, tensor)| {
        let places = Places { rows: (0..tensor.len()).step_by(out).collect(), columns: (0..out).collect() };
        *packed = Some(workers.instructions.run(Pack { tensor, places, first_output: out }));
    });
    packed.into_iter().map(|it| it.expect("all points were packed")).collect()
}

/// Rows of tiles that are worked on at once.
#[derive(Clone, Copy)]
struct Lines {
    /// Pixels of a row.
    columns: usize,
    channels: usize,
    out: usize,
    /// Rows of tiles.
    rows: usize,
}

impl Lines {
    /// As many as the cache holds and leave several chunks for each thread, at least one.
    fn of(shape: Shape, out: usize, threads: usize) -> Self {
        let one = Self { columns: shape.columns, channels: shape.channels, out, rows: 1 };
        let fit = CHUNK_ELEMENTS / (TILE_POINTS * one.len() * (shape.channels + out));
        let fair = shape.batch * shape.rows / (TILE * CHUNKS_PER_THREAD * threads);
        Self { rows: fit.min(fair).clamp(1, MAX_LINES), ..one }
    }

    /// Tiles of a row.
    fn tiles(&self) -> usize {
        self.columns.div_ceil(TILE)
    }

    /// Number of tiles.
    fn len(&self) -> usize {
        self.rows * self.tiles()
    }

    /// Length of a padded row of pixels, with what the last tile reads beyond it.
    fn padded_row(&self) -> usize {
        (self.tiles() * TILE + 2) * self.channels
    }

    /// Length of the padded rows that a row of tiles reads.
    fn padded_len(&self) -> usize {
        POINTS * self.padded_row()
    }

    /// The products of all tiles at each point.
    fn multiply(&self, instructions: Instructions, points: &[f32], kernel: &[Packed], products: &mut [f32]) {
        let no_bias = vec![0.0; self.out];
        let points = points.chunks_exact(self.len() * self.channels);
        let outputs = products.chunks_exact_mut(self.len() * self.out);
        for ((elements, weights), output) in points.zip(kernel).zip(outputs) {
            instructions.run(RowProduct {
                sources: &[Source { elements, stride: self.channels, run: self.channels }],
                weights,
                bias: &no_bias,
                pixels: self.len(),
                finish: Finish::PLAIN,
                outputs: [output, &mut []],
            });
        }
    }
}

/// The first vectors of six runs, so many elements apart. What calls it is written out six times as well: a closure for it was
/// not inlined.
#[inline(always)]
fn six<V: Vector>(token: V::Token, from: &[f32], step: usize) -> [V; POINTS] {
    let at = |at: usize| V::of(token, &from[at * step..]);
    [at(0), at(1), at(2), at(3), at(4), at(5)]
}

/// The numbers of a row of tiles at each point.
struct ToPoints<'a> {
    lines: Lines,
    line: usize,
    /// `[6, padded columns, channels]`.
    padded: &'a [f32],
    /// `[6 x 6, rows of tiles, tiles, channels]`.
    points: &'a mut [f32],
}

impl Job for ToPoints<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let channels = self.lines.channels;
        let wide = channels / <S::Wide as Vector>::LANES * <S::Wide as Vector>::LANES;
        for tile in 0..self.lines.tiles() {
            self.channels::<S::Wide>(simd.wide(), tile, 0, wide);
            self.channels::<S::Eight>(simd.eight(), tile, wide, channels);
        }
    }
}

impl ToPoints<'_> {
    /// The channels from one on and below another of a tile.
    #[inline(always)]
    fn channels<V: Vector>(&mut self, token: V::Token, tile: usize, first: usize, end: usize) {
        let Lines { channels, .. } = self.lines;
        let (row_len, step) = (self.lines.padded_row(), self.lines.len() * channels);
        let to = (self.line * self.lines.tiles() + tile) * channels;
        let factors = Factors::<V>::new(token);
        for channel in (first..end).step_by(V::LANES) {
            let from = tile * TILE * channels + channel;
            let pixels = &self.padded[from..];
            let a = factors.points_of(six(token, pixels, channels));
            let b = factors.points_of(six(token, &pixels[row_len..], channels));
            let c = factors.points_of(six(token, &pixels[2 * row_len..], channels));
            let d = factors.points_of(six(token, &pixels[3 * row_len..], channels));
            let e = factors.points_of(six(token, &pixels[4 * row_len..], channels));
            let f = factors.points_of(six(token, &pixels[5 * row_len..], channels));
            for column in 0..POINTS {
                let points = factors.points_of([a[column], b[column], c[column], d[column], e[column], f[column]]);
                for (row, point) in points.into_iter().enumerate() {
                    point.put(&mut self.points[(row * POINTS + column) * step + to + channel..]);
                }
            }
        }
    }
}

/// The pixels of rows of tiles from their products at each point.
struct ToPixels<'a> {
    lines: Lines,
    /// Rows of pixels.
    rows: usize,
    /// `[6 x 6, rows of tiles, tiles, out]`.
    products: &'a [f32],
    /// `[out]`.
    bias: &'a [f32],
    /// `[rows, columns, out]`.
    output: &'a mut [f32],
}

impl Job for ToPixels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let Lines { out, rows, .. } = self.lines;
        let tiles = self.lines.tiles();
        let wide = out / <S::Wide as Vector>::LANES * <S::Wide as Vector>::LANES;
        for (line, tile) in (0..rows).flat_map(|line| (0..tiles).map(move |tile| (line, tile))) {
            self.channels::<S::Wide>(simd.wide(), [line, tile], 0, wide);
            self.channels::<S::Eight>(simd.eight(), [line, tile], wide, out);
        }
    }
}

impl ToPixels<'_> {
    /// The outputs from one on and below another of a tile.
    #[inline(always)]
    fn channels<V: Vector>(&mut self, token: V::Token, [line, tile]: [usize; 2], first: usize, end: usize) {
        let Lines { columns, out, .. } = self.lines;
        let step = self.lines.len() * out;
        let from = (line * self.lines.tiles() + tile) * out;
        let [lines, pixels] = [self.rows - line * TILE, columns - tile * TILE].map(|left| left.min(TILE));
        let factors = Factors::<V>::new(token);
        let finish: Finish<'_> = Finish::Output { activation: Activation::Relu, residual: None };
        for channel in (first..end).step_by(V::LANES) {
            let products = &self.products[from + channel..];
            let line_len = POINTS * step;
            let a = factors.pixels_of(six(token, products, step));
            let b = factors.pixels_of(six(token, &products[line_len..], step));
            let c = factors.pixels_of(six(token, &products[2 * line_len..], step));
            let d = factors.pixels_of(six(token, &products[3 * line_len..], step));
            let e = factors.pixels_of(six(token, &products[4 * line_len..], step));
            let f = factors.pixels_of(six(token, &products[5 * line_len..], step));
            let bias = V::of(token, &self.bias[channel..]);
            for column in 0..pixels {
                let values = factors.pixels_of([a[column], b[column], c[column], d[column], e[column], f[column]]);
                for (row, value) in values.into_iter().enumerate().take(lines) {
                    let place = ((line * TILE + row) * columns + tile * TILE + column) * out + channel;
                    finish.of(value.plus(bias), place).put(&mut self.output[place..]);
                }
            }
        }
    }
}

/// What the sums are made with.
#[derive(Clone, Copy)]
struct Factors<V> {
    /// Powers of [`NEAR`] and [`FAR`].
    near: [V; 3],
    far: [V; 3],
    less_near: [V; 2],
    less_far: [V; 2],
    less_squares: V,
}

impl<V: Vector> Factors<V> {
    #[inline(always)]
    fn new(token: V::Token) -> Self {
        let of = |value: f32| V::splat(token, value);
        let powers = |it: f32| [of(it), of(it * it), of(it * it * it)];
        Self {
            near: powers(NEAR),
            far: powers(FAR),
            less_near: [of(-NEAR), of(-NEAR_SQUARE)],
            less_far: [of(-FAR), of(-FAR_SQUARE)],
            less_squares: of(-SQUARES),
        }
    }

    /// Six pixels of a row or column at its points.
    #[inline(always)]
    fn points_of(&self, [d0, d1, d2, d3, d4, d5]: [V; POINTS]) -> [V; POINTS] {
        let near_even = self.less_far[1].times_plus(d2, d4);
        let near_odd = self.less_far[0].times_plus(d1, self.near[0].times(d3));
        let far_even = self.less_near[1].times_plus(d2, d4);
        let far_odd = self.less_near[0].times_plus(d1, self.far[0].times(d3));
        [
            self.less_squares.times_plus(d2, d0.plus(d4)),
            near_even.plus(near_odd),
            near_even.minus(near_odd),
            far_even.plus(far_odd),
            far_even.minus(far_odd),
            self.less_squares.times_plus(d3, d1.plus(d5)),
        ]
    }

    /// Four pixels of a row or column from the products at its points.
    #[inline(always)]
    fn pixels_of(&self, [m0, m1, m2, m3, m4, m5]: [V; POINTS]) -> [V; TILE] {
        let (near_even, near_odd) = (m1.plus(m2), m1.minus(m2));
        let (far_even, far_odd) = (m3.plus(m4), m3.minus(m4));
        [
            m0.plus(near_even).plus(far_even),
            self.near[0].times_plus(near_odd, self.far[0].times(far_odd)),
            self.near[1].times_plus(near_even, self.far[1].times(far_even)),
            self.near[2].times_plus(near_odd, self.far[2].times_plus(far_odd, m5)),
        ]
    }
}
