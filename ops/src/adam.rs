//! Adam over all weights in one pass (Kingma and Ba, 2015, <https://arxiv.org/abs/1412.6980>), as Keras applies it, or `AdamW`:
//! with a learning rate and a decay for each weight (Loshchilov and Hutter, 2019, <https://arxiv.org/abs/1711.05101>).

use super::Workers;
use super::simd::{Job, Simd};
use super::spread::spread_items;

/// The constants of a step.
#[derive(Debug, Clone, Copy)]
pub struct Adam {
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Added to the root of the second moment, after the bias correction has been applied to the rate.
    pub epsilon: f32,
    /// Step, from 1.
    pub step: f32,
    /// Learning rate.
    pub learning_rate: f32,
}

/// Inputs, as flat vectors of equal length: the gradient, the weights and both moments.
#[derive(Debug, Clone, Copy)]
pub struct AdamInputs<'a> {
    /// Gradient.
    pub gradient: &'a [f32],
    /// Weights.
    pub weights: &'a [f32],
    /// First and second moment.
    pub moments: [&'a [f32]; 2],
    /// Factor of the learning rate, and decay, of each weight; 1 and 0 without them.
    pub of_weights: Option<[&'a [f32]; 2]>,
}

/// Elements per task.
const SHARE: usize = 1 << 15;

impl Adam {
    /// Writes the new weights, first moment and second moment to `outputs`: (1 - rate decay) w - rate sqrt(1 - b2^t) /
    /// (1 - b1^t) m / (sqrt(v) + epsilon), where rate is the learning rate times the weight's factor.
    pub fn apply(&self, workers: Workers<'_>, inputs: AdamInputs<'_>, outputs: [&mut [f32]; 3]) {
        let instructions = workers.instructions;
        let len = inputs.gradient.len();
        assert!(inputs.weights.len() == len && inputs.moments.iter().all(|it| it.len() == len));
        assert!(outputs.iter().all(|it| it.len() == len));
        assert!(inputs.of_weights.iter().flatten().all(|it| it.len() == len));
        let correction = (1.0 - self.beta_2.powf(self.step)).sqrt() / (1.0 - self.beta_1.powf(self.step));
        let [weights, first, second] = outputs.map(|it| it.chunks_mut(SHARE));
        let parts: Vec<_> = weights.zip(first).zip(second).map(|((w, m), v)| [w, m, v]).collect();
        spread_items(workers.spread, parts, |index, outputs| {
            let range = index * SHARE..index * SHARE + outputs[0].len();
            let inputs = AdamInputs {
                gradient: &inputs.gradient[range.clone()],
                weights: &inputs.weights[range.clone()],
                moments: inputs.moments.map(|it| &it[range.clone()]),
                of_weights: inputs.of_weights.map(|all| all.map(|it| &it[range.clone()])),
            };
            instructions.run(Part { adam: *self, correction, inputs, outputs });
        });
    }
}

struct Part<'a> {
    adam: Adam,
    /// Of the bias of both moments.
    correction: f32,
    inputs: AdamInputs<'a>,
    outputs: [&'a mut [f32]; 3],
}

impl Job for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        match self.inputs.of_weights {
            Some([factors, decays]) => self.with(factors.iter().zip(decays).map(|(&factor, &decay)| [factor, decay])),
            None => self.with(std::iter::repeat([1.0, 0.0])),
        }
    }
}

impl Part<'_> {
    /// With the factor of the learning rate and the decay of each weight.
    #[inline(always)]
    fn with(self, of_weights: impl Iterator<Item = [f32; 2]>) {
        let Self { adam, correction, inputs, outputs: [weights, first, second] } = self;
        let inputs = inputs.gradient.iter().zip(inputs.weights).zip(inputs.moments[0]).zip(inputs.moments[1]);
        let outputs = weights.iter_mut().zip(first).zip(second);
        let weights = inputs.zip(outputs).zip(of_weights);
        for (((((gradient, weight), m), v), ((new_weight, new_m), new_v)), [factor, decay]) in weights {
            *new_m = m + (gradient - m) * (1.0 - adam.beta_1);
            *new_v = v + (gradient * gradient - v) * (1.0 - adam.beta_2);
            let rate = adam.learning_rate * factor;
            *new_weight = weight * (1.0 - rate * decay) - rate * correction * *new_m / (new_v.sqrt() + adam.epsilon);
        }
    }
}
