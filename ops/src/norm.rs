//! Batch normalisation (Ioffe and Szegedy, 2015, <https://arxiv.org/abs/1502.03167>) fused with an activation or a residual
//! connection, and its gradient.

use super::Workers;
use super::activation::{Activation, Finish};
use super::maps::{Band, Shape, cut};
use super::simd::{Job, Simd, Stored, Vector};
use super::spread::spread_items;

/// `output = activation(scale (input - mean) / sqrt(variance + epsilon) + bias) + residual` for each channel. Mean and
/// variance are taken over the batch and all pixels, and are returned, `[channels]` each.
///
/// `input`, `output` and `residual` are `[batch, rows, columns, channels]`, `scale` and `bias` `[channels]`; the number of channels
/// is a multiple of 8.
pub fn batch_norm(
    workers: Workers<'_>,
    shape: Shape,
    input: &[f32],
    parameters: [&[f32]; 2],
    epsilon: f32,
    fused: (Activation, Option<&[f32]>),
    output: &mut [f32],
) -> [Vec<f32>; 2] {
    normalise(workers, shape, input, parameters, epsilon, fused, output)
}

/// [`batch_norm`] of maps in bf16, as raw bits; its sums are f32.
pub fn batch_norm_bf16(
    workers: Workers<'_>,
    shape: Shape,
    input: &[u16],
    parameters: [&[f32]; 2],
    epsilon: f32,
    fused: (Activation, Option<&[u16]>),
    output: &mut [u16],
) -> [Vec<f32>; 2] {
    normalise(workers, shape, input, parameters, epsilon, fused, output)
}

fn normalise<E: Stored>(
    workers: Workers<'_>,
    shape: Shape,
    input: &[E],
    [scale, bias]: [&[f32]; 2],
    epsilon: f32,
    (activation, residual): (Activation, Option<&[E]>),
    output: &mut [E],
) -> [Vec<f32>; 2] {
    let channels = shape.channels;
    assert!(channels.is_multiple_of(8) && scale.len() == channels && bias.len() == channels);
    let finish = Finish::Output { activation, residual };
    assert!(input.len() == shape.len() && output.len() == shape.len() && finish.fits(shape.len()));
    // Relative to any pixel of the maps the squares stay small, so that their difference keeps its precision.
    let pivot = &workers.instructions.run(Widened(&input[..channels]));
    let sums = workers.sum_over_bands(shape, 2 * channels, |band, sums| {
        let (sum, square) = sums.split_at_mut(channels);
        let factors = [band.of(shape, input), band.of(shape, input)];
        workers.instructions.run(Moments { factors, pivots: [pivot, pivot], channels, sums: [sum, square] });
    });
    let (sum, square) = sums.split_at(channels);
    let count = shape.pixels() as f32;
    let off: Vec<f32> = sum.iter().map(|sum| sum / count).collect();
    let mean: Vec<f32> = off.iter().zip(pivot).map(|(off, pivot)| pivot + off).collect();
    let variance: Vec<f32> =
        off.iter().zip(square).map(|(off, square)| (square / count - off * off).max(0.0)).collect();
    let factors: Vec<f32> = scale.iter().zip(&variance).map(|(scale, it)| scale / (it + epsilon).sqrt()).collect();
    let summands: Vec<f32> =
        bias.iter().zip(&mean).zip(&factors).map(|((bias, mean), factor)| bias - mean * factor).collect();
    let bands = Band::all(shape, workers.spread.threads());
    spread_items(workers.spread, cut(&bands, shape, output), |index, output| {
        let input = bands[index].of(shape, input);
        let finish = finish.map(|it| bands[index].of(shape, it));
        workers.instructions.run(Scaled { input, factors: &factors, summands: &summands, finish, output });
    });
    [mean, variance]
}

/// The gradients of scale and bias, `[channels]` each, and of the input, from the gradient of the output before the
/// activation and the mean and variance that [`batch_norm`] returned.
pub fn batch_norm_gradient(
    workers: Workers<'_>,
    shape: Shape,
    maps: [&[f32]; 2],
    scale: &[f32],
    statistics: [&[f32]; 2],
    epsilon: f32,
    input_gradient: &mut [f32],
) -> [Vec<f32>; 2] {
    normalise_back(workers, shape, maps, scale, statistics, epsilon, input_gradient)
}

/// [`batch_norm_gradient`] of maps in bf16, as raw bits, which are those of the input and the gradient of the output; its
/// sums are f32.
pub fn batch_norm_gradient_bf16(
    workers: Workers<'_>,
    shape: Shape,
    maps: [&[u16]; 2],
    scale: &[f32],
    statistics: [&[f32]; 2],
    epsilon: f32,
    input_gradient: &mut [u16],
) -> [Vec<f32>; 2] {
    normalise_back(workers, shape, maps, scale, statistics, epsilon, input_gradient)
}

fn normalise_back<E: Stored>(
    workers: Workers<'_>,
    shape: Shape,
    [input, output_gradient]: [&[E]; 2],
    scale: &[f32],
    [mean, variance]: [&[f32]; 2],
    epsilon: f32,
    input_gradient: &mut [E],
) -> [Vec<f32>; 2] {
    let channels = shape.channels;
    assert!(channels.is_multiple_of(8) && [scale, mean, variance].iter().all(|it| it.len() == channels));
    assert!([input.len(), output_gradient.len(), input_gradient.len()].iter().all(|&len| len == shape.len()));
    let zeros = vec![0.0; channels];
    let sums = workers.sum_over_bands(shape, 2 * channels, |band, sums| {
        let (of_bias, along) = sums.split_at_mut(channels);
        let factors = [band.of(shape, output_gradient), band.of(shape, input)];
        workers.instructions.run(Moments { factors, pivots: [&zeros, mean], channels, sums: [of_bias, along] });
    });
    let (of_bias, along) = sums.split_at(channels);
    let inverse: Vec<f32> = variance.iter().map(|it| 1.0 / (it + epsilon).sqrt()).collect();
    let of_scale: Vec<f32> = along.iter().zip(&inverse).map(|(along, inverse)| along * inverse).collect();
    // scale / deviation (dy - mean of dy - normal x mean of (dy x normal)), rewritten as dy x factor + x x slope +
    // summand.
    let count = shape.pixels() as f32;
    let mut coefficients = [vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]];
    for channel in 0..channels {
        let factor = scale[channel] * inverse[channel];
        let slope = -factor * inverse[channel] * of_scale[channel] / count;
        coefficients[0][channel] = factor;
        coefficients[1][channel] = slope;
        coefficients[2][channel] = -factor * of_bias[channel] / count - slope * mean[channel];
    }
    let bands = Band::all(shape, workers.spread.threads());
    spread_items(workers.spread, cut(&bands, shape, input_gradient), |index, result| {
        let [input, gradient] = [input, output_gradient].map(|it| bands[index].of(shape, it));
        workers.instructions.run(Back { gradient, input, coefficients: &coefficients, result });
    });
    [of_scale, of_bias.to_vec()]
}

/// Maps as f32.
struct Widened<'a, E>(&'a [E]);

impl<E: Stored> Job for Widened<'_, E> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<f32> {
        let mut wide = vec![0.0; self.0.len()];
        let lanes = S::Eight::LANES;
        for (from, to) in self.0.chunks_exact(lanes).zip(wide.chunks_exact_mut(lanes)) {
            E::of::<S::Eight>(simd.eight(), from).put(to);
        }
        wide
    }
}

/// Adds the sum over pixels of `a - p` and of `(a - p) (b - q)` to `sums` for each channel, where a and b are the
/// `factors`, p and q the `pivots`.
struct Moments<'a, E> {
    /// `[pixels, channels]`.
    factors: [&'a [E]; 2],
    /// `[channels]`.
    pivots: [&'a [f32]; 2],
    channels: usize,
    /// `[channels]`.
    sums: [&'a mut [f32]; 2],
}

/// Vectors of channels whose sums are kept in registers: a pixel is then read in runs of whole cache lines.
const RUN: usize = 8;

impl<E: Stored> Job for Moments<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let mut channel = 0;
        while channel < self.channels {
            let left = (self.channels - channel) / S::Wide::LANES;
            channel += match left {
                RUN.. => self.add::<S::Wide, RUN>(simd.wide(), channel),
                2.. => self.add::<S::Wide, 2>(simd.wide(), channel),
                1 => self.add::<S::Wide, 1>(simd.wide(), channel),
                _ => self.add::<S::Eight, 1>(simd.eight(), channel),
            };
        }
    }
}

impl<E: Stored> Moments<'_, E> {
    /// Adds those of `N` vectors of channels, and returns their number.
    #[inline(always)]
    fn add<V: Vector, const N: usize>(&mut self, token: V::Token, channel: usize) -> usize {
        let width = N * V::LANES;
        let Self { factors: [a, b], pivots, channels, sums } = self;
        let pivots: [[V; N]; 2] =
            pivots.map(|pivot| std::array::from_fn(|n| V::of(token, &pivot[channel + n * V::LANES..])));
        let mut found = [[V::splat(token, 0.0); N]; 2];
        for (a, b) in a.chunks_exact(*channels).zip(b.chunks_exact(*channels)) {
            let (a, b) = (&a[channel..channel + width], &b[channel..channel + width]);
            for n in 0..N {
                let a = E::of::<V>(token, &a[n * V::LANES..]).minus(pivots[0][n]);
                let b = E::of::<V>(token, &b[n * V::LANES..]).minus(pivots[1][n]);
                found[0][n] = found[0][n].plus(a);
                found[1][n] = a.times_plus(b, found[1][n]);
            }
        }
        for (sums, found) in sums.iter_mut().zip(found) {
            for (n, found) in found.into_iter().enumerate() {
                let place = &mut sums[channel + n * V::LANES..];
                V::of(token, place).plus(found).put(place);
            }
        }
        width
    }
}

/// `output = finish(input x factor + summand)`.
struct Scaled<'a, E> {
    input: &'a [E],
    factors: &'a [f32],
    summands: &'a [f32],
    finish: Finish<'a, E>,
    output: &'a mut [E],
}

impl<E: Stored> Job for Scaled<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.factors.len().is_multiple_of(S::Wide::LANES) {
            self.scale::<S::Wide>(simd.wide());
        } else {
            self.scale::<S::Eight>(simd.eight());
        }
    }
}

impl<E: Stored> Scaled<'_, E> {
    #[inline(always)]
    fn scale<V: Vector>(self, token: V::Token) {
        let Self { input, factors, summands, finish, output } = self;
        let channels = factors.len();
        let pixels = input.chunks_exact(channels).zip(output.chunks_exact_mut(channels));
        for (pixel, (input, output)) in pixels.enumerate() {
            for channel in (0..channels).step_by(V::LANES) {
                // Not by `map` over an array: it is not inlined.
                let (factor, summand) = (V::of(token, &factors[channel..]), V::of(token, &summands[channel..]));
                let scaled = E::of::<V>(token, &input[channel..]).times_plus(factor, summand);
                E::put(finish.of(scaled, pixel * channels + channel), &mut output[channel..]);
            }
        }
    }
}

/// `result = gradient x coefficients[0] + input x coefficients[1] + coefficients[2]`.
struct Back<'a, E> {
    gradient: &'a [E],
    input: &'a [E],
    coefficients: &'a [Vec<f32>; 3],
    result: &'a mut [E],
}

impl<E: Stored> Job for Back<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.coefficients[0].len().is_multiple_of(S::Wide::LANES) {
            self.back::<S::Wide>(simd.wide());
        } else {
            self.back::<S::Eight>(simd.eight());
        }
    }
}

impl<E: Stored> Back<'_, E> {
    #[inline(always)]
    fn back<V: Vector>(self, token: V::Token) {
        let [factors, slopes, summands] = self.coefficients;
        let channels = factors.len();
        let pixels = self.gradient.chunks_exact(channels).zip(self.input.chunks_exact(channels));
        for ((gradient, input), result) in pixels.zip(self.result.chunks_exact_mut(channels)) {
            for channel in (0..channels).step_by(V::LANES) {
                let (slope, summand) = (V::of(token, &slopes[channel..]), V::of(token, &summands[channel..]));
                let input = E::of::<V>(token, &input[channel..]).times_plus(slope, summand);
                let factor = V::of(token, &factors[channel..]);
                E::put(E::of::<V>(token, &gradient[channel..]).times_plus(factor, input), &mut result[channel..]);
            }
        }
    }
}
