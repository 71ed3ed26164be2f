//! HTTP/1.1 over a unix socket, with the client of `http_client.rs`. The server knows the caller
//! from the kernel (SO_PEERCRED), not from what the caller claims.
//!
//! At most [`CONNECTIONS_MAX`] connections are served at once, each for at most
//! [`CONNECTION_LIVES`]. Callers can make each other wait, but they cannot use up the daemon's file
//! descriptors or memory.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, Request, connect_info::Connected},
    middleware::map_request,
    serve::IncomingStream,
};
use nix::unistd::{Uid, User};
use tokio::net::UnixListener;

use crate::bounded::{Bounded, Life};
pub use crate::http_client::{CallError, Client};

/// The user at the other end. Extract it in a handler with `ConnectInfo(peer): ConnectInfo<Peer>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    pub pid: Option<i32>,
}

impl Peer {
    /// Login name of the caller, or `uid 1234` if the system has no name for it.
    pub fn name(&self) -> String {
        match User::from_uid(Uid::from_raw(self.uid)) {
            Ok(Some(user)) => user.name,
            Ok(None) | Err(_) => format!("uid {}", self.uid),
        }
    }
}

/// A connection as it was accepted.
#[derive(Debug, Clone)]
struct Accepted {
    peer: Peer,
    life: Life,
}

impl Connected<IncomingStream<'_, Bounded<UnixListener>>> for Accepted {
    fn connect_info(stream: IncomingStream<'_, Bounded<UnixListener>>) -> Self {
        let peer = match stream.io().stream().peer_cred() {
            Ok(peer) => Peer { uid: peer.uid(), pid: peer.pid() },
            // The caller is gone already: treat it as the user without any rights.
            Err(_) => Peer { uid: u32::MAX, pid: None },
        };
        Self { peer, life: stream.io().life() }
    }
}

/// Gives the handlers the caller and the time of the connection.
async fn introduce(mut request: Request) -> Request {
    if let Some(ConnectInfo(Accepted { peer, life })) = request.extensions_mut().remove() {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(life);
    }
    request
}

/// Binds `path` with `mode` (for example `0o660`). Replaces the socket of a daemon that has ended.
///
/// # Errors
/// `AddrInUse` if a daemon answers at `path` already, or if `path` is not a socket.
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
    serve_bounded(Bounded::new(listener, CONNECTIONS_MAX, CONNECTION_LIVES), router).await
}

async fn serve_bounded(listener: Bounded<UnixListener>, router: Router) -> io::Result<()> {
    let router = router.layer(map_request(introduce));
    axum::serve(listener, router.into_make_service_with_connect_info::<Accepted>()).await
}

/// More connections wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 128;
/// Our own clients make one request per connection; the slowest answer (a test message) takes less.
pub const CONNECTION_LIVES: Duration = Duration::from_mins(2);

#[cfg(test)]
mod tests {
    use axum::{Extension, Json, http::StatusCode, routing::get};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn the_server_knows_the_caller_and_errors_keep_their_message() {
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
    async fn connections_are_limited_and_a_closed_one_makes_room_for_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let bounded = Bounded::new(bind(&path, 0o600).unwrap(), 2, CONNECTION_LIVES);
        let places = bounded.places();
        let router = Router::new().route("/", get(|| async { Json(1) }));
        tokio::spawn(serve_bounded(bounded, router));
        let idle = [UnixStream::connect(&path).await.unwrap(), UnixStream::connect(&path).await.unwrap()];
        let client = Client::new(&path, Duration::from_secs(30));
        let mut call = Box::pin(client.get::<u32>("/"));
        while places.available_permits() > 0 {
            assert!(is_pending(&mut call).await, "no place is left for it");
        }
        drop(idle);
        assert_eq!(call.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_handler_can_extend_the_time_of_its_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let lives = Duration::from_millis(100);
        let bounded = Bounded::new(bind(&path, 0o600).unwrap(), 2, lives);
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            Json(7)
        };
        let whole = move |Extension(life): Extension<Life>| {
            life.prolong(Duration::from_secs(30));
            slow()
        };
        let router = Router::new().route("/cut", get(slow)).route("/whole", get(whole));
        tokio::spawn(serve_bounded(bounded, router));
        let client = Client::new(&path, Duration::from_secs(30));
        assert_eq!(client.get::<u32>("/whole").await.unwrap(), 7);
        assert!(client.get::<u32>("/cut").await.is_err());
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
    async fn the_socket_of_a_dead_daemon_is_replaced_but_a_file_is_not() {
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
