//! A few photos with their nearest by the labels beside their nearest by the model, from the evaluation of the model.

use std::collections::{BTreeSet, HashMap};

use rayon::prelude::*;
use serde::Serialize;

use super::figures::{QUALITY, data_uri};
use super::run::Run;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::files;
use crate::model::evaluation::{self, PhotoEvaluation};
use crate::photo::{self, FIT_HEIGHT_PX, FIT_WIDTH_PX, Photo};
use crate::picture::{self, Panel};
use crate::stage::Stage;

/// Photos whose neighbours are shown, and neighbours of each on either side.
const QUERIES: usize = 5;
const NEAREST: usize = 6;

/// The comparison as shown on the page.
#[derive(Debug, Serialize)]
pub(super) struct Neighbours {
    photos: usize,
    split: &'static str,
    /// `data:` URI.
    sheet: String,
}

/// Draws the comparison; `None` without a data set and an evaluation that has neighbours.
pub(super) fn compare(run: &Run, stage: &Stage) -> Result<Option<Neighbours>> {
    let (Some(dataset), Some(model)) = (run.folder("dataset"), run.folder("model")) else { return Ok(None) };
    let Some(evaluation) = evaluation::find(model)? else { return Ok(None) };
    let dataset = Dataset::open(dataset)?;
    let names: HashMap<u32, String> =
        dataset.index()?.into_iter().map(|photo| (photo.photo_id, photo.file_name)).collect();
    let has_neighbours = |it: &&PhotoEvaluation| {
        names.get(&it.photo_id) == Some(&it.file_name)
            && !it.nearest_by_labels.is_empty()
            && !it.nearest_by_model.is_empty()
    };
    let photos: Vec<&PhotoEvaluation> = evaluation.by_photo.iter().filter(has_neighbours).collect();
    let shown: Vec<&PhotoEvaluation> = picture::spaced(photos.len(), QUERIES).map(|place| photos[place]).collect();
    if shown.is_empty() {
        return Ok(None);
    }
    let lines: Vec<Vec<(u32, String)>> = shown.iter().flat_map(|it| lines(it)).collect();
    let sheet = picture::jpeg(&sheet(&dataset, &lines)?, QUALITY);
    files::write(&stage.path("neighbours.jpg"), &sheet)?;
    let split = evaluation.split.name();
    Ok(Some(Neighbours { photos: shown.len(), split, sheet: data_uri("jpeg", &sheet) }))
}

/// Two lines of photo ids with captions: a photo and its nearest by the labels, and by the model.
fn lines(photo: &PhotoEvaluation) -> [Vec<(u32, String)>; 2] {
    let sides = [
        ("by the labels", "model", &photo.nearest_by_labels, &photo.nearest_by_model),
        ("by the model", "labels", &photo.nearest_by_model, &photo.nearest_by_labels),
    ];
    sides.map(|(side, other_side, nearest, others)| {
        let caption = |(&id, rank): (&u32, u32)| match others.iter().position(|&other| other == id) {
            Some(place) => (id, format!("{rank} ({} by the {other_side})", place + 1)),
            None => (id, rank.to_string()),
        };
        let query = (photo.photo_id, format!("{}\n{side}", photo.file_name));
        [query].into_iter().chain(nearest.iter().take(NEAREST).zip(1..).map(caption)).collect()
    })
}

fn sheet(dataset: &Dataset, lines: &[Vec<(u32, String)>]) -> Result<Photo> {
    let ids: BTreeSet<u32> = lines.iter().flatten().map(|(id, _)| *id).collect();
    let files = dataset.files_of(&ids.into_iter().collect::<Vec<_>>())?;
    let source = dataset.photos_path();
    let picture = |photo: Photo| photo::fit(&photo, FIT_WIDTH_PX, FIT_HEIGHT_PX);
    let pictures = files.par_iter().map(|it| Ok((it.entry.photo_id, picture(it.decode(&source)?))));
    let pictures: HashMap<u32, Photo> = pictures.collect::<Result<_>>()?;
    let tiles = lines.iter().flat_map(|line| {
        let missing = NEAREST + 1 - line.len();
        let blank = Panel { photo: Photo { width_px: 1, height_px: 1, rgb: vec![255; 3] }, caption: String::new() };
        let tile = |(id, caption): &(u32, String)| match pictures.get(id) {
            Some(photo) => Panel { photo: photo.clone(), caption: caption.clone() },
            None => Panel { caption: caption.clone(), ..blank.clone() },
        };
        line.iter().map(tile).chain(std::iter::repeat_n(blank.clone(), missing)).collect::<Vec<_>>()
    });
    picture::contact_sheet(&tiles.collect::<Vec<_>>(), NEAREST + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_says_which_place_a_neighbour_has_on_the_other() {
        let photo = PhotoEvaluation {
            photo_id: 7,
            file_name: "7.jpg".to_owned(),
            pixel_accuracy: 1.0,
            foreground_accuracy: None,
            mean_iou: 1.0,
            cells_by_labels: 1,
            cells_by_model: 1,
            nearest_by_labels: vec![3, 1, 4],
            nearest_by_model: vec![9, 3],
        };
        let captions =
            lines(&photo).map(|line| line.into_iter().map(|(id, text)| format!("{id}: {text}")).collect::<Vec<_>>());
        assert_eq!(captions[0], ["7: 7.jpg\nby the labels", "3: 1 (2 by the model)", "1: 2", "4: 3"]);
        assert_eq!(captions[1], ["7: 7.jpg\nby the model", "9: 1", "3: 2 (1 by the labels)"]);
    }
}
