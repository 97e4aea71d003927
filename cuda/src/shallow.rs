//! Convolutions between maps of few channels by kernels of our own, which are compiled for the GPU as the first is called.

use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

use crate::cudnn::{Element, Maps};
use crate::library::{Pointer, functions, once};

const SOURCE: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("kernels.cu"), "\0").as_bytes()) {
    Ok(source) => source,
    Err(_) => panic!("the source has no zero byte"),
};
// Of the source.
const CHUNK: usize = 8;
const ROWS: usize = 16;
const COLUMNS: usize = 32;
const THREADS: usize = 128;
const SUM_THREADS: usize = 256;
const SUM_ROWS: usize = 8;
const PART: usize = CHUNK * CHUNK * 9;
/// Blocks that a processor of the GPU can have at work at once, of those that add up.
const BLOCKS_AT_ONCE: usize = 4;

functions! { Compiler, "libnvrtc.so.13";
    nvrtcCreateProgram(*mut Pointer, *const c_char, *const c_char, c_int, *const Pointer, *const Pointer) -> c_int;
    nvrtcCompileProgram(Pointer, c_int, *const *const c_char) -> c_int;
    nvrtcGetProgramLogSize(Pointer, *mut usize) -> c_int;
    nvrtcGetProgramLog(Pointer, *mut c_char) -> c_int;
    nvrtcGetCUBINSize(Pointer, *mut usize) -> c_int;
    nvrtcGetCUBIN(Pointer, *mut c_char) -> c_int;
    nvrtcDestroyProgram(*mut Pointer) -> c_int;
}

functions! { Driver, "libcuda.so.1";
    cuCtxGetDevice(*mut c_int) -> c_int;
    cuDeviceGetAttribute(*mut c_int, c_int, c_int) -> c_int;
    cuModuleLoadData(*mut Pointer, *const u8) -> c_int;
    cuModuleGetFunction(*mut Pointer, Pointer, *const c_char) -> c_int;
    cuLaunchKernel(
        Pointer, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Pointer, *mut Pointer, *mut Pointer
    ) -> c_int;
    cuGetErrorString(c_int, *mut *const c_char) -> c_int;
}

// `CUdevice_attribute`.
const MULTIPROCESSOR_COUNT: c_int = 16;
const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
const COMPUTE_CAPABILITY_MINOR: c_int = 76;

impl Driver {
    fn check(&self, status: c_int) -> ort::Result<()> {
        if status == 0 {
            return Ok(());
        }
        let mut text = null();
        // SAFETY: it takes any number; its texts are never freed, and there is none for a number that it does not know.
        unsafe { (self.cuGetErrorString)(status, &raw mut text) };
        // SAFETY: as above.
        let text = if text.is_null() { c"unknown error" } else { unsafe { CStr::from_ptr(text) } };
        Err(ort::Error::new(format!("CUDA: {}", text.to_string_lossy())))
    }

    fn attribute(&self, which: c_int) -> ort::Result<c_int> {
        let (mut device, mut value) = (0, 0);
        // SAFETY: they write numbers there.
        unsafe {
            self.check((self.cuCtxGetDevice)(&raw mut device))?;
            self.check((self.cuDeviceGetAttribute)(&raw mut value, which, device))?;
        }
        Ok(value)
    }
}

/// The machine code of [`SOURCE`] for the GPU in use.
fn compiled(driver: &Driver) -> ort::Result<Vec<u8>> {
    let compiler = Compiler::load()?;
    let [major, minor] = [COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR].map(|it| driver.attribute(it));
    let target = CString::new(format!("--gpu-architecture=sm_{}{}", major?, minor?)).expect("it has no zero byte");
    let mut program = null_mut();
    // SAFETY: the texts end with a zero byte, and what is written has the size that was asked for.
    unsafe {
        let name = c"kernels.cu".as_ptr();
        let created =
            (compiler.nvrtcCreateProgram)(&raw mut program, SOURCE.as_ptr(), name, 0, null(), null());
        let done = created == 0 && (compiler.nvrtcCompileProgram)(program, 1, [target.as_ptr()].as_ptr()) == 0;
        let (size_of, content_of) = if done {
            (compiler.nvrtcGetCUBINSize, compiler.nvrtcGetCUBIN)
        } else {
            (compiler.nvrtcGetProgramLogSize, compiler.nvrtcGetProgramLog)
        };
        let mut size = 0;
        size_of(program, &raw mut size);
        let mut content = vec![0_u8; size];
        content_of(program, content.as_mut_ptr().cast());
        (compiler.nvrtcDestroyProgram)(&raw mut program);
        if done {
            return Ok(content);
        }
        Err(ort::Error::new(format!("NVRTC: {}", String::from_utf8_lossy(&content))))
    }
}

/// The kernels on the GPU in use.
struct Kernels {
    driver: Driver,
    convolve_8: Forms,
    convolve_16: Forms,
    correlate: Forms,
    add_parts: Kernel,
    processors: usize,
}

/// A kernel for maps of each element type.
struct Forms {
    f32: Kernel,
    f16: Kernel,
}

impl Forms {
    fn of(&self, element: Element) -> Kernel {
        match element {
            Element::F32 => self.f32,
            Element::F16 => self.f16,
        }
    }
}

/// A kernel on the GPU, as a number: it can be called from any thread.
#[derive(Clone, Copy)]
struct Kernel(usize);

impl Kernels {
    fn load() -> ort::Result<Self> {
        let driver = Driver::load()?;
        let code = compiled(&driver)?;
        let mut module = null_mut();
        // SAFETY: it is machine code with its own length.
        driver.check(unsafe { (driver.cuModuleLoadData)(&raw mut module, code.as_ptr()) })?;
        let kernel = |name: &str| -> ort::Result<Kernel> {
            let (mut kernel, name) = (null_mut(), CString::new(name).expect("it has no zero byte"));
            // SAFETY: the module is never unloaded.
            driver.check(unsafe { (driver.cuModuleGetFunction)(&raw mut kernel, module, name.as_ptr()) })?;
            Ok(Kernel(kernel as usize))
        };
        let forms = |name: &str| -> ort::Result<Forms> {
            Ok(Forms { f32: kernel(&format!("{name}_f32"))?, f16: kernel(&format!("{name}_f16"))? })
        };
        Ok(Self {
            convolve_8: forms("convolve_8")?,
            convolve_16: forms("convolve_16")?,
            correlate: forms("correlate")?,
            add_parts: kernel("add_parts")?,
            processors: driver.attribute(MULTIPROCESSOR_COUNT)? as usize,
            driver,
        })
    }

    fn get() -> ort::Result<&'static Self> {
        static KERNELS: OnceLock<Result<Kernels, String>> = OnceLock::new();
        once(&KERNELS, Self::load)
    }

    /// # Safety
    /// The parameters must be those of the kernel.
    unsafe fn launch(
        &self,
        stream: Pointer,
        kernel: Kernel,
        [x, y, z]: [usize; 3],
        threads: usize,
        parameters: &mut [Pointer],
    ) -> ort::Result<()> {
        let [x, y, z, threads] = [x, y, z, threads].map(|it| it as c_uint);
        let (at, parameters) = (kernel.0 as Pointer, parameters.as_mut_ptr());
        // SAFETY: as promised.
        let status =
            unsafe { (self.driver.cuLaunchKernel)(at, x, y, z, threads, 1, 1, 0, stream, parameters, null_mut()) };
        self.driver.check(status)
    }
}

/// Which way a convolution is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From its input to its output.
    Forward,
    /// From the gradient of its output to that of its input.
    Back,
}

/// A convolution with a kernel `[outputs, inputs, 3, 3]`, f32, of maps with `dims` to those of `to`, plus a bias where
/// there is one.
pub(crate) fn convolve(
    stream: Pointer,
    element: Element,
    [maps, weight, to]: [&Maps; 3],
    bias: Option<&Maps>,
    way: Way,
) -> ort::Result<()> {
    let kernels = Kernels::get()?;
    let [batch, mut inputs, mut rows, mut columns] = maps.dims;
    let mut outputs = to.dims[1];
    let (width, forms) =
        if outputs as usize <= CHUNK { (CHUNK, &kernels.convolve_8) } else { (2 * CHUNK, &kernels.convolve_16) };
    let groups = (outputs as usize).div_ceil(width);
    let grid = [(columns as usize).div_ceil(COLUMNS), (rows as usize).div_ceil(ROWS), batch as usize * groups];
    let mut turned = c_int::from(way == Way::Back);
    let [mut from, mut weight, mut to] = [maps.data, weight.data, to.data];
    let mut bias = bias.map_or(null_mut(), |it| it.data);
    let mut parameters: [Pointer; 9] = [
        (&raw mut from).cast(),
        (&raw mut weight).cast(),
        (&raw mut bias).cast(),
        (&raw mut to).cast(),
        (&raw mut inputs).cast(),
        (&raw mut outputs).cast(),
        (&raw mut rows).cast(),
        (&raw mut columns).cast(),
        (&raw mut turned).cast(),
    ];
    // SAFETY: they are its parameters.
    unsafe { kernels.launch(stream, forms.of(element), grid, THREADS, &mut parameters) }
}

/// Bytes and number of the parts in which [`kernel_gradient`] adds up.
pub(crate) fn parts_of(maps: &Maps, gradient: &Maps) -> ort::Result<(usize, usize)> {
    let [batch, inputs, rows, columns] = maps.dims.map(|it| it as usize);
    let groups = inputs.div_ceil(CHUNK) * (gradient.dims[1] as usize).div_ceil(CHUNK);
    let tiles = batch * rows.div_ceil(SUM_ROWS) * columns.div_ceil(COLUMNS);
    let parts = (Kernels::get()?.processors * BLOCKS_AT_ONCE).div_ceil(groups).min(tiles);
    Ok((groups * parts * PART * size_of::<f32>(), parts))
}

/// The gradient of the kernel of such a convolution, f32 `[outputs, inputs, 3, 3]`, times `scale`; `parts` is memory as
/// [`parts_of`] has it, with their number.
pub(crate) fn kernel_gradient(
    stream: Pointer,
    element: Element,
    [maps, gradient, to]: [&Maps; 3],
    (mut parts, count): (Pointer, usize),
    mut scale: f32,
) -> ort::Result<()> {
    let kernels = Kernels::get()?;
    let [mut batch, mut inputs, mut rows, mut columns] = maps.dims;
    let mut outputs = gradient.dims[1];
    let groups = (inputs as usize).div_ceil(CHUNK) * (outputs as usize).div_ceil(CHUNK);
    let [mut maps, mut gradient, mut to] = [maps.data, gradient.data, to.data];
    let mut parameters: [Pointer; 8] = [
        (&raw mut maps).cast(),
        (&raw mut gradient).cast(),
        (&raw mut parts).cast(),
        (&raw mut batch).cast(),
        (&raw mut inputs).cast(),
        (&raw mut outputs).cast(),
        (&raw mut rows).cast(),
        (&raw mut columns).cast(),
    ];
    // SAFETY: they are its parameters.
    unsafe {
        kernels.launch(stream, kernels.correlate.of(element), [count, groups, 1], SUM_THREADS, &mut parameters)?;
    }
    let mut count = count as c_int;
    let mut parameters: [Pointer; 6] = [
        (&raw mut parts).cast(),
        (&raw mut to).cast(),
        (&raw mut count).cast(),
        (&raw mut inputs).cast(),
        (&raw mut outputs).cast(),
        (&raw mut scale).cast(),
    ];
    let blocks = (groups * PART).div_ceil(THREADS);
    // SAFETY: they are its parameters.
    unsafe { kernels.launch(stream, kernels.add_parts, [blocks, 1, 1], THREADS, &mut parameters) }
}
