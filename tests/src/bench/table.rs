//! Tables, and budgets met or missed.

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal},
};

use serde::Serialize;

/// A figure and its budget.
#[derive(Debug, Clone, Serialize)]
pub struct Budget {
    pub what: String,
    pub limit: String,
    pub measured: String,
    /// `None`: not measured, and `measured` says why.
    pub met: Option<bool>,
}

impl Budget {
    /// A figure that may be at most `most`.
    pub fn at_most(what: impl Into<String>, measured: f64, most: f64, unit: &str) -> Self {
        let unit =
            if unit.is_empty() || unit.starts_with('×') { unit.to_owned() } else { format!(" {unit}") };
        Self {
            what: what.into(),
            limit: format!("≤ {most}{unit}"),
            measured: format!("{measured:.2}{unit}"),
            met: Some(measured <= most),
        }
    }

    pub fn not_measured(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), limit: String::new(), measured: why.into(), met: None }
    }
}

/// A cell, and whether it keeps its target where it has one.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    kept: Option<bool>,
}

impl Cell {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), kept: None }
    }

    pub fn number(value: f64, decimals: usize) -> Self {
        Self::new(format!("{value:.decimals$}"))
    }

    /// Marks it as a figure with a target.
    #[must_use]
    pub fn target(mut self, kept: bool) -> Self {
        self.kept = Some(kept);
        self
    }
}

/// Rows of right-aligned cells; the first column is left-aligned. A missed target has a `!` (and is
/// red on a terminal).
pub fn render(heads: &[&str], rows: &[Vec<Cell>], colours: bool) -> String {
    let shown = |cell: &Cell| format!("{}{}", cell.text, if cell.kept == Some(false) { "!" } else { "" });
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| shown(cell).chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..heads.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: Vec<(String, Option<bool>)>| {
        for (column, (cell, kept)) in cells.into_iter().enumerate() {
            let padding = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            let cell = match kept {
                Some(true) if colours => format!("\x1b[32m{cell}\x1b[0m"),
                Some(false) if colours => format!("\x1b[31m{cell}\x1b[0m"),
                _ => cell,
            };
            let _ =
                if column == 0 { write!(text, "{cell}{padding}") } else { write!(text, "  {padding}{cell}") };
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    };
    line(heads.iter().map(|head| ((*head).to_owned(), None)).collect());
    for row in rows {
        line(row.iter().map(|cell| (shown(cell), cell.kept)).collect());
    }
    text
}

/// The budgets as a table.
pub fn budgets(budgets: &[Budget], colours: bool) -> String {
    let rows: Vec<_> = budgets
        .iter()
        .map(|budget| {
            let verdict = match budget.met {
                Some(true) => Cell::new("met").target(true),
                Some(false) => Cell::new("MISSED").target(false),
                None => Cell::new("not measured"),
            };
            let texts = [&budget.what, &budget.measured, &budget.limit].map(Cell::new);
            texts.into_iter().chain([verdict]).collect()
        })
        .collect();
    render(&["budget", "measured", "may be", ""], &rows, colours)
}

/// Whether to colour what goes to standard output.
pub fn colours() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_target_shows_without_colours_too() {
        let rows = [
            vec![Cell::new("dogwatch"), Cell::number(99.5, 1).target(false)],
            vec![Cell::new("µ"), Cell::number(100.0, 1).target(true)],
        ];
        assert_eq!(
            render(&["server", "right %"], &rows, false),
            "server    right %\ndogwatch    99.5!\nµ           100.0\n"
        );
        let coloured = render(&["server", "right %"], &rows, true);
        assert!(coloured.contains("\x1b[31m99.5!\x1b[0m") && coloured.contains("\x1b[32m100.0\x1b[0m"));
    }

    #[test]
    fn a_budget_is_met_up_to_its_limit() {
        assert_eq!(Budget::at_most("CPU", 1.15, 1.15, "× echo").met, Some(true));
        let missed = Budget::at_most("CPU", 1.151, 1.15, "× echo");
        assert_eq!((missed.met, missed.limit.as_str()), (Some(false), "≤ 1.15× echo"));
        assert!(budgets(&[missed], false).contains("MISSED"));
    }
}
