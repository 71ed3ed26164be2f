//! A backup of alertd's database.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The response header that describes the body: [`Backup`] as JSON.
pub const BACKUP_HEADER: &str = "dogwatch-backup";

/// Requests a backup; there are no parameters yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBackup {}

/// The content of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    pub taken_at: Timestamp,
    /// Size of the file. A shorter file is incomplete.
    pub bytes: u64,
    /// SHA-256 of the file, as `sha256sum` prints it.
    pub sha256: String,
    pub open_incidents: u64,
    /// Including resolved ones.
    pub incidents: u64,
    /// Firing, or part of an open incident.
    pub alerts: u64,
    /// Current and future ones.
    pub silences: u64,
    /// Path of alertd's database, where the file goes for a restore.
    pub store: String,
    /// What is missing from the backup, for people.
    pub warning: Option<String>,
}
