//! The texts of notifications, the same for every receiver. Pure.
//!
//! Plugin output and labels are untrusted; [`line`] makes them safe. Escaping for HTML or JSON is
//! left to the receivers.

use dogwatch_alertd_core::rules::{
    lately::Happened,
    notification::{Kind, Notification, NotifiedAlert},
    text::{line, name_of, plural},
};
use dogwatch_wire::State;
use jiff::tz::TimeZone;

use super::held;

/// Alerts of one incident that a notification lists; the rest are counted.
pub const ALERTS_MAX: usize = 25;
/// Lines of a digest that a notification lists; the rest are counted.
pub const DIGEST_LINES_MAX: usize = 100;
/// Characters in a title: more than a lock screen or a subject line shows.
const TITLE_CHARS_MAX: usize = 200;

/// `[#4711] CRITICAL web1/disk: /var 96% used`.
pub fn title(told: &Notification, zone: &TimeZone) -> String {
    let tag = match told.kind {
        Kind::Test => "[test]".into(),
        Kind::Digest if told.incident == 0 => "[digest]".into(),
        _ => format!("[#{}]", told.incident),
    };
    line(&format!("{tag} {}", title_after_tag(told, zone)), TITLE_CHARS_MAX)
}

fn title_after_tag(told: &Notification, zone: &TimeZone) -> String {
    match told.kind {
        Kind::Test => format!("dogwatch test message to {}", told.receiver),
        Kind::Digest => held::headline(told, zone).unwrap_or_else(|| digest_counts(told)),
        Kind::Problem => format!("{} {}", bad(told), subject(told)),
        Kind::Update => match joined(told) {
            Some(news) => format!("{} {news}", bad(told)),
            None => format!("{} (update) {}", bad(told), subject(told)),
        },
        Kind::Reminder if told.reason == "downtime_started" => {
            format!("in downtime: {} {}", bad(told), subject(told))
        }
        Kind::Reminder => format!("still {} {}", bad(told), subject(told)),
        Kind::Recovery
            if !told.resolved.is_empty() && told.resolved.iter().all(NotifiedAlert::is_unwatched) =>
        {
            format!("no longer watched: {}", subject(told))
        }
        Kind::Recovery => format!("OK {}", subject(told)),
        Kind::Acknowledged => match &told.ack {
            Some(ack) => format!("acknowledged by {}: {}", ack.author, subject(told)),
            None => format!("acknowledged: {}", subject(told)),
        },
    }
}

/// The worst state as text. A service that is flapping is not OK even if its state is.
fn bad(told: &Notification) -> &'static str {
    match worst(told) {
        State::Ok => "FLAPPING",
        state => state.name(),
    }
}

/// `4 notifications over the rate limit: 3 problems, 1 recovery`.
fn digest_counts(told: &Notification) -> String {
    let count = |kinds: &[Kind]| told.digest.iter().filter(|line| kinds.contains(&line.kind)).count();
    let (problems, recoveries, acks) = match &told.summary {
        Some(all) => (all.problems, all.recoveries, all.acks),
        None => (
            count(&[Kind::Problem, Kind::Update, Kind::Reminder]),
            count(&[Kind::Recovery]),
            count(&[Kind::Acknowledged]),
        ),
    };
    let parts = [(problems, "problem"), (recoveries, "recovery"), (acks, "acknowledgement")];
    let parts: Vec<_> = parts.into_iter().filter(|&(n, _)| n > 0).map(|(n, noun)| plural(n, noun)).collect();
    format!(
        "{} over the rate limit: {}",
        plural(problems + recoveries + acks, "notification"),
        parts.join(", ")
    )
}

/// `web1/disk: /var 96% used`, or `3 alerts (service=disk): web1/disk: /var 96% used`.
fn subject(told: &Notification) -> String {
    let alerts = if told.firing.is_empty() { &told.resolved } else { &told.firing };
    // A title has room for one alert: the worst.
    let first = alerts.iter().max_by_key(|alert| alert.state);
    match (first, alerts.len()) {
        (None, _) => group(told),
        (Some(only), 1) => named(only),
        (Some(first), n) => format!("{n} alerts ({}): {}", group(told), named(first)),
    }
}

/// `web1/disk /srv joined web1/disk /var: 2% free`: what is new in an incident that the receiver
/// knows.
fn joined(told: &Notification) -> Option<String> {
    let (new, known): (Vec<_>, Vec<_>) = told.firing.iter().partition(|alert| alert.joined);
    let first = new.iter().max_by_key(|alert| alert.state)?;
    let more = |count: usize| if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
    let joins = alert_name(first) + &more(new.len());
    let joins = match known.first() {
        Some(other) => format!("{joins} joined {}{}", alert_name(other), more(known.len())),
        None => format!("{joins} (update)"),
    };
    Some(if first.summary.is_empty() { joins } else { format!("{joins}: {}", first.summary) })
}

fn named(alert: &NotifiedAlert) -> String {
    let flapping = if alert.flapping { " (flapping)" } else { "" };
    let name = alert_name(alert);
    if alert.summary.is_empty() {
        format!("{name}{flapping}")
    } else {
        format!("{name}{flapping}: {}", alert.summary)
    }
}

/// `web1/disk` for a service; an external alert is named by the labels it has.
pub fn alert_name(alert: &NotifiedAlert) -> String {
    name_of(&alert.labels)
}

/// `service=disk`, or `all` if alerts are not grouped.
pub fn group(told: &Notification) -> String {
    if told.group.is_empty() {
        return "all".into();
    }
    let pairs: Vec<_> = told.group.iter().map(|(name, value)| format!("{name}={value}")).collect();
    line(&pairs.join(", "), 120)
}

/// Worst state of the firing alerts; OK if none fires. CRITICAL is worse than UNKNOWN.
pub fn worst(told: &Notification) -> State {
    let groups = told.summary.iter().flat_map(|summary| &summary.groups).map(|group| group.state);
    let states = told.firing.iter().map(|alert| alert.state).chain(groups);
    states.max().unwrap_or(State::Ok)
}

/// Why the reader was notified, as a sentence, followed by the reason's name for `grep`.
pub fn why_told(told: &Notification) -> String {
    let words = match (told.kind, told.reason.as_str()) {
        (_, "escalation_step" | "personal_rule") => "nobody has acknowledged it yet",
        (_, "escalation_repeat") => "nobody has acknowledged it, so everybody is notified again",
        (_, "delivery_failed") => "another receiver could not be reached",
        (_, "fallback") => "you are the fallback for a receiver that could not be reached",
        (_, "silence_ending") => "a silence ends soon and the problem persists",
        (_, "silence_ended") => "a silence ended and the problem persists",
        (_, "downtime_started") => "until the downtime ends, only a recovery is sent",
        (_, "downtime_ended") => "a downtime ended and the problem persists",
        (_, "host_back") => "the host reports again and the problem persists",
        (_, "dependency_back") => "its dependency recovered and the problem persists",
        (_, "mute_ended") => "the mute period of its route is over and the problem persists",
        (_, "inhibition_ended") => "the alert that inhibited it is over and the problem persists",
        (_, "no_one_on_call" | "unknown_target") => "there was nobody else to notify",
        (_, "on_call_again") => "it started while nobody was on call; you are on call now",
        (_, "ack_ending") => "an acknowledgement expires soon and the problem persists",
        (_, "ack_expired") => "an acknowledgement expired and the problem persists",
        (_, "ack_outdated") => {
            "a state changed, which ended the acknowledgement (alertctl ack --sticky keeps it)"
        }
        (_, "unacked") => "the acknowledgement was taken back",
        (_, "removed") => "it is no longer monitored; it may not be OK",
        (Kind::Problem, _) => "your first notification of this incident",
        (Kind::Update, _) => "the incident changed",
        (Kind::Reminder, _) => "still not OK",
        (Kind::Recovery | Kind::Acknowledged, _) => "you were notified of the problem",
        (Kind::Digest, _) => "these exceeded a rate limit",
        (Kind::Test, _) => "somebody ran alertctl test-notify",
    };
    let words = match &told.summary {
        Some(summary) => format!("these exceeded {}", line(&summary.held_by, 120)),
        None => words.into(),
    };
    let note = told.note.as_ref().map(|note| format!("{}: ", line(note, 200))).unwrap_or_default();
    format!("{note}{words} ({})", line(&told.reason, 80))
}

/// `load OK 14:02, booted 13:58`: what else changed on the host. All of it is less than a day old,
/// so there is no date.
pub fn lately(told: &Notification, zone: &TimeZone) -> String {
    let one = |one: &Happened| {
        let at = one.at.to_zoned(zone.clone()).strftime("%H:%M");
        let service = one.service.as_ref().map(|service| format!("{} ", line(service, 80)));
        format!("{}{} {at}", service.unwrap_or_default(), line(&one.what, 160))
    };
    told.lately.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use dogwatch_alertd_core::rules::notification::DigestLine;

    use super::*;

    #[test]
    fn the_title_has_number_state_place_and_summary() {
        assert_eq!(title(&problem(), &TimeZone::UTC), "[#4711] CRITICAL web1/disk: /var 96% used");
        let of = |kind| title(&Notification { kind, ..problem() }, &TimeZone::UTC);
        assert_eq!(of(Kind::Reminder), "[#4711] still CRITICAL web1/disk: /var 96% used");
        let mut flapping = problem();
        flapping.firing[0].state = State::Ok;
        flapping.firing[0].flapping = true;
        assert_eq!(title(&flapping, &TimeZone::UTC), "[#4711] FLAPPING web1/disk (flapping): /var 96% used");
        assert_eq!(of(Kind::Test), "[test] dogwatch test message to oncall");
    }

    #[test]
    fn the_title_of_an_update_says_what_joined_what() {
        let mut told = problem();
        let mut second = told.firing[0].clone();
        second.labels.insert("service".into(), "disk /srv".into());
        second.summary = "2% free".into();
        second.joined = true;
        told.kind = Kind::Update;
        told.firing.push(second.clone());
        let title = |told: &Notification| title(told, &TimeZone::UTC);
        assert_eq!(title(&told), "[#4711] CRITICAL web1/disk /srv joined web1/disk: 2% free");
        told.firing.insert(0, second);
        assert_eq!(title(&told), "[#4711] CRITICAL web1/disk /srv and 1 more joined web1/disk: 2% free");
    }

    #[test]
    fn the_title_of_a_recovery_says_ok_and_names_the_alert() {
        let mut told = problem();
        told.resolved = std::mem::take(&mut told.firing);
        told.resolved[0].summary = "/var 61% used".into();
        told.kind = Kind::Recovery;
        assert_eq!(title(&told, &TimeZone::UTC), "[#4711] OK web1/disk: /var 61% used");
    }

    #[test]
    fn the_title_of_a_group_names_the_worst_alert() {
        let mut told = problem();
        let mut unknown = told.firing[0].clone();
        unknown.state = State::Unknown;
        unknown.labels.insert("host".into(), "web0".into());
        told.firing.insert(0, unknown);
        assert_eq!(
            title(&told, &TimeZone::UTC),
            "[#4711] CRITICAL 2 alerts (service=disk): web1/disk: /var 96% used"
        );
    }

    #[test]
    fn the_title_of_a_digest_counts_its_notifications() {
        let mut told = problem();
        let entry = |kind| DigestLine { incident: 1, kind, title: "x".into(), at: told.created_at };
        let digest = vec![entry(Kind::Problem), entry(Kind::Reminder), entry(Kind::Recovery)];
        told = Notification { kind: Kind::Digest, incident: 0, digest, ..told };
        assert_eq!(
            title(&told, &TimeZone::UTC),
            "[digest] 3 notifications over the rate limit: 2 problems, 1 recovery"
        );
    }

    /// The notification that the receivers' tests send.
    pub(in crate::notify) fn problem() -> Notification {
        let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect()
        };
        Notification {
            id: "n-0192f3a7-2".into(),
            incident: 4711,
            dedup_key: "alertd/web1/4711".into(),
            receiver: "oncall".into(),
            kind: Kind::Problem,
            reason: "group_wait_over".into(),
            created_at: "2026-11-21T02:16:00Z".parse().unwrap(),
            group: pairs(&[("service", "disk")]),
            firing: vec![NotifiedAlert {
                labels: pairs(&[("host", "web1"), ("service", "disk")]),
                annotations: pairs(&[
                    ("runbook", "https://wiki.example/disk"),
                    ("note", "ask storage first"),
                ]),
                state: State::Critical,
                flapping: false,
                summary: "/var 96% used".into(),
                detail: "/var 96% of 20 GiB\n/ 40% of 10 GiB".into(),
                perfdata: "/var=96%;80;90".into(),
                since: "2026-11-21T02:12:00Z".parse().unwrap(),
                resolved_at: None,
                joined: false,
            }],
            resolved: Vec::new(),
            digest: Vec::new(),
            summary: None,
            ack: None,
            note: None,
            lately: [(Some("load"), "OK", "02:14"), (None, "booted", "01:58")]
                .map(|(service, what, at)| Happened {
                    at: format!("2026-11-21T{at}:00Z").parse().unwrap(),
                    service: service.map(str::to_owned),
                    what: what.into(),
                })
                .into(),
        }
    }
}
