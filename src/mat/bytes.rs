//! The bytes of an HDF5 file by address, and the numbers in its structures.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

/// An address that leads nowhere.
pub(super) const UNDEFINED: u64 = u64::MAX;
/// The first bytes of an HDF5 file, behind a user block of 0, 512, 1024, ... bytes.
pub(super) const SIGNATURE: &[u8; 8] = b"\x89HDF\r\n\x1a\n";
/// Maximum size of a structure in bytes; headers have a few kilobytes, the names of a large group a few megabytes.
pub(super) const MAX_BLOCK_BYTES: u64 = 16 << 20;

/// The bytes of the file, by addresses relative to the end of the user block.
#[derive(Clone)]
pub(super) struct Bytes {
    pub(super) file: Arc<PositionedFile>,
    /// Length of the user block.
    pub(super) base: u64,
}

impl Bytes {
    /// Number of bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.file.bytes
    }

    /// Reads `length` bytes.
    pub(super) fn read(&self, address: u64, length: u64) -> Result<Vec<u8>, String> {
        let beyond = || format!("{length} bytes at {address} are beyond the end of the file");
        let from = address.checked_add(self.base).filter(|_| length <= MAX_BLOCK_BYTES).ok_or_else(beyond)?;
        if from.checked_add(length).is_none_or(|end| end > self.len()) {
            return Err(beyond());
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(from, &mut bytes).map_err(|cause| cause.to_string())?;
        Ok(bytes)
    }

    /// Reads a block that begins with a signature.
    pub(super) fn block(&self, address: u64, signature: [u8; 4], length: u64) -> Result<Vec<u8>, String> {
        let block = self.read(address, length)?;
        let kind = String::from_utf8_lossy(&signature);
        if block.starts_with(&signature) { Ok(block) } else { Err(format!("there is no {kind} at byte {address}")) }
    }
}

/// An unsigned number of up to eight bytes.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn at(bytes: &[u8], at: usize, length: usize) -> Result<u64, String> {
    let bytes = at.checked_add(length).and_then(|end| bytes.get(at..end));
    bytes.map(number).ok_or_else(|| "a structure is cut off".to_owned())
}

pub(super) fn u16_at(bytes: &[u8], place: usize) -> Result<u16, String> {
    at(bytes, place, 2).map(|number| number as u16)
}

pub(super) fn u32_at(bytes: &[u8], place: usize) -> Result<u32, String> {
    at(bytes, place, 4).map(|number| number as u32)
}

pub(super) fn u64_at(bytes: &[u8], place: usize) -> Result<u64, String> {
    at(bytes, place, 8)
}

/// A file that many threads read at arbitrary offsets at once, without a lock or a copy in memory.
pub(super) struct PositionedFile {
    path: PathBuf,
    file: File,
    pub(super) bytes: u64,
    /// The first error that the file system reported: it says nothing about the data, and ends the stage.
    failed: Mutex<Option<std::io::Error>>,
}

impl PositionedFile {
    /// Where its signature is.
    pub(super) fn signature(&self) -> Result<Option<u64>> {
        signature(&self.file).map_err(Error::io("read", &self.path))
    }

    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let bytes = file.metadata().map_err(Error::io("read", path))?.len();
        Ok(Self { path: path.to_owned(), file, bytes, failed: Mutex::default() })
    }

    pub(super) fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let read = self.file.read_exact_at(buffer, offset);
        if let Err(cause) = &read
            && let Some(code) = cause.raw_os_error()
        {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert_with(|| std::io::Error::from_raw_os_error(code));
        }
        read
    }

    /// The error that the file system reported since the file was opened.
    pub(super) fn check(&self) -> Result<()> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let code = failed.as_ref().and_then(std::io::Error::raw_os_error);
        code.map_or(Ok(()), |code| Err(Error::io("read", &self.path)(std::io::Error::from_raw_os_error(code))))
    }
}

/// Where the signature of an HDF5 file is, if it has one.
pub(super) fn signature(file: &File) -> std::io::Result<Option<u64>> {
    let bytes = file.metadata()?.len();
    let mut place = 0;
    while place + SIGNATURE.len() as u64 <= bytes {
        let mut found = [0; SIGNATURE.len()];
        file.read_exact_at(&mut found, place)?;
        if &found == SIGNATURE {
            return Ok(Some(place));
        }
        place = if place == 0 { 512 } else { place * 2 };
    }
    Ok(None)
}
