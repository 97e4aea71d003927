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
//! | `px_<category>` | u32 | pixels of each of the 23 categories; their sum is `width_px * height_px` |
//! | `apparel_px` | u32 | pixels of the 19 apparel categories |
//! | `<category>_<color>` | f32, 228 of them | share of the apparel pixels with that category and colour; null if no pixel has them |
//! | `embedding` | fixed-size list of f32 | only with an embedder, see [`Embedding`]: a vector of length 1; null if the embedder gave none |

use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::iter::repeat_n;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, StringArray, UInt32Array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::ipc::writer::FileWriter;
use arrow::record_batch::RecordBatch;
use parquet::basic::Compression;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use super::counts::PixelCounts;
use crate::error::{Error, Result};
use crate::labels::{self, CATEGORY_COUNT};
use crate::table::{TableWriter, schema};

/// Name of the table in its metadata.
pub const TABLE: &str = "features";
/// Maximum number of rows of a part, which is a single row group.
pub const PART_ROWS: usize = 8192;
/// Name of the column of embeddings.
pub const EMBEDDING_COLUMN: &str = "embedding";
/// The largest number of dimensions of an embedding.
pub const MAX_DIMENSIONS: usize = 4096;
/// Metadata key of that column: the embedder's id.
const EMBEDDER_KEY: &str = "lookbook.embedder";
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
    /// Its embedding, of length 1; `None` without an embedder, or if that gave none.
    pub embedding: Option<Vec<f32>>,
}

/// What the embeddings of a table are. Those of another embedder cannot be compared with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedding {
    /// Numbers of each.
    pub dimensions: usize,
    /// Identity of the embedder.
    pub embedder: String,
}

impl Embedding {
    /// Those of a table of this schema, if it has the column, with 1 to [`MAX_DIMENSIONS`] numbers each.
    #[must_use]
    pub fn of(schema: &Schema) -> Option<Self> {
        let field = schema.field_with_name(EMBEDDING_COLUMN).ok()?;
        let DataType::FixedSizeList(_, dimensions) = field.data_type() else { return None };
        let dimensions = usize::try_from(*dimensions).ok().filter(|it| (1..=MAX_DIMENSIONS).contains(it))?;
        let embedder = field.metadata().get(EMBEDDER_KEY).cloned().unwrap_or_default();
        Some(Self { dimensions, embedder })
    }

    fn item() -> FieldRef {
        Arc::new(Field::new("item", DataType::Float32, true))
    }

    fn field(&self) -> Field {
        let list = DataType::FixedSizeList(Self::item(), self.dimensions as i32);
        let metadata = HashMap::from([(EMBEDDER_KEY.to_owned(), self.embedder.clone())]);
        Field::new(EMBEDDING_COLUMN, list, true).with_metadata(metadata)
    }

    fn column(&self, rows: &[FeatureRow]) -> ArrayRef {
        let mut values = Vec::with_capacity(rows.len() * self.dimensions);
        for row in rows {
            match &row.embedding {
                Some(embedding) => values.extend_from_slice(embedding),
                None => values.extend(repeat_n(0.0, self.dimensions)),
            }
        }
        let valid: NullBuffer = rows.iter().map(|row| row.embedding.is_some()).collect();
        let values = Arc::new(Float32Array::from(values));
        let list = FixedSizeListArray::try_new(Self::item(), self.dimensions as i32, values, Some(valid));
        Arc::new(list.expect("each embedding has all numbers"))
    }
}

/// The schema of a table with these embeddings.
fn schema_of(embedding: Option<&Embedding>) -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let number = |name: String| Field::new(name, DataType::UInt32, false);
    let mut fields = vec![number("photo_id".to_owned())];
    fields.extend(["file_name", "path", "content_sha256", "model_id"].map(text));
    let sizes = ["width_px", "height_px", "photo_width_px", "photo_height_px"];
    fields.extend(sizes.map(|name| number(name.to_owned())));
    fields.extend((0..CATEGORY_COUNT as u8).map(|category| number(format!("px_{}", labels::column_name(category)))));
    fields.push(number("apparel_px".to_owned()));
    fields.extend(labels::cell_names().into_iter().map(|name| Field::new(name, DataType::Float32, true)));
    fields.extend(embedding.map(Embedding::field));
    schema(TABLE, fields)
}

/// Converts rows to a batch of a table with these embeddings.
#[must_use]
pub fn batch_of(rows: &[FeatureRow], embedding: Option<&Embedding>) -> RecordBatch {
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
    columns.extend((0..CATEGORY_COUNT).map(|category| number(&|row| row.counts.category_px[category])));
    columns.push(number(&|row| row.counts.apparel_px));
    let shares: Vec<_> = rows.iter().map(|row| row.counts.shares()).collect();
    columns.extend((0..labels::CELL_COUNT).map(|cell| {
        let column: Float32Array = shares.iter().map(|row| row[cell]).collect();
        Arc::new(column) as ArrayRef
    }));
    columns.extend(embedding.map(|it| it.column(rows)));
    RecordBatch::try_new(schema_of(embedding), columns).expect("the columns match the schema")
}

/// The same rows in a table with these embeddings; if they have others, or none, they have null there.
#[must_use]
pub fn with_embedding(rows: RecordBatch, embedding: Option<&Embedding>) -> RecordBatch {
    if Embedding::of(&rows.schema()).as_ref() == embedding {
        return rows;
    }
    let schema = schema_of(embedding);
    let own = rows.schema();
    let kept = own.fields().iter().zip(rows.columns()).filter(|(field, _)| field.name() != EMBEDDING_COLUMN);
    let mut columns: Vec<ArrayRef> = kept.map(|(_, column)| column.clone()).collect();
    columns.extend(embedding.map(|it| new_null_array(it.field().data_type(), rows.num_rows())));
    RecordBatch::try_new(schema, columns).expect("only one column differs")
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
    let mut writer = TableWriter::create_with(path, rows.schema(), PART_ROWS, properties())?;
    writer.write(rows)?;
    writer.close()?;
    if format == Format::Arrow { write_ipc(&path.with_extension(IPC_EXTENSION), rows) } else { Ok(()) }
}

/// Embeddings look like noise to a compressor.
fn properties() -> WriterPropertiesBuilder {
    let column = ColumnPath::from([EMBEDDING_COLUMN, "list", "item"].map(str::to_owned).to_vec());
    WriterProperties::builder()
        .set_column_compression(column.clone(), Compression::UNCOMPRESSED)
        .set_column_dictionary_enabled(column, false)
}

fn write_ipc(path: &Path, batch: &RecordBatch) -> Result<()> {
    let failed = |cause| Error::io("write", path)(std::io::Error::other(cause));
    let file = BufWriter::new(File::create(path).map_err(Error::io("create", path))?);
    let mut writer = FileWriter::try_new(file, &batch.schema()).map_err(failed)?;
    writer.write(batch).map_err(failed)?;
    writer.finish().map_err(failed)
}
