//! Charts: lines by epoch, bars and heat maps, as SVG text for the report's page, and lines as pixels too.
//!
//! Colours in SVG are classes of the page's style sheet, so that charts follow the page's dark mode. By hand: with
//! `plotters` (0.3.7) there are no classes, no tooltips and no cells to click; here it only draws lines and text as
//! pixels.

use std::fmt::Write;

use plotters::prelude::{Circle, Color, PathElement, RGBColor, WHITE};
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::{Error, Result};
use crate::photo::Photo;
use crate::picture;

const FONT_PX: f64 = 12.0;
/// Margins of a line chart: on the left for the numbers of the axis, below for those of the epochs, and a row of the
/// legend.
const LEFT_PX: f64 = 52.0;
const RIGHT_PX: f64 = 16.0;
const ABOVE_PX: f64 = 14.0;
const BELOW_PX: f64 = 40.0;
const LEGEND_ROW_PX: f64 = 22.0;
/// Number of names in a row of the legend, if there are more than three.
const LEGEND_COLUMNS: usize = 2;
/// Size of a line chart on the page, and as pixels.
const SVG_PX: (f64, f64) = (520.0, 260.0);
const PIXELS: (u32, u32) = (600, 400);
/// Height of the title above the pixels, and sizes of the text there.
const TITLE_PX: u32 = 44;
const TITLE_FONT_PX: f64 = 22.0;
const PIXEL_FONT_PX: f64 = 16.0;
/// Number of epochs up to which each value gets a dot.
const MAX_DOTS: usize = 60;
const INK: RGBColor = RGBColor(40, 44, 52);
const PALE: RGBColor = RGBColor(225, 228, 232);
/// As in the page's style sheet.
const LINES: [RGBColor; 4] =
    [RGBColor(0x2a, 0x5d, 0xb0), RGBColor(0xc2, 0x57, 0x0c), RGBColor(0x1b, 0x7a, 0x43), RGBColor(0x85, 0x3c, 0x9c)];

/// A line of a line chart: its name, and its values at epochs 1, 2, ...; at one that is not finite there is a gap.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its name in the legend.
    pub name: &'static str,
    /// Its values by epoch.
    pub values: Vec<f64>,
}

/// A chart of up to four lines over the epochs, with axes and a legend.
#[derive(Debug, Clone)]
pub struct LineChart {
    /// Its title.
    pub title: &'static str,
    /// The top of the value axis; `None` for a round figure above all values.
    pub top: Option<f64>,
    /// The lines.
    pub lines: Vec<Line>,
}

/// What a line chart consists of. Positions are in pixels; a line's number selects its colour.
enum Mark {
    Grid {
        from: (f64, f64),
        width: f64,
    },
    Line {
        number: usize,
        points: Vec<(f64, f64)>,
    },
    Dot {
        number: usize,
        center: (f64, f64),
        title: String,
    },
    /// On its baseline, `anchor`ed as in SVG.
    Text {
        at: (f64, f64),
        anchor: &'static str,
        content: String,
    },
}

impl LineChart {
    /// As SVG text; the style sheet defines the classes `line-0`, `dot-0`, `line-1`, ...
    #[must_use]
    pub fn svg(&self) -> String {
        let mut svg = open(SVG_PX.0, SVG_PX.1, self.title);
        for mark in self.marks(SVG_PX) {
            let _ = match mark {
                Mark::Grid { from: (x, y), width } => {
                    write!(svg, "<path class=\"grid\" d=\"M{x:.1} {y:.1}h{width:.1}\"/>")
                }
                Mark::Line { number, points } => {
                    let path = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ");
                    write!(svg, "<polyline class=\"line line-{number}\" points=\"{path}\"/>")
                }
                Mark::Dot { number, center: (x, y), title } => write!(
                    svg,
                    "<circle class=\"dot-{number}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"><title>{}</title></circle>",
                    escaped(&title)
                ),
                Mark::Text { at: (x, y), anchor, content } => {
                    text(&mut svg, x, y, anchor, "axis", &content);
                    Ok(())
                }
            };
        }
        svg + "</svg>"
    }

    fn marks(&self, (width, height): (f64, f64)) -> Vec<Mark> {
        let columns = if self.lines.len() > 3 { LEGEND_COLUMNS } else { 3 };
        let legend = LEGEND_ROW_PX * self.lines.len().div_ceil(columns) as f64;
        let (plot_width, plot_height) = (width - LEFT_PX - RIGHT_PX, height - ABOVE_PX - BELOW_PX - legend);
        let count = self.lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
        let finite = self.lines.iter().flat_map(|line| &line.values).copied().filter(|it| it.is_finite());
        let top = self.top.unwrap_or_else(|| round_up(finite.fold(0.0, f64::max)));
        let x = |index: usize| LEFT_PX + plot_width * if count > 1 { index as f64 / (count - 1) as f64 } else { 0.5 };
        let y = |value: f64| ABOVE_PX + plot_height * (1.0 - value.min(top) / top);
        let text = |at, anchor, content| Mark::Text { at, anchor, content };
        let mut marks = Vec::new();
        for step in 0..=4 {
            let value = top * f64::from(step) / 4.0;
            marks.push(Mark::Grid { from: (LEFT_PX, y(value)), width: plot_width });
            marks.push(text((LEFT_PX - 8.0, y(value) + 4.0), "end", tick(value)));
        }
        let epochs: std::collections::BTreeSet<usize> = (0..5).map(|step| step * count.saturating_sub(1) / 4).collect();
        for index in epochs.into_iter().filter(|_| count > 0) {
            marks.push(text((x(index), ABOVE_PX + plot_height + 18.0), "middle", (index + 1).to_string()));
        }
        for (number, line) in self.lines.iter().enumerate() {
            let points: Vec<_> = line.values.iter().enumerate().map(|(index, &value)| (index, value)).collect();
            for part in points.split(|(_, value)| !value.is_finite()).filter(|part| !part.is_empty()) {
                let points = part.iter().map(|&(index, value)| (x(index), y(value))).collect();
                marks.push(Mark::Line { number, points });
                let dot = |&(index, value): &(usize, f64)| {
                    let title = format!("{} {value:.4}", line.name);
                    Mark::Dot { number, center: (x(index), y(value)), title }
                };
                marks.extend(part.iter().filter(|_| count <= MAX_DOTS).map(dot));
            }
            let (column, row) = (number % columns, number / columns);
            let left = LEFT_PX + plot_width / columns as f64 * column as f64;
            let low = height - legend + LEGEND_ROW_PX * (row + 1) as f64 - 8.0;
            marks.push(Mark::Line { number, points: vec![(left, low - 4.0), (left + 18.0, low - 4.0)] });
            marks.push(text((left + 24.0, low), "start", line.name.to_owned()));
        }
        marks
    }
}

/// Draws line charts side by side, each 600 x 444 pixels with its title.
///
/// # Errors
/// [`Error::Input`] if there is no epoch or drawing fails.
pub fn side_by_side(charts: &[LineChart]) -> Result<Photo> {
    if charts.iter().flat_map(|chart| &chart.lines).all(|line| line.values.is_empty()) {
        return Err(Error::input("history.parquet", "contains no epochs; train the model for at least one"));
    }
    picture::draw(PIXELS.0 * charts.len() as u32, PIXELS.1 + TITLE_PX, |area| {
        area.fill(&WHITE)?;
        for (number, chart) in charts.iter().enumerate() {
            let left = f64::from(PIXELS.0) * number as f64;
            let place = |(x, y): (f64, f64)| ((left + x).round() as i32, (f64::from(TITLE_PX) + y).round() as i32);
            let text = |content: &str, (x, y): (f64, f64), anchor: &str, size: f64| {
                let side = match anchor {
                    "end" => HPos::Right,
                    "middle" => HPos::Center,
                    _ => HPos::Left,
                };
                // `plotters` puts the middle of a text a tenth of its size above its baseline.
                let style = picture::text(size).color(&INK).pos(Pos::new(side, VPos::Center));
                area.draw_text(content, &style, place((x, y - size * 0.1)))
            };
            text(chart.title, (f64::from(PIXELS.0) / 2.0, -12.0), "middle", TITLE_FONT_PX)?;
            for mark in chart.marks((f64::from(PIXELS.0), f64::from(PIXELS.1))) {
                match mark {
                    Mark::Grid { from: (x, y), width } => {
                        area.draw(&PathElement::new(vec![place((x, y)), place((x + width, y))], PALE))?;
                    }
                    Mark::Line { number, points } => {
                        let points: Vec<_> = points.into_iter().map(place).collect();
                        area.draw(&PathElement::new(points, LINES[number % LINES.len()].stroke_width(2)))?;
                    }
                    Mark::Dot { number, center, .. } => {
                        area.draw(&Circle::new(place(center), 3, LINES[number % LINES.len()].filled()))?;
                    }
                    Mark::Text { at, anchor, content } => text(&content, at, anchor, PIXEL_FONT_PX)?,
                }
            }
        }
        Ok(())
    })
}

/// A cell of a heat map.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// Intensity of the colour, 0 to 1.
    pub strength: f64,
    /// Written in it.
    pub text: String,
    /// Tooltip.
    pub title: String,
    /// What a click searches the gallery for; empty if a click does nothing.
    pub search: String,
}

/// A heat map: rows of cells with names on the left and above.
#[must_use]
pub fn heat_map(title: &str, rows: &[&str], columns: &[&str], cells: &[Vec<Cell>], cell_px: (f64, f64)) -> String {
    let (cell_width, cell_height) = cell_px;
    let longest = |names: &[&str]| names.iter().map(|name| name.len()).max().unwrap_or(0) as f64;
    let (left, above) = (longest(rows) * 7.0 + 12.0, longest(columns) * 6.6 + 12.0);
    let (width, height) =
        (left + cell_width * columns.len() as f64 + 2.0, above + cell_height * rows.len() as f64 + 2.0);
    let mut svg = open(width, height, title);
    for (index, name) in columns.iter().enumerate() {
        let (x, y) = (left + cell_width * (index as f64 + 0.5) + 4.0, above - 6.0);
        let _ = write!(
            svg,
            "<text class=\"axis\" transform=\"translate({x:.1} {y:.1}) rotate(-90)\">{}</text>",
            escaped(name)
        );
    }
    for (index, (name, row)) in rows.iter().zip(cells).enumerate() {
        let y = above + cell_height * index as f64;
        text(&mut svg, left - 8.0, y + cell_height / 2.0 + 4.0, "end", "axis", name);
        for (column, cell) in row.iter().enumerate() {
            let x = left + cell_width * column as f64;
            let search = if cell.search.is_empty() {
                String::new()
            } else {
                format!(" data-search=\"{}\"", escaped(&cell.search))
            };
            let _ = write!(svg, "<g{search}><title>{}</title>", escaped(&cell.title));
            let (w, h) = (cell_width - 1.0, cell_height - 1.0);
            let _ =
                write!(svg, "<rect class=\"ground\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\"/>");
            if cell.strength > 0.0 {
                let _ =
                    write!(svg, "<rect class=\"heat\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\"");
                let _ = write!(svg, " fill-opacity=\"{:.3}\"/>", cell.strength);
            }
            if !cell.text.is_empty() {
                let class = if cell.strength > 0.55 { "figure on-heat" } else { "figure" };
                text(&mut svg, x + cell_width / 2.0, y + cell_height / 2.0 + 3.5, "middle", class, &cell.text);
            }
            svg.push_str("</g>");
        }
    }
    svg + "</svg>"
}

/// A bar of a bar chart.
#[derive(Debug, Clone)]
pub struct Bar {
    /// On its left.
    pub name: String,
    /// CSS colour.
    pub color: String,
    /// 0 to 1; `None` if there is nothing to measure.
    pub length: Option<f64>,
    /// On its right.
    pub text: String,
}

/// A chart of horizontal bars with a name on the left and a text on the right.
#[must_use]
pub fn bar_chart(title: &str, bars: &[Bar]) -> String {
    let (width, row, left, right) = (480.0, 24.0, 84.0, 64.0);
    let mut svg = open(width, row * bars.len() as f64 + 2.0, title);
    for (index, bar) in bars.iter().enumerate() {
        let y = row * index as f64;
        text(&mut svg, left - 8.0, y + 16.0, "end", "axis strong", &bar.name);
        let Some(length) = bar.length else {
            text(&mut svg, left, y + 16.0, "start", "axis absent", &bar.text);
            continue;
        };
        let whole = width - left - right;
        let _ = write!(
            svg,
            "<rect class=\"ground\" x=\"{left}\" y=\"{:.1}\" width=\"{whole}\" height=\"12\" rx=\"2\"/>",
            y + 6.0
        );
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{left}\" y=\"{:.1}\" width=\"{:.1}\"",
            y + 6.0,
            whole * length.clamp(0.0, 1.0)
        );
        let _ = write!(svg, " height=\"12\" rx=\"2\" fill=\"{}\"/>", bar.color);
        text(&mut svg, width - 2.0, y + 16.0, "end", "axis strong", &bar.text);
    }
    svg + "</svg>"
}

fn open(width: f64, height: f64, title: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" role=\"img\" aria-label=\"{}\" \
         font-size=\"{FONT_PX}\">",
        escaped(title)
    )
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, class: &str, content: &str) {
    let _ = write!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">");
    let _ = write!(svg, "{}</text>", escaped(content));
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Rounds up to 1, 2, 2.5, 4, 5 or 10 times a power of ten, so that an axis ending there has four round ticks.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 2.5, 4.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|&it| it >= value).unwrap_or(10.0 * power)
}

fn tick(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(values: &[f64]) -> LineChart {
        LineChart { title: "loss", top: None, lines: vec![Line { name: "train", values: values.to_vec() }] }
    }

    #[test]
    fn axes_end_at_round_figures() {
        assert_eq!([0.037, 0.3, 1.0, 2.3, 0.0].map(round_up), [0.04, 0.4, 1.0, 2.5, 1.0]);
        assert_eq!([0.0, 0.25, 0.1, 10.0].map(tick), ["0", "0.25", "0.1", "10"]);
    }

    #[test]
    fn names_cannot_break_out() {
        let bar = Bar { name: "<b>".to_owned(), color: "#fff".to_owned(), length: Some(0.5), text: "\"".to_owned() };
        let svg = bar_chart("a & b", &[bar]);
        assert!(svg.contains("&lt;b&gt;") && svg.contains("a &amp; b") && !svg.contains("<b>"), "{svg}");
    }

    #[test]
    fn a_value_that_is_not_finite_leaves_a_gap() -> Result<()> {
        let gap = losses(&[1.0, 0.75, f64::NAN, 0.5, f64::INFINITY]);
        let svg = gap.svg();
        assert_eq!(svg.matches("<polyline").count(), 3, "two parts and the legend");
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("<title>train 0.5000</title>") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_ne!(side_by_side(&[gap])?, side_by_side(&[losses(&[1.0, 0.75, 0.6, 0.5, 0.4])])?);
        side_by_side(&[losses(&[f64::NAN])]).map(drop)
    }

    #[test]
    fn a_chart_is_drawn_for_one_epoch_and_refused_for_none() -> Result<()> {
        let one = side_by_side(&[losses(&[0.5]), losses(&[0.5])])?;
        assert_eq!(one.size(), (1200, 444));
        let blue = |pixel: &[u8]| pixel == [0x2a, 0x5d, 0xb0];
        let [left, right] = [0..600, 600..1200].map(|columns| {
            let drawn =
                one.rgb.chunks_exact(3).enumerate().filter(|(at, pixel)| columns.contains(&(at % 1200)) && blue(pixel));
            drawn.count()
        });
        assert!(left > 20 && left == right, "the dot and the legend of both: {left}, {right}");
        assert!(side_by_side(&[losses(&[])]).is_err());
        Ok(())
    }

    #[test]
    fn lines_lie_within_their_chart_and_names_beside_each_other() {
        let line = |name| Line { name, values: vec![0.0, 2.0, 1.0] };
        let chart = LineChart { title: "", top: Some(1.0), lines: ["a", "b", "c", "d"].map(line).to_vec() };
        let mut names = Vec::new();
        for mark in chart.marks(SVG_PX) {
            let inside = |&(x, y): &(f64, f64)| (0.0..=SVG_PX.0).contains(&x) && (0.0..=SVG_PX.1).contains(&y);
            match mark {
                Mark::Line { points, .. } => assert!(points.iter().all(inside), "{points:?}"),
                Mark::Text { at, anchor: "start", .. } => names.push(at),
                _ => {}
            }
        }
        let [a, b, c, d] = names[..] else { panic!("{names:?}") };
        assert!(a.0 == c.0 && b.0 == d.0 && a.1 == b.1 && c.1 == d.1 && a.0 < b.0 && a.1 < c.1 && c.1 <= SVG_PX.1);
    }
}
