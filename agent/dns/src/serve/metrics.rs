//! All metrics of the cache. The core counts in plain integers, which are published once a second.

use dogwatch_dns_core::{
    guard,
    health::breaker::Failure,
    moment::Moment,
    policy::StaleReason,
    resolver::{Masking, Resolver, Restored},
};
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::snapshot;

const QUERIES: &str = "dogwatch_dns_queries_total";
const UNREADABLE: &str = "dogwatch_dns_unreadable_queries_total";
const REFUSED_CLIENTS: &str = "dogwatch_dns_refused_clients_total";
const HITS_FRESH: &str = "dogwatch_dns_fresh_hits_total";
const HITS_LOCAL: &str = "dogwatch_dns_local_hits_total";
const HITS_STALE: &str = "dogwatch_dns_stale_hits_total";
const MISSES: &str = "dogwatch_dns_misses_total";
const COALESCED: &str = "dogwatch_dns_coalesced_misses_total";
const FAILURES: &str = "dogwatch_dns_failures_total";
const OVERLOADS: &str = "dogwatch_dns_overloads_total";
const DROPPED: &str = "dogwatch_dns_dropped_queries_total";
const REFRESHES: &str = "dogwatch_dns_refreshes_total";
const WARM: &str = "dogwatch_dns_warm_refreshes_total";
const WARM_OVER_BUDGET: &str = "dogwatch_dns_warm_over_budget_total";
const PINNED_REFRESHES: &str = "dogwatch_dns_pinned_refreshes_total";
const PINNED: &str = "dogwatch_dns_pinned_answers";
const PINNED_STALE: &str = "dogwatch_dns_pinned_stale_answers";
const LOST: &str = "dogwatch_dns_lost_names";
const RECOVERY_HOT: &str = "dogwatch_dns_recovery_hot_names";
const RECOVERY_VERIFIED: &str = "dogwatch_dns_recovery_verified_names";
const RECOVERY_WAITING: &str = "dogwatch_dns_recovery_waiting_names";
const PROBES: &str = "dogwatch_dns_probes_total";
const LOCAL_FAILURES: &str = "dogwatch_dns_local_failures_total";
const PAUSES: &str = "dogwatch_dns_pauses_total";
const TRANSITIONS: &str = "dogwatch_dns_health_transitions_total";
const EVICTED: &str = "dogwatch_dns_evictions_total";
const UPSTREAM_QUERIES: &str = "dogwatch_dns_upstream_queries_total";
const UPSTREAM_ANSWERS: &str = "dogwatch_dns_upstream_answers_total";
const UPSTREAM_FAILURES: &str = "dogwatch_dns_upstream_failures_total";
const UPSTREAM_USABLE: &str = "dogwatch_dns_upstream_usable";
const UPSTREAM_CASE_KEPT: &str = "dogwatch_dns_upstream_case_kept";
const UPSTREAM_OTHER_CASE: &str = "dogwatch_dns_upstream_other_case_total";
const UPSTREAM_FORGED: &str = "dogwatch_dns_upstream_forged_total";
const HEALTH: &str = "dogwatch_dns_health";
const NAMES: &str = "dogwatch_dns_cached_names";
const BYTES: &str = "dogwatch_dns_cache_bytes";
const MASKED: &str = "dogwatch_dns_masked_ratio";
const STALE_NAMES: &str = "dogwatch_dns_stale_names";
const OLDEST_STALE: &str = "dogwatch_dns_oldest_stale_seconds";
const RUNWAY: &str = "dogwatch_dns_runway_seconds";
const AT_RISK: &str = "dogwatch_dns_names_at_risk";
const SNAPSHOT_RECORDS: &str = "dogwatch_dns_snapshot_records_total";
const SNAPSHOT_ERRORS: &str = "dogwatch_dns_snapshot_errors_total";
const SNAPSHOT_LOST: &str = "dogwatch_dns_snapshot_lost_records_total";
const HELD_NAMES: &str = "dogwatch_dns_held_names";
const GUARD_TRIPPED: &str = "dogwatch_dns_guard_tripped";
const GUARD_TRIPS: &str = "dogwatch_dns_guard_trips_total";
const GUARD_HOLDS: &str = "dogwatch_dns_guard_holds_total";
const CONTRADICTIONS: &str = "dogwatch_dns_contradicted_denials_total";
const MOVED: &str = "dogwatch_dns_moved_answers_total";
const SHRUNK: &str = "dogwatch_dns_shrunk_answers_total";
const REBINDING: &str = "dogwatch_dns_rebinding_answers_total";
const SNAPSHOT_SYNCS: &str = "dogwatch_dns_snapshot_syncs_total";
const RESTORED_NAMES: &str = "dogwatch_dns_restored_names";
const RESTORE_TIME: &str = "dogwatch_dns_restore_seconds";
const RESTORE_DAMAGE: &str = "dogwatch_dns_restore_damaged_files";
const BUILD: &str = "dogwatch_dns_build_info";

/// Registers the help text of each metric. Call it once, after the recorder is installed.
pub fn describe() {
    describe_counter!(QUERIES, "Packets from clients.");
    describe_counter!(
        UNREADABLE,
        "Packets that are not a DNS query, or a query that the cache does not support."
    );
    describe_counter!(REFUSED_CLIENTS, "Packets dropped because the client is not in `allow`.");
    describe_counter!(HITS_FRESH, "Answers served from the cache within their TTL.");
    describe_counter!(HITS_LOCAL, "Answers for names in hosts_file, localhost and invalid.");
    describe_counter!(HITS_STALE, "Answers served from the cache past their TTL, by reason.");
    describe_counter!(MISSES, "Queries that waited for an upstream.");
    describe_counter!(COALESCED, "Misses that joined an upstream query already in flight.");
    describe_counter!(FAILURES, "Queries answered with an error because no answer was available.");
    describe_counter!(OVERLOADS, "Queries refused because too many clients were waiting.");
    describe_counter!(
        DROPPED,
        "Queries dropped because the core was too busy to take them from an answering thread."
    );
    describe_counter!(REFRESHES, "Background refreshes, by result.");
    describe_counter!(WARM, "Refreshes of hot names shortly before they expired.");
    describe_counter!(WARM_OVER_BUDGET, "Hot names not kept warm because the budget was used up.");
    describe_counter!(PINNED_REFRESHES, "Refreshes of pinned names.");
    describe_gauge!(PINNED, "Cached answers of pinned names.");
    describe_gauge!(PINNED_STALE, "Cached answers of pinned names that are past their TTL.");
    describe_gauge!(LOST, "Names used in the last day that are too old to serve.");
    describe_gauge!(
        RECOVERY_HOT,
        "After an outage: the most used names, which must be refreshed before the state returns to OK."
    );
    describe_gauge!(
        RECOVERY_VERIFIED,
        "After an outage: the most used names that an upstream has answered since."
    );
    describe_gauge!(RECOVERY_WAITING, "After an outage: names waiting for their refresh.");
    describe_counter!(PROBES, "Queries sent only to check an upstream.");
    describe_counter!(LOCAL_FAILURES, "Upstream queries that failed on this host: no socket, no memory.");
    describe_counter!(
        PAUSES,
        "Times the cache noticed that it had not run: stopped, suspended or overloaded. Upstreams are not judged by such times."
    );
    describe_counter!(TRANSITIONS, "Changes of a zone's upstream health.");
    describe_counter!(EVICTED, "Answers evicted to stay below cache_mib.");
    describe_counter!(UPSTREAM_QUERIES, "Queries sent to an upstream.");
    describe_counter!(UPSTREAM_ANSWERS, "Usable answers from an upstream.");
    describe_counter!(UPSTREAM_FAILURES, "Failed queries to an upstream, by reason.");
    describe_gauge!(UPSTREAM_USABLE, "1 if this upstream is used for client queries.");
    describe_gauge!(
        UPSTREAM_CASE_KEPT,
        "1 if answers from this upstream (UDP) must match the letter case of the query (0x20), which makes forgery harder."
    );
    describe_counter!(
        UPSTREAM_OTHER_CASE,
        "Answers rejected because their letter case did not match the query: forged, or the upstream changed."
    );
    describe_counter!(
        UPSTREAM_FORGED,
        "Replies that someone else sent in this upstream's name; all were rejected."
    );
    describe_gauge!(HEALTH, "Health of a zone's upstreams: 0 healthy, 1 recovering, 2 slow, 3 down.");
    describe_gauge!(NAMES, "Cached answers.");
    describe_gauge!(BYTES, Unit::Bytes, "Memory used by the cached answers.");
    describe_gauge!(MASKED, "Fraction of the answers in the last minute that were stale.");
    describe_gauge!(STALE_NAMES, "Names past their TTL that clients used in the last five minutes.");
    describe_gauge!(
        OLDEST_STALE,
        Unit::Seconds,
        "How far past its TTL the oldest name used in the last five minutes is."
    );
    describe_gauge!(RUNWAY, Unit::Seconds, "Time until the first name in use is too old to serve.");
    describe_gauge!(
        AT_RISK,
        "Names in use that become too old to serve within six hours because their upstreams are failing."
    );
    describe_counter!(SNAPSHOT_RECORDS, "Answers written to the snapshot log.");
    describe_counter!(SNAPSHOT_ERRORS, "Failed writes of the snapshot.");
    describe_counter!(SNAPSHOT_LOST, "Answers that could not be saved to disk.");
    describe_gauge!(HELD_NAMES, "Names whose last known good answer is held.");
    describe_gauge!(GUARD_TRIPPED, "Groups of names held because many vanished or moved at once.");
    describe_counter!(GUARD_TRIPS, "Groups held because many names vanished or moved at once, by cause.");
    describe_counter!(GUARD_HOLDS, "Holds started, and how holds ended, by event.");
    describe_counter!(CONTRADICTIONS, "Names that one upstream denied and another one had.");
    describe_counter!(MOVED, "Accepted answers with none of the addresses that the name had before.");
    describe_counter!(
        SHRUNK,
        "Accepted answers with at most a fifth of the records that the name had before."
    );
    describe_counter!(REBINDING, "Answers blocked because a public name led to a private address.");
    describe_counter!(SNAPSHOT_SYNCS, "Times the snapshot was forced to disk.");
    describe_gauge!(RESTORED_NAMES, "Answers loaded from disk at the last start.");
    describe_gauge!(
        RESTORE_TIME,
        Unit::Seconds,
        "Time to load the answers from disk at the last start, before the first query was answered."
    );
    describe_gauge!(RESTORE_DAMAGE, "Problems with the snapshot files at the last start.");
    describe_gauge!(BUILD, "Always 1; the version is in the label.");
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Publishes the counters of the core and the shell.
pub fn publish(resolver: &Resolver, refused_clients: u64, snapshot: &snapshot::Counts) {
    let counts = &resolver.counts;
    for (name, value) in [
        (QUERIES, counts.queries),
        (UNREADABLE, counts.unreadable),
        (REFUSED_CLIENTS, refused_clients),
        (HITS_FRESH, counts.hits_fresh),
        (HITS_LOCAL, counts.hits_local),
        (MISSES, counts.misses),
        (COALESCED, counts.coalesced),
        (FAILURES, counts.failures),
        (OVERLOADS, counts.overloads),
        (DROPPED, counts.dropped),
        (PROBES, counts.probes),
        (LOCAL_FAILURES, counts.local_failures),
        (PAUSES, counts.pauses),
        (WARM, counts.warm_refreshes),
        (WARM_OVER_BUDGET, counts.warm_over_budget),
        (PINNED_REFRESHES, counts.pinned_refreshes),
        (TRANSITIONS, counts.transitions),
        (EVICTED, resolver.cache().evicted),
        (SNAPSHOT_RECORDS, snapshot.records()),
        (SNAPSHOT_ERRORS, snapshot.errors()),
        (SNAPSHOT_LOST, snapshot.lost()),
        (SNAPSHOT_SYNCS, snapshot.syncs()),
    ] {
        counter!(name).absolute(value);
    }
    for (result, value) in [
        ("done", counts.refreshes_done),
        ("failed", counts.refreshes_failed),
        ("held", counts.refreshes_held),
    ] {
        counter!(REFRESHES, "result" => result).absolute(value);
    }
    for reason in StaleReason::ALL {
        counter!(HITS_STALE, "reason" => reason.name()).absolute(counts.hits_stale[reason as usize]);
    }
    for zone in resolver.zones().iter() {
        let name = zone.name();
        for upstream in zone.group().all() {
            let labels = [("zone", name.clone()), ("upstream", upstream.endpoint.to_string())];
            counter!(UPSTREAM_QUERIES, &labels).absolute(upstream.counts.sent);
            counter!(UPSTREAM_ANSWERS, &labels).absolute(upstream.counts.answered);
            gauge!(UPSTREAM_USABLE, &labels).set(f64::from(u8::from(upstream.breaker.usable())));
            if !upstream.endpoint.is_stream() {
                gauge!(UPSTREAM_CASE_KEPT, &labels).set(f64::from(u8::from(upstream.letter_case.matters())));
                counter!(UPSTREAM_FORGED, &labels).absolute(upstream.forgeries.total());
                counter!(UPSTREAM_OTHER_CASE, &labels).absolute(upstream.counts.other_case);
            }
            for why in Failure::ALL {
                let [zone, upstream_label] = labels.clone();
                counter!(UPSTREAM_FAILURES, &[zone, upstream_label, ("reason", why.name().to_owned())])
                    .absolute(upstream.counts.failed[why as usize]);
            }
        }
        gauge!(HEALTH, "zone" => name).set(f64::from(zone.health_number()));
    }
    let progress = resolver.recovery_progress();
    gauge!(RECOVERY_HOT).set(number(progress.hot));
    gauge!(RECOVERY_VERIFIED).set(number(progress.verified));
    gauge!(RECOVERY_WAITING).set(number(progress.waiting));
    gauge!(NAMES).set(number(resolver.cache().len()));
    gauge!(BYTES).set(number(resolver.cache().bytes()));
}

/// Publishes the values that need a walk over all entries.
pub fn publish_masking(masking: &Masking) {
    let answers = f64::from(masking.answers);
    gauge!(MASKED).set(if masking.answers == 0 { 0.0 } else { f64::from(masking.stale) / answers });
    gauge!(PINNED).set(number(masking.pinned));
    gauge!(PINNED_STALE).set(number(masking.pinned_stale));
    gauge!(LOST).set(number(masking.lost_names));
    gauge!(STALE_NAMES).set(number(masking.stale_names));
    gauge!(AT_RISK).set(number(masking.at_risk));
    gauge!(OLDEST_STALE).set(std::time::Duration::from_secs(masking.oldest_stale_s).as_secs_f64());
    gauge!(RUNWAY).set(std::time::Duration::from_secs(masking.runway_s).as_secs_f64());
}

/// Publishes the holds and events of all guards.
pub fn publish_guard(resolver: &Resolver, now: Moment) {
    let holding = resolver.guard_holding(now);
    gauge!(HELD_NAMES).set(number(holding.names));
    gauge!(GUARD_TRIPPED).set(number(holding.trips));
    let counts = |of: fn(&guard::Counts) -> u64| -> u64 {
        resolver.zones().iter().map(|zone| of(&zone.guard().counts)).sum()
    };
    for (cause, name) in guard::Cause::NAMES.into_iter().enumerate() {
        let trips = resolver.zones().iter().map(|zone| zone.guard().counts.trips[cause]).sum();
        counter!(GUARD_TRIPS, "cause" => name).absolute(trips);
    }
    for (event, value) in [
        ("started", counts(|counts| counts.held)),
        ("returned", counts(|counts| counts.returned)),
        ("honoured", counts(|counts| counts.honoured)),
        ("accepted", counts(|counts| counts.accepted)),
        ("no_room", counts(|counts| counts.not_held)),
    ] {
        counter!(GUARD_HOLDS, "event" => event).absolute(value);
    }
    counter!(CONTRADICTIONS).absolute(counts(|counts| counts.contradicted));
    counter!(MOVED).absolute(counts(|counts| counts.moved));
    counter!(SHRUNK).absolute(counts(|counts| counts.shrunk));
    counter!(REBINDING).absolute(counts(|counts| counts.rebinding));
}

/// Publishes the result of loading the snapshot.
pub(crate) fn publish_restored(restored: &Restored) {
    gauge!(RESTORED_NAMES).set(number(restored.names));
    gauge!(RESTORE_TIME).set(restored.ms / 1_000.0);
    gauge!(RESTORE_DAMAGE).set(number(restored.troubles));
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}
