//! What stages read, identified by content: a single file by its bytes, many files by the name and bytes of each. Of
//! many files, those whose size, times and inode match the record are not read again.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, FixedSizeBinaryArray, FixedSizeBinaryBuilder, Int64Array, RecordBatch, StringArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::files::{OpenFolder, checksum, digest_of, hexadecimal};
use crate::{store, table};

/// SHA-256 of a file's content.
pub type Digest = [u8; 32];

/// Placeholder for the content of a file that cannot be read.
const UNREAD: Digest = [0; 32];
/// File name of a [`Listing`], in a published folder.
const FILE: &str = "listing.parquet";
const TABLE: &str = "listing";

/// What the file system says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Size.
    pub bytes: u64,
    /// When the content was last changed, in microseconds since 1970; `None` if that cannot be relied on to detect a
    /// change.
    pub modified_us: Option<i64>,
    /// When the content, name or permissions were last changed (ctime), which no program can set.
    pub changed_us: i64,
    /// Inode number, unique within the file system.
    pub inode: u64,
}

impl Stat {
    /// From a file's metadata.
    #[must_use]
    pub fn of(metadata: &fs::Metadata) -> Self {
        let micros = |secs: i64, nanos: i64| secs.checked_mul(1_000_000).map(|it| it + nanos / 1000);
        Self {
            bytes: metadata.len(),
            modified_us: micros(metadata.mtime(), metadata.mtime_nsec()),
            changed_us: micros(metadata.ctime(), metadata.ctime_nsec()).unwrap_or(0),
            inode: metadata.ino(),
        }
    }

    /// From what an object store says: the time to the second, as stores give it, and the entity tag in place of an inode.
    #[must_use]
    pub fn of_object(object: &store::Object) -> Self {
        let modified_us = object.modified_secs.saturating_mul(1_000_000);
        Self { bytes: object.bytes, modified_us: Some(modified_us), changed_us: modified_us, inode: object.tag }
    }
}

/// One of many files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name among them.
    pub name: Arc<str>,
    /// Its path.
    pub path: PathBuf,
    /// What is known about it, if it need not be asked for.
    pub stat: Option<Stat>,
}

/// Something that a stage reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A file.
    File(PathBuf),
    /// Many files that lie in, or are listed in, `path`.
    Files {
        /// The folder or the list.
        path: PathBuf,
        /// Each of them.
        files: Vec<Listed>,
    },
    /// Something that other folders were made from, by their records.
    Recorded(InputRecord),
}

impl Read {
    /// All files in a folder and below, except those in or with names that begin with a dot.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read.
    pub fn below(folder: &Path) -> Result<Self> {
        let is_hidden =
            |entry: &walkdir::DirEntry| entry.depth() > 0 && entry.file_name().as_encoded_bytes()[0] == b'.';
        let tree = walkdir::WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
        let mut files = Vec::new();
        for entry in tree.filter_entry(|entry| !is_hidden(entry)) {
            let entry = match entry {
                Err(cause) if cause.depth() == 0 => return Err(Error::io("read", folder)(cause.into())),
                // Leave it to the stage to report what it cannot read further down.
                Err(_) => continue,
                Ok(entry) => entry,
            };
            if entry.file_type().is_file() {
                let name = entry.path().strip_prefix(folder).unwrap_or(entry.path()).to_string_lossy();
                files.push(Listed { name: Arc::from(&*name), path: entry.into_path(), stat: None });
            }
        }
        Ok(Self::Files { path: folder.to_owned(), files })
    }

    /// The path of the file, or of the folder or list.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Files { path, .. } => path,
            Self::Recorded(record) => &record.path,
        }
    }

    /// Its current record; files that are unchanged according to `known` are not read.
    ///
    /// # Errors
    /// [`Error::Io`] if a single file cannot be read.
    pub fn now(&self, known: &Listing) -> Result<InputRecord> {
        match self {
            Self::File(path) => InputRecord::of(path),
            Self::Files { path, files } => Ok(Listing::of(files, known).record(path)),
            Self::Recorded(record) => Ok(record.clone()),
        }
    }
}

/// What was read from many files, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing(pub HashMap<Arc<str>, (Option<Stat>, Digest)>);

impl Listing {
    /// Adds a file; a content of `None` means that it cannot be read.
    pub fn add(&mut self, name: Arc<str>, stat: Option<Stat>, content: Option<Digest>) {
        self.0.insert(name, (stat, content.unwrap_or(UNREAD)));
    }

    /// Lists files; `known` as in [`Read::now`].
    #[must_use]
    pub fn of(files: &[Listed], known: &Self) -> Self {
        let read = |path: &Path| checksum(path).ok().and_then(|(_, text)| digest(&text)).unwrap_or(UNREAD);
        let listed = files.par_iter().map(|Listed { name, path, stat }| {
            let stat = stat.or_else(|| fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|it| Stat::of(&it)));
            let content = match known.0.get(name) {
                Some((before, content)) if stat.is_some() && *before == stat => *content,
                _ => read(path),
            };
            (name.clone(), (stat, content))
        });
        Self(listed.collect())
    }

    /// As an input record: the checksum is the sum of one per file, of its name and content, so that those of disjoint
    /// listings add up to that of the whole.
    #[must_use]
    pub fn record(&self, path: &Path) -> InputRecord {
        let read = self.0.values().filter(|(_, content)| *content != UNREAD);
        let bytes = read.filter_map(|(stat, _)| stat.map(|it| it.bytes)).sum();
        let digests = self.0.iter().map(|(name, (_, content))| -> Digest {
            let digest = Sha256::new().chain_update((name.len() as u64).to_le_bytes()).chain_update(name.as_bytes());
            digest.chain_update(content).finalize().into()
        });
        InputRecord { path: absolute(path), bytes, sha256: hexadecimal(&sum(digests)), is_many: true }
    }

    /// Reads the listing from a published folder; empty if there is none or it cannot be read.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        Self::try_read(&folder.join(FILE)).unwrap_or_default()
    }

    fn try_read(path: &Path) -> Result<Self> {
        let mut listed = HashMap::new();
        for batch in table::read_table(path, TABLE, &[], 1 << 16)? {
            let batch = batch?;
            let names: &StringArray = table::column(path, &batch, "name")?;
            let sizes: &UInt64Array = table::column(path, &batch, "file_bytes")?;
            let modified: &Int64Array = table::column(path, &batch, "modified_us")?;
            let changed: &Int64Array = table::column(path, &batch, "changed_us")?;
            let inodes: &UInt64Array = table::column(path, &batch, "inode")?;
            let contents: &FixedSizeBinaryArray = table::column(path, &batch, "content_sha256")?;
            listed.extend((0..batch.num_rows()).map(|row| {
                let stat = sizes.is_valid(row).then(|| Stat {
                    bytes: sizes.value(row),
                    modified_us: modified.is_valid(row).then(|| modified.value(row)),
                    changed_us: changed.value(row),
                    inode: inodes.value(row),
                });
                (Arc::from(names.value(row)), (stat, contents.value(row).try_into().unwrap_or(UNREAD)))
            }));
        }
        Ok(Self(listed))
    }

    /// Writes it into a folder to be published.
    ///
    /// # Errors
    /// As [`table::write_table`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        let mut rows: Vec<_> = self.0.iter().collect();
        rows.sort_by(|a, b| a.0.cmp(b.0));
        let field = |name, data_type, nullable| Field::new(name, data_type, nullable);
        let fields = vec![
            field("name", DataType::Utf8, false),
            field("file_bytes", DataType::UInt64, true),
            field("modified_us", DataType::Int64, true),
            field("changed_us", DataType::Int64, true),
            field("inode", DataType::UInt64, true),
            field("content_sha256", DataType::FixedSizeBinary(32), false),
        ];
        let mut contents = FixedSizeBinaryBuilder::with_capacity(rows.len(), 32);
        for (_, (_, content)) in &rows {
            contents.append_value(content).expect("a digest has its size");
        }
        let stats = || rows.iter().map(|(_, (stat, _))| *stat);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(name, _)| name))),
            Arc::new(stats().map(|it| it.map(|it| it.bytes)).collect::<UInt64Array>()),
            Arc::new(stats().map(|it| it.and_then(|it| it.modified_us)).collect::<Int64Array>()),
            Arc::new(stats().map(|it| it.map(|it| it.changed_us)).collect::<Int64Array>()),
            Arc::new(stats().map(|it| it.map(|it| it.inode)).collect::<UInt64Array>()),
            Arc::new(contents.finish()),
        ];
        let rows = RecordBatch::try_new(table::schema(TABLE, fields), columns).expect("the columns match the schema");
        table::write_table(&folder.join(FILE), &rows)
    }
}

/// The sum of digests as numbers of 256 bits, modulo 2^256: `AdHash` of Bellare and Micciancio, A New Paradigm for
/// Collision-Free Hashing (Eurocrypt 1997).
fn sum(digests: impl Iterator<Item = Digest>) -> Digest {
    digests.fold([0; 32], |mut sum, digest| {
        let mut carry = false;
        for (byte, more) in sum.iter_mut().zip(digest) {
            (*byte, carry) = byte.carrying_add(more, carry);
        }
        sum
    })
}

fn digest(text: &str) -> Option<Digest> {
    let bytes: Option<Vec<u8>> =
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// One input of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRecord {
    /// The absolute path of a file, or of the folder or list of many.
    pub path: PathBuf,
    /// Size of the file, or of all files.
    pub bytes: u64,
    /// SHA-256, lower-case hexadecimal: of the file's content, or of the names and contents of many files.
    pub sha256: String,
    /// Whether it stands for many files.
    #[serde(default)]
    pub is_many: bool,
}

impl InputRecord {
    /// The record of the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        if store::is_url(path) {
            let location = store::Location::parse(path)?;
            let found = store::find(&location)?.ok_or_else(|| Error::input(path, "is not there"))?;
            return Ok(Self::of_content(path, &found.2));
        }
        let (bytes, sha256) = checksum(path)?;
        Ok(Self { path: absolute(path), bytes, sha256, is_many: false })
    }

    /// The record of a file in an opened folder.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub fn of_file(folder: &OpenFolder, file: &Path) -> Result<Self> {
        let (bytes, sha256) = checksum(&folder.path(file))?;
        Ok(Self { path: absolute(&folder.name().join(file)), bytes, sha256, is_many: false })
    }

    /// The record of content already read from a file.
    #[must_use]
    pub fn of_content(path: &Path, content: &[u8]) -> Self {
        Self { path: absolute(path), bytes: content.len() as u64, sha256: digest_of(content), is_many: false }
    }

    /// The record of all files of several, which stand for different files of one folder or list; `None` if one of them does
    /// not stand for many.
    #[must_use]
    pub fn of_all(records: &[&Self]) -> Option<Self> {
        let digests = records.iter().map(|it| digest(&it.sha256).filter(|_| it.is_many)).collect::<Option<Vec<_>>>()?;
        let bytes = records.iter().map(|it| it.bytes).sum();
        let path = records.first()?.path.clone();
        Some(Self { path, bytes, sha256: hexadecimal(&sum(digests.into_iter())), is_many: true })
    }

    /// Whether the content is the same, regardless of its path.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.bytes, &self.sha256) == (other.bytes, &other.sha256)
    }
}

/// Recorded paths are absolute, so that they can be found from any working directory.
pub(super) fn absolute(path: &Path) -> PathBuf {
    if store::is_url(path) {
        return path.to_owned();
    }
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(folder: &Path, known: &Listing) -> Listing {
        match Read::below(folder).expect("readable") {
            Read::Files { files, .. } => Listing::of(&files, known),
            _ => unreachable!("it is a folder"),
        }
    }

    #[test]
    fn the_records_of_disjoint_listings_add_up_to_that_of_the_whole() {
        let listing = |numbers: &[u8]| {
            let mut listing = Listing::default();
            for &number in numbers {
                let stat = Stat { bytes: u64::from(number), modified_us: None, changed_us: 0, inode: 0 };
                listing.add(format!("{number}.jpg").into(), Some(stat), Some([number; 32]));
            }
            listing.record(Path::new("/photos"))
        };
        let parts = [listing(&[7, 250]), listing(&[1]), listing(&[])];
        assert_eq!(InputRecord::of_all(&parts.iter().collect::<Vec<_>>()), Some(listing(&[1, 7, 250])));
        assert!(!listing(&[1, 7]).is_same(&listing(&[1, 8])));
        let file = InputRecord::of_content(Path::new("/photos"), b"one");
        assert_eq!(InputRecord::of_all(&[&parts[0], &file]), None, "a single file is no listing");
        let most = [u8::MAX; 32];
        let two = std::array::from_fn(|byte| if byte == 0 { 2 } else { 0 });
        assert_eq!(sum([most, two].into_iter())[..2], [1, 0], "modulo 2^256");
    }

    #[test]
    fn names_and_contents_count_and_not_their_times() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let (folder, kept) = (place.path().join("photos"), place.path().join("kept"));
        fs::create_dir_all(folder.join("a")).expect("a folder");
        fs::create_dir(&kept).expect("a folder");
        for (name, text) in [("a/1.jpg", "one"), ("2.jpg", "two"), (".hidden", "x")] {
            fs::write(folder.join(name), text).expect("writable");
        }
        let before = listed(&folder, &Listing::default());
        assert_eq!(before.0.len(), 2);
        before.write(&kept)?;
        assert_eq!(Listing::read(&kept), before);
        let checksum = |listing: &Listing| listing.record(&folder).sha256;
        // Touching a file changes nothing.
        fs::write(folder.join("2.jpg"), "two").expect("writable");
        assert_eq!(checksum(&listed(&folder, &before)), checksum(&before));
        // Two files of equal size and time swap names: another inode, another ctime.
        let times = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
        for name in ["a/1.jpg", "2.jpg"] {
            fs::File::options().append(true).open(folder.join(name)).and_then(|it| it.set_times(times)).expect("times");
        }
        let before = listed(&folder, &before);
        for (from, to) in [("2.jpg", "3.jpg"), ("a/1.jpg", "2.jpg"), ("3.jpg", "a/1.jpg")] {
            fs::rename(folder.join(from), folder.join(to)).expect("renamed");
        }
        assert_ne!(checksum(&listed(&folder, &before)), checksum(&before));
        fs::remove_file(folder.join("2.jpg")).expect("removed");
        assert_eq!(listed(&folder, &before).0.len(), 1);
        Ok(())
    }
}
