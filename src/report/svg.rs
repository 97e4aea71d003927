//! Charts as SVG text. Colours are classes of the page's style sheet, so that charts follow the page's dark mode.
//!
//! By hand: the SVG backend of `plotters`, which draws `learning_curve.png`, writes colours instead of classes, and no
//! tooltips.

use std::fmt::Write;

const FONT_PX: f64 = 12.0;
/// Margins of a chart: on the left for the numbers of the axis, and below.
const LEFT_PX: f64 = 52.0;
const BELOW_PX: f64 = 40.0;
const ABOVE_PX: f64 = 14.0;

/// A line of a line chart: its name, and its values at x = 1, 2, ...
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) values: Vec<f64>,
}

/// A chart of lines over the epochs, with axes and a legend; the style sheet defines the classes `line-0`, `line-1`,
/// ...
pub(super) fn line_chart(title: &str, lines: &[Line], zero_to_one: bool) -> String {
    let (width, height) = (520.0, 260.0);
    let (plot_width, plot_height) = (width - LEFT_PX - 16.0, height - ABOVE_PX - BELOW_PX - 22.0);
    let count = lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
    let highest = lines.iter().flat_map(|line| &line.values).copied().filter(|it| it.is_finite()).fold(0.0, f64::max);
    let top = if zero_to_one { 1.0 } else { round_up(highest) };
    let x = |index: usize| LEFT_PX + plot_width * if count > 1 { index as f64 / (count - 1) as f64 } else { 0.5 };
    let y = |value: f64| ABOVE_PX + plot_height * (1.0 - value / top);
    let mut svg = open(width, height, title);
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let at = y(value);
        let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT_PX} {at:.1}h{plot_width:.1}\"/>");
        text(&mut svg, LEFT_PX - 8.0, at + 4.0, "end", "axis", &tick(value));
    }
    let epochs: std::collections::BTreeSet<usize> = (0..5).map(|step| step * count.saturating_sub(1) / 4).collect();
    for index in epochs.into_iter().filter(|_| count > 0) {
        text(&mut svg, x(index), ABOVE_PX + plot_height + 18.0, "middle", "axis", &(index + 1).to_string());
    }
    for (number, line) in lines.iter().enumerate() {
        let points = line.values.iter().enumerate().filter(|(_, value)| value.is_finite());
        let points: Vec<_> = points.map(|(index, &value)| (x(index), y(value.min(top)))).collect();
        let path = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ");
        let _ = write!(svg, "<polyline class=\"line line-{number}\" points=\"{path}\"/>");
        for ((x, y), value) in points.iter().zip(&line.values).filter(|_| count <= 60) {
            let _ = write!(svg, "<circle class=\"dot-{number}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"><title>");
            let _ = write!(svg, "{} {value:.4}</title></circle>", escaped(line.name));
        }
        let (left, low) = (LEFT_PX + 150.0 * number as f64, height - 8.0);
        let _ = write!(svg, "<path class=\"line line-{number}\" d=\"M{left} {:.1}h18\"/>", low - 4.0);
        text(&mut svg, left + 24.0, low, "start", "axis", line.name);
    }
    svg + "</svg>"
}

/// A cell of a heat map.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    /// Intensity of the colour, 0 to 1.
    pub(super) strength: f64,
    pub(super) text: String,
    /// Tooltip.
    pub(super) title: String,
    /// What a click searches the gallery for; empty if a click does nothing.
    pub(super) search: String,
}

/// A heat map: rows of cells with names on the left and above.
pub(super) fn heat_map(
    title: &str,
    rows: &[&str],
    columns: &[&str],
    cells: &[Vec<Cell>],
    cell_px: (f64, f64),
) -> String {
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
pub(super) struct Bar {
    pub(super) name: String,
    /// CSS colour.
    pub(super) color: String,
    /// 0 to 1; `None` if there is nothing to measure.
    pub(super) length: Option<f64>,
    pub(super) text: String,
}

/// A chart of horizontal bars with a name on the left and a text on the right.
pub(super) fn bar_chart(title: &str, bars: &[Bar]) -> String {
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

fn escaped(text: &str) -> String {
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
    fn a_loss_that_is_not_finite_leaves_a_gap() {
        let line = Line { name: "loss", values: vec![1.0, f64::NAN, 0.5] };
        assert!(!line_chart("loss", &[line], false).contains("NaN,"));
    }
}
