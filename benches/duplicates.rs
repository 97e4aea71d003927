//! The hashes of a photo: milliseconds. Groups of near-duplicates among drawn hashes, every twentieth of which is planted near an earlier one: seconds, and the
//! most memory that was in use. The planted ones are looked for in the result. Prints the figures of docs/duplicates.md.
//!
//! `cargo bench --bench duplicates`, with `PHOTOS` (1000000), `DISTANCE` (8), and `ONES` (0.5), the probability that a bit of a
//! hash is set: with 0.65, as many chunks are equal as among real photos.

use std::str::FromStr;
use std::time::Instant;

use lookbook::duplicates::{DEFAULT_DISTANCE, GroupedPhoto, HashedPhoto, group};
use lookbook::photo::hashes::{CropResistantHash, PhotoHashes};
use lookbook::photo::{FIT_HEIGHT_PX, FIT_WIDTH_PX, Photo};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One photo of so many is near an earlier one.
const PLANTED_EVERY: u32 = 20;
/// Photos that are hashed.
const HASHED: u32 = 200;

fn setting<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The largest resident size of this process so far, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024
}

/// A word whose bits are set with the probability `ones`, in 256ths.
fn word(random: &mut ChaCha8Rng, ones: u32) -> u64 {
    if ones == 128 {
        return random.random();
    }
    let mut word = 0;
    for bytes in std::iter::repeat_with(|| random.random::<u64>().to_le_bytes()).take(8) {
        word = bytes.into_iter().fold(word, |word, byte| word << 1 | u64::from(u32::from(byte) < ones));
    }
    word
}

fn drawn(photos: u32, distance: u32, ones: u32) -> (Vec<HashedPhoto>, Vec<CropResistantHash>) {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut hashes: Vec<CropResistantHash> = Vec::with_capacity(photos as usize);
    for photo in 0..photos {
        let mut hash: CropResistantHash = std::array::from_fn(|_| word(&mut random, ones));
        if photo % PLANTED_EVERY == PLANTED_EVERY - 1 {
            hash = hashes[photo as usize - 1];
            for _ in 0..random.random_range(0..=distance) {
                hash[0] ^= 1 << random.random_range(0..u64::BITS);
            }
        }
        hashes.push(hash);
    }
    let photo = |id: u32| HashedPhoto { photo_id: id, pixels: 240_000, content: u128::from(id), hash: Some(id) };
    ((0..photos).map(photo).collect(), hashes)
}

/// Hashes photos of the size that all photos are fitted to; the milliseconds of each.
fn hashing_ms() -> f64 {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let rgb = (0..FIT_WIDTH_PX * FIT_HEIGHT_PX * 3).map(|_| random.random()).collect();
    let photo = Photo { width_px: FIT_WIDTH_PX, height_px: FIT_HEIGHT_PX, rgb };
    let started = Instant::now();
    for _ in 0..HASHED {
        assert!(PhotoHashes::of(std::hint::black_box(&photo)).phash.is_some(), "noise is not flat");
    }
    1e3 * started.elapsed().as_secs_f64() / f64::from(HASHED)
}

fn main() {
    println!("hashing a photo: {:.2} ms of one core", hashing_ms());
    let (photos, distance) = (setting("PHOTOS", 1_000_000), setting("DISTANCE", DEFAULT_DISTANCE));
    let ones = (setting("ONES", 0.5) * 256.0) as u32;
    let (hashed, hashes) = drawn(photos, distance, ones);
    let drawn_mib = peak_mib();
    let started = Instant::now();
    let groups = group(hashed, &hashes, distance, "duplicates").expect("nobody stops it");
    let elapsed_secs = started.elapsed().as_secs_f64();
    // Unless what it was planted near is in another photo's group.
    let is_lost = |pair: &[GroupedPhoto]| pair[0].is_representative && pair[1].is_representative;
    let pairs = groups.windows(2).skip(PLANTED_EVERY as usize - 2).step_by(PLANTED_EVERY as usize);
    assert_eq!(pairs.filter(|it| is_lost(it)).count(), 0, "planted duplicates are representatives");
    let duplicates = groups.iter().filter(|it| !it.is_representative).count();
    println!(
        "{photos} photos, distance {distance}, ones {:.2}: {elapsed_secs:.1} s on {} threads, {} MiB at most ({drawn_mib} MiB \
         of them drawn), {duplicates} duplicates",
        f64::from(ones) / 256.0,
        rayon::current_num_threads(),
        peak_mib()
    );
}
