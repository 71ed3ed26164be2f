//! An HTTP/1.1 client for requests to a daemon, over its unix socket or over TCP with a token.
//!
//! Each request has a connection of its own: requests are rare, and a reused connection that the
//! other side has closed would cost a retry.
//!
//! The certificate of a remote daemon is verified with the CAs in `ca_file`, or with the system's
//! store if there is none. Token and CAs are read when they are used, so new ones need no reload.
//! Addresses are kept for [`KEPT`], because what every agent does must cost the name servers
//! little. If none of them can be reached, the name is resolved again, but at most once in
//! [`LOOKUPS_APART`]. If that fails, the last known addresses stay: reporting a DNS outage must not
//! need DNS.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use axum::http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
    task::AbortHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::secret::SecretFile;

/// Sends requests to one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    target: Target,
    deadline: Duration,
}

#[derive(Debug, Clone)]
enum Target {
    Socket(PathBuf),
    Remote(Arc<Remote>),
}

/// Why a call has no 2xx answer, by what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The daemon is down, or the caller may not connect.
    #[error("cannot reach {path}: {source}")]
    Unreachable { path: String, source: io::Error },
    /// No answer within the deadline, or not an HTTP answer.
    #[error("no answer from {path}: {reason}")]
    NoAnswer { path: String, reason: String },
    /// The daemon refused the request; this is its message.
    #[error("{message}")]
    Refused { status: u16, retry_after: Option<Duration>, message: String },
}

impl Client {
    /// Over the unix socket at `path`.
    pub fn new(path: impl Into<PathBuf>, deadline: Duration) -> Self {
        Self { target: Target::Socket(path.into()), deadline }
    }

    /// Over TCP.
    pub fn remote(remote: Remote, deadline: Duration) -> Self {
        Self { target: Target::Remote(Arc::new(remote)), deadline }
    }

    /// The same daemon with another deadline.
    #[must_use]
    pub fn patient(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Sends a GET request and reads the JSON answer.
    pub async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, CallError> {
        self.call(Method::GET, target, None::<&()>).await
    }

    /// Posts a JSON body and reads the JSON answer.
    pub async fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        self.call(Method::POST, target, Some(body)).await
    }

    /// Like the others, with any method. An empty answer reads as JSON `null`.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, CallError> {
        let body = match body {
            Some(body) => {
                serde_json::to_vec(body).map_err(|error| self.no_answer(format!("unsendable: {error}")))?
            }
            None => Vec::new(),
        };
        let exchange = async {
            let mut answer = self.exchange(method, target, body).await?;
            answer.rest().await
        };
        let bytes = self.within(self.deadline, exchange).await?;
        let bytes = if bytes.is_empty() { Bytes::from_static(b"null") } else { bytes };
        serde_json::from_slice(&bytes).map_err(|error| self.no_answer(format!("unreadable answer: {error}")))
    }

    /// For answers that are too long to keep in memory: read them with [`Answer::piece`]. Each
    /// piece must arrive within the deadline, the head of the answer within `patience`.
    pub async fn open(
        &self,
        method: Method,
        target: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<Answer<'_>, CallError> {
        let body =
            serde_json::to_vec(body).map_err(|error| self.no_answer(format!("unsendable: {error}")))?;
        self.within(patience, self.exchange(method, target, body)).await
    }

    async fn within<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let late = |_| self.no_answer(format!("nothing within {patience:?}"));
        timeout(patience, work).await.map_err(late)?
    }

    async fn exchange(&self, method: Method, target: &str, body: Vec<u8>) -> Result<Answer<'_>, CallError> {
        let request = Request::builder().method(method).header(header::CONTENT_TYPE, "application/json");
        let body = Full::new(Bytes::from(body));
        let unsendable = |error: axum::http::Error| self.no_answer(error.to_string());
        match &self.target {
            Target::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(|source| self.unreachable(source))?;
                let request = request.uri(target).header(header::HOST, "localhost");
                self.talk(stream, request.body(body).map_err(unsendable)?).await
            }
            Target::Remote(remote) => {
                let token = remote.token.read().map_err(|words| self.no_answer(words))?;
                let request = request
                    .uri(format!("{}{target}", remote.url.path().trim_end_matches('/')))
                    .header(header::HOST, remote.authority())
                    .header(header::AUTHORIZATION, format!("Bearer {token}"));
                let request = request.body(body).map_err(unsendable)?;
                let stream =
                    remote.connect(self.deadline).await.map_err(|source| self.unreachable(source))?;
                let Some(trust) = &remote.trust else { return self.talk(stream, request).await };
                let config = trust.config().map_err(|words| self.no_answer(words))?;
                let name = ServerName::try_from(remote.host().to_owned());
                let name = name.map_err(|error| self.no_answer(error.to_string()))?;
                let stream = TlsConnector::from(config).connect(name, stream).await;
                self.talk(stream.map_err(|error| self.no_answer(error.to_string()))?, request).await
            }
        }
    }

    /// Returns a 2xx answer, ready to be read. Any other answer is an error.
    async fn talk<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<Answer<'_>, CallError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.no_answer(error.to_string()))?;
        let driver = Driver(tokio::spawn(connection).abort_handle());
        let reply = sender.send_request(request).await.map_err(|error| self.no_answer(error.to_string()))?;
        let (head, body) = reply.into_parts();
        let mut answer = Answer { client: self, headers: head.headers, body, _driver: driver };
        if head.status.is_success() {
            return Ok(answer);
        }
        let retry_after = answer
            .headers
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        Err(refused(head.status, retry_after, &answer.rest().await?))
    }

    fn path(&self) -> String {
        match &self.target {
            Target::Socket(path) => path.display().to_string(),
            Target::Remote(remote) => remote.url.to_string(),
        }
    }

    fn unreachable(&self, source: io::Error) -> CallError {
        CallError::Unreachable { path: self.path(), source }
    }

    fn no_answer(&self, reason: String) -> CallError {
        CallError::NoAnswer { path: self.path(), reason }
    }
}

/// An answer whose head has arrived and whose body is still to be read.
#[derive(Debug)]
pub struct Answer<'a> {
    client: &'a Client,
    pub headers: HeaderMap,
    body: Incoming,
    _driver: Driver,
}

impl Answer<'_> {
    /// The next piece; `None` after the last one. If the length was announced, a shorter body is an
    /// error.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, CallError> {
        let client = self.client;
        let next = async {
            loop {
                let Some(frame) = self.body.frame().await else { return Ok(None) };
                let frame = frame.map_err(|error| client.no_answer(error.to_string()))?;
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        };
        client.within(client.deadline, next).await
    }

    /// The rest of the body.
    async fn rest(&mut self) -> Result<Bytes, CallError> {
        let whole = Limited::new(&mut self.body, ANSWER_BYTES_MAX).collect().await;
        Ok(whole.map_err(|error| self.client.no_answer(error.to_string()))?.to_bytes())
    }
}

/// The task that drives a connection. It is aborted when this is dropped.
#[derive(Debug)]
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The longest answer that is read into memory. A very long list of incidents fits.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

fn refused(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> CallError {
    let said = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|value| value.get("error").unwrap_or(&value).as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    let message = if said.is_empty() { format!("refused: HTTP {status}") } else { said };
    CallError::Refused { status: status.as_u16(), retry_after, message }
}

/// A daemon on another host and the token for it.
#[derive(Debug)]
pub struct Remote {
    url: Uri,
    token: SecretFile,
    /// `None`: without TLS, to this host only.
    trust: Option<Trust>,
    /// The last known addresses.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    /// When the name was last resolved, or could not be.
    looked_up: Option<Instant>,
}

/// The system's resolver tells no TTL.
const KEPT: Duration = Duration::from_mins(5);
const LOOKUPS_APART: Duration = Duration::from_mins(1);

impl Remote {
    /// `url` is `https://HOST:PORT`, or `http` for this host only. The error is a message for the
    /// operator.
    pub fn new(url: &str, token_file: PathBuf, ca_file: Option<PathBuf>) -> Result<Self, String> {
        let read: Uri = url.parse().map_err(|_| format!("{url:?} is not a URL; write https://HOST:9093"))?;
        let Some(host) = read.host().filter(|host| !host.is_empty()) else {
            return Err(format!("{url:?} names no host; write https://HOST:9093"));
        };
        let bare = host.trim_matches(['[', ']']);
        let here = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let trust = match read.scheme_str() {
            Some("https") => Some(Trust { ca_file, config: Mutex::default() }),
            Some("http") if here => None,
            Some("http") => return Err("a token must not travel in the clear; write https://".into()),
            _ => return Err(format!("{url:?} is neither https:// nor http://")),
        };
        Ok(Self { url: read, token: SecretFile::new(token_file), trust, known: Mutex::default() })
    }

    /// Without the brackets around an IPv6 address.
    fn host(&self) -> &str {
        self.url.host().unwrap_or_default().trim_matches(['[', ']'])
    }

    fn authority(&self) -> &str {
        self.url.authority().map_or("", axum::http::uri::Authority::as_str)
    }

    async fn connect(&self, deadline: Duration) -> io::Result<TcpStream> {
        let port = self.url.port_u16().unwrap_or(if self.trust.is_some() { 443 } else { 80 });
        let addresses = self.addresses(port, deadline / 3, KEPT, clock()).await?;
        let failed = match connect_to_one(&addresses, deadline / 3).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let others = self.addresses(port, deadline / 6, LOOKUPS_APART, clock()).await?;
        if others == addresses { Err(failed) } else { connect_to_one(&others, deadline / 6).await }
    }

    /// The addresses, looked up again if they are older than `kept`.
    async fn addresses(
        &self,
        port: u16,
        patience: Duration,
        kept: Duration,
        now: Instant,
    ) -> io::Result<Vec<SocketAddr>> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let known = lock();
            let is_fresh = known.looked_up.is_some_and(|at| now.saturating_duration_since(at) < kept);
            if is_fresh && !known.addresses.is_empty() {
                return Ok(known.addresses.clone());
            }
        }
        let found = timeout(patience, lookup_host((self.host(), port))).await;
        let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let mut known = lock();
        known.looked_up = Some(now);
        match found {
            Ok(found) => {
                known.addresses = found.take(ADDRESSES_MAX).collect();
                Ok(known.addresses.clone())
            }
            Err(_) if !known.addresses.is_empty() => Ok(known.addresses.clone()),
            Err(error) => Err(error),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how long an address is kept is nobody's decision but ours")]
fn clock() -> Instant {
    Instant::now()
}

/// The time is shared by all addresses. If none works, the last error is returned.
async fn connect_to_one(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    let share = limit / u32::try_from(addresses.len()).unwrap_or(1).max(1);
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// If a name has more addresses, these are enough to reach one of its hosts.
const ADDRESSES_MAX: usize = 4;

/// The CAs that may sign the server's certificate.
#[derive(Debug)]
struct Trust {
    ca_file: Option<PathBuf>,
    /// Kept as long as the file does not change.
    config: Mutex<Option<(Option<Stamp>, Arc<ClientConfig>)>>,
}

/// Modification time and length of a file.
type Stamp = (SystemTime, u64);

impl Trust {
    fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let stamp = self.ca_file.as_deref().map(stamp).transpose()?;
        let mut made = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, config)) = &*made
            && *of == stamp
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(client_config(self.ca_file.as_deref())?);
        *made = Some((stamp, Arc::clone(&config)));
        Ok(config)
    }
}

fn stamp(path: &Path) -> Result<Stamp, String> {
    let found = fs::metadata(path).and_then(|found| Ok((found.modified()?, found.len())));
    found.map_err(|error| format!("cannot read ca_file {}: {error}", path.display()))
}

fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?;
    let builder = match ca_file {
        None => builder.with_platform_verifier().map_err(|error| {
            format!("cannot load this host's certificate store; install ca-certificates: {error}")
        })?,
        Some(path) => {
            let wrong =
                |error: &dyn std::fmt::Display| format!("cannot read ca_file {}: {error}", path.display());
            let mut roots = RootCertStore::empty();
            for authority in CertificateDer::pem_slice_iter(&fs::read(path).map_err(|error| wrong(&error))?) {
                let authority = authority.map_err(|error| wrong(&error))?;
                roots.add(authority).map_err(|error| wrong(&error))?;
            }
            if roots.is_empty() {
                return Err(wrong(&"it contains no PEM certificate"));
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(builder.with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_sent_in_the_clear_to_another_host() {
        let made = |url| Remote::new(url, "/t".into(), None);
        for fine in
            ["https://mon1:9093", "https://[2001:db8::1]", "http://127.0.0.1:9093", "http://[::1]:9/x"]
        {
            assert!(made(fine).is_ok(), "{fine}");
        }
        for (wrong, words) in [
            ("http://mon1:9093", "in the clear"),
            ("mon1:9093", "is"),
            ("/run/alertd.sock", "names no host"),
            ("ftp://mon1", "neither"),
            ("https://", "is not a URL"),
        ] {
            let said = made(wrong).unwrap_err();
            assert!(said.contains(words), "{wrong}: {said}");
        }
        assert_eq!(made("https://[2001:db8::1]:9093/a").unwrap().host(), "2001:db8::1");
    }

    /// F9: at rest the name is looked up every five minutes; while alertd is down, once a minute;
    /// while DNS fails, the last addresses stay.
    #[tokio::test]
    async fn addresses_are_kept() {
        let remote = Remote::new("https://localhost:1", "/t".into(), None).unwrap();
        let (patience, start) = (Duration::from_secs(5), clock());
        let first = remote.addresses(7, patience, KEPT, start).await.unwrap();
        assert!(!first.is_empty() && first.iter().all(|address| address.ip().is_loopback()));
        // The port tells the lookups apart.
        let port = async |at, kept| {
            remote.addresses(8, patience, kept, start + Duration::from_secs(at)).await.unwrap()[0].port()
        };
        assert_eq!(port(59, LOOKUPS_APART).await, 7, "looked up less than a minute ago");
        assert_eq!(port(299, KEPT).await, 7);
        assert_eq!(port(299, LOOKUPS_APART).await, 8, "cannot be reached");
        remote.known.lock().unwrap().addresses.clone_from(&first);
        assert_eq!(port(598, KEPT).await, 7);
        assert_eq!(port(600, KEPT).await, 8);
        let gone = Remote { url: "https://a..b".parse().unwrap(), ..remote };
        assert_eq!(gone.addresses(9, patience, Duration::ZERO, start).await.unwrap()[0].port(), 8);
        gone.known.lock().unwrap().addresses.clear();
        assert!(gone.addresses(9, patience, KEPT, start).await.is_err());
    }
}
