//! Files and folders that are written whole or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};

/// Writes a value as indented JSON, whole or not at all: into a temporary file beside `path`, flushed, then renamed.
///
/// # Errors
/// [`Error::Io`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|cause| Error::input(path, cause))?;
    text.push('\n');
    write_file(path, text.as_bytes())
}

/// Writes a file whole or not at all: into a temporary file beside `path`, flushed, then renamed.
///
/// # Errors
/// [`Error::Io`].
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut file = tempfile::Builder::new()
        .prefix(".partial-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(parent_of(path))
        .map_err(Error::io("create", path))?;
    file.write_all(content).map_err(Error::io("write", path))?;
    file.as_file().sync_all().map_err(Error::io("flush", path))?;
    file.persist(path).map_err(|cause| Error::io("rename into place", path)(cause.error))?;
    Ok(())
}

pub(super) fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

pub(super) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(cause)),
        _ => Ok(()),
    }
}

pub(super) fn sync_tree(folder: &Path) -> Result<()> {
    for entry in walkdir::WalkDir::new(folder).contents_first(true) {
        let entry = entry.map_err(|cause| Error::io("read", folder)(cause.into()))?;
        sync(entry.path())?;
    }
    Ok(())
}

pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("flush", path))
}
