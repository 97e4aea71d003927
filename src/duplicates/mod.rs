//! `duplicates`: near-duplicates among the photos of a feature table.
//!
//! In: a features folder. Out: `groups.parquet` (see [`tables`]) and `run.json`.

mod tables;

pub use tables::{GROUPS_FILE, GroupedPhoto, read_groups};
