//! One run at a time per output folder: a lock that the kernel holds for as long as the process lives, on a file that
//! names the holder.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::error::{Error, Result};
use crate::stop;

/// Time between attempts to take a lock that another process holds.
const TRY_EVERY: Duration = Duration::from_millis(200);

/// An exclusive lock of a whole file that belongs to the open file, not to the process (`fcntl(2)`, open file
/// description locks): unlike a `flock(2)` lock, it can be queried without being taken.
const EXCLUSIVE: libc::flock = libc::flock {
    l_type: libc::F_WRLCK as libc::c_short,
    l_whence: libc::SEEK_SET as libc::c_short,
    l_start: 0,
    l_len: 0,
    l_pid: 0,
};

/// A lock that is held. Dropping it unlocks explicitly, rather than by closing the file: a child process that is just
/// being started may still have the file open for a moment.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        let _ =
            fcntl(&self.0, FcntlArg::F_OFD_SETLK(&libc::flock { l_type: libc::F_UNLCK as libc::c_short, ..EXCLUSIVE }));
    }
}

/// Takes the lock file `path` of `output` for the stage `stage`, waiting up to `wait` for the current holder.
///
/// # Errors
/// [`Error::Locked`] if it is still held after that, [`Error::Stopped`], [`Error::Io`].
pub fn take(output: &Path, path: &Path, stage: &str, wait: Duration) -> Result<Lock> {
    // Do not truncate the file before the lock is held: it names the holder.
    let lock =
        File::options().create(true).truncate(false).write(true).open(path).map_err(Error::io("create", path))?;
    let (started, mut logged) = (Instant::now(), false);
    loop {
        match fcntl(&lock, FcntlArg::F_OFD_SETLK(&EXCLUSIVE)) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN | Errno::EACCES) if started.elapsed() < wait => {
                if !logged {
                    tracing::info!("{} is held by {}; waiting", output.display(), holder(path));
                }
                logged = true;
                stop::check()?;
                std::thread::sleep(TRY_EVERY.min(wait));
            }
            Err(Errno::EAGAIN | Errno::EACCES) => {
                return Err(Error::Locked { output: output.to_owned(), holder: holder(path) });
            }
            Err(errno) => return Err(Error::io("lock", path)(errno.into())),
        }
    }
    let mut lock = Lock(lock);
    sign(&mut lock.0, stage).map_err(Error::io("write", path))?;
    Ok(lock)
}

/// Who holds the lock file `path`; `None` if nobody does. This does not take the lock, so a run that starts at the same
/// moment still gets it.
#[must_use]
pub fn held_by(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    let mut lock = EXCLUSIVE;
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).ok()?;
    (lock.l_type != libc::F_UNLCK as libc::c_short).then(|| holder(path))
}

/// What the holder wrote into the lock file; for a moment after taking the lock, that is nothing.
fn holder(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let text = text.trim();
    if text.is_empty() { "a process that has just started".to_owned() } else { text.to_owned() }
}

fn sign(lock: &mut File, stage: &str) -> std::io::Result<()> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let since = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    writeln!(lock, "process {} on {} (lookbook {stage}), since {since}", std::process::id(), host.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_it_is_said_and_a_wait_ends_when_they_let_go() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let (output, path) = (place.path().join("out"), place.path().join(".out.lock"));
        let held = take(&output, &path, "train", Duration::ZERO)?;
        let refused = take(&output, &path, "segment", Duration::ZERO).expect_err("it is held");
        let named = format!("process {} on ", std::process::id());
        assert!(refused.to_string().contains(&named) && refused.to_string().contains("lookbook train"), "{refused}");
        assert!(held_by(&path).is_some_and(|holder| holder.contains(&named)));
        let waiting = std::thread::spawn(move || take(&output, &path, "segment", Duration::from_mins(1)).map(drop));
        drop(held);
        waiting.join().expect("no panic")?;
        assert_eq!(held_by(&place.path().join(".out.lock")), None);
        Ok(())
    }

    #[test]
    fn who_asks_about_a_lock_does_not_hold_it() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let (output, path) = (place.path().join("out"), place.path().join(".out.lock"));
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        let _ = held_by(&path);
                    }
                });
            }
            let taken = (0..2000).try_for_each(|_| take(&output, &path, "train", Duration::ZERO).map(drop));
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            taken
        })
    }
}
