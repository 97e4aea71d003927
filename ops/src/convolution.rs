//! 3x3 convolutions with stride 1, zero padding, bias and `ReLU`, and their gradients.
//!
//! Weights are in ONNX order, `[out, in, 3, 3]`. A convolution reads one or two inputs of the same shape: the channels
//! of the second follow those of the first, without the two being concatenated in memory.

use super::maps::{Band, Maps, Shape, cut, padded_row};
use super::product::{Finish, OuterProduct, Pack, Packed, Places, RowProduct};
use super::spread::{spread_items, with_scratch};
use super::{Instructions, Workers};

/// Taps of a kernel.
const TAPS: usize = 9;

/// `output = max(0, bias + inputs * weight)`, or without the maximum if there is no `ReLU`.
///
/// `shape` is the shape of each input; `weight` is `[out, inputs x in, 3, 3]`, `bias` `[out]`, `output`
/// `[batch, rows, columns, out]`.
pub fn convolution(
    workers: Workers<'_>,
    shape: Shape,
    inputs: &[Maps<'_>],
    [weight, bias]: [&[f32]; 2],
    relu: bool,
    output: &mut [f32],
) {
    let instructions = workers.instructions;
    let (out, channels) = (bias.len(), shape.channels);
    let all_channels = channels * inputs.len();
    assert_eq!(weight.len(), out * all_channels * TAPS);
    assert_eq!(output.len(), shape.pixels() * out);
    assert!(inputs.iter().all(|input| input.len() == shape.len()));
    let places = Places {
        rows: taps(channels, inputs.len()).collect(),
        columns: (0..out).map(|n| n * all_channels * TAPS).collect(),
    };
    let packed = instructions.run(Pack { tensor: weight, places, first_output: out });
    let finish = if relu { Finish::Relu } else { Finish::Plain };
    let bands = Band::all(shape, workers.spread.threads());
    let parts = cut(&bands, shape.with_channels(out), output);
    spread_items(workers.spread, parts, |index, part| {
        with_padded(bands[index], shape, inputs, |padded| {
            for (row, output) in part.chunks_exact_mut(shape.columns * out).enumerate() {
                padded.product(instructions, row, (&packed, bias), finish, [output, &mut []]);
            }
        });
    });
}

/// The gradient of a convolution's inputs, from the gradient of its output, `[batch, rows, columns, out]`; zero
/// wherever `mask`, which is the input itself, is not positive.
///
/// `shape` is the shape of each input; the second of `inputs` is empty if there is only one. With two inputs there is
/// no mask.
pub fn convolution_input_gradient(
    workers: Workers<'_>,
    shape: Shape,
    output_gradient: &[f32],
    weight: &[f32],
    mask: Option<&[f32]>,
    inputs: [&mut [f32]; 2],
) {
    let instructions = workers.instructions;
    let output_shape = shape.with_channels(output_gradient.len() / shape.pixels());
    let out = output_shape.channels;
    let all_channels = weight.len() / out / TAPS;
    assert_eq!(weight.len(), out * all_channels * TAPS);
    assert_eq!(inputs[0].len() + inputs[1].len(), shape.pixels() * all_channels);
    // The kernel rotated by 180 degrees, with inputs and outputs exchanged.
    let turned = (0..TAPS).rev().flat_map(|tap| (0..out).map(move |channel| channel * all_channels * TAPS + tap));
    let places = Places { rows: turned.collect(), columns: (0..all_channels).map(|n| n * TAPS).collect() };
    let widths = [shape.channels, all_channels - shape.channels];
    let packed = instructions.run(Pack { tensor: weight, places, first_output: widths[0] });
    let no_bias = vec![0.0; all_channels];
    let bands = Band::all(shape, workers.spread.threads());
    let [first, second] = inputs;
    let firsts = cut(&bands, shape.with_channels(widths[0]), first);
    let seconds = cut(&bands, shape.with_channels(widths[1]), second);
    let parts = firsts.into_iter().zip(seconds).collect();
    spread_items(workers.spread, parts, |index, (first, second)| {
        let band = bands[index];
        let mask = mask.map(|mask| band.of(shape, mask));
        with_padded(band, output_shape, &[Maps::Features(output_gradient)], |padded| {
            for row in 0..band.rows {
                let places = widths.map(|width| row * shape.columns * width..(row + 1) * shape.columns * width);
                let finish = mask.map_or(Finish::Plain, |mask| Finish::Mask(&mask[places[0].clone()]));
                let outputs = [&mut first[places[0].clone()], &mut second[places[1].clone()]];
                padded.product(instructions, row, (&packed, &no_bias), finish, outputs);
            }
        });
    });
}

/// The gradients of a convolution's weight and bias, from the gradient of its output, `[batch, rows, columns, out]`.
///
/// `shape` is the shape of each input; `weight` is `[out, inputs x in, 3, 3]`, `bias` `[out]`. The order of summation
/// depends only on the number of threads.
pub fn convolution_weight_gradient(
    workers: Workers<'_>,
    shape: Shape,
    inputs: &[Maps<'_>],
    output_gradient: &[f32],
    [weight, bias]: [&mut [f32]; 2],
) {
    let instructions = workers.instructions;
    let (out, channels) = (bias.len(), shape.channels);
    let (all_channels, run) = (channels * inputs.len(), 3 * channels);
    assert_eq!(output_gradient.len(), shape.pixels() * out);
    assert_eq!(weight.len(), out * all_channels * TAPS);
    assert!(inputs.iter().all(|input| input.len() == shape.len()));
    // For narrow outputs the two sides are swapped: a run of 3 input pixels fills a vector better than one output pixel
    // does.
    let turned = out == 8 && run.is_multiple_of(8);
    let sums = Sums { taps: 3 * inputs.len(), run, out, turned };
    let output_shape = shape.with_channels(out);
    let total = workers.sum_over_bands(shape, sums.len(), |band, total| {
        let gradient = band.of(output_shape, output_gradient);
        with_padded(band, shape, inputs, |padded| sums.add(instructions, padded, gradient, total));
    });
    let (of_taps, of_bias) = total.split_at(sums.len() - out);
    bias.copy_from_slice(of_bias);
    for (k, place) in taps(channels, inputs.len()).enumerate() {
        let (tap, k) = (k / run, k % run);
        for (n, weight) in weight.chunks_exact_mut(all_channels * TAPS).enumerate() {
            weight[place] = of_taps[sums.at(tap, k, n)];
        }
    }
}

/// Positions of one output channel's weights, in the order in which a pixel reads its input: kernel row, input, kernel
/// column, channel.
pub(super) fn taps(channels: usize, inputs: usize) -> impl Iterator<Item = usize> {
    let of_input = move |tap_row: usize, input: usize| {
        (0..3 * channels).map(move |at| ((input * channels + at % channels) * 3 + tap_row) * 3 + at / channels)
    };
    (0..3).flat_map(move |tap_row| (0..inputs).flat_map(move |input| of_input(tap_row, input)))
}

/// Memory layout of the sums of a weight gradient: a matrix for each tap row of each input, then the bias.
struct Sums {
    /// Tap rows times inputs.
    taps: usize,
    /// Numbers read per pixel from a row of input.
    run: usize,
    out: usize,
    /// `[out, run]` instead of `[run, out]`.
    turned: bool,
}

impl Sums {
    fn len(&self) -> usize {
        self.taps * self.run * self.out + self.out
    }

    fn at(&self, tap: usize, k: usize, n: usize) -> usize {
        tap * self.run * self.out + if self.turned { n * self.run + k } else { k * self.out + n }
    }

    fn add(&self, instructions: Instructions, padded: Padded<'_>, gradient: &[f32], total: &mut [f32]) {
        let Self { run, out, .. } = *self;
        let (shape, row_len) = (padded.shape, padded.shape.columns * out);
        let (taps, bias) = total.split_at_mut(self.taps * run * out);
        for (tap, sums) in taps.chunks_exact_mut(run * out).enumerate() {
            let (tap_row, input) = (tap / padded.inputs.len(), tap % padded.inputs.len());
            let rows = gradient.chunks_exact(row_len).enumerate();
            let pairs = rows.map(|(row, gradient)| [padded.row(input, row + tap_row), gradient]);
            let mut rows: Vec<[&[f32]; 2]> = pairs.collect();
            let (mut strides, mut size) = ([shape.channels, out], [run, out]);
            if self.turned {
                for pair in &mut rows {
                    pair.reverse();
                }
                strides.reverse();
                size.reverse();
            }
            let [depth, columns] = size;
            let job = OuterProduct { rows: &rows, strides, pixels: shape.columns, depth, columns, sums };
            instructions.run(job);
        }
        for pixel in gradient.chunks_exact(out) {
            for (sum, gradient) in bias.iter_mut().zip(pixel) {
                *sum += gradient;
            }
        }
    }
}

/// A band of one or two inputs, padded with zeros.
#[derive(Clone, Copy)]
struct Padded<'a> {
    shape: Shape,
    inputs: &'a [&'a [f32]],
}

impl<'a> Padded<'a> {
    /// Row `row` of an input; row 0 is the one above the band.
    fn row(&self, input: usize, row: usize) -> &'a [f32] {
        &self.inputs[input][row * padded_row(self.shape)..][..padded_row(self.shape)]
    }

    /// Computes row `row` of the band's output.
    fn product(
        &self,
        instructions: Instructions,
        row: usize,
        (weights, bias): (&Packed, &[f32]),
        finish: Finish<'_>,
        outputs: [&mut [f32]; 2],
    ) {
        let mut rows: [&[f32]; 6] = [&[]; 6];
        let taps = 3 * self.inputs.len();
        for (tap, place) in rows[..taps].iter_mut().enumerate() {
            *place = self.row(tap % self.inputs.len(), row + tap / self.inputs.len());
        }
        let (stride, run, pixels) = (self.shape.channels, 3 * self.shape.channels, self.shape.columns);
        let job = RowProduct { rows: &rows[..taps], stride, run, weights, bias, pixels, finish, outputs };
        instructions.run(job);
    }
}

/// Passes a zero-padded band of each input to `work`.
fn with_padded(band: Band, shape: Shape, inputs: &[Maps<'_>], work: impl FnOnce(Padded<'_>)) {
    let len = band.padded_len(shape);
    with_scratch(inputs.len() * len, |scratch| {
        for (input, to) in inputs.iter().zip(scratch.chunks_exact_mut(len)) {
            band.pad(shape, to, |start, to| input.copy(start, to));
        }
        let padded: Vec<&[f32]> = scratch.chunks_exact(len).collect();
        work(Padded { shape, inputs: &padded });
    });
}
