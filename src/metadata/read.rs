//! Reading a table of the user's own, whatever wrote it, into few types.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, UInt32Array, new_empty_array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat, take};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow_csv::ReaderBuilder;
use arrow_csv::reader::Format;

use super::column::{Column, Kind};
use crate::error::{Error, Result};
use crate::store::{self, LocalFile};
use crate::{guard, table};

/// Rows that are read at once.
const BATCH_ROWS: usize = 8192;

/// A file with a table, as found.
pub(super) struct Source<'a> {
    path: &'a Path,
    local: LocalFile<'a>,
    schema: SchemaRef,
    is_csv: bool,
}

impl<'a> Source<'a> {
    /// Reads the columns' names and types; of CSV, the types are those that fit all values.
    pub(super) fn open(path: &'a Path) -> Result<Self> {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let is_csv = match extension.as_str() {
            "csv" => true,
            "parquet" => false,
            _ => return Err(Error::input(path, "is not a table of metadata; name a .parquet or .csv file")),
        };
        let local = store::local(path)?;
        let schema =
            if is_csv { csv_schema(path, local.path())? } else { table::read_foreign(local.path(), |_| false)?.0 };
        let mut seen = HashSet::new();
        match schema.fields().iter().find(|it| !seen.insert(it.name())) {
            Some(twice) => Err(Error::input(path, format!("has the column '{}' twice", twice.name()))),
            None => Ok(Self { path, local, schema, is_csv }),
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|it| it.name().clone()).collect()
    }

    /// Reads the columns that `wanted` accepts.
    pub(super) fn read(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Column>> {
        let places = self.schema.fields().iter().enumerate().filter(|(_, it)| wanted(it.name()));
        let (places, fields): (Vec<usize>, Vec<_>) = places.map(|(place, it)| (place, it.clone())).unzip();
        let mut parts: Vec<Vec<ArrayRef>> = fields.iter().map(|it| vec![new_empty_array(it.data_type())]).collect();
        let mut add = |batch: &arrow::record_batch::RecordBatch| {
            parts.iter_mut().zip(batch.columns()).for_each(|(parts, values)| parts.push(values.clone()));
        };
        let local = self.local.path();
        if self.is_csv {
            let failed = |cause| not_csv(self.path).because(cause);
            let builder = ReaderBuilder::new(self.schema.clone()).with_format(csv_format());
            let builder = builder.with_projection(places).with_batch_size(BATCH_ROWS);
            let reader = builder.build_buffered(csv_file(local)?).map_err(failed)?;
            reader.into_iter().try_for_each(|batch| batch.map(|it| add(&it)).map_err(failed))?;
        } else {
            let (_, reader) = table::read_foreign(local, |field| wanted(field.name()))?;
            reader.into_iter().try_for_each(|batch| batch.map(|it| add(&it)))?;
        }
        Ok(fields.iter().zip(&parts).map(|(field, parts)| joined(field.name(), parts)).collect())
    }
}

fn csv_format() -> Format {
    Format::default().with_header(true)
}

fn not_csv(path: &Path) -> Error {
    Error::input(path, "is damaged or not CSV: a line of names, then one of as many values for each photo")
}

/// Opens a CSV file behind its byte order mark, if it has one.
fn csv_file(path: &Path) -> Result<BufReader<File>> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io("open", path))?);
    let start = std::io::BufRead::fill_buf(&mut file).map_err(Error::io("read", path))?;
    let mark = if start.starts_with("\u{feff}".as_bytes()) { 3 } else { 0 };
    file.seek(std::io::SeekFrom::Start(mark)).map_err(Error::io("read", path))?;
    Ok(file)
}

fn csv_schema(name: &Path, path: &Path) -> Result<SchemaRef> {
    let file = csv_file(path)?;
    match guard::no_panic(|| csv_format().infer_schema(file, None)) {
        Ok(inferred) => Ok(Arc::new(inferred.map_err(|cause| not_csv(name).because(cause))?.0)),
        Err(panic) => Err(not_csv(name).because(panic)),
    }
}

/// A column of `parts`, all of one type, in one of the types of [`Kind`].
pub(super) fn joined(name: &str, parts: &[ArrayRef]) -> Column {
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    let (kind, values) = match concat(&parts) {
        Ok(values) => plain(&values),
        Err(cause) => too_much(parts.iter().map(|it| it.len()).sum(), &cause),
    };
    Column { name: name.to_owned(), kind, values }
}

/// The values of `column` in the rows `rows`; null without one.
pub(super) fn taken(column: &Column, rows: &UInt32Array) -> Column {
    let (kind, values) = match take(&column.values, rows, None) {
        Ok(values) => (column.kind.clone(), values),
        Err(cause) => too_much(rows.len(), &cause),
    };
    Column { name: column.name.clone(), kind, values }
}

/// More text than one array holds.
fn too_much(len: usize, cause: &ArrowError) -> (Kind, ArrayRef) {
    (Kind::Other(format!("more than fits ({cause})")), new_null_array(&DataType::Null, len))
}

/// The values in a type of [`Kind`]; unchanged if none fits.
fn plain(values: &ArrayRef) -> (Kind, ArrayRef) {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let cast = |kind: Kind, to: DataType| match cast_with_options(values, &to, &strict) {
        Ok(cast) => (kind, cast),
        Err(cause) => {
            (Kind::Other(format!("{} that is not a valid {kind} ({cause})", values.data_type())), values.clone())
        }
    };
    match values.data_type() {
        DataType::Null => (Kind::Empty, values.clone()),
        DataType::Boolean => (Kind::Boolean, values.clone()),
        it if it.is_integer() => cast(Kind::Integer, DataType::Int64),
        DataType::Float32 => {
            (Kind::Number, numbers(values.as_primitive::<Float32Type>().iter().map(|it| it.map(decimal))))
        }
        it if it.is_floating() || it.is_decimal() => match cast(Kind::Number, DataType::Float64) {
            (Kind::Number, cast) => (Kind::Number, numbers(cast.as_primitive::<Float64Type>().iter())),
            other => other,
        },
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => cast(Kind::Text, DataType::Utf8),
        DataType::Dictionary(_, of) if of.is_string() => cast(Kind::Text, DataType::Utf8),
        DataType::Date32 | DataType::Date64 => cast(Kind::Date, DataType::Date32),
        DataType::Timestamp(..) => cast(Kind::Time, DataType::Timestamp(TimeUnit::Microsecond, None)),
        it => (Kind::Other(format!("a {it}")), values.clone()),
    }
}

/// The number that a person would write for it, so that an f32 of 79.99 equals 79.99.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

/// Numbers without NaN, which is null, and -0, which is 0.
pub(super) fn numbers(values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    let array: Float64Array = values.map(|it| it.filter(|it| !it.is_nan()).map(|it| it + 0.0)).collect();
    Arc::new(array)
}
