//! The operators of the domain `lookbook`, in the form in which ONNX Runtime calls them.
//!
//! | operator | inputs | outputs |
//! | --- | --- | --- |
//! | `Convolution` | maps, weight, bias, optional second maps | maps after `ReLU`, or before it with the attribute `plain` |
//! | `ConvolutionGradient` | maps, gradient of the output, weight, optional second maps | gradients of weight, bias, maps, optional second maps |
//! | `PhotoConvolution`, `PhotoConvolutionGradient` | the same with photos, u8, instead of maps | the same without the gradient of maps |
//! | `BatchNorm` | maps, scale, bias | maps after `ReLU`, mean, variance |
//! | `BatchNormGradient` | maps, gradient of the output, scale, mean, variance | gradients of scale, bias, maps |
//! | `MaxPool` | maps | maps |
//! | `MaxPoolGradient` | maps, gradient of the output, gradient through the skip connection | gradient of the maps |
//! | `UpConvolution` | maps, weight, bias | maps |
//! | `UpConvolutionGradient` | maps, gradient of the output, weight | gradients of weight, bias, maps |
//! | `HeadLoss` | maps, weight, bias, labels u8, optional weights of the categories and of the Dice term | loss, pixel accuracy, gradients of weight, bias, maps, categories present f32 `[batch, 23]` |
//! | `HeadEvaluation` | maps, weight, bias, labels | loss, binary cross-entropy, label map u8 |
//! | `HeadLabels` | maps, weight, bias; attribute `scale` | label map u8, of maps enlarged so many times; pixels of each category i32 `[batch, 23]` |
//! | `Bf16Convolution`, `Bf16PhotoConvolution`, `Bf16MaxPool`, `Bf16UpConvolution` | as those without `Bf16`, maps bf16 (as u16) | maps, bf16 |
//! | `Bf16LastConvolution` | as `Bf16Convolution` | maps, f32 |
//! | `Adam` | gradient, weights, first and second moment, step, learning rate | weights, first and second moment |
//!
//! Maps are f32 `[batch, rows, columns, channels]`. Gradients of maps that are the output of a `ReLU` are zero wherever
//! the maps are not positive; all gradient operators assume such maps except `ConvolutionGradient`, which has the
//! attribute `mask` for it. The operators of the head have the attribute `photo`: the rows and columns that belong to
//! the photo. A loss with weights of the categories is softmax with cross-entropy, one without is sigmoid with binary
//! cross-entropy; `HeadEvaluation` has the attribute `softmax`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use ort::operator::{
    BoxedKernel, ComputeContext, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::value::{TensorElementType, ValueRef, ValueRefMut};

use crate::graph::builder::DOMAIN;
use crate::graph::parameters::VARIANCE_EPSILON;
use crate::graph::{ADAM_BETA_1, ADAM_BETA_2, ADAM_EPSILON};
use crate::labels::CATEGORY_COUNT;
use lookbook_ops::adam::{Adam, AdamInputs};
use lookbook_ops::convolution::{convolution, convolution_input_gradient, convolution_weight_gradient};
use lookbook_ops::head::{HEAD_CHANNELS, Head, HeadLoss, LABEL_SCALES, MAPS};
use lookbook_ops::maps::{Maps, Shape};
use lookbook_ops::norm::{batch_norm, batch_norm_gradient};
use lookbook_ops::pool::{max_pool, max_pool_gradient, pooled_shape};
use lookbook_ops::up::{up_convolution, up_convolution_input_gradient, up_convolution_weight_gradient, up_shape};
use lookbook_ops::{Instructions, Spread, Workers};

const _: () = assert!(MAPS == CATEGORY_COUNT, "the kernels of the head are written for the categories");

/// All operators, for sessions with `threads` threads.
///
/// # Errors
/// The error from ONNX Runtime.
pub fn domain(instructions: Instructions, threads: usize) -> ort::Result<OperatorDomain> {
    let operators = OPERATORS.iter().chain(bf16::OPERATORS);
    operators
        .fold(OperatorDomain::new(DOMAIN), |domain, signature| domain?.add(Native { signature, instructions, threads }))
}

/// Whether the bf16 operators can run on this processor.
#[must_use]
pub fn has_bf16() -> bool {
    bf16::is_available()
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
#[allow(dead_code, reason = "bf16 operators are not compiled for every processor")]
enum Port {
    F32,
    U8,
    I32,
    /// bf16, as raw bits.
    Bf16,
    /// f32, or nothing.
    Optional,
    /// bf16, or nothing.
    OptionalBf16,
}

use Port::{Bf16, F32, I32, Optional, OptionalBf16, U8};

impl Port {
    fn element(self) -> TensorElementType {
        match self {
            F32 | Optional => TensorElementType::Float32,
            U8 => TensorElementType::Uint8,
            I32 => TensorElementType::Int32,
            Bf16 | OptionalBf16 => TensorElementType::Uint16,
        }
    }
}

const OPERATORS: [Signature; 14] = [
    Signature { name: "Convolution", inputs: &[F32, F32, F32, Optional], outputs: &[F32], compute: convolve },
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
    Signature { name: "BatchNorm", inputs: &[F32; 3], outputs: &[F32; 3], compute: normalise },
    Signature { name: "BatchNormGradient", inputs: &[F32; 5], outputs: &[F32; 3], compute: normalise_back },
    Signature { name: "MaxPool", inputs: &[F32], outputs: &[F32], compute: pool },
    Signature { name: "MaxPoolGradient", inputs: &[F32; 3], outputs: &[F32], compute: pool_back },
    Signature { name: "UpConvolution", inputs: &[F32; 3], outputs: &[F32], compute: up },
    Signature { name: "UpConvolutionGradient", inputs: &[F32; 3], outputs: &[F32; 3], compute: up_back },
    Signature {
        name: "HeadLoss",
        inputs: &[F32, F32, F32, U8, Optional, Optional],
        outputs: &[F32; 6],
        compute: learn,
    },
    Signature { name: "HeadEvaluation", inputs: &[F32, F32, F32, U8], outputs: &[F32, F32, U8], compute: evaluate },
    Signature { name: "HeadLabels", inputs: &[F32; 3], outputs: &[U8, I32], compute: label },
    Signature { name: "Adam", inputs: &[F32; 6], outputs: &[F32; 3], compute: adam },
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
        let attributes = Attributes {
            mask: context.get::<i64>("mask").is_some_and(|it| it != 0),
            plain: context.get::<i64>("plain").is_some_and(|it| it != 0),
            scale: context.get::<i64>("scale").map_or(1, |it| usize::try_from(it).unwrap_or(0)),
            softmax: context.get::<i64>("softmax").is_some_and(|it| it != 0),
            photo: context.get::<Vec<i64>>("photo").unwrap_or_default().iter().map(|&it| it as usize).collect(),
        };
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

/// Attributes of a node; missing ones have their defaults.
struct Attributes {
    mask: bool,
    plain: bool,
    scale: usize,
    softmax: bool,
    photo: Vec<usize>,
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

fn floats<'a>(value: &'a ValueRef<'_>) -> ort::Result<&'a [f32]> {
    Ok(value.try_extract_tensor::<f32>()?.1)
}

fn bytes<'a>(value: &'a ValueRef<'_>) -> ort::Result<&'a [u8]> {
    Ok(value.try_extract_tensor::<u8>()?.1)
}

fn floats_mut<'a>(value: &'a mut ValueRefMut<'_>) -> ort::Result<&'a mut [f32]> {
    Ok(value.try_extract_tensor_mut::<f32>()?.1)
}

fn convolve(call: &Call<'_>) -> ort::Result<()> {
    let [maps, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let second = call.context.input(3)?;
    let shape = features_of(&maps)?;
    let mut inputs = vec![Maps::Features(floats(&maps)?)];
    if let Some(second) = &second {
        expect(second, "second input", dims(shape))?;
        inputs.push(Maps::Features(floats(second)?));
    }
    convolve_maps(call, shape, &inputs, [&weight, &bias])
}

fn convolve_photos(call: &Call<'_>) -> ort::Result<()> {
    let [photos, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    convolve_maps(call, shape_of(&photos)?, &[Maps::Photos(bytes(&photos)?)], [&weight, &bias])
}

fn convolve_maps(
    call: &Call<'_>,
    shape: Shape,
    inputs: &[Maps<'_>],
    [weight, bias]: [&ValueRef<'_>; 2],
) -> ort::Result<()> {
    let out = outputs_of(weight, inputs.len() * shape.channels)?;
    expect(bias, "bias", [out])?;
    let parameters = [floats(weight)?, floats(bias)?];
    let mut output = call.output(0, dims(shape.with_channels(out)))?;
    convolution(call.workers, shape, inputs, parameters, !call.attributes.plain, floats_mut(&mut output)?);
    Ok(())
}

fn convolve_back(call: &Call<'_>) -> ort::Result<()> {
    let [maps, gradient, weight] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let second = call.context.input(3)?;
    let shape = features_of(&maps)?;
    let first = floats(&maps)?;
    let mut inputs = vec![Maps::Features(first)];
    let mut output = call.output(2, dims(shape))?;
    let mut second_output = None;
    if let Some(second) = &second {
        expect(second, "second input", dims(shape))?;
        inputs.push(Maps::Features(floats(second)?));
        second_output = Some(call.output(3, dims(shape))?);
    }
    weight_gradients(call, shape, &inputs, [&gradient, &weight])?;
    let mask = call.attributes.mask.then_some(first);
    let outputs = [floats_mut(&mut output)?, second_output.as_mut().map_or(Ok(&mut [][..]), floats_mut)?];
    convolution_input_gradient(call.workers, shape, floats(&gradient)?, floats(&weight)?, mask, outputs);
    Ok(())
}

fn convolve_photos_back(call: &Call<'_>) -> ort::Result<()> {
    let [photos, gradient, weight] = [call.input(0)?, call.input(1)?, call.input(2)?];
    weight_gradients(call, shape_of(&photos)?, &[Maps::Photos(bytes(&photos)?)], [&gradient, &weight])
}

fn weight_gradients(
    call: &Call<'_>,
    shape: Shape,
    inputs: &[Maps<'_>],
    [gradient, weight]: [&ValueRef<'_>; 2],
) -> ort::Result<()> {
    let out = outputs_of(weight, inputs.len() * shape.channels)?;
    expect(gradient, "gradient", dims(shape.with_channels(out)))?;
    let (mut of_weight, mut of_bias) = (call.output(0, dims_of(weight))?, call.output(1, [out])?);
    let results = [floats_mut(&mut of_weight)?, floats_mut(&mut of_bias)?];
    convolution_weight_gradient(call.workers, shape, inputs, floats(gradient)?, results);
    Ok(())
}

fn normalise(call: &Call<'_>) -> ort::Result<()> {
    let [maps, scale, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let shape = features_of(&maps)?;
    expect(&scale, "scale", [shape.channels])?;
    expect(&bias, "bias", [shape.channels])?;
    let mut output = call.output(0, dims(shape))?;
    let parameters = [floats(&scale)?, floats(&bias)?];
    let output = floats_mut(&mut output)?;
    let [mean, variance] = batch_norm(call.workers, shape, floats(&maps)?, parameters, VARIANCE_EPSILON, output);
    call.vector_output(1, &mean)?;
    call.vector_output(2, &variance)
}

fn normalise_back(call: &Call<'_>) -> ort::Result<()> {
    let values = (0..5).map(|index| call.input(index)).collect::<ort::Result<Vec<_>>>()?;
    let inputs = values.iter().map(floats).collect::<ort::Result<Vec<_>>>()?;
    let [maps, gradient, scale, mean, variance] = inputs[..] else { unreachable!("there are 5") };
    let shape = features_of(&values[0])?;
    expect(&values[1], "gradient", dims(shape))?;
    for (value, what) in values[2..].iter().zip(["scale", "mean", "variance"]) {
        expect(value, what, [shape.channels])?;
    }
    let mut output = call.output(2, dims(shape))?;
    let output = floats_mut(&mut output)?;
    let (maps, statistics) = ([maps, gradient], [mean, variance]);
    let [of_scale, of_bias] =
        batch_norm_gradient(call.workers, shape, maps, scale, statistics, VARIANCE_EPSILON, output);
    call.vector_output(0, &of_scale)?;
    call.vector_output(1, &of_bias)
}

fn pool(call: &Call<'_>) -> ort::Result<()> {
    let maps = call.input(0)?;
    let shape = features_of(&maps)?;
    even(shape)?;
    let mut output = call.output(0, dims(pooled_shape(shape)))?;
    max_pool(call.workers, shape, floats(&maps)?, floats_mut(&mut output)?);
    Ok(())
}

fn pool_back(call: &Call<'_>) -> ort::Result<()> {
    let [maps, gradient, skip] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let shape = features_of(&maps)?;
    even(shape)?;
    expect(&gradient, "gradient", dims(pooled_shape(shape)))?;
    expect(&skip, "gradient of the skip connection", dims(shape))?;
    let mut output = call.output(0, dims(shape))?;
    let [maps, gradient, skip] = [floats(&maps)?, floats(&gradient)?, floats(&skip)?];
    max_pool_gradient(call.workers, shape, maps, gradient, skip, floats_mut(&mut output)?);
    Ok(())
}

fn up(call: &Call<'_>) -> ort::Result<()> {
    let [maps, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let shape = features_of(&maps)?;
    let out = up_outputs_of(&weight, shape.channels)?;
    expect(&bias, "bias", [out])?;
    let parameters = [floats(&weight)?, floats(&bias)?];
    let mut output = call.output(0, dims(up_shape(shape, out)))?;
    up_convolution(call.workers, shape, floats(&maps)?, parameters, floats_mut(&mut output)?);
    Ok(())
}

fn up_back(call: &Call<'_>) -> ort::Result<()> {
    let [maps, gradient, weight] = [call.input(0)?, call.input(1)?, call.input(2)?];
    let shape = features_of(&maps)?;
    let out = up_outputs_of(&weight, shape.channels)?;
    expect(&gradient, "gradient", dims(up_shape(shape, out)))?;
    let (mut of_weight, mut of_bias) = (call.output(0, dims_of(&weight))?, call.output(1, [out])?);
    let [maps, gradient, weight] = [floats(&maps)?, floats(&gradient)?, floats(&weight)?];
    let results = [floats_mut(&mut of_weight)?, floats_mut(&mut of_bias)?];
    up_convolution_weight_gradient(call.workers, shape, maps, gradient, results);
    let mut output = call.output(2, dims(shape))?;
    let mask = call.attributes.mask.then_some(maps);
    up_convolution_input_gradient(call.workers, shape, gradient, weight, mask, floats_mut(&mut output)?);
    Ok(())
}

fn learn(call: &Call<'_>) -> ort::Result<()> {
    let [maps, weight, bias, labels] = [call.input(0)?, call.input(1)?, call.input(2)?, call.input(3)?];
    let (weights, dice) = (call.context.input(4)?, call.context.input(5)?);
    let shape = shape_of(&maps)?;
    let head = head(call, shape, [&maps, &weight, &bias])?;
    expect(&labels, "labels", [shape.batch, shape.rows, shape.columns])?;
    let dice = dice.as_ref().map_or(Ok(0.0), |it| number(it, "weight of the Dice term"))?;
    let mut loss = HeadLoss::Bce;
    if let Some(weights) = &weights {
        expect(weights, "weights of the categories", [MAPS])?;
        loss = HeadLoss::Softmax { weights: floats(weights)?, dice };
    }
    let mut gradient = call.output(4, dims(shape))?;
    let learnt = head.learn(call.workers, loss, bytes(&labels)?, floats_mut(&mut gradient)?);
    call.scalar_output(0, learnt.loss)?;
    call.scalar_output(1, learnt.pixel_accuracy)?;
    call.output(2, dims_of(&weight))?.try_extract_tensor_mut::<f32>()?.1.copy_from_slice(&learnt.weight);
    call.output(3, dims_of(&bias))?.try_extract_tensor_mut::<f32>()?.1.copy_from_slice(&learnt.bias);
    let mut present = call.output(5, [shape.batch, MAPS])?;
    floats_mut(&mut present)?.copy_from_slice(&learnt.present);
    Ok(())
}

fn evaluate(call: &Call<'_>) -> ort::Result<()> {
    let [maps, weight, bias, labels] = [call.input(0)?, call.input(1)?, call.input(2)?, call.input(3)?];
    let shape = shape_of(&maps)?;
    let head = head(call, shape, [&maps, &weight, &bias])?;
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
    let head = head(call, shape, [&maps, &weight, &bias])?;
    let scale = call.attributes.scale;
    if !LABEL_SCALES.contains(&scale) {
        return Err(ort::Error::new(format!("the attribute 'scale' is {scale}, not one of {LABEL_SCALES:?}")));
    }
    let mut map = call.output(0, [shape.batch, scale * shape.rows, scale * shape.columns])?;
    let mut counts = call.output(1, [shape.batch, MAPS])?;
    let (map, counts) = (map.try_extract_tensor_mut::<u8>()?.1, counts.try_extract_tensor_mut::<i32>()?.1);
    head.label(call.workers, scale, map, counts);
    Ok(())
}

fn head<'a>(call: &Call<'_>, shape: Shape, [maps, weight, bias]: [&'a ValueRef<'_>; 3]) -> ort::Result<Head<'a>> {
    if !HEAD_CHANNELS.contains(&shape.channels) {
        return Err(ort::Error::new(format!(
            "its maps have {} channels, not one of {HEAD_CHANNELS:?}",
            shape.channels
        )));
    }
    expect(weight, "weight", [MAPS, shape.channels, 1, 1])?;
    if dims_of(bias) != [shape.batch, MAPS] {
        expect(bias, "bias", [MAPS])?;
    }
    let photo = call.photo()?;
    if !(1..=shape.rows).contains(&photo[0]) || !(1..=shape.columns).contains(&photo[1]) {
        let maps = [shape.rows, shape.columns];
        return Err(ort::Error::new(format!("the attribute 'photo' is {photo:?}, not within maps of {maps:?}")));
    }
    Ok(Head { shape, input: floats(maps)?, weight: floats(weight)?, bias: floats(bias)?, photo })
}

fn adam(call: &Call<'_>) -> ort::Result<()> {
    let values = (0..6).map(|index| call.input(index)).collect::<ort::Result<Vec<_>>>()?;
    let inputs = values.iter().map(floats).collect::<ort::Result<Vec<_>>>()?;
    let [gradient, weights, first, second, ..] = inputs[..] else { unreachable!("there are 6") };
    for (value, what) in values.iter().zip(["gradient", "weights", "first moment", "second moment"]) {
        expect(value, what, [gradient.len()])?;
    }
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
    adam.apply(call.workers, AdamInputs { gradient, weights, moments: [first, second] }, outputs);
    Ok(())
}

#[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
mod bf16 {
    /// No bf16 operators without the instructions.
    pub(super) const OPERATORS: &[super::Signature] = &[];

    pub(super) fn is_available() -> bool {
        false
    }
}

/// The bf16 operators for prediction.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod bf16 {
    use crate::runtime::operators::{Bf16, Call, F32, OptionalBf16, Signature, U8, ValueRef, ValueRefMut};
    use crate::runtime::operators::{bytes, dims, even, expect, features_of, floats, outputs_of};
    use crate::runtime::operators::{pooled_shape, shape_of, up_outputs_of, up_shape};
    use lookbook_ops::bf16::{Avx512Bf16, Bf16Maps, Element, bf16_convolution, bf16_max_pool, bf16_up_convolution};
    use ort::value::PrimitiveTensorElementType;

    pub(super) fn is_available() -> bool {
        Avx512Bf16::detect().is_some()
    }

    fn token() -> ort::Result<Avx512Bf16> {
        Avx512Bf16::detect().ok_or_else(|| ort::Error::new("this processor has no AVX-512-BF16"))
    }

    pub(super) const OPERATORS: &[Signature] = &[
        Signature {
            name: "Bf16Convolution",
            inputs: &[Bf16, F32, F32, OptionalBf16],
            outputs: &[Bf16],
            compute: convolve::<u16>,
        },
        Signature {
            name: "Bf16LastConvolution",
            inputs: &[Bf16, F32, F32, OptionalBf16],
            outputs: &[F32],
            compute: convolve::<f32>,
        },
        Signature { name: "Bf16PhotoConvolution", inputs: &[U8, F32, F32], outputs: &[Bf16], compute: photos },
        Signature { name: "Bf16MaxPool", inputs: &[Bf16], outputs: &[Bf16], compute: pool },
        Signature { name: "Bf16UpConvolution", inputs: &[Bf16, F32, F32], outputs: &[Bf16], compute: up },
    ];

    fn halves<'a>(value: &'a ValueRef<'_>) -> ort::Result<&'a [u16]> {
        Ok(value.try_extract_tensor::<u16>()?.1)
    }

    fn halves_mut<'a>(value: &'a mut ValueRefMut<'_>) -> ort::Result<&'a mut [u16]> {
        Ok(value.try_extract_tensor_mut::<u16>()?.1)
    }

    fn convolve<E: Element + PrimitiveTensorElementType>(call: &Call<'_>) -> ort::Result<()> {
        let [maps, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
        let second = call.context.input(3)?;
        let shape = features_of(&maps)?;
        let mut inputs = vec![Bf16Maps::Features(halves(&maps)?)];
        if let Some(second) = &second {
            expect(second, "second input", dims(shape))?;
            inputs.push(Bf16Maps::Features(halves(second)?));
        }
        let out = outputs_of(&weight, inputs.len() * shape.channels)?;
        expect(&bias, "bias", [out])?;
        let parameters = [floats(&weight)?, floats(&bias)?];
        let mut output = call.output(0, dims(shape.with_channels(out)))?;
        let output = output.try_extract_tensor_mut::<E>()?.1;
        bf16_convolution(token()?, call.workers.spread, shape, &inputs, parameters, output);
        Ok(())
    }

    fn photos(call: &Call<'_>) -> ort::Result<()> {
        let [photos, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
        let shape = shape_of(&photos)?;
        let out = outputs_of(&weight, shape.channels)?;
        expect(&bias, "bias", [out])?;
        let parameters = [floats(&weight)?, floats(&bias)?];
        let mut output = call.output(0, dims(shape.with_channels(out)))?;
        let inputs = [Bf16Maps::Photos(bytes(&photos)?)];
        bf16_convolution(token()?, call.workers.spread, shape, &inputs, parameters, halves_mut(&mut output)?);
        Ok(())
    }

    fn pool(call: &Call<'_>) -> ort::Result<()> {
        let maps = call.input(0)?;
        let shape = features_of(&maps)?;
        even(shape)?;
        let mut output = call.output(0, dims(pooled_shape(shape)))?;
        bf16_max_pool(token()?, call.workers.spread, shape, halves(&maps)?, halves_mut(&mut output)?);
        Ok(())
    }

    fn up(call: &Call<'_>) -> ort::Result<()> {
        let [maps, weight, bias] = [call.input(0)?, call.input(1)?, call.input(2)?];
        let shape = features_of(&maps)?;
        let out = up_outputs_of(&weight, shape.channels)?;
        expect(&bias, "bias", [out])?;
        let parameters = [floats(&weight)?, floats(&bias)?];
        let mut output = call.output(0, dims(up_shape(shape, out)))?;
        bf16_up_convolution(token()?, call.workers.spread, shape, halves(&maps)?, parameters, halves_mut(&mut output)?);
        Ok(())
    }
}

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
