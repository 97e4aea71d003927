//! Metadata and conditions, beside Polars, and at size.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use lookbook::features::FeatureTable;
use lookbook::labels::LabelSet;
use lookbook::metadata::{self, Condition, Metadata};
use lookbook::stage::Common;
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

#[test]
fn similarity_compares_only_photos_that_fulfil_a_condition() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("features");
    features(&folder, 40);
    let items = place.path().join("items.csv");
    let rows: Vec<String> = (0..40).map(|id| format!("{id:04}.jpg,{}", id % 8)).collect();
    fs::write(&items, format!("file_name,price\n{}\n", rows.join("\n"))).unwrap();
    let config = lookbook::similarity::Config {
        features: folder,
        output: place.path().join("similarity"),
        metadata: Some(items.clone()),
        condition: Some("price < 3".to_owned()),
        ..lookbook::similarity::Config::default()
    };
    let run = |config: &lookbook::similarity::Config| {
        lookbook::similarity::run(config, &Common::default()).map(|it| it.published().expect("it is published"))
    };
    let summary = run(&config).unwrap();
    // Of each eight photos 0, 1 and 2, of which 1 wears nothing.
    let counts = ["photos", "neighbours", "photos_without_apparel"].map(|name| summary.counts.count(name).unwrap());
    assert_eq!(counts, [15, 90, 5]);
    let neighbours = lookbook::similarity::read_neighbours(&config.output).unwrap();
    assert!(neighbours.iter().all(|it| it.photo_id % 8 < 3 && it.neighbour_id % 8 < 3));
    let reasons = || lookbook::stage::reasons(&config, &Common::default(), lookbook::stage::Depth::Contents).unwrap();
    assert!(reasons().is_empty());
    fs::write(&items, "file_name,price\n0000.jpg,9\n").unwrap();
    assert_eq!(reasons().len(), 1, "the metadata has changed");
    let summary = run(&config).unwrap();
    assert_eq!(summary.counts.count("photos"), Some(0), "an empty table, and no error");
    let error =
        run(&lookbook::similarity::Config { condition: Some("price".to_owned()), ..config }).expect_err("no condition");
    assert!(error.to_string().contains("similarity.where") && error.exit_code() == 2, "{error}");
}
