//! `segment`: turns a catalogue of photos into the feature table.
//!
//! In: a catalogue, and the network and colour table of a model or a parser (or, with `from = "labels"`, the dataset's own
//! labels), and an embedder if the table is to have embeddings.
//! Out: `part-NNNNN.parquet`, in `_state/` a `state-NNNNN.parquet` for each and `rejects.parquet`, `masks/` if
//! requested, and `run.json`; a shard writes to its own folder until it is merged. Photos are scaled to fit 400 x 600
//! and their pixels counted at that size; a dataset's own label maps are counted as they are. Results that the previous
//! version or a killed run computed from the same content with the same model and settings are reused.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::catalogue::{Catalogue, Numbering};
use crate::error::Result;
use crate::features::layout;
use crate::files::OpenFolder;
use crate::model::files::INT8_FILE;
use crate::model::{Model, Predictor};
use crate::parser::Parser;
use crate::progress::Progress;
use crate::rejects::{self, Reject};
use crate::shard;
use crate::stage::{self, Common, Listing, Outcome, Read, RunFolders, Stage, StageConfig, Summary, TableForm};
use crate::table;

mod annotations;
mod config;
mod counter;
mod counts;
mod earlier;
mod masks;
mod merge_features;
mod merge_parts;
mod parts;
mod plan;
pub mod state;
mod stream;
mod table_figures;
mod uncertain;
mod vanished;
mod whole_parts;

pub use config::{
    Config, DEFAULT_KEEP_EVERY_PHOTOS, DEFAULT_MAX_MEGAPIXELS, LABELS_MODEL_ID, LabelSource, Masks, STAGE,
    check_catalogue, check_labels, open_embedder, open_model,
};
use counter::{Counter, MadeBy, Networks, embedding_of};
use counts::{count_table, count_written};
pub use earlier::UNFINISHED;
pub(crate) use masks::find as mask;
use parts::{Writer, Written};
use plan::Plan;
use state::StateRow;
use whole_parts::WholeParts;

impl StageConfig for Config {
    const NAME: &'static str = STAGE;
    const WITHOUT_EFFECT: &'static [&'static str] = &[
        "catalogue",
        "model",
        "output",
        "device",
        "keep_every_photos",
        "max_reject_fraction",
        "shard",
        "shard_by",
        "merge",
        "table",
    ];

    fn folder(&self) -> PathBuf {
        Config::folder(self)
    }

    fn output(&self) -> PathBuf {
        self.output.clone()
    }

    fn in_run(run: &RunFolders) -> Vec<(&'static str, PathBuf)> {
        vec![("catalogue", run.folder("dataset")), ("model", run.folder("model")), ("output", run.folder("features"))]
    }

    fn check(&self) -> Result<()> {
        config::check_values(self)
    }

    fn reads(&self) -> Result<Vec<Read>> {
        let shards = shards_to_merge(self)?;
        if let Some(shards) = &shards
            && let Some(inputs) = merge_parts::inputs(shards)?
        {
            return Ok(inputs.into_iter().map(Read::Recorded).collect());
        }
        let config = settings(self, shards.as_deref())?;
        let mut catalogue = Catalogue::open(&config.catalogue, &Numbering::default())?;
        if let Some(shard) = config.shard {
            catalogue.take(shard, config.shard_by);
        }
        let mut model = if config.from == LabelSource::Model { Model::reads(&config.model)? } else { Vec::new() };
        let ranges = config.model.join(INT8_FILE);
        if config.from == LabelSource::Model && config.may_be_int8() && ranges.is_file() {
            model.push(ranges);
        }
        let embedder = config.embedder.as_deref().map(Parser::reads).transpose()?.unwrap_or_default();
        Ok(model.into_iter().chain(embedder).map(Read::File).chain(catalogue.reads()).collect())
    }

    fn delta_part(&self) -> Option<fn(&Path) -> bool> {
        let is_whole = self.table == TableForm::Delta && self.shard.is_none();
        is_whole.then_some(table::is_part)
    }

    fn unread_by_merge(&self, shards: &[&Summary]) -> Option<fn(&Path) -> bool> {
        merge_parts::unread(self, shards)
    }

    fn known(folder: &Path) -> Listing {
        earlier::listing(folder)
    }

    fn run(&self, common: &Common) -> Result<Outcome> {
        run(self, common)
    }
}

/// Segments the catalogue, or one shard of it, into the feature table; or merges the tables of all shards.
///
/// # Errors
/// Invalid settings, catalogues, models and shards, by name.
pub fn run(config: &Config, common: &Common) -> Result<Outcome> {
    config::check_values(config)?;
    let model = config::open_model(config, &common.gates)?;
    model.as_ref().map_or(Ok(()), |(model, _)| config::check_labels(config, model))?;
    let networks = Networks { model, embedder: config::open_embedder(config, &common.gates)? };
    let shards = shards_to_merge(config)?;
    let config = &settings(config, shards.as_deref())?;
    if common.dry_run {
        return dry_run(config, common, networks, shards.as_deref()).map(Outcome::Planned);
    }
    let kept: &[&str] = if config.keeps_masks() { &[UNFINISHED, masks::FOLDER] } else { &[UNFINISHED] };
    let mut stage = Stage::begin_again(STAGE, &config.folder(), common, config, kept)?;
    stage.create_folder(layout::STATE_FOLDER)?;
    let mut written = match shards {
        Some(shards) => merge_features::merge(config, shards, &mut stage)?,
        None => segment(config, common, networks, &mut stage)?,
    };
    stage.remove_before_publishing(UNFINISHED);
    if config.masks != Masks::None {
        let model_id = written.model_id.as_deref().unwrap_or("lookbook");
        let masks =
            annotations::write(config, &stage, &written.labels, written.parts, written.uncertain.as_ref(), model_id)?;
        stage.count("masks", masks);
    }
    rejects::write(&stage.path(layout::REJECTS_FILE), STAGE, &written.rejects)?;
    stage.count("rejects_by_reason", by_reason(&written.rejects));
    let rejected = written.rejects.len() as u64;
    let photos = count_table(config, common, &mut written, &mut stage)?;
    // A shard never has too many rejects: the merge judges the whole.
    let allowed = if config.shard.is_some() { 1.0 } else { config.max_reject_fraction };
    stage.publish_with_rejects(rejected, photos + rejected, allowed, layout::REJECTS_FILE)
}

/// The shards, if they are to be merged.
fn shards_to_merge(config: &Config) -> Result<Option<Vec<(OpenFolder, Summary)>>> {
    config.merge.then(|| shard::published::<Config>(&config.output)).transpose()
}

/// The settings: those of the shards, if these are merged.
fn settings(config: &Config, shards: Option<&[(OpenFolder, Summary)]>) -> Result<Config> {
    shards.map_or_else(|| Ok(config.clone()), |it| merge_features::settings(config, it))
}

/// Number of rejects by reason.
fn by_reason(rejects: &[Reject]) -> serde_json::Value {
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    for reject in rejects {
        *counts.entry(&reject.reason).or_default() += 1;
    }
    json!(counts)
}

/// Segments what is new, reuses earlier results for the rest, and writes the parts.
fn segment(config: &Config, common: &Common, networks: Networks, stage: &mut Stage) -> Result<Written> {
    let mut counter = Counter::load(config, common, networks, stage)?;
    let (mut predictor, mut embedder) = (counter.predictor.take(), counter.embedder.take());
    let embedding = embedder.as_ref().map(embedding_of);
    let plan = Plan::new(config, &counter.made_by, embedding)?;
    tell_passed_over(&plan.catalogue);
    let wanted = plan.wanted;
    let reads = plan.catalogue.reads();
    let (lists, photos): (Vec<_>, Vec<_>) = reads.iter().partition(|it| matches!(it, Read::File(_)));
    lists.into_iter().try_for_each(|list| stage.input(list, &Listing::default()).map(drop))?;
    let masks_were_left = stage.path(masks::FOLDER).exists();
    let todo = plan.todo();
    if todo.len() >= config.keep_every_photos {
        stage.keep_unfinished();
    }
    let model_id = predictor.as_ref().map_or(LABELS_MODEL_ID, Predictor::model_id).to_owned();
    let work = stream::Work {
        config,
        catalogue: &plan.catalogue,
        earlier: &plan.earlier,
        counter: &counter,
        wanted,
        masks: wanted.mask.then(|| stage.path(masks::FOLDER)),
        layout: predictor.as_ref().map(|it| it.layout().clone()),
        embedder: embedder.as_ref().map(|it| it.layout().clone()),
        model_id: &model_id,
    };
    let mut parts = plan.parts(config, stage)?;
    let mut writer = Writer::new(&mut parts);
    let progress = Progress::new(STAGE, todo.len() as u64, "photos");
    let networks = (predictor.as_mut(), embedder.as_mut());
    stream::run(&work, networks, plan.catalogue.items(&todo, work.layout.is_none())?, common.threads, |outcome| {
        progress.inc(1);
        writer.push(outcome)
    })?;
    let mut written = writer.close()?;
    written.model_id = Some(model_id.clone());
    if config.uncertain > 0 {
        let chosen = uncertain::choose(config, stage, written.parts)?;
        uncertain::write_masks(&chosen, &work, predictor.as_mut(), stage, common)?;
        written.uncertain = Some(chosen.contents);
    }
    if masks_were_left {
        masks::retain(&stage.path(masks::FOLDER), &written.masks)?;
    }
    if config.shard.is_none() || plan.whole_parts.is_some() {
        let is_its = |it: &StateRow| plan::is_its(config, &plan.catalogue, &it.name, it.photo_id);
        written.vanished = vanished::write(&plan.parts(config, stage)?, &plan.earlier, stage, &is_its)?;
    }
    if let Some(whole) = &plan.whole_parts {
        WholeParts { places: written.places.clone(), vanished: written.vanished, ..whole.clone() }.count(stage);
    }
    for photos in photos {
        stage.record(written.listing.record(photos.path()));
    }
    count_written(stage, &written, &plan);
    Ok(written)
}

/// Says which files of a folder tree were passed over because of their names.
fn tell_passed_over(catalogue: &Catalogue) {
    let counts: Vec<String> = catalogue.passed_over.iter().map(|(ending, count)| format!("{count} {ending}")).collect();
    if !counts.is_empty() {
        tracing::info!(
            "{}: passed over files without the ending of a photo: {}",
            catalogue.path().display(),
            counts.join(", ")
        );
    }
}

/// Reports what would be done, judging by names, sizes and times; files are read only if these differ.
fn dry_run(
    config: &Config,
    common: &Common,
    networks: Networks,
    shards: Option<&[(OpenFolder, Summary)]>,
) -> Result<Summary> {
    let mut summary = stage::dry_run(STAGE, &config.folder(), common, config)?;
    if let Some([first, ..]) = shards {
        let earlier = plan::published(config, &merge_features::labels(first)?)?;
        let (catalogue, _) = plan::open_catalogue(config, &earlier)?;
        summary.counts.set("photos", catalogue.entries.len());
        return Ok(summary);
    }
    let Networks { model, embedder } = networks;
    let model = model.as_ref().map(|(model, colors)| {
        let precision = model.precision(config.precision(), common.engine(config.device))?.name();
        Ok((model, colors, precision))
    });
    let made_by = MadeBy::new(config, model.transpose()?, embedder.as_ref())?;
    let plan = Plan::new(config, &made_by, None)?;
    let tally = plan.foretell()?;
    let photos = plan.catalogue.entries.len() as u64;
    let counts = [
        ("photos", photos),
        ("known", tally.known + tally.resumed),
        ("new", tally.new),
        ("changed", tally.changed),
        ("outdated", tally.outdated),
        ("vanished", plan.vanished),
        ("kept", tally.kept),
    ];
    for (name, count) in counts {
        summary.counts.set(name, count);
    }
    Ok(summary)
}
