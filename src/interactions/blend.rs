//! Correlations of looks, blended with scores from photo to photo.

/// Variance below which numbers of 32 bits between -1 and 1 do not tell photos apart.
const LEAST_VARIANCE: f64 = 1e-12;

/// What photos are ranked by.
#[derive(Debug, Clone, PartialEq)]
pub struct Blended {
    /// The blend for each photo; NaN if its correlation is undefined.
    pub scores: Vec<f32>,
    /// Each photo's score from photo to photo on the scale of the correlations; NaN likewise.
    pub item_scores: Vec<f32>,
}

/// Mean and spread of correlations r and cosines s over the photos that were chosen.
#[derive(Debug, Default)]
struct Moments {
    count: f64,
    r: f64,
    s: f64,
    rr: f64,
    ss: f64,
    rs: f64,
}

impl Moments {
    fn add(&mut self, r: f64, s: f64) {
        self.count += 1.0;
        let terms =
            [(&mut self.r, r), (&mut self.s, s), (&mut self.rr, r * r), (&mut self.ss, s * s), (&mut self.rs, r * s)];
        terms.into_iter().for_each(|(sum, term)| *sum += term);
    }

    /// The means of r and s, their standard deviations, and their correlation if it is above 0, else 0; `None` if one of them does not vary.
    fn told(&self) -> Option<[f64; 5]> {
        let [r, s] = [self.r, self.s].map(|it| it / self.count);
        let [of_r, of_s] = [(self.rr, r), (self.ss, s)].map(|(sum, mean)| sum / self.count - mean * mean);
        let told = self.count >= 2.0 && of_r > LEAST_VARIANCE && of_s > LEAST_VARIANCE;
        let both = (self.rs / self.count - r * s) / (of_r * of_s).sqrt();
        told.then(|| [r, s, of_r.sqrt(), of_s.sqrt(), both.clamp(0.0, 1.0)])
    }
}

/// Blends the correlation r of each photo with how it was chosen: (1 - `weight`) r + `weight` t. t is the photo's `cosines`
/// s on the scale of the correlations, so that one standard deviation counts the same in both:
///
/// > t = m + d (s - m_s) / d_s
///
/// with m and d for the mean and the standard deviation of the correlations of all photos that are `told` (chosen by
/// somebody, and not the query itself), `m_s` and `d_s` for those of their cosines. As it is, a cosine is small even for
/// photos that are much chosen together, and hardly counts beside a correlation.
///
/// A photo that nobody chose yet has no cosine. It takes the one that is expected of its look by linear regression over the
/// photos that are told, which is t = m + c (r - m), c being the correlation of r and s, or 0 if it is below 0. So such photos
/// fall back to their looks, and keep their order.
///
/// `None` if r or s does not vary over the photos that are told: then the looks alone count.
#[must_use]
pub fn blend(correlations: &[f32], cosines: &[f32], told: impl Fn(usize) -> bool, weight: f32) -> Option<Blended> {
    let mut moments = Moments::default();
    for (row, (&r, &s)) in correlations.iter().zip(cosines).enumerate() {
        if !r.is_nan() && told(row) {
            moments.add(r.into(), s.into());
        }
    }
    let [m, m_s, d, d_s, c] = moments.told()?;
    let item_score = |(row, (&r, &s)): (usize, (&f32, &f32))| {
        let (r, s) = (f64::from(r), f64::from(s));
        let expected = m + c * (r - m);
        // NaN stays what it is.
        (if told(row) { m + d * (s - m_s) / d_s + 0.0 * r } else { expected }) as f32
    };
    let item_scores: Vec<f32> = correlations.iter().zip(cosines).enumerate().map(item_score).collect();
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
        let correlations = [0.8, 0.4, 0.6, f32::NAN, 0.9, -0.2];
        let cosines = [0.1, 0.3, 0.2, 0.9, 0.0, 0.0];
        // Of the first three: means 0.6 and 0.2, the spread of r twice that of s, and a correlation below 0.
        let found = blend(&correlations, &cosines, |row| row < 4, 0.25).expect("both vary");
        close(&found.item_scores, &[0.4, 0.8, 0.6, f32::NAN, 0.6, 0.6]);
        close(&found.scores, &[0.7, 0.5, 0.6, f32::NAN, 0.825, 0.0]);
    }

    #[test]
    fn the_ends_of_the_scale_are_the_looks_and_the_choices() {
        let (correlations, cosines) = ([0.9, 0.1, 0.5], [0.0, 0.7, 0.2]);
        let blended = |weight| blend(&correlations, &cosines, |_| true, weight).expect("both vary").scores;
        close(&blended(0.0), &correlations);
        let chosen = blended(1.0);
        assert!(chosen[1] > chosen[2] && chosen[2] > chosen[0]);
    }

    #[test]
    fn photos_that_nobody_chose_keep_the_order_of_their_looks() {
        let correlations = [0.9, 0.5, 0.1, 0.8, 0.7, -0.3];
        let cosines = [0.3, 0.2, 0.1, 0.0, 0.0, 0.0];
        let found = blend(&correlations, &cosines, |row| row < 3, 1.0).expect("both vary");
        // What was chosen goes with the looks: the choice expected of a look is the look.
        close(&found.scores, &correlations);
    }

    #[test]
    fn without_differences_the_looks_alone_count() {
        assert_eq!(blend(&[0.9, 0.5], &[0.2, 0.2], |_| true, 0.5), None);
        assert_eq!(blend(&[0.9, 0.5], &[0.2, 0.4], |row| row == 0, 0.5), None);
        assert_eq!(blend(&[0.9, f32::NAN], &[0.2, 0.4], |_| true, 0.5), None);
        assert_eq!(blend(&[], &[], |_| true, 0.5), None);
    }
}
