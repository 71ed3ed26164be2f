//! Shell: carries our bytes to an upstream and its bytes back. No choice and no cache is its own.
//!
//! | module | carries |
//! | --- | --- |
//! | `datagram` | UDP: a fresh connected socket and so a random port for each query; "port unreachable" is seen at once |
//! | `session` | TCP, TLS, HTTPS and QUIC through hickory: one connection an upstream, kept and shared, replaced when it dies |
//! | `trust` | whom to believe, built when the first TLS upstream is asked |
//!
//! The resolver counts every packet that an ill upstream gets, so nothing is resent here, with one exception: a query that
//! met a kept connection as the upstream closed it goes out again over a new one.

mod datagram;
mod session;
mod trust;

use std::sync::Arc;

use tokio::{sync::mpsc, time::timeout};

use self::session::Sessions;
pub(crate) use self::trust::check_authorities;
use dogwatch_dns_core::{
    health::endpoint::Endpoint,
    message::reply::Transport,
    resolver::{Send, TryError},
};

/// What came of a try. [`TryError::OtherCase`] is not the last.
#[derive(Debug)]
pub struct Reply {
    pub try_id: u64,
    pub message: Result<Vec<u8>, TryError>,
}

pub struct Upstreams {
    sessions: Arc<Sessions>,
    replies: mpsc::Sender<Reply>,
}

impl Upstreams {
    pub fn new(replies: mpsc::Sender<Reply>) -> Self {
        Self { sessions: Arc::default(), replies }
    }

    /// Starts a try; its reply or error comes through the channel.
    pub fn start(&self, send: Send) {
        let (sessions, replies) = (Arc::clone(&self.sessions), self.replies.clone());
        tokio::spawn(async move {
            let other_case = async {
                let message = Err(TryError::OtherCase);
                let _ = replies.send(Reply { try_id: send.try_id, message }).await;
            };
            let exchange = async {
                match send.transport {
                    Transport::Udp => datagram::exchange(&send, other_case).await,
                    // In a box of its own: most tries are UDP, and their tasks need no room for hickory.
                    Transport::Tcp => Box::pin(sessions.exchange(&send)).await,
                }
            };
            let message = timeout(send.timeout, exchange).await.unwrap_or(Err(TryError::Timeout));
            // The loop is gone only when the process ends.
            let _ = replies.send(Reply { try_id: send.try_id, message }).await;
        });
    }

    /// Forgets connections to upstreams that are no longer asked, and whom to trust: the system's certificates may
    /// have changed.
    pub fn keep_only(&self, upstreams: &[&Endpoint]) {
        self.sessions.keep_only(upstreams);
    }
}
