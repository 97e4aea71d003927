//! The report of a run over the sample, without a model: `lookbook train` has its own tests.

use std::path::Path;

use lookbook::stage::Common;
use lookbook::{dataset, report, sample, segment, similarity};

/// Sample, convert, segment from the labels, similarity.
fn run_up_to_similarity(place: &Path) {
    let common = Common::default();
    let source = place.join("sample");
    sample::run(&sample::Config { output: source.clone(), photos: 12 }, &common).unwrap();
    let dataset = dataset::Config { source, output: place.join("dataset"), ..Default::default() };
    dataset::run(&dataset, &common).unwrap();
    let features = segment::Config {
        catalogue: place.join("dataset"),
        output: place.join("features"),
        from: segment::LabelSource::Labels,
        ..Default::default()
    };
    segment::run(&features, &common).unwrap();
    let similarity =
        similarity::Config { features: place.join("features"), output: place.join("similarity"), ..Default::default() };
    similarity::run(&similarity, &common).unwrap();
}

#[test]
fn a_run_without_a_model_is_reported_as_far_as_it_went() {
    let place = tempfile::tempdir().unwrap();
    run_up_to_similarity(place.path());
    let config = report::Config {
        run: place.path().to_owned(),
        output: place.path().join("report"),
        neighbour_photos: 2,
        neighbours: 3,
        ..Default::default()
    };
    let summary = report::run(&config, &Common::default()).unwrap();
    assert_eq!(summary.counts["contact_sheets"], 2);
    assert_eq!(summary.counts["parts_left_out"], 3, "curve, figures and segmentations");
    let pictures = std::fs::read_dir(&config.output).unwrap();
    let pictures: Vec<_> =
        pictures.map(|entry| entry.unwrap().path()).filter(|path| path.extension() == Some("png".as_ref())).collect();
    assert_eq!(pictures.len(), 2, "a file for each sheet");
    for path in &pictures {
        let sheet = image::open(path).unwrap().to_rgb8();
        // Four tiles of the sample's 400 x 600 at half size, and room between.
        assert_eq!(sheet.dimensions(), (4 * 200 + 5 * 14, 300 + 42 + 2 * 14), "{}", path.display());
    }
    let html = std::fs::read_to_string(config.output.join("index.html")).unwrap();
    assert_eq!(html.matches("<img").count(), 2);
    assert_eq!(html.matches("src=\"data:image/").count(), 2, "every picture is embedded");
    for absent in ["src=\"http", "href=\"http", "<link", "<script", "url("] {
        assert!(!html.contains(absent), "{absent}: the page is not self-contained");
    }
    if let Some(folder) = std::env::var_os("LOOKBOOK_PICTURES") {
        std::fs::copy(config.output.join("index.html"), Path::new(&folder).join("partial.html")).unwrap();
    }
}
