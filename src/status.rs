//! `status`: the last runs in a run folder, and for each stage's folder whether it is up to date, and if not, why.
//! Changes nothing.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result, shown};
use crate::runs::history::{self, Attempt, State, WholeRun};
use crate::settings::Settings;
use crate::stage::{self, Depth, RUN_FILE, StageConfig, Summary, Versions, held_by};
use crate::stages::{self, OF_A_RUN, Visitor};
use crate::units::counted;
use crate::{runs, segment, train};

/// Number of whole runs to show.
const SHOWN_RUNS: usize = 5;

/// The state of a run folder.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The last runs, newest first.
    pub runs: Vec<WholeRun>,
    /// The stages' folders, in pipeline order.
    pub folders: Vec<FolderStatus>,
    /// Folders whose `run.json` is damaged or was not written by lookbook, each with the problem.
    pub passed_over: Vec<String>,
}

/// A stage's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FolderStatus {
    /// The folder.
    pub folder: PathBuf,
    /// The stage that makes it.
    pub stage: String,
    /// When the run that made the published version started, RFC 3339, UTC.
    pub made_at: String,
    /// Why it is stale, one reason per entry; empty if it is up to date.
    pub stale: Vec<String>,
    /// Other remarks: who holds it, how the last attempt failed, what other folders lie beside it.
    pub notes: Vec<String>,
}

/// Checks the stages' folders in `folder`, comparing `settings` with those each folder was made with. With `verify`,
/// also checks every published file against its checksum.
///
/// # Errors
/// [`Error::Input`] if `folder` holds no stage's folder and no record of a run; [`Error::Io`].
pub fn run(folder: &Path, settings: &Settings, verify: bool) -> Result<Status> {
    let attempts = history::read(&settings.runs()?.folder.unwrap_or_else(|| folder.join(runs::FOLDER)))?;
    let entries = std::fs::read_dir(folder).map_err(|cause| match cause.kind() {
        ErrorKind::NotFound => Error::input(folder, "is not there; `lookbook run` makes it"),
        _ => Error::io("list", folder)(cause),
    })?;
    let published = entries.flatten().map(|it| it.path()).filter(|it| is_stage(it));
    let (mut folders, mut passed_over) = (Vec::new(), Vec::new());
    for folder in published {
        match Summary::read(&folder) {
            Ok(summary) => folders.push(folder_status(&folder, summary, settings, &attempts, verify)?),
            Err(problem) => passed_over.push(problem.with_causes()),
        }
    }
    passed_over.sort();
    if folders.is_empty() && attempts.is_empty() {
        return Err(Error::input(folder, "holds no stage's output and no record of a run; `lookbook run` makes one"));
    }
    let place = |stage: &str| OF_A_RUN.iter().position(|it| *it == stage).unwrap_or(OF_A_RUN.len());
    folders.sort_by(|a, b| (place(&a.stage), &a.folder).cmp(&(place(&b.stage), &b.folder)));
    Ok(Status { runs: last_runs(&attempts), folders, passed_over })
}

fn is_stage(folder: &Path) -> bool {
    let hidden = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    !hidden && folder.file_name() != Some(runs::FOLDER.as_ref()) && folder.join(RUN_FILE).is_file()
}

fn last_runs(attempts: &[Attempt]) -> Vec<WholeRun> {
    let mut names: Vec<&str> = Vec::new();
    for attempt in attempts.iter().rev() {
        if !names.contains(&attempt.run.as_str()) && names.len() < SHOWN_RUNS {
            names.push(&attempt.run);
        }
    }
    names.into_iter().map(|name| history::whole_run(attempts, name)).collect()
}

fn folder_status(
    folder: &Path,
    summary: Summary,
    settings: &Settings,
    attempts: &[Attempt],
    verify: bool,
) -> Result<FolderStatus> {
    let versions = Versions::of(folder)?;
    let depth = if verify { Depth::Contents } else { Depth::Sizes };
    let stale = stages::visit(&summary.stage, Reasons { settings, summary: &summary, folder, depth });
    let stale = stale.unwrap_or_else(|| Ok(Vec::new()))?;
    let holder = held_by(&versions.lock());
    let mut notes = Vec::new();
    let last = attempts.iter().rfind(|it| it.output.file_name() == folder.file_name());
    if let Some(last) = last.filter(|it| !it.state.is_good()) {
        notes.extend(last_attempt(last, holder.is_some()));
    }
    notes.extend(present(&summary));
    notes.extend(holder.map(|holder| format!("held by {holder}")));
    for (path, what) in [
        (versions.rejected(), "kept back by a gate, for inspection"),
        (versions.partial(), unfinished(&versions.partial())),
    ] {
        notes.extend(path.exists().then(|| format!("{}: {what}", path.display())));
    }
    Ok(FolderStatus { folder: shown(folder), stage: summary.stage, made_at: summary.started_at, stale, notes })
}

/// What the photos of a feature table wear.
fn present(summary: &Summary) -> Option<String> {
    let counts = &summary.counts;
    let (photos, cells) = (counts.count("photos")?, counts.number("mean_cells_per_photo")?);
    let without = counts.count("photos_without_apparel").filter(|_| summary.stage == segment::STAGE)?;
    Some(format!(
        "{}; {cells:.2} cells are present in a photo on average, none in {}",
        counted(photos, "photos"),
        counted(without, "photos")
    ))
}

/// Applies the shared staleness rule, with the settings file's settings and the paths the folder was made from.
struct Reasons<'a> {
    settings: &'a Settings,
    summary: &'a Summary,
    folder: &'a Path,
    depth: Depth,
}

impl Visitor for Reasons<'_> {
    type Output = Result<Vec<String>>;

    fn visit<C: StageConfig>(self) -> Self::Output {
        let Self { settings, summary, folder, depth } = self;
        let places = summary.config.stage().filter(|(name, it)| C::WITHOUT_EFFECT.contains(name) && !it.is_null());
        let mut flags: Map<String, Value> = places.map(|(name, value)| (name.to_owned(), value.clone())).collect();
        flags.insert("output".to_owned(), folder.to_string_lossy().into());
        let config: C = if settings.is_read() {
            settings.resolve(C::NAME, &flags)?
        } else {
            match summary.config.config(&flags) {
                Ok(config) => config,
                Err(cause) => return Ok(vec![format!("it was made by another version ({cause})")]),
            }
        };
        let seed = summary.config.seed().filter(|_| !settings.is_read());
        let mut common = settings.common(&toml::Table::new())?;
        common.seed = seed.unwrap_or(common.seed);
        stage::reasons(&config, &common, depth)
    }
}

/// What will happen to an unfinished folder.
fn unfinished(partial: &Path) -> &'static str {
    let holds = |name: &str| std::fs::read_dir(partial.join(name)).is_ok_and(|mut it| it.next().is_some());
    if holds(train::checkpoint::FOLDER) {
        "unfinished; `train --resume` resumes it, any other run deletes it"
    } else if holds(segment::UNFINISHED) {
        "unfinished; the next run reuses its rows"
    } else {
        "unfinished; the next run deletes it"
    }
}

fn last_attempt(last: &Attempt, held: bool) -> Option<String> {
    let at = &last.started_at;
    match (last.state, last.exit_code) {
        (State::Running, _) => {
            (!held).then(|| format!("the attempt of {at} was killed before it could report an error"))
        }
        (_, code) => {
            let error = last.error.as_deref().unwrap_or("no reason was recorded");
            Some(format!("the attempt of {at} ended with exit code {}: {error}", code.unwrap_or(1)))
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "runs, newest first:")?;
        for run in &self.runs {
            let state = match (&run.ended_at, run.good) {
                (None, _) => "did not end",
                (_, true) => "good",
                (_, false) => "failed",
            };
            writeln!(f, "  {}: began {}, {state}", run.run, run.started_at)?;
            for stage in &run.stages {
                let name = stage.output.file_name().unwrap_or_default().to_string_lossy();
                let code = stage.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string());
                writeln!(f, "    {:<11} {name:<14} exit code {code:<4} {:>8.1} s", stage.stage, stage.elapsed_secs)?;
            }
        }
        writeln!(f, "folders:")?;
        for it in &self.folders {
            let state = if it.stale.is_empty() { "up to date" } else { "stale" };
            writeln!(f, "  {} ({}), made {}: {state}", it.folder.display(), it.stage, it.made_at)?;
            it.stale.iter().chain(&it.notes).try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        self.passed_over.iter().try_for_each(|line| writeln!(f, "  passed over: {line}"))
    }
}
