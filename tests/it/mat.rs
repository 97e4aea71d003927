//! `.mat` files in every form that scipy and h5py write or read, against their values, and files that are refused.
//!
//! `scripts/oracles/mat_kinds.py` made the files of `tests/data/mat_kinds`.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lookbook::Error;
use lookbook::convert::{self, Config};
use lookbook::dataset::Dataset;
use lookbook::mat::Annotation;
use lookbook::mat::ccp::Ccp;
use lookbook::mat::cfpd::Cfpd;
use lookbook::rejects::{self, Reject};
use lookbook::stage::Common;

use crate::shared::shared;

const KINDS: &str = "tests/data/mat_kinds";

/// Name and content of each file of one kind.
fn files(kind: &str) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(Path::new(KINDS).join(kind)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().strip_suffix(".mat.zz").unwrap().to_owned();
        files.push((name, inflate(&fs::read(path).unwrap())));
    }
    files
}

pub(crate) fn inflate(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::ZlibDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

fn file(kind: &str, name: &str) -> Vec<u8> {
    inflate(&fs::read(Path::new(KINDS).join(kind).join(format!("{name}.mat.zz"))).unwrap())
}

/// Rows of numbers, one behind the other.
fn numbers(rows: &serde_json::Value) -> Vec<u16> {
    let numbers = rows.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    numbers.map(|number| number.as_u64().unwrap() as u16).collect()
}

fn expected() -> serde_json::Value {
    serde_json::from_slice(&fs::read(Path::new(KINDS).join("expected.json")).unwrap()).unwrap()
}

// ---- MATLAB v5 ----------------------------------------------------------------------------------------------------

/// A data element, with padding.
fn element(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), (content.len() as u32).to_le_bytes()].concat();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn words(kind: u32, words: &[u32]) -> Vec<u8> {
    element(kind, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>())
}

fn array(class: u32, axes: &[u32], name: &str, content: &[u8]) -> Vec<u8> {
    element(14, &[words(6, &[class, 0]), words(5, axes), element(1, name.as_bytes()), content.to_vec()].concat())
}

fn compressed(content: &[u8], level: u32) -> Vec<u8> {
    let mut deflated = Vec::new();
    flate2::read::ZlibEncoder::new(content, flate2::Compression::new(level)).read_to_end(&mut deflated).unwrap();
    [&15_u32.to_le_bytes()[..], &(deflated.len() as u32).to_le_bytes(), &deflated].concat()
}

fn v5(content: &[u8]) -> Vec<u8> {
    [format!("{:124}", "MATLAB 5.0 MAT-file, by hand").as_bytes(), b"\0\x01IM", content].concat()
}

/// Writes the list of the tags 0, 1, 2, which are the categories 0, 1, 2.
pub(crate) fn write_label_list(folder: &Path) {
    let cells =
        ["null", "t-shirt", "bag"].map(|tag| array(4, &[1, tag.len() as u32], "", &element(16, tag.as_bytes())));
    fs::write(folder.join("label_list.mat"), v5(&array(1, &[1, 3], "label_list", &cells.concat()))).unwrap();
}

/// A source in the layout of Clothing Co-Parsing with these label maps, whose tags 0, 1, 2 are the categories 0, 1, 2.
fn ccp_source(maps: &[(String, Vec<u8>)]) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let annotations = place.path().join("annotations/pixel-level");
    fs::create_dir_all(&annotations).unwrap();
    fs::create_dir(place.path().join("photos")).unwrap();
    write_label_list(place.path());
    for (name, content) in maps {
        fs::write(annotations.join(format!("{name}.mat")), content).unwrap();
        fs::write(place.path().join(format!("photos/{name}.jpg")), jpeg()).unwrap();
    }
    place
}

fn jpeg() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new(&mut bytes);
    encoder.encode(&[90; 4 * 5 * 3], 4, 5, image::ExtendedColorType::Rgb8).unwrap();
    bytes
}

/// The only label map of a source made of it.
fn read_map(content: &[u8]) -> Result<Annotation, Reject> {
    let place = ccp_source(&[("a".to_owned(), content.to_owned())]);
    Ccp::open(place.path()).unwrap().annotation(0).unwrap()
}

#[test]
fn every_form_of_v5_label_map_has_scipys_values() {
    let expected = expected();
    let files = files("v5");
    assert!(files.len() > 60);
    for (name, content) in files {
        let map = read_map(&content).unwrap_or_else(|reject| panic!("{name}: {}", reject.detail));
        assert_eq!((map.width_px, map.height_px), (4, 5), "{name}");
        // One kind is read although scipy does not; it holds the same map.
        let values = &expected["v5"][&name];
        let values = if values.is_null() { &expected["v5"]["scipy_u1_plain"] } else { values };
        assert_eq!(map.superpixels, numbers(values), "{name}");
    }
}

#[test]
fn a_v5_label_map_that_is_not_one_is_refused_for_its_true_reason() {
    let map =
        |class, axes: &[u32], kind, content: &[u8]| v5(&array(class, axes, "groundtruth", &element(kind, content)));
    let good = array(9, &[5, 4], "groundtruth", &element(2, &[1; 20]));
    let mut nested = good.clone();
    for _ in 0..3000 {
        nested = compressed(&nested, 0);
    }
    let bomb = array(9, &[1 << 13, 9000], "groundtruth", &element(2, &vec![0; 9000 << 13]));
    let beside_bomb = array(9, &[1 << 13, 9000], "other", &element(2, &vec![0; 9000 << 13]));
    let mut altered = compressed(&good, 6);
    let end = altered.len() - 6;
    altered[end] ^= 0x55;
    let cases = [
        (v5(&compressed(&compressed(&good, 6), 6)), "a compressed element inside a compressed one"),
        (v5(&nested), "a compressed element inside a compressed one"),
        (v5(&compressed(&bomb, 6)), "at most 67112960 are read"),
        (v5(&array(9, &[5, 4], "other", &element(2, &[1; 20]))), "has no variable 'groundtruth'"),
        (v5(&altered), "cannot be inflated"),
        (map(9, &[5, 4], 2, &[1; 19]), "has 19 bytes; expected 5 x 4"),
        (map(9, &[u32::MAX, u32::MAX], 2, &[1; 20]), "expected 4294967295 x 4294967295"),
        (map(9, &[5, 2, 2], 2, &[1; 20]), "has 3 axes"),
        (map(4, &[5, 4], 2, &[1; 20]), "is text"),
        (map(1, &[5, 4], 2, &[1; 20]), "is a cell array"),
        (map(5, &[5, 4], 2, &[1; 20]), "is a sparse array"),
        (map(0x0809, &[5, 4], 2, &[1; 20]), "has complex values"),
        (map(8, &[5, 4], 1, &[255; 20]), "has other values"),
        (map(9, &[5, 4], 99, &[1; 20]), "data of type 99"),
        (map(9, &[0, 0], 2, &[]), "is empty"),
        (v5(&good[..60]), "ends in the middle of an element"),
        (v5(&[good.clone(), vec![0; 64]].concat()), "an element of type 0"),
        (b"\0\0\0\0\x05\0\0\0\x04\0\0\0\0\0\0\0\x0c\0\0\0groundtruth\0".repeat(9), "a MATLAB file of version 4"),
    ];
    for (content, expected) in cases {
        let reject = read_map(&content).expect_err(expected);
        assert_eq!(reject.item, "a.jpg");
        assert!(reject.detail.contains(expected), "expected '{expected}' in: {}", reject.detail);
        assert!(!reject.detail.contains("damaged"), "{}", reject.detail);
    }
    let map = read_map(&v5(&[compressed(&beside_bomb, 6), good].concat())).expect("the rest is passed over");
    assert_eq!(map.superpixels, [1; 20]);
}

#[test]
fn a_flipped_bit_in_a_v5_file_is_a_reject_or_another_valid_map() {
    let (mut rejected, mut read) = (0, 0);
    for name in ["beside_others_compressed", "beside_others_plain", "stored_i4_big"] {
        let whole = file("v5", name);
        for bit in (0..whole.len() * 8).step_by(whole.len() / 30) {
            let mut spoilt = whole.clone();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            match read_map(&spoilt) {
                Ok(map) => read += usize::from(map.superpixels.iter().all(|&number| number < 23)),
                Err(_) => rejected += 1,
            }
        }
    }
    assert!(rejected > 0 && read > 0, "{rejected} {read}");
}

// ---- MATLAB v7.3 --------------------------------------------------------------------------------------------------

fn open(content: &[u8]) -> Result<Cfpd, Error> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("fashon_parsing_data.mat");
    fs::write(&path, content).unwrap();
    Cfpd::open(&path)
}

#[test]
fn every_form_of_v73_file_has_h5pys_values() {
    let expected = expected();
    let files = files("v73");
    assert!(files.len() > 15);
    for (name, content) in files {
        let file = open(&content).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(file.len(), 2, "{name}");
        for index in 0..2 {
            let photo = file.annotation(index).unwrap().unwrap_or_else(|reject| panic!("{name}: {}", reject.detail));
            assert_eq!(photo.file_name, format!("{:04}.jpg", index + 1), "{name}");
            assert_eq!((photo.width_px, photo.height_px), (4, 5), "{name}");
            assert_eq!(photo.superpixels, numbers(&expected["v73"][&name][index]), "{name}");
            assert_eq!(photo.superpixel_category, [index as u8, 1, 2], "{name}");
            assert_eq!(photo.superpixel_color, Some(vec![2, 1, index as u8]), "{name}");
        }
    }
}

#[test]
fn a_reference_or_field_that_leads_nowhere_is_one_reject() {
    let cases = [
        ("null_reference", "fashion_dataset{1}", "is a null reference"),
        ("undefined_reference", "fashion_dataset{1}", "is a null reference"),
        ("dangling_reference", "fashion_dataset{1}", "leads nowhere: byte 1099511627776 is not the start of an object"),
        ("damaged_reference", "fashion_dataset{1}", "leads nowhere"),
        ("null_in_struct_array", "0001.jpg", "'segmentation' is a null reference"),
        ("null_in_short_struct_array", "0001.jpg", "'color_label' is a null reference"),
        ("loop", "0001.jpg", "'segmentation' leads through more than 16 soft links"),
        ("dangling_link", "0001.jpg", "'segmentation' is a soft link to '/nowhere', which does not exist"),
        ("external_link", "0001.jpg", "'segmentation' is a link into another file, 'other.h5'"),
        ("external_data", "0001.jpg", "'segmentation' is stored in another file"),
        ("virtual", "0001.jpg", "'segmentation' is put together from other data sets"),
        ("gigantic_field", "0001.jpg", "64000000 values of 8 bytes, which a file of"),
        ("gigantic_chunks", "0001.jpg", "64000000 values of 8 bytes, which a file of"),
        ("group", "0001.jpg", "'segmentation' is not an array"),
        ("empty_labels", "0001.jpg", "'category_label' has the shape [0]"),
        ("newest_layout", "0001.jpg", "a layout of HDF5 2.0 (version 5), which is not read"),
    ];
    for (name, item, expected) in cases {
        let file = open(&file("refused", name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let reject = file.annotation(0).unwrap().expect_err(name);
        assert_eq!(reject.item, item, "{name}");
        assert!(reject.detail.contains(expected), "{name}: expected '{expected}' in: {}", reject.detail);
        assert!(!reject.detail.contains("damaged"), "{}", reject.detail);
        assert_eq!(file.annotation(1).unwrap().expect("the other entry").file_name, "0002.jpg", "{name}");
    }
}

#[test]
fn a_list_that_cannot_be_read_is_one_clear_error() {
    let cases = [
        ("list_of_2_44", "declares 17592186044416 values of 8 bytes, which a file of"),
        ("chunked_list_of_2_44", "declares 17592186044416 values of 8 bytes, which a file of"),
        ("external_list", "'fashion_dataset' is a link into another file, 'other.h5'"),
        ("dangling_list", "'fashion_dataset' is a soft link to '/x', which does not exist"),
        ("list_loop", "'fashion_dataset' leads through more than 16 soft links"),
        ("regions", "'fashion_dataset' holds values other than references to objects"),
        ("text_list", "'fashion_dataset' is not a cell array"),
        ("empty_list", "'fashion_dataset' has no entries"),
        ("newest_list", "'fashion_dataset' is stored in a layout of HDF5 2.0 (version 5), which is not read"),
    ];
    for (name, expected) in cases {
        let error = open(&file("refused", name)).expect_err(name);
        assert!(matches!(error, Error::Input { .. }), "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains(expected), "{name}: expected '{expected}' in: {text}");
        assert!(!text.contains("damaged"), "{text}");
    }
}

#[test]
fn a_flipped_bit_in_a_v73_file_never_panics() {
    let (mut refused, mut rejected) = (0, 0);
    for name in ["new_large_groups", "new_soft_links", "struct_array", "soft_links"] {
        let whole = file("v73", name);
        for bit in (0..whole.len() * 8).step_by(whole.len() * 8 / 150 + 1) {
            let mut spoilt = whole.clone();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            match open(&spoilt) {
                Ok(file) => {
                    rejected += (0..file.len().min(9)).filter(|&at| file.annotation(at).unwrap().is_err()).count();
                }
                Err(error) => {
                    assert!(matches!(error, Error::Input { .. }), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 0, "{refused} {rejected}");
}

// ---- `convert` ----------------------------------------------------------------------------------------------------

/// Runs `convert` in an address space of 4 GiB, under strace with these flags if there are any.
fn convert_program(source: &Path, output: &Path, strace: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 4194304; exec \"$@\"", "sh"]);
    if !strace.is_empty() {
        command.args(["strace", "-f", "-qq", "-o", "/dev/null"]).args(strace);
    }
    command.arg(env!("CARGO_BIN_EXE_lookbook")).args(["convert", "--threads", "2", "--max-reject-fraction", "1"]);
    command.arg("--source").arg(source).arg("--output").arg(output);
    command.output().unwrap()
}

fn cfpd_source(content: &[u8]) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("image")).unwrap();
    fs::write(place.path().join("fashon_parsing_data.mat"), content).unwrap();
    for name in ["0001.jpg", "0002.jpg"] {
        fs::write(place.path().join("image").join(name), jpeg()).unwrap();
    }
    place
}

#[test]
fn no_file_needs_more_memory_than_it_can_fill() {
    let place = tempfile::tempdir().unwrap();
    for name in ["list_of_2_44", "chunked_list_of_2_44", "gigantic_field", "gigantic_chunks"] {
        let source = cfpd_source(&file("refused", name));
        let done = convert_program(source.path(), &place.path().join(name), &[]);
        let lists = name.contains("list");
        assert_eq!(done.status.code(), Some(i32::from(lists)), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(place.path().join(name).exists(), !lists, "{name}");
    }
}

#[test]
fn a_disk_that_fails_ends_the_stage_and_is_no_reject() {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        crate::shared::skip("strace does not run here");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let cfpd = cfpd_source(&file("v73", "plain"));
    let mat = cfpd.path().join("fashon_parsing_data.mat");
    // Call by call, so that the superblock, the lists and the entries each fail once.
    let mut failed = 0;
    for call in [1, 2, 5, 20, 60, 150, 300, 500, 600, 700, 800, 900] {
        let output = place.path().join(format!("cfpd{call}"));
        let fault = format!("inject=pread64:error=EIO:when={call}");
        let done = convert_program(cfpd.path(), &output, &["-P", mat.to_str().unwrap(), "-e", &fault]);
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() {
            assert_eq!(rejects::read(&output.join("rejects.parquet")).unwrap(), [], "call {call}");
            continue;
        }
        failed += 1;
        assert_eq!(done.status.code(), Some(1), "call {call}: {text}");
        assert!(text.contains("fashon_parsing_data.mat: cannot read: Input/output error"), "call {call}: {text}");
        assert!(!output.exists());
    }
    assert!(failed > 5, "{failed}");
    let ccp = ccp_source(&["a", "b"].map(|name| (name.to_owned(), file("v5", "scipy_u1_plain"))));
    let map = ccp.path().join("annotations/pixel-level/b.mat");
    let output = place.path().join("ccp");
    let done = convert_program(ccp.path(), &output, &["-P", map.to_str().unwrap(), "-e", "inject=read:error=EIO"]);
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{text}");
    assert!(text.contains("b.mat: cannot read: Input/output error"), "{text}");
    assert!(!output.exists());
}

/// Converts a source; item and reason of each reject.
fn convert(source: &Path, output: &Path) -> Vec<(String, String)> {
    let config =
        Config { source: source.to_owned(), output: output.to_owned(), max_reject_fraction: 1.0, ..Config::default() };
    convert::run(&config, &Common::default()).unwrap().published().expect("it is published");
    let rejects = rejects::read(&output.join("rejects.parquet")).unwrap();
    rejects.into_iter().map(|reject| (reject.item, reject.reason.into_owned())).collect()
}

#[test]
fn dot_files_are_passed_over_and_links_out_of_the_source_are_not_followed() {
    let place = tempfile::tempdir().unwrap();
    let good = file("v5", "scipy_u1_plain");
    let source = ccp_source(&["a", "b", "c", "d"].map(|name| (name.to_owned(), good.clone())));
    let in_source = |path: &str| source.path().join(path);
    for name in ["annotations/pixel-level/._a.mat", "photos/._a.jpg", "photos/.hidden.jpg", "annotations/.DS_Store"] {
        fs::write(in_source(name), b"\0\x05\x16\x07").unwrap();
    }
    let elsewhere = |name: &str, content: &[u8]| -> PathBuf {
        let path = place.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let replace = |name: &str, target: &Path| {
        fs::remove_file(in_source(name)).unwrap();
        symlink(target, in_source(name)).unwrap();
    };
    replace("photos/b.jpg", &elsewhere("b.jpg", &jpeg()));
    replace("annotations/pixel-level/c.mat", &elsewhere("c.mat", &good));
    // A link inside the source is followed.
    fs::write(in_source("inside.jpg"), jpeg()).unwrap();
    replace("photos/d.jpg", Path::new("../inside.jpg"));
    symlink(elsewhere("secret", b"not a licence"), in_source("LICENSE")).unwrap();
    let output = place.path().join("dataset");
    let expected = [("b.jpg", "photo_outside_source"), ("c.jpg", "entry_unreadable")];
    assert_eq!(convert(source.path(), &output), expected.map(|(item, reason)| (item.to_owned(), reason.to_owned())));
    assert!(!output.join("LICENSE").exists());
    fs::write(in_source("COPYING"), b"the licence").unwrap();
    convert(source.path(), &output);
    assert_eq!(fs::read(output.join("LICENSE")).unwrap(), b"the licence");
}

#[test]
fn the_inputs_that_went_wrong_are_right() {
    let Some(cases) = shared("cases/inputs") else { return };
    let place = tempfile::tempdir().unwrap();
    let rejected = |case: &str| convert(&cases.join(case), &place.path().join(case));
    assert_eq!(rejected("label_types"), []);
    let dataset = Dataset::open(&place.path().join("label_types")).unwrap();
    let maps: Vec<_> = dataset.photos(None).unwrap().map(|photo| photo.unwrap().category_map()).collect();
    assert_eq!(maps.len(), 3);
    assert!(maps.iter().all(|map| *map == maps[2]) && maps[2].iter().any(|&category| category > 0));
    assert_eq!(rejected("beside"), []);
    assert_eq!(rejected("macos_dot_files"), []);
    let reject = |item: &str| vec![(item.to_owned(), "entry_unreadable".to_owned())];
    assert_eq!(rejected("nested_3000_times"), reject("b_nested.jpg"));
    let found = rejected("one_null_reference");
    assert_eq!(found.len(), 1);
    assert!(found[0].0.starts_with("fashion_dataset{") && found[0].1 == "entry_unreadable", "{found:?}");
    let done = convert_program(&cases.join("gigantic_list"), &place.path().join("gigantic_list"), &[]);
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{text}");
    assert!(text.contains("declares 17592186044416 values"), "{text}");
}
