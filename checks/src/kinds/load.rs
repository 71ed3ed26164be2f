//! `load`: the load average, by default per processor.
//!
//! The default thresholds are for the 5-minute average: a cron job is enough to raise the 1-minute
//! average, and the 15-minute average is late. node-mixin and awesome-prometheus-alerts warn above
//! 2 tasks per processor, but that is what `make -j` with twice the processors does all day, and a
//! few of them at once stay above 4 for as long as they run. 10 is a queue that grows, or processes
//! that hang in the kernel.

use std::{sync::Arc, time::Duration};

use crate::{
    Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, State, Things,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    read::Readings,
    result::CheckResult,
    root::{LoadAverage, ReadError},
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "load",
    about: "load average per processor",
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
        value: "RANGE[,RANGE,RANGE]",
        help: "WARNING range for the 5-minute average, or for 1,5,15 minutes [10]",
    },
    OptionSpec {
        name: "crit",
        value: "RANGE[,RANGE,RANGE]",
        help: "CRITICAL range for the 5-minute average, or for 1,5,15 minutes [20]",
    },
    OptionSpec {
        name: "total",
        value: "",
        help: "use the load of the host instead of the load per processor",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let default = |limit| [None, Some(Range::above(limit)), None];
    let (warn, crit) = (reader.parsed("warn", three), reader.parsed("crit", three));
    if let (Some(warn), Some(crit)) = (warn, crit) {
        let inverted = |(warn, crit): (Option<Range>, Option<Range>)| {
            warn.zip(crit).is_some_and(|(warn, crit)| crit.is_inside(warn))
        };
        if warn.into_iter().zip(crit).any(inverted) {
            reader.error("crit", "the critical limit must not alert where the warning limit does not");
        }
    }
    let (warn, crit) = (warn.unwrap_or(default(10.0)), crit.unwrap_or(default(20.0)));
    let thresholds = [0, 1, 2].map(|i| Thresholds { warn: warn[i], crit: crit[i] });
    Some(Check::blocking(Load { readings: host.readings.clone(), thresholds, total: reader.flag("total") }))
}

/// `"2"` is for 5 minutes; `"4,2,1"` is for 1, 5 and 15, as in `check_load`.
fn three(text: &str) -> Result<[Option<Range>; 3], String> {
    let ranges: Vec<Range> = text
        .split(',')
        .map(|part| part.trim().parse().map_err(|error| format!("{error}")))
        .collect::<Result<_, _>>()?;
    match ranges[..] {
        [five] => Ok([None, Some(five), None]),
        [one, five, fifteen] => Ok([Some(one), Some(five), Some(fifteen)]),
        _ => Err("must be one range, or three ranges for 1, 5 and 15 minutes".into()),
    }
}

struct Load {
    readings: Arc<Readings>,
    thresholds: [Thresholds; 3],
    total: bool,
}

impl Blocking for Load {
    fn run(&self) -> Judgement {
        match self.read() {
            Ok((load, cores)) => {
                let (total, thresholds) = (self.total, self.thresholds);
                Judgement::new(move |past| {
                    let result = judge(load, cores, total, thresholds, past);
                    Findings::all(vec![Finding::whole(result).lasting(BUSY)])
                })
            }
            Err(error) => error.into(),
        }
    }
}

impl Load {
    fn read(&self) -> Result<(LoadAverage, usize), ReadError> {
        self.readings.share(|root| Ok((root.load_average()?, root.cores()?))).map(|both| *both)
    }
}

/// A build or a backup makes a host busy for minutes, and nobody has to get up for that
/// (node-mixin: 15 minutes, awesome-prometheus-alerts: 10).
const BUSY: Duration = Duration::from_mins(10);

fn judge(
    load: LoadAverage,
    cores: usize,
    total: bool,
    thresholds: [Thresholds; 3],
    past: &mut Past,
) -> CheckResult {
    let before = past.was(None);
    #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
    let divisor = if total { 1.0 } else { cores.max(1) as f64 };
    let judged = load.0.map(|average| average / divisor);
    let state = judged
        .iter()
        .zip(thresholds)
        .map(|(&value, thresholds)| thresholds.judge_after(value, before))
        .fold(State::Ok, State::max);
    let perfdata = [("load1", 0), ("load5", 1), ("load15", 2)].map(|(label, i)| {
        let scaled = |range: Option<Range>| range.map(|range| range.scaled(divisor));
        Perf::new(label, load.0[i], "")
            .thresholds(scaled(thresholds[i].warn), scaled(thresholds[i].crit))
            .bounds(0.0, None)
    });
    let [one, five, fifteen] = judged;
    let of = if total { String::new() } else { format!(" per processor ({cores})") };
    CheckResult::new(state, format!("load {one:.2}, {five:.2}, {fifteen:.2}{of}"))
        .with_perfdata(perfdata.to_vec())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::root::Root;
    use crate::testing::{findings, fixture, run, run_with};

    #[test]
    fn the_load_per_processor_counts() {
        let result = run("load", &fixture("debian12-vm"));
        assert_eq!(
            result.to_nagios("load"),
            "LOAD OK - load 0.19, 0.14, 0.14 per processor (2) | load1=0.38;;;0 load5=0.28;20;40;0 load15=0.28;;;0"
        );
    }

    #[test]
    fn a_busy_host_alerts_on_the_five_minute_average() {
        let host = fixture("busy");
        assert_eq!(run("load", &host).state, State::Ok);
        assert_eq!(run_with("load", &[("warn", "2")], &host).state, State::Warning);
        assert_eq!(run_with("load", &[("crit", "2.1")], &host).state, State::Critical);
        assert_eq!(run_with("load", &[("warn", "3")], &host).state, State::Ok);
        assert_eq!(run_with("load", &[("crit", "6"), ("total", "true")], &host).state, State::Critical);
        assert_eq!(
            run_with("load", &[("warn", "9,8,0.5"), ("crit", "10,10,10")], &host).state,
            State::Warning
        );
    }

    #[test]
    fn a_build_is_quiet_and_a_load_that_hovers_does_not_alert_again_and_again() {
        let tree = tempfile::tempdir().unwrap();
        for (path, text) in [("proc/loadavg", ""), ("sys/devices/system/cpu/online", "0-1\n")] {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let host = Host::new(Root::captured(tree.path()));
        let mut past = Past::default();
        let mut per_processor = |five_minutes: f64| {
            let load = format!("0.10 {:.2} 0.10 1/100 4711\n", five_minutes * 2.0);
            fs::write(tree.path().join("proc/loadavg"), load).unwrap();
            findings("load", &[], &host, &mut past, Duration::from_hours(1)).list.remove(0)
        };
        assert_eq!(per_processor(4.7).result.state, State::Ok, "five builds at once on two processors");
        let queue = per_processor(11.0);
        assert_eq!(queue.result.state, State::Warning);
        assert_eq!(queue.lasting, Some(Duration::from_mins(10)), "longer than a burst");
        let states =
            [9.8, 10.2, 9.3, 8.7, 9.8, 20.5, 18.5, 17.5].map(|load| per_processor(load).result.state);
        assert_eq!(states.map(|state| &state.name()[..1]).join(" "), "W W W O O C C W");
    }

    #[test]
    fn a_load_that_cannot_be_read_is_unknown() {
        let result = run("load", &fixture("empty"));
        assert_eq!(result.state, State::Unknown);
        assert!(result.summary.contains("proc/loadavg"), "{}", result.summary);
    }

    #[test]
    fn one_or_three_ranges_are_accepted() {
        assert!(three("1,2").is_err());
        assert!(three("").is_err());
        assert_eq!(three("3").unwrap(), [None, Some(Range::above(3.0)), None]);
    }
}
