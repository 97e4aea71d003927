//! `part-NNNNN.parquet` of a features folder: one row for each photo of a catalogue.
//!
//! | column | type | meaning |
//! | --- | --- | --- |
//! | `photo_id` | u32 | the catalogue's own id |
//! | `file_name`, `path` | text | the photo; for a dataset's own photos, the path is the name inside the source |
//! | `content_sha256` | text | SHA-256 of the encoded file, lower-case hexadecimal |
//! | `model_id` | text | the model that made the label map; `labels` if it comes from the source's own labels |
//! | `width_px`, `height_px` | u32 | size of the label map, whose pixels are counted below |
//! | `photo_width_px`, `photo_height_px` | u32 | size of the upright photo; its pixel (x, y) is the label map's (x `width_px` / `photo_width_px`, y `height_px` / `photo_height_px`), rounded down |
//! | `px_<category>` | u32 | pixels of each category; their sum is `width_px * height_px` |
//! | `apparel_px` | u32 | pixels of the apparel categories |
//! | `<category>_<color>` | f32 | share of the apparel pixels with that category and colour; null if no pixel has them |
//!
//! The label set is in the table's metadata ([`LABELS_KEY`]) unless it is the default one, whose columns are 23 categories
//! and 228 cells.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Float32Array, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::writer::FileWriter;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::counts::PixelCounts;
use crate::error::{Error, Result};
use crate::labels::LabelSet;
use crate::table::{TableWriter, read_table, schema};

/// Name of the table in its metadata.
pub const TABLE: &str = "features";
/// Maximum number of rows of a part, which is a single row group.
pub const PART_ROWS: usize = 8192;
/// Metadata key of the label set as JSON, in tables of another one than the default.
pub const LABELS_KEY: &str = "lookbook.labels";
/// Extension of the Arrow IPC file next to a part.
pub const IPC_EXTENSION: &str = "arrow";

/// File formats in which the feature table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Parquet only.
    #[default]
    Parquet,
    /// Parquet, and the same rows as Arrow IPC files next to it.
    Arrow,
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureRow {
    /// The catalogue's own id.
    pub photo_id: u32,
    /// File name.
    pub file_name: String,
    /// Path of the photo.
    pub path: String,
    /// SHA-256 of the encoded file.
    pub content_sha256: String,
    /// The model's id, or `labels`.
    pub model_id: String,
    /// Width of the label map.
    pub width_px: u32,
    /// Height of the label map.
    pub height_px: u32,
    /// Width of the upright photo.
    pub photo_width_px: u32,
    /// Height of the upright photo.
    pub photo_height_px: u32,
    /// Its pixel counts.
    pub counts: PixelCounts,
}

/// The schema of the table of the default label set.
static CFPD_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| made_schema(&LabelSet::cfpd()));

/// The schema of the table of a label set.
#[must_use]
pub fn schema_of(labels: &LabelSet) -> SchemaRef {
    if labels.is_cfpd() {
        return CFPD_SCHEMA.clone();
    }
    let made = made_schema(labels);
    let mut metadata: HashMap<_, _> = made.metadata().clone().into();
    metadata.insert(LABELS_KEY.to_owned(), serde_json::to_string(labels).expect("a label set is plain data"));
    Arc::new(Schema::new_with_metadata(made.fields().clone(), metadata))
}

fn made_schema(labels: &LabelSet) -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let number = |name: String| Field::new(name, DataType::UInt32, false);
    let mut fields = vec![number("photo_id".to_owned())];
    fields.extend(["file_name", "path", "content_sha256", "model_id"].map(text));
    let sizes = ["width_px", "height_px", "photo_width_px", "photo_height_px"];
    fields.extend(sizes.map(|name| number(name.to_owned())));
    let categories = 0..labels.category_count() as u8;
    fields.extend(categories.map(|category| number(format!("px_{}", labels.column_name(category)))));
    fields.push(number("apparel_px".to_owned()));
    fields.extend(labels.cell_names().iter().map(|name| Field::new(name, DataType::Float32, true)));
    schema(TABLE, fields)
}

/// The label set of the part at `path`.
///
/// # Errors
/// As [`read_table`]; [`Error::Input`] if its metadata is damaged.
pub fn labels_of(path: &Path) -> Result<LabelSet> {
    let part = read_table(path, TABLE, &[], 1)?;
    let Some(text) = part.metadata(LABELS_KEY) else { return Ok(LabelSet::cfpd()) };
    let damaged = |cause: serde_json::Error| {
        Error::input(path, format!("its '{LABELS_KEY}' is invalid ({cause}); run segment again"))
    };
    serde_json::from_str(text).map_err(damaged)
}

/// Converts rows to a batch.
#[must_use]
pub fn batch_of(labels: &LabelSet, rows: &[FeatureRow]) -> RecordBatch {
    let text = |of: fn(&FeatureRow) -> &str| Arc::new(StringArray::from_iter_values(rows.iter().map(of))) as ArrayRef;
    let number =
        |of: &dyn Fn(&FeatureRow) -> u32| Arc::new(UInt32Array::from_iter_values(rows.iter().map(of))) as ArrayRef;
    let mut columns = vec![
        number(&|row| row.photo_id),
        text(|row| &row.file_name),
        text(|row| &row.path),
        text(|row| &row.content_sha256),
        text(|row| &row.model_id),
        number(&|row| row.width_px),
        number(&|row| row.height_px),
        number(&|row| row.photo_width_px),
        number(&|row| row.photo_height_px),
    ];
    columns.extend((0..labels.category_count()).map(|category| number(&|row| row.counts.category_px[category])));
    columns.push(number(&|row| row.counts.apparel_px));
    let shares: Vec<_> = rows.iter().map(|row| row.counts.shares()).collect();
    columns.extend((0..labels.cell_count()).map(|cell| {
        let column: Float32Array = shares.iter().map(|row| row[cell]).collect();
        Arc::new(column) as ArrayRef
    }));
    RecordBatch::try_new(schema_of(labels), columns).expect("the columns match the schema")
}

/// The same rows with other ids, file names and paths.
#[must_use]
pub fn renamed(rows: &RecordBatch, names: &[(u32, String, String)]) -> RecordBatch {
    let mut columns = rows.columns().to_vec();
    columns[0] = Arc::new(UInt32Array::from_iter_values(names.iter().map(|it| it.0)));
    columns[1] = Arc::new(StringArray::from_iter_values(names.iter().map(|it| &it.1)));
    columns[2] = Arc::new(StringArray::from_iter_values(names.iter().map(|it| &it.2)));
    RecordBatch::try_new(rows.schema(), columns).expect("only the values of three columns change")
}

/// Writes a part, with an `.arrow` file next to it if the format includes one.
///
/// # Errors
/// As [`TableWriter`].
pub fn write_part(path: &Path, rows: &RecordBatch, format: Format) -> Result<()> {
    let mut writer = TableWriter::create(path, rows.schema(), PART_ROWS)?;
    writer.write(rows)?;
    writer.close()?;
    if format == Format::Arrow { write_ipc(&path.with_extension(IPC_EXTENSION), rows) } else { Ok(()) }
}

fn write_ipc(path: &Path, batch: &RecordBatch) -> Result<()> {
    let failed = |cause| Error::io("write", path)(std::io::Error::other(cause));
    let file = BufWriter::new(File::create(path).map_err(Error::io("create", path))?);
    let mut writer = FileWriter::try_new(file, &batch.schema()).map_err(failed)?;
    writer.write(batch).map_err(failed)?;
    writer.finish().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::OTHER_COLUMNS;

    #[test]
    fn no_label_set_has_a_cell_that_is_called_like_another_column() {
        let schema = schema_of(&LabelSet::cfpd());
        let others = schema.fields().iter().map(|it| it.name().as_str()).filter(|name| !name.starts_with("px_"));
        let others: Vec<&str> = others.take_while(|name| *name != "Tshirt_beige").collect();
        assert_eq!(others.last(), Some(&"apparel_px"));
        assert!(others.iter().all(|name| OTHER_COLUMNS.contains(name)), "{others:?}");
    }

    #[test]
    fn a_table_says_which_labels_it_has_unless_they_are_the_default_ones() {
        let own = LabelSet::of_names(["none", "hat"]).expect("a small set");
        assert_eq!(schema_of(&LabelSet::cfpd()).metadata().get(LABELS_KEY), None);
        let schema = schema_of(&own);
        let text = schema.metadata().get(LABELS_KEY).expect("it says so");
        assert_eq!(serde_json::from_str::<LabelSet>(text).expect("a label set"), own);
        assert_eq!(schema.field(schema.fields().len() - 1).name(), "hat_yellow");
        assert_eq!(batch_of(&own, &[]).schema(), schema);
    }
}
