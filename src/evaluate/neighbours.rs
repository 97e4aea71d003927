//! How many of a photo's true neighbours, those by the labels, the features of the model find.

use rayon::prelude::*;

use super::features::Cells;
use crate::features::FeatureTable;
use crate::labels::LabelSet;
use crate::model::evaluation::{Among, NeighboursFound, PhotoEvaluation};
use crate::similarity::{Correlator, Measure};

/// Numbers of neighbours that are compared.
const TOPS: [usize; 3] = [1, 5, 10];
/// The largest of them.
pub(super) const MOST: usize = TOPS[TOPS.len() - 1];

/// The nearest other photos of a photo, nearest first, as rows of the table: by its labels and by the model.
struct Nearest {
    by_labels: Vec<usize>,
    by_model: Vec<usize>,
}

/// The photos among which neighbours are looked for, with the nearest of some of them.
pub(super) struct Neighbourhood {
    /// Ids of all photos, ascending; rows count in this order.
    ids: Vec<u32>,
    nearest: Vec<Nearest>,
}

impl Neighbourhood {
    /// Finds the [`MOST`] nearest of each of `queries` (ids) among `photos` (ids with their cells), by `pearson`.
    pub(super) fn new(labels: &LabelSet, mut photos: Vec<(u32, &Cells)>, queries: &[u32]) -> Self {
        photos.sort_unstable_by_key(|(id, _)| *id);
        let correlator = |cells: fn(&Cells) -> &[f32]| {
            let cells: Vec<f32> = photos.iter().flat_map(|(_, it)| cells(it)).copied().collect();
            Correlator::new(&FeatureTable::unnamed(cells, labels.clone()), Measure::Pearson.into())
        };
        let [by_labels, by_model] = [correlator(|it| &it.by_labels), correlator(|it| &it.by_model)];
        let of = |correlator: &Correlator, row: usize| {
            let nearest = correlator.nearest(&correlator.row(row), MOST, |other| other != row);
            nearest.into_iter().map(|(other, _)| other).collect()
        };
        let ids: Vec<u32> = photos.iter().map(|(id, _)| *id).collect();
        let row = |id: &u32| ids.binary_search(id).expect("the queries are among the photos");
        let nearest = queries.par_iter().map(row);
        let nearest =
            nearest.map(|row| Nearest { by_labels: of(&by_labels, row), by_model: of(&by_model, row) }).collect();
        Self { ids, nearest }
    }

    /// The shares of true neighbours found.
    pub(super) fn found(&self, among: Among) -> Vec<NeighboursFound> {
        let photos = self.ids.len();
        let of_top = |top: usize| {
            // With no more than `top` other photos, all of them are neighbours.
            let is_enough = photos > top + 1;
            NeighboursFound {
                among,
                photos: photos as u64,
                top: top as u32,
                true_neighbours_found: share_found(&self.nearest, top).filter(|_| is_enough),
                at_random: is_enough.then(|| top as f64 / (photos - 1) as f64),
            }
        };
        TOPS.map(of_top).into()
    }

    /// Notes the nearest photos of each query, by id.
    pub(super) fn note(&self, queries: &mut [PhotoEvaluation]) {
        let ids = |rows: &[usize]| rows.iter().map(|&row| self.ids[row]).collect();
        for (query, nearest) in queries.iter_mut().zip(&self.nearest) {
            query.nearest_by_labels = ids(&nearest.by_labels);
            query.nearest_by_model = ids(&nearest.by_model);
        }
    }
}

/// Over the photos that have `top` neighbours by the labels: the share of these that are also among the `top` nearest by the
/// model; `None` if there is no such photo.
fn share_found(nearest: &[Nearest], top: usize) -> Option<f64> {
    let with_enough: Vec<&Nearest> = nearest.iter().filter(|it| it.by_labels.len() >= top).collect();
    let in_both = |it: &&Nearest| {
        let by_model = &it.by_model[..top.min(it.by_model.len())];
        it.by_labels[..top].iter().filter(|row| by_model.contains(row)).count()
    };
    let found: usize = with_enough.iter().map(in_both).sum();
    (!with_enough.is_empty()).then(|| found as f64 / (with_enough.len() * top) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::CELL_COUNT;

    fn row(first: usize, second: usize) -> Vec<f32> {
        let mut row = vec![0.0; CELL_COUNT];
        (row[first], row[second]) = (0.6, 0.4);
        row
    }

    fn photos(model: impl Fn(usize) -> usize) -> Vec<Cells> {
        let rows: Vec<_> = (0..30).map(|it| row(it % 7, 20 + it)).collect();
        (0..30).map(|it| Cells { by_labels: rows[it].clone(), by_model: rows[model(it)].clone() }).collect()
    }

    fn shares(photos: &[Cells], queries: &[u32]) -> Vec<Option<f64>> {
        let photos = photos.iter().zip(0..).map(|(cells, id)| (id, cells)).collect();
        Neighbourhood::new(&LabelSet::cfpd(), photos, queries)
            .found(Among::Part)
            .iter()
            .map(|it| it.true_neighbours_found)
            .collect()
    }

    #[test]
    fn the_same_table_finds_all_neighbours_and_another_does_not() {
        let all: Vec<u32> = (0..30).collect();
        assert_eq!(shares(&photos(|it| it), &all), [Some(1.0); 3]);
        // 11 and 30 are coprime: every row occurs once, in another place.
        assert!(shares(&photos(|it| it * 11 % 30), &all)[2].is_some_and(|share| share < 0.9));
        assert_eq!(shares(&photos(|it| it)[..11], &[0])[1..], [Some(1.0), None], "ten others are all neighbours");
        assert_eq!(shares(&photos(|it| it)[..2], &[0]), [None; 3]);
    }

    #[test]
    fn shares_are_those_worked_out_by_hand() {
        let nearest = |by_labels: &[usize], by_model: &[usize]| Nearest {
            by_labels: by_labels.into(),
            by_model: by_model.into(),
        };
        let photos = [
            nearest(&[1, 2, 3, 4, 5], &[1, 9, 8, 2, 7]),
            nearest(&[1, 2, 3, 4, 5], &[2, 1]),
            nearest(&[6, 7], &[7, 6]),
        ];
        assert_eq!(share_found(&photos, 1), Some(1.0 / 3.0));
        assert_eq!(share_found(&photos, 5), Some(4.0 / 10.0), "the third photo does not have five true neighbours");
        assert_eq!(share_found(&photos, 10), None);
        let found = Neighbourhood { ids: (0..101).collect(), nearest: photos.into() }.found(Among::Dataset);
        assert_eq!(
            found.iter().map(|it| (it.top, it.at_random)).collect::<Vec<_>>(),
            [(1, Some(0.01)), (5, Some(0.05)), (10, Some(0.1))]
        );
    }
}
