//! Results of earlier runs over a catalogue: rows that need not be computed again.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::masks;
use super::state::{self, StateRow};
use crate::catalogue::Numbering;
use crate::error::{Error, Result};
use crate::features::layout;
use crate::features::rows::{self, Embedding, PART_ROWS, TABLE};
use crate::files::{self, OpenFolder};
use crate::labels::LabelSet;
use crate::stage::{Digest, Listing, Stat, Summary};
use crate::table::Footer;
use crate::{reason, table};

/// The folder, in the unfinished one, of the rows saved so far, which the next run reuses if this one is killed.
pub const UNFINISHED: &str = "unfinished";

/// Reject reasons that depend on a photo's content alone: they hold until it changes.
const REASONS_OF_CONTENT: [&str; 4] = [reason::EMPTY, reason::UNDECODABLE, reason::TRUNCATED, reason::TOO_MANY_SCANS];

/// Position of a photo of an earlier run: the folder, and the index among its photos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PhotoPlace {
    pub(super) folder: u16,
    pub(super) photo: u32,
}

/// What rows must have been made with to be reused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) row_key: u64,
    /// Whether a mask is needed as well.
    pub(super) mask: bool,
    /// Whether the network's certainty is needed as well.
    pub(super) certainty: bool,
}

/// A photo of an earlier run.
#[derive(Debug)]
pub(super) struct EarlierPhoto {
    pub(super) state: StateRow,
    /// The part that has its row, and the row's number; `None` if it was rejected.
    pub(super) row: Option<(u32, u32)>,
}

/// A folder that an earlier run published, or left unfinished.
#[derive(Debug)]
pub(super) struct Folder {
    opened: OpenFolder,
    masks: PathBuf,
    /// Its record, if it has one.
    pub(super) recorded: Option<Summary>,
    /// Whether a part or a state is missing or damaged.
    pub(super) is_damaged: bool,
    /// Whether the paths in its rows are those this run would write.
    same_paths: bool,
    pub(super) photos: Vec<EarlierPhoto>,
    /// For each part, the end of its range in `photos`.
    ends: Vec<u32>,
    /// For each part, the file of its state.
    states: Vec<PathBuf>,
    /// For each part, its columns, if it can be read.
    schemas: Vec<Option<SchemaRef>>,
    /// For each part, what its embeddings are, if it has some.
    embeddings: Vec<Option<Embedding>>,
    by_name: HashMap<Arc<str>, u32>,
    /// Photos with a known content, in order of digest.
    by_content: Vec<u32>,
}

impl Folder {
    /// Opens a folder; `None` if it does not exist or has no states. Damaged files in it are logged and ignored, and of rows
    /// of other labels than `labels` only the ids are used.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read: its rows are not discarded because of a disk error.
    pub(super) fn open(folder: &Path, labels: &LabelSet) -> Result<Option<Self>> {
        if files::is_there(folder)? { Self::read(OpenFolder::open(folder)?, labels) } else { Ok(None) }
    }

    /// Opens what a killed run left in the stage's unfinished folder.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub(super) fn unfinished(partial: &Path, labels: &LabelSet) -> Result<Option<Self>> {
        let masks = partial.join(masks::FOLDER);
        Ok(Self::open(&partial.join(UNFINISHED), labels)?.map(|read| Self { masks, ..read }))
    }

    /// As [`Folder::open`], for a folder that is already open.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub(super) fn read(opened: OpenFolder, labels: &LabelSet) -> Result<Option<Self>> {
        let masks = opened.path(masks::FOLDER);
        let recorded = Summary::find(opened.root())?;
        let changed = recorded.as_ref().map(|it| changed_files(it, opened.root())).transpose()?.unwrap_or_default();
        let (photos, ends, by_name, by_content) = <(Vec<EarlierPhoto>, Vec<u32>, HashMap<_, _>, Vec<u32>)>::default();
        let (is_damaged, same_paths, states, schemas, embeddings) = (false, false, Vec::new(), Vec::new(), Vec::new());
        let mut read = Self {
            opened,
            masks,
            recorded,
            is_damaged,
            same_paths,
            photos,
            ends,
            states,
            schemas,
            embeddings,
            by_name,
            by_content,
        };
        for number in 0.. {
            let part = PathBuf::from(table::part_name(number));
            let state = layout::find(read.opened.root(), layout::state_file(number))?;
            let [state_path, part_path] = [&state, &part].map(|name| read.opened.path(name));
            // In what a killed run left, a part without a state does not count.
            let is_there = files::is_there(&state_path)? || read.recorded.is_some() && files::is_there(&part_path)?;
            if !is_there {
                break;
            }
            let is_whole = |name: &Path| read.is_recorded(name) && !changed.contains(name);
            // If the checksum matches but the file still cannot be read, the disk is at fault, not the file.
            let states = match state::read(&state_path) {
                Err(error) if is_whole(&state) => return Err(error),
                other => other.ok().filter(|_| !changed.contains(&state)),
            };
            let rows = states.iter().flatten().filter(|state| state.reject.is_none()).count() as u64;
            let found = match Footer::read(&part_path) {
                Err(error) if is_whole(&part) => return Err(error),
                other => other.ok(),
            };
            let whole = !changed.contains(&part) && found.as_ref().is_some_and(|it| it.rows() == rows);
            if states.is_none() {
                let state = read.opened.name().join(&state);
                tracing::warn!(
                    "{}: is missing or damaged; its photos are processed again, with new ids",
                    state.display()
                );
            } else if !whole {
                let part = read.opened.name().join(&part);
                tracing::warn!("{}: is damaged; its photos are processed again", part.display());
            }
            let is_like = match &found {
                Some(footer) if whole => rows::labels_of(&part_path, &footer.schema)? == *labels,
                _ => true,
            };
            if !is_like {
                let part = read.opened.name().join(&part);
                tracing::info!("{}: has other categories or colours; its photos are processed again", part.display());
            }
            read.is_damaged |= states.is_none() || !whole;
            read.add(number as u32, states.unwrap_or_default(), whole && is_like);
            read.states.push(state_path);
            let schema = found.map(|it| it.schema);
            read.embeddings.push(schema.as_deref().and_then(Embedding::of));
            read.schemas.push(schema);
        }
        read.by_name = read.photos.iter().zip(0..).map(|(it, photo)| (it.state.name.clone(), photo)).collect();
        let content = |photo: &u32| read.photos[*photo as usize].state.content;
        read.by_content = (0..read.photos.len() as u32).filter(|photo| content(photo).is_some()).collect();
        read.by_content.sort_by_key(content);
        Ok((!read.ends.is_empty()).then_some(read))
    }

    /// The rows it keeps of vanished photos.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub(super) fn vanished(&self, labels: &LabelSet) -> Result<Option<Self>> {
        Self::open(&self.opened.path(layout::find(self.opened.root(), layout::VANISHED_FOLDER)?), labels)
    }

    /// Whether its record lists a file of that name.
    fn is_recorded(&self, name: &Path) -> bool {
        self.recorded.iter().flat_map(|it| &it.files).any(|file| file.name == name)
    }

    /// The catalogue that it was made from.
    fn made_of(&self) -> Option<PathBuf> {
        self.recorded.as_ref().and_then(|it| it.config.setting("catalogue"))
    }

    /// Notes whether it was made from `catalogue`: only then can its paths, and thus whole parts, be reused.
    pub(super) fn compare_paths(&mut self, catalogue: &Path) {
        self.same_paths = self.made_of().is_some_and(|made_of| made_of == catalogue);
    }

    /// Whether it was made from the catalogue at that place.
    pub(super) fn is_of(&self, catalogue: &Path) -> bool {
        let absolute = |path: &Path| std::path::absolute(path).ok();
        self.made_of().is_some_and(|made_of| absolute(&made_of) == absolute(catalogue))
    }

    /// Whether the paths in its rows are those this run would write.
    pub(super) fn has_same_paths(&self) -> bool {
        self.same_paths
    }

    /// Adds the photos of a part; those that were not rejected match the part's rows, in order. Only the ids of a
    /// damaged part are used.
    fn add(&mut self, part: u32, states: Vec<StateRow>, whole: bool) {
        let mut row = 0;
        for state in states {
            let place = (whole && state.reject.is_none()).then_some((part, row));
            row += u32::from(state.reject.is_none());
            self.photos.push(EarlierPhoto { state, row: place });
        }
        self.ends.push(self.photos.len() as u32);
    }

    /// The range of a part's photos.
    pub(super) fn part(&self, part: u32) -> std::ops::Range<u32> {
        let start = part.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
        start..self.ends[part as usize]
    }

    /// The file of a part.
    pub(super) fn part_path(&self, part: u32) -> PathBuf {
        self.opened.path(table::part_name(part as usize))
    }

    /// The file of a part's state.
    pub(super) fn state_path(&self, part: u32) -> &Path {
        &self.states[part as usize]
    }

    /// What the embeddings of a part are, if it has some.
    pub(super) fn embedding(&self, part: u32) -> Option<&Embedding> {
        self.embeddings[part as usize].as_ref()
    }

    /// Whether a part has the columns of a table with these embeddings.
    pub(super) fn has_columns(&self, part: u32, embedding: Option<&Embedding>) -> bool {
        self.schemas[part as usize].as_ref().is_some_and(|it| rows::has_columns(it, embedding))
    }

    /// All rows of a part.
    pub(super) fn rows(&self, part: u32) -> Result<RecordBatch> {
        let path = self.part_path(part);
        let batches = table::read_table(&path, TABLE, &[], PART_ROWS)?.collect::<Result<Vec<_>>>()?;
        let schema = batches.first().ok_or_else(|| Error::input(&path, "has no rows"))?.schema();
        concat_batches(&schema, &batches)
            .map_err(|cause| Error::input(&path, "has rows of different schemas").because(cause))
    }

    /// The mask of a photo, if it has one.
    pub(super) fn mask(&self, photo: u32) -> Option<PathBuf> {
        let path = self.masks.join(masks::name(&self.photos[photo as usize].state.content?));
        path.is_file().then_some(path)
    }

    fn is_usable(&self, photo: u32, wanted: Wanted) -> bool {
        let EarlierPhoto { state, row } = &self.photos[photo as usize];
        if state.row_key != wanted.row_key || state.content.is_none() {
            return false;
        }
        match &state.reject {
            Some((reason, _)) => REASONS_OF_CONTENT.contains(&reason.as_str()),
            None if wanted.certainty && state.certainty.is_none() => false,
            None => row.is_some() && (!wanted.mask || self.mask(photo).is_some()),
        }
    }
}

/// Parts and states of a folder that are missing or no longer match its record.
fn changed_files(recorded: &Summary, folder: &Path) -> Result<HashSet<PathBuf>> {
    let recorded = recorded.files.par_iter().filter(|it| layout::is_part_or_state(&it.name));
    let changed = recorded.map(|it| {
        let path = folder.join(&it.name);
        let is_changed = !files::is_there(&path)? || files::checksum(&path)? != (it.bytes, it.sha256.clone());
        Ok(is_changed.then(|| it.name.clone()))
    });
    Ok(changed.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The files a published folder was made from, according to its states; stops at the first unreadable state.
pub(super) fn listing(folder: &Path) -> Listing {
    let mut listing = Listing::default();
    for number in 0.. {
        let states = layout::find(folder, layout::state_file(number)).and_then(|name| state::read(&folder.join(name)));
        let Ok(states) = states else { break };
        for it in states {
            listing.add(it.name, it.stat, it.content);
        }
    }
    listing
}

/// All earlier folders, in order of preference.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    pub(super) folders: Vec<Folder>,
    /// Index of the published table.
    pub(super) published: Option<u16>,
    /// Index of the folder with the published table's vanished photos.
    pub(super) vanished: Option<u16>,
}

impl Earlier {
    pub(super) fn photo(&self, place: PhotoPlace) -> &EarlierPhoto {
        &self.folders[usize::from(place.folder)].photos[place.photo as usize]
    }

    pub(super) fn folder(&self, place: PhotoPlace) -> &Folder {
        &self.folders[usize::from(place.folder)]
    }

    /// The photos of the published table.
    pub(super) fn published(&self) -> &[EarlierPhoto] {
        self.published.map_or(&[], |folder| &self.folders[usize::from(folder)].photos)
    }

    /// The photo of that name in the published table, whatever its row was made with.
    pub(super) fn in_published(&self, name: &str) -> Option<PhotoPlace> {
        self.in_folder(self.published?, name)
    }

    /// The photo of that name in one folder, whatever its row was made with.
    pub(super) fn in_folder(&self, folder: u16, name: &str) -> Option<PhotoPlace> {
        let photo = *self.folders[usize::from(folder)].by_name.get(name)?;
        Some(PhotoPlace { folder, photo })
    }

    /// The photo of that name, if its result can be reused.
    pub(super) fn by_name(&self, name: &str, wanted: Wanted) -> Option<PhotoPlace> {
        let places = self.folders.iter().zip(0..).filter_map(|(it, folder)| {
            let photo = *it.by_name.get(name)?;
            it.is_usable(photo, wanted).then_some(PhotoPlace { folder, photo })
        });
        places.into_iter().next()
    }

    /// A photo with that content whose result can be reused; preferably one of that name.
    pub(super) fn by_content(&self, name: &str, content: &Digest, wanted: Wanted) -> Option<PhotoPlace> {
        let named = self.by_name(name, wanted).filter(|&it| self.photo(it).state.content.as_ref() == Some(content));
        named.or_else(|| {
            let mut places = self.folders.iter().zip(0..).flat_map(|(it, folder)| {
                let of = |photo: &u32| it.photos[*photo as usize].state.content;
                let start = it.by_content.partition_point(|photo| of(photo).as_ref() < Some(content));
                let same = it.by_content[start..].iter().take_while(move |photo| of(photo).as_ref() == Some(content));
                same.filter(move |&&photo| it.is_usable(photo, wanted)).map(move |&photo| PhotoPlace { folder, photo })
            });
            places.next()
        })
    }

    /// The photo of that name, if its result can be reused and the file is unchanged since then.
    pub(super) fn unchanged(&self, name: &str, stat: Stat, wanted: Wanted) -> Option<PhotoPlace> {
        let place = self.by_name(name, wanted)?;
        (stat.modified_us.is_some() && self.photo(place).state.stat == Some(stat)).then_some(place)
    }

    /// The ids in the published table; the next free id is at least `next`.
    pub(super) fn numbering(&self, next: u64) -> Numbering {
        let vanished = self.vanished.map_or(&[][..], |folder| &self.folders[usize::from(folder)].photos);
        // The published table comes last, so its ids take precedence.
        let photos = || vanished.iter().chain(self.published());
        let next = photos().map(|it| u64::from(it.state.photo_id) + 1).max().unwrap_or(0).max(next);
        let ids = photos().map(|it| (it.state.name.clone(), it.state.photo_id)).collect();
        Numbering { ids, next }
    }
}

/// SHA-256 of an encoded photo.
pub(super) fn digest(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}
