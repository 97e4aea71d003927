//! 1x1 convolutions on bf16 maps, and their gradients; see [`crate::pointwise`].

use super::product::{Grid, OuterPairs, PackedPairs, Row, add_columns, pair_columns};
use super::token::Avx512Bf16;
use crate::activation::{Activation, Finish, Mask};
use crate::maps::{Band, Shape, Source, cut};
use crate::pointwise::chunk_pixels;
use crate::spread::{spread_items, with_scratch};
use crate::{Spread, Workers};

/// [`pointwise`](crate::pointwise::pointwise) on bf16 maps.
pub fn bf16_pointwise(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    input: &[u16],
    [weight, bias]: [&[f32]; 2],
    (activation, residual): (Activation, Option<&[u16]>),
    output: &mut [u16],
) {
    let weights = packed(token, weight, [shape.channels, bias.len()]);
    let finish = Finish::Output { activation, residual };
    product(token, spread, shape, input, (&weights, bias), finish, output);
}

/// The matrix of a weight, `[out, in, 1, 1]`.
pub(super) fn packed(token: Avx512Bf16, weight: &[f32], [channels, out]: [usize; 2]) -> PackedPairs {
    assert_eq!(weight.len(), channels * out);
    let rows: Vec<Option<usize>> = (0..channels).map(Some).collect();
    let columns: Vec<usize> = (0..out).map(|n| n * channels).collect();
    PackedPairs::new(token, weight, 1.0, &rows, [&columns, &[]])
}

/// [`pointwise_input_gradient`](crate::pointwise::pointwise_input_gradient) on bf16 maps.
pub fn bf16_pointwise_input_gradient(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    output_gradient: &[u16],
    weight: &[f32],
    (skip, mask): (Option<&[u16]>, Option<Mask<'_, u16>>),
    input_gradient: &mut [u16],
) {
    let channels = shape.channels;
    let gradient_shape = shape.with_channels(weight.len() / channels);
    let rows: Vec<Option<usize>> = (0..gradient_shape.channels).map(|k| Some(k * channels)).collect();
    let columns: Vec<usize> = (0..channels).collect();
    let weights = PackedPairs::new(token, weight, 1.0, &rows, [&columns, &[]]);
    let finish = Finish::Gradient { skip, mask };
    let no_bias = vec![0.0; channels];
    product(token, spread, gradient_shape, output_gradient, (&weights, &no_bias), finish, input_gradient);
}

/// `output = finish(bias + maps x weights)` for each pixel of maps of this shape.
fn product(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    maps: &[u16],
    matrix: (&PackedPairs, &[f32]),
    finish: Finish<'_, u16>,
    output: &mut [u16],
) {
    let (channels, out) = (shape.channels, matrix.1.len());
    let output_shape = shape.with_channels(out);
    assert!(maps.len() == shape.len() && output.len() == output_shape.len() && finish.fits(output.len()));
    let chunk = chunk_pixels(channels);
    let bands = Band::all(shape, spread.threads());
    spread_items(spread, cut(&bands, output_shape, output), |index, part| {
        let band = bands[index];
        let finish = finish.map(|it| band.of(output_shape, it));
        let maps = band.of(shape, maps).chunks(chunk * channels);
        for (at, (maps, output)) in maps.zip(part.chunks_mut(chunk * out)).enumerate() {
            let places = at * chunk * out..at * chunk * out + output.len();
            multiply(token, maps, matrix, finish.map(|it| &it[places.clone()]), output);
        }
    });
}

/// The same for pixels that lie one after the other, on this thread.
pub(super) fn multiply(
    token: Avx512Bf16,
    maps: &[u16],
    (weights, bias): (&PackedPairs, &[f32]),
    finish: Finish<'_, u16>,
    output: &mut [u16],
) {
    let pixels = output.len() / bias.len();
    let channels = maps.len() / pixels;
    let sources = &[Source { elements: maps, stride: channels, run: channels }];
    Row { token, sources, weights, bias: bias.into(), pixels, finish, gap: 0 }.product([output, &mut []]);
}

/// [`pointwise_weight_gradient`](crate::pointwise::pointwise_weight_gradient) from bf16 maps: the sums are f32.
pub fn bf16_pointwise_weight_gradient(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    input: &[u16],
    output_gradient: &[u16],
    [weight, bias]: [&mut [f32]; 2],
) {
    let (channels, out) = (shape.channels, bias.len());
    let gradient_shape = shape.with_channels(out);
    assert!(input.len() == shape.len() && output_gradient.len() == gradient_shape.len());
    assert_eq!(weight.len(), channels * out);
    // The wider maps fill vectors better.
    let turned = out > channels;
    // In bf16 twice as many numbers take the same memory.
    let chunk = 2 * chunk_pixels(channels + out);
    let workers = Workers { instructions: token.instructions(), spread };
    let total = workers.sum_over_bands(shape, weight.len() + out, |band, total| {
        let (sums, bias) = total.split_at_mut(channels * out);
        let gradients = band.of(gradient_shape, output_gradient).chunks(chunk * out);
        with_scratch(chunk * (channels + out), |scratch: &mut [u16]| {
            for (gradient, input) in gradients.zip(band.of(shape, input).chunks(chunk * channels)) {
                let pairs = (gradient.len() / out).div_ceil(2);
                let (of_input, rest) = scratch.split_at_mut(2 * pairs * channels);
                let of_gradient = &mut rest[..2 * pairs * out];
                pair_columns(token, input, channels, of_input);
                pair_columns(token, gradient, out, of_gradient);
                let (mut sides, mut size) = ([&*of_gradient, &*of_input], [out, channels]);
                if turned {
                    sides.reverse();
                    size.reverse();
                }
                let ([depth, columns], strides) = (size, size.map(|it| 2 * it));
                OuterPairs { token, grid: Grid { rows: &[sides], strides, pairs, depth, columns }, sums }.add();
                add_columns(token, of_gradient, bias);
            }
        });
    });
    let (of_weight, of_bias) = total.split_at(weight.len());
    bias.copy_from_slice(of_bias);
    for (at, weight) in weight.iter_mut().enumerate() {
        *weight = of_weight[if turned { at % channels * out + at / channels } else { at }];
    }
}
