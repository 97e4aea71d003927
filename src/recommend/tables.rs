//! `recommendations.parquet`: one row for each photo and neighbour, with the cells that make up the correlation.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, ListArray, StringArray, StructArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::similarity::SharedCell;
use crate::table::{self, TableWriter};

use super::answer::Recommended;

/// File name of the table.
pub(super) const RECOMMENDATIONS_FILE: &str = "recommendations.parquet";
/// Name of the table.
const TABLE: &str = "recommendations";
/// Rows of a row group: their cells are a few megabytes.
const ROW_GROUP_ROWS: usize = 1 << 16;

/// What is recommended for a photo.
pub(super) struct Row {
    pub(super) photo_id: u32,
    pub(super) path: String,
    pub(super) neighbours: Vec<Recommended>,
}

/// Writes the table.
pub(super) struct Writer {
    schema: SchemaRef,
    writer: TableWriter,
}

impl Writer {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let schema = schema();
        let writer = TableWriter::create(path, schema.clone(), ROW_GROUP_ROWS)?;
        Ok(Self { schema, writer })
    }

    pub(super) fn write(&mut self, rows: &[Row]) -> Result<()> {
        self.writer.write(&batch(&self.schema, rows))
    }

    pub(super) fn close(self) -> Result<usize> {
        self.writer.close()
    }
}

fn cell_fields() -> Fields {
    let number = |name| Field::new(name, DataType::Float32, false);
    let name = Field::new("cell", DataType::Utf8, false);
    Fields::from(vec![name, number("share"), number("neighbour_share"), number("contribution")])
}

fn schema() -> SchemaRef {
    let field = |name, data_type, nullable| Field::new(name, data_type, nullable);
    let cells = Field::new_list_field(DataType::Struct(cell_fields()), false);
    let fields = vec![
        field("photo_id", DataType::UInt32, false),
        field("path", DataType::Utf8, false),
        field("rank", DataType::UInt32, false),
        field("neighbour_id", DataType::UInt32, false),
        field("neighbour_path", DataType::Utf8, false),
        field("correlation", DataType::Float32, false),
        field("score", DataType::Float32, true),
        field("item_score", DataType::Float32, true),
        field("item_cosine", DataType::Float32, true),
        field("most_like_earlier", DataType::Float32, true),
        field("cells", DataType::List(Arc::new(cells)), false),
        field("other_cells", DataType::Float32, false),
    ];
    table::schema(TABLE, fields)
}

fn batch(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
    let all = || rows.iter().flat_map(|row| row.neighbours.iter().map(move |it| (row, it)));
    let numbers = |of: &dyn Fn(&Row, &Recommended) -> u32| -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values(all().map(|(row, it)| of(row, it))))
    };
    let floats = |of: &dyn Fn(&Recommended) -> Option<f32>| -> ArrayRef {
        Arc::new(all().map(|(_, it)| of(it)).collect::<Float32Array>())
    };
    let columns: Vec<ArrayRef> = vec![
        numbers(&|row, _| row.photo_id),
        Arc::new(StringArray::from_iter_values(all().map(|(row, _)| &row.path))),
        numbers(&|_, it| it.rank),
        numbers(&|_, it| it.photo_id),
        Arc::new(StringArray::from_iter_values(all().map(|(_, it)| &it.path))),
        floats(&|it| Some(it.correlation)),
        floats(&|it| it.score),
        floats(&|it| it.item_score),
        floats(&|it| it.item_cosine),
        floats(&|it| it.most_like_earlier),
        cells(&all().map(|(_, it)| it).collect::<Vec<_>>()),
        floats(&|it| Some(it.other_cells)),
    ];
    RecordBatch::try_new(schema.clone(), columns).expect("the columns match the schema")
}

/// The cells of each neighbour: those of both photos first.
fn cells(neighbours: &[&Recommended]) -> ArrayRef {
    let of = |it: &&Recommended| it.shared_cells.len() + it.unshared_cells.len();
    let offsets = OffsetBuffer::from_lengths(neighbours.iter().map(of));
    let all: Vec<&SharedCell> =
        neighbours.iter().flat_map(|it| it.shared_cells.iter().chain(&it.unshared_cells)).collect();
    let numbers = |of: fn(&SharedCell) -> f32| -> ArrayRef {
        Arc::new(Float32Array::from_iter_values(all.iter().map(|it| of(it))))
    };
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(all.iter().map(|it| &it.name)));
    let columns = vec![names, numbers(|it| it.share), numbers(|it| it.neighbour_share), numbers(|it| it.contribution)];
    let cells = StructArray::new(cell_fields(), columns, None);
    let field = Field::new_list_field(DataType::Struct(cell_fields()), false);
    Arc::new(ListArray::new(Arc::new(field), offsets, Arc::new(cells), None))
}
