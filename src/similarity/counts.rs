//! Summary figures of a run for its record.

use super::correlator::Correlator;
use super::tables::{NEIGHBOURS_FILE, read_neighbours};
use crate::error::Result;
use crate::features::FeatureStatistics;
use crate::stage::Stage;

/// The figures that describe the feature table and so do not depend on which rows a shard processes.
pub(super) const FEATURE_COUNTS: [&str; 5] = [
    "photos_without_apparel",
    "photos_without_embedding",
    "mean_cells_per_photo",
    "commonest_cells",
    "latent_variance_share",
];

pub(super) fn count_features(statistics: &FeatureStatistics, correlator: &Correlator, stage: &mut Stage) {
    let counts: [serde_json::Value; 5] = [
        statistics.photos_without_apparel.into(),
        statistics.photos_without_embedding.into(),
        statistics.mean_cells_per_photo.into(),
        serde_json::json!(statistics.commonest_cells),
        correlator.variance_share().into(),
    ];
    let known = FEATURE_COUNTS.into_iter().zip(counts).filter(|(_, value)| !value.is_null());
    known.for_each(|(name, value)| stage.count(name, value));
}

pub(super) fn count_nearest(stage: &mut Stage) -> Result<()> {
    let neighbours = read_neighbours(&stage.path(NEIGHBOURS_FILE))?;
    let nearest: Vec<_> = neighbours.iter().filter(|it| it.rank == 1).map(|it| f64::from(it.correlation)).collect();
    stage.count("photos_with_neighbours", nearest.len());
    let mean = (!nearest.is_empty()).then(|| nearest.iter().sum::<f64>() / nearest.len() as f64);
    stage.count("mean_nearest_correlation", mean);
    Ok(())
}
