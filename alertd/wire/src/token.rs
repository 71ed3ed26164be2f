//! API tokens. The token itself is only in the answer to the request that creates it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A token to create.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    pub name: String,
    /// `ingest`, `read`, `ack`, `silence`, `admin`.
    pub scopes: Vec<String>,
    /// Expires after this many seconds.
    #[serde(default)]
    pub expires_s: Option<u64>,
    /// Valid for reports of this host only.
    #[serde(default)]
    pub host: Option<String>,
}

/// An existing token.
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

/// A new token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMade {
    #[serde(flatten)]
    pub token: Token,
    /// To be sent as `Authorization: Bearer …`. It cannot be read again.
    pub secret: String,
}

impl fmt::Debug for TokenMade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenMade").field("token", &self.token).finish_non_exhaustive()
    }
}
