//! Contact sheets: a photo and its neighbours, side by side.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::dataset::Dataset;
use crate::error::Result;
use crate::files::{self, OpenFolder};
use crate::photo::{self, Decoding, FIT_HEIGHT_PX, FIT_WIDTH_PX, MAX_PIXELS, Photo, PhotoProblem};
use crate::picture::{self, Panel};
use crate::stage::Summary;

use super::answer::{Recommendation, Recommended};

/// Pictures in a row of a contact sheet.
const SHEET_COLUMNS: usize = 6;
/// Placeholder colour for a picture that no longer exists.
const MISSING_RGB: [u8; 3] = [200, 200, 200];

/// Writes a contact sheet for each photo that has neighbours: the photo first, then its neighbours.
pub(super) fn draw_sheets(features: &OpenFolder, output: &Path, answers: &mut [(Recommendation, Option<Photo>)]) -> Result<()> {
    files::create_folder(output)?;
    let wanted = answers.iter().flat_map(|(answer, _)| &answer.neighbours);
    let wanted: HashMap<u32, &str> = wanted.map(|it| (it.photo_id, it.path.as_str())).collect();
    let pictures = catalogue_pictures(features.root(), &wanted)?;
    for (number, (answer, photo)) in (1..).zip(answers) {
        let Some(photo) = photo.as_ref().filter(|_| !answer.neighbours.is_empty()) else { continue };
        let mut tiles = vec![Panel { photo: photo.clone(), caption: "the photo".to_owned() }];
        tiles.extend(answer.neighbours.iter().map(|it| {
            let shared = it.shared_cells.first().map_or(String::new(), |cell| cell.name.clone());
            match pictures.get(&it.photo_id) {
                Some(photo) => Panel {
                    photo: photo.clone(),
                    caption: format!("{}. {}  {:.3}\n{shared}", it.rank, it.file_name, it.correlation),
                },
                None => missing_tile(it),
            }
        }));
        let stem = answer.photo.file_stem().unwrap_or_default().to_string_lossy();
        let path = output.join(format!("{number:03}_{stem}.png"));
        files::write(&path, &picture::png(&picture::contact_sheet(&tiles, SHEET_COLUMNS)?))?;
        answer.contact_sheet = Some(path);
    }
    Ok(())
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
    for record in dataset.photos(None)? {
        let record = record?;
        if wanted.contains_key(&record.photo_id)
            && let Ok(photo) = fitted(&record.encoded)
        {
            pictures.insert(record.photo_id, photo);
        }
        if pictures.len() == wanted.len() {
            break;
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
