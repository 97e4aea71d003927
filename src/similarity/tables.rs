//! The tables of a similarity folder: `photos.parquet`, `neighbours.parquet` and, if requested,
//! `matrix/part-NNNNN.parquet` and `pairs/part-NNNNN.parquet`.
//!
//! | table | column | type | meaning |
//! | --- | --- | --- | --- |
//! | photos | `photo_id` | u32 | rows in the order of the feature table: the order of the matrix |
//! | | `file_name`, `path` | text | as in the feature table |
//! | neighbours | `photo_id`, `rank` | u32 | the nearest has rank 1; a photo has fewer rows if fewer correlations are defined |
//! | | `neighbour_id` | u32 | never the photo itself |
//! | | `correlation` | f32 | of the two, -1 to 1 |
//! | | `cells_in_common` | u32 | cells present in both |
//! | matrix | `photo_id` | u32 | one row for each photo, in the order of photos |
//! | | `correlation` | fixed-size list of N f32 or f16 | with each of the N photos, -1 to 1; null if undefined |
//! | pairs | `photo_id`, `other_id` | u32 | two photos, the first earlier in the order of photos |
//! | | `correlation`, `cells_in_common` | f32, u32 | as in neighbours |

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float16Array, Float32Array, StringArray, UInt32Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use arrow::record_batch::RecordBatch;

use half::vec::HalfFloatVecExt;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use super::config::NumberFormat;
use crate::error::Result;
use crate::features::FeatureTable;
use crate::table::{Ended, TableWriter, column, read_table, schema, write_table};

/// One row of `neighbours.parquet`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// The photo whose neighbour it is.
    pub photo_id: u32,
    /// 1 = nearest.
    pub rank: u32,
    /// The neighbour.
    pub neighbour_id: u32,
    /// Correlation of the two, -1 to 1.
    pub correlation: f32,
    /// Cells present in both.
    pub cells_in_common: u32,
}

/// File name of the table of photos.
pub const PHOTOS_FILE: &str = "photos.parquet";
/// Folder of the matrix.
pub const MATRIX_FOLDER: &str = "matrix";
/// Folder of the pairs above a threshold.
pub const PAIRS_FOLDER: &str = "pairs";
/// File name of the table of neighbours.
pub const NEIGHBOURS_FILE: &str = "neighbours.parquet";
const NEIGHBOURS: &str = "similarity_neighbours";
/// Rows encoded at a time.
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
    schema: SchemaRef,
    photos: usize,
    precision: NumberFormat,
    writer: TableWriter,
}

impl MatrixWriter {
    /// Starts a part at `path` of a matrix of `photos` columns.
    ///
    /// # Errors
    /// As [`TableWriter::create`].
    pub fn create(path: &Path, photos: usize, precision: NumberFormat, row_group_rows: usize) -> Result<Self> {
        let item_type = match precision {
            NumberFormat::F32 => DataType::Float32,
            NumberFormat::F16 => DataType::Float16,
        };
        let item = Arc::new(Field::new("item", item_type, true));
        let list = DataType::FixedSizeList(item.clone(), photos as i32);
        let fields = vec![Field::new("photo_id", DataType::UInt32, false), Field::new("correlation", list, false)];
        let schema = schema("similarity_matrix", fields);
        let writer =
            TableWriter::create_with(path, schema.clone(), row_group_rows, as_they_are("correlation.list.item"))?;
        Ok(Self { item, schema, photos, precision, writer })
    }

    /// Appends the rows of `photo_ids`; `correlations` is `[rows, photos]`, NaN if undefined.
    ///
    /// # Errors
    /// As [`TableWriter::write`].
    pub fn write(&mut self, photo_ids: &[u32], correlations: &[f32]) -> Result<()> {
        let batch_rows = (BATCH_ROWS / self.photos).max(1);
        let batches = photo_ids.chunks(batch_rows).zip(correlations.chunks(batch_rows * self.photos));
        for (photo_ids, correlations) in batches {
            let values = self.values(correlations);
            let list = FixedSizeListArray::try_new(self.item.clone(), self.photos as i32, values, None);
            let list = list.expect("each row has a value for each photo");
            let columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(photo_ids.to_vec())), Arc::new(list)];
            let rows = RecordBatch::try_new(self.schema.clone(), columns).expect("the columns match the schema");
            self.writer.write(&rows)?;
        }
        Ok(())
    }

    fn values(&self, correlations: &[f32]) -> ArrayRef {
        let undefined = correlations.iter().any(|it| it.is_nan());
        let defined = || BooleanBuffer::collect_bool(correlations.len(), |it| !correlations[it].is_nan());
        let nulls = undefined.then(|| NullBuffer::new(defined()));
        match self.precision {
            NumberFormat::F32 => Arc::new(Float32Array::new(correlations.to_vec().into(), nulls)),
            NumberFormat::F16 => Arc::new(Float16Array::new(Vec::from_f32_slice(correlations).into(), nulls)),
        }
    }

    /// Ends the part.
    ///
    /// # Errors
    /// As [`TableWriter::end`].
    pub fn end(self) -> Result<Ended> {
        self.writer.end()
    }
}

/// Stores a column uncompressed: correlations look like noise to a compressor, so zstd makes the files only 7 % smaller
/// and the run 50 % longer.
fn as_they_are(column: &str) -> WriterPropertiesBuilder {
    let column = ColumnPath::from(column.split('.').map(str::to_owned).collect::<Vec<_>>());
    WriterProperties::builder()
        .set_column_compression(column.clone(), Compression::UNCOMPRESSED)
        .set_column_dictionary_enabled(column.clone(), false)
        .set_column_statistics_enabled(column, EnabledStatistics::None)
}

/// One row of `pairs/part-NNNNN.parquet`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// One photo.
    pub photo_id: u32,
    /// The other, later in the order of photos.
    pub other_id: u32,
    /// Correlation of the two, -1 to 1.
    pub correlation: f32,
    /// Cells present in both.
    pub cells_in_common: u32,
}

/// Writes one part of the pairs.
#[derive(Debug)]
pub struct PairsWriter {
    schema: SchemaRef,
    writer: TableWriter,
}

impl PairsWriter {
    /// Starts a part at `path`.
    ///
    /// # Errors
    /// As [`TableWriter::create`].
    pub fn create(path: &Path) -> Result<Self> {
        let field = |(name, data_type)| Field::new(name, data_type, false);
        let fields = [
            ("photo_id", DataType::UInt32),
            ("other_id", DataType::UInt32),
            ("correlation", DataType::Float32),
            ("cells_in_common", DataType::UInt32),
        ];
        let schema = schema("similarity_pairs", fields.map(field).to_vec());
        let writer = TableWriter::create(path, schema.clone(), 1 << 20)?;
        Ok(Self { schema, writer })
    }

    /// Appends rows.
    ///
    /// # Errors
    /// As [`TableWriter::write`].
    pub fn write(&mut self, pairs: &[Pair]) -> Result<()> {
        let number = |of: fn(&Pair) -> u32| Arc::new(UInt32Array::from_iter_values(pairs.iter().map(of)));
        let columns: Vec<ArrayRef> = vec![
            number(|row| row.photo_id),
            number(|row| row.other_id),
            Arc::new(Float32Array::from_iter_values(pairs.iter().map(|row| row.correlation))),
            number(|row| row.cells_in_common),
        ];
        self.writer.write(&RecordBatch::try_new(self.schema.clone(), columns).expect("the columns match the schema"))
    }

    /// Ends the part.
    ///
    /// # Errors
    /// As [`TableWriter::end`].
    pub fn end(self) -> Result<Ended> {
        self.writer.end()
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
