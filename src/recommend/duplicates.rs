//! The groups of duplicates of a catalogue, by row.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::duplicates::{GROUPS_FILE, read_groups};
use crate::error::{Error, Result};
use crate::features::FeatureTable;

/// The table of groups in the folder of `lookbook duplicates`.
pub(super) fn file(folder: &Path) -> PathBuf {
    folder.join(GROUPS_FILE)
}

/// The group of each photo of `features`, from the folder of `lookbook duplicates`; `None` for one that has been added since.
///
/// # Errors
/// As [`read_groups`]; [`Error::Input`] if the groups are of another catalogue: none of its photos is in `features`.
pub(super) fn groups(folder: &Path, features: &FeatureTable) -> Result<Vec<Option<u32>>> {
    let group_of: HashMap<u32, u32> = read_groups(folder)?.iter().map(|it| (it.photo_id, it.group_id)).collect();
    let groups: Vec<_> = features.photo_ids.iter().map(|id| group_of.get(id).copied()).collect();
    let missing = groups.iter().filter(|it| it.is_none()).count();
    if missing == groups.len() && missing > 0 {
        let problem = "has none of the photos of the feature table; name the groups of the same catalogue";
        return Err(Error::input(file(folder), problem));
    }
    if missing > 0 {
        tracing::warn!(
            "{}: {missing} of {} photos are in no group; run duplicates again",
            folder.display(),
            groups.len()
        );
    }
    Ok(groups)
}
