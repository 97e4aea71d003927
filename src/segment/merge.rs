//! The tables of all shards to one table, row for row as a run without shards writes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::interleave_record_batch;

use super::catalogue::Catalogue;
use super::{Config, STAGE};
use crate::error::{Error, Result};
use crate::shard::{self, Shard};
use crate::stage::{RUN_FILE, Stage};
use crate::table;
use crate::table::features::{FeatureWriter, PART_ROWS, TABLE};
use crate::table::rejects::{self, Reject};

/// Rows of a shard that are in memory at a time.
const BATCH_ROWS: usize = 1024;

/// Merges all shards of the output; returns their rejects.
pub(super) fn merge(config: &Config, catalogue: &Catalogue, stage: &mut Stage) -> Result<Vec<Reject>> {
    let folders = shard::published(STAGE, &config.output)?;
    let (mut streams, mut rejects) = (Vec::new(), Vec::new());
    for (folder, _) in &folders {
        stage.input(&folder.join(RUN_FILE))?;
        streams.push(Rows::open(folder)?);
        rejects.extend(rejects::read(&folder.join(rejects::FILE))?);
    }
    let mut writer = FeatureWriter::new(&stage.path(""), config.format);
    let count = folders.len() as u32;
    let shards: Vec<Shard> = (1..=count).filter_map(|number| Shard::new(number, count)).collect();
    let mut part = Part::default();
    for entry in catalogue.entries()? {
        let name = catalogue.name_of(&entry);
        let holder = shards.iter().position(|shard| shard.holds(name)).expect("every name is in one shard");
        // The next row of that shard is this photo's, or the photo was rejected there.
        if let Some(row) = streams[holder].next_of(entry.photo_id)? {
            part.push(row);
        }
        if part.rows.len() == PART_ROWS {
            writer.write_part(&std::mem::take(&mut part).batch())?;
        }
    }
    if let Some(rows) = streams.iter().find(|rows| !rows.at_end()) {
        let problem = "has photos that the catalogue no longer has; run the shards again";
        return Err(Error::input(&rows.folder, problem));
    }
    if part.rows.is_empty() {
        writer.close()?;
    } else {
        writer.write_part(&part.batch())?;
    }
    Ok(rejects)
}

/// Rows picked from batches.
#[derive(Default)]
struct Part {
    batches: Vec<RecordBatch>,
    rows: Vec<(usize, usize)>,
}

impl Part {
    fn push(&mut self, (batch, row): (RecordBatch, usize)) {
        // Rows of a batch come in a run for each shard: a batch that was met lately is not kept twice.
        let known = self.batches.iter().rposition(|it| Arc::ptr_eq(it.column(0), batch.column(0)));
        let index = known.unwrap_or_else(|| {
            self.batches.push(batch);
            self.batches.len() - 1
        });
        self.rows.push((index, row));
    }

    fn batch(&self) -> RecordBatch {
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        interleave_record_batch(&batches, &self.rows).expect("batches of one schema, rows within them")
    }
}

/// The rows of one shard in order.
struct Rows {
    folder: PathBuf,
    batches: Box<dyn Iterator<Item = Result<RecordBatch>>>,
    current: Option<RecordBatch>,
    row: usize,
}

impl Rows {
    fn open(folder: &Path) -> Result<Self> {
        let readers = table::parts(folder)?.into_iter().map(|part| table::read_table(&part, TABLE, &[], BATCH_ROWS));
        let batches = Box::new(readers.collect::<Result<Vec<_>>>()?.into_iter().flatten());
        let mut rows = Self { folder: folder.to_owned(), batches, current: None, row: 0 };
        rows.advance()?;
        Ok(rows)
    }

    /// The next row, where it is that of the photo.
    fn next_of(&mut self, photo_id: u32) -> Result<Option<(RecordBatch, usize)>> {
        let Some(batch) = self.current.clone() else { return Ok(None) };
        let ids: &UInt32Array = table::column(&self.folder, &batch, "photo_id")?;
        if ids.value(self.row) != photo_id {
            return Ok(None);
        }
        let found = (batch, self.row);
        self.row += 1;
        if self.row == found.0.num_rows() {
            self.advance()?;
        }
        Ok(Some(found))
    }

    fn advance(&mut self) -> Result<()> {
        self.row = 0;
        self.current =
            self.batches.by_ref().find(|it| !matches!(it, Ok(batch) if batch.num_rows() == 0)).transpose()?;
        Ok(())
    }

    fn at_end(&self) -> bool {
        self.current.is_none()
    }
}
