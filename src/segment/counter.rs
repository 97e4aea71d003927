//! Turns photos into label maps, and label maps into counts.

use super::config::Config;
use crate::color::ColorTable;
use crate::error::Result;
use crate::features::CellRule;
use crate::features::rows::Embedding;
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
    /// The learnt table; typical values if the labels of a source are used.
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
        let made_by = MadeBy { model: None, embedder: embedder.as_ref().map(Parser::digest) };
        let Some((model, colors)) = model else {
            return Ok(Self { rule, colors: ColorTable::typical(), predictor: None, embedder: None, made_by });
        };
        model.record(&colors, stage);
        let engine = common.engine(config.device);
        let load = if config.needs_certainty() { Model::predictor_with_certainty } else { Model::predictor };
        let predictor = load(&model, engine, config.precision)?;
        let precision = predictor.precision().name();
        stage.backend(predictor.backend());
        stage.count("precision", precision);
        if let Some(parser) = &embedder {
            parser.files_with_paths().for_each(|(path, content)| stage.input_read(&path, content));
            stage.count("embedder_id", parser.id());
        }
        let embedder = embedder.map(|it| it.embedder(engine)).transpose()?;
        let made_by = MadeBy { model: Some((model.checksums(&colors), precision)), ..made_by };
        Ok(Self { rule, colors: colors.table, predictor: Some(predictor), embedder, made_by })
    }
}

/// What the rows are made by.
pub(super) struct MadeBy {
    /// Checksums of the network and of the colour table, and the precision; `None` for labels.
    pub(super) model: Option<([String; 2], &'static str)>,
    /// Checksum of the embedder.
    pub(super) embedder: Option<String>,
}

/// What the embeddings of an embedder are.
pub(super) fn embedding_of(embedder: &Embedder) -> Embedding {
    Embedding { dimensions: embedder.dimensions(), embedder: embedder.id().to_owned() }
}
