//! External alerts: accepted, repeated, resolved, no longer reported.

use std::{borrow::Cow, collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{Core, quotas};
use crate::{
    alertmanager_view::{AlertStatus, AlertsPage, GettableAlert, Named},
    rules::{
        alert::{Alert, AlertKey, Ending, External, Move},
        external::{EXTERNAL, Posted, Reading, fingerprint, key_of, old_key_of, shown_labels},
        matcher::{Labels, Matcher, all_match},
        moment::later,
        quota::{Holder, Over},
        reason::Reason,
        sender::Sender,
        suppression::SuppressedBy,
    },
};

/// Alerts checked per page, which takes the loop 1 to 2 ms.
const LOOKED_AT_MAX: usize = 2_000;

/// The labels of an alert as its sender posted them.
fn posted_labels(alert: &Alert) -> Cow<'_, Labels> {
    match &alert.external {
        Some(external) if !external.added.is_empty() => {
            Cow::Owned(shown_labels(alert).map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        _ => Cow::Borrowed(&alert.labels),
    }
}

/// The result of a post.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Open incidents of the alerts.
    pub incidents: BTreeSet<u64>,
    /// Alerts that were not accepted, each with its position in the list.
    pub problems: Vec<String>,
    /// Some were not accepted because the sender is over its quota.
    pub over: Option<String>,
}

/// Why an alert was not accepted.
enum NotTaken {
    /// The text is for the sender.
    Bad(String),
    Over(Over),
}

impl Core {
    /// Applies all valid alerts of a post.
    pub fn on_posted(&mut self, posted: Vec<Posted>, sender: &Sender, now: Timestamp) -> Taken {
        let mut taken = Taken::default();
        for (number, posted) in (1..).zip(posted) {
            let key = posted.key_as_posted(sender);
            if let Some(alert) = key.as_ref().and_then(|key| self.repeated(key, &posted, now)) {
                taken.incidents.extend(&alert.incidents);
                continue;
            }
            let read = posted.read(key, sender, self.rules.resolve_timeout, now);
            match read.map_err(NotTaken::Bad).and_then(|reading| self.on_reading(reading, sender, now)) {
                Ok(key) => {
                    taken
                        .incidents
                        .extend(self.alerts.get(&key).into_iter().flat_map(|alert| &alert.incidents));
                }
                Err(NotTaken::Over(over)) => {
                    taken.over.get_or_insert_with(|| quotas::words(over, &self.rules.quotas));
                }
                Err(NotTaken::Bad(why)) if taken.problems.len() < PROBLEMS_MAX => {
                    taken.problems.push(format!("alert {number}: {why}"));
                }
                Err(NotTaken::Bad(_)) => {}
            }
        }
        taken
    }

    /// Accepts an alert that is posted again as it was, which only puts off its end.
    fn repeated(&mut self, key: &AlertKey, posted: &Posted, now: Timestamp) -> Option<&Alert> {
        let ends_at = posted.until(self.rules.resolve_timeout, now);
        let alert = self.alerts.get(key).filter(|alert| ends_at > now && posted.repeats(alert, now))?;
        let before = alert.external.as_ref()?.ends_at;
        if before != ends_at {
            let row = alert.row;
            let in_use = self.expiries.remove(&(before, row)).unwrap_or_else(|| key.clone());
            self.expiries.insert((ends_at, row), in_use);
            self.alerts.get_mut(key)?.external.as_mut()?.ends_at = ends_at;
        }
        self.alerts.get(key)
    }

    /// Returns the key of the alert.
    fn on_reading(
        &mut self,
        reading: Reading,
        sender: &Sender,
        now: Timestamp,
    ) -> Result<AlertKey, NotTaken> {
        let Reading { key, host, mut report, external } = reading;
        let key = self.key_in_use(key, &report.labels, sender, external.ends_at <= now);
        let old = self.alerts.get(&key);
        // One that stands for a damaged row has no labels.
        let differs =
            |alert: &Alert| shown_labels(alert).next().is_some() && !shown_labels(alert).eq(&report.labels);
        if old.is_some_and(differs) {
            return Err(NotTaken::Bad("its key belongs to an alert with other labels".into()));
        }
        let old = old.filter(|alert| alert.resolved_at.is_none());
        if external.ends_at <= now {
            if old.is_some() {
                let change = self.alerts.resolve(&key, Ending::Well("resolved by its sender"), now);
                self.on_move(&key, change, Reason::Reported, now);
            }
            return Ok(key);
        }
        if let Some(old) = old {
            report.since = report.since.min(old.since);
        }
        let holder = Holder::of_post(sender);
        let change = self.apply_charged(&key, &host, report, &holder, now).map_err(NotTaken::Over)?;
        self.expect_again(&key, external);
        self.on_move(&key, change, Reason::Reported, now);
        Ok(key)
    }

    /// The key of the alert that this sender means: usually `key`. The alert can have its old key,
    /// and a sender that speaks for any host can end what a token for one host posted.
    fn key_in_use(&self, key: AlertKey, labels: &Labels, sender: &Sender, ends: bool) -> AlertKey {
        let fires = |key: &AlertKey| {
            let alert = self.alerts.get(key).filter(|alert| alert.resolved_at.is_none());
            alert.filter(|alert| shown_labels(alert).eq(labels))
        };
        if self.alerts.get(&key).is_some() {
            return key;
        }
        let old = self.alerts.has_old_keys().then(|| old_key_of(labels));
        let may_claim = |alert: &Alert| {
            let by = alert.external.as_ref().and_then(|external| external.sender.as_ref());
            by.is_none_or(|by| by.host == sender.host)
        };
        if let Some(old) = old.filter(|old| fires(old).is_some_and(may_claim)) {
            return old;
        }
        match labels.get("host").filter(|_| ends && sender.host.is_none()) {
            Some(host) => Some(key_of(labels, Some(host))).filter(|of_host| fires(of_host).is_some()),
            None => None,
        }
        .unwrap_or(key)
    }

    /// One page of firing alerts that match, as Alertmanager's API shows them, including alerts
    /// from agents and internal alerts.
    pub fn alerts_v2(&self, matchers: &[Matcher], after: Option<&AlertKey>, now: Timestamp) -> AlertsPage {
        let (mut alerts, mut last) = (Vec::new(), None);
        for (key, alert) in self.alerts.after(after).take(LOOKED_AT_MAX) {
            last = Some(key);
            // Labels that alertd added are not shown, so matchers do not see them either.
            if alert.resolved_at.is_none() && all_match(matchers, &posted_labels(alert)) {
                alerts.push(self.view_v2(key, alert, now));
            }
        }
        let more_after = last.filter(|last| self.alerts.after(Some(*last)).next().is_some()).cloned();
        AlertsPage { alerts, more_after }
    }

    pub fn receiver_names(&self) -> Vec<String> {
        self.rules.receivers.keys().cloned().collect()
    }

    fn view_v2(&self, key: &AlertKey, alert: &Alert, now: Timestamp) -> GettableAlert {
        let mut status = AlertStatus {
            state: "active",
            silenced_by: Vec::new(),
            inhibited_by: Vec::new(),
            muted_by: Vec::new(),
        };
        let mut receivers = BTreeSet::new();
        for incident in alert.incidents.iter().filter_map(|number| self.incidents.get(number)) {
            let steps = &incident.escalation.policy.steps;
            receivers.extend(steps.iter().flat_map(|step| step.notify.iter().cloned()));
            let Some(withheld) = self.suppression(incident, key, alert, now) else { continue };
            status.state = "suppressed";
            match withheld.why {
                SuppressedBy::Silenced => {
                    status.silenced_by = self
                        .silences
                        .muting(&alert.labels, &self.periods, now)
                        .iter()
                        .map(u64::to_string)
                        .collect();
                }
                SuppressedBy::Muted => status.muted_by.push(withheld.by),
                _ => status.inhibited_by.push(withheld.by),
            }
        }
        let external = alert.external.as_ref();
        let labels = posted_labels(alert).into_owned();
        let mut annotations = alert.annotations.clone();
        // Alertmanager clients expect the summary as an annotation.
        if external.is_none() {
            annotations.entry("summary".into()).or_insert_with(|| alert.summary.clone());
        }
        GettableAlert {
            fingerprint: format!("{:016x}", fingerprint(&labels)),
            labels,
            annotations,
            starts_at: alert.since,
            ends_at: external.map_or(later(now, self.rules.resolve_timeout), |external| external.ends_at),
            updated_at: now,
            generator_url: external.map(|external| external.generator_url.clone()).unwrap_or_default(),
            receivers: receivers.into_iter().map(|name| Named { name }).collect(),
            status,
        }
    }

    /// Sets when an alert ends. This alone is not written; the store gets it with the next change.
    fn expect_again(&mut self, key: &AlertKey, external: External) {
        let Some(alert) = self.alerts.get_mut(key) else { return };
        let mut external = external;
        if let Some(before) = &alert.external {
            self.expiries.remove(&(before.ends_at, alert.row));
            external.sender = before.sender.clone().or(external.sender);
        }
        self.expiries.insert((external.ends_at, alert.row), key.clone());
        alert.external = Some(external);
    }

    /// Ends alerts that their senders did not repeat in time.
    pub(super) fn end_unreported(&mut self, now: Timestamp) {
        while let Some(next) = self.expiries.first_entry()
            && next.key().0 <= now
        {
            let key = next.remove();
            // It may have ended and fire again with a later end.
            let over = |alert: &Alert| {
                let until = alert.external.as_ref().map(|external| external.ends_at);
                alert.resolved_at.is_none() && until.is_none_or(|until| until <= now)
            };
            if self.alerts.get(&key).is_some_and(over) {
                let change = self.alerts.resolve(&key, Ending::Unwatched, now);
                debug_assert_eq!(change, Move::Resolved);
                self.on_move(&key, change, Reason::Unreported, now);
            }
        }
    }

    /// Gives every sender a full term after a start, because posts may have failed while alertd was
    /// down.
    pub(super) fn restore_expiries(&mut self, now: Timestamp) {
        let grace = later(now, self.rules.resolve_timeout);
        self.set_expiries(|ends_at| ends_at.max(grace));
    }

    /// The clock jumped forward. Nobody could repeat an alert in the skipped time.
    pub(super) fn put_off_expiries(&mut self, leap: Duration) {
        self.set_expiries(|ends_at| later(ends_at, leap));
    }

    fn set_expiries(&mut self, set: impl Fn(Timestamp) -> Timestamp) {
        self.expiries.clear();
        let keys: Vec<_> = self
            .alerts
            .of_agent(EXTERNAL)
            .filter(|(_, alert)| alert.resolved_at.is_none())
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            let external = self.alerts.get(&key).and_then(|alert| alert.external.clone());
            if let Some(external) = external {
                let ends_at = set(external.ends_at);
                self.expect_again(&key, External { ends_at, ..external });
            }
        }
    }
}

/// Maximum number of problems named in the response.
const PROBLEMS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        rules::{matcher::Labels, notification::Kind},
        testing::World,
    };

    const MINUTE: Duration = Duration::from_mins(1);
    const CONFIG: &str =
        "[alertd]\nresolve_timeout = \"5m\"\n[[route]]\nreceiver = \"local\"\ngroup_wait = \"0s\"\n";

    fn posted(name: &str) -> Posted {
        let labels = [("alertname", name), ("instance", "web1:9100"), ("severity", "critical")];
        let labels: Labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let annotations = [("summary".into(), format!("{name} is on fire"))].into();
        Posted { labels, annotations, ..Posted::default() }
    }

    /// What is called a repeat changes nothing but the end when it is read and applied; every
    /// other change is not called one.
    #[test]
    fn a_repeat_is_known_without_reading_it_and_nothing_else_is() {
        let full = || {
            let mut posted = posted("Disk");
            posted.annotations.insert("runbook_url".into(), "https://runbooks.test".into());
            posted.annotations.insert("description".into(), "two\nlines".into());
            posted.generator_url = "http://prometheus.test/graph".into();
            posted.starts_at = Some(Timestamp::from_second(60).unwrap());
            posted
        };
        let edit = |edit: &dyn Fn(&mut Posted)| {
            let mut posted = full();
            edit(&mut posted);
            posted
        };
        let label = |name: &str, value: &str| {
            let (name, value) = (name.to_owned(), value.to_owned());
            edit(&move |posted| drop(posted.labels.insert(name.clone(), value.clone())))
        };
        let note = |name: &str, value: &str| {
            let (name, value) = (name.to_owned(), value.to_owned());
            edit(&move |posted| drop(posted.annotations.insert(name.clone(), value.clone())))
        };
        let start = |second| edit(&move |posted| posted.starts_at = Timestamp::from_second(second).ok());
        for (name, posted, sender, is_repeat) in [
            ("the same", full(), anyone(), true),
            ("by another sender", full(), Sender { name: "token:b".into(), host: None }, true),
            ("a later start", start(61), anyone(), true),
            ("an earlier start", start(59), anyone(), false),
            ("no start", edit(&|posted| posted.starts_at = None), anyone(), true),
            ("an end", edit(&|posted| posted.ends_at = Timestamp::from_second(9_999).ok()), anyone(), true),
            ("ended", edit(&|posted| posted.ends_at = Timestamp::from_second(61).ok()), anyone(), false),
            ("another label", label("a", "b"), anyone(), false),
            ("an empty label", label("a", ""), anyone(), false),
            ("the host that was added", label("host", "web1"), anyone(), false),
            ("another summary", note("summary", "worse"), anyone(), false),
            ("another runbook", note("runbook_url", "https://other.test"), anyone(), false),
            ("two runbooks", note("runbook", "https://other.test"), anyone(), false),
            ("an annotation more", note("a", "b"), anyone(), false),
            ("one less", edit(&|posted| drop(posted.annotations.remove("description"))), anyone(), false),
            ("no runbook", edit(&|posted| drop(posted.annotations.remove("runbook_url"))), anyone(), false),
            ("another link", edit(&|posted| posted.generator_url.clear()), anyone(), false),
            ("of a bound token", full(), bound("web1"), false),
        ] {
            let mut world = World::new(CONFIG, 1);
            world.now = Timestamp::from_second(120).unwrap();
            post(&mut world, &[full()]);
            let key = key_of(&full().labels, None);
            let before = world.core.alerts.get(&key).unwrap().clone();
            let posted_key = posted.key_as_posted(&sender);
            let repeated = posted_key.and_then(|key| world.core.repeated(&key, &posted, world.now));
            assert_eq!(repeated.is_some(), is_repeat, "{name}");
            if is_repeat {
                let quick = world.core.alerts.get(&key).unwrap().clone();
                let reading =
                    posted.read(None, &sender, world.core.rules.resolve_timeout, world.now).unwrap();
                assert!(world.core.on_reading(reading, &sender, world.now).is_ok());
                assert_eq!(*world.core.alerts.get(&key).unwrap(), quick, "{name}");
                let ends_at = before.external.as_ref().unwrap().ends_at;
                let mut as_before = quick;
                as_before.external.as_mut().unwrap().ends_at = ends_at;
                assert_eq!(as_before, before, "{name}");
                assert_eq!(world.core.expiries.len(), 1, "{name}");
            }
        }
    }

    /// Prometheus puts off the end with every post.
    #[test]
    fn repeats_put_off_the_end_and_a_missing_one_ends_the_alert() {
        let mut world = World::new(CONFIG, 1);
        post(&mut world, &[posted("Disk")]);
        for _ in 0..10 {
            world.now = later(world.now, 4 * MINUTE);
            post(&mut world, &[posted("Disk")]);
            assert_eq!(world.core.alerts.firing_count(), 1);
        }
        world.now = later(world.now, 6 * MINUTE);
        world.turn(None);
        assert_eq!(world.core.alerts.firing_count(), 0);
    }

    fn post(world: &mut World, alerts: &[Posted]) {
        assert_eq!(
            world.core.on_posted(alerts.to_vec(), &anyone(), world.now).problems,
            Vec::<String>::new()
        );
        world.turn(None);
    }

    fn anyone() -> Sender {
        Sender { name: "token:prometheus".into(), host: None }
    }

    fn bound(host: &str) -> Sender {
        Sender { name: format!("token:{host}"), host: Some(host.into()) }
    }

    /// Posts one alert that ends now.
    fn end(world: &mut World, sender: &Sender, alert: Posted) -> Vec<String> {
        let over = Posted { ends_at: Some(world.now), starts_at: Some(world.now), ..alert };
        let problems = world.core.on_posted(vec![over], sender, world.now).problems;
        world.turn(None);
        problems
    }

    fn on_host(host: &str) -> Posted {
        let mut alert = posted("Disk");
        alert.labels.insert("host".into(), host.into());
        alert
    }

    fn heard(world: &World) -> Vec<(Kind, String)> {
        let title = |heard: &crate::testing::Heard| {
            let says = heard.notification.firing.iter().chain(&heard.notification.resolved);
            says.map(|alert| alert.summary.clone()).collect::<Vec<_>>().join(", ")
        };
        world.heard.iter().map(|heard| (heard.notification.kind, title(heard))).collect()
    }

    #[test]
    fn it_fires_once_however_often_it_is_posted_and_recovers_when_its_sender_resolves_it() {
        let mut world = World::new(CONFIG, 1);
        for _ in 0..20 {
            post(&mut world, &[posted("Disk")]);
            world.pass(MINUTE);
        }
        assert_eq!(heard(&world), [(Kind::Problem, "Disk is on fire".into())]);
        let incident = world.open_incidents().remove(0);
        assert_eq!(incident.title, "CRITICAL web1/Disk: Disk is on fire");
        let over = Posted { ends_at: Some(world.now), starts_at: Some(world.now), ..posted("Disk") };
        post(&mut world, &[over]);
        assert_eq!(heard(&world)[1..], [(Kind::Recovery, "resolved by its sender".into())]);
    }

    #[test]
    fn a_repeat_is_not_written() {
        let mut world = World::new(CONFIG, 1);
        post(&mut world, &[posted("Disk")]);
        world.now = later(world.now, MINUTE);
        world.core.on_posted(vec![posted("Disk")], &anyone(), world.now);
        world.core.settle(world.now);
        assert_eq!(world.core.take_changes().len(), 0);
    }

    #[test]
    fn a_silent_sender_does_not_mean_recovery() {
        let mut world = World::new(CONFIG, 1);
        post(&mut world, &[posted("Disk")]);
        world.pass(4 * MINUTE);
        assert_eq!(heard(&world).len(), 1);
        world.pass(2 * MINUTE);
        let said = heard(&world);
        assert_eq!(said.len(), 2);
        assert!(said[1].1.starts_with("no longer reported by its sender"), "{said:?}");
        assert!(world.core.next_wakeup().is_none(), "nothing is left to wait for");
    }

    #[test]
    fn an_alert_that_fires_again_gets_a_full_term() {
        let mut world = World::new(CONFIG, 1);
        post(&mut world, &[posted("Disk")]);
        world.pass(MINUTE);
        let over = Posted { ends_at: Some(world.now), starts_at: Some(world.now), ..posted("Disk") };
        post(&mut world, &[over]);
        world.pass(2 * MINUTE);
        post(&mut world, &[posted("Disk")]);
        world.pass(4 * MINUTE);
        assert_eq!(world.open_incidents().len(), 1, "the first post's end is not the second's");
        world.pass(2 * MINUTE);
        assert_eq!(world.open_incidents().len(), 0);
    }

    #[test]
    fn a_restart_gives_every_sender_a_full_term() {
        let mut world = World::new(CONFIG, 1);
        post(&mut world, &[posted("Disk")]);
        world.now = later(world.now, 60 * MINUTE);
        world.restart();
        world.pass(4 * MINUTE);
        assert_eq!(world.open_incidents().len(), 1);
        world.pass(2 * MINUTE);
        assert_eq!(world.open_incidents().len(), 0);
    }

    /// S3. A token for web2 posts exactly what another sender posted; so does a token for web1 of
    /// what a sender for any host posted about web1.
    #[test]
    fn only_who_may_speak_for_an_alert_ends_it() {
        let mut world = World::new(CONFIG, 1);
        let now = world.now;
        world.core.on_posted(vec![on_host("web1")], &anyone(), now);
        world.turn(None);
        for stranger in [bound("web1"), bound("web2")] {
            end(&mut world, &stranger, on_host("web1"));
            assert_eq!(world.open_incidents().len(), 1, "{stranger:?}");
        }
        end(&mut world, &anyone(), on_host("web1"));
        assert_eq!(world.open_incidents().len(), 0);

        world.core.on_posted(vec![on_host("web1")], &bound("web1"), world.now);
        world.turn(None);
        end(&mut world, &bound("web2"), on_host("web1"));
        assert_eq!(world.open_incidents().len(), 1);
        end(&mut world, &anyone(), on_host("web1"));
        assert_eq!(world.open_incidents().len(), 0, "who speaks for any host speaks for web1");
    }

    /// S3. The store was forged or damaged: the key is right, the labels are not.
    #[test]
    fn a_key_with_other_labels_is_not_a_hit() {
        let mut world = World::new(CONFIG, 1);
        world.core.on_posted(vec![on_host("web1")], &anyone(), world.now);
        let key = key_of(&on_host("web1").labels, None);
        let alert = world.core.alerts.get_mut(&key).unwrap();
        alert.labels.insert("instance".into(), "db7".into());
        world.turn(None);
        let problems = end(&mut world, &anyone(), on_host("web1"));
        assert!(problems[0].contains("other labels"), "{problems:?}");
        assert_eq!(world.open_incidents().len(), 1);
    }

    /// An old store has FNV keys and no senders.
    #[test]
    fn an_alert_of_an_old_store_keeps_its_key_until_it_ends() {
        let old_key = old_key_of(&on_host("web1").labels);
        let key = key_of(&on_host("web1").labels, None);
        let mut world = World::new(CONFIG, 1);
        post(&mut world, &[on_host("web1")]);
        let mut alert = world.core.alerts.get(&key).unwrap().clone();
        world.core.alerts.forget(&key);
        alert.external.as_mut().unwrap().sender = None;
        world.core.alerts.restore(old_key.clone(), alert);
        let open = world.core.incidents.get_mut(&1).unwrap();
        open.members = [old_key.clone()].into();
        open.told
            .values_mut()
            .for_each(|told| told.knows.iter_mut().for_each(|(known, _)| *known = old_key.clone()));
        world.core.restore_expiries(world.now);

        for _ in 0..3 {
            post(&mut world, &[on_host("web1")]);
            world.pass(MINUTE);
        }
        assert_eq!((heard(&world).len(), world.open_incidents().len()), (1, 1), "one alert, told once");
        end(&mut world, &bound("web1"), on_host("web1"));
        assert_eq!(world.open_incidents().len(), 1, "claimed by another sender");
        end(&mut world, &anyone(), on_host("web1"));
        assert_eq!(heard(&world)[1..], [(Kind::Recovery, "resolved by its sender".into())]);
        post(&mut world, &[on_host("web1")]);
        assert!(world.core.alerts.get(&key).is_some() && world.core.alerts.get(&old_key).is_none());
    }

    #[test]
    fn invalid_alerts_are_named_and_the_rest_is_accepted() {
        let mut world = World::new(CONFIG, 1);
        let Taken { problems, incidents, .. } =
            world.core.on_posted(vec![Posted::default(), posted("Disk")], &anyone(), world.now);
        assert_eq!(incidents, [1].into());
        world.turn(None);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("alert 1: "), "{problems:?}");
        assert_eq!(world.open_incidents().len(), 1);
    }
}
