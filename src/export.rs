//! `export`: a model's two graphs and its weights, for any ONNX Runtime.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::stage::{self, Common, Stage, Summary};
use crate::train::{PREDICT_FILE, TRAIN_STEP_FILE, WEIGHTS_FILE, checkpoint};

/// Settings of `export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The model folder.
    pub model: PathBuf,
    /// The folder of the exported files.
    pub output: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { model: PathBuf::from("output/model"), output: PathBuf::from("output/export") }
    }
}

/// Copies `train_step.onnx`, `predict.onnx` and `weights.safetensors` of a model folder, checked.
///
/// # Errors
/// A model folder that is none.
pub fn run(config: &Config, common: &Common) -> Result<Summary> {
    checkpoint::read_weights(&config.model.join(WEIGHTS_FILE))?;
    if common.dry_run {
        return Ok(stage::planned("export", &config.output, common, config));
    }
    let mut stage = Stage::begin("export", &config.output, common, config)?;
    for name in [TRAIN_STEP_FILE, PREDICT_FILE, WEIGHTS_FILE] {
        let source = config.model.join(name);
        stage.input(&source)?;
        std::fs::copy(&source, stage.path(name)).map_err(Error::io("copy", &source))?;
    }
    stage.count("files", 3);
    stage.publish()
}
