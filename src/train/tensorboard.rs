//! The history of a run for TensorBoard: an event file with the figures of each epoch and pictures of a few photos.
//!
//! Events are the messages of TensorFlow's `event.proto` and `summary.proto`
//! (<https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core/framework>), framed as TFRecords
//! (<https://www.tensorflow.org/tutorials/load_data/tfrecord>): length, its checksum, message, its checksum.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::error::{Error, Result};
use crate::model::epochs::EpochRecord;
use crate::photo::Photo;
use crate::{files, picture};

/// Name of the folder of event files in a model folder.
pub const FOLDER: &str = "tensorboard";
/// Prefix and suffix of an event file's name.
const FILE: [&str; 2] = ["events.out.tfevents.", ".lookbook"];
/// The version given in the first event of a file.
const FILE_VERSION: &str = "brain.Event:2";
/// `ColorSpace` of an image: RGB.
const RGB: i32 = 3;
/// JPEG quality of pictures.
const QUALITY: u8 = 88;
/// Bytes of a record before its message (length and checksum) and after it.
const FRAME: [usize; 2] = [12, 4];

/// `tensorflow.Event`, reduced to the fields used here.
#[derive(Clone, PartialEq, prost::Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    /// The epoch.
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, prost::Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

/// `tensorflow.Summary.Value`: a figure or a picture.
#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "Shown", tags = "2, 4")]
    shown: Option<Shown>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Shown {
    #[prost(float, tag = "2")]
    Figure(f32),
    #[prost(message, tag = "4")]
    Picture(Picture),
}

/// `tensorflow.Summary.Image`.
#[derive(Clone, PartialEq, prost::Message)]
struct Picture {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    #[prost(int32, tag = "3")]
    colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    encoded: Vec<u8>,
}

/// An event file that is being written.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Reopens the folder's event file after epoch `epoch` and drops later events and any partial record. Starts a new
    /// file if there is none, or if `epoch` is 0.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(folder: &Path, epoch: u32) -> Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
            files.push(entry.map_err(Error::io("read", folder))?.path());
        }
        let is_ours = |path: &PathBuf| path.to_string_lossy().ends_with(FILE[1]);
        let path = files.iter().find(|path| epoch > 0 && is_ours(path)).cloned();
        for other in files.iter().filter(|other| path.as_ref() != Some(other)) {
            fs::remove_file(other).map_err(Error::io("remove", other))?;
        }
        let begun = Event { wall_time: now(), step: 0, what: Some(What::FileVersion(FILE_VERSION.to_owned())) };
        let (path, content) = match path {
            Some(path) => {
                let before = fs::read(&path).map_err(Error::io("read", &path))?;
                (path, upto(&before, i64::from(epoch)))
            }
            None => (folder.join(format!("{}{:010}{}", FILE[0], begun.wall_time as u64, FILE[1])), Vec::new()),
        };
        let content = if content.is_empty() { record(&begun) } else { content };
        files::write(&path, &content)?;
        let file = File::options().append(true).open(&path).map_err(Error::io("open", &path))?;
        Ok(Self { path, file })
    }

    /// Writes the figures of an epoch.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn scalars(&mut self, epoch: &EpochRecord) -> Result<()> {
        let figures = epoch.figures().filter(|(name, _)| *name != "elapsed_secs");
        let value = |(name, figure)| Value { tag: tag(name), shown: Some(Shown::Figure(figure)) };
        self.write(epoch.epoch, figures.map(value).collect())
    }

    /// Writes a picture of an epoch.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn picture(&mut self, epoch: u32, name: &str, photo: &Photo) -> Result<()> {
        let picture = Picture {
            height: photo.height_px as i32,
            width: photo.width_px as i32,
            colorspace: RGB,
            encoded: picture::jpeg(photo, QUALITY),
        };
        self.write(epoch, vec![Value { tag: name.to_owned(), shown: Some(Shown::Picture(picture)) }])
    }

    fn write(&mut self, epoch: u32, value: Vec<Value>) -> Result<()> {
        let what = Some(What::Summary(Summary { value }));
        let event = Event { wall_time: now(), step: i64::from(epoch), what };
        self.file.write_all(&record(&event)).map_err(Error::io("write", &self.path))
    }
}

/// The tag of a history column: TensorBoard groups `loss/train` and `loss/validation`.
fn tag(column: &str) -> String {
    match column.split_once('_') {
        Some((part @ ("train" | "validation"), figure)) => format!("{figure}/{part}"),
        _ => column.to_owned(),
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// An event as a TFRecord.
fn record(event: &Event) -> Vec<u8> {
    let message = event.encode_to_vec();
    let length = (message.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), &message, &checksum(&message)].concat()
}

/// CRC-32C, rotated and offset as in TFRecord, so that data that contains checksums can itself be checksummed.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// The complete records up to epoch `epoch`.
fn upto(mut records: &[u8], epoch: i64) -> Vec<u8> {
    let mut kept = Vec::new();
    while let Some((event, length)) = first(records) {
        let (record, rest) = records.split_at(length);
        if event.step <= epoch {
            kept.extend_from_slice(record);
        }
        records = rest;
    }
    kept
}

/// The first event and the length of its record; `None` if the record is incomplete or damaged.
fn first(records: &[u8]) -> Option<(Event, usize)> {
    let (length, rest) = records.split_first_chunk::<8>()?;
    let end = usize::try_from(u64::from_le_bytes(*length)).ok()?.checked_add(FRAME[0])?;
    let (message, last) = (records.get(FRAME[0]..end)?, records.get(end..end.checked_add(FRAME[1])?)?);
    let is_whole = rest[..4] == checksum(length) && last == checksum(message);
    is_whole.then(|| Event::decode(message).ok()).flatten().map(|event| (event, end + FRAME[1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::epochs::EMPTY;

    fn events(path: &Path) -> Vec<Event> {
        let bytes = fs::read(path).expect("readable");
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while let Some((event, length)) = first(rest) {
            events.push(event);
            rest = &rest[length..];
        }
        assert!(rest.is_empty(), "all records are whole");
        events
    }

    #[test]
    fn checksums_are_those_of_the_format() {
        // RFC 3720, B.4: 32 bytes of zeros have the CRC-32C 0x8a9136aa; by hand: rotated 0x6d55_1522, then offset.
        assert_eq!(checksum(&[0; 32]), 0x0fd7_fffa_u32.to_le_bytes());
    }

    #[test]
    fn a_file_goes_on_after_an_epoch_and_forgets_what_came_later() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let mut file = EventFile::open(place.path(), 0).expect("begun");
        for epoch in 1..=3 {
            let photo = Photo { width_px: 2, height_px: 1, rgb: vec![9; 6] };
            file.picture(epoch, "validation/a.jpg", &photo).expect("written");
            file.scalars(&EpochRecord { epoch, train_loss: 0.5, ..EMPTY }).expect("written");
        }
        let path = file.path.clone();
        fs::OpenOptions::new().append(true).open(&path).and_then(|mut it| it.write_all(&[7; 15])).expect("writable");
        let mut file = EventFile::open(place.path(), 2).expect("there is one");
        assert_eq!(file.path, path);
        file.scalars(&EpochRecord { epoch: 3, ..EMPTY }).expect("written");
        let events = events(&path);
        assert_eq!(events.iter().map(|it| it.step).collect::<Vec<_>>(), [0, 1, 1, 2, 2, 3]);
        assert_eq!(events[0].what, Some(What::FileVersion(FILE_VERSION.to_owned())));
        let Some(What::Summary(summary)) = &events[2].what else { panic!("figures: {events:?}") };
        let tags: Vec<_> = summary.value.iter().map(|it| it.tag.as_str()).collect();
        assert_eq!(tags[..4], ["learning_rate", "loss/train", "pixel_accuracy/train", "loss/validation"]);
        assert_eq!(summary.value[1].shown, Some(Shown::Figure(0.5)));
        EventFile::open(place.path(), 0).expect("started over");
        assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 1);
    }
}
