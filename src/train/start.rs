//! The model that training starts from, if it does not start from scratch.

use std::path::Path;

use serde_json::Value;

use super::checkpoint::{self, Checkpoint};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::graph::{AVERAGE, STATISTICS, Spec, WEIGHTS};
use crate::model::Model;
use crate::model::files::PREDICT_FILE;
use crate::stage::Summary;

/// What may differ between the network of the model and the one to train: no weight depends on it.
/// [`Start::check_labels`] compares the label sets.
const MAY_DIFFER: [&str; 4] = ["photo_width_px", "photo_height_px", "logit_scale", "labels"];

/// A published model with the checkpoint of the epoch that was published.
pub(super) struct Start {
    model: Model,
    checkpoint: Checkpoint,
}

impl Start {
    /// Opens a model folder.
    ///
    /// # Errors
    /// [`Error::Input`] if it is not a model folder or lacks the checkpoint.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        if !Model::is_in(folder) {
            let problem = format!("is not a model folder: it has no {PREDICT_FILE}; name one that train published");
            return Err(Error::input(folder, problem));
        }
        let model = Model::open(folder)?;
        model.predict()?;
        let epoch = Summary::find(model.folder().root())?.and_then(|it| it.counts.number("published_epoch"));
        let checkpoints = model.folder().path(checkpoint::FOLDER);
        let found = epoch.map(|it| Checkpoint::of_epoch(&checkpoints, it as u32)).transpose()?.flatten();
        let missing = || {
            let problem = "has no checkpoint of the published epoch, and training starts from nothing else; copy the \
                           whole model folder with its run.json, or train the model again";
            Error::input(&checkpoints, problem)
        };
        let checkpoint = found.ok_or_else(missing)?;
        Ok(Self { model, checkpoint })
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// Checks that the model's weights are those of the network `spec`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first setting of the network that differs, with both values.
    pub(super) fn check(&self, spec: &Spec) -> Result<()> {
        let [its, ours] = [&self.checkpoint.spec, spec].map(|it| serde_json::to_value(it).expect("plain data"));
        let fields = |of: &Value| of.as_object().into_iter().flat_map(|it| it.keys().cloned()).collect::<Vec<_>>();
        let mut names = [fields(&its), fields(&ours)].concat();
        names.retain(|name| !MAY_DIFFER.contains(&name.as_str()));
        let Some(name) = names.into_iter().find(|name| its[name] != ours[name]) else { return Ok(()) };
        let text = |value: &Value| match value {
            Value::Null => "none".to_owned(),
            value => checkpoint::brief(&value.to_string()),
        };
        let folder = self.model.folder().name().display();
        let problem = format!(
            "the network in {folder} has {name} = {}, the one to train {name} = {}; give both the same, or name another \
             model",
            text(&its[&name]),
            text(&ours[&name])
        );
        Err(Error::config("train.start_from", problem))
    }

    /// Checks that the model's maps are of the data set's categories.
    ///
    /// # Errors
    /// As [`Dataset::check_labels`].
    pub(super) fn check_labels(&self, dataset: &Dataset) -> Result<()> {
        dataset.check_labels(&self.checkpoint.spec.labels, "train.start_from", self.model.folder().name())
    }

    /// The state that training starts from, in the order of [`Spec::state`]: the published weights (the average, if
    /// there is one) and the statistics of their maps, with moments of zero.
    pub(super) fn state(&self) -> Vec<Vec<f32>> {
        let Checkpoint { spec, state, .. } = &self.checkpoint;
        let vector = |wanted: &str| state.iter().find(|(name, _)| name == wanted).map(|(_, values)| values.clone());
        let published = vector(AVERAGE).or_else(|| vector(WEIGHTS));
        let of = |(name, len): (&str, usize)| {
            match name {
                WEIGHTS | AVERAGE => published.clone(),
                STATISTICS => vector(STATISTICS),
                _ => None,
            }
            .unwrap_or_else(|| vec![0.0; len])
        };
        spec.state().into_iter().map(of).collect()
    }
}
