//! The parts of the table: photos in order of their slots, [`PART_ROWS`] slots per part, each with its state. A part
//! that has not changed is linked instead of written. New rows are saved while the run goes on, so that the next run
//! finds them if this one is killed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{interleave_record_batch, take_record_batch};

use super::earlier::{Earlier, EarlierPhoto, PhotoPlace};
use super::masks;
use super::state::{self, PhotoCertainty, StateRow};
use super::table_figures::TableFigures;
use crate::catalogue::{Catalogue, Entry};
use crate::error::Result;
use crate::features::layout;
use crate::features::rows::{self, Embedding, FeatureRow, Format, IPC_EXTENSION, PART_ROWS};
use crate::labels::LabelSet;
use crate::photo::PhotoProblem;
use crate::rejects::Reject;
use crate::stage::{Digest, Listing, Stat};
use crate::{files, table};

/// The row key of rows that are never reused.
const NO_ROW_KEY: u64 = 0;

/// The result for a photo.
#[derive(Debug)]
pub(super) enum Made {
    /// Its row, made in this run.
    Row(Box<FeatureRow>),
    /// The result of an earlier run is reused.
    Taken(PhotoPlace),
    /// It could not be read this time: its existing row stays.
    Stays(PhotoPlace, PhotoProblem),
    /// It is left out.
    Rejected(PhotoProblem),
}

/// The result for the photo with this index, and what is known about its file.
#[derive(Debug)]
pub(super) struct PhotoOutcome {
    pub(super) index: u32,
    pub(super) stat: Option<Stat>,
    pub(super) content: Option<Digest>,
    /// How sure the network is, of a row made in this run.
    pub(super) certainty: Option<Box<PhotoCertainty>>,
    pub(super) made: Made,
}

/// What is to be done with a photo of the catalogue.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    /// Process it.
    Todo,
    /// Reuse the result of an earlier run.
    Take(PhotoPlace),
}

/// Number of photos by what was done with them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// Reused from the published table.
    pub(super) known: u64,
    /// Whose name is not in the published table.
    pub(super) new: u64,
    /// Whose content has changed since their row was made.
    pub(super) changed: u64,
    /// Whose row was made by another model, or with other settings.
    pub(super) outdated: u64,
    /// Reused from a run that was killed.
    pub(super) resumed: u64,
    /// Reused from another photo with the same content.
    pub(super) same_content: u64,
    /// Not in the catalogue, or unreadable: their rows stay.
    pub(super) kept: u64,
    /// Segmented by the network, or counted by their labels.
    pub(super) segmented: u64,
}

impl Tally {
    /// The counts with their names in `run.json`.
    pub(super) fn named(self) -> [(&'static str, u64); 8] {
        let Self { known, new, changed, outdated, resumed, same_content, kept, segmented } = self;
        [
            ("known", known),
            ("new", new),
            ("changed", changed),
            ("outdated", outdated),
            ("resumed", resumed),
            ("same_content", same_content),
            ("kept", kept),
            ("segmented", segmented),
        ]
    }
}

/// What the parts are made from and where they are written.
pub(super) struct Parts<'a> {
    /// The categories and colours of the rows.
    pub(super) labels: &'a LabelSet,
    pub(super) catalogue: &'a Catalogue,
    pub(super) earlier: &'a Earlier,
    pub(super) fates: &'a [Fate],
    /// The folder to be published.
    pub(super) folder: PathBuf,
    pub(super) format: Format,
    pub(super) masks: bool,
    /// The row key of rows made in this run: what they depend on besides the content.
    pub(super) row_key: u64,
    /// What the embeddings of the table are, if it has some.
    pub(super) embedding: Option<Embedding>,
    pub(super) unfinished: Unfinished,
}

/// A part some of whose photos are still being processed.
#[derive(Default)]
struct Open {
    outcomes: Vec<PhotoOutcome>,
    waiting: usize,
}

/// A summary of the written parts.
#[derive(Default)]
pub(super) struct Written {
    pub(super) tally: Tally,
    pub(super) rejects: Vec<Reject>,
    /// Number of linked parts, and of all parts.
    pub(super) linked_parts: usize,
    pub(super) parts: usize,
    /// Number of photos in the published table that are no longer in the catalogue, and of all its photos.
    pub(super) vanished: [u64; 2],
    /// The files of the photos in the catalogue.
    pub(super) listing: Listing,
    /// Contents of the photos that have masks, if masks are written.
    pub(super) masks: HashSet<Digest>,
    /// Contents of the photos that the network is least certain of, if only these have masks.
    pub(super) uncertain: Option<HashSet<Digest>>,
    /// The place of each part among those of all shards, if it has photos.
    pub(super) places: Vec<u32>,
    /// The sums over the rows, if they are known without reading them.
    pub(super) figures: Option<TableFigures>,
    /// Identity of the model, unless shards are merged.
    pub(super) model_id: Option<String>,
    /// The categories and colours of the rows.
    pub(super) labels: LabelSet,
}

/// Takes outcomes in any order and writes each part once it is complete.
pub(super) struct Writer<'a> {
    parts: &'a mut Parts<'a>,
    /// The photos of each part, by part number.
    ranges: BTreeMap<u32, Range<usize>>,
    open: HashMap<u32, Open>,
    files: BTreeSet<u32>,
    written: Written,
}

impl<'a> Writer<'a> {
    pub(super) fn new(parts: &'a mut Parts<'a>) -> Self {
        let mut ranges: BTreeMap<u32, Range<usize>> = BTreeMap::new();
        for (index, entry) in parts.catalogue.entries.iter().enumerate() {
            ranges.entry(part_of(entry)).or_insert(index..index).end = index + 1;
        }
        let written = Written { labels: parts.labels.clone(), ..Written::default() };
        Self { parts, ranges, open: HashMap::new(), files: BTreeSet::new(), written }
    }

    /// Takes the outcome of a processed photo.
    pub(super) fn push(&mut self, outcome: PhotoOutcome) -> Result<()> {
        let parts = &mut *self.parts;
        let number = part_of(&parts.catalogue.entries[outcome.index as usize]);
        let open = self.open.entry(number).or_insert_with(|| {
            let todo = parts.fates[self.ranges[&number].clone()].iter().filter(|fate| matches!(fate, Fate::Todo));
            Open { outcomes: Vec::new(), waiting: todo.count() }
        });
        if let Made::Row(row) = &outcome.made {
            let state = state_of(&parts.catalogue.entries[outcome.index as usize], &outcome, parts.row_key, None);
            parts.unfinished.push(row, state)?;
        }
        open.waiting -= 1;
        open.outcomes.push(outcome);
        if open.waiting > 0 {
            return Ok(());
        }
        let open = self.open.remove(&number).expect("it was there");
        self.write(number, open.outcomes)
    }

    /// Writes the parts in which nothing had to be processed, and gives all parts their final numbers.
    pub(super) fn close(mut self) -> Result<Written> {
        let rest: Vec<u32> = self.ranges.keys().filter(|number| !self.files.contains(number)).copied().collect();
        for number in rest {
            crate::stop::check()?;
            self.write(number, Vec::new())?;
        }
        if self.files.is_empty() {
            self.write_files(0, &rows::batch_of(self.parts.labels, &[], self.parts.embedding.as_ref()), &[])?;
        }
        for (place, &number) in self.files.iter().enumerate() {
            self.parts.rename(number, place)?;
        }
        self.written.parts = self.files.len();
        self.written.places = self.ranges.keys().copied().collect();
        self.written.rejects.extend(self.parts.catalogue.rejects.iter().cloned());
        self.written.rejects.sort_by(|a, b| a.item.cmp(&b.item));
        Ok(self.written)
    }

    /// Writes a part from what was processed and what is reused.
    fn write(&mut self, number: u32, mut outcomes: Vec<PhotoOutcome>) -> Result<()> {
        for index in self.ranges[&number].clone() {
            if let Fate::Take(place) = self.parts.fates[index] {
                let state = &self.parts.earlier.photo(place).state;
                let (stat, content) = (state.stat, state.content);
                let made = Made::Taken(place);
                outcomes.push(PhotoOutcome { index: index as u32, stat, content, certainty: None, made });
            }
        }
        outcomes.sort_by_key(|outcome| outcome.index);
        let states = self.settle(&outcomes)?;
        if let Some((folder, part)) = self.parts.same_part(&outcomes, &states) {
            return self.link(number, folder, part, &states);
        }
        let rows = self.parts.rows(&outcomes)?;
        self.write_files(number, &rows, &states)
    }

    fn write_files(&mut self, number: u32, rows: &RecordBatch, states: &[StateRow]) -> Result<()> {
        rows::write_part(&self.parts.file(number, "parquet"), rows, self.parts.format)?;
        state::write(&self.parts.file(number, "state"), states)?;
        self.files.insert(number);
        Ok(())
    }

    /// Links a part that is unchanged from an earlier folder; only its state may differ.
    fn link(&mut self, number: u32, folder: u16, part: u32, states: &[StateRow]) -> Result<()> {
        let earlier = &self.parts.earlier.folders[usize::from(folder)];
        let path = earlier.part_path(part);
        files::adopt(&path, &self.parts.file(number, "parquet"))?;
        if self.parts.format == Format::Arrow {
            files::adopt(&path.with_extension(IPC_EXTENSION), &self.parts.file(number, IPC_EXTENSION))?;
        }
        let before = earlier.part(part).map(|photo| &earlier.photos[photo as usize].state);
        if before.eq(states) {
            files::adopt(earlier.state_path(part), &self.parts.file(number, "state"))?;
        } else {
            state::write(&self.parts.file(number, "state"), states)?;
        }
        self.files.insert(number);
        self.written.linked_parts += 1;
        Ok(())
    }

    /// Counts the outcomes, notes the rejects and keeps the masks of a part; returns its states.
    fn settle(&mut self, outcomes: &[PhotoOutcome]) -> Result<Vec<StateRow>> {
        let mut states = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let entry = &self.parts.catalogue.entries[outcome.index as usize];
            let before = match outcome.made {
                Made::Taken(place) | Made::Stays(place, _) => Some(self.parts.state(place)),
                Made::Row(_) | Made::Rejected(_) => None,
            };
            let state = state_of(entry, outcome, self.parts.row_key, before.as_ref());
            let problem = match &outcome.made {
                Made::Stays(_, problem) => Some((problem.reason.to_owned(), problem.detail.clone())),
                _ => state.reject.clone(),
            };
            if let Some((reason, detail)) = problem {
                let item = self.parts.catalogue.path_of(entry).to_string_lossy().into_owned();
                self.written.rejects.push(Reject { item, reason: reason.into(), detail });
            }
            if !entry.kept && self.parts.catalogue.dataset().is_none() {
                let content = state.content.filter(|_| !matches!(outcome.made, Made::Stays(..)));
                self.written.listing.add(entry.name.clone(), state.stat, content);
            }
            self.parts.count(entry, outcome, &mut self.written.tally);
            self.parts.keep_mask(outcome)?;
            self.written.masks.extend(outcome.content.filter(|_| self.parts.masks && state.reject.is_none()));
            states.push(state);
        }
        Ok(states)
    }
}

impl Parts<'_> {
    /// A file of the part, before the parts have their final numbers.
    fn file(&self, number: u32, ending: &str) -> PathBuf {
        self.folder.join(format!("slots-{number}.{ending}"))
    }

    /// Gives a part its final number; these have no gaps.
    fn rename(&self, number: u32, place: usize) -> Result<()> {
        let part = self.folder.join(table::part_name(place));
        let mut names = vec![(self.file(number, "parquet"), part.clone())];
        names.push((self.file(number, "state"), self.folder.join(layout::state_file(place))));
        if self.format == Format::Arrow {
            names.push((self.file(number, IPC_EXTENSION), part.with_extension(IPC_EXTENSION)));
        }
        names.iter().try_for_each(|(from, to)| files::rename(from, to))
    }

    /// The part of an earlier folder that has exactly these rows, ids, names and paths.
    fn same_part(&self, outcomes: &[PhotoOutcome], states: &[StateRow]) -> Option<(u16, u32)> {
        let taken = |outcome: &PhotoOutcome| match outcome.made {
            Made::Taken(place) | Made::Stays(place, _) => Some(place),
            Made::Row(_) | Made::Rejected(_) => None,
        };
        let first = taken(outcomes.first()?)?;
        let folder = self.earlier.folder(first);
        let (part, _) = outcomes.iter().find_map(|outcome| self.earlier.photo(taken(outcome)?).row)?;
        let range = folder.part(part);
        let in_order = range.len() == outcomes.len()
            && outcomes
                .iter()
                .zip(range.clone())
                .all(|(outcome, photo)| taken(outcome) == Some(PhotoPlace { folder: first.folder, photo }));
        let named = |(photo, state): (u32, &StateRow)| {
            let before = &folder.photos[photo as usize].state;
            (before.photo_id, &before.name) == (state.photo_id, &state.name)
        };
        let has_format =
            self.format == Format::Parquet || folder.part_path(part).with_extension(IPC_EXTENSION).is_file();
        let has_columns = folder.has_columns(part, self.embedding.as_ref());
        let same = in_order && range.zip(states).all(named) && has_format && has_columns && folder.has_same_paths();
        same.then_some((first.folder, part))
    }

    /// The rows of a part.
    fn rows(&self, outcomes: &[PhotoOutcome]) -> Result<RecordBatch> {
        let mut made: Vec<FeatureRow> = Vec::new();
        let mut names = Vec::new();
        // Where each row comes from: this run's new rows (`None`), or an earlier part.
        let mut from: Vec<Option<(u16, u32, u32)>> = Vec::new();
        for outcome in outcomes {
            let source = match &outcome.made {
                Made::Row(row) => {
                    made.push((**row).clone());
                    None
                }
                Made::Taken(place) | Made::Stays(place, _) => match self.earlier.photo(*place).row {
                    Some((part, row)) => Some((place.folder, part, row)),
                    None => continue,
                },
                Made::Rejected(_) => continue,
            };
            from.push(source);
            names.push(self.names(outcome.index));
        }
        let made = rows::batch_of(self.labels, &made, self.embedding.as_ref());
        if from.iter().all(Option::is_none) {
            return Ok(made);
        }
        Ok(rows::renamed(&self.gathered(made, &from)?, &names))
    }

    /// New rows and rows of earlier parts, in the order of `from`; only one earlier part is in memory at a time.
    pub(super) fn gathered(&self, made: RecordBatch, from: &[Option<(u16, u32, u32)>]) -> Result<RecordBatch> {
        let mut wanted: BTreeMap<(u16, u32), Vec<u32>> = BTreeMap::new();
        for (folder, part, row) in from.iter().flatten() {
            wanted.entry((*folder, *part)).or_default().push(*row);
        }
        let mut batches = vec![made];
        let mut places: HashMap<(u16, u32), usize> = HashMap::new();
        for ((folder, part), rows) in wanted {
            let all = self.earlier.folders[usize::from(folder)].rows(part)?;
            let taken = take_record_batch(&all, &UInt32Array::from(rows)).expect("rows that the part has");
            places.insert((folder, part), batches.len());
            batches.push(rows::with_columns(taken, self.labels, self.embedding.as_ref()));
        }
        let mut next = vec![0; batches.len()];
        let order = from.iter().map(|source| {
            let batch = source.map_or(0, |(folder, part, _)| places[&(folder, part)]);
            next[batch] += 1;
            (batch, next[batch] - 1)
        });
        let order: Vec<_> = order.collect();
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        Ok(interleave_record_batch(&batches, &order).expect("batches of one schema, rows within them"))
    }

    /// The state of a photo of an earlier run. A row that stays without its embedding, because that is another embedder's, was
    /// made by nothing that a later run could ask for.
    pub(super) fn state(&self, place: PhotoPlace) -> StateRow {
        let EarlierPhoto { state, row } = self.earlier.photo(place);
        let embedding = row.map(|(part, _)| self.earlier.folder(place).embedding(part));
        let is_whole = embedding.is_none_or(|it| it == self.embedding.as_ref());
        StateRow { row_key: if is_whole { state.row_key } else { NO_ROW_KEY }, ..state.clone() }
    }

    /// Id, file name and path of a row.
    fn names(&self, index: u32) -> (u32, String, String) {
        names_of(self.catalogue, &self.catalogue.entries[index as usize])
    }

    fn keep_mask(&self, outcome: &PhotoOutcome) -> Result<()> {
        let (Made::Taken(place) | Made::Stays(place, _), Some(content)) = (&outcome.made, &outcome.content) else {
            return Ok(());
        };
        let path = self.folder.join(masks::FOLDER).join(masks::name(content));
        match self.earlier.folder(*place).mask(place.photo) {
            Some(mask) if self.masks && !path.exists() => {
                files::create_folder(&files::parent_of(&path))?;
                files::adopt(&mask, &path)
            }
            _ => Ok(()),
        }
    }

    fn count(&self, entry: &Entry, outcome: &PhotoOutcome, tally: &mut Tally) {
        let before = self.earlier.in_published(&entry.name).map(|place| &self.earlier.photo(place).state);
        let count = match outcome.made {
            Made::Rejected(_) => return,
            Made::Stays(..) => &mut tally.kept,
            Made::Taken(_) if entry.kept => &mut tally.kept,
            Made::Taken(place) if self.earlier.photo(place).row.is_none() => return,
            Made::Taken(place) if Some(place.folder) != self.earlier.published => &mut tally.resumed,
            Made::Taken(place) if self.earlier.photo(place).state.name == entry.name => &mut tally.known,
            Made::Taken(_) => {
                tally.same_content += 1;
                if before.is_some() { &mut tally.changed } else { &mut tally.new }
            }
            Made::Row(_) => {
                tally.segmented += 1;
                match before {
                    Some(before) if before.row_key != self.row_key => &mut tally.outdated,
                    Some(_) => &mut tally.changed,
                    None => &mut tally.new,
                }
            }
        };
        *count += 1;
    }
}

/// Id, file name and path of a photo's row.
pub(super) fn names_of(catalogue: &Catalogue, entry: &Entry) -> (u32, String, String) {
    let path = catalogue.path_of(entry);
    let file_name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    (entry.photo_id, file_name, path.to_string_lossy().into_owned())
}

fn part_of(entry: &Entry) -> u32 {
    entry.slot / PART_ROWS as u32
}

fn state_of(entry: &Entry, outcome: &PhotoOutcome, row_key: u64, before: Option<&StateRow>) -> StateRow {
    let reject = match &outcome.made {
        Made::Rejected(problem) => Some((problem.reason.to_owned(), problem.detail.clone())),
        Made::Row(_) | Made::Stays(..) => None,
        Made::Taken(_) => before.and_then(|it| it.reject.clone()),
    };
    StateRow {
        photo_id: entry.photo_id,
        name: entry.name.clone(),
        stat: outcome.stat,
        content: outcome.content,
        row_key: before.map_or(row_key, |it| it.row_key),
        certainty: outcome.certainty.clone().or_else(|| before.and_then(|it| it.certainty.clone())),
        reject,
    }
}

/// Rows made in this run, saved in the layout of a features folder.
pub(super) struct Unfinished {
    labels: LabelSet,
    folder: PathBuf,
    masks: Option<PathBuf>,
    number: usize,
    every: usize,
    embedding: Option<Embedding>,
    rows: Vec<FeatureRow>,
    states: Vec<StateRow>,
}

impl Unfinished {
    /// Continues after the files already in `folder`, writing one file per `every` rows; the photos' masks are in
    /// `masks`.
    pub(super) fn new(
        labels: &LabelSet,
        folder: &Path,
        masks: Option<PathBuf>,
        every: usize,
        embedding: Option<Embedding>,
    ) -> Result<Self> {
        let mut number = 0;
        while files::is_there(&folder.join(layout::find(folder, layout::state_file(number))?))? {
            number += 1;
        }
        let (labels, folder, rows, states) = (labels.clone(), folder.to_owned(), Vec::new(), Vec::new());
        Ok(Self { labels, folder, masks, number, every, embedding, rows, states })
    }

    fn push(&mut self, row: &FeatureRow, state: StateRow) -> Result<()> {
        self.rows.push(row.clone());
        self.states.push(state);
        if self.rows.len() < self.every {
            return Ok(());
        }
        let states = self.folder.join(layout::STATE_FOLDER);
        files::create_folder(&states)?;
        let path = self.folder.join(table::part_name(self.number));
        let rows = rows::batch_of(&self.labels, &self.rows, self.embedding.as_ref());
        rows::write_part(&path, &rows, Format::Parquet)?;
        files::flush(&self.folder)?;
        // The state is written last, atomically: a part without one does not count, and it vouches for the masks as
        // well.
        if let Some(masks) = &self.masks {
            self.states.iter().filter_map(|it| it.content).try_for_each(|it| masks::flush(masks, &it))?;
        }
        let state = self.folder.join(layout::state_file(self.number));
        let beside = state.with_extension("partial");
        state::write(&beside, &self.states)?;
        files::rename(&beside, &state)?;
        files::flush(&states)?;
        self.rows.clear();
        self.states.clear();
        self.number += 1;
        Ok(())
    }
}
