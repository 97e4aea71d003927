//! Photos on a network's input: the declared size, shape, colours and numbers.

use half::f16;

use super::declaration::{Color, Element, Fit, Input, Order, Place};
use crate::photo::{self, Photo};

/// A photo as the network sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Canvas {
    /// The network's input for one photo, in the declared order.
    pub values: Values,
    /// Where the photo lies on it.
    pub placed: Placed,
}

/// Elements of the network's input.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Bytes.
    U8(Vec<u8>),
    /// Single precision.
    F32(Vec<f32>),
    /// Half precision.
    F16(Vec<f16>),
}

/// The bounds of the whole photo on the network's input, in its pixels; with `crop` it reaches beyond.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placed {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Canvas {
    /// Lays a photo onto the declared input.
    #[must_use]
    pub(super) fn new(input: &Input, photo: &Photo) -> Self {
        let (pixels, placed) = place(input, photo);
        Self { values: values(input, &pixels.rgb), placed }
    }
}

/// The photo in the input's size, and where its bounds lie.
fn place(input: &Input, photo: &Photo) -> (Photo, Placed) {
    let size = (input.width_px, input.height_px);
    let [width, height] = [size.0, size.1].map(f64::from);
    let [own_width, own_height] = [photo.width_px, photo.height_px].map(f64::from);
    let whole = [0.0, 0.0, own_width, own_height];
    match input.fit {
        Fit::Stretch => (resized(photo, whole, size, input), Placed { left: 0.0, top: 0.0, width, height }),
        Fit::Crop => {
            let covering = covering_size(photo.size(), size);
            let [left, top] = [(covering.0 - size.0) / 2, (covering.1 - size.1) / 2].map(f64::from);
            let [across, down] = [own_width / f64::from(covering.0), own_height / f64::from(covering.1)];
            let [part_left, part_top] = [left * across, top * down];
            let part_size = [(width * across).min(own_width - part_left), (height * down).min(own_height - part_top)];
            let part = [part_left, part_top, part_size[0], part_size[1]];
            let [covering_width, covering_height] = [covering.0, covering.1].map(f64::from);
            let placed = Placed { left: -left, top: -top, width: covering_width, height: covering_height };
            (resized(photo, part, size, input), placed)
        }
        Fit::Letterbox => {
            let fitted = photo::fitted_size(photo.size(), size);
            let [left, top] = match input.place.unwrap_or_default() {
                Place::TopLeft => [0, 0],
                Place::Center => [(size.0 - fitted.0) / 2, (size.1 - fitted.1) / 2],
            };
            let scaled = resized(photo, whole, fitted, input);
            let fill = input.fill.unwrap_or(Input::DEFAULT_FILL);
            let mut rgb = fill.repeat(size.0 as usize * size.1 as usize);
            let lines = rgb.chunks_exact_mut(size.0 as usize * 3).skip(top as usize);
            for (line, row) in lines.zip(scaled.rgb.chunks_exact(fitted.0 as usize * 3)) {
                line[left as usize * 3..][..row.len()].copy_from_slice(row);
            }
            let [left, top, width, height] = [left, top, fitted.0, fitted.1].map(f64::from);
            (Photo { width_px: size.0, height_px: size.1, rgb }, Placed { left, top, width, height })
        }
    }
}

/// The size (width, height) of a photo scaled in its own shape until it just covers `size`: whole pixels, rounded down, as by
/// torchvision's `Resize` of the shorter side.
fn covering_size(own: (u32, u32), size: (u32, u32)) -> (u32, u32) {
    let [own_width, own_height, width, height] = [own.0, own.1, size.0, size.1].map(u64::from);
    if width * own_height >= height * own_width {
        (size.0, (width * own_height / own_width) as u32)
    } else {
        ((height * own_width / own_height) as u32, size.1)
    }
}

/// The part of a photo with these bounds (left, top, width, height) at the size `to`: its width first, then its height, as by
/// Pillow and torchvision. In between pixels are bytes, so the other order gives others, by up to seven steps.
fn resized(photo: &Photo, part: [f64; 4], to: (u32, u32), input: &Input) -> Photo {
    let own_height = f64::from(photo.height_px);
    if part == [0.0, 0.0, f64::from(photo.width_px), own_height] && photo.size() == to {
        return photo.clone();
    }
    let [left, top, width, height] = part;
    let narrowed = photo::resize_part(photo, [left, 0.0, width, own_height], (to.0, photo.height_px), input.resample);
    photo::resize_part(&narrowed, [0.0, top, f64::from(to.0), height], to, input.resample)
}

/// The declared numbers for pixels `[height, width, 3]`.
fn values(input: &Input, rgb: &[u8]) -> Values {
    match input.r#type {
        Element::U8 => Values::U8(arranged(input, rgb, |_, byte| byte)),
        Element::F32 => Values::F32(looked_up(input, rgb, |value| value)),
        Element::F16 => Values::F16(looked_up(input, rgb, f16::from_f32)),
    }
}

fn looked_up<T: Copy>(input: &Input, rgb: &[u8], number: impl Fn(f32) -> T) -> Vec<T> {
    let table = |channel: usize| (0..=u8::MAX).map(|byte| number(input.value(channel, byte))).collect::<Vec<_>>();
    let tables = [0, 1, 2].map(table);
    arranged(input, rgb, |channel, byte| tables[channel][usize::from(byte)])
}

/// A number for each channel of each pixel, in the declared orders of colours and dimensions.
fn arranged<T>(input: &Input, rgb: &[u8], number: impl Fn(usize, u8) -> T) -> Vec<T> {
    let source = |channel: usize| match input.color {
        Color::Rgb => channel,
        Color::Bgr => 2 - channel,
    };
    let mut values = Vec::with_capacity(rgb.len());
    match input.layout {
        Order::Nchw => {
            for channel in 0..3 {
                values.extend(rgb[source(channel)..].iter().step_by(3).map(|&byte| number(channel, byte)));
            }
        }
        Order::Nhwc => {
            for pixel in rgb.chunks_exact(3) {
                values.extend([0, 1, 2].map(|channel| number(channel, pixel[source(channel)])));
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::super::declaration::GOOD;
    use super::*;

    fn input(change: impl FnOnce(&mut Input)) -> Input {
        let mut it = toml::from_str::<super::super::Declaration>(GOOD).expect("it is good").input;
        change(&mut it);
        it
    }

    fn photo(width_px: u32, height_px: u32) -> Photo {
        Photo { width_px, height_px, rgb: (0..width_px * height_px * 3).map(|it| (it % 251) as u8).collect() }
    }

    #[test]
    fn bytes_become_the_declared_numbers_in_the_declared_order() {
        let pixels = [10, 20, 30, 40, 50, 60];
        let plain = |it: &mut Input| (it.scale, it.mean, it.std) = (Some(0.5), None, Some([1.0, 2.0, 4.0]));
        assert_eq!(values(&input(plain), &pixels), Values::F32(vec![5.0, 20.0, 5.0, 12.5, 3.75, 7.5]));
        let it = input(|it| {
            plain(it);
            (it.color, it.layout, it.r#type) = (Color::Bgr, Order::Nhwc, Element::F16);
        });
        let expected = [15.0, 5.0, 1.25, 30.0, 12.5, 5.0].map(f16::from_f32);
        assert_eq!(values(&it, &pixels), Values::F16(expected.to_vec()));
        let it = input(|it| it.r#type = Element::U8);
        assert_eq!(values(&it, &pixels), Values::U8(vec![10, 40, 20, 50, 30, 60]));
    }

    #[test]
    fn a_photo_lies_where_its_bounds_say() {
        let bounds = |fit: Fit, own: (u32, u32)| {
            let it = input(|it| (it.fit, it.fill) = (fit, Some([9, 8, 7])));
            let (laid, Placed { left, top, width, height }) = place(&it, &photo(own.0, own.1));
            assert_eq!(laid.size(), (32, 48));
            (laid, [left, top, width, height])
        };
        assert_eq!(bounds(Fit::Stretch, (7, 9)).1, [0.0, 0.0, 32.0, 48.0]);
        let (laid, placed) = bounds(Fit::Letterbox, (32, 21));
        assert_eq!(placed, [0.0, 13.0, 32.0, 21.0]);
        assert_eq!(laid.rgb[13 * 96..34 * 96], photo(32, 21).rgb);
        assert!(laid.rgb[..13 * 96].chunks_exact(3).all(|it| it == [9, 8, 7]));
        assert_eq!(bounds(Fit::Crop, (96, 96)).1, [-8.0, 0.0, 48.0, 48.0]);
        // 48 / 67 x 97 is 69.49, and 37 are cut off: 18 at the left, 19 at the right.
        assert_eq!(bounds(Fit::Crop, (97, 67)).1, [-18.0, 0.0, 69.0, 48.0]);
        assert_eq!(bounds(Fit::Crop, (32, 48)).0, photo(32, 48));
        // A strip of one pixel does not make a canvas of millions.
        for own in [(1, 5000), (5000, 1)] {
            bounds(Fit::Crop, own);
            bounds(Fit::Letterbox, own);
        }
    }
}
