//! The layers in 8-bit integers: that they are exactly their definition, in integers and one rounding, on shapes that are not
//! multiples of any block; that they stay within their buffers; and how far a quantised layer is from its own in f32.

use half::bf16;
use lookbook_ops::convolution::convolution;
use lookbook_ops::int8::{
    Avx512Vnni, Int8Maps, Int8Parameters, Output, UpSkipParameters, int8_convolution, int8_max_pool, int8_narrow,
    int8_up_skip_convolution,
};
use lookbook_ops::quantised::{
    MapRange, QuantisedLayer, Steps, Weights, held_channels, pack, pack_fine, quantise_convolution, quantise_up,
};
use lookbook_ops::up::up_convolution;
use lookbook_ops::up_skip::{EDGES, PHASES, UpLayers};
use lookbook_ops::{Activation, Instructions, Maps, Photos, Rayon, Shape, Workers};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::guarded::{Guard, Guarded};

/// Photos, rows, columns: narrower than a block, exactly a block, and with a remainder.
const SIZES: [[usize; 3]; 6] = [[1, 1, 1], [2, 3, 2], [1, 5, 7], [2, 9, 20], [1, 4, 23], [1, 19, 41]];

fn token() -> Option<Avx512Vnni> {
    let token = Avx512Vnni::detect();
    if token.is_none() {
        crate::skip::skip("this processor has no AVX-512-VNNI or no AVX-512-BF16");
    }
    token
}

fn floats(rng: &mut ChaCha8Rng, len: usize, most: f32) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-most..most)).collect()
}

fn bytes(rng: &mut ChaCha8Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.random()).collect()
}

fn weights(rng: &mut ChaCha8Rng, len: usize) -> Vec<i8> {
    (0..len).map(|_| rng.random_range(-127..=127)).collect()
}

/// An element of maps at a place that may be beyond their edges.
fn at(shape: Shape, maps: &[u8], [photo, row, column]: [usize; 3], channel: usize, beyond: u8) -> i32 {
    if row >= shape.rows || column >= shape.columns {
        return i32::from(beyond);
    }
    i32::from(maps[((photo * shape.rows + row) * shape.columns + column) * shape.channels + channel])
}

/// All (photo, row, column) of maps.
fn pixels(shape: Shape) -> impl Iterator<Item = [usize; 3]> {
    (0..shape.pixels())
        .map(move |at| [at / (shape.rows * shape.columns), at / shape.columns % shape.rows, at % shape.columns])
}

/// max(0, scale sum + bias), rounded once as the processor does.
fn finished(sum: i32, scale: f32, bias: f32) -> f32 {
    (sum as f32).mul_add(scale, bias).max(0.0)
}

fn nearest_byte(value: f32) -> u8 {
    value.min(255.0).round_ties_even() as u8
}

/// A convolution by its definition; `weight` is `[3, 3, held channels, out]`.
fn by_definition(shape: Shape, maps: &[u8], zero: [u8; 12], weight: &[i8], [scale, bias]: [&[f32]; 2]) -> Vec<f32> {
    let (out, held) = (scale.len(), held_channels(shape.channels));
    let mut found = Vec::with_capacity(shape.pixels() * out);
    for [photo, row, column] in pixels(shape) {
        for n in 0..out {
            let mut sum = 0;
            for tap in 0..9 {
                let place = [photo, (row + tap / 3).wrapping_sub(1), (column + tap % 3).wrapping_sub(1)];
                for channel in 0..shape.channels {
                    let weight = i32::from(weight[(tap * held + channel) * out + n]);
                    sum += weight * at(shape, maps, place, channel, zero[channel % 12]);
                }
            }
            found.push(finished(sum, scale[n], bias[n]));
        }
    }
    found
}

#[test]
fn a_convolution_is_the_one_worked_out_by_hand() {
    let Some(token) = token() else { return };
    // One pixel of 8 channels: only the middle tap reads it, the others read the zero point, 10.
    let shape = Shape { batch: 1, rows: 1, columns: 1, channels: 8 };
    let input = [10, 11, 12, 13, 14, 15, 16, 255];
    // Output 0 takes the last channel twice, output 1 all taps of channel 0, output 2 is negative, output 3 too large.
    let weight = |row: usize, column: usize| match (row / 8, row % 8, column) {
        (4, 7, 0) => 2,
        (_, 0, 1) => 1,
        (4, 7, 2) => -1,
        (4, 7, 3) => 127,
        _ => 0,
    };
    let weights = pack(72, 8, weight);
    let (scale, bias) = ([0.25; 8], [1.0; 8]);
    let parameters = Int8Parameters { weights: &weights, scale: &scale, bias: &bias };
    let mut output = [77_u8; 8];
    int8_convolution(token, &Rayon, shape, Int8Maps::Features(&input, 10), parameters, Output::U8(&mut output));
    // 510 / 4 + 1 = 128.5, to even; 90 / 4 + 1 = 23.5, to even; then 0, and the most there is; the rest is the bias.
    assert_eq!(output, [128, 24, 0, 255, 1, 1, 1, 1]);
    let mut wide = [f32::NAN; 8];
    int8_convolution(token, &Rayon, shape, Int8Maps::Features(&input, 10), parameters, Output::F32(&mut wide));
    assert_eq!(wide, [128.5, 23.5, 0.0, 8097.25, 1.0, 1.0, 1.0, 1.0]);
}

#[test]
fn convolutions_are_exactly_their_definition() {
    let Some(token) = token() else { return };
    for [batch, rows, columns] in SIZES {
        for [channels, out] in [[8, 8], [16, 24], [24, 16], [32, 64], [64, 32], [40, 120]] {
            let shape = Shape { batch, rows, columns, channels };
            let mut rng = ChaCha8Rng::seed_from_u64((shape.len() + out) as u64);
            let (input, weight) = (bytes(&mut rng, shape.len()), weights(&mut rng, 9 * channels * out));
            let scale: Vec<f32> = floats(&mut rng, out, 1e-3).iter().map(|it| it.abs()).collect();
            let bias = floats(&mut rng, out, 100.0);
            let zero = 37;
            let expected = by_definition(shape, &input, [zero; 12], &weight, [&scale, &bias]);
            let packed = pack(9 * channels, out, |row, column| weight[row * out + column]);
            let parameters = Int8Parameters { weights: &packed, scale: &scale, bias: &bias };
            let maps = Int8Maps::Features(&input, zero);
            let what = format!("{shape:?} to {out}");
            let mut wide = vec![f32::NAN; expected.len()];
            int8_convolution(token, &Rayon, shape, maps, parameters, Output::F32(&mut wide));
            assert_eq!(wide, expected, "{what}");
            let mut narrow = vec![0_u8; expected.len()];
            int8_convolution(token, &Rayon, shape, maps, parameters, Output::U8(&mut narrow));
            let rounded: Vec<u8> = expected.iter().map(|&it| nearest_byte(it)).collect();
            assert_eq!(narrow, rounded, "{what}");
            let mut half = vec![0_u16; expected.len()];
            int8_convolution(token, &Rayon, shape, maps, parameters, Output::Bf16(&mut half));
            let rounded: Vec<u16> = expected.iter().map(|&it| bf16::from_f32(it).to_bits()).collect();
            assert_eq!(half, rounded, "{what}");
        }
    }
}

#[test]
fn photos_go_in_as_they_are() {
    let Some(token) = token() else { return };
    for ([batch, rows, columns], channels) in SIZES.into_iter().flat_map(|size| [3, 12].map(|it| (size, it))) {
        let shape = Shape { batch, rows, columns, channels };
        let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
        let (held, out) = (held_channels(channels), 16);
        let (input, weight) = (bytes(&mut rng, shape.len()), weights(&mut rng, 9 * held * out));
        let (scale, bias) = (vec![1e-3; out], floats(&mut rng, out, 100.0));
        let beyond: [u8; 12] = std::array::from_fn(|channel| 20 * channel as u8);
        let fill: Vec<f32> = beyond[..channels].iter().map(|&it| f32::from(it) / 255.0).collect();
        let expected = by_definition(shape, &input, beyond, &weight, [&scale, &bias]);
        let packed = pack(9 * held, out, |row, column| weight[row * out + column]);
        let parameters = Int8Parameters { weights: &packed, scale: &scale, bias: &bias };
        let photos = Photos { bytes: &input, fill: &fill };
        let mut found = vec![f32::NAN; expected.len()];
        int8_convolution(token, &Rayon, shape, Int8Maps::Photos(photos), parameters, Output::F32(&mut found));
        assert_eq!(found, expected, "{shape:?}");
    }
}

#[test]
fn fine_weights_are_exactly_their_definition() {
    let Some(token) = token() else { return };
    for ([batch, rows, columns], out) in SIZES.into_iter().flat_map(|size| [8, 24].map(|out| (size, out))) {
        let shape = Shape { batch, rows, columns, channels: 8 };
        let mut rng = ChaCha8Rng::seed_from_u64((shape.len() + out) as u64);
        let input = bytes(&mut rng, shape.len());
        let weight: Vec<i16> = (0..72 * out).map(|_| rng.random_range(-16_256..=16_256)).collect();
        let upper: Vec<i8> = weight.iter().map(|it| (it + 64).div_euclid(128) as i8).collect();
        let lower: Vec<i8> =
            weight.iter().zip(&upper).map(|(it, upper)| (it - 128 * i16::from(*upper)) as i8).collect();
        let (scale, bias) = (vec![1e-6; out], floats(&mut rng, out, 1.0));
        // With a scale of 1, no bias and weights that cannot be negative in sum, a sum is what it is.
        let sums = |weight: &[i8], sign: f32| {
            by_definition(shape, &input, [9; 12], weight, [&vec![sign; out], &vec![0.0; out]])
        };
        let signed = |weight: &[i8]| -> Vec<f32> {
            sums(weight, 1.0).iter().zip(sums(weight, -1.0)).map(|(positive, negative)| positive - negative).collect()
        };
        let halves = signed(&upper).into_iter().zip(signed(&lower)).enumerate();
        let expected = halves
            .map(|(at, (upper, lower))| upper.mul_add(128.0, lower).mul_add(scale[at % out], bias[at % out]).max(0.0));
        let packed = pack_fine(72, out, |row, column| weight[row * out + column]);
        let parameters = Int8Parameters { weights: &packed, scale: &scale, bias: &bias };
        let mut found = vec![f32::NAN; shape.pixels() * out];
        int8_convolution(token, &Rayon, shape, Int8Maps::Features(&input, 9), parameters, Output::F32(&mut found));
        assert_eq!(found, expected.collect::<Vec<_>>(), "{shape:?} to {out}");
    }
}

/// Random parameters of an upward layer, as matrices of the phases, `[depth, out]`.
struct Up {
    matrices: Vec<i8>,
    packed: Vec<i8>,
    scale: Vec<f32>,
    bias: Vec<f32>,
}

impl Up {
    fn random(rng: &mut ChaCha8Rng, depth: usize, out: usize) -> Self {
        let matrices = weights(rng, PHASES * depth * out);
        let packed = matrices.chunks_exact(depth * out).flat_map(|it| pack(depth, out, |row, n| it[row * out + n]));
        let scale: Vec<f32> = floats(rng, PHASES * out, 1e-3).iter().map(|it| it.abs()).collect();
        Self { packed: packed.collect(), matrices, scale, bias: floats(rng, PHASES * EDGES * out, 100.0) }
    }

    fn parameters(&self) -> UpSkipParameters<'_> {
        UpSkipParameters { weights: &self.packed, scale: &self.scale, bias: &self.bias }
    }

    /// An element of the output by its definition.
    fn of(&self, shapes: [Shape; 2], maps: [&[u8]; 2], zeros: [u8; 2], place: [usize; 3], n: usize) -> f32 {
        let [photo, row, column] = place;
        let out = self.scale.len() / PHASES;
        let phase = row % 2 * 2 + column % 2;
        let below = (0..4).flat_map(|tap| {
            // Of the two rows below, the phase 0 reads the one above its own, too, and the phase 1 the one beneath.
            let line = |at: usize, tap: usize| (at / 2 + at % 2 + tap).wrapping_sub(1);
            let place = [photo, line(row, tap / 2), line(column, tap % 2)];
            (0..shapes[0].channels).map(move |channel| at(shapes[0], maps[0], place, channel, zeros[0]))
        });
        let skip = (0..9).flat_map(|tap| {
            let place = [photo, (row + tap / 3).wrapping_sub(1), (column + tap % 3).wrapping_sub(1)];
            (0..shapes[1].channels).map(move |channel| at(shapes[1], maps[1], place, channel, zeros[1]))
        });
        let inputs: Vec<i32> = below.chain(skip).collect();
        let matrix = &self.matrices[phase * inputs.len() * out..][..inputs.len() * out];
        let sum = inputs.iter().enumerate().map(|(k, it)| it * i32::from(matrix[k * out + n])).sum();
        let is_edge = |at: usize, of: usize| usize::from(at == 0 || at == of - 1);
        let edge = is_edge(row, shapes[1].rows) * 2 + is_edge(column, shapes[1].columns);
        finished(sum, self.scale[phase * out + n], self.bias[(phase * EDGES + edge) * out + n])
    }
}

#[test]
fn upward_layers_are_exactly_their_definition() {
    let Some(token) = token() else { return };
    for [batch, rows, columns] in SIZES {
        for [channels, skip, out] in [[8, 8, 8], [32, 16, 16], [64, 24, 32], [16, 40, 64]] {
            let below = Shape { batch, rows, columns, channels };
            let above = Shape { batch, rows: 2 * rows, columns: 2 * columns, channels: skip };
            let mut rng = ChaCha8Rng::seed_from_u64((below.len() + skip) as u64);
            let maps = [bytes(&mut rng, below.len()), bytes(&mut rng, above.len())];
            let (maps, zeros) = (maps.each_ref().map(|it| &it[..]), [3, 128]);
            let up = Up::random(&mut rng, 4 * channels + 9 * skip, out);
            let mut found = vec![f32::NAN; above.pixels() * out];
            let inputs = [(maps[0], zeros[0]), (maps[1], zeros[1])];
            int8_up_skip_convolution(token, &Rayon, below, inputs, up.parameters(), Output::F32(&mut found));
            let mut at = 0;
            for place in pixels(above) {
                for n in 0..out {
                    let expected = up.of([below, above], maps, zeros, place, n);
                    assert_eq!(found[at], expected, "{below:?} and {skip} to {out}, {place:?}, channel {n}");
                    at += 1;
                }
            }
        }
    }
}

#[test]
fn maps_are_pooled_and_narrowed() {
    let Some(token) = token() else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for [batch, rows, columns] in SIZES {
        let shape = Shape { batch, rows: 2 * rows, columns: 2 * columns, channels: 24 };
        let input = bytes(&mut rng, shape.len());
        let pooled = Shape { rows, columns, ..shape };
        let mut found = vec![0; pooled.len()];
        int8_max_pool(token, &Rayon, shape, &input, &mut found);
        for (at_pixel, [photo, row, column]) in pixels(pooled).enumerate() {
            for channel in 0..24 {
                let corner = |it: usize| at(shape, &input, [photo, 2 * row + it / 2, 2 * column + it % 2], channel, 0);
                assert_eq!(Some(i32::from(found[at_pixel * 24 + channel])), (0..4).map(corner).max());
            }
        }
        let values = floats(&mut rng, shape.len(), 3.0);
        let halves: Vec<u16> = values.iter().map(|&it| bf16::from_f32(it).to_bits()).collect();
        let mut narrow = vec![0; halves.len()];
        int8_narrow(token, &Rayon, &halves, 60.0, 100, &mut narrow);
        for (found, half) in narrow.iter().zip(&halves) {
            let value = bf16::from_bits(*half).to_f32().mul_add(60.0, 100.0);
            assert_eq!(*found, nearest_byte(value.max(0.0)));
        }
    }
}

/// Steps, elements and the numbers they mean, for numbers from -1 (or 0) to 3.
fn quantised(rng: &mut ChaCha8Rng, shape: Shape, low: f32) -> (Steps, Vec<u8>, Vec<f32>) {
    let high = (0..shape.channels).map(|channel| if low < 0.0 { 3.0 } else { 3.0 / (1 + channel % 4) as f32 });
    let range = MapRange { low, high: high.collect(), mean: vec![0.0; shape.channels] };
    let steps = if low < 0.0 { Steps::of_map(&range) } else { Steps::by_channel(&range) };
    let elements = bytes(rng, shape.len());
    let of_channels = steps.step.iter().cycle();
    let meant = elements.iter().zip(of_channels).map(|(&it, step)| (f32::from(it) - f32::from(steps.zero)) * step);
    let meant = meant.collect();
    (steps, elements, meant)
}

/// The largest difference of `depth` rounded weights, for inputs of at most 3: a step of a weight for each.
fn bound(depth: usize, largest_weight: f32) -> f32 {
    depth as f32 * 3.0 * largest_weight / 127.0
}

#[test]
fn a_quantised_convolution_is_as_near_as_its_weights() {
    let Some(token) = token() else { return };
    let shape = Shape { batch: 2, rows: 5, columns: 23, channels: 16 };
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for low in [0.0, -1.0] {
        let (steps, elements, meant) = quantised(&mut rng, shape, low);
        let (weight, bias) = (floats(&mut rng, 24 * 16 * 9, 0.1), floats(&mut rng, 24, 1.0));
        let workers = Workers { instructions: Instructions::best(), spread: &Rayon };
        let mut expected = vec![f32::NAN; shape.pixels() * 24];
        let maps = [Maps::Features(&meant)];
        convolution(workers, shape, &maps, [&weight, &bias], Activation::Relu, &mut expected);
        let QuantisedLayer { weights, scale, bias } = quantise_convolution([&weight, &bias], &steps, &Steps::ones(24));
        let parameters = Int8Parameters { weights: &weights, scale: &scale, bias: &bias };
        let mut found = vec![f32::NAN; expected.len()];
        int8_convolution(
            token,
            &Rayon,
            shape,
            Int8Maps::Features(&elements, steps.zero),
            parameters,
            Output::F32(&mut found),
        );
        assert!(expected.iter().any(|&it| it > 1.0));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < bound(9 * 16, 0.1), "{found}, not {expected}");
        }
    }
}

/// The two layers one after the other in f32.
fn in_two_steps(shapes: [Shape; 2], maps: [&[f32]; 2], layers: UpLayers<'_>) -> Vec<f32> {
    let workers = Workers { instructions: Instructions::best(), spread: &Rayon };
    let middle = shapes[1].with_channels(layers.up_bias.len());
    let mut up = vec![f32::NAN; middle.len()];
    up_convolution(workers, shapes[0], maps[0], [layers.up_weight, layers.up_bias], &mut up);
    let mut output = vec![f32::NAN; middle.pixels() * layers.bias.len()];
    let inputs = [Maps::Features(&up), Maps::Features(maps[1])];
    convolution(workers, middle, &inputs, [layers.weight, layers.bias], Activation::Relu, &mut output);
    output
}

#[test]
fn two_layers_as_one_are_as_near_as_their_weights() {
    let Some(token) = token() else { return };
    // The mean difference is of the rounded weights: a hundredth if they are fine.
    for ([rows, columns], (how, most)) in [[1, 1], [3, 1], [4, 23]]
        .into_iter()
        .flat_map(|it| [(Weights::Coarse, 0.03), (Weights::Fine, 3e-4)].map(|how| (it, how)))
    {
        let below = Shape { batch: 2, rows, columns, channels: 16 };
        let above = Shape { batch: 2, rows: 2 * rows, columns: 2 * columns, channels: 24 };
        let mut rng = ChaCha8Rng::seed_from_u64(columns as u64);
        let first = quantised(&mut rng, below, 0.0);
        let second = quantised(&mut rng, above, -1.0);
        let (up_weight, up_bias) = (floats(&mut rng, 16 * 8 * 4, 0.3), floats(&mut rng, 8, 1.0));
        let (weight, bias) = (floats(&mut rng, 8 * 32 * 9, 0.1), floats(&mut rng, 8, 1.0));
        let layers = UpLayers { up_weight: &up_weight, up_bias: &up_bias, weight: &weight, bias: &bias };
        let expected = in_two_steps([below, above], [&first.2, &second.2], layers);
        let QuantisedLayer { weights, scale, bias } = quantise_up(layers, [&first.0, &second.0], &Steps::ones(8), how);
        let mut found = vec![f32::NAN; expected.len()];
        let inputs = [(&first.1[..], first.0.zero), (&second.1[..], second.0.zero)];
        let parameters = UpSkipParameters { weights: &weights, scale: &scale, bias: &bias };
        int8_up_skip_convolution(token, &Rayon, below, inputs, parameters, Output::F32(&mut found));
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // A composed weight is a sum over 8 channels and up to 4 taps of products of at most 0.03.
            let near = bound(4 * 16 + 9 * 24, 0.4);
            assert!((found - expected).abs() < near, "element {at} of {rows} x {columns}: {found}, not {expected}");
        }
        let off: f32 = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs()).sum();
        assert!(off / (found.len() as f32) < most, "on average {} off", off / found.len() as f32);
    }
}

#[test]
fn layers_stay_within_their_buffers() {
    let Some(token) = token() else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for (guard, [batch, rows, columns]) in Guard::BOTH.into_iter().flat_map(|guard| SIZES.map(|size| (guard, size))) {
        for [channels, skip, out] in [[8, 8, 8], [16, 24, 24], [32, 16, 64]] {
            let shape = Shape { batch, rows, columns, channels };
            let above = Shape { batch, rows: 2 * rows, columns: 2 * columns, channels: skip };
            let input = Guarded::new(&bytes(&mut rng, shape.len()), guard);
            let packed = Guarded::new(&weights(&mut rng, 9 * channels * out), guard);
            let scale = Guarded::new(&vec![1.0; out], guard);
            let parameters = Int8Parameters { weights: &packed, scale: &scale, bias: &scale };
            let mut output = Guarded::new(&vec![f32::NAN; shape.pixels() * out], guard);
            int8_convolution(token, &Rayon, shape, Int8Maps::Features(&input, 9), parameters, Output::F32(&mut output));
            assert!(output.iter().all(|it| it.is_finite()));
            let mut narrow = Guarded::new(&vec![0_u8; output.len()], guard);
            int8_convolution(token, &Rayon, shape, Int8Maps::Features(&input, 9), parameters, Output::U8(&mut narrow));
            let second = Guarded::new(&bytes(&mut rng, above.len()), guard);
            let packed = Guarded::new(&weights(&mut rng, PHASES * (4 * channels + 9 * skip) * out), guard);
            let scale = Guarded::new(&vec![1.0; PHASES * out], guard);
            let bias = Guarded::new(&vec![1.0; PHASES * EDGES * out], guard);
            let parameters = UpSkipParameters { weights: &packed, scale: &scale, bias: &bias };
            let mut output = Guarded::new(&vec![f32::NAN; above.pixels() * out], guard);
            int8_up_skip_convolution(
                token,
                &Rayon,
                shape,
                [(&input, 0), (&second, 7)],
                parameters,
                Output::F32(&mut output),
            );
            assert!(output.iter().all(|it| it.is_finite()));
            let mut pooled = Guarded::new(&vec![0; shape.pixels() * skip], guard);
            int8_max_pool(token, &Rayon, above, &second, &mut pooled);
            let halves = Guarded::new(&vec![0x3f80; shape.len()], guard);
            let mut narrow = Guarded::new(&vec![0; shape.len()], guard);
            int8_narrow(token, &Rayon, &halves, 5.0, 1, &mut narrow);
            assert!(narrow.iter().all(|&it| it == 6));
        }
    }
}
