//! Why two photos correlate as they do: the terms of the cells, whose sum is the correlation.
//!
//! With a and b the shares of two photos over n cells, absent = 0, the term of cell p is
//!
//! - `pearson`: `(a_p - m_a)(b_p - m_b) / (s_a s_b)`, with m the means over the cells and s the norms of the rows less them;
//! - `cosine`: `a_p b_p / (|a| |b|)`;
//! - `co_rated`: as `pearson`, over the cells that both have;
//! - `latent`: what cell p of the query contributes to the product of the projected rows (`similarity/latent.rs`);
//! - `embedding`: none, since its dimensions have no names. The terms of `pearson` are given, which sum to that.

use serde::Serialize;

/// A cell of one or both of two photos.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SharedCell {
    /// The cell, `<category>_<color>`.
    pub name: String,
    /// Share of the query's apparel pixels, 0 to 1.
    pub share: f32,
    /// Share of the neighbour's apparel pixels, 0 to 1.
    pub neighbour_share: f32,
    /// The cell's term in the sum that makes up the correlation, -1 to 1. For `embedding`, whose own dimensions have no names,
    /// it is the term of `pearson`.
    pub contribution: f32,
}

/// The terms of a correlation.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Why {
    /// The cells that both photos have, those that contribute most to the correlation first.
    pub shared_cells: Vec<SharedCell>,
    /// The cells that only one of them has, those that lower the correlation most first.
    pub unshared_cells: Vec<SharedCell>,
    /// What all cells that neither has contribute together, for `latent` the means that are taken off. With those of the cells it
    /// sums to the correlation.
    pub other_cells: f32,
}

impl Why {
    /// From the cells of either photo, as (cell, share, share of the other) and term.
    pub(super) fn new(
        cells: impl Iterator<Item = ((usize, f64, f64), f64)>,
        other_cells: f64,
        names: &[String],
    ) -> Self {
        let named = |((cell, share, neighbour_share), contribution): ((usize, f64, f64), f64)| SharedCell {
            name: names[cell].clone(),
            share: share as f32,
            neighbour_share: neighbour_share as f32,
            contribution: contribution as f32,
        };
        let is_shared = |it: &SharedCell| it.share != 0.0 && it.neighbour_share != 0.0;
        let (mut shared_cells, mut unshared_cells): (Vec<_>, Vec<_>) = cells.map(named).partition(is_shared);
        shared_cells.sort_by(|a, b| b.contribution.total_cmp(&a.contribution));
        unshared_cells.sort_by(|a, b| a.contribution.total_cmp(&b.contribution));
        Self { shared_cells, unshared_cells, other_cells: other_cells as f32 }
    }

    /// All cells of either photo.
    pub fn cells(&self) -> impl Iterator<Item = &SharedCell> {
        self.shared_cells.iter().chain(&self.unshared_cells)
    }

    /// The sum of all terms: the correlation, to a few units of f32 in the last place.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.cells().map(|it| f64::from(it.contribution)).sum::<f64>() + f64::from(self.other_cells)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use crate::features::FeatureTable;
    use crate::labels::LabelSet;
    use crate::similarity::{CellChoice, Comparison, Correlator, Measure};

    /// 60 photos with up to 16 of 30 cells, which often agree in some.
    fn drawn() -> FeatureTable {
        let labels = LabelSet::cfpd();
        let (count, mut random) = (labels.cell_count(), ChaCha8Rng::seed_from_u64(19));
        let mut cells = vec![0.0; 60 * count];
        for row in cells.chunks_exact_mut(count) {
            for _ in 0..random.random_range(4..16) {
                row[random.random_range(0..30_usize) * 5] = random.random_range(0.01..0.5_f32);
            }
        }
        FeatureTable::unnamed(cells, labels)
    }

    #[test]
    fn the_terms_sum_to_the_correlation() {
        let features = drawn();
        let some = CellChoice { cells: (0..120).collect(), as_whole: false };
        let whole = CellChoice { cells: (0..120).collect(), as_whole: true };
        for choice in [CellChoice::all(features.labels.cell_count()), some, whole] {
            for measure in [Measure::Pearson, Measure::Cosine, Measure::CoRated, Measure::Latent] {
                let correlator = Correlator::of(&features, Comparison::from(measure), choice.clone());
                let mut defined = 0;
                for query in 0..features.len() {
                    let correlations = correlator.correlate(features.row(query));
                    for (row, &correlation) in correlations.iter().enumerate().filter(|it| !it.1.is_nan()) {
                        let why = correlator.why(features.row(query), row);
                        let apart = (why.sum() - f64::from(correlation)).abs();
                        assert!(apart < 3e-6, "{measure:?}, {query} and {row}: {} for {correlation}", why.sum());
                        defined += 1;
                    }
                }
                assert!(defined > 300, "{measure:?}: {defined}");
            }
        }
    }

    #[test]
    fn terms_are_those_worked_out_by_hand() {
        // Four cells: a = (1/2, 1/2, 0, 0), b = (1/2, 0, 1/2, 0). Means are 1/4, deviations +-1/4, norms 1/2.
        let labels = LabelSet::cfpd();
        let count = labels.cell_count();
        let mut cells = vec![0.0; 2 * count];
        (cells[0], cells[1], cells[count], cells[count + 2]) = (0.5, 0.5, 0.5, 0.5);
        let features = FeatureTable::unnamed(cells, labels);
        let choice = CellChoice { cells: vec![0, 1, 2, 3], as_whole: false };
        let of = |measure: Measure| {
            let why = Correlator::of(&features, measure.into(), choice.clone()).why(features.row(0), 1);
            let terms = |cells: &[super::SharedCell]| cells.iter().map(|it| it.contribution).collect::<Vec<_>>();
            (terms(&why.shared_cells), terms(&why.unshared_cells), why.other_cells)
        };
        assert_eq!(of(Measure::Pearson), (vec![0.25], vec![-0.25, -0.25], 0.25));
        let (shared, unshared, others) = of(Measure::Cosine);
        assert!((shared[0] - 0.5).abs() < 1e-6 && unshared == [0.0, 0.0] && others == 0.0, "{shared:?}");
    }
}
