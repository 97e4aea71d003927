//! `rejects.parquet`: one row for each input that a stage rejected, with a stable reason code.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use arrow::array::StringArray;
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::table;

/// File name of the table; in a features folder, [`crate::features::layout`] says where it lies.
pub const FILE: &str = "rejects.parquet";
/// Name of the table.
pub const TABLE: &str = "rejects";
/// Default of the settings `max_reject_fraction`: the largest share of inputs that may be rejected.
pub const DEFAULT_MAX_REJECT_FRACTION: f64 = 0.05;

/// A rejected input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The photo's name or path.
    pub item: String,
    /// A stable code in snake case, such as `photo_truncated`.
    pub reason: Cow<'static, str>,
    /// What was found, in words.
    pub detail: String,
}

impl Reject {
    /// The input `item`, rejected for `reason`.
    pub fn new(item: impl Into<String>, reason: &'static str, detail: impl std::fmt::Display) -> Self {
        Self { item: item.into(), reason: reason.into(), detail: detail.to_string() }
    }
}

/// Writes the table of a stage's rejects, which may be empty.
///
/// # Errors
/// As [`table::write_table`].
pub fn write(path: &Path, stage: &str, rejects: &[Reject]) -> Result<()> {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let schema = table::schema(TABLE, ["stage", "item", "reason", "detail"].map(text).to_vec());
    let column = |of: fn(&Reject) -> &str| Arc::new(StringArray::from_iter_values(rejects.iter().map(of)));
    let stages = Arc::new(StringArray::from_iter_values(rejects.iter().map(|_| stage)));
    let columns: Vec<arrow::array::ArrayRef> =
        vec![stages, column(|r| &r.item), column(|r| &r.reason), column(|r| &r.detail)];
    let rows = RecordBatch::try_new(schema, columns).expect("the columns match the schema above");
    table::write_table(path, &rows)
}

/// Reads the table at `path`.
///
/// # Errors
/// As [`table::read_table`].
pub fn read(path: &Path) -> Result<Vec<Reject>> {
    let mut rejects = Vec::new();
    for rows in table::read_table(path, TABLE, &["item", "reason", "detail"], 1 << 16)? {
        let rows = rows?;
        let text = |name| table::column::<StringArray>(path, &rows, name);
        let (items, reasons, details) = (text("item")?, text("reason")?, text("detail")?);
        rejects.extend((0..rows.num_rows()).map(|row| Reject {
            item: items.value(row).to_owned(),
            reason: reasons.value(row).to_owned().into(),
            detail: details.value(row).to_owned(),
        }));
    }
    Ok(rejects)
}
