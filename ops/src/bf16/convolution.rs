//! 3x3 convolutions on bf16 maps, and their gradients.

use super::photos::copy_photo;
use super::product::{Grid, OuterPairs, PackedPairs, Row, pair_columns, pair_neighbours};
use super::token::{Avx512Bf16, rounded};
use super::vector::Output;
use crate::activation::{Activation, Finish, Mask};
use crate::convolution::{Sums, TAPS, taps};
use crate::element::Element;
use crate::maps::{Band, Photos, Shape, Source, cut, interleave, padded_row};
use crate::spread::{spread_items, with_scratch};
use crate::{Spread, Workers};

/// Maps that a layer reads.
#[derive(Debug, Clone, Copy)]
pub enum Bf16Maps<'a> {
    /// Feature maps.
    Features(&'a [u16]),
    /// Photos.
    Photos(Photos<'a>),
}

/// Integers up to 255 are exact in bf16: the division by 255 is folded into the weights, or done to their gradient.
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

/// A whole number as bf16: the upper half of an f32.
fn whole(number: u8) -> u16 {
    (f32::from(number).to_bits() >> 16) as u16
}

/// What a convolution reads.
struct Inputs<'a> {
    /// With the channels of all inputs, and with those of zeros.
    shape: Shape,
    /// Channels of all inputs.
    own: usize,
    /// The inputs and their channels.
    maps: Vec<(Bf16Maps<'a>, usize)>,
    /// A pixel beyond the edge.
    edge: Vec<u16>,
    /// Factor of the products.
    scale: f32,
}

impl<'a> Inputs<'a> {
    /// One or two inputs, the first of this shape; the number of channels is filled up to a multiple of `multiple` with zeros.
    fn new(shape: Shape, inputs: &[Bf16Maps<'a>], multiple: usize) -> Self {
        assert_eq!(inputs[0].len(), shape.len());
        assert!(inputs.iter().all(|input| input.len().is_multiple_of(shape.pixels())));
        let maps: Vec<(Bf16Maps<'a>, usize)> = inputs.iter().map(|&it| (it, it.len() / shape.pixels())).collect();
        let own: usize = maps.iter().map(|(_, channels)| channels).sum();
        let held = own.next_multiple_of(multiple);
        let edge = if maps.len() == 1 { maps[0].0.edge([own, held]) } else { vec![0; held] };
        let scale = if matches!(inputs[0], Bf16Maps::Photos(_)) { PHOTO_SCALE } else { 1.0 };
        Self { shape: shape.with_channels(held), own, maps, edge, scale }
    }

    /// Copies a row of pixels from `pixel` on.
    fn copy(&self, pixel: usize, to: &mut [u16]) {
        match self.maps[..] {
            [(Bf16Maps::Features(maps), own)] => to.copy_from_slice(&maps[pixel * own..][..to.len()]),
            [(Bf16Maps::Photos(photos), own)] => {
                copy_photo([own, self.shape.channels], &photos.bytes[pixel * own..], to, whole);
            }
            [(Bf16Maps::Features(first), first_width), (Bf16Maps::Features(second), second_width)] => {
                let parts = [(first, first_width), (second, second_width)];
                interleave(&parts.map(|(maps, width)| (&maps[pixel * width..], width)), to);
            }
            _ => unreachable!("there are photos, or one or two maps"),
        }
    }

    /// Passes a padded band to `work`.
    fn with_padded(&self, band: Band, work: impl FnOnce(Padded<'_>)) {
        let shape = self.shape;
        with_scratch(band.padded_len(shape), |scratch: &mut [u16]| {
            band.pad(shape, &self.edge, scratch, |pixel, to| self.copy(pixel, to));
            work(Padded { shape, elements: scratch });
        });
    }

    /// Calls `work` with the pairs of neighbouring pixels of a padded band, `[rows + 2, columns + 2, channels, 2]`, each
    /// pixel with the one to its right, the last with zeros, and with those of the band's gradient, each pixel of an even
    /// column with the one to its right, `[rows, columns / 2 rounded up, out, 2]`.
    fn with_pairs(&self, token: Avx512Bf16, band: Band, gradient: &[u16], work: impl FnOnce([&[u16]; 2])) {
        let (shape, out) = (self.shape, gradient.len() / band.pixels(self.shape));
        let (row_len, padded_len) = (padded_row(shape), 2 * band.padded_len(shape));
        let pairs_len = band.rows * shape.columns.div_ceil(2) * 2 * out;
        with_scratch(row_len + padded_len + pairs_len, |scratch: &mut [u16]| {
            let (row, rest) = scratch.split_at_mut(row_len);
            let (padded, pairs) = rest.split_at_mut(padded_len);
            for (at, to) in padded.chunks_exact_mut(2 * row_len).enumerate() {
                band.pad_row(shape, at, &self.edge, row, |pixel, to| self.copy(pixel, to));
                pair_neighbours(token, row, shape.channels, to);
            }
            let rows = gradient.chunks_exact(shape.columns * out);
            rows.zip(pairs.chunks_exact_mut(pairs_len / band.rows))
                .for_each(|(row, to)| pair_columns(token, row, out, to));
            work([padded, pairs]);
        });
    }
}

/// A padded band.
#[derive(Clone, Copy)]
struct Padded<'a> {
    shape: Shape,
    elements: &'a [u16],
}

impl Padded<'_> {
    /// Computes row `row` of the band's output.
    fn product<E: Element>(
        &self,
        token: Avx512Bf16,
        row: usize,
        (weights, bias): (&PackedPairs, &[f32]),
        finish: Finish<'_, u16>,
        outputs: [&mut [E]; 2],
    ) {
        let len = padded_row(self.shape);
        let (stride, run, pixels) = (self.shape.channels, 3 * self.shape.channels, self.shape.columns);
        let sources = [0, 1, 2].map(|tap| Source { elements: &self.elements[(row + tap) * len..][..len], stride, run });
        Row { token, sources: &sources, weights, bias: bias.into(), pixels, finish, gap: 0 }.product(outputs);
    }
}

/// [`convolution`](crate::convolution::convolution) on bf16 maps.
///
/// `shape` is the shape of the first input; `parameters` are the weight, `[out, channels of all inputs, 3, 3]`, and the bias.
#[inline(never)]
pub fn bf16_convolution(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    inputs: &[Bf16Maps<'_>],
    parameters: [&[f32]; 2],
    activation: Activation,
    output: Output<'_>,
) {
    match output {
        Output::Bf16(output) => convolve(token, spread, shape, inputs, parameters, activation, output),
        Output::F32(output) => convolve(token, spread, shape, inputs, parameters, activation, output),
    }
}

fn convolve<E: Element>(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    inputs: &[Bf16Maps<'_>],
    [weight, bias]: [&[f32]; 2],
    activation: Activation,
    output: &mut [E],
) {
    // Pairs of channels are multiplied, for 8 outputs two at once.
    let inputs = Inputs::new(shape, inputs, 4);
    let (out, own, shape) = (bias.len(), inputs.own, inputs.shape);
    assert_eq!(weight.len(), out * own * TAPS);
    assert_eq!(output.len(), shape.pixels() * out);
    let columns: Vec<usize> = (0..out).map(|n| n * own * TAPS).collect();
    let mut rows: Vec<Option<usize>> = taps(own).map(Some).collect();
    if own < shape.channels {
        let zeros = vec![None; shape.channels - own];
        rows = rows.chunks_exact(own).flat_map(|pixel| [pixel, &zeros].concat()).collect();
    }
    let packed = PackedPairs::new(token, weight, inputs.scale, &rows, [&columns, &[]]);
    let finish = Finish::Output { activation, residual: None };
    let bands = Band::all(shape, spread.threads());
    spread_items(spread, cut(&bands, shape.with_channels(out), output), |index, part| {
        inputs.with_padded(bands[index], |padded| {
            for (row, output) in part.chunks_exact_mut(shape.columns * out).enumerate() {
                padded.product(token, row, (&packed, bias), finish, [output, &mut []]);
            }
        });
    });
}

/// [`convolution_input_gradient`](crate::convolution::convolution_input_gradient) on bf16 maps, its sums rounded to bf16.
///
/// `shape` is the shape of the first input; the second of `inputs` is empty if there is only one. With two inputs there
/// is no mask.
pub fn bf16_convolution_input_gradient(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    output_gradient: &[u16],
    weight: &[f32],
    mask: Option<Mask<'_, u16>>,
    inputs: [&mut [u16]; 2],
) {
    let gradient_shape = shape.with_channels(output_gradient.len() / shape.pixels());
    let gradient = Inputs::new(gradient_shape, &[Bf16Maps::Features(output_gradient)], 1);
    let out = gradient.own;
    let all_channels = weight.len() / out / TAPS;
    assert_eq!(weight.len(), out * all_channels * TAPS);
    assert_eq!(inputs[0].len() + inputs[1].len(), shape.pixels() * all_channels);
    // The kernel rotated by 180 degrees, with inputs and outputs exchanged.
    let turned = (0..TAPS).rev().flat_map(|tap| (0..out).map(move |channel| channel * all_channels * TAPS + tap));
    let rows: Vec<Option<usize>> = turned.map(Some).collect();
    let columns: Vec<usize> = (0..all_channels).map(|n| n * TAPS).collect();
    let widths = [shape.channels, all_channels - shape.channels];
    let packed = PackedPairs::new(token, weight, 1.0, &rows, columns.split_at(widths[0]).into());
    let no_bias = vec![0.0; all_channels];
    let bands = Band::all(shape, spread.threads());
    let [first, second] = inputs;
    let firsts = cut(&bands, shape.with_channels(widths[0]), first);
    let seconds = cut(&bands, shape.with_channels(widths[1]), second);
    let parts = firsts.into_iter().zip(seconds).collect();
    spread_items(spread, parts, |index, (first, second)| {
        let band = bands[index];
        let finish = Finish::Gradient { skip: None, mask }.map(|it| band.of(shape, it));
        gradient.with_padded(band, |padded| {
            for row in 0..band.rows {
                let places = widths.map(|width| row * shape.columns * width..(row + 1) * shape.columns * width);
                let finish = finish.map(|it| &it[places[0].clone()]);
                let outputs = [&mut first[places[0].clone()], &mut second[places[1].clone()]];
                padded.product(token, row, (&packed, &no_bias), finish, outputs);
            }
        });
    });
}

/// [`convolution_weight_gradient`](crate::convolution::convolution_weight_gradient) from bf16 maps: the sums are f32.
///
/// `shape` is the shape of the first input; `weight` is `[out, channels of all inputs, 3, 3]`, `bias` `[out]`. The order
/// of summation depends only on the number of threads.
pub fn bf16_convolution_weight_gradient(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    inputs: &[Bf16Maps<'_>],
    output_gradient: &[u16],
    [weight, bias]: [&mut [f32]; 2],
) {
    let inputs = Inputs::new(shape, inputs, 1);
    let (out, shape) = (bias.len(), inputs.shape);
    let run = 3 * shape.channels;
    assert_eq!(output_gradient.len(), shape.pixels() * out);
    assert_eq!(weight.len(), out * shape.channels * TAPS);
    let sums = Sums { run, out, turned: out == 8 && run.is_multiple_of(8) };
    let output_shape = shape.with_channels(out);
    let workers = Workers { instructions: token.instructions(), spread };
    let total = workers.sum_over_bands(shape, sums.len(), |band, total| {
        inputs.with_pairs(token, band, band.of(output_shape, output_gradient), |[padded, gradient]| {
            add_pairs(token, &sums, (shape, band.rows), [padded, gradient], total);
        });
    });
    let (of_taps, of_bias) = total.split_at(sums.len() - out);
    bias.copy_from_slice(of_bias);
    sums.put(of_taps, shape.channels, inputs.scale, weight);
}

/// Adds the contribution of a band with these many rows, whose pairs are given.
fn add_pairs(
    token: Avx512Bf16,
    sums: &Sums,
    (shape, rows): (Shape, usize),
    [padded, gradient]: [&[u16]; 2],
    total: &mut [f32],
) {
    let Sums { run, out, turned } = *sums;
    let (padded_len, row_len, pairs) = (2 * padded_row(shape), gradient.len() / rows, shape.columns.div_ceil(2));
    let (taps, bias) = total.split_at_mut(3 * run * out);
    for (tap_row, sums) in taps.chunks_exact_mut(run * out).enumerate() {
        let gradients = gradient.chunks_exact(row_len);
        let mut sides: Vec<[&[u16]; 2]> =
            padded.chunks_exact(padded_len).skip(tap_row).zip(gradients).map(Into::into).collect();
        // Two pixels further on: the pairs of the input overlap, those of the gradient do not.
        let (mut strides, mut size) = ([4 * shape.channels, 2 * out], [run, out]);
        if turned {
            for it in &mut sides {
                it.reverse();
            }
            strides.reverse();
            size.reverse();
        }
        let [depth, columns] = size;
        OuterPairs { token, grid: Grid { rows: &sides, strides, pairs, depth, columns }, sums }.add();
    }
    super::product::add_columns(token, gradient, bias);
}
