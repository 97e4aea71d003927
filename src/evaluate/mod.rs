//! `evaluate`: compares a model, or a third-party parser, with the labels of one split and writes `evaluation.json` into its
//! folder or another.

use std::path::{Path, PathBuf};

use ort::value::DynValue;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::color::ColorTable;
use crate::dataset::{Dataset, PhotoRecord, Split};
use crate::engine::{Backend, Device, Engine, PrecisionChoice};
use crate::error::{Error, Result};
use crate::features::{ColorRule, DEFAULT_MIN_REGION, DEFAULT_MIN_SHARE, Presence};
use crate::graph::Spec;
use crate::labels::{BACKGROUND, Category, LabelSet};
use crate::model::confusion::Confusion;
use crate::model::evaluation::{Among, EVALUATION_FILE, Evaluation, FeatureComparison, PhotoEvaluation};
use crate::model::evaluator::Evaluator;
use crate::model::example::Example;
use crate::model::files::INT8_FILE;
use crate::model::predictor::BATCH_SIZE;
use crate::model::{Model, Predictor, calibration};
use crate::photo::Photo;
use crate::progress::Progress;
use crate::stage::{self, Common, Summary};
use crate::{files, runtime, stop};

mod colors;
mod features;
mod neighbours;

use colors::ComparedColors;
use features::{COLOR_RULES, Cells, count_present};
use neighbours::Neighbourhood;

const STAGE: &str = "evaluate";
/// Settings of `evaluate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of the dataset tables.
    pub dataset: PathBuf,
    /// The model folder, or a parser's.
    pub model: PathBuf,
    /// The folder that the result is written to; by default that of the model.
    pub output: Option<PathBuf>,
    /// The split to evaluate on.
    pub split: Split,
    /// Whether to predict the photos of the other parts too, and to look for the true neighbours of the split's photos among
    /// all of them.
    pub whole_dataset: bool,
    /// As in `segment`: the minimum share of a cell that is present ([`DEFAULT_MIN_SHARE`]).
    pub min_share: f64,
    /// As in `segment`: the minimum region of a cell that is present ([`DEFAULT_MIN_REGION`]).
    pub min_region: f64,
    /// Where the network runs.
    pub device: Device,
    /// Number format of the network's arithmetic.
    pub precision: PrecisionChoice,
    /// Whether to measure the ranges of the model's maps first, on photos of the train part, for 8-bit integers.
    pub calibrate: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dataset: PathBuf::from("output/dataset"),
            model: PathBuf::from("output/model"),
            output: None,
            split: Split::Test,
            whole_dataset: true,
            min_share: DEFAULT_MIN_SHARE,
            min_region: DEFAULT_MIN_REGION,
            device: Device::Auto,
            precision: PrecisionChoice::F32,
            calibrate: false,
        }
    }
}

impl Config {
    fn presence(&self) -> Presence {
        let Self { min_share, min_region, .. } = *self;
        Presence { min_share, min_region }
    }
}

/// Evaluates a model folder and writes `evaluation.json` into it.
///
/// # Errors
/// An invalid dataset or model folder, an empty split, a missing runtime, or a run that is writing the model folder.
pub fn run(config: &Config, common: &Common) -> Result<(Evaluation, Summary)> {
    config.presence().check()?;
    if config.precision != PrecisionChoice::F32 && config.output.is_none() {
        let problem = "would replace the evaluation of the model in f32; name another folder with --output";
        return Err(Error::config("evaluate.precision", problem));
    }
    let dataset = Dataset::open(&config.dataset)?;
    let mut summary = stage::planned(STAGE, &config.model, common, config);
    if common.lock_wait_secs == 0 {
        // Otherwise minutes of work would be lost.
        stage::refuse_held(&config.model)?;
    }
    let started = std::time::Instant::now();
    let model = Model::open_allowed(&config.model, &common.gates)?;
    dataset.check_labels(&model.labels()?, "evaluate.model", &config.model)?;
    let model = if config.calibrate { calibrated(model, &dataset, config, common)? } else { model };
    let (evaluation, backend) = evaluate(&dataset, &model, config, common.engine(config.device))?;
    if !common.dry_run {
        write(&evaluation, &model, config, common)?;
    }
    summary.set_backend(backend);
    summary.elapsed_secs = started.elapsed().as_secs_f64();
    summary.counts.set("photos", evaluation.photos);
    summary.counts.set("mean_iou", evaluation.mean_iou);
    summary.counts.set("pixel_accuracy", evaluation.pixel_accuracy);
    summary.counts.set("foreground_accuracy", evaluation.foreground_accuracy);
    Ok((evaluation, summary))
}

/// Measures the ranges of the model's maps and writes them into its published folder, which is then opened again.
fn calibrated(model: Model, dataset: &Dataset, config: &Config, common: &Common) -> Result<Model> {
    if common.dry_run {
        return Ok(model);
    }
    let ranges = calibration::measure(dataset, model.predict()?, common.seed, common.threads)?;
    stage::add_file(model.folder(), INT8_FILE, &ranges, common)?;
    Model::open_allowed(&config.model, &common.gates)
}

/// Writes `evaluation.json`: into the published model folder, with its record; into a parser's folder or another as a file.
fn write(evaluation: &Evaluation, model: &Model, config: &Config, common: &Common) -> Result<()> {
    match &config.output {
        Some(output) => {
            files::create_folder(output)?;
            files::write_json(&output.join(EVALUATION_FILE), evaluation)
        }
        None if model.parser().is_some() => files::write_json(&config.model.join(EVALUATION_FILE), evaluation),
        None => stage::add_file(model.folder(), EVALUATION_FILE, evaluation, common),
    }
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
    let config = Config { split: Split::Test, device, ..Config::default() };
    let (evaluation, _) = evaluate(dataset, &Model::open(model)?, &config, common.engine(device))?;
    files::write_json(&model.join(EVALUATION_FILE), &evaluation)?;
    Ok(Some(evaluation))
}

fn evaluate(dataset: &Dataset, model: &Model, config: &Config, engine: Engine) -> Result<(Evaluation, Backend)> {
    let colors = model.colors()?.table;
    let (totals, backend) = evaluate_split(dataset, model, config, &colors, engine)?;
    let others =
        if config.whole_dataset { predict_others(dataset, model, config, &colors, engine)? } else { Vec::new() };
    Ok((totals.evaluation(config, (model.id(), colors.labels()), &others), backend))
}

/// Compares the network's output for the photos of the split with their labels.
fn evaluate_split(
    dataset: &Dataset,
    model: &Model,
    config: &Config,
    table: &ColorTable,
    engine: Engine,
) -> Result<(Totals, Backend)> {
    let mut labeller = Labeller::new(model, engine, config.precision)?;
    let mut totals = Totals::new(table.labels());
    let split = config.split;
    let photos = dataset.index()?.iter().filter(|it| it.split == split).count() as u64;
    let progress = Progress::new(STAGE, photos, "photos");
    let mut records = dataset.photos(Some(split))?;
    loop {
        let chunk = records.by_ref().take(BATCH_SIZE).collect::<Result<Vec<_>>>()?;
        if chunk.is_empty() {
            break;
        }
        stop::check()?;
        let compared = compare_photos(&mut labeller, dataset, &chunk, table, config.presence())?;
        totals.add(compared, chunk.len());
        progress.inc(chunk.len() as u64);
    }
    if totals.photos == 0 {
        return Err(Error::input(dataset.photos_path(), format!("has no photos in the {} split", split.name())));
    }
    Ok((totals, labeller.backend()))
}

/// The photos of the other parts with their cells by the labels and by the model.
fn predict_others(
    dataset: &Dataset,
    model: &Model,
    config: &Config,
    table: &ColorTable,
    engine: Engine,
) -> Result<Vec<(u32, [Cells; 2])>> {
    let photos = dataset.index()?.iter().filter(|it| it.split != config.split).count();
    if photos == 0 {
        return Ok(Vec::new());
    }
    tracing::info!(
        "evaluate: predicting the {photos} photos of the other parts, for true neighbours in the whole data set"
    );
    let mut predictor = model.predictor(engine, config.precision)?;
    let progress = Progress::new(STAGE, photos as u64, "photos of the other parts");
    let is_other = |it: &Result<PhotoRecord>| it.as_ref().map_or(true, |it| it.split != config.split);
    let mut records = dataset.photos(None)?.filter(is_other);
    let mut others = Vec::with_capacity(photos);
    loop {
        let chunk = records.by_ref().take(BATCH_SIZE).collect::<Result<Vec<_>>>()?;
        if chunk.is_empty() {
            return Ok(others);
        }
        stop::check()?;
        let photos = chunk.par_iter().map(|it| it.decode(&dataset.photos_path())).collect::<Result<Vec<_>>>()?;
        let named: Vec<_> = photos.iter().zip(&chunk).map(|(photo, it)| (photo, &it.file_name[..])).collect();
        let maps = predictor.label_maps_of(&named)?;
        let cells = |((record, photo), map): ((&PhotoRecord, &Photo), &Vec<u8>)| {
            (record.photo_id, features::cells(record, photo, map, table, config.presence()))
        };
        others.par_extend(chunk.par_iter().zip(&photos).zip(&maps).map(cells));
        progress.inc(chunk.len() as u64);
    }
}

/// The network that is evaluated.
enum Labeller {
    /// With its losses and weights.
    Own(Box<Evaluator>, Spec, DynValue),
    /// Of label maps alone: a parser, or a network of ours in another precision than f32.
    Plain(Box<Predictor>),
}

/// A photo with its labels by the data set and by the network, each `[height, width]`.
struct Labelled {
    photo: Photo,
    truth: Vec<u8>,
    predicted: Vec<u8>,
}

impl Labeller {
    fn new(model: &Model, engine: Engine, precision: PrecisionChoice) -> Result<Self> {
        if model.parser().is_some() || precision != PrecisionChoice::F32 {
            return Ok(Self::Plain(Box::new(model.predictor(engine, precision)?)));
        }
        let (spec, weights) = model.weights()?;
        Ok(Self::Own(Box::new(Evaluator::new(&spec, engine)?), spec, runtime::vector(weights)?))
    }

    fn backend(&self) -> Backend {
        match self {
            Self::Own(evaluator, ..) => evaluator.backend(),
            Self::Plain(predictor) => predictor.backend(),
        }
    }

    /// Labels photos that were read from `source`; also the mean binary cross-entropy over them, of a network of ours.
    fn label(&mut self, source: &Path, records: &[PhotoRecord]) -> Result<(Option<f64>, Vec<Labelled>)> {
        match self {
            Self::Own(evaluator, spec, weights) => {
                let examples = records.par_iter().map(|it| Example::new(spec, source, it));
                let examples = examples.collect::<Result<Vec<_>>>()?;
                let photos = examples.iter().flat_map(|it| &it.canvas.pixels).copied().collect();
                let labels = examples.iter().flat_map(|it| spec.map_labels(&it.labels)).collect();
                let answer = evaluator.run(photos, labels, weights)?;
                let labelled = |(example, map): (Example, &Vec<u8>)| {
                    let Example { photo, label_map: truth, canvas, .. } = example;
                    let predicted = canvas.label_map(spec, map, photo.size());
                    Labelled { photo, truth, predicted }
                };
                let labelled = examples.into_par_iter().zip(&answer.label_maps).map(labelled).collect();
                Ok((Some(f64::from(answer.bce)), labelled))
            }
            Self::Plain(predictor) => {
                let photos = records.par_iter().map(|it| it.decode(source)).collect::<Result<Vec<_>>>()?;
                let named: Vec<_> = photos.iter().zip(records).map(|(photo, it)| (photo, &it.file_name[..])).collect();
                let maps = predictor.label_maps_of(&named)?;
                let labelled = |((photo, predicted), record): ((Photo, Vec<u8>), &PhotoRecord)| Labelled {
                    photo,
                    truth: record.category_map(),
                    predicted,
                };
                Ok((None, photos.into_iter().zip(maps).zip(records).map(labelled).collect()))
            }
        }
    }
}

/// Compares the network's output for some photos with their labels.
fn compare_photos(
    labeller: &mut Labeller,
    dataset: &Dataset,
    records: &[PhotoRecord],
    table: &ColorTable,
    presence: Presence,
) -> Result<Evaluated> {
    let (bce, labelled) = labeller.label(&dataset.photos_path(), records)?;
    let compare = |(record, labelled): (&PhotoRecord, &Labelled)| {
        let Labelled { photo, truth, predicted } = labelled;
        let categories = table.labels().category_count();
        let mut confusion = Confusion::new(categories);
        confusion.add(truth, predicted);
        let mut of_background = Confusion::new(categories);
        of_background.add(truth, &vec![BACKGROUND; truth.len()]);
        EvaluatedPhoto {
            photo_id: record.photo_id,
            file_name: record.file_name.clone(),
            confusion,
            seed_of_background: of_background.seed_mean_iou(),
            colors: ComparedColors::new(record, photo, table),
            cells: features::cells(record, photo, predicted, table, presence),
        }
    };
    let photos = records.par_iter().zip(&labelled).map(compare).collect();
    Ok(Evaluated { bce, photos })
}

/// Why [`Evaluation::seed_mean_iou`] is flattering.
fn seed_mean_iou_note(labels: &LabelSet) -> String {
    let categories = labels.category_count();
    let of_cfpd = if labels.is_cfpd() { "; on street photos, predicting bk everywhere scores 0.64" } else { "" };
    format!(
        "the seed's metric: per photo, the mean over all {categories} categories, with 1 for each that is neither present \
         nor predicted{of_cfpd}"
    )
}

/// A batch compared with its truth: the mean BCE, if the network has one, and each photo.
struct Evaluated {
    bce: Option<f64>,
    photos: Vec<EvaluatedPhoto>,
}

/// A photo compared with its truth.
struct EvaluatedPhoto {
    photo_id: u32,
    file_name: String,
    confusion: Confusion,
    /// The seed's metric for background everywhere.
    seed_of_background: f64,
    colors: ComparedColors,
    /// By colour rule.
    cells: [Cells; 2],
}

/// The sums over the split so far.
struct Totals {
    photos: u64,
    confusion: Confusion,
    /// `None` if the network has no losses.
    bce_sum: Option<f64>,
    jaccard_sum: f64,
    seed_sum: f64,
    seed_of_background_sum: f64,
    colors: Vec<ComparedColors>,
    by_photo: Vec<PhotoEvaluation>,
    /// The cells of each photo, by colour rule.
    cells: Vec<[Cells; 2]>,
}

impl Totals {
    fn new(labels: &LabelSet) -> Self {
        Self {
            photos: 0,
            confusion: Confusion::new(labels.category_count()),
            bce_sum: None,
            jaccard_sum: 0.0,
            seed_sum: 0.0,
            seed_of_background_sum: 0.0,
            colors: Vec::new(),
            by_photo: Vec::new(),
            cells: Vec::new(),
        }
    }

    fn add(&mut self, batch: Evaluated, photos: usize) {
        self.photos += photos as u64;
        self.bce_sum = batch.bce.map(|it| self.bce_sum.unwrap_or(0.0) + it * photos as f64);
        for photo in batch.photos {
            self.jaccard_sum += photo.confusion.category_set_jaccard();
            self.seed_sum += photo.confusion.seed_mean_iou();
            self.seed_of_background_sum += photo.seed_of_background;
            self.confusion.merge(&photo.confusion);
            self.by_photo.push(photo.figures());
            self.colors.push(photo.colors);
            self.cells.push(photo.cells);
        }
    }

    /// The evaluation of the model of this id and label set; `others` are the photos of the other parts, if they were
    /// predicted.
    fn evaluation(
        mut self,
        config: &Config,
        (model_id, labels): (String, &LabelSet),
        others: &[(u32, [Cells; 2])],
    ) -> Evaluation {
        let features = self.compare_features(config, labels, others);
        let colors = colors::summarize(&self.colors, labels.color_count());
        let photos = self.photos as f64;
        let iou = |(category, it): (usize, &Category)| (it.name.clone(), self.confusion.iou(category));
        Evaluation {
            split: config.split,
            photos: self.photos,
            model_id,
            labels: labels.clone(),
            pixel_accuracy: self.confusion.pixel_accuracy(),
            foreground_accuracy: self.confusion.foreground_accuracy(),
            mean_iou: self.confusion.mean_iou(),
            frequency_weighted_iou: self.confusion.frequency_weighted_iou(),
            category_set_jaccard: self.jaccard_sum / photos,
            seed_mean_iou: self.seed_sum / photos,
            seed_mean_iou_of_background: self.seed_of_background_sum / photos,
            seed_mean_iou_note: seed_mean_iou_note(labels),
            bce: self.bce_sum.map(|it| it / photos),
            iou: labels.categories().iter().enumerate().map(iou).collect(),
            confusion: self.confusion.rows(),
            color_pixel_accuracy: colors.as_ref().map(|it| it.pixel_accuracy),
            colors,
            features,
            by_photo: self.by_photo,
        }
    }

    /// Compares the features by each colour rule, and notes the nearest photos of each photo.
    fn compare_features(
        &mut self,
        config: &Config,
        labels: &LabelSet,
        others: &[(u32, [Cells; 2])],
    ) -> Vec<FeatureComparison> {
        let ids: Vec<u32> = self.by_photo.iter().map(|it| it.photo_id).collect();
        let compare = |(index, color_rule): (usize, ColorRule)| {
            let part: Vec<&Cells> = self.cells.iter().map(|it| &it[index]).collect();
            let mut features = features::compare(labels, color_rule, config.presence(), &part);
            let photos = ids.iter().copied().zip(part.iter().copied()).collect();
            let mut nearest = Neighbourhood::new(labels, photos, &ids);
            features.neighbours = nearest.found(Among::Part);
            let top = features.neighbours.iter().find(|it| it.top as usize == neighbours::MOST);
            features.true_neighbours_found = top.and_then(|it| it.true_neighbours_found);
            features.true_neighbours_found_at_random = top.and_then(|it| it.at_random);
            if !others.is_empty() {
                let others = others.iter().map(|(id, cells)| (*id, &cells[index]));
                let photos = ids.iter().copied().zip(part).chain(others).collect();
                nearest = Neighbourhood::new(labels, photos, &ids);
                features.neighbours.extend(nearest.found(Among::Dataset));
            }
            (features, nearest)
        };
        let compared: Vec<_> = COLOR_RULES.into_iter().enumerate().map(compare).collect();
        compared[0].1.note(&mut self.by_photo);
        compared.into_iter().map(|(features, _)| features).collect()
    }
}

impl EvaluatedPhoto {
    fn figures(&self) -> PhotoEvaluation {
        let cells = &self.cells[0];
        PhotoEvaluation {
            photo_id: self.photo_id,
            file_name: self.file_name.clone(),
            pixel_accuracy: self.confusion.pixel_accuracy(),
            foreground_accuracy: self.confusion.foreground_accuracy(),
            mean_iou: self.confusion.mean_iou(),
            cells_by_labels: count_present(&cells.by_labels) as u32,
            cells_by_model: count_present(&cells.by_model) as u32,
            nearest_by_labels: Vec::new(),
            nearest_by_model: Vec::new(),
        }
    }
}
