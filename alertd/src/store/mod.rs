//! The database: everything that survives a restart. Decisions made together are committed
//! together.
//!
//! While the process runs, the core's memory is authoritative and the store is its journal. A
//! failing store therefore stops no alert: [`writer::Writer`] keeps unwritten changes and writes
//! them later.

use dogwatch_alertd_core::{Change, Loaded};
use dogwatch_wire::ctl::{HistoryEntry, Incident, NotificationInfo, Recorded, Silence};
use jiff::Timestamp;

use self::backup::{Copy, Stop};

pub mod backup;
mod check;
mod commits;
mod damage;
pub mod late;
pub mod sqlite;
pub mod writer;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod memory;

/// Store errors, by how to handle them.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Disk full, I/O error or locked: keep the changes and try again.
    #[error("{0}")]
    Unavailable(String),
    /// The file is not alertd's, is damaged, or comes from a newer version.
    #[error("{0}")]
    Unusable(String),
}

fn cannot(path: &std::path::Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

/// The writing side, used by one thread.
pub trait Store: Send + 'static {
    /// Loads everything current. `now` limits which notifications the rate limits have to remember.
    fn load(&mut self, now: Timestamp) -> Result<Loaded, StoreError>;

    /// Makes all changes durable, or none.
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    /// Deletes what ended before `before`.
    fn prune(&mut self, before: Timestamp) -> Result<(), StoreError>;
}

/// The reading side, for queries about the past. Usable from any thread; never blocks the writer.
pub trait Archive: Send + Sync + 'static {
    /// Copies the whole store as of one moment. Takes time in proportion to its size.
    fn copy(&self, now: Timestamp, stop: &Stop) -> Result<Copy, StoreError>;

    /// The history, newest first.
    fn history(&self, since: Option<Timestamp>, limit: u32) -> Result<Vec<HistoryEntry>, StoreError>;

    /// Entries with an author, newest first.
    fn audit(&self, since: Option<Timestamp>, limit: u32) -> Result<Vec<HistoryEntry>, StoreError>;

    /// Those of one incident, oldest first.
    fn decisions(&self, incident: u64) -> Result<Vec<HistoryEntry>, StoreError>;

    /// Those of one incident, oldest first.
    fn notifications(&self, incident: u64) -> Result<Vec<NotificationInfo>, StoreError>;

    /// Entries since `since` that a replay can repeat, after the entry with number `after`.
    fn recorded(&self, since: Timestamp, after: u64) -> Result<Recorded, StoreError>;

    /// Silences that ended before `now`, newest first.
    fn ended_silences(&self, now: Timestamp, limit: u32) -> Result<Vec<Silence>, StoreError>;

    /// A resolved incident, whose recovery was sent, with its route.
    fn closed_incident(&self, number: u64) -> Result<Option<(Incident, Vec<String>)>, StoreError>;
}
