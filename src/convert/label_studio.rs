//! Label Studio: `images/` and the exported tasks as JSON (not `JSON_MIN`), with regions of its brush and its polygons.
//! Later regions are painted over earlier ones. Polygons become pixels as in its own export to COCO: per cent of the
//! picture's size to pixels, filled as pycocotools does.
//!
//! Of a task's annotations, the one that is marked as ground truth counts, else the last that was not cancelled. If no
//! task of a file has annotations, its predictions count: it is a file of pre-annotations, such as `segment` writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::format::{self, Entry, IMAGES, Label, Painted, Parts};
use crate::error::{Error, Result};
use crate::fold::Fold;
use crate::mask::{LabelMap, brush, polygon};
use crate::photo;
use crate::reason;
use crate::rejects::Reject;

/// Regions that cover an area too, but are not read.
const OTHER_AREAS: [&str; 5] = ["rectanglelabels", "ellipselabels", "rectangle", "ellipse", "bitmasklabels"];
/// The part of an address that names a file of Label Studio's local storage.
const LOCAL_FILE: &str = "/data/local-files/?d=";

/// A task as it is exported.
#[derive(Deserialize)]
struct Task {
    id: Option<i64>,
    data: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    annotations: Vec<Answer>,
    #[serde(default)]
    predictions: Vec<Prediction>,
}

/// Predictions are exported with their content, or as ids alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Prediction {
    Answer(Answer),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    was_cancelled: bool,
    #[serde(default)]
    ground_truth: bool,
    #[serde(default)]
    result: Vec<Written>,
}

/// A region as it is exported.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    id: Option<String>,
    #[serde(rename = "type", default)]
    kind: String,
    original_width: Option<u32>,
    original_height: Option<u32>,
    image_rotation: Option<f64>,
    value: Option<Lenient>,
}

/// A region's value, or what else there is.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient {
    Value(Value),
    Other(IgnoredAny),
}

#[derive(Deserialize, Default)]
struct Value {
    #[serde(alias = "brushlabels", alias = "polygonlabels")]
    labels: Option<Vec<String>>,
    rle: Option<Box<[u8]>>,
    points: Option<Vec<[f64; 2]>>,
}

/// A region on its photo.
pub(super) struct Region {
    id: String,
    size: Option<(u32, u32)>,
    category: Result<u8, String>,
    shape: Shape,
}

enum Shape {
    Brush(Box<[u8]>),
    Polygon(Vec<[f64; 2]>),
    Unusable(String),
}

/// The exported files of a folder.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    format::json_files(folder)
}

/// Reads all exported files.
///
/// # Errors
/// [`Error::Input`] if one cannot be read or none has a labelled photo, [`Error::Config`] if the fold does not know
/// all labels, [`Error::Io`].
pub(super) fn open(folder: &Path, fold: &Fold) -> Result<Painted<Region>> {
    let (mut entries, mut listed) = (Vec::new(), Vec::new());
    for path in files(folder)? {
        crate::stop::check()?;
        let tasks: Vec<Task> = format::read_json(folder, &path, "a list of tasks, as Label Studio exports JSON")?;
        read(folder, &path, tasks, fold, &mut entries, &mut listed)?;
    }
    if entries.is_empty() {
        return Err(Error::input(folder, "has no Label Studio task with regions of the brush or polygons"));
    }
    let parts = Parts::new(entries.iter().map(|it| format::split_of_folder(&it.file_name)));
    Ok(Painted { entries, parts, listed, categories: fold.labels().category_count() })
}

/// The labels of all regions, sorted: the files do not list those that could be used.
///
/// # Errors
/// As [`open`].
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = std::collections::BTreeSet::new();
    for path in files(folder)? {
        let tasks: Vec<Task> = format::read_json(folder, &path, "a list of tasks, as Label Studio exports JSON")?;
        let is_annotated = tasks.iter().any(|it| !it.annotations.is_empty());
        let answers = tasks.into_iter().filter_map(|task| answer(task, is_annotated));
        let regions = answers.flat_map(|it| it.result);
        names.extend(regions.flat_map(|it| it.labels().cloned().unwrap_or_default()));
    }
    Ok(names.into_iter().collect())
}

/// Adds the entries of a file, and what has no labels to `listed`.
fn read(
    folder: &Path,
    path: &Path,
    tasks: Vec<Task>,
    fold: &Fold,
    entries: &mut Vec<Entry<Region>>,
    listed: &mut Vec<Reject>,
) -> Result<()> {
    let is_annotated = tasks.iter().any(|it| !it.annotations.is_empty());
    let answers: Vec<(String, Option<Answer>)> = tasks
        .into_iter()
        .enumerate()
        .map(|(index, task)| {
            let name = photo_name(folder, &task.data);
            let name = name.unwrap_or_else(|| format!("task {}", task.id.unwrap_or(index as i64)));
            (name, answer(task, is_annotated))
        })
        .collect();
    let regions = answers.iter().flat_map(|(_, answer)| answer).flat_map(|it| &it.result);
    let labels: std::collections::BTreeSet<&str> =
        regions.filter_map(Written::labels).flatten().map(String::as_str).collect();
    fold.categories(labels.iter().copied(), path)?;
    let shown = path.file_name().unwrap_or_default().to_string_lossy();
    for (file_name, answer) in answers {
        let regions: Vec<Region> =
            answer.map(|it| it.result).unwrap_or_default().into_iter().filter_map(|it| Region::of(it, fold)).collect();
        if regions.is_empty() {
            listed.push(Reject::new(file_name, reason::NO_PIXEL_LABELS, "has no region of the brush or polygon"));
            continue;
        }
        let reject = format::check_name(&file_name, &shown).err();
        let size = regions.iter().find_map(|it| it.size).unwrap_or_default();
        entries.push(Entry { file_name, size, reject, labels: regions });
    }
    Ok(())
}

/// The answer of a task that counts.
fn answer(task: Task, is_annotated: bool) -> Option<Answer> {
    if !is_annotated {
        return task.predictions.into_iter().rev().find_map(|it| match it {
            Prediction::Answer(answer) => Some(answer),
            Prediction::Other(_) => None,
        });
    }
    let mut answers: Vec<Answer> = task.annotations.into_iter().filter(|it| !it.was_cancelled).collect();
    let truth = answers.iter().position(|it| it.ground_truth).or(answers.len().checked_sub(1))?;
    Some(answers.swap_remove(truth))
}

/// The name, below the folder of photos, of the photo that a task's data names: by a path of local storage, an upload, an
/// address or a name.
fn photo_name(folder: &Path, data: &BTreeMap<String, serde_json::Value>) -> Option<String> {
    let texts = || data.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
    let is_photo = |text: &str| {
        let name = text.split('#').next().unwrap_or_default().to_ascii_lowercase();
        photo::EXTENSIONS
            .iter()
            .any(|ending| name.ends_with(&format!(".{ending}")) || name.contains(&format!(".{ending}?")))
    };
    let named = texts().find(|(key, text)| *key == "image" && !text.is_empty());
    let (_, text) = named.or_else(|| texts().find(|(_, text)| is_photo(text)))?;
    let path = match text.split_once(LOCAL_FILE) {
        Some((_, path)) => path,
        None => text.split(['?', '#']).next().unwrap_or_default(),
    };
    let path = percent_decode_str(path).decode_utf8().ok()?.into_owned();
    let images = folder.join(IMAGES);
    // The longest end of the path that is there, so that folders below `images` are found.
    let safe = |end: &str| format::check_name(end, "").is_ok();
    let mut end = path.as_str();
    loop {
        if safe(end) && images.join(end).exists() {
            return Some(end.to_owned());
        }
        match end.split_once('/') {
            Some((_, rest)) => end = rest,
            None => return Some(if end.is_empty() { path } else { end.to_owned() }),
        }
    }
}

impl Written {
    fn labels(&self) -> Option<&Vec<String>> {
        match &self.value {
            Some(Lenient::Value(value)) => value.labels.as_ref(),
            _ => None,
        }
    }
}

impl Region {
    /// The region, unless it covers no area, as a choice or a text.
    fn of(written: Written, fold: &Fold) -> Option<Self> {
        let Written { id, kind, original_width, original_height, image_rotation, value } = written;
        let kind = kind.to_ascii_lowercase();
        let is_labelled = kind.ends_with("labels");
        let (value, is_unreadable) = match value {
            Some(Lenient::Value(value)) => (value, false),
            Some(Lenient::Other(_)) => (Value::default(), true),
            None => (Value::default(), false),
        };
        let shape = match (value.rle, value.points) {
            _ if is_labelled && is_unreadable => Shape::Unusable("has a value of another form".to_owned()),
            _ if OTHER_AREAS.contains(&kind.as_str()) => {
                Shape::Unusable(format!("is of the type {kind}; only brush and polygons are read"))
            }
            // A region of the tags Brush or Polygon is exported twice: once without its label.
            _ if !is_labelled => return None,
            _ if image_rotation.is_some_and(|it| it != 0.0) => {
                Shape::Unusable("was drawn on a rotated picture; rotate the photo itself".to_owned())
            }
            (Some(rle), _) => Shape::Brush(rle),
            (None, Some(points)) => Shape::Polygon(points),
            _ if ["brushlabels", "polygonlabels"].contains(&kind.as_str()) => {
                Shape::Unusable("has neither 'rle' nor 'points'".to_owned())
            }
            _ => return None,
        };
        let category = match value.labels.as_deref() {
            Some([label]) => fold.category(label).ok_or_else(|| format!("has the unknown label '{label}'")),
            labels => Err(format!("has {} labels; expected one", labels.map_or(0, <[_]>::len))),
        };
        let size = original_width.zip(original_height);
        Some(Self { id: id.unwrap_or_default(), size, category, shape })
    }

    fn paint_on(&self, map: &mut LabelMap) -> Result<(), String> {
        if let Shape::Unusable(problem) = &self.shape {
            return Err(problem.clone());
        }
        let category = self.category.clone()?;
        let (width, height) = (map.width_px, map.height_px);
        if self.size.is_none_or(|it| (it.0 as usize, it.1 as usize) != (width, height)) {
            return Err(format!("was not drawn on a picture of {width} x {height} pixels"));
        }
        match &self.shape {
            Shape::Brush(bytes) => brush::paint(map, bytes, category),
            Shape::Polygon(points) => {
                let pixels = |[x, y]: &[f64; 2]| [x / 100.0 * width as f64, y / 100.0 * height as f64];
                polygon::paint(map, &points.iter().flat_map(pixels).collect::<Vec<_>>(), category)
            }
            Shape::Unusable(_) => Ok(()),
        }
    }
}

impl Label for Region {
    fn paint(&self, map: &mut LabelMap) -> Result<(), (&'static str, String)> {
        self.paint_on(map).map_err(|problem| {
            let is_of_category = self.category.is_err() && !matches!(self.shape, Shape::Unusable(_));
            let reason = if is_of_category { reason::CATEGORY_INVALID } else { reason::ANNOTATION_INVALID };
            (reason, format!("region {}: {problem}", self.id.escape_debug()))
        })
    }
}
