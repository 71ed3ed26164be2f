//! Sends queries to upstreams and returns their replies. It makes no decisions and caches nothing.
//!
//! | module | transport |
//! | --- | --- |
//! | `datagram` | UDP: a new connected socket, and so a random port, per query; "port unreachable" fails at once |
//! | `route` | notices that the network has changed |
//! | `session` | TCP, TLS, HTTPS and QUIC through hickory: one shared connection per upstream, replaced when it dies |
//! | `trust` | the trusted certificates, loaded when the first TLS upstream is used |
//!
//! The resolver limits the packets sent to a failing upstream, so this module never retries, with
//! one exception: if the upstream closes an idle connection just as a query is sent on it, the
//! query is sent again over a new connection.

mod datagram;
pub(crate) mod route;
mod session;
mod trust;

use std::sync::{Arc, atomic::AtomicU32};

use dogwatch_dns_core::{
    health::endpoint::Endpoint,
    message::reply::Transport,
    resolver::{Send, TryError},
};
use tokio::{sync::mpsc, time::timeout};

use self::session::Sessions;
pub(crate) use self::trust::check_authorities;

/// The result of a try. After [`TryError::OtherCase`], another result follows.
#[derive(Debug)]
pub struct Reply {
    pub try_id: u64,
    /// Forged replies that were dropped while the try lasted.
    pub forged: Option<Forged>,
    pub message: Result<Vec<u8>, TryError>,
}

/// Replies to one query that cannot be the upstream's.
#[derive(Debug)]
pub struct Forged {
    pub upstream: Endpoint,
    pub packets: u32,
}

pub struct Upstreams {
    sessions: Arc<Sessions>,
    replies: mpsc::Sender<Reply>,
}

impl Upstreams {
    pub fn new(replies: mpsc::Sender<Reply>) -> Self {
        Self { sessions: Arc::default(), replies }
    }

    /// Starts a try. Its reply or error arrives through the channel.
    pub fn start(&self, send: Send) {
        let (sessions, replies) = (Arc::clone(&self.sessions), self.replies.clone());
        tokio::spawn(async move {
            let forged = AtomicU32::new(0);
            let other_case = async {
                let message = Err(TryError::OtherCase);
                let _ = replies.send(Reply { try_id: send.try_id, forged: None, message }).await;
            };
            let exchange = async {
                match send.transport {
                    Transport::Udp => datagram::exchange(&send, &forged, other_case).await,
                    // Boxed: most tries are UDP, whose tasks should not reserve space for hickory.
                    Transport::Tcp => Box::pin(sessions.exchange(&send)).await,
                }
            };
            let message = timeout(send.timeout, exchange).await.unwrap_or(Err(TryError::Timeout));
            let packets = forged.into_inner();
            let forged = (packets > 0).then(|| Forged { upstream: send.upstream.clone(), packets });
            // The loop is gone only when the process ends.
            let _ = replies.send(Reply { try_id: send.try_id, forged, message }).await;
        });
    }

    /// Drops the connections to all other upstreams, and the trusted certificates, because the
    /// system's may have changed.
    pub fn keep_only(&self, upstreams: &[&Endpoint]) {
        self.sessions.keep_only(upstreams);
    }
}
