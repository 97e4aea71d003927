//! Settings common to all stages.

use serde::Serialize;

use crate::engine::{Device, DialectChoice, Engine, InstructionsChoice};
use crate::gates::Gates;

/// Default of [`Common::keep_versions`]: the published version and the previous one.
pub const DEFAULT_KEEP_VERSIONS: usize = 2;

/// Maximum of [`Common::threads`]: more than the processors of nearly any machine, and still quick to start.
pub const MAX_THREADS: usize = 1024;

/// Settings common to all stages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Common {
    /// Random seed: for weights, the order of photos, and drawings.
    pub seed: u64,
    /// Worker threads, 1 to [`MAX_THREADS`].
    pub threads: usize,
    /// Check and report what would be done, but write nothing.
    pub dry_run: bool,
    /// Do nothing if the published folder is up to date.
    pub if_changed: bool,
    /// How long to wait for another run to release the output folder.
    pub lock_wait_secs: u64,
    /// Versions of the output folder to keep, including the published one ([`DEFAULT_KEEP_VERSIONS`]).
    pub keep_versions: usize,
    /// Name of the whole run that the stage is part of.
    pub run_name: String,
    /// Conditions that must hold before a folder is published.
    pub gates: Gates,
    /// The operators the network is built from.
    pub dialect: DialectChoice,
    /// The instruction set of the native operators.
    pub instructions: InstructionsChoice,
}

impl Common {
    /// What the network is to run on.
    #[must_use]
    pub fn engine(&self, device: Device) -> Engine {
        Engine { device, dialect: self.dialect, instructions: self.instructions, threads: self.threads }
    }
}

impl Default for Common {
    fn default() -> Self {
        Self {
            seed: 0,
            threads: available_threads(),
            dry_run: false,
            if_changed: false,
            lock_wait_secs: 0,
            keep_versions: DEFAULT_KEEP_VERSIONS,
            run_name: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            gates: Gates::default(),
            dialect: DialectChoice::default(),
            instructions: InstructionsChoice::default(),
        }
    }
}

/// The number of processors that this process may use.
#[must_use]
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
