//! `groups.parquet` of a duplicates folder: one row for each photo of the feature table, in order of `photo_id`.
//!
//! | column | type | meaning |
//! | --- | --- | --- |
//! | `photo_id` | u32 | the photo |
//! | `group_id` | u32 | `photo_id` of its group's representative; a photo without duplicates is a group of its own |
//! | `distance` | u32 | to the representative, in bits; 0 for itself and for its exact copies |
//! | `is_representative` | bool | one photo of each group |
//! | `is_exact_copy` | bool | the group has another photo with the same content (`content_sha256`) that comes before it; never the representative |

use std::path::Path;
use std::sync::Arc;

use arrow::array::{BooleanArray, UInt32Array};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::table::{TableWriter, column, read_table, schema};

/// File name of the table.
pub const GROUPS_FILE: &str = "groups.parquet";
/// Name of the table in its metadata.
const TABLE: &str = "duplicate_groups";
/// Rows of a row group.
const ROW_GROUP_ROWS: usize = 1 << 20;
/// Rows encoded at a time.
const BATCH_ROWS: usize = 1 << 16;

/// One row of `groups.parquet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupedPhoto {
    /// The photo.
    pub photo_id: u32,
    /// The representative of its group.
    pub group_id: u32,
    /// Bits in which the two differ, 0 to 64.
    pub distance: u32,
    /// Whether it is the representative.
    pub is_representative: bool,
    /// Whether a photo of the group that comes before it has the same content.
    pub is_exact_copy: bool,
}

/// Writes `groups.parquet`.
///
/// # Errors
/// As [`TableWriter`].
pub(super) fn write_groups(path: &Path, groups: &[GroupedPhoto]) -> Result<()> {
    let field = |(name, data_type)| Field::new(name, data_type, false);
    let fields = [
        ("photo_id", DataType::UInt32),
        ("group_id", DataType::UInt32),
        ("distance", DataType::UInt32),
        ("is_representative", DataType::Boolean),
        ("is_exact_copy", DataType::Boolean),
    ];
    let schema = schema(TABLE, fields.map(field).to_vec());
    let mut writer = TableWriter::create(path, schema.clone(), ROW_GROUP_ROWS)?;
    for rows in groups.chunks(BATCH_ROWS) {
        let number = |of: fn(&GroupedPhoto) -> u32| Arc::new(UInt32Array::from_iter_values(rows.iter().map(of)));
        let flag = |of: fn(&GroupedPhoto) -> bool| {
            Arc::new(BooleanArray::from(rows.iter().map(of).collect::<Vec<_>>()))
        };
        let batch = RecordBatch::try_new(
            schema.clone(),
            vec![
                number(|row| row.photo_id),
                number(|row| row.group_id),
                number(|row| row.distance),
                flag(|row| row.is_representative),
                flag(|row| row.is_exact_copy),
            ],
        );
        writer.write(&batch.expect("the columns match the schema"))?;
    }
    writer.close().map(drop)
}

/// Reads `groups.parquet` of a duplicates folder, in order of `photo_id`.
///
/// # Errors
/// As [`read_table`].
pub fn read_groups(folder: &Path) -> Result<Vec<GroupedPhoto>> {
    let path = folder.join(GROUPS_FILE);
    let mut groups = Vec::new();
    for batch in read_table(&path, TABLE, &[], BATCH_ROWS)? {
        let batch = batch?;
        let number = |name| column::<UInt32Array>(&path, &batch, name);
        let flag = |name| column::<BooleanArray>(&path, &batch, name);
        let (photo, group, distance) = (number("photo_id")?, number("group_id")?, number("distance")?);
        let (representative, copy) = (flag("is_representative")?, flag("is_exact_copy")?);
        groups.extend((0..batch.num_rows()).map(|row| GroupedPhoto {
            photo_id: photo.value(row),
            group_id: group.value(row),
            distance: distance.value(row),
            is_representative: representative.value(row),
            is_exact_copy: copy.value(row),
        }));
    }
    Ok(groups)
}
