//! Photos and label maps on the network's canvas, and label maps scaled back to a photo's own size.
//!
//! A photo is fitted into the network's photo size and placed at the top left of the canvas, which is black below and
//! to the right of it; labels repeat their last row and column there.

use std::borrow::Cow;

use crate::graph::Spec;
use crate::labels::CATEGORY_COUNT;
use crate::photo::{self, Photo};

/// A photo as the network sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canvas {
    /// `[rows, columns, 3]` u8.
    pub pixels: Vec<u8>,
    /// Width of the fitted photo.
    pub width_px: usize,
    /// Height of the fitted photo.
    pub height_px: usize,
}

/// Places a photo on the canvas.
#[must_use]
pub fn canvas(spec: &Spec, photo: &Photo) -> Canvas {
    let limit = (spec.photo_width_px as u32, spec.photo_height_px as u32);
    let size = photo::fitted_size((photo.width_px, photo.height_px), limit);
    let fitted = if size == (photo.width_px, photo.height_px) {
        Cow::Borrowed(photo)
    } else {
        Cow::Owned(photo::resize(photo, size.0, size.1))
    };
    let (width_px, height_px) = (fitted.width_px as usize, fitted.height_px as usize);
    let mut pixels = vec![0; spec.rows() * spec.columns() * 3];
    for (line, row) in fitted.rgb.chunks_exact(width_px * 3).zip(pixels.chunks_exact_mut(spec.columns() * 3)) {
        row[..line.len()].copy_from_slice(line);
    }
    Canvas { pixels, width_px, height_px }
}

/// Places the labels of a photo, `[height, width]` in its own size, on the canvas that matches the photo's:
/// `[rows, columns]`. Nearest-neighbour sampling.
#[must_use]
pub fn label_canvas(spec: &Spec, canvas: &Canvas, labels: &[u8], width_px: usize, height_px: usize) -> Vec<u8> {
    let columns = nearest(width_px, canvas.width_px, spec.columns());
    let rows = nearest(height_px, canvas.height_px, spec.rows());
    rows.iter().flat_map(|row| columns.iter().map(move |column| labels[row * width_px + column])).collect()
}

/// Scales the network's answer for a canvas, `[rows, columns]`, to the size `width_px` x `height_px`. Nearest-neighbour
/// sampling.
#[must_use]
pub fn label_map(spec: &Spec, canvas: &Canvas, answer: &[u8], width_px: usize, height_px: usize) -> Vec<u8> {
    let columns = nearest(canvas.width_px, width_px, width_px);
    let rows = nearest(canvas.height_px, height_px, height_px);
    let stride = spec.columns();
    rows.iter().flat_map(|row| columns.iter().map(move |column| answer[row * stride + column])).collect()
}

/// For each of `count` positions, the index of the nearest of `from` pixels, which the first `to` positions span;
/// positions beyond get the last pixel.
fn nearest(from: usize, to: usize, count: usize) -> Vec<usize> {
    (0..count).map(|place| ((2 * place.min(to - 1) + 1) * from / (2 * to)).min(from - 1)).collect()
}

/// Whether every label is one of the 23 categories.
#[must_use]
pub fn are_categories(labels: &[u8]) -> bool {
    labels.iter().all(|&label| usize::from(label) < CATEGORY_COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Loss;

    #[test]
    fn nearest_takes_the_middle_and_repeats_the_last() {
        assert_eq!(nearest(4, 4, 6), [0, 1, 2, 3, 3, 3]);
        assert_eq!(nearest(4, 2, 2), [1, 3]);
        assert_eq!(nearest(2, 4, 4), [0, 0, 1, 1]);
    }

    #[test]
    fn labels_go_there_and_back_unchanged_at_the_networks_size() {
        let spec = Spec::seed(20, 30, Loss::Bce);
        let photo = Photo { width_px: 20, height_px: 30, rgb: (0..1800).map(|it| it as u8).collect() };
        let labels: Vec<u8> = (0..600).map(|it| (it % 23) as u8).collect();
        let laid = canvas(&spec, &photo);
        assert_eq!((laid.width_px, laid.height_px, laid.pixels.len()), (20, 30, 32 * 32 * 3));
        assert_eq!(laid.pixels[..60], photo.rgb[..60]);
        assert!(laid.pixels[60..96].iter().all(|&it| it == 0), "black next to the photo");
        let on_canvas = label_canvas(&spec, &laid, &labels, 20, 30);
        assert_eq!(on_canvas[31 * 32 + 31], labels[599], "the last label is repeated");
        assert_eq!(label_map(&spec, &laid, &on_canvas, 20, 30), labels);
    }
}
