//! The embeddings of a feature table in memory, in the form in which their products are computed.

use std::ops::Range;
use std::path::Path;

use arrow::array::{Array, AsArray, FixedSizeListArray, UInt32Array};
use arrow::datatypes::Float32Type;
use arrow::record_batch::RecordBatch;
use lookbook_ops::Instructions;
use lookbook_ops::dots::{Products, Vectors};
use lookbook_ops::pairs::BLOCK;

use super::rows::{EMBEDDING_COLUMN, Embedding, TABLE};
use crate::error::{Error, Result};
use crate::table::{self, Footer, column};

/// How far the square of an embedding's length may be from 1.
const LENGTH_TOLERANCE: f32 = 1e-3;

/// The embeddings of all photos of a table, vectors of length 1: 4 bytes for each number.
#[derive(Debug, PartialEq)]
pub struct Embeddings {
    of: Embedding,
    len: usize,
    missing: usize,
    blocks: Vec<Vectors>,
}

impl Embeddings {
    /// Reads those of a features folder; `None` if its table has none.
    ///
    /// # Errors
    /// [`Error::Input`] if its parts have embeddings of different embedders, or one is not of length 1; as
    /// [`table::read_table`].
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let parts = table::parts(folder)?;
        let of = |part| Footer::read(part).map(|it| Embedding::of(&it.schema));
        let first = of(&parts[0])?;
        for part in &parts[1..] {
            let other = of(part)?;
            if other != first {
                let [other, first] = [&other, &first].map(|it| described(it.as_ref()));
                let problem = format!("has {other}, but {} has {first}; run segment again", table::part_name(0));
                return Err(Error::input(part, problem));
            }
        }
        let Some(of) = first else { return Ok(None) };
        let mut reading = Reading { read: Self { of, len: 0, missing: 0, blocks: Vec::new() }, waiting: Vec::new() };
        for part in parts {
            for rows in table::read_table(&part, TABLE, &["photo_id", EMBEDDING_COLUMN], BLOCK)? {
                reading.add(&part, &rows?)?;
            }
        }
        reading.pack();
        Ok(Some(reading.read))
    }

    /// Whose they are.
    #[must_use]
    pub fn of(&self) -> &Embedding {
        &self.of
    }

    /// Number of photos.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no photos.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of photos without an embedding.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// The embeddings of the photos in the rows `rows`, `[rows, dimensions]`; NaN for a photo without one.
    #[must_use]
    pub fn vectors(&self, rows: Range<usize>) -> Vec<f32> {
        rows.flat_map(|row| self.blocks[row / BLOCK].vector(row % BLOCK)).collect()
    }

    /// Those of the rows that are `kept`, which has one element for each.
    pub(super) fn retained(&self, kept: &[bool]) -> Self {
        let mut reading =
            Reading { read: Self { of: self.of.clone(), len: 0, missing: 0, blocks: Vec::new() }, waiting: Vec::new() };
        for row in (0..self.len).filter(|&row| kept[row]) {
            let vector = self.vectors(row..row + 1);
            reading.read.missing += usize::from(vector.first().is_some_and(|it| it.is_nan()));
            reading.push(&vector);
        }
        reading.pack();
        reading.read
    }

    /// The products of `vectors`, `[vectors, dimensions]`, with the embeddings of block `block`.
    pub(crate) fn products(&self, vectors: &[f32], block: usize) -> Products {
        self.blocks[block].products(vectors)
    }
}

fn described(of: Option<&Embedding>) -> String {
    of.map_or("no embeddings".to_owned(), |it| {
        format!("embeddings of {} numbers by the embedder {}", it.dimensions, it.embedder)
    })
}

struct Reading {
    read: Embeddings,
    /// What is not packed yet.
    waiting: Vec<f32>,
}

impl Reading {
    fn add(&mut self, part: &Path, rows: &RecordBatch) -> Result<()> {
        let lists: &FixedSizeListArray = column(part, rows, EMBEDDING_COLUMN)?;
        let ids: &UInt32Array = column(part, rows, "photo_id")?;
        let values = lists.values().as_primitive_opt::<Float32Type>().ok_or_else(|| {
            Error::schema(part, format!("column '{EMBEDDING_COLUMN}' of f32"), lists.data_type().to_string())
        })?;
        let dimensions = self.read.of.dimensions;
        for row in 0..rows.num_rows() {
            if lists.is_null(row) {
                self.read.missing += 1;
                self.push(&vec![f32::NAN; dimensions]);
            } else {
                let vector = &values.values()[row * dimensions..][..dimensions];
                let square: f32 = vector.iter().map(|it| it * it).sum();
                if !(1.0 - LENGTH_TOLERANCE..=1.0 + LENGTH_TOLERANCE).contains(&square) {
                    let (id, length) = (ids.value(row), square.sqrt());
                    let problem = format!("photo_id {id}, column {EMBEDDING_COLUMN}: its length is {length}, not 1");
                    return Err(Error::input(part, problem));
                }
                self.push(vector);
            }
        }
        Ok(())
    }

    fn push(&mut self, vector: &[f32]) {
        self.waiting.extend_from_slice(vector);
        self.read.len += 1;
        if self.waiting.len() == BLOCK * self.read.of.dimensions {
            self.pack();
        }
    }

    fn pack(&mut self) {
        if !self.waiting.is_empty() {
            let vectors = std::mem::take(&mut self.waiting);
            self.read.blocks.push(Vectors::new(Instructions::best(), vectors, self.read.of.dimensions));
        }
    }
}
