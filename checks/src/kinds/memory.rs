//! `memory`: memory available without swapping. `swap`: free swap.
//!
//! The memory check uses the kernel's estimate, `MemAvailable`. Free memory means little, because
//! the kernel gives back caches. A host without swap is OK (`check_swap` returns CRITICAL), because
//! many have none on purpose. On the live host the numbers come from `sysinfo` (see
//! [`crate::root`]). The memory limit of the agent's own cgroup does not count: the check is about
//! the host.

use crate::{
    Blocking, Check, Host, Judgement, Kind, Lane, State, always,
    options::{OptionSpec, Reader},
    result::CheckResult,
    root::{ReadError, Root, Space},
    space::{Limit, Limits, human, percent},
};

pub(crate) const MEMORY: Kind = Kind {
    name: "memory",
    about: "memory available without swapping",
    options: MEMORY_OPTIONS,
    lane: Lane::Local,
    built_in: always,
    interval: None,
    has_things: false,
    make: make_memory,
};

pub(crate) const SWAP: Kind = Kind {
    name: "swap",
    about: "free swap, if the host has swap",
    options: SWAP_OPTIONS,
    lane: Lane::Local,
    built_in: has_swap,
    interval: None,
    has_things: false,
    make: make_swap,
};

fn has_swap(host: &Host) -> bool {
    host.root.swap().is_ok_and(|swap| swap.total > 0)
}

const MEMORY_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "warn",
        value: "LIMIT",
        help: "WARNING below this available memory: \"10%\", \"2GiB\" or \"90% used\" [10%]",
    },
    OptionSpec { name: "crit", value: "LIMIT", help: "CRITICAL below this available memory [5%]" },
];

const SWAP_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "warn",
        value: "LIMIT",
        help: "WARNING below this free swap: \"20%\", \"2GiB\" or \"80% used\" [20%]",
    },
    OptionSpec { name: "crit", value: "LIMIT", help: "CRITICAL below this free swap [5%]" },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make_memory(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let defaults = Limits { warn: Limit::percent(10.0), crit: Limit::percent(5.0) };
    let limits = Limits::take(reader, "warn", "crit", defaults);
    Some(Check::blocking(Memory { root: host.root.clone(), limits, read: Root::memory, judge: judge_memory }))
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make_swap(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let defaults = Limits { warn: Limit::percent(20.0), crit: Limit::percent(5.0) };
    let limits = Limits::take(reader, "warn", "crit", defaults);
    Some(Check::blocking(Memory { root: host.root.clone(), limits, read: Root::swap, judge: judge_swap }))
}

struct Memory {
    root: Root,
    limits: Limits,
    read: fn(&Root) -> Result<Space, ReadError>,
    judge: fn(Space, Limits) -> CheckResult,
}

impl Blocking for Memory {
    fn run(&self) -> Judgement {
        match (self.read)(&self.root) {
            Ok(space) => (self.judge)(space, self.limits).into(),
            Err(error) => error.into(),
        }
    }
}

fn judge_memory(memory: Space, limits: Limits) -> CheckResult {
    if memory.total == 0 {
        return CheckResult::unknown("the kernel reports no memory");
    }
    judge(memory, limits, "memory_used", "available")
}

fn judge_swap(swap: Space, limits: Limits) -> CheckResult {
    if swap.total == 0 {
        return CheckResult::new(State::Ok, "no swap on this host");
    }
    judge(swap, limits, "swap_used", "free")
}

#[expect(clippy::cast_precision_loss, reason = "bytes; the error is far below a page")]
fn judge(space: Space, limits: Limits, label: &str, free_is_called: &str) -> CheckResult {
    let (free, total) = (space.available as f64, space.total as f64);
    let summary =
        format!("{:.0}% {free_is_called} ({} of {})", percent(free, total), human(free), human(total));
    CheckResult::new(limits.judge(free, total), summary)
        .with_perfdata(vec![limits.perf(label, "B", free, total)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Options, kind,
        testing::{fixture, run, run_with},
    };

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
    fn a_host_without_swap_is_ok() {
        assert_eq!(run("swap", &fixture("debian12-vm")).to_nagios("swap"), "SWAP OK - no swap on this host");
        let result = run("swap", &fixture("busy"));
        assert_eq!(
            result.to_nagios("swap"),
            "SWAP WARNING - 12% free (256.0 MiB of 2.0 GiB) | swap_used=1879048192B;1717986918;2040109465;0;2147483648"
        );
        assert_eq!(run_with("swap", &[("warn", "10%")], &fixture("busy")).state, State::Ok);
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
        assert_eq!(judge_memory(Space { total: 0, available: 0 }, limits()).state, State::Unknown);
    }

    fn limits() -> Limits {
        Limits { warn: Limit::percent(10.0), crit: Limit::percent(5.0) }
    }
}
