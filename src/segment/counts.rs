//! The figures of a run, for its record and its gates.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::config::Config;
use super::parts::Written;
use super::plan::{NEXT_PHOTO_ID, Plan};
use crate::error::{Error, Result};
use crate::features::FeatureStatistics;
use crate::files::OpenFolder;
use crate::labels::LabelSet;
use crate::stage::{Common, Stage, Summary};

/// Name of the pixel counts by apparel category in `run.json`.
const CATEGORY_PX: &str = "apparel_category_px";
/// Name of the number of photos without an embedding there.
const WITHOUT_EMBEDDING: &str = "photos_without_embedding";

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
    /// Files of the catalogue that are no photos, by extension.
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

/// Sums over the rows of a table.
#[derive(Debug, Default)]
pub(super) struct TableFigures {
    photos: u64,
    photos_without_apparel: u64,
    /// `None` if the table has no embeddings.
    photos_without_embedding: Option<u64>,
    /// Non-empty cells of all photos.
    cells: u64,
    /// Pixels of each apparel category.
    apparel_category_px: Vec<u64>,
}

impl TableFigures {
    /// Scans a features folder.
    fn scan(folder: &Path) -> Result<Self> {
        let found = FeatureStatistics::scan(folder)?;
        let FeatureStatistics { photos, photos_without_apparel, photos_without_embedding, apparel_category_px, .. } =
            found;
        let cells = cells_of(found.mean_cells_per_photo, photos);
        Ok(Self { photos, photos_without_apparel, photos_without_embedding, cells, apparel_category_px })
    }

    /// Those of all shards, by their records.
    pub(super) fn of_shards(labels: &LabelSet, shards: &[(OpenFolder, Summary)]) -> Result<Self> {
        let mut sum = Self { apparel_category_px: vec![0; labels.apparel_categories().count()], ..Self::default() };
        for (folder, made) in shards {
            let count = |name| made.counts.count(name);
            let found = || {
                let (photos, mean) = (count("photos")?, made.counts.number("mean_cells_per_photo")?);
                Some((photos, count("photos_without_apparel")?, cells_of(mean, photos), px_of(labels, made)?))
            };
            let incomplete = || Error::input(folder.name(), "has an incomplete record; run the shard again");
            let (photos, without_apparel, cells, pixels) = found().ok_or_else(incomplete)?;
            sum.photos += photos;
            sum.photos_without_apparel += without_apparel;
            sum.cells += cells;
            sum.apparel_category_px.iter_mut().zip(pixels).for_each(|(sum, px)| *sum += px);
            if let Some(without) = count(WITHOUT_EMBEDDING) {
                *sum.photos_without_embedding.get_or_insert(0) += without;
            }
        }
        Ok(sum)
    }

    fn count(&self, labels: &LabelSet, stage: &mut Stage) {
        let photos = self.photos;
        stage.count("photos", photos);
        stage.count("photos_without_apparel", self.photos_without_apparel);
        if let Some(without) = self.photos_without_embedding {
            stage.count(WITHOUT_EMBEDDING, without);
            if without > 0 {
                tracing::warn!(
                    "{without} of {photos} photos have no embedding: the embedder gave no finite vector for them"
                );
            }
        }
        stage.count("mean_cells_per_photo", self.cells as f64 / photos.max(1) as f64);
        stage.count(CATEGORY_PX, named_px(labels, &self.apparel_category_px));
    }
}

/// The number of cells of all photos, of which there are `mean` on average.
fn cells_of(mean: f64, photos: u64) -> u64 {
    (mean * photos as f64).round() as u64
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
