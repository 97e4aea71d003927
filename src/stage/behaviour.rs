//! Version numbers of the stages' behaviour.

/// The stages and the versions of their behaviour; raise one whenever the same settings and inputs give a different
/// result.
const BEHAVIOURS: [(&str, u32); 10] = [
    ("sample", 1),
    ("convert", 2),
    ("train", 2),
    ("evaluate", 3),
    ("export", 1),
    ("segment", 4),
    ("similarity", 3),
    ("duplicates", 1),
    ("recommend", 1),
    ("report", 4),
];

/// The version of a stage's behaviour.
#[must_use]
pub fn behaviour_of(stage: &str) -> u32 {
    BEHAVIOURS.iter().find(|(name, _)| *name == stage).map_or(0, |(_, version)| *version)
}
