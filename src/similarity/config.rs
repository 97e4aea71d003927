//! Settings of `similarity`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::shard::Shard;
use crate::stage::TableForm;
use crate::units::ByteSize;

/// Default of `top`.
pub const DEFAULT_TOP: u32 = 10;

/// Default of `min_common`: two points always lie on a line, so they say nothing.
pub const DEFAULT_MIN_COMMON: u32 = 3;

/// Default of `exact_up_to`: minutes on one machine.
pub const DEFAULT_EXACT_UP_TO: usize = 1_000_000;

/// Default of `latent_dimensions`.
pub const DEFAULT_LATENT_DIMENSIONS: usize = 32;

/// Default of `memory`.
pub const DEFAULT_MEMORY: ByteSize = ByteSize(1 << 30);

/// Name of this stage.
pub const STAGE: &str = "similarity";

/// Measure of how similar two photos are. All but `embedding` are undefined for photos in which nothing is worn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Pearson correlation over all cells, absent = 0.
    #[default]
    Pearson,
    /// Pearson correlation over the cells present in both (the seed's).
    CoRated,
    /// Cosine over all cells, absent = 0.
    Cosine,
    /// Pearson correlation between the rows of a truncated SVD of the centred table.
    Latent,
    /// Cosine of the photos' embeddings; undefined for photos without one.
    Embedding,
}

impl Measure {
    /// All measures.
    pub const ALL: [Self; 5] = [Self::Pearson, Self::CoRated, Self::Cosine, Self::Latent, Self::Embedding];

    /// The name used in settings and flags.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pearson => "pearson",
            Self::CoRated => "co_rated",
            Self::Cosine => "cosine",
            Self::Latent => "latent",
            Self::Embedding => "embedding",
        }
    }
}

/// Whether the matrix is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Matrix {
    /// Every photo with every photo.
    #[default]
    Full,
    /// Only the neighbours.
    None,
}

/// The type of the matrix's correlations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumberFormat {
    /// 4 bytes, exact to 1e-7.
    #[default]
    F32,
    /// 2 bytes, exact to 5e-4 (11 significant bits).
    F16,
}

impl NumberFormat {
    /// Bytes per correlation.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// Settings of `similarity`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The features folder.
    pub features: PathBuf,
    /// A table of the user's own with one row for a photo, whose columns `where` may name.
    pub metadata: Option<PathBuf>,
    /// A condition in SQL on the columns of `metadata` and of the feature table. Only photos that fulfil it are compared, as
    /// though the table had no others: neither side of a pair is another.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// The folder to write the matrix and the neighbours to.
    pub output: PathBuf,
    /// How similarity is measured.
    pub measure: Measure,
    /// Number of neighbours per photo ([`DEFAULT_TOP`]).
    pub top: u32,
    /// For `co_rated`: minimum number of cells that two photos must have in common ([`DEFAULT_MIN_COMMON`]).
    pub min_common: u32,
    /// For `latent`: maximum number of dimensions of the truncated SVD ([`DEFAULT_LATENT_DIMENSIONS`]).
    pub latent_dimensions: usize,
    /// Whether the matrix is written as well as the neighbours.
    pub matrix: Matrix,
    /// The type of the matrix's correlations.
    pub precision: NumberFormat,
    /// Pairs with at least this correlation are written as a long table; without it, no pairs are written.
    pub threshold: Option<f32>,
    /// Whether the neighbours are committed as a Delta table as well.
    pub table: TableForm,
    /// Number of photos up to which the neighbours are exact ([`DEFAULT_EXACT_UP_TO`]); those of more come from an
    /// approximate index, but for `co_rated`, and if the matrix or pairs are written.
    pub exact_up_to: usize,
    /// Maximum memory for correlations ([`DEFAULT_MEMORY`]); the feature table and the neighbours come on top.
    pub memory: ByteSize,
    /// The share of the rows to process; all if not given.
    pub shard: Option<Shard>,
    /// Compute nothing; merge the folders of all shards into one, with the settings they were made with.
    pub merge: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            features: PathBuf::from("output/features"),
            metadata: None,
            condition: None,
            output: PathBuf::from("output/similarity"),
            measure: Measure::default(),
            top: DEFAULT_TOP,
            min_common: DEFAULT_MIN_COMMON,
            latent_dimensions: DEFAULT_LATENT_DIMENSIONS,
            matrix: Matrix::default(),
            precision: NumberFormat::default(),
            threshold: None,
            table: TableForm::default(),
            exact_up_to: DEFAULT_EXACT_UP_TO,
            memory: DEFAULT_MEMORY,
            shard: None,
            merge: false,
        }
    }
}

impl Config {
    /// Whether the neighbours of a table of so many photos come from an index.
    pub(super) fn is_approximate(&self, photos: usize) -> bool {
        let only_neighbours = self.matrix == Matrix::None && self.threshold.is_none();
        photos > self.exact_up_to && only_neighbours && self.measure != Measure::CoRated
    }

    /// The folder to publish: the output, or the shard's part of it.
    pub(super) fn folder(&self) -> PathBuf {
        self.shard.map_or_else(|| self.output.clone(), |shard| shard.folder(&self.output))
    }
}
