//! The forward pass of the U-Net (Ronneberger et al., 2015, <https://arxiv.org/abs/1505.04597>) with the dimensions of
//! a [`Spec`].

use std::collections::HashMap;

use super::builder::{Builder, Value};
use super::parameters::VARIANCE_EPSILON;
use super::spec::Spec;
use crate::labels::CATEGORY_COUNT;

/// The forward pass of the portable dialect: takes photos, f32 `[batch, channels, map rows, map columns]`, 0 to 1, and
/// returns one map of logits per category, `[batch, 23, map rows, map columns]`. `weights` holds all of
/// [`parameters`](super::parameters::parameters) by name.
pub(super) fn forward(builder: &mut Builder, spec: &Spec, photos: &Value, weights: &HashMap<String, Value>) -> Forward {
    let mut pass = ForwardPass { builder, weights, statistics: HashMap::new() };
    let mut x = photos.clone();
    let mut input = 3 * spec.stride * spec.stride;
    let mut skips = Vec::new();
    for (level, &channels) in (1..).zip(&spec.channels) {
        if level > 1 {
            skips.push(x.clone());
            x = pass.builder.max_pool(&x, input);
        }
        x = pass.layer(&x, &format!("down{level}a"), [input, channels]);
        x = pass.layer(&x, &format!("down{level}b"), [channels; 2]);
        input = channels;
    }
    for (level, &channels) in (1..).zip(spec.channels.iter().rev().skip(1)) {
        let name = format!("up{level}t");
        pass.builder.scope(&name);
        let [weight, bias] = tensors(weights, &name);
        x = pass.builder.up_convolution(&x, weight, bias, channels);
        let skip = skips.pop().expect("there is one skip per level");
        x = pass.builder.concat_channels(&x, &skip, [channels; 2]);
        x = pass.layer(&x, &format!("up{level}a"), [2 * channels, channels]);
        x = pass.layer(&x, &format!("up{level}b"), [channels; 2]);
        input = channels;
    }
    pass.builder.scope("out");
    let [weight, bias] = tensors(weights, "out");
    let logits = pass.builder.convolution(&x, weight, Some(bias), 1, [input, CATEGORY_COUNT]);
    Forward { logits, statistics: pass.statistics }
}

/// The loss of a batch, with its gradients.
pub(super) struct LossGradients {
    /// The mean loss, a scalar.
    pub(super) loss: Value,
    /// Share of the photos' own pixels that were classified correctly, a scalar.
    pub(super) pixel_accuracy: Value,
    /// Gradient of each parameter by its name, times 1 / `gradient_scale`.
    pub(super) gradients: HashMap<String, Value>,
    /// Factor that the gradients must be multiplied by.
    pub(super) gradient_scale: f32,
    /// Mean and variance, `[channels]` each, of every normalised layer by its name.
    pub(super) statistics: HashMap<String, [Value; 2]>,
}

/// Result of the forward pass.
pub(super) struct Forward {
    pub(super) logits: Value,
    /// Mean and variance of every normalised layer by its name.
    pub(super) statistics: HashMap<String, [Value; 2]>,
}

struct ForwardPass<'a> {
    builder: &'a mut Builder,
    weights: &'a HashMap<String, Value>,
    statistics: HashMap<String, [Value; 2]>,
}

impl ForwardPass<'_> {
    /// A 3x3 convolution with `ReLU`, with a normalisation in between if the layer has a scale.
    fn layer(&mut self, x: &Value, name: &str, channels: [usize; 2]) -> Value {
        self.builder.scope(name);
        let [weight, bias] = tensors(self.weights, name);
        let y = match self.weights.get(&format!("{name}.scale")) {
            None => self.builder.convolution(x, weight, Some(bias), 3, channels),
            Some(scale) => {
                let y = self.builder.convolution(x, weight, None, 3, channels);
                let (y, statistics) = self.builder.batch_norm(&y, [scale, bias], VARIANCE_EPSILON);
                self.statistics.insert(name.to_owned(), statistics);
                y
            }
        };
        self.builder.relu(&y)
    }
}

pub(super) fn tensors<'a>(weights: &'a HashMap<String, Value>, layer: &str) -> [&'a Value; 2] {
    ["weight", "bias"].map(|kind| &weights[&format!("{layer}.{kind}")])
}
