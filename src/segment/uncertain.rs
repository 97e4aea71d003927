//! The photos that the network is least certain of: labelling them helps most.

use std::collections::{HashMap, HashSet};

use super::config::Config;
use super::earlier::{Earlier, Wanted};
use super::state;
use super::{masks, stream};
use crate::error::Result;
use crate::features::layout;
use crate::model::Predictor;
use crate::stage::{Common, Digest, Stage};

/// The photos whose masks are written.
pub(super) struct Chosen {
    photo_ids: Vec<u32>,
    pub(super) contents: HashSet<Digest>,
}

/// The least certain photos of all parts in the stage's folder, as many as the settings ask for; the lower id on a tie.
/// Photos of the same content count once.
pub(super) fn choose(config: &Config, stage: &Stage, parts: usize) -> Result<Chosen> {
    let (mut photos, mut seen) = (Vec::new(), HashSet::new());
    for number in 0..parts {
        for it in state::read(&stage.path("").join(layout::state_file(number)))? {
            if let (Some(certainty), Some(content), None) = (it.certainty, it.content, &it.reject)
                && seen.insert(content)
            {
                photos.push((certainty.mean, it.photo_id, content));
            }
        }
    }
    photos.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    photos.truncate(config.uncertain as usize);
    let (photo_ids, contents) = photos.into_iter().map(|(_, photo_id, content)| (photo_id, content)).unzip();
    Ok(Chosen { photo_ids, contents })
}

/// Segments the chosen photos once more, for their masks.
pub(super) fn write_masks(
    chosen: &Chosen,
    work: &stream::Work,
    mut predictor: Option<&mut Predictor>,
    stage: &Stage,
    common: &Common,
) -> Result<()> {
    let entries = work.catalogue.entries.iter().zip(0..).filter(|(it, _)| !it.kept);
    let by_id: HashMap<u32, u32> = entries.map(|(it, index)| (it.photo_id, index)).collect();
    let indices: Vec<u32> = chosen.photo_ids.iter().filter_map(|id| by_id.get(id).copied()).collect();
    let work = stream::Work {
        earlier: &Earlier::default(),
        wanted: Wanted { mask: true, certainty: false, ..work.wanted },
        masks: Some(stage.path(masks::FOLDER)),
        layout: work.layout.clone(),
        embedder: None,
        ..*work
    };
    if let Some(predictor) = &mut predictor {
        predictor.without_certainty();
    }
    stream::run(
        &work,
        (predictor, None),
        work.catalogue.items(&indices, work.layout.is_none())?,
        common.threads,
        |_| Ok(()),
    )
}
