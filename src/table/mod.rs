//! Reading and writing of all tables on disk; the columns of each table are defined in its own module.
//!
//! Every table has `lookbook.table` (its name) and `lookbook.schema_version` in its metadata; a reader rejects a file
//! with another name, version or set of columns, and names it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData, RowGroupMetaData};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::reader::ChunkReader;

use crate::error::{self, Error, Result};
use crate::guard;

/// Version of all schemas of this program; incremented when a column's name, type or meaning changes.
pub const SCHEMA_VERSION: &str = "1";
/// Metadata key of [`SCHEMA_VERSION`].
pub const SCHEMA_VERSION_KEY: &str = "lookbook.schema_version";
/// Metadata key of the table's name.
pub const TABLE_KEY: &str = "lookbook.table";
/// A table of at most so many bytes is read at once: it takes fewer system calls than a few for each of its columns.
const SMALL_TABLE: u64 = 4 << 20;
/// Rows that are read at once of a table that another program wrote.
const FOREIGN_BATCH_ROWS: usize = 8192;
/// Zstandard level of all tables: the best ratio at which writing is still faster than the stages that produce the
/// rows.
const ZSTD_LEVEL: i32 = 3;

/// The schema of the table `name`, with the metadata that all tables have.
#[must_use]
pub fn schema(name: &str, fields: Vec<Field>) -> SchemaRef {
    let metadata = [(TABLE_KEY, name), (SCHEMA_VERSION_KEY, SCHEMA_VERSION)];
    let metadata: HashMap<_, _> = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// The same schema with another line of metadata.
#[must_use]
pub fn with_metadata(schema: &Schema, key: &str, value: String) -> SchemaRef {
    let mut metadata = schema.metadata().clone();
    metadata.insert(key.to_owned(), value);
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata))
}

/// File name of part `number` of a table that is written in parts.
#[must_use]
pub fn part_name(number: usize) -> String {
    format!("part-{number:05}.parquet")
}

/// Whether `name`, a path within a folder, is that of a part.
#[must_use]
pub fn is_part(name: &Path) -> bool {
    let number = |text: &str| text.strip_prefix("part-")?.strip_suffix(".parquet")?.parse::<usize>().ok();
    name.to_str().and_then(number).is_some()
}

/// Maximum number of parts of a table, which is as far as the names can count.
const MAX_PARTS: usize = 100_000;

/// The parts of the table in `folder`, in order.
///
/// # Errors
/// [`Error::Input`] if there are no parts.
pub fn parts(folder: &Path) -> Result<Vec<PathBuf>> {
    let paths: Vec<_> =
        (0..MAX_PARTS).map(|number| folder.join(part_name(number))).take_while(|path| path.is_file()).collect();
    if paths.is_empty() {
        let problem = format!("contains no {}; run the stage that makes it first", part_name(0));
        return Err(Error::input(folder, problem));
    }
    Ok(paths)
}

/// Writes one Parquet file: zstd, with statistics, and the schema's metadata also in the footer.
#[derive(Debug)]
pub struct TableWriter {
    path: PathBuf,
    schema: SchemaRef,
    rows: usize,
    writer: ArrowWriter<File>,
}

impl TableWriter {
    /// Starts the file at `path` with row groups of at most `row_group_rows` rows.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be created.
    pub fn create(path: &Path, schema: SchemaRef, row_group_rows: usize) -> Result<Self> {
        Self::create_with(path, schema, row_group_rows, WriterProperties::builder())
    }

    /// Like [`TableWriter::create`], with properties for individual columns.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be created.
    pub fn create_with(
        path: &Path,
        schema: SchemaRef,
        row_group_rows: usize,
        columns: WriterPropertiesBuilder,
    ) -> Result<Self> {
        let file = File::create(path).map_err(Error::io("create", path))?;
        let level = ZstdLevel::try_new(ZSTD_LEVEL).expect("the level is a valid constant");
        let metadata = schema.metadata().iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
        let properties = columns
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(row_group_rows))
            .set_created_by(concat!("lookbook ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(metadata))
            .build();
        let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties)).map_err(failed("write", path))?;
        Ok(Self { path: path.to_owned(), schema, rows: 0, writer })
    }

    /// Appends rows.
    ///
    /// # Errors
    /// [`Error::Io`], for example if the disk is full.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.rows += rows.num_rows();
        guarded("write", &self.path, || self.writer.write(rows))
    }

    /// Finishes the file, flushes it to disk, reopens it and checks schema and row count. Returns the number of rows.
    ///
    /// # Errors
    /// As [`TableWriter::end`] and [`Ended::check`].
    pub fn close(self) -> Result<usize> {
        self.end()?.check()
    }

    /// Finishes the file; it is not on disk before [`Ended::check`].
    ///
    /// # Errors
    /// [`Error::Io`], for example if the disk is full.
    pub fn end(self) -> Result<Ended> {
        let file = guarded("write", &self.path, || self.writer.into_inner())?;
        Ok(Ended { path: self.path, schema: self.schema, rows: self.rows, file })
    }
}

/// A file that was written but may not have reached the disk yet.
#[derive(Debug)]
#[must_use = "it is neither flushed nor checked before `check`"]
pub struct Ended {
    path: PathBuf,
    schema: SchemaRef,
    rows: usize,
    file: File,
}

impl Ended {
    /// Flushes the file to disk, reopens it and checks schema and row count. Returns the number of rows.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Schema`] if the file does not read back as it was written.
    pub fn check(self) -> Result<usize> {
        self.file.sync_all().map_err(Error::io("flush", &self.path))?;
        let reader = open(&self.path)?;
        let rows = reader.metadata().file_metadata().num_rows();
        if reader.schema().fields() != self.schema.fields() || rows != self.rows as i64 {
            let found = format!("{rows} rows of {:?}", reader.schema().fields());
            return Err(Error::schema(&self.path, format!("the {} rows written", self.rows), found));
        }
        Ok(self.rows)
    }
}

/// Writes a table that fits into one batch.
///
/// # Errors
/// As [`TableWriter`].
pub fn write_table(path: &Path, rows: &RecordBatch) -> Result<()> {
    let mut writer = TableWriter::create(path, rows.schema(), 1 << 20)?;
    writer.write(rows)?;
    writer.close().map(drop)
}

/// Reads the columns `columns` (all if empty) of the table `name` at `path`, in batches of `batch_rows` rows.
///
/// # Errors
/// [`Error::Input`] if the file cannot be opened or is not a Parquet file, [`Error::Schema`] if it is another table,
/// another version, or lacks a column.
pub fn read_table(path: &Path, name: &str, columns: &[&str], batch_rows: usize) -> Result<TableReader> {
    read(path, None, (name, columns), batch_rows)
}

/// Like [`read_table`] of the table and the columns `of`, only the rows with these numbers (ascending, from 0).
///
/// # Errors
/// As [`read_table`].
pub fn read_rows(path: &Path, rows: &[usize], of: (&str, &[&str]), batch_rows: usize) -> Result<TableReader> {
    read(path, Some(rows), of, batch_rows)
}

fn read(path: &Path, rows: Option<&[usize]>, of: (&str, &[&str]), batch_rows: usize) -> Result<TableReader> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    if file.metadata().map_err(Error::io("read", path))?.len() > SMALL_TABLE {
        return reader(path, chosen(opened(path, file)?, rows), of, batch_rows);
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(Error::io("read", path))?;
    reader(path, chosen(opened(path, Bytes::from(content))?, rows), of, batch_rows)
}

/// Reads only these rows, if they are given.
fn chosen<T: ChunkReader + 'static>(
    builder: ParquetRecordBatchReaderBuilder<T>,
    rows: Option<&[usize]>,
) -> ParquetRecordBatchReaderBuilder<T> {
    let Some(rows) = rows else { return builder };
    let count = builder.metadata().file_metadata().num_rows() as usize;
    let ranges = rows.iter().map(|&row| row..row + 1);
    builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges, count))
}

/// Like [`read_table`], from `encoded`, the content of the file at `path`.
///
/// # Errors
/// As [`read_table`].
pub fn parse_table(
    path: &Path,
    encoded: &[u8],
    name: &str,
    columns: &[&str],
    batch_rows: usize,
) -> Result<TableReader> {
    reader(path, opened(path, Bytes::copy_from_slice(encoded))?, (name, columns), batch_rows)
}

fn reader<T: ChunkReader + 'static>(
    path: &Path,
    builder: ParquetRecordBatchReaderBuilder<T>,
    (name, columns): (&str, &[&str]),
    batch_rows: usize,
) -> Result<TableReader> {
    check_identity(path, name, builder.schema())?;
    check_compression(path, builder.metadata())?;
    let found = builder.schema().fields();
    if let Some(missing) = columns.iter().find(|column| found.find(column).is_none()) {
        let found = found.iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
        return Err(Error::schema(path, format!("the column '{missing}'"), found));
    }
    let mask = if columns.is_empty() {
        ProjectionMask::all()
    } else {
        let roots = found.iter().enumerate().filter(|(_, field)| columns.contains(&field.name().as_str()));
        ProjectionMask::roots(builder.parquet_schema(), roots.map(|(index, _)| index))
    };
    batches(path, builder, mask, batch_rows)
}

fn batches<T: ChunkReader + 'static>(
    path: &Path,
    builder: ParquetRecordBatchReaderBuilder<T>,
    mask: ProjectionMask,
    batch_rows: usize,
) -> Result<TableReader> {
    let rows = builder.metadata().file_metadata().num_rows() as usize;
    let metadata = builder.schema().metadata().clone().into();
    let reader = builder.with_projection(mask).with_batch_size(batch_rows).build().map_err(failed("read", path))?;
    Ok(TableReader { path: path.to_owned(), rows, metadata, reader })
}

/// Reads the columns that `wanted` accepts of a table that another program wrote. Returns its schema as well.
///
/// # Errors
/// [`Error::Input`] if the file cannot be opened, is not a Parquet file, or is compressed in a way that is not built in.
pub fn read_foreign(path: &Path, wanted: impl Fn(&Field) -> bool) -> Result<(SchemaRef, TableReader)> {
    let builder = open(path)?;
    check_compression(path, builder.metadata())?;
    let schema = builder.schema().clone();
    let roots = schema.fields().iter().enumerate().filter(|(_, field)| wanted(field)).map(|(index, _)| index);
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    Ok((schema, batches(path, builder, mask, FOREIGN_BATCH_ROWS)?))
}

/// What the footer of a table says.
#[derive(Debug, Clone)]
pub struct Footer {
    /// Its columns.
    pub schema: SchemaRef,
    metadata: Arc<ParquetMetaData>,
}

impl Footer {
    /// Of any table of this program.
    ///
    /// # Errors
    /// [`Error::Input`] if it is not a complete Parquet file, [`Error::Schema`] if it is not a table of this schema
    /// version.
    pub fn read(path: &Path) -> Result<Self> {
        let builder = open(path)?;
        let name = builder.schema().metadata().get(TABLE_KEY).cloned().unwrap_or_default();
        check_identity(path, &name, builder.schema())?;
        Ok(Self { schema: builder.schema().clone(), metadata: builder.metadata().clone() })
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.metadata.file_metadata().num_rows() as u64
    }

    /// Number of nulls in a column of plain values, or of lists whose values are never null; `None` if the footer does not
    /// say, or there is no such column.
    #[must_use]
    pub fn nulls(&self, column: &str) -> Option<u64> {
        let of_column = |group: &RowGroupMetaData| {
            let chunk =
                group.columns().iter().find(|it| it.column_path().parts().first().is_some_and(|it| it == column));
            chunk?.statistics()?.null_count_opt()
        };
        self.metadata.row_groups().iter().map(of_column).sum()
    }
}

/// Number of rows of any table of this program, from its footer.
///
/// # Errors
/// As [`Footer::read`].
pub fn count_rows(path: &Path) -> Result<u64> {
    Footer::read(path).map(|it| it.rows())
}

/// The batches of a table; created by [`read_table`].
#[derive(Debug)]
pub struct TableReader {
    path: PathBuf,
    rows: usize,
    metadata: HashMap<String, String>,
    reader: ParquetRecordBatchReader,
}

impl TableReader {
    /// Number of rows in the whole file.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A value of the table's metadata.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }
}

impl Iterator for TableReader {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let damaged = || Error::input(&self.path, "is damaged; recreate it");
        match guard::no_panic(|| self.reader.next()) {
            Ok(batch) => Some(batch?.map_err(|cause| damaged().because(cause))),
            Err(panic) => Some(Err(damaged().because(panic))),
        }
    }
}

/// The column `name` of `batch` as an array of type `A`.
///
/// # Errors
/// [`Error::Schema`] with `path` if the column is missing or has another type.
pub fn column<'a, A: arrow::array::Array + 'static>(path: &Path, batch: &'a RecordBatch, name: &str) -> Result<&'a A> {
    let found = batch.column_by_name(name);
    found.and_then(|array| array.as_any().downcast_ref()).ok_or_else(|| {
        let expected = format!("column '{name}' as {}", std::any::type_name::<A>());
        Error::schema(path, expected, found.map_or("no such column".to_owned(), |array| array.data_type().to_string()))
    })
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    opened(path, File::open(path).map_err(Error::io("open", path))?)
}

fn opened<T: ChunkReader + 'static>(path: &Path, content: T) -> Result<ParquetRecordBatchReaderBuilder<T>> {
    let incomplete = || Error::input(path, "is not a complete Parquet file; recreate it");
    match guard::no_panic(|| ParquetRecordBatchReaderBuilder::try_new(content)) {
        Ok(opened) => opened.map_err(|cause| incomplete().because(cause)),
        Err(panic) => Err(incomplete().because(panic)),
    }
}

fn check_identity(path: &Path, name: &str, schema: &Schema) -> Result<()> {
    let found = [TABLE_KEY, SCHEMA_VERSION_KEY].map(|key| schema.metadata().get(key).map_or("none", String::as_str));
    if found == [name, SCHEMA_VERSION] {
        return Ok(());
    }
    Err(Error::schema(
        path,
        format!("the table '{name}' of schema version {SCHEMA_VERSION}"),
        format!("'{}' of version {}; recreate it with this version of lookbook", found[0], found[1]),
    ))
}

/// Refuses a table that another program wrote with a compression that is not built in.
fn check_compression(path: &Path, metadata: &ParquetMetaData) -> Result<()> {
    let built_in =
        |it: Compression| matches!(it, Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_));
    let columns = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
    match columns.map(|it| (it, it.compression())).find(|(_, compression)| !built_in(*compression)) {
        None => Ok(()),
        Some((column, compression)) => {
            let column = column.column_path().string();
            Err(Error::input(
                path,
                format!("holds '{column}' compressed with {compression}; write it with ZSTD or SNAPPY"),
            ))
        }
    }
}

/// Runs a step of the writer, which panics if zstd gets no memory.
fn guarded<T>(action: &'static str, path: &Path, step: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    guard::no_panic(step).unwrap_or_else(|panic| Err(ParquetError::General(panic))).map_err(failed(action, path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(ParquetError) -> Error {
    let path = path.to_owned();
    move |cause| Error::io(action, path)(error::io_error_of(cause))
}
