//! The control socket: HTTP over a unix socket, JSON answers.
//!
//! | target | answer |
//! | --- | --- |
//! | `GET /v1/sensors` | the check results `dns-upstream` and `dns-stale`, for the agent |
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/why?name=NAME&type=TYPE` | [`Why`] |

use std::{fmt::Write as _, path::Path, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use dogwatch_daemon::unix_http::{CallError, Client};
use serde::Deserialize;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    event::{Event, Question},
    name,
    resolver::{SensorResult, Status, Why},
};

/// The loop answers within milliseconds or is in trouble.
const DEADLINE: Duration = Duration::from_secs(2);

pub(crate) fn router(events: mpsc::Sender<Event>) -> Router {
    Router::new()
        .route("/v1/sensors", get(sensors))
        .route("/v1/status", get(status))
        .route("/v1/why", get(why))
        .with_state(events)
}

type Events = State<mpsc::Sender<Event>>;

async fn sensors(State(events): Events) -> Response {
    ask(&events, Question::Sensors).await
}

async fn status(State(events): Events) -> Response {
    ask(&events, Question::Status).await
}

#[derive(Deserialize)]
struct WhyQuery {
    name: String,
    #[serde(rename = "type", default = "type_a")]
    kind: String,
}

fn type_a() -> String {
    "A".into()
}

async fn why(State(events): Events, Query(query): Query<WhyQuery>) -> Response {
    let Some(name) = name::from_text(&query.name) else {
        return refuse(StatusCode::BAD_REQUEST, &format!("{:?} is not a domain name", query.name));
    };
    let Some(kind) = name::type_from_text(&query.kind) else {
        let message = format!("{:?} is not a record type; write one like A, AAAA or TYPE65", query.kind);
        return refuse(StatusCode::BAD_REQUEST, &message);
    };
    ask(&events, |answer| Question::Why { name, kind, answer }).await
}

async fn ask<T: serde::Serialize>(
    events: &mpsc::Sender<Event>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Response {
    let (answer, answered) = oneshot::channel();
    let exchange = async {
        events.send(Event::Question(question(answer))).await.ok()?;
        answered.await.ok()
    };
    match timeout(DEADLINE, exchange).await {
        Ok(Some(answer)) => Json(answer).into_response(),
        Ok(None) | Err(_) => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, "the cache is stopping or overloaded; try again")
        }
    }
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(serde_json::json!({ "error": message }))).into_response()
}

/// The other end: what the agent and the command line ask.
pub struct Control(Client);

impl Control {
    pub fn at(socket: &Path) -> Self {
        Self(Client::new(socket, DEADLINE * 2))
    }

    pub async fn sensors(&self) -> Result<Vec<SensorResult>, CallError> {
        self.0.get("/v1/sensors").await
    }

    pub async fn status(&self) -> Result<Status, CallError> {
        self.0.get("/v1/status").await
    }

    pub async fn why(&self, name: &str, kind: &str) -> Result<Why, CallError> {
        self.0.get(&format!("/v1/why?name={}&type={}", encoded(name), encoded(kind))).await
    }
}

/// Percent-encoding of a query's value (RFC 3986 §2.1).
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
