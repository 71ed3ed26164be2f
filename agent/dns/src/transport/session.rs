//! Persistent connections: one per upstream, shared by all its queries (RFC 7766 §6.2.1, RFC 7858
//! §3.4).
//!
//! ```text
//!          first query                   handshake done
//!  (none) ──────────────────▶ Dialling ─────────────▶ Connected ──▶ …
//!                                 │ fails                │ closed, or a reply is late
//!                                 ▼                      ▼
//!                    all waiting queries fail     the next query dials again
//! ```
//!
//! A connection can die silently: a NAT drops its state, or a server loses power. The first late
//! reply, as judged by the resolver, reveals that: the second try and later probes use a new
//! connection. Queries that still wait on the old one keep it until their deadline. At most one
//! dial per upstream is in progress; the breaker decides how often to dial.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dogwatch_dns_core::{
    health::endpoint::{Endpoint, Protocol, Tls},
    resolver::{Send, TryError},
};
use hickory_resolver::{
    ConnectionProvider, PoolContext, TlsConfig,
    config::{ConnectionConfig, ProtocolConfig, ResolverOpts},
    net::{
        NetError,
        runtime::TokioRuntimeProvider,
        tls::tls_client_connect,
        xfer::{DnsExchange, DnsHandle, DnsMultiplexer, FirstAnswer},
    },
    proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Message},
};
use rustls::{CertificateError, ClientConfig, pki_types::ServerName};
use tokio::{
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use super::trust;

type Connection = DnsExchange<TokioRuntimeProvider>;

/// All connections, by upstream.
#[derive(Default)]
pub(super) struct Sessions {
    /// Owns the tasks that drive the connections; they end with it.
    provider: TokioRuntimeProvider,
    by_endpoint: Mutex<HashMap<Endpoint, Session>>,
    /// By `ca_file`.
    trust: Mutex<HashMap<Option<Arc<str>>, Arc<ClientConfig>>>,
    /// The last logged connection error per upstream, so that each error is logged once.
    said: Mutex<HashMap<Endpoint, String>>,
}

#[derive(Clone)]
struct Session {
    /// `None` while dialling.
    connection: watch::Receiver<Option<Result<Connection, TryError>>>,
    state: Arc<State>,
    places: Arc<Semaphore>,
    probe_places: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    /// A reply came over it.
    used: AtomicBool,
    /// Closed, or silent for too long: new queries do not use it.
    spent: AtomicBool,
}

/// A dial takes a few round trips; a longer one does not help a waiting client.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// The resolver sets the deadlines; hickory's timeout only must not be shorter.
const LONGEST: Duration = Duration::from_secs(10);
/// Queries in flight on one connection. hickory refuses more than its queue holds, so we wait here.
const ACTIVE_MAX: usize = 32;
/// Probes beside these.
const PROBES_MAX: usize = 8;

impl Sessions {
    pub(super) async fn exchange(self: &Arc<Self>, send: &Send) -> Result<Vec<u8>, TryError> {
        let endpoint = match send.upstream.protocol {
            // Truncated over UDP: the same upstream over TCP.
            Protocol::Udp => Endpoint { protocol: Protocol::Tcp, ..send.upstream.clone() },
            _ => send.upstream.clone(),
        };
        let message = Message::from_vec(&send.message).map_err(|_| TryError::Malformed)?;
        let session = self.session(&endpoint);
        let reused = session.state.used.load(Ordering::Relaxed);
        match session.exchange(&message, send).await {
            // An upstream may close an idle connection at any time (RFC 7766 §6.2.3): not a
            // failure.
            Err(TryError::Closed) if reused => self.session(&endpoint).exchange(&message, send).await,
            result => result,
        }
    }

    pub(super) fn keep_only(&self, upstreams: &[&Endpoint]) {
        let asked = |endpoint: &Endpoint| {
            upstreams.iter().any(|upstream| {
                *upstream == endpoint || (upstream.address == endpoint.address && !upstream.is_stream())
            })
        };
        lock(&self.by_endpoint).retain(|endpoint, _| asked(endpoint));
        lock(&self.said).retain(|endpoint, _| asked(endpoint));
        lock(&self.trust).clear();
    }

    /// The upstream's connection, or a new one that is being dialled.
    fn session(self: &Arc<Self>, endpoint: &Endpoint) -> Session {
        let mut sessions = lock(&self.by_endpoint);
        if let Some(session) = sessions.get(endpoint).filter(|session| session.good()) {
            return session.clone();
        }
        let (dialled, connection) = watch::channel(None);
        let session = Session {
            connection,
            state: Arc::default(),
            places: Arc::new(Semaphore::new(ACTIVE_MAX)),
            probe_places: Arc::new(Semaphore::new(PROBES_MAX)),
        };
        sessions.insert(endpoint.clone(), session.clone());
        drop(sessions);
        let (this, endpoint) = (Arc::clone(self), endpoint.clone());
        tokio::spawn(async move {
            let result = timeout(DIAL_TIMEOUT, this.dial(&endpoint)).await;
            let result =
                result.unwrap_or_else(|_| Err((TryError::Timeout, "no connection within 3 s".into())));
            this.say(&endpoint, result.as_ref().err());
            let _ = dialled.send(Some(result.map_err(|(error, _)| error)));
        });
        session
    }

    /// Logs why an upstream cannot be reached, when the reason changes, with all details.
    fn say(&self, endpoint: &Endpoint, error: Option<&(TryError, String)>) {
        let mut said = lock(&self.said);
        match error {
            Some((_, text)) if said.get(endpoint) != Some(text) => {
                tracing::warn!(upstream = %endpoint, "cannot connect: {text}");
                said.insert(endpoint.clone(), text.clone());
            }
            None if said.remove(endpoint).is_some() => {
                tracing::info!(upstream = %endpoint, "reconnected");
            }
            _ => {}
        }
    }

    async fn dial(&self, endpoint: &Endpoint) -> Result<Connection, (TryError, String)> {
        let why = |error: NetError| (dial_error(&error), error.to_string());
        match &endpoint.protocol {
            Protocol::Udp | Protocol::Tcp => {
                connect(&self.provider, endpoint, ProtocolConfig::Tcp, None).await.map_err(why)
            }
            Protocol::Tls(tls) => {
                let name = server_name(endpoint, tls)?;
                dial_tls(endpoint, name, self.trust(tls)?).await.map_err(why)
            }
            Protocol::Https { tls, path } => {
                let protocol =
                    ProtocolConfig::Https { server_name: name_of(endpoint, tls), path: Arc::clone(path) };
                connect(&self.provider, endpoint, protocol, Some(self.trust(tls)?)).await.map_err(why)
            }
            Protocol::Quic(tls) => {
                let protocol = ProtocolConfig::Quic { server_name: name_of(endpoint, tls) };
                connect(&self.provider, endpoint, protocol, Some(self.trust(tls)?)).await.map_err(why)
            }
        }
    }

    fn trust(&self, tls: &Tls) -> Result<Arc<ClientConfig>, (TryError, String)> {
        let mut known = lock(&self.trust);
        if let Some(config) = known.get(&tls.authorities) {
            return Ok(Arc::clone(config));
        }
        let config = trust::client_config(tls.authorities.as_deref())
            .map_err(|text| (TryError::Local, format!("cannot load the trusted certificates: {text}")))?;
        known.insert(tls.authorities.clone(), Arc::clone(&config));
        Ok(config)
    }
}

impl Session {
    fn good(&self) -> bool {
        match &*self.connection.borrow() {
            None => true,
            Some(Ok(_)) => !self.state.spent.load(Ordering::Relaxed),
            Some(Err(_)) => false,
        }
    }

    async fn exchange(mut self, message: &Message, send: &Send) -> Result<Vec<u8>, TryError> {
        let connection = match self.connection.wait_for(Option::is_some).await {
            Ok(dialled) => dialled.clone().unwrap_or(Err(TryError::Closed))?,
            // The upstream was removed during the dial.
            Err(_) => return Err(TryError::Closed),
        };
        // The semaphore is never closed, so this waits for a permit until the try's deadline.
        // Probes have places of their own: forty dead names must not make the upstream look dead.
        let places = if send.probe { &self.probe_places } else { &self.places };
        let _place = places.acquire().await;
        let mut options = DnsRequestOptions::default();
        options.retry_interval = LONGEST;
        let mut reply = connection.send(DnsRequest::new(message.clone(), options)).first_answer();
        let reply = tokio::select! {
            reply = &mut reply => reply,
            () = sleep(send.late_after) => {
                self.state.spent.store(true, Ordering::Relaxed);
                reply.await
            }
        };
        match reply {
            Ok(reply) => {
                // Slow for this query, but alive.
                self.state.spent.store(false, Ordering::Relaxed);
                self.state.used.store(true, Ordering::Relaxed);
                Ok(DnsResponse::into_buffer(reply))
            }
            Err(error) => {
                tracing::debug!(%error, "no answer on an established connection");
                let error = exchange_error(&error);
                if error == TryError::Closed {
                    self.state.spent.store(true, Ordering::Relaxed);
                }
                Err(error)
            }
        }
    }
}

/// TCP, HTTPS and QUIC with hickory's own connectors.
async fn connect(
    provider: &TokioRuntimeProvider,
    endpoint: &Endpoint,
    protocol: ProtocolConfig,
    trust: Option<Arc<ClientConfig>>,
) -> Result<Connection, NetError> {
    let mut options = ResolverOpts::default();
    options.timeout = LONGEST;
    options.max_active_requests = ACTIVE_MAX + PROBES_MAX;
    let tls = match trust {
        Some(config) => TlsConfig { config: (*config).clone() },
        None => TlsConfig::new()?,
    };
    let mut config = ConnectionConfig::new(protocol);
    config.port = endpoint.address.port();
    provider.new_connection(endpoint.address.ip(), &config, &PoolContext::new(options, tls))?.await
}

/// DNS over TLS, built from parts of hickory: its own connection provider sends no SNI, so an
/// upstream with several names could not choose the right certificate.
async fn dial_tls(
    endpoint: &Endpoint,
    name: ServerName<'static>,
    trust: Arc<ClientConfig>,
) -> Result<Connection, NetError> {
    let (connecting, sender) =
        tls_client_connect(endpoint.address, name, trust, TokioRuntimeProvider::default());
    let multiplexer = DnsMultiplexer::new(connecting.await?, sender)
        .with_timeout(LONGEST)
        .with_max_active_requests(ACTIVE_MAX + PROBES_MAX);
    let (connection, background) = DnsExchange::from_stream(multiplexer);
    tokio::spawn(background);
    Ok(connection)
}

fn name_of(endpoint: &Endpoint, tls: &Tls) -> Arc<str> {
    tls.name.clone().unwrap_or_else(|| endpoint.address.ip().to_string().into())
}

fn server_name(endpoint: &Endpoint, tls: &Tls) -> Result<ServerName<'static>, (TryError, String)> {
    let name = name_of(endpoint, tls);
    ServerName::try_from(name.to_string()).map_err(|error| (TryError::CertificateName, error.to_string()))
}

/// Classifies an error on an established connection.
fn exchange_error(error: &NetError) -> TryError {
    match error {
        NetError::Timeout => TryError::Timeout,
        // Not a DNS message, or an HTTP status other than 2xx.
        NetError::Proto(_) | NetError::Msg(_) | NetError::Message(_) | NetError::QuicMessageIdNot0(_) => {
            TryError::Malformed
        }
        NetError::Io(error) if is_ours(error) => TryError::Local,
        _ => TryError::Closed,
    }
}

/// Classifies an error while connecting.
fn dial_error(error: &NetError) -> TryError {
    match error {
        NetError::Timeout => TryError::Timeout,
        NetError::RustlsError(error) => handshake_error(error),
        NetError::Io(error) if is_ours(error) => TryError::Local,
        NetError::Io(error) => {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match (inner, error.kind()) {
                (Some(inner), _) => handshake_error(inner),
                (None, io::ErrorKind::TimedOut) => TryError::Timeout,
                // quinn reports handshake errors as text.
                (None, io::ErrorKind::Other | io::ErrorKind::ConnectionAborted) => {
                    quic_error(&error.to_string())
                }
                // Closed or reset during the handshake.
                (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => TryError::Handshake,
                (None, _) => TryError::Network,
            }
        }
        NetError::QuinnConnection(error) => quic_error(&error.to_string()),
        // Only the HTTP/2 preface remains.
        _ => TryError::Handshake,
    }
}

fn handshake_error(error: &rustls::Error) -> TryError {
    match error {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => TryError::CertificateExpired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TryError::CertificateName
            }
            _ => TryError::CertificateUntrusted,
        },
        _ => TryError::Handshake,
    }
}

/// QUIC errors carry the certificate problem only as text.
fn quic_error(text: &str) -> TryError {
    if text.contains("expired") || text.contains("not valid yet") {
        TryError::CertificateExpired
    } else if text.contains("not valid for name") {
        TryError::CertificateName
    } else if text.contains("certificate") {
        TryError::CertificateUntrusted
    } else if text.contains("timed out") {
        TryError::Timeout
    } else {
        TryError::Handshake
    }
}

/// A local shortage of descriptors, ports or memory is not the upstream's fault.
pub(super) fn is_ours(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::AGAIN];
    Errno::from_io_error(error).is_some_and(|errno| ours.contains(&errno))
}

/// Ignores poisoning: no code panics while holding one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
