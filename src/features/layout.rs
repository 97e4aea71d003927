//! Where the files of a features folder lie, in this version and in folders that older ones published. Only this module
//! knows.
//!
//! ```text
//! part-NNNNN.parquet           the table's rows, with part-NNNNN.arrow beside each if requested
//! _state/state-NNNNN.parquet   what the next run needs to know about the photos of the part
//! _state/rejects.parquet       inputs that were left out
//! _state/vanished/             rows of photos that vanished, in this same layout
//! ```
//!
//! So `*.parquet` matches the rows and nothing else; pyarrow and Spark, given the folder itself, skip names that begin
//! with `_`. Older versions had what lies in `_state` beside the parts: [`find`] finds it there too, and each run
//! writes a new folder in the new layout.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::files;

/// The folder of everything that is not a row of the table.
pub const STATE_FOLDER: &str = "_state";
/// The table of rejects, as a path within a features folder.
pub const REJECTS_FILE: &str = "_state/rejects.parquet";
/// The folder of the rows of vanished photos, as a path within a features folder.
pub const VANISHED_FOLDER: &str = "_state/vanished";

/// The state of part `number`, as a path within a features folder.
#[must_use]
pub fn state_file(number: usize) -> PathBuf {
    Path::new(STATE_FOLDER).join(format!("state-{number:05}.parquet"))
}

/// Where `folder` has what this version calls `name`: `name`, unless only its place in the old layout exists.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if that cannot be determined: a disk error must not look like a missing file.
pub fn find(folder: &Path, name: impl AsRef<Path>) -> Result<PathBuf> {
    let name = name.as_ref();
    let old = name.strip_prefix(STATE_FOLDER).unwrap_or(name);
    let is_old = !files::is_there(&folder.join(name))? && files::is_there(&folder.join(old))?;
    Ok(if is_old { old } else { name }.to_owned())
}

/// Whether the file `name` of a features folder, in either layout, is a part or a state of the table itself, not of the
/// vanished photos.
#[must_use]
pub fn is_part_or_state(name: &Path) -> bool {
    let name = name.strip_prefix(STATE_FOLDER).unwrap_or(name).to_string_lossy();
    ["part-", "state-"].iter().any(|it| name.starts_with(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_are_found_and_the_new_one_comes_first() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let folder = place.path();
        let [new, old] = [state_file(0), PathBuf::from("state-00000.parquet")];
        assert_eq!(find(folder, &new)?, new, "what is missing is missed where this version writes it");
        std::fs::write(folder.join(&old), "").expect("writable");
        std::fs::create_dir(folder.join("vanished")).expect("writable");
        assert_eq!((find(folder, &new)?, find(folder, VANISHED_FOLDER)?), (old, "vanished".into()));
        std::fs::create_dir(folder.join(STATE_FOLDER)).expect("writable");
        assert_eq!(find(folder, VANISHED_FOLDER)?, Path::new("vanished"), "each file is looked for by itself");
        std::fs::write(folder.join(&new), "").expect("writable");
        assert_eq!(find(folder, &new)?, new);
        std::fs::remove_dir_all(folder.join(STATE_FOLDER)).expect("writable");
        std::fs::write(folder.join(STATE_FOLDER), "").expect("writable");
        assert!(find(folder, &new).is_err(), "a place that cannot be searched is an error");
        Ok(())
    }

    #[test]
    fn parts_and_states_are_told_from_the_rest() {
        for name in ["part-00000.parquet", "part-00001.arrow", "state-00000.parquet", "_state/state-00012.parquet"] {
            assert!(is_part_or_state(Path::new(name)), "{name}");
        }
        for name in ["_state/rejects.parquet", "_state/vanished/part-00000.parquet", "vanished/state-00000.parquet"] {
            assert!(!is_part_or_state(Path::new(name)), "{name}");
        }
    }
}
