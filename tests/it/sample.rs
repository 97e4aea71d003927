//! `sample`: the same seed gives the same bytes, everything occurs, and `convert` reads what was drawn.

use std::collections::BTreeSet;
use std::path::Path;

use lookbook::dataset::{Dataset, Split};
use lookbook::labels::{CATEGORY_COUNT, COLOR_COUNT};
use lookbook::mat::cfpd::Cfpd;
use lookbook::stage::Common;
use lookbook::{Error, convert, sample};

fn draw(output: &Path, photos: u32, common: &Common) {
    sample::run(&sample::Config { output: output.to_owned(), photos }, common)
        .expect("a sample")
        .published()
        .expect("it is published");
}

fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = vec!["fashon_parsing_data.mat".to_owned()];
    let images = std::fs::read_dir(folder.join("image")).expect("a folder of photos");
    files.extend(images.map(|entry| format!("image/{}", entry.expect("an entry").file_name().display())));
    files.sort();
    files.into_iter().map(|name| (name.clone(), std::fs::read(folder.join(name)).expect("a file"))).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let common = |seed, threads| Common { seed, threads, ..Common::default() };
    let outputs = ["a", "b", "c"].map(|name| place.path().join(name));
    draw(&outputs[0], 3, &common(5, 1));
    draw(&outputs[1], 3, &common(5, 3));
    draw(&outputs[2], 3, &common(6, 3));
    let [a, b, c] = outputs.map(|output| content(&output));
    assert_eq!(a.len(), 4);
    assert!(a == b, "the number of threads changed the bytes");
    assert!(a != c, "another seed gave the same bytes");
}

#[test]
fn every_category_and_every_colour_occurs_and_the_test_part_holds_all_categories() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let (drawn, output) = (place.path().join("sample"), place.path().join("dataset"));
    draw(&drawn, sample::DEFAULT_PHOTOS, &Common::default());
    let config = convert::Config { source: drawn.clone(), output: output.clone(), ..Default::default() };
    let summary = convert::run(&config, &Common::default()).expect("a dataset").published().expect("it is published");
    assert_eq!(summary.counts["photos"], sample::DEFAULT_PHOTOS);
    assert_eq!(summary.counts["rejects"], 0);

    let source = Cfpd::open(&drawn.join("fashon_parsing_data.mat")).expect("the drawn file");
    let dataset = Dataset::open(&output).expect("the dataset");
    assert_eq!(dataset.len(), source.len());
    let (mut categories, mut colors, mut tested) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, record) in dataset.photos(None).expect("the photos").enumerate() {
        let record = record.expect("a whole row");
        let labels = source.annotation(index).expect("no fault of the disk").expect("a drawn entry");
        assert_eq!(record.superpixels, labels.superpixels, "photo {index}");
        assert_eq!(record.superpixel_category, labels.superpixel_category, "photo {index}");
        assert_eq!(record.superpixel_color, labels.superpixel_color, "photo {index}");
        assert_eq!((record.width_px, record.height_px), (400, 600));
        categories.extend(record.category_map());
        colors.extend(record.color_map().expect("colours"));
        if record.split == Split::Test {
            tested.extend(record.category_map());
        }
    }
    assert_eq!(categories, (0..CATEGORY_COUNT as u8).collect());
    assert_eq!(colors, (0..COLOR_COUNT as u8).collect());
    assert_eq!(tested, categories);
}

#[test]
fn a_number_of_photos_out_of_range_is_refused_before_anything_is_written() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let output = place.path().join("sample");
    for photos in [0, 10_000] {
        let refused = sample::run(&sample::Config { output: output.clone(), photos }, &Common::default());
        let error = refused.expect_err("out of range");
        assert!(matches!(error, Error::Config { .. }), "{error}");
        assert!(error.to_string().contains("photos"), "{error}");
    }
    assert!(!output.exists());
}

#[test]
fn a_dry_run_writes_nothing() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let output = place.path().join("sample");
    let common = Common { dry_run: true, ..Common::default() };
    let config = sample::Config { output: output.clone(), ..Default::default() };
    let summary = sample::run(&config, &common).expect("a plan").published().expect("a plan");
    assert_eq!(summary.counts["photos"], sample::DEFAULT_PHOTOS);
    assert_eq!(std::fs::read_dir(place.path()).expect("a folder").count(), 0);
}
