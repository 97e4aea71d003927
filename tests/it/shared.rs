//! Where tests find data that is not in this repository.

use std::path::PathBuf;

/// A path below the folder of shared data (`LOOKBOOK_SHARED`, else `../shared`); `None`, said aloud, where it is missing.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LOOKBOOK_SHARED").map_or_else(|| PathBuf::from("../shared"), PathBuf::from);
    let path = root.join(path);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not there (LOOKBOOK_SHARED names the folder of shared data)", path.display());
    None
}

/// The ONNX Runtime library that `scripts/install_onnxruntime.sh` installed, or that `ORT_DYLIB_PATH` names; `None`, said
/// aloud, where there is none.
pub(crate) fn library() -> Option<PathBuf> {
    let found = lookbook::runtime::library();
    if let Err(problem) = &found {
        eprintln!("SKIPPED: {problem}");
    }
    found.ok().map(|it| it.path)
}
