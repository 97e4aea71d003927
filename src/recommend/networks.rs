//! The networks that recommendations are made with, checked against the features.

use crate::color::ColorTable;
use crate::engine::PrecisionChoice;
use crate::error::{Error, Result};
use crate::features::FeatureTable;
use crate::files::OpenFolder;
use crate::gates::Gates;
use crate::labels::LabelSet;
use crate::model::Model;
use crate::parser::Parser;
use crate::stage::Common;

use super::adviser::{Eyes, cell_rule};
use super::config::Config;

/// The networks as read, which fit the features.
pub(super) struct Opened {
    model: Model,
    colors: ColorTable,
    embedder: Option<Parser>,
}

impl Opened {
    pub(super) fn new(config: &Config, features: &FeatureTable, common: &Common) -> Result<Self> {
        let model = Model::open_allowed(&config.model, &common.gates)?;
        let embedder = open_embedder(config, features, &common.gates)?;
        let colors = model.colors()?.table;
        check_labels(config, &features.labels, colors.labels())?;
        Ok(Self { model, colors, embedder })
    }

    pub(super) fn eyes(self, config: &Config, folder: &OpenFolder, common: &Common) -> Result<Eyes> {
        let engine = common.engine(config.device);
        let predictor = self.model.predictor(engine, PrecisionChoice::F32)?;
        let embedder = self.embedder.map(|it| it.embedder(engine)).transpose()?;
        Ok(Eyes { rule: cell_rule(folder)?, colors: self.colors, predictor, embedder })
    }
}

/// The embedder, for the measure `embedding`: the one that the features were made with.
fn open_embedder(config: &Config, features: &FeatureTable, gates: &Gates) -> Result<Option<Parser>> {
    let Some(embeddings) = &features.embeddings else { return Ok(None) };
    let Some(folder) = &config.embedder else {
        let problem = "is not set, but the measure is 'embedding'; name the embedder that the features were made with";
        return Err(Error::config("recommend.embedder", problem));
    };
    let embedder = Parser::read_embedder(folder, gates)?;
    let (found, wanted) = (embedder.id(), &embeddings.of().embedder);
    if found == *wanted {
        return Ok(Some(embedder));
    }
    let features = config.features.display();
    let problem =
        format!("is the embedder {found}, but {features} was made with {wanted}; name that, or run segment again");
    Err(Error::input(folder, problem))
}

/// Checks that the photos are labelled as those of the catalogue were.
fn check_labels(config: &Config, of_features: &LabelSet, of_model: &LabelSet) -> Result<()> {
    let [model, features] = [&config.model, &config.features].map(|it| it.display().to_string());
    let like = of_model.check_like(of_features, &model, &features);
    like.map_err(|problem| Error::config("recommend.model", problem))
}
