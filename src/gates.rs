//! Quality gates: conditions that a stage's new folder must meet before it replaces the old one. None is set by
//! default.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Lower bound of a share in the stability index, so that a category that appears or vanishes does not make it
/// infinite.
const LEAST_SHARE: f64 = 1e-4;

/// Default of [`Gates::max_vanished_share`]: a disk that is not mounted takes more away, a season does not.
pub const DEFAULT_MAX_VANISHED_SHARE: f64 = 0.5;

/// The section `[gates]` of the settings. Shares are 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gates {
    /// `convert`, `segment`: minimum number of photos.
    pub min_photos: Option<u64>,
    /// `convert`, `segment`: maximum share of inputs that are rejected. Above the stage's `max_reject_fraction` the
    /// good part is still published, and the exit code reports it; above this gate nothing is published.
    pub max_reject_share: Option<f64>,
    /// `train`: minimum mean IoU over the test split.
    pub min_mean_iou: Option<f64>,
    /// `train`: maximum drop of the mean IoU compared with the published model.
    pub max_mean_iou_drop: Option<f64>,
    /// `segment`: maximum share of photos in which nothing is worn.
    pub max_nothing_worn_share: Option<f64>,
    /// `segment`: maximum share of the photos of the published table that are no longer in the catalogue
    /// ([`DEFAULT_MAX_VANISHED_SHARE`]; 1 for none too many).
    pub max_vanished_share: f64,
    /// `segment`: maximum population stability index of the categories' shares against the published table.
    pub max_category_psi: Option<f64>,
    /// The licences that third-party parsers may have; any if it is not set. It holds in every command that takes one,
    /// before anything is done.
    pub allowed_licenses: Option<Vec<String>>,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            min_photos: None,
            max_reject_share: None,
            min_mean_iou: None,
            max_mean_iou_drop: None,
            max_nothing_worn_share: None,
            max_vanished_share: DEFAULT_MAX_VANISHED_SHARE,
            max_category_psi: None,
            allowed_licenses: None,
        }
    }
}

/// The result of a gate that was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    /// Its name in the settings.
    pub gate: String,
    /// Its value in the settings.
    pub limit: f64,
    /// The measured value; null if it could not be determined, in which case the gate fails.
    pub found: Option<f64>,
    /// Whether the folder may be published.
    pub passed: bool,
}

impl fmt::Display for GateResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(found) = self.found else {
            return write!(f, "gate {} ({}): the value could not be determined", self.gate, self.limit);
        };
        let (found, by) = (round(found), round((found - self.limit).abs()));
        match (self.passed, self.gate.starts_with("min")) {
            (true, _) => write!(f, "gate {} ({}): {found} passes", self.gate, self.limit),
            (false, true) => write!(f, "gate {} ({}): {found} is too low by {by}", self.gate, self.limit),
            (false, false) => write!(f, "gate {} ({}): {found} is too high by {by}", self.gate, self.limit),
        }
    }
}

fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn least(gate: &str, limit: Option<f64>, found: Option<f64>) -> Option<GateResult> {
    let limit = limit?;
    Some(GateResult { gate: gate.to_owned(), limit, found, passed: found.is_some_and(|found| found >= limit) })
}

fn most(gate: &str, limit: Option<f64>, found: Option<f64>) -> Option<GateResult> {
    let limit = limit?;
    Some(GateResult { gate: gate.to_owned(), limit, found, passed: found.is_some_and(|found| found <= limit) })
}

impl Gates {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Config`] with the gate's name.
    pub fn check(&self) -> Result<()> {
        let shares = [
            ("gates.max_reject_share", self.max_reject_share),
            ("gates.min_mean_iou", self.min_mean_iou),
            ("gates.max_mean_iou_drop", self.max_mean_iou_drop),
            ("gates.max_nothing_worn_share", self.max_nothing_worn_share),
            ("gates.max_vanished_share", Some(self.max_vanished_share)),
        ];
        for (gate, share) in shares {
            if share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
                return Err(Error::config(gate, "is not a share; use 0 to 1"));
            }
        }
        match self.max_category_psi {
            Some(limit) if limit.is_nan() || limit < 0.0 => {
                Err(Error::config("gates.max_category_psi", "must be 0 or more; 0.25 is a usual limit"))
            }
            _ => Ok(()),
        }
    }

    /// Checks that `owner` may be used with its licence.
    ///
    /// # Errors
    /// [`Error::Config`] if `allowed_licenses` is set and does not name it.
    pub fn allow(&self, license: &str, owner: &str) -> Result<()> {
        match &self.allowed_licenses {
            Some(allowed) if !allowed.iter().any(|it| it == license) => {
                let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
                let problem = format!("{owner} has the licence {license}; allowed: {allowed}");
                Err(Error::config("gates.allowed_licenses", problem))
            }
            _ => Ok(()),
        }
    }

    /// Gates of a stage that processes photos: `photos` valid ones out of `photos + rejects`.
    #[must_use]
    pub fn photos(&self, photos: u64, rejects: u64) -> Vec<GateResult> {
        let total = photos + rejects;
        let share = (total > 0).then(|| rejects as f64 / total as f64);
        let results = [
            least("min_photos", self.min_photos.map(|it| it as f64), Some(photos as f64)),
            most("max_reject_share", self.max_reject_share, share.or(Some(0.0))),
        ];
        results.into_iter().flatten().collect()
    }

    /// Gates of a model: its mean IoU over the test split, and that of the previously published model.
    #[must_use]
    pub fn model(&self, mean_iou: Option<f64>, before: Option<f64>) -> Vec<GateResult> {
        let drop =
            || most("max_mean_iou_drop", self.max_mean_iou_drop, mean_iou.map(|now| before.unwrap_or(now) - now));
        [least("min_mean_iou", self.min_mean_iou, mean_iou), drop()].into_iter().flatten().collect()
    }

    /// For a feature table: how many photos of the published one vanished, of how many. It is told only if some did.
    #[must_use]
    pub fn vanished(&self, [vanished, before]: [u64; 2]) -> Vec<GateResult> {
        if vanished == 0 {
            return Vec::new();
        }
        let share = vanished as f64 / before as f64;
        most("max_vanished_share", Some(self.max_vanished_share), Some(share)).into_iter().collect()
    }

    /// Gates of a feature table: the share of photos in which nothing is worn, and pixels by category, in the new table
    /// and in the previously published one.
    #[must_use]
    pub fn features(&self, nothing_worn_share: f64, category_px: &[u64], before: Option<&[u64]>) -> Vec<GateResult> {
        let psi = before.map(|before| stability_index(before, category_px));
        let drift = psi.and_then(|psi| most("max_category_psi", self.max_category_psi, Some(psi)));
        let nothing_worn = most("max_nothing_worn_share", self.max_nothing_worn_share, Some(nothing_worn_share));
        [nothing_worn, drift].into_iter().flatten().collect()
    }
}

/// Population stability index of counts by class: the sum over the classes of (q - p) ln(q / p), where p and q are the
/// old and new shares (the symmetric divergence of Kullback and Leibler, 1951). 0 if they are equal; a value above 0.25
/// is usually considered a shift.
#[must_use]
pub fn stability_index(before: &[u64], now: &[u64]) -> f64 {
    let shares = |counts: &[u64]| -> Vec<f64> {
        let total = counts.iter().sum::<u64>().max(1) as f64;
        counts.iter().map(|&count| (count as f64 / total).max(LEAST_SHARE)).collect()
    };
    shares(before).iter().zip(shares(now)).map(|(p, q)| (q - p) * (q / p).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stability_index_by_hand() {
        assert_eq!(stability_index(&[5, 5], &[1, 1]), 0.0);
        // (0.75 - 0.5) ln 1.5 + (0.25 - 0.5) ln 0.5
        assert!((stability_index(&[2, 2], &[3, 1]) - 0.274_653).abs() < 1e-6);
        assert!(stability_index(&[1, 0], &[0, 1]).is_finite());
    }

    #[test]
    fn a_gate_says_by_how_much() {
        let gates = Gates { min_photos: Some(100), max_mean_iou_drop: Some(0.02), ..Gates::default() };
        let text = |results: Vec<GateResult>| results.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(gates.photos(90, 0)), ["gate min_photos (100): 90 is too low by 10"]);
        assert_eq!(
            text(gates.model(Some(0.4), Some(0.45))),
            ["gate max_mean_iou_drop (0.02): 0.05 is too high by 0.03"]
        );
        assert_eq!(
            text(gates.model(None, Some(0.45))),
            ["gate max_mean_iou_drop (0.02): the value could not be determined"]
        );
        assert!(gates.model(Some(0.4), None)[0].passed, "the first model has nothing to fall behind");
        assert!(Gates::default().photos(0, 0).is_empty(), "no gate is set by default");
    }

    #[test]
    fn a_limit_out_of_range_is_a_usage_error() {
        for gates in [
            Gates { min_mean_iou: Some(40.0), ..Gates::default() },
            Gates { max_category_psi: Some(f64::NAN), ..Gates::default() },
        ] {
            assert_eq!(gates.check().expect_err("out of range").exit_code(), 2);
        }
    }
}
