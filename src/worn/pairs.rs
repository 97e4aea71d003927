//! `pairs_worn.parquet`: how often each two things of a label set are worn together.
//!
//! | column | type | meaning |
//! | --- | --- | --- |
//! | `level` | text | `category`: a and b are garments; `cell`: garments in a colour |
//! | `a`, `b` | text | as in the names of the feature table's columns: `Tshirt`, or `Tshirt_red` |
//! | `photos_a`, `photos_b`, `photos_both` | u32 | photos with a, with b, with both; `photos_both` is at least 1 |
//! | `photos` | u32 | photos in which anything is worn |
//! | `support`, `confidence`, `lift`, `pmi`, `smoothed_lift` | f64 | see [`Association`] |

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use rayon::prelude::*;

use super::association::Association;
use crate::error::Result;
use crate::features::FeatureTable;
use crate::labels::LabelSet;
use crate::table::{TableWriter, schema};

/// File name of the table.
pub const PAIRS_FILE: &str = "pairs_worn.parquet";
/// Rows of the feature table that a thread counts at a time.
const BATCH_ROWS: usize = 8192;

/// The numbers of photos with each two of `len` things, in one pass over what each photo has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counts {
    len: usize,
    /// Of a and b <= a at [`Counts::place`].
    together: Vec<u32>,
}

impl Counts {
    fn new(len: usize) -> Self {
        Self { len, together: vec![0; len * (len + 1) / 2] }
    }

    fn place(a: usize, b: usize) -> usize {
        let (low, high) = (a.min(b), a.max(b));
        high * (high + 1) / 2 + low
    }

    /// Counts a photo with `present`, ascending.
    fn add(&mut self, present: &[usize]) {
        for (number, &a) in present.iter().enumerate() {
            let row = &mut self.together[Self::place(a, 0)..=Self::place(a, a)];
            present[..=number].iter().for_each(|&b| row[b] += 1);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.together.iter_mut().zip(&other.together).for_each(|(sum, count)| *sum += count);
    }

    /// Photos with both; with a, if they are the same.
    fn of(&self, a: usize, b: usize) -> u32 {
        self.together[Self::place(a, b)]
    }
}

/// How often each two garments, and each two garments in a colour, are worn together. At most 5 MB, for the largest label
/// set.
#[derive(Debug, Clone, PartialEq)]
pub struct PairCounts {
    labels: LabelSet,
    /// Photos in which anything is worn.
    photos: u32,
    /// By rank of the apparel category.
    categories: Counts,
    cells: Counts,
}

impl PairCounts {
    /// Counts the photos of `features`, in one pass.
    #[must_use]
    pub fn of(features: &FeatureTable) -> Self {
        let none = || Self::none(&features.labels);
        let count = |mut counts: Self, rows: &[f32]| {
            counts.add(rows);
            counts
        };
        let merged = |mut sum: Self, other: Self| {
            sum.merge(&other);
            sum
        };
        let batches = features.cells.par_chunks(BATCH_ROWS * features.labels.cell_count());
        batches.fold(none, count).reduce(none, merged)
    }

    fn none(labels: &LabelSet) -> Self {
        let categories = Counts::new(labels.apparel_categories().count());
        Self { labels: labels.clone(), photos: 0, categories, cells: Counts::new(labels.cell_count()) }
    }

    /// Counts the photos with these cells, `[photos, cells]`.
    fn add(&mut self, rows: &[f32]) {
        let (count, per_category) = (self.labels.cell_count(), self.labels.cells_per_category());
        let (mut cells, mut categories) = (Vec::new(), Vec::new());
        for row in rows.chunks_exact(count) {
            cells.clear();
            cells.extend(row.iter().enumerate().filter(|(_, share)| **share != 0.0).map(|(cell, _)| cell));
            categories.clear();
            categories.extend(cells.iter().map(|cell| cell / per_category));
            categories.dedup();
            self.cells.add(&cells);
            self.categories.add(&categories);
            self.photos += u32::from(!cells.is_empty());
        }
    }

    fn merge(&mut self, other: &Self) {
        self.photos += other.photos;
        self.categories.merge(&other.categories);
        self.cells.merge(&other.cells);
    }

    fn association(&self, counts: &Counts, a: usize, b: usize) -> Association {
        let [with_a, with_b, with_both] = [counts.of(a, a), counts.of(b, b), counts.of(a, b)];
        Association { photos: self.photos, with_a, with_b, with_both }
    }

    /// How two apparel categories go together, by rank.
    #[must_use]
    pub fn categories(&self, a: usize, b: usize) -> Association {
        self.association(&self.categories, a, b)
    }

    /// How two cells go together.
    #[must_use]
    pub fn cells(&self, a: usize, b: usize) -> Association {
        self.association(&self.cells, a, b)
    }

    /// Every two things of a level that occur together, in both orders. Two colours of one category are not two garments.
    fn pairs<'a>(&'a self, level: &Level<'a>) -> Vec<Pair<'a>> {
        let &Level { counts, names, per_garment, .. } = level;
        let others = |a| (0..counts.len).map(move |b| (a, b)).filter(|(a, b)| a / per_garment != b / per_garment);
        let pairs = (0..counts.len).flat_map(others).filter(|&(a, b)| counts.of(a, b) > 0);
        pairs.map(|(a, b)| Pair { a: &names[a], b: &names[b], counts: self.association(counts, a, b) }).collect()
    }
}

/// The things of a level of the table.
struct Level<'a> {
    name: &'static str,
    counts: &'a Counts,
    names: &'a [String],
    /// Things that stand for one garment.
    per_garment: usize,
}

/// A row of the table, without the level.
struct Pair<'a> {
    a: &'a str,
    b: &'a str,
    counts: Association,
}

/// Writes `pairs_worn.parquet`: one row for each two garments, and each two garments in a colour, that at least one photo
/// wears, in both orders; by level, a and b in the order of the label set.
///
/// # Errors
/// As [`TableWriter`].
pub fn write_pairs(path: &Path, counts: &PairCounts) -> Result<()> {
    let labels = &counts.labels;
    let garments: Vec<String> = labels.apparel_categories().map(|it| labels.column_name(it).to_owned()).collect();
    let of_garments = Level { name: "category", counts: &counts.categories, names: &garments, per_garment: 1 };
    let per_garment = labels.cells_per_category();
    let of_cells = Level { name: "cell", counts: &counts.cells, names: labels.cell_names(), per_garment };
    let field = |(name, data_type)| Field::new(name, data_type, false);
    let texts = ["level", "a", "b"].map(|name| (name, DataType::Utf8));
    let numbers = ["photos_a", "photos_b", "photos_both", "photos"].map(|name| (name, DataType::UInt32));
    let measures = ["support", "confidence", "lift", "pmi", "smoothed_lift"].map(|name| (name, DataType::Float64));
    let fields = texts.into_iter().chain(numbers).chain(measures).map(field).collect();
    let schema = schema("pairs_worn", fields);
    let mut writer = TableWriter::create(path, schema.clone(), 1 << 20)?;
    for level in [of_garments, of_cells] {
        let rows = columns(level.name, &counts.pairs(&level));
        writer.write(&RecordBatch::try_new(schema.clone(), rows).expect("the columns match the schema"))?;
    }
    writer.close().map(drop)
}

fn columns(level: &str, pairs: &[Pair]) -> Vec<ArrayRef> {
    let text =
        |of: &dyn Fn(&Pair) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(pairs.iter().map(of))) };
    let number = |of: fn(&Association) -> u32| -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values(pairs.iter().map(|it| of(&it.counts))))
    };
    let measure = |of: fn(&Association) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(pairs.iter().map(|it| of(&it.counts))))
    };
    vec![
        text(&|_| level.to_owned()),
        text(&|it| it.a.to_owned()),
        text(&|it| it.b.to_owned()),
        number(|it| it.with_a),
        number(|it| it.with_b),
        number(|it| it.with_both),
        number(|it| it.photos),
        measure(Association::support),
        measure(Association::confidence),
        measure(Association::lift),
        measure(Association::pmi),
        measure(Association::smoothed_lift),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::CELL_COUNT;

    /// Cells 0 and 1: T-shirts in two colours; 12: a bag.
    fn counts() -> PairCounts {
        let rows: [&[usize]; 5] = [&[0, 1, 12], &[0, 12], &[1], &[12], &[]];
        let mut cells = vec![0.0; rows.len() * CELL_COUNT];
        for (row, worn) in rows.iter().enumerate() {
            worn.iter().for_each(|cell| cells[row * CELL_COUNT + cell] = 1.0 / worn.len() as f32);
        }
        PairCounts::of(&FeatureTable::unnamed(cells, LabelSet::cfpd()))
    }

    #[test]
    fn categories_count_once_a_photo_in_whatever_colours() {
        let counts = counts();
        let bag_with_shirt = Association { photos: 4, with_a: 3, with_b: 3, with_both: 2 };
        assert_eq!((counts.categories(0, 1), counts.categories(1, 0)), (bag_with_shirt, bag_with_shirt));
        assert_eq!(counts.cells(1, 12), Association { photos: 4, with_a: 2, with_b: 3, with_both: 1 });
        assert_eq!(counts.cells(0, 1), Association { photos: 4, with_a: 2, with_b: 2, with_both: 1 });
    }

    #[test]
    fn the_table_has_both_orders_and_no_two_colours_of_one_garment() {
        let counts = counts();
        let names = counts.labels.cell_names();
        let level = Level { name: "cell", counts: &counts.cells, names, per_garment: 12 };
        let pairs: Vec<_> = counts.pairs(&level).iter().map(|it| (it.a, it.b, it.counts.with_both)).collect();
        let [shirt, other, bag] = [0, 1, 12].map(|it| names[it].as_str());
        assert_eq!(pairs, [(shirt, bag, 2), (other, bag, 1), (bag, shirt, 2), (bag, other, 1)]);
    }

    #[test]
    fn any_label_set_has_its_own_garments() -> Result<()> {
        let labels = LabelSet::of_names(["none", "left-shoe", "skin", "tie"]).expect("a small set");
        let (shoe, tie) = (0, labels.cells_per_category());
        let mut cells = vec![0.0; labels.cell_count()];
        (cells[shoe], cells[tie]) = (0.5, 0.5);
        let counts = PairCounts::of(&FeatureTable::unnamed(cells, labels));
        let file = tempfile::NamedTempFile::new().expect("a file");
        write_pairs(file.path(), &counts)?;
        let mut rows = Vec::new();
        for batch in crate::table::read_table(file.path(), "pairs_worn", &[], 10)? {
            let batch = batch?;
            let text = |name, row| {
                crate::table::column::<StringArray>(file.path(), &batch, name).map(|it| it.value(row).to_owned())
            };
            for row in 0..batch.num_rows() {
                rows.push([text("level", row)?, text("a", row)?, text("b", row)?].join(" "));
            }
        }
        let expected = [
            "category leftshoe tie",
            "category tie leftshoe",
            "cell leftshoe_beige tie_beige",
            "cell tie_beige leftshoe_beige",
        ];
        assert_eq!(rows, expected);
        Ok(())
    }

    #[test]
    fn counts_do_not_depend_on_the_batches() {
        let counts = counts();
        let mut twice = counts.clone();
        twice.merge(&counts);
        assert_eq!((twice.photos, twice.cells(0, 12).with_both), (8, 4));
        assert_eq!(PairCounts::none(&LabelSet::cfpd()).photos, 0);
    }
}
