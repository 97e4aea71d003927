//! Catalogues: the photos to segment, each with an id, in a stable order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polars::prelude::{DataType, ParallelStrategy, ParquetReader, PolarsError, SerReader};
use sha2::{Digest, Sha256};

use crate::dataset::{Dataset, Row, names, photos};
use crate::error::{Error, Result};
use crate::features::rows::PART_ROWS;
use crate::files::hexadecimal;
use crate::rejects::Reject;
use crate::shard::{Division, Shard};
use crate::stage::{Listed, Read, Stat};
use crate::{guard, photo, reason, store};

/// In a tree with so many parts of the table for each shard, a shard has whole parts, at most one more than another.
const PARTS_PER_SHARD: u64 = 24;
/// Longest extension that is counted by itself; longer ones are rather numbers and hashes.
const MAX_EXTENSION_BYTES: usize = 8;

/// One photo of a catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The id in the list or dataset; in a folder tree, a photo keeps its id from the previous table, and a new one
    /// gets the next free id.
    pub photo_id: u32,
    /// What its object store lists of it; `None` for files.
    pub(crate) stat: Option<Stat>,
    /// Its position among all photos of all shards, which determines its part of the table.
    pub(crate) slot: u32,
    /// Its name within the catalogue: the path below the folder or the list, or the file name in the source.
    pub name: Arc<str>,
    /// Whether it is no longer in the catalogue, or cannot be seen, but keeps its row from the previous version.
    pub(crate) kept: bool,
}

impl Entry {
    fn new(photo_id: u32, slot: u32, name: &str) -> Self {
        Self { photo_id, slot, name: name.into(), stat: None, kept: false }
    }
}

/// The ids of the photos in the published table, by name, and the next free id.
#[derive(Debug, Default)]
pub(crate) struct Numbering {
    pub(crate) ids: HashMap<Arc<str>, u32>,
    /// The number after the largest one given so far, which may be past the end.
    pub(crate) next: u64,
}

/// The kind of a catalogue.
#[derive(Debug)]
enum Kind {
    /// A dataset folder: its own photos.
    Dataset(Dataset),
    /// A folder tree.
    Folder,
    /// A Parquet or CSV list.
    List,
}

/// What a catalogue is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A dataset folder.
    Dataset,
    /// A folder tree of photos.
    Tree,
    /// A Parquet list.
    Parquet,
    /// A CSV list.
    Csv,
}

impl Form {
    /// Tells by the path what a catalogue is, without reading it.
    ///
    /// # Errors
    /// [`Error::Input`] if it is missing, or not one of these.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let is_url = store::is_url(path);
        match extension.as_str() {
            "parquet" if is_url => Ok(Self::Parquet),
            "csv" if is_url => Ok(Self::Csv),
            _ if is_url => store::Location::parse(path).map(|_| Self::Tree),
            _ if path.join(photos::FILE).is_file() => Ok(Self::Dataset),
            _ if path.is_dir() => Ok(Self::Tree),
            "parquet" if path.is_file() => Ok(Self::Parquet),
            "csv" if path.is_file() => Ok(Self::Csv),
            _ => {
                let problem = if path.exists() { "is not a catalogue" } else { "is not there" };
                let advice = "name a dataset folder, a folder with photos, or a .parquet or .csv list";
                Err(Error::input(path, format!("{problem}; {advice}")))
            }
        }
    }
}

/// An opened catalogue.
#[derive(Debug)]
pub struct Catalogue {
    path: PathBuf,
    source: Kind,
    /// In table order.
    pub(crate) entries: Vec<Entry>,
    /// What was found but is not a readable photo.
    pub(crate) rejects: Vec<Reject>,
    /// Folders below the catalogue that could not be read.
    unread: Vec<PathBuf>,
    /// Number of slots, of a tree with all its photos.
    slots: u64,
    /// Number of files in a folder tree whose names are not those of photos: by extension in lower case, `none` without
    /// one, `other` for what is hardly an extension. Empty for a shard.
    pub(crate) passed_over: BTreeMap<String, u64>,
}

impl Catalogue {
    /// Opens a dataset folder, a folder tree of photos, or a Parquet or CSV list with the columns `photo_id` and `path`
    /// (relative paths are relative to the list). A tree or a list may lie in an object store.
    ///
    /// # Errors
    /// [`Error::Input`] if it is not one of these, is empty, or lists an id twice.
    pub(crate) fn open(path: &Path, numbering: &Numbering) -> Result<Self> {
        let mut catalogue = Self {
            path: path.to_owned(),
            source: Kind::List,
            entries: Vec::new(),
            rejects: Vec::new(),
            unread: Vec::new(),
            slots: 0,
            passed_over: BTreeMap::new(),
        };
        match Form::of(path)? {
            Form::Dataset => catalogue.open_dataset()?,
            Form::Tree => catalogue.walk(numbering)?,
            Form::Parquet => catalogue.list(&read_parquet(store::local(path)?.path())?)?,
            Form::Csv => catalogue.list(&read_csv(store::local(path)?.path())?)?,
        }
        if catalogue.entries.is_empty() && catalogue.rejects.is_empty() {
            let problem = match catalogue.source {
                Kind::Folder => format!("holds no photos ({})", photo::EXTENSIONS.join(", ")),
                Kind::Dataset(_) | Kind::List => "holds no photos".to_owned(),
            };
            return Err(Error::input(path, problem));
        }
        Ok(catalogue)
    }

    fn open_dataset(&mut self) -> Result<()> {
        let dataset = Dataset::open(&self.path)?;
        let entries = dataset.index()?.into_iter().zip(0..);
        self.entries = entries.map(|(it, slot)| Entry::new(it.photo_id, slot, &it.file_name)).collect();
        self.source = Kind::Dataset(dataset);
        Ok(())
    }

    fn walk(&mut self, numbering: &Numbering) -> Result<()> {
        self.source = Kind::Folder;
        let mut next = numbering.next;
        let Walked { photos, rejects, unread, passed_over } =
            if store::is_url(&self.path) { walk_store(&self.path)? } else { walk(&self.path)? };
        for (name, stat) in photos {
            let photo_id = match numbering.ids.get(name.as_str()) {
                Some(known) => *known,
                None => u32::try_from(next).map_err(|_| no_id_left(&self.path, &name))?,
            };
            next = next.max(u64::from(photo_id) + 1);
            self.entries.push(Entry { stat, ..Entry::new(photo_id, photo_id, &name) });
        }
        self.entries.sort_by_key(|entry| entry.photo_id);
        self.slots = next;
        (self.rejects, self.unread, self.passed_over) = (rejects, unread, passed_over);
        Ok(())
    }

    fn list(&mut self, rows: &[(u32, String)]) -> Result<()> {
        self.entries = rows.iter().zip(0..).map(|((id, path), slot)| Entry::new(*id, slot, path)).collect();
        let mut seen = HashSet::new();
        match self.entries.iter().find(|entry| !seen.insert(entry.photo_id)) {
            Some(twice) => {
                let problem = format!("lists photo_id {} twice; ids must be unique", twice.photo_id);
                Err(Error::input(&self.path, problem))
            }
            None => Ok(()),
        }
    }

    /// The place that it was opened at.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a stage reads of it: the dataset's table; or the photos, and the list if it is one.
    #[must_use]
    pub fn reads(&self) -> Vec<Read> {
        let photos = || {
            let files = self.entries.iter().filter(|it| !it.kept);
            let listed = |it: &Entry| Listed { name: it.name.clone(), path: self.path_of(it), stat: it.stat };
            let files = files.map(listed).collect();
            Read::Files { path: self.path.clone(), files }
        };
        match &self.source {
            Kind::Dataset(dataset) => {
                let labels = names::reads(dataset.name());
                [dataset.name().join(photos::FILE)].into_iter().chain(labels).map(Read::File).collect()
            }
            Kind::Folder => vec![photos()],
            Kind::List => vec![Read::File(self.path.clone()), photos()],
        }
    }

    /// The dataset, if it is one.
    pub(crate) fn dataset(&self) -> Option<&Dataset> {
        match &self.source {
            Kind::Dataset(dataset) => Some(dataset),
            Kind::Folder | Kind::List => None,
        }
    }

    /// The folder that names are relative to; empty for names within a dataset's source.
    pub(crate) fn root(&self) -> &Path {
        match self.source {
            Kind::Dataset(_) => Path::new(""),
            Kind::Folder => &self.path,
            Kind::List => self.path.parent().unwrap_or(Path::new("")),
        }
    }

    /// The path of a photo; for a dataset's own photos, the name within the source.
    pub(crate) fn path_of(&self, entry: &Entry) -> PathBuf {
        let name = Path::new(&*entry.name);
        if store::is_url(name) { name.to_owned() } else { self.root().join(name) }
    }

    /// Asks the object stores about the photos of a list that lie in one, if `is_wanted` says so of their names. Those of a
    /// tree are known by its listing.
    pub(crate) fn ask_stores(&mut self, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
        let unknown = |it: &Entry| it.stat.is_none() && !it.kept && self.is_stored(it) && is_wanted(&it.name);
        let asked = self.entries.iter().enumerate().filter(|(_, it)| unknown(it));
        let place = |(index, it): (usize, &Entry)| Some((index, store::Location::parse(&self.path_of(it)).ok()?));
        let (indices, places): (Vec<_>, Vec<_>) = asked.filter_map(place).unzip();
        for (index, object) in indices.into_iter().zip(store::objects(&places)?) {
            self.entries[index].stat = object.as_ref().map(Stat::of_object);
        }
        Ok(())
    }

    /// Whether a photo lies in an object store or on a web server.
    fn is_stored(&self, entry: &Entry) -> bool {
        store::is_url(self.root()) || store::is_url(Path::new(&*entry.name))
    }

    /// Whether some photos lie in an object store or on a web server.
    pub(crate) fn has_stored(&self) -> bool {
        self.entries.iter().any(|it| self.is_stored(it))
    }

    /// What the file system, or its object store, reports about a photo.
    pub(crate) fn stat_of(&self, entry: &Entry) -> Option<Stat> {
        entry.stat.or_else(|| photo::stat(&self.path_of(entry)).ok().map(|it| Stat::of(&it)))
    }

    /// Adds photos of the previous version that are missing from the catalogue but stay in the table: all of them if
    /// `vanished` is set, otherwise those in folders that could not be read. Returns how many are dropped.
    pub(crate) fn keep(&mut self, before: impl Iterator<Item = (Arc<str>, u32)>, vanished: bool) -> u64 {
        let here: HashSet<Arc<str>> = self.entries.iter().map(|it| it.name.clone()).collect();
        let ids: HashSet<u32> = self.entries.iter().map(|it| it.photo_id).collect();
        let mut slots = self.entries.last().map_or(0, |it| it.slot.saturating_add(1))..=u32::MAX;
        let mut dropped = 0;
        for (name, photo_id) in before.filter(|(name, _)| !here.contains(name)) {
            let unseen = self.unread.iter().any(|folder| Path::new(&*name).starts_with(folder));
            // A list may have given the id to another photo.
            if !(vanished || unseen) || ids.contains(&photo_id) {
                dropped += 1;
                continue;
            }
            let of_folder = matches!(self.source, Kind::Folder);
            let slot = if of_folder { photo_id } else { slots.next().unwrap_or(u32::MAX) };
            self.entries.push(Entry { photo_id, slot, name, stat: None, kept: true });
        }
        self.entries.sort_by_key(|entry| entry.slot);
        dropped
    }

    /// Whether each of `count` shards has whole parts of the table.
    pub(crate) fn is_divided_by_part(&self, division: Division, count: u32) -> bool {
        let parts = self.slots / PART_ROWS as u64;
        match division {
            Division::Auto => parts >= PARTS_PER_SHARD * u64::from(count),
            Division::Name => false,
            Division::Part => matches!(self.source, Kind::Folder),
        }
    }

    /// The shard of `count` that the photo of that name and slot belongs to.
    pub(crate) fn holder(&self, name: &str, slot: u32, division: Division, count: u32) -> Shard {
        if self.is_divided_by_part(division, count) {
            let number = slot / PART_ROWS as u32 % count + 1;
            return Shard::new(number, count).expect("a number up to the count of a shard");
        }
        Shard::holder(Path::new(name), count)
    }

    /// SHA-256 of the ids and names of all photos.
    pub(crate) fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for it in &self.entries {
            digest.update(it.photo_id.to_le_bytes());
            digest.update((it.name.len() as u64).to_le_bytes());
            digest.update(it.name.as_bytes());
        }
        hexadecimal(&digest.finalize())
    }

    /// Keeps only the photos of one shard.
    pub(crate) fn take(&mut self, shard: Shard, division: Division) {
        let root = self.root().to_owned();
        let mut entries = std::mem::take(&mut self.entries);
        entries.retain(|it| self.holder(&it.name, it.slot, division, shard.count()) == shard);
        self.entries = entries;
        self.passed_over.clear();
        self.rejects.retain(|it| shard.holds(Path::new(&it.item).strip_prefix(&root).unwrap_or(Path::new(&it.item))));
    }

    /// The photos with these indices (ascending), in order; with their dataset rows if the catalogue is a dataset, which
    /// have labels if `labelled`.
    pub(crate) fn items<'a>(
        &'a self,
        wanted: &'a [u32],
        labelled: bool,
    ) -> Result<Box<dyn Iterator<Item = Result<Item>> + Send + 'a>> {
        let Some(dataset) = self.dataset() else {
            return Ok(Box::new(wanted.iter().map(|&index| Ok(Item { index, row: None }))));
        };
        let by_id: HashMap<u32, u32> =
            wanted.iter().map(|&index| (self.entries[index as usize].photo_id, index)).collect();
        let item = move |row: Row| Some(Item { index: *by_id.get(&row.photo_id())?, row: Some(row) });
        Ok(Box::new(dataset.rows(labelled)?.filter_map(move |row| row.map(&item).transpose())))
    }
}

/// An entry's index, with its dataset row if the catalogue is a dataset.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) index: u32,
    pub(crate) row: Option<Row>,
}

/// The photo files below `folder`, sorted; skips hidden files and folders.
pub(crate) fn photo_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let walked = walk(folder)?;
    if let Some(reject) = walked.rejects.first() {
        tracing::warn!("{}: {} ({}), and {} more", reject.item, reject.detail, reject.reason, walked.rejects.len() - 1);
    }
    Ok(walked.photos.iter().map(|(name, _)| folder.join(name)).collect())
}

/// A photo for which there is no id: no id is ever given twice within an output folder.
fn no_id_left(folder: &Path, name: &str) -> Error {
    Error::Limit {
        what: folder.display().to_string(),
        problem: format!(
            "no photo_id is left for {name}: {} is the largest, and ids of earlier photos are not given again; write to \
             another output folder, whose ids begin at 0",
            u32::MAX
        ),
    }
}

/// The content of a folder tree.
#[derive(Debug, Default)]
struct Walked {
    /// Paths of photo files below the folder, sorted, with what an object store lists of each.
    photos: Vec<(String, Option<Stat>)>,
    rejects: Vec<Reject>,
    /// Folders below the folder that could not be read.
    unread: Vec<PathBuf>,
    passed_over: BTreeMap<String, u64>,
}

fn walk(folder: &Path) -> Result<Walked> {
    let tree = walkdir::WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
    let mut walked = Walked::default();
    for entry in tree.filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.path())) {
        match entry {
            Ok(entry) if entry.file_type().is_dir() => {}
            Ok(entry) if !is_photo(entry.path()) => {
                *walked.passed_over.entry(counted_extension(entry.path())).or_default() += 1;
            }
            Ok(entry) => walked.add(folder, entry.path(), entry.file_type().is_file()),
            Err(cause) if cause.depth() == 0 => {
                return Err(Error::input(folder, "cannot be read").because(cause));
            }
            Err(cause) => walked.note(folder, &cause)?,
        }
    }
    Ok(walked)
}

/// The content of a prefix of an object store.
fn walk_store(url: &Path) -> Result<Walked> {
    let mut walked = Walked::default();
    for (name, object) in store::list(&store::Location::parse(url)?)? {
        if is_photo(Path::new(&name)) {
            walked.photos.push((name, Some(Stat::of_object(&object))));
        } else {
            *walked.passed_over.entry(counted_extension(Path::new(&name))).or_default() += 1;
        }
    }
    Ok(walked)
}

impl Walked {
    fn add(&mut self, folder: &Path, path: &Path, is_file: bool) {
        let name = path.strip_prefix(folder).unwrap_or(path);
        match (name.to_str(), is_file) {
            (Some(name), true) => self.photos.push((name.to_owned(), None)),
            (None, _) => {
                let detail = format!("the name {} is not UTF-8; rename it", name.as_os_str().display());
                self.reject(path, reason::NAME_NOT_UTF8, detail);
            }
            (_, false) => self.reject(path, reason::NOT_A_FILE, "is a pipe, a socket or a device, not a file"),
        }
    }

    /// Notes what the walk could not follow or read.
    fn note(&mut self, folder: &Path, cause: &walkdir::Error) -> Result<()> {
        let Some(path) = cause.path().filter(|path| !is_hidden(path)) else { return Ok(()) };
        if let Some(ancestor) = cause.loop_ancestor() {
            let detail = format!("the link leads back to {}", ancestor.display());
            self.reject(path, reason::FOLDER_LOOP, detail);
            return Ok(());
        }
        let Some(io) = cause.io_error() else { return Ok(()) };
        if let Some(limit) = Error::limit(io, path) {
            return Err(limit);
        }
        let problem = photo::unreadable(io);
        // A dangling link.
        if problem.reason == reason::MISSING {
            if is_photo(path) {
                self.reject(path, problem.reason, problem.detail);
            }
            return Ok(());
        }
        let denied = problem.reason == reason::NO_PERMISSION;
        let code = if denied { reason::FOLDER_NO_PERMISSION } else { reason::FOLDER_IO_ERROR };
        self.reject(path, code, problem.detail);
        self.unread.push(path.strip_prefix(folder).unwrap_or(path).to_owned());
        Ok(())
    }

    fn reject(&mut self, path: &Path, reason: &'static str, detail: impl std::fmt::Display) {
        self.rejects.push(Reject::new(path.to_string_lossy(), reason, detail));
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().first() == Some(&b'.'))
}

/// The name under which the extension of a file that is not a photo is counted.
fn counted_extension(path: &Path) -> String {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match extension.as_str() {
        "" => "none".to_owned(),
        it if it.len() <= MAX_EXTENSION_BYTES && it.chars().all(char::is_alphanumeric) => extension,
        _ => "other".to_owned(),
    }
}

fn is_photo(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    photo::EXTENSIONS.iter().any(|it| extension.eq_ignore_ascii_case(it))
}

fn read_parquet(list: &Path) -> Result<Vec<(u32, String)>> {
    let problem = || Error::input(list, "is not a list of photos with the columns photo_id and path");
    let file = File::open(list).map_err(Error::io("read", list))?;
    // Polars panics on some damaged files.
    match guard::no_panic(|| listed_photos(file)) {
        Ok(photos) => photos.map_err(|cause| problem().because(cause)),
        Err(panic) => Err(problem().because(panic)),
    }
}

/// The ids and paths of a Parquet list.
fn listed_photos(file: File) -> Result<Vec<(u32, String)>, PolarsError> {
    let columns = ["photo_id", "path"].map(str::to_owned).to_vec();
    // Without threads of Polars' own.
    let reader = ParquetReader::new(file).with_columns(Some(columns)).read_parallel(ParallelStrategy::None);
    let frame = reader.finish()?;
    let (ids, paths) = (frame.column("photo_id")?, frame.column("path")?);
    if !ids.dtype().is_integer() {
        return Err(PolarsError::SchemaMismatch("photo_id is not a column of integers".into()));
    }
    let (ids, paths) = (ids.strict_cast(&DataType::UInt32)?, paths.strict_cast(&DataType::String)?);
    let rows = ids.u32()?.iter().zip(paths.str()?.iter());
    rows.map(|(id, path)| id.zip(path.map(str::to_owned)).ok_or_else(|| PolarsError::NoData("a null".into()))).collect()
}

fn read_csv(list: &Path) -> Result<Vec<(u32, String)>> {
    #[derive(serde::Deserialize)]
    struct Row {
        photo_id: u32,
        path: String,
    }
    let mut reader =
        csv::Reader::from_path(list).map_err(|cause| Error::input(list, "cannot be read").because(cause))?;
    let rows = reader.deserialize().map(|row| row.map(|row: Row| (row.photo_id, row.path)));
    rows.collect::<Result<Vec<_>, _>>().map_err(|cause| {
        Error::input(list, "is not a list of photos with the columns photo_id and path").because(cause)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn shards_of_a_large_tree_have_whole_parts() {
        let count = 3;
        let slots = u64::from(count) * PARTS_PER_SHARD * PART_ROWS as u64;
        let tree = |slots| Catalogue {
            path: PathBuf::from("shop"),
            source: Kind::Folder,
            entries: (0..slots as u32)
                .step_by(1000)
                .map(|slot| Entry::new(slot, slot, &format!("{slot}.jpg")))
                .collect(),
            rejects: Vec::new(),
            unread: Vec::new(),
            slots,
            passed_over: BTreeMap::new(),
        };
        let part = |slot: u32| slot / PART_ROWS as u32;
        for (slots, by_parts) in [(slots, true), (slots - 1, false)] {
            let shards = (1..=count).map(|number| {
                let mut shard = tree(slots);
                shard.take(Shard::new(number, count).expect("a shard"), Division::Auto);
                shard.entries.iter().map(|it| it.slot).collect::<Vec<u32>>()
            });
            let shards: Vec<Vec<u32>> = shards.collect();
            let mut all = shards.concat();
            all.sort_unstable();
            assert_eq!(all, tree(slots).entries.iter().map(|it| it.slot).collect::<Vec<_>>(), "each is in one shard");
            let parts = shards.iter().map(|slots| slots.iter().map(|&slot| part(slot)).collect::<HashSet<u32>>());
            let parts: Vec<HashSet<u32>> = parts.collect();
            let is_whole =
                parts.iter().map(HashSet::len).sum::<usize>() == parts.iter().flatten().collect::<HashSet<_>>().len();
            assert_eq!(is_whole, by_parts, "{slots} slots");
            assert!(!by_parts || parts.iter().all(|it| it.len() as u64 == PARTS_PER_SHARD));
        }
    }

    #[test]
    fn photos_go_by_their_endings_and_all_else_is_counted() {
        let place = tempfile::tempdir().expect("a folder");
        let names = ["a.JFIF", "b.jpe", "c.pjpeg", "d.Png", "e.webp", ".hidden.jpg"];
        let others = ["notes.txt", "NOTES.TXT", "f.heic", "jpg", "g.jpg~", "h.0123456789abcdef", "i."];
        for name in names.iter().chain(&others) {
            fs::write(place.path().join(name), b"").expect("a file");
        }
        fs::create_dir(place.path().join("folder.jpg")).expect("a folder");
        let mut catalogue = Catalogue::open(place.path(), &Numbering::default()).expect("it opens");
        let found: Vec<&str> = catalogue.entries.iter().map(|it| &*it.name).collect();
        assert_eq!(found, ["a.JFIF", "b.jpe", "c.pjpeg", "d.Png", "e.webp"]);
        let counted = [("heic", 1), ("none", 2), ("other", 2), ("txt", 2)];
        assert_eq!(catalogue.passed_over, counted.map(|(name, count)| (name.to_owned(), count)).into());
        catalogue.take(Shard::new(1, 2).expect("a shard"), Division::Auto);
        assert!(catalogue.passed_over.is_empty(), "the merge counts them");
    }
}
