//! Texture of cloth, hair and skin: a tone for each spot of a shape.

use super::drawing::{Rgb, Spot};

/// A pattern, with lengths in figure pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Texture {
    /// Uniform.
    Plain,
    /// Bands across the garment.
    Stripes(f32),
    /// Fine, softly curved bands across: knitwear.
    Ribs(f32),
    /// This many folds along the garment.
    Pleats(f32),
    /// Spots in a grid.
    Dots(f32),
    /// Tartan.
    Checks(f32),
    /// A net of thin lines.
    Net(f32),
    /// Washed cotton with fine grain, brighter on the thighs.
    Denim,
    /// One pressed fold in the middle.
    Crease,
    /// A highlight along the garment: tight, smooth cloth.
    Gloss,
    /// Stitched diamonds.
    Quilt(f32),
    /// Diagonal bands.
    Diagonal(f32),
    /// Thin lines along the shape: hair.
    Streaks,
}

impl Texture {
    /// The tone at a spot: 1 is the cloth's own colour, lower is darker, higher is brighter.
    pub(super) fn tone(self, spot: Spot) -> f32 {
        let (x, y, across) = (spot.place.x, spot.place.y, spot.across);
        let wave = |value: f32, period: f32| (value / period * std::f32::consts::TAU).sin();
        let line = |value: f32, period: f32, share: f32| (value / period).rem_euclid(1.0) < share;
        match self {
            Self::Plain => 1.0,
            Self::Stripes(period) => {
                if line(spot.along, period, 0.5) {
                    1.12
                } else {
                    0.62
                }
            }
            Self::Ribs(period) => 0.92 + 0.24 * wave(spot.along + 2.0 * wave(x, 9.0), period),
            Self::Pleats(count) => 0.92 + 0.26 * (across * count * std::f32::consts::PI).sin(),
            Self::Dots(period) => {
                let row = (y / period).floor();
                let (u, v) = ((x / period + row * 0.5).rem_euclid(1.0) - 0.5, (y / period).rem_euclid(1.0) - 0.5);
                if u * u + v * v < 0.075 { 1.75 } else { 0.9 }
            }
            Self::Checks(period) => {
                let both = u8::from(line(x, period, 0.42)) + u8::from(line(y, period, 0.42));
                [1.15, 0.85, 0.55][usize::from(both)]
            }
            Self::Net(period) => {
                if line(x + y, period, 0.3) || line(x - y, period, 0.3) {
                    0.5
                } else {
                    1.25
                }
            }
            Self::Denim => {
                0.88 + 0.28 * (1.0 - across * across) * (0.6 + 0.4 * wave(spot.along, 160.0))
                    + 0.1 * (noise(x * 0.9, y * 0.35) - 0.5)
            }
            Self::Crease => {
                if across.abs() < 0.1 {
                    1.35
                } else {
                    0.98 - 0.1 * across
                }
            }
            Self::Gloss => 0.86 + 0.75 * (-((across - 0.3) / 0.2).powi(2)).exp(),
            Self::Quilt(period) => {
                if line(x + y, period, 0.16) || line(x - y, period, 0.16) {
                    0.6
                } else {
                    1.05
                }
            }
            Self::Diagonal(period) => {
                if line(x * 0.8 + y, period, 0.5) {
                    1.15
                } else {
                    0.68
                }
            }
            Self::Streaks => 0.85 + 0.35 * noise(across * 7.0 + 20.0, spot.along * 0.03),
        }
    }
}

/// Smooth noise, 0 to 1, one bump per unit.
pub(super) fn noise(x: f32, y: f32) -> f32 {
    let (x0, y0) = (x.floor(), y.floor());
    let soft = |v: f32| v * v * (3.0 - 2.0 * v);
    let (u, v) = (soft(x - x0), soft(y - y0));
    let value = |dx: i32, dy: i32| hash(x0 as i32 + dx, y0 as i32 + dy);
    let top = value(0, 0) + (value(1, 0) - value(0, 0)) * u;
    let bottom = value(0, 1) + (value(1, 1) - value(0, 1)) * u;
    top + (bottom - top) * v
}

/// A fixed value between 0 and 1 for each point of a grid.
pub(super) fn hash(x: i32, y: i32) -> f32 {
    let mut h = (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77);
    h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
    h = (h ^ (h >> 12)).wrapping_mul(0x297A_2D39);
    (h ^ (h >> 15)) as f32 / u32::MAX as f32
}

/// Brightens (above 1) or darkens (below 1) a colour; tones above the colour itself go towards white, so that patterns
/// also show on dark cloth.
pub(super) fn toned(rgb: Rgb, tone: f32) -> Rgb {
    if tone <= 1.0 {
        return rgb.map(|value| value * tone);
    }
    let lift = (tone - 1.0).min(1.0) * 0.55;
    rgb.map(|value| value + (255.0 - value) * lift)
}

/// A mix of two colours; `share` of the second.
pub(super) fn mix(a: Rgb, b: Rgb, share: f32) -> Rgb {
    [0, 1, 2].map(|i| a[i] + (b[i] - a[i]) * share)
}
