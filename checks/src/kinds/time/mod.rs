//! `time`: `sync`, whether the clock is synchronised and how much it is off, and `step`, whether it
//! has jumped.
//!
//! The time service is asked, not the kernel: the kernel's flag needs adjtimex(2), for which there
//! is no safe wrapper, and chrony does not set it without `rtcsync` (bottlerocket#1183). A host
//! without a service that can be asked (a container, a virtual machine whose hypervisor sets the
//! clock) is not judged, unless it has been synchronised before.
//!
//! A jump is a change of the wall clock against the time since boot. Both go on during suspend. The
//! first synchronisation after a boot, a suspend or an outage of the time servers may be a jump of
//! any size, which nobody has to know about.

mod service;

use std::{pin::Pin, sync::Arc, time::Duration};

use self::service::Sync;
use crate::{
    Async, Blind, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    clock::{self, Clocks},
    options::{OptionSpec, Reader},
    pattern::Pattern,
    perfdata::Perf,
    read::portable::is_portable,
    result::CheckResult,
    root::Root,
    span,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "time",
    about: "synchronisation and jumps of the clock",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::Always,
    interval: None,
    things: Things::Names,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "exclude", value: "THING", help: "skip \"sync\" or \"step\"" },
    OptionSpec {
        name: "warn",
        value: "RANGE",
        help: "WARNING range for seconds that the clock is off [0.05]",
    },
    OptionSpec {
        name: "crit",
        value: "RANGE",
        help: "CRITICAL range for seconds that the clock is off [0.5]",
    },
    OptionSpec { name: "warn_step", value: "RANGE", help: "WARNING range for a jump in seconds [1]" },
    OptionSpec { name: "crit_step", value: "RANGE", help: "CRITICAL range for a jump in seconds [60]" },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let mut limits = |warn: &str, crit: &str, [above_warn, above_crit]: [f64; 2]| Thresholds {
        warn: reader.range(warn).or(Some(Range::above(above_warn))),
        crit: reader.range(crit).or(Some(Range::above(above_crit))),
    };
    let limits = Limits {
        offset: limits("warn", "crit", [0.05, 0.5]),
        step: limits("warn_step", "crit_step", [1.0, 60.0]),
    };
    let exclude = reader.patterns("exclude");
    Some(Check::asynchronous(Time { root: host.root.clone(), exclude, limits }))
}

struct Time {
    root: Root,
    exclude: Vec<Pattern>,
    limits: Limits,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    offset: Thresholds,
    step: Thresholds,
}

#[derive(Debug, Clone, Default)]
struct Reading {
    clocks: Clocks,
    /// `None` if no time service answers.
    sync: Option<Sync>,
    portable: bool,
}

impl Async for Time {
    fn run(self: Arc<Self>, limit: Duration) -> Pin<Box<dyn Future<Output = Judgement> + Send>> {
        Box::pin(async move {
            let clocks = clock::clocks();
            let asked = tokio::time::timeout(limit, service::look(&self.root, clocks.wall)).await;
            let reading =
                Reading { clocks, sync: asked.unwrap_or_default(), portable: is_portable(&self.root) };
            Judgement::new(move |past| judge(past, &reading, &self.exclude, self.limits))
        })
    }
}

fn judge(past: &mut Past, reading: &Reading, exclude: &[Pattern], limits: Limits) -> Findings {
    let (mut list, mut blind) = (Vec::new(), Vec::new());
    let excluded = |thing: &str| {
        let pattern = exclude.iter().find(|pattern| pattern.matches(thing))?;
        Some(Blind { thing: thing.into(), why: format!("excluded by exclude = \"{pattern}\"") })
    };
    let sync = judge_sync(past, reading, limits.offset);
    let judged = [(SYNC, sync), (STEP, Some(judge_step(past, reading, limits.step)))];
    for (thing, finding) in judged {
        match (excluded(thing), finding) {
            (Some(excluded), _) => blind.push(excluded),
            (None, Some(finding)) => list.push(finding),
            (None, None) => {
                let why = "no time service answers (chrony, ntpd, systemd-timesyncd)".into();
                blind.push(Blind { thing: thing.into(), why });
            }
        }
    }
    Findings::all(list).with_blind(blind)
}

const SYNC: &str = "sync";
const STEP: &str = "step";
/// A service may need this long after a boot (netdata).
const BOOTING: Duration = Duration::from_mins(17);
/// A service that has lost its servers finds others, or slews the clock.
const PATIENCE: Duration = Duration::from_mins(10);

fn judge_sync(past: &mut Past, reading: &Reading, limits: Thresholds) -> Option<Finding> {
    let booting = past.now() < BOOTING;
    let result = match &reading.sync {
        Some(sync) if sync.synchronised => {
            past.learn(SYNC, 1.0);
            judge_offset(past, sync, limits)
        }
        Some(sync) => {
            let state = if booting || reading.portable { State::Ok } else { State::Warning };
            CheckResult::new(state, format!("not synchronised: {} has no time server", sync.service))
        }
        None if past.fact(SYNC).is_some() => {
            let state = if booting { State::Ok } else { State::Warning };
            CheckResult::new(state, "not synchronised: no time service answers any more")
        }
        None => return None,
    };
    Some(Finding::of(SYNC, result).lasting(PATIENCE))
}

fn judge_offset(past: &Past, sync: &Sync, limits: Thresholds) -> CheckResult {
    let Some(offset) = sync.offset else {
        return CheckResult::new(State::Ok, format!("synchronised by {}", sync.service));
    };
    let state = limits.judge_after(offset.abs(), past.was(Some(SYNC)));
    let summary = format!("synchronised by {}, {:.3} ms off", sync.service, offset.abs() * 1e3);
    let perf = Perf::new("offset", offset.abs(), "s").thresholds(limits.warn, limits.crit).bounds(0.0, None);
    CheckResult::new(state, summary).with_perfdata(vec![perf])
}

fn judge_step(past: &mut Past, reading: &Reading, limits: Thresholds) -> Finding {
    let Clocks { wall, boot, awake } = reading.clocks;
    let offset = wall.as_secs_f64() - boot.as_secs_f64();
    let moved = past.change_within(STEP, offset, SHOWN);
    let asleep = u64::try_from(boot.saturating_sub(awake).as_millis()).unwrap_or(u64::MAX);
    // Twice as long as a jump is shown, so that one just after the suspend has been forgotten.
    let has_slept = past.increase_within("asleep", asleep, 2 * SHOWN) >= 1_000.0;
    let wrong = reading.sync.as_ref().is_some_and(|sync| !sync.synchronised);
    let was_wrong = past.change_within("wrong", f64::from(u8::from(wrong)), 2 * SHOWN) < 0.0;
    let expected = past.now() < BOOTING + SHOWN || has_slept || wrong || was_wrong;
    let state = if expected { State::Ok } else { limits.judge(moved.abs()) };
    let summary = match state {
        State::Ok if moved.abs() < 1.0 => "no jump".to_owned(),
        State::Ok => format!("the clock was set by {moved:+.1} s, as expected"),
        _ => {
            let direction = if moved > 0.0 { "forward" } else { "back" };
            let by = match moved.abs() {
                seconds if seconds < 120.0 => format!("{seconds:.1} s"),
                seconds => span::human(Duration::from_secs_f64(seconds)),
            };
            format!("the clock jumped {direction} by {by} within the last 10 min")
        }
    };
    let perf = Perf::new("step", moved.abs(), "s").thresholds(limits.warn, limits.crit).bounds(0.0, None);
    Finding::of(STEP, CheckResult::new(state, summary).with_perfdata(vec![perf])).at_once()
}

/// How long a jump remains a problem.
const SHOWN: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests;
