//! `report`: what the stages left in the run folder to one self-contained HTML page for people, with its pictures also as
//! files beside it. A part whose stage was not run is left out, and the page says so.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::runtime::Device;
use crate::stage::{self, Common, RUN_FILE, Stage, Summary};

mod page;
mod pictures;

/// Default of [`Config::photos`].
pub const DEFAULT_PHOTOS: usize = 6;
/// Default of [`Config::neighbour_photos`].
pub const DEFAULT_NEIGHBOUR_PHOTOS: usize = 4;
/// Default of [`Config::neighbours`].
pub const DEFAULT_NEIGHBOURS: usize = 5;
/// Most photos of either kind: the page carries its pictures, and a browser has to hold it.
pub const MAX_PHOTOS: usize = 100;

/// Folders of a run in the order of the flow.
const FOLDERS: [&str; 5] = ["sample", "dataset", "model", "features", "similarity"];

/// Settings of `report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder that holds the folders of the stages.
    pub run: PathBuf,
    /// The folder of the page.
    pub output: PathBuf,
    /// Photos shown with truth and prediction: [`DEFAULT_PHOTOS`], at most [`MAX_PHOTOS`].
    pub photos: usize,
    /// Photos shown with their neighbours: [`DEFAULT_NEIGHBOUR_PHOTOS`], at most [`MAX_PHOTOS`].
    pub neighbour_photos: usize,
    /// Neighbours shown of each: [`DEFAULT_NEIGHBOURS`].
    pub neighbours: usize,
    /// Where the network runs.
    pub device: Device,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            run: PathBuf::from("output"),
            output: PathBuf::from("output/report"),
            photos: DEFAULT_PHOTOS,
            neighbour_photos: DEFAULT_NEIGHBOUR_PHOTOS,
            neighbours: DEFAULT_NEIGHBOURS,
            device: Device::Auto,
        }
    }
}

/// Writes the report folder: `index.html` and its pictures.
///
/// # Errors
/// [`Error::Config`] for a bad setting, [`Error::Input`] where the run folder holds no stage's output or something in it
/// is damaged, [`Error::Runtime`] where the model cannot be run.
pub fn run(config: &Config, common: &Common) -> Result<Summary> {
    check(config)?;
    let stages = published(&config.run)?;
    if common.dry_run {
        let mut planned = stage::planned("report", &config.output, common, config);
        planned.counts.insert("stages".to_owned(), stages.len().into());
        return Ok(planned);
    }
    let mut stage = Stage::begin("report", &config.output, common, config)?;
    let mut page = page::Page::new(&config.run, &stages);
    page.history = page::history(&config.run)?;
    page.evaluation = page::evaluation(&config.run)?;
    page.shares = page::shares(&config.run)?;
    page.rejects = page::rejects(&config.run)?;
    pictures::learning_curve(&mut page, &stage)?;
    pictures::segmentations(&mut page, config, common, &mut stage)?;
    pictures::neighbours(&mut page, config, &stage)?;
    stage::write_file(&stage.path("index.html"), page.render()?.as_bytes())?;
    for input in
        FOLDERS.map(|folder| format!("{folder}/{RUN_FILE}")).iter().chain([&"model/evaluation.json".to_owned()])
    {
        let path = config.run.join(input);
        if path.is_file() {
            stage.input(&path)?;
        }
    }
    stage.count("photos", page.segmentations.as_ref().map_or(0, |part| part.photos.len()));
    stage.count("contact_sheets", page.neighbours.as_ref().map_or(0, Vec::len));
    stage.count("parts_left_out", page.left_out());
    stage.publish()
}

fn check(config: &Config) -> Result<()> {
    for (setting, value) in [("report.photos", config.photos), ("report.neighbour_photos", config.neighbour_photos)] {
        if value > MAX_PHOTOS {
            return Err(Error::config(setting, format!("is {value}; at most {MAX_PHOTOS} go onto one page")));
        }
    }
    if config.neighbours > MAX_PHOTOS {
        return Err(Error::config("report.neighbours", format!("is {}; at most {MAX_PHOTOS}", config.neighbours)));
    }
    Ok(())
}

/// The records of the stages that are there, in the order of the flow.
fn published(run: &Path) -> Result<Vec<Summary>> {
    let folders = FOLDERS.iter().map(|name| run.join(name)).filter(|folder| folder.join(RUN_FILE).is_file());
    let stages = folders.map(|folder| Summary::read(&folder)).collect::<Result<Vec<_>>>()?;
    if stages.is_empty() {
        return Err(Error::input(
            run,
            "holds no stage's output (dataset/, model/, ...); run `make all` or a stage first",
        ));
    }
    Ok(stages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_run_folder_is_refused_by_name() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let config = Config { run: place.path().to_owned(), output: place.path().join("report"), ..Config::default() };
        let refused = run(&config, &Common::default()).expect_err("nothing to report");
        assert!(refused.to_string().contains("make all"), "{refused}");
        assert!(!config.output.exists());
    }

    #[test]
    fn too_many_photos_are_a_usage_error() {
        let config = Config { photos: 1000, ..Config::default() };
        assert_eq!(run(&config, &Common::default()).expect_err("too many").exit_code(), 2);
    }

    #[test]
    fn the_page_of_a_dataset_alone_says_what_is_left_out() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let dataset = place.path().join("dataset");
        let mut stage = Stage::begin("convert", &dataset, &Common::default(), &serde_json::json!({ "ratio": "<b>" }))?;
        stage.count("photos", 64);
        let rejected = crate::table::rejects::Reject::new("a.jpg", "photo_truncated", "cut off");
        crate::table::rejects::write(&stage.path(crate::table::rejects::FILE), "convert", &[rejected])?;
        stage.publish()?;
        let config = Config { run: place.path().to_owned(), output: place.path().join("report"), ..Config::default() };
        let planned = run(&config, &Common { dry_run: true, ..Common::default() })?;
        assert!(planned.dry_run && !config.output.exists());
        let summary = run(&config, &Common::default())?;
        assert_eq!(summary.counts["parts_left_out"], 5);
        let html = std::fs::read_to_string(config.output.join("index.html")).expect("the page");
        for wanted in ["photo_truncated", "lookbook train", "lookbook similarity", "&lt;b&gt;"] {
            assert!(html.contains(wanted), "{wanted} is not on the page");
        }
        Ok(())
    }
}
