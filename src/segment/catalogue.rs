//! Catalogues: where the photos to be segmented come from, each with an id, in a stable order.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use polars::prelude::{DataType, LazyFrame, PlRefPath, PolarsError, ScanArgsParquet, col};

use crate::dataset::{Dataset, PhotoRecord};
use crate::error::{Error, Result};

/// File name endings of photos in a folder tree, in any case.
pub const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// One photo of a catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The catalogue's own id.
    pub photo_id: u32,
    /// File name.
    pub file_name: String,
    /// Where it lies; inside the source for a dataset's own photos.
    pub path: PathBuf,
}

impl Entry {
    fn new(photo_id: u32, path: PathBuf) -> Self {
        let file_name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self { photo_id, file_name, path }
    }
}

/// An entry with its row of the dataset, where the catalogue is one.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) entry: Entry,
    pub(crate) record: Option<PhotoRecord>,
}

/// An opened catalogue.
#[derive(Debug)]
pub enum Catalogue {
    /// A dataset folder: its own photos.
    Dataset(Dataset),
    /// Photo files, in order, and the folder or list that they come from.
    Files(Vec<Entry>, PathBuf),
}

impl Catalogue {
    /// Opens a dataset folder, a folder tree of photos, or a Parquet or CSV list with the columns `photo_id` and `path`
    /// (relative paths are relative to the list).
    ///
    /// # Errors
    /// [`Error::Input`] where it is none of these, is empty or names an id twice.
    pub fn open(path: &Path) -> Result<Self> {
        if path.join("photos.parquet").is_file() {
            return Dataset::open(path).map(Self::Dataset);
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let entries = match extension.as_str() {
            _ if path.is_dir() => walk(path)?,
            "parquet" if path.is_file() => read_parquet(path)?,
            "csv" if path.is_file() => read_csv(path)?,
            _ => {
                let problem =
                    "is no catalogue: name a dataset folder, a folder with photos, or a .parquet or .csv list";
                return Err(Error::input(path, problem));
            }
        };
        check(path, &entries)?;
        Ok(Self::Files(entries, path.to_owned()))
    }

    /// Number of photos.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Dataset(dataset) => dataset.len(),
            Self::Files(entries, _) => entries.len(),
        }
    }

    /// Whether there is no photo.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What says which photos there are: the dataset's table, the list, or the folder.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        match self {
            Self::Dataset(dataset) => dataset.photos_path(),
            Self::Files(_, source) => source.clone(),
        }
    }

    /// The name of a photo inside the catalogue, wherever the catalogue lies.
    #[must_use]
    pub fn name_of<'a>(&self, entry: &'a Entry) -> &'a Path {
        let folder = match self {
            Self::Dataset(_) => return &entry.path,
            Self::Files(_, source) if source.is_dir() => source,
            Self::Files(_, source) => source.parent().unwrap_or(Path::new("")),
        };
        entry.path.strip_prefix(folder).unwrap_or(&entry.path)
    }

    /// The entries in order, without the photos.
    ///
    /// # Errors
    /// As [`crate::table::read_table`].
    pub fn entries(&self) -> Result<Vec<Entry>> {
        Ok(match self {
            Self::Dataset(dataset) => {
                dataset.index()?.into_iter().map(|it| Entry::new(it.photo_id, PathBuf::from(it.file_name))).collect()
            }
            Self::Files(entries, _) => entries.clone(),
        })
    }

    /// The photos in order.
    pub(crate) fn items(&self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        Ok(match self {
            Self::Dataset(dataset) => Box::new(dataset.photos(None)?.map(|record| {
                let record = record?;
                let entry = Entry::new(record.photo_id, PathBuf::from(&record.file_name));
                Ok(Item { entry, record: Some(record) })
            })),
            Self::Files(entries, _) => {
                Box::new(entries.iter().map(|entry| Ok(Item { entry: entry.clone(), record: None })))
            }
        })
    }
}

/// The photo files below `folder`, sorted; hidden files and folders are left out.
pub(crate) fn photo_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let shown = |entry: &walkdir::DirEntry| entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.');
    let tree = walkdir::WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter().filter_entry(shown);
    let mut paths = Vec::new();
    for entry in tree {
        let entry = entry.map_err(|cause| Error::input(folder, format!("cannot be walked through: {cause}")))?;
        let extension = entry.path().extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if entry.file_type().is_file() && EXTENSIONS.contains(&extension.as_str()) {
            paths.push(entry.into_path());
        }
    }
    Ok(paths)
}

fn walk(folder: &Path) -> Result<Vec<Entry>> {
    Ok(photo_files(folder)?.into_iter().zip(0..).map(|(path, id)| Entry::new(id, path)).collect())
}

fn read_parquet(list: &Path) -> Result<Vec<Entry>> {
    let read = || -> Result<Vec<(u32, String)>, PolarsError> {
        let scan = LazyFrame::scan_parquet(PlRefPath::try_from_path(list)?, ScanArgsParquet::default())?;
        let columns = [col("photo_id").strict_cast(DataType::UInt32), col("path").strict_cast(DataType::String)];
        let frame = scan.select(columns).collect()?;
        let (ids, paths) = (frame.column("photo_id")?.u32()?, frame.column("path")?.str()?);
        let rows = ids.iter().zip(paths.iter());
        rows.map(|(id, path)| id.zip(path.map(str::to_owned)).ok_or_else(|| PolarsError::NoData("a null".into())))
            .collect()
    };
    let rows = read().map_err(|cause| {
        Error::input(list, format!("is no list of photos with the columns photo_id and path: {cause}"))
    })?;
    Ok(entries_of(list, rows))
}

fn read_csv(list: &Path) -> Result<Vec<Entry>> {
    #[derive(serde::Deserialize)]
    struct Row {
        photo_id: u32,
        path: String,
    }
    let mut reader =
        csv::Reader::from_path(list).map_err(|cause| Error::input(list, format!("cannot be read: {cause}")))?;
    let rows = reader.deserialize().map(|row| row.map(|row: Row| (row.photo_id, row.path)));
    let rows = rows.collect::<Result<Vec<_>, _>>().map_err(|cause| {
        Error::input(list, format!("is no list of photos with the columns photo_id and path: {cause}"))
    })?;
    Ok(entries_of(list, rows))
}

fn entries_of(list: &Path, rows: Vec<(u32, String)>) -> Vec<Entry> {
    let folder = list.parent().unwrap_or(Path::new(""));
    rows.into_iter().map(|(id, path)| Entry::new(id, folder.join(path))).collect()
}

fn check(path: &Path, entries: &[Entry]) -> Result<()> {
    if entries.is_empty() {
        return Err(Error::input(path, format!("holds no photos ({})", EXTENSIONS.join(", "))));
    }
    let mut seen = HashSet::new();
    match entries.iter().find(|entry| !seen.insert(entry.photo_id)) {
        Some(twice) => Err(Error::input(path, format!("names photo_id {} twice; ids must be unique", twice.photo_id))),
        None => Ok(()),
    }
}
