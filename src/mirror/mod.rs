//! Published folders in object stores, of which stages use local copies.
//!
//! A stage reads and publishes folders of a file system. If its settings name URLs, [`Mirror::here`] downloads what has
//! changed there since the last time, the stage works on the copies, and [`Mirror::around`] uploads what it published as a
//! new version (`versions`). The photos of a catalogue are not copied: `segment` reads them from the store. Neither are the
//! parts of shards that a merge takes over unread: the copy has an outline of each, a file of its size without content, and
//! the store itself copies them into the new version.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result, show_as_urls};
use crate::files;
use crate::stage::{self, Common, Depth, RUN_FILE, StageConfig, Summary};
use crate::store::{self, Location, Object, Source};

mod versions;

use versions::{Folder, VERSIONS};

/// The settings that name a catalogue, whose photos are not copied.
const CATALOGUES: [&str; 2] = ["catalogue", "photos"];
/// The settings that name a table of the user's own, which is read where it lies.
const OWN_TABLES: [&str; 2] = ["metadata", "interactions"];
/// The setting that names a run folder, which holds the stages' folders.
const RUN: &str = "run";
/// How long to wait for another process that is downloading the same folder.
const COPY_WAIT: Duration = Duration::from_mins(1);
/// Why a run whose folder another run published first did not publish.
const OVERTAKEN: &str = "another run published here while this one was working; what that one published stays";
/// Prefix of the URL of a local file.
const FILE_SCHEME: &str = "file://";

/// What a copy was downloaded from; kept in a file beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Copied {
    /// A version of a published folder.
    Version(String),
    /// The same, with outlines in place of some files: to everybody but a merge, nothing is here.
    Outline(String),
    /// A stage replaced the copy of this version (`None` if there was none), and its result has not been uploaded yet.
    Ahead(Option<String>),
    /// Files by name, with size, time and tag of the object that each was copied from.
    Files(BTreeMap<String, (u64, i64, u64)>),
}

/// The copies on this machine.
#[derive(Debug)]
pub struct Mirror {
    root: PathBuf,
    /// The folders opened so far, by the path of their copy.
    folders: HashMap<PathBuf, Folder>,
    /// What the store has of the shards to be merged, by checksum.
    stored: HashMap<String, Location>,
}

impl Mirror {
    /// The copies in the folder that `[store] work` names, which is created with the first copy.
    #[must_use]
    pub fn new() -> Self {
        let cache = || {
            let of_user = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|it| it.is_absolute());
            of_user
                .or_else(|| Some(std::env::home_dir()?.join(".cache")))
                .unwrap_or_else(std::env::temp_dir)
                .join("lookbook")
        };
        let root = store::config().work.clone().unwrap_or_else(cache);
        let root = std::path::absolute(&root).unwrap_or(root);
        show_as_urls(root.clone());
        Self { root, folders: HashMap::new(), stored: HashMap::new() }
    }

    /// The path of the copy of what a URL names; the path in a `file://` URL; other paths unchanged.
    ///
    /// # Errors
    /// [`Error::Input`] if it is the URL of no store.
    pub fn local(&self, path: &Path) -> Result<PathBuf> {
        if let Some(file) = path.to_str().and_then(|it| it.strip_prefix(FILE_SCHEME)) {
            return Ok(PathBuf::from(file));
        }
        if !store::is_url(path) {
            return Ok(path.to_owned());
        }
        let at = Location::parse(path)?;
        if at.is_web() {
            return Err(Error::input(path, "is of a web server: only the photos of a list can be read from there"));
        }
        Ok(self.root.join(at.as_folders()))
    }

    /// The settings of a stage with paths of copies instead of URLs. The copies are brought up to date.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting with an unknown URL; [`Error::Io`] if a store cannot be read.
    pub fn here<C: StageConfig>(&mut self, config: C) -> Result<C> {
        let (output, folder) = (config.output(), config.folder());
        let is_merged = serde_json::to_value(&config).is_ok_and(|it| it.get("merge") == Some(&Value::Bool(true)));
        if is_merged && store::is_url(&output) {
            self.bring_shards(&config)?;
        }
        if folder != output && store::is_url(&folder) {
            self.bring(&folder)?;
        }
        self.settings(config)
    }

    /// Brings what a merge reads of its shards, and of the version that it replaces.
    fn bring_shards<C: StageConfig>(&mut self, config: &C) -> Result<()> {
        let output = config.output();
        let shards = crate::shard::shards_of(&output);
        let mut folders = Vec::new();
        for name in store::folders(&Location::parse(&shards)?)? {
            let folder = shards.join(name);
            let opened = self.open(&self.local(&folder)?, &folder)?;
            let record = opened.version().map(|it| opened.record(it)).transpose()?;
            folders.push((folder, record.and_then(|it| serde_json::from_slice::<Summary>(&it).ok())));
        }
        let records = folders.iter().map(|(_, record)| record.as_ref()).collect::<Option<Vec<_>>>();
        let Some(outlined) = records.and_then(|it| config.unread_by_merge(&it)) else {
            return folders.iter().try_for_each(|(folder, _)| self.bring(folder).map(drop));
        };
        for folder in folders.iter().map(|(folder, _)| folder).chain([&output]) {
            let local = self.local(folder)?;
            self.open(&local, folder)?.outlined = Some(outlined);
            self.bring(folder)?;
        }
        for (folder, record) in &folders {
            let opened = &self.folders[&self.local(folder)?];
            let (Some(version), Some(record)) = (opened.version(), record) else { continue };
            let at = opened.place(version);
            let files = record.files.iter().map(|it| (it.sha256.clone(), at.join(&it.name.to_string_lossy())));
            self.stored.extend(files);
        }
        Ok(())
    }

    /// As [`Mirror::here`], for the settings of any command.
    ///
    /// # Errors
    /// As [`Mirror::here`].
    pub fn settings<C: Serialize + DeserializeOwned>(&mut self, config: C) -> Result<C> {
        let mut values = serde_json::to_value(&config).map_err(|cause| Error::config("settings", cause))?;
        let mut is_changed = false;
        for (name, value) in values.as_object_mut().into_iter().flatten() {
            let Some(path) = value.as_str().map(PathBuf::from).filter(|it| store::is_url(it)) else { continue };
            let local = self.value(name, &path).map_err(|error| match error {
                Error::Input { problem, .. } => Error::config(name, format!("{} {problem}", path.display())),
                other => other,
            })?;
            is_changed |= local != path;
            *value = local.to_string_lossy().into();
        }
        if !is_changed {
            return Ok(config);
        }
        serde_json::from_value(values).map_err(|cause| Error::config("settings", cause))
    }

    /// The path that replaces the URL `path` of the setting `name`.
    fn value(&mut self, name: &str, path: &Path) -> Result<PathBuf> {
        let is_list = path.extension().is_some_and(|it| it == "parquet" || it == "csv");
        let is_catalogue = CATALOGUES.contains(&name) && is_stored(path);
        if OWN_TABLES.contains(&name) {
            return Ok(path.to_owned());
        }
        if is_catalogue && (is_list || self.open(&self.local(path)?, path)?.current.is_none()) {
            return Ok(path.to_owned());
        }
        if name == RUN { self.bring_run(path) } else { self.bring(path) }
    }

    /// Brings the copies of all published folders of a run folder up to date. Returns the path of the run folder's copy.
    ///
    /// # Errors
    /// As [`Mirror::here`].
    pub fn bring_run(&mut self, path: &Path) -> Result<PathBuf> {
        let local = self.local(path)?;
        if is_stored(path) {
            let at = Location::parse(path)?;
            for name in store::folders(&at)? {
                let folder = PathBuf::from(at.join(&name).to_string());
                if self.open(&self.local(&folder)?, &folder)?.current.is_some() {
                    self.bring(&folder)?;
                }
            }
        }
        Ok(local)
    }

    /// Brings the copy of what a URL names up to date. Returns its path; other paths unchanged.
    ///
    /// # Errors
    /// As [`Mirror::here`].
    pub fn bring(&mut self, path: &Path) -> Result<PathBuf> {
        let local = self.local(path)?;
        if !is_stored(path) {
            return Ok(local);
        }
        let folder = self.open(&local, path)?.clone();
        if let Some(version) = folder.version() {
            self.bring_version(&folder, version, &local)?;
            return Ok(local);
        }
        // The published folder was deleted from the store. A result that was never uploaded stays.
        if matches!(read_mark(&local), Some(Copied::Version(_) | Copied::Outline(_) | Copied::Ahead(Some(_)))) {
            remove_mark(&local)?;
            files::remove_folder(&local)?;
        }
        bring_files(&folder.at, &local)?;
        Ok(local)
    }

    /// Opens a folder of a store, once per command.
    fn open(&mut self, local: &Path, path: &Path) -> Result<&mut Folder> {
        if !self.folders.contains_key(local) {
            let folder = Folder::open(Location::parse(path)?)?;
            self.folders.insert(local.to_owned(), folder);
        }
        Ok(self.folders.get_mut(local).expect("it was inserted"))
    }

    fn bring_version(&mut self, folder: &Folder, version: &str, local: &Path) -> Result<()> {
        if folder.is_copied(version, local) {
            return Ok(());
        }
        let at = folder.place(version);
        let text = String::from_utf8_lossy(&folder.record(version)?).into_owned();
        let bad = |cause| Error::input(at.join(RUN_FILE).to_string(), "is not a run record").because(cause);
        let summary: Summary = serde_json::from_str(&self.with_copies(&text)?).map_err(bad)?;
        let parent = files::parent_of(local);
        files::create_folder(&parent)?;
        let here = stage::Versions::of(local)?;
        let _lock = stage::take(local, &here.lock(), "a copy from an object store", COPY_WAIT)?;
        if folder.is_copied(version, local) {
            return Ok(());
        }
        let name = local.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let [new, old] = ["arriving", "left"].map(|it| parent.join(format!(".{name}.{it}")));
        files::remove_folder(&new)?;
        files::create_folder(&new)?;
        folder.fetch(version, &summary, local, &new)?;
        files::write_json(&new.join(RUN_FILE), &summary)?;
        remove_mark(local)?;
        files::remove_folder(&old)?;
        files::exchange(&new, local, &old)?;
        write_mark(local, &folder.copied(version))?;
        [new, old].iter().try_for_each(|it| files::remove_folder(it))
    }

    /// Notes, before a stage that publishes at a URL starts, which version its result replaces, so that a result that was
    /// not uploaded can be told from a copy.
    fn mark_ahead(&self, local: &Path) -> Result<()> {
        let folder = self.folders.get(local);
        files::create_folder(&files::parent_of(local))?;
        let mark = match folder {
            // Of no version: outlines that were not uploaded are of no use to a later run.
            Some(it) if it.outlined.is_some() => Copied::Outline(String::new()),
            _ => Copied::Ahead(folder.and_then(|it| it.version().map(str::to_owned))),
        };
        write_mark(local, &mark)
    }

    /// Calls `run`, which publishes `folder`. If that is a copy and the result `is_published`, uploads it.
    ///
    /// # Errors
    /// Those of `run`; [`Error::NotNow`] if another run has published there meanwhile; [`Error::Io`].
    pub fn around<T>(
        &mut self,
        folder: &Path,
        common: &Common,
        run: impl FnOnce() -> Result<T>,
        is_published: impl FnOnce(&T) -> bool,
    ) -> Result<T> {
        if common.dry_run || !self.folders.contains_key(folder) {
            return run();
        }
        self.mark_ahead(folder)?;
        let result = run()?;
        if is_published(&result) {
            self.publish(folder, common)?;
        }
        Ok(result)
    }

    /// How thoroughly the files of the folder at `local` can be checked: outlines have no content.
    #[must_use]
    pub fn depth(&self, local: &Path) -> Depth {
        let is_outline = self.folders.get(local).is_some_and(|it| it.outlined.is_some());
        if is_outline { Depth::Sizes } else { Depth::Contents }
    }

    /// Uploads the folder published at `local` if the run that made it was stopped before it did. The folder must be up to date.
    ///
    /// # Errors
    /// As [`Mirror::around`].
    pub fn catch_up(&mut self, local: &Path, common: &Common) -> Result<()> {
        let Some(folder) = self.folders.get(local) else { return Ok(()) };
        let is_ahead = read_mark(local) == Some(Copied::Ahead(folder.version().map(str::to_owned)));
        if common.dry_run || !is_ahead || Summary::find(local)?.is_none() {
            return Ok(());
        }
        self.publish(local, common)
    }

    /// Uploads the folder published at `local` as a new version.
    fn publish(&mut self, local: &Path, common: &Common) -> Result<()> {
        let Some(folder) = self.folders.get(local).cloned() else { return Ok(()) };
        let summary = Summary::read(local)?;
        let text = std::fs::read_to_string(local.join(RUN_FILE)).map_err(Error::io("read", local.join(RUN_FILE)))?;
        let before = match folder.version() {
            Some(version) => store::find(&folder.place(version).join(RUN_FILE))?.map(|it| it.2),
            None => None,
        };
        let text = self.with_urls(&text);
        let before: Option<Summary> = before.and_then(|it| serde_json::from_slice(&it).ok());
        if before.is_some() && serde_json::to_value(&before).ok() == serde_json::from_str::<Value>(&text).ok() {
            return write_mark(local, &Copied::Version(folder.version().unwrap_or_default().to_owned()));
        }
        let version = Folder::new_version(summary.generation);
        let at = folder.place(&version);
        let is_same_generation = before.as_ref().is_some_and(|it| it.generation == summary.generation);
        let had = checksums(before.map(|it| it.files).unwrap_or_default());
        let place = |file: &stage::FileRecord| {
            let name = file.name.to_string_lossy();
            let source = match folder.version() {
                Some(before) if had.get(&file.name) == Some(&file.sha256) => {
                    Source::Object(folder.place(before).join(&name))
                }
                _ => match self.stored.get(&file.sha256) {
                    Some(object) => Source::Object(object.clone()),
                    None => Source::File(local.join(&file.name)),
                },
            };
            (source, at.join(&name))
        };
        store::put_all(summary.files.iter().map(place).collect())?;
        store::write(&at.join(RUN_FILE), &text.into(), store::Only::Always)?;
        let folder = self.folders.get_mut(local).expect("it was there");
        if !folder.publish(&version, is_same_generation, common.keep_versions)? {
            // No pointer will ever name it.
            let _ = store::remove_below(&at);
            remove_mark(local)?;
            return Err(Error::not_now(local, OVERTAKEN));
        }
        tracing::info!("{}: version {version} is published", folder.at);
        let tidied =
            write_mark(local, &folder.copied(&version)).and_then(|()| folder.tidy_up(store::config().min_age_hours));
        if let Err(error) = tidied {
            tracing::warn!(
                "{}: published, but tidying up was left to the next run: {}",
                folder.at,
                error.with_causes()
            );
        }
        Ok(())
    }

    /// Swaps the published version of a folder in a store with the previous one, unless `dry_run` is set. Returns the record
    /// of the previous version.
    ///
    /// # Errors
    /// [`Error::Input`] if there is none; as [`Mirror::around`].
    pub fn roll_back(&mut self, path: &Path, dry_run: bool) -> Result<Summary> {
        let local = self.local(path)?;
        let folder = self.open(&local, path)?;
        let version = folder.rolled_back()?.version;
        if !dry_run && !folder.roll_back()? {
            return Err(Error::not_now(path, OVERTAKEN));
        }
        let bad = |cause| Error::input(folder.place(&version).to_string(), "has no valid run record").because(cause);
        serde_json::from_slice(&folder.record(&version)?).map_err(bad)
    }

    /// A record with URLs instead of the paths of copies.
    fn with_urls(&self, record: &str) -> String {
        let root = format!("{}/", self.root.display());
        rewritten(record, &mut |_, text| {
            let (scheme, rest) = text.strip_prefix(&root)?.split_once('/')?;
            Some(format!("{scheme}://{rest}"))
        })
    }

    /// A record with the paths of copies instead of URLs, except for those of photos, which are not copied.
    fn with_copies(&mut self, record: &str) -> Result<String> {
        let mut problem = Ok(());
        let text = rewritten(record, &mut |name, text| {
            let path = Path::new(text);
            let local = self.local(path).ok().filter(|_| store::is_url(path))?;
            let is_copied = match name {
                "" => true,
                it if CATALOGUES.contains(&it) => match self.open(&local, path) {
                    Ok(folder) => folder.current.is_some(),
                    Err(error) => {
                        problem = Err(error);
                        false
                    }
                },
                _ => false,
            };
            is_copied.then(|| local.to_string_lossy().into_owned())
        });
        problem.map(|()| text)
    }
}

impl Folder {
    /// What the copy of a version is.
    fn copied(&self, version: &str) -> Copied {
        let version = version.to_owned();
        if self.outlined.is_some() { Copied::Outline(version) } else { Copied::Version(version) }
    }

    /// Whether `local` is a copy of a version, as whole as this command needs it.
    fn is_copied(&self, version: &str, local: &Path) -> bool {
        let is_of = |mark: Copied| match mark {
            // A result that is still to be uploaded counts as a copy of the version it replaced.
            Copied::Version(it) | Copied::Ahead(Some(it)) => it == version,
            Copied::Outline(it) => self.outlined.is_some() && it == version,
            Copied::Ahead(None) | Copied::Files(_) => false,
        };
        read_mark(local).is_some_and(is_of) && local.join(RUN_FILE).is_file()
    }

    /// Downloads the files of a version to the folder `new`, except for those that are in the copy `local` as well, and
    /// for outlines.
    fn fetch(&self, version: &str, summary: &Summary, local: &Path, new: &Path) -> Result<()> {
        let at = self.place(version);
        // Without a mark, nobody knows whether the files have their content.
        let had = match read_mark(local) {
            Some(Copied::Version(_) | Copied::Ahead(_)) => Summary::find(local)?.map(|it| it.files).unwrap_or_default(),
            _ => Vec::new(),
        };
        let had = checksums(had);
        let is_outlined = |name: &Path| self.outlined.is_some_and(|is_outlined| is_outlined(name));
        let mut missing = Vec::new();
        for file in &summary.files {
            let place = new.join(&file.name);
            files::create_folder(&files::parent_of(&place))?;
            if is_outlined(&file.name) {
                files::write_outline(&place, file.bytes)?;
            } else if had.get(&file.name) != Some(&file.sha256)
                || files::adopt(&local.join(&file.name), &place).is_err()
            {
                missing.push((at.join(&file.name.to_string_lossy()), place));
            }
        }
        tracing::debug!("{at}: {} of {} files are copied", missing.len(), summary.files.len());
        store::get_all(missing)?;
        let brought = summary.files.iter().filter(|it| !is_outlined(&it.name));
        match stage::damaged_files(brought, new).first() {
            Some(problem) => {
                Err(Error::input(at.to_string(), format!("{problem}; roll it back, or run its stage again")))
            }
            None => Ok(()),
        }
    }
}

/// A record in which `other` has replaced texts. It is called with each text and its key; the key is empty unless it is that
/// of a catalogue or the text belongs to an input of many files.
fn rewritten(record: &str, other: &mut impl FnMut(&str, &str) -> Option<String>) -> String {
    fn visit(value: &mut Value, name: &str, other: &mut impl FnMut(&str, &str) -> Option<String>) {
        match value {
            Value::String(text) => *text = other(name, text).unwrap_or_else(|| std::mem::take(text)),
            Value::Array(values) => values.iter_mut().for_each(|it| visit(it, "", other)),
            Value::Object(values) => {
                let is_many = values.get("is_many") == Some(&Value::Bool(true));
                for (key, value) in values.iter_mut() {
                    let name = if is_many || CATALOGUES.contains(&key.as_str()) { key } else { "" };
                    visit(value, name, other);
                }
            }
            _ => {}
        }
    }
    let mut value: Value = serde_json::from_str(record).unwrap_or_default();
    visit(&mut value, "", other);
    let mut text = serde_json::to_string_pretty(&value).expect("JSON");
    text.push('\n');
    text
}

/// Whether a path is the URL of something in an object store, rather than that of a local file.
#[must_use]
pub fn is_stored(path: &Path) -> bool {
    store::is_url(path) && !path.to_string_lossy().starts_with(FILE_SCHEME)
}

/// The checksums of files by their names.
fn checksums(files: Vec<stage::FileRecord>) -> HashMap<PathBuf, String> {
    files.into_iter().map(|it| (it.name, it.sha256)).collect()
}

impl Default for Mirror {
    fn default() -> Self {
        Self::new()
    }
}

/// Brings the copy of a file, or of the files below a prefix, that no stage published up to date.
fn bring_files(at: &Location, local: &Path) -> Result<()> {
    let known = match read_mark(local) {
        Some(Copied::Files(known)) => known,
        _ => BTreeMap::new(),
    };
    let is_file = store::objects(std::slice::from_ref(at))?.into_iter().flatten().next();
    let found: Vec<(String, Object)> = match is_file {
        Some(object) => vec![(String::new(), object)],
        // A killed run may have left files of a version that was never published.
        None => store::list(at)?.into_iter().filter(|(name, _)| !name.starts_with(VERSIONS)).collect(),
    };
    let identity = |it: &Object| (it.bytes, it.modified_secs, it.tag);
    let path = |name: &str| if name.is_empty() { local.to_owned() } else { local.join(name) };
    let now: BTreeMap<String, _> = found.iter().map(|(name, it)| (name.clone(), identity(it))).collect();
    let mut missing = Vec::new();
    for (name, now) in &now {
        if known.get(name) != Some(now) || !path(name).is_file() {
            files::create_folder(&files::parent_of(&path(name)))?;
            missing.push((if name.is_empty() { at.clone() } else { at.join(name) }, path(name)));
        }
    }
    for name in known.keys().filter(|name| !now.contains_key(*name)) {
        if files::is_there(&path(name))? {
            files::remove_file(&path(name))?;
        }
    }
    if now.is_empty() {
        return Ok(());
    }
    remove_mark(local)?;
    store::get_all(missing)?;
    write_mark(local, &Copied::Files(now))
}

/// The file that says what a copy was downloaded from.
fn mark_of(local: &Path) -> PathBuf {
    let name = local.file_name().unwrap_or_default().to_string_lossy();
    files::parent_of(local).join(format!(".{name}.copied"))
}

fn read_mark(local: &Path) -> Option<Copied> {
    serde_json::from_slice(&std::fs::read(mark_of(local)).ok()?).ok()
}

fn write_mark(local: &Path, copied: &Copied) -> Result<()> {
    files::write_json(&mark_of(local), copied)
}

fn remove_mark(local: &Path) -> Result<()> {
    let mark = mark_of(local);
    if files::is_there(&mark)? { files::remove_file(&mark) } else { Ok(()) }
}
