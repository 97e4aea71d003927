//! The whole flow on a small sample, stage by stage, as the Makefile chains them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::shared::library;
use lookbook::dataset::Dataset;
use lookbook::engine::Device;
use lookbook::features::FeatureTable;
use lookbook::graph::Loss;
use lookbook::stage::{Common, Summary};
use lookbook::{convert, evaluate, export, recommend, report, sample, segment, similarity, train};

const PHOTOS: u32 = 20;

fn common() -> Common {
    Common { seed: 4, threads: 2, ..Common::default() }
}

fn convert(place: &Path) {
    let config = sample::Config { output: place.join("sample"), photos: PHOTOS };
    sample::run(&config, &common()).unwrap().published().expect("it is published");
    let config =
        convert::Config { source: place.join("sample"), output: place.join("dataset"), ..convert::Config::default() };
    convert::run(&config, &common()).unwrap().published().expect("it is published");
}

fn training(place: &Path, output: &str) -> train::Config {
    train::Config {
        dataset: place.join("dataset"),
        output: place.join(output),
        epochs: 2,
        batch_size: 5,
        learning_rate: 3e-3,
        loss: Loss::Softmax,
        photo_width_px: 40,
        photo_height_px: 60,
        device: Device::Cpu,
        ..train::Config::default()
    }
}

fn similarity_of(place: &Path, features: &str, output: &str) -> Vec<similarity::Neighbour> {
    let config = similarity::Config {
        features: place.join(features),
        output: place.join(output),
        top: 3,
        ..similarity::Config::default()
    };
    similarity::run(&config, &common()).unwrap().published().expect("it is published");
    similarity::read_neighbours(&config.output).unwrap()
}

#[test]
fn every_stage_hands_on_to_the_next() {
    if library().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    convert(place);
    assert_eq!(Dataset::open(&place.join("dataset")).unwrap().len(), PHOTOS as usize);

    let config = training(place, "model");
    train::run(&config, &common()).unwrap().published().expect("it is published");
    let history = lookbook::model::epochs::read(&place.join("model/history.parquet")).unwrap();
    assert_eq!(history.len(), 2);
    assert!(history[1].train_loss < history[0].train_loss, "it learns: {history:?}");
    for file in
        ["train_step.onnx", "predict.onnx", "weights.safetensors", "int8.json", "loss.csv", "learning_curve.png"]
    {
        assert!(place.join("model").join(file).is_file(), "{file}");
    }
    assert!(place.join("model/checkpoints/epoch-0002.safetensors").is_file());

    let config = evaluate::Config { dataset: place.join("dataset"), model: place.join("model"), ..Default::default() };
    let (evaluation, _) = evaluate::run(&config, &common()).unwrap();
    assert_eq!(evaluation.photos, 2);
    assert!((0.0..=1.0).contains(&evaluation.mean_iou));
    let counted: u64 = evaluation.confusion.iter().flatten().sum();
    assert_eq!(counted, 2 * 400 * 600, "every pixel of the photos and none beside them");

    for (from, output) in [(segment::LabelSource::Model, "features"), (segment::LabelSource::Labels, "labelled")] {
        let config = segment::Config {
            catalogue: place.join("dataset"),
            model: place.join("model"),
            output: place.join(output),
            from,
            ..segment::Config::default()
        };
        segment::run(&config, &common()).unwrap().published().expect("it is published");
        assert_eq!(FeatureTable::open(&config.output).unwrap().photo_ids, (0..PHOTOS).collect::<Vec<_>>());
    }
    let neighbours = similarity_of(place, "labelled", "similarity");
    assert_eq!(neighbours.len(), 3 * PHOTOS as usize);
    assert!(neighbours.iter().all(|it| it.photo_id != it.neighbour_id));

    let config = report::Config { run: place.to_owned(), output: place.join("report"), ..report::Config::default() };
    report::run(&config, &common()).unwrap().published().expect("it is published");
    let page = fs::read_to_string(place.join("report/index.html")).unwrap();
    assert!(page.contains("data:image/") && page.contains("<polyline"), "overlays and curves are in the page");

    for folder in ["sample", "dataset", "model", "features", "labelled", "similarity", "report"] {
        let summary = Summary::read(&place.join(folder)).unwrap();
        assert_eq!(summary.config.seed(), Some(4), "{folder}");
        let hidden = place.join(format!(".{folder}.partial"));
        assert!(!hidden.exists(), "{} is left", hidden.display());
    }
}

#[test]
fn the_same_seed_trains_the_same_model() {
    if library().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    convert(place.path());
    let weights = ["first", "second"].map(|output| {
        train::run(&training(place.path(), output), &common()).unwrap().published().expect("it is published");
        fs::read(place.path().join(output).join("weights.safetensors")).unwrap()
    });
    assert!(weights[0] == weights[1], "the weights are the same to the last bit");
}

#[test]
fn a_photo_of_any_kind_gets_its_looks_and_a_model_is_exported() {
    if library().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    convert(place);
    let config = train::Config { epochs: 12, ..training(place, "model") };
    train::run(&config, &common()).unwrap().published().expect("it is published");
    let config = segment::Config {
        catalogue: place.join("dataset"),
        output: place.join("features"),
        from: segment::LabelSource::Labels,
        ..segment::Config::default()
    };
    segment::run(&config, &common()).unwrap().published().expect("it is published");
    let config = recommend::Config {
        model: place.join("model"),
        features: place.join("features"),
        output: Some(place.join("sheets")),
        top: 4,
        device: Device::Cpu,
        ..recommend::Config::default()
    };
    let photo: PathBuf = place.join("sample/image/0003.jpg");
    let found = recommend::run(&config, &[photo], &common()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].problem, None);
    if !found[0].worn.is_empty() {
        assert_eq!(found[0].neighbours.len(), 4);
    }

    let config = export::Config { model: place.join("model"), output: place.join("export") };
    export::run(&config, &common()).unwrap().published().expect("it is published");
    for file in ["train_step.onnx", "predict.onnx", "weights.safetensors"] {
        assert_eq!(
            fs::read(place.join("export").join(file)).unwrap(),
            fs::read(place.join("model").join(file)).unwrap()
        );
    }
}
