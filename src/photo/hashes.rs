//! Perceptual hashes of a photo: numbers that differ in few bits if two photos look alike.
//!
//! - **`phash`** is the DCT hash of pHash: C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions"
//!   (2010), 3.2.1, in the form of Python's `imagehash.phash`, so that hashes can be compared with those of other programs.
//! - **`crop_resistant_phash`** holds hashes of six views of the photo: what is within its plain borders, and five
//!   crops of it. The hash of a view is the signs of its 128 lowest DCT coefficients (F. Arnia, I. Iizuka, M. Fujiyoshi,
//!   H. Kiya, "Fast Method for Joint Retrieval and Identification of JPEG Coded Images Based on DCT Sign", ICIP 2007). A
//!   crop of a photo resembles one of the photo's views as a whole, and in a mirrored photo the coefficients of
//!   odd horizontal frequency have the other sign, as in Meta's PDQ (2019), so that [`mirrored`] is one XOR.
//!
//! By hand, because the kept crates have neither: `image_hasher` 3.1 takes the DCT of 16 x 16 pixels, which is not the hash
//! that others call pHash, and no crate gives the coefficients whose signs make a mirrored photo's hash.

use std::f64::consts::PI;
use std::sync::LazyLock;

use lookbook_ops::resize::{Filter, Scaling};

use super::pixels::Photo;

/// Views of a photo that are hashed.
pub const VIEWS: usize = 6;
/// Words of a view's hash: the lower and the higher half of its coefficients.
pub const WORDS: usize = 2;

/// The hashes of the views, two words each; the view of the whole photo is the first.
pub type CropResistantHash = [u64; VIEWS * WORDS];

/// The perceptual hashes of a photo. A flat photo has none: what its coefficients have is noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PhotoHashes {
    /// Of the whole photo; `None` if it is flat.
    pub phash: Option<u64>,
    /// Of its views; `None` if what is within its borders is flat.
    pub crop_resistant: Option<CropResistantHash>,
}

/// Pixels of a side of what is transformed.
const SIDE: usize = 32;
/// Coefficients of a side that may be in a hash.
const LOW: usize = 16;
/// Coefficients of a side that are in a `phash`.
const LOWEST: usize = 8;
/// Bits of a word.
const BITS: usize = u64::BITS as usize;
/// Pixels of a side of the reduced photo that the views are cut from.
const REDUCED: u32 = 128;
/// The views: the share of the photo's width and height, and where it lies across and down, from 0 (left, top) to 1 (right,
/// bottom). The second is a photo less 5 % at every side; the others are a photo less 5 % at one side.
const PLACES: [(f64, f64, f64); VIEWS] =
    [(1.0, 0.5, 0.5), (0.9, 0.5, 0.5), (0.95, 0.0, 0.5), (0.95, 1.0, 0.5), (0.95, 0.5, 0.0), (0.95, 0.5, 1.0)];
/// Standard deviation of the pixels, in grey levels of 255, below which a photo is flat: noise of JPEG at low quality stays
/// below it.
const FLAT: f64 = 2.0;
/// How far a pixel of a border may be from its colour, in grey levels: noise of JPEG.
const BORDER_TOLERANCE: u8 = 8;
/// One of so many pixels of a border's line may have another colour.
const BORDER_STRAYS: usize = 50;
/// What is left within the borders is at least one in so many of the width and of the height.
const LEAST_INSIDE: usize = 5;

/// The coefficients of a view's hash as (vertical, horizontal) frequency, from the lowest: in order of their sum, as JPEG
/// has them, without (0, 0), the brightness.
const COEFFICIENTS: [(usize, usize); WORDS * BITS] = lowest_coefficients();

const fn lowest_coefficients() -> [(usize, usize); WORDS * BITS] {
    let (mut lowest, mut count, mut sum) = ([(0, 0); WORDS * BITS], 0, 1);
    while count < WORDS * BITS {
        let mut vertical = 0;
        while vertical <= sum && count < WORDS * BITS {
            if vertical < LOW && sum - vertical < LOW {
                lowest[count] = (vertical, sum - vertical);
                count += 1;
            }
            vertical += 1;
        }
        sum += 1;
    }
    lowest
}

/// The bit of a word that has its coefficient `number`. Neighbouring frequencies go to different thirds of the word, so that
/// the thirds, by which hashes are looked up, say equally much.
const fn bit_of(number: usize) -> usize {
    const THIRD: usize = BITS / 3;
    if number < 3 * THIRD { number % 3 * THIRD + number / 3 } else { number }
}

/// The bits of a view's hash that are of odd horizontal frequency.
const ODD: [u64; WORDS] = {
    let (mut odd, mut number) = ([0; WORDS], 0);
    while number < WORDS * BITS {
        if COEFFICIENTS[number].1 % 2 == 1 {
            odd[number / BITS] |= 1 << bit_of(number % BITS);
        }
        number += 1;
    }
    odd
};

/// `cos(pi / 32 * (pixel + 1/2) * frequency)`, `[pixel][frequency]`: DCT-II without its factors.
static COSINES: LazyLock<[[f64; LOW]; SIDE]> = LazyLock::new(|| {
    let angle = |frequency: usize, pixel: usize| PI / SIDE as f64 * (pixel as f64 + 0.5) * frequency as f64;
    std::array::from_fn(|pixel| std::array::from_fn(|frequency| angle(frequency, pixel).cos()))
});

impl PhotoHashes {
    /// Hashes a photo, at any size of at least one pixel.
    #[must_use]
    pub fn of(photo: &Photo) -> Self {
        let grey = Grey::of(photo);
        let whole = grey.resized(grey.whole(), SIDE as u32, Filter::Lanczos);
        let reduced = grey.resized(grey.within_borders(), REDUCED, Filter::Bilinear);
        let views = PLACES.map(|place| reduced.resized(reduced.part(place), SIDE as u32, Filter::Bilinear));
        let crop_resistant = (!views[0].is_flat()).then(|| {
            let words = views.map(|view| signs(&transform(&view)));
            std::array::from_fn(|word| words[word / WORDS][word % WORDS])
        });
        Self { phash: (!whole.is_flat()).then(|| above_median(&transform(&whole))), crop_resistant }
    }
}

/// The hashes of the views of the mirrored photo, but for the two views off the left and the right side: they change places
/// as well.
#[must_use]
pub fn mirrored(hash: [u64; WORDS]) -> [u64; WORDS] {
    [hash[0] ^ ODD[0], hash[1] ^ ODD[1]]
}

/// The lowest coefficients, `[vertical][horizontal]`.
type Coefficients = [[f64; LOW]; LOW];

/// The two-dimensional DCT-II of 32 x 32 pixels.
fn transform(grey: &Grey) -> Coefficients {
    let (mut lines, mut coefficients) = ([[0.0; LOW]; SIDE], [[0.0; LOW]; LOW]);
    for (line, pixels) in lines.iter_mut().zip(grey.pixels.chunks_exact(SIDE)) {
        for (pixel, cosines) in pixels.iter().zip(&*COSINES) {
            add_product(line, f64::from(*pixel), cosines);
        }
    }
    for (line, cosines) in lines.iter().zip(&*COSINES) {
        for (sums, cosine) in coefficients.iter_mut().zip(cosines) {
            add_product(sums, *cosine, line);
        }
    }
    coefficients
}

/// Adds `factor * values` to the sums, all frequencies at a time.
fn add_product(sums: &mut [f64; LOW], factor: f64, values: &[f64; LOW]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * factor);
}

/// The bits of the 8 x 8 lowest coefficients that are above their median, row by row, the first in the highest bit.
fn above_median(coefficients: &Coefficients) -> u64 {
    let lowest: Vec<f64> = coefficients[..LOWEST].iter().flat_map(|row| row[..LOWEST].iter().copied()).collect();
    let mut sorted = lowest.clone();
    sorted.sort_by(f64::total_cmp);
    let median = f64::midpoint(sorted[BITS / 2 - 1], sorted[BITS / 2]);
    lowest.iter().fold(0, |bits, coefficient| bits << 1 | u64::from(*coefficient > median))
}

/// The bits of the lowest coefficients that are positive.
fn signs(coefficients: &Coefficients) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (number, &(vertical, horizontal)) in COEFFICIENTS.iter().enumerate() {
        words[number / BITS] |= u64::from(coefficients[vertical][horizontal] > 0.0) << bit_of(number % BITS);
    }
    words
}

/// The brightness of a photo's pixels: `[height, width]`, row-major.
struct Grey {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Grey {
    /// The luma of ITU-R BT.601, in Pillow's fixed-point numbers.
    fn of(photo: &Photo) -> Self {
        // Blocks of a fixed length become vectors even in a program that is compiled for size.
        const BLOCK: usize = 16;
        let luma = |[r, g, b]: [u8; 3]| {
            ((19_595 * u32::from(r) + 38_470 * u32::from(g) + 7_471 * u32::from(b) + 0x8000) >> 16) as u8
        };
        let rgb = photo.rgb.as_chunks().0;
        let mut pixels = vec![0; rgb.len()];
        let ((blocks, rest), (greys, last)) = (rgb.as_chunks::<BLOCK>(), pixels.as_chunks_mut::<BLOCK>());
        for (grey, block) in greys.iter_mut().zip(blocks) {
            grey.iter_mut().zip(block).for_each(|(grey, rgb)| *grey = luma(*rgb));
        }
        last.iter_mut().zip(rest).for_each(|(grey, rgb)| *grey = luma(*rgb));
        Self { width: photo.width_px as usize, height: photo.height_px as usize, pixels }
    }

    fn whole(&self) -> [f64; 4] {
        [0.0, 0.0, self.width as f64, self.height as f64]
    }

    /// The part of it that a view shows: left, top, width, height.
    fn part(&self, (share, across, down): (f64, f64, f64)) -> [f64; 4] {
        let (width, height) = (self.width as f64, self.height as f64);
        [across * (1.0 - share) * width, down * (1.0 - share) * height, share * width, share * height]
    }

    /// A part of it, scaled to `side` x `side` pixels.
    fn resized(&self, part: [f64; 4], side: u32, filter: Filter) -> Self {
        let from = (self.width as u32, self.height as u32);
        let pixels = Scaling { from, part, to: (side, side), filter }.grey(&self.pixels);
        Self { width: side as usize, height: side as usize, pixels }
    }

    fn is_flat(&self) -> bool {
        let count = self.pixels.len() as f64;
        let mean = self.pixels.iter().map(|it| f64::from(*it)).sum::<f64>() / count;
        let squares: f64 = self.pixels.iter().map(|it| (f64::from(*it) - mean).powi(2)).sum();
        squares / count < FLAT * FLAT
    }

    /// What is within borders of one colour, at any of the four sides: left, top, width, height. The whole photo if next to
    /// nothing would be left.
    fn within_borders(&self) -> [f64; 4] {
        let Self { width, height, .. } = *self;
        let row = |y: usize| self.pixels[y * width..][..width].iter().copied();
        let top = border((0..height).map(row));
        if top == height {
            return self.whole();
        }
        let bottom = height - border((0..height).rev().map(row));
        let column = |x: usize| self.pixels[top * width..bottom * width].iter().copied().skip(x).step_by(width);
        let left = border((0..width).map(column));
        let right = width - border((0..width).rev().map(column));
        if left >= right || (right - left) * LEAST_INSIDE < width || (bottom - top) * LEAST_INSIDE < height {
            return self.whole();
        }
        [left, top, right - left, bottom - top].map(|it| it as f64)
    }
}

/// How many lines, from the edge, have the colour of the first one.
fn border<L: Iterator<Item = u8> + Clone>(mut lines: impl Iterator<Item = L> + Clone) -> usize {
    let mut outermost: Vec<u8> = lines.clone().next().into_iter().flatten().collect();
    let (length, middle) = (outermost.len(), outermost.len() / 2);
    let (_, &mut color, _) = outermost.select_nth_unstable(middle);
    let is_border = |line: L| {
        let strays = line.filter(|it| it.abs_diff(color) > BORDER_TOLERANCE).take(length / BORDER_STRAYS + 1);
        strays.count() * BORDER_STRAYS <= length
    };
    lines.by_ref().take_while(|line| is_border(line.clone())).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// A grey photo of `pixels`, given by x and y.
    fn photo(width_px: u32, height_px: u32, pixels: impl Fn(u32, u32) -> u8) -> Photo {
        let places = (0..height_px).flat_map(|y| (0..width_px).map(move |x| (x, y)));
        Photo { width_px, height_px, rgb: places.flat_map(|(x, y)| [pixels(x, y); 3]).collect() }
    }

    /// The pictures of scripts/oracles/phash.py.
    fn formula(number: u32, width: u32, height: u32) -> Photo {
        photo(width, height, |x, y| {
            let (x, y) = (x * 32 / width, y * 32 / height);
            ((x * x * (number + 1) + 3 * y * y + 5 * x * y + 7 * number) / 4 % 256) as u8
        })
    }

    /// Blobs of light and shadow, drawn from a seed: smooth, as photos are.
    fn blobs(seed: u64, width: u32, height: u32) -> Photo {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let rgb = (0..12 * 18).flat_map(|_| [random.random::<u8>(); 3]).collect();
        super::super::resize(&Photo { width_px: 12, height_px: 18, rgb }, width, height)
    }

    fn flipped(photo: &Photo) -> Photo {
        let rows = photo.rgb.chunks_exact(photo.width_px as usize * 3);
        let rgb = rows.flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect();
        Photo { rgb, ..photo.clone() }
    }

    /// Bits in which the lower words of two views differ.
    fn apart(a: [u64; WORDS], b: [u64; WORDS]) -> u32 {
        (a[0] ^ b[0]).count_ones()
    }

    fn view(photo: &Photo, view: usize) -> [u64; WORDS] {
        let hash = PhotoHashes::of(photo).crop_resistant.expect("it is not flat");
        [hash[view * WORDS], hash[view * WORDS + 1]]
    }

    #[test]
    fn the_transform_of_two_halves_is_worked_out_by_hand() {
        // Black on the left, 200 on the right: no vertical frequency, and of the horizontal ones only the odd.
        let halves = Grey::of(&photo(32, 32, |x, _| if x < 16 { 0 } else { 200 }));
        let coefficients = transform(&halves);
        assert!((coefficients[0][0] - 200.0 * 512.0).abs() < 1e-6);
        // The sum of cos(pi / 32 (x + 1/2)) over the right half is -1 / (2 sin(pi / 64)).
        let lowest = -200.0 * 32.0 / (2.0 * (PI / 64.0).sin());
        assert!((coefficients[0][1] - lowest).abs() < 1e-6, "{}", coefficients[0][1]);
        for (frequency, row) in coefficients.iter().enumerate().skip(1) {
            let horizontal = coefficients[0][frequency];
            match frequency % 4 {
                1 => assert!(horizontal < -1.0),
                3 => assert!(horizontal > 1.0),
                _ => assert!(horizontal.abs() < 1e-6),
            }
            assert!(row.iter().all(|it| it.abs() < 1e-6));
        }
    }

    #[test]
    fn grey_is_the_weighted_sum_of_red_green_and_blue() {
        let colors = [([255, 0, 0], 76), ([0, 255, 0], 150), ([0, 0, 255], 29), ([10, 100, 200], 84), ([255; 3], 255)];
        for width_px in [1, 15, 16, 17, 37] {
            let here = || colors.iter().cycle().take(width_px);
            let rgb = here().flat_map(|(rgb, _)| *rgb).collect();
            let grey = Grey::of(&Photo { width_px: width_px as u32, height_px: 1, rgb });
            assert!(grey.pixels.iter().eq(here().map(|(_, grey)| grey)), "{width_px} pixels: {:?}", grey.pixels);
        }
    }

    #[test]
    fn bits_are_where_they_are_said_to_be() {
        // Rising from the first to the last of the 8 x 8: half of them are above the median.
        let rising = std::array::from_fn(|row| std::array::from_fn(|column| (row * 8 + column) as f64));
        assert_eq!(above_median(&rising), 0xFFFF_FFFF);
        assert_eq!(COEFFICIENTS[..6], [(0, 1), (1, 0), (0, 2), (1, 1), (2, 0), (0, 3)]);
        assert_eq!(COEFFICIENTS[127], (8, 7));
        let mut some = [[-1.0; LOW]; LOW];
        for (vertical, horizontal) in [(0, 1), (1, 0), (2, 0), (0, 3)] {
            some[vertical][horizontal] = 1.0;
        }
        // Numbers 0, 1, 4 and 5: the first two of the first and second third, in turn, and the second of the last.
        assert_eq!(signs(&some), [1 | 1 << 21 | 1 << 22 | 1 << 43, 0]);
        assert_eq!(mirrored([0, 0])[0] & 0b11, 0b11, "numbers 0 and 3 are (0, 1) and (1, 1)");
        let bits: u64 = (0..BITS).fold(0, |bits, number| bits | 1 << bit_of(number));
        assert_eq!(bits, u64::MAX, "each has a bit of its own");
    }

    #[test]
    fn phash_is_that_of_imagehash() {
        let stored = include_str!("../../tests/data/phash.json");
        let stored: serde_json::Value = serde_json::from_str(stored).expect("JSON");
        // Pictures that need not be scaled have the same hash; the filters of two libraries round differently.
        for (name, width, height, most) in [("of_32_x_32", 32, 32, 0), ("of_200_x_300", 200, 300, 2)] {
            let hashes = stored[name].as_array().expect("a list");
            assert_eq!(hashes.len(), 8);
            for (hash, number) in hashes.iter().zip(0..) {
                let expected = u64::from_str_radix(hash.as_str().expect("a text"), 16).expect("hexadecimal");
                let found = PhotoHashes::of(&formula(number, width, height)).phash.expect("it is not flat");
                let apart = (found ^ expected).count_ones();
                assert!(apart <= most, "{name} {number}: {found:016x} instead of {expected:016x}");
            }
        }
    }

    #[test]
    fn a_mirrored_photo_has_the_mirrored_hash() {
        for seed in 0..20 {
            let (photo, other) = (blobs(seed, 400, 600), blobs(seed + 100, 400, 600));
            assert!(apart(view(&flipped(&photo), 0), mirrored(view(&photo, 0))) <= 1, "{seed}");
            assert!(apart(view(&photo, 0), mirrored(view(&photo, 0))) > 16);
            assert!(apart(view(&photo, 0), view(&other, 0)) > 12);
        }
    }

    #[test]
    fn a_cropped_photo_is_one_of_the_views_and_borders_do_not_count() {
        for seed in 0..20 {
            let whole = blobs(seed, 400, 600);
            let cut = |left, top, width, height| {
                super::super::resize_part(
                    &whole,
                    [left, top, width, height],
                    (width as u32, height as u32),
                    super::super::Resample::Bilinear,
                )
            };
            let crops = [
                (1, cut(20.0, 30.0, 360.0, 540.0)),
                (2, cut(0.0, 15.0, 380.0, 570.0)),
                (5, cut(10.0, 30.0, 380.0, 570.0)),
            ];
            for (number, crop) in crops {
                assert!(apart(view(&crop, 0), view(&whole, number)) <= 2, "{seed}, view {number}");
            }
            let framed = photo(440, 700, |x, y| {
                let inside = (20..420).contains(&x) && (40..640).contains(&y);
                if inside { whole.rgb[((y - 40) * 400 + x - 20) as usize * 3] } else { 250 + (x % 3) as u8 }
            });
            assert!(apart(view(&framed, 0), view(&whole, 0)) <= 2, "{seed}");
        }
    }

    #[test]
    fn what_is_within_borders_is_found_line_by_line() {
        let grey = |pixels: &dyn Fn(u32, u32) -> u8| Grey::of(&photo(100, 50, pixels)).within_borders();
        let textured = |x: u32, y: u32| (x * 37 % 200 + y % 3 * 20) as u8;
        let bordered = |x, y| if (5..90).contains(&x) && (10..45).contains(&y) { textured(x, y) } else { 255 };
        assert_eq!(grey(&textured), [0.0, 0.0, 100.0, 50.0]);
        assert_eq!(grey(&bordered), [5.0, 10.0, 85.0, 35.0]);
        // Two of a hundred pixels may be of another colour, three not.
        let speckled =
            |strays: u32| move |x, y| if y < 10 && (40..40 + strays).contains(&x) { 0 } else { bordered(x, y) };
        assert_eq!(grey(&speckled(2))[1], 10.0);
        assert_eq!(grey(&speckled(3))[1], 0.0);
        let small = |x, y| if (45..55).contains(&x) && (20..30).contains(&y) { textured(x, y) } else { 255 };
        assert_eq!(grey(&small), [0.0, 0.0, 100.0, 50.0], "too little would be left");
        assert_eq!(grey(&|_, _| 7), [0.0, 0.0, 100.0, 50.0]);
    }

    #[test]
    fn a_flat_photo_has_no_hash_and_a_tiny_one_is_no_problem() {
        let flat = PhotoHashes::of(&photo(400, 600, |x, _| 254 + (x % 2) as u8));
        assert_eq!(flat, PhotoHashes::default());
        let square =
            PhotoHashes::of(&photo(400, 600, |x, y| if x.abs_diff(200).max(y.abs_diff(300)) < 90 { 9 } else { 255 }));
        assert!(square.phash.is_some() && square.crop_resistant.is_none(), "a flat square on a flat ground");
        assert_eq!(PhotoHashes::of(&photo(1, 1, |_, _| 9)), PhotoHashes::default());
        assert!(PhotoHashes::of(&photo(2, 1, |x, _| x as u8 * 255)).phash.is_some());
    }
}
