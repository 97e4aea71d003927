//! Whether a published folder is up to date, that is, what a run would make now: the one rule that `run`,
//! `--if-changed` and `status` share.
//!
//! It compares the stage's resolved settings, its [behaviour](behaviour_of) and the content of its inputs. It does not
//! use timestamps, and a new program version alone makes nothing stale.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::behaviour::behaviour_of;
use super::common::Common;
use super::inputs::{InputRecord, Listing, Read};
use super::outcome::Outcome;
use super::record::Summary;
use crate::error::Result;
use crate::files::{self, OpenFolder};

/// The folders of a run: those of its stages lie side by side.
#[derive(Debug, Clone, Copy)]
pub struct RunFolders<'a> {
    /// The folder that holds the stages' folders.
    pub output: &'a Path,
    /// The data set; `None` for the built-in sample.
    pub source: Option<&'a Path>,
}

impl RunFolders<'_> {
    /// The folder of that name.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        self.output.join(name)
    }
}

/// What a stage makes of its table besides its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableForm {
    /// Nothing.
    #[default]
    Folder,
    /// A Delta table beside it.
    Delta,
}

/// The settings of a stage that publishes a folder.
pub trait StageConfig: Serialize + DeserializeOwned + Default {
    /// Name of the stage, its command and its section in the settings.
    const NAME: &'static str;
    /// Whether its result depends on the seed.
    const SEEDED: bool = false;
    /// Settings that do not affect the result: paths, whose contents are compared instead, and limits.
    const WITHOUT_EFFECT: &'static [&'static str];

    /// The folder that is published.
    fn folder(&self) -> PathBuf;

    /// The folder of all shards; the published one if the stage has none.
    fn output(&self) -> PathBuf {
        self.folder()
    }

    /// The settings that say where the stage reads and writes in a run, with their values.
    fn in_run(run: &RunFolders) -> Vec<(&'static str, PathBuf)>;

    /// Checks everything that can be checked before this stage and the stages ahead of it run.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the invalid setting.
    fn check(&self) -> Result<()>;

    /// Its inputs, in the order in which they are recorded.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::Input`](crate::Error::Input) if they cannot be determined.
    fn reads(&self) -> Result<Vec<Read>>;

    /// What a published folder of the stage recorded about the files it was made from.
    #[must_use]
    fn known(folder: &Path) -> Listing {
        Listing::read(folder)
    }

    /// Whether a file of the published folder belongs to the table that is committed as a Delta table; `None` if the settings
    /// ask for none.
    fn delta_part(&self) -> Option<fn(&Path) -> bool> {
        None
    }

    /// Whether a merge of these shards takes a file of them over without reading it; `None` if it reads all.
    fn unread_by_merge(&self, _shards: &[&Summary]) -> Option<fn(&Path) -> bool> {
        None
    }

    /// Runs the stage.
    ///
    /// # Errors
    /// Those of the stage.
    fn run(&self, common: &Common) -> Result<Outcome>;
}

/// How thoroughly published files are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// By name and size.
    Sizes,
    /// By content.
    Contents,
}

/// Why a stage's folder is stale, one line per reason; empty if it is up to date.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if that cannot be determined.
pub fn reasons<C: StageConfig>(config: &C, common: &Common, depth: Depth) -> Result<Vec<String>> {
    let folder = config.folder();
    if !files::is_there(&folder)? {
        return Ok(vec!["it was never made".to_owned()]);
    }
    let opened = OpenFolder::open(&folder)?;
    let Some(made) = Summary::find(opened.root())? else {
        return Ok(vec!["it has no readable record".to_owned()]);
    };
    let mut reasons = changed_settings(config, common, &made);
    if made.behaviour != behaviour_of(C::NAME) {
        reasons.push(format!("it was made by lookbook {}, which works differently", made.version));
    }
    reasons.extend((!made.complete).then(|| "more inputs were rejected than allowed".to_owned()));
    reasons.extend(changed_inputs(config, &made, opened.root()));
    reasons.extend(match depth {
        Depth::Sizes => made.missing_files(opened.root()),
        Depth::Contents => made.damaged_files(opened.root()),
    });
    Ok(reasons)
}

/// One line for each setting that differs from what the folder was made with.
fn changed_settings<C: StageConfig>(config: &C, common: &Common, made: &Summary) -> Vec<String> {
    let json = |config: &C| serde_json::to_value(config).unwrap_or_default();
    let (now, by_default) = (json(config), json(&C::default()));
    let mut changes: Vec<String> = now
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !C::WITHOUT_EFFECT.contains(&key.as_str()))
        .filter_map(|(key, now)| {
            // A setting that did not exist yet behaved as its current default.
            let before = made.config.setting(key).unwrap_or_else(|| by_default[key].clone());
            (*now != before).then(|| format!("setting {key} is {now}, it was made with {before}"))
        })
        .collect();
    let seed = made.config.seed();
    if C::SEEDED && seed != Some(common.seed) {
        changes.push(format!("the seed is {}, it was made with {}", common.seed, seed.unwrap_or_default()));
    }
    changes
}

/// One line for each input that differs from what the stage read.
fn changed_inputs<C: StageConfig>(config: &C, made: &Summary, folder: &Path) -> Vec<String> {
    let reads = match config.reads() {
        Ok(reads) => reads,
        Err(problem) => return vec![problem.with_causes()],
    };
    if reads.len() != made.inputs.len() {
        return vec![format!("it reads {} inputs, it was made from {}", reads.len(), made.inputs.len())];
    }
    let known =
        if reads.iter().any(|it| matches!(it, Read::Files { .. })) { C::known(folder) } else { Listing::default() };
    let change = |(read, before): (&Read, &InputRecord)| match read.now(&known) {
        Ok(now) if now.is_same(before) => None,
        Ok(_) => Some(match read {
            Read::File(path) => format!("{} was changed", path.display()),
            Read::Files { path, .. } => format!("files of {} were changed", path.display()),
            Read::Recorded(record) => format!("the shards read another {}", record.path.display()),
        }),
        Err(_) => Some(format!("{} cannot be read", read.path().display())),
    };
    reads.iter().zip(&made.inputs).filter_map(change).collect()
}

/// Whether the inputs of a folder of this stage have changed since it was made, according to the settings in its
/// record.
#[must_use]
pub fn has_changed_inputs<C: StageConfig>(made: &Summary, folder: &Path) -> bool {
    let config = made.config.config::<C>(&Map::new());
    config.is_ok_and(|config| !changed_inputs(&config, made, folder).is_empty())
}
