//! From a photo to what is worn in it, and from that to its recommendations.

use std::path::PathBuf;

use crate::color::ColorTable;
use crate::error::Result;
use crate::features::{CellRule, Presence};
use crate::files::{self, OpenFolder};
use crate::labels::LabelSet;
use crate::model::predictor::Predictor;
use crate::parser::Embedder;
use crate::photo::{self, MAX_PIXELS, Photo};
use crate::stage::Summary;

use super::answer::{Recommendation, WornCell};
use super::shelf::{Look, Shelf};

/// A photo as processed, with the category of each pixel.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) photo: Photo,
    /// `[height, width]`, the photo's size.
    pub(super) label_map: Vec<u8>,
}

/// The networks that look at photos, and how their answers are counted.
pub(super) struct Eyes {
    pub(super) rule: CellRule,
    pub(super) colors: ColorTable,
    pub(super) predictor: Predictor,
    /// For the measure `embedding`.
    pub(super) embedder: Option<Embedder>,
}

/// Everything needed to make recommendations.
pub(super) struct Adviser {
    pub(super) eyes: Eyes,
    pub(super) shelf: Shelf,
}

impl Adviser {
    /// The recommendation for one photo, and the photo as processed if it is valid.
    pub(super) fn advise(&mut self, path: PathBuf) -> Result<(Recommendation, Option<Seen>)> {
        let eyes = &mut self.eyes;
        let for_embedder = eyes.embedder.as_ref().map(|it| &**it.layout());
        let read = photo::read_bytes(&path).and_then(|bytes| {
            Ok((eyes.predictor.layout().read_for(&bytes, MAX_PIXELS, for_embedder)?, files::digest_of(&bytes)))
        });
        let ((decoded, laid, for_embedder), digest) = match read {
            Ok(read) => read,
            Err(problem) => {
                let problem = format!("{}: {}", problem.reason, problem.detail);
                return Ok((Recommendation::without_neighbours(path, Some(problem)), None));
            }
        };
        let photo = decoded.photo;
        let answer = eyes.predictor.run(std::iter::once(&laid))?.swap_remove(0);
        let name = path.display().to_string();
        let label_map = eyes.predictor.layout().label_map(&laid, &answer, photo.size(), &name)?;
        let cells = cells_of(&eyes.colors, &photo, &label_map, eyes.rule);
        let embedding = match (&mut eyes.embedder, &for_embedder) {
            (Some(embedder), Some(canvas)) => embedder.run(&[canvas])?.swap_remove(0),
            _ => None,
        };
        let look = Look { cells, digest, embedding };
        let mut answer = Recommendation::without_neighbours(path, None);
        answer.worn = worn(eyes.colors.labels(), &look.cells);
        answer.steering = self.shelf.asked_for(&look.cells);
        answer.neighbours = self.shelf.recommend(&look);
        answer.completion = self.shelf.complete(&look);
        Ok((answer, Some(Seen { photo, label_map })))
    }
}

/// The share of the apparel of each cell, absent = 0.
pub(super) fn cells_of(colors: &ColorTable, photo: &Photo, label_map: &[u8], rule: CellRule) -> Vec<f32> {
    let counts = colors.count(photo, label_map, rule);
    counts.shares().into_iter().map(Option::unwrap_or_default).collect()
}

/// The rule by which the cells of the features in `folder` were made. Versions without a presence rule wrote every cell.
pub(super) fn cell_rule(folder: &OpenFolder) -> Result<CellRule> {
    let made = Summary::find(folder.root())?;
    let setting = |name: &str| made.as_ref().and_then(|it| it.config.setting(name));
    let color = made.as_ref().and_then(|it| it.config.setting("color_rule"));
    let [min_share, min_region] = ["min_share", "min_region"].map(|name| setting(name).unwrap_or(0.0));
    Ok(CellRule { color: color.unwrap_or_default(), presence: Presence { min_share, min_region } })
}

/// What is worn, the largest share first.
pub(super) fn worn(labels: &LabelSet, cells: &[f32]) -> Vec<WornCell> {
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
