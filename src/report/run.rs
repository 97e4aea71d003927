//! The folders of a run, as read for the page.

use std::path::{Path, PathBuf};

use super::config::Config;
use crate::error::{Error, Result};
use crate::features::layout;
use crate::files::OpenFolder;
use crate::model::Model;
use crate::model::evaluation::EVALUATION_FILE;
use crate::rejects;
use crate::stage::{Listing, RUN_FILE, Read, Stage, Summary};

/// Folders of a run, in pipeline order.
const FOLDERS: [&str; 6] = ["sample", "dataset", "model", "features", "similarity", "duplicates"];

/// The folders of a run that are published, each opened once.
pub(super) struct Run {
    pub(super) name: PathBuf,
    /// In pipeline order.
    pub(super) folders: Vec<(&'static str, OpenFolder)>,
    /// The folder that is shown as the model, if it is not that of the run.
    model: Option<PathBuf>,
    /// The folder of the duplicates, if it is not that of the run.
    duplicates: Option<PathBuf>,
    /// A table of the user's own.
    metadata: Option<PathBuf>,
}

impl Run {
    pub(super) fn open(config: &Config) -> Result<Self> {
        let name = &config.run;
        let published = FOLDERS.into_iter().filter(|it| name.join(it).join(RUN_FILE).is_file());
        let folders = published.map(|it| Ok((it, OpenFolder::open(&name.join(it))?))).collect::<Result<Vec<_>>>()?;
        if folders.is_empty() {
            let problem =
                "holds no output of any stage (dataset/, model/, ...); run `lookbook run`, `make all` or a stage first";
            return Err(Error::input(name, problem));
        }
        let Config { model, duplicates, metadata, .. } = config.clone();
        Ok(Self { name: name.clone(), folders, model, duplicates, metadata })
    }

    /// The records of the stages by their places.
    pub(super) fn records(&self) -> impl Iterator<Item = PathBuf> {
        self.folders.iter().map(|(name, _)| self.name.join(name).join(RUN_FILE))
    }

    /// What is shown beside the run: the files of the folder that is shown as the model, with its evaluation, the record of the
    /// duplicates, and the metadata.
    pub(super) fn files_beside(&self) -> Result<Vec<PathBuf>> {
        let mut files = self.model.as_deref().map(Model::reads).transpose()?.unwrap_or_default();
        files.extend(self.model.iter().map(|it| it.join(EVALUATION_FILE)).filter(|it| it.is_file()));
        files.extend(self.duplicates.iter().map(|it| it.join(RUN_FILE)));
        files.extend(self.metadata.clone());
        Ok(files)
    }

    /// The folder of a stage, as a path through its descriptor, or the folder that is shown in its place; `None` if it is not
    /// published.
    pub(super) fn folder(&self, name: &str) -> Option<&Path> {
        let instead = [("model", &self.model), ("duplicates", &self.duplicates)];
        if let Some(folder) = instead.into_iter().find(|it| it.0 == name).and_then(|it| it.1.as_deref()) {
            return Some(folder);
        }
        self.folders.iter().find(|(it, _)| *it == name).map(|(_, folder)| folder.root())
    }

    /// A file of the folder of a stage, if there is one.
    pub(super) fn file(&self, folder: &str, file: &str) -> Option<PathBuf> {
        Some(self.folder(folder)?.join(file)).filter(|it| it.is_file())
    }

    /// The table of rejects in `folder`, which is called `name`, if there is one.
    pub(super) fn rejects(name: &str, folder: &OpenFolder) -> Result<Option<PathBuf>> {
        let is_features = name == "features";
        let table = if is_features { layout::find(folder.root(), layout::REJECTS_FILE)? } else { rejects::FILE.into() };
        Ok(Some(folder.path(table)).filter(|it| it.is_file()))
    }

    /// The records of the stages.
    pub(super) fn stages(&self) -> Result<Vec<Summary>> {
        self.folders.iter().map(|(_, folder)| Summary::read(folder.root())).collect()
    }

    /// Records the stages' `run.json` files as inputs, which stand for what the stages published, and what is shown beside.
    pub(super) fn record(&self, stage: &mut Stage) -> Result<()> {
        self.folders.iter().try_for_each(|(_, folder)| stage.input_of(folder, RUN_FILE).map(drop))?;
        let files = self.files_beside()?.into_iter().map(Read::File);
        files.into_iter().try_for_each(|it| stage.input(&it, &Listing::default()).map(drop))
    }
}
