//! The markers of a JPEG file (B.1.1).

use crate::photo::problem::PhotoProblem;
use crate::reason;

/// A file from its first marker after SOI, and how far it has been read.
pub(super) struct Markers<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Markers<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 2 }
    }

    /// Advances past the next marker; returns it and where it starts. Stray bytes before it are skipped, as all
    /// decoders do.
    pub(super) fn next(&mut self) -> Result<(u8, usize), PhotoProblem> {
        let marker = find(self.rest(), |it| !matches!(it, 0 | 0xFF)).ok_or_else(|| self.cut())?;
        self.at += marker + 2;
        Ok((self.bytes[self.at - 1], self.at - 2))
    }

    /// Advances past the segment that starts here; returns its content.
    pub(super) fn segment(&mut self) -> Result<&'a [u8], PhotoProblem> {
        let rest = self.rest();
        let length = rest.first_chunk().map_or(0, |&length| usize::from(u16::from_be_bytes(length)).max(2));
        let segment = rest.get(2..length).filter(|_| length > 0).ok_or_else(|| self.cut())?;
        self.at += length;
        Ok(segment)
    }

    /// Advances to the marker after entropy-coded data.
    pub(super) fn skip_data(&mut self) {
        let rest = self.rest();
        self.at += find(rest, |it| !matches!(it, 0 | 0xD0..=0xD7 | 0xFF)).unwrap_or(rest.len());
    }

    /// The bytes from `start` to here.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// The bytes from here on.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn cut(&self) -> PhotoProblem {
        let detail = format!("the JPEG file ends at byte {} without its EOI marker", self.bytes.len());
        PhotoProblem::new(reason::TRUNCATED, detail)
    }
}

/// Position of the first byte 0xFF before a byte that `ends` accepts.
fn find(bytes: &[u8], ends: impl Fn(u8) -> bool) -> Option<usize> {
    memchr::memchr_iter(0xFF, bytes).find(|&at| bytes.get(at + 1).is_some_and(|&next| ends(next)))
}

/// A part of a file contradicts the format.
pub(super) fn damaged(what: &str) -> PhotoProblem {
    undecodable(format!("{what} of the JPEG file is damaged"))
}

/// A file that cannot be decoded, with the cause.
pub(super) fn undecodable(detail: impl std::fmt::Display) -> PhotoProblem {
    PhotoProblem::new(reason::UNDECODABLE, detail)
}
