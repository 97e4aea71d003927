//! `convert`: every label against h5py, and bad input of every kind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hdf5_pure::FileBuilder;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::shared::shared;
use lookbook::Error;
use lookbook::convert::{self, Config};
use lookbook::dataset::{Dataset, Split};
use lookbook::files::hexadecimal;
use lookbook::labels::{CATEGORIES, COLORS};
use lookbook::mat::cfpd::Cfpd;
use lookbook::stage::{Common, Outcome};

const MAT: &str = "fashon_parsing_data.mat";

fn convert(source: &Path, output: &Path) -> Result<Outcome, Error> {
    let config = Config { source: source.to_owned(), output: output.to_owned(), ..Default::default() };
    convert::run(&config, &Common::default())
}

/// Item and reason of each row of `rejects.parquet`.
fn rejects(output: &Path) -> Vec<(String, String)> {
    let path = output.join("rejects.parquet");
    let text = |rows: &arrow::array::RecordBatch, name: &str| {
        let column: &arrow::array::StringArray = lookbook::table::column(&path, rows, name).expect("a text column");
        column.iter().map(|value| value.unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let reader = lookbook::table::read_table(&path, "rejects", &[], 1024).expect("the table of rejects");
    let rows = reader.map(|rows| rows.expect("whole rows"));
    rows.flat_map(|rows| text(&rows, "item").into_iter().zip(text(&rows, "reason"))).collect()
}

// ---- Against h5py -------------------------------------------------------------------------------------------------

fn check_against_oracle(source: &Path, oracle: &str) {
    let oracle: BTreeMap<String, String> = serde_json::from_str(oracle).expect("stored hashes");
    let place = tempfile::tempdir().expect("a temporary folder");
    let output = place.path().join("dataset");
    convert(source, &output).expect("a dataset").published().expect("it is published");
    let mut found = BTreeMap::new();
    for record in Dataset::open(&output).and_then(|dataset| dataset.photos(None)).expect("the photos") {
        let record = record.expect("a whole row");
        let mut digest = Sha256::new();
        digest.update(record.category_map());
        digest.update(record.color_map().expect("colours"));
        found.insert(record.file_name, hexadecimal(&digest.finalize())[..16].to_owned());
    }
    assert!(!oracle.is_empty());
    assert_eq!(found, oracle);
}

#[test]
fn every_label_of_a_file_of_h5py_is_as_h5py_reads_it() {
    let oracle = fs::read_to_string("tests/data/convert_cfpd_small.json").expect("stored hashes");
    check_against_oracle(Path::new("tests/data/cfpd_small"), &oracle);
}

#[test]
fn every_label_of_the_real_photos_is_as_h5py_reads_it() {
    let Some(source) = shared("data/cfpd") else { return };
    let oracle = fs::read_to_string("tests/data/convert_cfpd.json").expect("stored hashes");
    check_against_oracle(&source, &oracle);
}

#[test]
fn clothing_co_parsing_is_told_by_its_layout_and_folded() {
    let Some(source) = shared("data/ccp") else { return };
    let place = tempfile::tempdir().expect("a temporary folder");
    let output = place.path().join("dataset");
    let summary = convert(&source, &output).expect("a dataset").published().expect("few rejects");
    assert_eq!(summary.counts["layout"], "ccp");
    assert_eq!((&summary.counts["photos"], &summary.counts["without_pixel_labels"]), (&40.into(), &4.into()));
    let left_out = rejects(&output);
    assert_eq!(left_out.len(), 4);
    assert!(left_out.iter().all(|(_, reason)| reason == "no_pixel_labels"), "{left_out:?}");
    let dataset = Dataset::open(&output).expect("the dataset");
    let first = dataset.photos(None).expect("the photos").next().expect("a photo").expect("a whole row");
    assert_eq!((first.width_px, first.height_px), (550, 832));
    assert_eq!(first.superpixel_color, None);
    assert_eq!(first.color_map(), None);
}

// ---- Bad entries --------------------------------------------------------------------------------------------------

/// One entry of a made-up source; a field of `None` is missing.
#[derive(Clone)]
struct Photo {
    name: Option<Vec<u16>>,
    segmentation: Option<(Vec<u64>, Vec<f32>)>,
    category: Option<Vec<f64>>,
    color: Option<Vec<f64>>,
}

const WIDTH: u64 = 6;
const HEIGHT: u64 = 9;

/// A good entry with two superpixels.
fn good(index: usize) -> Photo {
    let numbers = (0..WIDTH * HEIGHT).map(|i| (i % 2) as f32).collect();
    Photo {
        name: Some(format!("{index:04}.jpg").encode_utf16().collect()),
        segmentation: Some((vec![WIDTH, HEIGHT], numbers)),
        category: Some(vec![1.0, 23.0]),
        color: Some(vec![1.0, 13.0]),
    }
}

fn jpeg(width: u64, height: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i * 7 % 256) as u8).collect();
    image::codecs::jpeg::JpegEncoder::new(&mut bytes)
        .encode(&pixels, width as u32, height as u32, image::ExtendedColorType::Rgb8)
        .expect("a small photo");
    bytes
}

/// The `.mat` file of these entries.
fn mat(photos: &[Photo], categories: &[&str]) -> Vec<u8> {
    let mut file = FileBuilder::new();
    file.with_userblock(512);
    let mut header = format!("{:124}", "MATLAB 7.3 MAT-file, made up for a test").into_bytes();
    header.extend([0, 2, b'I', b'M']);
    file.with_userblock_content(&header);
    let mut refs = file.create_group("#refs#");
    for (list, names) in [("category", categories), ("color", &COLORS)] {
        for (id, name) in names.iter().enumerate() {
            let units: Vec<u16> = name.encode_utf16().collect();
            refs.create_dataset(&format!("{list}{id}")).with_u16_data(&units).with_shape(&[units.len() as u64, 1]);
        }
    }
    for (index, photo) in photos.iter().enumerate() {
        let mut group = refs.create_group(&format!("photo{index}"));
        if let Some(name) = &photo.name {
            group.create_dataset("img_name").with_u16_data(name).with_shape(&[name.len() as u64, 1]);
        }
        if let Some((shape, numbers)) = &photo.segmentation {
            group.create_dataset("segmentation").with_f32_data(numbers).with_shape(shape);
        }
        for (field, labels) in [("category_label", &photo.category), ("color_label", &photo.color)] {
            if let Some(labels) = labels {
                group.create_dataset(field).with_f64_data(labels).with_shape(&[1, labels.len() as u64]);
            }
        }
        refs.add_group(group.finish());
    }
    file.add_group(refs.finish());
    let mut cell = |name: &str, member: &str, count: usize, shape: [u64; 2]| {
        let paths: Vec<String> = (0..count).map(|index| format!("#refs#/{member}{index}")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        file.create_dataset(name).with_path_references(&paths).with_shape(&shape);
    };
    cell("all_category_name", "category", categories.len(), [1, categories.len() as u64]);
    cell("all_colors_name", "color", COLORS.len(), [1, COLORS.len() as u64]);
    cell("fashion_dataset", "photo", photos.len(), [photos.len() as u64, 1]);
    file.finish().expect("a file in memory")
}

/// A source of these entries, a photo for each, and where its dataset is to be.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(photos: &[Photo]) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        fs::create_dir_all(place.source().join("image")).expect("a folder");
        fs::write(place.source().join(MAT), mat(photos, &CATEGORIES)).expect("a file");
        for index in 0..photos.len() {
            fs::write(place.image(&format!("{index:04}.jpg")), jpeg(WIDTH, HEIGHT)).expect("a photo");
        }
        place
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn image(&self, name: &str) -> PathBuf {
        self.source().join("image").join(name)
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("dataset")
    }

    fn convert(&self) -> Result<Outcome, Error> {
        convert(&self.source(), &self.output())
    }
}

/// Converts 30 entries, number 4 of them changed by `spoil`: it alone is rejected, under this item and reason.
fn rejects_one(spoil: impl FnOnce(&mut Photo), item: &str, reason: &str) {
    let mut photos: Vec<Photo> = (0..30).map(good).collect();
    spoil(&mut photos[4]);
    let place = Place::new(&photos);
    let outcome = place.convert().unwrap_or_else(|error| panic!("{reason}: {error}"));
    assert_eq!(rejects(&place.output()), [(item.to_owned(), reason.to_owned())]);
    assert_eq!(outcome.summary().expect("it is published").counts["rejects"], 1, "{reason}");
    let index = Dataset::open(&place.output()).and_then(|dataset| dataset.index()).expect("the dataset");
    let ids: Vec<u32> = index.iter().map(|entry| entry.photo_id).collect();
    assert_eq!(ids, (0..30).filter(|&id| id != 4).collect::<Vec<_>>(), "{reason}: the others keep their ids");
    // 29 photos: 81 % are 23, 90 % are 26.
    let count = |split| index.iter().filter(|entry| entry.split == split).count();
    assert_eq!(Split::ALL.map(count), [23, 3, 3], "{reason}: the parts are of the photos that are left");
}

fn name(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

#[test]
fn a_bad_label_is_rejected_by_name() {
    for bad in [0.0, 24.0, -1.0, f64::NAN, 1.5, f64::INFINITY] {
        rejects_one(|photo| photo.category = Some(vec![1.0, bad]), "0004.jpg", "category_invalid");
    }
    for bad in [0.0, 14.0, -1.0, f64::NAN] {
        rejects_one(|photo| photo.color = Some(vec![bad, 1.0]), "0004.jpg", "color_invalid");
    }
}

#[test]
fn a_bad_superpixel_is_rejected_by_name() {
    let spoil = |bad: f32| move |photo: &mut Photo| photo.segmentation.as_mut().expect("a segmentation").1[7] = bad;
    for bad in [2.0, 65_536.0, 1e30] {
        rejects_one(spoil(bad), "0004.jpg", "superpixel_unlabelled");
    }
    for bad in [-1.0, 0.5, f32::NAN, f32::NEG_INFINITY] {
        rejects_one(spoil(bad), "0004.jpg", "superpixel_invalid");
    }
    rejects_one(|photo| photo.color = Some(vec![1.0]), "0004.jpg", "superpixel_unlabelled");
}

#[test]
fn a_missing_or_misshapen_field_is_rejected_by_name() {
    rejects_one(|photo| photo.name = None, "fashion_dataset{5}", "field_missing");
    rejects_one(|photo| photo.segmentation = None, "0004.jpg", "field_missing");
    rejects_one(|photo| photo.category = None, "0004.jpg", "field_missing");
    rejects_one(|photo| photo.color = None, "0004.jpg", "field_missing");
    rejects_one(|photo| photo.segmentation = Some((vec![54], vec![0.0; 54])), "0004.jpg", "field_shape");
    rejects_one(|photo| photo.segmentation = Some((vec![9, 6], vec![0.0; 54])), "0004.jpg", "photo_other_size");
    rejects_one(|photo| photo.segmentation = Some((vec![10_000, 1], vec![0.0; 10_000])), "0004.jpg", "field_shape");
}

#[test]
fn a_name_that_leads_elsewhere_is_rejected() {
    for bad in ["../0004.jpg", "/etc/hostname", "sub/0004.jpg", "..", r"..\0004.jpg", "C:0004.jpg", ".hidden", " "] {
        rejects_one(|photo| photo.name = Some(name(bad)), &bad.escape_debug().to_string(), "name_unsafe");
    }
    rejects_one(|photo| photo.name = Some(name("0004\0.jpg")), "0004\\0.jpg", "name_unsafe");
    rejects_one(|photo| photo.name = Some(vec![0xD800]), "fashion_dataset{5}", "name_unsafe");
    rejects_one(|photo| photo.name = Some(name(&"n".repeat(300))), "fashion_dataset{5}", "name_unsafe");
    rejects_one(|photo| photo.name = Some(name("0003.jpg")), "0003.jpg", "name_duplicate");
    rejects_one(|photo| photo.name = Some(name("9999.jpg")), "9999.jpg", "photo_missing");
}

#[test]
fn a_bad_photo_is_rejected_by_name() {
    let spoil = |content: &[u8]| {
        let place = Place::new(&(0..30).map(good).collect::<Vec<_>>());
        fs::write(place.image("0004.jpg"), content).expect("a file");
        place.convert().expect("a dataset").published().expect("it is published");
        let found = rejects(&place.output());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "0004.jpg");
        found[0].1.clone()
    };
    assert_eq!(spoil(&jpeg(HEIGHT, WIDTH)), "photo_other_size");
    for bad in [&b""[..], b"<!DOCTYPE html><html></html>"] {
        let reason = spoil(bad);
        assert!(reason.starts_with("photo_"), "{reason}");
    }
    let place = Place::new(&(0..30).map(good).collect::<Vec<_>>());
    fs::remove_file(place.image("0004.jpg")).expect("removed");
    fs::create_dir(place.image("0004.jpg")).expect("a folder of that name");
    place.convert().expect("a dataset").published().expect("it is published");
    assert_eq!(rejects(&place.output()), [("0004.jpg".to_owned(), "photo_not_a_file".to_owned())]);
}

#[test]
fn more_rejects_than_allowed_end_in_their_own_exit_code_and_the_good_is_published() {
    let mut photos: Vec<Photo> = (0..10).map(good).collect();
    photos[0].category = Some(vec![0.0, 1.0]);
    photos[9].name = Some(name("9999.jpg"));
    let place = Place::new(&photos);
    let outcome = place.convert().expect("the good ones are published");
    assert_eq!(outcome.exit_code(), 3);
    assert!(outcome.to_string().contains("2 of 10 photos"), "{outcome}");
    assert_eq!(Dataset::open(&place.output()).expect("the good ones").len(), 8);
    let config =
        Config { source: place.source(), output: place.output(), max_reject_fraction: 0.2, ..Default::default() };
    convert::run(&config, &Common::default()).expect("a fifth is allowed").published().expect("it is published");
}

// ---- Bad files ----------------------------------------------------------------------------------------------------

/// Converting this `.mat` file fails as bad input, names the file, and leaves nothing.
fn refuses(content: &[u8], expected: &str) {
    let place = Place::new(&[good(0)]);
    let file = place.source().join(MAT);
    fs::write(&file, content).expect("a file");
    let error = place.convert().expect_err(expected);
    let text = error.to_string();
    assert!(matches!(error, Error::Input { .. }), "{text}");
    assert_eq!(error.exit_code(), 1);
    assert!(text.contains(MAT) && text.contains(expected), "expected '{expected}' in: {text}");
    let left: Vec<_> =
        fs::read_dir(place.folder.path()).expect("a folder").map(|entry| entry.map(|it| it.file_name())).collect();
    assert!(left.iter().all(|name| name.as_ref().is_ok_and(|name| name == "source")), "left behind: {left:?}");
}

#[test]
fn a_file_that_is_none_is_one_clear_error() {
    refuses(b"", "is empty");
    refuses(b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "web page");
    refuses(b"MATLAB 7.3 MAT-file", "cut off");
    refuses(&[0xFF; 4096], "does not begin as a MATLAB file");
    let mut v5 = format!("{:124}", "MATLAB 5.0 MAT-file").into_bytes();
    v5.extend([0, 1, b'I', b'M']);
    refuses(&v5, "version 5");
    let mut header_alone = mat(&[good(0)], &CATEGORIES);
    header_alone.truncate(512);
    refuses(&header_alone, "was it cut off?");
}

#[test]
fn a_file_of_other_names_or_variables_is_one_clear_error() {
    let mut swapped = CATEGORIES;
    swapped.swap(1, 2);
    refuses(&mat(&[good(0)], &swapped), "'all_category_name' is [bk, bag, T-shirt");
    refuses(&mat(&[good(0)], &CATEGORIES[..22]), "'all_category_name'");
    refuses(&mat(&[], &CATEGORIES), "no entries");
    let mut other = FileBuilder::new();
    other.with_userblock(512);
    other.with_userblock_content(&mat(&[good(0)], &CATEGORIES)[..128]);
    other.create_dataset("x").with_f64_data(&[1.0]);
    refuses(&other.finish().expect("a file in memory"), "has no variable 'all_category_name'");
}

#[test]
fn a_cut_off_file_is_one_clear_error_wherever_it_is_cut() {
    let small = fs::read(Path::new("tests/data/cfpd_small").join(MAT)).expect("the stored file");
    let place = tempfile::tempdir().expect("a temporary folder");
    let path = place.path().join(MAT);
    for whole in [small, mat(&[good(0)], &CATEGORIES)] {
        for share in 0..40 {
            fs::write(&path, &whole[..whole.len() * share / 40]).expect("a file");
            let error = Cfpd::open(&path).expect_err("cut off");
            assert!(matches!(error, Error::Input { .. }), "{error}");
            assert!(error.to_string().contains(MAT), "{error}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).expect("a file");
        let error = Cfpd::open(&path).expect_err("cut off");
        assert!(error.to_string().contains(&format!("{} of {} bytes", whole.len() - 1, whole.len())), "{error}");
    }
}

#[test]
fn a_flipped_bit_is_an_error_a_reject_or_another_valid_label_and_never_a_panic() {
    let whole = fs::read(Path::new("tests/data/cfpd_small").join(MAT)).expect("the stored file");
    let place = tempfile::tempdir().expect("a temporary folder");
    let path = place.path().join(MAT);
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let (mut refused, mut rejected) = (0, 0);
    for _ in 0..400 {
        let mut spoilt = whole.clone();
        for _ in 0..rng.random_range(1..4) {
            let place = rng.random_range(0..spoilt.len() as u64) as usize;
            spoilt[place] ^= 1 << rng.random_range(0..8);
        }
        fs::write(&path, &spoilt).expect("a file");
        match Cfpd::open(&path) {
            Err(error) => {
                refused += 1;
                assert!(matches!(error, Error::Input { .. }), "{error}");
            }
            Ok(file) => {
                for labels in (0..file.len()).map(|index| file.annotation(index).expect("no fault of the disk")) {
                    let Ok(labels) = labels else {
                        rejected += 1;
                        continue;
                    };
                    let count = labels.superpixel_category.len().min(labels.superpixel_color.map_or(0, |it| it.len()));
                    assert!(labels.superpixels.iter().all(|&number| usize::from(number) < count));
                }
            }
        }
    }
    println!("{refused} files refused, {rejected} entries rejected");
    assert!(refused > 0 && rejected > 0);
}

// ---- Other refusals -----------------------------------------------------------------------------------------------

#[test]
fn a_folder_of_no_known_layout_is_one_clear_error() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let output = place.path().join("dataset");
    for (source, expected) in [(place.path().to_owned(), "neither"), (place.path().join("none"), "is not a folder")] {
        let error = convert(&source, &output).expect_err(expected);
        assert!(matches!(error, Error::Input { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(!output.exists());
}

#[test]
fn a_bad_setting_is_named_before_anything_is_read() {
    let bad = [
        (Config { split: [0, 0, 0], ..Default::default() }, "split"),
        (Config { max_reject_fraction: 1.5, ..Default::default() }, "max_reject_fraction"),
        (Config { max_reject_fraction: f64::NAN, ..Default::default() }, "max_reject_fraction"),
    ];
    for (config, setting) in bad {
        let error = convert::run(&config, &Common::default()).expect_err(setting);
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(setting), "{error}");
    }
}

#[test]
fn a_dry_run_counts_the_entries_and_writes_nothing() {
    let place = Place::new(&[good(0), good(1)]);
    let config = Config { source: place.source(), output: place.output(), ..Default::default() };
    let summary = convert::run(&config, &Common { dry_run: true, ..Common::default() }).expect("a plan");
    assert_eq!(summary.summary().expect("a plan").counts["entries"], 2);
    assert!(!place.output().exists());
}

#[test]
fn a_dataset_of_another_version_or_program_is_refused() {
    let place = Place::new(&[good(0)]);
    place.convert().expect("a dataset").published().expect("it is published");
    let path = place.output().join("categories.parquet");
    fs::copy(place.output().join("colors.parquet"), &path).expect("copied");
    let error = Dataset::open(&place.output()).expect_err("the wrong table");
    assert!(matches!(error, Error::Schema { .. }), "{error}");
    fs::write(&path, b"not a table").expect("written");
    assert!(matches!(Dataset::open(&place.output()), Err(Error::Input { .. })));
    assert!(matches!(Dataset::open(place.folder.path()), Err(Error::Input { .. })));
}

// ---- Clothing Co-Parsing, made up ---------------------------------------------------------------------------------

/// A data element of a MATLAB v5 file.
fn element(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), (content.len() as u32).to_le_bytes()].concat();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn words(kind: u32, words: &[u32]) -> Vec<u8> {
    element(kind, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>())
}

/// An array element: class, rows and columns, name, and what it holds.
fn array(class: u32, [rows, columns]: [u32; 2], name: &str, content: &[u8]) -> Vec<u8> {
    let parts = [words(6, &[class, 0]), words(5, &[rows, columns]), element(1, name.as_bytes()), content.to_vec()];
    element(14, &parts.concat())
}

fn v5(array: &[u8]) -> Vec<u8> {
    let mut file = format!("{:124}", "MATLAB 5.0 MAT-file, made up for a test").into_bytes();
    file.extend([0, 1, b'I', b'M']);
    file.extend(array);
    file
}

fn label_list(tags: &[&str]) -> Vec<u8> {
    let cells = tags.iter().flat_map(|tag| array(4, [1, tag.len() as u32], "", &element(16, tag.as_bytes())));
    v5(&array(1, [1, tags.len() as u32], "label_list", &cells.collect::<Vec<_>>()))
}

/// 30 photos of 9 rows and 6 columns whose tags run through `null`, `t-shirt` and `watch`, in MATLAB's order.
fn ccp_place() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("source");
    let annotations = folder.join("annotations/pixel-level");
    fs::create_dir_all(&annotations).expect("a folder");
    fs::create_dir_all(folder.join("photos")).expect("a folder");
    fs::write(folder.join("label_list.mat"), label_list(&["null", "t-shirt", "watch"])).expect("a file");
    let tags: Vec<u8> = (0..54).map(|place| place % 3).collect();
    for index in 0..30 {
        let truth = v5(&array(9, [9, 6], "groundtruth", &element(2, &tags)));
        fs::write(annotations.join(format!("{index:04}.mat")), truth).expect("a file");
        fs::write(folder.join(format!("photos/{index:04}.jpg")), jpeg(WIDTH, HEIGHT)).expect("a photo");
    }
    place
}

#[test]
fn tags_are_folded_and_a_bad_label_map_is_rejected_by_name() {
    let place = ccp_place();
    let (source, output) = (place.path().join("source"), place.path().join("dataset"));
    let map = source.join("annotations/pixel-level/0004.mat");
    fs::write(source.join("photos/9999.jpg"), jpeg(WIDTH, HEIGHT)).expect("a photo without labels");
    let unlabelled = ("9999.jpg".to_owned(), "no_pixel_labels".to_owned());
    convert(&source, &output).expect("a dataset").published().expect("it is published");
    assert_eq!(rejects(&output), std::slice::from_ref(&unlabelled));
    let dataset = Dataset::open(&output).expect("the dataset");
    let first = dataset.photos(None).expect("the photos").next().expect("a photo").expect("a whole row");
    // Down the first column of nine rows: null, t-shirt, watch, null, ...; the next column goes on.
    let categories = first.category_map();
    assert_eq!([categories[0], categories[6], categories[12], categories[1]], [0, 1, 0, 0]);
    assert_eq!(categories.iter().map(|&category| usize::from(category == 1)).sum::<usize>(), 18);

    let truth = |tags: &[u8]| v5(&array(9, [9, 6], "groundtruth", &element(2, tags)));
    let bad: [(Vec<u8>, &str); 6] = [
        (truth(&[3; 54]), "category_invalid"),
        (truth(&[0; 53]), "entry_unreadable"),
        (Vec::new(), "entry_unreadable"),
        (b"<html></html>".to_vec(), "entry_unreadable"),
        (truth(&[0; 54])[..150].to_vec(), "entry_unreadable"),
        (v5(&array(9, [6, 9], "groundtruth", &element(2, &[0; 54]))), "photo_other_size"),
    ];
    for (content, reason) in bad {
        fs::write(&map, content).expect("a file");
        convert(&source, &output).expect("one of thirty is allowed").published().expect("it is published");
        assert_eq!(rejects(&output), [("0004.jpg".to_owned(), reason.to_owned()), unlabelled.clone()]);
    }
}

#[test]
fn tags_that_the_fold_does_not_know_are_a_clear_error() {
    let place = ccp_place();
    let (source, output) = (place.path().join("source"), place.path().join("dataset"));
    let fold = place.path().join("fold.toml");
    let mut config = Config { source: source.clone(), output, fold: Some(fold.clone()), ..Default::default() };
    for (text, expected) in [
        ("[fold]\n\"null\" = \"bk\"\n\"t-shirt\" = \"T-shirt\"\n", "'watch' in"),
        ("[fold]\n\"null\" = \"bk\"\n\"t-shirt\" = \"tee\"\n", "'tee' of 't-shirt'"),
        ("fold = 3", "convert.fold"),
    ] {
        fs::write(&fold, text).expect("a settings file");
        let error = convert::run(&config, &Common::default()).expect_err(expected);
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(expected), "{error}");
    }
    config.fold = None;
    fs::write(source.join("label_list.mat"), label_list(&["null", "spacesuit"])).expect("a file");
    let error = convert::run(&config, &Common::default()).expect_err("an unknown tag");
    assert!(error.to_string().contains("'spacesuit'"), "{error}");
    for (content, expected) in
        [(Vec::new(), "is empty"), (v5(&[]), "has no variable 'label_list'"), (v5(&[14; 20]), "label_list")]
    {
        fs::write(source.join("label_list.mat"), content).expect("a file");
        let error = convert::run(&config, &Common::default()).expect_err(expected);
        assert!(matches!(error, Error::Input { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}
