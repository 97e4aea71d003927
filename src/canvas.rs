//! Photos and label maps on the network's canvas, and label maps at another size.
//!
//! A photo is fitted into the network's photo size and placed at the top left of the canvas, which is black below and
//! to the right of it; labels repeat their last row and column there. Photos are resized by [`photo::resize`]; label
//! maps, wherever they are, by one rule: a pixel takes the label at its centre.

use std::borrow::Cow;

use crate::graph::Spec;
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

impl Canvas {
    /// Places a photo on the canvas of the network `spec`.
    #[must_use]
    pub fn new(spec: &Spec, photo: &Photo) -> Self {
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
        Self { pixels, width_px, height_px }
    }

    /// Places the photo's label map, `[height, width]` of the size `from` (width, height), on the canvas:
    /// `[rows, columns]`.
    #[must_use]
    pub fn labels(&self, spec: &Spec, label_map: &[u8], from: (u32, u32)) -> Vec<u8> {
        let columns = centers(from.0 as usize, self.width_px, spec.columns());
        let rows = centers(from.1 as usize, self.height_px, spec.rows());
        picked(label_map, from.0 as usize, &rows, &columns)
    }

    /// Scales the network's answer for the canvas, `[label map rows, label map columns]`, to the size `to` (width,
    /// height).
    #[must_use]
    pub fn label_map(&self, spec: &Spec, answer: &[u8], to: (u32, u32)) -> Vec<u8> {
        let scale = spec.label_map_scale();
        let columns = centers(scale * self.width_px, to.0 as usize, to.0 as usize);
        let rows = centers(scale * self.height_px, to.1 as usize, to.1 as usize);
        picked(answer, spec.label_map_columns(), &rows, &columns)
    }
}

/// Scales a label map, `[height, width]`, from one size (width, height) to another.
#[must_use]
pub fn resize_labels(label_map: &[u8], from: (u32, u32), to: (u32, u32)) -> Vec<u8> {
    let centers = |from: u32, to: u32| centers(from as usize, to as usize, to as usize);
    picked(label_map, from.0 as usize, &centers(from.1, to.1), &centers(from.0, to.0))
}

fn picked(labels: &[u8], stride: usize, rows: &[usize], columns: &[usize]) -> Vec<u8> {
    let mut picked = Vec::with_capacity(rows.len() * columns.len());
    for row in rows {
        let line = &labels[row * stride..];
        picked.extend(columns.iter().map(|&column| line[column]));
    }
    picked
}

/// For each of `count` pixels, which of `from` pixels its centre lies in, when `to` pixels span them all; pixels beyond
/// get the last one.
fn centers(from: usize, to: usize, count: usize) -> Vec<usize> {
    (0..count).map(|pixel| (2 * pixel.min(to - 1) + 1) * from / (2 * to)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Loss;

    #[test]
    fn a_pixel_takes_what_lies_at_its_centre_and_the_last_is_repeated() {
        assert_eq!(centers(4, 4, 6), [0, 1, 2, 3, 3, 3]);
        assert_eq!(centers(4, 2, 2), [1, 3]);
        assert_eq!(centers(2, 4, 4), [0, 0, 1, 1]);
    }

    #[test]
    fn labels_go_there_and_back_unchanged_at_the_networks_size() {
        let spec = Spec::seed(20, 30, Loss::Bce);
        let photo = Photo { width_px: 20, height_px: 30, rgb: (0..1800).map(|it| it as u8).collect() };
        let labels: Vec<u8> = (0..600).map(|it| (it % 23) as u8).collect();
        let laid = Canvas::new(&spec, &photo);
        assert_eq!((laid.width_px, laid.height_px, laid.pixels.len()), (20, 30, 32 * 32 * 3));
        assert_eq!(laid.pixels[..60], photo.rgb[..60]);
        assert!(laid.pixels[60..96].iter().all(|&it| it == 0), "black next to the photo");
        let on_canvas = laid.labels(&spec, &labels, (20, 30));
        assert_eq!(on_canvas[31 * 32 + 31], labels[599], "the last label is repeated");
        assert_eq!(laid.label_map(&spec, &on_canvas, (20, 30)), labels);
    }

    #[test]
    fn labels_lie_where_the_resized_photo_shows_them() {
        // Halves: 50 pixels of category 1, then 50 of 2, and a photo that is black and white likewise.
        let labels: Vec<u8> = [1, 2].into_iter().flat_map(|label| [label; 50]).collect();
        let photo =
            Photo { width_px: 100, height_px: 1, rgb: labels.iter().flat_map(|it| [(it - 1) * 255; 3]).collect() };
        for width in [1, 3, 7, 32, 64, 99, 101, 250] {
            let (resized, photo) = (resize_labels(&labels, (100, 1), (width, 1)), photo::resize(&photo, width, 1));
            for (pixel, label) in photo.rgb.chunks_exact(3).zip(resized) {
                assert!(pixel[0].abs_diff((label - 1) * 255) <= 128, "{width}: {pixel:?} has the label {label}");
            }
        }
    }

    #[test]
    fn labels_resized_twice_the_size_and_back_are_the_same() {
        let labels: Vec<u8> = (0..35).map(|it| (it * 7 % 23) as u8).collect();
        for to in [(10, 14), (11, 17), (15, 21), (5, 7)] {
            assert_eq!(resize_labels(&resize_labels(&labels, (5, 7), to), to, (5, 7)), labels, "{to:?}");
        }
        assert_eq!(resize_labels(&[1, 1, 2, 2, 3, 3, 4, 4], (4, 2), (2, 1)), [3, 4]);
    }
}
