//! The Clothing Co-Parsing layout: `label_list.mat` names the 59 tags, `annotations/pixel-level/NNNN.mat` holds the tag
//! of each pixel of `photos/NNNN.jpg` (MATLAB v5, `groundtruth`, u8, height x width).
//!
//! A table in a settings file folds the tags into the categories of a label set. The layout has neither
//! superpixels nor colours: a photo gets one superpixel per category, with the category's id as its number, and no
//! colour.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Annotation, Version, check_header, v5};
use crate::error::{Error, Result};
use crate::fold::Fold;
use crate::labels::LabelSet;
use crate::reason;
use crate::rejects::Reject;

/// Name of the file that lists the tags.
pub const LABEL_LIST: &str = "label_list.mat";
/// Name of the folder of photos.
pub const PHOTOS: &str = "photos";
/// The folder of the label maps.
const PIXEL_LEVEL: &str = "annotations/pixel-level";
/// The built-in fold.
const FOLD: &str = include_str!("../../pipelines/ccp_fold.toml");
/// Path of the built-in fold, for messages.
const FOLD_FILE: &str = "pipelines/ccp_fold.toml";
/// Maximum size of a label file: the largest label map, and some more; real ones have a few kilobytes.
const MAX_LABEL_BYTES: u64 = (v5::MAX_VARIABLE_BYTES + (1 << 16)) as u64;

/// An opened folder.
#[derive(Debug)]
pub struct Ccp {
    folder: PathBuf,
    annotations: PathBuf,
    /// Names of the photos with pixel labels, without extension, sorted.
    stems: Vec<String>,
    unlabelled: Vec<Reject>,
    /// Category of each tag.
    categories: Vec<u8>,
    /// Number of categories.
    category_count: usize,
}

impl Ccp {
    /// Opens the folder, reads its tags and folds them by the built-in table into [`LabelSet::cfpd`].
    ///
    /// # Errors
    /// [`Error::Input`] if the tags or the label maps are missing or damaged, [`Error::Config`] if the fold does not
    /// match the tags.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_with(folder, &built_in_fold()?)
    }

    /// Like [`Ccp::open`], with another fold.
    ///
    /// # Errors
    /// As [`Ccp::open`].
    pub(crate) fn open_with(folder: &Path, fold: &Fold) -> Result<Self> {
        let tags = tags(folder)?;
        let categories = fold.categories(tags.iter().map(String::as_str), &folder.join(LABEL_LIST))?;
        let annotations = folder.join(PIXEL_LEVEL);
        let stems = stems(&annotations, "mat")?;
        if stems.is_empty() {
            return Err(Error::input(&annotations, "contains no .mat file; expected a label map for each photo"));
        }
        let unlabelled = stems_without_labels(&folder.join(PHOTOS), &stems)?;
        let (folder, stems, category_count) =
            (folder.to_owned(), stems.into_iter().collect(), fold.labels().category_count());
        Ok(Self { folder, annotations, stems, unlabelled, categories, category_count })
    }

    /// Number of photos with pixel labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stems.len()
    }

    /// Whether the folder is empty; never true once it is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stems.is_empty()
    }

    /// Photos without pixel labels: left out, although nothing is wrong with them.
    #[must_use]
    pub fn unlabelled(&self) -> &[Reject] {
        &self.unlabelled
    }

    /// Reads the labels of one photo; `index` is 0-based, in the order of names. The inner result is a [`Reject`] that
    /// names the photo.
    ///
    /// # Errors
    /// [`Error::Io`] if the file system fails, which says nothing about the photo.
    pub fn annotation(&self, index: usize) -> Result<Result<Annotation, Reject>> {
        let stem = &self.stems[index];
        let file_name = format!("{stem}.jpg");
        match read_labels(&self.annotations.join(format!("{stem}.mat")), &self.folder) {
            Ok(bytes) => Ok(self.labels(&bytes, &file_name)),
            Err(error @ (Error::Io { .. } | Error::Limit { .. })) => Err(error),
            Err(error) => Ok(Err(Reject::new(file_name, reason::ENTRY_UNREADABLE, error))),
        }
    }

    /// The labels in the bytes of a label file.
    fn labels(&self, bytes: &[u8], file_name: &str) -> Result<Annotation, Reject> {
        let path = self.annotations.join(file_name).with_extension("mat");
        let (height, width, tags) = v5::read_u8_matrix(bytes, "groundtruth").map_err(|problem| {
            Reject::new(file_name, reason::ENTRY_UNREADABLE, format!("{}: {problem}", path.display()))
        })?;
        if tags.is_empty() {
            return Err(Reject::new(file_name, reason::FIELD_SHAPE, "'groundtruth' is empty"));
        }
        let mut superpixels = vec![0; tags.len()];
        for (place, &tag) in tags.iter().enumerate() {
            let (column, row) = (place / height, place % height);
            let Some(&category) = self.categories.get(usize::from(tag)) else {
                let last = self.categories.len() - 1;
                let detail = format!("tag {tag} at column {column}, row {row}; expected 0 to {last}");
                return Err(Reject::new(file_name, reason::CATEGORY_INVALID, detail));
            };
            superpixels[row * width + column] = u16::from(category);
        }
        Ok(Annotation {
            file_name: file_name.to_owned(),
            width_px: width as u32,
            height_px: height as u32,
            superpixels,
            superpixel_category: (0..self.category_count as u8).collect(),
            superpixel_color: None,
        })
    }
}

/// The table that folds the tags into [`LabelSet::cfpd`].
///
/// # Errors
/// None; it is part of the program.
pub(crate) fn built_in_fold() -> Result<Fold> {
    Fold::parse(FOLD_FILE, FOLD, &LabelSet::cfpd())
}

/// The tags of the folder, by number.
///
/// # Errors
/// [`Error::Input`] if they are missing or damaged.
pub(crate) fn tags(folder: &Path) -> Result<Vec<String>> {
    let list = folder.join(LABEL_LIST);
    check_header(&list, Version::V5)?;
    let bytes = std::fs::read(&list).map_err(Error::io("read", &list))?;
    v5::read_texts(&bytes, "label_list").map_err(|problem| Error::input(&list, problem))
}

/// The bytes of a label file of the source in `folder`.
fn read_labels(path: &Path, folder: &Path) -> Result<Vec<u8>> {
    let metadata = match std::fs::metadata(path) {
        // A link that leads nowhere.
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::input(path, "does not exist"));
        }
        other => other.map_err(Error::io("read", path))?,
    };
    if !metadata.is_file() {
        return Err(Error::input(path, "is not a file"));
    }
    if let Some(target) = super::link_out_of(folder, path)? {
        return Err(Error::input(path, format!("is a link out of the source, to {}", target.display())));
    }
    if metadata.len() > MAX_LABEL_BYTES {
        return Err(Error::input(path, format!("has {} bytes; at most {MAX_LABEL_BYTES} are allowed", metadata.len())));
    }
    check_header(path, Version::V5)?;
    std::fs::read(path).map_err(Error::io("read", path))
}

/// Names, without extension, of the files `*.ending` in a folder, sorted; without those that begin with a dot, such as
/// the `._NAME` files in which macOS keeps attributes.
fn stems(folder: &Path, ending: &str) -> Result<BTreeSet<String>> {
    let mut stems = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if path.extension().is_some_and(|found| found == ending)
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
            && !stem.starts_with('.')
        {
            stems.insert(stem.to_owned());
        }
    }
    Ok(stems)
}

/// Photos that have only image-level tags. They are listed, but not counted as rejected, because half of the data set
/// is like that.
fn stems_without_labels(photos: &Path, labelled: &BTreeSet<String>) -> Result<Vec<Reject>> {
    let photos = stems(photos, "jpg")?;
    let detail = format!("has no label map in {PIXEL_LEVEL}");
    Ok(photos
        .difference(labelled)
        .map(|stem| Reject::new(format!("{stem}.jpg"), reason::NO_PIXEL_LABELS, &detail))
        .collect())
}
