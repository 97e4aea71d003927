//! Checks every operator against its definition, written out in f64, with every instruction set that the processor
//! supports, on shapes that are not multiples of any block or vector width.

use lookbook_ops::adam::{Adam, AdamInputs};
use lookbook_ops::convolution::{convolution, convolution_input_gradient, convolution_weight_gradient};
use lookbook_ops::head::{HEAD_CHANNELS, Head, HeadLoss, MAPS};
use lookbook_ops::maps::{Maps, Shape};
use lookbook_ops::norm::{batch_norm, batch_norm_gradient};
use lookbook_ops::pool::{max_pool, max_pool_gradient, pooled_shape};
use lookbook_ops::up::{up_convolution, up_convolution_input_gradient, up_convolution_weight_gradient, up_shape};
use lookbook_ops::{Instructions, Rayon, Workers};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Photos, rows, columns: narrower than a block, exactly a block, and with a remainder.
const SIZES: [[usize; 3]; 6] = [[1, 1, 1], [2, 3, 2], [1, 5, 7], [2, 9, 20], [1, 4, 23], [1, 19, 41]];

fn every_instructions(check: impl Fn(Workers<'_>)) {
    for instructions in crate::instructions() {
        check(Workers { instructions, spread: &Rayon });
    }
}

fn random(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Asserts agreement within 1e-5 of the largest expected number.
fn assert_close(what: &str, found: &[f32], expected: &[f64]) {
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

fn naive(shape: Shape, inputs: &[Vec<f32>], weight: &[f32], bias: &[f32], output_gradient: &[f32]) -> Naive {
    let output_shape = shape.with_channels(bias.len());
    let mut naive = Naive {
        output: bias.iter().map(|&it| f64::from(it)).cycle().take(output_shape.len()).collect(),
        inputs: vec![vec![0.0; shape.len()]; inputs.len()],
        weight: vec![0.0; weight.len()],
        bias: vec![0.0; bias.len()],
    };
    for_each_tap(shape, |to, from, tap_row, tap_column| {
        for out in 0..bias.len() {
            let y = index(output_shape, to, out);
            for (input, values) in inputs.iter().enumerate() {
                for channel in 0..shape.channels {
                    let x = index(shape, from, channel);
                    let all = out * inputs.len() * shape.channels + input * shape.channels + channel;
                    let w = (all * 3 + tap_row) * 3 + tap_column;
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

fn check_convolution(shape: Shape, count: usize, out: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64((shape.len() * 31 + out) as u64);
    let inputs: Vec<Vec<f32>> = (0..count).map(|_| random(&mut rng, shape.len())).collect();
    let weight = random(&mut rng, out * count * shape.channels * 9);
    let bias = random(&mut rng, out);
    let gradient = random(&mut rng, shape.pixels() * out);
    let expected = naive(shape, &inputs, &weight, &bias, &gradient);
    let maps: Vec<Maps<'_>> = inputs.iter().map(|it| Maps::Features(it)).collect();
    every_instructions(|workers| {
        let what = format!("{} {shape:?} x {count} to {out}", workers.instructions);
        let mut output = vec![f32::NAN; shape.pixels() * out];
        convolution(workers, shape, &maps, [&weight, &bias], false, &mut output);
        assert_close(&format!("{what}: output"), &output, &expected.output);
        convolution(workers, shape, &maps, [&weight, &bias], true, &mut output);
        let positive: Vec<f64> = expected.output.iter().map(|it| it.max(0.0)).collect();
        assert_close(&format!("{what}: ReLU"), &output, &positive);

        let mut weight_gradient = vec![f32::NAN; weight.len()];
        let mut bias_gradient = vec![f32::NAN; out];
        let results: [&mut [f32]; 2] = [&mut weight_gradient, &mut bias_gradient];
        convolution_weight_gradient(workers, shape, &maps, &gradient, results);
        assert_close(&format!("{what}: weight gradient"), &weight_gradient, &expected.weight);
        assert_close(&format!("{what}: bias gradient"), &bias_gradient, &expected.bias);
        if shape.channels == 3 {
            return;
        }
        let mut found = [vec![f32::NAN; shape.len()], vec![f32::NAN; shape.len() * (count - 1)]];
        let [first, second] = &mut found;
        let mask = (count == 1).then_some(&inputs[0][..]);
        convolution_input_gradient(workers, shape, &gradient, &weight, mask, [first, second]);
        for (input, expected) in expected.inputs.iter().enumerate() {
            let masked = expected.iter().zip(&inputs[input]);
            let masked = masked.map(|(it, &x)| if mask.is_some() && x <= 0.0 { 0.0 } else { *it }).collect::<Vec<_>>();
            assert_close(&format!("{what}: gradient of input {input}"), &found[input], &masked);
        }
    });
}

#[test]
fn convolutions_and_their_gradients_are_as_defined() {
    for [batch, rows, columns] in SIZES {
        for [channels, out] in [[3, 8], [8, 8], [8, 16], [16, 8], [24, 40], [16, 32], [64, 8], [8, 64]] {
            check_convolution(Shape { batch, rows, columns, channels }, 1, out);
        }
        for [channels, out] in [[8, 8], [16, 16], [32, 32], [24, 8]] {
            check_convolution(Shape { batch, rows, columns, channels }, 2, out);
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
        let [of_photo, of_shares] = [Maps::Photos(&photo), Maps::Features(&shares)].map(|input| {
            let mut output = vec![0.0; shape.pixels() * 8];
            convolution(workers, shape, &[input], [&weight, &bias], true, &mut output);
            output
        });
        assert_eq!(of_photo, of_shares);
    });
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
        up_convolution_input_gradient(workers, shape, &gradient, &weight, &input, &mut found);
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
fn naive_pixel(maps: &[f64], label: usize, weights: Option<&[f32]>) -> (f64, f64, Vec<f64>, usize) {
    let top = maps.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = maps.iter().map(|it| (it - top).exp()).sum();
    let probability = |it: &f64| if weights.is_some() { (it - top).exp() / sum } else { 1.0 / (1.0 + (-it).exp()) };
    let probabilities: Vec<f64> = maps.iter().map(probability).collect();
    let weight = weights.map_or(1.0, |weights| f64::from(weights[label]));
    let right = |(map, p): (usize, &f64)| -(if map == label { *p } else { 1.0 - p }).max(1e-7).ln();
    let bce: f64 = probabilities.iter().enumerate().map(right).sum();
    let loss = if weights.is_some() { -weight * probabilities[label].max(1e-7).ln() } else { bce };
    let gradient = probabilities.iter().enumerate().map(|(map, p)| weight * (p - f64::from(u8::from(map == label))));
    let category = (0..maps.len()).fold(0, |best, at| if maps[at] > maps[best] { at } else { best });
    (loss, bce, gradient.collect(), category)
}

/// Weight of the Dice term in tests that use one.
const DICE: f32 = 0.7;

/// The Dice term by its definition, from all pixels' maps, and its gradient with respect to each of them.
fn naive_dice(maps: &[Vec<f64>], labels: &[u8]) -> (f64, Vec<Vec<f64>>) {
    let softmax = |maps: &Vec<f64>| {
        let sum: f64 = maps.iter().map(|it| it.exp()).sum();
        maps.iter().map(|it| it.exp() / sum).collect()
    };
    let probabilities: Vec<Vec<f64>> = maps.iter().map(softmax).collect();
    let truth = |pixel: usize, map: usize| f64::from(u8::from(usize::from(labels[pixel]) == map));
    let sum = |of: &dyn Fn(usize) -> f64| (0..labels.len()).map(of).sum::<f64>();
    let there: Vec<usize> = (0..MAPS).filter(|&map| labels.contains(&(map as u8))).collect();
    let mut loss = f64::from(DICE);
    let mut by_probability = vec![vec![0.0; MAPS]; labels.len()];
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
        (0..MAPS).map(|to| (0..MAPS).map(|from| part(to, from)).sum()).collect()
    };
    (loss, probabilities.iter().zip(&by_probability).map(through).collect())
}

fn check_head([batch, rows, columns]: [usize; 3], channels: usize, weights: Option<&[f32]>) {
    let shape = Shape { batch, rows, columns, channels };
    let photo = [rows.div_ceil(2), columns];
    let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
    let input = random(&mut rng, shape.len());
    let (weight, bias) = (random(&mut rng, MAPS * channels), random(&mut rng, MAPS));
    let labels: Vec<u8> = (0..shape.pixels()).map(|_| rng.random_range(0..MAPS as u8)).collect();
    let scale = 1.0 / (shape.pixels() * if weights.is_some() { 1 } else { MAPS }) as f64;
    let (mut loss, mut own_loss, mut own_bce, mut right) = (0.0, 0.0, 0.0, 0.0);
    let (mut of_input, mut of_weight, mut of_bias) =
        (vec![0.0; shape.len()], vec![0.0; MAPS * channels], vec![0.0; MAPS]);
    let mut categories = Vec::new();
    let mut counts = vec![0; batch * MAPS];
    let maps = |pixel: usize| {
        let x = &input[pixel * channels..][..channels];
        let product = |n: usize, k: usize| f64::from(x[k]) * f64::from(weight[n * channels + k]);
        let map = |n: usize| (0..channels).map(|k| product(n, k)).sum::<f64>() + f64::from(bias[n]);
        (0..MAPS).map(map).collect::<Vec<f64>>()
    };
    let all_maps: Vec<Vec<f64>> = (0..shape.pixels()).map(maps).collect();
    let (of_dice, dice_gradient) = naive_dice(&all_maps, &labels);
    for (at, [photo_index, row, column]) in pixels(shape).enumerate() {
        let (x, maps) = (&input[at * channels..][..channels], &all_maps[at]);
        let label = usize::from(labels[at]);
        let (of_pixel, _, mut gradient, category) = naive_pixel(maps, label, weights);
        if weights.is_some() {
            gradient.iter_mut().zip(&dice_gradient[at]).for_each(|(sum, of_dice)| *sum += of_dice / scale);
        }
        categories.push(category as u8);
        loss += of_pixel * scale;
        if row < photo[0] && column < photo[1] {
            let plain = weights.map(|_| [1.0; MAPS]);
            let (of_own, bce, ..) = naive_pixel(maps, label, plain.as_ref().map(|it| &it[..]));
            let share = 1.0 / (batch * photo[0] * photo[1]) as f64;
            own_loss += of_own * share / if weights.is_some() { 1.0 } else { MAPS as f64 };
            own_bce += bce * share / MAPS as f64;
            right += f64::from(u8::from(category == label)) * share;
            counts[photo_index * MAPS + category] += 1;
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
    let head = Head { shape, input: &input, weight: &weight, bias: &bias, photo };
    every_instructions(|workers| {
        let kind = weights.map_or(HeadLoss::Bce, |weights| HeadLoss::Softmax { weights, dice: DICE });
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
        let (mut map, mut found) = (vec![99; shape.pixels()], vec![99; batch * MAPS]);
        head.label(workers, &mut map, &mut found);
        assert_eq!((map, found), (categories.clone(), counts.clone()));
    });
}

#[test]
fn the_head_is_as_defined() {
    let weights: Vec<f32> = (0..MAPS).map(|it| 0.5 + it as f32 * 0.1).collect();
    for (size, channels) in SIZES.into_iter().flat_map(|size| HEAD_CHANNELS.map(|channels| (size, channels))) {
        check_head(size, channels, None);
        check_head(size, channels, Some(&weights));
    }
}

/// Batch normalisation and its gradients by their definitions, without the `ReLU`.
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
            output[at] = (normal * f64::from(scale[channel]) + f64::from(bias[channel])).max(0.0);
            let rest = dy - (of_bias[channel] + normal * of_scale[channel]) / count;
            of_input[at] = f64::from(scale[channel]) * inverse * rest;
        }
    }
    every_instructions(|workers| {
        let mut found = vec![f32::NAN; shape.len()];
        let statistics = batch_norm(workers, shape, &input, [&scale, &bias], EPSILON, &mut found);
        assert_close("mean", &statistics[0], &mean);
        assert_close("variance", &statistics[1], &variance);
        // The rounding error of the input, 20 and more, remains in the normalised result.
        let largest = output.iter().fold(1e-3_f64, |largest, it| largest.max(*it));
        assert!(found.iter().zip(&output).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4 * largest), "output");
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
        check_convolution(shape, rng.random_range(1..=2), out);
        check_up(shape, out);
        check_pool(Shape { rows: 2 * rows, columns: 2 * columns, ..shape });
        check_head([batch, rows, columns], HEAD_CHANNELS[batch % 2], None);
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
    let head = Head { shape, input: &input, weight: &weight, bias: &bias, photo: [1, 1] };
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
    every_instructions(|workers| {
        let inputs = AdamInputs { gradient: &gradient, weights: &weights, moments: [&first, &second] };
        let [mut found_w, mut found_m, mut found_v] = [(); 3].map(|()| vec![f32::NAN; len]);
        adam.apply(workers, inputs, [&mut found_w, &mut found_m, &mut found_v]);
        assert_close("weights", &found_w, &new_w);
        assert_close("first moment", &found_m, &new_m);
        assert_close("second moment", &found_v, &new_v);
    });
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod of_bf16 {
    use half::bf16;

    use super::*;
    use lookbook_ops::bf16::{Avx512Bf16, Bf16Maps, bf16_convolution, bf16_max_pool, bf16_up_convolution};

    /// Numbers that are exact in bf16: their products are exact in f32.
    fn exact(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
        random(rng, len).iter().map(|&it| bf16::from_f32(it).to_f32()).collect()
    }

    fn bits(values: &[f32]) -> Vec<u16> {
        values.iter().map(|&it| bf16::from_f32(it).to_bits()).collect()
    }

    fn rounded(values: &[f32]) -> Vec<f32> {
        values.iter().map(|&it| bf16::from_f32(it).to_f32()).collect()
    }

    fn floats(bits: &[u16]) -> Vec<f32> {
        bits.iter().map(|&it| bf16::from_bits(it).to_f32()).collect()
    }

    fn token() -> Option<Avx512Bf16> {
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
            for ([channels, out], count) in [([8, 8], 1), ([16, 24], 1), ([32, 64], 1), ([64, 32], 2), ([8, 16], 2)] {
                let shape = Shape { batch, rows, columns, channels };
                let mut rng = ChaCha8Rng::seed_from_u64(shape.len() as u64);
                let inputs: Vec<Vec<f32>> = (0..count).map(|_| exact(&mut rng, shape.len())).collect();
                let (weight, bias) = (exact(&mut rng, out * count * channels * 9), random(&mut rng, out));
                let maps: Vec<Maps<'_>> = inputs.iter().map(|it| Maps::Features(it)).collect();
                let halves: Vec<Vec<u16>> = inputs.iter().map(|it| bits(it)).collect();
                let half_maps: Vec<Bf16Maps<'_>> = halves.iter().map(|it| Bf16Maps::Features(it)).collect();
                let mut expected = vec![f32::NAN; shape.pixels() * out];
                let workers = Workers { instructions: Instructions::best(), spread: &Rayon };
                convolution(workers, shape, &maps, [&weight, &bias], true, &mut expected);
                let mut wide = vec![f32::NAN; expected.len()];
                bf16_convolution(token, &Rayon, shape, &half_maps, [&weight, &bias], &mut wide);
                let wanted: Vec<f64> = expected.iter().map(|&it| f64::from(it)).collect();
                assert_close(&format!("{shape:?} x {count} to {out}"), &wide, &wanted);
                let mut narrow = vec![0; expected.len()];
                bf16_convolution(token, &Rayon, shape, &half_maps, [&weight, &bias], &mut narrow);
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
            convolution(workers, shape, &[Maps::Photos(&photo)], [&weight, &bias], true, &mut expected);
            let mut found = vec![f32::NAN; expected.len()];
            bf16_convolution(token, &Rayon, shape, &[Bf16Maps::Photos(&photo)], [&weight, &bias], &mut found);
            let wanted: Vec<f64> = expected.iter().map(|&it| f64::from(it)).collect();
            assert_close(&format!("{shape:?}"), &found, &wanted);
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
