//! The Colorful Fashion Parsing layout: one MATLAB v7.3 file (HDF5 after a 512-byte header) and a folder of photos.
//!
//! Input: `fashion_dataset`, a cell array of references to structs, or a struct array, with `img_name`, `segmentation`
//! (f32, column-major, 0-based superpixel numbers), `category_label` and `color_label` (1-based, by superpixel).
//! Output: one [`Annotation`] per photo, read on demand and possibly from several threads at once; only what is
//! requested is in memory.

use std::collections::BTreeMap;
use std::path::Path;

use super::bytes::UNDEFINED;
use super::field::Field;
use super::objects::Objects;
use super::{Annotation, Version, check_header};
use crate::error::{Error, Result};
use crate::labels::{CATEGORIES, COLORS};
use crate::rejects::Reject;
use crate::{guard, reason};

/// Name of the `.mat` file, as the data set spells it.
pub const FILE: &str = "fashon_parsing_data.mat";
/// Name of the folder of photos.
pub const IMAGES: &str = "image";
/// Maximum length of a name in characters.
const MAX_NAME: u64 = 255;
/// Maximum number of superpixels per photo: their numbers are stored in 16 bits.
const MAX_SUPERPIXELS: u64 = 1 << 16;
/// Maximum length of an edge in pixels; limits what a damaged file can request.
const MAX_EDGE_PX: u64 = 8192;

/// The variable that lists the photos.
const ENTRIES: &str = "fashion_dataset";
/// The fields of a photo.
const FIELDS: [&str; 4] = ["img_name", "segmentation", "category_label", "color_label"];

/// An opened `fashon_parsing_data.mat`.
pub struct Cfpd {
    objects: Objects,
    entries: Entries,
}

/// How the photos are stored.
enum Entries {
    /// A cell array: the address of each struct, 0 if its reference is null.
    Cell(Vec<u64>),
    /// A struct array: for each field, the address of each photo's value.
    Structs(BTreeMap<&'static str, Vec<u64>>),
    /// A single struct.
    Struct(u64),
}

impl std::fmt::Debug for Cfpd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cfpd").field("entries", &self.len()).finish_non_exhaustive()
    }
}

impl Cfpd {
    /// Opens the file, checks its two name lists against [`crate::labels`] and locates its entries.
    ///
    /// # Errors
    /// [`Error::Input`] with the file's name if it cannot be read, is some other file, or has other name lists;
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        check_header(path, Version::V73)?;
        let refused = |problem: String| Error::input(path, problem);
        guard::no_panic(|| {
            let objects = Objects::open(path)?;
            let opened = (|| {
                check_names(&objects, "all_category_name", &CATEGORIES)?;
                check_names(&objects, "all_colors_name", &COLORS)?;
                let entries = Entries::find(&objects)?;
                if entries.len() == 0 {
                    return Err(format!("'{ENTRIES}' has no entries; expected one for each photo"));
                }
                Ok(entries)
            })();
            objects.check()?;
            Ok(Self { entries: opened.map_err(refused)?, objects })
        })
        .unwrap_or_else(|panic| Err(refused(format!("cannot be read ({panic})"))))
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries; never true for an opened file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads one entry; `index` is 0-based. The inner result is a [`Reject`] that names the photo, or the entry if the
    /// name itself is invalid.
    ///
    /// # Errors
    /// [`Error::Io`] if the file system fails, which says nothing about the entry.
    pub fn annotation(&self, index: usize) -> Result<Result<Annotation, Reject>> {
        // MATLAB's indices are 1-based.
        let entry = format!("{ENTRIES}{{{}}}", index + 1);
        let read = guard::no_panic(|| {
            let fields = Fields::of(self, index).map_err(|problem| unreadable(&entry, problem))?;
            read_entry(&fields, &entry)
        });
        self.objects.check()?;
        Ok(read.unwrap_or_else(|panic| Err(unreadable(&entry, panic))))
    }
}

impl Entries {
    fn find(objects: &Objects) -> Result<Self, String> {
        let place = variable(objects, ENTRIES)?;
        let explained = |problem| format!("'{ENTRIES}' {problem}");
        if !objects.is_group(place).map_err(explained)? {
            let field = objects.dataset(place).and_then(|set| Field::new(set, objects.bytes.len()));
            return field.and_then(|field| field.references()).map(Self::Cell).map_err(explained);
        }
        let mut fields = BTreeMap::new();
        for name in FIELDS {
            let explained = |problem| format!("'{ENTRIES}.{name}' {problem}");
            let Some(place) = objects.find(place, name).map_err(explained)? else { continue };
            let set = objects.dataset(place).map_err(explained)?;
            let field = Field::new(set, objects.bytes.len()).map_err(explained)?;
            if field.has_references() || field.count == 0 {
                fields.insert(name, field.references().map_err(explained)?);
            }
        }
        Ok(if fields.is_empty() { Self::Struct(place) } else { Self::Structs(fields) })
    }

    fn len(&self) -> usize {
        match self {
            Self::Cell(structs) => structs.len(),
            Self::Structs(fields) => fields.values().map(Vec::len).max().unwrap_or_default(),
            Self::Struct(_) => 1,
        }
    }
}

fn read_entry(fields: &Fields, entry: &str) -> Result<Annotation, Reject> {
    let file_name = read_name(fields, entry)?;
    let item = file_name.as_str();
    let superpixel_category = read_labels(fields, item, "category_label", CATEGORIES.len(), reason::CATEGORY_INVALID)?;
    let superpixel_color = read_labels(fields, item, "color_label", COLORS.len(), reason::COLOR_INVALID)?;
    let labelled = superpixel_category.len().min(superpixel_color.len());
    let (width_px, height_px, superpixels) = read_segmentation(fields, item, labelled)?;
    Ok(Annotation {
        file_name,
        width_px,
        height_px,
        superpixels,
        superpixel_category,
        superpixel_color: Some(superpixel_color),
    })
}

fn read_name(fields: &Fields, entry: &str) -> Result<String, Reject> {
    let invalid = |problem| Reject::new(entry, reason::NAME_UNSAFE, format!("'img_name' {problem}"));
    let name = fields.open(entry, "img_name")?.text(MAX_NAME).map_err(invalid)?;
    let plain = !name.contains(['/', '\\', ':']) && !name.chars().any(char::is_control);
    if !plain || name.trim().is_empty() || name.starts_with('.') {
        let detail = format!("'img_name' of {entry} is {name:?}, which is not a plain file name inside {IMAGES}/");
        return Err(Reject::new(name.escape_debug().to_string(), reason::NAME_UNSAFE, detail));
    }
    Ok(name)
}

/// The labels of all superpixels, converted to 0-based.
fn read_labels(
    fields: &Fields,
    item: &str,
    name: &str,
    names: usize,
    invalid: &'static str,
) -> Result<Vec<u8>, Reject> {
    let field = fields.open(item, name)?;
    let shape = &field.shape;
    if !(1..=MAX_SUPERPIXELS).contains(&field.count) || shape.iter().filter(|&&edge| edge != 1).count() > 1 {
        let detail = format!("'{name}' has the shape {shape:?}; expected one label for each superpixel");
        return Err(Reject::new(item, reason::FIELD_SHAPE, detail));
    }
    check_numbers(&field, item, name)?;
    let values = field.numbers().map_err(|problem| unreadable(item, format!("'{name}' {problem}")))?;
    let label = |(superpixel, value): (usize, f64)| {
        if value.fract() == 0.0 && (1.0..=names as f64).contains(&value) {
            return Ok((value - 1.0) as u8);
        }
        let detail = format!("'{name}' of superpixel {superpixel} is {value}; expected 1 to {names}");
        Err(Reject::new(item, invalid, detail))
    };
    values.into_iter().enumerate().map(label).collect()
}

/// Width, height, and the superpixel numbers `[height, width]`.
fn read_segmentation(fields: &Fields, item: &str, labelled: usize) -> Result<(u32, u32, Vec<u16>), Reject> {
    let field = fields.open(item, "segmentation")?;
    // HDF5 reports the axes of a column-major array in reverse: MATLAB's 600 x 400 is (400, 600).
    let &[width, height] = field.shape.as_slice() else {
        let detail = format!("'segmentation' has the shape {:?}; expected two axes", field.shape);
        return Err(Reject::new(item, reason::FIELD_SHAPE, detail));
    };
    if !(1..=MAX_EDGE_PX).contains(&width) || !(1..=MAX_EDGE_PX).contains(&height) {
        let detail = format!("'segmentation' is {height} x {width}; expected 1 to {MAX_EDGE_PX} for each edge");
        return Err(Reject::new(item, reason::FIELD_SHAPE, detail));
    }
    check_numbers(&field, item, "segmentation")?;
    // Integers up to 2^24 are exact in f32; larger ones are rejected below.
    let values = field.numbers_f32().map_err(|problem| unreadable(item, format!("'segmentation' {problem}")))?;
    let (width, height) = (width as usize, height as usize);
    if values.len() != width * height {
        let detail = format!("'segmentation' has {} numbers instead of {}", values.len(), width * height);
        return Err(Reject::new(item, reason::FIELD_SHAPE, detail));
    }
    let mut superpixels = vec![0; width * height];
    for (x, column) in values.chunks_exact(height).enumerate() {
        for (y, &value) in column.iter().enumerate() {
            let number = value as u16;
            if f32::from(number) != value || usize::from(number) >= labelled {
                return Err(bad_superpixel(item, value, x, y, labelled));
            }
            superpixels[y * width + x] = number;
        }
    }
    Ok((width as u32, height as u32, superpixels))
}

fn bad_superpixel(item: &str, value: f32, x: usize, y: usize, labelled: usize) -> Reject {
    let whole = value >= 0.0 && value.fract() == 0.0;
    let code = if whole { reason::SUPERPIXEL_UNLABELLED } else { reason::SUPERPIXEL_INVALID };
    let detail = format!("superpixel {value} at column {x}, row {y}; only 0 to {} have labels", labelled - 1);
    Reject::new(item, code, detail)
}

/// The fields of one entry.
struct Fields<'a> {
    objects: &'a Objects,
    values: Values<'a>,
}

enum Values<'a> {
    /// The members of a group.
    Group(u64),
    /// One row of the lists of a struct array.
    Row(&'a BTreeMap<&'static str, Vec<u64>>, usize),
}

impl<'a> Fields<'a> {
    fn of(file: &'a Cfpd, index: usize) -> Result<Self, String> {
        let (objects, of) = (&file.objects, |values| Self { objects: &file.objects, values });
        match &file.entries {
            Entries::Structs(fields) => Ok(of(Values::Row(fields, index))),
            Entries::Struct(place) => Ok(of(Values::Group(*place))),
            Entries::Cell(structs) => match structs.get(index) {
                None | Some(0 | &UNDEFINED) => Err("is a null reference".to_owned()),
                Some(&place) => match objects.is_group(place) {
                    Ok(true) => Ok(of(Values::Group(place))),
                    Ok(false) => Err("is not a struct".to_owned()),
                    Err(problem) => Err(format!("is a reference that leads nowhere: {problem}")),
                },
            },
        }
    }

    fn open(&self, item: &str, name: &str) -> Result<Field, Reject> {
        let cannot = |problem| unreadable(item, format!("'{name}' {problem}"));
        let place = match self.values {
            Values::Group(group) => self.objects.find(group, name).map_err(cannot)?,
            Values::Row(fields, index) => fields.get(name).and_then(|places| places.get(index)).copied(),
        };
        match place {
            None => Err(Reject::new(item, reason::FIELD_MISSING, format!("the field '{name}' is missing"))),
            Some(0 | UNDEFINED) => Err(cannot("is a null reference".to_owned())),
            Some(place) => {
                let set = self.objects.dataset(place).map_err(cannot)?;
                Field::new(set, self.objects.bytes.len()).map_err(cannot)
            }
        }
    }
}

fn check_numbers(field: &Field, item: &str, name: &str) -> Result<(), Reject> {
    if field.has_numbers() {
        return Ok(());
    }
    Err(Reject::new(item, reason::FIELD_SHAPE, format!("'{name}' does not contain numbers")))
}

fn unreadable(item: &str, problem: impl std::fmt::Display) -> Reject {
    Reject::new(item, reason::ENTRY_UNREADABLE, problem)
}

/// The address of a variable.
fn variable(objects: &Objects, name: &str) -> Result<u64, String> {
    let place = objects.find(objects.root(), name).map_err(|problem| format!("'{name}' {problem}"))?;
    place.ok_or_else(|| format!("has no variable '{name}'; expected the Colorful Fashion Parsing data set"))
}

/// Labels are indices into these lists: with other lists every label would be wrong.
fn check_names(objects: &Objects, variable_name: &str, expected: &[&str]) -> Result<(), String> {
    let field = |place| objects.dataset(place).and_then(|set| Field::new(set, objects.bytes.len()));
    let list = field(variable(objects, variable_name)?).and_then(|list| list.references());
    let names = list.map_err(|problem| format!("'{variable_name}' {problem}"))?;
    if names.len() != expected.len() {
        return Err(format!("'{variable_name}' has {} names; expected {}", names.len(), expected.len()));
    }
    let text = |place| match field(place).and_then(|field| field.text(MAX_NAME)) {
        // The file may contain anything here; escape it so that the message is printable.
        Ok(name) => name.escape_debug().to_string(),
        Err(problem) => format!("({problem})"),
    };
    let found: Vec<String> = names.into_iter().map(text).collect();
    if found == expected {
        return Ok(());
    }
    Err(format!("'{variable_name}' is [{}]; expected [{}]", found.join(", "), expected.join(", ")))
}
