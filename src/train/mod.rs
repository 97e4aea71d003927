//! `train`: dataset tables to a model.

pub mod history;
