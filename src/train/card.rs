//! `model.json`, the model card: what the model is, what it was trained on and how good it is, for readers without this
//! project at hand.

use serde::Serialize;

use super::config::Config;
use crate::dataset::{Dataset, Licence};
use crate::error::Result;
use crate::files;
use crate::graph::Spec;
use crate::model::encoder::EncoderFile;
use crate::model::epochs::EpochRecord;
use crate::model::evaluation::Evaluation;
use crate::model::files::{DATA_LICENSE_FILE, ENCODER_LICENSE_FILE};
use crate::stage::Stage;

/// The content of `model.json`; unknown values are null.
#[derive(Debug, Serialize)]
pub(super) struct ModelCard<'a> {
    pub(super) model_id: String,
    pub(super) lookbook_version: &'static str,
    pub(super) git_revision: Option<&'static str>,
    pub(super) created_at: String,
    pub(super) network: Network<'a>,
    pub(super) training: Training<'a>,
    pub(super) dataset: Data,
    pub(super) metrics: Metrics,
}

/// The network and the categories that it assigns.
#[derive(Debug, Serialize)]
pub(super) struct Network<'a> {
    pub(super) spec: &'a Spec,
    pub(super) parameters: usize,
    pub(super) categories: Vec<&'a str>,
    /// The pretrained encoder that training started from; null if there was none.
    pub(super) encoder: Option<Encoder>,
}

/// A pretrained encoder.
#[derive(Debug, Serialize)]
pub(super) struct Encoder {
    /// Its file's name.
    name: String,
    /// SHA-256 of the file.
    sha256: String,
    /// Where its weights come from.
    source: Option<String>,
    /// Their licence.
    licence: Option<String>,
    /// The file in the model folder that holds the licence's text.
    licence_file: Option<&'static str>,
}

/// How it was trained.
#[derive(Debug, Serialize)]
pub(super) struct Training<'a> {
    pub(super) settings: &'a Config,
    pub(super) seed: u64,
    /// Identity of the model that training started from; null if it started from scratch or from a pretrained encoder.
    pub(super) started_from: Option<String>,
    /// Identity of the model or parser that labelled the train part; null if its photos have their own labels.
    pub(super) labels_from: Option<String>,
    pub(super) execution_provider: &'static str,
    pub(super) dialect: &'static str,
    pub(super) precision: &'static str,
    /// Epochs done; the last one may be partial.
    pub(super) epochs: usize,
    pub(super) steps: u64,
    /// The setting that ended the run.
    pub(super) ended_by: &'static str,
    /// The epoch that the published weights come from.
    pub(super) published_epoch: u32,
    /// The epoch with the highest mean IoU over the validation split.
    pub(super) best_epoch: u32,
}

/// What it was trained on.
#[derive(Debug, Serialize)]
pub(super) struct Data {
    /// SHA-256 of `photos.parquet`.
    pub(super) sha256: String,
    pub(super) train_photos: usize,
    pub(super) validation_photos: usize,
    pub(super) test_photos: usize,
    pub(super) licence: Option<DataLicence>,
}

/// The licence of the data.
#[derive(Debug, Serialize)]
pub(super) struct DataLicence {
    /// The first lines of its text.
    title: String,
    /// The file in the model folder that holds the text.
    file: &'static str,
}

/// How good it is. Rates are 0 to 1.
#[derive(Debug, Serialize)]
pub(super) struct Metrics {
    pub(super) validation: Validation,
    /// As in `evaluation.json`, at each photo's own size; null if there is no test split.
    pub(super) test: Option<Test>,
}

/// Over the validation split, at the network's resolution.
#[derive(Debug, Serialize)]
pub(super) struct Validation {
    loss: f32,
    pixel_accuracy: f32,
    foreground_accuracy: f32,
    mean_iou: f32,
}

/// Over the test split.
#[derive(Debug, Serialize)]
pub(super) struct Test {
    pixel_accuracy: f64,
    foreground_accuracy: Option<f64>,
    pub(super) mean_iou: f64,
    frequency_weighted_iou: f64,
    bce: Option<f64>,
}

impl Metrics {
    pub(super) fn new(epoch: &EpochRecord, evaluation: Option<&Evaluation>) -> Self {
        let validation = Validation {
            loss: epoch.validation_loss,
            pixel_accuracy: epoch.validation_pixel_accuracy,
            foreground_accuracy: epoch.validation_foreground_accuracy,
            mean_iou: epoch.validation_mean_iou,
        };
        let test = evaluation.map(|it| Test {
            pixel_accuracy: it.pixel_accuracy,
            foreground_accuracy: it.foreground_accuracy,
            mean_iou: it.mean_iou,
            frequency_weighted_iou: it.frequency_weighted_iou,
            bce: it.bce,
        });
        Self { validation, test }
    }
}

impl Data {
    pub(super) fn new(sha256: String, photos: [usize; 3], licence: Option<DataLicence>) -> Self {
        let [train_photos, validation_photos, test_photos] = photos;
        Self { sha256, train_photos, validation_photos, test_photos, licence }
    }
}

/// Copies the data licence into the model folder.
pub(super) fn licence(stage: &Stage, dataset: &Dataset) -> Result<Option<DataLicence>> {
    let Some(Licence { title, text }) = dataset.licence()? else { return Ok(None) };
    files::write(&stage.path(DATA_LICENSE_FILE), &text)?;
    Ok(Some(DataLicence { title, file: DATA_LICENSE_FILE }))
}

/// Describes the encoder, and copies its licence into the model folder.
pub(super) fn encoder(stage: &Stage, file: &EncoderFile) -> Result<Encoder> {
    let text = file.licence_text()?;
    if let Some(text) = &text {
        files::write(&stage.path(ENCODER_LICENSE_FILE), text)?;
    }
    Ok(Encoder {
        name: file.name(),
        sha256: file.record().sha256.clone(),
        source: file.source().map(str::to_owned),
        licence: file.licence().map(str::to_owned),
        licence_file: text.map(|_| ENCODER_LICENSE_FILE),
    })
}
