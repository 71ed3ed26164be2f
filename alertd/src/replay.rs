//! Computes what another config would have sent: recorded transitions, acks, silences, downtimes
//! and overrides run through a separate core in virtual time. Pure.
//!
//! The replay assumes that every receiver accepts everything immediately. Texts, times, people and
//! rate limits are as alertd would decide them; the effects of failing receivers are not replayed.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::RandomState,
};

use dogwatch_alertd_core::{
    Core, Loaded, OverrideByHand, Rules,
    rules::{
        downtime::Downtime,
        notification::{Accepted, Kind},
        quota::Quotas,
        reason::Reason,
        sender::Sender,
        silence::Silence,
    },
};
use dogwatch_wire::{
    Batch, Event, EventKind, Heartbeat, PROTOCOL, ServiceState, State, Transition,
    ctl::{self, HistoryEntry},
};
use jiff::Timestamp;

/// The recorded data of a period.
#[derive(Debug, Default)]
pub struct Story {
    pub from: Timestamp,
    pub until: Timestamp,
    /// Alerts that fired all the time; alerts that changed are in `entries`.
    pub firing: Vec<ctl::Alert>,
    /// Transitions, acks and their removal, with details, oldest first.
    pub entries: Vec<HistoryEntry>,
    pub silences: Vec<Silence>,
    pub downtimes: Vec<Downtime>,
    pub overrides: Vec<OverrideByHand>,
}

/// Notifications per round; more wait for the next round at the same moment.
const LEASES_MAX: usize = 64;
const EPOCH: &str = "replay";

/// Returns everything that would have been sent after the start, in order.
pub fn replay(mut rules: Rules, story: &Story) -> Vec<ctl::Sent> {
    let loaded = Loaded {
        silences: story.silences.clone(),
        downtimes: story.downtimes.iter().map(|one| one.as_before(story.from)).collect(),
        overrides: story.overrides.clone(),
        instance: EPOCH.into(),
        ..Loaded::default()
    };
    // alertd accepted all of it once.
    rules.quotas = Quotas::UNLIMITED;
    let core = Core::new(rules, EPOCH.into(), RandomState::new(), loaded, story.from);
    let mut world =
        World { core, now: story.from, seqs: BTreeMap::new(), sent: Vec::new(), members: BTreeMap::new() };
    world.begin(story);
    // People were already notified of what fired before the start.
    world.sent.clear();
    for entry in &story.entries {
        world.pass(entry.at);
        world.apply(entry);
        world.turn();
    }
    world.pass(story.until);
    world.sent
}

struct World {
    core: Core,
    now: Timestamp,
    /// The last sequence number of each host.
    seqs: BTreeMap<String, u64>,
    sent: Vec<ctl::Sent>,
    /// Host and service of the alerts of each recorded incident.
    members: BTreeMap<u64, BTreeSet<Name>>,
}

type Name = (String, String);

impl World {
    fn begin(&mut self, story: &Story) {
        for alert in &story.firing {
            self.report(alert, alert.state, alert.flapping);
        }
        let mut seen = BTreeSet::new();
        for entry in &story.entries {
            let Some(detail) = &entry.detail else { continue };
            let Some(alert) = &detail.alert else { continue };
            if seen.insert(name_of(alert))
                && let Some(was) = detail.was
                && entry.reason != Reason::AgentBack.name()
            {
                self.report(alert, was, false);
            }
        }
        self.turn();
    }

    fn apply(&mut self, entry: &HistoryEntry) {
        let Some(detail) = &entry.detail else { return };
        match (&detail.alert, &detail.ack) {
            (Some(alert), _) => {
                if let Some(number) = entry.incident {
                    self.members.entry(number).or_default().insert(name_of(alert));
                }
                let (host, service) = name_of(alert);
                if entry.reason == Reason::AgentSilent.name() {
                    self.core.pretend_silent(&host, self.now);
                } else if entry.reason == Reason::AgentBack.name() {
                    self.send(&host, Vec::new());
                } else if entry.reason == Reason::Removed.name() {
                    self.send(&host, vec![EventKind::Removed { service }]);
                } else {
                    self.report(alert, alert.state, alert.flapping);
                }
            }
            (None, ack) => self.ack(entry, ack.as_ref()),
        }
    }

    /// Acknowledges every incident that has an alert of the recorded one, or removes the ack.
    fn ack(&mut self, entry: &HistoryEntry, ack: Option<&ctl::AckInfo>) {
        let members =
            entry.incident.and_then(|number| self.members.get(&number)).cloned().unwrap_or_default();
        let author = entry.author.as_deref().unwrap_or_default();
        for incident in self.core.status("", Vec::new(), self.now).incidents {
            if !incident.alerts.iter().any(|alert| members.contains(&name_of(alert))) {
                continue;
            }
            // Removing an ack fails if these rules left the incident without one. That is fine.
            let _ = match ack {
                Some(ack) => {
                    let left = ack.expires_at.map(|at| at.duration_since(self.now).as_secs());
                    let ask = ctl::Ack {
                        comment: ack.comment.clone(),
                        sticky: ack.sticky,
                        expire_s: left.and_then(|left| u64::try_from(left).ok()),
                    };
                    self.core.on_ack(incident.number, &ask, author, self.now)
                }
                None => self.core.on_unack(incident.number, &ctl::Unack::default(), author, self.now),
            };
        }
    }

    fn report(&mut self, alert: &ctl::Alert, state: State, flapping: bool) {
        let (host, service) = name_of(alert);
        let now = ServiceState {
            service,
            state,
            since: alert.since,
            flapping,
            summary: alert.summary.clone(),
            detail: String::new(),
            perfdata: String::new(),
            labels: alert.labels.clone(),
            annotations: alert.annotations.clone(),
        };
        self.send(&host, vec![EventKind::Transition(Transition { from: State::Ok, now })]);
    }

    fn send(&mut self, host: &str, kinds: Vec<EventKind>) {
        let seq = self.seqs.entry(host.to_owned()).or_default();
        let events = kinds.into_iter().map(|kind| {
            *seq += 1;
            Event { seq: *seq, at: self.now, kind }
        });
        let batch = Batch {
            protocol: PROTOCOL,
            agent: host.to_owned(),
            host: host.to_owned(),
            epoch: EPOCH.into(),
            run: String::new(),
            boot: String::new(),
            sent_at: self.now,
            events: events.collect(),
            heartbeat: Some(Heartbeat {
                digest: String::new(),
                next_within_s: u32::MAX,
                version: String::new(),
                services: 0,
                changes: Vec::new(),
            }),
            states: None,
            states_part: None,
        };
        // alertd accepted it once, so it is accepted again.
        let _ = self.core.on_batch(&batch, &Sender::default(), self.now);
        // The recorded data says which agents became silent.
        self.core.expect_no_heartbeats();
    }

    fn pass(&mut self, until: Timestamp) {
        while let Some(at) = self.core.next_wakeup().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.turn();
        }
        self.now = until.max(self.now);
    }

    fn turn(&mut self) {
        loop {
            self.core.settle(self.now);
            let leases = self.core.poll_send(LEASES_MAX, self.now);
            // Nothing is stored.
            drop(self.core.take_changes());
            if leases.is_empty() {
                return;
            }
            for lease in leases {
                let told = &lease.notification;
                if told.kind != Kind::Test {
                    self.sent.push(ctl::Sent {
                        at: self.now,
                        receiver: told.receiver.clone(),
                        kind: told.kind.name().into(),
                        reason: told.reason.clone(),
                        title: dogwatch_alertd_core::title_of(&told.firing, &told.resolved),
                    });
                }
                self.core.on_delivery(lease.seq, Ok(Accepted::default()), 0, self.now);
            }
        }
    }
}

fn name_of(alert: &ctl::Alert) -> Name {
    let label = |name| alert.labels.get(name).cloned().unwrap_or_default();
    (label("host"), label("service"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dogwatch_alertd_core::{Change, rules::moment::later, testing::World as Real};

    use super::*;
    use crate::config::Config;

    const OLD: &str = r#"
        [[route]]
        receiver = "mail"
        group_wait = "0s"
        group_interval = "1m"
        [receiver.mail.maildir]
        path = "/m"
        [receiver.pager.maildir]
        path = "/p"
    "#;
    const MINUTE: Duration = Duration::from_mins(1);

    /// A problem from before the start; one that starts, is acknowledged and ends; a silenced one;
    /// and one in a flexible downtime.
    fn story() -> (Story, Vec<(String, String)>) {
        let mut real = Real::with_rules(Config::rules_of(OLD), 1);
        real.report("web1", "disk", 'W');
        real.report("db2", "load", 'O');
        real.agents_send(None);
        let (from, before) = (later(real.now, MINUTE), real.heard.len());
        real.pass(MINUTE);
        let mute = ctl::NewSilence {
            matchers: vec!["host=db1".into()],
            duration_s: 600,
            ..ctl::NewSilence::default()
        };
        real.core.on_silence(&mute, "eva", real.now).unwrap();
        let work = ctl::NewDowntime {
            host: "db2".into(),
            duration_s: 3_600,
            flexible_s: Some(150),
            ..ctl::NewDowntime::default()
        };
        real.core.on_downtime(&work, "eva", real.now).unwrap();
        let steps = [
            ("web1", "disk", 'C'),
            ("web2", "swap", 'C'),
            ("db1", "load", 'C'),
            ("db2", "load", 'C'),
            ("web2", "swap", 'C'),
            ("web1", "disk", 'O'),
            ("web2", "swap", 'O'),
            ("web2", "load", 'W'),
        ];
        for (at, (host, service, letter)) in steps.into_iter().enumerate() {
            real.report(host, service, letter);
            real.agents_send(None);
            if at == 3 {
                let number =
                    real.open_incidents().iter().find(|one| one.title.contains("swap")).unwrap().number;
                real.core.on_ack(number, &ctl::Ack::default(), "eva", real.now).unwrap();
            }
            real.turn(None);
            real.pass(MINUTE);
        }
        let heard = real.heard[before..].iter().map(|heard| {
            let told = &heard.notification;
            (told.receiver.clone(), told.kind.name().to_owned())
        });
        let story = Story {
            from,
            until: real.now,
            entries: real
                .history
                .into_iter()
                .filter(|entry| entry.detail.is_some() && entry.at >= from)
                .collect(),
            silences: real.store.silences.values().cloned().collect(),
            downtimes: real.store.downtimes.values().cloned().collect(),
            ..Story::default()
        };
        (story, heard.collect())
    }

    fn sent(config: &str, story: &Story) -> Vec<(String, String)> {
        let rules = Config::rules_of(config);
        replay(rules, story).into_iter().map(|sent| (sent.receiver, sent.kind)).collect()
    }

    #[test]
    fn the_same_config_would_have_sent_what_was_sent_and_another_what_it_says() {
        let (story, heard) = story();
        assert!(heard.len() > 4, "{heard:?}");
        assert_eq!(sent(OLD, &story), heard);
        let by_other = OLD.replace("receiver = \"mail\"", "receiver = \"pager\"");
        let by_pager: Vec<_> = heard.iter().map(|(_, kind)| ("pager".to_owned(), kind.clone())).collect();
        assert_eq!(sent(&by_other, &story), by_pager);
        let nothing_but_disks = OLD
            .replace("[[route]]", "[[route]]\nmatch = [\"service=swap\"]\nreceiver = \"pager\"\n[[route]]");
        let pages =
            sent(&nothing_but_disks, &story).into_iter().filter(|(receiver, _)| receiver == "pager").count();
        assert_eq!(pages, heard.len() - 4, "all but two notifications for disk and one for each load");
    }

    #[test]
    fn a_repeat_without_change_records_nothing() {
        let mut real = Real::with_rules(Config::rules_of(OLD), 1);
        real.report("web1", "disk", 'C');
        real.agents_send(None);
        real.report("web1", "disk", 'C');
        real.agents_send(None);
        let recorded = real.history.iter().filter(|entry| entry.detail.is_some()).count();
        assert_eq!(recorded, 1);
        assert!(!real.core.take_changes().iter().any(|change| matches!(change, Change::History(_))));
    }
}
