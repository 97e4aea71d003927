//! A folder with a network that labels photos, opened once: a model that `train` published, or a third-party parser. Even
//! if a new one is published meanwhile, everything is read from one version, and what is recorded describes the bytes that
//! were loaded.

use std::path::{Path, PathBuf};

use super::calibration::Calibration;
use super::certainty::Certainty;
use super::files::{INT8_FILE, PREDICT_FILE, WEIGHTS_FILE, id_of};
use super::predictor::Predictor;
use super::weights;
use crate::color::{self, ColorTable};
use crate::engine::{Engine, PrecisionChoice};
use crate::error::{Error, Result};
use crate::files::{self, OpenFolder};
use crate::gates::Gates;
use crate::graph::{self, Precision, SPEC_KEY, Spec};
use crate::labels::LabelSet;
use crate::parser::{DECLARATION_FILE, Parser};
use crate::runtime;
use crate::stage::Stage;

/// An opened model folder, or a parser's.
#[derive(Debug)]
pub struct Model {
    folder: OpenFolder,
    network: Network,
}

#[derive(Debug)]
enum Network {
    /// The content of `predict.onnx`.
    Own(Vec<u8>),
    Parser(Parser),
}

/// The colour table of a model.
#[derive(Debug)]
pub struct Colors {
    /// The table.
    pub table: ColorTable,
    /// Its file, if it comes from one.
    file: Option<(PathBuf, Vec<u8>)>,
}

impl Model {
    /// Opens the folder `name` and reads its network.
    ///
    /// # Errors
    /// [`Error::Input`] if it is neither a model folder nor a parser's, [`Error::Io`]; as [`Parser::read`] and [`Parser::check_kind`].
    pub fn open(name: &Path) -> Result<Self> {
        if Parser::is_in(name) {
            let folder = OpenFolder::open(name)?;
            let parser = Parser::read(&folder)?;
            parser.check_kind(false)?;
            return Ok(Self { folder, network: Network::Parser(parser) });
        }
        if !name.join(PREDICT_FILE).is_file() {
            return Err(missing(&name.join(PREDICT_FILE)));
        }
        let folder = OpenFolder::open(name)?;
        let network = Network::Own(folder.read(PREDICT_FILE)?);
        Ok(Self { folder, network })
    }

    /// As [`Model::open`], if the gates allow the parser's licence.
    ///
    /// # Errors
    /// As [`Model::open`] and [`Parser::check_license`].
    pub fn open_allowed(name: &Path, gates: &Gates) -> Result<Self> {
        let model = Self::open(name)?;
        model.check_license(gates)?;
        Ok(model)
    }

    /// Checks that the gates allow the licence, if it is a parser.
    ///
    /// # Errors
    /// As [`Parser::check_license`].
    pub fn check_license(&self, gates: &Gates) -> Result<()> {
        self.parser().map_or(Ok(()), |it| it.check_license(gates))
    }

    /// Whether a folder is a model's or a parser's, by the names of its files.
    #[must_use]
    pub fn is_in(name: &Path) -> bool {
        Parser::is_in(name) || name.join(PREDICT_FILE).is_file()
    }

    /// The paths of the files that [`Model::record`] records, for a folder that may not be there yet.
    ///
    /// # Errors
    /// As [`Parser::read`].
    pub fn reads(name: &Path) -> Result<Vec<PathBuf>> {
        if !Parser::is_in(name) {
            return Ok([PREDICT_FILE, color::FILE].map(|file| name.join(file)).to_vec());
        }
        let parser = Parser::read(&OpenFolder::open(name)?)?;
        Ok(parser.files().iter().chain(parser.color_file()).map(|it| name.join(&it.name)).collect())
    }

    /// The paths of the files that [`Model::record_network`] records, likewise.
    ///
    /// # Errors
    /// As [`Parser::read`].
    pub fn network_reads(name: &Path) -> Result<Vec<PathBuf>> {
        if Parser::is_in(name) { Parser::reads(name) } else { Ok(vec![name.join(PREDICT_FILE)]) }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &OpenFolder {
        &self.folder
    }

    /// The parser, if it is one.
    #[must_use]
    pub fn parser(&self) -> Option<&Parser> {
        match &self.network {
            Network::Own(_) => None,
            Network::Parser(parser) => Some(parser),
        }
    }

    /// Path that the network was read from.
    #[must_use]
    pub fn network_path(&self) -> PathBuf {
        match &self.network {
            Network::Own(_) => self.folder.name().join(PREDICT_FILE),
            Network::Parser(parser) => parser.network_path(),
        }
    }

    /// The network of a model of ours as read: the bytes of an ONNX file.
    ///
    /// # Errors
    /// [`Error::Input`] for a parser.
    pub fn predict(&self) -> Result<&[u8]> {
        match &self.network {
            Network::Own(predict) => Ok(predict),
            Network::Parser(_) => Err(self.foreign()),
        }
    }

    /// Identity of the model: the first 16 hexadecimal digits of the SHA-256 of `predict.onnx`, or of all files that a
    /// parser's label maps depend on.
    #[must_use]
    pub fn id(&self) -> String {
        match &self.network {
            Network::Own(predict) => id_of(predict),
            Network::Parser(parser) => parser.id(),
        }
    }

    /// The categories and colours that it names.
    ///
    /// # Errors
    /// [`Error::Input`] if the network is not one of ours.
    pub fn labels(&self) -> Result<LabelSet> {
        match &self.network {
            Network::Own(predict) => {
                let invalid = |problem| Error::input(self.network_path(), format!("{problem}; train the model again"));
                Ok(graph::read_spec(predict).map_err(invalid)?.labels)
            }
            Network::Parser(parser) => Ok(parser.labels().clone()),
        }
    }

    /// The precision that a network of ours would compute in; a parser's has its own, and no choice.
    ///
    /// # Errors
    /// [`Error::Config`] if bfloat16 or 8-bit integers are requested but not available; as [`Model::calibration`] for the
    /// latter.
    pub fn precision(&self, choice: PrecisionChoice, engine: Engine) -> Result<Precision> {
        match (&self.network, choice) {
            (Network::Own(_), PrecisionChoice::Narrowest) if !self.has_calibration()? => {
                runtime::precision(PrecisionChoice::Auto, engine)
            }
            (Network::Own(_), _) => {
                let precision = runtime::precision(choice, engine)?;
                if precision == Precision::Int8 {
                    self.calibration()?;
                }
                Ok(precision)
            }
            (Network::Parser(parser), PrecisionChoice::Bf16 | PrecisionChoice::Int8) => {
                let name = if choice == PrecisionChoice::Bf16 { "bf16" } else { "int8" };
                let problem = format!(
                    "{name} is only for models of this program, which '{}' is not; use 'auto'",
                    parser.declaration().name
                );
                Err(Error::config("precision", problem))
            }
            (Network::Parser(_), _) => Ok(Precision::F32),
        }
    }

    fn has_calibration(&self) -> Result<bool> {
        files::is_there(&self.folder.path(INT8_FILE))
    }

    /// The ranges of the network's maps, for 8-bit integers.
    ///
    /// # Errors
    /// [`Error::Input`] if they are missing, damaged or another network's, or for a parser; [`Error::Io`].
    pub fn calibration(&self) -> Result<Calibration> {
        let path = self.folder.name().join(INT8_FILE);
        if !self.has_calibration()? {
            return Err(Calibration::missing(&path));
        }
        Calibration::parse(&path, self.folder.read(INT8_FILE)?, self.predict()?)
    }

    /// The network, ready to run.
    ///
    /// # Errors
    /// As [`Predictor::of_parser`] and [`Model::precision`]; [`Error::Runtime`] if ONNX Runtime is missing, [`Error::Input`]
    /// if the network is not one of ours.
    pub fn predictor(&self, engine: Engine, precision: PrecisionChoice) -> Result<Predictor> {
        let precision = self.precision(precision, engine)?;
        match &self.network {
            Network::Own(predict) => {
                let calibration = (precision == Precision::Int8).then(|| self.calibration()).transpose()?;
                let ranges = calibration.as_ref().map(Calibration::ranges);
                Predictor::new(&self.network_path(), predict, engine, (precision, ranges))
            }
            Network::Parser(parser) => Predictor::of_parser(parser, engine),
        }
    }

    /// The network, ready to run, whose answers also say how sure it is.
    ///
    /// # Errors
    /// As [`Model::predictor`] and [`Certainty::new`].
    pub fn predictor_with_certainty(&self, engine: Engine, precision: PrecisionChoice) -> Result<Predictor> {
        let mut predictor = self.predictor(engine, precision)?;
        if let Network::Own(predict) = &self.network {
            predictor.tell_certainty(Some(Certainty::new(predict, engine)?));
        }
        Ok(predictor)
    }

    /// The network's weights.
    ///
    /// # Errors
    /// As [`weights::read_weights`]; [`Error::Input`] for a parser.
    pub fn weights(&self) -> Result<(Spec, Vec<f32>)> {
        if self.parser().is_some() {
            return Err(self.foreign());
        }
        let path = self.folder.path(WEIGHTS_FILE);
        let (spec, weights) = weights::read_weights(&path)?;
        if spec.batch_norm {
            let problem =
                format!("its '{SPEC_KEY}' has an invalid 'batch_norm': true, but published weights are folded");
            return Err(Error::input(path, format!("{problem}; train the model again")));
        }
        Ok((spec, weights))
    }

    /// The colour table.
    ///
    /// # Errors
    /// [`Error::Input`] if it is missing or damaged, [`Error::Schema`], [`Error::Io`].
    pub fn colors(&self) -> Result<Colors> {
        if let Some(parser) = self.parser() {
            let file = parser.color_file().map(|it| (self.folder.name().join(&it.name), it.content.to_vec()));
            return Ok(Colors { table: parser.colors(), file });
        }
        let path = self.folder.name().join(color::FILE);
        if !files::is_there(&self.folder.path(color::FILE))? {
            return Err(missing(&path));
        }
        let encoded = self.folder.read(color::FILE)?;
        Ok(Colors { table: ColorTable::parse(&path, &encoded, &self.labels()?)?, file: Some((path, encoded)) })
    }

    /// The files that label maps depend on, with their content.
    #[must_use]
    pub fn network_files(&self) -> Vec<(PathBuf, &[u8])> {
        match &self.network {
            Network::Own(predict) => vec![(self.network_path(), &predict[..])],
            Network::Parser(parser) => parser.files_with_paths().collect(),
        }
    }

    /// Records the files of the network as inputs of a stage.
    pub fn record_network(&self, stage: &mut Stage) {
        self.network_files().into_iter().for_each(|(path, content)| stage.input_read(&path, content));
    }

    /// Records the files of the network and the colour table as inputs of a stage.
    pub fn record(&self, colors: &Colors, stage: &mut Stage) {
        self.record_network(stage);
        if let Some((path, encoded)) = &colors.file {
            stage.input_read(path, encoded);
        }
    }

    /// SHA-256 of the network (of a parser, with its declaration and fold) and of the colour table.
    #[must_use]
    pub fn checksums(&self, colors: &Colors) -> [String; 2] {
        let network = match &self.network {
            Network::Own(predict) => files::digest_of(predict),
            Network::Parser(parser) => parser.digest(),
        };
        let colors = colors.file.as_ref().map_or("typical".to_owned(), |(_, encoded)| files::digest_of(encoded));
        [network, colors]
    }

    /// For what only models of ours have.
    fn foreign(&self) -> Error {
        let problem = "declares a third-party parser, which this program can run, but neither train nor export; name a \
                       model that `lookbook train` published";
        Error::input(self.folder.name().join(DECLARATION_FILE), problem)
    }
}

fn missing(path: &Path) -> Error {
    Error::input(path, "is missing; run `lookbook train` first, or name another --model")
}
