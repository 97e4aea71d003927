//! From a photo to a network's input, and from its answer to a label map: for models of ours and third-party parsers
//! alike. Cheap to clone, for the workers that prepare photos while the network runs.

use std::sync::Arc;

use crate::canvas::Canvas;
use crate::error::{Error, Result};
use crate::graph::Spec;
use crate::parser;
use crate::photo::{self, Decoded, Decoding, FIT_HEIGHT_PX, FIT_WIDTH_PX, Photo, PhotoProblem};

/// A certainty of 1; they are stored as bytes.
pub const CERTAIN: u8 = u8::MAX;

/// How photos are laid onto a network's input, and its answers read.
#[derive(Debug, Clone)]
pub enum Layout {
    /// Ours.
    Own(Arc<Spec>),
    /// A parser's.
    Parser(Arc<parser::Layout>),
}

/// A photo on a network's input.
#[derive(Debug, Clone)]
pub enum Laid {
    /// Ours.
    Own(Canvas),
    /// A parser's.
    Parser(parser::Canvas),
}

/// A network's answer for one photo.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Ours.
    Own {
        /// `[label map rows, label map columns]`.
        label_map: Vec<u8>,
        /// The certainty of each of its pixels, 0 to [`CERTAIN`], if the predictor was asked for it.
        certainty: Option<Vec<u8>>,
    },
    /// A parser's.
    Parser(parser::Answer),
}

impl Layout {
    /// Decodes a photo of a catalogue, fitted into the size in which it is counted, and lays it onto the network's input. A
    /// parser is fed from the photo at its own size, as by the program that it comes from.
    ///
    /// # Errors
    /// [`PhotoProblem`] if the photo is invalid.
    pub fn read(&self, encoded: &[u8], max_pixels: u64) -> Result<(Decoded, Laid), PhotoProblem> {
        self.read_for(encoded, max_pixels, None).map(|(decoded, laid, _)| (decoded, laid))
    }

    /// As [`Layout::read`]; also lays the photo onto the input of an embedder, if there is one, from its own size as well. What
    /// is counted does not depend on the embedder.
    ///
    /// # Errors
    /// As [`Layout::read`].
    pub fn read_for(
        &self,
        encoded: &[u8],
        max_pixels: u64,
        embedder: Option<&parser::Layout>,
    ) -> Result<(Decoded, Laid, Option<parser::Canvas>), PhotoProblem> {
        let whole = || photo::decode_with(encoded, Decoding { max_pixels, fit: None });
        match self {
            Self::Own(spec) => {
                let decoded = photo::decode_with(encoded, Decoding::fitted(max_pixels))?;
                let canvas = Canvas::new(spec, &decoded.photo);
                let is_whole = decoded.photo.size() == (decoded.own_width_px, decoded.own_height_px);
                let for_embedder = match embedder {
                    Some(embedder) if is_whole => Some(embedder.lay(&decoded.photo)),
                    Some(embedder) => Some(embedder.lay(&whole()?.photo)),
                    None => None,
                };
                Ok((decoded, Laid::Own(canvas), for_embedder))
            }
            Self::Parser(layout) => {
                let whole = whole()?;
                let canvas = layout.lay(&whole.photo);
                let for_embedder = embedder.map(|it| it.lay(&whole.photo));
                let fitted = photo::fit(&whole.photo, FIT_WIDTH_PX, FIT_HEIGHT_PX);
                Ok((Decoded { photo: fitted, ..whole }, Laid::Parser(canvas), for_embedder))
            }
        }
    }

    /// Lays a photo onto the network's input.
    #[must_use]
    pub fn lay(&self, photo: &Photo) -> Laid {
        match self {
            Self::Own(spec) => Laid::Own(Canvas::new(spec, photo)),
            Self::Parser(layout) => Laid::Parser(layout.lay(photo)),
        }
    }

    /// The category of each pixel of a photo at the size `to` (width, height): `[height, width]` u8.
    ///
    /// # Errors
    /// [`Error::Runtime`] if a parser's answer is invalid, with `name`, the photo's.
    pub fn label_map(&self, laid: &Laid, answer: &Answer, to: (u32, u32), name: &str) -> Result<Vec<u8>> {
        match (self, laid, answer) {
            (Self::Own(spec), Laid::Own(canvas), Answer::Own { label_map, .. }) => {
                Ok(canvas.label_map(spec, label_map, to))
            }
            (Self::Parser(layout), Laid::Parser(canvas), Answer::Parser(answer)) => {
                layout.label_map(canvas, answer, to).map_err(|problem| Error::runtime(name, problem))
            }
            _ => unreachable!("a network's answers are read by its own layout"),
        }
    }

    /// As [`Layout::label_map`], with how sure a parser is; `None` for models of ours, whose answers do not say.
    ///
    /// # Errors
    /// As [`Layout::label_map`].
    pub fn decide(&self, laid: &Laid, answer: &Answer, to: (u32, u32), name: &str) -> Result<Option<parser::Decided>> {
        match (self, laid, answer) {
            (Self::Parser(layout), Laid::Parser(canvas), Answer::Parser(answer)) => {
                layout.decide(canvas, answer, to).map(Some).map_err(|problem| Error::runtime(name, problem))
            }
            _ => Ok(None),
        }
    }

    /// As [`Layout::label_map`], with how sure the network is of each pixel's category: `[height, width]`, 0 to 1 as 0 to
    /// [`CERTAIN`]; `None` if the answer does not say.
    ///
    /// # Errors
    /// As [`Layout::label_map`].
    pub fn label_map_with_certainty(
        &self,
        laid: &Laid,
        answer: &Answer,
        to: (u32, u32),
        name: &str,
    ) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
        if let (Self::Own(spec), Laid::Own(canvas), Answer::Own { label_map, certainty }) = (self, laid, answer) {
            let at_size = |map: &Vec<u8>| canvas.label_map(spec, map, to);
            return Ok((at_size(label_map), certainty.as_ref().map(at_size)));
        }
        let decided = self.decide(laid, answer, to, name)?.expect("a parser decides");
        let byte = |certainty: f32| (certainty * f32::from(CERTAIN)).round() as u8;
        Ok((decided.label_map, Some(decided.certainty.into_iter().map(byte).collect())))
    }
}
