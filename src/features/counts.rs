//! Pixel counts of a photo by category and colour.

use serde::{Deserialize, Serialize};

use crate::labels::{self, CATEGORY_COUNT, CELL_COUNT, COLOR_COUNT};

/// How the pixels of a category are assigned a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColorRule {
    /// Every pixel counts with its own colour.
    #[default]
    PerPixel,
    /// The seed's rule: a whole category has the colour of its first pixel in column-major order.
    FirstPixel,
}

/// Pixel counts of one photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PixelCounts {
    /// Pixels by category.
    pub category_px: [u32; CATEGORY_COUNT],
    /// Pixels of the 19 apparel categories.
    pub apparel_px: u32,
    /// Pixels by cell, in the order of [`labels::cell_names`]. Apparel pixels without a named colour belong to no cell.
    pub cell_px: Vec<u32>,
}

impl PixelCounts {
    /// Counts the pixels of a `label_map` (`[height, width]`, 0 to 22) in which pixel `i` has the colour `color_of(i)`
    /// (0 to 12).
    pub fn of(label_map: &[u8], width_px: u32, rule: ColorRule, color_of: impl Fn(usize) -> u8) -> Self {
        // Computed once up front: the loop below runs for every pixel of a catalogue.
        let worn: [bool; CATEGORY_COUNT] = std::array::from_fn(|category| labels::is_apparel(category as u8));
        let mut category_px = [0; CATEGORY_COUNT];
        let mut pairs = [[0; COLOR_COUNT]; CATEGORY_COUNT];
        for (pixel, &category) in label_map.iter().enumerate() {
            category_px[usize::from(category)] += 1;
            if rule == ColorRule::PerPixel && worn[usize::from(category)] {
                pairs[usize::from(category)][usize::from(color_of(pixel))] += 1;
            }
        }
        if rule == ColorRule::FirstPixel {
            for (category, pixel) in first_pixels(label_map, width_px as usize).into_iter().enumerate() {
                let Some(pixel) = pixel else { continue };
                pairs[category][usize::from(color_of(pixel))] = category_px[category];
            }
        }
        let mut cell_px = vec![0; CELL_COUNT];
        for (category, colors) in pairs.iter().enumerate() {
            for (color, &count) in colors.iter().enumerate() {
                if let Some(cell) = labels::cell_index(category as u8, color as u8) {
                    cell_px[cell] = count;
                }
            }
        }
        let apparel_px = labels::apparel_categories().map(|category| category_px[usize::from(category)]).sum();
        Self { category_px, apparel_px, cell_px }
    }

    /// The 228 cells as shares of the apparel pixels; `None` for empty cells.
    #[must_use]
    pub fn shares(&self) -> Vec<Option<f32>> {
        let share = |&count: &u32| (count > 0).then(|| (f64::from(count) / f64::from(self.apparel_px)) as f32);
        self.cell_px.iter().map(share).collect()
    }
}

/// The first pixel of each category, in column-major order.
fn first_pixels(label_map: &[u8], width: usize) -> [Option<usize>; CATEGORY_COUNT] {
    let mut first: [Option<usize>; CATEGORY_COUNT] = [None; CATEGORY_COUNT];
    for (y, row) in label_map.chunks_exact(width).enumerate() {
        for (x, &category) in row.iter().enumerate() {
            let known = &mut first[usize::from(category)];
            if known.is_none_or(|known| x < known % width) {
                *known = Some(y * width + x);
            }
        }
    }
    first
}
