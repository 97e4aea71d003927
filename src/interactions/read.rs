//! Reads a table of events, Parquet or CSV, in one pass.
//!
//! | column | type | meaning |
//! | --- | --- | --- |
//! | `user` | text or whole number | who chose the photo |
//! | `photo_id`, `path` or `file_name` | as in the feature table | the photo; the first of these that is there counts |
//! | `weight` | number above 0 | how much the choice counts; 1 without the column |
//!
//! Other columns are passed over. Rows are counted from 1, without the line of names.

use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use csv::StringRecord;

use super::events::Event;
use super::photos::{KEYS, Key, Photos};
use crate::error::{Error, Result};
use crate::features::FeatureTable;
use crate::progress::Progress;
use crate::{stop, store, table};

/// Weights that are taken: sums of them and of their squares stay within the numbers of 32 bits.
const LEAST_WEIGHT: f64 = 1e-9;
const LARGEST_WEIGHT: f64 = 1e9;
/// Rows of CSV between two looks at the clock and the signals.
const BATCH_ROWS: u64 = 1 << 14;
const TASK: &str = "interactions";
const USER: &str = "user";
const WEIGHT: &str = "weight";

/// A table of events as read.
#[derive(Debug, Default)]
pub struct Read {
    /// Those of photos of the catalogue, in the order of the file.
    pub events: Vec<Event>,
    /// Number of all events.
    pub rows: u64,
    /// Events of photos that are not in the catalogue.
    pub unknown: u64,
    /// The first such photo.
    pub first_unknown: Option<String>,
}

/// Reads the events at `path` of photos of `features`, 16 bytes for each.
///
/// # Errors
/// [`Error::Input`] if the file is neither Parquet nor CSV by its ending, or cannot be read; with the row if a user or a
/// photo is missing, a weight is not a number above 0, or a file name is that of several photos; [`Error::Schema`] if a
/// column is missing or has another type.
pub fn read(path: &Path, features: &FeatureTable) -> Result<Read> {
    let ending = path.extension().unwrap_or_default();
    let read = match (ending.eq_ignore_ascii_case("parquet"), ending.eq_ignore_ascii_case("csv")) {
        (true, _) => read_parquet,
        (_, true) => read_csv,
        _ => return Err(Error::input(path, "is not a table of interactions; name a .parquet or .csv file")),
    };
    read(path, store::local(path)?.path(), features)
}

/// The events that were read so far.
struct Reader<'a> {
    path: &'a Path,
    photos: Photos<'a>,
    read: Read,
}

impl<'a> Reader<'a> {
    /// For a file with these columns.
    fn new(path: &'a Path, features: &'a FeatureTable, columns: &[&str]) -> Result<Self> {
        let missing = |what: &str| {
            let problem = format!("has no column {what}; it has {}", columns.join(", "));
            Error::input(path, problem)
        };
        for name in KEYS.into_iter().chain([USER, WEIGHT]) {
            if columns.iter().filter(|it| **it == name).count() > 1 {
                return Err(Error::input(path, format!("has the column '{name}' twice")));
            }
        }
        if !columns.contains(&USER) {
            return Err(missing("'user'"));
        }
        let photos = Photos::new(features, columns).ok_or_else(|| missing(&KEYS.join(", ")))?;
        Ok(Self { path, photos, read: Read::default() })
    }

    /// A problem of the row that comes next.
    fn bad(&self, problem: impl std::fmt::Display) -> Error {
        Error::input(self.path, format!("row {}: {problem}", self.read.rows + 1))
    }

    fn add(&mut self, user: Option<&str>, photo: Option<Key>, weight: Option<f64>) -> Result<()> {
        let user = user.filter(|it| !it.is_empty()).ok_or_else(|| self.bad("the user is missing"))?;
        let photo = photo.ok_or_else(|| self.bad(format!("the {} is missing", self.photos.column())))?;
        let weight = weight.ok_or_else(|| self.bad("the weight is missing; use a number above 0"))?;
        if !(LEAST_WEIGHT..=LARGEST_WEIGHT).contains(&weight) {
            return Err(self.bad(format!("the weight is {weight}; use {LEAST_WEIGHT:e} to {LARGEST_WEIGHT:e}")));
        }
        if let Some(row) = self.photos.row(photo).map_err(|problem| self.bad(problem))? {
            self.read.events.push(Event { user: Event::user(user), row, weight: weight as f32 });
        } else {
            self.read.unknown += 1;
            self.read.first_unknown.get_or_insert_with(|| photo.to_string());
        }
        self.read.rows += 1;
        Ok(())
    }
}

fn read_parquet(path: &Path, local: &Path, features: &FeatureTable) -> Result<Read> {
    let (schema, _) = table::read_foreign(local, |_| false)?;
    let names: Vec<&str> = schema.fields().iter().map(|it| it.name().as_str()).collect();
    let mut reader = Reader::new(path, features, &names)?;
    let key = reader.photos.column();
    let wanted = |name: &str| [USER, key, WEIGHT].contains(&name);
    check_types(path, &schema, wanted)?;
    let (_, batches) = table::read_foreign(local, |field| wanted(field.name()))?;
    let progress = Progress::new(TASK, batches.rows() as u64, "events");
    for batch in batches {
        stop::check()?;
        let batch = batch?;
        add_batch(&mut reader, &batch)?;
        progress.inc(batch.num_rows() as u64);
    }
    Ok(reader.read)
}

/// Checks that the values of the columns can be read as what they are meant to be.
fn check_types(path: &Path, schema: &Schema, wanted: impl Fn(&str) -> bool) -> Result<()> {
    for field in schema.fields().iter().filter(|it| wanted(it.name())) {
        let found = field.data_type();
        let kind = if let DataType::Dictionary(_, values) = found { values } else { found };
        let (fits, expected) = match field.name().as_str() {
            USER => (kind.is_string() || kind.is_integer(), "text or whole numbers"),
            WEIGHT => (kind.is_numeric(), "numbers"),
            name if name == KEYS[0] => (kind.is_integer(), "whole numbers"),
            _ => (kind.is_string(), "text"),
        };
        if !fits {
            return Err(Error::schema(path, format!("the column '{}' of {expected}", field.name()), found));
        }
    }
    Ok(())
}

fn add_batch(reader: &mut Reader, batch: &RecordBatch) -> Result<()> {
    let path = reader.path;
    let column = |name: &str, wanted: &DataType| -> Result<Option<ArrayRef>> {
        let Some(found) = batch.column_by_name(name) else { return Ok(None) };
        let damaged = || Error::input(path, format!("its column '{name}' is damaged"));
        cast(found, wanted).map(Some).map_err(|cause| damaged().because(cause))
    };
    let asked_for = "the column was asked for";
    let users = column(USER, &DataType::Utf8)?.expect(asked_for);
    let users: &StringArray = users.as_string();
    let weights = column(WEIGHT, &DataType::Float64)?;
    let weights: Option<&Float64Array> = weights.as_ref().map(AsArray::as_primitive::<Float64Type>);
    let weight = |row: usize| weights.map_or(Some(1.0), |it| it.is_valid(row).then(|| it.value(row)));
    let user = |row: usize| users.is_valid(row).then(|| users.value(row));
    if reader.photos.by_number() {
        // What does not fit is null then, but is in no catalogue either.
        let ids = column(KEYS[0], &DataType::Int64)?.expect(asked_for);
        let (ids, found) = (ids.as_primitive::<Int64Type>(), batch.column_by_name(KEYS[0]).expect(asked_for));
        let id = |row| if ids.is_valid(row) { ids.value(row).into() } else { i128::MAX };
        (0..batch.num_rows())
            .try_for_each(|row| reader.add(user(row), found.is_valid(row).then(|| Key::Id(id(row))), weight(row)))
    } else {
        let names = column(reader.photos.column(), &DataType::Utf8)?.expect(asked_for);
        let names: &StringArray = names.as_string();
        (0..batch.num_rows()).try_for_each(|row| {
            reader.add(user(row), names.is_valid(row).then(|| Key::Name(names.value(row))), weight(row))
        })
    }
}

fn read_csv(path: &Path, local: &Path, features: &FeatureTable) -> Result<Read> {
    let not_csv = |cause: csv::Error| {
        let problem = "is damaged or not CSV: a line of names, then one of as many values for each event";
        Error::input(path, problem).because(cause)
    };
    let bytes = std::fs::metadata(local).map_err(Error::io("read", path))?.len();
    let mut lines = csv::Reader::from_path(local).map_err(not_csv)?;
    let names = lines.headers().map_err(not_csv)?.clone();
    let names: Vec<&str> = names.iter().collect();
    let mut reader = Reader::new(path, features, &names)?;
    let place = |name: &str| names.iter().position(|it| *it == name);
    let (user, weight) = (place(USER).expect("it was checked"), place(WEIGHT));
    let photo = place(reader.photos.column()).expect("it is one of them");
    let progress = Progress::new(TASK, bytes, "bytes");
    let (mut line, mut done) = (StringRecord::new(), 0);
    while lines.read_record(&mut line).map_err(not_csv)? {
        let weight = weight.map_or(Ok(1.0), |place| parse_weight(&reader, &line[place]))?;
        let key = parse_key(&reader, &line[photo])?;
        reader.add(Some(&line[user]), key, Some(weight))?;
        if reader.read.rows.is_multiple_of(BATCH_ROWS) {
            stop::check()?;
            let read = lines.position().byte();
            progress.inc(read - done);
            done = read;
        }
    }
    Ok(reader.read)
}

fn parse_weight(reader: &Reader, text: &str) -> Result<f64> {
    text.trim().parse().map_err(|_| reader.bad(format!("the weight is '{text}'; use a number above 0")))
}

/// The photo that a field names; `None` if it is empty.
fn parse_key<'a>(reader: &Reader, text: &'a str) -> Result<Option<Key<'a>>> {
    if text.is_empty() {
        return Ok(None);
    }
    if !reader.photos.by_number() {
        return Ok(Some(Key::Name(text)));
    }
    let id = text.trim().parse().map_err(|_| reader.bad(format!("the photo_id is '{text}'; use whole numbers")))?;
    Ok(Some(Key::Id(id)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, LargeStringArray, UInt64Array};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn of_csv(text: &str) -> Result<Read> {
        let file = tempfile::Builder::new().suffix(".csv").tempfile().expect("a file");
        std::fs::write(file.path(), text).expect("it is written");
        read(file.path(), &FeatureTable::of_three())
    }

    fn of_parquet(columns: Vec<(&str, ArrayRef)>) -> Result<Read> {
        let rows = RecordBatch::try_from_iter(columns).expect("equal lengths");
        let file = tempfile::Builder::new().suffix(".parquet").tempfile().expect("a file");
        let written = file.as_file().try_clone().expect("it is open");
        let mut writer = ArrowWriter::try_new(written, rows.schema(), None).expect("a writer");
        writer.write(&rows).expect("it is written");
        writer.close().expect("it is closed");
        read(file.path(), &FeatureTable::of_three())
    }

    fn told(read: &Read) -> Vec<(u32, f32)> {
        read.events.iter().map(|it| (it.row, it.weight)).collect()
    }

    #[test]
    fn csv_and_parquet_say_the_same() -> Result<()> {
        let csv = of_csv("weight,user,photo_id\n1,7,10\n2.5,8,12\n1,7,99\n1e-3,7,11\n")?;
        let parquet = of_parquet(vec![
            ("photo_id", Arc::new(UInt64Array::from(vec![10, 12, u64::MAX, 11]))),
            ("user", Arc::new(Int64Array::from(vec![7, 8, 7, 7]))),
            ("weight", Arc::new(Float64Array::from(vec![1.0, 2.5, 1.0, 1e-3]))),
        ])?;
        assert_eq!(csv.events, parquet.events);
        assert_eq!(told(&csv), [(0, 1.0), (2, 2.5), (1, 1e-3)]);
        assert_eq!((csv.rows, csv.unknown, csv.first_unknown.as_deref()), (4, 1, Some("99")));
        assert_eq!((parquet.rows, parquet.unknown), (4, 1));
        Ok(())
    }

    #[test]
    fn photos_go_by_the_most_exact_column() -> Result<()> {
        assert_eq!(told(&of_csv("user,file_name,path\nu,b,y/b\nu,?,x/a\n")?), [(2, 1.0), (0, 1.0)]);
        assert_eq!(told(&of_csv("user,file_name\nu,a\nu,c\n")?), [(0, 1.0)]);
        let names = of_parquet(vec![
            ("user", Arc::new(LargeStringArray::from(vec!["ü", "'; --"]))),
            ("path", Arc::new(StringArray::from(vec!["x/b", "x/a"]))),
        ])?;
        assert_eq!(told(&names), [(1, 1.0), (0, 1.0)]);
        assert_eq!(of_csv("user,photo_id\n")?.rows, 0);
        Ok(())
    }

    #[test]
    fn a_bad_row_is_named() {
        for (text, named) in [
            ("user,photo_id,weight\nu,10,1\nu,10,-1\n", "row 2: the weight is -1; use"),
            ("user,photo_id,weight\nu,10,0\n", "row 1: the weight is 0"),
            ("user,photo_id,weight\nu,10,nan\n", "row 1: the weight is NaN"),
            ("user,photo_id,weight\nu,10,inf\n", "row 1: the weight is inf"),
            ("user,photo_id,weight\nu,10,much\n", "row 1: the weight is 'much'"),
            ("user,photo_id,weight\nu,10,\n", "row 1: the weight is ''"),
            ("user,photo_id\n,10\n", "row 1: the user is missing"),
            ("user,photo_id\nu,\n", "row 1: the photo_id is missing"),
            ("user,photo_id\nu,ten\n", "row 1: the photo_id is 'ten'"),
            ("user,file_name\nu,b\n", "row 1: the file_name 'b' is that of several photos"),
            ("user,photo\nu,b\n", "has no column photo_id, path, file_name; it has user, photo"),
            ("customer,photo_id\nu,10\n", "has no column 'user'"),
            ("user,user,photo_id\nu,v,10\n", "has the column 'user' twice"),
            ("user,photo_id\nu,10,1\n", "is damaged or not CSV"),
            ("", "has no column 'user'"),
        ] {
            let error = of_csv(text).expect_err(text);
            assert!(error.to_string().contains(named), "{error}");
        }
    }

    #[test]
    fn nulls_and_other_types_are_named() {
        let users = || ("user", Arc::new(StringArray::from(vec!["u", "v"])) as ArrayRef);
        let ids = || ("photo_id", Arc::new(UInt64Array::from(vec![10, 11])) as ArrayRef);
        for (columns, named) in [
            (
                vec![users(), ("photo_id", Arc::new(UInt64Array::from(vec![Some(10), None])))],
                "row 2: the photo_id is missing",
            ),
            (vec![ids(), ("user", Arc::new(StringArray::from(vec![None, Some("u")])))], "row 1: the user is missing"),
            (
                vec![users(), ids(), ("weight", Arc::new(Float64Array::from(vec![Some(1.0), None])))],
                "row 2: the weight is missing",
            ),
            (vec![users(), ("photo_id", Arc::new(Float64Array::from(vec![1.0, 2.0])))], "'photo_id' of whole numbers"),
            (vec![users(), ids(), ("weight", Arc::new(StringArray::from(vec!["1", "2"])))], "'weight' of numbers"),
            (vec![("user", Arc::new(Float64Array::from(vec![1.0, 2.0]))), ids()], "'user' of text or whole numbers"),
        ] {
            let error = of_parquet(columns).expect_err(named);
            assert!(error.to_string().contains(named), "{error}");
        }
        let error = read(Path::new("events.txt"), &FeatureTable::of_three()).expect_err("neither");
        assert!(error.to_string().contains("events.txt"), "{error}");
    }
}
