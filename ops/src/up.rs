//! Transposed convolutions with a 2x2 kernel, stride 2 and bias, and their gradients.
//!
//! Every pixel of the input produces four of the output, two in each of two rows: for one of these rows, a matrix
//! product. Weights are in ONNX order, `[in, out, 2, 2]`.

use super::Workers;
use super::activation::{Finish, Mask};
use super::maps::{Band, Shape, Source, cut};
use super::product::{ColumnSums, OuterProduct, Pack, Places, RowProduct};
use super::spread::spread_items;

/// Shape of the output.
#[must_use]
pub fn up_shape(input: Shape, out: usize) -> Shape {
    Shape { rows: 2 * input.rows, columns: 2 * input.columns, channels: out, ..input }
}

/// `output[2 i + a, 2 j + b] = bias + input[i, j] * weight[.., .., a, b]`; `output` is `[batch, 2 rows, 2 columns, out]`.
pub fn up_convolution(
    workers: Workers<'_>,
    shape: Shape,
    input: &[f32],
    [weight, bias]: [&[f32]; 2],
    output: &mut [f32],
) {
    let instructions = workers.instructions;
    let (out, channels) = (bias.len(), shape.channels);
    assert_eq!(input.len(), shape.len());
    assert_eq!(weight.len(), channels * out * 4);
    assert_eq!(output.len(), up_shape(shape, out).len());
    let packed = [0, 1].map(|row| {
        let rows = (0..channels).map(|k| k * out * 4 + 2 * row).collect();
        let places = Places { rows, columns: (0..2 * out).map(|n| n % out * 4 + n / out).collect() };
        instructions.run(Pack { tensor: weight, places, first_output: 2 * out })
    });
    let bias = [bias, bias].concat();
    let bands = Band::all(shape, workers.spread.threads());
    let parts = cut(&bands, shape.with_channels(4 * out), output);
    spread_items(workers.spread, parts, |index, part| {
        let rows = bands[index].of(shape, input).chunks_exact(shape.row_len());
        for (input, outputs) in rows.zip(part.chunks_exact_mut(4 * shape.columns * out)) {
            for (weights, output) in packed.iter().zip(outputs.chunks_exact_mut(2 * shape.columns * out)) {
                instructions.run(RowProduct {
                    sources: &[Source { elements: input, stride: channels, run: channels }],
                    weights,
                    bias: &bias,
                    pixels: shape.columns,
                    finish: Finish::PLAIN,
                    outputs: [output, &mut []],
                });
            }
        }
    });
}

/// The gradient of the input, `[batch, rows, columns, in]`, from the gradient of the output,
/// `[batch, 2 rows, 2 columns, out]`, through `mask`, whose maps are the input itself.
pub fn up_convolution_input_gradient(
    workers: Workers<'_>,
    shape: Shape,
    output_gradient: &[f32],
    weight: &[f32],
    mask: Option<Mask<'_>>,
    input: &mut [f32],
) {
    let instructions = workers.instructions;
    let channels = shape.channels;
    let out = weight.len() / 4 / channels;
    let gradient_shape = shape.with_channels(4 * out);
    assert_eq!(weight.len(), channels * out * 4);
    assert_eq!(output_gradient.len(), gradient_shape.len());
    let finish = Finish::Gradient { skip: None, mask };
    assert!(input.len() == shape.len() && finish.fits(shape.len()));
    // Rows of the matrix: the four pixels in row order, each with its output channels.
    let rows = (0..4 * out).map(|k| k % out * 4 + k / out).collect();
    let places = Places { rows, columns: (0..channels).map(|n| n * out * 4).collect() };
    let packed = instructions.run(Pack { tensor: weight, places, first_output: channels });
    let no_bias = vec![0.0; channels];
    let bands = Band::all(shape, workers.spread.threads());
    let parts = cut(&bands, shape, input);
    spread_items(workers.spread, parts, |index, part| {
        let gradients = bands[index].of(gradient_shape, output_gradient).chunks_exact(gradient_shape.row_len());
        let finish = finish.map(|it| bands[index].of(shape, it));
        for (row, (gradient, input)) in gradients.zip(part.chunks_exact_mut(shape.row_len())).enumerate() {
            let (upper, lower) = gradient.split_at(gradient.len() / 2);
            instructions.run(RowProduct {
                sources: &[upper, lower].map(|elements| Source { elements, stride: 2 * out, run: 2 * out }),
                weights: &packed,
                bias: &no_bias,
                pixels: shape.columns,
                finish: finish.map(|it| &it[row * shape.row_len()..][..shape.row_len()]),
                outputs: [input, &mut []],
            });
        }
    });
}

/// The gradients of weight, `[in, out, 2, 2]`, and bias, `[out]`, from the gradient of the output.
pub fn up_convolution_weight_gradient(
    workers: Workers<'_>,
    shape: Shape,
    input: &[f32],
    output_gradient: &[f32],
    [weight, bias]: [&mut [f32]; 2],
) {
    let instructions = workers.instructions;
    let (out, channels) = (bias.len(), shape.channels);
    let gradient_shape = shape.with_channels(4 * out);
    assert_eq!(input.len(), shape.len());
    assert_eq!(output_gradient.len(), gradient_shape.len());
    assert_eq!(weight.len(), channels * out * 4);
    let taps = 4 * channels * out;
    let total = workers.sum_over_bands(shape, taps + out, |band, total| {
        let (taps, bias) = total.split_at_mut(taps);
        let gradient = band.of(gradient_shape, output_gradient);
        for (row, sums) in taps.chunks_exact_mut(2 * channels * out).enumerate() {
            let inputs = band.of(shape, input).chunks_exact(shape.row_len());
            let gradients = gradient.chunks_exact(gradient_shape.row_len() / 2).skip(row).step_by(2);
            let rows: Vec<[&[f32]; 2]> = inputs.zip(gradients).map(|(input, gradient)| [input, gradient]).collect();
            let (strides, pixels) = ([channels, 2 * out], shape.columns);
            let job = OuterProduct { rows: &rows, strides, pixels, depth: channels, columns: 2 * out, sums };
            instructions.run(job);
        }
        instructions.run(ColumnSums { maps: gradient, sums: bias });
    });
    let (of_taps, of_bias) = total.split_at(taps);
    bias.copy_from_slice(of_bias);
    put_weight(of_taps, [channels, out], weight);
}

/// Puts sums, `[row of the output, in, column of the output, out]`, into the order of a weight.
pub(super) fn put_weight(of_taps: &[f32], [channels, out]: [usize; 2], weight: &mut [f32]) {
    for (at, weight) in weight.iter_mut().enumerate() {
        let (k, n, row, column) = (at / 4 / out, at / 4 % out, at / 2 % 2, at % 2);
        *weight = of_taps[((row * channels + k) * 2 + column) * out + n];
    }
}
