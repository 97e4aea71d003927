//! JPEG files of every kind: the pixels of libjpeg-turbo, the side up that Pillow shows, bounded work.

use std::path::{Path, PathBuf};

use lookbook::features::FeatureTable;
use lookbook::photo::{self, Decoding, Photo, PhotoProblem};
use lookbook::reason;
use lookbook::stage::Common;
use lookbook::{convert, segment};

use crate::python::python;
use crate::shared::shared;

/// Largest difference to libjpeg-turbo's pixels.
const LEVELS: u8 = 2;

fn largest_difference(found: &[u8], expected: &[u8]) -> u8 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// Decodes a photo fitted to exactly `size`.
fn fitted(bytes: &[u8], size: (u32, u32)) -> Result<Photo, PhotoProblem> {
    photo::decode_with(bytes, Decoding { max_pixels: photo::MAX_PIXELS, fit: Some(size) }).map(|it| it.photo)
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

/// What a script of `scripts/oracles` writes into a folder; `None`, said aloud, without Python.
fn written_by(script: &str) -> Option<tempfile::TempDir> {
    let mut python = python()?;
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/oracles").join(script);
    let output = python.args(["-W", "ignore"]).arg(script).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(folder)
}

#[test]
fn every_orientation_is_turned_as_pillow_turns_it() {
    let Some(folder) = written_by("orientation_grid.py") else { return };
    let expected = files(folder.path(), ".ppm");
    assert!(expected.len() >= 1700, "the grid has {} files", expected.len());
    let mut turned = 0;
    for path in expected {
        let pixels = std::fs::read(&path).unwrap();
        let photo = photo::read(&path.with_extension("")).unwrap_or_else(|problem| panic!("{problem:?}"));
        let header = format!("P6\n{} {}\n255\n", photo.width_px, photo.height_px);
        let pixels = pixels.strip_prefix(header.as_bytes());
        let pixels = pixels.unwrap_or_else(|| panic!("{}: {header}", path.display()));
        let difference = largest_difference(&photo.rgb, pixels);
        assert!(difference <= LEVELS, "{}: {difference} levels", path.display());
        turned += u32::from(photo.height_px > photo.width_px);
    }
    assert!(turned > 400, "{turned} of the photos lay on their side");
}

#[test]
fn every_kind_of_jpeg_has_the_pixels_of_libjpeg_turbo() {
    let Some(folder) = written_by("jpeg_grid.py") else { return };
    let (mut whole, mut halved) = (0, 0);
    for path in files(folder.path(), ".jpg") {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.display();
        let photo = photo::decode(&bytes).unwrap_or_else(|problem| panic!("{name}: {problem:?}"));
        let expected = std::fs::read(path.with_extension("rgb")).unwrap();
        let difference = largest_difference(&photo.rgb, &expected);
        assert!(difference <= LEVELS, "{name}: {difference} levels");
        whole += 1;
        if let Ok(expected) = std::fs::read(path.with_extension("half.rgb")) {
            let photo = fitted(&bytes, (photo.width_px / 2, photo.height_px / 2)).unwrap();
            let difference = largest_difference(&photo.rgb, &expected);
            assert!(difference <= LEVELS, "{name}: {difference} levels at half the size");
            halved += 1;
        }
        // Closed again after most of its data: it is never taken for whole.
        let closed = [&bytes[..bytes.len() - 2 - bytes.len() / 8], &[0xFF, 0xD9]].concat();
        if bytes.len() > 1200 {
            let problem = photo::decode(&closed).map(|photo| photo.rgb.len()).expect_err("it is cut");
            assert_eq!(problem.reason, reason::TRUNCATED, "{name}: {problem:?}");
        }
    }
    assert!(whole >= 900 && halved >= 400, "the grid has {whole} files, {halved} of them decoded at half their size");
}

#[test]
fn red_dresses_are_red() {
    let Some(source) = shared("cases/inputs/red_dresses") else { return };
    let paths = files(&source.join("photos"), ".jpg");
    assert_eq!(paths.len(), 5);
    for path in paths {
        let photo = photo::read(&path).unwrap();
        let red = photo.rgb.chunks_exact(3).all(|pixel| largest_difference(pixel, &[202, 30, 30]) <= LEVELS);
        assert!(red, "{}: {:?}", path.display(), &photo.rgb[..3]);
    }
    let place = tempfile::tempdir().unwrap();
    let [catalogue, output] = ["dataset", "features"].map(|name| place.path().join(name));
    let config = convert::Config { source, output: catalogue.clone(), ..Default::default() };
    convert::run(&config, &Common::default()).unwrap().published().expect("it is published");
    let from = segment::LabelSource::Labels;
    let config = segment::Config { catalogue, output: output.clone(), from, ..Default::default() };
    segment::run(&config, &Common::default()).unwrap().published().expect("it is published");
    let table = FeatureTable::open(&output).unwrap();
    let dress_red = table.labels.cell_names().iter().position(|name| name == "dress_red").unwrap();
    assert_eq!((0..table.len()).map(|row| table.row(row)[dress_red]).collect::<Vec<_>>(), [1.0; 5]);
}

#[test]
fn a_large_photo_has_the_same_colours_however_it_is_marked() {
    let Some(folder) = shared("cases/inputs/red_large") else { return };
    let read = |name: &str| fitted(&std::fs::read(folder.join(name)).unwrap(), (400, 600)).unwrap();
    let right = read("right_rgb_adobe0_idsRGB_900.jpg");
    assert_eq!(read("wrong_rgb_adobe0_ids123_900.jpg"), right);
    assert!(largest_difference(&right.rgb[..3], &read("right_ycc_900.jpg").rgb[..3]) <= LEVELS);
}

#[test]
fn sideways_photos_come_upright() {
    let Some(folder) = shared("cases/inputs/sideways") else { return };
    let entries: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(entries.len(), 5);
    for path in entries {
        let photo = photo::read(&path).unwrap();
        assert_eq!((photo.width_px, photo.height_px), (71, 45), "{}", path.display());
    }
}

#[test]
fn a_frame_without_huffman_tables_is_decoded_with_the_standard_ones() {
    let Some(path) = shared("cases/inputs/refused/no_huffman_tables.jpg") else { return };
    let photo = photo::read(&path).unwrap();
    assert!(photo.width_px > 0);
}

/// A progressive JPEG file of one flat grey block and `scans` scans that add nothing to it.
fn many_scans(scans: usize) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xDB, 0, 67, 0];
    bytes.extend_from_slice(&[8; 64]);
    bytes.extend_from_slice(&[0xFF, 0xC2, 0, 11, 8, 0, 8, 0, 8, 1, 1, 0x11, 0]);
    // One code each: the bit 0 is the symbol 0, no difference or the end of the block.
    for class in [0x00, 0x10] {
        bytes.extend_from_slice(&[0xFF, 0xC4, 0, 20, class, 1]);
        bytes.extend_from_slice(&[0; 16]);
    }
    bytes.extend_from_slice(&[0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 0, 0, 0x7F]);
    for _ in 1..scans {
        bytes.extend_from_slice(&[0xFF, 0xDA, 0, 8, 1, 1, 0, 1, 63, 0, 0x7F]);
    }
    bytes.extend_from_slice(&[0xFF, 0xD9]);
    bytes
}

#[test]
fn scans_are_bounded() {
    let photo = photo::decode(&many_scans(100)).unwrap();
    assert_eq!(photo.rgb, [128; 8 * 8 * 3]);
    let problem = photo::decode(&many_scans(101)).expect_err("too many");
    assert_eq!(problem.reason, reason::TOO_MANY_SCANS);
    assert!(problem.detail.contains("100 scans"), "{}", problem.detail);
    let Some(folder) = shared("cases/inputs/slow") else { return };
    let paths = files(&folder, ".jpg");
    assert_eq!(paths.len(), 2);
    for path in paths {
        assert_eq!(
            photo::read(&path).expect_err("too many scans").reason,
            reason::TOO_MANY_SCANS,
            "{}",
            path.display()
        );
    }
}

/// `jpeg` with its first segment `marker` changed by `change`, which gets marker, length and content.
fn changed(jpeg: &[u8], marker: u8, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut bytes = jpeg.to_vec();
    let at = bytes.windows(2).position(|pair| pair == [0xFF, marker]).unwrap();
    change(&mut bytes[at..]);
    bytes
}

#[test]
fn codings_that_are_not_supported_are_refused_by_name() {
    let whole = many_scans(2);
    for (marker, precision, name) in [
        (0xC1, 12, "12 bits"),
        (0xC3, 8, "lossless"),
        (0xC9, 8, "arithmetic"),
        (0xCA, 8, "arithmetic"),
        (0xC5, 8, "hierarchical"),
    ] {
        let bytes = changed(&whole, 0xC2, |segment| (segment[1], segment[4]) = (marker, precision));
        let problem = photo::decode(&bytes).expect_err("not supported");
        assert_eq!(problem.reason, reason::UNDECODABLE);
        assert!(problem.detail.contains(name), "{}", problem.detail);
    }
}

#[test]
fn what_does_not_touch_the_pixels_is_forgiven() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/photos/baseline_420.jpg");
    let whole = std::fs::read(path).unwrap();
    let expected = photo::decode(&whole).unwrap();
    let of = |marker: u8| whole.windows(2).position(|pair| pair == [0xFF, marker]).unwrap();
    let inserted = |at: usize, bytes: &[u8]| [&whole[..at], bytes, &whole[at..]].concat();
    for (what, bytes) in [
        ("stray bytes before a segment", inserted(of(0xC0), b"stray")),
        ("stray bytes before EOI", inserted(whole.len() - 2, &[1, 2, 3])),
        ("fill bytes before EOI", inserted(whole.len() - 2, &[0xFF; 9])),
        ("a JFIF version of the future", changed(&whole, 0xE0, |segment| segment[9] = 7)),
        ("an ICC profile that is not one", inserted(2, b"\xFF\xE2\0\x12ICC_PROFILE\0\x07\x03")),
        ("a comment", inserted(of(0xDB), b"\xFF\xFE\0\x05abc")),
    ] {
        assert_eq!(photo::decode(&bytes).as_ref(), Ok(&expected), "{what}");
    }
}
