//! What survives a restart. The unit is one commit: everything that was decided together becomes durable together.
//!
//! The core's memory is the truth while the process lives; the store is its journal. So a store that fails stops no alert:
//! [`writer::Writer`] keeps what could not be written and writes it later.

use dogwatch_alertd_core::{Change, Loaded};
use dogwatch_wire::ctl::{HistoryEntry, Incident, NotificationInfo, Recorded, Silence};
use jiff::Timestamp;

use self::backup::{Copy, Stop};

pub mod backup;
mod check;
pub mod sqlite;
pub mod writer;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod memory;

/// Why the store did not do what it was asked, by what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Disk full, I/O error, locked: may pass. Keep the changes and try again.
    #[error("{0}")]
    Unavailable(String),
    /// The file is not one of ours, is damaged, or comes from a newer alertd.
    #[error("{0}")]
    Unusable(String),
}

/// The writing side: one owner, one thread.
pub trait Store: Send + 'static {
    /// Everything that is not over. `now` bounds what the rate limits have to remember.
    fn load(&mut self, now: Timestamp) -> Result<Loaded, StoreError>;

    /// Makes all of it durable, or nothing of it.
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    /// Forgets what is over and older than `before`.
    fn prune(&mut self, before: Timestamp) -> Result<(), StoreError>;
}

/// The reading side, for people's questions about what is over. Any thread; never blocks the writer.
pub trait Archive: Send + Sync + 'static {
    /// All of it, as it was at one moment. Takes as long as it is large.
    fn copy(&self, now: Timestamp, stop: &Stop) -> Result<Copy, StoreError>;

    /// Newest first.
    fn history(&self, since: Option<Timestamp>, limit: u32) -> Result<Vec<HistoryEntry>, StoreError>;

    /// What somebody did, newest first.
    fn audit(&self, since: Option<Timestamp>, limit: u32) -> Result<Vec<HistoryEntry>, StoreError>;

    /// Of one incident, oldest first.
    fn decisions(&self, incident: u64) -> Result<Vec<HistoryEntry>, StoreError>;

    /// Of one incident, oldest first.
    fn notifications(&self, incident: u64) -> Result<Vec<NotificationInfo>, StoreError>;

    /// What happened since then that can be reckoned again, after the entry with that number.
    fn recorded(&self, since: Timestamp, after: u64) -> Result<Recorded, StoreError>;

    /// That ended before `now`, the last first.
    fn ended_silences(&self, now: Timestamp, limit: u32) -> Result<Vec<Silence>, StoreError>;

    /// An incident that is over and told, with its route.
    fn closed_incident(&self, number: u64) -> Result<Option<(Incident, Vec<String>)>, StoreError>;
}
