//! What is measured of the agent and its services when `/metrics` is read, and its text.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use dogwatch_checks::{CheckResult, State};

/// What the loop says when the page is read.
#[derive(Debug, Default)]
pub struct Measures {
    pub(crate) own: OwnMeasures,
    pub(crate) services: Vec<ServiceMeasures>,
    /// There are more services after this one: ask again.
    pub(crate) more_after: Option<Arc<str>>,
}

/// The agent itself.
#[derive(Debug, Default)]
pub(crate) struct OwnMeasures {
    pub(crate) spool_events: usize,
    pub(crate) spool_memory_bytes: usize,
    pub(crate) spool_file_bytes: u64,
    pub(crate) dropped_events: u64,
    pub(crate) history_dropped: u64,
    pub(crate) config_ok: bool,
}

/// A service that has a state.
#[derive(Debug)]
pub(crate) struct ServiceMeasures {
    pub(crate) service: Arc<str>,
    pub(crate) state: State,
    pub(crate) hard: bool,
    pub(crate) attempt: u8,
    pub(crate) flapping: bool,
    pub(crate) skipped: u64,
    /// Of the last run, if there was one.
    pub(crate) took: Option<Duration>,
    /// The last result and when it was, in seconds since 1970.
    pub(crate) last: Option<(Arc<CheckResult>, f64)>,
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(crate) fn write_own(text: &mut String, own: &OwnMeasures) {
    let mut one = |name: &str, kind: &str, help: &str, value: f64| {
        head(text, name, kind, help);
        let _ = writeln!(text, "{name} {value}");
    };
    one("dogwatch_spool_events", GAUGE, "Events that alertd has not acknowledged.", own.spool_events as f64);
    one(
        "dogwatch_spool_memory_bytes",
        GAUGE,
        "JSON size of the events that alertd has not acknowledged.",
        own.spool_memory_bytes as f64,
    );
    one("dogwatch_spool_file_bytes", GAUGE, "Size of the spool on disk.", own.spool_file_bytes as f64);
    one(
        "dogwatch_spool_dropped_events_total",
        COUNTER,
        "Events lost because the spool was full.",
        own.dropped_events as f64,
    );
    one(
        "dogwatch_history_dropped_values_total",
        COUNTER,
        "Values that were not kept: too many series, or the disk was too slow.",
        own.history_dropped as f64,
    );
    one(
        "dogwatch_config_reload_ok",
        GAUGE,
        "0 if the last reload failed and the previous config is still in use.",
        f64::from(u8::from(own.config_ok)),
    );
    head(text, "dogwatch_build_info", GAUGE, "Version of the agent; always 1.");
    let _ = writeln!(text, "dogwatch_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(crate) fn write_services(text: &mut String, services: &[ServiceMeasures]) {
    type Of = fn(&ServiceMeasures) -> Option<f64>;
    let families: [(&str, &str, &str, Of); 7] = [
        (
            "dogwatch_check_state",
            GAUGE,
            "State of the last result: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.",
            |one| Some(f64::from(one.state.exit_code())),
        ),
        ("dogwatch_check_hard", GAUGE, "1 if the state is hard, 0 while it is soft.", |one| {
            Some(f64::from(u8::from(one.hard)))
        }),
        ("dogwatch_check_attempt", GAUGE, "Current attempt, from 1 to max_attempts.", |one| {
            Some(f64::from(one.attempt))
        }),
        ("dogwatch_check_flapping", GAUGE, "1 while the service is flapping.", |one| {
            Some(f64::from(u8::from(one.flapping)))
        }),
        ("dogwatch_check_duration_seconds", GAUGE, "Duration of the last run.", |one| {
            one.took.map(|took| took.as_secs_f64())
        }),
        ("dogwatch_check_last_run_timestamp_seconds", GAUGE, "Unix time of the last result.", |one| {
            one.last.as_ref().map(|(_, at)| *at)
        }),
        ("dogwatch_check_skipped_runs_total", COUNTER, "Scheduled runs that were skipped.", |one| {
            Some(one.skipped as f64)
        }),
    ];
    for (name, kind, help, of) in families {
        let mut begun = false;
        for one in services {
            let Some(value) = of(one) else { continue };
            if !std::mem::replace(&mut begun, true) {
                head(text, name, kind, help);
            }
            let _ = writeln!(text, "{name}{{check=\"{}\"}} {value}", Escaped(&one.service));
        }
    }
    let mut begun = false;
    for one in services {
        let Some((result, _)) = &one.last else { continue };
        for perf in result.perfdata.iter().take(PERFDATA_MAX) {
            let Some(value) = perf.value else { continue };
            if !std::mem::replace(&mut begun, true) {
                head(text, PERFDATA, GAUGE, "Performance data of the last run, in the check's own unit.");
            }
            let (check, label, unit) = (Escaped(&one.service), Escaped(&perf.label), Escaped(&perf.unit));
            let _ =
                writeln!(text, "{PERFDATA}{{check=\"{check}\",label=\"{label}\",unit=\"{unit}\"}} {value}");
        }
    }
}

const PERFDATA: &str = "dogwatch_check_perfdata";
const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// The value of a label (text format 0.0.4): a backslash before `\\`, `"` and the end of a line.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['\\', '"', '\n']) {
            f.write_str(&rest[..at])?;
            f.write_str(match rest.as_bytes()[at] {
                b'\n' => "\\n",
                b'"' => "\\\"",
                _ => "\\\\",
            })?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}

/// Series per check. A plugin that reports a thousand disks must not fill the page.
const PERFDATA_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use dogwatch_checks::Perf;

    use super::*;

    #[test]
    fn a_family_has_one_head_and_labels_are_escaped() {
        let service = |name: &str, state, result: Option<CheckResult>| ServiceMeasures {
            service: name.into(),
            state,
            hard: true,
            attempt: 1,
            flapping: false,
            skipped: 2,
            took: result.as_ref().map(|_| Duration::from_millis(3)),
            last: result.map(|result| (Arc::new(result), 1.5)),
        };
        let perf = vec![Perf::new("a \"b\"\\", 0.25, "%"), Perf { value: None, ..Perf::new("u", 0.0, "") }];
        let disk = CheckResult::new(State::Critical, "full").with_perfdata(perf);
        let mut text = String::new();
        write_services(
            &mut text,
            &[service("disk /a\nb", State::Critical, Some(disk)), service("load", State::Unknown, None)],
        );
        let of = |name: &str| {
            text.lines().filter(|line| line.split([' ', '{']).any(|word| word == name)).collect::<Vec<_>>()
        };
        assert_eq!(
            of("dogwatch_check_state"),
            [
                "# HELP dogwatch_check_state State of the last result: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.",
                "# TYPE dogwatch_check_state gauge",
                "dogwatch_check_state{check=\"disk /a\\nb\"} 2",
                "dogwatch_check_state{check=\"load\"} 3",
            ]
        );
        assert_eq!(
            of("dogwatch_check_duration_seconds")[2..],
            ["dogwatch_check_duration_seconds{check=\"disk /a\\nb\"} 0.003"]
        );
        assert_eq!(
            of("dogwatch_check_perfdata")[2..],
            ["dogwatch_check_perfdata{check=\"disk /a\\nb\",label=\"a \\\"b\\\"\\\\\",unit=\"%\"} 0.25"]
        );
    }

    #[test]
    fn without_services_the_page_has_what_is_known_of_the_agent() {
        let mut text = String::new();
        write_own(&mut text, &OwnMeasures { spool_events: 3, config_ok: true, ..OwnMeasures::default() });
        write_services(&mut text, &[]);
        assert!(
            text.contains("\ndogwatch_spool_events 3\n") || text.contains("gauge\ndogwatch_spool_events 3\n")
        );
        assert!(text.contains("\ndogwatch_config_reload_ok 1\n"));
        assert!(!text.contains("dogwatch_check_"), "no head without a series");
    }
}
