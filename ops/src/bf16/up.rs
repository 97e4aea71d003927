//! Transposed convolutions of bf16 maps, and their gradients.

use super::product::{Grid, OuterPairs, PackedPairs, Row, add_columns, pair_columns};
use super::token::Avx512Bf16;
use crate::activation::{Finish, Mask};
use crate::maps::{Band, Shape, Source, cut};
use crate::spread::{spread_items, with_scratch};
use crate::up::{put_weight, up_shape};
use crate::{Spread, Workers};

/// [`up_convolution`](crate::up::up_convolution) on bf16 maps.
pub fn bf16_up_convolution(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    input: &[u16],
    [weight, bias]: [&[f32]; 2],
    output: &mut [u16],
) {
    let (out, channels) = (bias.len(), shape.channels);
    assert_eq!(input.len(), shape.len());
    assert_eq!(weight.len(), channels * out * 4);
    assert_eq!(output.len(), up_shape(shape, out).len());
    let columns: Vec<usize> = (0..2 * out).map(|n| n % out * 4 + n / out).collect();
    let packed = [0, 1].map(|row| {
        let rows: Vec<Option<usize>> = (0..channels).map(|k| Some(k * out * 4 + 2 * row)).collect();
        PackedPairs::new(token, weight, 1.0, &rows, [&columns, &[]])
    });
    let bias = [bias, bias].concat();
    let bands = Band::all(shape, spread.threads());
    spread_items(spread, cut(&bands, shape.with_channels(4 * out), output), |index, part| {
        let rows = bands[index].of(shape, input).chunks_exact(shape.row_len());
        for (input, outputs) in rows.zip(part.chunks_exact_mut(4 * shape.columns * out)) {
            for (weights, output) in packed.iter().zip(outputs.chunks_exact_mut(2 * shape.columns * out)) {
                let sources = &[Source { elements: input, stride: channels, run: channels }];
                let (bias, pixels, finish) = (bias[..].into(), shape.columns, Finish::PLAIN);
                Row { token, sources, weights, bias, pixels, finish, gap: 0 }.product([output, &mut []]);
            }
        }
    });
}

/// [`up_convolution_input_gradient`](crate::up::up_convolution_input_gradient) on bf16 maps.
pub fn bf16_up_convolution_input_gradient(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    output_gradient: &[u16],
    weight: &[f32],
    mask: Option<Mask<'_, u16>>,
    input: &mut [u16],
) {
    let channels = shape.channels;
    let out = weight.len() / 4 / channels;
    let gradient_shape = shape.with_channels(4 * out);
    assert_eq!(weight.len(), channels * out * 4);
    assert_eq!(output_gradient.len(), gradient_shape.len());
    let finish = Finish::Gradient { skip: None, mask };
    assert!(input.len() == shape.len() && finish.fits(shape.len()));
    // Rows of the matrix: the four pixels in row order, each with its output channels.
    let rows: Vec<Option<usize>> = (0..4 * out).map(|k| Some(k % out * 4 + k / out)).collect();
    let columns: Vec<usize> = (0..channels).map(|n| n * out * 4).collect();
    let packed = PackedPairs::new(token, weight, 1.0, &rows, [&columns, &[]]);
    let no_bias = vec![0.0; channels];
    let bands = Band::all(shape, spread.threads());
    spread_items(spread, cut(&bands, shape, input), |index, part| {
        let gradients = bands[index].of(gradient_shape, output_gradient).chunks_exact(gradient_shape.row_len());
        let finish = finish.map(|it| bands[index].of(shape, it));
        for (row, (gradient, input)) in gradients.zip(part.chunks_exact_mut(shape.row_len())).enumerate() {
            let rows = <[&[u16]; 2]>::from(gradient.split_at(gradient.len() / 2));
            let sources = &rows.map(|elements| Source { elements, stride: 2 * out, run: 2 * out });
            let finish = finish.map(|it| &it[row * shape.row_len()..][..shape.row_len()]);
            let (weights, bias, pixels) = (&packed, no_bias[..].into(), shape.columns);
            Row { token, sources, weights, bias, pixels, finish, gap: 0 }.product([input, &mut []]);
        }
    });
}

/// [`up_convolution_weight_gradient`](crate::up::up_convolution_weight_gradient) from bf16 maps: the sums are f32.
pub fn bf16_up_convolution_weight_gradient(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    input: &[u16],
    output_gradient: &[u16],
    [weight, bias]: [&mut [f32]; 2],
) {
    let (out, channels) = (bias.len(), shape.channels);
    let gradient_shape = shape.with_channels(4 * out);
    assert_eq!(input.len(), shape.len());
    assert_eq!(output_gradient.len(), gradient_shape.len());
    assert_eq!(weight.len(), channels * out * 4);
    let (taps, pairs) = (4 * channels * out, shape.columns.div_ceil(2));
    let workers = Workers { instructions: token.instructions(), spread };
    let total = workers.sum_over_bands(shape, taps + out, |band, total| {
        let (taps, bias) = total.split_at_mut(taps);
        let inputs = band.of(shape, input).chunks_exact(shape.row_len());
        let gradients = band.of(gradient_shape, output_gradient).chunks_exact(gradient_shape.row_len());
        with_scratch(2 * pairs * (channels + 2 * out), |scratch: &mut [u16]| {
            let (of_input, of_gradient) = scratch.split_at_mut(2 * pairs * channels);
            for (input, gradient) in inputs.zip(gradients) {
                pair_columns(token, input, channels, of_input);
                let rows = gradient.chunks_exact(gradient.len() / 2).zip(taps.chunks_exact_mut(2 * channels * out));
                for (gradient, sums) in rows {
                    pair_columns(token, gradient, 2 * out, of_gradient);
                    let (rows, strides) = (&[[&*of_input, &*of_gradient]], [2 * channels, 4 * out]);
                    let grid = Grid { rows, strides, pairs, depth: channels, columns: 2 * out };
                    OuterPairs { token, grid, sums }.add();
                    add_columns(token, of_gradient, bias);
                }
            }
        });
    });
    let (of_taps, of_bias) = total.split_at(taps);
    bias.copy_from_slice(of_bias);
    put_weight(of_taps, [channels, out], weight);
}
