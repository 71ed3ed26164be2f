//! Tokens, as the API shows them. Only the response to the creation of a token contains its secret.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Creates a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    pub name: String,
    /// `ingest`, `read`, `ack`, `silence`, `admin`.
    pub scopes: Vec<String>,
    /// The token expires after this many seconds.
    #[serde(default)]
    pub expires_s: Option<u64>,
    /// The only host that the token may report for.
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
    /// The day of the last use.
    pub last_used_at: Option<Timestamp>,
    pub expired: bool,
}

/// A token that was just created.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMade {
    #[serde(flatten)]
    pub token: Token,
    /// The secret to send as `Authorization: Bearer …`. It is shown only once.
    pub secret: String,
}

impl fmt::Debug for TokenMade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenMade").field("token", &self.token).finish_non_exhaustive()
    }
}
