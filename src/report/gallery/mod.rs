//! The gallery: sheets of thumbnails (`thumbnails/NNNN.jpg`), the garments in them (`outlines/NNNN.js`), and `gallery.js`,
//! which holds the names, cells, neighbours, duplicates and metadata of the photos for the page's scripts. They are separate files rather than part
//! of the page, so that a browser loads a sheet only when it comes into view.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Serialize;

use self::column::Column;
use super::config::Config;
use super::figures::css;
use super::run::Run;
use crate::duplicates::read_groups;
use crate::error::{Error, Result};
use crate::features::FeatureTable;
use crate::files;
use crate::labels::LabelSet;
use crate::metadata::Metadata;
use crate::similarity::{self, Measure, Neighbour};
use crate::stage::{Stage, Summary};

mod column;
mod doubles;
mod metadata;
mod outlines;
mod sheets;

/// Size of a thumbnail, and columns and rows of a sheet; a sheet takes about 150 kB.
const THUMBNAIL_PX: (u32, u32) = (120, 180);
const SHEET: (usize, usize) = (8, 6);

/// The page's scripts, which share one scope, in the order in which they need each other.
pub(super) const SCRIPTS: [&str; 11] = [
    include_str!("data.js"),
    include_str!("search.js"),
    include_str!("filters.js"),
    include_str!("ranking.js"),
    include_str!("dom.js"),
    include_str!("facets.js"),
    include_str!("wall.js"),
    include_str!("chosen.js"),
    include_str!("compare.js"),
    include_str!("state.js"),
    include_str!("gallery.js"),
];

/// The content of `gallery.js`. Photos are identified by their row in the feature table.
#[derive(Serialize)]
struct Gallery<'a> {
    thumbnail_px: (u32, u32),
    sheet: (usize, usize),
    /// Size of the label maps in `outlines/`; `None` without label maps.
    outline_px: Option<(usize, usize)>,
    /// The columns of the cells: for each category that is worn, one for each colour.
    cells: &'a [String],
    categories: Vec<&'a str>,
    colors: Vec<ColorSwatch<'a>>,
    names: &'a [String],
    worn: Worn,
    near: Near,
    /// `None` without a table of duplicates.
    groups: Option<doubles::Groups>,
    metadata: Vec<metadata::Facet>,
}

#[derive(Serialize)]
struct ColorSwatch<'a> {
    name: &'a str,
    css: String,
}

/// What the photos wear.
#[derive(Serialize)]
struct Worn {
    /// Where each photo's cells begin, and where the last one's end: u32.
    starts: Column,
    /// Cells, the largest share of a photo first: u16.
    cells: Column,
    /// Their shares: f32.
    shares: Column,
}

/// The neighbours of the photos, by `measure`.
#[derive(Serialize)]
struct Near {
    measure: Measure,
    /// Whether only photos that fulfil a condition were compared.
    is_restricted: bool,
    /// Where each photo's neighbours begin, and where the last one's end: u32.
    starts: Column,
    /// The neighbours, the nearest first: u32.
    photos: Column,
    /// f32.
    correlations: Column,
}

/// What the gallery shows, as read.
pub(super) struct Shown {
    table: FeatureTable,
    /// Number of photos, the first ones of the table.
    photos: usize,
    groups: Option<doubles::Groups>,
    metadata: Option<Metadata>,
}

impl Shown {
    /// Reads the tables of the gallery; `None` if there is no feature table, or if it is to have no photos.
    ///
    /// # Errors
    /// Those of a table that is damaged or of another layout, and of metadata that cannot be joined.
    pub(super) fn read(run: &Run, config: &Config) -> Result<Option<Self>> {
        let Some(features) = run.folder("features").filter(|_| config.gallery_photos > 0) else { return Ok(None) };
        let table = FeatureTable::open(features)?;
        let photos = table.len().min(config.gallery_photos);
        let grouped = run.folder("duplicates").map(read_groups).transpose()?;
        let groups = grouped.map(|it| doubles::groups(&table.photo_ids[..photos], &it));
        let metadata = config.metadata.as_deref().map(|it| Metadata::open(it, &table)).transpose()?;
        Ok(Some(Self { table, photos, groups, metadata }))
    }

    /// Records what became of the metadata; returns the number of photos in the gallery and in total.
    pub(super) fn count(&self, stage: &mut Stage) -> (usize, usize) {
        if let Some(metadata) = &self.metadata {
            stage.count("photos_without_metadata", metadata.photos_without_row);
            stage.count("metadata_without_photo", metadata.rows_without_photo);
        }
        (self.photos, self.table.len())
    }

    /// Writes the gallery of `run`.
    pub(super) fn write(self, run: &Run, stage: &Stage) -> Result<()> {
        let Self { table, photos, groups, metadata } = self;
        let features = run.folder("features").expect("its table was read");
        let made = Summary::read(features)?;
        // The catalogue that the features were computed from.
        let catalogue: PathBuf = made.config.setting("catalogue").unwrap_or_else(|| run.name.join("dataset"));
        let source = sheets::Source::new(features, catalogue, &made);
        let has_outlines = sheets::write(&table, photos, &source, stage)?;
        let gallery = Gallery {
            thumbnail_px: THUMBNAIL_PX,
            sheet: SHEET,
            outline_px: has_outlines.then_some(outlines::SIZE_PX),
            cells: table.labels.cell_names(),
            categories: table.labels.apparel_categories().map(|it| table.labels.category_name(it)).collect(),
            colors: colors(&table.labels),
            names: &table.file_names[..photos],
            worn: worn((0..photos).map(|row| table.row(row))),
            near: near(&table.photo_ids[..photos], run)?,
            groups,
            metadata: metadata.iter().flat_map(|it| metadata::facets(it, photos)).collect(),
        };
        let json = serde_json::to_string(&gallery).map_err(|cause| Error::input("gallery.js", cause))?;
        files::write(&stage.path("gallery.js"), format!("window.lookbook = {json};\n").as_bytes())
    }
}

fn colors(labels: &LabelSet) -> Vec<ColorSwatch<'_>> {
    labels.colors()[1..].iter().map(|it| ColorSwatch { name: &it.name, css: css(it.rgb) }).collect()
}

fn worn<'a>(rows: impl Iterator<Item = &'a [f32]>) -> Worn {
    let (mut starts, mut cells, mut shares) = (vec![0], Vec::new(), Vec::new());
    for row in rows {
        let mut present: Vec<_> = (0_u16..).zip(row).filter(|(_, share)| **share > 0.0).collect();
        present.sort_by(|a, b| b.1.total_cmp(a.1));
        cells.extend(present.iter().map(|it| it.0));
        shares.extend(present.iter().map(|it| it.1));
        starts.push(cells.len() as u32);
    }
    Worn { starts: Column::of_u32(&starts), cells: Column::of_u16(&cells), shares: Column::of_f32(&shares) }
}

/// The neighbours by the similarity stage of `run`; none if it was not run.
fn near(photo_ids: &[u32], run: &Run) -> Result<Near> {
    let folder = run.folder("similarity");
    let neighbours = folder.map(similarity::read_neighbours).transpose()?.unwrap_or_default();
    let made = folder.map(Summary::read).transpose()?;
    let settings = made.as_ref().map(|it| &it.config);
    let condition: Option<String> = settings.and_then(|it| it.setting("where"));
    let near = by_row(photo_ids, &neighbours);
    let mut starts = vec![0];
    starts.extend(near.iter().scan(0, |end, it| {
        *end += it.len() as u32;
        Some(*end)
    }));
    let (photos, correlations): (Vec<u32>, Vec<f32>) = near.into_iter().flatten().unzip();
    Ok(Near {
        measure: settings.and_then(|it| it.setting("measure")).unwrap_or_default(),
        is_restricted: condition.is_some(),
        starts: Column::of_u32(&starts),
        photos: Column::of_u32(&photos),
        correlations: Column::of_f32(&correlations),
    })
}

/// For each photo of `photo_ids` its neighbours among them, as rows with their correlations.
fn by_row(photo_ids: &[u32], neighbours: &[Neighbour]) -> Vec<Vec<(u32, f32)>> {
    let rows: HashMap<u32, u32> = photo_ids.iter().copied().zip(0..).collect();
    let mut near = vec![Vec::new(); photo_ids.len()];
    for it in neighbours {
        if let (Some(&row), Some(&other)) = (rows.get(&it.photo_id), rows.get(&it.neighbour_id)) {
            near[row as usize].push((other, it.correlation));
        }
    }
    near
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
        assert_eq!(by_row(&[7, 9], &all), [vec![(1, 0.5)], vec![(0, -0.1)]]);
    }

    #[test]
    fn cells_are_those_that_are_present_the_largest_first() {
        let rows: [&[f32]; 3] = [&[0.25, 0.0, 0.75], &[0.0; 3], &[0.0, 1.0, 0.0]];
        let worn = worn(rows.into_iter());
        assert_eq!(worn.starts, Column::of_u32(&[0, 2, 2, 3]));
        assert_eq!(worn.cells, Column::of_u16(&[2, 0, 1]));
        assert_eq!(worn.shares, Column::of_f32(&[0.75, 0.25, 1.0]));
    }
}
