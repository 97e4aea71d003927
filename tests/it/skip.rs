//! How tests say that they were skipped: those of this package and, as the same file, those of the operators.

use std::io::Write;

/// Says that the calling test is skipped, as a whole or in part. libtest counts it as passed, so its name and the reason also
/// go as one line into the file that `LOOKBOOK_SKIPPED` names; `scripts/check.sh` counts the tests in it at its end.
pub(crate) fn skip(reason: &str) {
    eprintln!("SKIPPED: {reason}");
    if let Some(path) = std::env::var_os("LOOKBOOK_SKIPPED") {
        let mut file =
            std::fs::File::options().append(true).create(true).open(path).expect("the file of skipped tests opens");
        // libtest names a test's thread after it.
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("main");
        // One write, as tests run at the same time.
        file.write_all(format!("{test}: {}\n", reason.replace('\n', " ")).as_bytes()).expect("it is writable");
    }
}
