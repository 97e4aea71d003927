//! `train`: trains a model on dataset tables. Out: `predict.onnx`, `train_step.onnx`, `weights.safetensors`,
//! checkpoints, the training history, the colour table, the evaluation on the test split and the model card.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::catalogue::{Catalogue, Numbering};
use crate::color::{self, ColorTable};
use crate::dataset::{Dataset, Split, names, photos};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::graph::{self, Dialect, Precision, Spec, parameters};
use crate::model::Model;
use crate::model::encoder::EncoderFile;
use crate::model::epochs::{self, EpochRecord};
use crate::model::files::{
    HISTORY_FILE, INT8_FILE, LOSS_FILE, MODEL_CARD_FILE, PREDICT_FILE, TRAIN_STEP_FILE, WEIGHTS_FILE,
};
use crate::model::{self, calibration, weights};
use crate::stage::{self, Common, InputRecord, Outcome, Read, RunFolders, Stage, StageConfig, Summary, Versions};
use crate::{chart, evaluate, files, picture, runtime};

pub mod augment;
mod card;
pub mod checkpoint;
mod config;
mod course;
pub mod examples;
mod phase;
pub mod sampling;
mod start;
pub mod step;
pub mod tensorboard;
mod unlabelled;

pub use checkpoint::Resume;
pub use config::{Config, Publish, Recipe, Schedule};

use card::ModelCard;
use checkpoint::{Checkpoint, Checkpoints, Identity};
use course::{Course, Seconds};
use examples::PseudoLabelled;
use phase::{Material, Phase};
use start::Start;
use tensorboard::EventFile;
use unlabelled::{PseudoLabels, Unlabelled};

const STAGE: &str = "train";
/// Settings that may differ between a run and the one that resumes it: paths, the device, when to stop and what to
/// publish.
const MAY_CHANGE: [&str; 12] = [
    "dataset",
    "output",
    "start_from",
    "encoder",
    "labels_from",
    "unlabelled",
    "unlabelled_model",
    "device",
    "mirror",
    "publish",
    "patience",
    "max_minutes",
];

/// What is trained: the network, the file of its encoder if it has one, the model that it starts from if there is one,
/// the model that labels its photos if one does, and the photos without labels if it learns from some.
struct Network {
    spec: Spec,
    encoder: Option<EncoderFile>,
    start: Option<Start>,
    teacher: Option<Model>,
    unlabelled: Option<Unlabelled>,
}

impl Network {
    fn open(config: &Config) -> Result<Self> {
        let encoder = config.open_encoder()?;
        let spec = config.network(encoder.as_ref())?;
        let start = config.start_from.as_deref().map(Start::open).transpose()?;
        start.iter().try_for_each(|it| it.check(&spec))?;
        let teacher = config.labels_from.as_deref().map(Model::open).transpose()?;
        Ok(Self { spec, encoder, start, teacher, unlabelled: Unlabelled::open(config)? })
    }

    /// Identities of the model that it starts from and of the one that labels its photos.
    fn origins(&self) -> [Option<String>; 2] {
        [self.start.as_ref().map(Start::model), self.teacher.as_ref()].map(|it| it.map(Model::id))
    }

    /// The network for the label set of the data set, which the other models must have as well.
    fn for_labels(self, dataset: &Dataset) -> Result<Self> {
        self.start.as_ref().map_or(Ok(()), |it| it.check_labels(dataset))?;
        let teacher = self.teacher.iter().map(|it| ("train.labels_from", it));
        let of_unlabelled = self.unlabelled.iter().map(|it| ("train.unlabelled_model", &it.model));
        for (setting, model) in teacher.chain(of_unlabelled) {
            dataset.check_labels(&model.labels()?, setting, model.folder().name())?;
        }
        Ok(Self { spec: Spec { labels: dataset.labels().clone(), ..self.spec }, ..self })
    }

    /// What training starts from, in the order of [`Spec::state`].
    fn initial_state(&self, seed: u64) -> Vec<Vec<f32>> {
        match (&self.start, &self.encoder) {
            (Some(start), _) => start.state(),
            (None, Some(encoder)) => encoder.initial_state(&self.spec, seed),
            (None, None) => parameters::initial_state(&self.spec, seed),
        }
    }
}

/// Checks what can be checked before the dataset is there: the network, and the files that its weights come from.
///
/// # Errors
/// [`Error::Config`], [`Error::Input`] naming the setting or the file.
pub fn check_network(config: &Config) -> Result<()> {
    Network::open(config).map(drop)
}

/// What a run must have in common with the run that it resumes.
fn identity(
    config: &Config,
    network: &Network,
    seed: u64,
    photos: &InputRecord,
    unlabelled: &[InputRecord],
) -> Identity {
    // Through text, so that numbers stay as short as they were written.
    let json = |text: serde_json::Result<String>| -> serde_json::Value {
        serde_json::from_str(&text.unwrap_or_default()).expect("settings are plain data")
    };
    let mut identity = Identity::from([
        ("the version of lookbook".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("the data set (SHA-256 of photos.parquet)".to_owned(), photos.sha256.clone()),
        ("the label list".to_owned(), category_names(&network.spec).join(",")),
        ("the network".to_owned(), json(serde_json::to_string(&network.spec)).to_string()),
        ("seed".to_owned(), seed.to_string()),
    ]);
    if let Some(encoder) = &network.encoder {
        identity.insert("the encoder (SHA-256)".to_owned(), encoder.record().sha256.clone());
    }
    if let Some(start) = &network.start {
        identity.insert("the model to start from".to_owned(), start.model().id());
    }
    if let Some(teacher) = &network.teacher {
        identity.insert("the model that labels the photos".to_owned(), teacher.id());
    }
    if let Some(Unlabelled { model, .. }) = &network.unlabelled {
        let checksums: Vec<_> = unlabelled.iter().map(|it| it.sha256.as_str()).collect();
        identity.insert("the photos without labels (SHA-256)".to_owned(), checksums.join(","));
        identity.insert("the model that labels them".to_owned(), model.id());
    }
    for (setting, value) in json(serde_json::to_string(config)).as_object().into_iter().flatten() {
        if !MAY_CHANGE.contains(&setting.as_str()) {
            identity.insert(format!("setting {setting}"), value.to_string());
        }
    }
    identity
}

impl StageConfig for Config {
    const NAME: &'static str = STAGE;
    const SEEDED: bool = true;
    const WITHOUT_EFFECT: &'static [&'static str] =
        &["dataset", "output", "start_from", "encoder", "labels_from", "unlabelled", "unlabelled_model", "device"];

    fn folder(&self) -> PathBuf {
        self.output.clone()
    }

    fn in_run(run: &RunFolders) -> Vec<(&'static str, PathBuf)> {
        vec![("dataset", run.folder("dataset")), ("output", run.folder("model"))]
    }

    fn check(&self) -> Result<()> {
        self.check_values()
    }

    fn reads(&self) -> Result<Vec<Read>> {
        let labels = names::reads(&self.dataset);
        let photos = self.dataset.join(photos::FILE);
        let start = self.start_from.as_ref().map(|it| it.join(PREDICT_FILE));
        let files = [photos].into_iter().chain(labels).chain(self.encoder.clone()).chain(start);
        let mut reads: Vec<_> = files.map(Read::File).collect();
        if let Some(photos) = &self.unlabelled {
            reads.extend(Catalogue::open(photos, &Numbering::default())?.reads());
        }
        for teacher in self.labels_from.iter().chain(&self.unlabelled_model) {
            reads.extend(Model::network_reads(teacher)?.into_iter().map(Read::File));
        }
        Ok(reads)
    }

    fn run(&self, common: &Common) -> Result<Outcome> {
        run_or_resume(self, Resume::Auto, common)
    }
}

/// Trains a model on the train split of a dataset folder and publishes the model folder.
///
/// # Errors
/// As [`run_or_resume`].
pub fn run(config: &Config, common: &Common) -> Result<Outcome> {
    run_or_resume(config, Resume::Never, common)
}

/// As [`run`], but resumes an unfinished run if `resume` says so.
///
/// # Errors
/// Invalid settings, an invalid dataset folder, a missing runtime, a loss that is not finite, or an unfinished run that
/// cannot be resumed.
pub fn run_or_resume(config: &Config, resume: Resume, common: &Common) -> Result<Outcome> {
    let started = Instant::now();
    config.check_values()?;
    let network = Network::open(config)?;
    let teachers = network.teacher.iter().chain(network.unlabelled.iter().map(|it| &it.model));
    teachers.into_iter().try_for_each(|it| it.check_license(&common.gates))?;
    let dataset = Dataset::open(&config.dataset)?;
    let network = network.for_labels(&dataset)?;
    let photos = photos_by_split(&dataset)?;
    if common.dry_run {
        return planned(config, &network, resume, common, &dataset, photos).map(Outcome::Planned);
    }
    let kept = [checkpoint::FOLDER, tensorboard::FOLDER, LOSS_FILE];
    let mut stage = Stage::begin_again(STAGE, &config.output, common, config, &kept)?;
    let source = dataset.record(&mut stage)?;
    dataset.record_labels(&mut stage)?;
    network.encoder.iter().for_each(|it| stage.record(it.record().clone()));
    network.start.iter().for_each(|it| it.model().record_network(&mut stage));
    network.teacher.iter().for_each(|it| it.record_network(&mut stage));
    let unlabelled = record_unlabelled(&mut stage, &network, config)?;
    let identity = identity(config, &network, common.seed, &source, &unlabelled);
    let resumed = checkpoint::find(&stage.create_folder(checkpoint::FOLDER)?, resume, &identity)?;
    let resumed_after = resumed.as_ref().map(Checkpoint::epoch);

    let engine = common.engine(config.device);
    let relabelled = relabel(&mut stage, &network, config, &dataset, engine)?;
    let pseudo_labels = label(&mut stage, &network, &dataset, engine)?;
    let material = Material { config, spec: &network.spec, dataset: &dataset, relabelled, pseudo_labels, engine };
    let (mut course, phase) = prepare(&mut stage, material, &network, common.seed, identity, resumed)?;
    course.deadline = config.max_minutes.map(|minutes| started + Duration::from_secs_f64(minutes * 60.0));
    stage.keep_unfinished();
    let (ending, mut phase) = course.run(phase).inspect_err(|error| course.say_how_to_resume(error))?;
    let published = course.choose(&mut phase.step)?;

    let predict = write_model(&stage, &course, &phase)?;
    ColorTable::learn(&dataset)?.write(&stage.path(color::FILE))?;
    let ranges = calibration::measure(&dataset, &predict, common.seed, common.threads)?;
    files::write_json(&stage.path(INT8_FILE), &ranges)?;
    let evaluation = evaluate::after_training(&dataset, &stage.path(""), config.device, common)?;
    // The published evaluation.json may describe another split by now.
    let before = Summary::find(&config.output)?.and_then(|it| it.counts.number("test_mean_iou"));
    stage.gates(common.gates.model(evaluation.as_ref().map(|it| it.mean_iou), before));
    let spec = config.published(&network.spec);
    let encoder = network.encoder.as_ref().map(|it| card::encoder(&stage, it)).transpose()?;
    let card = ModelCard {
        model_id: model::files::id_of(&predict),
        lookbook_version: env!("CARGO_PKG_VERSION"),
        git_revision: option_env!("LOOKBOOK_GIT_REVISION"),
        created_at: stage::now(),
        network: card::Network {
            spec: &spec,
            parameters: parameters::parameter_count(&spec),
            categories: category_names(&spec),
            encoder,
        },
        training: course.on_card(&phase.step, ending, &published, network.origins()),
        dataset: card::Data::new(source.sha256, photos, card::licence(&stage, &dataset)?),
        metrics: card::Metrics::new(&published, evaluation.as_ref()),
    };
    files::write_json(&stage.path(MODEL_CARD_FILE), &card)?;
    count(&mut stage, &card, course.history.last(), resumed_after);
    stage.count("seconds", serde_json::to_value(course.seconds).unwrap_or_default());
    stage.publish()
}

/// The names of a network's categories.
fn category_names(spec: &Spec) -> Vec<&str> {
    spec.labels.categories().iter().map(|it| it.name.as_str()).collect()
}

/// Records the photos without labels, and the model that labels them; returns the records of the photos.
fn record_unlabelled(stage: &mut Stage, network: &Network, config: &Config) -> Result<Vec<InputRecord>> {
    let Some(Unlabelled { catalogue, model, .. }) = &network.unlabelled else { return Ok(Vec::new()) };
    let known = Config::known(&config.output);
    let records = catalogue.reads().iter().map(|it| stage.input(it, &known)).collect();
    model.record_network(stage);
    records
}

/// Labels the photos of the train part if a model does so, and says how many of their pixels.
fn relabel(
    stage: &mut Stage,
    network: &Network,
    config: &Config,
    dataset: &Dataset,
    engine: Engine,
) -> Result<Option<Vec<PseudoLabelled>>> {
    let Some(teacher) = &network.teacher else { return Ok(None) };
    let photos = unlabelled::relabel(dataset, teacher, config.unlabelled_confidence, engine)?;
    stage.count("relabelled_share", unlabelled::labelled_share(&photos));
    Ok(Some(photos))
}

/// Labels the photos without labels, and counts them.
fn label(stage: &mut Stage, network: &Network, dataset: &Dataset, engine: Engine) -> Result<PseudoLabels> {
    let Some(unlabelled) = &network.unlabelled else { return Ok(PseudoLabels::default()) };
    let labels = unlabelled.label(dataset, engine)?;
    stage.count("unlabelled_photos", labels.photos.len());
    stage.count("unlabelled_in_dataset", labels.in_dataset);
    stage.count("unlabelled_unreadable", labels.unreadable);
    stage.count("pseudo_labelled_share", unlabelled::labelled_share(&labels.photos));
    Ok(labels)
}

/// What a run would do: the sizes of the splits, the number of steps, and the epoch that it would resume after.
fn planned(
    config: &Config,
    network: &Network,
    resume: Resume,
    common: &Common,
    dataset: &Dataset,
    photos: [usize; 3],
) -> Result<Summary> {
    runtime::library()?;
    let mut summary = stage::dry_run(STAGE, &config.output, common, config)?;
    let folder = Versions::of(&config.output)?.partial().join(checkpoint::FOLDER);
    if folder.is_dir() {
        let reads = network.unlabelled.iter().flat_map(|it| it.catalogue.reads());
        let known = Config::known(&config.output);
        let unlabelled = reads.map(|it| it.now(&known)).collect::<Result<Vec<_>>>()?;
        let photos = InputRecord::of(&dataset.photos_path())?;
        let identity = identity(config, network, common.seed, &photos, &unlabelled);
        let found = checkpoint::find(&folder, resume, &identity)?;
        summary.counts.set("resumed_after_epoch", found.map(|it| it.epoch()));
    }
    for (split, count) in Split::ALL.into_iter().zip(photos) {
        summary.counts.set(format!("{}_photos", split.name()), count);
    }
    // Unless the data set has some of the photos without labels, too.
    let unlabelled = network.unlabelled.as_ref().map_or(0, |it| it.catalogue.entries.len());
    let steps = (photos[0] + unlabelled).div_ceil(config.batch_size) as u64 * u64::from(config.epochs);
    summary.counts.set("steps", steps);
    Ok(summary)
}

/// The course of the run and its first phase. Removes what an earlier run left, except its epochs up to `resumed`, from
/// which the phase starts then.
fn prepare<'a>(
    stage: &mut Stage,
    material: Material<'a>,
    network: &Network,
    seed: u64,
    identity: Identity,
    resumed: Option<Checkpoint>,
) -> Result<(Course<'a>, Phase)> {
    let after = resumed.as_ref().map_or(0, Checkpoint::epoch);
    let first = (after + 1).min(material.config.epochs);
    let mut phase = material.phase(first, network.initial_state(seed), 0)?;
    stage.backend(phase.step.backend());
    if material.config.mixed_precision && phase.step.precision() == Precision::F32 {
        tracing::warn!(
            "mixed_precision on the CPU needs AVX-512-BF16, which this processor or the selected instructions do not \
             have: training in f32"
        );
    }
    let mut course = Course {
        steps_of_epoch: phase.train.len().div_ceil(material.config.batch_size) as u64,
        material,
        seed,
        identity,
        deadline: None,
        checkpoints: Checkpoints::start(stage.create_folder(checkpoint::FOLDER)?, resumed.as_ref())?,
        events: EventFile::open(&stage.create_folder(tensorboard::FOLDER)?, after)?,
        loss_csv: stage.path(LOSS_FILE),
        history: Vec::new(),
        is_time_over: false,
        seconds: Seconds::default(),
    };
    if let Some(checkpoint) = resumed {
        course.restore(&mut phase, checkpoint)?;
    }
    Ok((course, phase))
}

/// Writes the network at its full size, its training step, its weights and the training history (`loss.csv` is there
/// already); returns the inference network.
fn write_model(stage: &Stage, course: &Course<'_>, phase: &Phase) -> Result<Vec<u8>> {
    let (whole, weights, history) = (course.material.spec, phase.step.folded_weights()?, &course.history);
    let descent = course.material.config.descent();
    let train_step = graph::train_step(Dialect::Portable, Precision::F32, whole, &phase.loss_weights, descent);
    files::write(&stage.path(TRAIN_STEP_FILE), &train_step)?;
    let spec = course.material.config.published(whole);
    let predict = graph::predict(&spec, &weights);
    files::write(&stage.path(PREDICT_FILE), &predict)?;
    weights::write_weights(&stage.path(WEIGHTS_FILE), &spec, &weights)?;
    epochs::write(&stage.path(HISTORY_FILE), history)?;
    files::write(&stage.path("learning_curve.png"), &picture::png(&chart::side_by_side(&epochs::charts(history))?))?;
    Ok(predict)
}

/// Records the figures of the model card and of the last epoch in `run.json`.
fn count(stage: &mut Stage, card: &ModelCard<'_>, last: Option<&EpochRecord>, resumed_after: Option<u32>) {
    stage.count("test_mean_iou", card.metrics.test.as_ref().map(|it| it.mean_iou));
    stage.count("train_photos", card.dataset.train_photos);
    stage.count("validation_photos", card.dataset.validation_photos);
    stage.count("parameters", card.network.parameters);
    stage.count("model_id", card.model_id.as_str());
    stage.count("started_from", card.training.started_from.as_deref());
    stage.count("labels_from", card.training.labels_from.as_deref());
    stage.count("precision", card.training.precision);
    stage.count("epochs", card.training.epochs);
    stage.count("steps", card.training.steps);
    stage.count("ended_by", card.training.ended_by);
    stage.count("published_epoch", card.training.published_epoch);
    stage.count("best_epoch", card.training.best_epoch);
    stage.count("resumed_after_epoch", resumed_after);
    if let Some(last) = last {
        stage.count("last_epoch", serde_json::to_value(last).unwrap_or_default());
    }
}

/// Number of photos in the train, validation and test splits.
fn photos_by_split(dataset: &Dataset) -> Result<[usize; 3]> {
    let index = dataset.index()?;
    let photos = Split::ALL.map(|split| index.iter().filter(|it| it.split == split).count());
    for (part, count) in ["train", "validation"].into_iter().zip(photos) {
        if count == 0 {
            let problem = format!("has no photos in the {part} split; convert more photos, or split them differently");
            return Err(Error::input(dataset.photos_path(), problem));
        }
    }
    Ok(photos)
}
