//! The U-Net and its training step as ONNX graphs: description in, bytes of an `.onnx` file out.
//!
//! | graph | inputs | outputs |
//! | --- | --- | --- |
//! | [`train_step`] | `photos`, `labels`, `step` f32 (1, 2, ...), `learning_rate` f32, `weights`, `first_moment`, `second_moment` f32 `[486015]` | `loss`, `pixel_accuracy` f32, `new_weights`, `new_first_moment`, `new_second_moment` |
//! | [`evaluation`] | `photos`, `labels`, `weights` | `loss`, `bce` f32, `label_map` |
//! | [`label_maps`] | `photos`; the weights are in the file | `label_map` |
//! | [`predict`] | the same | `label_map`, `probabilities` f32 `[batch, 23, rows, columns]` |
//!
//! `photos` are u8 `[batch, rows, columns, 3]`, `labels` and `label_map` u8 `[batch, rows, columns]`. Weights and moments are
//! flat, in the order of [`unet::parameters`]. All but [`predict`] come in two dialects with the same inputs and outputs.

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

/// The numbers that label maps are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// bfloat16, sums in f32: the native dialect only.
    Bf16,
}

impl Precision {
    /// Its name in `run.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
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

/// The size and the head of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Width of the photos that the network sees.
    pub photo_width_px: usize,
    /// Height of the photos that the network sees.
    pub photo_height_px: usize,
    /// What the maps mean.
    pub loss: Loss,
}

impl Spec {
    /// Rows of the network's input: the height, up to the next multiple of 16. The rows below the photo are black.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.photo_height_px.next_multiple_of(unet::SIDE_MULTIPLE)
    }

    /// Columns of the network's input, likewise.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.photo_width_px.next_multiple_of(unet::SIDE_MULTIPLE)
    }

    fn photo_dims(&self) -> [Dim; 4] {
        [Dim::Batch, Dim::Fixed(self.rows()), Dim::Fixed(self.columns()), Dim::Fixed(3)]
    }

    fn map_dims(&self) -> [Dim; 3] {
        [Dim::Batch, Dim::Fixed(self.rows()), Dim::Fixed(self.columns())]
    }

    /// The part of `[batch, any, rows, columns]` that is photo.
    fn real_part(&self, builder: &mut Builder, x: &Value) -> Value {
        if (self.rows(), self.columns()) == (self.photo_height_px, self.photo_width_px) {
            return x.clone();
        }
        let ends = [self.photo_height_px as i64, self.photo_width_px as i64];
        builder.slice(x, &[0, 0], &ends, &[2, 3], &[1, 1])
    }
}

/// What a training step finds out about a batch.
struct Learnt {
    /// The mean loss, a scalar.
    loss: Value,
    /// Share of the photos' own pixels that were right, a scalar.
    pixel_accuracy: Value,
    /// Gradient of each parameter by its name, times 1 / `gradient_scale`.
    gradients: HashMap<String, Value>,
    /// What the gradients are to be multiplied by.
    gradient_scale: f32,
}

/// The training step: forward pass, loss, gradients of all weights, Adam. `category_weights` weigh the pixels of each
/// category in a softmax loss; 1 for all leaves it plain.
#[must_use]
pub fn train_step(dialect: Dialect, spec: &Spec, category_weights: &[f32; CATEGORY_COUNT]) -> Vec<u8> {
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let labels = builder.input("labels", UINT8, &spec.map_dims());
    let step = builder.input("step", FLOAT, &[]);
    let learning_rate = builder.input("learning_rate", FLOAT, &[]);
    let flat = [Dim::Fixed(unet::PARAMETER_COUNT)];
    let weights = builder.input("weights", FLOAT, &flat);
    let [first, second] = ["first_moment", "second_moment"].map(|name| builder.input(name, FLOAT, &flat));

    let by_name = unpack(&mut builder, &weights);
    let learn = match dialect {
        Dialect::Portable => portable::learn,
        Dialect::Native => native::learn,
    };
    let learnt = learn(&mut builder, spec, [&photos, &labels], &by_name, category_weights);
    builder.scope("adam");
    let names = unet::parameters().into_iter().map(|it| it.name);
    let flattened: Vec<Value> = names.map(|name| builder.reshape(&learnt.gradients[&name], &[-1])).collect();
    let mut gradient = builder.concat(&flattened.iter().collect::<Vec<_>>(), 0);
    if learnt.gradient_scale != 1.0 {
        let scale = builder.scalar(learnt.gradient_scale);
        gradient = builder.node("Mul", &[&gradient, &scale], vec![]);
    }
    let adam = match dialect {
        Dialect::Portable => portable::adam,
        Dialect::Native => native::adam,
    };
    let [weights, first, second] = adam(&mut builder, &gradient, [&step, &learning_rate], [&weights, &first, &second]);

    builder.output("loss", &learnt.loss, FLOAT, &[]);
    builder.output("pixel_accuracy", &learnt.pixel_accuracy, FLOAT, &[]);
    builder.output("new_weights", &weights, FLOAT, &flat);
    builder.output("new_first_moment", &first, FLOAT, &flat);
    builder.output("new_second_moment", &second, FLOAT, &flat);
    let doc =
        "One training step of the U-Net: forward, loss, gradients, Adam. Feed the new weights and moments back in.";
    builder.finish("train_step", doc, &metadata(spec))
}

/// Losses over the photos' own pixels and the label maps, for given weights.
#[must_use]
pub fn evaluation(dialect: Dialect, spec: &Spec) -> Vec<u8> {
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let labels = builder.input("labels", UINT8, &spec.map_dims());
    let weights = builder.input("weights", FLOAT, &[Dim::Fixed(unet::PARAMETER_COUNT)]);
    let by_name = unpack(&mut builder, &weights);
    let evaluate = match dialect {
        Dialect::Portable => portable::evaluate,
        Dialect::Native => native::evaluate,
    };
    let [loss, bce, label_map] = evaluate(&mut builder, spec, [&photos, &labels], &by_name);
    builder.output("loss", &loss, FLOAT, &[]);
    builder.output("bce", &bce, FLOAT, &[]);
    builder.output("label_map", &label_map, UINT8, &spec.map_dims());
    builder.finish("evaluation", "Losses and label maps of the U-Net for given weights.", &metadata(spec))
}

/// The network for use in this program: photos in, label maps out, the weights (flat) inside. The portable dialect computes
/// in f32 whatever `precision` says.
#[must_use]
pub fn label_maps(dialect: Dialect, precision: Precision, spec: &Spec, weights: &[f32]) -> Vec<u8> {
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let by_name = initializers(&mut builder, weights);
    let label_map = match dialect {
        Dialect::Portable => portable::label(&mut builder, spec, &photos, &by_name),
        Dialect::Native => native::label(&mut builder, spec, &photos, &by_name, precision),
    };
    builder.output("label_map", &label_map, UINT8, &spec.map_dims());
    builder.finish("label_maps", "U-Net for fashion parsing: photos to label maps.", &metadata(spec))
}

/// The network for use anywhere: photos in, probabilities and label maps out, the weights (flat) inside.
#[must_use]
pub fn predict(spec: &Spec, weights: &[f32]) -> Vec<u8> {
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let by_name = initializers(&mut builder, weights);
    let [label_map, probabilities] = portable::predict(&mut builder, spec, &photos, &by_name);
    let [batch, rows, columns] = spec.map_dims();
    builder.output("label_map", &label_map, UINT8, &[batch, rows, columns]);
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
    let spec = serde_json::from_str(&spec.value).map_err(|cause| format!("its '{SPEC_KEY}' is wrong ({cause})"))?;
    let graph = model.graph.ok_or("holds no graph")?;
    let mut weights = Vec::with_capacity(unet::PARAMETER_COUNT);
    for parameter in unet::parameters() {
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
fn initializers(builder: &mut Builder, mut weights: &[f32]) -> HashMap<String, Value> {
    let mut by_name = HashMap::new();
    for parameter in unet::parameters() {
        let (own, rest) = weights.split_at(parameter.len());
        let value = builder.weight(&parameter.name, &parameter.dims, own);
        by_name.insert(parameter.name, value);
        weights = rest;
    }
    by_name
}

/// The flat weights as the network's tensors.
fn unpack(builder: &mut Builder, weights: &Value) -> HashMap<String, Value> {
    builder.scope("unpack");
    let parameters = unet::parameters();
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
    let layout: Vec<_> = unet::parameters().into_iter().map(|it| serde_json::json!([it.name, it.dims])).collect();
    vec![
        (SPEC_KEY, serde_json::to_string(spec).expect("a spec is plain data")),
        ("lookbook.weights", serde_json::Value::from(layout).to_string()),
        ("lookbook.categories", crate::labels::CATEGORIES.join(",")),
    ]
}

/// Metadata key of the [`Spec`] as JSON, in the ONNX files and in `weights.safetensors`.
pub const SPEC_KEY: &str = "lookbook.spec";
