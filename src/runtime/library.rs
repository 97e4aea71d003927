//! Where the library of ONNX Runtime lies, and which version it is.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;

/// Environment variable with the library's path, which takes precedence over all other locations.
pub const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";
/// Folder into which `scripts/install_onnxruntime.sh` installs the library.
pub const LIBRARY_FOLDER: &str = ".runtime";
/// File name of the library; the Python package appends its version.
pub const LIBRARY_FILE: &str = "libonnxruntime.so";
/// The versions that this program is tested with, as `major.minor.`.
pub const TESTED_RUNTIME: &str = "1.31.";
/// What pip calls them.
pub const REQUIREMENT: &str = "onnxruntime~=1.31.0";
/// Folder of the library in the folder of Python's packages.
const IN_PACKAGE: &str = "onnxruntime/capi";

/// What installs the library that this program needs: a command for people.
#[must_use]
pub fn advice() -> String {
    match files::python_prefix() {
        Some(prefix) => {
            let prefix = prefix.display();
            format!(
                "run `pip install '{REQUIREMENT}'` in the Python environment {prefix}, or set {LIBRARY_VARIABLE} to an ONNX \
                 Runtime library"
            )
        }
        None => format!(
            "run 'scripts/install_onnxruntime.sh' in the project's folder, or set {LIBRARY_VARIABLE} to an ONNX Runtime library"
        ),
    }
}

/// The library that `ORT_DYLIB_PATH` names, otherwise the one that is installed: in a checkout, or as the Python package
/// `onnxruntime` in the environment that holds the program. The library is code that runs with the user's rights: it is
/// never taken from the working directory.
///
/// # Errors
/// [`Error::Runtime`] with the places that were searched.
pub(super) fn find() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(LIBRARY_VARIABLE).filter(|value| !value.is_empty()) {
        let path = PathBuf::from(named);
        let path = std::path::absolute(&path).unwrap_or(path);
        if path.is_file() {
            return Ok(path);
        }
        let problem = format!("{LIBRARY_VARIABLE} points to it, but there is no such file; {}", advice());
        return Err(Error::runtime(path.display().to_string(), problem));
    }
    let mut places: Vec<_> =
        files::beside_program(LIBRARY_FOLDER).into_iter().map(|folder| folder.join(LIBRARY_FILE)).collect();
    if let Some(path) = places.iter().find(|path| path.is_file()) {
        return Ok(path.clone());
    }
    let packages = files::python_packages();
    if let Some(path) = best_in(&packages) {
        return Ok(path);
    }
    places.extend(packages.iter().map(|folder| folder.join(IN_PACKAGE).join(LIBRARY_FILE)));
    let places: Vec<_> = places.iter().map(|it| it.display().to_string()).collect();
    Err(Error::runtime("ONNX Runtime", format!("there is no {}; {}", places.join(" and no "), advice())))
}

/// The library among Python's packages in `folders`: of a tested version if there is one, and of these the newest.
fn best_in(folders: &[PathBuf]) -> Option<PathBuf> {
    let libraries = folders.iter().filter_map(|folder| std::fs::read_dir(folder.join(IN_PACKAGE)).ok()).flatten();
    let libraries = libraries.flatten().map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix(LIBRARY_FILE).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) && path.is_file()
    });
    libraries.min_by_key(|path| {
        let version = version_in_name(path).unwrap_or_default();
        let numbers: Vec<u32> = version.split('.').map_while(|it| it.parse().ok()).collect();
        (!version.starts_with(TESTED_RUNTIME), Reverse(numbers), path.clone())
    })
}

/// The version from the name of the file that `path` resolves to, otherwise from the library's build information, which in
/// builds for wheels contains only a branch.
pub(super) fn version(path: &Path) -> String {
    version_in_name(path).unwrap_or_else(|| {
        let info = ort::info();
        let branch = info.split([',', ' ']).find_map(|part| part.strip_prefix("git-branch="));
        branch.map_or(info, |branch| branch.trim_start_matches("rel-")).to_owned()
    })
}

/// `1.31.1` of a path that resolves to `libonnxruntime.so.1.31.1`.
fn version_in_name(path: &Path) -> Option<String> {
    let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = file.file_name()?.to_string_lossy().into_owned();
    let (_, version) = name.split_once(".so.")?;
    version.starts_with(|first: char| first.is_ascii_digit()).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn of_several_packages_the_tested_version_is_taken_and_else_the_newest() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let packages: Vec<_> = ["a", "b", "c"].iter().map(|it| place.path().join(it)).collect();
        assert_eq!(best_in(&packages), None);
        let add = |folder: &Path, name: &str| {
            let path = folder.join(IN_PACKAGE).join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("created");
            fs::write(&path, "").expect("written");
            path
        };
        add(&packages[1], "libonnxruntime_providers_shared.so");
        add(&packages[1], "onnxruntime_pybind11_state.so");
        assert_eq!(best_in(&packages), None);
        let plain = add(&packages[2], "libonnxruntime.so");
        assert_eq!(best_in(&packages), Some(plain));
        let [old, new] = ["1.9.0", "1.40.2"].map(|it| add(&packages[1], &format!("libonnxruntime.so.{it}")));
        assert_eq!(best_in(&packages), Some(new.clone()), "1.40 is newer than 1.9");
        assert_eq!((version(&old).as_str(), version(&new).as_str()), ("1.9.0", "1.40.2"));
        let tested = add(&packages[0], &format!("libonnxruntime.so.{TESTED_RUNTIME}1"));
        assert_eq!(best_in(&packages), Some(tested));
    }

    #[test]
    fn pip_is_asked_for_the_tested_version() {
        assert_eq!(REQUIREMENT, format!("onnxruntime~={TESTED_RUNTIME}0"));
        for (file, line) in [
            ("pyproject.toml", format!("\"{REQUIREMENT}\"")),
            ("scripts/onnxruntime.txt", format!("onnxruntime=={TESTED_RUNTIME}")),
        ] {
            let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect(file);
            assert!(text.contains(&line), "{file} has no {line}");
        }
    }
}
