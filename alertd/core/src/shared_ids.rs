//! Hosts that share an agent id, because they come from one image with one `/etc/machine-id`. Each
//! is an agent of its own, and an internal alert says which hosts they are and how to mend it.
//!
//! The first agent with an id has this id as its key; the key of every other one is the id, `~` and
//! a process of it ([`identity`](crate::rules::identity) recognizes the sender). Keys are stored,
//! so a restart of alertd changes nothing.
//!
//! - An agent that may be a known one with a new name gets its own key first. When the known one
//!   sends again, they are two; when its heartbeat is overdue, the new one has replaced it.
//! - Each of them is asked to start a new epoch, because the image may contain an agent's state.
//! - A host that was mended reports with a new id. Its old key is recognized by epoch and host
//!   name, or later by the name alone. Its alerts move to the new key, and nobody is notified.

use std::collections::BTreeSet;

use dogwatch_wire::{Batch, Event, EventKind};
use jiff::Timestamp;

use super::{
    Core,
    own_alerts::{OWN, OwnAlert, SILENT},
};
use crate::rules::{
    agent::{Agent, Doubt},
    alert::{AlertKey, Ending, NAME_BYTES_MAX, cut},
    identity::Verdict,
    lately::Lately,
    matcher::Labels,
    process::{Process, Source},
    quota::Over,
    reason::Reason,
    sender::Sender,
    text::{line, plural},
};

/// Separates an id from what tells its hosts apart. No agent can use it in its id.
pub(super) const MARK: char = '~';
const NAMES_SHOWN: usize = 5;
const NAME_CHARS_MAX: usize = 60;

/// The id in the key of an agent.
pub(super) fn id_of(key: &str) -> &str {
    key.split_once(MARK).map_or(key, |(id, _)| id)
}

fn alert_key(id: &str) -> AlertKey {
    AlertKey::new(OWN, format!("@shared-id {id}"))
}

impl Core {
    /// Returns the key of the agent that sent the batch; `None` if it may be from a process that
    /// has ended, so that it must not count.
    ///
    /// # Errors
    ///
    /// It would be a new agent, for which `payer` has no room.
    pub(super) fn recognize(
        &mut self,
        batch: &Batch,
        payer: &Sender,
        now: Timestamp,
    ) -> Result<Option<String>, Over> {
        let (id, sender) = (batch.agent.as_str(), Source::of(batch));
        let key = match sender.find(self.with_id(id), now) {
            Verdict::Same(key) => key,
            Verdict::Late(key) => {
                if let Some(agent) = self.agents.get_mut(&key) {
                    agent.process.note_late(&sender);
                }
                return Ok(None);
            }
            Verdict::Restarted { key, doubtful } => {
                let Some(agent) = self.agents.get_mut(&key) else { return Ok(None) };
                agent.process.replace(&sender);
                if doubtful {
                    agent.doubt = Some(Doubt { until: agent.silent_at(), reported: BTreeSet::new() });
                }
                self.dirty.agents.insert(key.clone());
                key
            }
            Verdict::Returned(key) => self.part(&key, &sender, payer, now)?,
            Verdict::Another { maybe } => self.add_agent(id, &sender, payer, maybe.as_deref(), now)?,
        };
        let Some(agent) = self.agents.get_mut(&key) else { return Ok(None) };
        agent.process.last_at = agent.process.last_at.max(sender.sent_at);
        if agent.doubt.take_if(|doubt| doubt.until <= now).is_some() {
            self.dirty.agents.insert(key.clone());
        }
        self.tell_apart(&key, &sender, now);
        Ok(Some(key))
    }

    /// All agents with this id.
    fn with_id<'a>(&'a self, id: &'a str) -> impl Iterator<Item = (&'a String, &'a Agent)> + Clone {
        // Between the id and its other keys are those of ids that start with it.
        let first = self.agents.get_key_value(id);
        let others = self.agents.range(format!("{id}{MARK}")..);
        first.into_iter().chain(others.take_while(move |(key, _)| id_of(key) == id))
    }

    fn add_agent(
        &mut self,
        id: &str,
        sender: &Source<'_>,
        payer: &Sender,
        maybe: Option<&str>,
        now: Timestamp,
    ) -> Result<String, Over> {
        let is_first = self.with_id(id).next().is_none();
        let key = if is_first { id.to_owned() } else { self.free_key(id, sender.run) };
        self.may_add_agent(payer, &key, now)?;
        let agent = Agent {
            process: Process::new(sender),
            maybe: maybe.map(str::to_owned),
            ..Agent::new(sender.host, sender.epoch, payer.clone(), now)
        };
        self.agents.insert(key.clone(), agent);
        self.dirty.agents.insert(key.clone());
        if is_first {
            self.move_mended(&key, sender, now);
        } else if maybe.is_none() {
            self.share_id(id, now);
        }
        Ok(key)
    }

    fn free_key(&self, id: &str, run: &str) -> String {
        let mut key = format!("{id}{MARK}{run}");
        while self.agents.contains_key(&key) {
            key.push('+');
        }
        key
    }

    /// Two processes take turns under one key. The agent that was there longer keeps it.
    fn part(
        &mut self,
        key: &str,
        returned: &Source<'_>,
        payer: &Sender,
        now: Timestamp,
    ) -> Result<String, Over> {
        let id = id_of(key).to_owned();
        let Some(present) = self.agents.get(key).cloned() else { return Ok(key.to_owned()) };
        let Some(doubt) = present.doubt.clone() else {
            return self.add_agent(&id, returned, payer, None, now);
        };
        self.may_add_agent(payer, key, now)?;
        // The present process has just replaced the returned one.
        let newer = self.free_key(&id, &present.process.run);
        let mut former = present.process.former.clone();
        former.retain(|one| one.run != returned.run);
        let moved = Agent {
            last_seq: 0,
            doubt: None,
            lately: Lately::default(),
            process: Process { former: [].into(), late: 0, ..present.process.clone() },
            ..present.clone()
        };
        let kept = Agent {
            process: Process { former, ..Process::new(returned) },
            lately: present.lately.clone(),
            ..Agent::new(returned.host, returned.epoch, present.sender.clone(), now)
        };
        self.forget_deadline(key);
        self.agents.insert(key.to_owned(), kept);
        self.agents.insert(newer.clone(), moved);
        self.quiet.extend(self.agents.get(&newer).map(|agent| (agent.silent_at(), newer.clone())));
        self.dirty.agents.extend([key.to_owned(), newer.clone()]);
        self.move_alerts(key, &newer, |service| doubt.reported.contains(service), now);
        self.share_id(&id, now);
        Ok(key.to_owned())
    }

    /// Remembers whose alerts these are if two hosts turn out to speak for this agent.
    pub(super) fn note_doubtful(&mut self, key: &str, event: &Event) {
        if let EventKind::Transition(transition) = &event.kind
            && let Some(doubt) = self.agents.get_mut(key).and_then(|agent| agent.doubt.as_mut())
        {
            doubt.reported.insert(transition.now.service.clone());
        }
    }

    /// The agent has sent a batch, so those that might have replaced it have not.
    fn tell_apart(&mut self, key: &str, sender: &Source<'_>, now: Timestamp) {
        let id = id_of(key).to_owned();
        let like = |agent: &Agent| agent.maybe.as_deref() == Some(key);
        let others: Vec<_> =
            self.with_id(&id).filter(|(_, agent)| like(agent)).map(|(other, _)| other.clone()).collect();
        for other in others {
            let Some(agent) = self.agents.get_mut(&other) else { continue };
            if agent.process.is_outlived_by(sender, None) {
                agent.maybe = None;
                self.dirty.agents.insert(other);
                self.share_id(&id, now);
            } else {
                agent.process.note_late(sender);
            }
        }
    }

    /// The heartbeat of this agent is overdue. Returns true if another agent has taken its place,
    /// so that nothing is missing.
    pub(super) fn is_replaced(&mut self, key: &str, now: Timestamp) -> bool {
        let id = id_of(key).to_owned();
        let like = |agent: &Agent| agent.maybe.as_deref() == Some(key);
        let heirs: Vec<_> =
            self.with_id(&id).filter(|(_, agent)| like(agent)).map(|(heir, _)| heir.clone()).collect();
        if let Some(first) = heirs.first().cloned() {
            for heir in &heirs {
                if let Some(agent) = self.agents.get_mut(heir) {
                    agent.maybe = (*heir != first).then(|| first.clone());
                    self.dirty.agents.insert(heir.clone());
                }
            }
            self.retire(key, now);
            return true;
        }
        let Some(agent) = self.agents.get(key).filter(|agent| agent.shares_id) else { return false };
        if self.namesakes(key, &agent.host) > 1 {
            return false;
        }
        let moved = |other: &Agent, of: &str| id_of(of) != id && other.host == agent.host && !other.silent;
        let Some(new) = self.agents.iter().find(|(of, other)| moved(other, of)).map(|(of, _)| of.clone())
        else {
            return false;
        };
        self.move_alerts(key, &new, |_| true, now);
        self.retire(key, now);
        true
    }

    /// A new agent may be a host that shared its id and was mended.
    fn move_mended(&mut self, new: &str, sender: &Source<'_>, now: Timestamp) {
        let same = |key: &String, agent: &Agent| {
            agent.epoch == sender.epoch || agent.silent && self.namesakes(key, &agent.host) == 1
        };
        let shared = self.agents.iter().filter(|(key, agent)| *key != new && agent.shares_id);
        let old = shared.filter(|(key, agent)| agent.host == sender.host && same(key, agent));
        let old = old.max_by_key(|(_, agent)| (sender.agreement(agent), agent.is_overdue(now)));
        let Some(old) = old.map(|(key, _)| key.clone()) else { return };
        let lately = self.agents.get(&old).map(|agent| agent.lately.clone());
        if let Some((agent, lately)) = self.agents.get_mut(new).zip(lately) {
            agent.lately = lately;
        }
        self.move_alerts(&old, new, |_| true, now);
        self.retire(&old, now);
    }

    /// How many agents with the id of this one have the same host name.
    fn namesakes(&self, key: &str, host: &str) -> usize {
        self.with_id(id_of(key)).filter(|(_, agent)| agent.host == host).count()
    }

    /// Ends an agent that reports under another key.
    fn retire(&mut self, key: &str, now: Timestamp) {
        let services: Vec<_> = self.alerts.of_agent(key).map(|(alert, _)| alert.clone()).collect();
        for alert in services {
            let ending = match alert.service.as_str() {
                SILENT => Ending::Well("the host reports under another id"),
                _ => Ending::Unwatched,
            };
            let change = self.alerts.resolve(&alert, ending, now);
            self.on_move(&alert, change, Reason::IdShared, now);
        }
        self.forget_deadline(key);
        self.leave_mass(key);
        self.on_spoken(key);
        self.agents.remove(key);
        self.dirty.agents.remove(key);
        self.dirty.gone_agents.push(key.to_owned());
        for (other, agent) in &mut self.agents {
            if agent.maybe.take_if(|maybe| maybe == key).is_some() {
                self.dirty.agents.insert(other.clone());
            }
        }
        self.share_id(id_of(key), now);
    }

    fn forget_deadline(&mut self, key: &str) {
        if let Some(agent) = self.agents.get(key) {
            self.quiet.remove(&(agent.silent_at(), key.to_owned()));
        }
    }

    /// Gives alerts of one agent to another one: same alerts, same incidents, and everyone knows
    /// what they knew.
    fn move_alerts(&mut self, from: &str, to: &str, which: impl Fn(&str) -> bool, now: Timestamp) {
        let own = self.alerts.of_agent(from).map(|(key, _)| key);
        let own: Vec<_> =
            own.filter(|key| !key.service.starts_with('@') && which(&key.service)).cloned().collect();
        for old in own {
            let new = AlertKey::new(to, old.service.clone());
            if self.alerts.get(&new).is_some() {
                continue; // `retire` or the next report ends the old one.
            }
            self.update_inhibitor_without(&old);
            if !self.alerts.rekey(&old, new.clone()) {
                continue;
            }
            self.dirty_alerts.remove(&old);
            self.dirty_alerts.insert(new.clone());
            let numbers: BTreeSet<_> =
                self.alerts.get(&new).map(|alert| alert.incidents.clone()).unwrap_or_default();
            for number in numbers {
                self.outbox.rekey(number, &old, &new, &mut self.dirty.outbox);
                let Some(incident) = self.incidents.get_mut(&number) else { continue };
                for receiver in incident.rekey(&old, &new) {
                    self.dirty.told.insert((number, receiver));
                }
                self.dirty.incidents.insert(number);
                self.touched.insert(number);
                let text = format!("{} reports under another id", line(from, NAME_CHARS_MAX));
                self.note(now, Some(number), "moved", Reason::IdShared, &text);
            }
            self.update_inhibitor(&new);
        }
    }

    /// Raises, rewords or resolves the alert for this id, after its agents have changed.
    pub(super) fn share_id(&mut self, id: &str, now: Timestamp) {
        let sure: Vec<_> = self
            .with_id(id)
            .filter(|(_, agent)| agent.maybe.is_none())
            .map(|(key, agent)| (key.clone(), agent.clone()))
            .collect();
        let key = alert_key(id);
        if sure.len() < 2 {
            let ending = Ending::Well("only one host has this id now");
            let change = self.alerts.resolve(&key, ending, now);
            return self.on_move(&key, change, Reason::IdUnshared, now);
        }
        for (key, _) in &sure {
            if let Some(agent) = self.agents.get_mut(key).filter(|agent| !agent.shares_id) {
                (agent.shares_id, agent.epoch_is_copied) = (true, true);
                self.dirty.agents.insert(key.clone());
            }
        }
        let agents: Vec<_> = sure.iter().map(|(_, agent)| agent).collect();
        let since = self.alerts.get(&key).filter(|alert| alert.resolved_at.is_none());
        let own = OwnAlert {
            host: self.rules.host.clone(),
            service: "alertd",
            labels: Labels::from([("shared_id".to_owned(), cut(id.to_owned(), NAME_BYTES_MAX))]),
            summary: format!("{}; {MEND}", who(&agents)),
            since: since.map_or(now, |alert| alert.since),
            reason: Reason::IdShared,
            key,
        };
        self.warn(own, details(&agents), now);
    }
}

const MEND: &str = "all are watched; on each copy run `rm -f /etc/machine-id /var/lib/dbus/machine-id && systemd-machine-id-setup && systemctl restart dogwatch`";

/// `web1 (192.0.2.1) and web2 have the same /etc/machine-id`.
fn who(agents: &[&Agent]) -> String {
    let mut names: Vec<_> = agents.iter().take(NAMES_SHOWN).map(|agent| name(agent)).collect();
    names.sort();
    let all_same = names.windows(2).all(|pair| pair[0] == pair[1]);
    let (count, more) = (agents.len(), agents.len().saturating_sub(names.len()));
    let names = match names.as_slice() {
        [first, ..] if all_same => format!("{} named {first}", plural(count, "host")),
        [most @ .., last] if more == 0 => format!("{} and {last}", most.join(", ")),
        all => format!("{} and {more} more", all.join(", ")),
    };
    format!("{names} have the same /etc/machine-id, as copies of one image do")
}

fn name(agent: &Agent) -> String {
    let host = line(&agent.host, NAME_CHARS_MAX);
    match &agent.address {
        Some(address) => format!("{host} ({})", line(address, NAME_CHARS_MAX)),
        None => host,
    }
}

/// One line for each host, with its boot id, which tells hosts of one name apart.
fn details(agents: &[&Agent]) -> String {
    let boot = |agent: &Agent| match agent.process.boot.as_str() {
        "" => String::new(),
        boot => format!(", /proc/sys/kernel/random/boot_id {}", line(boot, NAME_CHARS_MAX)),
    };
    let each = agents.iter().map(|agent| format!("{}{}\n", name(agent), boot(agent)));
    each.collect::<String>().trim_end().to_owned()
}
