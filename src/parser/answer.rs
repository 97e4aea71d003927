//! A network's answer for one photo.

/// The part of a network's output that belongs to one photo.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Height of the answer.
    pub rows: usize,
    /// Width of the answer.
    pub columns: usize,
    /// What it holds.
    pub values: Answered,
}

/// What an answer holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Answered {
    /// Logits or probabilities, `[classes, rows, columns]`.
    Scores(Vec<f32>),
    /// Classes, `[rows, columns]`.
    Classes(Vec<i64>),
    /// The photo's embedding, as the network gives it; rows and columns are 1.
    Embedding(Vec<f32>),
}
