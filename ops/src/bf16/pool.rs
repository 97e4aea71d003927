//! 2x2 max-pooling of maps whose elements are whole numbers, or ordered as their bits are: bf16, and u8.

use super::token::Avx512Bf16;
use crate::Spread;
use crate::maps::{Band, Shape, cut};
use crate::pool::pooled_shape;
use crate::spread::spread_items;

/// [`max_pool`](crate::pool::max_pool) on bf16 maps without negative elements, whose order is that of their bits.
pub fn bf16_max_pool(token: Avx512Bf16, spread: &dyn Spread, shape: Shape, input: &[u16], output: &mut [u16]) {
    max_pool_of_bits(token, spread, shape, input, output);
}

/// The largest element of each 2x2 window; `shape` is the input's.
pub(crate) fn max_pool_of_bits<T: Copy + Ord + Send + Sync>(
    _: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    input: &[T],
    output: &mut [T],
) {
    let pooled = pooled_shape(shape);
    assert!(shape.rows.is_multiple_of(2) && shape.columns.is_multiple_of(2));
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
fn pool_row<T: Copy + Ord>(rows: &[T], channels: usize, output: &mut [T]) {
    let (upper, lower) = rows.split_at(rows.len() / 2);
    let windows = upper.chunks_exact(2 * channels).zip(lower.chunks_exact(2 * channels));
    for (output, (upper, lower)) in output.chunks_exact_mut(channels).zip(windows) {
        for (channels, output) in (0..).step_by(8).zip(output.as_chunks_mut::<8>().0) {
            let corner = |of: &[T], at: usize| -> [T; 8] { of[at..at + 8].try_into().expect("it is 8 long") };
            let right = upper.len() / 2 + channels;
            let corners =
                [corner(upper, channels), corner(upper, right), corner(lower, channels), corner(lower, right)];
            *output = std::array::from_fn(|at| corners.iter().map(|it| it[at]).max().expect("there are four"));
        }
    }
}
