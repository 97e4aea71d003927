//! Scores from photo to photo.

use super::events::Users;

/// Users that two photos must have in common for half of their cosine to count ([`Interactions::scores`]).
pub const SHRINKAGE: f64 = 5.0;

/// The interactions of a catalogue's photos: 16 bytes for each user and photo.
#[derive(Debug)]
pub struct Interactions {
    /// With each user's weights scaled to a vector of length 1.
    users: Users,
    /// Start of each photo's users, and the end of the last one's.
    starts: Vec<usize>,
    /// Users of each photo, and their weights.
    of_photo: Vec<(u32, f32)>,
    /// Length of each photo's vector over the users.
    lengths: Vec<f64>,
}

impl Interactions {
    /// Of the `photos` photos of a catalogue.
    ///
    /// # Panics
    /// If an event is of another row.
    #[must_use]
    pub fn new(mut users: Users, photos: usize) -> Self {
        for user in 0..users.len() {
            let weights = &mut users.weights[users.starts[user]..users.starts[user + 1]];
            let length = weights.iter().map(|it| f64::from(*it).powi(2)).sum::<f64>().sqrt();
            for weight in weights {
                *weight = (f64::from(*weight) / length) as f32;
            }
        }
        let mut starts = vec![0; photos + 1];
        users.rows.iter().for_each(|&row| starts[row as usize + 1] += 1);
        for row in 0..photos {
            starts[row + 1] += starts[row];
        }
        let (mut ends, mut of_photo) = (starts.clone(), vec![(0, 0.0); users.rows.len()]);
        for user in 0..users.len() {
            for (row, weight) in users.photos(user) {
                of_photo[ends[row]] = (user as u32, weight);
                ends[row] += 1;
            }
        }
        let of_row = |row: usize| &of_photo[starts[row]..starts[row + 1]];
        let length = |row| of_row(row).iter().map(|it| f64::from(it.1).powi(2)).sum::<f64>().sqrt();
        let lengths = (0..photos).map(length).collect();
        Self { users, starts, of_photo, lengths }
    }

    /// Whether nobody chose the photo of that row.
    #[must_use]
    pub fn is_cold(&self, row: usize) -> bool {
        self.lengths[row] == 0.0
    }

    /// How much the people who chose the photos `profile`, rows with weights above 0, chose each photo: the mean of the
    /// score to each of them by these weights, 0 to 1. The score of photos i and j is
    ///
    /// > s(i, j) = (a . b) / (|a| |b|) * n / (n + [`SHRINKAGE`])
    ///
    /// a and b are the photos' vectors over the users, whose own vectors over the photos were scaled to length 1 before, so
    /// that who chooses much says less about each photo (Deshpande and Karypis, ACM TOIS 22, 2004; the cosine is that of Sarwar
    /// et al., WWW 2001). n is the number of users that chose both: few of them say little (Koren, KDD 2008).
    ///
    /// Costs as much as the photos' users have photos, of which each has at most so many.
    #[must_use]
    pub fn scores(&self, profile: &[(usize, f64)]) -> Vec<f32> {
        let total: f64 = profile.iter().map(|(_, weight)| weight).sum();
        let mut scores = vec![0.0; self.lengths.len()];
        let mut common = vec![(0.0, 0u32); self.lengths.len()];
        for &(row, weight) in profile {
            let mut touched = Vec::new();
            for &(user, of_photo) in &self.of_photo[self.starts[row]..self.starts[row + 1]] {
                for (other, of_other) in self.users.photos(user as usize) {
                    let (product, count) = &mut common[other];
                    if *count == 0 {
                        touched.push(other);
                    }
                    *product += f64::from(of_photo) * f64::from(of_other);
                    *count += 1;
                }
            }
            for other in touched {
                let (product, count) = std::mem::take(&mut common[other]);
                let cosine = product / (self.lengths[row] * self.lengths[other]);
                let count = f64::from(count);
                scores[other] += weight / total * cosine * count / (count + SHRINKAGE);
            }
        }
        scores.into_iter().map(|score| score as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::events::Event;
    use super::*;

    /// Users choose photos: a: 0 1; b: 0 1; c: 0 2, of five photos.
    fn interactions() -> Interactions {
        let chosen = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0), ("c", 2)];
        let events = chosen.map(|(user, row)| Event { user: Event::user(user), row, weight: 3.0 });
        Interactions::new(Users::new(events.to_vec(), 10), 5)
    }

    fn shrunk(cosine: f64, users: f64) -> f32 {
        (cosine * users / (users + SHRINKAGE)) as f32
    }

    #[test]
    fn scores_are_those_worked_out_by_hand() {
        // Each user's vector is (1, 1) / sqrt 2, so photos 0, 1, 2 have the lengths sqrt(3/2), 1 and sqrt(1/2).
        let expected = [
            shrunk(1.0, 3.0),
            shrunk(1.0 / 1.5f64.sqrt(), 2.0),
            shrunk(0.5 / (1.5f64.sqrt() * 0.5f64.sqrt()), 1.0),
            0.0,
            0.0,
        ];
        let found = interactions().scores(&[(0, 2.0)]);
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}, not {expected:?}");
    }

    #[test]
    fn several_photos_are_a_mean_by_their_weights() {
        let it = interactions();
        let [first, second] = [it.scores(&[(0, 1.0)]), it.scores(&[(2, 1.0)])];
        let both = it.scores(&[(0, 3.0), (2, 1.0)]);
        for row in 0..5 {
            assert!((both[row] - (0.75 * first[row] + 0.25 * second[row])).abs() < 1e-6, "{row}");
        }
    }

    #[test]
    fn photos_that_nobody_chose_are_cold() {
        let it = interactions();
        assert_eq!([0, 1, 2, 3, 4].map(|row| it.is_cold(row)), [false, false, false, true, true]);
        assert_eq!(it.scores(&[(3, 1.0)]), [0.0; 5]);
        assert_eq!(it.scores(&[]), [0.0; 5]);
        assert!(Interactions::new(Users::default(), 2).is_cold(1));
    }

    #[test]
    fn scores_are_symmetric() {
        let it = interactions();
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            assert!((it.scores(&[(a, 1.0)])[b] - it.scores(&[(b, 1.0)])[a]).abs() < 1e-7);
        }
    }
}
