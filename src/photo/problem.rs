//! Why a photo cannot be used.

/// The stable reason codes of invalid photos, as stored in `rejects.parquet`.
pub mod reason {
    /// There is no such file.
    pub const MISSING: &str = "photo_missing";
    /// No permission to read the file.
    pub const NO_PERMISSION: &str = "photo_no_permission";
    /// The disk or the network failed: the photo itself may be fine.
    pub const IO_ERROR: &str = "photo_io_error";
    /// A folder, a pipe, a socket or a device.
    pub const NOT_A_FILE: &str = "photo_not_a_file";
    /// The file has zero bytes.
    pub const EMPTY: &str = "photo_empty";
    /// Neither JPEG nor PNG nor WebP, or damaged.
    pub const UNDECODABLE: &str = "photo_undecodable";
    /// The file ends before the picture does.
    pub const TRUNCATED: &str = "photo_truncated";
    /// Its labels have a different size from the upright photo.
    pub const OTHER_SIZE: &str = "photo_other_size";
    /// More pixels than allowed ([`MAX_PIXELS`](crate::photo::MAX_PIXELS)), or more bytes than
    /// [`MAX_FILE_BYTES`](crate::photo::MAX_FILE_BYTES).
    pub const TOO_LARGE: &str = "photo_too_large";
    /// A JPEG file with more scans than allowed, each of which costs a pass over all pixels.
    pub const TOO_MANY_SCANS: &str = "photo_too_many_scans";
    /// Its name is not UTF-8, which text columns require.
    pub const NAME_NOT_UTF8: &str = "photo_name_not_utf8";
}

/// Why a photo file is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoProblem {
    /// A stable reason code of `rejects.parquet`, one of [`reason`].
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
