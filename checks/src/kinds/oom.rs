//! `oom`: processes that the kernel has killed for lack of memory, on the host or in a cgroup with
//! a limit. Needs no right to read the kernel's log.

use std::{sync::Arc, time::Duration};

use crate::{
    Blocking, BuiltIn, Check, CheckResult, Finding, Findings, Host, Judgement, Kind, Lane, Past, State,
    Things,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    read::{Readings, vmstat::Vmstat},
    threshold::Range,
};

pub(crate) const KIND: Kind = Kind {
    name: "oom",
    about: "processes killed for lack of memory",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("count of out-of-memory kills (/proc/vmstat)", |host| {
        host.readings.get::<Vmstat>().is_ok_and(|vmstat| vmstat.oom_kills.is_some())
    }),
    interval: None,
    things: Things::None,
    make,
};

const OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: "warn",
    value: "RANGE",
    help: "WARNING range for the number of processes killed in the last 30 minutes [0]",
}];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let warn = reader.range("warn").unwrap_or(Range::above(0.0));
    Some(Check::blocking(Oom { readings: host.readings.clone(), warn }))
}

struct Oom {
    readings: Arc<Readings>,
    warn: Range,
}

impl Blocking for Oom {
    fn run(&self) -> Judgement {
        let kills = match self.readings.get::<Vmstat>() {
            Ok(vmstat) => vmstat.oom_kills,
            Err(error) => return error.into(),
        };
        let Some(kills) = kills else {
            return CheckResult::unknown("/proc/vmstat has no oom_kill; it needs Linux 4.13").into();
        };
        let warn = self.warn;
        Judgement::new(move |past| Findings::all(vec![Finding::whole(judge(kills, warn, past)).at_once()]))
    }
}

fn judge(kills: u64, warn: Range, past: &mut Past) -> CheckResult {
    let recent = past.increase_within("kills", kills, RECENT);
    let perfdata = vec![Perf::new("killed", recent, "").thresholds(Some(warn), None).bounds(0.0, None)];
    let processes = match recent {
        ..0.5 => "no process".to_owned(),
        ..1.5 => "1 process".to_owned(),
        many => format!("{many:.0} processes"),
    };
    let summary = format!("{processes} killed for lack of memory in the last 30 min");
    let state = if warn.alerts(recent) { State::Warning } else { State::Ok };
    let result = CheckResult::new(state, summary).with_perfdata(perfdata);
    if state == State::Ok {
        result
    } else {
        result.with_detail("journalctl -k --grep 'Killed process' shows which")
    }
}

/// As in the stock alarms of netdata and in awesome-prometheus-alerts.
const RECENT: Duration = Duration::from_mins(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{fixture, run};

    #[test]
    fn a_kill_alerts_at_once_and_for_half_an_hour() {
        let mut past = Past::default();
        let mut at = |minute, kills| {
            let judgement = Judgement::new(move |past| judge(kills, Range::above(0.0), past).into());
            judgement.judge(&mut past, Duration::from_mins(minute)).list.remove(0).result
        };
        assert_eq!(at(0, 17).state, State::Ok, "those before the agent started are not news");
        let result = at(1, 18);
        assert_eq!(result.state, State::Warning);
        assert_eq!(result.summary, "1 process killed for lack of memory in the last 30 min");
        assert_eq!(result.perfdata_text(), "killed=1;0;;0");
        assert_eq!(at(10, 20).summary, "3 processes killed for lack of memory in the last 30 min");
        assert_eq!(at(35, 20).state, State::Warning);
        assert_eq!(at(45, 20).state, State::Ok);
    }

    #[test]
    fn a_kernel_that_does_not_count_has_no_such_check() {
        assert!(!KIND.is_built_in(&fixture("empty")));
        assert_eq!(run("oom", &fixture("empty")).state, State::Unknown);
        assert!(KIND.is_built_in(&Host::live()));
        assert_eq!(run("oom", &Host::live()).state, State::Ok);
    }
}
