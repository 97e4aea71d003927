//! The part of a run at one photo size: the photos at that size, and the sessions for them.

use super::config::Config;
use super::examples::{Examples, PseudoLabelled};
use super::sampling;
use super::step::{Task, TrainingStep};
use super::unlabelled::PseudoLabels;
use crate::dataset::{Dataset, Split};
use crate::engine::Engine;
use crate::error::Result;
use crate::graph::{self, LossWeights, Spec};
use crate::model::certainty::Certainty;
use crate::model::evaluator::Evaluator;

/// What the phases of a run are made from.
pub(super) struct Material<'a> {
    pub(super) config: &'a Config,
    /// The network at the full photo size.
    pub(super) spec: &'a Spec,
    pub(super) dataset: &'a Dataset,
    /// The photos of the train part, if a model labels them.
    pub(super) relabelled: Option<Vec<PseudoLabelled>>,
    /// The photos without labels of their own; they join the train part.
    pub(super) pseudo_labels: PseudoLabels,
    pub(super) engine: Engine,
}

/// Photos and sessions at one photo size.
pub(super) struct Phase {
    /// The network at this size.
    pub(super) spec: Spec,
    pub(super) train: Examples,
    /// How often each of them is drawn, relative to the others.
    pub(super) repeat_factors: Vec<f64>,
    pub(super) validation: Examples,
    pub(super) loss_weights: LossWeights,
    pub(super) step: TrainingStep,
    pub(super) evaluator: Evaluator,
    /// What the sessions run on.
    engine: Engine,
}

impl Phase {
    /// The network with the weights `folded`, to see how sure it is.
    pub(super) fn certainty(&self, folded: &[f32]) -> Result<Certainty> {
        Certainty::new(&graph::predict(&self.spec.folded(), folded), self.engine)
    }
}

impl Material<'_> {
    /// The phase of epoch `epoch`, starting from `state`, in the order of [`Spec::state`], which is that after `steps`
    /// steps.
    pub(super) fn phase(&self, epoch: u32, state: Vec<Vec<f32>>, steps: u64) -> Result<Phase> {
        let (config, spec) = (self.config, self.config.spec_in(self.spec, epoch));
        if config.small_epochs > 0 {
            let last = if epoch > config.small_epochs { config.epochs } else { config.small_epochs };
            let (width, height) = (spec.photo_width_px, spec.photo_height_px);
            tracing::info!("training and validating on photos of {width} x {height} pixels up to epoch {last}");
        }
        let mut train = match &self.relabelled {
            Some(_) => Examples::none(&spec),
            None => Examples::load(self.dataset, Split::Train, &spec)?,
        };
        self.relabelled.iter().try_for_each(|photos| train.extend(photos))?;
        train.extend(&self.pseudo_labels.photos)?;
        let validation = Examples::load(self.dataset, Split::Validation, &spec)?;
        let categories = category_weights(&train, spec.maps(), config.category_balance);
        let Config { dice, label_smoothing: smoothing, presence, .. } = *config;
        let loss_weights = LossWeights { categories: Some(categories), dice, smoothing, presence };
        let batch_size = config.batch_size.min(train.len());
        let micro_batch_size = if config.micro_batch_size == 0 { batch_size } else { config.micro_batch_size };
        let (mixed_precision, descent) = (config.mixed_precision, config.descent());
        let task = Task { spec: &spec, loss_weights: &loss_weights, micro_batch_size, mixed_precision, descent };
        let step = TrainingStep::new(task, batch_size, state, steps, self.engine)?;
        let engine = step.backend().engine(self.engine);
        let evaluator = Evaluator::new(&spec, engine)?;
        let repeat_factors = sampling::repeat_factors(&train.occurrences(), config.rare_sampling);
        Ok(Phase { spec, train, repeat_factors, validation, loss_weights, step, evaluator, engine })
    }

    /// The phase of epoch `epoch`, given that of the epoch before it: the same one, or one at another photo size that
    /// takes over its state. Never holds the photos and sessions of both.
    pub(super) fn next(&self, phase: Phase, epoch: u32) -> Result<Phase> {
        if self.config.spec_in(self.spec, epoch) == phase.spec {
            return Ok(phase);
        }
        let (state, steps) = (phase.step.state()?, phase.step.count());
        drop(phase);
        self.phase(epoch, state.into_iter().map(|(_, values)| values).collect(), steps)
    }
}

/// The weight of a pixel of each category: the category's share of all labelled pixels to the power of -`balance`,
/// scaled so that the mean over them is 1.
fn category_weights(train: &Examples, categories: usize, balance: f32) -> Vec<f32> {
    let mut pixels = vec![0_u64; categories];
    for labels in train.labels() {
        for &label in labels {
            if let Some(count) = pixels.get_mut(usize::from(label)) {
                *count += 1;
            }
        }
    }
    balanced(&pixels, balance)
}

fn balanced(pixels: &[u64], balance: f32) -> Vec<f32> {
    let total = pixels.iter().sum::<u64>() as f64;
    let weight = |&count: &u64| if count == 0 { 0.0 } else { (count as f64 / total).powf(-f64::from(balance)) };
    let raw: Vec<f64> = pixels.iter().map(weight).collect();
    let mean: f64 = raw.iter().zip(pixels).map(|(weight, &count)| weight * count as f64 / total).sum();
    raw.into_iter().map(|weight| (weight / mean) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balance_gives_rare_categories_their_say() {
        let mut pixels = vec![0; 23];
        pixels[0] = 90;
        pixels[1] = 10;
        let plain = balanced(&pixels, 0.0);
        assert_eq!(plain[..3], [1.0, 1.0, 0.0]);
        let even = balanced(&pixels, 1.0);
        assert!((even[0] * 0.9 - 0.5).abs() < 1e-6 && (even[1] * 0.1 - 0.5).abs() < 1e-6, "{even:?}");
    }
}
