//! Why a photo cannot be used.

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
}
