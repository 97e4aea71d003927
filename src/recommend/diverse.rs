//! Looks that are like the photo and unlike each other: maximal marginal relevance.

/// A candidate that was picked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Picked {
    /// Its place among the candidates.
    pub(super) place: usize,
    /// Its largest likeness to one that was picked before it; `None` for the first.
    pub(super) most_like: Option<f32>,
}

/// Picks `top` of the candidates, given by their scores, the best first. Each is the one with the largest
///
/// ```text
/// (1 - share) score - share max over those picked before of their likeness
/// ```
///
/// (Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998, with lambda = 1 - share); of equal ones,
/// the first. A likeness that is not defined (NaN) counts as 0.
pub(super) fn pick(scores: &[f32], top: usize, share: f32, likeness: impl Fn(usize, usize) -> f32) -> Vec<Picked> {
    let mut most_like: Vec<Option<f32>> = vec![None; scores.len()];
    let mut left: Vec<usize> = (0..scores.len()).collect();
    let mut picked: Vec<Picked> = Vec::new();
    while picked.len() < top && !left.is_empty() {
        let gain = |&place: &usize| (1.0 - share) * scores[place] - share * most_like[place].unwrap_or(0.0);
        let mut best = 0;
        for other in 1..left.len() {
            if gain(&left[other]) > gain(&left[best]) {
                best = other;
            }
        }
        let place = left.remove(best);
        picked.push(Picked { place, most_like: most_like[place] });
        for &other in &left {
            let like = likeness(place, other);
            let like = if like.is_nan() { 0.0 } else { like };
            most_like[other] = Some(most_like[other].map_or(like, |it| it.max(like)));
        }
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_are_those_worked_out_by_hand() {
        // B is all but A again, C is unlike both.
        let scores = [0.9, 0.85, 0.6, 0.5];
        let likeness = |a: usize, b: usize| match (a.min(b), a.max(b)) {
            (0, 1) => 0.95,
            (0, 2) => 0.1,
            (0, 3) => f32::NAN,
            (1, 2) => 0.2,
            _ => 0.8,
        };
        let order = |share| pick(&scores, 3, share, likeness).iter().map(|it| it.place).collect::<Vec<_>>();
        assert_eq!(order(0.0), [0, 1, 2]);
        // After A: B 0.7 * 0.85 - 0.3 * 0.95 = 0.31, C 0.7 * 0.6 - 0.3 * 0.1 = 0.39, D 0.35. After C: B 0.31 (0.95 is the larger), D
        // 0.7 * 0.5 - 0.3 * 0.8 = 0.11.
        assert_eq!(order(0.3), [0, 2, 1]);
        // After A: B -0.95, C -0.1, D 0. After D: B -0.95, C -0.8.
        assert_eq!(order(1.0), [0, 3, 2]);
        let most_like: Vec<_> = pick(&scores, 9, 0.3, likeness).iter().map(|it| it.most_like).collect();
        assert_eq!(most_like, [None, Some(0.1), Some(0.95), Some(0.8)]);
        assert!(pick(&[], 3, 0.3, likeness).is_empty());
    }
}
