//! The page's content as plain values collected from the run folder, and the template that renders them.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use serde::Serialize;

use super::figures::{css, grouped, percent};
use super::gallery;
use super::measures::Measures;
use super::neighbours::Neighbours;
use super::nights::{self, Nights};
use super::run::Run;
use crate::chart::{self, Bar, Cell};
use crate::error::{Error, Result};
use crate::features::FeatureTable;
use crate::labels::{LabelSet, category_rgb};
use crate::model::epochs;
use crate::model::evaluation::{self, Among, Evaluation, FeatureComparison, PresenceEvaluation};
use crate::model::files::HISTORY_FILE;
use crate::stage::Summary;
use crate::{rejects, units};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = concat!(include_str!("page.css"), include_str!("gallery/gallery.css"));
/// Smallest share of a row of the confusion matrix that is printed in its cell.
const WRITTEN_SHARE: f64 = 0.01;

/// Everything on the page. A section is `None` if its stage was not run.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    style: &'static str,
    script: String,
    run: String,
    written_at: String,
    version: &'static str,
    stages: Vec<StageFacts>,
    nights: Nights,
    /// SVG.
    curves: Option<[String; 2]>,
    evaluation: Option<EvaluationPart>,
    shares: Option<Shares>,
    rejects: Option<Vec<RejectCount>>,
    pub(super) segmentations: Option<Segmentations>,
    pub(super) neighbours: Option<Neighbours>,
    pub(super) gallery: Option<GalleryPart>,
    pub(super) measures: Option<Measures>,
}

/// A named value with a one-line explanation.
#[derive(Debug, Serialize)]
pub(super) struct Fact {
    name: String,
    value: String,
    meaning: &'static str,
}

/// `run.json` of one stage.
#[derive(Debug, Serialize)]
struct StageFacts {
    name: String,
    started_at: String,
    elapsed: String,
    program: String,
    provider: String,
    counts: Vec<(String, String)>,
    config: String,
    inputs: Vec<(String, String)>,
}

#[derive(Debug, Serialize)]
pub(super) struct EvaluationPart {
    split: String,
    photos: String,
    headline: Vec<Fact>,
    others: Vec<Fact>,
    seed_note: String,
    worn: Option<Worn>,
    /// SVG, two columns.
    iou: [String; 2],
    /// SVG.
    confusion: String,
}

/// What the photos of the split wear by the model and by the labels.
#[derive(Debug, Serialize)]
struct Worn {
    facts: Vec<Fact>,
    categories: Vec<WornCategory>,
    /// For each number of neighbours: the number, the share found within the part and within the data set, each with that at
    /// random.
    neighbours: Vec<(u32, [String; 2])>,
}

#[derive(Debug, Serialize)]
struct WornCategory {
    name: String,
    by_labels: String,
    by_model: String,
    precision: String,
    recall: String,
}

/// Mean shares of the apparel pixels over the photos that show apparel.
#[derive(Debug, Serialize)]
pub(super) struct Shares {
    photos: String,
    /// What a cell needs to be present, in brackets; empty if there is no rule.
    rule: String,
    /// SVG.
    categories: String,
    /// SVG.
    colors: String,
    /// SVG: all cells.
    cells: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct RejectCount {
    stage: String,
    reason: String,
    count: u64,
    examples: Vec<String>,
}

/// Photos with truth and prediction.
#[derive(Debug, Serialize)]
pub(super) struct Segmentations {
    pub(super) split: &'static str,
    pub(super) groups: Vec<SegmentedGroup>,
    pub(super) legend: Vec<Swatch>,
}

#[derive(Debug, Serialize)]
pub(super) struct SegmentedGroup {
    pub(super) title: &'static str,
    pub(super) photos: Vec<SegmentedPhoto>,
}

#[derive(Debug, Serialize)]
pub(super) struct SegmentedPhoto {
    pub(super) caption: String,
    /// `data:` URIs.
    pub(super) photo: String,
    pub(super) truth: String,
    pub(super) prediction: String,
    pub(super) certainty: String,
}

/// How many photos the gallery shows, and out of how many.
#[derive(Debug, Serialize)]
pub(super) struct GalleryPart {
    pub(super) shown: usize,
    total: String,
    whole: bool,
}

impl GalleryPart {
    pub(super) fn new((shown, total): (usize, usize)) -> Self {
        Self { shown, total: grouped(total as u64), whole: shown == total }
    }
}

/// A colour of a legend.
#[derive(Debug, Serialize)]
pub(super) struct Swatch {
    name: String,
    /// CSS colour.
    color: String,
}

impl Swatch {
    pub(super) fn of(labels: &LabelSet, category: u8) -> Self {
        Self { name: labels.category_name(category).to_owned(), color: css(category_rgb(category)) }
    }
}

impl Page {
    /// Collects what the stages left in `run`, except the pictures and the gallery.
    pub(super) fn new(run: &Run, stages: &[Summary]) -> Result<Self> {
        Ok(Self {
            style: STYLE,
            script: format!("(() => {{\n\"use strict\";\n{}}})();", gallery::SCRIPTS.concat()),
            run: run.name.display().to_string(),
            written_at: chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string(),
            version: env!("CARGO_PKG_VERSION"),
            stages: stages.iter().map(StageFacts::new).collect(),
            nights: nights::compare(run, stages)?,
            curves: curves(run)?,
            evaluation: evaluation_part(run)?,
            shares: shares(run)?,
            rejects: rejects(run)?,
            segmentations: None,
            neighbours: None,
            gallery: None,
            measures: None,
        })
    }

    /// Number of sections left out of the page.
    pub(super) fn left_out(&self) -> usize {
        let there = [
            self.curves.is_some(),
            self.evaluation.is_some(),
            self.segmentations.is_some(),
            self.neighbours.is_some(),
            self.gallery.is_some(),
            self.measures.is_some(),
            self.shares.is_some(),
            self.rejects.is_some(),
        ];
        there.iter().filter(|&&there| !there).count()
    }

    pub(super) fn render(&self) -> Result<String> {
        let mut templates = minijinja::Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).build();
        let failed = |cause: minijinja::Error| Error::input("report/page.html", "cannot be rendered").because(cause);
        templates.set_syntax(syntax.map_err(failed)?);
        templates.add_template("page.html", TEMPLATE).map_err(failed)?;
        templates.get_template("page.html").and_then(|page| page.render(Serde(self))).map_err(failed)
    }
}

impl StageFacts {
    fn new(summary: &Summary) -> Self {
        let counts = summary.counts.single().map(|(name, value)| (name.replace('_', " "), shown(value))).collect();
        let revision = summary.git_revision.as_ref().map_or(String::new(), |revision| format!(" ({revision})"));
        Self {
            name: summary.stage.clone(),
            started_at: summary.started_at.replace('T', " ").replace('Z', " UTC"),
            elapsed: units::duration(summary.elapsed_secs),
            program: format!("lookbook {}{revision}", summary.version),
            provider: summary.execution_provider.clone().unwrap_or_else(|| "-".to_owned()),
            counts,
            config: serde_json::to_string_pretty(&summary.config).expect("a JSON value is JSON"),
            inputs: summary.inputs.iter().map(|it| (it.path.display().to_string(), it.sha256.clone())).collect(),
        }
    }
}

/// Loss and metrics over the epochs, if the model folder has a history.
fn curves(run: &Run) -> Result<Option<[String; 2]>> {
    let Some(path) = run.file("model", HISTORY_FILE) else { return Ok(None) };
    let history = epochs::read(&path)?;
    Ok(Some(epochs::charts(&history).map(|chart| chart.svg())))
}

/// `evaluation.json`, if the model was evaluated.
fn evaluation_part(run: &Run) -> Result<Option<EvaluationPart>> {
    let Some(model) = run.folder("model") else { return Ok(None) };
    Ok(evaluation::find(model)?.map(|it| EvaluationPart::new(&it)))
}

impl EvaluationPart {
    fn new(evaluation: &Evaluation) -> Self {
        let fact = |name: &str, value: String, meaning| Fact { name: name.to_owned(), value, meaning };
        let headline = vec![
            fact(
                "mean IoU",
                percent(evaluation.mean_iou),
                "overlap of prediction and truth, mean over the categories that occur",
            ),
            fact("pixel accuracy", percent(evaluation.pixel_accuracy), "pixels whose category is correct"),
            fact(
                "foreground accuracy",
                rate(evaluation.foreground_accuracy),
                "the same among pixels that are not background",
            ),
            fact(
                "category sets",
                percent(evaluation.category_set_jaccard),
                "categories both worn and found, out of those worn or found, mean over photos (Jaccard)",
            ),
        ];
        let others = vec![
            fact(
                "frequency-weighted IoU",
                percent(evaluation.frequency_weighted_iou),
                "IoU weighted by the pixels of each category",
            ),
            fact(
                "binary cross-entropy",
                evaluation.bce.map_or("-".to_owned(), |it| format!("{it:.4}")),
                "the seed's loss, mean over pixels and maps",
            ),
            fact(
                "colour of a pixel",
                rate(evaluation.color_pixel_accuracy),
                "apparel pixels with the same colour name from the colour table and the labels",
            ),
            fact(
                "the seed's mean IoU",
                percent(evaluation.seed_mean_iou),
                "mean over photos, by the seed's own definition; flattering",
            ),
        ];
        let labels = &evaluation.labels;
        let categories = 0..labels.category_count() as u8;
        let iou: Vec<Bar> = categories.map(|it| iou_bar(labels, it, &evaluation.iou)).collect();
        let (left, right) = iou.split_at(iou.len().div_ceil(2));
        Self {
            split: format!("{:?}", evaluation.split).to_lowercase(),
            photos: grouped(evaluation.photos),
            headline,
            others,
            seed_note: format!(
                "{}; on these {}",
                evaluation.seed_mean_iou_note.trim_start_matches("the seed's metric: "),
                percent(evaluation.seed_mean_iou_of_background)
            ),
            worn: evaluation.features.first().and_then(Worn::new),
            iou: [left, right].map(|bars| chart::bar_chart("IoU of each category", bars)),
            confusion: confusion(labels, &evaluation.confusion),
        }
    }
}

impl Worn {
    /// `None` for an evaluation by an older version.
    fn new(features: &FeatureComparison) -> Option<Self> {
        let presence = features.presence.as_ref()?;
        let found = |top: u32, among: Among| {
            let found = features.neighbours.iter().find(|it| (it.top, it.among) == (top, among));
            let shares = found.and_then(|it| Some((it.true_neighbours_found?, it.at_random?)));
            shares.map_or("-".to_owned(), |(found, random)| format!("{} ({})", percent(found), percent(random)))
        };
        let tops = features.neighbours.iter().filter(|it| it.among == Among::Part).map(|it| it.top);
        Some(Self {
            facts: presence_facts(presence),
            categories: presence
                .categories
                .iter()
                .map(|(name, it)| WornCategory {
                    name: name.clone(),
                    by_labels: grouped(it.photos_by_labels),
                    by_model: grouped(it.photos_by_model),
                    precision: rate(it.precision),
                    recall: rate(it.recall),
                })
                .collect(),
            neighbours: tops.map(|top| (top, [Among::Part, Among::Dataset].map(|among| found(top, among)))).collect(),
        })
    }
}

fn presence_facts(presence: &PresenceEvaluation) -> Vec<Fact> {
    let fact = |name: &str, value: String, meaning| Fact { name: name.to_owned(), value, meaning };
    let whole = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{:.0}", rate * 100.0));
    let pair = |a: Option<f64>, b: Option<f64>| format!("{} / {} %", whole(a), whole(b));
    vec![
        fact(
            "cells by the model",
            format!("{:.2}", presence.cells_by_model),
            "categories in a colour that are present in a photo, mean over photos",
        ),
        fact("cells by the labels", format!("{:.2}", presence.cells_by_labels), "the same by the labels"),
        fact(
            "precision / recall",
            pair(presence.micro_precision, presence.micro_recall),
            "of the categories that are present, over all photos",
        ),
        fact(
            "by category",
            pair(presence.macro_precision, presence.macro_recall),
            "precision and recall, mean over the categories that occur",
        ),
    ]
}

/// A rate as a percentage; '-' if it is undefined.
fn rate(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), percent)
}

fn iou_bar(labels: &LabelSet, category: u8, iou: &BTreeMap<String, Option<f64>>) -> Bar {
    let name = labels.category_name(category);
    let value = iou.get(name).copied().flatten();
    Bar {
        name: name.to_owned(),
        color: css(category_rgb(category)),
        length: value,
        text: value.map_or("absent from the truth".to_owned(), percent),
    }
}

/// The confusion matrix of the categories that occur, as shares of each true category's pixels.
fn confusion(labels: &LabelSet, counts: &[Vec<u64>]) -> String {
    let (names, rows) = confusion_cells(labels, counts);
    chart::heat_map("Truth by prediction, as a percentage of the true pixels", &names, &names, &rows, (27.0, 23.0))
}

fn confusion_cells<'a>(labels: &'a LabelSet, counts: &[Vec<u64>]) -> (Vec<&'a str>, Vec<Vec<Cell>>) {
    let name = |category: usize| labels.category_name(category as u8);
    let count = |truth: usize, predicted: usize| -> u64 {
        counts.get(truth).and_then(|row| row.get(predicted)).copied().unwrap_or(0)
    };
    let all = 0..labels.category_count();
    let occurs = |category: usize| all.clone().any(|other| count(category, other) + count(other, category) > 0);
    let present: Vec<usize> = all.clone().filter(|&category| occurs(category)).collect();
    let row = |truth: usize| -> Vec<Cell> {
        let total: u64 = all.clone().map(|predicted| count(truth, predicted)).sum();
        let cell = |&predicted: &usize| {
            let pixels = count(truth, predicted);
            let share = if total == 0 { 0.0 } else { pixels as f64 / total as f64 };
            let names = (name(truth), name(predicted));
            Cell {
                strength: share,
                text: if share >= WRITTEN_SHARE { format!("{:.0}", share * 100.0) } else { String::new() },
                title: format!(
                    "{} predicted as {}: {} of {} pixels",
                    names.0,
                    names.1,
                    grouped(pixels),
                    grouped(total)
                ),
                search: String::new(),
            }
        };
        present.iter().map(cell).collect()
    };
    (present.iter().map(|&category| name(category)).collect(), present.iter().map(|&truth| row(truth)).collect())
}

/// Shares of categories and colours in the feature table, if there is one.
fn shares(run: &Run) -> Result<Option<Shares>> {
    let Some(folder) = run.folder("features") else { return Ok(None) };
    let table = FeatureTable::open(folder)?;
    Ok(Some(Shares::new(&table.labels, &table.cells, presence_rule(&Summary::read(folder)?))))
}

/// What a cell of a feature table needs to be present, in brackets; empty for tables by versions without a rule.
fn presence_rule(made: &Summary) -> String {
    let setting = |name: &str| made.config.setting::<f64>(name);
    let (Some(share), Some(region)) = (setting("min_share"), setting("min_region")) else { return String::new() };
    let (share, region) = (percent(share), percent(region));
    format!(" (at least {share} of the category's usual share of the apparel, {region} of it in one connected region)")
}

impl Shares {
    /// From the cells of a feature table of `labels`, `[photos, cells]`.
    fn new(labels: &LabelSet, cells: &[f32], rule: String) -> Self {
        let rows = cells.chunks_exact(labels.cell_count());
        let dressed: Vec<&[f32]> = rows.filter(|row| row.iter().any(|&cell| cell > 0.0)).collect();
        let mean = |cells: &dyn Fn(usize) -> bool| -> f64 {
            let sum: f64 = dressed
                .iter()
                .flat_map(|row| row.iter().enumerate().filter(|&(cell, _)| cells(cell)))
                .map(|(_, &share)| f64::from(share))
                .sum();
            sum / dressed.len().max(1) as f64
        };
        let colors_per_category = labels.cells_per_category();
        let categories = labels.apparel_categories().enumerate().map(|(rank, category)| {
            let share = mean(&|cell| cell / colors_per_category == rank);
            (labels.category_name(category), category_rgb(category), share)
        });
        let colors = labels
            .colors()
            .iter()
            .enumerate()
            .skip(1)
            .map(|(color, it)| (it.name.as_str(), it.rgb, mean(&|cell| cell % colors_per_category + 1 == color)));
        Self {
            photos: grouped(dressed.len() as u64),
            rule,
            categories: chart::bar_chart("Mean share of each category", &ranked(categories.collect())),
            colors: chart::bar_chart("Mean share of each colour", &ranked(colors.collect())),
            cells: cell_map(labels, &dressed),
        }
    }
}

/// The number of photos in which each cell is worn.
fn cell_map(labels: &LabelSet, photos: &[&[f32]]) -> String {
    let worn = |cell: usize| photos.iter().filter(|row| row[cell] > 0.0).count();
    let counts: Vec<usize> = (0..labels.cell_count()).map(worn).collect();
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let names = labels.cell_names();
    let cell = |index: usize| Cell {
        // The square root makes small counts visible too.
        strength: (counts[index] as f64 / most).sqrt(),
        text: if counts[index] > 0 { short(counts[index]) } else { String::new() },
        title: format!("{}: {} photos", names[index].replace('_', " "), grouped(counts[index] as u64)),
        search: if counts[index] > 0 { names[index].clone() } else { String::new() },
    };
    let colors = labels.cells_per_category();
    let rows: Vec<Vec<Cell>> =
        (0..labels.cell_count() / colors).map(|row| (row * colors..(row + 1) * colors).map(cell).collect()).collect();
    let categories: Vec<&str> = labels.apparel_categories().map(|it| labels.category_name(it)).collect();
    let colors: Vec<&str> = labels.colors()[1..].iter().map(|it| it.name.as_str()).collect();
    chart::heat_map("Photos that show each category in each colour", &categories, &colors, &rows, (46.0, 24.0))
}

/// A count in at most four characters.
fn short(count: usize) -> String {
    if count < 10_000 { count.to_string() } else { format!("{}k", count / 1000) }
}

/// Bars of the shares, the largest first; zero shares are left out.
fn ranked(mut shares: Vec<(&str, [u8; 3], f64)>) -> Vec<Bar> {
    shares.retain(|(_, _, share)| *share > 0.0);
    shares.sort_by(|a, b| b.2.total_cmp(&a.2));
    let longest = shares.first().map_or(1.0, |(_, _, share)| *share);
    let bar = |(name, color, share): (&str, [u8; 3], f64)| Bar {
        name: name.to_owned(),
        color: css(color),
        length: Some(share / longest),
        text: percent(share),
    };
    shares.into_iter().map(bar).collect()
}

/// Rejects of all stages by stage and reason; `None` if no stage with such a table was run.
fn rejects(run: &Run) -> Result<Option<Vec<RejectCount>>> {
    let tables = run.folders.iter().map(|(name, folder)| Ok(Run::rejects(name, folder)?.map(|it| (folder, it))));
    let tables: Vec<_> = tables.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    let mut found: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (folder, path) in &tables {
        let stage = Summary::read(folder.root())?.stage;
        for reject in rejects::read(path)? {
            found.entry((stage.clone(), reject.reason.into_owned())).or_default().push(reject.item);
        }
    }
    let counts = found.into_iter().map(|((stage, reason), mut items)| {
        let count = items.len() as u64;
        items.truncate(3);
        RejectCount { stage, reason, count, examples: items }
    });
    Ok((!tables.is_empty()).then(|| counts.collect()))
}

/// A value of `run.json`, formatted for display.
fn shown(value: &serde_json::Value) -> String {
    if let Some(count) = value.as_u64() {
        return grouped(count);
    }
    match value {
        serde_json::Value::Number(number) => number.as_f64().map_or(number.to_string(), |rate| format!("{rate:.4}")),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::dataset::Split;
    use crate::model::evaluation::{CategoryPresence, NeighboursFound};

    pub(in super::super) fn evaluation() -> Evaluation {
        let mut confusion = vec![vec![0; 23]; 23];
        confusion[0][0] = 900;
        confusion[0][7] = 100;
        confusion[7][7] = 3;
        confusion[7][1] = 1;
        Evaluation {
            split: Split::Test,
            photos: 1234,
            model_id: "0123456789abcdef".to_owned(),
            labels: LabelSet::cfpd(),
            pixel_accuracy: 0.9,
            foreground_accuracy: Some(0.75),
            mean_iou: 0.5,
            frequency_weighted_iou: 0.8,
            category_set_jaccard: 0.4,
            seed_mean_iou: 0.7,
            seed_mean_iou_of_background: 0.6,
            seed_mean_iou_note: "flatters".to_owned(),
            bce: Some(0.1),
            iou: [("bk".to_owned(), Some(0.9)), ("dress".to_owned(), Some(0.0)), ("hat".to_owned(), None)].into(),
            confusion,
            color_pixel_accuracy: None,
            colors: None,
            features: Vec::new(),
            by_photo: Vec::new(),
        }
    }

    #[test]
    fn absent_is_told_apart_from_zero() {
        let evaluation = evaluation();
        let bar = |name: &str| {
            let category = evaluation.labels.category_named(name).expect("a category");
            let bar = iou_bar(&evaluation.labels, category, &evaluation.iou);
            (bar.length, bar.text)
        };
        assert_eq!(bar("dress"), (Some(0.0), "0.0 %".to_owned()));
        assert_eq!(bar("hat"), (None, "absent from the truth".to_owned()));
    }

    #[test]
    fn the_confusion_matrix_holds_the_categories_that_occur_as_shares_of_the_truth() {
        let labels = LabelSet::cfpd();
        let (names, rows) = confusion_cells(&labels, &evaluation().confusion);
        assert_eq!(names, ["bk", "T-shirt", "dress"]);
        let shares: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().map(|cell| cell.strength).collect()).collect();
        assert_eq!(shares, [[0.9, 0.0, 0.1], [0.0, 0.0, 0.0], [0.0, 0.25, 0.75]]);
        assert_eq!(rows[2][1].title, "dress predicted as T-shirt: 1 of 4 pixels");
    }

    #[test]
    fn shares_are_means_over_the_photos_that_show_apparel() {
        let labels = LabelSet::cfpd();
        let mut cells = vec![0.0; 3 * labels.cell_count()];
        let cell = |name: &str| labels.cell_names().iter().position(|it| it == name).expect("a cell");
        cells[cell("dress_red")] = 0.75;
        cells[cell("shoe_black")] = 0.25;
        cells[labels.cell_count() + cell("dress_black")] = 1.0;
        let shares = Shares::new(&labels, &cells, String::new());
        assert_eq!(shares.photos, "2");
        let in_order = |svg: &str, texts: &[&str]| {
            let places: Vec<_> =
                texts.iter().map(|text| svg.find(&format!(">{text}<")).expect("it is shown")).collect();
            assert!(places.is_sorted(), "{texts:?}");
        };
        in_order(&shares.categories, &["dress", "87.5 %", "shoe", "12.5 %"]);
        in_order(&shares.colors, &["black", "62.5 %", "red", "37.5 %"]);
        assert!(shares.cells.contains("dress red: 1 photos") && shares.cells.contains("data-search=\"shoe_black\""));
    }

    #[test]
    fn what_photos_wear_is_shown_as_it_was_evaluated() {
        let found = |among, top, found| NeighboursFound {
            among,
            photos: 80,
            top,
            true_neighbours_found: found,
            at_random: found.map(|_| 0.125),
        };
        let categories = [("bag", [4, 5, 3]), ("belt", [2, 0, 0])];
        let categories = categories.map(|(name, counts)| (name.to_owned(), CategoryPresence::new(counts)));
        let presence = PresenceEvaluation {
            min_share: 0.15,
            min_region: 0.05,
            cells_by_labels: 6.5,
            cells_by_model: 8.0,
            macro_precision: Some(0.3),
            macro_recall: Some(0.375),
            micro_precision: Some(0.6),
            micro_recall: None,
            categories: categories.into(),
        };
        let mut features = FeatureComparison {
            color_rule: crate::features::ColorRule::PerPixel,
            mean_absolute_difference: 0.0,
            mean_absolute_difference_of_nothing: 0.0,
            cells: BTreeMap::new(),
            true_neighbours_found: None,
            true_neighbours_found_at_random: None,
            neighbours: vec![
                found(Among::Part, 1, None),
                found(Among::Part, 5, Some(0.25)),
                found(Among::Dataset, 5, Some(0.5)),
            ],
            presence: None,
        };
        assert!(Worn::new(&features).is_none(), "by an older version");
        features.presence = Some(presence);
        let worn = Worn::new(&features).expect("it was evaluated");
        let values: Vec<_> = worn.facts.iter().map(|it| it.value.as_str()).collect();
        assert_eq!(values, ["8.00", "6.50", "60 / - %", "30 / 38 %"]);
        assert_eq!(worn.categories[0].precision, "60.0 %");
        assert_eq!((worn.categories[1].precision.as_str(), worn.categories[1].recall.as_str()), ("-", "0.0 %"));
        let neighbours = |top, part: &str, dataset: &str| (top, [part.to_owned(), dataset.to_owned()]);
        assert_eq!(worn.neighbours, [neighbours(1, "-", "-"), neighbours(5, "25.0 % (12.5 %)", "50.0 % (12.5 %)")]);
    }

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!(["0", "999", "1,000", "1,234,567"].map(str::to_owned), [0, 999, 1000, 1_234_567].map(grouped));
    }
}
