//! `recommend`: finds the photos of a catalogue with the outfits most similar to a given photo.
//!
//! In: photos of any size and orientation, a model, the features of a catalogue and, for the measure `embedding`, the
//! embedder that they were made with. Out: for each photo, what is worn in it and its nearest neighbours with the cells
//! that they share, as text or JSON, and a contact sheet if an output folder is given.

use std::path::PathBuf;

use crate::catalogue;
use crate::engine::PrecisionChoice;
use crate::error::{Error, Result};
use crate::features::FeatureTable;
use crate::files::OpenFolder;
use crate::gates::Gates;
use crate::labels::LabelSet;
use crate::model::Model;
use crate::parser::Parser;
use crate::photo;
use crate::similarity;
use crate::similarity::Correlator;
use crate::stage::Common;

mod adviser;
mod answer;
mod config;
mod sheet;

use adviser::{Adviser, cell_rule};
pub use answer::{Recommendation, Recommended, WornCell};
pub use config::{Config, DEFAULT_TOP, Format};
pub(crate) use sheet::catalogue_pictures;
use sheet::draw_sheets;

/// Recommends photos for each of `photos` (files, and folders that are searched recursively).
///
/// # Errors
/// Errors that name the invalid setting, model or feature table; [`Error::Input`] if none of the photos is valid.
pub fn run(config: &Config, photos: &[PathBuf], common: &Common) -> Result<Vec<Recommendation>> {
    let paths = check(config, photos)?;
    let folder = OpenFolder::open(&config.features)?;
    let features = similarity::open_features(&folder, config.measure)?;
    let model = Model::open_allowed(&config.model, &common.gates)?;
    let embedder = open_embedder(config, &features, &common.gates)?;
    let colors = model.colors()?.table;
    check_labels(config, &features.labels, colors.labels())?;
    if common.dry_run {
        return Ok(paths.into_iter().map(|path| Recommendation::without_neighbours(path, None)).collect());
    }
    let engine = common.engine(config.device);
    let predictor = model.predictor(engine, PrecisionChoice::F32)?;
    let embedder = embedder.map(|it| it.embedder(engine)).transpose()?;
    let correlator = Correlator::new(&features, config.comparison());
    let rule = cell_rule(&folder)?;
    let mut adviser = Adviser { config, rule, features, colors, predictor, embedder, correlator };
    let mut answers = Vec::with_capacity(paths.len());
    for path in paths {
        answers.push(adviser.advise(path)?);
    }
    if let [first, ..] = &answers[..]
        && answers.iter().all(|(answer, _)| answer.problem.is_some())
    {
        return Err(Error::input(&first.0.photo, first.0.problem.clone().unwrap_or_default()));
    }
    if let Some(output) = &config.output {
        draw_sheets(&folder, output, &mut answers)?;
    }
    Ok(answers.into_iter().map(|(answer, _)| answer).collect())
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

fn check(config: &Config, photos: &[PathBuf]) -> Result<Vec<PathBuf>> {
    for (setting, value) in [("recommend.top", config.top), ("recommend.min_common", config.min_common)] {
        if value == 0 {
            return Err(Error::config(setting, "is 0; use 1 or more"));
        }
    }
    let mut paths = Vec::new();
    for path in photos {
        if path.is_dir() {
            let found = catalogue::photo_files(path)?;
            if found.is_empty() {
                let endings = photo::EXTENSIONS.join(", ");
                return Err(Error::input(path, format!("holds no photos ({endings})")));
            }
            paths.extend(found);
        } else {
            paths.push(path.clone());
        }
    }
    if paths.is_empty() {
        return Err(Error::config("PHOTO", "name at least one photo or folder"));
    }
    Ok(paths)
}

/// Checks that the photos are labelled as those of the catalogue were.
fn check_labels(config: &Config, of_features: &LabelSet, of_model: &LabelSet) -> Result<()> {
    let [model, features] = [&config.model, &config.features].map(|it| it.display().to_string());
    let like = of_model.check_like(of_features, &model, &features);
    like.map_err(|problem| Error::config("recommend.model", problem))
}
