//! Neighbours from an approximate index, for tables of which the exact ones would take too long.
//!
//! The index is a hierarchical navigable small world (Malkov and Yashunin, 2018; the crate `hnsw_rs`) over the rows themselves,
//! whose distance is one minus the measure: it holds row numbers, and no vectors. What it gives is ranked by the measure like
//! exact neighbours, so that only who is missing is approximate. Rows are inserted one after another, because the index, and
//! so the result, depends on their order.

use std::ops::Range;

use hnsw_rs::prelude::{Distance, Hnsw};
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::config::{Config, STAGE};
use super::correlator::Correlator;
use super::tables::Neighbour;
use crate::error::Result;
use crate::progress::Progress;
use crate::stop;

/// Links of a row in each layer but the lowest, which has twice as many.
const LINKS: usize = 24;
/// Layers: more than a table of 2^32 rows fills.
const LAYERS: usize = 16;
/// Candidates that are kept while a row's links are looked for.
const CANDIDATES_OF_LINKS: usize = 128;
/// Candidates that are kept while neighbours are looked for, for each that is wanted, and at least.
const CANDIDATES_PER_NEIGHBOUR: usize = 8;
const LEAST_CANDIDATES: usize = 128;
/// Rows between two checks for a signal to stop.
const ROWS_AT_A_TIME: usize = 1024;
/// Photos whose exact neighbours are computed as well, to tell how many of them are found.
const TRIED_PHOTOS: usize = 1000;

/// Neighbours, and how many of the exact ones are among them.
pub(super) struct Found {
    /// In the order of the photos.
    pub(super) neighbours: Vec<Neighbour>,
    /// Share of the neighbours of [`TRIED_PHOTOS`] photos that are as near as exact ones, 0 to 1; NaN if they have none.
    pub(super) recall: f64,
}

/// One minus the measure of two rows, 0 to 2.
struct Apart<'a>(&'a Correlator);

impl Distance<u32> for Apart<'_> {
    fn eval(&self, a: &[u32], b: &[u32]) -> f32 {
        1.0 - self.0.correlation(a[0] as usize, b[0] as usize)
    }
}

/// The `top` nearest neighbours, among all photos, of the photos in `rows`.
pub(super) fn run(config: &Config, correlator: &Correlator, rows: &Range<usize>) -> Result<Found> {
    let top = config.top as usize;
    let is_defined = |row: usize| !correlator.correlation(row, row).is_nan();
    let progress = Progress::new(STAGE, (correlator.len() + rows.len()) as u64, "photos");
    let mut index = Hnsw::new(LINKS, correlator.len(), LAYERS, CANDIDATES_OF_LINKS, Apart(correlator));
    for row in 0..correlator.len() {
        if row % ROWS_AT_A_TIME == 0 {
            stop::check()?;
        }
        if is_defined(row) {
            index.insert_slice((&[row as u32], row));
        }
        progress.inc(1);
    }
    index.set_searching_mode(true);
    let candidates = (CANDIDATES_PER_NEIGHBOUR * (top + 1)).max(LEAST_CANDIDATES);
    let nearest = |row: usize| {
        let found = if is_defined(row) { index.search(&[row as u32], top + 1, candidates) } else { Vec::new() };
        let others = found.iter().map(|it| it.d_id).filter(|&other| other != row);
        let mut others: Vec<_> = others.map(|other| (other, correlator.correlation(row, other))).collect();
        let id = |row: usize| correlator.photo_ids()[row];
        others.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| id(a.0).cmp(&id(b.0))));
        others.truncate(top);
        others
    };
    let starts: Vec<usize> = rows.clone().step_by(ROWS_AT_A_TIME).collect();
    let of_some = |start: usize| {
        stop::check()?;
        let some = start..(start + ROWS_AT_A_TIME).min(rows.end);
        let neighbours = some.clone().flat_map(|row| named(correlator, row, nearest(row)));
        let neighbours: Vec<Neighbour> = neighbours.collect();
        progress.inc(some.len() as u64);
        Ok(neighbours)
    };
    let neighbours = starts.into_par_iter().map(of_some).collect::<Result<Vec<_>>>()?.concat();
    let recall = recall(correlator, rows, top, nearest);
    Ok(Found { neighbours, recall })
}

/// The neighbours of a row as they are written.
fn named(correlator: &Correlator, row: usize, nearest: Vec<(usize, f32)>) -> impl Iterator<Item = Neighbour> {
    nearest.into_iter().zip(1..).map(move |((other, correlation), rank)| Neighbour {
        photo_id: correlator.photo_ids()[row],
        rank,
        neighbour_id: correlator.photo_ids()[other],
        correlation,
        cells_in_common: correlator.cells_in_common(row, other),
    })
}

/// Share of the exact neighbours of some of the photos that `nearest` finds, or others as near: of equals, any will do.
fn recall(
    correlator: &Correlator,
    rows: &Range<usize>,
    top: usize,
    nearest: impl Fn(usize) -> Vec<(usize, f32)> + Sync,
) -> f64 {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let tried = index::sample(&mut random, rows.len(), TRIED_PHOTOS.min(rows.len())).into_vec();
    let counts = tried.into_par_iter().map(|place| {
        let row = rows.start + place;
        let exact = correlator.nearest(&correlator.row(row), top, |other| other != row);
        let farthest = exact.last().map_or(f32::INFINITY, |(_, correlation)| *correlation);
        (nearest(row).iter().filter(|(_, correlation)| *correlation >= farthest).count(), exact.len())
    });
    let (found, exact) = counts.reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    found as f64 / exact as f64
}
