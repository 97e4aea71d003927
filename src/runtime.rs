//! ONNX Runtime: the library found and checked, the execution provider chosen, sessions made.

use serde::{Deserialize, Serialize};

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
