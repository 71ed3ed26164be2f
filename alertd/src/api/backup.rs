//! `/v1/backup`: a copy of the store, as one file.
//!
//! The answer begins when the copy is whole: then its head says how long it is and its SHA-256 ([`ctl::Backup`] as JSON in the
//! header [`ABOUT`]), and whoever reads less has no backup. The bounds are its own, for a large store takes longer than
//! anything else that is asked.

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
use dogwatch_daemon::bounded::Life;
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

/// For the copy to be made and read again: at 20 MiB a second, 30 GiB.
const MAKING: Duration = Duration::from_mins(30);
/// For all of it, on the way to a slow caller too.
const WHOLE: Duration = Duration::from_hours(3);
/// A caller who takes nothing for so long has gone.
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
        place.map_err(|_| Failure::Unavailable("another backup is being made; ask again later".into()))?;
    if let Some(Extension(life)) = life {
        life.prolong(WHOLE);
    }
    let stop = StopWhenDropped(Stop::default());
    let (archive, stopped, now) = (Arc::clone(&api.archive), stop.0.clone(), clock::wall());
    let making = spawn_blocking(move || archive.copy(now, &stopped).map(|copy| (copy, place)));
    let (mut copy, place) = match timeout(MAKING, making).await {
        Ok(Ok(made)) => made.map_err(|error| Failure::Unavailable(format!("no backup: {error}")))?,
        Ok(Err(error)) => return Err(Failure::Unavailable(format!("no backup: {error}"))),
        Err(_) => {
            return Err(Failure::Unavailable(format!("no backup: the copy was not made within {MAKING:?}")));
        }
    };
    let about = &mut copy.about;
    let text = format!("{} bytes, {} incidents, SHA-256 {}", about.bytes, about.incidents, about.sha256);
    let noted = |answer| Input::Access(Access::BackedUp(caller.name(), text, answer));
    // Before the first byte leaves, so that nobody has it whom the audit log does not know.
    let trouble = api.ask_by(&caller, PATIENCE, noted).await?;
    about.warning = trouble.map(|trouble| {
        format!("the store fails ({trouble}), so what was decided since is only in alertd's memory, not in this backup")
    });
    let head = serde_json::to_vec(&about).unwrap_or_default();
    let head = HeaderValue::from_bytes(&head).map_err(|_| {
        Failure::Unavailable("no backup: the state_dir has a name that no header can hold".into())
    })?;
    let unreadable = |error: io::Error| Failure::Unavailable(format!("no backup: {error}"));
    let file = copy.open().map_err(unreadable)?;
    let (pieces, to_send) = mpsc::channel(PIECES_AHEAD);
    let body = body::Body::new(Pieces { to_send, left: copy.about.bytes });
    tokio::spawn(read_out(file, copy, place, pieces));
    let kind = HeaderValue::from_static("application/vnd.sqlite3");
    Ok(([(header::CONTENT_TYPE, kind), (HeaderName::from_static(ABOUT), head)], body).into_response())
}

/// The caller hung up: nobody needs the copy.
struct StopWhenDropped(Stop);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.now();
    }
}

/// Keeps the copy, and the place of the one backup at a time, until the last piece is taken.
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

/// A body that arrives piece by piece.
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

    /// Says the length in the answer's head; an end before that is an error for whoever reads.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
