//! Backdrops behind the figure: rooms, streets, parks, walls.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::drawing::{Drawing, Outline, Point, Rgb, at};
use super::texture::{hash, mix, noise};

const WIDTH: f32 = 400.0;
const HEIGHT: f32 = 600.0;

/// Paints one of the backdrops over the whole picture; `kind` selects it, modulo their number.
pub(super) fn paint(drawing: &mut Drawing, kind: usize, rng: &mut ChaCha8Rng) {
    match kind % 8 {
        0 => studio(drawing, rng),
        1 => bricks(drawing, rng),
        2 => street(drawing, rng),
        3 => park(drawing, rng),
        4 => room(drawing, rng),
        5 => lights(drawing, rng),
        6 => beach(drawing, rng),
        _ => painted_wall(drawing, rng),
    }
}

fn rectangle(left: f32, top: f32, right: f32, bottom: f32) -> Outline {
    Outline::Polygon(vec![at(left, top), at(right, top), at(right, bottom), at(left, bottom)])
}

fn fill(drawing: &mut Drawing, top: f32, bottom: f32, look: impl Fn(Point) -> Rgb) {
    drawing.paint(&rectangle(-1.0, top, WIDTH + 1.0, bottom), None, |spot, _| look(spot.place));
}

/// A muted colour, so that brightly coloured cloth stands out in front of it.
fn muted(rng: &mut ChaCha8Rng, low: f32, high: f32) -> Rgb {
    let gray: f32 = rng.random_range(low..high);
    [0; 3].map(|_| gray + rng.random_range(-22.0f32..22.0))
}

fn studio(drawing: &mut Drawing, rng: &mut ChaCha8Rng) {
    let wall = muted(rng, 150.0, 225.0);
    let floor = mix(wall, muted(rng, 120.0, 200.0), 0.6);
    let glow: f32 = rng.random_range(100.0..300.0);
    fill(drawing, -1.0, 500.0, |p| {
        let far = ((p.x - glow) / 330.0).hypot((p.y - 220.0) / 480.0);
        mix(mix(wall, [255.0; 3], 0.35), mix(wall, [40.0; 3], 0.35), far.min(1.0))
    });
    fill(drawing, 500.0, 601.0, |p| mix(mix(wall, floor, 0.5), floor, (p.y - 500.0) / 60.0));
}

fn bricks(drawing: &mut Drawing, rng: &mut ChaCha8Rng) {
    let brick = [rng.random_range(120.0..175.0f32), rng.random_range(85.0..115.0), rng.random_range(70.0..100.0)];
    let pavement = muted(rng, 130.0, 185.0);
    let (wide, high) = (rng.random_range(38.0..60.0f32), rng.random_range(15.0..24.0f32));
    fill(drawing, -1.0, 515.0, |p| {
        let row = (p.y / high).floor();
        let (u, v) = ((p.x / wide + row * 0.5).rem_euclid(1.0), (p.y / high).rem_euclid(1.0));
        let mortar = u < 0.07 || v < 0.14;
        let tint = 0.82 + 0.3 * hash((p.x / wide + row * 0.5).floor() as i32, row as i32);
        if mortar { mix(brick, [205.0, 200.0, 192.0], 0.55) } else { brick.map(|value| value * tint) }
    });
    fill(drawing, 515.0, 601.0, |p| {
        let joint = ((p.x - 200.0) / (p.y - 380.0) * 2.4).rem_euclid(1.0) < 0.04;
        pavement.map(|value| value * if joint { 0.75 } else { 0.92 + 0.12 * noise(p.x * 0.3, p.y * 0.3) })
    });
}

fn street(drawing: &mut Drawing, rng: &mut ChaCha8Rng) {
    let (gray, haze) = (rng.random_range(165.0..205.0f32), muted(rng, 215.0, 240.0));
    let sky = [gray, gray + 14.0, gray + 30.0];
    fill(drawing, -1.0, 601.0, |p| mix(sky, haze, (p.y / 400.0).min(1.0)));
    let mut left = -30.0;
    while left < WIDTH {
        let (wide, top) = (rng.random_range(60.0..120.0f32), rng.random_range(30.0..230.0f32));
        let (wall, pane) = (muted(rng, 110.0, 190.0), muted(rng, 70.0, 130.0));
        let (step_x, step_y) = (rng.random_range(20.0..30.0f32), rng.random_range(30.0..44.0f32));
        drawing.paint(&rectangle(left, top, left + wide, 480.0), None, |spot, _| {
            let (u, v) = ((spot.place.x - left) / step_x, (spot.place.y - top) / step_y);
            let window = (0.25..0.75).contains(&u.rem_euclid(1.0)) && (0.25..0.8).contains(&v.rem_euclid(1.0));
            if window { pane } else { wall }
        });
        left += wide;
    }
    let road = muted(rng, 95.0, 135.0);
    fill(drawing, 480.0, 601.0, |p| {
        let edge = ((p.x - 200.0).abs() - (p.y - 440.0) * 1.4).abs() < 4.0;
        if edge { [220.0, 220.0, 212.0] } else { road.map(|v| v * (0.9 + 0.2 * noise(p.x * 0.4, p.y * 0.4))) }
    });
}

fn park(drawing: &mut Drawing, rng: &mut ChaCha8Rng) {
    let sky = [rng.random_range(165.0..200.0f32), rng.random_range(195.0..220.0), rng.random_range(215.0..240.0)];
    let grass = [rng.random_range(105.0..140.0f32), rng.random_range(150.0..175.0), rng.random_range(80.0..105.0)];
    fill(drawing, -1.0, 601.0, |p| mix(sky, [238.0, 240.0, 236.0], (p.y / 420.0).min(1.0)));
    for _ in 0..rng.random_range(9..15) {
        let center = at(rng.random_range(-20.0..420.0), rng.random_range(140.0..400.0));
        let (rx, ry) = (rng.random_range(45.0..95.0f32), rng.random_range(50.0..110.0f32));
        let leaf = [rng.random_range(95.0..135.0f32), rng.random_range(125.0..165.0), rng.random_range(85.0..115.0)];
        drawing.paint(&Outline::Ellipse { center, rx, ry }, None, |spot, _| {
            let tone = 0.72
                + 0.22 * noise(spot.place.x * 0.07, spot.place.y * 0.07)
                + 0.22 * noise(spot.place.y * 0.23, spot.place.x * 0.19)
                - 0.12 * spot.along / ry;
            leaf.map(|value| value * tone)
        });
    }
    fill(drawing, 420.0, 601.0, |p| {
        let tone = 0.84 + 0.22 * noise(p.x * 0.25, p.y * 0.1) + (p.y - 420.0) / 1500.0;
        let path = (p.x - 200.0 - (p.y - 600.0) * 0.15).abs() < (p.y - 400.0) * 0.75;
        let ground = if path { [196.0, 184.0, 160.0] } else { grass };
        ground.map(|value| value * tone)
    });
}

fn room(drawing: &mut Drawing, rng: &mut ChaCha8Rng) {
    let (wall, wood) = (muted(rng, 170.0, 225.0), muted(rng, 120.0, 165.0));
    let wood = [wood[0] + 25.0, wood[1], wood[2] - 25.0];
    let (period, soft) = (rng.random_range(22.0..48.0f32), rng.random_range(0.86..0.97f32));
    fill(drawing, -1.0, 495.0, |p| {
        wall.map(|value| value * if (p.x / period).rem_euclid(1.0) < 0.5 { soft } else { 1.0 })
    });
    for _ in 0..rng.random_range(1..4) {
        let (x, y) = (rng.random_range(0.0..330.0f32), rng.random_range(30.0..230.0f32));
        let (wide, high) = (rng.random_range(50.0..100.0f32), rng.random_range(60.0..120.0f32));
        let (frame, inner) = (muted(rng, 60.0, 110.0), muted(rng, 140.0, 220.0));
        drawing.paint(&rectangle(x, y, x + wide, y + high), None, |_, _| frame);
        drawing.paint(&rectangle(x + 6.0, y + 6.0, x + wide - 6.0, y + high - 6.0), None, |spot, _| {
            inner.map(|value| value * (0.7 + 0.5 * noise(spot.place.x * 0.06, spot.place.y * 0.06)))
        });
    }
    fill(drawing, 495.0, 505.0, |_| [232.0, 228.0, 220.0]);
    fill(drawing, 505.0, 601.0, |p| {
        let plank = ((p.x - 200.0) / (p.y - 400.0) * 4.0).floor();
        wood.map(|value| value * (0.82 + 0.3 * hash(plank as i32, 7)))
    });
}

fn lights(drawing: &mut Drawing, rng: &mut ChaCha8Rng) {
    let (top, bottom) = (muted(rng, 60.0, 110.0), muted(rng, 90.0, 150.0));
    fill(drawing, -1.0, 601.0, |p| mix(top, bottom, p.y / HEIGHT));
    for _ in 0..rng.random_range(24..44) {
        let center = at(rng.random_range(0.0..400.0), rng.random_range(0.0..470.0));
        let radius = rng.random_range(10.0..34.0f32);
        let (tint, glow) = (muted(rng, 150.0, 230.0), rng.random_range(0.2..0.5f32));
        drawing.paint(&Outline::Ellipse { center, rx: radius, ry: radius }, None, |_, under| mix(under, tint, glow));
    }
    fill(drawing, 520.0, 601.0, |p| mix(bottom, [150.0, 146.0, 142.0], ((p.y - 520.0) / 70.0).min(1.0)));
}

fn beach(drawing: &mut Drawing, rng: &mut ChaCha8Rng) {
    let horizon: f32 = rng.random_range(260.0..350.0);
    let (shore, tide) = (horizon + rng.random_range(60.0..110.0f32), rng.random_range(0.01..0.03f32));
    fill(drawing, -1.0, horizon, |p| mix([150.0, 190.0, 222.0], [232.0, 236.0, 236.0], p.y / horizon));
    fill(drawing, horizon, 601.0, |p| {
        let edge = shore + 8.0 * (p.x * tide).sin();
        if p.y < edge - 7.0 {
            let foam = noise(p.x * 0.05, p.y * 0.3) > 0.78;
            return if foam {
                [190.0, 214.0, 220.0]
            } else {
                mix([96.0, 150.0, 178.0], [130.0, 180.0, 190.0], (p.y - horizon) / 100.0)
            };
        }
        if p.y < edge {
            return [236.0, 240.0, 238.0];
        }
        [214.0, 198.0, 166.0].map(|value| value * (0.88 + 0.16 * noise(p.x * 0.35, p.y * 0.35)))
    });
}

fn painted_wall(drawing: &mut Drawing, rng: &mut ChaCha8Rng) {
    let (wall, ground) = (muted(rng, 140.0, 210.0), muted(rng, 110.0, 170.0));
    fill(drawing, -1.0, 601.0, |p| wall.map(|value| value * (0.93 + 0.12 * noise(p.x * 0.02, p.y * 0.02))));
    for _ in 0..rng.random_range(5..10) {
        let center = at(rng.random_range(-40.0..440.0), rng.random_range(-40.0..480.0));
        let corner = |rng: &mut ChaCha8Rng| {
            at(center.x + rng.random_range(-150.0..150.0f32), center.y + rng.random_range(-150.0..150.0f32))
        };
        let tint: Rgb = [0; 3].map(|_| rng.random_range(90.0..220.0));
        let triangle = Outline::Polygon(vec![corner(rng), corner(rng), corner(rng)]);
        drawing.paint(&triangle, None, |_, under| mix(under, tint, 0.45));
    }
    fill(drawing, 525.0, 601.0, |p| ground.map(|value| value * (0.88 + 0.2 * noise(p.x * 0.2, p.y * 0.2))));
}
