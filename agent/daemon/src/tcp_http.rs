//! HTTP/1.1 over TCP, in TLS or in the clear, for callers who may be strangers.
//!
//! | bound | what it stops |
//! | --- | --- |
//! | [`Limits::connections`], [`Limits::of_one_address`] | descriptors and memory used up, by many or by one |
//! | [`Limits::handshake`] | a handshake that never ends; each has a task of its own, so nobody waits for another's |
//! | [`Limits::head`] | a request whose head comes byte by byte, and a kept connection that says nothing |
//! | [`Limits::lives`] | a connection that is always busy: it is asked to end after the answer under way, which has a minute, or what its handler asked for ([`Life`]) |
//!
//! What a request's body may hold and who may ask what is for the router to say; it finds the caller's address with
//! `ConnectInfo<SocketAddr>`.

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

/// How much of us callers may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Served at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Of one IPv4 address or one IPv6 /64; one more is hung up on.
    pub of_one_address: usize,
    /// From the first byte of TLS to the last of its handshake.
    pub handshake: Duration,
    /// Between a connection's begin, or an answer's end, and the end of the next request's head.
    pub head: Duration,
    /// After this the answer under way is the last.
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

/// Why a connection came to nothing, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// One address has too many already.
    TooMany,
    /// No TLS, another's idea of it, or too slow.
    Handshake,
}

/// Bytes of a request's head, and of what is read ahead.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// For the answer under way when a connection's time is over.
const LAST_WORDS: Duration = Duration::from_mins(1);
/// After an error that another accept would meet at once again, like no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves `router` until dropped; in TLS if there is an `identity`.
pub async fn serve(
    listener: TcpListener,
    identity: Option<Arc<Identity>>,
    router: Router,
    limits: Limits,
    turned: fn(Turned),
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let crowd = Arc::new(Crowd::default());
    loop {
        let Ok(permit) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_of_one_caller(&error) {
                    tracing::error!(%error, "no connection can be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let Some(place) = crowd.enter(address.ip(), limits.of_one_address, permit) else {
            turned(Turned::TooMany);
            continue;
        };
        let (router, identity) = (router.clone(), identity.clone());
        tokio::spawn(async move {
            let _place = place;
            let Some(identity) = identity else { return talk(stream, address, router, limits).await };
            let handshake = TlsAcceptor::from(identity.current()).accept(stream);
            match timeout(limits.handshake, handshake).await {
                Ok(Ok(stream)) => talk(stream, address, router, limits).await,
                Ok(Err(_)) | Err(_) => turned(Turned::Handshake),
            }
        });
    }
}

/// The caller went away between the kernel's accept and ours; the next one is not concerned.
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
        // What goes wrong is the caller's: it hung up, or spoke something else.
        _ = &mut connection => return,
        () = sleep(limits.lives) => connection.as_mut().graceful_shutdown(),
    }
    let asked_for = life.take().unwrap_or_default();
    let _ = timeout(LAST_WORDS.max(asked_for), connection).await;
}

/// Who is here, by address.
#[derive(Default)]
struct Crowd(Mutex<HashMap<IpAddr, usize>>);

/// A caller's; given back when dropped.
struct Place {
    crowd: Arc<Crowd>,
    of: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Crowd {
    fn enter(self: &Arc<Self>, address: IpAddr, most: usize, permit: OwnedSemaphorePermit) -> Option<Place> {
        let of = network(address);
        let mut here = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = here.entry(of).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { crowd: Arc::clone(self), of, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut here = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = here.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                here.remove(&self.of);
            }
        }
    }
}

/// What one caller can have many addresses of: an IPv4 address, or an IPv6 /64 (RFC 6177: the least that a site is given).
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
    async fn one_address_has_its_share_of_the_places_and_no_more() {
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
        panic!("no place was given back");
    }

    #[tokio::test]
    async fn who_says_nothing_is_hung_up_on_and_who_is_answered_hears_the_end() {
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
    fn a_site_is_one_caller() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
