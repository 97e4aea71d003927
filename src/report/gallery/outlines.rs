//! The garments in the thumbnails, for `outlines/NNNN.js`: a label map of each photo at half the thumbnail's size, in which
//! the page finds the outline of a category. A script, since a page that is opened from a folder may not read the pixels of a
//! picture next to it.

use super::THUMBNAIL_PX;
use super::column::Column;
use crate::labels::LabelSet;

/// Width and height of a map; a pixel is a square of 2 x 2 of the thumbnail.
pub(super) const SIZE_PX: (usize, usize) = (THUMBNAIL_PX.0 as usize / 2, THUMBNAIL_PX.1 as usize / 2);

/// The label map of a photo, upright, at any size.
#[derive(Debug, Clone)]
pub(super) struct LabelMap {
    /// `[height, width]`.
    pub(super) categories: Vec<u8>,
    pub(super) width_px: usize,
}

/// Runs of pixels of a thumbnail of `thumbnail_px`, centred in its place: for each run one byte for the category, counted
/// from 1 among those that are worn (0: none of them), and one for the number of pixels.
pub(super) fn runs(map: &LabelMap, labels: &LabelSet, thumbnail_px: (u32, u32)) -> Column {
    let mut ranks = vec![0; labels.category_count()];
    labels.apparel_categories().zip(1..).for_each(|(category, rank)| ranks[usize::from(category)] = rank);
    let (width, height) = (thumbnail_px.0 as usize, thumbnail_px.1 as usize);
    let (left, top) = ((THUMBNAIL_PX.0 as usize - width) / 2, (THUMBNAIL_PX.1 as usize - height) / 2);
    let map_height = map.categories.len() / map.width_px.max(1);
    let rank_at = |x: usize, y: usize| {
        let (x, y) = ((2 * x + 1).checked_sub(left)?, (2 * y + 1).checked_sub(top)?);
        let is_inside = x < width && y < height;
        let place = is_inside.then(|| (y * map_height / height) * map.width_px + x * map.width_px / width)?;
        ranks.get(usize::from(*map.categories.get(place)?)).copied()
    };
    let pixels = (0..SIZE_PX.1).flat_map(|y| (0..SIZE_PX.0).map(move |x| (x, y)));
    let pixels: Vec<u8> = pixels.map(|(x, y)| rank_at(x, y).unwrap_or(0)).collect();
    let runs = pixels.chunk_by(|a, b| a == b).flat_map(|run| run.chunks(255));
    Column::of_bytes(&runs.flat_map(|run| [run[0], run.len() as u8]).collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_scaled_to_its_thumbnail_and_centred() {
        let labels = LabelSet::cfpd();
        let dress = labels.category_named("dress").expect("a category");
        let rank = labels.apparel_categories().position(|it| it == dress).expect("it is worn") as u8 + 1;
        // The upper half of a thumbnail of 60 x 180 shows a dress, the lower half skin, which is not worn.
        let skin = labels.category_named("skin").expect("a category");
        let map = LabelMap { categories: [[dress; 3], [skin; 3]].concat(), width_px: 3 };
        // 15 pixels of ground on either side of 30.
        let mut expected = Vec::new();
        for row in 0..45 {
            expected.extend([0, if row == 0 { 15 } else { 30 }, rank, 30]);
        }
        // The rest is one run, 15 + 45 x 60 = 2715 long.
        expected.extend([0, 255].repeat(10));
        expected.extend([0, 165]);
        assert_eq!(runs(&map, &labels, (60, 180)), Column::of_bytes(&expected));
    }

    #[test]
    fn an_empty_map_shows_nothing() {
        let nothing = LabelMap { categories: Vec::new(), width_px: 0 };
        let runs = runs(&nothing, &LabelSet::cfpd(), THUMBNAIL_PX);
        // 60 x 90 = 21 x 255 + 45.
        assert_eq!(runs, Column::of_bytes(&[[0, 255].repeat(21), vec![0, 45]].concat()));
    }
}
