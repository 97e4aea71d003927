//! `duplicates`: planted near-duplicates in a catalogue, by the program; and tables that it cannot read.

use std::fs;
use std::path::Path;
use std::process::Command;

use arrow::array::{Array, UInt64Array};
use arrow::record_batch::RecordBatch;
use image::codecs::jpeg::JpegEncoder;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::write_flat_model;
use crate::shared::{drawn_sample, library};
use crate::similarity::row;
use lookbook::duplicates::{self, Config, GroupedPhoto, read_groups};
use lookbook::error::Result;
use lookbook::features::FeatureTable;
use lookbook::features::rows::{self, CROP_RESISTANT_COLUMN, FeatureRow, Format, PHASH_COLUMN};
use lookbook::labels::LabelSet;
use lookbook::photo::hashes::PhotoHashes;
use lookbook::photo::{self, Decoding, Photo, Resample};
use lookbook::stage::Common;
use lookbook::{convert, segment, table};

/// Different photos in the catalogue, each of which has as many near-duplicates as there are changes.
const PHOTOS: u64 = 50;

fn jpeg(photo: &Photo, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
    let picture = image::RgbImage::from_raw(photo.width_px, photo.height_px, photo.rgb.clone()).unwrap();
    picture.write_with_encoder(encoder).unwrap();
    bytes
}

/// Blobs of colour, drawn from a seed.
fn blobs(seed: u64) -> Photo {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let rgb = (0..12 * 18 * 3).map(|_| random.random()).collect();
    photo::resize(&Photo { width_px: 12, height_px: 18, rgb }, 400, 600)
}

fn mirrored(photo: &Photo) -> Photo {
    let rows = photo.rgb.chunks_exact(photo.width_px as usize * 3);
    let rgb = rows.flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect();
    Photo { rgb, ..photo.clone() }
}

/// The photo with a white border.
fn framed(photo: &Photo, border: u32) -> Photo {
    let (width_px, height_px) = (photo.width_px + 2 * border, photo.height_px + 2 * border);
    let mut rgb = vec![255; (width_px * height_px * 3) as usize];
    for (y, line) in photo.rgb.chunks_exact(photo.width_px as usize * 3).enumerate() {
        let first = ((y as u32 + border) * width_px + border) as usize * 3;
        rgb[first..first + line.len()].copy_from_slice(line);
    }
    Photo { width_px, height_px, rgb }
}

fn brighter(photo: &Photo) -> Photo {
    Photo { rgb: photo.rgb.iter().map(|it| (f32::from(*it) * 1.15) as u8).collect(), ..photo.clone() }
}

/// The photo's file, and six changes of it.
fn files(seed: u64) -> [(&'static str, Vec<u8>); 7] {
    let photo = blobs(seed);
    let cropped = photo::resize_part(&photo, [20.0, 30.0, 360.0, 540.0], (360, 540), Resample::Bilinear);
    [
        ("whole", jpeg(&photo, 95)),
        ("copy", jpeg(&photo, 95)),
        ("small", jpeg(&photo::resize(&photo, 150, 225), 90)),
        ("poor", jpeg(&photo, 30)),
        ("mirrored", jpeg(&mirrored(&photo), 80)),
        ("cropped", jpeg(&brighter(&cropped), 85)),
        ("framed", jpeg(&framed(&photo, 30), 85)),
    ]
}

/// Runs the program in `place`; its exit code, and what it said.
fn lookbook(place: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookbook"));
    command.current_dir(place).args(arguments);
    if let Some(library) = library() {
        command.env("ORT_DYLIB_PATH", library);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

fn write_features(folder: &Path, rows: &[FeatureRow]) -> RecordBatch {
    fs::create_dir_all(folder).unwrap();
    let batch = rows::batch_of(&LabelSet::cfpd(), rows, None);
    rows::write_part(&folder.join(table::part_name(0)), &batch, Format::Parquet).unwrap();
    batch
}

#[test]
fn three_hundred_planted_duplicates_are_found_and_nothing_else() {
    let Some(_) = library() else { return };
    let place = tempfile::tempdir().unwrap();
    let shop = place.path().join("shop");
    fs::create_dir_all(&shop).unwrap();
    write_flat_model(&place.path().join("model"), 1);
    for seed in 0..PHOTOS {
        for (change, bytes) in files(seed) {
            fs::write(shop.join(format!("{seed:02}-{change}.jpg")), bytes).unwrap();
        }
    }
    fs::write(shop.join("white.jpg"), jpeg(&Photo { width_px: 40, height_px: 60, rgb: vec![255; 7200] }, 90)).unwrap();
    fs::write(shop.join("grey.jpg"), jpeg(&Photo { width_px: 40, height_px: 60, rgb: vec![128; 7200] }, 90)).unwrap();
    let segment = ["segment", "--catalogue", "shop", "--model", "model", "--output", "features"];
    let (code, text) = lookbook(place.path(), &segment);
    assert_eq!(code, 0, "{text}");
    let arguments = ["duplicates", "--features", "features", "--output", "duplicates", "--if-changed"];
    let (code, text) = lookbook(place.path(), &arguments);
    assert_eq!(code, 0, "{text}");
    for figure in ["photos: 352", "groups: 50", "duplicates: 300", "exact_copies: 50", "largest_group: 7"] {
        assert!(text.contains(figure), "{text}");
    }
    assert!(text.contains("photos_without_hash: 2"), "{text}");
    let groups = read_groups(&place.path().join("duplicates")).unwrap();
    let table = FeatureTable::open(&place.path().join("features")).unwrap();
    for (it, name) in groups.iter().zip(&table.file_names) {
        let representative = groups.iter().find(|other| other.photo_id == it.group_id).unwrap();
        let of = &table.file_names[representative.photo_id as usize];
        assert!(representative.is_representative, "{name}");
        // The framed photo has the most pixels.
        assert_eq!(it.is_representative, name.contains("framed") || !name.contains('-'), "{name}");
        assert_eq!(name.split('-').next(), of.split('-').next(), "{name} is in the group of {of}");
        // Of two equal files, the one with the higher id is the copy; ids follow the names.
        assert_eq!(it.is_exact_copy, name.contains("whole"), "{name}");
        assert!(it.distance <= 8);
    }
    let (code, text) = lookbook(place.path(), &arguments);
    assert!(code == 0 && text.contains("nothing to do"), "{text}");
    let (_, text) =
        lookbook(place.path(), &[&arguments[..5], &["--distance", "3", "--if-changed", "--dry-run"]].concat());
    assert!(text.contains("would write"), "{text}");
}

#[test]
fn labels_come_with_hashes_as_well() -> Result<()> {
    let place = tempfile::tempdir().unwrap();
    let [source, dataset, features, output] = ["source", "dataset", "features", "out"].map(|it| place.path().join(it));
    drawn_sample(&source, 8);
    let common = Common::default();
    let config = convert::Config { source: source.clone(), output: dataset.clone(), ..Default::default() };
    convert::run(&config, &common)?.published().expect("it is published");
    let from = segment::LabelSource::Labels;
    let config = segment::Config { catalogue: dataset, output: features.clone(), from, ..Default::default() };
    segment::run(&config, &common)?.published().expect("it is published");
    let part = features.join(table::part_name(0));
    let batch = table::read_table(&part, rows::TABLE, &[], 100)?.next().unwrap()?;
    let hashes: &UInt64Array = table::column(&part, &batch, PHASH_COLUMN)?;
    let names = FeatureTable::open(&features)?.file_names;
    for (row, name) in names.iter().enumerate() {
        let bytes = fs::read(source.join("image").join(name)).unwrap();
        let decoded = photo::decode_with(&bytes, Decoding::fitted(photo::MAX_PIXELS)).unwrap();
        assert!(hashes.is_valid(row));
        assert_eq!(Some(hashes.value(row)), PhotoHashes::of(&decoded.photo).phash, "{name}");
    }
    let config = Config { features, output: output.clone(), ..Config::default() };
    duplicates::run(&config, &common)?.published().expect("it is published");
    assert_eq!(read_groups(&output)?.len(), 8);
    Ok(())
}

#[test]
fn tables_without_hashes_or_photos_are_told_apart() {
    let place = tempfile::tempdir().unwrap();
    let run = || lookbook(place.path(), &["duplicates", "--features", "features", "--output", "out"]);
    let features = place.path().join("features");
    write_features(&features, &[]);
    let (code, text) = run();
    assert!(code == 0 && text.contains("photos: 0"), "{text}");
    assert_eq!(read_groups(&place.path().join("out")).unwrap(), []);

    let batch = write_features(&features, &[row(7, &[(1, 5)]), row(9, &[])]);
    let groups =
        |id| GroupedPhoto { photo_id: id, group_id: id, distance: 0, is_representative: true, is_exact_copy: false };
    assert_eq!(run().0, 0);
    assert_eq!(read_groups(&place.path().join("out")).unwrap(), [groups(7), groups(9)], "photos without a hash");

    let kept: Vec<usize> = (0..batch.num_columns())
        .filter(|&it| ![PHASH_COLUMN, CROP_RESISTANT_COLUMN].contains(&batch.schema().field(it).name().as_str()))
        .collect();
    table::write_table(&features.join(table::part_name(0)), &batch.project(&kept).unwrap()).unwrap();
    let (code, text) = run();
    assert_eq!(code, 1);
    assert!(
        text.contains("has no column 'crop_resistant_phash'") && text.contains("run `lookbook segment` again"),
        "{text}"
    );
    assert_eq!(read_groups(&place.path().join("out")).unwrap().len(), 2, "the published groups stay");
    assert!(FeatureTable::open(&features).is_ok(), "other stages read the table");

    write_features(&features, &[row(7, &[]), row(7, &[])]);
    let (code, text) = run();
    assert!(code == 1 && text.contains("photo_id 7 occurs twice"), "{text}");
    let (code, text) = lookbook(place.path(), &["duplicates", "--features", "features", "--distance", "12"]);
    assert!(code == 2 && text.contains("'duplicates.distance': is 12; use 0 to 11"), "{text}");
}

#[test]
fn a_run_groups_photos_if_its_settings_say_so() {
    let place = tempfile::tempdir().unwrap();
    let planned = |settings: &str, more: &[&str]| {
        fs::write(place.path().join("settings.toml"), settings).unwrap();
        let arguments = ["run", "--dry-run", "--config", "settings.toml", "--output", "night"];
        lookbook(place.path(), &[&arguments[..], more].concat())
    };
    let settings = "[segment]\nfrom = \"labels\"\n";
    assert!(!planned(settings, &[]).1.contains("duplicates"));
    assert!(planned(&format!("{settings}[duplicates]\n"), &[]).1.contains("duplicates"));
    assert!(planned(settings, &["--only", "duplicates"]).1.contains("duplicates"));
    let (code, text) = planned("[duplicates]\ndistance = 40\n", &[]);
    assert!(code == 2 && text.contains("duplicates.distance"), "{text}");
}
