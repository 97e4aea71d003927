//! Squares of 2x2 pixels: photos and label maps for networks that begin with half the rows and columns.

use super::Workers;
use super::maps::{Band, Shape, cut, interleave};
use super::pool::pooled_shape;
use super::spread::spread_items;

/// Puts the pixels of each square side by side, row by row, as channels: u8 photos of `shape`, with even numbers of rows and
/// columns, to `[batch, rows / 2, columns / 2, 4 x channels]`.
pub fn gather_squares(workers: Workers<'_>, shape: Shape, photos: &[u8], squares: &mut [u8]) {
    let gathered = pooled_shape(shape).with_channels(4 * shape.channels);
    assert!(shape.rows.is_multiple_of(2) && shape.columns.is_multiple_of(2));
    assert!(photos.len() == shape.len() && squares.len() == shape.len());
    let bands = Band::all(gathered, workers.spread.threads());
    spread_items(workers.spread, cut(&bands, gathered, squares), |index, part| {
        let rows = bands[index].of(gathered, photos).chunks_exact(gathered.row_len());
        for (rows, squares) in rows.zip(part.chunks_exact_mut(gathered.row_len())) {
            let (upper, lower) = rows.split_at(rows.len() / 2);
            interleave(&[(upper, 2 * shape.channels), (lower, 2 * shape.channels)], squares);
        }
    });
}

/// Gives each label to all pixels of a square: label maps of `shape`, with one channel, to `[batch, 2 x rows, 2 x columns]`.
pub fn enlarge_labels(workers: Workers<'_>, shape: Shape, labels: &[u8], enlarged: &mut [u8]) {
    assert!(shape.channels == 1 && labels.len() == shape.len() && enlarged.len() == 4 * shape.len());
    let bands = Band::all(shape, workers.spread.threads());
    spread_items(workers.spread, cut(&bands, shape.with_channels(4), enlarged), |index, part| {
        let rows = bands[index].of(shape, labels).chunks_exact(shape.columns);
        for (labels, enlarged) in rows.zip(part.chunks_exact_mut(4 * shape.columns)) {
            let (upper, lower) = enlarged.split_at_mut(2 * shape.columns);
            upper.as_chunks_mut().0.iter_mut().zip(labels).for_each(|(pixels, &label)| *pixels = [label; 2]);
            lower.copy_from_slice(upper);
        }
    });
}
