//! Summary figures of a run for its record.

use std::path::Path;

use polars::prelude::{LazyFrame, PlRefPath, PolarsError, ScanArgsParquet, col};

use super::tables::NEIGHBOURS_FILE;
use crate::error::{Error, Result};
use crate::features::FeatureStatistics;
use crate::stage::Stage;

/// The figures that describe the feature table and so do not depend on which rows a shard processes.
pub(super) const FEATURE_COUNTS: [&str; 4] =
    ["photos_without_apparel", "mean_cells_per_photo", "commonest_cells", "latent_variance_share"];

pub(super) fn count_features(features: &Path, variance_share: Option<f64>, stage: &mut Stage) -> Result<()> {
    let statistics = FeatureStatistics::scan(features)?;
    let counts: [serde_json::Value; 4] = [
        statistics.photos_without_apparel.into(),
        statistics.mean_cells_per_photo.into(),
        serde_json::json!(statistics.commonest_cells),
        variance_share.into(),
    ];
    FEATURE_COUNTS.into_iter().zip(counts).for_each(|(name, value)| stage.count(name, value));
    Ok(())
}

pub(super) fn count_nearest(stage: &mut Stage) -> Result<()> {
    let path = stage.path(NEIGHBOURS_FILE);
    let (with_neighbours, mean_nearest) =
        nearest_statistics(&path).map_err(|cause| Error::input(&path, "cannot be summarised").because(cause))?;
    stage.count("photos_with_neighbours", with_neighbours);
    stage.count("mean_nearest_correlation", mean_nearest);
    Ok(())
}

/// Number of photos that have a neighbour, and the mean correlation with the nearest one; `None` if there are none.
fn nearest_statistics(path: &Path) -> Result<(u64, Option<f64>), PolarsError> {
    let scan = LazyFrame::scan_parquet(PlRefPath::try_from_path(path)?, ScanArgsParquet::default())?;
    let nearest = scan.filter(col("rank").eq(1_u32)).select([col("correlation")]).collect()?;
    let correlation = nearest.column("correlation")?.f32()?;
    let sum: f64 = correlation.iter().flatten().map(f64::from).sum();
    let count = correlation.len();
    Ok((count as u64, (count > 0).then(|| sum / count as f64)))
}
