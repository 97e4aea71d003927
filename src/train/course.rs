//! The training loop: epochs, validation, checkpoints, and when to stop.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::augment::Change;
use super::card;
use super::checkpoint::{Checkpoint, Checkpoints, Identity};
use super::config::{Config, Publish};
use super::examples::{Batch, BatchPlan, Examples};
use super::step::{self, TrainingStep};
use super::tensorboard::EventFile;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::graph::{self, Precision, Spec};
use crate::model::certainty::Certainty;
use crate::model::confusion::Confusion;
use crate::model::epochs::{self, EpochRecord};
use crate::model::evaluator::Evaluator;
use crate::picture::{self, Panel};
use crate::progress::Progress;
use crate::{runtime, stop};

/// Validation photos whose predictions are written as pictures.
const SHOWN_PHOTOS: usize = 3;
/// Approximate number of epochs in which they are written: TensorBoard keeps this many pictures by default.
const SHOWN_EPOCHS: u32 = 10;

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// All epochs are done.
    Epochs,
    /// The validation split has not improved for [`Config::patience`] epochs.
    Patience,
    /// [`Config::max_minutes`] have passed.
    MaxMinutes,
}

impl Ending {
    /// The setting that ended the run.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Epochs => "epochs",
            Self::Patience => "patience",
            Self::MaxMinutes => "max_minutes",
        }
    }
}

/// The state of a training run.
pub(super) struct Course<'a> {
    pub(super) config: &'a Config,
    pub(super) spec: &'a Spec,
    pub(super) seed: u64,
    pub(super) identity: Identity,
    pub(super) deadline: Option<Instant>,
    pub(super) train: Examples,
    pub(super) validation: Examples,
    pub(super) step: TrainingStep,
    pub(super) evaluator: Evaluator,
    /// What the network runs on when probabilities are wanted.
    pub(super) engine: Engine,
    pub(super) checkpoints: Checkpoints,
    pub(super) events: EventFile,
    /// The history as a file, which keeps the times of the epochs for a run that resumes this one.
    pub(super) loss_csv: PathBuf,
    /// The epochs done.
    pub(super) history: Vec<EpochRecord>,
    /// Whether the deadline had passed after the last of them.
    pub(super) is_time_over: bool,
}

impl Course<'_> {
    /// Resumes from a checkpoint.
    pub(super) fn restore(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.step.restore(checkpoint.step, &checkpoint.state)?;
        tracing::info!("resuming after epoch {} of {}", checkpoint.epoch(), self.config.epochs);
        self.history = checkpoint.history;
        epochs::add_times(&mut self.history, &self.loss_csv);
        self.is_time_over = checkpoint.is_time_over;
        Ok(())
    }

    /// Trains until there is a reason to stop.
    pub(super) fn run(&mut self) -> Result<Ending> {
        let (started, elapsed_before) = (Instant::now(), self.history.last().map_or(0.0, |it| it.elapsed_secs));
        let progress = Progress::new("train", self.steps() - self.step.count(), "steps");
        let mut done = 0;
        let ending = loop {
            if let Some(ending) = self.ending() {
                break ending;
            }
            let epoch = self.history.len() as u32 + 1;
            let mut record = self.epoch(epoch, &progress)?;
            record.elapsed_secs = elapsed_before + started.elapsed().as_secs_f32();
            done += 1;
            let left = started.elapsed() / done * (self.config.epochs - epoch);
            let until_deadline = self.deadline.map(|it| it.saturating_duration_since(Instant::now()));
            tracing::info!("{}", record.line(self.config.epochs, until_deadline.map_or(left, |it| it.min(left))));
            self.keep(record)?;
        };
        self.say(ending);
        Ok(ending)
    }

    /// Writes an epoch's checkpoint and figures.
    fn keep(&mut self, record: EpochRecord) -> Result<()> {
        let state = self.step.state()?;
        if !state.iter().all(|(_, values)| step::are_finite(values)) {
            return Err(self.not_finite(&format!("epoch {}", record.epoch), &[]));
        }
        self.events.scalars(&record)?;
        self.history.push(record);
        epochs::write_csv(&self.loss_csv, &self.history)?;
        self.is_time_over = self.deadline.is_some_and(|it| it <= Instant::now());
        self.checkpoints.save(&Checkpoint {
            spec: self.spec.clone(),
            identity: self.identity.clone(),
            step: self.step.count(),
            history: self.history.clone(),
            is_time_over: self.is_time_over,
            state,
        })
    }

    /// Why the run should stop now; `None` if it should not.
    fn ending(&self) -> Option<Ending> {
        if self.step.count() >= self.steps() {
            return Some(Ending::Epochs);
        }
        if self.is_time_over {
            return Some(Ending::MaxMinutes);
        }
        let without_better = self.history.len() as u32 - epochs::best(&self.history)?.epoch;
        (self.config.patience > 0 && without_better >= self.config.patience).then_some(Ending::Patience)
    }

    fn say(&self, ending: Ending) {
        let (done, epochs) = (self.history.len(), self.config.epochs);
        let (step, steps) = (self.step.count(), self.steps());
        match ending {
            Ending::Epochs => {}
            Ending::Patience => tracing::info!(
                "stopping after epoch {done} of {epochs}: no better validation result for {} epochs (patience)",
                self.config.patience
            ),
            Ending::MaxMinutes => {
                tracing::warn!(
                    "stopping in epoch {done} of {epochs}, after step {step} of {steps}: time is up (max_minutes)"
                );
            }
        }
    }

    /// Logs how to resume a run that was interrupted; a run that failed by itself would fail at the same point again.
    pub(super) fn say_how_to_resume(&self, error: &Error) {
        if matches!(error, Error::Stopped { .. } | Error::Io { .. }) && !self.history.is_empty() {
            tracing::warn!("the same command with --resume continues after epoch {}", self.history.len());
        }
    }

    /// Loads the weights to publish and returns the epoch that they come from.
    pub(super) fn choose(&mut self) -> Result<EpochRecord> {
        let last = *self.history.last().expect("a run has an epoch at least");
        let best = *epochs::best(&self.history).expect("a run has an epoch at least");
        if self.config.publish == Publish::Last || best.epoch == last.epoch {
            return Ok(last);
        }
        let checkpoint = match self.checkpoints.best(&self.history, &self.identity) {
            Ok(checkpoint) => checkpoint,
            Err(problem) => {
                tracing::warn!("{problem}; publishing epoch {}, the last one, instead", last.epoch);
                return Ok(last);
            }
        };
        self.step.restore(self.step.count(), &checkpoint.state)?;
        tracing::info!("publishing epoch {}, the best of {} (publish = \"best\")", best.epoch, last.epoch);
        Ok(best)
    }

    /// The training section of the model card.
    pub(super) fn on_card(&self, ending: Ending, published: &EpochRecord) -> card::Training<'_> {
        let backend = self.step.backend();
        card::Training {
            settings: self.config,
            seed: self.seed,
            execution_provider: backend.provider.name(),
            dialect: backend.dialect.name(),
            precision: self.step.precision().name(),
            epochs: self.history.len(),
            steps: self.step.count(),
            ended_by: ending.name(),
            published_epoch: published.epoch,
            best_epoch: epochs::best(&self.history).map_or(0, |it| it.epoch),
        }
    }

    /// Number of steps of the whole run.
    fn steps(&self) -> u64 {
        self.steps_of_epoch() * u64::from(self.config.epochs)
    }

    fn steps_of_epoch(&self) -> u64 {
        self.train.len().div_ceil(self.config.batch_size) as u64
    }

    /// Trains for one epoch, or for as much of it as the deadline allows.
    fn epoch(&mut self, epoch: u32, progress: &Progress) -> Result<EpochRecord> {
        let started = Instant::now();
        let (mut loss, mut accuracy, mut learning_rate, mut photos) = (0.0, 0.0, self.config.learning_rate, 0);
        let (order, steps) = (self.order(epoch), self.steps_of_epoch());
        let Self { config, train, step, deadline, seed, .. } = self;
        let (batch_size, augmentation) = (config.batch_size, config.augmentation());
        let plan = BatchPlan { order: &order, batch_size, augmentation, seed: *seed, epoch };
        let mut spoilt = None;
        train.for_each_batch(plan, |batch, ids| {
            let rates = config.rates(step.count(), steps);
            learning_rate = rates.learning_rate;
            let learnt = step.run(batch, rates)?;
            if !learnt.loss.is_finite() {
                spoilt = Some(ids.to_vec());
                return Ok(ControlFlow::Break(()));
            }
            photos += ids.len();
            loss += f64::from(learnt.loss) * ids.len() as f64;
            accuracy += f64::from(learnt.pixel_accuracy) * ids.len() as f64;
            progress.message(format!("epoch {epoch} loss {:.4}", learnt.loss));
            progress.inc(1);
            stop::check()?;
            let is_over = deadline.is_some_and(|it| it <= Instant::now());
            Ok(if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if let Some(ids) = spoilt {
            let step = self.step.count() - steps * u64::from(epoch - 1);
            return Err(self.not_finite(&format!("epoch {epoch}, step {step}"), &ids));
        }
        let train_secs = started.elapsed().as_secs_f64();
        let (validation_loss, confusion) = self.validate(epoch)?;
        if !validation_loss.is_finite() {
            return Err(self.not_finite(&format!("the validation after epoch {epoch}"), &[]));
        }
        Ok(EpochRecord {
            epoch,
            learning_rate,
            train_loss: (loss / photos as f64) as f32,
            train_pixel_accuracy: (accuracy / photos as f64) as f32,
            validation_loss: validation_loss as f32,
            validation_pixel_accuracy: confusion.pixel_accuracy() as f32,
            validation_foreground_accuracy: confusion.foreground_accuracy().unwrap_or(0.0) as f32,
            validation_mean_iou: confusion.mean_iou() as f32,
            photos_per_sec: (photos as f64 / train_secs) as f32,
            elapsed_secs: 0.0,
        })
    }

    /// The order of the train photos in an epoch. It depends only on the seed and the epoch.
    fn order(&self, epoch: u32) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(u64::from(epoch));
        let mut order: Vec<usize> = (0..self.train.len()).collect();
        order.shuffle(&mut rng);
        order
    }

    /// Loss and confusion over the validation split, at the network's resolution; in some epochs, also writes pictures
    /// of a few photos.
    fn validate(&mut self, epoch: u32) -> Result<(f64, Confusion)> {
        let (mut loss, mut confusion) = (0.0, Confusion::default());
        let folded = self.step.folded_weights()?;
        let mut certainty = self.is_shown(epoch).then(|| self.certainty(&folded)).transpose()?;
        let weights = runtime::vector(folded)?;
        let ids: Vec<usize> = (0..self.validation.len()).collect();
        let shown: Vec<usize> =
            if self.is_shown(epoch) { picture::spaced(ids.len(), SHOWN_PHOTOS).collect() } else { vec![] };
        for ids in ids.chunks(crate::model::predictor::BATCH_SIZE) {
            stop::check()?;
            let Batch { photos, labels, .. } = self.validation.batch(ids, |_| Change::NONE);
            let answer = self.evaluator.run(photos, labels, &weights)?;
            loss += f64::from(answer.loss) * ids.len() as f64 / self.validation.len() as f64;
            for (&id, map) in ids.iter().zip(&answer.label_maps) {
                self.validation.count(id, map, &mut confusion);
                if let Some(certainty) = certainty.as_mut().filter(|_| shown.contains(&id)) {
                    self.show(epoch, id, map, certainty)?;
                }
            }
        }
        Ok((loss, confusion))
    }

    /// Whether pictures are written in an epoch: in the first, the last, and evenly spaced ones in between.
    fn is_shown(&self, epoch: u32) -> bool {
        epoch == 1 || epoch == self.config.epochs || epoch.is_multiple_of(self.config.epochs.div_ceil(SHOWN_EPOCHS))
    }

    /// The network with some weights, to see how sure it is.
    fn certainty(&self, folded: &[f32]) -> Result<Certainty> {
        Certainty::new(&graph::predict(&self.spec.folded(), folded), self.engine)
    }

    /// Writes a picture of a validation photo with its truth, its prediction, and where the network is sure.
    fn show(&mut self, epoch: u32, id: usize, map: &[u8], certainty: &mut Certainty) -> Result<()> {
        let (photo, maps) = self.validation.cut_out(id, map);
        let on_canvas = certainty.on_canvas(self.validation.batch(&[id], |_| Change::NONE).photos)?;
        let (_, [_, sure]) = self.validation.cut_out(id, &on_canvas);
        let [truth, prediction] = maps.map(|map| picture::overlay(&photo, &map));
        let sure = picture::certainty(&photo, &sure);
        let tiles =
            [photo, truth, prediction, sure].into_iter().zip(["photo", "truth", "prediction", "unsure: orange"]);
        let tiles: Vec<_> = tiles.map(|(photo, caption)| Panel { photo, caption: caption.to_owned() }).collect();
        let name = format!("validation/{}", self.validation.file_name(id));
        self.events.picture(epoch, &name, &picture::contact_sheet(&tiles, 4)?)
    }

    fn not_finite(&self, place: &str, ids: &[usize]) -> Error {
        let photos: Vec<&str> = ids.iter().map(|&id| self.train.file_name(id)).collect();
        let photos = if photos.is_empty() { String::new() } else { format!(" (photos {})", photos.join(", ")) };
        let saved = self.checkpoints.last().map_or("there is no checkpoint yet".to_owned(), |path| {
            format!("the last good checkpoint is {}", path.display())
        });
        let mend = match self.step.precision() {
            Precision::F16 => "mixed_precision = false or a lower learning_rate",
            _ => "a lower learning_rate",
        };
        Error::runtime("the loss or a weight", format!("is not finite in {place}{photos}; {saved}; {mend} may help"))
    }
}
