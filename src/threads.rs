//! The one place that starts threads: what a limit of the process or the machine refuses is an error that names it.

use std::error::Error as _;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{self, Error, Result};

/// Memory that has to be free for a new thread: if there is none for its variables, the C library ends the whole process.
const ROOM_OF_THREAD: usize = 16 << 20;

/// Sets the number of threads of the global pool, which all parallel work outside [`with`] runs on. It can only be set
/// once, before the first such work; later calls change nothing.
///
/// # Errors
/// [`Error::Limit`] if the threads cannot be started.
pub fn set_global(threads: usize) -> Result<()> {
    check_memory(threads)?;
    match ThreadPoolBuilder::new().num_threads(threads).build_global() {
        // Without a source, the pool exists already.
        Err(cause) if cause.source().is_some() => Err(refused(threads)),
        _ => Ok(()),
    }
}

/// Runs `work` on `threads` threads: those of the current pool if it has as many, otherwise those of a pool made for
/// it.
///
/// # Errors
/// [`Error::Limit`] if the threads cannot be started.
pub fn with<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    if rayon::current_num_threads() == threads { Ok(work()) } else { Ok(pool(threads)?.install(work)) }
}

fn pool(threads: usize) -> Result<ThreadPool> {
    check_memory(threads)?;
    ThreadPoolBuilder::new().num_threads(threads).build().map_err(|_| refused(threads))
}

/// Starts a thread of its own.
///
/// # Errors
/// [`Error::Limit`] if it cannot be started.
pub(crate) fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    check_memory(1)?;
    Builder::new().spawn(work).map_err(|_| refused(1))
}

/// Starts a thread of a scope.
///
/// # Errors
/// [`Error::Limit`] if it cannot be started.
pub(crate) fn spawn_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    check_memory(1)?;
    Builder::new().spawn_scoped(scope, work).map_err(|_| refused(1))
}

/// Checks that there is memory for `threads` more threads.
fn check_memory(threads: usize) -> Result<()> {
    let room = Vec::<u8>::new().try_reserve_exact(threads.saturating_mul(ROOM_OF_THREAD));
    room.map_err(|_| refused(threads))
}

/// Why threads cannot be started: the system says the same of all these limits.
fn refused(threads: usize) -> Error {
    Error::Limit { what: format!("{threads} more threads"), problem: error::NO_THREADS.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rayon::prelude::*;

    use super::*;

    #[test]
    fn work_runs_on_as_many_threads_as_asked_for() -> Result<()> {
        for threads in [1, 2, 3] {
            assert_eq!(with(threads, rayon::current_num_threads)?, threads);
        }
        let more = rayon::current_num_threads() + 1;
        let [outer, inner] = with(more, || {
            let inside = || (0..2 * more).into_par_iter().map(|_| std::thread::current().id()).collect::<HashSet<_>>();
            let outer: HashSet<_> = rayon::broadcast(|_| std::thread::current().id()).into_iter().collect();
            with(more, inside).map(|inner| [outer, inner])
        })??;
        assert_eq!(outer.len(), more);
        assert!(inner.is_subset(&outer), "the same pool is used again");
        Ok(())
    }
}
