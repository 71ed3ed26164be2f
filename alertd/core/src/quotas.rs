//! Senders over their quota (`rules/quota.rs`): refused, and named in one internal alert.

use std::{collections::BTreeMap, time::Duration};

use dogwatch_wire::ServiceState;
use jiff::Timestamp;

use super::{
    Core,
    own_alerts::{OWN, OwnAlert},
};
use crate::rules::{
    agent::Agent,
    alert::{Alert, AlertKey, Ending, Move, cut_report, texts_of},
    matcher::Labels,
    moment::{between, later},
    quota::{AGENT_BYTES, ALERT_BYTES, Amount, Holder, Over},
    reason::Reason,
    sender::Sender,
    text::plural,
};

/// A sender is named until nothing of it was refused for this long.
const NAMED_FOR: Duration = Duration::from_mins(10);
/// The text of the alert changes at most this often, however much is refused.
const TEXT_INTERVAL: Duration = Duration::from_mins(1);
/// Senders that are counted one by one.
const SENDERS_MAX: usize = 1_000;
/// Senders that the text names.
const NAMES_MAX: usize = 5;

/// Refused senders.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    by: BTreeMap<String, Refused>,
    /// When the alert got its text.
    told_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Refused {
    over: Over,
    count: u64,
    since: Timestamp,
    last: Timestamp,
}

impl Refusals {
    pub(super) fn next_wakeup(&self) -> Option<Timestamp> {
        let told_at = self.told_at?;
        let over = self.by.values().map(|refused| later(refused.last, NAMED_FOR)).min();
        let changed = self.by.values().any(|refused| refused.last > told_at);
        let text = changed.then(|| later(told_at, TEXT_INTERVAL));
        over.into_iter().chain(text).min()
    }
}

impl Core {
    /// Applies a report of a sender within its quota. The error says what is over.
    pub(super) fn apply_charged(
        &mut self,
        key: &AlertKey,
        host: &str,
        report: ServiceState,
        holder: &Holder,
        now: Timestamp,
    ) -> Result<Move, Over> {
        let mut report = cut_report(report);
        let fires = report.flapping || report.state != dogwatch_wire::State::Ok;
        let bytes = ALERT_BYTES + texts_of(&report) + key.agent.len() + key.service.len();
        match self.alerts.get(key) {
            None if fires => self.may_add(holder, bytes, now)?,
            Some(alert) if bytes > alert.charge.bytes as usize => {
                let more = Amount { alerts: 0, bytes: bytes - alert.charge.bytes as usize };
                let of = alert.charge.holder.as_deref().unwrap_or(holder);
                if let Err(over) = self.ledger.fits(&self.rules.quotas, of, more) {
                    shorten(&mut report, alert);
                    self.note_over(holder, over, now);
                }
            }
            _ => {}
        }
        let change = self.alerts.apply(key, host, report, now);
        self.charge_alert(key, holder);
        Ok(change)
    }

    /// Charges what an alert uses now.
    pub(super) fn charge_alert(&mut self, key: &AlertKey, holder: &Holder) {
        let Some(alert) = self.alerts.get(key) else { return };
        let bytes = alert.bytes() + key.agent.len() + key.service.len();
        if alert.charge.holder.is_some() && alert.charge.bytes as usize == bytes {
            return;
        }
        let mut charge = alert.charge.clone();
        if charge.holder.is_some() {
            self.ledger.recharge(&mut charge, bytes);
        } else {
            charge = self.ledger.charge(holder, bytes);
        }
        if let Some(alert) = self.alerts.get_mut(key) {
            alert.charge = charge;
        }
    }

    /// Whether an agent may be added, which then counts for ever.
    pub(super) fn may_add_agent(&mut self, sender: &Sender, id: &str, now: Timestamp) -> Result<(), Over> {
        let holder = Holder::of_agent(sender, id);
        self.may_add(&holder, AGENT_BYTES, now)?;
        self.ledger.charge(&holder, AGENT_BYTES);
        Ok(())
    }

    fn may_add(&mut self, holder: &Holder, bytes: usize, now: Timestamp) -> Result<(), Over> {
        let fits = self.ledger.fits(&self.rules.quotas, holder, Amount { alerts: 1, bytes });
        fits.inspect_err(|over| self.note_over(holder, *over, now))
    }

    /// Who pays for this alert.
    pub(super) fn holder_of(&self, key: &AlertKey, alert: &Alert) -> Option<Holder> {
        if let Some(external) = &alert.external {
            return Some(Holder::of_post(external.sender.as_ref().unwrap_or(&Sender::default())));
        }
        let of_agent = |agent: &Agent| Holder::of_agent(&agent.sender, &key.agent);
        // Internal alerts are few, and the one for a silent agent is part of the agent's charge.
        Some(&key.service).filter(|service| !service.starts_with('@'))?;
        self.agents.get(&key.agent).map(of_agent)
    }

    fn note_over(&mut self, holder: &Holder, over: Over, now: Timestamp) {
        let host = holder.host.as_deref().filter(|_| over == Over::Host);
        let name = match host.map(|host| host.strip_suffix('#').unwrap_or(host)) {
            Some(id) => match self.agents.get(id) {
                Some(agent) => format!("host {}", agent.host),
                // Which token to revoke.
                None => format!("{} for host {id}", holder.token),
            },
            None => holder.token.clone(),
        };
        let refused = &mut self.refusals.by;
        if refused.len() >= SENDERS_MAX && !refused.contains_key(&name) {
            return;
        }
        let entry = refused.entry(name).or_insert(Refused { over, count: 0, since: now, last: now });
        (entry.over, entry.last) = (over, now);
        entry.count += 1;
        self.tell_of_refusals(now);
    }

    /// Raises, updates or ends the alert.
    pub(super) fn tell_of_refusals(&mut self, now: Timestamp) {
        self.refusals.by.retain(|_, refused| between(refused.last, now) < NAMED_FOR);
        let key = AlertKey::new(OWN, "@quota");
        if self.refusals.by.is_empty() {
            if self.refusals.told_at.take().is_some() {
                let ending = Ending::Well("nothing was refused for 10 minutes");
                let change = self.alerts.resolve(&key, ending, now);
                self.on_move(&key, change, Reason::QuotaFree, now);
            }
            return;
        }
        if self.refusals.told_at.is_some_and(|at| between(at, now) < TEXT_INTERVAL) {
            return;
        }
        self.refusals.told_at = Some(now);
        let since = self.refusals.by.values().map(|refused| refused.since).min().unwrap_or(now);
        let own = OwnAlert {
            key,
            host: self.rules.host.clone(),
            service: "alertd",
            labels: Labels::from([("quota".to_owned(), "exceeded".to_owned())]),
            summary: format!("senders over their quota: {}", self.refused_senders().join("; ")),
            since,
            reason: Reason::QuotaExceeded,
        };
        self.raise(own, now);
    }

    /// After a start, the alert of the last run ends unless something is refused again.
    pub(super) fn restore_refusals(&mut self, now: Timestamp) {
        let key = AlertKey::new(OWN, "@quota");
        if self.alerts.get(&key).is_some_and(|alert| alert.resolved_at.is_none()) {
            let since = self.alerts.get(&key).map_or(now, |alert| alert.since);
            let refused = Refused { over: Over::All, count: 0, since, last: now };
            self.refusals.by.insert("before the restart".into(), refused);
            self.refusals.told_at = Some(now);
        }
    }

    /// For people: who is over its quota, the worst first.
    pub(super) fn refused_senders(&self) -> Vec<String> {
        let mut all: Vec<_> = self.refusals.by.iter().collect();
        all.sort_by_key(|(_, refused)| std::cmp::Reverse(refused.count));
        let words = |(name, refused): &(&String, &Refused)| {
            let limit = match refused.over {
                Over::Host => "the quota of one host",
                Over::Token => "the quota of one token",
                Over::All => "the quota of all senders",
            };
            let count = plural(usize::try_from(refused.count).unwrap_or(usize::MAX), "alert");
            format!("{name}: {count} refused ({limit})")
        };
        let more = all.len().saturating_sub(NAMES_MAX);
        let named = all.iter().take(NAMES_MAX).map(words);
        named.chain((more > 0).then(|| format!("and {more} more"))).collect()
    }

    /// For the metrics.
    pub fn quota_use(&self) -> (Amount, &crate::rules::quota::Quotas) {
        (self.ledger.all(), &self.rules.quotas)
    }
}

/// Only the state is new; the texts cannot grow.
fn shorten(report: &mut ServiceState, alert: &Alert) {
    let ServiceState { summary, detail, perfdata, labels, annotations, .. } = report;
    (*detail, *perfdata) = (String::new(), String::new());
    annotations.clear();
    labels.clone_from(&alert.labels);
    let cut = summary.floor_char_boundary(SHORT_BYTES);
    summary.truncate(cut);
}

const SHORT_BYTES: usize = 80;

/// For the sender, with the answer 429.
pub(super) fn words(over: Over, quotas: &crate::rules::quota::Quotas) -> String {
    let (what, limit) = match over {
        Over::Host => ("one host", quotas.host),
        Over::Token => ("one token", quotas.token),
        Over::All => ("all senders together", quotas.all),
    };
    format!(
        "over the quota: {what} may have {} alerts and {} MiB in alertd; resolve some, or raise [alertd.quota]",
        limit.alerts,
        limit.bytes >> 20
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        rules::{external::Posted, quota::Quotas},
        testing::World,
    };

    const CONFIG: &str = "[[route]]\nreceiver = \"local\"\ngroup_by = [\"host\"]\ngroup_wait = \"0s\"\n";
    const MIB: usize = 1 << 20;

    fn world(quotas: Quotas) -> World {
        let mut world = World::new(CONFIG, 1);
        world.take_quotas(quotas);
        world
    }

    fn small() -> Quotas {
        Quotas {
            all: Amount { alerts: 1_000, bytes: 10 * MIB },
            token: Amount { alerts: 600, bytes: 6 * MIB },
            host: Amount { alerts: 100, bytes: MIB },
        }
    }

    fn sender(name: &str, host: Option<&str>) -> Sender {
        Sender { name: format!("token:{name}"), host: host.map(str::to_owned) }
    }

    fn alert(number: usize, padding: usize) -> Posted {
        let labels: Labels =
            [("alertname".into(), format!("a{number}")), ("host".into(), "web1".into())].into();
        let annotations = (0..20).map(|n| (format!("note{n}"), "x".repeat(padding))).collect();
        Posted { labels, annotations, ..Posted::default() }
    }

    fn ended(number: usize, world: &World) -> Posted {
        Posted { starts_at: Some(world.now), ends_at: Some(world.now), ..alert(number, 0) }
    }

    fn post(world: &mut World, sender: &Sender, alerts: Vec<Posted>) -> bool {
        let taken = world.core.on_posted(alerts, sender, world.now);
        world.turn(None);
        taken.over.is_none()
    }

    fn own(world: &World) -> Vec<String> {
        let incidents = world.open_incidents();
        incidents.iter().map(|one| one.title.clone()).filter(|title| title.contains("quota")).collect()
    }

    /// S2, with many tiny alerts.
    #[test]
    fn one_token_cannot_fill_the_memory_and_is_named_in_one_alert() {
        let mut world = world(small());
        let leaked = sender("web1", Some("web1"));
        for part in 0..50 {
            let alerts = (0..20).map(|n| alert(part * 20 + n, 0)).collect();
            assert_eq!(post(&mut world, &leaked, alerts), part < 5, "{part}");
        }
        assert_eq!(world.core.ledger.of_host("web1").alerts, 100);
        let own = own(&world);
        assert_eq!(own.len(), 1, "{own:?}");
        assert!(own[0].contains("host web1: 1 alert refused"), "{own:?}");
        world.pass(Duration::from_mins(2));
        assert!(self::own(&world)[0].contains("host web1: 900 alerts refused"), "{:?}", self::own(&world));
        assert!(post(&mut world, &sender("prometheus", None), vec![alert(5_000, 0)]), "others are taken");

        world.pass(Duration::from_mins(11));
        assert_eq!(self::own(&world), [""; 0]);
    }

    /// S2, with padded alerts: bytes count too.
    #[test]
    fn padded_alerts_reach_the_quota_of_bytes() {
        let mut world = world(small());
        let leaked = sender("web1", Some("web1"));
        let taken: Vec<_> =
            (0..60).map(|number| post(&mut world, &leaked, vec![alert(number, 30_000)])).collect();
        let bytes = world.core.ledger.of_host("web1").bytes;
        assert!(taken.contains(&false) && bytes <= MIB, "{bytes}");
    }

    /// An alert that is known takes its new state even over the quota, but does not grow.
    #[test]
    fn over_its_quota_a_sender_can_still_change_and_resolve_what_it_sent() {
        let mut world = world(small());
        let leaked = sender("web1", Some("web1"));
        post(&mut world, &leaked, (0..120).map(|n| alert(n, 0)).collect());
        let before = world.core.ledger.of_host("web1").bytes;
        for _ in 0..3 {
            for number in 0..100 {
                post(&mut world, &leaked, vec![alert(number, 900)]);
            }
        }
        let grown = world.core.ledger.of_host("web1").bytes;
        assert!(grown <= MIB, "{before} {grown}");
        let ends = (0..100).map(|number| ended(number, &world)).collect();
        assert!(post(&mut world, &leaked, ends));
        world.pass(Duration::from_mins(11));
        assert_eq!(world.core.ledger.of_host("web1"), Amount::default());
        assert!(post(&mut world, &leaked, vec![alert(5_000, 0)]));
    }

    /// Several stolen tokens that take everything do not silence a host that reports as usual.
    #[test]
    fn a_small_sender_is_taken_when_all_is_full() {
        let mut world = world(small());
        for token in ["one", "two"] {
            let alerts = (0..700)
                .map(|n| Posted {
                    labels: [("alertname".into(), format!("{token}{n}")), ("host".into(), "x".into())].into(),
                    ..Posted::default()
                })
                .collect();
            assert!(!post(&mut world, &sender(token, None), alerts));
        }
        assert_eq!(world.core.ledger.all().alerts, 1_000);
        world.report("db1", "disk", 'C');
        assert!(world.agents_send(None));
        let titles: Vec<_> = world.open_incidents().into_iter().map(|one| one.title).collect();
        assert!(titles.iter().any(|title| title.contains("db1/disk")), "{titles:?}");
    }

    /// After a restart, what the store holds counts as before.
    #[test]
    fn a_restart_changes_no_charge_and_a_smaller_quota_refuses_only_what_is_new() {
        let mut world = world(small());
        let leaked = sender("web1", Some("web1"));
        post(&mut world, &leaked, (0..80).map(|n| alert(n, 100)).collect());
        world.report("db1", "disk", 'C');
        world.agents_send(None);
        let before = (world.core.ledger.of_host("web1"), world.core.ledger.all());
        world.restart();
        assert_eq!((world.core.ledger.of_host("web1"), world.core.ledger.all()), before);
        world.take_quotas(Quotas { host: Amount { alerts: 10, bytes: MIB }, ..small() });
        world.restart();
        assert_eq!(world.core.ledger.of_host("web1").alerts, 80, "everything is loaded");
        assert!(!post(&mut world, &leaked, vec![alert(999, 0)]));
        let end = ended(0, &world);
        assert!(post(&mut world, &leaked, vec![end]));
    }

    /// The sender chooses the ids of agents, and an agent is remembered for ever.
    #[test]
    fn a_token_for_one_host_cannot_invent_agents_without_end() {
        let mut world = world(small());
        let leaked = sender("web1", Some("web1"));
        let batch = |number: usize| dogwatch_wire::Batch {
            protocol: dogwatch_wire::PROTOCOL,
            agent: format!("web1#{number}"),
            host: "web1".into(),
            epoch: "e".into(),
            sent_at: world.now,
            events: Vec::new(),
            heartbeat: None,
            states: None,
            states_part: None,
            boot: String::new(),
            run: String::new(),
        };
        let batches: Vec<_> = (0..300).map(batch).collect();
        let now = world.now;
        let taken = batches.iter().filter(|batch| world.core.on_batch(batch, &leaked, now).is_ok());
        assert_eq!(taken.count(), 100);
        assert!(world.core.on_batch(&batches[5], &leaked, now).is_ok(), "a known agent");
    }

    /// An agent over its quota: the answer is 429, and nothing is lost when there is room again.
    #[test]
    fn what_an_agent_could_not_report_arrives_when_there_is_room() {
        let mut world = world(Quotas { host: Amount { alerts: 3, bytes: MIB }, ..small() });
        let services = ["a", "b", "c", "d"];
        for service in services {
            world.report("db1", service, 'C');
        }
        assert!(!world.agents_send_unless_refused());
        let told = |world: &World| world.core.alerts.of_agent("id-db1").count();
        assert_eq!(told(&world), 2, "and the agent itself");
        world.report("db1", "a", '.');
        world.report("db1", "b", '.');
        for _ in 0..6 {
            world.agents_send_unless_refused();
            world.pass(Duration::from_secs(30));
        }
        let firing = world.core.alerts.of_agent("id-db1").filter(|(_, alert)| alert.resolved_at.is_none());
        let firing: Vec<_> = firing.map(|(key, _)| key.service.clone()).collect();
        assert_eq!(firing, ["c", "d"]);
    }

    #[test]
    fn health_names_the_senders() {
        let mut world = world(small());
        post(&mut world, &sender("web1", Some("web1")), (0..120).map(|n| alert(n, 0)).collect());
        let vitals = world.core.vitals(world.now);
        assert!(
            vitals.refused[0].starts_with("token:web1 for host web1: 20 alerts refused"),
            "{:?}",
            vitals.refused
        );
        let process = crate::rules::health::Process::default();
        let health = crate::rules::health::health(&vitals, &process, "1", world.now);
        let line = health.checks.iter().find(|check| check.name == "senders").unwrap();
        assert_eq!(line.state, dogwatch_wire::State::Warning);
    }
}
