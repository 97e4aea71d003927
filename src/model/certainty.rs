//! How sure a network of ours is: the probability of each category, pixel by pixel.

use ort::session::Session;
use ort::value::Tensor;

use super::files::PREDICT_FILE;
use super::layout::CERTAIN;
use crate::engine::{DialectChoice, Engine};
use crate::error::{Error, Result};
use crate::graph::{self, Spec};
use crate::runtime::{self, failed};

/// A loaded `predict.onnx` whose probabilities are read. Its operators are the standard ones, slower than those of
/// [`Predictor`](super::Predictor), which gives label maps alone.
#[derive(Debug)]
pub struct Certainty {
    session: Session,
    spec: Spec,
}

impl Certainty {
    /// Loads the network `predict`, the content of a `predict.onnx`.
    ///
    /// # Errors
    /// [`Error::Runtime`] if ONNX Runtime is missing, [`Error::Input`] if the network is not one of ours.
    pub fn new(predict: &[u8], engine: Engine) -> Result<Self> {
        let (spec, _) = graph::read_predict(predict)
            .map_err(|problem| Error::input(PREDICT_FILE, format!("{problem}; train the model again")))?;
        let engine = Engine { dialect: DialectChoice::Portable, ..engine };
        let (session, _) = runtime::session(PREDICT_FILE, |_| predict.to_vec(), engine)?;
        Ok(Self { session, spec })
    }

    /// The network's specification, which defines the canvas that photos are placed on.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The probability of each category for the pixels of canvases, one after the other: `[photos, maps, map rows, map
    /// columns]`, 0 to 1.
    ///
    /// # Errors
    /// [`Error::Runtime`].
    pub fn probabilities(&mut self, pixels: Vec<u8>) -> Result<Vec<f32>> {
        let (rows, columns) = (self.spec.rows(), self.spec.columns());
        let dims = [pixels.len() / (rows * columns * 3), rows, columns, 3];
        let input = Tensor::from_array((dims, pixels)).map_err(failed(PREDICT_FILE))?;
        let outputs = self.session.run(ort::inputs! { "photos" => input }).map_err(failed(PREDICT_FILE))?;
        let probabilities = outputs["probabilities"].try_extract_tensor::<f32>().map_err(failed(PREDICT_FILE))?;
        Ok(probabilities.1.to_vec())
    }

    /// The largest probability of each pixel of a canvas, at the size of its label map, `[label map rows, label map
    /// columns]`: 0 to 1 as 0 to [`CERTAIN`].
    ///
    /// # Errors
    /// [`Error::Runtime`].
    pub fn on_canvas(&mut self, pixels: Vec<u8>) -> Result<Vec<u8>> {
        let (rows, columns) = (self.spec.label_map_rows(), self.spec.label_map_columns());
        let (map_rows, map_columns) = (self.spec.map_rows(), self.spec.map_columns());
        let largest = largest(&self.probabilities(pixels)?, map_rows * map_columns);
        let of_pixel =
            |row: usize, column: usize| largest[row * map_rows / rows * map_columns + column * map_columns / columns];
        Ok((0..rows)
            .flat_map(|row| (0..columns).map(move |column| (row, column)))
            .map(|(row, column)| of_pixel(row, column))
            .collect())
    }
}

/// The largest of the maps, one after the other, of `pixels` probabilities each.
fn largest(probabilities: &[f32], pixels: usize) -> Vec<u8> {
    let maps = || probabilities.chunks_exact(pixels);
    let of_pixel = |pixel: usize| maps().map(|map| map[pixel]).fold(0.0, f32::max);
    (0..pixels).map(|pixel| (of_pixel(pixel) * f32::from(CERTAIN)).round() as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::Canvas;
    use crate::engine::Engine;
    use crate::graph::Loss;
    use crate::graph::parameters;
    use crate::labels::CATEGORY_COUNT;
    use crate::photo::Photo;

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
        let canvas = Canvas::new(&spec, &photo);
        let on_canvas = Certainty::new(&predict, Engine::default())?.on_canvas(canvas.pixels.clone())?;
        let map = canvas.label_map(&spec, &on_canvas, photo.size());
        // 255 / 23 = 11.09.
        assert!(map.len() == 40 * 60 && map.iter().all(|&it| it == 11), "{map:?}");
        Ok(())
    }
}
