//! How a stage ended, if nothing failed: a decision of the stage or of whoever stopped it is not an error.

use std::fmt;
use std::path::PathBuf;

use super::record::Summary;
use crate::error::{Error, Result, shown};

/// How a stage ended.
#[derive(Debug, Clone)]
#[must_use = "a stage may end without publishing"]
pub enum Outcome {
    /// A new version of the folder was published.
    Published(Summary),
    /// A dry run: what would be published.
    Planned(Summary),
    /// The published folder is up to date.
    NothingToDo {
        /// The published folder.
        output: PathBuf,
    },
    /// A new version was published, but more photos were rejected than allowed, so that the next run tries again.
    TooManyRejects {
        /// The record of the version.
        summary: Summary,
        /// How many photos were rejected.
        rejected: u64,
        /// How many photos there were.
        total: u64,
        /// The largest share that is allowed, 0 to 1.
        allowed: f64,
        /// The table of rejects.
        table: PathBuf,
    },
    /// A gate did not pass: the new version was moved aside, and the previous one stays published.
    KeptBack {
        /// The record of the new version.
        summary: Summary,
        /// Where the new version is.
        aside: PathBuf,
    },
    /// The run was told to stop (SIGTERM or SIGINT); the previous version stays published.
    Stopped {
        /// The signal's number.
        signal: u8,
    },
}

impl Outcome {
    /// The outcome of a stage that ended with `result`: [`Error::Stopped`], which ends its loops, becomes an outcome.
    ///
    /// # Errors
    /// All other errors.
    pub fn of(result: Result<Self>) -> Result<Self> {
        match result {
            Err(Error::Stopped { signal }) => Ok(Self::Stopped { signal }),
            other => other,
        }
    }

    /// Whether there is a new published version.
    #[must_use]
    pub fn is_published(&self) -> bool {
        matches!(self, Self::Published(_) | Self::TooManyRejects { .. })
    }

    /// The record of the version that was made, published or not.
    #[must_use]
    pub fn summary(&self) -> Option<&Summary> {
        match self {
            Self::Published(summary)
            | Self::Planned(summary)
            | Self::TooManyRejects { summary, .. }
            | Self::KeptBack { summary, .. } => Some(summary),
            Self::NothingToDo { .. } | Self::Stopped { .. } => None,
        }
    }

    /// The record of the version that was published or planned.
    ///
    /// # Errors
    /// Any other outcome, including one with too many rejects.
    pub fn published(self) -> Result<Summary, Box<Self>> {
        match self {
            Self::Published(summary) | Self::Planned(summary) => Ok(summary),
            other => Err(Box::new(other)),
        }
    }

    /// What an operator must be told; `None` if all is well.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Published(_) | Self::Planned(_) | Self::NothingToDo { .. } => None,
            _ => Some(self.to_string()),
        }
    }

    /// The exit code of the program: 0 published or nothing to do, 1 kept back, 3 more rejects than allowed, 128 +
    /// signal number if the run was told to stop.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Published(_) | Self::Planned(_) | Self::NothingToDo { .. } => 0,
            Self::KeptBack { .. } => 1,
            Self::TooManyRejects { .. } => 3,
            Self::Stopped { signal } => 128 + signal,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published(summary) => write!(f, "{}: published", shown(&summary.output).display()),
            Self::Planned(summary) => write!(f, "{}: would be published", shown(&summary.output).display()),
            Self::NothingToDo { output } => write!(f, "{}: nothing to do, it is up to date", shown(output).display()),
            Self::TooManyRejects { summary, rejected, total, allowed, table } => write!(
                f,
                "{}: {rejected} of {total} photos were rejected, more than the allowed share of {allowed} \
                 (max_reject_fraction); {} says which and why; what is good was published",
                summary.stage,
                shown(table).display()
            ),
            Self::KeptBack { summary, aside } => {
                let failed = summary.gates.iter().filter(|gate| !gate.passed).map(ToString::to_string);
                write!(
                    f,
                    "{}: kept back by {}; what was published before stays, the new version is in {} for inspection; if it is \
                     right, raise or remove the gate in [gates] and run again",
                    summary.stage,
                    failed.collect::<Vec<_>>().join("; "),
                    aside.display()
                )
            }
            Self::Stopped { signal } => write!(f, "stopped by signal {signal}; what was published before stays"),
        }
    }
}
