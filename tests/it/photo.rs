//! The strict decoder: every good encoding, every kind of bad file.

use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageFormat, RgbImage};

use crate::shared::shared;
use lookbook::photo::{self, Decoding, PhotoProblem};
use lookbook::reason;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/photos").join(name)
}

fn stored(name: &str) -> Vec<u8> {
    std::fs::read(data(name)).unwrap_or_else(|cause| panic!("{name}: {cause}"))
}

fn reason_of(bytes: &[u8]) -> &'static str {
    photo::decode(bytes).map(|photo| photo.rgb.len()).expect_err("the file is bad").reason
}

fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::from(picture.clone()).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A picture that no rotation or mirroring leaves as it is: 48 x 32, four flat quadrants.
fn quadrants() -> RgbImage {
    RgbImage::from_fn(48, 32, |x, y| {
        image::Rgb([[220, 30, 30], [30, 180, 40], [30, 50, 210], [240, 230, 60]][(y / 16 * 2 + x / 24) as usize])
    })
}

/// Mean RGB of the inside of the four quadrants, as the oracle's script takes them.
fn quadrant_means(photo: &photo::Photo) -> Vec<[f64; 3]> {
    let (width, height) = (photo.width_px as usize, photo.height_px as usize);
    let spans = |side: usize| [(2, side / 2 - 2), (side / 2 + 3, side - 2)];
    let mut means = Vec::new();
    for (top, bottom) in spans(height) {
        for (left, right) in spans(width) {
            let mut sum = [0.0; 3];
            for (y, x) in (top..bottom).flat_map(|y| (left..right).map(move |x| (y, x))) {
                (0..3).for_each(|c| sum[c] += f64::from(photo.rgb[(y * width + x) * 3 + c]));
            }
            means.push(sum.map(|value| value / ((bottom - top) * (right - left)) as f64));
        }
    }
    means
}

/// A JPEG with an APP1 segment that tells an orientation, and a whole thumbnail in it where one is given.
fn with_exif(jpeg: &[u8], orientation: u8, thumbnail: &[u8]) -> Vec<u8> {
    let mut tiff =
        vec![b'M', b'M', 0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0];
    tiff.extend_from_slice(thumbnail);
    let length = (2 + 6 + tiff.len()) as u16;
    let mut bytes = jpeg[..2].to_vec();
    bytes.extend_from_slice(&[0xFF, 0xE1]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(b"Exif\0\0");
    bytes.extend_from_slice(&tiff);
    bytes.extend_from_slice(&jpeg[2..]);
    bytes
}

#[test]
fn every_encoding_reads_as_pillow_reads_it() {
    let expected: serde_json::Value = serde_json::from_slice(&stored("expected.json")).unwrap();
    let all = expected["quadrant_means"].as_object().unwrap();
    assert!(all.len() >= 23, "the oracle holds {} photos", all.len());
    for (name, means) in all {
        let photo = photo::decode(&stored(name)).unwrap_or_else(|problem| panic!("{name}: {problem:?}"));
        assert_eq!(serde_json::json!([photo.width_px, photo.height_px]), serde_json::json!([45, 37]), "{name}");
        let means: Vec<[f64; 3]> = serde_json::from_value(means.clone()).unwrap();
        for (found, expected) in quadrant_means(&photo).iter().zip(&means) {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1.5, "{name}: {found} is not {expected}");
            }
        }
    }
}

#[test]
fn every_bad_file_is_refused_for_its_reason() {
    let expected: serde_json::Value = serde_json::from_slice(&stored("expected.json")).unwrap();
    let all = expected["reasons"].as_object().unwrap();
    assert!(all.len() >= 10, "the oracle holds {} bad files", all.len());
    for (name, reason) in all {
        let bytes = stored(&format!("bad/{name}"));
        assert_eq!(reason_of(&bytes), reason, "{name}");
        let fitted = Decoding { max_pixels: photo::MAX_PIXELS, fit: Some((8, 8)) };
        assert_eq!(photo::decode_with(&bytes, fitted).expect_err("the file is bad").reason, reason, "{name}, fitted");
    }
}

/// Soft waves in each channel, with some grain.
fn waves(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = |at: u32, length: f32| (at as f32 / length).sin() * 60.0 + 128.0;
        let grain = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)) % 13;
        image::Rgb([wave(x, 90.0), wave(y, 130.0), wave(x + y, 70.0)].map(|value| value as u8 + grain as u8))
    })
}

#[test]
fn a_large_jpeg_decoded_scaled_down_looks_like_one_decoded_whole() {
    let fit = Some((400, 600));
    let decoding = Decoding { max_pixels: photo::MAX_PIXELS, fit };
    for (width, height, grey) in [(1600, 2400, false), (900, 1250, true), (3300, 2000, false)] {
        let picture = waves(width, height);
        let mut bytes = std::io::Cursor::new(Vec::new());
        let picture = if grey { DynamicImage::from(picture).grayscale() } else { DynamicImage::from(picture) };
        picture.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        for orientation in [1, 6] {
            let jpeg = with_exif(bytes.get_ref(), orientation, &[]);
            let whole = photo::decode(&jpeg).unwrap();
            let expected = photo::fit(&whole, 400, 600);
            let found = photo::decode_with(&jpeg, decoding).unwrap();
            assert_eq!((found.own_width_px, found.own_height_px), (whole.width_px, whole.height_px));
            assert_eq!((found.photo.width_px, found.photo.height_px), (expected.width_px, expected.height_px));
            let differences = found.photo.rgb.iter().zip(&expected.rgb).map(|(a, b)| u64::from(a.abs_diff(*b)));
            let mean = differences.sum::<u64>() as f64 / expected.rgb.len() as f64;
            assert!(mean < 1.5, "{width} x {height}, orientation {orientation}: {mean}");
            let cut = photo::decode_with(&jpeg[..jpeg.len() * 2 / 3], decoding).expect_err("it is cut");
            assert_eq!(cut.reason, reason::TRUNCATED);
        }
        let few = Decoding { max_pixels: u64::from(width * height) - 1, fit };
        assert_eq!(photo::decode_with(bytes.get_ref(), few).expect_err("too many").reason, reason::TOO_LARGE);
    }
}

#[test]
fn all_eight_orientations_come_upright() {
    let upright = quadrants();
    // What a camera stores under each orientation, so that turning it as told gives `upright`.
    let whole = DynamicImage::from(upright.clone());
    let stored = [
        whole.clone(),
        whole.fliph(),
        whole.rotate180(),
        whole.flipv(),
        whole.rotate90().fliph(),
        whole.rotate270(),
        whole.rotate270().fliph(),
        whole.rotate90(),
    ];
    for (turned, orientation) in stored.iter().zip(1..) {
        let jpeg = with_exif(&encoded(&turned.to_rgb8(), ImageFormat::Jpeg), orientation, &[]);
        let photo = photo::decode(&jpeg).unwrap();
        assert_eq!((photo.width_px, photo.height_px), (48, 32), "orientation {orientation}");
        for (x, y) in [(12, 8), (36, 8), (12, 24), (36, 24)] {
            let at = (y * 48 + x) * 3;
            for (found, expected) in photo.rgb[at..at + 3].iter().zip(upright.get_pixel(x as u32, y as u32).0) {
                assert!(found.abs_diff(expected) < 12, "orientation {orientation} at {x}, {y}: {found} not {expected}");
            }
        }
    }
}

#[test]
fn a_nonsensical_orientation_is_no_orientation() {
    let jpeg = encoded(&quadrants(), ImageFormat::Jpeg);
    for orientation in [0, 9, 200] {
        let photo = photo::decode(&with_exif(&jpeg, orientation, &[])).unwrap();
        assert_eq!((photo.width_px, photo.height_px), (48, 32));
    }
}

#[test]
fn a_photo_cut_anywhere_is_never_good() {
    let names = [
        "baseline_420.jpg",
        "progressive_420.jpg",
        "progressive_422.jpg",
        "restarts.jpg",
        "grey_progressive.jpg",
        "cmyk.jpg",
        "png_named.jpg",
        "sixteen_bit.png",
        "lossy.webp",
        "lossless_alpha.webp",
    ];
    for name in names {
        let whole = stored(name);
        for length in 1..whole.len() {
            let problem = photo::decode(&whole[..length]).err();
            let found = problem.unwrap_or_else(|| panic!("{name}: good though cut at {length} of {}", whole.len()));
            let known = [reason::TRUNCATED, reason::UNDECODABLE];
            assert!(known.contains(&found.reason), "{name} cut at {length}: {found:?}");
            assert!(length < 12 || found.reason == reason::TRUNCATED, "{name} cut at {length}: {found:?}");
        }
    }
}

#[test]
fn a_jpeg_cut_and_closed_again_is_found_out() {
    for name in ["baseline_420.jpg", "baseline_444.jpg", "restarts.jpg", "grey.jpg", "cmyk.jpg"] {
        let whole = stored(name);
        let data = whole.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap() + 16;
        for length in data..whole.len() - 6 {
            let closed = [&whole[..length], &[0xFF, 0xD9]].concat();
            let problem = photo::decode(&closed).err();
            let found = problem.unwrap_or_else(|| panic!("{name}: good though cut at {length} of {}", whole.len()));
            assert_eq!(found.reason, reason::TRUNCATED, "{name} cut at {length}: {found:?}");
        }
    }
}

#[test]
fn a_thumbnail_does_not_vouch_for_a_photo_that_is_cut() {
    let thumbnail = encoded(&quadrants(), ImageFormat::Jpeg);
    let whole = with_exif(&stored("baseline_444.jpg"), 1, &thumbnail);
    assert!(photo::decode(&whole).is_ok());
    assert_eq!(reason_of(&whole[..whole.len() * 3 / 4]), reason::TRUNCATED);
}

#[test]
fn bytes_behind_a_whole_photo_do_no_harm() {
    for name in ["baseline_420.jpg", "progressive_420.jpg", "png_named.jpg"] {
        let mut bytes = stored(name);
        let alone = photo::decode(&bytes).unwrap();
        bytes.extend_from_slice(b"\0\0a camera's own notes\xFF\xD8\xFF");
        assert_eq!(photo::decode(&bytes).as_ref(), Ok(&alone), "{name}");
    }
}

#[test]
fn what_is_no_photo_is_told_by_its_reason() {
    assert_eq!(reason_of(b""), reason::EMPTY);
    assert_eq!(reason_of(b"<!DOCTYPE html><html><body>404 Not Found</body></html>"), reason::UNDECODABLE);
    assert_eq!(reason_of(b"GIF89a\x01\0\x01\0\0\0\0;"), reason::UNDECODABLE);
    assert_eq!(reason_of(&[0; 4096]), reason::UNDECODABLE);
    assert_eq!(reason_of(&[0xFF, 0xD8, 0xFF, 0xD9]), reason::UNDECODABLE);
    let missing = photo::read(Path::new("/nowhere/photo.jpg")).expect_err("it is not there");
    assert_eq!(missing.reason, reason::MISSING);
}

#[test]
fn a_photo_of_too_many_pixels_is_refused_before_it_takes_memory() {
    // The header of a PNG of 60,000 x 60,000 pixels; its checksum is right.
    let mut png = encoded(&quadrants(), ImageFormat::Png);
    png[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(reason_of(&png), reason::TOO_LARGE);
}

#[test]
fn damage_is_reported_and_never_a_panic() {
    let mut seed = 1_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let mut bad = 0;
    for name in ["baseline_420.jpg", "progressive_422.jpg", "restarts.jpg", "cmyk.jpg", "alpha.png", "lossy.webp"] {
        let whole = stored(name);
        for _ in 0..400 {
            let mut bytes = whole.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                bytes[at] ^= 1 << random(8);
            }
            match photo::decode(&bytes) {
                Ok(photo) => assert_eq!(photo.rgb.len(), (photo.width_px * photo.height_px * 3) as usize, "{name}"),
                Err(PhotoProblem { reason, detail }) => {
                    assert!(reason.starts_with("photo_") && !detail.is_empty(), "{name}: {reason}");
                    bad += 1;
                }
            }
        }
    }
    assert!(bad > 400, "only {bad} damaged photos were found out");
}

#[test]
fn fitting_keeps_the_aspect_within_the_limit() {
    for ((width, height), expected) in [
        ((400, 600), (400, 600)),
        ((550, 825), (400, 600)),
        ((4000, 3000), (400, 300)),
        ((100, 100), (400, 400)),
        ((40, 9000), (3, 600)),
        ((1, 90_000), (1, 600)),
    ] {
        assert_eq!(photo::fitted_size((width, height), (400, 600)), expected, "{width} x {height}");
    }
    let flat = photo::Photo { width_px: 3000, height_px: 2000, rgb: [90, 120, 200].repeat(6_000_000) };
    let small = photo::fit(&flat, 400, 600);
    assert_eq!((small.width_px, small.height_px), (400, 267));
    assert!(small.rgb.chunks_exact(3).all(|pixel| pixel == [90, 120, 200]), "a flat colour stays as it is");
}

#[test]
fn all_real_photos_are_good_and_their_halves_are_not() {
    let folders = [shared("data/cfpd/image"), shared("data/ccp/photos")];
    let [Some(cfpd), Some(ccp)] = folders else { return };
    let folders = [cfpd, ccp];
    let mut seen = 0;
    for entry in folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        if let Err(problem) = photo::decode(&bytes) {
            panic!("{}: {problem:?}", path.display());
        }
        for share in [2, 5, 9] {
            assert_eq!(reason_of(&bytes[..bytes.len() * share / 10]), reason::TRUNCATED, "{}", path.display());
        }
        seen += 1;
    }
    assert_eq!(seen, 848);
}

/// CRC-32 of PNG chunks, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}
