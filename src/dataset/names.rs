//! `categories.parquet` and `colors.parquet`: the label lists, one name per row in the order of the ids.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, StringArray, UInt8Array};
use arrow::datatypes::{DataType, Field};

use crate::error::{Error, Result};
use crate::labels::is_apparel;
use crate::table;

/// File of the category names.
pub const CATEGORIES_FILE: &str = "categories.parquet";
/// Name of the table of category names.
pub const CATEGORIES_TABLE: &str = "categories";
/// File of the colour names.
pub const COLORS_FILE: &str = "colors.parquet";
/// Name of the table of colour names.
pub const COLORS_TABLE: &str = "colors";

/// Writes the table `table` of `names`. `is_apparel` tells whether the category is worn; it is null in the table of
/// colours, where it has no meaning.
///
/// # Errors
/// As [`table::write_table`].
pub fn write(path: &Path, table: &str, names: &[&str]) -> Result<()> {
    let schema = table::schema(
        table,
        vec![
            Field::new("id", DataType::UInt8, false),
            Field::new("name", DataType::Utf8, false),
            Field::new("is_apparel", DataType::Boolean, true),
        ],
    );
    let ids = 0..names.len() as u8;
    let apparel = ids.clone().map(|id| (table == CATEGORIES_TABLE).then(|| is_apparel(id)));
    let rows = RecordBatch::try_new(
        schema,
        vec![
            Arc::new(UInt8Array::from_iter_values(ids.clone())),
            Arc::new(StringArray::from_iter_values(names)),
            Arc::new(apparel.collect::<BooleanArray>()),
        ],
    )
    .expect("the columns match the schema above");
    table::write_table(path, &rows)
}

/// Checks that the table `table` at `path` lists exactly `names`.
///
/// # Errors
/// [`Error::Schema`] if it lists others; otherwise as [`table::read_table`].
pub fn check(path: &Path, table: &str, names: &[&str]) -> Result<()> {
    let mut found = Vec::new();
    for batch in table::read_table(path, table, &["id", "name"], names.len().max(1))? {
        let batch = batch?;
        let column: &StringArray = table::column(path, &batch, "name")?;
        found.extend(column.iter().flatten().map(str::to_owned));
    }
    if found == names {
        return Ok(());
    }
    Err(Error::schema(path, names.join(", "), found.join(", ")))
}
