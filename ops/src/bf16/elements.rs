//! Sums and rounding of bf16 maps, element by element.

use super::token::{Avx512Bf16, rounded};
use crate::Spread;
use crate::maps::{Band, Shape, cut};
use crate::simd::{Job, Simd, Stored, Vector};
use crate::spread::spread_items;

/// The sum of two maps, whose channels are multiples of 8, rounded to bf16.
pub fn bf16_add(token: Avx512Bf16, spread: &dyn Spread, shape: Shape, summands: [&[u16]; 2], output: &mut [u16]) {
    assert!(summands.iter().all(|it| it.len() == shape.len()) && output.len() == shape.len());
    let bands = Band::all(shape, spread.threads());
    spread_items(spread, cut(&bands, shape, output), |index, output| {
        let summands = summands.map(|it| bands[index].of(shape, it));
        token.instructions().run(Add { summands, output });
    });
}

struct Add<'a> {
    summands: [&'a [u16]; 2],
    output: &'a mut [u16],
}

impl Job for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let lanes = S::Eight::LANES;
        let [first, second] = self.summands.map(|it| it.chunks_exact(lanes));
        for ((first, second), output) in first.zip(second).zip(self.output.chunks_exact_mut(lanes)) {
            let first: S::Eight = u16::of(simd.eight(), first);
            u16::put(first.plus(u16::of(simd.eight(), second)), output);
        }
    }
}

/// The nearest bf16 of each number, ties to even.
pub fn bf16_round(numbers: &[f32], output: &mut [u16]) {
    assert_eq!(numbers.len(), output.len());
    output.iter_mut().zip(numbers).for_each(|(output, &number)| *output = rounded(number));
}
