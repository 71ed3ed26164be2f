//! A copy of alertd's store, on its way to somebody.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The header that says what the body is: [`Backup`] as JSON.
pub const BACKUP_HEADER: &str = "dogwatch-backup";

/// Asks for one. Nothing is to be said yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBackup {}

/// What is in one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    pub taken_at: Timestamp,
    /// How long the file is. One that is shorter is none.
    pub bytes: u64,
    /// SHA-256 of the file, as `sha256sum` prints it.
    pub sha256: String,
    pub open_incidents: u64,
    /// With those that are over.
    pub incidents: u64,
    /// That fire, or belong to an open incident.
    pub alerts: u64,
    /// That are not over.
    pub silences: u64,
    /// Where alertd keeps its store: where the file goes to be restored.
    pub store: String,
    /// What is not in it, for people.
    pub warning: Option<String>,
}
