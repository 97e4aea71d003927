//! Operators for CUDA, in the form in which ONNX Runtime calls them: what a training step needs and ONNX either has no
//! operator for or only many in place of one. cuDNN computes them, on ONNX Runtime's own stream.
//!
//! | operator | inputs | outputs |
//! | --- | --- | --- |
//! | `KernelGradient` | maps, gradient of the convolution's output | gradient of the kernel `[outputs, inputs / groups, kernel, kernel]`, mean over the batch, times `scale` |
//! | `BatchNorm` | maps, scale, bias | maps, mean, reciprocal of the standard deviation |
//! | `BatchNormGradient` | maps, gradient of the output, scale, mean, reciprocal of the standard deviation | gradients of maps, scale and bias, those of scale and bias as means over the batch |
//! | `ReluGradient` | maps, gradient of the output | gradient of the maps: zero wherever they are not positive, or not below `ceiling` |
//!
//! Maps are `[batch, channels, rows, columns]`, f32, or f16 for the operators of the same names with `F16` at the end;
//! means, deviations, scale and bias are f32, `[channels]`. Attributes: `kernel`, `stride`, `pad` (on all sides),
//! `groups` and `scale` of `KernelGradient`, `epsilon` of the normalisations, `ceiling` of `ReluGradient` (0: none).
//!
//! `unsafe` is allowed here for the calls of cuDNN alone.
#![allow(unsafe_code)]

mod cudnn;

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cudnn::{Algorithm, Convolution, Element, Handle, Maps, Normalised, Tensor, ToNormalise};
use ort::memory::{AllocatedBlock, AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::operator::{
    BoxedKernel, ComputeContext, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::value::{DynTensorValueType, TensorElementType};

/// Most bytes of a workspace: cuDNN's fastest algorithms turn their maps in it.
const MOST_WORKSPACE: usize = 4 << 30;

/// All operators, in the domain of this name.
///
/// # Errors
/// The error from ONNX Runtime.
pub fn domain(name: &str) -> ort::Result<OperatorDomain> {
    let forms = [Element::F32, Element::F16].into_iter().flat_map(|it| OPERATORS.iter().map(move |of| (of, it)));
    forms.fold(OperatorDomain::new(name), |domain, (signature, element)| {
        let suffix = if element == Element::F16 { "F16" } else { "" };
        domain?.add(Cuda { name: format!("{}{suffix}", signature.name), signature, element })
    })
}

/// Inputs and outputs of an operator.
struct Signature {
    name: &'static str,
    inputs: &'static [Port],
    outputs: &'static [Port],
    kernel: fn(&KernelContext<'_>, Element) -> Kernel,
}

/// What a node does when it is called.
type Kernel = Box<dyn FnMut(&Call<'_>) -> ort::Result<()> + Send>;

/// A tensor that is an input or output.
#[derive(Clone, Copy)]
enum Port {
    /// Of the element type of maps.
    Maps,
    /// f32, one number for each channel.
    Channels,
}

use Port::{Channels, Maps as OfMaps};

const OPERATORS: [Signature; 4] = [
    Signature { name: "KernelGradient", inputs: &[OfMaps; 2], outputs: &[OfMaps], kernel: kernel_gradient },
    Signature {
        name: "BatchNorm",
        inputs: &[OfMaps, Channels, Channels],
        outputs: &[OfMaps, Channels, Channels],
        kernel: batch_norm,
    },
    Signature {
        name: "BatchNormGradient",
        inputs: &[OfMaps, OfMaps, Channels, Channels, Channels],
        outputs: &[OfMaps, Channels, Channels],
        kernel: batch_norm_gradient,
    },
    Signature { name: "ReluGradient", inputs: &[OfMaps; 2], outputs: &[OfMaps], kernel: relu_gradient },
];

struct Cuda {
    name: String,
    signature: &'static Signature,
    element: Element,
}

impl Cuda {
    fn element_of(&self, port: Port) -> TensorElementType {
        match (port, self.element) {
            (OfMaps, Element::F16) => TensorElementType::Float16,
            _ => TensorElementType::Float32,
        }
    }
}

impl Operator for Cuda {
    type Kernel<'attr> = BoxedKernel<'attr>;

    fn name(&self) -> &str {
        &self.name
    }

    fn execution_provider_type(&self) -> Option<&str> {
        Some("CUDAExecutionProvider")
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        self.signature.inputs.iter().map(|&port| OperatorInput::required(self.element_of(port)))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        self.signature.outputs.iter().map(|&port| OperatorOutput::required(self.element_of(port)))
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let element = self.element;
        let mut kernel = (self.signature.kernel)(context, element);
        Ok(Box::new(move |context: &ComputeContext| {
            // The last resort: a panic must not go through ONNX Runtime, which is C.
            let called = catch_unwind(AssertUnwindSafe(|| kernel(&Call { context, element })));
            called.unwrap_or_else(|payload| {
                let text = payload.downcast_ref::<String>().map_or("no message", String::as_str);
                Err(ort::Error::new(format!("it panicked: {text}")))
            })
        }))
    }
}

/// A call of a node.
struct Call<'a> {
    context: &'a ComputeContext,
    element: Element,
}

impl Call<'_> {
    fn handle(&self) -> ort::Result<Handle> {
        Handle::of(self.context)
    }

    /// An input: maps.
    fn maps(&self, index: usize) -> ort::Result<Maps> {
        self.input(index, self.element)
    }

    /// An input: one number for each channel.
    fn channels(&self, index: usize) -> ort::Result<Maps> {
        self.input(index, Element::F32)
    }

    fn input(&self, index: usize, element: Element) -> ort::Result<Maps> {
        let value = self.context.input(index)?.ok_or_else(|| missing("input", index))?;
        let value = value.downcast::<DynTensorValueType>()?;
        let dims: Vec<c_int> = value.shape().iter().map(|&dim| dim as c_int).collect();
        let dims = match dims[..] {
            [batch, channels, rows, columns] => [batch, channels, rows, columns],
            [channels] => [1, channels, 1, 1],
            _ => return Err(ort::Error::new(format!("input {index} has {} dimensions, not 1 or 4", dims.len()))),
        };
        Ok(Maps { dims, tensor: Tensor::new(element, dims)?, data: value.data_ptr().cast_mut() })
    }

    /// An output: maps.
    fn maps_to(&self, index: usize, dims: [c_int; 4]) -> ort::Result<Maps> {
        self.output(index, self.element, dims, &dims)
    }

    /// An output: one number for each channel.
    fn channels_to(&self, index: usize, channels: c_int) -> ort::Result<Maps> {
        self.output(index, Element::F32, [1, channels, 1, 1], &[channels])
    }

    fn output(&self, index: usize, element: Element, dims: [c_int; 4], shape: &[c_int]) -> ort::Result<Maps> {
        let shape: Vec<i64> = shape.iter().map(|&dim| i64::from(dim)).collect();
        let value = self.context.output(index, shape)?.ok_or_else(|| missing("output", index))?;
        let value = value.downcast::<DynTensorValueType>()?;
        Ok(Maps { dims, tensor: Tensor::new(element, dims)?, data: value.data_ptr().cast_mut() })
    }
}

fn missing(what: &str, index: usize) -> ort::Error {
    ort::Error::new(format!("{what} {index} is missing"))
}

fn kernel_gradient(context: &KernelContext<'_>, element: Element) -> Kernel {
    let attribute = |name: &str, default: i64| context.get::<i64>(name).unwrap_or(default) as c_int;
    let [kernel, stride, pad, groups] =
        [("kernel", 1), ("stride", 1), ("pad", 0), ("groups", 1)].map(|(name, default)| attribute(name, default));
    let convolution = Convolution { element, kernel, stride, pad, groups };
    let scale = context.get::<f32>("scale").unwrap_or(1.0);
    let mut chosen: Option<([[c_int; 4]; 2], Algorithm)> = None;
    Box::new(move |call| {
        let handle = call.handle()?;
        let [x, dy] = [call.maps(0)?, call.maps(1)?];
        let dims = convolution.kernel_dims(x.dims[1], dy.dims[1]);
        let dw = call.maps_to(0, dims)?;
        let layer = convolution.layer(dims)?;
        let device = MemoryInfo::new(AllocationDevice::CUDA, 0, AllocatorType::Device, MemoryType::Default)?;
        let allocator = call.context.allocator(&device)?;
        let (maps, shapes) = ([&x, &dy], [x.dims, dy.dims]);
        let algorithm = match chosen {
            Some((of, algorithm)) if of == shapes => algorithm,
            _ => {
                let wanted = layer.workspace(handle, maps, MOST_WORKSPACE)?;
                let (mut workspace, bytes) = largest(&allocator, wanted)?;
                let fastest = layer.fastest(handle, maps, dw.data, (workspace.as_mut_ptr(), bytes))?;
                chosen.insert((shapes, fastest)).1
            }
        };
        let mut workspace = allocator.alloc::<u8>(algorithm.bytes.max(1))?;
        let scale = scale / x.dims[0] as f32;
        layer.gradient(handle, maps, dw.data, (algorithm, workspace.as_mut_ptr()), scale)
    })
}

/// So many bytes of memory to work with, or half of them, or a quarter, as there is room.
fn largest(allocator: &Allocator, mut bytes: usize) -> ort::Result<(AllocatedBlock<'_>, usize)> {
    loop {
        match allocator.alloc::<u8>(bytes.max(1)) {
            Err(_) if bytes > 0 => bytes /= 2,
            found => return Ok((found?, bytes)),
        }
    }
}

fn batch_norm(context: &KernelContext<'_>, _: Element) -> Kernel {
    let epsilon = context.get::<f32>("epsilon").unwrap_or(0.0);
    Box::new(move |call| {
        let (x, scale, bias) = (call.maps(0)?, call.channels(1)?, call.channels(2)?);
        let y = call.maps_to(0, x.dims)?;
        let [mean, inverse] = [call.channels_to(1, x.dims[1])?, call.channels_to(2, x.dims[1])?];
        let to = Normalised { y: &y, mean: &mean, inverse: &inverse };
        cudnn::batch_norm(call.handle()?, &x, [&scale, &bias], epsilon, &to)
    })
}

fn batch_norm_gradient(context: &KernelContext<'_>, _: Element) -> Kernel {
    let epsilon = context.get::<f32>("epsilon").unwrap_or(0.0);
    Box::new(move |call| {
        let [x, dy] = [call.maps(0)?, call.maps(1)?];
        let [scale, mean, inverse] = [call.channels(2)?, call.channels(3)?, call.channels(4)?];
        let dx = call.maps_to(0, x.dims)?;
        let [d_scale, d_bias] = [call.channels_to(1, x.dims[1])?, call.channels_to(2, x.dims[1])?];
        let of = ToNormalise { x: &x, dy: &dy, scale: &scale, mean: &mean, inverse: &inverse };
        let mean_over_batch = 1.0 / x.dims[0] as f32;
        cudnn::batch_norm_gradient(call.handle()?, &of, [&dx, &d_scale, &d_bias], (epsilon, mean_over_batch))
    })
}

fn relu_gradient(context: &KernelContext<'_>, _: Element) -> Kernel {
    let ceiling = context.get::<f32>("ceiling").filter(|&it| it > 0.0);
    Box::new(move |call| {
        let [x, dy] = [call.maps(0)?, call.maps(1)?];
        let dx = call.maps_to(0, x.dims)?;
        cudnn::relu_gradient(call.handle()?, &x, &dy, &dx, ceiling)
    })
}
