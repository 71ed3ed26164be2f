//! `/v1/backup`: returns a copy of the store as one file.
//!
//! The answer starts when the copy is complete, so the header [`ABOUT`] can state its length and
//! SHA-256 ([`ctl::Backup`] as JSON); a client that reads less has no backup. It has its own time
//! limits, because copying a large store takes longer than any other request.

use std::{
    fs::File,
    io::{self, Read as _},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Extension,
    body::{self, Bytes},
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use dogwatch_daemon::http_server::Life;
use dogwatch_wire::ctl::{self, BACKUP_HEADER as ABOUT};
use hyper::body::{Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::spawn_blocking,
    time::timeout,
};

use super::{Api, Failure, PATIENCE, access::Caller, body::Body};
use crate::{
    clock,
    engine::{Access, Input},
    store::backup::{Copy, Stop},
};

/// For making the copy and reading it again: 30 GiB at 20 MiB per second.
const MAKING: Duration = Duration::from_mins(30);
/// For everything, including sending it to a slow client.
const WHOLE: Duration = Duration::from_hours(3);
/// A client that reads nothing for this long is gone.
const PIECE: Duration = Duration::from_mins(1);
const PIECE_BYTES: usize = 256 * 1024;
const PIECES_AHEAD: usize = 2;

pub(super) async fn back_up(
    State(api): State<Api>,
    caller: Caller,
    life: Option<Extension<Life>>,
    body: Body,
) -> Result<Response, Failure> {
    let ctl::NewBackup {} = body.json()?;
    let place = Arc::clone(&api.backup).try_acquire_owned();
    let place =
        place.map_err(|_| Failure::Unavailable("another backup is running; try again later".into()))?;
    if let Some(Extension(life)) = life {
        life.prolong(WHOLE);
    }
    let stop = StopWhenDropped(Stop::default());
    let (archive, stopped, now) = (Arc::clone(&api.archive), stop.0.clone(), clock::wall());
    let making = spawn_blocking(move || archive.copy(now, &stopped).map(|copy| (copy, place)));
    let (mut copy, place) = match timeout(MAKING, making).await {
        Ok(Ok(made)) => made.map_err(|error| Failure::Unavailable(format!("backup failed: {error}")))?,
        Ok(Err(error)) => return Err(Failure::Unavailable(format!("backup failed: {error}"))),
        Err(_) => {
            return Err(Failure::Unavailable(format!("backup failed: the copy took longer than {MAKING:?}")));
        }
    };
    let about = &mut copy.about;
    let text = format!("{} bytes, {} incidents, SHA-256 {}", about.bytes, about.incidents, about.sha256);
    let noted = |answer| Input::Access(Access::BackedUp(caller.name(), text, answer));
    // Written to the audit log before the first byte is sent.
    let trouble = api.ask_by(&caller, PATIENCE, noted).await?;
    about.warning = trouble.map(|trouble| {
        format!(
            "cannot write to the store ({trouble}); recent changes exist only in alertd's memory, \
             not in this backup"
        )
    });
    let head = serde_json::to_vec(&about).unwrap_or_default();
    let head = HeaderValue::from_bytes(&head).map_err(|_| {
        Failure::Unavailable("backup failed: the name of state_dir is not valid in a header".into())
    })?;
    let unreadable = |error: io::Error| Failure::Unavailable(format!("backup failed: {error}"));
    let file = copy.open().map_err(unreadable)?;
    let (pieces, to_send) = mpsc::channel(PIECES_AHEAD);
    let body = body::Body::new(Pieces { to_send, left: copy.about.bytes });
    tokio::spawn(read_out(file, copy, place, pieces));
    let kind = HeaderValue::from_static("application/vnd.sqlite3");
    Ok(([(header::CONTENT_TYPE, kind), (HeaderName::from_static(ABOUT), head)], body).into_response())
}

/// Stops making the copy when the client disconnects.
struct StopWhenDropped(Stop);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.now();
    }
}

/// Sends the copy in pieces; keeps it, and the permit for one backup at a time, until the last
/// piece is sent.
async fn read_out(
    mut file: File,
    _copy: Copy,
    _place: OwnedSemaphorePermit,
    pieces: mpsc::Sender<io::Result<Bytes>>,
) {
    loop {
        let reading = spawn_blocking(move || {
            let mut piece = vec![0; PIECE_BYTES];
            let read = file.read(&mut piece);
            let read = read.map(|bytes| {
                piece.truncate(bytes);
                Bytes::from(piece)
            });
            (file, read)
        });
        let Ok((same, piece)) = reading.await else { return };
        file = same;
        let last = piece.as_ref().is_ok_and(Bytes::is_empty);
        if last || !matches!(timeout(PIECE, pieces.send(piece)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// A body that is sent in pieces.
struct Pieces {
    to_send: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = std::task::ready!(self.to_send.poll_recv(cx));
        Poll::Ready(piece.map(|piece| {
            let piece = piece?;
            self.left = self.left.saturating_sub(piece.len() as u64);
            Ok(Frame::data(piece))
        }))
    }

    /// Sets the content length, so that an early end is an error for the client.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
