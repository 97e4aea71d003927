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
//! | `phash` | u64 | perceptual hash of the whole photo ([`crate::photo::hashes`]); null if the photo is flat |
//! | `crop_resistant_phash` | fixed-size list of 12 u64 | those of its views, which survive cropping and mirroring; null if it is flat within its borders |
//! | `embedding` | fixed-size list of f32 | only with an embedder, see [`Embedding`]: a vector of length 1; null if the embedder gave none |
//!
//! The label set is in the table's metadata ([`LABELS_KEY`]) unless it is the default one, whose columns are 23 categories
//! and 228 cells.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::iter::repeat_n;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, StringArray, UInt32Array, UInt64Array, new_null_array};
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
use crate::labels::LabelSet;
use crate::photo::hashes::{CropResistantHash, PhotoHashes, VIEWS, WORDS};
use crate::table::{TableWriter, schema, with_metadata};

/// Name of the table in its metadata.
pub const TABLE: &str = "features";
/// Maximum number of rows of a part, which is a single row group.
pub const PART_ROWS: usize = 8192;
/// Name of the column of embeddings.
pub const EMBEDDING_COLUMN: &str = "embedding";
/// Name of the column of hashes of whole photos.
pub const PHASH_COLUMN: &str = "phash";
/// Name of the column of hashes of photos' views.
pub const CROP_RESISTANT_COLUMN: &str = "crop_resistant_phash";
/// Numbers of a list of that column.
const VIEW_WORDS: usize = VIEWS * WORDS;
/// The largest number of dimensions of an embedding.
pub const MAX_DIMENSIONS: usize = 4096;
/// Metadata key of that column: the embedder's id.
const EMBEDDER_KEY: &str = "lookbook.embedder";
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
    /// Its perceptual hashes.
    pub hashes: PhotoHashes,
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

/// The schema of the table of a label set, with these embeddings.
#[must_use]
pub fn schema_of(labels: &LabelSet, embedding: Option<&Embedding>) -> SchemaRef {
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
    fields.extend(hash_fields());
    fields.extend(embedding.map(Embedding::field));
    let made = schema(TABLE, fields);
    if labels.is_cfpd() {
        return made;
    }
    with_metadata(&made, LABELS_KEY, serde_json::to_string(labels).expect("a label set is plain data"))
}

/// The label set of a table of this schema; `path` is its part.
///
/// # Errors
/// [`Error::Input`] if the schema's metadata is damaged.
pub fn labels_of(path: &Path, schema: &Schema) -> Result<LabelSet> {
    let Some(text) = schema.metadata().get(LABELS_KEY) else { return Ok(LabelSet::cfpd()) };
    let damaged = |cause: serde_json::Error| {
        Error::input(path, format!("its '{LABELS_KEY}' is invalid ({cause}); run segment again"))
    };
    serde_json::from_str(text).map_err(damaged)
}

/// Converts rows to a batch of a table with these embeddings.
#[must_use]
pub fn batch_of(labels: &LabelSet, rows: &[FeatureRow], embedding: Option<&Embedding>) -> RecordBatch {
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
    columns.extend(hash_columns(rows));
    columns.extend(embedding.map(|it| it.column(rows)));
    RecordBatch::try_new(schema_of(labels, embedding), columns).expect("the columns match the schema")
}

/// The columns of perceptual hashes.
fn hash_fields() -> [Field; 2] {
    let list = DataType::FixedSizeList(hash_item(), VIEW_WORDS as i32);
    [Field::new(PHASH_COLUMN, DataType::UInt64, true), Field::new(CROP_RESISTANT_COLUMN, list, true)]
}

fn hash_item() -> FieldRef {
    Arc::new(Field::new("item", DataType::UInt64, true))
}

fn hash_columns(rows: &[FeatureRow]) -> [ArrayRef; 2] {
    let phashes: UInt64Array = rows.iter().map(|row| row.hashes.phash).collect();
    let hashes = || rows.iter().map(|row| row.hashes.crop_resistant);
    let words: Vec<u64> = hashes().flat_map(|it| it.unwrap_or(CropResistantHash::default())).collect();
    let valid: NullBuffer = hashes().map(|it| it.is_some()).collect();
    let list =
        FixedSizeListArray::try_new(hash_item(), VIEW_WORDS as i32, Arc::new(UInt64Array::from(words)), Some(valid));
    [Arc::new(phashes), Arc::new(list.expect("each hash has all words"))]
}

/// Whether a table of this schema has the columns of hashes and these embeddings: those of older versions have no hashes.
#[must_use]
pub fn has_columns(schema: &Schema, embedding: Option<&Embedding>) -> bool {
    let hashed = hash_fields().iter().all(|it| schema.field_with_name(it.name()).is_ok_and(|found| found == it));
    hashed && Embedding::of(schema).as_ref() == embedding
}

/// The same rows in a table with hashes and these embeddings; if they have no hashes, and other embeddings or none, they have
/// null there.
#[must_use]
pub fn with_columns(rows: RecordBatch, labels: &LabelSet, embedding: Option<&Embedding>) -> RecordBatch {
    if has_columns(&rows.schema(), embedding) {
        return rows;
    }
    let schema = schema_of(labels, embedding);
    let of_field = |field: &FieldRef| {
        let own = rows.schema_ref().column_with_name(field.name()).filter(|(_, own)| **own == **field);
        own.map_or_else(|| new_null_array(field.data_type(), rows.num_rows()), |(index, _)| rows.column(index).clone())
    };
    let columns = schema.fields().iter().map(of_field).collect();
    RecordBatch::try_new(schema, columns).expect("only columns that may be null differ")
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

/// Embeddings and hashes look like noise to a compressor.
fn properties() -> WriterPropertiesBuilder {
    let columns = [EMBEDDING_COLUMN, CROP_RESISTANT_COLUMN].map(|column| vec![column, "list", "item"]);
    columns.into_iter().chain([vec![PHASH_COLUMN]]).fold(WriterProperties::builder(), |properties, column| {
        let column = ColumnPath::from(column.into_iter().map(str::to_owned).collect::<Vec<_>>());
        properties
            .set_column_compression(column.clone(), Compression::UNCOMPRESSED)
            .set_column_dictionary_enabled(column, false)
    })
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
        let schema = schema_of(&LabelSet::cfpd(), None);
        let others = schema.fields().iter().map(|it| it.name().as_str()).filter(|name| !name.starts_with("px_"));
        let others: Vec<&str> = others.take_while(|name| *name != "Tshirt_beige").collect();
        assert_eq!(others.last(), Some(&"apparel_px"));
        assert!(others.iter().all(|name| OTHER_COLUMNS.contains(name)), "{others:?}");
    }

    #[test]
    fn a_table_says_which_labels_it_has_unless_they_are_the_default_ones() {
        let own = LabelSet::of_names(["none", "hat"]).expect("a small set");
        assert_eq!(schema_of(&LabelSet::cfpd(), None).metadata().get(LABELS_KEY), None);
        let schema = schema_of(&own, None);
        let text = schema.metadata().get(LABELS_KEY).expect("it says so");
        assert_eq!(serde_json::from_str::<LabelSet>(text).expect("a label set"), own);
        let last: Vec<_> = schema.fields()[schema.fields().len() - 3..].iter().map(|it| it.name().as_str()).collect();
        assert_eq!(last, ["hat_yellow", PHASH_COLUMN, CROP_RESISTANT_COLUMN]);
        assert_eq!(batch_of(&own, &[], None).schema(), schema);
    }

    #[test]
    fn rows_of_an_older_version_get_columns_of_nulls() {
        let labels = LabelSet::cfpd();
        let counts = PixelCounts { category_px: vec![0; 23], apparel_px: 0, cell_px: vec![0; labels.cell_count()] };
        let row = FeatureRow {
            photo_id: 5,
            file_name: "a.jpg".to_owned(),
            path: "shop/a.jpg".to_owned(),
            content_sha256: String::new(),
            model_id: "labels".to_owned(),
            width_px: 4,
            height_px: 6,
            photo_width_px: 40,
            photo_height_px: 60,
            counts,
            hashes: PhotoHashes { phash: Some(u64::MAX), crop_resistant: Some([7; VIEW_WORDS]) },
            embedding: None,
        };
        let embedding = Embedding { dimensions: 2, embedder: "e".to_owned() };
        let made = batch_of(&labels, std::slice::from_ref(&row), None);
        assert!(has_columns(&made.schema(), None) && !has_columns(&made.schema(), Some(&embedding)));
        let older: Vec<usize> = (0..made.num_columns() - 2).collect();
        let older = made.project(&older).expect("columns that it has");
        assert!(!has_columns(&older.schema(), None));
        let expected = batch_of(&labels, &[FeatureRow { hashes: PhotoHashes::default(), ..row }], Some(&embedding));
        assert_eq!(with_columns(older, &labels, Some(&embedding)), expected);
        let embedded = with_columns(made.clone(), &labels, Some(&embedding));
        assert_eq!(embedded.column_by_name(PHASH_COLUMN), made.column_by_name(PHASH_COLUMN));
        assert_eq!(with_columns(embedded, &labels, None), made);
    }
}
