//! The native dialect: the operators of [`lookbook_ops`], maps as `[batch, rows, columns, channels]`.
//!
//! The operators fuse what belongs together (bias and `ReLU` with a convolution, the backward passes of a pooling and a
//! skip connection), so the backward pass is written out here, layer by layer, instead of being derived by the builder.
//! The gradient of a `ReLU`'s output is stored as the gradient of its input: whoever computes it sets it to zero
//! wherever the output is not positive.

use std::collections::HashMap;

use super::builder::{Builder, Value};
use super::onnx::Attribute;
use super::parameters;
use super::spec::{Loss, LossWeights, Precision, Spec};
use super::unet::{LossGradients, tensors};

/// A layer that the forward pass went through.
enum Layer {
    /// 3x3 convolution; `is_relu` if its only input is the output of a `ReLU`. Its own output is one unless it is
    /// normalised.
    Convolution { name: String, inputs: Vec<Value>, is_relu: bool, output: Value },
    /// 3x3 convolution of photos.
    Photos { name: String, photos: Value, output: Value },
    /// Batch normalisation with `ReLU`.
    BatchNorm { name: String, input: Value, statistics: [Value; 2], output: Value },
    /// Max-pooling of maps that also go through a skip connection.
    Pool { input: Value, output: Value },
    /// Transposed convolution.
    Up { name: String, input: Value, output: Value },
}

/// A pass through the network.
struct NativePass<'a> {
    builder: &'a mut Builder,
    weights: &'a HashMap<String, Value>,
    precision: Precision,
    /// Name of the layer before the head.
    last: String,
    /// Channels of the normalised layers by their names.
    normalised: HashMap<String, usize>,
    layers: Vec<Layer>,
    statistics: HashMap<String, [Value; 2]>,
}

/// Loss, accuracy and the gradients of all parameters.
pub(super) fn learn(
    builder: &mut Builder,
    spec: &Spec,
    [photos, labels]: [&Value; 2],
    weights: &HashMap<String, Value>,
    loss_weights: &LossWeights,
) -> LossGradients {
    let Passed { features, layers, statistics } = forward(builder, spec, photos, weights, Precision::F32);
    builder.scope("head");
    let [weight, bias] = tensors(weights, "out");
    let mut inputs = vec![&features, weight, bias, labels];
    let loss_weights = (spec.loss == Loss::Softmax)
        .then(|| [builder.floats(&loss_weights.categories), builder.floats(&[loss_weights.dice])]);
    inputs.extend(loss_weights.iter().flatten());
    let head = builder.native("HeadLoss", &inputs, vec![photo(spec)], 5);
    let [loss, pixel_accuracy, weight, bias, gradient] = <[Value; 5]>::try_from(head).expect("there are 5");
    let mut back = Back { gradients: HashMap::new(), of_maps: HashMap::from([(features, gradient)]) };
    back.keep("out", [weight, bias]);
    for layer in layers.iter().rev() {
        back.through(builder, weights, layer);
    }
    LossGradients { loss, pixel_accuracy, gradients: back.gradients, gradient_scale: 1.0, statistics }
}

/// Loss and binary cross-entropy over the photos' own pixels, and label maps.
pub(super) fn evaluate(
    builder: &mut Builder,
    spec: &Spec,
    [photos, labels]: [&Value; 2],
    weights: &HashMap<String, Value>,
) -> [Value; 3] {
    let features = forward(builder, spec, photos, weights, Precision::F32).features;
    builder.scope("head");
    let [weight, bias] = tensors(weights, "out");
    let softmax = Attribute::int("softmax", i64::from(spec.loss == Loss::Softmax));
    let inputs = [&features, weight, bias, labels];
    let outputs = builder.native("HeadEvaluation", &inputs, vec![photo(spec), softmax], 3);
    outputs.try_into().expect("there are 3")
}

/// Label maps.
pub(super) fn label(
    builder: &mut Builder,
    spec: &Spec,
    photos: &Value,
    weights: &HashMap<String, Value>,
    precision: Precision,
) -> Value {
    let features = forward(builder, spec, photos, weights, precision).features;
    builder.scope("head");
    let [weight, bias] = tensors(weights, "out");
    builder.native("HeadLabels", &[&features, weight, bias], vec![photo(spec)], 2).remove(0)
}

/// Weights and moments after a step of Adam.
pub(super) fn adam(
    builder: &mut Builder,
    gradient: &Value,
    [step, learning_rate]: [&Value; 2],
    [weights, first, second]: [&Value; 3],
) -> [Value; 3] {
    let inputs = [gradient, weights, first, second, step, learning_rate];
    builder.native("Adam", &inputs, vec![], 3).try_into().expect("there are 3")
}

/// The rows and columns that belong to the photo.
fn photo(spec: &Spec) -> Attribute {
    Attribute::ints("photo", &spec.photo_part().map(|end| end as i64))
}

/// Result of the forward pass.
struct Passed {
    /// Input of the head.
    features: Value,
    layers: Vec<Layer>,
    /// Mean and variance of every normalised layer by its name.
    statistics: HashMap<String, [Value; 2]>,
}

/// The forward pass up to the head.
fn forward(
    builder: &mut Builder,
    spec: &Spec,
    photos: &Value,
    weights: &HashMap<String, Value>,
    precision: Precision,
) -> Passed {
    let photos = spec.gather(builder, photos);
    let levels = spec.channels.len();
    let last = format!("up{}b", levels - 1);
    let normalised = parameters::statistics(spec).into_iter().collect();
    let (layers, statistics) = (Vec::new(), HashMap::new());
    let mut pass = NativePass { builder, weights, precision, last, normalised, layers, statistics };
    let mut x = pass.photos("down1a", &photos);
    x = pass.convolution("down1b", vec![x], true);
    let mut skips = Vec::new();
    for level in 2..=levels {
        skips.push(x.clone());
        x = pass.pool(level, x);
        x = pass.convolution(&format!("down{level}a"), vec![x], false);
        x = pass.convolution(&format!("down{level}b"), vec![x], true);
    }
    for (level, skip) in (1..).zip(skips.into_iter().rev()) {
        x = pass.up(&format!("up{level}t"), x);
        x = pass.convolution(&format!("up{level}a"), vec![x, skip], false);
        x = pass.convolution(&format!("up{level}b"), vec![x], true);
    }
    Passed { features: x, layers: pass.layers, statistics: pass.statistics }
}

impl NativePass<'_> {
    /// Adds a layer's operator.
    fn node(&mut self, name: &str, inputs: &[&Value], attributes: Vec<Attribute>) -> Value {
        let prefix = if self.precision == Precision::Bf16 { "Bf16" } else { "" };
        self.builder.native(&format!("{prefix}{name}"), inputs, attributes, 1).remove(0)
    }

    fn photos(&mut self, name: &str, photos: &Value) -> Value {
        let output = self.convolve("PhotoConvolution", name, &[photos]);
        let (owned, photos) = (name.to_owned(), photos.clone());
        self.layers.push(Layer::Photos { name: owned, photos, output: output.clone() });
        self.batch_norm(name, output)
    }

    fn convolution(&mut self, name: &str, inputs: Vec<Value>, is_relu: bool) -> Value {
        // The head takes f32.
        let last = self.precision == Precision::Bf16 && name == self.last;
        let operator = if last { "LastConvolution" } else { "Convolution" };
        let output = self.convolve(operator, name, &inputs.iter().collect::<Vec<_>>());
        self.layers.push(Layer::Convolution { name: name.to_owned(), inputs, is_relu, output: output.clone() });
        self.batch_norm(name, output)
    }

    /// A convolution of one or two inputs, with bias and `ReLU` unless a normalisation follows.
    fn convolve(&mut self, operator: &str, name: &str, inputs: &[&Value]) -> Value {
        self.builder.scope(name);
        let [weight, bias] = tensors(self.weights, name);
        let zeros = self.normalised.get(name).map(|&channels| self.builder.floats(&vec![0.0; channels]));
        let mut all = vec![inputs[0], weight, zeros.as_ref().unwrap_or(bias)];
        all.extend(inputs.get(1));
        self.node(operator, &all, vec![Attribute::int("plain", i64::from(zeros.is_some()))])
    }

    /// The normalisation, with `ReLU`, of a convolution's output, if the layer has one.
    fn batch_norm(&mut self, name: &str, input: Value) -> Value {
        if !self.normalised.contains_key(name) {
            return input;
        }
        let [scale, bias] = ["scale", "bias"].map(|kind| &self.weights[&format!("{name}.{kind}")]);
        let found = self.builder.native("BatchNorm", &[&input, scale, bias], vec![], 3);
        let [output, mean, variance] = <[Value; 3]>::try_from(found).expect("there are 3");
        let statistics = [mean, variance];
        self.statistics.insert(name.to_owned(), statistics.clone());
        self.layers.push(Layer::BatchNorm { name: name.to_owned(), input, statistics, output: output.clone() });
        output
    }

    fn pool(&mut self, level: usize, input: Value) -> Value {
        self.builder.scope(format!("pool{level}"));
        let output = self.node("MaxPool", &[&input], vec![]);
        self.layers.push(Layer::Pool { input, output: output.clone() });
        output
    }

    fn up(&mut self, name: &str, input: Value) -> Value {
        self.builder.scope(name);
        let [weight, bias] = tensors(self.weights, name);
        let output = self.node("UpConvolution", &[&input, weight, bias], vec![]);
        self.layers.push(Layer::Up { name: name.to_owned(), input, output: output.clone() });
        output
    }
}

/// Gradients found so far in the backward pass.
struct Back {
    /// Of the parameters, by name.
    gradients: HashMap<String, Value>,
    of_maps: HashMap<Value, Value>,
}

impl Back {
    /// Stores the gradients of weight and bias. A bias that is only a placeholder, not the layer's own, already has
    /// one.
    fn keep(&mut self, layer: &str, gradients: [Value; 2]) {
        for (kind, gradient) in ["weight", "bias"].into_iter().zip(gradients) {
            self.gradients.entry(format!("{layer}.{kind}")).or_insert(gradient);
        }
    }

    fn take(&mut self, maps: &Value) -> Value {
        self.of_maps.remove(maps).expect("the layers after this one have been processed")
    }

    fn through(&mut self, builder: &mut Builder, weights: &HashMap<String, Value>, layer: &Layer) {
        match layer {
            Layer::Convolution { name, inputs, is_relu, output } => {
                builder.scope(format!("gradient/{name}"));
                let gradient = self.take(output);
                let mut all = vec![&inputs[0], &gradient, tensors(weights, name)[0]];
                all.extend(inputs.get(1));
                let mask = Attribute::int("mask", i64::from(*is_relu));
                let mut found = builder.native("ConvolutionGradient", &all, vec![mask], 2 + inputs.len());
                for (input, gradient) in inputs.iter().zip(found.drain(2..)) {
                    self.of_maps.insert(input.clone(), gradient);
                }
                self.keep(name, found.try_into().expect("weight and bias are left"));
            }
            Layer::BatchNorm { name, input, statistics: [mean, variance], output } => {
                builder.scope(format!("gradient/{name}"));
                let gradient = self.take(output);
                let scale = &weights[&format!("{name}.scale")];
                let all = [input, &gradient, scale, mean, variance];
                let found = builder.native("BatchNormGradient", &all, vec![], 3);
                let [of_scale, of_bias, of_input] = <[Value; 3]>::try_from(found).expect("there are 3");
                self.of_maps.insert(input.clone(), of_input);
                self.gradients.extend([(format!("{name}.scale"), of_scale), (format!("{name}.bias"), of_bias)]);
            }
            Layer::Photos { name, photos, output } => {
                builder.scope(format!("gradient/{name}"));
                let gradient = self.take(output);
                let all = [photos, &gradient, tensors(weights, name)[0]];
                let found = builder.native("PhotoConvolutionGradient", &all, vec![], 2);
                self.keep(name, found.try_into().expect("there are 2"));
            }
            Layer::Pool { input, output } => {
                builder.scope(format!("gradient/{}", output.name()));
                let (gradient, skip) = (self.take(output), self.take(input));
                let found = builder.native("MaxPoolGradient", &[input, &gradient, &skip], vec![], 1).remove(0);
                self.of_maps.insert(input.clone(), found);
            }
            Layer::Up { name, input, output } => {
                builder.scope(format!("gradient/{name}"));
                let gradient = self.take(output);
                let all = [input, &gradient, tensors(weights, name)[0]];
                let mut found = builder.native("UpConvolutionGradient", &all, vec![], 3);
                self.of_maps.insert(input.clone(), found.remove(2));
                self.keep(name, found.try_into().expect("weight and bias are left"));
            }
        }
    }
}
