//! Photos as vectors: those of similar photos have similar directions.

use std::sync::Arc;

use super::answer::{Answer, Answered};
use super::input::Canvas;
use super::layout::Layout;
use super::network::Network;
use crate::engine::Backend;
use crate::error::{Error, Result};
use crate::photo::Photo;

/// An opened network that gives embeddings.
#[derive(Debug)]
pub struct Embedder {
    network: Network,
    id: String,
    dimensions: usize,
}

impl Embedder {
    /// Of an opened network of the kind `embedding`. It is run once: not every file says how many numbers it gives.
    ///
    /// # Errors
    /// As [`Network::run`].
    pub(super) fn new(mut network: Network, id: String) -> Result<Self> {
        let grey = Photo { width_px: 2, height_px: 2, rgb: vec![128; 2 * 2 * 3] };
        let canvas = network.layout().lay(&grey);
        let dimensions = network.run(&[&canvas])?.into_iter().map(|it| vector_of(it).len()).sum();
        Ok(Self { network, id, dimensions })
    }

    /// How photos are laid onto the input.
    #[must_use]
    pub fn layout(&self) -> &Arc<Layout> {
        self.network.layout()
    }

    /// Identity of the embedder, as [`Parser::id`](super::Parser::id).
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Number of dimensions of its embeddings.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// The backend actually in use.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.network.backend()
    }

    /// Runs the network. Returns one embedding per canvas, of length 1; `None` if the network gave a number that is not
    /// finite, or nothing but zeros.
    ///
    /// # Errors
    /// [`Error::Runtime`] if it fails, or gives another number of dimensions than before.
    pub fn run(&mut self, canvases: &[&Canvas]) -> Result<Vec<Option<Vec<f32>>>> {
        let vectors = self.network.run(canvases)?.into_iter().map(vector_of);
        let embedding = |vector: Vec<f32>| {
            if vector.len() == self.dimensions {
                return Ok(unit(&vector));
            }
            let problem = format!("gave {} numbers, and {} before", vector.len(), self.dimensions);
            Err(Error::runtime(self.network.name(), problem))
        };
        vectors.map(embedding).collect()
    }
}

/// What a network of the kind `embedding` gives.
fn vector_of(answer: Answer) -> Vec<f32> {
    match answer.values {
        Answered::Embedding(vector) => vector,
        Answered::Scores(_) | Answered::Classes(_) => unreachable!("its kind is embedding"),
    }
}

/// Length of a vector; NaN or infinite if one of its numbers is.
pub(super) fn length(vector: &[f32]) -> f64 {
    vector.iter().map(|&it| f64::from(it).powi(2)).sum::<f64>().sqrt()
}

/// The vector of length 1 of the same direction, if it has one.
fn unit(vector: &[f32]) -> Option<Vec<f32>> {
    let length = length(vector);
    (length.is_finite() && length > 0.0).then(|| vector.iter().map(|&it| (f64::from(it) / length) as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_have_length_1_or_are_none() {
        assert_eq!(unit(&[3.0, -4.0]), Some(vec![0.6, -0.8]));
        assert_eq!(unit(&[f32::MAX, 0.0]), Some(vec![1.0, 0.0]), "no overflow");
        assert_eq!(unit(&[0.0, 1e-45]), Some(vec![0.0, 1.0]));
        for none in [[0.0, 0.0], [1.0, f32::NAN], [f32::INFINITY, 1.0], [f32::NEG_INFINITY, f32::INFINITY]] {
            assert_eq!(unit(&none), None, "{none:?}");
        }
    }
}
