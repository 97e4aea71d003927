//! Random changes to training photos: mirroring, scaling, shifting and lighting.
//!
//! By hand: a change scales, shifts and mirrors photo and labels in one pass; `fast_image_resize` only resizes photos.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::sampling::Turn;
use crate::graph::Spec;

/// Bits of the interpolation weights between two pixels.
const WEIGHT_BITS: i32 = 8;

/// The grey, in each channel, of what is erased (cutout, 2017, <https://arxiv.org/abs/1708.04552>).
const ERASED: u8 = 128;
/// Random words reserved for a change, more than any takes.
const WORDS_PER_CHANGE: u128 = 64;

/// How strongly photos are changed; with everything at 0 and `false`, they stay as they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augmentation {
    /// Whether half of the photos are mirrored left to right.
    pub flip: bool,
    /// Photos are scaled by a factor from 1 / (1 + this) to 1 + this.
    pub scale: f32,
    /// Photos are shifted by up to this fraction of their sides, in either direction.
    pub shift: f32,
    /// Brightness, contrast and each colour change by up to this fraction.
    pub light: f32,
    /// A rectangle whose sides are up to this fraction of the photo's is filled with grey.
    pub erase: f32,
}

impl Augmentation {
    /// The change to a photo in its turn in `epoch`. It depends only on these and the seed, not on earlier draws.
    #[must_use]
    pub fn draw(&self, seed: u64, epoch: u32, turn: Turn) -> Change {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // The streams for the order of the photos are below these.
        rng.set_stream(1 << 63 | u64::from(epoch) << 32 | turn.photo as u64);
        rng.set_word_pos(u128::from(turn.repeat) * WORDS_PER_CHANGE);
        let mut within = |reach: f32| if reach > 0.0 { rng.random_range(-reach..=reach) } else { 0.0 };
        let scale = within((1.0 + self.scale).ln()).exp();
        let shift = [within(self.shift), within(self.shift)];
        let [brightness, contrast] = [within(self.light), within(self.light)];
        let gains = [(); 3].map(|()| 1.0 + within(self.light / 2.0));
        let flip = self.flip && rng.random();
        let erased = (self.erase > 0.0).then(|| {
            [(); 2].map(|()| {
                let side = rng.random_range(0.0..=self.erase);
                let start = rng.random_range(0.0..=1.0 - side);
                [start, start + side]
            })
        });
        Change {
            flip,
            scale,
            shift,
            erased,
            light: (self.light > 0.0).then_some(Light { brightness, contrast, gains }),
        }
    }
}

/// A photo's change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    flip: bool,
    scale: f32,
    /// To the right and down, as fractions of width and height.
    shift: [f32; 2],
    light: Option<Light>,
    /// From where to where, across and down, as fractions of width and height.
    erased: Option<[[f32; 2]; 2]>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Light {
    /// Added, as a fraction of full brightness.
    brightness: f32,
    /// Added to 1, this is the factor applied to the distance from middle grey.
    contrast: f32,
    /// Factors of red, green and blue.
    gains: [f32; 3],
}

impl Change {
    /// No change.
    pub const NONE: Self = Self { flip: false, scale: 1.0, shift: [0.0; 2], light: None, erased: None };

    /// Writes the changed photo, `[rows, columns, 3]`, and its labels, `[map rows, map columns]`, from a photo of
    /// `size` (width, height) and its labels on the canvas, `[rows, columns]`. Pixels from beyond the photo's edges
    /// repeat the edge. An erased rectangle keeps its labels. The canvas around the photo stays black, and its labels
    /// repeat the photo's last row and column.
    pub fn apply(&self, spec: &Spec, size: [usize; 2], from: [&[u8]; 2], to: [&mut [u8]; 2]) {
        let ([photo, labels], [new_photo, new_labels]) = (from, to);
        let (columns, stride) = (spec.columns(), spec.stride);
        if *self == Self::NONE {
            new_photo.copy_from_slice(photo);
            return new_labels.copy_from_slice(&spec.map_labels(labels));
        }
        self.draw_photo(columns, size, photo, new_photo);
        self.erase(columns, size, new_photo);
        let places = [0, 1].map(|axis| {
            let count = [spec.map_columns(), spec.map_rows()][axis];
            let place = |at: usize| {
                let middle = (at as f32 + 0.5) * stride as f32;
                (self.source(axis, middle, size[axis]) as usize).min(size[axis] - 1)
            };
            // Outside the photo: the last place on it.
            let last = size[axis].div_ceil(stride) - 1;
            (0..count).map(|at| place(at.min(last))).collect::<Vec<_>>()
        });
        for (row, line) in places[1].iter().zip(new_labels.chunks_exact_mut(spec.map_columns())) {
            for (column, label) in places[0].iter().zip(line) {
                *label = labels[row * columns + column];
            }
        }
    }

    fn draw_photo(&self, columns: usize, size: [usize; 2], photo: &[u8], new: &mut [u8]) {
        let tables = self.light.map_or_else(|| [std::array::from_fn(|value| value as u8); 3], |light| light.tables());
        let [across, down] = [0, 1].map(|axis| self.samples(axis, size[axis]));
        new.fill(0);
        for (sample, line) in down.iter().zip(new.chunks_exact_mut(columns * 3)) {
            let rows = sample.places.map(|row| &photo[row * columns * 3..][..columns * 3]);
            for (across, pixel) in across.iter().zip(line.chunks_exact_mut(3)) {
                let corners = rows.map(|row| across.places.map(|column| &row[column * 3..][..3]));
                for (channel, value) in pixel.iter_mut().enumerate() {
                    let [upper, lower] = corners
                        .map(|[left, right]| across.between(i32::from(left[channel]), i32::from(right[channel])));
                    // The product of two weights has twice the bits; add half for rounding.
                    let half = 1 << (2 * WEIGHT_BITS - 1);
                    let mixed = (sample.between(upper, lower) + half) >> (2 * WEIGHT_BITS);
                    *value = tables[channel][mixed as usize];
                }
            }
        }
    }

    fn erase(&self, columns: usize, size: [usize; 2], new: &mut [u8]) {
        let Some(erased) = self.erased else { return };
        let [across, down] =
            [0, 1].map(|axis| erased[axis].map(|at| ((at * size[axis] as f32).round() as usize).min(size[axis])));
        for line in new.chunks_exact_mut(columns * 3).take(down[1]).skip(down[0]) {
            line[across[0] * 3..across[1] * 3].fill(ERASED);
        }
    }

    /// The position in the old photo, in pixels, that a position of the new one comes from, clamped to the photo.
    fn source(&self, axis: usize, place: f32, size: usize) -> f32 {
        let size = size as f32;
        let mut off = (place - size / 2.0) / self.scale - self.shift[axis] * size;
        if self.flip && axis == 0 {
            off = -off;
        }
        (off + size / 2.0).clamp(0.0, size)
    }

    fn samples(&self, axis: usize, size: usize) -> Vec<Sample> {
        let sample = |at: usize| {
            let place = (self.source(axis, at as f32 + 0.5, size) - 0.5).clamp(0.0, (size - 1) as f32);
            let first = place as usize;
            let weight = ((place - first as f32) * (1 << WEIGHT_BITS) as f32).round() as i32;
            Sample { places: [first, (first + 1).min(size - 1)], weight }
        };
        (0..size).map(sample).collect()
    }
}

impl Light {
    /// By channel, the new value for each old one.
    fn tables(&self) -> [[u8; 256]; 3] {
        self.gains.map(|gain| {
            std::array::from_fn(|value| {
                let value = (value as f32 - 127.5) * (1.0 + self.contrast) + 127.5 + self.brightness * 255.0;
                (value * gain).round().clamp(0.0, 255.0) as u8
            })
        })
    }
}

/// Two neighbours along an axis, and the weight of the second.
struct Sample {
    places: [usize; 2],
    /// Out of 1 << [`WEIGHT_BITS`].
    weight: i32,
}

impl Sample {
    fn between(&self, first: i32, second: i32) -> i32 {
        first * ((1 << WEIGHT_BITS) - self.weight) + second * self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Loss;

    fn spec(stride: usize) -> Spec {
        Spec { stride, channels: vec![8, 16], ..Spec::seed(4, 3, Loss::Softmax) }
    }

    /// A 4 x 3 photo on a 4 x 4 canvas; each pixel is 10 times its column, each label its column.
    fn photo() -> [Vec<u8>; 2] {
        let labels: Vec<u8> = (0..16).map(|at| (at % 4) as u8).collect();
        let pixels = (0..16).flat_map(|at| [if at < 12 { (at % 4 * 10) as u8 } else { 0 }; 3]).collect();
        [pixels, labels]
    }

    fn changed(change: &Change, spec: &Spec) -> [Vec<u8>; 2] {
        let [photo, labels] = photo();
        let mut new = [vec![9; 48], vec![9; spec.map_rows() * spec.map_columns()]];
        change.apply(spec, [4, 3], [&photo, &labels], new.each_mut().map(|it| &mut it[..]));
        new
    }

    #[test]
    fn no_change_leaves_all_as_it_is() {
        assert_eq!(changed(&Change::NONE, &spec(1)), photo());
        let [_, halved] = changed(&Change::NONE, &spec(2));
        assert_eq!(halved, [1, 3, 1, 3], "one label for each square");
    }

    #[test]
    fn a_mirrored_photo_has_mirrored_labels() {
        let [photo, labels] = changed(&Change { flip: true, ..Change::NONE }, &spec(1));
        assert_eq!(photo[..12], [30, 30, 30, 20, 20, 20, 10, 10, 10, 0, 0, 0]);
        assert_eq!(labels[..4], [3, 2, 1, 0]);
        assert!(photo[36..].iter().all(|&value| value == 0), "black below the photo");
        assert_eq!(labels[12..], [3, 2, 1, 0], "the last row is repeated");
    }

    #[test]
    fn a_shift_repeats_the_edge_and_a_scale_goes_about_the_middle() {
        let [photo, labels] = changed(&Change { shift: [0.25, 0.0], ..Change::NONE }, &spec(1));
        assert_eq!([photo[0], photo[3], photo[6], photo[9]], [0, 0, 10, 20]);
        assert_eq!(labels[..4], [0, 0, 1, 2]);
        let [photo, labels] = changed(&Change { scale: 2.0, ..Change::NONE }, &spec(1));
        // The middle of the second pixel comes from 1.75: three quarters from the first to the second.
        assert_eq!([photo[0], photo[3], photo[6], photo[9]], [8, 13, 18, 23]);
        assert_eq!(labels[..4], [1, 1, 2, 2]);
    }

    #[test]
    fn a_change_that_moves_nothing_samples_the_labels_that_no_change_does() {
        let light = Some(Light { brightness: 0.0, contrast: 0.0, gains: [1.0; 3] });
        for stride in [1, 2] {
            let moved_by_nothing = changed(&Change { light, ..Change::NONE }, &spec(stride));
            assert_eq!(moved_by_nothing, changed(&Change::NONE, &spec(stride)), "stride {stride}");
        }
    }

    #[test]
    fn light_changes_values_alone() {
        let light = Light { brightness: 0.1, contrast: 0.0, gains: [1.0, 2.0, 0.0] };
        let [photo, labels] = changed(&Change { light: Some(light), ..Change::NONE }, &spec(1));
        assert_eq!(photo[3..6], [36, 71, 0]);
        assert_eq!(labels, self::photo()[1]);
    }

    #[test]
    fn an_erased_rectangle_is_grey_and_keeps_its_labels() {
        let [photo, labels] = changed(&Change { erased: Some([[0.25, 0.75], [0.3, 1.0]]), ..Change::NONE }, &spec(1));
        let grey: Vec<usize> = (0..16).filter(|at| photo[3 * at..][..3] == [128; 3]).collect();
        assert_eq!(grey, [5, 6, 9, 10]);
        assert_eq!(labels, self::photo()[1]);
        let erasing = Augmentation { flip: false, scale: 0.0, shift: 0.0, light: 0.0, erase: 0.5 };
        for photo in 0..200 {
            let erased = erasing.draw(0, 1, Turn { photo, repeat: 0 }).erased.expect("a rectangle");
            assert!(erased.iter().all(|[from, to]| 0.0 <= *from && from <= to && *to <= 1.0001 && to - from <= 0.5001));
        }
    }

    #[test]
    fn a_draw_depends_only_on_seed_epoch_and_photo() {
        let all = Augmentation { flip: true, scale: 0.2, shift: 0.1, light: 0.2, erase: 0.3 };
        let turn = |photo| Turn { photo, repeat: 0 };
        assert_eq!(all.draw(1, 2, turn(3)), all.draw(1, 2, turn(3)));
        assert_ne!(all.draw(1, 2, turn(3)), all.draw(1, 2, turn(4)));
        assert_ne!(all.draw(1, 2, turn(3)), all.draw(1, 3, turn(3)));
        assert_ne!(all.draw(1, 2, turn(3)), all.draw(1, 2, Turn { photo: 3, repeat: 1 }));
        let flips = (0..1000).filter(|&id| all.draw(0, 1, turn(id)).flip).count();
        assert!((400..600).contains(&flips), "{flips} of 1000");
        let scales = (0..1000).map(|id| all.draw(0, 1, turn(id)).scale);
        assert!(scales.into_iter().all(|it| (1.0 / 1.2 - 1e-6..1.2 + 1e-6).contains(&it)));
        let none = Augmentation { flip: false, scale: 0.0, shift: 0.0, light: 0.0, erase: 0.0 };
        assert_eq!(none.draw(1, 2, turn(3)), Change::NONE);
    }
}
