//! A stand-in for HTTP receivers. It keeps requests, checks them, and can be set to answer
//! differently for a while.
//!
//! The judges know the rules of Slack's incoming webhooks and of ntfy, written from their
//! documentation, apart from the code under test.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::Value;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// What it was answered.
    pub status: u16,
}

impl Request {
    /// # Panics
    /// If it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// Says what is wrong with a request; `Ok` is the answer's body.
pub type Judge = fn(&Request) -> Result<String, String>;

pub struct HttpServer {
    /// Scheme, host and port.
    pub url: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    /// Status and further header lines of the next answers.
    instead: VecDeque<(u16, String)>,
}

impl HttpServer {
    /// # Panics
    /// If loopback has no free port.
    pub fn start(judge: Judge) -> Self {
        Self::serve(judge, None)
    }

    /// With TLS by the certificate and key (PEM).
    ///
    /// # Panics
    /// If they cannot be used.
    pub fn start_tls(judge: Judge, certificate: &Path, key: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate).expect("a certificate");
        let chain = chain.collect::<Result<_, _>>().expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows them")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("they fit");
        Self::serve(judge, Some(Arc::new(config)))
    }

    fn serve(judge: Judge, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (shared, scheme) = (Arc::clone(&seen), if tls.is_some() { "https" } else { "http" });
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
                    match tls {
                        None => answer(stream, judge, &shared),
                        Some(config) => {
                            let Ok(session) = ServerConnection::new(config) else { return };
                            answer::<StreamOwned<ServerConnection, TcpStream>>(
                                StreamOwned::new(session, stream),
                                judge,
                                &shared,
                            );
                        }
                    }
                });
            }
        });
        Self { url: format!("{scheme}://{address}"), seen }
    }

    /// Every request, in order, whatever was answered.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.seen).requests.clone()
    }

    /// Those that were taken.
    pub fn taken(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.status == 200).collect()
    }

    /// Answers the next `times` requests with `status` and these header lines, whatever they say.
    pub fn answer_next(&self, times: usize, status: u16, headers: &str) {
        lock(&self.seen).instead.extend(std::iter::repeat_n((status, headers.to_owned()), times));
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer<S: Read + Write>(stream: S, judge: Judge, seen: &Mutex<Seen>) {
    let mut reader = BufReader::new(stream);
    let Some(mut request) = read(&mut reader) else { return };
    let mut seen = lock(seen);
    let (status, headers, body) = match seen.instead.pop_front() {
        Some((status, headers)) => (status, headers, "as told".to_owned()),
        None => match judge(&request) {
            Ok(body) => (200, String::new(), body),
            Err(why) => (400, String::new(), why),
        },
    };
    request.status = status;
    seen.requests.push(request);
    drop(seen);
    let mut text = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    let _ = write!(text, "{headers}\r\n{body}");
    let stream = reader.get_mut();
    let _ = stream.write_all(text.as_bytes());
    let _ = stream.flush();
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let path = first.strip_prefix("POST ")?.split(' ').next()?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body, status: 0 })
}

/// Takes any JSON.
///
/// # Errors
/// If it is none.
pub fn any_json(request: &Request) -> Result<String, String> {
    serde_json::from_slice::<Value>(&request.body).map(|_| "{}".into()).map_err(|error| error.to_string())
}

/// The rules of Slack's incoming webhooks that a sender can break.
///
/// # Errors
/// In Slack's words.
pub fn slack(request: &Request) -> Result<String, String> {
    let body: Value = serde_json::from_slice(&request.body).map_err(|_| "invalid_payload")?;
    let text = body["text"].as_str().ok_or("no_text")?;
    let attachments = body["attachments"].as_array().ok_or("invalid_attachments")?;
    if text.is_empty() || text.chars().count() > 40_000 || attachments.len() > 100 {
        return Err("invalid_payload".into());
    }
    for attachment in attachments {
        let color = attachment["color"].as_str().unwrap_or_default();
        if attachment["fallback"].as_str().is_none_or(str::is_empty) || !color.starts_with('#') {
            return Err("invalid_attachments".into());
        }
    }
    // Control sequences must be the three entities.
    if request.body.contains(&b'<') || request.body.contains(&b'>') {
        return Err("unescaped".into());
    }
    Ok("ok".into())
}

/// The rules of ntfy's "publish as JSON".
///
/// # Errors
/// In ntfy's form.
pub fn ntfy(request: &Request) -> Result<String, String> {
    let wrong = |why: &str| serde_json::json!({ "code": 40_024, "http": 400, "error": why }).to_string();
    let body: Value = serde_json::from_slice(&request.body).map_err(|_| wrong("invalid JSON"))?;
    let topic = body["topic"].as_str().unwrap_or_default();
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if request.path != "/" || topic.is_empty() || topic.len() > 64 || !topic.chars().all(good) {
        return Err(wrong("invalid topic"));
    }
    if body["message"].as_str().is_none_or(|message| message.len() > 4_096) {
        return Err(wrong("message too long: it would become an attachment"));
    }
    if body["priority"].as_u64().is_none_or(|priority| !(1..=5).contains(&priority)) {
        return Err(wrong("invalid priority"));
    }
    if body["tags"].as_array().is_none_or(|tags| !tags.iter().all(Value::is_string)) {
        return Err(wrong("invalid tags"));
    }
    if request.headers.get("authorization").map(String::as_str) != Some("Bearer tk_test") {
        return Err(wrong("forbidden"));
    }
    Ok(serde_json::json!({ "id": "hwQ2YpKdmg", "event": "message", "topic": topic }).to_string())
}
