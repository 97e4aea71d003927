//! Runs of equal pixels and connected regions of a label map.

use std::ops::Range;

/// The labels of a map: bytes, or words if there are more than bytes can tell apart.
pub(crate) trait Label: Copy + PartialEq + Into<usize> {
    /// The label of pixels that belong to no region.
    const NO_LABEL: Self;

    /// The label of that number.
    fn of(place: usize) -> Self;

    /// How many of the first pixels are equal.
    fn run_length(pixels: &[Self]) -> usize {
        pixels.iter().take_while(|&&it| it == pixels[0]).count()
    }
}

impl Label for u8 {
    const NO_LABEL: Self = Self::MAX;

    fn of(place: usize) -> Self {
        place as Self
    }

    /// Eight at a time.
    fn run_length(pixels: &[Self]) -> usize {
        let (words, rest) = pixels.as_chunks::<8>();
        let same = u64::from_le_bytes([pixels[0]; 8]);
        for (place, &word) in words.iter().enumerate() {
            let differing = u64::from_le_bytes(word) ^ same;
            if differing != 0 {
                return 8 * place + differing.trailing_zeros() as usize / 8;
            }
        }
        8 * words.len() + rest.iter().take_while(|&&it| it == pixels[0]).count()
    }
}

impl Label for u16 {
    const NO_LABEL: Self = Self::MAX;

    fn of(place: usize) -> Self {
        place as Self
    }
}

/// The labels as runs of equal ones, in order; together they are all of them.
pub(crate) fn equal_runs<L: Label>(mut labels: &[L]) -> impl Iterator<Item = &[L]> {
    std::iter::from_fn(move || {
        let (run, rest) = (!labels.is_empty()).then(|| labels.split_at(L::run_length(labels)))?;
        labels = rest;
        Some(run)
    })
}

/// How much of a label map has one label, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Extent {
    /// All pixels of the label.
    pub(super) pixels: u32,
    /// Those of its largest region.
    pub(super) largest: u32,
}

/// The extents of the labels below `count`, 0 for those that do not occur. A region is a set of pixels of one label
/// that are connected through their sides; `labels` is `[height, width]`. A union-find over the runs of equal pixels in each
/// row, which are few (Rosenfeld and Pfaltz, 1966).
pub(super) fn extents<L: Label>(labels: &[L], width: usize, count: usize) -> Vec<Extent> {
    Regions::of(labels, width).extents(count)
}

/// The region of each pixel, and the label of each region, in order of their first pixels; `None` if there are more than
/// `most`. `labels` is `[height, width]`, without [`Label::NO_LABEL`].
pub(crate) fn regions(labels: &[u8], width: usize, most: usize) -> Option<(Vec<u16>, Vec<u8>)> {
    let mut regions = Regions::of(labels, width);
    let (mut numbers, mut region_labels) = (Vec::with_capacity(labels.len()), Vec::new());
    // By run: the number of its region.
    let mut number_of = vec![0_u16; regions.runs.len()];
    for run in 0..regions.runs.len() {
        let first = regions.first_of(run);
        if first == run {
            if region_labels.len() == most {
                return None;
            }
            number_of[run] = region_labels.len() as u16;
            region_labels.push(regions.runs[run].label);
        }
        number_of[run] = number_of[first];
        numbers.extend(std::iter::repeat_n(number_of[run], regions.runs[run].columns.len()));
    }
    Some((numbers, region_labels))
}

/// A run of equal pixels in a row.
struct Run<L> {
    columns: Range<u32>,
    label: L,
}

/// The runs of a label map, and the regions that they form.
struct Regions<L> {
    runs: Vec<Run<L>>,
    /// By run: another run of its region, itself for the first of them.
    parents: Vec<u32>,
}

impl<L: Label> Regions<L> {
    fn of(labels: &[L], width: usize) -> Self {
        let mut regions = Self { runs: Vec::new(), parents: Vec::new() };
        let mut above = 0..0;
        for row in labels.chunks_exact(width) {
            let here = regions.add_row(row);
            regions.join_rows(above, here.clone());
            above = here;
        }
        regions
    }

    /// Adds the runs of a row, each a region of its own; returns their indices.
    fn add_row(&mut self, row: &[L]) -> Range<usize> {
        let (first, mut start) = (self.runs.len(), 0);
        for run in equal_runs(row) {
            let (label, end) = (run[0], start + run.len() as u32);
            if label != L::NO_LABEL {
                self.parents.push(self.runs.len() as u32);
                self.runs.push(Run { columns: start..end, label });
            }
            start = end;
        }
        first..self.runs.len()
    }

    /// Joins the regions of runs of two rows that lie above each other.
    fn join_rows(&mut self, mut above: Range<usize>, mut here: Range<usize>) {
        while !above.is_empty() && !here.is_empty() {
            let [upper, lower] = [&self.runs[above.start], &self.runs[here.start]];
            let ends = (upper.columns.end, lower.columns.end);
            let touch = upper.columns.start < ends.1 && lower.columns.start < ends.0;
            if touch && upper.label == lower.label {
                let [a, b] = [above.start, here.start].map(|run| self.first_of(run));
                self.parents[a.max(b)] = a.min(b) as u32;
            }
            if ends.0 <= ends.1 { above.start += 1 } else { here.start += 1 }
        }
    }

    /// The first run of a run's region; shortens the way to it for the next search.
    fn first_of(&mut self, mut run: usize) -> usize {
        while self.parents[run] as usize != run {
            self.parents[run] = self.parents[self.parents[run] as usize];
            run = self.parents[run] as usize;
        }
        run
    }

    fn extents(mut self, count: usize) -> Vec<Extent> {
        let mut regions = vec![0; self.runs.len()];
        let mut extents = vec![Extent::default(); count];
        for run in 0..self.runs.len() {
            let pixels = self.runs[run].columns.len() as u32;
            let region = &mut regions[self.first_of(run)];
            *region += pixels;
            let extent = &mut extents[self.runs[run].label.into()];
            extent.pixels += pixels;
            extent.largest = extent.largest.max(*region);
        }
        extents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LABEL: u8 = u8::NO_LABEL;
    const COUNT: usize = 255;

    /// The extents by another way: from each pixel, everything that can be reached.
    fn flooded(labels: &[u8], width: usize) -> Vec<Extent> {
        let (mut seen, mut extents) = (vec![false; labels.len()], vec![Extent::default(); COUNT + 1]);
        for start in 0..labels.len() {
            let (mut pixels, mut reached) = (0, vec![start]);
            while let Some(pixel) = reached.pop() {
                if std::mem::replace(&mut seen[pixel], true) || labels[pixel] == NO_LABEL {
                    continue;
                }
                pixels += 1;
                let beside = [
                    (pixel % width > 0).then(|| pixel - 1),
                    (pixel % width + 1 < width).then_some(pixel + 1),
                    pixel.checked_sub(width),
                    Some(pixel + width).filter(|&it| it < labels.len()),
                ];
                reached.extend(beside.into_iter().flatten().filter(|&it| labels[it] == labels[pixel]));
            }
            let extent = &mut extents[usize::from(labels[start])];
            extent.pixels += pixels;
            extent.largest = extent.largest.max(pixels);
        }
        extents.truncate(COUNT);
        extents
    }

    #[test]
    fn regions_are_connected_through_sides_and_not_through_corners() {
        // A ring of 1 with a 2 within, a U of 3 whose arms meet in the last row, and corners of 4.
        let labels = [
            1, 1, 1, 3, 9, 3, 4, 9, //
            1, 2, 1, 3, 9, 3, 9, 4, //
            1, 1, 1, 3, 3, 3, 4, 4,
        ]
        .map(|it| if it == 9 { NO_LABEL } else { it });
        let of = |labels: &[u8], width| {
            extents(labels, width, COUNT).into_iter().map(|it| (it.pixels, it.largest)).collect::<Vec<_>>()
        };
        assert_eq!(of(&labels, 8)[..5], [(0, 0), (8, 8), (1, 1), (7, 7), (4, 3)]);
        assert_eq!(of(&[5, 5, 6, 5], 4)[5..7], [(3, 2), (1, 1)], "one row");
    }

    #[test]
    fn every_region_has_a_number_and_its_label() {
        let labels = [1, 1, 2, 1, 3, 2, 1, 3, 1];
        let (numbers, of) = regions(&labels, 3, 9).expect("few regions");
        assert_eq!((&numbers[..], &of[..]), (&[0, 0, 1, 0, 2, 1, 0, 2, 3][..], &[1, 2, 3, 1][..]));
        assert_eq!(regions(&labels, 3, 3), None);
        assert!(regions(&labels, 3, 4).is_some());
    }

    #[test]
    fn regions_are_those_that_flooding_finds() {
        let mut random = 1_u32;
        for (width, height, labels) in [(1, 40, 2), (40, 1, 2), (17, 23, 2), (64, 64, 2), (64, 64, 3), (31, 50, 5)] {
            let map: Vec<u8> = (0..width * height)
                .map(|_| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let label = (random >> 24) % labels;
                    if label == 0 { NO_LABEL } else { label as u8 }
                })
                .collect();
            assert_eq!(extents(&map, width, COUNT), flooded(&map, width), "{width} x {height}, {labels} labels");
            let words: Vec<u16> =
                map.iter().map(|&it| if it == NO_LABEL { u16::NO_LABEL } else { it.into() }).collect();
            assert_eq!(extents(&words, width, COUNT), flooded(&map, width), "as words");
        }
    }
}
