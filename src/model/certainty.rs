//! How sure a network is: the probability of each pixel's category, for pictures of a few photos.

use ort::session::Session;
use ort::value::Tensor;

use super::files::PREDICT_FILE;
pub use super::layout::CERTAIN;
use super::predictor::Predictor;
use super::published::Model;
use crate::canvas::Canvas;
use crate::engine::{DialectChoice, Engine, PrecisionChoice};
use crate::error::{Error, Result};
use crate::graph::{self, Spec};
use crate::labels::CATEGORY_COUNT;
use crate::photo::Photo;
use crate::runtime::{self, failed};

/// How sure a model of ours or a parser is.
#[derive(Debug)]
pub enum Sureness {
    /// Ours.
    Own(Certainty),
    /// A parser's; 1 everywhere if it gives no scores.
    Parser(Predictor),
}

impl Sureness {
    /// Loads the network of an opened folder.
    ///
    /// # Errors
    /// As [`Certainty::new`] and [`Model::predictor`].
    pub fn of(model: &Model, engine: Engine) -> Result<Self> {
        match model.parser() {
            None => Certainty::new(model.predict()?, engine).map(Self::Own),
            Some(_) => model.predictor(engine, PrecisionChoice::F32).map(Self::Parser),
        }
    }

    /// The probability of the category of each pixel of a photo, `[height, width]`: 0 to 1 as 0 to [`CERTAIN`].
    ///
    /// # Errors
    /// [`Error::Runtime`], with the photo's `name` if a parser's answer for it is invalid.
    pub fn map(&mut self, photo: &Photo, name: &str) -> Result<Vec<u8>> {
        match self {
            Self::Own(certainty) => certainty.map(photo),
            Self::Parser(predictor) => {
                let laid = predictor.layout().lay(photo);
                let answer = predictor.run(std::iter::once(&laid))?.swap_remove(0);
                let certainties = predictor.layout().certainties(&laid, &answer, None, photo.size(), name)?;
                Ok(certainties.unwrap_or_default())
            }
        }
    }
}

/// A loaded `predict.onnx` whose probabilities are read. Its operators are the standard ones, slower than those of
/// [`Predictor`], which gives label maps alone.
#[derive(Debug)]
pub struct Certainty {
    session: Session,
    spec: Spec,
}

impl Certainty {
    /// Loads the network `predict`, the content of a `predict.onnx`.
    ///
    /// # Errors
    /// As [`Predictor::new`](super::Predictor::new).
    pub fn new(predict: &[u8], engine: Engine) -> Result<Self> {
        let (spec, _) = graph::read_predict(predict)
            .map_err(|problem| Error::input(PREDICT_FILE, format!("{problem}; train the model again")))?;
        let engine = Engine { dialect: DialectChoice::Portable, ..engine };
        let (session, _) = runtime::session(PREDICT_FILE, |_| predict.to_vec(), engine)?;
        Ok(Self { session, spec })
    }

    /// The largest probability of each pixel of a photo, `[height, width]`: 0 to 1 as 0 to [`CERTAIN`].
    ///
    /// # Errors
    /// [`Error::Runtime`].
    pub fn map(&mut self, photo: &Photo) -> Result<Vec<u8>> {
        let canvas = Canvas::new(&self.spec, photo);
        let on_canvas = self.on_canvas(canvas.pixels.clone())?;
        Ok(canvas.label_map(&self.spec, &on_canvas, photo.size()))
    }

    /// The same for the pixels of a canvas, of the size of its label map: `[label map rows, label map columns]`.
    ///
    /// # Errors
    /// [`Error::Runtime`].
    pub fn on_canvas(&mut self, pixels: Vec<u8>) -> Result<Vec<u8>> {
        let (rows, columns) = (self.spec.label_map_rows(), self.spec.label_map_columns());
        let dims = [1, self.spec.rows(), self.spec.columns(), 3];
        let input = Tensor::from_array((dims, pixels)).map_err(failed(PREDICT_FILE))?;
        let outputs = self.session.run(ort::inputs! { "photos" => input }).map_err(failed(PREDICT_FILE))?;
        let probabilities = outputs["probabilities"].try_extract_tensor::<f32>().map_err(failed(PREDICT_FILE))?;
        let (map_rows, map_columns) = (self.spec.map_rows(), self.spec.map_columns());
        let largest = largest(probabilities.1, map_rows * map_columns);
        let of_pixel =
            |row: usize, column: usize| largest[row * map_rows / rows * map_columns + column * map_columns / columns];
        Ok((0..rows)
            .flat_map(|row| (0..columns).map(move |column| (row, column)))
            .map(|(row, column)| of_pixel(row, column))
            .collect())
    }
}

/// The largest of the [`CATEGORY_COUNT`] maps, one after the other, of `pixels` probabilities each.
fn largest(probabilities: &[f32], pixels: usize) -> Vec<u8> {
    let maps = || probabilities.chunks_exact(pixels).take(CATEGORY_COUNT);
    let of_pixel = |pixel: usize| maps().map(|map| map[pixel]).fold(0.0, f32::max);
    (0..pixels).map(|pixel| (of_pixel(pixel) * f32::from(CERTAIN)).round() as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::graph::Loss;
    use crate::graph::parameters;

    #[test]
    fn the_largest_of_all_maps_is_taken() {
        let mut probabilities = vec![0.0; CATEGORY_COUNT * 2];
        (probabilities[0], probabilities[1], probabilities[CATEGORY_COUNT * 2 - 1]) = (0.25, 0.5, 1.0);
        assert_eq!(largest(&probabilities, 2), [64, 255]);
    }

    #[test]
    fn a_network_without_weights_is_as_unsure_as_can_be() -> Result<()> {
        let spec = Spec::seed(20, 30, Loss::Softmax);
        let predict = graph::predict(&spec, &vec![0.0; parameters::parameter_count(&spec)]);
        let photo = Photo { width_px: 40, height_px: 60, rgb: vec![90; 40 * 60 * 3] };
        let map = Certainty::new(&predict, Engine::default())?.map(&photo)?;
        // 255 / 23 = 11.09.
        assert!(map.len() == 40 * 60 && map.iter().all(|&it| it == 11), "{map:?}");
        Ok(())
    }
}
