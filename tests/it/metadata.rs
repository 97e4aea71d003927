//! Metadata and conditions, beside Polars, and at size.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use lookbook::features::FeatureTable;
use lookbook::labels::LabelSet;
use lookbook::metadata::{self, Condition, Metadata};
use serde_json::Value;

use crate::similarity::{row, write_features};

/// A features folder with photos of these ids that wear a black dress or nothing.
fn features(folder: &Path, photos: u32) -> FeatureTable {
    let black_dress = LabelSet::cfpd().cell_names().iter().position(|it| it == "dress_black").unwrap();
    let rows = (0..photos).map(|id| if id % 2 == 0 { row(id, &[(black_dress, 100)]) } else { row(id, &[]) });
    write_features(folder, rows).unwrap();
    FeatureTable::open(folder).unwrap()
}

fn csv_field(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
        other => other.to_string(),
    }
}

#[test]
fn conditions_choose_what_polars_chooses() {
    let oracle: Value = serde_json::from_str(include_str!("../data/conditions.json")).unwrap();
    let rows = oracle["rows"].as_array().unwrap();
    let place = tempfile::tempdir().unwrap();
    let features = features(&place.path().join("features"), rows.len() as u32);
    let names = ["photo_id", "price", "brand", "stock", "sale", "size, cm"];
    let mut text = names.map(|it| csv_field(&it.into())).join(",");
    for row in rows {
        write!(text, "\n{}", names.map(|name| csv_field(&row[name])).join(",")).unwrap();
    }
    let file = place.path().join("items.csv");
    fs::write(&file, text).unwrap();
    let metadata = Metadata::open(&file, &features).unwrap();
    let answers = oracle["answers"].as_array().unwrap();
    assert!(answers.len() > 30);
    for answer in answers {
        let text = answer["condition"].as_str().unwrap();
        let condition = Condition::parse("where", text).unwrap();
        let kept =
            metadata::fulfilling(&condition, Some(&metadata), &place.path().join("features"), &features).unwrap();
        let found: Vec<u64> = (0..).zip(kept).filter(|it| it.1).map(|it| it.0).collect();
        let expected: Vec<u64> =
            answer["photo_ids"].as_array().unwrap().iter().map(|it| it.as_u64().unwrap()).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn columns_of_the_feature_table_are_there_without_metadata() {
    let place = tempfile::tempdir().unwrap();
    let features = features(place.path(), 10);
    let kept = |text: &str| {
        let condition = Condition::parse("where", text)?;
        let kept = metadata::chosen(None, Some(&condition), place.path(), &features)?.expect("there is a condition");
        Ok::<_, lookbook::Error>((0..).zip(kept).filter(|it| it.1).map(|it| it.0).collect::<Vec<u32>>())
    };
    assert_eq!(kept("dress_black > 0.5 and photo_id < 5").unwrap(), [0, 2, 4]);
    assert_eq!(kept("dress_black is null and photo_id >= 6").unwrap(), [7, 9]);
    assert_eq!(kept("apparel_px = 100 and file_name is not null").unwrap(), [0, 2, 4, 6, 8]);
    assert_eq!(kept("photo_id > 99").unwrap(), [] as [u32; 0]);
    let error = kept("dress_blak > 0.5").expect_err("no such cell");
    assert!(error.to_string().contains("did you mean 'dress_black'"), "{error}");
}

#[test]
fn metadata_of_a_million_rows_is_joined() {
    let place = tempfile::tempdir().unwrap();
    let features = features(&place.path().join("features"), 100);
    let file = place.path().join("items.csv");
    let mut text = String::from("photo_id,price\n");
    for id in (0..1_000_000_u32).rev() {
        writeln!(text, "{},{}", id * 2, id % 100).unwrap();
    }
    fs::write(&file, &text).unwrap();
    let metadata = Metadata::open(&file, &features).unwrap();
    let counts = (metadata.photos_with_row, metadata.photos_without_row, metadata.rows_without_photo);
    assert_eq!(counts, (50, 50, 999_950));
    let condition = Condition::parse("where", "price >= 40").unwrap();
    let kept = metadata::fulfilling(&condition, Some(&metadata), &place.path().join("features"), &features).unwrap();
    // Photo 2 n costs n.
    assert_eq!((0..100).filter(|&row| kept[row]).collect::<Vec<_>>(), (80..100).step_by(2).collect::<Vec<_>>());
    writeln!(text, "14,1").unwrap();
    fs::write(&file, &text).unwrap();
    let error = Metadata::open(&file, &features).expect_err("a key occurs twice");
    assert!(error.to_string().contains("has photo_id 14 twice, in rows 999993 and 1000001"), "{error}");
}
