//! The tables of a similarity folder: `photos.parquet`, `matrix/part-NNNNN.parquet`, `neighbours.parquet`.
//!
//! | table | column | type | meaning |
//! | --- | --- | --- | --- |
//! | photos | `photo_id` | u32 | rows in the order of the feature table: the order of the matrix |
//! | | `file_name`, `path` | text | as in the feature table |
//! | matrix | `photo_id` | u32 | one row for each photo, in the order of photos |
//! | | `correlation` | fixed-size list of N f32 | with each of the N photos, -1 to 1; null where undefined |
//! | neighbours | `photo_id`, `rank` | u32 | the nearest has rank 1; a photo has fewer rows where fewer are defined |
//! | | `neighbour_id` | u32 | never the photo itself |
//! | | `correlation` | f32 | of the two, as the matrix has it |
//! | | `cells_in_common` | u32 | cells present in both |

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::record_batch::RecordBatch;

use super::{TableWriter, column, read_table, schema, write_table};
use crate::error::Result;
use crate::features::FeatureTable;
use crate::similarity::Neighbour;

/// File name of the table of photos.
pub const PHOTOS_FILE: &str = "photos.parquet";
/// Folder of the matrix.
pub const MATRIX_FOLDER: &str = "matrix";
/// File name of the table of neighbours.
pub const NEIGHBOURS_FILE: &str = "neighbours.parquet";
const NEIGHBOURS: &str = "similarity_neighbours";
/// Rows that are encoded at a time.
const BATCH_ROWS: usize = 1 << 16;

/// Writes `photos.parquet`.
///
/// # Errors
/// As [`write_table`].
pub fn write_photos(path: &Path, table: &FeatureTable) -> Result<()> {
    let field = |name, data_type| Field::new(name, data_type, false);
    let fields =
        vec![field("photo_id", DataType::UInt32), field("file_name", DataType::Utf8), field("path", DataType::Utf8)];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from(table.photo_ids.clone())),
        Arc::new(StringArray::from_iter_values(&table.file_names)),
        Arc::new(StringArray::from_iter_values(&table.paths)),
    ];
    let schema = schema("similarity_photos", fields);
    write_table(path, &RecordBatch::try_new(schema, columns).expect("the columns match the schema"))
}

/// Writes one part of the matrix.
#[derive(Debug)]
pub struct MatrixWriter {
    item: FieldRef,
    schema: arrow::datatypes::SchemaRef,
    photos: usize,
    writer: TableWriter,
}

impl MatrixWriter {
    /// Starts a part at `path` of a matrix of `photos` columns.
    ///
    /// # Errors
    /// As [`TableWriter::create`].
    pub fn create(path: &Path, photos: usize, row_group_rows: usize) -> Result<Self> {
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        let list = DataType::FixedSizeList(item.clone(), photos as i32);
        let fields = vec![Field::new("photo_id", DataType::UInt32, false), Field::new("correlation", list, false)];
        let schema = schema("similarity_matrix", fields);
        let writer = TableWriter::create(path, schema.clone(), row_group_rows)?;
        Ok(Self { item, schema, photos, writer })
    }

    /// Appends the rows of `photo_ids`; `correlations` is `[rows, photos]`.
    ///
    /// # Errors
    /// As [`TableWriter::write`].
    pub fn write(&mut self, photo_ids: Vec<u32>, correlations: Vec<Option<f32>>) -> Result<()> {
        let values = Arc::new(Float32Array::from(correlations));
        let list = FixedSizeListArray::try_new(self.item.clone(), self.photos as i32, values, None);
        let columns: Vec<ArrayRef> =
            vec![Arc::new(UInt32Array::from(photo_ids)), Arc::new(list.expect("each row has a value for each photo"))];
        let rows = RecordBatch::try_new(self.schema.clone(), columns).expect("the columns match the schema");
        self.writer.write(&rows)
    }

    /// Ends the part.
    ///
    /// # Errors
    /// As [`TableWriter::close`].
    pub fn close(self) -> Result<()> {
        self.writer.close().map(drop)
    }
}

/// Writes `neighbours.parquet`.
///
/// # Errors
/// As [`TableWriter`].
pub fn write_neighbours(path: &Path, neighbours: &[Neighbour]) -> Result<()> {
    let field = |(name, data_type)| Field::new(name, data_type, false);
    let fields = [
        ("photo_id", DataType::UInt32),
        ("rank", DataType::UInt32),
        ("neighbour_id", DataType::UInt32),
        ("correlation", DataType::Float32),
        ("cells_in_common", DataType::UInt32),
    ];
    let schema = schema(NEIGHBOURS, fields.map(field).to_vec());
    let mut writer = TableWriter::create(path, schema.clone(), 1 << 20)?;
    for rows in neighbours.chunks(BATCH_ROWS) {
        let number = |of: fn(&Neighbour) -> u32| Arc::new(UInt32Array::from_iter_values(rows.iter().map(of)));
        let columns: Vec<ArrayRef> = vec![
            number(|row| row.photo_id),
            number(|row| row.rank),
            number(|row| row.neighbour_id),
            Arc::new(Float32Array::from_iter_values(rows.iter().map(|row| row.correlation))),
            number(|row| row.cells_in_common),
        ];
        writer.write(&RecordBatch::try_new(schema.clone(), columns).expect("the columns match the schema"))?;
    }
    writer.close().map(drop)
}

/// Reads `neighbours.parquet`.
///
/// # Errors
/// As [`read_table`].
pub fn read_neighbours(path: &Path) -> Result<Vec<Neighbour>> {
    let mut neighbours = Vec::new();
    for batch in read_table(path, NEIGHBOURS, &[], BATCH_ROWS)? {
        let batch = batch?;
        let number = |name| column::<UInt32Array>(path, &batch, name);
        let (photo, rank, neighbour) = (number("photo_id")?, number("rank")?, number("neighbour_id")?);
        let (correlation, common) = (column::<Float32Array>(path, &batch, "correlation")?, number("cells_in_common")?);
        neighbours.extend((0..batch.num_rows()).map(|row| Neighbour {
            photo_id: photo.value(row),
            rank: rank.value(row),
            neighbour_id: neighbour.value(row),
            correlation: correlation.value(row),
            cells_in_common: common.value(row),
        }));
    }
    Ok(neighbours)
}
