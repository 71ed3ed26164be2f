//! Shell over hickory: carries our bytes to an upstream and its bytes back. No choice, no retry, no cache is its own.
//!
//! hickory gives a fresh socket with a random port for each UDP query, and checks source, id and question of what comes
//! back. Its resends are switched off: the resolver counts every packet that an ill upstream gets. Its UDP sockets are
//! not connected, so "port unreachable" is not seen; the resolver's late timer bounds what that costs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use hickory_resolver::{
    ConnectionProvider, PoolContext, TlsConfig,
    config::{ConnectionConfig, ResolverOpts},
    net::{
        NetError,
        runtime::TokioRuntimeProvider,
        xfer::{DnsHandle, FirstAnswer},
    },
    proto::op::{DnsRequest, DnsRequestOptions, Message},
};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    endpoint::Endpoint,
    reply::Transport,
    resolver::{Send, TryError},
};

type Connection = <TokioRuntimeProvider as ConnectionProvider>::Conn;

/// What came of a try.
#[derive(Debug)]
pub struct Reply {
    pub try_id: u64,
    pub message: Result<Vec<u8>, TryError>,
}

pub struct Upstreams {
    provider: TokioRuntimeProvider,
    context: Arc<PoolContext>,
    /// UDP "connections" are senders that make a socket a query; they can be kept.
    datagrams: HashMap<Endpoint, Connection>,
    replies: mpsc::Sender<Reply>,
}

impl Upstreams {
    pub fn new(replies: mpsc::Sender<Reply>) -> Result<Self, NetError> {
        let mut options = ResolverOpts::default();
        // Ours are the deadlines; this one only has to be no shorter.
        options.timeout = LONGEST;
        Ok(Self {
            provider: TokioRuntimeProvider::default(),
            context: Arc::new(PoolContext::new(options, TlsConfig::new()?)),
            datagrams: HashMap::new(),
            replies,
        })
    }

    /// Starts a try; its reply or error comes through the channel.
    pub async fn start(&mut self, send: Send) {
        let known = match send.transport {
            Transport::Udp => self.datagram_connection(&send.upstream).await,
            Transport::Tcp => None,
        };
        let (provider, context, replies) =
            (self.provider.clone(), Arc::clone(&self.context), self.replies.clone());
        tokio::spawn(async move {
            let exchange = async {
                let connection = match known {
                    Some(connection) => connection,
                    None => connect(&provider, &context, &send.upstream, send.transport).await?,
                };
                exchange(&connection, &send.message).await
            };
            let message = match timeout(send.timeout, exchange).await {
                Ok(result) => result,
                Err(_) => Err(TryError::Timeout),
            };
            // The loop is gone only when the process ends.
            let _ = replies.send(Reply { try_id: send.try_id, message }).await;
        });
    }

    /// Forgets connections to upstreams that are no longer asked.
    pub fn keep_only(&mut self, upstreams: &[&Endpoint]) {
        self.datagrams.retain(|endpoint, _| upstreams.contains(&endpoint));
    }

    async fn datagram_connection(&mut self, upstream: &Endpoint) -> Option<Connection> {
        if let Some(known) = self.datagrams.get(upstream) {
            return Some(known.clone());
        }
        // For UDP this makes no socket and waits for nothing.
        let made = connect(&self.provider, &self.context, upstream, Transport::Udp).await.ok()?;
        self.datagrams.insert(upstream.clone(), made.clone());
        Some(made)
    }
}

const LONGEST: Duration = Duration::from_secs(10);

async fn connect(
    provider: &TokioRuntimeProvider,
    context: &PoolContext,
    upstream: &Endpoint,
    transport: Transport,
) -> Result<Connection, TryError> {
    let mut config = match transport {
        Transport::Udp => ConnectionConfig::udp(),
        Transport::Tcp => ConnectionConfig::tcp(),
    };
    config.port = upstream.address.port();
    let connecting = provider
        .new_connection(upstream.address.ip(), &config, context)
        .map_err(|error| try_error(&error))?;
    connecting.await.map_err(|error| try_error(&error))
}

async fn exchange(connection: &Connection, query: &[u8]) -> Result<Vec<u8>, TryError> {
    let message = Message::from_vec(query).map_err(|_| TryError::Malformed)?;
    let mut options = DnsRequestOptions::default();
    options.retry_interval = LONGEST;
    let reply = connection.send(DnsRequest::new(message, options)).first_answer().await;
    reply.map(hickory_resolver::proto::op::DnsResponse::into_buffer).map_err(|error| try_error(&error))
}

fn try_error(error: &NetError) -> TryError {
    match error {
        NetError::Timeout => TryError::Timeout,
        NetError::Proto(_) => TryError::Malformed,
        _ => TryError::Network,
    }
}
