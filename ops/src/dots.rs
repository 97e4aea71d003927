//! Dot products of some vectors with many others, as one matrix product: of embeddings, all with all.

use super::Instructions;
use super::activation::Finish;
use super::maps::Source;
use super::product::{Pack, Packed, Places, RowProduct};

/// The number of vectors is filled up to a multiple of this.
const LANES: usize = 8;

/// Vectors of one length, in the order in which their products with others are computed. This takes no more memory than
/// the vectors themselves.
#[derive(Debug, PartialEq)]
pub struct Vectors {
    instructions: Instructions,
    packed: Packed,
    bias: Vec<f32>,
    len: usize,
    dimensions: usize,
}

impl Vectors {
    /// Packs `vectors`, `[vectors, dimensions]`.
    ///
    /// # Panics
    /// If there is no vector, or `vectors` is not of that shape.
    #[must_use]
    pub fn new(instructions: Instructions, mut vectors: Vec<f32>, dimensions: usize) -> Self {
        assert!(dimensions > 0 && !vectors.is_empty() && vectors.len().is_multiple_of(dimensions));
        let len = vectors.len() / dimensions;
        let columns = len.next_multiple_of(LANES);
        vectors.resize(columns * dimensions, 0.0);
        let places =
            Places { rows: (0..dimensions).collect(), columns: (0..columns).map(|it| it * dimensions).collect() };
        let packed = instructions.run(Pack { tensor: &vectors, places, first_output: columns });
        Self { instructions, packed, bias: vec![0.0; columns], len, dimensions }
    }

    /// Number of vectors.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Vector `index`, `[dimensions]`.
    pub fn vector(&self, index: usize) -> impl Iterator<Item = f32> {
        assert!(index < self.len);
        self.packed.column(index)
    }

    /// The dot products of `others`, `[others, dimensions]`, with each of the vectors. Each is the sum of its terms in order,
    /// so it depends neither on what else is computed nor on which of the two comes first.
    #[must_use]
    pub fn products(&self, others: &[f32]) -> Products {
        let count = others.len() / self.dimensions;
        let mut products = vec![0.0; count * self.bias.len()];
        if count > 0 {
            self.instructions.run(RowProduct {
                sources: &[Source { elements: others, stride: self.dimensions, run: self.dimensions }],
                weights: &self.packed,
                bias: &self.bias,
                pixels: count,
                finish: Finish::PLAIN,
                outputs: [&mut products, &mut []],
            });
        }
        Products { all: products, stride: self.bias.len(), len: self.len }
    }
}

/// The result of [`Vectors::products`].
pub struct Products {
    all: Vec<f32>,
    stride: usize,
    len: usize,
}

impl Products {
    /// For each of the others, its products with all vectors.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.all.chunks_exact(self.stride).map(|it| &it[..self.len])
    }
}
