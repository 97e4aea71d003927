//! A training step by candle, whose matrix products on the CPU are those of `gemm`.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};

use crate::inputs::{BETA_1, BETA_2, CATEGORIES, CHANNELS, EPSILON, Inputs, LEARNING_RATE};
use crate::{Answer, Result};

struct Network(HashMap<String, Var>);

impl Network {
    fn load(inputs: &Inputs) -> Result<Self> {
        let variable = |values: &crate::inputs::Values| {
            Var::from_tensor(&Tensor::from_slice(&values.values, values.shape.as_slice(), &Device::Cpu)?)
        };
        let pairs = inputs.weights.iter().map(|(name, values)| Ok((name.clone(), variable(values)?)));
        Ok(Self(pairs.collect::<Result<_>>()?))
    }

    fn biased(&self, x: &Tensor, name: &str) -> candle_core::Result<Tensor> {
        x.broadcast_add(&self.0[&format!("{name}.bias")].reshape((1, (), 1, 1))?)
    }

    fn convolution(&self, x: &Tensor, name: &str) -> candle_core::Result<Tensor> {
        let kernel = &self.0[&format!("{name}.weight")];
        self.biased(&x.conv2d(kernel, kernel.dim(2)? / 2, 1, 1, 1)?, name)
    }

    fn pair(&self, x: &Tensor, name: &str) -> candle_core::Result<Tensor> {
        let x = self.convolution(x, &format!("{name}a"))?.relu()?;
        self.convolution(&x, &format!("{name}b"))?.relu()
    }

    /// Photos u8 `[batch, rows, columns, 3]` to logits `[batch, 23, rows, columns]`.
    fn logits(&self, photos: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = (photos.permute((0, 3, 1, 2))?.contiguous()?.to_dtype(DType::F32)? / 255.0)?;
        let mut skips = Vec::new();
        for level in 1..=CHANNELS.len() {
            x = self.pair(&if level == 1 { x } else { x.max_pool2d(2)? }, &format!("down{level}"))?;
            skips.push(x.clone());
        }
        skips.pop();
        for (level, skip) in (1..).zip(skips.iter().rev()) {
            let name = format!("up{level}t");
            let larger = x.conv_transpose2d(&self.0[&format!("{name}.weight")], 0, 0, 2, 1)?;
            let larger = self.biased(&larger, &name)?;
            x = self.pair(&Tensor::cat(&[&larger, skip], 1)?, &format!("up{level}"))?;
        }
        self.convolution(&x, "out")
    }
}

/// A round: one step.
pub fn round(inputs: &Inputs) -> Result<impl FnMut() -> Result<Answer>> {
    let [batch, rows, columns] = inputs.size;
    let photos = Tensor::from_slice(&inputs.photos, (batch, rows, columns, 3), &Device::Cpu)?;
    let labels = Tensor::from_slice(&inputs.labels, (batch, 1, rows, columns), &Device::Cpu)?;
    let categories = Tensor::arange(0, CATEGORIES as u8, &Device::Cpu)?.reshape((1, CATEGORIES, 1, 1))?;
    let network = Network::load(inputs)?;
    let variables = network.0.values().cloned().collect();
    // Without decay it is Adam.
    let settings = ParamsAdamW { lr: LEARNING_RATE, beta1: BETA_1, beta2: BETA_2, eps: EPSILON, weight_decay: 0.0 };
    let mut adam = AdamW::new(variables, settings.clone())?;
    let mut steps = 0;
    Ok(move || {
        steps += 1;
        // candle adds epsilon after the bias correction.
        adam.set_params(ParamsAdamW { eps: EPSILON / (1.0 - BETA_2.powi(steps)).sqrt(), ..settings.clone() });
        let truth = labels.broadcast_eq(&categories)?.to_dtype(DType::F32)?;
        let loss = candle_nn::loss::binary_cross_entropy_with_logit(&network.logits(&photos)?, &truth)?;
        adam.backward_step(&loss)?;
        Ok(Answer::Loss(loss.to_scalar()?))
    })
}
