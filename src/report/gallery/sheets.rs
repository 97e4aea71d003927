//! The sheets of thumbnails, and what is known of the garments in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::column::Column;
use super::outlines::{self, LabelMap};
use super::{SHEET, THUMBNAIL_PX};
use crate::dataset::{self, Dataset, Row};
use crate::error::{Error, Result};
use crate::features::FeatureTable;
use crate::photo::{self, Decoding, MAX_PIXELS, Photo};
use crate::segment::{self, LabelSource};
use crate::stage::{Stage, Summary};
use crate::{files, picture, stop};

const QUALITY: u8 = 75;

/// Where photos and their label maps come from.
pub(super) struct Source<'a> {
    /// The features folder, which may have masks.
    features: &'a Path,
    catalogue: PathBuf,
    /// Whether the features were counted by the catalogue's own labels.
    is_by_labels: bool,
}

impl<'a> Source<'a> {
    /// `made` is the record of `features`.
    pub(super) fn new(features: &'a Path, catalogue: PathBuf, made: &Summary) -> Self {
        let is_by_labels = made.config.setting("from") == Some(LabelSource::Labels);
        Self { features, catalogue, is_by_labels }
    }
}

/// Writes `thumbnails/` of the first `shown` photos and, if label maps of any are at hand, `outlines/`; returns whether they
/// are.
pub(super) fn write(table: &FeatureTable, shown: usize, source: &Source, stage: &Stage) -> Result<bool> {
    stage.create_folder("thumbnails")?;
    let mut photos = Photos::open(table, source)?;
    let mut has_outlines = false;
    for (number, first) in (0..shown).step_by(SHEET.0 * SHEET.1).enumerate() {
        stop::check()?;
        let rows = first..(first + SHEET.0 * SHEET.1).min(shown);
        let found = rows.map(|row| photos.find(row)).collect::<Result<Vec<_>>>()?;
        let tiles: Vec<_> = found.into_par_iter().map(|it| tile(it, table, source)).collect();
        let (thumbnails, outlines): (Vec<_>, Vec<_>) = tiles.into_iter().unzip();
        let path = stage.path(&format!("thumbnails/{number:04}.jpg"));
        files::write(&path, &picture::jpeg(&sheet(&thumbnails), QUALITY))?;
        if outlines.iter().any(Option::is_some) {
            has_outlines = true;
            stage.create_folder("outlines")?;
            write_outlines(&stage.path(&format!("outlines/{number:04}.js")), number, &outlines)?;
        }
    }
    Ok(has_outlines)
}

fn write_outlines(path: &Path, number: usize, outlines: &[Option<Column>]) -> Result<()> {
    let json = serde_json::to_string(outlines).map_err(|cause| Error::input(path, cause))?;
    files::write(path, format!("window.lookbook.outlines[{number}] = {json};\n").as_bytes())
}

/// The thumbnail of a photo, and its garments; `None` for a photo that has been removed or damaged since, and for one
/// without a label map.
fn tile(found: Found, table: &FeatureTable, source: &Source) -> (Option<Photo>, Option<Column>) {
    let decoding = Decoding { max_pixels: MAX_PIXELS, fit: Some(THUMBNAIL_PX) };
    let decoded = found.encoded.and_then(|it| photo::decode_with(&it, decoding).ok());
    let Some(thumbnail) = decoded.map(|it| it.photo) else { return (None, None) };
    let mask = || {
        let mask = segment::mask(source.features, &table.content_sha256[found.row], &table.labels);
        mask.map(|(categories, width_px)| LabelMap { categories, width_px })
    };
    let map = found.label_map.or_else(mask);
    let outline = map.map(|it| outlines::runs(&it, &table.labels, thumbnail.size()));
    (Some(thumbnail), outline)
}

/// The thumbnails in rows, each centred in its place.
fn sheet(thumbnails: &[Option<Photo>]) -> Photo {
    let (width, height) = (THUMBNAIL_PX.0 as usize, THUMBNAIL_PX.1 as usize);
    let (sheet_width, sheet_height) = (width * SHEET.0, height * SHEET.1);
    let mut rgb = vec![128; sheet_width * sheet_height * 3];
    for (place, thumbnail) in thumbnails.iter().enumerate() {
        let Some(thumbnail) = thumbnail else { continue };
        let (own_width, own_height) = (thumbnail.width_px as usize, thumbnail.height_px as usize);
        let left = place % SHEET.0 * width + (width - own_width) / 2;
        let top = place / SHEET.0 * height + (height - own_height) / 2;
        for (y, line) in thumbnail.rgb.chunks_exact(own_width * 3).enumerate() {
            let start = ((top + y) * sheet_width + left) * 3;
            rgb[start..start + line.len()].copy_from_slice(line);
        }
    }
    Photo { width_px: sheet_width as u32, height_px: sheet_height as u32, rgb }
}

/// A photo as its catalogue has it.
struct Found {
    row: usize,
    /// `None` for a photo that is no longer there.
    encoded: Option<Vec<u8>>,
    /// If the features were counted by the catalogue's own labels.
    label_map: Option<LabelMap>,
}

/// The photos of a feature table's rows, in order.
struct Photos<'a> {
    table: &'a FeatureTable,
    source: &'a Source<'a>,
    /// The rows of a dataset that have not been requested yet.
    rows: Option<Box<dyn Iterator<Item = Result<Row>> + Send>>,
    /// Those read before they were requested.
    ahead: BTreeMap<u32, Row>,
}

impl<'a> Photos<'a> {
    fn open(table: &'a FeatureTable, source: &'a Source<'a>) -> Result<Self> {
        let is_dataset = source.catalogue.join(dataset::photos::FILE).is_file();
        let rows = is_dataset.then(|| Dataset::open(&source.catalogue)?.rows(source.is_by_labels)).transpose()?;
        Ok(Self { table, source, rows, ahead: BTreeMap::new() })
    }

    fn find(&mut self, row: usize) -> Result<Found> {
        if self.rows.is_none() {
            let path = &self.table.paths[row];
            let places = [PathBuf::from(path), self.source.catalogue.join(path)];
            let encoded = places.iter().find_map(|place| photo::read_bytes(place).ok());
            return Ok(Found { row, encoded, label_map: None });
        }
        Ok(match self.row(self.table.photo_ids[row])? {
            None => Found { row, encoded: None, label_map: None },
            Some(Row::File(file)) => Found { row, encoded: Some(file.encoded), label_map: None },
            Some(Row::Labelled(record)) => {
                let map = LabelMap { categories: record.category_map(), width_px: record.width_px as usize };
                Found { row, encoded: Some(record.encoded), label_map: Some(map) }
            }
        })
    }

    /// The dataset's row of a photo. Both are ordered by id, so photos that were skipped will not be requested again.
    fn row(&mut self, photo_id: u32) -> Result<Option<Row>> {
        let Some(rows) = &mut self.rows else { return Ok(None) };
        while !self.ahead.contains_key(&photo_id) {
            let Some(row) = rows.next().transpose()? else { return Ok(None) };
            let id = row.photo_id();
            if id >= photo_id {
                self.ahead.insert(id, row);
            }
            if id > photo_id {
                return Ok(None);
            }
        }
        Ok(self.ahead.remove(&photo_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbnail_lies_in_the_middle_of_its_place() {
        let white = Photo { width_px: 60, height_px: 180, rgb: vec![255; 60 * 180 * 3] };
        let sheet = sheet(&[None, Some(white)]);
        let at = |x: usize| sheet.rgb[x * 3];
        assert_eq!((sheet.width_px, sheet.height_px), (960, 1080));
        assert_eq!([at(0), at(149), at(150), at(209), at(210)], [128, 128, 255, 255, 128]);
    }
}
