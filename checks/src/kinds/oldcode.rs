//! `oldcode`: processes that still run a program or a library that was replaced, for example by an
//! update of OpenSSL. An update only helps after a restart of what uses it.
//!
//! Only files from packages count (`/usr`, `/lib`, …; programs also in `/opt`), and of libraries
//! only mapped code: not memfd, shared memory, JIT, temporary files, or a browser that updates
//! itself in a home directory. Processes with another root directory (containers, snaps) do not
//! count, because their files are not those of this host. Processes of logins and desktops are
//! counted, but are not a problem unless `sessions` is set: nobody restarts a tmux for a new libc.
//!
//! A file that still exists with the same inode was not replaced (overlayfs after a copy-up).

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _},
    os::unix::fs::MetadataExt as _,
    time::Duration,
};

use crate::{
    Blind, Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    clock,
    options::{OptionSpec, Reader},
    output::clean,
    pattern::Pattern,
    perfdata::Perf,
    read::maps::{self, Deleted, Owner},
    result::CheckResult,
    root::{ReadError, Root},
    span,
};

pub(crate) const KIND: Kind = Kind {
    name: "oldcode",
    about: "processes that run programs or libraries that were replaced",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("/proc/PID/maps", built_in),
    interval: Some(Duration::from_hours(1)),
    things: Things::None,
    make,
};

fn built_in(host: &Host) -> bool {
    host.root.path("/proc/self/maps").exists()
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "warn_after",
        value: "TIME",
        help: "WARNING when a process has run old code for this long [24h]",
    },
    OptionSpec { name: "exclude", value: "UNIT", help: "skip this unit; * matches any text; can be a list" },
    OptionSpec { name: "sessions", value: "", help: "processes of logins and desktops count, too" },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    Some(Check::blocking(OldCode {
        root: host.root.clone(),
        exclude: reader.patterns("exclude"),
        warn_after: reader.delay("warn_after").unwrap_or(Duration::from_hours(24)),
        sessions: reader.flag("sessions"),
    }))
}

struct OldCode {
    root: Root,
    exclude: Vec<Pattern>,
    warn_after: Duration,
    sessions: bool,
}

/// Processes of one unit that run old code.
#[derive(Debug, Clone, PartialEq)]
struct Old {
    processes: usize,
    /// One file that was replaced, for people.
    file: String,
    /// When the file at its path was put there (Unix time).
    replaced: Option<i64>,
}

#[derive(Debug, Default)]
struct Reading {
    /// By unit, or by name of the program if it has none.
    old: BTreeMap<String, Old>,
    sessions: usize,
    examined: usize,
    forbidden: usize,
    excluded: Vec<Blind>,
    now: i64,
}

impl Blocking for OldCode {
    fn run(&self) -> Judgement {
        match self.read() {
            Ok(reading) => {
                let warn_after = self.warn_after;
                Judgement::new(move |past| judge(reading, warn_after, past))
            }
            Err(error) => error.into(),
        }
    }
}

impl OldCode {
    fn read(&self) -> Result<Reading, ReadError> {
        let proc = self.root.path("/proc");
        let entries = fs::read_dir(&proc).map_err(|source| ReadError::Io { path: proc, source })?;
        let mut reading = Reading { now: clock::unix_seconds(), ..Reading::default() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        for process in names.filter(|name| name.bytes().all(|b| b.is_ascii_digit())) {
            match self.examine(&process) {
                Ok(found) => {
                    reading.examined += 1;
                    if let Some(deleted) = found {
                        self.add(&process, deleted, &mut reading);
                    }
                }
                Err(error) if error.kind() == ErrorKind::PermissionDenied => reading.forbidden += 1,
                // A kernel thread, or a process that has ended.
                Err(_) => {}
            }
        }
        Ok(reading)
    }

    /// The first file of a process that was replaced.
    fn examine(&self, process: &str) -> io::Result<Option<Deleted>> {
        let path = |file: &str| self.root.path(format!("/proc/{process}/{file}"));
        let program = fs::read_link(path("exe"))?;
        let (root, ours) = (fs::metadata(path("root"))?, fs::metadata(self.root.path("/"))?);
        if (root.dev(), root.ino()) != (ours.dev(), ours.ino()) {
            return Ok(None);
        }
        if let Some(deleted) = program.to_str().and_then(maps::deleted_program) {
            return Ok(Some(deleted));
        }
        let mut maps = BufReader::new(File::open(path("maps"))?.take(MAPS_MAX));
        let mut line = Vec::new();
        while maps.read_until(b'\n', &mut line)? > 0 {
            // Most lines are neither deleted nor worth decoding.
            if line.ends_with(b" (deleted)\n")
                && let Some(deleted) =
                    maps::deleted_library(String::from_utf8_lossy(&line).trim_end_matches('\n'))
                && !self.is_unchanged(&deleted)
            {
                return Ok(Some(deleted));
            }
            line.clear();
        }
        Ok(None)
    }

    fn is_unchanged(&self, deleted: &Deleted) -> bool {
        fs::metadata(self.root.path(&deleted.path)).is_ok_and(|file| file.ino() == deleted.inode)
    }

    fn add(&self, process: &str, deleted: Deleted, reading: &mut Reading) {
        let read = |file: &str| self.root.read(&format!("/proc/{process}/{file}")).unwrap_or_default();
        let owner = match maps::owner(&read("cgroup")) {
            Owner::Unit(unit) => unit,
            Owner::Session if !self.sessions => {
                reading.sessions += 1;
                return;
            }
            Owner::Session => format!("{} of a login", clean(read("comm").trim())),
            Owner::None => clean(read("comm").trim()),
        };
        if let Some(pattern) = self.exclude.iter().find(|pattern| pattern.matches(&owner)) {
            let why = format!("excluded by exclude = \"{pattern}\"");
            if !reading.excluded.iter().any(|blind| blind.thing == owner) {
                reading.excluded.push(Blind { thing: owner, why });
            }
            return;
        }
        let replaced = fs::metadata(self.root.path(&deleted.path)).ok().map(|file| file.ctime());
        let old = reading.old.entry(owner).or_insert(Old { processes: 0, file: deleted.path, replaced });
        old.processes += 1;
    }
}

/// A Java process with many libraries has about 0.3 MiB.
const MAPS_MAX: u64 = 4 * 1_024 * 1_024;

fn judge(reading: Reading, warn_after: Duration, past: &mut Past) -> Findings {
    let mut blind = reading.excluded;
    if reading.forbidden > 0 {
        blind.push(Blind {
            thing: "processes of other users".into(),
            why: format!("no permission to see what {} of them run (CAP_SYS_PTRACE)", reading.forbidden),
        });
        // The agent itself says nothing about the host.
        if reading.examined <= 1 {
            return Findings::all(Vec::new()).with_blind(blind);
        }
    }
    let mut old: Vec<_> = reading
        .old
        .iter()
        .map(|(owner, old)| (owner.as_str(), old, age(owner, old, reading.now, past)))
        .collect();
    old.sort_by_key(|&(.., age)| std::cmp::Reverse(age));
    forget_others(past, &reading.old);
    let overdue: Vec<_> = old.iter().filter(|&&(.., age)| age > warn_after).collect();
    let state = if overdue.is_empty() { State::Ok } else { State::Warning };
    let shown = if overdue.is_empty() { old.iter().collect() } else { overdue };
    let names: Vec<_> = shown.iter().take(NAMED_MAX).map(|(owner, old, _)| named(owner, old)).collect();
    let more = shown.len().saturating_sub(NAMED_MAX);
    let mut summary = match shown.first() {
        None => format!("no process runs old code ({} examined)", reading.examined),
        Some((.., age)) => {
            format!("restart needed for up to {}: {}", span::human(*age), names.join(", "))
        }
    };
    if more > 0 {
        let _ = write!(summary, " and {more} more");
    }
    if reading.sessions > 0 {
        let _ = write!(summary, "; logins, which do not count: {}", reading.sessions);
    }
    let line = |&(owner, old, age): &(&str, &Old, Duration)| {
        format!("{}: {} processes, for {}", named(owner, old), old.processes, span::human(age))
    };
    #[expect(clippy::cast_precision_loss, reason = "a number of units")]
    let perfdata = vec![Perf::new("units", old.len() as f64, "").bounds(0.0, None)];
    let result = CheckResult::new(state, summary)
        .with_detail(old.iter().map(line).collect::<Vec<_>>().join("\n"))
        .with_perfdata(perfdata);
    Findings::all(vec![Finding::whole(result).at_once()]).with_blind(blind)
}

const NAMED_MAX: usize = 4;

/// `nginx.service (libssl.so.3)`.
fn named(owner: &str, old: &Old) -> String {
    let file = old.file.rsplit('/').next().unwrap_or(&old.file);
    format!("{} ({})", clean(owner), clean(file))
}

/// Since this check first saw it, or since the new file is there, if that is longer ago.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a Unix time")]
fn age(owner: &str, old: &Old, now: i64, past: &mut Past) -> Duration {
    let key = format!("{OLD}{owner}");
    let first = past.fact(&key).map_or(now, |first| first as i64);
    past.learn(&key, first as f64);
    let since = old.replaced.map_or(first, |replaced| replaced.min(first));
    Duration::from_secs(u64::try_from(now.saturating_sub(since)).unwrap_or(0))
}

fn forget_others(past: &mut Past, old: &BTreeMap<String, Old>) {
    let gone: Vec<_> =
        past.facts(OLD).map(|(owner, _)| owner.to_owned()).filter(|owner| !old.contains_key(owner)).collect();
    for owner in gone {
        past.forget(&format!("{OLD}{owner}"));
    }
}

const OLD: &str = "old ";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::{findings, lines, run};

    const HOUR: Duration = Duration::from_hours(1);

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn process(&self, id: u32, exe: &str, maps: &str, cgroup: &str) {
            let directory = self.0.path().join(format!("proc/{id}"));
            fs::create_dir_all(&directory).unwrap();
            symlink(exe, directory.join("exe")).unwrap();
            symlink(self.0.path(), directory.join("root")).unwrap();
            fs::write(directory.join("maps"), maps).unwrap();
            fs::write(directory.join("cgroup"), cgroup).unwrap();
            fs::write(directory.join("comm"), "program\n").unwrap();
        }

        fn host(&self) -> Host {
            Host::new(Root::captured(self.0.path()))
        }
    }

    const SSL: &str = "7f3a4c026000-7f3a4c082000 r-xp 00026000 fe:01 131 /usr/lib/libssl.so.3 (deleted)\n";

    fn old(replaced: Option<i64>) -> Old {
        Old { processes: 2, file: "/usr/lib/libssl.so.3".into(), replaced }
    }

    fn at(now: i64, found: Option<Old>) -> Reading {
        let old = found.map(|old| ("nginx.service".to_owned(), old)).into_iter().collect();
        Reading { old, examined: 90, now, ..Reading::default() }
    }

    #[test]
    fn old_code_may_run_for_a_day() {
        let mut past = Past::default();
        let mut said = |hour: i64, found| {
            let found = judge(at(1_000_000 + hour * 3_600, found), 24 * HOUR, &mut past);
            past = past.facts_only();
            lines(&found).join("")
        };
        assert_eq!(said(0, None), "- OK no process runs old code (90 examined)");
        assert_eq!(
            said(1, Some(old(None))),
            "- OK restart needed for up to 0 s: nginx.service (libssl.so.3)"
        );
        assert_eq!(
            said(26, Some(old(None))),
            "- WARNING restart needed for up to 25 h: nginx.service (libssl.so.3)"
        );
        assert_eq!(said(27, None), "- OK no process runs old code (90 examined)");
        assert!(said(28, Some(old(None))).starts_with("- OK"), "another update");
        assert!(said(29, Some(old(Some(1_000_000 - 86_400)))).starts_with("- WARNING"), "replaced long ago");
    }

    #[test]
    fn services_are_named_and_what_is_not_of_this_host_does_not_count() {
        let tree = Tree::new();
        tree.process(1, "/usr/lib/systemd/systemd", "", "0::/init.scope");
        tree.process(10, "/usr/sbin/nginx", SSL, "0::/system.slice/nginx.service");
        tree.process(11, "/usr/sbin/nginx", SSL, "0::/system.slice/nginx.service");
        tree.process(12, "/usr/sbin/cron (deleted)", "", "0::/system.slice/cron.service");
        tree.process(13, "/usr/bin/tmux", SSL, "0::/user.slice/user-0.slice/session-1.scope");
        tree.process(14, "/usr/bin/tool (deleted)", "", "0::/");
        tree.process(15, "/usr/sbin/nginx", SSL, "0::/system.slice/docker-abc.scope");
        let elsewhere = tempfile::tempdir().unwrap();
        fs::remove_file(tree.0.path().join("proc/15/root")).unwrap();
        symlink(elsewhere.path(), tree.0.path().join("proc/15/root")).unwrap();
        // A kernel thread.
        fs::create_dir_all(tree.0.path().join("proc/2")).unwrap();

        let found = findings("oldcode", &[("exclude", "cron*")], &tree.host(), &mut Past::default(), HOUR);
        assert_eq!(
            lines(&found),
            ["- OK restart needed for up to 0 s: nginx.service (libssl.so.3), program (tool); \
              logins, which do not count: 1"]
        );
        assert!(found.list[0].result.detail.contains("nginx.service (libssl.so.3): 2 processes"));
        assert_eq!(found.blind[0].thing, "cron.service");
    }

    #[test]
    fn a_file_with_the_same_inode_was_not_replaced() {
        let tree = Tree::new();
        let library = tree.0.path().join("usr/lib/libssl.so.3");
        fs::create_dir_all(library.parent().unwrap()).unwrap();
        fs::write(&library, "").unwrap();
        let inode = fs::metadata(&library).unwrap().ino();
        let maps = SSL.replace(" 131 ", &format!(" {inode} "));
        tree.process(10, "/usr/sbin/nginx", &maps, "0::/system.slice/nginx.service");
        let found = findings("oldcode", &[], &tree.host(), &mut Past::default(), HOUR);
        assert_eq!(lines(&found), ["- OK no process runs old code (1 examined)"]);
    }

    #[test]
    fn without_permission_there_is_no_result_but_a_reason() {
        let reading = Reading { forbidden: 88, examined: 1, ..Reading::default() };
        let found = judge(reading, 24 * HOUR, &mut Past::default());
        assert!(found.list.is_empty());
        assert_eq!(found.blind[0].why, "no permission to see what 88 of them run (CAP_SYS_PTRACE)");
    }

    #[test]
    fn the_processes_of_this_host_can_be_read() {
        assert_ne!(run("oldcode", &Host::live()).state, State::Critical);
    }
}
