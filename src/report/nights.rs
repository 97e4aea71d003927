//! Tonight compared with last night: the figures of each published folder next to those of the previous version, and
//! the gates.

use std::path::Path;

use serde::Serialize;

use super::figures::{grouped, percent};
use super::run::Run;
use crate::error::Result;
use crate::gates::GateResult;
use crate::model::evaluation;
use crate::stage::{Summary, Versions};
use crate::units;

/// How a figure is formatted.
#[derive(Clone, Copy)]
enum Unit {
    Count,
    Share,
    Correlation,
    Mean,
    Seconds,
}

/// The figures that are compared: stage, name in `run.json`, displayed name, unit, and whether more is better (`None`
/// if neither is).
const FIGURES: [(&str, &str, &str, Unit, Option<bool>); 10] = [
    ("convert", "photos", "photos of the data set", Unit::Count, None),
    ("convert", "rejects", "rejected by convert", Unit::Count, Some(false)),
    ("train", "mean_iou", "mean IoU", Unit::Share, Some(true)),
    ("train", "pixel_accuracy", "pixel accuracy", Unit::Share, Some(true)),
    ("train", "foreground_accuracy", "foreground accuracy", Unit::Share, Some(true)),
    ("segment", "photos", "photos of the catalogue", Unit::Count, None),
    ("segment", "rejects", "rejected by segment", Unit::Count, Some(false)),
    ("segment", "photos_without_apparel", "photos with nothing worn", Unit::Count, Some(false)),
    ("segment", "mean_cells_per_photo", "cells present in a photo", Unit::Mean, None),
    ("similarity", "mean_nearest_correlation", "mean correlation with the nearest", Unit::Correlation, None),
];

/// A row of the comparison.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: String,
    now: String,
    before: String,
    change: String,
    /// CSS class: `better`, `worse` or nothing.
    verdict: &'static str,
}

/// The result of a gate.
#[derive(Debug, Serialize)]
pub(super) struct Gate {
    stage: String,
    text: String,
    passed: bool,
    /// Whether it belongs to a version that was kept back.
    kept_back: bool,
}

/// The comparison and the gates.
#[derive(Debug, Serialize)]
pub(super) struct Nights {
    rows: Vec<Row>,
    gates: Vec<Gate>,
    has_before: bool,
}

/// Compares the stages that are published in `run`.
pub(super) fn compare(run: &Run, stages: &[Summary]) -> Result<Nights> {
    let (mut rows, mut times, mut gates, mut has_before) = (Vec::new(), Vec::new(), Vec::new(), false);
    for (summary, (name, folder)) in stages.iter().zip(&run.folders) {
        let versions = Versions::of(&run.name.join(name))?;
        let previous = versions.previous(1);
        let before = Summary::read(&previous).ok();
        has_before |= before.is_some();
        for (stage, name, shown, unit, more_is_better) in FIGURES {
            let figures =
                (figure(summary, folder.root(), name), before.as_ref().and_then(|it| figure(it, &previous, name)));
            if let (true, (Some(now), before)) = (stage == summary.stage, figures) {
                rows.push(Row::new(shown, now, before, unit, more_is_better));
            }
        }
        let took = (summary.elapsed_secs, before.as_ref().map(|it| it.elapsed_secs));
        times.push(Row::new(&format!("time of {}", summary.stage), took.0, took.1, Unit::Seconds, None));
        gates.extend(summary.gates.iter().map(|gate| Gate::new(&summary.stage, gate, false)));
        if let Ok(rejected) = Summary::read(&versions.rejected()) {
            gates.extend(rejected.gates.iter().map(|gate| Gate::new(&rejected.stage, gate, true)));
        }
    }
    rows.extend(times);
    Ok(Nights { rows, gates, has_before })
}

/// A figure from `run.json`, or, for a model, from its evaluation.
fn figure(summary: &Summary, folder: &Path, name: &str) -> Option<f64> {
    let evaluation = || {
        let evaluation = evaluation::read(folder).ok().filter(|_| summary.stage == "train")?;
        match name {
            "mean_iou" => Some(evaluation.mean_iou),
            "pixel_accuracy" => Some(evaluation.pixel_accuracy),
            "foreground_accuracy" => evaluation.foreground_accuracy,
            _ => None,
        }
    };
    summary.counts.number(name).or_else(evaluation)
}

impl Row {
    fn new(name: &str, now: f64, before: Option<f64>, unit: Unit, more_is_better: Option<bool>) -> Self {
        let change = before.map_or(0.0, |before| now - before);
        let same = before.is_some_and(|before| unit.write(before) == unit.write(now));
        let verdict = match more_is_better {
            Some(more) if !same && change != 0.0 => {
                if (change > 0.0) == more {
                    "better"
                } else {
                    "worse"
                }
            }
            _ => "",
        };
        let signed = |change: f64| {
            let sign = if change < 0.0 { "\u{2212}" } else { "+" };
            format!("{sign}{}", unit.write(change.abs()))
        };
        Self {
            name: name.to_owned(),
            now: unit.write(now),
            before: before.map_or("-".to_owned(), |it| unit.write(it)),
            change: match before {
                None => String::new(),
                Some(_) if same => "same".to_owned(),
                Some(_) => signed(change),
            },
            verdict,
        }
    }
}

impl Unit {
    fn write(self, value: f64) -> String {
        match self {
            Self::Count => grouped(value as u64),
            Self::Share => percent(value),
            Self::Correlation => format!("{value:.3}"),
            Self::Mean => format!("{value:.2}"),
            Self::Seconds => units::duration(value),
        }
    }
}

impl Gate {
    fn new(stage: &str, gate: &GateResult, kept_back: bool) -> Self {
        Self { stage: stage.to_owned(), text: gate.to_string(), passed: gate.passed, kept_back }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_signed_and_judged_where_it_can_be() {
        let row = |now, before, unit, better| {
            let row = Row::new("", now, before, unit, better);
            (row.change, row.verdict)
        };
        assert_eq!(row(0.42, Some(0.4), Unit::Share, Some(true)), ("+2.0 %".to_owned(), "better"));
        assert_eq!(row(3.0, Some(1.0), Unit::Count, Some(false)), ("+2".to_owned(), "worse"));
        assert_eq!(row(990.0, Some(1000.0), Unit::Count, None), ("\u{2212}10".to_owned(), ""));
        assert_eq!(row(5.0, Some(5.0), Unit::Count, Some(false)), ("same".to_owned(), ""));
        assert_eq!(row(5.0, None, Unit::Count, Some(false)), (String::new(), ""));
    }
}
