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
