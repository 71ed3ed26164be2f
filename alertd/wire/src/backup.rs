//! A backup of alertd's store.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The header that describes the body: [`Backup`] as JSON.
pub const BACKUP_HEADER: &str = "dogwatch-backup";

/// Asks for a backup. Has no options yet.
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
    /// Including closed ones.
    pub incidents: u64,
    /// Firing, or part of an open incident.
    pub alerts: u64,
    /// Not over yet.
    pub silences: u64,
    /// Path of alertd's store. To restore, put the file there.
    pub store: String,
    /// What the backup does not contain, for people.
    pub warning: Option<String>,
}
