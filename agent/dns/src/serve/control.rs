//! The control socket: HTTP over a unix socket, JSON answers.
//!
//! | target | answer |
//! | --- | --- |
//! | `GET /v1/sensors` | the check results `dns-upstream`, `dns-stale` and `dns-guard`, for the agent |
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/why?name=NAME&type=TYPE` | [`Explanation`] |
//! | `POST /v1/accept` `{"name": NAME}` | takes upstream's word for that name and all below it: [`Acceptance`] |
//! | `GET /v1/top?order=uses\|stale\|risk&limit=N` | `Vec<`[`Listed`]`>` |
//! | `GET /v1/dump?zone=ZONE&from=PLACE` | [`Page`] |
//! | `POST /v1/flush` [`Flush`] | [`Flushed`] |
//! | `POST /v1/drill` [`Drill`] | [`DrillStatus`] |
//! | `DELETE /v1/drill` | `null` |
//!
//! Anyone who can connect (root and members of the socket's group) may use every target. Changes
//! are logged with the caller's login name, which comes from the kernel.

use std::{path::Path, time::Duration};

use axum::{
    Json, Router,
    extract::{ConnectInfo, Query, State, rejection::JsonRejection},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use dogwatch_daemon::{
    duration::Span,
    unix_http::{CallError, Client, Peer},
};
use dogwatch_dns_core::{
    fire_drill, guard,
    message::name,
    resolver::{DrillStatus, Explanation, Flushed, Listed, Order, Page, Selection, SensorResult, Status},
};
use form_urlencoded::byte_serialize;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::serve::event::{Event, NewDrill, Question};

/// The loop normally answers within milliseconds.
const DEADLINE: Duration = Duration::from_secs(2);

pub(crate) fn router(events: mpsc::Sender<Event>) -> Router {
    Router::new()
        .route("/v1/sensors", get(sensors))
        .route("/v1/status", get(status))
        .route("/v1/why", get(why))
        .route("/v1/accept", post(accept))
        .route("/v1/top", get(top))
        .route("/v1/dump", get(dump))
        .route("/v1/flush", post(flush))
        .route("/v1/drill", post(start_drill).delete(end_drill))
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
    match domain(&query.name).and_then(|name| Ok((name, record_type(&query.kind)?))) {
        Ok((name, kind)) => ask(&events, |answer| Question::Why { name, kind, answer }).await,
        Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct AcceptBody {
    name: String,
}

/// The names that are no longer held.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Acceptance {
    /// The name as given by the caller.
    pub accepted: String,
    /// Names and types such as `www.example A`; at most 20 of them.
    pub names: Vec<String>,
    pub more: usize,
    /// Groups of names that were held together.
    pub groups: usize,
    /// How long the guards now ignore these names.
    pub unguarded_s: u64,
}

/// Names listed in an [`Acceptance`] at most.
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
        Ok(Some(accepted)) => accepted,
        Ok(None) => {
            let message =
                format!("no name at or below {:?} is cached, so none is held: check the spelling", body.name);
            return refuse(StatusCode::NOT_FOUND, &message);
        }
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
        "upstream answers accepted by hand"
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

#[derive(Deserialize)]
struct TopQuery {
    order: Order,
    limit: usize,
}

async fn top(State(events): Events, Query(query): Query<TopQuery>) -> Response {
    ask(&events, |answer| Question::Top { order: query.order, limit: query.limit, answer }).await
}

#[derive(Deserialize)]
struct DumpQuery {
    zone: String,
    from: u32,
}

async fn dump(State(events): Events, Query(query): Query<DumpQuery>) -> Response {
    match domain(&query.zone) {
        Ok(zone) => ask(&events, |answer| Question::Dump { zone, from: query.from, answer }).await,
        Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
    }
}

/// The answers to remove: those of a name (of one type, if given), or all at and below a zone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flush {
    pub name: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub zone: Option<String>,
    /// Even while the upstreams are failing.
    #[serde(default)]
    pub force: bool,
}

impl Flush {
    fn selection(&self) -> Result<Selection, String> {
        match (&self.name, &self.zone, &self.kind) {
            (Some(name), None, None) => Ok(Selection::Name(domain(name)?, None)),
            (Some(name), None, Some(kind)) => Ok(Selection::Name(domain(name)?, Some(record_type(kind)?))),
            (None, Some(zone), None) => Ok(Selection::Zone(domain(zone)?)),
            _ => {
                Err("nothing to flush: give a name, with or without a type, or --zone ZONE (`.` for all)"
                    .into())
            }
        }
    }
}

async fn flush(
    State(events): Events,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<Flush>, JsonRejection>,
) -> Response {
    let flush = match body {
        Ok(Json(flush)) => flush,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    match flush.selection() {
        Ok(selection) => {
            let (force, by) = (flush.force, peer.name());
            ask(&events, |answer| Question::Flush { selection, force, by, answer }).await
        }
        Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
    }
}

/// Starts a fire drill.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drill {
    pub mode: String,
    /// Covers the names at and below it; `.` for all.
    pub zone: String,
    pub for_s: u64,
}

impl Drill {
    fn read(&self) -> Result<NewDrill, String> {
        let lasts = Duration::from_secs(self.for_s);
        if lasts.is_zero() || lasts > fire_drill::LASTS_MAX {
            return Err(format!("a drill must last between 1s and {}", Span(fire_drill::LASTS_MAX)));
        }
        Ok(NewDrill { mode: self.mode.parse()?, zone: domain(&self.zone)?, lasts })
    }
}

async fn start_drill(
    State(events): Events,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<Drill>, JsonRejection>,
) -> Response {
    let drill = match body {
        Ok(Json(drill)) => drill.read(),
        Err(error) => Err(error.body_text()),
    };
    match drill {
        Ok(drill) => {
            ask(&events, |answer| Question::Drill { drill: Some(drill), by: peer.name(), answer }).await
        }
        Err(message) => refuse(StatusCode::BAD_REQUEST, &message),
    }
}

async fn end_drill(State(events): Events, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    ask(&events, |answer| Question::Drill { drill: None, by: peer.name(), answer }).await
}

fn domain(text: &str) -> Result<Vec<u8>, String> {
    let mut name = name::from_text(text).ok_or_else(|| format!("{text:?} is not a domain name"))?;
    name.make_ascii_lowercase();
    Ok(name)
}

fn record_type(text: &str) -> Result<u16, String> {
    name::type_from_text(text)
        .ok_or_else(|| format!("{text:?} is not a record type; write one like A, AAAA or TYPE65"))
}

async fn ask<T: Serialize>(
    events: &mpsc::Sender<Event>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Response {
    put(events, question).await.map_or_else(|refusal| refusal, |answer| Json(answer).into_response())
}

/// Sends a question to the loop and waits for the answer.
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
        Ok(None) | Err(_) => Err(refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "the cache is shutting down or overloaded; try again",
        )),
    }
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(serde_json::json!({ "error": message }))).into_response()
}

/// The client, for the agent and the command line.
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

    /// Accepts the upstream's answers for a name and all names below it.
    pub async fn accept(&self, name: &str) -> Result<Acceptance, CallError> {
        self.0.post("/v1/accept", &AcceptBody { name: name.into() }).await
    }

    pub async fn why(&self, name: &str, kind: &str) -> Result<Explanation, CallError> {
        self.0.get(&format!("/v1/why?name={}&type={}", encoded(name), encoded(kind))).await
    }

    pub async fn top(&self, order: &str, limit: usize) -> Result<Vec<Listed>, CallError> {
        self.0.get(&format!("/v1/top?order={}&limit={limit}", encoded(order))).await
    }

    pub async fn dump(&self, zone: &str, from: u32) -> Result<Page, CallError> {
        self.0.get(&format!("/v1/dump?zone={}&from={from}", encoded(zone))).await
    }

    pub async fn flush(&self, flush: &Flush) -> Result<Flushed, CallError> {
        self.0.post("/v1/flush", flush).await
    }

    pub async fn start_drill(&self, drill: &Drill) -> Result<Option<DrillStatus>, CallError> {
        self.0.post("/v1/drill", drill).await
    }

    pub async fn end_drill(&self) -> Result<Option<DrillStatus>, CallError> {
        self.0.call(Method::DELETE, "/v1/drill", None::<&()>).await
    }
}

/// Encodes a query parameter.
fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}
