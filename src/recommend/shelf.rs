//! The photos of a catalogue, ready to be ranked for a look.

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::features::FeatureTable;
use crate::files::OpenFolder;
use crate::metadata::{self, Condition};
use crate::similarity::{Correlator, Measure, open_features};

use super::answer::{Completion, Recommended};
use super::chosen::Chosen;
use super::complete::Completer;
use super::config::{Config, DEFAULT_BLEND};
use super::steering::Steering;
use super::{diverse, duplicates};

/// With `diverse`, this many times the photos that are wanted are candidates, and at least [`LEAST_CANDIDATES`].
const CANDIDATES_PER_PHOTO: usize = 10;
/// As [`CANDIDATES_PER_PHOTO`].
const LEAST_CANDIDATES: usize = 100;

/// What is worn in a photo from outside.
#[derive(Debug)]
pub(super) struct Look {
    /// Share of the apparel of each cell of the label set, absent = 0.
    pub(super) cells: Vec<f32>,
    /// SHA-256 of its file.
    pub(super) digest: String,
    /// For the measure `embedding`; `None` if the photo has none.
    pub(super) embedding: Option<Vec<f32>>,
}

/// A feature table, prepared.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) features: FeatureTable,
    pub(super) correlator: Correlator,
    pub(super) steering: Steering,
    top: usize,
    measure: Measure,
    /// Which photos may be recommended; all if nothing says otherwise.
    allowed: Option<Vec<bool>>,
    /// In words, how many these are.
    said: Vec<String>,
    /// What each photo's cells add to its score; empty if nothing is liked or not.
    liked: Vec<f32>,
    /// For each garment that has to be the same or different, its main colour in each photo; 0 if it is not worn.
    main_colors: Vec<Vec<u8>>,
    /// The group of duplicates of each photo.
    groups: Option<Vec<Option<u32>>>,
    /// The rows, in the order of their photos' checksums; only if many photos are asked about.
    by_content: Option<Vec<u32>>,
    /// Who chose what, if that counts.
    chosen: Option<Chosen>,
    /// Finds what goes with a photo, if that was asked for.
    completer: Option<Completer>,
}

impl Shelf {
    /// Reads the feature table in `folder`, and what `config` asks for of it.
    ///
    /// # Errors
    /// As [`open_features`], [`Steering::new`], [`metadata::chosen`] and [`Chosen::open`].
    pub(super) fn open(config: &Config, condition: Option<&Condition>, folder: &OpenFolder) -> Result<Self> {
        let features = open_features(folder, config.measure)?;
        let steering = Steering::new(config, &features.labels)?;
        let (allowed, mut said) = allowed(config, condition, folder, &features)?;
        let groups = config.groups_of_duplicates().map(|it| duplicates::groups(it, &features)).transpose()?;
        said.extend(groups.as_ref().map(|_| "one of each group of duplicates".to_owned()));
        let correlator = Correlator::of(&features, config.comparison(), steering.choice.clone());
        let rows = || (0..features.len()).map(|row| features.row(row));
        let liked = steering.weights().map_or_else(Vec::new, |weights| {
            rows().map(|cells| cells.iter().zip(&weights).map(|(share, weight)| share * weight).sum()).collect()
        });
        let main_color = |cells: &[f32], category| steering.main_color(cells, category).unwrap_or(0);
        let of_garment = |category| rows().map(|cells| main_color(cells, category)).collect();
        let main_colors = steering.matched.iter().map(|it| of_garment(it.category)).collect();
        let by_content = config.photos.is_some().then(|| {
            let mut rows: Vec<u32> = (0..features.len() as u32).collect();
            rows.sort_by(|&a, &b| content(&features, a).cmp(content(&features, b)));
            rows
        });
        let weight = config.blend.unwrap_or(DEFAULT_BLEND);
        let chosen = config.interactions.as_deref().map(|it| Chosen::open(it, &features, weight)).transpose()?;
        said.extend(chosen.as_ref().map(|_| format!("chosen by the same people {weight}")));
        let completer = (config.complete > 0).then(|| Completer::new(&features, config.complete, config.min_support));
        Ok(Self {
            features,
            correlator,
            steering,
            top: config.top as usize,
            measure: config.measure,
            allowed,
            said,
            liked,
            main_colors,
            groups,
            by_content,
            chosen,
            completer,
        })
    }

    /// In words, what was asked for and what it is for a photo with these cells.
    pub(super) fn asked_for(&self, cells: &[f32]) -> Vec<String> {
        self.said.iter().cloned().chain(self.steering.described(cells)).collect()
    }

    /// The nearest photos of a look, with the reasons.
    pub(super) fn recommend(&self, look: &Look) -> Vec<Recommended> {
        let Some(correlations) = self.correlations(look) else { return Vec::new() };
        let ranked = |it: &Chosen| it.rank(&self.correlator, &correlations, &self.with_content(&look.digest));
        let ranking = self.chosen.as_ref().and_then(ranked);
        let scores = self.scores(look, &correlations, ranking.as_ref().map_or(&correlations, |it| &it.blended.scores));
        let diverse = self.steering.diverse;
        let candidates = if diverse > 0.0 { (CANDIDATES_PER_PHOTO * self.top).max(LEAST_CANDIDATES) } else { self.top };
        let nearest = self.correlator.nearest(&scores, candidates, |_| true);
        let picked: Vec<(usize, Option<f32>)> = if diverse > 0.0 {
            let scores: Vec<f32> = nearest.iter().map(|it| it.1).collect();
            let likeness = |a: usize, b: usize| self.correlator.correlation(nearest[a].0, nearest[b].0);
            let picked = diverse::pick(&scores, self.top, diverse, likeness);
            picked.iter().map(|it| (nearest[it.place].0, it.most_like)).collect()
        } else {
            nearest.iter().map(|&(row, _)| (row, None)).collect()
        };
        let recommended = |(rank, (row, most_like_earlier)): (u32, (usize, Option<f32>))| Recommended {
            score: (ranking.is_some() || !self.liked.is_empty()).then_some(scores[row]),
            item_score: ranking.as_ref().map(|it| it.blended.item_scores[row]),
            item_cosine: ranking.as_ref().map(|it| it.cosines[row]).filter(|it| !it.is_nan()),
            most_like_earlier,
            ..self.recommended(look, rank, row, correlations[row])
        };
        (1..).zip(picked).map(recommended).collect()
    }

    /// What goes with a look in which something is worn, if that was asked for.
    pub(super) fn complete(&self, look: &Look) -> Option<Completion> {
        let completer = self.completer.as_ref().filter(|_| look.cells.iter().any(|share| *share > 0.0))?;
        let compared = self.correlations(look).map(|it| (self.scores(look, &it, &it), it));
        let looks = |wears: &dyn Fn(usize) -> bool| {
            let Some((scores, correlations)) = &compared else { return Vec::new() };
            let nearest = self.correlator.nearest(scores, self.top, wears).into_iter().zip(1..);
            nearest.map(|((row, _), rank)| self.recommended(look, rank, row, correlations[row])).collect()
        };
        Some(completer.complete(&self.features, &look.cells, looks))
    }

    /// The correlations of a look with all photos; `None` if it cannot be compared.
    fn correlations(&self, look: &Look) -> Option<Vec<f32>> {
        if self.measure == Measure::Embedding {
            return look.embedding.as_ref().map(|it| self.correlator.correlate_embedding(it));
        }
        let is_worn = !self.correlator.counted(&look.cells).is_empty();
        is_worn.then(|| self.correlator.correlate(&look.cells))
    }

    /// What photos are ranked by, `base` and what is liked; NaN for one that may not be recommended.
    fn scores(&self, look: &Look, correlations: &[f32], base: &[f32]) -> Vec<f32> {
        let own = self.with_content(&look.digest);
        let own_groups: HashSet<u32> = own.iter().filter_map(|&row| self.group(row)).collect();
        let colors: Vec<u8> = self.steering.matched.iter().map(|it| self.color_of(look, it.category)).collect();
        let is_left = |row: usize| {
            self.allowed.as_ref().is_none_or(|it| it[row])
                && self.steering.min_correlation.is_none_or(|least| correlations[row] >= least)
                && self.matches(row, &colors)
                && (own_groups.is_empty() || self.group(row).is_none_or(|it| !own_groups.contains(&it)))
        };
        let liked = |row: usize| self.liked.get(row).copied().unwrap_or(0.0);
        let score = |row: usize| if is_left(row) { base[row] + liked(row) } else { f32::NAN };
        let mut scores: Vec<f32> = (0..correlations.len()).map(score).collect();
        // The photo itself is not recommended if it is in the catalogue.
        for row in own {
            scores[row] = f32::NAN;
        }
        self.keep_one_of_each_group(&mut scores);
        scores
    }

    /// The main colour of a garment in a look; 0 if it is not worn.
    fn color_of(&self, look: &Look, category: u8) -> u8 {
        self.steering.main_color(&look.cells, category).unwrap_or(0)
    }

    /// Whether the garments that have to be the same are, and those that must not be are not.
    fn matches(&self, row: usize, colors: &[u8]) -> bool {
        let mut matched = self.steering.matched.iter().zip(&self.main_colors).zip(colors);
        matched.all(|((it, of_rows), &color)| (color != 0 && of_rows[row] == color) == it.is_same)
    }

    /// The rows of photos with that content.
    fn with_content(&self, digest: &str) -> Vec<usize> {
        let is_it = |&row: &u32| content(&self.features, row) == digest;
        let Some(by_content) = &self.by_content else {
            return (0..self.features.len() as u32).filter(is_it).map(|row| row as usize).collect();
        };
        let first = by_content.partition_point(|&row| content(&self.features, row) < digest);
        by_content[first..].iter().copied().take_while(is_it).map(|row| row as usize).collect()
    }

    fn group(&self, row: usize) -> Option<u32> {
        self.groups.as_ref()?[row]
    }

    /// Leaves the best of each group of duplicates; of equal ones, the first.
    fn keep_one_of_each_group(&self, scores: &mut [f32]) {
        let Some(groups) = &self.groups else { return };
        let mut best = HashMap::<u32, usize>::new();
        for (row, group) in groups.iter().enumerate() {
            let Some(group) = group.filter(|_| !scores[row].is_nan()) else { continue };
            match best.get_mut(&group) {
                Some(known) if scores[row] > scores[*known] => scores[std::mem::replace(known, row)] = f32::NAN,
                Some(_) => scores[row] = f32::NAN,
                None => {
                    best.insert(group, row);
                }
            }
        }
    }

    /// A photo, and why it is recommended.
    fn recommended(&self, look: &Look, rank: u32, row: usize, correlation: f32) -> Recommended {
        let why = self.correlator.why(&look.cells, row);
        let preferences = self.steering.preferences(self.features.row(row));
        Recommended {
            rank,
            photo_id: self.features.photo_ids[row],
            file_name: self.features.file_names[row].clone(),
            path: self.features.paths[row].clone(),
            correlation,
            shared_cells: why.shared_cells,
            unshared_cells: why.unshared_cells,
            other_cells: why.other_cells,
            preferences,
            ..Recommended::default()
        }
    }
}

fn content(features: &FeatureTable, row: u32) -> &str {
    &features.content_sha256[row as usize]
}

/// Which photos fulfil the condition, if there is one, and in words how many.
fn allowed(
    config: &Config,
    condition: Option<&Condition>,
    folder: &OpenFolder,
    features: &FeatureTable,
) -> Result<(Option<Vec<bool>>, Vec<String>)> {
    let chosen = metadata::chosen(config.metadata.as_deref(), condition, folder.root(), features)?;
    let Some(allowed) = chosen else { return Ok((None, Vec::new())) };
    let count = allowed.iter().filter(|it| **it).count();
    let text = config.condition.as_deref().unwrap_or_default();
    let said = format!("{text} ({count} of {} photos)", features.len());
    Ok((Some(allowed), vec![said]))
}
