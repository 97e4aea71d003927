//! [`crate::up_skip`] on bf16 maps.

use super::product::{PackedPairs, Row};
use super::token::Avx512Bf16;
use crate::Spread;
use crate::activation::{Activation, Finish};
use crate::lines::each_line;
use crate::maps::Shape;
use crate::up_skip::{EDGES, PHASES};

/// Computes the layer, with `ReLU`, of maps below, `[batch, rows, columns, channels]`, and those of the skip connection,
/// `[batch, 2 rows, 2 columns, any channels]`; `output` is `[batch, 2 rows, 2 columns, out]`.
///
/// `shape` is that of the maps below; weight and bias are those of [`Composed`](crate::up_skip::Composed).
pub fn bf16_up_skip_convolution(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    [below, skip]: [&[u16]; 2],
    [weight, bias]: [&[f32]; 2],
    output: &mut [u16],
) {
    let out = bias.len() / PHASES / EDGES;
    let columns: Vec<usize> = (0..out).collect();
    let matrices = weight.chunks_exact(weight.len() / PHASES);
    let packed: Vec<PackedPairs> = matrices
        .map(|tensor| {
            let rows: Vec<Option<usize>> = (0..tensor.len() / out).map(|k| Some(k * out)).collect();
            PackedPairs::new(token, tensor, 1.0, &rows, [&columns, &[]])
        })
        .collect();
    let finish = Finish::Output { activation: Activation::Relu, residual: None };
    each_line(spread, shape, [(below, 0), (skip, 0)], bias, output, |line, output| {
        let (sources, weights, bias) = (&line.sources, &packed[line.phase], line.bias);
        Row { token, sources, weights, bias, pixels: shape.columns, finish, gap: out }.product([output, &mut []]);
    });
}
