//! The native dialect: the operators of [`lookbook_ops`], maps as `[batch, rows, columns, channels]`.
//!
//! The operators fuse what belongs together (bias and `ReLU` with a convolution, the backward passes of a pooling and a
//! skip connection), so the backward pass is written out here, layer by layer, instead of being derived by the builder.
//! The gradient of a `ReLU`'s output is stored as the gradient of its input: whoever computes it sets it to zero
//! wherever the output is not positive.

use std::collections::HashMap;

use lookbook_ops::convolution::TAPS;
use lookbook_ops::inverted::Inverted;
use lookbook_ops::up_skip::{EDGES, PHASES, UpLayers};
use lookbook_ops::winograd::{self, TILE_POINTS};

use super::builder::{Builder, Value, Window};
use super::encoder::{self, Block, Encoder, STEM};
use super::int8::{self, Int8};
use super::layout::tensors;
use super::onnx::{Attribute, FLOAT};
use super::parameters;
use super::presence::{Presence, PresenceTruth};
use super::spec::{Loss, LossWeights, PRESENCE, Precision, Spec};
use super::unet::LossGradients;

/// A layer that the forward pass went through.
enum Layer {
    /// 3x3 convolution; `is_relu` if its only input is the output of a `ReLU`. Its own output is one unless it is
    /// normalised.
    Convolution { name: String, inputs: Vec<Value>, is_relu: bool, output: Value },
    /// 3x3 convolution of photos.
    Photos { name: String, photos: Value, output: Value },
    /// The encoder's stem: 3x3 convolution of squares of photos, with a kernel made from the weight.
    Stem { encoder: Encoder, photos: Value, kernel: Value, output: Value },
    /// 1x1 convolution, whose input is an output of `activation`.
    Pointwise { name: String, input: Value, activation: Activation, output: Value },
    /// Depthwise convolution, likewise.
    Depthwise { name: String, input: Value, activation: Activation, window: Window, output: Value },
    /// Batch normalisation with its activation; `residual` is added to the output.
    BatchNorm { name: String, input: Value, residual: Option<Value>, statistics: [Value; 2], output: Value },
    /// Max-pooling of maps that also go through a skip connection.
    Pool { input: Value, output: Value },
    /// Transposed convolution, whose input is an output of `activation`.
    Up { name: String, input: Value, activation: Activation, output: Value },
}

impl Layer {
    /// Name of its parameters, if it has some.
    fn name(&self) -> Option<&str> {
        match self {
            Self::Convolution { name, .. }
            | Self::Photos { name, .. }
            | Self::Pointwise { name, .. }
            | Self::Depthwise { name, .. }
            | Self::BatchNorm { name, .. }
            | Self::Up { name, .. } => Some(name),
            Self::Stem { .. } => Some(STEM),
            Self::Pool { .. } => None,
        }
    }

    fn output(&self) -> &Value {
        match self {
            Self::Convolution { output, .. }
            | Self::Photos { output, .. }
            | Self::Stem { output, .. }
            | Self::Pointwise { output, .. }
            | Self::Depthwise { output, .. }
            | Self::BatchNorm { output, .. }
            | Self::Pool { output, .. }
            | Self::Up { output, .. } => output,
        }
    }
}

/// What is done to a layer's sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activation {
    None,
    Relu,
    Relu6,
}

impl Activation {
    /// As operators have it: 0 for none, else the highest value of the derivative's argument, 1 standing for no bound.
    fn attribute(self, name: &str) -> Attribute {
        let code = match self {
            Self::None => 0,
            Self::Relu => 1,
            Self::Relu6 => 6,
        };
        Attribute::int(name, code)
    }
}

/// What is known of the weights while a graph is built.
pub(super) enum Constants<'a> {
    /// Nothing: they are computed.
    None,
    /// The tensors, by name: layers can be put together.
    Tensors(HashMap<String, &'a [f32]>),
    /// They are quantised; layers that are not are bf16.
    Int8(Int8<'a>),
}

/// A pass through the network.
struct NativePass<'a> {
    builder: &'a mut Builder,
    weights: &'a HashMap<String, Value>,
    precision: Precision,
    constants: Constants<'a>,
    /// Name of the layer before the head.
    last: String,
    /// Whether its maps are f32 and the others are not.
    is_last_wide: bool,
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
    (loss_weights, precision): (&LossWeights, Precision),
) -> LossGradients {
    let Passed { features, presence, layers, statistics } =
        forward(builder, spec, photos, weights, [precision, precision], Constants::None);
    let [weight, bias] = head_parameters(builder, weights, presence.as_ref());
    let mut inputs = vec![&features, &weight, &bias, labels];
    let presence_weight = loss_weights.presence;
    let loss_weights = (spec.loss == Loss::Softmax).then(|| {
        let LossWeights { dice, smoothing, .. } = loss_weights;
        [
            builder.floats(&loss_weights.of_categories(spec.maps())),
            builder.floats(&[*dice]),
            builder.floats(&[*smoothing]),
        ]
    });
    inputs.extend(loss_weights.iter().flatten());
    let head = builder.native(&operator(precision, "HeadLoss"), &inputs, vec![photo(spec)], 6);
    let [mut loss, pixel_accuracy, weight, mut bias, gradient, present] =
        <[Value; 6]>::try_from(head).expect("there are 6");
    let mut back = Back { precision, gradients: HashMap::new(), of_maps: HashMap::from([(features, gradient)]) };
    if let Some((presence, lowest)) = presence {
        builder.scope("gradient/presence");
        let [zero, two] = [vec![0], vec![1]].map(|bounds| builder.integers(&bounds));
        let sizes = builder.node("Shape", &[&present], vec![]);
        let batch = builder.node("Slice", &[&sizes, &zero, &two], vec![]);
        let batch = builder.cast(&batch, FLOAT);
        // Of each photo's own loss.
        let of_gate = builder.node("Mul", &[&bias, &batch], vec![]);
        let weight = presence_weight;
        let truth =
            PresenceTruth { present: &present, of_gate: &of_gate, weight, gradient_share: weight / spec.maps() as f32 };
        let found = presence.learn(builder, &truth);
        loss = builder.node("Add", &[&loss, &found.loss], vec![]);
        let of_weight = builder.reduce("ReduceMean", &found.weight, &[0], false);
        let of_weight = builder.reshape(&of_weight, &[0, -1, 1, 1]);
        let of_bias = builder.reduce("ReduceMean", &found.bias, &[0], false);
        back.keep(PRESENCE, [of_weight, of_bias]);
        let pixels = builder.scalar(spec.lowest_pixels() as f32);
        let shares = builder.node("Mul", &[&pixels, &batch], vec![]);
        let of_lowest = builder.node("Div", &[&found.pooled, &shares], vec![]);
        let of_lowest = builder.reshape(&of_lowest, &[0, 1, 1, -1]);
        back.of_maps.insert(lowest, of_lowest);
        bias = builder.reduce("ReduceSum", &bias, &[0], false);
    }
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
    let [features, weight, bias] = &predicted(builder, spec, photos, weights, (Precision::F32, Constants::None));
    let softmax = Attribute::int("softmax", i64::from(spec.loss == Loss::Softmax));
    let inputs = [features, weight, bias, labels];
    let outputs = builder.native("HeadEvaluation", &inputs, vec![photo(spec), softmax], 3);
    let [loss, bce, label_map] = <[Value; 3]>::try_from(outputs).expect("there are 3");
    let label_map = if spec.logit_scale > 1 {
        label_features(builder, spec, features, [weight, bias])
    } else {
        enlarge(builder, spec, label_map)
    };
    [loss, bce, label_map]
}

/// Label maps.
pub(super) fn label(
    builder: &mut Builder,
    spec: &Spec,
    photos: &Value,
    weights: &HashMap<String, Value>,
    known: (Precision, Constants<'_>),
) -> Value {
    let [features, weight, bias] = &predicted(builder, spec, photos, weights, known);
    label_features(builder, spec, features, [weight, bias])
}

/// The [figures](int8::figures) of each of the [quantised maps](int8::quantised_maps), with their names.
pub(super) fn figures(
    builder: &mut Builder,
    spec: &Spec,
    photos: &Value,
    weights: &HashMap<String, Value>,
) -> Vec<(String, Value)> {
    let layers = forward(builder, spec, photos, weights, [Precision::F32; 2], Constants::None).layers;
    builder.scope("figures");
    let of_map = |name: String| {
        let layer = layers.iter().find(|it| it.name() == Some(&name)).expect("each quantised map is a layer's");
        (name, int8::figures(builder, layer.output()))
    };
    int8::quantised_maps(spec).into_iter().map(of_map).collect()
}

/// The head's input, weight and bias, for predictions.
fn predicted(
    builder: &mut Builder,
    spec: &Spec,
    photos: &Value,
    weights: &HashMap<String, Value>,
    (precision, constants): (Precision, Constants<'_>),
) -> [Value; 3] {
    let photos = spec.with_mirror_images(builder, photos);
    let Passed { features, presence, .. } =
        forward(builder, spec, &photos, weights, [precision, Precision::F32], constants);
    // The head is linear: the mean of its inputs gives the mean of its logits.
    let dims = [spec.map_rows(), spec.map_columns(), spec.channels[0]];
    let features = spec.mean_with_mirror_images(builder, &features, &dims, Some(1));
    let [weight, bias] = head_parameters(builder, weights, presence.as_ref());
    let bias =
        if presence.is_some() { spec.mean_with_mirror_images(builder, &bias, &[spec.maps()], None) } else { bias };
    [features, weight, bias]
}

/// The head's weight and bias; with a presence head a bias for each photo.
fn head_parameters(
    builder: &mut Builder,
    weights: &HashMap<String, Value>,
    presence: Option<&(Presence, Value)>,
) -> [Value; 2] {
    builder.scope("head");
    let [weight, bias] = tensors(weights, "out").map(Clone::clone);
    let Some((presence, _)) = presence else { return [weight, bias] };
    let gate = presence.gate(builder);
    [weight, builder.node("Add", &[&gate, &bias], vec![])]
}

/// Label maps, from the head's input.
fn label_features(builder: &mut Builder, spec: &Spec, features: &Value, [weight, bias]: [&Value; 2]) -> Value {
    let attributes = vec![photo(spec), Attribute::int("scale", spec.logit_scale as i64)];
    let label_map = builder.native("HeadLabels", &[features, weight, bias], attributes, 2).remove(0);
    enlarge(builder, spec, label_map)
}

/// As [`Spec::gather`].
fn gather(builder: &mut Builder, spec: &Spec, photos: &Value) -> Value {
    if spec.stride == 1 {
        return photos.clone();
    }
    builder.scope("input");
    builder.native("GatherSquares", &[photos], vec![], 1).remove(0)
}

/// As [`Spec::enlarge`].
fn enlarge(builder: &mut Builder, spec: &Spec, label_map: Value) -> Value {
    if !spec.enlarges_labels() {
        return label_map;
    }
    builder.scope("label_map");
    builder.native("EnlargeLabels", &[&label_map], vec![], 1).remove(0)
}

/// Weights and moments after a step of Adam.
pub(super) fn adam(
    builder: &mut Builder,
    gradient: &Value,
    [step, learning_rate]: [&Value; 2],
    [weights, first, second]: [&Value; 3],
    groups: Option<&[Value; 2]>,
) -> [Value; 3] {
    let mut inputs = vec![gradient, weights, first, second, step, learning_rate];
    inputs.extend(groups.into_iter().flatten());
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
    /// The presence head, if there is one, and the maps that it reads.
    presence: Option<(Presence, Value)>,
    layers: Vec<Layer>,
    /// Mean and variance of every normalised layer by its name.
    statistics: HashMap<String, [Value; 2]>,
}

/// Whether maps that are not u8 are bf16.
fn is_narrow(precision: Precision) -> bool {
    matches!(precision, Precision::Bf16 | Precision::Int8)
}

/// An operator's name for maps of this precision.
fn operator(precision: Precision, name: &str) -> String {
    format!("{}{name}", if is_narrow(precision) { "Bf16" } else { "" })
}

/// The forward pass up to the head: the precision is that of the maps, and of the last ones, which the head reads.
fn forward(
    builder: &mut Builder,
    spec: &Spec,
    photos: &Value,
    weights: &HashMap<String, Value>,
    [precision, of_last]: [Precision; 2],
    constants: Constants<'_>,
) -> Passed {
    let photos = gather(builder, spec, photos);
    let (levels, last) = (spec.channels.len(), int8::last_layer(spec));
    let normalised = parameters::statistics(spec).into_iter().collect();
    let (layers, statistics) = (Vec::new(), HashMap::new());
    let is_last_wide = of_last != precision;
    let mut pass =
        NativePass { builder, weights, precision, constants, last, is_last_wide, normalised, layers, statistics };
    let (mut maps, mut activation) = match &spec.encoder {
        None => (pass.down(levels, &photos), Activation::Relu),
        Some(encoder) => (pass.encode(encoder, &photos, [spec.map_rows(), spec.map_columns()]), Activation::None),
    };
    let mut x = maps.pop().expect("there is a lowest level");
    let presence = spec.presence.then(|| (pass.presence(&x, spec.maps()), x.clone()));
    for (level, skip) in (1..).zip(maps.into_iter().rev()) {
        x = pass.ascend(level, x, skip, activation);
        x = pass.convolution(&format!("up{level}b"), vec![x], true);
        activation = Activation::Relu;
    }
    Passed { features: x, presence, layers: pass.layers, statistics: pass.statistics }
}

impl NativePass<'_> {
    /// The transposed convolution of a level's maps, and the convolution over its output and the skip connection.
    fn ascend(&mut self, level: usize, x: Value, skip: Value, activation: Activation) -> Value {
        match &mut self.constants {
            Constants::Int8(int8) => {
                let layer_of = |maps| self.layers.iter().find(|it| it.output() == maps).and_then(Layer::name);
                return int8.up(self.builder, level, [&x, &skip].map(|it| (it, layer_of(it))));
            }
            Constants::Tensors(tensors) if is_narrow(self.precision) => {
                let layers = parameters::up_layers(tensors, level);
                if layers.are_fewer_as_one() {
                    return self.up_skip(level, [&x, &skip], layers);
                }
            }
            _ => {}
        }
        let x = self.up(&format!("up{level}t"), x, activation);
        self.convolution(&format!("up{level}a"), vec![x, skip], false)
    }

    /// The two as one.
    fn up_skip(&mut self, level: usize, maps: [&Value; 2], layers: UpLayers<'_>) -> Value {
        let name = format!("up{level}a");
        self.builder.scope(&name);
        let (out, composed) = (layers.bias.len(), layers.composed());
        let depth = composed.weights.len() / PHASES / out;
        let weight = self.builder.weight(&format!("{name}/weight"), &[PHASES, depth, out], &composed.weights);
        let bias = self.builder.weight(&format!("{name}/bias"), &[PHASES, EDGES, out], &composed.bias);
        self.node("UpSkipConvolution", &[maps[0], maps[1], &weight, &bias], vec![])
    }

    /// Adds a layer's operator.
    fn node(&mut self, name: &str, inputs: &[&Value], attributes: Vec<Attribute>) -> Value {
        self.builder.native(&operator(self.precision, name), inputs, attributes, 1).remove(0)
    }

    /// The way down: the maps of each level, top to bottom.
    fn down(&mut self, levels: usize, photos: &Value) -> Vec<Value> {
        let x = self.photos("down1a", photos);
        let mut maps = vec![self.convolution("down1b", vec![x], true)];
        for level in 2..=levels {
            let x = self.pool(level, maps[level - 2].clone());
            let x = self.convolution(&format!("down{level}a"), vec![x], false);
            maps.push(self.convolution(&format!("down{level}b"), vec![x], true));
        }
        maps
    }

    /// The encoder, whose stem's maps have so many rows and columns: the maps that each resolution hands on, top to bottom.
    fn encode(&mut self, encoder: &Encoder, photos: &Value, mut size: [usize; 2]) -> Vec<Value> {
        let mut taps = Vec::new();
        let mut x = self.stem(encoder, photos);
        let (mut input, mut activation) = (encoder.stem, Activation::Relu6);
        for (block, number) in encoder.blocks.iter().zip(1..) {
            let Block { kernel, stride, inner, out } = *block;
            if stride == 2 {
                taps.push(x.clone());
            }
            let window = Window { kernel, stride, before: encoder.padding.before(kernel, stride) };
            let is_prediction = !matches!(self.constants, Constants::None);
            if is_prediction && Inverted::is_worthwhile([size[0], size[1], inner]) {
                x = self.inverted(number, x, inner != input, window);
            } else {
                let residual = block.is_residual(input).then(|| x.clone());
                if inner != input {
                    x = self.pointwise(&encoder::expand(number), x, [activation, Activation::Relu6], None);
                    activation = Activation::Relu6;
                }
                x = self.depthwise(&encoder::depthwise(number), x, activation, window);
                x = self.pointwise(&encoder::project(number), x, [Activation::Relu6, Activation::None], residual);
            }
            size = size.map(|it| it.div_ceil(stride));
            (input, activation) = (out, Activation::None);
        }
        taps.push(x);
        taps
    }

    /// A block of the encoder as one layer.
    fn inverted(&mut self, number: usize, x: Value, is_expanded: bool, window: Window) -> Value {
        let name = encoder::project(number);
        self.builder.scope(&name);
        let of = |layer: &str| tensors(self.weights, layer);
        let mut all = vec![&x];
        all.extend(of(&encoder::depthwise(number)));
        all.extend(of(&name));
        if is_expanded {
            all.extend(of(&encoder::expand(number)));
        }
        let output = self.node("InvertedResidual", &all, window_attributes(window));
        self.layers.push(Layer::Pointwise { name, input: x, activation: Activation::None, output: output.clone() });
        output
    }

    /// The photos' colours are brought to the encoder's by the kernel and the bias; `fill` does so beyond the edges.
    fn stem(&mut self, encoder: &Encoder, photos: &Value) -> Value {
        self.builder.scope(STEM);
        let [weight, bias] = tensors(self.weights, STEM);
        let [mean, deviation] = encoder.colors(self.builder);
        let kernel = encoder.spread_stem(self.builder, weight);
        let kernel = self.builder.node("Div", &[&kernel, &deviation], vec![]);
        let of_mean = self.builder.node("Mul", &[&kernel, &mean], vec![]);
        let of_mean = self.builder.reduce("ReduceSum", &of_mean, &[1, 2, 3], false);
        let zeros = self.normalised.get(STEM).map(|&channels| self.builder.floats(&vec![0.0; channels]));
        let bias = self.builder.node("Sub", &[zeros.as_ref().unwrap_or(bias), &of_mean], vec![]);
        let of_output = if zeros.is_some() { Activation::None } else { Activation::Relu6 };
        let attributes = vec![of_output.attribute("activation"), encoder.fill()];
        let output = self.node("PhotoConvolution", &[photos, &kernel, &bias], attributes);
        let (encoder, photos) = (encoder.clone(), photos.clone());
        self.layers.push(Layer::Stem { encoder, photos, kernel, output: output.clone() });
        self.batch_norm(STEM, output, Activation::Relu6, None)
    }

    /// A 1x1 convolution with the activations of its input and its output, or a residual sum in place of the latter.
    fn pointwise(&mut self, name: &str, input: Value, of: [Activation; 2], residual: Option<Value>) -> Value {
        let [activation, of_output] = of;
        let mut inputs = vec![&input];
        let normalised = self.normalised.contains_key(name);
        inputs.extend(residual.iter().filter(|_| !normalised));
        let output = self.convolve("PointwiseConvolution", name, &inputs, |normalised| {
            vec![if normalised { Activation::None } else { of_output }.attribute("activation")]
        });
        self.layers.push(Layer::Pointwise { name: name.to_owned(), input, activation, output: output.clone() });
        self.batch_norm(name, output, of_output, residual)
    }

    /// A depthwise convolution with `ReLU6`.
    fn depthwise(&mut self, name: &str, input: Value, activation: Activation, window: Window) -> Value {
        let output = self.convolve("DepthwiseConvolution", name, &[&input], |normalised| {
            let of_output = if normalised { Activation::None } else { Activation::Relu6 };
            [window_attributes(window), vec![of_output.attribute("activation")]].concat()
        });
        let (owned, output_kept) = (name.to_owned(), output.clone());
        self.layers.push(Layer::Depthwise { name: owned, input, activation, window, output: output_kept });
        self.batch_norm(name, output, Activation::Relu6, None)
    }

    fn photos(&mut self, name: &str, photos: &Value) -> Value {
        if let Constants::Int8(int8) = &mut self.constants {
            return int8.photos(self.builder, name, photos);
        }
        let output = self.convolve("PhotoConvolution", name, &[photos], plain);
        let (owned, photos) = (name.to_owned(), photos.clone());
        self.layers.push(Layer::Photos { name: owned, photos, output: output.clone() });
        self.batch_norm(name, output, Activation::Relu, None)
    }

    fn convolution(&mut self, name: &str, inputs: Vec<Value>, is_relu: bool) -> Value {
        if let Constants::Int8(int8) = &mut self.constants
            && int8.has(&inputs[0])
        {
            return int8.convolution(self.builder, name, &inputs[0]);
        }
        if let Some(output) = self.winograd(name, &inputs) {
            return output;
        }
        let is_wide = self.is_last_wide && name == self.last;
        let operator = if is_wide { "LastConvolution" } else { "Convolution" };
        let output = self.convolve(operator, name, &inputs.iter().collect::<Vec<_>>(), plain);
        self.layers.push(Layer::Convolution { name: name.to_owned(), inputs, is_relu, output: output.clone() });
        self.batch_norm(name, output, Activation::Relu, None)
    }

    /// A 3x3 convolution of f32 maps with known weights, if it is faster by Winograd's algorithm.
    fn winograd(&mut self, name: &str, inputs: &[Value]) -> Option<Value> {
        let Constants::Tensors(known) = &self.constants else { return None };
        let (weight, out) = (known[&format!("{name}.weight")], known[&format!("{name}.bias")].len());
        let channels = weight.len() / TAPS / out;
        if is_narrow(self.precision) || !winograd::is_worthwhile(channels) {
            return None;
        }
        self.builder.scope(name);
        let points = winograd::at_points(weight, out);
        let weight = self.builder.weight(&format!("{name}/points"), &[TILE_POINTS, channels, out], &points);
        let [_, bias] = tensors(self.weights, name);
        let mut all = vec![&inputs[0], &weight, bias];
        all.extend(inputs.get(1));
        Some(self.node("WinogradConvolution", &all, vec![]))
    }

    /// A convolution of one or two inputs with its bias; without it, and without the activation, if a normalisation
    /// follows, which is what `attributes` is told.
    fn convolve(
        &mut self,
        operator: &str,
        name: &str,
        inputs: &[&Value],
        attributes: impl FnOnce(bool) -> Vec<Attribute>,
    ) -> Value {
        self.builder.scope(name);
        let [weight, bias] = tensors(self.weights, name);
        let zeros = self.normalised.get(name).map(|&channels| self.builder.floats(&vec![0.0; channels]));
        let mut all = vec![inputs[0], weight, zeros.as_ref().unwrap_or(bias)];
        all.extend(inputs.get(1));
        self.node(operator, &all, attributes(zeros.is_some()))
    }

    /// The normalisation, with its activation or a residual sum, of a convolution's output, if the layer has one.
    fn batch_norm(&mut self, name: &str, input: Value, activation: Activation, residual: Option<Value>) -> Value {
        if !self.normalised.contains_key(name) {
            return input;
        }
        let [scale, bias] = ["scale", "bias"].map(|kind| &self.weights[&format!("{name}.{kind}")]);
        let mut inputs = vec![&input, scale, bias];
        inputs.extend(&residual);
        let operator = operator(self.precision, "BatchNorm");
        let found = self.builder.native(&operator, &inputs, vec![activation.attribute("activation")], 3);
        let [output, mean, variance] = <[Value; 3]>::try_from(found).expect("there are 3");
        let statistics = [mean, variance];
        self.statistics.insert(name.to_owned(), statistics.clone());
        let (owned, kept) = (name.to_owned(), output.clone());
        self.layers.push(Layer::BatchNorm { name: owned, input, residual, statistics, output: kept });
        output
    }

    fn presence(&mut self, lowest: &Value, maps: usize) -> Presence {
        self.builder.scope(PRESENCE);
        let wide = match &self.constants {
            Constants::Int8(int8) if int8.has(lowest) => int8.wide(self.builder, lowest),
            _ if is_narrow(self.precision) => self.builder.wide_bf16(lowest),
            _ => lowest.clone(),
        };
        let pooled = self.builder.reduce("ReduceMean", &wide, &[1, 2], false);
        Presence::new(self.builder, pooled, self.weights, maps)
    }

    fn pool(&mut self, level: usize, input: Value) -> Value {
        if let Constants::Int8(int8) = &mut self.constants
            && int8.has(&input)
        {
            return int8.pool(self.builder, level, &input);
        }
        self.builder.scope(format!("pool{level}"));
        let output = self.node("MaxPool", &[&input], vec![]);
        self.layers.push(Layer::Pool { input, output: output.clone() });
        output
    }

    fn up(&mut self, name: &str, input: Value, activation: Activation) -> Value {
        self.builder.scope(name);
        let [weight, bias] = tensors(self.weights, name);
        let output = self.node("UpConvolution", &[&input, weight, bias], vec![]);
        self.layers.push(Layer::Up { name: name.to_owned(), input, activation, output: output.clone() });
        output
    }
}

/// A 3x3 convolution has a `ReLU` of its own unless a normalisation follows.
fn plain(normalised: bool) -> Vec<Attribute> {
    vec![Attribute::int("plain", i64::from(normalised))]
}

fn window_attributes(window: Window) -> Vec<Attribute> {
    vec![Attribute::int("stride", window.stride as i64), Attribute::ints("pads", &[window.before as i64; 2])]
}

/// Gradients found so far in the backward pass.
struct Back {
    precision: Precision,
    /// Of the parameters, by name.
    gradients: HashMap<String, Value>,
    of_maps: HashMap<Value, Value>,
}

impl Back {
    /// Adds an operator.
    fn nodes(
        &self,
        builder: &mut Builder,
        name: &str,
        inputs: &[&Value],
        attributes: Vec<Attribute>,
        outputs: usize,
    ) -> Vec<Value> {
        builder.native(&operator(self.precision, name), inputs, attributes, outputs)
    }

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

    /// Keeps a gradient of maps that go to several layers.
    fn add(&mut self, builder: &mut Builder, maps: &Value, gradient: Value) {
        let sum = match self.of_maps.remove(maps) {
            Some(before) if self.precision == Precision::Bf16 => {
                self.nodes(builder, "Add", &[&before, &gradient], vec![], 1).remove(0)
            }
            Some(before) => builder.node("Add", &[&before, &gradient], vec![]),
            None => gradient,
        };
        self.of_maps.insert(maps.clone(), sum);
    }

    /// As [`add`](Self::add); what is there already is the presence head's, f32 `[batch, 1, 1, channels]`, before the
    /// maps' own activation.
    fn add_lowest(&mut self, builder: &mut Builder, maps: &Value, activation: Activation, gradient: Value) {
        let Some(mut before) = self.of_maps.remove(maps) else {
            self.of_maps.insert(maps.clone(), gradient);
            return;
        };
        let is_narrow = self.precision == Precision::Bf16;
        let wide = |builder: &mut Builder, it: &Value| if is_narrow { builder.wide_bf16(it) } else { it.clone() };
        if activation != Activation::None {
            let (zero, maps) = (builder.scalar(0.0), wide(builder, maps));
            let positive = builder.node("Greater", &[&maps, &zero], vec![]);
            let positive = builder.cast(&positive, FLOAT);
            before = builder.node("Mul", &[&positive, &before], vec![]);
        }
        let gradient = wide(builder, &gradient);
        let sum = builder.node("Add", &[&before, &gradient], vec![]);
        let sum = if is_narrow { self.nodes(builder, "Narrow", &[&sum], vec![], 1).remove(0) } else { sum };
        self.of_maps.insert(maps.clone(), sum);
    }

    fn through(&mut self, builder: &mut Builder, weights: &HashMap<String, Value>, layer: &Layer) {
        match layer {
            Layer::Convolution { name, inputs, is_relu, output } => {
                builder.scope(format!("gradient/{name}"));
                let gradient = self.take(output);
                let mut all = vec![&inputs[0], &gradient, tensors(weights, name)[0]];
                all.extend(inputs.get(1));
                let mask = Attribute::int("mask", i64::from(*is_relu));
                let mut found = self.nodes(builder, "ConvolutionGradient", &all, vec![mask], 2 + inputs.len());
                for (input, gradient) in inputs.iter().zip(found.drain(2..)) {
                    self.of_maps.insert(input.clone(), gradient);
                }
                self.keep(name, found.try_into().expect("weight and bias are left"));
            }
            Layer::Stem { encoder, photos, kernel, output } => {
                builder.scope("gradient/stem");
                let gradient = self.take(output);
                let all = [photos, &gradient, kernel];
                let found = self.nodes(builder, "PhotoConvolutionGradient", &all, vec![encoder.fill()], 2);
                let [of_kernel, of_bias] = <[Value; 2]>::try_from(found).expect("there are 2");
                let of_weight = encoder.stem_gradient(builder, [&of_kernel, &of_bias]);
                self.keep(STEM, [of_weight, of_bias]);
            }
            Layer::Pointwise { name, input, activation, output } => {
                builder.scope(format!("gradient/{name}"));
                let gradient = self.take(output);
                let skip = self.of_maps.remove(input);
                let mut all = vec![input, &gradient, tensors(weights, name)[0]];
                all.extend(&skip);
                let mut found =
                    self.nodes(builder, "PointwiseConvolutionGradient", &all, vec![activation.attribute("mask")], 3);
                self.of_maps.insert(input.clone(), found.remove(2));
                self.keep(name, found.try_into().expect("weight and bias are left"));
            }
            Layer::Depthwise { name, input, activation, window, output } => {
                builder.scope(format!("gradient/{name}"));
                let gradient = self.take(output);
                let all = [input, &gradient, tensors(weights, name)[0]];
                let attributes = [window_attributes(*window), vec![activation.attribute("mask")]].concat();
                let mut found = self.nodes(builder, "DepthwiseConvolutionGradient", &all, attributes, 3);
                self.add(builder, input, found.remove(2));
                self.keep(name, found.try_into().expect("weight and bias are left"));
            }
            Layer::BatchNorm { name, input, residual, statistics: [mean, variance], output } => {
                builder.scope(format!("gradient/{name}"));
                let gradient = self.take(output);
                if let Some(residual) = residual {
                    self.add(builder, residual, gradient.clone());
                }
                let scale = &weights[&format!("{name}.scale")];
                let all = [input, &gradient, scale, mean, variance];
                let found = self.nodes(builder, "BatchNormGradient", &all, vec![], 3);
                let [of_scale, of_bias, of_input] = <[Value; 3]>::try_from(found).expect("there are 3");
                self.of_maps.insert(input.clone(), of_input);
                self.gradients.extend([(format!("{name}.scale"), of_scale), (format!("{name}.bias"), of_bias)]);
            }
            Layer::Photos { name, photos, output } => {
                builder.scope(format!("gradient/{name}"));
                let gradient = self.take(output);
                let all = [photos, &gradient, tensors(weights, name)[0]];
                let found = self.nodes(builder, "PhotoConvolutionGradient", &all, vec![], 2);
                self.keep(name, found.try_into().expect("there are 2"));
            }
            Layer::Pool { input, output } => {
                builder.scope(format!("gradient/{}", output.name()));
                let (gradient, skip) = (self.take(output), self.take(input));
                let found = self.nodes(builder, "MaxPoolGradient", &[input, &gradient, &skip], vec![], 1).remove(0);
                self.of_maps.insert(input.clone(), found);
            }
            Layer::Up { name, input, activation, output } => {
                builder.scope(format!("gradient/{name}"));
                let gradient = self.take(output);
                let all = [input, &gradient, tensors(weights, name)[0]];
                let mut found =
                    self.nodes(builder, "UpConvolutionGradient", &all, vec![activation.attribute("mask")], 3);
                self.add_lowest(builder, input, *activation, found.remove(2));
                self.keep(name, found.try_into().expect("weight and bias are left"));
            }
        }
    }
}
