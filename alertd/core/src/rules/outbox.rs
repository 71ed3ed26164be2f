//! The outbox: all pending notifications, and the order in which they are sent.
//!
//! ```text
//!   queued ──poll──▶ leased ──accepted──▶ accepted
//!     │ ▲              │ └───rejected, too old──▶ failed
//!     │ └────retry─────┘
//!     ├─superseded by a newer notification, if never tried
//!     └─above a rate limit (`budgets.rs`): digested into one that replaces it
//! ```
//!
//! Promises:
//!
//! - The notifications of one incident to one receiver (a *lane*) are sent in order, one at a time.
//! - A notification that was tried once is retried under the same id until it is settled, because
//!   the receiver may have accepted it although no response arrived. One that was never tried may
//!   be replaced.
//! - Rate limits delay notifications and combine them into digests, but drop nothing. The first
//!   ones are sent immediately; when the limit allows it again, one digest replaces all that
//!   waited.
//! - Urgent notifications (CRITICAL) have a reserve in every limit and never wait behind others.
//!   The receiver that has waited longest is first, so that receivers share a common limit fairly.
//! - A restart makes leased rows queued again.
//!
//! Not here: what to send (`review.rs`), what a result means for the incident (`delivery.rs`),
//! and the sending itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::{
    alert::{AlertKey, Claim},
    budgets::{Budgets, Limits, OverBudget, Whose},
    moment::later,
    notification::{Kind, Notification},
    told::{Claims, Says},
};

/// One pending notification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The order of decisions; also the key in the store.
    pub seq: u64,
    pub state: RowState,
    pub attempts: u32,
    /// When it was counted against the rate limits.
    pub first_try_at: Option<Timestamp>,
    pub notification: Notification,
    pub says: Says,
    /// The policy continued, because this notification takes too long.
    #[serde(default)]
    pub escalated: bool,
    /// It must not go into a digest, because the receiver needs it under the key of the incident.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    pub last_error: Option<String>,
    pub provider_id: Option<String>,
    pub settled_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowState {
    Queued {
        not_before: Timestamp,
    },
    Leased {
        until: Timestamp,
    },
    /// Accepted by a service that passes it on: a mail relay, a provider.
    Accepted,
    /// Reached its destination: the mailbox, the channel or the program.
    Delivered,
    Failed,
    Superseded,
    /// Replaced by the digest with this `seq`; settled when that is.
    Digested {
        into: u64,
    },
}

impl RowState {
    /// The receiver accepted it.
    pub fn is_taken(self) -> bool {
        matches!(self, Self::Accepted | Self::Delivered)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Leased { .. } => "leased",
            Self::Accepted => "accepted",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
            Self::Digested { .. } => "digested",
        }
    }
}

impl Row {
    pub fn new(seq: u64, notification: Notification, says: Says) -> Self {
        Self {
            seq,
            state: RowState::Queued { not_before: notification.created_at },
            attempts: 0,
            first_try_at: None,
            notification,
            says,
            escalated: false,
            alone: false,
            last_error: None,
            provider_id: None,
            settled_at: None,
        }
    }

    /// Whether it was never tried.
    pub fn is_untried(&self) -> bool {
        matches!(self.state, RowState::Queued { .. }) && self.attempts == 0
    }

    /// Whether a digest replaces it, or is about to.
    pub fn is_digested(&self) -> bool {
        matches!(self.state, RowState::Digested { .. })
    }

    /// Whether it may use the reserve of the rate limits, because it should wake somebody.
    pub fn is_urgent(&self) -> bool {
        matches!(self.notification.kind, Kind::Problem | Kind::Update | Kind::Reminder)
            && self.says.firing.iter().any(|(_, claim)| *claim == Claim::Critical)
    }

    fn lane(&self) -> Option<Lane> {
        let Notification { incident, receiver, .. } = &self.notification;
        (*incident != 0).then(|| (*incident, receiver.clone()))
    }
}

type Lane = (u64, String);

/// The part of the outbox for one receiver.
#[derive(Default)]
struct Queue {
    /// Notifications that were never tried, in order.
    urgent: Fresh,
    other: Fresh,
    /// Notifications that were tried before; they do not count against rate limits.
    again: BTreeSet<(Timestamp, u64)>,
    in_flight: usize,
}

#[derive(Default)]
struct Fresh {
    rows: BTreeSet<u64>,
    /// Set while a limit is exceeded.
    hold: Option<Hold>,
}

/// Notifications that wait for a rate limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub since: Timestamp,
    pub until: Timestamp,
    pub by: Whose,
}

impl Queue {
    fn fresh(&mut self, urgent: bool) -> &mut Fresh {
        if urgent { &mut self.urgent } else { &mut self.other }
    }

    fn held_since(&self) -> Option<Timestamp> {
        [&self.urgent, &self.other]
            .into_iter()
            .filter_map(|fresh| fresh.hold.as_ref())
            .map(|hold| hold.since)
            .min()
    }
}

/// All pending rows.
#[derive(Default)]
pub struct Outbox {
    rows: BTreeMap<u64, Row>,
    lanes: BTreeMap<Lane, BTreeSet<u64>>,
    queues: BTreeMap<String, Queue>,
    /// The rows that each pending digest replaces.
    digests: BTreeMap<u64, BTreeSet<u64>>,
    /// Receivers that may have something to send, by how long it has waited.
    ready: BTreeSet<(Timestamp, String)>,
    budgets: Budgets,
    wakeups: BTreeSet<(Timestamp, String)>,
}

/// What [`Outbox::poll_send`] has to do for one receiver.
#[derive(Debug, PartialEq, Eq)]
pub enum Send {
    /// A leased row to hand over.
    One(u64),
    /// Rows that exceeded that limit and can be sent now: put them into a digest
    /// ([`Outbox::digest`]).
    Digest(String, Vec<u64>, Whose),
}

impl Outbox {
    /// Applies the limits of a config. What was used stays used.
    pub fn set_limits(&mut self, limits: &Limits) {
        self.budgets.set(limits);
        // A higher limit may allow waiting notifications now.
        for queue in self.queues.values_mut() {
            for hold in [&mut queue.urgent.hold, &mut queue.other.hold].into_iter().flatten() {
                hold.until = Timestamp::MIN;
            }
        }
        let all: Vec<_> = self.queues.keys().cloned().collect();
        for receiver in all {
            self.mark_ready(&receiver);
        }
    }

    /// Counts what was sent before a restart, in ascending order.
    pub fn replay_spending(&mut self, spent: &[(String, Timestamp)]) {
        for (receiver, at) in spent {
            self.budgets.spend(receiver, *at);
        }
    }

    fn mark_ready(&mut self, receiver: &str) {
        let held_since = self.queues.get(receiver).and_then(Queue::held_since).unwrap_or(Timestamp::MAX);
        self.ready.insert((held_since, receiver.to_owned()));
    }

    /// Restores a row from the store. A leased row is due immediately, because it may not have been
    /// sent.
    pub fn restore(&mut self, mut row: Row) {
        if let RowState::Leased { .. } = row.state {
            row.state = RowState::Queued { not_before: row.notification.created_at };
        }
        self.insert(row);
    }

    pub fn insert(&mut self, row: Row) {
        let (seq, receiver) = (row.seq, row.notification.receiver.clone());
        if let Some(lane) = row.lane() {
            self.lanes.entry(lane).or_default().insert(seq);
        }
        match row.state {
            RowState::Queued { .. } => self.enqueue(&row),
            RowState::Digested { into } => {
                self.digests.entry(into).or_default().insert(seq);
            }
            _ => {}
        }
        self.rows.insert(seq, row);
        self.mark_ready(&receiver);
    }

    fn enqueue(&mut self, row: &Row) {
        let RowState::Queued { not_before } = row.state else { return };
        let receiver = &row.notification.receiver;
        let queue = self.queues.entry(receiver.clone()).or_default();
        // A test ignores limits, like a retry.
        if row.attempts == 0 && row.notification.kind != Kind::Test {
            queue.fresh(row.is_urgent()).rows.insert(row.seq);
            self.mark_ready(receiver);
        } else {
            queue.again.insert((not_before, row.seq));
            self.wakeups.insert((not_before, receiver.clone()));
        }
    }

    pub fn get(&self, seq: u64) -> Option<&Row> {
        self.rows.get(&seq)
    }

    /// An alert of this incident has another key. Adds the changed rows to `dirty`.
    pub fn rekey(&mut self, incident: u64, old: &AlertKey, new: &AlertKey, dirty: &mut BTreeSet<u64>) {
        for row in self.rows.values_mut().filter(|row| row.notification.incident == incident) {
            if row.says.rekey(old, new) {
                dirty.insert(row.seq);
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// Rows from this number on.
    pub fn from(&self, seq: u64) -> impl Iterator<Item = &Row> {
        self.rows.range(seq..).map(|(_, row)| row)
    }

    /// Whether a queued row has to wait: for earlier rows, for a rate limit, or for a free slot.
    pub fn has_to_wait(&self, row: &Row, now: Timestamp) -> bool {
        let Some(queue) = self.queues.get(&row.notification.receiver) else { return false };
        let held = self.hold_of(row).is_some_and(|hold| hold.until > now);
        held || queue.in_flight > 0 || !self.is_first_in_lane(row.seq)
    }

    /// Whether it waits for a rate limit.
    pub fn is_held(&self, row: &Row) -> bool {
        self.hold_of(row).is_some()
    }

    fn hold_of(&self, row: &Row) -> Option<&Hold> {
        let queue = self.queues.get(&row.notification.receiver).filter(|_| row.is_untried())?;
        if row.is_urgent() { queue.urgent.hold.as_ref() } else { queue.other.hold.as_ref() }
    }

    /// Pending notifications of an incident to a receiver, in order.
    pub fn lane(&self, incident: u64, receiver: &str) -> impl Iterator<Item = &Row> {
        let lane = self.lanes.get(&(incident, receiver.to_owned()));
        lane.into_iter().flatten().filter_map(|seq| self.rows.get(seq))
    }

    /// Receivers with pending notifications of an incident.
    pub fn receivers_of(&self, incident: u64) -> impl Iterator<Item = &str> {
        let from = (incident, String::new());
        self.lanes
            .range(from..)
            .take_while(move |((number, _), _)| *number == incident)
            .map(|((_, receiver), _)| receiver.as_str())
    }

    /// Adds what the receiver will know when every pending notification in the lane has arrived.
    pub fn add_expected(&self, incident: u64, receiver: &str, knows: &mut Claims) {
        for row in self.lane(incident, receiver) {
            row.says.add_to(knows);
        }
    }

    /// Settles and removes a row; the caller records it.
    pub fn settle(&mut self, seq: u64, state: RowState, now: Timestamp) -> Option<Row> {
        let mut row = self.rows.remove(&seq)?;
        self.unqueue(&row);
        if let Some(lane) = row.lane()
            && let Some(seqs) = self.lanes.get_mut(&lane)
        {
            seqs.remove(&seq);
            if seqs.is_empty() {
                self.lanes.remove(&lane);
            }
        }
        row.state = state;
        row.settled_at = Some(now);
        Some(row)
    }

    fn unqueue(&mut self, row: &Row) {
        let receiver = &row.notification.receiver;
        let Some(queue) = self.queues.get_mut(receiver) else { return };
        match row.state {
            RowState::Queued { not_before } => {
                queue.fresh(row.is_urgent()).rows.remove(&row.seq);
                queue.again.remove(&(not_before, row.seq));
            }
            RowState::Leased { .. } => queue.in_flight = queue.in_flight.saturating_sub(1),
            _ => {}
        }
        self.mark_ready(receiver);
    }

    /// Leases and returns the next thing to send, or `None` if nothing can be sent now. Call until
    /// `None`.
    pub fn poll_send(&mut self, now: Timestamp) -> Option<Send> {
        self.wake(now);
        while let Some(ready) = self.ready.first().cloned() {
            let sent = self.poll_receiver(&ready.1, now);
            self.ready.remove(&ready);
            if sent.is_some() {
                self.mark_ready(&ready.1);
                return sent;
            }
        }
        None
    }

    /// Marks the receivers that are due, whether or not anything can be sent now.
    pub fn wake(&mut self, now: Timestamp) {
        while let Some((at, _)) = self.wakeups.first()
            && *at <= now
        {
            if let Some((_, receiver)) = self.wakeups.pop_first() {
                self.mark_ready(&receiver);
            }
        }
    }

    fn poll_receiver(&mut self, receiver: &str, now: Timestamp) -> Option<Send> {
        let queue = self.queues.get(receiver)?;
        if queue.in_flight >= IN_FLIGHT_MAX {
            return None;
        }
        let mut due = queue.again.iter().take_while(|(at, _)| *at <= now).map(|&(_, seq)| seq);
        if let Some(seq) = due.find(|&seq| self.is_first_in_lane(seq)) {
            self.lease(seq, now);
            return Some(Send::One(seq));
        }
        self.poll_fresh(receiver, true, now).or_else(|| self.poll_fresh(receiver, false, now))
    }

    fn poll_fresh(&mut self, receiver: &str, urgent: bool, now: Timestamp) -> Option<Send> {
        let fresh = self.queues.get_mut(receiver)?.fresh(urgent);
        if fresh.rows.is_empty() {
            fresh.hold = None;
        }
        let hold = fresh.hold.clone();
        if hold.as_ref().is_some_and(|hold| hold.until > now) {
            return None;
        }
        let first = self.sendable(receiver, urgent).next()?;
        if let Err(OverBudget { until, by }) = self.budgets.try_spend(receiver, urgent, now) {
            let since = hold.map_or(now, |hold| hold.since);
            self.queues.get_mut(receiver)?.fresh(urgent).hold = Some(Hold { since, until, by });
            self.wakeups.insert((until, receiver.to_owned()));
            return None;
        }
        let Some(hold) = hold else {
            self.lease(first, now);
            return Some(Send::One(first));
        };
        // One digest for everything that waits, urgent notifications first.
        let is_alone = |seq: &u64| self.rows.get(seq).is_some_and(|row| row.alone);
        let waiting = self.sendable(receiver, true).chain(self.sendable(receiver, false));
        let mut rows: Vec<u64> = waiting.filter(|seq| !is_alone(seq)).take(DIGEST_ROWS_MAX).collect();
        if is_alone(&first) {
            rows.clear();
        }
        self.queues.get_mut(receiver)?.fresh(urgent).hold = None;
        if rows.len() > 1 {
            return Some(Send::Digest(receiver.to_owned(), rows, hold.by));
        }
        self.lease(first, now);
        Some(Send::One(first))
    }

    /// Notifications that were never tried and wait only for a rate limit.
    fn sendable(&self, receiver: &str, urgent: bool) -> impl Iterator<Item = u64> {
        let fresh = self.queues.get(receiver).map(|queue| if urgent { &queue.urgent } else { &queue.other });
        let rows = fresh.into_iter().flat_map(|fresh| fresh.rows.iter().copied());
        rows.filter(|&seq| self.is_first_in_lane(seq))
    }

    /// Receivers that wait for a rate limit, the number of notifications, and the limit.
    pub fn holds(&self) -> impl Iterator<Item = (&str, usize, &Hold)> {
        self.queues.iter().filter_map(|(receiver, queue)| {
            let fresh = [&queue.urgent, &queue.other];
            let held = fresh.iter().filter_map(|fresh| Some((fresh.rows.len(), fresh.hold.as_ref()?)));
            let held: Vec<_> = held.filter(|(rows, _)| *rows > 0).collect();
            let longest = held.iter().map(|(_, hold)| *hold).max_by_key(|hold| hold.until)?;
            Some((receiver.as_str(), held.iter().map(|(rows, _)| rows).sum(), longest))
        })
    }

    fn is_first_in_lane(&self, seq: u64) -> bool {
        let lane = self.rows.get(&seq).and_then(Row::lane);
        lane.is_none_or(|lane| self.lanes.get(&lane).and_then(BTreeSet::first) == Some(&seq))
    }

    fn lease(&mut self, seq: u64, now: Timestamp) {
        let Some(row) = self.rows.get_mut(&seq) else { return };
        let RowState::Queued { not_before } = row.state else { return };
        row.state = RowState::Leased { until: later(now, LEASE) };
        if row.attempts == 0 && row.notification.kind != Kind::Test {
            row.first_try_at = Some(now);
        }
        row.attempts += 1;
        let urgent = row.is_urgent();
        if let Some(queue) = self.queues.get_mut(&row.notification.receiver) {
            queue.fresh(urgent).rows.remove(&seq);
            queue.again.remove(&(not_before, seq));
            queue.in_flight += 1;
        }
    }

    /// Replaces rows by a digest and leases it. It was already counted against the limits.
    pub fn digest(&mut self, digest: Row, speaks_for: &[u64], now: Timestamp) {
        let into = digest.seq;
        for &seq in speaks_for {
            if let Some(row) = self.rows.remove(&seq) {
                self.unqueue(&row);
                self.rows.insert(seq, Row { state: RowState::Digested { into }, ..row });
                self.digests.entry(into).or_default().insert(seq);
            }
        }
        self.insert(digest);
        self.lease(into, now);
    }

    /// Removes and returns the list of rows that a digest replaces; they are still pending.
    pub fn take_digested(&mut self, digest: u64) -> BTreeSet<u64> {
        self.digests.remove(&digest).unwrap_or_default()
    }

    /// Queues a leased row again.
    pub fn retry(&mut self, seq: u64, not_before: Timestamp, error: String) {
        let Some(mut row) = self.rows.remove(&seq) else { return };
        self.unqueue(&row);
        row.state = RowState::Queued { not_before };
        row.last_error = Some(error);
        self.enqueue(&row);
        self.rows.insert(seq, row);
    }

    /// Records that the policy of the incident continued without waiting for this row.
    pub fn mark_escalated(&mut self, seq: u64) {
        if let Some(row) = self.rows.get_mut(&seq) {
            row.escalated = true;
        }
    }

    /// When [`Outbox::poll_send`] may next have something new.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.wakeups.first().map(|(at, _)| *at)
    }
}

/// Concurrent notifications per receiver, so that a hanging receiver neither takes all slots nor is
/// overloaded when it is back.
pub const IN_FLIGHT_MAX: usize = 4;
/// The time limit of one attempt, after which its result is unknown.
pub const LEASE: Duration = Duration::from_secs(30);
/// Notifications per digest: as many as one commit can settle quickly.
pub const DIGEST_ROWS_MAX: usize = 5_000;

/// The delay before attempt `attempts + 1`, with full jitter: a random fraction (`random` of
/// `u64::MAX`) of an interval that doubles. Without jitter, notifications that failed together
/// would retry together.
pub fn backoff(attempts: u32, asked: Option<Duration>, random: u64) -> Duration {
    let most = BACKOFF_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(BACKOFF_MAX);
    let most_ms = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    let share = Duration::from_millis(random % (most_ms + 1));
    match asked {
        // The delay that the receiver asks for is a minimum, with jitter and an upper bound.
        Some(asked) => asked.min(ASKED_MAX) + share.min(BACKOFF_FIRST),
        None => share.max(BACKOFF_LEAST),
    }
}

/// No attempt waits longer than this.
pub const WAIT_MAX: Duration = ASKED_MAX.saturating_add(BACKOFF_FIRST);
const BACKOFF_FIRST: Duration = Duration::from_secs(2);
const BACKOFF_LEAST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_mins(2);
const ASKED_MAX: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::rules::ratelimit::Rate;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000_000 + second).unwrap()
    }

    fn row(seq: u64, incident: u64, receiver: &str) -> Row {
        let notification = Notification {
            id: seq.to_string(),
            incident,
            receiver: receiver.into(),
            ..crate::tests::notification(at(0))
        };
        Row::new(seq, notification, Says::default())
    }

    fn critical(seq: u64, incident: u64, receiver: &str) -> Row {
        let key = AlertKey::new("a", "s");
        let says = Says { firing: vec![(key, Claim::Critical)], ..Says::default() };
        Row { says, ..row(seq, incident, receiver) }
    }

    /// A burst of this size, then one per minute, without a reserve.
    fn mail_alone(burst: u32) -> Limits {
        let rate = Rate { burst: NonZeroU32::new(burst).unwrap(), every: Duration::from_mins(1), reserve: 0 };
        Limits { receivers: [("mail".to_owned(), rate)].into(), ..Limits::default() }
    }

    fn drain(outbox: &mut Outbox, now: Timestamp) -> Vec<Send> {
        std::iter::from_fn(|| outbox.poll_send(now)).collect()
    }

    #[test]
    fn one_incidents_notifications_to_one_receiver_are_sent_one_at_a_time_in_order() {
        let mut outbox = Outbox::default();
        for (seq, incident, receiver) in [(1, 7, "mail"), (2, 7, "mail"), (3, 7, "pager"), (4, 8, "mail")] {
            outbox.insert(row(seq, incident, receiver));
        }
        assert_eq!(drain(&mut outbox, at(0)), [Send::One(1), Send::One(4), Send::One(3)]);
        outbox.retry(1, at(10), "busy".into());
        assert_eq!(drain(&mut outbox, at(9)), []);
        assert_eq!(outbox.next_wakeup(), Some(at(10)));
        assert_eq!(drain(&mut outbox, at(10)), [Send::One(1)]);
        outbox.settle(1, RowState::Accepted, at(11)).unwrap();
        assert_eq!(drain(&mut outbox, at(11)), [Send::One(2)]);
    }

    #[test]
    fn a_receiver_that_hangs_gets_a_bounded_share() {
        let mut outbox = Outbox::default();
        (1..=20).for_each(|seq| outbox.insert(row(seq, seq, "mail")));
        outbox.insert(row(21, 1, "pager"));
        assert_eq!(drain(&mut outbox, at(0)).len(), IN_FLIGHT_MAX + 1);
    }

    #[test]
    fn over_the_limit_notifications_are_digested_not_dropped() {
        let mut outbox = Outbox::default();
        outbox.set_limits(&mail_alone(2));
        (1..=9).for_each(|seq| outbox.insert(row(seq, seq, "mail")));
        assert_eq!(drain(&mut outbox, at(0)), [Send::One(1), Send::One(2)]);
        assert_eq!(outbox.next_wakeup(), Some(at(60)));
        let by = Whose::Receiver("mail".into());
        assert_eq!(outbox.poll_send(at(60)), Some(Send::Digest("mail".into(), (3..=9).collect(), by)));
        outbox.digest(row(10, 0, "mail"), &[3, 4, 5, 6, 7, 8, 9], at(60));
        assert_eq!(drain(&mut outbox, at(1_000)), []);
        assert_eq!(outbox.take_digested(10).len(), 7);
    }

    #[test]
    fn urgent_notifications_pass_waiting_ones_and_are_digested_only_when_there_are_too_many() {
        let mut outbox = Outbox::default();
        let mut limits = mail_alone(3);
        limits.receivers.get_mut("mail").unwrap().reserve = 2;
        outbox.set_limits(&limits);
        (1..=4).for_each(|seq| outbox.insert(row(seq, seq, "mail")));
        assert_eq!(drain(&mut outbox, at(0)), [Send::One(1)]);
        outbox.insert(critical(5, 5, "mail"));
        assert_eq!(drain(&mut outbox, at(1)), [Send::One(5)]);
        (6..=8).for_each(|seq| outbox.insert(critical(seq, seq, "mail")));
        assert_eq!(drain(&mut outbox, at(2)), [Send::One(6)]);
        outbox.settle(1, RowState::Accepted, at(3));
        assert_eq!(drain(&mut outbox, at(59)), []);
        let by = Whose::Receiver("mail".into());
        assert_eq!(outbox.poll_send(at(60)), Some(Send::Digest("mail".into(), vec![7, 8, 2, 3, 4], by)));
    }

    #[test]
    fn of_receivers_waiting_for_one_budget_the_longest_waiting_goes_first() {
        let mut outbox = Outbox::default();
        let rate = mail_alone(1).receivers["mail"];
        outbox.set_limits(&Limits { all: Some(rate), ..Limits::default() });
        outbox.insert(row(1, 1, "x"));
        assert_eq!(drain(&mut outbox, at(0)), [Send::One(1)]);
        for (second, receiver) in [(1, "z"), (2, "b"), (3, "a")] {
            let seq = 10 + u64::try_from(second).unwrap();
            outbox.insert(row(seq, seq, receiver));
            assert_eq!(drain(&mut outbox, at(second)), []);
        }
        // Others keep arriving.
        let order: Vec<_> = (1..=4)
            .flat_map(|minute| {
                let seq = 20 + u64::try_from(minute).unwrap();
                outbox.insert(row(seq, seq, "a"));
                drain(&mut outbox, at(60 * minute))
            })
            .collect();
        let Send::Digest(last, rows, _) = &order[2] else { panic!("{order:?}") };
        assert_eq!((&order[..2], last.as_str(), rows.len()), (&[Send::One(11), Send::One(12)][..], "a", 4));
    }

    #[test]
    fn a_notification_waits_for_the_digest_of_the_one_before_it() {
        let mut outbox = Outbox::default();
        outbox.insert(row(1, 7, "mail"));
        outbox.digest(row(2, 0, "mail"), &[1], at(0));
        outbox.insert(row(3, 7, "mail"));
        assert_eq!(drain(&mut outbox, at(0)), []);
        outbox.settle(2, RowState::Accepted, at(1));
        outbox.settle(1, RowState::Digested { into: 2 }, at(1));
        assert_eq!(drain(&mut outbox, at(1)), [Send::One(3)]);
    }

    #[test]
    fn after_a_restart_leased_rows_are_due_and_a_retry_costs_no_budget() {
        let mut outbox = Outbox::default();
        outbox.set_limits(&mail_alone(1));
        outbox.replay_spending(&[("mail".into(), at(0))]);
        outbox.restore(Row { state: RowState::Leased { until: at(30) }, attempts: 1, ..row(1, 7, "mail") });
        outbox.restore(row(2, 8, "mail"));
        assert_eq!(drain(&mut outbox, at(1)), [Send::One(1)]);
        assert_eq!(drain(&mut outbox, at(60)), [Send::One(2)]);
    }

    #[test]
    fn the_backoff_doubles_up_to_a_bound_with_full_jitter() {
        let most = |attempts| backoff(attempts, None, u64::MAX / 2 - u64::MAX / 2 % 120_001);
        assert_eq!(backoff(1, None, 0), BACKOFF_LEAST);
        assert_eq!(backoff(1, None, 2_000), Duration::from_secs(2));
        assert_eq!(backoff(3, None, 8_000), Duration::from_secs(8));
        assert!(most(60) <= BACKOFF_MAX);
        assert_eq!(backoff(1, Some(Duration::from_secs(30)), 0), Duration::from_secs(30));
        assert_eq!(backoff(1, Some(Duration::from_secs(9_999_999)), 0), ASKED_MAX);
    }
}
