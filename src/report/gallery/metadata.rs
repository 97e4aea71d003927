//! The columns of the user's own table (`report --metadata`), as filters of the gallery.

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;

use super::column::Column;
use crate::metadata::{self, Kind, Metadata};

/// A column of text with more different values is searched instead of ticked.
const MAX_CHOICES: usize = 30;
/// The place of a photo without a value.
const NONE: u16 = u16::MAX;

/// A column by what its filter is.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Facet {
    /// Few different values.
    Choice {
        name: String,
        /// In alphabetical order.
        values: Vec<String>,
        /// For each photo, the place of its value: u16, 65535 for none.
        places: Column,
    },
    /// A number for each photo: f64, NaN for none.
    Number { name: String, numbers: Column },
    /// Any other text.
    Text { name: String, values: Vec<Option<String>> },
}

/// The filters of the first `shown` photos. A column without any value, and one of lists or the like, has none.
pub(super) fn facets(metadata: &Metadata, shown: usize) -> Vec<Facet> {
    metadata.columns.iter().filter_map(|column| facet(column, shown)).collect()
}

fn facet(column: &metadata::Column, shown: usize) -> Option<Facet> {
    let values = column.values.slice(0, shown.min(column.values.len()));
    let name = column.name.clone();
    let numbers = |values: Vec<Option<f64>>| {
        let numbers: Vec<f64> = values.into_iter().map(|it| it.unwrap_or(f64::NAN)).collect();
        Facet::Number { name: name.clone(), numbers: Column::of_f64(&numbers) }
    };
    Some(match column.kind {
        Kind::Integer => numbers(values.as_primitive::<Int64Type>().iter().map(|it| it.map(|it| it as f64)).collect()),
        Kind::Number => numbers(values.as_primitive::<Float64Type>().iter().collect()),
        Kind::Boolean => {
            let values: Vec<_> = values.as_boolean().iter().map(|it| it.map(yes_or_no)).collect();
            choices(name, &[false, true].map(yes_or_no), &values)
        }
        Kind::Text | Kind::Date | Kind::Time => of_text(name, texts(&values)?),
        Kind::Empty | Kind::Other(_) => return None,
    })
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// Text as it is; dates and times as ISO 8601 has them.
fn texts(values: &dyn Array) -> Option<Vec<Option<String>>> {
    if *values.data_type() == DataType::Utf8 {
        return Some(values.as_string::<i32>().iter().map(|it| it.map(str::to_owned)).collect());
    }
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(values, &options).ok()?;
    let text = |row: usize| (!values.is_null(row)).then(|| formatter.value(row).to_string());
    Some((0..values.len()).map(text).collect())
}

/// Boxes to tick if there are few values, each of which several photos have on average; otherwise a search.
fn of_text(name: String, values: Vec<Option<String>>) -> Facet {
    let known: BTreeSet<&str> = values.iter().flatten().map(String::as_str).collect();
    let photos = values.iter().flatten().count();
    if known.len() > MAX_CHOICES || 2 * known.len() > photos {
        return Facet::Text { name, values };
    }
    choices(name, &known.into_iter().map(str::to_owned).collect::<Vec<_>>(), &values)
}

/// Boxes to tick; `known` is sorted, and has each of the values.
fn choices(name: String, known: &[String], values: &[Option<String>]) -> Facet {
    let place = |value: &String| known.binary_search(value).map_or(NONE, |place| place as u16);
    let places: Vec<u16> = values.iter().map(|it| it.as_ref().map_or(NONE, place)).collect();
    Facet::Choice { name, values: known.to_vec(), places: Column::of_u16(&places) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, NullArray, StringArray};

    use super::*;

    fn of(kind: Kind, values: ArrayRef) -> Option<Facet> {
        facet(&metadata::Column { name: "it".to_owned(), kind, values }, 5)
    }

    fn choice(values: &[&str], places: &[u16]) -> Facet {
        let values = values.iter().map(|&it| it.to_owned()).collect();
        Facet::Choice { name: "it".to_owned(), values, places: Column::of_u16(places) }
    }

    #[test]
    fn few_values_are_choices_and_those_not_shown_are_none() {
        let text = StringArray::from(vec![Some("b"), None, Some("a"), Some("b"), Some("a"), Some("c")]);
        assert_eq!(of(Kind::Text, Arc::new(text)), Some(choice(&["a", "b"], &[1, NONE, 0, 1, 0])));
        let flags = BooleanArray::from(vec![Some(true), Some(false), None]);
        assert_eq!(of(Kind::Boolean, Arc::new(flags)), Some(choice(&["no", "yes"], &[1, 0, NONE])));
        // 20,000 days after 1 January 1970.
        let days = Date32Array::from(vec![Some(20_000), None, Some(0), Some(20_000), Some(0)]);
        assert_eq!(of(Kind::Date, Arc::new(days)), Some(choice(&["1970-01-01", "2024-10-04"], &[1, NONE, 0, 1, 0])));
    }

    #[test]
    fn numbers_are_ranges() {
        let Some(Facet::Number { numbers, .. }) = of(Kind::Integer, Arc::new(Int64Array::from(vec![3, -1, 7]))) else {
            panic!("numbers");
        };
        assert_eq!(numbers, Column::of_f64(&[3.0, -1.0, 7.0]));
        let floats = Float64Array::from(vec![Some(0.5), None, Some(2.0)]);
        let Some(Facet::Number { numbers, .. }) = of(Kind::Number, Arc::new(floats)) else { panic!("numbers") };
        assert_eq!(numbers, Column::of_f64(&[0.5, f64::NAN, 2.0]));
        assert_eq!(of(Kind::Empty, Arc::new(NullArray::new(3))), None);
    }

    #[test]
    fn many_values_and_those_of_single_photos_are_searched() {
        let twice = |count: usize| (0..2 * count).map(|it| Some(format!("{:03}", it % count))).collect::<Vec<_>>();
        let searched = |values: Vec<Option<String>>| matches!(of_text("it".to_owned(), values), Facet::Text { .. });
        assert!(!searched(twice(MAX_CHOICES)) && searched(twice(MAX_CHOICES + 1)));
        assert!(searched(twice(4)[..4].to_vec()));
    }
}
