//! `swap`: whether programs wait for pages that they need back from swap.
//!
//! A full swap alone is no problem: the kernel moves pages there that nobody has used for weeks. It
//! is one if pages come back all the time and tasks wait for memory ([`super::pressure`]). On a
//! kernel without PSI, the rate alone counts. Limits for free swap can be configured. A host
//! without swap is OK (`check_swap` returns CRITICAL), because many have none on purpose.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use crate::{
    Blocking, BuiltIn, Check, CheckResult, Finding, Findings, Host, Judgement, Kind, Lane, Past, State,
    Things,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    read::{Readings, meminfo::Meminfo, pressure::MemoryPressure, vmstat::Vmstat},
    space::{Limit, Limits, human, percent, size},
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "swap",
    about: "programs that wait for swap, if the host has swap",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("swap", |host| {
        host.readings.get::<Meminfo>().is_ok_and(|memory| memory.swap_total > 0)
    }),
    interval: None,
    things: Things::None,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "warn",
        value: "LIMIT",
        help: "WARNING below this free swap: \"20%\", \"2GiB\" or \"80% used\" [none]",
    },
    OptionSpec { name: "crit", value: "LIMIT", help: "CRITICAL below this free swap [none]" },
    OptionSpec {
        name: "warn_in",
        value: "SIZE",
        help: "WARNING if more than this is read from swap per second while tasks wait for memory [1MiB]",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let crit = reader.value("crit").unwrap_or(Limit::percent(0.0));
    let limits = Limits::take(reader, "warn", "crit", Limits { warn: crit, crit });
    let read_in = Range::above(reader.parsed("warn_in", size).unwrap_or(MIB));
    Some(Check::blocking(Swap { readings: host.readings.clone(), limits, read_in }))
}

struct Swap {
    readings: Arc<Readings>,
    limits: Limits,
    /// Bytes per second.
    read_in: Range,
}

impl Blocking for Swap {
    fn run(&self) -> Judgement {
        let memory = match self.readings.get::<Meminfo>() {
            Ok(memory) => memory,
            Err(error) => return error.into(),
        };
        let reading = Reading {
            memory: *memory,
            vmstat: self.readings.get::<Vmstat>().map_or_else(|_| Vmstat::default(), |vmstat| *vmstat),
            waiting: self.readings.get::<MemoryPressure>().ok().map(|pressure| pressure.0.some.over_60_s),
        };
        let (limits, read_in) = (self.limits, self.read_in);
        Judgement::new(move |past| {
            let result = judge(reading, limits, read_in, past);
            Findings::all(vec![Finding::whole(result).lasting(SUSTAINED)])
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    memory: Meminfo,
    vmstat: Vmstat,
    /// The time in percent that some task waited for memory, if the kernel has PSI.
    waiting: Option<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "bytes; the error is far below a page")]
fn judge(reading: Reading, limits: Limits, read_in: Range, past: &mut Past) -> CheckResult {
    let page = rustix::param::page_size() as f64;
    let mut rate = |key, pages: Option<u64>| Some(past.rate(key, pages?)? * page);
    let into = rate("in", reading.vmstat.swapped_in);
    let out = rate("out", reading.vmstat.swapped_out);
    if reading.memory.swap_total == 0 {
        return CheckResult::new(State::Ok, "no swap on this host");
    }
    let (free, total) = (reading.memory.swap_free as f64, reading.memory.swap_total as f64);
    let floor = |limit: Limit| Some(Range::below(limit.floor(total)));
    let before = past.was(None);
    let floors = Thresholds { warn: floor(limits.warn), crit: floor(limits.crit) };
    let mut state = floors.judge(free);
    let mut summary = format!("{:.0}% free ({} of {})", percent(free, total), human(free), human(total));
    let mut perfdata = vec![limits.perf("swap_used", "B", free, total)];
    if let Some(into) = into {
        if into > 0.0 {
            let _ = write!(summary, ", {} read back per second", human(into));
        }
        let waits = reading.waiting.is_none_or(|share| share > WAITING);
        let judged = Thresholds { warn: Some(read_in), crit: None }.judge_after(into, before);
        if waits && judged != State::Ok {
            let waiting = reading
                .waiting
                .map(|share| format!(" while tasks wait for memory ({share:.0}% of the time)"));
            summary += &waiting.unwrap_or_default();
            state = state.max(judged);
        }
        perfdata.push(
            Perf::new("swap_in_per_second", into, "B").thresholds(Some(read_in), None).bounds(0.0, None),
        );
    }
    if let Some(out) = out {
        perfdata.push(Perf::new("swap_out_per_second", out, "B").bounds(0.0, None));
    }
    CheckResult::new(state, summary).with_perfdata(perfdata)
}

const MIB: f64 = 1_048_576.0;
/// Percent of the last minute. Less is not noticed by anyone.
const WAITING: f64 = 10.0;
/// Programs that come back after the night read their pages for a minute or two.
const SUSTAINED: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Options, kind,
        testing::{fixture, run, run_with},
    };

    /// The second of two readings, a minute apart, with swap that is 1 % free.
    fn thrashing(mib_per_second: u64, waiting: Option<f64>) -> CheckResult {
        let mut past = Past::default();
        let memory = Meminfo { swap_total: 100 << 20, swap_free: 1 << 20, ..Meminfo::default() };
        let pages = mib_per_second * 60 * (1 << 20) / u64::try_from(rustix::param::page_size()).unwrap();
        let mut at = |minute, swapped_in| {
            let vmstat = Vmstat { swapped_in: Some(swapped_in), ..Vmstat::default() };
            let limits = Limits { warn: Limit::percent(0.0), crit: Limit::percent(0.0) };
            let reading = Reading { memory, vmstat, waiting };
            let judgement =
                Judgement::new(move |past| judge(reading, limits, Range::above(MIB), past).into());
            judgement.judge(&mut past, Duration::from_mins(minute)).list.remove(0).result
        };
        at(1, 1_000);
        at(2, 1_000 + pages)
    }

    #[test]
    fn a_full_swap_alone_is_no_problem() {
        let result = run("swap", &fixture("busy"));
        assert_eq!(
            result.to_nagios("swap"),
            "SWAP OK - 12% free (256.0 MiB of 2.0 GiB) | swap_used=1879048192B;2147483648;2147483648;0;2147483648"
        );
        let full = Meminfo { swap_total: 100, swap_free: 0, ..Meminfo::default() };
        let reading = Reading { memory: full, vmstat: Vmstat::default(), waiting: Some(90.0) };
        let limits = Limits { warn: Limit::percent(0.0), crit: Limit::percent(0.0) };
        assert_eq!(judge(reading, limits, Range::above(MIB), &mut Past::default()).state, State::Ok);
    }

    #[test]
    fn pages_that_come_back_while_tasks_wait_are_a_problem() {
        let result = thrashing(3, Some(25.0));
        assert_eq!(result.state, State::Warning);
        assert_eq!(
            result.summary,
            "1% free (1.0 MiB of 100.0 MiB), 3.0 MiB read back per second while tasks wait for memory (25% of the time)"
        );
        assert!(result.perfdata_text().ends_with("swap_in_per_second=3145728B;1048576;;0"));
        assert_eq!(thrashing(3, Some(2.0)).state, State::Ok, "compressed swap in memory is fast");
        assert_eq!(thrashing(0, Some(25.0)).state, State::Ok, "the wait has another reason");
        assert_eq!(thrashing(3, None).state, State::Warning, "without PSI the rate counts");
    }

    #[test]
    fn a_host_without_swap_is_ok() {
        let host = fixture("debian12-vm");
        assert_eq!(run("swap", &host).to_nagios("swap"), "SWAP OK - no swap on this host");
        assert!(!KIND.is_built_in(&host));
        assert!(KIND.is_built_in(&fixture("busy")));
    }

    #[test]
    fn limits_for_free_swap_can_be_configured() {
        let state = |options: &[(&str, &str)]| run_with("swap", options, &fixture("busy")).state;
        assert_eq!(state(&[("warn", "20%")]), State::Warning);
        assert_eq!(state(&[("warn", "10%")]), State::Ok);
        assert_eq!(state(&[("crit", "80% used")]), State::Critical);
        assert_eq!(state(&[("warn_in", "10MiB")]), State::Ok);
        let build = |pairs: &[(&str, &str)]| {
            let options: Options = pairs.iter().copied().collect();
            kind("swap").unwrap().build(&options, &Host::live()).map(drop)
        };
        assert_eq!(build(&[("warn", "5%"), ("crit", "10%")]).unwrap_err()[0].option, "warn");
        assert_eq!(build(&[("warn_in", "10%")]).unwrap_err()[0].option, "warn_in");
    }
}
