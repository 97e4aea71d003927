//! How bf16 and 8-bit layers go through the maps of a [transposed convolution and the one after it](crate::up_skip): every other
//! pixel of a row at a time.

use super::maps::{Band, Shape, Source, cut, padded_row};
use super::spread::{Scratch, Spread, spread_items, with_scratch};
use super::up::up_shape;
use super::up_skip::{EDGES, PHASES};

/// What is added to the sums of each pixel of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bias<'a> {
    /// `[outputs]`.
    pub(super) all: &'a [f32],
    /// A pixel that has another one.
    pub(super) other: Option<(usize, &'a [f32])>,
}

impl<'a> From<&'a [f32]> for Bias<'a> {
    fn from(all: &'a [f32]) -> Self {
        Self { all, other: None }
    }
}

impl<'a> Bias<'a> {
    /// Whether there is one for each of so many outputs.
    pub(super) fn fits(&self, outputs: usize) -> bool {
        self.all.len() == outputs && self.other.is_none_or(|(_, it)| it.len() == outputs)
    }

    /// Those of the outputs from one on.
    pub(super) fn starting_at(self, first: usize) -> Self {
        Self { all: &self.all[first..], other: self.other.map(|(pixel, it)| (pixel, &it[first..])) }
    }

    /// The other one and its pixel's place among `count` from `start` on, if it is one of them.
    #[inline(always)]
    pub(super) fn other_of(&self, start: usize, count: usize) -> Option<(usize, &'a [f32])> {
        let (pixel, own) = self.other?;
        Some((pixel.checked_sub(start).filter(|&at| at < count)?, own))
    }
}

/// Every other pixel of a row of the output: those of a phase.
pub(super) struct Line<'a, T> {
    pub(super) phase: usize,
    /// What they read: two rows below and three of the skip connection.
    pub(super) sources: [Source<'a, T>; 5],
    pub(super) bias: Bias<'a>,
}

/// Calls `work` with each line and the elements from its first output to its last; maps come with the element that lies beyond
/// their edge. `bias` is that of [`Composed`](super::up_skip::Composed).
pub(super) fn each_line<T: Scratch + Sync, E: Send>(
    spread: &dyn Spread,
    shape: Shape,
    [(below, beyond), (skip, beyond_skip)]: [(&[T], T); 2],
    bias: &[f32],
    output: &mut [E],
    work: impl Fn(Line<'_, T>, &mut [E]) + Sync,
) {
    let (out, pixels) = (bias.len() / PHASES / EDGES, up_shape(shape, 1).len());
    let skip_shape = up_shape(shape, skip.len() / pixels);
    assert!(below.len() == shape.len() && skip.len() == skip_shape.len() && skip_shape.channels > 0);
    assert!(bias.len() == PHASES * EDGES * out && output.len() == pixels * out);
    let (edge, skip_edge) = (vec![beyond; shape.channels], vec![beyond_skip; skip_shape.channels]);
    let bands = Band::all(shape, spread.threads());
    spread_items(spread, cut(&bands, shape.with_channels(PHASES * out), output), |index, part| {
        let band = bands[index];
        let of_skip = Band { photo: band.photo, first_row: 2 * band.first_row, rows: 2 * band.rows };
        let lengths = [band.padded_len(shape), of_skip.padded_len(skip_shape)];
        with_scratch(lengths[0] + lengths[1], |scratch: &mut [T]| {
            let (padded, padded_skip) = scratch.split_at_mut(lengths[0]);
            band.pad(shape, &edge, padded, copy_from(below, shape));
            of_skip.pad(skip_shape, &skip_edge, padded_skip, copy_from(skip, skip_shape));
            let padded = Padded { below: padded, shape, skip: padded_skip, skip_shape };
            // Phase by phase, whose weights stay in the cache.
            for (phase, row) in (0..PHASES).flat_map(|it| (it / 2..2 * band.rows).step_by(2).map(move |row| (it, row)))
            {
                let at_edge = [0, skip_shape.rows - 1].contains(&(of_skip.first_row + row));
                let line = Line {
                    phase,
                    sources: padded.sources(row, phase % 2),
                    bias: line_bias(bias, phase, at_edge, shape.columns),
                };
                let places = (row * skip_shape.columns + phase % 2) * out;
                work(line, &mut part[places..][..(skip_shape.columns - 1) * out]);
            }
        });
    });
}

/// Copies a row of maps from a pixel on.
fn copy_from<T: Copy>(maps: &[T], shape: Shape) -> impl Fn(usize, &mut [T]) {
    move |pixel, to| to.copy_from_slice(&maps[pixel * shape.channels..][..to.len()])
}

/// The bias of a line of so many pixels, of which the first or the last is at an edge.
fn line_bias(all: &[f32], phase: usize, row_at_edge: bool, pixels: usize) -> Bias<'_> {
    let out = all.len() / PHASES / EDGES;
    let of =
        |column_at_edge: usize| &all[(phase * EDGES + usize::from(row_at_edge) * 2 + column_at_edge) * out..][..out];
    let at_edge = if phase.is_multiple_of(2) { 0 } else { pixels - 1 };
    Bias { all: of(0), other: Some((at_edge, of(1))) }
}

/// A padded band.
struct Padded<'a, T> {
    below: &'a [T],
    shape: Shape,
    skip: &'a [T],
    skip_shape: Shape,
}

impl<'a, T> Padded<'a, T> {
    /// What the pixels of every other column of an output row read.
    fn sources(&self, row: usize, column: usize) -> [Source<'a, T>; 5] {
        std::array::from_fn(|at| {
            let (elements, shape, line) = match at {
                0 | 1 => (self.below, self.shape, row.div_ceil(2) + at),
                _ => (self.skip, self.skip_shape, row + at - 2),
            };
            let channels = shape.channels;
            let elements = &elements[line * padded_row(shape)..][..padded_row(shape)];
            let (stride, run) = if at < 2 { (channels, 2 * channels) } else { (2 * channels, 3 * channels) };
            Source { elements: &elements[column * channels..], stride, run }
        })
    }
}
