//! The U-Net and its training step as ONNX graphs: takes a description, returns the bytes of an `.onnx` file.
//!
//! | graph | inputs | outputs |
//! | --- | --- | --- |
//! | [`train_step`] | `photos`, `labels`, `step` f32 (1, 2, ...), `learning_rate` f32, [rates], the [state](Spec::state) | `loss`, `pixel_accuracy` f32, the new state, each name prefixed with `new_` |
//! | [`accumulate`] | `photos`, `labels`, `share` f32, `weights`, `gradient`, [rates], `statistics` | `loss`, `pixel_accuracy`, `new_gradient`, `new_statistics` |
//! | [`update`] | `gradient`, `step`, `learning_rate`, [rates], the state | `loss` (0), the new state |
//! | [`evaluation`] | `photos`, `labels`, `weights` | `loss`, `bce` f32, `label_map` |
//! | [`label_maps`], [`label_maps_in_int8`] | `photos`; the weights are in the file | `label_map` |
//! | [`figures`] | the same | least, largest and mean of each channel of the [`quantised_maps`] by their names, f32 `[3, channels]` |
//! | [`predict`] | the same | `label_map`, `probabilities` f32 `[batch, maps, map rows, map columns]` |
//!
//! `photos` are u8 `[batch, rows, columns, 3]`, `label_map` u8 `[batch, label map rows, label map columns]`, `labels` u8
//! `[batch, map rows, map columns]`. Weights, moments and everything else that is carried from step to step are flat f32 vectors, in the
//! order of [`parameters::parameters`] and [`parameters::statistics`]. The `loss` of a graph that outputs new weights
//! is NaN if any of them is NaN or infinite. All graphs but [`predict`] come in several dialects with the same inputs and
//! outputs.
//!
//! A network with [batch normalisation](Spec::batch_norm) has two more vectors and two rates, f32 scalars from 0 to 1.
//! In each step `average`, a moving average of the weights, moves towards the new weights by the fraction
//! `average_rate`, and `statistics`, the means and variances of the normalised maps, towards those of the batch by the
//! fraction `statistics_rate`. The other graphs contain no normalisation: it is [folded](parameters::fold) into their
//! weights.
//!
//! [rates]: Spec::rates

use std::collections::HashMap;

use prost::Message;

pub mod builder;
pub mod encoder;
mod int8;
mod layout;
mod mirror;
mod native;
pub mod onnx;
pub mod parameters;
mod portable;
mod presence;
pub mod spec;
mod stem;
mod unet;

use builder::{Builder, Dim, Value};
pub use int8::{MapRange, Ranges, quantised_maps};
use native::Constants;
use onnx::{FLOAT, UINT8};
pub use spec::{
    ADAM_BETA_1, ADAM_BETA_2, ADAM_EPSILON, AVERAGE, AVERAGE_RATE, Descent, Dialect, GRADIENT, Loss, LossWeights,
    Precision, SEED_CHANNELS, SPEC_KEY, STATISTICS, STATISTICS_RATE, Spec, WEIGHTS,
};

/// Tensors that are concatenated at once: of more, ONNX Runtime's kernel for CUDA uploads an index for each element.
const CONCATENATED: usize = 32;

/// The training step: forward pass, loss, gradients of all weights, Adam. Maps and their gradients have the given
/// precision if the dialect knows it, else f32: the native one bf16, the others f16.
#[must_use]
pub fn train_step(
    dialect: Dialect,
    precision: Precision,
    spec: &Spec,
    weights: &LossWeights,
    descent: Descent,
) -> Vec<u8> {
    let mut graph = Training::new(dialect, precision, spec);
    graph.take_batch();
    graph.take_scalars(&["step", "learning_rate"]);
    graph.take_scalars(spec.rates());
    graph.take_vectors(&spec.state());
    let (loss, gradient) = graph.learn(weights);
    let spoilt = graph.apply(&gradient, descent);
    let loss = graph.builder.node("Add", &[&loss, &spoilt], vec![]);
    graph.builder.output("loss", &loss, FLOAT, &[]);
    let doc =
        "One training step of the U-Net: forward, loss, gradients, Adam. Feed the new weights and moments back in.";
    graph.builder.finish("train_step", doc, &metadata(spec))
}

/// The part of a training step that is repeated for each of several small batches: adds the gradient, multiplied by the
/// batch's `share` of all photos, to the sum. `precision` is used as in [`train_step`].
#[must_use]
pub fn accumulate(dialect: Dialect, precision: Precision, spec: &Spec, weights: &LossWeights) -> Vec<u8> {
    let mut graph = Training::new(dialect, precision, spec);
    graph.take_batch();
    graph.take_scalars(&["share"]);
    graph.take_vectors(&[spec.state()[0], spec.gradient()]);
    if spec.batch_norm {
        graph.take_scalars(&[STATISTICS_RATE]);
        graph.take_vectors(&[(STATISTICS, parameters::statistics_count(spec))]);
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
pub fn update(dialect: Dialect, spec: &Spec, descent: Descent) -> Vec<u8> {
    let mut graph = Training::new(dialect, Precision::F32, spec);
    graph.take_scalars(&["step", "learning_rate"]);
    graph.take_vectors(&[spec.gradient()]);
    let state: Vec<_> = spec.state().into_iter().filter(|(name, _)| *name != STATISTICS).collect();
    graph.take_vectors(&state);
    if spec.batch_norm {
        graph.take_scalars(&[AVERAGE_RATE]);
    }
    let gradient = graph.inputs[GRADIENT].clone();
    let spoilt = graph.apply(&gradient, descent);
    graph.builder.output("loss", &spoilt, FLOAT, &[]);
    graph.builder.finish("update", "Adam, for a gradient that was added up.", &metadata(spec))
}

/// A graph of training under construction.
struct Training<'a> {
    builder: Builder,
    dialect: Dialect,
    precision: Precision,
    spec: &'a Spec,
    inputs: HashMap<&'static str, Value>,
    lengths: HashMap<&'static str, usize>,
}

impl<'a> Training<'a> {
    fn new(dialect: Dialect, precision: Precision, spec: &'a Spec) -> Self {
        let (builder, inputs, lengths) = (Builder::new(dialect, precision), HashMap::new(), HashMap::new());
        Self { builder, dialect, precision, spec, inputs, lengths }
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

    /// Outputs the new value of an input vector.
    fn give(&mut self, name: &'static str, value: &Value) {
        self.builder.output(&format!("new_{name}"), value, FLOAT, &[Dim::Fixed(self.lengths[name])]);
    }

    /// Forward pass, loss and gradients: outputs `pixel_accuracy` and the new statistics, and returns the loss and its
    /// gradient.
    fn learn(&mut self, weights: &LossWeights) -> (Value, Value) {
        let by_name = unpack(&mut self.builder, self.spec, &self.inputs[WEIGHTS]);
        let batch = [&self.inputs["photos"], &self.inputs["labels"]];
        let learnt = match self.dialect {
            Dialect::Portable | Dialect::Cuda => {
                portable::learn(&mut self.builder, self.spec, batch, &by_name, weights)
            }
            Dialect::Native => native::learn(&mut self.builder, self.spec, batch, &by_name, (weights, self.precision)),
        };
        self.builder.output("pixel_accuracy", &learnt.pixel_accuracy, FLOAT, &[]);
        if self.spec.batch_norm {
            self.builder.scope(STATISTICS);
            let of_layers =
                parameters::statistics(self.spec).into_iter().flat_map(|(layer, _)| &learnt.statistics[&layer]);
            let of_batch = flat(&mut self.builder, of_layers);
            self.move_towards(STATISTICS, &of_batch, STATISTICS_RATE);
        }
        self.builder.scope("gradient");
        let names = parameters::parameters(self.spec).into_iter().map(|it| it.name);
        let gradient = flat(&mut self.builder, names.map(|name| &learnt.gradients[&name]));
        if learnt.gradient_scale == 1.0 {
            return (learnt.loss, gradient);
        }
        let scale = self.builder.scalar(learnt.gradient_scale);
        (learnt.loss, self.builder.node("Mul", &[&gradient, &scale], vec![]))
    }

    /// Adam, and the average of the weights. Returns 0, or NaN if a new weight is NaN or infinite: kernels that take
    /// the larger of two numbers would drop a NaN before it reaches the next loss.
    fn apply(&mut self, gradient: &Value, descent: Descent) -> Value {
        self.builder.scope("adam");
        let adam = match self.dialect {
            Dialect::Portable | Dialect::Cuda => portable::adam,
            Dialect::Native => native::adam,
        };
        let [step, learning_rate] = ["step", "learning_rate"].map(|name| &self.inputs[name]);
        let names = [WEIGHTS, "first_moment", "second_moment"];
        let groups = (descent != Descent::PLAIN).then(|| groups(&mut self.builder, self.spec, descent));
        let (rates, state) = ([step, learning_rate], names.map(|name| &self.inputs[name]));
        let updated = adam(&mut self.builder, gradient, rates, state, groups.as_ref());
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

    /// Outputs the vector `name`, moved towards `to` by the fraction `rate`.
    fn move_towards(&mut self, name: &'static str, to: &Value, rate: &str) {
        let from = &self.inputs[name];
        let way = self.builder.node("Sub", &[to, from], vec![]);
        let way = self.builder.node("Mul", &[&way, &self.inputs[rate]], vec![]);
        let moved = self.builder.node("Add", &[from, &way], vec![]);
        self.give(name, &moved);
    }
}

/// Each weight's factor of the learning rate, and its decay: flat vectors.
fn groups(builder: &mut Builder, spec: &Spec, descent: Descent) -> [Value; 2] {
    let mut runs: Vec<(usize, [f32; 2])> = Vec::new();
    for parameter in parameters::parameters(spec) {
        let factor = if encoder::is_layer(&parameter.name) { descent.encoder_rate } else { 1.0 };
        let decay = if parameter.is_kernel() { descent.weight_decay } else { 0.0 };
        match runs.last_mut() {
            Some((len, of_run)) if *of_run == [factor, decay] => *len += parameter.len(),
            _ => runs.push((parameter.len(), [factor, decay])),
        }
    }
    [0, 1].map(|which| {
        let parts: Vec<Value> = runs.iter().map(|(len, of_run)| builder.filled(*len, of_run[which])).collect();
        builder.concat(&parts.iter().collect::<Vec<_>>(), 0)
    })
}

/// Concatenates tensors into one flat vector.
fn flat<'a>(builder: &mut Builder, tensors: impl Iterator<Item = &'a Value>) -> Value {
    let mut parts: Vec<Value> = tensors.map(|tensor| builder.reshape(tensor, &[-1])).collect();
    while parts.len() > 1 {
        let groups = parts.chunks(CONCATENATED);
        parts = groups.map(|group| builder.concat(&group.iter().collect::<Vec<_>>(), 0)).collect();
    }
    parts.remove(0)
}

/// Losses over the photos' own pixels, and the label maps, for given weights of the [folded](Spec::folded) network.
#[must_use]
pub fn evaluation(dialect: Dialect, spec: &Spec) -> Vec<u8> {
    let spec = &spec.folded();
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let labels = builder.input("labels", UINT8, &spec.label_dims());
    let weights = builder.input(WEIGHTS, FLOAT, &[Dim::Fixed(parameters::parameter_count(spec))]);
    let by_name = unpack(&mut builder, spec, &weights);
    let evaluate = match dialect {
        Dialect::Portable | Dialect::Cuda => portable::evaluate,
        Dialect::Native => native::evaluate,
    };
    let [loss, bce, label_map] = evaluate(&mut builder, spec, [&photos, &labels], &by_name);
    builder.output("loss", &loss, FLOAT, &[]);
    builder.output("bce", &bce, FLOAT, &[]);
    builder.output("label_map", &label_map, UINT8, &spec.label_map_dims());
    builder.finish("evaluation", "Losses and label maps of the U-Net for given weights.", &metadata(spec))
}

/// The network for use in this program: photos in, label maps out, with the weights (flat, folded) in the file. The
/// portable dialect always computes in f32, regardless of `precision`, which is not 8-bit integers: those need ranges, see
/// [`label_maps_in_int8`].
#[must_use]
pub fn label_maps(dialect: Dialect, precision: Precision, spec: &Spec, weights: &[f32]) -> Vec<u8> {
    assert!(precision != Precision::Int8, "8-bit integers need ranges");
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let by_name = initializers(&mut builder, spec, weights);
    let label_map = match dialect {
        Dialect::Portable | Dialect::Cuda => portable::label(&mut builder, spec, &photos, &by_name),
        Dialect::Native => {
            let constants = Constants::Tensors(parameters::by_name(spec, weights));
            native::label(&mut builder, spec, &photos, &by_name, (precision, constants))
        }
    };
    builder.output("label_map", &label_map, UINT8, &spec.label_map_dims());
    builder.finish("label_maps", "U-Net for fashion parsing: photos to label maps.", &metadata(spec))
}

/// As [`label_maps`] of the native dialect, in 8-bit integers: `ranges` are those of all [`quantised_maps`].
#[must_use]
pub fn label_maps_in_int8(spec: &Spec, weights: &[f32], ranges: &Ranges) -> Vec<u8> {
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let by_name = initializers(&mut builder, spec, weights);
    let constants = Constants::Int8(int8::Int8::new(spec, weights, ranges));
    let label_map = native::label(&mut builder, spec, &photos, &by_name, (Precision::Int8, constants));
    builder.output("label_map", &label_map, UINT8, &spec.label_map_dims());
    builder.finish("label_maps", "U-Net for fashion parsing in 8-bit integers: photos to label maps.", &metadata(spec))
}

/// The network for finding the ranges of its [`quantised_maps`], in the native dialect, with the weights in the file.
#[must_use]
pub fn figures(spec: &Spec, weights: &[f32]) -> Vec<u8> {
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let by_name = initializers(&mut builder, spec, weights);
    let channels: HashMap<String, usize> =
        parameters::parameters(spec).iter().map(|it| (it.name.clone(), it.dims[0])).collect();
    for (name, figures) in native::figures(&mut builder, spec, &photos, &by_name) {
        let dims = [Dim::Fixed(3), Dim::Fixed(channels[&format!("{name}.bias")])];
        builder.output(&name, &figures, FLOAT, &dims);
    }
    builder.finish("figures", "What numbers the maps of the U-Net take.", &metadata(spec))
}

/// The network for use anywhere: photos in, probabilities and label maps out, with the weights (flat, folded) in the
/// file.
#[must_use]
pub fn predict(spec: &Spec, weights: &[f32]) -> Vec<u8> {
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let by_name = initializers(&mut builder, spec, weights);
    let [label_map, probabilities] = portable::predict(&mut builder, spec, &photos, &by_name);
    builder.output("label_map", &label_map, UINT8, &spec.label_map_dims());
    let [batch, rows, columns] = spec.label_dims();
    builder.output("probabilities", &probabilities, FLOAT, &[batch, Dim::Fixed(spec.maps()), rows, columns]);
    let doc = "U-Net for fashion parsing: photos u8 [batch, rows, columns, 3] to a category for each pixel.";
    builder.finish("predict", doc, &metadata(spec))
}

/// Spec of the network in a [`predict`] file.
///
/// # Errors
/// A description of what is wrong with the file.
pub fn read_spec(file: &[u8]) -> Result<Spec, String> {
    spec_of(&decoded(file)?)
}

fn decoded(file: &[u8]) -> Result<onnx::Model, String> {
    onnx::Model::decode(file).map_err(|cause| format!("is not a complete ONNX file ({cause})"))
}

fn spec_of(model: &onnx::Model) -> Result<Spec, String> {
    let spec = model.metadata_props.iter().find(|it| it.key == SPEC_KEY).ok_or("is not a model of lookbook")?;
    Spec::parse(&spec.value)
}

/// Spec of the network in a [`predict`] file, and its flat weights.
///
/// # Errors
/// A description of what is wrong with the file.
pub fn read_predict(file: &[u8]) -> Result<(Spec, Vec<f32>), String> {
    let model = decoded(file)?;
    let spec = spec_of(&model)?;
    if spec.batch_norm {
        return Err(format!("its '{SPEC_KEY}' has an invalid 'batch_norm': true, but published weights are folded"));
    }
    let graph = model.graph.ok_or("contains no graph")?;
    let mut weights = Vec::with_capacity(parameters::parameter_count(&spec));
    for parameter in parameters::parameters(&spec) {
        let tensor = graph.initializer.iter().find(|it| it.name == parameter.name);
        let tensor = tensor.ok_or_else(|| format!("does not contain the tensor '{}'", parameter.name))?;
        let dims: Vec<i64> = parameter.dims.iter().map(|&dim| dim as i64).collect();
        if tensor.data_type != FLOAT || tensor.dims != dims || tensor.raw_data.len() != 4 * parameter.len() {
            return Err(format!("its tensor '{}' is not one of {dims:?} f32", parameter.name));
        }
        weights.extend(tensor.raw_data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
    }
    parameters::check_finite(&spec, &weights)?;
    Ok((spec, weights))
}

/// Flat weights as named constants.
fn initializers(builder: &mut Builder, spec: &Spec, weights: &[f32]) -> HashMap<String, Value> {
    let mut by_name = HashMap::new();
    let tensors = parameters::by_name(spec, weights);
    for parameter in parameters::parameters(spec) {
        let value = builder.weight(&parameter.name, &parameter.dims, tensors[&parameter.name]);
        by_name.insert(parameter.name, value);
    }
    by_name
}

/// Splits the flat weights into the network's tensors.
fn unpack(builder: &mut Builder, spec: &Spec, weights: &Value) -> HashMap<String, Value> {
    builder.scope("unpack");
    let parameters = parameters::parameters(spec);
    let mut end = 0;
    let shaped = parameters.into_iter().map(|parameter| {
        let begin = end;
        end += parameter.len() as i64;
        // Not a split: on CUDA that uploads an index for each weight at each step.
        let part = builder.slice(weights, &[begin], &[end], &[0], &[1]);
        let dims: Vec<i64> = parameter.dims.iter().map(|&dim| dim as i64).collect();
        (parameter.name, builder.reshape(&part, &dims))
    });
    shaped.collect()
}

/// What a user of the file needs to know about it.
fn metadata(spec: &Spec) -> Vec<(&'static str, String)> {
    let layout: Vec<_> =
        parameters::parameters(spec).into_iter().map(|it| serde_json::json!([it.name, it.dims])).collect();
    // A comma within a name would look like one between names.
    let categories: Vec<String> = spec.labels.categories().iter().map(|it| it.name.replace(',', ";")).collect();
    vec![
        (SPEC_KEY, serde_json::to_string(spec).expect("a spec is plain data")),
        ("lookbook.weights", serde_json::Value::from(layout).to_string()),
        ("lookbook.categories", categories.join(",")),
    ]
}
