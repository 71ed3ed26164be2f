//! The alert table: what is firing, by agent and service.
//!
//! An alert fires while its service has a hard problem or is flapping. Applying the same state
//! twice changes nothing. A resolved alert stays until its incidents are resolved, because their
//! recovery notifications name it.

mod key;

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::Entry},
    hash::RandomState,
    ops::Bound,
    sync::Arc,
};

use dogwatch_wire::{ServiceState, State, limits};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::{
    lately::Happened,
    matcher::Labels,
    notification::NotifiedAlert,
    quota::{ALERT_BYTES, Charge},
    sender::Sender,
};

use key::ByKey;
pub use key::{AlertKey, EXTERNAL, Keys};

/// The state of a service in notifications. A flapping service has no meaningful state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    Warning,
    Flapping,
    Unknown,
    Critical,
}

impl Claim {
    /// `None` for an OK service.
    pub fn of(state: State, flapping: bool) -> Option<Self> {
        match state {
            _ if flapping => Some(Self::Flapping),
            State::Ok => None,
            State::Warning => Some(Self::Warning),
            State::Unknown => Some(Self::Unknown),
            State::Critical => Some(Self::Critical),
        }
    }

    /// As a state of an incident, which cannot be flapping.
    pub fn as_state(self) -> State {
        match self {
            Self::Warning | Self::Flapping => State::Warning,
            Self::Unknown => State::Unknown,
            Self::Critical => State::Critical,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// The row in the store; rows are in the order in which alerts first fire.
    #[serde(skip)]
    pub row: u64,
    pub labels: Labels,
    pub annotations: Labels,
    pub state: State,
    pub flapping: bool,
    pub summary: String,
    pub detail: String,
    pub perfdata: String,
    pub since: Timestamp,
    /// `None` while it fires.
    pub resolved_at: Option<Timestamp>,
    /// Numbers of the open incidents it belongs to.
    pub incidents: BTreeSet<u64>,
    /// Additional data of an external alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// What its sender pays for it.
    #[serde(skip)]
    pub charge: Charge,
}

impl Alert {
    /// The state for notifications; `None` if it is resolved.
    pub fn claim(&self) -> Option<Claim> {
        if self.resolved_at.is_some() { None } else { Claim::of(self.state, self.flapping) }
    }

    /// Stands for an alert whose row was damaged, as its incidents' receivers know it.
    pub fn lost(row: u64, key: &AlertKey, host: &str, told: BTreeMap<u64, Claim>, now: Timestamp) -> Self {
        let external = (key.agent == EXTERNAL).then(|| External {
            ends_at: now,
            generator_url: String::new(),
            added: vec!["host".into(), "service".into()],
            sender: None,
        });
        let service = if external.is_some() { "alert" } else { &key.service };
        let report = ServiceState {
            service: service.to_owned(),
            state: told.values().max().map_or(State::Critical, |claim| claim.as_state()),
            since: now,
            flapping: false,
            summary: "alertd's record of this alert was damaged; waiting for the next report".into(),
            detail: String::new(),
            perfdata: String::new(),
            labels: Labels::new(),
            annotations: Labels::new(),
        };
        Self { row, incidents: told.into_keys().collect(), external, ..new_alert(host, report) }
    }

    /// What it uses in memory, about.
    pub fn bytes(&self) -> usize {
        let texts = self.summary.len() + self.detail.len() + self.perfdata.len();
        ALERT_BYTES + texts + pairs_of(&self.labels) + pairs_of(&self.annotations)
    }

    /// Whether it ended without a claim that the service is OK.
    pub fn is_unwatched(&self) -> bool {
        self.resolved_at.is_some() && Claim::of(self.state, self.flapping).is_some()
    }

    /// One line of text: `CRITICAL web1/disk: 98 % full`.
    pub fn line(&self) -> String {
        let label = |name| self.labels.get(name).map_or("", String::as_str);
        let state = match (self.resolved_at, self.flapping) {
            (Some(_), _) => "OK",
            (None, true) => "flapping",
            (None, false) => self.state.name(),
        };
        format!("{state} {}/{}: {}", label("host"), label("service"), self.summary)
    }

    /// The newest change.
    pub fn to_happened(&self, now: Timestamp) -> Happened {
        let state = match (self.resolved_at, self.claim()) {
            (Some(_), _) if self.is_unwatched() => "no longer watched",
            (_, Some(Claim::Flapping)) => "flapping",
            (Some(_), _) => State::Ok.name(),
            (None, _) => self.state.name(),
        };
        let at = if self.resolved_at.is_some() { now } else { self.since.min(now) };
        let service = self.labels.get("service").cloned().unwrap_or_default();
        Happened { at, service: Some(service), what: state.into() }
    }

    pub fn to_notified(&self) -> NotifiedAlert {
        NotifiedAlert {
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            state: self.state,
            flapping: self.flapping,
            summary: self.summary.clone(),
            detail: self.detail.clone(),
            perfdata: self.perfdata.clone(),
            since: self.since,
            resolved_at: self.resolved_at,
            joined: false,
        }
    }
}

/// Additional data of an external alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// When it ends unless it is posted again. The store contains the value of the last write.
    pub ends_at: Timestamp,
    pub generator_url: String,
    /// Labels that alertd added.
    pub added: Vec<String>,
    /// Who posted it first. `None`: an alert from an old store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    Fired,
    Worsened,
    Eased,
    Resolved,
    /// Only text or labels changed.
    Reworded,
    Unchanged,
}

/// How an alert ends without a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Well(&'static str),
    /// Nobody claims that the service is OK, so its state does not change.
    Unwatched,
}

#[derive(Debug)]
pub struct AlertTable {
    /// Shared with the commit that writes the alerts.
    alerts: ByKey<Arc<Alert>>,
    /// The keys in order, for iterating by agent.
    order: BTreeSet<AlertKey>,
    last_row: u64,
    /// Alerts from a store of the time when fingerprints were the keys of external alerts.
    old_keys: usize,
}

impl AlertTable {
    pub fn new(hash_key: RandomState) -> Self {
        Self { alerts: ByKey::with_hasher(hash_key), order: BTreeSet::new(), last_row: 0, old_keys: 0 }
    }

    pub fn get(&self, key: &AlertKey) -> Option<&Alert> {
        self.alerts.get(key).map(Arc::as_ref)
    }

    pub fn get_mut(&mut self, key: &AlertKey) -> Option<&mut Alert> {
        self.alerts.get_mut(key).map(Arc::make_mut)
    }

    /// The current alert.
    pub fn share(&self, key: &AlertKey) -> Option<Arc<Alert>> {
        self.alerts.get(key).cloned()
    }

    /// Restores an alert from the store.
    pub fn restore(&mut self, key: AlertKey, alert: Alert) {
        self.last_row = self.last_row.max(alert.row);
        self.order.insert(key.clone());
        let is_old = key.is_fingerprint();
        if self.alerts.insert(key, Arc::new(alert)).is_none() {
            self.old_keys += usize::from(is_old);
        }
    }

    /// Returns what was known.
    pub fn forget(&mut self, key: &AlertKey) -> Option<Arc<Alert>> {
        self.order.remove(key);
        let gone = self.alerts.remove(key)?;
        self.old_keys -= usize::from(key.is_fingerprint());
        Some(gone)
    }

    /// Whether an alert has the key that external alerts had once.
    pub fn has_old_keys(&self) -> bool {
        self.old_keys > 0
    }

    /// Gives an alert another key. Returns false if there is no such alert.
    pub fn rekey(&mut self, old: &AlertKey, new: AlertKey) -> bool {
        let Some(alert) = self.alerts.remove(old) else { return false };
        self.order.remove(old);
        self.old_keys -= usize::from(old.is_fingerprint());
        self.old_keys += usize::from(new.is_fingerprint());
        self.order.insert(new.clone());
        self.alerts.insert(new, alert);
        true
    }

    pub fn iter(&self) -> impl Iterator<Item = (&AlertKey, &Alert)> {
        self.after(None)
    }

    /// The alerts after this key.
    pub fn after(&self, key: Option<&AlertKey>) -> impl Iterator<Item = (&AlertKey, &Alert)> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.order.range::<AlertKey, _>((from, Bound::Unbounded));
        behind.filter_map(|key| Some((key, self.get(key)?)))
    }

    pub fn firing_count(&self) -> usize {
        self.alerts.values().filter(|alert| alert.resolved_at.is_none()).count()
    }

    /// All alerts of one agent, including the internal alert for its silence.
    pub fn of_agent<'a>(&'a self, agent: &'a str) -> impl Iterator<Item = (&'a AlertKey, &'a Alert)> {
        let first = AlertKey::new(agent, "");
        let them = self.order.range(first..).take_while(move |key| key.agent == agent);
        them.filter_map(|key| Some((key, self.get(key)?)))
    }

    /// The digest of the known states of `agent`, to compare with the one in its heartbeat.
    pub fn digest(&self, agent: &str) -> String {
        let reported = self
            .of_agent(agent)
            .filter(|(key, alert)| !key.service.starts_with('@') && alert.resolved_at.is_none());
        dogwatch_wire::digest(
            reported.map(|(key, alert)| (key.service.as_str(), alert.state, alert.flapping)),
        )
    }

    /// Applies the report of one service. `host` is added to the reported labels.
    pub fn apply(&mut self, key: &AlertKey, host: &str, report: ServiceState, now: Timestamp) -> Move {
        let claim = Claim::of(report.state, report.flapping);
        let old = match self.alerts.entry(key.clone()) {
            Entry::Occupied(old) => old.into_mut(),
            Entry::Vacant(free) if claim.is_some() => {
                self.last_row += 1;
                let alert = Alert { row: self.last_row, ..new_alert(host, report) };
                self.old_keys += usize::from(key.is_fingerprint());
                self.order.insert(key.clone());
                free.insert(Arc::new(alert));
                return Move::Fired;
            }
            Entry::Vacant(_) => return Move::Unchanged,
        };
        let before = old.claim();
        if claim.is_none() && before.is_none() {
            // The text of an OK service is not needed.
            return Move::Unchanged;
        }
        let mut new = new_alert(host, report);
        new.row = old.row;
        new.incidents.clone_from(&old.incidents);
        new.external.clone_from(&old.external);
        new.charge.clone_from(&old.charge);
        new.resolved_at = claim.is_none().then_some(now);
        if claim.is_none() {
            // How long the problem lasted, not since when the service is OK.
            new.since = old.since;
        }
        let reworded = **old != new;
        if reworded {
            *old = Arc::new(new);
        }
        match (before, claim) {
            (None, Some(_)) => Move::Fired,
            (Some(_), None) => Move::Resolved,
            (Some(was), Some(is)) if is > was => Move::Worsened,
            (Some(was), Some(is)) if is < was => Move::Eased,
            _ if reworded => Move::Reworded,
            _ => Move::Unchanged,
        }
    }

    /// Resolves an alert without a report.
    pub fn resolve(&mut self, key: &AlertKey, ending: Ending, now: Timestamp) -> Move {
        match self.get_mut(key) {
            Some(alert) if alert.resolved_at.is_none() => {
                alert.resolved_at = Some(now);
                alert.summary = match ending {
                    Ending::Well(why) => {
                        (alert.state, alert.flapping) = (State::Ok, false);
                        why.into()
                    }
                    Ending::Unwatched if alert.external.is_some() => {
                        format!("no longer reported by its sender; last text: {}", alert.summary)
                    }
                    Ending::Unwatched => "no longer watched".into(),
                };
                Move::Resolved
            }
            _ => Move::Unchanged,
        }
    }
}

/// What is kept of a report.
pub fn cut_report(report: ServiceState) -> ServiceState {
    ServiceState {
        service: cut(report.service, NAME_BYTES_MAX),
        summary: cut(report.summary, limits::SUMMARY_BYTES_MAX),
        detail: cut(report.detail, limits::DETAIL_BYTES_MAX),
        perfdata: cut(report.perfdata, limits::DETAIL_BYTES_MAX),
        labels: cut_pairs(report.labels),
        annotations: cut_pairs(report.annotations),
        ..report
    }
}

fn new_alert(host: &str, report: ServiceState) -> Alert {
    let report = cut_report(report);
    let mut labels = report.labels;
    labels.insert("host".into(), cut(host.to_owned(), NAME_BYTES_MAX));
    labels.insert("service".into(), report.service);
    Alert {
        row: 0,
        labels,
        annotations: report.annotations,
        state: report.state,
        flapping: report.flapping,
        summary: report.summary,
        detail: report.detail,
        perfdata: report.perfdata,
        since: report.since,
        resolved_at: None,
        incidents: BTreeSet::new(),
        external: None,
        charge: Charge::default(),
    }
}

/// Bytes of the texts of a report.
pub fn texts_of(report: &ServiceState) -> usize {
    let texts = report.summary.len() + report.detail.len() + report.perfdata.len();
    texts + pairs_of(&report.labels) + pairs_of(&report.annotations)
}

/// Also counts what each entry of the map costs.
fn pairs_of(labels: &Labels) -> usize {
    labels.iter().map(|(name, value)| name.len() + value.len() + 64).sum()
}

/// Maximum size in bytes of the name of a host, service or label.
pub const NAME_BYTES_MAX: usize = 256;

fn cut_pairs(labels: Labels) -> Labels {
    let fits = |(name, value): (&String, &String)| {
        name.len() <= NAME_BYTES_MAX && value.len() <= limits::SUMMARY_BYTES_MAX
    };
    if labels.len() <= limits::LABELS_MAX && labels.iter().all(fits) {
        return labels;
    }
    let pair = |(name, value)| (cut(name, NAME_BYTES_MAX), cut(value, limits::SUMMARY_BYTES_MAX));
    labels.into_iter().take(limits::LABELS_MAX).map(pair).collect()
}

/// Truncates `text` to `max` bytes at a character boundary, with `…` at the end.
pub(crate) fn cut(text: String, max: usize) -> String {
    if text.len() <= max {
        return text;
    }
    let end = text.floor_char_boundary(max.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::hash_key;

    fn report(letter: char) -> ServiceState {
        let (state, flapping) = match letter {
            'W' => (State::Warning, false),
            'C' => (State::Critical, false),
            'U' => (State::Unknown, false),
            'f' => (State::Ok, true),
            'F' => (State::Critical, true),
            _ => (State::Ok, false),
        };
        ServiceState {
            service: "disk".into(),
            state,
            since: Timestamp::UNIX_EPOCH,
            flapping,
            summary: letter.to_string(),
            detail: String::new(),
            perfdata: String::new(),
            labels: Labels::new(),
            annotations: Labels::new(),
        }
    }

    fn moves(reports: &str) -> String {
        let key = AlertKey::new("a", "disk");
        let mut table = AlertTable::new(hash_key());
        let letter =
            |report_letter| match table.apply(&key, "web1", report(report_letter), Timestamp::UNIX_EPOCH) {
                Move::Fired => '!',
                Move::Worsened => '^',
                Move::Eased => 'v',
                Move::Resolved => 'R',
                Move::Reworded => 'w',
                Move::Unchanged => '-',
            };
        reports.chars().map(letter).collect()
    }

    #[test]
    fn a_report_moves_an_alert_once() {
        let reports = "..WWCCUW..C.ffF.fC.";
        let changed = "--!-^-vvR-!R!-wR!^R";
        assert_eq!(moves(reports), changed);
    }

    #[test]
    fn a_resolved_alert_keeps_the_time_when_its_problem_began() {
        let mut table = AlertTable::new(hash_key());
        let (key, at) = (AlertKey::new("a", "disk"), |second| Timestamp::from_second(second).unwrap());
        for (letter, second, since) in [('C', 100, 100), ('.', 310, 100), ('W', 400, 400)] {
            let report = ServiceState { since: at(second), ..report(letter) };
            table.apply(&key, "web1", report, at(second));
            assert_eq!(table.get(&key).unwrap().since, at(since), "{letter}");
        }
    }

    #[test]
    fn the_digest_is_the_one_that_the_agent_makes() {
        let mut table = AlertTable::new(hash_key());
        let key = |service: &str| AlertKey::new("a", service);
        table.apply(&key("disk"), "web1", report('C'), Timestamp::UNIX_EPOCH);
        table.apply(&key("load"), "web1", report('f'), Timestamp::UNIX_EPOCH);
        table.apply(&key("swap"), "web1", report('W'), Timestamp::UNIX_EPOCH);
        table.apply(&key("swap"), "web1", report('.'), Timestamp::UNIX_EPOCH);
        table.apply(&key("@silent"), "web1", report('C'), Timestamp::UNIX_EPOCH);
        let agents = [("load", State::Ok, true), ("disk", State::Critical, false)];
        assert_eq!(table.digest("a"), dogwatch_wire::digest(agents));
        assert_eq!(table.digest("b"), dogwatch_wire::digest([]));
    }

    #[test]
    fn long_words_are_cut_at_a_character() {
        let cut_text = cut("ä".repeat(1_000), 100);
        assert!(cut_text.len() <= 100 && cut_text.ends_with("ä…"), "{cut_text}");
    }
}
