//! The gradients on bf16 maps, against those of f32 on numbers that are exact in bf16, and within their buffers.
//!
//! Products of two such numbers are exact in f32, so the two differ in the order of their sums, at most by 1e-5 of the
//! largest, and, if they are written in bf16, by its rounding: up to 2^-8 of a number.

use lookbook_ops::bf16::{
    Avx512Bf16, Bf16Maps, bf16_convolution_input_gradient, bf16_convolution_weight_gradient,
    bf16_up_convolution_input_gradient, bf16_up_convolution_weight_gradient,
};
use lookbook_ops::convolution::{convolution_input_gradient, convolution_weight_gradient};
use lookbook_ops::head::{HEAD_CHANNELS, Head, HeadLoss, MAPS};
use lookbook_ops::pool::{max_pool_gradient, max_pool_gradient_bf16, pooled_shape};
use lookbook_ops::up::{up_convolution_input_gradient, up_convolution_weight_gradient, up_shape};
use lookbook_ops::{Activation, Instructions, Maps, Mask, Photos, Rayon, Shape, Workers};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::bounds::ThreadATask;
use super::definitions::of_bf16::{bits, exact, floats, rounded, token};
use super::definitions::{SIZES, assert_close};
use super::guarded::{Guard, Guarded};

/// Channels of the first input, of the second, if there is one, and of the output: every width of a tile and of a strip.
const LAYERS: [([usize; 2], Option<usize>); 8] = [
    ([8, 8], None),
    ([16, 8], None),
    ([16, 24], None),
    ([48, 16], None),
    ([32, 64], None),
    ([8, 8], Some(8)),
    ([64, 32], Some(64)),
    ([8, 16], Some(24)),
];

fn workers() -> Workers<'static> {
    Workers { instructions: Instructions::best(), spread: &Rayon }
}

fn shapes() -> impl Iterator<Item = Shape> {
    SIZES.into_iter().map(|[batch, rows, columns]| Shape { batch, rows, columns, channels: 0 })
}

/// Asserts that sums were computed as those of f32, and rounded.
pub(super) fn assert_rounded(what: &str, found: &[u16], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-3_f32, |largest, it| largest.max(it.abs()));
    for (at, (found, expected)) in floats(found).iter().zip(expected).enumerate() {
        let bound = expected.abs() / 256.0 + 1e-5 * largest;
        assert!((found - expected).abs() <= bound, "{what}: element {at} is {found}, not {expected}");
    }
}

/// Asserts that sums are those of f32, up to their order.
pub(super) fn assert_summed(what: &str, found: &[f32], expected: &[f32]) {
    let expected: Vec<f64> = expected.iter().map(|&it| f64::from(it)).collect();
    assert_close(what, found, &expected);
}

/// Maps, some of which are what `ReLU6` cuts off.
fn activated(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
    exact(rng, len).iter().map(|it| (8.0 * it).clamp(0.0, 6.0)).collect()
}

#[test]
fn input_gradients_of_convolutions_are_those_of_f32() {
    let Some(token) = token() else { return };
    for (shape, ([channels, out], second)) in shapes().flat_map(|shape| LAYERS.map(|it| (shape, it))) {
        let shape = shape.with_channels(channels);
        let mut rng = ChaCha8Rng::seed_from_u64((shape.len() + out) as u64);
        let widths = [channels, second.unwrap_or(0)];
        let lens = widths.map(|it| shape.pixels() * it);
        let weight = exact(&mut rng, 9 * out * (widths[0] + widths[1]));
        let (gradient, maps) = (exact(&mut rng, shape.pixels() * out), activated(&mut rng, lens[0]));
        let halves = bits(&maps);
        for activation in [Activation::None, Activation::Relu, Activation::Relu6] {
            let is_masked = second.is_none() && activation != Activation::None;
            let [mut first, mut other] = lens.map(|len| vec![f32::NAN; len]);
            let mask = is_masked.then_some(Mask { activation, maps: &maps[..] });
            convolution_input_gradient(workers(), shape, &gradient, &weight, mask, [&mut first, &mut other]);
            let [mut found_first, mut found_other] = lens.map(|len| vec![u16::MAX; len]);
            let mask = is_masked.then_some(Mask { activation, maps: &halves[..] });
            let found = [&mut found_first[..], &mut found_other];
            bf16_convolution_input_gradient(token, &Rayon, shape, &bits(&gradient), &weight, mask, found);
            let what = format!("{shape:?} and {second:?} to {out}, {activation:?}");
            assert_rounded(&what, &found_first, &first);
            assert_rounded(&what, &found_other, &other);
        }
    }
}

#[test]
fn weight_gradients_of_convolutions_are_those_of_f32() {
    let Some(token) = token() else { return };
    for (shape, ([channels, out], second)) in shapes().flat_map(|shape| LAYERS.map(|it| (shape, it))) {
        let shape = shape.with_channels(channels);
        let mut rng = ChaCha8Rng::seed_from_u64((shape.len() + out) as u64);
        let widths = [channels].into_iter().chain(second);
        let inputs: Vec<Vec<f32>> = widths.map(|it| exact(&mut rng, shape.pixels() * it)).collect();
        let gradient = exact(&mut rng, shape.pixels() * out);
        let weights = 9 * out * (channels + second.unwrap_or(0));
        let (mut weight, mut bias) = (vec![f32::NAN; weights], vec![f32::NAN; out]);
        let maps: Vec<Maps<'_>> = inputs.iter().map(|it| Maps::Features(it)).collect();
        convolution_weight_gradient(workers(), shape, &maps, &gradient, [&mut weight, &mut bias]);
        let (mut found, mut found_bias) = (vec![f32::NAN; weights], vec![f32::NAN; out]);
        let halves: Vec<Vec<u16>> = inputs.iter().map(|it| bits(it)).collect();
        let maps: Vec<Bf16Maps<'_>> = halves.iter().map(|it| Bf16Maps::Features(it)).collect();
        let results = [&mut found[..], &mut found_bias];
        bf16_convolution_weight_gradient(token, &Rayon, shape, &maps, &bits(&gradient), results);
        let what = format!("{shape:?} and {second:?} to {out}");
        assert_summed(&what, &found, &weight);
        assert_summed(&what, &found_bias, &bias);
    }
}

#[test]
fn weight_gradients_of_photos_are_those_of_f32() {
    let Some(token) = token() else { return };
    for (shape, channels) in shapes().flat_map(|shape| [3, 12].map(|it| (shape, it))) {
        let shape = shape.with_channels(channels);
        let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
        let bytes: Vec<u8> = (0..shape.len()).map(|_| rng.random()).collect();
        let fill: Vec<f32> = (0..channels).map(|at| (20 * at) as f32 / 255.0).collect();
        for (out, fill) in [(8, &[][..]), (8, &fill), (32, &fill)] {
            let (photos, gradient) = (Photos { bytes: &bytes, fill }, exact(&mut rng, shape.pixels() * out));
            let (mut weight, mut bias) = (vec![f32::NAN; 9 * out * channels], vec![f32::NAN; out]);
            let results = [&mut weight[..], &mut bias];
            convolution_weight_gradient(workers(), shape, &[Maps::Photos(photos)], &gradient, results);
            let (mut found, mut found_bias) = (vec![f32::NAN; weight.len()], vec![f32::NAN; out]);
            let (maps, results) = ([Bf16Maps::Photos(photos)], [&mut found[..], &mut found_bias]);
            bf16_convolution_weight_gradient(token, &Rayon, shape, &maps, &bits(&gradient), results);
            assert_summed(&format!("{shape:?} to {out}"), &found, &weight);
            assert_summed(&format!("{shape:?} to {out}"), &found_bias, &bias);
        }
    }
}

/// Three pixels in a row with one channel in use: x = 1, 2, 4; the gradient of one output is 1, 8, 64. The middle row of
/// the kernel's gradient is the sum of gradient times the pixel to the left, at the place, and to the right: 8 x 1 + 64 x 2
/// = 136, 1 + 16 + 256 = 273, 1 x 2 + 8 x 4 = 34; that of the bias is 73.
#[test]
fn weight_gradients_are_those_worked_out_by_hand() {
    let Some(token) = token() else { return };
    let shape = Shape { batch: 1, rows: 1, columns: 3, channels: 8 };
    let [mut x, mut gradient] = [(); 2].map(|()| vec![0.0; 24]);
    for (pixel, value) in [1.0, 2.0, 4.0].into_iter().enumerate() {
        (x[8 * pixel + 5], gradient[8 * pixel + 2]) = (value, [1.0, 8.0, 64.0][pixel]);
    }
    let (mut weight, mut bias) = (vec![f32::NAN; 8 * 8 * 9], vec![f32::NAN; 8]);
    let (x, results) = (bits(&x), [&mut weight[..], &mut bias]);
    bf16_convolution_weight_gradient(token, &Rayon, shape, &[Bf16Maps::Features(&x)], &bits(&gradient), results);
    let mut expected = vec![0.0; weight.len()];
    expected[(2 * 8 + 5) * 9 + 3..][..3].copy_from_slice(&[136.0, 273.0, 34.0]);
    assert_eq!(weight, expected);
    assert_eq!(bias, [0.0, 0.0, 73.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn gradients_of_pooling_are_those_of_f32_rounded() {
    for shape in shapes() {
        let shape = Shape { rows: 2 * shape.rows, columns: 2 * shape.columns, channels: 24, ..shape };
        let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
        let (input, skip) = (activated(&mut rng, shape.len()), exact(&mut rng, shape.len()));
        let gradient = exact(&mut rng, pooled_shape(shape).len());
        for instructions in crate::instructions() {
            let workers = Workers { instructions, spread: &Rayon };
            let mut expected = vec![f32::NAN; shape.len()];
            max_pool_gradient(workers, shape, &input, &gradient, &skip, &mut expected);
            let mut found = vec![u16::MAX; shape.len()];
            max_pool_gradient_bf16(workers, shape, &bits(&input), &bits(&gradient), &bits(&skip), &mut found);
            assert!(floats(&found) == rounded(&expected), "{instructions} {shape:?}");
        }
    }
}

#[test]
fn gradients_of_transposed_convolutions_are_those_of_f32() {
    let Some(token) = token() else { return };
    for (shape, [channels, out]) in shapes().flat_map(|shape| [[16, 8], [24, 16], [64, 32]].map(|it| (shape, it))) {
        let shape = shape.with_channels(channels);
        let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
        let (input, weight) = (activated(&mut rng, shape.len()), exact(&mut rng, channels * out * 4));
        let gradient = exact(&mut rng, up_shape(shape, out).len());
        let (half_input, half_gradient) = (bits(&input), bits(&gradient));
        let what = format!("{shape:?} to {out}");

        let mut expected = vec![f32::NAN; shape.len()];
        let mask = Some(Mask::relu(&input[..]));
        up_convolution_input_gradient(workers(), shape, &gradient, &weight, mask, &mut expected);
        let mut found = vec![u16::MAX; shape.len()];
        let mask = Some(Mask::relu(&half_input[..]));
        bf16_up_convolution_input_gradient(token, &Rayon, shape, &half_gradient, &weight, mask, &mut found);
        assert_rounded(&what, &found, &expected);

        let (mut of_weight, mut of_bias) = (vec![f32::NAN; weight.len()], vec![f32::NAN; out]);
        up_convolution_weight_gradient(workers(), shape, &input, &gradient, [&mut of_weight, &mut of_bias]);
        let (mut found, mut found_bias) = (vec![f32::NAN; weight.len()], vec![f32::NAN; out]);
        let results = [&mut found[..], &mut found_bias];
        bf16_up_convolution_weight_gradient(token, &Rayon, shape, &half_input, &half_gradient, results);
        assert_summed(&what, &found, &of_weight);
        assert_summed(&what, &found_bias, &of_bias);
    }
}

/// Only the gradient of the maps differs, by its rounding.
#[test]
fn the_head_learns_from_bf16_what_it_does_from_f32() {
    for (shape, (channels, maps)) in shapes().flat_map(|shape| HEAD_CHANNELS.map(|it| (shape, (it, MAPS + it / 32)))) {
        let shape = shape.with_channels(channels);
        let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
        let (input, weight, bias) =
            (activated(&mut rng, shape.len()), exact(&mut rng, maps * channels), exact(&mut rng, maps));
        let labels: Vec<u8> = (0..shape.pixels()).map(|_| rng.random_range(0..maps as u8)).collect();
        let weights: Vec<f32> = (0..maps).map(|it| 0.5 + it as f32 / 10.0).collect();
        let (photo, halves) = ([shape.rows, shape.columns], bits(&input));
        let wide = Head { shape, maps, input: &input[..], weight: &weight, bias: &bias, photo };
        let narrow = Head { shape, maps, input: &halves[..], weight: &weight, bias: &bias, photo };
        for loss in [HeadLoss::Bce, HeadLoss::Softmax { weights: &weights, dice: 0.5, smoothing: 0.1 }] {
            for instructions in crate::instructions() {
                let workers = Workers { instructions, spread: &Rayon };
                let mut expected = vec![f32::NAN; shape.len()];
                let of_wide = wide.learn(workers, loss, &labels, &mut expected);
                let mut found = vec![u16::MAX; shape.len()];
                let of_narrow = narrow.learn(workers, loss, &labels, &mut found);
                let what = format!("{instructions} {shape:?}, {loss:?}");
                assert_eq!(
                    (of_wide.loss, of_wide.pixel_accuracy),
                    (of_narrow.loss, of_narrow.pixel_accuracy),
                    "{what}"
                );
                assert_eq!([of_wide.weight, of_wide.bias], [of_narrow.weight, of_narrow.bias], "{what}");
                assert!(floats(&found) == rounded(&expected), "{what}");
            }
        }
    }
}

/// Random bf16 numbers, guarded.
pub(super) fn halves(len: usize, guard: Guard) -> Guarded<u16> {
    Guarded::new(&bits(&activated(&mut ChaCha8Rng::seed_from_u64(len as u64), len)), guard)
}

/// Filled with a NaN pattern, to detect elements that were not written.
pub(super) fn blank(len: usize, guard: Guard) -> Guarded<u16> {
    Guarded::new(&vec![u16::MAX; len], guard)
}

pub(super) fn wide(len: usize, guard: Guard) -> Guarded<f32> {
    Guarded::new(&vec![f32::NAN; len], guard)
}

pub(super) fn weights(len: usize, guard: Guard) -> Guarded<f32> {
    Guarded::new(&exact(&mut ChaCha8Rng::seed_from_u64(len as u64), len), guard)
}

pub(super) fn assert_written(what: &str, halves: &[&[u16]], floats: &[&[f32]]) {
    assert!(halves.iter().all(|it| it.iter().all(|&it| it != u16::MAX)), "{what}");
    assert!(floats.iter().all(|it| it.iter().all(|it| it.is_finite())), "{what}");
}

fn convolutions_stay(token: Avx512Bf16, guard: Guard, shape: Shape, ([_, out], second): ([usize; 2], Option<usize>)) {
    let what = format!("{shape:?} and {second:?} to {out}");
    let second = second.unwrap_or(0);
    let (x, other) = (halves(shape.len(), guard), halves(shape.pixels() * second, guard));
    let (gradient, weight) = (halves(shape.pixels() * out, guard), weights(9 * out * (shape.channels + second), guard));
    let (mut of_x, mut of_other) = (blank(shape.len(), guard), blank(other.len(), guard));
    let mask = (second == 0).then(|| Mask::relu(&x[..]));
    let found = [&mut of_x[..], &mut of_other];
    bf16_convolution_input_gradient(token, &ThreadATask, shape, &gradient, &weight, mask, found);
    let (mut of_weight, mut of_bias) = (wide(weight.len(), guard), wide(out, guard));
    let maps = [Bf16Maps::Features(&x), Bf16Maps::Features(&other)];
    let maps = if second == 0 { &maps[..1] } else { &maps };
    let found = [&mut of_weight[..], &mut of_bias];
    bf16_convolution_weight_gradient(token, &ThreadATask, shape, maps, &gradient, found);
    assert_written(&what, &[&of_x, &of_other], &[&of_weight, &of_bias]);
}

fn photos_stay(token: Avx512Bf16, guard: Guard, shape: Shape) {
    let (photos, gradient) = (Guarded::new(&vec![200_u8; shape.len()], guard), halves(8 * shape.pixels(), guard));
    let (mut of_weight, mut of_bias) = (wide(72 * shape.channels, guard), wide(8, guard));
    let (maps, found) = ([Bf16Maps::Photos(Photos::new(&photos))], [&mut of_weight[..], &mut of_bias]);
    bf16_convolution_weight_gradient(token, &ThreadATask, shape, &maps, &gradient, found);
    assert_written(&format!("photos {shape:?}"), &[], &[&of_weight, &of_bias]);
}

fn up_convolutions_stay(token: Avx512Bf16, guard: Guard, shape: Shape, out: usize) {
    let (x, gradient) = (halves(shape.len(), guard), halves(up_shape(shape, out).len(), guard));
    let weight = weights(4 * shape.channels * out, guard);
    let (mut of_x, mut of_weight, mut of_bias) =
        (blank(shape.len(), guard), wide(weight.len(), guard), wide(out, guard));
    let mask = Some(Mask::relu(&x[..]));
    bf16_up_convolution_input_gradient(token, &ThreadATask, shape, &gradient, &weight, mask, &mut of_x);
    let found = [&mut of_weight[..], &mut of_bias];
    bf16_up_convolution_weight_gradient(token, &ThreadATask, shape, &x, &gradient, found);
    assert_written(&format!("transposed {shape:?} to {out}"), &[&of_x], &[&of_weight, &of_bias]);
}

#[test]
fn gradients_in_bf16_stay_within_their_buffers() {
    let Some(token) = token() else { return };
    for guard in Guard::BOTH {
        for [batch, rows, columns] in [[1, 1, 1], [2, 3, 5], [1, 5, 23]] {
            let shape = Shape { batch, rows, columns, channels: 8 };
            for layer @ ([channels, _], _) in LAYERS {
                convolutions_stay(token, guard, shape.with_channels(channels), layer);
            }
            for channels in [3, 12] {
                photos_stay(token, guard, shape.with_channels(channels));
            }
            for [from, to] in [[16, 8], [64, 32]] {
                up_convolutions_stay(token, guard, shape.with_channels(from), to);
            }
            let twice = Shape { rows: 2 * rows, columns: 2 * columns, ..shape };
            let (x, gradient) = (halves(twice.len(), guard), halves(shape.len(), guard));
            for instructions in Instructions::available() {
                let mut found = blank(twice.len(), guard);
                let workers = Workers { instructions, spread: &ThreadATask };
                max_pool_gradient_bf16(workers, twice, &x, &gradient, &x, &mut found);
                assert_written(&format!("pooled {shape:?}"), &[&found], &[]);
            }
        }
    }
}
