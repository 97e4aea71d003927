//! Polars, in the one place that runs it.

use std::path::Path;
use std::sync::OnceLock;

use polars::prelude::PolarsError;

use crate::error::{Error, Result};
use crate::{guard, threads};

/// Threads that Polars starts for each processor, whatever this run's own number is: of its two executors and its pool.
const THREADS_PER_PROCESSOR: usize = 3;
/// Threads that it starts to read files, at most so many for our tables.
const READING_THREADS: usize = 16;

/// Runs `query` of the table at `path` (a file, or a folder of parts); `problem` says what the table is not if it fails.
///
/// # Errors
/// [`Error::Input`] with `problem` if Polars returns an error, or panics, which it does on damaged files; [`Error::Limit`]
/// if it cannot start its threads.
pub(crate) fn run<T>(path: &Path, problem: &str, query: impl FnOnce() -> Result<T, PolarsError>) -> Result<T> {
    check_threads()?;
    match guard::no_panic_of_library(query) {
        Ok(result) => result.map_err(|cause| Error::input(path, problem).because(cause)),
        Err(panic) => Err(Error::input(path, problem).because(panic)),
    }
}

/// Polars panics if it cannot start its threads, and sometimes hangs.
fn check_threads() -> Result<()> {
    static ROOM: OnceLock<()> = OnceLock::new();
    if ROOM.get().is_none() {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        threads::check_room(THREADS_PER_PROCESSOR * processors + READING_THREADS)?;
        let _ = ROOM.set(());
    }
    Ok(())
}
