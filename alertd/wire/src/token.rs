//! Tokens as people see them. The token itself is in one message only: the answer to its making.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A token to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    pub name: String,
    /// `ingest`, `read`, `ack`, `silence`, `admin`.
    pub scopes: Vec<String>,
    /// Ends by itself after so long.
    #[serde(default)]
    pub expires_s: Option<u64>,
    /// Speaks for this host only.
    #[serde(default)]
    pub host: Option<String>,
}

/// One that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub name: String,
    pub scopes: Vec<String>,
    pub host: Option<String>,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Option<Timestamp>,
    /// To the day.
    pub last_used_at: Option<Timestamp>,
    pub expired: bool,
}

/// A token just made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMade {
    #[serde(flatten)]
    pub token: Token,
    /// What to send as `Authorization: Bearer …`. Nobody can ask for it again.
    pub secret: String,
}

impl fmt::Debug for TokenMade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenMade").field("token", &self.token).finish_non_exhaustive()
    }
}
