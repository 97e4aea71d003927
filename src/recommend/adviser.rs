//! From a photo to its recommendations.

use std::path::PathBuf;

use crate::color::ColorTable;
use crate::error::Result;
use crate::features::{CellRule, FeatureTable, Presence};
use crate::files::{self, OpenFolder};
use crate::labels::LabelSet;
use crate::model::predictor::Predictor;
use crate::parser::Embedder;
use crate::photo::{self, MAX_PIXELS, Photo};
use crate::similarity::Correlator;
use crate::stage::Summary;

use super::answer::{Recommendation, Recommended, WornCell};
use super::config::Config;

/// Everything needed to make recommendations.
pub(super) struct Adviser<'a> {
    pub(super) config: &'a Config,
    pub(super) rule: CellRule,
    pub(super) features: FeatureTable,
    pub(super) colors: ColorTable,
    pub(super) predictor: Predictor,
    /// For the measure `embedding`.
    pub(super) embedder: Option<Embedder>,
    pub(super) correlator: Correlator,
}

impl Adviser<'_> {
    /// The recommendation for one photo, and the photo as processed if it is valid.
    pub(super) fn advise(&mut self, path: PathBuf) -> Result<(Recommendation, Option<Photo>)> {
        let for_embedder = self.embedder.as_ref().map(|it| &**it.layout());
        let read = photo::read_bytes(&path).and_then(|bytes| {
            Ok((self.predictor.layout().read_for(&bytes, MAX_PIXELS, for_embedder)?, files::digest_of(&bytes)))
        });
        let ((decoded, laid, for_embedder), digest) = match read {
            Ok(read) => read,
            Err(problem) => {
                let problem = format!("{}: {}", problem.reason, problem.detail);
                return Ok((Recommendation::without_neighbours(path, Some(problem)), None));
            }
        };
        let photo = decoded.photo;
        let answer = self.predictor.run(std::iter::once(&laid))?.swap_remove(0);
        let name = path.display().to_string();
        let label_map = self.predictor.layout().label_map(&laid, &answer, photo.size(), &name)?;
        let counts = self.colors.count(&photo, &label_map, self.rule);
        let cells: Vec<f32> = counts.shares().into_iter().map(Option::unwrap_or_default).collect();
        let mut answer = Recommendation::without_neighbours(path, None);
        answer.worn = worn(self.colors.labels(), &cells);
        let correlations = match (&mut self.embedder, &for_embedder) {
            (Some(embedder), Some(canvas)) => {
                let embedding = embedder.run(&[canvas])?.swap_remove(0);
                embedding.map(|it| self.correlator.correlate_embedding(&it))
            }
            _ => (!answer.worn.is_empty()).then(|| self.correlator.correlate(&cells)),
        };
        if let Some(correlations) = correlations {
            answer.neighbours = self.neighbours(&cells, &correlations, &digest);
        }
        Ok((answer, Some(photo)))
    }

    fn neighbours(&self, cells: &[f32], correlations: &[f32], digest: &str) -> Vec<Recommended> {
        // Do not recommend the query photo itself if it is in the catalogue.
        let other = |row: usize| self.features.content_sha256[row] != digest;
        let nearest = self.correlator.nearest(correlations, self.config.top as usize, other);
        let recommended = |((row, correlation), rank): ((usize, f32), u32)| Recommended {
            rank,
            photo_id: self.features.photo_ids[row],
            file_name: self.features.file_names[row].clone(),
            path: self.features.paths[row].clone(),
            correlation,
            shared_cells: self.correlator.shared_cells(cells, row),
        };
        nearest.into_iter().zip(1..).map(recommended).collect()
    }
}

/// The rule by which the cells of the features in `folder` were made. Versions without a presence rule wrote every cell.
pub(super) fn cell_rule(folder: &OpenFolder) -> Result<CellRule> {
    let made = Summary::find(folder.root())?;
    let setting = |name: &str| made.as_ref().and_then(|it| it.config.setting(name));
    let color = made.as_ref().and_then(|it| it.config.setting("color_rule"));
    let [min_share, min_region] = ["min_share", "min_region"].map(|name| setting(name).unwrap_or(0.0));
    Ok(CellRule { color: color.unwrap_or_default(), presence: Presence { min_share, min_region } })
}

fn worn(labels: &LabelSet, cells: &[f32]) -> Vec<WornCell> {
    let present = labels.cell_names().iter().cloned().zip(cells).filter(|(_, share)| **share > 0.0);
    let mut worn: Vec<_> = present.map(|(name, &share)| WornCell { name, share }).collect();
    worn.sort_by(|a, b| b.share.total_cmp(&a.share));
    worn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worn_comes_most_first() {
        let mut cells = vec![0.0; crate::labels::CELL_COUNT];
        (cells[0], cells[30], cells[200]) = (0.2, 0.5, 0.3);
        let shares: Vec<f32> = worn(&LabelSet::cfpd(), &cells).iter().map(|cell| cell.share).collect();
        assert_eq!(shares, [0.5, 0.3, 0.2]);
    }
}
