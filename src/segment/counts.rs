//! The figures of a run, for its record and its gates.

use std::collections::BTreeMap;

use serde_json::json;

use super::config::Config;
use super::parts::Written;
use super::plan::{NEXT_PHOTO_ID, Plan};
use crate::error::Result;
use crate::features::FeatureStatistics;
use crate::labels::LabelSet;
use crate::stage::{Common, Stage, Summary};

/// Name of the pixel counts by apparel category in `run.json`.
const CATEGORY_PX: &str = "apparel_category_px";

pub(super) fn count_written(stage: &mut Stage, written: &Written, plan: &Plan) {
    for (name, count) in written.tally.named() {
        stage.count(name, count);
    }
    stage.count("vanished", plan.vanished);
    stage.count("parts_unchanged", written.linked_parts);
    count_parts(stage, written, plan);
}

pub(super) fn count_parts(stage: &mut Stage, written: &Written, plan: &Plan) {
    stage.count("parts", written.parts);
    stage.count(NEXT_PHOTO_ID, plan.next_photo_id);
    stage.count("passed_over", json!(plan.catalogue.passed_over));
}

/// Computes the table's statistics and checks the gates; returns the number of photos.
pub(super) fn count_statistics(config: &Config, common: &Common, written: &Written, stage: &mut Stage) -> Result<u64> {
    let rejects = written.rejects.len() as u64;
    let labels = &written.labels;
    let statistics = FeatureStatistics::scan(&stage.path(""))?;
    let photos = statistics.photos;
    stage.count("photos", photos);
    stage.count("rejects", rejects);
    stage.count("photos_without_apparel", statistics.photos_without_apparel);
    if let Some(without) = statistics.photos_without_embedding {
        stage.count("photos_without_embedding", without);
        if without > 0 {
            tracing::warn!(
                "{without} of {photos} photos have no embedding: the embedder gave no finite vector for them"
            );
        }
    }
    stage.count("mean_cells_per_photo", statistics.mean_cells_per_photo);
    stage.count(CATEGORY_PX, named_px(labels, &statistics.apparel_category_px));
    if config.shard.is_none() {
        let before = Summary::find(&config.output)?.and_then(|summary| px_of(labels, &summary));
        let nothing_worn_share = statistics.photos_without_apparel as f64 / photos.max(1) as f64;
        stage.gates(common.gates.photos(photos, rejects));
        stage.gates(common.gates.vanished(written.vanished));
        let pixels = &statistics.apparel_category_px;
        stage.gates(common.gates.features(nothing_worn_share, pixels, before.as_deref()));
    }
    Ok(photos)
}

/// The pixel counts of the apparel categories, by name.
fn named_px(labels: &LabelSet, pixels: &[u64]) -> serde_json::Value {
    let names = labels.apparel_categories().map(|it| labels.column_name(it).to_owned());
    names.zip(pixels).map(|(name, &px)| (name, px.into())).collect::<serde_json::Map<_, _>>().into()
}

/// Reads back what [`named_px`] wrote; `None` if it was of another label set, with which there is nothing to compare.
fn px_of(labels: &LabelSet, summary: &Summary) -> Option<Vec<u64>> {
    let named: BTreeMap<String, u64> = summary.counts.get(CATEGORY_PX)?;
    let is_same = named.len() == labels.apparel_categories().count();
    labels.apparel_categories().map(|it| named.get(labels.column_name(it)).copied().filter(|_| is_same)).collect()
}
