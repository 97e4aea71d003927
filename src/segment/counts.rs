//! The figures of a run, for its record and its gates.

use std::collections::BTreeMap;

use serde_json::json;

use super::config::Config;
use super::parts::Written;
use super::plan::{NEXT_PHOTO_ID, Plan};
use super::table_figures::{TableFigures, px_of};
use crate::error::Result;
use crate::stage::{Common, Stage, Summary};

pub(super) fn count_written(stage: &mut Stage, written: &Written, plan: &Plan) {
    for (name, count) in written.tally.named() {
        stage.count(name, count);
    }
    stage.count("vanished", plan.vanished);
    stage.count("parts_unchanged", written.linked_parts);
    CountedParts::of(written, plan).count(stage);
}

/// What the record says about the parts and the catalogue.
pub(super) struct CountedParts {
    pub(super) parts: usize,
    pub(super) next_photo_id: u64,
    /// Files of the catalogue that are not photos, by extension.
    pub(super) passed_over: BTreeMap<String, u64>,
}

impl CountedParts {
    pub(super) fn of(written: &Written, plan: &Plan) -> Self {
        let passed_over = plan.catalogue.passed_over.clone();
        Self { parts: written.parts, next_photo_id: plan.next_photo_id, passed_over }
    }

    pub(super) fn count(&self, stage: &mut Stage) {
        stage.count("parts", self.parts);
        stage.count(NEXT_PHOTO_ID, self.next_photo_id);
        stage.count("passed_over", json!(self.passed_over));
    }
}

/// Computes the table's figures, unless the shards know them, and checks the gates; returns the number of photos.
pub(super) fn count_table(config: &Config, common: &Common, written: &mut Written, stage: &mut Stage) -> Result<u64> {
    let rejects = written.rejects.len() as u64;
    let labels = &written.labels;
    let figures = written.figures.take().map_or_else(|| TableFigures::scan(&stage.path("")), Ok)?;
    figures.count(labels, stage);
    stage.count("rejects", rejects);
    let photos = figures.photos;
    if config.shard.is_none() {
        let before = Summary::find(&config.output)?.and_then(|summary| px_of(labels, &summary));
        let nothing_worn_share = figures.photos_without_apparel as f64 / photos.max(1) as f64;
        stage.gates(common.gates.photos(photos, rejects));
        stage.gates(common.gates.vanished(written.vanished));
        let pixels = &figures.apparel_category_px;
        stage.gates(common.gates.features(nothing_worn_share, pixels, before.as_deref()));
    }
    Ok(photos)
}
