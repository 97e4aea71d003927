//! The drawing board: shapes in the space of the figure (400 x 600), painted back to front with their labels.

/// Samples per pixel along each axis: edges in the picture are antialiased, labels stay sharp.
const SAMPLES: usize = 2;

/// sRGB, 0 to 255.
pub(super) type Rgb = [f32; 3];

/// A point in the figure's space.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) x: f32,
    pub(super) y: f32,
}

/// Shorthand for a [`Point`].
pub(super) fn at(x: f32, y: f32) -> Point {
    Point { x, y }
}

/// What a pixel shows, by the ids of [`crate::labels`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Label {
    pub(super) category: u8,
    pub(super) color: u8,
}

/// A spot on a shape: `along` it in figure pixels, `across` it from -1 (left edge) to 1, and its position `place`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub(super) along: f32,
    pub(super) across: f32,
    pub(super) place: Point,
}

/// The two ends of a tube.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// Both round.
    Round,
    /// Round at the start, cut off flat at the end: a sleeve.
    Open,
    /// Both cut off flat.
    Flat,
}

/// What can be painted.
#[derive(Debug, Clone)]
pub(super) enum Outline {
    /// An ellipse with its semi-axes.
    Ellipse { center: Point, rx: f32, ry: f32 },
    /// A bent limb: nodes with half widths.
    Tube { nodes: Vec<(Point, f32)>, ends: Ends },
    /// A garment hanging straight: half widths by height around a centre line, `(y, center_x, half_width)`, with a gap
    /// of `(y, half_width)` in the middle, and a wavy hem with an amplitude of `wave` pixels.
    Profile { nodes: Vec<(f32, f32, f32)>, gap: Vec<(f32, f32)>, wave: f32 },
    /// A polygon.
    Polygon(Vec<Point>),
}

impl Outline {
    /// Left, top, right and bottom.
    fn bounds(&self) -> [f32; 4] {
        let corners: Vec<[f32; 4]> = match self {
            Self::Ellipse { center, rx, ry } => {
                vec![[center.x - rx, center.y - ry, center.x + rx, center.y + ry]]
            }
            Self::Tube { nodes, .. } => nodes.iter().map(|(p, r)| [p.x - r, p.y - r, p.x + r, p.y + r]).collect(),
            Self::Profile { nodes, wave, .. } => {
                // A smooth outline may swing out slightly further than its nodes.
                nodes.iter().map(|&(y, x, w)| [x - w * 1.3, y - wave, x + w * 1.3, y + wave]).collect()
            }
            Self::Polygon(points) => points.iter().map(|p| [p.x, p.y, p.x, p.y]).collect(),
        };
        corners.into_iter().fold([f32::MAX, f32::MAX, f32::MIN, f32::MIN], |a, b| {
            [a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])]
        })
    }

    /// Length of each piece of a tube.
    fn lengths(&self) -> Vec<f32> {
        let Self::Tube { nodes, .. } = self else { return Vec::new() };
        nodes.windows(2).map(|pair| (pair[1].0.x - pair[0].0.x).hypot(pair[1].0.y - pair[0].0.y).max(1e-3)).collect()
    }
}

/// A shape with what is the same at all its spots.
struct Measured<'a> {
    outline: &'a Outline,
    bounds: [f32; 4],
    lengths: Vec<f32>,
}

impl<'a> Measured<'a> {
    fn new(outline: &'a Outline) -> Self {
        Self { outline, bounds: outline.bounds(), lengths: outline.lengths() }
    }

    fn spot(&self, place: Point) -> Option<Spot> {
        match self.outline {
            Outline::Ellipse { center, rx, ry } => {
                let (x, y) = ((place.x - center.x) / rx, (place.y - center.y) / ry);
                let across = || x / (1.0 - y * y).max(1e-4).sqrt();
                (x * x + y * y <= 1.0).then(|| Spot { along: place.y - center.y + ry, across: across(), place })
            }
            Outline::Tube { nodes, ends } => tube_spot(nodes, &self.lengths, *ends, place),
            Outline::Profile { nodes, gap, wave } => profile_spot(nodes, gap, *wave, place),
            Outline::Polygon(points) => {
                let [left, top, right, _] = self.bounds;
                let across = ((place.x - left) / (right - left).max(1e-3)) * 2.0 - 1.0;
                inside(points, place).then_some(Spot { along: place.y - top, across, place })
            }
        }
    }
}

fn tube_spot(nodes: &[(Point, f32)], lengths: &[f32], ends: Ends, place: Point) -> Option<Spot> {
    let mut best: Option<(f32, Spot)> = None;
    let mut before = 0.0;
    for (index, (pair, &length)) in nodes.windows(2).zip(lengths).enumerate() {
        let ((a, ra), (b, rb)) = (pair[0], pair[1]);
        let (dx, dy) = (b.x - a.x, b.y - a.y);
        let raw = ((place.x - a.x) * dx + (place.y - a.y) * dy) / (length * length);
        let cut = (ends == Ends::Flat && index == 0 && raw < 0.0)
            || (ends != Ends::Round && index + 2 == nodes.len() && raw > 1.0);
        let share = raw.clamp(0.0, 1.0);
        let radius = ra + (rb - ra) * share;
        let (off_x, off_y) = (place.x - a.x - dx * share, place.y - a.y - dy * share);
        // Surely outside: the exact distance costs more.
        if off_x.abs().max(off_y.abs()) > radius.max(1e-3) * 1.01 {
            before += length;
            continue;
        }
        let off = off_x.hypot(off_y);
        let side = (dx * (place.y - a.y) - dy * (place.x - a.x)).signum();
        let reach = off / radius.max(1e-3);
        if !cut && reach <= 1.0 && best.as_ref().is_none_or(|(least, _)| reach < *least) {
            best = Some((reach, Spot { along: before + share * length, across: -side * reach, place }));
        }
        before += length;
    }
    best.map(|(_, spot)| spot)
}

fn profile_spot(nodes: &[(f32, f32, f32)], gap: &[(f32, f32)], wave: f32, place: Point) -> Option<Spot> {
    let (top, bottom) = (nodes.first()?.0, nodes.last()?.0);
    let hem = bottom + wave * (place.x * 0.16).sin();
    if place.y < top || place.y > hem {
        return None;
    }
    let y = place.y.min(bottom);
    let center = smooth(&nodes.iter().map(|n| (n.0, n.1)), y);
    let half = smooth(&nodes.iter().map(|n| (n.0, n.2)), y);
    let across = (place.x - center) / half.max(1e-3);
    let open = match (gap.first(), gap.last()) {
        (Some(first), Some(last)) if (first.0..=last.0).contains(&y) => linear(gap, y),
        _ => -1.0,
    };
    let in_gap = (place.x - center).abs() < open;
    (across.abs() <= 1.0 && !in_gap).then_some(Spot { along: place.y - top, across, place })
}

/// The value at `y` of the points `(y, value)`, interpolated linearly.
pub(super) fn linear(points: &[(f32, f32)], y: f32) -> f32 {
    let after = points.iter().position(|p| p.0 >= y).unwrap_or(points.len() - 1).max(1);
    let ((y0, v0), (y1, v1)) = (points[after - 1], points[after.min(points.len() - 1)]);
    v0 + (v1 - v0) * ((y - y0) / (y1 - y0).max(1e-3)).clamp(0.0, 1.0)
}

/// The value at `y` of the points `(y, value)`, interpolated by a cubic (Catmull-Rom) curve.
fn smooth(points: &(impl Iterator<Item = (f32, f32)> + Clone), y: f32) -> f32 {
    let count = points.clone().count();
    let point = |index: usize| points.clone().nth(index.min(count - 1)).unwrap_or((0.0, 0.0));
    let after = points.clone().position(|p| p.0 >= y).unwrap_or(count - 1).max(1);
    let (p0, p1, p2, p3) = (point(after.saturating_sub(2)), point(after - 1), point(after), point(after + 1));
    let share = ((y - p1.0) / (p2.0 - p1.0).max(1e-3)).clamp(0.0, 1.0);
    let slope = |a: (f32, f32), b: (f32, f32)| (b.1 - a.1) / (b.0 - a.0).max(1e-3) * (p2.0 - p1.0);
    let (m1, m2) = (slope(p0, p2), slope(p1, p3));
    let (s2, s3) = (share * share, share * share * share);
    (2.0 * s3 - 3.0 * s2 + 1.0) * p1.1 + (s3 - 2.0 * s2 + share) * m1 + (3.0 * s2 - 2.0 * s3) * p2.1 + (s3 - s2) * m2
}

fn inside(points: &[Point], p: Point) -> bool {
    let mut odd = false;
    for (index, a) in points.iter().enumerate() {
        let b = points[(index + 1) % points.len()];
        if (a.y > p.y) != (b.y > p.y) && p.x < (b.x - a.x) * (p.y - a.y) / (b.y - a.y) + a.x {
            odd = !odd;
        }
    }
    odd
}

/// Placement of the figure in the picture: scaled, broadened, rotated and mirrored around the picture's centre, then
/// shifted.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) scale: f32,
    /// Horizontal stretch; 1 leaves the width as drawn.
    pub(super) breadth: f32,
    pub(super) turn: f32,
    pub(super) mirrored: bool,
    pub(super) shift: Point,
}

impl View {
    /// The picture's own space.
    pub(super) const PLAIN: Self =
        Self { scale: 1.0, breadth: 1.0, turn: 0.0, mirrored: false, shift: Point { x: 0.0, y: 0.0 } };

    fn to_picture(self, p: Point, center: Point) -> Point {
        let flip = if self.mirrored { -1.0 } else { 1.0 };
        let y = if self.breadth == 1.0 { p.y } else { linear(&swapped(PROPORTIONS), p.y) };
        let (x, y) = ((p.x - center.x) * flip * self.scale * self.breadth, (y - center.y) * self.scale);
        let (sin, cos) = self.turn.sin_cos();
        at(x * cos - y * sin + center.x + self.shift.x, x * sin + y * cos + center.y + self.shift.y)
    }

    /// From points of the picture to those of the figure.
    fn to_figure(self, center: Point) -> impl Fn(Point) -> Point {
        let (sin, cos) = self.turn.sin_cos();
        let flip = if self.mirrored { -1.0 } else { 1.0 };
        move |p| {
            let (x, y) = (p.x - center.x - self.shift.x, p.y - center.y - self.shift.y);
            let (x, y) = (x * cos + y * sin, y * cos - x * sin);
            let y = y / self.scale + center.y;
            let y = if self.breadth == 1.0 { y } else { linear(&PROPORTIONS, y) };
            at(x / (self.scale * self.breadth) * flip + center.x, y)
        }
    }
}

/// Heights in the picture and the corresponding heights of the figure: a large head and short legs, so that glasses and
/// hats remain visible in a small picture.
const PROPORTIONS: [(f32, f32); 6] =
    [(-90.0, -80.0), (10.0, 20.0), (195.0, 140.0), (365.0, 300.0), (575.0, 575.0), (700.0, 700.0)];

fn swapped(points: [(f32, f32); 6]) -> [(f32, f32); 6] {
    points.map(|(a, b)| (b, a))
}

/// A picture being painted, `SAMPLES` times as fine as the result.
pub(super) struct Drawing {
    width_px: usize,
    height_px: usize,
    pub(super) view: View,
    rgb: Vec<Rgb>,
    labels: Vec<Label>,
}

impl Drawing {
    /// An empty picture, entirely background.
    pub(super) fn new(width_px: usize, height_px: usize) -> Self {
        let samples = width_px * height_px * SAMPLES * SAMPLES;
        let labels = vec![Label::default(); samples];
        Self { width_px, height_px, view: View::PLAIN, rgb: vec![[0.0; 3]; samples], labels }
    }

    /// Paints a shape; a label of `None` changes only the look (an eye, a button, a shadow).
    pub(super) fn paint(&mut self, shape: &Outline, label: Option<Label>, look: impl Fn(Spot, Rgb) -> Rgb) {
        let center = at(self.width_px as f32 / 2.0, self.height_px as f32 / 2.0);
        let shape = Measured::new(shape);
        let [left, top, right, bottom] = shape.bounds;
        let corners = [at(left, top), at(right, top), at(left, bottom), at(right, bottom)];
        let corners = corners.map(|corner| self.view.to_picture(corner, center));
        let (columns, rows) = (self.width_px * SAMPLES, self.height_px * SAMPLES);
        let range = |values: [f32; 4], limit: usize| {
            let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(a, b), &v| (a.min(v), b.max(v)));
            let limit = limit as f32;
            let scale = SAMPLES as f32;
            (low * scale).clamp(0.0, limit) as usize..((high * scale).ceil() + 1.0).clamp(0.0, limit) as usize
        };
        let (xs, ys) = (range(corners.map(|c| c.x), columns), range(corners.map(|c| c.y), rows));
        let to_figure = self.view.to_figure(center);
        for row in ys {
            for column in xs.clone() {
                let picture = at((column as f32 + 0.5) / SAMPLES as f32, (row as f32 + 0.5) / SAMPLES as f32);
                if let Some(spot) = shape.spot(to_figure(picture)) {
                    let index = row * columns + column;
                    self.rgb[index] = look(spot, self.rgb[index]);
                    if let Some(label) = label {
                        self.labels[index] = label;
                    }
                }
            }
        }
    }

    /// Draws a line that changes only the look.
    pub(super) fn line(&mut self, from: Point, to: Point, half_width: f32, rgb: Rgb) {
        let nodes = vec![(from, half_width), (to, half_width)];
        self.paint(&Outline::Tube { nodes, ends: Ends::Round }, None, |_, _| rgb);
    }

    /// Draws a dot that changes only the look.
    pub(super) fn dot(&mut self, center: Point, radius: f32, rgb: Rgb) {
        self.paint(&Outline::Ellipse { center, rx: radius, ry: radius }, None, |_, _| rgb);
    }

    /// The picture at its own size, `[height, width, 3]`; `finish` makes a final adjustment to each pixel.
    pub(super) fn picture(&self, finish: impl Fn(usize, usize, Rgb) -> Rgb) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.width_px * self.height_px * 3);
        for y in 0..self.height_px {
            for x in 0..self.width_px {
                let samples = self.samples(x, y).map(|index| self.rgb[index]);
                let sum = samples.fold([0.0; 3], |sum: Rgb, rgb| [sum[0] + rgb[0], sum[1] + rgb[1], sum[2] + rgb[2]]);
                let rgb = finish(x, y, sum.map(|value| value / (SAMPLES * SAMPLES) as f32));
                bytes.extend(rgb.map(|value| value.round().clamp(0.0, 255.0) as u8));
            }
        }
        bytes
    }

    /// The label of each pixel, `[height, width]`: the most frequent one of its samples, the lowest on a tie.
    pub(super) fn label_map(&self) -> Vec<Label> {
        let mut map = Vec::with_capacity(self.width_px * self.height_px);
        for y in 0..self.height_px {
            for x in 0..self.width_px {
                let mut found = [Label::default(); SAMPLES * SAMPLES];
                for (label, index) in found.iter_mut().zip(self.samples(x, y)) {
                    *label = self.labels[index];
                }
                found.sort_unstable();
                let count = |label: Label| found.iter().filter(|&&other| other == label).count();
                // Nearly always they are all the same.
                let most = if found[0] == found[found.len() - 1] {
                    found.first()
                } else {
                    found.iter().rev().max_by_key(|&&label| count(label))
                };
                map.push(most.copied().unwrap_or_default());
            }
        }
        map
    }

    fn samples(&self, x: usize, y: usize) -> impl Iterator<Item = usize> + use<> {
        let columns = self.width_px * SAMPLES;
        (0..SAMPLES * SAMPLES).map(move |s| (y * SAMPLES + s / SAMPLES) * columns + x * SAMPLES + s % SAMPLES)
    }
}
