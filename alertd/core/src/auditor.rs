//! The auditor looks for states that should be impossible: overdue timers, notifications that are
//! neither waiting nor finished, and incidents that nobody knows of and nobody will be notified of.
//!
//! Each kind of finding raises an internal alert, appears in `alertctl health` and in a metric, and
//! stops the pings to the dead man's switch. A sweep checks a bounded part of the state at a time.
//! Only a problem seen by two sweeps in a row counts, because work may be about to be done, or may
//! be late because the machine slept.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    Core,
    own_alerts::{OWN, OwnAlert},
};
use crate::rules::{
    alert::{AlertKey, Ending},
    incident::Incident,
    moment::later,
    outbox::{Row, RowState},
    reason::Reason,
};

/// A kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A timer is overdue.
    OverdueTimer,
    /// A notification was handed to a receiver, but there is no result.
    LostAttempt,
    /// A notification in the outbox is not being sent, for no reason.
    StuckNotification,
    /// A notification belongs to a digest that does not exist.
    LostDigest,
    /// The next notification of an incident is overdue.
    OverdueGroup,
    /// An incident is open and unacknowledged, nobody was notified, and nobody will be.
    UntoldIncident,
    /// People know of the incident, but there will be no reminder.
    NoTimer,
}

impl What {
    pub const ALL: [Self; 7] = [
        Self::OverdueTimer,
        Self::LostAttempt,
        Self::StuckNotification,
        Self::LostDigest,
        Self::OverdueGroup,
        Self::UntoldIncident,
        Self::NoTimer,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::OverdueTimer => "overdue_timer",
            Self::LostAttempt => "lost_attempt",
            Self::StuckNotification => "stuck_notification",
            Self::LostDigest => "lost_digest",
            Self::OverdueGroup => "overdue_group",
            Self::UntoldIncident => "untold_incident",
            Self::NoTimer => "no_timer",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::OverdueTimer => "a timer is overdue",
            Self::LostAttempt => "an attempt to send a notification has no result",
            Self::StuckNotification => "a notification is stuck in the outbox",
            Self::LostDigest => "a notification waits for a digest that does not exist",
            Self::OverdueGroup => "a notification for an incident is overdue",
            Self::UntoldIncident => "nobody was notified of an incident, and nobody will be",
            Self::NoTimer => "an open incident has no timer, so nobody will be reminded of it",
        }
    }
}

/// All findings of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub what: What,
    pub count: usize,
    /// The first of them, for people.
    pub first: String,
}

impl Finding {
    /// `a timer is overdue: since 02:12 (and 3 more)`.
    pub fn text(&self) -> String {
        let more = if self.count > 1 { format!(" (and {} more)", self.count - 1) } else { String::new() };
        format!("{}: {}{more}", self.what.words(), self.first)
    }
}

#[derive(Debug, Default)]
pub(super) struct Auditor {
    next_at: Option<Timestamp>,
    /// Where the current sweep continues, or `None` between two sweeps.
    at: Option<(u64, u64)>,
    /// What this sweep has seen: kind and number, and text for people.
    sweep: BTreeMap<(What, u64), String>,
    /// What the previous sweep saw.
    suspects: BTreeMap<(What, u64), String>,
    found: BTreeMap<What, Finding>,
}

impl Auditor {
    fn note(&mut self, what: What, number: u64, words: impl FnOnce() -> String) {
        if self.sweep.len() < SUSPECTS_MAX {
            self.sweep.entry((what, number)).or_insert_with(words);
        }
    }

    fn end_sweep(&mut self) {
        self.found.clear();
        for ((what, number), words) in &self.sweep {
            if self.suspects.contains_key(&(*what, *number)) {
                let new = || Finding { what: *what, count: 0, first: words.clone() };
                self.found.entry(*what).or_insert_with(new).count += 1;
            }
        }
        self.suspects = std::mem::take(&mut self.sweep);
    }
}

/// More suspects would add no information.
const SUSPECTS_MAX: usize = 10_000;
/// The pause between two sweeps.
const INTERVAL: Duration = Duration::from_secs(30);
/// The pause between two parts of a sweep.
const PART_INTERVAL: Duration = Duration::from_secs(1);
/// Incidents and notifications checked per part, which takes 1 to 2 ms.
const PART: usize = 2_000;
/// Delays up to this long can be caused by load.
const GRACE: Duration = Duration::from_mins(1);
/// A slow receiver can delay notifications for some time.
const QUEUE_GRACE: Duration = Duration::from_mins(5);

impl Core {
    /// Checks the next part, if it is time. Call it after all due work is done.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        if self.auditor.next_at.is_some_and(|at| at > now) {
            return;
        }
        let mut audit = std::mem::take(&mut self.auditor);
        let (incident, row) = audit.at.unwrap_or((0, 0));
        if let Some(at) = self.next_wakeup().filter(|at| later(*at, GRACE) <= now) {
            let number = u64::try_from(at.as_microsecond()).unwrap_or(0);
            audit.note(What::OverdueTimer, number, || format!("since {at:.0}"));
        }
        let mut last = None;
        for (number, open) in self.incidents.range(incident..).take(PART) {
            last = Some(*number);
            if let Some(what) = self.wrong_with(open, now) {
                audit.note(what, *number, || format!("incident {number}"));
            }
        }
        let next_incident = last.map_or(u64::MAX, |number| number + 1);
        last = None;
        for waiting in self.outbox.from(row).take(PART) {
            last = Some(waiting.seq);
            if let Some(what) = self.wrong_with_row(waiting, now) {
                let said = &waiting.notification;
                audit.note(what, waiting.seq, || format!("{} to {}", said.id, said.receiver));
            }
        }
        let next_row = last.map_or(u64::MAX, |seq| seq + 1);
        if self.incidents.range(next_incident..).next().is_none()
            && self.outbox.from(next_row).next().is_none()
        {
            audit.at = None;
            audit.next_at = Some(later(now, INTERVAL));
            audit.end_sweep();
            self.auditor = audit;
            self.tell_of_findings(now);
        } else {
            audit.at = Some((next_incident, next_row));
            audit.next_at = Some(later(now, PART_INTERVAL));
            self.auditor = audit;
        }
    }

    /// What the last two complete sweeps both saw.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.auditor.found.values()
    }

    fn wrong_with(&self, incident: &Incident, now: Timestamp) -> Option<What> {
        if incident.resolved_at.is_some() {
            return None;
        }
        if incident.flush_at.is_some_and(|at| later(at, GRACE) <= now) {
            return Some(What::OverdueGroup);
        }
        let waits = incident.quiet || incident.ack.is_some() || later(incident.opened_at, GRACE) > now;
        let on_its_way: Vec<_> = self.outbox.receivers_of(incident.number).collect();
        if waits || !on_its_way.is_empty() {
            return None;
        }
        let planned =
            incident.next_wakeup(&on_its_way).is_some() && self.woken_at.contains_key(&incident.number);
        match (planned, incident.told.is_empty()) {
            (true, _) => None,
            (false, true) => Some(What::UntoldIncident),
            (false, false) => Some(What::NoTimer),
        }
    }

    fn wrong_with_row(&self, row: &Row, now: Timestamp) -> Option<What> {
        match row.state {
            RowState::Leased { until } if later(until, GRACE) <= now => Some(What::LostAttempt),
            RowState::Digested { into } if self.outbox.get(into).is_none() => Some(What::LostDigest),
            RowState::Queued { not_before } if later(not_before, QUEUE_GRACE) <= now => {
                let receiver = &row.notification.receiver;
                let waits = self.failing.contains_key(receiver) || self.outbox.has_to_wait(row, now);
                (!waits).then_some(What::StuckNotification)
            }
            _ => None,
        }
    }

    fn tell_of_findings(&mut self, now: Timestamp) {
        for what in What::ALL {
            let key = AlertKey::new(OWN, format!("@audit {}", what.name()));
            let firing = self.alerts.get(&key).is_some_and(|alert| alert.resolved_at.is_none());
            match self.auditor.found.get(&what) {
                Some(finding) if !firing => {
                    let own = OwnAlert {
                        key,
                        host: self.rules.host.clone(),
                        service: "alertd",
                        labels: [("audit".to_owned(), what.name().to_owned())].into(),
                        summary: format!(
                            "{}; see alertctl health; you can restart alertd without losing anything",
                            finding.text()
                        ),
                        since: now,
                        reason: Reason::AuditFound,
                    };
                    self.raise(own, now);
                }
                None if firing => {
                    let ending = Ending::Well("the auditor no longer finds this problem");
                    let change = self.alerts.resolve(&key, ending, now);
                    self.on_move(&key, change, Reason::AuditClean, now);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Mood, World},
        *,
    };

    const ONE: &str = r#"
        [[route]]
        receiver = "mail"
        group_wait = "0s"
        [receiver.mail.maildir]
        path = "/m"
    "#;
    const MINUTE: Duration = Duration::from_mins(1);

    fn world() -> World {
        let mut world = World::new(ONE, 1);
        world.report("web1", "disk", 'C');
        world.agents_send(None);
        world
    }

    /// What two sweeps find.
    fn found(world: &mut World, after: Duration) -> Vec<What> {
        for pause in [after, INTERVAL] {
            world.now = later(world.now, pause);
            world.agents_send(None);
            world.turn(None);
        }
        world.core.findings().map(|finding| finding.what).collect()
    }

    fn only_incident(world: &mut World) -> &mut Incident {
        world.core.incidents.values_mut().next().unwrap()
    }

    #[test]
    fn nothing_is_found_in_normal_operation() {
        let mut world = world();
        for _ in 0..20 {
            world.pass(MINUTE);
            world.agents_send(None);
            assert_eq!(found(&mut world, Duration::ZERO), []);
        }
    }

    #[test]
    fn an_incident_without_a_timer_raises_an_internal_alert_until_it_has_one() {
        let mut world = world();
        let number = only_incident(&mut world).number;
        let at = world.core.woken_at.remove(&number).unwrap();
        world.core.wakeups.remove(&(at, number));
        assert_eq!(found(&mut world, GRACE + INTERVAL), [What::NoTimer]);
        let said = world.heard.last().unwrap().notification.clone();
        assert_eq!(said.firing[0].labels["audit"], "no_timer");
        assert!(
            said.firing[0]
                .summary
                .starts_with("an open incident has no timer, so nobody will be reminded of it: incident 1;")
        );
        world.core.touched.insert(number);
        assert_eq!(found(&mut world, MINUTE), []);
        assert_eq!(world.heard.last().unwrap().notification.reason, "all_resolved");
    }

    #[test]
    fn an_incident_that_nobody_will_be_notified_of_is_found() {
        let mut world = world();
        let incident = only_incident(&mut world);
        incident.told.clear();
        let number = incident.number;
        world.core.plan_wakeup(number);
        assert_eq!(found(&mut world, GRACE + INTERVAL), [What::UntoldIncident]);
    }

    #[test]
    fn a_forgotten_group_is_found() {
        let mut world = world();
        let number = only_incident(&mut world).number;
        only_incident(&mut world).flush_at = Some(Timestamp::UNIX_EPOCH);
        let at = world.core.woken_at.remove(&number).unwrap();
        world.core.wakeups.remove(&(at, number));
        assert_eq!(found(&mut world, MINUTE), [What::OverdueGroup]);
    }

    #[test]
    fn an_attempt_without_an_outcome_is_found_but_a_slow_one_is_not() {
        let mut world = World::new(ONE, 1);
        world.report("web1", "disk", 'C');
        world.moods.insert("mail".into(), Mood::Busy);
        world.agents_send(None);
        // Leased again, but never handed over.
        world.now = later(world.now, MINUTE);
        assert_eq!(world.core.poll_send(9, world.now).len(), 1);
        world.core.settle(world.now);
        assert_eq!(world.core.findings().count(), 0);
        world.now = later(world.now, 2 * MINUTE);
        world.core.settle(world.now);
        assert_eq!(world.core.findings().count(), 0, "the machine may have slept");
        world.core.settle(later(world.now, INTERVAL));
        let found: Vec<_> = world.core.findings().map(|finding| finding.what).collect();
        assert_eq!(found, [What::LostAttempt]);
    }

    #[test]
    fn a_large_sweep_takes_several_parts_and_finds_the_last_problem() {
        let mut world = World::new(ONE, 1);
        for host in 0..u32::try_from(PART).unwrap() + 50 {
            world.report(&format!("web{host:05}"), "disk", 'C');
        }
        world.agents_send(None);
        world.pass(10 * MINUTE);
        let last = *world.core.incidents.keys().next_back().unwrap();
        let incident = world.core.incidents.get_mut(&last).unwrap();
        incident.told.clear();
        world.core.plan_wakeup(last);
        world.core.auditor = Auditor::default();
        let mut looks = 0;
        while world.core.findings().next().is_none() {
            world.core.settle(world.now);
            world.now = later(world.now, if looks % 2 == 0 { PART_INTERVAL } else { INTERVAL });
            looks += 1;
            assert!(looks < 9, "never found");
        }
        let found: Vec<_> = world.core.findings().map(|finding| (finding.what, finding.count)).collect();
        assert_eq!((found, looks), (vec![(What::UntoldIncident, 1)], 4));
    }
}
