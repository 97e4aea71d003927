//! The photos of a feature table with their hashes.

use std::path::Path;

use arrow::array::{Array, AsArray, FixedSizeListArray, StringArray, UInt32Array, UInt64Array};
use arrow::datatypes::UInt64Type;
use arrow::record_batch::RecordBatch;

use super::groups::HashedPhoto;
use crate::error::{Error, Result};
use crate::features::rows::{CROP_RESISTANT_COLUMN, TABLE};
use crate::files::OpenFolder;
use crate::photo::hashes::{CropResistantHash, VIEWS, WORDS};
use crate::stop;
use crate::table::{self, Footer, column};

/// Rows that are read at once.
const BATCH_ROWS: usize = 8192;
/// Hexadecimal digits of a content's SHA-256 that are compared, the last ones: 128 bits.
const DIGITS: usize = 32;
const COLUMNS: [&str; 5] = ["photo_id", "content_sha256", "photo_width_px", "photo_height_px", CROP_RESISTANT_COLUMN];

/// The photos of a feature table, and the hashes of those that are not flat.
pub(super) struct Hashed {
    pub(super) photos: Vec<HashedPhoto>,
    pub(super) hashes: Vec<CropResistantHash>,
}

impl Hashed {
    /// Reads the parts of a features folder.
    ///
    /// # Errors
    /// [`Error::Input`] if the table has no hashes, or an id twice; [`Error::Schema`].
    pub(super) fn read(folder: &OpenFolder) -> Result<Self> {
        let mut read = Self { photos: Vec::new(), hashes: Vec::new() };
        for part in table::parts(folder.root())? {
            stop::check()?;
            if Footer::read(&part)?.schema.field_with_name(CROP_RESISTANT_COLUMN).is_err() {
                let problem = format!(
                    "has no column '{CROP_RESISTANT_COLUMN}': it was made by an older version; run `lookbook segment` again"
                );
                return Err(Error::input(folder.name(), problem));
            }
            for batch in table::read_table(&part, TABLE, &COLUMNS, BATCH_ROWS)? {
                read.add(&part, &batch?)?;
            }
        }
        let mut ids: Vec<u32> = read.photos.iter().map(|it| it.photo_id).collect();
        ids.sort_unstable();
        match ids.windows(2).find(|it| it[0] == it[1]) {
            Some(twice) => {
                Err(Error::input(folder.name(), format!("photo_id {} occurs twice; ids must be unique", twice[0])))
            }
            None => Ok(read),
        }
    }

    fn add(&mut self, part: &Path, rows: &RecordBatch) -> Result<()> {
        let number = |name| column::<UInt32Array>(part, rows, name);
        let (ids, widths, heights) = (number("photo_id")?, number("photo_width_px")?, number("photo_height_px")?);
        let contents: &StringArray = column(part, rows, "content_sha256")?;
        let lists: &FixedSizeListArray = column(part, rows, CROP_RESISTANT_COLUMN)?;
        let words = words_of(part, lists)?;
        for row in 0..rows.num_rows() {
            let content = digest(contents.value(row)).ok_or_else(|| {
                let problem = format!("photo_id {}, column content_sha256: is not a SHA-256", ids.value(row));
                Error::input(part, problem)
            })?;
            let hash = lists.is_valid(row).then_some(self.hashes.len() as u32);
            if hash.is_some() {
                let words = words.slice(row * VIEWS * WORDS, VIEWS * WORDS);
                if words.null_count() > 0 {
                    let problem = format!("photo_id {}, column {CROP_RESISTANT_COLUMN}: holds a null", ids.value(row));
                    return Err(Error::input(part, problem));
                }
                self.hashes.push(std::array::from_fn(|word| words.value(word)));
            }
            let pixels = u64::from(widths.value(row)) * u64::from(heights.value(row));
            self.photos.push(HashedPhoto { photo_id: ids.value(row), pixels, content, hash });
        }
        Ok(())
    }
}

/// The words of all lists, `[rows, views, words]`.
fn words_of<'a>(part: &Path, lists: &'a FixedSizeListArray) -> Result<&'a UInt64Array> {
    let words = lists.values().as_primitive_opt::<UInt64Type>();
    words.filter(|it| it.len() == lists.len() * VIEWS * WORDS).ok_or_else(|| {
        let expected = format!("column '{CROP_RESISTANT_COLUMN}' of {} u64 each", VIEWS * WORDS);
        Error::schema(part, expected, lists.data_type().to_string())
    })
}

/// The last 128 bits of a SHA-256.
fn digest(hexadecimal: &str) -> Option<u128> {
    u128::from_str_radix(hexadecimal.get(hexadecimal.len().checked_sub(DIGITS)?..)?, 16).ok()
}
