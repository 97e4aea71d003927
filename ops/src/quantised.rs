//! Layers in 8-bit integers: weights rounded to i8 and packed in the order in which the products of `int8` read them, with
//! what makes a layer's output of their sums. Plain Rust, for any processor.
//!
//! A map's element q, u8, means `(q - zero) step`. A layer multiplies q with weights that carry the step of their input, and
//! each output channel has a step of its own: the largest weight becomes 127 or -127 (Jacob et al., 2018,
//! <https://arxiv.org/abs/1712.05877>, but symmetric weights per channel). What the zero points add to a sum is a constant,
//! which is taken off in the bias.

use crate::product::tile_widths;

/// Channels that an instruction multiplies and adds at once.
pub const QUAD: usize = 4;

/// Largest weight.
const MOST: f32 = 127.0;

/// Taps of a 3x3 kernel.
const TAPS: usize = 9;

/// Pixels that come of one by a transposed convolution with a 2x2 kernel.
pub const PHASES: usize = 4;

/// Biases of such a pixel: whether its row and its column are at an edge of the maps.
pub const EDGES: usize = 4;

/// What the elements of a map mean: `(q - zero) step`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steps {
    /// Difference of neighbouring elements, above 0.
    pub step: f32,
    /// The element that means 0.
    pub zero: u8,
}

impl Steps {
    /// Bytes of photos, 255 meaning 1.
    pub const PHOTO: Self = Self { step: 1.0 / 255.0, zero: 0 };

    /// Those of a map whose numbers lie within a range: 0 is exact, numbers beyond the range become its ends.
    #[must_use]
    pub fn of_range([low, high]: [f32; 2]) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let step = ((high - low) / 255.0).max(f32::MIN_POSITIVE);
        Self { step, zero: (-low / step).round() as u8 }
    }
}

/// A layer's weights, packed, and what makes its output of their sums: `max(0, scale sum + bias)`.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantisedLayer {
    /// See [`pack`]; of several matrices one after the other.
    pub weights: Vec<i8>,
    /// `[out]`, or `[phases, out]`.
    pub scale: Vec<f32>,
    /// `[out]`, or `[phases, row at an edge, column at an edge, out]`.
    pub bias: Vec<f32>,
}

/// Packs a matrix of `depth` rows, a multiple of 4, and `outputs` columns, a multiple of 8, whose element in row k and column
/// n is `element(k, n)`: tile by tile of columns, `[depth / 4, width, 4]` each.
#[must_use]
pub fn pack(depth: usize, outputs: usize, element: impl Fn(usize, usize) -> i8) -> Vec<i8> {
    assert!(depth.is_multiple_of(QUAD) && outputs.is_multiple_of(8));
    let mut packed = Vec::with_capacity(depth * outputs);
    let mut first = 0;
    for width in tile_widths(true, outputs) {
        for quad in (0..depth).step_by(QUAD) {
            for column in first..first + width {
                packed.extend((quad..quad + QUAD).map(|row| element(row, column)));
            }
        }
        first += width;
    }
    packed
}

/// Channels of maps as the products read them.
#[must_use]
pub fn held_channels(channels: usize) -> usize {
    channels.next_multiple_of(QUAD)
}

/// A 3x3 convolution, `weight` `[out, channels, 3, 3]`, of maps with `input` steps, whose output has steps of `output_step`
/// (1 if it is not quantised) and the zero point 0.
#[must_use]
pub fn quantise_convolution([weight, bias]: [&[f32]; 2], input: Steps, output_step: f32) -> QuantisedLayer {
    let out = bias.len();
    let channels = weight.len() / out / TAPS;
    let held = held_channels(channels);
    assert_eq!(weight.len(), out * channels * TAPS);
    let element = |row: usize, column: usize| {
        let (tap, channel) = (row / held, row % held);
        if channel < channels { weight[(column * channels + channel) * TAPS + tap] * input.step } else { 0.0 }
    };
    let Matrix { weights, scale, offset } = Matrix::new([TAPS * held, out], element, |_| input.zero, output_step);
    let bias = bias.iter().zip(offset).map(|(bias, offset)| bias / output_step + offset).collect();
    QuantisedLayer { weights, scale, bias }
}

/// A matrix of weights, and what makes an output of its sums.
struct Matrix {
    weights: Vec<i8>,
    scale: Vec<f32>,
    /// Takes off what the zero points add.
    offset: Vec<f32>,
}

impl Matrix {
    /// Rounds the `[depth, outputs]` elements; row k multiplies elements whose zero point is `zero(k)`.
    fn new(
        [depth, outputs]: [usize; 2],
        element: impl Fn(usize, usize) -> f32,
        zero: impl Fn(usize) -> u8,
        output_step: f32,
    ) -> Self {
        let mut rounded = vec![0; depth * outputs];
        let (mut scale, mut offset) = (Vec::with_capacity(outputs), Vec::with_capacity(outputs));
        for (column, rounded) in rounded.chunks_exact_mut(depth).enumerate() {
            let column: Vec<f32> = (0..depth).map(|row| element(row, column)).collect();
            let largest = column.iter().fold(0.0_f32, |largest, it| largest.max(it.abs()));
            let step = if largest > 0.0 { largest / MOST } else { 1.0 };
            let mut of_zeros = 0_i64;
            for (row, (rounded, element)) in rounded.iter_mut().zip(&column).enumerate() {
                *rounded = (element / step).round() as i8;
                of_zeros += i64::from(*rounded) * i64::from(zero(row));
            }
            scale.push(step / output_step);
            offset.push(-(f64::from(step) * of_zeros as f64 / f64::from(output_step)) as f32);
        }
        let weights = pack(depth, outputs, |row, column| rounded[column * depth + row]);
        Self { weights, scale, offset }
    }
}

/// A transposed convolution and the 3x3 convolution over its output and a skip connection.
#[derive(Debug, Clone, Copy)]
pub struct UpLayers<'a> {
    /// `[below, middle, 2, 2]`.
    pub up_weight: &'a [f32],
    /// `[middle]`.
    pub up_bias: &'a [f32],
    /// `[out, middle + skip, 3, 3]`.
    pub weight: &'a [f32],
    /// `[out]`.
    pub bias: &'a [f32],
}

/// The two layers as one, of maps below and those of the skip connection with their steps; as [`quantise_convolution`].
#[must_use]
pub fn quantise_up(layers: UpLayers<'_>, [below, skip]: [Steps; 2], output_step: f32) -> QuantisedLayer {
    let UpLayers { up_bias, weight, bias, .. } = layers;
    let (out, all) = (bias.len(), weight.len() / bias.len() / TAPS);
    let widths = [layers.up_weight.len() / up_bias.len() / PHASES, all - up_bias.len()];
    let of_below = 4 * widths[0];
    let mut layer = QuantisedLayer { weights: Vec::new(), scale: Vec::new(), bias: Vec::new() };
    for phase in 0..PHASES {
        let composed = layers.composed(phase, widths[0]);
        let element = |row: usize, column: usize| match row.checked_sub(of_below) {
            None => composed[row / widths[0]][column * widths[0] + row % widths[0]] * below.step,
            Some(row) => {
                let channel = up_bias.len() + row % widths[1];
                weight[(column * all + channel) * TAPS + row / widths[1]] * skip.step
            }
        };
        let zero = |row: usize| if row < of_below { below.zero } else { skip.zero };
        let matrix = Matrix::new([of_below + TAPS * widths[1], out], element, zero, output_step);
        for (row, column) in [(false, false), (false, true), (true, false), (true, true)] {
            let biases = layers.composed_bias(phase, [row, column]).into_iter().zip(&matrix.offset);
            layer.bias.extend(biases.map(|(bias, offset)| bias / output_step + offset));
        }
        layer.weights.extend(matrix.weights);
        layer.scale.extend(matrix.scale);
    }
    layer
}

impl UpLayers<'_> {
    /// The kernels by which pixels of a phase read the 2x2 pixels below, `[2, 2]` of `[out, below]`.
    fn composed(&self, phase: usize, below: usize) -> [Vec<f32>; 4] {
        let Self { up_weight, up_bias, weight, bias } = *self;
        let (middle, all) = (up_bias.len(), weight.len() / bias.len() / TAPS);
        let mut kernels = [(); 4].map(|()| vec![0.0; bias.len() * below]);
        for tap in 0..TAPS {
            let [row, column] = [(phase / 2, tap / 3), (phase % 2, tap % 3)].map(|(of_phase, tap)| {
                // The tap reads a row above, at or below the pixel's own, which comes of the row below at half its number.
                let moved = of_phase + tap + 1;
                (moved / 2 - of_phase, moved % 2)
            });
            let corner = row.1 * 2 + column.1;
            let up: Vec<f32> =
                (0..middle * below).map(|at| up_weight[(at % below * middle + at / below) * 4 + corner]).collect();
            let kernel = &mut kernels[row.0 * 2 + column.0];
            for (out, sums) in kernel.chunks_exact_mut(below).enumerate() {
                for (channel, up) in up.chunks_exact(below).enumerate() {
                    let factor = weight[(out * all + channel) * TAPS + tap];
                    sums.iter_mut().zip(up).for_each(|(sum, up)| *sum += factor * up);
                }
            }
        }
        kernels
    }

    /// The bias of pixels of a phase: beyond an edge there is none of the transposed convolution.
    fn composed_bias(&self, phase: usize, at_edge: [bool; 2]) -> Vec<f32> {
        let Self { up_bias, weight, bias, .. } = *self;
        let all = weight.len() / bias.len() / TAPS;
        let is_beyond = |tap: usize, of_phase: usize, at_edge: bool| at_edge && tap == 2 * of_phase;
        let taps: Vec<usize> = (0..TAPS)
            .filter(|tap| !is_beyond(tap / 3, phase / 2, at_edge[0]) && !is_beyond(tap % 3, phase % 2, at_edge[1]))
            .collect();
        let of_taps = |out: usize, channel: usize| -> f32 {
            taps.iter().map(|tap| weight[(out * all + channel) * TAPS + tap]).sum()
        };
        let of_up = |out: usize| -> f32 {
            up_bias.iter().enumerate().map(|(channel, bias)| bias * of_taps(out, channel)).sum()
        };
        bias.iter().enumerate().map(|(out, bias)| bias + of_up(out)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_worked_out_by_hand() {
        assert_eq!(Steps::of_range([0.0, 2.55]), Steps { step: 2.55 / 255.0, zero: 0 });
        let Steps { step, zero } = Steps::of_range([-1.0, 4.1]);
        assert_eq!(zero, 50);
        assert!((step - 0.02).abs() < 1e-7);
        // A range without 0 is widened to it; a map of zeros alone has steps, too.
        assert_eq!(Steps::of_range([1.0, 5.1]).zero, 0);
        assert_eq!(Steps::of_range([-5.1, -1.0]).zero, 255);
        assert!(Steps::of_range([0.0, 0.0]).step > 0.0);
    }

    #[test]
    fn a_matrix_is_packed_in_quads_of_rows() {
        let packed = pack(8, 8, |row, column| (10 * column + row) as i8);
        assert_eq!(packed[..8], [0, 1, 2, 3, 10, 11, 12, 13]);
        assert_eq!(packed[32..40], [4, 5, 6, 7, 14, 15, 16, 17]);
    }

    #[test]
    fn weights_are_rounded_by_output_channel() {
        // One channel in, 8 out: the middle tap of channel n is n, the first one n / 2; channel 0 has none.
        let mut weight = vec![0.0; 8 * 9];
        for n in 0..8 {
            (weight[9 * n], weight[9 * n + 4]) = (n as f32 / 2.0, n as f32);
        }
        let input = Steps { step: 0.5, zero: 3 };
        let layer = quantise_convolution([&weight, &[1.0; 8]], input, 0.25);
        let at = |row: usize, n: usize| layer.weights[row / 4 * 32 + n * 4 + row % 4];
        assert_eq!([at(0, 0), at(16, 0)], [0, 0]);
        // Rows are taps of one channel and three of zeros: tap 4 begins at row 16.
        assert_eq!([at(0, 5), at(16, 5), at(1, 5)], [64, 127, 0]);
        // The weight 5 x 0.5 is 127 steps; a sum has steps of that size over 0.25.
        let step = 2.5 / 127.0;
        assert!((layer.scale[5] - step / 0.25).abs() < 1e-6);
        assert!((layer.bias[5] - (1.0 - step * 3.0 * 191.0) / 0.25).abs() < 1e-4);
        assert_eq!(layer.bias[0], 4.0);
    }
}
