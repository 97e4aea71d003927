//! A training step by burn on its backend `flex`, whose matrix products are those of `gemm`.

use burn::module::{Module, Param};
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::loss::{BinaryCrossEntropyLoss, BinaryCrossEntropyLossConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData, activation::relu};

use crate::inputs::{BETA_1, BETA_2, CATEGORIES, CHANNELS, EPSILON, Inputs, LEARNING_RATE};
use crate::{Answer, Result};

#[derive(Module, Debug)]
struct Pair {
    a: Conv2d,
    b: Conv2d,
}

impl Pair {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        relu(self.b.forward(relu(self.a.forward(x))))
    }
}

#[derive(Module, Debug)]
struct Network {
    down: Vec<Pair>,
    pool: MaxPool2d,
    larger: Vec<ConvTranspose2d>,
    up: Vec<Pair>,
    out: Conv2d,
}

impl Network {
    fn load(inputs: &Inputs, device: &Device) -> Result<Self> {
        let convolution = |name: String| convolution(inputs, &name, device);
        let pair = |name: String| -> Result<Pair> {
            Ok(Pair { a: convolution(format!("{name}a"))?, b: convolution(format!("{name}b"))? })
        };
        Ok(Self {
            down: (1..=CHANNELS.len()).map(|level| pair(format!("down{level}"))).collect::<Result<_>>()?,
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            larger: (1..CHANNELS.len())
                .map(|level| transposed(inputs, &format!("up{level}t"), device))
                .collect::<Result<_>>()?,
            up: (1..CHANNELS.len()).map(|level| pair(format!("up{level}"))).collect::<Result<_>>()?,
            out: convolution("out".to_owned())?,
        })
    }

    /// Photos `[batch, rows, columns, 3]` to logits `[batch, 23, rows, columns]`.
    fn logits(&self, photos: Tensor<4, Int>) -> Tensor<4> {
        let mut x = photos.permute([0, 3, 1, 2]).float() / 255.0;
        let mut skips = Vec::new();
        for (level, pair) in self.down.iter().enumerate() {
            x = pair.forward(if level == 0 { x } else { self.pool.forward(x) });
            skips.push(x.clone());
        }
        skips.pop();
        for (larger, pair) in self.larger.iter().zip(&self.up) {
            let skip = skips.pop().expect("there is a level above");
            x = pair.forward(Tensor::cat(vec![larger.forward(x), skip], 1));
        }
        self.out.forward(x)
    }
}

fn parameter<const D: usize>(inputs: &Inputs, name: &str, device: &Device) -> Result<Param<Tensor<D>>> {
    let found = inputs.of(name)?;
    let data = TensorData::new(found.values.clone(), found.shape.clone());
    Ok(Param::from_tensor(Tensor::from_data(data, device)))
}

fn convolution(inputs: &Inputs, name: &str, device: &Device) -> Result<Conv2d> {
    let weight = parameter::<4>(inputs, &format!("{name}.weight"), device)?;
    let bias = Some(parameter(inputs, &format!("{name}.bias"), device)?);
    let [out, of, height, width] = weight.dims();
    let config = Conv2dConfig::new([of, out], [height, width]).with_padding(PaddingConfig2d::Same);
    Ok(Conv2d { weight, bias, ..config.init(device) })
}

fn transposed(inputs: &Inputs, name: &str, device: &Device) -> Result<ConvTranspose2d> {
    let weight = parameter::<4>(inputs, &format!("{name}.weight"), device)?;
    let bias = Some(parameter(inputs, &format!("{name}.bias"), device)?);
    let [of, out, height, width] = weight.dims();
    let config = ConvTranspose2dConfig::new([of, out], [height, width]).with_stride([2, 2]);
    Ok(ConvTranspose2d { weight, bias, ..config.init(device) })
}

/// A round: one step.
pub fn round(inputs: &Inputs) -> Result<impl FnMut() -> Result<Answer>> {
    let device = Device::flex().autodiff();
    let [batch, rows, columns] = inputs.size;
    let photos = TensorData::new(inputs.photos.clone(), [batch, rows, columns, 3]);
    let labels = TensorData::new(inputs.labels.clone(), [batch, 1, rows, columns]);
    let mut network = Network::load(inputs, &device)?;
    let loss_of: BinaryCrossEntropyLoss = BinaryCrossEntropyLossConfig::new().with_logits(true).init(&device);
    // Adds epsilon after the bias correction, unlike Keras: at this tolerance the losses do not tell.
    let config = AdamConfig::new().with_beta_1(BETA_1 as f32).with_beta_2(BETA_2 as f32).with_epsilon(EPSILON as f32);
    let mut adam = config.init();
    Ok(move || {
        let photos = Tensor::<4, Int>::from_data(photos.clone(), &device);
        let labels = Tensor::<4, Int>::from_data(labels.clone(), &device);
        let categories = Tensor::<1, Int>::arange(0..CATEGORIES as i64, &device).reshape([1, CATEGORIES, 1, 1]);
        let truth = labels
            .expand([batch, CATEGORIES, rows, columns])
            .equal(categories.expand([batch, CATEGORIES, rows, columns]));
        let loss = loss_of.forward(network.logits(photos), truth.int());
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        network = adam.step(LEARNING_RATE, network.clone(), gradients);
        Ok(Answer::Loss(loss.into_scalar()))
    })
}
