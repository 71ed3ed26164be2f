//! The writer: one thread that owns the store, and the handling of store failures.
//!
//! While the store cannot be written, the newest change of each row is kept in memory, so the
//! amount is bounded by the core's own data. History entries are bounded too: the oldest are
//! dropped and counted. Every commit tries again with all kept changes. Nothing is reported as
//! durable before it is, but people are still notified of alerts.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::mpsc,
    thread,
    time::Duration,
};

use dogwatch_alertd_core::Change;
use dogwatch_wire::ctl::HistoryEntry;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{Store, StoreError};

/// How long the main loop waits for the disk before it continues without.
pub const COMMIT_PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits if the disk already hangs.
const STUCK_PATIENCE: Duration = Duration::from_millis(20);
/// History entries kept in memory while the store cannot be written.
const HISTORY_PENDING_MAX: usize = 50_000;

/// The changes that could not be written, with the reason.
type Outcome = Result<(), (String, Vec<Change>)>;

enum Job {
    Commit(Vec<Change>, oneshot::Sender<Outcome>),
    Prune(Timestamp),
}

pub struct Writer {
    jobs: mpsc::Sender<Job>,
    /// Changes that are not durable yet.
    pending: Pending,
    /// A commit that the disk has not finished.
    stuck: Option<oneshot::Receiver<Outcome>>,
    trouble: Option<String>,
}

impl Writer {
    pub fn start(mut store: impl Store) -> Self {
        let (jobs, inbox) = mpsc::channel();
        let work = move || {
            for job in inbox {
                match job {
                    Job::Commit(changes, done) => {
                        let outcome = store.commit(&changes);
                        let outcome = outcome.map_err(|error: StoreError| (error.to_string(), changes));
                        let _ = done.send(outcome);
                    }
                    Job::Prune(before) => {
                        if let Err(error) = store.prune(before) {
                            tracing::warn!(%error, "cannot delete old history");
                        }
                    }
                }
            }
        };
        let started = thread::Builder::new().name("store".into()).spawn(work);
        if let Err(error) = started {
            tracing::error!(%error, "cannot start the store thread");
        }
        Self { jobs, pending: Pending::default(), stuck: None, trouble: None }
    }

    /// For a store that could not be opened: `unwritten` is tried until it can.
    #[must_use]
    pub fn failing(mut self, trouble: String, unwritten: Change) -> Self {
        self.pending.add(unwritten);
        self.complain(trouble);
        self
    }

    /// Makes `changes` durable, together with earlier unwritten changes. Returns true if everything
    /// is durable now.
    pub async fn commit(&mut self, changes: Vec<Change>) -> bool {
        let (mut waiting, patience) = match self.stuck.take() {
            Some(stuck) => {
                self.pending.add_all(changes);
                (stuck, STUCK_PATIENCE)
            }
            None if self.pending.is_empty() && changes.is_empty() => return true,
            None if self.pending.is_empty() => (self.send(changes), COMMIT_PATIENCE),
            None => {
                self.pending.add_all(changes);
                (self.send_pending(), COMMIT_PATIENCE)
            }
        };
        loop {
            let Ok(outcome) = tokio::time::timeout(patience, &mut waiting).await else {
                self.complain(format!("the disk has not responded for {COMMIT_PATIENCE:?}"));
                self.stuck = Some(waiting);
                return false;
            };
            match outcome {
                Err(_) => {
                    self.complain("the store thread has ended; restart alertd".into());
                    return false;
                }
                Ok(Err((error, unwritten))) => {
                    self.complain(error);
                    self.pending.add_before(unwritten);
                    return false;
                }
                Ok(Ok(())) if self.pending.is_empty() => {
                    self.recover();
                    return true;
                }
                Ok(Ok(())) => waiting = self.send_pending(),
            }
        }
    }

    /// The current problem with the store, for people.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Number of rows that are not durable.
    pub fn behind(&self) -> usize {
        self.pending.len()
    }

    pub fn prune(&self, before: Timestamp) {
        let _ = self.jobs.send(Job::Prune(before));
    }

    fn send_pending(&mut self) -> oneshot::Receiver<Outcome> {
        let changes = self.pending.take_all();
        self.send(changes)
    }

    fn send(&self, changes: Vec<Change>) -> oneshot::Receiver<Outcome> {
        let (done, outcome) = oneshot::channel();
        // If the thread has ended, the sender is dropped here, and the receiver returns an error.
        let _ = self.jobs.send(Job::Commit(changes, done));
        outcome
    }

    fn complain(&mut self, error: String) {
        if self.trouble.is_none() {
            tracing::error!(%error, "cannot write to the store; alerts continue from memory, but a crash now may repeat or lose some");
        }
        self.trouble = Some(error);
    }

    fn recover(&mut self) {
        if self.trouble.take().is_some() {
            tracing::warn!("the store works again; all changes are written");
        }
    }
}

/// The changes that are not durable: the newest one for each row.
#[derive(Default)]
struct Pending {
    rows: BTreeMap<RowKey, Change>,
    history: VecDeque<HistoryEntry>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum RowKey {
    Counters,
    Agent(String),
    Alert(u64),
    Incident(u64),
    Told(u64, String),
    Silence(u64),
    Override(u64),
    Downtime(u64),
    Token(String),
    Outbox(u64),
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.history.is_empty()
    }

    fn len(&self) -> usize {
        self.rows.len() + self.history.len()
    }

    fn add(&mut self, change: Change) {
        let key = match &change {
            Change::Counters(_) => RowKey::Counters,
            Change::Agent(id, _) | Change::AgentGone(id) => RowKey::Agent(id.clone()),
            Change::Alert(_, alert) => RowKey::Alert(alert.row),
            Change::AlertGone(row) => RowKey::Alert(*row),
            Change::Incident(incident) => RowKey::Incident(incident.number),
            Change::Told { incident, receiver, .. } => RowKey::Told(*incident, receiver.clone()),
            Change::Silence(silence) => RowKey::Silence(silence.number),
            Change::Override(one) => RowKey::Override(one.number),
            Change::Downtime(downtime) => RowKey::Downtime(downtime.number),
            Change::Token(name, _) => RowKey::Token(name.clone()),
            Change::Outbox(row) => RowKey::Outbox(row.seq),
            Change::History(entry) => {
                if self.history.len() >= HISTORY_PENDING_MAX {
                    self.history.pop_front();
                }
                self.history.push_back(entry.clone());
                return;
            }
        };
        self.rows.insert(key, change);
    }

    fn add_all(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.add(change);
        }
    }

    fn take_all(&mut self) -> Vec<Change> {
        let rows = std::mem::take(&mut self.rows).into_values();
        let history = std::mem::take(&mut self.history).into_iter().map(Change::History);
        rows.chain(history).collect()
    }

    /// Adds older changes, for rows without a newer one.
    fn add_before(&mut self, older: Vec<Change>) {
        let newer = self.take_all();
        self.add_all(older);
        self.add_all(newer);
    }
}
