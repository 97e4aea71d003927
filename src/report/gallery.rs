//! The gallery: sheets of thumbnails (`thumbnails/NNNN.jpg`) and `gallery.js`, which holds the names, cells and
//! neighbours of the photos for the page's script. They are separate files rather than part of the page, so that a
//! browser loads a sheet only when it comes into view.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use super::config::Config;
use super::run::Run;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::features::FeatureTable;
use crate::photo::{self, Decoding, MAX_PIXELS, Photo};
use crate::similarity::{self, Neighbour};
use crate::stage::{Stage, Summary};
use crate::{files, picture, stop};

/// Size of a thumbnail, and columns and rows of a sheet; a sheet takes about 150 kB.
const THUMBNAIL_PX: (u32, u32) = (120, 180);
const SHEET: (usize, usize) = (8, 6);
const QUALITY: u8 = 75;
/// Shares and correlations are multiplied by this and written as integers.
const SCALE: f32 = 1000.0;

/// The content of `gallery.js`. Photos are identified by their row in the feature table.
#[derive(Serialize)]
struct Gallery<'a> {
    thumbnail_px: (u32, u32),
    sheet: (usize, usize),
    cells: &'a [String],
    names: &'a [String],
    /// For each photo: cell, share in thousandths, cell, share, ...; the largest share first.
    worn: Vec<Vec<u32>>,
    /// For each photo: neighbour, correlation in thousandths, neighbour, ...; the nearest first.
    near: Vec<Vec<i32>>,
}

/// Writes the gallery; returns the number of photos in it and in total. `None` if there is no feature table.
pub(super) fn write(run: &Run, config: &Config, stage: &Stage) -> Result<Option<(usize, usize)>> {
    let Some(features) = run.folder("features").filter(|_| config.gallery_photos > 0) else { return Ok(None) };
    let table = FeatureTable::open(features)?;
    let shown = table.len().min(config.gallery_photos);
    let neighbours = run.folder("similarity").map(similarity::read_neighbours).transpose()?.unwrap_or_default();
    let gallery = Gallery {
        thumbnail_px: THUMBNAIL_PX,
        sheet: SHEET,
        cells: table.labels.cell_names(),
        names: &table.file_names[..shown],
        worn: (0..shown).map(|row| worn(table.row(row))).collect(),
        near: near(&table.photo_ids[..shown], &neighbours),
    };
    let json = serde_json::to_string(&gallery).map_err(|cause| Error::input("gallery.js", cause))?;
    files::write(&stage.path("gallery.js"), format!("window.lookbook = {json};\n").as_bytes())?;
    stage.create_folder("thumbnails")?;
    write_sheets(&table, shown, &catalogue(features, run)?, stage)?;
    Ok(Some((shown, table.len())))
}

fn worn(cells: &[f32]) -> Vec<u32> {
    let mut present: Vec<_> = cells.iter().enumerate().filter(|(_, share)| **share > 0.0).collect();
    present.sort_by(|a, b| b.1.total_cmp(a.1));
    present.into_iter().flat_map(|(cell, share)| [cell as u32, (share * SCALE).round() as u32]).collect()
}

fn near(photo_ids: &[u32], neighbours: &[Neighbour]) -> Vec<Vec<i32>> {
    let rows: HashMap<u32, usize> = photo_ids.iter().copied().zip(0..).collect();
    let mut near = vec![Vec::new(); photo_ids.len()];
    for it in neighbours {
        if let (Some(&row), Some(&other)) = (rows.get(&it.photo_id), rows.get(&it.neighbour_id)) {
            near[row].extend([other as i32, (it.correlation * SCALE).round() as i32]);
        }
    }
    near
}

/// The catalogue that the features were computed from.
fn catalogue(features: &Path, run: &Run) -> Result<PathBuf> {
    let summary = Summary::read(features)?;
    Ok(summary.config.setting("catalogue").unwrap_or_else(|| run.name.join("dataset")))
}

fn write_sheets(table: &FeatureTable, shown: usize, catalogue: &Path, stage: &Stage) -> Result<()> {
    let mut photos = EncodedPhotos::open(table, catalogue)?;
    for (number, first) in (0..shown).step_by(SHEET.0 * SHEET.1).enumerate() {
        stop::check()?;
        let rows = first..(first + SHEET.0 * SHEET.1).min(shown);
        let encoded = rows.map(|row| photos.encoded(row)).collect::<Result<Vec<_>>>()?;
        let thumbnails: Vec<_> = encoded.par_iter().map(|bytes| thumbnail(bytes.as_deref())).collect();
        let path = stage.path(&format!("thumbnails/{number:04}.jpg"));
        files::write(&path, &picture::jpeg(&sheet(&thumbnails), QUALITY))?;
    }
    Ok(())
}

/// `None` for a photo that has been removed or damaged since.
fn thumbnail(encoded: Option<&[u8]>) -> Option<Photo> {
    let decoding = Decoding { max_pixels: MAX_PIXELS, fit: Some(THUMBNAIL_PX) };
    photo::decode_with(encoded?, decoding).ok().map(|it| it.photo)
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

/// The encoded photos of a feature table's rows, in order.
struct EncodedPhotos<'a> {
    table: &'a FeatureTable,
    catalogue: PathBuf,
    /// The rows of a dataset that have not been requested yet.
    records: Option<Box<dyn Iterator<Item = Result<crate::dataset::PhotoRecord>> + Send>>,
    /// Those read before they were requested.
    ahead: BTreeMap<u32, Vec<u8>>,
}

impl<'a> EncodedPhotos<'a> {
    fn open(table: &'a FeatureTable, catalogue: &Path) -> Result<Self> {
        let records = if catalogue.join(crate::dataset::photos::FILE).is_file() {
            Some(Dataset::open(catalogue)?.photos(None)?)
        } else {
            None
        };
        Ok(Self { table, catalogue: catalogue.to_owned(), records, ahead: BTreeMap::new() })
    }

    fn encoded(&mut self, row: usize) -> Result<Option<Vec<u8>>> {
        let (photo_id, path) = (self.table.photo_ids[row], &self.table.paths[row]);
        let Some(records) = &mut self.records else {
            let places = [PathBuf::from(path), self.catalogue.join(path)];
            return Ok(places.iter().find_map(|place| photo::read_bytes(place).ok()));
        };
        // Both are ordered by id, so photos that were skipped will not be requested again.
        while !self.ahead.contains_key(&photo_id) {
            let Some(record) = records.next().transpose()? else { return Ok(None) };
            if record.photo_id >= photo_id {
                self.ahead.insert(record.photo_id, record.encoded);
            }
            if record.photo_id > photo_id {
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
    fn neighbours_are_rows_and_those_not_shown_are_left_out() {
        let near_of = |photo_id, neighbour_id, correlation| Neighbour {
            photo_id,
            rank: 1,
            neighbour_id,
            correlation,
            cells_in_common: 1,
        };
        let all = [near_of(7, 9, 0.5), near_of(7, 3, 0.25), near_of(9, 7, -0.1)];
        assert_eq!(near(&[7, 9], &all), [vec![1, 500], vec![0, -100]]);
    }

    #[test]
    fn a_thumbnail_lies_in_the_middle_of_its_place() {
        let white = Photo { width_px: 60, height_px: 180, rgb: vec![255; 60 * 180 * 3] };
        let sheet = sheet(&[None, Some(white)]);
        let at = |x: usize| sheet.rgb[x * 3];
        assert_eq!((sheet.width_px, sheet.height_px), (960, 1080));
        assert_eq!([at(0), at(149), at(150), at(209), at(210)], [128, 128, 255, 255, 128]);
    }
}
