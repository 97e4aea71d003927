//! A parser's folder, read once: the declaration, the network and the files that both name.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::declaration::{DECLARATION_FILE, Declaration, Fold, Kind, check_inside};
use super::embedder::Embedder;
use super::external;
use super::layout::Layout;
use super::network::Network;
use crate::color::ColorTable;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::files::{self, OpenFolder};
use crate::gates::Gates;
use crate::labels::LabelSet;

/// A parser's folder as read.
#[derive(Debug)]
pub struct Parser {
    /// The folder's path.
    name: PathBuf,
    layout: Arc<Layout>,
    /// What it names the pixels of.
    labels: LabelSet,
    /// The declaration, the network, the files of its weights, and those of the label set and the fold, in this order.
    files: Vec<ParserFile>,
    /// Number of files with weights.
    external: usize,
    /// The colour table and its file, if the declaration names one.
    colors: Option<(ColorTable, ParserFile)>,
}

/// A file of the folder, as read.
#[derive(Debug)]
pub struct ParserFile {
    /// Its name in the folder.
    pub name: PathBuf,
    /// Its content.
    pub content: Arc<[u8]>,
}

impl Parser {
    /// Whether a folder is a parser's.
    #[must_use]
    pub fn is_in(folder: &Path) -> bool {
        folder.join(DECLARATION_FILE).is_file()
    }

    /// Reads a parser's folder. The network is not opened yet.
    ///
    /// # Errors
    /// [`Error::Input`] for what is wrong with the declaration, or with a file that it names; [`Error::Io`].
    pub fn read(folder: &OpenFolder) -> Result<Self> {
        let path = folder.name().join(DECLARATION_FILE);
        let invalid = |problem: String| Error::input(&path, problem);
        let read = |name: &Path, setting: &str| read_file(folder, &path, name, setting);
        let mut files = vec![read(Path::new(DECLARATION_FILE), "")?];
        let declaration = Declaration::parse(&path, &files[0].content)?;
        files.push(read(&declaration.network, "network")?);
        let in_network = |problem: String| Error::input(folder.name().join(&declaration.network), problem);
        let external = external::files_of(&files[1].content).map_err(in_network)?;
        for (file, weight) in &external {
            let setting = format!("the place of the weight '{weight}'");
            check_inside(&setting, file).map_err(in_network)?;
            files.push(read_file(folder, &folder.name().join(&declaration.network), file, &setting)?);
        }
        let labels = match &declaration.labels {
            None => declaration.own_labels().map_err(invalid)?,
            Some(name) => {
                let file = read(name, "labels")?;
                let labels = parse_labels(&folder.name().join(name), &file.content)?;
                files.push(file);
                labels
            }
        };
        let categories = match &declaration.fold {
            None => declaration.categories(&labels, "[fold]", &BTreeMap::new()).map_err(invalid)?,
            Some(Fold::Table(table)) => declaration.categories(&labels, "[fold]", table).map_err(invalid)?,
            Some(Fold::File(name)) => {
                let file = read(name, "fold")?;
                let table = Declaration::parse_fold(&folder.name().join(name), &file.content)?;
                files.push(file);
                let place = format!("fold ('{}')", name.display());
                declaration.categories(&labels, &place, &table).map_err(invalid)?
            }
        };
        let colors = declaration.colors.as_ref().map(|it| {
            let file = read(&it.file, "colors.file")?;
            Ok((ColorTable::parse(&folder.name().join(&it.file), &file.content, &labels)?, file))
        });
        let colors = colors.transpose()?;
        let (name, external) = (folder.name().to_owned(), external.len());
        Ok(Self { name, layout: Arc::new(Layout { declaration, categories }), labels, files, external, colors })
    }

    /// The paths of the files of [`Parser::files`] in the folder `name`.
    ///
    /// # Errors
    /// As [`Parser::read`].
    pub fn reads(name: &Path) -> Result<Vec<PathBuf>> {
        let parser = Self::read(&OpenFolder::open(name)?)?;
        Ok(parser.files_with_paths().map(|(path, _)| path).collect())
    }

    /// Reads the folder `name` of an embedder, if the gates allow its licence.
    ///
    /// # Errors
    /// [`Error::Input`] if it is none; as [`Parser::read`] and [`Parser::check_license`].
    pub fn read_embedder(name: &Path, gates: &Gates) -> Result<Self> {
        if !Self::is_in(name) {
            let problem = "is missing; an embedder is a folder with a network and this declaration (docs/parsers.md)";
            return Err(Error::input(name.join(DECLARATION_FILE), problem));
        }
        let embedder = Self::read(&OpenFolder::open(name)?)?;
        embedder.check_kind(true)?;
        embedder.check_license(gates)?;
        Ok(embedder)
    }

    /// How photos are laid onto the input, and answers read.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The declaration.
    #[must_use]
    pub fn declaration(&self) -> &Declaration {
        &self.layout.declaration
    }

    /// The categories and colours that it names.
    #[must_use]
    pub fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// The category of each label.
    #[must_use]
    pub fn categories(&self) -> &[u8] {
        &self.layout.categories
    }

    /// Path of the network.
    #[must_use]
    pub fn network_path(&self) -> PathBuf {
        self.name.join(&self.declaration().network)
    }

    /// The files that label maps depend on: all but the colour table.
    #[must_use]
    pub fn files(&self) -> &[ParserFile] {
        &self.files
    }

    /// The same with their paths.
    pub fn files_with_paths(&self) -> impl Iterator<Item = (PathBuf, &[u8])> {
        self.files.iter().map(|it| (self.name.join(&it.name), &it.content[..]))
    }

    /// The file of the colour table, if the declaration names one.
    #[must_use]
    pub fn color_file(&self) -> Option<&ParserFile> {
        self.colors.as_ref().map(|(_, file)| file)
    }

    /// The colour table: the declared one, or the typical one.
    #[must_use]
    pub fn colors(&self) -> ColorTable {
        self.colors.as_ref().map_or_else(|| ColorTable::typical(&self.labels), |(table, _)| table.clone())
    }

    /// SHA-256 over [`Parser::files`] with their names: the identity of what label maps depend on.
    #[must_use]
    pub fn digest(&self) -> String {
        let of_file = |it: &ParserFile| format!("{}  {}\n", files::digest_of(&it.content), it.name.display());
        files::digest_of(self.files.iter().map(of_file).collect::<String>().as_bytes())
    }

    /// As the `model_id` of rows: the first 16 digits of [`Parser::digest`].
    #[must_use]
    pub fn id(&self) -> String {
        self.digest()[..16].to_owned()
    }

    /// Checks the gate `allowed_licenses`.
    ///
    /// # Errors
    /// [`Error::Config`] if the gate is set and does not name the parser's licence.
    pub fn check_license(&self, gates: &Gates) -> Result<()> {
        gates.allow(&self.declaration().license, &format!("the parser '{}'", self.declaration().name))
    }

    /// Checks that it names the pixels of photos, or that it gives embeddings.
    ///
    /// # Errors
    /// [`Error::Input`] if it does the other.
    pub fn check_kind(&self, embedding: bool) -> Result<()> {
        let problem = match (self.is_embedder(), embedding) {
            (true, false) => {
                "output.kind is \"embedding\", which names no pixels; it can only be an embedder ([segment] embedder)"
            }
            (false, true) => {
                "output.kind is not \"embedding\": it names pixels; it can only be a model ([segment] model)"
            }
            _ => return Ok(()),
        };
        Err(Error::input(self.name.join(DECLARATION_FILE), problem))
    }

    /// Whether it gives embeddings.
    #[must_use]
    pub fn is_embedder(&self) -> bool {
        self.declaration().output.kind == Kind::Embedding
    }

    /// Opens the network of an embedder.
    ///
    /// # Errors
    /// As [`Parser::check_kind`] and [`Network::open`]; [`Error::Runtime`] if it cannot be run.
    pub fn embedder(&self, engine: Engine) -> Result<Embedder> {
        self.check_kind(true)?;
        Embedder::new(self.network(engine)?, self.id())
    }

    /// Opens the network and compares it with the declaration.
    ///
    /// # Errors
    /// As [`Network::open`].
    pub fn network(&self, engine: Engine) -> Result<Network> {
        let external = self.files[2..2 + self.external].iter().map(|it| (it.name.as_path(), it.content.clone()));
        let external: Vec<_> = external.collect();
        Network::open(&self.network_path(), &self.files[1].content, &external, self.layout.clone(), engine)
    }
}

/// The label set of the `labels.toml` at `path`.
fn parse_labels(path: &Path, text: &[u8]) -> Result<LabelSet> {
    let text = std::str::from_utf8(text).map_err(|_| Error::input(path, "is not UTF-8"))?;
    LabelSet::parse_toml(text).map_err(|problem| Error::input(path, problem))
}

/// Reads a file that the setting `setting` of the file `declared` names.
fn read_file(folder: &OpenFolder, declared: &Path, name: &Path, setting: &str) -> Result<ParserFile> {
    let content = folder.read(name).map_err(|error| match error {
        Error::Io { source, .. } if [ErrorKind::NotFound, ErrorKind::IsADirectory].contains(&source.kind()) => {
            let problem = if setting.is_empty() {
                "is missing".to_owned()
            } else {
                format!("{setting} is '{}', but the folder has no such file", name.display())
            };
            Error::input(declared, problem)
        }
        other => other,
    })?;
    Ok(ParserFile { name: name.to_owned(), content: content.into() })
}
