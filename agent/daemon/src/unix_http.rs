//! HTTP/1.1 over a unix socket, with the client of `http_client.rs`. The server knows the caller
//! from the kernel (SO_PEERCRED), not from what the caller claims.
//!
//! The [`Bounds`] of the listener say how much of the daemon one user may use.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{Router, extract::ConnectInfo, http::Extensions};
use nix::unistd::{Uid, User};
use tokio::{net::UnixListener, time::sleep};

pub use crate::http_client::{CallError, Client};
use crate::{
    bounds::{Bounds, Places, Who},
    http_server::{bounded, talk},
};

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

/// Serves `router` until dropped.
pub async fn serve(listener: UnixListener, router: Router, bounds: Bounds) {
    serve_places(listener, router, Places::new(bounds)).await;
}

async fn serve_places(listener: UnixListener, router: Router, places: Arc<Places>) {
    let bounds = *places.bounds();
    let router = bounded(router, &bounds);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(%error, listener = bounds.listener, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // The caller is gone already: treat it as the user without any rights.
        let peer = stream
            .peer_cred()
            .map_or(Peer { uid: u32::MAX, pid: None }, |peer| Peer { uid: peer.uid(), pid: peer.pid() });
        let who = Who::Uid(peer.uid);
        let Some(place) = places.enter(who) else { continue };
        let router = router.clone();
        tokio::spawn(async move {
            let introduce = move |extensions: &mut Extensions| {
                extensions.insert(ConnectInfo(peer.clone()));
                extensions.insert(who);
            };
            talk(stream, place, &bounds, router, introduce).await;
        });
    }
}

/// After an error that the next accept would meet again, for example no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use axum::{Extension, Json, http::StatusCode, routing::get};
    use tokio::net::UnixStream;

    use super::*;
    use crate::{bounds::AGENT_SOCKET, http_server::Life};

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
        tokio::spawn(serve(listener, router, AGENT_SOCKET));

        let client = Client::new(&path, Duration::from_secs(5));
        assert_eq!(client.get::<u32>("/who").await.unwrap(), nix::unistd::getuid().as_raw());
        assert_eq!(client.get::<u32>("/no").await.unwrap_err().to_string(), "not now");
        assert_eq!(bind(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    /// S9: idle connections of one user, many more than there are places.
    #[tokio::test]
    async fn idle_connections_keep_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let listener = bind(&path, 0o600).unwrap();
        let places = Places::new(Bounds { connections: 8, share: 4, ..AGENT_SOCKET });
        let router = Router::new().route("/", get(|| async { Json(1) }));
        tokio::spawn(serve_places(listener, router, Arc::clone(&places)));
        let mut idle = Vec::new();
        let client = Client::new(&path, Duration::from_secs(30));
        for _ in 0..20 {
            for _ in 0..10 {
                idle.push(UnixStream::connect(&path).await.unwrap());
            }
            assert_eq!(client.get::<u32>("/").await.unwrap(), 1);
            assert!(places.count() <= 4);
        }
    }

    #[tokio::test]
    async fn a_handler_can_extend_the_time_of_its_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let listener = bind(&path, 0o600).unwrap();
        let bounds = Bounds {
            life: Duration::from_millis(100),
            last_answer: Duration::from_millis(100),
            ..AGENT_SOCKET
        };
        let slow = || async {
            sleep(Duration::from_millis(600)).await;
            Json(7)
        };
        let whole = move |Extension(life): Extension<Life>| {
            life.prolong(Duration::from_secs(30));
            slow()
        };
        let router = Router::new().route("/cut", get(slow)).route("/whole", get(whole));
        tokio::spawn(serve(listener, router, bounds));
        let client = Client::new(&path, Duration::from_secs(30));
        assert_eq!(client.get::<u32>("/whole").await.unwrap(), 7);
        assert!(client.get::<u32>("/cut").await.is_err());
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
