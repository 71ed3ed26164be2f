//! Reads the body of a request, with limits for size and time.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    response::Response,
};
use dogwatch_wire::limits;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde::de::DeserializeOwned;

use super::{Api, Failure, PATIENCE};

/// A complete body. A body that is too large is read anyway, up to a limit: a client that is still
/// sending does not read, and if we closed the connection, it would not see the answer.
pub(crate) struct Body(pub(crate) Bytes);

/// Bytes of a body that is too large that are read and dropped.
const DRAINED_BYTES_MAX: usize = 16 * limits::BODY_BYTES_MAX;
/// A client that sends nothing for this long is ready to read the answer.
const DRAIN_PAUSE_MAX: Duration = Duration::from_millis(300);

impl FromRequest<Api> for Body {
    type Rejection = Response;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Response> {
        let (head, body) = request.into_parts();
        let read = tokio::time::timeout(PATIENCE, read_whole(body)).await;
        let read = read.unwrap_or(Err(Failure::Slow(PATIENCE)));
        read.map(Self).map_err(|failure| failure.answer(head.uri.path()))
    }
}

impl Body {
    /// Parses the body; an empty body is an empty object.
    pub(crate) fn json<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let body = if self.0.is_empty() { Bytes::from_static(b"{}") } else { self.0 };
        serde_json::from_slice(&body).map_err(|error| Failure::Bad(format!("invalid body: {error}")))
    }
}

async fn read_whole(mut body: axum::body::Body) -> Result<Bytes, Failure> {
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
            whole.extend_from_slice(&data);
        }
    }
    if too_large { Err(Failure::TooLarge) } else { Ok(whole.into()) }
}
