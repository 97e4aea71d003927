//! Why a photo cannot be used.

use std::path::Path;

use crate::error::Error;
use crate::reason;

/// Why a photo file is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoProblem {
    /// A stable reason code of `rejects.parquet`, one of [`crate::reason`].
    pub reason: &'static str,
    /// What was found, in words.
    pub detail: String,
}

impl PhotoProblem {
    /// A problem with the code `reason`.
    pub fn new(reason: &'static str, detail: impl std::fmt::Display) -> Self {
        Self { reason, detail: detail.to_string() }
    }

    /// The error that ends a stage, if the photo at `path` could not be read for a limit of the process or the machine.
    #[must_use]
    pub fn limit(&self, path: &Path) -> Option<Error> {
        let problem = format!("{}: {}; raise the limit (`ulimit -n`, `ulimit -v`)", path.display(), self.detail);
        (self.reason == reason::LIMIT_REACHED)
            .then(|| Error::Limit { what: "open files or memory".to_owned(), problem })
    }
}
