//! `categories.parquet` and `colors.parquet`: the label set, one name per row in the order of the ids.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt8Array};
use arrow::datatypes::{DataType, Field};

use crate::error::{Error, Result};
use crate::labels::{CATEGORIES, COLORS, Category, Color, LabelSet, MAX_CATEGORIES};
use crate::table;

/// File of the category names.
pub const CATEGORIES_FILE: &str = "categories.parquet";
/// Name of the table of category names.
pub const CATEGORIES_TABLE: &str = "categories";
/// File of the colour names.
pub const COLORS_FILE: &str = "colors.parquet";
/// Name of the table of colour names.
pub const COLORS_TABLE: &str = "colors";

/// The column of the usual shares of categories; those of [`LabelSet::cfpd`] need none.
const USUAL_SHARE: &str = "usual_share";
/// The columns of the typical values of colours; those of [`LabelSet::cfpd`] need none.
const RGB: [&str; 3] = ["r", "g", "b"];

/// Writes both tables to these paths. `is_apparel` tells whether the category is worn; it is null in the table of colours,
/// where it has no meaning.
///
/// # Errors
/// As [`table::write_table`].
pub fn write(categories: &Path, colors: &Path, labels: &LabelSet) -> Result<()> {
    let is_own = !labels.is_cfpd();
    let (names, values): (Vec<_>, Vec<_>) =
        labels.categories().iter().map(|it| ((it.name.as_str(), Some(it.is_apparel)), it.usual_share)).unzip();
    let shares = || -> ArrayRef { Arc::new(Float64Array::from(values.clone())) };
    let more = is_own.then(|| vec![(Field::new(USUAL_SHARE, DataType::Float64, false), shares())]);
    write_names(categories, CATEGORIES_TABLE, &names, more.unwrap_or_default())?;
    let names: Vec<_> = labels.colors().iter().map(|it| (it.name.as_str(), None)).collect();
    let channel = |(channel, name): (usize, &str)| {
        let values = UInt8Array::from_iter_values(labels.colors().iter().map(|it| it.rgb[channel]));
        (Field::new(name, DataType::UInt8, false), Arc::new(values) as ArrayRef)
    };
    let more = is_own.then(|| RGB.into_iter().enumerate().map(channel).collect());
    write_names(colors, COLORS_TABLE, &names, more.unwrap_or_default())
}

fn write_names(path: &Path, table: &str, names: &[(&str, Option<bool>)], more: Vec<(Field, ArrayRef)>) -> Result<()> {
    let mut fields = vec![
        Field::new("id", DataType::UInt8, false),
        Field::new("name", DataType::Utf8, false),
        Field::new("is_apparel", DataType::Boolean, true),
    ];
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(UInt8Array::from_iter_values(0..names.len() as u8)),
        Arc::new(StringArray::from_iter_values(names.iter().map(|(name, _)| name))),
        Arc::new(names.iter().map(|(_, is_apparel)| *is_apparel).collect::<BooleanArray>()),
    ];
    for (field, column) in more {
        fields.push(field);
        columns.push(column);
    }
    let rows = RecordBatch::try_new(table::schema(table, fields), columns).expect("the columns match the schema above");
    table::write_table(path, &rows)
}

/// The files of a dataset folder's label set that a stage reads besides its photos: none for the default one.
#[must_use]
pub fn reads(dataset: &Path) -> Vec<PathBuf> {
    let files = [CATEGORIES_FILE, COLORS_FILE].map(|name| dataset.join(name));
    let is_cfpd = read(&files[0], &files[1]).is_ok_and(|labels| labels.is_cfpd());
    if is_cfpd || !files.iter().all(|it| it.is_file()) { Vec::new() } else { files.into() }
}

/// Reads the label set of both tables.
///
/// # Errors
/// [`Error::Input`] if they are not those of a label set; otherwise as [`table::read_table`].
pub fn read(categories: &Path, colors: &Path) -> Result<LabelSet> {
    let again = |problem: String| format!("{problem}; run convert again");
    let own = read_categories(categories)?;
    let named = read_colors(colors)?;
    let has_names = |names: &[&str], found: Vec<&str>| names == found;
    let usual = LabelSet::cfpd();
    let worn = |of: &[Category]| of.iter().map(|it| it.is_apparel).collect::<Vec<_>>();
    if own.iter().all(|(_, share)| share.is_none())
        && has_names(&CATEGORIES, own.iter().map(|(it, _)| it.name.as_str()).collect())
        && has_names(&COLORS, named.iter().map(|(it, _)| it.name.as_str()).collect())
        && own.iter().map(|(it, _)| it.is_apparel).collect::<Vec<_>>() == worn(usual.categories())
    {
        return Ok(usual);
    }
    let missing = |path: &Path, column: &str| Error::schema(path, format!("a column '{column}'"), "none");
    let of_categories = own.into_iter().map(|(category, usual_share)| {
        let usual_share = usual_share.ok_or_else(|| missing(categories, USUAL_SHARE))?;
        Ok(Category { usual_share, ..category })
    });
    let of_colors = named.into_iter().map(|(color, rgb)| {
        let rgb = rgb.ok_or_else(|| missing(colors, RGB[0]))?;
        Ok(Color { rgb, ..color })
    });
    let (of_categories, of_colors) = (of_categories.collect::<Result<_>>()?, of_colors.collect::<Result<_>>()?);
    LabelSet::new(of_categories, of_colors).map_err(|problem| Error::input(categories, again(problem)))
}

/// The categories, with their usual shares if the table has them.
fn read_categories(path: &Path) -> Result<Vec<(Category, Option<f64>)>> {
    let mut found = Vec::new();
    for batch in table::read_table(path, CATEGORIES_TABLE, &[], MAX_CATEGORIES)? {
        let batch = batch?;
        let names: &StringArray = table::column(path, &batch, "name")?;
        let apparel: &BooleanArray = table::column(path, &batch, "is_apparel")?;
        let shares: Option<&Float64Array> =
            batch.column_by_name(USUAL_SHARE).map(|_| table::column(path, &batch, USUAL_SHARE)).transpose()?;
        found.extend((0..batch.num_rows()).map(|row| {
            let is_apparel = apparel.is_valid(row) && apparel.value(row);
            let category = Category { name: names.value(row).to_owned(), is_apparel, usual_share: 0.0 };
            (category, shares.map(|it| it.value(row)))
        }));
    }
    Ok(found)
}

/// The colours, with their typical values if the table has them.
fn read_colors(path: &Path) -> Result<Vec<(Color, Option<[u8; 3]>)>> {
    let mut found = Vec::new();
    for batch in table::read_table(path, COLORS_TABLE, &[], MAX_CATEGORIES)? {
        let batch = batch?;
        let names: &StringArray = table::column(path, &batch, "name")?;
        let channels: Vec<&UInt8Array> = if batch.column_by_name(RGB[0]).is_some() {
            RGB.into_iter().map(|name| table::column(path, &batch, name)).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        found.extend((0..batch.num_rows()).map(|row| {
            let rgb = <[u8; 3]>::try_from(channels.iter().map(|it| it.value(row)).collect::<Vec<_>>()).ok();
            (Color { name: names.value(row).to_owned(), rgb: [0; 3] }, rgb)
        }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_set_is_read_as_it_was_written() -> Result<()> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let [categories, colors] = [CATEGORIES_FILE, COLORS_FILE].map(|name| place.path().join(name));
        let text = "categories = [\"none\", \"skin\", \"top\"]\n[[colors]]\nname = \"dark\"\nrgb = [1, 2, 3]\n\
                    [usual_share]\ntop = 0.25\n";
        let own = LabelSet::parse_toml(text).expect("a small set");
        for labels in [LabelSet::cfpd(), own] {
            write(&categories, &colors, &labels)?;
            assert_eq!(read(&categories, &colors)?, labels);
        }
        write(&colors, &categories, &LabelSet::cfpd())?;
        assert!(matches!(read(&categories, &colors), Err(Error::Schema { .. })), "they were swapped");
        Ok(())
    }
}
