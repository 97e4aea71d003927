//! Published models: their files, and how they are loaded and run; third-party parsers beside them.

pub mod calibration;
pub mod certainty;
pub mod confusion;
pub mod encoder;
pub mod epochs;
pub mod evaluation;
pub mod evaluator;
pub mod example;
pub mod files;
pub mod layout;
pub mod predictor;
mod published;
pub(crate) mod stream;
pub mod weights;

pub use predictor::Predictor;
pub use published::{Colors, Model};
