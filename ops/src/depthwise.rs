//! Depthwise convolutions, each channel with a kernel of its own, with bias and activation, and their gradients.
//!
//! Weights are in ONNX order, `[channels, 1, k, k]`; kernels of 3x3 and 5x5, with stride 1 or 2. A vector holds channels of
//! a pixel. The maps are read where they are: pixels at an edge leave out the taps beyond it.

use std::ops::Range;

use super::activation::{Activation, Finish, Mask};
use super::maps::{Band, Shape, cut};
use super::simd::{Job, Simd, Stored, Vector};
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
        parameters: [&[f32]; 2],
        activation: Activation,
        output: &mut [f32],
    ) {
        self.forward_of(workers, input, parameters, activation, output);
    }

    /// The same with maps in bf16, as raw bits.
    pub fn forward_bf16(
        &self,
        workers: Workers<'_>,
        input: &[u16],
        parameters: [&[f32]; 2],
        activation: Activation,
        output: &mut [u16],
    ) {
        self.forward_of(workers, input, parameters, activation, output);
    }

    fn forward_of<E: Stored>(
        &self,
        workers: Workers<'_>,
        input: &[E],
        [weight, bias]: [&[f32]; 2],
        activation: Activation,
        output: &mut [E],
    ) {
        let (shape, output_shape) = self.check(input, weight);
        assert!(bias.len() == shape.channels && output.len() == output_shape.len());
        let weights = self.packed_forward(weight);
        let finish = Finish::Output { activation, residual: None };
        let bands = Band::all(output_shape, workers.spread.threads());
        spread_items(workers.spread, cut(&bands, output_shape, output), |index, part| {
            let band = bands[index];
            let line = |(tap, row)| Line {
                maps: row_of(shape, input, band.photo, row),
                weights: &weights[tap * self.tap_row()..],
            };
            let rows = band.first_row..band.first_row + band.rows;
            let rows: Vec<Vec<Line<'_, E>>> = rows.map(|row| self.taps_of(row).map(line).collect()).collect();
            let of_band = Sweep {
                rows: &rows,
                first: -(self.pads[1] as isize),
                columns: shape.columns,
                bias,
                places: Places { first: 0, step: 1, count: output_shape.columns, columns: output_shape.columns },
                finish,
                output: part,
            };
            sweep(workers.instructions, self.kernel, self.stride, of_band);
        });
    }

    /// Weights as [`row`](Self::row) reads them.
    pub(super) fn packed_forward(&self, weight: &[f32]) -> Vec<f32> {
        assert!(self.is_valid() && weight.len() == self.kernel * self.tap_row());
        self.packed(weight, |row, column| Some([row, column]))
    }

    /// The rows of the input that a row of the output reads.
    pub(super) fn rows_of(&self, row: usize) -> Range<usize> {
        let start = row * self.stride;
        start.saturating_sub(self.pads[0])..(start + self.kernel - self.pads[0]).min(self.shape.rows)
    }

    /// A row of the output, with `ReLU6`, from the rows of the input that it reads.
    pub(super) fn row<'a, E: Stored + 'a>(
        &self,
        instructions: Instructions,
        [weights, bias]: [&[f32]; 2],
        row: usize,
        maps: impl Fn(usize) -> &'a [E],
        output: &mut [E],
    ) {
        let line = |(tap, row)| Line { maps: maps(row), weights: &weights[tap * self.tap_row()..] };
        let count = self.output_shape().columns;
        let of_row = Sweep {
            rows: &[self.taps_of(row).map(line).collect()],
            first: -(self.pads[1] as isize),
            columns: self.shape.columns,
            bias,
            places: Places { first: 0, step: 1, count, columns: count },
            finish: Finish::Output { activation: Activation::Relu6, residual: None },
            output,
        };
        sweep(instructions, self.kernel, self.stride, of_row);
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
        self.input_gradient_of(workers, output_gradient, weight, mask, input_gradient);
    }

    /// The same with maps in bf16, as raw bits.
    pub fn input_gradient_bf16(
        &self,
        workers: Workers<'_>,
        output_gradient: &[u16],
        weight: &[f32],
        mask: Option<Mask<'_, u16>>,
        input_gradient: &mut [u16],
    ) {
        self.input_gradient_of(workers, output_gradient, weight, mask, input_gradient);
    }

    fn input_gradient_of<E: Stored>(
        &self,
        workers: Workers<'_>,
        output_gradient: &[E],
        weight: &[f32],
        mask: Option<Mask<'_, E>>,
        input_gradient: &mut [E],
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
            let rows = band.first_row..band.first_row + band.rows;
            let readers: Vec<Vec<(usize, usize)>> = rows.map(|row| self.readers_of(row).collect()).collect();
            for (first, phase) in phases.iter().enumerate().take(shape.columns) {
                let line = |&(tap, row): &(usize, usize)| Line {
                    maps: row_of(output_shape, output_gradient, band.photo, row),
                    weights: &phase.weights[tap * phase.taps * shape.channels..],
                };
                let rows: Vec<Vec<Line<'_, E>>> = readers.iter().map(|it| it.iter().map(line).collect()).collect();
                let count = (shape.columns - first).div_ceil(self.stride);
                let of_band = Sweep {
                    rows: &rows,
                    first: phase.first,
                    columns: output_shape.columns,
                    bias: &no_bias,
                    places: Places { first, step: self.stride, count, columns: shape.columns },
                    finish: finish.map(|it| band.of(shape, it)),
                    output: &mut *part,
                };
                sweep(workers.instructions, phase.taps, 1, of_band);
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
        parameters: [&mut [f32]; 2],
    ) {
        self.weight_gradient_of(workers, input, output_gradient, parameters);
    }

    /// The same with maps in bf16, as raw bits.
    pub fn weight_gradient_bf16(
        &self,
        workers: Workers<'_>,
        input: &[u16],
        output_gradient: &[u16],
        parameters: [&mut [f32]; 2],
    ) {
        self.weight_gradient_of(workers, input, output_gradient, parameters);
    }

    fn weight_gradient_of<E: Stored>(
        &self,
        workers: Workers<'_>,
        input: &[E],
        output_gradient: &[E],
        [weight, bias]: [&mut [f32]; 2],
    ) {
        let (shape, output_shape) = self.check(input, weight);
        let channels = shape.channels;
        assert!(bias.len() == channels && output_gradient.len() == output_shape.len());
        let total = workers.sum_over_bands(output_shape, weight.len() + channels, |band, sums| {
            let gradients = band.of(output_shape, output_gradient).chunks_exact(output_shape.row_len());
            let row = |(row, gradient)| TapRow {
                lines: self.taps_of(row).map(|(_, row)| row_of(shape, input, band.photo, row)).collect(),
                first_tap: self.taps_of(row).next().map_or(0, |(tap, _)| tap),
                gradient,
            };
            let rows: Vec<TapRow<'_, E>> = (band.first_row..).zip(gradients).map(row).collect();
            let (sums, bias) = sums.split_at_mut(self.kernel * self.tap_row());
            let (first, columns) = (-(self.pads[1] as isize), shape.columns);
            let of_band = TapSums { rows: &rows, first, columns, channels, sums, bias };
            match (self.kernel, self.stride) {
                (3, 1) => workers.instructions.run(OfKernel::<E, 3, 1>(of_band)),
                (3, _) => workers.instructions.run(OfKernel::<E, 3, 2>(of_band)),
                (_, 1) => workers.instructions.run(OfKernel::<E, 5, 1>(of_band)),
                _ => workers.instructions.run(OfKernel::<E, 5, 2>(of_band)),
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
    fn check<E>(&self, input: &[E], weight: &[f32]) -> (Shape, Shape) {
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
        let (top, start) = (self.pads[0], row * self.stride);
        self.rows_of(row).map(move |row| (row + top - start, row))
    }

    /// Rows of taps by which an input row is read, and the output rows that read it, top to bottom: the last is the one
    /// whose successor is read next.
    fn readers_of(&self, row: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (stride, rows, start) = (self.stride, self.output_shape().rows, row + self.pads[0]);
        let reader =
            move |tap: usize| start.checked_sub(tap).filter(|it| it.is_multiple_of(stride)).map(|it| it / stride);
        (0..self.kernel).rev().filter_map(move |tap| Some((tap, reader(tap).filter(|it| *it < rows)?)))
    }

    /// Weights as `[k, taps, channels]`: for each row of taps and each tap of a sweep those at `place`.
    fn packed(&self, weight: &[f32], place: impl Fn(usize, usize) -> Option<[usize; 2]>) -> Vec<f32> {
        let (kernel, channels) = (self.kernel, self.shape.channels);
        let mut packed = Vec::with_capacity(weight.len());
        for [row, column] in
            (0..kernel).flat_map(|row| (0..kernel).map(move |tap| (row, tap))).filter_map(|(row, tap)| place(row, tap))
        {
            packed.extend((0..channels).map(|channel| weight[(channel * kernel + row) * kernel + column]));
        }
        packed
    }
}

fn sweep<E: Stored>(instructions: Instructions, taps: usize, stride: usize, sweep: Sweep<'_, E>) {
    match (taps, stride) {
        (1, 1) => instructions.run(OfTaps::<E, 1, 1>(sweep)),
        (2, 1) => instructions.run(OfTaps::<E, 2, 1>(sweep)),
        (3, 1) => instructions.run(OfTaps::<E, 3, 1>(sweep)),
        (5, 1) => instructions.run(OfTaps::<E, 5, 1>(sweep)),
        (3, 2) => instructions.run(OfTaps::<E, 3, 2>(sweep)),
        (5, 2) => instructions.run(OfTaps::<E, 5, 2>(sweep)),
        _ => unreachable!("kernels of 3 and 5 taps, stride 1 and 2"),
    }
}

/// A row of maps.
fn row_of<E>(shape: Shape, maps: &[E], photo: usize, row: usize) -> &[E] {
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
struct Line<'a, E> {
    /// `[columns, channels]`.
    maps: &'a [E],
    /// `[taps, channels]`, or more.
    weights: &'a [f32],
}

/// The pixels that a sweep writes of each row of the output.
#[derive(Clone, Copy)]
struct Places {
    first: usize,
    step: usize,
    count: usize,
    /// Columns of the output.
    columns: usize,
}

/// For each pixel p of each row of the output, `output[first + p step] = finish(bias + sum over lines and taps t of
/// line[p stride + t + first column] * weights[t])`; columns outside the lines count nothing.
struct Sweep<'a, E> {
    /// The lines that each row of the output reads.
    rows: &'a [Vec<Line<'a, E>>],
    /// Column of the lines that the first tap of the first pixel reads.
    first: isize,
    /// Columns of the lines.
    columns: usize,
    /// `[channels]`.
    bias: &'a [f32],
    places: Places,
    /// Slices are laid out like the output.
    finish: Finish<'a, E>,
    /// `[rows, columns, channels]`.
    output: &'a mut [E],
}

/// Pixels computed at once: their sums and a row of weights stay in registers.
const BLOCK: usize = 4;
/// Channels of a slab: all rows of a band are done for a slab before the next one, so that most of what a row reads is still
/// in the first-level cache.
const SLAB: usize = 128;

/// A sweep with `T` taps in each line and pixels `S` columns apart.
struct OfTaps<'a, E, const T: usize, const S: usize>(Sweep<'a, E>);

impl<E: Stored, const T: usize, const S: usize> Job for OfTaps<'_, E, T, S> {
    type Output = ();

    #[inline(always)]
    fn run<I: Simd>(mut self, simd: I) {
        let Sweep { rows, first, columns, bias, places, .. } = self.0;
        let channels = bias.len();
        assert!(channels.is_multiple_of(8) && places.count > 0);
        assert!((places.count - 1) * places.step + places.first < places.columns);
        let mut lines = rows.iter().flatten();
        assert!(lines.all(|line| line.maps.len() == columns * channels && line.weights.len() >= T * channels));
        assert_eq!(self.0.output.len(), rows.len() * places.columns * channels);
        assert!(self.0.finish.fits(self.0.output.len()));
        let inner = inner_pixels(first, columns, places.count, T, S);
        for slab in (0..channels).step_by(SLAB) {
            let slab = slab..channels.min(slab + SLAB);
            for row in 0..rows.len() {
                for pixel in (0..inner.start).chain(inner.end..places.count) {
                    self.channels::<I, 1, false>(simd, row, pixel, slab.clone());
                }
                if inner.len() < BLOCK {
                    for pixel in inner.clone() {
                        self.channels::<I, 1, true>(simd, row, pixel, slab.clone());
                    }
                    continue;
                }
                // The last block overlaps the one before it if there are pixels left.
                for pixel in inner.clone().step_by(BLOCK) {
                    let pixel = pixel.min(inner.end - BLOCK);
                    self.channels::<I, BLOCK, true>(simd, row, pixel, slab.clone());
                }
            }
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

impl<E: Stored, const T: usize, const S: usize> OfTaps<'_, E, T, S> {
    /// Some channels of `P` pixels of a row; with `INNER`, all of their taps lie within the columns.
    #[inline(always)]
    fn channels<I: Simd, const P: usize, const INNER: bool>(
        &mut self,
        simd: I,
        row: usize,
        pixel: usize,
        channels: Range<usize>,
    ) {
        let wide = channels.end - channels.len() % I::Wide::LANES;
        for channel in (channels.start..wide).step_by(I::Wide::LANES) {
            self.block::<I::Wide, P, INNER>(simd.wide(), row, pixel, channel);
        }
        if wide < channels.end {
            self.block::<I::Eight, P, INNER>(simd.eight(), row, pixel, wide);
        }
    }

    #[inline(always)]
    fn block<V: Vector, const P: usize, const INNER: bool>(
        &mut self,
        token: V::Token,
        row: usize,
        pixel: usize,
        channel: usize,
    ) {
        let Sweep { rows, first, columns, bias, places, finish, .. } = self.0;
        let channels = bias.len();
        let mut sums = [V::of(token, &bias[channel..]); P];
        let start = (pixel * S) as isize + first;
        for line in &rows[row] {
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
                            *sum = E::load::<V>(token, maps.add(column * channels)).times_plus(weight, *sum);
                        }
                    }
                }
            }
        }
        if INNER {
            self.prefetch::<V, P>(token, row, pixel, channel);
        }
        for (p, sum) in sums.into_iter().enumerate() {
            let pixel = row * places.columns + places.first + (pixel + p) * places.step;
            let place = pixel * channels + channel;
            E::put(finish.of(sum, place), &mut self.0.output[place..]);
        }
    }
}

impl<E: Stored, const T: usize, const S: usize> OfTaps<'_, E, T, S> {
    /// Asks for what the next block writes and the next row reads: too many places for the processor to foresee.
    #[inline(always)]
    fn prefetch<V: Vector, const P: usize>(&self, token: V::Token, row: usize, pixel: usize, channel: usize) {
        let Sweep { rows, first, columns, bias, places, finish, output } = &self.0;
        let channels = bias.len();
        if let Some(last) = rows[row].last() {
            let next = (pixel * S + T - S + columns).wrapping_add_signed(*first);
            for at in 0..P * S * S {
                let place = (next + at % (P * S) + at / (P * S) * columns) * channels + channel;
                V::prefetch(token, last.maps.as_ptr().wrapping_add(place));
            }
        }
        for p in P..2 * P {
            let place = (row * places.columns + places.first + (pixel + p) * places.step) * channels + channel;
            V::prefetch(token, output.as_ptr().wrapping_add(place));
            finish.prefetch::<V>(token, place);
        }
    }
}

/// A row of the output's gradient and what it is multiplied with.
struct TapRow<'a, E> {
    /// Rows of the input, `[columns, channels]` each.
    lines: Vec<&'a [E]>,
    /// Row of taps by which the first of them is read.
    first_tap: usize,
    /// `[pixels, channels]`.
    gradient: &'a [E],
}

/// `sums[first tap + line, t] += sum over rows and their pixels p of line[p stride + t + first] * gradient[p]` for each tap
/// t, and `bias += sum of gradient`; columns outside the lines count nothing.
struct TapSums<'a, E> {
    rows: &'a [TapRow<'a, E>],
    /// Column that the first tap of the first pixel reads.
    first: isize,
    /// Columns of the lines.
    columns: usize,
    channels: usize,
    /// `[rows of taps, taps, channels]`.
    sums: &'a mut [f32],
    /// `[channels]`.
    bias: &'a mut [f32],
}

/// Bytes of a line of the caches: the channels in one are done for all rows of a band before the next ones.
const LINE_BYTES: usize = 64;

/// The sums of a kernel of side `K` with stride `S`.
struct OfKernel<'a, E, const K: usize, const S: usize>(TapSums<'a, E>);

impl<E: Stored, const K: usize, const S: usize> Job for OfKernel<'_, E, K, S> {
    type Output = ();

    #[inline(always)]
    fn run<I: Simd>(mut self, simd: I) {
        let TapSums { rows, columns, channels, .. } = self.0;
        assert!(channels.is_multiple_of(8));
        for row in rows {
            assert!(row.lines.iter().all(|line| line.len() == columns * channels));
            assert!(row.first_tap + row.lines.len() <= K && row.gradient.len().is_multiple_of(channels));
        }
        assert!(self.0.sums.len() == K * K * channels && self.0.bias.len() == channels);
        let of_line = LINE_BYTES / size_of::<E>();
        for slab in (0..channels).step_by(of_line) {
            let end = channels.min(slab + of_line);
            let wide = end - (end - slab) % I::Wide::LANES;
            for row in rows {
                for channel in (slab..wide).step_by(I::Wide::LANES) {
                    self.row::<I, I::Wide>(simd.wide(), row, channel);
                }
                if wide < end {
                    self.row::<I, I::Eight>(simd.eight(), row, wide);
                }
            }
        }
    }
}

impl<E: Stored, const K: usize, const S: usize> OfKernel<'_, E, K, S> {
    #[inline(always)]
    fn row<I: Simd, V: Vector>(&mut self, token: V::Token, row: &TapRow<'_, E>, channel: usize) {
        let mut bias = V::of(token, &self.0.bias[channel..]);
        for pixel in row.gradient.chunks_exact(self.0.channels) {
            bias = bias.plus(E::of(token, &pixel[channel..]));
        }
        bias.put(&mut self.0.bias[channel..]);
        let inner = inner_pixels(self.0.first, self.0.columns, row.gradient.len() / self.0.channels, K, S);
        // The sums of all taps fit the registers of AVX-512.
        if I::IS_512 && row.lines.len() == K {
            return self.block::<V, K>(token, row, &inner, 0, channel);
        }
        for line in 0..row.lines.len() {
            self.block::<V, 1>(token, row, &inner, line, channel);
        }
    }

    /// Adds what `P` pixels give to the sums of `L` lines of a row from `line` on.
    ///
    /// # Safety
    /// The lengths are as `run` checks them, `channel` and the lanes after it lie within a pixel, and all taps of the pixels
    /// within the lines.
    #[inline(always)]
    unsafe fn pixels<V: Vector, const L: usize, const P: usize>(
        &self,
        token: V::Token,
        (row, line): (&TapRow<'_, E>, usize),
        pixel: usize,
        channel: usize,
        sums: &mut [[V; K]; L],
    ) {
        let TapSums { first, columns, channels, .. } = self.0;
        let start = ((pixel * S) as isize + first) as usize * channels + channel;
        // SAFETY: guaranteed by the caller; whether a place exists does not matter to a prefetch.
        unsafe {
            let from = row.gradient.as_ptr().add(pixel * channels + channel);
            let mut gradients = [V::splat(token, 0.0); P];
            for (p, gradient) in gradients.iter_mut().enumerate() {
                *gradient = E::load::<V>(token, from.add(p * channels));
                // What the next row reads.
                V::prefetch(token, from.wrapping_add(row.gradient.len() + p * channels));
            }
            for at in 0..P * S * S {
                let place = start + (K - S + at % (P * S) + (1 + at / (P * S)) * columns) * channels;
                V::prefetch(token, row.lines[line + L - 1].as_ptr().wrapping_add(place));
            }
            for (at, sums) in sums.iter_mut().enumerate() {
                let line = row.lines[line + at].as_ptr().add(start);
                // Each column is loaded once for all pixels that read it.
                for column in 0..(P - 1) * S + K {
                    let value = E::load::<V>(token, line.add(column * channels));
                    for (p, gradient) in gradients.iter().enumerate() {
                        if column >= p * S && column - p * S < K {
                            sums[column - p * S] = value.times_plus(*gradient, sums[column - p * S]);
                        }
                    }
                }
            }
        }
    }

    /// The sums of `L` lines of a row from `line` on.
    #[inline(always)]
    fn block<V: Vector, const L: usize>(
        &mut self,
        token: V::Token,
        row: &TapRow<'_, E>,
        inner: &Range<usize>,
        line: usize,
        channel: usize,
    ) {
        let TapSums { first, columns, channels, .. } = self.0;
        let gradient = row.gradient;
        let mut sums = [[V::splat(token, 0.0); K]; L];
        let lines: [&[E]; L] = std::array::from_fn(|at| row.lines[line + at]);
        let blocks = inner.start..inner.end - inner.len() % BLOCK;
        for pixel in blocks.clone().step_by(BLOCK) {
            // SAFETY: all of the block's pixels are inner ones; everything else was checked by `run`.
            unsafe { self.pixels::<V, L, BLOCK>(token, (row, line), pixel, channel, &mut sums) }
        }
        for pixel in blocks.end..inner.end {
            // SAFETY: as above.
            unsafe { self.pixels::<V, L, 1>(token, (row, line), pixel, channel, &mut sums) }
        }
        for pixel in (0..inner.start).chain(inner.end..gradient.len() / channels) {
            let gradient = E::of::<V>(token, &gradient[pixel * channels + channel..]);
            for (sums, line) in sums.iter_mut().zip(lines) {
                for (tap, sum) in sums.iter_mut().enumerate() {
                    let column = ((pixel * S + tap) as isize + first) as usize;
                    if column < columns {
                        *sum = E::of::<V>(token, &line[column * channels + channel..]).times_plus(gradient, *sum);
                    }
                }
            }
        }
        for (at, sums) in (row.first_tap + line..).zip(sums) {
            for (tap, sum) in sums.into_iter().enumerate() {
                let place = &mut self.0.sums[(at * K + tap) * channels + channel..];
                V::of(token, place).plus(sum).put(place);
            }
        }
    }
}
