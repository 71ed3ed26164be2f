//! HTTP/1.1 over TCP, with or without TLS, for callers that are not trusted.
//!
//! The router decides who may call what. It finds the address of the caller with
//! `ConnectInfo<SocketAddr>`, and whom it counts for as the extension [`Who`].

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    bounds::{Bounds, Places, Who},
    http_server::{bounded, talk},
    identity::Identity,
};

/// Why a connection was closed without a request, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// There is no place, and no idle connection.
    TooMany,
    /// The TLS handshake failed or took too long.
    Handshake,
}

/// Handshakes at once. More wait: many at once would all be late.
const HANDSHAKES_MAX: usize = 64;
/// Connections that wait in the kernel to be accepted, while a fleet reconnects.
const BACKLOG: u32 = 4_096;
/// After an error that the next accept would meet again, for example no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Listens on `address`.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `router` until dropped, with TLS if there is an `identity`.
pub async fn serve(
    listener: TcpListener,
    identity: Option<Arc<Identity>>,
    router: Router,
    bounds: Bounds,
    turned: fn(Turned),
) {
    let places = Places::new(bounds);
    let router = bounded(router, &bounds);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_of_one_caller(&error) {
                    tracing::error!(%error, listener = bounds.listener, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let who = Who::of_address(address.ip());
        let Some(place) = places.enter(who) else {
            turned(Turned::TooMany);
            continue;
        };
        // Fails only if the caller is gone.
        let _ = stream.set_nodelay(true);
        let (router, identity, handshakes) = (router.clone(), identity.clone(), Arc::clone(&handshakes));
        tokio::spawn(async move {
            let introduce = move |extensions: &mut axum::http::Extensions| {
                extensions.insert(ConnectInfo(address));
                extensions.insert(who);
            };
            let Some(identity) = identity else {
                return talk(stream, place, &bounds, router, introduce).await;
            };
            let handshake = async {
                // Who sends nothing takes nobody's turn.
                stream.peek(&mut [0]).await?;
                let _turn = handshakes.acquire().await;
                TlsAcceptor::from(identity.current()).accept(stream).await
            };
            let handshake = timeout(bounds.handshake, handshake);
            let done = tokio::select! {
                done = handshake => done,
                () = place.asked_to_leave() => return turned(Turned::TooMany),
            };
            match done {
                Ok(Ok(stream)) => talk(stream, place, &bounds, router, introduce).await,
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;
    use crate::bounds::{AGENT_METRICS, ALERTD_API};

    fn start(bounds: Bounds) -> SocketAddr {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let who = |ConnectInfo(who): ConnectInfo<SocketAddr>| async move { who.ip().to_string() };
        let slow = || async {
            sleep(Duration::from_millis(400)).await;
            "done"
        };
        let router = Router::new().route("/", get(who)).route("/slow", get(slow));
        tokio::spawn(serve(listener, None, router, bounds, |_| {}));
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
        let address = start(ALERTD_API);
        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            let answer = ask(&mut stream, "/").await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
        }
    }

    /// S1: thousands of half requests, and the page still answers each whole one.
    #[tokio::test]
    async fn half_requests_never_keep_a_whole_one_out() {
        let address = start(AGENT_METRICS);
        let mut half = Vec::new();
        for round in 0..400 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HT").await.unwrap();
            half.push(stream);
            if round % 20 == 0 {
                let mut good = TcpStream::connect(address).await.unwrap();
                let answer = ask(&mut good, "/").await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            }
        }
        // Each of the first ones gave way.
        assert!(is_hung_up(&mut half[0]).await && is_hung_up(&mut half[100]).await);
    }

    #[tokio::test]
    async fn busy_connections_are_limited_and_one_that_ends_makes_room() {
        let address = start(Bounds { connections: 2, share: 2, ..ALERTD_API });
        let mut busy =
            [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        for stream in &mut busy {
            stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        }
        let ends = busy.each_mut().map(|stream| async {
            let mut answer = [0; 4096];
            let read = stream.read(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer[..read]).contains("200 OK")
        });
        let [one, two] = ends;
        assert!(one.await && two.await, "an answer under way is never cut");
        let mut third = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut third, "/").await.contains("200 OK"));
    }

    #[tokio::test]
    async fn a_silent_caller_is_disconnected_and_a_busy_one_gets_its_last_answer() {
        let bounds =
            Bounds { head: Duration::from_millis(200), life: Duration::from_millis(100), ..ALERTD_API };
        let address = start(bounds);
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert!(is_hung_up(&mut silent).await);
        let mut busy = TcpStream::connect(address).await.unwrap();
        let answer = ask(&mut busy, "/slow").await;
        assert!(answer.contains("200 OK") && answer.contains("connection: close"), "{answer}");
        assert!(is_hung_up(&mut busy).await);
    }

    /// F4: more clients than any cache of sessions has entries. F5: each answer at once.
    #[tokio::test]
    async fn every_client_resumes_its_session_and_no_small_answer_waits_for_an_acknowledgement() {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let [pem, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
        std::fs::write(&pem, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let identity = Arc::new(Identity::read(&pem, &key).unwrap());
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "hello"));
        tokio::spawn(serve(listener, Some(Arc::clone(&identity)), router, ALERTD_API, |_| {}));

        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let clients: Vec<_> = (0..600)
            .map(|_| {
                let builder = rustls::ClientConfig::builder_with_provider(Arc::new(
                    rustls::crypto::ring::default_provider(),
                ));
                let builder = builder.with_safe_default_protocol_versions().unwrap();
                Arc::new(builder.with_root_certificates(roots.clone()).with_no_client_auth())
            })
            .collect();
        let mut resumed = 0;
        for round in 0..2 {
            if round == 1 {
                identity.replace(&pem, &key).unwrap();
            }
            for client in &clients {
                let stream = TcpStream::connect(address).await.unwrap();
                let name = "localhost".try_into().unwrap();
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(client));
                let mut stream = connector.connect(name, stream).await.unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                assert!(answer.ends_with("hello"), "{answer}");
                let kind = stream.get_ref().1.handshake_kind();
                resumed += usize::from(kind == Some(rustls::HandshakeKind::Resumed));
            }
        }
        assert_eq!(resumed, clients.len(), "all of the second round, across a reload");
    }
}
