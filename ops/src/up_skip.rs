//! A transposed convolution with a 2x2 kernel and stride 2, a skip connection beside it and a 3x3 convolution over both, as
//! one layer: both convolutions are linear, so each of the four pixels that come of one below, its phases, is a sum over 2x2
//! pixels below and 3x3 of the skip connection. There are fewer multiplications than in two steps, and no maps between them.

use super::Workers;
use super::activation::{Activation, Finish};
use super::convolution::TAPS;
use super::maps::{Band, Bias, Shape, Source, cut, padded_row};
use super::product::{Pack, Packed, Places, RowProduct};
use super::spread::{Scratch, Spread, spread_items, with_scratch};
use super::up::up_shape;

/// Pixels that come of one below: (0, 0), (0, 1), (1, 0), (1, 1) of rows and columns.
pub const PHASES: usize = 4;

/// Biases of a phase: whether its row and its column are at an edge of the maps.
pub const EDGES: usize = 4;

/// Pixels below that one of a phase reads.
pub(super) const TAPS_BELOW: usize = 4;

/// Rows of a phase's matrix, for so many channels below and of the skip connection.
#[must_use]
pub fn depth(below: usize, skip: usize) -> usize {
    TAPS_BELOW * below + TAPS * skip
}

/// A transposed convolution and the 3x3 convolution over its output and a skip connection.
#[derive(Debug, Clone, Copy)]
pub struct UpLayers<'a> {
    /// `[below, middle, 2, 2]`.
    pub up_weight: &'a [f32],
    /// `[middle]`.
    pub up_bias: &'a [f32],
    /// `[out, middle + skip, 3, 3]`.
    pub weight: &'a [f32],
    /// `[out]`.
    pub bias: &'a [f32],
}

/// Two such layers as one.
#[derive(Debug, Clone, PartialEq)]
pub struct Composed {
    /// `[phases, depth, out]`; the rows of a matrix are `[2, 2, below]`, then `[3, 3, skip]`.
    pub weights: Vec<f32>,
    /// `[phases, row at an edge, column at an edge, out]`: beyond the edges there is no bias of the transposed convolution.
    pub bias: Vec<f32>,
}

impl UpLayers<'_> {
    /// Whether the layers as one save at least a tenth of the multiplications. If not, their weights, which are more, are not
    /// worth reading.
    #[must_use]
    pub fn are_fewer_as_one(&self) -> bool {
        let [below, skip, middle, out] = self.channels();
        let apart = below * middle + TAPS * (middle + skip) * out;
        10 * depth(below, skip) * out <= 9 * apart
    }

    /// Below, of the skip connection, in the middle, of the output.
    fn channels(&self) -> [usize; 4] {
        let (middle, out) = (self.up_bias.len(), self.bias.len());
        [self.up_weight.len() / middle / PHASES, self.weight.len() / out / TAPS - middle, middle, out]
    }

    /// The layers as one.
    #[must_use]
    pub fn composed(&self) -> Composed {
        let mut composed = Composed { weights: Vec::new(), bias: Vec::new() };
        for phase in 0..PHASES {
            self.put_below(phase, &mut composed.weights);
            self.put_skip(&mut composed.weights);
            for at_edge in [[false, false], [false, true], [true, false], [true, true]] {
                self.put_bias(phase, at_edge, &mut composed.bias);
            }
        }
        composed
    }

    /// Adds the kernel by which pixels of a phase read those below: `[2, 2, below, out]`.
    fn put_below(&self, phase: usize, weights: &mut Vec<f32>) {
        let [below, skip, middle, out] = self.channels();
        let first = weights.len();
        weights.resize(first + TAPS_BELOW * below * out, 0.0);
        for tap in 0..TAPS {
            let [row, column] = [(phase / 2, tap / 3), (phase % 2, tap % 3)].map(|(of_phase, tap)| {
                // The tap reads a row above, at or below the pixel's own, which comes of the row below at half its number.
                let moved = of_phase + tap + 1;
                (moved / 2 - of_phase, moved % 2)
            });
            let corner = row.1 * 2 + column.1;
            let factors: Vec<f32> =
                (0..middle * out).map(|at| self.weight[(at % out * (middle + skip) + at / out) * TAPS + tap]).collect();
            let kernel = &mut weights[first + (row.0 * 2 + column.0) * below * out..][..below * out];
            for (channel, sums) in kernel.chunks_exact_mut(out).enumerate() {
                for (of_middle, factors) in factors.chunks_exact(out).enumerate() {
                    let up = self.up_weight[(channel * middle + of_middle) * PHASES + corner];
                    sums.iter_mut().zip(factors).for_each(|(sum, factor)| *sum += up * factor);
                }
            }
        }
    }

    /// Adds the kernel by which pixels read the skip connection: `[3, 3, skip, out]`.
    fn put_skip(&self, weights: &mut Vec<f32>) {
        let [_, skip, middle, out] = self.channels();
        for tap in 0..TAPS {
            for channel in middle..middle + skip {
                weights.extend((0..out).map(|n| self.weight[(n * (middle + skip) + channel) * TAPS + tap]));
            }
        }
    }

    /// Adds the bias of pixels of a phase.
    fn put_bias(&self, phase: usize, at_edge: [bool; 2], biases: &mut Vec<f32>) {
        let [_, skip, middle, _] = self.channels();
        let is_beyond = |tap: usize, of_phase: usize, at_edge: bool| at_edge && tap == 2 * of_phase;
        let taps: Vec<usize> = (0..TAPS)
            .filter(|tap| !is_beyond(tap / 3, phase / 2, at_edge[0]) && !is_beyond(tap % 3, phase % 2, at_edge[1]))
            .collect();
        let of_taps = |out: usize, channel: usize| -> f32 {
            taps.iter().map(|tap| self.weight[(out * (middle + skip) + channel) * TAPS + tap]).sum()
        };
        let of_up = |out: usize| -> f32 {
            self.up_bias.iter().enumerate().map(|(channel, bias)| bias * of_taps(out, channel)).sum()
        };
        biases.extend(self.bias.iter().enumerate().map(|(out, bias)| bias + of_up(out)));
    }
}

/// Computes the layer, with `ReLU`, of maps below, `[batch, rows, columns, channels]`, and those of the skip connection,
/// `[batch, 2 rows, 2 columns, any channels]`; `output` is `[batch, 2 rows, 2 columns, out]`.
///
/// `shape` is that of the maps below; weight and bias are those of [`Composed`].
pub fn up_skip_convolution(
    workers: Workers<'_>,
    shape: Shape,
    [below, skip]: [&[f32]; 2],
    [weight, bias]: [&[f32]; 2],
    output: &mut [f32],
) {
    let instructions = workers.instructions;
    let out = bias.len() / PHASES / EDGES;
    let matrices = weight.chunks_exact(weight.len() / PHASES);
    let packed: Vec<Packed> = matrices
        .map(|tensor| {
            let rows = (0..tensor.len() / out).map(|k| k * out).collect();
            instructions.run(Pack { tensor, places: Places { rows, columns: (0..out).collect() }, first_output: out })
        })
        .collect();
    let finish = Finish::Output { activation: Activation::Relu, residual: None };
    each_line(workers.spread, shape, [(below, 0.0), (skip, 0.0)], bias, output, |line, output| {
        instructions.run(RowProduct {
            sources: &line.sources,
            weights: &packed[line.phase],
            bias: line.bias,
            pixels: shape.columns,
            finish,
            gap: out,
            outputs: [output, &mut []],
        });
    });
}

/// Every other pixel of a row of the output: those of a phase.
pub(super) struct Line<'a, T> {
    pub(super) phase: usize,
    /// What they read: two rows below and three of the skip connection.
    pub(super) sources: [Source<'a, T>; 5],
    pub(super) bias: Bias<'a>,
}

/// Calls `work` with each line and the elements from its first output to its last; maps come with the element that lies beyond
/// their edge. `bias` is that of [`Composed`].
pub(super) fn each_line<T: Scratch + Sync, E: Send>(
    spread: &dyn Spread,
    shape: Shape,
    [(below, beyond), (skip, beyond_skip)]: [(&[T], T); 2],
    bias: &[f32],
    output: &mut [E],
    work: impl Fn(Line<'_, T>, &mut [E]) + Sync,
) {
    let (out, pixels) = (bias.len() / PHASES / EDGES, up_shape(shape, 1).len());
    let skip_shape = up_shape(shape, skip.len() / pixels);
    assert!(below.len() == shape.len() && skip.len() == skip_shape.len() && skip_shape.channels > 0);
    assert!(bias.len() == PHASES * EDGES * out && output.len() == pixels * out);
    let (edge, skip_edge) = (vec![beyond; shape.channels], vec![beyond_skip; skip_shape.channels]);
    let bands = Band::all(shape, spread.threads());
    spread_items(spread, cut(&bands, shape.with_channels(PHASES * out), output), |index, part| {
        let band = bands[index];
        let of_skip = Band { photo: band.photo, first_row: 2 * band.first_row, rows: 2 * band.rows };
        let lengths = [band.padded_len(shape), of_skip.padded_len(skip_shape)];
        with_scratch(lengths[0] + lengths[1], |scratch: &mut [T]| {
            let (padded, padded_skip) = scratch.split_at_mut(lengths[0]);
            band.pad(shape, &edge, padded, copy_from(below, shape));
            of_skip.pad(skip_shape, &skip_edge, padded_skip, copy_from(skip, skip_shape));
            let padded = Padded { below: padded, shape, skip: padded_skip, skip_shape };
            // Phase by phase, whose weights stay in the cache.
            for (phase, row) in (0..PHASES).flat_map(|it| (it / 2..2 * band.rows).step_by(2).map(move |row| (it, row)))
            {
                let at_edge = [0, skip_shape.rows - 1].contains(&(of_skip.first_row + row));
                let line = Line {
                    phase,
                    sources: padded.sources(row, phase % 2),
                    bias: line_bias(bias, phase, at_edge, shape.columns),
                };
                let places = (row * skip_shape.columns + phase % 2) * out;
                work(line, &mut part[places..][..(skip_shape.columns - 1) * out]);
            }
        });
    });
}

/// Copies a row of maps from a pixel on.
fn copy_from<T: Copy>(maps: &[T], shape: Shape) -> impl Fn(usize, &mut [T]) {
    move |pixel, to| to.copy_from_slice(&maps[pixel * shape.channels..][..to.len()])
}

/// The bias of a line of so many pixels, of which the first or the last is at an edge.
fn line_bias(all: &[f32], phase: usize, row_at_edge: bool, pixels: usize) -> Bias<'_> {
    let out = all.len() / PHASES / EDGES;
    let of =
        |column_at_edge: usize| &all[(phase * EDGES + usize::from(row_at_edge) * 2 + column_at_edge) * out..][..out];
    let at_edge = if phase.is_multiple_of(2) { 0 } else { pixels - 1 };
    Bias { all: of(0), other: Some((at_edge, of(1))) }
}

/// A padded band.
struct Padded<'a, T> {
    below: &'a [T],
    shape: Shape,
    skip: &'a [T],
    skip_shape: Shape,
}

impl<'a, T> Padded<'a, T> {
    /// What the pixels of every other column of an output row read.
    fn sources(&self, row: usize, column: usize) -> [Source<'a, T>; 5] {
        std::array::from_fn(|at| {
            let (elements, shape, line) = match at {
                0 | 1 => (self.below, self.shape, row.div_ceil(2) + at),
                _ => (self.skip, self.skip_shape, row + at - 2),
            };
            let channels = shape.channels;
            let elements = &elements[line * padded_row(shape)..][..padded_row(shape)];
            let (stride, run) = if at < 2 { (channels, 2 * channels) } else { (2 * channels, 3 * channels) };
            Source { elements: &elements[column * channels..], stride, run }
        })
    }
}
