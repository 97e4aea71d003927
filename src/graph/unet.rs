//! The U-Net (Ronneberger et al., 2015, <https://arxiv.org/abs/1505.04597>) in the seed's measures: its parameters by name
//! and its forward pass.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::builder::{Builder, Value};
use crate::labels::CATEGORY_COUNT;

/// Channels of the five levels, top to bottom.
pub const CHANNELS: [usize; 5] = [8, 16, 32, 64, 128];
/// The sides of the network's input are multiples of this: four halvings.
pub const SIDE_MULTIPLE: usize = 16;
/// Number of trained numbers.
pub const PARAMETER_COUNT: usize = 486_015;

/// A trained tensor: weights `[out, in, height, width]` (`[in, out, 2, 2]` of the transposed convolutions), biases `[out]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name, as `down1a.weight`.
    pub name: String,
    /// Its shape.
    pub dims: Vec<usize>,
}

impl Parameter {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// True for no tensor of this network.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Half the width of the Glorot-uniform distribution (Glorot and Bengio, AISTATS 2010); `None` for a bias.
    fn glorot_limit(&self) -> Option<f32> {
        let [out, input, height, width] = self.dims[..] else { return None };
        Some((6.0 / ((out + input) * height * width) as f32).sqrt())
    }
}

/// All parameters in the order of the forward pass: how the flat weight vector is laid out.
#[must_use]
pub fn parameters() -> Vec<Parameter> {
    let mut parameters = Vec::new();
    let mut add = |layer: String, dims: [usize; 4], out: usize| {
        parameters.push(Parameter { name: format!("{layer}.weight"), dims: dims.to_vec() });
        parameters.push(Parameter { name: format!("{layer}.bias"), dims: vec![out] });
    };
    let mut input = 3;
    for (level, out) in (1..).zip(CHANNELS) {
        add(format!("down{level}a"), [out, input, 3, 3], out);
        add(format!("down{level}b"), [out, out, 3, 3], out);
        input = out;
    }
    for (level, out) in (1..).zip(CHANNELS.into_iter().rev().skip(1)) {
        add(format!("up{level}t"), [input, out, 2, 2], out);
        add(format!("up{level}a"), [out, 2 * out, 3, 3], out);
        add(format!("up{level}b"), [out, out, 3, 3], out);
        input = out;
    }
    add("out".to_owned(), [CATEGORY_COUNT, input, 1, 1], CATEGORY_COUNT);
    parameters
}

/// Fresh weights, flat: Glorot-uniform, biases zero; the same for the same seed.
#[must_use]
pub fn initial_weights(seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = Vec::with_capacity(PARAMETER_COUNT);
    for parameter in parameters() {
        let limit = parameter.glorot_limit();
        weights.extend((0..parameter.len()).map(|_| limit.map_or(0.0, |limit| rng.random_range(-limit..limit))));
    }
    weights
}

/// The forward pass: photos f32 `[batch, 3, rows, columns]`, 0 to 1, to one map of logits a category,
/// `[batch, 23, rows, columns]`. `weights` holds every one of [`parameters`] by name.
pub(super) fn forward(
    builder: &mut Builder,
    photos: &Value,
    columns: usize,
    weights: &HashMap<String, Value>,
) -> Value {
    let mut x = photos.clone();
    let mut input = 3;
    let mut skips = Vec::new();
    for (level, channels) in (1..).zip(CHANNELS) {
        if level > 1 {
            skips.push(x.clone());
            x = builder.max_pool(&x, [input, columns >> (level - 1)]);
        }
        x = layer(builder, &x, weights, &format!("down{level}a"), [input, channels]);
        x = layer(builder, &x, weights, &format!("down{level}b"), [channels; 2]);
        input = channels;
    }
    for (level, channels) in (1..).zip(CHANNELS.into_iter().rev().skip(1)) {
        let name = format!("up{level}t");
        builder.scope(&name);
        let [weight, bias] = tensors(weights, &name);
        x = builder.up_convolution(&x, weight, bias, channels);
        let skip = skips.pop().expect("there is a skip a level");
        x = builder.concat_channels(&x, &skip, [channels; 2]);
        x = layer(builder, &x, weights, &format!("up{level}a"), [2 * channels, channels]);
        x = layer(builder, &x, weights, &format!("up{level}b"), [channels; 2]);
        input = channels;
    }
    builder.scope("out");
    builder.convolution(&x, tensors(weights, "out"), 1, [input, CATEGORY_COUNT])
}

/// A 3x3 convolution with `ReLU`.
fn layer(
    builder: &mut Builder,
    x: &Value,
    weights: &HashMap<String, Value>,
    name: &str,
    channels: [usize; 2],
) -> Value {
    builder.scope(name);
    let y = builder.convolution(x, tensors(weights, name), 3, channels);
    builder.relu(&y)
}

fn tensors<'a>(weights: &'a HashMap<String, Value>, layer: &str) -> [&'a Value; 2] {
    ["weight", "bias"].map(|kind| &weights[&format!("{layer}.{kind}")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_seeds_network() {
        let parameters = parameters();
        assert_eq!(parameters.iter().map(Parameter::len).sum::<usize>(), PARAMETER_COUNT);
        assert_eq!(parameters[0].name, "down1a.weight");
        assert_eq!(parameters[0].dims, [8, 3, 3, 3]);
        let up = parameters.iter().find(|it| it.name == "up1t.weight").expect("it exists");
        assert_eq!(up.dims, [128, 64, 2, 2]);
    }

    #[test]
    fn weights_are_glorot_uniform_and_seeded() {
        let weights = initial_weights(7);
        assert_eq!(weights, initial_weights(7));
        assert_ne!(weights, initial_weights(8));
        let limit = (6.0_f32 / (11.0 * 9.0)).sqrt();
        let first = &weights[..216];
        assert!(first.iter().all(|weight| weight.abs() <= limit));
        assert!(first.iter().any(|weight| weight.abs() > 0.9 * limit));
        assert!(weights[216..224].iter().all(|&bias| bias == 0.0));
    }
}
