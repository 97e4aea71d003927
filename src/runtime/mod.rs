//! ONNX Runtime: finds and checks the library, chooses the execution provider, creates sessions.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Once, OnceLock};

use lookbook_ops::Instructions;
use ort::ep::{self, ExecutionProvider};
use ort::operator::OperatorDomain;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{DynValue, Tensor};

use crate::engine::{Backend, Device, DialectChoice, Engine, InstructionsChoice, PrecisionChoice, Provider};
use crate::error::{Error, Result};
use crate::graph::builder::DOMAIN;
use crate::graph::{Dialect, Precision};

mod library;
pub mod operators;
pub mod sessions;

pub use library::{LIBRARY_FILE, LIBRARY_FOLDER, LIBRARY_VARIABLE, REQUIREMENT, TESTED_RUNTIME, advice};

/// Folder beside the library into which `scripts/install_onnxruntime.sh` puts NVIDIA's libraries.
const NVIDIA_FOLDER: &str = "nvidia";
/// Memory that has to be free before the library is loaded, in sizes of its file: it takes four, and the smallest network
/// with its threads as much again. Short of memory later, the C library may end the whole process as a thread first calls
/// the library.
const ROOM_OF_LIBRARY: usize = 16;
/// The chosen instructions, if this processor has them.
fn instructions(choice: InstructionsChoice) -> Result<Instructions> {
    let wanted = match choice {
        InstructionsChoice::Auto => return Ok(Instructions::best()),
        InstructionsChoice::Portable => "portable",
        InstructionsChoice::Avx2 => "avx2",
        InstructionsChoice::Avx512 => "avx512",
    };
    let found = Instructions::available().into_iter().find(|it| it.name() == wanted);
    found.ok_or_else(|| {
        Error::config("instructions", format!("this processor has no {wanted}; 'auto' uses the best it has"))
    })
}

/// The precision of a training step in mixed precision: f16, but in the native dialect bf16, or f32 if this processor, or the
/// selected instructions, cannot compute in bf16.
#[must_use]
pub fn mixed_precision(dialect: Dialect, engine: Engine) -> Precision {
    match dialect {
        Dialect::Portable | Dialect::Cuda => Precision::F16,
        Dialect::Native if computes_bf16(engine.instructions) => Precision::Bf16,
        Dialect::Native => Precision::F32,
    }
}

/// Whether this processor, with these instructions, computes in bf16.
fn computes_bf16(choice: InstructionsChoice) -> bool {
    matches!(instructions(choice), Ok(Instructions::Avx512(_))) && operators::has_bf16()
}

/// Resolves the precision of label maps for an engine on this processor.
///
/// # Errors
/// [`Error::Config`] if bfloat16 or 8-bit integers are requested but not available.
pub fn precision(choice: PrecisionChoice, engine: Engine) -> Result<Precision> {
    let is_native = engine.device != Device::Cuda && engine.dialect != DialectChoice::Portable;
    instructions(engine.instructions)?;
    let refuse = |name: &str, lacks: &str| {
        let problem = if is_native {
            format!("this processor has no {lacks}, or other instructions are selected")
        } else {
            format!("{name} needs native operators on the CPU")
        };
        Err(Error::config("precision", format!("{problem}; 'auto' uses the best available")))
    };
    let has_bf16 = is_native && computes_bf16(engine.instructions);
    let has_int8 = has_bf16 && operators::has_int8();
    match choice {
        PrecisionChoice::Int8 | PrecisionChoice::Narrowest if has_int8 => Ok(Precision::Int8),
        PrecisionChoice::Int8 => refuse("int8", "AVX-512-VNNI or no AVX-512-BF16"),
        PrecisionChoice::Bf16 | PrecisionChoice::Auto | PrecisionChoice::Narrowest if has_bf16 => Ok(Precision::Bf16),
        PrecisionChoice::Bf16 => refuse("bf16", "AVX-512-BF16"),
        PrecisionChoice::F32 | PrecisionChoice::Auto | PrecisionChoice::Narrowest => Ok(Precision::F32),
    }
}

/// The ONNX Runtime library in use.
#[derive(Debug, Clone)]
pub struct LibraryInfo {
    /// The file.
    pub path: PathBuf,
    /// Its version, such as `1.31.0`.
    pub version: String,
    /// Names of the execution providers it was built with, such as `CUDAExecutionProvider`.
    pub providers: Vec<String>,
}

/// Loads the library and returns its details.
///
/// # Errors
/// [`Error::Runtime`] with the file and the command that fixes it, if the library is missing, damaged or too old.
pub fn library() -> Result<LibraryInfo> {
    let loaded = loaded()?;
    let mut providers = vec!["CPUExecutionProvider".to_owned()];
    if has_cuda()? {
        providers.push("CUDAExecutionProvider".to_owned());
    }
    Ok(LibraryInfo { path: loaded.path.clone(), version: loaded.version.clone(), providers })
}

/// Whether the library was built with CUDA.
fn has_cuda() -> Result<bool> {
    <ep::CUDA as ExecutionProvider>::is_available().map_err(failed("ONNX Runtime"))
}

/// Checks that the library is there and that an engine's choices fit together, this processor and the library.
///
/// # Errors
/// [`Error::Runtime`] if the library is missing, or was built without CUDA and CUDA is requested; [`Error::Config`] if
/// the engine combines incompatible choices, or requests instructions that the processor lacks.
pub fn check(engine: Engine) -> Result<()> {
    loaded()?;
    if engine.device == Device::Cuda && engine.dialect == DialectChoice::Native {
        return Err(Error::config(
            "dialect",
            "native operators run only on the CPU; use 'auto' or 'portable' with CUDA",
        ));
    }
    if engine.device == Device::Cuda && !has_cuda()? {
        let problem = "CUDA does not work here: the library was built without it; `make runtime GPU=1` installs one that has it, \
                       '--device cpu' does without";
        return Err(Error::runtime("ONNX Runtime", problem));
    }
    instructions(engine.instructions).map(drop)
}

/// Creates a session for a model; `model` builds it in the given dialect.
///
/// # Errors
/// [`Error::Runtime`] if the library is missing, the model is invalid, or CUDA is requested and does not work;
/// [`Error::Config`] if the engine combines incompatible choices, or requests instructions that the processor lacks.
pub fn session(name: &str, model: impl Fn(Dialect) -> Vec<u8>, engine: Engine) -> Result<(Session, Backend)> {
    check(engine)?;
    let loaded = loaded()?;
    let on_gpu = match engine.dialect {
        DialectChoice::Auto => Some(Dialect::Cuda),
        DialectChoice::Portable => Some(Dialect::Portable),
        DialectChoice::Native => None,
    };
    if let Some(dialect) = on_gpu
        && let Some(session) = on_cuda(name, engine, || cuda_session(loaded, &model(dialect), engine.threads))?
    {
        return Ok((session, Backend { provider: Provider::Cuda, dialect }));
    }
    if engine.dialect == DialectChoice::Portable {
        let builder = builder(loaded, engine.threads).map_err(failed(name))?;
        let session = commit(builder, &model(Dialect::Portable)).map_err(failed(name))?;
        return Ok((session, Backend { provider: Provider::Cpu, dialect: Dialect::Portable }));
    }
    let all = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if engine.threads == 0 { all() } else { engine.threads };
    let operators = operators::domain(instructions(engine.instructions)?, threads).map_err(failed(name))?;
    let session = session_with(name, &model(Dialect::Native), operators, engine.threads)?;
    Ok((session, Backend { provider: Provider::Cpu, dialect: Dialect::Native }))
}

/// Creates a session on the CPU for a model with operators of a domain; 0 threads are all.
///
/// # Errors
/// [`Error::Runtime`] if the library is missing or the model is invalid.
pub fn session_with(name: &str, model: &[u8], operators: OperatorDomain, threads: usize) -> Result<Session> {
    let builder = builder(loaded()?, threads).map_err(failed(name))?;
    let builder = builder.with_operators(operators).map_err(|cause| failed(name)(cause.into()))?;
    commit(builder, model).map_err(failed(name))
}

/// The session that `create` makes on CUDA if that is wanted and works; `None` if the CPU is to be used.
fn on_cuda(name: &str, engine: Engine, create: impl FnOnce() -> ort::Result<Session>) -> Result<Option<Session>> {
    if engine.device == Device::Cpu {
        return Ok(None);
    }
    match create() {
        Ok(session) => Ok(Some(session)),
        Err(cause) if engine.device == Device::Cuda => {
            let problem = format!(
                "CUDA does not work here ({}); 'lookbook doctor' shows what is missing, '--device cpu' does without",
                said(&cause)
            );
            Err(Error::runtime(name, problem))
        }
        Err(cause) => {
            if has_cuda().unwrap_or(false) {
                static TOLD: Once = Once::new();
                TOLD.call_once(|| {
                    tracing::warn!("CUDA does not work here, running on the CPU instead ({})", said(&cause));
                });
            } else {
                tracing::debug!("{name}: this ONNX Runtime was built without CUDA");
            }
            Ok(None)
        }
    }
}

/// Creates a session for a third-party network, an ONNX file with the files of its weights (name and content). What CUDA
/// does not support of it runs on the CPU.
///
/// # Errors
/// [`Error::Runtime`] if the library is missing, or CUDA is requested and does not work; [`Error::Input`] if ONNX Runtime
/// refuses the network; [`Error::Config`] for native operators, which it does not have.
pub fn foreign_session(
    name: &str,
    network: &[u8],
    external: &[(&Path, Arc<[u8]>)],
    engine: Engine,
) -> Result<(Session, Backend)> {
    check(engine)?;
    if engine.dialect == DialectChoice::Native {
        let problem =
            format!("'native' is for models of this program, and {name} is another; use 'auto' or 'portable'");
        return Err(Error::config("dialect", problem));
    }
    let loaded = loaded()?;
    let with_weights = |mut builder: ort::session::builder::SessionBuilder| -> ort::Result<Session> {
        for (file, content) in external {
            builder = builder.with_external_initializer_file_in_memory(file, content.clone())?;
        }
        commit(builder, network)
    };
    let on_gpu = || with_weights(cuda_builder(loaded, engine.threads)?);
    if let Some(session) = on_cuda(name, engine, on_gpu)? {
        return Ok((session, Backend { provider: Provider::Cuda, dialect: Dialect::Portable }));
    }
    let session = builder(loaded, engine.threads).map_err(failed(name))?;
    let session = with_weights(session)
        .map_err(|cause| Error::input(name, "is not a network that ONNX Runtime can run").because(cause))?;
    Ok((session, Backend { provider: Provider::Cpu, dialect: Dialect::Portable }))
}

/// ONNX Runtime's message, without the location in its source code.
fn said(cause: &ort::Error) -> String {
    let text = cause.to_string();
    let told = text.split_once("[ONNXRuntimeError] : ").and_then(|(_, told)| told.splitn(3, " : ").last());
    told.unwrap_or(&text).trim().to_owned()
}

/// Wraps a flat f32 vector as a value.
///
/// # Errors
/// [`Error::Runtime`] if ONNX Runtime fails.
pub fn vector(values: Vec<f32>) -> Result<DynValue> {
    Ok(Tensor::from_array(([values.len()], values)).map_err(failed("a vector"))?.into_dyn())
}

/// For `map_err`: an [`Error::Runtime`] about `subject` with ONNX Runtime's message.
pub fn failed(subject: &str) -> impl FnOnce(ort::Error) -> Error {
    let subject = subject.to_owned();
    move |cause| Error::runtime(subject, "ONNX Runtime failed").because(cause)
}

struct Loaded {
    environment: ort::environment::Environment,
    path: PathBuf,
    version: String,
}

/// The library, loaded once. It is always loaded from a path that was checked before: on its own, the `ort` crate hangs
/// if the library is missing and panics if it is too old.
fn loaded() -> Result<&'static Loaded> {
    // An error cannot be cloned.
    type Again = Box<dyn Fn() -> Error + Send + Sync>;
    static LOADED: OnceLock<Result<Loaded, Again>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        load().map_err(|error| -> Again {
            match error {
                Error::Limit { what, problem } => {
                    Box::new(move || Error::Limit { what: what.clone(), problem: problem.clone() })
                }
                Error::Runtime { subject, problem, source: None } => {
                    Box::new(move || Error::runtime(subject.clone(), &problem))
                }
                other => Box::new(move || Error::runtime("ONNX Runtime", other.with_causes())),
            }
        })
    });
    loaded.as_ref().map_err(|again| again())
}

fn load() -> Result<Loaded> {
    let path = library::find()?;
    check_room(&path)?;
    let builder = ort::init_from(&path).map_err(|cause| {
        let problem = match cause {
            ort::LoadDynamicError::BadVersion { version_str, .. } => {
                format!("version {version_str} is too old, 1.{} or newer is needed; {}", ort::MINOR_VERSION, advice())
            }
            other => format!("is not a usable ONNX Runtime library ({other}); {}", advice()),
        };
        Error::runtime(path.display().to_string(), problem)
    })?;
    let environment = builder.with_name("lookbook").with_telemetry(false).build().map_err(failed("ONNX Runtime"))?;
    let version = library::version(&path);
    Ok(Loaded { environment, path, version })
}

/// Checks that there is memory to load the library at `path` and to work with it: its loader does not say why it failed.
fn check_room(path: &Path) -> Result<()> {
    let bytes = path.metadata().map_or(0, |it| it.len() as usize);
    let room = Vec::<u8>::new().try_reserve_exact(ROOM_OF_LIBRARY * bytes);
    room.map_err(|_| Error::io("load", path)(std::io::ErrorKind::OutOfMemory.into()))
}

fn builder(loaded: &Loaded, threads: usize) -> ort::Result<ort::session::builder::SessionBuilder> {
    Ok(Session::builder(&loaded.environment)?
        .with_intra_threads(threads)?
        // A memory pattern would be one block for all maps of a step, in addition to the memory allocated before the
        // pattern was known.
        .with_memory_pattern(false)?
        .with_optimization_level(GraphOptimizationLevel::All)?)
}

fn cuda_session(loaded: &Loaded, model: &[u8], threads: usize) -> ort::Result<Session> {
    // Otherwise an operator that CUDA does not support would silently run on the CPU, with its maps copied there and back.
    let builder = cuda_builder(loaded, threads)?.with_config_entry("session.disable_cpu_ep_fallback", "1")?;
    commit(builder.with_operators(lookbook_cuda::domain(DOMAIN)?)?, model)
}

fn cuda_builder(loaded: &Loaded, threads: usize) -> ort::Result<ort::session::builder::SessionBuilder> {
    static NVIDIA: Once = Once::new();
    NVIDIA.call_once(|| preload_nvidia(&loaded.path.with_file_name(NVIDIA_FOLDER)));
    let provider = ep::CUDA::default().build().error_on_failure();
    // Of the slices of the flat weights it would make a split, which on CUDA uploads an index for each weight.
    let builder = builder(loaded, threads)?.with_disabled_optimizers("GatherSliceToSplitFusion")?;
    Ok(builder.with_execution_providers([provider])?)
}

/// Loads NVIDIA's libraries from the folder that came with the library: the CUDA provider looks them up by name only,
/// and the system may have other versions or none. If this fails, the provider's own error names the missing library.
fn preload_nvidia(folder: &Path) {
    if folder.is_dir()
        && let Err(cause) = ep::cuda::preload_dylibs(Some(folder), Some(folder))
    {
        tracing::debug!("{}: {cause}", folder.display());
    }
}

fn commit(mut builder: ort::session::builder::SessionBuilder, model: &[u8]) -> ort::Result<Session> {
    builder.commit_from_memory(model)
}
