//! The layouts of source data, detected by the files and folders they contain, and the label sets that they get.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::format::{Format, IMAGES};
use super::masks::Masks;
use super::{coco, label_studio, masks};
use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::fold::Fold;
use crate::labels::{CATEGORIES, COLORS, LabelSet};
use crate::mat::ccp::{self, Ccp};
use crate::mat::cfpd::{self, Cfpd};
use crate::mat::{self, Annotation};
use crate::rejects::Reject;

/// The setting of the label set.
const LABELS: &str = "convert.labels";
/// Possible names of a source's licence file.
const LICENSE_FILES: [&str; 7] =
    ["LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "LICENCE.md", "COPYING"];

/// How a source folder is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Colorful Fashion Parsing: `fashon_parsing_data.mat` and `image/`.
    Cfpd,
    /// Clothing Co-Parsing: `label_list.mat`, `annotations/` and `photos/`.
    Ccp,
    /// COCO: `annotations/*.json` and `images/`.
    Coco,
    /// Masks of photos: `masks/` and `photos/`, or `SegmentationClass/` and `JPEGImages/`.
    Masks,
    /// Label Studio: `*.json` and `images/`.
    LabelStudio,
}

impl Layout {
    /// Detects the layout of `folder`.
    ///
    /// # Errors
    /// [`Error::Input`] if it is not a folder or has no known layout; [`Error::Io`].
    pub fn detect(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::input(folder, "is not a folder; name the folder of the source data (--source)"));
        }
        if folder.join(cfpd::FILE).exists() {
            return Ok(Self::Cfpd);
        }
        if folder.join(ccp::LABEL_LIST).exists() {
            return Ok(Self::Ccp);
        }
        if !coco::files(folder)?.is_empty() {
            return Ok(Self::Coco);
        }
        if Masks::folders(folder).is_some() {
            return Ok(Self::Masks);
        }
        if !label_studio::files(folder)?.is_empty() {
            return Ok(Self::LabelStudio);
        }
        Err(Error::input(
            folder,
            format!(
                "is not a source of a known layout: it has neither {} (Colorful Fashion Parsing) nor {} (Clothing \
                 Co-Parsing) nor {}/*.json (COCO) nor masks/ or SegmentationClass/ (masks) nor *.json (Label Studio); \
                 name the folder that holds one of them, or generate a sample with 'lookbook sample'",
                cfpd::FILE,
                ccp::LABEL_LIST,
                coco::ANNOTATIONS,
            ),
        ))
    }

    /// The name in `run.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cfpd => "cfpd",
            Self::Ccp => "ccp",
            Self::Coco => "coco",
            Self::Masks => "masks",
            Self::LabelStudio => "label_studio",
        }
    }
}

/// Which label set a data set gets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "PathBuf", into = "PathBuf")]
pub enum Labels {
    /// That of Colorful Fashion Parsing: `cfpd`.
    #[default]
    Cfpd,
    /// The source's own names: `source`.
    Source,
    /// That of a `labels.toml`.
    File(PathBuf),
}

impl From<PathBuf> for Labels {
    fn from(path: PathBuf) -> Self {
        match path.to_str() {
            Some("cfpd") => Self::Cfpd,
            Some("source") => Self::Source,
            _ => Self::File(path),
        }
    }
}

impl From<Labels> for PathBuf {
    fn from(labels: Labels) -> Self {
        match labels {
            Labels::Cfpd => "cfpd".into(),
            Labels::Source => "source".into(),
            Labels::File(path) => path,
        }
    }
}

impl Labels {
    /// Checks the file, if there is one.
    ///
    /// # Errors
    /// [`Error::Config`] naming what is wrong with it; [`Error::Io`].
    pub(super) fn check(&self) -> Result<()> {
        if let Self::File(path) = self { read_labels(path).map(drop) } else { Ok(()) }
    }

    /// The label set for a source of that layout, folded or not.
    fn open(&self, layout: Layout, folder: &Path, is_folded: bool) -> Result<LabelSet> {
        match self {
            Self::Cfpd => Ok(LabelSet::cfpd()),
            Self::File(path) => read_labels(path),
            Self::Source if is_folded => {
                let problem = "is \"source\", but convert.fold folds the source's names; use one of them";
                Err(Error::config(LABELS, problem))
            }
            Self::Source => {
                let of_names = |names: Vec<String>| LabelSet::of_names(names.iter().map(String::as_str));
                let found = match layout {
                    Layout::Cfpd => Ok(LabelSet::cfpd()),
                    Layout::Ccp => of_names(ccp::tags(folder)?),
                    Layout::Coco => of_names(coco::names(folder)?),
                    Layout::Masks => masks::own_labels(folder)?,
                    Layout::LabelStudio => of_names(label_studio::names(folder)?),
                };
                found.map_err(|problem| {
                    let problem = format!(
                        "the source's own names cannot be a label set: {problem}; or name another set in a labels.toml and \
                         fold the source's names to it"
                    );
                    Error::config(LABELS, problem)
                })
            }
        }
    }
}

/// The label set of a `labels.toml`.
fn read_labels(path: &Path) -> Result<LabelSet> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    LabelSet::parse_toml(&text).map_err(|problem| Error::config(LABELS, format!("{}: {problem}", path.display())))
}

/// An opened source: entries by number, read from several threads at once.
pub(super) struct Source {
    pub(super) layout: Layout,
    pub(super) labels: LabelSet,
    folder: PathBuf,
    photos: PathBuf,
    format: Box<dyn Format>,
}

impl Source {
    /// Opens the source and checks everything that concerns all of its entries. `fold` maps its names to those of `labels`.
    pub(super) fn open(folder: &Path, labels: &Labels, fold: Option<&Path>) -> Result<Self> {
        let layout = Layout::detect(folder)?;
        let photos = match layout {
            Layout::Cfpd => cfpd::IMAGES,
            Layout::Ccp => ccp::PHOTOS,
            Layout::Coco | Layout::LabelStudio => IMAGES,
            Layout::Masks => Masks::folders(folder).map_or("photos", |(photos, _)| photos),
        };
        let photos = folder.join(photos);
        if !photos.is_dir() {
            return Err(Error::input(&photos, "is not a folder; the photos of the data set are expected there"));
        }
        let labels = labels.open(layout, folder, fold.is_some())?;
        let fold = if layout == Layout::Ccp && fold.is_none() && labels.is_cfpd() {
            ccp::built_in_fold()?
        } else {
            Fold::open(fold, &labels)?
        };
        let format: Box<dyn Format> = match layout {
            Layout::Cfpd => Box::new(FoldedCfpd::open(&folder.join(cfpd::FILE), &fold)?),
            Layout::Ccp => Box::new(Ccp::open_with(folder, &fold)?),
            Layout::Coco => Box::new(coco::open(folder, &fold)?),
            Layout::Masks => Box::new(Masks::open(folder, &fold)?),
            Layout::LabelStudio => Box::new(label_studio::open(folder, &fold)?),
        };
        Ok(Self { layout, labels, folder: folder.to_owned(), photos, format })
    }

    pub(super) fn len(&self) -> usize {
        self.format.len()
    }

    /// The labels of a photo, or why it has none; fails if the file system does.
    pub(super) fn annotation(&self, index: usize) -> Result<Result<Annotation, Reject>> {
        self.format.annotation(index)
    }

    /// The path of the photo of that name.
    pub(super) fn photo_path(&self, file_name: &str) -> PathBuf {
        self.photos.join(file_name)
    }

    /// The part of an entry, if the source has parts of its own.
    pub(super) fn split(&self, index: usize) -> Option<Split> {
        self.format.parts().and_then(|it| it.of(index))
    }

    /// Whether the source has parts of its own.
    pub(super) fn has_parts(&self) -> bool {
        self.format.parts().is_some()
    }

    /// Number of pixels of an entry, 0 if it is not known before it is read.
    pub(super) fn pixels(&self, index: usize) -> u64 {
        self.format.pixels(index)
    }

    /// The licence file of the data, if the source has one. A link to a file elsewhere is not its licence.
    pub(super) fn license(&self) -> Result<Option<PathBuf>> {
        for path in LICENSE_FILES.map(|name| self.folder.join(name)).into_iter().filter(|path| path.is_file()) {
            let Some(target) = self.link_out(&path)? else { return Ok(Some(path)) };
            tracing::warn!(
                "{} is passed over: it is a link out of the source, to {}",
                path.display(),
                target.display()
            );
        }
        Ok(None)
    }

    /// Where a file of this source leads, if that is out of it.
    pub(super) fn link_out(&self, path: &Path) -> Result<Option<PathBuf>> {
        mat::link_out_of(&self.folder, path)
    }

    /// What else is listed as left out, and is not counted among the photos: photos without pixel labels, with which
    /// nothing is wrong, and annotations of no photo.
    pub(super) fn listed(&self) -> &[Reject] {
        self.format.listed()
    }
}

/// The entries of the `.mat` file, with its categories and colours folded.
struct FoldedCfpd {
    mat: Cfpd,
    /// Category and colour by those of the file.
    categories: Vec<u8>,
    colors: Vec<u8>,
}

impl FoldedCfpd {
    fn open(path: &Path, fold: &Fold) -> Result<Self> {
        let mat = Cfpd::open(path)?;
        Ok(Self { mat, categories: fold.categories(CATEGORIES, path)?, colors: fold.colors(&COLORS)? })
    }
}

impl Format for FoldedCfpd {
    fn len(&self) -> usize {
        self.mat.len()
    }

    fn annotation(&self, index: usize) -> Result<Result<Annotation, Reject>> {
        let fold = |ids: &mut [u8], to: &[u8]| ids.iter_mut().for_each(|id| *id = to[usize::from(*id)]);
        let mut labels = self.mat.annotation(index)?;
        if let Ok(labels) = &mut labels {
            fold(&mut labels.superpixel_category, &self.categories);
            labels.superpixel_color.iter_mut().for_each(|colors| fold(colors, &self.colors));
        }
        Ok(labels)
    }
}

impl Format for Ccp {
    fn len(&self) -> usize {
        self.len()
    }

    fn annotation(&self, index: usize) -> Result<Result<Annotation, Reject>> {
        self.annotation(index)
    }

    fn listed(&self) -> &[Reject] {
        self.unlabelled()
    }
}
