//! COCO: `images/` and `annotations/*.json`, of which each has `images`, `categories` and `annotations` with polygons or
//! run lengths. Later annotations are painted over earlier ones.
//!
//! The files are read as they stream in; what stays in memory are the segmentations as the file has them, never masks.
//! A photo one of whose annotations cannot be used is rejected, since its pixels would pass for background; an
//! annotation of no photo is listed by its id.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::format::{self, Entry, IMAGES, Label, Painted, Parts};
use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::fold::Fold;
use crate::mask::{LabelMap, polygon, rle};
use crate::reason;
use crate::rejects::Reject;

/// The folder of annotations.
pub(super) const ANNOTATIONS: &str = "annotations";
/// How the names of files with segmentations begin, if others lie beside them.
const INSTANCES: &str = "instances";

/// A file as it is written.
#[derive(Deserialize)]
struct File {
    images: Vec<Lenient<Image>>,
    categories: Vec<Category>,
    annotations: Vec<Lenient<Written>>,
}

/// An element of a list, or what else there is.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Good(T),
    Placed { id: Option<i64>, image_id: i64 },
    Named { id: i64 },
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Image {
    id: i64,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Category {
    id: i64,
    name: String,
}

#[derive(Deserialize)]
struct Written {
    id: Option<i64>,
    image_id: i64,
    category_id: i64,
    segmentation: Option<Segmentation>,
}

/// A segmentation as a file has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Segmentation {
    Polygons(Vec<Box<[f64]>>),
    Counts { size: [u32; 2], counts: Box<[u32]> },
    Text { size: [u32; 2], counts: Box<str> },
    Other(IgnoredAny),
}

/// An annotation on its photo.
pub(super) struct Layer {
    id: i64,
    /// The category, or what is wrong with it.
    category: Result<u8, String>,
    segmentation: Option<Segmentation>,
}

/// The annotation files of a folder.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = format::json_files(&folder.join(ANNOTATIONS))?;
    let of_instances =
        |path: &PathBuf| path.file_name().is_some_and(|it| it.as_encoded_bytes().starts_with(INSTANCES.as_bytes()));
    let instances: Vec<_> = files.iter().filter(|it| of_instances(it)).cloned().collect();
    Ok(if instances.is_empty() { files } else { instances })
}

/// Reads all annotation files.
///
/// # Errors
/// [`Error::Input`] if one cannot be read or none has a labelled photo, [`Error::Config`] if the fold does not know
/// all categories, [`Error::Io`].
pub(super) fn open(folder: &Path, fold: &Fold) -> Result<Painted<Layer>> {
    let (mut all, mut listed, mut splits) = (Vec::new(), Vec::new(), Vec::new());
    for path in files(folder)? {
        crate::stop::check()?;
        let entries = read(folder, &path, fold, &mut listed)?;
        let split = split_of(&path);
        splits.extend(entries.iter().map(|_| split));
        all.extend(entries);
    }
    let (mut entries, mut own) = (Vec::new(), Vec::new());
    for (entry, split) in all.into_iter().zip(splits) {
        if entry.labels.is_empty() && entry.reject.is_none() {
            listed.push(Reject::new(entry.file_name, reason::NO_PIXEL_LABELS, "has no annotations"));
        } else {
            entries.push(entry);
            own.push(split);
        }
    }
    if entries.is_empty() {
        let problem = "has no photo with annotations; expected the lists 'images' and 'annotations' of COCO";
        return Err(Error::input(folder.join(ANNOTATIONS), problem));
    }
    let categories = fold.labels().category_count();
    Ok(Painted { entries, parts: Parts::new(own.into_iter()), listed, categories })
}

/// The names of the categories of all annotation files, each once.
///
/// # Errors
/// As [`open`].
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Named {
        categories: Vec<Category>,
    }
    let mut names: Vec<String> = Vec::new();
    for path in files(folder)? {
        let Named { categories } = format::read_json(folder, &path, "the list 'categories' of COCO")?;
        for Category { name, .. } in categories {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// The entries of a file, with the annotations of no photo among `listed`.
fn read(folder: &Path, path: &Path, fold: &Fold, listed: &mut Vec<Reject>) -> Result<Vec<Entry<Layer>>> {
    let File { images, categories, annotations } =
        format::read_json(folder, path, "the lists 'images', 'categories' and 'annotations' of COCO")?;
    let names = categories.iter().map(|it| it.name.as_str());
    // Categories without annotations may have any name.
    let used: BTreeSet<i64> = annotations.iter().filter_map(|it| it.good().map(|it| it.category_id)).collect();
    let used_names = categories.iter().filter(|it| used.contains(&it.id)).map(|it| it.name.as_str());
    fold.categories(used_names, path)?;
    let category_of: HashMap<i64, u8> =
        categories.iter().zip(names).filter_map(|(it, name)| Some((it.id, fold.category(name)?))).collect();
    let shown = path.file_name().unwrap_or_default().to_string_lossy();
    let folders = photo_folders(folder, path);
    let (mut entries, mut by_id) = (Vec::with_capacity(images.len()), HashMap::new());
    for (index, image) in images.into_iter().enumerate() {
        let Lenient::Good(image) = image else {
            let detail = format!("{shown}: has no id, file_name, width and height of an image");
            entries.push(rejected(Reject::new(format!("images[{index}]"), reason::ENTRY_UNREADABLE, detail)));
            continue;
        };
        let mut entry =
            Entry { file_name: image.file_name, size: (image.width, image.height), reject: None, labels: Vec::new() };
        if let Err(reject) = format::check_name(&entry.file_name, &shown) {
            entry.reject = Some(reject);
        } else if by_id.contains_key(&image.id) {
            let detail = format!("{shown}: has the id {} of an earlier image", image.id);
            entry.reject = Some(Reject::new(&entry.file_name, reason::ENTRY_UNREADABLE, detail));
        } else {
            entry.file_name = found_below(folder, &folders, entry.file_name);
        }
        by_id.entry(image.id).or_insert(entries.len());
        entries.push(entry);
    }
    for (index, annotation) in annotations.into_iter().enumerate() {
        let unplaced =
            |id: i64, detail: String| Reject::new(format!("annotation {id}"), reason::ANNOTATION_UNPLACED, detail);
        let (id, image_id, category, segmentation) = match annotation {
            Lenient::Good(Written { id, image_id, category_id, segmentation }) => {
                let category = category_of.get(&category_id).copied();
                let category = category.ok_or_else(|| format!("there is no category {category_id}"));
                (id, image_id, category, segmentation)
            }
            Lenient::Placed { id, image_id } => (id, image_id, Err("has no category_id".to_owned()), None),
            Lenient::Named { id } => {
                listed.push(unplaced(id, format!("{shown}: has no image_id")));
                continue;
            }
            Lenient::Other(_) => {
                listed.push(unplaced(index as i64, format!("{shown}: annotations[{index}] is not an annotation")));
                continue;
            }
        };
        let id = id.unwrap_or(index as i64);
        match by_id.get(&image_id) {
            Some(&entry) => {
                let entry: &mut Entry<Layer> = &mut entries[entry];
                entry.labels.push(Layer { id, category, segmentation });
            }
            None => listed.push(unplaced(id, format!("{shown}: there is no image {image_id}"))),
        }
    }
    Ok(entries)
}

impl<T> Lenient<T> {
    fn good(&self) -> Option<&T> {
        if let Self::Good(it) = self { Some(it) } else { None }
    }
}

/// The folders below that of the photos in which those of an annotation file may lie: itself, that of its part, and that
/// of its name, as `train2017` for `instances_train2017.json`.
fn photo_folders(folder: &Path, path: &Path) -> Vec<String> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let words: Vec<&str> = words(&stem).collect();
    let names = words.iter().flat_map(|word| [*word, word.trim_end_matches(|it: char| it.is_ascii_digit())]);
    let mut folders: Vec<String> = names.map(str::to_owned).filter(|it| !it.is_empty()).collect();
    folders.dedup();
    folders.retain(|it| folder.join(IMAGES).join(it).is_dir());
    folders
}

/// The name below the folder of photos.
fn found_below(folder: &Path, folders: &[String], name: String) -> String {
    let images = folder.join(IMAGES);
    if folders.is_empty() || images.join(&name).exists() {
        return name;
    }
    let below = folders.iter().map(|it| format!("{it}/{name}"));
    below.into_iter().find(|it| images.join(it).exists()).unwrap_or(name)
}

fn words(stem: &str) -> impl Iterator<Item = &str> {
    stem.split(|letter: char| !letter.is_alphanumeric()).filter(|it| !it.is_empty())
}

/// The part that a file holds by its name, as `instances_val2017.json`.
fn split_of(path: &Path) -> Option<Split> {
    let stem = path.file_stem()?.to_str()?;
    words(stem).find_map(|word| format::split_named(word.trim_end_matches(|it: char| it.is_ascii_digit())))
}

fn rejected(reject: Reject) -> Entry<Layer> {
    Entry { file_name: reject.item.clone(), size: (0, 0), reject: Some(reject), labels: Vec::new() }
}

impl Label for Layer {
    fn paint(&self, map: &mut LabelMap) -> Result<(), (&'static str, String)> {
        let invalid = |reason| move |problem: String| (reason, format!("annotation {}: {problem}", self.id));
        let category = self.category.clone().map_err(invalid(reason::CATEGORY_INVALID))?;
        paint(map, self.segmentation.as_ref(), category).map_err(invalid(reason::ANNOTATION_INVALID))
    }
}

fn paint(map: &mut LabelMap, segmentation: Option<&Segmentation>, category: u8) -> Result<(), String> {
    let expected = "expected polygons, or run lengths with 'size' and 'counts'";
    let check = |map: &LabelMap, [height, width]: [u32; 2]| {
        let (found, wanted) = ((width as usize, height as usize), (map.width_px, map.height_px));
        if found == wanted {
            return Ok(());
        }
        Err(format!("its mask has {width} x {height} pixels, but the image {} x {}", wanted.0, wanted.1))
    };
    match segmentation {
        None => Err(format!("has no segmentation; {expected}")),
        Some(Segmentation::Other(_)) => Err(format!("has a segmentation of another form; {expected}")),
        Some(Segmentation::Polygons(polygons)) if polygons.is_empty() => {
            Err(format!("has an empty segmentation; {expected}"))
        }
        Some(Segmentation::Polygons(polygons)) => {
            polygons.iter().try_for_each(|coordinates| polygon::paint(map, coordinates, category))
        }
        Some(Segmentation::Counts { size, counts }) => {
            check(map, *size).and_then(|()| rle::paint(map, counts, category))
        }
        Some(Segmentation::Text { size, counts }) => {
            check(map, *size).and_then(|()| rle::paint(map, &rle::parse(counts)?, category))
        }
    }
}
