//! The U-Net and its training step as ONNX graphs: description in, bytes of an `.onnx` file out.
//!
//! | graph | inputs | outputs |
//! | --- | --- | --- |
//! | [`train_step`] | `photos`, `labels`, `step` f32 (1, 2, ...), `learning_rate` f32, [rates], the [state](Spec::state) | `loss`, `pixel_accuracy` f32, the new state, each name behind `new_` |
//! | [`accumulate`] | `photos`, `labels`, `share` f32, `weights`, `gradient`, [rates], `statistics` | `loss`, `pixel_accuracy`, `new_gradient`, `new_statistics` |
//! | [`update`] | `gradient`, `step`, `learning_rate`, [rates], the state | `loss` (0), the new state |
//! | [`evaluation`] | `photos`, `labels`, `weights` | `loss`, `bce` f32, `label_map` |
//! | [`label_maps`] | `photos`; the weights are in the file | `label_map` |
//! | [`predict`] | the same | `label_map`, `probabilities` f32 `[batch, 23, map rows, map columns]` |
//!
//! `photos` are u8 `[batch, rows, columns, 3]`, `label_map` u8 `[batch, rows, columns]`, `labels` u8
//! `[batch, map rows, map columns]`. Weights, moments and what else is carried from step to step are flat f32 vectors, in the
//! order of [`unet::parameters`] and [`unet::statistics`]. The `loss` of a graph that gives new weights is no number where one
//! of them is none. All but [`predict`] come in two dialects with the same inputs and
//! outputs.
//!
//! A network with [batch normalisation](Spec::batch_norm) has two more vectors and two rates, f32 scalars from 0 to 1: in each
//! step `average`, a moving average of the weights, goes by `average_rate` of the way to the new weights, and `statistics`,
//! means and variances of the normalised maps, by `statistics_rate` of the way to those of the batch. The other graphs know
//! no normalisation: it is [folded](unet::fold) into their weights.
//!
//! [rates]: Spec::rates

use std::collections::HashMap;

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::labels::CATEGORY_COUNT;

pub mod builder;
mod native;
pub mod onnx;
mod portable;
pub mod unet;

use builder::{Builder, Dim, Value};
use onnx::{FLOAT, UINT8};

/// Decay of the first moment (Kingma and Ba, 2015, <https://arxiv.org/abs/1412.6980>).
pub const ADAM_BETA_1: f32 = 0.9;
/// Decay of the second moment.
pub const ADAM_BETA_2: f32 = 0.999;
/// Added to the root of the second moment, as Keras does: after the bias correction has gone into the rate.
pub const ADAM_EPSILON: f32 = 1e-7;

/// The operators that a graph is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Standard operators, NCHW: for any ONNX Runtime, on any device.
    Portable,
    /// The operators of [`crate::ops`], NHWC: for CPUs, in this program.
    Native,
}

impl Dialect {
    /// Its name in `run.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Native => "native",
        }
    }
}

/// The numbers that maps are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// Half precision; weights, normalisation, losses and what is summed over pixels in f32: training in the portable dialect
    /// only.
    F16,
    /// bfloat16, sums in f32: label maps in the native dialect only.
    Bf16,
}

impl Precision {
    /// Its name in `run.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

/// What the maps mean and how they are learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Sigmoid maps, mean binary cross-entropy over pixels and maps: the seed's.
    #[default]
    Bce,
    /// Softmax over the maps, mean cross-entropy over pixels.
    Softmax,
}

/// The size, the widths and the head of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Width of the photos that the network sees.
    pub photo_width_px: usize,
    /// Height of the photos that the network sees.
    pub photo_height_px: usize,
    /// What the maps mean.
    pub loss: Loss,
    /// Channels of the levels, top to bottom: the first 8 or 16, all multiples of 8.
    #[serde(default = "Spec::seed_channels")]
    pub channels: Vec<usize>,
    /// Pixels of a photo, each way, that one pixel of the top level stands for, 1 or 2: with 2 the four pixels of a square
    /// go in side by side, as 12 channels.
    #[serde(default = "Spec::seed_stride")]
    pub stride: usize,
    /// Whether the maps of 3x3 convolutions are normalised over the batch while the network is trained (Ioffe and Szegedy,
    /// 2015, <https://arxiv.org/abs/1502.03167>).
    #[serde(default)]
    pub batch_norm: bool,
}

/// How a softmax loss weighs its parts; a loss of sigmoids has none.
#[derive(Debug, Clone, PartialEq)]
pub struct LossWeights {
    /// Weight of a pixel of each category in the cross-entropy.
    pub categories: [f32; CATEGORY_COUNT],
    /// Weight of the Dice part, 0 or more: 1 minus the mean Dice coefficient, 2 sum(p y) / (sum(p) + sum(y)) over all pixels
    /// of the batch, of the categories that are there (Milletari et al., 2016, <https://arxiv.org/abs/1606.04797>).
    pub dice: f32,
}

impl LossWeights {
    /// All pixels alike, nothing but cross-entropy.
    pub const PLAIN: Self = Self { categories: [1.0; CATEGORY_COUNT], dice: 0.0 };
}

impl Spec {
    /// The seed's network for photos of that size.
    #[must_use]
    pub fn seed(photo_width_px: usize, photo_height_px: usize, loss: Loss) -> Self {
        let (channels, stride) = (Self::seed_channels(), Self::seed_stride());
        Self { photo_width_px, photo_height_px, loss, channels, stride, batch_norm: false }
    }

    fn seed_channels() -> Vec<usize> {
        unet::SEED_CHANNELS.to_vec()
    }

    const fn seed_stride() -> usize {
        1
    }

    /// The same network as it is used: its normalisation [folded](unet::fold) into its weights.
    #[must_use]
    pub fn folded(&self) -> Self {
        Self { batch_norm: false, ..self.clone() }
    }

    /// Rows and columns of the network's input are multiples of this: each level below the first halves them.
    fn side_multiple(&self) -> usize {
        self.stride << (self.channels.len() - 1)
    }

    /// Rows of the network's input: the height, up to the next multiple. The rows below the photo are black.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.photo_height_px.next_multiple_of(self.side_multiple())
    }

    /// Columns of the network's input, likewise.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.photo_width_px.next_multiple_of(self.side_multiple())
    }

    /// Rows of the top level's maps, and of labels.
    #[must_use]
    pub fn map_rows(&self) -> usize {
        self.rows() / self.stride
    }

    /// Columns of the top level's maps, and of labels.
    #[must_use]
    pub fn map_columns(&self) -> usize {
        self.columns() / self.stride
    }

    /// Rows and columns of the top level's maps that are photo.
    #[must_use]
    pub fn photo_part(&self) -> [usize; 2] {
        [self.photo_height_px.div_ceil(self.stride), self.photo_width_px.div_ceil(self.stride)]
    }

    /// What is carried from one training step to the next: name and length of each vector.
    #[must_use]
    pub fn state(&self) -> Vec<(&'static str, usize)> {
        let parameters = unet::parameter_count(self);
        let mut state = vec![(WEIGHTS, parameters), ("first_moment", parameters), ("second_moment", parameters)];
        if self.batch_norm {
            state.extend([(AVERAGE, parameters), (STATISTICS, unet::statistics_count(self))]);
        }
        state
    }

    /// Name and length of a sum of gradients.
    #[must_use]
    pub fn gradient(&self) -> (&'static str, usize) {
        (GRADIENT, unet::parameter_count(self))
    }

    /// The names of the rates that a training step takes.
    #[must_use]
    pub fn rates(&self) -> &'static [&'static str] {
        if self.batch_norm { &[AVERAGE_RATE, STATISTICS_RATE] } else { &[] }
    }

    /// The labels of the top level's maps, `[map rows, map columns]`, from those of the canvas, `[rows, columns]`: the middle of
    /// each square.
    #[must_use]
    pub fn map_labels(&self, labels: &[u8]) -> Vec<u8> {
        let rows = labels.chunks_exact(self.columns()).skip(self.stride / 2).step_by(self.stride);
        rows.flat_map(|row| row.iter().skip(self.stride / 2).step_by(self.stride)).copied().collect()
    }

    fn photo_dims(&self) -> [Dim; 4] {
        [Dim::Batch, Dim::Fixed(self.rows()), Dim::Fixed(self.columns()), Dim::Fixed(3)]
    }

    fn label_map_dims(&self) -> [Dim; 3] {
        [Dim::Batch, Dim::Fixed(self.rows()), Dim::Fixed(self.columns())]
    }

    fn label_dims(&self) -> [Dim; 3] {
        [Dim::Batch, Dim::Fixed(self.map_rows()), Dim::Fixed(self.map_columns())]
    }

    /// The part of `[batch, any, map rows, map columns]` that is photo.
    fn real_part(&self, builder: &mut Builder, x: &Value) -> Value {
        let part = self.photo_part();
        if part == [self.map_rows(), self.map_columns()] {
            return x.clone();
        }
        builder.slice(x, &[0, 0], &part.map(|end| end as i64), &[2, 3], &[1, 1])
    }

    /// u8 photos with the pixels that become one side by side, `[batch, map rows, map columns, 3 stride^2]`.
    fn gather(&self, builder: &mut Builder, photos: &Value) -> Value {
        if self.stride == 1 {
            return photos.clone();
        }
        builder.scope("input");
        let [rows, columns, stride] = [self.map_rows(), self.map_columns(), self.stride].map(|it| it as i64);
        let squares = builder.reshape(photos, &[0, rows, stride, columns, 3 * stride]);
        let squares = builder.transpose(&squares, &[0, 1, 3, 2, 4]);
        builder.reshape(&squares, &[0, rows, columns, 3 * stride * stride])
    }

    /// A label map of the size of the maps at that of the photos.
    fn enlarge(&self, builder: &mut Builder, label_map: &Value) -> Value {
        if self.stride == 1 {
            return label_map.clone();
        }
        builder.scope("label_map");
        let [rows, columns, stride] = [self.map_rows(), self.map_columns(), self.stride].map(|it| it as i64);
        let squares = builder.reshape(label_map, &[0, rows, 1, columns, 1]);
        let times = builder.integers(&[1, 1, stride, 1, stride]);
        let squares = builder.node("Expand", &[&squares, &times], vec![]);
        builder.reshape(&squares, &[0, stride * rows, stride * columns])
    }
}

/// Name of the trained weights in the state.
pub const WEIGHTS: &str = "weights";
/// Name of the moving average of the weights in the state.
pub const AVERAGE: &str = "average";
/// Name of the means and variances of normalised maps in the state.
pub const STATISTICS: &str = "statistics";
/// Name of the input that says how far the average goes to the new weights in a step.
pub const AVERAGE_RATE: &str = "average_rate";
/// Name of the input that says how far the statistics go to those of the batch in a step.
pub const STATISTICS_RATE: &str = "statistics_rate";
/// Name of a sum of gradients.
pub const GRADIENT: &str = "gradient";

/// What a dialect finds out about a batch.
struct Learnt {
    /// The mean loss, a scalar.
    loss: Value,
    /// Share of the photos' own pixels that were right, a scalar.
    pixel_accuracy: Value,
    /// Gradient of each parameter by its name, times 1 / `gradient_scale`.
    gradients: HashMap<String, Value>,
    /// What the gradients are to be multiplied by.
    gradient_scale: f32,
    /// Mean and variance, `[channels]` each, of every normalised layer by its name.
    statistics: HashMap<String, [Value; 2]>,
}

/// The training step: forward pass, loss, gradients of all weights, Adam. The native dialect computes in f32 whatever
/// `precision` says.
#[must_use]
pub fn train_step(dialect: Dialect, precision: Precision, spec: &Spec, weights: &LossWeights) -> Vec<u8> {
    let mut graph = Training::new(dialect, precision, spec);
    graph.take_batch();
    graph.take_scalars(&["step", "learning_rate"]);
    graph.take_scalars(spec.rates());
    graph.take_vectors(&spec.state());
    let (loss, gradient) = graph.learn(weights);
    let spoilt = graph.apply(&gradient);
    let loss = graph.builder.node("Add", &[&loss, &spoilt], vec![]);
    graph.builder.output("loss", &loss, FLOAT, &[]);
    let doc =
        "One training step of the U-Net: forward, loss, gradients, Adam. Feed the new weights and moments back in.";
    graph.builder.finish("train_step", doc, &metadata(spec))
}

/// The part of a training step that is done for each of several small batches: the gradient, times the batch's `share` of
/// all photos, is added up. As [`train_step`] with `precision`.
#[must_use]
pub fn accumulate(dialect: Dialect, precision: Precision, spec: &Spec, weights: &LossWeights) -> Vec<u8> {
    let mut graph = Training::new(dialect, precision, spec);
    graph.take_batch();
    graph.take_scalars(&["share"]);
    graph.take_vectors(&[spec.state()[0], spec.gradient()]);
    if spec.batch_norm {
        graph.take_scalars(&[STATISTICS_RATE]);
        graph.take_vectors(&[(STATISTICS, unet::statistics_count(spec))]);
    }
    let (loss, gradient) = graph.learn(weights);
    graph.builder.output("loss", &loss, FLOAT, &[]);
    graph.builder.scope("sum");
    let part = graph.builder.node("Mul", &[&gradient, &graph.inputs["share"]], vec![]);
    let sum = graph.builder.node("Add", &[&graph.inputs[GRADIENT], &part], vec![]);
    graph.give(GRADIENT, &sum);
    graph.builder.finish(
        "accumulate",
        "Adds the gradient of a part of a batch to those of the others.",
        &metadata(spec),
    )
}

/// The end of a training step whose gradient was [accumulated](accumulate): Adam and the average of the weights.
#[must_use]
pub fn update(dialect: Dialect, spec: &Spec) -> Vec<u8> {
    let mut graph = Training::new(dialect, Precision::F32, spec);
    graph.take_scalars(&["step", "learning_rate"]);
    graph.take_vectors(&[spec.gradient()]);
    let state: Vec<_> = spec.state().into_iter().filter(|(name, _)| *name != STATISTICS).collect();
    graph.take_vectors(&state);
    if spec.batch_norm {
        graph.take_scalars(&[AVERAGE_RATE]);
    }
    let gradient = graph.inputs[GRADIENT].clone();
    let spoilt = graph.apply(&gradient);
    graph.builder.output("loss", &spoilt, FLOAT, &[]);
    graph.builder.finish("update", "Adam, for a gradient that was added up.", &metadata(spec))
}

/// A graph of training under construction.
struct Training<'a> {
    builder: Builder,
    dialect: Dialect,
    spec: &'a Spec,
    inputs: HashMap<&'static str, Value>,
    lengths: HashMap<&'static str, usize>,
}

impl<'a> Training<'a> {
    fn new(dialect: Dialect, precision: Precision, spec: &'a Spec) -> Self {
        Self { builder: Builder::new(precision), dialect, spec, inputs: HashMap::new(), lengths: HashMap::new() }
    }

    fn take_batch(&mut self) {
        for (name, dims) in [("photos", &self.spec.photo_dims()[..]), ("labels", &self.spec.label_dims()[..])] {
            self.inputs.insert(name, self.builder.input(name, UINT8, dims));
        }
    }

    fn take_scalars(&mut self, names: &[&'static str]) {
        for name in names {
            self.inputs.insert(name, self.builder.input(name, FLOAT, &[]));
        }
    }

    fn take_vectors(&mut self, vectors: &[(&'static str, usize)]) {
        for &(name, len) in vectors {
            self.inputs.insert(name, self.builder.input(name, FLOAT, &[Dim::Fixed(len)]));
            self.lengths.insert(name, len);
        }
    }

    /// The new value of a vector that went in.
    fn give(&mut self, name: &'static str, value: &Value) {
        self.builder.output(&format!("new_{name}"), value, FLOAT, &[Dim::Fixed(self.lengths[name])]);
    }

    /// Forward pass, loss and gradients: gives `pixel_accuracy` and the new statistics, and returns the loss and its gradient.
    fn learn(&mut self, weights: &LossWeights) -> (Value, Value) {
        let by_name = unpack(&mut self.builder, self.spec, &self.inputs[WEIGHTS]);
        let learn = match self.dialect {
            Dialect::Portable => portable::learn,
            Dialect::Native => native::learn,
        };
        let batch = [&self.inputs["photos"], &self.inputs["labels"]];
        let learnt = learn(&mut self.builder, self.spec, batch, &by_name, weights);
        self.builder.output("pixel_accuracy", &learnt.pixel_accuracy, FLOAT, &[]);
        if self.spec.batch_norm {
            self.builder.scope(STATISTICS);
            let of_layers = unet::statistics(self.spec).into_iter().flat_map(|(layer, _)| &learnt.statistics[&layer]);
            let of_batch = flat(&mut self.builder, of_layers);
            self.move_towards(STATISTICS, &of_batch, STATISTICS_RATE);
        }
        self.builder.scope("gradient");
        let names = unet::parameters(self.spec).into_iter().map(|it| it.name);
        let gradient = flat(&mut self.builder, names.map(|name| &learnt.gradients[&name]));
        if learnt.gradient_scale == 1.0 {
            return (learnt.loss, gradient);
        }
        let scale = self.builder.scalar(learnt.gradient_scale);
        (learnt.loss, self.builder.node("Mul", &[&gradient, &scale], vec![]))
    }

    /// Adam, and the average of the weights. Returns 0, or what is no number where a new weight is none: kernels that take the
    /// larger of two numbers lose it on the way to the next loss.
    fn apply(&mut self, gradient: &Value) -> Value {
        self.builder.scope("adam");
        let adam = match self.dialect {
            Dialect::Portable => portable::adam,
            Dialect::Native => native::adam,
        };
        let [step, learning_rate] = ["step", "learning_rate"].map(|name| &self.inputs[name]);
        let names = [WEIGHTS, "first_moment", "second_moment"];
        let updated = adam(&mut self.builder, gradient, [step, learning_rate], names.map(|name| &self.inputs[name]));
        for (name, value) in names.into_iter().zip(&updated) {
            self.give(name, value);
        }
        if self.spec.batch_norm {
            self.builder.scope(AVERAGE);
            self.move_towards(AVERAGE, &updated[0], AVERAGE_RATE);
        }
        self.builder.scope("spoilt");
        let zero = self.builder.scalar(0.0);
        let sum = self.builder.reduce("ReduceSum", &updated[0], &[0], false);
        self.builder.node("Mul", &[&sum, &zero], vec![])
    }

    /// Gives the vector `name` moved by a rate of the way to `to`.
    fn move_towards(&mut self, name: &'static str, to: &Value, rate: &str) {
        let from = &self.inputs[name];
        let way = self.builder.node("Sub", &[to, from], vec![]);
        let way = self.builder.node("Mul", &[&way, &self.inputs[rate]], vec![]);
        let moved = self.builder.node("Add", &[from, &way], vec![]);
        self.give(name, &moved);
    }
}

/// Tensors as one flat vector.
fn flat<'a>(builder: &mut Builder, tensors: impl Iterator<Item = &'a Value>) -> Value {
    let flattened: Vec<Value> = tensors.map(|tensor| builder.reshape(tensor, &[-1])).collect();
    builder.concat(&flattened.iter().collect::<Vec<_>>(), 0)
}

/// Losses over the photos' own pixels and the label maps, for given weights of the [folded](Spec::folded) network.
#[must_use]
pub fn evaluation(dialect: Dialect, spec: &Spec) -> Vec<u8> {
    let spec = &spec.folded();
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let labels = builder.input("labels", UINT8, &spec.label_dims());
    let weights = builder.input(WEIGHTS, FLOAT, &[Dim::Fixed(unet::parameter_count(spec))]);
    let by_name = unpack(&mut builder, spec, &weights);
    let evaluate = match dialect {
        Dialect::Portable => portable::evaluate,
        Dialect::Native => native::evaluate,
    };
    let [loss, bce, label_map] = evaluate(&mut builder, spec, [&photos, &labels], &by_name);
    builder.output("loss", &loss, FLOAT, &[]);
    builder.output("bce", &bce, FLOAT, &[]);
    let label_map = spec.enlarge(&mut builder, &label_map);
    builder.output("label_map", &label_map, UINT8, &spec.label_map_dims());
    builder.finish("evaluation", "Losses and label maps of the U-Net for given weights.", &metadata(spec))
}

/// The network for use in this program: photos in, label maps out, the weights (flat, folded) inside. The portable dialect
/// computes in f32 whatever `precision` says.
#[must_use]
pub fn label_maps(dialect: Dialect, precision: Precision, spec: &Spec, weights: &[f32]) -> Vec<u8> {
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let by_name = initializers(&mut builder, spec, weights);
    let label_map = match dialect {
        Dialect::Portable => portable::label(&mut builder, spec, &photos, &by_name),
        Dialect::Native => native::label(&mut builder, spec, &photos, &by_name, precision),
    };
    let label_map = spec.enlarge(&mut builder, &label_map);
    builder.output("label_map", &label_map, UINT8, &spec.label_map_dims());
    builder.finish("label_maps", "U-Net for fashion parsing: photos to label maps.", &metadata(spec))
}

/// The network for use anywhere: photos in, probabilities and label maps out, the weights (flat, folded) inside.
#[must_use]
pub fn predict(spec: &Spec, weights: &[f32]) -> Vec<u8> {
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let by_name = initializers(&mut builder, spec, weights);
    let [label_map, probabilities] = portable::predict(&mut builder, spec, &photos, &by_name);
    let label_map = spec.enlarge(&mut builder, &label_map);
    builder.output("label_map", &label_map, UINT8, &spec.label_map_dims());
    let [batch, rows, columns] = spec.label_dims();
    builder.output("probabilities", &probabilities, FLOAT, &[batch, Dim::Fixed(CATEGORY_COUNT), rows, columns]);
    let doc = "U-Net for fashion parsing: photos u8 [batch, rows, columns, 3] to a category for each pixel.";
    builder.finish("predict", doc, &metadata(spec))
}

/// Size and head of the network in a [`predict`] file, and its flat weights.
///
/// # Errors
/// What is wrong with the file, in words.
pub fn read_predict(file: &[u8]) -> Result<(Spec, Vec<f32>), String> {
    let model = onnx::Model::decode(file).map_err(|cause| format!("is not a whole ONNX file ({cause})"))?;
    let spec = model.metadata_props.iter().find(|it| it.key == SPEC_KEY).ok_or("is not a model of lookbook")?;
    let spec: Spec =
        serde_json::from_str(&spec.value).map_err(|cause| format!("its '{SPEC_KEY}' is wrong ({cause})"))?;
    let graph = model.graph.ok_or("holds no graph")?;
    let mut weights = Vec::with_capacity(unet::parameter_count(&spec));
    for parameter in unet::parameters(&spec) {
        let tensor = graph.initializer.iter().find(|it| it.name == parameter.name);
        let tensor = tensor.ok_or_else(|| format!("lacks the tensor '{}'", parameter.name))?;
        if tensor.raw_data.len() != 4 * parameter.len() {
            return Err(format!("its tensor '{}' is of another size", parameter.name));
        }
        weights.extend(tensor.raw_data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
    }
    Ok((spec, weights))
}

/// Flat weights as named constants.
fn initializers(builder: &mut Builder, spec: &Spec, mut weights: &[f32]) -> HashMap<String, Value> {
    let mut by_name = HashMap::new();
    for parameter in unet::parameters(spec) {
        let (own, rest) = weights.split_at(parameter.len());
        let value = builder.weight(&parameter.name, &parameter.dims, own);
        by_name.insert(parameter.name, value);
        weights = rest;
    }
    by_name
}

/// The flat weights as the network's tensors.
fn unpack(builder: &mut Builder, spec: &Spec, weights: &Value) -> HashMap<String, Value> {
    builder.scope("unpack");
    let parameters = unet::parameters(spec);
    let sizes: Vec<usize> = parameters.iter().map(unet::Parameter::len).collect();
    let parts = builder.split(weights, &sizes, 0);
    let shaped = parameters.into_iter().zip(parts).map(|(parameter, part)| {
        let dims: Vec<i64> = parameter.dims.iter().map(|&dim| dim as i64).collect();
        (parameter.name, builder.reshape(&part, &dims))
    });
    shaped.collect()
}

/// What a user of the file needs to know about it.
fn metadata(spec: &Spec) -> Vec<(&'static str, String)> {
    let layout: Vec<_> = unet::parameters(spec).into_iter().map(|it| serde_json::json!([it.name, it.dims])).collect();
    vec![
        (SPEC_KEY, serde_json::to_string(spec).expect("a spec is plain data")),
        ("lookbook.weights", serde_json::Value::from(layout).to_string()),
        ("lookbook.categories", crate::labels::CATEGORIES.join(",")),
    ]
}

/// Metadata key of the [`Spec`] as JSON, in the ONNX files and in `weights.safetensors`.
pub const SPEC_KEY: &str = "lookbook.spec";
