//! Every metric of the agent: name, unit, help, labels.
//!
//! Gauges are forgotten when nobody sets them for [`GAUGES_KEPT`], so a check that is removed leaves no series behind that
//! looks alive; the loop sets all of them at least every minute.

use std::time::Duration;

use dogwatch_checks::Perf;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::{api::ServiceStatus, report::outbox::Outbox};

/// Longer than the loop ever leaves a gauge alone.
pub(crate) const GAUGES_KEPT: Duration = Duration::from_mins(3);

/// Tells the recorder about all of them. Call once, before the first is counted.
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
}

/// The loop has turned.
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

/// A service has a result, or is to be shown again.
pub(crate) fn on_service(status: &ServiceStatus, perfdata: &[Perf], skipped: u64) {
    let check = &status.service;
    let gauge = |name, value: f64| gauge!(name, "check" => check.clone()).set(value);
    let state = match status.state.as_str() {
        "OK" => 0.0,
        "WARNING" => 1.0,
        "CRITICAL" => 2.0,
        "UNKNOWN" => 3.0,
        // Not run yet: no state to show.
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

/// Series that one check may have; a plugin with a thousand disks must not fill the recorder.
const PERFDATA_MAX: usize = 64;

const GAUGES: &[(&str, Unit, &str)] = &[
    ("dogwatch_build_info", Unit::Count, "Version of the agent; always 1."),
    ("dogwatch_check_attempt", Unit::Count, "Attempt of max_attempts that the status is at."),
    ("dogwatch_check_duration_seconds", Unit::Seconds, "Wall time of the last run."),
    ("dogwatch_check_flapping", Unit::Count, "1 while the service flaps."),
    ("dogwatch_check_hard", Unit::Count, "1 if the state is hard, 0 while it is soft."),
    (
        "dogwatch_check_last_run_timestamp_seconds",
        Unit::Seconds,
        "When the last result came, since the epoch.",
    ),
    ("dogwatch_check_perfdata", Unit::Count, "Performance data of the last run, in the check's own unit."),
    (
        "dogwatch_check_state",
        Unit::Count,
        "State of the last result: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.",
    ),
    (
        "dogwatch_config_reload_ok",
        Unit::Count,
        "0 if the config on disk is invalid and an older one is in use.",
    ),
    ("dogwatch_spool_events", Unit::Count, "Events that alertd has not acknowledged."),
    ("dogwatch_spool_file_bytes", Unit::Bytes, "Size of the spool on disk."),
    ("dogwatch_spool_memory_bytes", Unit::Bytes, "JSON bytes of the events that wait."),
];

const COUNTERS: &[(&str, Unit, &str)] = &[
    ("dogwatch_batches_total", Unit::Count, "Batches to alertd, by whether it took them."),
    ("dogwatch_check_overruns_total", Unit::Count, "Slots at which a check hung, the first one included."),
    ("dogwatch_check_skipped_runs_total", Unit::Count, "Slots that passed without a run."),
    ("dogwatch_spool_dropped_events_total", Unit::Count, "Events lost because the spool was full."),
    ("dogwatch_spool_errors_total", Unit::Count, "Times that the disk began to refuse the spool."),
];

const HISTOGRAMS: &[(&str, Unit, &str)] = &[
    ("dogwatch_check_start_lag_seconds", Unit::Seconds, "From a check's slot to its start."),
    ("dogwatch_loop_lag_seconds", Unit::Seconds, "From when the loop wanted to wake to when it did."),
];
