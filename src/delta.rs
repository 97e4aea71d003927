//! A published table as a Delta table: `OUTPUT.delta` beside the folder `OUTPUT`, on disk or in an object store.
//!
//! ```text
//! features.delta/_delta_log/00000000000000000007.json   one commit: what it adds and removes
//! features.delta/part-<checksum>.parquet                a part of the folder, in the types that Delta has
//! ```
//!
//! The log is that of the Delta Transaction Log Protocol (github.com/delta-io/delta/blob/master/PROTOCOL.md), reader version 1
//! and writer version 2: every reader has these. A commit is one file that must not be there yet, so of two writers one
//! wins. Parts are named by the checksum of what they were made from: one that did not change stays, and the next
//! run after a killed one finds what was uploaded. Delta knows no unsigned numbers and no lists of fixed length: u32 becomes long, u8 and
//! u16 integer, and an embedding an array. A u64, which is a hash, becomes the long with the same bits: XOR and counting bits
//! give the same with both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt64Type};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::stage::Summary;
use crate::store::{self, Location, Only};

/// Where the commits are.
const LOG: &str = "_delta_log";
/// The protocol that is written, and the newest that is added to.
const READER_VERSION: u64 = 1;
const WRITER_VERSION: u64 = 2;
/// Hexadecimal digits of a checksum in a part's name.
const DIGITS: usize = 32;
/// Rows that are converted at a time.
const BATCH_ROWS: usize = 8192;

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The version of the Delta table that it made; the one that was there if nothing changed.
    pub version: u64,
    /// Number of parts added, removed, and left as they were.
    pub added: usize,
    /// As above.
    pub removed: usize,
    /// As above.
    pub kept: usize,
}

/// Where the Delta table of a folder lies.
#[must_use]
pub fn place_of(output: &Path) -> PathBuf {
    output.with_added_extension("delta")
}

/// Makes the Delta table at `place` hold the rows of the parts (those that `is_part` names) of the folder that a stage
/// published at `folder`.
///
/// # Errors
/// [`Error::Input`] if the table has other columns or types, a newer protocol, or an incomplete log; [`Error::NotNow`] if
/// another run has committed meanwhile; [`Error::Io`]. The table is then as it was.
pub fn commit(folder: &Path, place: &Path, is_part: impl Fn(&Path) -> bool) -> Result<Committed> {
    let record = Summary::read(folder)?;
    let at = if store::is_url(place) { Location::parse(place)? } else { Location::of_folder(place)? };
    let log = Log::read(&at)?;
    let parts: Vec<_> = record.files.iter().filter(|it| is_part(&it.name)).collect();
    let first = parts.first().ok_or_else(|| Error::input(folder, "has no table to commit"))?;
    let schema = delta_schema(&open(&folder.join(&first.name))?.1)?;
    let schema_text = schema_string(&schema);
    if let Some(known) = log.schema.as_ref().filter(|it| **it != schema_text) {
        return Err(Error::input(
            place,
            format!("has another schema: {}; {OTHER_TABLE}", difference(known, &schema_text)),
        ));
    }
    let wanted: BTreeMap<String, _> =
        parts.into_iter().map(|it| (format!("part-{}.parquet", &it.sha256[..DIGITS]), it)).collect();
    let new: Vec<_> = wanted.iter().filter(|(name, _)| !log.files.contains(*name)).collect();
    let gone: Vec<&String> = log.files.iter().filter(|name| !wanted.contains_key(*name)).collect();
    let committed =
        |version| Committed { version, added: new.len(), removed: gone.len(), kept: log.files.len() - gone.len() };
    if let (Some(version), true, true) = (log.version, new.is_empty(), gone.is_empty()) {
        return Ok(committed(version));
    }
    let now = chrono::Utc::now().timestamp_millis();
    let mut actions = vec![json!({ "commitInfo": {
        "timestamp": now,
        "operation": "WRITE",
        "operationParameters": { "mode": "Overwrite" },
        "engineInfo": concat!("lookbook/", env!("CARGO_PKG_VERSION")),
        "generation": record.generation,
    }})];
    if log.version.is_none() {
        actions.extend(new_table(&record.stage, &schema_text, now));
    }
    actions.extend(gone.iter().map(|name| {
        json!({ "remove": { "path": name, "deletionTimestamp": now, "dataChange": true, "partitionValues": {} } })
    }));
    for (name, file) in &new {
        let (bytes, rows) = put_part(&folder.join(&file.name), &schema, &at.join(name))?;
        let stats = json!({ "numRecords": rows }).to_string();
        actions.push(json!({ "add": {
            "path": name,
            "partitionValues": {},
            "size": bytes,
            "modificationTime": now,
            "dataChange": true,
            "stats": stats,
        }}));
    }
    let version = log.version.map_or(0, |it| it + 1);
    let lines = actions.iter().fold(String::new(), |lines, it| lines + &it.to_string() + "\n");
    match store::write(&log_file(&at, version), &Bytes::from(lines), Only::IfAbsent)? {
        Some(_) => Ok(committed(version)),
        None => Err(Error::not_now(place, "another writer committed while this run was working")),
    }
}

/// The actions that create a table.
fn new_table(name: &str, schema: &str, now: i64) -> [Value; 2] {
    let protocol = json!({ "minReaderVersion": READER_VERSION, "minWriterVersion": WRITER_VERSION });
    let metadata = json!({
        "id": Uuid::now_v7().to_string(),
        "name": name,
        "format": { "provider": "parquet", "options": {} },
        "schemaString": schema,
        "partitionColumns": [],
        "configuration": {},
        "createdTime": now,
    });
    [json!({ "protocol": protocol }), json!({ "metaData": metadata })]
}

const OTHER_TABLE: &str = "Delta tables are not migrated; move it away, and the next run makes a new one";

fn log_file(at: &Location, version: u64) -> Location {
    at.join(LOG).join(&format!("{version:020}.json"))
}

/// What a log says.
#[derive(Debug, Default)]
struct Log {
    /// The last version; `None` if there is no table.
    version: Option<u64>,
    /// The schema, as JSON.
    schema: Option<String>,
    /// Names of the parts that the last version has.
    files: BTreeSet<String>,
}

impl Log {
    fn read(at: &Location) -> Result<Self> {
        let mut log = Self::default();
        let names = store::list(&at.join(LOG))?.into_iter().map(|(name, _)| name);
        let mut versions: Vec<u64> = names.filter_map(|it| it.strip_suffix(".json")?.parse().ok()).collect();
        versions.sort_unstable();
        for (expected, version) in (0..).zip(versions) {
            let file = log_file(at, version);
            if version != expected {
                let problem = format!("comes where version {expected} should be: its log was shortened; {OTHER_TABLE}");
                return Err(Error::input(file.to_string(), problem));
            }
            let (_, _, text) =
                store::find(&file)?.ok_or_else(|| Error::input(file.to_string(), "was removed while it was read"))?;
            for line in text.split(|byte| *byte == b'\n').filter(|it| !it.trim_ascii().is_empty()) {
                let action: Value = serde_json::from_slice(line)
                    .map_err(|cause| Error::input(file.to_string(), "is damaged").because(cause))?;
                log.apply(&action, &file)?;
            }
            log.version = Some(version);
        }
        Ok(log)
    }

    fn apply(&mut self, action: &Value, file: &Location) -> Result<()> {
        if let Some(protocol) = action.get("protocol") {
            let newer = |name: &str, most: u64| protocol[name].as_u64().is_none_or(|it| it > most);
            if newer("minReaderVersion", READER_VERSION) || newer("minWriterVersion", WRITER_VERSION) {
                return Err(Error::input(
                    file.to_string(),
                    format!("asks for a newer protocol: {protocol}; {OTHER_TABLE}"),
                ));
            }
        }
        if let Some(schema) = action.pointer("/metaData/schemaString").and_then(Value::as_str) {
            self.schema = Some(schema.to_owned());
        }
        let path = |name: &str| action.get(name)?.get("path")?.as_str().map(str::to_owned);
        self.files.extend(path("add"));
        if let Some(removed) = path("remove") {
            self.files.remove(&removed);
        }
        Ok(())
    }
}

/// Opens a part; also returns its schema.
fn open(path: &Path) -> Result<(ParquetRecordBatchReaderBuilder<File>, SchemaRef)> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|cause| Error::input(path, "is not a Parquet table").because(cause))?;
    let schema = reader.schema().clone();
    Ok((reader, schema))
}

/// The schema of a table in the types that Delta has.
fn delta_schema(schema: &Schema) -> Result<SchemaRef> {
    let field = |field: &Arc<Field>| {
        let data_type = delta_type(field.data_type())
            .ok_or_else(|| Error::schema(field.name(), "a type that Delta has", field.data_type()))?;
        Ok(Field::new(field.name(), data_type, field.is_nullable()))
    };
    Ok(Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Result<Vec<_>>>()?)))
}

fn delta_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Boolean => data_type.clone(),
        DataType::FixedSizeList(item, _) | DataType::List(item) => {
            DataType::List(Arc::new(Field::new("element", delta_type(item.data_type())?, item.is_nullable())))
        }
        _ => return None,
    })
}

/// A column in the type that Delta has for it.
fn converted(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let same_bits = |column: &ArrayRef| -> ArrayRef {
        Arc::new(column.as_primitive::<UInt64Type>().unary::<_, Int64Type>(u64::cast_signed))
    };
    match column.data_type() {
        DataType::UInt64 => Ok(same_bits(column)),
        DataType::FixedSizeList(item, length) if *item.data_type() == DataType::UInt64 => {
            let (list, item) = (column.as_fixed_size_list(), item.as_ref().clone().with_data_type(DataType::Int64));
            let values = same_bits(list.values());
            let list = FixedSizeListArray::try_new(Arc::new(item), *length, values, list.nulls().cloned())?;
            cast(&list, to)
        }
        _ => cast(column, to),
    }
}

/// A schema as the log has it.
fn schema_string(schema: &Schema) -> String {
    fn name_of(data_type: &DataType) -> Value {
        match data_type {
            DataType::Int32 => json!("integer"),
            DataType::Int64 => json!("long"),
            DataType::Float32 => json!("float"),
            DataType::Float64 => json!("double"),
            DataType::Boolean => json!("boolean"),
            DataType::List(item) => json!({
                "type": "array", "elementType": name_of(item.data_type()), "containsNull": item.is_nullable()
            }),
            _ => json!("string"),
        }
    }
    let field = |field: &Arc<Field>| {
        json!({
            "name": field.name(), "type": name_of(field.data_type()), "nullable": field.is_nullable(), "metadata": {}
        })
    };
    let fields: Vec<Value> = schema.fields().iter().map(field).collect();
    json!({ "type": "struct", "fields": fields }).to_string()
}

/// What differs first between two schemas of the log.
fn difference(before: &str, now: &str) -> String {
    let fields = |text: &str| -> Vec<(String, String)> {
        let schema: Value = serde_json::from_str(text).unwrap_or_default();
        let fields = schema["fields"].as_array().cloned().unwrap_or_default();
        fields.iter().map(|it| (it["name"].as_str().unwrap_or_default().to_owned(), it["type"].to_string())).collect()
    };
    let (before, now) = (fields(before), fields(now));
    let lacks = |a: &[(String, String)], b: &[(String, String)]| {
        a.iter().find(|it| !b.iter().any(|other| other.0 == it.0)).map(|it| it.0.clone())
    };
    if let Some(name) = lacks(&now, &before) {
        return format!("it lacks the column '{name}'");
    }
    if let Some(name) = lacks(&before, &now) {
        return format!("its column '{name}' is not there any more");
    }
    let other = now.iter().zip(&before).find(|(now, before)| now != before);
    other.map_or_else(
        || "a column may be null in one and not in the other".to_owned(),
        |(now, before)| format!("its column '{}' is {}, now comes '{}' of {}", before.0, before.1, now.0, now.1),
    )
}

/// Writes a part in the types of `schema` to `at`; returns its size and number of rows.
fn put_part(part: &Path, schema: &SchemaRef, at: &Location) -> Result<(u64, u64)> {
    let (reader, found) = open(part)?;
    if delta_schema(&found)? != *schema {
        return Err(Error::input(part, "has another schema than the first part"));
    }
    let bad = |cause: &dyn std::fmt::Display| Error::input(part, format!("cannot be converted: {cause}"));
    let file = tempfile::NamedTempFile::new().map_err(Error::io("create a copy of", part))?;
    let level = ZstdLevel::try_new(1).map_err(|cause| bad(&cause))?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let mut writer =
        ArrowWriter::try_new(file.as_file(), schema.clone(), Some(properties)).map_err(|cause| bad(&cause))?;
    let mut rows = 0;
    for batch in reader.with_batch_size(BATCH_ROWS).build().map_err(|cause| bad(&cause))? {
        let batch = batch.map_err(|cause| bad(&cause))?;
        let columns =
            batch.columns().iter().zip(schema.fields()).map(|(column, field)| converted(column, field.data_type()));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(|cause| bad(&cause))?;
        let batch = RecordBatch::try_new(schema.clone(), columns).map_err(|cause| bad(&cause))?;
        writer.write(&batch).map_err(|cause| bad(&cause))?;
        rows += batch.num_rows() as u64;
    }
    writer.close().map_err(|cause| bad(&cause))?;
    let bytes = file.as_file().metadata().map_err(Error::io("read", part))?.len();
    store::put_all(vec![(store::Source::File(file.path().to_owned()), at.clone())])?;
    Ok((bytes, rows))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray, UInt64Array};

    use super::*;

    #[test]
    fn a_hash_becomes_the_long_of_the_same_bits() -> Result<(), ArrowError> {
        let numbers: ArrayRef = Arc::new(UInt64Array::from(vec![Some(1), Some(u64::MAX), Some(1 << 63), None]));
        let longs = Int64Array::from(vec![Some(1), Some(-1), Some(i64::MIN), None]);
        assert_eq!(converted(&numbers, &DataType::Int64)?.as_primitive::<Int64Type>(), &longs);
        let item = Arc::new(Field::new("item", DataType::UInt64, true));
        let list: ArrayRef = Arc::new(FixedSizeListArray::try_new(item, 2, numbers, None)?);
        let to = delta_type(list.data_type()).expect("Delta has lists");
        let lists = converted(&list, &to)?;
        let lists: &ListArray = lists.as_list();
        assert_eq!((lists.len(), lists.values().as_primitive::<Int64Type>()), (2, &longs));
        Ok(())
    }
}
