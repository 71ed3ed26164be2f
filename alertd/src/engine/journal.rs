//! The one commit that may be under way, and what waits for it.

use std::{future, pin::Pin};

use dogwatch_alertd_core::{Change, Lease};
use jiff::Timestamp;

use super::input::Answer;
use crate::{clock::Stopwatch, metrics, store::writer::Writer};

/// Answers somebody, told what is wrong with the store, if anything is.
pub(super) type Owed = Box<dyn FnOnce(Option<&str>) + Send>;

/// Answers with a value that is known already, whatever the store does.
pub(super) fn owed<T: Send + 'static>(answer: Answer<T>, value: T) -> Owed {
    Box::new(move |_| drop(answer.send(value)))
}

/// What waits for a commit.
pub(super) struct Waiting {
    /// Of the store, in this commit.
    pub(super) rows: usize,
    /// The outcome of a sending is among them.
    pub(super) settled: bool,
    pub(super) owed: Vec<Owed>,
    pub(super) leases: Vec<Lease>,
    /// They are on the disk; else the store fails, and they are not.
    pub(super) durable: bool,
}

type Commit = Pin<Box<dyn Future<Output = (Writer, bool)> + Send>>;

pub(super) struct Journal {
    /// Lent to the commit that is under way.
    writer: Option<Writer>,
    under_way: Option<(Commit, Stopwatch, Waiting)>,
    /// As the last commit left them.
    trouble: Option<String>,
    behind: usize,
}

impl Journal {
    pub(super) fn new(writer: Writer) -> Self {
        Self { writer: Some(writer), under_way: None, trouble: None, behind: 0 }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }

    /// What is wrong with the store, for people.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Rows that could not be written.
    pub(super) fn behind(&self) -> usize {
        self.behind
    }

    /// Begins a commit. There must be none under way.
    pub(super) fn begin(&mut self, changes: Vec<Change>, held: Waiting) {
        debug_assert!(self.is_idle(), "two commits at once");
        let Some(mut writer) = self.writer.take() else { return };
        let commit = async move {
            let durable = writer.commit(changes).await;
            (writer, durable)
        };
        self.under_way = Some((Box::pin(commit), Stopwatch::start(), held));
    }

    /// What waited for the commit that is under way, once it is through; never, if there is none. May be dropped and asked again.
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

    /// What waits, if anything does.
    pub(super) async fn rest(&mut self) -> Option<Waiting> {
        if self.is_idle() { None } else { Some(self.written().await) }
    }

    /// Forgets what is over and older than `before`, unless a commit is under way.
    pub(super) fn prune(&self, before: Timestamp) {
        if let Some(writer) = &self.writer {
            writer.prune(before);
        }
    }
}
