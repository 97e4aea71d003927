//! `convert` of what labelling tools export: every label against their own programs, and bad input of every kind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::shared::{drawn_sample, library, shared};
use lookbook::Error;
use lookbook::color::{self, ColorTable};
use lookbook::convert::{self, Config};
use lookbook::dataset::{Dataset, PhotoRecord, Split};
use lookbook::engine::PrecisionChoice;
use lookbook::files::hexadecimal;
use lookbook::graph::{self, Loss, Spec, parameters};
use lookbook::labels::{CATEGORIES, CATEGORY_PALETTE};
use lookbook::rejects;
use lookbook::segment::{self, LabelSource, Masks, state};
use lookbook::shard::Shard;
use lookbook::stage::{Common, Outcome, Summary};

const DATA: &str = "tests/data/masks";

fn convert(source: &Path, output: &Path, fold: Option<PathBuf>) -> Result<Outcome, Error> {
    let config = Config { source: source.to_owned(), output: output.to_owned(), fold, ..Default::default() };
    convert::run(&config, &Common::default())
}

fn records(dataset: &Path) -> Vec<PhotoRecord> {
    let photos = Dataset::open(dataset).and_then(|dataset| dataset.photos(None)).expect("the photos");
    photos.map(|record| record.expect("a whole row")).collect()
}

/// Item and reason of each row of `rejects.parquet`.
fn left_out(dataset: &Path) -> Vec<(String, String)> {
    let rejects = rejects::read(&dataset.join(rejects::FILE)).expect("the table of rejects");
    rejects.into_iter().map(|it| (it.item, it.reason.into_owned())).collect()
}

fn copy(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.expect("an entry");
        let place = to.join(entry.path().strip_prefix(from).expect("it is below"));
        if entry.file_type().is_dir() {
            fs::create_dir_all(&place).expect("a folder");
        } else {
            fs::copy(entry.path(), &place).expect("a copy");
        }
    }
}

// ---- Against the tools' own programs ---------------------------------------------------------------------------------

fn check_against_oracle(name: &str, layout: &str) -> Vec<PhotoRecord> {
    let expected = fs::read_to_string(Path::new(DATA).join("expected.json")).expect("stored hashes");
    let mut expected: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(&expected).expect("of sources");
    let expected = expected.remove(name).expect("of this source");
    let (source, place) = (Path::new(DATA).join(name), tempfile::tempdir().expect("a temporary folder"));
    let fold = Some(source.join("fold.toml")).filter(|it| it.exists());
    let summary = convert(&source, place.path(), fold).expect("a dataset").published().expect("it is published");
    assert_eq!(summary.counts["layout"], layout);
    let records = records(place.path());
    let hash = |it: &PhotoRecord| hexadecimal(&Sha256::digest(it.category_map()))[..16].to_owned();
    let found: BTreeMap<_, _> = records.iter().map(|it| (it.file_name.clone(), hash(it))).collect();
    assert!(!expected.is_empty());
    assert_eq!(found, expected, "{name}: {:?}", left_out(place.path()));
    assert!(records.iter().all(|it| it.superpixel_color.is_none()));
    records
}

#[test]
fn masks_of_few_and_many_bits_are_as_pillow_reads_them() {
    check_against_oracle("palette", "masks");
}

#[test]
fn masks_of_colours_are_as_pillow_reads_them_and_keep_their_parts() {
    let parts: Vec<_> = check_against_oracle("voc", "masks").into_iter().map(|it| it.split).collect();
    assert_eq!(parts, [Split::Train, Split::Train, Split::Test, Split::Validation]);
}

#[test]
fn polygons_and_run_lengths_of_coco_are_as_pycocotools_reads_them() {
    let records = check_against_oracle("coco", "coco");
    let of_train = |it: &&PhotoRecord| it.split == Split::Train;
    assert_eq!(records.iter().filter(of_train).count(), 4, "the files' parts are kept");
    assert!(records.iter().all(|it| (it.split == Split::Train) == it.file_name.starts_with("train")));
}

#[test]
fn brushes_and_polygons_of_label_studio_are_as_its_converter_reads_them() {
    check_against_oracle("label_studio", "label_studio");
}

// ---- The same labels in every format ----------------------------------------------------------------------------------

/// Writes the labels of a dataset as CVAT's "Segmentation mask 1.1".
fn write_cvat(records: &[PhotoRecord], source: &Path) {
    for folder in ["JPEGImages", "SegmentationClass"] {
        fs::create_dir_all(source.join(folder)).expect("a folder");
    }
    let lines = CATEGORIES.iter().zip(CATEGORY_PALETTE).map(|(name, [r, g, b])| format!("{name}:{r},{g},{b}::\n"));
    fs::write(source.join("labelmap.txt"), lines.collect::<String>()).expect("a list");
    for record in records {
        fs::write(source.join("JPEGImages").join(&record.file_name), &record.encoded).expect("a photo");
        let colors = record.category_map().iter().flat_map(|&it| CATEGORY_PALETTE[usize::from(it)]).collect();
        let mask = image::RgbImage::from_raw(record.width_px, record.height_px, colors).expect("a mask");
        let name = Path::new(&record.file_name).with_extension("png");
        mask.save(source.join("SegmentationClass").join(name)).expect("a file");
    }
}

fn cvat_is_as_mat(source: &Path) {
    let place = tempfile::tempdir().expect("a temporary folder");
    let (cvat, again) = (place.path().join("cvat"), place.path().join("again"));
    let dataset = place.path().join("dataset");
    convert(source, &dataset, None).expect("a dataset").published().expect("it is published");
    let before = records(&dataset);
    write_cvat(&before, &cvat);
    convert(&cvat, &again, None).expect("a dataset").published().expect("it is published");
    let after = records(&again);
    assert_eq!((before.len(), left_out(&again).len()), (after.len(), 0));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before.file_name, before.split, &before.encoded), (&after.file_name, after.split, &after.encoded));
        assert!(before.category_map() == after.category_map(), "{}", before.file_name);
    }
}

#[test]
fn the_sample_as_masks_of_cvat_has_the_same_labels() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let source = place.path().join("sample");
    drawn_sample(&source, 12);
    cvat_is_as_mat(&source);
}

#[test]
fn the_real_photos_as_masks_of_cvat_have_the_same_labels() {
    let Some(source) = shared("data/cfpd") else { return };
    cvat_is_as_mat(&source);
}

// ---- Bad masks --------------------------------------------------------------------------------------------------------

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i * 7 % 256) as u8).collect();
    image::codecs::jpeg::JpegEncoder::new(&mut bytes)
        .encode(&pixels, width, height, image::ExtendedColorType::Rgb8)
        .expect("a small photo");
    bytes
}

fn grey(width: u32, height: u32, index: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mask = image::GrayImage::from_pixel(width, height, image::Luma([index]));
    mask.write_to(&mut bytes, image::ImageFormat::Png).expect("a PNG");
    bytes.into_inner()
}

/// 30 photos of 4 x 6 pixels with masks of our own ids.
fn folders() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a temporary folder");
    for folder in ["source/photos", "source/masks"] {
        fs::create_dir_all(place.path().join(folder)).expect("a folder");
    }
    for number in 0..30 {
        fs::write(place.path().join(format!("source/photos/{number:02}.jpg")), jpeg(4, 6)).expect("a photo");
        fs::write(place.path().join(format!("source/masks/{number:02}.png")), grey(4, 6, number % 23)).expect("a mask");
    }
    place
}

/// The reason of the only reject after `spoil`, which is of photo 04.
fn rejected(spoil: impl FnOnce(&Path)) -> String {
    let place = folders();
    let (source, output) = (place.path().join("source"), place.path().join("dataset"));
    spoil(&source);
    convert(&source, &output, None).expect("one of thirty is allowed").published().expect("it is published");
    let found = left_out(&output);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "04.jpg");
    assert_eq!(records(&output).len(), 29);
    found[0].1.clone()
}

#[test]
fn a_bad_mask_is_rejected_by_name() {
    let mask = |content: Vec<u8>| move |source: &Path| fs::write(source.join("masks/04.png"), content).expect("a file");
    let whole = grey(4, 6, 1);
    for length in [0, 8, 30, whole.len() - 20] {
        assert_eq!(rejected(mask(whole[..length].to_vec())), "entry_unreadable", "{length} bytes");
    }
    assert_eq!(rejected(mask(jpeg(4, 6))), "entry_unreadable");
    assert_eq!(rejected(mask(grey(4, 6, 23))), "category_invalid");
    assert_eq!(rejected(mask(grey(6, 4, 1))), "photo_other_size");
    let huge = [&whole[..16], &[0, 1, 0, 0, 0, 1, 0, 0], &whole[24..]].concat();
    let reason = rejected(mask(huge));
    assert!(["entry_unreadable", "photo_too_large"].contains(&reason.as_str()), "{reason}");
    let mut deep = std::io::Cursor::new(Vec::new());
    image::ImageBuffer::from_pixel(4, 6, image::Luma([300_u16]))
        .write_to(&mut deep, image::ImageFormat::Png)
        .expect("a PNG");
    assert_eq!(rejected(mask(deep.into_inner())), "entry_unreadable", "16 bits");
    assert_eq!(rejected(|source| fs::remove_file(source.join("photos/04.jpg")).expect("removed")), "photo_missing");
    assert_eq!(
        rejected(|source| {
            fs::remove_file(source.join("masks/04.png")).expect("removed");
            let elsewhere = source.with_extension("png");
            fs::write(&elsewhere, grey(4, 6, 1)).expect("a mask");
            std::os::unix::fs::symlink(elsewhere, source.join("masks/04.png")).expect("a link");
        }),
        "entry_unreadable"
    );
    assert_eq!(rejected(|source| fs::remove_file(source.join("masks/04.png")).expect("removed")), "no_pixel_labels");
}

#[test]
fn folders_are_parts_if_there_are_several() {
    let place = folders();
    let (source, output) = (place.path().join("source"), place.path().join("dataset"));
    for folder in ["photos", "masks"] {
        for part in ["train", "val"] {
            fs::create_dir(source.join(folder).join(part)).expect("a folder");
        }
        let ending = if folder == "photos" { "jpg" } else { "png" };
        for number in 0..29 {
            let part = if number < 10 { "val" } else { "train" };
            let name = format!("{number:02}.{ending}");
            fs::rename(source.join(folder).join(&name), source.join(folder).join(part).join(&name)).expect("moved");
        }
    }
    convert(&source, &output, None).expect("a dataset").published().expect("it is published");
    assert_eq!(left_out(&output), [("29.jpg".to_owned(), "no_split".to_owned())]);
    let records = records(&output);
    assert_eq!((records[0].file_name.as_str(), records[0].split), ("train/10.jpg", Split::Train));
    assert_eq!(records.iter().filter(|it| it.split == Split::Validation).count(), 10);
}

#[test]
fn names_that_are_not_ours_are_one_error_that_has_them_all() {
    let place = folders();
    let (source, output) = (place.path().join("source"), place.path().join("dataset"));
    fs::write(source.join("labels.txt"), "background\nskin\ntie\ncape\n").expect("a list");
    let error = convert(&source, &output, None).expect_err("two unknown names");
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("'tie', 'cape'") && error.to_string().contains("labels.txt"), "{error}");
    let fold = place.path().join("fold.toml");
    fs::write(&fold, "[fold]\ntie = \"scarf\"\n").expect("a table");
    let error = convert(&source, &output, Some(fold)).expect_err("one unknown name");
    assert!(error.to_string().contains("'cape'") && !error.to_string().contains("'tie'"), "{error}");
    assert!(!output.exists());
}

// ---- Bad JSON ---------------------------------------------------------------------------------------------------------

/// The COCO source whose file of the part `val` was changed by `spoil`, its first annotation among what it gets.
fn coco(spoil: impl FnOnce(&mut Value)) -> (tempfile::TempDir, Result<Outcome, Error>) {
    let place = tempfile::tempdir().expect("a temporary folder");
    let (source, output) = (place.path().join("source"), place.path().join("dataset"));
    copy(&Path::new(DATA).join("coco"), &source);
    let path = source.join("annotations/instances_val2020.json");
    let mut file = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    spoil(&mut file);
    fs::write(&path, file.to_string()).expect("a file");
    let config =
        Config { fold: Some(source.join("fold.toml")), source, output, max_reject_fraction: 1.0, ..Default::default() };
    let outcome = convert::run(&config, &Common::default());
    (place, outcome)
}

fn left_out_of_coco(spoil: impl FnOnce(&mut Value)) -> Vec<(String, String, String)> {
    let (place, outcome) = coco(spoil);
    outcome.expect("a dataset").published().expect("it is published");
    let rejects = rejects::read(&place.path().join("dataset").join(rejects::FILE)).expect("the table of rejects");
    rejects.into_iter().map(|it| (it.item, it.reason.into_owned(), it.detail)).collect()
}

#[test]
fn a_bad_annotation_is_named_by_its_id() {
    let bad = [
        json!([[1.0, 1.0, 2.0, 2.0]]),
        json!([[1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0]]),
        json!([[1e300, 1.0, 2.0, 2.0, 3.0, 3.0]]),
        json!([[null, 1.0, 2.0, 2.0, 3.0, 3.0]]),
        json!([]),
        json!("text"),
        json!(null),
        json!({"size": [1, 50], "counts": [7, 5, 39]}),
        json!({"size": [1, 50], "counts": [7, 5, 37]}),
        json!({"size": [50, 1], "counts": [7, 5, 39]}),
        json!({"size": [1, 50], "counts": [7, -5, 39]}),
        json!({"size": [1, 50], "counts": "~~~"}),
        json!({"size": [1, 50], "counts": "oooooooooooooooooooooooo"}),
        json!({"size": [4_294_967_295_u32, 4_294_967_295_u32], "counts": [1]}),
    ];
    for segmentation in bad {
        let shown = segmentation.to_string();
        let found = left_out_of_coco(|file| file["annotations"][0]["segmentation"] = segmentation);
        assert_eq!(found.len(), 1, "{shown}: {found:?}");
        assert_eq!((&found[0].0[..], &found[0].1[..]), ("val_100.jpg", "annotation_invalid"), "{shown}");
        assert!(found[0].2.contains("annotation 1"), "{shown}: {}", found[0].2);
    }
    let found = left_out_of_coco(|file| file["annotations"][0]["category_id"] = 99.into());
    assert_eq!((&found[0].0[..], &found[0].1[..]), ("val_100.jpg", "category_invalid"));
    for (key, value) in [("image_id", json!(77)), ("image_id", json!("x"))] {
        let found = left_out_of_coco(|file| file["annotations"][5][key] = value.clone());
        assert_eq!((&found[0].0[..], &found[0].1[..]), ("annotation 6", "annotation_unplaced"), "{key} {value}");
    }
    let found = left_out_of_coco(|file| file["annotations"][5]["category_id"] = json!({}));
    assert_eq!((&found[0].0[..], &found[0].1[..]), ("val_101.jpg", "category_invalid"));
    let found = left_out_of_coco(|file| file["annotations"][5] = json!([]));
    assert_eq!(found[0].1, "annotation_unplaced");
}

#[test]
fn a_bad_image_is_named() {
    for name in ["/etc/passwd", "../val_100.jpg", "", "a\\b.jpg", "images/../../x.jpg"] {
        let found = left_out_of_coco(|file| file["images"][0]["file_name"] = name.into());
        assert_eq!((found.len(), &found[0].1[..]), (1, "name_unsafe"), "{name}");
    }
    let of = |key: &str, value: Value| left_out_of_coco(|file| file["images"][0][key] = value);
    assert_eq!(of("file_name", json!("nowhere.jpg"))[0].1, "photo_missing");
    assert_eq!(of("file_name", json!(7))[0].1, "entry_unreadable");
    assert_eq!(of("width", json!(0))[0].1, "entry_unreadable");
    assert_eq!(of("width", json!(-4))[0].1, "entry_unreadable");
    assert_eq!(of("width", json!(4_000_000_000_u32))[0].1, "photo_too_large");
    assert_eq!(of("width", json!(2))[0].1, "annotation_invalid", "its masks have another size");
    let found = left_out_of_coco(|file| {
        let last = file["annotations"].as_array().map_or(0, Vec::len) - 4;
        file["annotations"].as_array_mut().expect("a list").truncate(last);
    });
    assert_eq!(found, [("val_101.jpg".into(), "no_pixel_labels".into(), "has no annotations".into())]);
}

#[test]
fn a_file_that_is_cut_off_or_another_is_one_error() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let (source, output) = (place.path().join("source"), place.path().join("dataset"));
    copy(&Path::new(DATA).join("coco"), &source);
    let path = source.join("annotations/instances_val2020.json");
    let whole = fs::read_to_string(&path).expect("a file");
    let fold = || Some(source.join("fold.toml"));
    for (content, problem) in [
        (whole[..whole.len() / 2].to_owned(), "cut off"),
        (String::new(), "cut off"),
        ("[]".to_owned(), "cannot be read"),
        ("{}".to_owned(), "cannot be read"),
        (whole.replacen("0.0", "NaN", 1).replacen("1.0", "NaN", 1), "cannot be read"),
    ] {
        fs::write(&path, content).expect("a file");
        let error = convert(&source, &output, fold()).expect_err(problem);
        assert!(matches!(error, Error::Input { .. }), "{error}");
        assert!(error.to_string().contains("instances_val2020.json") && error.to_string().contains(problem), "{error}");
        assert!(!output.exists(), "nothing is half-written");
    }
    fs::remove_file(path).expect("removed");
    fs::remove_dir_all(source.join("images")).expect("removed");
    let error = convert(&source, &output, fold()).expect_err("no photos");
    assert!(error.to_string().contains("images"), "{error}");
}

/// What is left out of the Label Studio source whose first task was changed by `spoil`.
fn left_out_of_label_studio(spoil: impl FnOnce(&mut Value)) -> Vec<(String, String)> {
    let place = tempfile::tempdir().expect("a temporary folder");
    let (source, output) = (place.path().join("source"), place.path().join("dataset"));
    copy(&Path::new(DATA).join("label_studio"), &source);
    let path = source.join("project-3.json");
    let mut tasks: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    spoil(&mut tasks[0]);
    fs::write(&path, tasks.to_string()).expect("a file");
    let config = Config { source, output: output.clone(), max_reject_fraction: 1.0, ..Default::default() };
    convert::run(&config, &Common::default()).expect("a dataset").published().expect("it is published");
    left_out(&output)
}

#[test]
fn a_bad_region_of_label_studio_is_named() {
    let one = |reason: &str| vec![("1a2b3c4d-l0.jpg".to_owned(), reason.to_owned())];
    let region = |number: usize, key: &'static str, value: Value| {
        left_out_of_label_studio(|task| task["annotations"][0]["result"][number][key] = value)
    };
    let value = |number: usize, key: &'static str, value: Value| {
        left_out_of_label_studio(|task| task["annotations"][0]["result"][number]["value"][key] = value)
    };
    assert_eq!(value(0, "rle", json!([0, 0, 1])), one("annotation_invalid"));
    assert_eq!(value(0, "rle", json!([0, 0, 1, 999])), one("annotation_invalid"));
    assert_eq!(value(0, "brushlabels", json!([])), one("category_invalid"));
    assert_eq!(value(0, "brushlabels", json!(["skin", "hair"])), one("category_invalid"));
    assert_eq!(value(1, "points", json!([[1.0, 2.0], [3.0, 4.0]])), one("annotation_invalid"));
    assert_eq!(value(1, "points", json!([[1.0, 2.0], [3.0, 4.0], [1e300, 5.0]])), one("annotation_invalid"));
    assert_eq!(value(1, "points", json!([[1.0, 2.0], [3.0], [1.0, 5.0]])), one("annotation_invalid"));
    assert_eq!(region(1, "original_width", json!(41)), one("annotation_invalid"));
    assert_eq!(region(0, "original_width", json!(4_000_000_000_u32)), one("photo_too_large"));
    assert_eq!(region(1, "image_rotation", json!(90)), one("annotation_invalid"));
    assert_eq!(region(1, "type", json!("rectanglelabels")), one("annotation_invalid"));
    let missing = left_out_of_label_studio(|task| task["data"]["image"] = "s3://bucket/other.jpg".into());
    assert_eq!(missing, [("other.jpg".to_owned(), "photo_missing".to_owned())]);
    let unlabelled = left_out_of_label_studio(|task| task["annotations"] = json!([]));
    assert_eq!(unlabelled, one("no_pixel_labels"));
    let found = left_out_of_label_studio(|task| {
        task["data"]["image"] = "/data/local-files/?d=some/where/1a2b3c4d%2Dl0.jpg".into();
    });
    assert_eq!(found, [], "the name at the end of a path is found");
}

// ---- Out, and in again ------------------------------------------------------------------------------------------------

/// Writes the photos of a dataset into a folder.
fn write_photos(records: &[PhotoRecord], folder: &Path) {
    for record in records {
        let path = folder.join(&record.file_name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, &record.encoded).expect("a photo");
    }
}

/// A source of photos and what `segment --masks` wrote into a features folder.
fn write_source(masks: Masks, features: &Path, photos: &Path, source: &Path) {
    fs::create_dir_all(source).expect("a folder");
    let link = |from: &Path, name: &str| std::os::unix::fs::symlink(from, source.join(name)).expect("a link");
    match masks {
        Masks::None => unreachable!("there are no masks"),
        Masks::Png => {
            link(photos, "photos");
            link(&features.join("masks"), "masks");
        }
        Masks::Coco => {
            link(photos, "images");
            link(&features.join("coco"), "annotations");
        }
        Masks::LabelStudio => {
            link(photos, "images");
            copy(&features.join("label-studio"), source);
        }
    }
}

/// Writes the labels of a source in every way, converts what was written, and compares every pixel.
fn comes_back(source: &Path) {
    let place = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| place.path().join(name);
    convert(source, &path("dataset"), None).expect("a dataset").published().expect("it is published");
    let before = records(&path("dataset"));
    write_photos(&before, &path("photos"));
    for masks in [Masks::Png, Masks::Coco, Masks::LabelStudio] {
        let [features, source, again] = ["features", "source", "again"].map(|it| path(&format!("{it}-{masks:?}")));
        let config = segment::Config {
            catalogue: path("dataset"),
            output: features.clone(),
            from: LabelSource::Labels,
            masks,
            ..Default::default()
        };
        let summary = segment::run(&config, &Common::default()).expect("features").published().expect("published");
        assert_eq!(summary.counts["masks"], before.len());
        write_source(masks, &features, &path("photos"), &source);
        convert(&source, &again, None).expect("a dataset").published().expect("it is published");
        let after = records(&again);
        assert_eq!((after.len(), left_out(&again)), (before.len(), Vec::new()), "{masks:?}");
        for (before, after) in before.iter().zip(&after) {
            assert_eq!((&before.file_name, before.split), (&after.file_name, after.split), "{masks:?}");
            assert!(before.category_map() == after.category_map(), "{masks:?}: {}", before.file_name);
        }
    }
}

#[test]
fn labels_of_the_sample_that_were_written_for_any_tool_come_back() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let source = place.path().join("sample");
    drawn_sample(&source, 12);
    comes_back(&source);
}

#[test]
fn labels_of_the_real_photos_that_were_written_for_any_tool_come_back() {
    let Some(source) = shared("data/cfpd") else { return };
    comes_back(&source);
}

/// A model of arbitrary weights, which is more or less certain.
fn write_model(folder: &Path) {
    let spec = Spec::seed(48, 64, Loss::Softmax);
    // Initial weights, enlarged so that the signal does not fade on its way through the layers.
    let weights: Vec<f32> = parameters::initial_weights(&spec, 5).into_iter().map(|it| it * 1.5).collect();
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join("predict.onnx"), graph::predict(&spec, &weights)).expect("a network");
    ColorTable::typical(&lookbook::labels::LabelSet::cfpd()).write(&folder.join(color::FILE)).expect("a table");
}

/// Photos of arbitrary pixels in blocks, and a model.
fn shop() -> Option<tempfile::TempDir> {
    library()?;
    let place = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir_all(place.path().join("shop/b")).expect("a folder");
    write_model(&place.path().join("model"));
    for number in 0..12_u32 {
        let name = if number % 2 == 0 { format!("shop/ä {number}.png") } else { format!("shop/b/{number}.png") };
        let color = |x: u32, y: u32, channel: u32| ((x / 7 + y / 9 * 3 + channel) * (number + 1) * 53 % 256) as u8;
        let photo = image::RgbImage::from_fn(60 + number, 90, |x, y| image::Rgb([0, 1, 2].map(|it| color(x, y, it))));
        photo.save(place.path().join(name)).expect("a photo");
    }
    Some(place)
}

fn predictions(place: &Path, change: impl FnOnce(&mut segment::Config)) -> Result<Summary, Error> {
    let mut config = segment::Config {
        catalogue: place.join("shop"),
        model: place.join("model"),
        output: place.join("features"),
        precision: PrecisionChoice::F32,
        ..Default::default()
    };
    change(&mut config);
    Ok(segment::run(&config, &Common::default())?.published().expect("it is published"))
}

/// The masks of a features folder, by path.
fn masks_in(features: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = walkdir::WalkDir::new(features.join("masks")).into_iter().map(|it| it.expect("an entry"));
    let files = files.filter(|it| it.file_type().is_file());
    files
        .map(|it| (it.path().strip_prefix(features).expect("below").to_owned(), fs::read(it.path()).expect("a mask")))
        .collect()
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

#[test]
fn predictions_have_certainties_and_come_back_without_a_changed_pixel() -> Result<(), Error> {
    let Some(place) = shop() else { return Ok(()) };
    let path = |name: &str| place.path().join(name);
    for masks in [Masks::Coco, Masks::LabelStudio] {
        predictions(place.path(), |config| config.masks = masks)?;
        let summary = predictions(place.path(), |config| config.masks = masks)?;
        assert_eq!((&summary.counts["masks"], &summary.counts["segmented"]), (&12.into(), &0.into()), "nothing is new");
        let written = masks_in(&path("features"));
        assert_eq!(written.len(), 12);
        let [source, dataset] = ["source", "dataset"].map(|it| path(&format!("{it}-{masks:?}")));
        write_source(masks, &path("features"), &path("shop"), &source);
        convert(&source, &dataset, None)?.published().expect("it is published");
        let records = records(&dataset);
        assert_eq!((records.len(), left_out(&dataset)), (12, Vec::new()));
        for record in records {
            let checksum = lookbook::files::digest_of(&record.encoded);
            let mask = &written[&Path::new("masks").join(&checksum[..2]).join(format!("{checksum}.png"))];
            let expected = image::load_from_memory(mask).expect("a PNG").into_rgb8();
            let found = record.category_map().into_iter().map(|it| CATEGORY_PALETTE[usize::from(it)]);
            assert!(found.eq(expected.pixels().map(|it| it.0)), "{masks:?}: {}", record.file_name);
        }
    }
    let tasks = json_of(&path("features/label-studio/part-00000.json"));
    let score = |value: &Value| value["score"].as_f64().expect("a score");
    for task in tasks.as_array().expect("a list") {
        let prediction = &task["predictions"][0];
        let regions = prediction["result"].as_array().expect("a list");
        let (least, most) = regions.iter().map(score).fold((1.0, 0.0), |(a, b), it| (f64::min(a, it), f64::max(b, it)));
        assert!(least > 1.0 / 24.0 && most < 1.0, "{least} to {most}");
    }
    assert!(path("features/label-studio/interface.xml").is_file());
    Ok(())
}

#[test]
fn photos_of_nothing_but_background_come_back_too() -> Result<(), Error> {
    let Some(place) = shop() else { return Ok(()) };
    crate::model::write_flat_model(&place.path().join("model"), 0);
    for masks in [Masks::Coco, Masks::LabelStudio] {
        predictions(place.path(), |config| config.masks = masks)?;
        let [source, dataset] = ["source", "dataset"].map(|it| place.path().join(format!("{it}-{masks:?}")));
        write_source(masks, &place.path().join("features"), &place.path().join("shop"), &source);
        convert(&source, &dataset, None)?.published().expect("it is published");
        let records = records(&dataset);
        assert_eq!((records.len(), left_out(&dataset)), (12, Vec::new()));
        assert!(records.iter().all(|it| it.category_map().iter().all(|&category| category == 0)));
    }
    Ok(())
}

#[test]
fn the_least_certain_photos_alone_have_masks() -> Result<(), Error> {
    let Some(place) = shop() else { return Ok(()) };
    let features = place.path().join("features");
    predictions(place.path(), |config| config.masks = Masks::Coco)?;
    let all = masks_in(&features);
    let mut states = state::read(&features.join("_state/state-00000.parquet"))?;
    let mean = |it: &state::StateRow| it.certainty.as_ref().expect("it was asked for").mean;
    states.sort_by(|a, b| mean(a).total_cmp(&mean(b)));
    assert!(mean(&states[0]) < mean(&states[11]));
    let ids_of = |number: usize| -> Vec<u32> {
        let mut ids: Vec<u32> = states[..number].iter().map(|it| it.photo_id).collect();
        ids.sort_unstable();
        ids
    };
    let ids_in = |features: &Path| -> Vec<u64> {
        let file = json_of(&features.join("coco/part-00000.json"));
        file["images"].as_array().expect("a list").iter().map(|it| it["id"].as_u64().expect("an id")).collect()
    };
    for uncertain in [3, 5, 100] {
        let summary = predictions(place.path(), |config| (config.masks, config.uncertain) = (Masks::Coco, uncertain))?;
        let expected = ids_of(uncertain.min(12) as usize);
        assert_eq!((&summary.counts["masks"], &summary.counts["segmented"]), (&expected.len().into(), &0.into()));
        assert!(ids_in(&features).into_iter().eq(expected.into_iter().map(u64::from)));
        let few = masks_in(&features);
        assert!(few.len() == uncertain.min(12) as usize && few.iter().all(|(name, mask)| all[name] == *mask));
    }
    let shards = |number| {
        predictions(place.path(), |config| {
            (config.masks, config.uncertain, config.shard) = (Masks::Coco, 4, Shard::new(number, 2));
        })
    };
    shards(1)?;
    shards(2)?;
    let summary = predictions(place.path(), |config| config.merge = true)?;
    assert_eq!(summary.counts["masks"], 4);
    assert!(ids_in(&features).into_iter().eq(ids_of(4).into_iter().map(u64::from)), "of all shards");
    assert_eq!(masks_in(&features).len(), 4);
    for (change, problem) in [
        (
            Box::new(|config: &mut segment::Config| config.uncertain = 3) as Box<dyn Fn(&mut segment::Config)>,
            "none are written",
        ),
        (
            Box::new(|config| (config.uncertain, config.masks, config.from) = (3, Masks::Png, LabelSource::Labels)),
            "needs a network",
        ),
    ] {
        let error = predictions(place.path(), change).expect_err(problem);
        assert!(error.exit_code() == 2 && error.to_string().contains(problem), "{error}");
    }
    Ok(())
}
