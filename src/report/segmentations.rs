//! Photos with truth, prediction and the model's certainty, both embedded in the page and as a PNG file next to it: those that
//! the model is worst at, and some evenly spaced ones.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::config::Config;
use super::figures::{QUALITY, data_uri, percent};
use super::page::{Page, Segmentations, SegmentedGroup, SegmentedPhoto, Swatch};
use super::run::Run;
use crate::dataset::{Dataset, PhotoEntry, PhotoRecord, Split};
use crate::engine::PrecisionChoice;
use crate::error::Result;
use crate::labels::LabelSet;
use crate::model::confusion::Confusion;
use crate::model::evaluation::{self, Evaluation, PhotoEvaluation};
use crate::model::{Model, Predictor};
use crate::photo::{self, FIT_HEIGHT_PX, FIT_WIDTH_PX, Photo};
use crate::picture::{self, Panel};
use crate::stage::{Common, Stage};
use crate::{canvas, files};

/// Pictures of a photo, in a row of the sheet.
const PICTURES: usize = 4;
/// Width of the legend, that of the tiles above it.
const LEGEND_PX: u32 = 864;
/// The certainty below which a pixel counts as unsure, of 255.
const UNSURE: u8 = 127;

/// If there are a data set and a model, adds photos that the model was not trained on, with truth and prediction. Returns all
/// their pictures as one, for [`write`].
pub(super) fn add(
    page: &mut Page,
    run: &Run,
    config: &Config,
    common: &Common,
    stage: &mut Stage,
) -> Result<Option<Photo>> {
    let (Some(dataset), Some(folder)) = (run.folder("dataset"), run.folder("model")) else { return Ok(None) };
    if config.photos == 0 || (config.model.is_none() && !Model::is_in(folder)) {
        return Ok(None);
    }
    let dataset = Dataset::open(dataset)?;
    let evaluation = evaluation::find(folder)?;
    let chosen = Chosen::new(&dataset.index()?, evaluation.as_ref(), config.photos);
    let model = Model::open_allowed(folder, &common.gates)?;
    dataset.check_labels(&model.labels()?, "report.model", folder)?;
    let engine = common.engine(config.device);
    let mut painter = Painter {
        dataset: &dataset,
        predictor: model.predictor_with_certainty(engine, PrecisionChoice::F32)?,
        seen: BTreeSet::new(),
        tiles: Vec::new(),
    };
    stage.backend(painter.predictor.backend());
    let mut worst = painter.paint(&[&chosen.worst[..], &chosen.spaced].concat())?;
    let spaced = worst.split_off(chosen.worst.len());
    let groups =
        [("Worst first, by the mean IoU over the photo's categories", worst), ("Evenly spaced", spaced)].into_iter();
    let groups = groups.filter(|(_, photos)| !photos.is_empty());
    let groups: Vec<_> = groups.map(|(title, photos)| SegmentedGroup { title, photos }).collect();
    if groups.is_empty() {
        return Ok(None);
    }
    let labels: &LabelSet = dataset.labels();
    let worn: Vec<u8> = painter.seen.into_iter().filter(|it| (1..labels.category_count() as u8).contains(it)).collect();
    let sheet = picture::contact_sheet(&painter.tiles, PICTURES)?;
    let sheet = picture::stacked(&[sheet, picture::legend(labels, &worn, LEGEND_PX)?]);
    let legend = worn.into_iter().map(|it| Swatch::of(labels, it)).collect();
    let split = chosen.split.name();
    page.segmentations = Some(Segmentations { split, groups, legend });
    Ok(Some(sheet))
}

/// Writes the sheet of pictures, as a file beside the page.
pub(super) fn write(sheet: &Photo, stage: &Stage) -> Result<()> {
    files::write(&stage.path("segmentations.png"), &picture::png(sheet))
}

/// The ids of the photos to show.
struct Chosen {
    split: Split,
    /// Those with the lowest mean IoU first; none without an evaluation.
    worst: Vec<u32>,
    /// Evenly spaced ones of the others.
    spaced: Vec<u32>,
}

impl Chosen {
    /// At most `count` photos each of the evaluated split. Without an evaluation of these photos: of the test split, or of another
    /// split if it is empty.
    fn new(index: &[PhotoEntry], evaluation: Option<&Evaluation>, count: usize) -> Self {
        let is_there = |it: &PhotoEvaluation| {
            index.iter().any(|photo| (photo.photo_id, &photo.file_name) == (it.photo_id, &it.file_name))
        };
        let by_photo = evaluation.iter().flat_map(|it| &it.by_photo);
        let mut evaluated: Vec<&PhotoEvaluation> = by_photo.filter(|it| is_there(it)).collect();
        evaluated.sort_by(|a, b| a.mean_iou.total_cmp(&b.mean_iou).then(a.photo_id.cmp(&b.photo_id)));
        let worst: Vec<u32> = evaluated.iter().take(count).map(|it| it.photo_id).collect();
        let photos_of = |split: Split| index.iter().filter(move |it| it.split == split).map(|it| it.photo_id);
        let splits = [Split::Test, Split::Validation, Split::Train];
        let split = evaluation.filter(|_| !worst.is_empty()).map(|it| it.split);
        let split = split.or_else(|| splits.into_iter().find(|&it| photos_of(it).next().is_some()));
        let split = split.unwrap_or(Split::Test);
        let others: Vec<u32> = photos_of(split).filter(|id| !worst.contains(id)).collect();
        let spaced = picture::spaced(others.len(), count).map(|place| others[place]).collect();
        Self { split, worst, spaced }
    }
}

/// Makes the pictures.
struct Painter<'a> {
    dataset: &'a Dataset,
    predictor: Predictor,
    /// The categories in them.
    seen: BTreeSet<u8>,
    /// All pictures, for the sheet.
    tiles: Vec<Panel>,
}

impl Painter<'_> {
    /// The pictures of the photos `ids`, in this order.
    fn paint(&mut self, ids: &[u32]) -> Result<Vec<SegmentedPhoto>> {
        let mut rows = Vec::with_capacity(ids.len());
        for record in self.dataset.photos_of(ids)? {
            let compared = Compared::new(self.dataset, &mut self.predictor, &record)?;
            self.seen.extend(compared.label_maps.iter().flatten().copied());
            rows.push(compared.row(record.file_name));
        }
        let photos = rows.par_iter().map(Row::on_page).collect();
        self.tiles.extend(rows.into_iter().flat_map(|row| row.tiles));
        Ok(photos)
    }
}

/// The pictures of a photo, scaled down.
struct Row {
    caption: String,
    tiles: [Panel; PICTURES],
}

impl Row {
    fn on_page(&self) -> SegmentedPhoto {
        let [photo, truth, prediction, certainty] =
            self.tiles.each_ref().map(|tile| data_uri("jpeg", &picture::jpeg(&tile.photo, QUALITY)));
        SegmentedPhoto { caption: self.caption.clone(), photo, truth, prediction, certainty }
    }
}

/// A photo with its true and its predicted label map, and the certainty of the prediction.
struct Compared {
    photo: Photo,
    /// Truth and prediction, `[height, width]`.
    label_maps: [Vec<u8>; 2],
    /// `[height, width]`, 0 to 255 for 0 to 1.
    certainty: Vec<u8>,
    /// At the photo's own size, as in `evaluate`.
    confusion: Confusion,
}

impl Compared {
    fn new(dataset: &Dataset, predictor: &mut Predictor, record: &PhotoRecord) -> Result<Self> {
        let photo = record.decode(&dataset.photos_path())?;
        let truth = record.category_map();
        let laid = predictor.layout().lay(&photo);
        let answer = predictor.run(std::iter::once(&laid))?.swap_remove(0);
        let (prediction, certainty) =
            predictor.layout().label_map_with_certainty(&laid, &answer, photo.size(), &record.file_name)?;
        let certainty = certainty.expect("the predictor tells it");
        let mut confusion = Confusion::new(dataset.labels().category_count());
        confusion.add(&truth, &prediction);
        Ok(Self { photo, label_maps: [truth, prediction], certainty, confusion })
    }

    /// The share of pixels whose largest probability is below a half.
    fn unsure_share(&self) -> f64 {
        let unsure = self.certainty.iter().filter(|&&it| it <= UNSURE).count();
        unsure as f64 / self.certainty.len().max(1) as f64
    }

    fn row(self, name: String) -> Row {
        let (accuracy, unsure) = (percent(self.confusion.pixel_accuracy()), percent(self.unsure_share()));
        let mean_iou = percent(self.confusion.mean_iou());
        let caption = format!("{name}: mean IoU {mean_iou}, {accuracy} of the pixels are correct, {unsure} are unsure");
        let [photo, truth, prediction, certainty] = self.pictures();
        let tiles = [
            (photo, name),
            (truth, "truth".to_owned()),
            (prediction, format!("prediction, {accuracy} correct")),
            (certainty, format!("unsure: orange, {unsure}")),
        ];
        Row { caption, tiles: tiles.map(|(photo, caption)| Panel { photo, caption }) }
    }

    /// The photo, the photo with each label map, and the photo with its certainty, scaled down to fit on the page.
    fn pictures(self) -> [Photo; PICTURES] {
        let own = self.photo.size();
        let photo = if own.0 <= FIT_WIDTH_PX && own.1 <= FIT_HEIGHT_PX {
            self.photo
        } else {
            photo::fit(&self.photo, FIT_WIDTH_PX, FIT_HEIGHT_PX)
        };
        let scaled = |map: &[u8]| canvas::resize_labels(map, own, photo.size());
        let [truth, prediction] = self.label_maps.map(|map| picture::overlay(&photo, &scaled(&map)));
        let certainty = picture::certainty(&photo, &scaled(&self.certainty));
        [photo, truth, prediction, certainty]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_photo_to_the_page() {
        let map = |left| (0..800 * 600).map(|pixel| u8::from(pixel % 800 < left)).collect::<Vec<u8>>();
        let photo = Photo { width_px: 800, height_px: 600, rgb: vec![100; 800 * 600 * 3] };
        let certainty = map(100).into_iter().map(|it| it * 200).collect();
        let confusion = Confusion::new(2);
        let compared = Compared { photo, label_maps: [map(400), map(200)], certainty, confusion };
        assert_eq!(compared.unsure_share(), 0.875);
        let [photo, truth, prediction, certainty] = compared.pictures();
        assert_eq!(photo.size(), (400, 300));
        for (picture, left) in [(&truth, 200), (&prediction, 100)] {
            assert_eq!(picture.size(), (400, 300));
            let coloured = |x: usize| picture.rgb[(150 * 400 + x) * 3] != 100;
            assert!(coloured(left - 1) && !coloured(left + 1), "the edge is at {left}");
        }
        let red = |x: usize| certainty.rgb[(150 * 400 + x) * 3];
        // 200 of 255 of the photo's grey of 100 and 55 of the colour's red of 255; nothing but the colour to the right.
        assert_eq!((red(49), red(51)), (133, 255));
    }

    #[test]
    fn the_worst_come_first_and_the_others_are_evenly_spaced() {
        let split = |id: u32| if id < 10 { Split::Train } else { Split::Test };
        let entry = |photo_id: u32| PhotoEntry {
            photo_id,
            file_name: photo_id.to_string(),
            split: split(photo_id),
            width_px: 4,
            height_px: 6,
        };
        let index: Vec<PhotoEntry> = (0..20).map(entry).collect();
        let mut evaluation = super::super::page::tests::evaluation();
        let figures = |(photo_id, mean_iou): (u32, f64)| PhotoEvaluation {
            photo_id,
            file_name: photo_id.to_string(),
            pixel_accuracy: 0.5,
            foreground_accuracy: None,
            mean_iou,
            cells_by_labels: 1,
            cells_by_model: 1,
            nearest_by_labels: Vec::new(),
            nearest_by_model: Vec::new(),
        };
        evaluation.by_photo =
            [(10, 0.3), (11, 0.1), (12, 0.5), (13, 0.1), (99, 0.0)].into_iter().map(figures).collect();
        let chosen = Chosen::new(&index, Some(&evaluation), 3);
        assert_eq!(chosen.worst, [11, 13, 10], "99 is not in the data set");
        assert_eq!((chosen.split, &chosen.spaced[..]), (Split::Test, &[14, 16, 18][..]));
        let chosen = Chosen::new(&index, None, 2);
        assert_eq!((chosen.worst, chosen.spaced), (vec![], vec![12, 17]));
        assert_eq!(Chosen::new(&index[..10], None, 1).split, Split::Train);
        assert!(Chosen::new(&[], None, 1).spaced.is_empty());
    }
}
