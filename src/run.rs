//! `run`: the whole pipeline as one command. Runs every stale stage, in order, and nothing else.
//!
//! Everything that can be checked up front is checked before the first stage: the settings of all stages, the source,
//! ONNX Runtime, the disk space, and that no other run holds a folder. Whether a stage is stale is decided when its
//! turn comes, by [`stage::reasons`](crate::stage::reasons): if a stage produced the same bytes again, the stages after
//! it do not run.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result, shown};
use crate::mirror::Mirror;
use crate::runs::{Destination, Recorder};
use crate::settings::Settings;
use crate::shard::Shard;
use crate::stage::{self, Common, Outcome, RunFolders, StageConfig, Summary};
use crate::stages::{self, OF_A_RUN, Visitor};
use crate::{delta, doctor, duplicates, report, runtime, sample, segment, similarity, train, units};

/// The setting of `segment` that a run may take from its command line.
const CATALOGUE: &str = "catalogue";
/// The setting of `segment` and `report` that names the model or parser.
const MODEL: &str = "model";

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The folder that holds the stages' folders; `None` uses the one in the settings.
    pub output: Option<PathBuf>,
    /// The source of `convert`; `None` uses the one in the settings, or else the built-in sample.
    pub source: Option<PathBuf>,
    /// The catalogue of `segment`; `None` uses the one in the settings, or else the dataset's own photos.
    pub catalogue: Option<PathBuf>,
    /// First and last stage to run; `None` runs all.
    pub only: Option<[String; 2]>,
    /// Stages to run even if they are not stale.
    pub force: Vec<String>,
    /// The shard of `segment` and `similarity` to process; `None` processes everything.
    pub shard: Option<Shard>,
    /// Whether `segment` and `similarity` merge their shards.
    pub merge: bool,
}

/// What a run did, or would do.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The folder that holds the stages' folders.
    pub output: PathBuf,
    /// True if nothing was run.
    pub dry_run: bool,
    /// One for each stage, in order.
    pub stages: Vec<StageReport>,
}

impl Report {
    /// The outcome that ended the run early.
    #[must_use]
    pub fn problem(&self) -> Option<&Outcome> {
        self.stages.last()?.outcome.as_ref().filter(|it| it.problem().is_some())
    }
}

/// What was done with one stage.
#[derive(Debug, Clone, Serialize)]
pub struct StageReport {
    /// Its name.
    pub stage: &'static str,
    /// What was done.
    pub did: Did,
    /// Why it is stale; empty if it is not.
    pub reasons: Vec<String>,
    /// How it ended, if it ran; only the last one can be a problem.
    #[serde(serialize_with = "as_summary", rename = "summary")]
    pub outcome: Option<Outcome>,
}

/// Writes the record that an outcome comes with.
#[allow(clippy::ref_option, reason = "serde expects this signature")]
fn as_summary<S: serde::Serializer>(outcome: &Option<Outcome>, to: S) -> std::result::Result<S::Ok, S::Error> {
    outcome.as_ref().and_then(Outcome::summary).serialize(to)
}

/// Whether a stage ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Did {
    /// It ran, or would run.
    Run,
    /// It may run: an earlier stage would run, and this one depends on that stage's output.
    MayRun,
    /// It is up to date.
    Nothing,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.dry_run {
            let ran = self.stages.iter().filter(|it| it.did == Did::Run).count();
            let what = if ran == 0 {
                "nothing to do: everything is up to date".to_owned()
            } else {
                format!("{} ran", units::counted(ran as u64, "stages"))
            };
            return write!(f, "{what}; the report is {}", shown(&self.output.join("report/index.html")).display());
        }
        for (index, it) in self.stages.iter().enumerate() {
            let end = if index + 1 < self.stages.len() { "\n" } else { "" };
            write!(f, "{:<11} {}{end}", it.stage, it.describe())?;
        }
        Ok(())
    }
}

impl StageReport {
    fn describe(&self) -> String {
        match self.did {
            Did::Run => format!("runs: {}", self.reasons.join("; ")),
            Did::MayRun => "runs if the output of an earlier stage changes".to_owned(),
            Did::Nothing => "up to date".to_owned(),
        }
    }
}

/// Runs every stale stage.
///
/// # Errors
/// The first up-front check that fails, before any stage runs; after that, the first stage that fails ends the run, or
/// ends with an outcome that is a problem.
pub fn run(request: &Request, settings: &Settings, common: &Common) -> Result<Report> {
    let night = Night::new(request, settings, common)?;
    if let Err(problem) = night.check() {
        if let (Some(&first), false) = (night.stages.first(), common.dry_run) {
            // Record a run that could not start as well; otherwise monitoring would not notice it.
            return stages::visit(first, Refused { night: &night, problem }).expect("it is one of the table");
        }
        return Err(problem);
    }
    let mut report = Report { output: night.output.clone(), dry_run: common.dry_run, stages: Vec::new() };
    for &name in &night.stages {
        let some_run = report.stages.iter().any(|it| it.did != Did::Nothing);
        let stage = stages::visit(name, Turn { night: &night, some_run });
        report.stages.push(stage.expect("it is one of the table")?);
        if report.problem().is_some() {
            break;
        }
    }
    Ok(report)
}

/// Checks what a run would check before its first stage. Changes nothing.
///
/// # Errors
/// As [`run`].
pub fn check(request: &Request, settings: &Settings, common: &Common) -> Result<()> {
    Night::new(request, settings, common)?.check()
}

/// A run with its resolved request.
struct Night<'a> {
    request: &'a Request,
    settings: &'a Settings,
    common: &'a Common,
    /// The folder that holds the stages' folders, which may be a URL.
    output: PathBuf,
    source: Option<PathBuf>,
    stages: Vec<&'static str>,
    mirror: RefCell<Mirror>,
}

impl<'a> Night<'a> {
    fn new(request: &'a Request, settings: &'a Settings, common: &'a Common) -> Result<Self> {
        let output = request.output.clone().map_or_else(|| settings.run().map(|it| it.output), Ok)?;
        let of_settings = || {
            settings
                .names("convert", "source")
                .then(|| settings.resolve::<crate::convert::Config>("convert", &Map::new()))
        };
        let source = match request.source.clone() {
            Some(source) => Some(source),
            None => of_settings().transpose()?.map(|it| it.source),
        };
        let mut mirror = Mirror::new();
        let source = source.map(|it| mirror.bring(&it)).transpose()?;
        let mut night = Self { request, settings, common, output, source, stages: Vec::new(), mirror: mirror.into() };
        night.stages = night.chosen()?;
        Ok(night)
    }

    /// The requested range of stages; without the sample if there is a source, and without training if nothing would take
    /// the model.
    fn chosen(&self) -> Result<Vec<&'static str>> {
        let of_train = |name: &str| name == train::Config::NAME;
        let is_idle = self.other_model().is_some() && !self.request.force.iter().any(|it| of_train(it));
        let stages = self.requested()?.into_iter();
        Ok(stages.filter(|name| !(is_idle && of_train(name))).collect())
    }

    /// The model or parser that `segment` takes in place of this run's own, if the settings name one and nothing of training.
    fn other_model(&self) -> Option<PathBuf> {
        let trains = self.settings.sections().any(|it| it == train::Config::NAME);
        if trains || !self.settings.names(segment::Config::NAME, MODEL) {
            return None;
        }
        // Settings that are wrong are told by the check.
        let model = self.config::<segment::Config>().ok()?.model;
        (!self.makes(&model)).then_some(model)
    }

    /// Whether a folder is one that this run makes.
    fn makes(&self, folder: &Path) -> bool {
        let local = |it: &Path| {
            self.mirror.borrow().local(it).and_then(|it| std::path::absolute(&it).map_err(Error::io("find", it)))
        };
        matches!((local(folder), local(&self.output)), (Ok(folder), Ok(output)) if folder.starts_with(&output))
    }

    /// Whether a stage is one of this run: those that not everybody needs have to be asked for.
    fn has(&self, stage: &str) -> bool {
        match stage {
            sample::Config::NAME => self.source.is_none(),
            duplicates::Config::NAME => {
                let only = self.request.only.iter().flatten();
                self.settings.sections().chain(only.map(String::as_str)).any(|it| it == stage)
            }
            _ => true,
        }
    }

    fn requested(&self) -> Result<Vec<&'static str>> {
        let all: Vec<&str> = OF_A_RUN.into_iter().filter(|name| self.has(name)).collect();
        let place = |setting: &str, name: &str| {
            let found = all.iter().position(|it| *it == name);
            found.ok_or_else(|| {
                Error::config(setting, format!("there is no stage '{name}' here; choose from {}", all.join(", ")))
            })
        };
        for name in &self.request.force {
            place("force", name)?;
        }
        let Some([first, last]) = &self.request.only else { return Ok(all) };
        let range = place("only", first)?..=place("only", last)?;
        if range.is_empty() {
            return Err(Error::config("only", format!("'{last}' comes before '{first}'")));
        }
        let chosen = &all[range];
        if let Some(name) = self.request.force.iter().find(|name| !chosen.contains(&name.as_str())) {
            return Err(Error::config("force", format!("'{name}' is not among the stages of --only")));
        }
        Ok(chosen.to_vec())
    }

    /// The settings of a stage, with the paths of this run filled in.
    fn config<C: StageConfig>(&self) -> Result<C> {
        let run = RunFolders { output: &self.output, source: self.source.as_deref() };
        let places = C::in_run(&run).into_iter().map(|(setting, place)| (setting.to_owned(), json!(place)));
        let mut places: Map<String, Value> = places.collect();
        if C::NAME == segment::Config::NAME {
            if let Some(catalogue) = &self.request.catalogue {
                places.insert(CATALOGUE.to_owned(), json!(catalogue));
            } else if self.settings.names(C::NAME, CATALOGUE) {
                places.remove(CATALOGUE);
            }
            if self.settings.names(C::NAME, MODEL) {
                places.remove(MODEL);
            }
        }
        if C::NAME == report::Config::NAME
            && !self.settings.names(C::NAME, MODEL)
            && let Some(model) = self.other_model()
        {
            places.insert(MODEL.to_owned(), json!(model));
        }
        if [segment::Config::NAME, similarity::Config::NAME].contains(&C::NAME) {
            places.extend(self.request.shard.map(|shard| ("shard".to_owned(), json!(shard))));
            places.insert("merge".to_owned(), self.request.merge.into());
        }
        let config: C = self.settings.resolve(C::NAME, &places)?;
        self.mirror.borrow_mut().here(config)
    }

    /// Checks everything that can be checked before the first stage.
    fn check(&self) -> Result<()> {
        self.settings.check()?;
        for &name in &self.stages {
            stages::visit(name, Check(self)).expect("it is one of the table")?;
        }
        let needs = |name: &str| self.stages.contains(&name);
        if needs(train::Config::NAME) {
            runtime::check(self.common.engine(self.config::<train::Config>()?.device))?;
        }
        if needs(train::Config::NAME) {
            train::check_network(&self.config()?)?;
            if needs("convert") {
                self.config::<crate::convert::Config>()?.check_for_training()?;
            }
        }
        if let (Some(source), true) = (&self.source, needs("convert")) {
            crate::convert::Layout::detect(source)?;
        }
        if needs(segment::Config::NAME) {
            self.check_segment(&self.config()?)?;
        }
        doctor::enough_space(&self.mirror.borrow().local(&self.output)?)
    }

    /// Checks what `segment` will run on, and its catalogue, unless this run makes it.
    fn check_segment(&self, config: &segment::Config) -> Result<()> {
        if config.from == segment::LabelSource::Model && !config.merge {
            let engine = self.common.engine(config.device);
            runtime::check(engine)?;
            runtime::precision(config.precision(), engine)?;
        }
        let is_made = self.makes(&config.model);
        let model = if is_made { None } else { segment::open_model(config, &self.common.gates)? };
        if let Some((model, _)) = &model {
            model.precision(config.precision(), self.common.engine(config.device))?;
        }
        segment::open_embedder(config, &self.common.gates)?;
        if self.makes(&config.catalogue) {
            return Ok(());
        }
        segment::check_catalogue(config)?;
        model.map_or(Ok(()), |(model, _)| segment::check_labels(config, &model))
    }
}

/// Checks the settings of a stage, and that its folder may be replaced.
struct Check<'a>(&'a Night<'a>);

impl Visitor for Check<'_> {
    type Output = Result<()>;

    fn visit<C: StageConfig>(self) -> Self::Output {
        let config: C = self.0.config()?;
        config.check()?;
        stage::refuse_foreign(C::NAME, &config.folder())?;
        if self.0.common.lock_wait_secs == 0 { stage::refuse_held(&config.folder()) } else { Ok(()) }
    }
}

/// Records a problem found before the first stage as that stage's outcome.
struct Refused<'a> {
    night: &'a Night<'a>,
    problem: Error,
}

impl Visitor for Refused<'_> {
    type Output = Result<Report>;

    fn visit<C: StageConfig>(self) -> Self::Output {
        let Self { night, problem } = self;
        if let (Ok(config), Ok(runs)) = (night.config::<C>(), night.settings.runs()) {
            Recorder::new(runs, C::NAME, &Destination::of(&config), night.common).end(Err(&problem));
        }
        Err(problem)
    }
}

/// Runs one stage when its turn comes, if it is stale.
struct Turn<'a> {
    night: &'a Night<'a>,
    /// Whether an earlier stage ran, or would run.
    some_run: bool,
}

impl Visitor for Turn<'_> {
    type Output = Result<StageReport>;

    fn visit<C: StageConfig>(self) -> Self::Output {
        let (night, common) = (self.night, self.night.common);
        let config: C = night.config()?;
        let mut mirror = night.mirror.borrow_mut();
        let mut reasons = stage::reasons(&config, common, mirror.depth(&config.folder()))?;
        if night.request.force.iter().any(|it| it == C::NAME) {
            reasons.insert(0, "it is forced".to_owned());
        }
        let report = |did, reasons, outcome| Ok(StageReport { stage: C::NAME, did, reasons, outcome });
        match (reasons.is_empty(), common.dry_run) {
            (true, true) if self.some_run => report(Did::MayRun, reasons, None),
            (true, true) => report(Did::Nothing, reasons, None),
            (true, false) => {
                mirror.catch_up(&config.folder(), common)?;
                tracing::info!("{}: up to date", C::NAME);
                let outcome = nothing_to_do(&config, night.settings, common)?;
                report(Did::Nothing, reasons, Some(outcome))
            }
            (false, true) => report(Did::Run, reasons, None),
            (false, false) => {
                tracing::info!("{}: begins ({})", C::NAME, brief(&reasons));
                let outcome = recorded(&config, night.settings, common, |config| {
                    run_and_deliver(config, &mut mirror, common, |config| config.run(common))
                })?;
                if let Outcome::Published(summary) = &outcome {
                    tracing::info!("{}: {}", C::NAME, done(summary));
                }
                report(Did::Run, reasons, Some(outcome))
            }
        }
    }
}

/// Runs a stage, which may publish in an object store, and commits its table as a Delta table if its settings say so.
///
/// # Errors
/// Those of the stage, of [`Mirror::around`] and of [`delta::commit`].
pub fn run_and_deliver<C: StageConfig>(
    config: &C,
    mirror: &mut Mirror,
    common: &Common,
    run: impl FnOnce(&C) -> Result<Outcome>,
) -> Result<Outcome> {
    let outcome = mirror.around(&config.folder(), common, || run(config), Outcome::is_published)?;
    if outcome.is_published() {
        commit_table(config, common)?;
    }
    Ok(outcome)
}

/// Commits the table that a stage published as a Delta table, if its settings say so.
fn commit_table<C: StageConfig>(config: &C, common: &Common) -> Result<()> {
    let Some(is_part) = config.delta_part().filter(|_| !common.dry_run) else { return Ok(()) };
    let folder = config.folder();
    let place = delta::place_of(&shown(&folder));
    let delta::Committed { version, added, removed, kept } = delta::commit(&folder, &place, is_part)?;
    tracing::info!("{}: version {version}, {added} parts added, {removed} removed, {kept} kept", place.display());
    Ok(())
}

/// Records that a stage was up to date; commits its table as a Delta table if a run did not come to that.
///
/// # Errors
/// [`Error::Config`] if the settings of the run records are invalid; those of [`delta::commit`].
pub fn nothing_to_do<C: StageConfig>(config: &C, settings: &Settings, common: &Common) -> Result<Outcome> {
    let outcome = commit_table(config, common).map(|()| Outcome::NothingToDo { output: config.folder() });
    Recorder::new(settings.runs()?, C::NAME, &Destination::of(config), common).end(outcome.as_ref());
    outcome
}

/// Runs a stage and records its start and outcome.
///
/// # Errors
/// Those of the stage.
pub fn recorded<C: StageConfig>(
    config: &C,
    settings: &Settings,
    common: &Common,
    run: impl FnOnce(&C) -> Result<Outcome>,
) -> Result<Outcome> {
    let recorder = Recorder::start(settings.runs()?, C::NAME, &Destination::of(config), common);
    let result = Outcome::of(run(config));
    recorder.end(result.as_ref());
    result
}

/// The first few reasons.
fn brief(reasons: &[String]) -> String {
    const SHOWN: usize = 3;
    let more = reasons.len().saturating_sub(SHOWN);
    let shown = reasons[..reasons.len() - more].join("; ");
    if more > 0 { format!("{shown}; and {more} more") } else { shown }
}

/// What a stage did, as one readable line.
fn done(summary: &Summary) -> String {
    let figures = ["photos", "segmented", "neighbours", "epochs", "rejects"];
    let count = |name: &&str| Some(units::counted(summary.counts.count(name)?, name));
    let mut parts: Vec<String> = figures.iter().filter_map(count).collect();
    parts.extend(summary.counts.number("test_mean_iou").map(|it| format!("mean IoU {it:.3}")));
    parts.push(units::duration(summary.elapsed_secs));
    format!("done: {}", parts.join(", "))
}
