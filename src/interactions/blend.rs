//! Correlations of looks, blended with scores from photo to photo.

/// What photos are ranked by.
#[derive(Debug, Clone, PartialEq)]
pub struct Blended {
    /// The blend for each photo; NaN if its correlation is undefined.
    pub scores: Vec<f32>,
    /// How each photo was chosen, as a share of the most chosen one, 0 to 1.
    pub item_scores: Vec<f32>,
}

/// Blends the correlation r of each photo with how it was chosen: (1 - `weight`) r + `weight` t. t is the photo's score s from
/// photo to photo, `cosines`, divided by the largest of all photos that are `told` (chosen by somebody, and not the query
/// itself). As it is, a cosine is small even for photos that are often chosen together, and hardly counts beside a
/// correlation; so the photo that is chosen most counts like a perfect correlation.
///
/// A photo that nobody chose yet has no s. It takes the t that is expected of its look, c max(r, 0), with c for the
/// least-squares slope through the origin of t on r over the photos that are told and have r > 0. So such photos fall back to
/// their looks and keep their order.
///
/// `None` if no photo that is told has s > 0: then the looks alone count.
#[must_use]
pub fn blend(correlations: &[f32], cosines: &[f32], told: impl Fn(usize) -> bool, weight: f32) -> Option<Blended> {
    let is_told = |row: usize| !correlations[row].is_nan() && told(row);
    let largest = (0..cosines.len()).filter(|row| is_told(*row)).map(|row| cosines[row]).fold(0.0, f32::max);
    if largest == 0.0 {
        return None;
    }
    let share = |row: usize| cosines[row] / largest;
    let (mut products, mut squares) = (0.0, 0.0);
    for row in (0..cosines.len()).filter(|row| correlations[*row] > 0.0 && is_told(*row)) {
        products += f64::from(correlations[row]) * f64::from(share(row));
        squares += f64::from(correlations[row]).powi(2);
    }
    let slope = if squares > 0.0 { (products / squares) as f32 } else { 0.0 };
    let item_score = |row: usize| if is_told(row) { share(row) } else { slope * correlations[row].max(0.0) };
    let item_scores: Vec<f32> = (0..cosines.len()).map(item_score).collect();
    let scores = correlations.iter().zip(&item_scores).map(|(r, t)| (1.0 - weight) * r + weight * t).collect();
    Some(Blended { scores, item_scores })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
            let is_close = (found - expected).abs() < 1e-6 || found.is_nan() && expected.is_nan();
            assert!(is_close, "{row}: {found}, not {expected}");
        }
    }

    #[test]
    fn a_blend_is_worked_out_by_hand() {
        let correlations = [0.8, 0.4, -0.5, f32::NAN, 0.6, -0.2];
        let cosines = [0.1, 0.05, 0.2, 0.9, 0.0, 0.0];
        // Of the first three the largest is 0.2; the slope is (0.8 * 0.5 + 0.4 * 0.25) / (0.64 + 0.16) = 0.625.
        let found = blend(&correlations, &cosines, |row| row < 4, 0.5).expect("some were chosen");
        close(&found.item_scores, &[0.5, 0.25, 1.0, 0.0, 0.375, 0.0]);
        close(&found.scores, &[0.65, 0.325, 0.25, f32::NAN, 0.4875, -0.1]);
    }

    #[test]
    fn the_ends_of_the_scale_are_the_looks_and_the_choices() {
        let (correlations, cosines) = ([0.9, 0.1, 0.5], [0.0, 0.5, 0.25]);
        let blended = |weight| blend(&correlations, &cosines, |_| true, weight).expect("some were chosen").scores;
        close(&blended(0.0), &correlations);
        close(&blended(1.0), &[0.0, 1.0, 0.5]);
    }

    #[test]
    fn photos_that_nobody_chose_keep_the_order_of_their_looks() {
        let correlations = [0.9, 0.5, 0.1, 0.8, 0.7, -0.3];
        let cosines = [0.27, 0.15, 0.03, 0.0, 0.0, 0.0];
        let found = blend(&correlations, &cosines, |row| row < 3, 1.0).expect("some were chosen");
        // What was chosen goes with the looks: what is expected of a look is the look, on the scale of the most chosen.
        close(&found.scores, &[1.0, 0.5 / 0.9, 0.1 / 0.9, 0.8 / 0.9, 0.7 / 0.9, 0.0]);
    }

    #[test]
    fn if_nothing_else_was_chosen_the_looks_alone_count() {
        assert_eq!(blend(&[0.9, 0.5], &[0.2, 0.0], |row| row == 1, 0.5), None);
        assert_eq!(blend(&[0.9, f32::NAN], &[0.0, 0.4], |_| true, 0.5), None);
        assert_eq!(blend(&[], &[], |_| true, 0.5), None);
    }
}
