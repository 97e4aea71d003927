//! Pixels of a photo by category and colour.

use serde::{Deserialize, Serialize};

use crate::labels::{self, CATEGORY_COUNT, CELL_COUNT, COLOR_COUNT};

/// How the pixels of a category get their colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColorRule {
    /// Every pixel counts under its own colour.
    #[default]
    PerPixel,
    /// The seed's rule: a whole category has the colour of its first pixel, columns first, top to bottom.
    FirstPixel,
}

/// What the pixels of one photo show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PixelCounts {
    /// Pixels by category.
    pub category_px: [u32; CATEGORY_COUNT],
    /// Pixels of the 19 apparel categories.
    pub apparel_px: u32,
    /// Pixels by cell, in the order of [`labels::cell_names`]. Apparel pixels without a colour name are in no cell.
    pub cell_px: Vec<u32>,
}

impl PixelCounts {
    /// Counts a `label_map` (`[height, width]`, 0 to 22) whose pixel `i` has the colour `color_of(i)` (0 to 12).
    pub fn of(label_map: &[u8], width_px: u32, rule: ColorRule, color_of: impl Fn(usize) -> u8) -> Self {
        // Looked up once: this runs for every pixel of a catalogue.
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

    /// The 228 cells: share of the apparel pixels, `None` where there is none.
    #[must_use]
    pub fn shares(&self) -> Vec<Option<f32>> {
        let share = |&count: &u32| (count > 0).then(|| (f64::from(count) / f64::from(self.apparel_px)) as f32);
        self.cell_px.iter().map(share).collect()
    }
}

/// For each category its first pixel, columns first.
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
