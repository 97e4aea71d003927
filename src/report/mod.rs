//! `report`: what the stages left in the run folder to one page for people: `index.html`, and beside it the data and the
//! thumbnails of its gallery. It needs no network. A part whose stage was not run is left out, and the page says so.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{self, OpenFolder};
use crate::runtime::Device;
use crate::stage::{self, Common, RUN_FILE, Stage, Summary};

mod gallery;
mod measures;
mod nights;
mod page;
mod pictures;
mod svg;

/// Default of [`Config::photos`].
pub const DEFAULT_PHOTOS: usize = 6;
/// Default of [`Config::gallery_photos`].
pub const DEFAULT_GALLERY_PHOTOS: usize = 20_000;
/// Most photos with truth and prediction: the page carries these pictures, and a browser has to hold it.
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
    /// Photos in the gallery at most ([`DEFAULT_GALLERY_PHOTOS`]).
    pub gallery_photos: usize,
    /// Where the network runs.
    pub device: Device,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            run: PathBuf::from("output"),
            output: PathBuf::from("output/report"),
            photos: DEFAULT_PHOTOS,
            gallery_photos: DEFAULT_GALLERY_PHOTOS,
            device: Device::Auto,
        }
    }
}

/// Writes the report folder: `index.html`, its pictures, and the gallery.
///
/// # Errors
/// [`Error::Config`] for a bad setting, [`Error::Input`] where the run folder holds no stage's output or something in it
/// is damaged, [`Error::Runtime`] where the model cannot be run.
pub fn run(config: &Config, common: &Common) -> Result<Summary> {
    check(config)?;
    let run = Run::open(&config.run)?;
    let stages = run.stages()?;
    if common.dry_run {
        let mut planned = stage::dry_run("report", &config.output, common, config)?;
        planned.counts.insert("stages".to_owned(), stages.len().into());
        return Ok(planned);
    }
    let mut stage = Stage::begin("report", &config.output, common, config)?;
    run.record(&mut stage)?;
    let mut page = page::Page::new(&run, &stages)?;
    pictures::segmentations(&mut page, &run, config, common, &mut stage)?;
    page.gallery = gallery::write(&run, config, &stage)?.map(page::GalleryPart::new);
    page.measures = measures::compare(&run, common, &stage)?;
    files::write(&stage.path("index.html"), page.render()?.as_bytes())?;
    stage.count("photos", page.segmentations.as_ref().map_or(0, |part| part.photos.len()));
    stage.count("gallery_photos", page.gallery.as_ref().map_or(0, |part| part.shown));
    stage.count("parts_left_out", page.left_out());
    stage.publish()
}

/// The folders of a run that are published, each opened once.
struct Run {
    name: PathBuf,
    /// In the order of the flow.
    folders: Vec<(&'static str, OpenFolder)>,
}

impl Run {
    fn open(name: &Path) -> Result<Self> {
        let published = FOLDERS.into_iter().filter(|it| name.join(it).join(RUN_FILE).is_file());
        let folders = published.map(|it| Ok((it, OpenFolder::open(&name.join(it))?))).collect::<Result<Vec<_>>>()?;
        if folders.is_empty() {
            let problem = "holds no stage's output (dataset/, model/, ...); run `make all` or a stage first";
            return Err(Error::input(name, problem));
        }
        Ok(Self { name: name.to_owned(), folders })
    }

    /// The folder of a stage, by way of its descriptor; `None` if it is not published.
    fn folder(&self, name: &str) -> Option<&Path> {
        self.folders.iter().find(|(it, _)| *it == name).map(|(_, folder)| folder.root())
    }

    /// A file of the folder of a stage, if there is one.
    fn file(&self, folder: &str, file: &str) -> Option<PathBuf> {
        Some(self.folder(folder)?.join(file)).filter(|it| it.is_file())
    }

    /// The records of the stages.
    fn stages(&self) -> Result<Vec<Summary>> {
        self.folders.iter().map(|(_, folder)| Summary::read(folder.root())).collect()
    }

    /// The records of the stages stand for what they published.
    fn record(&self, stage: &mut Stage) -> Result<()> {
        self.folders.iter().try_for_each(|(_, folder)| stage.input_of(folder, RUN_FILE).map(drop))
    }
}

fn check(config: &Config) -> Result<()> {
    if config.photos > MAX_PHOTOS {
        let problem = format!("is {}; at most {MAX_PHOTOS} go onto one page", config.photos);
        return Err(Error::config("report.photos", problem));
    }
    Ok(())
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
        assert_eq!(summary.counts["parts_left_out"], 6);
        let html = std::fs::read_to_string(config.output.join("index.html")).expect("the page");
        for wanted in ["photo_truncated", "lookbook train", "lookbook similarity", "&lt;b&gt;"] {
            assert!(html.contains(wanted), "{wanted} is not on the page");
        }
        Ok(())
    }
}
