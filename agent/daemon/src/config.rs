//! Reads TOML files into a typed value, or reports all of their problems at once.
//!
//! A config is a main file and a directory of `*.toml` drop-ins beside it, read in the order of
//! their names. Each file is a document of the same type; the caller merges the values.
//!
//! The first pass finds every syntax error. Then serde reads the document repeatedly, each time
//! without the entry that it rejected last, so that one wrong key does not hide the next. Problems
//! that take more than one value to see (an unknown name, a retry longer than its interval) are
//! added by the caller with [`Problems::add`], at the position of a [`Spanned`] value.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    ops::Range,
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
pub use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One problem and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    /// Line and column, from 1. `None` if the problem is the file as a whole.
    pub at: Option<(usize, usize)>,
    /// Lower-case fragment: what is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All problems of a config. Printed one per line, ordered by file and line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Adds a problem at bytes `span` of `source`.
    pub fn add(&mut self, source: &Source, span: Range<usize>, message: impl Into<String>) {
        let at = Some(source.line_and_column(span.start));
        let mut message = message.into();
        if SUBJECTLESS.iter().any(|start| message.starts_with(start))
            && let Some(key) = source.key_of(span.start)
        {
            message = format!("{key}: {message}");
        }
        self.0.push(Problem { file: source.path.clone(), at, message });
    }

    /// Adds a problem of the file as a whole.
    pub fn add_whole(&mut self, path: &Path, message: impl Into<String>) {
        self.0.push(Problem { file: path.to_owned(), at: None, message: message.into() });
    }

    /// Returns `value` if there are no problems.
    pub fn or<T>(mut self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0.sort_by(|a, b| (&a.file, a.at).cmp(&(&b.file, b.at)));
        Err(self)
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// The path of a file, which is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match PathBuf::deserialize(from)? {
            path if path.as_os_str().is_empty() => {
                Err(D::Error::custom("must not be empty; write a path, like \"/run/x.sock\""))
            }
            path => Ok(Self(path)),
        }
    }
}

/// The text of one config file, kept to turn byte offsets into lines.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// How a message begins that is about a value and does not name its key.
const SUBJECTLESS: [&str; 9] = [
    "\"",
    "unknown value",
    "must ",
    "needs ",
    "is ",
    "cannot ",
    "invalid type",
    "invalid value",
    "invalid length",
];

impl Source {
    /// The key whose value is at an offset.
    fn key_of(&self, offset: usize) -> Option<String> {
        let (document, _) = DeTable::parse_recoverable(&self.text);
        key_in(document.get_ref(), offset)
    }

    /// Line and column (in characters), both from 1.
    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// Reads `main` and its drop-in directory (`agent.toml` → `agent.d/*.toml`), in the order of their
/// names. Returns the value and source of each file.
///
/// A missing directory counts as empty, and so does the file at `default`, because the binary has
/// all defaults. Another main file must exist: the caller has named it. A file that exists but
/// cannot be read is a problem, and so is a link to nothing.
pub fn load<T: DeserializeOwned>(main: &Path, default: &Path, problems: &mut Problems) -> Vec<(Source, T)> {
    let mut read = Vec::new();
    if let Some(why) = missing(main, default) {
        problems.add_whole(main, why);
        return read;
    }
    for path in files(main, problems) {
        match read_text(&path) {
            Ok(text) => {
                let source = Source { path, text };
                if let Some(value) = parse(&source, problems) {
                    read.push((source, value));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Ok(target) = fs::read_link(&path) {
                    let target = target.display();
                    let text =
                        format!("is a link to {target}, which does not exist; remove the link or mend it");
                    problems.add_whole(&path, text);
                }
            }
            Err(error) => problems.add_whole(&path, format!("cannot be read: {error}")),
        }
    }
    read
}

/// Reads a file without waiting for anybody: opening a FIFO waits for a writer, and `/dev/zero`
/// does not end. What a shell passes as `<(command)` is read all the same.
fn read_text(path: &Path) -> io::Result<String> {
    if path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd") {
        return fs::read_to_string(path);
    }
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    if file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)? as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    Ok(text)
}

/// Far more than 10,000 checks need.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Why a main file that was named does not count: there is nothing. Only the one at `default` may
/// be missing.
pub fn missing(main: &Path, default: &Path) -> Option<String> {
    let gone = main != default && fs::symlink_metadata(main).is_err_and(|error| is_nothing(&error));
    gone.then(|| format!("does not exist; only the default, {}, may be missing", default.display()))
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Parses one file. Entries that serde rejects become problems and are left out of the value, so
/// that the caller can check the rest. A value that comes with new problems must not be used for
/// anything else. `None` if nothing could be read.
pub fn parse<T: DeserializeOwned>(source: &Source, problems: &mut Problems) -> Option<T> {
    let (document, syntax) = DeTable::parse_recoverable(&source.text);
    if !syntax.is_empty() {
        for error in syntax {
            let span = error.span().unwrap_or(0..0);
            let mut message = one_line(error.message());
            if message == "duplicate key" {
                let key = source.text.get(span.clone()).unwrap_or_default();
                message = format!("duplicate key `{}`; remove one of the two", key.trim());
            }
            problems.add(source, span, message);
        }
        return None;
    }
    let mut document = document;
    let mut refused = 0;
    // Offsets and keys of the entries that were left out. That these are missing is no news.
    let mut left_out: Vec<(usize, String)> = Vec::new();
    loop {
        let error = match T::deserialize(toml::Deserializer::from(document.clone())) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        refused += 1;
        let span = error.span().unwrap_or(0..0);
        let mut message = with_suggestion(error.message());
        // The parser passes a date on as a string or as a table.
        let written = source.text.get(span.clone()).unwrap_or_default();
        if written.starts_with(|c: char| c.is_ascii_digit()) {
            for passed in [format!("string {written:?}"), "a table".to_owned()] {
                if message.starts_with(&format!("invalid type: {passed},")) {
                    message = message.replacen(&passed, "a date", 1);
                }
            }
        }
        let is_left_out = |(at, key): &(usize, String)| {
            span.contains(at) && error.message() == format!("missing field `{key}`")
        };
        if !left_out.iter().any(is_left_out) {
            problems.add(source, span.clone(), message);
        }
        left_out.extend(source.key_of(span.start).map(|key| (span.start, key)));
        let removed = remove(document.get_mut(), &span);
        if !removed || refused >= PROBLEMS_MAX {
            return None;
        }
    }
}

/// More problems in one file than anyone will read.
const PROBLEMS_MAX: usize = 50;

fn files(main: &Path, problems: &mut Problems) -> Vec<PathBuf> {
    let mut files = vec![main.to_owned()];
    let drop_ins = main.with_extension("d");
    match fs::read_dir(&drop_ins) {
        Ok(entries) => {
            let mut paths: Vec<_> = entries
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
                // Not what `*.toml` stands for in a shell: editors keep copies and locks there.
                .filter(|path| {
                    path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
                })
                .collect();
            paths.sort();
            files.extend(paths);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => problems.add_whole(&drop_ins, format!("cannot be listed: {error}")),
    }
    files
}

/// The innermost key whose value is at an offset.
fn key_in(table: &DeTable<'_>, offset: usize) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let below = match value.get_ref() {
            DeValue::Table(inner) => key_in(inner, offset),
            DeValue::Array(items) => items.iter().find_map(|item| match item.get_ref() {
                DeValue::Table(inner) => key_in(inner, offset),
                _ => None,
            }),
            _ => None,
        };
        // A table with a header of its own is at its header.
        let is_here = value.span().contains(&offset) && key.span().end <= value.span().start;
        below.or_else(|| is_here.then(|| key.get_ref().to_string()))
    })
}

/// Removes the innermost entry at `span`, or the innermost table around it.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    let hit = |at: Range<usize>| at.start <= span.start && span.end <= at.end;
    for (_, value) in table.iter_mut() {
        let removed = match value.get_mut() {
            DeValue::Table(inner) => remove(inner, span),
            DeValue::Array(items) => items.iter_mut().any(|item| match item.get_mut() {
                DeValue::Table(inner) => remove(inner, span),
                _ => false,
            }),
            _ => false,
        };
        if removed {
            return true;
        }
    }
    let found =
        table.iter().find(|(key, value)| hit(key.span()) || hit(value.span())).map(|(key, _)| key.clone());
    found.is_some_and(|key| table.remove(&key).is_some())
}

/// Adds the most likely name to serde's "unknown field `intervall`, expected one of `interval`, …".
fn with_suggestion(message: &str) -> String {
    let message = with_plain_type(in_plain_words(one_line(message)));
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown value");
    let Some(wrong) = quoted.next().filter(|_| unknown) else { return message };
    match closest(wrong, quoted) {
        Some(meant) => format!("{message}; did you mean `{meant}`?"),
        None => message,
    }
}

/// Replaces what serde and toml say of how the program is built.
fn in_plain_words(message: String) -> String {
    if message.contains("$__toml_private_datetime") && message.starts_with("unknown field") {
        return "must be a table, like { key = \"value\" }, and not a date".to_owned();
    }
    if message == "wanted string or table" || message.starts_with("wanted exactly 1 element") {
        return "must be a string in quotes".to_owned();
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("{key} is missing in this table");
    }
    match message.strip_prefix("unknown variant ") {
        Some(rest) => format!("unknown value {rest}"),
        None => message,
    }
}

/// Replaces serde's "expected u16" for readers who do not know Rust.
fn with_plain_type(message: String) -> String {
    let Some((before, kind)) = message.rsplit_once(", expected ") else { return message };
    let before = before
        .replace("invalid type: sequence", "invalid type: a list")
        .replace("invalid type: map", "invalid type: a table")
        .replace("invalid type: string \"$__toml_private_datetime\"", "invalid type: a date")
        .replace("` as i128", "`")
        .replace("` as u128", "`");
    let plain = match kind {
        _ if kind.starts_with("struct ") => "a table, like { key = \"value\" }",
        "a map" => "a table, like { key = \"value\" }",
        "a sequence" => "a list, like [\"a\", \"b\"]",
        "a spanned value" => "a number, a list, or text in quotes",
        "a string" | "a borrowed string" => "a string in quotes",
        "path string" => "a path in quotes, like \"/etc/hosts\"",
        "u8" => "a whole number, 0 to 255",
        "u16" => "a whole number, 0 to 65535",
        "u32" => "a whole number, 0 to 4294967295",
        "a nonzero u32" | "a nonzero usize" | "a nonzero u64" | "a nonzero u16" | "a nonzero u8" => {
            "a whole number, 1 or more"
        }
        "u64" | "usize" => "a whole number, 0 or more",
        "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        _ => kind,
    };
    format!("{before}, expected {plain}")
}

/// The candidate that `wrong` is most likely a misspelling of, if any is close enough.
pub fn closest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(wrong, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= candidate.len().max(wrong.len()) / 3 + 1)
        .min()
        .map(|(_, candidate)| candidate)
}

/// What to write instead of `wrong`: the name that was meant, or all names.
pub fn hint<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.into_iter().collect();
    match closest(wrong, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("use one of {}", known.join(", ")),
    }
}

fn one_line(message: &str) -> String {
    message.trim().replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::duration::Span;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the reading is tested")]
    struct File {
        name: Option<String>,
        #[serde(default)]
        check: BTreeMap<String, Check>,
        #[serde(default)]
        route: Vec<Check>,
        place: Option<FilePath>,
        mode: Option<Mode>,
        one: Option<One>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Strict,
        Lose,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only the reading is tested")]
    struct One {
        key: std::num::NonZeroU32,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Check {
        interval: Option<Span>,
        max_attempts: Option<u8>,
    }

    fn problems(text: &str) -> Vec<String> {
        let source = Source { path: "agent.toml".into(), text: text.into() };
        let mut problems = Problems::default();
        assert!(parse::<File>(&source, &mut problems).is_some() || !problems.0.is_empty());
        problems.or(()).err().map_or(Vec::new(), |all| all.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn all_wrong_keys_are_reported_at_once_with_position_and_suggestion() {
        let said = problems(
            "nam = \"x\"\n[check.disk]\nintervall = \"5m\"\nmax_attempts = 900\n[check.load]\ninterval = \"5\"\n[[route]]\ninterval = 3\n",
        );
        assert_eq!(said.len(), 5, "{said:#?}");
        assert!(said[0].starts_with("agent.toml:1:1: unknown field `nam`"), "{said:#?}");
        assert!(said[0].ends_with("did you mean `name`?"), "{said:#?}");
        assert!(said[1].starts_with("agent.toml:3:1:") && said[1].ends_with("did you mean `interval`?"));
        assert!(said[2].starts_with("agent.toml:4:16:"), "{said:#?}");
        assert!(said[2].ends_with("expected a whole number, 0 to 255"), "{said:#?}");
        assert!(
            said[3].contains("agent.toml:6:12: interval: \"5\" is not a duration; write a number and a unit")
        );
        assert!(said[4].starts_with("agent.toml:8:12:"), "{said:#?}");
    }

    #[test]
    fn a_message_about_a_value_names_its_key_and_no_type_of_rust() {
        for (text, expected) in [
            ("name = 5", "1:8: name: invalid type: integer `5`, expected a string in quotes"),
            ("name = []", "1:8: name: invalid type: a list, expected a string in quotes"),
            (
                "check = 5",
                "1:9: check: invalid type: integer `5`, expected a table, like { key = \"value\" }",
            ),
            (
                "[check]\ndisk = true",
                "2:8: disk: invalid type: boolean `true`, expected a table, like { key = \"value\" }",
            ),
            ("route = {}", "1:9: route: invalid type: a table, expected a list, like [\"a\", \"b\"]"),
            (
                "[check.disk]\ninterval = 5",
                "2:12: interval: invalid type: integer `5`, expected a duration like \"30s\" or \"5m\"",
            ),
            ("check.disk.interval = \"5\"", "1:23: interval: \"5\" is not a duration"),
            ("check = { disk = { interval = \"x\" } }", "1:31: interval: \"x\" is not a duration"),
            (
                "[[route]]\nmax_attempts = -1",
                "2:16: max_attempts: invalid value: integer `-1`, expected a whole number, 0 to 255",
            ),
            (
                "[[route]]\nmax_attempts = 1.5",
                "2:16: max_attempts: invalid type: floating point `1.5`, expected a whole number, 0 to 255",
            ),
        ] {
            let said = problems(text);
            assert!(said[0].starts_with(&format!("agent.toml:{expected}")), "{text}: {said:?}");
        }
    }

    #[test]
    fn entries_beside_a_wrong_key_can_still_be_checked() {
        let text = "nam = 1\n[check.disk]\ninterval = \"5m\"\nmax_attempts = 900\n";
        let source = Source { path: "agent.toml".into(), text: text.into() };
        let mut problems = Problems::default();
        let value = parse::<File>(&source, &mut problems).unwrap();
        assert_eq!(problems.0.len(), 2);
        assert_eq!(value.check["disk"].interval, Some(Span::secs(300)));
        assert_eq!(value.check["disk"].max_attempts, None);
    }

    #[test]
    fn all_syntax_errors_are_reported_at_once() {
        let said = problems("name = \n[check.disk\ninterval = \"5m\"\nx = 'a\n");
        assert!(said.len() >= 2, "{said:#?}");
        assert!(said[0].starts_with("agent.toml:1:"), "{said:#?}");
    }

    #[test]
    fn values_that_no_key_has_are_refused_in_plain_words() {
        for (text, expected) in [
            ("name = \"a\"\nname = \"b\"", "2:1: duplicate key `name`; remove one of the two"),
            (
                "check = 1979-05-27",
                "1:9: check: invalid type: a date, expected a table, like { key = \"value\" }",
            ),
            ("place = \"\"", "1:9: place: must not be empty; write a path, like \"/run/x.sock\""),
            (
                "mode = \"loose\"",
                "1:8: mode: unknown value `loose`, expected `strict` or `lose`; did you mean `lose`?",
            ),
            ("mode = 5", "1:8: mode: must be a string in quotes"),
            ("one = {}", "1:7: `key` is missing in this table"),
            (
                "one = { key = 0 }",
                "1:15: key: invalid value: integer `0`, expected a whole number, 1 or more",
            ),
            ("name = 1979-05-27", "1:8: name: invalid type: a date, expected a string in quotes"),
            (
                "name = 99999999999999999999",
                "1:8: name: invalid type: integer `99999999999999999999`, expected a string in quotes",
            ),
        ] {
            assert_eq!(problems(text), [format!("agent.toml:{expected}")]);
        }
    }

    #[test]
    fn a_valid_file_has_no_problems() {
        assert_eq!(problems("[check.disk]\ninterval = \"5m\"\n"), Vec::<String>::new());
    }

    #[test]
    fn a_missing_default_counts_as_empty_and_drop_ins_are_read_in_name_order() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("agent.toml");
        fs::create_dir(dir.path().join("agent.d")).unwrap();
        fs::write(dir.path().join("agent.d/20-b.toml"), "name = \"b\"").unwrap();
        fs::write(dir.path().join("agent.d/10-a.toml"), "name = \"a\"").unwrap();
        fs::write(dir.path().join("agent.d/readme.txt"), "not toml").unwrap();
        let mut problems = Problems::default();
        let read = load::<File>(&main, &main, &mut problems);
        let names: Vec<_> = read.iter().filter_map(|(_, file)| file.name.as_deref()).collect();
        assert_eq!((names, problems.0.len()), (vec!["a", "b"], 0));
    }

    #[test]
    fn a_file_that_was_named_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("there.toml");
        fs::write(&there, "").unwrap();
        for (name, expected) in [
            ("there.toml", ""),
            ("nope.toml", "nope.toml: does not exist; only the default, /etc/x.toml, may be missing"),
            ("there.toml/x.toml", "x.toml: does not exist; only the default, /etc/x.toml, may be missing"),
            ("", "cannot be read: Is a directory (os error 21)"),
        ] {
            let mut problems = Problems::default();
            load::<File>(&dir.path().join(name), Path::new("/etc/x.toml"), &mut problems);
            assert!(problems.to_string().ends_with(expected), "{name}: {problems}");
            assert_eq!(problems.0.is_empty(), expected.is_empty(), "{name}: {problems}");
        }
    }

    #[test]
    fn a_link_to_nothing_is_an_error_and_a_mask_or_a_lock_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (main, drop_ins) = (dir.path().join("agent.toml"), dir.path().join("agent.d"));
        fs::create_dir(&drop_ins).unwrap();
        let link =
            |target: &str, name: &str| std::os::unix::fs::symlink(target, drop_ins.join(name)).unwrap();
        link("/no/such/file", "10-gone.toml");
        link("20-loop.toml", "20-loop.toml");
        link("/dev/null", "30-masked.toml");
        link("root@web1.4711:1700000000", ".#40-edited.toml");
        let mut problems = Problems::default();
        assert_eq!(load::<File>(&main, &main, &mut problems).len(), 1);
        let said: Vec<_> = problems.0.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].ends_with(
                "10-gone.toml: is a link to /no/such/file, which does not exist; remove the link or mend it"
            ),
            "{said:?}"
        );
        assert!(said[1].contains("20-loop.toml: cannot be read"), "{said:?}");
    }
}
