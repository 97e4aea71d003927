//! Masks as the formats of labelling tools store them, each as the pixels of one label map: the run lengths and polygons
//! of COCO and the run lengths of Label Studio's brush.
//!
//! By hand, because no kept library does it alone: the crate `hotcoco` reads COCO's masks too, but brings an evaluation
//! engine and a reader of XML, and there is none for Label Studio's. `scripts/oracles/masks.py` made the numbers that the
//! tests compare with, by pycocotools and Label Studio's converter.

pub(crate) mod brush;
pub(crate) mod polygon;
pub(crate) mod rle;

/// A label map to paint masks on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabelMap {
    /// Width.
    pub(crate) width_px: usize,
    /// Height.
    pub(crate) height_px: usize,
    /// `[height, width]`: the category of each pixel.
    pub(crate) categories: Vec<u8>,
}

impl LabelMap {
    /// A map of background.
    pub(crate) fn new(width_px: u32, height_px: u32) -> Self {
        let (width_px, height_px) = (width_px as usize, height_px as usize);
        Self { width_px, height_px, categories: vec![crate::labels::BACKGROUND; width_px * height_px] }
    }

    /// Paints pixels by their place when counted column by column, as COCO counts them.
    fn paint_down(&mut self, places: std::ops::Range<usize>, category: u8) {
        let (mut row, mut column) = (places.start % self.height_px, places.start / self.height_px);
        for _ in places {
            self.categories[row * self.width_px + column] = category;
            row += 1;
            if row == self.height_px {
                (row, column) = (0, column + 1);
            }
        }
    }
}

/// A label map of four categories in runs of about `run` pixels, for tests.
#[cfg(test)]
fn any_label_map(width: usize, height: usize, run: usize) -> Vec<u8> {
    let mut random = 1_u32;
    let label = |pixel: usize| {
        random = if pixel.is_multiple_of(run) { random.wrapping_mul(1_664_525).wrapping_add(7) } else { random };
        (random >> 30) as u8
    };
    (0..width * height).map(label).collect()
}
