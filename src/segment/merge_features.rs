//! Merges the tables of all shards into one table, row for row as a run without shards writes it.

use std::path::PathBuf;

use rayon::prelude::*;

use super::config::Config;
use super::counts::CountedParts;
use super::earlier::{Folder, Wanted, digest};
use super::parts::{Fate, Tally, Writer, Written};
use super::plan::{Plan, open_catalogue, published};
use super::state::StateRow;
use super::{masks, merge_parts, uncertain, vanished};
use crate::catalogue::{Catalogue, Entry};
use crate::error::{Error, Result};
use crate::features::{layout, rows};
use crate::files::OpenFolder;
use crate::labels::LabelSet;
use crate::shard;
use crate::stage::{Stage, Summary};
use crate::table::{self, Footer};
use crate::{photo, rejects};

/// The settings of a merge: those the shards were made with, except for the output folder and the limit on rejects.
pub(super) fn settings(config: &Config, shards: &[(OpenFolder, Summary)]) -> Result<Config> {
    let (folder, made) = &shards[0];
    for (count, what) in
        [("precision", "precision"), ("calibration_id", "calibration of int8"), ("embedder_id", "embedder")]
    {
        let of = |made: &Summary| made.counts.get::<String>(count);
        if let Some((other, _)) = shards.iter().find(|(_, it)| of(it) != of(made)) {
            let than = folder.name().display();
            let problem = format!("was computed with another {what} than {than}; run both with the same one");
            return Err(Error::input(other.name(), problem));
        }
    }
    let of_shards: Config = shard::settings(&shards[0])?;
    let (output, max_reject_fraction) = (config.output.clone(), config.max_reject_fraction);
    Ok(Config { output, max_reject_fraction, merge: true, ..of_shards })
}

/// The categories and colours of the shards' rows: all were made from the same model or labels.
pub(super) fn labels((folder, _): &(OpenFolder, Summary)) -> Result<LabelSet> {
    let part = folder.path(table::part_name(0));
    rows::labels_of(&part, &Footer::read(&part)?.schema)
}

/// Merges all shards of the output.
pub(super) fn merge(config: &Config, shards: Vec<(OpenFolder, Summary)>, stage: &mut Stage) -> Result<Written> {
    let labels = labels(&shards[0])?;
    for (_, made) in &shards {
        count(stage, made);
    }
    match merge_parts::merge(config, &shards, &labels, stage)? {
        Some(written) => Ok(written),
        None => merge_rows(config, shards, labels, stage),
    }
}

/// Merges shards photo by photo.
fn merge_rows(
    config: &Config,
    shards: Vec<(OpenFolder, Summary)>,
    labels: LabelSet,
    stage: &mut Stage,
) -> Result<Written> {
    let inputs = shards[0].1.inputs.clone();
    let mut earlier = published(config, &labels)?;
    let (mut catalogue, next_photo_id) = open_catalogue(config, &earlier)?;
    let first = earlier.folders.len() as u16;
    let mut rejected = Vec::new();
    let names: Vec<PathBuf> = shards.iter().map(|(folder, _)| folder.name().to_owned()).collect();
    for (folder, _) in shards {
        rejected.extend(rejects::read(&folder.path(layout::find(folder.root(), layout::REJECTS_FILE)?))?);
        let name = folder.name().to_owned();
        let states = Folder::read(folder, &labels)?.filter(|it| !it.is_damaged);
        let mut states = states.ok_or_else(|| Error::input(name, "is damaged; run the shard again"))?;
        states.compare_paths(&config.catalogue);
        earlier.folders.push(states);
    }
    let of_shards = earlier.folders[usize::from(first)..].iter().flat_map(|it| &it.photos);
    let photos = of_shards.map(|it| (it.state.name.clone(), it.state.photo_id));
    if catalogue.keep(photos, config.keep_vanished) > 0 {
        let problem = "has fewer photos than its shards; run the shards again";
        return Err(Error::input(&config.catalogue, problem));
    }
    let count = names.len() as u32;
    catalogue.ask_stores(|_| true)?;
    let fates = catalogue.entries.par_iter().map(|entry| {
        let shard = catalogue.holder(&entry.name, entry.slot, config.shard_by, count);
        let holder = shard.number() as usize - 1;
        let problem = |what: &str| {
            let again = format!("run `lookbook segment --shard {shard}` again");
            Error::input(&names[holder], format!("{what} '{}'; {again}", entry.name))
        };
        let place = earlier.in_folder(first + holder as u16, &entry.name);
        let place = place.ok_or_else(|| problem("lacks a photo of the catalogue,"))?;
        if !entry.kept && catalogue.dataset().is_none() && is_another(&catalogue, entry, &earlier.photo(place).state) {
            return Err(problem("was made from a different content of"));
        }
        Ok(Fate::Take(place))
    });
    let fates = fates.collect::<Result<Vec<_>>>()?;
    let wanted = Wanted { row_key: 0, mask: config.keeps_masks(), certainty: false };
    // That of all shards: they read the same embedder.
    let embedding = earlier.folders[usize::from(first)].embedding(0).cloned();
    let plan =
        Plan { labels, catalogue, earlier, wanted, fates, vanished: 0, next_photo_id, whole_parts: None, embedding };
    let mut parts = plan.parts(config, stage)?;
    let mut written = Writer::new(&mut parts).close()?;
    if config.uncertain > 0 {
        let chosen = uncertain::choose(config, stage, written.parts)?.contents;
        masks::retain(&stage.path(masks::FOLDER), &chosen)?;
        written.uncertain = Some(chosen);
    }
    // The shards know the reasons, even for an unreadable photo that keeps its earlier row.
    written.rejects = rejected;
    written.rejects.sort_by(|a, b| a.item.cmp(&b.item));
    written.vanished = vanished::write(&plan.parts(config, stage)?, &plan.earlier, stage, &|_| true)?;
    // All shards read the same inputs, except for the photos, of which each has its own.
    for input in inputs {
        stage.record(if input.is_many { written.listing.record(&input.path) } else { input });
    }
    CountedParts::of(&written, &plan).count(stage);
    Ok(written)
}

/// Whether a file has changed since a shard read it. It is only read if its size, times or inode differ.
fn is_another(catalogue: &Catalogue, entry: &Entry, state: &StateRow) -> bool {
    let Some(content) = state.content else { return false };
    let stat = catalogue.stat_of(entry);
    let read = || photo::read_bytes(&catalogue.path_of(entry));
    stat.is_some() && stat != state.stat && read().is_ok_and(|bytes| digest(&bytes) != content)
}

/// Adds a shard's counts to the totals.
fn count(stage: &mut Stage, shard: &Summary) {
    for name in Tally::default().named().into_iter().map(|(name, _)| name).chain(["vanished"]) {
        stage.add(name, shard.counts.count(name).unwrap_or(0));
    }
    for name in ["precision", "calibration_id", "embedder_id"] {
        if let Some(value) = shard.counts.get::<String>(name) {
            stage.count(name, value);
        }
    }
}
