//! Who sent an alert or a batch.

use serde::{Deserialize, Serialize};

/// A sender, as the shell verified it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sender {
    /// `token:NAME`, or a login name on the unix socket.
    pub name: String,
    /// The only host that it may report for; `None`: any host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}
