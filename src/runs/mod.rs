//! Records of what was run, kept in `runs/` beside the stages' folders: `history.ndjson` (a line when a command starts
//! and one when it ends), `run.json` (the whole run it is part of), `metrics.prom` (for node-exporter's textfile
//! collector) and `lineage.ndjson` (`OpenLineage` events, also posted if a URL is set).
//!
//! Records must not get in the way of the work: if one cannot be written, a warning is logged and the work continues.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::files;
use crate::stage::{self, Common, Figures, Outcome, StageConfig, Summary};

pub mod history;
pub mod lineage;
pub mod metrics;

use history::{Attempt, State};

/// Name of the folder of records, beside the stages' folders.
pub const FOLDER: &str = "runs";
/// Size above which a file of lines is moved aside (`.1`) and started over.
const ROTATE_BYTES: u64 = 8 << 20;
/// How long to wait for another run to write its records; that takes milliseconds unless its process is suspended.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Default of [`Config::lineage_namespace`].
pub const DEFAULT_NAMESPACE: &str = "lookbook";

/// The section `[runs]` of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of records; `runs` beside the stage's folder if none is given.
    pub folder: Option<PathBuf>,
    /// Second path to write `metrics.prom` to, such as in the folder that node-exporter's textfile collector reads.
    pub metrics: Option<PathBuf>,
    /// URL to post lineage events to, e.g. `http://marquez:5000/api/v1/lineage`.
    pub lineage_url: Option<String>,
    /// Namespace of the jobs in lineage events ([`DEFAULT_NAMESPACE`]).
    pub lineage_namespace: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { folder: None, metrics: None, lineage_url: None, lineage_namespace: DEFAULT_NAMESPACE.to_owned() }
    }
}

/// Where a stage writes: the folder it publishes, and the folder of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    output: PathBuf,
    records: PathBuf,
}

impl Destination {
    /// Of the stage that publishes `folder` as its `output`, or as one shard of it; the folder of records is beside
    /// `output`.
    #[must_use]
    pub fn new(output: &Path, folder: PathBuf) -> Self {
        Self { output: folder, records: output.with_file_name(FOLDER) }
    }

    /// Of a stage with these settings.
    #[must_use]
    pub fn of<C: StageConfig>(config: &C) -> Self {
        Self::new(&config.output(), config.folder())
    }
}

/// Records one command from start to end.
#[derive(Debug)]
pub struct Recorder {
    config: Config,
    folder: PathBuf,
    attempt: Attempt,
    started: Instant,
}

impl Recorder {
    /// Records that `stage` starts working.
    #[must_use]
    pub fn start(config: Config, stage: &str, place: &Destination, common: &Common) -> Self {
        let recorder = Self::new(config, stage, place, common);
        recorder.write(None);
        recorder
    }

    /// For an attempt that is only recorded when it ends, because it ends before it starts working.
    #[must_use]
    pub fn new(config: Config, stage: &str, place: &Destination, common: &Common) -> Self {
        let folder = config.folder.clone().unwrap_or_else(|| place.records.clone());
        let attempt = Attempt {
            run: common.run_name.clone(),
            id: Uuid::now_v7().to_string(),
            stage: stage.to_owned(),
            output: place.output.clone(),
            state: State::Running,
            exit_code: None,
            error: None,
            started_at: stage::now(),
            ended_at: None,
            elapsed_secs: 0.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            counts: Figures::default(),
            gates: Vec::new(),
        };
        Self { config, folder, attempt, started: Instant::now() }
    }

    /// Records how the attempt ended.
    pub fn end(mut self, result: Result<&Outcome, &Error>) {
        self.attempt.state = State::of(result);
        self.attempt.exit_code = Some(result.map_or_else(Error::exit_code, Outcome::exit_code));
        self.attempt.error = result.map_or_else(|error| Some(error.with_causes()), Outcome::problem);
        self.attempt.ended_at = Some(stage::now());
        self.attempt.elapsed_secs = self.started.elapsed().as_secs_f64();
        let summary = result.ok().and_then(Outcome::summary);
        if let Some(summary) = summary {
            self.attempt.counts.clone_from(&summary.counts);
            self.attempt.gates.clone_from(&summary.gates);
        }
        self.write(summary);
    }

    fn write(&self, summary: Option<&Summary>) {
        let event = lineage::event(&self.config.lineage_namespace, &self.attempt, summary);
        if let Err(error) = self.write_files(&event) {
            tracing::warn!("this run could not be recorded: {}", error.with_causes());
        }
        if let Some(url) = &self.config.lineage_url
            && let Err(problem) = lineage::post(url, &event)
        {
            tracing::warn!("no lineage event was posted: {}", problem.with_causes());
        }
    }

    fn write_files(&self, event: &serde_json::Value) -> Result<()> {
        files::create_folder(&self.folder)?;
        // Shards may end at the same time.
        let _lock = stage::take(&self.folder, &self.folder.join(".lock"), &self.attempt.stage, LOCK_WAIT)?;
        append(&self.folder.join(lineage::FILE), event)?;
        append(&self.folder.join(history::FILE), &self.attempt)?;
        let attempts = history::read(&self.folder)?;
        files::write_json(&self.folder.join(stage::RUN_FILE), &history::whole_run(&attempts, &self.attempt.run))?;
        let output = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let text = metrics::text(&attempts, &output.parent().unwrap_or(&output).to_string_lossy());
        let places = [Some(self.folder.join(metrics::FILE)), self.config.metrics.clone()];
        places.iter().flatten().try_for_each(|path| files::write(path, text.as_bytes()))
    }
}

/// Appends a line of JSON; moves the file aside first if it has become too large.
fn append(path: &Path, line: &impl Serialize) -> Result<()> {
    if fs::metadata(path).is_ok_and(|it| it.len() > ROTATE_BYTES) {
        files::rename(path, &history::aside(path))?;
    }
    let text = serde_json::to_string(line).map_err(|cause| Error::input(path, cause))?;
    files::append_line(path, &text)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    #[test]
    fn records_that_a_stopped_process_holds_are_given_up() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let folder = place.path().join(FOLDER);
        files::create_folder(&folder).expect("a folder");
        let at = Destination { output: place.path().join("out"), records: folder.clone() };
        let held = stage::take(&folder, &folder.join(".lock"), "segment", Duration::ZERO).expect("it is free");
        let recorder = Recorder::start(Config::default(), "convert", &at, &Common::default());
        assert!(!folder.join(history::FILE).exists());
        drop(held);
        recorder.end(Ok(&Outcome::NothingToDo { output: place.path().join("out") }));
        assert_eq!(history::read(&folder).expect("readable").len(), 1);
    }

    #[test]
    fn the_history_outlives_a_cut_off_line_and_being_put_aside() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let record = |run: &str| {
            let common = Common { run_name: run.to_owned(), ..Common::default() };
            let at = Destination { output: place.path().join("out"), records: place.path().join(FOLDER) };
            let _ = Recorder::start(Config::default(), "convert", &at, &common);
        };
        let runs = || {
            let attempts = history::read(&place.path().join(FOLDER)).expect("it can be read");
            attempts.into_iter().map(|it| it.run).collect::<Vec<_>>()
        };
        let path = place.path().join(FOLDER).join(history::FILE);
        record("monday");
        let mut file = File::options().append(true).open(&path).expect("it is there");
        file.write_all(b"{\"run\": \"tues").expect("it can be written");
        record("wednesday");
        assert_eq!(runs(), ["monday", "wednesday"]);
        file.write_all(" ".repeat(ROTATE_BYTES as usize).as_bytes()).expect("it can be written");
        record("thursday");
        assert!(history::aside(&path).is_file());
        assert_eq!(runs(), ["monday", "wednesday", "thursday"]);
    }
}
