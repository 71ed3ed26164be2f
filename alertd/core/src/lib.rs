//! Every decision of alertd, as one value: [`Core`]. It has no clock, no I/O, no threads and no
//! randomness of its own.
//!
//! The shell passes inputs in with the `on_…` methods, each with `now`. Then it calls
//! [`Core::settle`] once for all of them and [`Core::poll_send`] for what is due, commits
//! [`Core::take_changes`] in one transaction, and only then answers and sends.
//! [`Core::next_wakeup`] says when to call `settle` again. An input marks the incidents that it
//! touches, and `settle` reviews each of them once, so ten inputs in one commit are one decision.
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`rules`] | one rule per file; the modules below combine them |
//! | `ingest` | batches of agents; which incidents an alert belongs to; silent agents |
//! | `mass_silence` | silent agents: one by one, or many together as one alert |
//! | `external` | alerts that other tools post: taken, repeated, expired |
//! | `shared_ids` | hosts that share an agent id: told apart, reported, mended |
//! | `own_alerts` | internal alerts and their keys |
//! | `review` | one incident: who is notified of what now, and when to look again |
//! | `suppress` | which firing alerts are suppressed, by what, until when |
//! | `silences`, `downtimes` | silences and downtimes: created, changed, started, ended |
//! | `oncall` | the receivers that a step of a policy means: users by their own rules, whoever is on call |
//! | `rota` | who is on call now and later, overrides, gaps in schedules |
//! | `people` | acknowledgements and test notifications |
//! | `tokens` | API tokens: created, revoked, used |
//! | `delivery` | the outcome of an attempt: ledger, retries, fallbacks |
//! | `digest` | one notification for everything that a rate limit delayed |
//! | `audit` | who did what, from where |
//! | `auditor` | finds states that no sequence of inputs should lead to |
//! | `quotas` | senders over their quota, and the alert that names them |
//! | `refused` | why a request of a person is refused |
//! | `explain` | where an alert would go |
//! | `view` | what people see of all this |
//! | [`alertmanager_view`] | alerts as Alertmanager's API v2 shows them |
//! | `settings` | what the core needs of the config: [`Rules`] |
//! | `testing` | for tests: a world in virtual time and a store in memory (feature `testing`) |

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::RandomState,
    sync::Arc,
    time::Duration,
};

use dogwatch_wire::ctl::{self, HistoryEntry};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::{
    agent::Agent,
    alert::{Alert, AlertKey, AlertTable, Claim, Keys},
    downtime::{Downtime, Downtimes},
    escalation::Policy,
    incident::{GroupKey, Incident},
    inhibit::Inhibitor,
    outbox::{Outbox, Row},
    period::Periods,
    quota::{AGENT_BYTES, Holder, Ledger},
    reason::{Cause, Reason},
    schedule::Schedule,
    sender::Sender,
    silence::{Silence, Silences},
    token::Token,
    told::Told,
};

pub mod alertmanager_view;
mod audit;
mod auditor;
mod clamp;
mod delivery;
mod digest;
mod downtimes;
mod explain;
mod external;
mod ingest;
mod mass_silence;
mod oncall;
mod own_alerts;
mod people;
mod quotas;
mod refused;
mod review;
mod rota;
pub mod rules;
mod settings;
mod shared_ids;
mod silences;
mod suppress;
mod tokens;
mod view;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use auditor::{Finding, What};
pub use delivery::Lease;
pub use external::Taken;
pub use ingest::BadBatch;
pub use refused::Refused;
pub use rota::{LOOK_AHEAD, OverrideByHand};
pub use settings::{DEFAULT_POLICY, LOCAL_RECEIVER, ReceiverRules, Rules};
pub use view::{Sizes, ToldOpen, notification_info, title_of};

use auditor::Auditor;
use mass_silence::MassSilence;
use own_alerts::OWN;
use quotas::Refusals;
use suppress::Unheard;

/// The new content of one row of the store.
#[derive(Debug, Clone)]
pub enum Change {
    Agent(String, Box<Agent>),
    AgentGone(String),
    Alert(AlertKey, Arc<Alert>),
    /// An alert and its row.
    AlertGone(u64),
    Incident(Box<Incident>),
    Told {
        incident: u64,
        receiver: String,
        told: Option<Told>,
    },
    Silence(Silence),
    Override(OverrideByHand),
    Downtime(Downtime),
    /// `None` if it was revoked.
    Token(String, Option<Box<Token>>),
    Outbox(Box<Row>),
    History(HistoryEntry),
    Counters(Counters),
}

/// The next free numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub incident: u64,
    pub outbox: u64,
    pub silence: u64,
    #[serde(default = "first")]
    pub overrides: u64,
    #[serde(default = "first")]
    pub downtime: u64,
}

fn first() -> u64 {
    1
}

impl Default for Counters {
    fn default() -> Self {
        Self { incident: 1, outbox: 1, silence: 1, overrides: 1, downtime: 1 }
    }
}

/// All current data from the store.
#[derive(Debug, Default)]
pub struct Loaded {
    pub agents: Vec<(String, Agent)>,
    pub alerts: Vec<(AlertKey, Alert)>,
    pub incidents: Vec<Incident>,
    pub told: Vec<(u64, String, Told)>,
    pub silences: Vec<Silence>,
    pub overrides: Vec<OverrideByHand>,
    pub downtimes: Vec<Downtime>,
    pub tokens: Vec<Token>,
    /// Pending notifications.
    pub outbox: Vec<Row>,
    /// The permanent id of this store, part of the keys by which providers know incidents.
    pub instance: String,
    /// Receivers and times of recent first attempts, ascending, for the rate limits.
    pub spent: Vec<(String, Timestamp)>,
    pub counters: Counters,
    /// Number of failed notifications in the store.
    pub failed: u64,
    pub lost: Lost,
}

/// Rows that the store had and could not read, by what is still known of them.
#[derive(Debug, Default)]
pub struct Lost {
    /// Keys of alerts, with their rows.
    pub alerts: Vec<(AlertKey, u64)>,
    /// Ids of agents.
    pub agents: Vec<String>,
    /// Incidents with lost notifications: it is unknown who was told.
    pub notifications_of: Vec<u64>,
}

pub struct Core {
    rules: Rules,
    instance: String,
    /// Part of every notification id, so that ids differ between two runs of the process, even if
    /// the first could not write to the store.
    life: String,
    started_at: Timestamp,
    counters: Counters,
    agents: BTreeMap<String, Agent>,
    quiet: BTreeSet<(Timestamp, String)>,
    mass: MassSilence,
    alerts: AlertTable,
    /// What each sender uses.
    ledger: Ledger,
    refusals: Refusals,
    /// When external alerts end unless they are posted again, by time and row.
    expiries: BTreeMap<(Timestamp, u64), AlertKey>,
    /// Open incidents, and resolved ones with recoveries still to send.
    incidents: BTreeMap<u64, Incident>,
    groups: HashMap<GroupKey, u64, RandomState>,
    wakeups: BTreeSet<(Timestamp, u64)>,
    woken_at: BTreeMap<u64, Timestamp>,
    silences: Silences,
    downtimes: Downtimes,
    periods: Periods,
    inhibitor: Inhibitor,
    unheard: Unheard,
    outbox: Outbox,
    failing: BTreeMap<String, Failing>,
    failed: u64,
    overrides: BTreeMap<u64, OverrideByHand>,
    /// The schedules of the config, with overrides made with alertctl.
    schedules: BTreeMap<String, Schedule>,
    /// Schedules that had nobody on call when a step ran, and when to check again.
    uncovered: BTreeMap<String, Timestamp>,
    /// Schedule, start and end of its next gap, and the number of further gaps.
    gaps: Vec<(String, Timestamp, Timestamp, usize)>,
    gaps_looked_at: Option<Timestamp>,
    tokens: BTreeMap<String, Token>,
    /// The origin of the current input.
    origin: Option<String>,
    /// Incidents for `settle` to review.
    touched: BTreeSet<u64>,
    auditor: Auditor,
    /// When a receiver last accepted a notification.
    last_accepted_at: Option<Timestamp>,
    /// Alerts that the next commit has to write.
    dirty_alerts: Keys,
    dirty: Dirty,
}

/// A receiver that has accepted nothing for some time.
#[derive(Debug, Clone)]
struct Failing {
    since: Timestamp,
    error: String,
    raised: bool,
}

/// The changes for the next commit, except alerts.
#[derive(Default)]
struct Dirty {
    agents: BTreeSet<String>,
    gone_agents: Vec<String>,
    /// Rows of alerts to delete.
    gone_alerts: Vec<u64>,
    incidents: BTreeSet<u64>,
    told: BTreeSet<(u64, String)>,
    silences: Vec<Silence>,
    overrides: Vec<OverrideByHand>,
    downtimes: Vec<Downtime>,
    tokens: BTreeSet<String>,
    outbox: BTreeSet<u64>,
    /// Resolved incidents that left memory.
    closed: Vec<Incident>,
    settled: Vec<Row>,
    history: Vec<HistoryEntry>,
    counters: bool,
}

impl Core {
    /// Continues where the previous run stopped, according to the store. `life` is unique to this
    /// process; `hash_key` is random.
    pub fn new(rules: Rules, life: String, hash_key: RandomState, loaded: Loaded, now: Timestamp) -> Self {
        let mut core = Self {
            rules,
            life,
            instance: loaded.instance.clone(),
            started_at: now,
            counters: loaded.counters,
            agents: BTreeMap::new(),
            quiet: BTreeSet::new(),
            mass: MassSilence::default(),
            alerts: AlertTable::new(hash_key.clone()),
            ledger: Ledger::default(),
            refusals: Refusals::default(),
            expiries: BTreeMap::new(),
            incidents: BTreeMap::new(),
            groups: HashMap::with_hasher(hash_key.clone()),
            wakeups: BTreeSet::new(),
            woken_at: BTreeMap::new(),
            silences: Silences::default(),
            downtimes: Downtimes::default(),
            periods: Periods::default(),
            inhibitor: Inhibitor::default(),
            unheard: Unheard::default(),
            outbox: Outbox::default(),
            failing: BTreeMap::new(),
            failed: loaded.failed,
            overrides: loaded.overrides.iter().map(|one| (one.number, one.clone())).collect(),
            schedules: BTreeMap::new(),
            uncovered: BTreeMap::new(),
            gaps: Vec::new(),
            gaps_looked_at: None,
            tokens: BTreeMap::new(),
            origin: None,
            touched: BTreeSet::new(),
            auditor: Auditor::default(),
            last_accepted_at: None,
            dirty_alerts: Keys::with_hasher(hash_key),
            dirty: Dirty::default(),
        };
        core.restore(loaded, now);
        core
    }

    fn restore(&mut self, mut loaded: Loaded, now: Timestamp) {
        clamp::clamp(&mut loaded, now);
        for incident in loaded.incidents {
            if incident.resolved_at.is_none() {
                self.groups.insert(incident.group.clone(), incident.number);
            }
            self.touched.insert(incident.number);
            self.incidents.insert(incident.number, incident);
        }
        for (number, receiver, told) in loaded.told {
            if let Some(incident) = self.incidents.get_mut(&number) {
                incident.told.insert(receiver, told);
            }
        }
        let (alerts, agents) = stand_ins(&loaded.lost, &loaded.agents, &self.incidents, now);
        let mut homeless = Vec::new();
        for (key, mut alert) in loaded.alerts.into_iter().chain(alerts) {
            // An incident that was lost.
            alert.incidents.retain(|number| self.incidents.contains_key(number));
            if alert.resolved_at.is_none() && alert.incidents.is_empty() {
                homeless.push(key.clone());
            }
            for number in &alert.incidents {
                if let Some(incident) = self.incidents.get_mut(number) {
                    incident.members.insert(key.clone());
                }
            }
            self.alerts.restore(key, alert);
        }
        for (id, mut agent) in loaded.agents.into_iter().chain(agents) {
            // It may have sent heartbeats while alertd was down.
            agent.last_heard_at = now;
            if !agent.silent {
                self.quiet.insert((agent.silent_at(), id.clone()));
            }
            self.ledger.charge(&Holder::of_agent(&agent.sender, &id), AGENT_BYTES);
            self.agents.insert(id, agent);
        }
        self.restore_mass_silence();
        self.restore_charges();
        self.restore_refusals(now);
        self.periods = Periods::new(self.rules.periods.clone());
        self.rebuild_inhibitor();
        self.begin_settling();
        self.restore_expiries(now);
        self.restore_failing(now);
        self.restore_uncovered();
        self.apply_schedules(Some(now));
        loaded.silences.into_iter().for_each(|silence| self.silences.add(silence));
        loaded.downtimes.into_iter().for_each(|downtime| self.downtimes.add(downtime));
        self.tokens.extend(loaded.tokens.into_iter().map(|token| (token.name.clone(), token)));
        self.outbox.set_limits(&self.rules.limits());
        self.outbox.replay_spending(&loaded.spent);
        loaded.outbox.into_iter().for_each(|row| self.outbox.restore(row));
        for key in homeless {
            self.join(&key, now);
        }
        for number in loaded.lost.notifications_of {
            if let Some(incident) = self.incidents.get_mut(&number).filter(|one| one.resolved_at.is_none()) {
                incident.begin_again(Cause::Opened, now);
                self.dirty.incidents.insert(number);
            }
        }
    }

    fn restore_charges(&mut self) {
        let holders =
            self.alerts.iter().filter_map(|(key, alert)| Some((key.clone(), self.holder_of(key, alert)?)));
        let holders: Vec<_> = holders.collect();
        for (key, holder) in holders {
            self.charge_alert(&key, &holder);
        }
    }

    /// Applies a new config. Groups, timers and escalations continue.
    pub fn on_reload(&mut self, rules: Rules) {
        self.rules = rules;
        self.outbox.set_limits(&self.rules.limits());
        self.periods.replace(self.rules.periods.clone());
        self.rebuild_inhibitor();
        // Check again what the rules suppress.
        self.touched.extend(self.groups.values());
        self.apply_schedules(None);
    }

    /// Reviews everything that was affected or is due.
    pub fn settle(&mut self, now: Timestamp) {
        self.turn_periods(now);
        self.find_silent_agents(now);
        self.end_unreported(now);
        self.tell_of_refusals(now);
        self.end_settling(now);
        self.find_covered(now);
        self.turn_silences(now);
        self.turn_downtimes(now);
        while let Some(&(at, number)) = self.wakeups.first()
            && at <= now
        {
            self.wakeups.pop_first();
            self.woken_at.remove(&number);
            self.touched.insert(number);
        }
        self.review_touched(now);
        self.sweep(now);
        self.review_touched(now);
        self.outbox.wake(now);
    }

    fn review_touched(&mut self, now: Timestamp) {
        // The review of one incident may affect another: the internal alert of a receiver.
        while let Some(number) = self.touched.pop_first() {
            self.review(number, now);
            self.plan_wakeup(number);
        }
    }

    fn plan_wakeup(&mut self, number: u64) {
        if let Some(at) = self.woken_at.remove(&number) {
            self.wakeups.remove(&(at, number));
        }
        if let Some(at) = self.incidents.get(&number).and_then(|incident| {
            let on_their_way: Vec<_> = self.outbox.receivers_of(number).collect();
            incident.next_wakeup(&on_their_way)
        }) {
            self.wakeups.insert((at, number));
            self.woken_at.insert(number, at);
        }
    }

    /// When to call [`Core::settle`] and [`Core::poll_send`] again if no input arrives before.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let incident = self.wakeups.first().map(|(at, _)| *at);
        let agent = self.quiet.first().map(|(at, _)| *at);
        let settled = self.unheard.ends_at();
        let unreported = self.expiries.first_key_value().map(|((at, _), _)| *at);
        let people = [
            self.silences.next_wakeup(),
            self.downtimes.next_wakeup(),
            self.periods.next_wakeup(),
            self.next_covered(),
            self.refusals.next_wakeup(),
            self.mass.next_wakeup(),
        ];
        let others = people.into_iter().chain([self.outbox.next_wakeup(), settled, unreported]);
        [incident, agent].into_iter().chain(others).flatten().min()
    }

    /// Removes and returns the changes to write: each row once, with its current content.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut changes = Vec::new();
        if dirty.counters {
            changes.push(Change::Counters(self.counters));
        }
        changes.extend(dirty.gone_agents.into_iter().map(Change::AgentGone));
        for id in dirty.agents {
            if let Some(agent) = self.agents.get(&id) {
                changes.push(Change::Agent(id, Box::new(agent.clone())));
            }
        }
        changes.extend(dirty.gone_alerts.into_iter().map(Change::AlertGone));
        let alerts = self.dirty_alerts.drain().filter_map(|key| Some((self.alerts.share(&key)?, key)));
        let mut alerts: Vec<_> = alerts.collect();
        // Neighbouring rows share pages of the store.
        alerts.sort_unstable_by_key(|(alert, _)| alert.row);
        changes.extend(alerts.into_iter().map(|(alert, key)| Change::Alert(key, alert)));
        for number in dirty.incidents {
            if let Some(incident) = self.incidents.get(&number) {
                changes.push(Change::Incident(Box::new(incident.to_row())));
            }
        }
        for (incident, receiver) in dirty.told {
            let told = self.incidents.get(&incident).and_then(|open| open.told.get(&receiver)).cloned();
            changes.push(Change::Told { incident, receiver, told });
        }
        changes.extend(dirty.silences.into_iter().map(Change::Silence));
        changes.extend(dirty.downtimes.into_iter().map(Change::Downtime));
        changes.extend(dirty.overrides.into_iter().map(Change::Override));
        for name in dirty.tokens {
            let token = self.tokens.get(&name).cloned().map(Box::new);
            changes.push(Change::Token(name, token));
        }
        changes.extend(dirty.closed.into_iter().map(Box::new).map(Change::Incident));
        for seq in dirty.outbox {
            if let Some(row) = self.outbox.get(seq) {
                changes.push(Change::Outbox(Box::new(row.clone())));
            }
        }
        changes.extend(dirty.settled.into_iter().map(Box::new).map(Change::Outbox));
        changes.extend(dirty.history.into_iter().map(Change::History));
        changes
    }

    fn note(&mut self, at: Timestamp, incident: Option<u64>, kind: &str, reason: Reason, text: &str) {
        self.note_by(at, incident, kind, reason, None, text);
    }

    fn note_by(
        &mut self,
        at: Timestamp,
        incident: Option<u64>,
        kind: &str,
        reason: Reason,
        author: Option<&str>,
        text: &str,
    ) {
        self.dirty.history.push(HistoryEntry {
            at,
            incident,
            kind: kind.into(),
            reason: reason.name().into(),
            author: author.map(str::to_owned),
            from: author.and(self.origin.clone()),
            text: text.into(),
            detail: None,
        });
    }

    /// Adds details to the last history entry.
    fn detail(&mut self, detail: ctl::Detail) {
        if let Some(last) = self.dirty.history.last_mut() {
            last.detail = Some(Box::new(detail));
        }
    }

    fn next_outbox_seq(&mut self) -> u64 {
        let seq = self.counters.outbox;
        self.counters.outbox += 1;
        self.dirty.counters = true;
        seq
    }

    fn notification_id(&self, seq: u64) -> String {
        format!("{}-{seq}", self.life)
    }

    /// The policy with this name, or the default one if a reload removed it.
    fn policy(&self, name: &str) -> Policy {
        let found = self.rules.policies.get(name).or_else(|| self.rules.policies.get(DEFAULT_POLICY));
        found.cloned().unwrap_or_else(|| Policy {
            name: name.into(),
            steps: Vec::new(),
            repeat: 0,
            repeat_every: Duration::ZERO,
        })
    }
}

type StandInAlerts = Vec<(AlertKey, Alert)>;

/// What stands for alerts and agents that were lost: an alert fires as it was told, until its
/// sender reports it; an agent is silent unless it reports.
fn stand_ins(
    lost: &Lost,
    agents: &[(String, Agent)],
    incidents: &BTreeMap<u64, Incident>,
    now: Timestamp,
) -> (StandInAlerts, Vec<(String, Agent)>) {
    let host_of =
        |id: &str| agents.iter().find(|(known, _)| known == id).map(|(_, agent)| agent.host.clone());
    let stand_in = |(key, row): &(AlertKey, u64)| {
        let claims = |incident: &Incident| {
            let told = incident.told.values().flat_map(|told| &told.knows);
            told.filter(|(known, _)| known == key).map(|(_, claim)| *claim).max()
        };
        let told: BTreeMap<u64, Claim> =
            incidents.iter().filter_map(|(number, incident)| Some((*number, claims(incident)?))).collect();
        let host = host_of(&key.agent).unwrap_or_else(|| "unknown".into());
        (key.clone(), Alert::lost(*row, key, &host, told, now))
    };
    // Internal alerts are raised again if there is a reason.
    let internal = |key: &AlertKey| key.agent == OWN || key.service.starts_with('@');
    let alerts = lost.alerts.iter().filter(|(key, _)| !internal(key)).map(stand_in).collect();
    let agent = |id: &String| (id.clone(), Agent::new(id, "", Sender::default(), now));
    (alerts, lost.agents.iter().map(agent).collect())
}
