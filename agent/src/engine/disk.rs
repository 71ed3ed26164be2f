//! The part of the loop that keeps the files on disk up to date.

use std::time::Duration;

use tracing::{error, info};

use super::{Engine, Last};
use crate::{
    metrics,
    moment::{Moment, Now},
    state::{Saved, SavedResult, SavedService},
    store::{Done, Order, Store},
};

/// The state of the exchange with the thread that writes.
pub(super) struct DiskState {
    store: Store,
    /// When the order in progress was sent.
    busy_since: Option<Moment>,
    /// When to write the changes at the latest.
    write_at: Option<Moment>,
    /// After a failure: no new order before this.
    not_before: Moment,
    /// Why the disk fails, while it does.
    problem: Option<String>,
    settled: u64,
    spool_bytes: u64,
}

impl DiskState {
    /// `problem` says why the directory could not be used at the start.
    pub(super) fn new(store: Store, settled: u64, problem: Option<String>, now: Moment) -> Self {
        Self {
            store,
            busy_since: None,
            write_at: problem.is_some().then(|| now + RETRY_AFTER),
            not_before: now,
            problem,
            settled,
            spool_bytes: 0,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy_since.is_some()
    }

    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    pub(super) fn spool_bytes(&self) -> u64 {
        self.spool_bytes
    }

    pub(super) fn next_wakeup(&self) -> Option<Moment> {
        if let Some(since) = self.busy_since {
            // Reported once. From then on, only the answer matters.
            return self.problem.is_none().then_some(since + HANGS_AFTER);
        }
        self.write_at.map(|at| at.max(self.not_before))
    }
}

impl Engine {
    pub(super) fn write_within(&mut self, span: Duration, now: Moment) {
        let at = now + span;
        self.disk.write_at = Some(self.disk.write_at.map_or(at, |before| before.min(at)));
    }

    /// Sends an order if one is due and none is in progress.
    pub(super) fn write(&mut self, now: Now) {
        if let Some(since) = self.disk.busy_since {
            if now.moment >= since + HANGS_AFTER {
                self.disk_fails("the disk does not answer");
            }
            return;
        }
        if self.outbox.settled() != self.disk.settled {
            self.disk.settled = self.outbox.settled();
            self.write_within(ACK_WITHIN, now.moment);
        }
        if self.disk.next_wakeup().is_some_and(|at| at <= now.moment) {
            self.order(now);
        }
    }

    /// The last order before the agent stops.
    pub(super) fn write_now(&mut self) {
        let now = self.clock.now();
        self.order(now);
    }

    fn order(&mut self, now: Now) {
        self.disk.write_at = None;
        let order = Order {
            epoch: self.epoch,
            events: self.outbox.unspooled().cloned().collect(),
            next_seq: self.outbox.next_seq(),
            settled: self.outbox.settled(),
            state: self.snapshot(now),
        };
        match self.disk.store.send(order) {
            Ok(()) => self.disk.busy_since = Some(now.moment),
            Err(error) => self.try_again(&error.to_string(), now),
        }
    }

    pub(super) fn on_disk_done(&mut self, done: Done) {
        let now = self.clock.now();
        self.disk.busy_since = None;
        self.disk.spool_bytes = done.spool_bytes;
        // The epoch may have ended in the meantime; then the numbers mean nothing.
        if done.spooled.is_ok() && done.epoch == self.epoch {
            self.outbox.on_spooled(done.through);
        }
        match done.spooled.and(done.saved) {
            Ok(()) => {
                if let Some(problem) = self.disk.problem.take() {
                    info!(was = problem, "the spool can be written again");
                    self.check_self(now);
                }
                if self.outbox.unspooled().next().is_some() {
                    self.write_within(Duration::ZERO, now.moment);
                }
            }
            Err(error) => self.try_again(&error.to_string(), now),
        }
    }

    fn try_again(&mut self, why: &str, now: Now) {
        self.disk_fails(why);
        self.disk.not_before = now.moment + RETRY_AFTER;
        self.write_within(RETRY_AFTER, now.moment);
    }

    /// Logs the failure once. Until it ends, events are sent from memory.
    fn disk_fails(&mut self, why: &str) {
        self.outbox.on_spool_failed();
        if self.disk.problem.is_none() {
            error!(
                dir = %self.config.agent.state_dir.display(),
                "cannot write the spool: {why}; events are sent from memory and are lost if the agent stops first"
            );
            metrics::on_spool_error();
        }
        let is_new = self.disk.problem.replace(why.to_owned()).is_none();
        if is_new {
            let now = self.clock.now();
            self.check_self(now);
        }
    }

    fn snapshot(&self, now: Now) -> Saved {
        let services = self.services.iter().map(|(name, watched)| {
            let until = watched.freshness.until();
            let fresh_until = until.and_then(|until| now.wall.checked_add(until.since(now.moment)).ok());
            let last = watched.last.as_ref().filter(|_| self.is_submitted(watched));
            let last = last.map(|Last { result, at }| SavedResult {
                state: result.state,
                summary: result.summary.clone(),
                perfdata: result.perfdata_text(),
                at: *at,
            });
            (name.to_string(), SavedService { service: watched.service.clone(), fresh_until, last })
        });
        let pasts = self.running.iter().filter(|(_, running)| running.past.has_facts());
        Saved {
            epoch: self.epoch,
            through: self.outbox.next_seq() - 1,
            services: services.collect(),
            pasts: pasts.map(|(name, running)| (name.to_string(), running.past.facts_only())).collect(),
        }
    }
}

/// A lost acknowledgement costs one repeat.
const ACK_WITHIN: Duration = Duration::from_secs(5);
/// If an order takes longer, events are sent from memory.
const HANGS_AFTER: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_secs(5);
