//! Which photo of the catalogue an event names.

use std::collections::HashMap;
use std::fmt;

use crate::features::FeatureTable;

/// Columns that name a photo, the most exact first; the first that is there is used.
pub(super) const KEYS: [&str; 3] = ["photo_id", "path", "file_name"];
/// In place of a row: several photos have that file name.
const SEVERAL: u32 = u32::MAX;

/// What an event says of its photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// A number that may be a `photo_id`.
    Id(i128),
    /// A path or a file name.
    Name(&'a str),
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

/// The rows of a feature table by one of its columns.
pub(super) struct Photos<'a> {
    column: &'static str,
    ids: HashMap<i128, u32>,
    names: HashMap<&'a str, u32>,
}

impl<'a> Photos<'a> {
    /// By the first of [`KEYS`] that is among `columns`; `None` if there is none.
    pub(super) fn new(features: &'a FeatureTable, columns: &[&str]) -> Option<Self> {
        let column = KEYS.into_iter().find(|key| columns.contains(key))?;
        let (mut ids, mut names) = (HashMap::new(), HashMap::new());
        if column == "photo_id" {
            ids.extend(features.photo_ids.iter().map(|&id| i128::from(id)).zip(0..));
        } else {
            let texts = if column == "path" { &features.paths } else { &features.file_names };
            for (name, row) in texts.iter().zip(0..) {
                names.entry(name.as_str()).and_modify(|it| *it = SEVERAL).or_insert(row);
            }
        }
        Some(Self { column, ids, names })
    }

    /// The column that names the photos.
    pub(super) fn column(&self) -> &'static str {
        self.column
    }

    /// Whether that column holds numbers.
    pub(super) fn by_number(&self) -> bool {
        self.column == KEYS[0]
    }

    /// The row of the photo; `None` if it is not in the catalogue.
    ///
    /// # Errors
    /// If several photos have that name.
    pub(super) fn row(&self, key: Key) -> Result<Option<u32>, String> {
        let found = match key {
            Key::Id(id) => self.ids.get(&id),
            Key::Name(name) => self.names.get(name),
        };
        match found {
            Some(&SEVERAL) => {
                Err(format!("the {} '{key}' is that of several photos; name photos by photo_id or path", self.column))
            }
            found => Ok(found.copied()),
        }
    }
}
