//! How good each measure is: how often a photo's nearest neighbours wear what it wears, compared with random photos.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::config::Measure;
use super::correlator::Correlator;
use crate::features::FeatureTable;

/// Maximum number of photos whose neighbours are evaluated, evenly spaced over those in which something is worn.
pub const MAX_QUERIES: usize = 1000;

/// How similar photos are to their nearest neighbours by one measure: means over pairs of a photo and a neighbour, 0 to
/// 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Likeness {
    /// `None` for other photos drawn at random.
    pub measure: Option<Measure>,
    /// Number of pairs of a photo and one of its neighbours.
    pub pairs: usize,
    /// Share of pairs that wear exactly the same categories.
    pub same_categories: f64,
    /// Mean share of categories worn in both among those worn in either (Jaccard).
    pub category_overlap: f64,
    /// Share of pairs with the same largest cell (category and colour).
    pub same_dominant_cell: f64,
}

/// The nearest neighbours of some photos by each measure, and others drawn at random.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearests {
    /// Rows of the photos whose neighbours are given.
    pub queries: Vec<usize>,
    /// One entry for each measure, the random ones last.
    pub by_measure: Vec<ByMeasure>,
}

/// The nearest neighbours by one measure.
#[derive(Debug, Clone, PartialEq)]
pub struct ByMeasure {
    /// `None` for other photos drawn at random.
    pub measure: Option<Measure>,
    /// By query: rows and their correlations, NaN for random ones.
    pub nearest: Vec<Vec<(usize, f32)>>,
}

/// The `top` nearest neighbours of at most [`MAX_QUERIES`] photos by every measure; by `embedding` if the table's embeddings
/// were read.
#[must_use]
pub fn nearest_by_measure(features: &FeatureTable, top: usize, seed: u64) -> Nearests {
    let worn: Vec<usize> = (0..features.len()).filter(|&row| features.row(row).iter().any(|&it| it > 0.0)).collect();
    let count = worn.len().min(MAX_QUERIES);
    let queries: Vec<usize> = (0..count).map(|query| worn[(2 * query + 1) * worn.len() / (2 * count)]).collect();
    let by = |measure: Measure| {
        let correlator = Correlator::new(features, measure.into());
        let nearest = |&query: &usize| correlator.nearest(&correlator.row(query), top, |other| other != query);
        ByMeasure { measure: Some(measure), nearest: queries.par_iter().map(nearest).collect() }
    };
    let is_possible = |it: &Measure| *it != Measure::Embedding || features.embeddings.is_some();
    let mut by_measure: Vec<_> = Measure::ALL.into_iter().filter(is_possible).map(by).collect();
    by_measure.push(ByMeasure { measure: None, nearest: drawn(&queries, &worn, top, seed) });
    Nearests { queries, by_measure }
}

/// For each query, `top` other photos of `worn`; none if there is no other.
fn drawn(queries: &[usize], worn: &[usize], top: usize, seed: u64) -> Vec<Vec<(usize, f32)>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut other = |query: usize| {
        // The last one stands in for the query itself, so that all others are equally likely.
        let row = worn[random.random_range(0..worn.len() - 1)];
        (if row == query { worn[worn.len() - 1] } else { row }, f32::NAN)
    };
    let draws = if worn.len() > 1 { top } else { 0 };
    queries.iter().map(|&query| (0..draws).map(|_| other(query)).collect()).collect()
}

/// How similar photos are to their neighbours, by measure; the random ones (`None`) last.
#[must_use]
pub fn likeness(features: &FeatureTable, nearests: &Nearests) -> Vec<Likeness> {
    let worn = |cells: &[f32]| categories(cells, features.labels.cells_per_category());
    let of = |ByMeasure { measure, nearest }: &ByMeasure| {
        let pairs: Vec<(usize, usize)> = nearests
            .queries
            .iter()
            .zip(nearest)
            .flat_map(|(&query, nearest)| nearest.iter().map(move |&(other, _)| (query, other)))
            .collect();
        let mean = |like: &dyn Fn(&[f32], &[f32]) -> f64| {
            let sum: f64 = pairs.iter().map(|&(a, b)| like(features.row(a), features.row(b))).sum();
            sum / pairs.len().max(1) as f64
        };
        Likeness {
            measure: *measure,
            pairs: pairs.len(),
            same_categories: mean(&|a, b| f64::from(u8::from(worn(a) == worn(b)))),
            category_overlap: mean(&|a, b| overlap(worn(a), worn(b))),
            same_dominant_cell: mean(&|a, b| f64::from(u8::from(dominant_cell(a) == dominant_cell(b)))),
        }
    };
    nearests.by_measure.iter().map(of).collect()
}

/// The categories that are present, one bit each; each has `colors` cells.
fn categories(cells: &[f32], colors: usize) -> u64 {
    let of_category = cells.chunks_exact(colors).map(|colors| colors.iter().any(|&share| share > 0.0));
    of_category.enumerate().filter(|(_, is_present)| *is_present).fold(0, |set, (rank, _)| set | 1 << rank)
}

fn overlap(a: u64, b: u64) -> f64 {
    f64::from((a & b).count_ones()) / f64::from((a | b).count_ones().max(1))
}

/// The cell with the largest share, the first on a tie.
fn dominant_cell(cells: &[f32]) -> usize {
    (0..cells.len()).fold(0, |largest, cell| if cells[cell] > cells[largest] { cell } else { largest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::{CELL_COUNT, LabelSet};

    /// Photos with shares in some cells; each category has 12 cells.
    fn table(photos: &[&[(usize, f32)]]) -> FeatureTable {
        let mut cells = vec![0.0; photos.len() * CELL_COUNT];
        for (row, photo) in photos.iter().enumerate() {
            photo.iter().for_each(|&(cell, share)| cells[row * CELL_COUNT + cell] = share);
        }
        FeatureTable {
            photo_ids: (0..photos.len() as u32).collect(),
            file_names: vec![String::new(); photos.len()],
            paths: vec![String::new(); photos.len()],
            content_sha256: vec![String::new(); photos.len()],
            apparel_px: vec![100; photos.len()],
            cells,
            embeddings: None,
            labels: LabelSet::cfpd(),
        }
    }

    #[test]
    fn likeness_counts_sets_overlaps_and_dominant_cells() {
        let photos: [&[_]; 4] = [&[(0, 0.6), (12, 0.4)], &[(0, 0.3), (1, 0.2), (12, 0.5)], &[(0, 0.9), (30, 0.1)], &[]];
        let features = table(&photos);
        let nearests = Nearests {
            queries: vec![0],
            by_measure: vec![ByMeasure { measure: None, nearest: vec![vec![(1, 0.0), (2, 0.0)]] }],
        };
        let [found] = &likeness(&features, &nearests)[..] else { panic!("one measure") };
        // Photo 0 wears categories 0 and 1, 1 wears 0 and 1, 2 wears 0 and 2.
        assert_eq!((found.pairs, found.same_categories, found.same_dominant_cell), (2, 0.5, 0.5));
        assert!((found.category_overlap - 2.0 / 3.0).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn nobody_is_asked_who_wears_nothing_and_nobody_is_near_to_himself() {
        let photos: Vec<Vec<(usize, f32)>> = (0..30)
            .map(|it| if it % 3 == 0 { vec![] } else { vec![(it % 7 * 12, 0.7), (100, 0.2), (it, 0.1)] })
            .collect();
        let features = table(&photos.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let nearests = nearest_by_measure(&features, 5, 1);
        assert_eq!(nearests.queries.len(), 20);
        assert_eq!(nearests.by_measure.len(), Measure::ALL.len(), "without embeddings, but with a random choice");
        for ByMeasure { measure, nearest } in &nearests.by_measure {
            for (query, others) in nearests.queries.iter().zip(nearest) {
                assert!(others.iter().all(|(other, _)| other != query && other % 3 != 0), "{measure:?}: {query}");
            }
        }
        let by_measure = likeness(&features, &nearests);
        assert!(by_measure[0].same_dominant_cell > by_measure[4].same_dominant_cell, "{by_measure:?}");
        assert_eq!(
            nearest_by_measure(&table(&[&[(0, 1.0)]]), 5, 1).by_measure[4].nearest,
            [vec![]],
            "there is no other"
        );
    }
}
