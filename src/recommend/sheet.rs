//! Contact sheets: a photo and its neighbours, side by side, and below them photos of what goes with it, a row for each
//! garment.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::dataset::Dataset;
use crate::error::Result;
use crate::files;
use crate::labels::LabelSet;
use crate::photo::{self, Decoding, FIT_HEIGHT_PX, FIT_WIDTH_PX, MAX_PIXELS, Photo, PhotoProblem};
use crate::picture::{self, Panel};
use crate::stage::Summary;

use super::adviser::{Adviser, Seen};
use super::answer::{Garment, Recommendation, Recommended};

/// Pictures in a row of a contact sheet.
const SHEET_COLUMNS: usize = 6;
/// Lines below a picture: its name and what speaks for and against it.
const CAPTION_LINES: usize = 6;
/// Placeholder colour for a picture that no longer exists.
const MISSING_RGB: [u8; 3] = [200, 200, 200];

/// Writes a contact sheet for each photo that has neighbours: the photo first, then its neighbours. In each neighbour, the
/// garment that contributes most to the correlation is outlined in the colour of its category, and all these in the photo.
pub(super) fn draw_sheets(
    adviser: &mut Adviser,
    features: &Path,
    output: &Path,
    answers: &mut [(Recommendation, Option<Seen>)],
) -> Result<()> {
    files::create_folder(output)?;
    let wanted = answers.iter().flat_map(|(answer, _)| answer.neighbours.iter().chain(answer.looks()));
    let wanted: HashMap<u32, &str> = wanted.map(|it| (it.photo_id, it.path.as_str())).collect();
    let pictures = outlined_on(adviser, catalogue_pictures(features, &wanted)?)?;
    let labels = adviser.eyes.colors.labels().clone();
    for (number, (answer, seen)) in (1..).zip(answers) {
        let Some(seen) = seen.as_ref().filter(|_| !answer.neighbours.is_empty()) else { continue };
        let garments: Vec<Option<u8>> = answer.neighbours.iter().map(|it| main_garment(&labels, it)).collect();
        let of_photo: BTreeSet<u8> = garments.iter().flatten().copied().collect();
        let mut tiles = vec![seen.tile(&of_photo, format!("the photo\n{}", answer.steering.join("; ")))];
        tiles.extend(answer.neighbours.iter().zip(garments).map(|(it, garment)| {
            let Some(seen) = pictures.get(&it.photo_id) else { return missing_tile(it) };
            let name = format!("{}. {}  {:.3}", it.rank, it.file_name, it.score.unwrap_or(it.correlation));
            seen.tile(&garment.into_iter().collect(), format!("{name}\n{}", it.reasons().join("\n")))
        }));
        let stem = answer.photo.file_stem().unwrap_or_default().to_string_lossy();
        let path = output.join(format!("{number:03}_{stem}.png"));
        let sheet = picture::contact_sheet_of(&tiles, SHEET_COLUMNS, CAPTION_LINES)?;
        let legend = picture::legend(&labels, &of_photo.into_iter().collect::<Vec<_>>(), sheet.width_px)?;
        let mut rows = vec![sheet, legend];
        rows.extend(rows_of_looks(&labels, answer, &pictures)?);
        files::write(&path, &picture::png(&picture::stacked(&rows)))?;
        answer.contact_sheet = Some(path);
    }
    Ok(())
}

/// A row of photos for each garment that goes with a photo, in which it is outlined.
fn rows_of_looks(labels: &LabelSet, answer: &Recommendation, pictures: &HashMap<u32, Seen>) -> Result<Vec<Photo>> {
    let garments = answer.completion.iter().flat_map(|it| &it.garments).filter(|it| !it.looks.is_empty());
    let row = |garment: &Garment| {
        let category: BTreeSet<u8> = labels.category_named(&garment.name).into_iter().collect();
        let with = format!("with {} ({:.0} %)", garment.name, garment.confidence * 100.0);
        let tile = |it: &Recommended| match pictures.get(&it.photo_id) {
            Some(seen) => seen.tile(&category, format!("{with}\n{}  {:.3}", it.file_name, it.correlation)),
            None => missing_tile(it),
        };
        let tiles: Vec<Panel> = garment.looks.iter().map(tile).collect();
        picture::contact_sheet(&tiles, SHEET_COLUMNS)
    };
    garments.map(row).collect()
}

/// The pictures of neighbours with the category of each pixel, from the network.
fn outlined_on(adviser: &mut Adviser, pictures: HashMap<u32, Photo>) -> Result<HashMap<u32, Seen>> {
    let (ids, photos): (Vec<u32>, Vec<Photo>) = pictures.into_iter().unzip();
    let label_maps = adviser.eyes.predictor.label_maps(&photos)?;
    let seen = photos.into_iter().zip(label_maps).map(|(photo, label_map)| Seen { photo, label_map });
    Ok(ids.into_iter().zip(seen).collect())
}

/// The category of the cell that contributes most to a neighbour's correlation.
fn main_garment(labels: &LabelSet, it: &Recommended) -> Option<u8> {
    let name = &it.shared_cells.first()?.name;
    let cell = labels.cell_names().iter().position(|it| it == name)?;
    labels.apparel_categories().nth(cell / labels.cells_per_category())
}

impl Seen {
    fn tile(&self, garments: &BTreeSet<u8>, caption: String) -> Panel {
        Panel { photo: picture::outlined(&self.photo, &self.label_map, |label| garments.contains(&label)), caption }
    }
}

fn missing_tile(it: &Recommended) -> Panel {
    tracing::warn!("{}: the picture can no longer be read; showing a grey one instead", it.path);
    let rgb = MISSING_RGB.repeat((FIT_WIDTH_PX * FIT_HEIGHT_PX) as usize);
    let photo = Photo { width_px: FIT_WIDTH_PX, height_px: FIT_HEIGHT_PX, rgb };
    Panel { photo, caption: format!("{}. {}  {:.3}\n(picture missing)", it.rank, it.file_name, it.correlation) }
}

/// The scaled pictures of the photos `wanted` (id to path) of a features folder, from the dataset if that was the
/// catalogue, otherwise from files. Those that can no longer be read are left out.
pub(crate) fn catalogue_pictures(features: &Path, wanted: &HashMap<u32, &str>) -> Result<HashMap<u32, Photo>> {
    let mut pictures = HashMap::new();
    let Some(dataset) = dataset_of(features)? else {
        let picture = |path: &str| photo::read_bytes(Path::new(path)).and_then(|bytes| fitted(&bytes));
        return Ok(wanted.iter().filter_map(|(&id, path)| Some((id, picture(path).ok()?))).collect());
    };
    let ids: Vec<u32> = wanted.keys().copied().collect();
    for file in dataset.files_of(&ids)? {
        if let Ok(photo) = fitted(&file.encoded) {
            pictures.insert(file.entry.photo_id, photo);
        }
    }
    Ok(pictures)
}

/// The dataset that the features were computed from, if its photos were the catalogue and it still exists.
fn dataset_of(features: &Path) -> Result<Option<Dataset>> {
    let summary = Summary::read(features)?;
    let catalogue = summary.config.setting::<PathBuf>("catalogue");
    match catalogue.filter(|folder| folder.join("photos.parquet").is_file()) {
        Some(folder) => Dataset::open(&folder).map(Some),
        None => Ok(None),
    }
}

/// A photo as `segment` processes it.
fn fitted(encoded: &[u8]) -> Result<Photo, PhotoProblem> {
    photo::decode_with(encoded, Decoding::fitted(MAX_PIXELS)).map(|it| it.photo)
}
