//! The U-Net and its training step as ONNX graphs: description in, bytes of an `.onnx` file out.
//!
//! Three graphs share one forward pass. All take `photos`, u8 `[batch, rows, columns, 3]`.
//!
//! | graph | further inputs | outputs |
//! | --- | --- | --- |
//! | [`train_step`] | `labels` u8 `[batch, rows, columns]`, `step` f32 (1, 2, ...), `learning_rate` f32, `weights`, `first_moment`, `second_moment` f32 `[486015]` | `loss`, `pixel_accuracy` f32, `new_weights`, `new_first_moment`, `new_second_moment` |
//! | [`evaluation`] | `labels`, `weights` | `loss`, `bce` f32, `label_map` u8 `[batch, rows, columns]` |
//! | [`predict`] | none: the weights are in the file | `probabilities` f32 `[batch, 23, rows, columns]`, `label_map` |
//!
//! Weights and moments are flat, in the order of [`unet::parameters`].

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::labels::CATEGORY_COUNT;

pub mod builder;
pub mod onnx;
pub mod unet;

use builder::{Builder, Dim, Value};
use onnx::{FLOAT, INT32, UINT8};

/// Least probability that a logarithm is taken of, as Keras clips.
const EPSILON: f32 = 1e-7;
/// Decay of the first moment (Kingma and Ba, 2015, <https://arxiv.org/abs/1412.6980>).
const ADAM_BETA_1: f32 = 0.9;
/// Decay of the second moment.
const ADAM_BETA_2: f32 = 0.999;
/// Added to the root of the second moment, as Keras does: after the bias correction has gone into the rate.
const ADAM_EPSILON: f32 = 1e-7;

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

/// The training step: forward pass, loss, gradients of all weights, Adam. `category_weights` weigh the pixels of each
/// category in a softmax loss; 1 for all leaves it plain.
#[must_use]
pub fn train_step(spec: &Spec, category_weights: &[f32; CATEGORY_COUNT]) -> Vec<u8> {
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let labels = builder.input("labels", UINT8, &spec.map_dims());
    let step = builder.input("step", FLOAT, &[]);
    let learning_rate = builder.input("learning_rate", FLOAT, &[]);
    let flat = [Dim::Fixed(unet::PARAMETER_COUNT)];
    let weights = builder.input("weights", FLOAT, &flat);
    let moments = ["first_moment", "second_moment"].map(|name| builder.input(name, FLOAT, &flat));

    let photos = network_input(&mut builder, &photos);
    let by_name = unpack(&mut builder, &weights);
    let logits = unet::forward(&mut builder, &photos, spec.columns(), &by_name);
    let truth = Truth::new(&mut builder, &labels);
    let learnt = match spec.loss {
        Loss::Bce => binary_cross_entropy(&mut builder, &logits, &truth),
        Loss::Softmax => cross_entropy(&mut builder, &logits, &truth, category_weights),
    };
    let accuracy = pixel_accuracy(&mut builder, spec, &logits, &truth);

    let names: Vec<Value> = unet::parameters().iter().map(|it| by_name[&it.name].clone()).collect();
    let gradients = builder.gradients(&logits, learnt.logit_gradient, &names);
    builder.scope("adam");
    let flattened: Vec<Value> = names.iter().map(|name| builder.reshape(&gradients[name], &[-1])).collect();
    let gradient = builder.concat(&flattened.iter().collect::<Vec<_>>(), 0);
    // The gradients are means over the batch already; what is left of the mean is the same number for all of them.
    let share = builder.scalar(learnt.gradient_scale / (spec.rows() * spec.columns()) as f32);
    let gradient = builder.node("Mul", &[&gradient, &share], vec![]);
    let [weights, first, second] = adam(&mut builder, &gradient, &step, &learning_rate, &weights, &moments);

    builder.output("loss", &learnt.loss, FLOAT, &[]);
    builder.output("pixel_accuracy", &accuracy, FLOAT, &[]);
    builder.output("new_weights", &weights, FLOAT, &flat);
    builder.output("new_first_moment", &first, FLOAT, &flat);
    builder.output("new_second_moment", &second, FLOAT, &flat);
    let doc =
        "One training step of the U-Net: forward, loss, gradients, Adam. Feed the new weights and moments back in.";
    builder.finish("train_step", doc, &metadata(spec))
}

/// Losses over the photos' own pixels and the label maps, for given weights.
#[must_use]
pub fn evaluation(spec: &Spec) -> Vec<u8> {
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let labels = builder.input("labels", UINT8, &spec.map_dims());
    let weights = builder.input("weights", FLOAT, &[Dim::Fixed(unet::PARAMETER_COUNT)]);
    let photos = network_input(&mut builder, &photos);
    let by_name = unpack(&mut builder, &weights);
    let logits = unet::forward(&mut builder, &photos, spec.columns(), &by_name);
    let truth = Truth::new(&mut builder, &labels);
    let probabilities = activation(&mut builder, spec.loss, &logits);
    let right = right_probability(&mut builder, &probabilities, &truth);
    let right = spec.real_part(&mut builder, &right);
    let bce = mean_negative_log(&mut builder, &right, None);
    let loss = match spec.loss {
        Loss::Bce => bce.clone(),
        Loss::Softmax => {
            let of_truth = probability_of_truth(&mut builder, &probabilities, &truth);
            let of_truth = spec.real_part(&mut builder, &of_truth);
            mean_negative_log(&mut builder, &of_truth, None)
        }
    };
    let label_map = label_map(&mut builder, &logits);
    builder.output("loss", &loss, FLOAT, &[]);
    builder.output("bce", &bce, FLOAT, &[]);
    builder.output("label_map", &label_map, UINT8, &spec.map_dims());
    builder.finish("evaluation", "Losses and label maps of the U-Net for given weights.", &metadata(spec))
}

/// The network for use: photos in, probabilities and label maps out, the weights inside.
#[must_use]
pub fn predict(spec: &Spec, weights: &[f32]) -> Vec<u8> {
    let mut builder = Builder::default();
    let photos = builder.input("photos", UINT8, &spec.photo_dims());
    let photos = network_input(&mut builder, &photos);
    let mut by_name = HashMap::new();
    let mut rest = weights;
    for parameter in unet::parameters() {
        let (own, after) = rest.split_at(parameter.len());
        let value = builder.weight(&parameter.name, &parameter.dims, own);
        by_name.insert(parameter.name, value);
        rest = after;
    }
    let logits = unet::forward(&mut builder, &photos, spec.columns(), &by_name);
    let label_map = label_map(&mut builder, &logits);
    let probabilities = activation(&mut builder, spec.loss, &logits);
    let [batch, rows, columns] = spec.map_dims();
    builder.output("label_map", &label_map, UINT8, &[batch, rows, columns]);
    builder.output("probabilities", &probabilities, FLOAT, &[batch, Dim::Fixed(CATEGORY_COUNT), rows, columns]);
    let doc = "U-Net for fashion parsing: photos u8 [batch, rows, columns, 3] to a category for each pixel.";
    builder.finish("predict", doc, &metadata(spec))
}

/// `photos` u8 `[batch, rows, columns, 3]` to f32 `[batch, 3, rows, columns]`, 0 to 1.
fn network_input(builder: &mut Builder, photos: &Value) -> Value {
    builder.scope("input");
    let channels_first = builder.transpose(photos, &[0, 3, 1, 2]);
    let floats = builder.cast(&channels_first, FLOAT);
    let full = builder.scalar(255.0);
    builder.node("Div", &[&floats, &full], vec![])
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

/// The labels in the two forms that losses need.
struct Truth {
    /// i32 `[batch, 1, rows, columns]`.
    labels: Value,
    /// Where a pixel is of a map's category: bool `[batch, 23, rows, columns]`.
    hit: Value,
}

impl Truth {
    fn new(builder: &mut Builder, labels: &Value) -> Self {
        builder.scope("truth");
        let axis = builder.integers(&[1]);
        let labels = builder.cast(labels, INT32);
        let labels = builder.node("Unsqueeze", &[&labels, &axis], vec![]);
        let ids: Vec<i32> = (0..CATEGORY_COUNT as i32).collect();
        let ids = builder.integers_32(&[1, CATEGORY_COUNT as i64, 1, 1], &ids);
        let hit = builder.node("Equal", &[&labels, &ids], vec![]);
        Self { labels, hit }
    }
}

/// What a loss hands to the training step.
struct Learnt {
    /// The mean loss, a scalar.
    loss: Value,
    /// Gradient of the sum over a photo's pixels, times 1 / `gradient_scale`.
    logit_gradient: Value,
    /// What each pixel's gradient is to be multiplied by.
    gradient_scale: f32,
}

fn activation(builder: &mut Builder, loss: Loss, logits: &Value) -> Value {
    builder.scope("head");
    match loss {
        Loss::Bce => builder.node("Sigmoid", &[logits], vec![]),
        Loss::Softmax => softmax(builder, logits),
    }
}

/// Softmax over the maps, in parts: ONNX Runtime's own turns the tensor round for any axis but the last, at four times the
/// cost.
fn softmax(builder: &mut Builder, logits: &Value) -> Value {
    let highest = builder.reduce("ReduceMax", logits, &[1], true);
    let below = builder.node("Sub", &[logits, &highest], vec![]);
    let powers = builder.node("Exp", &[&below], vec![]);
    let sum = builder.reduce("ReduceSum", &powers, &[1], true);
    builder.node("Div", &[&powers, &sum], vec![])
}

/// Mean binary cross-entropy over all pixels and maps; its gradient by the logits is (p - y) / count.
fn binary_cross_entropy(builder: &mut Builder, logits: &Value, truth: &Truth) -> Learnt {
    let probabilities = activation(builder, Loss::Bce, logits);
    let right = right_probability(builder, &probabilities, truth);
    let loss = mean_negative_log(builder, &right, None);
    let logit_gradient = difference(builder, &probabilities, truth);
    Learnt { loss, logit_gradient, gradient_scale: 1.0 / CATEGORY_COUNT as f32 }
}

/// Mean cross-entropy over all pixels, each weighed by its category; its gradient by the logits is w (p - y) / count.
fn cross_entropy(builder: &mut Builder, logits: &Value, truth: &Truth, weights: &[f32; CATEGORY_COUNT]) -> Learnt {
    let probabilities = activation(builder, Loss::Softmax, logits);
    let of_truth = probability_of_truth(builder, &probabilities, truth);
    let mut logit_gradient = difference(builder, &probabilities, truth);
    let mut of_pixels = None;
    if weights.iter().any(|&weight| weight != 1.0) {
        let weights = builder.floats(weights);
        let weights = builder.node("Gather", &[&weights, &truth.labels], vec![]);
        logit_gradient = builder.node("Mul", &[&logit_gradient, &weights], vec![]);
        of_pixels = Some(weights);
    }
    let loss = mean_negative_log(builder, &of_truth, of_pixels.as_ref());
    Learnt { loss, logit_gradient, gradient_scale: 1.0 }
}

/// p - y.
fn difference(builder: &mut Builder, probabilities: &Value, truth: &Truth) -> Value {
    let one = builder.scalar(1.0);
    let less = builder.node("Sub", &[probabilities, &one], vec![]);
    builder.node("Where", &[&truth.hit, &less, probabilities], vec![])
}

/// What each map gives to the truth: p where the pixel is of that category, 1 - p where it is not. One logarithm a map
/// instead of two.
fn right_probability(builder: &mut Builder, probabilities: &Value, truth: &Truth) -> Value {
    let one = builder.scalar(1.0);
    let rest = builder.node("Sub", &[&one, probabilities], vec![]);
    builder.node("Where", &[&truth.hit, probabilities, &rest], vec![])
}

/// The probability of each pixel's true category, `[batch, 1, rows, columns]`.
fn probability_of_truth(builder: &mut Builder, probabilities: &Value, truth: &Truth) -> Value {
    let zero = builder.scalar(0.0);
    let of_truth = builder.node("Where", &[&truth.hit, probabilities, &zero], vec![]);
    builder.reduce("ReduceSum", &of_truth, &[1], true)
}

/// Mean of -log of probabilities, clipped from below, each times its weight.
fn mean_negative_log(builder: &mut Builder, probability: &Value, weights: Option<&Value>) -> Value {
    let least = builder.scalar(EPSILON);
    let clipped = builder.node("Max", &[probability, &least], vec![]);
    let mut log = builder.node("Log", &[&clipped], vec![]);
    if let Some(weights) = weights {
        log = builder.node("Mul", &[&log, weights], vec![]);
    }
    let mean = builder.reduce("ReduceMean", &log, &[0, 1, 2, 3], false);
    builder.node("Neg", &[&mean], vec![])
}

/// Share of the photos' own pixels whose true category has the highest logit.
fn pixel_accuracy(builder: &mut Builder, spec: &Spec, logits: &Value, truth: &Truth) -> Value {
    builder.scope("accuracy");
    let categories = builder.node("ArgMax", &[logits], vec![onnx::Attribute::int("axis", 1)]);
    let categories = builder.cast(&categories, INT32);
    let right = builder.node("Equal", &[&categories, &truth.labels], vec![]);
    let right = builder.cast(&right, FLOAT);
    let right = spec.real_part(builder, &right);
    builder.reduce("ReduceMean", &right, &[0, 1, 2, 3], false)
}

/// The category of the highest logit of each pixel, u8 `[batch, rows, columns]`.
fn label_map(builder: &mut Builder, logits: &Value) -> Value {
    builder.scope("label_map");
    let attributes = vec![onnx::Attribute::int("axis", 1), onnx::Attribute::int("keepdims", 0)];
    let categories = builder.node("ArgMax", &[logits], attributes);
    builder.cast(&categories, UINT8)
}

/// Adam as Keras applies it: w -= rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon). Returns weights and moments.
fn adam(
    builder: &mut Builder,
    gradient: &Value,
    step: &Value,
    learning_rate: &Value,
    weights: &Value,
    [first, second]: &[Value; 2],
) -> [Value; 3] {
    let one = builder.scalar(1.0);
    let correction = |builder: &mut Builder, beta: f32| {
        let beta = builder.scalar(beta);
        let power = builder.node("Pow", &[&beta, step], vec![]);
        builder.node("Sub", &[&one, &power], vec![])
    };
    let first_correction = correction(builder, ADAM_BETA_1);
    let second_correction = correction(builder, ADAM_BETA_2);
    let root = builder.node("Sqrt", &[&second_correction], vec![]);
    let rate = builder.node("Mul", &[learning_rate, &root], vec![]);
    let rate = builder.node("Div", &[&rate, &first_correction], vec![]);

    let first = decayed(builder, first, gradient, ADAM_BETA_1);
    let square = builder.node("Mul", &[gradient, gradient], vec![]);
    let second = decayed(builder, second, &square, ADAM_BETA_2);
    let change = builder.node("Mul", &[&rate, &first], vec![]);
    let epsilon = builder.scalar(ADAM_EPSILON);
    let root = builder.node("Sqrt", &[&second], vec![]);
    let divisor = builder.node("Add", &[&root, &epsilon], vec![]);
    let change = builder.node("Div", &[&change, &divisor], vec![]);
    let weights = builder.node("Sub", &[weights, &change], vec![]);
    [weights, first, second]
}

/// m + (x - m)(1 - beta).
fn decayed(builder: &mut Builder, moment: &Value, x: &Value, beta: f32) -> Value {
    let share = builder.scalar(1.0 - beta);
    let difference = builder.node("Sub", &[x, moment], vec![]);
    let change = builder.node("Mul", &[&difference, &share], vec![]);
    builder.node("Add", &[moment, &change], vec![])
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
