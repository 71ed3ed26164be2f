//! `listen`: TCP connections that a listening socket did not take.
//!
//! The kernel drops a connection if the queue of its socket is full: the program does not accept
//! fast enough, or its backlog is too small. Clients see a connection that takes seconds. The
//! number of drops includes the overflows, so the two must not be added.

use std::{sync::Arc, time::Duration};

use crate::{
    Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Things,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    read::{Readings, sockets::Netstat},
    result::CheckResult,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "listen",
    about: "TCP connections that listening programs did not take",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("counters of the TCP stack (/proc/net/netstat)", has_counters),
    interval: None,
    things: Things::None,
    make,
};

fn has_counters(host: &Host) -> bool {
    host.readings.get::<Netstat>().is_ok()
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "warn", value: "RANGE", help: "WARNING range for connections dropped per second [1]" },
    OptionSpec {
        name: "crit",
        value: "RANGE",
        help: "CRITICAL range for connections dropped per second [5]",
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let limits = Thresholds {
        warn: reader.range("warn").or(Some(Range::above(1.0))),
        crit: reader.range("crit").or(Some(Range::above(5.0))),
    };
    Some(Check::blocking(Listen { readings: Arc::clone(&host.readings), limits }))
}

struct Listen {
    readings: Arc<Readings>,
    limits: Thresholds,
}

impl Blocking for Listen {
    fn run(&self) -> Judgement {
        let counters = match self.readings.get::<Netstat>() {
            Ok(counters) => *counters,
            Err(error) => return error.into(),
        };
        let limits = self.limits;
        Judgement::new(move |past| {
            let drops = past.rate("drops", counters.listen_drops).unwrap_or(0.0);
            let overflows = past.rate("overflows", counters.listen_overflows).unwrap_or(0.0);
            let state = limits.judge_after(drops, past.was(None));
            let mut summary = format!("{drops:.1} connections dropped per second");
            if overflows > 0.0 {
                summary = format!("{summary}, {overflows:.1} of them because a program accepts too slowly");
            }
            let perfdata = vec![
                Perf::new("drops", drops, "").thresholds(limits.warn, limits.crit).bounds(0.0, None),
                Perf::new("overflows", overflows, "").bounds(0.0, None),
            ];
            let result = CheckResult::new(state, summary)
                .with_detail("`ss -ltn` shows the queue of each program: Recv-Q against Send-Q.")
                .with_perfdata(perfdata);
            Findings::all(vec![Finding::whole(result).lasting(Duration::from_mins(1))])
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        Past, built_in,
        root::Root,
        testing::{findings, fixture, lines},
    };

    #[test]
    fn dropped_connections_are_counted_once() {
        let tree = tempfile::tempdir().unwrap();
        let host = Host::new(Root::captured(tree.path()));
        fs::create_dir_all(tree.path().join("proc/net")).unwrap();
        let mut past = Past::default();
        let mut line = |minute, overflows, drops| {
            let text = format!("TcpExt: ListenOverflows ListenDrops\nTcpExt: {overflows} {drops}\n");
            fs::write(tree.path().join("proc/net/netstat"), text).unwrap();
            let found = findings("listen", &[], &host, &mut past, Duration::from_mins(minute));
            assert_eq!(found.list[0].lasting, Some(Duration::from_mins(1)));
            lines(&found).join("\n")
        };
        assert_eq!(line(1, 5_000, 9_000), "- OK 0.0 connections dropped per second", "before the agent");
        assert_eq!(line(2, 5_000, 9_033), "- OK 0.6 connections dropped per second", "netdata#3976");
        let slow = "connections dropped per second, 2.0 of them because a program accepts too slowly";
        assert_eq!(line(3, 5_120, 9_153), format!("- WARNING 2.0 {slow}"));
        assert_eq!(line(4, 5_240, 9_153 + 360), format!("- CRITICAL 6.0 {slow}"));
        assert_eq!(line(5, 0, 0), "- OK 0.0 connections dropped per second", "rebooted");
        let host = fixture("debian12-vm");
        assert!(built_in(&host).any(|kind| kind.name == "listen"));
        assert!(!built_in(&fixture("empty")).any(|kind| kind.name == "listen"));
    }
}
