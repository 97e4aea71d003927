//! The last resort against a reader that panics on a damaged file: turns the panic into a message instead of printing
//! it.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Calls of [`no_panic_of_library`] that are running.
static LIBRARY_CALLS: AtomicUsize = AtomicUsize::new(0);
/// How the names of the threads begin that Polars starts.
const LIBRARY_THREADS: [&str; 3] = ["polars-", "async-executor-", "tokio-"];

/// Runs `read`; if it panics, returns the panic's message.
///
/// Panics in other threads, and in this one outside of `read`, are reported as usual.
pub(crate) fn no_panic<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() && !is_of_library() {
                usual(info);
            }
        }));
    });
    let before = GUARDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(before);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
    })
}

/// Like [`no_panic`], for a reader that works on threads of Polars, which hands on what panics there.
pub(crate) fn no_panic_of_library<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    LIBRARY_CALLS.fetch_add(1, Ordering::SeqCst);
    let result = no_panic(read);
    LIBRARY_CALLS.fetch_sub(1, Ordering::SeqCst);
    result
}

fn is_of_library() -> bool {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    LIBRARY_CALLS.load(Ordering::SeqCst) > 0 && LIBRARY_THREADS.iter().any(|it| name.starts_with(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(no_panic(|| 3), Ok(3));
        let caught: Result<(), String> = no_panic(|| panic!("broken at {}", 7));
        assert_eq!(caught, Err("broken at 7".to_owned()));
    }
}
