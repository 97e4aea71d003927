//! The layers of an encoder in bf16 and their gradients: against those in f32 on numbers that are exact in bf16, and within
//! their buffers.

use lookbook_ops::bf16::{Avx512Bf16, bf16_pointwise, bf16_pointwise_input_gradient, bf16_pointwise_weight_gradient};
use lookbook_ops::depthwise::Depthwise;
use lookbook_ops::maps::Shape;
use lookbook_ops::norm::{batch_norm, batch_norm_bf16, batch_norm_gradient, batch_norm_gradient_bf16};
use lookbook_ops::pointwise::{pointwise, pointwise_input_gradient, pointwise_weight_gradient};
use lookbook_ops::{Activation, Instructions, Mask, Rayon, Workers};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::bf16_gradients::{assert_rounded, assert_summed, assert_written, blank, halves, weights, wide};
use super::bounds::{ThreadATask, shapes};
use super::definitions::of_bf16::{bits, floats, rounded, token};
use super::definitions::{ACTIVATIONS, SIZES, every_instructions, outputs_of_activations, random};
use super::guarded::Guard;

const EPSILON: f32 = 1e-3;

fn check_pointwise(token: Avx512Bf16, shape: Shape, out: usize) {
    let workers = Workers { instructions: Instructions::best(), spread: &Rayon };
    let (what, channels) = (format!("{shape:?} to {out}"), shape.channels);
    let mut rng = ChaCha8Rng::seed_from_u64((shape.len() * 17 + out) as u64);
    let input = rounded(&outputs_of_activations(&mut rng, shape.len()));
    let scale = 1.0 / (channels as f32).sqrt();
    let weight = rounded(&random(&mut rng, out * channels).iter().map(|it| it * scale).collect::<Vec<_>>());
    let bias = random(&mut rng, out);
    let [gradient, residual] = [(); 2].map(|()| rounded(&random(&mut rng, shape.pixels() * out)));
    let skip = rounded(&random(&mut rng, shape.len()));
    let [half_input, half_gradient, half_residual, half_skip] =
        [&input, &gradient, &residual, &skip].map(|it| bits(it));
    for activation in ACTIVATIONS {
        for is_added in [false, true] {
            let what = format!("{what}, {activation:?}, {is_added}");
            let mut expected = vec![f32::NAN; shape.pixels() * out];
            let (parameters, added) = ([&weight[..], &bias], is_added.then_some(&residual[..]));
            pointwise(workers, shape, &input, parameters, activation, added, &mut expected);
            let mut found = vec![u16::MAX; expected.len()];
            let fused = (activation, is_added.then_some(&half_residual[..]));
            bf16_pointwise(token, &Rayon, shape, &half_input, parameters, fused, &mut found);
            assert_rounded(&format!("{what}: output"), &found, &expected);

            let is_masked = activation != Activation::None;
            let mask = is_masked.then_some(Mask { activation, maps: &input[..] });
            let mut expected = vec![f32::NAN; shape.len()];
            let added = is_added.then_some(&skip[..]);
            pointwise_input_gradient(workers, shape, &gradient, &weight, added, mask, &mut expected);
            let mask = is_masked.then_some(Mask { activation, maps: &half_input[..] });
            let mut found = vec![u16::MAX; shape.len()];
            let fused = (is_added.then_some(&half_skip[..]), mask);
            bf16_pointwise_input_gradient(token, &Rayon, shape, &half_gradient, &weight, fused, &mut found);
            assert_rounded(&format!("{what}: input gradient"), &found, &expected);
        }
    }
    let [mut of_weight, mut found_weight] = [(); 2].map(|()| vec![f32::NAN; weight.len()]);
    let [mut of_bias, mut found_bias] = [(); 2].map(|()| vec![f32::NAN; out]);
    pointwise_weight_gradient(workers, shape, &input, &gradient, [&mut of_weight, &mut of_bias]);
    let results = [&mut found_weight[..], &mut found_bias];
    bf16_pointwise_weight_gradient(token, &Rayon, shape, &half_input, &half_gradient, results);
    assert_summed(&format!("{what}: weight gradient"), &found_weight, &of_weight);
    assert_summed(&format!("{what}: bias gradient"), &found_bias, &of_bias);
}

#[test]
fn pointwise_convolutions_and_their_gradients_are_those_of_f32() {
    let Some(token) = token() else { return };
    for [batch, rows, columns] in SIZES {
        for [channels, out] in [[8, 8], [16, 24], [24, 144], [112, 16], [40, 112], [80, 8], [56, 56]] {
            check_pointwise(token, Shape { batch, rows, columns, channels }, out);
        }
    }
    // Several chunks of a band, the last with an odd number of pixels, and as many weights as the last layers have.
    check_pointwise(token, Shape { batch: 1, rows: 7, columns: 125, channels: 144 }, 24);
    check_pointwise(token, Shape { batch: 1, rows: 2, columns: 13, channels: 1152 }, 320);
}

/// The gradients are the same sums as in f32, rounded if they are maps: nothing else differs.
#[test]
fn gradients_of_depthwise_convolutions_are_those_of_f32() {
    for ([batch, rows, columns], channels) in SIZES.into_iter().flat_map(|size| [8, 24, 48].map(|it| (size, it))) {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2)] {
            let shape = Shape { batch, rows, columns, channels };
            let layer = Depthwise { shape, kernel, stride, pads: [kernel / 2, (kernel - stride) / 2] };
            let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
            let input = rounded(&outputs_of_activations(&mut rng, shape.len()));
            let gradient = rounded(&random(&mut rng, layer.output_shape().len()));
            let weight = random(&mut rng, channels * kernel * kernel);
            let [half_input, half_gradient] = [&input, &gradient].map(|it| bits(it));
            every_instructions(|workers| {
                let what = format!("{} {layer:?}", workers.instructions);
                for activation in ACTIVATIONS {
                    let is_masked = activation != Activation::None;
                    let mask = is_masked.then_some(Mask { activation, maps: &input[..] });
                    let mut expected = vec![f32::NAN; shape.len()];
                    layer.input_gradient(workers, &gradient, &weight, mask, &mut expected);
                    let mask = is_masked.then_some(Mask { activation, maps: &half_input[..] });
                    let mut found = vec![u16::MAX; shape.len()];
                    layer.input_gradient_bf16(workers, &half_gradient, &weight, mask, &mut found);
                    assert_eq!(floats(&found), rounded(&expected), "{what}, {activation:?}");
                }
                let mut expected = [vec![f32::NAN; weight.len()], vec![f32::NAN; channels]];
                let mut found = expected.clone();
                layer.weight_gradient(workers, &input, &gradient, expected.each_mut().map(|it| &mut it[..]));
                let results = found.each_mut().map(|it| &mut it[..]);
                layer.weight_gradient_bf16(workers, &half_input, &half_gradient, results);
                assert_eq!(found, expected, "{what}");
            });
        }
    }
}

/// Likewise.
#[test]
fn batch_norm_and_its_gradient_are_those_of_f32() {
    for ([batch, rows, columns], channels) in SIZES.into_iter().flat_map(|size| [8, 16, 24, 144].map(|it| (size, it))) {
        let shape = Shape { batch, rows, columns, channels };
        let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
        let input = rounded(&random(&mut rng, shape.len()).iter().map(|x| 20.0 + x).collect::<Vec<_>>());
        let [gradient, residual] = [(); 2].map(|()| rounded(&random(&mut rng, shape.len())));
        let [scale, bias] = [(); 2].map(|()| random(&mut rng, channels));
        let parameters = [&scale[..], &bias];
        let halves = [&input, &gradient, &residual].map(|it| bits(it));
        let [half_input, half_gradient, half_residual] = halves.each_ref().map(|it| &it[..]);
        every_instructions(|workers| {
            let (mut expected, mut found) = (vec![f32::NAN; shape.len()], vec![u16::MAX; shape.len()]);
            let mut statistics = [vec![], vec![]];
            for (activation, is_added) in
                ACTIVATIONS.into_iter().flat_map(|it| [false, true].map(|is_added| (it, is_added)))
            {
                let what = format!("{} {shape:?}, {activation:?}, {is_added}", workers.instructions);
                let fused = (activation, is_added.then_some(&residual[..]));
                statistics = batch_norm(workers, shape, &input, parameters, EPSILON, fused, &mut expected);
                let fused = (activation, is_added.then_some(half_residual));
                let same = batch_norm_bf16(workers, shape, half_input, parameters, EPSILON, fused, &mut found);
                assert_eq!(same, statistics, "{what}");
                assert_eq!(floats(&found), rounded(&expected), "{what}");
            }
            let statistics = statistics.each_ref().map(|it| &it[..]);
            let maps = [&input[..], &gradient];
            let of_f32 = batch_norm_gradient(workers, shape, maps, &scale, statistics, EPSILON, &mut expected);
            let maps = [half_input, half_gradient];
            let of_bf16 = batch_norm_gradient_bf16(workers, shape, maps, &scale, statistics, EPSILON, &mut found);
            assert_eq!(of_bf16, of_f32, "{} {shape:?}", workers.instructions);
            assert_eq!(floats(&found), rounded(&expected), "{} {shape:?}", workers.instructions);
        });
    }
}

#[test]
fn gradients_of_pointwise_convolutions_stay_within_their_buffers() {
    let Some(token) = token() else { return };
    let layers = [[8, 8], [16, 24], [40, 112], [144, 16], [48, 56]];
    let layers = layers.into_iter().flat_map(|it| shapes(it[0]).map(move |shape| (shape, it[1])));
    for ((shape, out), guard) in layers.flat_map(|layer| Guard::BOTH.map(|guard| (layer, guard))) {
        let (x, skip, dy) = (halves(shape.len(), guard), halves(shape.len(), guard), shape.pixels() * out);
        let (gradient, weight) = (halves(dy, guard), weights(out * shape.channels, guard));
        let mut of_input = blank(shape.len(), guard);
        let fused = (Some(&skip[..]), Some(Mask { activation: Activation::Relu6, maps: &x[..] }));
        bf16_pointwise_input_gradient(token, &ThreadATask, shape, &gradient, &weight, fused, &mut of_input);
        let (mut of_weight, mut of_bias) = (wide(weight.len(), guard), wide(out, guard));
        let results = [&mut of_weight[..], &mut of_bias];
        bf16_pointwise_weight_gradient(token, &ThreadATask, shape, &x, &gradient, results);
        assert_written(&format!("{shape:?} to {out}"), &[&of_input], &[&of_weight, &of_bias]);
    }
}

#[test]
fn gradients_of_depthwise_convolutions_stay_within_their_buffers() {
    for (shape, guard) in [8, 24, 32].into_iter().flat_map(shapes).flat_map(|it| Guard::BOTH.map(|guard| (it, guard))) {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2)] {
            let layer = Depthwise { shape, kernel, stride, pads: [1, kernel - 1] };
            let (x, dy) = (halves(shape.len(), guard), halves(layer.output_shape().len(), guard));
            let weight = weights(shape.channels * kernel * kernel, guard);
            for instructions in crate::instructions() {
                let workers = Workers { instructions, spread: &ThreadATask };
                let mut of_input = blank(shape.len(), guard);
                layer.input_gradient_bf16(workers, &dy, &weight, Some(Mask::relu(&x)), &mut of_input);
                let (mut of_weight, mut of_bias) = (wide(weight.len(), guard), wide(shape.channels, guard));
                layer.weight_gradient_bf16(workers, &x, &dy, [&mut of_weight, &mut of_bias]);
                assert_written(&format!("{instructions} {layer:?}"), &[&of_input], &[&of_weight, &of_bias]);
            }
        }
    }
}

#[test]
fn batch_norm_stays_within_its_buffers() {
    for (shape, guard) in [8, 16, 24].into_iter().flat_map(shapes).flat_map(|it| Guard::BOTH.map(|guard| (it, guard))) {
        let (x, other, channels) = (halves(shape.len(), guard), halves(shape.len(), guard), shape.channels);
        let (scale, bias) = (weights(channels, guard), weights(channels, guard));
        for instructions in crate::instructions() {
            let (what, workers) = (format!("{instructions} {shape:?}"), Workers { instructions, spread: &ThreadATask });
            let mut output = blank(shape.len(), guard);
            let fused = (Activation::None, Some(&other[..]));
            let found = batch_norm_bf16(workers, shape, &x, [&scale, &bias], EPSILON, fused, &mut output);
            assert_written(&what, &[&output], &found.each_ref().map(|it| &it[..]));
            let statistics = [vec![0.1; channels], vec![0.9; channels]];
            let statistics = statistics.each_ref().map(|it| &it[..]);
            let (maps, mut of_input) = ([&x[..], &other], blank(shape.len(), guard));
            let found = batch_norm_gradient_bf16(workers, shape, maps, &scale, statistics, EPSILON, &mut of_input);
            assert_written(&what, &[&of_input], &found.each_ref().map(|it| &it[..]));
        }
    }
}
