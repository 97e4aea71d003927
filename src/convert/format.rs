//! What every format of a source gives, and what the formats have in common.

use std::path::{Component, Path, PathBuf};

use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::features;
use crate::mask::LabelMap;
use crate::mat::Annotation;
use crate::reason;
use crate::rejects::Reject;

/// Maximum number of pixels of a photo with labels: a batch of them goes into one column of lists, whose offsets have 31
/// bits.
pub(super) const MAX_LABELLED_PIXELS: u64 = (1 << 26) - 1;
/// The folder of photos of COCO and Label Studio.
pub(super) const IMAGES: &str = "images";
/// Largest number of regions that the tables can number.
const MAX_REGIONS: usize = 1 << 16;

/// A source in one format: entries by number, read from several threads at once.
pub(super) trait Format: Send + Sync {
    /// Number of entries.
    fn len(&self) -> usize;

    /// The labels of a photo, or why it has none; fails if the file system does.
    fn annotation(&self, index: usize) -> Result<Result<Annotation, Reject>>;

    /// What else is listed as left out, and is not counted among the photos.
    fn listed(&self) -> &[Reject] {
        &[]
    }

    /// The source's own parts, if it has some.
    fn parts(&self) -> Option<&Parts> {
        None
    }

    /// Number of pixels of an entry, as far as it is known before it is read.
    fn pixels(&self, _index: usize) -> u64 {
        0
    }
}

/// The parts of a source's entries.
pub(super) struct Parts(Vec<Option<Split>>);

impl Parts {
    /// The parts of entries, unless all are of one part or of none: then there is nothing that is apart.
    pub(super) fn new(of_entries: impl Iterator<Item = Option<Split>>) -> Option<Self> {
        let splits: Vec<_> = of_entries.collect();
        let mut found: Vec<_> = splits.iter().flatten().collect();
        found.dedup();
        (found.len() > 1).then_some(Self(splits))
    }

    /// The part of an entry.
    pub(super) fn of(&self, index: usize) -> Option<Split> {
        self.0[index]
    }

    /// Checks that an entry is in a part.
    pub(super) fn check(&self, index: usize, file_name: &str) -> Result<(), Reject> {
        let problem = || "is in none of the source's parts (train, val, test), but others are";
        self.of(index).map(drop).ok_or_else(|| Reject::new(file_name, reason::NO_SPLIT, problem()))
    }
}

/// A label that is painted onto the label map of its photo.
pub(super) trait Label: Send + Sync {
    /// Paints it.
    ///
    /// # Errors
    /// The reason and the detail of a reject.
    fn paint(&self, map: &mut LabelMap) -> Result<(), (&'static str, String)>;
}

/// A photo and what is to be painted on its label map; later labels over earlier ones.
pub(super) struct Entry<L> {
    pub(super) file_name: String,
    /// Width and height.
    pub(super) size: (u32, u32),
    /// What is wrong with the entry itself.
    pub(super) reject: Option<Reject>,
    pub(super) labels: Vec<L>,
}

/// A source whose label maps are painted when they are asked for.
pub(super) struct Painted<L> {
    pub(super) entries: Vec<Entry<L>>,
    pub(super) parts: Option<Parts>,
    pub(super) listed: Vec<Reject>,
    /// Number of categories.
    pub(super) categories: usize,
}

impl<L: Label> Painted<L> {
    fn label_map(&self, index: usize) -> Result<LabelMap, Reject> {
        let Entry { file_name, size, reject, labels } = &self.entries[index];
        self.parts.as_ref().map_or(Ok(()), |it| it.check(index, file_name))?;
        reject.as_ref().map_or(Ok(()), |it| Err(it.clone()))?;
        let mut map = blank(file_name, *size)?;
        for label in labels {
            label.paint(&mut map).map_err(|(reason, detail)| Reject::new(file_name, reason, detail))?;
        }
        Ok(map)
    }
}

impl<L: Label> Format for Painted<L> {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn annotation(&self, index: usize) -> Result<Result<Annotation, Reject>> {
        let file_name = self.entries[index].file_name.clone();
        Ok(self.label_map(index).map(|map| by_regions(file_name, &map, self.categories)))
    }

    fn listed(&self) -> &[Reject] {
        &self.listed
    }

    fn parts(&self) -> Option<&Parts> {
        self.parts.as_ref()
    }

    fn pixels(&self, index: usize) -> u64 {
        let (width, height) = self.entries[index].size;
        u64::from(width) * u64::from(height)
    }
}

/// The labels of a photo by their regions: the connected pixels of one of `categories`, or all of a category if there are
/// too many.
pub(super) fn by_regions(file_name: String, map: &LabelMap, categories: usize) -> Annotation {
    let regions = features::regions(&map.categories, map.width_px, MAX_REGIONS);
    let (superpixels, superpixel_category) = regions.unwrap_or_else(|| {
        let numbers = map.categories.iter().map(|&it| u16::from(it)).collect();
        (numbers, (0..categories as u8).collect())
    });
    Annotation {
        file_name,
        width_px: map.width_px as u32,
        height_px: map.height_px as u32,
        superpixels,
        superpixel_category,
        superpixel_color: None,
    }
}

/// A label map of this size to paint on, unless it is too large.
pub(super) fn blank(file_name: &str, (width_px, height_px): (u32, u32)) -> Result<LabelMap, Reject> {
    let pixels = u64::from(width_px) * u64::from(height_px);
    if pixels == 0 || pixels > MAX_LABELLED_PIXELS {
        let detail = format!("its labels have {width_px} x {height_px} pixels; 1 to {MAX_LABELLED_PIXELS} are allowed");
        let reason = if pixels == 0 { reason::ENTRY_UNREADABLE } else { reason::TOO_LARGE };
        return Err(Reject::new(file_name, reason, detail));
    }
    Ok(LabelMap::new(width_px, height_px))
}

/// The part of a data set that a folder or a list of this name holds.
pub(super) fn split_named(name: &str) -> Option<Split> {
    match name.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(Split::Train),
        "val" | "valid" | "validation" => Some(Split::Validation),
        "test" | "testing" => Some(Split::Test),
        _ => None,
    }
}

/// The part of a data set that the first folder of a photo's name holds.
pub(super) fn split_of_folder(file_name: &str) -> Option<Split> {
    file_name.split_once('/').and_then(|(first, _)| split_named(first))
}

/// Checks that a name leads to a file below a folder, as `a/b.jpg`.
pub(super) fn check_name(name: &str, source: &str) -> Result<(), Reject> {
    let path = Path::new(name);
    let is_plain =
        |part: Component| matches!(part, Component::Normal(part) if !part.as_encoded_bytes().starts_with(b"."));
    let is_fine = !name.trim().is_empty()
        && !name.contains(['\\', ':'])
        && !name.chars().any(char::is_control)
        && name.len() < 1024
        && !name.ends_with('/')
        && path.components().all(is_plain);
    if is_fine {
        return Ok(());
    }
    let shown: String = name.escape_debug().take(255).collect();
    let detail = format!("{source} has the photo \"{shown}\", which is not the name of a file in the source's photos");
    Err(Reject::new(shown, reason::NAME_UNSAFE, detail))
}

/// The files `*.json` of a folder, in the order of their names; none without a folder.
pub(super) fn json_files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = crate::files::entries(folder)?;
    files.retain(|path| {
        let is_hidden = path.file_name().is_some_and(|it| it.as_encoded_bytes().starts_with(b"."));
        !is_hidden && path.extension().is_some_and(|it| it.eq_ignore_ascii_case("json")) && path.is_file()
    });
    files.sort();
    Ok(files)
}

/// Opens a file of the source in `folder` to read.
pub(super) fn open(folder: &Path, path: &Path) -> Result<std::fs::File> {
    if let Some(target) = crate::mat::link_out_of(folder, path)? {
        return Err(Error::input(path, format!("is a link out of the source, to {}", target.display())));
    }
    std::fs::File::open(path).map_err(Error::io("open", path))
}

/// Reads a JSON file of the source in `folder` as it streams in.
///
/// # Errors
/// [`Error::Input`] if it is cut off or of another form, with the line; [`Error::Io`].
pub(super) fn read_json<T: serde::de::DeserializeOwned>(folder: &Path, path: &Path, form: &str) -> Result<T> {
    let reader = std::io::BufReader::with_capacity(1 << 20, open(folder, path)?);
    serde_json::from_reader(reader).map_err(|cause| {
        if cause.is_io() {
            return Error::io("read", path)(cause.into());
        }
        let what = if cause.is_eof() { "is cut off" } else { "cannot be read" };
        Error::input(path, format!("{what}; expected {form}")).because(cause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_files_below() {
        for good in ["a.jpg", "train/ä b.jpg", "a/b/c.png"] {
            assert!(check_name(good, "x").is_ok(), "{good}");
        }
        for bad in ["", " ", "/a.jpg", "../a.jpg", "a/../b.jpg", "./a.jpg", "a\\b.jpg", "C:a.jpg", ".a", "a/", "a\0"] {
            assert!(check_name(bad, "x").is_err(), "{bad:?}");
        }
        assert!(check_name(&"n".repeat(2000), "x").is_err());
    }

    #[test]
    fn one_part_alone_is_none() {
        let (train, test) = (Some(Split::Train), Some(Split::Test));
        let parts = |of_entries: [Option<Split>; 3]| Parts::new(of_entries.into_iter()).map(|it| it.0);
        assert_eq!(parts([train, None, train]), None);
        assert_eq!(parts([train, None, test]), Some(vec![train, None, test]));
    }
}
