//! `duplicates`: near-duplicates among the photos of a feature table.
//!
//! In: a features folder, of which the perceptual hashes are read ([`crate::photo::hashes`]). Out: `groups.parquet` (see
//! [`read_groups`]) and `run.json`. Which photos are near each other is exact (`join`), and groups are stars (`groups`).

use std::path::PathBuf;

use crate::error::Result;
use crate::files::OpenFolder;
use crate::stage::{self, Common, Outcome, Read, RunFolders, Stage, StageConfig};
use crate::table;

mod config;
mod groups;
mod hashed;
mod join;
mod tables;

pub use config::{Config, DEFAULT_DISTANCE, STAGE};
pub use groups::{HashedPhoto, group};
use hashed::Hashed;
pub use join::MAX_DISTANCE;
use tables::write_groups;
pub use tables::{GROUPS_FILE, GroupedPhoto, read_groups};

impl StageConfig for Config {
    const NAME: &'static str = STAGE;
    const WITHOUT_EFFECT: &'static [&'static str] = &["features", "output"];

    fn folder(&self) -> PathBuf {
        self.output.clone()
    }

    fn in_run(run: &RunFolders) -> Vec<(&'static str, PathBuf)> {
        vec![("features", run.folder("features")), ("output", run.folder(STAGE))]
    }

    fn check(&self) -> Result<()> {
        config::check_values(self)
    }

    fn reads(&self) -> Result<Vec<Read>> {
        Ok(table::parts(&self.features)?.into_iter().map(Read::File).collect())
    }

    fn run(&self, common: &Common) -> Result<Outcome> {
        run(self, common)
    }
}

/// Groups the photos of a feature table.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) naming the invalid setting; [`Error::Input`](crate::Error::Input) if the feature
/// table has no hashes; those of [`Stage`].
pub fn run(config: &Config, common: &Common) -> Result<Outcome> {
    config.check()?;
    let folder = OpenFolder::open(&config.features)?;
    let hashed = Hashed::read(&folder)?;
    if common.dry_run {
        let mut summary = stage::dry_run(STAGE, &config.output, common, config)?;
        summary.counts.set("photos", hashed.photos.len());
        return Ok(Outcome::Planned(summary));
    }
    let mut stage = Stage::begin(STAGE, &config.output, common, config)?;
    for part in table::parts(folder.root())? {
        stage.input_of(&folder, part.file_name().unwrap_or_default())?;
    }
    let flat = hashed.photos.iter().filter(|it| it.hash.is_none()).count();
    let groups = group(hashed.photos, &hashed.hashes, config.distance, STAGE)?;
    write_groups(&stage.path(GROUPS_FILE), &groups)?;
    count(&groups, &mut stage);
    stage.count("photos_without_hash", flat);
    stage.publish()
}

/// Counts photos and groups for the record.
fn count(groups: &[GroupedPhoto], stage: &mut Stage) {
    let mut others: Vec<u32> = groups.iter().filter(|it| !it.is_representative).map(|it| it.group_id).collect();
    others.sort_unstable();
    let sizes = || others.chunk_by(|a, b| a == b).map(|it| it.len() + 1);
    stage.count("photos", groups.len());
    stage.count("groups", sizes().count());
    stage.count("duplicates", others.len());
    stage.count("exact_copies", groups.iter().filter(|it| it.is_exact_copy).count());
    stage.count("largest_group", sizes().max().unwrap_or(groups.len().min(1)));
}
