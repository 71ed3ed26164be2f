//! `procs`: whether new processes can start, zombies, and processes that hang in the kernel.
//!
//! A process hangs if for five minutes it is in uninterruptible sleep (state D) at each look and
//! uses no processor time: a backup is often in state D too, but it gets on. Kernel threads do not
//! count, because some drivers sleep like that all the time, and neither do paused containers.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use crate::{
    Blind, Blocking, BuiltIn, Check, CheckResult, Finding, Findings, Host, Judgement, Kind, Lane, Past,
    State, Things,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    read::{
        Readings,
        limits::{self, TaskLimit},
        processes::{self, Process, Processes},
    },
    root::ReadError,
    space::percent,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "procs",
    about: "number of processes and threads, zombies, and processes that hang in the kernel",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::Always,
    interval: None,
    things: Things::Names,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "warn",
        value: "RANGE",
        help: "WARNING range for the number of processes and threads in % of the maximum [85]",
    },
    OptionSpec { name: "crit", value: "RANGE", help: "CRITICAL range for this number [95]" },
    OptionSpec { name: "warn_zombies", value: "RANGE", help: "WARNING range for the number of zombies [5]" },
    OptionSpec { name: "crit_zombies", value: "RANGE", help: "CRITICAL range for this number [10]" },
    OptionSpec {
        name: "warn_blocked",
        value: "RANGE",
        help: "WARNING range for the number of processes that hang in the kernel for 5 minutes [0]",
    },
    OptionSpec { name: "crit_blocked", value: "RANGE", help: "CRITICAL range for this number [9]" },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let mut limits = |warn, default_warn, crit, default_crit| Thresholds {
        warn: reader.range(warn).or(Some(Range::above(default_warn))),
        crit: reader.range(crit).or(Some(Range::above(default_crit))),
    };
    let limits = Limits {
        count: limits("warn", 85.0, "crit", 95.0),
        zombies: limits("warn_zombies", 5.0, "crit_zombies", 10.0),
        blocked: limits("warn_blocked", 0.0, "crit_blocked", 9.0),
    };
    Some(Check::blocking(Procs { readings: host.readings.clone(), limits: Arc::new(limits) }))
}

struct Procs {
    readings: Arc<Readings>,
    limits: Arc<Limits>,
}

#[derive(Debug)]
struct Limits {
    count: Thresholds,
    zombies: Thresholds,
    blocked: Thresholds,
}

/// What one run has read.
struct Reading {
    limits: Arc<Vec<TaskLimit>>,
    processes: Arc<Processes>,
    /// Processes in state D, with the kernel function in which they sleep.
    sleeping: BTreeMap<u32, Option<String>>,
}

impl Blocking for Procs {
    fn run(&self) -> Judgement {
        let limits = Arc::clone(&self.limits);
        match Reading::take(&self.readings) {
            Ok(reading) => Judgement::new(move |past| judge(&reading, &limits, past)),
            Err(error) => error.into(),
        }
    }
}

impl Reading {
    fn take(readings: &Readings) -> Result<Self, ReadError> {
        let (root, processes) = (readings.root(), processes::all(readings)?);
        let asleep = processes.0.iter().filter(|process| process.state == b'D' && !process.of_kernel);
        let sleeping = asleep
            .filter(|process| !processes::is_frozen(root, process.pid))
            .map(|process| (process.pid, processes::sleeps_in(root, process.pid)))
            .collect();
        Ok(Self { limits: readings.share(limits::of_tasks)?, processes, sleeping })
    }

    /// `sshd (4711)`.
    fn name_of(&self, pid: u32) -> String {
        let name = self.processes.0.iter().find(|process| process.pid == pid).map(|process| &process.name);
        format!("{} ({pid})", name.map_or("?", String::as_str))
    }
}

fn judge(reading: &Reading, limits: &Limits, past: &mut Past) -> Findings {
    let mut list = vec![judge_count(reading, limits.count, past)];
    // With the mount option hidepid, others' processes are invisible. Every host has a process 1.
    if !reading.processes.0.iter().any(|process| process.pid == 1) {
        let why = "/proc is mounted with hidepid, so processes of other users are invisible";
        let blind = ["zombies", "blocked"].map(|thing| Blind { thing: thing.into(), why: why.into() });
        return Findings::all(list).with_blind(blind.to_vec());
    }
    list.push(judge_zombies(reading, limits.zombies, past));
    list.push(judge_blocked(reading, limits.blocked, past));
    Findings::all(list)
}

#[expect(clippy::cast_precision_loss, reason = "numbers of processes")]
fn judge_count(reading: &Reading, limits: Thresholds, past: &mut Past) -> Finding {
    const COUNT: &str = "count";
    let share = |limit: &TaskLimit| percent(limit.used as f64, limit.max as f64);
    let Some(worst) = reading.limits.iter().max_by(|a, b| share(a).total_cmp(&share(b))) else {
        return Finding::of(COUNT, CheckResult::unknown("the kernel does not tell how many there can be"));
    };
    let state = limits.judge_after(share(worst), past.was(Some(COUNT)));
    let TaskLimit { name, used, max } = worst;
    let mut summary = format!("{used} processes and threads, {:.0}% of {name} ({max})", share(worst));
    if state != State::Ok
        && let Some((name, count)) = most_frequent(reading.processes.0.iter().map(|process| &process.name))
    {
        let _ = write!(summary, "; most often {name} ({count} processes)");
    }
    let perfdata = vec![
        Perf::new("used", share(worst), "%").thresholds(limits.warn, limits.crit).bounds(0.0, 100.0),
        Perf::new("tasks", *used as f64, "").bounds(0.0, *max as f64),
        Perf::new("processes", reading.processes.0.len() as f64, "").bounds(0.0, None),
    ];
    Finding::of(COUNT, CheckResult::new(state, summary).with_perfdata(perfdata))
}

fn judge_zombies(reading: &Reading, limits: Thresholds, past: &mut Past) -> Finding {
    const ZOMBIES: &str = "zombies";
    let zombies: Vec<&Process> = reading.processes.0.iter().filter(|process| process.state == b'Z').collect();
    let count = float(zombies.len());
    let state = limits.judge_after(count, past.was(Some(ZOMBIES)));
    let mut summary = match zombies.len() {
        0 => "no zombies".to_owned(),
        1 => "1 zombie".to_owned(),
        many => format!("{many} zombies"),
    };
    if let Some((parent, children)) = most_frequent(zombies.iter().map(|zombie| &zombie.parent)) {
        let parent = reading.name_of(*parent);
        let of_them = if children == zombies.len() { String::new() } else { format!("{children} of them ") };
        let _ = write!(summary, ", {of_them}left by {parent}");
    }
    let perf = Perf::new("zombies", count, "").thresholds(limits.warn, limits.crit).bounds(0.0, None);
    let detail = listed(&zombies, |zombie| {
        format!("{} ({}), parent {}", zombie.name, zombie.pid, reading.name_of(zombie.parent))
    });
    let result = CheckResult::new(state, summary).with_perfdata(vec![perf]).with_detail(detail);
    Finding::of(ZOMBIES, result).lasting(SUSTAINED)
}

fn judge_blocked(reading: &Reading, limits: Thresholds, past: &mut Past) -> Finding {
    const BLOCKED: &str = "blocked";
    // If it has used the processor meanwhile, it is another sleep.
    let id = |process: &Process| format!("{} {}", process.id(), process.ticks);
    let asleep: Vec<&Process> =
        reading.processes.0.iter().filter(|process| reading.sleeping.contains_key(&process.pid)).collect();
    let mut blocked = Vec::new();
    for &process in &asleep {
        let since = past.holds_for(&format!("blocked {}", id(process)), true).unwrap_or_default();
        if since >= SUSTAINED {
            blocked.push((process, since));
        }
    }
    past.keep_only("blocked ", |known| asleep.iter().any(|process| id(process) == known));
    blocked.sort_by_key(|&(process, since)| (std::cmp::Reverse(since), process.pid));

    let count = float(blocked.len());
    let said = |&(process, since): &(&Process, Duration)| {
        let place = reading.sleeping.get(&process.pid).cloned().flatten();
        let place = place.map(|place| format!(" in {place}")).unwrap_or_default();
        format!("{} ({}) for {} min{place}", process.name, process.pid, since.as_secs() / 60)
    };
    let summary = match &blocked[..] {
        [] => "no process hangs in the kernel".to_owned(),
        [one] => format!("hangs in the kernel: {}", said(one)),
        [worst, others @ ..] => format!("hang in the kernel: {}, and {} more", said(worst), others.len()),
    };
    let perfdata = vec![
        Perf::new("blocked", count, "").thresholds(limits.warn, limits.crit).bounds(0.0, None),
        Perf::new("uninterruptible", float(asleep.len()), "").bounds(0.0, None),
    ];
    // Not judge_after: each is counted after five minutes, so the number does not hover.
    let result = CheckResult::new(limits.judge(count), summary).with_perfdata(perfdata);
    Finding::of(BLOCKED, result.with_detail(listed(&blocked, said))).at_once()
}

/// One line for each, up to [`LISTED`].
fn listed<T>(items: &[T], line: impl Fn(&T) -> String) -> String {
    let mut lines: Vec<String> = items.iter().take(LISTED).map(line).collect();
    if items.len() > LISTED {
        lines.push(format!("and {} more", items.len() - LISTED));
    }
    lines.join("\n")
}

fn most_frequent<T: Ord>(items: impl Iterator<Item = T>) -> Option<(T, usize)> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_insert(0) += 1;
    }
    counts.into_iter().max_by_key(|&(_, count)| count)
}

#[expect(clippy::cast_precision_loss, reason = "a number of processes")]
fn float(count: usize) -> f64 {
    count as f64
}

const SUSTAINED: Duration = Duration::from_mins(5);
const LISTED: usize = 20;

#[cfg(test)]
mod tests;
