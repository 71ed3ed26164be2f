//! The loop that owns the core.
//!
//! ```text
//!  inputs ─▶ core ─▶ settle ─▶ lease ─▶ ONE COMMIT ─▶ answers ─▶ delivery tasks ─▶ outcomes ─▶ (inputs)
//!             decided ┘                 committed ┘      leased ┘  sent ┘          recorded: next commit
//! ```
//!
//! At most one commit runs at a time (`journal.rs`). Meanwhile the loop continues; everything it
//! decides goes into the next commit, so that many inputs share the latency of one write. Answers
//! and notifications are sent only after the commit that contains them. The exception: while
//! writing to the store fails, notifications are sent anyway, and agents get a 503 so that they
//! keep their events.

mod access;
mod input;
mod journal;
pub mod keyring;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use dogwatch_alertd_core::{
    BadBatch, Change, Core, LOOK_AHEAD, Lease, Refused, Taken, notification_info,
    rules::{
        external::Posted,
        health::{Outside, Process, health},
        moment::{between, later},
        notification::{Accepted, DeliveryError, Notification},
        outbox::LEASE,
        sender::Sender,
    },
};
use dogwatch_daemon::systemd;
use dogwatch_wire::{Batch, BatchReply, ctl};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    clock::{Clock, Stopwatch},
    crash, metrics,
    store::writer::Writer,
};

pub use input::{Access, BatchError, Input, Order, PostError};

use input::Answer;
use journal::{Journal, Owed, Waiting, owed};
use keyring::Keyring;

/// Tries once to deliver a notification. Implemented by [`crate::notify::Receivers`].
pub trait Deliver: Send + Sync + 'static {
    fn deliver(
        &self,
        receiver: &str,
        notification: &Notification,
        deadline: Duration,
    ) -> impl Future<Output = Result<Accepted, DeliveryError>> + Send;
}

/// Inputs that may be queued for the loop; beyond that, callers wait for room.
pub const INPUTS_MAX: usize = 1_024;
/// Inputs that share one commit; more wait in the queue.
const OWED_MAX: usize = 256;
/// Notifications sent at the same time, over all receivers.
const IN_FLIGHT_MAX: usize = 64;
/// Deadline for one attempt; the lease is a little longer.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(LEASE.as_secs() - 5);
/// The loop runs at least this often: for the watchdog, the gauges, and to retry a failed commit.
const BEAT: Duration = Duration::from_secs(2);
/// Longest period of an on-call query.
const ON_CALL_MAX: Duration = Duration::from_hours(35 * 24);
/// Counting all firing alerts can be slow, so the gauges are updated at most this often.
const GAUGES_INTERVAL: Duration = Duration::from_secs(1);
const PRUNE_INTERVAL: Duration = Duration::from_hours(6);
/// How long the delay of a late timer is reported.
const LAG_MEMORY: Duration = Duration::from_mins(5);
/// How long to wait for running deliveries when alertd stops.
const DRAIN: Duration = Duration::from_secs(5);

pub struct Engine<D> {
    core: Core,
    journal: Journal,
    /// Answers to send after the next commit.
    owed: Vec<Owed>,
    keyring: Arc<Keyring>,
    receivers: Arc<D>,
    clock: Clock,
    deliveries: JoinSet<(Result<Accepted, DeliveryError>, f64)>,
    leased: HashMap<tokio::task::Id, (u64, String)>,
    testers: HashMap<u64, Answer<Result<ctl::NotificationInfo, Refused>>>,
    /// Messages to show in the status, such as a failed reload or damage found in the store.
    notices: Vec<String>,
    /// What was damaged in the store.
    damage: Vec<String>,
    keep_history: Duration,
    next_prune: Timestamp,
    next_gauges: Timestamp,
    outside: Option<watch::Receiver<Outside>>,
    /// The largest delay of a timer in the last minutes, and when it was.
    lag: (Duration, Timestamp),
    store_fails_since: Option<Timestamp>,
}

impl<D: Deliver> Engine<D> {
    pub fn new(
        core: Core,
        writer: Writer,
        keyring: Arc<Keyring>,
        receivers: D,
        mut clock: Clock,
        keep_history: Duration,
        notice: Option<String>,
    ) -> Self {
        let (next_prune, _) = clock.now();
        let journal = Journal::new(writer);
        let store_fails_since = journal.trouble().map(|_| next_prune);
        Self {
            core,
            journal,
            owed: Vec::new(),
            keyring,
            receivers: Arc::new(receivers),
            clock,
            deliveries: JoinSet::new(),
            leased: HashMap::new(),
            testers: HashMap::new(),
            notices: Vec::new(),
            damage: notice.into_iter().collect(),
            keep_history,
            next_prune,
            next_gauges: next_prune,
            outside: None,
            lag: (Duration::ZERO, next_prune),
            store_fails_since,
        }
    }

    /// Shows a message in the status from the start.
    #[must_use]
    pub fn noting(mut self, words: Option<String>) -> Self {
        self.notices.extend(words);
        self
    }

    /// Adds the observations from outside the loop.
    #[must_use]
    pub fn watching(self, outside: watch::Receiver<Outside>) -> Self {
        Self { outside: Some(outside), ..self }
    }

    /// Runs until [`Order::Stop`], or until the clock was set back.
    pub async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut orders: mpsc::Receiver<Order<D>>,
    ) -> Ended {
        let ended = loop {
            let now = self.now();
            if let Some(ahead) = self.clock.is_ahead() {
                tracing::warn!(
                    "the clock was set back by {}s; starting again with its time",
                    ahead.as_secs()
                );
                break Ended::ClockSetBack;
            }
            let due = self.core.next_wakeup();
            let pause = due.map_or(BEAT, |at| between(now, at)).min(BEAT);
            let mut taken = Vec::new();
            let mut pressing = false;
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Stop) | None => {
                        systemd::stopping();
                        break Ended::Stopped;
                    }
                    Some(order) => self.obey(order),
                },
                held = self.journal.written() => self.release(held),
                Some(input) = inputs.recv(), if self.owed.len() < OWED_MAX => taken.push(input),
                Some(done) = self.deliveries.join_next_with_id() => self.on_delivered(done),
                () = tokio::time::sleep(pause) => pressing = true,
            }
            while self.owed.len() + taken.len() < OWED_MAX
                && let Ok(input) = inputs.try_recv()
            {
                taken.push(input);
            }
            while let Some(done) = self.deliveries.try_join_next_with_id() {
                self.on_delivered(done);
            }
            self.turn(taken, pressing);
            let after = self.now();
            if let Some(at) = due.filter(|at| *at <= after) {
                self.note_lag(between(at, after), after);
            }
        };
        self.finish(inputs).await;
        ended
    }

    fn note_lag(&mut self, lag: Duration, now: Timestamp) {
        metrics::timer_lag(lag.as_secs_f64());
        let (worst, at) = self.lag;
        if lag >= worst || between(at, now) >= LAG_MEMORY {
            self.lag = (lag, now);
        }
    }

    fn health(&mut self, now: Timestamp) -> ctl::Health {
        let Outside { disk, ping } =
            self.outside.as_ref().map(|outside| outside.borrow().clone()).unwrap_or_default();
        let store = self.journal.trouble().zip(self.store_fails_since);
        let (lag, at) = self.lag;
        let process = Process {
            store: store.map(|(trouble, since)| (trouble.to_owned(), since)),
            behind: self.journal.behind(),
            lag: if between(at, now) < LAG_MEMORY { lag } else { Duration::ZERO },
            notices: self.notices.clone(),
            damage: self.damage.clone(),
            disk,
            ping,
        };
        health(&self.core.vitals(now), &process, env!("CARGO_PKG_VERSION"), now)
    }

    /// Handles inputs, and starts a commit unless one is running. With `pressing`, a failed commit
    /// is retried even if nothing waits for it.
    fn turn(&mut self, taken: Vec<Input>, pressing: bool) {
        let now = self.now();
        for input in taken {
            let owed = self.on_input(input, now);
            self.owed.extend(owed);
        }
        self.core.settle(now);
        if self.journal.is_idle() {
            self.prune(now);
            let free = IN_FLIGHT_MAX.saturating_sub(self.deliveries.len());
            let leases = self.core.poll_send(free, now);
            self.commit(leases, pressing);
        }
        if now >= self.next_gauges || later(now, GAUGES_INTERVAL) < self.next_gauges {
            self.next_gauges = later(now, GAUGES_INTERVAL);
            metrics::state(self.core.sizes(now), &self.core.outbox_status());
            metrics::findings(self.core.findings());
        }
        systemd::alive();
    }

    fn prune(&mut self, now: Timestamp) {
        if now >= self.next_prune && self.journal.trouble().is_none() {
            self.next_prune = later(now, PRUNE_INTERVAL);
            self.journal.prune(now.saturating_sub(self.keep_history).unwrap_or(Timestamp::MIN));
        }
    }

    /// Starts to commit the decisions. Must not be called while a commit is running.
    fn commit(&mut self, leases: Vec<Lease>, pressing: bool) {
        let changes = self.core.take_changes();
        let settled = self.look_at(&changes);
        let rows = changes.len();
        let held = Waiting { rows, settled, owed: std::mem::take(&mut self.owed), leases, durable: true };
        let tries_again = self.journal.behind() > 0 && (pressing || !held.owed.is_empty());
        if rows == 0 && !tries_again {
            return self.release(held);
        }
        if rows > 0 {
            crash::point("decided");
        }
        self.journal.begin(changes, held);
    }

    /// Sends the answers and notifications that waited for a commit.
    fn release(&mut self, held: Waiting) {
        if held.rows > 0 && held.durable {
            crash::point("committed");
            if held.settled {
                crash::point("recorded");
            }
        }
        let now = self.now();
        let trouble = self.journal.trouble();
        self.store_fails_since = trouble.and(self.store_fails_since.or(Some(now)));
        metrics::store(trouble.is_none(), self.journal.behind());
        held.owed.into_iter().for_each(|answer| answer(trouble));
        for lease in held.leases {
            self.dispatch(lease);
        }
    }

    /// Logs and counts each decision, and answers callers who wait for a test notification. Returns
    /// true if the changes contain the outcome of a delivery.
    fn look_at(&mut self, changes: &[Change]) -> bool {
        let mut settled = false;
        for change in changes {
            match change {
                Change::History(entry) => {
                    metrics::decision(entry);
                    let (kind, reason, text) = (&entry.kind, &entry.reason, &entry.text);
                    match entry.kind.as_str() {
                        "failed" => tracing::error!(incident = entry.incident, reason, "{kind}: {text}"),
                        "retrying" => tracing::warn!(incident = entry.incident, reason, "{kind}: {text}"),
                        _ => tracing::info!(
                            incident = entry.incident,
                            reason,
                            by = entry.author,
                            from = entry.from,
                            "{kind}: {text}"
                        ),
                    }
                }
                // A revoked token stops working now, even if the commit fails.
                Change::Token(name, token) => self.keyring.put(token.as_deref(), name),
                Change::Outbox(row) if row.settled_at.is_some() => {
                    settled = true;
                    if let Some(tester) = self.testers.remove(&row.seq) {
                        let _ = tester.send(Ok(notification_info(row)));
                    }
                }
                _ => {}
            }
        }
        settled
    }

    fn on_batch(
        &mut self,
        batch: &Batch,
        sender: &Sender,
        answer: Answer<Result<BatchReply, BatchError>>,
        now: Timestamp,
    ) -> Owed {
        let outcome = self.core.on_batch(batch, sender, now);
        Box::new(move |trouble| {
            let outcome = match (outcome, trouble) {
                (Err(bad), _) => Err(bad.into()),
                (Ok(_), Some(trouble)) => Err(BatchError::NotDurable(trouble.into())),
                (Ok(reply), None) => Ok(reply),
            };
            metrics::batch(match &outcome {
                Ok(_) => "taken",
                Err(BatchError::Bad(BadBatch::OverQuota(_))) => "over_quota",
                Err(BatchError::Bad(_)) => "bad",
                Err(BatchError::NotDurable(_)) => "not_durable",
            });
            let _ = answer.send(outcome);
        })
    }

    fn on_posted(
        &mut self,
        posted: Vec<Posted>,
        sender: &Sender,
        answer: Answer<Result<Vec<u64>, PostError>>,
        now: Timestamp,
    ) -> Owed {
        let Taken { incidents, problems, over } = self.core.on_posted(posted, sender, now);
        Box::new(move |trouble| {
            let outcome = match trouble {
                Some(trouble) => Err(PostError::NotDurable(trouble.into())),
                None if over.is_some() => Err(PostError::OverQuota(over.unwrap_or_default())),
                None if problems.is_empty() => Ok(incidents.into_iter().collect()),
                None => Err(PostError::Bad(problems)),
            };
            metrics::batch(match &outcome {
                Ok(_) => "taken",
                Err(PostError::Bad(_)) => "bad",
                Err(PostError::OverQuota(_)) => "over_quota",
                Err(PostError::NotDurable(_)) => "not_durable",
            });
            let _ = answer.send(outcome);
        })
    }

    fn on_input(&mut self, input: Input, now: Timestamp) -> Option<Owed> {
        match input {
            Input::Batch(batch, sender, answer) => Some(self.on_batch(&batch, &sender, answer, now)),
            Input::Ack(number, ask, author, answer) => {
                Some(owed(answer, self.core.on_ack(number, &ask, &author, now)))
            }
            Input::Unack(number, ask, author, answer) => {
                Some(owed(answer, self.core.on_unack(number, &ask, &author, now)))
            }
            Input::Silence(ask, author, answer) => {
                Some(owed(answer, self.core.on_silence(&ask, &author, now)))
            }
            Input::ExtendSilence(number, ask, author, answer) => {
                Some(owed(answer, self.core.on_silence_extend(number, &ask, &author, now)))
            }
            Input::Downtime(ask, author, answer) => {
                Some(owed(answer, self.core.on_downtime(&ask, &author, now)))
            }
            Input::CancelDowntime(number, author, answer) => {
                Some(owed(answer, self.core.on_downtime_cancel(number, &author, now)))
            }
            Input::Downtimes(answer) => tell(answer, self.core.downtimes(now)),
            Input::EndSilence(number, author, answer) => {
                Some(owed(answer, self.core.on_silence_end(number, &author, now)))
            }
            Input::Override(ask, author, answer) => {
                Some(owed(answer, self.core.on_override(&ask, &author, now)))
            }
            Input::EndOverride(number, author, answer) => {
                Some(owed(answer, self.core.on_override_end(number, &author, now)))
            }
            Input::From(origin, input) => {
                self.core.come_from(Some(origin));
                let owed = self.on_input(*input, now);
                self.core.come_from(None);
                owed
            }
            Input::Holding(held, input) => {
                let owed = self.on_input(*input, now);
                drop(held);
                owed
            }
            Input::Access(input) => self.on_access(input, now),
            Input::Route(ask, answer) => {
                tell(answer, ask.alerts.iter().map(|alert| self.core.routed(alert, now)).collect())
            }
            Input::Overrides(answer) => tell(answer, self.core.overrides(now)),
            Input::OnCall(at, until, answer) => {
                let at = at.unwrap_or(now);
                let until = until.unwrap_or_else(|| later(at, LOOK_AHEAD)).min(later(at, ON_CALL_MAX));
                tell(answer, self.core.on_call(at, until))
            }
            Input::Test(receiver, author, answer) => match self.core.on_test(&receiver, &author, now) {
                Ok(seq) => {
                    self.testers.insert(seq, answer);
                    None
                }
                Err(refused) => Some(owed(answer, Err(refused))),
            },
            Input::Status(answer) => {
                tell(answer, self.core.status(env!("CARGO_PKG_VERSION"), self.warnings(), now))
            }
            Input::Health(answer) => tell(answer, self.health(now)),
            Input::Posted(posted, sender, answer) => Some(self.on_posted(posted, &sender, answer, now)),
            Input::Alerts(matchers, after, answer) => {
                tell(answer, self.core.alerts_v2(&matchers, after.as_ref(), now))
            }
            Input::Receivers(answer) => tell(answer, self.core.receiver_names()),
            // For an incident that is not open the caller reads the store next; what closed it must
            // be there by then.
            Input::Incident(number, answer) => {
                let open = self.core.incident(number, now);
                if open.is_some() { tell(answer, open) } else { Some(owed(answer, open)) }
            }
            Input::Link(number, nonce, Some(author), answer) => {
                Some(owed(answer, self.core.on_ack_by_link(number, &nonce, &author, now)))
            }
            Input::Link(number, nonce, None, answer) => tell(answer, self.core.link(number, &nonce, now)),
            Input::ToldOpen(receiver, answer) => tell(answer, self.core.told_open(&receiver, now)),
            Input::Silences(answer) => tell(answer, self.core.silences(now)),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let store = self.journal.trouble().map(|trouble| {
            format!(
                "cannot write to the store ({trouble}); {} rows exist only in memory",
                self.journal.behind()
            )
        });
        store.into_iter().chain(self.damage.iter().chain(&self.notices).cloned()).collect()
    }

    fn dispatch(&mut self, lease: Lease) {
        let receivers = Arc::clone(&self.receivers);
        let (seq, receiver) = (lease.seq, lease.notification.receiver.clone());
        let task = self.deliveries.spawn(async move {
            crash::point("leased");
            let watch = Stopwatch::start();
            let notification = &lease.notification;
            let attempt = receivers.deliver(&notification.receiver, notification, ATTEMPT_DEADLINE);
            let outcome = tokio::time::timeout(LEASE, attempt).await.unwrap_or_else(|_| {
                Err(DeliveryError::Retry { after: None, reason: format!("no answer within {LEASE:?}") })
            });
            crash::point("sent");
            (outcome, watch.seconds())
        });
        self.leased.insert(task.id(), (seq, receiver));
    }

    fn on_delivered(&mut self, done: Result<Delivered, tokio::task::JoinError>) {
        let id = match &done {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some((seq, receiver)) = self.leased.remove(&id) else { return };
        let (outcome, seconds) = match done {
            Ok((_, (outcome, seconds))) => (outcome, seconds),
            // If a receiver panics, the notification must not be lost.
            Err(error) => (Err(DeliveryError::Retry { after: None, reason: error.to_string() }), 0.0),
        };
        metrics::attempt(&receiver, outcome_name(&outcome), seconds);
        let now = self.now();
        self.core.on_delivery(seq, outcome, fastrand::u64(..), now);
    }

    fn obey(&mut self, order: Order<D>) {
        let now = self.now();
        self.notices.retain(|notice| !notice.starts_with(RELOAD_FAILED));
        match order {
            Order::Reload(rules, receivers, unused) => {
                self.core.on_reload(*rules);
                self.receivers = Arc::new(receivers);
                metrics::reload(unused.is_none());
                match unused {
                    None => self.core.on_reloaded("the new config is in effect", now),
                    Some(words) => {
                        tracing::error!("{RELOAD_FAILED} in part: {words}");
                        self.core.on_reloaded(&format!("{RELOAD_FAILED} in part: {words}"), now);
                        self.notices.push(format!("{RELOAD_FAILED} in part: {words}"));
                    }
                }
            }
            Order::Notice(words) => {
                tracing::error!("{words}");
                self.damage.push(words);
            }
            Order::ReloadFailed(problems) => {
                metrics::reload(false);
                tracing::error!("{RELOAD_FAILED}; the running config is unchanged:\n{problems}");
                self.core.on_reloaded("reload failed; the running config is unchanged", now);
                self.notices.push(format!("{RELOAD_FAILED}; the running config is unchanged: {problems}"));
            }
            Order::Stop => {}
        }
    }

    /// Handles the queued inputs and waits a short time for running deliveries. The others are in
    /// the store and are sent after the next start.
    async fn finish(mut self, mut inputs: mpsc::Receiver<Input>) {
        inputs.close();
        let mut rest = Vec::new();
        while let Ok(input) = inputs.try_recv() {
            rest.push(input);
        }
        self.rest().await;
        let now = self.now();
        for input in rest {
            let owed = self.on_input(input, now);
            self.owed.extend(owed);
        }
        self.last_commit(now).await;
        let drained = tokio::time::timeout(DRAIN, async {
            while let Some(done) = self.deliveries.join_next_with_id().await {
                self.on_delivered(done);
            }
        });
        if drained.await.is_err() {
            tracing::warn!(
                "some notifications are still being sent; they will be sent again after the next start, \
                 with the same ids"
            );
        }
        let now = self.now();
        self.last_commit(now).await;
        tracing::info!("stopped");
        // The process ends here. Freeing a hundred thousand alerts one by one would delay it by
        // seconds.
        std::mem::forget(self.core);
    }

    /// Waits for the running commit, if there is one.
    async fn rest(&mut self) {
        if let Some(held) = self.journal.rest().await {
            self.release(held);
        }
    }

    async fn last_commit(&mut self, now: Timestamp) {
        self.core.settle(now);
        self.commit(Vec::new(), true);
        self.rest().await;
    }

    fn now(&mut self) -> Timestamp {
        let (now, leapt) = self.clock.now();
        if let Some(leap) = leapt {
            tracing::warn!(
                "alertd did not run for {}s, or the clock was set ahead; heartbeat deadlines are extended by as much",
                leap.as_secs()
            );
            if leap >= LEAP_WITHOUT_PRUNE {
                // If the new time is wrong, the history must outlive it.
                self.next_prune = later(now, LEAP_WITHOUT_PRUNE);
            }
            self.core.on_leap(leap);
        }
        now
    }
}

/// Answers a query immediately, because it changed nothing. The caller may be gone.
fn tell<T>(answer: Answer<T>, value: T) -> Option<Owed> {
    drop(answer.send(value));
    None
}

/// Why the engine has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Stopped,
    /// The process should start again: timers have run ahead of the clock.
    ClockSetBack,
}

/// After a jump of the clock by this much, nothing is pruned for as long.
const LEAP_WITHOUT_PRUNE: Duration = Duration::from_hours(24);

type Delivered = (tokio::task::Id, (Result<Accepted, DeliveryError>, f64));

const RELOAD_FAILED: &str = "reload failed";

fn outcome_name(outcome: &Result<Accepted, DeliveryError>) -> &'static str {
    match outcome {
        Ok(_) => "accepted",
        Err(DeliveryError::Retry { .. }) => "retry",
        Err(DeliveryError::Rejected { .. }) => "rejected",
    }
}
