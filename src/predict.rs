//! A trained model: photos in, label maps out.

use std::path::Path;

use crate::error::Result;
use crate::photo::Photo;
use crate::runtime::Device;

/// A loaded `predict.onnx`.
#[derive(Debug)]
pub struct Predictor {}

impl Predictor {
    /// Loads the model of a model folder.
    ///
    /// # Errors
    /// [`crate::Error::Runtime`] where ONNX Runtime or the model is missing or wrong.
    pub fn load(_model: &Path, _device: Device, _threads: usize) -> Result<Self> {
        unimplemented!()
    }

    /// Identity of the model: the first 16 hexadecimal digits of the SHA-256 of `predict.onnx`.
    #[must_use]
    pub fn model_id(&self) -> &str {
        unimplemented!()
    }

    /// "cpu" or "cuda": what really runs.
    #[must_use]
    pub fn execution_provider(&self) -> &'static str {
        unimplemented!()
    }

    /// Category of each pixel of each photo: `[height, width]` u8, 0 to 22, at the photo's own size. Photos are at most
    /// 400 x 600 (as [`crate::photo::fit`] makes them); any number of them, run in batches of the model's own.
    ///
    /// # Errors
    /// [`crate::Error::Runtime`].
    pub fn label_maps(&mut self, _photos: &[Photo]) -> Result<Vec<Vec<u8>>> {
        unimplemented!()
    }
}
