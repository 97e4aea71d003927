//! A labelled photo as the network sees it: the one way from a row of a dataset to the network's input and labels, for
//! training and evaluation alike.

use std::path::Path;

use crate::canvas::Canvas;
use crate::dataset::PhotoRecord;
use crate::error::Result;
use crate::graph::Spec;
use crate::photo::Photo;

/// A labelled photo at its own size and on the network's canvas.
#[derive(Debug, Clone)]
pub struct Example {
    /// The upright photo.
    pub photo: Photo,
    /// Category of each of its pixels, `[height, width]`.
    pub label_map: Vec<u8>,
    /// The photo on the canvas.
    pub canvas: Canvas,
    /// Its labels on the canvas, `[rows, columns]`.
    pub labels: Vec<u8>,
}

impl Example {
    /// Decodes the photo of `record`, which was read from `source`, and places it and its labels on the canvas.
    ///
    /// # Errors
    /// As [`PhotoRecord::decode`].
    pub fn new(spec: &Spec, source: &Path, record: &PhotoRecord) -> Result<Self> {
        let (photo, label_map) = (record.decode(source)?, record.category_map());
        let canvas = Canvas::new(spec, &photo);
        let labels = canvas.labels(spec, &label_map, photo.size());
        Ok(Self { photo, label_map, canvas, labels })
    }
}
