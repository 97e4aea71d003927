//! The history of a training run: `history.parquet` and `loss.csv`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float32Array, UInt32Array};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::chart::{Line, LineChart};
use crate::error::{Error, Result};
use crate::{files, table, units};

/// The table's name in its metadata.
const TABLE: &str = "history";

/// One epoch. Rates are 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// 1-based.
    pub epoch: u32,
    /// Width of the photos that the network saw, in training and validation.
    #[serde(default)]
    pub photo_width_px: u32,
    /// Their height.
    #[serde(default)]
    pub photo_height_px: u32,
    /// Learning rate of the last step.
    pub learning_rate: f32,
    /// Mean loss over the photos of the epoch, each measured in its own training step.
    pub train_loss: f32,
    /// Share of train pixels classified correctly, each measured in its own training step.
    pub train_pixel_accuracy: f32,
    /// Loss over the validation split after the epoch.
    pub validation_loss: f32,
    /// Share of validation pixels classified correctly.
    pub validation_pixel_accuracy: f32,
    /// The same over the pixels whose true category is not background.
    pub validation_foreground_accuracy: f32,
    /// Mean IoU over the categories that occur in the validation split.
    pub validation_mean_iou: f32,
    /// Training speed of the epoch.
    pub photos_per_sec: f32,
    /// Wall-clock time since the start of the run.
    pub elapsed_secs: f32,
}

/// A numeric column: its name, and access to its field in a record.
type Column<Number> = (&'static str, fn(&mut EpochRecord) -> &mut Number);

const COUNTS: [Column<u32>; 3] = [
    ("epoch", |it| &mut it.epoch),
    ("photo_width_px", |it| &mut it.photo_width_px),
    ("photo_height_px", |it| &mut it.photo_height_px),
];

const COLUMNS: [Column<f32>; 9] = [
    ("learning_rate", |it| &mut it.learning_rate),
    ("train_loss", |it| &mut it.train_loss),
    ("train_pixel_accuracy", |it| &mut it.train_pixel_accuracy),
    ("validation_loss", |it| &mut it.validation_loss),
    ("validation_pixel_accuracy", |it| &mut it.validation_pixel_accuracy),
    ("validation_foreground_accuracy", |it| &mut it.validation_foreground_accuracy),
    ("validation_mean_iou", |it| &mut it.validation_mean_iou),
    ("photos_per_sec", |it| &mut it.photos_per_sec),
    ("elapsed_secs", |it| &mut it.elapsed_secs),
];

impl EpochRecord {
    /// The same without the figures that are measured by a clock, which differ between two identical runs.
    #[must_use]
    pub fn without_times(&self) -> Self {
        Self { photos_per_sec: 0.0, elapsed_secs: 0.0, ..*self }
    }

    /// A log line for the epoch, out of `epochs`, with `left` as the estimated remaining time.
    #[must_use]
    pub fn line(&self, epochs: u32, left: Duration) -> String {
        format!(
            "epoch {} of {epochs}: loss {:.4}, validation loss {:.4}, pixel accuracy {:.3}, mean IoU {:.3}, {:.1} photos/s, \
             {} left",
            self.epoch,
            self.train_loss,
            self.validation_loss,
            self.validation_pixel_accuracy,
            self.validation_mean_iou,
            self.photos_per_sec,
            units::duration(left.as_secs_f64())
        )
    }

    /// The figures with their column names.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, f32)> {
        let record = *self;
        COLUMNS.iter().map(move |(name, figure)| (*name, *figure(&mut record.clone())))
    }
}

/// Adds the figures measured by a clock that `loss.csv` of a resumed run has to the epochs of its checkpoint; a missing
/// or damaged file leaves them as they are.
pub(crate) fn add_times(history: &mut [EpochRecord], path: &Path) {
    let mut times: HashMap<u32, EpochRecord> = HashMap::new();
    if let Ok(mut reader) = csv::Reader::from_path(path) {
        times.extend(reader.deserialize().map_while(|it: csv::Result<EpochRecord>| it.ok()).map(|it| (it.epoch, it)));
    }
    for record in history {
        // Of this run, not of another that left its file here.
        if let Some(timed) = times.get(&record.epoch).filter(|it| it.without_times() == record.without_times()) {
            *record = *timed;
        }
    }
}

/// The learning curve: loss and metrics by epoch.
#[must_use]
pub fn charts(history: &[EpochRecord]) -> [LineChart; 2] {
    let line = |name, of: fn(&EpochRecord) -> f32| {
        let values = history.iter().map(|it| f64::from(of(it))).collect();
        Line { name, values }
    };
    let losses = vec![line("train", |it| it.train_loss), line("validation", |it| it.validation_loss)];
    let metrics = vec![
        line("pixel accuracy", |it| it.validation_pixel_accuracy),
        line("foreground accuracy", |it| it.validation_foreground_accuracy),
        line("mean IoU", |it| it.validation_mean_iou),
        line("pixel accuracy, train", |it| it.train_pixel_accuracy),
    ];
    [
        LineChart { title: "Loss by epoch", top: None, lines: losses },
        LineChart { title: "Metrics over the validation split by epoch", top: Some(1.0), lines: metrics },
    ]
}

/// The epoch with the highest mean IoU over the validation split, the earliest on a tie, among those with photos of the
/// last epoch's size; `None` if there are no epochs.
#[must_use]
pub fn best(history: &[EpochRecord]) -> Option<&EpochRecord> {
    let size = |it: &EpochRecord| (it.photo_width_px, it.photo_height_px);
    let last = size(history.last()?);
    history
        .iter()
        .filter(|it| size(it) == last)
        .reduce(|best, it| if it.validation_mean_iou > best.validation_mean_iou { it } else { best })
}

/// Writes `history.parquet`.
///
/// # Errors
/// As [`table::write_table`].
pub fn write(path: &Path, history: &[EpochRecord]) -> Result<()> {
    let (mut fields, mut arrays): (Vec<Field>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (name, count) in COUNTS {
        fields.push(Field::new(name, DataType::UInt32, false));
        arrays.push(Arc::new(UInt32Array::from_iter_values(history.iter().map(|it| *count(&mut it.clone())))));
    }
    for (name, figure) in COLUMNS {
        fields.push(Field::new(name, DataType::Float32, false));
        arrays.push(Arc::new(Float32Array::from_iter_values(history.iter().map(|it| *figure(&mut it.clone())))));
    }
    let rows = RecordBatch::try_new(table::schema(TABLE, fields), arrays).expect("the columns match the schema above");
    table::write_table(path, &rows)
}

/// Reads `history.parquet`.
///
/// # Errors
/// As [`table::read_table`].
pub fn read(path: &Path) -> Result<Vec<EpochRecord>> {
    let mut history = Vec::new();
    for batch in table::read_table(path, TABLE, &[], 1024)? {
        let batch = batch?;
        let start = history.len();
        history.resize(start + batch.num_rows(), EMPTY);
        for (name, count) in COUNTS {
            // Older tables have no sizes.
            if name != "epoch" && batch.column_by_name(name).is_none() {
                continue;
            }
            let values = table::column::<UInt32Array>(path, &batch, name)?;
            for (record, &value) in history[start..].iter_mut().zip(values.values()) {
                *count(record) = value;
            }
        }
        for (name, figure) in COLUMNS {
            let values = table::column::<Float32Array>(path, &batch, name)?;
            for (record, &value) in history[start..].iter_mut().zip(values.values()) {
                *figure(record) = value;
            }
        }
    }
    Ok(history)
}

/// A record with every field zero.
pub(crate) const EMPTY: EpochRecord = EpochRecord {
    epoch: 0,
    photo_width_px: 0,
    photo_height_px: 0,
    learning_rate: 0.0,
    train_loss: 0.0,
    train_pixel_accuracy: 0.0,
    validation_loss: 0.0,
    validation_pixel_accuracy: 0.0,
    validation_foreground_accuracy: 0.0,
    validation_mean_iou: 0.0,
    photos_per_sec: 0.0,
    elapsed_secs: 0.0,
};

/// Writes `loss.csv`: the same rows, for spreadsheets.
///
/// # Errors
/// As [`files::write`].
pub fn write_csv(path: &Path, history: &[EpochRecord]) -> Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let written = history.iter().try_for_each(|record| writer.serialize(record));
    written.map_err(|cause| Error::io("write", path)(cause.into()))?;
    let text = writer.into_inner().map_err(|cause| Error::io("write", path)(cause.into_error()))?;
    files::write(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_comes_back_and_the_csv_has_its_columns() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let record = |epoch| EpochRecord { epoch, photo_width_px: 40, train_loss: 0.5 / epoch as f32, ..EMPTY };
        let history = [1, 2].map(record);
        let path = place.path().join("history.parquet");
        write(&path, &history).expect("written");
        assert_eq!(read(&path).expect("read"), history);
        let csv = place.path().join("loss.csv");
        write_csv(&csv, &history).expect("written");
        let text = std::fs::read_to_string(&csv).expect("text");
        assert!(text.starts_with("epoch,photo_width_px,photo_height_px,learning_rate,train_loss,"), "{text}");
        assert!(text.ends_with("2,40,0,0.0,0.25,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n"), "{text}");
    }

    #[test]
    fn times_come_back_from_the_csv_of_the_same_run() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let timed = [1, 2, 3].map(|epoch| EpochRecord {
            epoch,
            train_loss: 0.1 / epoch as f32,
            photos_per_sec: 7.3,
            elapsed_secs: 0.1 + epoch as f32,
            ..EMPTY
        });
        let csv = place.path().join("loss.csv");
        write_csv(&csv, &timed).expect("written");
        let mut history = [timed[0].without_times(), timed[1].without_times()];
        assert_eq!((history[1].photos_per_sec, history[1].elapsed_secs, history[1].train_loss), (0.0, 0.0, 0.05));
        add_times(&mut history, &csv);
        assert_eq!(history, timed[..2]);
        let mut other = [EpochRecord { train_loss: 0.5, ..history[0] }.without_times()];
        add_times(&mut other, &csv);
        assert_eq!(other[0].elapsed_secs, 0.0);
        std::fs::write(&csv, "epoch,lea").expect("writable");
        add_times(&mut history, &csv);
        assert_eq!(history, timed[..2], "what an older checkpoint has stays");
    }

    #[test]
    fn a_line_is_for_people() {
        let record = EpochRecord { epoch: 3, train_loss: 0.5, photos_per_sec: 12.34, ..EMPTY };
        let line = record.line(25, Duration::from_mins(90));
        assert!(line.starts_with("epoch 3 of 25: loss 0.5000, "), "{line}");
        assert!(line.ends_with("mean IoU 0.000, 12.3 photos/s, 90.0 min left"), "{line}");
    }

    #[test]
    fn the_best_epoch_is_the_first_of_the_highest() {
        let history = [0.1, 0.3, 0.3, 0.2].map(|validation_mean_iou| EpochRecord { validation_mean_iou, ..EMPTY });
        assert!(std::ptr::eq(best(&history).expect("there are epochs"), &raw const history[1]));
        assert_eq!(best(&[]), None);
        let sizes = [100, 100, 200, 200].map(|photo_width_px| EpochRecord { photo_width_px, ..EMPTY });
        let iou = |(record, validation_mean_iou)| EpochRecord { validation_mean_iou, ..record };
        let history: Vec<_> = sizes.into_iter().zip([0.5, 0.4, 0.2, 0.3]).map(iou).collect();
        assert!(std::ptr::eq(best(&history).expect("there are epochs"), &raw const history[3]), "of the last size");
        assert!(std::ptr::eq(best(&history[..2]).expect("there are epochs"), &raw const history[0]));
    }
}
