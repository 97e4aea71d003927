//! What a shop knows of its photos: a table of the user's own (prices, brands, stock), joined to a feature table, and
//! conditions on it.
//!
//! In: a Parquet or CSV file with one row for a photo, and the feature table. Out: its columns in the order of the feature
//! table's rows, and which rows fulfil a condition.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::datatypes::Int64Type;

use crate::error::{Error, Result};
use crate::features::{FeatureTable, rows};
use crate::table;

mod column;
mod condition;
mod evaluate;
mod read;

pub use column::{Column, Kind};
pub use condition::Condition;
use read::Source;

/// Rows of the feature table that are read at once.
const BATCH_ROWS: usize = 8192;

/// The column that rows are joined to photos by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `photo_id`, integers.
    PhotoId,
    /// `path`, text.
    Path,
    /// `file_name`, text: a row is joined to each photo of that name.
    FileName,
}

impl Key {
    /// The most exact first; the first that is there is used.
    const ALL: [Self; 3] = [Self::PhotoId, Self::Path, Self::FileName];

    /// The name of the column, in the file as in the feature table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PhotoId => "photo_id",
            Self::Path => "path",
            Self::FileName => "file_name",
        }
    }
}

/// A table of the user's own, joined to the rows of a feature table.
#[derive(Debug)]
pub struct Metadata {
    /// The file.
    pub path: PathBuf,
    /// What it was joined by.
    pub key: Key,
    /// Names of all columns of the file, in its order.
    pub names: Vec<String>,
    /// The columns that were asked for, without the key.
    pub columns: Vec<Column>,
    /// Photos that have a row.
    pub photos_with_row: u64,
    /// Photos without a row: all their values are null.
    pub photos_without_row: u64,
    /// Rows without a photo, those without a key included.
    pub rows_without_photo: u64,
}

impl Metadata {
    /// Reads all columns of `path`, a `.parquet` or `.csv` file, and joins them to the rows of `features` by the first of
    /// the columns `photo_id`, `path` and `file_name` that is there. In a CSV file, an empty field is null and the types
    /// are those that all values of a column have.
    ///
    /// # Errors
    /// [`Error::Input`] if the file is neither, has no such column, has a column twice, or has a key twice (by name).
    pub fn open(path: &Path, features: &FeatureTable) -> Result<Self> {
        Self::open_columns(path, features, |_| true)
    }

    /// As [`Metadata::open`], with only the columns that `wanted` accepts.
    ///
    /// # Errors
    /// As [`Metadata::open`].
    pub fn open_columns(path: &Path, features: &FeatureTable, wanted: impl Fn(&str) -> bool) -> Result<Self> {
        let source = Source::open(path)?;
        let names = source.names();
        let Some(key) = Key::ALL.into_iter().find(|key| names.iter().any(|it| it == key.name())) else {
            let keys = Key::ALL.map(Key::name).join(", ");
            let problem = format!("has none of the columns {keys} to join it by; it has {}", names.join(", "));
            return Err(Error::input(path, problem));
        };
        let columns = source.read(|name| name == key.name() || wanted(name))?;
        let of_key = columns.iter().find(|it| it.name == key.name()).expect("the key was asked for");
        let rows = rows_by_key(path, key, of_key, features)?;
        let taken = UInt32Array::from(rows.clone());
        let values = columns.iter().filter(|it| it.name != key.name());
        let aligned = values.map(|it| read::taken(it, &taken));
        let mut used: Vec<u32> = rows.iter().flatten().copied().collect();
        let photos_with_row = used.len() as u64;
        used.sort_unstable();
        used.dedup();
        let joined = Self {
            path: path.to_owned(),
            key,
            columns: aligned.collect(),
            photos_with_row,
            photos_without_row: rows.len() as u64 - photos_with_row,
            rows_without_photo: (of_key.values.len() - used.len()) as u64,
            names,
        };
        tracing::info!("{joined}");
        Ok(joined)
    }

    /// The column of that name, if it was asked for.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|it| it.name == name)
    }
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let photos = self.photos_with_row + self.photos_without_row;
        let (path, key) = (self.path.display(), self.key.name());
        write!(f, "{path}: joined by '{key}'; {} of {photos} photos have a row", self.photos_with_row)?;
        write!(f, ", {} rows have no photo", self.rows_without_photo)
    }
}

/// For each photo, its row of the file.
fn rows_by_key(path: &Path, key: Key, column: &Column, features: &FeatureTable) -> Result<Vec<Option<u32>>> {
    match (key, &column.kind) {
        (Key::PhotoId, Kind::Integer) => {
            let values = column.values.as_primitive::<Int64Type>();
            let rows = unique(path, key, values.iter())?;
            Ok(features.photo_ids.iter().map(|&id| rows.get(&i64::from(id)).copied()).collect())
        }
        (Key::Path | Key::FileName, Kind::Text) => {
            let rows = unique(path, key, column.values.as_string::<i32>().iter())?;
            let names = if key == Key::Path { &features.paths } else { &features.file_names };
            Ok(names.iter().map(|name| rows.get(name.as_str()).copied()).collect())
        }
        (_, Kind::Empty) => Ok(vec![None; features.len()]),
        (_, kind) => {
            let wanted = if key == Key::PhotoId { "whole numbers" } else { "text" };
            Err(Error::input(path, format!("has {kind} in the column '{}'; it joins by {wanted}", key.name())))
        }
    }
}

/// The row of each key.
fn unique<K: Eq + std::hash::Hash + Copy + fmt::Debug>(
    path: &Path,
    key: Key,
    keys: impl Iterator<Item = Option<K>>,
) -> Result<HashMap<K, u32>> {
    let mut rows = HashMap::new();
    for (row, value) in (0..).zip(keys) {
        let Some(value) = value else { continue };
        if let Some(first) = rows.insert(value, row) {
            let (name, first, second) = (key.name(), first + 1, row + 1);
            let problem = format!("has {name} {value:?} twice, in rows {first} and {second}; keys must be unique");
            return Err(Error::input(path, problem));
        }
    }
    Ok(rows)
}

/// Which rows of `features`, the table in `folder`, fulfil `condition` on the columns of `metadata` and of the table itself
/// (a column of `metadata` hides one of the same name). A row for which the condition is null does not.
///
/// # Errors
/// [`Error::Config`] naming the setting, the column or expression and its position; as [`Metadata::open`].
pub fn fulfilling(
    condition: &Condition,
    metadata: Option<&Metadata>,
    folder: &Path,
    features: &FeatureTable,
) -> Result<Vec<bool>> {
    let own = FeatureColumns::open(folder)?;
    let names = metadata.map_or(&[][..], |it| &it.names);
    condition.check_names(names, own.names())?;
    let key = metadata.map(|it| it.key.name());
    let is_own = |name: &&str| Some(*name) == key || !names.iter().any(|it| it == name);
    let mut columns = own.read(&condition.columns().filter(is_own).collect::<Vec<_>>())?;
    columns.extend(metadata.into_iter().flat_map(|it| it.columns.iter().cloned()));
    condition.fulfilled(&columns, features.len())
}

/// Which rows of `features`, the table in `folder`, are chosen: those that fulfil `condition`, of which the columns are read;
/// `None` without one. A table at `metadata` is joined in any case, and it is said how many photos it has.
///
/// # Errors
/// As [`Metadata::open`] and [`fulfilling`].
pub fn chosen(
    metadata: Option<&Path>,
    condition: Option<&Condition>,
    folder: &Path,
    features: &FeatureTable,
) -> Result<Option<Vec<bool>>> {
    let is_wanted = |name: &str| condition.is_some_and(|it| it.columns().any(|column| column == name));
    let open = |path| Metadata::open_columns(path, features, is_wanted);
    let metadata = metadata.map(open).transpose()?;
    condition.map(|it| fulfilling(it, metadata.as_ref(), folder, features)).transpose()
}

/// The columns of a feature table, read by name.
struct FeatureColumns {
    parts: Vec<PathBuf>,
    names: Vec<String>,
}

impl FeatureColumns {
    fn open(folder: &Path) -> Result<Self> {
        let parts = table::parts(folder)?;
        let schema = table::Footer::read(&parts[0])?.schema;
        Ok(Self { parts, names: schema.fields().iter().map(|it| it.name().clone()).collect() })
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn read(&self, wanted: &[&str]) -> Result<Vec<Column>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut read: Vec<Vec<ArrayRef>> = vec![Vec::new(); wanted.len()];
        for part in &self.parts {
            for batch in table::read_table(part, rows::TABLE, wanted, BATCH_ROWS)? {
                let batch = batch?;
                let named = wanted.iter().map(|name| batch.column_by_name(name).expect("it was asked for").clone());
                read.iter_mut().zip(named).for_each(|(column, values)| column.push(values));
            }
        }
        let joined = wanted.iter().zip(read).map(|(name, parts)| read::joined(name, &parts));
        Ok(joined.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> Result<Metadata> {
        let file = tempfile::Builder::new().suffix(".csv").tempfile().expect("a file");
        std::fs::write(file.path(), text).expect("it is written");
        Metadata::open(file.path(), &FeatureTable::of_three())
    }

    fn numbers(metadata: &Metadata, name: &str) -> Vec<Option<i64>> {
        metadata.column(name).expect("the column").values.as_primitive::<Int64Type>().iter().collect()
    }

    #[test]
    fn rows_are_joined_by_the_most_exact_column() -> Result<()> {
        let by_id = joined("file_name,photo_id,price\nz,12,3\nz,10,1\nz,99,9\n")?;
        assert_eq!((by_id.key, numbers(&by_id, "price")), (Key::PhotoId, vec![Some(1), None, Some(3)]));
        let counts = (by_id.photos_with_row, by_id.photos_without_row, by_id.rows_without_photo);
        assert_eq!(counts, (2, 1, 1));
        let by_path = joined("file_name,path,price\nz,y/b,3\nz,x/a,1\n")?;
        assert_eq!((by_path.key, numbers(&by_path, "price")), (Key::Path, vec![Some(1), None, Some(3)]));
        let by_name = joined("file_name,price\nb,2\nq,1\n")?;
        assert_eq!((by_name.key, numbers(&by_name, "price")), (Key::FileName, vec![None, Some(2), Some(2)]));
        assert_eq!((by_name.photos_with_row, by_name.rows_without_photo), (2, 1));
        Ok(())
    }

    #[test]
    fn what_cannot_be_joined_is_named() {
        for (text, named) in [
            ("photo_id,price\n10,1\n11,2\n10,3\n", "photo_id 10 twice, in rows 1 and 3"),
            ("file_name,price\n\"a\"\"b\",1\n\"a\"\"b\",2\n", "file_name \"a\\\"b\" twice"),
            ("id,price\n1,2\n", "has none of the columns photo_id, path, file_name"),
            ("photo_id,price\nten,2\n", "has text in the column 'photo_id'"),
            ("photo_id,price,price\n10,2,3\n", "has the column 'price' twice"),
            ("photo_id,price\n10,2,3\n", "is damaged or not CSV"),
            ("", "none of the columns"),
        ] {
            let error = joined(text).expect_err(text);
            assert!(error.to_string().contains(named), "{error}");
            assert_eq!(error.exit_code(), 1);
        }
    }

    #[test]
    fn values_that_are_not_there_are_null() -> Result<()> {
        let it = joined("photo_id,price,brand,empty\n10,nan,,\n11,-0.0,x,\n12,2.5,,\n")?;
        let kinds: Vec<_> = it.columns.iter().map(|it| it.kind.clone()).collect();
        assert_eq!(kinds, [Kind::Number, Kind::Text, Kind::Empty]);
        let price = it.column("price").expect("it").values.as_primitive::<arrow::datatypes::Float64Type>().clone();
        assert_eq!(price.iter().collect::<Vec<_>>(), [None, Some(0.0), Some(2.5)]);
        assert!(price.value(1).is_sign_positive());
        assert_eq!(it.column("brand").expect("it").values.null_count(), 2);
        Ok(())
    }
}
