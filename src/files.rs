//! The one module that changes files and folders: each is written completely or not at all, and is on disk before
//! anything refers to it.
//!
//! In: content and a path. Out: files that a kill, a full disk or a power cut leaves either in their old or in their
//! new state. Unless it says otherwise, a function that returns has flushed both the file and the folder that holds its
//! name.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::{DESCRIPTORS, Error, Result};

/// Prefix of the names of incomplete files.
const PARTIAL: &str = ".partial-";
/// What cargo writes into the folder that it builds in.
const CARGO_MARK: &str = ".rustc_info.json";

/// Writes a value as indented JSON, as [`write`] does.
///
/// # Errors
/// [`Error::Io`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|cause| Error::input(path, cause))?;
    text.push('\n');
    write(path, text.as_bytes())
}

/// Writes a file completely or not at all: into a temporary file next to `path`, which is flushed and then renamed.
///
/// # Errors
/// [`Error::Io`].
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    let parent = parent_of(path);
    let mut file = tempfile::Builder::new()
        .prefix(PARTIAL)
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(&parent)
        .map_err(Error::io("create", path))?;
    file.write_all(content).map_err(Error::io("write", path))?;
    file.as_file().sync_all().map_err(Error::io("flush", path))?;
    file.persist(path).map_err(|cause| Error::io("rename into place", path)(cause.error))?;
    flush(&parent)
}

/// Appends a line. If the last line is incomplete, because the disk was full, it is terminated first so that it does
/// not spoil this one.
///
/// # Errors
/// [`Error::Io`].
pub fn append_line(path: &Path, line: &str) -> Result<()> {
    let append = || {
        let mut file = File::options().create(true).append(true).read(true).open(path)?;
        let (len, mut last) = (file.metadata()?.len(), *b"\n");
        if len > 0 {
            file.read_exact_at(&mut last, len - 1)?;
        }
        let end = if last == *b"\n" { "" } else { "\n" };
        file.write_all(format!("{end}{line}\n").as_bytes())?;
        file.sync_data()
    };
    append().map_err(Error::io("append to", path))
}

/// Creates a folder and its parents.
///
/// # Errors
/// [`Error::Io`].
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// Removes a folder and everything in it; does nothing if it does not exist.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(cause)),
        _ => Ok(()),
    }
}

/// Removes a file.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_file(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(Error::io("remove", path))
}

/// Renames a file or a folder and replaces a file of that name. The folder that holds it is not flushed.
///
/// # Errors
/// [`Error::Io`].
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("rename", from))
}

/// Makes `file` available at `place` too: as a hard link if the file system supports that, otherwise as a copy.
///
/// # Errors
/// [`Error::Io`].
pub fn adopt(file: &Path, place: &Path) -> Result<()> {
    if fs::hard_link(file, place).is_ok() {
        return Ok(());
    }
    fs::copy(file, place).map_err(Error::io("copy", file))?;
    flush(place)
}

/// Writes a file of that size that has no content: zeros, for which the file system keeps no blocks.
///
/// # Errors
/// [`Error::Io`].
pub fn write_outline(path: &Path, bytes: u64) -> Result<()> {
    let written = fs::File::create(path).and_then(|it| it.set_len(bytes));
    written.map_err(Error::io("write", path))
}

/// Replaces the folder `output` with the folder `new`. Returns where the old `output` is now; `None` if there was none.
///
/// # Errors
/// [`Error::Io`]. `output` is then unchanged or, only if the file system cannot exchange two folders, moved to `aside`
/// with nothing in its place.
pub fn exchange(new: &Path, output: &Path, aside: &Path) -> Result<Option<PathBuf>> {
    if !is_there(output)? {
        rename(new, output)?;
        return Ok(None);
    }
    match renameat_with(CWD, new, CWD, output, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(Some(new.to_owned())),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => exchange_by_renames(new, output, aside),
        Err(errno) => Err(Error::io("publish", output)(errno.into())),
    }
}

/// For file systems without an atomic exchange. If the second rename fails, the old folder is moved back.
fn exchange_by_renames(new: &Path, output: &Path, aside: &Path) -> Result<Option<PathBuf>> {
    rename(output, aside)?;
    if let Err(error) = rename(new, output) {
        rename(aside, output)?;
        return Err(error);
    }
    Ok(Some(aside.to_owned()))
}

/// Whether something of that name exists; a symbolic link counts even if its target does not exist.
///
/// # Errors
/// [`Error::Io`] if that cannot be determined.
pub fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(Error::io("check for the existence of", path)(cause)),
    }
}

/// The paths in a folder, sorted by name; empty if there is no folder.
///
/// # Errors
/// [`Error::Io`].
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io("read", folder))?,
    };
    let paths = entries.map(|entry| Ok(entry.map_err(Error::io("read", folder))?.path()));
    let mut paths = paths.collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Flushes a file, or the entries of a folder, to disk.
///
/// # Errors
/// [`Error::Io`].
pub fn flush(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("flush", path))
}

/// Flushes a folder and everything below it to disk, except for the files that `is_flushed` (of their paths within the
/// folder) says are on disk already.
///
/// # Errors
/// [`Error::Io`].
pub fn flush_tree(folder: &Path, is_flushed: impl Fn(&Path) -> bool) -> Result<()> {
    for entry in walkdir::WalkDir::new(folder).contents_first(true) {
        let entry = entry.map_err(|cause| Error::io("read", folder)(cause.into()))?;
        if !entry.path().strip_prefix(folder).is_ok_and(&is_flushed) {
            flush(entry.path())?;
        }
    }
    Ok(())
}

/// The folder that holds `path`.
#[must_use]
pub fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Where `folder`, which a script of the project installed, may lie: beside the program; for a program in cargo's
/// `target/`, in the checkout that holds it; and for one in a target folder elsewhere (`CARGO_TARGET_DIR`), in that, where
/// the scripts leave a link. Whoever can write there could replace the program itself.
#[must_use]
pub fn beside_program(folder: &str) -> Vec<PathBuf> {
    beside(&std::env::current_exe().unwrap_or_default(), folder)
}

fn beside(program: &Path, folder: &str) -> Vec<PathBuf> {
    let beside = program.parent().unwrap_or(program);
    let above = || beside.ancestors().take(3);
    let target = above().find(|it| it.file_name().is_some_and(|name| name == "target"));
    let elsewhere = above().find(|it| is_target_of(it, program));
    let places = [Some(beside), target.and_then(Path::parent), elsewhere];
    places.into_iter().flatten().map(|it| it.join(folder)).collect()
}

/// The Python environment that holds the program: the folder above its `bin`, if there are folders of Python's packages in
/// it. That is so after pip or uv installed the program, into a virtual environment, for one user or for all.
#[must_use]
pub fn python_prefix() -> Option<PathBuf> {
    let prefix = prefix_of(&std::env::current_exe().unwrap_or_default())?;
    (!packages_in(&prefix).is_empty()).then_some(prefix)
}

/// The folders of Python's packages in the environment that holds the program, none if it is in none. Whoever can write
/// there could replace the program itself.
#[must_use]
pub fn python_packages() -> Vec<PathBuf> {
    python_prefix().map_or_else(Vec::new, |prefix| packages_in(&prefix))
}

/// The folder above the `bin` of a program.
fn prefix_of(program: &Path) -> Option<PathBuf> {
    let beside = program.parent()?;
    (beside.file_name()? == "bin").then(|| beside.parent().map(Path::to_owned))?
}

/// Where Python's packages may lie in an environment: `lib/python3.12/site-packages`, on Debian also `dist-packages`, on
/// Fedora also in `lib64`; after `pip install --target` in the folder itself.
fn packages_in(prefix: &Path) -> Vec<PathBuf> {
    let entries = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|it| it.path());
    let starts_with = |path: &Path, start: &str| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(start.as_bytes()))
    };
    let pythons = ["lib", "lib64"].into_iter().flat_map(|it| entries(prefix.join(it)));
    let pythons = pythons.filter(|it| starts_with(it, "python3"));
    let packages = pythons.flat_map(|it| ["site-packages", "dist-packages"].map(|name| it.join(name)));
    let mut packages: Vec<_> = packages.filter(|it| it.is_dir()).collect();
    let is_ours = |path: &Path| starts_with(path, "lookbook-") && path.extension() == Some("dist-info".as_ref());
    packages.extend(entries(prefix.to_owned()).any(|it| is_ours(&it)).then(|| prefix.to_owned()));
    packages
}

/// Whether cargo keeps what it builds in `folder`, and the owner of `program` said so.
fn is_target_of(folder: &Path, program: &Path) -> bool {
    let owner = |path: &Path| fs::metadata(path).ok().map(|it| it.uid());
    owner(&folder.join(CARGO_MARK)).is_some_and(|it| Some(it) == owner(program))
}

/// Size and SHA-256 of a file.
///
/// # Errors
/// [`Error::Io`].
pub fn checksum(path: &Path) -> Result<(u64, String)> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let (mut digest, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = match file.read(&mut buffer) {
            Err(cause) if cause.kind() == ErrorKind::Interrupted => continue,
            other => other.map_err(Error::io("read", path))?,
        };
        if read == 0 {
            return Ok((bytes, hexadecimal(&digest.finalize())));
        }
        bytes += read as u64;
        digest.update(&buffer[..read]);
    }
}

/// SHA-256 of `content` in lower-case hexadecimal.
#[must_use]
pub fn digest_of(content: &[u8]) -> String {
    hexadecimal(&Sha256::digest(content))
}

/// Bytes as lower-case hexadecimal.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    // By hand: the crate `hex` (in the tree only through Polars) would save these four lines, as nothing here decodes.
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A folder that is opened once: even if another folder takes its place, [`OpenFolder::path`] leads to files of the
/// folder that was opened. It must outlive whatever reads those paths.
#[derive(Debug)]
pub struct OpenFolder {
    name: PathBuf,
    path: PathBuf,
    opened: File,
}

impl OpenFolder {
    /// Opens the folder `name`.
    ///
    /// # Errors
    /// [`Error::Input`] if it does not exist, [`Error::Io`].
    pub fn open(name: &Path) -> Result<Self> {
        let opened = match File::open(name) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                return Err(Error::input(name, "does not exist; first run the stage that makes this folder"));
            }
            other => other.map_err(Error::io("open", name))?,
        };
        let metadata = opened.metadata().map_err(Error::io("open", name))?;
        if !metadata.is_dir() {
            return Err(Error::io("use as a folder", name)(ErrorKind::NotADirectory.into()));
        }
        let path = PathBuf::from(format!("{DESCRIPTORS}{}", opened.as_raw_fd()));
        Ok(Self { name: name.to_owned(), path, opened })
    }

    /// The path that the folder was opened by.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The folder as a path through its descriptor.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.path
    }

    /// A file of the folder as a path through the folder's descriptor.
    #[must_use]
    pub fn path(&self, file: impl AsRef<Path>) -> PathBuf {
        self.path.join(file)
    }

    /// Reads a file of the folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn read(&self, file: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = self.path(file);
        fs::read(&path).map_err(Error::io("read", &path))
    }

    /// Whether the folder now at `name` is this one and not a replacement.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn is_still_at(&self, name: &Path) -> Result<bool> {
        let identity = |of: &fs::Metadata| (of.dev(), of.ino());
        let opened = self.opened.metadata().map_err(Error::io("read", &self.name))?;
        match fs::metadata(name) {
            Ok(now) => Ok(identity(&now) == identity(&opened)),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(Error::io("read", name)(cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_lies_beside_the_program_or_in_its_checkout() {
        let places = |program: &str| {
            beside(Path::new(program), ".runtime").iter().map(|it| it.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(places("/opt/lookbook/bin/lookbook"), ["/opt/lookbook/bin/.runtime"]);
        let of_checkout = |below: &str| [format!("/src/target/{below}/.runtime"), "/src/.runtime".to_owned()];
        assert_eq!(places("/src/target/release/lookbook"), of_checkout("release"));
        assert_eq!(places("/src/target/release/deps/it-1"), of_checkout("release/deps"));
    }

    #[test]
    fn a_target_folder_elsewhere_is_known_by_what_cargo_leaves_there() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let program = place.path().join("release/lookbook");
        create_folder(&parent_of(&program))?;
        write(&program, b"")?;
        assert_eq!(beside(&program, ".runtime"), [place.path().join("release/.runtime")]);
        write(&place.path().join(CARGO_MARK), b"{}")?;
        let places = ["release/.runtime", ".runtime"].map(|it| place.path().join(it));
        assert_eq!(beside(&program, ".runtime"), places);
        Ok(())
    }

    #[test]
    fn pythons_packages_are_those_around_the_programs_bin() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let venv = place.path().join("été 1");
        assert_eq!(prefix_of(&venv.join("bin/lookbook")), Some(venv.clone()));
        assert_eq!(prefix_of(&venv.join("target/release/lookbook")), None);
        assert_eq!(prefix_of(Path::new("lookbook")), None);
        fs::create_dir_all(venv.join("lib/pkgconfig")).expect("created");
        assert!(packages_in(&venv).is_empty());
        let python = ["lib/python3.12/site-packages", "lib/python3/dist-packages", "lib64/python3.11/site-packages"];
        for folder in python {
            fs::create_dir_all(venv.join(folder)).expect("created");
        }
        let mut found = packages_in(&venv);
        found.sort();
        let mut expected = python.map(|it| venv.join(it));
        expected.sort();
        assert_eq!(found, expected);
        // As `pip install --target` leaves it.
        let target = place.path().join("target");
        fs::create_dir_all(target.join("onnxruntime")).expect("created");
        assert!(packages_in(&target).is_empty());
        fs::create_dir_all(target.join("lookbook-0.1.0.dist-info")).expect("created");
        assert_eq!(packages_in(&target), [target]);
    }

    #[test]
    fn an_opened_folder_is_read_whatever_takes_its_place() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let [output, new, aside] = ["out", "new", "old"].map(|name| place.path().join(name));
        for (folder, text) in [(&output, "first"), (&new, "second")] {
            create_folder(folder)?;
            write(&folder.join("text"), text.as_bytes())?;
        }
        let opened = OpenFolder::open(&output)?;
        assert!(opened.is_still_at(&output)?);
        assert_eq!(exchange(&new, &output, &aside)?, Some(new.clone()));
        assert_eq!(opened.read("text")?, b"first");
        assert!(!opened.is_still_at(&output)? && opened.is_still_at(&new)?);
        assert_eq!(fs::read(output.join("text")).expect("readable"), b"second");
        let missing = opened.read("more").expect_err("it is not there").to_string();
        assert!(missing.contains(new.join("more").to_str().expect("UTF-8")), "{missing}");
        assert!(OpenFolder::open(&output.join("text")).is_err(), "a file is not a folder");
        Ok(())
    }

    #[test]
    fn without_an_atomic_exchange_the_old_folder_is_aside() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let [output, new, aside] = ["out", "new", "old"].map(|name| place.path().join(name));
        create_folder(&output)?;
        assert!(exchange_by_renames(&new, &output, &aside).is_err(), "there is no new folder");
        assert!(is_there(&output)? && !is_there(&aside)?, "the old one is back");
        create_folder(&new)?;
        assert_eq!(exchange_by_renames(&new, &output, &aside)?, Some(aside.clone()));
        assert!(is_there(&output)? && is_there(&aside)? && !is_there(&new)?);
        Ok(())
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_spoil_the_next() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let path = place.path().join("lines");
        fs::write(&path, "{\"a\": 1}\n{\"b").expect("writable");
        append_line(&path, "{}")?;
        assert_eq!(fs::read_to_string(&path).expect("readable"), "{\"a\": 1}\n{\"b\n{}\n");
        Ok(())
    }
}
