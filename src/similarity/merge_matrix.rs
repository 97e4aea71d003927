//! Merges the shards of a similarity run into one folder.

use std::path::{Path, PathBuf};

use super::RECALL;
use super::config::{Config, STAGE};
use super::counts::{FEATURE_COUNTS, count_nearest};
use super::tables::{self, MATRIX_FOLDER, NEIGHBOURS_FILE, PAIRS_FOLDER, PHOTOS_FILE, write_neighbours};
use crate::error::Result;
use crate::stage::{self, Common, Outcome, Stage};
use crate::worn::PAIRS_FILE;
use crate::{files, shard};

/// Merges all shards of the similarity folder `output` into it. All must exist and come from the same settings and
/// features. Their parts are linked or copied unchanged.
///
/// # Errors
/// [`Error::Input`](crate::Error::Input) naming a shard that is missing or was made differently.
pub(super) fn merge(output: &Path, common: &Common) -> Result<Outcome> {
    let shards = shard::published::<Config>(output)?;
    let (first, summary) = &shards[0];
    let config = Config { merge: true, ..shard::settings(&shards[0])? };
    if common.dry_run {
        return stage::dry_run(STAGE, output, common, &config).map(Outcome::Planned);
    }
    let mut stage = Stage::begin(STAGE, output, common, &config)?;
    // All shards read the same.
    summary.inputs.iter().for_each(|input| stage.record(input.clone()));
    let (mut photos, mut neighbours) = (0, Vec::new());
    for (folder, summary) in &shards {
        adopt_parts(folder.root(), MATRIX_FOLDER, &stage)?;
        adopt_parts(folder.root(), PAIRS_FOLDER, &stage)?;
        neighbours.extend(tables::read_neighbours(&folder.path(NEIGHBOURS_FILE))?);
        photos += summary.counts.count("photos").unwrap_or_default();
    }
    // Every shard has these of all photos.
    for whole in [PHOTOS_FILE, PAIRS_FILE] {
        files::adopt(&first.path(whole), &stage.path(whole))?;
    }
    write_neighbours(&stage.path(NEIGHBOURS_FILE), &neighbours)?;
    stage.count("photos", photos);
    stage.count("neighbours", neighbours.len());
    stage.count("shards", shards.len());
    for name in FEATURE_COUNTS {
        if let Some(value) = summary.counts.get::<serde_json::Value>(name) {
            stage.count(name, value);
        }
    }
    let recalls: Vec<f64> = shards.iter().filter_map(|(_, summary)| summary.counts.number(RECALL)).collect();
    if !recalls.is_empty() {
        stage.count(RECALL, recalls.iter().sum::<f64>() / recalls.len() as f64);
    }
    count_nearest(&mut stage)?;
    stage.publish()
}

/// Links or copies the parts of `folder/name` into the unpublished folder.
fn adopt_parts(folder: &Path, name: &str, stage: &Stage) -> Result<()> {
    let source = folder.join(name);
    if !source.is_dir() {
        return Ok(());
    }
    let place = stage.create_folder(name)?;
    let adopt = |part: &PathBuf| files::adopt(part, &place.join(part.file_name().unwrap_or_default()));
    files::entries(&source)?.iter().try_for_each(adopt)
}
