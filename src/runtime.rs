//! ONNX Runtime: the library found and checked, the execution provider chosen, sessions made.

use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};

use ort::ep::{self, ExecutionProvider};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::graph::{Dialect, Precision};
use crate::ops::{Instructions, operators};

/// Environment variable that names the library before any other place.
pub const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";
/// Folder that `scripts/install_onnxruntime.sh` fills.
pub const LIBRARY_FOLDER: &str = ".runtime";
/// File name of the library.
pub const LIBRARY_FILE: &str = "libonnxruntime.so";
/// Folder beside the library that `scripts/install_onnxruntime.sh` puts NVIDIA's libraries into.
const NVIDIA_FOLDER: &str = "nvidia";
/// The command that installs the library.
const INSTALL: &str = "run 'scripts/install_onnxruntime.sh' in the project's folder, or set ORT_DYLIB_PATH to an ONNX \
                       Runtime library";

/// Where the network runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// CUDA where it works, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA; fails where it does not work.
    Cuda,
}

/// Which operators the network is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DialectChoice {
    /// Native on the CPU, portable on CUDA.
    #[default]
    Auto,
    /// Standard operators of ONNX.
    Portable,
    /// This program's own operators; the CPU only.
    Native,
}

impl From<Dialect> for DialectChoice {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Portable => Self::Portable,
            Dialect::Native => Self::Native,
        }
    }
}

/// Which instructions the native operators use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstructionsChoice {
    /// The best that the processor has.
    #[default]
    Auto,
    /// Plain Rust.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512.
    Avx512,
}

impl InstructionsChoice {
    fn resolve(self) -> Result<Instructions> {
        let wanted = match self {
            Self::Auto => return Ok(Instructions::best()),
            Self::Portable => Instructions::Portable,
            Self::Avx2 => Instructions::Avx2,
            Self::Avx512 => Instructions::Avx512,
        };
        if Instructions::available().contains(&wanted) {
            return Ok(wanted);
        }
        Err(Error::config("instructions", format!("this processor has no {wanted}; 'auto' takes what there is")))
    }
}

/// The numbers that label maps are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// Single precision.
    #[default]
    F32,
    /// bfloat16: native operators on a processor with AVX-512-BF16.
    Bf16,
    /// bfloat16 where there are the instructions, else single precision.
    Auto,
}

impl PrecisionChoice {
    /// What it comes to with an engine on this processor.
    ///
    /// # Errors
    /// [`Error::Config`] where bfloat16 is asked for and cannot be had.
    pub fn resolve(self, engine: Engine) -> Result<Precision> {
        let best = engine.instructions.resolve()? == Instructions::Avx512;
        let problem = match engine {
            Engine { device: Device::Cuda, .. } | Engine { dialect: DialectChoice::Portable, .. } => {
                "bf16 is for native operators on the CPU"
            }
            _ if !(best && operators::has_bf16()) => {
                "this processor has no AVX-512-BF16, or other instructions are asked for"
            }
            _ => return Ok(if self == Self::F32 { Precision::F32 } else { Precision::Bf16 }),
        };
        match self {
            Self::Bf16 => Err(Error::config("precision", format!("{problem}; 'auto' takes what there is"))),
            Self::F32 | Self::Auto => Ok(Precision::F32),
        }
    }
}

/// Where and with what a network is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Engine {
    /// The device.
    pub device: Device,
    /// The operators.
    pub dialect: DialectChoice,
    /// The instructions of native operators.
    pub instructions: InstructionsChoice,
    /// Threads within an operator; 0 for all processors.
    pub threads: usize,
}

impl Engine {
    /// The CPU, with operators of one dialect.
    #[must_use]
    pub fn cpu(dialect: Dialect, threads: usize) -> Self {
        Self { device: Device::Cpu, dialect: dialect.into(), instructions: InstructionsChoice::Auto, threads }
    }
}

/// What a session really runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// The execution provider.
    pub provider: Provider,
    /// Standard or native operators.
    pub dialect: Dialect,
}

impl Backend {
    /// An engine that runs on this and nothing else.
    #[must_use]
    pub fn engine(self, asked: Engine) -> Engine {
        let device = match self.provider {
            Provider::Cpu => Device::Cpu,
            Provider::Cuda => Device::Cuda,
        };
        Engine { device, dialect: self.dialect.into(), ..asked }
    }
}

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// The CPU.
    Cpu,
    /// CUDA.
    Cuda,
}

impl Provider {
    /// Its name in `run.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

/// The ONNX Runtime library in use.
#[derive(Debug, Clone)]
pub struct LibraryInfo {
    /// The file.
    pub path: PathBuf,
    /// Its version, as `1.31.0`.
    pub version: String,
    /// Names of the execution providers that it was built with, as `CUDAExecutionProvider`.
    pub providers: Vec<String>,
}

/// Loads the library and tells what it is.
///
/// # Errors
/// [`Error::Runtime`] naming the file and the command that mends it, where it is missing, damaged or too old.
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

/// Makes a session of a model, which `model` gives in the dialect that is asked for.
///
/// # Errors
/// [`Error::Runtime`] where the library is missing, the model is no good, or CUDA is asked for and does not work;
/// [`Error::Config`] where the engine asks for what does not go together, or for instructions that are not there.
pub fn session(name: &str, model: impl Fn(Dialect) -> Vec<u8>, engine: Engine) -> Result<(Session, Backend)> {
    let loaded = loaded()?;
    if engine.device == Device::Cuda && engine.dialect == DialectChoice::Native {
        return Err(Error::config("dialect", "native operators are for the CPU; take 'auto' or 'portable' with CUDA"));
    }
    if engine.device != Device::Cpu && engine.dialect != DialectChoice::Native {
        match cuda_session(loaded, &model(Dialect::Portable), engine.threads) {
            Ok(session) => return Ok((session, Backend { provider: Provider::Cuda, dialect: Dialect::Portable })),
            Err(cause) if engine.device == Device::Cuda => {
                let problem = format!(
                    "CUDA does not work here ({}); 'lookbook doctor' says what is missing, '--device cpu' does without",
                    said(&cause)
                );
                return Err(Error::runtime(name, problem));
            }
            Err(cause) if has_cuda().unwrap_or(false) => {
                static TOLD: Once = Once::new();
                TOLD.call_once(|| tracing::warn!("CUDA does not work here, the CPU runs all ({})", said(&cause)));
            }
            Err(_) => tracing::debug!("{name}: this ONNX Runtime has no CUDA"),
        }
    }
    let mut builder = builder(loaded, engine.threads).map_err(failed(name))?;
    let mut dialect = Dialect::Portable;
    if engine.dialect != DialectChoice::Portable {
        dialect = Dialect::Native;
        let operators = operators::domain(engine.instructions.resolve()?, engine.threads).map_err(failed(name))?;
        builder = builder.with_operators(operators).map_err(|cause| failed(name)(cause.into()))?;
    }
    let session = commit(builder, &model(dialect)).map_err(failed(name))?;
    Ok((session, Backend { provider: Provider::Cpu, dialect }))
}

/// What ONNX Runtime said, without the place in its code.
fn said(cause: &ort::Error) -> String {
    let text = cause.to_string();
    let told = text.split_once("[ONNXRuntimeError] : ").and_then(|(_, told)| told.splitn(3, " : ").last());
    told.unwrap_or(&text).trim().to_owned()
}

/// For `map_err`: what ONNX Runtime said about `subject`.
pub fn failed(subject: &str) -> impl FnOnce(ort::Error) -> Error {
    let subject = subject.to_owned();
    move |cause| Error::runtime(subject, cause)
}

struct Loaded {
    environment: ort::environment::Environment,
    path: PathBuf,
    version: String,
}

/// The library, loaded once. It is always loaded by a path that was checked: left to itself, the `ort` crate hangs where
/// the library is missing and panics where it is too old.
fn loaded() -> Result<&'static Loaded> {
    static LOADED: OnceLock<Result<Loaded, (String, String)>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        load().map_err(|error| match error {
            Error::Runtime { subject, problem } => (subject, problem),
            other => ("ONNX Runtime".to_owned(), other.to_string()),
        })
    });
    loaded.as_ref().map_err(|(subject, problem)| Error::runtime(subject.clone(), problem))
}

fn load() -> Result<Loaded> {
    let path = find_library()?;
    let builder = ort::init_from(&path).map_err(|cause| {
        let problem = match cause {
            ort::LoadDynamicError::BadVersion { version_str, .. } => {
                format!("version {version_str} is too old, 1.{} or newer is needed; {INSTALL}", ort::MINOR_VERSION)
            }
            other => format!("is not a usable ONNX Runtime library ({other}); {INSTALL}"),
        };
        Error::runtime(path.display().to_string(), problem)
    })?;
    let environment = builder.with_name("lookbook").with_telemetry(false).build().map_err(failed("ONNX Runtime"))?;
    let version = library_version(&path);
    Ok(Loaded { environment, path, version })
}

/// `ORT_DYLIB_PATH`, then `.runtime/` beside the program or above it, then `.runtime/` in the working folder.
fn find_library() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(LIBRARY_VARIABLE).filter(|value| !value.is_empty()) {
        let path = PathBuf::from(named);
        let path = std::path::absolute(&path).unwrap_or(path);
        if path.is_file() {
            return Ok(path);
        }
        let problem = format!("{LIBRARY_VARIABLE} names it, but there is no such file; {INSTALL}");
        return Err(Error::runtime(path.display().to_string(), problem));
    }
    let program = std::env::current_exe().unwrap_or_default();
    let folders = program.ancestors().skip(1).map(Path::to_owned).chain(std::env::current_dir());
    let found = folders.map(|folder| folder.join(LIBRARY_FOLDER).join(LIBRARY_FILE)).find(|path| path.is_file());
    found.ok_or_else(|| {
        Error::runtime("ONNX Runtime", format!("no {LIBRARY_FOLDER}/{LIBRARY_FILE} beside the program; {INSTALL}"))
    })
}

/// The version out of the name of the file behind `path` (`libonnxruntime.so.1.31.1`), else out of the library's build
/// information, where builds for wheels have no more than a branch.
fn library_version(path: &Path) -> String {
    let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some((_, version)) = name.split_once(".so.")
        && version.starts_with(|first: char| first.is_ascii_digit())
    {
        return version.to_owned();
    }
    let info = ort::info();
    let branch = info.split([',', ' ']).find_map(|part| part.strip_prefix("git-branch="));
    branch.map_or(info, |branch| branch.trim_start_matches("rel-")).to_owned()
}

fn builder(loaded: &Loaded, threads: usize) -> ort::Result<ort::session::builder::SessionBuilder> {
    Ok(Session::builder(&loaded.environment)?
        .with_intra_threads(threads)?
        // The pattern is a block for all maps of a step, beside the memory that was taken before it was known.
        .with_memory_pattern(false)?
        .with_optimization_level(GraphOptimizationLevel::All)?)
}

fn cuda_session(loaded: &Loaded, model: &[u8], threads: usize) -> ort::Result<Session> {
    static NVIDIA: Once = Once::new();
    NVIDIA.call_once(|| preload_nvidia(&loaded.path.with_file_name(NVIDIA_FOLDER)));
    let provider = ep::CUDA::default().build().error_on_failure();
    let builder = builder(loaded, threads)?
        .with_execution_providers([provider])?
        // An operator that CUDA does not take would run on the CPU, its maps carried there and back, and nobody would know.
        .with_config_entry("session.disable_cpu_ep_fallback", "1")?;
    commit(builder, model)
}

/// Loads NVIDIA's libraries out of the folder that came with the library: the CUDA provider asks for them by their names alone,
/// and the system may have others or none. What fails here, the provider's own message names.
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
