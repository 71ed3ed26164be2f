//! Aligned tables and colours for a terminal. Pure.

use std::fmt::Write;

use dogwatch_alertd_core::rules::text;
use dogwatch_wire::State;
use jiff::{Timestamp, tz::TimeZone};

/// The time, the time zone and the colours to show things in.
#[derive(Clone)]
pub(super) struct View {
    pub(super) now: Timestamp,
    pub(super) zone: TimeZone,
    pub(super) paint: Paint,
}

/// Characters of a summary or comment.
pub(super) const TEXT_CHARS_MAX: usize = 300;
/// Characters of a name.
pub(super) const NAME_CHARS_MAX: usize = 60;

impl View {
    pub(super) fn age(&self, at: Timestamp) -> String {
        text::age(at, self.now)
    }

    pub(super) fn until(&self, at: Timestamp) -> String {
        if at <= self.now { "now".into() } else { format!("in {}", text::age(self.now, at)) }
    }

    /// The time of day, with the date unless it is today.
    pub(super) fn clock(&self, at: Timestamp) -> String {
        let (at, now) = (at.to_zoned(self.zone.clone()), self.now.to_zoned(self.zone.clone()));
        let format = if at.date() == now.date() { "%H:%M:%S" } else { "%d %b %H:%M:%S" };
        at.strftime(format).to_string()
    }

    pub(super) fn bold(&self, text: &str) -> String {
        self.paint.text(text, Colour::Bold)
    }
}

/// Whether to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Colours,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    None,
    Bold,
    Dim,
    Red,
    Yellow,
    Magenta,
    Green,
}

impl Colour {
    pub(super) fn of(state: State) -> Self {
        match state {
            State::Ok => Self::Green,
            State::Warning => Self::Yellow,
            State::Critical => Self::Red,
            State::Unknown => Self::Magenta,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "1;31",
            Self::Yellow => "33",
            Self::Magenta => "35",
            Self::Green => "32",
        }
    }
}

impl Paint {
    pub(super) fn text(self, text: &str, colour: Colour) -> String {
        match self {
            Self::Colours if colour != Colour::None && !text.is_empty() => {
                format!("\u{1b}[{}m{text}\u{1b}[0m", colour.code())
            }
            Self::Colours | Self::Plain => text.to_owned(),
        }
    }
}

/// A table with a header. A row may have a note, printed on the line below it.
pub(super) struct Table {
    rows: Vec<Row>,
}

struct Row {
    cells: Vec<(String, Colour)>,
    note: String,
}

impl Table {
    pub(super) fn with_head(names: &[&str]) -> Self {
        let cells = names.iter().map(|&name| (name.to_owned(), Colour::Dim)).collect();
        Self { rows: vec![Row { cells, note: String::new() }] }
    }

    pub(super) fn row(&mut self, cells: Vec<(String, Colour)>, note: String) {
        self.rows.push(Row { cells, note });
    }

    pub(super) fn write(&self, out: &mut String, paint: Paint) {
        let columns = self.rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.cells.get(column));
            cells.map(|(text, _)| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::from(" ");
            for ((text, colour), width) in row.cells.iter().zip(&widths) {
                let gap = " ".repeat(width - text.chars().count());
                let _ = write!(line, " {}{gap} ", paint.text(text, *colour));
            }
            let _ = writeln!(out, "{}", line.trim_end());
            if !row.note.is_empty() {
                let indent = widths.first().map_or(0, |width| width + 4);
                let _ = writeln!(out, "{}{}", " ".repeat(indent), row.note);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_by_what_is_seen_not_by_colour_codes() {
        let mut table = Table::with_head(&["#", "STATE", "WHERE"]);
        table.row(vec![cell("4711"), ("CRITICAL".into(), Colour::Red), cell("wéb1")], "why".into());
        table.row(vec![cell("2"), ("OK".into(), Colour::Green), cell("b")], String::new());
        let written = |paint| {
            let mut out = String::new();
            table.write(&mut out, paint);
            out
        };
        let plain = "  #     STATE     WHERE\n  4711  CRITICAL  wéb1\n        why\n  2     OK        b\n";
        assert_eq!(written(Paint::Plain), plain);
        let mut coloured = written(Paint::Colours);
        assert!(coloured.contains("\u{1b}[1;31mCRITICAL\u{1b}[0m"));
        for code in ["1;31", "32", "2", "0"] {
            coloured = coloured.replace(&format!("\u{1b}[{code}m"), "");
        }
        assert_eq!(coloured, plain);
    }

    fn cell(text: &str) -> (String, Colour) {
        (text.into(), Colour::None)
    }
}
