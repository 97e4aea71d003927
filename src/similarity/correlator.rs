//! The photos of a feature table, prepared for comparison with each other and with other photos.

use std::ops::Range;
use std::sync::Arc;

use super::co_rated::CoRated;
use super::config::{Config, DEFAULT_LATENT_DIMENSIONS, DEFAULT_MIN_COMMON, Measure};
use super::latent::Latent;
use super::nearest::Nearest;
use super::pearson::Centred;
use super::sparse::{BLOCK, CellChoice, SparseRow, SparseRows};
use super::why::Why;
use crate::features::{Embeddings, FeatureTable};

/// A measure with its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// How similarity is measured.
    pub measure: Measure,
    /// For `co_rated`: minimum number of cells that two photos must have in common.
    pub min_common: u32,
    /// For `latent`: maximum number of dimensions of the truncated SVD.
    pub latent_dimensions: usize,
}

impl From<&Config> for Comparison {
    fn from(config: &Config) -> Self {
        let Config { measure, min_common, latent_dimensions, .. } = *config;
        Self { measure, min_common, latent_dimensions }
    }
}

impl From<Measure> for Comparison {
    fn from(measure: Measure) -> Self {
        Self { measure, min_common: DEFAULT_MIN_COMMON, latent_dimensions: DEFAULT_LATENT_DIMENSIONS }
    }
}

/// A feature table prepared for a measure.
#[derive(Debug)]
pub struct Correlator {
    /// Number of cells of the table.
    cell_count: usize,
    /// Those that count.
    choice: CellChoice,
    /// Their names.
    names: Vec<String>,
    photo_ids: Vec<u32>,
    photos: PreparedPhotos,
    kernel: Kernel,
}

/// Photos in the form that the kernels take.
#[derive(Debug)]
struct PreparedPhotos {
    rows: SparseRows,
    /// For `latent`: `[photos, dimensions]`, rows of length 1.
    vectors: Vec<f32>,
}

#[derive(Debug)]
enum Kernel {
    Centred(Centred),
    CoRated(CoRated),
    Latent(Latent),
    /// `None` if the table has no embeddings: nothing is defined.
    Embedding(Option<Arc<Embeddings>>),
}

impl Correlator {
    /// Prepares the rows of `features`.
    #[must_use]
    pub fn new(features: &FeatureTable, comparison: Comparison) -> Self {
        Self::of(features, comparison, CellChoice::all(features.labels.cell_count()))
    }

    /// As [`Correlator::new`], with only the cells of `choice`, as though the table had no others. The measure `embedding`
    /// compares no cells.
    #[must_use]
    pub fn of(features: &FeatureTable, comparison: Comparison, choice: CellChoice) -> Self {
        let cell_count = features.labels.cell_count();
        let rows = SparseRows::of(&features.cells, cell_count, &choice);
        let kernel = match comparison.measure {
            Measure::Pearson => Kernel::Centred(Centred::new(&rows, true)),
            Measure::Cosine => Kernel::Centred(Centred::new(&rows, false)),
            Measure::CoRated => Kernel::CoRated(CoRated::new(&rows, comparison.min_common)),
            Measure::Latent => Kernel::Latent(Latent::new(&rows, comparison.latent_dimensions)),
            Measure::Embedding => Kernel::Embedding(features.embeddings.clone()),
        };
        let names = choice.cells.iter().map(|&cell| features.labels.cell_names()[cell].clone()).collect();
        let photos = kernel.photos(rows);
        Self { cell_count, choice, names, photo_ids: features.photo_ids.clone(), photos, kernel }
    }

    /// Number of photos.
    #[must_use]
    pub fn len(&self) -> usize {
        self.photo_ids.len()
    }

    /// Whether there are no photos.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.photo_ids.is_empty()
    }

    /// Ids of the photos, by row.
    #[must_use]
    pub fn photo_ids(&self) -> &[u32] {
        &self.photo_ids
    }

    /// Share of the table's variance that the dimensions of `latent` explain, 0 to 1; `None` for other measures.
    #[must_use]
    pub fn variance_share(&self) -> Option<f64> {
        match &self.kernel {
            Kernel::Latent(latent) => Some(latent.variance_share),
            _ => None,
        }
    }

    /// The correlations of a photo of the table with all photos, itself included; NaN if undefined.
    #[must_use]
    pub fn row(&self, row: usize) -> Vec<f32> {
        self.all_blocks(&self.photos, row)
    }

    /// The correlations of another photo's cells (absent = 0) with all photos of the table; NaN if undefined, which all
    /// are for the measure `embedding`.
    #[must_use]
    pub fn correlate(&self, cells: &[f32]) -> Vec<f32> {
        if matches!(self.kernel, Kernel::Embedding(_)) {
            return vec![f32::NAN; self.len()];
        }
        self.all_blocks(&self.kernel.photos(self.sparse(cells)), 0)
    }

    fn sparse(&self, cells: &[f32]) -> SparseRows {
        SparseRows::of(cells, self.cell_count, &self.choice)
    }

    /// The cosines of another photo's embedding (of length 1) with those of all photos of the table; NaN if undefined, which
    /// all are for other measures, and for an embedding of another length.
    #[must_use]
    pub fn correlate_embedding(&self, embedding: &[f32]) -> Vec<f32> {
        let mut cosines = vec![f32::NAN; self.len()];
        if let Kernel::Embedding(Some(embeddings)) = &self.kernel
            && embeddings.of().dimensions == embedding.len()
        {
            for (block, cosines) in cosines.chunks_mut(BLOCK).enumerate() {
                write_cosines(embeddings, embedding, block, cosines, BLOCK);
            }
        }
        cosines
    }

    fn all_blocks(&self, photos: &PreparedPhotos, row: usize) -> Vec<f32> {
        let mut correlations = vec![0.0; self.len()];
        for (block, of_block) in correlations.chunks_mut(BLOCK).enumerate() {
            self.tile_of(photos, row..row + 1, block, of_block, BLOCK);
        }
        correlations
    }

    /// The rows of block `block`: [`BLOCK`] of them, fewer in the last block.
    pub(super) fn block(&self, block: usize) -> Range<usize> {
        block * BLOCK..((block + 1) * BLOCK).min(self.len())
    }

    /// Writes the correlations of the photos `rows` with those of block `block` into `tile`, one row every `stride`
    /// elements; NaN if undefined.
    pub(super) fn tile(&self, rows: Range<usize>, block: usize, tile: &mut [f32], stride: usize) {
        self.tile_of(&self.photos, rows, block, tile, stride);
    }

    fn tile_of(&self, photos: &PreparedPhotos, rows: Range<usize>, block: usize, tile: &mut [f32], stride: usize) {
        let columns = self.block(block);
        match &self.kernel {
            Kernel::Latent(latent) => {
                let d = latent.dimensions();
                return latent.correlate(&photos.vectors[rows.start * d..rows.end * d], columns, tile, stride);
            }
            Kernel::Embedding(Some(embeddings)) => {
                return write_cosines(embeddings, &embeddings.vectors(rows), block, tile, stride);
            }
            _ => {}
        }
        for (row, line) in rows.zip(tile.chunks_mut(stride)) {
            let (row, line) = (photos.rows.row(row), &mut line[..columns.len()]);
            match &self.kernel {
                Kernel::Centred(centred) => centred.correlate(row, &self.photos.rows, block, line),
                Kernel::CoRated(co_rated) => co_rated.correlate(row, &self.photos.rows, block, line),
                Kernel::Embedding(None) => line.fill(f32::NAN),
                Kernel::Latent(_) | Kernel::Embedding(Some(_)) => {}
            }
        }
    }

    /// The rows with the `top` largest correlations among those that `allowed` accepts, nearest first, ties by photo
    /// id.
    #[must_use]
    pub fn nearest(&self, correlations: &[f32], top: usize, allowed: impl Fn(usize) -> bool) -> Vec<(usize, f32)> {
        let masked: Vec<f32> =
            correlations.iter().enumerate().map(|(row, &it)| if allowed(row) { it } else { f32::NAN }).collect();
        let mut nearest = Nearest::new(&self.photo_ids, 1, top);
        nearest.offer_row(0, 0, &masked);
        nearest.lists.into_iter().flatten().map(|(row, correlation)| (row as usize, correlation)).collect()
    }

    /// Why a photo with these cells correlates with row `row` as it does.
    #[must_use]
    pub fn why(&self, cells: &[f32], row: usize) -> Why {
        let query = self.sparse(cells);
        let (query, other) = (query.row(0), self.photos.rows.row(row));
        let (terms, others) = self.kernel.terms(query, other);
        Why::new(query.either(other).zip(terms), others, &self.names)
    }

    /// The cells of a photo that count, by name, with their shares.
    #[must_use]
    pub fn counted<'a>(&'a self, cells: &[f32]) -> Vec<(&'a str, f32)> {
        let row = self.sparse(cells);
        row.row(0).iter().map(|(cell, share)| (self.names[cell].as_str(), share as f32)).collect()
    }

    /// The correlation of two photos of the table; NaN if undefined.
    #[must_use]
    pub fn correlation(&self, row: usize, other: usize) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>().clamp(-1.0, 1.0);
        match &self.kernel {
            Kernel::Centred(centred) => centred.pair(&self.photos.rows, row, other),
            Kernel::CoRated(co_rated) => co_rated.pair(self.photos.rows.row(row), self.photos.rows.row(other)),
            Kernel::Latent(latent) => {
                let d = latent.dimensions();
                let vector = |row: usize| &self.photos.vectors[row * d..(row + 1) * d];
                dot(vector(row), vector(other))
            }
            Kernel::Embedding(Some(embeddings)) => {
                let [row, other] = [row, other].map(|it| embeddings.vectors(it..it + 1));
                dot(&row, &other)
            }
            Kernel::Embedding(None) => f32::NAN,
        }
    }

    /// Number of cells that two photos of the table have in common.
    #[must_use]
    pub fn cells_in_common(&self, row: usize, other: usize) -> u32 {
        self.photos.rows.row(row).common(self.photos.rows.row(other)).count() as u32
    }
}

/// The cosines of `vectors`, `[vectors, dimensions]`, with the embeddings of a block, one row every `stride` elements.
fn write_cosines(embeddings: &Embeddings, vectors: &[f32], block: usize, cosines: &mut [f32], stride: usize) {
    let products = embeddings.products(vectors, block);
    for (line, products) in cosines.chunks_mut(stride).zip(products.rows()) {
        for (cosine, product) in line.iter_mut().zip(products) {
            *cosine = product.clamp(-1.0, 1.0);
        }
    }
}

impl Kernel {
    fn photos(&self, rows: SparseRows) -> PreparedPhotos {
        let vectors = if let Self::Latent(latent) = self { latent.vectors(&rows) } else { Vec::new() };
        PreparedPhotos { rows, vectors }
    }

    /// The correlation's terms for the cells of either row, by ascending cell, and the sum of those of all other cells.
    fn terms(&self, a: SparseRow, b: SparseRow) -> (Vec<f64>, f64) {
        match self {
            Self::Centred(centred) => centred.terms(a, b),
            Self::CoRated(_) => (super::co_rated::terms(a, b), 0.0),
            Self::Latent(latent) => latent.terms(a, b),
            Self::Embedding(_) => super::pearson::terms(a, b, true),
        }
    }
}
