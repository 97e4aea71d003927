//! Converts `.mat` files to plain records, and writes them for the built-in sample.
//!
//! Nothing in such a file is trusted: a damaged file yields one [`crate::Error::Input`] that names it, an invalid entry
//! a [`Reject`](crate::rejects::Reject) with one of the codes of [`crate::reason`], and neither ever panics.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

mod bytes;
pub mod ccp;
pub mod cfpd;
mod field;
mod hdf5;
mod heap;
mod objects;
mod v5;
pub mod write;

/// Length of the header of a MATLAB file.
const HEADER_BYTES: usize = 128;

/// The kind of MATLAB file that the first bytes declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V5,
    V73,
}

/// Reads the header of a file that should be a MATLAB file of version `expected`.
///
/// # Errors
/// [`Error::Input`] describing what the file is instead: empty, a web page, another version; [`Error::Io`].
fn check_header(path: &Path, expected: Version) -> Result<()> {
    let mut file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let mut head = Vec::new();
    file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut head).map_err(Error::io("read", path))?;
    let is_hdf5 = || Ok(bytes::signature(&file).map_err(Error::io("read", path))?.is_some());
    let found = match version(&head) {
        // Files of HDF5 without MATLAB's header are read all the same.
        None if expected == Version::V73 && is_hdf5()? => Some(Version::V73),
        found => found,
    };
    let again =
        |version, flag| format!("is a MATLAB file of version {version}; save it again with save(..., '{flag}')");
    let flag = if expected == Version::V5 { "-v7" } else { "-v7.3" };
    let problem = match found {
        Some(found) if found == expected => return Ok(()),
        Some(Version::V5) => again("5", flag),
        Some(Version::V73) => again("7.3", flag),
        None if head.is_empty() => "is empty; download the file again".to_owned(),
        None if head.trim_ascii_start().starts_with(b"<") => {
            "is a web page (HTML or XML); was an error page saved in its place? Download the file again".to_owned()
        }
        None if is_version_4(&head) => again("4", flag),
        None if head.len() < HEADER_BYTES => format!("is cut off after {} bytes; download the file again", head.len()),
        None => "does not begin as a MATLAB file should; download the file again".to_owned(),
    };
    let wanted = if expected == Version::V5 { "a MATLAB v5 file" } else { "a MATLAB v7.3 file" };
    Err(Error::input(path, format!("{problem}; expected {wanted}")))
}

/// The version by the last four bytes of the header: the text before them is free.
fn version(head: &[u8]) -> Option<Version> {
    match head.get(124..HEADER_BYTES)? {
        [0, 1, b'I', b'M'] | [1, 0, b'M', b'I'] => Some(Version::V5),
        [0, 2, b'I', b'M'] | [2, 0, b'M', b'I'] => Some(Version::V73),
        _ => None,
    }
}

/// Whether a file begins with an array of version 4, which has no header: its type, rows, columns, whether it is
/// complex, and the length of its name.
fn is_version_4(head: &[u8]) -> bool {
    let plausible = |word: fn([u8; 4]) -> u32| {
        let words: Vec<u32> = head.chunks_exact(4).take(5).map(|it| word([it[0], it[1], it[2], it[3]])).collect();
        matches!(words[..], [kind, _, _, 0..=1, 2..=64] if kind < 5000 && kind % 10 < 3 && kind % 100 < 60 && kind / 100 % 10 == 0)
    };
    plausible(u32::from_le_bytes) || plausible(u32::from_be_bytes)
}

/// Where a file of a source leads, if it is a link to a place outside of the source and of its own folder: the source
/// may have its folders elsewhere, but a single file from elsewhere is not its content.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn link_out_of(source: &Path, path: &Path) -> Result<Option<PathBuf>> {
    let metadata = std::fs::symlink_metadata(path).map_err(Error::io("read", path))?;
    if !metadata.is_symlink() {
        return Ok(None);
    }
    let real = |path: &Path| std::fs::canonicalize(path).map_err(Error::io("follow the symbolic link", path));
    let target = real(path)?;
    let parent = path.parent().unwrap_or(source);
    Ok((!target.starts_with(real(source)?) && !target.starts_with(real(parent)?)).then_some(target))
}

/// The labels of one photo, checked: every superpixel number has its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// A plain file name inside the folder of photos.
    pub file_name: String,
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
    /// `[height, width]`, 0-based.
    pub superpixels: Vec<u16>,
    /// Category of each superpixel, 0 to 22.
    pub superpixel_category: Vec<u8>,
    /// Colour of each superpixel, 0 to 12; `None` if the source has no colours.
    pub superpixel_color: Option<Vec<u8>>,
}
