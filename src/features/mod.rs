//! The feature table: computed from label maps and colours, and as later stages read it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, Float32Array, StringArray, UInt32Array};
use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::labels::LabelSet;
use crate::table::{self, Footer, column};

mod counts;
mod embeddings;
pub mod layout;
mod regions;
pub mod rows;

pub use counts::{CellRule, ColorRule, DEFAULT_MIN_REGION, DEFAULT_MIN_SHARE, PixelCounts, Presence};
pub use embeddings::Embeddings;
pub(crate) use regions::{Label, equal_runs, regions};

/// Rows that are read at once.
const BATCH_ROWS: usize = 1024;

/// The feature table in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureTable {
    /// Ids, in the order of the table's parts.
    pub photo_ids: Vec<u32>,
    /// File names.
    pub file_names: Vec<String>,
    /// Paths of the photos; for a dataset's own photos, the path inside the source.
    pub paths: Vec<String>,
    /// SHA-256 of the encoded files.
    pub content_sha256: Vec<String>,
    /// Number of apparel pixels.
    pub apparel_px: Vec<u64>,
    /// `[photos, cells]`, row-major; 0 for empty cells.
    pub cells: Vec<f32>,
    /// The embeddings, if they were asked for ([`FeatureTable::read_embeddings`]) and the table has some.
    pub embeddings: Option<Arc<Embeddings>>,
    /// The categories and colours that the cells are of.
    pub labels: LabelSet,
}

impl FeatureTable {
    /// Reads the parts of a features folder, without the embeddings.
    ///
    /// # Errors
    /// [`crate::Error::Input`], [`crate::Error::Schema`].
    pub fn open(folder: &Path) -> Result<Self> {
        let parts = table::parts(folder)?;
        let labels = common_labels(&parts)?;
        let read = parts.par_iter().map(|part| Self::read(part, &labels)).collect::<Result<Vec<_>>>()?;
        let mut table = Self::unnamed(Vec::new(), labels);
        table.cells.reserve_exact(read.iter().map(|part| part.cells.len()).sum());
        let table = read.into_iter().fold(table, Self::then);
        table.check(folder)?;
        Ok(table)
    }

    /// Reads the embeddings of the same folder, if it has some.
    ///
    /// # Errors
    /// As [`Embeddings::read`].
    pub fn read_embeddings(&mut self, folder: &Path) -> Result<()> {
        self.embeddings = Embeddings::read(folder)?.map(Arc::new);
        Ok(())
    }

    /// Rows of the cells of `labels`, with nothing else known about the photos.
    pub(crate) fn unnamed(cells: Vec<f32>, labels: LabelSet) -> Self {
        let photos = cells.len() / labels.cell_count();
        let texts = vec![String::new(); photos];
        Self {
            photo_ids: (0..photos as u32).collect(),
            file_names: texts.clone(),
            paths: texts.clone(),
            content_sha256: texts,
            apparel_px: vec![0; photos],
            cells,
            embeddings: None,
            labels,
        }
    }

    /// For tests of what is joined to photos: 10, 11 and 12, called a, b and b.
    #[cfg(test)]
    pub(crate) fn of_three() -> Self {
        let labels = LabelSet::cfpd();
        let cells = vec![0.0; 3 * labels.cell_count()];
        Self {
            photo_ids: vec![10, 11, 12],
            file_names: ["a", "b", "b"].map(str::to_owned).to_vec(),
            paths: ["x/a", "x/b", "y/b"].map(str::to_owned).to_vec(),
            ..Self::unnamed(cells, labels)
        }
    }

    /// Number of photos.
    #[must_use]
    pub fn len(&self) -> usize {
        self.photo_ids.len()
    }

    /// Whether there are no photos.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.photo_ids.is_empty()
    }

    /// The cells of the photo in row `row`.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        let count = self.labels.cell_count();
        &self.cells[row * count..(row + 1) * count]
    }

    /// Drops the rows that are not `kept`, which has one element for each.
    pub(crate) fn retain(&mut self, kept: &[bool]) {
        fn retained<T>(values: &mut Vec<T>, kept: &[bool], each: usize) {
            let mut place = 0..;
            values.retain(|_| kept[place.next().expect("it has no end") / each]);
        }
        let cells = self.labels.cell_count();
        retained(&mut self.photo_ids, kept, 1);
        retained(&mut self.file_names, kept, 1);
        retained(&mut self.paths, kept, 1);
        retained(&mut self.content_sha256, kept, 1);
        retained(&mut self.apparel_px, kept, 1);
        retained(&mut self.cells, kept, cells);
        self.embeddings = self.embeddings.as_ref().map(|it| Arc::new(it.retained(kept)));
    }

    /// Reads a part.
    fn read(part: &Path, labels: &LabelSet) -> Result<Self> {
        let (names, count) = (labels.cell_names(), labels.cell_count());
        let mut columns = vec!["photo_id", "file_name", "path", "content_sha256", "apparel_px"];
        columns.extend(names.iter().map(String::as_str));
        let mut read = Self::unnamed(Vec::new(), labels.clone());
        for batch in table::read_table(part, rows::TABLE, &columns, BATCH_ROWS)? {
            let batch = batch?;
            let numbers = |name| Ok::<_, Error>(column::<UInt32Array>(part, &batch, name)?.values().iter().copied());
            let texts = |name| {
                let texts = column::<StringArray>(part, &batch, name)?.iter();
                Ok::<_, Error>(texts.map(|text| text.unwrap_or_default().to_owned()))
            };
            read.photo_ids.extend(numbers("photo_id")?);
            read.file_names.extend(texts("file_name")?);
            read.paths.extend(texts("path")?);
            read.content_sha256.extend(texts("content_sha256")?);
            read.apparel_px.extend(numbers("apparel_px")?.map(u64::from));
            let first = read.cells.len();
            read.cells.resize(first + batch.num_rows() * count, 0.0);
            for (cell, name) in names.iter().enumerate() {
                let shares = column::<Float32Array>(part, &batch, name)?;
                let of_batch = &mut read.cells[first..];
                let put = |row: usize| of_batch[row * count + cell] = shares.value(row);
                // Few photos have the cell.
                match shares.nulls() {
                    Some(nulls) => nulls.valid_indices().for_each(put),
                    None => (0..shares.len()).for_each(put),
                }
            }
        }
        Ok(read)
    }

    /// Appends the rows of the next part.
    fn then(mut self, mut next: Self) -> Self {
        self.photo_ids.append(&mut next.photo_ids);
        self.file_names.append(&mut next.file_names);
        self.paths.append(&mut next.paths);
        self.content_sha256.append(&mut next.content_sha256);
        self.apparel_px.append(&mut next.apparel_px);
        self.cells.append(&mut next.cells);
        self
    }

    fn check(&self, folder: &Path) -> Result<()> {
        let mut seen = HashSet::new();
        if let Some(twice) = self.photo_ids.iter().find(|&id| !seen.insert(id)) {
            return Err(Error::input(folder, format!("photo_id {twice} occurs twice; ids must be unique")));
        }
        if let Some(at) = self.cells.iter().position(|share| !(0.0..=1.0).contains(share)) {
            let count = self.labels.cell_count();
            let (row, cell) = (at / count, &self.labels.cell_names()[at % count]);
            let (id, value) = (self.photo_ids[row], self.cells[at]);
            return Err(Error::input(
                folder,
                format!("photo_id {id}, column {cell}: {value} is not a share from 0 to 1"),
            ));
        }
        Ok(())
    }
}

/// Statistics of a feature table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FeatureStatistics {
    /// Photos.
    pub photos: u64,
    /// Photos in which no cell is present.
    pub photos_without_apparel: u64,
    /// Photos without an embedding; `None` if the table has no embeddings.
    pub photos_without_embedding: Option<u64>,
    /// Pixels of each apparel category, ascending by id.
    pub apparel_category_px: Vec<u64>,
    /// Mean number of non-empty cells per photo; 0 if there are no photos.
    pub mean_cells_per_photo: f64,
    /// The five cells that are non-empty in the most photos, with the number of photos, in descending order; ties in
    /// column order.
    pub commonest_cells: Vec<(String, u64)>,
}

impl FeatureStatistics {
    /// Scans a features folder.
    ///
    /// # Errors
    /// As [`FeatureTable::open`].
    pub fn scan(folder: &Path) -> Result<Self> {
        let parts = table::parts(folder)?;
        let labels = common_labels(&parts)?;
        let sums = parts.par_iter().map(|part| Sums::of(part, &labels)).collect::<Result<Vec<_>>>()?;
        let sum = |of: &dyn Fn(&Sums) -> u64| sums.iter().map(of).sum::<u64>();
        let cells = labels.cell_names().iter().enumerate();
        let counts: Vec<(String, u64)> = cells.map(|(cell, name)| (name.clone(), sum(&|it| it.cells[cell]))).collect();
        let present: u64 = counts.iter().map(|(_, count)| count).sum();
        let photos = sum(&|it| it.photos);
        Ok(Self {
            photos,
            photos_without_apparel: sum(&|it| it.without_apparel),
            photos_without_embedding: sums.iter().map(|it| it.without_embedding).sum(),
            apparel_category_px: (0..labels.apparel_categories().count()).map(|it| sum(&|of| of.px[it])).collect(),
            mean_cells_per_photo: present as f64 / photos.max(1) as f64,
            commonest_cells: commonest(counts),
        })
    }
}

impl FeatureStatistics {
    /// Those of a table in memory, without the pixels of categories, which it does not hold.
    #[must_use]
    pub fn of(table: &FeatureTable) -> Self {
        let names = table.labels.cell_names();
        let (mut counts, mut without_apparel) = (vec![0; names.len()], 0);
        for row in 0..table.len() {
            let mut is_bare = true;
            for (cell, _) in table.row(row).iter().enumerate().filter(|(_, share)| **share > 0.0) {
                counts[cell] += 1;
                is_bare = false;
            }
            without_apparel += u64::from(is_bare);
        }
        let photos = table.len() as u64;
        let mean_cells_per_photo = counts.iter().sum::<u64>() as f64 / photos.max(1) as f64;
        Self {
            photos,
            photos_without_apparel: without_apparel,
            photos_without_embedding: table.embeddings.as_ref().map(|it| it.missing() as u64),
            apparel_category_px: Vec::new(),
            mean_cells_per_photo,
            commonest_cells: commonest(names.iter().cloned().zip(counts).collect()),
        }
    }
}

/// The five largest counts.
fn commonest(mut counts: Vec<(String, u64)>) -> Vec<(String, u64)> {
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.truncate(5);
    counts
}

/// What is summed over the rows of a part.
struct Sums {
    photos: u64,
    without_apparel: u64,
    without_embedding: Option<u64>,
    /// Pixels of each apparel category.
    px: Vec<u64>,
    /// Number of photos in which each cell is present.
    cells: Vec<u64>,
}

impl Sums {
    fn of(part: &Path, labels: &LabelSet) -> Result<Self> {
        let cells = labels.cell_names();
        let px: Vec<_> = labels.apparel_categories().map(|it| format!("px_{}", labels.column_name(it))).collect();
        let columns: Vec<&str> = px.iter().chain(cells).map(String::as_str).collect();
        let without_embedding = Footer::read(part)?.nulls(rows::EMBEDDING_COLUMN);
        let (px_sums, cell_sums) = (vec![0; px.len()], vec![0; cells.len()]);
        let mut sums = Self { photos: 0, without_apparel: 0, without_embedding, px: px_sums, cells: cell_sums };
        for batch in table::read_table(part, rows::TABLE, &columns, BATCH_ROWS)? {
            let batch = batch?;
            for (sum, name) in sums.px.iter_mut().zip(&px) {
                let of_photos = column::<UInt32Array>(part, &batch, name)?.values();
                *sum += of_photos.iter().map(|&it| u64::from(it)).sum::<u64>();
            }
            let mut bare = vec![true; batch.num_rows()];
            for (sum, name) in sums.cells.iter_mut().zip(cells) {
                let shares = column::<Float32Array>(part, &batch, name)?;
                *sum += (shares.len() - shares.null_count()) as u64;
                match shares.nulls() {
                    Some(nulls) => nulls.valid_indices().for_each(|row| bare[row] = false),
                    None => bare.fill(false),
                }
            }
            sums.photos += batch.num_rows() as u64;
            sums.without_apparel += bare.into_iter().filter(|it| *it).count() as u64;
        }
        Ok(sums)
    }
}

/// The label set of the parts of a features folder.
///
/// # Errors
/// As [`rows::labels_of`]; [`Error::Input`] if a part has another one than the first.
pub fn labels_of(folder: &Path) -> Result<LabelSet> {
    common_labels(&table::parts(folder)?)
}

fn common_labels(parts: &[PathBuf]) -> Result<LabelSet> {
    let of = |part: &Path| rows::labels_of(part, &Footer::read(part)?.schema);
    let labels = of(&parts[0])?;
    for part in &parts[1..] {
        let like = labels.check_like(&of(part)?, "the first part", "this one");
        like.map_err(|problem| Error::input(part, format!("{problem}; run segment again")))?;
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 4 x 3: a face, a T-shirt in red and blue, shoes in black, a hat without a colour name.
    const LABELS: [u8; 12] = [
        0, 10, 8, 0, //
        1, 1, 1, 0, //
        15, 0, 1, 15,
    ];
    const COLORS: [u8; 12] = [
        0, 0, 0, 0, //
        3, 10, 10, 0, //
        2, 0, 10, 11,
    ];

    /// The rule by which every cell with a pixel is present.
    fn all_of(color: ColorRule) -> CellRule {
        CellRule { color, presence: Presence::EVERYTHING }
    }

    fn cells(counts: &PixelCounts) -> Vec<(String, f32)> {
        let labels = LabelSet::cfpd();
        let names = labels.cell_names().iter().cloned();
        counts.shares().into_iter().zip(names).filter_map(|(share, name)| Some((name, share?))).collect()
    }

    fn named(cells: &[(&str, f32)]) -> Vec<(String, f32)> {
        cells.iter().map(|&(name, share)| (name.to_owned(), share)).collect()
    }

    #[test]
    fn every_pixel_counts_under_its_own_colour() {
        let counts = PixelCounts::of(&LabelSet::cfpd(), &LABELS, 4, all_of(ColorRule::PerPixel), |pixel| COLORS[pixel]);
        assert_eq!(counts.apparel_px, 7);
        assert_eq!(counts.category_px.iter().sum::<u32>(), 12);
        assert_eq!((counts.category_px[0], counts.category_px[8], counts.category_px[10]), (4, 1, 1));
        let seventh = 1.0 / 7.0;
        let expected =
            [("Tshirt_blue", seventh), ("Tshirt_red", 3.0 / 7.0), ("shoe_black", seventh), ("shoe_white", seventh)];
        assert_eq!(cells(&counts), named(&expected));
    }

    #[test]
    fn the_first_pixel_of_a_category_is_taken_columns_first() {
        let counts =
            PixelCounts::of(&LabelSet::cfpd(), &LABELS, 4, all_of(ColorRule::FirstPixel), |pixel| COLORS[pixel]);
        assert_eq!(cells(&counts), named(&[("Tshirt_blue", 4.0 / 7.0), ("shoe_black", 2.0 / 7.0)]));
        // The T-shirt's first pixel is at (1, 0) in row-major order, at (0, 1) in column-major order.
        let counts = PixelCounts::of(&LabelSet::cfpd(), &[0, 1, 1, 1], 2, all_of(ColorRule::FirstPixel), |pixel| {
            [0, 3, 10, 10][pixel]
        });
        assert_eq!(cells(&counts), named(&[("Tshirt_red", 1.0)]));
    }

    #[test]
    fn a_cell_is_present_if_its_share_and_its_largest_region_are_large_enough() {
        // 40 apparel pixels: red shoes of 2 + 1, blue ones of 1, a black coat of 3 and a white dress of 33.
        let labels = [
            &[15, 15, 0, 15, 0, 15, 0, 6, 6, 6][..], //
            &[0; 10],
            &[7; 33],
            &[0; 7],
        ]
        .concat();
        let color = |pixel: usize| match (labels[pixel], pixel) {
            (15, 5) => 3,
            (15, _) => 10,
            (6, _) => 2,
            _ => 11,
        };
        let present = |min_share, min_region| {
            let rule = CellRule { color: ColorRule::PerPixel, presence: Presence { min_share, min_region } };
            let counts = PixelCounts::of(&LabelSet::cfpd(), &labels, 10, rule, color);
            assert_eq!((counts.apparel_px, counts.category_px[15]), (40, 4), "pixels are counted whatever is present");
            cells(&counts)
        };
        let [coat, dress, blue, red] =
            [("coat_black", 0.075), ("dress_white", 0.825), ("shoe_blue", 0.025), ("shoe_red", 0.075)];
        assert_eq!(present(0.0, 0.0), named(&[coat, dress, blue, red]));
        // Coats usually cover 0.456, 18.24 of 40 pixels, and shoes 0.058, 2.32 pixels.
        assert_eq!(present(0.15, 0.0), named(&[coat, dress, blue, red]), "2.7 and 0.3 pixels are needed");
        assert_eq!(present(0.17, 0.0), named(&[dress, blue, red]), "3.1 and 0.4 pixels are needed");
        assert_eq!(present(0.5, 0.0), named(&[dress, red]), "9.1 and 1.2 pixels are needed");
        assert_eq!(present(0.0, 0.8), named(&[dress, red]), "14.6 and 1.9 pixels are needed in one region");
        assert_eq!(present(0.0, 0.9), named(&[dress]), "the red shoes have three pixels, but only two in one region");
    }

    #[test]
    fn what_is_exactly_as_large_as_required_is_present() {
        // A dress of a usual share of 0.593 that is all of the apparel: 593 of 1,000 pixels are needed.
        let mut labels = vec![7; 593];
        labels.resize(1000, 6);
        let rule = CellRule { color: ColorRule::PerPixel, presence: Presence { min_share: 1.0, min_region: 1.0 } };
        let present = |labels: &[u8]| cells(&PixelCounts::of(&LabelSet::cfpd(), labels, 1000, rule, |_| 11));
        assert_eq!(present(&labels), named(&[("dress_white", 0.593)]), "the coat lacks 0.049");
        labels[592] = 6;
        assert_eq!(present(&labels), []);
    }

    #[test]
    fn a_rule_that_is_not_of_fractions_is_refused_by_name() {
        for (min_share, min_region, named) in
            [(1.5, 0.0, "min_share"), (-0.1, 0.0, "min_share"), (0.0, f64::NAN, "min_region")]
        {
            let refused = Presence { min_share, min_region }.check().expect_err("not a fraction");
            assert!(refused.to_string().contains(named) && refused.exit_code() == 2, "{refused}");
        }
    }

    #[test]
    fn more_cells_than_a_byte_counts_are_counted_alike() {
        let names: Vec<String> = (1..64).map(|it| format!("c{it}")).collect();
        let labels = LabelSet::of_names(names.iter().map(String::as_str)).expect("64 categories");
        assert_eq!(labels.cell_count(), 63 * 12);
        let counts =
            PixelCounts::of(&labels, &[0, 63, 63, 1], 4, all_of(ColorRule::PerPixel), |pixel| [1, 12, 12, 1][pixel]);
        assert_eq!((counts.apparel_px, counts.cell_px.len()), (3, 63 * 12));
        let there: Vec<_> = labels.cell_names().iter().zip(counts.cell_px).filter(|(_, px)| *px > 0).collect();
        assert_eq!(there, [(&"c1_beige".to_owned(), 1), (&"c63_yellow".to_owned(), 2)]);
    }

    #[test]
    fn nothing_worn_is_no_cell_at_all() {
        let counts = PixelCounts::of(&LabelSet::cfpd(), &[0, 8, 9, 17], 2, all_of(ColorRule::PerPixel), |_| 5);
        assert_eq!(counts.apparel_px, 0);
        assert!(counts.shares().iter().all(Option::is_none));
    }
}
