//! HTTP/1.1 over TCP, with or without TLS, for callers that are not trusted.
//!
//! | limit | protects against |
//! | --- | --- |
//! | [`Limits::connections`], [`Limits::of_one_address`] | many callers, or one, that use up descriptors and memory |
//! | [`Limits::handshake`] | a TLS handshake that never ends; each runs in its own task, so that none delays another |
//! | [`Limits::head`] | a request head that arrives byte by byte, and an idle connection |
//! | [`Limits::lives`] | a connection that never ends: it is closed after the answer in progress, which has one more minute, or the time that its handler requested ([`Life`]) |
//!
//! The router decides who may call what and how long a body may be. It finds the address of the
//! caller with `ConnectInfo<SocketAddr>`.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, extract::ConnectInfo, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;

use crate::{bounded::Life, identity::Identity};

/// How much of the daemon callers may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once. More wait in the kernel's queue.
    pub connections: usize,
    /// Connections at once from one IPv4 address or one IPv6 /64. More are closed.
    pub of_one_address: usize,
    /// For the whole TLS handshake.
    pub handshake: Duration,
    /// From the start of a connection, or the end of an answer, to the end of the next request
    /// head.
    pub head: Duration,
    /// After this time the answer in progress is the last one.
    pub lives: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1_024,
            of_one_address: 256,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            lives: Duration::from_mins(5),
        }
    }
}

/// Why a connection was closed without a request, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// The address has too many connections already.
    TooMany,
    /// The TLS handshake failed or took too long.
    Handshake,
}

/// For the head of a request and for what is read ahead.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// For the answer in progress when the time of a connection is over.
const LAST_WORDS: Duration = Duration::from_mins(1);
/// After an error that the next accept would meet again, for example no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves `router` until dropped, with TLS if there is an `identity`.
pub async fn serve(
    listener: TcpListener,
    identity: Option<Arc<Identity>>,
    router: Router,
    limits: Limits,
    turned: fn(Turned),
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let counts = Arc::new(ConnectionCounts::default());
    loop {
        let Ok(permit) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_of_one_caller(&error) {
                    tracing::error!(%error, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let Some(connection) = counts.add(address.ip(), limits.of_one_address, permit) else {
            turned(Turned::TooMany);
            continue;
        };
        let (router, identity) = (router.clone(), identity.clone());
        tokio::spawn(async move {
            let _counted = connection;
            let Some(identity) = identity else { return talk(stream, address, router, limits).await };
            let handshake = TlsAcceptor::from(identity.current()).accept(stream);
            match timeout(limits.handshake, handshake).await {
                Ok(Ok(stream)) => talk(stream, address, router, limits).await,
                Ok(Err(_)) | Err(_) => turned(Turned::Handshake),
            }
        });
    }
}

/// The caller closed the connection before it was accepted. The next one is not affected.
fn is_of_one_caller(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

async fn talk<S>(stream: S, address: SocketAddr, router: Router, limits: Limits)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let life = Life::default();
    let of_request = life.clone();
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        request.extensions_mut().insert(of_request.clone());
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    tokio::select! {
        // Errors are the caller's: it closed the connection, or it does not speak HTTP.
        _ = &mut connection => return,
        () = sleep(limits.lives) => connection.as_mut().graceful_shutdown(),
    }
    let asked_for = life.take().unwrap_or_default();
    let _ = timeout(LAST_WORDS.max(asked_for), connection).await;
}

/// Connections per network.
#[derive(Default)]
struct ConnectionCounts(Mutex<HashMap<IpAddr, usize>>);

/// A connection that counts until it is dropped.
struct CountedConnection {
    counts: Arc<ConnectionCounts>,
    network: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionCounts {
    /// `None` if the network has `most` connections already.
    fn add(
        self: &Arc<Self>,
        address: IpAddr,
        most: usize,
        permit: OwnedSemaphorePermit,
    ) -> Option<CountedConnection> {
        let network = network(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(CountedConnection { counts: Arc::clone(self), network, _permit: permit })
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

/// The addresses that count as one caller: an IPv4 address, or an IPv6 /64, which is the least that
/// a site gets (RFC 6177).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & (u128::MAX << 64))),
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn start(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let who = |ConnectInfo(who): ConnectInfo<SocketAddr>| async move { who.ip().to_string() };
        let slow = || async {
            sleep(Duration::from_millis(400)).await;
            "done"
        };
        let router = Router::new().route("/", get(who)).route("/slow", get(slow));
        tokio::spawn(serve(listener, None, router, limits, |_| {}));
        address
    }

    async fn ask(stream: &mut TcpStream, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    async fn is_hung_up(stream: &mut TcpStream) -> bool {
        let read = timeout(Duration::from_secs(20), stream.read(&mut [0; 64])).await.expect("no hang-up");
        // The end, or a reset.
        read.is_err() || read.is_ok_and(|read| read == 0)
    }

    #[tokio::test]
    async fn a_caller_is_known_by_its_address_and_may_ask_again() {
        let address = start(Limits::default()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            let answer = ask(&mut stream, "/").await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
        }
    }

    #[tokio::test]
    async fn connections_of_one_address_are_limited() {
        let address = start(Limits { of_one_address: 2, ..Limits::default() }).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        ask(&mut first, "/").await;
        ask(&mut second, "/").await;
        let mut third = TcpStream::connect(address).await.unwrap();
        assert!(is_hung_up(&mut third).await);
        drop(first);
        for _ in 0..500 {
            let mut next = TcpStream::connect(address).await.unwrap();
            let _ = next.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
            let mut answer = String::new();
            if next.read_to_string(&mut answer).await.is_ok() && answer.starts_with("HTTP/1.1 200") {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("a closed connection made no room for the next");
    }

    #[tokio::test]
    async fn a_silent_caller_is_disconnected_and_a_busy_one_gets_its_last_answer() {
        let limits = Limits {
            head: Duration::from_millis(200),
            lives: Duration::from_millis(100),
            ..Limits::default()
        };
        let address = start(limits).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert!(is_hung_up(&mut silent).await);
        let mut busy = TcpStream::connect(address).await.unwrap();
        let answer = ask(&mut busy, "/slow").await;
        assert!(answer.contains("200 OK") && answer.contains("connection: close"), "{answer}");
        assert!(is_hung_up(&mut busy).await);
    }

    #[test]
    fn addresses_of_one_site_count_as_one_caller() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
