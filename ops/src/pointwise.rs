//! 1x1 convolutions with bias, activation and residual connection, and their gradients: matrix products of all pixels.
//!
//! Weights are in ONNX order, `[out, in, 1, 1]`. All numbers of channels are multiples of 8.

use super::activation::{Activation, Finish, Mask};
use super::maps::{Band, Shape, Source, cut};
use super::product::{ColumnSums, OuterProduct, Pack, Packed, Places, RowProduct};
use super::spread::spread_items;
use super::{Instructions, Workers};

/// Elements of the maps that are multiplied at once: they stay in a core's second-level cache.
const CHUNK_ELEMENTS: usize = 1 << 15;
/// A chunk has a multiple of so many pixels: no block of [`RowProduct`] is left with a part.
const BLOCK_PIXELS: usize = 20;

/// `output = activation(bias + input * weight) + residual`.
///
/// `shape` is the shape of the input; `weight` is `[out, in, 1, 1]`, `bias` `[out]`, `output` and `residual`
/// `[batch, rows, columns, out]`.
pub fn pointwise(
    workers: Workers<'_>,
    shape: Shape,
    input: &[f32],
    [weight, bias]: [&[f32]; 2],
    activation: Activation,
    residual: Option<&[f32]>,
    output: &mut [f32],
) {
    let weights = packed(workers.instructions, weight, [shape.channels, bias.len()]);
    product(workers, shape, input, (&weights, bias), Finish::Output { activation, residual }, output);
}

/// The matrix of a weight, `[out, in, 1, 1]`.
pub(super) fn packed(instructions: Instructions, weight: &[f32], [channels, out]: [usize; 2]) -> Packed {
    assert_eq!(weight.len(), channels * out);
    let places = Places { rows: (0..channels).collect(), columns: (0..out).map(|n| n * channels).collect() };
    instructions.run(Pack { tensor: weight, places, first_output: out })
}

/// The gradient of the input, from the gradient of the output, `[batch, rows, columns, out]`: `skip`, a gradient of the
/// same input from elsewhere, is added, and the sum goes through `mask`.
///
/// `shape` is the shape of the input.
pub fn pointwise_input_gradient(
    workers: Workers<'_>,
    shape: Shape,
    output_gradient: &[f32],
    weight: &[f32],
    skip: Option<&[f32]>,
    mask: Option<Mask<'_>>,
    input_gradient: &mut [f32],
) {
    let channels = shape.channels;
    let gradient_shape = shape.with_channels(weight.len() / channels);
    assert_eq!(weight.len(), gradient_shape.channels * channels);
    let rows = (0..gradient_shape.channels).map(|k| k * channels).collect();
    let places = Places { rows, columns: (0..channels).collect() };
    let weights = workers.instructions.run(Pack { tensor: weight, places, first_output: channels });
    let no_bias = vec![0.0; channels];
    let finish = Finish::Gradient { skip, mask };
    product(workers, gradient_shape, output_gradient, (&weights, &no_bias), finish, input_gradient);
}

/// `output = finish(bias + maps x weights)` for each pixel of maps of this shape.
fn product(
    workers: Workers<'_>,
    shape: Shape,
    maps: &[f32],
    matrix: (&Packed, &[f32]),
    finish: Finish<'_>,
    output: &mut [f32],
) {
    let (channels, out) = (shape.channels, matrix.1.len());
    let output_shape = shape.with_channels(out);
    assert!(maps.len() == shape.len() && output.len() == output_shape.len() && finish.fits(output.len()));
    let chunk = chunk_pixels(channels);
    let bands = Band::all(shape, workers.spread.threads());
    spread_items(workers.spread, cut(&bands, output_shape, output), |index, part| {
        let band = bands[index];
        let finish = finish.map(|it| band.of(output_shape, it));
        let maps = band.of(shape, maps).chunks(chunk * channels);
        for (at, (maps, output)) in maps.zip(part.chunks_mut(chunk * out)).enumerate() {
            let places = at * chunk * out..at * chunk * out + output.len();
            multiply(workers.instructions, maps, matrix, finish.map(|it| &it[places.clone()]), output);
        }
    });
}

/// The same for pixels that lie one after the other, on this thread.
pub(super) fn multiply(
    instructions: Instructions,
    maps: &[f32],
    (weights, bias): (&Packed, &[f32]),
    finish: Finish<'_>,
    output: &mut [f32],
) {
    let pixels = output.len() / bias.len();
    let channels = maps.len() / pixels;
    let sources = &[Source { elements: maps, stride: channels, run: channels }];
    instructions.run(RowProduct { sources, weights, bias, pixels, finish, outputs: [output, &mut []] });
}

/// The gradients of weight, `[out, in, 1, 1]`, and bias, `[out]`, from the gradient of the output. The order of summation
/// depends only on the number of threads.
///
/// `shape` is the shape of the input.
pub fn pointwise_weight_gradient(
    workers: Workers<'_>,
    shape: Shape,
    input: &[f32],
    output_gradient: &[f32],
    [weight, bias]: [&mut [f32]; 2],
) {
    let instructions = workers.instructions;
    let (channels, out) = (shape.channels, bias.len());
    let gradient_shape = shape.with_channels(out);
    assert!(input.len() == shape.len() && output_gradient.len() == gradient_shape.len());
    assert_eq!(weight.len(), channels * out);
    let chunk = chunk_pixels(channels + out);
    let total = workers.sum_over_bands(shape, weight.len() + out, |band, total| {
        let (sums, bias) = total.split_at_mut(channels * out);
        let gradient = band.of(gradient_shape, output_gradient);
        let chunks = gradient.chunks(chunk * out).zip(band.of(shape, input).chunks(chunk * channels));
        for (gradient, input) in chunks {
            instructions.run(OuterProduct {
                rows: &[[gradient, input]],
                strides: [out, channels],
                pixels: gradient.len() / out,
                depth: out,
                columns: channels,
                sums,
            });
        }
        instructions.run(ColumnSums { maps: gradient, sums: bias });
    });
    let (of_weight, of_bias) = total.split_at(weight.len());
    weight.copy_from_slice(of_weight);
    bias.copy_from_slice(of_bias);
}

/// Pixels of a chunk, if each has so many elements.
pub(super) fn chunk_pixels(elements: usize) -> usize {
    (CHUNK_ELEMENTS / elements).next_multiple_of(BLOCK_PIXELS)
}
