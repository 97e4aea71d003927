//! The functions of cuDNN that the operators call, with descriptors that are freed.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::null_mut;

use cudarc::cudnn::result;
use cudarc::cudnn::sys;
use ort::ep::cuda::resource::CuDNNHandle;
use ort::operator::ComputeContext;

/// cuDNN's message for `map_err`.
fn failed(cause: result::CudnnError) -> ort::Error {
    ort::Error::new(format!("cuDNN: {cause}"))
}

fn check(status: sys::cudnnStatus_t) -> ort::Result<()> {
    status.result().map_err(failed)
}

/// The element type of maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F16,
}

impl Element {
    fn data_type(self) -> sys::cudnnDataType_t {
        match self {
            Self::F32 => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            Self::F16 => sys::cudnnDataType_t::CUDNN_DATA_HALF,
        }
    }
}

/// ONNX Runtime's handle, on whose stream everything runs.
#[derive(Clone, Copy)]
pub(crate) struct Handle(sys::cudnnHandle_t);

impl Handle {
    pub(crate) fn of(context: &ComputeContext) -> ort::Result<Self> {
        Ok(Self(context.resource(CuDNNHandle)?.cast_mut().cast()))
    }
}

/// A descriptor of a tensor `[batch, channels, rows, columns]`.
pub(crate) struct Tensor(sys::cudnnTensorDescriptor_t);

impl Tensor {
    pub(crate) fn new(element: Element, dims: [c_int; 4]) -> ort::Result<Self> {
        let tensor = Self(result::create_tensor_descriptor().map_err(failed)?);
        let format = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
        // SAFETY: the descriptor was just created.
        unsafe { result::set_tensor4d_descriptor(tensor.0, format, element.data_type(), dims) }.map_err(failed)?;
        Ok(tensor)
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        // SAFETY: nothing else has the descriptor. Nothing is to be done if it cannot be freed.
        let _ = unsafe { result::destroy_tensor_descriptor(self.0) };
    }
}

/// Maps, or one number for each channel, on the device.
pub(crate) struct Maps {
    pub(crate) dims: [c_int; 4],
    pub(crate) tensor: Tensor,
    /// Valid until the operator's call ends.
    pub(crate) data: *mut c_void,
}

/// A convolution whose kernel's gradient is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Convolution {
    pub(crate) element: Element,
    /// Side of the kernel.
    pub(crate) kernel: c_int,
    pub(crate) stride: c_int,
    /// Rows of zeros above and below the maps, and columns to their left and right.
    pub(crate) pad: c_int,
    pub(crate) groups: c_int,
}

/// How the gradient is computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Algorithm {
    name: sys::cudnnConvolutionBwdFilterAlgo_t,
    math: sys::cudnnMathType_t,
    /// Of the workspace.
    pub(crate) bytes: usize,
}

/// Descriptors of a [`Convolution`] between maps of certain shapes.
pub(crate) struct Descriptors {
    convolution: sys::cudnnConvolutionDescriptor_t,
    filter: sys::cudnnFilterDescriptor_t,
}

/// Most algorithms that cuDNN is asked about: it has seven, each in up to two kinds of arithmetic.
const MOST_ALGORITHMS: usize = 16;

impl Convolution {
    /// Shape of the kernel between maps of these numbers of channels.
    pub(crate) fn kernel_dims(self, inputs: c_int, outputs: c_int) -> [c_int; 4] {
        [outputs, inputs / self.groups.max(1), self.kernel, self.kernel]
    }

    pub(crate) fn descriptors(self, kernel_dims: [c_int; 4]) -> ort::Result<Descriptors> {
        let convolution = result::create_convolution_descriptor().map_err(failed)?;
        let filter = result::create_filter_descriptor().map_err(failed)?;
        let descriptors = Descriptors { convolution, filter };
        let (pad, stride) = (self.pad, self.stride);
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let format = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
        let sums = Element::F32.data_type();
        let math = match self.element {
            Element::F32 => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
            Element::F16 => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        };
        // SAFETY: the descriptors were just created.
        let set = unsafe {
            result::set_convolution2d_descriptor(convolution, pad, pad, stride, stride, 1, 1, mode, sums)
                .and_then(|()| result::set_convolution_group_count(convolution, self.groups))
                .and_then(|()| result::set_convolution_math_type(convolution, math))
                .and_then(|()| {
                    result::set_filter4d_descriptor(filter, self.element.data_type(), format, kernel_dims)
                })
        };
        set.map_err(failed)?;
        Ok(descriptors)
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: nothing else has the descriptors. Nothing is to be done if they cannot be freed.
        let _ = unsafe { result::destroy_convolution_descriptor(self.convolution) };
        // SAFETY: as above.
        let _ = unsafe { result::destroy_filter_descriptor(self.filter) };
    }
}

impl Descriptors {
    /// The largest workspace, of at most so many bytes, that an algorithm wants.
    pub(crate) fn workspace(&self, handle: Handle, [x, dy]: [&Maps; 2], most: usize) -> ort::Result<usize> {
        let mut count = 0;
        let mut found = [const { MaybeUninit::<sys::cudnnConvolutionBwdFilterAlgoPerf_t>::uninit() }; MOST_ALGORITHMS];
        // SAFETY: the descriptors live, and there is room for as many answers as are asked for.
        check(unsafe {
            sys::cudnnGetConvolutionBackwardFilterAlgorithm_v7(
                handle.0,
                x.tensor.0,
                dy.tensor.0,
                self.convolution,
                self.filter,
                MOST_ALGORITHMS as c_int,
                &raw mut count,
                found.as_mut_ptr().cast(),
            )
        })?;
        // SAFETY: cuDNN wrote so many.
        let found = found[..count as usize].iter().map(|it| unsafe { it.assume_init() });
        let works = |it: &sys::cudnnConvolutionBwdFilterAlgoPerf_t| it.status.result().is_ok() && it.memory <= most;
        Ok(found.filter(works).map(|it| it.memory).max().unwrap_or(0))
    }

    /// The fastest algorithm that gives the same every time, as measured. Overwrites the gradient `dw`.
    pub(crate) fn fastest(
        &self,
        handle: Handle,
        [x, dy]: [&Maps; 2],
        dw: *mut c_void,
        (workspace, bytes): (*mut c_void, usize),
    ) -> ort::Result<Algorithm> {
        let mut count = 0;
        let mut found = [const { MaybeUninit::<sys::cudnnConvolutionBwdFilterAlgoPerf_t>::uninit() }; MOST_ALGORITHMS];
        // SAFETY: the descriptors live and say how large the tensors are, and there is room for as many answers as are
        // asked for.
        check(unsafe {
            sys::cudnnFindConvolutionBackwardFilterAlgorithmEx(
                handle.0,
                x.tensor.0,
                x.data,
                dy.tensor.0,
                dy.data,
                self.convolution,
                self.filter,
                dw,
                MOST_ALGORITHMS as c_int,
                &raw mut count,
                found.as_mut_ptr().cast(),
                workspace,
                bytes,
            )
        })?;
        // SAFETY: cuDNN wrote so many, the fastest first.
        let found = found[..count as usize].iter().map(|it| unsafe { it.assume_init() });
        let mut works = found.filter(|it| {
            let is_exact = it.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC;
            it.status.result().is_ok() && is_exact && it.memory <= bytes
        });
        let fastest = works.next().ok_or_else(|| ort::Error::new("cuDNN has no algorithm for this convolution"))?;
        Ok(Algorithm { name: fastest.algo, math: fastest.mathType, bytes: fastest.memory })
    }

    /// Writes the gradient of the kernel, times `scale`.
    pub(crate) fn gradient(
        &self,
        handle: Handle,
        [x, dy]: [&Maps; 2],
        dw: *mut c_void,
        (algorithm, workspace): (Algorithm, *mut c_void),
        scale: f32,
    ) -> ort::Result<()> {
        // SAFETY: the descriptors live and say how large the tensors are; the workspace is of the algorithm's size.
        unsafe {
            result::set_convolution_math_type(self.convolution, algorithm.math).map_err(failed)?;
            result::convolution_backward_filter(
                handle.0,
                (&raw const scale).cast(),
                x.tensor.0,
                x.data,
                dy.tensor.0,
                dy.data,
                self.convolution,
                algorithm.name,
                workspace,
                algorithm.bytes,
                NOTHING_ADDED.as_ptr(),
                self.filter,
                dw,
            )
            .map_err(failed)
        }
    }
}

/// A factor as cuDNN takes it.
struct Factor(f32);

impl Factor {
    fn as_ptr(&self) -> *const c_void {
        (&raw const self.0).cast()
    }
}

/// Of the result as such.
const AS_IS: Factor = Factor(1.0);
/// Of what was in the output before.
const NOTHING_ADDED: Factor = Factor(0.0);

const PER_CHANNEL: sys::cudnnBatchNormMode_t = sys::cudnnBatchNormMode_t::CUDNN_BATCHNORM_SPATIAL;

/// A normalised batch: the maps, and what is kept of each channel, one number each.
pub(crate) struct Normalised<'a> {
    pub(crate) y: &'a Maps,
    pub(crate) mean: &'a Maps,
    /// Reciprocal of the standard deviation.
    pub(crate) inverse: &'a Maps,
}

/// Normalises each channel over the batch and all pixels.
pub(crate) fn batch_norm(
    handle: Handle,
    x: &Maps,
    [scale, bias]: [&Maps; 2],
    epsilon: f32,
    to: &Normalised<'_>,
) -> ort::Result<()> {
    // SAFETY: the descriptors live and say how large the tensors are; null says that no averages are kept.
    check(unsafe {
        sys::cudnnBatchNormalizationForwardTraining(
            handle.0,
            PER_CHANNEL,
            AS_IS.as_ptr(),
            NOTHING_ADDED.as_ptr(),
            x.tensor.0,
            x.data,
            to.y.tensor.0,
            to.y.data,
            scale.tensor.0,
            scale.data,
            bias.data,
            0.0,
            null_mut(),
            null_mut(),
            f64::from(epsilon),
            to.mean.data,
            to.inverse.data,
        )
    })
}

/// What the gradient of a normalisation is computed from; `scale`, `mean` and `inverse` are one number for each channel.
pub(crate) struct ToNormalise<'a> {
    pub(crate) x: &'a Maps,
    pub(crate) dy: &'a Maps,
    pub(crate) scale: &'a Maps,
    pub(crate) mean: &'a Maps,
    pub(crate) inverse: &'a Maps,
}

/// Gradients of the maps and, times `factor`, of scale and bias.
pub(crate) fn batch_norm_gradient(
    handle: Handle,
    of: &ToNormalise<'_>,
    [dx, d_scale, d_bias]: [&Maps; 3],
    (epsilon, factor): (f32, f32),
) -> ort::Result<()> {
    let factor = Factor(factor);
    // SAFETY: the descriptors live and say how large the tensors are.
    check(unsafe {
        sys::cudnnBatchNormalizationBackward(
            handle.0,
            PER_CHANNEL,
            AS_IS.as_ptr(),
            NOTHING_ADDED.as_ptr(),
            factor.as_ptr(),
            NOTHING_ADDED.as_ptr(),
            of.x.tensor.0,
            of.x.data,
            of.dy.tensor.0,
            of.dy.data,
            dx.tensor.0,
            dx.data,
            of.scale.tensor.0,
            of.scale.data,
            d_scale.data,
            d_bias.data,
            f64::from(epsilon),
            of.mean.data,
            of.inverse.data,
        )
    })
}

struct Activation(sys::cudnnActivationDescriptor_t);

impl Drop for Activation {
    fn drop(&mut self) {
        // SAFETY: nothing else has the descriptor. Nothing is to be done if it cannot be freed.
        let _ = unsafe { sys::cudnnDestroyActivationDescriptor(self.0) };
    }
}

/// `dy` where `x` is above zero and, if there is one, below `ceiling`; elsewhere zero.
pub(crate) fn relu_gradient(
    handle: Handle,
    x: &Maps,
    dy: &Maps,
    dx: &Maps,
    ceiling: Option<f32>,
) -> ort::Result<()> {
    let activation = Activation(result::create_activation_descriptor().map_err(failed)?);
    let mode = match ceiling {
        None => sys::cudnnActivationMode_t::CUDNN_ACTIVATION_RELU,
        Some(_) => sys::cudnnActivationMode_t::CUDNN_ACTIVATION_CLIPPED_RELU,
    };
    let nan = sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN;
    // SAFETY: the descriptors live and say how large the tensors are.
    unsafe {
        result::set_activation_descriptor(activation.0, mode, nan, ceiling.map_or(0.0, f64::from)).map_err(failed)?;
        check(sys::cudnnActivationBackward(
            handle.0,
            activation.0,
            AS_IS.as_ptr(),
            // The output, which is above zero wherever the input is.
            x.tensor.0,
            x.data,
            dy.tensor.0,
            dy.data,
            x.tensor.0,
            x.data,
            NOTHING_ADDED.as_ptr(),
            dx.tensor.0,
            dx.data,
        ))
    }
}
