//! Events by user, made ready for scores: doubles summed, users with very many photos cut down.

use std::hash::{DefaultHasher, Hash, Hasher};

use rayon::prelude::*;

/// Photos of a user that count. Whoever has more is taken by the photos with the greatest weights, and of equal ones by a
/// fixed shuffle: a photo is scored by its users' photos, so without a limit one user of a million photos would cost as
/// much as all others.
pub const MAX_PHOTOS_PER_USER: usize = 1000;

/// One event: a user chose a photo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event {
    /// The user, by [`Event::user`].
    pub user: u64,
    /// The row of the photo in the feature table.
    pub row: u32,
    /// Its weight, more than 0.
    pub weight: f32,
}

impl Event {
    /// A user's name as a number: a hash of 64 bits. Two of ten million users have the same one with a probability of about
    /// 3e-6, and would pass for one.
    #[must_use]
    pub fn user(name: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        hasher.finish()
    }
}

/// The photos of each user, by ascending row, with weights.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Users {
    /// Start of each user's photos, and the end of the last one's.
    pub(super) starts: Vec<usize>,
    pub(super) rows: Vec<u32>,
    pub(super) weights: Vec<f32>,
    /// Users of whom not all photos count.
    pub capped: u64,
}

impl Users {
    /// Sums the weights of a user's events of one photo, and keeps `max_photos` of each user.
    #[must_use]
    pub fn new(mut events: Vec<Event>, max_photos: usize) -> Self {
        // By weight as well, so that sums do not depend on the order of the file.
        events.par_sort_unstable_by_key(|it| (it.user, it.row, it.weight.to_bits()));
        let mut users = Self { starts: vec![0], ..Self::default() };
        let mut photos = Vec::new();
        for of_user in events.chunk_by(|a, b| a.user == b.user) {
            photos.clear();
            photos.extend(of_user.chunk_by(|a, b| a.row == b.row).map(summed));
            users.capped += u64::from(photos.len() > max_photos);
            cap(&mut photos, max_photos);
            users.rows.extend(photos.iter().map(|it| it.0));
            users.weights.extend(photos.iter().map(|it| it.1));
            users.starts.push(users.rows.len());
        }
        users
    }

    /// Number of users.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// Whether there are no users.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows and weights of a user's photos.
    pub(super) fn photos(&self, user: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let range = self.starts[user]..self.starts[user + 1];
        self.rows[range.clone()].iter().zip(&self.weights[range]).map(|(&row, &weight)| (row as usize, weight))
    }
}

/// The photo of events of one user and one photo, and the sum of their weights.
fn summed(events: &[Event]) -> (u32, f32) {
    let sum: f64 = events.iter().map(|it| f64::from(it.weight)).sum();
    (events[0].row, sum as f32)
}

/// Keeps the `most` photos with the greatest weights, in the order of their rows.
fn cap(photos: &mut Vec<(u32, f32)>, most: usize) {
    if photos.len() <= most {
        return;
    }
    photos.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| shuffled(a.0).cmp(&shuffled(b.0))));
    photos.truncate(most);
    photos.sort_unstable_by_key(|it| it.0);
}

/// Another number for each number, in no visible order: the last step of Murmur3, which maps no two to one.
fn shuffled(mut number: u32) -> u32 {
    for factor in [0x85eb_ca6b, 0xc2b2_ae35] {
        number = (number ^ number >> 15).wrapping_mul(factor);
    }
    number ^ number >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(user: &str, row: u32, weight: f32) -> Event {
        Event { user: Event::user(user), row, weight }
    }

    fn photos(users: &Users) -> Vec<Vec<(usize, f32)>> {
        let mut photos: Vec<Vec<_>> = (0..users.len()).map(|user| users.photos(user).collect()).collect();
        photos.sort_by(|a, b| a[0].0.cmp(&b[0].0));
        photos
    }

    #[test]
    fn doubles_are_summed_whatever_their_order() {
        let events = vec![event("a", 3, 1.0), event("b", 4, 1.0), event("a", 1, 0.5), event("a", 3, 2.0)];
        let users = Users::new(events.clone(), 10);
        assert_eq!(photos(&users), [vec![(1, 0.5), (3, 3.0)], vec![(4, 1.0)]]);
        assert_eq!(Users::new(events.into_iter().rev().collect(), 10), users);
        assert_eq!(users.capped, 0);
        assert!(Users::new(Vec::new(), 10).is_empty());
    }

    #[test]
    fn a_user_of_many_photos_keeps_the_heaviest() {
        let events = (0..1000).map(|row| event("many", row, if row % 250 == 0 { 2.0 } else { 1.0 })).collect();
        let users = Users::new(events, 6);
        let [kept] = &photos(&users)[..] else { panic!("one user") };
        assert_eq!((kept.len(), users.capped), (6, 1));
        assert_eq!(kept.iter().filter(|it| it.1 == 2.0).map(|it| it.0).collect::<Vec<_>>(), [0, 250, 500, 750]);
        let rest: Vec<usize> = kept.iter().filter(|it| it.1 == 1.0).map(|it| it.0).collect();
        assert_ne!(rest, [1, 2], "the others are not simply the first");
    }
}
