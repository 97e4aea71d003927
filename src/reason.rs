//! The reason codes of `rejects.parquet`: why a photo, an entry of a source or a folder was left out. They are stable:
//! people filter by them. `docs/tables.md` says who must act on each.

/// Defines the codes, and [`ALL`] of them.
macro_rules! reasons {
    ($($(#[$meaning:meta])+ $name:ident = $code:literal;)+) => {
        $($(#[$meaning])+ pub const $name: &str = $code;)+
        /// All codes.
        pub const ALL: &[&str] = &[$($name),+];
    };
}

reasons! {
    /// There is no such photo.
    MISSING = "photo_missing";
    /// No permission to read the photo.
    NO_PERMISSION = "photo_no_permission";
    /// The disk or the network failed: the photo itself may be fine.
    IO_ERROR = "photo_io_error";
    /// A limit of the process or the machine, such as that of open files: stages end with it, and reject no photo for
    /// it.
    LIMIT_REACHED = "photo_limit_reached";
    /// A folder, a pipe, a socket or a device instead of a photo.
    NOT_A_FILE = "photo_not_a_file";
    /// The photo is a link that leads out of the source.
    OUTSIDE_SOURCE = "photo_outside_source";
    /// The photo's file has zero bytes.
    EMPTY = "photo_empty";
    /// Neither JPEG nor PNG nor WebP, or damaged.
    UNDECODABLE = "photo_undecodable";
    /// The file ends before the picture does.
    TRUNCATED = "photo_truncated";
    /// More pixels or more bytes than allowed.
    TOO_LARGE = "photo_too_large";
    /// The labels have a different size from the upright photo.
    OTHER_SIZE = "photo_other_size";
    /// A JPEG file with more scans than allowed, each of which costs a pass over all pixels.
    TOO_MANY_SCANS = "photo_too_many_scans";
    /// The photo's name is not UTF-8, which text columns require.
    NAME_NOT_UTF8 = "photo_name_not_utf8";
    /// No permission to read the folder.
    FOLDER_NO_PERMISSION = "folder_no_permission";
    /// The disk or the network failed while the folder was read.
    FOLDER_IO_ERROR = "folder_io_error";
    /// A symbolic link that leads back to a folder that contains it.
    FOLDER_LOOP = "folder_loop";
    /// The entry of a `.mat` file is not a struct, or its parts cannot be read.
    ENTRY_UNREADABLE = "entry_unreadable";
    /// A field of the entry is missing.
    FIELD_MISSING = "field_missing";
    /// A field has a different type or shape from the data set's.
    FIELD_SHAPE = "field_shape";
    /// The photo's name in the entry is empty, absolute, or leads out of the folder of photos.
    NAME_UNSAFE = "name_unsafe";
    /// An earlier entry has the same photo.
    NAME_DUPLICATE = "name_duplicate";
    /// An annotation is no mask: a polygon of two points, run lengths of another size.
    ANNOTATION_INVALID = "annotation_invalid";
    /// An annotation is of an image that is not there.
    ANNOTATION_UNPLACED = "annotation_unplaced";
    /// The source has parts of its own, and the photo is in none.
    NO_SPLIT = "no_split";
    /// A category label is not an integer in the range of the list of categories.
    CATEGORY_INVALID = "category_invalid";
    /// A colour label is not an integer in the range of the list of colours.
    COLOR_INVALID = "color_invalid";
    /// A superpixel number is not a non-negative integer.
    SUPERPIXEL_INVALID = "superpixel_invalid";
    /// A superpixel number has no label.
    SUPERPIXEL_UNLABELLED = "superpixel_unlabelled";
    /// The photo has no label map; nothing is wrong with it.
    NO_PIXEL_LABELS = "no_pixel_labels";
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn every_code_occurs_once_and_is_documented() {
        let document = include_str!("../docs/tables.md");
        for (place, code) in ALL.iter().enumerate() {
            assert!(!ALL[..place].contains(code), "{code} has two meanings");
            assert!(document.contains(&format!("`{code}`")), "docs/tables.md does not explain {code}");
        }
    }
}
