//! The network for label maps in 8-bit integers: which layers are, the ranges that their maps need, and their operators.
//!
//! Maps are u8 with a step for each channel; see [`lookbook_ops::quantised`]. A transposed convolution, its skip connection and
//! the convolution after them are one operator. What stays in bf16 is in [`stays_wide`].

use std::collections::{BTreeMap, HashMap};

pub use lookbook_ops::quantised::MapRange;
use lookbook_ops::quantised::{QuantisedLayer, Steps, Weights, quantise_convolution, quantise_up};

use super::builder::{Builder, Value};
use super::encoder::{self, STEM};
use super::onnx::Attribute;
use super::parameters;
use super::spec::{PRESENCE, Spec};

/// The range of each quantised map, by the name of its layer.
pub type Ranges = BTreeMap<String, MapRange>;

/// Whether a layer, by its name, is computed in bf16 or f32 if label maps are computed in 8-bit integers. The head and the
/// presence head are always f32.
pub(super) fn stays_wide(spec: &Spec, layer: &str) -> bool {
    match &spec.encoder {
        // Its weights alone, rounded to 8 bits, change more pixels than all of the decoder.
        Some(_) => encoder::is_layer(layer) || is_head(layer),
        // The input of the last layer is the map that the labels depend on most.
        None => layer.starts_with(&last_layer(spec)) || is_head(layer),
    }
}

fn is_head(layer: &str) -> bool {
    layer.starts_with("out.") || layer.starts_with(PRESENCE)
}

/// Name of the layer before the head.
pub(super) fn last_layer(spec: &Spec) -> String {
    let levels = spec.channels.len();
    format!("up{}b", if spec.encoder.is_some() { levels } else { levels - 1 })
}

/// Names of the layers whose outputs are quantised, in the order of the forward pass.
#[must_use]
pub fn quantised_maps(spec: &Spec) -> Vec<String> {
    let (mut names, ups) = if let Some(encoder) = &spec.encoder {
        let before = |block: usize| if block == 0 { STEM.to_owned() } else { encoder::project(block) };
        let halving = encoder.blocks.iter().enumerate().filter(|(_, block)| block.stride == 2);
        let taps = halving.map(|(at, _)| before(at)).chain([before(encoder.blocks.len())]);
        (taps.collect::<Vec<_>>(), spec.channels.len())
    } else {
        let of_level = |level: usize| ["a", "b"].map(|which| format!("down{level}{which}"));
        ((1..=spec.channels.len()).flat_map(of_level).collect(), spec.channels.len() - 1)
    };
    names.extend((1..=ups).flat_map(|level| ["a", "b"].map(|which| format!("up{level}{which}"))));
    // The last layer's own output is not, nor its input if it stays wide.
    let last = names.pop().expect("there is a last layer");
    if stays_wide(spec, &last) {
        names.pop();
    }
    names
}

/// What is known of a network in 8-bit integers.
pub(super) struct Int8<'a> {
    spec: &'a Spec,
    ranges: &'a Ranges,
    /// The network's tensors by name.
    tensors: HashMap<String, &'a [f32]>,
    /// Maps that are u8.
    maps: HashMap<Value, Steps>,
}

impl<'a> Int8<'a> {
    pub(super) fn new(spec: &'a Spec, weights: &'a [f32], ranges: &'a Ranges) -> Self {
        Self { spec, ranges, tensors: parameters::by_name(spec, weights), maps: HashMap::new() }
    }

    fn tensors(&self, layer: &str) -> [&'a [f32]; 2] {
        ["weight", "bias"].map(|kind| self.tensors[&format!("{layer}.{kind}")])
    }

    /// Those of the output of a layer of 8-bit integers.
    fn steps(&self, layer: &str) -> Steps {
        Steps::by_channel(&self.ranges[layer])
    }
}

/// Zero points of maps.
fn zeros(steps: &[&Steps]) -> Attribute {
    Attribute::ints("zeros", &steps.iter().map(|it| i64::from(it.zero)).collect::<Vec<_>>())
}

/// The inputs of an operator that a layer's numbers are.
fn parameters_of(builder: &mut Builder, layer: &QuantisedLayer, outputs: usize) -> [Value; 3] {
    let weights = builder.integers_8([layer.weights.len() / outputs, outputs], &layer.weights);
    [weights, builder.floats(&layer.scale), builder.floats(&layer.bias)]
}

impl Int8<'_> {
    /// Whether maps are u8.
    pub(super) fn has(&self, maps: &Value) -> bool {
        self.maps.contains_key(maps)
    }

    /// Adds an operator whose output is u8 with these steps.
    fn node(&mut self, builder: &mut Builder, name: &str, inputs: &[&Value], of: (Vec<Attribute>, Steps)) -> Value {
        let (attributes, steps) = of;
        let output = builder.native(name, inputs, attributes, 1).remove(0);
        self.maps.insert(output.clone(), steps);
        output
    }

    /// Maps as u8 with their steps; those of the encoder, the output of the layer `layer`, are made narrow, with one step for
    /// all channels.
    fn narrowed(&mut self, builder: &mut Builder, maps: &Value, layer: Option<&str>) -> (Value, Steps) {
        if let Some(steps) = self.maps.get(maps) {
            return (maps.clone(), steps.clone());
        }
        let steps = Steps::of_map(&self.ranges[layer.expect("maps of the encoder are the output of a layer")]);
        let attributes = vec![zeros(&[&steps]), Attribute::floats("step", &steps.step[..1])];
        (self.node(builder, "Int8Narrow", &[maps], (attributes, steps.clone())), steps)
    }

    /// The first convolution of photos.
    pub(super) fn photos(&mut self, builder: &mut Builder, name: &str, photos: &Value) -> Value {
        builder.scope(name);
        let (steps, [weight, bias]) = (self.steps(name), self.tensors(name));
        let channels = 3 * self.spec.stride * self.spec.stride;
        let layer = quantise_convolution([weight, bias], &Steps::of_photos(channels), &steps);
        let [weight, scale, bias] = parameters_of(builder, &layer, bias.len());
        self.node(builder, "Int8PhotoConvolution", &[photos, &weight, &scale, &bias], (vec![], steps))
    }

    /// A convolution of u8 maps; the last one's output is f32.
    pub(super) fn convolution(&mut self, builder: &mut Builder, name: &str, maps: &Value) -> Value {
        builder.scope(name);
        let (input, [weight, bias]) = (self.maps[maps].clone(), self.tensors(name));
        let is_last = name == last_layer(self.spec);
        let steps = if is_last { Steps::ones(bias.len()) } else { self.steps(name) };
        let layer = quantise_convolution([weight, bias], &input, &steps);
        let [weight, scale, bias] = parameters_of(builder, &layer, bias.len());
        let (inputs, attributes) = ([maps, &weight, &scale, &bias], vec![zeros(&[&input])]);
        if is_last {
            return builder.native("Int8LastConvolution", &inputs, attributes, 1).remove(0);
        }
        self.node(builder, "Int8Convolution", &inputs, (attributes, steps))
    }

    /// Max-pooling of u8 maps.
    pub(super) fn pool(&mut self, builder: &mut Builder, level: usize, maps: &Value) -> Value {
        builder.scope(format!("pool{level}"));
        let steps = self.maps[maps].clone();
        self.node(builder, "Int8MaxPool", &[maps], (vec![], steps))
    }

    /// The transposed convolution of a level's maps and the convolution over its output and the skip connection. Both come with
    /// the name of the layer whose output they are, which the encoder's have.
    pub(super) fn up(
        &mut self,
        builder: &mut Builder,
        level: usize,
        maps_and_skip: [(&Value, Option<&str>); 2],
    ) -> Value {
        let name = format!("up{level}a");
        builder.scope(&name);
        let [(maps, below), (skip, beside)] = maps_and_skip.map(|(it, layer)| self.narrowed(builder, it, layer));
        let layers = parameters::up_layers(&self.tensors, level);
        let is_wide = stays_wide(self.spec, &format!("up{level}b"));
        // What goes into the last layer is what labels depend on most: its weights are fine, too.
        let (steps, how) = if is_wide {
            (Steps::ones(layers.bias.len()), Weights::Fine)
        } else {
            (self.steps(&name), Weights::Coarse)
        };
        let layer = quantise_up(layers, [&below, &beside], &steps, how);
        let [weight, scale, bias] = parameters_of(builder, &layer, layers.bias.len());
        let (inputs, attributes) = ([&maps, &skip, &weight, &scale, &bias], vec![zeros(&[&below, &beside])]);
        if is_wide {
            return builder.native("Int8WideUpSkipConvolution", &inputs, attributes, 1).remove(0);
        }
        self.node(builder, "Int8UpSkipConvolution", &inputs, (attributes, steps))
    }

    /// u8 maps as f32.
    pub(super) fn wide(&self, builder: &mut Builder, maps: &Value) -> Value {
        let step = Attribute::floats("step", &self.maps[maps].step);
        builder.native("Int8Wide", &[maps], vec![step], 1).remove(0)
    }
}

/// The least, the largest and the mean number of each channel of maps, `[batch, rows, columns, channels]`: `[3, channels]`.
pub(super) fn figures(builder: &mut Builder, maps: &Value) -> Value {
    let found = ["ReduceMin", "ReduceMax", "ReduceMean"].map(|it| builder.reduce(it, maps, &[0, 1, 2], true));
    let all = builder.concat(&found.iter().collect::<Vec<_>>(), 0);
    builder.node("Flatten", &[&all], vec![Attribute::int("axis", 1)])
}
