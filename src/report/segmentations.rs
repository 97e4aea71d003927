//! Photos with truth and prediction, both embedded in the page and as a PNG file next to it.

use std::collections::BTreeSet;

use super::config::Config;
use super::figures::{QUALITY, data_uri, percent};
use super::page::{Page, Segmentations, SegmentedPhoto, Swatch};
use super::run::Run;
use crate::dataset::{Dataset, PhotoRecord, Split};
use crate::engine::PrecisionChoice;
use crate::error::Result;
use crate::labels::CATEGORY_COUNT;
use crate::model::files::PREDICT_FILE;
use crate::model::{Model, Predictor};
use crate::photo::{self, FIT_HEIGHT_PX, FIT_WIDTH_PX, Photo};
use crate::picture::{self, Panel};
use crate::stage::{Common, Stage};
use crate::{canvas, files};

/// Width of the legend, that of the three tiles above it.
const LEGEND_PX: u32 = 650;

/// If there are a data set and a model, adds photos that the model was not trained on, with truth and prediction.
pub(super) fn add(page: &mut Page, run: &Run, config: &Config, common: &Common, stage: &mut Stage) -> Result<()> {
    let (Some(dataset), Some(model)) = (run.folder("dataset"), run.folder("model")) else { return Ok(()) };
    if config.photos == 0 || !model.join(PREDICT_FILE).is_file() {
        return Ok(());
    }
    let dataset = Dataset::open(dataset)?;
    let (split, records) = chosen(&dataset, config.photos)?;
    let mut predictor = Model::open(model)?.predictor(common.engine(config.device), PrecisionChoice::F32)?;
    stage.backend(predictor.backend());
    let mut seen = BTreeSet::new();
    let (mut shown, mut tiles) = (Vec::new(), Vec::new());
    for record in &records {
        let compared = Compared::new(&dataset, &mut predictor, record)?;
        seen.extend(compared.label_maps.iter().flatten().copied());
        let accuracy = percent(compared.accuracy);
        let [photo, truth, prediction] = compared.pictures();
        let embed = |picture: &Photo| data_uri("jpeg", &picture::jpeg(picture, QUALITY));
        shown.push(SegmentedPhoto {
            caption: format!("{}: {accuracy} of the pixels are correct", record.file_name),
            photo: embed(&photo),
            truth: embed(&truth),
            prediction: embed(&prediction),
        });
        let captions = [record.file_name.clone(), "truth".to_owned(), format!("prediction, {accuracy} correct")];
        let pictures = [photo, truth, prediction].into_iter().zip(captions);
        tiles.extend(pictures.map(|(photo, caption)| Panel { photo, caption }));
    }
    let worn: Vec<u8> = seen.into_iter().filter(|&category| (1..CATEGORY_COUNT as u8).contains(&category)).collect();
    let sheet = picture::stacked(&[picture::contact_sheet(&tiles, 3)?, picture::legend(&worn, LEGEND_PX)?]);
    files::write(&stage.path("segmentations.png"), &picture::png(&sheet))?;
    let legend = worn.into_iter().map(Swatch::of).collect();
    page.segmentations = (!shown.is_empty()).then_some(Segmentations { split, photos: shown, legend });
    Ok(())
}

/// A photo with its true and its predicted label map.
struct Compared {
    photo: Photo,
    /// Truth and prediction, `[height, width]`.
    label_maps: [Vec<u8>; 2],
    /// Share of the pixels that are correct, at the photo's own size, as in `evaluate`.
    accuracy: f64,
}

impl Compared {
    fn new(dataset: &Dataset, predictor: &mut Predictor, record: &PhotoRecord) -> Result<Self> {
        let photo = record.decode(&dataset.photos_path())?;
        let truth = record.category_map();
        let prediction = predictor.label_maps(std::slice::from_ref(&photo))?.swap_remove(0);
        let right = truth.iter().zip(&prediction).filter(|(truth, predicted)| truth == predicted).count();
        let accuracy = right as f64 / truth.len().max(1) as f64;
        Ok(Self { photo, label_maps: [truth, prediction], accuracy })
    }

    /// The photo, and the photo with each label map, scaled down to fit on the page.
    fn pictures(self) -> [Photo; 3] {
        let own = self.photo.size();
        if own.0 <= FIT_WIDTH_PX && own.1 <= FIT_HEIGHT_PX {
            let [truth, prediction] = self.label_maps.map(|map| picture::overlay(&self.photo, &map));
            return [self.photo, truth, prediction];
        }
        let photo = photo::fit(&self.photo, FIT_WIDTH_PX, FIT_HEIGHT_PX);
        let overlay = |map: Vec<u8>| picture::overlay(&photo, &canvas::resize_labels(&map, own, photo.size()));
        let [truth, prediction] = self.label_maps.map(overlay);
        [photo, truth, prediction]
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_photo_to_the_page() {
        let map = |left| (0..800 * 600).map(|pixel| u8::from(pixel % 800 < left)).collect::<Vec<u8>>();
        let photo = Photo { width_px: 800, height_px: 600, rgb: vec![100; 800 * 600 * 3] };
        let compared = Compared { photo, label_maps: [map(400), map(200)], accuracy: 0.75 };
        let [photo, truth, prediction] = compared.pictures();
        assert_eq!(photo.size(), (400, 300));
        for (picture, left) in [(&truth, 200), (&prediction, 100)] {
            assert_eq!(picture.size(), (400, 300));
            let coloured = |x: usize| picture.rgb[(150 * 400 + x) * 3] != 100;
            assert!(coloured(left - 1) && !coloured(left + 1), "the edge is at {left}");
        }
    }
}
