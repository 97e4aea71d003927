//! The presence head: which categories occur in a photo at all, from the mean of its lowest maps. Their probabilities are
//! multiplied onto those of every pixel.
//!
//! Logits z of presence are trained by binary cross-entropy against the categories among the photo's labels, and by the
//! pixels' own loss: log sigmoid(z) is added to the logits of all pixels.

use std::collections::HashMap;

use super::builder::{Builder, Value};
use super::layout::tensors;
use super::spec::PRESENCE;

/// The presence head of a batch.
pub(super) struct Presence {
    /// Means of the lowest maps, `[batch, channels]`.
    pooled: Value,
    /// `[batch, maps]`.
    logits: Value,
    /// `[maps, channels]`.
    weight: Value,
}

/// What the presence head learns from.
pub(super) struct PresenceTruth<'a> {
    /// 1 if a category occurs in the photo, else 0: `[batch, maps]`.
    pub(super) present: &'a Value,
    /// Gradient of what is added to the photo's logits, `[batch, maps]`.
    pub(super) of_gate: &'a Value,
    /// Weight of the binary cross-entropy in the loss.
    pub(super) weight: f32,
    /// Factor of its gradient, in the unit of `of_gate`.
    pub(super) gradient_share: f32,
}

/// The loss of the presence head, and its gradients for each photo.
pub(super) struct PresenceGradients {
    /// A scalar.
    pub(super) loss: Value,
    /// Of the weight, `[batch, maps, channels]`.
    pub(super) weight: Value,
    /// Of the bias, `[batch, maps]`.
    pub(super) bias: Value,
    /// Of the pooled maps, `[batch, channels]`.
    pub(super) pooled: Value,
}

impl Presence {
    /// The head's logits, from the means of the lowest maps, `[batch, channels]`.
    pub(super) fn new(builder: &mut Builder, pooled: Value, weights: &HashMap<String, Value>, maps: usize) -> Self {
        let [weight, bias] = tensors(weights, PRESENCE);
        let weight = builder.reshape(weight, &[maps as i64, -1]);
        let turned = builder.transpose(&weight, &[1, 0]);
        let product = builder.node("MatMul", &[&pooled, &turned], vec![]);
        let logits = builder.node("Add", &[&product, bias], vec![]);
        Self { pooled, logits, weight }
    }

    /// What is added to the logits of a photo's pixels: log sigmoid(z), `[batch, maps]`.
    pub(super) fn gate(&self, builder: &mut Builder) -> Value {
        let minus = builder.node("Neg", &[&self.logits], vec![]);
        let absence = builder.node("Softplus", &[&minus], vec![]);
        builder.node("Neg", &[&absence], vec![])
    }

    pub(super) fn learn(&self, builder: &mut Builder, truth: &PresenceTruth<'_>) -> PresenceGradients {
        // -y log p - (1 - y) log(1 - p) = softplus(z) - y z.
        let both = builder.node("Softplus", &[&self.logits], vec![]);
        let of_present = builder.node("Mul", &[truth.present, &self.logits], vec![]);
        let losses = builder.node("Sub", &[&both, &of_present], vec![]);
        let mean = builder.reduce("ReduceMean", &losses, &[0, 1], false);
        let [one, weight, share] = [1.0, truth.weight, truth.gradient_share].map(|it| builder.scalar(it));
        let loss = builder.node("Mul", &[&mean, &weight], vec![]);
        let probability = builder.node("Sigmoid", &[&self.logits], vec![]);
        let slope = builder.node("Sub", &[&one, &probability], vec![]);
        let through_gate = builder.node("Mul", &[truth.of_gate, &slope], vec![]);
        let wrong = builder.node("Sub", &[&probability, truth.present], vec![]);
        let wrong = builder.node("Mul", &[&wrong, &share], vec![]);
        let bias = builder.node("Add", &[&through_gate, &wrong], vec![]);
        let [column, row] = [builder.reshape(&bias, &[0, -1, 1]), builder.reshape(&self.pooled, &[0, 1, -1])];
        let of_weight = builder.node("Mul", &[&column, &row], vec![]);
        let pooled = builder.node("MatMul", &[&bias, &self.weight], vec![]);
        PresenceGradients { loss, weight: of_weight, bias, pooled }
    }
}
