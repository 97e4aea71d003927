//! A trained model: photos in, label maps out.

use std::path::Path;

use ort::session::Session;
use ort::value::Tensor;
use rayon::prelude::*;

use super::files::{PREDICT_FILE, id_of};
use crate::canvas::Canvas;
use crate::engine::{Backend, Engine, PrecisionChoice};
use crate::error::{Error, Result};
use crate::graph::{self, Dialect, Precision, Spec};
use crate::photo::Photo;
use crate::runtime::{self, failed};

/// Photos per batch: enough to keep the cores busy, few enough to stay in the cache.
pub const BATCH_SIZE: usize = 4;

/// A loaded `predict.onnx`.
#[derive(Debug)]
pub struct Predictor {
    session: Session,
    backend: Backend,
    precision: Precision,
    spec: Spec,
    model_id: String,
}

impl Predictor {
    /// Loads the network `predict`, an ONNX file read from `path`.
    ///
    /// # Errors
    /// [`Error::Runtime`] if ONNX Runtime is missing, [`Error::Input`] if the network is not one of ours.
    pub fn new(path: &Path, predict: &[u8], engine: Engine, precision: PrecisionChoice) -> Result<Self> {
        let (spec, weights) = graph::read_predict(predict)
            .map_err(|problem| Error::input(path, format!("{problem}; train the model again")))?;
        let name = path.display().to_string();
        let precision = runtime::precision(precision, engine)?;
        let graph = |dialect| graph::label_maps(dialect, precision, &spec, &weights);
        let (session, backend) = runtime::session(&name, graph, engine)?;
        Ok(Self { session, backend, precision, spec, model_id: id_of(predict) })
    }

    /// Identity of the model: the first 16 hexadecimal digits of the SHA-256 of `predict.onnx`.
    #[must_use]
    pub fn model_id(&self) -> &str {
        &self.model_id
    }

    /// The backend actually in use.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The precision that the network actually computes in.
    #[must_use]
    pub fn precision(&self) -> Precision {
        match self.backend.dialect {
            Dialect::Portable => Precision::F32,
            Dialect::Native => self.precision,
        }
    }

    /// The network's specification, which defines the canvas that photos are placed on.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The category of each pixel of each photo: `[height, width]` u8, 0 to 22, at the photo's own size. Takes any
    /// number of photos and runs them in batches of [`BATCH_SIZE`].
    ///
    /// # Errors
    /// [`Error::Runtime`].
    pub fn label_maps(&mut self, photos: &[Photo]) -> Result<Vec<Vec<u8>>> {
        let mut maps = Vec::with_capacity(photos.len());
        for photos in photos.chunks(BATCH_SIZE) {
            let canvases: Vec<_> = photos.par_iter().map(|photo| Canvas::new(&self.spec, photo)).collect();
            let answers = self.run(canvases.iter().map(|it| &it.pixels[..]))?;
            let at_own_size = |((photo, canvas), answer): ((&Photo, &Canvas), &Vec<u8>)| {
                canvas.label_map(&self.spec, answer, photo.size())
            };
            maps.extend(photos.par_iter().zip(&canvases).zip(&answers).map(at_own_size).collect::<Vec<_>>());
        }
        Ok(maps)
    }

    /// Runs the network on the pixels of canvases ([`Canvas::pixels`]) as one batch. Returns one output per canvas, in
    /// the form that [`Canvas::label_map`] takes.
    ///
    /// # Errors
    /// [`Error::Runtime`].
    pub fn run<'a>(&mut self, canvases: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>> {
        let (rows, columns) = (self.spec.rows(), self.spec.columns());
        let pixels = canvases.collect::<Vec<_>>().concat();
        let dims = [pixels.len() / (rows * columns * 3), rows, columns, 3];
        let input = Tensor::from_array((dims, pixels)).map_err(failed(PREDICT_FILE))?;
        let outputs = self.session.run(ort::inputs! { "photos" => input }).map_err(failed(PREDICT_FILE))?;
        let (_, answer) = outputs["label_map"].try_extract_tensor::<u8>().map_err(failed(PREDICT_FILE))?;
        let label_map_len = self.spec.label_map_rows() * self.spec.label_map_columns();
        Ok(answer.chunks_exact(label_map_len).map(<[u8]>::to_vec).collect())
    }
}
