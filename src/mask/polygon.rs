//! COCO's polygons as pixels, exactly as pycocotools fills them: vertices are rounded to fifths of a pixel, edges are
//! walked in these, and where an edge passes the middle of a column, the pixels below it change sides.
//!
//! Only the steps at the middles of columns are computed, so an edge costs no more than the columns of the map, wherever
//! its vertices lie.

use super::LabelMap;

/// Steps per pixel.
const STEPS: i64 = 5;
/// The step of a column after which its middle is passed.
const MIDDLE: i64 = STEPS / 2;
/// The largest coordinate, in pixels.
const MAX_COORDINATE: f64 = 1e8;
/// Number of sides to change at once; more of them are reduced to those that count.
const MAX_CHANGES: usize = 1 << 22;

/// Paints the polygon with these coordinates, `[x, y, x, y, ...]` in pixels.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn paint(map: &mut LabelMap, coordinates: &[f64], category: u8) -> Result<(), String> {
    check(coordinates)?;
    let step = |pixels: f64| (STEPS as f64 * pixels + 0.5) as i64;
    let vertices: Vec<[i64; 2]> = coordinates.chunks_exact(2).map(|it| [step(it[0]), step(it[1])]).collect();
    let mut changes = Vec::new();
    for (&from, &to) in vertices.iter().zip(vertices.iter().cycle().skip(1)) {
        add_changes(from, to, map, &mut changes);
        if changes.len() > MAX_CHANGES {
            reduce(&mut changes);
        }
    }
    reduce(&mut changes);
    changes.push(map.categories.len());
    for run in changes.chunks_exact(2) {
        map.paint_down(run[0]..run[1], category);
    }
    Ok(())
}

/// Checks that coordinates are those of a polygon.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn check(coordinates: &[f64]) -> Result<(), String> {
    if coordinates.len() % 2 == 1 {
        return Err(format!("has a polygon of {} coordinates, an odd number", coordinates.len()));
    }
    if coordinates.len() < 6 {
        return Err(format!("has a polygon of {} points; 3 are the least", coordinates.len() / 2));
    }
    match coordinates.iter().find(|it| !it.is_finite() || it.abs() > MAX_COORDINATE) {
        Some(bad) => Err(format!("has a polygon with the coordinate {bad}")),
        None => Ok(()),
    }
}

/// The places, counted column by column, at which an edge changes the side of the pixels that follow.
fn add_changes([x, y]: [i64; 2], [to_x, to_y]: [i64; 2], map: &LabelMap, changes: &mut Vec<usize>) {
    let (wide, high) = ((to_x - x).abs(), (to_y - y).abs());
    let is_flat = wide >= high;
    // Edges are walked from the lower end of their longer side.
    let is_turned = if is_flat { x > to_x } else { y > to_y };
    let ([x, y], [to_x, to_y]) = if is_turned { ([to_x, to_y], [x, y]) } else { ([x, y], [to_x, to_y]) };
    let (left, right) = (x.min(to_x), x.max(to_x));
    let first = (left - MIDDLE + STEPS - 1).div_euclid(STEPS).max(0);
    // The step after the middle belongs to the edge too.
    let last = (right - MIDDLE - 1).div_euclid(STEPS).min(map.width_px as i64 - 1);
    let slope = if is_flat { (to_y - y) as f64 / wide as f64 } else { (to_x - x) as f64 / high as f64 };
    let beside = |start: i64, along: i64| (start as f64 + slope * along as f64 + 0.5) as i64;
    for column in first..=last {
        let middle = column * STEPS + MIDDLE;
        let step = if is_flat {
            beside(y, middle - x).min(beside(y, middle + 1 - x))
        } else {
            y + passing(high, to_x >= x, |along| beside(x, along), middle)
        };
        let row = ((step as f64 + 0.5) / STEPS as f64 - 0.5).clamp(0.0, map.height_px as f64).ceil() as usize;
        changes.push(column as usize * map.height_px + row);
    }
}

/// The last of `0..=high` steps before an edge, at `beside(step)`, passes `middle`.
fn passing(high: i64, is_rising: bool, beside: impl Fn(i64) -> i64, middle: i64) -> i64 {
    let has_passed = |along: i64| (beside(along) > middle) == is_rising;
    let (mut before, mut after) = (0, high);
    while after - before > 1 {
        let half = i64::midpoint(before, after);
        if has_passed(half) { after = half } else { before = half }
    }
    before
}

/// Sorts changes and removes those that undo each other.
fn reduce(changes: &mut Vec<usize>) {
    changes.sort_unstable();
    let mut kept = 0;
    for at in 0..changes.len() {
        if kept > 0 && changes[kept - 1] == changes[at] {
            kept -= 1;
        } else {
            changes[kept] = changes[at];
            kept += 1;
        }
    }
    changes.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_covers_its_pixels() -> Result<(), String> {
        let mut map = LabelMap::new(4, 3);
        paint(&mut map, &[1.0, 1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 3.0], 7)?;
        assert_eq!(map.categories, [0, 0, 0, 0, 0, 7, 7, 0, 0, 7, 7, 0]);
        paint(&mut map, &[-9e7, -9e7, 9e7, -9e7, 9e7, 9e7, -9e7, 9e7], 1)?;
        assert!(map.categories.iter().all(|&it| it == 1), "one far larger than the map covers it");
        Ok(())
    }

    #[test]
    fn polygons_are_filled_as_pycocotools_fills_them() -> Result<(), String> {
        #[derive(serde::Deserialize)]
        struct Case {
            polygon: Vec<f64>,
            size: [u32; 2],
            counts: String,
        }
        let cases = include_str!("../../tests/data/masks/polygons.json");
        let cases: Vec<Case> = serde_json::from_str(cases).expect("stored polygons");
        assert!(cases.len() > 200);
        for Case { polygon, size: [height, width], counts } in cases {
            let [mut found, mut expected] = [(); 2].map(|()| LabelMap::new(width, height));
            paint(&mut found, &polygon, 3)?;
            super::super::rle::paint(&mut expected, &super::super::rle::parse(&counts)?, 3)?;
            assert_eq!(found, expected, "{polygon:?} on {width} x {height}");
        }
        Ok(())
    }

    #[test]
    fn coordinates_are_read_to_the_last_digit() {
        // 17 digits, as Python writes them: the nearest number, and not one beside it.
        for at in 0..10_000_u32 {
            let text = format!("{:.14}", f64::from(at).sqrt() * std::f64::consts::PI + 100.0);
            let read: f64 = serde_json::from_str(&text).expect("a number");
            assert_eq!(Ok(read), text.parse(), "{text}");
        }
    }

    #[test]
    fn what_is_no_polygon_is_named() {
        let mut map = LabelMap::new(4, 3);
        for bad in [&[1.0, 1.0, 2.0, 2.0][..], &[0.0; 7], &[f64::NAN; 6], &[f64::INFINITY; 6], &[1e300; 6], &[]] {
            assert!(paint(&mut map, bad, 1).is_err(), "{bad:?}");
        }
        assert_eq!(map, LabelMap::new(4, 3));
    }

    #[test]
    fn changes_that_undo_each_other_do_not_count() {
        let mut changes = vec![3, 1, 3, 2, 3, 1];
        reduce(&mut changes);
        assert_eq!(changes, [2, 3]);
    }
}
