//! Photos and labels of one split at the network's resolution, held in memory (4 bytes per canvas pixel), and the
//! batches of an epoch, prepared ahead of the training steps.

use std::ops::ControlFlow;
use std::sync::mpsc;
use std::thread;

use rayon::prelude::*;

use crate::canvas::Canvas;
use crate::dataset::{Dataset, PhotoRecord, Split};
use crate::error::Result;
use crate::graph::Spec;
use crate::model::confusion::Confusion;
use crate::model::example::Example;
use crate::photo::{self, Photo};
use crate::train::augment::{Augmentation, Change};
use crate::train::sampling::Turn;
use crate::{stop, threads};

/// Photos decoded at a time; bounds the memory used on top of the result.
const CHUNK: usize = 32;

/// Number of batches prepared ahead.
const BATCHES_AHEAD: usize = 2;

/// The examples of one split, in the order of the dataset.
#[derive(Debug)]
pub struct Examples {
    spec: Spec,
    examples: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    file_name: String,
    canvas: Canvas,
    labels: Vec<u8>,
}

/// A photo with labels by a model.
#[derive(Debug)]
pub(super) struct PseudoLabelled {
    pub(super) file_name: String,
    /// The encoded file.
    pub(super) encoded: Vec<u8>,
    /// `[height, width]` of `size`, over the whole photo; [`IGNORED`](crate::labels::IGNORED) where the model is not
    /// sure.
    pub(super) labels: Vec<u8>,
    /// Width and height of the labels.
    pub(super) size: (u32, u32),
}

/// Photos and labels of one step, concatenated.
#[derive(Debug)]
pub struct Batch {
    /// `[size, rows, columns, 3]`.
    pub photos: Vec<u8>,
    /// `[size, map rows, map columns]`.
    pub labels: Vec<u8>,
    /// Number of photos.
    pub size: usize,
}

impl Batch {
    /// The same photos split into batches of at most `size`.
    pub fn parts(&self, size: usize) -> impl Iterator<Item = Batch> {
        let (photo_len, label_len) = (self.photos.len() / self.size, self.labels.len() / self.size);
        let parts = self.photos.chunks(size * photo_len).zip(self.labels.chunks(size * label_len));
        parts.map(move |(photos, labels)| {
            let size = labels.len() / label_len;
            Batch { photos: photos.to_vec(), labels: labels.to_vec(), size }
        })
    }
}

/// What determines the batches of an epoch.
#[derive(Debug, Clone, Copy)]
pub struct BatchPlan<'a> {
    /// The photos, in their order.
    pub turns: &'a [Turn],
    /// Photos per batch; the last may have fewer.
    pub batch_size: usize,
    /// How strongly photos are changed.
    pub augmentation: Augmentation,
    /// Seed of the run.
    pub seed: u64,
    /// Number of the epoch.
    pub epoch: u32,
}

impl Examples {
    /// No examples yet.
    pub(super) fn none(spec: &Spec) -> Self {
        Self { spec: spec.clone(), examples: Vec::new() }
    }

    /// Reads a split and scales its photos and labels to the network's resolution.
    ///
    /// # Errors
    /// As [`Dataset::photos`]; a photo that cannot be decoded.
    pub fn load(dataset: &Dataset, split: Split, spec: &Spec) -> Result<Self> {
        let mut records = dataset.photos(Some(split))?;
        let mut found = Self::none(spec);
        loop {
            let chunk = records.by_ref().take(CHUNK).collect::<Result<Vec<_>>>()?;
            if chunk.is_empty() {
                return Ok(found);
            }
            stop::check()?;
            let chunk: Result<Vec<_>> = chunk.par_iter().map(|it| held(dataset, spec, it)).collect();
            found.examples.extend(chunk?);
        }
    }

    /// Adds photos with pseudo-labels.
    ///
    /// # Errors
    /// [`crate::error::Error::Stopped`].
    pub(super) fn extend(&mut self, photos: &[PseudoLabelled]) -> Result<()> {
        for chunk in photos.chunks(CHUNK) {
            stop::check()?;
            let spec = &self.spec;
            let held: Vec<_> = chunk.par_iter().map(|it| pseudo_labelled(spec, it)).collect();
            self.examples.extend(held);
        }
        Ok(())
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

    /// Which categories each photo has.
    #[must_use]
    pub fn occurrences(&self) -> Vec<Vec<bool>> {
        let of_labels = |labels: &[u8]| {
            let mut occurs = vec![false; self.spec.maps()];
            for &label in labels {
                if let Some(it) = occurs.get_mut(usize::from(label)) {
                    *it = true;
                }
            }
            occurs
        };
        self.labels().map(of_labels).collect()
    }

    /// The label canvases, `[rows, columns]` each.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        self.examples.iter().map(|it| it.labels.as_slice())
    }

    /// Some photos, each with its change, as one batch.
    #[must_use]
    pub fn batch(&self, changes: &[(usize, Change)]) -> Batch {
        let (spec, size) = (&self.spec, changes.len());
        let (photo_len, label_len) = (spec.rows() * spec.columns() * 3, spec.map_rows() * spec.map_columns());
        let (mut photos, mut labels) = (vec![0; size * photo_len], vec![0; size * label_len]);
        let places = photos.par_chunks_exact_mut(photo_len).zip(labels.par_chunks_exact_mut(label_len));
        places.zip(changes).for_each(|((photo, map), (id, change))| {
            let Held { canvas, labels, .. } = &self.examples[*id];
            change.apply(spec, [canvas.width_px, canvas.height_px], [&canvas.pixels, labels], [photo, map]);
        });
        Batch { photos, labels, size }
    }

    /// Passes the batches of an epoch, each with the turns it is made of, to `work` one by one until it breaks or
    /// fails. Meanwhile a thread prepares the next ones.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn for_each_batch(
        &self,
        plan: BatchPlan<'_>,
        mut work: impl FnMut(Batch, &[Turn]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let change = |turn: &Turn| (turn.photo, plan.augmentation.draw(plan.seed, plan.epoch, *turn));
        let (sender, batches) = mpsc::sync_channel(BATCHES_AHEAD);
        thread::scope(|scope| {
            threads::spawn_in(scope, move || {
                for turns in plan.turns.chunks(plan.batch_size) {
                    let changes: Vec<_> = turns.iter().map(change).collect();
                    // The receiver is gone: `work` stopped early.
                    if sender.send((self.batch(&changes), turns)).is_err() {
                        return;
                    }
                }
            })?;
            for (batch, turns) in batches {
                if work(batch, turns)?.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// A photo as the network sees it, its labels, and the network's output for it, all cropped to the part of the
    /// canvas that the photo covers. `answer` is `[label map rows, label map columns]`.
    #[must_use]
    pub fn cut_out(&self, id: usize, answer: &[u8]) -> (Photo, [Vec<u8>; 2]) {
        let Held { canvas, labels, .. } = &self.examples[id];
        let cut = |map: &[u8], channels: usize| -> Vec<u8> {
            let lines = map.chunks_exact(self.spec.columns() * channels).take(canvas.height_px);
            lines.flat_map(|line| &line[..canvas.width_px * channels]).copied().collect()
        };
        let (width_px, height_px) = (canvas.width_px as u32, canvas.height_px as u32);
        let found = canvas.label_map(&self.spec, answer, (width_px, height_px));
        (Photo { width_px, height_px, rgb: cut(&canvas.pixels, 3) }, [cut(labels, 1), found])
    }

    /// Adds the network's output for a photo, `[label map rows, label map columns]`, to `confusion`, over the part of
    /// the canvas that the photo covers.
    pub fn count(&self, id: usize, answer: &[u8], confusion: &mut Confusion) {
        let Held { canvas, labels, .. } = &self.examples[id];
        let found = canvas.label_map(&self.spec, answer, (canvas.width_px as u32, canvas.height_px as u32));
        for (truth, found) in labels.chunks_exact(self.spec.columns()).zip(found.chunks_exact(canvas.width_px)) {
            confusion.add(&truth[..canvas.width_px], found);
        }
    }
}

/// Leaves out what is at the photo's own size.
fn held(dataset: &Dataset, spec: &Spec, record: &PhotoRecord) -> Result<Held> {
    let Example { canvas, labels, .. } = Example::new(spec, &dataset.photos_path(), record)?;
    Ok(Held { file_name: record.file_name.clone(), canvas, labels })
}

fn pseudo_labelled(spec: &Spec, labelled: &PseudoLabelled) -> Held {
    let PseudoLabelled { file_name, encoded, labels, size } = labelled;
    let photo = photo::decode(encoded).expect("it decoded when it was labelled");
    let canvas = Canvas::new(spec, &photo);
    let labels = canvas.labels(spec, labels, *size);
    Held { file_name: file_name.clone(), canvas, labels }
}
