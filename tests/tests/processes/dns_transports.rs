//! Every transport to an upstream, with real servers: Unbound over TCP, TLS and HTTPS, quinn over
//! QUIC, and a TLS server of our own that can misbehave.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener as StdTcpListener},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use dogwatch_dns::transport::{Reply as TryReply, Upstreams};
use dogwatch_dns_core::{
    health::endpoint::Endpoint,
    message::reply::Transport,
    resolver::{Send, TryError},
};
use dogwatch_tests::{
    certificates::Certificates,
    dns_message::{A, NOERROR, Reply, query},
    process::{Process, debian_program, free_port, wait_for},
    upstream::{Mood, Upstream, name, reply, right_address},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

/// Asks upstreams the way the daemon's loop does.
struct Caller {
    upstreams: Upstreams,
    replies: mpsc::Receiver<TryReply>,
}

/// Shorter than any patience, longer than a handshake on a busy machine.
const LATE: Duration = Duration::from_millis(300);
const GIVE_UP: Duration = Duration::from_secs(6);

impl Caller {
    fn new() -> Self {
        let (sender, replies) = mpsc::channel(16);
        Self { upstreams: Upstreams::new(sender), replies }
    }

    fn start(&self, upstream: &Endpoint, number: u32) {
        let transport = if upstream.is_stream() { Transport::Tcp } else { Transport::Udp };
        self.upstreams.start(Send {
            try_id: u64::from(number),
            upstream: upstream.clone(),
            transport,
            message: query(4711, &name(number, 60), A, true),
            letters_matter: false,
            late_after: LATE,
            timeout: GIVE_UP,
            probe: false,
        });
    }

    async fn ask(&mut self, upstream: &Endpoint, number: u32) -> Result<(), TryError> {
        self.start(upstream, number);
        let reply = self.replies.recv().await.expect("the sender lives as long as we");
        assert_eq!(reply.try_id, u64::from(number));
        let message = reply.message?;
        let read = Reply::parse(&message);
        assert_eq!((read.rcode, read.addresses()), (NOERROR, vec![right_address(number)]), "{upstream}");
        Ok(())
    }
}

struct Certified {
    folder: TempDir,
    certificates: Certificates,
    authority: Arc<str>,
}

impl Certified {
    fn make() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let certificates = Certificates::make(folder.path())?;
        let authority = fs::read_to_string(&certificates.authority).expect("just written").into();
        Some(Self { folder, certificates, authority })
    }

    fn endpoint(&self, text: &str) -> Endpoint {
        Endpoint::parse(text, Some(&self.authority)).expect("the test writes it right")
    }

    fn server_config(&self, certificate: &std::path::Path) -> rustls::ServerConfig {
        let chain = CertificateDer::pem_file_iter(certificate)
            .expect("it can be read")
            .map(|certificate| certificate.expect("it is PEM"))
            .collect();
        let key = PrivateKeyDer::from_pem_file(&self.certificates.key)
            .expect("loopback and our own certificates work");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("loopback and our own certificates work")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("loopback and our own certificates work")
    }
}

/// A TLS server with manners that can change.
#[derive(Clone)]
struct TlsPeer {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    manners: Arc<AtomicU8>,
}

const ANSWER: u8 = 0;
/// Answers, then closes: what a server does with an idle connection.
const ANSWER_AND_CLOSE: u8 = 1;
/// Reads on and never says anything: a connection that a NAT has forgotten.
const SILENT: u8 = 2;
/// Half of an answer, then nothing but a closed connection.
const HALF: u8 = 3;

impl TlsPeer {
    async fn start(certified: &Certified, certificate: &std::path::Path) -> Self {
        let listener =
            TcpListener::bind("127.0.0.1:0").await.expect("loopback and our own certificates work");
        let peer = Self {
            address: listener.local_addr().expect("loopback and our own certificates work"),
            connections: Arc::default(),
            manners: Arc::default(),
        };
        let acceptor = TlsAcceptor::from(Arc::new(certified.server_config(certificate)));
        let this = peer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (this, acceptor) = (this.clone(), acceptor.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        this.connections.fetch_add(1, Ordering::Relaxed);
                        this.serve(stream).await;
                    }
                });
            }
        });
        peer
    }

    async fn serve(&self, mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) -> Option<()> {
        // A connection keeps its manners once it fell silent, as a forgotten one does.
        let mut silent = false;
        loop {
            let length = stream.read_u16().await.ok()?;
            let mut message = vec![0; usize::from(length)];
            stream.read_exact(&mut message).await.ok()?;
            let manners = self.manners.load(Ordering::Relaxed);
            silent |= manners == SILENT;
            if silent {
                continue;
            }
            let reply = reply(&message, Mood::Right)?;
            stream.write_u16(u16::try_from(reply.len()).ok()?).await.ok()?;
            let part = if manners == HALF { &reply[..reply.len() / 2] } else { &reply };
            stream.write_all(part).await.ok()?;
            stream.flush().await.ok()?;
            if manners != ANSWER {
                stream.shutdown().await.ok()?;
                return None;
            }
        }
    }

    fn set(&self, manners: u8) {
        self.manners.store(manners, Ordering::Relaxed);
    }

    fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// A DNS over QUIC server (RFC 9250): one stream a query, two bytes of length.
fn start_quic(certified: &Certified, certificate: &std::path::Path) -> (SocketAddr, Arc<AtomicU64>) {
    let mut tls = certified.server_config(certificate);
    tls.alpn_protocols = vec![b"doq".to_vec()];
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls)
        .expect("loopback and our own certificates work");
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let endpoint = quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into())
        .expect("loopback and our own certificates work");
    let address = endpoint.local_addr().expect("loopback and our own certificates work");
    let connections = Arc::new(AtomicU64::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                let connection = incoming.await.ok()?;
                counted.fetch_add(1, Ordering::Relaxed);
                loop {
                    let (mut to, mut from) = connection.accept_bi().await.ok()?;
                    let message = from.read_to_end(4_096).await.ok()?;
                    let reply = reply(message.get(2..)?, Mood::Right)?;
                    to.write_all(&u16::try_from(reply.len()).ok()?.to_be_bytes()).await.ok()?;
                    to.write_all(&reply).await.ok()?;
                    to.finish().ok()?;
                }
                #[expect(unreachable_code, reason = "says the block's type")]
                Some(())
            });
        }
    });
    (address, connections)
}

/// Unbound that answers for names 0 to 9 over UDP and TCP, TLS and HTTPS, on three ports.
fn start_unbound(certified: &Certified) -> Option<(Process, [u16; 3])> {
    let program = debian_program("unbound", "unbound")?;
    let ports = [free_port(), free_port(), free_port()];
    let [plain, tls, https] = ports;
    let folder = certified.folder.path();
    let records: Vec<String> = (0..10)
        .map(|number| {
            let [a, b, c, d] = right_address(number);
            format!("  local-data: \"{} 60 A {a}.{b}.{c}.{d}\"\n", name(number, 60))
        })
        .collect();
    let records = records.concat();
    let config = format!(
        "server:\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{folder}\"\n  pidfile: \"\"\n  use-syslog: no\n  \
         interface: 127.0.0.1@{plain}\n  interface: 127.0.0.1@{tls}\n  interface: 127.0.0.1@{https}\n  \
         tls-port: {tls}\n  https-port: {https}\n  tls-service-key: \"{key}\"\n  tls-service-pem: \"{pem}\"\n  \
         local-zone: \"test.\" static\n{records}",
        folder = folder.display(),
        key = certified.certificates.key.display(),
        pem = certified.certificates.certificate.display(),
    );
    let file = folder.join("unbound.conf");
    fs::write(&file, config).expect("the test folder is writable");
    let process = Process::start("unbound", Command::new(program).arg("-c").arg(&file), folder);
    wait_for("Unbound to listen", || {
        std::net::TcpStream::connect(("127.0.0.1", https)).is_ok()
            && std::net::TcpStream::connect(("127.0.0.1", tls)).is_ok()
    });
    Some((process, ports))
}

#[tokio::test]
async fn a_name_comes_over_every_protocol_and_connections_are_kept() {
    let Some(certified) = Certified::make() else { return };
    let mut caller = Caller::new();
    let (quic, quic_connections) = start_quic(&certified, &certified.certificates.certificate);
    let quic = certified.endpoint(&format!("quic://{quic}#localhost"));
    for number in 0..10 {
        caller.ask(&quic, number).await.unwrap();
    }
    assert_eq!(quic_connections.load(Ordering::Relaxed), 1);

    let peer = TlsPeer::start(&certified, &certified.certificates.certificate).await;
    let tls = certified.endpoint(&format!("tls://{}#localhost", peer.address));
    // All at once over the one connection that the first of them makes.
    for number in 0..200 {
        caller.start(&tls, number);
    }
    for _ in 0..200 {
        assert!(caller.replies.recv().await.unwrap().message.is_ok());
    }
    // Without a name the certificate must be for the address, and it is.
    caller.ask(&certified.endpoint(&format!("tls://{}", peer.address)), 1).await.unwrap();
    assert_eq!(peer.connections(), 2);

    let Some((_unbound, [plain, tls, https])) = start_unbound(&certified) else { return };
    for text in [
        format!("127.0.0.1:{plain}"),
        format!("tcp://127.0.0.1:{plain}"),
        format!("tls://127.0.0.1:{tls}#localhost"),
        format!("https://127.0.0.1:{https}#localhost"),
        format!("https://127.0.0.1:{https}/dns-query"),
    ] {
        let endpoint = certified.endpoint(&text);
        for number in 0..10 {
            caller.ask(&endpoint, number).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        }
    }
    let wrong_path = certified.endpoint(&format!("https://127.0.0.1:{https}/nowhere#localhost"));
    assert_eq!(caller.ask(&wrong_path, 1).await, Err(TryError::Malformed));
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_or_a_port_is_told_apart() {
    let Some(certified) = Certified::make() else { return };
    let expired = certified.certificates.expired();
    let mut caller = Caller::new();
    let good = TlsPeer::start(&certified, &certified.certificates.certificate).await.address;
    let old = TlsPeer::start(&certified, &expired).await.address;
    let (good_quic, _) = start_quic(&certified, &certified.certificates.certificate);
    let (old_quic, _) = start_quic(&certified, &expired);
    for (scheme, good, old) in [("tls", good, old), ("https", good, old), ("quic", good_quic, old_quic)] {
        let wrong_name = certified.endpoint(&format!("{scheme}://{good}#dns.example"));
        assert_eq!(caller.ask(&wrong_name, 1).await, Err(TryError::CertificateName), "{scheme}");
        let expired = certified.endpoint(&format!("{scheme}://{old}#localhost"));
        assert_eq!(caller.ask(&expired, 1).await, Err(TryError::CertificateExpired), "{scheme}");
        // By the system's authorities, who do not know ours.
        let unknown = Endpoint::parse(&format!("{scheme}://{good}#localhost"), None).unwrap();
        assert_eq!(caller.ask(&unknown, 1).await, Err(TryError::CertificateUntrusted), "{scheme}");
    }
    // A server that speaks first and something else, as a mail server does.
    let listener = StdTcpListener::bind("127.0.0.1:0").unwrap();
    let mail = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
        }
    });
    let plain = certified.endpoint(&format!("tls://{mail}#localhost"));
    assert_eq!(caller.ask(&plain, 1).await, Err(TryError::Handshake));
    let closed = format!("127.0.0.1:{}", free_port());
    for scheme in ["", "tcp://", "tls://", "https://"] {
        let endpoint = certified.endpoint(&format!("{scheme}{closed}"));
        assert_eq!(caller.ask(&endpoint, 1).await, Err(TryError::Network), "{scheme}");
    }
}

#[tokio::test]
async fn a_connection_that_dies_is_replaced_and_only_a_broken_answer_is_a_failure() {
    let Some(certified) = Certified::make() else { return };
    let peer = TlsPeer::start(&certified, &certified.certificates.certificate).await;
    let endpoint = certified.endpoint(&format!("tls://{}#localhost", peer.address));
    let mut caller = Caller::new();

    // Closed after each answer: every query finds a spent connection, none fails.
    peer.set(ANSWER_AND_CLOSE);
    for number in 0..5 {
        caller.ask(&endpoint, number).await.unwrap();
    }
    peer.set(ANSWER);
    caller.ask(&endpoint, 5).await.unwrap();

    // Dead without a word: the first query is lost, and what follows its late timer goes over a new
    // connection.
    let before = peer.connections();
    peer.set(SILENT);
    caller.start(&endpoint, 6);
    tokio::time::sleep(LATE * 2).await;
    peer.set(ANSWER);
    caller.ask(&endpoint, 7).await.unwrap();
    assert_eq!(peer.connections(), before + 1);
    let lost = caller.replies.recv().await.unwrap();
    assert_eq!((lost.try_id, lost.message), (6, Err(TryError::Timeout)));

    // Hung up on in mid-answer, on a new connection too.
    peer.set(HALF);
    assert_eq!(caller.ask(&endpoint, 8).await, Err(TryError::Closed));
    peer.set(ANSWER);
    caller.ask(&endpoint, 9).await.unwrap();
}

#[tokio::test]
async fn truncated_over_udp_the_same_upstream_is_asked_over_tcp() {
    let upstream = Upstream::start(([127, 0, 0, 1], free_port()).into()).unwrap();
    let endpoint = Endpoint::from(upstream.address);
    let mut caller = Caller::new();
    for number in 0..3 {
        caller.upstreams.start(Send {
            try_id: u64::from(number),
            upstream: endpoint.clone(),
            transport: Transport::Tcp,
            message: query(4711, &name(number, 60), A, true),
            letters_matter: false,
            late_after: LATE,
            timeout: GIVE_UP,
            probe: false,
        });
        let reply = caller.replies.recv().await.unwrap();
        assert_eq!(Reply::parse(&reply.message.unwrap()).addresses(), [right_address(number)]);
    }
}
