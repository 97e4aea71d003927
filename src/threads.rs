//! The one place that makes pools of rayon's threads.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// Sets the number of threads of the global pool, which all parallel work outside [`with`] runs on. It can only be set
/// once, before the first such work; later calls change nothing.
pub fn set_global(threads: usize) {
    let _ = ThreadPoolBuilder::new().num_threads(threads).build_global();
}

/// Runs `work` on `threads` threads: those of the current pool if it has as many, otherwise those of a pool made for
/// it.
///
/// # Errors
/// [`Error::Config`] if the threads cannot be started.
pub fn with<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    if rayon::current_num_threads() == threads { Ok(work()) } else { Ok(pool(threads)?.install(work)) }
}

fn pool(threads: usize) -> Result<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|cause| Error::config("threads", format!("cannot start {threads} threads: {cause}")))
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
