//! Reads the body of a request, with limits for size and time.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    response::Response,
};
use dogwatch_daemon::bounds::{Held, Who};
use dogwatch_wire::limits;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;

use super::{Api, Failure, PATIENCE};

/// A complete body. A body that is too large is read anyway, up to a limit: a client that is still
/// sending does not read, and if we closed the connection, it would not see the answer.
///
/// Its bytes count against the budget of all bodies until it is dropped.
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) held: Held,
}

/// Bytes of a body that is too large that are read and dropped.
const DRAINED_BYTES_MAX: usize = 16 * limits::BODY_BYTES_MAX;
/// A client that sends nothing for this long is ready to read the answer.
const DRAIN_PAUSE_MAX: Duration = Duration::from_millis(300);

impl FromRequest<Api> for Body {
    type Rejection = Response;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Response> {
        let (head, body) = request.into_parts();
        let who = head.extensions.get::<Who>().copied().unwrap_or(Who::Uid(u32::MAX));
        let mut kept = api.bodies.hold(who);
        let read = tokio::time::timeout(PATIENCE, read_whole(body, &mut kept)).await;
        let read = read.unwrap_or(Err(Failure::Slow(PATIENCE)));
        read.map(|bytes| Self { bytes, held: kept }).map_err(|failure| failure.answer(head.uri.path()))
    }
}

impl Body {
    /// Parses the body; an empty body is an empty object.
    pub(crate) fn json<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let body = if self.bytes.is_empty() { Bytes::from_static(b"{}") } else { self.bytes };
        serde_json::from_slice(&body).map_err(|error| Failure::Bad(format!("invalid body: {error}")))
    }
}

async fn read_whole(mut body: axum::body::Body, held: &mut Held) -> Result<Bytes, Failure> {
    let announced = body.size_hint().lower();
    let (mut whole, mut read) = (Vec::new(), 0);
    let mut too_large = announced > limits::BODY_BYTES_MAX as u64;
    loop {
        let frame = if too_large {
            let Ok(frame) = tokio::time::timeout(DRAIN_PAUSE_MAX, body.frame()).await else { break };
            frame
        } else {
            body.frame().await
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| Failure::Bad(format!("the body is incomplete: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        read += data.len();
        too_large |= read > limits::BODY_BYTES_MAX;
        if read > DRAINED_BYTES_MAX {
            break;
        }
        if !too_large {
            if !held.grow(data.len()) {
                return Err(Failure::Unavailable(
                    "too many large requests at once; try again in a moment".into(),
                ));
            }
            whole.extend_from_slice(&data);
        }
    }
    if too_large { Err(Failure::TooLarge) } else { Ok(whole.into()) }
}
