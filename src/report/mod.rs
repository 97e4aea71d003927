//! `report`: turns the output of the stages into one page, `index.html`, with the data and the thumbnails of its
//! gallery in files next to it. It needs no network connection. Sections whose stage was not run are left out, and the
//! page says so.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::files;
use crate::stage::{self, Common, Outcome, Read, RunFolders, Stage, StageConfig};

mod config;
mod figures;
mod gallery;
mod measures;
mod neighbours;
mod nights;
mod page;
mod run;
mod segmentations;

pub use config::{Config, DEFAULT_GALLERY_PHOTOS, DEFAULT_PHOTOS, MAX_PHOTOS, STAGE};
use gallery::Shown;
use run::Run;

impl StageConfig for Config {
    const NAME: &'static str = STAGE;
    const SEEDED: bool = true;
    const WITHOUT_EFFECT: &'static [&'static str] = &["run", "model", "output", "metadata", "duplicates", "device"];

    fn folder(&self) -> PathBuf {
        self.output.clone()
    }

    fn in_run(run: &RunFolders) -> Vec<(&'static str, PathBuf)> {
        vec![("run", run.output.to_owned()), ("output", run.folder("report"))]
    }

    fn check(&self) -> Result<()> {
        if self.photos > MAX_PHOTOS {
            let problem = format!("is {}; at most {MAX_PHOTOS} go onto one page", self.photos);
            return Err(Error::config("report.photos", problem));
        }
        Ok(())
    }

    fn reads(&self) -> Result<Vec<Read>> {
        let run = Run::open(self)?;
        Ok(run.records().chain(run.files_beside()?).map(Read::File).collect())
    }

    fn run(&self, common: &Common) -> Result<Outcome> {
        run(self, common)
    }
}

/// Writes the report folder: `index.html`, its pictures, and the gallery.
///
/// # Errors
/// [`Error::Config`] for an invalid setting, [`Error::Input`] if the run folder
/// holds no output of a stage or something in it is damaged, [`Error::Runtime`] if the model cannot
/// be run.
pub fn run(config: &Config, common: &Common) -> Result<Outcome> {
    config.check()?;
    let run = Run::open(config)?;
    let stages = run.stages()?;
    if common.dry_run {
        let mut planned = stage::dry_run(STAGE, &config.output, common, config)?;
        planned.counts.set("stages", stages.len());
        return Ok(Outcome::Planned(planned));
    }
    let gallery = Shown::read(&run, config)?;
    let mut stage = Stage::begin(STAGE, &config.output, common, config)?;
    run.record(&mut stage)?;
    let mut page = page::Page::new(&run, &stages)?;
    let sheet = segmentations::add(&mut page, &run, config, common, &mut stage)?;
    page.gallery = gallery.as_ref().map(|it| page::GalleryPart::new(it.count(&mut stage)));
    let drawn = rayon::join(
        || gallery.map_or(Ok(()), |it| it.write(&run, &stage)),
        || {
            rayon::join(
                || sheet.map_or(Ok(()), |it| segmentations::write(&it, &stage)),
                || rayon::join(|| neighbours::compare(&run, &stage), || measures::compare(&run, common, &stage)),
            )
        },
    );
    let (gallery_written, (sheet_written, (neighbours, measures))) = drawn;
    gallery_written.and(sheet_written)?;
    (page.neighbours, page.measures) = (neighbours?, measures?);
    files::write(&stage.path("index.html"), page.render()?.as_bytes())?;
    stage.count(
        "photos",
        page.segmentations.as_ref().map_or(0, |it| it.groups.iter().map(|group| group.photos.len()).sum()),
    );
    stage.count("gallery_photos", page.gallery.as_ref().map_or(0, |part| part.shown));
    stage.count("parts_left_out", page.left_out());
    stage.publish()
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
        let rejected = crate::rejects::Reject::new("a.jpg", "photo_truncated", "cut off");
        crate::rejects::write(&stage.path(crate::rejects::FILE), "convert", &[rejected])?;
        stage.publish()?.published().expect("no gate is set");
        let config = Config { run: place.path().to_owned(), output: place.path().join("report"), ..Config::default() };
        let planned = run(&config, &Common { dry_run: true, ..Common::default() })?;
        assert!(matches!(planned, Outcome::Planned(_)) && !config.output.exists());
        let summary = run(&config, &Common::default())?.published().expect("no gate is set");
        assert_eq!(summary.counts["parts_left_out"], 7);
        let html = std::fs::read_to_string(config.output.join("index.html")).expect("the page");
        for wanted in ["photo_truncated", "lookbook train", "lookbook similarity", "&lt;b&gt;"] {
            assert!(html.contains(wanted), "{wanted} is not on the page");
        }
        Ok(())
    }
}
