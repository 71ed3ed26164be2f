//! Recent changes of this host: boots, and packages that were installed, upgraded or removed. They
//! appear in messages about problems; no decision depends on them.
//!
//! A thread reads them, because a hanging disk must not stop the loop. The sources are `btime` in
//! `/proc/stat` (proc(5)) and the end of `/var/log/dpkg.log` (dpkg(1), `--log`). A missing source
//! means no changes.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    thread,
    time::Duration,
};

use dogwatch_wire::{HostChange, limits::CHANGES_MAX};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use tokio::sync::watch;
use tracing::warn;

use crate::clock;

/// Older changes are not reported.
const MEMORY: Duration = Duration::from_hours(24);
/// Package changes within this time of each other are one change.
const ONE_RUN: Duration = Duration::from_mins(10);
/// How much of the log is read: some hundred packages.
const TAIL_BYTES: u64 = 128 * 1024;
const NAMES_SHOWN: usize = 3;
const PAUSE: Duration = Duration::from_mins(1);

/// The changes as of now. A thread updates them about once a minute until this is dropped.
pub(crate) struct Changes(watch::Receiver<Vec<HostChange>>);

impl Changes {
    pub(crate) fn watch() -> Self {
        let (tell, told) = watch::channel(Vec::new());
        let look = move || {
            let mut boot = None;
            while !tell.is_closed() {
                boot = steady(boot, booted(&fs::read_to_string("/proc/stat").unwrap_or_default()));
                tell.send_replace(find(boot, clock::wall()));
                thread::sleep(PAUSE.mul_f64(0.9 + 0.2 * fastrand::f64()));
            }
        };
        if let Err(error) = thread::Builder::new().name("changes".into()).spawn(look) {
            warn!(%error, "boots and package changes will not be reported");
        }
        Self(told)
    }

    /// Newest first.
    pub(crate) fn known(&self) -> Vec<HostChange> {
        self.0.borrow().clone()
    }
}

fn find(boot: Option<Timestamp>, now: Timestamp) -> Vec<HostChange> {
    let mut found = match tail(Path::new("/var/log/dpkg.log")) {
        Ok(log) => packages(&log, &TimeZone::system(), now),
        Err(_) => Vec::new(),
    };
    found.extend(boot.map(|at| HostChange { at, what: "booted".into() }));
    recent(found, now)
}

fn recent(mut found: Vec<HostChange>, now: Timestamp) -> Vec<HostChange> {
    let least = now.saturating_sub(MEMORY).unwrap_or(Timestamp::MIN);
    found.retain(|change| change.at >= least && change.at <= now);
    found.sort_by_key(|change| std::cmp::Reverse(change.at));
    found.truncate(CHANGES_MAX);
    found
}

/// The end of a file, without the partial line at the start.
fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(if from > 0 { text.split_once('\n').map_or_else(String::new, |(_, rest)| rest.into()) } else { text })
}

/// The kernel computes `btime` from the clock at each read, so it moves when the clock is set. A
/// host does not boot twice in a minute, so a difference that small is ignored.
fn steady(known: Option<Timestamp>, read: Option<Timestamp>) -> Option<Timestamp> {
    match (known, read) {
        (Some(known), Some(read)) if read.duration_since(known).unsigned_abs() < Duration::from_mins(1) => {
            Some(known)
        }
        (_, read) => read,
    }
}

fn booted(stat: &str) -> Option<Timestamp> {
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_second(seconds.trim().parse().ok()?).ok()
}

/// Package changes that belong together.
struct Run<'a> {
    began: Timestamp,
    last: Timestamp,
    verbs: Vec<&'static str>,
    names: Vec<&'a str>,
}

/// The package changes of the last day. dpkg's log is in local time.
fn packages(log: &str, zone: &TimeZone, now: Timestamp) -> Vec<HostChange> {
    let least = now.saturating_sub(MEMORY).unwrap_or(Timestamp::MIN);
    let mut runs: Vec<Run<'_>> = Vec::new();
    for (at, verb, name) in log.lines().filter_map(|line| entry(line, zone)) {
        if at < least {
            continue;
        }
        match runs.last_mut() {
            Some(run) if at.duration_since(run.last).unsigned_abs() <= ONE_RUN => run.take(at, verb, name),
            _ => runs.push(Run { began: at, last: at, verbs: vec![verb], names: vec![name] }),
        }
    }
    runs.iter().map(|run| HostChange { at: run.began, what: run.words() }).collect()
}

impl<'a> Run<'a> {
    fn take(&mut self, at: Timestamp, verb: &'static str, name: &'a str) {
        self.last = self.last.max(at);
        if !self.verbs.contains(&verb) {
            self.verbs.push(verb);
        }
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    /// `14 packages upgraded: libssl3, openssl, curl, …`
    fn words(&self) -> String {
        let (count, verbs) = (self.names.len(), self.verbs.join(" and "));
        let names = self.names.iter().take(NAMES_SHOWN).map(|name| name.chars().take(60).collect::<String>());
        let names = names.collect::<Vec<_>>().join(", ");
        let noun = if count == 1 { "package" } else { "packages" };
        let more = if count > NAMES_SHOWN { ", …" } else { "" };
        format!("{count} {noun} {verbs}: {names}{more}")
    }
}

/// `2026-11-21 02:03:04 upgrade libssl3:amd64 3.0.11-1 3.0.15-1`
fn entry<'a>(line: &'a str, zone: &TimeZone) -> Option<(Timestamp, &'static str, &'a str)> {
    let mut words = line.split(' ');
    let (day, time, action, package) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let verb = match action {
        "install" => "installed",
        "upgrade" => "upgraded",
        "remove" | "purge" => "removed",
        _ => return None,
    };
    let local: DateTime = format!("{day}T{time}").parse().ok()?;
    let at = zone.to_ambiguous_timestamp(local).compatible().ok()?;
    let name = package.split_once(':').map_or(package, |(name, _)| name);
    Some((at, verb, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-11-18 02:03:04 upgrade old:amd64 1 2
2026-11-20 23:58:30 startup archives unpack
2026-11-20 23:58:31 upgrade libssl3:amd64 3.0.11-1 3.0.15-1
2026-11-20 23:58:31 status half-configured libssl3:amd64 3.0.11-1
2026-11-20 23:58:40 upgrade openssl:amd64 3.0.11-1 3.0.15-1
2026-11-21 00:01:02 upgrade curl:amd64 7.88 7.89
2026-11-21 00:01:03 install libfoo:amd64 <none> 1.0
2026-11-21 00:01:04 configure libfoo:amd64 1.0 <none>
garbage
2026-13-77 00:01:04 install never:amd64 <none> 1.0
2026-11-21 09:30:00 remove telnet:all 0.17 <none>
2026-11-21 09:30:01 purge telnet:all 0.17 <none>
";

    fn said(changes: &[HostChange]) -> Vec<String> {
        changes.iter().map(|change| format!("{} {}", change.at, change.what)).collect()
    }

    #[test]
    fn packages_changed_together_are_one_change_and_old_ones_are_dropped() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!(
            said(&packages(LOG, &zone, now)),
            [
                "2026-11-20T22:58:31Z 4 packages upgraded and installed: libssl3, openssl, curl, …",
                "2026-11-21T08:30:00Z 1 package removed: telnet",
            ]
        );
    }

    #[test]
    fn the_newest_change_comes_first_and_an_old_boot_is_dropped() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let boot = |stat: &str| booted(stat).map(|at| HostChange { at, what: "booted".into() });
        let zone = TimeZone::UTC;
        let mut found = packages(LOG, &zone, now);
        found.extend(boot("cpu 1 2 3\nbtime 1795233600\nprocesses 1\n"));
        let words: Vec<_> = recent(found, now).into_iter().map(|change| change.what).collect();
        assert_eq!(words[0], "1 package removed: telnet");
        assert_eq!(words.len(), 3);
        assert!(recent(boot("btime 1795000000\n").into_iter().collect(), now).is_empty());
        assert!(booted("btime soon\n").is_none());
        let at = |second| Timestamp::from_second(second).ok();
        assert_eq!(steady(at(1_795_233_600), at(1_795_233_601)), at(1_795_233_600));
        assert_eq!(steady(at(1_795_233_600), at(1_795_237_200)), at(1_795_237_200));
        assert_eq!(steady(None, at(1_795_233_600)), at(1_795_233_600));
    }

    #[test]
    fn only_whole_lines_at_the_end_of_a_large_log_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dpkg.log");
        let line = "2026-11-21 09:30:00 install package:all <none> 1\n";
        fs::write(&path, line.repeat(10_000)).unwrap();
        let end = tail(&path).unwrap();
        assert!(end.len() as u64 <= TAIL_BYTES && end.lines().all(|one| one == line.trim_end()));
    }
}
