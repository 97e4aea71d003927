//! Who chose what, beside how it looks: ranks the photos of a catalogue by a blend of both.

use std::path::Path;

use crate::error::{Error, Result};
use crate::features::FeatureTable;
use crate::interactions::{self, Blended, Interactions, MAX_PHOTOS_PER_USER, Users, blend};
use crate::similarity::Correlator;

/// The nearest looks through which a photo is scored that nobody chose.
const PROFILE_LOOKS: usize = 10;

/// The interactions of a catalogue, and the weight that they have.
#[derive(Debug)]
pub(super) struct Chosen {
    interactions: Interactions,
    weight: f32,
}

/// What photos are ranked by.
pub(super) struct Ranking {
    pub(super) blended: Blended,
    /// From photo to photo; NaN for photos that nobody chose.
    pub(super) cosines: Vec<f32>,
}

impl Chosen {
    /// Reads the events at `path` of the photos of `features`, and says what it found.
    ///
    /// # Errors
    /// As [`interactions::read`]; [`Error::Input`] if there are events, but none of a photo of the catalogue.
    pub(super) fn open(path: &Path, features: &FeatureTable, weight: f64) -> Result<Self> {
        let read = interactions::read(path, features)?;
        if let (Some(unknown), true) = (&read.first_unknown, read.events.is_empty()) {
            let problem =
                format!("none of its {} events is of a photo of the catalogue; the first is of '{unknown}'", read.rows);
            return Err(Error::input(path, problem));
        }
        let (name, rows, unknown) = (path.display(), read.rows, read.unknown);
        let users = Users::new(read.events, MAX_PHOTOS_PER_USER);
        tracing::info!(
            "{name}: {rows} events by {} users; {unknown} are of photos that are not in the catalogue",
            users.len()
        );
        if users.capped > 0 {
            let capped = users.capped;
            tracing::info!(
                "{name}: {capped} users chose more than {MAX_PHOTOS_PER_USER} photos; as many count of each"
            );
        }
        Ok(Self { interactions: Interactions::new(users, features.len()), weight: weight as f32 })
    }

    /// Ranks the photos for one with these correlations; `own` are the rows of photos with its content. If somebody chose one
    /// of them, the photo has scores of its own; otherwise it has those of the ten photos nearest to it that somebody chose,
    /// weighted by their correlation. `None` if nobody chose any photo, or if the people chose nothing else: the looks alone
    /// count.
    pub(super) fn rank(&self, correlator: &Correlator, correlations: &[f32], own: &[usize]) -> Option<Ranking> {
        let is_cold = |row: usize| self.interactions.is_cold(row);
        let chosen_of_own = own.iter().filter(|row| !is_cold(**row));
        let mut profile: Vec<(usize, f64)> = chosen_of_own.map(|&row| (row, 1.0)).collect();
        if profile.is_empty() {
            let is_like = |row: usize| !is_cold(row) && correlations[row] > 0.0;
            let nearest = correlator.nearest(correlations, PROFILE_LOOKS, is_like);
            profile.extend(nearest.into_iter().map(|(row, correlation)| (row, correlation.into())));
        }
        let mut cosines = self.interactions.scores(&profile);
        let is_told = |row: usize| !is_cold(row) && !own.contains(&row);
        let blended = blend(correlations, &cosines, is_told, self.weight)?;
        cosines.iter_mut().enumerate().filter(|(row, _)| is_cold(*row)).for_each(|(_, cosine)| *cosine = f32::NAN);
        Some(Ranking { blended, cosines })
    }
}
