//! A request's body: whole, bounded in size and time.

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

/// A whole body. One that is too large is read to its end all the same, within reason: whoever still sends does not
/// listen, and a connection that is cut would hide the answer.
pub(crate) struct Body(pub(crate) Bytes);

/// Read and thrown away of a body that is too large.
const DRAINED_BYTES_MAX: usize = 16 * limits::BODY_BYTES_MAX;
/// Who sends nothing for so long listens.
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
    /// Reads it; an empty one as an empty object.
    pub(crate) fn json<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let body = if self.0.is_empty() { Bytes::from_static(b"{}") } else { self.0 };
        serde_json::from_slice(&body)
            .map_err(|error| Failure::Bad(format!("the body is not what is asked: {error}")))
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
        let frame = frame.map_err(|error| Failure::Bad(format!("the body is cut short: {error}")))?;
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
