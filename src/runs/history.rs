//! `history.ndjson`: every attempt and its outcome; `run.json`: the same for one whole run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::gates::GateResult;
use crate::stage::{Figures, Outcome};

/// File name of the history.
pub const FILE: &str = "history.ndjson";

/// The state of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has started, and is still running or was killed before it could record its end.
    Running,
    /// It published.
    Complete,
    /// The published folder was already up to date.
    NothingToDo,
    /// It was asked to stop.
    Stopped,
    /// It failed; see the exit code and the error.
    Failed,
}

impl State {
    /// The state at the end of an attempt.
    #[must_use]
    pub fn of(result: Result<&Outcome, &Error>) -> Self {
        match result {
            Ok(Outcome::Published(_) | Outcome::Planned(_)) => Self::Complete,
            Ok(Outcome::NothingToDo { .. }) => Self::NothingToDo,
            Ok(Outcome::Stopped { .. }) => Self::Stopped,
            Ok(Outcome::TooManyRejects { .. } | Outcome::KeptBack { .. }) | Err(_) => Self::Failed,
        }
    }

    /// Whether the folder is up to date.
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(self, Self::Complete | Self::NothingToDo)
    }
}

/// One command: a line when it starts, and another with the same `id` when it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Name of the whole run.
    pub run: String,
    /// UUID of the attempt.
    pub id: String,
    /// The stage.
    pub stage: String,
    /// The folder it publishes.
    pub output: PathBuf,
    /// Its state.
    pub state: State,
    /// The exit code, before any option remaps it; null while it runs.
    pub exit_code: Option<u8>,
    /// What went wrong; null if nothing did.
    pub error: Option<String>,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC; null while it runs.
    pub ended_at: Option<String>,
    /// Wall-clock time.
    pub elapsed_secs: f64,
    /// Version of the program.
    pub version: String,
    /// Counts and figures by name.
    pub counts: Figures,
    /// The gates that were checked.
    pub gates: Vec<GateResult>,
}

impl Attempt {
    /// A count or figure.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.counts.number(name)
    }
}

/// All attempts in order of their start, each in its latest state, including those in the file that was last moved
/// aside. Truncated lines, as left by a full disk, are skipped.
///
/// # Errors
/// [`Error::Io`] if there is a history but it cannot be read.
pub fn read(folder: &Path) -> Result<Vec<Attempt>> {
    let path = folder.join(FILE);
    let lines = |path: &Path| match std::fs::read_to_string(path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(Error::io("read", path)),
    };
    let text = lines(&aside(&path))? + &lines(&path)?;
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut places = BTreeMap::new();
    for attempt in text.lines().filter_map(|line| serde_json::from_str::<Attempt>(line).ok()) {
        let place = *places.entry(attempt.id.clone()).or_insert(attempts.len());
        if place == attempts.len() {
            attempts.push(attempt);
        } else {
            attempts[place] = attempt;
        }
    }
    Ok(attempts)
}

/// The content of `run.json` in the folder of records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WholeRun {
    /// Its name.
    pub run: String,
    /// Whether every stage so far is good.
    pub good: bool,
    /// When its first stage started.
    pub started_at: String,
    /// When its last stage so far ended; null while one runs.
    pub ended_at: Option<String>,
    /// The last attempt at each output, in order of their start.
    pub stages: Vec<Attempt>,
}

/// Collects the run of that name from all attempts.
#[must_use]
pub fn whole_run(attempts: &[Attempt], run: &str) -> WholeRun {
    let mut stages: Vec<Attempt> = Vec::new();
    for attempt in attempts.iter().filter(|it| it.run == run) {
        stages.retain(|it| (&it.stage, &it.output) != (&attempt.stage, &attempt.output));
        stages.push(attempt.clone());
    }
    let running = stages.iter().any(|it| it.state == State::Running);
    WholeRun {
        run: run.to_owned(),
        good: stages.iter().all(|it| it.state.is_good()),
        started_at: attempts.iter().find(|it| it.run == run).map_or_else(String::new, |it| it.started_at.clone()),
        ended_at: stages.last().filter(|_| !running).and_then(|it| it.ended_at.clone()),
        stages,
    }
}

/// The path that a file of lines is moved to when it has become too large.
pub(super) fn aside(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".1");
    aside.into()
}
