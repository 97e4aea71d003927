//! `recommend`: photos from outside against a catalogue whose answers are known.

use std::fs;
use std::path::{Path, PathBuf};

use crate::model::{striped_jpeg, write_flat_model};
use crate::shared::library;
use lookbook::error::{Error, Result};
use lookbook::recommend::{self, Config, Recommendation};
use lookbook::stage::Common;
use lookbook::{photo, segment};

/// The colours of the catalogue's photos 0, 1, ... (ids of [`lookbook::labels::COLORS`]).
const CATALOGUE: [&[u8]; 6] = [&[2, 2, 3], &[2, 3, 3], &[10], &[6, 6, 12], &[11, 11, 11, 5], &[10, 8]];

/// A catalogue, a model that sees T-shirts alone, and the features of the one by the other.
fn shop(place: &Path) {
    shop_with(place, &segment::Config::default());
}

fn shop_with(place: &Path, config: &segment::Config) {
    fs::create_dir(place.join("shop")).unwrap();
    for (number, colors) in CATALOGUE.iter().enumerate() {
        fs::write(place.join(format!("shop/{number}.jpg")), striped_jpeg(120, 180, colors)).unwrap();
    }
    write_flat_model(&place.join("model"), 1);
    let config = segment::Config {
        catalogue: place.join("shop"),
        model: place.join("model"),
        output: place.join("features"),
        ..config.clone()
    };
    segment::run(&config, &Common::default()).unwrap().published().expect("it is published");
}

fn ask(place: &Path, photos: &[PathBuf], change: impl FnOnce(&mut Config)) -> Result<Vec<Recommendation>> {
    let mut config =
        Config { model: place.join("model"), features: place.join("features"), top: 3, ..Config::default() };
    change(&mut config);
    recommend::run(&config, photos, &Common::default())
}

#[test]
fn a_photo_of_any_size_finds_the_like_and_says_why() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    for (number, (width, height)) in [(37, 53), (1500, 400), (400, 600)].into_iter().enumerate() {
        let photo = place.path().join(format!("query{number}.jpg"));
        fs::write(&photo, striped_jpeg(width, height, &[6, 6, 6, 12, 12])).unwrap();
        let answers = ask(place.path(), std::slice::from_ref(&photo), |_| {})?;
        let [answer] = &answers[..] else { panic!("one photo, one answer") };
        assert_eq!(answer.worn[0].name, "Tshirt_green");
        assert_eq!(answer.neighbours.len(), 3);
        let first = &answer.neighbours[0];
        assert_eq!((first.rank, first.file_name.as_str()), (1, "3.jpg"));
        assert!(first.correlation > 0.9 && first.correlation >= answer.neighbours[1].correlation);
        assert_eq!(first.shared_cells[0].name, "Tshirt_green");
        let text = answer.to_string();
        assert!(text.contains("3.jpg") && text.contains("Tshirt_green"), "{text}");
        assert!(serde_json::to_string(&answers).unwrap().contains("\"Tshirt_green\""));
    }
    Ok(())
}

#[test]
fn what_a_photo_wears_follows_the_rule_of_the_features() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop_with(place.path(), &segment::Config { min_share: 1.0, min_region: 1.0, ..Default::default() });
    let photo = place.path().join("query.jpg");
    fs::write(&photo, striped_jpeg(400, 600, &[6, 6, 6, 6, 12])).unwrap();
    let answers = ask(place.path(), &[photo], |_| {})?;
    let worn: Vec<&str> = answers[0].worn.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(worn, ["Tshirt_green"], "a fifth of yellow is less than the usual 0.259 of a T-shirt");
    Ok(())
}

#[test]
fn the_contact_sheet_shows_the_photo_and_its_neighbours() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    let photo = place.path().join("me.jpg");
    fs::write(&photo, striped_jpeg(300, 300, &[10, 10, 8])).unwrap();
    // A neighbour's picture that is gone does not end the run.
    fs::remove_file(place.path().join("shop/5.jpg")).unwrap();
    let output = place.path().join("looks");
    let answers = ask(place.path(), &[photo], |config| config.output = Some(output.clone()))?;
    let sheet = answers[0].contact_sheet.as_ref().expect("a sheet was asked for");
    assert_eq!(sheet, &output.join("001_me.png"));
    let picture = photo::read(sheet).expect("the sheet is a picture");
    assert!(picture.width_px > picture.height_px, "four pictures in a row");
    let red = picture.rgb.chunks_exact(3).filter(|it| it[0] > 150 && it[1] < 80 && it[2] < 80).count();
    assert!(red * 20 > (picture.width_px * picture.height_px) as usize, "the red stripes are to be seen: {red}");
    Ok(())
}

#[test]
fn a_photo_of_the_catalogue_is_not_recommended_to_itself() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    let answers = ask(place.path(), &[place.path().join("shop/0.jpg")], |_| {})?;
    assert_eq!(answers[0].neighbours[0].file_name, "1.jpg");
    assert!(answers[0].neighbours.iter().all(|it| it.file_name != "0.jpg"));
    Ok(())
}

#[test]
fn bad_photos_are_named_and_good_ones_answered_all_the_same() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    let folder = place.path().join("mine");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.jpg"), b"").unwrap();
    fs::write(folder.join("b.jpg"), striped_jpeg(60, 90, &[10])).unwrap();
    let answers = ask(place.path(), &[folder.clone(), place.path().join("gone.jpg")], |_| {})?;
    let problems: Vec<_> =
        answers.iter().map(|it| it.problem.as_deref().map(|it| it.split(':').next().unwrap())).collect();
    assert_eq!(problems, [Some("photo_empty"), None, Some("photo_missing")]);
    assert_eq!(answers[1].neighbours[0].file_name, "2.jpg");

    let all_bad = ask(place.path(), &[folder.join("a.jpg")], |_| {}).expect_err("not one is good");
    assert!(matches!(all_bad, Error::Input { .. }) && all_bad.to_string().contains("a.jpg"), "{all_bad}");
    assert_eq!(ask(place.path(), &[], |_| {}).expect_err("no photo").exit_code(), 2);
    Ok(())
}

#[test]
fn a_photo_in_which_nothing_is_worn_is_said_to_be_so() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    write_flat_model(&place.path().join("model"), 8);
    let photo = place.path().join("face.jpg");
    fs::write(&photo, striped_jpeg(60, 90, &[10])).unwrap();
    let answers = ask(place.path(), &[photo], |_| {})?;
    assert!(answers[0].worn.is_empty() && answers[0].neighbours.is_empty() && answers[0].problem.is_none());
    assert!(answers[0].to_string().contains("nothing is worn"), "{}", answers[0]);
    Ok(())
}

/// The catalogue's prices: photos 0 to 5, of which the last has no row.
const ITEMS: &str = "photo_id,price,brand\n0,10,X\n1,90,X\n2,20,\"<b>Y</b>\"\n3,30,X\n4,,X\n77,5,X\n";

/// A photo of blue and black stripes, like photos 0 and 1.
fn query(place: &Path) -> PathBuf {
    let photo = place.join("query.jpg");
    fs::write(&photo, striped_jpeg(400, 600, &[2, 2, 3, 3, 3])).unwrap();
    photo
}

fn names(answer: &Recommendation) -> Vec<&str> {
    answer.neighbours.iter().map(|it| it.file_name.as_str()).collect()
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|&it| it.to_owned()).collect()
}

#[test]
fn conditions_act_before_the_ranking() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    let (photo, items) = (query(place.path()), place.path().join("items.csv"));
    fs::write(&items, ITEMS).unwrap();
    let chosen = |text: &str| {
        ask(place.path(), std::slice::from_ref(&photo), |config| {
            (config.metadata, config.condition, config.top) = (Some(items.clone()), Some(text.to_owned()), 2);
        })
    };
    let all = ask(place.path(), std::slice::from_ref(&photo), |config| config.top = 6)?;
    assert_eq!(names(&all[0])[..2], ["1.jpg", "0.jpg"]);
    let cheap = chosen("price < 80")?;
    assert_eq!(cheap[0].neighbours.len(), 2, "those that are dearer were left out before the two were found");
    assert_eq!(names(&cheap[0])[0], "0.jpg");
    assert_eq!(cheap[0].steering, ["price < 80 (3 of 6 photos)"]);
    assert_eq!(names(&chosen("brand = '<b>Y</b>' and Tshirt_red > 0.9")?[0]), ["2.jpg"]);
    let none = chosen("price < 0")?;
    assert!(none[0].neighbours.is_empty() && none[0].problem.is_none());
    assert!(none[0].to_string().contains("no photo of the catalogue has all that was asked for"), "{}", none[0]);
    for (text, said) in [("prise < 80", "did you mean 'price'"), ("brand < 80", "they do not compare")] {
        let error = chosen(text).expect_err(text);
        assert!(error.to_string().contains(said) && error.exit_code() == 2, "{error}");
    }
    Ok(())
}

#[test]
fn what_is_asked_for_is_found_and_explained() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    let photo = query(place.path());
    let asked = |change: &dyn Fn(&mut Config)| {
        let answers = ask(place.path(), std::slice::from_ref(&photo), |config| {
            config.top = 6;
            change(config);
        });
        answers.map(|mut it| it.swap_remove(0))
    };
    // 0 is black, black, blue; 1 is black, blue, blue; the query is two parts black and three blue.
    let plain = asked(&|_| {})?;
    for it in &plain.neighbours {
        let cells = it.shared_cells.iter().chain(&it.unshared_cells).map(|cell| cell.contribution).sum::<f32>();
        assert!((cells + it.other_cells - it.correlation).abs() < 2e-6, "{it:?}");
    }
    let black = asked(&|it| it.like = list(&["black=2"]))?;
    assert_eq!(names(&black)[..2], ["0.jpg", "1.jpg"]);
    let first = &black.neighbours[0];
    let liked = &first.preferences[0];
    assert!((liked.share - 2.0 / 3.0).abs() < 0.02 && (liked.contribution - 2.0 * liked.share).abs() < 1e-6);
    assert!((first.score.unwrap() - first.correlation - liked.contribution).abs() < 1e-6);
    assert!(black.to_string().contains("like black +2") && black.to_string().contains("liked black (+1.3"), "{black}");
    let unlike = asked(&|it| it.unlike = list(&["black=2", "blue=2"]))?;
    assert!(names(&unlike)[4..].iter().all(|it| ["0.jpg", "1.jpg"].contains(it)), "{unlike}");

    assert_eq!(names(&asked(&|it| it.same = list(&["T-shirt"]))?), ["1.jpg"], "only its main colour is blue");
    let different = asked(&|it| it.different = list(&["tshirt"]))?;
    assert_eq!((different.neighbours.len(), names(&different)[0]), (5, "0.jpg"));
    assert!(different.steering.contains(&"different T-shirt: blue".to_owned()), "{different}");
    let none = asked(&|it| it.same = list(&["coat"]))?;
    assert!(none.neighbours.is_empty() && none.steering == ["same coat: none is worn"], "{none}");

    let garment = asked(&|it| it.garment = Some("T-shirt".to_owned()))?;
    assert_eq!(names(&garment)[..2], ["1.jpg", "0.jpg"]);
    let [blue, black] = [0, 1].map(|place| 100.0 * plain.worn[place].share);
    assert_eq!(garment.steering, [format!("only the T-shirt counts: blue {blue:.0} %, black {black:.0} %")]);
    assert!(asked(&|it| it.wearing = list(&["shoe"]))?.neighbours.is_empty(), "nobody wears shoes");

    let least = plain.neighbours[1].correlation;
    assert_eq!(names(&asked(&|it| it.min_correlation = Some(least))?), ["1.jpg", "0.jpg"]);
    let diverse = asked(&|it| it.diverse = 0.6)?;
    assert_eq!(names(&diverse)[0], "1.jpg");
    assert_ne!(names(&diverse)[1], "0.jpg", "it is too much like the first");
    assert!(
        diverse.neighbours[1].most_like_earlier.is_some() && diverse.to_string().contains("most like an earlier one")
    );
    Ok(())
}

/// Writes `groups.parquet` with the group of each of the catalogue's photos.
fn write_groups(folder: &Path, groups: [u32; 6]) {
    use arrow::array::{ArrayRef, BooleanArray, UInt32Array};
    use arrow::datatypes::{DataType, Field};
    use std::sync::Arc;
    fs::create_dir(folder).unwrap();
    let numbers = ["photo_id", "group_id", "distance"].map(|name| Field::new(name, DataType::UInt32, false));
    let flags = ["is_representative", "is_exact_copy"].map(|name| Field::new(name, DataType::Boolean, false));
    let schema = lookbook::table::schema("duplicate_groups", numbers.into_iter().chain(flags).collect());
    let first: Vec<bool> = (0..6).map(|id| groups[id as usize] == id).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(0..6)),
        Arc::new(UInt32Array::from(groups.to_vec())),
        Arc::new(UInt32Array::from(vec![0; 6])),
        Arc::new(BooleanArray::from(first)),
        Arc::new(BooleanArray::from(vec![false; 6])),
    ];
    let rows = arrow::record_batch::RecordBatch::try_new(schema, columns).unwrap();
    lookbook::table::write_table(&folder.join("groups.parquet"), &rows).unwrap();
}

#[test]
fn one_of_each_group_of_duplicates_is_recommended_and_none_of_the_photos_own() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    let groups = place.path().join("groups");
    write_groups(&groups, [0, 0, 2, 3, 4, 2]);
    let asked = |photo: PathBuf| {
        ask(place.path(), &[photo], |config| {
            (config.top, config.no_duplicates, config.duplicates) = (6, true, Some(groups.clone()));
        })
    };
    let answers = asked(query(place.path()))?;
    let found = names(&answers[0]);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.contains(&"1.jpg") && !found.contains(&"0.jpg"), "the nearest of the group, not its representative");
    assert!(answers[0].to_string().contains("one of each group of duplicates"), "{}", answers[0]);
    let own = asked(place.path().join("shop/1.jpg"))?;
    assert!(names(&own[0]).iter().all(|it| !["0.jpg", "1.jpg"].contains(it)), "{}", own[0]);
    Ok(())
}

/// The rows of `recommendations.parquet`: photo, rank, neighbour and correlation.
fn recommendations(folder: &Path) -> Vec<(u32, u32, u32, f32)> {
    use arrow::array::{AsArray, Float32Array, ListArray, UInt32Array};
    use lookbook::table::{column, read_table};
    let path = folder.join("recommendations.parquet");
    let mut all = Vec::new();
    for rows in read_table(&path, "recommendations", &[], 1 << 16).unwrap() {
        let rows = rows.unwrap();
        let [photos, ranks, neighbours] = ["photo_id", "rank", "neighbour_id"]
            .map(|name| column::<UInt32Array>(&path, &rows, name).unwrap().values().to_vec());
        let correlations = column::<Float32Array>(&path, &rows, "correlation").unwrap();
        let others = column::<Float32Array>(&path, &rows, "other_cells").unwrap();
        let cells: &ListArray = column(&path, &rows, "cells").unwrap();
        for row in 0..rows.num_rows() {
            let of_row = cells.value(row);
            let terms = of_row.as_struct().column_by_name("contribution").unwrap();
            let sum: f32 = terms.as_primitive::<arrow::datatypes::Float32Type>().values().iter().sum();
            assert!((sum + others.value(row) - correlations.value(row)).abs() < 2e-6);
            all.push((photos[row], ranks[row], neighbours[row], correlations.value(row)));
        }
    }
    all
}

#[test]
fn many_photos_are_answered_like_one_and_bad_ones_are_rejects() -> Result<()> {
    if library().is_none() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    shop(place.path());
    let (mine, output) = (place.path().join("mine"), place.path().join("looks"));
    fs::create_dir(&mine).unwrap();
    for number in 0..23_u8 {
        let photo =
            striped_jpeg(90 + 10 * u32::from(number), 200, &[1 + number % 12, 1 + number % 12, 1 + number / 2 % 12]);
        fs::write(mine.join(format!("{number:02}.jpg")), photo).unwrap();
    }
    fs::write(mine.join("03.jpg"), b"not a photo").unwrap();
    let config = Config {
        model: place.path().join("model"),
        features: place.path().join("features"),
        photos: Some(mine.clone()),
        output: Some(output.clone()),
        unlike: list(&["yellow"]),
        top: 3,
        ..Config::default()
    };
    let run = |config: &Config| recommend::many::run(config, &Common::default());
    let summary = run(&config)?.published().expect("one of 23 is allowed");
    let counts = ["photos", "recommendations", "rejects"].map(|name| summary.counts.count(name).unwrap());
    assert_eq!((counts[0], counts[2]), (22, 1));
    let found = recommendations(&output);
    assert_eq!(found.len() as u64, counts[1]);
    let answers = ask(place.path(), std::slice::from_ref(&mine), |config| config.unlike = list(&["yellow"]))?;
    let expected: Vec<_> = (0..)
        .zip(&answers)
        .flat_map(|(photo, it)| it.neighbours.iter().map(move |it| (photo, it.rank, it.photo_id, it.correlation)))
        .collect();
    assert_eq!(found, expected, "in the order of the photos");
    let rejects = lookbook::rejects::read(&output.join("rejects.parquet"))?;
    assert_eq!((rejects.len(), &*rejects[0].reason), (1, "photo_undecodable"));

    assert!(lookbook::stage::reasons(&config, &Common::default(), lookbook::stage::Depth::Contents)?.is_empty());
    fs::write(mine.join("99.jpg"), b"").unwrap();
    let reasons = lookbook::stage::reasons(&config, &Common::default(), lookbook::stage::Depth::Contents)?;
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(run(&config)?.problem().is_some_and(|it| it.contains("rejects.parquet")), "two of 24 are too many");

    let nothing = Config { condition: Some("photo_id > 99".to_owned()), max_reject_fraction: 0.5, ..config.clone() };
    let summary = run(&nothing)?.published().expect("an empty table is one");
    assert_eq!(summary.counts.count("photos_without_neighbours"), Some(22));
    assert!(recommendations(&output).is_empty());
    let error = run(&Config { output: None, ..config }).expect_err("no output");
    assert!(error.to_string().contains("recommend.output") && error.exit_code() == 2, "{error}");
    Ok(())
}
