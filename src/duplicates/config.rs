//! Settings of `duplicates`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::join::MAX_DISTANCE;
use crate::error::{Error, Result};

/// Name of this stage.
pub const STAGE: &str = "duplicates";

/// Default of `distance`; docs/duplicates.md has the measurements.
pub const DEFAULT_DISTANCE: u32 = 8;

/// Settings of `duplicates`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The features folder.
    pub features: PathBuf,
    /// The folder to write the groups to.
    pub output: PathBuf,
    /// The number of bits, 0 to [`MAX_DISTANCE`], in which the hashes of near-duplicates may differ ([`DEFAULT_DISTANCE`]).
    pub distance: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            features: PathBuf::from("output/features"),
            output: PathBuf::from("output/duplicates"),
            distance: DEFAULT_DISTANCE,
        }
    }
}

pub(super) fn check_values(config: &Config) -> Result<()> {
    if config.distance <= MAX_DISTANCE {
        return Ok(());
    }
    let problem = format!("is {}; use 0 to {MAX_DISTANCE} of 64 bits", config.distance);
    Err(Error::config("duplicates.distance", problem))
}
