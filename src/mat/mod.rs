//! Converts `.mat` files to plain records, and writes them for the built-in sample.
//!
//! Nothing in such a file is trusted: a damaged file yields one [`crate::Error::Input`] that names it, an invalid entry
//! a [`Reject`](crate::rejects::Reject) with one of the codes of [`crate::reason`], and neither ever panics.

use std::path::Path;

use crate::error::{Error, Result};

pub mod ccp;
pub mod cfpd;
mod hdf5;
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
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let mut head = Vec::new();
    file.take(HEADER_BYTES as u64).read_to_end(&mut head).map_err(Error::io("read", path))?;
    let wanted = match expected {
        Version::V5 => "a MATLAB v5 file",
        Version::V73 => "a MATLAB v7.3 file",
    };
    let problem = if head.is_empty() {
        "is empty".to_owned()
    } else if head.trim_ascii_start().starts_with(b"<") {
        "is a web page (HTML or XML); was an error page saved in its place?".to_owned()
    } else {
        match (expected, version(&head)) {
            (wanted, Some(found)) if wanted == found => return Ok(()),
            (_, Some(Version::V5)) => "is a MATLAB file of version 5; save it again with save(..., '-v7.3')".to_owned(),
            (_, Some(Version::V73)) => {
                "is a MATLAB file of version 7.3; save it again with save(..., '-v7')".to_owned()
            }
            (_, None) if head.len() < HEADER_BYTES => format!("is cut off after {} bytes", head.len()),
            (_, None) => "does not begin as a MATLAB file should".to_owned(),
        }
    };
    Err(Error::input(path, format!("{problem}; expected {wanted}, download the file again")))
}

fn version(head: &[u8]) -> Option<Version> {
    if head.len() < HEADER_BYTES {
        return None;
    }
    match (&head[..10], &head[124..128]) {
        (b"MATLAB 5.0", [0, 1, b'I', b'M'] | [1, 0, b'M', b'I']) => Some(Version::V5),
        (b"MATLAB 7.3", [0, 2, b'I', b'M'] | [2, 0, b'M', b'I']) => Some(Version::V73),
        _ => None,
    }
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
