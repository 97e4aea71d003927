//! The tables of a dataset folder, which `convert` writes, as later stages read them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::error::{self, Error, Result};
use crate::files::OpenFolder;
use crate::labels::LabelSet;
use crate::stage::{InputRecord, Stage};
use crate::table;

pub mod names;
pub mod photos;

pub use photos::{PhotoEntry, PhotoFile, PhotoRecord, Row, Split};

/// File name of the data's licence in a dataset folder.
pub const LICENSE_FILE: &str = "LICENSE";

/// The licence of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Licence {
    /// The first two non-empty lines, joined.
    pub title: String,
    /// The file as it was found.
    pub text: Vec<u8>,
}

/// The tables of a dataset folder, checked. The folder is opened once, so that a version published meanwhile is not
/// read.
#[derive(Debug)]
pub struct Dataset {
    folder: OpenFolder,
    labels: LabelSet,
    photos: usize,
}

impl Dataset {
    /// Opens a dataset folder and checks that its tables exist and have this program's schema.
    ///
    /// # Errors
    /// As [`crate::table::read_table`].
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.join(photos::FILE).is_file() {
            return Err(Error::input(folder, "is not a dataset folder: it has no photos.parquet; run convert first"));
        }
        let folder = OpenFolder::open(folder)?;
        let labels = names::read(&folder.path(names::CATEGORIES_FILE), &folder.path(names::COLORS_FILE))?;
        let reader = table::read_table(&folder.path(photos::FILE), photos::TABLE, &photos::COLUMNS, 1)?;
        Ok(Self { folder, labels, photos: reader.rows() })
    }

    /// The folder's path.
    #[must_use]
    pub fn name(&self) -> &Path {
        self.folder.name()
    }

    /// The categories and colours of its labels.
    #[must_use]
    pub fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// Checks that a model labels photos with the same categories and colours.
    ///
    /// # Errors
    /// [`Error::Config`] of the setting `setting` that names the model, with the first difference.
    pub fn check_labels(&self, labels: &LabelSet, setting: &str, model: &Path) -> Result<()> {
        let [ours, theirs] = [model, self.name()].map(|it| error::shown(it).display().to_string());
        labels.check_like(&self.labels, &ours, &theirs).map_err(|problem| Error::config(setting, problem))
    }

    /// Records the table of photos as an input of a stage.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn record(&self, stage: &mut Stage) -> Result<InputRecord> {
        stage.input_of(&self.folder, photos::FILE)
    }

    /// Records the tables of the label set as inputs of a stage, unless it is the default one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn record_labels(&self, stage: &mut Stage) -> Result<()> {
        let files = if self.labels.is_cfpd() { &[][..] } else { &[names::CATEGORIES_FILE, names::COLORS_FILE] };
        files.iter().try_for_each(|file| stage.input_of(&self.folder, file).map(drop))
    }

    /// Number of photos in all splits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.photos
    }

    /// Whether there are no photos.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.photos == 0
    }

    /// Streams the photos in the order of the table, only those of `split` if it is given.
    ///
    /// # Errors
    /// As [`crate::table::read_table`]; a damaged row is an error item.
    pub fn photos(&self, split: Option<Split>) -> Result<Box<dyn Iterator<Item = Result<PhotoRecord>> + Send>> {
        photos::read(&self.photos_path(), split, &self.labels)
    }

    /// Streams the photos without their labels, in the order of the table.
    ///
    /// # Errors
    /// As [`Dataset::photos`].
    pub fn files(&self) -> Result<Box<dyn Iterator<Item = Result<PhotoFile>> + Send>> {
        photos::read_files(&self.photos_path())
    }

    /// Streams the rows in the order of the table, with labels if `labelled`.
    ///
    /// # Errors
    /// As [`Dataset::photos`].
    pub fn rows(&self, labelled: bool) -> Result<Box<dyn Iterator<Item = Result<Row>> + Send>> {
        if labelled {
            return Ok(Box::new(self.photos(None)?.map(|record| Ok(Row::Labelled(Box::new(record?))))));
        }
        Ok(Box::new(self.files()?.map(|file| file.map(Row::File))))
    }

    /// The photos with these ids without their labels, in the order of the table; those that do not exist are left out.
    ///
    /// # Errors
    /// As [`Dataset::photos`].
    pub fn files_of(&self, ids: &[u32]) -> Result<Vec<PhotoFile>> {
        photos::read_files_of(&self.photos_path(), &self.rows_of(ids)?)
    }

    /// The rows of the photos with these ids.
    fn rows_of(&self, ids: &[u32]) -> Result<Vec<usize>> {
        let ids: HashSet<u32> = ids.iter().copied().collect();
        let index = self.index()?;
        Ok((0..index.len()).filter(|&row| ids.contains(&index[row].photo_id)).collect())
    }

    /// The photos with these ids, in the order of `ids`; those that do not exist are left out.
    ///
    /// # Errors
    /// As [`Dataset::photos`].
    pub fn photos_of(&self, ids: &[u32]) -> Result<Vec<PhotoRecord>> {
        let mut records = photos::read_rows(&self.photos_path(), &self.rows_of(ids)?, &self.labels)?;
        records.sort_by_key(|it| ids.iter().position(|&id| id == it.photo_id));
        Ok(records)
    }

    /// The photos without their pixels, in the order of the table: fast, and small in memory.
    ///
    /// # Errors
    /// As [`crate::table::read_table`].
    pub fn index(&self) -> Result<Vec<PhotoEntry>> {
        photos::read_index(&self.photos_path())
    }

    /// The file that [`Dataset::photos`] reads, accessed through the opened folder.
    #[must_use]
    pub fn photos_path(&self) -> PathBuf {
        self.folder.path(photos::FILE)
    }

    /// The licence of the data; `None` if the source had none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn licence(&self) -> Result<Option<Licence>> {
        let path = self.folder.path(LICENSE_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let words = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<_> = words.lines().map(str::trim).filter(|it| !it.is_empty()).take(2).collect();
        Ok(Some(Licence { title: lines.join(", "), text }))
    }
}
