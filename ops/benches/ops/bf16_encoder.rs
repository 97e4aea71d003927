//! The layers of an encoder in bf16, forward and back, at the shapes of those in f32: what they give is checked against
//! these on numbers that are exact in bf16.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use half::bf16;
use lookbook_ops::bf16::{Avx512Bf16, bf16_pointwise, bf16_pointwise_input_gradient, bf16_pointwise_weight_gradient};
use lookbook_ops::depthwise::Depthwise;
use lookbook_ops::norm::{batch_norm, batch_norm_bf16, batch_norm_gradient, batch_norm_gradient_bf16};
use lookbook_ops::pointwise::{pointwise, pointwise_input_gradient, pointwise_weight_gradient};
use lookbook_ops::{Activation, Mask, Rayon, Shape};

use super::{DEPTHWISE, POINTWISE, TOLERANCE, encoder_maps, group, random, workers};

/// Halvings and channels of the normalised maps of `EfficientNet-Lite0`.
const NORMALISED: [[usize; 2]; 12] =
    [[1, 32], [1, 16], [1, 96], [2, 24], [2, 144], [3, 40], [3, 240], [4, 80], [4, 480], [4, 672], [5, 192], [5, 1152]];
const EPSILON: f32 = 1e-3;

/// Random numbers that are exact in bf16, and their bits.
pub(crate) fn exact(len: usize) -> (Vec<f32>, Vec<u16>) {
    let bits: Vec<u16> = random(len).iter().map(|&it| bf16::from_f32(it).to_bits()).collect();
    (floats(&bits), bits)
}

pub(crate) fn floats(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|&it| bf16::from_bits(it).to_f32()).collect()
}

/// Checks maps against those of f32, up to the rounding to bf16 and the order of sums.
pub(crate) fn check_maps(found: &[u16], expected: &[f32]) {
    check(&floats(found), expected, 1.0 / 256.0);
}

/// Checks numbers up to a share of each, and of the largest for the order of sums.
pub(crate) fn check(found: &[f32], expected: &[f32], share: f32) {
    let largest = expected.iter().fold(0.0_f32, |largest, it| largest.max(it.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let most = share * expected.abs() + TOLERANCE as f32 * largest;
        assert!((found - expected).abs() <= most, "element {at} is {found}, not {expected}");
    }
}

pub(crate) fn pointwises(criterion: &mut Criterion) {
    let Some(token) = Avx512Bf16::detect() else { return };
    for [halvings, channels, out] in POINTWISE {
        let (shape, name) = (encoder_maps(halvings, channels), format!("{channels} to {out}"));
        let [(input, half_input), (gradient, half_gradient)] = [shape.len(), shape.pixels() * out].map(exact);
        let ((weight, _), bias) = (exact(channels * out), random(out));
        let (parameters, mut maps) = ([&weight[..], &bias], vec![0; gradient.len()]);
        let flop = || Throughput::Elements(2 * (shape.pixels() * weight.len()) as u64);

        let mut run = || {
            let fused = (Activation::Relu6, Some(&half_gradient[..]));
            bf16_pointwise(token, &Rayon, shape, &half_input, parameters, fused, black_box(&mut maps));
        };
        run();
        group(criterion, "pointwise_bf16").throughput(flop()).bench_function(&name, |it| it.iter(&mut run));
        let mut expected = vec![0.0; gradient.len()];
        pointwise(workers(), shape, &input, parameters, Activation::Relu6, Some(&gradient), &mut expected);
        check_maps(&maps, &expected);

        let mut maps = vec![0; shape.len()];
        let mut run = || {
            let mask = Mask { activation: Activation::Relu6, maps: &half_input[..] };
            let (fused, maps) = ((Some(&half_input[..]), Some(mask)), black_box(&mut maps));
            bf16_pointwise_input_gradient(token, &Rayon, shape, &half_gradient, &weight, fused, maps);
        };
        run();
        let mut to_input = group(criterion, "pointwise_input_gradient_bf16");
        to_input.throughput(flop()).bench_function(&name, |it| it.iter(&mut run));
        to_input.finish();
        let mut expected = vec![0.0; shape.len()];
        let mask = Some(Mask { activation: Activation::Relu6, maps: &input[..] });
        pointwise_input_gradient(workers(), shape, &gradient, &weight, Some(&input), mask, &mut expected);
        check_maps(&maps, &expected);

        let (mut of_weight, mut of_bias) = (vec![0.0; weight.len()], vec![0.0; out]);
        let mut run = || {
            let results = black_box([&mut of_weight[..], &mut of_bias]);
            bf16_pointwise_weight_gradient(token, &Rayon, shape, &half_input, &half_gradient, results);
        };
        run();
        let mut to_weight = group(criterion, "pointwise_weight_gradient_bf16");
        to_weight.throughput(flop()).bench_function(&name, |it| it.iter(&mut run));
        to_weight.finish();
        let mut expected = [vec![0.0; weight.len()], vec![0.0; out]];
        let results = expected.each_mut().map(|it| &mut it[..]);
        pointwise_weight_gradient(workers(), shape, &input, &gradient, results);
        check(&of_weight, &expected[0], 0.0);
        check(&of_bias, &expected[1], 0.0);
    }
}

pub(crate) fn depthwises(criterion: &mut Criterion) {
    for [halvings, channels, kernel, stride] in DEPTHWISE {
        let shape = encoder_maps(halvings, channels);
        let layer = Depthwise { shape, kernel, stride, pads: [(kernel - stride) / 2; 2] };
        let name = format!("{channels}, {kernel}x{kernel}, stride {stride}");
        let [(input, half_input), (gradient, half_gradient)] = [shape.len(), layer.output_shape().len()].map(exact);
        let (weight, bias) = (random(channels * kernel * kernel), random(channels));
        let (parameters, mut maps) = ([&weight[..], &bias], vec![0; gradient.len()]);
        let bytes = |maps: usize| Throughput::Bytes(2 * maps as u64);

        let mut run =
            || layer.forward_bf16(workers(), &half_input, parameters, Activation::Relu6, black_box(&mut maps));
        run();
        let mut forward = group(criterion, "depthwise_bf16");
        forward.throughput(bytes(input.len() + gradient.len())).bench_function(&name, |it| it.iter(&mut run));
        forward.finish();
        let mut expected = vec![0.0; gradient.len()];
        layer.forward(workers(), &input, parameters, Activation::Relu6, &mut expected);
        check_maps(&maps, &expected);

        let mut maps = vec![0; shape.len()];
        let mut run = || {
            let mask = Some(Mask { activation: Activation::Relu6, maps: &half_input[..] });
            layer.input_gradient_bf16(workers(), &half_gradient, &weight, mask, black_box(&mut maps));
        };
        run();
        let mut to_input = group(criterion, "depthwise_input_gradient_bf16");
        to_input.throughput(bytes(2 * input.len() + gradient.len())).bench_function(&name, |it| it.iter(&mut run));
        to_input.finish();
        let mut expected = vec![0.0; shape.len()];
        let mask = Some(Mask { activation: Activation::Relu6, maps: &input[..] });
        layer.input_gradient(workers(), &gradient, &weight, mask, &mut expected);
        check_maps(&maps, &expected);

        let (mut of_weight, mut of_bias) = (vec![0.0; weight.len()], vec![0.0; channels]);
        let mut run = || {
            let results = black_box([&mut of_weight[..], &mut of_bias]);
            layer.weight_gradient_bf16(workers(), &half_input, &half_gradient, results);
        };
        run();
        let mut to_weight = group(criterion, "depthwise_weight_gradient_bf16");
        to_weight.throughput(bytes(input.len() + gradient.len())).bench_function(&name, |it| it.iter(&mut run));
        to_weight.finish();
        let mut expected = [vec![0.0; weight.len()], vec![0.0; channels]];
        layer.weight_gradient(workers(), &input, &gradient, expected.each_mut().map(|it| &mut it[..]));
        check(&of_weight, &expected[0], 0.0);
        check(&of_bias, &expected[1], 0.0);
    }
}

/// Forward and back, in f32 and in bf16.
pub(crate) fn batch_norms(criterion: &mut Criterion) {
    for [halvings, channels] in NORMALISED {
        normalise(criterion, encoder_maps(halvings, channels), &format!("{channels} at /{}", 1 << halvings));
    }
}

fn normalise(criterion: &mut Criterion, shape: Shape, name: &str) {
    const FUSED: (Activation, Option<&[f32]>) = (Activation::Relu6, None);
    let elements = || Throughput::Elements(shape.len() as u64);
    let [(input, half_input), (gradient, half_gradient)] = [(); 2].map(|()| exact(shape.len()));
    let [scale, bias] = [(); 2].map(|()| random(shape.channels));
    let parameters = [&scale[..], &bias];
    let mut expected = vec![0.0; shape.len()];
    let mut run = || batch_norm(workers(), shape, &input, parameters, EPSILON, FUSED, black_box(&mut expected));
    let [mean, variance] = run();
    group(criterion, "encoder_norm").throughput(elements()).bench_function(name, |it| it.iter(&mut run));
    let mut maps = vec![0; shape.len()];
    let fused = (Activation::Relu6, None);
    let mut run = || batch_norm_bf16(workers(), shape, &half_input, parameters, EPSILON, fused, black_box(&mut maps));
    run();
    group(criterion, "encoder_norm_bf16").throughput(elements()).bench_function(name, |it| it.iter(&mut run));
    check_maps(&maps, &expected);

    let (both, statistics) = ([&input[..], &gradient], [&mean[..], &variance]);
    let mut run = || batch_norm_gradient(workers(), shape, both, &scale, statistics, EPSILON, black_box(&mut expected));
    run();
    group(criterion, "encoder_norm_gradient").throughput(elements()).bench_function(name, |it| it.iter(&mut run));
    let both = [&half_input[..], &half_gradient];
    let mut run =
        || batch_norm_gradient_bf16(workers(), shape, both, &scale, statistics, EPSILON, black_box(&mut maps));
    run();
    group(criterion, "encoder_norm_gradient_bf16").throughput(elements()).bench_function(name, |it| it.iter(&mut run));
    check_maps(&maps, &expected);
}
