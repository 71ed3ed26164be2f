//! `sockets`: memory of TCP buffers and orphaned connections, against the limits of the kernel.
//!
//! Above the pressure limit, TCP shrinks its windows and everything gets slow; at the high limit it
//! drops packets. With too many orphans it resets connections that are being closed.

use std::sync::Arc;

use crate::{
    Blocking, BuiltIn, Check, Finding, Findings, Host, Judgement, Kind, Lane, Past, Things,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    read::{
        Readings,
        sockets::{Sockstat, TcpMem},
    },
    result::CheckResult,
    root::{ReadError, Root},
    space::percent,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "sockets",
    about: "memory of TCP and orphaned connections, against their limits",
    options: OPTIONS,
    lane: Lane::Local,
    built_in: BuiltIn::With("limits of sockets in /proc", has_limits),
    interval: None,
    things: Things::Names,
    make,
};

fn has_limits(host: &Host) -> bool {
    host.readings.get::<TcpMem>().is_ok()
        && host.readings.get::<Sockstat>().is_ok()
        && host.root.path(ORPHANS).exists()
}

const ORPHANS: &str = "/proc/sys/net/ipv4/tcp_max_orphans";

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "warn_memory",
        value: "RANGE",
        help: "WARNING range in percent of TCP's memory limit [the pressure limit, mostly 67]",
    },
    OptionSpec { name: "crit_memory", value: "RANGE", help: "CRITICAL range in percent of that limit [90]" },
    OptionSpec {
        name: "warn_orphans",
        value: "RANGE",
        help: "WARNING range in percent of the limit of orphans [25]",
    },
    OptionSpec { name: "crit_orphans", value: "RANGE", help: "CRITICAL range in percent of that limit [50]" },
];

#[expect(clippy::unnecessary_wraps, reason = "the signature of the table of kinds")]
fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    Some(Check::blocking(Sockets {
        root: host.root.clone(),
        readings: Arc::clone(&host.readings),
        memory: Thresholds {
            warn: reader.range("warn_memory"),
            crit: reader.range("crit_memory").or(Some(Range::above(90.0))),
        },
        orphans: Thresholds {
            warn: reader.range("warn_orphans").or(Some(Range::above(25.0))),
            crit: reader.range("crit_orphans").or(Some(Range::above(50.0))),
        },
    }))
}

struct Sockets {
    root: Root,
    readings: Arc<Readings>,
    memory: Thresholds,
    orphans: Thresholds,
}

/// A share of a limit.
struct Share {
    thing: &'static str,
    used: u64,
    limit: u64,
    thresholds: Thresholds,
}

impl Blocking for Sockets {
    fn run(&self) -> Judgement {
        let (sockets, shares) = match self.read() {
            Ok(read) => read,
            Err(error) => return error.into(),
        };
        Judgement::new(move |past| {
            let mut list: Vec<_> = shares.iter().map(|share| judge(past, share)).collect();
            if let Some(orphans) = list.last_mut() {
                let counts = [("tcp in use", sockets.in_use), ("tcp time wait", sockets.time_wait)];
                let perf = counts.map(|(label, count)| Perf::new(label, float(count), "").bounds(0.0, None));
                orphans.result.perfdata.extend(perf);
            }
            Findings::all(list)
        })
    }
}

impl Sockets {
    fn read(&self) -> Result<(Sockstat, [Share; 2]), ReadError> {
        let sockets = *self.readings.get::<Sockstat>()?;
        let memory = *self.readings.get::<TcpMem>()?;
        let text = self.root.read(ORPHANS)?;
        let orphans = text
            .trim()
            .parse()
            .map_err(|_| ReadError::Format { path: self.root.path(ORPHANS), why: "expected a number" })?;
        let pressure = Range::above(percent(float(memory.pressure), float(memory.high)));
        let limits = Thresholds { warn: self.memory.warn.or(Some(pressure)), ..self.memory };
        Ok((
            sockets,
            [
                Share { thing: "tcp memory", used: sockets.pages, limit: memory.high, thresholds: limits },
                Share {
                    thing: "tcp orphans",
                    used: sockets.orphans,
                    limit: orphans,
                    thresholds: self.orphans,
                },
            ],
        ))
    }
}

fn judge(past: &Past, share: &Share) -> Finding {
    let Share { thing, used, limit, thresholds } = *share;
    let used_percent = percent(float(used), float(limit));
    let state = thresholds.judge_after(used_percent, past.was(Some(thing)));
    let unit = if thing == "tcp memory" { "pages" } else { "connections" };
    let perf = Perf::new(thing, (used_percent * 10.0).round() / 10.0, "%")
        .thresholds(thresholds.warn, thresholds.crit)
        .bounds(0.0, 100.0);
    let summary = format!("{used_percent:.0}% of the limit ({used} of {limit} {unit})");
    Finding::of(thing, CheckResult::new(state, summary).with_perfdata(vec![perf]))
}

#[expect(clippy::cast_precision_loss, reason = "a count; the error does not matter")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::{
        built_in,
        testing::{findings, fixture, lines, run},
    };

    #[test]
    fn memory_and_orphans_are_judged_by_the_limits_of_the_kernel() {
        let tree = tempfile::tempdir().unwrap();
        let host = Host::new(Root::captured(tree.path()));
        let write = |path: &str, text: &str| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/sys/net/ipv4/tcp_mem", "287898\t383866\t575796\n");
        write("proc/sys/net/ipv4/tcp_max_orphans", "131072\n");
        let said = |pages: u32, orphans: u32, options: &[(&str, &str)]| {
            let text = format!("TCP: inuse 1 orphan {orphans} tw 44 alloc 1 mem {pages}\n");
            write("proc/net/sockstat", &text);
            lines(&findings("sockets", options, &host, &mut Past::default(), Duration::from_hours(1)))
        };
        assert_eq!(
            said(232, 0, &[]),
            [
                "tcp memory OK 0% of the limit (232 of 575796 pages)",
                "tcp orphans OK 0% of the limit (0 of 131072 connections)"
            ]
        );
        assert_eq!(
            said(400_000, 40_000, &[]),
            [
                "tcp memory WARNING 69% of the limit (400000 of 575796 pages)",
                "tcp orphans WARNING 31% of the limit (40000 of 131072 connections)"
            ]
        );
        let critical = said(530_000, 70_000, &[]);
        assert!(critical.iter().all(|line| line.contains("CRITICAL")), "{critical:?}");
        let allowed = said(400_000, 40_000, &[("warn_memory", "80"), ("warn_orphans", "40")]);
        assert!(allowed.iter().all(|line| line.contains("OK")), "{allowed:?}");
    }

    #[test]
    fn this_host_is_fine_and_a_host_without_the_files_has_no_such_check() {
        let result = run("sockets", &fixture("debian12-vm"));
        assert!(
            ["tcp memory", "tcp orphans"].iter().all(|thing| result.summary.contains(thing)),
            "{}",
            result.summary
        );
        assert!(built_in(&fixture("debian12-vm")).any(|kind| kind.name == "sockets"));
        assert!(!built_in(&fixture("empty")).any(|kind| kind.name == "sockets"));
    }
}
