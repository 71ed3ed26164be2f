//! `memory`: memory available without swapping, and page faults that wait for a disk.
//!
//! The kernel's estimate counts, `MemAvailable`. Free memory means little, because the kernel gives
//! back caches. Two things are missing in the estimate: huge pages are reserved for the programs
//! that want them, so they are neither used nor available, and the check judges the rest of the
//! memory; the cache of ZFS shrinks on demand, so it is available. A tenth of a large memory is
//! plenty, so the default limits are also sizes. The memory limit of the agent's own cgroup does
//! not count: the check is about the host.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use crate::{
    Blocking, BuiltIn, Check, CheckResult, Finding, Findings, Host, Judgement, Kind, Lane, Past, State,
    Things,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    read::{Readings, arcstats::Arcstats, meminfo::Meminfo, vmstat::Vmstat},
    space::{Limit, Limits, human, percent},
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "memory",
    about: "memory available without swapping",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::Always,
    interval: None,
    things: Things::None,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "warn",
        value: "LIMIT",
        help: "WARNING below this available memory: \"10%\", \"2GiB\" or \"90% used\"; with two, WARNING below both [10%,8GiB]",
    },
    OptionSpec { name: "crit", value: "LIMIT", help: "CRITICAL below this available memory [5%,4GiB]" },
    OptionSpec {
        name: "warn_faults",
        value: "RANGE",
        help: "WARNING range for major page faults per second, for 15 minutes [500]",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let defaults = Limits { warn: Limit::percent_and_gib(10.0, 8.0), crit: Limit::percent_and_gib(5.0, 4.0) };
    let limits = Limits::take(reader, "warn", "crit", defaults);
    let faults = reader.range("warn_faults").unwrap_or(Range::above(500.0));
    Some(Check::blocking(Memory { readings: host.readings.clone(), limits, faults }))
}

struct Memory {
    readings: Arc<Readings>,
    limits: Limits,
    /// Major page faults per second.
    faults: Range,
}

impl Blocking for Memory {
    fn run(&self) -> Judgement {
        let memory = match self.readings.get::<Meminfo>() {
            Ok(memory) => memory,
            Err(error) => return error.into(),
        };
        let reading = Reading {
            memory: *memory,
            zfs: self.readings.get::<Arcstats>().map_or(0, |zfs| zfs.reclaimable),
            major_faults: self.readings.get::<Vmstat>().ok().and_then(|vmstat| vmstat.major_faults),
        };
        let (limits, faults) = (self.limits, self.faults);
        Judgement::new(move |past| {
            let result = judge(reading, limits, faults, past);
            Findings::all(vec![Finding::whole(result).lasting(SHORT)])
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    memory: Meminfo,
    /// Bytes that ZFS gives back.
    zfs: u64,
    major_faults: Option<u64>,
}

#[expect(clippy::cast_precision_loss, reason = "bytes; the error is far below a page")]
fn judge(reading: Reading, limits: Limits, faults: Range, past: &mut Past) -> CheckResult {
    let memory = reading.memory;
    let usable = memory.total.saturating_sub(memory.huge);
    if usable == 0 {
        return CheckResult::unknown("the kernel reports no memory");
    }
    let available = memory.available.saturating_add(reading.zfs).min(usable);
    let (available, usable) = (available as f64, usable as f64);

    let floor = |limit: Limit| Some(Range::below(limit.floor(usable)));
    let floors = Thresholds { warn: floor(limits.warn), crit: floor(limits.crit) };
    let mut state = floors.judge_after(available, past.was(None));
    let mut summary =
        format!("{:.0}% available ({} of {}", percent(available, usable), human(available), human(usable));
    summary += if memory.huge > 0 { ", without huge pages)" } else { ")" };
    let mut perfdata = vec![limits.perf("memory_used", "B", available, usable)];
    if memory.huge > 0 {
        perfdata.push(Perf::new("huge_pages", memory.huge as f64, "B").bounds(0.0, memory.total as f64));
    }

    if let Some(rate) = reading.major_faults.and_then(|counter| past.rate("major faults", counter)) {
        let many = past.holds_for("many major faults", faults.alerts(rate));
        if let Some(lasted) = many.filter(|lasted| *lasted >= SUSTAINED) {
            let minutes = lasted.as_secs() / 60;
            let _ = write!(
                summary,
                "; programs wait for pages from disk: {rate:.0} major faults per second for {minutes} min"
            );
            state = state.max(State::Warning);
        }
        let faults = Perf::new("major_faults_per_second", rate, "").thresholds(Some(faults), None);
        perfdata.push(faults.bounds(0.0, None));
    }
    CheckResult::new(state, summary).with_perfdata(perfdata)
}

/// A program may allocate much for a moment.
const SHORT: Duration = Duration::from_mins(2);
/// For page faults, as in node-mixin: a large program that starts has many.
const SUSTAINED: Duration = Duration::from_mins(15);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Options, kind,
        testing::{fixture, run, run_with},
    };

    const GIB: u64 = 1 << 30;

    fn default_limits() -> Limits {
        Limits { warn: Limit::percent_and_gib(10.0, 8.0), crit: Limit::percent_and_gib(5.0, 4.0) }
    }

    fn judged(memory: Meminfo, zfs: u64, past: &mut Past) -> CheckResult {
        judge(Reading { memory, zfs, major_faults: None }, default_limits(), Range::above(500.0), past)
    }

    #[test]
    fn available_memory_counts_and_not_free_memory() {
        assert_eq!(
            run("memory", &fixture("debian12-vm")).to_nagios("memory"),
            "MEMORY OK - 97% available (22.8 GiB of 23.5 GiB) | memory_used=800411648B;22748862873;24012688588;0;25276514304"
        );
    }

    #[test]
    fn little_available_memory_alerts() {
        // 8 % of 16 GiB are available, although only 1 % is free.
        let host = fixture("busy");
        assert_eq!(run("memory", &host).state, State::Warning);
        assert_eq!(run_with("memory", &[("warn", "5%"), ("crit", "1%")], &host).state, State::Ok);
        assert_eq!(run_with("memory", &[("crit", "91% used")], &host).state, State::Critical);
        assert_eq!(run_with("memory", &[("warn", "3GiB"), ("crit", "2GiB")], &host).state, State::Critical);
    }

    #[test]
    fn huge_pages_of_a_database_are_no_use_of_memory() {
        let result = run("memory", &fixture("hugepages"));
        assert_eq!(result.state, State::Ok);
        assert_eq!(result.summary, "42% available (5.9 GiB of 14.0 GiB, without huge pages)");
        assert_eq!(
            result.perfdata_text(),
            "memory_used=8722246656B;13517861990;14268854323;0;15019846656 huge_pages=51539607552B;;;0;66559454208"
        );
    }

    #[test]
    fn the_cache_of_zfs_is_available() {
        let memory = Meminfo { total: 32 * GIB, available: GIB, ..Meminfo::default() };
        assert_eq!(judged(memory, 0, &mut Past::default()).state, State::Critical);
        let result = judged(memory, 15 * GIB, &mut Past::default());
        assert_eq!((result.state, &result.summary[..13]), (State::Ok, "50% available"));
        let result = judged(memory, 99 * GIB, &mut Past::default());
        assert_eq!(&result.summary[..14], "100% available");
    }

    #[test]
    fn a_tenth_of_a_large_memory_is_plenty() {
        let large = |available| {
            let memory = Meminfo { total: 512 * GIB, available, ..Meminfo::default() };
            judged(memory, 0, &mut Past::default()).state
        };
        let states = [20 * GIB, 7 * GIB, 3 * GIB].map(large);
        assert_eq!(states, [State::Ok, State::Warning, State::Critical]);
    }

    #[test]
    fn memory_that_hovers_at_a_limit_does_not_alert_again_and_again() {
        let mut past = Past::default();
        let mut state = |available: u64| {
            let memory = Meminfo { total: 10_000, available, ..Meminfo::default() };
            let judged = Judgement::new(move |past| judged(memory, 0, past).into());
            judged.judge(&mut past, Duration::ZERO).list[0].result.state
        };
        let states = [1_010, 990, 1_010, 1_099, 1_110, 1_010].map(&mut state);
        assert_eq!(states.map(|state| state == State::Warning), [false, true, true, true, false, false]);
    }

    #[test]
    fn major_faults_alert_after_a_quarter_of_an_hour() {
        let mut past = Past::default();
        let mut at = |minute: u64, major_faults: u64| {
            let memory = Meminfo { total: 10, available: 9, ..Meminfo::default() };
            let reading = Reading { memory, zfs: 0, major_faults: Some(major_faults) };
            let judgement = Judgement::new(move |past| {
                judge(reading, default_limits(), Range::above(500.0), past).into()
            });
            judgement.judge(&mut past, Duration::from_mins(minute)).list.remove(0).result
        };
        for minute in 0..=15 {
            assert_eq!(at(minute, minute * 60 * 600).state, State::Ok, "{minute}");
        }
        let result = at(16, 16 * 60 * 600);
        assert_eq!(result.state, State::Warning);
        assert!(result.summary.ends_with("600 major faults per second for 15 min"), "{}", result.summary);
        assert!(result.perfdata_text().ends_with("major_faults_per_second=600;500;;0"));
        assert_eq!(at(17, 16 * 60 * 600).state, State::Ok);
    }

    #[test]
    fn a_warning_limit_beyond_the_critical_limit_is_an_error() {
        let build = |pairs: &[(&str, &str)]| {
            let options: Options = pairs.iter().copied().collect();
            kind("memory").unwrap().build(&options, &Host::live()).map(drop)
        };
        let errors = build(&[("warn", "80%"), ("crit", "90%")]).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].option, "warn");
        assert!(errors[0].message.contains("80% used"), "{}", errors[0]);
        assert_eq!(build(&[("crit", "20%")]).unwrap_err()[0].option, "crit");
        assert_eq!(build(&[("warn", "80%")]), Ok(()));
    }

    #[test]
    fn memory_that_cannot_be_read_is_unknown() {
        assert_eq!(run("memory", &fixture("empty")).state, State::Unknown);
        let all_huge = Meminfo { total: GIB, huge: GIB, ..Meminfo::default() };
        assert_eq!(judged(all_huge, 0, &mut Past::default()).state, State::Unknown);
    }
}
