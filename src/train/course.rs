//! The training loop: epochs, validation, checkpoints, and when to stop.

use std::ops::{ControlFlow, RangeInclusive};
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::augment::Change;
use super::card;
use super::checkpoint::{Checkpoint, Checkpoints, Identity};
use super::config::{Config, Publish};
use super::examples::{Batch, BatchPlan, Examples};
use super::phase::{Material, Phase};
use super::sampling::{self, Turn};
use super::step::{self, TrainingStep};
use super::tensorboard::EventFile;
use crate::error::{Error, Result};
use crate::graph::Precision;
use crate::model::certainty::Certainty;
use crate::model::confusion::Confusion;
use crate::model::epochs::{self, EpochRecord};
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

/// Seconds that the parts of a run took.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Seconds {
    /// Waiting for photos.
    waiting: f64,
    /// Training steps.
    steps: f64,
    /// Validation after each epoch, with its pictures.
    validation: f64,
    /// Checkpoints and figures.
    checkpoints: f64,
}

/// The state of a training run, apart from its [`Phase`].
pub(super) struct Course<'a> {
    pub(super) material: Material<'a>,
    pub(super) steps_of_epoch: u64,
    pub(super) seed: u64,
    pub(super) identity: Identity,
    pub(super) deadline: Option<Instant>,
    pub(super) checkpoints: Checkpoints,
    pub(super) events: EventFile,
    /// The history as a file, which keeps the times of the epochs for a run that resumes this one.
    pub(super) loss_csv: PathBuf,
    /// The epochs done.
    pub(super) history: Vec<EpochRecord>,
    /// Whether the deadline had passed after the last of them.
    pub(super) is_time_over: bool,
    /// Of this run alone, if it resumes another.
    pub(super) seconds: Seconds,
}

impl Course<'_> {
    /// Resumes from a checkpoint.
    pub(super) fn restore(&mut self, phase: &mut Phase, checkpoint: Checkpoint) -> Result<()> {
        phase.step.restore(checkpoint.step, &checkpoint.state)?;
        tracing::info!("resuming after epoch {} of {}", checkpoint.epoch(), self.config().epochs);
        self.history = checkpoint.history;
        epochs::add_times(&mut self.history, &self.loss_csv);
        self.is_time_over = checkpoint.is_time_over;
        Ok(())
    }

    fn config(&self) -> &Config {
        self.material.config
    }

    /// Trains until there is a reason to stop, from a phase on; returns the last one.
    pub(super) fn run(&mut self, mut phase: Phase) -> Result<(Ending, Phase)> {
        let (started, elapsed_before) = (Instant::now(), self.history.last().map_or(0.0, |it| it.elapsed_secs));
        let progress = Progress::new("train", self.steps() - phase.step.count(), "steps");
        let (first, epochs) = (self.history.len() as u32 + 1, self.config().epochs);
        let ending = loop {
            if let Some(ending) = self.ending(phase.step.count()) {
                break ending;
            }
            let epoch = self.history.len() as u32 + 1;
            phase = self.material.next(phase, epoch)?;
            let mut record = self.epoch(&mut phase, epoch, &progress)?;
            record.elapsed_secs = elapsed_before + started.elapsed().as_secs_f32();
            let left = started.elapsed().mul_f64(self.pixels(epoch + 1..=epochs) / self.pixels(first..=epoch));
            let until_deadline = self.deadline.map(|it| it.saturating_duration_since(Instant::now()));
            tracing::info!("{}", record.line(epochs, until_deadline.map_or(left, |it| it.min(left))));
            let kept = Instant::now();
            self.keep(&phase, record)?;
            self.seconds.checkpoints += kept.elapsed().as_secs_f64();
        };
        self.say(ending, phase.step.count());
        Ok((ending, phase))
    }

    /// The pixels that some epochs compute of each photo: a measure of the time that they take.
    fn pixels(&self, epochs: RangeInclusive<u32>) -> f64 {
        let specs = epochs.map(|epoch| self.config().spec_in(self.material.spec, epoch));
        specs.map(|spec| (spec.rows() * spec.columns()) as f64).sum()
    }

    /// Writes an epoch's checkpoint and figures.
    fn keep(&mut self, phase: &Phase, record: EpochRecord) -> Result<()> {
        let state = phase.step.state()?;
        if !state.iter().all(|(_, values)| step::are_finite(values)) {
            return Err(self.not_finite(phase, &format!("epoch {}", record.epoch), &[]));
        }
        self.events.scalars(&record)?;
        self.history.push(record);
        epochs::write_csv(&self.loss_csv, &self.history)?;
        self.is_time_over = self.deadline.is_some_and(|it| it <= Instant::now());
        self.checkpoints.save(&Checkpoint {
            spec: self.material.spec.clone(),
            identity: self.identity.clone(),
            step: phase.step.count(),
            history: self.history.clone(),
            is_time_over: self.is_time_over,
            state,
        })
    }

    /// Why the run should stop now, after `step` steps; `None` if it should not.
    fn ending(&self, step: u64) -> Option<Ending> {
        if step >= self.steps() {
            return Some(Ending::Epochs);
        }
        if self.is_time_over {
            return Some(Ending::MaxMinutes);
        }
        let Config { patience, small_epochs, .. } = *self.config();
        let done = self.history.len() as u32;
        let without_better = done - epochs::best(&self.history)?.epoch;
        (patience > 0 && done > small_epochs && without_better >= patience).then_some(Ending::Patience)
    }

    fn say(&self, ending: Ending, step: u64) {
        let (done, epochs, steps) = (self.history.len(), self.config().epochs, self.steps());
        match ending {
            Ending::Epochs => {}
            Ending::Patience => tracing::info!(
                "stopping after epoch {done} of {epochs}: no better validation result for {} epochs (patience)",
                self.config().patience
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

    /// Loads the weights to publish into `step` and returns the epoch that they come from.
    pub(super) fn choose(&self, step: &mut TrainingStep) -> Result<EpochRecord> {
        let last = *self.history.last().expect("a run has an epoch at least");
        let best = *epochs::best(&self.history).expect("a run has an epoch at least");
        if self.config().publish == Publish::Last || best.epoch == last.epoch {
            return Ok(last);
        }
        let checkpoint = match self.checkpoints.best(&self.history, &self.identity) {
            Ok(checkpoint) => checkpoint,
            Err(problem) => {
                tracing::warn!("{problem}; publishing epoch {}, the last one, instead", last.epoch);
                return Ok(last);
            }
        };
        step.restore(step.count(), &checkpoint.state)?;
        tracing::info!("publishing epoch {}, the best of {} (publish = \"best\")", best.epoch, last.epoch);
        Ok(best)
    }

    /// The training section of the model card.
    pub(super) fn on_card(
        &self,
        step: &TrainingStep,
        ending: Ending,
        published: &EpochRecord,
        [started_from, labels_from]: [Option<String>; 2],
    ) -> card::Training<'_> {
        let backend = step.backend();
        card::Training {
            settings: self.config(),
            seed: self.seed,
            started_from,
            labels_from,
            execution_provider: backend.provider.name(),
            dialect: backend.dialect.name(),
            precision: step.precision().name(),
            epochs: self.history.len(),
            steps: step.count(),
            ended_by: ending.name(),
            published_epoch: published.epoch,
            best_epoch: epochs::best(&self.history).map_or(0, |it| it.epoch),
        }
    }

    /// Number of steps of the whole run.
    fn steps(&self) -> u64 {
        self.steps_of_epoch * u64::from(self.config().epochs)
    }

    /// Trains for one epoch, or for as much of it as the deadline allows.
    fn epoch(&mut self, phase: &mut Phase, epoch: u32, progress: &Progress) -> Result<EpochRecord> {
        let started = Instant::now();
        let Self { material: Material { config, .. }, steps_of_epoch: steps, deadline, seed, .. } = self;
        let (mut loss, mut accuracy, mut learning_rate, mut photos) = (0.0, 0.0, config.learning_rate, 0);
        let turns = sampling::turns(&phase.repeat_factors, *seed, epoch);
        let Phase { spec, train, step, .. } = phase;
        let (photo_width_px, photo_height_px) = (spec.photo_width_px as u32, spec.photo_height_px as u32);
        let (batch_size, augmentation) = (config.batch_size, config.augmentation());
        let plan = BatchPlan { turns: &turns, batch_size, augmentation, seed: *seed, epoch };
        let (mut spoilt, mut step_secs) = (None, 0.0);
        train.for_each_batch(plan, |batch, turns| {
            let rates = config.rates(step.count(), *steps);
            learning_rate = rates.learning_rate;
            let began = Instant::now();
            let learnt = step.run(batch, rates)?;
            step_secs += began.elapsed().as_secs_f64();
            if !learnt.loss.is_finite() {
                spoilt = Some(turns.to_vec());
                return Ok(ControlFlow::Break(()));
            }
            photos += turns.len();
            loss += f64::from(learnt.loss) * turns.len() as f64;
            accuracy += f64::from(learnt.pixel_accuracy) * turns.len() as f64;
            progress.message(format!("epoch {epoch} loss {:.4}", learnt.loss));
            progress.inc(1);
            stop::check()?;
            let is_over = deadline.is_some_and(|it| it <= Instant::now());
            Ok(if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if let Some(turns) = spoilt {
            let step = step.count() - *steps * u64::from(epoch - 1);
            return Err(self.not_finite(phase, &format!("epoch {epoch}, step {step}"), &turns));
        }
        let train_secs = started.elapsed().as_secs_f64();
        let (validation_loss, confusion) = self.validate(phase, epoch)?;
        self.seconds.steps += step_secs;
        self.seconds.waiting += train_secs - step_secs;
        self.seconds.validation += started.elapsed().as_secs_f64() - train_secs;
        if !validation_loss.is_finite() {
            return Err(self.not_finite(phase, &format!("the validation after epoch {epoch}"), &[]));
        }
        Ok(EpochRecord {
            epoch,
            photo_width_px,
            photo_height_px,
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

    /// Loss and confusion over the validation split, at the network's resolution; in some epochs, also writes pictures
    /// of a few photos.
    fn validate(&mut self, phase: &mut Phase, epoch: u32) -> Result<(f64, Confusion)> {
        let (mut loss, mut confusion) = (0.0, Confusion::new(phase.spec.maps()));
        let folded = phase.step.folded_weights()?;
        let mut certainty = self.is_shown(epoch).then(|| phase.certainty(&folded)).transpose()?;
        let weights = runtime::vector(folded)?;
        let Phase { validation, evaluator, .. } = phase;
        let ids: Vec<usize> = (0..validation.len()).collect();
        let shown: Vec<usize> =
            if self.is_shown(epoch) { picture::spaced(ids.len(), SHOWN_PHOTOS).collect() } else { vec![] };
        for ids in ids.chunks(crate::model::predictor::BATCH_SIZE) {
            stop::check()?;
            let Batch { photos, labels, .. } =
                validation.batch(&ids.iter().map(|&id| (id, Change::NONE)).collect::<Vec<_>>());
            let answer = evaluator.run(photos, labels, &weights)?;
            loss += f64::from(answer.loss) * ids.len() as f64 / validation.len() as f64;
            for (&id, map) in ids.iter().zip(&answer.label_maps) {
                validation.count(id, map, &mut confusion);
                if let Some(certainty) = certainty.as_mut().filter(|_| shown.contains(&id)) {
                    self.show(epoch, validation, id, map, certainty)?;
                }
            }
        }
        Ok((loss, confusion))
    }

    /// Whether pictures are written in an epoch: in the first, the last, and evenly spaced ones in between.
    fn is_shown(&self, epoch: u32) -> bool {
        let epochs = self.config().epochs;
        epoch == 1 || epoch == epochs || epoch.is_multiple_of(epochs.div_ceil(SHOWN_EPOCHS))
    }

    /// Writes a picture of a validation photo with its truth, its prediction, and where the network is sure.
    fn show(
        &mut self,
        epoch: u32,
        validation: &Examples,
        id: usize,
        map: &[u8],
        certainty: &mut Certainty,
    ) -> Result<()> {
        let (photo, maps) = validation.cut_out(id, map);
        let on_canvas = certainty.on_canvas(validation.batch(&[(id, Change::NONE)]).photos)?;
        let (_, [_, sure]) = validation.cut_out(id, &on_canvas);
        let [truth, prediction] = maps.map(|map| picture::overlay(&photo, &map));
        let sure = picture::certainty(&photo, &sure);
        let tiles =
            [photo, truth, prediction, sure].into_iter().zip(["photo", "truth", "prediction", "unsure: orange"]);
        let tiles: Vec<_> = tiles.map(|(photo, caption)| Panel { photo, caption: caption.to_owned() }).collect();
        let name = format!("validation/{}", validation.file_name(id));
        self.events.picture(epoch, &name, &picture::contact_sheet(&tiles, 4)?)
    }

    fn not_finite(&self, phase: &Phase, place: &str, turns: &[Turn]) -> Error {
        let photos: Vec<&str> = turns.iter().map(|turn| phase.train.file_name(turn.photo)).collect();
        let photos = if photos.is_empty() { String::new() } else { format!(" (photos {})", photos.join(", ")) };
        let saved = self.checkpoints.last().map_or("there is no checkpoint yet".to_owned(), |path| {
            format!("the last good checkpoint is {}", path.display())
        });
        let mend = match phase.step.precision() {
            Precision::F16 | Precision::Bf16 => "mixed_precision = false or a lower learning_rate",
            Precision::F32 | Precision::Int8 => "a lower learning_rate",
        };
        Error::runtime("the loss or a weight", format!("is not finite in {place}{photos}; {saved}; {mend} may help"))
    }
}
