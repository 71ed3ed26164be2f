//! `pressure`: how long tasks wait for the processors, for memory and for disks, as the kernel
//! measures it (PSI).
//!
//! Unlike the load or the use of memory, pressure is zero as long as nothing is slower for it. For
//! memory and disks, the time counts in which nobody got anything done (`full`); for the processors
//! there is only the time in which some task waited.

use std::{sync::Arc, time::Duration};

use crate::{
    Blocking, BuiltIn, Check, CheckResult, Finding, Findings, Host, Judgement, Kind, Lane, Past, Things,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    read::{
        Readings,
        pressure::{CpuPressure, IoPressure, MemoryPressure, Pressure},
    },
    root::ReadError,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "pressure",
    about: "time that tasks wait for processors, memory and disks (PSI)",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("pressure stall information (/proc/pressure)", |host| {
        host.readings.get::<MemoryPressure>().is_ok()
    }),
    interval: None,
    things: Things::Names,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "warn_cpu",
        value: "RANGE",
        help: "WARNING range for the time in % that some task waited for a processor [none: a host may be busy]",
    },
    OptionSpec { name: "crit_cpu", value: "RANGE", help: "CRITICAL range for this time [none]" },
    OptionSpec {
        name: "warn_memory",
        value: "RANGE",
        help: "WARNING range for the time in % that all tasks waited for memory [5]",
    },
    OptionSpec { name: "crit_memory", value: "RANGE", help: "CRITICAL range for this time [20]" },
    OptionSpec {
        name: "warn_io",
        value: "RANGE",
        help: "WARNING range for the time in % that all tasks waited for disks [20]",
    },
    OptionSpec { name: "crit_io", value: "RANGE", help: "CRITICAL range for this time [50]" },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let mut limits = |warn, default_warn: Option<f64>, crit, default_crit: Option<f64>| Thresholds {
        warn: reader.range(warn).or(default_warn.map(Range::above)),
        crit: reader.range(crit).or(default_crit.map(Range::above)),
    };
    let limits = [
        limits("warn_cpu", None, "crit_cpu", None),
        limits("warn_memory", Some(5.0), "crit_memory", Some(20.0)),
        limits("warn_io", Some(20.0), "crit_io", Some(50.0)),
    ];
    Some(Check::blocking(Waiting { readings: host.readings.clone(), limits }))
}

struct Waiting {
    readings: Arc<Readings>,
    /// For [`RESOURCES`].
    limits: [Thresholds; 3],
}

/// The things, and what tasks wait for.
const RESOURCES: [(&str, &str); 3] = [
    ("cpu", "some task waited for a processor"),
    ("memory", MEMORY_SAID),
    ("io", "all tasks waited for disks"),
];
const MEMORY_SAID: &str = "all tasks waited for memory";

impl Blocking for Waiting {
    fn run(&self) -> Judgement {
        let read = [
            self.readings.get::<CpuPressure>().map(|cpu| cpu.0),
            self.readings.get::<MemoryPressure>().map(|memory| memory.0),
            self.readings.get::<IoPressure>().map(|io| io.0),
        ];
        let limits = self.limits;
        Judgement::new(move |past| {
            let things = RESOURCES.into_iter().zip(read).zip(limits);
            Findings::all(
                things.map(|((resource, read), limits)| judge(resource, read, limits, past)).collect(),
            )
        })
    }
}

fn judge(
    (thing, said): (&str, &str),
    read: Result<Pressure, ReadError>,
    limits: Thresholds,
    past: &mut Past,
) -> Finding {
    let pressure = match read {
        Ok(pressure) => pressure,
        Err(error) => return Finding::of(thing, CheckResult::unknown(error.to_string())),
    };
    let judges_some = thing == "cpu";
    let judged = if judges_some { pressure.some } else { pressure.full.unwrap_or_default() };
    let state = limits.judge_after(judged.over_60_s, past.was(Some(thing)));
    let mut perfdata = Vec::new();
    for (name, stalled) in [("some", Some(pressure.some)), ("full", pressure.full)] {
        let Some(stalled) = stalled else { continue };
        let over_60_s = Perf::new(format!("{thing}_{name}60"), stalled.over_60_s, "%").bounds(0.0, 100.0);
        perfdata.push(if (name == "some") == judges_some {
            over_60_s.thresholds(limits.warn, limits.crit)
        } else {
            over_60_s
        });
        perfdata.push(Perf::new(format!("{thing}_{name}300"), stalled.over_300_s, "%").bounds(0.0, 100.0));
    }
    let (minute, minutes) = (judged.over_60_s, judged.over_300_s);
    let summary = format!("{minute:.0}% of the last minute {said} ({minutes:.0}% of the last 5 min)");
    Finding::of(thing, CheckResult::new(state, summary).with_perfdata(perfdata)).lasting(SUSTAINED)
}

/// A backup or a build may stall a host for a few minutes.
const SUSTAINED: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        State,
        root::Root,
        testing::{findings, fixture, lines},
    };

    fn host(cpu: &str, memory: &str, io: &str) -> (tempfile::TempDir, Host) {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("proc/pressure")).unwrap();
        for (name, averages) in [("cpu", cpu), ("memory", memory), ("io", io)] {
            let (some, full) = averages.split_once(' ').unwrap();
            let text = format!(
                "some avg10=0.00 avg60={some} avg300=1.00 total=1\nfull avg10=0.00 avg60={full} avg300=0.50 total=1\n"
            );
            fs::write(tree.path().join("proc/pressure").join(name), text).unwrap();
        }
        let host = Host::new(Root::captured(tree.path()));
        (tree, host)
    }

    fn run(host: &Host, past: &mut Past) -> Findings {
        findings("pressure", &[], host, past, Duration::from_hours(1))
    }

    #[test]
    fn each_resource_is_judged_by_its_own_limits() {
        let (_tree, host) = host("59.00 0.00", "30.00 7.20", "90.00 51.00");
        let found = run(&host, &mut Past::default());
        assert_eq!(
            lines(&found),
            [
                "cpu OK 59% of the last minute some task waited for a processor (1% of the last 5 min)",
                "memory WARNING 7% of the last minute all tasks waited for memory (0% of the last 5 min)",
                "io CRITICAL 51% of the last minute all tasks waited for disks (0% of the last 5 min)",
            ]
        );
        assert!(found.list.iter().all(|finding| finding.lasting == Some(SUSTAINED)));
        assert_eq!(
            found.list[1].result.perfdata_text(),
            "memory_some60=30%;;;0;100 memory_some300=1%;;;0;100 memory_full60=7.2%;5;20;0;100 memory_full300=0.5%;;;0;100"
        );
    }

    #[test]
    fn pressure_that_hovers_at_a_limit_does_not_alert_again_and_again() {
        let mut past = Past::default();
        let mut cpu = |some: &str| {
            let (_tree, host) = host(some, "0.00 0.00", "0.00 0.00");
            let limits = [("warn_cpu", "60")];
            findings("pressure", &limits, &host, &mut past, Duration::from_hours(1)).list[0].result.state
        };
        assert_eq!(
            ["61.0 0", "59.0 0", "55.0 0", "53.9 0", "59.0 0"].map(&mut cpu),
            [State::Warning, State::Warning, State::Warning, State::Ok, State::Ok]
        );
    }

    #[test]
    fn a_kernel_without_pressure_has_no_such_check() {
        assert!(!KIND.is_built_in(&fixture("empty")));
        let found = run(&fixture("empty"), &mut Past::default());
        assert!(found.list.iter().all(|finding| finding.result.state == State::Unknown));
        let (_tree, host) = host("1.0 0", "1.0 0", "1.0 0");
        assert!(KIND.is_built_in(&host));
    }
}
