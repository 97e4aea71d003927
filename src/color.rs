//! RGB to colour name: `color_table.parquet`, learnt from the labelled superpixels of the train split, and the colours
//! of a photo according to it.
//!
//! The table has a row for each of the 32 x 32 x 32 cells of the sRGB cube, red outermost, blue innermost: `r`, `g`,
//! `b` (u8, the centre of the cell), `color` (u8, from 1: the most frequent label, by pixels, of the superpixels whose
//! mean lies in the cell), `confidence` (f32, the share of pixels with that label; null if the cell had none and takes
//! the colour of the nearest cell that had, in CIELAB) and `pixels` (u64, the number of labelled pixels).
//!
//! A label names a superpixel, not a pixel, so colours are learnt from means and assigned to means: those of the pixels
//! of one category within a tile. Single pixels are affected by grain, folds and reflections. `docs/tables.md` has the
//! measurements. The table of another label set than the default one has its colours in the metadata (`lookbook.colors`).

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, Float32Array, UInt8Array, UInt64Array};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use rayon::prelude::*;

use crate::dataset::{Dataset, PhotoRecord, Split};
use crate::error::{Error, Result};
use crate::features::{CellRule, Label, PixelCounts, equal_runs};
use crate::labels::{BACKGROUND, COLORS, LabelSet, MAX_CATEGORIES};
use crate::photo::Photo;
use crate::{stop, table};

/// File name of the table in a model folder.
pub const FILE: &str = "color_table.parquet";
const TABLE: &str = "color_table";
/// Metadata key of the colours' names as a JSON list, the background first.
const COLORS_KEY: &str = "lookbook.colors";
/// Bits of the cell's index on each axis.
const CELL_BITS: u32 = 5;
const CELLS: usize = 1 << (3 * CELL_BITS);
/// Photos decoded at a time: enough for all cores, little memory.
const CHUNK: usize = 64;
/// Side of the tiles of a 400 x 600 photo in which all pixels of a category get the same colour: about the size of a
/// superpixel.
const TILE_PX: usize = 24;

/// The learnt table.
#[derive(Debug, Clone, PartialEq)]
pub struct ColorTable {
    /// What the colours are of.
    labels: LabelSet,
    /// By cell: 1 and above.
    colors: Vec<u8>,
    /// By cell: share of its pixels that have this colour; `None` if it had none.
    confidence: Vec<Option<f32>>,
    /// By cell: number of labelled pixels.
    pixels: Vec<u64>,
}

impl ColorTable {
    /// Learns the table from the train split, or from typical values of the colour names if the data set has no
    /// colours.
    ///
    /// # Errors
    /// As [`Dataset::photos`].
    pub fn learn(dataset: &Dataset) -> Result<Self> {
        Self::learn_from(dataset.labels(), dataset.photos(Some(Split::Train))?, &dataset.photos_path())
    }

    /// Assigns to each cell the colour name whose typical value is nearest in CIELAB.
    #[must_use]
    pub fn typical(labels: &LabelSet) -> Self {
        let named = labels.colors().iter().zip(0..).skip(1).map(|(it, color)| (lab(it.rgb), color));
        let named: Vec<([f32; 3], u8)> = named.collect();
        let colors = (0..CELLS).map(|cell| nearest(lab(center(cell)), &named)).collect();
        Self { labels: labels.clone(), colors, confidence: vec![None; CELLS], pixels: vec![0; CELLS] }
    }

    fn learn_from(labels: &LabelSet, photos: impl Iterator<Item = Result<PhotoRecord>>, source: &Path) -> Result<Self> {
        let mut counts = vec![0; CELLS * labels.color_count()];
        for_labelled_photos(photos, source, |record, photo| {
            for it in labelled_superpixels(labels, record, photo) {
                counts[cell_of(it.mean) * labels.color_count() + usize::from(it.color)] += it.pixels;
            }
        })?;
        Ok(Self::from_counts(labels, &counts))
    }

    /// The most frequent colour of each cell, the lower id on a tie; `counts` is `[cells, colours]`.
    fn from_counts(labels: &LabelSet, counts: &[u64]) -> Self {
        let of_cell = |cell: usize| &counts[cell * labels.color_count()..][..labels.color_count()];
        let learnt = |cell: usize| {
            let most = *of_cell(cell).iter().max().expect("there is at least one colour");
            let color =
                of_cell(cell).iter().position(|&count| count == most).expect("the maximum is one of the counts");
            (most > 0).then_some((color as u8, most))
        };
        let known: Vec<_> = (0..CELLS).filter_map(|cell| Some((lab(center(cell)), learnt(cell)?.0))).collect();
        if known.is_empty() {
            return Self::typical(labels);
        }
        let pixels: Vec<u64> = (0..CELLS).map(|cell| of_cell(cell).iter().sum()).collect();
        let color = |cell| learnt(cell).map_or_else(|| nearest(lab(center(cell)), &known), |(color, _)| color);
        let confidence = |cell| learnt(cell).map(|(_, most): (u8, u64)| most as f32 / pixels[cell] as f32);
        Self {
            labels: labels.clone(),
            colors: (0..CELLS).into_par_iter().map(color).collect(),
            confidence: (0..CELLS).map(confidence).collect(),
            pixels,
        }
    }

    /// Reads a `color_table.parquet` of the colours of `labels`.
    ///
    /// # Errors
    /// As [`crate::table::read_table`]; [`Error::Input`] if it does not contain each cell in its place, or is of other
    /// colours.
    pub fn read(path: &Path, labels: &LabelSet) -> Result<Self> {
        Self::parse(path, &std::fs::read(path).map_err(Error::io("read", path))?, labels)
    }

    /// Like [`ColorTable::read`], from `encoded`, the content of the file at `path`.
    ///
    /// # Errors
    /// As [`ColorTable::read`].
    pub fn parse(path: &Path, encoded: &[u8], labels: &LabelSet) -> Result<Self> {
        let mut read = Self { labels: labels.clone(), colors: Vec::new(), confidence: Vec::new(), pixels: Vec::new() };
        let rows = table::parse_table(path, encoded, TABLE, &[], CELLS)?;
        let [of_table, expected] = [rows.metadata(COLORS_KEY).map(str::to_owned), other_colors(labels)];
        if of_table != expected {
            let shown = |names: Option<String>| names.unwrap_or_else(|| "those of Colorful Fashion Parsing".to_owned());
            let problem = format!("names the colours {}; expected {}", shown(of_table), shown(expected));
            return Err(Error::input(path, problem));
        }
        for batch in rows {
            let batch = batch?;
            read.colors.extend_from_slice(table::column::<UInt8Array>(path, &batch, "color")?.values());
            read.confidence.extend(table::column::<Float32Array>(path, &batch, "confidence")?.iter());
            read.pixels.extend_from_slice(table::column::<UInt64Array>(path, &batch, "pixels")?.values());
        }
        let named = |&color: &u8| color != BACKGROUND && usize::from(color) < labels.color_count();
        if read.colors.len() != CELLS || !read.colors.iter().all(named) {
            let last = labels.color_count() - 1;
            let problem =
                format!("is not a colour table of {CELLS} cells with colours 1 to {last}; train the model again");
            return Err(Error::input(path, problem));
        }
        Ok(read)
    }

    /// Counts the pixels of a photo by its label map (of the same size), with colours from this table.
    #[must_use]
    pub fn count(&self, photo: &Photo, label_map: &[u8], rule: CellRule) -> PixelCounts {
        let colors = self.name_pixels(photo, label_map);
        PixelCounts::of(&self.labels, label_map, photo.width_px, rule, |pixel| colors[pixel])
    }

    /// Writes `color_table.parquet`.
    ///
    /// # Errors
    /// As [`crate::table::write_table`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let field = |name, data_type, nullable| Field::new(name, data_type, nullable);
        let mut fields: Vec<_> =
            ["r", "g", "b", "color"].into_iter().map(|name| field(name, DataType::UInt8, false)).collect();
        fields.push(field("confidence", DataType::Float32, true));
        fields.push(field("pixels", DataType::UInt64, false));
        let axis = |axis: usize| Arc::new(UInt8Array::from_iter_values((0..CELLS).map(|cell| center(cell)[axis])));
        let columns: Vec<Arc<dyn Array>> = vec![
            axis(0),
            axis(1),
            axis(2),
            Arc::new(UInt8Array::from(self.colors.clone())),
            Arc::new(Float32Array::from(self.confidence.clone())),
            Arc::new(UInt64Array::from(self.pixels.clone())),
        ];
        let mut schema = table::schema(TABLE, fields);
        if let Some(names) = other_colors(&self.labels) {
            schema = table::with_metadata(&schema, COLORS_KEY, names);
        }
        let rows = RecordBatch::try_new(schema, columns).expect("the columns match the schema");
        table::write_table(path, &rows)
    }

    /// The categories and colours that it is of.
    #[must_use]
    pub fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// The colour of an sRGB value, 1 or above (never `bk`).
    #[must_use]
    pub fn color_of(&self, rgb: [u8; 3]) -> u8 {
        self.colors[cell_of(rgb)]
    }

    /// The colour of each pixel of a photo with its label map (of the same size): `[height, width]`, 1 or above, or
    /// 0 where nothing is worn.
    #[must_use]
    pub fn name_pixels(&self, photo: &Photo, label_map: &[u8]) -> Vec<u8> {
        let width = photo.width_px as usize;
        let categories = self.labels.category_count();
        // Means and colours of the tiles of a row of tiles: `[across, categories]`.
        let row_of_tiles = width.div_ceil(TILE_PX) * categories;
        let worn: [bool; MAX_CATEGORIES] = std::array::from_fn(|category| self.labels.is_apparel(category as u8));
        let mut means = vec![Mean::default(); row_of_tiles * (photo.height_px as usize).div_ceil(TILE_PX)];
        let lines = || label_map.chunks_exact(width).enumerate();
        for ((row, line), rgb) in lines().zip(photo.rgb.as_chunks().0.chunks_exact(width)) {
            let tiles = means[row / TILE_PX * row_of_tiles..].chunks_exact_mut(categories);
            for ((tile, line), rgb) in tiles.zip(line.chunks(TILE_PX)).zip(rgb.chunks(TILE_PX)) {
                for (category, pixels) in pixels_by_run(line, rgb) {
                    if worn[usize::from(category)] {
                        tile[usize::from(category)].add(pixels);
                    }
                }
            }
        }
        let name = |mean: Mean| mean.rgb().map_or(BACKGROUND, |rgb| self.color_of(rgb));
        let named: Vec<_> = means.into_iter().map(name).collect();
        let mut names = vec![BACKGROUND; label_map.len()];
        for ((row, line), names) in lines().zip(names.chunks_exact_mut(width)) {
            let tiles = named[row / TILE_PX * row_of_tiles..].chunks_exact(categories);
            for ((tile, line), mut names) in tiles.zip(line.chunks(TILE_PX)).zip(names.chunks_mut(TILE_PX)) {
                for run in equal_runs(line) {
                    let (pixels, rest) = names.split_at_mut(run.len());
                    names = rest;
                    pixels.fill(tile[usize::from(run[0])]);
                }
            }
        }
        names
    }
}

/// The names of the colours as the metadata has them; `None` for the default ones.
fn other_colors(labels: &LabelSet) -> Option<String> {
    let names: Vec<&str> = labels.colors().iter().map(|it| it.name.as_str()).collect();
    (names != COLORS).then(|| serde_json::json!(names).to_string())
}

/// The mean of RGB values.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: [u32; 3],
    pixels: u32,
}

impl Mean {
    #[inline]
    fn add(&mut self, pixels: &[[u8; 3]]) {
        for &[r, g, b] in pixels {
            self.sum[0] += u32::from(r);
            self.sum[1] += u32::from(g);
            self.sum[2] += u32::from(b);
        }
        self.pixels += pixels.len() as u32;
    }

    /// The rounded mean; `None` if there are no values.
    fn rgb(&self) -> Option<[u8; 3]> {
        (self.pixels > 0).then(|| self.sum.map(|sum| ((sum + self.pixels / 2) / self.pixels) as u8))
    }
}

/// The pixels of each run of equal labels, with the label. There are as many labels as pixels.
fn pixels_by_run<'a, L: Label>(labels: &'a [L], mut rgb: &'a [[u8; 3]]) -> impl Iterator<Item = (L, &'a [[u8; 3]])> {
    equal_runs(labels).map(move |run| {
        let (pixels, rest) = rgb.split_at(run.len());
        rgb = rest;
        (run[0], pixels)
    })
}

/// An apparel superpixel with a named colour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Superpixel {
    /// Mean of its pixels, sRGB.
    pub(crate) mean: [u8; 3],
    /// 1 or above.
    pub(crate) color: u8,
    pub(crate) pixels: u64,
}

/// The apparel superpixels of a photo that have a named colour and at least one pixel.
pub(crate) fn labelled_superpixels(labels: &LabelSet, record: &PhotoRecord, photo: &Photo) -> Vec<Superpixel> {
    let Some(colors) = &record.superpixel_color else { return Vec::new() };
    let mut means = vec![Mean::default(); colors.len()];
    for (superpixel, pixels) in pixels_by_run(&record.superpixels, photo.rgb.as_chunks().0) {
        means[usize::from(superpixel)].add(pixels);
    }
    let named = means.iter().zip(colors).zip(&record.superpixel_category);
    let named = named.filter(|((_, color), category)| **color != BACKGROUND && labels.is_apparel(**category));
    let superpixel = |((mean, &color), _): ((&Mean, &u8), &u8)| {
        Some(Superpixel { mean: mean.rgb()?, color, pixels: u64::from(mean.pixels) })
    };
    named.filter_map(superpixel).collect()
}

/// Calls `each` with every photo whose superpixels have colours, and its record, in order.
fn for_labelled_photos(
    mut photos: impl Iterator<Item = Result<PhotoRecord>>,
    source: &Path,
    mut each: impl FnMut(&PhotoRecord, &Photo),
) -> Result<()> {
    loop {
        let chunk = photos.by_ref().take(CHUNK).collect::<Result<Vec<_>>>()?;
        if chunk.is_empty() {
            return Ok(());
        }
        stop::check()?;
        let colored: Vec<_> = chunk.iter().filter(|record| record.superpixel_color.is_some()).collect();
        let decoded = colored.par_iter().map(|record| record.decode(source)).collect::<Result<Vec<_>>>()?;
        colored.iter().zip(&decoded).for_each(|(record, photo)| each(record, photo));
    }
}

fn cell_of(rgb: [u8; 3]) -> usize {
    rgb.iter().fold(0, |cell, &value| cell << CELL_BITS | usize::from(value >> (8 - CELL_BITS)))
}

fn center(cell: usize) -> [u8; 3] {
    let side = 1 << (8 - CELL_BITS);
    let axis = |shift: u32| (cell >> (shift * CELL_BITS) & ((1 << CELL_BITS) - 1)) as u8 * side + side / 2;
    [axis(2), axis(1), axis(0)]
}

/// The colour of the nearest known point, the first one on a tie.
fn nearest(point: [f32; 3], known: &[([f32; 3], u8)]) -> u8 {
    let distance = |of: &[f32; 3]| (0..3).map(|axis| (of[axis] - point[axis]).powi(2)).sum::<f32>();
    let best =
        known.iter().map(|(at, color)| (distance(at), *color)).reduce(|best, it| if it.0 < best.0 { it } else { best });
    best.expect("there is at least one known point").1
}

/// CIE 1976 L*a*b* value of an sRGB value (IEC 61966-2-1), white point D65.
fn lab(rgb: [u8; 3]) -> [f32; 3] {
    let linear = rgb.map(|value| {
        let value = f32::from(value) / 255.0;
        if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    });
    let [r, g, b] = linear;
    let xyz = [
        (0.412_456 * r + 0.357_576 * g + 0.180_437 * b) / 0.950_47,
        0.212_673 * r + 0.715_152 * g + 0.072_175 * b,
        (0.019_334 * r + 0.119_192 * g + 0.950_304 * b) / 1.088_83,
    ];
    let [x, y, z] = xyz.map(|t: f32| if t > 0.008_856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 });
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::labels::COLOR_RGB;

    /// Two pixels of T-shirt, one of face, and one without a named colour.
    fn record() -> PhotoRecord {
        let picture = image::RgbImage::from_raw(2, 2, vec![200, 30, 30, 201, 31, 31, 20, 20, 200, 90, 90, 90]);
        let mut encoded = std::io::Cursor::new(Vec::new());
        picture.expect("four pixels").write_to(&mut encoded, image::ImageFormat::Png).expect("a PNG");
        PhotoRecord {
            photo_id: 0,
            file_name: "a.png".to_owned(),
            split: Split::Train,
            width_px: 2,
            height_px: 2,
            encoded: encoded.into_inner(),
            superpixels: vec![0, 1, 2, 3],
            superpixel_category: vec![1, 1, 8, 1],
            superpixel_color: Some(vec![8, 8, 3, 0]),
        }
    }

    fn learn(records: Vec<PhotoRecord>) -> Result<ColorTable> {
        ColorTable::learn_from(&LabelSet::cfpd(), records.into_iter().map(Ok), Path::new("photos.parquet"))
    }

    #[test]
    fn a_cell_takes_the_name_that_most_of_its_pixels_have() -> Result<()> {
        let mut other = record();
        other.superpixel_color = Some(vec![10, 8, 3, 0]);
        let table = learn(vec![record(), other])?;
        let cell = cell_of([200, 30, 30]);
        assert_eq!((table.colors[cell], table.confidence[cell], table.pixels[cell]), (8, Some(0.75), 4));
        assert_eq!(table.pixels.iter().sum::<u64>(), 4, "faces and superpixels without a named colour are ignored");
        assert_eq!(table.color_of([0, 0, 255]), 8, "cells without pixels take the nearest learnt colour");
        assert_eq!(table.confidence[cell_of([0, 0, 255])], None);
        Ok(())
    }

    #[test]
    fn pixels_of_a_category_have_one_colour_within_a_tile() {
        let table = ColorTable::typical(&LabelSet::cfpd());
        let (red, white, blue) = (COLOR_RGB[10], COLOR_RGB[11], COLOR_RGB[3]);
        // Two tiles: in the first a red T-shirt, one pixel of it blue, and white shoes; in the second a blue T-shirt.
        let mut rgb = [red; 24].concat();
        rgb.extend([white, white, blue, blue].concat());
        rgb[6..9].copy_from_slice(&blue);
        let photo = Photo { width_px: 28, height_px: 1, rgb };
        let mut label_map = vec![1; 28];
        label_map[20..26].fill(15);
        label_map[0] = 0;
        let named = table.name_pixels(&photo, &label_map);
        assert_eq!((named[0], named[1], named[2], named[19]), (0, 10, 10, 10));
        assert_eq!((named[22], named[24], named[26]), (10, 11, 3));
    }

    #[test]
    fn every_pixel_has_the_name_of_its_category_s_mean_in_its_tile() {
        let table = ColorTable::typical(&LabelSet::cfpd());
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for (width, height) in [(1, 1), (23, 25), (24, 48), (61, 50)] {
            let rgb: Vec<u8> = (0..width * height * 3).map(|_| random.random()).collect();
            // Runs of 1 to 40 pixels, across the tiles.
            let runs = std::iter::from_fn(|| {
                Some(std::iter::repeat_n(random.random_range(0..23_u8), random.random_range(1..=40)))
            });
            let label_map: Vec<u8> = runs.flatten().take(width * height).collect();
            let photo = Photo { width_px: width as u32, height_px: height as u32, rgb };
            let tile = |pixel: usize| (pixel % width / TILE_PX, pixel / width / TILE_PX);
            for (pixel, &name) in table.name_pixels(&photo, &label_map).iter().enumerate() {
                let alike = |it: &usize| label_map[*it] == label_map[pixel] && tile(*it) == tile(pixel);
                let alike: Vec<_> = (0..width * height).filter(alike).collect();
                let count = alike.len() as u32;
                let mean = std::array::from_fn(|channel| {
                    let sum: u32 = alike.iter().map(|it| u32::from(photo.rgb[it * 3 + channel])).sum();
                    ((sum + count / 2) / count) as u8
                });
                let worn = table.labels.is_apparel(label_map[pixel]);
                assert_eq!(name, if worn { table.color_of(mean) } else { BACKGROUND }, "{width} x {height}, {pixel}");
            }
        }
    }

    #[test]
    fn without_colours_the_typical_values_name_the_cells() -> Result<()> {
        let mut without = record();
        without.superpixel_color = None;
        let table = learn(vec![without])?;
        assert_eq!(table, ColorTable::typical(&LabelSet::cfpd()));
        for (color, rgb) in COLOR_RGB.iter().enumerate().skip(1) {
            assert_eq!(usize::from(table.color_of(*rgb)), color, "{}", COLORS[color]);
        }
        Ok(())
    }

    #[test]
    fn a_written_table_reads_back_and_a_foreign_one_does_not() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let path = place.path().join(FILE);
        let table = learn(vec![record()])?;
        table.write(&path)?;
        assert_eq!(ColorTable::read(&path, &LabelSet::cfpd())?, table);
        let rejects = place.path().join("rejects.parquet");
        crate::rejects::write(&rejects, "test", &[])?;
        assert!(matches!(ColorTable::read(&rejects, &LabelSet::cfpd()), Err(Error::Schema { .. })));
        Ok(())
    }

    #[test]
    fn labels_that_do_not_lie_on_the_photo_are_bad_input() {
        let mut wide = record();
        (wide.width_px, wide.height_px) = (4, 1);
        let refused = learn(vec![wide]).expect_err("the labels have a different size");
        assert!(refused.to_string().contains("a.png"), "{refused}");
    }

    #[test]
    fn lab_of_known_values() {
        for (rgb, expected) in [([255, 255, 255], [100.0, 0.0, 0.0]), ([255, 0, 0], [53.24, 80.09, 67.20])] {
            for (found, expected) in lab(rgb).iter().zip(expected) {
                assert!((found - expected).abs() < 0.05, "{rgb:?}: {found} instead of {expected}");
            }
        }
    }
}
