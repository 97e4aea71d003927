//! [`crate::inverted`] on bf16 maps.

use super::pointwise::{multiply, packed};
use super::token::Avx512Bf16;
use crate::activation::Finish;
use crate::inverted::{Inverted, InvertedParameters};
use crate::{Spread, Workers};

/// [`Inverted::forward`] on bf16 maps.
pub fn bf16_inverted(
    token: Avx512Bf16,
    spread: &dyn Spread,
    block: &Inverted,
    input: &[u16],
    parameters: InvertedParameters<'_>,
    output: &mut [u16],
) {
    let expand = parameters.expand.map(|[weight, bias]| {
        let weights = packed(token, weight, [block.channels, bias.len()]);
        move |row: &[u16], finish: Finish<'_, u16>, to: &mut [u16]| multiply(token, row, (&weights, bias), finish, to)
    });
    let [weight, bias] = parameters.project;
    let project = packed(token, weight, [block.depthwise.shape.channels, bias.len()]);
    block.by_rows(
        Workers { instructions: token.instructions(), spread },
        input,
        parameters.depthwise,
        expand.as_ref(),
        |row, finish, to| multiply(token, row, (&project, bias), finish, to),
        output,
    );
}
