//! `run.json`, the record in every published folder: what was read, with which program and settings, and what was
//! written, with checksums, so that a later run can tell whether there is anything to do.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::behaviour::behaviour_of;
use super::common::Common;
use super::figures::{Figures, MadeWith};
use super::inputs::InputRecord;
use crate::engine::Backend;
use crate::error::{Error, Result};
use crate::files::checksum;
use crate::gates::GateResult;
use crate::table;

/// Name of the record.
pub const RUN_FILE: &str = "run.json";

/// One file of a published folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Path within the folder.
    pub name: PathBuf,
    /// Size.
    pub bytes: u64,
    /// SHA-256 of the content, lower-case hexadecimal.
    pub sha256: String,
    /// Rows of a table; null for other files.
    pub rows: Option<u64>,
}

/// What a stage did: the content of `run.json`, and what the program prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// The stage's name.
    pub stage: String,
    /// The folder that was published (or would be, in a dry run).
    pub output: PathBuf,
    /// Version number, counted from 1: one more than the newest earlier version. 0 in a dry run, and in folders made
    /// before versions were counted.
    #[serde(default)]
    pub generation: u64,
    /// True if nothing was written.
    pub dry_run: bool,
    /// Version of this program.
    pub version: String,
    /// Version of the stage's behaviour ([`super::behaviour_of`]).
    #[serde(default = "first_behaviour")]
    pub behaviour: u32,
    /// Git revision the program was built from; null if it was built outside a checkout.
    pub git_revision: Option<String>,
    /// When the stage started, RFC 3339, UTC.
    pub started_at: String,
    /// Wall-clock time of the stage.
    pub elapsed_secs: f64,
    /// The settings it was made with, as resolved from defaults, settings file and flags.
    pub config: MadeWith,
    /// ONNX Runtime execution provider that was actually used ("cpu", "cuda"); null for stages without a network.
    pub execution_provider: Option<String>,
    /// The operators used: this program's "native" ones or ONNX's "portable" ones; null likewise.
    #[serde(default)]
    pub dialect: Option<String>,
    /// The files that the stage read, with checksums.
    pub inputs: Vec<InputRecord>,
    /// The files that the stage wrote, except `run.json`, in order of name.
    #[serde(default)]
    pub files: Vec<FileRecord>,
    /// False if more inputs were rejected than allowed: the folder is published anyway, but later runs do not treat it
    /// as done.
    #[serde(default = "complete")]
    pub complete: bool,
    /// The quality gates that were checked.
    #[serde(default)]
    pub gates: Vec<GateResult>,
    /// Counts and figures by name ("photos", "rejects", ...).
    pub counts: Figures,
}

/// The behaviour of folders made before behaviours were counted.
fn first_behaviour() -> u32 {
    1
}

fn complete() -> bool {
    true
}

impl Summary {
    /// Records what the network actually ran on.
    pub fn set_backend(&mut self, backend: Backend) {
        self.execution_provider = Some(backend.provider.name().to_owned());
        self.dialect = Some(backend.dialect.name().to_owned());
    }

    /// Reads the record of a published folder.
    ///
    /// # Errors
    /// [`Error::Input`] if `folder` was not published by a stage or its record is damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(RUN_FILE);
        let text = fs::read_to_string(&path).map_err(|cause| {
            Error::input(&path, "cannot be read; run the stage that makes this folder first").because(cause)
        })?;
        serde_json::from_str(&text).map_err(|cause| Error::input(&path, "is not a run record").because(cause))
    }

    /// The record of a folder; `None` if there is none, or if it is damaged, which is logged.
    ///
    /// # Errors
    /// [`Error::Io`] if it exists but cannot be read.
    pub fn find(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(RUN_FILE);
        let text = match fs::read(&path) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("read", &path))?,
        };
        let parsed = serde_json::from_slice(&text).map_err(|cause| Error::input(&path, "is damaged").because(cause));
        Ok(parsed.inspect_err(|problem| tracing::warn!("{}; it is ignored", problem.with_causes())).ok())
    }

    /// One line for each file of the published folder `folder` that is missing or has a different size.
    #[must_use]
    pub fn missing_files(&self, folder: &Path) -> Vec<String> {
        let missing = |file: &FileRecord| match fs::metadata(folder.join(&file.name)) {
            Ok(found) if found.len() == file.bytes => None,
            Ok(_) => Some(format!("{} is not as it was written", file.name.display())),
            Err(_) => Some(format!("{} cannot be read", file.name.display())),
        };
        self.files.par_iter().filter_map(missing).collect()
    }

    /// One line for each file of the published folder `folder` that is missing or has different content.
    #[must_use]
    pub fn damaged_files(&self, folder: &Path) -> Vec<String> {
        damaged_files(self.files.iter(), folder)
    }
}

/// As [`Summary::damaged_files`], for some of its files.
pub fn damaged_files<'a>(files: impl Iterator<Item = &'a FileRecord>, folder: &Path) -> Vec<String> {
    let damage = |file: &&FileRecord| match checksum(&folder.join(&file.name)) {
        Ok((bytes, sha256)) if bytes == file.bytes && sha256 == file.sha256 => None,
        Ok(_) => Some(format!("{} is not as it was written", file.name.display())),
        Err(_) => Some(format!("{} cannot be read", file.name.display())),
    };
    files.collect::<Vec<_>>().par_iter().filter_map(damage).collect()
}

/// Reads back every file below `folder`, except for those whose records are `known`: tables must be complete and have this
/// program's schema. Returns size, checksum and row count of each file, in order of name.
///
/// # Errors
/// [`Error::Input`] and [`Error::Schema`] naming the first table that cannot be read back, [`Error::Io`].
pub(super) fn verify(folder: &Path, known: &HashMap<PathBuf, FileRecord>) -> Result<Vec<FileRecord>> {
    let mut paths = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.map_err(|cause| Error::io("read", folder)(cause.into()))?;
        if entry.file_type().is_file() && entry.path() != folder.join(RUN_FILE) {
            paths.push(entry.into_path());
        }
    }
    let record = |path: &PathBuf| match path.strip_prefix(folder).ok().and_then(|name| known.get(name)) {
        Some(known) => Ok(known.clone()),
        None => file_record(folder, path),
    };
    paths.par_iter().map(record).collect()
}

pub(super) fn file_record(folder: &Path, path: &Path) -> Result<FileRecord> {
    let is_table = path.extension().is_some_and(|it| it == "parquet");
    let rows = if is_table { Some(table::count_rows(path)?) } else { None };
    let (bytes, sha256) = checksum(path)?;
    let name = path.strip_prefix(folder).unwrap_or(path).to_owned();
    Ok(FileRecord { name, bytes, sha256, rows })
}

/// The summary of a stage that has not run, as a dry run returns it.
pub fn planned(name: &str, output: &Path, common: &Common, config: &impl Serialize) -> Summary {
    Summary {
        stage: name.to_owned(),
        output: output.to_owned(),
        generation: 0,
        dry_run: common.dry_run,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        behaviour: behaviour_of(name),
        git_revision: option_env!("LOOKBOOK_GIT_REVISION").map(str::to_owned),
        started_at: now(),
        elapsed_secs: 0.0,
        config: MadeWith::new(common, config),
        execution_provider: None,
        dialect: None,
        inputs: Vec::new(),
        files: Vec::new(),
        complete: true,
        gates: Vec::new(),
        counts: Figures::default(),
    }
}

/// The current time, RFC 3339, UTC, to the second.
#[must_use]
pub fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
