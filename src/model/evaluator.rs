//! The network with its losses, run with any weights.

use ort::value::{DynValue, Tensor};

use crate::engine::{Backend, Engine};
use crate::error::Result;
use crate::graph::{self, Spec};
use crate::runtime::failed;
use crate::runtime::sessions::Sessions;

/// A session of the network and its losses; the weights are an input of each run.
#[derive(Debug)]
pub struct Evaluator {
    sessions: Sessions,
    spec: Spec,
}

/// The network's output for a batch.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Mean loss over the photos' pixels.
    pub loss: f32,
    /// Mean binary cross-entropy over the photos' pixels and the maps.
    pub bce: f32,
    /// One label map, `[label map rows, label map columns]`, for each photo.
    pub label_maps: Vec<Vec<u8>>,
}

impl Evaluator {
    /// The backend actually in use.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.sessions.backend()
    }

    /// Creates the session.
    ///
    /// # Errors
    /// As [`Sessions::new`].
    pub fn new(spec: &Spec, engine: Engine) -> Result<Self> {
        let sessions = Sessions::new("evaluation", |dialect| graph::evaluation(dialect, spec), engine)?;
        Ok(Self { sessions, spec: spec.clone() })
    }

    /// Runs a batch: photos `[size, rows, columns, 3]`, labels `[size, map rows, map columns]`, flat folded weights.
    ///
    /// # Errors
    /// Whatever ONNX Runtime reports.
    pub fn run(&mut self, photos: Vec<u8>, labels: Vec<u8>, weights: &DynValue) -> Result<Answer> {
        let failed = || failed("evaluation");
        let spec = &self.spec;
        let size = labels.len() / (spec.map_rows() * spec.map_columns());
        let photos = Tensor::from_array(([size, spec.rows(), spec.columns(), 3], photos)).map_err(failed())?;
        let labels = Tensor::from_array(([size, spec.map_rows(), spec.map_columns()], labels)).map_err(failed())?;
        let inputs = ort::inputs! { "photos" => photos, "labels" => labels, "weights" => weights };
        let outputs = self.sessions.of(size)?.run(inputs).map_err(failed())?;
        let number = |name: &str| outputs[name].try_extract_tensor::<f32>().map(|it| it.1[0]).map_err(failed());
        let (_, maps) = outputs["label_map"].try_extract_tensor::<u8>().map_err(failed())?;
        Ok(Answer {
            loss: number("loss")?,
            bce: number("bce")?,
            label_maps: maps
                .chunks_exact(spec.label_map_rows() * spec.label_map_columns())
                .map(<[u8]>::to_vec)
                .collect(),
        })
    }
}
