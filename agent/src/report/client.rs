//! Sends a batch to an alertd and returns the answer.

use dogwatch_daemon::http_client::{CallError, Client, Remote};
use dogwatch_wire::{Batch, BatchReply};

use super::outbox::Failure;
use crate::config::Alertd;

/// The alertds that this host reports to, in the order in which they are tried.
#[derive(Debug, Clone)]
pub struct Alertds {
    clients: Vec<Client>,
}

/// Why no alertd accepted the batch.
#[derive(Debug)]
pub struct NotTaken {
    pub failure: Failure,
    /// For the log: the message of the last one.
    pub reason: String,
}

impl Alertds {
    pub fn new(config: &Alertd) -> Self {
        let local = config.sockets.iter().map(|path| Client::new(path, config.timeout));
        let remote = config.remote.as_ref().and_then(|it| {
            // The config has been validated with the same values.
            let remote = Remote::new(&it.url, it.token_file.clone(), it.ca_file.clone()).ok()?;
            Some(Client::remote(remote, config.timeout))
        });
        Self { clients: local.chain(remote).collect() }
    }

    /// Sends to the first alertd that answers. If it refuses the batch, the next one is not tried:
    /// both may share the same store and the same load.
    pub async fn send(&self, batch: &Batch) -> Result<BatchReply, NotTaken> {
        let mut reasons = Vec::new();
        for client in &self.clients {
            match client.post("/v1/agent/batch", batch).await {
                Ok(reply) => return Ok(reply),
                Err(CallError::Refused { status: 413, message, .. }) => {
                    return Err(NotTaken { failure: Failure::TooLarge, reason: message });
                }
                Err(CallError::Refused { retry_after, message, .. }) => {
                    return Err(NotTaken { failure: Failure::Later { retry_after }, reason: message });
                }
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Err(NotTaken { failure: Failure::Later { retry_after: None }, reason: reasons.join("; ") })
    }
}
