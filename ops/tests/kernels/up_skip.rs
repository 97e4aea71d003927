//! A transposed convolution and the convolution after it as one layer: that its weights are those of the two of them, at the edges
//! too; that it computes with them what is defined, in bf16; and that it stays within its buffers.

use lookbook_ops::Shape;
use lookbook_ops::up::up_shape;
use lookbook_ops::up_skip::{Composed, EDGES, PHASES, UpLayers};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::definitions::{SIZES, assert_close, random};

/// Channels below, in the middle, of the skip connection, of the output.
const CHANNELS: [[usize; 4]; 4] = [[8, 8, 8, 8], [32, 16, 16, 16], [24, 40, 16, 32], [64, 16, 24, 96]];

/// Parameters of the two layers.
struct Layers {
    up_weight: Vec<f32>,
    up_bias: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Layers {
    fn random(rng: &mut ChaCha8Rng, [below, middle, skip, out]: [usize; 4]) -> Self {
        Self {
            up_weight: random(rng, below * middle * 4),
            up_bias: random(rng, middle),
            weight: random(rng, out * (middle + skip) * 9),
            bias: random(rng, out),
        }
    }

    fn borrowed(&self) -> UpLayers<'_> {
        let Self { up_weight, up_bias, weight, bias } = self;
        UpLayers { up_weight, up_bias, weight, bias }
    }

    /// One layer after the other, by their definitions, in f64.
    fn by_definition(&self, shape: Shape, skip_channels: usize, [below, skip]: [&[f32]; 2]) -> Vec<f64> {
        let (middle, out) = (self.up_bias.len(), self.bias.len());
        let (all, channels) = (middle + skip_channels, shape.channels);
        let [rows, columns] = [2 * shape.rows, 2 * shape.columns];
        let mut inputs = vec![0.0; shape.batch * rows * columns * all];
        for (pixel, inputs) in inputs.chunks_exact_mut(all).enumerate() {
            let [photo, row, column] = [pixel / columns / rows, pixel / columns % rows, pixel % columns];
            let below = &below[((photo * shape.rows + row / 2) * shape.columns + column / 2) * channels..][..channels];
            let (of_up, of_skip) = inputs.split_at_mut(middle);
            for (n, input) in of_up.iter_mut().enumerate() {
                let corner = row % 2 * 2 + column % 2;
                let weights =
                    below.iter().enumerate().map(|(k, it)| (it, self.up_weight[(k * middle + n) * 4 + corner]));
                let products = weights.map(|(it, weight)| f64::from(*it) * f64::from(weight));
                *input = f64::from(self.up_bias[n]) + products.sum::<f64>();
            }
            for (input, own) in of_skip.iter_mut().zip(&skip[pixel * skip_channels..]) {
                *input = f64::from(*own);
            }
        }
        let mut outputs = Vec::new();
        for (pixel, n) in (0..shape.batch * rows * columns).flat_map(|pixel| (0..out).map(move |n| (pixel, n))) {
            let [photo, row, column] = [pixel / columns / rows, pixel / columns % rows, pixel % columns];
            let mut sum = f64::from(self.bias[n]);
            for tap in 0..9 {
                let [row, column] = [(row + tap / 3).wrapping_sub(1), (column + tap % 3).wrapping_sub(1)];
                if row < rows && column < columns {
                    let inputs = &inputs[((photo * rows + row) * columns + column) * all..][..all];
                    let weights = inputs.iter().enumerate().map(|(k, it)| (it, self.weight[(n * all + k) * 9 + tap]));
                    sum += weights.map(|(it, weight)| it * f64::from(weight)).sum::<f64>();
                }
            }
            outputs.push(sum.max(0.0));
        }
        outputs
    }
}

/// The layer of composed weights by its definition, in f64.
fn composed_by_definition(
    shape: Shape,
    skip_channels: usize,
    [below, skip]: [&[f32]; 2],
    [weights, bias]: [&[f32]; 2],
) -> Vec<f64> {
    let (channels, out) = (shape.channels, bias.len() / PHASES / EDGES);
    let [rows, columns] = [2 * shape.rows, 2 * shape.columns];
    let mut outputs = Vec::new();
    for (pixel, n) in (0..shape.batch * rows * columns).flat_map(|pixel| (0..out).map(move |n| (pixel, n))) {
        let [photo, row, column] = [pixel / columns / rows, pixel / columns % rows, pixel % columns];
        let phase = row % 2 * 2 + column % 2;
        let [row_at_edge, column_at_edge] = [(row, rows), (column, columns)].map(|(at, end)| at == 0 || at == end - 1);
        let edge = usize::from(row_at_edge) * 2 + usize::from(column_at_edge);
        let mut sum = f64::from(bias[(phase * EDGES + edge) * out + n]);
        let mut weights = weights[phase * weights.len() / PHASES..].iter().skip(n).step_by(out);
        let mut add = |maps: &[f32], [row, column]: [usize; 2], size: [usize; 2], channels: usize| {
            let is_inside = row < size[0] && column < size[1];
            let start = is_inside.then(|| ((photo * size[0] + row) * size[1] + column) * channels);
            for (channel, weight) in weights.by_ref().take(channels).enumerate() {
                sum += start.map_or(0.0, |start| f64::from(maps[start + channel]) * f64::from(*weight));
            }
        };
        for tap in 0..4 {
            let at = [row.div_ceil(2) + tap / 2, column.div_ceil(2) + tap % 2].map(|it| it.wrapping_sub(1));
            add(below, at, [shape.rows, shape.columns], channels);
        }
        for tap in 0..9 {
            let at = [row + tap / 3, column + tap % 3].map(|it| it.wrapping_sub(1));
            add(skip, at, [rows, columns], skip_channels);
        }
        outputs.push(sum.max(0.0));
    }
    outputs
}

#[test]
fn the_composed_weights_are_those_of_the_two_layers() {
    for ([batch, rows, columns], widths) in SIZES.into_iter().flat_map(|size| CHANNELS.map(|it| (size, it))) {
        let [channels, _, skip_channels, out] = widths;
        let shape = Shape { batch, rows, columns, channels };
        let mut rng = ChaCha8Rng::seed_from_u64((shape.len() + out) as u64);
        let layers = Layers::random(&mut rng, widths);
        let [below, skip] = [shape.len(), up_shape(shape, skip_channels).len()].map(|len| random(&mut rng, len));
        let expected = layers.by_definition(shape, skip_channels, [&below, &skip]);
        let Composed { weights, bias } = layers.borrowed().composed();
        let found = composed_by_definition(shape, skip_channels, [&below, &skip], [&weights, &bias]);
        let found: Vec<f32> = found.into_iter().map(|it| it as f32).collect();
        assert_close(&format!("{shape:?}, {widths:?}"), &found, &expected);
    }
}

#[test]
fn layers_are_one_where_that_saves_a_tenth() {
    // Below, in the middle, of the skip connection, of the output: 317 and 293, 130 and 84 thousand multiplications a pixel.
    for (widths, expected) in [([320, 128, 112, 128], false), ([128, 96, 40, 96], true)] {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        assert_eq!(Layers::random(&mut rng, widths).borrowed().are_fewer_as_one(), expected, "{widths:?}");
    }
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod of_bf16 {
    use lookbook_ops::Rayon;
    use lookbook_ops::bf16::bf16_up_skip_convolution;
    use lookbook_ops::up_skip::depth;

    use super::*;
    use crate::bounds;
    use crate::definitions::of_bf16::{assert_same_place, bits, exact, token};
    use crate::guarded::{Guard, Guarded};

    #[test]
    fn the_layer_is_as_defined() {
        let Some(token) = token() else { return };
        for ([batch, rows, columns], widths) in SIZES.into_iter().flat_map(|size| CHANNELS.map(|it| (size, it))) {
            let [channels, _, skip_channels, out] = widths;
            let shape = Shape { batch, rows, columns, channels };
            let mut rng = ChaCha8Rng::seed_from_u64((shape.len() + out) as u64);
            let [below, skip] = [shape.len(), up_shape(shape, skip_channels).len()].map(|len| exact(&mut rng, len));
            let weights = exact(&mut rng, PHASES * depth(channels, skip_channels) * out);
            let bias = random(&mut rng, PHASES * EDGES * out);
            let expected = composed_by_definition(shape, skip_channels, [&below, &skip], [&weights, &bias]);
            let expected: Vec<f32> = expected.into_iter().map(|it| it as f32).collect();
            let mut found = vec![0; expected.len()];
            let halves = [&below, &skip].map(|it| bits(it));
            let maps = halves.each_ref().map(|it| &it[..]);
            bf16_up_skip_convolution(token, &Rayon, shape, maps, [&weights, &bias], &mut found);
            assert_same_place(&format!("{shape:?}, {widths:?}"), &found, &expected);
        }
    }

    #[test]
    fn the_layer_stays_within_its_buffers() {
        let Some(token) = token() else { return };
        for (guard, [below, _, skip, out]) in Guard::BOTH.into_iter().flat_map(|guard| CHANNELS.map(|it| (guard, it))) {
            for shape in bounds::shapes(below) {
                let maps =
                    [shape.len(), up_shape(shape, skip).len()].map(|len| Guarded::new(&vec![0x3f80; len], guard));
                let weights = [PHASES * depth(below, skip) * out, PHASES * EDGES * out];
                let weights = weights.map(|len| Guarded::new(&vec![1.0; len], guard));
                let mut output = Guarded::new(&vec![0xffff; up_shape(shape, out).len()], guard);
                let (maps, weights) = ([&maps[0][..], &maps[1]], [&weights[0][..], &weights[1]]);
                bf16_up_skip_convolution(token, &bounds::ThreadATask, shape, maps, weights, &mut output);
                assert!(output.iter().all(|&it| it != 0xffff), "{shape:?}");
            }
        }
    }
}
