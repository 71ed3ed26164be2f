//! HTTP/1.1 over a unix socket, both ends. The server learns who calls from the kernel (SO_PEERCRED), not from the caller.
//!
//! At most [`CONNECTIONS_MAX`] callers are served at once, each for at most [`CONNECTION_LIVES`]: whoever may connect can make
//! others wait, but cannot use up the daemon's descriptors or memory.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Router,
    extract::connect_info::Connected,
    http::{Method, Request, StatusCode, header},
    serve::IncomingStream,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use nix::unistd::{Uid, User};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::{UnixListener, UnixStream},
    time::timeout,
};

use crate::bounded::Bounded;

/// Who is at the other end. Extract it in a handler with `ConnectInfo(peer): ConnectInfo<Peer>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    pub pid: Option<i32>,
}

impl Peer {
    /// Login name of the caller, or `uid 1234` if the system knows none.
    pub fn name(&self) -> String {
        match User::from_uid(Uid::from_raw(self.uid)) {
            Ok(Some(user)) => user.name,
            Ok(None) | Err(_) => format!("uid {}", self.uid),
        }
    }
}

impl Connected<IncomingStream<'_, Bounded<UnixListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded<UnixListener>>) -> Self {
        match stream.io().stream().peer_cred() {
            Ok(peer) => Self { uid: peer.uid(), pid: peer.pid() },
            // A peer that is gone already: nobody, who may do nothing.
            Err(_) => Self { uid: u32::MAX, pid: None },
        }
    }
}

/// Binds `path` with `mode` (say `0o660`), replacing the socket of a daemon that is gone.
///
/// # Errors
/// `AddrInUse` if somebody answers there already, or the path holds something that is not a socket.
pub fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let message = format!("{} exists and is not a socket; remove it", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            let message = format!("another process already serves {}", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
        }
        Ok(_) => fs::remove_file(path)?,
        Err(_) => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
        }
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Serves `router` until the returned future is dropped or fails.
pub async fn serve(listener: UnixListener, router: Router) -> io::Result<()> {
    let bounded = Bounded::new(listener, CONNECTIONS_MAX, CONNECTION_LIVES);
    axum::serve(bounded, router.into_make_service_with_connect_info::<Peer>()).await
}

/// Callers served at once; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 128;
/// Our own clients make one request a connection; the slowest answer (a test message) takes less.
pub const CONNECTION_LIVES: Duration = Duration::from_mins(2);

/// The calling end. One connection a request: calls are rare and the socket is local.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
    deadline: Duration,
}

/// Why a call brought no 2xx answer, by what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answers there: the daemon is down, or the caller may not enter.
    #[error("cannot reach {path}: {source}")]
    Unreachable { path: String, source: io::Error },
    /// No answer within the deadline, or one that is not HTTP.
    #[error("no answer from {path}: {reason}")]
    NoAnswer { path: String, reason: String },
    /// The daemon refused; its own words.
    #[error("{message}")]
    Refused { status: u16, retry_after: Option<Duration>, message: String },
}

impl Client {
    pub fn new(path: impl Into<PathBuf>, deadline: Duration) -> Self {
        Self { path: path.into(), deadline }
    }

    /// Asks and reads a JSON answer.
    pub async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, CallError> {
        self.call(Method::GET, target, None::<&()>).await
    }

    /// Sends a JSON body and reads a JSON answer.
    pub async fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        self.call(Method::POST, target, Some(body)).await
    }

    /// Any method. An empty answer reads as JSON `null`.
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
        let bytes = timeout(self.deadline, self.exchange(method, target, body))
            .await
            .map_err(|_| self.no_answer(format!("nothing within {:?}", self.deadline)))??;
        let bytes = if bytes.is_empty() { Bytes::from_static(b"null") } else { bytes };
        serde_json::from_slice(&bytes).map_err(|error| self.no_answer(format!("unreadable answer: {error}")))
    }

    async fn exchange(&self, method: Method, target: &str, body: Vec<u8>) -> Result<Bytes, CallError> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|source| CallError::Unreachable { path: self.path.display().to_string(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.no_answer(error.to_string()))?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.no_answer(error.to_string()))?;
        let reply = sender.send_request(request).await.map_err(|error| self.no_answer(error.to_string()))?;
        let status = reply.status();
        let retry_after = reply
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let bytes = Limited::new(reply.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| self.no_answer(error.to_string()))?
            .to_bytes();
        driver.abort();
        if status.is_success() { Ok(bytes) } else { Err(refused(status, retry_after, &bytes)) }
    }

    fn no_answer(&self, reason: String) -> CallError {
        CallError::NoAnswer { path: self.path.display().to_string(), reason }
    }
}

/// The longest answer that is read: a long list of incidents, not a stream.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

fn refused(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> CallError {
    let said = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|value| value.get("error")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    let message = if said.is_empty() { format!("refused: HTTP {status}") } else { said };
    CallError::Refused { status: status.as_u16(), retry_after, message }
}

#[cfg(test)]
mod tests {
    use axum::{Json, extract::ConnectInfo, routing::get};

    use super::*;

    #[tokio::test]
    async fn the_server_knows_the_caller_and_refusals_keep_their_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/x.sock");
        let listener = bind(&path, 0o600).unwrap();
        let router = Router::new()
            .route("/who", get(|ConnectInfo(peer): ConnectInfo<Peer>| async move { Json(peer.uid) }))
            .route(
                "/no",
                get(|| async { (StatusCode::CONFLICT, Json(serde_json::json!({"error": "not now"}))) }),
            );
        tokio::spawn(serve(listener, router));

        let client = Client::new(&path, Duration::from_secs(5));
        assert_eq!(client.get::<u32>("/who").await.unwrap(), nix::unistd::getuid().as_raw());
        assert_eq!(client.get::<u32>("/no").await.unwrap_err().to_string(), "not now");
        assert_eq!(bind(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn idle_callers_take_all_places_but_no_more_and_one_that_leaves_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let bounded = Bounded::new(bind(&path, 0o600).unwrap(), 2, CONNECTION_LIVES);
        let places = bounded.places();
        let router = Router::new().route("/", get(|| async { Json(1) }));
        tokio::spawn(async move {
            axum::serve(bounded, router.into_make_service_with_connect_info::<Peer>()).await
        });
        let idle = [UnixStream::connect(&path).await.unwrap(), UnixStream::connect(&path).await.unwrap()];
        let client = Client::new(&path, Duration::from_secs(30));
        let mut call = Box::pin(client.get::<u32>("/"));
        while places.available_permits() > 0 {
            assert!(is_pending(&mut call).await, "no place is left for it");
        }
        drop(idle);
        assert_eq!(call.await.unwrap(), 1);
    }

    /// Lets everything else run once; true while the call has no answer.
    async fn is_pending<F: Future + Unpin>(call: &mut F) -> bool {
        tokio::select! {
            biased;
            _ = call => false,
            () = tokio::task::yield_now() => true,
        }
    }

    #[tokio::test]
    async fn a_dead_daemons_socket_is_replaced_but_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(bind(&path, 0o600).unwrap());
        drop(bind(&path, 0o600).unwrap());
        let file = dir.path().join("precious");
        fs::write(&file, "data").unwrap();
        assert!(bind(&file, 0o600).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "data");
    }
}
