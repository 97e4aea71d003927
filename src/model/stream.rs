//! Streams photos through networks with bounded queues: workers read, decode and lay them out; the networks take batches as
//! they come; after them, answers are worked on and passed on. Memory does not grow with the number of photos, and nothing
//! waits for the slowest one. What is read, and what becomes of an answer, is the stage's [`Work`].

use std::borrow::Cow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use super::layout::{Answer, Laid};
use super::predictor::{BATCH_SIZE, Predictor};
use crate::catalogue::{Catalogue, Item};
use crate::error::Result;
use crate::parser::{Canvas, Embedder};
use crate::photo::{self, Decoded, PhotoProblem};
use crate::stage::Stat;
use crate::{stop, store, threads};

/// Maximum number of photos waiting for the network, besides those held by workers: the current batch and the next.
const READY_PHOTOS: usize = 2 * BATCH_SIZE;
/// Photos that are fetched from an object store at the same time, so that its answers overlap.
const FETCHED_AT_ONCE: usize = 32;
/// Maximum number of batches waiting to be counted.
const ANSWERED_BATCHES: usize = 2;
/// A file that was changed less than this before it was read may change again without its timestamp changing.
const SETTLED: Duration = Duration::from_secs(2);

/// What a stage does with photos.
pub(crate) trait Work: Sync {
    /// A photo that is to be read.
    type Item: Send;
    /// What is known about a photo while the network has it.
    type Photo: Send;
    /// What becomes of a photo.
    type Outcome: Send;

    /// Whether some photos lie in an object store, so that many are fetched at the same time.
    fn has_stored(&self) -> bool;

    /// Reads a photo and lays it out for the networks, unless its outcome is known without them.
    ///
    /// # Errors
    /// What ends the stage.
    fn prepare(&self, item: &Self::Item) -> Result<Prepared<Self::Photo, Self::Outcome>>;

    /// The outcome of a photo by the network's answer and its embedding.
    ///
    /// # Errors
    /// What ends the stage.
    fn count(
        &self,
        photo: &OnCanvas<Self::Photo>,
        answer: &Answer,
        embedding: Option<Vec<f32>>,
    ) -> Result<Self::Outcome>;
}

/// A photo on its way through the network.
pub(crate) struct OnCanvas<P> {
    pub(crate) of: P,
    pub(crate) decoded: Decoded,
    pub(crate) laid: Laid,
    /// The photo on the embedder's input, if there is one.
    pub(crate) for_embedder: Option<Canvas>,
}

/// The output of a worker.
pub(crate) enum Prepared<P, O> {
    Done(O),
    OnCanvas(Box<OnCanvas<P>>),
}

/// The output of the network step.
enum Answered<P, O> {
    Done(O),
    /// With the network's answer and the embedding.
    OnCanvas(Box<OnCanvas<P>>, Answer, Option<Vec<f32>>),
}

type Items<'a, I> = Box<dyn Iterator<Item = Result<I>> + Send + 'a>;

/// Processes all items with `workers` threads (or more of them, which mostly wait, if the photos lie in an object store) and
/// passes each outcome to `sink`, in any order.
pub(crate) fn run<W: Work>(
    work: &W,
    networks: (Option<&mut Predictor>, Option<&mut Embedder>),
    items: Items<W::Item>,
    workers: usize,
    sink: impl FnMut(W::Outcome) -> Result<()> + Send,
) -> Result<()> {
    let items = Mutex::new(items);
    let workers = if work.has_stored() { workers.max(FETCHED_AT_ONCE) } else { workers };
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
fn prepare_all<W: Work>(
    work: &W,
    items: &Mutex<Items<W::Item>>,
    prepared: &SyncSender<Result<Prepared<W::Photo, W::Outcome>>>,
) {
    loop {
        let item = items.lock().expect("no worker panics with it").next();
        let Some(item) = item else { return };
        if prepared.send(item.and_then(|item| work.prepare(&item))).is_err() {
            return;
        }
    }
}

/// Runs the networks on the incoming photos, in batches.
fn predict_all<P, O>(
    (mut predictor, mut embedder): (Option<&mut Predictor>, Option<&mut Embedder>),
    prepared: &Receiver<Result<Prepared<P, O>>>,
    answered: &SyncSender<Vec<Answered<P, O>>>,
) -> Result<()> {
    let mut batch: Vec<Box<OnCanvas<P>>> = Vec::with_capacity(BATCH_SIZE);
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

/// Works on the network's answers and passes the outcomes on.
fn count_all<W: Work>(
    work: &W,
    answered: Receiver<Vec<Answered<W::Photo, W::Outcome>>>,
    mut sink: impl FnMut(W::Outcome) -> Result<()>,
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

/// Reads a photo of a catalogue: from its row in the dataset, or as [`read`].
pub(crate) fn read_item<'a>(
    catalogue: &Catalogue,
    item: &'a Item,
) -> Result<(Option<Stat>, Cow<'a, [u8]>), PhotoProblem> {
    if let Some(row) = &item.row {
        return Ok((None, Cow::Borrowed(row.encoded())));
    }
    let entry = &catalogue.entries[item.index as usize];
    read(&catalogue.path_of(entry), entry.stat).map(|(stat, bytes)| (Some(stat), Cow::Owned(bytes)))
}

/// Reads a file; also returns what the file system reported about it before it was read, or what its object store did: in the
/// listing (`listed`) if that is of the same object, because the next listing is what it will be compared with, and some
/// stores list no entity tags, or write them otherwise.
fn read(path: &Path, listed: Option<Stat>) -> Result<(Stat, Vec<u8>), PhotoProblem> {
    if store::is_url(path) {
        let (object, bytes) = photo::fetch(path)?;
        let stat = Stat::of_object(&object);
        let is_it = |it: &Stat| (it.bytes, it.modified_us) == (stat.bytes, stat.modified_us);
        return Ok((listed.filter(is_it).unwrap_or(stat), bytes));
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
