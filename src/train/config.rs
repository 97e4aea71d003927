//! Settings of `train`, and the recipes that supply their defaults.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::augment::Augmentation;
use super::step::Rates;
use crate::engine::Device;
use crate::error::{Error, Result};
use crate::graph::{Descent, Loss, SEED_CHANNELS, Spec};
use crate::labels::LabelSet;
use crate::model::encoder::{self, EncoderFile};

/// A named set of defaults for the settings that neither a file nor a flag gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// The seed's: its network, sigmoid maps and Adam at a constant rate, nothing else.
    Seed,
    /// The settings that learn most from the same photos at the same cost; `docs/training.md` says what each
    /// contributes.
    #[default]
    Best,
    /// As `best`, but with a pretrained encoder as the way down.
    Pretrained,
}

/// How the learning rate changes over the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// The same in every step, as in the seed.
    #[default]
    Constant,
    /// Half a cosine from the learning rate down to 0 (Loshchilov and Hutter, 2017,
    /// <https://arxiv.org/abs/1608.03983>).
    Cosine,
}

impl Schedule {
    /// Factor of the learning rate in step `step` (from 0) of `steps`, of which the first `warmup` ramp up to it
    /// linearly.
    fn factor(self, step: u64, steps: u64, warmup: u64) -> f32 {
        if step < warmup {
            return (step + 1) as f32 / warmup as f32;
        }
        match self {
            Self::Constant => 1.0,
            Self::Cosine => {
                let done = (step - warmup) as f32 / (steps - warmup) as f32;
                0.5 * (1.0 + (std::f32::consts::PI * done).cos())
            }
        }
    }
}

/// Which weights are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Publish {
    /// Those after the last step, as in the seed.
    #[default]
    Last,
    /// Those of the epoch with the highest mean IoU over the validation split.
    Best,
}

/// Settings of `train`. The defaults are those of the recipe `best`; [`Config::of`] gives those of any recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "settings, as a file has them")]
pub struct Config {
    /// The folder of the dataset tables.
    pub dataset: PathBuf,
    /// The model folder to write.
    pub output: PathBuf,
    /// Where the defaults of the other settings come from.
    pub recipe: Recipe,
    /// The model folder whose published weights training starts from: of the same network, but of any data set and
    /// photo size. Its checkpoints are needed.
    pub start_from: Option<PathBuf>,
    /// Passes over the train split, at least 1.
    pub epochs: u32,
    /// Photos per step, at least 1.
    pub batch_size: usize,
    /// Photos processed at once, if memory is too small for a whole step of `batch_size`; 0 for all.
    pub micro_batch_size: usize,
    /// Whether maps and their gradients are in half precision: f16 in the portable dialect, which CUDA runs, bf16 with native
    /// operators on a processor with AVX-512-BF16. Weights, normalisation, loss and sums over pixels are always f32.
    pub mixed_precision: bool,
    /// Highest learning rate of Adam, above 0.
    pub learning_rate: f32,
    /// How the learning rate changes over the run.
    pub schedule: Schedule,
    /// Epochs over which the learning rate ramps up, 0 or more; at most half of the run.
    pub warmup_epochs: f32,
    /// What the maps mean: `bce` (the seed's) or `softmax`.
    pub loss: Loss,
    /// Weights each pixel by its category's share of all pixels to the power of minus this, 0 to 1: 0 weights all
    /// pixels equally, 1 all categories. Only with `loss = "softmax"`.
    pub category_balance: f32,
    /// Weight of the Dice term of the loss, 0 or more. It measures how far the predicted and the true pixels of a
    /// category differ, and weights all categories in the batch (in its part, with `micro_batch_size`) equally. Only
    /// with `loss = "softmax"`.
    pub dice: f32,
    /// Share of each label that the loss spreads evenly over all categories, 0 or more and below 1, so that the network learns
    /// to be less sure (Szegedy et al., 2016, <https://arxiv.org/abs/1512.00567>). Only with `loss = "softmax"`.
    pub label_smoothing: f32,
    /// The file of a pretrained encoder ([`EncoderFile`]) that takes the place of the network's way down; the recipe
    /// `pretrained` has the installed one, the others none. Only with `batch_norm = true` and `stride = 2`.
    pub encoder: Option<PathBuf>,
    /// With an encoder: factor of the learning rate for its weights, above 0 and at most 1.
    pub encoder_rate: f32,
    /// Weight decay of `AdamW` (Loshchilov and Hutter, 2019, <https://arxiv.org/abs/1711.05101>): in each step, kernels
    /// of convolutions shrink by this times the learning rate; 0 or more.
    pub weight_decay: f32,
    /// Channels of the network's levels, top to bottom: 2 to 7 multiples of 8, the first 8, 16, 24 or 32. With an
    /// encoder, those of the decoder's levels, from half the photo's resolution down: as many as the encoder has steps,
    /// less one.
    pub channels: Vec<usize>,
    /// Photo pixels, in each direction, per pixel of the top level: 1, or 2 for twice the channels at the same cost.
    pub stride: usize,
    /// Whether maps are normalised over the batch during training.
    pub batch_norm: bool,
    /// Times that logits are enlarged in each direction, by bilinear interpolation, before the category is chosen: 1,
    /// or a multiple of the stride among 2 and 4. Twice the stride suits photos of half the catalogue's size.
    pub logit_scale: usize,
    /// Weight in the loss of the presence head, which learns what occurs in a photo at all and multiplies its
    /// probabilities onto those of all pixels; 0 for none. Only with `loss = "softmax"`.
    pub presence: f32,
    /// Whether the published network predicts from each photo and its mirror image, at twice the cost. Training and its
    /// validation are the same.
    pub mirror: bool,
    /// With `batch_norm`: epochs that the moving average of the weights covers; the averaged weights are the ones
    /// published. 0 for the last weights.
    pub average_epochs: f32,
    /// Whether a random half of the photos is mirrored, drawn anew in each epoch.
    pub augment_flip: bool,
    /// Photos are scaled by a random factor from 1 / (1 + this) to 1 + this, 0 to 1.
    pub augment_scale: f32,
    /// Photos are shifted by up to this fraction of their sides, 0 to 0.5.
    pub augment_shift: f32,
    /// Brightness, contrast and colours of photos change by up to this fraction, 0 to 1.
    pub augment_light: f32,
    /// A rectangle whose sides are up to this fraction of the photo's is filled with grey, at random, its labels kept,
    /// so that they are told from what is around it: 0 to 1.
    pub augment_erase: f32,
    /// Draws photos with rare categories more often, at the expense of the others, 0 to 1: relative to a photo with
    /// nothing rare, as often as the share of the photos that have its rarest category, to the power of minus this. 0
    /// draws each photo once an epoch.
    pub rare_sampling: f32,
    /// The folder of a model, or of a third-party parser, that labels the photos of the train part in place of their own
    /// labels: training learns what it says. Validation and test keep their labels.
    pub labels_from: Option<PathBuf>,
    /// Photos without labels that training learns from, too: a catalogue. Those that are in the data set are left out.
    pub unlabelled: Option<PathBuf>,
    /// With `unlabelled`: the folder of the model that labels them.
    pub unlabelled_model: Option<PathBuf>,
    /// With `unlabelled` or `labels_from`: the lowest probability at which the model's category is taken as a pixel's label, 0 to 1;
    /// the other pixels are ignored.
    pub unlabelled_confidence: f32,
    /// Width in pixels that photos are scaled to fit for the network, 16 to 4096.
    pub photo_width_px: usize,
    /// Height in pixels that photos are scaled to fit for the network, 16 to 4096.
    pub photo_height_px: usize,
    /// Number of epochs at the beginning that train and validate on smaller photos, to save time: fewer than
    /// `epochs`. `patience` and the best epoch count the others alone.
    pub small_epochs: u32,
    /// With `small_epochs`: the sides of smaller photos as a fraction of `photo_width_px` and `photo_height_px`,
    /// between 0 and 1.
    pub small_scale: f32,
    /// Where the network runs.
    pub device: Device,
    /// Which weights are published.
    pub publish: Publish,
    /// Stop after this many epochs without a better mean IoU over the validation split; 0 for never.
    pub patience: u32,
    /// Stop after this many minutes, at the end of the current step; above 0. Loading photos counts; the learning rate
    /// schedule still assumes `epochs`.
    pub max_minutes: Option<f64>,
}

impl Default for Config {
    fn default() -> Self {
        Self::of(Recipe::default())
    }
}

impl Config {
    /// The settings of a recipe.
    #[must_use]
    pub fn of(recipe: Recipe) -> Self {
        let seed = Self {
            dataset: PathBuf::from("output/dataset"),
            output: PathBuf::from("output/model"),
            recipe,
            start_from: None,
            epochs: 25,
            batch_size: 16,
            micro_batch_size: 0,
            mixed_precision: false,
            learning_rate: 1e-3,
            schedule: Schedule::Constant,
            warmup_epochs: 0.0,
            loss: Loss::Bce,
            category_balance: 0.0,
            dice: 0.0,
            label_smoothing: 0.0,
            encoder: None,
            encoder_rate: 1.0,
            weight_decay: 0.0,
            channels: SEED_CHANNELS.to_vec(),
            stride: 1,
            batch_norm: false,
            logit_scale: 1,
            presence: 0.0,
            mirror: false,
            average_epochs: 0.0,
            augment_flip: false,
            augment_scale: 0.0,
            augment_shift: 0.0,
            augment_light: 0.0,
            augment_erase: 0.0,
            rare_sampling: 0.0,
            labels_from: None,
            unlabelled: None,
            unlabelled_model: None,
            unlabelled_confidence: 0.9,
            photo_width_px: crate::photo::FIT_WIDTH_PX as usize,
            photo_height_px: crate::photo::FIT_HEIGHT_PX as usize,
            small_epochs: 0,
            small_scale: 0.5,
            device: Device::Auto,
            publish: Publish::Last,
            patience: 0,
            max_minutes: None,
        };
        let best = Self {
            batch_size: 4,
            learning_rate: 3e-3,
            schedule: Schedule::Cosine,
            warmup_epochs: 1.0,
            loss: Loss::Softmax,
            category_balance: 0.4,
            dice: 1.0,
            channels: SEED_CHANNELS.iter().map(|channels| 2 * channels).collect(),
            stride: 2,
            batch_norm: true,
            average_epochs: 1.0,
            augment_flip: true,
            augment_scale: 0.05,
            augment_shift: 0.02,
            augment_light: 0.1,
            ..seed.clone()
        };
        match recipe {
            Recipe::Seed => seed,
            Recipe::Best => best,
            Recipe::Pretrained => Self {
                encoder: Some(encoder::installed(encoder::INSTALLED[0])),
                encoder_rate: 0.3,
                weight_decay: 0.01,
                label_smoothing: 0.1,
                channels: vec![32, 64, 96, 128],
                logit_scale: 2,
                presence: 0.5,
                augment_scale: 0.2,
                augment_shift: 0.1,
                augment_light: 0.2,
                ..best
            },
        }
    }

    pub(super) fn check_values(&self) -> Result<()> {
        let share = |value: f32| (0.0..=1.0).contains(&value);
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let is_elsewhere =
            |model: &Option<PathBuf>| model.as_ref().is_none_or(|it| absolute(it) != absolute(&self.output));
        let in_order = [
            ("train.start_from", is_elsewhere(&self.start_from), REPLACED),
            ("train.labels_from", is_elsewhere(&self.labels_from), REPLACED),
            ("train.labels_from", self.labels_from.is_none() || self.loss == Loss::Softmax, IGNORES_PIXELS),
            ("train.unlabelled_model", is_elsewhere(&self.unlabelled_model), REPLACED),
            (
                "train.unlabelled_model",
                self.unlabelled.is_none() || self.unlabelled_model.is_some(),
                "is missing, but unlabelled names photos; name the model folder that labels them",
            ),
            (
                "train.unlabelled",
                self.unlabelled.is_some() || self.unlabelled_model.is_none(),
                "is missing, but unlabelled_model names a model; name the photos that it labels",
            ),
            ("train.unlabelled", self.unlabelled.is_none() || self.loss == Loss::Softmax, IGNORES_PIXELS),
            ("train.unlabelled_confidence", share(self.unlabelled_confidence), "is not between 0 and 1"),
            ("train.epochs", self.epochs > 0, "is 0; at least one epoch is needed"),
            ("train.batch_size", self.batch_size > 0, "is 0; at least one photo per step is needed"),
            (
                "train.small_epochs",
                self.small_epochs < self.epochs,
                "leaves no epoch at the full size; it must be below epochs",
            ),
            ("train.small_scale", self.small_scale > 0.0 && self.small_scale < 1.0, "is not between 0 and 1"),
            (
                "train.learning_rate",
                self.learning_rate > 0.0 && self.learning_rate.is_finite(),
                "is not above 0 and finite in single precision",
            ),
            (
                "train.max_minutes",
                self.max_minutes.is_none_or(|it| it > 0.0 && it < 1e9),
                "is not above 0 and below 1e9",
            ),
            ("train.warmup_epochs", self.warmup_epochs >= 0.0, "is not 0 or more"),
            ("train.average_epochs", self.average_epochs >= 0.0, "is not 0 or more"),
            ("train.category_balance", share(self.category_balance), "is not between 0 and 1"),
            (
                "train.category_balance",
                self.category_balance == 0.0 || self.loss == Loss::Softmax,
                "requires loss = \"softmax\"; set it to 0",
            ),
            ("train.dice", self.dice >= 0.0 && self.dice.is_finite(), "is not 0 or more"),
            ("train.dice", self.dice == 0.0 || self.loss == Loss::Softmax, "requires loss = \"softmax\"; set it to 0"),
            ("train.label_smoothing", (0.0..1.0).contains(&self.label_smoothing), "is not 0 or more and below 1"),
            (
                "train.label_smoothing",
                self.label_smoothing == 0.0 || self.loss == Loss::Softmax,
                "requires loss = \"softmax\"; set it to 0",
            ),
            ("train.encoder_rate", self.encoder_rate > 0.0 && self.encoder_rate <= 1.0, "is not above 0 and at most 1"),
            ("train.weight_decay", self.weight_decay >= 0.0 && self.weight_decay.is_finite(), "is not 0 or more"),
            (
                "train.batch_norm",
                self.batch_norm || self.encoder.is_none(),
                "is false, but a network with a pretrained encoder needs it; set it to true",
            ),
            ("train.presence", self.presence >= 0.0 && self.presence.is_finite(), "is not 0 or more"),
            ("train.augment_scale", share(self.augment_scale), "is not between 0 and 1"),
            ("train.augment_shift", (0.0..=0.5).contains(&self.augment_shift), "is not between 0 and 0.5"),
            ("train.augment_light", share(self.augment_light), "is not between 0 and 1"),
            ("train.augment_erase", share(self.augment_erase), "is not between 0 and 1"),
            ("train.rare_sampling", share(self.rare_sampling), "is not between 0 and 1"),
        ];
        match in_order.iter().find(|(_, good, _)| !good) {
            Some((setting, _, problem)) => Err(Error::config(*setting, problem)),
            // The rest is checked with the encoder at hand, by `network`.
            None if self.encoder.is_some() => Ok(()),
            None => self.network(None).map(drop),
        }
    }

    /// Checks the encoder, and that a network can be made with it.
    ///
    /// # Errors
    /// As [`EncoderFile::open`]; [`Error::Config`].
    pub fn check_encoder(&self) -> Result<()> {
        self.network(self.open_encoder()?.as_ref()).map(drop)
    }

    /// Opens the encoder; `None` if the network has none.
    pub(super) fn open_encoder(&self) -> Result<Option<EncoderFile>> {
        self.encoder.as_deref().map(EncoderFile::open).transpose()
    }

    /// The network, given its encoder.
    pub(super) fn network(&self, encoder: Option<&EncoderFile>) -> Result<Spec> {
        let spec = self.spec(encoder);
        spec.check().map_err(|(field, problem)| Error::config(format!("train.{field}"), problem))?;
        self.spec_in(&spec, 1).check().map_err(|(field, problem)| {
            Error::config("train.small_scale", format!("is too small: the {field} of smaller photos {problem}"))
        })?;
        Ok(spec)
    }

    /// The network `spec` in an epoch: for smaller photos in the first `small_epochs`.
    pub(super) fn spec_in(&self, spec: &Spec, epoch: u32) -> Spec {
        if epoch > self.small_epochs {
            return spec.clone();
        }
        let small = |side_px: usize| (side_px as f32 * self.small_scale).round() as usize;
        let (photo_width_px, photo_height_px) = (small(spec.photo_width_px), small(spec.photo_height_px));
        Spec { photo_width_px, photo_height_px, ..spec.clone() }
    }

    /// The network that is published, from the one that was trained.
    pub(super) fn published(&self, trained: &Spec) -> Spec {
        Spec { mirror: self.mirror, ..trained.folded() }
    }

    fn spec(&self, encoder: Option<&EncoderFile>) -> Spec {
        Spec {
            photo_width_px: self.photo_width_px,
            photo_height_px: self.photo_height_px,
            loss: self.loss,
            channels: self.channels.clone(),
            stride: self.stride,
            logit_scale: self.logit_scale,
            batch_norm: self.batch_norm,
            presence: self.presence > 0.0,
            mirror: false,
            encoder: encoder.map(|it| it.encoder().clone()),
            labels: LabelSet::cfpd(),
        }
    }

    /// How steps differ between weights.
    pub(super) fn descent(&self) -> Descent {
        let encoder_rate = if self.encoder.is_some() { self.encoder_rate } else { 1.0 };
        Descent { encoder_rate, weight_decay: self.weight_decay }
    }

    pub(super) fn augmentation(&self) -> Augmentation {
        Augmentation {
            flip: self.augment_flip,
            scale: self.augment_scale,
            shift: self.augment_shift,
            light: self.augment_light,
            erase: self.augment_erase,
        }
    }

    /// The rates for step `step` (from 0) of a run of `epochs` epochs with `steps` steps each.
    pub(super) fn rates(&self, step: u64, steps: u64) -> Rates {
        let all = steps * u64::from(self.epochs);
        let warmup = ((self.warmup_epochs * steps as f32) as u64).min(all / 2);
        // A moving average over that many steps, over fewer at the beginning.
        let over = |longest: f32| 1.0 / ((step + 1) as f32).min(longest.max(1.0));
        let average = self.average_epochs * steps as f32;
        Rates {
            learning_rate: self.learning_rate * self.schedule.factor(step, all, warmup),
            average: over(average),
            statistics: over(average.max(STATISTICS_STEPS)),
        }
    }
}

/// Why a run cannot read the model folder that it writes.
const REPLACED: &str = "is the folder that this run replaces, so it would never be up to date; name another output";
const IGNORES_PIXELS: &str = "requires loss = \"softmax\", which can ignore pixels";

/// Minimum number of steps that the statistics of normalised maps are averaged over.
const STATISTICS_STEPS: f32 = 50.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_falls_from_all_to_nothing() {
        assert_eq!(Schedule::Cosine.factor(0, 8, 0), 1.0);
        assert!((Schedule::Cosine.factor(4, 8, 0) - 0.5).abs() < 1e-6);
        assert!(Schedule::Cosine.factor(8, 8, 0).abs() < 1e-6);
        assert_eq!(Schedule::Constant.factor(7, 8, 0), 1.0);
        let warm: Vec<f32> = (0..6).map(|step| Schedule::Cosine.factor(step, 8, 4)).collect();
        assert_eq!(warm[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert!((warm[5] - 0.853_553_4).abs() < 1e-6, "a quarter of the way down");
    }

    #[test]
    fn the_first_epochs_are_on_smaller_photos() {
        let config = Config { small_epochs: 2, small_scale: 0.5, photo_width_px: 41, ..Config::default() };
        let spec = config.network(None).expect("it is valid");
        let sizes =
            [1, 2, 3].map(|epoch| config.spec_in(&spec, epoch)).map(|it| (it.photo_width_px, it.photo_height_px));
        assert_eq!(sizes, [(21, 300), (21, 300), (41, 600)]);
        assert_eq!(Config::default().spec_in(&spec, 1), spec, "none by default");
    }

    #[test]
    fn averages_look_back_over_as_many_steps_as_there_are() {
        let config = Config { epochs: 10, average_epochs: 2.0, ..Config::default() };
        let averages: Vec<f32> = [0, 1, 99, 999].iter().map(|&step| config.rates(step, 100).average).collect();
        assert_eq!(averages, [1.0, 0.5, 0.01, 0.005]);
        let config = Config { average_epochs: 0.0, ..config };
        assert!(Config { epochs: 1, ..Config::default() }.check_values().is_ok(), "half of one epoch warms up");
        assert_eq!((config.rates(999, 100).average, config.rates(999, 100).statistics), (1.0, 0.02));
    }

    #[test]
    fn only_the_recipe_pretrained_has_an_encoder() {
        for recipe in [Recipe::Seed, Recipe::Best] {
            let config = Config::of(recipe);
            assert_eq!((config.encoder, config.encoder_rate, config.weight_decay), (None, 1.0, 0.0), "{recipe:?}");
        }
        let config = Config::of(Recipe::Pretrained);
        assert_eq!(config.encoder, Some(encoder::installed(encoder::INSTALLED[0])));
        config.check_values().expect("whether the file is there is checked later");
        let missing = Config { encoder: Some("/nowhere/lite0.safetensors".into()), ..config };
        let problem = missing.check_encoder().expect_err("it is missing").to_string();
        for part in ["/nowhere/lite0.safetensors", "`make encoder`", "[train] encoder", "recipe = \"best\""] {
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn bad_settings_are_named() {
        for (config, setting) in [
            (Config { epochs: 0, ..Config::default() }, "train.epochs"),
            (Config { start_from: Some("./output/model".into()), ..Config::default() }, "train.start_from"),
            (Config { learning_rate: f32::NAN, ..Config::default() }, "train.learning_rate"),
            (Config { category_balance: 0.5, ..Config::of(Recipe::Seed) }, "train.category_balance"),
            (Config { small_epochs: 25, ..Config::default() }, "train.small_epochs"),
            (Config { small_epochs: 24, small_scale: 0.03, ..Config::default() }, "train.small_scale"),
            (Config { small_scale: 1.0, ..Config::default() }, "train.small_scale"),
            (Config { unlabelled: Some("photos".into()), ..Config::default() }, "train.unlabelled_model"),
            (Config { unlabelled_model: Some("teacher".into()), ..Config::default() }, "train.unlabelled"),
            (Config { unlabelled_confidence: 1.5, ..Config::default() }, "train.unlabelled_confidence"),
            (Config { dice: -1.0, ..Config::default() }, "train.dice"),
            (Config { label_smoothing: 1.0, ..Config::default() }, "train.label_smoothing"),
            (Config { label_smoothing: 0.1, ..Config::of(Recipe::Seed) }, "train.label_smoothing"),
            (Config { rare_sampling: f32::NAN, ..Config::default() }, "train.rare_sampling"),
            (Config { channels: vec![40, 48], ..Config::default() }, "train.channels"),
            (Config { stride: 3, ..Config::default() }, "train.stride"),
            (Config { encoder_rate: 0.0, ..Config::default() }, "train.encoder_rate"),
            (Config { weight_decay: -0.01, ..Config::default() }, "train.weight_decay"),
            (Config { batch_norm: false, ..Config::of(Recipe::Pretrained) }, "train.batch_norm"),
        ] {
            let error = config.check_values().expect_err("the setting is bad");
            assert!(error.to_string().contains(setting), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
