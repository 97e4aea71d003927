//! Photos with truth and prediction, both embedded in the page and as a PNG file next to it.

use std::collections::BTreeSet;

use super::config::Config;
use super::figures::{QUALITY, data_uri, percent};
use super::page::{Page, Segmentations, SegmentedPhoto, Swatch};
use super::run::Run;
use crate::dataset::{Dataset, PhotoRecord, Split};
use crate::engine::PrecisionChoice;
use crate::error::{Error, Result};
use crate::files;
use crate::labels::CATEGORY_COUNT;
use crate::model::Model;
use crate::model::files::PREDICT_FILE;
use crate::photo::{self, FIT_HEIGHT_PX, FIT_WIDTH_PX, Photo};
use crate::picture::{self, Tile};
use crate::stage::{Common, Stage};

/// Width of the legend, that of the three tiles above it.
const LEGEND_PX: u32 = 650;

/// If there are a data set and a model, adds photos that the model was not trained on, with truth and prediction.
pub(super) fn segmentations(
    page: &mut Page,
    run: &Run,
    config: &Config,
    common: &Common,
    stage: &mut Stage,
) -> Result<()> {
    let (Some(dataset), Some(model)) = (run.folder("dataset"), run.folder("model")) else { return Ok(()) };
    if config.photos == 0 || !model.join(PREDICT_FILE).is_file() {
        return Ok(());
    }
    let dataset = Dataset::open(dataset)?;
    let (split, records) = chosen(&dataset, config.photos)?;
    let photos: Vec<Photo> =
        records.iter().map(|record| decoded(&record.file_name, &record.encoded)).collect::<Result<_>>()?;
    let mut predictor = Model::open(model)?.predictor(common.engine(config.device), PrecisionChoice::F32)?;
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
            caption: format!("{}: {accuracy} of the pixels are correct", record.file_name),
            photo: embed(photo),
            truth: embed(&overlays[0]),
            prediction: embed(&overlays[1]),
        });
        let captions = [record.file_name.clone(), "truth".to_owned(), format!("prediction, {accuracy} correct")];
        let pictures = std::iter::once(photo.clone()).chain(overlays);
        tiles.extend(pictures.zip(captions).map(|(photo, caption)| Tile { photo, caption }));
    }
    let worn: Vec<u8> = seen.into_iter().filter(|&category| (1..CATEGORY_COUNT as u8).contains(&category)).collect();
    let sheet = picture::stacked(&[picture::contact_sheet(&tiles, 3)?, picture::legend(&worn, LEGEND_PX)?]);
    files::write(&stage.path("segmentations.png"), &picture::png(&sheet))?;
    let legend = worn.into_iter().map(Swatch::of).collect();
    page.segmentations = (!shown.is_empty()).then_some(Segmentations { split, photos: shown, legend });
    Ok(())
}

/// Evenly spaced photos of the test split, or of another split if it is empty.
fn chosen(dataset: &Dataset, count: usize) -> Result<(&'static str, Vec<PhotoRecord>)> {
    let index = dataset.index()?;
    for (split, name) in [(Split::Test, "test"), (Split::Validation, "validation"), (Split::Train, "train")] {
        let total = index.iter().filter(|photo| photo.split == split).count();
        if total == 0 {
            continue;
        }
        let wanted: BTreeSet<usize> = picture::spaced(total, count).collect();
        let records = dataset.photos(Some(split))?.enumerate();
        let records = records.filter(|(index, _)| wanted.contains(index)).map(|(_, record)| record);
        return Ok((name, records.collect::<Result<_>>()?));
    }
    Ok(("test", Vec::new()))
}

fn decoded(name: &str, encoded: &[u8]) -> Result<Photo> {
    let photo = photo::decode(encoded).map_err(|problem| Error::input(name, problem.detail))?;
    Ok(fitted(photo))
}

/// The photo, scaled down to the network's size if it is larger.
fn fitted(photo: Photo) -> Photo {
    if photo.width_px <= FIT_WIDTH_PX && photo.height_px <= FIT_HEIGHT_PX {
        return photo;
    }
    photo::fit(&photo, FIT_WIDTH_PX, FIT_HEIGHT_PX)
}

/// The label map of a record, resized to the displayed photo by nearest-neighbour sampling.
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

#[cfg(test)]
mod tests {
    use super::*;

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
