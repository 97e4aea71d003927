//! The groups of duplicates of a catalogue, by photo.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use arrow::array::UInt32Array;

use crate::error::{Error, Result};
use crate::features::FeatureTable;
use crate::table::{column, read_foreign};

/// File name of the table of groups.
const FILE: &str = "groups.parquet";

/// The table of groups in the folder of `lookbook duplicates`.
pub(super) fn file(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// The group of each photo of `features` that is in one, from the folder of `lookbook duplicates`.
///
/// # Errors
/// [`Error::Input`] if the folder has no such table, or one of another catalogue: none of its photos is in `features`.
pub(super) fn groups(folder: &Path, features: &FeatureTable) -> Result<Vec<Option<u32>>> {
    let path = file(folder);
    let (_, reader) = read_foreign(&path, |field| ["photo_id", "group_id"].contains(&field.name().as_str()))?;
    let mut group_of = HashMap::new();
    for rows in reader {
        let rows = rows?;
        let [ids, groups] = ["photo_id", "group_id"].map(|name| column::<UInt32Array>(&path, &rows, name));
        group_of.extend(ids?.values().iter().copied().zip(groups?.values().iter().copied()));
    }
    let groups: Vec<_> = features.photo_ids.iter().map(|id| group_of.get(id).copied()).collect();
    if !group_of.is_empty() && groups.iter().all(Option::is_none) {
        return Err(Error::input(
            path,
            "has none of the photos of the feature table; name the groups of the same catalogue",
        ));
    }
    Ok(groups)
}
