//! Decides what to do with each photo of a catalogue, by comparing it with what earlier runs recorded.

use rayon::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::config::{Config, without_labels};
use super::counter::MadeBy;
use super::earlier::{Earlier, Folder, UNFINISHED, Wanted};
use super::parts::{Fate, Parts, Tally, Unfinished};
use super::whole_parts::WholeParts;
use super::{masks, stream};
use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::features::rows::Embedding;
use crate::files;
use crate::labels::LabelSet;
use crate::shard::Shard;
use crate::stage::{self, Stage};

/// Raise this whenever the same photo, model and settings give a different row.
const ROW_VERSION: u32 = 5;

/// Name of the count in `run.json` that holds the next photo id of a folder tree.
pub(super) const NEXT_PHOTO_ID: &str = "next_photo_id";

/// The catalogue, what earlier runs recorded about it, and what to do with each photo.
pub(super) struct Plan {
    /// The categories and colours of the rows.
    pub(super) labels: LabelSet,
    pub(super) catalogue: Catalogue,
    pub(super) earlier: Earlier,
    pub(super) wanted: Wanted,
    pub(super) fates: Vec<Fate>,
    /// Number of photos in the published table that are no longer in the catalogue and are dropped.
    pub(super) vanished: u64,
    pub(super) next_photo_id: u64,
    /// What a shard with whole parts knows of the catalogue.
    pub(super) whole_parts: Option<WholeParts>,
    /// What the embeddings of the new table are, if it has some.
    pub(super) embedding: Option<Embedding>,
}

impl Plan {
    /// Opens the catalogue and decides by names, sizes and times which photos to process.
    pub(super) fn new(config: &Config, made_by: &MadeBy, embedding: Option<Embedding>) -> Result<Self> {
        let labels = &made_by.labels;
        let mut earlier = published(config, labels)?;
        // The results of a killed run, of a run that a gate held back, and of this shard's last run.
        let folder = config.folder();
        let versions = stage::Versions::of(&folder)?;
        earlier.folders.extend(Folder::unfinished(&versions.partial(), labels)?);
        earlier.folders.extend(Folder::open(&versions.rejected(), labels)?);
        if config.shard.is_some() {
            earlier.folders.extend(Folder::open(&folder, labels)?);
        }
        let (mut catalogue, next_photo_id) = open_catalogue(config, &earlier)?;
        let whole_parts = config.shard.and_then(|shard| take(shard, config, &mut catalogue));
        let row_key = row_key(config, made_by, &catalogue)?;
        let wanted = Wanted { row_key, mask: config.keeps_masks(), certainty: config.needs_certainty() };
        let before = earlier.published().iter().filter(|it| it.row.is_some());
        let before = before.map(|it| (it.state.name.clone(), it.state.photo_id));
        let before: Vec<_> = before.filter(|(name, photo_id)| is_its(config, &catalogue, name, *photo_id)).collect();
        let vanished = catalogue.keep(before.into_iter(), config.keep_vanished);
        catalogue.ask_stores(|name| earlier.by_name(name, wanted).is_some())?;
        let fates = catalogue.entries.par_iter().map(|entry| {
            let known = if entry.kept {
                earlier.in_published(&entry.name)
            } else if catalogue.dataset().is_some() {
                None
            } else {
                // If there is nothing to compare with, leave it to the worker that reads the file.
                earlier
                    .by_name(&entry.name, wanted)
                    .and_then(|_| earlier.unchanged(&entry.name, catalogue.stat_of(entry)?, wanted))
            };
            known.map_or(Fate::Todo, Fate::Take)
        });
        let fates = fates.collect();
        let labels = labels.clone();
        Ok(Self { labels, catalogue, earlier, wanted, fates, vanished, next_photo_id, whole_parts, embedding })
    }

    /// Indices of the photos to process.
    pub(super) fn todo(&self) -> Vec<u32> {
        let todo = self.fates.iter().zip(0..).filter(|(fate, _)| matches!(fate, Fate::Todo));
        todo.map(|(_, index)| index).collect()
    }
}

/// The published table, if it has states, and its vanished photos.
pub(super) fn published(config: &Config, labels: &LabelSet) -> Result<Earlier> {
    let mut earlier = Earlier::default();
    if let Some(mut folder) = Folder::open(&config.output, labels)? {
        folder.compare_paths(&config.catalogue);
        let vanished = folder.vanished(labels)?;
        earlier.published = Some(0);
        earlier.folders.push(folder);
        earlier.vanished = vanished.as_ref().map(|_| 1);
        earlier.folders.extend(vanished);
    }
    Ok(earlier)
}

/// Keeps only the photos of one shard; returns what it knows of the whole catalogue if it has whole parts.
fn take(shard: Shard, config: &Config, catalogue: &mut Catalogue) -> Option<WholeParts> {
    let is_whole = catalogue.is_divided_by_part(config.shard_by, shard.count());
    let whole = is_whole.then(|| WholeParts {
        catalogue: catalogue.digest(),
        passed_over: catalogue.passed_over.clone(),
        ..WholeParts::default()
    });
    catalogue.take(shard, config.shard_by);
    whole
}

/// Whether a photo is one of this run's shard, if it makes one.
pub(super) fn is_its(config: &Config, catalogue: &Catalogue, name: &str, photo_id: u32) -> bool {
    config.shard.is_none_or(|it| catalogue.holder(name, photo_id, config.shard_by, it.count()) == it)
}

/// Opens the catalogue; photos of a folder tree keep the ids they have in the published table. Also
/// returns the next id.
pub(super) fn open_catalogue(config: &Config, earlier: &Earlier) -> Result<(Catalogue, u64)> {
    let recorded = earlier.published.and_then(|it| earlier.folders[usize::from(it)].recorded.as_ref());
    let next = recorded.and_then(|it| it.counts.count(NEXT_PHOTO_ID));
    let numbering = earlier.numbering(next.unwrap_or(0));
    let catalogue = Catalogue::open(&config.catalogue, &numbering)?;
    let next = catalogue.entries.iter().map(|it| u64::from(it.photo_id) + 1).max().unwrap_or(0);
    Ok((catalogue, next.max(numbering.next)))
}

impl Plan {
    pub(super) fn parts<'a>(&'a self, config: &Config, stage: &Stage) -> Result<Parts<'a>> {
        Ok(Parts {
            labels: &self.labels,
            catalogue: &self.catalogue,
            earlier: &self.earlier,
            fates: &self.fates,
            folder: stage.path(""),
            format: config.format,
            masks: self.wanted.mask,
            row_key: self.wanted.row_key,
            embedding: self.embedding.clone(),
            unfinished: Unfinished::new(
                &self.labels,
                &stage.path(UNFINISHED),
                self.wanted.mask.then(|| stage.path(masks::FOLDER)),
                config.keep_every_photos,
                self.embedding.clone(),
            )?,
        })
    }
}

impl Plan {
    /// Counts what a run would do, without doing it.
    pub(super) fn foretell(&self) -> Result<Tally> {
        let wanted = self.wanted;
        let mut tally = Tally::default();
        let kept = self.catalogue.entries.iter().filter(|it| it.kept).count() as u64;
        let todo = self.todo();
        tally.kept = kept;
        tally.known = (self.fates.len() - todo.len()) as u64 - kept;
        for item in self.catalogue.items(&todo, false)? {
            let item = item?;
            let name = &self.catalogue.entries[item.index as usize].name;
            let usable = self.earlier.by_name(name, wanted);
            let same = || {
                let content = stream::content_of(&self.catalogue, &item)?;
                self.earlier.by_content(name, &content, wanted)
            };
            let count = match (usable, self.earlier.in_published(name)) {
                (Some(_), _) if same().is_some() => &mut tally.known,
                (Some(_), Some(_)) => &mut tally.changed,
                (None, Some(_)) => &mut tally.outdated,
                (_, None) => &mut tally.new,
            };
            *count += 1;
        }
        Ok(tally)
    }
}

/// Hash of what rows depend on besides the photo's content.
fn row_key(config: &Config, made_by: &MadeBy, catalogue: &Catalogue) -> Result<u64> {
    let source = match (&made_by.model, catalogue.dataset()) {
        (None, Some(dataset)) => json!(files::checksum(&dataset.photos_path())?.1),
        (None, None) => return Err(without_labels()),
        (Some(([model, colors], precision)), _) => json!({ "model": model, "colors": colors, "precision": precision }),
    };
    let Config { color_rule, min_share, min_region, .. } = config;
    let rule = json!({ "color_rule": color_rule, "min_share": min_share, "min_region": min_region });
    let mut all = json!({ "version": ROW_VERSION, "source": source, "cell_rule": rule });
    if let Some(calibration) = &made_by.calibration {
        all["calibration"] = json!(calibration.digest());
    }
    if let Some(embedder) = &made_by.embedder {
        all["embedder"] = json!(embedder);
    }
    if !made_by.labels.is_cfpd() {
        all["labels"] = json!(made_by.labels);
    }
    let digest = Sha256::digest(all.to_string().as_bytes());
    Ok(u64::from_be_bytes(std::array::from_fn(|byte| digest[byte])))
}
