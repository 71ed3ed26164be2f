//! Draws a series, in a terminal or as SVG. Pure text in, text out.

use std::fmt::Write as _;

use jiff::{Timestamp, tz::TimeZone};

use crate::history::Point;

/// What to draw.
#[derive(Debug, Clone, Copy)]
pub struct Plot<'a> {
    pub title: &'a str,
    pub unit: &'a str,
    pub points: &'a [Point],
    /// Seconds since 1970.
    pub from: i64,
    pub to: i64,
}

/// The range of values that the drawing covers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    low: f64,
    high: f64,
}

impl Plot<'_> {
    fn scale(&self) -> Scale {
        let low = self.points.iter().map(|point| point.min).fold(f32::INFINITY, f32::min);
        let high = self.points.iter().map(|point| point.max).fold(f32::NEG_INFINITY, f32::max);
        let (mut low, mut high) = (f64::from(low), f64::from(high));
        // A value that hardly moves is drawn as a flat line, not as noise over the whole height.
        let least = (high.abs() * 0.02).max(f64::MIN_POSITIVE);
        if high - low < least {
            (low, high) = (low - least / 2.0, high + least / 2.0);
        }
        if low > 0.0 && low < high / 2.0 {
            low = 0.0;
        }
        Scale { low, high }
    }

    /// The drawing for a terminal of this many columns, in braille: each character is two points
    /// wide and four high. A column shows everything from the least to the greatest value.
    pub fn braille(&self, columns: usize, rows: usize, zone: &TimeZone) -> String {
        if self.points.is_empty() {
            return format!("{}: no values in this time\n", self.title);
        }
        let scale = self.scale();
        let marks =
            [scale.high, f64::midpoint(scale.low, scale.high), scale.low].map(|at| value(at, self.unit));
        let margin = marks.iter().map(|mark| mark.chars().count()).max().unwrap_or(0);
        let width = columns.saturating_sub(margin + 2).max(8);
        let mut canvas = vec![vec![0_u8; width]; rows];
        let (dots_wide, dots_high) = (width * 2, rows * 4);
        for point in self.points {
            let begin = dot(point.at - self.from, self.to - self.from, dots_wide);
            let end = dot(point.at + point.step - 1 - self.from, self.to - self.from, dots_wide);
            let low = dot_up(f64::from(point.min), scale, dots_high);
            let high = dot_up(f64::from(point.max), scale, dots_high);
            for x in begin..=end {
                for y in low..=high {
                    let row = rows - 1 - y / 4;
                    if let Some(cell) = canvas.get_mut(row).and_then(|row| row.get_mut(x / 2)) {
                        *cell |= BITS[3 - y % 4][x % 2];
                    }
                }
            }
        }
        let mut text = format!("{}\n", self.title);
        for (at, row) in canvas.iter().enumerate() {
            let mark = match at {
                0 => &marks[0],
                at if at == rows / 2 => &marks[1],
                at if at == rows - 1 => &marks[2],
                _ => "",
            };
            let line: String =
                row.iter().map(|&bits| char::from_u32(0x2800 + u32::from(bits)).unwrap_or(' ')).collect();
            let _ = writeln!(text, "{mark:>margin$} ┤{line}");
        }
        let (from, to) =
            (clock(self.from, self.to - self.from, zone), clock(self.to, self.to - self.from, zone));
        let gap = width.saturating_sub(from.chars().count() + to.chars().count()).max(1);
        let _ = writeln!(text, "{:margin$}  {from}{:gap$}{to}", "", "");
        text
    }

    /// The drawing as SVG: a line for the average, and behind it everything from the least to the
    /// greatest value.
    pub fn svg(&self, zone: &TimeZone) -> String {
        let scale = if self.points.is_empty() { Scale { low: 0.0, high: 1.0 } } else { self.scale() };
        let x = |at: i64| LEFT + part(at - self.from, self.to - self.from) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| {
            TOP + (1.0 - (value - scale.low) / (scale.high - scale.low)) * (HEIGHT - TOP - BOTTOM)
        };
        let mut band = String::new();
        let mut line = String::new();
        let mut before: Option<&Point> = None;
        for point in self.points {
            let middle = point.at + point.step / 2;
            let (left, right) = (x(point.at), x(point.at + point.step));
            let (top, bottom) = (y(f64::from(point.max)), y(f64::from(point.min)));
            let _ = write!(
                band,
                "M{left:.1} {top:.1}H{right:.1}V{:.1}H{left:.1}Z",
                if bottom - top < 0.5 { top + 0.5 } else { bottom }
            );
            let joined = before.is_some_and(|before| point.at - before.at <= 2 * point.step);
            let letter = if joined { 'L' } else { 'M' };
            let _ = write!(line, "{letter}{:.1} {:.1}", x(middle), y(f64::from(point.avg)));
            before = Some(point);
        }
        let mut marks = String::new();
        for (at, anchor) in
            [(scale.low, "auto"), (f64::midpoint(scale.low, scale.high), "middle"), (scale.high, "hanging")]
        {
            let _ = write!(
                marks,
                r#"<path class="grid" d="M{LEFT} {0:.1}H{1}"/><text x="{2}" y="{0:.1}" text-anchor="end" dominant-baseline="{anchor}">{3}</text>"#,
                y(at),
                WIDTH - RIGHT,
                LEFT - 6.0,
                escape(&value(at, self.unit))
            );
        }
        for (at, anchor) in [(self.from, "start"), (self.to, "end")] {
            let _ = write!(
                marks,
                r#"<text x="{:.1}" y="{}" text-anchor="{anchor}">{}</text>"#,
                x(at),
                HEIGHT - 8.0,
                escape(&clock(at, self.to - self.from, zone))
            );
        }
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{0}">
<style>svg{{background:#fff;font:12px sans-serif;fill:#444}}.grid{{stroke:#ddd}}.band{{fill:#9ec5e8}}.line{{fill:none;stroke:#1c5d99;stroke-width:1.5}}
@media(prefers-color-scheme:dark){{svg{{background:#1b1b1b;fill:#bbb}}.grid{{stroke:#333}}.band{{fill:#24486b}}.line{{stroke:#8cc1f0}}}}</style>
<text x="{LEFT}" y="16">{0}</text>
{marks}
<path class="band" d="{band}"/>
<path class="line" d="{line}"/>
</svg>
"#,
            escape(self.title)
        )
    }
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 28.0;

/// The bits of a braille character, from the top row to the bottom row.
const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

#[expect(clippy::cast_precision_loss, reason = "a place in a drawing")]
fn part(at: i64, of: i64) -> f64 {
    (at as f64 / of.max(1) as f64).clamp(0.0, 1.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a place in a drawing"
)]
fn dot(at: i64, of: i64, dots: usize) -> usize {
    ((part(at, of) * dots as f64) as usize).min(dots.saturating_sub(1))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a place in a drawing"
)]
fn dot_up(value: f64, scale: Scale, dots: usize) -> usize {
    let part = ((value - scale.low) / (scale.high - scale.low)).clamp(0.0, 1.0);
    (part * dots.saturating_sub(1) as f64).round() as usize
}

/// A value with its unit, in about four digits.
pub fn value(value: f64, unit: &str) -> String {
    match unit {
        "B" | "Bps" => {
            scaled(value, 1_024.0, &["", "Ki", "Mi", "Gi", "Ti", "Pi"], if unit == "B" { "B" } else { "B/s" })
        }
        "%" => format!("{}%", short(value)),
        "s" if value.abs() < 1e-3 && value != 0.0 => format!("{} µs", short(value * 1e6)),
        "s" if value.abs() < 1.0 && value != 0.0 => format!("{} ms", short(value * 1e3)),
        "" | "c" => scaled(value, 1_000.0, &["", "k", "M", "G", "T"], ""),
        unit => format!("{} {unit}", short(value)),
    }
}

fn scaled(mut value: f64, step: f64, prefixes: &[&str], unit: &str) -> String {
    let mut at = 0;
    while value.abs() >= step && at + 1 < prefixes.len() {
        value /= step;
        at += 1;
    }
    let prefix = prefixes.get(at).copied().unwrap_or_default();
    let space = if prefix.is_empty() && unit.is_empty() { "" } else { " " };
    format!("{}{space}{prefix}{unit}", short(value))
}

fn short(value: f64) -> String {
    let text = match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A time on the axis: with the date if the drawing covers more than a day.
pub fn clock(unix: i64, span: i64, zone: &TimeZone) -> String {
    let Ok(at) = Timestamp::from_second(unix) else { return String::new() };
    let format = if span > 90 * 86_400 {
        "%Y-%m-%d"
    } else if span > 86_400 {
        "%a %d %b %H:%M"
    } else {
        "%H:%M"
    };
    at.to_zoned(zone.clone()).strftime(format).to_string()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Vec<Point> {
        (0..60_u8)
            .map(|minute| {
                let avg = f32::from(minute);
                Point { at: i64::from(minute) * 60, step: 60, min: avg, avg, max: avg + 1.0 }
            })
            .collect()
    }

    fn plot<'a>(title: &'a str, points: &'a [Point]) -> Plot<'a> {
        Plot { title, unit: "%", points, from: 0, to: 3_600 }
    }

    #[test]
    fn a_ramp_rises_from_the_lower_left_to_the_upper_right() {
        let points = ramp();
        let text = plot("disk /", &points).braille(22, 4, &TimeZone::UTC);
        let expected = "\
disk /
60% ┤⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⢀⣠⡤⠖⠋
    ┤⠀⠀⠀⠀⠀⠀⠀⠀⣀⣤⠶⠚⠉⠁⠀⠀⠀
30% ┤⠀⠀⠀⢀⣠⡴⠖⠋⠁⠀⠀⠀⠀⠀⠀⠀⠀
 0% ┤⣤⠶⠚⠉⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀⠀
     00:00       01:00
";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_svg_is_well_formed_whatever_the_title() {
        let points = ramp();
        let svg = plot("<disk> & \"co\"", &points).svg(&TimeZone::UTC);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("&lt;disk&gt; &amp; &quot;co&quot;") && !svg.contains("NaN"), "{svg}");
        assert_eq!(svg.matches("<path class=\"line\"").count(), 1);
        let empty = plot("nothing", &[]).svg(&TimeZone::UTC);
        assert!(!empty.contains("NaN") && !empty.contains("inf"), "{empty}");
    }

    #[test]
    fn values_are_printed_for_people() {
        let printed = [
            value(1_536.0, "B"),
            value(97.24, "%"),
            value(0.0123, "s"),
            value(0.000_05, "s"),
            value(12_345.0, ""),
            value(41.5, "C"),
            value(0.0, "s"),
        ];
        assert_eq!(printed, ["1.5 KiB", "97.2%", "12.3 ms", "50 µs", "12.3 k", "41.5 C", "0 s"]);
    }
}
