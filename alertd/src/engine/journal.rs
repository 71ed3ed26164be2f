//! The one commit that may be running, and the answers and notifications that wait for it.

use std::{future, pin::Pin};

use dogwatch_alertd_core::{Change, Lease};
use jiff::Timestamp;

use super::input::Answer;
use crate::{clock::Stopwatch, metrics, store::writer::Writer};

/// Sends an answer; the argument is the store's error, if it has one.
pub(super) type Owed = Box<dyn FnOnce(Option<&str>) + Send>;

/// Makes an answer from a known value that does not depend on the store.
pub(super) fn owed<T: Send + 'static>(answer: Answer<T>, value: T) -> Owed {
    Box::new(move |_| drop(answer.send(value)))
}

/// Everything that waits for a commit.
pub(super) struct Waiting {
    /// Number of rows in the commit.
    pub(super) rows: usize,
    /// The rows contain the outcome of a delivery.
    pub(super) settled: bool,
    pub(super) owed: Vec<Owed>,
    pub(super) leases: Vec<Lease>,
    /// The rows are on disk; false if the commit failed.
    pub(super) durable: bool,
}

type Commit = Pin<Box<dyn Future<Output = (Writer, bool)> + Send>>;

pub(super) struct Journal {
    /// `None` while a commit is running, which owns the writer.
    writer: Option<Writer>,
    under_way: Option<(Commit, Stopwatch, Waiting)>,
    /// The store's error after the last commit.
    trouble: Option<String>,
    behind: usize,
}

impl Journal {
    pub(super) fn new(writer: Writer) -> Self {
        let (trouble, behind) = (writer.trouble().map(str::to_owned), writer.behind());
        Self { writer: Some(writer), under_way: None, trouble, behind }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }

    /// The store's error, for people.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Number of rows that could not be written.
    pub(super) fn behind(&self) -> usize {
        self.behind
    }

    /// Starts a commit. No other may be running.
    pub(super) fn begin(&mut self, changes: Vec<Change>, held: Waiting) {
        debug_assert!(self.is_idle(), "two commits at once");
        let Some(mut writer) = self.writer.take() else { return };
        let commit = async move {
            let durable = writer.commit(changes).await;
            (writer, durable)
        };
        self.under_way = Some((Box::pin(commit), Stopwatch::start(), held));
    }

    /// Waits for the running commit and returns what waited for it; waits forever if none is
    /// running. Cancel-safe.
    pub(super) async fn written(&mut self) -> Waiting {
        let Some((commit, ..)) = &mut self.under_way else { return future::pending().await };
        let (writer, durable) = commit.await;
        self.trouble = writer.trouble().map(str::to_owned);
        self.behind = writer.behind();
        self.writer = Some(writer);
        let Some((_, watch, held)) = self.under_way.take() else { return future::pending().await };
        if held.rows > 0 && durable {
            metrics::commit(held.rows, watch.seconds());
        }
        Waiting { durable, ..held }
    }

    /// The same, but returns `None` if no commit is running.
    pub(super) async fn rest(&mut self) -> Option<Waiting> {
        if self.is_idle() { None } else { Some(self.written().await) }
    }

    /// Deletes finished data older than `before`, unless a commit is running.
    pub(super) fn prune(&self, before: Timestamp) {
        if let Some(writer) = &self.writer {
            writer.prune(before);
        }
    }
}
