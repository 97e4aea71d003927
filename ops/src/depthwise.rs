//! Depthwise convolutions, each channel with a kernel of its own, with bias and activation, and their gradients.
//!
//! Weights are in ONNX order, `[channels, 1, k, k]`; kernels of 3x3 and 5x5, with stride 1 or 2. A vector holds channels of
//! a pixel. The maps are read where they are: pixels at an edge leave out the taps beyond it.

use std::ops::Range;

use super::activation::{Activation, Finish, Mask};
use super::maps::{Band, Shape, cut};
use super::simd::{Job, Simd, Vector};
use super::spread::spread_items;
use super::{Instructions, Workers};

/// Sides of the kernels.
pub const KERNELS: [usize; 2] = [3, 5];

/// A depthwise convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depthwise {
    /// Shape of the input.
    pub shape: Shape,
    /// Side of the kernel, one of [`KERNELS`].
    pub kernel: usize,
    /// Stride, 1 or 2.
    pub stride: usize,
    /// Rows of zeros above the maps and columns of zeros to their left, fewer than the kernel has. What a kernel reads
    /// below and to the right of the maps is zero as well.
    pub pads: [usize; 2],
}

impl Depthwise {
    /// Whether there are kernels for it.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        KERNELS.contains(&self.kernel)
            && [1, 2].contains(&self.stride)
            && self.pads.iter().all(|&pad| pad < self.kernel)
            && self.shape.channels.is_multiple_of(8)
            && !self.shape.is_empty()
    }

    /// Shape of the output: one pixel for each `stride` rows and columns begun.
    #[must_use]
    pub fn output_shape(&self) -> Shape {
        let [rows, columns] = [self.shape.rows, self.shape.columns].map(|it| it.div_ceil(self.stride));
        Shape { rows, columns, ..self.shape }
    }

    /// `output[i, j] = activation(bias + sum over taps (a, b) of input[i stride + a - top, j stride + b - left] * weight[a,
    /// b])`, channel by channel.
    pub fn forward(
        &self,
        workers: Workers<'_>,
        input: &[f32],
        [weight, bias]: [&[f32]; 2],
        activation: Activation,
        output: &mut [f32],
    ) {
        let (shape, output_shape) = self.check(input, weight);
        assert!(bias.len() == shape.channels && output.len() == output_shape.len());
        let weights = self.packed(weight, |row, column| Some([row, column]));
        let finish = Finish::Output { activation, residual: None };
        let bands = Band::all(output_shape, workers.spread.threads());
        spread_items(workers.spread, cut(&bands, output_shape, output), |index, part| {
            let band = bands[index];
            for (row, output) in (band.first_row..).zip(part.chunks_exact_mut(output_shape.row_len())) {
                let lines = self.taps_of(row).map(|(tap, row)| Line {
                    maps: row_of(shape, input, band.photo, row),
                    weights: &weights[tap * self.tap_row()..],
                });
                let lines: Vec<Line<'_>> = lines.collect();
                let of_row = Sweep {
                    lines: &lines,
                    first: -(self.pads[1] as isize),
                    columns: shape.columns,
                    bias,
                    places: Places { first: 0, step: 1, count: output_shape.columns },
                    finish,
                    output,
                };
                sweep(workers.instructions, self.kernel, self.stride, of_row);
            }
        });
    }

    /// The gradient of the input, from the gradient of the output, through `mask`.
    pub fn input_gradient(
        &self,
        workers: Workers<'_>,
        output_gradient: &[f32],
        weight: &[f32],
        mask: Option<Mask<'_>>,
        input_gradient: &mut [f32],
    ) {
        let (shape, output_shape) = self.check(input_gradient, weight);
        assert_eq!(output_gradient.len(), output_shape.len());
        let finish = Finish::Gradient { skip: None, mask };
        assert!(finish.fits(shape.len()));
        let phases: Vec<Phase> = (0..self.stride).map(|column| Phase::new(self, weight, column)).collect();
        let no_bias = vec![0.0; shape.channels];
        let bands = Band::all(shape, workers.spread.threads());
        spread_items(workers.spread, cut(&bands, shape, input_gradient), |index, part| {
            let band = bands[index];
            let finish = finish.map(|it| band.of(shape, it));
            for (at, gradient) in part.chunks_exact_mut(shape.row_len()).enumerate() {
                let finish = finish.map(|it| &it[at * shape.row_len()..][..shape.row_len()]);
                let readers: Vec<(usize, usize)> = self.readers_of(band.first_row + at).collect();
                for (first, phase) in phases.iter().enumerate().take(shape.columns) {
                    let lines = readers.iter().map(|&(tap, row)| Line {
                        maps: row_of(output_shape, output_gradient, band.photo, row),
                        weights: &phase.weights[tap * phase.taps * shape.channels..],
                    });
                    let lines: Vec<Line<'_>> = lines.collect();
                    let count = (shape.columns - first).div_ceil(self.stride);
                    let of_row = Sweep {
                        lines: &lines,
                        first: phase.first,
                        columns: output_shape.columns,
                        bias: &no_bias,
                        places: Places { first, step: self.stride, count },
                        finish,
                        output: &mut *gradient,
                    };
                    sweep(workers.instructions, phase.taps, 1, of_row);
                }
            }
        });
    }

    /// The gradients of weight, `[channels, 1, k, k]`, and bias, `[channels]`, from the gradient of the output. The order
    /// of summation depends only on the number of threads.
    pub fn weight_gradient(
        &self,
        workers: Workers<'_>,
        input: &[f32],
        output_gradient: &[f32],
        [weight, bias]: [&mut [f32]; 2],
    ) {
        let (shape, output_shape) = self.check(input, weight);
        let channels = shape.channels;
        assert!(bias.len() == channels && output_gradient.len() == output_shape.len());
        let total = workers.sum_over_bands(output_shape, weight.len() + channels, |band, sums| {
            let rows = band.of(output_shape, output_gradient).chunks_exact(output_shape.row_len());
            for (row, gradient) in (band.first_row..).zip(rows) {
                let lines = self.taps_of(row).map(|(_, row)| row_of(shape, input, band.photo, row));
                let lines: Vec<&[f32]> = lines.collect();
                let first_tap = self.taps_of(row).next().map_or(0, |(tap, _)| tap);
                let (taps, bias) = sums.split_at_mut(self.kernel * self.tap_row());
                let first = -(self.pads[1] as isize);
                let sums = &mut taps[first_tap * self.tap_row()..][..lines.len() * self.tap_row()];
                let job = TapSums { lines: &lines, gradient, first, columns: shape.columns, channels, sums, bias };
                match (self.kernel, self.stride) {
                    (3, 1) => workers.instructions.run(OfKernel::<3, 1>(job)),
                    (3, _) => workers.instructions.run(OfKernel::<3, 2>(job)),
                    (_, 1) => workers.instructions.run(OfKernel::<5, 1>(job)),
                    _ => workers.instructions.run(OfKernel::<5, 2>(job)),
                }
            }
        });
        let (of_taps, of_bias) = total.split_at(weight.len());
        bias.copy_from_slice(of_bias);
        let taps = self.kernel * self.kernel;
        for (at, weight) in weight.iter_mut().enumerate() {
            *weight = of_taps[at % taps * channels + at / taps];
        }
    }

    /// The shapes of input and output, checked.
    fn check(&self, input: &[f32], weight: &[f32]) -> (Shape, Shape) {
        assert!(self.is_valid());
        assert_eq!(input.len(), self.shape.len());
        assert_eq!(weight.len(), self.kernel * self.tap_row());
        (self.shape, self.output_shape())
    }

    /// Weights of a row of taps.
    fn tap_row(&self) -> usize {
        self.kernel * self.shape.channels
    }

    /// Rows of taps that an output row reads by, and the input rows that they read.
    fn taps_of(&self, row: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (top, rows, start) = (self.pads[0], self.shape.rows, row * self.stride);
        (0..self.kernel).filter_map(move |tap| Some((tap, (start + tap).checked_sub(top).filter(|it| *it < rows)?)))
    }

    /// Rows of taps by which an input row is read, and the output rows that read it.
    fn readers_of(&self, row: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (stride, rows, start) = (self.stride, self.output_shape().rows, row + self.pads[0]);
        let reader =
            move |tap: usize| start.checked_sub(tap).filter(|it| it.is_multiple_of(stride)).map(|it| it / stride);
        (0..self.kernel).filter_map(move |tap| Some((tap, reader(tap).filter(|it| *it < rows)?)))
    }

    /// Weights as `[k, taps, channels]`: for each row of taps and each tap of a sweep those at `place`.
    fn packed(&self, weight: &[f32], place: impl Fn(usize, usize) -> Option<[usize; 2]>) -> Vec<f32> {
        let kernel = self.kernel;
        let taps = (0..kernel).flat_map(|row| (0..kernel).map(move |tap| (row, tap)));
        let places = taps.filter_map(|(row, tap)| place(row, tap));
        let channels = |[row, column]: [usize; 2]| {
            (0..self.shape.channels).map(move |channel| weight[(channel * kernel + row) * kernel + column])
        };
        places.flat_map(channels).collect()
    }
}

fn sweep(instructions: Instructions, taps: usize, stride: usize, sweep: Sweep<'_>) {
    match (taps, stride) {
        (1, 1) => instructions.run(OfTaps::<1, 1>(sweep)),
        (2, 1) => instructions.run(OfTaps::<2, 1>(sweep)),
        (3, 1) => instructions.run(OfTaps::<3, 1>(sweep)),
        (5, 1) => instructions.run(OfTaps::<5, 1>(sweep)),
        (3, 2) => instructions.run(OfTaps::<3, 2>(sweep)),
        (5, 2) => instructions.run(OfTaps::<5, 2>(sweep)),
        _ => unreachable!("kernels of 3 and 5 taps, stride 1 and 2"),
    }
}

/// A row of maps.
fn row_of(shape: Shape, maps: &[f32], photo: usize, row: usize) -> &[f32] {
    &maps[(photo * shape.rows + row) * shape.row_len()..][..shape.row_len()]
}

/// The columns of the input that are read by the same taps: each `stride`th one.
struct Phase {
    /// Taps that read such a column, and their weights, `[k, taps, channels]`, the last tap first.
    taps: usize,
    weights: Vec<f32>,
    /// Column of the output that reads the first of these columns by the last of the taps.
    first: isize,
}

impl Phase {
    /// The columns `column`, `column + stride`, ...
    fn new(of: &Depthwise, weight: &[f32], column: usize) -> Self {
        let start = column + of.pads[1];
        let (first_tap, stride) = (start % of.stride, of.stride);
        let taps = (of.kernel - first_tap).div_ceil(stride);
        let weights = of.packed(weight, |row, at| (at < taps).then(|| [row, first_tap + stride * (taps - 1 - at)]));
        Self { taps, weights, first: (start / stride) as isize - (taps as isize - 1) }
    }
}

/// A row of maps and what each of its taps counts.
#[derive(Clone, Copy)]
struct Line<'a> {
    /// `[columns, channels]`.
    maps: &'a [f32],
    /// `[taps, channels]`, or more.
    weights: &'a [f32],
}

/// Pixels of an output row.
#[derive(Clone, Copy)]
struct Places {
    first: usize,
    step: usize,
    count: usize,
}

/// For each pixel p of a row of the output, `output[first + p step] = finish(bias + sum over lines and taps t of
/// line[p stride + t + first column] * weights[t])`; columns outside the lines count nothing.
struct Sweep<'a> {
    lines: &'a [Line<'a>],
    /// Column of the lines that the first tap of the first pixel reads.
    first: isize,
    /// Columns of the lines.
    columns: usize,
    /// `[channels]`.
    bias: &'a [f32],
    places: Places,
    /// Slices are laid out like the output.
    finish: Finish<'a>,
    /// `[columns of the output, channels]`.
    output: &'a mut [f32],
}

/// Pixels computed at once: their sums and a row of weights stay in registers.
const BLOCK: usize = 4;

/// A sweep with `T` taps in each line and pixels `S` columns apart.
struct OfTaps<'a, const T: usize, const S: usize>(Sweep<'a>);

impl<const T: usize, const S: usize> Job for OfTaps<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn run<I: Simd>(mut self, simd: I) {
        let Sweep { lines, first, columns, bias, places, .. } = self.0;
        let channels = bias.len();
        assert!(channels.is_multiple_of(8) && places.count > 0);
        assert!(lines.iter().all(|line| line.maps.len() == columns * channels && line.weights.len() >= T * channels));
        assert!(self.0.output.len() >= ((places.count - 1) * places.step + places.first + 1) * channels);
        assert!(self.0.finish.fits(self.0.output.len()));
        let inner = inner_pixels(first, columns, places.count, T, S);
        for pixel in (0..inner.start).chain(inner.end..places.count) {
            self.all_channels::<I, 1, false>(simd, pixel);
        }
        if inner.len() < BLOCK {
            for pixel in inner {
                self.all_channels::<I, 1, true>(simd, pixel);
            }
            return;
        }
        // The last block overlaps the one before it if there are pixels left.
        for pixel in inner.clone().step_by(BLOCK) {
            self.all_channels::<I, BLOCK, true>(simd, pixel.min(inner.end - BLOCK));
        }
    }
}

/// The pixels, of `count`, whose `taps` taps all lie within the columns.
#[inline(always)]
fn inner_pixels(first: isize, columns: usize, count: usize, taps: usize, stride: usize) -> Range<usize> {
    let start = ((-first).max(0) as usize).div_ceil(stride).min(count);
    let room = columns as isize - taps as isize - first;
    let end = if room < 0 { 0 } else { room as usize / stride + 1 };
    start..end.clamp(start, count)
}

impl<const T: usize, const S: usize> OfTaps<'_, T, S> {
    /// All channels of `P` pixels; with `INNER`, all of their taps lie within the columns.
    #[inline(always)]
    fn all_channels<I: Simd, const P: usize, const INNER: bool>(&mut self, simd: I, pixel: usize) {
        let channels = self.0.bias.len();
        let wide = channels - channels % I::Wide::LANES;
        for channel in (0..wide).step_by(I::Wide::LANES) {
            self.block::<I::Wide, P, INNER>(simd.wide(), pixel, channel);
        }
        if wide < channels {
            self.block::<I::Eight, P, INNER>(simd.eight(), pixel, wide);
        }
    }

    #[inline(always)]
    fn block<V: Vector, const P: usize, const INNER: bool>(&mut self, token: V::Token, pixel: usize, channel: usize) {
        let Sweep { lines, first, columns, bias, places, finish, .. } = self.0;
        let channels = bias.len();
        let mut sums = [V::of(token, &bias[channel..]); P];
        let start = (pixel * S) as isize + first;
        for line in lines {
            // SAFETY: the lengths were checked by `run`, `channel` and the lanes after it lie within a pixel, and the
            // column of a tap within the line: for inner pixels all do, the others are asked.
            unsafe {
                let maps = line.maps.as_ptr().add(channel);
                let weights = line.weights.as_ptr().add(channel);
                for tap in 0..T {
                    let weight = V::load(token, weights.add(tap * channels));
                    for (p, sum) in sums.iter_mut().enumerate() {
                        let column = (start + (p * S + tap) as isize) as usize;
                        if INNER || column < columns {
                            *sum = V::load(token, maps.add(column * channels)).times_plus(weight, *sum);
                        }
                    }
                }
            }
        }
        for (p, sum) in sums.into_iter().enumerate() {
            let place = (places.first + (pixel + p) * places.step) * channels + channel;
            finish.of(sum, place).put(&mut self.0.output[place..]);
        }
    }
}

/// `sums[line, t] += sum over pixels p of line[p stride + t + first] * gradient[p]` for each tap t, and `bias += sum of
/// gradient`; columns outside the lines count nothing.
struct TapSums<'a> {
    /// Rows of the input, `[columns, channels]` each.
    lines: &'a [&'a [f32]],
    /// A row of the output's gradient, `[pixels, channels]`.
    gradient: &'a [f32],
    /// Column that the first tap of the first pixel reads.
    first: isize,
    columns: usize,
    channels: usize,
    /// `[lines, taps, channels]`.
    sums: &'a mut [f32],
    /// `[channels]`.
    bias: &'a mut [f32],
}

/// The sums of a kernel of side `K` with stride `S`.
struct OfKernel<'a, const K: usize, const S: usize>(TapSums<'a>);

impl<const K: usize, const S: usize> Job for OfKernel<'_, K, S> {
    type Output = ();

    #[inline(always)]
    fn run<I: Simd>(mut self, simd: I) {
        let TapSums { lines, gradient, first, columns, channels, .. } = self.0;
        assert!(lines.iter().all(|line| line.len() == columns * channels));
        assert_eq!(self.0.sums.len(), lines.len() * K * channels);
        assert!(self.0.bias.len() == channels && gradient.len().is_multiple_of(channels));
        let inner = inner_pixels(first, columns, gradient.len() / channels, K, S);
        let wide = channels - channels % I::Wide::LANES;
        for channel in (0..wide).step_by(I::Wide::LANES) {
            self.all_lines::<I, I::Wide>(simd.wide(), &inner, channel);
        }
        if wide < channels {
            self.all_lines::<I, I::Eight>(simd.eight(), &inner, wide);
        }
        let bias = &mut *self.0.bias;
        for pixel in gradient.chunks_exact(channels) {
            for (sum, gradient) in bias.iter_mut().zip(pixel) {
                *sum += gradient;
            }
        }
    }
}

impl<const K: usize, const S: usize> OfKernel<'_, K, S> {
    #[inline(always)]
    fn all_lines<I: Simd, V: Vector>(&mut self, token: V::Token, inner: &Range<usize>, channel: usize) {
        // The sums of all taps fit the registers of AVX-512.
        if I::IS_512 && self.0.lines.len() == K {
            return self.block::<V, K>(token, inner, 0, channel);
        }
        for line in 0..self.0.lines.len() {
            self.block::<V, 1>(token, inner, line, channel);
        }
    }

    /// The sums of `L` lines from `line` on.
    #[inline(always)]
    fn block<V: Vector, const L: usize>(&mut self, token: V::Token, inner: &Range<usize>, line: usize, channel: usize) {
        let TapSums { lines, gradient, first, columns, channels, .. } = self.0;
        let mut sums = [[V::splat(token, 0.0); K]; L];
        let lines: [&[f32]; L] = std::array::from_fn(|at| lines[line + at]);
        for pixel in inner.clone() {
            // SAFETY: the lengths were checked by `run`, `channel` and the lanes after it lie within a pixel, and all
            // taps of an inner pixel within the lines.
            unsafe {
                let gradient = V::load(token, gradient.as_ptr().add(pixel * channels + channel));
                let start = ((pixel * S) as isize + first) as usize * channels + channel;
                for (sums, line) in sums.iter_mut().zip(lines) {
                    let line = line.as_ptr().add(start);
                    for (tap, sum) in sums.iter_mut().enumerate() {
                        *sum = V::load(token, line.add(tap * channels)).times_plus(gradient, *sum);
                    }
                }
            }
        }
        for pixel in (0..inner.start).chain(inner.end..gradient.len() / channels) {
            let gradient = V::of(token, &gradient[pixel * channels + channel..]);
            for (sums, line) in sums.iter_mut().zip(lines) {
                for (tap, sum) in sums.iter_mut().enumerate() {
                    let column = ((pixel * S + tap) as isize + first) as usize;
                    if column < columns {
                        *sum = V::of(token, &line[column * channels + channel..]).times_plus(gradient, *sum);
                    }
                }
            }
        }
        for (at, sums) in (line..).zip(sums) {
            for (tap, sum) in sums.into_iter().enumerate() {
                let place = &mut self.0.sums[(at * K + tap) * channels + channel..];
                V::of(token, place).plus(sum).put(place);
            }
        }
    }
}
