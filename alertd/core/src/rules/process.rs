//! The process that speaks for an agent, and those that it has replaced. [`super::identity`] tells
//! by them which agent a batch comes from. Pure.

use std::collections::VecDeque;

use dogwatch_wire::Batch;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The process that speaks for an agent, and those that did before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub run: String,
    pub boot: String,
    /// When it sent its first and its last batch, by the clock of its host. The store contains the
    /// values of the last write.
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    /// Processes that it replaced, the newest last.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub former: VecDeque<Former>,
    /// Batches that could be late ones of a replaced process.
    #[serde(default)]
    pub late: u8,
}

/// A process that was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    pub run: String,
    /// When it sent its last known batch.
    pub last_at: Timestamp,
}

/// The sender of a batch, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source<'a> {
    pub host: &'a str,
    pub epoch: &'a str,
    pub run: &'a str,
    pub boot: &'a str,
    pub sent_at: Timestamp,
}

impl Process {
    pub fn new(sender: &Source<'_>) -> Self {
        Self {
            run: sender.run.to_owned(),
            boot: sender.boot.to_owned(),
            first_at: sender.sent_at,
            last_at: sender.sent_at,
            former: VecDeque::new(),
            late: 0,
        }
    }

    /// The agent has a new process.
    pub fn replace(&mut self, sender: &Source<'_>) {
        let former = Former { run: std::mem::take(&mut self.run), last_at: self.last_at };
        let mut all = std::mem::take(&mut self.former);
        all.retain(|one| one.run != sender.run);
        all.push_back(former);
        while all.len() > FORMER_MAX {
            all.pop_front();
        }
        *self = Self { former: all, ..Self::new(sender) };
    }

    /// Records a batch that does not prove that its sender still runs.
    pub fn note_late(&mut self, sender: &Source<'_>) {
        let known = self.former.iter_mut().find(|one| one.run == sender.run);
        let newer = known.is_none_or(|one| {
            let newer = sender.sent_at > one.last_at;
            one.last_at = one.last_at.max(sender.sent_at);
            newer
        });
        self.late = self.late.saturating_add(u8::from(newer));
    }

    /// Whether a batch proves that its sender runs besides this process.
    pub fn is_outlived_by(&self, sender: &Source<'_>, last_at: Option<Timestamp>) -> bool {
        sender.sent_at >= self.first_at
            || (self.late >= LATE_MAX && last_at.is_none_or(|last_at| sender.sent_at > last_at))
    }

    /// Whether the sender is this process.
    pub fn is(&self, sender: &Source<'_>, epoch: &str) -> bool {
        // Agents from before there were processes are known by their epoch.
        let run = if self.run.is_empty() { epoch } else { &self.run };
        run == sender.run
    }
}

impl<'a> Source<'a> {
    pub fn of(batch: &'a Batch) -> Self {
        Self {
            host: &batch.host,
            epoch: &batch.epoch,
            run: if batch.run.is_empty() { &batch.epoch } else { &batch.run },
            boot: &batch.boot,
            sent_at: batch.sent_at,
        }
    }
}

/// More processes than a crashing agent starts in the time in which a batch can be late.
pub(super) const FORMER_MAX: usize = 16;
/// A process has one batch on its way, and a proxy may keep some more.
const LATE_MAX: u8 = 2;
