//! Every metric of alertd: name, help, labels. Label values are enum variants or receiver names.

use dogwatch_alertd_core::{Finding, Sizes, What};
use dogwatch_daemon::tcp_http::Turned;
use dogwatch_wire::ctl::{HistoryEntry, OutboxStatus};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const BATCHES: &str = "alertd_batches_total";
const DECISIONS: &str = "alertd_decisions_total";
const ATTEMPTS: &str = "alertd_notification_attempts_total";
const ATTEMPT_SECONDS: &str = "alertd_notification_attempt_duration_seconds";
const COMMIT_SECONDS: &str = "alertd_commit_duration_seconds";
const COMMIT_ROWS: &str = "alertd_committed_rows_total";
const ALERTS: &str = "alertd_alerts_firing";
const INCIDENTS: &str = "alertd_incidents_open";
const ACKED: &str = "alertd_incidents_acked";
const AGENTS: &str = "alertd_agents";
const SILENT: &str = "alertd_agents_silent";
const SILENCES: &str = "alertd_silences_active";
const DOWNTIMES: &str = "alertd_downtimes_active";
const WITHHELD: &str = "alertd_alerts_withheld";
const FAILING: &str = "alertd_receivers_failing";
const OUTBOX: &str = "alertd_outbox_notifications";
const HELD: &str = "alertd_outbox_held_notifications";
const OUTBOX_OLDEST: &str = "alertd_outbox_oldest_timestamp_seconds";
const STORE_UP: &str = "alertd_store_up";
const STORE_BEHIND: &str = "alertd_store_unwritten_rows";
const LAG: &str = "alertd_timer_lag_seconds";
const RELOAD: &str = "alertd_config_last_reload_successful";
const REFUSED: &str = "alertd_http_refused_total";
const FINDINGS: &str = "alertd_audit_findings";
const BUILD: &str = "alertd_build_info";

/// Describes all metrics; call once, after the recorder is installed.
pub fn describe(version: &'static str) {
    describe_counter!(BATCHES, "Batches from agents and posts of external alerts, by outcome.");
    describe_counter!(DECISIONS, "Decisions by kind and reason, as in the history.");
    describe_counter!(ATTEMPTS, "Attempts to deliver a notification to a receiver, by outcome.");
    describe_histogram!(ATTEMPT_SECONDS, "Duration of one delivery attempt.");
    describe_histogram!(COMMIT_SECONDS, "Duration of one commit to the store.");
    describe_counter!(COMMIT_ROWS, "Rows committed to the store.");
    describe_gauge!(FINDINGS, "Findings of the auditor, by kind; 0 is normal.");
    describe_gauge!(ALERTS, "Firing alerts.");
    describe_gauge!(INCIDENTS, "Open incidents.");
    describe_gauge!(ACKED, "Acknowledged open incidents.");
    describe_gauge!(AGENTS, "Known agents.");
    describe_gauge!(SILENT, "Agents whose heartbeat is overdue.");
    describe_gauge!(SILENCES, "Silences in effect.");
    describe_gauge!(DOWNTIMES, "Downtimes in effect.");
    describe_gauge!(WITHHELD, "Firing alerts whose notifications are suppressed, by reason.");
    describe_gauge!(FAILING, "Receivers whose last delivery attempt failed.");
    describe_gauge!(OUTBOX, "Notifications in the outbox that are not finished, by state.");
    describe_gauge!(HELD, "Queued notifications that wait for a rate limit.");
    describe_gauge!(
        OUTBOX_OLDEST,
        "Creation time of the oldest unfinished notification; 0 if there is none."
    );
    describe_gauge!(STORE_UP, "1 if all decisions are on disk, 0 while writing to the store fails.");
    describe_gauge!(STORE_BEHIND, "Rows that could not be written to the store yet.");
    describe_gauge!(LAG, "Delay of the last timer of the main loop.");
    describe_gauge!(RELOAD, "1 if the last reload of the config succeeded completely.");
    describe_counter!(REFUSED, "Refused requests and connections, by reason.");
    describe_gauge!(BUILD, "Always 1; the label has the version.");
    gauge!(BUILD, "version" => version).set(1.0);
    reload(true);
}

pub fn batch(outcome: &'static str) {
    counter!(BATCHES, "outcome" => outcome).increment(1);
}

pub fn decision(entry: &HistoryEntry) {
    counter!(DECISIONS, "kind" => entry.kind.clone(), "reason" => entry.reason.clone()).increment(1);
}

pub fn attempt(receiver: &str, outcome: &'static str, seconds: f64) {
    counter!(ATTEMPTS, "receiver" => receiver.to_owned(), "outcome" => outcome).increment(1);
    histogram!(ATTEMPT_SECONDS, "receiver" => receiver.to_owned()).record(seconds);
}

pub fn commit(rows: usize, seconds: f64) {
    histogram!(COMMIT_SECONDS).record(seconds);
    counter!(COMMIT_ROWS).increment(rows as u64);
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is an f64; no count here comes near 2^52")]
pub fn state(sizes: Sizes, outbox: &OutboxStatus) {
    for (name, value) in [
        (ALERTS, sizes.firing),
        (INCIDENTS, sizes.incidents),
        (ACKED, sizes.acked),
        (AGENTS, sizes.agents),
        (SILENT, sizes.silent),
        (SILENCES, sizes.silences),
        (DOWNTIMES, sizes.downtimes),
        (FAILING, sizes.failing),
    ] {
        gauge!(name).set(value as f64);
    }
    for (why, count) in sizes.withheld {
        gauge!(WITHHELD, "reason" => why.reason().name()).set(count as f64);
    }
    gauge!(OUTBOX, "state" => "queued").set(outbox.queued as f64);
    gauge!(HELD).set(outbox.held as f64);
    gauge!(OUTBOX, "state" => "leased").set(outbox.leased as f64);
    let oldest = outbox.oldest_at.map_or(0.0, |at| at.as_millisecond() as f64 / 1_000.0);
    gauge!(OUTBOX_OLDEST).set(oldest);
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is an f64; no count here comes near 2^52")]
pub fn store(up: bool, behind: usize) {
    gauge!(STORE_UP).set(if up { 1.0 } else { 0.0 });
    gauge!(STORE_BEHIND).set(behind as f64);
}

/// A request refused before its contents were handled.
pub fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

/// A connection refused before any request.
pub fn turned(why: Turned) {
    refused(match why {
        Turned::TooMany => "connections",
        Turned::Handshake => "handshake",
    });
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is an f64; no count here comes near 2^52")]
pub fn findings<'a>(found: impl Iterator<Item = &'a Finding>) {
    let found: Vec<_> = found.collect();
    for what in What::ALL {
        let count = found.iter().find(|finding| finding.what == what).map_or(0, |finding| finding.count);
        gauge!(FINDINGS, "kind" => what.name()).set(count as f64);
    }
}

pub fn timer_lag(seconds: f64) {
    gauge!(LAG).set(seconds);
}

pub fn reload(good: bool) {
    gauge!(RELOAD).set(if good { 1.0 } else { 0.0 });
}
