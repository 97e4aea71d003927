//! What becomes of a catalogue's photos on their way through the network ([`stream`]): rows, or the reason why there is none.

use std::sync::Arc;

use super::config::{Config, LABELS_MODEL_ID};
use super::counter::Counter;
use super::earlier::{Earlier, Wanted, digest};
use super::masks;
use super::parts::{Made, PhotoOutcome, names_of};
use super::state::PhotoCertainty;
use crate::catalogue::{Catalogue, Entry, Item};
use crate::dataset::{PhotoRecord, Row};
use crate::error::Result;
use crate::features::PixelCounts;
use crate::features::rows::FeatureRow;
use crate::files::hexadecimal;
use crate::model::layout::{Answer, Layout};
use crate::model::stream;
use crate::parser;
use crate::photo::hashes::PhotoHashes;
use crate::photo::{self, Decoded, Decoding, FIT_HEIGHT_PX, FIT_WIDTH_PX, PhotoProblem};
use crate::reason;
use crate::stage::{Digest, Stat};

pub(super) use crate::model::stream::run;

/// A photo while the network has it.
pub(super) struct Photo {
    index: u32,
    stat: Option<Stat>,
    content: Digest,
}

type Prepared = stream::Prepared<Photo, PhotoOutcome>;
type OnCanvas = stream::OnCanvas<Photo>;

/// What the workers need.
pub(super) struct Work<'a> {
    pub(super) config: &'a Config,
    pub(super) catalogue: &'a Catalogue,
    pub(super) earlier: &'a Earlier,
    pub(super) counter: &'a Counter,
    pub(super) wanted: Wanted,
    /// The folder to write masks to, if any.
    pub(super) masks: Option<std::path::PathBuf>,
    /// The network's input, onto which photos are laid; `None` without a network.
    pub(super) layout: Option<Layout>,
    /// The embedder's input; `None` without an embedder.
    pub(super) embedder: Option<Arc<parser::Layout>>,
    pub(super) model_id: &'a str,
}

impl stream::Work for Work<'_> {
    type Item = Item;
    type Photo = Photo;
    type Outcome = PhotoOutcome;

    fn has_stored(&self) -> bool {
        self.catalogue.has_stored()
    }

    /// Reads a photo, and decodes it unless an earlier run already processed this content.
    fn prepare(&self, item: &Item) -> Result<Prepared> {
        let index = item.index;
        let entry = &self.catalogue.entries[index as usize];
        let (stat, bytes) = match stream::read_item(self.catalogue, item) {
            Ok(read) => read,
            Err(problem) => {
                let limit = problem.limit(&self.catalogue.path_of(entry));
                return limit.map_or_else(|| Ok(Prepared::Done(self.unread(index, problem))), Err);
            }
        };
        let content = digest(&bytes);
        let done =
            |made| Ok(Prepared::Done(PhotoOutcome { index, stat, content: Some(content), certainty: None, made }));
        if let Some(place) = self.earlier.by_content(&entry.name, &content, self.wanted) {
            return done(Made::Taken(place));
        }
        let Some(layout) = &self.layout else {
            let Some(Row::Labelled(record)) = &item.row else { unreachable!("without a network, labels are read") };
            return done(self.labelled(entry, record, &content)?);
        };
        match layout.read_for(&bytes, self.config.max_pixels(), self.embedder.as_deref()) {
            Ok((decoded, laid, for_embedder)) => {
                let of = Photo { index, stat, content };
                Ok(Prepared::OnCanvas(Box::new(OnCanvas { of, decoded, laid, for_embedder })))
            }
            Err(problem) => done(Made::Rejected(problem)),
        }
    }

    /// Counts a photo's pixels by the network's answer.
    fn count(&self, it: &OnCanvas, answer: &Answer, embedding: Option<Vec<f32>>) -> Result<PhotoOutcome> {
        let of = &it.of;
        let layout = self.layout.as_ref().expect("photos are laid out for a network");
        let entry = &self.catalogue.entries[of.index as usize];
        let Decoded { photo, own_width_px, own_height_px } = &it.decoded;
        let own = (*own_width_px, *own_height_px);
        let label_map = |size| layout.label_map(&it.laid, answer, size, &entry.name);
        let (fitted, of_pixels) = if self.wanted.certainty {
            layout.label_map_with_certainty(&it.laid, answer, photo.size(), &entry.name)?
        } else {
            (label_map(photo.size())?, None)
        };
        let labels = self.counter.colors.labels();
        let certainty = of_pixels.map(|it| Box::new(PhotoCertainty::of(&fitted, &it, labels.category_count())));
        let counts = self.counter.colors.count(photo, &fitted, self.counter.rule);
        let hashes = PhotoHashes::of(photo);
        if let Some(folder) = &self.masks {
            masks::write(folder, &of.content, labels, &label_map(own)?, own.0)?;
        }
        let row = self.row(entry, &of.content, self.model_id, [photo.size(), own], (counts, hashes));
        let made = Made::Row(Box::new(FeatureRow { embedding, ..row }));
        Ok(PhotoOutcome { index: of.index, stat: of.stat, content: Some(of.content), certainty, made })
    }
}

impl Work<'_> {
    /// The outcome for a file that could not be read. If the disk or a permission is to blame, the previous version's
    /// row stays.
    fn unread(&self, index: u32, problem: PhotoProblem) -> PhotoOutcome {
        let entry = &self.catalogue.entries[index as usize];
        let not_its_fault = [reason::NO_PERMISSION, reason::IO_ERROR].contains(&problem.reason);
        let before = self.earlier.in_published(&entry.name).filter(|&it| self.earlier.photo(it).row.is_some());
        let (stat, content, made) = match before {
            Some(place) if not_its_fault => {
                let state = &self.earlier.photo(place).state;
                (state.stat, state.content, Made::Stays(place, problem))
            }
            _ => (None, None, Made::Rejected(problem)),
        };
        PhotoOutcome { index, stat, content, certainty: None, made }
    }

    /// Counts a photo of a dataset by its labels.
    fn labelled(&self, entry: &Entry, record: &PhotoRecord, content: &Digest) -> Result<Made> {
        let label_map = record.category_map();
        let counter = self.counter;
        let size = (record.width_px, record.height_px);
        let (counts, hashes) = if let Some(colors) = record.color_map() {
            let labels = counter.colors.labels();
            let counts = PixelCounts::of(labels, &label_map, record.width_px, counter.rule, |pixel| colors[pixel]);
            // Only for its hashes: a row of labels does not depend on whether the photo can be decoded.
            let decoded = photo::decode_with(&record.encoded, Decoding::fitted(self.config.max_pixels()));
            (counts, decoded.map(|it| PhotoHashes::of(&it.photo)).unwrap_or_default())
        } else {
            let photo = match photo::decode(&record.encoded) {
                Ok(photo) => photo,
                Err(problem) => return Ok(Made::Rejected(problem)),
            };
            if photo.size() != size {
                let detail =
                    format!("its labels have a different size, {} x {} pixels", record.width_px, record.height_px);
                return Ok(Made::Rejected(PhotoProblem::new(reason::OTHER_SIZE, detail)));
            }
            let hashes = PhotoHashes::of(&photo::fit(&photo, FIT_WIDTH_PX, FIT_HEIGHT_PX));
            (counter.colors.count(&photo, &label_map, counter.rule), hashes)
        };
        if let Some(folder) = &self.masks {
            masks::write(folder, content, counter.colors.labels(), &label_map, record.width_px)?;
        }
        Ok(Made::Row(Box::new(self.row(entry, content, LABELS_MODEL_ID, [size; 2], (counts, hashes)))))
    }

    fn row(
        &self,
        entry: &Entry,
        content: &Digest,
        model_id: &str,
        [size, own_size]: [(u32, u32); 2],
        (counts, hashes): (PixelCounts, PhotoHashes),
    ) -> FeatureRow {
        let (photo_id, file_name, path) = names_of(self.catalogue, entry);
        FeatureRow {
            photo_id,
            file_name,
            path,
            content_sha256: hexadecimal(content),
            model_id: model_id.to_owned(),
            width_px: size.0,
            height_px: size.1,
            photo_width_px: own_size.0,
            photo_height_px: own_size.1,
            counts,
            hashes,
            embedding: None,
        }
    }
}

/// The content digest of an item, for a dry run.
pub(super) fn content_of(catalogue: &Catalogue, item: &Item) -> Option<Digest> {
    if let Some(row) = &item.row {
        return Some(digest(row.encoded()));
    }
    let path = catalogue.path_of(&catalogue.entries[item.index as usize]);
    photo::read_bytes(&path).ok().map(|bytes| digest(&bytes))
}
