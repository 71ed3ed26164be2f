//! `file`: whether files exist, and how old, how large, how many and how open they are.
//!
//! A path may be a pattern: `*` and `?` match within one directory. Ages count from the last change
//! of the content. Without a pattern, the file must exist; with one, at least one must match,
//! unless `count` says otherwise.

mod find;

use std::{sync::Arc, time::Duration};

use find::{Found, Look, find};

use crate::{
    Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Pattern, State, Things, clock,
    name::escaped,
    options::{OptionSpec, PerThing, Reader},
    perfdata::Perf,
    result::CheckResult,
    root::Root,
    space::{human, size},
    threshold::Range,
};

pub(crate) const KIND: Kind = Kind {
    name: "file",
    about: "whether files exist, and their age, size, number and mode",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::Never,
    interval: None,
    things: Things::Paths,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "path",
        value: "PATH",
        help: "a file or a pattern like \"/backup/*.tar\"; can be a list (required)",
    },
    OptionSpec { name: "absent", value: "", help: "CRITICAL if it exists, for files that must not be there" },
    OptionSpec { name: "warn_age", value: "TIME", help: "WARNING if the newest file is older: \"26h\"" },
    OptionSpec { name: "crit_age", value: "TIME", help: "CRITICAL if the newest file is older" },
    OptionSpec {
        name: "warn_oldest",
        value: "TIME",
        help: "WARNING if the oldest file is older, for a queue that must be emptied",
    },
    OptionSpec { name: "crit_oldest", value: "TIME", help: "CRITICAL if the oldest file is older" },
    OptionSpec { name: "min_size", value: "SIZE", help: "CRITICAL if the newest file is smaller: \"1MiB\"" },
    OptionSpec { name: "warn_size", value: "SIZE", help: "WARNING if all files together are larger" },
    OptionSpec { name: "crit_size", value: "SIZE", help: "CRITICAL if all files together are larger" },
    OptionSpec { name: "warn_count", value: "RANGE", help: "WARNING range for the number of files" },
    OptionSpec { name: "crit_count", value: "RANGE", help: "CRITICAL range for the number of files" },
    OptionSpec {
        name: "mode",
        value: "MODE",
        help: "CRITICAL if a file has a permission that this mode does not have: \"0640\"",
    },
];

fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let paths = reader.list("path");
    let paths = reader.required("path", paths)?;
    for path in &paths {
        if let Some(wrong) = find::error(path) {
            reader.error("path", format!("{path:?} {wrong}"));
        }
    }
    for pattern in reader.things().map(Pattern::new).collect::<Vec<_>>() {
        if !paths.iter().any(|path| pattern.matches(&escaped(path))) {
            let text = format!("none of these is {pattern:?}, so [check.NAME.{pattern:?}] is for nothing");
            reader.error("path", text);
        }
    }
    let wanted = reader.per_thing(Wanted::take);
    Some(Check::blocking(Files { root: host.root.clone(), paths, wanted: Arc::new(wanted) }))
}

struct Files {
    root: Root,
    paths: Vec<String>,
    wanted: Arc<PerThing<Wanted>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    absent: bool,
    age: Limits<Duration>,
    oldest: Limits<Duration>,
    size: Limits<f64>,
    min_size: Option<f64>,
    count: Limits<Range>,
    mode: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Limits<T> {
    warn: Option<T>,
    crit: Option<T>,
}

impl<T> Default for Limits<T> {
    fn default() -> Self {
        Self { warn: None, crit: None }
    }
}

impl Wanted {
    fn take(reader: &mut Reader<'_>) -> Self {
        let wanted = Self {
            absent: reader.flag("absent"),
            age: times(reader, ["warn_age", "crit_age"]),
            oldest: times(reader, ["warn_oldest", "crit_oldest"]),
            size: sizes(reader, ["warn_size", "crit_size"]),
            min_size: reader.parsed("min_size", size),
            count: Limits { warn: reader.range("warn_count"), crit: reader.range("crit_count") },
            mode: reader.parsed("mode", mode),
        };
        if wanted.absent && wanted.judges() {
            reader.error("absent", "a file that must not exist can have no other limit");
        }
        wanted
    }

    fn judges(&self) -> bool {
        self.age.is_set()
            || self.oldest.is_set()
            || self.size.is_set()
            || self.count.is_set()
            || self.min_size.is_some()
            || self.mode.is_some()
    }
}

impl<T: Copy> Limits<T> {
    fn is_set(&self) -> bool {
        self.warn.is_some() || self.crit.is_some()
    }

    /// The state and the limit that counts.
    fn judge(&self, breaks: impl Fn(T) -> bool) -> Option<(State, T)> {
        let critical = self.crit.filter(|limit| breaks(*limit)).map(|limit| (State::Critical, limit));
        critical.or_else(|| self.warn.filter(|limit| breaks(*limit)).map(|limit| (State::Warning, limit)))
    }
}

fn times(reader: &mut Reader<'_>, names: [&str; 2]) -> Limits<Duration> {
    let [warn, crit] = reader.times(names, [None; 2], Reader::time);
    Limits { warn, crit }
}

fn sizes(reader: &mut Reader<'_>, names: [&str; 2]) -> Limits<f64> {
    let [warn, crit] = names.map(|name| reader.parsed(name, size));
    reader.refuse_inverted(names, [warn.as_ref(), crit.as_ref()], |size| human(*size));
    Limits { warn, crit }
}

/// `0640`, `640`.
fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| format!("{text:?} is not a mode; write for example \"0640\""))
}

impl Blocking for Files {
    fn run(&self) -> Judgement {
        let now = clock::unix_seconds();
        let is_whole = self.paths.len() == 1;
        let list = self.paths.iter().map(|path| {
            let result = judge(path, &find(&self.root, path), self.wanted.of(&escaped(path)), now);
            if is_whole {
                let summary = format!("{}: {}", escaped(path), result.summary);
                Finding::whole(CheckResult { summary, ..result })
            } else {
                Finding::of(escaped(path), result)
            }
        });
        Findings::all(list.collect()).into()
    }
}

fn judge(path: &str, look: &Look, wanted: &Wanted, now: i64) -> CheckResult {
    let files = &look.files;
    if let Some(why) = &look.error {
        return CheckResult::unknown(why);
    }
    let is_pattern = find::is_pattern(path);
    if wanted.absent {
        return match files.first() {
            None => CheckResult::new(State::Ok, "does not exist, as it should be"),
            Some(found) if is_pattern => {
                CheckResult::new(State::Critical, format!("{} must not exist", found.path))
            }
            Some(_) => CheckResult::new(State::Critical, "must not exist"),
        };
    }
    let mut said = Vec::new();
    let mut state = State::Ok;
    let mut say = |found: Option<State>, text: String| {
        state = state.max(found.unwrap_or(State::Ok));
        said.push(text);
    };
    let counted = wanted.count.judge(|range| range.alerts(amount(files.len())));
    if is_pattern || wanted.count.is_set() {
        let limit = counted.map(|(_, range)| format!(" (limit {range})")).unwrap_or_default();
        let plural = if files.len() == 1 { "" } else { "s" };
        let none = files.is_empty() && !wanted.count.is_set();
        let found = counted.map(|(state, _)| state).or(none.then_some(State::Critical));
        say(found, format!("{} file{plural}{limit}", files.len()));
    } else if files.is_empty() {
        return CheckResult::new(State::Critical, "does not exist");
    }
    let newest = files.iter().max_by_key(|found| found.changed);
    let oldest = files.iter().min_by_key(|found| found.changed);
    let of = |found: &Found| if is_pattern { format!(" ({})", name(&found.path)) } else { String::new() };
    let mut perfdata = Vec::new();
    if let Some(newest) = newest {
        let age = age(newest, now);
        let judged = wanted.age.judge(|limit| age > limit);
        let limit = judged.map(|(_, limit)| format!(", limit {}", span(limit))).unwrap_or_default();
        let what = if is_pattern { "newest " } else { "" };
        say(judged.map(|(state, _)| state), format!("{what}changed {} ago{}{limit}", span(age), of(newest)));
        let range = |limit: Option<Duration>| limit.map(|limit| Range::above(limit.as_secs_f64()));
        perfdata.push(
            Perf::new(format!("{path} age"), age.as_secs_f64(), "s")
                .thresholds(range(wanted.age.warn), range(wanted.age.crit)),
        );
        if let Some(least) = wanted.min_size
            && bytes(newest.size) < least
        {
            say(
                Some(State::Critical),
                format!(
                    "only {}{}, must be at least {}",
                    human(bytes(newest.size)),
                    of(newest),
                    human(least)
                ),
            );
        }
    }
    if let Some(oldest) = oldest
        && let Some((state, limit)) = wanted.oldest.judge(|limit| age(oldest, now) > limit)
    {
        say(
            Some(state),
            format!("oldest changed {} ago{}, limit {}", span(age(oldest, now)), of(oldest), span(limit)),
        );
    }
    let total = bytes(files.iter().fold(0, |sum, found| sum.saturating_add(found.size)));
    let judged = wanted.size.judge(|limit| total > limit);
    let limit = judged.map(|(_, limit)| format!(" (limit {})", human(limit))).unwrap_or_default();
    if !files.is_empty() {
        say(judged.map(|(state, _)| state), format!("{}{limit}", human(total)));
    }
    if let Some(mode) = wanted.mode {
        let open: Vec<_> = files.iter().filter(|found| found.mode & !mode & 0o7777 != 0).collect();
        if let Some(first) = open.first() {
            let more = if open.len() > 1 { format!(" and {} more", open.len() - 1) } else { String::new() };
            say(
                Some(State::Critical),
                format!("mode {:04o}{}{more}, must be within {mode:04o}", first.mode & 0o7777, of(first)),
            );
        }
    }
    if look.is_cut {
        say(None, format!("only the first {} entries were read", find::ENTRIES_MAX));
    }
    perfdata.push(
        Perf::new(format!("{path} size"), total, "B")
            .thresholds(wanted.size.warn.map(Range::above), wanted.size.crit.map(Range::above)),
    );
    perfdata.push(
        Perf::new(format!("{path} files"), amount(files.len()), "")
            .thresholds(wanted.count.warn, wanted.count.crit),
    );
    CheckResult::new(state, said.join(", ")).with_perfdata(perfdata)
}

/// Zero for a file of the future.
fn age(found: &Found, now: i64) -> Duration {
    Duration::from_secs(u64::try_from(now.saturating_sub(found.changed)).unwrap_or_default())
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `45 s`, `12 min`, `26 h`, `9 days`.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=259_199 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes; the error does not matter")]
fn bytes(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "a number of files")]
fn amount(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
