//! The report of a run over the sample, without a model: `lookbook train` has its own tests.

use std::path::{Path, PathBuf};

use base64::Engine;

use crate::shared::drawn_sample;
use lookbook::stage::Common;
use lookbook::{convert, report, segment, similarity};

/// Sample, convert, segment from the labels, similarity.
fn run_up_to_similarity(place: &Path) {
    let common = Common::default();
    let source = place.join("sample");
    drawn_sample(&source, 12);
    let dataset = convert::Config { source, output: place.join("dataset"), ..Default::default() };
    convert::run(&dataset, &common).unwrap().published().expect("it is published");
    let features = segment::Config {
        catalogue: place.join("dataset"),
        output: place.join("features"),
        from: segment::LabelSource::Labels,
        ..Default::default()
    };
    segment::run(&features, &common).unwrap().published().expect("it is published");
    let similarity =
        similarity::Config { features: place.join("features"), output: place.join("similarity"), ..Default::default() };
    similarity::run(&similarity, &common).unwrap().published().expect("it is published");
}

/// The report of such a run; its folder.
pub(crate) fn reported(place: &Path) -> PathBuf {
    run_up_to_similarity(place);
    let config = report::Config { run: place.to_owned(), output: place.join("report"), ..Default::default() };
    report::run(&config, &Common::default()).unwrap().published().expect("it is published");
    config.output
}

/// Whether the page is one that needs no network.
fn fetches_nothing(html: &str) {
    for absent in ["src=\"http", "href=\"http", "<link", "@import", "url(http"] {
        assert!(!html.contains(absent), "{absent}: the page needs a network");
    }
}

#[test]
fn a_run_without_a_model_is_reported_as_far_as_it_went() {
    let place = tempfile::tempdir().unwrap();
    run_up_to_similarity(place.path());
    let config =
        report::Config { run: place.path().to_owned(), output: place.path().join("report"), ..Default::default() };
    let summary = report::run(&config, &Common::default()).unwrap().published().unwrap();
    assert_eq!(summary.counts["gallery_photos"], 12);
    assert_eq!(
        summary.counts["parts_left_out"], 4,
        "curve, figures, segmentations, neighbours by labels and by the model"
    );
    let sheet = image::open(config.output.join("thumbnails/0000.jpg")).unwrap().to_rgb8();
    assert_eq!(sheet.dimensions(), (8 * 120, 6 * 180));
    let empty = sheet.get_pixel(4 * 120 + 60, 180 + 90);
    assert!(empty.0.iter().all(|it| it.abs_diff(128) < 4), "the thirteenth place is empty: {empty:?}");

    let measures = std::fs::read(config.output.join("measures.json")).unwrap();
    let measures: Vec<serde_json::Value> = serde_json::from_slice(&measures).unwrap();
    assert_eq!(
        measures.iter().map(|it| it["measure"].as_str()).collect::<Vec<_>>()[..2],
        [Some("pearson"), Some("co_rated")]
    );
    assert!(measures.len() == 5 && measures[4]["measure"].is_null() && measures[0]["pairs"].as_u64() > Some(0));

    let script = std::fs::read_to_string(config.output.join("gallery.js")).unwrap();
    let json = script.trim().trim_start_matches("window.lookbook = ").trim_end_matches(';');
    let gallery: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(gallery["names"].as_array().unwrap().len(), 12);
    let near = lookbook::similarity::read_neighbours(&place.path().join("similarity")).unwrap();
    let nearest = near.iter().find(|it| (it.photo_id, it.rank) == (5, 1)).unwrap();
    let column = |name: &str| {
        let text = gallery["near"][name].as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        bytes.as_chunks::<4>().0.to_vec()
    };
    let first = u32::from_le_bytes(column("starts")[5]) as usize;
    assert_eq!(u32::from_le_bytes(column("photos")[first]), nearest.neighbour_id, "ids are rows here");
    assert_eq!(f32::from_le_bytes(column("correlations")[first]), nearest.correlation);

    let html = std::fs::read_to_string(config.output.join("index.html")).unwrap();
    fetches_nothing(&html);
    assert!(html.contains("data-search=") && html.contains("id=\"wall\""), "the heat map and the gallery are there");
}

#[test]
fn tonight_is_compared_with_last_night() {
    let place = tempfile::tempdir().unwrap();
    run_up_to_similarity(place.path());
    std::fs::write(place.path().join("sample/image/0003.jpg"), "").unwrap();
    let gates = lookbook::gates::Gates { min_photos: Some(11), ..Default::default() };
    let convert = convert::Config {
        source: place.path().join("sample"),
        output: place.path().join("dataset"),
        max_reject_fraction: 1.0,
        ..Default::default()
    };
    convert::run(&convert, &Common { gates, ..Common::default() }).unwrap().published().expect("it is published");
    let config =
        report::Config { run: place.path().to_owned(), output: place.path().join("report"), ..Default::default() };
    report::run(&config, &Common::default()).unwrap().published().expect("it is published");
    let html = std::fs::read_to_string(config.output.join("index.html")).unwrap();
    let row = html.lines().find(|line| line.contains("rejected by convert")).unwrap();
    assert!(row.contains(">1<") && row.contains(">0<") && row.contains("worse\">+1<"), "{row}");
    assert!(html.contains("gate min_photos (11): 11 passes"));
}
