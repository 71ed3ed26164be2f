//! Rules about the text of the repository, apart from imports.
//!
//! | rule | where |
//! | --- | --- |
//! | a module with children is `name/mod.rs`, with no `name.rs` beside it | `*.rs` |
//! | prose and comment lines have at most 100 columns; tables, code blocks and long links may be wider | `*.md`, `*.rs` |
//! | the tables of ARCHITECTURE.md name every module of a crate and nothing else | ARCHITECTURE.md |
//! | none of the phrases that STYLE §7 rules out | every text |
//!
//! What is not yet at its goal is counted in `packaging/house.toml`; such a number may only fall.

use std::collections::BTreeSet;

use super::{graph::Package, sources::Sources};

const COLUMNS_MAX: usize = 100;
/// The map of the crates.
const MAP: &str = "ARCHITECTURE.md";
/// The only file that may contain the phrases.
const THIS: &str = "packaging/xtask/src/house/tidy.rs";

/// Whole words, in lower case.
const PHRASES: &[&str] = &[
    "to be had",
    "thereof",
    "of one's own",
    "as said",
    "in the midst",
    "reckon",
    "reckons",
    "reckoned",
    "reckoning",
    "the issue allows",
    "design §",
    "style §",
    "the eight that",
];

/// A line that is wider than prose may be, or a module in the other convention.
pub(super) type Found = Vec<String>;

/// Lines of Markdown that are too wide.
pub(super) fn wide_prose(sources: &Sources) -> Found {
    let files = sources.below("", ".md");
    files.flat_map(|(path, text)| wide(path, text.lines().map(Some))).collect()
}

/// Comment lines of a crate that are too wide.
pub(super) fn wide_comments(sources: &Sources, package: &Package) -> Found {
    let folder = format!("{}/", package.folder);
    let files = sources.below(&folder, ".rs").filter(|(path, _)| is_of(package, path, sources));
    files.flat_map(|(path, text)| wide(path, text.lines().map(comment))).collect()
}

/// `name.rs` files beside a folder `name/` with more of the module.
pub(super) fn split_modules(sources: &Sources, package: &Package) -> Found {
    let folder = format!("{}/", package.folder);
    let files = sources.below(&folder, ".rs").filter(|(path, _)| is_of(package, path, sources));
    files
        .map(|(path, _)| path)
        .filter(|path| {
            let beside = format!("{}/", path.trim_end_matches(".rs"));
            sources.below(&beside, ".rs").next().is_some()
        })
        .map(|path| format!("{path}: belongs into {}/mod.rs", path.trim_end_matches(".rs")))
        .collect()
}

/// Whether a file belongs to this crate and not to one nested in its folder.
fn is_of(package: &Package, path: &str, sources: &Sources) -> bool {
    let below = path.strip_prefix(&package.folder).map_or("", |rest| rest.trim_start_matches('/'));
    let mut folders: Vec<_> = below.split('/').collect();
    folders.pop();
    let mut at = package.folder.clone();
    folders.iter().all(|folder| {
        at = format!("{at}/{folder}");
        !sources.has(&format!("{at}/Cargo.toml"))
    })
}

/// The lines that are too wide. `None` is a line that the rule does not look at.
fn wide<'a>(
    path: &'a str,
    lines: impl Iterator<Item = Option<&'a str>> + 'a,
) -> impl Iterator<Item = String> + 'a {
    let mut in_block = false;
    lines.enumerate().filter_map(move |(index, line)| {
        let line = line?;
        let text = line.trim_start_matches(['/', '!', ' ']);
        if text.starts_with("```") {
            in_block = !in_block;
        }
        let columns = line.chars().count();
        let has_link = text.split_whitespace().any(|word| word.contains("](") || word.contains("://"));
        let exempt =
            in_block || text.starts_with('|') || (has_link && columns_without_links(line) <= COLUMNS_MAX);
        (columns > COLUMNS_MAX && !exempt).then(|| format!("{path}:{}: {columns} columns", index + 1))
    })
}

/// A line's width if what cannot be broken counted as nothing.
fn columns_without_links(line: &str) -> usize {
    let is_link = |word: &&str| word.contains("](") || word.contains("://");
    line.split(' ').filter(|word| !is_link(word)).map(|word| word.chars().count() + 1).sum()
}

fn comment(line: &str) -> Option<&str> {
    line.trim_start().starts_with("//").then_some(line)
}

/// Where the tables of ARCHITECTURE.md and the crates differ.
///
/// A heading that ends with a folder in parentheses starts a crate: ``### name (`agent/src/`)``.
/// The table below it has a row for each module; "Inside `rules/`:" starts one for a folder of the
/// crate.
pub(super) fn map(sources: &Sources, packages: &[Package]) -> Found {
    let Some(text) = sources.get(MAP) else { return vec![format!("{MAP} is missing")] };
    let mut found = Vec::new();
    let tables = tables(text);
    for package in packages {
        let src = format!("{}/src/", package.folder);
        if !tables.iter().any(|table| table.folder == src) {
            found.push(format!("{MAP}: no heading that ends with (`{src}`)"));
        }
    }
    for table in &tables {
        let (mut modules, mut for_tests) = (BTreeSet::new(), BTreeSet::new());
        for package in packages {
            modules.extend(package.files.iter().filter_map(|path| child(&table.folder, path)));
            for_tests.extend(package.test_files.iter().filter_map(|path| child(&table.folder, path)));
        }
        // The file of the folder's own module is what the row above describes.
        let own = if table.folder.ends_with("/src/") { "" } else { "mod.rs" };
        for module in modules.iter().filter(|module| *module != own && !table.rows.contains(*module)) {
            found.push(format!("{MAP}:{}: no row for {}{module}", table.line, table.folder));
        }
        for row in table.rows.iter().filter(|row| !modules.contains(*row) && !for_tests.contains(*row)) {
            found.push(format!("{MAP}:{}: {}{row} does not exist", table.line, table.folder));
        }
    }
    found
}

struct ModuleTable {
    folder: String,
    line: usize,
    rows: BTreeSet<String>,
}

fn tables(text: &str) -> Vec<ModuleTable> {
    let mut tables: Vec<ModuleTable> = Vec::new();
    let (mut src, mut open) = (None, false);
    for (index, line) in text.lines().enumerate() {
        let mut start = |folder: String| {
            tables.push(ModuleTable { folder, line: index + 1, rows: BTreeSet::new() });
        };
        if line.starts_with('#') {
            let folder = line.rsplit_once("(`").and_then(|(_, end)| end.trim_end().strip_suffix("`)"));
            src = folder.filter(|folder| folder.ends_with("/src/")).map(str::to_owned);
            src.clone().into_iter().for_each(&mut start);
            open = src.is_some();
        } else if let (Some(src), Some(inside)) = (&src, line.strip_prefix("Inside `")) {
            start(format!("{src}{}", inside.split('`').next().unwrap_or_default()));
            open = true;
        } else if let Some(cell) = line.strip_prefix("| `").filter(|_| open) {
            let cell = cell.split('|').next().unwrap_or_default();
            // Every second piece is between backticks.
            let names = format!("`{cell}");
            let names = names.split('`').skip(1).step_by(2).map(str::to_owned);
            tables.last_mut().into_iter().for_each(|table| table.rows.extend(names.clone()));
        } else if !line.starts_with('|') && tables.last().is_some_and(|table| !table.rows.is_empty()) {
            // Only the first table below a heading.
            open = false;
        }
    }
    tables
}

/// The file or folder directly in `folder` that holds `path`: `a/src/` and `a/src/b/c.rs` give
/// `b/`.
fn child(folder: &str, path: &str) -> Option<String> {
    let below = path.strip_prefix(folder)?;
    Some(below.split_once('/').map_or_else(|| below.to_owned(), |(name, _)| format!("{name}/")))
}

/// Places with a phrase that is ruled out.
pub(super) fn phrases(sources: &Sources) -> Found {
    let mut found = Vec::new();
    for (path, text) in sources.below("", "").filter(|(path, _)| *path != THIS) {
        for (index, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            for phrase in PHRASES.iter().filter(|phrase| has_phrase(&line, phrase)) {
                found.push(format!("{path}:{}: \"{phrase}\"", index + 1));
            }
        }
    }
    found
}

fn has_phrase(line: &str, phrase: &str) -> bool {
    line.match_indices(phrase).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + phrase.len()..].chars().next();
        let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !is_letter(before) && (phrase.ends_with('§') || !is_letter(after))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(files: &[&str]) -> Package {
        let files = files.iter().map(|file| format!("a/src/{file}")).collect();
        Package { name: "a".into(), folder: "a".into(), files, test_files: BTreeSet::new() }
    }

    #[test]
    fn a_module_beside_its_folder_is_found() {
        let sources = Sources::of(&[("a/src/x.rs", ""), ("a/src/x/y.rs", ""), ("a/src/z/mod.rs", "")]);
        assert_eq!(split_modules(&sources, &package(&[])), ["a/src/x.rs: belongs into a/src/x/mod.rs"]);
    }

    #[test]
    fn wide_prose_is_found_and_tables_code_and_links_are_not() {
        let long = "word ".repeat(21);
        let text = format!(
            "{long}\n| {long}\n```text\n{long}\n```\nsee [a](https://example.org/{})\n",
            "x".repeat(99)
        );
        assert_eq!(wide_prose(&Sources::of(&[("a.md", &text)])), ["a.md:1: 105 columns"]);
    }

    #[test]
    fn only_comment_lines_count_in_code_and_nested_crates_count_for_themselves() {
        let long = "word ".repeat(21);
        let text = format!("    // {long}\nlet x = \"{long}\";\n");
        let sources = Sources::of(&[("a/src/x.rs", &text), ("a/b/Cargo.toml", ""), ("a/b/src/y.rs", &text)]);
        assert_eq!(wide_comments(&sources, &package(&[])), ["a/src/x.rs:1: 112 columns"]);
    }

    #[test]
    fn the_map_names_every_module_and_nothing_else() {
        let text = "### a (`a/src/`)\n\n| module | |\n| --- | --- |\n| `lib.rs` | x `no.rs` |\n| `gone.rs`, `sub/` | x |\n\n\
                    Inside `sub/`:\n\n| module | |\n| --- | --- |\n| `one.rs` | x |\n\n| `not/a/row` | x |\n";
        let sources = Sources::of(&[(MAP, text)]);
        let packages = [package(&["lib.rs", "new.rs", "sub/mod.rs", "sub/one.rs", "sub/two.rs"])];
        assert_eq!(
            map(&sources, &packages),
            [
                "ARCHITECTURE.md:1: no row for a/src/new.rs",
                "ARCHITECTURE.md:1: a/src/gone.rs does not exist",
                "ARCHITECTURE.md:8: no row for a/src/sub/two.rs",
            ]
        );
    }

    #[test]
    fn phrases_are_found_as_whole_words() {
        let sources = Sources::of(&[("a.rs", "// As said.\n// basaid, DESIGN §9\n"), (THIS, "as said")]);
        assert_eq!(phrases(&sources), ["a.rs:1: \"as said\"", "a.rs:2: \"design §\""]);
    }
}
