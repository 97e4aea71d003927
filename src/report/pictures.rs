//! The pictures of the page: written as PNG files beside it, and embedded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base64::Engine;

use super::page::{Bar, ContactSheet, Page, Segmentations, SegmentedPhoto, percent};
use super::{Config, Summary};
use crate::dataset::{Dataset, PhotoRecord, Split};
use crate::error::{Error, Result};
use crate::features::FeatureTable;
use crate::labels::CATEGORY_COUNT;
use crate::photo::{self, FIT_HEIGHT_PX, FIT_WIDTH_PX, Photo};
use crate::picture::{self, Tile};
use crate::predict::Predictor;
use crate::runtime::PrecisionChoice;
use crate::similarity::{self, Neighbour};
use crate::stage::{self, Common, RUN_FILE, Stage};
use crate::train::PREDICT_FILE;

/// JPEG quality of embedded photos and sheets.
const QUALITY: u8 = 85;
/// Width of the picture of segmentations: three tiles.
const LEGEND_PX: u32 = 650;

/// Draws the learning curve, where there is a history.
pub(super) fn learning_curve(page: &mut Page, stage: &Stage) -> Result<()> {
    let Some(history) = page.history.as_ref().filter(|history| !history.is_empty()) else { return Ok(()) };
    let curve = picture::png(&picture::learning_curve(history)?);
    stage::write_file(&stage.path("learning_curve.png"), &curve)?;
    page.learning_curve = Some(data_uri("png", &curve));
    Ok(())
}

/// Shows photos that the model has not learnt from with truth and prediction, where there are a data set and a model.
pub(super) fn segmentations(page: &mut Page, config: &Config, common: &Common, stage: &mut Stage) -> Result<()> {
    let (dataset, model) = (config.run.join("dataset"), config.run.join("model"));
    if config.photos == 0 || !dataset.join(RUN_FILE).is_file() || !model.join(PREDICT_FILE).is_file() {
        return Ok(());
    }
    let dataset = Dataset::open(&dataset)?;
    let (split, records) = chosen(&dataset, config.photos)?;
    let photos: Vec<Photo> =
        records.iter().map(|record| decoded(&record.file_name, &record.encoded)).collect::<Result<_>>()?;
    let mut predictor = Predictor::load(&model, common.engine(config.device), PrecisionChoice::F32)?;
    stage.backend(predictor.backend());
    let predictions = predictor.label_maps(&photos)?;
    let mut seen = BTreeSet::new();
    let (mut shown, mut tiles) = (Vec::new(), Vec::new());
    for ((record, photo), prediction) in records.iter().zip(&photos).zip(&predictions) {
        let truth = resized(&record.category_map(), record, photo)?;
        let right = truth.iter().zip(prediction).filter(|(truth, predicted)| truth == predicted).count();
        let accuracy = percent(right as f64 / truth.len().max(1) as f64);
        seen.extend(truth.iter().chain(prediction).copied());
        let overlays = [picture::overlay(photo, &truth), picture::overlay(photo, prediction)];
        let embed = |picture: &Photo| data_uri("jpeg", &picture::jpeg(picture, QUALITY));
        shown.push(SegmentedPhoto {
            caption: format!("{}: {accuracy} of the pixels are right", record.file_name),
            photo: embed(photo),
            truth: embed(&overlays[0]),
            prediction: embed(&overlays[1]),
        });
        let captions = [record.file_name.clone(), "truth".to_owned(), format!("prediction, {accuracy} right")];
        let pictures = std::iter::once(photo.clone()).chain(overlays);
        tiles.extend(pictures.zip(captions).map(|(photo, caption)| Tile { photo, caption }));
    }
    let worn: Vec<u8> = seen.into_iter().filter(|&category| (1..CATEGORY_COUNT as u8).contains(&category)).collect();
    let sheet = picture::stacked(&[picture::contact_sheet(&tiles, 3)?, picture::legend(&worn, LEGEND_PX)?]);
    stage::write_file(&stage.path("segmentations.png"), &picture::png(&sheet))?;
    let legend = worn.into_iter().map(Bar::swatch).collect();
    page.segmentations = (!shown.is_empty()).then_some(Segmentations { split, photos: shown, legend });
    Ok(())
}

/// Evenly spaced photos of the test part; of another where that is empty.
fn chosen(dataset: &Dataset, count: usize) -> Result<(&'static str, Vec<PhotoRecord>)> {
    let index = dataset.index()?;
    for (split, name) in [(Split::Test, "test"), (Split::Validation, "validation"), (Split::Train, "train")] {
        let total = index.iter().filter(|photo| photo.split == split).count();
        if total == 0 {
            continue;
        }
        let wanted: BTreeSet<usize> = spaced(total, count).collect();
        let records = dataset.photos(Some(split))?.enumerate();
        let records = records.filter(|(index, _)| wanted.contains(index)).map(|(_, record)| record);
        return Ok((name, records.collect::<Result<_>>()?));
    }
    Ok(("test", Vec::new()))
}

/// `count` numbers below `total`, evenly spaced, without repeats.
fn spaced(total: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(total);
    (0..count).map(move |index| (2 * index + 1) * total / (2 * count))
}

fn decoded(name: &str, encoded: &[u8]) -> Result<Photo> {
    let photo = photo::decode(encoded).map_err(|problem| Error::input(name, problem.detail))?;
    Ok(fitted(photo))
}

/// The photo as the network takes it.
fn fitted(photo: Photo) -> Photo {
    if photo.width_px <= FIT_WIDTH_PX && photo.height_px <= FIT_HEIGHT_PX {
        return photo;
    }
    photo::fit(&photo, FIT_WIDTH_PX, FIT_HEIGHT_PX)
}

/// The label map of a record at the size of its photo as shown, by the nearest pixel.
fn resized(labels: &[u8], record: &PhotoRecord, photo: &Photo) -> Result<Vec<u8>> {
    let (from_width, from_height) = (record.width_px as usize, record.height_px as usize);
    if labels.len() != from_width * from_height || labels.is_empty() {
        return Err(Error::input(
            &record.file_name,
            format!("has {} labels for {from_width} x {from_height} pixels; convert the data set again", labels.len()),
        ));
    }
    let (width, height) = (photo.width_px as usize, photo.height_px as usize);
    let source = |y: usize, x: usize| labels[(y * from_height / height) * from_width + x * from_width / width];
    Ok((0..height).flat_map(|y| (0..width).map(move |x| (y, x))).map(|(y, x)| source(y, x)).collect())
}

/// Draws a contact sheet of neighbours for a few photos, where there are neighbours.
pub(super) fn neighbours(page: &mut Page, config: &Config, stage: &Stage) -> Result<()> {
    let (features, similarity) = (config.run.join("features"), config.run.join("similarity"));
    if [&features, &similarity].iter().any(|folder| !folder.join(RUN_FILE).is_file()) || config.neighbour_photos == 0 {
        return Ok(());
    }
    let table = FeatureTable::open(&features)?;
    let shown = queries(similarity::read_neighbours(&similarity)?, config);
    let wanted = shown.iter().flat_map(|(query, near)| near.iter().map(|it| it.neighbour_id).chain([*query])).collect();
    let photos = Photos::load(&table, &catalogue(&features, config)?, &wanted)?;
    let mut sheets = Vec::new();
    for (query, near) in shown {
        let mut tiles = vec![Tile { photo: photos.get(query), caption: photos.name(query).to_owned() }];
        tiles.extend(near.iter().map(|it| Tile {
            photo: photos.get(it.neighbour_id),
            caption: format!(
                "{}\nr = {:.2}, {} cells shared",
                photos.name(it.neighbour_id),
                it.correlation,
                it.cells_in_common
            ),
        }));
        let sheet = picture::contact_sheet(&tiles, tiles.len().min(6))?;
        stage::write_file(&stage.path(&format!("neighbours_{query}.png")), &picture::png(&sheet))?;
        let caption = format!("{} and the photos dressed most like it", photos.name(query));
        sheets.push(ContactSheet { caption, picture: data_uri("jpeg", &picture::jpeg(&sheet, QUALITY)) });
    }
    page.neighbours = Some(sheets);
    Ok(())
}

/// Evenly spaced photos that have neighbours, with the nearest of them.
fn queries(neighbours: Vec<Neighbour>, config: &Config) -> Vec<(u32, Vec<Neighbour>)> {
    let mut by_photo: BTreeMap<u32, Vec<Neighbour>> = BTreeMap::new();
    for neighbour in neighbours {
        by_photo.entry(neighbour.photo_id).or_default().push(neighbour);
    }
    let wanted: BTreeSet<usize> = spaced(by_photo.len(), config.neighbour_photos).collect();
    let chosen = by_photo.into_iter().enumerate().filter(|(index, _)| wanted.contains(index));
    chosen
        .map(|(_, (photo_id, mut near))| {
            near.sort_by_key(|it| it.rank);
            near.truncate(config.neighbours);
            (photo_id, near)
        })
        .collect()
}

/// The catalogue that the features came from.
fn catalogue(features: &Path, config: &Config) -> Result<PathBuf> {
    let summary = Summary::read(features)?;
    let named = summary.config.pointer("/stage/catalogue").and_then(serde_json::Value::as_str);
    Ok(named.map_or_else(|| config.run.join("dataset"), PathBuf::from))
}

/// Photos of the catalogue by id.
struct Photos<'a> {
    table: &'a FeatureTable,
    photos: BTreeMap<u32, Photo>,
}

impl<'a> Photos<'a> {
    /// Loads the photos `wanted`. One that is gone or damaged since is shown as an empty tile.
    fn load(table: &'a FeatureTable, catalogue: &Path, wanted: &BTreeSet<u32>) -> Result<Self> {
        let mut photos = BTreeMap::new();
        if catalogue.join("photos.parquet").is_file() {
            for record in Dataset::open(catalogue)?.photos(None)? {
                let record = record?;
                if wanted.contains(&record.photo_id) {
                    insert(&mut photos, record.photo_id, &record.file_name, Some(record.encoded));
                }
                if photos.len() == wanted.len() {
                    break;
                }
            }
        } else {
            let rows = table.photo_ids.iter().zip(&table.paths).filter(|(photo_id, _)| wanted.contains(photo_id));
            for (&photo_id, path) in rows {
                let places = [PathBuf::from(path), catalogue.join(path)];
                let content = places.iter().find_map(|place| std::fs::read(place).ok());
                insert(&mut photos, photo_id, path, content);
            }
        }
        Ok(Self { table, photos })
    }

    fn name(&self, photo_id: u32) -> &str {
        let row = self.table.photo_ids.iter().position(|&id| id == photo_id);
        row.map_or("", |row| &self.table.file_names[row])
    }

    fn get(&self, photo_id: u32) -> Photo {
        let grey = || Photo { width_px: 200, height_px: 300, rgb: vec![230; 200 * 300 * 3] };
        self.photos.get(&photo_id).cloned().unwrap_or_else(grey)
    }
}

fn insert(photos: &mut BTreeMap<u32, Photo>, photo_id: u32, name: &str, content: Option<Vec<u8>>) {
    let decoded = content
        .ok_or("it is no longer there".to_owned())
        .and_then(|content| photo::decode(&content).map(fitted).map_err(|problem| problem.detail));
    match decoded {
        Ok(photo) => drop(photos.insert(photo_id, photo)),
        Err(problem) => tracing::warn!("{name} is not shown: {problem}"),
    }
}

fn data_uri(kind: &str, content: &[u8]) -> String {
    format!("data:image/{kind};base64,{}", base64::engine::general_purpose::STANDARD.encode(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_are_evenly_spaced() {
        assert_eq!(spaced(10, 2).collect::<Vec<_>>(), [2, 7]);
        assert_eq!(spaced(3, 6).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spaced(0, 6).count(), 0);
    }

    #[test]
    fn queries_come_with_their_nearest_in_order() {
        let near = |photo_id, rank, neighbour_id| Neighbour {
            photo_id,
            rank,
            neighbour_id,
            correlation: 0.5,
            cells_in_common: 3,
        };
        let all = vec![near(1, 2, 5), near(1, 1, 4), near(1, 3, 6), near(2, 1, 1)];
        let config = Config { neighbour_photos: 2, neighbours: 2, ..Config::default() };
        let shown = queries(all, &config);
        let ids: Vec<(u32, Vec<u32>)> =
            shown.iter().map(|(id, near)| (*id, near.iter().map(|it| it.neighbour_id).collect())).collect();
        assert_eq!(ids, [(1, vec![4, 5]), (2, vec![1])]);
    }

    #[test]
    fn labels_follow_the_photo_to_another_size() -> Result<()> {
        let record = PhotoRecord {
            photo_id: 0,
            file_name: "a.jpg".to_owned(),
            split: Split::Test,
            width_px: 4,
            height_px: 2,
            encoded: Vec::new(),
            superpixels: Vec::new(),
            superpixel_category: Vec::new(),
            superpixel_color: None,
        };
        let photo = Photo { width_px: 2, height_px: 1, rgb: vec![0; 6] };
        assert_eq!(resized(&[1, 1, 2, 2, 3, 3, 4, 4], &record, &photo)?, [1, 2]);
        assert!(resized(&[1, 2], &record, &photo).is_err());
        Ok(())
    }
}
