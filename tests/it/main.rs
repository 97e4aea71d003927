//! The integration tests: one binary, one module an area.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod makefile;
mod photo;
mod python;
mod shared;
mod training_step;
//! Integration tests: each module tries one area through the library's public stages.

mod convert;
mod sample;
