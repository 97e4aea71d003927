//! The operators of the domain `lookbook`, in the form in which ONNX Runtime calls them.
//!
//! | operator | inputs | outputs |
//! | --- | --- | --- |
//! | `Convolution` | maps, weight, bias, optional second maps | maps |
//! | `WinogradConvolution` | maps, weight `[36, in, out]` (see `lookbook_ops::winograd`), bias, optional second maps | maps, of a `ReLU` |
//! | `ConvolutionGradient` | maps, gradient of the output, weight, optional second maps | gradients of weight, bias, maps, optional second maps |
//! | `PhotoConvolution`, `PhotoConvolutionGradient` | the same with photos, u8, instead of maps | the same without the gradient of maps |
//! | `PointwiseConvolution` | maps, weight, bias, optional residual maps, which are added last | maps |
//! | `PointwiseConvolutionGradient` | maps, gradient of the output, weight, optional gradient of the maps from elsewhere, which is added | gradients of weight, bias, maps |
//! | `DepthwiseConvolution` | maps, weight, bias | maps |
//! | `DepthwiseConvolutionGradient` | maps, gradient of the output, weight | gradients of weight, bias, maps |
//! | `InvertedResidual` | maps, weight and bias of a depthwise convolution, those of a 1x1 convolution after it, optional ones of a 1x1 convolution before it (see `lookbook_ops::inverted`) | maps |
//! | `BatchNorm` | maps, scale, bias, optional residual maps, which are added last | maps, mean, variance |
//! | `BatchNormGradient` | maps, gradient of the output before the activation, scale, mean, variance | gradients of scale, bias, maps |
//! | `MaxPool` | maps | maps |
//! | `MaxPoolGradient` | maps, gradient of the output, gradient through the skip connection | gradient of the maps |
//! | `UpConvolution` | maps, weight, bias | maps |
//! | `UpConvolutionGradient` | maps, gradient of the output, weight | gradients of weight, bias, maps |
//! | `HeadLoss` | maps, weight, bias, labels u8, optional weights of the categories and of the Dice term, and the share of a label that is spread over all | loss, pixel accuracy, gradients of weight, bias, maps, categories present f32 `[batch, maps]` |
//! | `HeadEvaluation` | maps, weight, bias, labels | loss, binary cross-entropy, label map u8 |
//! | `HeadLabels` | maps, weight, bias | label map u8, pixels of each category i32 `[batch, maps]` |
//! | `Bf16Convolution`, `Bf16PhotoConvolution`, `Bf16PointwiseConvolution`, `Bf16DepthwiseConvolution`, `Bf16InvertedResidual`, `Bf16MaxPool`, `Bf16UpConvolution` | as those without `Bf16`, maps bf16 (as u16) | maps, bf16 |
//! | `Bf16UpSkipConvolution` | maps bf16, skip connection bf16, weight `[4, depth, out]`, bias `[4, 4, out]` (see `lookbook_ops::up_skip`) | maps, bf16 |
//! | `Bf16PointwiseConvolutionGradient`, `Bf16DepthwiseConvolutionGradient`, `Bf16BatchNorm`, `Bf16BatchNormGradient` | as those without `Bf16`, maps and their gradients bf16 | as those without `Bf16`, maps and their gradients bf16 |
//! | `Bf16LastConvolution` | as `Bf16Convolution` | maps, f32 |
//! | `Bf16ConvolutionGradient`, `Bf16PhotoConvolutionGradient`, `Bf16MaxPoolGradient`, `Bf16UpConvolutionGradient`, `Bf16HeadLoss` | as those without `Bf16`, maps and their gradients bf16 | the same, gradients of maps bf16 |
//! | `Bf16Add` | two gradients of the same maps, bf16 | their sum, bf16 |
//! | `Bf16Wide`, `Bf16Narrow` | maps, bf16 and f32 | maps, f32 and bf16 |
//! | `Int8Convolution`, `Int8PhotoConvolution` | maps u8, weight i8 `[depth, out]`, scale `[out]`, bias `[out]` | maps u8 |
//! | `Int8LastConvolution` | as `Int8Convolution` | maps, f32 |
//! | `Int8UpSkipConvolution`, `Int8WideUpSkipConvolution` | maps u8, skip connection u8, weight i8 `[depth, out]`, scale `[4 out]`, bias `[16 out]` | maps, u8 or bf16 |
//! | `Int8MaxPool` | maps u8 | maps u8 |
//! | `Int8Narrow`, `Int8Wide` | maps bf16; maps u8 with the zero point 0 | maps u8; maps f32 |
//! | `GatherSquares` | photos u8 `[batch, rows, columns, 3]` | squares of 2x2 pixels, u8 `[batch, rows / 2, columns / 2, 12]` |
//! | `EnlargeLabels` | label map u8 | the same with four pixels for each, u8 `[batch, 2 rows, 2 columns]` |
//! | `Adam` | gradient, weights, first and second moment, step, learning rate, optional factors of the learning rate and decays of the weights | weights, first and second moment |
//!
//! Maps are f32 `[batch, rows, columns, channels]`; the second maps of a convolution have channels of their own. The
//! attributes, all optional but `photo`:
//!
//! | attribute | of | means |
//! | --- | --- | --- |
//! | `activation` | convolutions, `BatchNorm` | 0 none, 1 `ReLU`, 6 `ReLU6`; without it 0 for `PointwiseConvolution` and `DepthwiseConvolution`, 1 for the others |
//! | `plain` | `Convolution`, `PhotoConvolution` | 1: no activation |
//! | `mask` | gradients of convolutions | the activation whose output the maps are: their gradient is zero wherever they are not positive, and, for 6, not below 6; without it 1 for `UpConvolutionGradient`, 0 for the others |
//! | `stride`, `pads` | depthwise convolutions, `InvertedResidual` | 1 or 2 (1); rows of zeros above and columns of zeros to the left (0, 0) |
//! | `zeros` | `Int8` operators | zero points of the maps (of `Int8Narrow` the output's) |
//! | `step` | `Int8Narrow`, `Int8Wide` | what the difference of neighbouring elements means: one number, or one for each channel |
//! | `fill` | photo convolutions | what lies beyond a photo's edge, for each channel, as a share of 255 (0) |
//! | `photo` | the operators of the head | the rows and columns that belong to the photo |
//! | `scale` | `HeadLabels` | times that maps are enlarged in each direction: 1, 2 or 4 (1) |
//! | `softmax` | `HeadEvaluation` | 1: softmax with cross-entropy, instead of sigmoid with binary cross-entropy |
//!
//! The bias of a head is `[maps]`, or `[batch, maps]` for one of each photo; there are up to 64 maps.
//! The gradients of pooling and head take their maps to be the output of a `ReLU`. A loss with
//! weights of the categories is softmax with cross-entropy, one without is sigmoid with binary cross-entropy.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use ort::operator::{
    BoxedKernel, ComputeContext, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::value::{PrimitiveTensorElementType, TensorElementType, ValueRef, ValueRefMut};

use crate::graph::builder::DOMAIN;
use crate::graph::parameters::VARIANCE_EPSILON;
use crate::graph::{ADAM_BETA_1, ADAM_BETA_2, ADAM_EPSILON};
use crate::labels::{CATEGORY_COUNT, MAX_CATEGORIES};
use lookbook_ops::adam::{Adam, AdamInputs};
use lookbook_ops::convolution::{convolution, convolution_input_gradient, convolution_weight_gradient};
use lookbook_ops::depthwise::Depthwise;
use lookbook_ops::head::{HEAD_CHANNELS, Head, HeadGradients, HeadLoss, LABEL_SCALES, MAPS, MAX_MAPS};
use lookbook_ops::inverted::{Inverted, InvertedParameters};
use lookbook_ops::norm::{batch_norm, batch_norm_gradient};
use lookbook_ops::pointwise::{pointwise, pointwise_input_gradient, pointwise_weight_gradient};
use lookbook_ops::pool::{max_pool, max_pool_gradient, pooled_shape};
use lookbook_ops::squares::{enlarge_labels, gather_squares};
use lookbook_ops::up::{up_convolution, up_convolution_input_gradient, up_convolution_weight_gradient, up_shape};
use lookbook_ops::winograd::{TILE_POINTS, winograd_convolution};
use lookbook_ops::{Activation, Instructions, Maps, Mask, Photos, Shape, Spread, Workers};

const _: () = assert!(
    MAPS == CATEGORY_COUNT && MAX_MAPS == MAX_CATEGORIES,
    "the kernels of the head are compiled for the default label set, and for the largest"
);

/// All operators, for sessions with `threads` threads.
///
/// # Errors
/// The error from ONNX Runtime.
pub fn domain(instructions: Instructions, threads: usize) -> ort::Result<OperatorDomain> {
    let operators = OPERATORS.iter().chain(bf16::OPERATORS.iter().copied().flatten()).chain(int8::OPERATORS);
    operators
        .fold(OperatorDomain::new(DOMAIN), |domain, signature| domain?.add(Native { signature, instructions, threads }))
}

/// Whether the bf16 operators can run on this processor.
#[must_use]
pub fn has_bf16() -> bool {
    bf16::is_available()
}

/// Whether the operators in 8-bit integers can run on this processor, with the bf16 ones for the layers beside them.
#[must_use]
pub fn has_int8() -> bool {
    int8::is_available()
}

/// Inputs and outputs of an operator.
struct Signature {
    name: &'static str,
    inputs: &'static [Port],
    outputs: &'static [Port],
    compute: fn(&Call<'_>) -> ort::Result<()>,
}

/// A tensor that is an input or output.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "narrow operators are not compiled for every processor")]
enum Port {
    F32,
    U8,
    I32,
    I8,
    /// bf16, as raw bits.
    Bf16,
    /// f32, or nothing.
    Optional,
    /// bf16, or nothing.
    OptionalBf16,
}

use Port::{Bf16, F32, I8, I32, Optional, OptionalBf16, U8};

impl Port {
    fn element(self) -> TensorElementType {
        match self {
            F32 | Optional => TensorElementType::Float32,
            U8 => TensorElementType::Uint8,
            I32 => TensorElementType::Int32,
            I8 => TensorElementType::Int8,
            Bf16 | OptionalBf16 => TensorElementType::Uint16,
        }
    }
}

const OPERATORS: [Signature; 22] = [
    Signature { name: "Convolution", inputs: &[F32, F32, F32, Optional], outputs: &[F32], compute: convolve },
    Signature {
        name: "WinogradConvolution",
        inputs: &[F32, F32, F32, Optional],
        outputs: &[F32],
        compute: convolve_tiles,
    },
    Signature {
        name: "ConvolutionGradient",
        inputs: &[F32, F32, F32, Optional],
        outputs: &[F32, F32, F32, Optional],
        compute: convolve_back,
    },
    Signature { name: "PhotoConvolution", inputs: &[U8, F32, F32], outputs: &[F32], compute: convolve_photos },
    Signature {
        name: "PhotoConvolutionGradient",
        inputs: &[U8, F32, F32],
        outputs: &[F32, F32],
        compute: convolve_photos_back,
    },
    Signature {
        name: "PointwiseConvolution",
        inputs: &[F32, F32, F32, Optional],
        outputs: &[F32],
        compute: |call| {
            convolve_pointwise(call, |workers, shape, maps, parameters, (activation, residual), output| {
                pointwise(workers, shape, maps, parameters, activation, residual, output);
            })
        },
    },
    Signature {
        name: "PointwiseConvolutionGradient",
        inputs: &[F32, F32, F32, Optional],
        outputs: &[F32; 3],
        compute: |call| {
            convolve_pointwise_back(
                call,
                pointwise_weight_gradient,
                |workers, shape, gradient, weight, (skip, mask), output| {
                    pointwise_input_gradient(workers, shape, gradient, weight, skip, mask, output);
                },
            )
        },
    },
    Signature {
        name: "DepthwiseConvolution",
        inputs: &[F32; 3],
        outputs: &[F32],
        compute: |call| convolve_depthwise(call, Depthwise::forward),
    },
    Signature {
        name: "DepthwiseConvolutionGradient",
        inputs: &[F32; 3],
        outputs: &[F32; 3],
        compute: |call| convolve_depthwise_back(call, Depthwise::weight_gradient, Depthwise::input_gradient),
    },
    Signature {
        name: "InvertedResidual",
        inputs: &[F32, F32, F32, F32, F32, Optional, Optional],
        outputs: &[F32],
        compute: |call| invert(call, Inverted::forward),
    },
    Signature {
        name: "BatchNorm",
        inputs: &[F32, F32, F32, Optional],
        outputs: &[F32; 3],
        compute: |call| normalise(call, batch_norm),
    },
    Signature {
        name: "BatchNormGradient",
        inputs: &[F32; 5],
        outputs: &[F32; 3],
        compute: |call| normalise_back(call, batch_norm_gradient),
    },
    Signature { name: "MaxPool", inputs: &[F32], outputs: &[F32], compute: |call| pool(call, max_pool) },
    Signature {
        name: "MaxPoolGradient",
        inputs: &[F32; 3],
        outputs: &[F32],
        compute: |call| pool_back(call, max_pool_gradient),
    },
    Signature { name: "UpConvolution", inputs: &[F32; 3], outputs: &[F32], compute: |call| up(call, up_convolution) },
    Signature {
        name: "UpConvolutionGradient",
        inputs: &[F32; 3],
        outputs: &[F32; 3],
        compute: |call| up_back(call, up_convolution_weight_gradient, up_convolution_input_gradient),
    },
    Signature {
        name: "HeadLoss",
        inputs: &[F32, F32, F32, U8, Optional, Optional, Optional],
        outputs: &[F32; 6],
        compute: |call| {
            learn::<f32>(call, |head, workers, loss, labels, of_maps| head.learn(workers, loss, labels, of_maps))
        },
    },
    Signature { name: "HeadEvaluation", inputs: &[F32, F32, F32, U8], outputs: &[F32, F32, U8], compute: evaluate },
    Signature { name: "HeadLabels", inputs: &[F32; 3], outputs: &[U8, I32], compute: label },
    Signature { name: "GatherSquares", inputs: &[U8], outputs: &[U8], compute: gather },
    Signature { name: "EnlargeLabels", inputs: &[U8], outputs: &[U8], compute: enlarge },
    Signature {
        name: "Adam",
        inputs: &[F32, F32, F32, F32, F32, F32, Optional, Optional],
        outputs: &[F32; 3],
        compute: adam,
    },
];

struct Native {
    signature: &'static Signature,
    instructions: Instructions,
    threads: usize,
}

impl Operator for Native {
    type Kernel<'attr> = BoxedKernel<'attr>;

    fn name(&self) -> &str {
        self.signature.name
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        self.signature.inputs.iter().map(|port| match port {
            Optional | OptionalBf16 => OperatorInput::optional(port.element()),
            _ => OperatorInput::required(port.element()),
        })
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        self.signature.outputs.iter().map(|port| match port {
            Optional | OptionalBf16 => OperatorOutput::optional(port.element()),
            _ => OperatorOutput::required(port.element()),
        })
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let attributes = Attributes::new(context);
        let (compute, instructions, threads) = (self.signature.compute, self.instructions, self.threads);
        Ok(Box::new(move |context: &ComputeContext| {
            let pool = Pool { context, threads };
            let workers = Workers { instructions, spread: &pool };
            no_panic(|| compute(&Call { context, workers, attributes: &attributes }))
        }))
    }
}

/// The last resort: a panic must not go through ONNX Runtime, which is C, so it becomes an error with the panic's text.
fn no_panic(compute: impl FnOnce() -> ort::Result<()>) -> ort::Result<()> {
    catch_unwind(AssertUnwindSafe(compute)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(ort::Error::new(format!("it panicked, which is a bug in lookbook: {text}")))
    })
}

/// Runs tasks on threads of ONNX Runtime, which a panic must not reach either: it goes on here, when all have finished.
fn each_guarded<T>(run: impl FnOnce(&(dyn Fn(usize) + Sync)) -> T, task: &(dyn Fn(usize) + Sync)) -> T {
    let panicked = Mutex::new(None);
    let finished = run(&|index| {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| task(index))) {
            panicked.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
    });
    if let Some(payload) = panicked.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(payload);
    }
    finished
}

/// Attributes of a node; missing ones have their defaults. What they say is checked when the node is called: such an error
/// names the node.
struct Attributes {
    activation: Option<i64>,
    mask: Option<i64>,
    stride: usize,
    pads: Vec<usize>,
    fill: Vec<f32>,
    scale: usize,
    softmax: bool,
    photo: Vec<usize>,
    #[cfg_attr(
        not(all(target_arch = "x86_64", not(feature = "portable"))),
        expect(dead_code, reason = "only operators in 8-bit integers have it")
    )]
    zeros: Vec<u8>,
    #[cfg_attr(
        not(all(target_arch = "x86_64", not(feature = "portable"))),
        expect(dead_code, reason = "only operators in 8-bit integers have it")
    )]
    step: Vec<f32>,
}

impl Attributes {
    fn new(context: &KernelContext<'_>) -> Self {
        let is_set = |name: &str| context.get::<i64>(name).is_some_and(|it| it != 0);
        let numbers = |name: &str| -> Vec<usize> {
            context.get::<Vec<i64>>(name).unwrap_or_default().iter().map(|&it| it as usize).collect()
        };
        Self {
            activation: context.get::<i64>("activation").or(is_set("plain").then_some(0)),
            mask: context.get::<i64>("mask"),
            stride: context.get::<i64>("stride").unwrap_or(1) as usize,
            scale: context.get::<i64>("scale").unwrap_or(1) as usize,
            pads: numbers("pads"),
            fill: context.get::<Vec<f32>>("fill").unwrap_or_default(),
            softmax: is_set("softmax"),
            photo: numbers("photo"),
            zeros: numbers("zeros").into_iter().map(|it| it.min(255) as u8).collect(),
            step: context.get::<Vec<f32>>("step").unwrap_or_default(),
        }
    }
}

/// The activation that an attribute names, `default` if it is missing.
fn activation_of(name: &str, value: Option<i64>, default: Activation) -> ort::Result<Activation> {
    Ok(match value {
        None => default,
        Some(0) => Activation::None,
        Some(1) => Activation::Relu,
        Some(6) => Activation::Relu6,
        Some(other) => return Err(ort::Error::new(format!("the attribute '{name}' is {other}, not 0, 1 or 6"))),
    })
}

/// ONNX Runtime's thread pool.
struct Pool<'a> {
    context: &'a ComputeContext,
    threads: usize,
}

impl Spread for Pool<'_> {
    fn each(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        let run = |guarded: &(dyn Fn(usize) + Sync)| self.context.par_for(count, count, guarded);
        // `guarded` is `Send` because it is a reference to a `Sync` closure.
        each_guarded(run, task).expect("ONNX Runtime runs tasks inside of an operator");
    }

    fn threads(&self) -> usize {
        self.threads
    }
}

/// A call of a node.
struct Call<'a> {
    context: &'a ComputeContext,
    workers: Workers<'a>,
    attributes: &'a Attributes,
}

impl Call<'_> {
    fn input(&self, index: usize) -> ort::Result<ValueRef<'_>> {
        self.context.input(index)?.ok_or_else(|| ort::Error::new(format!("input {index} is missing")))
    }

    fn output(&self, index: usize, dims: impl IntoIterator<Item = usize>) -> ort::Result<ValueRefMut<'_>> {
        let dims: Vec<i64> = dims.into_iter().map(|dim| dim as i64).collect();
        self.context.output(index, dims)?.ok_or_else(|| ort::Error::new(format!("output {index} is missing")))
    }

    fn scalar_output(&self, index: usize, value: f32) -> ort::Result<()> {
        self.output(index, [])?.try_extract_tensor_mut::<f32>()?.1[0] = value;
        Ok(())
    }

    fn vector_output(&self, index: usize, values: &[f32]) -> ort::Result<()> {
        self.output(index, [values.len()])?.try_extract_tensor_mut::<f32>()?.1.copy_from_slice(values);
        Ok(())
    }

    /// The activation, `default` if the attribute is missing.
    fn activation(&self, default: Activation) -> ort::Result<Activation> {
        activation_of("activation", self.attributes.activation, default)
    }

    /// The way back through the activation whose output are these maps, `default` if the attribute is missing.
    fn mask<'a, T>(&self, maps: &'a [T], default: Activation) -> ort::Result<Option<Mask<'a, T>>> {
        let activation = activation_of("mask", self.attributes.mask, default)?;
        Ok((activation != Activation::None).then_some(Mask { activation, maps }))
    }

    /// Photos with `channels`, and what lies beyond their edge.
    fn photos<'a>(&'a self, value: &'a ValueRef<'_>, channels: usize) -> ort::Result<Photos<'a>> {
        let fill = &self.attributes.fill[..];
        if !fill.is_empty() && fill.len() != channels {
            let numbers = fill.len();
            return Err(ort::Error::new(format!("the attribute 'fill' has {numbers} numbers for {channels} channels")));
        }
        Ok(Photos { bytes: bytes(value)?, fill })
    }

    fn photo(&self) -> ort::Result<[usize; 2]> {
        let photo = <[usize; 2]>::try_from(&self.attributes.photo[..]);
        photo.map_err(|_| ort::Error::new("the attribute 'photo' is missing"))
    }
}

/// Shape of maps.
fn shape_of(value: &ValueRef<'_>) -> ort::Result<Shape> {
    let dims = dims_of(value);
    let [batch, rows, columns, channels] = dims[..] else {
        return Err(ort::Error::new(format!("maps have 4 dimensions, not {dims:?}")));
    };
    if dims.contains(&0) {
        return Err(ort::Error::new(format!("its maps {dims:?} are empty")));
    }
    Ok(Shape { batch, rows, columns, channels })
}

/// Shape of feature maps: the kernels read 8 channels at once.
fn features_of(value: &ValueRef<'_>) -> ort::Result<Shape> {
    let shape = shape_of(value)?;
    multiple_of_8("channels", shape.channels)?;
    Ok(shape)
}

fn multiple_of_8(what: &str, count: usize) -> ort::Result<()> {
    if count > 0 && count.is_multiple_of(8) {
        return Ok(());
    }
    Err(ort::Error::new(format!("its number of {what}, {count}, is not a multiple of 8")))
}

/// Checks an input's shape.
fn expect<const N: usize>(value: &ValueRef<'_>, what: &str, expected: [usize; N]) -> ort::Result<()> {
    let found = dims_of(value);
    if found == expected {
        return Ok(());
    }
    Err(ort::Error::new(format!("its {what} has the shape {found:?}, not {expected:?}")))
}

/// Checks a convolution's weight, `[out, all channels, 3, 3]`, and returns `out`.
fn outputs_of(weight: &ValueRef<'_>, all_channels: usize) -> ort::Result<usize> {
    let out = dims_of(weight).first().copied().unwrap_or(0);
    expect(weight, "weight", [out, all_channels, 3, 3])?;
    multiple_of_8("output channels", out)?;
    Ok(out)
}

/// Checks a pointwise convolution's weight, `[out, channels, 1, 1]`, and returns `out`.
fn pointwise_outputs_of(weight: &ValueRef<'_>, channels: usize) -> ort::Result<usize> {
    let out = dims_of(weight).first().copied().unwrap_or(0);
    expect(weight, "weight", [out, channels, 1, 1])?;
    multiple_of_8("output channels", out)?;
    Ok(out)
}

/// The depthwise convolution of maps of this shape with this weight, `[channels, 1, k, k]`, as the attributes have it.
fn depthwise_of(call: &Call<'_>, shape: Shape, weight: &ValueRef<'_>) -> ort::Result<Depthwise> {
    let kernel = dims_of(weight).last().copied().unwrap_or(0);
    expect(weight, "weight", [shape.channels, 1, kernel, kernel])?;
    let Attributes { stride, pads, .. } = call.attributes;
    let [top, left] = match pads[..] {
        [] => [0, 0],
        [top, left] => [top, left],
        _ => return Err(ort::Error::new(format!("the attribute 'pads' has {} numbers, not 2", pads.len()))),
    };
    let layer = Depthwise { shape, kernel, stride: *stride, pads: [top, left] };
    if !layer.is_valid() {
        return Err(ort::Error::new(format!(
            "a kernel of side {kernel} with the attributes 'stride' {stride} and 'pads' {pads:?} is not one of side 3 or 5 \
             with stride 1 or 2 and fewer pads than its side"
        )));
    }
    Ok(layer)
}

/// Checks the second maps of a convolution, with any number of channels, and returns their shape.
fn second_of(value: &ValueRef<'_>, first: Shape) -> ort::Result<Shape> {
    let shape = features_of(value)?;
    expect(value, "second input", dims(first.with_channels(shape.channels)))?;
    Ok(shape)
}

/// The elements of an optional input of this shape.
fn optional_elements<'a, E: PrimitiveTensorElementType>(
    value: Option<&'a ValueRef<'_>>,
    what: &str,
    shape: Shape,
) -> ort::Result<Option<&'a [E]>> {
    let Some(value) = value else { return Ok(None) };
    expect(value, what, dims(shape))?;
    elements(value).map(Some)
}

/// Checks a transposed convolution's weight, `[channels, out, 2, 2]`, and returns `out`.
fn up_outputs_of(weight: &ValueRef<'_>, channels: usize) -> ort::Result<usize> {
    let out = dims_of(weight).get(1).copied().unwrap_or(0);
    expect(weight, "weight", [channels, out, 2, 2])?;
    multiple_of_8("output channels", out)?;
    Ok(out)
}

/// Checks that maps can be cut into windows of 2 x 2.
fn even(shape: Shape) -> ort::Result<()> {
    if shape.rows.is_multiple_of(2) && shape.columns.is_multiple_of(2) {
        return Ok(());
    }
    Err(ort::Error::new(format!("its maps of {} x {} pixels have no even sides", shape.columns, shape.rows)))
}

/// The only element of an input.
fn number(value: &ValueRef<'_>, what: &str) -> ort::Result<f32> {
    let &[number] = floats(value)? else {
        return Err(ort::Error::new(format!("its {what} has the shape {:?}, not that of one number", dims_of(value))));
    };
    Ok(number)
}

fn dims_of(value: &ValueRef<'_>) -> Vec<usize> {
    value.shape().iter().map(|&dim| dim as usize).collect()
}

fn dims(shape: Shape) -> [usize; 4] {
    [shape.batch, shape.rows, shape.columns, shape.channels]
}

fn elements<'a, E: PrimitiveTensorElementType>(value: &'a ValueRef<'_>) -> ort::Result<&'a [E]> {
    Ok(value.try_extract_tensor::<E>()?.1)
}

fn elements_mut<'a, E: PrimitiveTensorElementType>(value: &'a mut ValueRefMut<'_>) -> ort::Result<&'a mut [E]> {
    Ok(value.try_extract_tensor_mut::<E>()?.1)
}

fn floats<'a>(value: &'a ValueRef<'_>) -> ort::Result<&'a [f32]> {
    elements(value)
}

fn bytes<'a>(value: &'a ValueRef<'_>) -> ort::Result<&'a [u8]> {
    elements(value)
}

fn floats_mut<'a>(value: &'a mut ValueRefMut<'_>) -> ort::Result<&'a mut [f32]> {
    elements_mut(value)
}

fn convolve(call: &Call<'_>) -> ort::Result<()> {
    let [maps, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let second = call.context.input(3)?;
    let (shape, all_channels, inputs) = maps_of(&maps, second.as_ref())?;
    convolve_maps(call, (shape, all_channels), &inputs, [&weight, &bias])
}

fn convolve_tiles(call: &Call<'_>) -> ort::Result<()> {
    let [maps, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let second = call.context.input(3)?;
    let (shape, all_channels, inputs) = maps_of(&maps, second.as_ref())?;
    let out = dims_of(&bias).last().copied().unwrap_or(0);
    multiple_of_8("output channels", out)?;
    expect(&weight, "weight", [TILE_POINTS, all_channels, out])?;
    expect(&bias, "bias", [out])?;
    let parameters = [floats(&weight)?, floats(&bias)?];
    let mut output = call.output(0, dims(shape.with_channels(out)))?;
    winograd_convolution(call.workers, shape, &inputs, parameters, floats_mut(&mut output)?);
    Ok(())
}

/// The shape of the first of one or two maps, the channels of all, and the maps.
fn maps_of<'a>(
    first: &'a ValueRef<'_>,
    second: Option<&'a ValueRef<'_>>,
) -> ort::Result<(Shape, usize, Vec<Maps<'a>>)> {
    let shape = features_of(first)?;
    let (mut all_channels, mut inputs) = (shape.channels, vec![Maps::Features(floats(first)?)]);
    if let Some(second) = second {
        all_channels += second_of(second, shape)?.channels;
        inputs.push(Maps::Features(floats(second)?));
    }
    Ok((shape, all_channels, inputs))
}

fn convolve_photos(call: &Call<'_>) -> ort::Result<()> {
    let [photos, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let shape = shape_of(&photos)?;
    let inputs = [Maps::Photos(call.photos(&photos, shape.channels)?)];
    convolve_maps(call, (shape, shape.channels), &inputs, [&weight, &bias])
}

fn convolve_maps(
    call: &Call<'_>,
    (shape, all_channels): (Shape, usize),
    inputs: &[Maps<'_>],
    [weight, bias]: [&ValueRef<'_>; 2],
) -> ort::Result<()> {
    let out = outputs_of(weight, all_channels)?;
    expect(bias, "bias", [out])?;
    let parameters = [floats(weight)?, floats(bias)?];
    let mut output = call.output(0, dims(shape.with_channels(out)))?;
    let activation = call.activation(Activation::Relu)?;
    convolution(call.workers, shape, inputs, parameters, activation, floats_mut(&mut output)?);
    Ok(())
}

fn convolve_back(call: &Call<'_>) -> ort::Result<()> {
    let [maps, gradient, weight] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let second = call.context.input(3)?;
    let shape = features_of(&maps)?;
    let first = floats(&maps)?;
    let mut inputs = vec![Maps::Features(first)];
    let mut all_channels = shape.channels;
    let mut output = call.output(2, dims(shape))?;
    let mut second_output = None;
    if let Some(second) = &second {
        let second_shape = second_of(second, shape)?;
        all_channels += second_shape.channels;
        inputs.push(Maps::Features(floats(second)?));
        second_output = Some(call.output(3, dims(second_shape))?);
    }
    weight_gradients(call, (shape, all_channels), &inputs, [&gradient, &weight])?;
    let mask = if second.is_some() { None } else { call.mask(first, Activation::None)? };
    let outputs = [floats_mut(&mut output)?, second_output.as_mut().map_or(Ok(&mut [][..]), floats_mut)?];
    convolution_input_gradient(call.workers, shape, floats(&gradient)?, floats(&weight)?, mask, outputs);
    Ok(())
}

fn convolve_photos_back(call: &Call<'_>) -> ort::Result<()> {
    let [photos, gradient, weight] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let shape = shape_of(&photos)?;
    let inputs = [Maps::Photos(call.photos(&photos, shape.channels)?)];
    weight_gradients(call, (shape, shape.channels), &inputs, [&gradient, &weight])
}

fn weight_gradients(
    call: &Call<'_>,
    (shape, all_channels): (Shape, usize),
    inputs: &[Maps<'_>],
    [gradient, weight]: [&ValueRef<'_>; 2],
) -> ort::Result<()> {
    let out = outputs_of(weight, all_channels)?;
    expect(gradient, "gradient", dims(shape.with_channels(out)))?;
    let (mut of_weight, mut of_bias) = (call.output(0, dims_of(weight))?, call.output(1, [out])?);
    let results = [floats_mut(&mut of_weight)?, floats_mut(&mut of_bias)?];
    convolution_weight_gradient(call.workers, shape, inputs, floats(gradient)?, results);
    Ok(())
}

// What follows is the same for maps of f32 and of bf16 (E) but for the kernels, which come with the operator.

fn convolve_pointwise<E: PrimitiveTensorElementType>(
    call: &Call<'_>,
    kernel: impl FnOnce(Workers<'_>, Shape, &[E], [&[f32]; 2], (Activation, Option<&[E]>), &mut [E]),
) -> ort::Result<()> {
    let [maps, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let residual = call.context.input(3)?;
    let shape = features_of(&maps)?;
    let out = pointwise_outputs_of(&weight, shape.channels)?;
    expect(&bias, "bias", [out])?;
    let residual = optional_elements(residual.as_ref(), "residual", shape.with_channels(out))?;
    let parameters = [floats(&weight)?, floats(&bias)?];
    let mut output = call.output(0, dims(shape.with_channels(out)))?;
    let fused = (call.activation(Activation::None)?, residual);
    kernel(call.workers, shape, elements(&maps)?, parameters, fused, elements_mut(&mut output)?);
    Ok(())
}

fn convolve_pointwise_back<E: PrimitiveTensorElementType>(
    call: &Call<'_>,
    weight_gradient: impl FnOnce(Workers<'_>, Shape, &[E], &[E], [&mut [f32]; 2]),
    input_gradient: impl FnOnce(Workers<'_>, Shape, &[E], &[f32], (Option<&[E]>, Option<Mask<'_, E>>), &mut [E]),
) -> ort::Result<()> {
    let [maps, gradient, weight] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let skip = call.context.input(3)?;
    let shape = features_of(&maps)?;
    let out = pointwise_outputs_of(&weight, shape.channels)?;
    expect(&gradient, "gradient", dims(shape.with_channels(out)))?;
    let skip = optional_elements(skip.as_ref(), "gradient from elsewhere", shape)?;
    let (mut of_weight, mut of_bias) = (call.output(0, dims_of(&weight))?, call.output(1, [out])?);
    let (maps, gradient, weight) = (elements(&maps)?, elements(&gradient)?, floats(&weight)?);
    weight_gradient(call.workers, shape, maps, gradient, [floats_mut(&mut of_weight)?, floats_mut(&mut of_bias)?]);
    let mut output = call.output(2, dims(shape))?;
    let fused = (skip, call.mask(maps, Activation::None)?);
    input_gradient(call.workers, shape, gradient, weight, fused, elements_mut(&mut output)?);
    Ok(())
}

fn convolve_depthwise<E: PrimitiveTensorElementType>(
    call: &Call<'_>,
    kernel: impl FnOnce(&Depthwise, Workers<'_>, &[E], [&[f32]; 2], Activation, &mut [E]),
) -> ort::Result<()> {
    let [maps, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let layer = depthwise_of(call, features_of(&maps)?, &weight)?;
    expect(&bias, "bias", [layer.shape.channels])?;
    let parameters = [floats(&weight)?, floats(&bias)?];
    let mut output = call.output(0, dims(layer.output_shape()))?;
    let (activation, output) = (call.activation(Activation::None)?, elements_mut(&mut output)?);
    kernel(&layer, call.workers, elements(&maps)?, parameters, activation, output);
    Ok(())
}

fn invert<E: PrimitiveTensorElementType>(
    call: &Call<'_>,
    kernel: impl FnOnce(&Inverted, Workers<'_>, &[E], InvertedParameters<'_>, &mut [E]),
) -> ort::Result<()> {
    let [maps, depthwise, depthwise_bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let [project, project_bias] = [call.input(3)?, call.input(4)?];
    let [expand, expand_bias] = [call.context.input(5)?, call.context.input(6)?];
    let shape = features_of(&maps)?;
    let mut inner = shape.channels;
    let expand = match (&expand, &expand_bias) {
        (Some(weight), Some(bias)) => {
            inner = pointwise_outputs_of(weight, shape.channels)?;
            expect(bias, "bias of the first convolution", [inner])?;
            Some([floats(weight)?, floats(bias)?])
        }
        (None, None) => None,
        _ => return Err(ort::Error::new("a weight comes with a bias")),
    };
    let layer = depthwise_of(call, shape.with_channels(inner), &depthwise)?;
    expect(&depthwise_bias, "bias of the depthwise convolution", [inner])?;
    let out = pointwise_outputs_of(&project, inner)?;
    expect(&project_bias, "bias of the last convolution", [out])?;
    let block = Inverted { depthwise: layer, channels: shape.channels, out };
    let parameters = InvertedParameters {
        expand,
        depthwise: [floats(&depthwise)?, floats(&depthwise_bias)?],
        project: [floats(&project)?, floats(&project_bias)?],
    };
    let mut output = call.output(0, dims(block.output_shape()))?;
    kernel(&block, call.workers, elements(&maps)?, parameters, elements_mut(&mut output)?);
    Ok(())
}

fn convolve_depthwise_back<E: PrimitiveTensorElementType>(
    call: &Call<'_>,
    weight_gradient: impl FnOnce(&Depthwise, Workers<'_>, &[E], &[E], [&mut [f32]; 2]),
    input_gradient: impl FnOnce(&Depthwise, Workers<'_>, &[E], &[f32], Option<Mask<'_, E>>, &mut [E]),
) -> ort::Result<()> {
    let [maps, gradient, weight] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let layer = depthwise_of(call, features_of(&maps)?, &weight)?;
    expect(&gradient, "gradient", dims(layer.output_shape()))?;
    let (mut of_weight, mut of_bias) = (call.output(0, dims_of(&weight))?, call.output(1, [layer.shape.channels])?);
    let (maps, gradient, weight) = (elements(&maps)?, elements(&gradient)?, floats(&weight)?);
    weight_gradient(&layer, call.workers, maps, gradient, [floats_mut(&mut of_weight)?, floats_mut(&mut of_bias)?]);
    let mut output = call.output(2, dims(layer.shape))?;
    let (mask, output) = (call.mask(maps, Activation::None)?, elements_mut(&mut output)?);
    input_gradient(&layer, call.workers, gradient, weight, mask, output);
    Ok(())
}

fn normalise<E: PrimitiveTensorElementType>(
    call: &Call<'_>,
    kernel: impl FnOnce(Workers<'_>, Shape, &[E], [&[f32]; 2], f32, (Activation, Option<&[E]>), &mut [E]) -> [Vec<f32>; 2],
) -> ort::Result<()> {
    let [maps, scale, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let residual = call.context.input(3)?;
    let shape = features_of(&maps)?;
    expect(&scale, "scale", [shape.channels])?;
    expect(&bias, "bias", [shape.channels])?;
    let residual = optional_elements(residual.as_ref(), "residual", shape)?;
    let fused = (call.activation(Activation::Relu)?, residual);
    let mut output = call.output(0, dims(shape))?;
    let (maps, parameters) = (elements(&maps)?, [floats(&scale)?, floats(&bias)?]);
    let output = elements_mut(&mut output)?;
    let [mean, variance] = kernel(call.workers, shape, maps, parameters, VARIANCE_EPSILON, fused, output);
    call.vector_output(1, &mean)?;
    call.vector_output(2, &variance)
}

fn normalise_back<E: PrimitiveTensorElementType>(
    call: &Call<'_>,
    kernel: impl FnOnce(Workers<'_>, Shape, [&[E]; 2], &[f32], [&[f32]; 2], f32, &mut [E]) -> [Vec<f32>; 2],
) -> ort::Result<()> {
    let [maps, gradient] = [call.input(0)?, call.input(1)?];
    let values = [call.input(2)?, call.input(3)?, call.input(4)?];
    let shape = features_of(&maps)?;
    expect(&gradient, "gradient", dims(shape))?;
    for (value, what) in values.iter().zip(["scale", "mean", "variance"]) {
        expect(value, what, [shape.channels])?;
    }
    let [scale, statistics @ ..] = [floats(&values[0])?, floats(&values[1])?, floats(&values[2])?];
    let maps = [elements(&maps)?, elements(&gradient)?];
    let mut output = call.output(2, dims(shape))?;
    let output = elements_mut(&mut output)?;
    let [of_scale, of_bias] = kernel(call.workers, shape, maps, scale, statistics, VARIANCE_EPSILON, output);
    call.vector_output(0, &of_scale)?;
    call.vector_output(1, &of_bias)
}

fn pool<E: PrimitiveTensorElementType>(
    call: &Call<'_>,
    kernel: impl FnOnce(Workers<'_>, Shape, &[E], &mut [E]),
) -> ort::Result<()> {
    let maps = call.input(0)?;
    let shape = features_of(&maps)?;
    even(shape)?;
    let mut output = call.output(0, dims(pooled_shape(shape)))?;
    kernel(call.workers, shape, elements(&maps)?, elements_mut(&mut output)?);
    Ok(())
}

fn gather(call: &Call<'_>) -> ort::Result<()> {
    let photos = call.input(0)?;
    let shape = shape_of(&photos)?;
    even(shape)?;
    let mut squares = call.output(0, dims(pooled_shape(shape).with_channels(4 * shape.channels)))?;
    gather_squares(call.workers, shape, elements(&photos)?, elements_mut(&mut squares)?);
    Ok(())
}

fn enlarge(call: &Call<'_>) -> ort::Result<()> {
    let labels = call.input(0)?;
    let dims = dims_of(&labels);
    let [batch @ (1..), rows @ (1..), columns @ (1..)] = dims[..] else {
        return Err(ort::Error::new(format!("its label map has the shape {dims:?}, not [batch, rows, columns]")));
    };
    let mut enlarged = call.output(0, [batch, 2 * rows, 2 * columns])?;
    let shape = Shape { batch, rows, columns, channels: 1 };
    enlarge_labels(call.workers, shape, elements(&labels)?, elements_mut(&mut enlarged)?);
    Ok(())
}

fn pool_back<E: PrimitiveTensorElementType>(
    call: &Call<'_>,
    kernel: impl FnOnce(Workers<'_>, Shape, &[E], &[E], &[E], &mut [E]),
) -> ort::Result<()> {
    let [maps, gradient, skip] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let shape = features_of(&maps)?;
    even(shape)?;
    expect(&gradient, "gradient", dims(pooled_shape(shape)))?;
    expect(&skip, "gradient of the skip connection", dims(shape))?;
    let mut output = call.output(0, dims(shape))?;
    let [maps, gradient, skip] = [elements(&maps)?, elements(&gradient)?, elements(&skip)?];
    kernel(call.workers, shape, maps, gradient, skip, elements_mut(&mut output)?);
    Ok(())
}

fn up<E: PrimitiveTensorElementType>(
    call: &Call<'_>,
    kernel: impl FnOnce(Workers<'_>, Shape, &[E], [&[f32]; 2], &mut [E]),
) -> ort::Result<()> {
    let [maps, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let shape = features_of(&maps)?;
    let out = up_outputs_of(&weight, shape.channels)?;
    expect(&bias, "bias", [out])?;
    let parameters = [floats(&weight)?, floats(&bias)?];
    let mut output = call.output(0, dims(up_shape(shape, out)))?;
    kernel(call.workers, shape, elements(&maps)?, parameters, elements_mut(&mut output)?);
    Ok(())
}

fn up_back<E: PrimitiveTensorElementType>(
    call: &Call<'_>,
    weight_gradient: impl FnOnce(Workers<'_>, Shape, &[E], &[E], [&mut [f32]; 2]),
    input_gradient: impl FnOnce(Workers<'_>, Shape, &[E], &[f32], Option<Mask<'_, E>>, &mut [E]),
) -> ort::Result<()> {
    let [maps, gradient, weight] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let shape = features_of(&maps)?;
    let out = up_outputs_of(&weight, shape.channels)?;
    expect(&gradient, "gradient", dims(up_shape(shape, out)))?;
    let (mut of_weight, mut of_bias) = (call.output(0, dims_of(&weight))?, call.output(1, [out])?);
    let (maps, gradient, weight) = (elements(&maps)?, elements(&gradient)?, floats(&weight)?);
    weight_gradient(call.workers, shape, maps, gradient, [floats_mut(&mut of_weight)?, floats_mut(&mut of_bias)?]);
    let mut output = call.output(2, dims(shape))?;
    let (mask, output) = (call.mask(maps, Activation::Relu)?, elements_mut(&mut output)?);
    input_gradient(call.workers, shape, gradient, weight, mask, output);
    Ok(())
}

/// `learn_from` is [`Head::learn`] of maps of either kind.
fn learn<T: PrimitiveTensorElementType>(
    call: &Call<'_>,
    learn_from: impl FnOnce(Head<'_, T>, Workers<'_>, HeadLoss<'_>, &[u8], &mut [T]) -> HeadGradients,
) -> ort::Result<()> {
    let [maps, weight, bias, labels] = [call.input(0)?, call.input(1)?, call.input(2)?, call.input(3)?];
    let [weights, dice, smoothing] = [call.context.input(4)?, call.context.input(5)?, call.context.input(6)?];
    let shape = shape_of(&maps)?;
    let head = head::<T>(call, shape, [&maps, &weight, &bias])?;
    let count = head.maps;
    expect(&labels, "labels", [shape.batch, shape.rows, shape.columns])?;
    let dice = dice.as_ref().map_or(Ok(0.0), |it| number(it, "weight of the Dice term"))?;
    let smoothing = smoothing.as_ref().map_or(Ok(0.0), |it| number(it, "share of a label that is spread"))?;
    let mut loss = HeadLoss::Bce;
    if let Some(weights) = &weights {
        expect(weights, "weights of the categories", [count])?;
        loss = HeadLoss::Softmax { weights: floats(weights)?, dice, smoothing };
    }
    let mut gradient = call.output(4, dims(shape))?;
    let of_maps = gradient.try_extract_tensor_mut::<T>()?.1;
    let learnt = learn_from(head, call.workers, loss, bytes(&labels)?, of_maps);
    call.scalar_output(0, learnt.loss)?;
    call.scalar_output(1, learnt.pixel_accuracy)?;
    call.output(2, dims_of(&weight))?.try_extract_tensor_mut::<f32>()?.1.copy_from_slice(&learnt.weight);
    call.output(3, dims_of(&bias))?.try_extract_tensor_mut::<f32>()?.1.copy_from_slice(&learnt.bias);
    let mut present = call.output(5, [shape.batch, count])?;
    floats_mut(&mut present)?.copy_from_slice(&learnt.present);
    Ok(())
}

fn evaluate(call: &Call<'_>) -> ort::Result<()> {
    let [maps, weight, bias, labels] = [call.input(0)?, call.input(1)?, call.input(2)?, call.input(3)?];
    let shape = shape_of(&maps)?;
    let head: Head<'_> = head(call, shape, [&maps, &weight, &bias])?;
    expect(&labels, "labels", [shape.batch, shape.rows, shape.columns])?;
    let mut map = call.output(2, dims_of(&labels))?;
    let map = map.try_extract_tensor_mut::<u8>()?.1;
    let [loss, bce] = head.evaluate(call.workers, call.attributes.softmax, bytes(&labels)?, map);
    call.scalar_output(0, loss)?;
    call.scalar_output(1, bce)
}

fn label(call: &Call<'_>) -> ort::Result<()> {
    let [maps, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let shape = shape_of(&maps)?;
    let head: Head<'_> = head(call, shape, [&maps, &weight, &bias])?;
    let scale = call.attributes.scale;
    if !LABEL_SCALES.contains(&scale) {
        return Err(ort::Error::new(format!("the attribute 'scale' is {scale}, not one of {LABEL_SCALES:?}")));
    }
    let mut map = call.output(0, [shape.batch, scale * shape.rows, scale * shape.columns])?;
    let mut counts = call.output(1, [shape.batch, head.maps])?;
    let (map, counts) = (map.try_extract_tensor_mut::<u8>()?.1, counts.try_extract_tensor_mut::<i32>()?.1);
    head.label(call.workers, scale, map, counts);
    Ok(())
}

fn head<'a, T: PrimitiveTensorElementType>(
    call: &Call<'_>,
    shape: Shape,
    [maps, weight, bias]: [&'a ValueRef<'_>; 3],
) -> ort::Result<Head<'a, T>> {
    if !HEAD_CHANNELS.contains(&shape.channels) {
        return Err(ort::Error::new(format!(
            "its maps have {} channels, not one of {HEAD_CHANNELS:?}",
            shape.channels
        )));
    }
    let count = dims_of(weight).first().copied().unwrap_or(0);
    if !(1..=MAX_MAPS).contains(&count) {
        return Err(ort::Error::new(format!("it has {count} maps; 1 to {MAX_MAPS} are possible")));
    }
    expect(weight, "weight", [count, shape.channels, 1, 1])?;
    if dims_of(bias) != [shape.batch, count] {
        expect(bias, "bias", [count])?;
    }
    let photo = call.photo()?;
    if !(1..=shape.rows).contains(&photo[0]) || !(1..=shape.columns).contains(&photo[1]) {
        let maps = [shape.rows, shape.columns];
        return Err(ort::Error::new(format!("the attribute 'photo' is {photo:?}, not within maps of {maps:?}")));
    }
    let input = maps.try_extract_tensor::<T>()?.1;
    Ok(Head { shape, maps: count, input, weight: floats(weight)?, bias: floats(bias)?, photo })
}

fn adam(call: &Call<'_>) -> ort::Result<()> {
    let values = (0..6).map(|index| call.input(index)).collect::<ort::Result<Vec<_>>>()?;
    let inputs = values.iter().map(floats).collect::<ort::Result<Vec<_>>>()?;
    let [gradient, weights, first, second, ..] = inputs[..] else { unreachable!("there are 6") };
    for (value, what) in values.iter().zip(["gradient", "weights", "first moment", "second moment"]) {
        expect(value, what, [gradient.len()])?;
    }
    let of_weights = match [call.context.input(6)?, call.context.input(7)?] {
        [None, None] => None,
        [Some(factors), Some(decays)] => {
            expect(&factors, "factors of the learning rate", [gradient.len()])?;
            expect(&decays, "decays", [gradient.len()])?;
            Some([factors, decays])
        }
        _ => return Err(ort::Error::new("its factors of the learning rate and decays come together")),
    };
    let adam = Adam {
        beta_1: ADAM_BETA_1,
        beta_2: ADAM_BETA_2,
        epsilon: ADAM_EPSILON,
        step: number(&values[4], "step")?,
        learning_rate: number(&values[5], "learning rate")?,
    };
    let mut outputs =
        [call.output(0, [weights.len()])?, call.output(1, [weights.len()])?, call.output(2, [weights.len()])?];
    let [new_weights, new_first, new_second] = &mut outputs;
    let outputs = [floats_mut(new_weights)?, floats_mut(new_first)?, floats_mut(new_second)?];
    let of_weights = match &of_weights {
        Some([factors, decays]) => Some([floats(factors)?, floats(decays)?]),
        None => None,
    };
    adam.apply(call.workers, AdamInputs { gradient, weights, moments: [first, second], of_weights }, outputs);
    Ok(())
}

#[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
mod int8 {
    /// None without the instructions.
    pub(super) const OPERATORS: &[super::Signature] = &[];

    pub(super) fn is_available() -> bool {
        false
    }
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod int8;

#[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
mod bf16 {
    /// No bf16 operators without the instructions.
    pub(super) const OPERATORS: &[&[super::Signature]] = &[];

    pub(super) fn is_available() -> bool {
        false
    }
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod bf16;

#[cfg(test)]
mod tests {
    use lookbook_ops::Rayon;

    use super::*;

    /// Errors of ONNX Runtime are made by its library; whether it is there, said aloud if not.
    fn is_loaded() -> bool {
        let loaded = crate::runtime::library();
        loaded.inspect_err(|problem| eprintln!("SKIPPED: {problem}")).is_ok()
    }

    #[test]
    fn a_panic_becomes_an_error_with_its_text() {
        if !is_loaded() {
            return;
        }
        assert!(no_panic(|| Ok(())).is_ok());
        let problem = no_panic(|| panic!("broken at {}", 7)).expect_err("it panicked").to_string();
        assert!(problem.contains("broken at 7"), "{problem}");
        let problem = no_panic(|| Err(ort::Error::new("bad"))).expect_err("it failed").to_string();
        assert!(problem.contains("bad"), "{problem}");
    }

    #[test]
    fn a_panic_on_another_thread_is_one_of_the_operator() {
        if !is_loaded() {
            return;
        }
        let task = |index: usize| assert!(index != 5, "task {index} is broken");
        let run = || each_guarded(|guarded| Rayon.each(9, guarded), &task);
        let problem = no_panic(|| {
            run();
            Ok(())
        });
        assert!(problem.expect_err("a task panicked").to_string().contains("task 5 is broken"));
    }
}
