//! The layers of the U-Net in bf16, forward and back, at the shapes of those in f32: what they give is checked against
//! these on numbers that are exact in bf16.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use lookbook_ops::bf16::{
    Avx512Bf16, Bf16Maps, Output, bf16_convolution, bf16_convolution_input_gradient, bf16_convolution_weight_gradient,
    bf16_up_convolution, bf16_up_convolution_input_gradient, bf16_up_convolution_weight_gradient,
};
use lookbook_ops::convolution::{convolution, convolution_input_gradient, convolution_weight_gradient};
use lookbook_ops::head::{Head, HeadLoss, MAPS};
use lookbook_ops::pool::{max_pool_gradient, max_pool_gradient_bf16, pooled_shape};
use lookbook_ops::up::{up_convolution, up_convolution_input_gradient, up_convolution_weight_gradient};
use lookbook_ops::{Activation, Mask, Rayon};

use super::bf16_encoder::{check, check_maps, exact, floats};
use super::{CHANNELS, COLUMNS, Layer, ROWS, Up, group, maps_of, random, workers};

/// The nearest bf16 numbers in place of a layer's; their bits.
fn made_exact(numbers: &mut Vec<f32>) -> Vec<u16> {
    let bits: Vec<u16> = numbers.iter().map(|&it| half::bf16::from_f32(it).to_bits()).collect();
    *numbers = floats(&bits);
    bits
}

pub(crate) fn convolutions(criterion: &mut Criterion) {
    let Some(token) = Avx512Bf16::detect() else { return };
    for mut layer in Layer::all() {
        let inputs: Vec<Vec<u16>> = layer.inputs.iter_mut().map(made_exact).collect();
        let gradient = made_exact(&mut layer.output_gradient);
        if layer.photos.is_empty() {
            made_exact(&mut layer.weight);
            input_gradient(criterion, token, &layer, &inputs, &gradient);
        } else {
            // Exact with the division by 255.
            layer.weight.iter_mut().for_each(|it| *it = half::bf16::from_f32(*it).to_f32() * 255.0);
        }
        let maps: Vec<Bf16Maps<'_>> = match layer.maps()[..] {
            [lookbook_ops::Maps::Photos(photos)] => vec![Bf16Maps::Photos(photos)],
            _ => inputs.iter().map(|it| Bf16Maps::Features(it)).collect(),
        };
        forward(criterion, token, &layer, &maps);
        weight_gradient(criterion, token, &layer, &maps, &gradient);
    }
}

fn forward(criterion: &mut Criterion, token: Avx512Bf16, layer: &Layer, maps: &[Bf16Maps<'_>]) {
    let (shape, parameters) = (layer.shape, [&layer.weight[..], &layer.bias]);
    let mut found = vec![0_u16; layer.output_gradient.len()];
    let mut run = || {
        bf16_convolution(token, &Rayon, shape, maps, parameters, Activation::Relu, Output::Bf16(black_box(&mut found)));
    };
    run();
    let mut group = group(criterion, "convolution_bf16");
    group.throughput(layer.flop()).bench_function(&layer.name, |bencher| bencher.iter(&mut run));
    let mut expected = vec![0.0; found.len()];
    convolution(workers(), shape, &layer.maps(), parameters, Activation::Relu, &mut expected);
    check_maps(&found, &expected);
}

fn input_gradient(criterion: &mut Criterion, token: Avx512Bf16, layer: &Layer, inputs: &[Vec<u16>], gradient: &[u16]) {
    let (shape, is_masked) = (layer.shape, inputs.len() == 1);
    let lens = [shape.len(), shape.len() * (inputs.len() - 1)];
    let mut found = lens.map(|len| vec![0_u16; len]);
    let mut run = || {
        let mask = is_masked.then(|| Mask::relu(&inputs[0][..]));
        let results = black_box(found.each_mut().map(|it| &mut it[..]));
        bf16_convolution_input_gradient(token, &Rayon, shape, gradient, &layer.weight, mask, results);
    };
    run();
    let mut group = group(criterion, "convolution_input_gradient_bf16");
    group.throughput(layer.flop()).bench_function(&layer.name, |bencher| bencher.iter(&mut run));
    let mut expected = lens.map(|len| vec![0.0; len]);
    let mask = is_masked.then(|| Mask::relu(&layer.inputs[0][..]));
    let results = expected.each_mut().map(|it| &mut it[..]);
    convolution_input_gradient(workers(), shape, &layer.output_gradient, &layer.weight, mask, results);
    found.iter().zip(&expected).for_each(|(found, expected)| check_maps(found, expected));
}

fn weight_gradient(
    criterion: &mut Criterion,
    token: Avx512Bf16,
    layer: &Layer,
    maps: &[Bf16Maps<'_>],
    gradient: &[u16],
) {
    let lens = [layer.weight.len(), layer.bias.len()];
    let [mut found, mut expected] = [(); 2].map(|()| lens.map(|len| vec![0.0; len]));
    let mut run = || {
        let results = black_box(found.each_mut().map(|it| &mut it[..]));
        bf16_convolution_weight_gradient(token, &Rayon, layer.shape, maps, gradient, results);
    };
    run();
    let mut group = group(criterion, "convolution_weight_gradient_bf16");
    group.throughput(layer.flop()).bench_function(&layer.name, |bencher| bencher.iter(&mut run));
    let results = expected.each_mut().map(|it| &mut it[..]);
    convolution_weight_gradient(workers(), layer.shape, &layer.maps(), &layer.output_gradient, results);
    found.iter().zip(&expected).for_each(|(found, expected)| check(found, expected, 0.0));
}

pub(crate) fn up_convolutions(criterion: &mut Criterion) {
    let Some(token) = Avx512Bf16::detect() else { return };
    for mut layer in (1..CHANNELS.len()).map(Up::new) {
        let (input, gradient) = (made_exact(&mut layer.input), made_exact(&mut layer.output_gradient));
        made_exact(&mut layer.weight);
        let (shape, weight, parameters) = (layer.shape, &layer.weight, [&layer.weight[..], &layer.bias]);

        let mut found = vec![0; gradient.len()];
        let mut run = || bf16_up_convolution(token, &Rayon, shape, &input, parameters, black_box(&mut found));
        run();
        let mut forward = group(criterion, "up_convolution_bf16");
        forward.throughput(layer.flop()).bench_function(&layer.name, |bencher| bencher.iter(&mut run));
        forward.finish();
        let mut expected = vec![0.0; gradient.len()];
        up_convolution(workers(), shape, &layer.input, parameters, &mut expected);
        check_maps(&found, &expected);

        let mut found = vec![0; input.len()];
        let mut run = || {
            let (mask, found) = (Some(Mask::relu(&input[..])), black_box(&mut found));
            bf16_up_convolution_input_gradient(token, &Rayon, shape, &gradient, weight, mask, found);
        };
        run();
        let mut to_input = group(criterion, "up_convolution_input_gradient_bf16");
        to_input.throughput(layer.flop()).bench_function(&layer.name, |bencher| bencher.iter(&mut run));
        to_input.finish();
        let mut expected = vec![0.0; input.len()];
        let mask = Some(Mask::relu(&layer.input[..]));
        up_convolution_input_gradient(workers(), shape, &layer.output_gradient, weight, mask, &mut expected);
        check_maps(&found, &expected);

        let lens = [weight.len(), layer.bias.len()];
        let [mut found, mut expected] = [(); 2].map(|()| lens.map(|len| vec![0.0; len]));
        let mut run = || {
            let results = black_box(found.each_mut().map(|it| &mut it[..]));
            bf16_up_convolution_weight_gradient(token, &Rayon, shape, &input, &gradient, results);
        };
        run();
        let mut to_weight = group(criterion, "up_convolution_weight_gradient_bf16");
        to_weight.throughput(layer.flop()).bench_function(&layer.name, |bencher| bencher.iter(&mut run));
        to_weight.finish();
        let results = expected.each_mut().map(|it| &mut it[..]);
        up_convolution_weight_gradient(workers(), shape, &layer.input, &layer.output_gradient, results);
        found.iter().zip(&expected).for_each(|(found, expected)| check(found, expected, 0.0));
    }
}

pub(crate) fn max_pool_gradients(criterion: &mut Criterion) {
    for (level, &channels) in CHANNELS[..CHANNELS.len() - 1].iter().enumerate() {
        let shape = maps_of(level, channels);
        let [(input, half_input), (gradient, half_gradient)] = [shape.len(), pooled_shape(shape).len()].map(exact);
        let mut found = vec![0; shape.len()];
        let mut run = || {
            let found = black_box(&mut found);
            max_pool_gradient_bf16(workers(), shape, &half_input, &half_gradient, &half_input, found);
        };
        run();
        let mut group = group(criterion, "max_pool_gradient_bf16");
        group.throughput(Throughput::Elements(shape.len() as u64));
        group.bench_function(format!("down{}", level + 1), |bencher| bencher.iter(&mut run));
        let mut expected = vec![0.0; shape.len()];
        max_pool_gradient(workers(), shape, &input, &gradient, &input, &mut expected);
        check_maps(&found, &expected);
    }
}

pub(crate) fn head(criterion: &mut Criterion) {
    let shape = maps_of(0, CHANNELS[0]);
    let ((input, half_input), weight, bias) = (exact(shape.len()), random(MAPS * shape.channels), random(MAPS));
    let labels: Vec<u8> = (0..shape.pixels()).map(|pixel| (pixel / 7 % MAPS) as u8).collect();
    let (weight, bias, photo) = (&weight[..], &bias[..], [ROWS, COLUMNS]);
    let of_halves = Head { maps: MAPS, shape, input: &half_input[..], weight, bias, photo };
    let mut found = vec![0; shape.len()];
    let mut run = || of_halves.learn(workers(), HeadLoss::Bce, &labels, black_box(&mut found)).loss;
    let loss = run();
    let mut group = group(criterion, "head_bf16");
    group.throughput(Throughput::Elements(shape.pixels() as u64));
    group.bench_function("learn", |bencher| bencher.iter(&mut run));
    let head = Head { maps: MAPS, shape, input: &input[..], weight, bias, photo };
    let mut expected = vec![0.0; shape.len()];
    assert_eq!(loss, head.learn(workers(), HeadLoss::Bce, &labels, &mut expected).loss);
    check_maps(&found, &expected);
}
