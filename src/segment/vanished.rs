//! `_state/vanished/`: rows of photos that are no longer in the catalogue, in the layout of a features folder. A photo
//! that comes back, for example after a night in which a disk was missing, keeps its id and need not be segmented
//! again.

use std::collections::HashSet;

use super::earlier::{Earlier, PhotoPlace};
use super::parts::Parts;
use super::state::{self, StateRow};
use crate::error::Result;
use crate::features::layout;
use crate::features::rows::{self, Format, PART_ROWS};
use crate::stage::Stage;
use crate::{files, table};

/// Writes the rows of photos that are no longer in the catalogue, most recently vanished first, at most as many as the
/// catalogue has photos. Returns how many photos of the published table vanished, and how many it has. Only those photos
/// count that are this shard's according to `is_its`.
pub(super) fn write(
    parts: &Parts,
    earlier: &Earlier,
    stage: &Stage,
    is_its: &dyn Fn(&StateRow) -> bool,
) -> Result<[u64; 2]> {
    let here: HashSet<&str> = parts.catalogue.entries.iter().map(|it| &*it.name).collect();
    let in_folder = |folder: u16| {
        let photos = earlier.folders[usize::from(folder)].photos.iter().zip(0..);
        let photos = photos.filter(|(it, _)| it.row.is_some() && is_its(&it.state));
        photos.map(move |(it, photo)| (it, PhotoPlace { folder, photo }))
    };
    let published = earlier.published.into_iter().flat_map(in_folder);
    let (before, vanished) = published.fold((0, Vec::new()), |(count, mut vanished), (photo, place)| {
        vanished.extend((!here.contains(&*photo.state.name)).then_some(place));
        (count + 1, vanished)
    });
    // Of another catalogue nothing has vanished.
    let is_same = earlier.published.is_some_and(|it| earlier.folders[usize::from(it)].is_of(parts.catalogue.path()));
    let counts = [if is_same { vanished.len() as u64 } else { 0 }, before];
    let known: HashSet<&str> = earlier.published().iter().map(|it| &*it.state.name).collect();
    let earlier_ones = earlier.vanished.into_iter().flat_map(in_folder);
    let earlier_ones =
        earlier_ones.filter(|(it, _)| !here.contains(&*it.state.name) && !known.contains(&*it.state.name));
    let kept: Vec<PhotoPlace> =
        vanished.into_iter().chain(earlier_ones.map(|(_, place)| place)).take(here.len()).collect();
    if kept.is_empty() {
        return Ok(counts);
    }
    let folder = stage.create_folder(layout::VANISHED_FOLDER)?;
    files::create_folder(&folder.join(layout::STATE_FOLDER))?;
    for (number, places) in kept.chunks(PART_ROWS).enumerate() {
        let photos = || places.iter().map(|&place| (place, earlier.photo(place)));
        let from: Vec<_> =
            photos().map(|(place, photo)| photo.row.map(|(part, row)| (place.folder, part, row))).collect();
        let rows = parts.gathered(rows::batch_of(parts.labels, &[], parts.embedding.as_ref()), &from)?;
        rows::write_part(&folder.join(table::part_name(number)), &rows, Format::Parquet)?;
        let states: Vec<_> = places.iter().map(|&place| parts.state(place)).collect();
        state::write(&folder.join(layout::state_file(number)), &states)?;
    }
    Ok(counts)
}
