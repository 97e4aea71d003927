//! `lookbook` turns a fashion-parsing data set into tables for analysts, every night, unattended:
//!
//! ```text
//! .mat file + photos -convert-> dataset tables -train-> model -segment-> feature tables
//!                                                  feature tables -similarity-> matrix + neighbours
//!                                                                 -recommend / report-> people
//! ```
//!
//! Each arrow is a stage: one subcommand, one module, one `Config` with defaults, one `run(&Config, &Common) ->
//! Result<Summary>`. Stages communicate only through files.

pub mod catalogue;
pub mod convert;
pub mod engine;
pub mod error;
pub mod files;
pub mod gates;
pub mod labels;
pub mod progress;
pub mod rejects;
pub mod runs;
pub mod settings;
pub mod shard;
pub mod stage;
pub mod status;
pub mod stop;
pub mod table;
pub mod units;

// Data, models and stages.
pub mod canvas;
pub mod color;
pub mod dataset;
pub mod doctor;
pub mod evaluate;
pub mod export;
pub mod features;
pub mod graph;
pub mod mat;
pub mod model;
pub mod ops;
pub mod photo;
pub mod picture;
pub mod recommend;
pub mod report;
pub mod runtime;
pub mod sample;
pub mod segment;
pub mod similarity;
pub mod train;

pub use error::{Error, Result};
