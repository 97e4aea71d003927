//! `recommend --photos`: the recommendations of many photos, as a table.
//!
//! In: a catalogue of photos, and what `recommend` reads for one. Out: `recommendations.parquet`, `rejects.parquet` and
//! `run.json`. Photos are streamed as by `segment`: beside the feature table, memory holds a few photos and, for each thread, the
//! correlations of one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::catalogue::{Catalogue, Item, Numbering};
use crate::color::ColorTable;
use crate::error::{Error, Result};
use crate::features::CellRule;
use crate::files::{OpenFolder, hexadecimal};
use crate::model::Model;
use crate::model::layout::{Answer, Layout};
use crate::model::stream::{self, OnCanvas, Prepared};
use crate::parser::{self, Parser};
use crate::photo::{MAX_PIXELS, PhotoProblem};
use crate::progress::Progress;
use crate::rejects::{self, Reject};
use crate::stage::{self, Common, Digest, Listing, Outcome, Read, RunFolders, Stage, StageConfig, Stat};
use crate::table;

use super::adviser::{Eyes, cells_of};
use super::answer::Recommended;
use super::config::{Config, STAGE};
use super::duplicates;
use super::networks::Opened;
use super::shelf::{Look, Shelf};
use super::tables::{self, RECOMMENDATIONS_FILE, Writer};

/// Photos whose recommendations are written at a time.
const PHOTOS_AT_A_TIME: usize = 1024;

impl StageConfig for Config {
    const NAME: &'static str = STAGE;
    const WITHOUT_EFFECT: &'static [&'static str] = &[
        "model",
        "embedder",
        "features",
        "metadata",
        "interactions",
        "duplicates",
        "photos",
        "max_reject_fraction",
        "output",
        "device",
        "format",
    ];

    fn folder(&self) -> PathBuf {
        self.output.clone().unwrap_or_default()
    }

    fn in_run(run: &RunFolders) -> Vec<(&'static str, PathBuf)> {
        ["model", "features"].map(|name| (name, run.folder(name))).to_vec()
    }

    fn check(&self) -> Result<()> {
        places(self)?;
        self.checked().map(drop)
    }

    fn reads(&self) -> Result<Vec<Read>> {
        let photos = self.photos.as_ref().map(|it| Catalogue::open(it, &Numbering::default())).transpose()?;
        let photos = photos.iter().flat_map(Catalogue::reads);
        Ok(files_read(self)?.into_iter().map(Read::File).chain(photos).collect())
    }

    fn run(&self, common: &Common) -> Result<Outcome> {
        run(self, common)
    }
}

/// What is read besides the photos.
fn files_read(config: &Config) -> Result<Vec<PathBuf>> {
    let embedder = config.embedder.as_deref().map(Parser::reads).transpose()?;
    let groups = config.groups_of_duplicates().map(duplicates::file);
    let models = Model::reads(&config.model)?.into_iter().chain(embedder.into_iter().flatten());
    let own = [&config.metadata, &config.interactions].map(Clone::clone).into_iter().flatten();
    let tables = table::parts(&config.features)?.into_iter().chain(own).chain(groups);
    Ok(models.chain(tables).collect())
}

/// Recommends looks for all photos of `config.photos` and publishes the table.
///
/// # Errors
/// Errors that name the invalid setting, list, model or feature table. A photo that is invalid is a reject.
pub fn run(config: &Config, common: &Common) -> Result<Outcome> {
    let condition = config.checked()?;
    let (photos, output) = places(config)?;
    let catalogue = Catalogue::open(photos, &Numbering::default())?;
    let folder = OpenFolder::open(&config.features)?;
    let shelf = Shelf::open(config, condition.as_ref(), &folder)?;
    let opened = Opened::new(config, &shelf.features, common)?;
    if common.dry_run {
        let mut summary = stage::dry_run(STAGE, output, common, config)?;
        summary.counts.set("photos", catalogue.entries.len());
        return Ok(Outcome::Planned(summary));
    }
    let mut stage = Stage::begin(STAGE, output, common, config)?;
    for file in files_read(config)? {
        stage.input(&Read::File(file), &Listing::default())?;
    }
    let eyes = opened.eyes(config, &folder, common)?;
    stage.backend(eyes.predictor.backend());
    let tally = answer_all(&catalogue, &shelf, eyes, common, &stage)?;
    record(&catalogue, &tally, &mut stage)?;
    let (rejected, photos) = (tally.rejects.len() as u64, tally.photos);
    stage.publish_with_rejects(rejected, photos + rejected, config.max_reject_fraction, rejects::FILE)
}

/// The photos, and the folder to write to.
fn places(config: &Config) -> Result<(&Path, &Path)> {
    let missing = |setting: &str, problem: &str| Error::config(format!("recommend.{setting}"), problem);
    let photos = config.photos.as_deref();
    let photos = photos.ok_or_else(|| missing("photos", "is not set; name photos, or a list or folder of them"))?;
    let output = config.output.as_deref();
    let output = output.ok_or_else(|| missing("output", "is not set; name the folder to write the table to"))?;
    Ok((photos, output))
}

/// What is counted while photos are answered.
#[derive(Default)]
struct Tally {
    photos: u64,
    without_apparel: u64,
    without_neighbours: u64,
    recommendations: u64,
    rejects: Vec<Reject>,
    listing: Listing,
}

/// Answers the photos and writes the table of what is recommended, in the order of the catalogue.
fn answer_all(catalogue: &Catalogue, shelf: &Shelf, eyes: Eyes, common: &Common, stage: &Stage) -> Result<Tally> {
    let Eyes { rule, colors, mut predictor, mut embedder } = eyes;
    let layout = predictor.layout().clone();
    let for_embedder = embedder.as_ref().map(|it| it.layout().clone());
    let work = Work { catalogue, shelf, rule, colors, layout, for_embedder };
    let all: Vec<u32> = (0..catalogue.entries.len() as u32).collect();
    let progress = Progress::new(STAGE, all.len() as u64, "photos");
    let mut answers = Answers {
        catalogue,
        writer: Writer::create(&stage.path(RECOMMENDATIONS_FILE))?,
        waiting: BTreeMap::new(),
        next: 0,
        ready: Vec::new(),
        tally: Tally { rejects: catalogue.rejects.clone(), ..Tally::default() },
    };
    let networks = (Some(&mut predictor), embedder.as_mut());
    stream::run(&work, networks, catalogue.items(&all, false)?, common.threads, |answered| {
        progress.inc(1);
        answers.push(answered)
    })?;
    answers.close()
}

fn record(catalogue: &Catalogue, tally: &Tally, stage: &mut Stage) -> Result<()> {
    for read in catalogue.reads() {
        if let Read::Files { path, .. } = &read {
            tally.listing.write(&stage.path(""))?;
            stage.record(tally.listing.record(path));
        } else {
            stage.input(&read, &Listing::default())?;
        }
    }
    rejects::write(&stage.path(rejects::FILE), STAGE, &tally.rejects)?;
    let counts = [
        ("photos", tally.photos),
        ("recommendations", tally.recommendations),
        ("photos_without_apparel", tally.without_apparel),
        ("photos_without_neighbours", tally.without_neighbours),
        ("rejects", tally.rejects.len() as u64),
    ];
    for (name, count) in counts {
        stage.count(name, count);
    }
    Ok(())
}

/// What the workers need.
struct Work<'a> {
    catalogue: &'a Catalogue,
    shelf: &'a Shelf,
    rule: CellRule,
    colors: ColorTable,
    layout: Layout,
    for_embedder: Option<Arc<parser::Layout>>,
}

/// A photo while the network has it.
struct Query {
    index: u32,
    stat: Option<Stat>,
    content: Digest,
}

/// What became of a photo.
struct Answered {
    index: u32,
    stat: Option<Stat>,
    content: Option<Digest>,
    made: Result<Advice, PhotoProblem>,
}

/// What is recommended for a photo.
struct Advice {
    has_apparel: bool,
    neighbours: Vec<Recommended>,
}

impl stream::Work for Work<'_> {
    type Item = Item;
    type Photo = Query;
    type Outcome = Answered;

    fn has_stored(&self) -> bool {
        self.catalogue.has_stored()
    }

    fn prepare(&self, item: &Item) -> Result<Prepared<Query, Answered>> {
        let index = item.index;
        let rejected =
            |stat, content, problem| Ok(Prepared::Done(Answered { index, stat, content, made: Err(problem) }));
        let (stat, bytes) = match stream::read_item(self.catalogue, item) {
            Ok(read) => read,
            Err(problem) => {
                let path = self.catalogue.path_of(&self.catalogue.entries[index as usize]);
                return problem.limit(&path).map_or_else(|| rejected(None, None, problem), Err);
            }
        };
        let content: Digest = Sha256::digest(&bytes).into();
        match self.layout.read_for(&bytes, MAX_PIXELS, self.for_embedder.as_deref()) {
            Ok((decoded, laid, for_embedder)) => {
                let of = Query { index, stat, content };
                Ok(Prepared::OnCanvas(Box::new(OnCanvas { of, decoded, laid, for_embedder })))
            }
            Err(problem) => rejected(stat, Some(content), problem),
        }
    }

    fn count(&self, it: &OnCanvas<Query>, answer: &Answer, embedding: Option<Vec<f32>>) -> Result<Answered> {
        let Query { index, stat, content } = it.of;
        let photo = &it.decoded.photo;
        let name = &self.catalogue.entries[index as usize].name;
        let label_map = self.layout.label_map(&it.laid, answer, photo.size(), name)?;
        let cells = cells_of(&self.colors, photo, &label_map, self.rule);
        let has_apparel = cells.iter().any(|share| *share > 0.0);
        let look = Look { cells, digest: hexadecimal(&content), embedding };
        let advice = Advice { has_apparel, neighbours: self.shelf.recommend(&look) };
        Ok(Answered { index, stat, content: Some(content), made: Ok(advice) })
    }
}

/// Answers as they come, written in the order of the photos.
struct Answers<'a> {
    catalogue: &'a Catalogue,
    writer: Writer,
    /// Those that came before an earlier one: few, since photos are read in order.
    waiting: BTreeMap<u32, Answered>,
    next: u32,
    /// To be written.
    ready: Vec<tables::Row>,
    tally: Tally,
}

impl Answers<'_> {
    fn push(&mut self, answered: Answered) -> Result<()> {
        self.waiting.insert(answered.index, answered);
        while let Some(answered) = self.waiting.remove(&self.next) {
            self.next += 1;
            self.add(answered);
        }
        if self.ready.len() >= PHOTOS_AT_A_TIME { self.write() } else { Ok(()) }
    }

    fn add(&mut self, answered: Answered) {
        let entry = &self.catalogue.entries[answered.index as usize];
        let path = self.catalogue.path_of(entry).to_string_lossy().into_owned();
        self.tally.listing.add(entry.name.clone(), answered.stat, answered.content);
        match answered.made {
            Err(problem) => self.tally.rejects.push(Reject::new(path, problem.reason, problem.detail)),
            Ok(advice) => {
                self.tally.photos += 1;
                self.tally.without_apparel += u64::from(!advice.has_apparel);
                self.tally.without_neighbours += u64::from(advice.neighbours.is_empty());
                self.tally.recommendations += advice.neighbours.len() as u64;
                self.ready.push(tables::Row { photo_id: entry.photo_id, path, neighbours: advice.neighbours });
            }
        }
    }

    fn write(&mut self) -> Result<()> {
        self.writer.write(&std::mem::take(&mut self.ready))
    }

    fn close(mut self) -> Result<Tally> {
        for answered in std::mem::take(&mut self.waiting).into_values() {
            self.add(answered);
        }
        self.write()?;
        self.writer.close()?;
        Ok(self.tally)
    }
}
