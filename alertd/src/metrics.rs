//! Every metric of alertd: name, help, labels. Label values come from enums and from receiver names of the config.

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

/// Declares all of them; call once, after the recorder is installed.
pub fn describe(version: &'static str) {
    describe_counter!(BATCHES, "Batches from agents by outcome.");
    describe_counter!(DECISIONS, "Decisions by kind and reason, as in the audit trail.");
    describe_counter!(ATTEMPTS, "Attempts to hand a notification to a receiver, by outcome.");
    describe_histogram!(ATTEMPT_SECONDS, "Duration of one attempt.");
    describe_histogram!(COMMIT_SECONDS, "Duration of one commit.");
    describe_counter!(COMMIT_ROWS, "Rows that were made durable.");
    describe_gauge!(FINDINGS, "What the auditor finds that should not be, by kind.");
    describe_gauge!(ALERTS, "Alerts that fire.");
    describe_gauge!(INCIDENTS, "Incidents that are not over.");
    describe_gauge!(ACKED, "Open incidents that somebody acknowledged.");
    describe_gauge!(AGENTS, "Agents that ever reported.");
    describe_gauge!(SILENT, "Agents whose heartbeat is overdue.");
    describe_gauge!(SILENCES, "Silences in force.");
    describe_gauge!(DOWNTIMES, "Downtimes in effect.");
    describe_gauge!(WITHHELD, "Alerts that fire and are told to nobody now, by reason.");
    describe_gauge!(FAILING, "Receivers whose last attempt failed.");
    describe_gauge!(OUTBOX, "Unsettled notifications by state.");
    describe_gauge!(HELD, "Queued notifications that wait for a rate limit.");
    describe_gauge!(OUTBOX_OLDEST, "When the oldest unsettled notification was decided; 0 if there is none.");
    describe_gauge!(STORE_UP, "1 if all decisions are durable, 0 while the store fails.");
    describe_gauge!(STORE_BEHIND, "Rows that wait for the store to work again.");
    describe_gauge!(LAG, "How late the loop woke for its last timer.");
    describe_gauge!(RELOAD, "1 if the config in force is the one on disk.");
    describe_counter!(REFUSED, "Requests and connections turned away, by why.");
    describe_gauge!(BUILD, "Always 1; the version is in the label.");
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

/// A request that was turned away without a look at what it asks.
pub fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

/// A connection that came to no request.
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
