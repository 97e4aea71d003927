//! Settings of `recommend`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::Device;
use crate::similarity::{Comparison, DEFAULT_LATENT_DIMENSIONS, DEFAULT_MIN_COMMON, Measure};

/// Default of `top`.
pub const DEFAULT_TOP: u32 = 5;

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A readable table.
    #[default]
    Text,
    /// JSON.
    Json,
}

/// Settings of `recommend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The model folder, or a parser's.
    pub model: PathBuf,
    /// For the measure `embedding`: the folder of the embedder that the features were made with.
    pub embedder: Option<PathBuf>,
    /// The features folder of the catalogue.
    pub features: PathBuf,
    /// Number of neighbours per photo ([`DEFAULT_TOP`]).
    pub top: u32,
    /// How similarity is measured.
    pub measure: Measure,
    /// For `co_rated`: minimum number of cells that two photos must have in common ([`DEFAULT_MIN_COMMON`]).
    pub min_common: u32,
    /// For `latent`: maximum number of dimensions of the truncated SVD ([`DEFAULT_LATENT_DIMENSIONS`]).
    pub latent_dimensions: usize,
    /// Folder for contact sheets, one per photo; none are written if it is not given.
    pub output: Option<PathBuf>,
    /// Where the network runs.
    pub device: Device,
    /// How the result is printed.
    pub format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: PathBuf::from("output/model"),
            embedder: None,
            features: PathBuf::from("output/features"),
            top: DEFAULT_TOP,
            measure: Measure::default(),
            min_common: DEFAULT_MIN_COMMON,
            latent_dimensions: DEFAULT_LATENT_DIMENSIONS,
            output: None,
            device: Device::default(),
            format: Format::default(),
        }
    }
}

impl Config {
    /// The measure with its settings.
    pub(super) fn comparison(&self) -> Comparison {
        let Self { measure, min_common, latent_dimensions, .. } = *self;
        Comparison { measure, min_common, latent_dimensions }
    }
}
