//! `export`: writes a model's two graphs, its weights and the state needed to continue training, for use with any ONNX
//! Runtime.

use std::path::PathBuf;

use minijinja::{Environment, context};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{self, OpenFolder};
use crate::graph::Spec;
use crate::model::Model;
use crate::model::files::{
    DATA_LICENSE_FILE, ENCODER_LICENSE_FILE, MODEL_CARD_FILE, PREDICT_FILE, TRAIN_STEP_FILE, WEIGHTS_FILE,
};
use crate::stage::{self, Common, Outcome, Read, RunFolders, Stage, StageConfig, Summary};
use crate::train::checkpoint::{self, Checkpoint};

/// Name of this stage.
pub const STAGE: &str = "export";
/// File name of the state that training continues from.
const CHECKPOINT_FILE: &str = "checkpoint.safetensors";

/// Settings of `export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The model folder.
    pub model: PathBuf,
    /// The folder to write the exported files to.
    pub output: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { model: PathBuf::from("output/model"), output: PathBuf::from("output/export") }
    }
}

/// Copies the graphs, the weights, the checkpoint that the weights come from, and the model card of a model folder, and
/// writes a README on how to run them.
///
/// # Errors
/// An invalid model folder; whatever fails while writing.
pub fn run(config: &Config, common: &Common) -> Result<Outcome> {
    let model = Model::open(&config.model)?;
    let (spec, _) = model.weights()?;
    let folder = model.folder();
    let (checkpoint, epoch) = published_checkpoint(folder, &Summary::read(folder.root())?)?;
    if common.dry_run {
        return stage::dry_run(STAGE, &config.output, common, config).map(Outcome::Planned);
    }
    let mut stage = Stage::begin(STAGE, &config.output, common, config)?;
    let mut names = Vec::new();
    for (file, name) in sources(folder, checkpoint) {
        let content = folder.read(&file)?;
        files::write(&stage.path(name), &content)?;
        stage.input_read(&folder.name().join(file), &content);
        names.push(name);
    }
    let readme = readme(&spec, epoch, &model.id(), &names)?;
    files::write(&stage.path("README.md"), readme.as_bytes())?;
    stage.count("files", names.len() + 1);
    stage.publish()
}

/// The files of a model folder that are copied, and what each is called then.
fn sources(model: &OpenFolder, checkpoint: PathBuf) -> Vec<(PathBuf, &'static str)> {
    let always = [TRAIN_STEP_FILE, PREDICT_FILE, WEIGHTS_FILE];
    let may_lack = [MODEL_CARD_FILE, DATA_LICENSE_FILE, ENCODER_LICENSE_FILE];
    let own = always.into_iter().chain(may_lack.into_iter().filter(|name| model.path(name).is_file()));
    std::iter::once((checkpoint, CHECKPOINT_FILE)).chain(own.map(|name| (name.into(), name))).collect()
}

impl StageConfig for Config {
    const NAME: &'static str = STAGE;
    const WITHOUT_EFFECT: &'static [&'static str] = &["model", "output"];

    fn folder(&self) -> PathBuf {
        self.output.clone()
    }

    fn in_run(run: &RunFolders) -> Vec<(&'static str, PathBuf)> {
        vec![("model", run.folder("model")), ("output", run.folder("export"))]
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn reads(&self) -> Result<Vec<Read>> {
        let model = OpenFolder::open(&self.model)?;
        let (checkpoint, _) = published_checkpoint(&model, &Summary::read(model.root())?)?;
        Ok(sources(&model, checkpoint).into_iter().map(|(file, _)| Read::File(self.model.join(file))).collect())
    }

    fn run(&self, common: &Common) -> Result<Outcome> {
        run(self, common)
    }
}

/// The checkpoint that a model's weights come from, as a path within the model folder, and its epoch.
fn published_checkpoint(model: &OpenFolder, made: &Summary) -> Result<(PathBuf, u32)> {
    let paths = files::entries(&model.path(checkpoint::FOLDER))?;
    let published = made.counts.count("published_epoch");
    for path in paths {
        // Skip a damaged one: there may be another of the same epoch.
        let epoch = Checkpoint::read(&path).map_or(0, |it| it.epoch());
        if published == Some(u64::from(epoch)) {
            let name = path.strip_prefix(model.root()).unwrap_or(&path);
            return Ok((name.to_owned(), epoch));
        }
    }
    Err(Error::input(model.name(), "has no intact checkpoint of its weights; train the model again"))
}

/// The README: how to run the files.
fn readme(spec: &Spec, epoch: u32, model_id: &str, names: &[&str]) -> Result<String> {
    let problem = |cause: minijinja::Error| Error::input("README.md", "cannot be rendered").because(cause);
    let mut environment = Environment::new();
    environment.add_template("readme", include_str!("readme.md")).map_err(problem)?;
    let values = context! {
        model_id,
        epoch,
        version => env!("CARGO_PKG_VERSION"),
        categories => spec.maps(),
        width => spec.photo_width_px,
        height => spec.photo_height_px,
        rows => spec.rows(),
        columns => spec.columns(),
        has_card => names.contains(&MODEL_CARD_FILE),
        has_licence => names.contains(&DATA_LICENSE_FILE),
        has_encoder_licence => names.contains(&ENCODER_LICENSE_FILE),
    };
    environment.get_template("readme").and_then(|it| it.render(values)).map(|text| text + "\n").map_err(problem)
}
