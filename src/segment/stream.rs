//! Streams photos through the network with bounded queues: workers read, decode and lay them out; the network takes
//! batches as they come; after it, pixels are counted and rows passed on. Memory does not grow with the catalogue, and
//! nothing waits for the slowest photo.

use std::borrow::Cow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use super::config::{Config, LABELS_MODEL_ID};
use super::counter::Counter;
use super::earlier::{Earlier, Wanted, digest};
use super::masks;
use super::parts::{Made, PhotoOutcome, names_of};
use super::state::PhotoCertainty;
use crate::catalogue::{Catalogue, Entry, Item};
use crate::dataset::PhotoRecord;
use crate::error::Result;
use crate::features::PixelCounts;
use crate::features::rows::FeatureRow;
use crate::files::hexadecimal;
use crate::model::layout::{Answer, Laid, Layout};
use crate::model::predictor::{BATCH_SIZE, Predictor};
use crate::parser::{self, Canvas, Embedder};
use crate::photo::hashes::PhotoHashes;
use crate::photo::{self, Decoded, Decoding, FIT_HEIGHT_PX, FIT_WIDTH_PX, PhotoProblem};
use crate::stage::{Digest, Stat};
use crate::{reason, stop, store, threads};

/// Maximum number of photos waiting for the network, besides those held by workers: the current batch and the next.
const READY_PHOTOS: usize = 2 * BATCH_SIZE;
/// Photos that are fetched from an object store at the same time, so that its answers overlap.
const FETCHED_AT_ONCE: usize = 32;
/// Maximum number of batches waiting to be counted.
const ANSWERED_BATCHES: usize = 2;
/// A file that was changed less than this before it was read may change again without its timestamp changing.
const SETTLED: Duration = Duration::from_secs(2);

/// What the workers need.
pub(super) struct Work<'a> {
    pub(super) config: &'a Config,
    pub(super) catalogue: &'a Catalogue,
    pub(super) earlier: &'a Earlier,
    pub(super) counter: &'a Counter,
    pub(super) wanted: Wanted,
    /// The folder to write masks to, if any.
    pub(super) masks: Option<std::path::PathBuf>,
    /// The network's input, onto which photos are laid; `None` without a network.
    pub(super) layout: Option<Layout>,
    /// The embedder's input; `None` without an embedder.
    pub(super) embedder: Option<Arc<parser::Layout>>,
    pub(super) model_id: &'a str,
}

/// A photo on its way through the network.
struct OnCanvas {
    index: u32,
    stat: Option<Stat>,
    content: Digest,
    decoded: Decoded,
    laid: Laid,
    /// The photo on the embedder's input, if there is one.
    for_embedder: Option<Canvas>,
}

/// The output of a worker.
enum Prepared {
    Done(PhotoOutcome),
    OnCanvas(Box<OnCanvas>),
}

/// The output of the network step.
enum Answered {
    Done(PhotoOutcome),
    /// With the network's answer and the embedding.
    OnCanvas(Box<OnCanvas>, Answer, Option<Vec<f32>>),
}

type Items<'a> = Box<dyn Iterator<Item = Result<Item>> + Send + 'a>;

/// Processes all items with `workers` threads (or more of them, which mostly wait, if the photos lie in an object store) and
/// passes each outcome to `sink`, in any order.
pub(super) fn run(
    work: &Work,
    networks: (Option<&mut Predictor>, Option<&mut Embedder>),
    items: Items,
    workers: usize,
    sink: impl FnMut(PhotoOutcome) -> Result<()> + Send,
) -> Result<()> {
    let items = Mutex::new(items);
    let workers = if work.catalogue.has_stored() { workers.max(FETCHED_AT_ONCE) } else { workers };
    std::thread::scope(|scope| {
        let (prepared, to_answer) = sync_channel(READY_PHOTOS);
        let (answered, to_count) = sync_channel(ANSWERED_BATCHES);
        for _ in 0..workers {
            let (prepared, items) = (prepared.clone(), &items);
            threads::spawn_in(scope, move || prepare_all(work, items, &prepared))?;
        }
        drop(prepared);
        let counting = threads::spawn_in(scope, move || count_all(work, to_count, sink))?;
        let predicted = predict_all(networks, &to_answer, &answered);
        drop((to_answer, answered));
        let counted = counting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // If counting failed, the network only noticed that its receiver was gone, so report the former.
        counted.and(predicted)
    })
}

/// A worker's loop: runs until there are no more items, or nobody receives its results.
fn prepare_all(work: &Work, items: &Mutex<Items>, prepared: &SyncSender<Result<Prepared>>) {
    loop {
        let item = items.lock().expect("no worker panics with it").next();
        let Some(item) = item else { return };
        if prepared.send(item.and_then(|item| work.prepare(&item))).is_err() {
            return;
        }
    }
}

/// Runs the networks on the incoming photos, in batches.
fn predict_all(
    (mut predictor, mut embedder): (Option<&mut Predictor>, Option<&mut Embedder>),
    prepared: &Receiver<Result<Prepared>>,
    answered: &SyncSender<Vec<Answered>>,
) -> Result<()> {
    let mut batch: Vec<Box<OnCanvas>> = Vec::with_capacity(BATCH_SIZE);
    loop {
        stop::check()?;
        let next = prepared.recv().ok().transpose()?;
        let at_end = next.is_none();
        let mut ready = Vec::new();
        match next {
            Some(Prepared::Done(outcome)) => ready.push(Answered::Done(outcome)),
            Some(Prepared::OnCanvas(photo)) => batch.push(photo),
            None => {}
        }
        if batch.len() == BATCH_SIZE || (at_end && !batch.is_empty()) {
            let predictor = predictor.as_mut().expect("photos are laid out for a network");
            let answers = predictor.run(batch.iter().map(|it| &it.laid))?;
            let canvases: Vec<_> = batch.iter().filter_map(|it| it.for_embedder.as_ref()).collect();
            let embeddings = match &mut embedder {
                Some(embedder) => embedder.run(&canvases)?,
                None => vec![None; batch.len()],
            };
            let answered = batch.drain(..).zip(answers).zip(embeddings);
            ready.extend(answered.map(|((photo, answer), embedding)| Answered::OnCanvas(photo, answer, embedding)));
        }
        if (!ready.is_empty() && answered.send(ready).is_err()) || at_end {
            return Ok(());
        }
    }
}

/// Counts the pixels of the network's answers and passes the outcomes on.
fn count_all(
    work: &Work,
    answered: Receiver<Vec<Answered>>,
    mut sink: impl FnMut(PhotoOutcome) -> Result<()>,
) -> Result<()> {
    for batch in answered {
        let outcomes = batch.into_par_iter().map(|it| match it {
            Answered::Done(outcome) => Ok(outcome),
            Answered::OnCanvas(photo, answer, embedding) => work.count(&photo, &answer, embedding),
        });
        outcomes.collect::<Result<Vec<_>>>()?.into_iter().try_for_each(&mut sink)?;
    }
    Ok(())
}

impl Work<'_> {
    /// Reads a photo, and decodes it unless an earlier run already processed this content.
    fn prepare(&self, item: &Item) -> Result<Prepared> {
        let index = item.index;
        let entry = &self.catalogue.entries[index as usize];
        let read = match &item.record {
            Some(record) => Ok((None, Cow::Borrowed(&record.encoded[..]))),
            None => read(&self.catalogue.path_of(entry)).map(|(stat, bytes)| (Some(stat), Cow::Owned(bytes))),
        };
        let (stat, bytes) = match read {
            Ok(read) => read,
            Err(problem) => {
                let limit = problem.limit(&self.catalogue.path_of(entry));
                return limit.map_or_else(|| Ok(Prepared::Done(self.unread(index, problem))), Err);
            }
        };
        let content = digest(&bytes);
        let done =
            |made| Ok(Prepared::Done(PhotoOutcome { index, stat, content: Some(content), certainty: None, made }));
        if let Some(place) = self.earlier.by_content(&entry.name, &content, self.wanted) {
            return done(Made::Taken(place));
        }
        let Some(layout) = &self.layout else {
            let record = item.record.as_ref().expect("labels come with a dataset's photos");
            return done(self.labelled(entry, record, &content)?);
        };
        match layout.read_for(&bytes, self.config.max_pixels(), self.embedder.as_deref()) {
            Ok((decoded, laid, for_embedder)) => {
                Ok(Prepared::OnCanvas(Box::new(OnCanvas { index, stat, content, decoded, laid, for_embedder })))
            }
            Err(problem) => done(Made::Rejected(problem)),
        }
    }

    /// The outcome for a file that could not be read. If the disk or a permission is to blame, the previous version's
    /// row stays.
    fn unread(&self, index: u32, problem: PhotoProblem) -> PhotoOutcome {
        let entry = &self.catalogue.entries[index as usize];
        let not_its_fault = [reason::NO_PERMISSION, reason::IO_ERROR].contains(&problem.reason);
        let before = self.earlier.in_published(&entry.name).filter(|&it| self.earlier.photo(it).row.is_some());
        let (stat, content, made) = match before {
            Some(place) if not_its_fault => {
                let state = &self.earlier.photo(place).state;
                (state.stat, state.content, Made::Stays(place, problem))
            }
            _ => (None, None, Made::Rejected(problem)),
        };
        PhotoOutcome { index, stat, content, certainty: None, made }
    }

    /// Counts a photo of a dataset by its labels.
    fn labelled(&self, entry: &Entry, record: &PhotoRecord, content: &Digest) -> Result<Made> {
        let label_map = record.category_map();
        let counter = self.counter;
        let size = (record.width_px, record.height_px);
        let (counts, hashes) = if let Some(colors) = record.color_map() {
            let labels = counter.colors.labels();
            let counts = PixelCounts::of(labels, &label_map, record.width_px, counter.rule, |pixel| colors[pixel]);
            // Only for its hashes: a row of labels does not depend on whether the photo can be decoded.
            let decoded = photo::decode_with(&record.encoded, Decoding::fitted(self.config.max_pixels()));
            (counts, decoded.map(|it| PhotoHashes::of(&it.photo)).unwrap_or_default())
        } else {
            let photo = match photo::decode(&record.encoded) {
                Ok(photo) => photo,
                Err(problem) => return Ok(Made::Rejected(problem)),
            };
            if photo.size() != size {
                let detail =
                    format!("its labels have a different size, {} x {} pixels", record.width_px, record.height_px);
                return Ok(Made::Rejected(PhotoProblem::new(reason::OTHER_SIZE, detail)));
            }
            let hashes = PhotoHashes::of(&photo::fit(&photo, FIT_WIDTH_PX, FIT_HEIGHT_PX));
            (counter.colors.count(&photo, &label_map, counter.rule), hashes)
        };
        if let Some(folder) = &self.masks {
            masks::write(folder, content, counter.colors.labels(), &label_map, record.width_px)?;
        }
        Ok(Made::Row(Box::new(self.row(entry, content, LABELS_MODEL_ID, [size; 2], (counts, hashes)))))
    }

    /// Counts a photo's pixels by the network's answer.
    fn count(&self, it: &OnCanvas, answer: &Answer, embedding: Option<Vec<f32>>) -> Result<PhotoOutcome> {
        let layout = self.layout.as_ref().expect("photos are laid out for a network");
        let entry = &self.catalogue.entries[it.index as usize];
        let Decoded { photo, own_width_px, own_height_px } = &it.decoded;
        let own = (*own_width_px, *own_height_px);
        let label_map = |size| layout.label_map(&it.laid, answer, size, &entry.name);
        let (fitted, of_pixels) = if self.wanted.certainty {
            layout.label_map_with_certainty(&it.laid, answer, photo.size(), &entry.name)?
        } else {
            (label_map(photo.size())?, None)
        };
        let labels = self.counter.colors.labels();
        let certainty = of_pixels.map(|it| Box::new(PhotoCertainty::of(&fitted, &it, labels.category_count())));
        let counts = self.counter.colors.count(photo, &fitted, self.counter.rule);
        let hashes = PhotoHashes::of(photo);
        if let Some(folder) = &self.masks {
            masks::write(folder, &it.content, labels, &label_map(own)?, own.0)?;
        }
        let row = self.row(entry, &it.content, self.model_id, [photo.size(), own], (counts, hashes));
        let made = Made::Row(Box::new(FeatureRow { embedding, ..row }));
        Ok(PhotoOutcome { index: it.index, stat: it.stat, content: Some(it.content), certainty, made })
    }

    fn row(
        &self,
        entry: &Entry,
        content: &Digest,
        model_id: &str,
        [size, own_size]: [(u32, u32); 2],
        (counts, hashes): (PixelCounts, PhotoHashes),
    ) -> FeatureRow {
        let (photo_id, file_name, path) = names_of(self.catalogue, entry);
        FeatureRow {
            photo_id,
            file_name,
            path,
            content_sha256: hexadecimal(content),
            model_id: model_id.to_owned(),
            width_px: size.0,
            height_px: size.1,
            photo_width_px: own_size.0,
            photo_height_px: own_size.1,
            counts,
            hashes,
            embedding: None,
        }
    }
}

/// Reads a file; also returns what the file system reported about it before it was read.
fn read(path: &std::path::Path) -> Result<(Stat, Vec<u8>), PhotoProblem> {
    if store::is_url(path) {
        return photo::fetch(path).map(|(object, bytes)| (Stat::of_object(&object), bytes));
    }
    let now = SystemTime::now();
    let stat = Stat::of(&photo::stat(path)?);
    let bytes = photo::read_bytes(path)?;
    let settled = |us: &i64| {
        let before = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(SETTLED);
        i128::from(*us) < before.as_micros() as i128
    };
    Ok((Stat { modified_us: stat.modified_us.filter(settled), ..stat }, bytes))
}

/// The content digest of an item, for a dry run.
pub(super) fn content_of(catalogue: &Catalogue, item: &Item) -> Option<Digest> {
    if let Some(record) = &item.record {
        return Some(digest(&record.encoded));
    }
    let path = catalogue.path_of(&catalogue.entries[item.index as usize]);
    photo::read_bytes(&path).ok().map(|bytes| digest(&bytes))
}
