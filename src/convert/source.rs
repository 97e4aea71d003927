//! The two layouts of source data, detected by the files they contain.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::mat::ccp::{self, Ccp};
use crate::mat::cfpd::{self, Cfpd};
use crate::mat::{self, Annotation};
use crate::rejects::Reject;

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
}

impl Layout {
    /// Detects the layout of `folder`.
    ///
    /// # Errors
    /// [`Error::Input`] if it is not a folder or has neither layout.
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
        Err(Error::input(
            folder,
            format!(
                "is not a source of a known layout: it has neither {} (Colorful Fashion Parsing) nor {} (Clothing \
                 Co-Parsing); name the folder that holds one of them, or generate a sample with 'lookbook sample'",
                cfpd::FILE,
                ccp::LABEL_LIST
            ),
        ))
    }

    /// The name in `run.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cfpd => "cfpd",
            Self::Ccp => "ccp",
        }
    }
}

/// An opened source: entries by number, read from several threads at once.
pub(super) struct Source {
    pub(super) layout: Layout,
    folder: PathBuf,
    reader: Reader,
}

enum Reader {
    Cfpd(Cfpd),
    Ccp(Ccp),
}

impl Source {
    /// Opens the source and checks everything that concerns all of its entries.
    pub(super) fn open(folder: &Path, ccp_fold: Option<&Path>) -> Result<Self> {
        let layout = Layout::detect(folder)?;
        let (reader, photos) = match layout {
            Layout::Cfpd => (Reader::Cfpd(Cfpd::open(&folder.join(cfpd::FILE))?), cfpd::IMAGES),
            Layout::Ccp => (Reader::Ccp(Ccp::open(folder, ccp_fold)?), ccp::PHOTOS),
        };
        let photos = folder.join(photos);
        if !photos.is_dir() {
            return Err(Error::input(&photos, "is not a folder; the photos of the data set are expected there"));
        }
        Ok(Self { layout, folder: folder.to_owned(), reader })
    }

    pub(super) fn len(&self) -> usize {
        match &self.reader {
            Reader::Cfpd(cfpd) => cfpd.len(),
            Reader::Ccp(ccp) => ccp.len(),
        }
    }

    /// The labels of a photo, or why it has none; fails if the file system does.
    pub(super) fn annotation(&self, index: usize) -> Result<Result<Annotation, Reject>> {
        match &self.reader {
            Reader::Cfpd(cfpd) => cfpd.annotation(index),
            Reader::Ccp(ccp) => ccp.annotation(index),
        }
    }

    /// The path of the photo of that name.
    pub(super) fn photo_path(&self, file_name: &str) -> PathBuf {
        let photos = match self.layout {
            Layout::Cfpd => cfpd::IMAGES,
            Layout::Ccp => ccp::PHOTOS,
        };
        self.folder.join(photos).join(file_name)
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

    /// Photos without pixel labels in the source: they are listed as left out, but nothing is wrong with them.
    pub(super) fn unlabelled(&self) -> &[Reject] {
        match &self.reader {
            Reader::Cfpd(_) => &[],
            Reader::Ccp(ccp) => ccp.unlabelled(),
        }
    }
}
