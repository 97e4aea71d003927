//! What all stages have in common: the run settings, the output folder that appears whole or not at all, its `run.json`.
//!
//! A stage writes into a hidden folder beside its output (`.NAME.partial`), under a kernel lock that dies with the
//! process (`.NAME.lock`). [`Stage::publish`] flushes everything, writes `run.json` last and puts the new folder in the
//! old one's place with one rename.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::runtime::{Backend, Device, DialectChoice, Engine, InstructionsChoice};

/// Name of the record that every published folder holds.
pub const RUN_FILE: &str = "run.json";

/// Settings that every stage takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Common {
    /// Seed of everything random: weights, order of photos, drawings.
    pub seed: u64,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Check and say what would be done, write nothing.
    pub dry_run: bool,
    /// The operators that the network is made of.
    pub dialect: DialectChoice,
    /// The instructions of native operators.
    pub instructions: InstructionsChoice,
}

impl Common {
    /// What the network is to run on.
    #[must_use]
    pub fn engine(&self, device: Device) -> Engine {
        Engine { device, dialect: self.dialect, instructions: self.instructions, threads: self.threads }
    }
}

impl Default for Common {
    fn default() -> Self {
        let (dialect, instructions) = (DialectChoice::default(), InstructionsChoice::default());
        Self { seed: 0, threads: available_threads(), dry_run: false, dialect, instructions }
    }
}

/// The number of processors that this process may use.
#[must_use]
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// One input of a stage as `run.json` records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRecord {
    /// The path as the settings gave it.
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the content, lower-case hexadecimal.
    pub sha256: String,
}

/// What a stage did: the content of `run.json`, and what the program prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// The stage's name.
    pub stage: String,
    /// The folder that was published (or would be, in a dry run).
    pub output: PathBuf,
    /// True where nothing was written.
    pub dry_run: bool,
    /// Version of this program.
    pub version: String,
    /// Git revision that the program was built from; null where it was built outside a checkout.
    pub git_revision: Option<String>,
    /// When the stage began, RFC 3339, UTC.
    pub started_at: String,
    /// Wall-clock time of the stage.
    pub elapsed_secs: f64,
    /// Seed, threads, and the stage's configuration as resolved from defaults, settings file and flags.
    pub config: serde_json::Value,
    /// Execution provider of ONNX Runtime that really ran ("cpu", "cuda"); null for stages without a network.
    pub execution_provider: Option<String>,
    /// The operators that it ran: "native" ones of this program or "portable" ones of ONNX; null likewise.
    pub dialect: Option<String>,
    /// The files that the stage read, with checksums.
    pub inputs: Vec<InputRecord>,
    /// Counts and figures by name ("photos", "rejects", ...).
    pub counts: BTreeMap<String, serde_json::Value>,
}

impl Summary {
    /// Records what the network really ran on.
    pub fn set_backend(&mut self, backend: Backend) {
        self.execution_provider = Some(backend.provider.name().to_owned());
        self.dialect = Some(backend.dialect.name().to_owned());
    }

    /// Reads the record of a published folder.
    ///
    /// # Errors
    /// [`Error::Input`] where `folder` was not published by a stage or its record is damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(RUN_FILE);
        let text = fs::read_to_string(&path).map_err(|cause| {
            Error::input(&path, format!("cannot be read ({cause}); run the stage that makes this folder first"))
        })?;
        serde_json::from_str(&text).map_err(|cause| Error::input(&path, format!("is not a run record: {cause}")))
    }
}

/// A running stage: owns the lock and the unpublished folder. Dropped without [`Stage::publish`], it leaves the published
/// folder as it was and clears the unpublished one.
#[derive(Debug)]
pub struct Stage {
    summary: Summary,
    partial: PathBuf,
    started: Instant,
    published: bool,
    keep_unfinished: bool,
    _lock: File,
}

impl Stage {
    /// Takes the lock of `output` and makes an empty unpublished folder beside it.
    ///
    /// # Errors
    /// [`Error::Locked`] where another run holds it, [`Error::Input`] where `output` exists and is not a stage's folder
    /// (nothing of somebody else's is ever replaced), [`Error::Io`] where the folder cannot be made.
    pub fn begin(name: &str, output: &Path, common: &Common, config: &impl Serialize) -> Result<Self> {
        let output_name = output
            .file_name()
            .ok_or_else(|| Error::config("output", format!("'{}' does not name a folder", output.display())))?
            .to_string_lossy()
            .into_owned();
        refuse_foreign(output)?;
        let parent = parent_of(output);
        fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
        let lock = take_lock(output, &parent.join(format!(".{output_name}.lock")))?;
        let partial = parent.join(format!(".{output_name}.partial"));
        remove_folder(&partial)?;
        fs::create_dir(&partial).map_err(Error::io("create", &partial))?;
        Ok(Self {
            summary: planned(name, output, common, config),
            partial,
            started: Instant::now(),
            published: false,
            keep_unfinished: false,
            _lock: lock,
        })
    }

    /// What an aborted run leaves unpublished stays until the next run: for work of hours, as checkpoints.
    pub fn keep_unfinished(&mut self) {
        self.keep_unfinished = true;
    }

    /// Where the file `name` of the folder to be published is to be written now.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.partial.join(name)
    }

    /// Makes a folder inside the folder to be published.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create_folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        Ok(path)
    }

    /// Records a file that the stage reads, with its checksum.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read.
    pub fn input(&mut self, path: &Path) -> Result<()> {
        let (bytes, sha256) = checksum(path)?;
        self.summary.inputs.push(InputRecord { path: path.to_owned(), bytes, sha256 });
        Ok(())
    }

    /// Records a count or a figure.
    pub fn count(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        self.summary.counts.insert(name.to_owned(), value.into());
    }

    /// Records what the network really ran on.
    pub fn backend(&mut self, backend: Backend) {
        self.summary.set_backend(backend);
    }

    /// Flushes the folder to disk, writes `run.json` and puts it in the output's place with one rename.
    ///
    /// # Errors
    /// [`Error::Io`]; the folder published before is then still in its place.
    pub fn publish(mut self) -> Result<Summary> {
        self.summary.elapsed_secs = self.started.elapsed().as_secs_f64();
        write_json(&self.path(RUN_FILE), &self.summary)?;
        sync_tree(&self.partial)?;
        let output = self.summary.output.clone();
        exchange(&self.partial, &output)?;
        self.published = true;
        remove_folder(&self.partial)?;
        let parent = parent_of(&output);
        sync(&parent)?;
        tracing::info!(
            stage = self.summary.stage,
            output = %output.display(),
            elapsed_secs = (self.summary.elapsed_secs * 10.0).round() / 10.0,
            "published"
        );
        Ok(self.summary.clone())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if self.keep_unfinished {
            tracing::warn!("what was done so far stays in {} until the next run", self.partial.display());
        } else if let Err(error) = remove_folder(&self.partial) {
            tracing::warn!("an unfinished folder is left: {error}");
        }
    }
}

/// The summary of a stage that has not run: what a dry run returns.
pub fn planned(name: &str, output: &Path, common: &Common, config: &impl Serialize) -> Summary {
    Summary {
        stage: name.to_owned(),
        output: output.to_owned(),
        dry_run: common.dry_run,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git_revision: option_env!("LOOKBOOK_GIT_REVISION").map(str::to_owned),
        started_at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        elapsed_secs: 0.0,
        config: serde_json::json!({ "common": common, "stage": config }),
        execution_provider: None,
        dialect: None,
        inputs: Vec::new(),
        counts: BTreeMap::new(),
    }
}

/// Size and SHA-256 of a file.
///
/// # Errors
/// [`Error::Io`].
pub fn checksum(path: &Path) -> Result<(u64, String)> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let (mut digest, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if read == 0 {
            return Ok((bytes, hexadecimal(&digest.finalize())));
        }
        bytes += read as u64;
        digest.update(&buffer[..read]);
    }
}

/// Bytes as lower-case hexadecimal.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes a value as indented JSON, whole or not at all: into a temporary file beside `path`, flushed, then renamed.
///
/// # Errors
/// [`Error::Io`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|cause| Error::input(path, cause))?;
    text.push('\n');
    write_file(path, text.as_bytes())
}

/// Writes a file whole or not at all: into a temporary file beside `path`, flushed, then renamed.
///
/// # Errors
/// [`Error::Io`].
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut file = tempfile::Builder::new()
        .prefix(".partial-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(parent_of(path))
        .map_err(Error::io("create", path))?;
    file.write_all(content).map_err(Error::io("write", path))?;
    file.as_file().sync_all().map_err(Error::io("flush", path))?;
    file.persist(path).map_err(|cause| Error::io("rename into place", path)(cause.error))?;
    Ok(())
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn refuse_foreign(output: &Path) -> Result<()> {
    let entries = match fs::read_dir(output) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(Error::io("use as an output folder", output)(cause)),
        Ok(entries) => entries.count(),
    };
    if entries > 0 && !output.join(RUN_FILE).is_file() {
        return Err(Error::input(
            output,
            "holds files that no stage of lookbook wrote; name an empty or a new folder, nothing was touched",
        ));
    }
    Ok(())
}

fn take_lock(output: &Path, path: &Path) -> Result<File> {
    let lock = File::create(path).map_err(Error::io("create", path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { output: output.to_owned(), lock: path.to_owned() }),
        Err(TryLockError::Error(cause)) => Err(Error::io("lock", path)(cause)),
    }
}

/// Puts `new` in the place of `output`; what was there, if anything, is then at `new`.
fn exchange(new: &Path, output: &Path) -> Result<()> {
    if !output.exists() {
        return fs::rename(new, output).map_err(Error::io("publish", output));
    }
    let here = rustix::fs::CWD;
    match rustix::fs::renameat_with(here, new, here, output, rustix::fs::RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        // A file system without an atomic exchange: two renames, and the old folder comes back where the second fails.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            let old = new.with_extension("old");
            remove_folder(&old)?;
            fs::rename(output, &old).map_err(Error::io("move aside", output))?;
            if let Err(cause) = fs::rename(new, output) {
                fs::rename(&old, output).map_err(Error::io("move back", output))?;
                return Err(Error::io("publish", output)(cause));
            }
            fs::rename(&old, new).map_err(Error::io("move aside", old))
        }
        Err(errno) => Err(Error::io("publish", output)(errno.into())),
    }
}

fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(cause)),
        _ => Ok(()),
    }
}

fn sync_tree(folder: &Path) -> Result<()> {
    for entry in walkdir::WalkDir::new(folder).contents_first(true) {
        let entry = entry.map_err(|cause| Error::io("read", folder)(cause.into()))?;
        sync(entry.path())?;
    }
    Ok(())
}

fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("flush", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(output: &Path) -> Result<Stage> {
        Stage::begin("test", output, &Common::default(), &())
    }

    #[test]
    fn a_published_folder_replaces_the_one_before_whole() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let output = place.path().join("out");
        for (name, other) in [("first", "second"), ("second", "first")] {
            let mut stage = begin(&output)?;
            stage.count("files", 1);
            write_file(&stage.path(name), name.as_bytes())?;
            stage.publish()?;
            assert!(output.join(name).is_file());
            assert!(!output.join(other).exists(), "nothing of the version before is left");
        }
        assert_eq!(Summary::read(&output)?.counts["files"], 1);
        assert!(!place.path().join(".out.partial").exists());
        Ok(())
    }

    #[test]
    fn an_abandoned_stage_leaves_the_published_folder() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let output = place.path().join("out");
        begin(&output)?.publish()?;
        let stage = begin(&output)?;
        write_file(&stage.path("half"), b"half")?;
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
        write_file(&stage.path("checkpoint"), b"weights")?;
        drop(stage);
        assert!(place.path().join(".out.partial/checkpoint").is_file());
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
