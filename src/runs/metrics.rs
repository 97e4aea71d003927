//! `metrics.prom`: the last attempt at each stage in the Prometheus text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>), for node-exporter's textfile collector.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::history::{Attempt, State};

/// File name of the metrics.
pub const FILE: &str = "metrics.prom";

/// A metric: name, help text, and its value for the attempts at a stage, oldest first; `None` if it has no value.
type Metric = (&'static str, &'static str, fn(&[&Attempt]) -> Option<f64>);

const METRICS: [Metric; 7] = [
    ("lookbook_last_success_timestamp_seconds", "When the stage last succeeded.", |of| {
        timestamp(of.iter().rfind(|it| it.state.is_good())?.ended_at.as_deref()?)
    }),
    ("lookbook_last_end_timestamp_seconds", "When the stage last ended.", |of| {
        timestamp(of.iter().rev().find_map(|it| it.ended_at.as_deref())?)
    }),
    ("lookbook_exit_code", "Exit code of the stage's last attempt; 0 is success.", |of| {
        last_ended(of)?.exit_code.map(f64::from)
    }),
    ("lookbook_duration_seconds", "How long the stage took the last time it published.", |of| {
        Some(last_published(of)?.elapsed_secs)
    }),
    ("lookbook_rows", "Photos in the stage's last published output.", |of| last_published(of)?.figure("photos")),
    ("lookbook_rejects", "Inputs rejected in the stage's last published output.", |of| {
        last_published(of)?.figure("rejects")
    }),
    ("lookbook_mean_iou", "Mean IoU of the last published model on the test split, 0 to 1.", |of| {
        last_published(of)?.figure("test_mean_iou")
    }),
];

fn last_ended<'a>(of: &[&'a Attempt]) -> Option<&'a Attempt> {
    of.iter().rfind(|it| it.state != State::Running).copied()
}

/// Exit code 3 publishes as well.
fn last_published<'a>(of: &[&'a Attempt]) -> Option<&'a Attempt> {
    of.iter().rfind(|it| it.state == State::Complete || it.exit_code == Some(3)).copied()
}

fn timestamp(text: &str) -> Option<f64> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|it| it.timestamp() as f64)
}

/// The file's content: the series of all stages of a run folder, labelled with the folder as `output`, so that several
/// folders can be collected side by side.
#[must_use]
pub fn text(attempts: &[Attempt], output: &str) -> String {
    let mut by_stage: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
    for attempt in attempts {
        by_stage.entry(&attempt.stage).or_default().push(attempt);
    }
    let mut text = String::new();
    for (name, help, value_of) in METRICS {
        let values: Vec<_> = by_stage.iter().filter_map(|(stage, of)| Some((stage, value_of(of)?))).collect();
        if values.is_empty() {
            continue;
        }
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (stage, value) in values {
            let _ = writeln!(text, "{name}{{stage=\"{stage}\",output=\"{}\"}} {value}", escaped(output));
        }
    }
    text
}

/// Escapes a label's value.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
