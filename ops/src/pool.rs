//! 2x2 max-pooling with stride 2, and its gradient fused with that of the skip connection.

use super::Workers;
use super::maps::{Band, Shape, cut};
use super::simd::{Job, Simd, Stored, Vector};
use super::spread::spread_items;

/// Shape of the output, for an input with even numbers of rows and columns.
#[must_use]
pub fn pooled_shape(input: Shape) -> Shape {
    Shape { rows: input.rows / 2, columns: input.columns / 2, ..input }
}

/// The maximum of each 2x2 window; `shape` is the input's.
pub fn max_pool(workers: Workers<'_>, shape: Shape, input: &[f32], output: &mut [f32]) {
    let instructions = workers.instructions;
    let pooled = pooled_shape(shape);
    assert!(shape.rows.is_multiple_of(2) && shape.columns.is_multiple_of(2));
    assert!(input.len() == shape.len() && output.len() == pooled.len());
    let bands = Band::all(pooled, workers.spread.threads());
    spread_items(workers.spread, cut(&bands, pooled, output), |index, part| {
        let rows = bands[index].of(windows(pooled), input).chunks_exact(4 * pooled.row_len());
        for (rows, output) in rows.zip(part.chunks_exact_mut(pooled.row_len())) {
            instructions.run(PoolRow { rows, channels: shape.channels, output });
        }
    });
}

/// The gradient of the input of a max-pooling whose input is the output of a `ReLU`: the gradient that comes back
/// through the pooling goes to the first maximum of each window in row order, as in Keras; the gradient that comes back
/// through the skip connection is added; the sum is zeroed wherever the input is not positive.
pub fn max_pool_gradient(
    workers: Workers<'_>,
    shape: Shape,
    input: &[f32],
    output_gradient: &[f32],
    skip_gradient: &[f32],
    input_gradient: &mut [f32],
) {
    gradient(workers, shape, input, [output_gradient, skip_gradient], input_gradient);
}

/// The same with maps in bf16, as raw bits.
pub fn max_pool_gradient_bf16(
    workers: Workers<'_>,
    shape: Shape,
    input: &[u16],
    output_gradient: &[u16],
    skip_gradient: &[u16],
    input_gradient: &mut [u16],
) {
    gradient(workers, shape, input, [output_gradient, skip_gradient], input_gradient);
}

fn gradient<E: Stored>(
    workers: Workers<'_>,
    shape: Shape,
    input: &[E],
    [output_gradient, skip_gradient]: [&[E]; 2],
    input_gradient: &mut [E],
) {
    let instructions = workers.instructions;
    let pooled = pooled_shape(shape);
    assert!(shape.rows.is_multiple_of(2) && shape.columns.is_multiple_of(2));
    assert!(input.len() == shape.len() && skip_gradient.len() == shape.len() && input_gradient.len() == shape.len());
    assert_eq!(output_gradient.len(), pooled.len());
    let bands = Band::all(pooled, workers.spread.threads());
    spread_items(workers.spread, cut(&bands, windows(pooled), input_gradient), |index, part| {
        let band = bands[index];
        let (len, pooled_len) = (4 * pooled.row_len(), pooled.row_len());
        let inputs = band.of(windows(pooled), input).chunks_exact(len);
        let skips = band.of(windows(pooled), skip_gradient).chunks_exact(len);
        let gradients = band.of(pooled, output_gradient).chunks_exact(pooled_len);
        for (((rows, skip), gradient), result) in inputs.zip(skips).zip(gradients).zip(part.chunks_exact_mut(len)) {
            instructions.run(PoolGradientRow { rows, skip, gradient, channels: shape.channels, result });
        }
    });
}

/// The input seen as windows: four times the channels of the output.
fn windows(pooled: Shape) -> Shape {
    pooled.with_channels(4 * pooled.channels)
}

/// Computes a row of the output from two rows of the input.
struct PoolRow<'a> {
    rows: &'a [f32],
    channels: usize,
    output: &'a mut [f32],
}

impl Job for PoolRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (upper, lower) = self.rows.split_at(self.rows.len() / 2);
        let pixels = self.output.chunks_exact_mut(self.channels);
        let windows = upper.chunks_exact(2 * self.channels).zip(lower.chunks_exact(2 * self.channels));
        for (output, (upper, lower)) in pixels.zip(windows) {
            for (channel, output) in (0..).step_by(8).zip(output.chunks_exact_mut(8)) {
                maximum::<S::Eight>(&corners(simd.eight(), upper, lower, channel, self.channels)).put(output);
            }
        }
    }
}

/// Eight channels of the four corners of a window, in row order.
#[inline(always)]
fn corners<V: Vector>(token: V::Token, upper: &[f32], lower: &[f32], channel: usize, channels: usize) -> [V; 4] {
    let right = channels + channel;
    [&upper[channel..], &upper[right..], &lower[channel..], &lower[right..]].map(|it| V::of(token, it))
}

#[inline(always)]
fn maximum<V: Vector>([a, b, c, d]: &[V; 4]) -> V {
    a.larger(*b).larger(c.larger(*d))
}

/// Computes two rows of the input's gradient.
struct PoolGradientRow<'a, E> {
    rows: &'a [E],
    skip: &'a [E],
    gradient: &'a [E],
    channels: usize,
    result: &'a mut [E],
}

impl<E: Stored> Job for PoolGradientRow<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.channels.is_multiple_of(S::Wide::LANES) {
            self.with::<S::Wide>(simd.wide());
        } else {
            self.with::<S::Eight>(simd.eight());
        }
    }
}

impl<E: Stored> PoolGradientRow<'_, E> {
    #[inline(always)]
    fn with<V: Vector>(self, token: V::Token) {
        let (channels, half) = (self.channels, self.rows.len() / 2);
        let zero = V::splat(token, 0.0);
        for (pixel, gradient) in self.gradient.chunks_exact(channels).enumerate() {
            for channel in (0..channels).step_by(V::LANES) {
                let upper = 2 * pixel * channels + channel;
                let places = [upper, upper + channels, upper + half, upper + half + channels];
                let corners: [V; 4] = places.map(|place| E::of(token, &self.rows[place..]));
                let maximum = maximum(&corners);
                let mut left: V = E::of(token, &gradient[channel..]);
                for (corner, place) in corners.into_iter().zip(places) {
                    let share = corner.if_equal(maximum, left, zero);
                    left = corner.if_equal(maximum, zero, left);
                    let sum = share.plus(E::of(token, &self.skip[place..]));
                    E::put(corner.if_greater(zero, sum, zero), &mut self.result[place..]);
                }
            }
        }
    }
}
