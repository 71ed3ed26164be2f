//! All metrics of the agent: name, unit, help, labels.
//!
//! The loop sets all gauges at least once a minute. A gauge that is not set for [`GAUGES_KEPT`] is
//! removed, so that a removed check leaves no series behind.

use std::time::Duration;

use dogwatch_checks::Perf;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::{api::ServiceStatus, report::outbox::Outbox};

/// Longer than the loop ever goes without setting a gauge.
pub(crate) const GAUGES_KEPT: Duration = Duration::from_mins(3);

/// Declares all metrics. Call once, before the first one is used.
pub(crate) fn declare() {
    for (name, unit, help) in GAUGES {
        describe_gauge!(*name, *unit, *help);
    }
    for (name, unit, help) in COUNTERS {
        describe_counter!(*name, *unit, *help);
    }
    for (name, unit, help) in HISTOGRAMS {
        describe_histogram!(*name, *unit, *help);
    }
    for taken in ["true", "false"] {
        counter!("dogwatch_batches_total", "taken" => taken).absolute(0);
    }
    counter!("dogwatch_spool_errors_total").absolute(0);
    counter!("dogwatch_jobs_refused_total").absolute(0);
}

/// Call in each turn of the loop.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(crate) fn on_turn(outbox: &Outbox, spool_file_bytes: u64, config_ok: bool) {
    gauge!("dogwatch_spool_events").set(outbox.depth() as f64);
    gauge!("dogwatch_spool_memory_bytes").set(outbox.bytes() as f64);
    gauge!("dogwatch_spool_file_bytes").set(spool_file_bytes as f64);
    counter!("dogwatch_spool_dropped_events_total").absolute(outbox.dropped());
    gauge!("dogwatch_config_reload_ok").set(f64::from(u8::from(config_ok)));
    gauge!("dogwatch_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

pub(crate) fn on_wake(late: Duration) {
    histogram!("dogwatch_loop_lag_seconds").record(late.as_secs_f64());
}

pub(crate) fn on_start(late: Duration) {
    histogram!("dogwatch_check_start_lag_seconds").record(late.as_secs_f64());
}

pub(crate) fn on_overrun(check: &str) {
    counter!("dogwatch_check_overruns_total", "check" => check.to_owned()).increment(1);
}

pub(crate) fn on_batch(taken: bool) {
    counter!("dogwatch_batches_total", "taken" => if taken { "true" } else { "false" }).increment(1);
}

pub(crate) fn on_spool_error() {
    counter!("dogwatch_spool_errors_total").increment(1);
}

pub(crate) fn on_handler(service: &str, worked: bool) {
    let outcome = if worked { "ok" } else { "failed" };
    counter!("dogwatch_handler_runs_total", "check" => service.to_owned(), "outcome" => outcome).increment(1);
}

pub(crate) fn on_refused_job() {
    counter!("dogwatch_jobs_refused_total").increment(1);
}

pub(crate) fn on_history(dropped: u64) {
    counter!("dogwatch_history_dropped_values_total").absolute(dropped);
}

/// Sets the metrics of one service.
pub(crate) fn on_service(status: &ServiceStatus, perfdata: &[Perf], skipped: u64) {
    let check = &status.service;
    let gauge = |name, value: f64| gauge!(name, "check" => check.clone()).set(value);
    let state = match status.state.as_str() {
        "OK" => 0.0,
        "WARNING" => 1.0,
        "CRITICAL" => 2.0,
        "UNKNOWN" => 3.0,
        // Pending: there is no state to show.
        _ => return,
    };
    gauge("dogwatch_check_state", state);
    gauge("dogwatch_check_hard", f64::from(u8::from(status.state_type == "HARD")));
    gauge("dogwatch_check_attempt", f64::from(status.attempt));
    gauge("dogwatch_check_flapping", f64::from(u8::from(status.flapping)));
    if let Some(seconds) = status.duration_s {
        gauge("dogwatch_check_duration_seconds", seconds);
    }
    if let Some(at) = status.last_run {
        gauge("dogwatch_check_last_run_timestamp_seconds", at.as_duration().as_secs_f64());
    }
    counter!("dogwatch_check_skipped_runs_total", "check" => check.clone()).absolute(skipped);
    for perf in perfdata.iter().take(PERFDATA_MAX) {
        let Some(value) = perf.value else { continue };
        let labels = [("check", check.clone()), ("label", perf.label.clone()), ("unit", perf.unit.clone())];
        gauge!("dogwatch_check_perfdata", &labels).set(value);
    }
}

/// Series per check. A plugin that reports a thousand disks must not fill the recorder.
const PERFDATA_MAX: usize = 1_000;

const GAUGES: &[(&str, Unit, &str)] = &[
    ("dogwatch_build_info", Unit::Count, "Version of the agent; always 1."),
    ("dogwatch_check_attempt", Unit::Count, "Current attempt, from 1 to max_attempts."),
    ("dogwatch_check_duration_seconds", Unit::Seconds, "Duration of the last run."),
    ("dogwatch_check_flapping", Unit::Count, "1 while the service is flapping."),
    ("dogwatch_check_hard", Unit::Count, "1 if the state is hard, 0 while it is soft."),
    ("dogwatch_check_last_run_timestamp_seconds", Unit::Seconds, "Unix time of the last result."),
    ("dogwatch_check_perfdata", Unit::Count, "Performance data of the last run, in the check's own unit."),
    (
        "dogwatch_check_state",
        Unit::Count,
        "State of the last result: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.",
    ),
    (
        "dogwatch_config_reload_ok",
        Unit::Count,
        "0 if the last reload failed and the previous config is still in use.",
    ),
    ("dogwatch_spool_events", Unit::Count, "Events that alertd has not acknowledged."),
    ("dogwatch_spool_file_bytes", Unit::Bytes, "Size of the spool on disk."),
    ("dogwatch_spool_memory_bytes", Unit::Bytes, "JSON size of the events that alertd has not acknowledged."),
];

const COUNTERS: &[(&str, Unit, &str)] = &[
    ("dogwatch_batches_total", Unit::Count, "Batches sent to alertd, by whether it accepted them."),
    (
        "dogwatch_check_overruns_total",
        Unit::Count,
        "Scheduled runs of a check at which it was hanging, including the one that hangs.",
    ),
    ("dogwatch_check_skipped_runs_total", Unit::Count, "Scheduled runs that were skipped."),
    ("dogwatch_handler_runs_total", Unit::Count, "Runs of handlers, by outcome."),
    (
        "dogwatch_history_dropped_values_total",
        Unit::Count,
        "Values that were not kept: too many series, or the disk was too slow.",
    ),
    (
        "dogwatch_jobs_refused_total",
        Unit::Count,
        "Reports of jobs that were refused because there are too many jobs or services.",
    ),
    ("dogwatch_spool_dropped_events_total", Unit::Count, "Events lost because the spool was full."),
    ("dogwatch_spool_errors_total", Unit::Count, "How often writing the spool began to fail."),
];

const HISTOGRAMS: &[(&str, Unit, &str)] = &[
    ("dogwatch_check_start_lag_seconds", Unit::Seconds, "Delay of the start of a check."),
    ("dogwatch_loop_lag_seconds", Unit::Seconds, "Delay of the wakeups of the main loop."),
];
