//! Inverted residual blocks, after Sandler et al., `MobileNetV2` (CVPR 2018), as one layer: a 1x1 convolution to more channels, a
//! depthwise convolution, and a 1x1 convolution to few again, to which the input is added where it has the same shape. The maps
//! in between are the largest of a network: here no more of them is there at a time than the rows that the depthwise kernel
//! reads, and those stay in a core's second-level cache.

use super::Workers;
use super::activation::{Activation, Finish};
use super::depthwise::Depthwise;
use super::maps::{Band, Shape, cut};
use super::pointwise::{multiply, packed};
use super::simd::Stored;
use super::spread::{Scratch, spread_items, with_scratch};

/// Expanded elements of a photo from which a block is faster as one layer: fewer stay in the caches between the layers, and have
/// fewer rows, of which those around a band are computed twice.
const MIN_ELEMENTS: usize = 3 << 18;
/// Bands of each thread: more of them balance the load better, but compute more rows twice.
const BANDS_PER_THREAD: usize = 4;

/// An inverted residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inverted {
    /// The depthwise convolution; its shape is that of the expanded maps.
    pub depthwise: Depthwise,
    /// Channels of the input.
    pub channels: usize,
    /// Channels of the output.
    pub out: usize,
}

/// Weight and bias of each convolution: `[inner, in, 1, 1]` and `[inner]`, `[inner, 1, k, k]` and `[inner]`, `[out, inner, 1, 1]`
/// and `[out]`.
#[derive(Debug, Clone, Copy)]
pub struct InvertedParameters<'a> {
    /// To more channels, with `ReLU6`; none if the input has as many.
    pub expand: Option<[&'a [f32]; 2]>,
    /// Depthwise, with `ReLU6`.
    pub depthwise: [&'a [f32]; 2],
    /// To few channels.
    pub project: [&'a [f32]; 2],
}

impl Inverted {
    /// Whether there are kernels for it.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.depthwise.is_valid() && [self.channels, self.out].iter().all(|it| *it > 0 && it.is_multiple_of(8))
    }

    /// Whether the block, of so many rows and columns of so many channels, is faster as one layer.
    #[must_use]
    pub fn is_worthwhile([rows, columns, inner]: [usize; 3]) -> bool {
        rows * columns * inner >= MIN_ELEMENTS
    }

    /// Shape of the input.
    #[must_use]
    pub fn input_shape(&self) -> Shape {
        self.depthwise.shape.with_channels(self.channels)
    }

    /// Shape of the output.
    #[must_use]
    pub fn output_shape(&self) -> Shape {
        self.depthwise.output_shape().with_channels(self.out)
    }

    /// Whether the input is added to the output.
    fn is_residual(&self) -> bool {
        self.input_shape() == self.output_shape()
    }

    /// The block of maps `[batch, rows, columns, channels]`.
    pub fn forward(&self, workers: Workers<'_>, input: &[f32], parameters: InvertedParameters<'_>, output: &mut [f32]) {
        let (instructions, inner) = (workers.instructions, self.depthwise.shape.channels);
        let expand = parameters.expand.map(|[weight, bias]| {
            let weights = packed(instructions, weight, [self.channels, bias.len()]);
            move |row: &[f32], finish: Finish<'_>, to: &mut [f32]| {
                multiply(instructions, row, (&weights, bias), finish, to);
            }
        });
        let [weight, bias] = parameters.project;
        let project = packed(instructions, weight, [inner, bias.len()]);
        self.by_rows(
            workers,
            input,
            parameters.depthwise,
            expand.as_ref(),
            |row, finish, to| multiply(instructions, row, (&project, bias), finish, to),
            output,
        );
    }

    /// `expand` and `project` multiply a row of maps.
    pub(super) fn by_rows<E: Stored + Scratch>(
        &self,
        workers: Workers<'_>,
        input: &[E],
        [weight, bias]: [&[f32]; 2],
        expand: Option<&(impl Fn(&[E], Finish<'_, E>, &mut [E]) + Sync)>,
        project: impl Fn(&[E], Finish<'_, E>, &mut [E]) + Sync,
        output: &mut [E],
    ) {
        let (input_shape, output_shape, depthwise) = (self.input_shape(), self.output_shape(), &self.depthwise);
        assert!(self.is_valid() && (expand.is_some() || self.channels == depthwise.shape.channels));
        assert!(input.len() == input_shape.len() && output.len() == output_shape.len());
        let weights = depthwise.packed_forward(weight);
        let height = (output_shape.batch * output_shape.rows).div_ceil(workers.spread.threads() * BANDS_PER_THREAD);
        let bands = Band::of_height(output_shape, height);
        let expanded_row = depthwise.shape.row_len();
        let lengths = [depthwise.kernel * expanded_row, depthwise.output_shape().row_len()];
        spread_items(workers.spread, cut(&bands, output_shape, output), |index, part| {
            let band = bands[index];
            let input_row = |row: usize| {
                &input[(band.photo * input_shape.rows + row) * input_shape.row_len()..][..input_shape.row_len()]
            };
            with_scratch(lengths[0] + lengths[1], |scratch: &mut [E]| {
                let (expanded, middle) = scratch.split_at_mut(lengths[0]);
                // A row lies at its number modulo the kernel's side, which reads no others beside it.
                let place = |row: usize| row % depthwise.kernel * expanded_row;
                let mut next = 0;
                for (row, output) in (band.first_row..).zip(part.chunks_exact_mut(output_shape.row_len())) {
                    let read = depthwise.rows_of(row);
                    if let Some(expand) = expand {
                        for row in next.max(read.start)..read.end {
                            let finish = Finish::Output { activation: Activation::Relu6, residual: None };
                            expand(input_row(row), finish, &mut expanded[place(row)..][..expanded_row]);
                        }
                        next = read.end;
                        let maps = |row: usize| &expanded[place(row)..][..expanded_row];
                        depthwise.row(workers.instructions, [&weights, bias], row, maps, middle);
                    } else {
                        depthwise.row(workers.instructions, [&weights, bias], row, input_row, middle);
                    }
                    let residual = self.is_residual().then(|| input_row(row));
                    project(middle, Finish::Output { activation: Activation::None, residual }, output);
                }
            });
        });
    }
}
