//! Photos without labels: a published model, or a third-party parser, labels the pixels that it is sure of, and training
//! ignores the others (pseudo-labels: Lee, 2013; with a threshold as in Sohn et al., 2020,
//! <https://arxiv.org/abs/2001.07685>).

use std::collections::HashSet;

use rayon::prelude::*;

use super::config::Config;
use super::examples::PseudoLabelled;
use crate::canvas::Canvas;
use crate::catalogue::{Catalogue, Item, Numbering};
use crate::dataset::{Dataset, Split};
use crate::engine::{Engine, PrecisionChoice};
use crate::error::Result;
use crate::files;
use crate::labels::IGNORED;
use crate::model::certainty::Certainty;
use crate::model::predictor::BATCH_SIZE;
use crate::model::{Model, Predictor};
use crate::photo::{self, FIT_HEIGHT_PX, FIT_WIDTH_PX, Photo, PhotoProblem};
use crate::progress::Progress;
use crate::stop;

/// The photos and the model that labels them, opened.
#[derive(Debug)]
pub(super) struct Unlabelled {
    pub(super) catalogue: Catalogue,
    pub(super) model: Model,
    confidence: f32,
}

/// What became of the photos without labels.
#[derive(Debug, Default)]
pub(super) struct PseudoLabels {
    pub(super) photos: Vec<PseudoLabelled>,
    /// Photos that the data set has, too: their labels or their part of the data set count.
    pub(super) in_dataset: usize,
    /// Photos that cannot be read.
    pub(super) unreadable: usize,
}

/// The share of the photos' pixels that have a label, 0 to 1; `None` without pixels.
pub(super) fn labelled_share(photos: &[PseudoLabelled]) -> Option<f64> {
    let labels = || photos.iter().flat_map(|it| &it.labels);
    let (all, ignored) = (labels().count(), labels().filter(|it| **it == IGNORED).count());
    (all > 0).then(|| 1.0 - ignored as f64 / all as f64)
}

/// Labels the photos of the train part by `model`, in order.
pub(super) fn relabel(
    dataset: &Dataset,
    model: &Model,
    confidence: f32,
    engine: Engine,
) -> Result<Vec<PseudoLabelled>> {
    let (mut teacher, mut found) = (Teacher::new(model, engine)?, Vec::new());
    let count = dataset.index()?.iter().filter(|it| it.split == Split::Train).count();
    in_batches(dataset.photos(Some(Split::Train))?, count, |records| {
        let photos = records.par_iter().map(|it| it.decode(&dataset.photos_path())).collect::<Result<Vec<_>>>()?;
        let named = records.into_iter().zip(photos).map(|(it, photo)| (it.file_name, it.encoded, photo));
        found.extend(teacher.label(named.collect(), confidence)?);
        Ok(())
    })?;
    Ok(found)
}

/// Hands `count` photos on in batches for the network, until told to stop.
fn in_batches<T>(
    mut photos: impl Iterator<Item = Result<T>>,
    count: usize,
    mut label: impl FnMut(Vec<T>) -> Result<()>,
) -> Result<()> {
    let progress = Progress::new("labelling", count as u64, "photos");
    loop {
        let batch = photos.by_ref().take(BATCH_SIZE).collect::<Result<Vec<_>>>()?;
        if batch.is_empty() {
            return Ok(());
        }
        stop::check()?;
        progress.inc(batch.len() as u64);
        label(batch)?;
    }
}

impl Unlabelled {
    /// Opens the photos and the model that the settings name; `None` if they name none.
    pub(super) fn open(config: &Config) -> Result<Option<Self>> {
        let (Some(photos), Some(model)) = (&config.unlabelled, &config.unlabelled_model) else { return Ok(None) };
        let (catalogue, model) = (Catalogue::open(photos, &Numbering::default())?, Model::open(model)?);
        Ok(Some(Self { catalogue, model, confidence: config.unlabelled_confidence }))
    }

    /// Labels the photos that are not in `dataset`, in order.
    pub(super) fn label(&self, dataset: &Dataset, engine: Engine) -> Result<PseudoLabels> {
        let mut teacher = Teacher::new(&self.model, engine)?;
        let digests = dataset.files()?.map(|file| Ok(files::digest_of(&file?.encoded)));
        let known = digests.collect::<Result<HashSet<_>>>()?;
        let all: Vec<u32> = (0..self.catalogue.entries.len() as u32).collect();
        let mut found = PseudoLabels::default();
        in_batches(self.catalogue.items(&all, false)?, all.len(), |items| {
            let mut batch = Vec::with_capacity(items.len());
            for item in items {
                let name = self.catalogue.entries[item.index as usize].name.to_string();
                match self.read(item) {
                    Ok((encoded, _)) if known.contains(&files::digest_of(&encoded)) => found.in_dataset += 1,
                    Ok((encoded, photo)) => batch.push((name, encoded, photo)),
                    Err(problem) => {
                        tracing::warn!("{name} is left out: {} ({})", problem.detail, problem.reason);
                        found.unreadable += 1;
                    }
                }
            }
            found.photos.extend(teacher.label(batch, self.confidence)?);
            Ok(())
        })?;
        Ok(found)
    }

    fn read(&self, item: Item) -> Result<(Vec<u8>, Photo), PhotoProblem> {
        let entry = &self.catalogue.entries[item.index as usize];
        let encoded = match item.row {
            Some(row) => row.encoded().to_vec(),
            None => photo::read_bytes(&self.catalogue.path_of(entry))?,
        };
        let photo = photo::decode(&encoded)?;
        Ok((encoded, photo))
    }
}

/// The network that labels photos.
enum Teacher {
    Own(Certainty),
    Parser(Box<Predictor>),
}

/// A photo with its name and its file.
type Named = (String, Vec<u8>, Photo);

impl Teacher {
    fn new(model: &Model, engine: Engine) -> Result<Self> {
        Ok(match model.parser() {
            None => Self::Own(Certainty::new(model.predict()?, engine)?),
            Some(_) => Self::Parser(Box::new(model.predictor(engine, PrecisionChoice::F32)?)),
        })
    }

    /// Labels the pixels whose category is at least as probable as `confidence`.
    fn label(&mut self, photos: Vec<Named>, confidence: f32) -> Result<Vec<PseudoLabelled>> {
        match self {
            _ if photos.is_empty() => Ok(Vec::new()),
            Self::Own(network) => label_by_model(network, confidence, photos),
            Self::Parser(predictor) => label_by_parser(predictor, confidence, photos),
        }
    }
}

/// Labels photos at the size in which `segment` counts them.
fn label_by_parser(predictor: &mut Predictor, confidence: f32, photos: Vec<Named>) -> Result<Vec<PseudoLabelled>> {
    let laid: Vec<_> = photos.par_iter().map(|(_, _, photo)| predictor.layout().lay(photo)).collect();
    let answers = predictor.run(laid.iter())?;
    let layout = predictor.layout();
    let labelled = photos.into_par_iter().zip(laid).zip(answers).map(|(((name, encoded, photo), laid), answer)| {
        let size = photo::fitted_size(photo.size(), (FIT_WIDTH_PX, FIT_HEIGHT_PX));
        let decided = layout.decide(&laid, &answer, size, &name)?.expect("a parser decides");
        let label = |(label, certainty): (u8, f32)| if certainty >= confidence { label } else { IGNORED };
        let labels = decided.label_map.into_iter().zip(decided.certainty).map(label).collect();
        Ok(PseudoLabelled { file_name: name, encoded, labels, size })
    });
    labelled.collect()
}

/// Labels photos at the size of the network's maps.
fn label_by_model(network: &mut Certainty, confidence: f32, photos: Vec<Named>) -> Result<Vec<PseudoLabelled>> {
    let canvases: Vec<_> = photos.par_iter().map(|(_, _, photo)| Canvas::new(network.spec(), photo)).collect();
    let all = network.probabilities(canvases.iter().flat_map(|it| &it.pixels).copied().collect())?;
    let spec = network.spec();
    let of_photos = all.par_chunks_exact(spec.maps() * spec.map_rows() * spec.map_columns());
    let labelled = photos.into_par_iter().zip(canvases).zip(of_photos).map(|(((name, encoded, _), canvas), maps)| {
        let size = [canvas.width_px, canvas.height_px].map(|side| side.div_ceil(spec.stride));
        let labels = sure_labels(maps, [spec.maps(), spec.map_columns()], size, confidence);
        PseudoLabelled { file_name: name, encoded, labels, size: (size[0] as u32, size[1] as u32) }
    });
    Ok(labelled.collect())
}

/// The most probable category of each pixel of a photo of `size` (width, height) at the top left of maps
/// `[categories, rows, columns]`, or [`IGNORED`] where its probability is below `confidence`.
fn sure_labels(maps: &[f32], [categories, columns]: [usize; 2], size: [usize; 2], confidence: f32) -> Vec<u8> {
    let plane = maps.len() / categories;
    let label = |pixel: usize| {
        let probabilities = maps[pixel..].iter().step_by(plane).zip(0_u8..);
        let best =
            probabilities.fold((0.0, IGNORED), |best, (&it, label)| if it > best.0 { (it, label) } else { best });
        if best.0 >= confidence { best.1 } else { IGNORED }
    };
    (0..size[1]).flat_map(|row| (0..size[0]).map(move |column| row * columns + column)).map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::CATEGORY_COUNT;

    #[test]
    fn only_sure_pixels_of_the_photo_have_labels() {
        // Two rows of three pixels, of which the photo covers two columns.
        let mut maps = vec![0.0; CATEGORY_COUNT * 6];
        for (pixel, (category, probability)) in
            [(0, 0.95), (7, 0.9), (9, 1.0), (22, 0.89), (3, 0.99), (9, 1.0)].into_iter().enumerate()
        {
            maps[category * 6 + pixel] = probability;
            maps[(category + 1) % CATEGORY_COUNT * 6 + pixel] = 1.0 - probability;
        }
        assert_eq!(sure_labels(&maps, [CATEGORY_COUNT, 3], [2, 2], 0.9), [0, 7, IGNORED, 3]);
        assert_eq!(sure_labels(&maps, [CATEGORY_COUNT, 3], [2, 1], 0.95), [0, IGNORED]);
    }
}
