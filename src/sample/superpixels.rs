//! Superpixels that respect the labels exactly: a jittered grid, cut along the borders of the labels.

use std::collections::HashMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::drawing::Label;

/// Maximum number of superpixels per photo: the length of the label vectors of the data set.
pub(super) const MAX_SUPERPIXELS: usize = 425;
/// Columns of the finest grid that is tried.
const FINEST_COLUMNS: usize = 13;

/// The superpixels of one photo.
pub(super) struct Superpixels {
    /// `[height, width]`, numbered from 0 in reading order of their first pixel.
    pub(super) numbers: Vec<u16>,
    /// The label of each superpixel.
    pub(super) labels: Vec<Label>,
}

/// Cuts a picture into at most [`MAX_SUPERPIXELS`]: uses the finest grid whose cells, cut along the labels, are few
/// enough.
pub(super) fn cut(labels: &[Label], width_px: usize, height_px: usize, rng: &mut ChaCha8Rng) -> Superpixels {
    for columns in (1..=FINEST_COLUMNS).rev() {
        let rows = (columns * height_px).div_ceil(width_px);
        let jitter: Vec<[f32; 2]> =
            (0..columns * rows).map(|_| [rng.random_range(0.15..0.85f32), rng.random_range(0.15..0.85f32)]).collect();
        let grid = Grid { columns, rows, cell_px: width_px as f32 / columns as f32, jitter };
        let (mut numbers, mut found, mut list) = (Vec::with_capacity(labels.len()), HashMap::new(), Vec::new());
        let mut last = None;
        for (index, &label) in labels.iter().enumerate() {
            let cell = grid.nearest(index % width_px, index / width_px);
            // Mostly that of the pixel before.
            let number = match last {
                Some((key, number)) if key == (cell, label) => number,
                _ => *found.entry((cell, label)).or_insert_with(|| {
                    list.push(label);
                    list.len() - 1
                }),
            };
            last = Some(((cell, label), number));
            numbers.push(number as u16);
        }
        if list.len() <= MAX_SUPERPIXELS {
            return Superpixels { numbers, labels: list };
        }
    }
    unreachable!("a single cell has no more superpixels than a photo has labels")
}

struct Grid {
    columns: usize,
    rows: usize,
    cell_px: f32,
    jitter: Vec<[f32; 2]>,
}

impl Grid {
    /// The cell whose jittered centre is closest to a pixel.
    fn nearest(&self, x: usize, y: usize) -> usize {
        let (u, v) = ((x as f32 + 0.5) / self.cell_px, (y as f32 + 0.5) / self.cell_px);
        let around = |at: f32, count: usize| (at as usize).saturating_sub(1)..(at as usize + 2).min(count);
        let (mut best, mut least) = (0, f32::MAX);
        for row in around(v, self.rows) {
            for column in around(u, self.columns) {
                let cell = row * self.columns + column;
                let [jx, jy] = self.jitter[cell];
                let distance = (column as f32 + jx - u).powi(2) + (row as f32 + jy - v).powi(2);
                if distance < least {
                    (best, least) = (cell, distance);
                }
            }
        }
        best
    }
}
