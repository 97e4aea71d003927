//! Label maps in 8-bit integers: how near they are to those in f32, what becomes of the table, and what is refused.

use std::fs;
use std::path::Path;

use crate::shared::{drawn_sample, library, skip};
use lookbook::dataset::Dataset;
use lookbook::engine::{DialectChoice, Engine, InstructionsChoice, PrecisionChoice};
use lookbook::error::Result;
use lookbook::graph::encoder::lite0;
use lookbook::graph::{self, Loss, Spec, parameters};
use lookbook::labels::LabelSet;
use lookbook::model::files::{INT8_FILE, PREDICT_FILE};
use lookbook::model::{Model, calibration};
use lookbook::photo::Photo;
use lookbook::runtime::operators;
use lookbook::segment::{self, Config};
use lookbook::stage::{Common, Summary};
use lookbook::{color, convert, files, train};

/// Whether there are the library and the instructions.
fn can_run() -> bool {
    if library().is_none() {
        return false;
    }
    if !operators::has_int8() {
        skip("this processor has no AVX-512-VNNI or no AVX-512-BF16");
    }
    operators::has_int8()
}

/// A data set of drawn photos.
fn dataset(place: &Path) -> Dataset {
    drawn_sample(&place.join("source"), 40);
    let config = convert::Config { source: place.join("source"), output: place.join("dataset"), ..Default::default() };
    convert::run(&config, &Common::default()).unwrap().published().expect("it is published");
    Dataset::open(&place.join("dataset")).unwrap()
}

fn write_ranges(model: &Path, dataset: &Dataset) {
    let predict = fs::read(model.join(PREDICT_FILE)).unwrap();
    let ranges = calibration::measure(dataset, &predict, 0, 2).unwrap();
    files::write_json(&model.join(INT8_FILE), &ranges).unwrap();
}

/// Halves the range of the first channel of a model's first map.
fn narrow_ranges(model: &Path) {
    let text = fs::read_to_string(model.join(INT8_FILE)).unwrap();
    let mut content: serde_json::Value = serde_json::from_str(&text).unwrap();
    let high = &mut content["maps"]["down1a"]["high"][0];
    *high = (high.as_f64().unwrap() / 2.0).into();
    files::write_json(&model.join(INT8_FILE), &content).unwrap();
}

/// A model of arbitrary weights, with the ranges of its maps.
fn write_model(folder: &Path, spec: &Spec, dataset: &Dataset) {
    // Initial weights, enlarged so that the signal does not fade on its way through the layers.
    let weights: Vec<f32> = parameters::initial_weights(spec, 5).into_iter().map(|it| it * 1.5).collect();
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(PREDICT_FILE), graph::predict(spec, &weights)).unwrap();
    color::ColorTable::typical(&LabelSet::cfpd()).write(&folder.join(color::FILE)).unwrap();
    write_ranges(folder, dataset);
}

fn photos(dataset: &Dataset) -> Vec<Photo> {
    let records = dataset.photos(None).unwrap().map(|it| it.unwrap());
    records.map(|it| it.decode(&dataset.photos_path()).unwrap()).collect()
}

/// Share of the pixels whose category another precision changes.
fn changed(model: &Path, photos: &[Photo], precision: PrecisionChoice) -> f64 {
    let model = Model::open(model).unwrap();
    let label_maps = |choice| {
        let mut predictor = model.predictor(Engine::default(), choice).unwrap();
        predictor.label_maps(photos).unwrap().concat()
    };
    let [exact, other] = [PrecisionChoice::F32, precision].map(label_maps);
    exact.iter().zip(&other).filter(|(a, b)| a != b).count() as f64 / exact.len() as f64
}

#[test]
fn networks_of_every_kind_label_nearly_as_in_f32() {
    if !can_run() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (dataset, model) = (dataset(place.path()), place.path().join("model"));
    let photos = photos(&dataset);
    let seed = Spec { channels: vec![8, 16, 32], ..Spec::seed(64, 96, Loss::Bce) };
    let best = Spec { channels: vec![16, 24, 48], stride: 2, presence: true, ..Spec::seed(64, 96, Loss::Softmax) };
    let mirrored = Spec { mirror: true, ..best.clone() };
    let channels = vec![32, 64, 96, 128];
    let pretrained = Spec { channels, logit_scale: 4, encoder: Some(lite0()), ..best.clone() };
    for (name, spec) in [("seed", seed), ("best", best), ("mirrored", mirrored), ("pretrained", pretrained)] {
        write_model(&model, &spec, &dataset);
        let share = changed(&model, &photos, PrecisionChoice::Int8);
        // The weights are drawn, so many pixels are close calls.
        assert!(share < 0.1, "{name}: {share} of the pixels are of another category");
    }
}

#[test]
fn a_trained_model_labels_the_sample_as_in_f32() {
    if !can_run() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let dataset = dataset(place.path());
    let config = train::Config {
        dataset: place.path().join("dataset"),
        output: place.path().join("model"),
        epochs: 20,
        photo_width_px: 64,
        photo_height_px: 96,
        ..train::Config::of(train::Recipe::Best)
    };
    train::run(&config, &Common::default()).unwrap().published().expect("it is published");
    let share = changed(&config.output, &photos(&dataset), PrecisionChoice::Int8);
    assert!(share < 0.005, "{share} of the pixels are of another category");
}

fn segmented(place: &Path, change: impl FnOnce(&mut Config)) -> Result<Summary> {
    let mut config = Config {
        catalogue: place.join("photos"),
        model: place.join("model"),
        output: place.join("features"),
        precision: PrecisionChoice::Int8,
        ..Config::default()
    };
    change(&mut config);
    Ok(segment::run(&config, &Common::default())?.published().expect("it is published"))
}

/// Photos as files, and a small model with its ranges.
fn shop(place: &Path) {
    let dataset = dataset(place);
    fs::create_dir_all(place.join("photos")).unwrap();
    for record in dataset.photos(None).unwrap().take(6) {
        let record = record.unwrap();
        let photo = record.decode(&dataset.photos_path()).unwrap();
        let image = image::RgbImage::from_raw(photo.width_px, photo.height_px, photo.rgb).unwrap();
        image.save(place.join(format!("photos/{}.png", record.photo_id))).unwrap();
    }
    let spec = Spec { channels: vec![8, 16], ..Spec::seed(48, 64, Loss::Softmax) };
    write_model(&place.join("model"), &spec, &dataset);
}

#[test]
fn rows_are_computed_again_for_another_precision_or_other_ranges() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    shop(place);
    let counts = |summary: &Summary| ["known", "outdated", "new"].map(|it| summary.counts.count(it).unwrap_or(0));
    let first = segmented(place, |_| ())?;
    assert_eq!((counts(&first), first.counts.get::<String>("precision").as_deref()), ([0, 0, 6], Some("int8")));
    assert!(first.inputs.iter().any(|it| it.path.ends_with(INT8_FILE)));
    assert_eq!(counts(&segmented(place, |_| ())?), [6, 0, 0]);
    let in_f32 = segmented(place, |config| config.precision = PrecisionChoice::F32)?;
    assert_eq!(counts(&in_f32), [0, 6, 0]);
    assert!(!in_f32.inputs.iter().any(|it| it.path.ends_with(INT8_FILE)));
    assert_eq!(counts(&segmented(place, |_| ())?), [0, 6, 0]);
    narrow_ranges(&place.join("model"));
    assert_eq!(counts(&segmented(place, |_| ())?), [0, 6, 0]);
    // `auto` takes 8-bit integers only if the settings allow it, and only for a model that has ranges.
    let auto =
        |allow| segmented(place, |config| (config.precision, config.allow_int8) = (PrecisionChoice::Auto, allow));
    assert_eq!(counts(&auto(true)?), [6, 0, 0]);
    assert_eq!(auto(false)?.counts.get::<String>("precision").as_deref(), Some("bf16"));
    fs::remove_file(place.join("model").join(INT8_FILE)).unwrap();
    assert_eq!(auto(true)?.counts.get::<String>("precision").as_deref(), Some("bf16"));
    Ok(())
}

#[test]
fn what_cannot_be_done_in_int8_is_said_by_name() {
    if !can_run() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    shop(place);
    let engine = Engine::default();
    let problem = |engine: Engine| {
        let model = Model::open(&place.join("model")).unwrap();
        model.predictor(engine, PrecisionChoice::Int8).expect_err("it is refused").to_string()
    };
    let avx2 = problem(Engine { instructions: InstructionsChoice::Portable, ..engine });
    assert!(avx2.contains("no AVX-512-VNNI") && avx2.contains("'auto'"), "{avx2}");
    let portable = problem(Engine { dialect: DialectChoice::Portable, ..engine });
    assert!(portable.contains("int8 needs native operators"), "{portable}");
    let ranges = place.join("model").join(INT8_FILE);
    let whole = fs::read(&ranges).unwrap();
    fs::write(&ranges, &whole[..whole.len() / 2]).unwrap();
    let damaged = problem(engine);
    assert!(damaged.contains(INT8_FILE) && damaged.contains("is damaged"), "{damaged}");
    let other = String::from_utf8(whole).unwrap().replacen("\"model_id\": \"", "\"model_id\": \"f", 1);
    fs::write(&ranges, other).unwrap();
    assert!(problem(engine).contains("was measured for the model f"));
    fs::remove_file(&ranges).unwrap();
    let missing = segmented(place, |_| ()).expect_err("there are no ranges").to_string();
    assert!(missing.contains(INT8_FILE) && missing.contains("lookbook evaluate --calibrate"), "{missing}");
    assert!(!place.join("features").exists(), "nothing is published");
}
