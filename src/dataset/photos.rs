//! `photos.parquet`: one photo per row, with its encoded file and its labels by superpixel.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, ListArray, PrimitiveArray, RecordBatch, StringArray, StructArray, UInt8Array,
    UInt16Array, UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Fields, Schema, SchemaRef, UInt8Type, UInt16Type};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::labels::LabelSet;
use crate::photo::{self, Photo};
use crate::table::{self, TableReader, column, read_table};

/// The part of the data set that a photo belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For training.
    Train,
    /// For validation during training.
    Validation,
    /// For the final test, used once.
    Test,
}

impl Split {
    /// All parts, in the order of the file.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// The name in tables and settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    /// The part with the given name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|split| split.name() == name)
    }
}

/// One row of `photos.parquet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoRecord {
    /// Index of the photo in the source's order.
    pub photo_id: u32,
    /// File name in the source.
    pub file_name: String,
    /// Part of the data set.
    pub split: Split,
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
    /// The encoded file as it was found.
    pub encoded: Vec<u8>,
    /// `[height, width]`, 0-based superpixel numbers.
    pub superpixels: Vec<u16>,
    /// Category of each superpixel.
    pub superpixel_category: Vec<u8>,
    /// Colour of each superpixel; `None` if the source has no colours.
    pub superpixel_color: Option<Vec<u8>>,
}

impl PhotoRecord {
    /// The decoded, upright photo; `source` is named in the error if it is invalid.
    ///
    /// # Errors
    /// [`Error::Input`] if the photo does not decode, or its labels do not have its size.
    pub fn decode(&self, source: &Path) -> Result<Photo> {
        decode(source, &self.file_name, (self.width_px, self.height_px), &self.encoded)
    }

    /// Category of each pixel, `[height, width]`.
    #[must_use]
    pub fn category_map(&self) -> Vec<u8> {
        self.superpixels.iter().map(|&s| self.superpixel_category[usize::from(s)]).collect()
    }

    /// Colour of each pixel, `[height, width]`; `None` if the source has no colours.
    #[must_use]
    pub fn color_map(&self) -> Option<Vec<u8>> {
        let colors = self.superpixel_color.as_ref()?;
        Some(self.superpixels.iter().map(|&s| colors[usize::from(s)]).collect())
    }
}

/// One row of `photos.parquet` without its photo and its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoEntry {
    /// Index of the photo in the source's order.
    pub photo_id: u32,
    /// File name in the source.
    pub file_name: String,
    /// Part of the data set.
    pub split: Split,
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
}

/// One row of `photos.parquet` without its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoFile {
    /// Id, name and size of the photo.
    pub entry: PhotoEntry,
    /// The encoded file as it was found.
    pub encoded: Vec<u8>,
}

/// What is read of a row of `photos.parquet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// The photo alone.
    File(PhotoFile),
    /// With its labels.
    Labelled(Box<PhotoRecord>),
}

impl Row {
    /// Index of the photo in the source's order.
    #[must_use]
    pub fn photo_id(&self) -> u32 {
        match self {
            Self::File(file) => file.entry.photo_id,
            Self::Labelled(record) => record.photo_id,
        }
    }

    /// The encoded file as it was found.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        match self {
            Self::File(file) => &file.encoded,
            Self::Labelled(record) => &record.encoded,
        }
    }
}

impl PhotoFile {
    /// As [`PhotoRecord::decode`].
    ///
    /// # Errors
    /// As there.
    pub fn decode(&self, source: &Path) -> Result<Photo> {
        let PhotoEntry { file_name, width_px, height_px, .. } = &self.entry;
        decode(source, file_name, (*width_px, *height_px), &self.encoded)
    }
}

fn decode(source: &Path, file_name: &str, size: (u32, u32), encoded: &[u8]) -> Result<Photo> {
    let problem = |what: String| Error::input(source, format!("photo '{file_name}': {what}; convert again"));
    let photo = photo::decode(encoded).map_err(|bad| problem(format!("{} ({})", bad.detail, bad.reason)))?;
    if photo.size() != size {
        return Err(problem(format!(
            "its labels have {} x {} pixels, the upright photo has {} x {}",
            size.0, size.1, photo.width_px, photo.height_px
        )));
    }
    Ok(photo)
}

/// File name of the table.
pub const FILE: &str = "photos.parquet";
/// Name of the table.
pub const TABLE: &str = "photos";
/// Rows per row group, which a reader holds in memory at once: about 20 MB.
pub const ROW_GROUP_ROWS: usize = 32;
/// All columns, in order.
pub const COLUMNS: [&str; 9] = [
    "photo_id",
    "file_name",
    "split",
    "width_px",
    "height_px",
    "photo",
    "superpixels",
    "superpixel_category",
    "superpixel_color",
];
/// Those of an entry and of a file.
const ENTRY_COLUMNS: &[&str] = COLUMNS.split_at(5).0;
const FILE_COLUMNS: &[&str] = COLUMNS.split_at(6).0;
/// Tells Hugging Face `datasets` that the column `photo` contains images.
const HUGGING_FACE: (&str, &str) = ("huggingface", r#"{"info": {"features": {"photo": {"_type": "Image"}}}}"#);

/// The schema of the table.
#[must_use]
pub fn schema() -> SchemaRef {
    let list = |name, item, nullable| {
        let item = Arc::new(Field::new("element", item, false));
        Field::new(name, DataType::List(item), nullable)
    };
    let schema = table::schema(
        TABLE,
        vec![
            Field::new("photo_id", DataType::UInt32, false),
            Field::new("file_name", DataType::Utf8, false),
            Field::new("split", DataType::Utf8, false),
            Field::new("width_px", DataType::UInt32, false),
            Field::new("height_px", DataType::UInt32, false),
            // Nullable, as the type in `datasets` is; never null here.
            Field::new("photo", DataType::Struct(photo_fields()), true),
            list("superpixels", DataType::UInt16, false),
            list("superpixel_category", DataType::UInt8, false),
            list("superpixel_color", DataType::UInt8, true),
        ],
    );
    let mut metadata: HashMap<_, _> = schema.metadata().clone().into();
    metadata.insert(HUGGING_FACE.0.to_owned(), HUGGING_FACE.1.to_owned());
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata))
}

fn photo_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

/// Converts records to rows.
#[must_use]
pub fn to_rows(records: &[PhotoRecord]) -> RecordBatch {
    let numbers = |of: fn(&PhotoRecord) -> u32| Arc::new(UInt32Array::from_iter_values(records.iter().map(of)));
    let names = Arc::new(StringArray::from_iter_values(records.iter().map(|r| &r.file_name)));
    let photo = StructArray::new(
        photo_fields(),
        vec![Arc::new(BinaryArray::from_iter_values(records.iter().map(|r| &r.encoded))), names.clone()],
        None,
    );
    let columns: Vec<ArrayRef> = vec![
        numbers(|r| r.photo_id),
        names,
        Arc::new(StringArray::from_iter_values(records.iter().map(|r| r.split.name()))),
        numbers(|r| r.width_px),
        numbers(|r| r.height_px),
        Arc::new(photo),
        lists::<UInt16Type>(records.iter().map(|r| Some(r.superpixels.as_slice()))),
        lists::<UInt8Type>(records.iter().map(|r| Some(r.superpixel_category.as_slice()))),
        lists::<UInt8Type>(records.iter().map(|r| r.superpixel_color.as_deref())),
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns match the schema above")
}

fn lists<'a, T: ArrowPrimitiveType>(rows: impl Iterator<Item = Option<&'a [T::Native]>> + Clone) -> ArrayRef {
    let offsets = OffsetBuffer::from_lengths(rows.clone().map(|row| row.map_or(0, <[_]>::len)));
    let valid: NullBuffer = rows.clone().map(|row| row.is_some()).collect();
    let mut values = Vec::with_capacity(rows.clone().flatten().map(<[_]>::len).sum());
    rows.flatten().for_each(|row| values.extend_from_slice(row));
    let values = PrimitiveArray::<T>::from_iter_values(values);
    let item = Arc::new(Field::new("element", T::DATA_TYPE, false));
    let valid = (valid.null_count() > 0).then_some(valid);
    Arc::new(ListArray::new(item, offsets, Arc::new(values), valid))
}

/// The same rows assigned to other splits.
#[must_use]
pub fn with_splits(rows: &RecordBatch, splits: &[Split]) -> RecordBatch {
    let mut columns = rows.columns().to_vec();
    columns[2] = Arc::new(StringArray::from_iter_values(splits.iter().map(|split| split.name())));
    RecordBatch::try_new(schema(), columns).expect("only the values of one column change")
}

/// Streams the photos of the table at `path` with labels of `labels`, only those of `split` if it is given.
///
/// # Errors
/// As [`read_table`]; a damaged row is an error item.
pub fn read(
    path: &Path,
    split: Option<Split>,
    labels: &LabelSet,
) -> Result<Box<dyn Iterator<Item = Result<PhotoRecord>> + Send>> {
    let counts = [labels.category_count(), labels.color_count()];
    let batches = read_table(path, TABLE, &COLUMNS, ROW_GROUP_ROWS)?;
    Ok(stream(path, batches, move |path, rows| from_rows(path, rows, split, counts)))
}

/// The rows `rows` (ascending) of the table at `path`, with labels of `labels`.
///
/// # Errors
/// As [`read_table`], also for a damaged row.
pub fn read_rows(path: &Path, rows: &[usize], labels: &LabelSet) -> Result<Vec<PhotoRecord>> {
    let counts = [labels.category_count(), labels.color_count()];
    let batches = table::read_rows(path, rows, (TABLE, &COLUMNS), ROW_GROUP_ROWS)?;
    stream(path, batches, move |path, rows| from_rows(path, rows, None, counts)).collect()
}

/// The same without their labels.
///
/// # Errors
/// As there.
pub fn read_files_of(path: &Path, rows: &[usize]) -> Result<Vec<PhotoFile>> {
    stream(path, table::read_rows(path, rows, (TABLE, FILE_COLUMNS), ROW_GROUP_ROWS)?, files).collect()
}

/// Streams the photos of the table at `path` without their labels, which are most of the work of reading it.
///
/// # Errors
/// As [`read_table`]; a damaged row is an error item.
pub fn read_files(path: &Path) -> Result<Box<dyn Iterator<Item = Result<PhotoFile>> + Send>> {
    Ok(stream(path, read_table(path, TABLE, FILE_COLUMNS, ROW_GROUP_ROWS)?, files))
}

fn files(path: &Path, rows: &RecordBatch) -> Result<Vec<PhotoFile>> {
    let file = |row| {
        let entry = entry(path, rows, row)?;
        let encoded = encoded(path, rows, (row, &entry))?;
        Ok(PhotoFile { entry, encoded })
    };
    (0..rows.num_rows()).map(file).collect()
}

/// What `parse` makes of the rows.
fn stream<T: Send + 'static>(
    path: &Path,
    batches: TableReader,
    parse: impl Fn(&Path, &RecordBatch) -> Result<Vec<T>> + Send + 'static,
) -> Box<dyn Iterator<Item = Result<T>> + Send> {
    let path = path.to_owned();
    Box::new(batches.flat_map(move |rows| match rows.and_then(|rows| parse(&path, &rows)) {
        Ok(parsed) => parsed.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }))
}

/// The median share of a photo's apparel pixels that each category of `labels` has, over the train photos of the table at
/// `path` in which it occurs, rounded to 4 digits; 0 for a category that occurs in none.
///
/// # Errors
/// As [`read_table`].
pub fn usual_shares(path: &Path, labels: &LabelSet) -> Result<Vec<f64>> {
    let mut shares = vec![Vec::new(); labels.category_count()];
    let columns = ["split", "superpixels", "superpixel_category"];
    for rows in read_table(path, TABLE, &columns, ROW_GROUP_ROWS)? {
        let rows = rows?;
        let splits: &StringArray = column(path, &rows, "split")?;
        for row in (0..rows.num_rows()).filter(|&row| splits.value(row) == Split::Train.name()) {
            let categories = values::<UInt8Array>(path, &rows, "superpixel_category", row)?;
            let mut pixels = vec![0_u64; labels.category_count()];
            for &superpixel in values::<UInt16Array>(path, &rows, "superpixels", row)?.values() {
                pixels[usize::from(categories.value(usize::from(superpixel)))] += 1;
            }
            let worn: u64 = labels.apparel_categories().map(|it| pixels[usize::from(it)]).sum();
            for category in labels.apparel_categories().map(usize::from).filter(|&it| pixels[it] > 0) {
                shares[category].push(pixels[category] as f64 / worn as f64);
            }
        }
    }
    let median = |mut of: Vec<f64>| {
        of.sort_by(f64::total_cmp);
        let middle = of.len() / 2;
        let median = if of.is_empty() || of.len() % 2 == 1 {
            of.get(middle).copied()
        } else {
            Some(f64::midpoint(of[middle - 1], of[middle]))
        };
        median.map_or(0.0, |share| (share * 1e4).round() / 1e4)
    };
    Ok(shares.into_iter().map(median).collect())
}

/// Reads the table without its pixels.
///
/// # Errors
/// As [`read_table`].
pub fn read_index(path: &Path) -> Result<Vec<PhotoEntry>> {
    let mut entries = Vec::new();
    for rows in read_table(path, TABLE, ENTRY_COLUMNS, 4096)? {
        let rows = rows?;
        for row in 0..rows.num_rows() {
            entries.push(entry(path, &rows, row)?);
        }
    }
    Ok(entries)
}

fn entry(path: &Path, rows: &RecordBatch, row: usize) -> Result<PhotoEntry> {
    let number = |name| column::<UInt32Array>(path, rows, name).map(|values| values.value(row));
    let split = column::<StringArray>(path, rows, "split")?.value(row);
    Ok(PhotoEntry {
        photo_id: number("photo_id")?,
        file_name: column::<StringArray>(path, rows, "file_name")?.value(row).to_owned(),
        split: Split::from_name(split)
            .ok_or_else(|| Error::input(path, format!("split '{split}' is not one of train, validation and test")))?,
        width_px: number("width_px")?,
        height_px: number("height_px")?,
    })
}

fn from_rows(path: &Path, rows: &RecordBatch, split: Option<Split>, counts: [usize; 2]) -> Result<Vec<PhotoRecord>> {
    let mut records = Vec::new();
    for row in 0..rows.num_rows() {
        let entry = entry(path, rows, row)?;
        if split.is_none_or(|wanted| wanted == entry.split) {
            records.push(record(path, rows, (row, &entry), counts)?);
        }
    }
    Ok(records)
}

fn record(
    path: &Path,
    rows: &RecordBatch,
    (row, entry): (usize, &PhotoEntry),
    [categories, colors]: [usize; 2],
) -> Result<PhotoRecord> {
    let record = PhotoRecord {
        photo_id: entry.photo_id,
        split: entry.split,
        width_px: entry.width_px,
        height_px: entry.height_px,
        encoded: encoded(path, rows, (row, entry))?,
        superpixels: values::<UInt16Array>(path, rows, "superpixels", row)?.values().to_vec(),
        superpixel_category: values::<UInt8Array>(path, rows, "superpixel_category", row)?.values().to_vec(),
        superpixel_color: if column::<ListArray>(path, rows, "superpixel_color")?.is_null(row) {
            None
        } else {
            Some(values::<UInt8Array>(path, rows, "superpixel_color", row)?.values().to_vec())
        },
        file_name: entry.file_name.clone(),
    };
    // Invariants that the maps of `PhotoRecord` rely on.
    let labels = record.superpixel_category.len().min(record.superpixel_color.as_ref().map_or(usize::MAX, Vec::len));
    let below = |labels: &[u8], count: usize| labels.iter().all(|&label| usize::from(label) < count);
    let whole = record.superpixels.len() == record.width_px as usize * record.height_px as usize
        && record.superpixels.iter().all(|&number| usize::from(number) < labels)
        && below(&record.superpixel_category, categories)
        && record.superpixel_color.as_ref().is_none_or(|of| below(of, colors));
    if whole { Ok(record) } else { Err(damaged(path, entry, "its superpixels, labels and size don't fit together")) }
}

/// The encoded file of a row.
fn encoded(path: &Path, rows: &RecordBatch, (row, entry): (usize, &PhotoEntry)) -> Result<Vec<u8>> {
    let photo: &StructArray = column(path, rows, "photo")?;
    let bytes = photo.column_by_name("bytes").and_then(|array| array.as_any().downcast_ref::<BinaryArray>());
    Ok(bytes.ok_or_else(|| damaged(path, entry, "has no photo"))?.value(row).to_vec())
}

fn damaged(path: &Path, entry: &PhotoEntry, what: &str) -> Error {
    Error::input(path, format!("{}: {what}; run convert again", entry.file_name))
}

fn values<A: Array + Clone + 'static>(path: &Path, rows: &RecordBatch, name: &str, row: usize) -> Result<A> {
    let list: &ListArray = column(path, rows, name)?;
    let values = list.value(row);
    values.as_any().downcast_ref::<A>().cloned().ok_or_else(|| Error::Schema {
        path: path.to_owned(),
        expected: format!("a list in column '{name}' as {}", std::any::type_name::<A>()),
        found: list.data_type().to_string(),
    })
}
