//! The text of a digest: a sentence for each group, the first single notifications, and how many
//! more there are. Pure.

use dogwatch_alertd_core::rules::{
    notification::Notification,
    storm::Group,
    text::{line, plural},
};
use dogwatch_wire::State;
use jiff::{Timestamp, Unit, tz::TimeZone};

/// `412 hosts: disk CRITICAL, since 14:02, most in dc=fra1`.
pub(super) fn sentence(group: &Group, told_at: Timestamp, zone: &TimeZone) -> String {
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let who = match group.hosts {
        0 => plural(count(group.alerts), "alert"),
        hosts => plural(count(hosts), "host"),
    };
    let is = match group.state {
        State::Ok => "OK again".into(),
        state => format!("{}, since {}", state.name(), since(group.since, told_at, zone)),
    };
    let shared: Vec<_> =
        group.shared.iter().map(|one| format!("{}={}", line(&one.label, 40), line(&one.value, 60))).collect();
    let place = match group.shared.first() {
        None => String::new(),
        Some(one) => {
            format!(", {} in {}", if one.percent == 100 { "all" } else { "most" }, shared.join(", "))
        }
    };
    format!("{who}: {} {is}{place}", line(&group.check, 60))
}

/// Time of day, with the date if it may not be today.
fn since(at: Timestamp, told_at: Timestamp, zone: &TimeZone) -> String {
    let long_ago = told_at.since((Unit::Hour, at)).is_ok_and(|span| span.get_hours() >= CLEAR_HOURS);
    at.to_zoned(zone.clone()).strftime(if long_ago { "%H:%M %d %b" } else { "%H:%M" }).to_string()
}

const CLEAR_HOURS: i32 = 20;

/// `412 hosts: disk CRITICAL, since 14:02, most in dc=fra1; 2 more groups`, if the largest group is
/// an alert storm.
pub(super) fn headline(told: &Notification, zone: &TimeZone) -> Option<String> {
    let summary = told.summary.as_ref()?;
    let first = summary.groups.first().filter(|group| group.is_storm())?;
    let more = match summary.groups.len() - 1 + summary.more_groups {
        0 => String::new(),
        more => format!("; {}", plural(more, "more group")),
    };
    Some(sentence(first, told.created_at, zone) + &more)
}

/// Lines below the headline: the groups, then at most `lines_max` single notifications.
pub(super) fn lines(told: &Notification, zone: &TimeZone, lines_max: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut shown_max = lines_max;
    if let Some(summary) = &told.summary
        && summary.groups.iter().any(Group::is_storm)
    {
        lines.extend(summary.groups.iter().map(|group| sentence(group, told.created_at, zone)));
        if summary.more_groups > 0 {
            lines.push(format!("… and {}", plural(summary.more_groups, "more group")));
        }
        // The sentences carry the message; a few single notifications are enough.
        shown_max = lines_max.div_ceil(4);
    }
    let held =
        told.summary.as_ref().map_or(told.digest.len(), |summary| summary.held()).max(told.digest.len());
    let shown = told.digest.iter().take(shown_max);
    lines.extend(shown.map(|held| {
        let at = held.at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string();
        format!("{at} #{} {}", held.incident, line(&held.title, 160))
    }));
    let left = held - told.digest.len().min(shown_max);
    if left > 0 {
        lines.push(format!("… and {left} more; run alertctl status"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use dogwatch_alertd_core::rules::{
        notification::{Digest, DigestLine, Kind},
        storm::Shared,
    };

    use super::{
        super::words::{self, tests::problem},
        *,
    };

    fn storm() -> Group {
        let shared = vec![Shared { label: "dc".into(), value: "fra1".into(), percent: 93 }];
        Group {
            state: State::Critical,
            check: "disk".into(),
            alerts: 400,
            hosts: 412,
            since: "2026-11-21T14:02:10Z".parse().unwrap(),
            shared,
        }
    }

    fn digest(groups: Vec<Group>) -> Notification {
        let at: Timestamp = "2026-11-21T14:03:00Z".parse().unwrap();
        let line =
            DigestLine { incident: 7, kind: Kind::Problem, title: "CRITICAL web1/disk: full".into(), at };
        let summary = Digest {
            problems: 400,
            recoveries: 0,
            acks: 0,
            groups,
            more_groups: 2,
            held_by: "the rate of user ann".into(),
        };
        Notification {
            kind: Kind::Digest,
            incident: 0,
            created_at: at,
            firing: Vec::new(),
            digest: vec![line; 40],
            summary: Some(Box::new(summary)),
            ..problem()
        }
    }

    #[test]
    fn an_alert_storm_becomes_one_sentence() {
        let told = digest(vec![storm()]);
        assert_eq!(
            words::title(&told, &TimeZone::UTC),
            "[digest] 412 hosts: disk CRITICAL, since 14:02, most in dc=fra1; 2 more groups"
        );
        let shown = lines(&told, &TimeZone::UTC, 8);
        let expected = [
            "412 hosts: disk CRITICAL, since 14:02, most in dc=fra1",
            "… and 2 more groups",
            "14:03:00 #7 CRITICAL web1/disk: full",
            "14:03:00 #7 CRITICAL web1/disk: full",
            "… and 398 more; run alertctl status",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn without_a_storm_notifications_are_counted_and_listed() {
        let told = digest(vec![Group { alerts: 3, hosts: 3, ..storm() }]);
        assert_eq!(
            words::title(&told, &TimeZone::UTC),
            "[digest] 400 notifications over the rate limit: 400 problems"
        );
        assert_eq!(lines(&told, &TimeZone::UTC, 8).len(), 9);
    }

    #[test]
    fn the_sentence_depends_on_state_age_and_hosts() {
        let said = |group: Group| sentence(&group, "2026-11-21T14:03:00Z".parse().unwrap(), &TimeZone::UTC);
        let shared = |percent| vec![Shared { percent, ..storm().shared[0].clone() }];
        assert_eq!(
            said(Group { state: State::Ok, shared: shared(100), ..storm() }),
            "412 hosts: disk OK again, all in dc=fra1"
        );
        let old = "2026-11-20T14:02:00Z".parse().unwrap();
        assert_eq!(
            said(Group { hosts: 0, alerts: 1, since: old, shared: Vec::new(), ..storm() }),
            "1 alert: disk CRITICAL, since 14:02 20 Nov"
        );
    }

    #[test]
    fn a_digest_has_the_state_of_its_worst_group() {
        assert_eq!(words::worst(&digest(vec![Group { state: State::Warning, ..storm() }])), State::Warning);
        assert_eq!(words::worst(&digest(vec![Group { state: State::Ok, ..storm() }])), State::Ok);
    }
}
