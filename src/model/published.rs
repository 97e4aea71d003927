//! A published model folder, opened once: even if a new model is published meanwhile, everything is read from one
//! version, and what is recorded describes the bytes that were loaded.

use std::path::{Path, PathBuf};

use super::files::{PREDICT_FILE, WEIGHTS_FILE, id_of};
use super::predictor::Predictor;
use super::weights;
use crate::color::{self, ColorTable};
use crate::engine::{Engine, PrecisionChoice};
use crate::error::{Error, Result};
use crate::files::{self, OpenFolder};
use crate::graph::{SPEC_KEY, Spec};
use crate::stage::Stage;

/// An opened model folder.
#[derive(Debug)]
pub struct Model {
    folder: OpenFolder,
    predict: Vec<u8>,
}

/// The colour table of a model.
#[derive(Debug)]
pub struct Colors {
    /// The table.
    pub table: ColorTable,
    encoded: Vec<u8>,
}

impl Model {
    /// Opens the model folder `name` and reads its network.
    ///
    /// # Errors
    /// [`Error::Input`] if it is not a model folder, [`Error::Io`].
    pub fn open(name: &Path) -> Result<Self> {
        if !name.join(PREDICT_FILE).is_file() {
            return Err(missing(&name.join(PREDICT_FILE)));
        }
        let folder = OpenFolder::open(name)?;
        let predict = folder.read(PREDICT_FILE)?;
        Ok(Self { folder, predict })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &OpenFolder {
        &self.folder
    }

    /// Path that the network was read from.
    #[must_use]
    pub fn predict_path(&self) -> PathBuf {
        self.folder.name().join(PREDICT_FILE)
    }

    /// The network as read: the bytes of an ONNX file.
    #[must_use]
    pub fn predict(&self) -> &[u8] {
        &self.predict
    }

    /// Identity of the model: the first 16 hexadecimal digits of the SHA-256 of `predict.onnx`.
    #[must_use]
    pub fn id(&self) -> String {
        id_of(&self.predict)
    }

    /// The network, ready to run.
    ///
    /// # Errors
    /// As [`Predictor::new`].
    pub fn predictor(&self, engine: Engine, precision: PrecisionChoice) -> Result<Predictor> {
        Predictor::new(&self.predict_path(), &self.predict, engine, precision)
    }

    /// The network's weights.
    ///
    /// # Errors
    /// As [`weights::read_weights`].
    pub fn weights(&self) -> Result<(Spec, Vec<f32>)> {
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
        let path = self.folder.name().join(color::FILE);
        if !files::is_there(&self.folder.path(color::FILE))? {
            return Err(missing(&path));
        }
        let encoded = self.folder.read(color::FILE)?;
        Ok(Colors { table: ColorTable::parse(&path, &encoded)?, encoded })
    }

    /// Records the network and the colour table as inputs of a stage.
    pub fn record(&self, colors: &Colors, stage: &mut Stage) {
        stage.input_read(&self.predict_path(), &self.predict);
        stage.input_read(&self.folder.name().join(color::FILE), &colors.encoded);
    }

    /// SHA-256 of the network and of the colour table.
    #[must_use]
    pub fn checksums(&self, colors: &Colors) -> [String; 2] {
        [&self.predict, &colors.encoded].map(|content| files::digest_of(content))
    }
}

fn missing(path: &Path) -> Error {
    Error::input(path, "is missing; run `lookbook train` first, or name another --model")
}
