//! [`crate::inverted`] on bf16 maps.

use super::product::{PackedPairs, Row};
use super::token::Avx512Bf16;
use crate::activation::Finish;
use crate::inverted::{Inverted, InvertedParameters};
use crate::maps::Source;
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
    let inner = block.depthwise.shape.channels;
    let packed = |[weight, bias]: [&[f32]; 2], channels: usize| {
        assert_eq!(weight.len(), channels * bias.len());
        let rows: Vec<Option<usize>> = (0..channels).map(Some).collect();
        let columns: Vec<usize> = (0..bias.len()).map(|n| n * channels).collect();
        PackedPairs::new(token, weight, 1.0, &rows, [&columns, &[]])
    };
    let product = |maps: &[u16], (weights, bias): (&PackedPairs, &[f32]), finish: Finish<'_, u16>, to: &mut [u16]| {
        let channels = maps.len() * bias.len() / to.len();
        let sources = &[Source { elements: maps, stride: channels, run: channels }];
        let pixels = to.len() / bias.len();
        Row { token, sources, weights, bias: bias.into(), pixels, finish, gap: 0 }.product([to, &mut []]);
    };
    let expand = parameters.expand.map(|it| {
        let weights = packed(it, block.channels);
        move |row: &[u16], finish: Finish<'_, u16>, to: &mut [u16]| product(row, (&weights, it[1]), finish, to)
    });
    let project = packed(parameters.project, inner);
    block.by_rows(
        Workers { instructions: token.instructions(), spread },
        input,
        parameters.depthwise,
        expand.as_ref(),
        |row, finish, to| product(row, (&project, parameters.project[1]), finish, to),
        output,
    );
}
