//! `updates`: security updates of Debian and Ubuntu that wait to be installed.
//!
//! Compares what dpkg-query prints with the package lists of security archives that apt keeps, and
//! does not run apt. (The files of dpkg are its own; only its programs may read them.) An update
//! waits since this check first saw it, or since the list with it was published, if that is longer
//! ago.
//!
//! Whether the lists are fresh is judged by when apt last ran: their own mtime is that of the
//! server. Lists that apt keeps compressed (`Acquire::GzipIndexes`, usual in container and cloud
//! images) are read with apt's own `apt-helper cat-file`.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    Blind, Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    clock,
    options::{OptionSpec, Reader},
    output::clean,
    perfdata::Perf,
    read::dpkg,
    result::CheckResult,
    root::{ReadError, Root},
    span,
    threshold::Range,
};

pub(crate) const KIND: Kind = Kind {
    name: "updates",
    about: "security updates that wait to be installed (Debian, Ubuntu)",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("package lists of a security archive, which apt keeps", built_in),
    interval: Some(Duration::from_hours(1)),
    things: Things::None,
    make,
};

/// The image of an application container is not updated but replaced.
fn built_in(host: &Host) -> bool {
    let exists = |path| host.root.path(path).exists();
    exists(DPKG_QUERY)
        && !exists("/.dockerenv")
        && !exists("/run/.containerenv")
        && lists(&host.root).iter().any(|list| is_security(list) && (is_plain(list) || can_unpack()))
}

fn is_security(list: &Path) -> bool {
    name(list).contains("security")
}

fn is_plain(list: &Path) -> bool {
    name(list).ends_with(LIST)
}

/// Whether compressed lists can be read.
fn can_unpack() -> bool {
    Path::new(APT_HELPER).exists()
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "warn_after",
        value: "TIME",
        help: "WARNING when a security update has waited for this long [3d]",
    },
    OptionSpec {
        name: "crit_after",
        value: "TIME",
        help: "CRITICAL when a security update has waited for this long [14d]",
    },
    OptionSpec {
        name: "warn_lists",
        value: "TIME",
        help: "WARNING when apt has not fetched package lists for this long [7d]",
    },
    OptionSpec { name: "held", value: "", help: "also count packages that are on hold" },
];

const DPKG_QUERY: &str = "/usr/bin/dpkg-query";
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";
const LISTS: &str = "/var/lib/apt/lists";
const DAY: Duration = Duration::from_hours(24);

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let (warn, crit) = (3 * DAY, 14 * DAY);
    let after = reader.times(["warn_after", "crit_after"], [Some(warn), Some(crit)], Reader::delay);
    let limits = Limits {
        warn: after[0].unwrap_or(warn),
        crit: after[1].unwrap_or(crit),
        lists: reader.time("warn_lists").unwrap_or(7 * DAY),
        held: reader.flag("held"),
    };
    Some(Check::blocking(Updates { root: host.root.clone(), limits }))
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    warn: Duration,
    crit: Duration,
    lists: Duration,
    held: bool,
}

struct Updates {
    root: Root,
    limits: Limits,
}

/// Updates by package, each with the Unix time at which its list was published.
#[derive(Debug, Default, PartialEq)]
struct Waiting {
    updates: BTreeMap<String, i64>,
    held: Vec<String>,
}

#[derive(Debug)]
struct Reading {
    waiting: Waiting,
    /// When apt last fetched lists.
    fetched: i64,
    /// How many lists of security archives were read, and how many cannot be read.
    read: usize,
    compressed: usize,
    now: i64,
}

impl Blocking for Updates {
    fn run(&self) -> Judgement {
        match self.read() {
            Ok(reading) => {
                let limits = self.limits;
                Judgement::new(move |past| judge(&reading, limits, past))
            }
            Err(error) => error.into(),
        }
    }
}

impl Updates {
    fn read(&self) -> Result<Reading, ReadError> {
        let unpacks = can_unpack();
        let (readable, compressed): (Vec<_>, Vec<_>) = lists(&self.root)
            .into_iter()
            .filter(|list| is_security(list))
            .partition(|list| is_plain(list) || unpacks);
        let waiting = self.waiting(&readable)?;
        Ok(Reading {
            waiting,
            fetched: fetched(&self.root),
            read: readable.len(),
            compressed: compressed.len(),
            now: clock::unix_seconds(),
        })
    }

    fn waiting(&self, lists: &[PathBuf]) -> Result<Waiting, ReadError> {
        let failed = |path: &Path, source| ReadError::Io { path: path.to_owned(), source };
        let installed = self.installed().map_err(|source| failed(&self.root.path(DPKG_QUERY), source))?;
        let mut waiting = Waiting::default();
        for list in lists {
            let published = fs::metadata(list).map_or(i64::MAX, |metadata| metadata.mtime());
            let mut look = |from: &mut dyn io::BufRead| find(from, published, &installed, &mut waiting);
            let read = if is_plain(list) {
                File::open(list).and_then(|file| look(&mut BufReader::with_capacity(BUFFER, file)))
            } else {
                unpacked(list, look)
            };
            read.map_err(|source| failed(list, source))?;
        }
        waiting.held.sort();
        waiting.held.dedup();
        Ok(waiting)
    }

    /// The installed packages, as dpkg-query(1) prints them.
    fn installed(&self) -> io::Result<HashMap<String, dpkg::Installed>> {
        let mut child = Command::new(DPKG_QUERY)
            .arg(format!("--root={}", self.root.path("/").display()))
            .args(["--show", &format!("--showformat={}", dpkg::FORMAT)])
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let printed = child.stdout.take().map(|stdout| BufReader::with_capacity(BUFFER, stdout));
        let installed = printed.map(dpkg::installed);
        let status = child.wait()?;
        match installed {
            Some(Ok(installed)) if status.success() => Ok(installed),
            Some(Err(error)) => Err(error),
            _ => Err(io::Error::other(format!("dpkg-query ended with {status}"))),
        }
    }
}

/// Lets `look` read a list that apt keeps compressed, whatever the compression is.
fn unpacked(list: &Path, look: impl FnOnce(&mut dyn io::BufRead) -> io::Result<()>) -> io::Result<()> {
    let mut child = Command::new(APT_HELPER)
        .arg("cat-file")
        .arg(list)
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let looked = match child.stdout.take() {
        Some(stdout) => look(&mut BufReader::with_capacity(BUFFER, stdout)),
        None => Ok(()),
    };
    let status = child.wait()?;
    looked?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("apt-helper ended with {status}"))) }
}

const BUFFER: usize = 64 * 1_024;

fn find(
    list: impl io::BufRead,
    published: i64,
    installed: &HashMap<String, dpkg::Installed>,
    waiting: &mut Waiting,
) -> io::Result<()> {
    dpkg::stanzas(list, |package| {
        let Some(present) = installed.get(&dpkg::key(package)) else { return };
        if dpkg::compare(&present.version, &package.version).is_ge() {
            return;
        }
        if present.held {
            waiting.held.push(package.name.clone());
        }
        let since = waiting.updates.entry(package.name.clone()).or_insert(published);
        *since = published.min(*since);
    })
}

/// All package lists of apt, compressed or not.
fn lists(root: &Root) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.path(LISTS)).into_iter().flatten().flatten();
    let paths = entries.take(LISTS_MAX).map(|entry| entry.path());
    let mut lists: Vec<_> = paths.filter(|path| name(path).contains(LIST)).collect();
    lists.sort();
    lists
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// `…_Packages`, or `…_Packages.lz4`.
const LIST: &str = "_Packages";
const LISTS_MAX: usize = 10_000;

/// When apt last fetched lists. It writes to `partial` each time, and the timer of Debian and
/// Ubuntu leaves stamps.
fn fetched(root: &Root) -> i64 {
    ["lists", "lists/partial", "periodic/update-stamp", "periodic/update-success-stamp"]
        .iter()
        .filter_map(|path| fs::metadata(root.path(format!("/var/lib/apt/{path}"))).ok())
        .map(|metadata| metadata.mtime())
        .max()
        .unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "a time in seconds, a number of packages")]
fn judge(reading: &Reading, limits: Limits, past: &mut Past) -> Findings {
    let blind = (reading.compressed > 0).then(|| Blind {
        thing: "security updates".into(),
        why: "apt keeps its package lists compressed (Acquire::GzipIndexes), and there is no apt-helper"
            .into(),
    });
    if reading.read == 0 {
        let result = CheckResult::unknown("no readable package list of a security archive");
        return Findings::all(vec![Finding::whole(result)]).with_blind(blind.into_iter().collect());
    }
    let waiting = &reading.waiting;
    let counted = |name: &&String| limits.held || !waiting.held.contains(name);
    let mut updates: Vec<(&str, Duration)> = waiting
        .updates
        .iter()
        .filter(|(name, _)| counted(name))
        .map(|(name, &published)| {
            (name.as_str(), age(reading.now, since(name, published, reading.now, past)))
        })
        .collect();
    updates.sort_by_key(|&(_, age)| std::cmp::Reverse(age));
    forget_others(past, &updates);
    let oldest = updates.first().map_or(Duration::ZERO, |&(_, age)| age);
    let lists_age = age(reading.now, reading.fetched);

    let mut state = match oldest {
        age if age > limits.crit => State::Critical,
        age if age > limits.warn => State::Warning,
        _ => State::Ok,
    };
    let mut said = vec![match updates.len() {
        0 => "no security updates waiting".to_owned(),
        count => {
            let (noun, names) = (if count == 1 { "update" } else { "updates" }, shown(&updates));
            format!("{count} security {noun} waiting, the oldest for {}: {names}", span::human(oldest))
        }
    }];
    if !limits.held && !waiting.held.is_empty() {
        said.push(format!("{} on hold", waiting.held.len()));
    }
    if lists_age > limits.lists {
        state = state.max(State::Warning);
        said.push(format!("package lists are {} old, so newer updates are unknown", span::human(lists_age)));
    }
    let above = |limit: Duration| Some(Range::above(limit.as_secs_f64()));
    let perfdata = vec![
        Perf::new("waiting", updates.len() as f64, "").bounds(0.0, None),
        Perf::new("oldest", oldest.as_secs_f64(), "s")
            .thresholds(above(limits.warn), above(limits.crit))
            .bounds(0.0, None),
        Perf::new("lists", lists_age.as_secs_f64(), "s")
            .thresholds(above(limits.lists), None)
            .bounds(0.0, None),
    ];
    let detail = updates.iter().map(|(name, age)| format!("{}: {}", clean(name), span::human(*age)));
    let result = CheckResult::new(state, said.join("; "))
        .with_detail(detail.collect::<Vec<_>>().join("\n"))
        .with_perfdata(perfdata);
    Findings::all(vec![Finding::whole(result).at_once()]).with_blind(blind.into_iter().collect())
}

/// Since when an update waits. Facts survive a restart of the agent.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a Unix time")]
fn since(name: &str, published: i64, now: i64, past: &mut Past) -> i64 {
    let key = format!("{WAITS}{name}");
    let first = past.fact(&key).map_or(now, |first| first as i64);
    past.learn(&key, first as f64);
    first.min(published)
}

fn forget_others(past: &mut Past, updates: &[(&str, Duration)]) {
    let is_old = |name: &str| !updates.iter().any(|&(known, _)| known == name);
    let old: Vec<_> =
        past.facts(WAITS).map(|(name, _)| name.to_owned()).filter(|name| is_old(name)).collect();
    for name in old {
        past.forget(&format!("{WAITS}{name}"));
    }
}

const WAITS: &str = "waits ";

fn age(now: i64, since: i64) -> Duration {
    Duration::from_secs(u64::try_from(now.saturating_sub(since)).unwrap_or(0))
}

fn shown(updates: &[(&str, Duration)]) -> String {
    let names: Vec<_> = updates.iter().take(NAMED_MAX).map(|(name, _)| clean(name)).collect();
    let more = updates.len().saturating_sub(NAMED_MAX);
    if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") }
}

const NAMED_MAX: usize = 4;

#[cfg(test)]
mod tests;
