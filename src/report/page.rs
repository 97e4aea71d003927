//! The page's content as plain values, gathered from the run folder, and the template that shows them.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{Array, StringArray};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::evaluate::{self, Evaluation};
use crate::features::FeatureTable;
use crate::labels::{self, CATEGORIES, CATEGORY_PALETTE, COLOR_COUNT, COLOR_RGB, COLORS};
use crate::stage::Summary;
use crate::table;
use crate::table::rejects;
use crate::train::history::{self, EpochRecord};

const TEMPLATE: &str = include_str!("page.html");
/// Smallest share of a row of the confusion matrix that is written into its cell.
const WRITTEN_SHARE: f64 = 0.01;

/// Everything on the page. A part is `None` where its stage was not run.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    run: String,
    written_at: String,
    version: &'static str,
    stages: Vec<StageFacts>,
    #[serde(skip)]
    pub(super) history: Option<Vec<EpochRecord>>,
    pub(super) evaluation: Option<EvaluationPart>,
    pub(super) shares: Option<Shares>,
    pub(super) rejects: Option<Vec<RejectCount>>,
    pub(super) learning_curve: Option<String>,
    pub(super) segmentations: Option<Segmentations>,
    pub(super) neighbours: Option<Vec<ContactSheet>>,
}

/// A named value with a line of explanation.
#[derive(Debug, Serialize)]
pub(super) struct Fact {
    name: String,
    value: String,
    meaning: &'static str,
}

/// A bar of a bar chart.
#[derive(Debug, Serialize)]
pub(super) struct Bar {
    name: String,
    /// CSS colour.
    color: String,
    /// Length, 0 to 100; null where there is nothing to measure.
    percent: Option<f64>,
    text: String,
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
    iou: Vec<Bar>,
    confusion: Confusion,
}

/// The confusion matrix over the categories that occur, as shares of the truth's pixels.
#[derive(Debug, Serialize)]
struct Confusion {
    names: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug, Serialize)]
struct Cell {
    share: f64,
    text: String,
    title: String,
}

/// Mean shares of the apparel pixels over the photos that show apparel.
#[derive(Debug, Serialize)]
pub(super) struct Shares {
    photos: String,
    categories: Vec<Bar>,
    colors: Vec<Bar>,
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
    pub(super) photos: Vec<SegmentedPhoto>,
    pub(super) legend: Vec<Bar>,
}

#[derive(Debug, Serialize)]
pub(super) struct SegmentedPhoto {
    pub(super) caption: String,
    /// `data:` URIs.
    pub(super) photo: String,
    pub(super) truth: String,
    pub(super) prediction: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ContactSheet {
    pub(super) caption: String,
    /// `data:` URI.
    pub(super) picture: String,
}

impl Page {
    pub(super) fn new(run: &Path, stages: &[Summary]) -> Self {
        Self {
            run: run.display().to_string(),
            written_at: chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string(),
            version: env!("CARGO_PKG_VERSION"),
            stages: stages.iter().map(StageFacts::new).collect(),
            history: None,
            evaluation: None,
            shares: None,
            rejects: None,
            learning_curve: None,
            segmentations: None,
            neighbours: None,
        }
    }

    /// Number of parts that the page has to do without.
    pub(super) fn left_out(&self) -> usize {
        let there = [
            self.learning_curve.is_some(),
            self.evaluation.is_some(),
            self.segmentations.is_some(),
            self.neighbours.is_some(),
            self.shares.is_some(),
            self.rejects.is_some(),
        ];
        there.iter().filter(|&&there| !there).count()
    }

    pub(super) fn render(&self) -> Result<String> {
        let mut templates = minijinja::Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).build();
        let failed = |cause: minijinja::Error| Error::input("report/page.html", cause);
        templates.set_syntax(syntax.map_err(failed)?);
        templates.add_template("page.html", TEMPLATE).map_err(failed)?;
        templates.get_template("page.html").and_then(|page| page.render(Serde(self))).map_err(failed)
    }
}

impl StageFacts {
    fn new(summary: &Summary) -> Self {
        let counts = summary.counts.iter().map(|(name, value)| (name.replace('_', " "), shown(value))).collect();
        let revision = summary.git_revision.as_ref().map_or(String::new(), |revision| format!(" ({revision})"));
        Self {
            name: summary.stage.clone(),
            started_at: summary.started_at.replace('T', " ").replace('Z', " UTC"),
            elapsed: duration(summary.elapsed_secs),
            program: format!("lookbook {}{revision}", summary.version),
            provider: summary.execution_provider.clone().unwrap_or_else(|| "-".to_owned()),
            counts,
            config: serde_json::to_string_pretty(&summary.config).expect("a JSON value is JSON"),
            inputs: summary.inputs.iter().map(|it| (it.path.display().to_string(), it.sha256.clone())).collect(),
        }
    }
}

/// The training history, where the model folder has one.
pub(super) fn history(run: &Path) -> Result<Option<Vec<EpochRecord>>> {
    let path = run.join("model/history.parquet");
    if path.is_file() { history::read(&path).map(Some) } else { Ok(None) }
}

/// `evaluation.json`, where the model was evaluated.
pub(super) fn evaluation(run: &Path) -> Result<Option<EvaluationPart>> {
    let path = run.join("model/evaluation.json");
    if !path.is_file() {
        return Ok(None);
    }
    Ok(Some(EvaluationPart::new(&evaluate::read(&run.join("model"))?)))
}

impl EvaluationPart {
    fn new(evaluation: &Evaluation) -> Self {
        let fact = |name: &str, value: String, meaning| Fact { name: name.to_owned(), value, meaning };
        let rate = |value: Option<f64>| value.map_or("-".to_owned(), percent);
        let headline = vec![
            fact(
                "mean IoU",
                percent(evaluation.mean_iou),
                "overlap of prediction and truth, mean over the categories that occur",
            ),
            fact("pixel accuracy", percent(evaluation.pixel_accuracy), "pixels whose category is right"),
            fact(
                "foreground accuracy",
                rate(evaluation.foreground_accuracy),
                "the same among pixels that are not background",
            ),
            fact(
                "category sets",
                percent(evaluation.category_set_jaccard),
                "categories found of those worn or found, mean over photos (Jaccard)",
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
                format!("{:.4}", evaluation.bce),
                "the seed's loss, mean over pixels and maps",
            ),
            fact(
                "colour of a pixel",
                rate(evaluation.color_pixel_accuracy),
                "apparel pixels that the colour table names as the labels do",
            ),
            fact(
                "the seed's mean IoU",
                percent(evaluation.seed_mean_iou),
                "mean over photos, by the seed's own rule; it flatters",
            ),
        ];
        let iou = CATEGORIES.iter().enumerate().map(|(category, &name)| Bar::iou(category, evaluation.iou.get(name)));
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
            iou: iou.collect(),
            confusion: Confusion::new(&evaluation.confusion),
        }
    }
}

impl Bar {
    fn iou(category: usize, iou: Option<&Option<f64>>) -> Self {
        let value = iou.copied().flatten();
        Self {
            name: CATEGORIES[category].to_owned(),
            color: css(CATEGORY_PALETTE[category]),
            percent: value.map(|value| value * 100.0),
            text: value.map_or("absent from the truth".to_owned(), percent),
        }
    }

    fn share(name: &str, color: [u8; 3], share: f64, longest: f64) -> Self {
        Self { name: name.to_owned(), color: css(color), percent: Some(100.0 * share / longest), text: percent(share) }
    }

    /// A swatch of a legend.
    pub(super) fn swatch(category: u8) -> Self {
        let category = usize::from(category);
        Self {
            name: CATEGORIES[category].to_owned(),
            color: css(CATEGORY_PALETTE[category]),
            percent: None,
            text: String::new(),
        }
    }
}

impl Confusion {
    fn new(counts: &[Vec<u64>]) -> Self {
        let count = |truth: usize, predicted: usize| -> u64 {
            counts.get(truth).and_then(|row| row.get(predicted)).copied().unwrap_or(0)
        };
        let all = 0..CATEGORIES.len();
        let occurs = |category: usize| all.clone().any(|other| count(category, other) + count(other, category) > 0);
        let present: Vec<usize> = all.clone().filter(|&category| occurs(category)).collect();
        let row = |truth: usize| -> Vec<Cell> {
            let total: u64 = all.clone().map(|predicted| count(truth, predicted)).sum();
            let cell = |&predicted: &usize| {
                let pixels = count(truth, predicted);
                let share = if total == 0 { 0.0 } else { pixels as f64 / total as f64 };
                let names = (CATEGORIES[truth], CATEGORIES[predicted]);
                Cell {
                    share: (share * 1000.0).round() / 1000.0,
                    text: if share >= WRITTEN_SHARE { format!("{:.0}", share * 100.0) } else { String::new() },
                    title: format!("{} seen as {}: {} of {} pixels", names.0, names.1, grouped(pixels), grouped(total)),
                }
            };
            present.iter().map(cell).collect()
        };
        Self {
            names: present.iter().map(|&category| CATEGORIES[category]).collect(),
            rows: present.iter().map(|&t| row(t)).collect(),
        }
    }
}

/// Shares of categories and colours in the feature table, where there is one.
pub(super) fn shares(run: &Path) -> Result<Option<Shares>> {
    let folder = run.join("features");
    if !folder.join(crate::stage::RUN_FILE).is_file() {
        return Ok(None);
    }
    FeatureTable::open(&folder).map(|table| Some(Shares::new(&table.cells)))
}

impl Shares {
    /// From the cells of a feature table, `[photos, 228]`.
    fn new(cells: &[f32]) -> Self {
        let rows = cells.chunks_exact(labels::CELL_COUNT);
        let dressed: Vec<&[f32]> = rows.filter(|row| row.iter().any(|&cell| cell > 0.0)).collect();
        let mean = |cells: &dyn Fn(usize) -> bool| -> f64 {
            let sum: f64 = dressed
                .iter()
                .flat_map(|row| row.iter().enumerate().filter(|&(cell, _)| cells(cell)))
                .map(|(_, &share)| f64::from(share))
                .sum();
            sum / dressed.len().max(1) as f64
        };
        let colors_per_category = COLOR_COUNT - 1;
        let categories = labels::apparel_categories().enumerate().map(|(rank, category)| {
            let share = mean(&|cell| cell / colors_per_category == rank);
            (CATEGORIES[usize::from(category)], CATEGORY_PALETTE[usize::from(category)], share)
        });
        let colors = (1..COLOR_COUNT)
            .map(|color| (COLORS[color], COLOR_RGB[color], mean(&|cell| cell % colors_per_category + 1 == color)));
        Self {
            photos: grouped(dressed.len() as u64),
            categories: ranked(categories.collect()),
            colors: ranked(colors.collect()),
        }
    }
}

/// The largest share first; those that are zero are left out.
fn ranked(mut shares: Vec<(&str, [u8; 3], f64)>) -> Vec<Bar> {
    shares.retain(|(_, _, share)| *share > 0.0);
    shares.sort_by(|a, b| b.2.total_cmp(&a.2));
    let longest = shares.first().map_or(1.0, |(_, _, share)| *share);
    shares.into_iter().map(|(name, color, share)| Bar::share(name, color, share, longest)).collect()
}

/// Rejects of all stages by stage and reason; `None` where no stage with such a table was run.
pub(super) fn rejects(run: &Path) -> Result<Option<Vec<RejectCount>>> {
    let tables: Vec<_> = super::FOLDERS
        .iter()
        .map(|folder| run.join(folder).join(rejects::FILE))
        .filter(|path| path.is_file())
        .collect();
    let mut found: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for path in &tables {
        for batch in table::read_table(path, "rejects", &["stage", "item", "reason"], 1 << 16)? {
            let batch = batch?;
            let text = |name| table::column::<StringArray>(path, &batch, name);
            let (stages, items, reasons) = (text("stage")?, text("item")?, text("reason")?);
            for row in 0..stages.len() {
                let key = (stages.value(row).to_owned(), reasons.value(row).to_owned());
                found.entry(key).or_default().push(items.value(row).to_owned());
            }
        }
    }
    let counts = found.into_iter().map(|((stage, reason), mut items)| {
        let count = items.len() as u64;
        items.truncate(3);
        RejectCount { stage, reason, count, examples: items }
    });
    Ok((!tables.is_empty()).then(|| counts.collect()))
}

/// A rate as per cent.
pub(super) fn percent(rate: f64) -> String {
    format!("{:.1} %", rate * 100.0)
}

/// A count with commas between thousands.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn duration(secs: f64) -> String {
    if secs < 120.0 { format!("{secs:.1} s") } else { format!("{:.1} min", secs / 60.0) }
}

fn css([r, g, b]: [u8; 3]) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// A figure of `run.json` for people.
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
mod tests {
    use super::*;
    use crate::dataset::Split;

    fn evaluation() -> Evaluation {
        let mut confusion = vec![vec![0; CATEGORIES.len()]; CATEGORIES.len()];
        confusion[0][0] = 900;
        confusion[0][7] = 100;
        confusion[7][7] = 3;
        confusion[7][1] = 1;
        Evaluation {
            split: Split::Test,
            photos: 1234,
            model_id: "0123456789abcdef".to_owned(),
            pixel_accuracy: 0.9,
            foreground_accuracy: Some(0.75),
            mean_iou: 0.5,
            frequency_weighted_iou: 0.8,
            category_set_jaccard: 0.4,
            seed_mean_iou: 0.7,
            seed_mean_iou_of_background: 0.6,
            seed_mean_iou_note: "flatters".to_owned(),
            bce: 0.1,
            iou: [("bk".to_owned(), Some(0.9)), ("dress".to_owned(), Some(0.0)), ("hat".to_owned(), None)].into(),
            confusion,
            color_pixel_accuracy: None,
        }
    }

    #[test]
    fn absent_is_told_apart_from_zero() {
        let part = EvaluationPart::new(&evaluation());
        let bar = |name: &str| part.iou.iter().find(|bar| bar.name == name).expect("a bar for every category");
        assert_eq!((bar("dress").percent, bar("dress").text.as_str()), (Some(0.0), "0.0 %"));
        assert_eq!((bar("hat").percent, bar("hat").text.as_str()), (None, "absent from the truth"));
    }

    #[test]
    fn the_confusion_matrix_holds_the_categories_that_occur_as_shares_of_the_truth() {
        let matrix = EvaluationPart::new(&evaluation()).confusion;
        assert_eq!(matrix.names, ["bk", "T-shirt", "dress"]);
        let shares: Vec<Vec<f64>> = matrix.rows.iter().map(|row| row.iter().map(|cell| cell.share).collect()).collect();
        assert_eq!(shares, [[0.9, 0.0, 0.1], [0.0, 0.0, 0.0], [0.0, 0.25, 0.75]]);
        assert_eq!(matrix.rows[2][1].title, "dress seen as T-shirt: 1 of 4 pixels");
    }

    #[test]
    fn shares_are_means_over_the_photos_that_show_apparel() {
        let mut cells = vec![0.0; 3 * labels::CELL_COUNT];
        let cell = |name: &str| labels::cell_names().iter().position(|it| it == name).expect("a cell");
        cells[cell("dress_red")] = 0.75;
        cells[cell("shoe_black")] = 0.25;
        cells[labels::CELL_COUNT + cell("dress_black")] = 1.0;
        let shares = Shares::new(&cells);
        assert_eq!(shares.photos, "2");
        let texts = |bars: &[Bar]| bars.iter().map(|bar| format!("{} {}", bar.name, bar.text)).collect::<Vec<_>>();
        assert_eq!(texts(&shares.categories), ["dress 87.5 %", "shoe 12.5 %"]);
        assert_eq!(texts(&shares.colors), ["black 62.5 %", "red 37.5 %"]);
        assert_eq!(shares.colors[0].percent, Some(100.0), "the longest bar is full");
    }

    /// Also writes the page to the folder `LOOKBOOK_PICTURES`, for people to look at.
    #[test]
    fn a_full_page_is_self_contained() -> Result<()> {
        let mut page = Page::new(Path::new("output"), &[]);
        let mut evaluation = evaluation();
        evaluation.iou = CATEGORIES
            .iter()
            .enumerate()
            .map(|(id, name)| (name.to_string(), (id % 5 > 0).then(|| id as f64 / 23.0)))
            .collect();
        evaluation.confusion =
            (0..23).map(|t| (0..23).map(|p| if t == p { 70 } else { (t * p) as u64 % 3 }).collect()).collect();
        page.evaluation = Some(EvaluationPart::new(&evaluation));
        page.learning_curve = Some("data:image/png;base64,AA/+".to_owned());
        let picture = "data:image/svg+xml,%3Csvg xmlns='%68ttp://www.w3.org/2000/svg' viewBox='0 0 2 3'%3E%3Crect width='2' height='3' fill='tan'/%3E%3C/svg%3E";
        let photo = |caption: &str| SegmentedPhoto {
            caption: caption.to_owned(),
            photo: picture.to_owned(),
            truth: picture.to_owned(),
            prediction: picture.to_owned(),
        };
        let legend = (1..CATEGORIES.len() as u8).map(Bar::swatch).collect();
        page.segmentations =
            Some(Segmentations { split: "test", photos: ["a.jpg", "b.jpg", "c.jpg"].map(photo).into(), legend });
        page.neighbours = Some(vec![ContactSheet { caption: "<x>".to_owned(), picture: "data:,".to_owned() }]);
        page.rejects = Some(Vec::new());
        let html = page.render()?;
        assert!(html.contains("data:image/png;base64,AA/+"), "a data URI stays as it is");
        assert!(html.contains("&lt;x&gt;"), "names are escaped");
        assert!(!html.contains("http:") && !html.contains("https:"), "nothing is fetched");
        assert!(html.contains("Nothing was rejected"));
        assert!(!html.contains("left-out\">The"), "no part is left out");
        if let Some(folder) = std::env::var_os("LOOKBOOK_PICTURES") {
            crate::stage::write_file(&Path::new(&folder).join("page.html"), html.as_bytes())?;
        }
        Ok(())
    }

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!(["0", "999", "1,000", "1,234,567"].map(str::to_owned), [0, 999, 1000, 1_234_567].map(grouped));
        assert_eq!(duration(59.94), "59.9 s");
        assert_eq!(duration(150.0), "2.5 min");
    }
}
