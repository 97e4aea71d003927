//! What all stages share: the common settings, and an output folder that is published as a whole or not at all.
//!
//! A stage writes into a hidden folder beside its output (`.NAME.partial`), under a kernel lock that dies with the
//! process (`.NAME.lock`). [`Stage::publish`] reads everything back, writes `run.json` last, flushes, and replaces the
//! old folder with the new one in one rename; the old one is kept beside it (`.NAME.previous-1`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::engine::Backend;
use crate::error::{Error, Result};
use crate::files::{self, OpenFolder};
use crate::gates::GateResult;

mod behaviour;
mod common;
mod figures;
mod inputs;
mod lock;
mod outcome;
mod record;
mod stale;
mod versions;

pub use behaviour::behaviour_of;
pub use common::{Common, DEFAULT_KEEP_VERSIONS, MAX_THREADS, available_threads};
pub use figures::{Figures, MadeWith};
pub use inputs::{Digest, InputRecord, Listed, Listing, Read, Stat};
pub use lock::{Lock, held_by, take};
pub use outcome::Outcome;
pub use record::{FileRecord, RUN_FILE, Summary, damaged_files, now, planned};
pub use stale::{Depth, RunFolders, StageConfig, TableForm, has_changed_inputs, reasons};
pub use versions::{Versions, previous, roll_back};

/// The record a stage would write, after checking that it could start now.
///
/// # Errors
/// As [`Stage::begin`] if another run holds the folder or lookbook did not make it.
pub fn dry_run(name: &str, output: &Path, common: &Common, config: &impl Serialize) -> Result<Summary> {
    Versions::of(output)?.refuse_foreign(Some(name))?;
    refuse_held(output)?;
    Ok(planned(name, output, common, config))
}

/// Refuses a folder whose files were written by another stage, or not by lookbook at all.
///
/// # Errors
/// [`Error::Input`], [`Error::Io`].
pub fn refuse_foreign(name: &str, output: &Path) -> Result<()> {
    Versions::of(output)?.refuse_foreign(Some(name))
}

/// Refuses a folder that a run currently holds.
///
/// # Errors
/// [`Error::Locked`].
pub fn refuse_held(output: &Path) -> Result<()> {
    match held_by(&Versions::of(output)?.lock()) {
        Some(holder) => Err(Error::Locked { output: output.to_owned(), holder }),
        None => Ok(()),
    }
}

/// A running stage: owns the lock and the unfinished folder. If dropped without [`Stage::publish`], it leaves the
/// published folder as it was and deletes the unfinished one.
#[derive(Debug)]
pub struct Stage {
    summary: Summary,
    versions: Versions,
    partial: PathBuf,
    keep_versions: usize,
    started: Instant,
    settled: bool,
    keep_unfinished: bool,
    scratch: Option<&'static str>,
    /// Files that another published folder vouches for.
    taken_over: HashMap<PathBuf, FileRecord>,
    _lock: Lock,
}

impl Stage {
    /// Takes the lock of `output` and creates an empty unfinished folder beside it.
    ///
    /// # Errors
    /// [`Error::Locked`] if another run holds it, [`Error::Input`] if `output` exists and is not a stage's folder
    /// (foreign files are never replaced), [`Error::Io`] if the folder cannot be created.
    pub fn begin(name: &str, output: &Path, common: &Common, config: &impl Serialize) -> Result<Self> {
        Self::begin_again(name, output, common, config, &[])
    }

    /// As [`Stage::begin`], but keeps the folders `kept` that an earlier run left in the unfinished folder; they also
    /// stay if this run fails.
    ///
    /// # Errors
    /// As [`Stage::begin`].
    pub fn begin_again(
        name: &str,
        output: &Path,
        common: &Common,
        config: &impl Serialize,
        kept: &[&str],
    ) -> Result<Self> {
        let versions = Versions::of(output)?;
        versions.refuse_foreign(Some(name))?;
        files::create_folder(&files::parent_of(&versions.output))?;
        let lock = lock::take(output, &versions.lock(), name, Duration::from_secs(common.lock_wait_secs))?;
        versions.recover(common.keep_versions)?;
        let mut summary = planned(name, output, common, config);
        summary.generation = versions.next_generation()?;
        let keep_unfinished = versions.start(kept)?;
        Ok(Self {
            summary,
            partial: versions.partial(),
            versions,
            keep_versions: common.keep_versions,
            started: Instant::now(),
            settled: false,
            keep_unfinished,
            scratch: None,
            taken_over: HashMap::new(),
            _lock: lock,
        })
    }

    /// Keeps the unfinished folder until the next run if this one aborts: for hours of work, such as checkpoints.
    pub fn keep_unfinished(&mut self) {
        self.keep_unfinished = true;
    }

    /// The path to write the file `name` of the folder to be published to.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.partial.join(name)
    }

    /// Creates a folder inside the folder to be published.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create_folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        files::create_folder(&path)?;
        Ok(path)
    }

    /// Takes a file of a published folder over under another name, unread: its record says what it holds. Its size is checked.
    ///
    /// # Errors
    /// [`Error::Input`] if it is missing or of another size, [`Error::Io`].
    pub fn take_over(&mut self, folder: &OpenFolder, file: &FileRecord, name: &Path) -> Result<()> {
        let path = folder.path(&file.name);
        if std::fs::metadata(&path).ok().map(|it| it.len()) != Some(file.bytes) {
            let problem = "is missing or not as it was written; run the stage that made it again";
            return Err(Error::input(folder.name().join(&file.name), problem));
        }
        let place = self.partial.join(name);
        files::create_folder(&files::parent_of(&place))?;
        files::adopt(&path, &place)?;
        self.taken_over.insert(name.to_owned(), FileRecord { name: name.to_owned(), ..file.clone() });
        Ok(())
    }

    /// Records what the stage reads, and returns the record; for many files, also writes their listing into the folder.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub fn input(&mut self, read: &Read, known: &Listing) -> Result<InputRecord> {
        let record = match read {
            Read::File(path) => InputRecord::of(path)?,
            Read::Files { path, files } => {
                let listing = Listing::of(files, known);
                listing.write(&self.partial)?;
                listing.record(path)
            }
            Read::Recorded(record) => record.clone(),
        };
        self.summary.inputs.push(record.clone());
        Ok(record)
    }

    /// Records an input.
    pub fn record(&mut self, input: InputRecord) {
        self.summary.inputs.push(input);
    }

    /// As [`Stage::input`], for a file in a folder that the stage has opened.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub fn input_of(&mut self, folder: &OpenFolder, file: impl AsRef<Path>) -> Result<InputRecord> {
        let record = InputRecord::of_file(folder, file.as_ref())?;
        self.summary.inputs.push(record.clone());
        Ok(record)
    }

    /// As [`Stage::input`], for the content `bytes` already read from the file `path`.
    pub fn input_read(&mut self, path: &Path, bytes: &[u8]) {
        self.summary.inputs.push(InputRecord::of_content(path, bytes));
    }

    /// Records a count or a figure.
    pub fn count(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        self.summary.counts.set(name, value);
    }

    /// Adds to a count.
    pub fn add(&mut self, name: &str, more: u64) {
        self.summary.counts.add(name, more);
    }

    /// Marks the folder `name` inside the unfinished one as scratch: the next run finds it if this one fails, and it is
    /// deleted before publishing.
    pub fn remove_before_publishing(&mut self, name: &'static str) {
        self.scratch = Some(name);
    }

    /// Records gates; a failed gate prevents the folder from being published.
    pub fn gates(&mut self, results: Vec<GateResult>) {
        self.summary.gates.extend(results);
    }

    /// Records and logs what the network actually runs on.
    pub fn backend(&mut self, backend: Backend) {
        let stage = &self.summary.stage;
        tracing::info!("{stage} runs on {}, {} operators", backend.provider.name(), backend.dialect.name());
        self.summary.set_backend(backend);
    }

    /// Reads everything in the folder back, writes `run.json`, flushes it all to disk and replaces the output with it
    /// in one rename; or moves it aside if a gate failed.
    ///
    /// # Errors
    /// [`Error::Schema`] and [`Error::Input`] if something does not read back, [`Error::Io`]. The previously published
    /// folder then stays in place.
    pub fn publish(mut self) -> Result<Outcome> {
        if let Some(name) = self.scratch {
            files::remove_folder(&self.path(name))?;
        }
        self.summary.files = record::verify(&self.partial, &self.taken_over)?;
        self.summary.elapsed_secs = self.started.elapsed().as_secs_f64();
        files::write_json(&self.path(RUN_FILE), &self.summary)?;
        files::flush_tree(&self.partial, |name| self.taken_over.contains_key(name))?;
        let summary = self.summary.clone();
        if summary.gates.iter().any(|gate| !gate.passed) {
            self.versions.reject()?;
            self.settled = true;
            return Ok(Outcome::KeptBack { summary, aside: self.versions.rejected() });
        }
        self.versions.publish(summary.generation, self.keep_versions)?;
        self.settled = true;
        tracing::debug!(
            stage = summary.stage,
            output = %summary.output.display(),
            elapsed_secs = (summary.elapsed_secs * 10.0).round() / 10.0,
            "published"
        );
        Ok(Outcome::Published(summary))
    }

    /// As [`Stage::publish`]; the outcome also tells if more than the fraction `allowed` of `total` photos was
    /// rejected, which the folder's file `table` lists.
    ///
    /// # Errors
    /// As [`Stage::publish`].
    pub fn publish_with_rejects(mut self, rejected: u64, total: u64, allowed: f64, table: &str) -> Result<Outcome> {
        let too_many = rejected as f64 > allowed * total as f64;
        self.summary.complete = !too_many;
        Ok(match self.publish()? {
            Outcome::Published(summary) if too_many => {
                let table = summary.output.join(table);
                Outcome::TooManyRejects { summary, rejected, total, allowed, table }
            }
            other => other,
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        if self.keep_unfinished {
            tracing::warn!("the work so far is kept in {} until the next run", self.partial.display());
        } else if let Err(error) = self.versions.clear_unfinished() {
            tracing::warn!("an unfinished folder was left behind: {}", error.with_causes());
        }
    }
}

/// Adds a file to the published folder `folder` and its record, or replaces the one of that name.
///
/// # Errors
/// [`Error::Locked`] if a run is writing the folder, [`Error::Input`] if no stage published it or another version was
/// published since it was opened, [`Error::Io`]; the published folder is then unchanged.
pub fn add_file(folder: &OpenFolder, name: &str, content: &impl Serialize, common: &Common) -> Result<()> {
    let versions = Versions::of(folder.name())?;
    let wait = Duration::from_secs(common.lock_wait_secs);
    let _lock = lock::take(folder.name(), &versions.lock(), name, wait)?;
    versions.recover(common.keep_versions)?;
    if !folder.is_still_at(&versions.output)? {
        let problem = format!(
            "another version was published meanwhile: {name} does not belong to it and was not written; run again"
        );
        return Err(Error::input(folder.name(), problem));
    }
    let mut summary = Summary::read(&versions.output)?;
    versions.amend(&[name, RUN_FILE], |amended| {
        let path = amended.join(name);
        files::write_json(&path, content)?;
        let file = record::file_record(amended, &path)?;
        summary.files.retain(|other| other.name != file.name);
        summary.files.push(file);
        summary.files.sort_by(|a, b| a.name.cmp(&b.name));
        files::write_json(&amended.join(RUN_FILE), &summary)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn begin(output: &Path) -> Result<Stage> {
        Stage::begin("test", output, &Common::default(), &())
    }

    fn published(stage: Stage) -> Result<Summary> {
        Ok(stage.publish()?.published().expect("there are no gates"))
    }

    #[test]
    fn a_published_folder_replaces_the_one_before_whole() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let output = place.path().join("out");
        for (name, other) in [("first", "second"), ("second", "first")] {
            let mut stage = begin(&output)?;
            stage.count("files", 1);
            files::write(&stage.path(name), name.as_bytes())?;
            published(stage)?;
            assert!(output.join(name).is_file());
            assert!(!output.join(other).exists(), "nothing of the previous version is left");
        }
        assert_eq!(Summary::read(&output)?.counts["files"], 1);
        assert!(!place.path().join(".out.partial").exists());
        Ok(())
    }

    #[test]
    fn an_abandoned_stage_leaves_the_published_folder() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let output = place.path().join("out");
        published(begin(&output)?)?;
        let stage = begin(&output)?;
        files::write(&stage.path("half"), b"half")?;
        drop(stage);
        assert!(output.join(RUN_FILE).is_file());
        assert!(!place.path().join(".out.partial").exists());
        Ok(())
    }

    #[test]
    fn work_of_hours_stays_where_it_is_told_to() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let mut stage = begin(&place.path().join("out"))?;
        stage.keep_unfinished();
        files::write(&stage.path("checkpoint"), b"weights")?;
        drop(stage);
        assert!(place.path().join(".out.partial/checkpoint").is_file());
        Ok(())
    }

    #[test]
    fn what_a_run_left_unfinished_is_there_for_the_next_that_asks_for_it() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let output = place.path().join("out");
        let kept = place.path().join(".out.partial/checkpoints/1");
        let mut stage = begin(&output)?;
        stage.keep_unfinished();
        stage.create_folder("checkpoints")?;
        for name in ["checkpoints/1", "half"] {
            files::write(&stage.path(name), b"weights")?;
        }
        drop(stage);
        drop(Stage::begin_again("test", &output, &Common::default(), &(), &["checkpoints"])?);
        assert!(kept.is_file() && !place.path().join(".out.partial/half").exists());
        drop(begin(&output)?);
        assert!(!kept.exists());
        Ok(())
    }

    #[test]
    fn a_file_is_added_to_the_version_that_it_is_of_or_to_none() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let (output, common) = (place.path().join("out"), Common::default());
        for version in ["1", "2"] {
            let stage = begin(&output)?;
            stage.create_folder("more")?;
            files::write(&stage.path("more/version"), version.as_bytes())?;
            published(stage)?;
        }
        let version = |folder: &Path| fs::read_to_string(folder.join("more/version")).expect("readable");
        let previous = place.path().join(".out.previous-1");
        for content in ["good", "better"] {
            add_file(&OpenFolder::open(&output)?, "verdict", &content, &common)?;
            assert_eq!(fs::read_to_string(output.join("verdict")).expect("readable"), format!("\"{content}\"\n"));
            assert_eq!(Summary::read(&output)?.damaged_files(&output), Vec::<String>::new());
            assert_eq!(Summary::read(&output)?.files.len(), 2);
            assert_eq!([version(&output), version(&previous)], ["2", "1"]);
        }
        let opened = OpenFolder::open(&output)?;
        published(begin(&output)?)?;
        let refused = add_file(&opened, "verdict", &"bad", &common).expect_err("it is another version");
        assert!(refused.to_string().contains("another version was published meanwhile"), "{refused}");
        assert!(!output.join("verdict").exists());
        let hidden: Vec<_> = files::entries(place.path())?.into_iter().filter(|it| it != &output).collect();
        assert_eq!(hidden, [place.path().join(".out.lock"), previous], "nothing else is left");
        Ok(())
    }

    #[test]
    fn a_second_run_is_told_that_the_folder_is_held() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let output = place.path().join("out");
        let _held = begin(&output)?;
        let refused = begin(&output).expect_err("the folder is held");
        assert_eq!(refused.exit_code(), 75);
        Ok(())
    }

    #[test]
    fn a_folder_of_somebody_else_is_never_replaced() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let letter = place.path().join("letter.txt");
        fs::write(&letter, "dear").expect("a file");
        let refused = begin(place.path()).expect_err("the folder is not ours");
        assert!(matches!(refused, Error::Input { .. }), "{refused}");
        assert!(letter.is_file());
    }
}
