//! [`crate::up_skip`] on u8 maps: there are no maps between the two layers that would have to be quantised.

use super::parameters::Avx512Vnni;
use super::row::{Output, Row};
use crate::Spread;
use crate::element::Element;
use crate::lines::each_line;
use crate::maps::Shape;
use crate::up_skip::{EDGES, PHASES};

/// Weights of the layer, and what makes its output of their sums.
#[derive(Debug, Clone, Copy)]
pub struct UpSkipParameters<'a> {
    /// The matrices of [`Composed`](crate::up_skip::Composed), each packed.
    pub weights: &'a [i8],
    /// `[phases, out]`.
    pub scale: &'a [f32],
    /// As that of [`Composed`](crate::up_skip::Composed).
    pub bias: &'a [f32],
}

/// [`bf16_up_skip_convolution`](crate::bf16::bf16_up_skip_convolution) on u8 maps, each with its zero point.
#[inline(never)]
pub fn int8_up_skip_convolution(
    token: Avx512Vnni,
    spread: &dyn Spread,
    shape: Shape,
    inputs: [(&[u8], u8); 2],
    parameters: UpSkipParameters<'_>,
    output: Output<'_>,
) {
    match output {
        Output::U8(output) => convolve(token, spread, shape, inputs, parameters, output),
        Output::Bf16(output) => convolve(token, spread, shape, inputs, parameters, output),
        Output::F32(output) => convolve(token, spread, shape, inputs, parameters, output),
    }
}

fn convolve<E: Element>(
    token: Avx512Vnni,
    spread: &dyn Spread,
    shape: Shape,
    [below, skip]: [(&[u8], u8); 2],
    parameters: UpSkipParameters<'_>,
    output: &mut [E],
) {
    let UpSkipParameters { weights, scale, bias } = parameters;
    let (out, matrix) = (scale.len() / PHASES, weights.len() / PHASES);
    assert_eq!(bias.len(), PHASES * EDGES * out);
    each_line(spread, shape, [below, skip], bias, output, |line, output| {
        let (sources, bias) = (&line.sources, line.bias);
        let (weights, scale) = (&weights[line.phase * matrix..][..matrix], &scale[line.phase * out..][..out]);
        Row { token, sources, weights, scale, bias, pixels: shape.columns, gap: out }.product(output);
    });
}
