//! Checks every operator against its definition, written out in f64, with every instruction set that the processor
//! supports, on shapes that are not multiples of any block or vector width.

use lookbook_ops::adam::{Adam, AdamInputs};
use lookbook_ops::convolution::{convolution, convolution_input_gradient, convolution_weight_gradient};
use lookbook_ops::depthwise::Depthwise;
use lookbook_ops::dots::Vectors;
use lookbook_ops::head::{HEAD_CHANNELS, Head, HeadLoss, MAPS, MAX_MAPS};
use lookbook_ops::maps::{Maps, Shape};
use lookbook_ops::norm::{batch_norm, batch_norm_gradient};
use lookbook_ops::pointwise::{pointwise, pointwise_input_gradient, pointwise_weight_gradient};
use lookbook_ops::pool::{max_pool, max_pool_gradient, pooled_shape};
use lookbook_ops::squares::{enlarge_labels, gather_squares};
use lookbook_ops::up::{up_convolution, up_convolution_input_gradient, up_convolution_weight_gradient, up_shape};
use lookbook_ops::{Activation, Instructions, Mask, Photos, Rayon, Workers};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Photos, rows, columns: narrower than a block, exactly a block, and with a remainder.
pub(super) const SIZES: [[usize; 3]; 6] = [[1, 1, 1], [2, 3, 2], [1, 5, 7], [2, 9, 20], [1, 4, 23], [1, 19, 41]];

pub(super) fn every_instructions(check: impl Fn(Workers<'_>)) {
    for instructions in crate::instructions() {
        check(Workers { instructions, spread: &Rayon });
    }
}

pub(super) fn random(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Asserts agreement within 1e-5 of the largest expected number.
pub(super) fn assert_close(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-3_f64, |largest, value| largest.max(value.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(*found) - expected).abs() / largest;
        assert!(off <= 1e-5, "{what}: element {at} is {found}, not {expected}");
    }
}

/// All (photo, row, column) of maps.
fn pixels(shape: Shape) -> impl Iterator<Item = [usize; 3]> {
    let of_row = move |photo, row| (0..shape.columns).map(move |column| [photo, row, column]);
    (0..shape.batch).flat_map(move |photo| (0..shape.rows).flat_map(move |row| of_row(photo, row)))
}

fn index(shape: Shape, [photo, row, column]: [usize; 3], channel: usize) -> usize {
    ((photo * shape.rows + row) * shape.columns + column) * shape.channels + channel
}

/// Calls `tap(output pixel, input pixel, tap row, tap column)` for each tap within the photo.
fn for_each_tap(shape: Shape, mut tap: impl FnMut([usize; 3], [usize; 3], usize, usize)) {
    for pixel @ [photo, row, column] in pixels(shape) {
        for (tap_row, tap_column) in (0..9).map(|at| (at / 3, at % 3)) {
            let (row, column) = ((row + tap_row).wrapping_sub(1), (column + tap_column).wrapping_sub(1));
            if row < shape.rows && column < shape.columns {
                tap(pixel, [photo, row, column], tap_row, tap_column);
            }
        }
    }
}

/// A convolution by its definition, before the `ReLU`, and the gradients of its inputs, weight and bias.
struct Naive {
    output: Vec<f64>,
    inputs: Vec<Vec<f64>>,
    weight: Vec<f64>,
    bias: Vec<f64>,
}

/// `shape` is that of each input but for its channels, which follow from its length.
fn naive(shape: Shape, inputs: &[Vec<f32>], weight: &[f32], bias: &[f32], output_gradient: &[f32]) -> Naive {
    let output_shape = shape.with_channels(bias.len());
    let widths: Vec<usize> = inputs.iter().map(|it| it.len() / shape.pixels()).collect();
    let all_channels: usize = widths.iter().sum();
    let mut naive = Naive {
        output: bias.iter().map(|&it| f64::from(it)).cycle().take(output_shape.len()).collect(),
        inputs: inputs.iter().map(|it| vec![0.0; it.len()]).collect(),
        weight: vec![0.0; weight.len()],
        bias: vec![0.0; bias.len()],
    };
    for_each_tap(shape, |to, from, tap_row, tap_column| {
        for out in 0..bias.len() {
            let y = index(output_shape, to, out);
            for (input, values) in inputs.iter().enumerate() {
                let before: usize = widths[..input].iter().sum();
                for channel in 0..widths[input] {
                    let x = index(shape.with_channels(widths[input]), from, channel);
                    let w = ((out * all_channels + before + channel) * 3 + tap_row) * 3 + tap_column;
                    naive.output[y] += f64::from(values[x]) * f64::from(weight[w]);
                    naive.inputs[input][x] += f64::from(output_gradient[y]) * f64::from(weight[w]);
                    naive.weight[w] += f64::from(output_gradient[y]) * f64::from(values[x]);
                }
            }
        }
    });
    for (at, gradient) in output_gradient.iter().enumerate() {
        naive.bias[at % bias.len()] += f64::from(*gradient);
    }
    naive
}

/// A convolution by its definition, before the activation.
pub(super) fn convolved(shape: Shape, inputs: &[Vec<f32>], weight: &[f32], bias: &[f32]) -> Vec<f64> {
    naive(shape, inputs, weight, bias, &vec![0.0; shape.pixels() * bias.len()]).output
}

/// An activation by its definition.
fn activated(activation: Activation, sum: f64) -> f64 {
    match activation {
        Activation::None => sum,
        Activation::Relu => sum.max(0.0),
        Activation::Relu6 => sum.clamp(0.0, 6.0),
    }
}

/// A gradient before an activation, from its output.
fn masked(activation: Activation, gradient: f64, output: f32) -> f64 {
    let passes = match activation {
        Activation::None => true,
        Activation::Relu => output > 0.0,
        Activation::Relu6 => output > 0.0 && output < 6.0,
    };
    if passes { gradient } else { 0.0 }
}

pub(super) const ACTIVATIONS: [Activation; 3] = [Activation::None, Activation::Relu, Activation::Relu6];

/// Numbers on both sides of the steps of all activations, and on the steps themselves.
pub(super) fn outputs_of_activations(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| [0.0, 6.0, rng.random_range(-2.0..8.0)][rng.random_range(0..3)]).collect()
}

/// The convolution of one input, or of two whose second has `second` channels.
fn check_convolution(shape: Shape, second: Option<usize>, out: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64((shape.len() * 31 + out) as u64);
    let widths: Vec<usize> = [shape.channels].into_iter().chain(second).collect();
    let inputs: Vec<Vec<f32>> = widths.iter().map(|width| random(&mut rng, shape.pixels() * width)).collect();
    let weight = random(&mut rng, out * widths.iter().sum::<usize>() * 9);
    let bias = random(&mut rng, out);
    let gradient = random(&mut rng, shape.pixels() * out);
    let expected = naive(shape, &inputs, &weight, &bias, &gradient);
    let maps: Vec<Maps<'_>> = inputs.iter().map(|it| Maps::Features(it)).collect();
    every_instructions(|workers| {
        let what = format!("{} {shape:?} and {second:?} to {out}", workers.instructions);
        let mut output = vec![f32::NAN; shape.pixels() * out];
        for activation in ACTIVATIONS {
            convolution(workers, shape, &maps, [&weight, &bias], activation, &mut output);
            let expected: Vec<f64> = expected.output.iter().map(|&it| activated(activation, it)).collect();
            assert_close(&format!("{what}: output, {activation:?}"), &output, &expected);
        }
        let mut weight_gradient = vec![f32::NAN; weight.len()];
        let mut bias_gradient = vec![f32::NAN; out];
        let results: [&mut [f32]; 2] = [&mut weight_gradient, &mut bias_gradient];
        convolution_weight_gradient(workers, shape, &maps, &gradient, results);
        assert_close(&format!("{what}: weight gradient"), &weight_gradient, &expected.weight);
        assert_close(&format!("{what}: bias gradient"), &bias_gradient, &expected.bias);
        if shape.channels == 3 {
            return;
        }
        let mut found = [vec![f32::NAN; shape.len()], vec![f32::NAN; inputs.get(1).map_or(0, Vec::len)]];
        let [first, second_gradient] = &mut found;
        let mask = second.is_none().then(|| Mask::relu(&inputs[0]));
        convolution_input_gradient(workers, shape, &gradient, &weight, mask, [first, second_gradient]);
        let activation = mask.map_or(Activation::None, |it| it.activation);
        for (input, expected) in expected.inputs.iter().enumerate() {
            let masked: Vec<f64> =
                expected.iter().zip(&inputs[input]).map(|(&it, &x)| masked(activation, it, x)).collect();
            assert_close(&format!("{what}: gradient of input {input}"), &found[input], &masked);
        }
    });
}

#[test]
fn convolutions_and_their_gradients_are_as_defined() {
    for [batch, rows, columns] in SIZES {
        for [channels, out] in [[3, 8], [8, 8], [8, 16], [16, 8], [24, 40], [16, 32], [64, 8], [8, 64]] {
            check_convolution(Shape { batch, rows, columns, channels }, None, out);
        }
        for [channels, second, out] in
            [[8, 8, 8], [16, 16, 16], [32, 32, 32], [24, 24, 8], [16, 8, 8], [40, 64, 24], [64, 56, 16]]
        {
            check_convolution(Shape { batch, rows, columns, channels }, Some(second), out);
        }
    }
}

#[test]
fn photos_are_read_as_shares_of_255() {
    let shape = Shape { batch: 1, rows: 3, columns: 5, channels: 3 };
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let photo: Vec<u8> = (0..shape.len()).map(|_| rng.random()).collect();
    let shares: Vec<f32> = photo.iter().map(|&it| f32::from(it) / 255.0).collect();
    let (weight, bias) = (random(&mut rng, 8 * 27), random(&mut rng, 8));
    every_instructions(|workers| {
        let [of_photo, of_shares] = [Maps::Photos(Photos::new(&photo)), Maps::Features(&shares)].map(|input| {
            let mut output = vec![0.0; shape.pixels() * 8];
            convolution(workers, shape, &[input], [&weight, &bias], Activation::Relu, &mut output);
            output
        });
        assert_eq!(of_photo, of_shares);
    });
}

#[test]
fn photos_are_filled_beyond_their_edge() {
    // A photo of 1 x 1 with a border of its own is one of 3 x 3 in the middle of which the same is seen.
    for channels in [3, 12] {
        let mut rng = ChaCha8Rng::seed_from_u64(channels as u64);
        let fill: Vec<u8> = (0..channels).map(|_| rng.random()).collect();
        let inner: Vec<u8> = (0..2 * 5 * channels).map(|_| rng.random()).collect();
        let shape = Shape { batch: 1, rows: 2, columns: 5, channels };
        let around = Shape { rows: 4, columns: 7, ..shape };
        let pixel = |[row, column]: [usize; 2]| {
            let inside = (1..3).contains(&row) && (1..6).contains(&column);
            if inside { &inner[((row - 1) * 5 + column - 1) * channels..][..channels] } else { &fill[..] }
        };
        let framed: Vec<u8> = (0..28).flat_map(|at| pixel([at / 7, at % 7])).copied().collect();
        let (weight, bias) = (random(&mut rng, 8 * 9 * channels), random(&mut rng, 8));
        let gradient = random(&mut rng, shape.pixels() * 8);
        let mut wide_gradient = vec![0.0; around.pixels() * 8];
        for (row, gradient) in gradient.chunks_exact(5 * 8).enumerate() {
            wide_gradient[((row + 1) * 7 + 1) * 8..][..5 * 8].copy_from_slice(gradient);
        }
        let fill: Vec<f32> = fill.iter().map(|&it| f32::from(it) / 255.0).collect();
        every_instructions(|workers| {
            let photos = [Maps::Photos(Photos { bytes: &inner, fill: &fill })];
            let framed = [Maps::Photos(Photos::new(&framed))];
            let mut output = vec![f32::NAN; shape.pixels() * 8];
            convolution(workers, shape, &photos, [&weight, &bias], Activation::None, &mut output);
            let mut expected = vec![f32::NAN; around.pixels() * 8];
            convolution(workers, around, &framed, [&weight, &bias], Activation::None, &mut expected);
            for (row, output) in output.chunks_exact(5 * 8).enumerate() {
                let expected: Vec<f64> =
                    expected[((row + 1) * 7 + 1) * 8..][..5 * 8].iter().map(|&it| f64::from(it)).collect();
                assert_close("output", output, &expected);
            }
            let gradients = |shape: Shape, photos: &[Maps<'_>], gradient: &[f32]| {
                let mut found = (vec![f32::NAN; weight.len()], vec![f32::NAN; 8]);
                convolution_weight_gradient(workers, shape, photos, gradient, [&mut found.0, &mut found.1]);
                found
            };
            let found = gradients(shape, &photos, &gradient);
            let expected = gradients(around, &framed, &wide_gradient);
            let wide = |all: &[f32]| -> Vec<f64> { all.iter().map(|&it| f64::from(it)).collect() };
            assert_close("weight gradient", &found.0, &wide(&expected.0));
            assert_close("bias gradient", &found.1, &wide(&expected.1));
        });
    }
}

/// A pointwise convolution by its definition, with everything that can be fused.
fn check_pointwise(shape: Shape, out: usize) {
    let channels = shape.channels;
    let mut rng = ChaCha8Rng::seed_from_u64((shape.len() * 17 + out) as u64);
    let input = outputs_of_activations(&mut rng, shape.len());
    // As small as a network's, so that the sums are as large as what clips them.
    let scale = 1.0 / (channels as f32).sqrt();
    let weight: Vec<f32> = random(&mut rng, out * channels).iter().map(|it| it * scale).collect();
    let bias = random(&mut rng, out);
    let [gradient, residual] = [(); 2].map(|()| random(&mut rng, shape.pixels() * out));
    let skip = random(&mut rng, shape.len());
    let mut sums: Vec<f64> = bias.iter().map(|&it| f64::from(it)).cycle().take(shape.pixels() * out).collect();
    let mut of_input = vec![0.0; shape.len()];
    let (mut of_weight, mut of_bias) = (vec![0.0; weight.len()], vec![0.0; out]);
    for (pixel, n) in (0..shape.pixels()).flat_map(|pixel| (0..out).map(move |n| (pixel, n))) {
        let (y, dy) = (pixel * out + n, f64::from(gradient[pixel * out + n]));
        of_bias[n] += dy;
        for k in 0..channels {
            let (x, w) = (pixel * channels + k, n * channels + k);
            sums[y] += f64::from(input[x]) * f64::from(weight[w]);
            of_input[x] += dy * f64::from(weight[w]);
            of_weight[w] += dy * f64::from(input[x]);
        }
    }
    every_instructions(|workers| {
        let what = format!("{} {shape:?} to {out}", workers.instructions);
        for activation in ACTIVATIONS {
            let mut output = vec![f32::NAN; sums.len()];
            for residual in [None, Some(&residual[..])] {
                pointwise(workers, shape, &input, [&weight, &bias], activation, residual, &mut output);
                let added = |at: usize| residual.map_or(0.0, |it| f64::from(it[at]));
                let expected: Vec<f64> =
                    sums.iter().enumerate().map(|(at, &it)| activated(activation, it) + added(at)).collect();
                assert_close(&format!("{what}: output, {activation:?}"), &output, &expected);
            }
            let mask = (activation != Activation::None).then_some(Mask { activation, maps: &input });
            for skip in [None, Some(&skip[..])] {
                let mut found = vec![f32::NAN; shape.len()];
                pointwise_input_gradient(workers, shape, &gradient, &weight, skip, mask, &mut found);
                let sum = |at: usize| of_input[at] + skip.map_or(0.0, |it| f64::from(it[at]));
                let expected: Vec<f64> = (0..shape.len()).map(|at| masked(activation, sum(at), input[at])).collect();
                assert_close(&format!("{what}: input gradient, {activation:?}"), &found, &expected);
            }
        }
        let (mut found_weight, mut found_bias) = (vec![f32::NAN; weight.len()], vec![f32::NAN; out]);
        let results: [&mut [f32]; 2] = [&mut found_weight, &mut found_bias];
        pointwise_weight_gradient(workers, shape, &input, &gradient, results);
        assert_close(&format!("{what}: weight gradient"), &found_weight, &of_weight);
        assert_close(&format!("{what}: bias gradient"), &found_bias, &of_bias);
    });
}

#[test]
fn pointwise_convolutions_and_their_gradients_are_as_defined() {
    for [batch, rows, columns] in SIZES {
        for [channels, out] in [[8, 8], [16, 24], [24, 144], [112, 16], [40, 112], [80, 8]] {
            check_pointwise(Shape { batch, rows, columns, channels }, out);
        }
    }
    // Several chunks of a band, and as many weights as the last layers have.
    check_pointwise(Shape { batch: 1, rows: 8, columns: 104, channels: 144 }, 24);
    check_pointwise(Shape { batch: 1, rows: 2, columns: 13, channels: 1152 }, 320);
}

#[test]
fn dot_products_are_as_defined_whatever_else_is_computed() {
    every_instructions(|workers| {
        for (len, dimensions) in [(1, 2), (7, 3), (8, 768), (65, 5), (203, 64), (130, 513)] {
            let mut rng = ChaCha8Rng::seed_from_u64(len as u64);
            let all = random(&mut rng, len * dimensions);
            let vectors = Vectors::new(workers.instructions, all.clone(), dimensions);
            assert_eq!(vectors.len(), len);
            let row = |index: usize| &all[index * dimensions..][..dimensions];
            let expected =
                |a: usize, b: usize| row(a).iter().zip(row(b)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let whole = vectors.products(&all);
            let rows: Vec<&[f32]> = whole.rows().collect();
            assert_eq!(rows.len(), len);
            for (a, found) in rows.iter().enumerate() {
                let expected: Vec<f64> = (0..len).map(|b| expected(a, b)).collect();
                assert_close(&format!("{len} x {dimensions}"), found, &expected);
                assert!((0..len).all(|b| found[b] == rows[b][a]), "whichever comes first");
                assert_eq!(vectors.vector(a).collect::<Vec<_>>(), row(a));
                assert_eq!(vectors.products(row(a)).rows().next(), Some(*found), "alone");
            }
        }
    });
}

/// A depthwise convolution with drawn kernel, stride and padding, by its definition.
fn check_depthwise(shape: Shape, rng: &mut ChaCha8Rng) {
    let (kernel, stride) = ([3, 5][rng.random_range(0..2)], rng.random_range(1..=2));
    let pads = [(); 2].map(|()| rng.random_range(0..kernel));
    check_depthwise_of(Depthwise { shape, kernel, stride, pads }, rng);
}

fn check_depthwise_of(layer: Depthwise, rng: &mut ChaCha8Rng) {
    let Depthwise { shape, kernel, stride, pads } = layer;
    let output_shape = layer.output_shape();
    assert_eq!([output_shape.rows, output_shape.columns], [shape.rows, shape.columns].map(|it| it.div_ceil(stride)));
    let input = outputs_of_activations(rng, shape.len());
    let (weight, bias) = (random(rng, shape.channels * kernel * kernel), random(rng, shape.channels));
    let gradient = random(rng, output_shape.len());
    let mut sums: Vec<f64> = bias.iter().map(|&it| f64::from(it)).cycle().take(output_shape.len()).collect();
    let mut of_input = vec![0.0; shape.len()];
    let (mut of_weight, mut of_bias) = (vec![0.0; weight.len()], vec![0.0; shape.channels]);
    for pixel @ [photo, row, column] in pixels(output_shape) {
        for (channel, of_bias) in of_bias.iter_mut().enumerate() {
            let y = index(output_shape, pixel, channel);
            *of_bias += f64::from(gradient[y]);
            for (a, b) in (0..kernel * kernel).map(|at| (at / kernel, at % kernel)) {
                let [row, column] =
                    [(row * stride + a).wrapping_sub(pads[0]), (column * stride + b).wrapping_sub(pads[1])];
                if row < shape.rows && column < shape.columns {
                    let x = index(shape, [photo, row, column], channel);
                    let w = (channel * kernel + a) * kernel + b;
                    sums[y] += f64::from(input[x]) * f64::from(weight[w]);
                    of_input[x] += f64::from(gradient[y]) * f64::from(weight[w]);
                    of_weight[w] += f64::from(gradient[y]) * f64::from(input[x]);
                }
            }
        }
    }
    every_instructions(|workers| {
        let what = format!("{} {layer:?}", workers.instructions);
        for activation in ACTIVATIONS {
            let mut output = vec![f32::NAN; output_shape.len()];
            layer.forward(workers, &input, [&weight, &bias], activation, &mut output);
            let expected: Vec<f64> = sums.iter().map(|&it| activated(activation, it)).collect();
            assert_close(&format!("{what}: output, {activation:?}"), &output, &expected);
            let mask = (activation != Activation::None).then_some(Mask { activation, maps: &input });
            let mut found = vec![f32::NAN; shape.len()];
            layer.input_gradient(workers, &gradient, &weight, mask, &mut found);
            let expected: Vec<f64> = of_input.iter().zip(&input).map(|(&it, &x)| masked(activation, it, x)).collect();
            assert_close(&format!("{what}: input gradient, {activation:?}"), &found, &expected);
        }
        let (mut found_weight, mut found_bias) = (vec![f32::NAN; weight.len()], vec![f32::NAN; shape.channels]);
        layer.weight_gradient(workers, &input, &gradient, [&mut found_weight, &mut found_bias]);
        assert_close(&format!("{what}: weight gradient"), &found_weight, &of_weight);
        assert_close(&format!("{what}: bias gradient"), &found_bias, &of_bias);
    });
}

#[test]
fn depthwise_convolutions_and_their_gradients_are_as_defined() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for ([batch, rows, columns], channels) in SIZES.into_iter().flat_map(|size| [8, 24, 32].map(|it| (size, it))) {
        let shape = Shape { batch, rows, columns, channels };
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2)] {
            for pads in [[0, 1], [1, 0], [kernel / 2; 2], [kernel - 1; 2]] {
                check_depthwise_of(Depthwise { shape, kernel, stride, pads }, &mut rng);
            }
        }
    }
}

#[test]
fn transposed_convolutions_and_their_gradients_are_as_defined() {
    for ([batch, rows, columns], [channels, out]) in
        SIZES.into_iter().zip([[16, 8], [8, 16], [32, 16], [128, 64]].into_iter().cycle())
    {
        check_up(Shape { batch, rows, columns, channels }, out);
    }
}

fn check_up(shape: Shape, out: usize) {
    let channels = shape.channels;
    let output_shape = up_shape(shape, out);
    let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
    let input = random(&mut rng, shape.len());
    let (weight, bias) = (random(&mut rng, channels * out * 4), random(&mut rng, out));
    let gradient = random(&mut rng, output_shape.len());
    let mut expected: Vec<f64> = bias.iter().map(|&it| f64::from(it)).cycle().take(output_shape.len()).collect();
    let mut inputs = vec![0.0; shape.len()];
    let (mut weights, mut biases) = (vec![0.0; weight.len()], vec![0.0; out]);
    for pixel @ [photo, row, column] in pixels(shape) {
        for at in 0..4 * channels * out {
            let (k, n, a, b) = (at / 4 / out, at / 4 % out, at / 2 % 2, at % 2);
            let x = index(shape, pixel, k);
            let y = index(output_shape, [photo, 2 * row + a, 2 * column + b], n);
            expected[y] += f64::from(input[x]) * f64::from(weight[at]);
            weights[at] += f64::from(input[x]) * f64::from(gradient[y]);
            if input[x] > 0.0 {
                inputs[x] += f64::from(gradient[y]) * f64::from(weight[at]);
            }
        }
    }
    gradient.iter().enumerate().for_each(|(at, it)| biases[at % out] += f64::from(*it));
    every_instructions(|workers| {
        let what = format!("{} {shape:?} to {out}", workers.instructions);
        let mut output = vec![f32::NAN; output_shape.len()];
        up_convolution(workers, shape, &input, [&weight, &bias], &mut output);
        assert_close(&format!("{what}: output"), &output, &expected);
        let mut found = vec![f32::NAN; shape.len()];
        up_convolution_input_gradient(workers, shape, &gradient, &weight, Some(Mask::relu(&input)), &mut found);
        assert_close(&format!("{what}: input gradient"), &found, &inputs);
        let mut of_weight = vec![f32::NAN; weight.len()];
        let mut of_bias = vec![f32::NAN; out];
        up_convolution_weight_gradient(workers, shape, &input, &gradient, [&mut of_weight, &mut of_bias]);
        assert_close(&format!("{what}: weight gradient"), &of_weight, &weights);
        assert_close(&format!("{what}: bias gradient"), &of_bias, &biases);
    });
}

#[test]
fn pooling_gives_the_gradient_to_the_first_maximum() {
    for [batch, rows, columns] in SIZES {
        check_pool(Shape { batch, rows: 2 * rows, columns: 2 * columns, channels: 24 });
    }
}

fn check_pool(shape: Shape) {
    let pooled = pooled_shape(shape);
    let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
    // Few distinct values, so that there are ties; and zeros, so that the gradient is blocked.
    let input: Vec<f32> = (0..shape.len()).map(|_| f32::from(rng.random_range(0..3_u8))).collect();
    let (gradient, skip) = (random(&mut rng, pooled.len()), random(&mut rng, shape.len()));
    let mut expected = vec![0.0; pooled.len()];
    let mut expected_gradient: Vec<f64> = skip.iter().map(|&it| f64::from(it)).collect();
    for pixel @ [photo, row, column] in pixels(pooled) {
        for channel in 0..shape.channels {
            let corner = |at: usize| index(shape, [photo, 2 * row + at / 2, 2 * column + at % 2], channel);
            let first = (0..4).fold(0, |best, at| if input[corner(at)] > input[corner(best)] { at } else { best });
            let place = index(pooled, pixel, channel);
            expected[place] = f64::from(input[corner(first)]);
            expected_gradient[corner(first)] += f64::from(gradient[place]);
        }
    }
    expected_gradient.iter_mut().zip(&input).for_each(|(it, &x)| *it *= f64::from(u8::from(x > 0.0)));
    every_instructions(|workers| {
        let mut output = vec![f32::NAN; pooled.len()];
        max_pool(workers, shape, &input, &mut output);
        assert_close("maximum", &output, &expected);
        let mut found = vec![f32::NAN; shape.len()];
        max_pool_gradient(workers, shape, &input, &gradient, &skip, &mut found);
        assert_close("gradient", &found, &expected_gradient);
    });
}

/// Loss, binary cross-entropy, gradient with respect to the maps, and category of a pixel.
fn naive_pixel(maps: &[f64], label: usize, weights: Option<&[f32]>, smoothing: f64) -> (f64, f64, Vec<f64>, usize) {
    let top = maps.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = maps.iter().map(|it| (it - top).exp()).sum();
    let probability = |it: &f64| if weights.is_some() { (it - top).exp() / sum } else { 1.0 / (1.0 + (-it).exp()) };
    let probabilities: Vec<f64> = maps.iter().map(probability).collect();
    let weight = weights.map_or(1.0, |weights| f64::from(weights[label]));
    let right = |(map, p): (usize, &f64)| -(if map == label { *p } else { 1.0 - p }).max(1e-7).ln();
    let bce: f64 = probabilities.iter().enumerate().map(right).sum();
    let smoothing = if weights.is_some() { smoothing } else { 0.0 };
    let truth = |map| f64::from(u8::from(map == label)) * (1.0 - smoothing) + smoothing / maps.len() as f64;
    let entropy: f64 = probabilities.iter().enumerate().map(|(map, p)| -truth(map) * p.max(1e-7).ln()).sum();
    let loss = if weights.is_some() { weight * entropy } else { bce };
    let gradient = probabilities.iter().enumerate().map(|(map, p)| weight * (p - truth(map)));
    let category = (0..maps.len()).fold(0, |best, at| if maps[at] > maps[best] { at } else { best });
    (loss, bce, gradient.collect(), category)
}

/// Weight of the Dice term in tests that use one.
const DICE: f32 = 0.7;

/// Numbers of maps: the fewest, the usual one, and others up to the most.
const NUMBERS: [usize; 5] = [2, 6, MAPS, 59, MAX_MAPS];

/// The Dice term by its definition, from all pixels' maps, and its gradient with respect to each of them.
fn naive_dice(maps: &[Vec<f64>], labels: &[u8]) -> (f64, Vec<Vec<f64>>) {
    let softmax = |maps: &Vec<f64>| {
        let sum: f64 = maps.iter().map(|it| it.exp()).sum();
        maps.iter().map(|it| it.exp() / sum).collect()
    };
    let probabilities: Vec<Vec<f64>> = maps.iter().map(softmax).collect();
    let truth = |pixel: usize, map: usize| f64::from(u8::from(usize::from(labels[pixel]) == map));
    let sum = |of: &dyn Fn(usize) -> f64| (0..labels.len()).map(of).sum::<f64>();
    let there: Vec<usize> = (0..maps[0].len()).filter(|&map| labels.contains(&(map as u8))).collect();
    let mut loss = f64::from(DICE);
    let mut by_probability = vec![vec![0.0; maps[0].len()]; labels.len()];
    for &map in &there {
        let both = sum(&|pixel| probabilities[pixel][map] * truth(pixel, map));
        let all = sum(&|pixel| probabilities[pixel][map] + truth(pixel, map));
        let share = f64::from(DICE) / there.len() as f64;
        loss -= share * 2.0 * both / all;
        for (pixel, gradient) in by_probability.iter_mut().enumerate() {
            gradient[map] = -share * (2.0 * truth(pixel, map) * all - 2.0 * both) / (all * all);
        }
    }
    let through = |(p, gradient): (&Vec<f64>, &Vec<f64>)| {
        let part = |to: usize, from: usize| gradient[from] * p[from] * (f64::from(u8::from(to == from)) - p[to]);
        (0..maps[0].len()).map(|to| (0..maps[0].len()).map(|from| part(to, from)).sum()).collect()
    };
    (loss, probabilities.iter().zip(&by_probability).map(through).collect())
}

/// Checks a head of `count` maps; `smoothing` as of [`HeadLoss::Softmax`].
fn check_head(
    count: usize,
    [batch, rows, columns]: [usize; 3],
    channels: usize,
    weights: Option<&[f32]>,
    smoothing: f32,
) {
    let shape = Shape { batch, rows, columns, channels };
    let photo = [rows.div_ceil(2), columns];
    let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
    let input = random(&mut rng, shape.len());
    let (weight, bias) = (random(&mut rng, count * channels), random(&mut rng, count));
    let labels: Vec<u8> = (0..shape.pixels()).map(|_| rng.random_range(0..count as u8)).collect();
    let scale = 1.0 / (shape.pixels() * if weights.is_some() { 1 } else { count }) as f64;
    let (mut loss, mut own_loss, mut own_bce, mut right) = (0.0, 0.0, 0.0, 0.0);
    let (mut of_input, mut of_weight, mut of_bias) =
        (vec![0.0; shape.len()], vec![0.0; count * channels], vec![0.0; count]);
    let mut categories = Vec::new();
    let mut counts = vec![0; batch * count];
    let maps = |pixel: usize| {
        let x = &input[pixel * channels..][..channels];
        let product = |n: usize, k: usize| f64::from(x[k]) * f64::from(weight[n * channels + k]);
        let map = |n: usize| (0..channels).map(|k| product(n, k)).sum::<f64>() + f64::from(bias[n]);
        (0..count).map(map).collect::<Vec<f64>>()
    };
    let all_maps: Vec<Vec<f64>> = (0..shape.pixels()).map(maps).collect();
    let (of_dice, dice_gradient) = naive_dice(&all_maps, &labels);
    for (at, [photo_index, row, column]) in pixels(shape).enumerate() {
        let (x, maps) = (&input[at * channels..][..channels], &all_maps[at]);
        let label = usize::from(labels[at]);
        let (of_pixel, _, mut gradient, category) = naive_pixel(maps, label, weights, f64::from(smoothing));
        if weights.is_some() {
            gradient.iter_mut().zip(&dice_gradient[at]).for_each(|(sum, of_dice)| *sum += of_dice / scale);
        }
        categories.push(category as u8);
        loss += of_pixel * scale;
        if row < photo[0] && column < photo[1] {
            let plain = weights.map(|_| vec![1.0; count]);
            let (of_own, bce, ..) = naive_pixel(maps, label, plain.as_ref().map(|it| &it[..]), 0.0);
            let share = 1.0 / (batch * photo[0] * photo[1]) as f64;
            own_loss += of_own * share / if weights.is_some() { 1.0 } else { count as f64 };
            own_bce += bce * share / count as f64;
            right += f64::from(u8::from(category == label)) * share;
            counts[photo_index * count + category] += 1;
        }
        for (n, gradient) in gradient.iter().enumerate() {
            of_bias[n] += gradient * scale;
            for k in 0..channels {
                of_weight[n * channels + k] += gradient * scale * f64::from(x[k]);
                if x[k] > 0.0 {
                    of_input[at * channels + k] += gradient * scale * f64::from(weight[n * channels + k]);
                }
            }
        }
    }
    loss += weights.map_or(0.0, |_| of_dice);
    let head = Head { maps: count, shape, input: &input, weight: &weight, bias: &bias, photo };
    every_instructions(|workers| {
        let kind = weights.map_or(HeadLoss::Bce, |weights| HeadLoss::Softmax { weights, dice: DICE, smoothing });
        let mut input_gradient = vec![f32::NAN; shape.len()];
        let learnt = head.learn(workers, kind, &labels, &mut input_gradient);
        assert_close("loss and accuracy", &[learnt.loss, learnt.pixel_accuracy], &[loss, right]);
        assert_close("input gradient", &input_gradient, &of_input);
        assert_close("weight gradient", &learnt.weight, &of_weight);
        assert_close("bias gradient", &learnt.bias, &of_bias);
        let mut map = vec![99; shape.pixels()];
        let losses = head.evaluate(workers, weights.is_some(), &labels, &mut map);
        assert_close("losses", &losses, &[own_loss, own_bce]);
        assert_eq!(map, categories);
        let (mut map, mut found) = (vec![99; shape.pixels()], vec![99; batch * count]);
        head.label(workers, 1, &mut map, &mut found);
        assert_eq!((map, found), (categories.clone(), counts.clone()));
    });
}

#[test]
fn the_head_is_as_defined() {
    let weights: Vec<f32> = (0..MAX_MAPS).map(|it| 0.5 + it as f32 * 0.1).collect();
    for (size, channels) in SIZES.into_iter().flat_map(|size| HEAD_CHANNELS.map(|channels| (size, channels))) {
        for count in NUMBERS {
            check_head(count, size, channels, None, 0.0);
            check_head(count, size, channels, Some(&weights[..count]), 0.0);
            check_head(count, size, channels, Some(&weights[..count]), 0.3);
        }
    }
}

/// A head's bias may be one for each photo.
#[test]
fn a_bias_for_each_photo_is_that_of_the_photo() {
    let shape = Shape { batch: 2, rows: 3, columns: 5, channels: 8 };
    for count in NUMBERS {
        let mut rng = ChaCha8Rng::seed_from_u64(count as u64);
        let input = random(&mut rng, shape.len() / 2).repeat(2);
        let (weight, bias) = (random(&mut rng, count * 8), random(&mut rng, 2 * count));
        let labels: Vec<u8> = (0..15).map(|_| rng.random_range(0..count as u8)).collect::<Vec<_>>().repeat(2);
        every_instructions(|workers| {
            let learn = |batch: usize, bias: &[f32]| {
                let shape = Shape { batch, ..shape };
                let input = &input[..shape.len()];
                let head = Head { maps: count, shape, input, weight: &weight, bias, photo: [3, 5] };
                let mut gradient = vec![0.0; shape.len()];
                let learnt = head.learn(workers, HeadLoss::Bce, &labels[..shape.pixels()], &mut gradient);
                (learnt, gradient)
            };
            let (both, gradient) = learn(2, &bias);
            let each = bias.chunks_exact(count).map(|bias| learn(1, bias));
            for (photo, (learnt, of_input)) in each.enumerate() {
                let half = |values: &[f32]| values.iter().map(|it| f64::from(*it) / 2.0).collect::<Vec<_>>();
                assert_close("bias gradient", &both.bias[photo * count..][..count], &half(&learnt.bias));
                assert_close("input gradient", &gradient[photo * 120..][..120], &half(&of_input));
                assert_eq!(both.present[photo * count..][..count], learnt.present);
            }
        });
    }
}

/// The label map of enlarged maps by its definition: bilinear interpolation between the centres of pixels, the pixels at the
/// edge repeated.
fn check_enlarged(count: usize, [batch, rows, columns]: [usize; 3], channels: usize, scale: usize) {
    let shape = Shape { batch, rows, columns, channels };
    let mut rng = ChaCha8Rng::seed_from_u64((shape.len() * scale) as u64);
    let mut drawn = |len: usize| -> Vec<f32> { (0..len).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let (input, weight, bias) = (drawn(shape.len()), drawn(count * channels), drawn(count));
    let map_at = |photo: usize, row: usize, column: usize, category: usize| {
        let pixel = (photo * rows + row) * columns + column;
        let x = &input[pixel * channels..][..channels];
        let products = x.iter().zip(&weight[category * channels..]).map(|(x, w)| f64::from(*x) * f64::from(*w));
        products.sum::<f64>() + f64::from(bias[category])
    };
    let around = |position: usize, side: usize| {
        let at = ((position as f64 + 0.5) / scale as f64 - 0.5).clamp(0.0, (side - 1) as f64);
        let before = at as usize;
        (before, (before + 1).min(side - 1), at.fract())
    };
    let mut expected = Vec::new();
    for (photo, row, column) in (0..batch)
        .flat_map(|photo| (0..scale * rows).map(move |row| (photo, row)))
        .flat_map(|(photo, row)| (0..scale * columns).map(move |column| (photo, row, column)))
    {
        let ((top, bottom, down), (left, right, along)) = (around(row, rows), around(column, columns));
        let value = |category: usize| {
            let of_row =
                |row| map_at(photo, row, left, category) * (1.0 - along) + map_at(photo, row, right, category) * along;
            of_row(top) * (1.0 - down) + of_row(bottom) * down
        };
        let values: Vec<f64> = (0..count).map(value).collect();
        let highest = values.iter().copied().fold(f64::MIN, f64::max);
        expected.push((0..count).filter(|&category| values[category] > highest - 1e-5).collect::<Vec<_>>());
    }
    let photo = [rows.div_ceil(2), columns];
    let head = Head { maps: count, shape, input: &input, weight: &weight, bias: &bias, photo };
    every_instructions(|workers| {
        let (mut map, mut counts) = (vec![99; shape.pixels() * scale * scale], vec![99; batch * count]);
        head.label(workers, scale, &mut map, &mut counts);
        for (at, (found, expected)) in map.iter().zip(&expected).enumerate() {
            assert!(expected.contains(&usize::from(*found)), "pixel {at}: {found}, not one of {expected:?}");
        }
        let own = batch * photo[0] * photo[1] * scale * scale;
        assert_eq!(counts.iter().map(|&it| it as usize).sum::<usize>(), own);
    });
}

#[test]
fn enlarged_label_maps_are_as_defined() {
    for (size, channels) in SIZES.into_iter().flat_map(|size| HEAD_CHANNELS.map(|channels| (size, channels))) {
        for count in NUMBERS {
            check_enlarged(count, size, channels, 2);
            check_enlarged(count, size, channels, 4);
        }
    }
}

/// Batch normalisation and its gradients by their definitions.
fn check_batch_norm([batch, rows, columns]: [usize; 3], channels: usize) {
    const EPSILON: f32 = 1e-3;
    let shape = Shape { batch, rows, columns, channels };
    let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
    // Mean far from zero compared with the deviation: a plain mean of squares would lose precision.
    let input: Vec<f32> = random(&mut rng, shape.len()).iter().map(|x| 20.0 + x).collect();
    let gradient = random(&mut rng, shape.len());
    let [scale, bias] = [(); 2].map(|()| random(&mut rng, channels));
    let count = shape.pixels() as f64;
    let mut mean = vec![0.0; channels];
    let mut variance = vec![0.0; channels];
    let (mut output, mut of_input) = (vec![0.0; shape.len()], vec![0.0; shape.len()]);
    let (mut of_scale, mut of_bias) = (vec![0.0; channels], vec![0.0; channels]);
    for channel in 0..channels {
        let of_channel =
            |values: &[f32]| values.iter().skip(channel).step_by(channels).map(|&it| f64::from(it)).collect();
        let (x, dy): (Vec<f64>, Vec<f64>) = (of_channel(&input), of_channel(&gradient));
        mean[channel] = x.iter().sum::<f64>() / count;
        variance[channel] = x.iter().map(|x| (x - mean[channel]).powi(2)).sum::<f64>() / count;
        let inverse = 1.0 / (variance[channel] + f64::from(EPSILON)).sqrt();
        let normal: Vec<f64> = x.iter().map(|x| (x - mean[channel]) * inverse).collect();
        of_bias[channel] = dy.iter().sum();
        of_scale[channel] = dy.iter().zip(&normal).map(|(dy, normal)| dy * normal).sum();
        for (pixel, (normal, dy)) in normal.iter().zip(&dy).enumerate() {
            let at = pixel * channels + channel;
            output[at] = normal * f64::from(scale[channel]) + f64::from(bias[channel]);
            let rest = dy - (of_bias[channel] + normal * of_scale[channel]) / count;
            of_input[at] = f64::from(scale[channel]) * inverse * rest;
        }
    }
    every_instructions(|workers| {
        let mut found = vec![f32::NAN; shape.len()];
        let parameters = [&scale[..], &bias];
        let statistics = batch_norm(workers, shape, &input, parameters, EPSILON, (Activation::None, None), &mut found);
        assert_close("mean", &statistics[0], &mean);
        assert_close("variance", &statistics[1], &variance);
        // The rounding error of the input, 20 and more, remains in the normalised result.
        let largest = output.iter().fold(1e-3_f64, |largest, it| largest.max(it.abs()));
        assert!(found.iter().zip(&output).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4 * largest), "output");
        let plain = found;
        for (activation, residual) in
            [(Activation::Relu, None), (Activation::Relu6, None), (Activation::None, Some(&gradient[..]))]
        {
            let mut found = vec![f32::NAN; shape.len()];
            batch_norm(workers, shape, &input, parameters, EPSILON, (activation, residual), &mut found);
            for (at, (found, plain)) in found.iter().zip(&plain).enumerate() {
                let expected = activated(activation, f64::from(*plain)) as f32 + residual.map_or(0.0, |it| it[at]);
                assert_eq!(*found, expected, "{activation:?}");
            }
        }
        let statistics = statistics.each_ref().map(|it| &it[..]);
        let mut found = vec![f32::NAN; shape.len()];
        let parameters =
            batch_norm_gradient(workers, shape, [&input, &gradient], &scale, statistics, EPSILON, &mut found);
        assert_close("bias gradient", &parameters[1], &of_bias);
        let close = |found: &[f32], expected: &[f64]| {
            let largest = expected.iter().fold(1e-2_f64, |largest, it| largest.max(it.abs()));
            found.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4 * largest)
        };
        assert!(close(&parameters[0], &of_scale), "scale gradient");
        assert!(close(&found, &of_input), "input gradient");
    });
}

#[test]
fn batch_norm_is_as_defined() {
    for (size, channels) in SIZES[1..].iter().flat_map(|&size| [8, 16, 24].map(|channels| (size, channels))) {
        check_batch_norm(size, channels);
    }
}

#[test]
fn shapes_that_were_drawn_give_what_is_defined() {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    for _ in 0..12 {
        let [batch, rows, columns] = [3, 20, 45].map(|most| rng.random_range(1..=most));
        let [channels, out] = [(); 2].map(|()| 8 * rng.random_range(1..=9));
        let shape = Shape { batch, rows, columns, channels };
        check_convolution(shape, rng.random::<bool>().then(|| 8 * rng.random_range(1..=9)), out);
        check_pointwise(shape, out);
        check_depthwise(Shape { channels: 8 * rng.random_range(1..=4), ..shape }, &mut rng);
        check_up(shape, out);
        check_pool(Shape { rows: 2 * rows, columns: 2 * columns, ..shape });
        check_head(MAPS, [batch, rows, columns], HEAD_CHANNELS[columns % HEAD_CHANNELS.len()], None, 0.0);
        check_batch_norm([batch + 1, rows, columns], channels);
    }
}

#[test]
fn extreme_maps_are_clipped_as_keras_clips() {
    // A map of +-100 is certain: a wrong one costs -ln 1e-7.
    let shape = Shape { batch: 1, rows: 1, columns: 1, channels: 8 };
    let mut bias = vec![-100.0; MAPS];
    bias[3] = 100.0;
    let (input, weight) = (vec![0.0; 8], vec![0.0; MAPS * 8]);
    let head = Head { maps: MAPS, shape, input: &input, weight: &weight, bias: &bias, photo: [1, 1] };
    every_instructions(|workers| {
        let mut gradient = vec![0.0; 8];
        let right = head.learn(workers, HeadLoss::Bce, &[3], &mut gradient);
        let wrong = head.learn(workers, HeadLoss::Bce, &[4], &mut gradient);
        let highest = -(1e-7_f64).ln();
        assert_close("losses", &[wrong.loss], &[2.0 * highest / MAPS as f64]);
        assert!(right.loss < 1e-6 && right.pixel_accuracy == 1.0 && wrong.pixel_accuracy == 0.0);
    });
}

#[test]
fn adam_is_as_defined() {
    let len = 70_001;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let [gradient, weights, first, second] = [(); 4].map(|()| random(&mut rng, len));
    let second: Vec<f32> = second.iter().map(|it| it.abs()).collect();
    let adam = Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, step: 3.0, learning_rate: 1e-3 };
    let rate = 1e-3 * (1.0 - 0.999_f64.powi(3)).sqrt() / (1.0 - 0.9_f64.powi(3));
    let wide = |all: &[f32]| -> Vec<f64> { all.iter().map(|&it| f64::from(it)).collect() };
    let (g, w, m, v) = (wide(&gradient), wide(&weights), wide(&first), wide(&second));
    let new_m: Vec<f64> = m.iter().zip(&g).map(|(m, g)| 0.9 * m + 0.1 * g).collect();
    let new_v: Vec<f64> = v.iter().zip(&g).map(|(v, g)| 0.999 * v + 0.001 * g * g).collect();
    let new_w: Vec<f64> = (0..len).map(|at| w[at] - rate * new_m[at] / (new_v[at].sqrt() + 1e-7)).collect();
    // Decoupled: what decays does not go through the moments.
    let [factors, decays] = [(); 2].map(|()| random(&mut rng, len).iter().map(|it| it.abs()).collect::<Vec<f32>>());
    let decayed = |at: usize| w[at] * (1.0 - 1e-3 * f64::from(factors[at]) * f64::from(decays[at]));
    let step = |at: usize| rate * f64::from(factors[at]) * new_m[at] / (new_v[at].sqrt() + 1e-7);
    let new_decayed: Vec<f64> = (0..len).map(|at| decayed(at) - step(at)).collect();
    every_instructions(|workers| {
        for (of_weights, new_w) in [(None, &new_w), (Some([&factors[..], &decays]), &new_decayed)] {
            let inputs = AdamInputs { gradient: &gradient, weights: &weights, moments: [&first, &second], of_weights };
            let [mut found_w, mut found_m, mut found_v] = [(); 3].map(|()| vec![f32::NAN; len]);
            adam.apply(workers, inputs, [&mut found_w, &mut found_m, &mut found_v]);
            assert_close("weights", &found_w, new_w);
            assert_close("first moment", &found_m, &new_m);
            assert_close("second moment", &found_v, &new_v);
        }
    });
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
pub(super) mod of_bf16 {
    use half::bf16;

    use super::*;
    use lookbook_ops::bf16::{
        Avx512Bf16, Bf16Maps, Output, bf16_convolution, bf16_max_pool, bf16_pointwise, bf16_up_convolution,
    };

    /// Numbers that are exact in bf16: their products are exact in f32.
    pub(crate) fn exact(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
        random(rng, len).iter().map(|&it| bf16::from_f32(it).to_f32()).collect()
    }

    pub(crate) fn bits(values: &[f32]) -> Vec<u16> {
        values.iter().map(|&it| bf16::from_f32(it).to_bits()).collect()
    }

    pub(crate) fn rounded(values: &[f32]) -> Vec<f32> {
        values.iter().map(|&it| bf16::from_f32(it).to_f32()).collect()
    }

    pub(crate) fn floats(bits: &[u16]) -> Vec<f32> {
        bits.iter().map(|&it| bf16::from_bits(it).to_f32()).collect()
    }

    pub(crate) fn token() -> Option<Avx512Bf16> {
        let token = Avx512Bf16::detect();
        if token.is_none() {
            crate::skip::skip("this processor has no AVX-512-BF16");
        }
        token
    }

    #[test]
    fn convolutions_are_those_of_f32() {
        let Some(token) = token() else { return };
        for [batch, rows, columns] in SIZES {
            for ([channels, out], second) in
                [([8, 8], None), ([16, 24], None), ([32, 64], None), ([64, 32], Some(64)), ([8, 16], Some(24))]
            {
                let shape = Shape { batch, rows, columns, channels };
                let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
                let widths = [channels].into_iter().chain(second);
                let inputs: Vec<Vec<f32>> = widths.map(|it| exact(&mut rng, shape.pixels() * it)).collect();
                let all_channels = channels + second.unwrap_or(0);
                let (weight, bias) = (exact(&mut rng, out * all_channels * 9), random(&mut rng, out));
                let maps: Vec<Maps<'_>> = inputs.iter().map(|it| Maps::Features(it)).collect();
                let halves: Vec<Vec<u16>> = inputs.iter().map(|it| bits(it)).collect();
                let half_maps: Vec<Bf16Maps<'_>> = halves.iter().map(|it| Bf16Maps::Features(it)).collect();
                let mut expected = vec![f32::NAN; shape.pixels() * out];
                let workers = Workers { instructions: Instructions::best(), spread: &Rayon };
                convolution(workers, shape, &maps, [&weight, &bias], Activation::Relu, &mut expected);
                let half_convolution = |output: Output<'_>| {
                    let parameters = [&weight[..], &bias];
                    bf16_convolution(token, &Rayon, shape, &half_maps, parameters, Activation::Relu, output);
                };
                let mut wide = vec![f32::NAN; expected.len()];
                half_convolution(Output::F32(&mut wide));
                let wanted: Vec<f64> = expected.iter().map(|&it| f64::from(it)).collect();
                assert_close(&format!("{shape:?} and {second:?} to {out}"), &wide, &wanted);
                let mut narrow = vec![0; expected.len()];
                half_convolution(Output::Bf16(&mut narrow));
                assert_eq!(floats(&narrow), rounded(&wide));
            }
        }
    }

    #[test]
    fn photos_are_those_of_f32() {
        let Some(token) = token() else { return };
        for ([batch, rows, columns], channels) in SIZES.into_iter().flat_map(|size| [3, 12].map(|it| (size, it))) {
            let shape = Shape { batch, rows, columns, channels };
            let mut rng = ChaCha8Rng::seed_from_u64(8);
            let photo: Vec<u8> = (0..shape.len()).map(|_| rng.random()).collect();
            // Weights that are exact in bf16 once the division by 255 has been folded into them.
            let weight: Vec<f32> = exact(&mut rng, 8 * 9 * channels).iter().map(|it| it * 255.0).collect();
            let bias = random(&mut rng, 8);
            let mut expected = vec![f32::NAN; shape.pixels() * 8];
            let workers = Workers { instructions: Instructions::best(), spread: &Rayon };
            convolution(
                workers,
                shape,
                &[Maps::Photos(Photos::new(&photo))],
                [&weight, &bias],
                Activation::Relu,
                &mut expected,
            );
            let mut found = vec![f32::NAN; expected.len()];
            bf16_convolution(
                token,
                &Rayon,
                shape,
                &[Bf16Maps::Photos(Photos::new(&photo))],
                [&weight, &bias],
                Activation::Relu,
                Output::F32(&mut found),
            );
            let wanted: Vec<f64> = expected.iter().map(|&it| f64::from(it)).collect();
            assert_close(&format!("{shape:?}"), &found, &wanted);
        }
    }

    /// Asserts agreement within a place of bf16: sums may be rounded differently.
    pub(crate) fn assert_same_place(what: &str, found: &[u16], expected: &[f32]) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in floats(found).iter().zip(expected) {
            assert!((found - expected).abs() <= 4e-3 * expected.abs().max(0.1), "{what}: {found}, not {expected}");
        }
    }

    #[test]
    fn photos_are_filled_as_in_f32() {
        let Some(token) = token() else { return };
        let shape = Shape { batch: 1, rows: 3, columns: 5, channels: 3 };
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let bytes: Vec<u8> = (0..shape.len()).map(|_| rng.random()).collect();
        let weight: Vec<f32> = exact(&mut rng, 8 * 27).iter().map(|it| it * 255.0).collect();
        let (bias, fill) = (random(&mut rng, 8), [127.0 / 255.0, 0.0, 1.0]);
        let photos = Photos { bytes: &bytes, fill: &fill };
        let mut expected = vec![f32::NAN; shape.pixels() * 8];
        let workers = Workers { instructions: Instructions::best(), spread: &Rayon };
        convolution(workers, shape, &[Maps::Photos(photos)], [&weight, &bias], Activation::Relu6, &mut expected);
        let mut found = vec![f32::NAN; expected.len()];
        let inputs = [Bf16Maps::Photos(photos)];
        bf16_convolution(token, &Rayon, shape, &inputs, [&weight, &bias], Activation::Relu6, Output::F32(&mut found));
        let wanted: Vec<f64> = expected.iter().map(|&it| f64::from(it)).collect();
        assert_close("filled", &found, &wanted);
    }

    #[test]
    fn pointwise_convolutions_are_those_of_f32() {
        let Some(token) = token() else { return };
        let workers = Workers { instructions: Instructions::best(), spread: &Rayon };
        for ([batch, rows, columns], [channels, out]) in
            SIZES.into_iter().flat_map(|size| [[8, 8], [24, 144], [40, 24], [112, 16]].map(|it| (size, it)))
        {
            let shape = Shape { batch, rows, columns, channels };
            let mut rng = ChaCha8Rng::seed_from_u64((shape.len() + out) as u64);
            let (input, residual) = (exact(&mut rng, shape.len()), exact(&mut rng, shape.pixels() * out));
            let (weight, bias) = (exact(&mut rng, channels * out), random(&mut rng, out));
            for (activation, residual) in ACTIVATIONS.into_iter().flat_map(|it| [(it, None), (it, Some(&residual))]) {
                let mut expected = vec![f32::NAN; shape.pixels() * out];
                let parameters = [&weight[..], &bias];
                let summand = residual.map(|it| &it[..]);
                pointwise(workers, shape, &input, parameters, activation, summand, &mut expected);
                let mut found = vec![0; expected.len()];
                let halves = residual.map(|it| bits(it));
                let fused = (activation, halves.as_deref());
                bf16_pointwise(token, &Rayon, shape, &bits(&input), parameters, fused, &mut found);
                assert_same_place(&format!("{shape:?} to {out}, {activation:?}"), &found, &expected);
            }
        }
    }

    /// Unlike the others these need no instructions of their own.
    #[test]
    fn depthwise_convolutions_are_those_of_f32() {
        for ([batch, rows, columns], channels) in SIZES.into_iter().flat_map(|size| [8, 24, 48].map(|it| (size, it))) {
            for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2)] {
                let shape = Shape { batch, rows, columns, channels };
                let layer = Depthwise { shape, kernel, stride, pads: [kernel / 2; 2] };
                let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
                let input = exact(&mut rng, shape.len());
                let parameters = [random(&mut rng, channels * kernel * kernel), random(&mut rng, channels)];
                let parameters = parameters.each_ref().map(|it| &it[..]);
                every_instructions(|workers| {
                    let mut expected = vec![f32::NAN; layer.output_shape().len()];
                    layer.forward(workers, &input, parameters, Activation::Relu6, &mut expected);
                    let mut found = vec![0; expected.len()];
                    layer.forward_bf16(workers, &bits(&input), parameters, Activation::Relu6, &mut found);
                    // The same sums, rounded.
                    assert_eq!(floats(&found), rounded(&expected), "{} {layer:?}", workers.instructions);
                });
            }
        }
    }

    #[test]
    fn pooling_and_transposed_convolutions_are_those_of_f32() {
        let Some(token) = token() else { return };
        let workers = Workers { instructions: Instructions::best(), spread: &Rayon };
        for [batch, rows, columns] in SIZES {
            let mut rng = ChaCha8Rng::seed_from_u64(columns as u64);
            let shape = Shape { batch, rows: 2 * rows, columns: 2 * columns, channels: 24 };
            let input: Vec<f32> = exact(&mut rng, shape.len()).iter().map(|it| it.abs()).collect();
            let mut expected = vec![f32::NAN; pooled_shape(shape).len()];
            max_pool(workers, shape, &input, &mut expected);
            let mut found = vec![0; expected.len()];
            bf16_max_pool(token, &Rayon, shape, &bits(&input), &mut found);
            assert_eq!(floats(&found), expected);

            let shape = Shape { batch, rows, columns, channels: 16 };
            let (weight, bias) = (exact(&mut rng, 16 * 8 * 4), random(&mut rng, 8));
            let mut expected = vec![f32::NAN; up_shape(shape, 8).len()];
            let input = exact(&mut rng, shape.len());
            up_convolution(workers, shape, &input, [&weight, &bias], &mut expected);
            let mut found = vec![0; expected.len()];
            bf16_up_convolution(token, &Rayon, shape, &bits(&input), [&weight, &bias], &mut found);
            // The two sums may be rounded differently, by one place of bf16.
            for (found, expected) in floats(&found).iter().zip(&expected) {
                assert!((found - expected).abs() <= 4e-3 * expected.abs().max(0.1), "{found}, not {expected}");
            }
        }
    }
}

#[test]
fn squares_hold_their_pixels_and_labels_their_squares() {
    let workers = Workers { instructions: crate::instructions()[0], spread: &Rayon };
    for [batch, rows, columns] in SIZES {
        let shape = Shape { batch, rows, columns, channels: 1 };
        let twice = Shape { batch, rows: 2 * rows, columns: 2 * columns, channels: 3 };
        let photos: Vec<u8> = (0..twice.len()).map(|at| (at * 37 % 251) as u8).collect();
        let mut squares = vec![0; twice.len()];
        gather_squares(workers, twice, &photos, &mut squares);
        let labels = &photos[..shape.len()];
        let mut enlarged = vec![0; 4 * shape.len()];
        enlarge_labels(workers, shape, labels, &mut enlarged);
        for pixel @ [photo, row, column] in pixels(twice) {
            let square = [photo, row / 2, column / 2];
            for channel in 0..3 {
                let place = (row % 2 * 2 + column % 2) * 3 + channel;
                let gathered = squares[index(shape.with_channels(12), square, place)];
                assert_eq!(gathered, photos[index(twice, pixel, channel)], "{shape:?} {pixel:?}");
            }
            let label = enlarged[index(twice.with_channels(1), pixel, 0)];
            assert_eq!(label, labels[index(shape, square, 0)], "{shape:?} {pixel:?}");
        }
    }
}
