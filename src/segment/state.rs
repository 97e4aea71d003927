//! `state-NNNNN.parquet` for each part of a features folder: what the next run needs to know about each photo of the
//! part, in the part's order, so that it only processes what is new.
//!
//! | column | type | meaning |
//! | --- | --- | --- |
//! | `photo_id` | u32 | as in the part |
//! | `name` | text | the photo within its catalogue |
//! | `file_bytes` | u64 | size of the file; null for photos inside a dataset |
//! | `modified` | timestamp, us, UTC | when the file's content was last changed; null for photos inside a dataset, and if the change was too recent, when the file was read, to be relied on |
//! | `changed` | timestamp, us, UTC | when its content, name or permissions were last changed; null for photos inside a dataset |
//! | `inode` | u64 | its inode number; null for photos inside a dataset |
//! | `content_sha256` | 32 bytes | of the encoded file; null if it could not be read |
//! | `row_key` | u64 | hash of the model, colour table and settings that the row depends on |
//! | `certainty` | f32 | mean probability of the network's choices over the photo, 0 to 1; only if it was asked for |
//! | `category_certainty` | list of f32 | the same over the pixels of each category, by id, 0 without pixels |
//! | `reason`, `detail` | text | why the photo has no row in the part; null if it has one |

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, FixedSizeBinaryArray, FixedSizeBinaryBuilder, Float32Array, Float32Builder, ListArray,
    ListBuilder, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, TimeUnit};

use crate::error::Result;
use crate::model::layout::CERTAIN;
use crate::stage::{Digest, Stat};
use crate::table::{column, read_table, schema, write_table};

/// Name of the table.
pub const TABLE: &str = "state";
const TIME_ZONE: &str = "UTC";

/// How sure the network is of a photo: mean probabilities of its choices, 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct PhotoCertainty {
    /// Over all pixels.
    pub mean: f32,
    /// Over the pixels of each category; 0 if the photo has no such pixels.
    pub by_category: Vec<f32>,
}

impl PhotoCertainty {
    /// From a label map of so many `categories` and the certainties of its pixels, 0 to [`CERTAIN`].
    #[must_use]
    pub fn of(label_map: &[u8], certainties: &[u8], categories: usize) -> Self {
        let mut sums = vec![[0_u64; 2]; categories];
        for (&label, &certainty) in label_map.iter().zip(certainties) {
            let [sum, pixels] = &mut sums[usize::from(label)];
            *sum += u64::from(certainty);
            *pixels += 1;
        }
        let mean = |[sum, pixels]: [u64; 2]| (sum as f64 / (pixels.max(1) as f64 * f64::from(CERTAIN))) as f32;
        let all = sums.iter().fold([0; 2], |all, it| [all[0] + it[0], all[1] + it[1]]);
        Self { mean: mean(all), by_category: sums.into_iter().map(mean).collect() }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct StateRow {
    /// As in the part.
    pub photo_id: u32,
    /// The photo within its catalogue.
    pub name: Arc<str>,
    /// `None` for photos inside a dataset, and for files that could not be read.
    pub stat: Option<Stat>,
    /// `None` if the file could not be read.
    pub content: Option<Digest>,
    /// Hash of what the row depends on besides the content.
    pub row_key: u64,
    /// `None` unless it was asked for.
    pub certainty: Option<Box<PhotoCertainty>>,
    /// Reason code and detail of a photo without a row.
    pub reject: Option<(String, String)>,
}

/// Writes the table.
///
/// # Errors
/// As [`write_table`].
pub fn write(path: &Path, rows: &[StateRow]) -> Result<()> {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some(TIME_ZONE.into()));
    let mut fields = vec![
        Field::new("photo_id", DataType::UInt32, false),
        Field::new("name", DataType::Utf8, false),
        Field::new("file_bytes", DataType::UInt64, true),
        Field::new("modified", time.clone(), true),
        Field::new("changed", time, true),
        Field::new("inode", DataType::UInt64, true),
        Field::new("content_sha256", DataType::FixedSizeBinary(32), true),
        Field::new("row_key", DataType::UInt64, false),
        Field::new("reason", DataType::Utf8, true),
        Field::new("detail", DataType::Utf8, true),
    ];
    let times = |of: fn(Stat) -> Option<i64>| -> ArrayRef {
        let times: TimestampMicrosecondArray = rows.iter().map(|row| row.stat.and_then(of)).collect();
        Arc::new(times.with_timezone(TIME_ZONE))
    };
    let mut digests = FixedSizeBinaryBuilder::with_capacity(rows.len(), 32);
    for row in rows {
        match &row.content {
            Some(digest) => digests.append_value(digest).expect("a digest has its size"),
            None => digests.append_null(),
        }
    }
    let rejected = |of: fn(&(String, String)) -> &str| -> ArrayRef {
        Arc::new(rows.iter().map(|row| row.reject.as_ref().map(of)).collect::<StringArray>())
    };
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.photo_id))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.name))),
        Arc::new(rows.iter().map(|row| row.stat.map(|stat| stat.bytes)).collect::<UInt64Array>()),
        times(|stat| stat.modified_us),
        times(|stat| Some(stat.changed_us)),
        Arc::new(rows.iter().map(|row| row.stat.map(|stat| stat.inode)).collect::<UInt64Array>()),
        Arc::new(digests.finish()),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.row_key))),
        rejected(|it| &it.0),
        rejected(|it| &it.1),
    ];
    if rows.iter().any(|row| row.certainty.is_some()) {
        fields.push(Field::new("certainty", DataType::Float32, true));
        fields.push(Field::new_list("category_certainty", Field::new_list_field(DataType::Float32, true), true));
        let mut by_category = ListBuilder::new(Float32Builder::new());
        for row in rows {
            let of_row = row.certainty.as_ref();
            by_category.append_option(of_row.map(|it| it.by_category.iter().copied().map(Some).collect::<Vec<_>>()));
        }
        columns
            .push(Arc::new(rows.iter().map(|row| row.certainty.as_ref().map(|it| it.mean)).collect::<Float32Array>()));
        columns.push(Arc::new(by_category.finish()));
    }
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
        // Folders of version 0.1 only have a time in nanoseconds: their photos are read again and recognised by
        // content.
        let times = |name: &str| -> Result<Option<&TimestampMicrosecondArray>> {
            if batch.column_by_name("inode").is_some() { column(path, &batch, name).map(Some) } else { Ok(None) }
        };
        let (modified, changed) = (times("modified")?, times("changed")?);
        let inodes: Option<&UInt64Array> = changed.map(|_| column(path, &batch, "inode")).transpose()?;
        let digests: &FixedSizeBinaryArray = column(path, &batch, "content_sha256")?;
        let keys: &UInt64Array = column(path, &batch, "row_key")?;
        let reasons: &StringArray = column(path, &batch, "reason")?;
        let details: &StringArray = column(path, &batch, "detail")?;
        let certainty = |row| certainty_of(&batch, row);
        rows.extend((0..batch.num_rows()).map(|row| StateRow {
            photo_id: ids.value(row),
            name: names.value(row).into(),
            stat: modified.zip(changed).zip(inodes).filter(|_| sizes.is_valid(row)).map(
                |((modified, changed), inodes)| Stat {
                    bytes: sizes.value(row),
                    modified_us: modified.is_valid(row).then(|| modified.value(row)),
                    changed_us: changed.value(row),
                    inode: inodes.value(row),
                },
            ),
            content: digests.is_valid(row).then(|| digests.value(row).try_into().ok()).flatten(),
            row_key: keys.value(row),
            certainty: certainty(row).map(Box::new),
            reject: reasons.is_valid(row).then(|| (reasons.value(row).to_owned(), details.value(row).to_owned())),
        }));
    }
    Ok(rows)
}

/// The certainty in a row, if the table has one.
fn certainty_of(batch: &RecordBatch, row: usize) -> Option<PhotoCertainty> {
    let mean: &Float32Array = batch.column_by_name("certainty")?.as_any().downcast_ref()?;
    let lists: &ListArray = batch.column_by_name("category_certainty")?.as_any().downcast_ref()?;
    if mean.is_null(row) || lists.is_null(row) {
        return None;
    }
    let list = lists.value(row);
    let by_category = list.as_any().downcast_ref::<Float32Array>()?.values().to_vec();
    Some(PhotoCertainty { mean: mean.value(row), by_category })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certainty_is_a_mean_over_the_photo_and_over_each_category() {
        let found = PhotoCertainty::of(&[0, 0, 3, 3], &[255, 255, 0, 51], 4);
        assert_eq!(
            (found.mean, found.by_category[0], found.by_category[3], found.by_category[1]),
            (0.55, 1.0, 0.1, 0.0)
        );
    }

    #[test]
    fn what_was_written_is_read() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let path = place.path().join("state.parquet");
        let good = StateRow {
            photo_id: 7,
            name: "a/ü.jpg".into(),
            stat: Some(Stat {
                bytes: 12,
                modified_us: Some(1_700_000_000_123_456),
                changed_us: 1_700_000_001_000_000,
                inode: 7,
            }),
            content: Some([9; 32]),
            row_key: u64::MAX,
            certainty: None,
            reject: None,
        };
        let unread = StateRow {
            stat: None,
            content: None,
            reject: Some(("photo_io_error".to_owned(), "the disk".to_owned())),
            ..good.clone()
        };
        let fresh =
            StateRow { stat: Some(Stat { bytes: 0, modified_us: None, changed_us: 5, inode: 8 }), ..good.clone() };
        let rows = [good, unread, fresh];
        write(&path, &rows)?;
        assert_eq!(read(&path)?, rows);
        let mut rows = rows;
        let by_category = (0..6_u8).map(|it| f32::from(it) / 32.0).collect();
        rows[1].certainty = Some(Box::new(PhotoCertainty { mean: 0.25, by_category }));
        write(&path, &rows)?;
        assert_eq!(read(&path)?, rows);
        Ok(())
    }
}
