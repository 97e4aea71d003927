//! What a network runs on and with: the requested engine, and the one in use.

use serde::{Deserialize, Serialize};

use crate::graph::Dialect;

/// The device on which the network runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// CUDA if it works, otherwise the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA; fails if it does not work.
    Cuda,
}

/// The operators from which the network is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DialectChoice {
    /// Native on the CPU; on CUDA standard operators, and cuDNN's for what those have none for.
    #[default]
    Auto,
    /// Standard operators of ONNX.
    Portable,
    /// This program's own operators, for the CPU only.
    Native,
}

impl From<Dialect> for DialectChoice {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Portable => Self::Portable,
            // What `Auto` is on CUDA, and nowhere else.
            Dialect::Cuda => Self::Auto,
            Dialect::Native => Self::Native,
        }
    }
}

/// Instruction set of the native operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstructionsChoice {
    /// The best that the processor supports.
    #[default]
    Auto,
    /// Plain Rust.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512.
    Avx512,
}

/// Number format in which label maps are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// Single precision.
    #[default]
    F32,
    /// bfloat16: native operators on a processor with AVX-512-BF16.
    Bf16,
    /// 8-bit integers: native operators on a processor with AVX-512-VNNI and AVX-512-BF16, for a model whose maps' ranges
    /// are known.
    Int8,
    /// bfloat16 if the processor has the instructions, otherwise single precision.
    Auto,
    /// 8-bit integers if the processor and the model allow them, otherwise as [`Auto`](Self::Auto).
    #[serde(skip)]
    Narrowest,
}

/// The requested device, operators and instructions of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Engine {
    /// The device.
    pub device: Device,
    /// The operators.
    pub dialect: DialectChoice,
    /// The instructions of native operators.
    pub instructions: InstructionsChoice,
    /// Threads within an operator; 0 for all cores.
    pub threads: usize,
}

impl Engine {
    /// The CPU, with operators of one dialect.
    #[must_use]
    pub fn cpu(dialect: Dialect, threads: usize) -> Self {
        Self { device: Device::Cpu, dialect: dialect.into(), instructions: InstructionsChoice::Auto, threads }
    }
}

/// What a session actually runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// The execution provider.
    pub provider: Provider,
    /// Standard or native operators.
    pub dialect: Dialect,
}

impl Backend {
    /// An engine that runs on exactly this backend.
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
