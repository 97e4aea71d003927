//! Pixel counts of a photo by category and colour.

use serde::{Deserialize, Serialize};

use super::regions::{Extent, Label, equal_runs, extents};
use crate::error::{Error, Result};
use crate::labels::{BACKGROUND, LabelSet, MAX_CATEGORIES, MAX_COLORS};

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

/// Default of [`Presence::min_share`]; docs/tables.md has the measurements.
pub const DEFAULT_MIN_SHARE: f64 = 0.15;
/// Default of [`Presence::min_region`]; docs/tables.md has the measurements.
pub const DEFAULT_MIN_REGION: f64 = 0.05;

/// When a cell is present in a photo: what is smaller is more often a mistaken patch than something worn. Both settings are
/// fractions of the [usual share](crate::labels::Category::usual_share) of the cell's category, because a coat that covers as
/// little as sunglasses is not worn; of a category without one every pixel counts. A category is present if any of its cells is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Presence {
    /// Minimum share of the photo's apparel pixels, as a fraction of the category's usual share, 0 to 1
    /// ([`DEFAULT_MIN_SHARE`]).
    pub min_share: f64,
    /// Minimum share of the cell's largest connected region, likewise ([`DEFAULT_MIN_REGION`]).
    pub min_region: f64,
}

impl Default for Presence {
    fn default() -> Self {
        Self { min_share: DEFAULT_MIN_SHARE, min_region: DEFAULT_MIN_REGION }
    }
}

impl Presence {
    /// Everything that has a pixel is present.
    pub const EVERYTHING: Self = Self { min_share: 0.0, min_region: 0.0 };

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is not a fraction.
    pub fn check(&self) -> Result<()> {
        for (setting, value) in [("min_share", self.min_share), ("min_region", self.min_region)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::config(setting, format!("{value} is not a fraction; use 0 to 1")));
            }
        }
        Ok(())
    }

    /// Whether a cell of a category of that usual share is present.
    fn holds(&self, usual_share: f64, cell: Extent, apparel_px: u32) -> bool {
        let usual_px = usual_share * f64::from(apparel_px);
        f64::from(cell.pixels) >= self.min_share * usual_px && f64::from(cell.largest) >= self.min_region * usual_px
    }
}

/// How the cells of a photo are made from its label map and colours.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CellRule {
    /// How the pixels of a category are assigned a colour.
    pub color: ColorRule,
    /// Which cells are present.
    pub presence: Presence,
}

/// Pixel counts of one photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PixelCounts {
    /// Pixels by category.
    pub category_px: Vec<u32>,
    /// Pixels of the apparel categories.
    pub apparel_px: u32,
    /// Pixels by cell, in the order of [`LabelSet::cell_names`]; 0 if the cell is not [present](Presence). Apparel pixels
    /// without a named colour belong to no cell.
    pub cell_px: Vec<u32>,
}

impl PixelCounts {
    /// Counts the pixels of a `label_map` (`[height, width]`, categories of `labels`) in which pixel `i` has the colour
    /// `color_of(i)`.
    pub fn of(
        labels: &LabelSet,
        label_map: &[u8],
        width_px: u32,
        rule: CellRule,
        color_of: impl Fn(usize) -> u8,
    ) -> Self {
        let width = width_px as usize;
        let mut category_px = vec![0; labels.category_count()];
        for run in equal_runs(label_map) {
            category_px[usize::from(run[0])] += run.len() as u32;
        }
        let apparel_px = labels.apparel_categories().map(|category| category_px[usize::from(category)]).sum();
        let cells = if labels.cell_count() <= usize::from(u8::NO_LABEL) {
            extents(&cell_map::<u8>(labels, label_map, width, rule.color, color_of), width, labels.cell_count())
        } else {
            extents(&cell_map::<u16>(labels, label_map, width, rule.color, color_of), width, labels.cell_count())
        };
        let usual = labels.apparel_categories().map(|it| labels.usual_share(it));
        let usual = usual.flat_map(|share| std::iter::repeat_n(share, labels.cells_per_category()));
        let cells = cells.into_iter().zip(usual);
        let present = |(extent, usual): (Extent, f64)| {
            if rule.presence.holds(usual, extent, apparel_px) { extent.pixels } else { 0 }
        };
        let cell_px = cells.map(present).collect();
        Self { category_px, apparel_px, cell_px }
    }

    /// The cells as shares of the apparel pixels; `None` for those that are not present.
    #[must_use]
    pub fn shares(&self) -> Vec<Option<f32>> {
        let share = |&count: &u32| (count > 0).then(|| (f64::from(count) / f64::from(self.apparel_px)) as f32);
        self.cell_px.iter().map(share).collect()
    }
}

/// The cell of each pixel, `[height, width]`; [`Label::NO_LABEL`] for pixels without apparel or a named colour.
fn cell_map<L: Label>(
    labels: &LabelSet,
    label_map: &[u8],
    width: usize,
    rule: ColorRule,
    color_of: impl Fn(usize) -> u8,
) -> Vec<L> {
    // Looked up once: the loops below run for every pixel of a catalogue.
    let mut cells = [[L::NO_LABEL; MAX_COLORS + 1]; MAX_CATEGORIES];
    for (category, first) in labels.apparel_categories().zip((0..).step_by(labels.cells_per_category())) {
        let colors = cells[usize::from(category)][1..=labels.cells_per_category()].iter_mut();
        colors.zip(first..).for_each(|(place, cell)| *place = L::of(cell));
    }
    match rule {
        ColorRule::PerPixel => {
            let mut map = vec![L::NO_LABEL; label_map.len()];
            let mut start = 0;
            for run in equal_runs(label_map) {
                let end = start + run.len();
                if labels.is_apparel(run[0]) {
                    let by_color = &cells[usize::from(run[0])];
                    let pixels = (start..end).zip(&mut map[start..end]);
                    pixels.for_each(|(pixel, cell)| *cell = by_color[usize::from(color_of(pixel))]);
                }
                start = end;
            }
            map
        }
        ColorRule::FirstPixel => {
            let colors = first_pixels(label_map, width).map(|pixel| usize::from(pixel.map_or(BACKGROUND, &color_of)));
            let categories = label_map.iter().map(|&category| usize::from(category));
            categories.map(|category| cells[category][colors[category]]).collect()
        }
    }
}

/// The first pixel of each category, in column-major order.
fn first_pixels(label_map: &[u8], width: usize) -> [Option<usize>; MAX_CATEGORIES] {
    let mut first: [Option<usize>; MAX_CATEGORIES] = [None; MAX_CATEGORIES];
    for (y, row) in label_map.chunks_exact(width).enumerate() {
        let mut x = 0;
        for run in equal_runs(row) {
            let known = &mut first[usize::from(run[0])];
            if known.is_none_or(|known| x < known % width) {
                *known = Some(y * width + x);
            }
            x += run.len();
        }
    }
    first
}
