//! `evaluate`: compares a model with the labels of one split and writes `evaluation.json` into the model folder.

use std::path::{Path, PathBuf};

use ort::value::DynValue;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::color::ColorTable;
use crate::dataset::{Dataset, PhotoRecord, Split};
use crate::engine::{Backend, Device, Engine};
use crate::error::{Error, Result};
use crate::graph::Spec;
use crate::labels::{CATEGORIES, CATEGORY_COUNT};
use crate::model::Model;
use crate::model::confusion::Confusion;
use crate::model::evaluation::{EVALUATION_FILE, Evaluation};
use crate::model::evaluator::Evaluator;
use crate::model::example::Example;
use crate::model::predictor::BATCH_SIZE;
use crate::progress::Progress;
use crate::stage::{self, Common, Summary};
use crate::{files, runtime, stop};

mod colors;

use colors::Compared;

const STAGE: &str = "evaluate";
/// Why [`Evaluation::seed_mean_iou`] is flattering.
const SEED_MEAN_IOU_NOTE: &str = "the seed's metric: per photo, the mean over all 23 categories, with 1 for each \
                                  that is neither present nor predicted; on street photos, predicting bk everywhere \
                                  scores 0.64";

/// Settings of `evaluate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of the dataset tables.
    pub dataset: PathBuf,
    /// The model folder; the result is written there.
    pub model: PathBuf,
    /// The split to evaluate on.
    pub split: Split,
    /// Where the network runs.
    pub device: Device,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dataset: PathBuf::from("output/dataset"),
            model: PathBuf::from("output/model"),
            split: Split::Test,
            device: Device::Auto,
        }
    }
}

/// Evaluates a model folder and writes `evaluation.json` into it.
///
/// # Errors
/// An invalid dataset or model folder, an empty split, a missing runtime, or a run that is writing the model folder.
pub fn run(config: &Config, common: &Common) -> Result<(Evaluation, Summary)> {
    let dataset = Dataset::open(&config.dataset)?;
    let mut summary = stage::planned(STAGE, &config.model, common, config);
    if common.lock_wait_secs == 0 {
        // Otherwise minutes of work would be lost.
        stage::refuse_held(&config.model)?;
    }
    let started = std::time::Instant::now();
    let model = Model::open(&config.model)?;
    let (evaluation, backend) = evaluate(&dataset, &model, config.split, common.engine(config.device))?;
    if !common.dry_run {
        stage::add_file(model.folder(), EVALUATION_FILE, &evaluation, common)?;
    }
    summary.set_backend(backend);
    summary.elapsed_secs = started.elapsed().as_secs_f64();
    summary.counts.set("photos", evaluation.photos);
    summary.counts.set("mean_iou", evaluation.mean_iou);
    summary.counts.set("pixel_accuracy", evaluation.pixel_accuracy);
    summary.counts.set("foreground_accuracy", evaluation.foreground_accuracy);
    Ok((evaluation, summary))
}

/// Evaluates the model in the unpublished folder `model` on the test split and writes the result there; `None` if there
/// is no test split.
pub(crate) fn after_training(
    dataset: &Dataset,
    model: &Path,
    device: Device,
    common: &Common,
) -> Result<Option<Evaluation>> {
    if dataset.index()?.iter().all(|it| it.split != Split::Test) {
        tracing::warn!("{} has no test split: the model is not evaluated", dataset.name().display());
        return Ok(None);
    }
    let (evaluation, _) = evaluate(dataset, &Model::open(model)?, Split::Test, common.engine(device))?;
    files::write_json(&model.join(EVALUATION_FILE), &evaluation)?;
    Ok(Some(evaluation))
}

fn evaluate(dataset: &Dataset, model: &Model, split: Split, engine: Engine) -> Result<(Evaluation, Backend)> {
    let (spec, weights) = model.weights()?;
    let mut evaluator = Evaluator::new(&spec, engine)?;
    let mut tally = Totals::default();
    let table = model.colors()?.table;
    let weights = runtime::vector(weights)?;
    let photos = dataset.index()?.iter().filter(|it| it.split == split).count() as u64;
    let progress = Progress::new(STAGE, photos, "photos");
    let mut records = dataset.photos(Some(split))?;
    loop {
        let chunk = records.by_ref().take(BATCH_SIZE).collect::<Result<Vec<_>>>()?;
        if chunk.is_empty() {
            break;
        }
        stop::check()?;
        tally.add(compare_photos(&mut evaluator, dataset, &spec, &chunk, &weights, &table)?, chunk.len());
        progress.inc(chunk.len() as u64);
    }
    if tally.photos == 0 {
        return Err(Error::input(dataset.photos_path(), format!("has no photos in the {} split", split.name())));
    }
    Ok((tally.evaluation(split, model.id()), evaluator.backend()))
}

/// Compares the network's output for some photos with their labels.
fn compare_photos(
    evaluator: &mut Evaluator,
    dataset: &Dataset,
    spec: &Spec,
    records: &[PhotoRecord],
    weights: &DynValue,
    table: &ColorTable,
) -> Result<Evaluated> {
    let examples = records.par_iter().map(|it| Example::new(spec, &dataset.photos_path(), it));
    let examples = examples.collect::<Result<Vec<_>>>()?;
    let photos = examples.iter().flat_map(|it| &it.canvas.pixels).copied().collect();
    let labels = examples.iter().flat_map(|it| spec.map_labels(&it.labels)).collect();
    let answer = evaluator.run(photos, labels, weights)?;
    let compare = |((record, example), map): ((&PhotoRecord, &Example), &Vec<u8>)| {
        let Example { photo, label_map: truth, canvas, .. } = example;
        let mut confusion = Confusion::default();
        let predicted = canvas.label_map(spec, map, photo.size());
        confusion.add(truth, &predicted);
        let mut of_background = Confusion::default();
        of_background.add(truth, &vec![crate::labels::BACKGROUND; truth.len()]);
        let compared = Compared::new(record, photo, &predicted, table);
        EvaluatedPhoto { confusion, seed_of_background: of_background.seed_mean_iou(), compared }
    };
    let photos = records.par_iter().zip(&examples).zip(&answer.label_maps).map(compare).collect();
    Ok(Evaluated { bce: f64::from(answer.bce), photos })
}

/// A batch compared with its truth: the mean BCE, and each photo.
struct Evaluated {
    bce: f64,
    photos: Vec<EvaluatedPhoto>,
}

/// A photo compared with its truth.
struct EvaluatedPhoto {
    confusion: Confusion,
    /// The seed's metric for background everywhere.
    seed_of_background: f64,
    compared: Compared,
}

/// The sums over the split so far.
#[derive(Default)]
struct Totals {
    photos: u64,
    confusion: Confusion,
    bce_sum: f64,
    jaccard_sum: f64,
    seed_sum: f64,
    seed_of_background_sum: f64,
    compared: Vec<Compared>,
}

impl Totals {
    fn add(&mut self, batch: Evaluated, photos: usize) {
        self.photos += photos as u64;
        self.bce_sum += batch.bce * photos as f64;
        for EvaluatedPhoto { confusion, seed_of_background, compared } in batch.photos {
            self.jaccard_sum += confusion.category_set_jaccard();
            self.seed_sum += confusion.seed_mean_iou();
            self.seed_of_background_sum += seed_of_background;
            self.confusion.merge(&confusion);
            self.compared.push(compared);
        }
    }

    fn evaluation(&self, split: Split, model_id: String) -> Evaluation {
        let (colors, features) = colors::summarize(&self.compared);
        let photos = self.photos as f64;
        let iou = |category: usize| (CATEGORIES[category].to_owned(), self.confusion.iou(category));
        Evaluation {
            split,
            photos: self.photos,
            model_id,
            pixel_accuracy: self.confusion.pixel_accuracy(),
            foreground_accuracy: self.confusion.foreground_accuracy(),
            mean_iou: self.confusion.mean_iou(),
            frequency_weighted_iou: self.confusion.frequency_weighted_iou(),
            category_set_jaccard: self.jaccard_sum / photos,
            seed_mean_iou: self.seed_sum / photos,
            seed_mean_iou_of_background: self.seed_of_background_sum / photos,
            seed_mean_iou_note: SEED_MEAN_IOU_NOTE.to_owned(),
            bce: self.bce_sum / photos,
            iou: (0..CATEGORY_COUNT).map(iou).collect(),
            confusion: self.confusion.rows(),
            color_pixel_accuracy: colors.as_ref().map(|it| it.pixel_accuracy),
            colors,
            features,
        }
    }
}
