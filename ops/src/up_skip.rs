//! A transposed convolution with a 2x2 kernel and stride 2, a skip connection beside it and a 3x3 convolution over both, as
//! one layer: both convolutions are linear, so each of the four pixels that come of one below, its phases, is a sum over 2x2
//! pixels below and 3x3 of the skip connection. There are fewer multiplications than in two steps, and no maps between them.

use super::convolution::TAPS;

/// Pixels that come of one below: (0, 0), (0, 1), (1, 0), (1, 1) of rows and columns.
pub const PHASES: usize = 4;

/// Biases of a phase: whether its row and its column are at an edge of the maps.
pub const EDGES: usize = 4;

/// Pixels below that one of a phase reads.
pub(super) const TAPS_BELOW: usize = 4;

/// Rows of a phase's matrix, for so many channels below and of the skip connection.
#[must_use]
pub fn depth(below: usize, skip: usize) -> usize {
    TAPS_BELOW * below + TAPS * skip
}

/// A transposed convolution and the 3x3 convolution over its output and a skip connection.
#[derive(Debug, Clone, Copy)]
pub struct UpLayers<'a> {
    /// `[below, middle, 2, 2]`.
    pub up_weight: &'a [f32],
    /// `[middle]`.
    pub up_bias: &'a [f32],
    /// `[out, middle + skip, 3, 3]`.
    pub weight: &'a [f32],
    /// `[out]`.
    pub bias: &'a [f32],
}

/// Two such layers as one.
#[derive(Debug, Clone, PartialEq)]
pub struct Composed {
    /// `[phases, depth, out]`; the rows of a matrix are `[2, 2, below]`, then `[3, 3, skip]`.
    pub weights: Vec<f32>,
    /// `[phases, row at an edge, column at an edge, out]`: beyond the edges there is no bias of the transposed convolution.
    pub bias: Vec<f32>,
}

impl UpLayers<'_> {
    /// Whether the layers as one save at least a tenth of the multiplications. If not, their weights, which are more, are not
    /// worth reading.
    #[must_use]
    pub fn are_fewer_as_one(&self) -> bool {
        let [below, skip, middle, out] = self.channels();
        let apart = below * middle + TAPS * (middle + skip) * out;
        10 * depth(below, skip) * out <= 9 * apart
    }

    /// Below, of the skip connection, in the middle, of the output.
    fn channels(&self) -> [usize; 4] {
        let (middle, out) = (self.up_bias.len(), self.bias.len());
        [self.up_weight.len() / middle / PHASES, self.weight.len() / out / TAPS - middle, middle, out]
    }

    /// The layers as one.
    #[must_use]
    pub fn composed(&self) -> Composed {
        let mut composed = Composed { weights: Vec::new(), bias: Vec::new() };
        for phase in 0..PHASES {
            self.put_below(phase, &mut composed.weights);
            self.put_skip(&mut composed.weights);
            for at_edge in [[false, false], [false, true], [true, false], [true, true]] {
                self.put_bias(phase, at_edge, &mut composed.bias);
            }
        }
        composed
    }

    /// Adds the kernel by which pixels of a phase read those below: `[2, 2, below, out]`.
    fn put_below(&self, phase: usize, weights: &mut Vec<f32>) {
        let [below, skip, middle, out] = self.channels();
        let first = weights.len();
        weights.resize(first + TAPS_BELOW * below * out, 0.0);
        for tap in 0..TAPS {
            let [row, column] = [(phase / 2, tap / 3), (phase % 2, tap % 3)].map(|(of_phase, tap)| {
                // The tap reads a row above, at or below the pixel's own, which comes of the row below at half its number.
                let moved = of_phase + tap + 1;
                (moved / 2 - of_phase, moved % 2)
            });
            let corner = row.1 * 2 + column.1;
            let factors: Vec<f32> =
                (0..middle * out).map(|at| self.weight[(at % out * (middle + skip) + at / out) * TAPS + tap]).collect();
            let kernel = &mut weights[first + (row.0 * 2 + column.0) * below * out..][..below * out];
            for (channel, sums) in kernel.chunks_exact_mut(out).enumerate() {
                for (of_middle, factors) in factors.chunks_exact(out).enumerate() {
                    let up = self.up_weight[(channel * middle + of_middle) * PHASES + corner];
                    sums.iter_mut().zip(factors).for_each(|(sum, factor)| *sum += up * factor);
                }
            }
        }
    }

    /// Adds the kernel by which pixels read the skip connection: `[3, 3, skip, out]`.
    fn put_skip(&self, weights: &mut Vec<f32>) {
        let [_, skip, middle, out] = self.channels();
        for tap in 0..TAPS {
            for channel in middle..middle + skip {
                weights.extend((0..out).map(|n| self.weight[(n * (middle + skip) + channel) * TAPS + tap]));
            }
        }
    }

    /// Adds the bias of pixels of a phase.
    fn put_bias(&self, phase: usize, at_edge: [bool; 2], biases: &mut Vec<f32>) {
        let [_, skip, middle, _] = self.channels();
        let is_beyond = |tap: usize, of_phase: usize, at_edge: bool| at_edge && tap == 2 * of_phase;
        let taps: Vec<usize> = (0..TAPS)
            .filter(|tap| !is_beyond(tap / 3, phase / 2, at_edge[0]) && !is_beyond(tap % 3, phase % 2, at_edge[1]))
            .collect();
        let of_taps = |out: usize, channel: usize| -> f32 {
            taps.iter().map(|tap| self.weight[(out * (middle + skip) + channel) * TAPS + tap]).sum()
        };
        let of_up = |out: usize| -> f32 {
            self.up_bias.iter().enumerate().map(|(channel, bias)| bias * of_taps(out, channel)).sum()
        };
        biases.extend(self.bias.iter().enumerate().map(|(out, bias)| bias + of_up(out)));
    }
}
