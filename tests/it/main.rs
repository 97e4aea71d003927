//! The integration tests: one binary, one module an area.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod architecture;
mod browser;
mod convert;
mod cuda_dialect;
mod duplicates;
mod embedding;
mod encoder;
mod encoder_steps;
mod faults;
mod foreign_model;
mod fuzz;
mod gallery;
mod gradient;
mod incremental;
mod install;
mod int8;
mod jpeg;
mod label_sets;
mod labelled;
mod layout;
mod mat;
mod metadata;
mod model;
mod night;
mod nightly;
mod outfits;
mod parser;
mod photo;
mod pipeline;
mod program;
mod publish;
mod python;
mod recommend;
mod report;
mod sample;
mod segment;
mod shared;
mod similarity;
mod skip;
mod store;
mod stores;
mod training;
mod training_step;
