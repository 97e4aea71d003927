//! The portable dialect: standard operators only, maps as `[batch, channels, rows, columns]`.

use std::collections::HashMap;

use super::builder::{Builder, Value};
use super::encoder::{STEM, STEM_WEIGHT};
use super::onnx::{self, FLOAT, INT32, UINT8};
use super::presence::PresenceTruth;
use super::spec::{ADAM_BETA_1, ADAM_BETA_2, ADAM_EPSILON, Loss, LossWeights, PRESENCE, Spec};
use super::unet::{self, Forward, LossGradients};

/// Lower bound of a probability before its logarithm is taken, as Keras clips.
const EPSILON: f32 = 1e-7;
/// Limit at which gradients with respect to logits are clipped in f16: half of the largest f16.
const GREATEST_HALF: f32 = 32_768.0;

/// Loss, accuracy and the gradients of all parameters.
pub(super) fn learn(
    builder: &mut Builder,
    spec: &Spec,
    [photos, labels]: [&Value; 2],
    weights: &HashMap<String, Value>,
    loss_weights: &LossWeights,
) -> LossGradients {
    let layers = layer_weights(builder, spec, weights);
    let Forward { logits, plain, presence, statistics } = forward(builder, spec, photos, &layers);
    let truth = Truth::new(builder, labels, spec.maps());
    let wide = builder.wide(&logits);
    let lost = match spec.loss {
        Loss::Bce => binary_cross_entropy(builder, &wide, &truth, spec.maps()),
        Loss::Softmax => cross_entropy(builder, &wide, &truth, loss_weights, spec.maps()),
    };
    let pixel_accuracy = pixel_accuracy(builder, spec, &wide, &truth);
    // The gradients are already means over the batch; the remaining divisor is the same for all of them.
    let gradient_scale = lost.gradient_scale / (spec.map_rows() * spec.map_columns()) as f32;
    let mut loss = lost.loss;
    let mut seeds = HashMap::from([(plain, narrow_gradient(builder, &lost.logit_gradient))]);
    let mut gradients = HashMap::new();
    if let Some((presence, lowest)) = presence {
        builder.scope("gradient/presence");
        let present = builder.reduce("ReduceMax", &truth.hit, &[2, 3], false);
        let of_lines = builder.reduce("ReduceSum", &lost.logit_gradient, &[3], false);
        let of_gate = builder.reduce("ReduceSum", &of_lines, &[2], false);
        let (weight, count) = (loss_weights.presence, spec.maps() as f32);
        let gradient_share = weight / count / gradient_scale;
        let truth = PresenceTruth { present: &present, of_gate: &of_gate, weight, gradient_share };
        let found = presence.learn(builder, &truth);
        loss = builder.node("Add", &[&loss, &found.loss], vec![]);
        for (kind, of_photos, dims) in [("weight", found.weight, vec![0, -1, 1, 1]), ("bias", found.bias, vec![-1])] {
            let mean = builder.reduce("ReduceMean", &of_photos, &[0], false);
            gradients.insert(format!("{PRESENCE}.{kind}"), builder.reshape(&mean, &dims));
        }
        let share = builder.scalar(1.0 / spec.lowest_pixels() as f32);
        let of_lowest = builder.node("Mul", &[&found.pooled, &share], vec![]);
        let of_lowest = builder.reshape(&of_lowest, &[0, -1, 1, 1]);
        seeds.insert(lowest, builder.narrow(&of_lowest));
    }
    let parameters: Vec<Value> = layers.values().cloned().collect();
    let found = builder.gradients(seeds, &parameters);
    let by_name = layers.iter().filter_map(|(name, value)| Some((name.clone(), found.get(value)?.clone())));
    gradients.extend(by_name);
    if let Some(encoder) = &spec.encoder {
        let of_stem = encoder.gather_stem(builder, &gradients[STEM_WEIGHT]);
        gradients.insert(STEM_WEIGHT.to_owned(), of_stem);
    }
    LossGradients { loss, pixel_accuracy, gradients, gradient_scale, statistics }
}

/// Loss and binary cross-entropy over the photos' own pixels, and label maps.
pub(super) fn evaluate(
    builder: &mut Builder,
    spec: &Spec,
    [photos, labels]: [&Value; 2],
    weights: &HashMap<String, Value>,
) -> [Value; 3] {
    let logits = logits(builder, spec, photos, weights);
    let truth = Truth::new(builder, labels, spec.maps());
    let probabilities = activation(builder, spec.loss, &logits);
    let difference = difference(builder, &probabilities, &truth);
    let right = right_probability(builder, &difference);
    let right = spec.real_part(builder, &right);
    let bce = mean_negative_log(builder, &right, None);
    let loss = match spec.loss {
        Loss::Bce => bce.clone(),
        Loss::Softmax => {
            let right = right_part(builder, &probabilities, &truth);
            let of_truth = builder.reduce("ReduceSum", &right, &[1], true);
            let of_truth = spec.real_part(builder, &of_truth);
            mean_negative_log(builder, &of_truth, None)
        }
    };
    [loss, bce, label_map(builder, spec, &logits)]
}

/// Label maps.
pub(super) fn label(builder: &mut Builder, spec: &Spec, photos: &Value, weights: &HashMap<String, Value>) -> Value {
    let logits = logits(builder, spec, photos, weights);
    label_map(builder, spec, &logits)
}

/// Label maps and probabilities.
pub(super) fn predict(
    builder: &mut Builder,
    spec: &Spec,
    photos: &Value,
    weights: &HashMap<String, Value>,
) -> [Value; 2] {
    let logits = logits(builder, spec, photos, weights);
    [label_map(builder, spec, &logits), activation(builder, spec.loss, &logits)]
}

/// One map of logits per category.
fn logits(builder: &mut Builder, spec: &Spec, photos: &Value, weights: &HashMap<String, Value>) -> Value {
    let layers = layer_weights(builder, spec, weights);
    let photos = spec.with_mirror_images(builder, photos);
    let logits = forward(builder, spec, &photos, &layers).logits;
    let dims = [spec.maps(), spec.map_rows(), spec.map_columns()];
    spec.mean_with_mirror_images(builder, &logits, &dims, Some(2))
}

/// The weights in the form in which the layers take them.
fn layer_weights(builder: &mut Builder, spec: &Spec, weights: &HashMap<String, Value>) -> HashMap<String, Value> {
    let mut layers = weights.clone();
    if let Some(encoder) = &spec.encoder {
        builder.scope(STEM);
        let stem = encoder.spread_stem(builder, &weights[STEM_WEIGHT]);
        layers.insert(STEM_WEIGHT.to_owned(), stem);
    }
    layers
}

fn forward(builder: &mut Builder, spec: &Spec, photos: &Value, weights: &HashMap<String, Value>) -> Forward {
    let photos = network_input(builder, spec, photos);
    unet::forward(builder, spec, &photos, weights)
}

/// Converts `photos` u8 `[batch, rows, columns, 3]` to f32 `[batch, channels, map rows, map columns]`, 0 to 1, or as the
/// encoder was trained with.
fn network_input(builder: &mut Builder, spec: &Spec, photos: &Value) -> Value {
    let gathered = spec.gather(builder, photos);
    builder.scope("input");
    let channels_first = builder.transpose(&gathered, &[0, 3, 1, 2]);
    let floats = builder.cast(&channels_first, FLOAT);
    let full = builder.scalar(255.0);
    let mut shares = builder.node("Div", &[&floats, &full], vec![]);
    if let Some(encoder) = &spec.encoder {
        let [mean, deviation] = encoder.colors(builder);
        shares = builder.node("Sub", &[&shares, &mean], vec![]);
        shares = builder.node("Div", &[&shares, &deviation], vec![]);
    }
    builder.narrow(&shares)
}

/// The labels in the two forms that losses need.
struct Truth {
    /// i32 `[batch, 1, rows, columns]`.
    labels: Value,
    /// 1 if a pixel belongs to the map's category, else 0: f32 `[batch, maps, rows, columns]`.
    hit: Value,
}

impl Truth {
    fn new(builder: &mut Builder, labels: &Value, maps: usize) -> Self {
        builder.scope("truth");
        let axis = builder.integers(&[1]);
        let labels = builder.cast(labels, INT32);
        let labels = builder.node("Unsqueeze", &[&labels, &axis], vec![]);
        let ids: Vec<i32> = (0..maps as i32).collect();
        let ids = builder.integers_32(&[1, maps as i64, 1, 1], &ids);
        let hit = builder.node("Equal", &[&labels, &ids], vec![]);
        Self { labels, hit: builder.cast(&hit, FLOAT) }
    }
}

/// A loss and its gradient.
struct Lost {
    /// The mean loss, a scalar.
    loss: Value,
    /// Gradient of the sum over a photo's pixels, times 1 / `gradient_scale`.
    logit_gradient: Value,
    /// Factor that every pixel's gradient must be multiplied by.
    gradient_scale: f32,
}

/// The gradient with respect to the logits, in the element type of maps. It is not divided by the number of pixels,
/// which keeps it within f16's range, except for the Dice term of a category with few pixels among a million, which is
/// clipped.
fn narrow_gradient(builder: &mut Builder, gradient: &Value) -> Value {
    if !builder.is_half() {
        return gradient.clone();
    }
    let [least, greatest] = [-GREATEST_HALF, GREATEST_HALF].map(|it| builder.scalar(it));
    let within = builder.node("Clip", &[gradient, &least, &greatest], vec![]);
    builder.narrow(&within)
}

fn activation(builder: &mut Builder, loss: Loss, logits: &Value) -> Value {
    builder.scope("head");
    match loss {
        Loss::Bce => builder.node("Sigmoid", &[logits], vec![]),
        Loss::Softmax => softmax(builder, logits),
    }
}

/// Softmax over the maps, built from its parts: ONNX Runtime's own transposes the tensor for any axis but the last, at
/// four times the cost.
fn softmax(builder: &mut Builder, logits: &Value) -> Value {
    let highest = builder.reduce("ReduceMax", logits, &[1], true);
    let below = builder.node("Sub", &[logits, &highest], vec![]);
    let powers = builder.node("Exp", &[&below], vec![]);
    let sum = builder.reduce("ReduceSum", &powers, &[1], true);
    builder.node("Div", &[&powers, &sum], vec![])
}

/// Mean binary cross-entropy over all pixels and maps; its gradient with respect to the logits is (p - y) / count.
fn binary_cross_entropy(builder: &mut Builder, logits: &Value, truth: &Truth, maps: usize) -> Lost {
    let probabilities = activation(builder, Loss::Bce, logits);
    let logit_gradient = difference(builder, &probabilities, truth);
    let right = right_probability(builder, &logit_gradient);
    let loss = mean_negative_log(builder, &right, None);
    Lost { loss, logit_gradient, gradient_scale: 1.0 / maps as f32 }
}

/// Mean cross-entropy over all pixels, each weighted by its category; its gradient with respect to the logits is
/// w (p - y) / count, where y are labels of which a share is spread over all categories. The Dice term is added to it.
fn cross_entropy(builder: &mut Builder, logits: &Value, truth: &Truth, weights: &LossWeights, maps: usize) -> Lost {
    let probabilities = activation(builder, Loss::Softmax, logits);
    let right = right_part(builder, &probabilities, truth);
    let of_truth = builder.reduce("ReduceSum", &right, &[1], true);
    let smooth = (weights.smoothing > 0.0).then(|| smooth(builder, truth, weights.smoothing, maps));
    let mut logit_gradient = builder.node("Sub", &[&probabilities, smooth.as_ref().unwrap_or(&truth.hit)], vec![]);
    // By label: a pixel without one (255) weighs nothing.
    let mut by_label = [0.0; 1 << u8::BITS];
    by_label[..maps].copy_from_slice(&weights.of_categories(maps));
    let by_label = builder.floats(&by_label);
    let of_pixels = builder.node("Gather", &[&by_label, &truth.labels], vec![]);
    logit_gradient = builder.node("Mul", &[&logit_gradient, &of_pixels], vec![]);
    let mut loss = mean_negative_log(builder, &of_truth, Some(&of_pixels));
    if weights.smoothing > 0.0 {
        let of_all = mean_negative_log(builder, &probabilities, Some(&of_pixels));
        let [kept, spread] = [1.0 - weights.smoothing, weights.smoothing].map(|it| builder.scalar(it));
        let parts = [(&loss, &kept), (&of_all, &spread)].map(|(it, share)| builder.node("Mul", &[it, share], vec![]));
        loss = builder.node("Add", &[&parts[0], &parts[1]], vec![]);
    }
    if weights.dice > 0.0 {
        let [of_dice, gradient] = dice(builder, [&probabilities, &right], truth, weights.dice);
        loss = builder.node("Add", &[&loss, &of_dice], vec![]);
        logit_gradient = builder.node("Add", &[&logit_gradient, &gradient], vec![]);
    }
    Lost { loss, logit_gradient, gradient_scale: 1.0 }
}

/// `weight` times (1 minus the mean Dice coefficient), where the Dice coefficient is 2 sum(p y) / (sum(p) + sum(y)) and
/// the mean is over the categories present; and its gradient with respect to the logits, times the number of pixels.
/// `right` is p y. Pixels without a label are in no sum.
fn dice(builder: &mut Builder, [probabilities, right]: [&Value; 2], truth: &Truth, weight: f32) -> [Value; 2] {
    builder.scope("dice");
    let [zero, one, two, weight, least] = [0.0, 1.0, 2.0, weight, EPSILON].map(|it| builder.scalar(it));
    let is_labelled = builder.reduce("ReduceSum", &truth.hit, &[1], true);
    let probabilities = &builder.node("Mul", &[probabilities, &is_labelled], vec![]);
    let [both, probability, pixels] = [right, probabilities, &truth.hit].map(|it| {
        // First over lines, then over maps, as in the other losses.
        let of_lines = builder.reduce("ReduceSum", it, &[3], true);
        builder.reduce("ReduceSum", &of_lines, &[0, 2], true)
    });
    let is_there = builder.node("Greater", &[&pixels, &zero], vec![]);
    let is_there = builder.cast(&is_there, FLOAT);
    let count = builder.reduce("ReduceSum", &is_there, &[1], true);
    let count = builder.node("Max", &[&count, &one], vec![]);
    let share = builder.node("Mul", &[&is_there, &weight], vec![]);
    let share = builder.node("Div", &[&share, &count], vec![]);
    let all = builder.node("Add", &[&probability, &pixels], vec![]);
    let twice = builder.node("Mul", &[&both, &two], vec![]);
    // A category without a pixel has no share in the mean; where no pixel has a label, it has no probability either.
    let all = builder.node("Max", &[&all, &least], vec![]);
    let coefficient = builder.node("Div", &[&twice, &all], vec![]);
    let missed = builder.node("Sub", &[&one, &coefficient], vec![]);
    let missed = builder.node("Mul", &[&missed, &share], vec![]);
    let loss = builder.reduce("ReduceSum", &missed, &[0, 1, 2, 3], false);
    // With respect to the probabilities: share (coefficient - 2 y) / all.
    let every = builder.node("Equal", &[&truth.labels, &truth.labels], vec![]);
    let every = builder.cast(&every, FLOAT);
    let of_lines = builder.reduce("ReduceSum", &every, &[3], true);
    let total = builder.reduce("ReduceSum", &of_lines, &[0, 1, 2], true);
    let share = builder.node("Mul", &[&share, &total], vec![]);
    let share = builder.node("Div", &[&share, &all], vec![]);
    let of_all = builder.node("Mul", &[&coefficient, &share], vec![]);
    let of_truth = builder.node("Mul", &[&two, &share], vec![]);
    let of_truth = builder.node("Mul", &[&truth.hit, &of_truth], vec![]);
    let gradient = builder.node("Sub", &[&of_all, &of_truth], vec![]);
    // Back through the softmax.
    let gradient = builder.node("Mul", &[&gradient, probabilities], vec![]);
    let sum = builder.reduce("ReduceSum", &gradient, &[1], true);
    let along = builder.node("Mul", &[probabilities, &sum], vec![]);
    [loss, builder.node("Sub", &[&gradient, &along], vec![])]
}

/// Labels of which `share` is spread evenly over all `maps` categories.
fn smooth(builder: &mut Builder, truth: &Truth, share: f32, maps: usize) -> Value {
    let [kept, spread] = [1.0 - share, share / maps as f32].map(|it| builder.scalar(it));
    let kept = builder.node("Mul", &[&truth.hit, &kept], vec![]);
    builder.node("Add", &[&kept, &spread], vec![])
}

/// p - y.
fn difference(builder: &mut Builder, probabilities: &Value, truth: &Truth) -> Value {
    builder.node("Sub", &[probabilities, &truth.hit], vec![])
}

/// The probability that each map assigns to the truth, 1 - |p - y|: p if the pixel belongs to that category, 1 - p if
/// not. This takes one logarithm per map instead of two.
fn right_probability(builder: &mut Builder, difference: &Value) -> Value {
    let one = builder.scalar(1.0);
    let wrong = builder.node("Abs", &[difference], vec![]);
    builder.node("Sub", &[&one, &wrong], vec![])
}

/// p y: the probability of each pixel's true category in that category's map, else 0.
fn right_part(builder: &mut Builder, probabilities: &Value, truth: &Truth) -> Value {
    builder.node("Mul", &[probabilities, &truth.hit], vec![])
}

/// Mean of -log of probabilities, clipped from below, each multiplied by its weight.
fn mean_negative_log(builder: &mut Builder, probability: &Value, weights: Option<&Value>) -> Value {
    let least = builder.scalar(EPSILON);
    let clipped = builder.node("Max", &[probability, &least], vec![]);
    let mut log = builder.node("Log", &[&clipped], vec![]);
    if let Some(weights) = weights {
        log = builder.node("Mul", &[&log, weights], vec![]);
    }
    // First over lines, then over maps: single precision loses half a percent in one sum over tens of millions of
    // pixels.
    let of_lines = builder.reduce("ReduceMean", &log, &[3], true);
    let of_maps = builder.reduce("ReduceMean", &of_lines, &[2], true);
    let mean = builder.reduce("ReduceMean", &of_maps, &[0, 1, 2, 3], false);
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

/// The category of the highest logit of each pixel, of enlarged logits if the spec asks for them, u8 `[batch, label map rows,
/// label map columns]`.
fn label_map(builder: &mut Builder, spec: &Spec, logits: &Value) -> Value {
    builder.scope("label_map");
    let logits = &spec.enlarge_logits(builder, logits);
    let attributes = vec![onnx::Attribute::int("axis", 1), onnx::Attribute::int("keepdims", 0)];
    let categories = builder.node("ArgMax", &[logits], attributes);
    let categories = builder.cast(&categories, UINT8);
    spec.enlarge(builder, &categories)
}

/// Adam as Keras applies it: w -= rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon). Takes and returns weights and
/// moments. With `groups`, each weight has its factor of the rate, and is first multiplied by 1 - rate factor decay.
pub(super) fn adam(
    builder: &mut Builder,
    gradient: &Value,
    [step, learning_rate]: [&Value; 2],
    [weights, first, second]: [&Value; 3],
    groups: Option<&[Value; 2]>,
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
    let mut change = builder.node("Div", &[&change, &divisor], vec![]);
    if let Some([factors, decays]) = groups {
        let decay = builder.node("Mul", &[weights, decays], vec![]);
        let decay = builder.node("Mul", &[&decay, learning_rate], vec![]);
        change = builder.node("Add", &[&change, &decay], vec![]);
        change = builder.node("Mul", &[&change, factors], vec![]);
    }
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
