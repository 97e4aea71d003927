//! Turns photos into label maps, and label maps into counts.

use super::config::Config;
use crate::color::ColorTable;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::features::CellRule;
use crate::features::rows::Embedding;
use crate::graph::Precision;
use crate::labels::LabelSet;
use crate::model::calibration::Calibration;
use crate::model::files::INT8_FILE;
use crate::model::{Colors, Model, Predictor};
use crate::parser::{Embedder, Parser};
use crate::stage::{Common, Stage};

/// The networks of a run, as read.
pub(super) struct Networks {
    /// `None` if labels are counted.
    pub(super) model: Option<(Model, Colors)>,
    /// `None` if the table has no embeddings.
    pub(super) embedder: Option<Parser>,
}

/// Turns photos into label maps, and label maps into counts.
pub(super) struct Counter {
    pub(super) rule: CellRule,
    /// The learnt table; typical values if the labels of a source are used. It also says which categories and colours
    /// there are.
    pub(super) colors: ColorTable,
    pub(super) predictor: Option<Predictor>,
    pub(super) embedder: Option<Embedder>,
    pub(super) made_by: MadeBy,
}

impl Counter {
    /// Loads the networks; without one for labels, the labels are counted.
    pub(super) fn load(config: &Config, common: &Common, networks: Networks, stage: &mut Stage) -> Result<Self> {
        let Networks { model, embedder } = networks;
        let rule = config.cell_rule();
        let Some((model, colors)) = model else {
            let made_by = MadeBy::new(config, None, embedder.as_ref())?;
            let colors = ColorTable::typical(&made_by.labels);
            return Ok(Self { rule, colors, predictor: None, embedder: None, made_by });
        };
        model.record(&colors, stage);
        let engine = common.engine(config.device);
        let load = if config.needs_certainty() { Model::predictor_with_certainty } else { Model::predictor };
        let predictor = load(&model, engine, config.precision())?;
        let precision = predictor.precision().name();
        stage.backend(predictor.backend());
        stage.count("precision", precision);
        let made_by = MadeBy::new(config, Some((&model, &colors, precision)), embedder.as_ref())?;
        if let Some(calibration) = &made_by.calibration {
            stage.input_read(&model.folder().name().join(INT8_FILE), calibration.content());
            stage.count("calibration_id", &calibration.digest()[..16]);
        }
        if let Some(parser) = &embedder {
            parser.files_with_paths().for_each(|(path, content)| stage.input_read(&path, content));
            stage.count("embedder_id", parser.id());
        }
        let embedder = embedder.map(|it| it.embedder(engine)).transpose()?;
        Ok(Self { rule, colors: colors.table, predictor: Some(predictor), embedder, made_by })
    }
}

/// What the rows are made by.
pub(super) struct MadeBy {
    /// Their categories and colours.
    pub(super) labels: LabelSet,
    /// Checksums of the network and of the colour table, and the precision; `None` for labels.
    pub(super) model: Option<([String; 2], &'static str)>,
    /// The ranges of the network's maps, if that is in 8-bit integers.
    pub(super) calibration: Option<Calibration>,
    /// Checksum of the embedder.
    pub(super) embedder: Option<String>,
}

impl MadeBy {
    /// By a model with its colours in a precision, or by the labels of the catalogue; and by an embedder.
    pub(super) fn new(
        config: &Config,
        model: Option<(&Model, &Colors, &'static str)>,
        embedder: Option<&Parser>,
    ) -> Result<Self> {
        let labels = match model {
            Some((model, ..)) => model.labels()?,
            None => Dataset::open(&config.catalogue)?.labels().clone(),
        };
        let in_int8 = model.filter(|(.., precision)| *precision == Precision::Int8.name());
        let calibration = in_int8.map(|(model, ..)| model.calibration()).transpose()?;
        let model = model.map(|(model, colors, precision)| (model.checksums(colors), precision));
        Ok(Self { labels, model, calibration, embedder: embedder.map(Parser::digest) })
    }
}

/// What the embeddings of an embedder are.
pub(super) fn embedding_of(embedder: &Embedder) -> Embedding {
    Embedding { dimensions: embedder.dimensions(), embedder: embedder.id().to_owned() }
}
