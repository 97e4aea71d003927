//! Sums over the rows of a feature table, for its record and its gates.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::features::FeatureStatistics;
use crate::files::OpenFolder;
use crate::labels::LabelSet;
use crate::stage::{Stage, Summary};

/// Name of the pixel counts by apparel category in `run.json`.
const CATEGORY_PX: &str = "apparel_category_px";
/// Name of the number of photos without an embedding there.
const WITHOUT_EMBEDDING: &str = "photos_without_embedding";

/// Sums over the rows of a table.
#[derive(Debug, Default)]
pub(super) struct TableFigures {
    pub(super) photos: u64,
    pub(super) photos_without_apparel: u64,
    /// `None` if the table has no embeddings.
    photos_without_embedding: Option<u64>,
    /// Non-empty cells of all photos.
    cells: u64,
    /// Pixels of each apparel category.
    pub(super) apparel_category_px: Vec<u64>,
}

impl TableFigures {
    /// Scans a features folder.
    pub(super) fn scan(folder: &Path) -> Result<Self> {
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

    /// Writes them into the record.
    pub(super) fn count(&self, labels: &LabelSet, stage: &mut Stage) {
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

/// The pixel counts of the apparel categories, by name.
fn named_px(labels: &LabelSet, pixels: &[u64]) -> serde_json::Value {
    let names = labels.apparel_categories().map(|it| labels.column_name(it).to_owned());
    names.zip(pixels).map(|(name, &px)| (name, px.into())).collect::<serde_json::Map<_, _>>().into()
}

/// Reads back what [`named_px`] wrote; `None` if it was of another label set, with which there is nothing to compare.
pub(super) fn px_of(labels: &LabelSet, summary: &Summary) -> Option<Vec<u64>> {
    let named: BTreeMap<String, u64> = summary.counts.get(CATEGORY_PX)?;
    let is_same = named.len() == labels.apparel_categories().count();
    labels.apparel_categories().map(|it| named.get(labels.column_name(it)).copied().filter(|_| is_same)).collect()
}
