//! The versions of an output folder: `NAME` is the published one; hidden beside it are the unfinished one
//! (`.NAME.partial`), earlier ones (`.NAME.previous-1` is the newest) and the one that a gate held back
//! (`.NAME.rejected`).
//!
//! Publishing is a single exchange of two folders, and that is the moment of success: what follows only tidies up. If
//! that fails, it is logged as a warning and the next run does it. A folder that holds a version is only ever renamed
//! until it is too old to be kept (`.NAME.expired`, which is removed). Which of two versions is newer is decided by the
//! generation in their records, never by a clock.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::lock;
use super::record::{RUN_FILE, Summary};
use crate::error::{Error, Result};
use crate::files;

/// Name of the published folder between the two renames on a file system without atomic exchange.
const ASIDE: &str = "old";
/// Name of a version that is too old to be kept, until it is removed.
const EXPIRED: &str = "expired";
/// Name of the copy of a published folder to which a file is being added.
const AMENDED: &str = "amended";

/// The locations of an output folder's versions.
#[derive(Debug, Clone)]
pub struct Versions {
    /// The published folder; if the settings name a symbolic link, its target.
    pub(super) output: PathBuf,
    parent: PathBuf,
    name: String,
}

impl Versions {
    /// The versions of the folder `output`, which need not exist.
    ///
    /// # Errors
    /// [`Error::Config`] if `output` does not name a folder, or names a mount point, which cannot be replaced by a
    /// rename.
    pub fn of(output: &Path) -> Result<Self> {
        let target = if output.is_symlink() {
            fs::canonicalize(output).map_err(Error::io("follow the symbolic link", output))?
        } else {
            output.to_owned()
        };
        let name = target
            .file_name()
            .ok_or_else(|| Error::config("output", format!("'{}' does not name a folder", output.display())))?
            .to_string_lossy()
            .into_owned();
        let parent = files::parent_of(&target);
        let device = |path: &Path| fs::metadata(path).ok().map(|it| it.dev());
        if device(&target).is_some_and(|of_output| device(&parent) != Some(of_output)) {
            let problem = format!(
                "'{}' is a mount point, which cannot be replaced by a rename; choose a folder inside it",
                target.display()
            );
            return Err(Error::config("output", problem));
        }
        Ok(Self { output: target, parent, name })
    }

    fn hidden(&self, suffix: &str) -> PathBuf {
        self.parent.join(format!(".{}.{suffix}", self.name))
    }

    /// The folder that a run is writing, or that a killed run left behind.
    #[must_use]
    pub fn partial(&self) -> PathBuf {
        self.hidden("partial")
    }

    /// The lock file.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.hidden("lock")
    }

    /// The version that a gate held back.
    #[must_use]
    pub fn rejected(&self) -> PathBuf {
        self.hidden("rejected")
    }

    /// The version published `age` versions ago, from 1.
    #[must_use]
    pub fn previous(&self, age: usize) -> PathBuf {
        self.hidden(&format!("previous-{age}"))
    }

    /// The record of the previous version.
    fn read_previous(&self) -> Result<Summary> {
        let folder = self.previous(1);
        if files::is_there(&folder.join(RUN_FILE))? { Summary::read(&folder) } else { Err(self.without_previous()) }
    }

    fn without_previous(&self) -> Error {
        let problem = format!("has no version before it ({} does not exist)", self.previous(1).display());
        Error::input(&self.output, problem)
    }

    /// The generation of the next version: above those of all existing versions.
    pub(super) fn next_generation(&self) -> Result<u64> {
        let kept = self.ages()?.into_iter().map(|age| self.previous(age));
        let folders = kept.chain([self.output.clone(), self.rejected()]);
        let generations = folders.map(|folder| {
            Ok(match generation(&folder)? {
                Generation::Of(number) => number,
                Generation::None | Generation::Damaged => 0,
            })
        });
        Ok(generations.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0) + 1)
    }

    /// Replaces the output with the unfinished folder, which has generation `new`. Once it is in place nothing fails
    /// any more: if tidying up does not work, that is logged and left to the next run.
    pub(super) fn publish(&self, new: u64, keep: usize) -> Result<()> {
        let old = match files::exchange(&self.partial(), &self.output, &self.hidden(ASIDE)) {
            Ok(old) => old,
            // A network file system may report this if its first reply was lost.
            Err(_) if generation(&self.output).is_ok_and(|it| it == Generation::Of(new)) => {
                files::is_there(&self.partial()).unwrap_or(false).then(|| self.partial())
            }
            Err(error) => return Err(error),
        };
        self.warn(self.tidy_up(old.as_deref(), keep));
        Ok(())
    }

    /// Keeps the version `old`, which was published until now, and deletes what is obsolete.
    fn tidy_up(&self, old: Option<&Path>, keep: usize) -> Result<()> {
        files::flush(&self.parent)?;
        if let Some(old) = old {
            self.retire(old, keep)?;
        }
        if files::is_there(&self.rejected())? {
            self.expire(&self.rejected())?;
        }
        files::flush(&self.parent)
    }

    /// Logs what could not be tidied up; the next run does it.
    fn warn(&self, result: Result<()>) {
        if let Err(error) = result {
            let (output, error) = (self.output.display(), error.with_causes());
            tracing::warn!(
                "{output} is published, but tidying up old versions beside it failed and is left to the next run: {error}"
            );
        }
    }

    /// Makes the version `old`, which was published until now, the newest of the kept ones.
    fn retire(&self, old: &Path, keep: usize) -> Result<()> {
        let ages = self.ages()?;
        // A killed run may have left a gap: nothing older than the gap has to move.
        let free = (1..=ages.len() + 1).find(|age| !ages.contains(age)).expect("one more number than folders");
        for age in (1..free).rev() {
            files::rename(&self.previous(age), &self.previous(age + 1))?;
        }
        files::rename(old, &self.previous(1))?;
        self.ages()?.into_iter().filter(|&age| age >= keep.max(1)).try_for_each(|age| self.expire(&self.previous(age)))
    }

    /// Removes a version that is too old to be kept. It is renamed first, so that no remains of it are mistaken for a
    /// version.
    fn expire(&self, old: &Path) -> Result<()> {
        let expired = self.hidden(EXPIRED);
        files::remove_folder(&expired)?;
        files::rename(old, &expired)?;
        files::remove_folder(&expired)
    }

    /// The ages of the kept versions, ascending.
    fn ages(&self) -> Result<Vec<usize>> {
        let prefix = format!(".{}.previous-", self.name);
        let age = |path: PathBuf| path.file_name()?.to_str()?.strip_prefix(&prefix)?.parse().ok();
        let mut ages: Vec<usize> = files::entries(&self.parent)?.into_iter().filter_map(age).collect();
        ages.sort_unstable();
        Ok(ages)
    }

    /// Completes or undoes a publication that a run was killed in the middle of: afterwards the published folder is in
    /// place and the previous version is the newest of the kept ones. The lock must be held.
    pub(super) fn recover(&self, keep: usize) -> Result<()> {
        let aside = self.hidden(ASIDE);
        if files::is_there(&aside)? {
            if !files::is_there(&self.output)? {
                tracing::warn!(
                    "a run was killed while it was publishing {}: the previous version is restored",
                    self.name
                );
                files::rename(&aside, &self.output)?;
            } else if self.is_same(&aside)? {
                self.expire(&aside)?;
            } else {
                self.retire(&aside, keep)?;
            }
        }
        if self.was_published(&self.partial())? {
            self.retire(&self.partial(), keep)?;
        }
        for left in [AMENDED, EXPIRED] {
            self.warn(files::remove_folder(&self.hidden(left)));
        }
        Ok(())
    }

    /// Whether `folder` is the published version as it was before it was amended.
    fn is_same(&self, folder: &Path) -> Result<bool> {
        let published = generation(&self.output)?;
        Ok(matches!(published, Generation::Of(1..)) && generation(folder)? == published)
    }

    /// Whether `folder` holds a version that was published until a newer one replaced it. An unfinished folder has no
    /// record, or one with a higher generation than the published folder's.
    fn was_published(&self, folder: &Path) -> Result<bool> {
        Ok(match (generation(folder)?, generation(&self.output)?) {
            (Generation::Of(this), Generation::Of(published)) => this <= published,
            (Generation::Of(_), Generation::Damaged) => true,
            _ => false,
        })
    }

    /// Moves the unfinished folder aside for inspection.
    pub(super) fn reject(&self) -> Result<()> {
        if files::is_there(&self.rejected())? {
            self.expire(&self.rejected())?;
        }
        files::rename(&self.partial(), &self.rejected())?;
        files::flush(&self.parent)
    }

    /// Removes the unfinished folder, unless it holds a version.
    pub(super) fn clear_unfinished(&self) -> Result<()> {
        let partial = self.partial();
        if self.was_published(&partial)? {
            return Ok(());
        }
        files::remove_folder(&partial)
    }

    /// Creates the unfinished folder, empty except for the folders and files `kept` of an earlier run; returns whether
    /// there was such a folder. The lock must be held, and [`Versions::recover`] must have been called.
    pub(super) fn start(&self, kept: &[&str]) -> Result<bool> {
        let partial = self.partial();
        if !kept.iter().any(|name| partial.join(name).is_dir()) {
            files::remove_folder(&partial)?;
            files::create_folder(&partial)?;
            return Ok(false);
        }
        let is_kept = |path: &Path| kept.iter().any(|name| path == partial.join(name));
        for path in files::entries(&partial)? {
            if !path.is_dir() || path.is_symlink() {
                if path.is_symlink() || !is_kept(&path) {
                    files::remove_file(&path)?;
                }
            } else if !is_kept(&path) {
                files::remove_folder(&path)?;
            }
        }
        Ok(true)
    }

    /// Refuses a folder whose files were written by a stage other than `stage`, or not by lookbook at all.
    pub(super) fn refuse_foreign(&self, stage: Option<&str>) -> Result<()> {
        let entries = match fs::read_dir(&self.output) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(Error::io("use as an output folder", &self.output)(cause)),
            Ok(entries) => entries.count(),
        };
        if entries > 0 && !self.output.join(RUN_FILE).is_file() {
            return Err(Error::input(
                &self.output,
                "holds files that no stage of lookbook wrote; choose an empty or a new folder, nothing was touched",
            ));
        }
        let made_by = Summary::read(&self.output).ok().map(|it| it.stage);
        if let (Some(made_by), Some(stage)) = (made_by, stage)
            && made_by != stage
        {
            let problem = format!("is of '{made_by}', not of '{stage}'; choose another folder, nothing was touched");
            return Err(Error::input(&self.output, problem));
        }
        Ok(())
    }

    /// Replaces the published folder with one that has the same files (as hard links), except for those that `write`
    /// writes into it. The lock must be held.
    pub(super) fn amend(&self, replaced: &[&str], write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let amended = self.hidden(AMENDED);
        files::remove_folder(&amended)?;
        files::create_folder(&amended)?;
        for entry in walkdir::WalkDir::new(&self.output).min_depth(1).sort_by_file_name() {
            let entry = entry.map_err(|cause| Error::io("read", &self.output)(cause.into()))?;
            let name = entry.path().strip_prefix(&self.output).expect("it lies in the folder");
            if entry.file_type().is_dir() {
                files::create_folder(&amended.join(name))?;
            } else if !replaced.iter().any(|it| name == Path::new(it)) {
                files::adopt(entry.path(), &amended.join(name))?;
            }
        }
        write(&amended)?;
        files::flush_tree(&amended, |_| false)?;
        if let Some(old) = files::exchange(&amended, &self.output, &self.hidden(ASIDE))? {
            // Everything in it is in the new one as well.
            self.warn(files::flush(&self.parent).and_then(|()| self.expire(&old)));
        }
        Ok(())
    }
}

/// The generation of a folder according to its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generation {
    /// There is no record.
    None,
    /// The record cannot be read.
    Damaged,
    /// The generation; 0 if it was made before generations were counted.
    Of(u64),
}

/// The generation of a folder.
fn generation(folder: &Path) -> Result<Generation> {
    let path = folder.join(RUN_FILE);
    let text = match fs::read(&path) {
        Err(cause) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&cause.kind()) => {
            return Ok(Generation::None);
        }
        other => other.map_err(Error::io("read", &path))?,
    };
    let record = serde_json::from_slice::<Summary>(&text);
    Ok(record.map_or(Generation::Damaged, |it| Generation::Of(it.generation)))
}

/// Swaps the published version with the previous one; a second call undoes the first. Returns the record of the version
/// that is published now.
///
/// # Errors
/// [`Error::Input`] if there is no previous version, [`Error::Locked`] if a run holds the folder, [`Error::Io`].
pub fn roll_back(output: &Path) -> Result<Summary> {
    let versions = Versions::of(output)?;
    versions.refuse_foreign(None)?;
    if !files::is_there(&files::parent_of(&versions.output))? {
        return Err(versions.without_previous());
    }
    let _lock = lock::take(output, &versions.lock(), "rollback", std::time::Duration::ZERO)?;
    versions.recover(usize::MAX)?;
    let summary = versions.read_previous()?;
    let before = versions.previous(1);
    if let Some(old) = files::exchange(&before, &versions.output, &versions.hidden(ASIDE))?
        && old != before
    {
        versions.warn(files::rename(&old, &before));
    }
    versions.warn(files::flush(&versions.parent));
    Ok(summary)
}

/// The record of the version that [`roll_back`] would publish. Changes nothing.
///
/// # Errors
/// [`Error::Input`] if there is no previous version, [`Error::Io`].
pub fn previous(output: &Path) -> Result<Summary> {
    let versions = Versions::of(output)?;
    versions.refuse_foreign(None)?;
    versions.read_previous()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::{Common, Stage};

    fn publish(output: &Path, version: &str) -> Result<()> {
        let stage = Stage::begin("test", output, &Common { keep_versions: 3, ..Common::default() }, &())?;
        files::write(&stage.path("version"), version.as_bytes())?;
        stage.publish().map(drop)
    }

    fn version(folder: &Path) -> Option<String> {
        fs::read_to_string(folder.join("version")).ok()
    }

    /// A folder with versions 3, 2 and 1, all made within the same second.
    fn nights(place: &Path) -> Result<Versions> {
        let output = place.join("out");
        for version in ["1", "2", "3"] {
            publish(&output, version)?;
        }
        Versions::of(&output)
    }

    fn kept(versions: &Versions) -> Vec<String> {
        let folders = [versions.output.clone(), versions.previous(1), versions.previous(2), versions.previous(3)];
        folders.iter().filter_map(|folder| version(folder)).collect()
    }

    #[test]
    fn a_folder_of_another_stage_is_refused_and_a_dry_run_refuses_what_a_run_would() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let (output, common) = (place.path().join("out"), Common::default());
        publish(&output, "1")?;
        for refused in [
            Stage::begin("other", &output, &common, &()).map(drop),
            crate::stage::dry_run("other", &output, &common, &()).map(drop),
        ] {
            let problem = refused.expect_err("it is of 'test'").to_string();
            assert!(problem.contains("is of 'test', not of 'other'"), "{problem}");
        }
        assert_eq!(version(&output).as_deref(), Some("1"));
        crate::stage::dry_run("test", &output, &common, &())?;
        let _held = Stage::begin("test", &output, &common, &())?;
        let locked = crate::stage::dry_run("test", &output, &common, &()).expect_err("it is held");
        assert_eq!(locked.exit_code(), 75);
        Ok(())
    }

    #[test]
    fn a_kill_after_the_exchange_loses_no_version() -> Result<()> {
        for shifted in [false, true] {
            for then in ["publish", "roll back"] {
                let place = tempfile::tempdir().expect("a temporary folder");
                let versions = nights(place.path())?;
                // The state right after the exchange when 3 is published over 2, or one rename later.
                files::rename(&versions.previous(1), &versions.partial())?;
                if !shifted {
                    files::rename(&versions.previous(2), &versions.previous(1))?;
                }
                if then == "publish" {
                    publish(&versions.output, "4")?;
                    assert_eq!(kept(&versions), ["4", "3", "2"]);
                } else {
                    roll_back(&versions.output)?;
                    assert_eq!(kept(&versions), ["2", "3", "1"]);
                    publish(&versions.output, "4")?;
                    assert_eq!(kept(&versions), ["4", "2", "3"]);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn what_was_never_published_is_no_version_and_what_was_is_never_cleared() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let versions = nights(place.path())?;
        // Killed right before the exchange: there is a record, with the next generation.
        let partial = versions.partial();
        files::create_folder(&partial)?;
        files::write(&partial.join("version"), b"never")?;
        let mut record = Summary::read(&versions.output)?;
        record.generation += 1;
        files::write_json(&partial.join(RUN_FILE), &record)?;
        roll_back(&versions.output)?;
        assert_eq!(kept(&versions), ["2", "3", "1"]);
        // A run that fails after the exchange finds a version in the place of the unfinished folder.
        files::remove_folder(&versions.partial())?;
        files::rename(&versions.previous(2), &versions.partial())?;
        versions.clear_unfinished()?;
        assert_eq!(version(&versions.partial()).as_deref(), Some("1"));
        Ok(())
    }

    #[test]
    fn what_cannot_be_tidied_up_fails_nothing_and_is_done_by_the_next_run() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let versions = nights(place.path())?;
        // A file where a folder is expected cannot be removed as a folder.
        files::write(&versions.hidden(EXPIRED), b"in the way")?;
        publish(&versions.output, "4")?;
        assert_eq!(kept(&versions), ["4", "3", "2", "1"]);
        files::remove_file(&versions.hidden(EXPIRED))?;
        publish(&versions.output, "5")?;
        assert_eq!(kept(&versions), ["5", "4", "3"]);
        Ok(())
    }

    #[test]
    fn without_an_atomic_exchange_a_kill_leaves_the_version_before_to_come_back() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let versions = nights(place.path())?;
        let aside = versions.hidden(ASIDE);
        // After the first of the renames.
        files::rename(&versions.output, &aside)?;
        versions.recover(3)?;
        assert_eq!(kept(&versions), ["3", "2", "1"]);
        // After the second.
        publish(&versions.output, "4")?;
        files::rename(&versions.previous(1), &aside)?;
        versions.recover(3)?;
        assert_eq!(kept(&versions), ["4", "3", "2"]);
        // A rollback after its second rename, then one after its first.
        files::rename(&versions.output, &aside)?;
        files::rename(&versions.previous(1), &versions.output)?;
        roll_back(&versions.output)?;
        assert_eq!(kept(&versions), ["4", "3", "2"]);
        files::rename(&versions.output, &aside)?;
        roll_back(&versions.output)?;
        assert_eq!(kept(&versions), ["3", "4", "2"]);
        assert!(!aside.exists());
        Ok(())
    }
}
