//! SIGTERM and SIGINT: work calls [`check`] between batches and ends as after any other failure; a process that does
//! not reach the next check in time is terminated anyway, which leaves nothing half-written (see [`crate::stage`]).

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::error::{Error, Result};
use crate::threads;

/// Time that a run has to end on its own.
const GRACE: Duration = Duration::from_secs(9);

/// The most recent signal; 0 if none.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Starts to listen for both signals. The program calls this once.
///
/// # Errors
/// [`Error::Io`] if the system call fails, [`Error::Limit`] if no thread can be started.
pub fn listen() -> Result<()> {
    let failed = || Error::io("listen for signals with", "a pipe");
    let (mut woken, wake) = UnixStream::pair().map_err(failed())?;
    for signal in [SIGTERM, SIGINT] {
        flag::register_usize(signal, SIGNAL.clone(), signal as usize).map_err(failed())?;
        low_level::pipe::register(signal, wake.try_clone().map_err(failed())?).map_err(failed())?;
    }
    threads::spawn(move || {
        if woken.read_exact(&mut [0]).is_ok() {
            tracing::warn!("stopping (signal {}); ending after the current batch", SIGNAL.load(Ordering::SeqCst));
            std::thread::sleep(GRACE);
            std::process::exit(128 + SIGNAL.load(Ordering::SeqCst) as i32);
        }
    })
    .map(drop)
}

/// Must be called between batches.
///
/// # Errors
/// [`Error::Stopped`] once a signal has arrived.
pub fn check() -> Result<()> {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => Ok(()),
        signal => Err(Error::Stopped { signal: signal as u8 }),
    }
}
