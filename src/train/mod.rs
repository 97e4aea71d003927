//! `train`: trains a model on dataset tables. Out: `predict.onnx`, `train_step.onnx`, `weights.safetensors`,
//! checkpoints, the training history, the colour table, the evaluation on the test split and the model card.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::color::{self, ColorTable};
use crate::dataset::{Dataset, Split, photos};
use crate::error::{Error, Result};
use crate::graph::{self, Dialect, LossWeights, Precision, Spec, parameters};
use crate::labels::{CATEGORIES, CATEGORY_COUNT};
use crate::model::encoder::EncoderFile;
use crate::model::epochs::{self, EpochRecord};
use crate::model::evaluator::Evaluator;
use crate::model::files::{HISTORY_FILE, LOSS_FILE, MODEL_CARD_FILE, PREDICT_FILE, TRAIN_STEP_FILE, WEIGHTS_FILE};
use crate::model::{self, weights};
use crate::stage::{self, Common, InputRecord, Outcome, Read, RunFolders, Stage, StageConfig, Summary, Versions};
use crate::{chart, evaluate, files, picture, runtime};

pub mod augment;
mod card;
pub mod checkpoint;
mod config;
mod course;
pub mod examples;
pub mod step;
pub mod tensorboard;

pub use checkpoint::Resume;
pub use config::{Config, Publish, Recipe, Schedule};

use card::ModelCard;
use checkpoint::{Checkpoint, Checkpoints, Identity};
use course::Course;
use examples::Examples;
use step::{Task, TrainingStep};
use tensorboard::EventFile;

const STAGE: &str = "train";
/// Settings that may differ between a run and the one that resumes it: paths, the device, when to stop and what to
/// publish.
const MAY_CHANGE: [&str; 7] = ["dataset", "output", "encoder", "device", "publish", "patience", "max_minutes"];

/// What is trained: the network, and the file of its encoder if it has one.
struct Network {
    spec: Spec,
    encoder: Option<EncoderFile>,
}

impl Network {
    fn open(config: &Config) -> Result<Self> {
        let encoder = config.open_encoder()?;
        Ok(Self { spec: config.network(encoder.as_ref())?, encoder })
    }

    /// What training starts from, in the order of [`Spec::state`].
    fn initial_state(&self, seed: u64) -> Vec<Vec<f32>> {
        match &self.encoder {
            Some(encoder) => encoder.initial_state(&self.spec, seed),
            None => parameters::initial_state(&self.spec, seed),
        }
    }
}

/// What a run must have in common with the run that it resumes.
fn identity(config: &Config, network: &Network, seed: u64, photos: &InputRecord) -> Identity {
    // Through text, so that numbers stay as short as they were written.
    let json = |text: serde_json::Result<String>| -> serde_json::Value {
        serde_json::from_str(&text.unwrap_or_default()).expect("settings are plain data")
    };
    let mut identity = Identity::from([
        ("the version of lookbook".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("the data set (SHA-256 of photos.parquet)".to_owned(), photos.sha256.clone()),
        ("the label list".to_owned(), CATEGORIES.join(",")),
        ("the network".to_owned(), json(serde_json::to_string(&network.spec)).to_string()),
        ("seed".to_owned(), seed.to_string()),
    ]);
    if let Some(encoder) = &network.encoder {
        identity.insert("the encoder (SHA-256)".to_owned(), encoder.record().sha256.clone());
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
    const WITHOUT_EFFECT: &'static [&'static str] = &["dataset", "output", "encoder", "device"];

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
        let photos = self.dataset.join(photos::FILE);
        Ok([photos].into_iter().chain(self.encoder.clone()).map(Read::File).collect())
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
    let dataset = Dataset::open(&config.dataset)?;
    let photos = photos_by_split(&dataset)?;
    if common.dry_run {
        return planned(config, &network, resume, common, &dataset, photos).map(Outcome::Planned);
    }
    let kept = [checkpoint::FOLDER, tensorboard::FOLDER, LOSS_FILE];
    let mut stage = Stage::begin_again(STAGE, &config.output, common, config, &kept)?;
    let source = dataset.record(&mut stage)?;
    network.encoder.iter().for_each(|it| stage.record(it.record().clone()));
    let identity = identity(config, &network, common.seed, &source);
    let resumed = checkpoint::find(&stage.create_folder(checkpoint::FOLDER)?, resume, &identity)?;
    let resumed_after = resumed.as_ref().map(Checkpoint::epoch);

    let mut course = prepare(&mut stage, &dataset, config, &network, common, identity, resumed.as_ref())?;
    course.deadline = config.max_minutes.map(|minutes| started + Duration::from_secs_f64(minutes * 60.0));
    if let Some(checkpoint) = resumed {
        course.restore(checkpoint)?;
    }
    stage.keep_unfinished();
    let ending = course.run().inspect_err(|error| course.say_how_to_resume(error))?;
    let published = course.choose()?;

    let predict = write_model(&stage, &course)?;
    ColorTable::learn(&dataset)?.write(&stage.path(color::FILE))?;
    let evaluation = evaluate::after_training(&dataset, &stage.path(""), config.device, common)?;
    // The published evaluation.json may describe another split by now.
    let before = Summary::find(&config.output)?.and_then(|it| it.counts.number("test_mean_iou"));
    stage.gates(common.gates.model(evaluation.as_ref().map(|it| it.mean_iou), before));
    let spec = network.spec.folded();
    let encoder = network.encoder.as_ref().map(|it| card::encoder(&stage, it)).transpose()?;
    let card = ModelCard {
        model_id: model::files::id_of(&predict),
        lookbook_version: env!("CARGO_PKG_VERSION"),
        git_revision: option_env!("LOOKBOOK_GIT_REVISION"),
        created_at: stage::now(),
        network: card::Network {
            spec: &spec,
            parameters: parameters::parameter_count(&spec),
            categories: CATEGORIES,
            encoder,
        },
        training: course.on_card(ending, &published),
        dataset: card::Data::new(source.sha256, photos, card::licence(&stage, &dataset)?),
        metrics: card::Metrics::new(&published, evaluation.as_ref()),
    };
    files::write_json(&stage.path(MODEL_CARD_FILE), &card)?;
    count(&mut stage, &card, course.history.last(), resumed_after);
    stage.publish()
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
        let identity = identity(config, network, common.seed, &InputRecord::of(&dataset.photos_path())?);
        let found = checkpoint::find(&folder, resume, &identity)?;
        summary.counts.set("resumed_after_epoch", found.map(|it| it.epoch()));
    }
    for (split, count) in Split::ALL.into_iter().zip(photos) {
        summary.counts.set(format!("{}_photos", split.name()), count);
    }
    let steps = photos[0].div_ceil(config.batch_size) as u64 * u64::from(config.epochs);
    summary.counts.set("steps", steps);
    Ok(summary)
}

/// Loads the photos and creates the sessions. Removes what an earlier run left, except its epochs up to `resumed`.
fn prepare<'a>(
    stage: &mut Stage,
    dataset: &Dataset,
    config: &'a Config,
    network: &'a Network,
    common: &Common,
    identity: Identity,
    resumed: Option<&Checkpoint>,
) -> Result<Course<'a>> {
    let spec = &network.spec;
    let train = Examples::load(dataset, Split::Train, spec)?;
    let validation = Examples::load(dataset, Split::Validation, spec)?;
    let categories = category_weights(&train, config.category_balance);
    let weights = LossWeights { categories, dice: config.dice, presence: config.presence };
    let descent = config.descent();
    let portable = graph::train_step(Dialect::Portable, Precision::F32, spec, &weights, descent);
    files::write(&stage.path(TRAIN_STEP_FILE), &portable)?;
    let engine = common.engine(config.device);
    let batch_size = config.batch_size.min(train.len());
    let micro_batch_size = if config.micro_batch_size == 0 { batch_size } else { config.micro_batch_size };
    let precision = if config.mixed_precision { Precision::F16 } else { Precision::F32 };
    let task = Task { spec, loss_weights: &weights, micro_batch_size, precision, descent };
    let step = TrainingStep::new(task, batch_size, network.initial_state(common.seed), 0, engine)?;
    if step.precision() != precision {
        tracing::warn!("mixed_precision is for portable operators, which CUDA runs; the native ones compute in f32");
    }
    let engine = step.backend().engine(engine);
    let evaluator = Evaluator::new(spec, engine)?;
    stage.backend(step.backend());
    Ok(Course {
        config,
        spec,
        seed: common.seed,
        identity,
        deadline: None,
        train,
        validation,
        step,
        evaluator,
        engine,
        checkpoints: Checkpoints::start(stage.create_folder(checkpoint::FOLDER)?, resumed)?,
        events: EventFile::open(&stage.create_folder(tensorboard::FOLDER)?, resumed.map_or(0, Checkpoint::epoch))?,
        loss_csv: stage.path(LOSS_FILE),
        history: Vec::new(),
        is_time_over: false,
    })
}

/// Writes the network, its weights and the training history (`loss.csv` is there already); returns the inference network.
fn write_model(stage: &Stage, course: &Course<'_>) -> Result<Vec<u8>> {
    let (spec, weights, history) = (course.spec.folded(), course.step.folded_weights()?, &course.history);
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

/// The weight of a pixel of each category: the category's share of all pixels to the power of -`balance`, scaled so
/// that the mean over all pixels is 1.
fn category_weights(train: &Examples, balance: f32) -> [f32; CATEGORY_COUNT] {
    let mut pixels = [0_u64; CATEGORY_COUNT];
    for labels in train.labels() {
        for &label in labels {
            pixels[usize::from(label)] += 1;
        }
    }
    balanced(&pixels, balance)
}

fn balanced(pixels: &[u64; CATEGORY_COUNT], balance: f32) -> [f32; CATEGORY_COUNT] {
    let total = pixels.iter().sum::<u64>() as f64;
    let raw = pixels.map(|count| if count == 0 { 0.0 } else { (count as f64 / total).powf(-f64::from(balance)) });
    let mean: f64 = raw.iter().zip(pixels).map(|(weight, &count)| weight * count as f64 / total).sum();
    raw.map(|weight| (weight / mean) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balance_gives_rare_categories_their_say() {
        let mut pixels = [0; CATEGORY_COUNT];
        pixels[0] = 90;
        pixels[1] = 10;
        let plain = balanced(&pixels, 0.0);
        assert_eq!(plain[..3], [1.0, 1.0, 0.0]);
        let even = balanced(&pixels, 1.0);
        assert!((even[0] * 0.9 - 0.5).abs() < 1e-6 && (even[1] * 0.1 - 0.5).abs() < 1e-6, "{even:?}");
    }
}
