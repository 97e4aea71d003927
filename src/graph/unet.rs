//! The forward pass of the U-Net (Ronneberger et al., 2015, <https://arxiv.org/abs/1505.04597>) with the dimensions of
//! a [`Spec`].

use std::collections::HashMap;

use super::builder::{Builder, Extent, Value, Window};
use super::encoder::{self, Block, Encoder, STEM};
use super::layout::tensors;
use super::parameters::VARIANCE_EPSILON;
use super::presence::Presence;
use super::spec::{PRESENCE, Spec};

/// The forward pass of the portable dialect: takes photos, f32 `[batch, channels, map rows, map columns]`, 0 to 1, and
/// returns one map of logits per category, `[batch, maps, map rows, map columns]`. `weights` holds all of
/// [`parameters`](super::parameters::parameters) by name.
pub(super) fn forward(builder: &mut Builder, spec: &Spec, photos: &Value, weights: &HashMap<String, Value>) -> Forward {
    let pixels = spec.map_rows() * spec.map_columns();
    let mut pass = ForwardPass { builder, weights, pixels, statistics: HashMap::new() };
    let mut maps = match &spec.encoder {
        None => pass.down(spec, photos),
        Some(encoder) => pass.encode(encoder, photos),
    };
    let (mut x, mut input) = maps.pop().expect("there is a lowest level");
    let lowest = x.clone();
    let decoder = &spec.channels[..maps.len()];
    for (level, (&channels, (skip, skip_channels))) in (1..).zip(decoder.iter().zip(maps).rev()) {
        let name = format!("up{level}t");
        pass.builder.scope(&name);
        let [weight, bias] = tensors(weights, &name);
        x = pass.builder.up_convolution(&x, weight, bias, channels);
        pass.pixels *= 4;
        x = pass.builder.concat_channels(&x, &skip, [channels, skip_channels]);
        x = pass.layer(&x, &format!("up{level}a"), [channels + skip_channels, channels]);
        x = pass.layer(&x, &format!("up{level}b"), [channels; 2]);
        input = channels;
    }
    pass.builder.scope("out");
    let [weight, bias] = tensors(weights, "out");
    let extent = Extent { kernel: 1, channels: [input, spec.maps()], pixels };
    let plain = pass.builder.convolution(&x, weight, Some(bias), extent);
    let statistics = pass.statistics;
    if !spec.presence {
        return Forward { logits: plain.clone(), plain, presence: None, statistics };
    }
    builder.scope(PRESENCE);
    let wide = builder.wide(&lowest);
    let pooled = builder.reduce("ReduceMean", &wide, &[2, 3], false);
    let presence = Presence::new(builder, pooled, weights, spec.maps());
    let gate = presence.gate(builder);
    let gate = builder.reshape(&gate, &[0, -1, 1, 1]);
    let gate = builder.narrow(&gate);
    let logits = builder.node("Add", &[&plain, &gate], vec![]);
    Forward { logits, plain, presence: Some((presence, lowest)), statistics }
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
    /// `[batch, maps, map rows, map columns]`.
    pub(super) logits: Value,
    /// The logits before the presence head's were added.
    pub(super) plain: Value,
    /// The presence head, if there is one, and the maps that it reads.
    pub(super) presence: Option<(Presence, Value)>,
    /// Mean and variance of every normalised layer by its name.
    pub(super) statistics: HashMap<String, [Value; 2]>,
}

struct ForwardPass<'a> {
    builder: &'a mut Builder,
    weights: &'a HashMap<String, Value>,
    /// Of each map at the level that the pass has reached.
    pixels: usize,
    statistics: HashMap<String, [Value; 2]>,
}

impl ForwardPass<'_> {
    /// The way down: the maps of each level with their channels, top to bottom.
    fn down(&mut self, spec: &Spec, photos: &Value) -> Vec<(Value, usize)> {
        let mut levels: Vec<(Value, usize)> = Vec::new();
        for (level, &channels) in (1..).zip(&spec.channels) {
            let (x, input) = match levels.last() {
                None => (photos.clone(), 3 * spec.stride * spec.stride),
                Some((above, channels)) => {
                    self.pixels /= 4;
                    (self.builder.max_pool(above, *channels), *channels)
                }
            };
            let x = self.layer(&x, &format!("down{level}a"), [input, channels]);
            levels.push((self.layer(&x, &format!("down{level}b"), [channels; 2]), channels));
        }
        levels
    }

    /// The encoder: the maps that each resolution hands on, with their channels, top to bottom.
    fn encode(&mut self, encoder: &Encoder, photos: &Value) -> Vec<(Value, usize)> {
        let mut taps = Vec::new();
        let mut input = encoder.stem;
        let x = self.convolution(photos, STEM, 3, [4 * 3, input]);
        let mut x = self.builder.relu6(&x);
        for (block, number) in encoder.blocks.iter().zip(1..) {
            let Block { kernel, stride, inner, out } = *block;
            if stride == 2 {
                taps.push((x.clone(), input));
            }
            let begin = x.clone();
            if inner != input {
                x = self.convolution(&x, &encoder::expand(number), 1, [input, inner]);
                x = self.builder.relu6(&x);
            }
            let window = Window { kernel, stride, before: encoder.padding.before(kernel, stride) };
            self.pixels /= stride * stride;
            x = self.normalised(&encoder::depthwise(number), |builder, (weight, bias)| {
                builder.depthwise_convolution(&x, weight, bias, window, inner)
            });
            x = self.builder.relu6(&x);
            x = self.convolution(&x, &encoder::project(number), 1, [inner, out]);
            if block.is_residual(input) {
                x = self.builder.sum(&x, &begin);
            }
            input = out;
        }
        taps.push((x, input));
        taps
    }

    /// A 3x3 convolution with `ReLU`, with a normalisation in between if the layer has a scale.
    fn layer(&mut self, x: &Value, name: &str, channels: [usize; 2]) -> Value {
        let y = self.convolution(x, name, 3, channels);
        self.builder.relu(&y)
    }

    /// A convolution, with a normalisation if the layer has a scale.
    fn convolution(&mut self, x: &Value, name: &str, kernel: usize, channels: [usize; 2]) -> Value {
        let extent = Extent { kernel, channels, pixels: self.pixels };
        self.normalised(name, |builder, (weight, bias)| builder.convolution(x, weight, bias, extent))
    }

    /// What `convolve` does with a layer's weight and bias, if it has one, or its normalisation.
    fn normalised(
        &mut self,
        name: &str,
        convolve: impl FnOnce(&mut Builder, (&Value, Option<&Value>)) -> Value,
    ) -> Value {
        self.builder.scope(name);
        let [weight, bias] = tensors(self.weights, name);
        let Some(scale) = self.weights.get(&format!("{name}.scale")) else {
            return convolve(self.builder, (weight, Some(bias)));
        };
        let y = convolve(self.builder, (weight, None));
        let (y, statistics) = self.builder.batch_norm(&y, [scale, bias], VARIANCE_EPSILON);
        self.statistics.insert(name.to_owned(), statistics);
        y
    }
}
