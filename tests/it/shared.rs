//! Where tests find data that is not in this repository, and how they say that they were skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use crate::skip::skip;

/// As [`skip`], for want of something that `.ci/run` installs: a failure in continuous integration (`CI=true`).
pub(crate) fn not_installed(reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|it| it != "true"), "would be skipped, with CI=true: {reason}");
    skip(reason);
}

/// A path below the folder of shared data (`LOOKBOOK_SHARED`, else `../shared`); `None`, said aloud, if it is missing.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LOOKBOOK_SHARED").map_or_else(|| PathBuf::from("../shared"), PathBuf::from);
    let path = root.join(path);
    if path.exists() {
        return Some(path);
    }
    skip(&format!("{} is not there (LOOKBOOK_SHARED names the folder of shared data)", path.display()));
    None
}

/// The ONNX Runtime library that `scripts/install_onnxruntime.sh` installed, or that `ORT_DYLIB_PATH` names; `None`,
/// said aloud, where there is none.
pub(crate) fn library() -> Option<PathBuf> {
    let found = lookbook::runtime::library();
    if let Err(problem) = &found {
        not_installed(&problem.to_string());
    }
    found.ok().map(|it| it.path)
}

/// Copies a program or script to where it is to be run, by a process of its own: a child that another test starts
/// meanwhile would hold a file that this process writes open, and it could not be run ("Text file busy").
pub(crate) fn install(program: &Path, to: &Path) {
    let installed = Command::new("install").args(["-D", "-m", "755"]).args([program, to]).status().unwrap();
    assert!(installed.success(), "{}", to.display());
}

/// Draws the built-in sample into `folder`.
pub(crate) fn drawn_sample(folder: &Path, photos: u32) {
    let config = lookbook::sample::Config { output: folder.to_owned(), photos };
    lookbook::sample::run(&config, &lookbook::stage::Common::default()).unwrap().published().expect("it is published");
}
