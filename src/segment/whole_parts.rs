//! Shards that have whole parts of the table: what each records about them, for its merge.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stage::{Stage, Summary};

/// Name of the record in the counts of a shard's `run.json`.
const WHOLE_PARTS: &str = "whole_parts";

/// What a shard with whole parts knows that its merge needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WholeParts {
    /// Of the ids and names of the whole catalogue, as it was listed: those of all shards must be the same.
    pub(super) catalogue: String,
    /// For each part that the shard has, its place among those of all shards.
    pub(super) places: Vec<u32>,
    /// Files of the whole catalogue that are not photos, by extension.
    pub(super) passed_over: BTreeMap<String, u64>,
    /// Number of the shard's photos in the published table that are no longer in the catalogue, and of all its photos there.
    pub(super) vanished: [u64; 2],
}

impl WholeParts {
    /// Writes it into the record of a shard.
    pub(super) fn count(&self, stage: &mut Stage) {
        stage.count(WHOLE_PARTS, serde_json::to_value(self).expect("it is plain data"));
    }

    /// Reads it from the record of a shard; `None` if that has no whole parts.
    pub(super) fn of(shard: &Summary) -> Option<Self> {
        shard.counts.get(WHOLE_PARTS)
    }
}
