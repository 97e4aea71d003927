//! Source records to dataset tables (`convert`), and the dataset tables as later stages read them.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::OpenFolder;
use crate::labels::{CATEGORIES, COLORS};
use crate::stage::{InputRecord, Stage};
use crate::table;

pub mod names;
pub mod photos;

pub use photos::{PhotoEntry, PhotoRecord, Split};

/// File name of the licence of the data in a dataset folder.
pub const LICENSE_FILE: &str = "LICENSE";

/// The licence of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Licence {
    /// The first two lines with something on them, in one.
    pub title: String,
    /// The file as found.
    pub text: Vec<u8>,
}

/// The tables of a dataset folder, checked; opened once, so that what is published meanwhile is not read.
#[derive(Debug)]
pub struct Dataset {
    folder: OpenFolder,
    photos: usize,
}

impl Dataset {
    /// Opens a dataset folder and checks that its tables are there, of this schema, and of this program's label lists.
    ///
    /// # Errors
    /// As [`crate::table::read_table`].
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.join(photos::FILE).is_file() {
            return Err(Error::input(folder, "is not a dataset folder: it has no photos.parquet; run convert first"));
        }
        let folder = OpenFolder::open(folder)?;
        names::check(&folder.path(names::CATEGORIES_FILE), names::CATEGORIES_TABLE, &CATEGORIES)?;
        names::check(&folder.path(names::COLORS_FILE), names::COLORS_TABLE, &COLORS)?;
        let reader = table::read_table(&folder.path(photos::FILE), photos::TABLE, &photos::COLUMNS, 1)?;
        Ok(Self { folder, photos: reader.rows() })
    }

    /// The folder by its name.
    #[must_use]
    pub fn name(&self) -> &Path {
        self.folder.name()
    }

    /// Records the table of the photos as an input of a stage.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn record(&self, stage: &mut Stage) -> Result<InputRecord> {
        stage.input_of(&self.folder, photos::FILE)
    }

    /// Number of photos of all splits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.photos
    }

    /// Whether there are no photos.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.photos == 0
    }

    /// Streams the photos in the order of the table; of one split where one is named.
    ///
    /// # Errors
    /// As [`crate::table::read_table`]; a damaged row as an item.
    pub fn photos(&self, split: Option<Split>) -> Result<Box<dyn Iterator<Item = Result<PhotoRecord>> + Send>> {
        photos::read(&self.photos_path(), split)
    }

    /// The photos without their pixels, in the order of the table: quick, and small in memory.
    ///
    /// # Errors
    /// As [`crate::table::read_table`].
    pub fn index(&self) -> Result<Vec<PhotoEntry>> {
        photos::read_index(&self.photos_path())
    }

    /// The file that [`Dataset::photos`] reads, by way of the opened folder.
    #[must_use]
    pub fn photos_path(&self) -> PathBuf {
        self.folder.path(photos::FILE)
    }

    /// The licence of the data; `None` where the source had none.
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
