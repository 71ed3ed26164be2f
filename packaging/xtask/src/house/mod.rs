//! `cargo xtask house`: the house rules, and how far the tree keeps them.
//!
//! | module | what it holds the tree to |
//! | --- | --- |
//! | [`layers`] | the layers of `packaging/house.toml`: no import from core to shell or to a higher layer |
//! | [`tidy`] | one convention for modules, prose of 100 columns, a complete map in ARCHITECTURE.md, plain words |
//! | [`sources`], [`tokens`], [`reader`], [`graph`] | reading: files, the paths they name, who imports whom |
//!
//! The tests of this crate hold the tree to the same rules, so `cargo test` fails where this
//! command does.

mod graph;
mod layers;
mod reader;
mod sources;
mod tidy;
mod tokens;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use self::{
    graph::{Import, Package},
    layers::{Findings, Table},
    sources::Sources,
};
use crate::sh;

#[derive(Args)]
pub(crate) struct Options {
    /// Show this git revision beside the working tree
    #[arg(long, value_name = "REV")]
    at: Option<String>,
    /// Look at the checkout in DIR instead of this one
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Take the layers from FILE instead of packaging/house.toml
    #[arg(long, value_name = "FILE")]
    layers: Option<PathBuf>,
    /// List every upward import and the files of every circle
    #[arg(long)]
    list: bool,
    /// Print one JSON document instead of tables
    #[arg(long)]
    json: bool,
}

/// One crate in figures.
#[derive(Debug, Default, Clone, Serialize)]
struct Row {
    name: String,
    files: usize,
    lines: usize,
    /// Files that only tests have, in `src/` and `tests/`, and their lines.
    test_files: usize,
    test_lines: usize,
    circles: usize,
    files_in_circles: usize,
    upward: usize,
    core_to_shell: usize,
}

/// A tree in figures, and what is wrong with it.
#[derive(Serialize)]
struct Report {
    crates: Vec<Row>,
    circles: Vec<Vec<String>>,
    upward: Vec<String>,
    core_to_shell: Vec<String>,
    faults: Vec<String>,
    hints: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let root = options.root.as_deref().unwrap_or_else(|| sh::root());
    let sources = Sources::of_folder(root)?;
    let table = match &options.layers {
        Some(file) => Table::parse(&std::fs::read_to_string(file)?)?,
        None => Table::of(&sources)?,
    };
    let now = report(&sources, &table)?;
    let before = match &options.at {
        Some(revision) => {
            let sources = Sources::of_revision(root, revision)?;
            Some(report(&sources, &table_of(root, &sources)?)?)
        }
        None => None,
    };
    if options.json {
        #[derive(Serialize)]
        struct Document<'a> {
            #[serde(flatten)]
            now: &'a Report,
            #[serde(skip_serializing_if = "Option::is_none")]
            before: Option<&'a Report>,
        }
        let document = Document { now: &now, before: before.as_ref() };
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        print(&now, before.as_ref(), options);
    }
    if !now.faults.is_empty() {
        bail!("{} house rules are broken", now.faults.len());
    }
    Ok(())
}

/// The house rules as a step of `cargo xtask test`.
pub(crate) fn step() -> Result<()> {
    run(&Options { at: None, root: None, layers: None, list: false, json: false })
}

/// A revision's own table. One from before there was a table is held against the first one.
fn table_of(root: &Path, sources: &Sources) -> Result<Table> {
    if sources.has(layers::TABLE) {
        return Table::of(sources);
    }
    let log = sources::git(root, &["log", "--diff-filter=A", "--format=%H", "--", layers::TABLE])?;
    let Some(first) = log.lines().last() else { bail!("{} was never committed", layers::TABLE) };
    Table::parse(&sources::git(root, &["show", &format!("{first}:{}", layers::TABLE)])?)
}

fn report(sources: &Sources, table: &Table) -> Result<Report> {
    let graph = graph::graph(sources)?;
    let findings = table.judge(&graph);
    let mut report = Report {
        crates: graph
            .packages
            .iter()
            .zip(&findings)
            .map(|(package, own)| row(sources, package, own))
            .collect(),
        circles: Vec::new(),
        upward: Vec::new(),
        core_to_shell: Vec::new(),
        faults: Vec::new(),
        hints: Vec::new(),
    };
    for own in findings.into_iter().chain([table.tidy(sources, &graph)]) {
        report.circles.extend(own.circles);
        report.upward.extend(own.upward.iter().map(line));
        report.core_to_shell.extend(own.core_to_shell.iter().map(line));
        report.faults.extend(own.faults);
        report.hints.extend(own.hints);
    }
    Ok(report)
}

fn line(import: &Import) -> String {
    format!("{}:{} imports {} ({})", import.from, import.line, import.to, import.path)
}

fn row(sources: &Sources, package: &Package, own: &Findings) -> Row {
    let lines = |path: &str| sources.get(path).map_or(0, |text| text.lines().count());
    let tests = format!("{}/tests/", package.folder);
    let tests: Vec<_> = sources
        .below(&tests, ".rs")
        .map(|(path, _)| path)
        .chain(package.test_files.iter().map(String::as_str))
        .collect();
    Row {
        name: package.name.clone(),
        files: package.files.len(),
        lines: package.files.iter().map(|path| lines(path)).sum(),
        test_files: tests.len(),
        test_lines: tests.iter().map(|path| lines(path)).sum(),
        circles: own.circles.len(),
        files_in_circles: own.circles.iter().map(Vec::len).sum(),
        upward: own.upward.len(),
        core_to_shell: own.core_to_shell.len(),
    }
}

impl Row {
    fn figures(&self) -> [usize; 8] {
        [
            self.files,
            self.lines,
            self.test_files,
            self.test_lines,
            self.circles,
            self.files_in_circles,
            self.upward,
            self.core_to_shell,
        ]
    }
}

const COLUMNS: [&str; 8] =
    ["files", "lines", "test files", "lines", "circles", "files in them", "upward", "core to shell"];

fn print(now: &Report, before: Option<&Report>, options: &Options) {
    let mut table = vec![std::iter::once("crate".to_owned()).chain(COLUMNS.map(str::to_owned)).collect()];
    let crates = now.crates.iter().chain(before.iter().flat_map(|before| &before.crates));
    let mut seen = BTreeSet::new();
    for name in crates.map(|row| row.name.as_str()).filter(|name| seen.insert(*name)) {
        let of = |report: &Report| report.crates.iter().find(|row| row.name == name).map(Row::figures);
        table.push(cells(name, of(now), before.map_or(of(now), of)));
    }
    table.push(cells("all", Some(sum(now)), Some(sum(before.unwrap_or(now)))));
    let widths: Vec<usize> = (0..=COLUMNS.len())
        .map(|column| table.iter().map(|row: &Vec<String>| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    if let Some(revision) = &options.at {
        println!("{revision} → working tree");
    }
    for row in &table {
        let mut text = format!("{:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        println!("{}", text.trim_end());
    }
    if options.list {
        for circle in &now.circles {
            println!("\ncircle of {} files:\n  {}", circle.len(), circle.join("\n  "));
        }
        section("upward imports", &now.upward);
        section("imports from core to shell", &now.core_to_shell);
    }
    section("numbers to lower", &now.hints);
    section("broken rules", &now.faults);
}

fn section(title: &str, lines: &[String]) {
    if !lines.is_empty() {
        println!("\n{title}:\n  {}", lines.join("\n  "));
    }
}

fn sum(report: &Report) -> [usize; 8] {
    report.crates.iter().fold([0; 8], |mut sum, row| {
        sum.iter_mut().zip(row.figures()).for_each(|(sum, figure)| *sum += figure);
        sum
    })
}

/// A row of the table: `a → b` where two trees are compared and differ, `-` where a tree lacks the
/// crate.
fn cells(name: &str, now: Option<[usize; 8]>, before: Option<[usize; 8]>) -> Vec<String> {
    let show = |figures: Option<[usize; 8]>, column: usize| {
        figures.map_or_else(|| "-".to_owned(), |figures| figures[column].to_string())
    };
    let figures = (0..COLUMNS.len()).map(|column| {
        let (before, now) = (show(before, column), show(now, column));
        if before == now { now } else { format!("{before} → {now}") }
    });
    std::iter::once(name.to_owned()).chain(figures).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_keeps_the_house_rules() {
        let sources = Sources::of_folder(sh::root()).unwrap();
        let report = report(&sources, &Table::of(&sources).unwrap()).unwrap();
        assert!(report.faults.is_empty(), "cargo xtask house:\n  {}", report.faults.join("\n  "));
    }
}
