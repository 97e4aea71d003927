//! Photos and labels of one split at the network's size, in memory: 4 bytes a pixel of the canvas.

use rayon::prelude::*;

use crate::canvas::{self, Canvas};
use crate::dataset::{Dataset, PhotoRecord, Split};
use crate::error::{Error, Result};
use crate::evaluate::confusion::Confusion;
use crate::graph::Spec;
use crate::photo::Photo;
use crate::stop;

/// Photos decoded at a time: bounds what is in memory beside the result.
const CHUNK: usize = 32;

/// The examples of one split, in the order of the dataset.
#[derive(Debug)]
pub struct Examples {
    columns: usize,
    examples: Vec<Example>,
}

#[derive(Debug)]
struct Example {
    file_name: String,
    canvas: Canvas,
    labels: Vec<u8>,
}

/// Photos and labels of one step, end to end.
#[derive(Debug)]
pub struct Batch {
    /// `[size, rows, columns, 3]`.
    pub photos: Vec<u8>,
    /// `[size, rows, columns]`.
    pub labels: Vec<u8>,
    /// Number of photos.
    pub size: usize,
}

impl Examples {
    /// Reads a split and brings it to the network's size.
    ///
    /// # Errors
    /// As [`Dataset::photos`]; a photo that does not decode.
    pub fn load(dataset: &Dataset, split: Split, spec: &Spec) -> Result<Self> {
        let mut records = dataset.photos(Some(split))?;
        let mut examples = Vec::new();
        loop {
            let chunk = records.by_ref().take(CHUNK).collect::<Result<Vec<_>>>()?;
            if chunk.is_empty() {
                return Ok(Self { columns: spec.columns(), examples });
            }
            stop::check()?;
            let chunk: Result<Vec<_>> = chunk.par_iter().map(|it| example(dataset, spec, it)).collect();
            examples.extend(chunk?);
        }
    }

    /// Number of photos.
    #[must_use]
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether the split has no photos.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// File name of a photo.
    #[must_use]
    pub fn file_name(&self, id: usize) -> &str {
        &self.examples[id].file_name
    }

    /// The label canvases, `[rows, columns]` each.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        self.examples.iter().map(|it| it.labels.as_slice())
    }

    /// The photos `ids` as one batch.
    #[must_use]
    pub fn batch(&self, ids: &[usize]) -> Batch {
        let photos = ids.iter().flat_map(|&id| &self.examples[id].canvas.pixels).copied().collect();
        let labels = ids.iter().flat_map(|&id| &self.examples[id].labels).copied().collect();
        Batch { photos, labels, size: ids.len() }
    }

    /// A photo as the network sees it, its labels, and what the network answered for it, `[rows, columns]`: all three without
    /// what is beside the photo on the canvas.
    #[must_use]
    pub fn cut_out(&self, id: usize, answer: &[u8]) -> (Photo, [Vec<u8>; 2]) {
        let Example { canvas, labels, .. } = &self.examples[id];
        let cut = |map: &[u8], channels: usize| -> Vec<u8> {
            let lines = map.chunks_exact(self.columns * channels).take(canvas.height_px);
            lines.flat_map(|line| &line[..canvas.width_px * channels]).copied().collect()
        };
        let (width_px, height_px) = (canvas.width_px as u32, canvas.height_px as u32);
        (Photo { width_px, height_px, rgb: cut(&canvas.pixels, 3) }, [cut(labels, 1), cut(answer, 1)])
    }

    /// Counts what the network answered for a photo, `[rows, columns]`, where the canvas is photo.
    pub fn count(&self, id: usize, answer: &[u8], confusion: &mut Confusion) {
        let Example { canvas, labels, .. } = &self.examples[id];
        let lines = labels.chunks_exact(self.columns).zip(answer.chunks_exact(self.columns));
        for (truth, found) in lines.take(canvas.height_px) {
            confusion.add(&truth[..canvas.width_px], &found[..canvas.width_px]);
        }
    }
}

fn example(dataset: &Dataset, spec: &Spec, record: &PhotoRecord) -> Result<Example> {
    let canvas = canvas::canvas(spec, &record.decode(&dataset.photos_path())?);
    let map = record.category_map();
    let labels = canvas::label_canvas(spec, &canvas, &map, record.width_px as usize, record.height_px as usize);
    if !canvas::are_categories(&labels) {
        let problem = format!("photo {}: a label is not one of the 23 categories", record.file_name);
        return Err(Error::input(dataset.photos_path(), problem));
    }
    Ok(Example { file_name: record.file_name.clone(), canvas, labels })
}
