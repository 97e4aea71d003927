//! SIGTERM and SIGINT: work looks at [`check`] between two batches and ends as after any other failure; a process that does
//! not get there in time is ended all the same, which leaves nothing half-written (see [`crate::stage`]).

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::error::{Error, Result};

/// Time that a run has to end by itself.
const GRACE: Duration = Duration::from_secs(9);

/// The signal that came last; 0 before any.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Starts to listen for both signals. To be called once, by the program.
///
/// # Errors
/// [`Error::Io`] where the system refuses.
pub fn listen() -> Result<()> {
    let failed = || Error::io("listen for signals with", "a pipe");
    let (mut woken, wake) = UnixStream::pair().map_err(failed())?;
    for signal in [SIGTERM, SIGINT] {
        flag::register_usize(signal, SIGNAL.clone(), signal as usize).map_err(failed())?;
        low_level::pipe::register(signal, wake.try_clone().map_err(failed())?).map_err(failed())?;
    }
    std::thread::spawn(move || {
        if woken.read_exact(&mut [0]).is_ok() {
            tracing::warn!("told to stop (signal {}); ending after the current batch", SIGNAL.load(Ordering::SeqCst));
            std::thread::sleep(GRACE);
            std::process::exit(128 + SIGNAL.load(Ordering::SeqCst) as i32);
        }
    });
    Ok(())
}

/// To be called between two batches.
///
/// # Errors
/// [`Error::Stopped`] once a signal came.
pub fn check() -> Result<()> {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => Ok(()),
        signal => Err(Error::Stopped { signal: signal as u8 }),
    }
}
