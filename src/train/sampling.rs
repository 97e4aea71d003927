//! Which photos an epoch trains on, and in which order.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One use of a photo in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Its number among the train photos.
    pub photo: usize,
    /// How many times the epoch has used it before.
    pub repeat: u32,
}

/// How often each photo is drawn, relative to the others: 1 or more. Those with rare categories are drawn more often.
///
/// Repeat factor sampling (Gupta et al., 2019, <https://arxiv.org/abs/1908.03195>): the factor of a category that
/// occurs in the share f of the photos is f to the power of -`strength` (there 0.5, and with a threshold in place of
/// 1); that of a photo is the largest among its categories. `occurs` says which categories each photo has.
#[must_use]
pub fn repeat_factors(occurs: &[Vec<bool>], strength: f32) -> Vec<f64> {
    let photos = occurs.len() as f64;
    let of_category = |category: usize| {
        let with = occurs.iter().filter(|it| it[category]).count() as f64;
        if with == 0.0 { 1.0 } else { (with / photos).powf(-f64::from(strength)) }
    };
    let of_category: Vec<f64> = (0..occurs.first().map_or(0, Vec::len)).map(of_category).collect();
    let of_photo = |occurs: &Vec<bool>| {
        let its = of_category.iter().zip(occurs).filter(|(_, occurs)| **occurs).map(|(factor, _)| *factor);
        its.fold(1.0, f64::max)
    };
    occurs.iter().map(of_photo).collect()
}

/// The turns of an epoch, as many as there are `factors`. Each photo gets its share of them, rounded up or down at
/// random. The order depends only on the seed and the epoch.
#[must_use]
pub fn turns(factors: &[f64], seed: u64, epoch: u32) -> Vec<Turn> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::from(epoch));
    let mut order: Vec<usize> = (0..factors.len()).collect();
    order.shuffle(&mut rng);
    if factors.iter().all(|it| *it == factors[0]) {
        return order.into_iter().map(|photo| Turn { photo, repeat: 0 }).collect();
    }
    let mut turns = systematic(&order, factors, rng.random());
    turns.shuffle(&mut rng);
    turns
}

/// Systematic sampling: the photos lie in a row, each as long as its share of all turns, and every turn is a step of
/// length 1 along the row, beginning at `start`, 0 to 1.
fn systematic(order: &[usize], factors: &[f64], start: f64) -> Vec<Turn> {
    let share = order.len() as f64 / factors.iter().sum::<f64>();
    let (mut turns, mut end) = (Vec::with_capacity(order.len()), 0.0);
    for (place, &photo) in order.iter().enumerate() {
        end += factors[photo] * share;
        // The last end is the length of the row but for rounding.
        let until = if place + 1 == order.len() { order.len() } else { (end - start).ceil().max(0.0) as usize };
        turns.extend((turns.len()..until).zip(0..).map(|(_, repeat)| Turn { photo, repeat }));
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurs(categories: &[usize]) -> Vec<bool> {
        (0..23).map(|it| categories.contains(&it)).collect()
    }

    #[test]
    fn the_rarest_category_of_a_photo_decides() {
        let photos = [occurs(&[0]), occurs(&[0, 5]), occurs(&[0, 5]), occurs(&[0, 5, 7])];
        let factors = repeat_factors(&photos, 0.5);
        let expected = [1.0, (4.0_f64 / 3.0).sqrt(), (4.0_f64 / 3.0).sqrt(), 2.0];
        for (found, expected) in factors.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{factors:?}");
        }
        assert_eq!(repeat_factors(&photos, 0.0), [1.0; 4]);
        assert_eq!(repeat_factors(&photos, 1.0)[3], 4.0);
    }

    #[test]
    fn each_photo_gets_its_share_and_an_epoch_keeps_its_length() {
        // Shares of 10 turns: 5, 2.5, 1.25 and 1.25 spread over the rest.
        let factors = [4.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5];
        let share = 10.0 / factors.iter().sum::<f64>();
        let mut total = [0; 10];
        for epoch in 1..=400 {
            let turns = turns(&factors, 3, epoch);
            assert_eq!(turns.len(), 10);
            for (photo, factor) in factors.iter().enumerate() {
                let mut its: Vec<u32> = turns.iter().filter(|it| it.photo == photo).map(|it| it.repeat).collect();
                its.sort_unstable();
                assert!(its.iter().copied().eq(0..its.len() as u32), "each use has its own number: {its:?}");
                let due = factor * share;
                assert!([due.floor(), due.ceil()].contains(&(its.len() as f64)), "photo {photo}: {its:?} of {due}");
                total[photo] += its.len();
            }
        }
        for (total, factor) in total.iter().zip(factors) {
            let due = 400.0 * factor * share;
            assert!((*total as f64 / due - 1.0).abs() < 0.15, "{total} of {due}");
        }
    }

    #[test]
    fn equal_photos_come_once_each_in_an_order_of_the_seed_and_the_epoch() {
        let turns = |seed, epoch| super::turns(&[1.0; 20], seed, epoch);
        let mut photos: Vec<usize> = turns(1, 1).iter().map(|it| it.photo).collect();
        assert_eq!(turns(1, 1), turns(1, 1));
        assert_ne!(turns(1, 1), turns(1, 2));
        assert_ne!(turns(1, 1), turns(2, 1));
        photos.sort_unstable();
        assert!(photos.into_iter().eq(0..20) && turns(1, 1).iter().all(|it| it.repeat == 0));
    }
}
