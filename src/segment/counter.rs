//! Turns photos into label maps, and label maps into counts.

use super::config::Config;
use crate::color::ColorTable;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::features::CellRule;
use crate::labels::LabelSet;
use crate::model::{Colors, Model, Predictor};
use crate::stage::{Common, Stage};

/// Turns photos into label maps, and label maps into counts.
pub(super) struct Counter {
    pub(super) rule: CellRule,
    /// The learnt table; typical values if the labels of a source are used. It also says which categories and colours
    /// there are.
    pub(super) colors: ColorTable,
    pub(super) predictor: Option<Predictor>,
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
            let labels = Dataset::open(&config.catalogue)?.labels().clone();
            let colors = ColorTable::typical(&labels);
            return Ok(Self { rule, colors, predictor: None, made_by: MadeBy::Labels { labels } });
        };
        model.record(&colors, stage);
        let load = if config.needs_certainty() { Model::predictor_with_certainty } else { Model::predictor };
        let predictor = load(&model, common.engine(config.device), config.precision)?;
        let precision = predictor.precision().name();
        stage.backend(predictor.backend());
        stage.count("precision", precision);
        let made_by = MadeBy::model(&model, &colors, precision)?;
        Ok(Self { rule, colors: colors.table, predictor: Some(predictor), made_by })
    }
}

/// What the rows are made by.
pub(super) enum MadeBy {
    Labels {
        labels: LabelSet,
    },
    Model {
        labels: LabelSet,
        /// Of the network and of the colour table.
        checksums: [String; 2],
        precision: &'static str,
    },
}

impl MadeBy {
    pub(super) fn model(model: &Model, colors: &Colors, precision: &'static str) -> Result<Self> {
        Ok(Self::Model { labels: model.labels()?, checksums: model.checksums(colors), precision })
    }

    /// The categories and colours of the rows.
    pub(super) fn labels(&self) -> &LabelSet {
        match self {
            Self::Labels { labels } | Self::Model { labels, .. } => labels,
        }
    }
}
