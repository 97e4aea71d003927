//! A transposed convolution with a 2x2 kernel and stride 2, a skip connection beside it and a 3x3 convolution over both, as
//! one layer: both convolutions are linear, so each of the four pixels that come of one below is a sum over 2x2 pixels below
//! and 3x3 of the skip connection. There are fewer multiplications than in two steps, and no maps between them that would
//! have to be quantised.

use super::parameters::{Avx512Vnni, Int8Parameters};
use super::row::{Element, Row, Source};
use crate::Spread;
use crate::maps::{Band, Shape, cut, padded_row};
use crate::quantised::{EDGES, PHASES};
use crate::spread::{spread_items, with_scratch};
use crate::up::up_shape;

/// Weights of the layer, and what makes its output of their sums.
#[derive(Debug, Clone, Copy)]
pub struct UpParameters<'a> {
    /// For the phases (0, 0), (0, 1), (1, 0), (1, 1) of rows and columns, each packed:
    /// `[2, 2, channels below, out]`, then `[3, 3, channels of the skip connection, out]`.
    pub weights: &'a [i8],
    /// `[phases, out]`.
    pub scale: &'a [f32],
    /// `[phases, row at an edge, column at an edge, out]`: beyond the edges there is no bias of the transposed convolution.
    pub bias: &'a [f32],
}

impl<'a> UpParameters<'a> {
    fn out(&self) -> usize {
        self.scale.len() / PHASES
    }

    /// Those of a phase.
    fn of(&self, phase: usize, [row, column]: [bool; 2]) -> Int8Parameters<'a> {
        let (out, depth) = (self.out(), self.weights.len() / PHASES);
        let edge = phase * EDGES + usize::from(row) * 2 + usize::from(column);
        Int8Parameters {
            weights: &self.weights[phase * depth..][..depth],
            scale: &self.scale[phase * out..][..out],
            bias: &self.bias[edge * out..][..out],
        }
    }
}

/// Computes the layer, with `ReLU`, of maps below, `[batch, rows, columns, channels]`, and those of the skip connection,
/// `[batch, 2 rows, 2 columns, any channels]`, each with its zero point; `output` is `[batch, 2 rows, 2 columns, out]`.
pub fn int8_up_convolution<E: Element>(
    token: Avx512Vnni,
    spread: &dyn Spread,
    shape: Shape,
    [below, skip]: [(&[u8], u8); 2],
    parameters: UpParameters<'_>,
    output: &mut [E],
) {
    let out = parameters.out();
    let pixels = up_shape(shape, 1).len();
    let skip_shape = up_shape(shape, skip.0.len() / pixels);
    assert!(below.0.len() == shape.len() && skip.0.len() == skip_shape.len() && skip_shape.channels > 0);
    assert!(parameters.bias.len() == PHASES * EDGES * out && output.len() == pixels * out);
    let edges = [(shape, below), (skip_shape, skip)].map(|(shape, (_, zero))| vec![zero; shape.channels]);
    let bands = Band::all(shape, spread.threads());
    spread_items(spread, cut(&bands, shape.with_channels(4 * out), output), |index, part| {
        let band = bands[index];
        let of_skip = Band { photo: band.photo, first_row: 2 * band.first_row, rows: 2 * band.rows };
        let lengths = [band.padded_len(shape), of_skip.padded_len(skip_shape)];
        with_scratch(lengths[0] + lengths[1], |scratch: &mut [u8]| {
            let (padded, padded_skip) = scratch.split_at_mut(lengths[0]);
            band.pad(shape, &edges[0], padded, copy_from(below.0, shape));
            of_skip.pad(skip_shape, &edges[1], padded_skip, copy_from(skip.0, skip_shape));
            let rows = Rows { token, padded, shape, padded_skip, skip_shape, parameters };
            for (row, output) in part.chunks_exact_mut(2 * shape.columns * out).enumerate() {
                let at_edge = [0, 2 * shape.rows - 1].contains(&(of_skip.first_row + row));
                rows.output(row, at_edge, output);
            }
        });
    });
}

/// Copies a row of maps from a pixel on.
fn copy_from(maps: &[u8], shape: Shape) -> impl Fn(usize, &mut [u8]) {
    move |pixel, to| to.copy_from_slice(&maps[pixel * shape.channels..][..to.len()])
}

/// A padded band.
struct Rows<'a> {
    token: Avx512Vnni,
    padded: &'a [u8],
    shape: Shape,
    padded_skip: &'a [u8],
    skip_shape: Shape,
    parameters: UpParameters<'a>,
}

impl Rows<'_> {
    /// Computes a row of the output.
    fn output<E: Element>(&self, row: usize, row_at_edge: bool, output: &mut [E]) {
        let Self { token, parameters, .. } = *self;
        let (pixels, out) = (self.shape.columns, parameters.out());
        for column in [0, 1] {
            let phase = row % 2 * 2 + column;
            let sources = self.sources(row, column);
            let output = &mut output[column * out..];
            let (step, of_phase) = (2 * out, |edge: bool| parameters.of(phase, [row_at_edge, edge]));
            Row { token, sources: &sources, parameters: of_phase(false), pixels, step }.product(output);
            let edge = if column == 0 { 0 } else { pixels - 1 };
            let sources = sources.map(|it| it.from(edge));
            Row { token, sources: &sources, parameters: of_phase(true), pixels: 1, step }
                .product(&mut output[edge * step..]);
        }
    }

    /// What the pixels of every other column of an output row read.
    fn sources(&self, row: usize, column: usize) -> [Source<'_>; 5] {
        std::array::from_fn(|at| {
            let (elements, shape, line) = match at {
                0 | 1 => (self.padded, self.shape, row.div_ceil(2) + at),
                _ => (self.padded_skip, self.skip_shape, row + at - 2),
            };
            let channels = shape.channels;
            let elements = &elements[line * padded_row(shape)..][..padded_row(shape)];
            let (stride, run) = if at < 2 { (channels, 2 * channels) } else { (2 * channels, 3 * channels) };
            Source { elements: &elements[column * channels..], stride, run }
        })
    }
}
