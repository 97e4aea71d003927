//! 2x2 max-pooling of bf16 maps.

use super::token::Avx512Bf16;
use crate::Spread;
use crate::maps::{Band, Shape, cut};
use crate::pool::pooled_shape;
use crate::spread::spread_items;

/// [`max_pool`](crate::pool::max_pool) on bf16 maps without negative elements, whose order is that of their bits.
pub fn bf16_max_pool(_: Avx512Bf16, spread: &dyn Spread, shape: Shape, input: &[u16], output: &mut [u16]) {
    let pooled = pooled_shape(shape);
    assert!(input.len() == shape.len() && output.len() == pooled.len());
    let windows = pooled.with_channels(4 * pooled.channels);
    let bands = Band::all(pooled, spread.threads());
    spread_items(spread, cut(&bands, pooled, output), |index, part| {
        let rows = bands[index].of(windows, input).chunks_exact(2 * shape.row_len());
        for (rows, output) in rows.zip(part.chunks_exact_mut(pooled.row_len())) {
            // SAFETY: the token proves that the processor has the instructions.
            unsafe { pool_row(rows, shape.channels, output) }
        }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn pool_row(rows: &[u16], channels: usize, output: &mut [u16]) {
    let (upper, lower) = rows.split_at(rows.len() / 2);
    let windows = upper.chunks_exact(2 * channels).zip(lower.chunks_exact(2 * channels));
    for (output, (upper, lower)) in output.chunks_exact_mut(channels).zip(windows) {
        for (channels, output) in (0..).step_by(8).zip(output.as_chunks_mut::<8>().0) {
            let corner = |of: &[u16], at: usize| -> [u16; 8] { of[at..at + 8].try_into().expect("it is 8 long") };
            let right = upper.len() / 2 + channels;
            let corners =
                [corner(upper, channels), corner(upper, right), corner(lower, channels), corner(lower, right)];
            *output = std::array::from_fn(|at| corners.iter().map(|it| it[at]).max().expect("there are four"));
        }
    }
}
