//! What the contestants start from.

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;

use crate::Result;

/// Categories that the network tells apart.
pub const CATEGORIES: usize = 23;
/// Channels of the levels of the network, top to bottom.
pub const CHANNELS: [usize; 5] = [8, 16, 32, 64, 128];
/// Adam, as in the recipe `seed`.
pub const LEARNING_RATE: f64 = 1e-3;
/// Decay of the first moment.
pub const BETA_1: f64 = 0.9;
/// Decay of the second moment.
pub const BETA_2: f64 = 0.999;
/// What keeps the quotient finite: added as Keras does, before the bias correction.
pub const EPSILON: f64 = 1e-7;

/// A tensor: its shape and values.
pub struct Values {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Photos, labels and weights.
pub struct Inputs {
    /// Photos, rows and columns.
    pub size: [usize; 3],
    /// `[batch, rows, columns, 3]`.
    pub photos: Vec<u8>,
    /// Of all pixels, or fewer: the recipe `pretrained` learns at half the size.
    pub labels: Vec<u8>,
    /// By name: those of the convolutions are OIHW (IOHW if transposed).
    pub weights: HashMap<String, Values>,
}

impl Inputs {
    /// Loads the first `batch` photos and their labels, and the weights.
    pub fn load(folder: &Path, batch: usize) -> Result<Self> {
        let bytes = std::fs::read(folder.join("examples.safetensors"))?;
        let examples = SafeTensors::deserialize(&bytes)?;
        let (photos, labels) = (examples.tensor("photos")?, examples.tensor("labels")?);
        let &[_, rows, columns, 3] = photos.shape() else {
            return Err("photos are not [photos, rows, columns, 3]".into());
        };
        let of_labels = batch * labels.shape()[1..].iter().product::<usize>();
        let bytes = std::fs::read(folder.join("weights.safetensors"))?;
        let weights = SafeTensors::deserialize(&bytes)?;
        Ok(Self {
            size: [batch, rows, columns],
            photos: photos.data()[..batch * rows * columns * 3].to_vec(),
            labels: labels.data()[..of_labels].to_vec(),
            weights: weights.iter().map(|(name, view)| (name.to_owned(), values(&view))).collect(),
        })
    }

    /// The weights of this name.
    pub fn of(&self, name: &str) -> Result<&Values> {
        self.weights.get(name).ok_or_else(|| format!("there are no weights '{name}'").into())
    }
}

fn values(view: &safetensors::tensor::TensorView) -> Values {
    let (floats, _) = view.data().as_chunks();
    Values { shape: view.shape().to_vec(), values: floats.iter().map(|&it| f32::from_le_bytes(it)).collect() }
}
