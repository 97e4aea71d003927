//! Settings of `recommend`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::Device;
use crate::error::{Error, Result};
use crate::rejects::DEFAULT_MAX_REJECT_FRACTION;
use crate::similarity::{Comparison, DEFAULT_LATENT_DIMENSIONS, DEFAULT_MIN_COMMON, Measure};

/// Name of the command, and of the stage that `photos` makes it.
pub(super) const STAGE: &str = "recommend";
/// Default of `top`.
pub const DEFAULT_TOP: u32 = 5;
/// Default of `min_support`.
pub const DEFAULT_MIN_SUPPORT: u32 = 10;
/// Default of `blend`.
pub const DEFAULT_BLEND: f64 = 0.3;

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// A table of the user's own with one row for a photo, whose columns `where` may name.
    pub metadata: Option<PathBuf>,
    /// A condition in SQL on the columns of `metadata` and of the feature table: only photos that fulfil it are recommended.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Categories: only their cells count in the correlation; all if it is empty.
    pub wearing: Vec<String>,
    /// Categories, colours or cells, with a weight as `dress=2` (1): a photo's score is its correlation plus the weight times
    /// their share of its apparel.
    pub like: Vec<String>,
    /// The same with the weight taken off.
    pub unlike: Vec<String>,
    /// Categories that have to be worn in the photo's main colour of them.
    pub same: Vec<String>,
    /// Categories that must not be.
    pub different: Vec<String>,
    /// A category: only its colours count, by their shares of it alone.
    pub garment: Option<String>,
    /// Whether only the nearest of each group of duplicates is recommended, and none of the photo's own group.
    pub no_duplicates: bool,
    /// The folder with the groups of duplicates.
    pub duplicates: Option<PathBuf>,
    /// How much unlikeness among the recommended photos counts against likeness to the photo, 0 to 1.
    pub diverse: f32,
    /// The least correlation of a photo that is recommended.
    pub min_correlation: Option<f32>,
    /// Garments to name that go with each photo; 0 for none.
    pub complete: u32,
    /// Photos of the catalogue that have to wear such a garment with what the photo wears ([`DEFAULT_MIN_SUPPORT`]).
    pub min_support: u32,
    /// Table of events, `.parquet` or `.csv`, of who chose which photo of the catalogue; without it the looks alone count.
    pub interactions: Option<PathBuf>,
    /// Weight of the interactions, 0 to 1 ([`DEFAULT_BLEND`]); the looks have the rest.
    pub blend: Option<f64>,
    /// Photos to answer at once, into tables: a folder tree, a dataset folder, or a Parquet or CSV list.
    pub photos: Option<PathBuf>,
    /// For `photos`: the largest share of them that may be rejected ([`DEFAULT_MAX_REJECT_FRACTION`]).
    pub max_reject_fraction: f64,
    /// Folder for contact sheets, one per photo; none are written if it is not given. With `photos`, that of the tables.
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
            metadata: None,
            condition: None,
            wearing: Vec::new(),
            like: Vec::new(),
            unlike: Vec::new(),
            same: Vec::new(),
            different: Vec::new(),
            garment: None,
            no_duplicates: false,
            duplicates: None,
            diverse: 0.0,
            min_correlation: None,
            complete: 0,
            min_support: DEFAULT_MIN_SUPPORT,
            interactions: None,
            blend: None,
            photos: None,
            max_reject_fraction: DEFAULT_MAX_REJECT_FRACTION,
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

    /// Checks what concerns what goes with a photo, and who chose what.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting.
    pub(super) fn check_outfits(&self) -> Result<()> {
        let bad = |setting: &str, problem: String| Err(Error::config(format!("recommend.{setting}"), problem));
        if self.complete > 0 && self.min_support == 0 {
            return bad("min_support", "is 0; use 1 or more".to_owned());
        }
        if self.complete > 0 && self.photos.is_some() {
            let problem = "is for single photos, which are shown; leave out `photos`, or take what is worn together from \
                           pairs_worn.parquet of `lookbook similarity`";
            return bad("complete", problem.to_owned());
        }
        match self.blend {
            Some(blend) if !(0.0..=1.0).contains(&blend) => {
                bad("blend", format!("is {blend}; use 0 (looks alone) to 1 (interactions alone)"))
            }
            Some(_) if self.interactions.is_none() => {
                let problem =
                    "is set, but there is nothing to blend with; name a table of who chose what (`interactions`)";
                bad("blend", problem.to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The folder with the groups of duplicates, if they are asked for.
    pub(super) fn groups_of_duplicates(&self) -> Option<&Path> {
        self.duplicates.as_deref().filter(|_| self.no_duplicates)
    }
}
