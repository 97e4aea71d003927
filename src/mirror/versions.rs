//! The versions of a folder in an object store.
//!
//! ```text
//! s3://BUCKET/features/current.json            names the published version and the previous ones
//! s3://BUCKET/features/_versions/VERSION/...   its files, never changed once it is published
//! ```
//!
//! There is no rename in an object store. A version is written under a name of its own, and becomes the published one when
//! `current.json` is replaced, by one write that fails if somebody else has replaced it since it was read. That write is
//! the moment of success; what comes after it only tidies up.

use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::stage::RUN_FILE;
use crate::store::{self, Location, Only, Written};

/// Name of the object that says which version is published.
pub(super) const POINTER: &str = "current.json";
/// Prefix of the versions.
pub(super) const VERSIONS: &str = "_versions";

/// The content of [`POINTER`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pointer {
    /// The published version.
    pub(super) version: String,
    /// The previous versions that are kept, newest first.
    #[serde(default)]
    pub(super) previous: Vec<String>,
}

/// A folder in an object store, as it was when it was opened.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) at: Location,
    /// The pointer, and the object that it was read from; `None` if nothing was ever published.
    pub(super) current: Option<(Pointer, Written)>,
    /// The files of which this command's copy has an outline alone: their sizes, and no content.
    pub(super) outlined: Option<Outlined>,
}

/// Whether a file of a folder, by its path there, is outlined.
pub(super) type Outlined = fn(&Path) -> bool;

impl Folder {
    /// Reads which version of the folder is published.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Input`] if the pointer is damaged.
    pub(super) fn open(at: Location) -> Result<Self> {
        let pointer = at.join(POINTER);
        let current = match store::find(&pointer)? {
            None => None,
            Some((_, written, content)) => {
                let parsed = serde_json::from_slice::<Pointer>(&content);
                let damaged =
                    |cause| Error::input(pointer.to_string(), "does not say which version is published").because(cause);
                Some((parsed.map_err(damaged)?, written))
            }
        };
        Ok(Self { at, current, outlined: None })
    }

    /// The name of the published version.
    pub(super) fn version(&self) -> Option<&str> {
        self.current.as_ref().map(|(pointer, _)| pointer.version.as_str())
    }

    /// The record of a published version, as JSON.
    ///
    /// # Errors
    /// [`Error::Input`] if it is missing, [`Error::Io`].
    pub(super) fn record(&self, version: &str) -> Result<Bytes> {
        let record = self.place(version).join(RUN_FILE);
        let missing = || Error::input(record.to_string(), "is missing, though this version is published");
        Ok(store::find(&record)?.ok_or_else(missing)?.2)
    }

    /// Where the files of a version are.
    pub(super) fn place(&self, version: &str) -> Location {
        self.at.join(VERSIONS).join(version)
    }

    /// A name for a new version; names sort by `generation`.
    pub(super) fn new_version(generation: u64) -> String {
        format!("{generation:08}-{}", Uuid::now_v7().simple())
    }

    /// Makes the version `new`, which is complete, the published one: instead of the present one (`replaces`), or as its
    /// successor, of which `keep` versions are kept. `false` if another run has published since the folder was opened.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn publish(&mut self, new: &str, replaces: bool, keep: usize) -> Result<bool> {
        let (current, mut previous) = match &self.current {
            Some((pointer, _)) => (Some(pointer.version.clone()), pointer.previous.clone()),
            None => (None, Vec::new()),
        };
        if let Some(current) = current.filter(|_| !replaces) {
            previous.insert(0, current);
            previous.truncate(keep.max(1) - 1);
        }
        self.point(Pointer { version: new.to_owned(), previous })
    }

    /// Swaps the published version with the previous one; `false` as for [`Folder::publish`].
    ///
    /// # Errors
    /// [`Error::Input`] if there is none; as [`Folder::publish`].
    pub(super) fn roll_back(&mut self) -> Result<bool> {
        let pointer = self.rolled_back()?;
        self.point(pointer)
    }

    /// The pointer that a rollback would write.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no previous version.
    pub(super) fn rolled_back(&self) -> Result<Pointer> {
        let pointer = self.current.as_ref().map(|(pointer, _)| pointer.clone());
        let Some((pointer, before)) = pointer.and_then(|it| Some((it.clone(), it.previous.first()?.clone()))) else {
            return Err(Error::input(self.at.to_string(), "has no version before it"));
        };
        let mut previous = pointer.previous;
        previous[0] = pointer.version;
        Ok(Pointer { version: before, previous })
    }

    fn point(&mut self, pointer: Pointer) -> Result<bool> {
        let mut text = serde_json::to_vec_pretty(&pointer).expect("a pointer is plain data");
        text.push(b'\n');
        let only = self.current.as_ref().map_or(Only::IfAbsent, |(_, written)| Only::IfStill(written));
        let written = store::write(&self.at.join(POINTER), &Bytes::from(text), only)?;
        let is_ours = written.is_some();
        if let Some(written) = written {
            self.current = Some((pointer, written));
        }
        Ok(is_ours)
    }

    /// Removes the versions that the pointer does not name and that are at least `min_age_hours` old, by the store's clock.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn tidy_up(&self, min_age_hours: u32) -> Result<()> {
        let Some((pointer, _)) = &self.current else { return Ok(()) };
        let now = store::objects(&[self.at.join(POINTER)])?.into_iter().flatten().next().map(|it| it.modified_secs);
        let Some(now) = now else { return Ok(()) };
        for version in store::folders(&self.at.join(VERSIONS))? {
            if version == pointer.version || pointer.previous.contains(&version) {
                continue;
            }
            let place = self.place(&version);
            let newest = store::list(&place)?.into_iter().map(|(_, object)| object.modified_secs).max();
            if newest.is_none_or(|it| now - it >= i64::from(min_age_hours) * 3600) {
                store::remove_below(&place)?;
            }
        }
        Ok(())
    }
}
