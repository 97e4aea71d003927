//! The Colorful Fashion Parsing layout: one MATLAB v7.3 file (HDF5 after a 512-byte header) and a folder of photos.
//!
//! Input: `fashion_dataset`, a cell array of references to structs with `img_name`, `segmentation` (f32, column-major,
//! 0-based superpixel numbers), `category_label` and `color_label` (1-based, by superpixel). Output: one [`Annotation`]
//! per photo, read on demand and possibly from several threads at once; only what is requested is in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hdf5_pure::{DType, Dataset, FormatError, Group, Object, Source};

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

/// Maximum number of elements in a chunk; limits what a damaged file can request.
const MAX_CHUNK_ELEMENTS: u64 = 1 << 24;

/// An opened `fashon_parsing_data.mat`.
pub struct Cfpd {
    entries: Vec<Option<Group>>,
    file_bytes: u64,
}

impl std::fmt::Debug for Cfpd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cfpd").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Cfpd {
    /// Opens the file, checks its two name lists against [`crate::labels`] and locates its entries.
    ///
    /// # Errors
    /// [`Error::Input`] with the file's name if it is damaged, is some other file, or has other name lists.
    pub fn open(path: &Path) -> Result<Self> {
        check_header(path, Version::V73)?;
        let damaged = |cause: &dyn std::fmt::Display| {
            Error::input(path, format!("is damaged or cut off ({cause}); download the file again"))
        };
        let source = PositionedFile::open(path)?;
        let file_bytes = source.bytes;
        guard::no_panic(|| {
            let file = hdf5_pure::File::from_source(source).map_err(|cause| damaged(&cause))?;
            let whole_bytes = file.superblock().eof_address;
            if whole_bytes > file_bytes {
                return Err(damaged(&format!("it has {file_bytes} of {whole_bytes} bytes")));
            }
            check_names(path, file_bytes, &file, "all_category_name", &CATEGORIES)?;
            check_names(path, file_bytes, &file, "all_colors_name", &COLORS)?;
            let entries = references(path, file_bytes, &file, "fashion_dataset")?;
            if entries.is_empty() {
                return Err(Error::input(path, "'fashion_dataset' has no entries; expected one for each photo"));
            }
            let group = |object| if let Object::Group(group) = object { Some(group) } else { None };
            Ok(Self { entries: entries.into_iter().map(group).collect(), file_bytes })
        })
        .unwrap_or_else(|panic| Err(damaged(&panic)))
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries; never true for an opened file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Reads one entry; `index` is 0-based.
    ///
    /// # Errors
    /// A [`Reject`] that names the photo, or the entry if the name itself is invalid.
    pub fn annotation(&self, index: usize) -> Result<Annotation, Reject> {
        // MATLAB's indices are 1-based.
        let entry = format!("fashion_dataset{{{}}}", index + 1);
        let group = self.entries.get(index).and_then(Option::as_ref);
        let group = group.ok_or_else(|| Reject::new(&entry, reason::ENTRY_UNREADABLE, "is not a struct"))?;
        let fields = Fields { group, file_bytes: self.file_bytes };
        guard::no_panic(|| read_entry(&fields, &entry))
            .unwrap_or_else(|panic| Err(Reject::new(entry.as_str(), reason::ENTRY_UNREADABLE, panic)))
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
    let set = fields.open(entry, "img_name")?;
    let shape = shape(&set, entry, "img_name")?;
    let length = count(&shape);
    // MATLAB stores an empty char array as its dimensions, two u64.
    if length == 0 || !matches!(set.dtype(), Ok(DType::U16)) {
        return Err(Reject::new(entry, reason::NAME_UNSAFE, "'img_name' is empty or not text"));
    }
    if length > MAX_NAME {
        return Err(Reject::new(
            entry,
            reason::NAME_UNSAFE,
            format!("'img_name' has {length} characters; at most {MAX_NAME} are allowed"),
        ));
    }
    let units = set.read_u16().map_err(|cause| unreadable(entry, "img_name", &cause))?;
    let name = String::from_utf16(&units)
        .map_err(|_| Reject::new(entry, reason::NAME_UNSAFE, "'img_name' is not UTF-16 text"))?;
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
    let set = fields.open(item, name)?;
    let shape = shape(&set, item, name)?;
    if !(1..=MAX_SUPERPIXELS).contains(&count(&shape)) || shape.iter().filter(|&&edge| edge != 1).count() > 1 {
        let detail = format!("'{name}' has the shape {shape:?}; expected one label for each superpixel");
        return Err(Reject::new(item, reason::FIELD_SHAPE, detail));
    }
    let values = numbers(&set, item, name)?;
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
    let set = fields.open(item, "segmentation")?;
    let shape = shape(&set, item, "segmentation")?;
    // HDF5 reports the axes of a column-major array in reverse: MATLAB's 600 x 400 is (400, 600).
    let &[width, height] = shape.as_slice() else {
        return Err(Reject::new(
            item,
            reason::FIELD_SHAPE,
            format!("'segmentation' has the shape {shape:?}; expected two axes"),
        ));
    };
    if !(1..=MAX_EDGE_PX).contains(&width) || !(1..=MAX_EDGE_PX).contains(&height) {
        let detail = format!("'segmentation' is {height} x {width}; expected 1 to {MAX_EDGE_PX} for each edge");
        return Err(Reject::new(item, reason::FIELD_SHAPE, detail));
    }
    let values = match set.dtype() {
        Ok(DType::F32) => set.read_f32().map_err(|cause| unreadable(item, "segmentation", &cause))?,
        // Integers up to 2^24 are exact in f32; larger ones are rejected below.
        _ => numbers(&set, item, "segmentation")?.into_iter().map(|value| value as f32).collect(),
    };
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
    group: &'a Group,
    file_bytes: u64,
}

impl Fields<'_> {
    fn open(&self, item: &str, name: &str) -> Result<Dataset, Reject> {
        let set = self.group.dataset(name).map_err(|cause| match cause {
            hdf5_pure::Error::Format(FormatError::PathNotFound(_)) => {
                Reject::new(item, reason::FIELD_MISSING, format!("the field '{name}' is missing"))
            }
            cause => unreadable(item, name, &cause),
        })?;
        match storage_problem(&set, self.file_bytes) {
            None => Ok(set),
            Some(problem) => Err(Reject::new(item, reason::ENTRY_UNREADABLE, format!("'{name}' {problem}"))),
        }
    }
}

/// Describes what is wrong with the chunk locations that a dataset declares. Otherwise the reader would reserve memory
/// for whatever size a damaged file declares.
fn storage_problem(set: &Dataset, file_bytes: u64) -> Option<String> {
    if !set.is_chunked() {
        return None;
    }
    let shape = set.chunk_shape().ok().flatten().unwrap_or_default();
    let elements = shape.iter().try_fold(1_u64, |product, &edge| product.checked_mul(edge));
    if !elements.is_some_and(|elements| (1..=MAX_CHUNK_ELEMENTS).contains(&elements)) {
        return Some(format!("has chunks of {shape:?} elements"));
    }
    let chunks = match set.chunks() {
        Ok(chunks) => chunks,
        Err(cause) => return Some(format!("has no list of its chunks: {cause}")),
    };
    let beyond = |end: Option<u64>| end.is_none_or(|end| end > file_bytes);
    let bad = chunks.iter().find(|chunk| beyond(chunk.address.checked_add(chunk.storage_size)))?;
    Some(format!("has a chunk of {} bytes at {}, beyond the end of the file", bad.storage_size, bad.address))
}

fn shape(set: &Dataset, item: &str, name: &str) -> Result<Vec<u64>, Reject> {
    set.shape().map_err(|cause| unreadable(item, name, &cause))
}

/// Number of elements; saturates, because a damaged shape may overflow.
fn count(shape: &[u64]) -> u64 {
    shape.iter().fold(1, |count, &edge| count.saturating_mul(edge))
}

fn numbers(set: &Dataset, item: &str, name: &str) -> Result<Vec<f64>, Reject> {
    let numeric = match set.dtype() {
        Ok(DType::F32 | DType::F64) => true,
        Ok(kind) => [DType::U8, DType::I8, DType::U16, DType::I16, DType::U32, DType::I32, DType::U64, DType::I64]
            .contains(&kind),
        Err(_) => false,
    };
    if !numeric {
        return Err(Reject::new(item, reason::FIELD_SHAPE, format!("'{name}' does not contain numbers")));
    }
    set.read_f64().map_err(|cause| unreadable(item, name, &cause))
}

fn unreadable(item: &str, name: &str, cause: &hdf5_pure::Error) -> Reject {
    Reject::new(item, reason::ENTRY_UNREADABLE, format!("'{name}' cannot be read: {cause}"))
}

/// The objects referenced by the cell array `name`.
fn references(path: &Path, file_bytes: u64, file: &hdf5_pure::File, name: &str) -> Result<Vec<Object>> {
    let set = file.dataset(name).map_err(|cause| match cause {
        hdf5_pure::Error::Format(FormatError::PathNotFound(_)) => {
            Error::input(path, format!("has no variable '{name}'; expected the Colorful Fashion Parsing data set"))
        }
        cause => {
            Error::input(path, format!("'{name}' cannot be read ({cause}); the file is damaged, download it again"))
        }
    })?;
    if let Some(problem) = storage_problem(&set, file_bytes) {
        return Err(Error::input(path, format!("'{name}' {problem}; the file is damaged, download it again")));
    }
    set.dereference().map_err(|cause| {
        Error::input(
            path,
            format!("'{name}' is not a complete cell array ({cause}); the file is damaged, download it again"),
        )
    })
}

/// Labels are indices into these lists: with other lists every label would be wrong.
fn check_names(path: &Path, file_bytes: u64, file: &hdf5_pure::File, variable: &str, expected: &[&str]) -> Result<()> {
    let text = |object: Object| {
        let Object::Dataset(set) = object else { return String::from("?") };
        let short =
            storage_problem(&set, file_bytes).is_none() && set.shape().is_ok_and(|shape| count(&shape) <= MAX_NAME);
        let units = if short { set.read_u16().unwrap_or_default() } else { Vec::new() };
        // A damaged file may contain anything here; escape it so that the message is printable.
        String::from_utf16_lossy(&units).escape_debug().to_string()
    };
    let found: Vec<String> = references(path, file_bytes, file, variable)?.into_iter().map(text).collect();
    if found == expected {
        return Ok(());
    }
    Err(Error::input(path, format!("'{variable}' is [{}]; expected [{}]", found.join(", "), expected.join(", "))))
}

/// A file that many threads read at arbitrary offsets at once, without a lock or a copy in memory.
struct PositionedFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl PositionedFile {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let bytes = file.metadata().map_err(Error::io("read", path))?.len();
        Ok(Self { path: path.to_owned(), file, bytes })
    }
}

impl Source for PositionedFile {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FormatError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|cause| FormatError::Source(format!("{} at byte {offset}: {cause}", self.path.display())))
    }
}
