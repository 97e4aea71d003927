//! The dressed figure: a body in a pose, and each garment of its outfit, painted back to front.

use std::f32::consts::PI;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::drawing::{Drawing, Ends, Label, Outline, Point, Rgb, at, linear};
use super::outfit::{Legwear, Lower, Outfit, Upper};
use super::texture::{Texture, mix, toned};
use crate::labels::COLOR_RGB;

// Ids in `labels::CATEGORIES`.
const TSHIRT: u8 = 1;
const BAG: u8 = 2;
const BELT: u8 = 3;
const BLAZER: u8 = 4;
const BLOUSE: u8 = 5;
const COAT: u8 = 6;
const DRESS: u8 = 7;
const FACE: u8 = 8;
const HAIR: u8 = 9;
const HAT: u8 = 10;
const JEANS: u8 = 11;
const LEGGING: u8 = 12;
const PANTS: u8 = 13;
const SCARF: u8 = 14;
const SHOE: u8 = 15;
const SHORTS: u8 = 16;
const SKIN: u8 = 17;
const SKIRT: u8 = 18;
const SOCKS: u8 = 19;
const STOCKING: u8 = 20;
const SUNGLASS: u8 = 21;
const SWEATER: u8 = 22;

/// Joints of an arm or a leg, from the body outwards.
type Limb = [Point; 3];

/// Paints the figure of `outfit` in a random pose.
pub(super) fn paint(drawing: &mut Drawing, outfit: &Outfit, rng: &mut ChaCha8Rng) {
    let figure = Figure::new(outfit, rng);
    figure.hair_behind(drawing);
    figure.legs(drawing);
    figure.lower(drawing);
    figure.torso(drawing);
    figure.upper(drawing);
    figure.belt(drawing);
    figure.head(drawing);
    figure.bag(drawing);
}

/// The cloth of one garment.
#[derive(Clone, Copy)]
struct Cloth {
    label: Label,
    rgb: Rgb,
    texture: Texture,
    /// Light from the left (negative) or the right (positive).
    light: f32,
}

impl Cloth {
    fn paint(self, drawing: &mut Drawing, shape: &Outline) {
        drawing.paint(shape, Some(self.label), |spot, _| {
            let round = 1.04 - 0.3 * spot.across * spot.across + 0.12 * self.light * spot.across;
            toned(self.rgb, round.min(1.0) * self.texture.tone(spot))
        });
    }

    fn with(self, texture: Texture) -> Self {
        Self { texture, ..self }
    }

    fn shaded(self, tone: f32) -> Self {
        Self { rgb: toned(self.rgb, tone), ..self }
    }
}

struct Figure<'a> {
    outfit: &'a Outfit,
    hip_shift: f32,
    arms: [Limb; 2],
    legs: [Limb; 2],
    /// Tint of each category's cloth.
    tints: [Rgb; 23],
    light: f32,
    hair_length: f32,
    hat_style: u32,
    bag_style: u32,
    print_style: u32,
    hem: f32,
}

const SIDES: [f32; 2] = [-1.0, 1.0];

impl<'a> Figure<'a> {
    fn new(outfit: &'a Outfit, rng: &mut ChaCha8Rng) -> Self {
        let hip_shift = rng.random_range(-9.0..9.0f32);
        let mut tints = [[0.0; 3]; 23];
        for (category, tint) in tints.iter_mut().enumerate() {
            let base = COLOR_RGB[usize::from(outfit.color(category as u8))];
            let bright = rng.random_range(0.9..1.06f32);
            *tint = base.map(|value| f32::from(value) * bright + rng.random_range(-9.0..9.0f32));
        }
        let skins = if outfit.color(SKIN) == 1 {
            [[240.0, 205.0, 178.0], [224.0, 182.0, 148.0]]
        } else {
            [[150.0, 102.0, 72.0], [112.0, 74.0, 52.0]]
        };
        let skin = mix(skins[0], skins[1], rng.random_range(0.0..1.0));
        tints[usize::from(SKIN)] = skin;
        tints[usize::from(FACE)] = toned(skin, 1.06);
        let arms = [arm(-1.0, rng), arm(1.0, rng)];
        let stance = rng.random_range(0.015..0.11f32);
        let legs = SIDES.map(|side| leg(side, hip_shift, stance, rng));
        Self {
            outfit,
            hip_shift,
            arms,
            legs,
            tints,
            light: rng.random_range(-1.0..1.0f32),
            hair_length: [118.0, 132.0, 178.0, 205.0][rng.random_range(0..4usize)],
            hat_style: rng.random_range(0..2),
            bag_style: rng.random_range(0..2),
            print_style: rng.random_range(0..3),
            hem: rng.random_range(-1.0..1.0f32),
        }
    }

    fn cloth(&self, category: u8, texture: Texture) -> Cloth {
        let label = Label { category, color: self.outfit.color(category) };
        Cloth { label, rgb: self.tints[usize::from(category)], texture, light: self.light }
    }

    /// The body's centre line.
    fn center(&self, y: f32) -> f32 {
        let shift = self.hip_shift;
        200.0 + linear(&[(100.0, 0.0), (140.0, -0.15 * shift), (235.0, 0.5 * shift), (290.0, shift), (600.0, shift)], y)
    }

    fn profile(&self, widths: &[(f32, f32)]) -> Outline {
        self.open_profile(widths, &[], 0.0)
    }

    fn open_profile(&self, widths: &[(f32, f32)], gap: &[(f32, f32)], wave: f32) -> Outline {
        let nodes = widths.iter().map(|&(y, half)| (y, self.center(y), half)).collect();
        Outline::Profile { nodes, gap: gap.to_vec(), wave }
    }

    fn hair_behind(&self, drawing: &mut Drawing) {
        if self.hair_length < 125.0 {
            return;
        }
        let hair = self.cloth(HAIR, Texture::Streaks).shaded(0.85);
        let x = self.center(100.0);
        let nodes =
            vec![(50.0, x, 30.0), (85.0, x, 41.0), (self.hair_length - 12.0, x, 44.0), (self.hair_length, x, 36.0)];
        hair.paint(drawing, &Outline::Profile { nodes, gap: Vec::new(), wave: 4.0 });
    }

    fn legs(&self, drawing: &mut Drawing) {
        let skin = self.cloth(SKIN, Texture::Plain);
        for leg in self.legs {
            skin.paint(
                drawing,
                &along(&leg, &[(0.0, 24.0), (0.3, 21.0), (0.5, 14.5), (0.66, 16.0), (1.0, 8.5)], Ends::Round),
            );
        }
        match self.outfit.legwear {
            Legwear::Bare => {}
            Legwear::Stocking => {
                for leg in self.legs {
                    let widths = [(0.0, 25.0), (0.3, 22.0), (0.5, 15.5), (0.66, 17.0), (1.0, 9.5)];
                    self.cloth(STOCKING, Texture::Net(13.0)).paint(drawing, &along(&leg, &widths, Ends::Round));
                }
            }
            Legwear::Socks => {
                for leg in self.legs {
                    let widths = [(0.56, 17.5), (0.68, 19.0), (0.9, 13.0), (1.0, 12.0)];
                    self.cloth(SOCKS, Texture::Stripes(18.0)).paint(drawing, &along(&leg, &widths, Ends::Flat));
                }
            }
        }
        for (leg, side) in self.legs.iter().zip(SIDES) {
            self.shoe(drawing, leg[2], side);
        }
    }

    fn shoe(&self, drawing: &mut Drawing, ankle: Point, side: f32) {
        let shoe = self.cloth(SHOE, Texture::Plain);
        let toe = at(ankle.x + side * 17.0, ankle.y + 20.0);
        let upper = Outline::Tube {
            nodes: vec![(at(ankle.x - side * 3.0, ankle.y + 6.0), 13.0), (toe, 11.5)],
            ends: Ends::Round,
        };
        shoe.paint(drawing, &upper);
        let sole = Outline::Tube {
            nodes: vec![(at(ankle.x - side * 10.0, ankle.y + 27.0), 5.0), (at(toe.x + side * 6.0, toe.y + 8.0), 5.0)],
            ends: Ends::Round,
        };
        shoe.shaded(0.6).paint(drawing, &sole);
        for step in 0..3 {
            let (x, y) = (ankle.x + side * (3.0 + 5.0 * step as f32), ankle.y + 6.0 + 4.0 * step as f32);
            drawing.line(at(x - 5.0, y), at(x + 5.0, y), 1.0, toned(shoe.rgb, 1.6));
        }
    }

    fn lower(&self, drawing: &mut Drawing) {
        let Some(lower) = self.outfit.lower else { return };
        let waist = 238.0;
        match lower {
            Lower::Jeans => {
                let cloth = self.cloth(JEANS, Texture::Denim);
                self.trousers(drawing, cloth, &[(0.0, 27.0), (0.3, 24.0), (0.5, 19.0), (0.75, 18.0), (0.98, 15.0)]);
                for (leg, side) in self.legs.iter().zip(SIDES) {
                    let cuff = along(leg, &[(0.91, 17.5), (0.98, 16.5)], Ends::Flat);
                    cloth.with(Texture::Plain).shaded(1.55).paint(drawing, &cuff);
                    let pocket = at(self.center(262.0) + side * 30.0, 266.0);
                    drawing.line(pocket, at(pocket.x + side * 12.0, 252.0), 1.2, [214.0, 160.0, 84.0]);
                }
                let fly = self.center(270.0);
                drawing.line(at(fly, 250.0), at(fly, 300.0), 1.3, [214.0, 160.0, 84.0]);
            }
            Lower::Pants => {
                let cloth = self.cloth(PANTS, Texture::Crease);
                self.trousers(drawing, cloth, &[(0.0, 29.0), (0.4, 27.0), (0.7, 30.0), (1.08, 35.0)]);
            }
            Lower::Legging => {
                let cloth = self.cloth(LEGGING, Texture::Gloss);
                self.trousers(drawing, cloth, &[(0.0, 24.5), (0.3, 21.5), (0.5, 15.0), (0.66, 16.5), (0.93, 9.5)]);
            }
            Lower::Shorts => {
                let cloth = self.cloth(SHORTS, Texture::Plain);
                let end = 0.36 + 0.04 * self.hem;
                self.trousers(drawing, cloth, &[(0.0, 29.0), (0.2, 31.0), (end, 33.0)]);
                for leg in &self.legs {
                    cloth.shaded(0.6).paint(drawing, &along(leg, &[(end - 0.055, 33.5), (end, 34.0)], Ends::Flat));
                }
            }
            Lower::Skirt => {
                let end = 392.0 + 16.0 * self.hem;
                let widths = [(waist - 4.0, 35.0), (275.0, 52.0), (330.0, 66.0), (end, 86.0)];
                self.cloth(SKIRT, Texture::Pleats(7.0)).paint(drawing, &self.open_profile(&widths, &[], 4.0));
            }
        }
    }

    /// Two legs and the seat above them.
    fn trousers(&self, drawing: &mut Drawing, cloth: Cloth, widths: &[(f32, f32)]) {
        for leg in &self.legs {
            cloth.paint(drawing, &along(leg, widths, Ends::Flat));
        }
        let seat = [(234.0, 35.0), (262.0, 45.0), (290.0, 51.0), (308.0, 50.0)];
        let texture = if cloth.texture == Texture::Crease { Texture::Plain } else { cloth.texture };
        cloth.with(texture).paint(drawing, &self.profile(&seat));
        // The point where the legs part.
        let x = self.center(300.0);
        drawing.line(at(x, 292.0), at(x, 316.0), 1.2, toned(cloth.rgb, 0.55));
    }

    fn torso(&self, drawing: &mut Drawing) {
        let skin = self.cloth(SKIN, Texture::Plain);
        for arm in self.arms {
            skin.paint(drawing, &along(&arm, &[(0.0, 15.0), (0.5, 11.0), (1.0, 8.0)], Ends::Round));
            let hand = Outline::Ellipse { center: at(arm[2].x, arm[2].y + 5.0), rx: 10.0, ry: 12.0 };
            skin.paint(drawing, &hand);
        }
        let widths = [(126.0, 20.0), (138.0, 44.0), (152.0, 50.0), (180.0, 45.0), (236.0, 33.0), (262.0, 44.0)];
        skin.paint(drawing, &self.profile(&widths));
        let neck = vec![(at(self.center(100.0), 100.0), 14.0), (at(self.center(140.0), 140.0), 16.0)];
        skin.shaded(0.9).paint(drawing, &Outline::Tube { nodes: neck, ends: Ends::Flat });
    }

    fn upper(&self, drawing: &mut Drawing) {
        match self.outfit.upper {
            Upper::Tshirt => self.tshirt(drawing, true),
            Upper::Blouse => self.blouse(drawing, true),
            Upper::Sweater => self.sweater(drawing),
            Upper::Blazer => {
                self.inner(drawing);
                self.blazer(drawing);
            }
            Upper::Coat => {
                self.inner(drawing);
                self.coat(drawing);
            }
            Upper::Dress => self.dress(drawing),
        }
        if self.outfit.scarf {
            self.scarf(drawing);
        }
    }

    fn inner(&self, drawing: &mut Drawing) {
        if self.print_style == 0 { self.blouse(drawing, false) } else { self.tshirt(drawing, false) }
    }

    fn sleeves(&self, drawing: &mut Drawing, cloth: Cloth, widths: &[(f32, f32)]) {
        for arm in &self.arms {
            let texture =
                if matches!(cloth.texture, Texture::Pleats(_)) { Texture::Pleats(2.0) } else { cloth.texture };
            cloth.shaded(0.93).with(texture).paint(drawing, &along(arm, widths, Ends::Open));
        }
    }

    /// A round neck, short sleeves and a print on the chest.
    fn tshirt(&self, drawing: &mut Drawing, sleeves: bool) {
        let cloth = self.cloth(TSHIRT, Texture::Plain);
        if sleeves {
            self.sleeves(drawing, cloth, &[(0.0, 19.0), (0.28, 23.0)]);
        }
        let widths =
            [(131.0, 30.0), (140.0, 49.0), (156.0, 52.0), (190.0, 46.0), (232.0, 40.0), (258.0 + 5.0 * self.hem, 45.0)];
        cloth.paint(drawing, &self.open_profile(&widths, &[(129.0, 20.0), (140.0, 16.0), (150.0, 0.0)], 0.0));
        let (x, print) = (self.center(190.0), toned(cloth.rgb, if cloth.rgb[1] > 150.0 { 0.45 } else { 1.9 }));
        match self.print_style {
            0 => drawing.dot(at(x, 192.0), 19.0, print),
            1 => {
                for row in 0..3 {
                    let y = 178.0 + 13.0 * row as f32;
                    drawing.line(at(x - 24.0, y), at(x + 24.0, y), 3.2, print);
                }
            }
            _ => {
                let star = (0..10).map(|i| {
                    let (radius, angle) = (if i % 2 == 0 { 25.0 } else { 11.0 }, i as f32 * PI / 5.0);
                    at(x + radius * angle.sin(), 192.0 - radius * angle.cos())
                });
                drawing.paint(&Outline::Polygon(star.collect()), None, |_, _| print);
            }
        }
    }

    /// A pointed collar, a row of buttons, long and loose sleeves with cuffs.
    fn blouse(&self, drawing: &mut Drawing, sleeves: bool) {
        let cloth = self.cloth(BLOUSE, Texture::Pleats(5.0));
        if sleeves {
            self.sleeves(drawing, cloth, &[(0.0, 19.0), (0.4, 19.0), (0.85, 23.0), (0.95, 13.0)]);
            for arm in &self.arms {
                cloth
                    .with(Texture::Plain)
                    .shaded(0.7)
                    .paint(drawing, &along(arm, &[(0.91, 13.0), (1.0, 12.0)], Ends::Flat));
            }
        }
        let widths = [(129.0, 28.0), (139.0, 49.0), (155.0, 53.0), (195.0, 49.0), (240.0, 44.0), (266.0, 49.0)];
        cloth.paint(drawing, &self.open_profile(&widths, &[(128.0, 14.0), (152.0, 0.0)], 3.0));
        let (x, light) = (self.center(160.0), toned(cloth.rgb, 1.5));
        drawing.line(at(x, 152.0), at(self.center(262.0), 262.0), 4.5, light);
        for button in 0..6 {
            let y = 160.0 + 18.0 * button as f32;
            drawing.dot(at(self.center(y), y), 2.8, toned(cloth.rgb, 0.35));
        }
        for side in SIDES {
            let points = vec![at(x + side * 17.0, 124.0), at(x + side * 2.0, 151.0), at(x + side * 27.0, 156.0)];
            cloth.with(Texture::Plain).shaded(1.4).paint(drawing, &Outline::Polygon(points));
        }
    }

    /// Knitted bands, a rolled collar, a hem band.
    fn sweater(&self, drawing: &mut Drawing) {
        let cloth = self.cloth(SWEATER, Texture::Ribs(13.0));
        self.sleeves(drawing, cloth, &[(0.0, 21.0), (0.5, 19.0), (0.9, 17.0), (0.97, 14.0)]);
        let widths =
            [(129.0, 30.0), (140.0, 51.0), (156.0, 56.0), (200.0, 53.0), (250.0, 51.0), (280.0 + 6.0 * self.hem, 52.0)];
        cloth.paint(drawing, &self.profile(&widths));
        let bottom = 280.0 + 6.0 * self.hem;
        let hem = self.profile(&[(bottom - 14.0, 52.0), (bottom, 50.0)]);
        cloth.with(Texture::Pleats(11.0)).shaded(0.8).paint(drawing, &hem);
        let x = self.center(125.0);
        let collar =
            Outline::Tube { nodes: vec![(at(x - 13.0, 127.0), 10.0), (at(x + 13.0, 127.0), 10.0)], ends: Ends::Round };
        cloth.with(Texture::Plain).shaded(0.85).paint(drawing, &collar);
    }

    /// Open in front down to the button, with lapels and pocket flaps.
    fn blazer(&self, drawing: &mut Drawing) {
        let cloth = self.cloth(BLAZER, Texture::Plain);
        self.sleeves(drawing, cloth, &[(0.0, 21.0), (0.5, 17.0), (0.96, 14.0)]);
        let widths = [(129.0, 30.0), (139.0, 54.0), (155.0, 57.0), (200.0, 50.0), (236.0, 46.0), (305.0, 58.0)];
        let gap = [(128.0, 17.0), (170.0, 19.0), (232.0, 3.0), (250.0, 4.0), (310.0, 24.0)];
        cloth.paint(drawing, &self.open_profile(&widths, &gap, 0.0));
        let lapel = cloth.shaded(if cloth.rgb[1] > 120.0 { 0.66 } else { 1.45 });
        let x = self.center(170.0);
        for side in SIDES {
            let points = vec![
                at(x + side * 15.0, 124.0),
                at(x + side * 34.0, 150.0),
                at(x + side * 42.0, 172.0),
                at(self.center(236.0) + side * 2.0, 238.0),
                at(x + side * 18.0, 172.0),
            ];
            lapel.paint(drawing, &Outline::Polygon(points));
            let pocket = self.center(272.0) + side * 36.0;
            drawing.line(at(pocket - 10.0, 272.0), at(pocket + 10.0, 272.0), 3.0, toned(lapel.rgb, 0.85));
        }
        drawing.dot(at(self.center(243.0) + 5.0, 243.0), 3.6, toned(lapel.rgb, 0.5));
    }

    /// Down to the knees, checked, two rows of buttons, a wide collar.
    fn coat(&self, drawing: &mut Drawing) {
        let cloth = self.cloth(COAT, Texture::Checks(27.0));
        self.sleeves(drawing, cloth, &[(0.0, 23.0), (0.5, 20.0), (0.97, 18.0)]);
        let end = 432.0 + 18.0 * self.hem;
        let widths = [(128.0, 32.0), (139.0, 57.0), (158.0, 60.0), (235.0, 51.0), (300.0, 61.0), (end, 74.0)];
        cloth.paint(drawing, &self.open_profile(&widths, &[(127.0, 15.0), (150.0, 15.0), (188.0, 0.0)], 2.0));
        let plain = cloth.with(Texture::Plain).shaded(0.62);
        let x = self.center(160.0);
        drawing.line(at(x, 190.0), at(self.center(400.0), end), 1.6, toned(cloth.rgb, 0.35));
        for side in SIDES {
            let points = vec![
                at(x + side * 12.0, 120.0),
                at(x + side * 42.0, 146.0),
                at(x + side * 38.0, 172.0),
                at(x + side * 3.0, 192.0),
            ];
            plain.paint(drawing, &Outline::Polygon(points));
            for button in 0..4 {
                let y = 208.0 + 36.0 * button as f32;
                drawing.dot(at(self.center(y) + side * 17.0, y), 4.6, toned(cloth.rgb, 0.25));
            }
        }
    }

    /// Straps, a fitted waist and a wide, dotted skirt.
    fn dress(&self, drawing: &mut Drawing) {
        let cloth = self.cloth(DRESS, Texture::Dots(21.0));
        let x = self.center(150.0);
        for side in SIDES {
            let strap = vec![(at(x + side * 31.0, 133.0), 7.0), (at(x + side * 27.0, 168.0), 7.0)];
            cloth.with(Texture::Plain).paint(drawing, &Outline::Tube { nodes: strap, ends: Ends::Round });
        }
        let end = 400.0 + 20.0 * self.hem;
        let widths = [(158.0, 41.0), (182.0, 45.0), (234.0, 35.0), (275.0, 54.0), (335.0, 72.0), (end, 92.0)];
        cloth.paint(drawing, &self.open_profile(&widths, &[(157.0, 10.0), (168.0, 0.0)], 5.0));
    }

    fn belt(&self, drawing: &mut Drawing) {
        if !self.outfit.belt {
            return;
        }
        let (y, half) = match self.outfit.upper {
            Upper::Coat => (242.0, 53.0),
            Upper::Dress => (236.0, 38.0),
            Upper::Sweater => (244.0, 53.0),
            Upper::Blazer => (249.0, 49.0),
            Upper::Blouse => (242.0, 47.0),
            Upper::Tshirt => (244.0, 44.0),
        };
        let belt = self.cloth(BELT, Texture::Plain);
        belt.paint(drawing, &self.profile(&[(y - 10.0, half), (y + 10.0, half)]));
        let x = self.center(y);
        let metal = if belt.label.color == 12 { [150.0, 150.0, 150.0] } else { [235.0, 205.0, 110.0] };
        for (half, rgb) in [(11.0, metal), (6.5, toned(belt.rgb, 0.8))] {
            let square = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)];
            let points = square.iter().map(|(dx, dy)| at(x + dx * half, y + dy * half * 0.85)).collect();
            drawing.paint(&Outline::Polygon(points), None, |_, _| rgb);
        }
    }

    fn scarf(&self, drawing: &mut Drawing) {
        let cloth = self.cloth(SCARF, Texture::Diagonal(15.0));
        let x = self.center(130.0);
        let end = at(x + 24.0 + 6.0 * self.hem, 236.0);
        let hanging = vec![(at(x + 14.0, 136.0), 15.0), (end, 17.0)];
        cloth.paint(drawing, &Outline::Tube { nodes: hanging, ends: Ends::Flat });
        for fringe in 0..5 {
            let offset = fringe as f32 * 7.0 - 14.0;
            let strand = vec![(at(end.x + offset, end.y - 2.0), 2.0), (at(end.x + offset, end.y + 12.0), 2.0)];
            cloth.with(Texture::Plain).paint(drawing, &Outline::Tube { nodes: strand, ends: Ends::Round });
        }
        let wrap = vec![(at(x - 24.0, 126.0), 15.0), (at(x, 134.0), 18.0), (at(x + 24.0, 126.0), 15.0)];
        cloth.shaded(1.08).paint(drawing, &Outline::Tube { nodes: wrap, ends: Ends::Round });
    }

    fn head(&self, drawing: &mut Drawing) {
        let x = self.center(80.0);
        let hair = self.cloth(HAIR, Texture::Streaks);
        hair.paint(drawing, &Outline::Ellipse { center: at(x, 72.0), rx: 37.0, ry: 41.0 });
        if (120.0..150.0).contains(&self.hair_length) && !self.outfit.hat {
            hair.paint(drawing, &Outline::Ellipse { center: at(x, 30.0), rx: 16.0, ry: 14.0 });
        }
        let face = self.cloth(FACE, Texture::Plain);
        face.paint(drawing, &Outline::Ellipse { center: at(x, 83.0), rx: 27.0, ry: 33.0 });
        self.features(drawing, x);
        // Parted hair over the forehead.
        let part = if self.hem > 0.0 { 9.0 } else { -9.0 };
        let fringe = vec![
            at(x + part, 45.0),
            at(x - 31.0, 58.0),
            at(x - 30.0, 82.0),
            at(x - 19.0, 63.0),
            at(x + part, 52.0),
            at(x + 19.0, 63.0),
            at(x + 30.0, 82.0),
            at(x + 31.0, 58.0),
        ];
        hair.paint(drawing, &Outline::Polygon(fringe));
        if self.outfit.sunglass {
            self.sunglass(drawing, x);
        }
        if self.outfit.hat {
            self.hat(drawing, x);
        }
    }

    fn features(&self, drawing: &mut Drawing, x: f32) {
        let skin = self.tints[usize::from(FACE)];
        for side in SIDES {
            let eye = Outline::Ellipse { center: at(x + side * 11.0, 80.0), rx: 5.8, ry: 4.2 };
            drawing.paint(&eye, None, |_, _| [248.0, 246.0, 242.0]);
            drawing.dot(at(x + side * 11.0, 80.0), 3.0, [40.0, 28.0, 24.0]);
            drawing.line(
                at(x + side * 6.0, 73.0),
                at(x + side * 16.0, 72.0),
                1.2,
                toned(self.tints[usize::from(HAIR)], 0.8),
            );
            let cheek = Outline::Ellipse { center: at(x + side * 15.0, 92.0), rx: 6.0, ry: 4.0 };
            drawing.paint(&cheek, None, |_, under| mix(under, [226.0, 110.0, 104.0], 0.3));
        }
        drawing.line(at(x + 1.0, 84.0), at(x + 2.5, 92.0), 1.0, toned(skin, 0.78));
        let mouth = Outline::Ellipse { center: at(x, 101.0), rx: 8.0, ry: 3.2 };
        drawing.paint(&mouth, None, |_, _| [190.0, 62.0, 66.0]);
    }

    /// Large round glasses.
    fn sunglass(&self, drawing: &mut Drawing, x: f32) {
        let cloth = self.cloth(SUNGLASS, Texture::Plain);
        let bridge =
            Outline::Tube { nodes: vec![(at(x - 29.0, 75.0), 3.0), (at(x + 29.0, 75.0), 3.0)], ends: Ends::Flat };
        cloth.paint(drawing, &bridge);
        for side in SIDES {
            let lens = at(x + side * 15.0, 80.0);
            cloth.paint(drawing, &Outline::Ellipse { center: lens, rx: 14.5, ry: 12.0 });
            let rgb = mix(cloth.rgb, [20.0, 20.0, 26.0], 0.65);
            drawing.paint(&Outline::Ellipse { center: lens, rx: 12.0, ry: 9.5 }, None, |spot, _| {
                mix(rgb, [150.0, 160.0, 175.0], 0.35 * (1.0 - spot.along / 19.0).max(0.0))
            });
            drawing.line(at(lens.x - 5.0, 76.0), at(lens.x - 1.0, 73.5), 1.5, [235.0, 238.0, 242.0]);
        }
    }

    /// A wide brim or a cap with a peak, with a band.
    fn hat(&self, drawing: &mut Drawing, x: f32) {
        let cloth = self.cloth(HAT, Texture::Plain);
        let crown = [(16.0, x, 24.0), (22.0, x, 34.0), (40.0, x, 38.0), (58.0, x, 40.0)].to_vec();
        cloth.paint(drawing, &Outline::Profile { nodes: crown, gap: Vec::new(), wave: 0.0 });
        let band = [(44.0, x, 39.0), (54.0, x, 40.0)].to_vec();
        let tone = if cloth.rgb[1] > 120.0 { 0.45 } else { 1.7 };
        drawing
            .paint(&Outline::Profile { nodes: band, gap: Vec::new(), wave: 0.0 }, None, |_, _| toned(cloth.rgb, tone));
        let brim = if self.hat_style == 0 {
            Outline::Ellipse { center: at(x, 58.0), rx: 66.0, ry: 10.0 }
        } else {
            Outline::Ellipse { center: at(x + 22.0, 58.0), rx: 44.0, ry: 8.0 }
        };
        cloth.shaded(0.86).paint(drawing, &brim);
    }

    fn bag(&self, drawing: &mut Drawing) {
        if !self.outfit.bag {
            return;
        }
        let cloth = self.cloth(BAG, Texture::Quilt(17.0));
        // In the lower hand.
        let arm = if self.arms[0][2].y > self.arms[1][2].y { self.arms[0] } else { self.arms[1] };
        let (hand, side) = (arm[2], (arm[2].x - 200.0).signum());
        let x = hand.x + side * 12.0;
        let (top, wide, high) =
            if self.bag_style == 0 { (hand.y + 34.0, 40.0, 58.0) } else { (hand.y + 40.0, 34.0, 74.0) };
        let handle = vec![
            (at(x - 18.0, top + 4.0), 3.4),
            (at(x - 12.0, hand.y + 6.0), 3.4),
            (at(x + 12.0, hand.y + 6.0), 3.4),
            (at(x + 18.0, top + 4.0), 3.4),
        ];
        cloth.with(Texture::Plain).shaded(0.75).paint(drawing, &Outline::Tube { nodes: handle, ends: Ends::Round });
        let body = [(top, x, wide * 0.86), (top + high * 0.3, x, wide), (top + high, x, wide * 1.04)].to_vec();
        cloth.paint(drawing, &Outline::Profile { nodes: body, gap: Vec::new(), wave: 0.0 });
        let flap = [(top, x, wide * 0.88), (top + high * 0.36, x, wide * 0.98)].to_vec();
        cloth
            .with(Texture::Plain)
            .shaded(0.8)
            .paint(drawing, &Outline::Profile { nodes: flap, gap: Vec::new(), wave: 0.0 });
        drawing.dot(at(x, top + high * 0.36), 5.5, [238.0, 212.0, 120.0]);
        // The fingers that hold it.
        let skin = self.cloth(SKIN, Texture::Plain);
        skin.paint(drawing, &Outline::Ellipse { center: at(hand.x + side * 3.0, hand.y + 6.0), rx: 9.0, ry: 9.0 });
    }
}

/// A tube along a limb, with widths at fractions from 0 (at the body) to 1 (hand or foot) and slightly beyond.
fn along(limb: &Limb, widths: &[(f32, f32)], ends: Ends) -> Outline {
    let place = |share: f32| {
        let (a, b, rest) =
            if share < 0.5 { (limb[0], limb[1], share * 2.0) } else { (limb[1], limb[2], share * 2.0 - 1.0) };
        at(a.x + (b.x - a.x) * rest, a.y + (b.y - a.y) * rest)
    };
    let (first, last) = (widths[0].0, widths[widths.len() - 1].0);
    let mut shares: Vec<f32> = widths.iter().map(|w| w.0).collect();
    if first < 0.5 && last > 0.5 && !shares.contains(&0.5) {
        shares.push(0.5);
        shares.sort_by(f32::total_cmp);
    }
    let nodes = shares.into_iter().map(|share| (place(share), linear(widths, share))).collect();
    Outline::Tube { nodes, ends }
}

/// An arm in one of four poses: hanging, a hand on the hip, held out, raised.
fn arm(side: f32, rng: &mut ChaCha8Rng) -> Limb {
    let (upper, fore) = match rng.random_range(0..6u32) {
        0..=2 => (rng.random_range(0.1..0.3f32), rng.random_range(0.0..0.22f32)),
        3 => (rng.random_range(0.6..0.75f32), rng.random_range(-0.75..-0.55f32)),
        4 => (rng.random_range(0.3..0.5f32), rng.random_range(0.5..0.9f32)),
        _ => (rng.random_range(0.35..0.55f32), rng.random_range(1.7..2.2f32)),
    };
    let shoulder = at(200.0 + side * 43.0, 151.0);
    let elbow = at(shoulder.x + side * 76.0 * upper.sin(), shoulder.y + 76.0 * upper.cos());
    let wrist = at(elbow.x + side * 70.0 * fore.sin(), elbow.y + 70.0 * fore.cos());
    [shoulder, elbow, wrist]
}

fn leg(side: f32, hip_shift: f32, stance: f32, rng: &mut ChaCha8Rng) -> Limb {
    let (upper, lower) = (stance + rng.random_range(-0.01..0.05f32), stance + rng.random_range(-0.07..0.05f32));
    let hip = at(200.0 + hip_shift + side * 25.0, 296.0);
    let knee = at(hip.x + side * 121.0 * upper.sin(), hip.y + 121.0 * upper.cos());
    let ankle = at(knee.x + side * 119.0 * lower.sin(), knee.y + 119.0 * lower.cos());
    [hip, knee, ankle]
}
