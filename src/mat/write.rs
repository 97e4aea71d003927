//! Writes `fashon_parsing_data.mat` in the layout of the original.

use std::path::Path;

use super::Annotation;
use super::hdf5::{Attribute, Chunks, OldFile, Type};
use crate::error::{Error, Result};
use crate::labels::{CATEGORIES, COLORS};

/// Length of the label vectors, regardless of the number of superpixels.
const LABELS: usize = 425;
/// The deflate level that MATLAB uses.
const DEFLATE_LEVEL: u32 = 3;
/// The header text, with a fixed time so that equal data give equal files.
const HEADER: &str = "MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Jan  1 00:00:00 1970 HDF5 schema 1.00 .";

/// One photo's entry, with its segmentation deflated.
#[derive(Debug)]
pub struct LabelledPhoto {
    file_name: String,
    labels: [Vec<u8>; 2],
    segmentation: Chunks,
}

impl LabelledPhoto {
    /// Deflates the labels of one photo. If the photo has no colours, all are written as `bk`.
    ///
    /// # Errors
    /// Those of the deflate encoder.
    pub fn new(annotation: &Annotation) -> std::io::Result<Self> {
        let (width, height) = (annotation.width_px as usize, annotation.height_px as usize);
        let number = |column: usize, row: usize| f32::from(annotation.superpixels[row * width + column]);
        let colors = annotation.superpixel_color.clone().unwrap_or_default();
        Ok(Self {
            file_name: annotation.file_name.clone(),
            labels: [annotation.superpixel_category.clone(), colors],
            // HDF5 reports the axes of a column-major array in reverse.
            segmentation: Chunks::deflate([width, height], DEFLATE_LEVEL, number)?,
        })
    }
}

/// Writes the file.
///
/// By hand, through `OldFile`: `hdf5-pure` 0.47 writes superblock 2 or 3, new-style groups and, for chunks, the indices
/// of HDF5 1.10. The original has superblock 0, symbol-table groups and version 1 B-trees, which that crate only reads,
/// and the sample is to exercise the same reading code as the original.
///
/// # Errors
/// [`Error::Io`].
pub fn write_cfpd(path: &Path, entries: &[LabelledPhoto]) -> Result<()> {
    let mut file = OldFile::new();
    let mut refs = Refs::default();
    let categories = CATEGORIES.map(|name| refs.add(text(&mut file, name)));
    let colors = COLORS.map(|name| refs.add(text(&mut file, name)));
    let photos: Vec<u64> = entries.iter().map(|entry| refs.add(photo(&mut file, entry))).collect();
    let root = vec![
        ("all_category_name".to_owned(), cell(&mut file, [1, categories.len()], &categories)),
        ("all_colors_name".to_owned(), cell(&mut file, [1, colors.len()], &colors)),
        ("fashion_dataset".to_owned(), cell(&mut file, [photos.len(), 1], &photos)),
        ("#refs#".to_owned(), file.group(refs.0, &[])),
    ];
    std::fs::write(path, file.finish(&header(), root)).map_err(Error::io("write", path))
}

/// The members of `#refs#`, named as MATLAB names them: a, b, ... z, A, ... Z, 0, ... 9, aa, ab, ...
#[derive(Default)]
struct Refs(Vec<(String, u64)>);

impl Refs {
    fn add(&mut self, address: u64) -> u64 {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        let (mut name, mut rest) = (String::new(), self.0.len() + 1);
        while rest > 0 {
            name.insert(0, char::from(LETTERS[(rest - 1) % LETTERS.len()]));
            rest = (rest - 1) / LETTERS.len();
        }
        self.0.push((name, address));
        address
    }
}

fn header() -> Vec<u8> {
    let mut header = format!("{HEADER:116}").into_bytes();
    header.extend([0; 8]);
    header.extend([0x00, 0x02, b'I', b'M']);
    header
}

fn photo(file: &mut OldFile, entry: &LabelledPhoto) -> u64 {
    let name = text(file, &entry.file_name);
    let [categories, colors] = [&entry.labels[0], &entry.labels[1]].map(|labels| label_vector(file, labels));
    let segmentation = file.chunked(&entry.segmentation, DEFLATE_LEVEL, &[Attribute::class("single")]);
    let members =
        [("img_name", name), ("category_label", categories), ("color_label", colors), ("segmentation", segmentation)];
    let members = members.map(|(name, address)| (name.to_owned(), address)).to_vec();
    file.group(members, &[Attribute::class("struct")])
}

/// 1-based labels; entries without a superpixel are 1 (`bk`).
fn label_vector(file: &mut OldFile, labels: &[u8]) -> u64 {
    let labels = labels.iter().map(|&label| f64::from(label) + 1.0).chain(std::iter::repeat(1.0)).take(LABELS);
    let bytes: Vec<u8> = labels.flat_map(f64::to_le_bytes).collect();
    file.dataset(&[1, LABELS as u64], Type::F64, &bytes, &[Attribute::class("double")])
}

fn text(file: &mut OldFile, text: &str) -> u64 {
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let attributes = [Attribute::class("char"), Attribute::number("MATLAB_int_decode", 2)];
    file.dataset(&[bytes.len() as u64 / 2, 1], Type::U16, &bytes, &attributes)
}

fn cell(file: &mut OldFile, shape: [usize; 2], targets: &[u64]) -> u64 {
    let bytes: Vec<u8> = targets.iter().flat_map(|address| address.to_le_bytes()).collect();
    file.dataset(&shape.map(|edge| edge as u64), Type::Reference, &bytes, &[Attribute::class("cell")])
}
