//! The training step for CUDA where there is no GPU: its operators, done here by their definitions, give what the standard
//! operators give. What cuDNN makes of them only a GPU shows (`scripts/gpu_bench.sh`, the section `parity`).

use ort::operator::{
    BoxedKernel, ComputeContext, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::session::{Session, SessionInputValue};
use ort::value::{Tensor, TensorElementType};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::shared::library;
use lookbook::engine::Engine;
use lookbook::graph::builder::DOMAIN;
use lookbook::graph::encoder::{Block, Encoder, Padding, lite0};
use lookbook::graph::{self, Dialect, Loss, LossWeights, Precision, Spec, parameters};
use lookbook::runtime;

const BATCH: usize = 2;

/// A tensor's dimensions and elements.
type Maps = (Vec<usize>, Vec<f32>);

/// An operator by its definition: its name, its numbers of inputs and outputs, and what it computes.
struct Definition {
    name: &'static str,
    ports: [usize; 2],
    compute: fn(&Attributes, &[Maps]) -> Vec<Maps>,
}

const DEFINITIONS: [Definition; 4] = [
    Definition { name: "KernelGradient", ports: [2, 1], compute: kernel_gradient },
    Definition { name: "BatchNorm", ports: [3, 3], compute: batch_norm },
    Definition { name: "BatchNormGradient", ports: [5, 3], compute: batch_norm_gradient },
    Definition { name: "ReluGradient", ports: [2, 1], compute: relu_gradient },
];

struct Attributes {
    kernel: usize,
    stride: usize,
    pad: usize,
    groups: usize,
    epsilon: f64,
    ceiling: f32,
}

impl Operator for &'static Definition {
    type Kernel<'attr> = BoxedKernel<'attr>;

    fn name(&self) -> &str {
        self.name
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        (0..self.ports[0]).map(|_| OperatorInput::required(TensorElementType::Float32))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        (0..self.ports[1]).map(|_| OperatorOutput::required(TensorElementType::Float32))
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let number = |name: &str| context.get::<i64>(name).unwrap_or(1) as usize;
        let float = |name: &str| context.get::<f32>(name).unwrap_or(f32::INFINITY);
        let attributes = Attributes {
            kernel: number("kernel"),
            stride: number("stride"),
            pad: number("pad"),
            groups: number("groups"),
            epsilon: f64::from(float("epsilon")),
            ceiling: float("ceiling"),
        };
        let (compute, inputs) = (self.compute, self.ports[0]);
        Ok(Box::new(move |context: &ComputeContext| {
            let input = |at| {
                let value = context.input(at)?.expect("a required input");
                let (shape, elements) = value.try_extract_tensor::<f32>()?;
                Ok((shape.iter().map(|&dim| dim as usize).collect(), elements.to_vec()))
            };
            let inputs = (0..inputs).map(input).collect::<ort::Result<Vec<Maps>>>()?;
            for (at, (dims, elements)) in compute(&attributes, &inputs).into_iter().enumerate() {
                let dims: Vec<i64> = dims.into_iter().map(|dim| dim as i64).collect();
                let mut output = context.output(at, dims)?.expect("a required output");
                output.try_extract_tensor_mut::<f32>()?.1.copy_from_slice(&elements);
            }
            Ok(())
        }))
    }
}

fn kernel_gradient(attributes: &Attributes, inputs: &[Maps]) -> Vec<Maps> {
    let &Attributes { kernel, stride, pad, groups, .. } = attributes;
    let [(x_dims, x), (dy_dims, dy)] = inputs else { panic!("two inputs") };
    let (&[batch, channels, rows, columns], &[_, outputs, out_rows, out_columns]) = (&x_dims[..], &dy_dims[..]) else {
        panic!("maps have four dimensions")
    };
    assert_eq!(out_rows, (rows + 2 * pad - kernel) / stride + 1);
    assert_eq!(out_columns, (columns + 2 * pad - kernel) / stride + 1);
    let of_group = channels / groups;
    let mut gradient = Vec::new();
    for output in 0..outputs {
        for input in 0..of_group {
            let input = output / (outputs / groups) * of_group + input;
            for (tap_row, tap_column) in (0..kernel * kernel).map(|tap| (tap / kernel, tap % kernel)) {
                let mut sum = 0.0;
                for photo in 0..batch {
                    for (at, dy) in dy[(photo * outputs + output) * out_rows * out_columns..][..out_rows * out_columns]
                        .iter()
                        .enumerate()
                    {
                        let row = (at / out_columns * stride + tap_row).wrapping_sub(pad);
                        let column = (at % out_columns * stride + tap_column).wrapping_sub(pad);
                        if row < rows && column < columns {
                            let at = ((photo * channels + input) * rows + row) * columns + column;
                            sum += f64::from(x[at]) * f64::from(*dy);
                        }
                    }
                }
                gradient.push((sum / batch as f64) as f32);
            }
        }
    }
    vec![(vec![outputs, of_group, kernel, kernel], gradient)]
}

/// Places of each channel's elements.
fn of_channels(dims: &[usize]) -> Vec<Vec<usize>> {
    let pixels = dims[2] * dims[3];
    let of_channel = |channel: usize| {
        let begins = (0..dims[0]).map(move |photo| (photo * dims[1] + channel) * pixels);
        begins.flat_map(|begin| begin..begin + pixels).collect()
    };
    (0..dims[1]).map(of_channel).collect()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn batch_norm(attributes: &Attributes, inputs: &[Maps]) -> Vec<Maps> {
    let [(dims, x), (channels, scale), (_, bias)] = inputs else { panic!("three inputs") };
    let (mut y, mut means, mut inverses) = (x.clone(), Vec::new(), Vec::new());
    for (channel, places) in of_channels(dims).into_iter().enumerate() {
        let mean_of = mean(places.iter().map(|&at| f64::from(x[at])));
        let variance = mean(places.iter().map(|&at| (f64::from(x[at]) - mean_of).powi(2)));
        let inverse = 1.0 / (variance + attributes.epsilon).sqrt();
        for at in places {
            let normal = (f64::from(x[at]) - mean_of) * inverse;
            y[at] = (normal * f64::from(scale[channel]) + f64::from(bias[channel])) as f32;
        }
        means.push(mean_of as f32);
        inverses.push(inverse as f32);
    }
    vec![(dims.clone(), y), (channels.clone(), means), (channels.clone(), inverses)]
}

fn batch_norm_gradient(_: &Attributes, inputs: &[Maps]) -> Vec<Maps> {
    let [(dims, x), (_, dy), (channels, scale), (_, means), (_, inverses)] = inputs else { panic!("five inputs") };
    let (mut dx, mut of_scale, mut of_bias) = (x.clone(), Vec::new(), Vec::new());
    for (channel, places) in of_channels(dims).into_iter().enumerate() {
        let inverse = f64::from(inverses[channel]);
        let normal = |at: usize| (f64::from(x[at]) - f64::from(means[channel])) * inverse;
        let slope = mean(places.iter().map(|&at| f64::from(dy[at]) * normal(at)));
        let rise = mean(places.iter().map(|&at| f64::from(dy[at])));
        for &at in &places {
            let rest = f64::from(dy[at]) - rise - normal(at) * slope;
            dx[at] = (rest * inverse * f64::from(scale[channel])) as f32;
        }
        let pixels = (dims[2] * dims[3]) as f64;
        of_scale.push((slope * pixels) as f32);
        of_bias.push((rise * pixels) as f32);
    }
    vec![(dims.clone(), dx), (channels.clone(), of_scale), (channels.clone(), of_bias)]
}

fn relu_gradient(attributes: &Attributes, inputs: &[Maps]) -> Vec<Maps> {
    let [(dims, x), (_, dy)] = inputs else { panic!("two inputs") };
    let of_pixel = |(&x, &dy): (&f32, &f32)| if x > 0.0 && x < attributes.ceiling { dy } else { 0.0 };
    vec![(dims.clone(), x.iter().zip(dy).map(of_pixel).collect())]
}

/// Loss, gradient and statistics of a batch.
fn learnt(session: &mut Session, spec: &Spec) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut photos = vec![0; BATCH * spec.rows() * spec.columns() * 3];
    rng.fill_bytes(&mut photos);
    let labels: Vec<u8> = photos[..BATCH * spec.map_rows() * spec.map_columns()].iter().map(|it| it % 23).collect();
    let vector = |values: Vec<f32>| Tensor::from_array(([values.len()], values)).unwrap().into();
    let scalar = |value: f32| Tensor::from_array(((), vec![value])).unwrap().into();
    let state = parameters::initial_state(spec, 3);
    let photos = Tensor::from_array(([BATCH, spec.rows(), spec.columns(), 3], photos)).unwrap();
    let labels = Tensor::from_array(([BATCH, spec.map_rows(), spec.map_columns()], labels)).unwrap();
    let mut inputs: Vec<(&str, SessionInputValue<'_>)> = vec![
        ("photos", photos.into()),
        ("labels", labels.into()),
        ("share", scalar(1.0)),
        ("weights", vector(state[0].clone())),
        ("gradient", vector(vec![0.0; state[0].len()])),
    ];
    if spec.batch_norm {
        inputs.extend([("statistics_rate", scalar(0.25)), ("statistics", vector(state[4].clone()))]);
    }
    let outputs = session.run(inputs).unwrap();
    outputs.values().flat_map(|it| it.try_extract_tensor::<f32>().unwrap().1.to_vec()).collect()
}

fn check(spec: &Spec) {
    if library().is_none() {
        return;
    }
    let loss_weights = LossWeights { presence: 0.3, ..LossWeights::PLAIN };
    let model = |dialect| graph::accumulate(dialect, Precision::F32, spec, &loss_weights);
    let (mut portable, _) = runtime::session("accumulate", model, Engine::cpu(Dialect::Portable, 2)).unwrap();
    let domain = DEFINITIONS.iter().fold(OperatorDomain::new(DOMAIN), |domain, it| domain?.add(it)).unwrap();
    let mut cuda = runtime::session_with("accumulate", &model(Dialect::Cuda), domain, 2).unwrap();
    let [expected, found] = [&mut portable, &mut cuda].map(|session| learnt(session, spec));
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max);
    assert!(worst <= 2e-5, "they differ by {worst}");
    assert!(expected.iter().filter(|it| it.abs() > 1e-4).count() > 100, "there is something to learn");
}

#[test]
fn the_seeds_network_learns_the_same() {
    check(&Spec::seed(72, 90, Loss::Bce));
}

#[test]
fn with_normalisation_it_learns_the_same() {
    check(&Spec { channels: vec![16, 24], stride: 2, batch_norm: true, ..Spec::seed(72, 92, Loss::Softmax) });
}

/// Depthwise convolutions with zeros on one side more than on the other, and evenly.
#[test]
fn with_an_encoder_it_learns_the_same() {
    let block = |kernel, stride, inner, out| Block { kernel, stride, inner, out };
    let blocks =
        vec![block(3, 1, 8, 16), block(3, 2, 32, 16), block(5, 2, 32, 24), block(5, 1, 48, 24), block(3, 2, 48, 32)];
    for padding in [Padding::Same, Padding::Symmetric] {
        let encoder = Encoder { stem: 8, blocks: blocks.clone(), padding, ..lite0() };
        let spec = Spec {
            channels: vec![8, 16, 16],
            stride: 2,
            batch_norm: true,
            presence: true,
            encoder: Some(encoder),
            ..Spec::seed(64, 48, Loss::Softmax)
        };
        check(&spec);
    }
}
