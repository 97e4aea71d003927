//! `train`: dataset tables to a model: `predict.onnx`, `train_step.onnx`, `weights.safetensors`, checkpoints, the history
//! of the run, the colour table and the evaluation of the test part.

use std::path::PathBuf;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::color::{self, ColorTable};
use crate::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::evaluate::{self, Evaluation, Evaluator, confusion::Confusion};
use crate::graph::{self, Dialect, Loss, Spec, unet};
use crate::labels::CATEGORY_COUNT;
use crate::picture;
use crate::progress::Progress;
use crate::runtime::Device;
use crate::stage::{self, Common, Stage, Summary};
use crate::stop;

pub mod checkpoint;
pub mod examples;
pub mod history;
pub mod step;

use checkpoint::{Checkpoint, Checkpoints};
use examples::{Batch, Examples};
use history::EpochRecord;
use step::TrainingStep;

/// File name of the training step's graph.
pub const TRAIN_STEP_FILE: &str = "train_step.onnx";
/// File name of the network for use.
pub const PREDICT_FILE: &str = "predict.onnx";
/// File name of the weights by name.
pub const WEIGHTS_FILE: &str = "weights.safetensors";
/// File name of the course of the run.
pub const HISTORY_FILE: &str = "history.parquet";

/// Epochs of the seed's run.
const DEFAULT_EPOCHS: u32 = 25;
/// Photos a step of the seed's run.
const DEFAULT_BATCH_SIZE: usize = 16;
/// Learning rate of the seed's run.
const DEFAULT_LEARNING_RATE: f32 = 1e-3;

/// A named way to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// The seed's: Adam at a constant rate, no augmentation.
    #[default]
    Seed,
}

/// How the learning rate goes over the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// The same in every step: the seed's.
    #[default]
    Constant,
    /// Half a cosine from the learning rate down to nothing (Loshchilov and Hutter, 2017,
    /// <https://arxiv.org/abs/1608.03983>).
    Cosine,
}

impl Schedule {
    /// What the learning rate is multiplied by in step `step` (from 0) of `steps`.
    fn factor(self, step: u64, steps: u64) -> f32 {
        match self {
            Self::Constant => 1.0,
            Self::Cosine => 0.5 * (1.0 + (std::f32::consts::PI * step as f32 / steps as f32).cos()),
        }
    }
}

/// Settings of `train`. The defaults are the seed's run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of the dataset tables.
    pub dataset: PathBuf,
    /// The folder of the model.
    pub output: PathBuf,
    /// The way to train.
    pub recipe: Recipe,
    /// Passes over the train part, at least 1.
    pub epochs: u32,
    /// Photos a step, at least 1.
    pub batch_size: usize,
    /// Learning rate of Adam, above 0.
    pub learning_rate: f32,
    /// How the learning rate goes over the run.
    pub schedule: Schedule,
    /// What the maps mean: `bce` (the seed's) or `softmax`.
    pub loss: Loss,
    /// Weighs the pixels of a category by its share of all pixels to the power of minus this, 0 to 1: 0 leaves all pixels
    /// alike, 1 gives every category the same say. With `loss = "softmax"` only.
    pub category_balance: f32,
    /// Width that photos are scaled into for the network, 16 to 4096.
    pub photo_width_px: usize,
    /// Height that photos are scaled into for the network, 16 to 4096.
    pub photo_height_px: usize,
    /// Where the network runs.
    pub device: Device,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dataset: PathBuf::from("output/dataset"),
            output: PathBuf::from("output/model"),
            recipe: Recipe::Seed,
            epochs: DEFAULT_EPOCHS,
            batch_size: DEFAULT_BATCH_SIZE,
            learning_rate: DEFAULT_LEARNING_RATE,
            schedule: Schedule::Constant,
            loss: Loss::Bce,
            category_balance: 0.0,
            photo_width_px: crate::photo::FIT_WIDTH_PX as usize,
            photo_height_px: crate::photo::FIT_HEIGHT_PX as usize,
            device: Device::Auto,
        }
    }
}

impl Config {
    fn check(&self) -> Result<()> {
        let sides = 16..=4096;
        let in_order = [
            ("train.epochs", self.epochs > 0, "is 0; at least one epoch is needed"),
            ("train.batch_size", self.batch_size > 0, "is 0; at least one photo a step is needed"),
            ("train.learning_rate", self.learning_rate > 0.0 && self.learning_rate.is_finite(), "is not above 0"),
            ("train.photo_width_px", sides.contains(&self.photo_width_px), "is not within 16 to 4096"),
            ("train.photo_height_px", sides.contains(&self.photo_height_px), "is not within 16 to 4096"),
            ("train.category_balance", (0.0..=1.0).contains(&self.category_balance), "is not within 0 to 1"),
            (
                "train.category_balance",
                self.category_balance == 0.0 || self.loss == Loss::Softmax,
                "goes with loss = \"softmax\" only",
            ),
        ];
        match in_order.iter().find(|(_, good, _)| !good) {
            Some((setting, _, problem)) => Err(Error::config(*setting, problem)),
            None => Ok(()),
        }
    }

    fn spec(&self) -> Spec {
        Spec { photo_width_px: self.photo_width_px, photo_height_px: self.photo_height_px, loss: self.loss }
    }
}

/// Trains a model on the train part of a dataset folder and publishes the model folder.
///
/// # Errors
/// Bad settings, a dataset folder that is none, a missing runtime, a loss that is not finite.
pub fn run(config: &Config, common: &Common) -> Result<Summary> {
    config.check()?;
    let dataset = Dataset::open(&config.dataset)?;
    let spec = config.spec();
    if common.dry_run {
        return Ok(stage::planned("train", &config.output, common, config));
    }
    let mut stage = Stage::begin("train", &config.output, common, config)?;
    stage.input(&dataset.photos_path())?;
    let train = Examples::load(&dataset, Split::Train, &spec)?;
    let validation = Examples::load(&dataset, Split::Validation, &spec)?;
    for (part, examples) in [("train", &train), ("validation", &validation)] {
        if examples.is_empty() {
            let problem = format!("has no photos in the {part} part; convert more photos, or with another split");
            return Err(Error::input(dataset.photos_path(), problem));
        }
    }
    let weights = category_weights(&train, config.category_balance);
    let model = |dialect| graph::train_step(dialect, &spec, &weights);
    stage::write_file(&stage.path(TRAIN_STEP_FILE), &model(Dialect::Portable))?;
    let initial = unet::initial_weights(common.seed);
    let engine = common.engine(config.device);
    let step = TrainingStep::new(model, &spec, &initial, engine)?;
    let evaluator = Evaluator::new(&spec, engine)?;
    stage.backend(step.backend());

    let checkpoints = Checkpoints::create(stage.create_folder(checkpoint::FOLDER)?);
    let mut training = Training { config, seed: common.seed, train, validation, step, evaluator, checkpoints };
    stage.keep_unfinished();
    let (history, weights) = training.run()?;

    let predict = graph::predict(&spec, &weights);
    stage::write_file(&stage.path(PREDICT_FILE), &predict)?;
    checkpoint::write_weights(&stage.path(WEIGHTS_FILE), &spec, &weights)?;
    history::write(&stage.path(HISTORY_FILE), &history)?;
    history::write_csv(&stage.path("loss.csv"), &history)?;
    stage::write_file(&stage.path("learning_curve.png"), &picture::png(&picture::learning_curve(&history)?))?;
    ColorTable::learn(&dataset)?.write(&stage.path(color::FILE))?;
    let evaluation = evaluate::after_training(&dataset, &stage.path(""), config.device, common)?;
    let before = evaluate::read(&config.output).ok();
    let mean_iou = |evaluation: &Option<Evaluation>| evaluation.as_ref().map(|it| it.mean_iou);
    stage.gates(common.gates.model(mean_iou(&evaluation), mean_iou(&before)));
    stage.count("test_mean_iou", mean_iou(&evaluation));
    stage.count("train_photos", training.train.len());
    stage.count("validation_photos", training.validation.len());
    stage.count("parameters", unet::PARAMETER_COUNT);
    stage.count("model_id", crate::predict::model_id(&predict));
    if let Some(last) = history.last() {
        stage.count("last_epoch", serde_json::to_value(last).unwrap_or_default());
    }
    stage.publish()
}

/// Weight of a pixel of each category: its share of the pixels to the power of -`balance`, scaled so that the mean over
/// all pixels is 1.
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

/// A run over the epochs.
struct Training<'a> {
    config: &'a Config,
    seed: u64,
    train: Examples,
    validation: Examples,
    step: TrainingStep,
    evaluator: Evaluator,
    checkpoints: Checkpoints,
}

impl Training<'_> {
    /// Trains all epochs; returns their records and the last weights.
    fn run(&mut self) -> Result<(Vec<EpochRecord>, Vec<f32>)> {
        let started = std::time::Instant::now();
        let progress = Progress::new("train", self.steps(), "steps");
        let mut history = Vec::new();
        for epoch in 1..=self.config.epochs {
            let mut record = self.epoch(epoch, &progress)?;
            record.elapsed_secs = started.elapsed().as_secs_f32();
            tracing::info!("{record}");
            self.checkpoints.save(&Checkpoint {
                epoch,
                step: self.step.count(),
                seed: self.seed,
                validation_mean_iou: record.validation_mean_iou,
                spec: self.config.spec(),
                weights: self.step.weights()?,
                moments: self.step.moments()?,
            })?;
            history.push(record);
        }
        Ok((history, self.step.weights()?))
    }

    /// Number of steps of the whole run.
    fn steps(&self) -> u64 {
        self.train.len().div_ceil(self.config.batch_size) as u64 * u64::from(self.config.epochs)
    }

    fn epoch(&mut self, epoch: u32, progress: &Progress) -> Result<EpochRecord> {
        let started = std::time::Instant::now();
        let (mut loss, mut accuracy, mut learning_rate) = (0.0, 0.0, self.config.learning_rate);
        for (index, ids) in self.order(epoch).chunks(self.config.batch_size).enumerate() {
            let batch = self.train.batch(ids);
            learning_rate = self.config.learning_rate * self.config.schedule.factor(self.step.count(), self.steps());
            let learnt = self.step.run(batch, learning_rate)?;
            if !learnt.loss.is_finite() {
                return Err(self.not_finite(epoch, index + 1, ids));
            }
            let share = ids.len() as f64 / self.train.len() as f64;
            loss += f64::from(learnt.loss) * share;
            accuracy += f64::from(learnt.pixel_accuracy) * share;
            progress.message(format!("epoch {epoch} loss {:.4}", learnt.loss));
            progress.inc(1);
            stop::check()?;
        }
        let train_secs = started.elapsed().as_secs_f64();
        let (validation_loss, confusion) = self.validate()?;
        Ok(EpochRecord {
            epoch,
            learning_rate,
            train_loss: loss as f32,
            train_pixel_accuracy: accuracy as f32,
            validation_loss: validation_loss as f32,
            validation_pixel_accuracy: confusion.pixel_accuracy() as f32,
            validation_foreground_accuracy: confusion.foreground_accuracy().unwrap_or(0.0) as f32,
            validation_mean_iou: confusion.mean_iou() as f32,
            photos_per_sec: (self.train.len() as f64 / train_secs) as f32,
            elapsed_secs: 0.0,
        })
    }

    /// The order of the train photos in an epoch: the same for the same seed and epoch, whatever ran before.
    fn order(&self, epoch: u32) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(u64::from(epoch));
        let mut order: Vec<usize> = (0..self.train.len()).collect();
        order.shuffle(&mut rng);
        order
    }

    /// Loss and confusion over the validation part, at the network's size.
    fn validate(&mut self) -> Result<(f64, Confusion)> {
        let (mut loss, mut confusion) = (0.0, Confusion::default());
        let ids: Vec<usize> = (0..self.validation.len()).collect();
        for ids in ids.chunks(crate::predict::BATCH_SIZE) {
            stop::check()?;
            let Batch { photos, labels, .. } = self.validation.batch(ids);
            let answer = self.evaluator.run(photos, labels, self.step.weights_value())?;
            loss += f64::from(answer.loss) * ids.len() as f64 / self.validation.len() as f64;
            for (&id, map) in ids.iter().zip(&answer.label_maps) {
                self.validation.count(id, map, &mut confusion);
            }
        }
        Ok((loss, confusion))
    }

    fn not_finite(&self, epoch: u32, step: usize, ids: &[usize]) -> Error {
        let photos: Vec<&str> = ids.iter().map(|&id| self.train.file_name(id)).collect();
        let saved = self.checkpoints.last().map_or("there is no checkpoint yet".to_owned(), |path| {
            format!("the last good checkpoint is {}", path.display())
        });
        let problem = format!(
            "is not finite in epoch {epoch}, step {step} (photos {}); {saved}; a lower learning_rate may mend it",
            photos.join(", ")
        );
        Error::runtime("the loss", problem)
    }
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

    #[test]
    fn the_cosine_falls_from_all_to_nothing() {
        assert_eq!(Schedule::Cosine.factor(0, 8), 1.0);
        assert!((Schedule::Cosine.factor(4, 8) - 0.5).abs() < 1e-6);
        assert!(Schedule::Cosine.factor(8, 8).abs() < 1e-6);
        assert_eq!(Schedule::Constant.factor(7, 8), 1.0);
    }

    #[test]
    fn bad_settings_are_named() {
        for (config, setting) in [
            (Config { epochs: 0, ..Config::default() }, "train.epochs"),
            (Config { learning_rate: f32::NAN, ..Config::default() }, "train.learning_rate"),
            (Config { category_balance: 0.5, ..Config::default() }, "train.category_balance"),
        ] {
            let error = config.check().expect_err("the setting is bad");
            assert!(error.to_string().contains(setting), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
