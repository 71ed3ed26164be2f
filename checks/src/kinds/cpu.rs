//! `cpu`: how busy the processors are, how long they wait for disks, and how much time the
//! hypervisor takes away.
//!
//! A busy host is no problem in itself: builds, renderers and databases use what there is, and what
//! suffers from it shows in `load` and `pressure`. So there is no limit unless one is set
//! (node-mixin: for information only). Busy is all time but idle, iowait and nice: work with a low
//! priority gives way to the rest (netdata#1833). All shares are averages over ten minutes, so a
//! short job raises no alert. The kernel's counters are not exact: iowait can go back
//! (nomad#18804), and steal did so on kernels 4.4 to 4.11, or jumped (node_exporter#742,
//! psutil#1210). A counter that goes back counts as no time; time that cannot have passed does not
//! count as stolen.

use std::time::Duration;

use crate::{
    Blocking, BuiltIn, Check, CheckResult, Finding, Findings, Host, Judgement, Kind, Lane, Past, State,
    Things,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    read::{
        Readings,
        stat::{MODES, Stat},
    },
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "cpu",
    about: "time that the processors are busy, wait for disks, or are taken by the hypervisor",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("/proc/stat", |host| host.readings.get::<Stat>().is_ok()),
    interval: None,
    things: Things::Names,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "warn",
        value: "RANGE",
        help: "WARNING range for the busy time in %, over 10 minutes, without nice [none: a host may be busy]",
    },
    OptionSpec { name: "crit", value: "RANGE", help: "CRITICAL range for the busy time [none]" },
    OptionSpec {
        name: "warn_iowait",
        value: "RANGE",
        help: "WARNING range for the time in % that processors are idle because of disks [40]",
    },
    OptionSpec { name: "crit_iowait", value: "RANGE", help: "CRITICAL range for this time [none]" },
    OptionSpec {
        name: "warn_steal",
        value: "RANGE",
        help: "WARNING range for the time in % that the hypervisor takes for other guests [10]",
    },
    OptionSpec { name: "crit_steal", value: "RANGE", help: "CRITICAL range for this time [none]" },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let mut limits = |warn, default: Option<f64>, crit| Thresholds {
        warn: reader.range(warn).or(default.map(Range::above)),
        crit: reader.range(crit),
    };
    let limits = Limits {
        busy: limits("warn", None, "crit"),
        iowait: limits("warn_iowait", Some(40.0), "crit_iowait"),
        steal: limits("warn_steal", Some(10.0), "crit_steal"),
    };
    Some(Check::blocking(Cpu { readings: host.readings.clone(), limits }))
}

struct Cpu {
    readings: std::sync::Arc<Readings>,
    limits: Limits,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    busy: Thresholds,
    iowait: Thresholds,
    steal: Thresholds,
}

impl Blocking for Cpu {
    fn run(&self) -> Judgement {
        let limits = self.limits;
        match self.readings.get::<Stat>() {
            Ok(stat) => Judgement::new(move |past| judge(&stat, limits, past)),
            Err(error) => error.into(),
        }
    }
}

fn judge(stat: &Stat, limits: Limits, past: &mut Past) -> Findings {
    let shares = Shares::since_last(stat, past);
    let mut busy = judge_one("busy", "busy", shares.map(Shares::busy), limits.busy, past);
    if let Some(shares) = shares {
        let modes = MODES.iter().zip(shares.0).filter(|(mode, _)| !matches!(**mode, "iowait" | "steal"));
        busy.perfdata.extend(modes.map(|(mode, share)| percent(mode, share)));
    }
    let rates = [("context_switches", stat.context_switches), ("forks", stat.forks)];
    for (name, counter) in rates {
        if let Some(rate) = counter.and_then(|counter| past.rate(name, counter)) {
            busy.perfdata.push(Perf::new(format!("{name}_per_second"), rate, "").bounds(0.0, None));
        }
    }
    let waits = "iowait";
    let iowait = judge_one("iowait", waits, shares.map(Shares::iowait), limits.iowait, past);
    let mut list = vec![Finding::of("busy", busy), Finding::of("iowait", iowait).lasting(WAITING)];
    // Without a hypervisor, or if it does not tell, this is always 0.
    if stat.ticks[STEAL] > 0 {
        let taken = "taken by the hypervisor for other guests";
        let steal = judge_one("steal", taken, shares.map(Shares::steal), limits.steal, past);
        list.push(Finding::of("steal", steal).lasting(STOLEN));
    }
    Findings::all(list)
}

/// `said`: `97% busy`.
fn judge_one(
    thing: &str,
    said: &str,
    share: Option<f64>,
    limits: Thresholds,
    past: &mut Past,
) -> CheckResult {
    let before = past.was(Some(thing));
    let Some(share) = share else {
        let state = if before == State::Unknown { State::Ok } else { before };
        return CheckResult::new(state, "needs a second reading");
    };
    let (judged, over) = match past.average(thing, share, AVERAGED) {
        Some(average) => (Some(average), " on average over the last 10 min"),
        None => (None, ""),
    };
    let state = judged.map_or(State::Ok, |average| limits.judge_after(average, before));
    let shown = judged.unwrap_or(share);
    CheckResult::new(state, format!("{shown:.0}% {said}{over}"))
        .with_perfdata(vec![percent(thing, shown).thresholds(limits.warn, limits.crit)])
}

fn percent(label: &str, share: f64) -> Perf {
    Perf::new(label, share, "%").bounds(0.0, 100.0)
}

/// The share of each of the [`MODES`] in the time since the last run, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shares([f64; MODES.len()]);

const NICE: usize = 1;
const IDLE: usize = 3;
const IOWAIT: usize = 4;
const STEAL: usize = 7;

impl Shares {
    /// `None` at the first reading, or if no time has passed.
    fn since_last(stat: &Stat, past: &mut Past) -> Option<Self> {
        let mut at = 0;
        let mut ticks = stat.ticks.map(|ticks| {
            let rate = past.rate(MODES[at], ticks).unwrap_or(0.0);
            at += 1;
            rate
        });
        #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
        let possible = TICKS_PER_SECOND * stat.processors.max(1) as f64;
        if ticks[STEAL] > possible * 1.1 {
            ticks[STEAL] = 0.0;
        }
        let total: f64 = ticks.iter().sum();
        (total > 0.0).then(|| Self(ticks.map(|ticks| ticks / total * 100.0)))
    }

    fn busy(self) -> f64 {
        (100.0 - self.0[IDLE] - self.0[IOWAIT] - self.0[NICE]).max(0.0)
    }

    fn iowait(self) -> f64 {
        self.0[IOWAIT]
    }

    fn steal(self) -> f64 {
        self.0[STEAL]
    }
}

/// `USER_HZ`. It is 100 on all architectures that Debian supports, whatever `CONFIG_HZ` is.
const TICKS_PER_SECOND: f64 = 100.0;
/// As in the stock alarms of netdata, like the limits.
const AVERAGED: Duration = Duration::from_mins(10);
const WAITING: Duration = Duration::from_mins(10);
const STOLEN: Duration = Duration::from_mins(20);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        root::Root,
        testing::{findings, fixture, lines},
    };

    /// A host with two processors, and a minute for each run.
    struct Machine {
        tree: tempfile::TempDir,
        host: Host,
        past: Past,
        minute: u64,
        ticks: [u64; 8],
    }

    impl Machine {
        fn new() -> Self {
            let tree = tempfile::tempdir().unwrap();
            fs::create_dir(tree.path().join("proc")).unwrap();
            let host = Host::new(Root::captured(tree.path()));
            let ticks = [1_000, 1_000, 1_000, 10_000, 100, 10, 10, 0];
            let mut machine = Self { tree, host, past: Past::default(), minute: 0, ticks };
            machine.run();
            machine
        }

        fn run(&mut self) -> Findings {
            self.minute += 1;
            let ticks = self.ticks.map(|ticks| ticks.to_string()).join(" ");
            let forks = 100 + self.minute * 120;
            let text = format!("cpu  {ticks} 0 0\ncpu0 0\ncpu1 0\nctxt 5\nprocesses {forks}\n");
            fs::write(self.tree.path().join("proc/stat"), text).unwrap();
            let limits = [("warn", "85"), ("crit", "95")];
            findings("cpu", &limits, &self.host, &mut self.past, Duration::from_mins(self.minute))
        }

        /// Spends minutes with these shares of user, nice, iowait and steal, in percent.
        fn spend(&mut self, minutes: u64, [user, nice, iowait, steal]: [u64; 4]) -> Findings {
            for _ in 1..minutes {
                self.spend(1, [user, nice, iowait, steal]);
            }
            let idle = 100 - user - nice - iowait - steal;
            for (mode, share) in [(0, user), (NICE, nice), (IDLE, idle), (IOWAIT, iowait), (STEAL, steal)] {
                self.ticks[mode] += share * 120;
            }
            self.run()
        }
    }

    fn states(findings: &Findings) -> Vec<String> {
        let state = |finding: &Finding| {
            format!("{} {}", finding.thing.as_deref().unwrap_or("-"), finding.result.state)
        };
        findings.list.iter().map(state).collect()
    }

    #[test]
    fn the_first_reading_is_ok_and_the_second_has_shares_and_rates() {
        let mut machine = Machine::new();
        let found = machine.spend(1, [50, 10, 5, 0]);
        assert_eq!(lines(&found), ["busy OK 50% busy", "iowait OK 5% iowait"]);
        let perfdata = found.list[0].result.perfdata_text();
        assert_eq!(
            perfdata,
            "busy=50%;85;95;0;100 user=50%;;;0;100 nice=10%;;;0;100 system=0%;;;0;100 idle=35%;;;0;100 \
             irq=0%;;;0;100 softirq=0%;;;0;100 context_switches_per_second=0;;;0 forks_per_second=2;;;0"
        );
        let first = findings("cpu", &[], &machine.host, &mut Past::default(), Duration::from_mins(1));
        assert_eq!(states(&first), ["busy OK", "iowait OK"]);
    }

    #[test]
    fn ten_busy_minutes_alert_and_two_do_not() {
        let mut machine = Machine::new();
        machine.spend(20, [10, 0, 0, 0]);
        assert_eq!(states(&machine.spend(2, [100, 0, 0, 0])), ["busy OK", "iowait OK"]);
        let found = machine.spend(10, [97, 0, 0, 0]);
        assert_eq!(lines(&found)[0], "busy CRITICAL 97% busy on average over the last 10 min");
        assert_eq!(states(&machine.spend(12, [90, 0, 0, 0]))[0], "busy CRITICAL", "clears at 85.5 %");
        assert_eq!(states(&machine.spend(12, [80, 0, 0, 0]))[0], "busy WARNING", "clears at 76.5 %");
        assert_eq!(states(&machine.spend(12, [70, 0, 0, 0]))[0], "busy OK");
    }

    #[test]
    fn work_with_low_priority_is_not_busy() {
        let mut machine = Machine::new();
        assert_eq!(states(&machine.spend(30, [2, 98, 0, 0])), ["busy OK", "iowait OK"]);
    }

    #[test]
    fn waiting_for_disks_and_stolen_time_are_services_of_their_own() {
        let mut machine = Machine::new();
        let found = machine.spend(12, [10, 0, 60, 20]);
        assert_eq!(states(&found), ["busy OK", "iowait WARNING", "steal WARNING"]);
        let lasting: Vec<_> = found.list.iter().map(|finding| finding.lasting).collect();
        assert_eq!(lasting, [None, Some(WAITING), Some(STOLEN)]);
    }

    #[test]
    fn counters_that_go_back_or_jump_raise_no_alert() {
        let mut machine = Machine::new();
        machine.spend(20, [10, 0, 10, 5]);
        machine.ticks[IOWAIT] -= 50;
        let found = machine.run();
        assert_eq!(states(&found), ["busy OK", "iowait OK", "steal OK"]);
        for _ in 0..15 {
            machine.ticks[STEAL] += 832_457_433;
            machine.spend(1, [10, 0, 0, 0]);
        }
        assert_eq!(states(&machine.run()), ["busy OK", "iowait OK", "steal OK"]);
        machine.ticks = [1, 1, 1, 1, 1, 1, 1, 1];
        assert_eq!(states(&machine.run()), ["busy OK", "iowait OK", "steal OK"], "a new container");
    }

    #[test]
    fn a_stat_that_cannot_be_read_is_unknown_and_not_built_in() {
        let host = fixture("empty");
        assert!(!KIND.is_built_in(&host));
        let found = findings("cpu", &[], &host, &mut Past::default(), Duration::ZERO);
        assert_eq!(found.list[0].result.state, State::Unknown);
    }
}
