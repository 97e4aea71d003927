//! `state-NNNNN.parquet` beside each part of a features folder: what the next run has to know of each photo of the part, in
//! the part's order, so that it does again only what is new.
//!
//! | column | type | meaning |
//! | --- | --- | --- |
//! | `photo_id` | u32 | as in the part |
//! | `name` | text | the photo within its catalogue |
//! | `file_bytes` | u64 | size of the file; null for photos inside a dataset |
//! | `modified` | timestamp, ns, UTC | when the file was changed last; null for photos inside a dataset, and where that was too short before it was read to rely on |
//! | `content_sha256` | 32 bytes | of the encoded file; null where it could not be read |
//! | `row_key` | u64 | model, colour table and settings that the row hangs on, as a hash |
//! | `reason`, `detail` | text | why the photo has no row in the part; null where it has one |

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, FixedSizeBinaryArray, FixedSizeBinaryBuilder, RecordBatch, StringArray, TimestampNanosecondArray,
    UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, TimeUnit};

use crate::error::Result;
use crate::table::{column, read_table, schema, write_table};

/// Name of the table.
pub const TABLE: &str = "state";
/// Bytes of a SHA-256.
const DIGEST_BYTES: i32 = 32;
const TIME_ZONE: &str = "UTC";

/// SHA-256 of a file's content.
pub type Digest = [u8; DIGEST_BYTES as usize];

/// What the file system told of a file when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Size.
    pub bytes: u64,
    /// Nanoseconds since 1970; `None` where that does not tell one content from another.
    pub modified_ns: Option<i64>,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRow {
    /// As in the part.
    pub photo_id: u32,
    /// The photo within its catalogue.
    pub name: Arc<str>,
    /// `None` for photos inside a dataset, and for files that could not be looked at.
    pub stat: Option<Stat>,
    /// `None` where the file could not be read.
    pub content: Option<Digest>,
    /// What the row hangs on beside the content.
    pub row_key: u64,
    /// Reason code and detail of a photo without a row.
    pub reject: Option<(String, String)>,
}

/// File name of the state of part `number`.
#[must_use]
pub fn file_name(number: usize) -> String {
    format!("state-{number:05}.parquet")
}

/// Writes the table.
///
/// # Errors
/// As [`write_table`].
pub fn write(path: &Path, rows: &[StateRow]) -> Result<()> {
    let modified = DataType::Timestamp(TimeUnit::Nanosecond, Some(TIME_ZONE.into()));
    let fields = vec![
        Field::new("photo_id", DataType::UInt32, false),
        Field::new("name", DataType::Utf8, false),
        Field::new("file_bytes", DataType::UInt64, true),
        Field::new("modified", modified, true),
        Field::new("content_sha256", DataType::FixedSizeBinary(DIGEST_BYTES), true),
        Field::new("row_key", DataType::UInt64, false),
        Field::new("reason", DataType::Utf8, true),
        Field::new("detail", DataType::Utf8, true),
    ];
    let times: TimestampNanosecondArray = rows.iter().map(|row| row.stat.and_then(|stat| stat.modified_ns)).collect();
    let mut digests = FixedSizeBinaryBuilder::with_capacity(rows.len(), DIGEST_BYTES);
    for row in rows {
        match &row.content {
            Some(digest) => digests.append_value(digest).expect("a digest has its size"),
            None => digests.append_null(),
        }
    }
    let rejected = |of: fn(&(String, String)) -> &str| -> ArrayRef {
        Arc::new(rows.iter().map(|row| row.reject.as_ref().map(of)).collect::<StringArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.photo_id))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.name))),
        Arc::new(rows.iter().map(|row| row.stat.map(|stat| stat.bytes)).collect::<UInt64Array>()),
        Arc::new(times.with_timezone(TIME_ZONE)),
        Arc::new(digests.finish()),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.row_key))),
        rejected(|it| &it.0),
        rejected(|it| &it.1),
    ];
    write_table(path, &RecordBatch::try_new(schema(TABLE, fields), columns).expect("the columns match the schema"))
}

/// Reads the table at `path`.
///
/// # Errors
/// As [`read_table`].
pub fn read(path: &Path) -> Result<Vec<StateRow>> {
    let mut rows = Vec::new();
    for batch in read_table(path, TABLE, &[], crate::features::rows::PART_ROWS)? {
        let batch = batch?;
        let ids: &UInt32Array = column(path, &batch, "photo_id")?;
        let names: &StringArray = column(path, &batch, "name")?;
        let sizes: &UInt64Array = column(path, &batch, "file_bytes")?;
        let times: &TimestampNanosecondArray = column(path, &batch, "modified")?;
        let digests: &FixedSizeBinaryArray = column(path, &batch, "content_sha256")?;
        let keys: &UInt64Array = column(path, &batch, "row_key")?;
        let reasons: &StringArray = column(path, &batch, "reason")?;
        let details: &StringArray = column(path, &batch, "detail")?;
        rows.extend((0..batch.num_rows()).map(|row| StateRow {
            photo_id: ids.value(row),
            name: names.value(row).into(),
            stat:
                sizes.is_valid(row).then(|| Stat {
                    bytes: sizes.value(row),
                    modified_ns: times.is_valid(row).then(|| times.value(row)),
                }),
            content: digests.is_valid(row).then(|| digests.value(row).try_into().ok()).flatten(),
            row_key: keys.value(row),
            reject: reasons.is_valid(row).then(|| (reasons.value(row).to_owned(), details.value(row).to_owned())),
        }));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let path = place.path().join(file_name(0));
        let good = StateRow {
            photo_id: 7,
            name: "a/ü.jpg".into(),
            stat: Some(Stat { bytes: 12, modified_ns: Some(1_700_000_000_123_456_789) }),
            content: Some([9; 32]),
            row_key: u64::MAX,
            reject: None,
        };
        let unread = StateRow {
            stat: None,
            content: None,
            reject: Some(("photo_io_error".to_owned(), "the disk".to_owned())),
            ..good.clone()
        };
        let fresh = StateRow { stat: Some(Stat { bytes: 0, modified_ns: None }), ..good.clone() };
        let rows = [good, unread, fresh];
        write(&path, &rows)?;
        assert_eq!(read(&path)?, rows);
        Ok(())
    }
}
