//! `conntrack`: how full the table of tracked connections is. If it is full, the firewall drops new
//! connections.

use crate::{
    Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Things,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    result::CheckResult,
    root::{ReadError, Root},
    space::percent,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "conntrack",
    about: "connections that the firewall tracks, against their limit",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("connection tracking in the kernel", tracks),
    interval: None,
    things: Things::None,
    make,
};

fn tracks(host: &Host) -> bool {
    host.root.path(COUNT).exists()
}

const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "warn", value: "RANGE", help: "WARNING range in percent of the limit [75]" },
    OptionSpec { name: "crit", value: "RANGE", help: "CRITICAL range in percent of the limit [90]" },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let limits = Thresholds {
        warn: reader.range("warn").or(Some(Range::above(75.0))),
        crit: reader.range("crit").or(Some(Range::above(90.0))),
    };
    Some(Check::blocking(Conntrack { root: host.root.clone(), limits }))
}

struct Conntrack {
    root: Root,
    limits: Thresholds,
}

impl Blocking for Conntrack {
    fn run(&self) -> Judgement {
        let (count, max) = match self.number(COUNT).and_then(|count| Ok((count, self.number(MAX)?))) {
            Ok(numbers) => numbers,
            Err(error) => return error.into(),
        };
        let limits = self.limits;
        Judgement::new(move |past| {
            // A limit of 0 is none.
            let used = percent(count, max);
            let scaled = |range: Option<Range>| range.map(|range| range.scaled(max / 100.0));
            let perf = Perf::new("connections", count, "")
                .thresholds(scaled(limits.warn), scaled(limits.crit))
                .bounds(0.0, max);
            let state = limits.judge_after(used, past.was(None));
            let summary = format!("{used:.0}% used: {count} of {max} connections");
            let result = CheckResult::new(state, summary)
                .with_detail("If the connections are wanted, raise net.netfilter.nf_conntrack_max.")
                .with_perfdata(vec![perf]);
            Findings::all(vec![Finding::whole(result)])
        })
    }
}

impl Conntrack {
    fn number(&self, path: &str) -> Result<f64, ReadError> {
        let text = self.root.read(path)?;
        let number = text.trim().parse::<u32>().map(f64::from);
        number.map_err(|_| ReadError::Format { path: self.root.path(path), why: "expected a number" })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::{
        Past, built_in,
        testing::{findings, fixture, lines, run},
    };

    #[test]
    fn a_full_table_is_critical_and_a_problem_ends_well_below_the_limit() {
        let tree = tempfile::tempdir().unwrap();
        let host = Host::new(Root::captured(tree.path()));
        let write = |path: &str, text: &str| {
            let path = tree.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(!built_in(&host).any(|kind| kind.name == "conntrack"));
        let mut past = Past::default();
        let mut line = |count: &str, max: &str| {
            write(COUNT, count);
            write(MAX, max);
            lines(&findings("conntrack", &[], &host, &mut past, Duration::from_hours(1))).join("\n")
        };
        assert_eq!(line("131072\n", "262144\n"), "- OK 50% used: 131072 of 262144 connections");
        assert_eq!(line("200000\n", "262144\n"), "- WARNING 76% used: 200000 of 262144 connections");
        assert_eq!(line("185000\n", "262144\n"), "- WARNING 71% used: 185000 of 262144 connections");
        assert_eq!(line("262144\n", "262144\n"), "- CRITICAL 100% used: 262144 of 262144 connections");
        assert_eq!(line("1000\n", "262144\n"), "- OK 0% used: 1000 of 262144 connections");
        assert_eq!(line("1000\n", "0\n"), "- OK 0% used: 1000 of 0 connections", "no limit");
        assert!(line("x", "0\n").starts_with("- UNKNOWN cannot parse"));
        assert!(built_in(&host).any(|kind| kind.name == "conntrack"));
        assert!(run("conntrack", &fixture("empty")).summary.starts_with("cannot read"));
    }
}
