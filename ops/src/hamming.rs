//! Pairs of numbers that differ in few bits.

use super::Instructions;
use super::simd::{Job, Simd};

/// Numbers that are compared together, without a branch: as many as a vector of AVX-512 holds.
const AT_ONCE: usize = 8;

/// Calls `found` with the positions of every pair of one of `left` and one of `right` that differ in at most `most` bits, and
/// with the number of these.
pub fn near(
    instructions: Instructions,
    left: &[u64],
    right: &[u64],
    most: u32,
    found: &mut dyn FnMut(usize, usize, u32),
) {
    instructions.run(Near { left, right, most, found });
}

struct Near<'a> {
    left: &'a [u64],
    right: &'a [u64],
    most: u32,
    found: &'a mut dyn FnMut(usize, usize, u32),
}

impl Job for Near<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        for (at, &number) in self.right.iter().enumerate() {
            let (groups, rest) = self.left.as_chunks::<AT_ONCE>();
            for (group, numbers) in groups.iter().enumerate() {
                // Without a branch, so that the compiler makes vectors of it.
                let is_near = numbers.iter().fold(false, |any, it| any | ((it ^ number).count_ones() <= self.most));
                if is_near {
                    self.report(group * AT_ONCE, numbers, at, number);
                }
            }
            self.report(groups.len() * AT_ONCE, rest, at, number);
        }
    }
}

impl Near<'_> {
    #[inline(always)]
    fn report(&mut self, first: usize, numbers: &[u64], at: usize, number: u64) {
        for (place, it) in numbers.iter().enumerate() {
            let bits = (it ^ number).count_ones();
            if bits <= self.most {
                (self.found)(first + place, at, bits);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_finds_the_same_pairs() {
        // Steps of a Weyl sequence, and each once more with bits flipped.
        let left: Vec<u64> = (0..35u64).map(|it| it.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let right: Vec<u64> = left.iter().enumerate().map(|(at, it)| it ^ ((1 << (at % 7)) - 1)).collect();
        for (most, count) in [(0, 5), (3, 20), (64, 35 * 35)] {
            let mut expected = Vec::new();
            for (at, number) in right.iter().enumerate() {
                let bits = left.iter().map(|it| (it ^ number).count_ones()).enumerate();
                expected.extend(bits.filter(|(_, bits)| *bits <= most).map(|(place, bits)| (place, at, bits)));
            }
            assert_eq!(expected.len(), count);
            for instructions in Instructions::available() {
                let mut pairs = Vec::new();
                near(instructions, &left, &right, most, &mut |place, at, bits| pairs.push((place, at, bits)));
                assert_eq!(pairs, expected, "{instructions}");
            }
        }
    }
}
