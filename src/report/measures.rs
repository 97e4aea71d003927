//! Which measure to choose: how similar a photo's nearest neighbours are by each measure, as a table and a contact
//! sheet.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use super::figures::{QUALITY, data_uri, percent};
use super::run::Run;
use crate::error::Result;
use crate::features::FeatureTable;
use crate::files;
use crate::photo::{FIT_HEIGHT_PX, FIT_WIDTH_PX, Photo};
use crate::picture::{self, Panel};
use crate::recommend::catalogue_pictures;
use crate::similarity::likeness::{ByMeasure, Likeness, Nearests, likeness, nearest_by_measure};
use crate::similarity::{DEFAULT_TOP, Measure};
use crate::stage::{Common, Stage};

/// Photos on the contact sheet, and neighbours of each photo by each measure.
const SHEET_QUERIES: usize = 2;
const SHEET_NEAREST: usize = 5;
const MISSING_RGB: u8 = 200;

/// The comparison as shown on the page.
#[derive(Debug, Serialize)]
pub(super) struct Measures {
    photos: usize,
    top: u32,
    rows: Vec<Row>,
    /// `data:` URI.
    sheet: String,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    figures: [String; 3],
}

/// Compares the measures; `None` if there is no feature table, or nothing in it to compare.
pub(super) fn compare(run: &Run, common: &Common, stage: &Stage) -> Result<Option<Measures>> {
    let Some(folder) = run.folder("features") else { return Ok(None) };
    let mut features = FeatureTable::open(folder)?;
    features.read_embeddings(folder)?;
    let nearests = nearest_by_measure(&features, DEFAULT_TOP as usize, common.seed);
    let likeness = likeness(&features, &nearests);
    if likeness.iter().all(|it| it.pairs == 0) {
        return Ok(None);
    }
    files::write_json(&stage.path("measures.json"), &likeness)?;
    let sheet = sheet(folder, &features, &nearests)?;
    let sheet = picture::jpeg(&sheet, QUALITY);
    files::write(&stage.path("measures.jpg"), &sheet)?;
    let rows = likeness.iter().map(Row::new).collect();
    Ok(Some(Measures { photos: nearests.queries.len(), top: DEFAULT_TOP, rows, sheet: data_uri("jpeg", &sheet) }))
}

impl Row {
    fn new(of: &Likeness) -> Self {
        let figures = [of.same_categories, of.category_overlap, of.same_dominant_cell].map(percent);
        Self { name: name(of.measure), figures }
    }
}

fn name(measure: Option<Measure>) -> &'static str {
    measure.map_or("at random", Measure::name)
}

/// For each of a few photos, one line per measure: the photo and its nearest neighbours.
fn sheet(folder: &Path, features: &FeatureTable, nearests: &Nearests) -> Result<Photo> {
    let mut places: Vec<(Option<usize>, String)> = Vec::new();
    for query in picture::spaced(nearests.queries.len(), SHEET_QUERIES) {
        for ByMeasure { measure, nearest } in &nearests.by_measure {
            places.push((Some(nearests.queries[query]), name(*measure).to_owned()));
            places.extend(nearest[query].iter().take(SHEET_NEAREST).map(|&(row, r)| (Some(row), caption(r))));
            places.resize(places.len().next_multiple_of(SHEET_NEAREST + 1), (None, String::new()));
        }
    }
    let rows = places.iter().filter_map(|(row, _)| *row);
    let wanted: HashMap<u32, &str> = rows.map(|row| (features.photo_ids[row], features.paths[row].as_str())).collect();
    let pictures = catalogue_pictures(folder, &wanted)?;
    let picture = |row: usize| pictures.get(&features.photo_ids[row]).cloned();
    let photo = |row: Option<usize>| row.and_then(picture).unwrap_or_else(missing);
    let tiles: Vec<Panel> = places.into_iter().map(|(row, caption)| Panel { photo: photo(row), caption }).collect();
    picture::contact_sheet(&tiles, SHEET_NEAREST + 1)
}

/// The caption of a neighbour; empty for a photo drawn at random.
fn caption(correlation: f32) -> String {
    if correlation.is_nan() { String::new() } else { format!("{correlation:.3}") }
}

/// Placeholder for a picture that no longer exists, or for a missing neighbour.
fn missing() -> Photo {
    let rgb = vec![MISSING_RGB; (FIT_WIDTH_PX * FIT_HEIGHT_PX * 3) as usize];
    Photo { width_px: FIT_WIDTH_PX, height_px: FIT_HEIGHT_PX, rgb }
}
