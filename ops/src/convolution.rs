//! 3x3 convolutions with stride 1, zero padding, bias and `ReLU`, and their gradients.
//!
//! Weights are in ONNX order, `[out, in, 3, 3]`. A convolution reads one or two inputs with the same pixels: the channels
//! of the second follow those of the first. They are put together band by band, while they are padded.

use super::activation::{Activation, Finish, Mask};
use super::maps::{Band, Maps, Shape, Source, cut, interleave, padded_row};
use super::product::{ColumnSums, OuterProduct, Pack, Packed, Places, RowProduct};
use super::spread::{spread_items, with_scratch};
use super::{Instructions, Workers};

/// Taps of a kernel.
pub const TAPS: usize = 9;

/// `output = activation(bias + inputs * weight)`.
///
/// `shape` is the shape of the first input; `weight` is `[out, channels of all inputs, 3, 3]`, `bias` `[out]`, `output`
/// `[batch, rows, columns, out]`.
pub fn convolution(
    workers: Workers<'_>,
    shape: Shape,
    inputs: &[Maps<'_>],
    [weight, bias]: [&[f32]; 2],
    activation: Activation,
    output: &mut [f32],
) {
    let instructions = workers.instructions;
    let inputs = Inputs::new(shape, inputs);
    let (out, shape) = (bias.len(), inputs.shape);
    let columns: Vec<usize> = (0..out).map(|n| n * shape.channels * TAPS).collect();
    assert_eq!(weight.len(), out * shape.channels * TAPS);
    assert_eq!(output.len(), shape.pixels() * out);
    let places = Places { rows: taps(shape.channels).collect(), columns };
    let packed = instructions.run(Pack { tensor: weight, places, first_output: out });
    let finish = Finish::Output { activation, residual: None };
    let bands = Band::all(shape, workers.spread.threads());
    let parts = cut(&bands, shape.with_channels(out), output);
    spread_items(workers.spread, parts, |index, part| {
        inputs.with_padded(bands[index], |padded| {
            for (row, output) in part.chunks_exact_mut(shape.columns * out).enumerate() {
                padded.product(instructions, row, (&packed, bias), finish, [output, &mut []]);
            }
        });
    });
}

/// The gradient of a convolution's inputs, from the gradient of its output, `[batch, rows, columns, out]`, through `mask`,
/// whose maps are the input itself.
///
/// `shape` is the shape of the first input; the second of `inputs` is empty if there is only one. With two inputs there
/// is no mask.
pub fn convolution_input_gradient(
    workers: Workers<'_>,
    shape: Shape,
    output_gradient: &[f32],
    weight: &[f32],
    mask: Option<Mask<'_>>,
    inputs: [&mut [f32]; 2],
) {
    let instructions = workers.instructions;
    let gradient = [Maps::Features(output_gradient)];
    let gradient = Inputs::new(shape.with_channels(output_gradient.len() / shape.pixels()), &gradient);
    let out = gradient.shape.channels;
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
        let mask = mask.map(|mask| mask.map(|it| band.of(shape, it)));
        gradient.with_padded(band, |padded| {
            for row in 0..band.rows {
                let places = widths.map(|width| row * shape.columns * width..(row + 1) * shape.columns * width);
                let mask = mask.map(|mask| mask.map(|it| &it[places[0].clone()]));
                let finish = Finish::Gradient { skip: None, mask };
                let outputs = [&mut first[places[0].clone()], &mut second[places[1].clone()]];
                padded.product(instructions, row, (&packed, &no_bias), finish, outputs);
            }
        });
    });
}

/// The gradients of a convolution's weight and bias, from the gradient of its output, `[batch, rows, columns, out]`.
///
/// `shape` is the shape of the first input; `weight` is `[out, channels of all inputs, 3, 3]`, `bias` `[out]`. The order
/// of summation depends only on the number of threads.
pub fn convolution_weight_gradient(
    workers: Workers<'_>,
    shape: Shape,
    inputs: &[Maps<'_>],
    output_gradient: &[f32],
    [weight, bias]: [&mut [f32]; 2],
) {
    let instructions = workers.instructions;
    let inputs = Inputs::new(shape, inputs);
    let (out, shape) = (bias.len(), inputs.shape);
    let run = 3 * shape.channels;
    assert_eq!(output_gradient.len(), shape.pixels() * out);
    assert_eq!(weight.len(), out * shape.channels * TAPS);
    // For narrow outputs the two sides are swapped: a run of 3 input pixels fills a vector better than one output pixel
    // does.
    let sums = Sums { run, out, turned: out == 8 && run.is_multiple_of(8) };
    let output_shape = shape.with_channels(out);
    let total = workers.sum_over_bands(shape, sums.len(), |band, total| {
        let gradient = band.of(output_shape, output_gradient);
        inputs.with_padded(band, |padded| sums.add(instructions, padded, gradient, total));
    });
    let (of_taps, of_bias) = total.split_at(sums.len() - out);
    bias.copy_from_slice(of_bias);
    sums.put(of_taps, shape.channels, 1.0, weight);
}

/// Positions of one output channel's weights, in the order in which a pixel reads its input: kernel row, kernel column,
/// channel.
pub(super) fn taps(channels: usize) -> impl Iterator<Item = usize> {
    let row = move |tap_row| (0..3 * channels).map(move |at| (at % channels * 3 + tap_row) * 3 + at / channels);
    (0..3).flat_map(row)
}

/// Memory layout of the sums of a weight gradient: a matrix for each tap row, then the bias.
pub(super) struct Sums {
    /// Numbers read per pixel from a row of input.
    pub(super) run: usize,
    pub(super) out: usize,
    /// `[out, run]` instead of `[run, out]`.
    pub(super) turned: bool,
}

impl Sums {
    pub(super) fn len(&self) -> usize {
        3 * self.run * self.out + self.out
    }

    fn at(&self, tap: usize, k: usize, n: usize) -> usize {
        tap * self.run * self.out + if self.turned { n * self.run + k } else { k * self.out + n }
    }

    /// Writes the matrices, multiplied by `scale`, in the order of a weight of `channels` inputs.
    pub(super) fn put(&self, of_taps: &[f32], channels: usize, scale: f32, weight: &mut [f32]) {
        for (k, place) in taps(channels).enumerate() {
            let (tap, k) = (k / self.run, k % self.run);
            for (n, weight) in weight.chunks_exact_mut(channels * TAPS).enumerate() {
                weight[place] = of_taps[self.at(tap, k, n)] * scale;
            }
        }
    }

    fn add(&self, instructions: Instructions, padded: Padded<'_>, gradient: &[f32], total: &mut [f32]) {
        let Self { run, out, .. } = *self;
        let (shape, row_len) = (padded.shape, padded.shape.columns * out);
        let (taps, bias) = total.split_at_mut(3 * run * out);
        for (tap_row, sums) in taps.chunks_exact_mut(run * out).enumerate() {
            let rows = gradient.chunks_exact(row_len).enumerate();
            let pairs = rows.map(|(row, gradient)| [padded.row(row + tap_row), gradient]);
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
        instructions.run(ColumnSums { maps: gradient, sums: bias });
    }
}

/// What a convolution reads.
pub(super) struct Inputs<'a> {
    /// With the channels of all inputs.
    shape: Shape,
    /// The inputs and their channels.
    maps: Vec<(Maps<'a>, usize)>,
    /// A pixel beyond the edge.
    edge: Vec<f32>,
}

impl<'a> Inputs<'a> {
    /// One or two inputs, the first of this shape.
    pub(super) fn new(shape: Shape, inputs: &[Maps<'a>]) -> Self {
        assert_eq!(inputs[0].len(), shape.len());
        assert!(inputs.iter().all(|input| input.len().is_multiple_of(shape.pixels())));
        let maps: Vec<(Maps<'a>, usize)> = inputs.iter().map(|&it| (it, it.len() / shape.pixels())).collect();
        let edge: Vec<f32> = maps.iter().flat_map(|(input, channels)| input.edge(*channels)).collect();
        Self { shape: shape.with_channels(edge.len()), maps, edge }
    }

    /// Passes a padded band to `work`.
    fn with_padded(&self, band: Band, work: impl FnOnce(Padded<'_>)) {
        let shape = self.shape;
        with_scratch(band.padded_len(shape), |scratch| {
            band.pad(shape, &self.edge, scratch, |pixel, to| self.copy(pixel, to));
            work(Padded { shape, elements: scratch });
        });
    }

    /// With the channels of all inputs.
    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Fills `to` with a row of a band and a pixel on either side; row 0 is the one above it. What is left of `to`, and rows
    /// further below than the first under the maps, are zeros.
    pub(super) fn pad_row_or_zeros(&self, band: Band, row: usize, to: &mut [f32]) {
        let (padded, beyond) = to.split_at_mut(padded_row(self.shape));
        band.pad_row(self.shape, row, &self.edge, padded, |pixel, to| self.copy(pixel, to));
        beyond.fill(0.0);
    }

    /// Copies the pixels from `pixel` on.
    fn copy(&self, pixel: usize, to: &mut [f32]) {
        match self.maps[..] {
            [(input, channels)] => input.copy(pixel * channels, to),
            _ => interleave(&self.parts(pixel), to),
        }
    }

    /// The feature maps from a pixel on, with their channels.
    fn parts(&self, pixel: usize) -> Vec<(&'a [f32], usize)> {
        let part = |&(input, channels): &(Maps<'a>, usize)| match input {
            Maps::Features(elements) => (&elements[pixel * channels..], channels),
            Maps::Photos(_) => unreachable!("photos are the only input"),
        };
        self.maps.iter().map(part).collect()
    }
}

/// A padded band.
#[derive(Clone, Copy)]
struct Padded<'a> {
    shape: Shape,
    elements: &'a [f32],
}

impl<'a> Padded<'a> {
    /// A row; row 0 is the one above the band.
    fn row(&self, row: usize) -> &'a [f32] {
        &self.elements[row * padded_row(self.shape)..][..padded_row(self.shape)]
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
        let (stride, run, pixels) = (self.shape.channels, 3 * self.shape.channels, self.shape.columns);
        let sources = [0, 1, 2].map(|tap_row| Source { elements: self.row(row + tap_row), stride, run });
        instructions.run(RowProduct { sources: &sources, weights, bias, pixels, finish, outputs });
    }
}
