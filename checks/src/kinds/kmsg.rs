//! `kmsg`: what the kernel has logged about broken hardware, disks, filesystems, lockups and lack
//! of memory.
//!
//! Reads `/dev/kmsg` from its end at the first run, so what was logged before is not news. Each
//! topic is a service from its first message until an hour without one. One run reads at most
//! 2 MiB; the summary says when a flood was skipped. Reading needs `CAP_SYSLOG`, unless
//! `kernel.dmesg_restrict` is 0; without it, nothing is watched, and the list of what is not
//! watched says so.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::{fs::OFlags, io::Errno};

use crate::{
    Blind, Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    options::{OptionSpec, Reader},
    output::clean,
    perfdata::Perf,
    read::kmsg::{self, Event, Topic},
    result::CheckResult,
    root::Root,
    span,
};

pub(crate) const KIND: Kind = Kind {
    name: "kmsg",
    about: "the kernel log: errors of hardware, disks and filesystems, lockups, lack of memory",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("/dev/kmsg", built_in),
    interval: None,
    things: Things::Names,
    make,
};

const DEVICE: &str = "/dev/kmsg";

fn built_in(host: &Host) -> bool {
    host.root.path(DEVICE).exists()
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "exclude",
        value: "TEXT",
        help: "skip messages that contain this text; can be a list",
    },
    OptionSpec {
        name: "hold",
        value: "TIME",
        help: "how long after the last message of a topic its problem is over [1h]",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    Some(Check::blocking(KernelLog {
        root: host.root.clone(),
        exclude: reader.any_list("exclude").unwrap_or_default(),
        hold: reader.delay("hold").unwrap_or(Duration::from_hours(1)),
        open: Mutex::default(),
    }))
}

struct KernelLog {
    root: Root,
    exclude: Vec<String>,
    hold: Duration,
    open: Mutex<Open>,
}

/// The open log, and what was found in it so far.
#[derive(Debug, Default)]
struct Open {
    file: Option<File>,
    found: Found,
}

/// Messages since the log was opened.
#[derive(Debug, Clone, Default, PartialEq)]
struct Found {
    topics: BTreeMap<Topic, Messages>,
    segfaults: u64,
    /// The kernel has overwritten messages, or a run has skipped them.
    lost: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Messages {
    /// In the latest run.
    new: u64,
    /// The worst of the latest run.
    state: State,
    last: String,
}

impl Blocking for KernelLog {
    fn run(&self) -> Judgement {
        match self.read() {
            Ok(found) => {
                let hold = self.hold;
                Judgement::new(move |past| judge(&found, hold, past))
            }
            Err(error) => blind(&error),
        }
    }
}

fn blind(error: &io::Error) -> Judgement {
    let why = match error.kind() {
        ErrorKind::PermissionDenied => "no permission to read /dev/kmsg (CAP_SYSLOG)".to_owned(),
        _ => format!("cannot read /dev/kmsg: {error}"),
    };
    let blind = vec![Blind { thing: "kernel log".into(), why }];
    Findings::all(Vec::new()).with_blind(blind).into()
}

impl KernelLog {
    fn read(&self) -> io::Result<Found> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for messages in open.found.topics.values_mut() {
            messages.new = 0;
        }
        open.found.lost = false;
        let Some(file) = &mut open.file else {
            let mut file = open_log(&self.root.path(DEVICE))?;
            file.seek(SeekFrom::End(0))?;
            open.file = Some(file);
            return Ok(open.found.clone());
        };
        let (bytes, lost) = read_new(file)?;
        open.found.lost = lost;
        for record in String::from_utf8_lossy(&bytes).lines() {
            if let Some(text) = kmsg::text(record)
                && !self.exclude.iter().any(|excluded| text.contains(excluded))
            {
                open.found.add(text);
            }
        }
        Ok(open.found.clone())
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    // In some containers this is the console, which must not become our terminal.
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// The records since the last call, and whether some are missing.
fn read_new(file: &mut File) -> io::Result<(Vec<u8>, bool)> {
    let (mut bytes, mut lost) = (Vec::new(), false);
    // Each read returns one record; a buffer that is too small for it is an error.
    let mut buffer = [0; 8_192];
    while bytes.len() < RUN_MAX {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((bytes, lost)),
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((bytes, lost)),
            // The next record was overwritten; the kernel has moved on to the oldest that is left.
            Err(error) if error.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => lost = true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    file.seek(SeekFrom::End(0))?;
    Ok((bytes, true))
}

const RUN_MAX: usize = 2 * 1_024 * 1_024;

impl Found {
    fn add(&mut self, text: &str) {
        match kmsg::event(text) {
            None => {}
            Some(Event::Segfault) => self.segfaults += 1,
            Some(Event::Problem(topic, state)) => {
                let messages = self.topics.entry(topic).or_insert(Messages {
                    new: 0,
                    state: State::Ok,
                    last: String::new(),
                });
                if messages.new == 0 || state.severity() >= messages.state.severity() {
                    messages.last = clean(text).chars().take(TEXT_MAX).collect();
                    messages.state = state;
                }
                messages.new += 1;
            }
        }
    }
}

/// Long enough for the name of the device, which comes first.
const TEXT_MAX: usize = 200;

#[expect(clippy::cast_precision_loss, reason = "a number of messages")]
fn judge(found: &Found, hold: Duration, past: &mut Past) -> Findings {
    let mut list = Vec::new();
    for topic in Topic::ALL {
        let messages = found.topics.get(&topic);
        if let Some(finding) = judge_topic(topic, messages, hold, past) {
            list.push(finding);
        }
    }
    let recent: Vec<_> = list
        .iter()
        .filter(|finding| finding.result.state != State::Ok)
        .filter_map(|finding| finding.thing.as_deref())
        .collect();
    let summary = if recent.is_empty() {
        "no message about a problem".to_owned()
    } else {
        format!("recent messages about {}", recent.join(", "))
    };
    let flood = if found.lost { "; a flood of messages was skipped" } else { "" };
    let segfaults = Perf::new("segfaults", found.segfaults as f64, "c").bounds(0.0, None);
    let result = CheckResult::new(State::Ok, format!("{summary}{flood}")).with_perfdata(vec![segfaults]);
    list.insert(0, Finding::of("messages", result));
    Findings::all(list)
}

/// The time, number and state of the messages of a topic are facts, so a restart of the agent does
/// not end a problem. A reboot does.
#[expect(clippy::cast_precision_loss, reason = "a number of messages")]
fn judge_topic(
    topic: Topic,
    messages: Option<&Messages>,
    hold: Duration,
    past: &mut Past,
) -> Option<Finding> {
    let name = topic.name();
    let keys = ["at", "count", "critical"].map(|key| format!("{key} {name}"));
    let [at, count, critical] = &keys;
    let now = past.now().as_secs_f64();
    let mut since =
        past.fact(at).map(|at| now - at).filter(|since| (0.0..hold.as_secs_f64()).contains(since));
    let known = if since.is_some() { past.fact(count).unwrap_or(0.0) } else { 0.0 };
    let was_critical = since.is_some() && past.fact(critical).is_some();
    if let Some(messages) = messages.filter(|messages| messages.new > 0) {
        since = Some(0.0);
        past.learn(at, now);
        past.learn(count, known + messages.new as f64);
        if messages.state == State::Critical {
            past.learn(critical, 1.0);
        } else if !was_critical {
            past.forget(critical);
        }
    }
    let Some(since) = since else {
        for key in &keys {
            past.forget(key);
        }
        let over = format!("no message for {}", span::human(hold));
        return (past.was(Some(name)) != State::Ok)
            .then(|| Finding::of(name, CheckResult::new(State::Ok, over)));
    };
    let state = if past.fact(critical).is_some() { State::Critical } else { State::Warning };
    let count = past.fact(count).unwrap_or(1.0);
    let ago = span::human(Duration::from_secs_f64(since));
    let number = if count < 1.5 { "1 message".to_owned() } else { format!("{count:.0} messages") };
    let last = messages.map_or("see the kernel log", |messages| messages.last.as_str());
    let summary = format!("{number}, the last {ago} ago: {last}");
    Some(Finding::of(name, CheckResult::new(state, summary)).at_once())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;
    use crate::{Options, kind, testing::lines};

    const MINUTE: Duration = Duration::from_mins(1);

    /// A host whose kernel log is a file.
    struct World {
        tree: tempfile::TempDir,
        check: Check,
        past: Past,
        now: Duration,
    }

    impl World {
        fn new(log: &str, options: &[(&str, &str)]) -> Self {
            let tree = tempfile::tempdir().unwrap();
            fs::create_dir_all(tree.path().join("dev")).unwrap();
            fs::write(tree.path().join("dev/kmsg"), log).unwrap();
            let options: Options = options.iter().copied().collect();
            let host = Host::new(Root::captured(tree.path()));
            let check = kind("kmsg").unwrap().build(&options, &host).unwrap();
            Self { tree, check, past: Past::default(), now: Duration::from_hours(5) }
        }

        fn log(&self, text: &str) {
            let mut file = OpenOptions::new().append(true).open(self.tree.path().join("dev/kmsg")).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn after(&mut self, span: Duration) -> Vec<String> {
            self.now += span;
            let Check::Blocking(check) = &self.check else { unreachable!() };
            lines(&check.run().judge(&mut self.past, self.now))
        }
    }

    const QUIET: &str = "messages OK no message about a problem";

    #[test]
    fn only_new_messages_are_a_problem_and_it_ends_after_an_hour() {
        let mut world = World::new("2,1,1,-;EXT4-fs error (device sda1): before the start\n", &[]);
        assert_eq!(world.after(MINUTE), [QUIET]);
        assert_eq!(world.after(MINUTE), [QUIET]);
        world.log("3,2,2,-;I/O error, dev sdb, sector 8 op 0x0:(READ)\n SUBSYSTEM=block\n DEVICE=b8:16\n");
        let problems = "messages OK recent messages about disk errors";
        assert_eq!(
            world.after(MINUTE),
            [
                problems,
                "disk errors WARNING 1 message, the last 0 s ago: I/O error, dev sdb, sector 8 op 0x0:(READ)"
            ]
        );
        world.log("3,3,3,-;I/O error, dev sdb, sector 9\n3,4,3,-;I/O error, dev sdb, sector 10\n");
        world.after(MINUTE);
        assert_eq!(
            world.after(MINUTE),
            [problems, "disk errors WARNING 3 messages, the last 60 s ago: I/O error, dev sdb, sector 10"]
        );
        assert_eq!(world.after(60 * MINUTE), [QUIET, "disk errors OK no message for 60 min"]);
        assert_eq!(world.after(MINUTE), [QUIET]);
    }

    #[test]
    fn a_critical_message_stays_critical_and_survives_a_restart_of_the_agent() {
        let mut world = World::new("", &[]);
        world.after(MINUTE);
        world.log("2,1,1,-;EXT4-fs error (device sda1): bad inode\n4,2,1,-;EXT4-fs warning (device sda1)\n");
        assert!(world.after(MINUTE)[1].starts_with("filesystem errors CRITICAL 2 messages"));
        world.log("4,3,1,-;EXT4-fs warning (device sda1)\n");
        assert!(world.after(MINUTE)[1].starts_with("filesystem errors CRITICAL 3 messages"));
        let mut restarted = World::new("", &[]);
        restarted.past = world.past.facts_only();
        restarted.now = world.now;
        let said = restarted.after(MINUTE);
        assert_eq!(said[1], "filesystem errors CRITICAL 3 messages, the last 60 s ago: see the kernel log");
        restarted.now = MINUTE;
        assert!(restarted.after(MINUTE)[1].starts_with("filesystem errors OK"), "the host was rebooted");
    }

    #[test]
    fn a_flood_is_bounded_and_said() {
        let mut world = World::new("", &[]);
        world.after(MINUTE);
        world.log(&"4,1,1,-;some driver repeats itself\n".repeat(100_000));
        assert_eq!(
            world.after(MINUTE),
            ["messages OK no message about a problem; a flood of messages was skipped"]
        );
        assert_eq!(world.after(MINUTE), [QUIET]);
    }

    #[test]
    fn messages_can_be_excluded_and_crashes_of_programs_are_only_counted() {
        let mut world = World::new("", &[("exclude", "dev sdz")]);
        world.after(MINUTE);
        world.log("3,1,1,-;I/O error, dev sdz, sector 8\n6,2,1,-;app[1]: segfault at 0 ip 0\n");
        assert_eq!(world.after(MINUTE), [QUIET]);
    }

    #[test]
    fn a_log_that_cannot_be_read_is_blind() {
        let Check::Blocking(check) = World::new("", &[]).check else { unreachable!() };
        let found = check.run().judge(&mut Past::default(), MINUTE);
        assert!(found.list.is_empty());
        assert!(found.blind[0].why.starts_with("cannot read /dev/kmsg"), "{:?}", found.blind);
        let denied = blind(&ErrorKind::PermissionDenied.into()).judge(&mut Past::default(), MINUTE);
        assert_eq!(denied.blind[0].why, "no permission to read /dev/kmsg (CAP_SYSLOG)");
    }

    #[test]
    fn the_log_of_this_host_can_be_read_without_blocking() {
        let Ok(mut file) = open_log(Path::new(DEVICE)) else { return };
        read_new(&mut file).unwrap();
        assert_eq!(read_new(&mut file).unwrap().0.len() / 100_000, 0);
    }
}
