//! Panics that nobody needs to see.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls `work`; `None` if it panics, without a word about it on standard error.
pub(super) fn catch<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::{QUIET, catch};

    #[test]
    fn a_panic_is_caught_and_quiet_only_inside() {
        assert_eq!(catch(|| 3), Some(3));
        assert_eq!(catch(|| assert!(!QUIET.get(), "quiet while it works")), None);
        assert!(!QUIET.get());
    }

    #[test]
    fn a_caught_panic_prints_nothing() {
        let test = "photo::quiet::tests::a_panic_is_caught_and_quiet_only_inside";
        let program = std::env::current_exe().expect("this program");
        let output = std::process::Command::new(program).args([test, "--exact", "--nocapture"]).output();
        let output = output.expect("it runs");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}
