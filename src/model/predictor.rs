//! A network that labels photos: photos in, label maps out.

use std::path::Path;
use std::sync::Arc;

use ort::value::Tensor;
use rayon::prelude::*;

use super::certainty::Certainty;
use super::files::{PREDICT_FILE, id_of};
use super::layout::{Answer, Laid, Layout};
use crate::engine::{Backend, Device, DialectChoice, Engine};
use crate::error::{Error, Result};
use crate::graph::{self, Dialect, Precision, Ranges, Spec};
use crate::parser::{self, Parser};
use crate::photo::Photo;
use crate::runtime::failed;
use crate::runtime::sessions::Sessions;

/// Photos per batch: enough to keep the cores busy, few enough to stay in the cache.
pub const BATCH_SIZE: usize = 4;

/// A loaded `predict.onnx`, or a parser's network.
#[derive(Debug)]
pub struct Predictor {
    network: Network,
    backend: Backend,
    precision: Precision,
    layout: Layout,
    model_id: String,
}

#[derive(Debug)]
enum Network {
    /// With what tells how sure it is, if that was asked for.
    Own(Sessions, Arc<Spec>, Option<Certainty>),
    Parser(parser::Network),
}

impl Predictor {
    /// Loads the network `predict`, an ONNX file read from `path`; `ranges` are needed for 8-bit integers alone.
    ///
    /// # Errors
    /// [`Error::Runtime`] if ONNX Runtime is missing, [`Error::Input`] if the network is not one of ours.
    pub(super) fn new(
        path: &Path,
        predict: &[u8],
        engine: Engine,
        (precision, ranges): (Precision, Option<&Ranges>),
    ) -> Result<Self> {
        let (spec, weights) = graph::read_predict(predict)
            .map_err(|problem| Error::input(path, format!("{problem}; train the model again")))?;
        let name = path.display().to_string();
        // Operators for 8-bit integers are native ones alone.
        let (engine, ranges) = match (precision, ranges) {
            (Precision::Int8, Some(ranges)) => {
                (Engine { device: Device::Cpu, dialect: DialectChoice::Native, ..engine }, Some(ranges))
            }
            _ => (engine, None),
        };
        let graph = |dialect| match ranges {
            Some(ranges) => graph::label_maps_in_int8(&spec, &weights, ranges),
            None => graph::label_maps(dialect, precision, &spec, &weights),
        };
        let sessions = Sessions::new(&name, graph, engine)?;
        let spec = Arc::new(spec);
        let backend = sessions.backend();
        let (network, layout) = (Network::Own(sessions, spec.clone(), None), Layout::Own(spec));
        Ok(Self { network, backend, precision, layout, model_id: id_of(predict) })
    }

    /// Loads a parser's network.
    ///
    /// # Errors
    /// As [`Parser::network`].
    pub fn of_parser(parser: &Parser, engine: Engine) -> Result<Self> {
        let network = parser.network(engine)?;
        let (backend, layout) = (network.backend(), Layout::Parser(network.layout().clone()));
        let model_id = parser.id();
        Ok(Self { network: Network::Parser(network), backend, precision: Precision::F32, layout, model_id })
    }

    /// From now on answers say how sure the network is, if `certainty` is some; a parser's always do.
    pub(super) fn tell_certainty(&mut self, of_network: Option<Certainty>) {
        if let Network::Own(_, _, certainty) = &mut self.network {
            *certainty = of_network;
        }
    }

    /// From now on answers no longer say how sure the network is; a parser's always do.
    pub fn without_certainty(&mut self) {
        self.tell_certainty(None);
    }

    /// Identity of the model: the first 16 hexadecimal digits of the SHA-256 of `predict.onnx`, or of the parser.
    #[must_use]
    pub fn model_id(&self) -> &str {
        &self.model_id
    }

    /// The backend actually in use.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The precision that a network of ours actually computes in; a parser's has its own.
    #[must_use]
    pub fn precision(&self) -> Precision {
        match self.backend.dialect {
            Dialect::Portable | Dialect::Cuda => Precision::F32,
            Dialect::Native => self.precision,
        }
    }

    /// How photos are laid onto the network's input, and its answers read.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The category of each pixel of each photo: `[height, width]` u8, at the photo's own size. Takes any
    /// number of photos and runs them in batches of [`BATCH_SIZE`].
    ///
    /// # Errors
    /// [`Error::Runtime`].
    pub fn label_maps(&mut self, photos: &[Photo]) -> Result<Vec<Vec<u8>>> {
        let names: Vec<_> = (1..=photos.len()).map(|number| format!("photo {number} of {}", photos.len())).collect();
        self.label_maps_of(&photos.iter().zip(&names).map(|(photo, name)| (photo, &name[..])).collect::<Vec<_>>())
    }

    /// As [`Predictor::label_maps`], for photos with their names, which errors tell.
    ///
    /// # Errors
    /// [`Error::Runtime`].
    pub fn label_maps_of(&mut self, photos: &[(&Photo, &str)]) -> Result<Vec<Vec<u8>>> {
        let mut maps = Vec::with_capacity(photos.len());
        for photos in photos.chunks(BATCH_SIZE) {
            let laid: Vec<_> = photos.par_iter().map(|(photo, _)| self.layout.lay(photo)).collect();
            let answers = self.run(laid.iter())?;
            let at_own_size = |(((photo, name), laid), answer): ((&(&Photo, &str), &Laid), &Answer)| {
                self.layout.label_map(laid, answer, photo.size(), name)
            };
            let of_batch = photos.par_iter().zip(&laid).zip(&answers).map(at_own_size);
            maps.extend(of_batch.collect::<Result<Vec<_>>>()?);
        }
        Ok(maps)
    }

    /// Runs the network on photos on its input ([`Layout::lay`]) as one batch. Returns one answer per photo, which
    /// [`Layout::label_map`] takes.
    ///
    /// # Errors
    /// [`Error::Runtime`].
    pub fn run<'a>(&mut self, laid: impl Iterator<Item = &'a Laid>) -> Result<Vec<Answer>> {
        match &mut self.network {
            Network::Own(sessions, spec, certainty) => {
                let pixels = laid.map(|it| match it {
                    Laid::Own(canvas) => &canvas.pixels[..],
                    Laid::Parser(_) => unreachable!("photos are laid by the network's own layout"),
                });
                let pixels: Vec<_> = pixels.collect();
                let label_maps = run_own(sessions, spec, pixels.concat())?;
                let answer = |(label_map, pixels): (Vec<u8>, &[u8])| {
                    let certainty = certainty.as_mut().map(|it| it.on_canvas(pixels.to_vec())).transpose()?;
                    Ok(Answer::Own { label_map, certainty })
                };
                label_maps.into_iter().zip(pixels).map(answer).collect()
            }
            Network::Parser(network) => {
                let canvases = laid.map(|it| match it {
                    Laid::Parser(canvas) => canvas,
                    Laid::Own(_) => unreachable!("photos are laid by the network's own layout"),
                });
                let answers = network.run(&canvases.collect::<Vec<_>>())?;
                Ok(answers.into_iter().map(Answer::Parser).collect())
            }
        }
    }
}

fn run_own(sessions: &mut Sessions, spec: &Spec, pixels: Vec<u8>) -> Result<Vec<Vec<u8>>> {
    let (rows, columns) = (spec.rows(), spec.columns());
    let size = pixels.len() / (rows * columns * 3);
    let input = Tensor::from_array(([size, rows, columns, 3], pixels)).map_err(failed(PREDICT_FILE))?;
    let outputs = sessions.of(size)?.run(ort::inputs! { "photos" => input }).map_err(failed(PREDICT_FILE))?;
    let (_, answer) = outputs["label_map"].try_extract_tensor::<u8>().map_err(failed(PREDICT_FILE))?;
    let label_map_len = spec.label_map_rows() * spec.label_map_columns();
    Ok(answer.chunks_exact(label_map_len).map(<[u8]>::to_vec).collect())
}
