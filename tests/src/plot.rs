//! Plots as SVG: panels over one time axis, readable on light and dark pages.

use std::fmt::Write as _;

/// One line of a panel.
pub struct Series<'a> {
    pub name: &'a str,
    pub colour: &'a str,
    /// Minutes, and the value there.
    pub points: Vec<(f64, f64)>,
}

pub struct Panel<'a> {
    pub title: &'a str,
    pub unit: &'a str,
    pub highest: f64,
    pub series: Vec<Series<'a>>,
}

/// A moment or a span worth a word.
pub struct Mark {
    pub from: f64,
    pub until: f64,
    pub text: String,
}

pub const OURS: &str = "#1f9e77";
pub const PLAIN: &str = "#d9603b";
/// Text and axes: dark enough for white, light enough for black.
const INK: &str = "#808890";

const WIDTH: f64 = 860.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 66.0;
const PANEL: f64 = 150.0;
const GAP: f64 = 62.0;

/// Draws panels under a title. `minutes` is the length of the time axis, which begins at 0.
pub fn draw(title: &str, minutes: f64, panels: &[Panel<'_>], marks: &[Mark]) -> String {
    let count = panels.iter().map(|_| 1.0).sum::<f64>();
    let height = TOP + count * (PANEL + GAP) - 8.0;
    let x = |minute: f64| LEFT + (WIDTH - LEFT - RIGHT) * (minute / minutes).clamp(0.0, 1.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"{INK}\">\n\
         <title>{title}</title>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"14\" font-weight=\"600\">{title}</text>\n"
    );
    for (row, panel) in (0_u8..).zip(panels) {
        let top = TOP + f64::from(row) * (PANEL + GAP);
        draw_panel(&mut svg, panel, top, minutes, &x, marks);
        if row == 0 {
            for mark in marks.iter().filter(|mark| !mark.text.is_empty()) {
                let place = x(mark.from) + 4.0;
                let _ = writeln!(
                    svg,
                    "<text x=\"{place:.1}\" y=\"{:.1}\" font-size=\"11\">{}</text>",
                    top + 12.0,
                    mark.text
                );
            }
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_panel(
    svg: &mut String,
    panel: &Panel<'_>,
    top: f64,
    minutes: f64,
    x: &dyn Fn(f64) -> f64,
    marks: &[Mark],
) {
    let bottom = top + PANEL;
    let y = |value: f64| bottom - PANEL * (value / panel.highest).clamp(0.0, 1.0);
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"600\">{}</text>",
        top - 10.0,
        panel.title
    );
    for mark in marks {
        let (from, until) = (x(mark.from), x(mark.until));
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{PANEL}\" fill=\"{INK}\" fill-opacity=\"0.14\"/>",
            (until - from).max(1.0)
        );
    }
    for step in 0..=4_u8 {
        let value = panel.highest * f64::from(step) / 4.0;
        let at = y(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"{INK}\" stroke-opacity=\"0.3\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            short(value),
            panel.unit
        );
    }
    let step = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 360.0, 720.0]
        .into_iter()
        .find(|step| minutes / step <= 12.0)
        .unwrap_or(1_440.0);
    let mut tick = 0.0;
    while tick <= minutes {
        let label = if minutes >= 120.0 {
            let rest = tick % 60.0;
            if rest == 0.0 {
                format!("{} h", tick / 60.0)
            } else {
                format!("{}:{rest:02}", (tick / 60.0).floor())
            }
        } else {
            format!("{tick} min")
        };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            x(tick),
            bottom + 16.0
        );
        tick += step;
    }
    let mut legend = WIDTH - RIGHT;
    for series in panel.series.iter().rev() {
        let path: Vec<_> =
            series.points.iter().map(|&(at, value)| format!("{:.1},{:.1}", x(at), y(value))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" stroke-linejoin=\"round\"/>",
            path.join(" "),
            series.colour
        );
        let _ = writeln!(
            svg,
            "<text x=\"{legend:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{}\" font-weight=\"600\">{}</text>",
            top - 10.0,
            series.colour,
            series.name
        );
        legend -= 16.0 + 7.5 * series.name.chars().map(|_| 1.0).sum::<f64>();
    }
}

fn short(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.2}").trim_end_matches('0').into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lands_where_its_axis_says() {
        let series = Series { name: "with", colour: OURS, points: vec![(0.0, 0.0), (10.0, 100.0)] };
        let panel = Panel { title: "answers", unit: "%", highest: 100.0, series: vec![series] };
        let svg = draw("a drill", 10.0, &[panel], &[]);
        assert!(svg.contains("points=\"64.0,216.0 836.0,66.0\""), "{svg}");
        assert!(svg.contains(">100%</text>") && svg.contains(">10 min</text>"), "{svg}");
    }
}
