//! The functions of cuDNN that the operators call, with descriptors that are freed.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use ort::ep::cuda::resource::CuDNNHandle;
use ort::operator::ComputeContext;

/// The library by the name under which ONNX Runtime has loaded it: another file of that name may be another version, and
/// refuses its handles.
const LIBRARY: &str = "libcudnn.so.9";

/// What a function of cuDNN points to: handles, descriptors, numbers on the device.
type Pointer = *mut c_void;

/// Functions of cuDNN, loaded as the first is called.
macro_rules! functions {
    ($($name:ident($($of:ty),*);)*) => {
        #[expect(non_snake_case, reason = "their own names")]
        struct Functions {
            cudnnGetErrorString: unsafe extern "C" fn(c_int) -> *const c_char,
            $($name: unsafe extern "C" fn($($of),*) -> c_int,)*
        }

        impl Functions {
            fn load() -> Result<Self, libloading::Error> {
                // SAFETY: it is loaded already, so that nothing runs; the types are those of its headers.
                unsafe {
                    let library = libloading::Library::new(LIBRARY)?;
                    let functions = Self {
                        cudnnGetErrorString: *library.get(b"cudnnGetErrorString")?,
                        $($name: *library.get(stringify!($name).as_bytes())?,)*
                    };
                    std::mem::forget(library);
                    Ok(functions)
                }
            }
        }
    };
}

functions! {
    cudnnCreateTensorDescriptor(*mut Pointer);
    cudnnSetTensor4dDescriptor(Pointer, c_int, c_int, c_int, c_int, c_int, c_int);
    cudnnDestroyTensorDescriptor(Pointer);
    cudnnCreateFilterDescriptor(*mut Pointer);
    cudnnSetFilter4dDescriptor(Pointer, c_int, c_int, c_int, c_int, c_int, c_int);
    cudnnDestroyFilterDescriptor(Pointer);
    cudnnCreateConvolutionDescriptor(*mut Pointer);
    cudnnSetConvolution2dDescriptor(Pointer, c_int, c_int, c_int, c_int, c_int, c_int, c_int, c_int);
    cudnnSetConvolutionGroupCount(Pointer, c_int);
    cudnnSetConvolutionMathType(Pointer, c_int);
    cudnnDestroyConvolutionDescriptor(Pointer);
    cudnnGetConvolutionBackwardFilterAlgorithm_v7(
        Pointer, Pointer, Pointer, Pointer, Pointer, c_int, *mut c_int, *mut Found
    );
    cudnnFindConvolutionBackwardFilterAlgorithmEx(
        Pointer, Pointer, Pointer, Pointer, Pointer, Pointer, Pointer, Pointer, c_int, *mut c_int, *mut Found, Pointer, usize
    );
    cudnnConvolutionBackwardFilter(
        Pointer, *const f32, Pointer, Pointer, Pointer, Pointer, Pointer, c_int, Pointer, usize, *const f32, Pointer, Pointer
    );
    cudnnBatchNormalizationForwardTraining(
        Pointer, c_int, *const f32, *const f32, Pointer, Pointer, Pointer, Pointer, Pointer, Pointer, Pointer, f64, Pointer,
        Pointer, f64, Pointer, Pointer
    );
    cudnnBatchNormalizationBackward(
        Pointer, c_int, *const f32, *const f32, *const f32, *const f32, Pointer, Pointer, Pointer, Pointer, Pointer, Pointer,
        Pointer, Pointer, Pointer, Pointer, f64, Pointer, Pointer
    );
    cudnnCreateActivationDescriptor(*mut Pointer);
    cudnnSetActivationDescriptor(Pointer, c_int, c_int, f64);
    cudnnDestroyActivationDescriptor(Pointer);
    cudnnActivationBackward(
        Pointer, Pointer, *const f32, Pointer, Pointer, Pointer, Pointer, Pointer, Pointer, *const f32, Pointer, Pointer
    );
}

// Of cuDNN's headers: `cudnnDataType_t`, `cudnnTensorFormat_t`, `cudnnConvolutionMode_t`, `cudnnMathType_t`,
// `cudnnDeterminism_t`, `cudnnBatchNormMode_t`, `cudnnActivationMode_t`, `cudnnNanPropagation_t`.
const DATA_FLOAT: c_int = 0;
const DATA_HALF: c_int = 2;
const TENSOR_NCHW: c_int = 0;
const CROSS_CORRELATION: c_int = 1;
const DEFAULT_MATH: c_int = 0;
const TENSOR_OP_MATH: c_int = 1;
const DETERMINISTIC: c_int = 1;
const BATCHNORM_SPATIAL: c_int = 1;
const ACTIVATION_RELU: c_int = 1;
const ACTIVATION_CLIPPED_RELU: c_int = 3;
const PROPAGATE_NAN: c_int = 1;

/// `cudnnConvolutionBwdFilterAlgoPerf_t`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Found {
    algorithm: c_int,
    status: c_int,
    millis: f32,
    bytes: usize,
    determinism: c_int,
    math: c_int,
    reserved: [c_int; 3],
}

fn functions() -> ort::Result<&'static Functions> {
    static FUNCTIONS: OnceLock<Result<Functions, String>> = OnceLock::new();
    let found = FUNCTIONS.get_or_init(|| Functions::load().map_err(|cause| cause.to_string()));
    found
        .as_ref()
        .map_err(|cause| ort::Error::new(format!("cuDNN cannot be used ({cause}); '--dialect portable' does without")))
}

fn check(status: c_int) -> ort::Result<()> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: it takes any number, and its text is never freed.
    let text = unsafe { CStr::from_ptr((functions()?.cudnnGetErrorString)(status)) };
    Err(ort::Error::new(format!("cuDNN: {}", text.to_string_lossy())))
}

/// A descriptor, and the function that frees it.
struct Descriptor {
    pointer: Pointer,
    free: unsafe extern "C" fn(Pointer) -> c_int,
}

impl Descriptor {
    fn new(
        create: unsafe extern "C" fn(*mut Pointer) -> c_int,
        free: unsafe extern "C" fn(Pointer) -> c_int,
    ) -> ort::Result<Self> {
        let mut pointer = null_mut();
        // SAFETY: it writes the descriptor there.
        check(unsafe { create(&raw mut pointer) })?;
        Ok(Self { pointer, free })
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: nothing else has the descriptor. Nothing is to be done if it cannot be freed.
        unsafe { (self.free)(self.pointer) };
    }
}

/// The element type of maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F16,
}

impl Element {
    fn data_type(self) -> c_int {
        match self {
            Self::F32 => DATA_FLOAT,
            Self::F16 => DATA_HALF,
        }
    }
}

/// ONNX Runtime's handle, on whose stream everything runs.
#[derive(Clone, Copy)]
pub(crate) struct Handle(Pointer);

impl Handle {
    pub(crate) fn of(context: &ComputeContext) -> ort::Result<Self> {
        Ok(Self(context.resource(CuDNNHandle)?.cast_mut().cast()))
    }
}

/// The description of a tensor `[batch, channels, rows, columns]`.
pub(crate) struct Tensor(Descriptor);

impl Tensor {
    pub(crate) fn new(element: Element, [batch, channels, rows, columns]: [c_int; 4]) -> ort::Result<Self> {
        let of = functions()?;
        let tensor = Descriptor::new(of.cudnnCreateTensorDescriptor, of.cudnnDestroyTensorDescriptor)?;
        let (set, kind) = (of.cudnnSetTensor4dDescriptor, element.data_type());
        // SAFETY: the descriptor lives.
        check(unsafe { set(tensor.pointer, TENSOR_NCHW, kind, batch, channels, rows, columns) })?;
        Ok(Self(tensor))
    }
}

/// Maps, or one number for each channel, on the device.
pub(crate) struct Maps {
    pub(crate) dims: [c_int; 4],
    pub(crate) tensor: Tensor,
    /// Valid until the operator's call ends.
    pub(crate) data: Pointer,
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
    number: c_int,
    math: c_int,
    /// Of the workspace.
    pub(crate) bytes: usize,
}

/// A [`Convolution`] between maps of certain numbers of channels.
pub(crate) struct Layer {
    convolution: Descriptor,
    kernel: Descriptor,
}

/// Most algorithms that cuDNN is asked about: it has seven, each in up to two kinds of arithmetic.
const MOST_ALGORITHMS: usize = 16;

impl Convolution {
    /// Shape of the kernel between maps of these numbers of channels.
    pub(crate) fn kernel_dims(self, inputs: c_int, outputs: c_int) -> [c_int; 4] {
        [outputs, inputs / self.groups.max(1), self.kernel, self.kernel]
    }

    pub(crate) fn layer(self, [outputs, inputs, rows, columns]: [c_int; 4]) -> ort::Result<Layer> {
        let of = functions()?;
        let convolution = Descriptor::new(of.cudnnCreateConvolutionDescriptor, of.cudnnDestroyConvolutionDescriptor)?;
        let kernel = Descriptor::new(of.cudnnCreateFilterDescriptor, of.cudnnDestroyFilterDescriptor)?;
        let math = if self.element == Element::F16 { TENSOR_OP_MATH } else { DEFAULT_MATH };
        let (at, pad, stride) = (convolution.pointer, self.pad, self.stride);
        let (set_convolution, set_kernel) = (of.cudnnSetConvolution2dDescriptor, of.cudnnSetFilter4dDescriptor);
        let kind = self.element.data_type();
        // SAFETY: the descriptors live.
        unsafe {
            check(set_convolution(at, pad, pad, stride, stride, 1, 1, CROSS_CORRELATION, DATA_FLOAT))?;
            check((of.cudnnSetConvolutionGroupCount)(at, self.groups))?;
            check((of.cudnnSetConvolutionMathType)(at, math))?;
            check(set_kernel(kernel.pointer, kind, TENSOR_NCHW, outputs, inputs, rows, columns))?;
        }
        Ok(Layer { convolution, kernel })
    }
}

impl Layer {
    /// The largest workspace, of at most so many bytes, that an algorithm wants.
    pub(crate) fn workspace(&self, handle: Handle, [x, dy]: [&Maps; 2], most: usize) -> ort::Result<usize> {
        let (mut count, mut found) = (0, [Found::default(); MOST_ALGORITHMS]);
        // SAFETY: the descriptors live, and there is room for as many answers as are asked for.
        check(unsafe {
            (functions()?.cudnnGetConvolutionBackwardFilterAlgorithm_v7)(
                handle.0,
                x.tensor.0.pointer,
                dy.tensor.0.pointer,
                self.convolution.pointer,
                self.kernel.pointer,
                MOST_ALGORITHMS as c_int,
                &raw mut count,
                found.as_mut_ptr(),
            )
        })?;
        let works = |it: &&Found| it.status == 0 && it.bytes <= most;
        Ok(found[..count as usize].iter().filter(works).map(|it| it.bytes).max().unwrap_or(0))
    }

    /// The fastest algorithm that gives the same every time, as measured, or the fastest of all if none does. Overwrites the
    /// gradient `dw`.
    pub(crate) fn fastest(
        &self,
        handle: Handle,
        [x, dy]: [&Maps; 2],
        dw: Pointer,
        (workspace, bytes): (Pointer, usize),
    ) -> ort::Result<Algorithm> {
        let (mut count, mut found) = (0, [Found::default(); MOST_ALGORITHMS]);
        // SAFETY: the descriptors live and say how large the tensors are, and there is room for as many answers as are
        // asked for.
        check(unsafe {
            (functions()?.cudnnFindConvolutionBackwardFilterAlgorithmEx)(
                handle.0,
                x.tensor.0.pointer,
                x.data,
                dy.tensor.0.pointer,
                dy.data,
                self.convolution.pointer,
                self.kernel.pointer,
                dw,
                MOST_ALGORITHMS as c_int,
                &raw mut count,
                found.as_mut_ptr(),
                workspace,
                bytes,
            )
        })?;
        // The fastest first.
        let mut works = found[..count as usize].iter().filter(|it| it.status == 0 && it.bytes <= bytes);
        let fastest = works.clone().find(|it| it.determinism == DETERMINISTIC).or_else(|| works.next());
        let fastest = fastest.ok_or_else(|| ort::Error::new("cuDNN has no algorithm for this convolution"))?;
        Ok(Algorithm { number: fastest.algorithm, math: fastest.math, bytes: fastest.bytes })
    }

    /// Writes the gradient of the kernel, times `scale`.
    pub(crate) fn gradient(
        &self,
        handle: Handle,
        [x, dy]: [&Maps; 2],
        dw: Pointer,
        (algorithm, workspace): (Algorithm, Pointer),
        scale: f32,
    ) -> ort::Result<()> {
        let of = functions()?;
        // SAFETY: the descriptors live and say how large the tensors are; the workspace is of the algorithm's size.
        unsafe {
            check((of.cudnnSetConvolutionMathType)(self.convolution.pointer, algorithm.math))?;
            check((of.cudnnConvolutionBackwardFilter)(
                handle.0,
                &raw const scale,
                x.tensor.0.pointer,
                x.data,
                dy.tensor.0.pointer,
                dy.data,
                self.convolution.pointer,
                algorithm.number,
                workspace,
                algorithm.bytes,
                &raw const NOTHING_ADDED,
                self.kernel.pointer,
                dw,
            ))
        }
    }
}

/// Factor of a result that is wanted as such.
static AS_IS: f32 = 1.0;
/// Factor of what was in an output before.
static NOTHING_ADDED: f32 = 0.0;

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
        (functions()?.cudnnBatchNormalizationForwardTraining)(
            handle.0,
            BATCHNORM_SPATIAL,
            &raw const AS_IS,
            &raw const NOTHING_ADDED,
            x.tensor.0.pointer,
            x.data,
            to.y.tensor.0.pointer,
            to.y.data,
            scale.tensor.0.pointer,
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
    // SAFETY: the descriptors live and say how large the tensors are.
    check(unsafe {
        (functions()?.cudnnBatchNormalizationBackward)(
            handle.0,
            BATCHNORM_SPATIAL,
            &raw const AS_IS,
            &raw const NOTHING_ADDED,
            &raw const factor,
            &raw const NOTHING_ADDED,
            of.x.tensor.0.pointer,
            of.x.data,
            of.dy.tensor.0.pointer,
            of.dy.data,
            dx.tensor.0.pointer,
            dx.data,
            of.scale.tensor.0.pointer,
            of.scale.data,
            d_scale.data,
            d_bias.data,
            f64::from(epsilon),
            of.mean.data,
            of.inverse.data,
        )
    })
}

/// `dy` where `x` is above zero and, if there is one, below `ceiling`; elsewhere zero.
pub(crate) fn relu_gradient(handle: Handle, x: &Maps, dy: &Maps, dx: &Maps, ceiling: Option<f32>) -> ort::Result<()> {
    let of = functions()?;
    let activation = Descriptor::new(of.cudnnCreateActivationDescriptor, of.cudnnDestroyActivationDescriptor)?;
    let mode = if ceiling.is_some() { ACTIVATION_CLIPPED_RELU } else { ACTIVATION_RELU };
    let ceiling = f64::from(ceiling.unwrap_or(0.0));
    // SAFETY: the descriptors live and say how large the tensors are.
    unsafe {
        check((of.cudnnSetActivationDescriptor)(activation.pointer, mode, PROPAGATE_NAN, ceiling))?;
        check((of.cudnnActivationBackward)(
            handle.0,
            activation.pointer,
            &raw const AS_IS,
            // In place of the output, which is above zero wherever the input is.
            x.tensor.0.pointer,
            x.data,
            dy.tensor.0.pointer,
            dy.data,
            x.tensor.0.pointer,
            x.data,
            &raw const NOTHING_ADDED,
            dx.tensor.0.pointer,
            dx.data,
        ))
    }
}
