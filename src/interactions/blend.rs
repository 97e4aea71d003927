//! Correlations of looks, blended with scores from photo to photo.

/// What photos are ranked by.
#[derive(Debug, Clone, PartialEq)]
pub struct Blended {
    /// The blended score of each photo; NaN if its correlation is undefined.
    pub scores: Vec<f32>,
    /// The score that cold photos have, as a multiple of their correlation; 0 or more.
    pub expected_slope: f32,
}

/// Blends the correlation r of each photo with its score s from photo to photo: (1 - `weight`) r + `weight` s.
///
/// A cold photo has no score, because nobody chose it yet. It takes the one that is expected of its look, c max(r, 0), so
/// that it falls back to its look and is neither preferred nor passed over; c is the least-squares slope through the
/// origin of s on r over the photos with a score and a correlation above 0.
#[must_use]
pub fn blend(correlations: &[f32], scores: &[f32], is_cold: impl Fn(usize) -> bool, weight: f32) -> Blended {
    let (mut products, mut squares) = (0.0, 0.0);
    for (row, (&r, &s)) in correlations.iter().zip(scores).enumerate() {
        if r > 0.0 && !is_cold(row) {
            products += f64::from(r) * f64::from(s);
            squares += f64::from(r).powi(2);
        }
    }
    let slope = if squares > 0.0 { (products / squares) as f32 } else { 0.0 };
    let blended = |(row, (&r, &s)): (usize, (&f32, &f32))| {
        let score = if is_cold(row) { slope * r.max(0.0) } else { s };
        if r.is_nan() { r } else { (1.0 - weight) * r + weight * score }
    };
    let scores = correlations.iter().zip(scores).enumerate().map(blended).collect();
    Blended { scores, expected_slope: slope }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blend_is_worked_out_by_hand() {
        let correlations = [0.8, 0.5, -0.5, f32::NAN, 0.6, -0.2];
        let scores = [0.4, 0.25, 0.3, 0.9, 0.0, 0.0];
        let cold = |row: usize| row >= 4;
        // (0.8 * 0.4 + 0.5 * 0.25) / (0.64 + 0.25) = 0.5.
        let found = blend(&correlations, &scores, cold, 0.5);
        assert!((found.expected_slope - 0.5).abs() < 1e-6);
        let expected = [0.6, 0.375, -0.1, f32::NAN, 0.45, -0.1];
        for (row, (found, expected)) in found.scores.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() < 1e-6 || found.is_nan() && expected.is_nan(), "{row}: {found}");
        }
    }

    #[test]
    fn the_ends_of_the_scale_are_the_looks_and_the_scores() {
        let (correlations, scores) = ([0.9, 0.1, 0.5], [0.0, 0.7, 0.2]);
        assert_eq!(blend(&correlations, &scores, |_| false, 0.0).scores, correlations);
        assert_eq!(blend(&correlations, &scores, |_| false, 1.0).scores, scores);
        let all_cold = blend(&correlations, &scores, |_| true, 0.5);
        assert_eq!((all_cold.expected_slope, &all_cold.scores[..]), (0.0, &[0.45, 0.05, 0.25][..]));
    }
}
