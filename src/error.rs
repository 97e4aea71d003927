//! Errors, grouped by who must act, and the exit code of each group.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::io::Errno;

/// Where Linux lists the open files of this process; a path below it leads into a folder that is open.
pub(crate) const DESCRIPTORS: &str = "/proc/self/fd/";

/// The result type of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error that a failure comes from.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A failure that ends a stage. Each message names the subject, what is wrong with it and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bad input: whoever supplies the data must act.
    #[error("{}: {problem}", path.display())]
    Input {
        /// The invalid file or folder.
        path: PathBuf,
        /// What is wrong with it, and what was expected.
        problem: String,
        /// What its reader said, if that says more.
        source: Option<Cause>,
    },
    /// Bad configuration: whoever wrote the flag or the settings file must act.
    #[error("setting '{setting}': {problem}")]
    Config {
        /// The name of the setting or flag.
        setting: String,
        /// What is wrong with its value, and which values are valid.
        problem: String,
    },
    /// A table with a different schema than this version reads: rebuild it, or use the version that wrote it.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Schema {
        /// The table.
        path: PathBuf,
        /// What this version reads.
        expected: String,
        /// What the file holds.
        found: String,
    },
    /// ONNX Runtime or the model: reinstall the former or rebuild the latter.
    #[error("{subject}: {problem}")]
    Runtime {
        /// The library, session or tensor.
        subject: String,
        /// What is wrong, and which command fixes it.
        problem: String,
        /// What ONNX Runtime said, if that says more.
        source: Option<Cause>,
    },
    /// A limit was reached: raise it or reduce the input.
    #[error("{what}: {problem}")]
    Limit {
        /// What is limited (memory, pixels, disk space).
        what: String,
        /// The limit, what was requested, and the setting that changes it.
        problem: String,
    },
    /// Another run holds the output folder.
    #[error("{}: held by {holder}; wait for it to end, or use --lock-wait", output.display())]
    Locked {
        /// The output folder.
        output: PathBuf,
        /// Who holds it, and since when.
        holder: String,
    },
    /// What was tried cannot be done now, and may be later.
    #[error("{}: {problem}; try again later", path.display())]
    NotNow {
        /// The place.
        path: PathBuf,
        /// Why.
        problem: String,
        /// What was said, if that says more.
        source: Option<Cause>,
    },
    /// The run was told to stop (SIGTERM or SIGINT): ends the loops of a stage, whose outcome it then is.
    #[error("stopped by signal {signal}; what was published before stays")]
    Stopped {
        /// The signal's number.
        signal: u8,
    },
    /// The environment: a disk, a permission, a folder. Whoever runs the machine must act.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The action that failed, such as "read".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

impl Error {
    /// Bad input at `path`.
    pub fn input(path: impl AsRef<Path>, problem: impl std::fmt::Display) -> Self {
        Self::Input { path: shown(path.as_ref()), problem: problem.to_string(), source: None }
    }

    /// An invalid value of `setting`.
    pub fn config(setting: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Config { setting: setting.into(), problem: problem.to_string() }
    }

    /// A failure of ONNX Runtime, a session or a model.
    pub fn runtime(subject: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Runtime { subject: subject.into(), problem: problem.to_string(), source: None }
    }

    /// Something that may be done later.
    pub fn not_now(path: impl AsRef<Path>, problem: impl std::fmt::Display) -> Self {
        Self::NotNow { path: shown(path.as_ref()), problem: problem.to_string(), source: None }
    }

    /// Adds the error that it comes from to bad input or a failure of ONNX Runtime; others have none or have it already.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        let cause = cause.into();
        // What the operating system cannot read is not bad input; what is not there is.
        if let (Self::Input { path, .. }, Some(code)) = (&self, system_error(&*cause))
            && code != Errno::NOENT.raw_os_error()
        {
            return Self::io("read", path)(std::io::Error::from_raw_os_error(code));
        }
        let (subject, source) = match &mut self {
            Self::Input { path, source, .. } => (path.display().to_string(), source),
            Self::Runtime { subject, source, .. } => (subject.clone(), source),
            _ => return self,
        };
        // Some libraries say in words alone that the system gave them nothing.
        let said = std::iter::successors(Some(&*cause as &dyn std::error::Error), |it| it.source());
        if let Some((what, problem)) = said.map(ToString::to_string).find_map(|text| refused(&text)) {
            let what = format!("{what}, at {subject}");
            return Self::Limit { what, problem: problem.to_owned() };
        }
        *source = Some(cause);
        self
    }

    /// A table at `path` with another schema.
    pub fn schema(path: impl AsRef<Path>, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Self {
        Self::Schema { path: shown(path.as_ref()), expected: expected.to_string(), found: found.to_string() }
    }

    /// For `map_err` on opening, reading, writing or renaming a file.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::limit(&source, &path).unwrap_or_else(|| Self::Io { action, path: shown(&path), source })
    }

    /// If an error of the operating system at `path` tells of a limit of this process or machine: which, and how to raise it.
    pub(crate) fn limit(cause: &std::io::Error, path: &Path) -> Option<Self> {
        // What has no memory for a whole file has no number.
        let out_of_memory = (cause.kind() == std::io::ErrorKind::OutOfMemory).then_some(Errno::NOMEM);
        let (what, problem) = match Errno::from_io_error(cause).or(out_of_memory)? {
            Errno::MFILE => {
                ("open files", "this process may open no more; raise its limit (`ulimit -n`, LimitNOFILE= of systemd)")
            }
            Errno::NFILE => ("open files", "this machine may open no more; raise fs.file-max (sysctl)"),
            Errno::NOMEM => ("memory", NO_MEMORY),
            _ => return None,
        };
        Some(Self::Limit { what: format!("{what}, at {}", shown(path).display()), problem: problem.to_owned() })
    }

    /// The message with its causes on one line.
    #[must_use]
    pub fn with_causes(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }

    /// The exit code of the program: 1 failed, 2 usage, 75 not now (another run holds the folder, or a store does not answer), 128
    /// + signal number if the run was told to stop. See [`crate::stage::Outcome::exit_code`] for the others.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. } => 2,
            Self::Locked { .. } | Self::NotNow { .. } => 75,
            Self::Stopped { signal } => 128 + signal,
            Self::Input { .. } | Self::Schema { .. } | Self::Runtime { .. } | Self::Limit { .. } | Self::Io { .. } => 1,
        }
    }
}

/// Names in a message that are nearest to one that is not known.
const SIMILAR_NAMES: usize = 3;
/// How near a name has to be to be told, by the similarity of Jaro and Winkler, 0 to 1.
const LEAST_SIMILARITY: f64 = 0.75;

/// A question in a message about a name that is not known: those of `names` that are nearest to it. Empty if none is near.
pub(crate) fn similar<'a>(unknown: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let lower = unknown.to_lowercase();
    let near = |name: &'a str| (strsim::jaro_winkler(&lower, &name.to_lowercase()), name);
    let mut near: Vec<_> = names.into_iter().map(near).filter(|it| it.0 >= LEAST_SIMILARITY).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.dedup_by_key(|it| it.1);
    near.truncate(SIMILAR_NAMES);
    let near: Vec<String> = near.into_iter().map(|(_, name)| format!("'{name}'")).collect();
    if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(" or ")) }
}

const NO_MEMORY: &str = "this process may have no more; raise its limit (`ulimit -v`), or use fewer `threads`";
pub(crate) const NO_THREADS: &str = "this process may start no more; raise its limits (`ulimit -u`, TasksMax= of systemd; \
                          `ulimit -v`), or use fewer `threads`";

/// What the text of an error of ONNX Runtime, the loader, zstd, libjpeg-turbo or C++ says about memory or threads that the
/// system refused: what was refused, and what to do.
pub(crate) fn refused(text: &str) -> Option<(&'static str, &'static str)> {
    const MEMORY: [&str; 8] = [
        "bad_alloc",
        "Failed to allocate memory",
        "Cannot allocate memory",
        "cannot allocate memory",
        "failed to map segment",
        "null pointer when creating new context",
        "Insufficient memory",
        "not enough memory",
    ];
    const THREADS: [&str; 2] = ["pthread_create failed", "OS can't spawn worker thread"];
    let says = |phrases: &[&str]| phrases.iter().any(|it| text.contains(it));
    if says(&THREADS) {
        return Some(("threads", NO_THREADS));
    }
    says(&MEMORY).then_some(("memory", NO_MEMORY))
}

/// The error of the operating system that an error comes from; another one around it if it comes from none.
pub(crate) fn io_error_of(cause: impl Into<Cause>) -> std::io::Error {
    let cause = cause.into();
    match system_error(&*cause) {
        Some(code) => std::io::Error::from_raw_os_error(code),
        None if refused(&cause.to_string()).is_some() => std::io::ErrorKind::OutOfMemory.into(),
        None => std::io::Error::other(cause),
    }
}

/// The number of the operating system's error that an error comes from, if it comes from one.
fn system_error(cause: &(dyn std::error::Error + 'static)) -> Option<i32> {
    // An I/O error around another one does not have it as its source.
    fn code(cause: &std::io::Error) -> Option<i32> {
        cause.raw_os_error().or_else(|| code(cause.get_ref()?.downcast_ref()?))
    }
    // Some libraries keep only the text of a cause.
    fn code_in(text: &str) -> Option<i32> {
        text.rsplit_once("(os error ")?.1.split_once(')')?.0.parse().ok()
    }
    let causes = || std::iter::successors(Some(cause), |cause| cause.source());
    causes().find_map(|it| code(it.downcast_ref()?)).or_else(|| causes().find_map(|it| code_in(&it.to_string())))
}

/// The folder of the copies of what lies in object stores: below it, `s3/BUCKET/KEY` stands for `s3://BUCKET/KEY`.
static COPIES: OnceLock<PathBuf> = OnceLock::new();

/// Makes paths below `folder`, which holds copies of what lies in object stores, be shown as URLs.
pub fn show_as_urls(folder: PathBuf) {
    let _ = COPIES.set(folder);
}

/// The URL of what a path below [`show_as_urls`]' folder is a copy of.
fn url_of(path: &Path) -> Option<PathBuf> {
    let (scheme, rest) = path.strip_prefix(COPIES.get()?).ok()?.to_str()?.split_once('/')?;
    // What lies hidden beside a copy is of this machine alone.
    let is_hidden = rest.split('/').any(|it| it.starts_with('.'));
    (!is_hidden).then(|| format!("{scheme}://{rest}").into())
}

/// A path through a descriptor of this process, or of the copy of what lies in an object store, translated to what users
/// know; other paths are unchanged.
#[must_use]
pub fn shown(path: &Path) -> PathBuf {
    let through = || {
        let (number, rest) = path.to_str()?.strip_prefix(DESCRIPTORS)?.split_once('/').unwrap_or_default();
        let folder = std::fs::read_link(format!("{DESCRIPTORS}{number}")).ok().filter(|_| !number.is_empty())?;
        Some(if rest.is_empty() { folder } else { folder.join(rest) })
    };
    let known = through().unwrap_or_else(|| path.to_owned());
    url_of(&known).unwrap_or(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_cannot_read_is_not_bad_input() {
        let cause = |code| std::io::Error::other(std::io::Error::from_raw_os_error(code));
        let damaged = || Error::input("a.parquet", "is damaged");
        let [disk, limit] = [5, 24].map(|code| damaged().because(cause(code)));
        assert!(
            matches!(disk, Error::Io { .. }) && disk.with_causes().contains("a.parquet: cannot read: Input/output"),
            "{disk}"
        );
        assert!(matches!(limit, Error::Limit { .. }) && limit.to_string().contains("ulimit -n"), "{limit}");
        let told = damaged().because("Parquet argument error: External: Input/output error (os error 5)");
        assert!(matches!(&told, Error::Io { source, .. } if source.raw_os_error() == Some(5)), "{told}");
        assert_eq!(io_error_of("External: No space left on device (os error 28)").raw_os_error(), Some(28));
        assert_eq!(io_error_of("bad magic").to_string(), "bad magic");
        let runtime = || Error::runtime("predict.onnx", "ONNX Runtime failed");
        for (text, limit) in [
            ("x: std::bad_alloc", "ulimit -v"),
            ("External: Allocation error : not enough memory", "ulimit -v"),
            ("pthread_create failed, error code: 11", "ulimit -u"),
        ] {
            let refused = runtime().because(text);
            assert!(matches!(refused, Error::Limit { .. }) && refused.to_string().contains(limit), "{refused}");
            assert!(refused.to_string().contains("predict.onnx"), "{refused}");
        }
        let other = damaged().because("bad magic");
        assert_eq!(other.with_causes(), "a.parquet: is damaged: bad magic");
    }
}
