//! `lookbook` turns a fashion-parsing data set into tables for analysts, every night, unattended:
//!
//! ```text
//! .mat file + photos -convert-> dataset tables -train-> model -segment-> feature tables
//!                                                  feature tables -similarity-> matrix + neighbours
//!                                                                 -recommend / report-> people
//! ```
//!
//! Each arrow is a stage: one command, one module, one `Config` with defaults, one `run(&Config, &Common) ->
//! Result<Outcome>`. Stages meet only in files. There are three doors.
//!
//! # Stages
//!
//! Each publishes a folder, whole or not at all, with a record of what it read and did.
//!
//! ```
//! use lookbook::stage::Common;
//! use lookbook::{convert, sample};
//!
//! # fn main() -> lookbook::Result<()> {
//! let place = tempfile::tempdir().expect("a temporary folder");
//! let source = place.path().join("source");
//! let sample = sample::Config { output: source.clone(), photos: 2 };
//! sample::run(&sample, &Common::default())?.published().expect("a sample has no gates");
//! let config = convert::Config { source, output: place.path().join("dataset"), ..Default::default() };
//! let summary = convert::run(&config, &Common::default())?.published().expect("all photos are good");
//! assert_eq!(summary.counts["photos"], 2);
//! assert!(config.output.join("photos.parquet").is_file());
//! # Ok(())
//! # }
//! ```
//!
//! # A trained model
//!
//! ```
//! use lookbook::engine::{Engine, PrecisionChoice};
//! use lookbook::model::Model;
//! use lookbook::photo::Photo;
//!
//! # use lookbook::graph::{self, Loss, Spec, parameters};
//! # fn main() -> lookbook::Result<()> {
//! # if lookbook::runtime::library().is_err() { return Ok(()); }
//! # let place = tempfile::tempdir().expect("a temporary folder");
//! # let spec = Spec::seed(48, 64, Loss::Bce);
//! # let weights = parameters::initial_weights(&spec, 0);
//! # lookbook::files::write(&place.path().join("predict.onnx"), &graph::predict(&spec, &weights))?;
//! let model = Model::open(place.path())?;
//! let mut predictor = model.predictor(Engine::default(), PrecisionChoice::F32)?;
//! let photo = Photo { width_px: 30, height_px: 40, rgb: vec![128; 30 * 40 * 3] };
//! let label_maps = predictor.label_maps(&[photo])?;
//! assert_eq!(label_maps[0].len(), 30 * 40, "one category per pixel");
//! # Ok(())
//! # }
//! ```
//!
//! # The looks most like a look
//!
//! ```
//! use lookbook::features::FeatureTable;
//! use lookbook::similarity::{Correlator, Measure};
//!
//! # use lookbook::stage::Common;
//! # use lookbook::{convert, sample, segment};
//! # fn main() -> lookbook::Result<()> {
//! # let place = tempfile::tempdir().expect("a temporary folder");
//! # let [source, dataset, features] = ["source", "dataset", "features"].map(|name| place.path().join(name));
//! # sample::run(&sample::Config { output: source.clone(), photos: 6 }, &Common::default())?;
//! # convert::run(&convert::Config { source, output: dataset.clone(), ..Default::default() }, &Common::default())?;
//! # let labels = segment::LabelSource::Labels;
//! # let config = segment::Config { catalogue: dataset, output: features.clone(), from: labels, ..Default::default() };
//! # segment::run(&config, &Common::default())?;
//! let table = FeatureTable::open(&features)?;
//! let correlator = Correlator::new(&table, Measure::Pearson.into());
//! let correlations = correlator.correlate(table.row(0));
//! let nearest = correlator.nearest(&correlations, 3, |row| row != 0);
//! assert!(nearest[0].1 >= nearest[1].1, "the nearest first");
//! # Ok(())
//! # }
//! ```
//!
//! Everything else is public for the program, its tests and its benches, hidden from these pages, and may change.

#![forbid(unsafe_code)]

pub mod engine;
pub mod error;
pub mod features;
pub mod model;
pub mod photo;
pub mod similarity;
pub mod stage;

// The stages.
pub mod convert;
pub mod duplicates;
pub mod evaluate;
pub mod export;
pub mod recommend;
pub mod report;
pub mod sample;
pub mod segment;
pub mod train;

#[doc(hidden)]
pub mod canvas;
#[doc(hidden)]
pub mod catalogue;
#[doc(hidden)]
pub mod chart;
#[doc(hidden)]
pub mod color;
#[doc(hidden)]
pub mod dataset;
#[doc(hidden)]
pub mod delta;
#[doc(hidden)]
pub mod doctor;
#[doc(hidden)]
pub mod files;
mod fold;
#[doc(hidden)]
pub mod gates;
#[doc(hidden)]
pub mod graph;
mod guard;
#[doc(hidden)]
pub mod interactions;
#[doc(hidden)]
pub mod labels;
mod mask;
#[doc(hidden)]
pub mod mat;
#[doc(hidden)]
pub mod metadata;
#[doc(hidden)]
pub mod mirror;
#[doc(hidden)]
pub mod parser;
#[doc(hidden)]
pub mod picture;
#[doc(hidden)]
pub mod progress;
#[doc(hidden)]
pub mod reason;
#[doc(hidden)]
pub mod rejects;
#[doc(hidden)]
pub mod run;
#[doc(hidden)]
pub mod runs;
#[doc(hidden)]
pub mod runtime;
#[doc(hidden)]
pub mod settings;
#[doc(hidden)]
pub mod shard;
#[doc(hidden)]
pub mod stages;
#[doc(hidden)]
pub mod status;
#[doc(hidden)]
pub mod stop;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod table;
#[doc(hidden)]
pub mod threads;
#[doc(hidden)]
pub mod units;
#[doc(hidden)]
pub mod worn;

pub use error::{Error, Result};
