//! Turns photos into label maps, and label maps into counts.

use super::config::Config;
use crate::color::ColorTable;
use crate::error::Result;
use crate::features::CellRule;
use crate::model::certainty::Certainty;
use crate::model::{Colors, Model, Predictor};
use crate::stage::{Common, Stage};

/// Turns photos into label maps, and label maps into counts.
pub(super) struct Counter {
    pub(super) rule: CellRule,
    /// The learnt table; typical values if the labels of a source are used.
    pub(super) colors: ColorTable,
    pub(super) predictor: Option<Predictor>,
    /// Tells how sure the network is, if that is needed.
    pub(super) certainty: Option<Certainty>,
    pub(super) made_by: MadeBy,
}

impl Counter {
    /// Loads the network of an opened model; without one, the labels are counted.
    pub(super) fn load(
        config: &Config,
        common: &Common,
        model: Option<(Model, Colors)>,
        stage: &mut Stage,
    ) -> Result<Self> {
        let rule = config.cell_rule();
        let Some((model, colors)) = model else {
            return Ok(Self {
                rule,
                colors: ColorTable::typical(),
                predictor: None,
                certainty: None,
                made_by: MadeBy::Labels,
            });
        };
        model.record(&colors, stage);
        let predictor = model.predictor(common.engine(config.device), config.precision)?;
        let precision = predictor.precision().name();
        stage.backend(predictor.backend());
        stage.count("precision", precision);
        let made_by = MadeBy::Model { checksums: model.checksums(&colors), precision };
        let certainty = match model.parser() {
            None if config.needs_certainty() => Some(Certainty::new(model.predict()?, common.engine(config.device))?),
            _ => None,
        };
        Ok(Self { rule, colors: colors.table, predictor: Some(predictor), certainty, made_by })
    }
}

/// What the rows are made by.
pub(super) enum MadeBy {
    Labels,
    Model {
        /// Of the network and of the colour table.
        checksums: [String; 2],
        precision: &'static str,
    },
}
