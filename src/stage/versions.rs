//! The versions of an output folder: `NAME` is the published one; beside it, hidden, the unfinished one (`.NAME.partial`),
//! the ones published before (`.NAME.previous-1` the newest) and the one that a gate held back (`.NAME.rejected`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files::{parent_of, remove_folder, sync};
use super::{RUN_FILE, Summary, lock};
use crate::error::{Error, Result};

/// What the published folder is called, hidden, between the renames of a file system without an atomic exchange.
const ASIDE: &str = "old";

/// Where the versions of an output folder lie.
#[derive(Debug, Clone)]
pub struct Versions {
    /// The published folder; where the settings name a symbolic link, what it points to.
    pub(super) output: PathBuf,
    parent: PathBuf,
    name: String,
}

impl Versions {
    /// Of the folder `output`, which need not be there.
    ///
    /// # Errors
    /// [`Error::Config`] where `output` does not name a folder, or names a mount point, which no rename can replace.
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
        let parent = parent_of(&target);
        let device = |path: &Path| fs::metadata(path).ok().map(|it| it.dev());
        if device(&target).is_some_and(|of_output| device(&parent) != Some(of_output)) {
            let problem =
                format!("'{}' is a mount point, which no rename can replace; name a folder in it", target.display());
            return Err(Error::config("output", problem));
        }
        Ok(Self { output: target, parent, name })
    }

    fn hidden(&self, suffix: &str) -> PathBuf {
        self.parent.join(format!(".{}.{suffix}", self.name))
    }

    /// The folder that a run is writing, or that a killed run has left.
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

    /// Puts the unfinished folder into the output's place with one rename and keeps `keep` versions in all.
    pub(super) fn publish(&self, keep: usize) -> Result<()> {
        exchange(&self.partial(), &self.output)?;
        remove_folder(&self.rejected())?;
        if self.partial().exists() {
            self.retire(keep)?;
        }
        sync(&self.parent)
    }

    /// What was published until now, and is now in the place of the unfinished folder, becomes the newest version before.
    fn retire(&self, keep: usize) -> Result<()> {
        // Also those that a larger setting kept.
        for age in keep.max(1).. {
            let old = self.previous(age);
            if !old.exists() {
                break;
            }
            remove_folder(&old)?;
        }
        if keep <= 1 {
            return remove_folder(&self.partial());
        }
        // A kill may have left a gap: nothing older than that has to move, or to go.
        let free = (1..keep).find(|&age| !self.previous(age).exists()).unwrap_or(keep - 1);
        remove_folder(&self.previous(free))?;
        for age in (1..free).rev() {
            rename(&self.previous(age), &self.previous(age + 1))?;
        }
        rename(&self.partial(), &self.previous(1))
    }

    /// Ends what a run was killed in the middle of when it had begun to publish: the published folder is in its place, and
    /// the version before is the newest of those kept. The lock must be held.
    pub(super) fn recover(&self, keep: usize) -> Result<()> {
        let aside = self.hidden(ASIDE);
        if aside.exists() && !self.output.exists() {
            tracing::warn!("a run was killed while it published {}: the version before is back", self.output.display());
            rename(&aside, &self.output)?;
        } else if aside.exists() {
            remove_folder(&self.partial())?;
            rename(&aside, &self.partial())?;
        }
        let made = |folder: &Path| Summary::read(folder).ok().map(|it| it.started_at);
        match (made(&self.partial()), made(&self.output)) {
            (Some(of_partial), Some(published)) if of_partial < published => self.retire(keep),
            _ => Ok(()),
        }
    }

    /// Moves the unfinished folder aside for inspection.
    pub(super) fn reject(&self) -> Result<()> {
        remove_folder(&self.rejected())?;
        rename(&self.partial(), &self.rejected())
    }

    /// Makes the unfinished folder, empty but for the folders `kept` of a run before; whether there was one of them. The
    /// lock must be held.
    pub(super) fn start(&self, kept: &[&str]) -> Result<bool> {
        let partial = self.partial();
        if !kept.iter().any(|name| partial.join(name).is_dir()) {
            remove_folder(&partial)?;
            fs::create_dir(&partial).map_err(Error::io("create", &partial))?;
            return Ok(false);
        }
        for entry in fs::read_dir(&partial).map_err(Error::io("read", &partial))? {
            let path = entry.map_err(Error::io("read", &partial))?.path();
            if path.is_dir() && !path.is_symlink() {
                if !kept.iter().any(|name| path == partial.join(name)) {
                    remove_folder(&path)?;
                }
            } else {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(true)
    }

    /// Refuses a folder with files of somebody else, or of a stage other than `stage`.
    pub(super) fn refuse_foreign(&self, stage: Option<&str>) -> Result<()> {
        let entries = match fs::read_dir(&self.output) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(Error::io("use as an output folder", &self.output)(cause)),
            Ok(entries) => entries.count(),
        };
        if entries > 0 && !self.output.join(RUN_FILE).is_file() {
            return Err(Error::input(
                &self.output,
                "holds files that no stage of lookbook wrote; name an empty or a new folder, nothing was touched",
            ));
        }
        let made_by = Summary::read(&self.output).ok().map(|it| it.stage);
        if let (Some(made_by), Some(stage)) = (made_by, stage)
            && made_by != stage
        {
            let problem = format!("is of '{made_by}', not of '{stage}'; name another folder, nothing was touched");
            return Err(Error::input(&self.output, problem));
        }
        Ok(())
    }
}

/// Puts the version before into the place of the published one, which becomes the version before: a second call takes the
/// first one back.
///
/// # Errors
/// [`Error::Input`] where there is no version before, [`Error::Locked`] where a run holds the folder, [`Error::Io`].
pub fn roll_back(output: &Path) -> Result<()> {
    let versions = Versions::of(output)?;
    versions.refuse_foreign(None)?;
    let before = versions.previous(1);
    if !before.join(RUN_FILE).is_file() {
        let problem = format!("has no version before it ({} is not there)", before.display());
        return Err(Error::input(output, problem));
    }
    let _lock = lock::take(output, &versions.lock(), "rollback", std::time::Duration::ZERO)?;
    exchange(&before, &versions.output)?;
    sync(&versions.parent)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("rename", from))
}

/// Puts `new` in the place of `output`; what was there, if anything, is then at `new`.
fn exchange(new: &Path, output: &Path) -> Result<()> {
    if !output.exists() {
        return fs::rename(new, output).map_err(Error::io("publish", output));
    }
    let here = rustix::fs::CWD;
    match rustix::fs::renameat_with(here, new, here, output, rustix::fs::RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            exchange_by_renames(new, output)
        }
        Err(errno) => Err(Error::io("publish", output)(errno.into())),
    }
}

/// For a file system without an atomic exchange: the old folder comes back where the second rename fails, and by
/// [`Versions::recover`] where a run is killed before it.
fn exchange_by_renames(new: &Path, output: &Path) -> Result<()> {
    // Of the hidden names only the last part differs.
    let old = new.with_extension(ASIDE);
    fs::rename(output, &old).map_err(Error::io("move aside", output))?;
    if let Err(cause) = fs::rename(new, output) {
        fs::rename(&old, output).map_err(Error::io("move back", output))?;
        return Err(Error::io("publish", output)(cause));
    }
    fs::rename(&old, new).map_err(Error::io("move aside", old))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::{Common, Stage, write_file, write_json};

    fn publish(output: &Path, version: &str) -> Result<()> {
        let stage = Stage::begin("test", output, &Common { keep_versions: 3, ..Common::default() }, &())?;
        write_file(&stage.path("version"), version.as_bytes())?;
        stage.publish().map(drop)
    }

    fn version(folder: &Path) -> Option<String> {
        fs::read_to_string(folder.join("version")).ok()
    }

    /// A folder with versions 3, 2 and 1, of three nights.
    fn nights(place: &Path) -> Result<Versions> {
        let output = place.join("out");
        for version in ["1", "2", "3"] {
            publish(&output, version)?;
            let mut record = Summary::read(&output)?;
            record.started_at = format!("2026-01-0{version}T02:00:00Z");
            write_json(&output.join(RUN_FILE), &record)?;
        }
        Versions::of(&output)
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
    fn a_kill_after_the_switch_loses_no_version() -> Result<()> {
        for shifted in [false, true] {
            let place = tempfile::tempdir().expect("a temporary folder");
            let versions = nights(place.path())?;
            // As a publish of 3 over 2 leaves it right after the switch; or a rename later.
            rename(&versions.previous(1), &versions.partial())?;
            if !shifted {
                rename(&versions.previous(2), &versions.previous(1))?;
            }
            publish(&versions.output, "4")?;
            let kept = [1, 2].map(|age| version(&versions.previous(age)));
            assert_eq!(kept, [Some("3".to_owned()), Some("2".to_owned())]);
        }
        Ok(())
    }

    #[test]
    fn without_an_atomic_exchange_a_kill_leaves_the_version_before_to_come_back() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let versions = nights(place.path())?;
        exchange_by_renames(&versions.previous(1), &versions.output)?;
        assert_eq!(version(&versions.output).as_deref(), Some("2"));
        assert_eq!(version(&versions.previous(1)).as_deref(), Some("3"));
        exchange_by_renames(&versions.previous(1), &versions.output)?;
        // After the first of the renames.
        rename(&versions.output, &versions.hidden(ASIDE))?;
        versions.recover(3)?;
        assert_eq!(version(&versions.output).as_deref(), Some("3"));
        // After the second.
        publish(&versions.output, "4")?;
        rename(&versions.previous(1), &versions.hidden(ASIDE))?;
        versions.recover(3)?;
        assert_eq!([1, 2].map(|age| version(&versions.previous(age))), [Some("3".to_owned()), Some("2".to_owned())]);
        assert!(!versions.hidden(ASIDE).exists());
        Ok(())
    }
}
