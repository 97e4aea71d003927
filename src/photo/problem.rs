//! Why a photo cannot be used.

/// The stable reason codes of photos that are no good, as `rejects.parquet` holds them.
pub mod reason {
    /// There is no such file.
    pub const MISSING: &str = "photo_missing";
    /// The file may not be read.
    pub const NO_PERMISSION: &str = "photo_no_permission";
    /// The disk or the network failed: the photo may be good.
    pub const IO_ERROR: &str = "photo_io_error";
    /// A folder, a pipe, a socket or a device.
    pub const NOT_A_FILE: &str = "photo_not_a_file";
    /// The file has zero bytes.
    pub const EMPTY: &str = "photo_empty";
    /// Neither JPEG nor PNG nor WebP, or one that is damaged.
    pub const UNDECODABLE: &str = "photo_undecodable";
    /// The file ends before the picture does.
    pub const TRUNCATED: &str = "photo_truncated";
    /// Its labels are of another size than the upright photo.
    pub const OTHER_SIZE: &str = "photo_other_size";
    /// More pixels than allowed ([`super::MAX_PIXELS`]), or more bytes than [`super::MAX_FILE_BYTES`].
    pub const TOO_LARGE: &str = "photo_too_large";
    /// Its name is no UTF-8, which columns of text hold.
    pub const NAME_NOT_UTF8: &str = "photo_name_not_utf8";
}

/// Why a photo file is no good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoProblem {
    /// A stable reason code of `rejects.parquet`, one of [`reason`].
    pub reason: &'static str,
    /// What was found, for people.
    pub detail: String,
}

impl PhotoProblem {
    /// A problem for `reason`.
    pub fn new(reason: &'static str, detail: impl std::fmt::Display) -> Self {
        Self { reason, detail: detail.to_string() }
    }
}
