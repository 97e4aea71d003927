//! Folders of masks: for each photo a PNG file, whose indices or colours are categories.
//!
//! - `photos/` and `masks/`, of the same names: indices by the lines of `labels.txt`, or by our own ids without one.
//! - `JPEGImages/`, `SegmentationClass/` and `labelmap.txt`, as Pascal VOC and CVAT's "Segmentation mask 1.1" have them:
//!   colours, of palette or pixels.
//! - `photos/` and the masks of `segment --masks png`, whose names are checksums of the photos.

use std::collections::{BTreeMap, HashMap};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType, Decoder, Limits, Transformations};
use rayon::prelude::*;
use walkdir::WalkDir;

use super::format::{self, Format, Parts};
use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::files;
use crate::fold::Fold;
use crate::labels::{LabelSet, category_rgb};
use crate::mask::LabelMap;
use crate::mat::Annotation;
use crate::photo;
use crate::rejects::Reject;
use crate::{guard, reason};

/// Names of the categories by index, one a line.
const LABELS: &str = "labels.txt";
/// Names of the categories with their colours, `name:r,g,b:parts:actions` a line.
const LABEL_MAP: &str = "labelmap.txt";
/// The lists of the parts of Pascal VOC.
const PARTS: &str = "ImageSets/Segmentation";
/// The folders of photos and masks.
const FOLDERS: [(&str, &str); 2] = [("JPEGImages", "SegmentationClass"), ("photos", "masks")];
/// What Pascal VOC draws around objects and where nobody can tell: its index and its colour.
const VOID: (u8, [u8; 3]) = (255, [224, 224, 192]);
const VOID_NAME: &str = "void";
/// Largest size of a list of names or parts.
const MAX_LIST_BYTES: u64 = 64 << 20;
/// Length of a photo's checksum, the name of its mask.
const CHECKSUM_LETTERS: usize = 64;
/// Bytes of a PNG file that tell its size.
const HEADER_BYTES: u64 = 24;

/// An opened folder.
pub(super) struct Masks {
    folder: PathBuf,
    entries: Vec<Entry>,
    parts: Option<Parts>,
    unlabelled: Vec<Reject>,
    categories: Categories,
}

/// A photo and its mask, or why it cannot be used.
struct Entry {
    file_name: String,
    mask: Result<PathBuf, Reject>,
}

impl Masks {
    /// The folders of photos and masks in `folder`, if it has them.
    pub(super) fn folders(folder: &Path) -> Option<(&'static str, &'static str)> {
        FOLDERS.into_iter().find(|(_, masks)| folder.join(masks).is_dir())
    }

    /// Lists photos and masks, and reads the names of the categories.
    ///
    /// # Errors
    /// [`Error::Input`] if there are no masks, [`Error::Config`] if the fold does not know all names, [`Error::Io`].
    pub(super) fn open(folder: &Path, fold: &Fold) -> Result<Self> {
        let (photos, masks) = Self::folders(folder).expect("the layout was detected by them");
        let categories = Categories::read(folder, fold)?;
        let found = below(&folder.join(masks), |ending| ending == "png")?;
        if found.is_empty() {
            return Err(Error::input(folder.join(masks), "contains no .png file; expected a mask for each photo"));
        }
        let pictures = below(&folder.join(photos), |ending| photo::EXTENSIONS.contains(&ending))?;
        let by_content = found.keys().all(|stem| is_checksum(stem));
        let pairs = if by_content { by_checksum(folder, photos, pictures, &found)? } else { by_name(pictures, found) };
        let (mut entries, mut unlabelled) = (Vec::new(), Vec::new());
        for (file_name, mask) in pairs {
            if let Some(mask) = mask {
                entries.push(Entry { file_name, mask: mask.map(|it| folder.join(masks).join(it)) });
            } else {
                let detail = format!("has no mask in {masks}");
                unlabelled.push(Reject::new(file_name, reason::NO_PIXEL_LABELS, detail));
            }
        }
        if entries.is_empty() {
            return Err(Error::input(folder.join(masks), format!("has no mask of any photo in {photos}")));
        }
        let lists = part_lists(folder)?;
        let split = |entry: &Entry| match &lists {
            Some(lists) => lists.get(stem(&entry.file_name)).copied(),
            None => format::split_of_folder(&entry.file_name),
        };
        let parts = Parts::new(entries.iter().map(split));
        Ok(Self { folder: folder.to_owned(), entries, parts, unlabelled, categories })
    }
}

impl Format for Masks {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn annotation(&self, index: usize) -> Result<Result<Annotation, Reject>> {
        let Entry { file_name, mask } = &self.entries[index];
        if let Some(Err(reject)) = self.parts.as_ref().map(|it| it.check(index, file_name)) {
            return Ok(Err(reject));
        }
        let path = match mask {
            Ok(path) => path,
            Err(reject) => return Ok(Err(reject.clone())),
        };
        let unreadable = |detail: String| Reject::new(file_name, reason::ENTRY_UNREADABLE, detail);
        let file = match format::open(&self.folder, path) {
            Ok(file) => file,
            Err(error @ Error::Input { .. }) => return Ok(Err(unreadable(error.to_string()))),
            Err(error) => return Err(error),
        };
        let read = guard::no_panic(|| Picture::read(file, file_name, path)).unwrap_or_else(|panic| {
            Ok(Err(unreadable(format!("{}: the decoder crashed on damaged content ({panic})", path.display()))))
        });
        Ok(read?.and_then(|picture| {
            let map = self.categories.label_map(picture).map_err(|problem| {
                Reject::new(file_name, reason::CATEGORY_INVALID, format!("{}: {problem}", path.display()))
            })?;
            Ok(format::by_regions(file_name.clone(), &map, self.categories.count))
        }))
    }

    fn listed(&self) -> &[Reject] {
        &self.unlabelled
    }

    fn parts(&self) -> Option<&Parts> {
        self.parts.as_ref()
    }

    fn pixels(&self, index: usize) -> u64 {
        self.entries[index].mask.as_ref().ok().and_then(|path| declared_pixels(path)).unwrap_or(0)
    }
}

/// A photo's name, and what there is of a mask below the folder of masks.
type Pairs = Vec<(String, Option<Result<String, Reject>>)>;

/// The files with such endings below a folder: names by stem, `a/b` for `a/b.png`. A stem may have several.
fn below(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let is_hidden = |entry: &walkdir::DirEntry| entry.depth() > 0 && entry.file_name().as_encoded_bytes()[0] == b'.';
    for entry in WalkDir::new(folder).sort_by_file_name().into_iter().filter_entry(|entry| !is_hidden(entry)) {
        let entry = entry.map_err(|cause| {
            let path = cause.path().unwrap_or(folder).to_owned();
            Error::io("read", path)(cause.into())
        })?;
        let path = entry.path();
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if entry.file_type().is_dir() || !is_wanted(&ending) {
            continue;
        }
        let Some(name) = path.strip_prefix(folder).ok().and_then(Path::to_str) else {
            tracing::warn!("{} is passed over: its name is not UTF-8", path.display());
            continue;
        };
        found.entry(stem(name).to_owned()).or_default().push(name.to_owned());
    }
    Ok(found)
}

/// A name without its ending.
fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// Whether a mask is named after a checksum, as `ab/abcd....png`.
fn is_checksum(name: &str) -> bool {
    let Some((folder, name)) = name.split_once('/') else { return false };
    name.len() == CHECKSUM_LETTERS && name.bytes().all(|it| it.is_ascii_hexdigit()) && name.starts_with(folder)
}

/// Photos with the masks of their names.
fn by_name(mut photos: BTreeMap<String, Vec<String>>, masks: BTreeMap<String, Vec<String>>) -> Pairs {
    let mut pairs = Vec::new();
    for (stem, mut masks) in masks {
        let mask = masks.swap_remove(0);
        let Some(names) = photos.remove(&stem) else {
            pairs.push((format!("{stem}.jpg"), Some(Ok(mask))));
            continue;
        };
        let is_one = names.len() == 1;
        for name in names {
            let detail = "has a photo of the same name beside it, with another ending: the mask may be of either";
            let mask = if is_one { Ok(mask.clone()) } else { Err(Reject::new(&name, reason::NAME_DUPLICATE, detail)) };
            pairs.push((name, Some(mask)));
        }
    }
    pairs.extend(photos.into_values().flatten().map(|name| (name, None)));
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs
}

/// Photos with the masks of their contents.
fn by_checksum(
    folder: &Path,
    photos: &str,
    pictures: BTreeMap<String, Vec<String>>,
    masks: &BTreeMap<String, Vec<String>>,
) -> Result<Pairs> {
    let mut names: Vec<String> = pictures.into_values().flatten().collect();
    names.sort();
    let pair = |name: String| {
        let path = folder.join(photos).join(&name);
        if photo::stat(&path).is_err() {
            return Ok((name, None));
        }
        let (_, content) = files::checksum(&path)?;
        let mask = masks.get(&format!("{}/{content}", &content[..2])).map(|masks| Ok(masks[0].clone()));
        Ok((name, mask))
    };
    names.into_par_iter().map(pair).collect()
}

/// The parts of the photos by the lists of Pascal VOC, by name without ending; `None` without lists of parts.
fn part_lists(folder: &Path) -> Result<Option<HashMap<String, Split>>> {
    let lists = folder.join(PARTS);
    if !lists.is_dir() {
        return Ok(None);
    }
    let (mut parts, mut has_lists) = (HashMap::new(), false);
    for path in files::entries(&lists)? {
        let part = path.file_stem().and_then(|it| it.to_str()).and_then(format::split_named);
        let (Some(part), true) = (part, path.extension().is_some_and(|it| it == "txt")) else { continue };
        has_lists = true;
        for line in text(folder, &path)?.lines().map(str::trim).filter(|it| !it.is_empty()) {
            if let Some(other) = parts.insert(line.to_owned(), part).filter(|&other| other != part) {
                let problem = format!("lists '{}', as the list of {} does", line.escape_debug(), other.name());
                return Err(Error::input(&path, problem));
            }
        }
    }
    Ok(has_lists.then_some(parts))
}

/// The content of a list.
fn text(folder: &Path, path: &Path) -> Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let file = format::open(folder, path)?;
    let length = file.take(MAX_LIST_BYTES).read_to_string(&mut text);
    match length {
        Ok(length) if (length as u64) < MAX_LIST_BYTES => Ok(text.trim_start_matches('\u{feff}').to_owned()),
        Ok(_) => Err(Error::input(path, format!("has {MAX_LIST_BYTES} bytes or more; expected a list of names"))),
        Err(cause) if cause.kind() == std::io::ErrorKind::InvalidData => Err(Error::input(path, "is not UTF-8")),
        Err(cause) => Err(Error::io("read", path)(cause)),
    }
}

/// What indices and colours mean.
struct Categories {
    /// Number of categories.
    count: usize,
    by_index: Vec<u8>,
    by_color: HashMap<[u8; 3], u8>,
    /// Whether a palette's colours count, and not its indices.
    palette_counts: bool,
    void: Option<u8>,
}

impl Categories {
    fn read(folder: &Path, fold: &Fold) -> Result<Self> {
        let (void, count) = (fold.category(VOID_NAME), fold.labels().category_count());
        let (map, labels) = (folder.join(LABEL_MAP), folder.join(LABELS));
        if map.is_file() {
            let lines = label_map_lines(folder)?;
            let by_index = fold.categories(lines.iter().map(|(name, _)| name.as_str()), &map)?;
            let mut by_color: HashMap<[u8; 3], u8> = HashMap::new();
            for ((name, color), &category) in lines.iter().zip(&by_index) {
                if by_color.insert(*color, category).is_some_and(|other| other != category) {
                    let problem = format!("'{name}' has the colour {color:?}, as another name has");
                    return Err(Error::input(&map, problem));
                }
            }
            return Ok(Self { count, by_index, by_color, palette_counts: true, void });
        }
        if labels.is_file() {
            let by_index = fold.categories(label_lines(folder)?.iter().map(String::as_str), &labels)?;
            return Ok(Self { count, by_index, by_color: HashMap::new(), palette_counts: false, void });
        }
        if folder.join("SegmentationClass").is_dir() {
            return Err(Error::input(map, "is not there; it has a line for each category, 'name:r,g,b::'"));
        }
        let by_index: Vec<u8> = (0..count as u8).collect();
        let by_color = by_index.iter().map(|&it| (category_rgb(it), it)).collect();
        Ok(Self { count, by_index, by_color, palette_counts: false, void })
    }

    /// The label map of a picture.
    ///
    /// # Errors
    /// The first pixel that has no category.
    fn label_map(&self, picture: Picture) -> Result<LabelMap, String> {
        let Picture { width_px, height_px, pixels } = picture;
        let place = |pixel: usize| format!("at column {}, row {}", pixel % width_px, pixel / width_px);
        let categories: Vec<u8> = match pixels {
            Pixels::Indices(mut indices, palette) => {
                let mut of: [Option<u8>; 256] = std::array::from_fn(|index| self.of_index(index as u8));
                if let Some(palette) = palette.filter(|_| self.palette_counts) {
                    let color = |index: usize| palette.get(index).copied();
                    of = std::array::from_fn(|index| color(index).and_then(|color| self.of_color(color)));
                }
                for (pixel, index) in indices.iter_mut().enumerate() {
                    let category = of[usize::from(*index)];
                    *index = category.ok_or_else(|| format!("index {index} {} has no name", place(pixel)))?;
                }
                indices
            }
            Pixels::Colors(colors) => {
                if self.by_color.is_empty() {
                    return Err(format!("has colours and no indices; {LABEL_MAP} would name them"));
                }
                let mut last = ([0; 3], self.of_color([0; 3]));
                let mut category = |(pixel, color): (usize, &[u8])| {
                    let color = [color[0], color[1], color[2]];
                    if color != last.0 {
                        last = (color, self.of_color(color));
                    }
                    last.1.ok_or_else(|| format!("the colour {color:?} {} has no name", place(pixel)))
                };
                colors.chunks_exact(3).enumerate().map(&mut category).collect::<Result<_, _>>()?
            }
        };
        Ok(LabelMap { width_px, height_px, categories })
    }

    fn of_index(&self, index: u8) -> Option<u8> {
        self.by_index.get(usize::from(index)).copied().or(self.void.filter(|_| index == VOID.0))
    }

    fn of_color(&self, color: [u8; 3]) -> Option<u8> {
        self.by_color.get(&color).copied().or(self.void.filter(|_| color == VOID.1))
    }
}

/// The names of the categories of a folder, in order; those of the default label set if it does not say.
///
/// # Errors
/// As [`Masks::open`].
pub(super) fn own_labels(folder: &Path) -> Result<Result<LabelSet, String>> {
    let names: Vec<String> = if folder.join(LABEL_MAP).is_file() {
        label_map_lines(folder)?.into_iter().map(|(name, _)| name).collect()
    } else if folder.join(LABELS).is_file() {
        label_lines(folder)?
    } else {
        return Ok(Ok(LabelSet::cfpd()));
    };
    Ok(LabelSet::of_names(names.iter().map(String::as_str)))
}

fn label_map_lines(folder: &Path) -> Result<Vec<(String, [u8; 3])>> {
    let path = folder.join(LABEL_MAP);
    parse_label_map(&text(folder, &path)?).map_err(|problem| Error::input(&path, problem))
}

fn label_lines(folder: &Path) -> Result<Vec<String>> {
    let text = text(folder, &folder.join(LABELS))?;
    Ok(text.trim_end().lines().map(|line| line.trim().to_owned()).collect())
}

/// Names and colours; without any colour, those of Pascal VOC in order of the lines.
fn parse_label_map(text: &str) -> Result<Vec<(String, [u8; 3])>, String> {
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        if line.starts_with('#') {
            continue;
        }
        let mut fields = line.trim().split(':');
        let (name, color) = (fields.next().unwrap_or_default().trim(), fields.next().unwrap_or_default().trim());
        let numbers: Option<Vec<u8>> = color.split(',').map(|it| it.trim().parse().ok()).collect();
        let color = match numbers.as_deref() {
            Some(&[r, g, b]) => Some([r, g, b]),
            None if color.is_empty() => None,
            _ => return Err(format!("line {} is not 'name:r,g,b::'", number + 1)),
        };
        lines.push((name.to_owned(), color));
    }
    if lines.is_empty() {
        return Err("names no category; expected lines 'name:r,g,b::'".to_owned());
    }
    let has_none = lines.iter().all(|(_, color)| color.is_none());
    let colored = |(index, (name, color)): (usize, (String, Option<[u8; 3]>))| {
        let color = color.or_else(|| has_none.then(|| voc_color(index)));
        color.map(|color| (name.clone(), color)).ok_or_else(|| format!("'{name}' has no colour, but others have"))
    };
    lines.into_iter().enumerate().map(colored).collect()
}

/// The colour of an index in Pascal VOC: its bits, spread over the three channels from the highest down (VOC devkit,
/// `VOClabelcolormap`).
fn voc_color(index: usize) -> [u8; 3] {
    let channel = |first: usize| (0..8).map(|bit| (index >> (3 * bit + first) & 1) << (7 - bit)).sum::<usize>() as u8;
    [channel(0), channel(1), channel(2)]
}

/// The pixels of a mask.
enum Pixels {
    /// Of a palette or grey, with the palette.
    Indices(Vec<u8>, Option<Vec<[u8; 3]>>),
    /// `[height, width, 3]`.
    Colors(Vec<u8>),
}

/// A decoded mask.
struct Picture {
    width_px: usize,
    height_px: usize,
    pixels: Pixels,
}

impl Picture {
    /// Decodes a PNG file (ISO/IEC 15948).
    ///
    /// # Errors
    /// [`Error::Io`] if the file system fails.
    fn read(file: std::fs::File, file_name: &str, path: &Path) -> Result<Result<Self, Reject>> {
        let failed = |cause: png::DecodingError| match cause {
            png::DecodingError::IoError(cause) if cause.kind() != std::io::ErrorKind::UnexpectedEof => {
                Err(Error::io("read", path)(cause))
            }
            cause => Ok(Reject::new(file_name, reason::ENTRY_UNREADABLE, format!("{}: {cause}", path.display()))),
        };
        let bytes = (format::MAX_LABELLED_PIXELS * 8) as usize;
        let mut decoder = Decoder::new_with_limits(BufReader::new(file), Limits { bytes });
        decoder.set_transformations(Transformations::IDENTITY);
        let mut reader = match decoder.read_info() {
            Ok(reader) => reader,
            Err(cause) => return failed(cause).map(Err),
        };
        let info = reader.info();
        let (width_px, height_px, depth, kind) = (info.width, info.height, info.bit_depth, info.color_type);
        let palette = info.palette.as_ref().map(|it| it.as_chunks::<3>().0.to_vec());
        if let Err(reject) = format::blank(file_name, (width_px, height_px)) {
            return Ok(Err(reject));
        }
        if depth == BitDepth::Sixteen {
            let detail = format!("{}: has 16 bits per channel; masks have 8 or fewer", path.display());
            return Ok(Err(Reject::new(file_name, reason::ENTRY_UNREADABLE, detail)));
        }
        let size = reader.output_buffer_size().expect("the size is within the limit");
        let mut data = vec![0; size];
        if let Err(cause) = reader.next_frame(&mut data) {
            return failed(cause).map(Err);
        }
        let (width_px, height_px) = (width_px as usize, height_px as usize);
        let bits = depth as usize;
        let pixels = match kind {
            ColorType::Indexed | ColorType::Grayscale => {
                Pixels::Indices(unpacked(data, width_px, bits), palette.filter(|_| kind == ColorType::Indexed))
            }
            ColorType::GrayscaleAlpha => Pixels::Indices(data.chunks_exact(2).map(|it| it[0]).collect(), None),
            ColorType::Rgb => Pixels::Colors(data),
            ColorType::Rgba => Pixels::Colors(data.chunks_exact(4).flat_map(|it| [it[0], it[1], it[2]]).collect()),
        };
        Ok(Ok(Self { width_px, height_px, pixels }))
    }
}

/// One byte per pixel from rows of pixels of 1, 2, 4 or 8 bits, the first in the highest.
fn unpacked(data: Vec<u8>, width: usize, bits: usize) -> Vec<u8> {
    if bits == 8 {
        return data;
    }
    let pixel = |row: &[u8], column: usize| {
        let shift = 8 - bits - column * bits % 8;
        row[column * bits / 8] >> shift & ((1 << bits) - 1)
    };
    let rows = data.chunks_exact((width * bits).div_ceil(8));
    rows.flat_map(|row| (0..width).map(move |column| pixel(row, column))).collect()
}

/// The number of pixels that a PNG file declares.
fn declared_pixels(path: &Path) -> Option<u64> {
    use std::io::Read;
    let mut head = Vec::new();
    std::fs::File::open(path).ok()?.take(HEADER_BYTES).read_to_end(&mut head).ok()?;
    let number = |at: usize| Some(u64::from(u32::from_be_bytes(head.get(at..at + 4)?.try_into().ok()?)));
    Some(number(16)?.saturating_mul(number(20)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_colours_of_pascal_voc() {
        let colors: Vec<_> = [0, 1, 2, 3, 4, 7, 8, 20, 255].map(voc_color).into();
        let expected = [
            [0, 0, 0],
            [128, 0, 0],
            [0, 128, 0],
            [128, 128, 0],
            [0, 0, 128],
            [128, 128, 128],
            [64, 0, 0],
            [0, 64, 128],
            VOID.1,
        ];
        assert_eq!(colors, expected);
    }

    #[test]
    fn label_maps_have_colours_or_none() {
        let lines = parse_label_map("# label:color_rgb:parts:actions\nbk:0,0,0::\nskin:1, 2,3::\n").expect("two lines");
        assert_eq!(lines, [("bk".to_owned(), [0; 3]), ("skin".to_owned(), [1, 2, 3])]);
        assert_eq!(parse_label_map("bk:::\nskin:::\n").expect("two names")[1].1, [128, 0, 0]);
        for bad in ["", "a:1,2::\n", "a:1,2,256::\n", "a:0,0,0::\nb:::\n"] {
            assert!(parse_label_map(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pixels_of_fewer_bits_are_unpacked_row_by_row() {
        assert_eq!(unpacked(vec![0b1011_0000, 0b0110_0000], 4, 1), [1, 0, 1, 1, 0, 1, 1, 0]);
        assert_eq!(unpacked(vec![0b1101_1000, 0b0001_0000], 3, 2), [3, 1, 2, 0, 1, 0]);
        assert_eq!(unpacked(vec![0xAB, 0xC0], 3, 4), [10, 11, 12]);
    }
}
