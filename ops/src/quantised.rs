//! Layers in 8-bit integers: weights rounded to i8 and packed in the order in which the products of `int8` read them, with
//! what makes a layer's output of their sums. Plain Rust, for any processor.
//!
//! A map's element q, u8, means `(q - zero) step`. A layer multiplies q with weights that carry the step of their input, and
//! each output channel has a step of its own: the largest weight becomes 127 or -127 (Jacob et al., 2018,
//! <https://arxiv.org/abs/1712.05877>, but symmetric weights per channel). As the weights carry the input's step, each of its
//! channels may have one of its own. What the zero points add to a sum is a constant, which is taken off in the bias.

use crate::convolution::TAPS;
use crate::product::{FOLDED, tile_widths};
use crate::up_skip::{Composed, EDGES, PHASES, TAPS_BELOW, UpLayers};

/// Channels that an instruction multiplies and adds at once.
pub const QUAD: usize = 4;

/// What the upper half of a fine weight counts.
pub const FINE: i16 = 128;

/// How finely weights are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// To i8.
    Coarse,
    /// To 128 times as many steps, in two halves that are i8 each: for twice the multiplications.
    Fine,
}

impl Weights {
    /// Largest weight.
    fn most(self) -> i16 {
        match self {
            Self::Coarse => 127,
            Self::Fine => 127 * FINE,
        }
    }
}

/// The numbers that a map takes, by channel.
#[derive(Debug, Clone, PartialEq)]
pub struct MapRange {
    /// The smallest of all channels, 0 or less.
    pub low: f32,
    /// The largest of each channel, 0 or more; larger ones may occur, but rarely.
    pub high: Vec<f32>,
    /// The mean of each channel.
    pub mean: Vec<f32>,
}

/// What the elements of a map mean: `(q - zero) step`.
#[derive(Debug, Clone, PartialEq)]
pub struct Steps {
    /// Difference of neighbouring elements, above 0, of each channel.
    pub step: Vec<f32>,
    /// The element that means 0.
    pub zero: u8,
    /// Mean of q - zero of each channel.
    mean: Vec<f32>,
}

/// A channel's range is taken to be at least this share of the largest: in other photos it may be wider.
const LEAST_SHARE: f32 = 1.0 / 64.0;

impl Steps {
    /// Bytes of photos, 255 meaning 1.
    #[must_use]
    pub fn of_photos(channels: usize) -> Self {
        Self { step: vec![1.0 / 255.0; channels], zero: 0, mean: vec![0.0; channels] }
    }

    /// Numbers as they are: of a layer whose output is not quantised.
    #[must_use]
    pub fn ones(channels: usize) -> Self {
        Self { step: vec![1.0; channels], zero: 0, mean: vec![0.0; channels] }
    }

    /// Of a `ReLU`'s output, with a step of its own for each channel.
    #[must_use]
    pub fn by_channel(range: &MapRange) -> Self {
        let largest = range.high.iter().fold(f32::MIN_POSITIVE * 1e6, |largest, &it| largest.max(it));
        let step: Vec<f32> = range.high.iter().map(|&it| it.max(largest * LEAST_SHARE) / 255.0).collect();
        let mean = range.mean.iter().zip(&step).map(|(mean, step)| mean / step).collect();
        Self { step, zero: 0, mean }
    }

    /// With the same step for all channels: 0 is exact, numbers beyond the range become its ends.
    #[must_use]
    pub fn of_map(range: &MapRange) -> Self {
        let (low, high) = (range.low.min(0.0), range.high.iter().fold(0.0_f32, |largest, &it| largest.max(it)));
        let step = ((high - low) / 255.0).max(f32::MIN_POSITIVE * 1e6);
        let mean = range.mean.iter().map(|it| it / step).collect();
        Self { step: vec![step; range.high.len()], zero: (-low / step).round() as u8, mean }
    }
}

/// A layer's weights, packed, and what makes its output of their sums: `max(0, scale sum + bias)`.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantisedLayer {
    /// See [`pack`] and [`pack_fine`]; of several matrices one after the other.
    pub weights: Vec<i8>,
    /// `[out]`, or `[phases, out]`.
    pub scale: Vec<f32>,
    /// `[out]`, or `[phases, row at an edge, column at an edge, out]`.
    pub bias: Vec<f32>,
}

/// Packs a matrix of `depth` rows and `outputs` columns, multiples of 8, whose element in row k and column n is
/// `element(k, n)`: tile by tile of columns, `[depth / 4, width, 4]` each; `[depth / 8, 8, 8]` of 8 columns, which come in the
/// order 0, 1, 4, 5, 2, 3, 6, 7.
#[must_use]
pub fn pack(depth: usize, outputs: usize, element: impl Fn(usize, usize) -> i8) -> Vec<i8> {
    assert!(depth.is_multiple_of(2 * QUAD) && outputs.is_multiple_of(8));
    let mut packed = Vec::with_capacity(depth * outputs);
    let mut first = 0;
    for width in tile_widths(true, outputs) {
        let (rows, columns) =
            if width == 8 { (2 * QUAD, FOLDED.to_vec()) } else { (QUAD, (0..width).collect::<Vec<_>>()) };
        for top in (0..depth).step_by(rows) {
            for column in &columns {
                packed.extend((top..top + rows).map(|row| element(row, first + column)));
            }
        }
        first += width;
    }
    packed
}

/// As [`pack`], weights of 16 bits as upper and lower halves, `FINE upper + lower`: `[depth / 4, 2, 8, 4]` for each 8 columns.
#[must_use]
pub fn pack_fine(depth: usize, outputs: usize, element: impl Fn(usize, usize) -> i16) -> Vec<i8> {
    assert!(depth.is_multiple_of(QUAD) && outputs.is_multiple_of(8));
    let upper = |weight: i16| (weight + FINE / 2).div_euclid(FINE);
    let halves: [&dyn Fn(i16) -> i16; 2] = [&upper, &|weight| weight - FINE * upper(weight)];
    let mut packed = Vec::with_capacity(2 * depth * outputs);
    for first in (0..outputs).step_by(8) {
        for quad in (0..depth).step_by(QUAD) {
            for half in halves {
                for column in first..first + 8 {
                    packed.extend((quad..quad + QUAD).map(|row| half(element(row, column)) as i8));
                }
            }
        }
    }
    packed
}

/// Channels of maps as the products read them.
#[must_use]
pub fn held_channels(channels: usize) -> usize {
    channels.next_multiple_of(2 * QUAD)
}

/// A 3x3 convolution, `weight` `[out, channels, 3, 3]`, of maps with `input` steps, whose output has these steps.
#[must_use]
pub fn quantise_convolution([weight, bias]: [&[f32]; 2], input: &Steps, output: &Steps) -> QuantisedLayer {
    let out = bias.len();
    let channels = input.step.len();
    assert_eq!(weight.len(), out * channels * TAPS);
    let parts = [Part { taps: TAPS, of: input }];
    let element = |_, tap: usize, channel: usize, column: usize| weight[(column * channels + channel) * TAPS + tap];
    let Matrix { weights, scale, offset } = Matrix::new(&parts, element, output, Weights::Coarse);
    QuantisedLayer { weights, scale, bias: biases(bias, &offset, output).collect() }
}

/// The biases in the unit of the output, with the offsets.
fn biases<'a>(bias: &'a [f32], offset: &'a [f32], output: &'a Steps) -> impl Iterator<Item = f32> + 'a {
    bias.iter().zip(&output.step).zip(offset).map(|((bias, step), offset)| bias / step + offset)
}

/// Rows of a matrix of weights, `[taps, held channels]`: those that multiply one map.
struct Part<'a> {
    taps: usize,
    of: &'a Steps,
}

impl Part<'_> {
    fn held(&self) -> usize {
        held_channels(self.of.step.len())
    }
}

/// A matrix of weights, and what makes an output of its sums.
struct Matrix {
    weights: Vec<i8>,
    scale: Vec<f32>,
    /// Takes off what the zero points add, and what rounded weights add on average.
    offset: Vec<f32>,
}

impl Matrix {
    /// Rounds the weights of several maps, `element(map, tap, channel, output)`.
    fn new(
        parts: &[Part<'_>],
        element: impl Fn(usize, usize, usize, usize) -> f32,
        output: &Steps,
        how: Weights,
    ) -> Self {
        let depth = parts.iter().map(|it| it.taps * it.held()).sum();
        let outputs = output.step.len();
        let mut rounded = vec![0; depth * outputs];
        let (mut scale, mut offset) = (Vec::with_capacity(outputs), Vec::with_capacity(outputs));
        for (column, rounded) in rounded.chunks_exact_mut(depth).enumerate() {
            let weight = |map: usize, tap, channel| element(map, tap, channel, column) * parts[map].of.step[channel];
            let mut largest = 0.0_f32;
            for (map, part) in parts.iter().enumerate() {
                let taps = (0..part.taps).flat_map(|tap| (0..part.of.step.len()).map(move |channel| (tap, channel)));
                largest = taps.fold(largest, |largest, (tap, channel)| largest.max(weight(map, tap, channel).abs()));
            }
            let step = if largest > 0.0 { largest / f32::from(how.most()) } else { 1.0 };
            let mut rest = rounded;
            let mut added = 0.0;
            for (map, part) in parts.iter().enumerate() {
                let (own, others) = rest.split_at_mut(part.taps * part.held());
                rest = others;
                added += part.round(own, how.most(), |tap, channel| weight(map, tap, channel) / step);
            }
            let unit = f64::from(step) / f64::from(output.step[column]);
            scale.push(unit as f32);
            offset.push(-(unit * added) as f32);
        }
        let element = |row: usize, column: usize| rounded[column * depth + row];
        let weights = match how {
            Weights::Coarse => pack(depth, outputs, |row, column| element(row, column) as i8),
            Weights::Fine => pack_fine(depth, outputs, element),
        };
        Self { weights, scale, offset }
    }
}

impl Part<'_> {
    /// Rounds weights to `[taps, held channels]`; returns what their sums have too much on average.
    ///
    /// What is rounded off a tap is carried to the channel's next one: the elements that the taps of a channel read are
    /// mostly much the same, so that the rounding errors cancel out. What is left of them adds the channel's mean on average.
    fn round(&self, rounded: &mut [i16], most: i16, weight: impl Fn(usize, usize) -> f32) -> f64 {
        let most = f32::from(most);
        let mut added = 0.0;
        for (channel, mean) in self.of.mean.iter().enumerate() {
            let mut carried = 0.0;
            for tap in 0..self.taps {
                let wanted = weight(tap, channel) + carried;
                let nearest = wanted.round().clamp(-most, most);
                carried = wanted - nearest;
                rounded[tap * self.held() + channel] = nearest as i16;
                added += f64::from(nearest) * f64::from(self.of.zero);
            }
            added -= f64::from(carried) * f64::from(*mean);
        }
        added
    }
}

/// The two layers as one, of maps below and those of the skip connection with their steps; as [`quantise_convolution`].
#[must_use]
pub fn quantise_up(layers: UpLayers<'_>, [below, skip]: [&Steps; 2], output: &Steps, how: Weights) -> QuantisedLayer {
    let parts = [Part { taps: TAPS_BELOW, of: below }, Part { taps: TAPS, of: skip }];
    let out = output.step.len();
    let Composed { weights: composed, bias } = layers.composed();
    let mut layer = QuantisedLayer { weights: Vec::new(), scale: Vec::new(), bias: Vec::new() };
    for (matrix, bias) in composed.chunks_exact(composed.len() / PHASES).zip(bias.chunks_exact(EDGES * out)) {
        let first_of = [0, TAPS_BELOW * below.step.len()];
        let element = |map: usize, tap: usize, channel: usize, column: usize| {
            matrix[(first_of[map] + tap * parts[map].of.step.len() + channel) * out + column]
        };
        let Matrix { weights, scale, offset } = Matrix::new(&parts, element, output, how);
        layer.bias.extend(bias.chunks_exact(out).flat_map(|bias| biases(bias, &offset, output)));
        layer.weights.extend(weights);
        layer.scale.extend(scale);
    }
    layer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(low: f32, high: &[f32], mean: &[f32]) -> MapRange {
        MapRange { low, high: high.to_vec(), mean: mean.to_vec() }
    }

    #[test]
    fn steps_are_those_worked_out_by_hand() {
        let of_map = Steps::of_map(&range(-1.0, &[4.1, 0.5], &[0.2, 0.0]));
        assert_eq!(of_map.zero, 50);
        assert!(of_map.step.iter().all(|it| (it - 0.02).abs() < 1e-7));
        assert!((of_map.mean[0] - 10.0).abs() < 1e-4);
        let by_channel = Steps::by_channel(&range(0.0, &[2.55, 5.1, 0.0], &[0.0, 1.0, 0.0]));
        let expected = [0.01, 0.02, 0.02 / 64.0];
        assert!(by_channel.step.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-7));
        assert!(by_channel.zero == 0 && (by_channel.mean[1] - 50.0).abs() < 1e-3);
        // A map of zeros alone has steps, too.
        let zeros = range(0.0, &[0.0], &[0.0]);
        assert!([Steps::of_map(&zeros), Steps::by_channel(&zeros)].iter().all(|it| it.step[0] > 0.0));
    }

    #[test]
    fn a_matrix_is_packed_in_quads_of_rows() {
        let packed = pack(8, 24, |row, column| (10 * (column % 12) + row) as i8);
        assert_eq!(packed[..8], [0, 1, 2, 3, 10, 11, 12, 13]);
        assert_eq!(packed[64..72], [4, 5, 6, 7, 14, 15, 16, 17]);
        // Two quads of each of the last 8 columns, 16 to 23, the third of which is 20.
        assert_eq!(packed[128..136], [40, 41, 42, 43, 44, 45, 46, 47]);
        assert_eq!(packed[144..152], [80, 81, 82, 83, 84, 85, 86, 87]);
    }

    #[test]
    fn fine_weights_are_two_halves() {
        let weights = [0, 63, 64, -64, -65, 16_256, -16_256, 1000];
        let packed = pack_fine(4, 8, |row, column| if row == 0 { weights[column] } else { 0 });
        let halves: Vec<[i8; 2]> = (0..8).map(|column| [packed[4 * column], packed[32 + 4 * column]]).collect();
        assert_eq!(halves, [[0, 0], [0, 63], [1, -64], [0, -64], [-1, 63], [127, 0], [-127, 0], [8, -24]]);
    }

    #[test]
    fn weights_are_rounded_by_output_channel() {
        // One channel in, 8 out: of channel 5 the middle tap is 254 and the first one 127, the others have none.
        let mut weight = vec![0.0; 8 * 9];
        (weight[9 * 5], weight[9 * 5 + 4]) = (127.0, 254.0);
        let input = Steps { step: vec![0.5], zero: 3, mean: vec![10.0] };
        let output = Steps { step: vec![0.25; 8], zero: 0, mean: vec![0.0; 8] };
        let layer = quantise_convolution([&weight, &[1.0; 8]], &input, &output);
        // Rows are taps of one channel and seven of zeros.
        let taps = |n: usize| [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|tap| layer.weights[tap * 64 + FOLDED[n] * 8]);
        assert_eq!(taps(0), [0; 9]);
        // The weights are 63.5 and 127 steps of 1. 63.5 becomes 64; the next tap has half a step less then, becomes -1 and
        // leaves half a step more, and so on; beyond 127 nothing fits.
        assert_eq!(taps(5), [64, -1, 1, -1, 127, 1, -1, 1, -1]);
        assert_eq!(layer.scale[5], 1.0 / 0.25);
        // On average a sum has its weights, 190, times the zero point too much, and the mean half a time too little.
        assert_eq!(layer.bias[5], (1.0 - 190.0 * 3.0 + 0.5 * 10.0) / 0.25);
        assert_eq!(layer.bias[0], 4.0);
    }
}
