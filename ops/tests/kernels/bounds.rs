//! No operator reads or writes outside its buffers, with any instruction set: each runs on buffers that end, or begin,
//! at an inaccessible page, and must produce the same numbers as on ordinary ones.

use lookbook_ops::adam::{Adam, AdamInputs};
use lookbook_ops::convolution::{convolution, convolution_input_gradient, convolution_weight_gradient};
use lookbook_ops::depthwise::Depthwise;
use lookbook_ops::head::{HEAD_CHANNELS, Head, HeadLoss, MAPS, MAX_MAPS};
use lookbook_ops::maps::{Maps, Shape};
use lookbook_ops::norm::{batch_norm, batch_norm_gradient};
use lookbook_ops::pointwise::{pointwise, pointwise_input_gradient, pointwise_weight_gradient};
use lookbook_ops::pool::{max_pool, max_pool_gradient, pooled_shape};
use lookbook_ops::up::{up_convolution, up_convolution_input_gradient, up_convolution_weight_gradient, up_shape};
use lookbook_ops::{Activation, Instructions, Mask, Photos, Spread, Workers};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::guarded::{Guard, Guarded};

/// Photos, rows, columns: not multiples of any block or vector width.
const SIZES: [[usize; 3]; 3] = [[1, 1, 1], [2, 3, 5], [1, 5, 23]];

/// Spawns a new thread for each task: its scratch memory is exactly as long as the task asks for, so valgrind sees its
/// end.
pub(super) struct ThreadATask;

impl Spread for ThreadATask {
    fn each(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        for index in 0..count {
            std::thread::scope(|scope| scope.spawn(|| task(index)).join().expect("the task finishes"));
        }
    }

    fn threads(&self) -> usize {
        1
    }
}

fn random(len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(len as u64);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

pub(super) fn shapes(channels: usize) -> impl Iterator<Item = Shape> {
    SIZES.into_iter().map(move |[batch, rows, columns]| Shape { batch, rows, columns, channels })
}

/// Runs an operator on random inputs of these lengths, ordinary and guarded, with every instruction set.
pub(super) fn check<const I: usize, const O: usize>(
    inputs: [usize; I],
    outputs: [usize; O],
    run: impl Fn(Workers<'_>, [&[f32]; I], [&mut [f32]; O]),
) {
    let inputs = inputs.map(random);
    for instructions in crate::instructions() {
        let workers = Workers { instructions, spread: &ThreadATask };
        let mut expected = outputs.map(|len| vec![f32::NAN; len]);
        run(workers, inputs.each_ref().map(|it| &it[..]), expected.each_mut().map(|it| &mut it[..]));
        for guard in Guard::BOTH {
            let inputs = inputs.each_ref().map(|it| Guarded::new(it, guard));
            let mut found = outputs.map(|len| Guarded::new(&vec![f32::NAN; len], guard));
            run(workers, inputs.each_ref().map(|it| &it[..]), found.each_mut().map(|it| &mut it[..]));
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found[..], expected[..], "{instructions}, {guard:?}");
            }
        }
    }
}

#[test]
fn convolutions_stay_within_their_buffers() {
    for [channels, out] in [[8, 8], [8, 16], [16, 8], [24, 40], [32, 16], [16, 64]] {
        for shape in shapes(channels) {
            let (input, weight, output) = (shape.len(), out * channels * 9, shape.pixels() * out);
            check([input, weight, out], [output], |workers, [x, w, b], [y]| {
                convolution(workers, shape, &[Maps::Features(x)], [w, b], Activation::Relu, y);
            });
            check([output, weight, input], [input], |workers, [dy, w, mask], [dx]| {
                convolution_input_gradient(workers, shape, dy, w, Some(Mask::relu(mask)), [dx, &mut []]);
            });
            check([input, output], [weight, out], |workers, [x, dy], results| {
                convolution_weight_gradient(workers, shape, &[Maps::Features(x)], dy, results);
            });
        }
    }
}

#[test]
fn convolutions_of_two_inputs_stay_within_their_buffers() {
    for [channels, second, out] in [[8, 8, 8], [16, 16, 16], [24, 40, 8], [64, 56, 24]] {
        for shape in shapes(channels) {
            let (inputs, weight) = ([shape.len(), shape.pixels() * second], out * (channels + second) * 9);
            let output = shape.pixels() * out;
            check([inputs[0], inputs[1], weight, out], [output], |workers, [first, second, w, b], [y]| {
                let maps = [first, second].map(Maps::Features);
                convolution(workers, shape, &maps, [w, b], Activation::Relu6, y);
            });
            check([output, weight], inputs, |workers, [dy, w], results| {
                convolution_input_gradient(workers, shape, dy, w, None, results);
            });
            check([inputs[0], inputs[1], output], [weight, out], |workers, [first, second, dy], results| {
                convolution_weight_gradient(workers, shape, &[first, second].map(Maps::Features), dy, results);
            });
        }
    }
}

#[test]
fn pointwise_convolutions_stay_within_their_buffers() {
    for [channels, out] in [[8, 8], [16, 24], [40, 112], [144, 16]] {
        for shape in shapes(channels) {
            let (input, weight, output) = (shape.len(), out * channels, shape.pixels() * out);
            check([input, weight, out, output], [output], |workers, [x, w, b, residual], [y]| {
                pointwise(workers, shape, x, [w, b], Activation::Relu6, Some(residual), y);
            });
            check([output, weight, input, input], [input], |workers, [dy, w, skip, maps], [dx]| {
                let mask = Some(Mask { activation: Activation::Relu6, maps });
                pointwise_input_gradient(workers, shape, dy, w, Some(skip), mask, dx);
            });
            check([input, output], [weight, out], |workers, [x, dy], results| {
                pointwise_weight_gradient(workers, shape, x, dy, results);
            });
        }
    }
}

#[test]
fn depthwise_convolutions_stay_within_their_buffers() {
    for shape in [8, 24, 32].into_iter().flat_map(shapes) {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2)] {
            for pads in [[0, 0], [kernel / 2; 2], [1, kernel - 1]] {
                let layer = Depthwise { shape, kernel, stride, pads };
                let (input, output) = (shape.len(), layer.output_shape().len());
                let (weight, channels) = (shape.channels * kernel * kernel, shape.channels);
                check([input, weight, channels], [output], |workers, [x, w, b], [y]| {
                    layer.forward(workers, x, [w, b], Activation::Relu6, y);
                });
                check([output, weight, input], [input], |workers, [dy, w, mask], [dx]| {
                    layer.input_gradient(workers, dy, w, Some(Mask::relu(mask)), dx);
                });
                check([input, output], [weight, channels], |workers, [x, dy], results| {
                    layer.weight_gradient(workers, x, dy, results);
                });
            }
        }
    }
}

#[test]
fn convolutions_of_photos_stay_within_their_buffers() {
    for (shape, guard) in shapes(3).flat_map(|shape| Guard::BOTH.map(|guard| (shape, guard))) {
        let photos: Vec<u8> = random(shape.len()).iter().map(|it| (it.abs() * 255.0) as u8).collect();
        let photos = Guarded::new(&photos, guard);
        let (weight, output) = (8 * 3 * 9, shape.pixels() * 8);
        check([weight, 8], [output], |workers, parameters, [y]| {
            convolution(workers, shape, &[Maps::Photos(Photos::new(&photos))], parameters, Activation::Relu, y);
        });
        check([output], [weight, 8], |workers, [dy], results| {
            convolution_weight_gradient(workers, shape, &[Maps::Photos(Photos::new(&photos))], dy, results);
        });
    }
}

#[test]
fn transposed_convolutions_stay_within_their_buffers() {
    for [channels, out] in [[16, 8], [32, 16], [128, 64]] {
        for shape in shapes(channels) {
            let (input, weight, output) = (shape.len(), channels * out * 4, up_shape(shape, out).len());
            check([input, weight, out], [output], |workers, [x, w, b], [y]| {
                up_convolution(workers, shape, x, [w, b], y);
            });
            check([output, weight, input], [input], |workers, [dy, w, mask], [dx]| {
                up_convolution_input_gradient(workers, shape, dy, w, Some(Mask::relu(mask)), dx);
            });
            check([input, output], [weight, out], |workers, [x, dy], results| {
                up_convolution_weight_gradient(workers, shape, x, dy, results);
            });
        }
    }
}

#[test]
fn pooling_stays_within_its_buffers() {
    for pooled in shapes(24) {
        let shape = Shape { rows: 2 * pooled.rows, columns: 2 * pooled.columns, ..pooled };
        assert_eq!(pooled_shape(shape), pooled);
        check([shape.len()], [pooled.len()], |workers, [x], [y]| max_pool(workers, shape, x, y));
        check([shape.len(), pooled.len(), shape.len()], [shape.len()], |workers, [x, dy, skip], [dx]| {
            max_pool_gradient(workers, shape, x, dy, skip, dx);
        });
    }
}

#[test]
fn batch_norm_stays_within_its_buffers() {
    for shape in [8, 16, 24].into_iter().flat_map(shapes) {
        let channels = shape.channels;
        let outputs = [shape.len(), channels, channels];
        let inputs = [shape.len(), channels, channels, shape.len()];
        check(inputs, outputs, |workers, [x, scale, bias, residual], [y, mean, variance]| {
            let fused = (Activation::None, Some(residual));
            let found = batch_norm(workers, shape, x, [scale, bias], 1e-3, fused, y);
            mean.copy_from_slice(&found[0]);
            variance.copy_from_slice(&found[1]);
        });
        let inputs = [shape.len(), shape.len(), channels];
        check(inputs, outputs, |workers, [x, dy, scale], [dx, of_scale, of_bias]| {
            let statistics = [&vec![0.1; channels][..], &vec![0.9; channels][..]];
            let found = batch_norm_gradient(workers, shape, [x, dy], scale, statistics, 1e-3, dx);
            of_scale.copy_from_slice(&found[0]);
            of_bias.copy_from_slice(&found[1]);
        });
    }
}

#[test]
fn the_head_stays_within_its_buffers() {
    let shapes = HEAD_CHANNELS.into_iter().flat_map(shapes);
    let cases = shapes.flat_map(|shape| Guard::BOTH.map(|guard| (shape, guard)));
    for ((shape, guard), maps) in cases.flat_map(|case| [MAPS, 6, MAX_MAPS].map(|maps| (case, maps))) {
        let labels: Vec<u8> = (0..shape.pixels()).map(|pixel| (pixel % maps) as u8).collect();
        let labels = Guarded::new(&labels, guard);
        let inputs = [shape.len(), maps * shape.channels, maps, maps];
        check(inputs, [shape.len(), maps * shape.channels, maps], |workers, [input, weight, bias, _], results| {
            let head = Head { maps, shape, input, weight, bias, photo: [shape.rows, shape.columns] };
            let [of_input, of_weight, of_bias] = results;
            let learnt = head.learn(workers, HeadLoss::Bce, &labels, of_input);
            of_weight.copy_from_slice(&learnt.weight);
            of_bias.copy_from_slice(&learnt.bias);
        });
        check(inputs, [shape.len()], |workers, [input, weight, bias, of_categories], [of_input]| {
            let head = Head { maps, shape, input, weight, bias, photo: [shape.rows, shape.columns] };
            let loss = HeadLoss::Softmax { weights: of_categories, dice: 1.0, smoothing: 0.1 };
            assert!(head.learn(workers, loss, &labels, of_input).loss.is_finite());
        });
        check(inputs, [2], |workers, [input, weight, bias, _], [losses]| {
            let head = Head { maps, shape, input, weight, bias, photo: [shape.rows, shape.columns] };
            let mut map = Guarded::new(&vec![99; shape.pixels()], guard);
            losses.copy_from_slice(&head.evaluate(workers, false, &labels, &mut map));
            let mut counts = vec![0; shape.batch * maps];
            let mut same = Guarded::new(&vec![98; shape.pixels()], guard);
            head.label(workers, 1, &mut same, &mut counts);
            assert_eq!(map[..], same[..]);
            for scale in [2, 4] {
                let mut enlarged = Guarded::new(&vec![97; scale * scale * shape.pixels()], guard);
                head.label(workers, scale, &mut enlarged, &mut counts);
                assert!(enlarged.iter().all(|&it| usize::from(it) < maps));
            }
        });
    }
}

#[test]
fn adam_stays_within_its_buffers() {
    let adam = Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, step: 1.0, learning_rate: 1e-3 };
    for len in [1, 17, 33_001] {
        check([len; 5], [len; 3], |workers, [gradient, weights, first, factors, decays], outputs| {
            let second = vec![0.5; len];
            let of_weights = Some([factors, decays]);
            adam.apply(workers, AdamInputs { gradient, weights, moments: [first, &second], of_weights }, outputs);
        });
    }
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod of_bf16 {
    use super::*;
    use lookbook_ops::bf16::{
        Avx512Bf16, Bf16Maps, Output, bf16_convolution, bf16_max_pool, bf16_pointwise, bf16_up_convolution,
    };

    /// Random non-negative bf16 numbers, guarded.
    fn halves(len: usize, guard: Guard) -> Guarded<u16> {
        let halves: Vec<u16> = random(len).iter().map(|it| half::bf16::from_f32(it.abs()).to_bits()).collect();
        Guarded::new(&halves, guard)
    }

    fn floats(len: usize, guard: Guard) -> Guarded<f32> {
        Guarded::new(&random(len), guard)
    }

    /// Filled with a NaN pattern, to detect elements that were not written.
    fn blank(len: usize, guard: Guard) -> Guarded<u16> {
        Guarded::new(&vec![u16::MAX; len], guard)
    }

    fn is_written(output: &[u16]) -> bool {
        output.iter().all(|&it| it != u16::MAX)
    }

    #[test]
    fn layers_in_bf16_stay_within_their_buffers() {
        let Some(token) = Avx512Bf16::detect() else {
            crate::skip::skip("this processor has no AVX-512-BF16");
            return;
        };
        for guard in Guard::BOTH {
            for ([channels, out], shape) in
                [[8, 8], [16, 8], [32, 16], [16, 64]].into_iter().flat_map(|it| shapes(it[0]).map(move |s| (it, s)))
            {
                let (x, second) = (halves(shape.len(), guard), halves(shape.len(), guard));
                let (weight, bias) = (floats(out * channels * 9, guard), floats(out, guard));
                let mut output = blank(shape.pixels() * out, guard);
                let maps = [Bf16Maps::Features(&x), Bf16Maps::Features(&second)];
                bf16_convolution(
                    token,
                    &ThreadATask,
                    shape,
                    &maps[..1],
                    [&weight, &bias],
                    Activation::Relu,
                    Output::Bf16(&mut output),
                );
                assert!(is_written(&output), "{shape:?} to {out}");
                let both = floats(out * 2 * channels * 9, guard);
                let mut wide = Guarded::new(&vec![f32::NAN; shape.pixels() * out], guard);
                bf16_convolution(
                    token,
                    &ThreadATask,
                    shape,
                    &maps,
                    [&both, &bias],
                    Activation::Relu,
                    Output::F32(&mut wide),
                );
                assert!(wide.iter().all(|it| it.is_finite()), "{shape:?} x 2 to {out}");
                let (weight, residual) = (floats(out * channels, guard), halves(shape.pixels() * out, guard));
                let (fused, mut output) = ((Activation::Relu6, Some(&residual[..])), blank(residual.len(), guard));
                bf16_pointwise(token, &ThreadATask, shape, &x, [&weight, &bias], fused, &mut output);
                assert!(is_written(&output), "pointwise {shape:?} to {out}");
                for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2)] {
                    let layer = Depthwise { shape, kernel, stride, pads: [1, kernel - 1] };
                    let (weight, bias) = (floats(channels * kernel * kernel, guard), floats(channels, guard));
                    for instructions in Instructions::available() {
                        let workers = Workers { instructions, spread: &ThreadATask };
                        let mut output = blank(layer.output_shape().len(), guard);
                        layer.forward_bf16(workers, &x, [&weight, &bias], Activation::Relu, &mut output);
                        assert!(is_written(&output), "{layer:?}");
                    }
                }
                let weight = floats(channels * out * 4, guard);
                let mut output = blank(up_shape(shape, out).len(), guard);
                bf16_up_convolution(token, &ThreadATask, shape, &x, [&weight, &bias], &mut output);
                assert!(is_written(&output), "transposed {shape:?} to {out}");
                let twice = Shape { rows: 2 * shape.rows, columns: 2 * shape.columns, ..shape };
                let mut output = blank(shape.len(), guard);
                bf16_max_pool(token, &ThreadATask, twice, &halves(twice.len(), guard), &mut output);
                assert!(is_written(&output), "pooled {shape:?}");
            }
            for shape in [3, 12].into_iter().flat_map(shapes) {
                let photos = Guarded::new(&vec![200_u8; shape.len()], guard);
                let mut output = blank(shape.pixels() * 8, guard);
                let parameters = [&floats(8 * 9 * shape.channels, guard)[..], &floats(8, guard)];
                bf16_convolution(
                    token,
                    &ThreadATask,
                    shape,
                    &[Bf16Maps::Photos(Photos::new(&photos))],
                    parameters,
                    Activation::Relu,
                    Output::Bf16(&mut output),
                );
                assert!(is_written(&output), "photos {shape:?}");
            }
        }
    }
}
