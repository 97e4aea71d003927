//! What a network runs on and with: what is asked for, and what it really is.

use serde::{Deserialize, Serialize};

use crate::graph::Dialect;

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
