//! The control socket: HTTP over a unix socket, JSON answers.
//!
//! | target | answer |
//! | --- | --- |
//! | `GET /v1/sensors` | the check results `dns-upstream`, `dns-stale` and `dns-guard`, for the agent |
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/why?name=NAME&type=TYPE` | [`Why`] |
//! | `POST /v1/accept` `{"name": NAME}` | takes upstream's word for that name and all below it: [`Acceptance`] |
//!
//! Who may connect may ask and accept: the socket's mode says who that is.

use std::{fmt::Write as _, path::Path, time::Duration};

use axum::{
    Json, Router,
    extract::{ConnectInfo, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use dogwatch_daemon::unix_http::{CallError, Client, Peer};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    event::{Event, Question},
    guard, name,
    resolver::{SensorResult, Status, Why},
};

/// The loop answers within milliseconds or is in trouble.
const DEADLINE: Duration = Duration::from_secs(2);

pub(crate) fn router(events: mpsc::Sender<Event>) -> Router {
    Router::new()
        .route("/v1/sensors", get(sensors))
        .route("/v1/status", get(status))
        .route("/v1/why", get(why))
        .route("/v1/accept", post(accept))
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

#[derive(Debug, Serialize, Deserialize)]
struct AcceptBody {
    name: String,
}

/// What was held and is no longer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Acceptance {
    /// As it was asked for.
    pub accepted: String,
    /// `www.example A`; the first of them.
    pub names: Vec<String>,
    pub more: usize,
    /// Groups of names that were held together.
    pub groups: usize,
    /// For how long its names are not guarded from now on.
    pub unguarded_s: u64,
}

/// Names that an [`Acceptance`] spells out.
const ACCEPTED_NAMED: usize = 20;

async fn accept(
    State(events): Events,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(body): Json<AcceptBody>,
) -> Response {
    let Some(name) = name::from_text(&body.name) else {
        return refuse(StatusCode::BAD_REQUEST, &format!("{:?} is not a domain name", body.name));
    };
    let accepted = match put(&events, |answer| Question::Accept { name, answer }).await {
        Ok(accepted) => accepted,
        Err(refusal) => return refusal,
    };
    let names = accepted.keys.iter().filter_map(|key| name::read_key(key)).map(|(question, ..)| {
        format!("{} {}", name::to_text(question.name), name::type_to_text(question.kind))
    });
    let mut names: Vec<String> = names.collect();
    names.dedup();
    let more = names.len().saturating_sub(ACCEPTED_NAMED);
    tracing::info!(
        user = peer.name(),
        uid = peer.uid,
        name = body.name,
        names = names.len(),
        groups = accepted.trips,
        "upstream's word accepted"
    );
    names.truncate(ACCEPTED_NAMED);
    Json(Acceptance {
        accepted: body.name,
        names,
        more,
        groups: accepted.trips,
        unguarded_s: guard::PASS.as_secs(),
    })
    .into_response()
}

async fn ask<T: Serialize>(
    events: &mpsc::Sender<Event>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Response {
    put(events, question).await.map_or_else(|refusal| refusal, |answer| Json(answer).into_response())
}

/// Asks the loop.
async fn put<T>(
    events: &mpsc::Sender<Event>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Result<T, Response> {
    let (answer, answered) = oneshot::channel();
    let exchange = async {
        events.send(Event::Question(question(answer))).await.ok()?;
        answered.await.ok()
    };
    match timeout(DEADLINE, exchange).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) | Err(_) => {
            Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the cache is stopping or overloaded; try again"))
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

    /// Takes upstream's word for a name and all below it.
    pub async fn accept(&self, name: &str) -> Result<Acceptance, CallError> {
        self.0.post("/v1/accept", &AcceptBody { name: name.into() }).await
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
