//! Progress of long work: a bar on a terminal; otherwise a log line every few seconds with done, total, rate and time
//! left.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::units;

/// Time between two log lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Progress of one piece of work; shared between threads by reference.
#[derive(Debug)]
pub struct Progress {
    task: &'static str,
    unit: &'static str,
    bar: ProgressBar,
    last_line: Option<Mutex<Instant>>,
}

impl Progress {
    /// Starts to show `task`, which has `total` items, called `unit` in the plural.
    #[must_use]
    pub fn new(task: &'static str, total: u64, unit: &'static str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal { ProgressBar::new(total) } else { ProgressBar::hidden() };
        bar.set_length(total);
        bar.set_style(
            ProgressStyle::with_template("{prefix:12} [{bar:30}] {pos}/{len} {per_sec} left {eta} {msg}")
                .expect("the template is a constant")
                .progress_chars("=> "),
        );
        bar.set_prefix(task);
        Self { task, unit, bar, last_line: (!terminal).then(|| Mutex::new(Instant::now())) }
    }

    /// Reports `count` more items as done.
    pub fn inc(&self, count: u64) {
        self.bar.inc(count);
        let Some(Ok(mut last)) = self.last_line.as_ref().map(Mutex::lock) else { return };
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let per_sec = done as f64 / self.bar.elapsed().as_secs_f64().max(1e-9);
            let left_secs = total.saturating_sub(done) as f64 / per_sec.max(1e-9);
            tracing::info!(
                "{}: {done} of {total} {}, {per_sec:.1} a second, {} left {}",
                self.task,
                self.unit,
                units::duration(left_secs),
                self.bar.message()
            );
        }
    }

    /// Shows a text after the numbers.
    pub fn message(&self, text: String) {
        self.bar.set_message(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
