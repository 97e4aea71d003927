//! The trained tensors of the U-Net by name, their order in flat vectors, their initial values, and how normalisation
//! is folded into them.

use std::collections::HashMap;

use lookbook_ops::up_skip::UpLayers;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::encoder::{self, Block, STEM};
use super::spec::{AVERAGE, GRADIENT, PRESENCE, STATISTICS, Spec, WEIGHTS};

/// Number of trained numbers in the seed's network.
pub const SEED_PARAMETER_COUNT: usize = 486_015;

/// Added to a variance before its square root is taken, as in Keras.
pub const VARIANCE_EPSILON: f32 = 1e-3;

/// Suffix of the name of a normalised layer's scale.
const SCALE: &str = ".scale";

/// A trained tensor: weights `[out, in, height, width]` (`[in, out, 2, 2]` of the transposed convolutions,
/// `[channels, 1, height, width]` of the depthwise ones), biases `[out]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name, such as `down1a.weight`.
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

    /// Whether there are no elements; never true in this network.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is a convolution's kernel: the tensors whose weights decay.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.dims.len() == 4
    }

    /// Half the width of the Glorot-uniform distribution (Glorot and Bengio, AISTATS 2010); `None` for a bias.
    fn glorot_limit(&self) -> Option<f32> {
        let [out, input, height, width] = self.dims[..] else { return None };
        Some((6.0 / ((out + input) * height * width) as f32).sqrt())
    }
}

/// A layer with weights.
struct Layer {
    name: String,
    /// Shape of its weight.
    dims: [usize; 4],
    out: usize,
    /// Whether its maps are normalised during training.
    normalised: bool,
}

/// All layers with weights in the order of the forward pass.
fn layers(spec: &Spec) -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut add = |name: String, dims: [usize; 4], out: usize, normalised: bool| {
        layers.push(Layer { name, dims, out, normalised: normalised && spec.batch_norm });
    };
    let mut input;
    let skips = if let Some(encoder) = &spec.encoder {
        add(STEM.to_owned(), [encoder.stem, 3, 3, 3], encoder.stem, true);
        input = encoder.stem;
        for (block, number) in encoder.blocks.iter().zip(1..) {
            let Block { kernel, inner, out, .. } = *block;
            if inner != input {
                add(encoder::expand(number), [inner, input, 1, 1], inner, true);
            }
            add(encoder::depthwise(number), [inner, 1, kernel, kernel], inner, true);
            add(encoder::project(number), [out, inner, 1, 1], out, true);
            input = out;
        }
        encoder.taps()
    } else {
        input = 3 * spec.stride * spec.stride;
        for (level, &out) in (1..).zip(&spec.channels) {
            add(format!("down{level}a"), [out, input, 3, 3], out, true);
            add(format!("down{level}b"), [out, out, 3, 3], out, true);
            input = out;
        }
        spec.channels.clone()
    };
    let (lowest, decoder) = (input, &spec.channels[..skips.len() - 1]);
    for (level, (&out, &skip)) in (1..).zip(decoder.iter().zip(&skips).rev()) {
        add(format!("up{level}t"), [input, out, 2, 2], out, false);
        add(format!("up{level}a"), [out, out + skip, 3, 3], out, true);
        add(format!("up{level}b"), [out, out, 3, 3], out, true);
        input = out;
    }
    add("out".to_owned(), [spec.maps(), input, 1, 1], spec.maps(), false);
    if spec.presence {
        add(PRESENCE.to_owned(), [spec.maps(), lowest, 1, 1], spec.maps(), false);
    }
    layers
}

/// All parameters in the order of the forward pass, which is the layout of the flat weight vector. A normalised layer
/// has a `scale` between `weight` and `bias`, and its bias is added after the normalisation.
#[must_use]
pub fn parameters(spec: &Spec) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    for Layer { name, dims, out, normalised } in layers(spec) {
        parameters.push(Parameter { name: format!("{name}.weight"), dims: dims.to_vec() });
        parameters.extend(normalised.then(|| Parameter { name: format!("{name}{SCALE}"), dims: vec![out] }));
        parameters.push(Parameter { name: format!("{name}.bias"), dims: vec![out] });
    }
    parameters
}

/// Flat weights as tensors, by name.
pub(super) fn by_name<'a>(spec: &Spec, mut weights: &'a [f32]) -> HashMap<String, &'a [f32]> {
    let tensor = |parameter: Parameter| {
        let (own, rest) = weights.split_at(parameter.len());
        weights = rest;
        (parameter.name, own)
    };
    parameters(spec).into_iter().map(tensor).collect()
}

/// The transposed convolution that a level begins with, and the convolution over its output and the skip connection.
pub(super) fn up_layers<'a>(tensors: &HashMap<String, &'a [f32]>, level: usize) -> UpLayers<'a> {
    let of = |layer: &str, kind: &str| tensors[&format!("up{level}{layer}.{kind}")];
    let ([up_weight, up_bias], [weight, bias]) =
        (["weight", "bias"].map(|it| of("t", it)), ["weight", "bias"].map(|it| of("a", it)));
    UpLayers { up_weight, up_bias, weight, bias }
}

/// Number of trained numbers.
#[must_use]
pub fn parameter_count(spec: &Spec) -> usize {
    parameters(spec).iter().map(Parameter::len).sum()
}

/// Checks that flat weights are numbers.
///
/// # Errors
/// The first tensor that holds NaN or infinity.
pub fn check_finite(spec: &Spec, mut weights: &[f32]) -> Result<(), String> {
    for parameter in parameters(spec) {
        if !take(&mut weights, parameter.len()).iter().all(|it| it.is_finite()) {
            return Err(format!("its tensor '{}' holds NaN or infinity", parameter.name));
        }
    }
    Ok(())
}

/// The normalised layers and their channels in the order of the forward pass, which is the layout of the flat vector of
/// statistics: for each layer its means, then its variances.
#[must_use]
pub fn statistics(spec: &Spec) -> Vec<(String, usize)> {
    layers(spec).into_iter().filter(|it| it.normalised).map(|it| (it.name, it.out)).collect()
}

/// The tensors in the flat vector of statistics: `mean` and `variance` of each normalised layer.
#[must_use]
pub fn statistics_tensors(spec: &Spec) -> Vec<Parameter> {
    let tensors = |(layer, channels): (String, usize)| {
        ["mean", "variance"].map(|kind| Parameter { name: format!("{layer}.{kind}"), dims: vec![channels] })
    };
    statistics(spec).into_iter().flat_map(tensors).collect()
}

/// Number of means and variances.
#[must_use]
pub fn statistics_count(spec: &Spec) -> usize {
    statistics(spec).iter().map(|(_, channels)| 2 * channels).sum()
}

/// Initial state of a network, in the order of [`Spec::state`]: fresh weights, zero moments, the average equal to the
/// weights, means 0 and variances 1.
#[must_use]
pub fn initial_state(spec: &Spec, seed: u64) -> Vec<Vec<f32>> {
    let weights = initial_weights(spec, seed);
    let zeros = vec![0.0; weights.len()];
    let mut state = vec![weights.clone(), zeros.clone(), zeros];
    if spec.batch_norm {
        let of_layer = |(_, channels)| [vec![0.0; channels], vec![1.0; channels]].concat();
        state.extend([weights, statistics(spec).into_iter().flat_map(of_layer).collect()]);
    }
    state
}

/// Fresh flat weights: Glorot-uniform, scales one, biases zero; always the same for the same seed.
#[must_use]
pub fn initial_weights(spec: &Spec, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = Vec::new();
    for parameter in parameters(spec) {
        let constant = f32::from(u8::from(parameter.name.ends_with(SCALE)));
        let limit = parameter.glorot_limit();
        weights.extend((0..parameter.len()).map(|_| limit.map_or(constant, |limit| rng.random_range(-limit..limit))));
    }
    weights
}

/// The weights of the [folded](Spec::folded) network: the effect of each normalisation, given its means and variances,
/// is folded into the layer's weight and bias.
#[must_use]
pub fn fold(spec: &Spec, mut weights: &[f32], mut statistics: &[f32]) -> Vec<f32> {
    let mut folded = Vec::with_capacity(weights.len());
    for layer in layers(spec) {
        let weight = take(&mut weights, layer.dims.iter().product());
        if !layer.normalised {
            folded.extend_from_slice(weight);
            folded.extend_from_slice(take(&mut weights, layer.out));
            continue;
        }
        let [scale, bias] = [take(&mut weights, layer.out), take(&mut weights, layer.out)];
        let [mean, variance] = [take(&mut statistics, layer.out), take(&mut statistics, layer.out)];
        let factors: Vec<f32> =
            scale.iter().zip(variance).map(|(scale, variance)| scale / (variance + VARIANCE_EPSILON).sqrt()).collect();
        for (of_output, factor) in weight.chunks_exact(weight.len() / layer.out).zip(&factors) {
            folded.extend(of_output.iter().map(|weight| weight * factor));
        }
        folded.extend(bias.iter().zip(mean).zip(&factors).map(|((bias, mean), factor)| bias - mean * factor));
    }
    folded
}

/// Splits off the first `len` numbers.
fn take<'a>(rest: &mut &'a [f32], len: usize) -> &'a [f32] {
    let (taken, left) = rest.split_at(len);
    *rest = left;
    taken
}

impl Spec {
    /// The vectors carried from one training step to the next: name and length of each.
    #[must_use]
    pub fn state(&self) -> Vec<(&'static str, usize)> {
        let parameters = parameter_count(self);
        let mut state = vec![(WEIGHTS, parameters), ("first_moment", parameters), ("second_moment", parameters)];
        if self.batch_norm {
            state.extend([(AVERAGE, parameters), (STATISTICS, statistics_count(self))]);
        }
        state
    }

    /// Name and length of a sum of gradients.
    #[must_use]
    pub fn gradient(&self) -> (&'static str, usize) {
        (GRADIENT, parameter_count(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Loss;

    #[test]
    fn it_is_the_seeds_network() {
        let spec = Spec::seed(400, 600, Loss::Bce);
        let parameters = parameters(&spec);
        assert_eq!(parameter_count(&spec), SEED_PARAMETER_COUNT);
        assert_eq!(parameters[0].name, "down1a.weight");
        assert_eq!(parameters[0].dims, [8, 3, 3, 3]);
        let up = parameters.iter().find(|it| it.name == "up1t.weight").expect("it exists");
        assert_eq!(up.dims, [128, 64, 2, 2]);
    }

    #[test]
    fn weights_are_glorot_uniform_and_seeded() {
        let spec = Spec::seed(400, 600, Loss::Bce);
        let weights = initial_weights(&spec, 7);
        assert_eq!(weights, initial_weights(&spec, 7));
        assert_ne!(weights, initial_weights(&spec, 8));
        let limit = (6.0_f32 / (11.0 * 9.0)).sqrt();
        let first = &weights[..216];
        assert!(first.iter().all(|weight| weight.abs() <= limit));
        assert!(first.iter().any(|weight| weight.abs() > 0.9 * limit));
        assert!(weights[216..224].iter().all(|&bias| bias == 0.0));
    }

    #[test]
    fn a_layer_is_folded_by_hand() {
        let spec = Spec { batch_norm: true, ..Spec::seed(400, 600, Loss::Bce) };
        let mut state = initial_state(&spec, 1);
        let lengths: Vec<usize> = state.iter().map(Vec::len).collect();
        assert_eq!(lengths, spec.state().iter().map(|(_, len)| *len).collect::<Vec<_>>());
        let (weights, statistics) = (&mut state[0], vec![0.0; statistics_count(&spec)]);
        // The first layer: 216 weights, 8 scales, 8 biases; 8 means, 8 variances.
        (weights[0], weights[216], weights[224]) = (0.5, 3.0, 0.25);
        let mut statistics = statistics;
        (statistics[0], statistics[8]) = (2.0, 4.0 - VARIANCE_EPSILON);
        let folded = fold(&spec, weights, &statistics);
        assert_eq!(folded.len(), SEED_PARAMETER_COUNT);
        assert_eq!((folded[0], folded[216]), (0.75, 0.25 - 2.0 * 1.5));
    }
}
