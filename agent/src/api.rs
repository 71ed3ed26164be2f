//! The agent's unix socket: `dogwatch submit`, `dogwatch status`.
//!
//! | method and path | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/status` | – | [`Status`] |
//! | `POST /v1/submit` | [`Submit`] | `null` |
//! | `POST /v1/start` | [`Start`] | `null` |
//! | `POST /v1/forget` | [`Forget`] | `null` |
//!
//! Every user on the host may read the status. Results may be submitted by root, by the agent's own
//! user and by the `submitters` of the check; the caller is known from the socket's peer
//! credentials. A body has at most 64 KiB. Handlers decide nothing: they pass the request to the
//! loop. If the loop is too busy, or does not answer within [`ANSWER_WITHIN`], the answer is 503.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{ConnectInfo, DefaultBodyLimit, State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use dogwatch_daemon::unix_http::Peer;
use dogwatch_wire::ErrorReply;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::measures::Measures;

/// A submitted result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    pub service: String,
    /// Name or exit code.
    pub state: String,
    /// As a plugin prints it: first line, perfdata after `|`, further lines.
    pub text: String,
    /// How long this result is valid, in seconds. The default is in the config.
    #[serde(default)]
    pub ttl_s: Option<u64>,
}

/// The status of the agent and of all services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub host: String,
    pub agent: String,
    pub started_at: Timestamp,
    /// Problems of the agent itself, one sentence each.
    pub warnings: Vec<String>,
    pub services: Vec<ServiceStatus>,
    /// What the checks cannot watch, and why.
    #[serde(default)]
    pub blind: Vec<BlindStatus>,
    pub spool: SpoolStatus,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub service: String,
    /// The check that it belongs to.
    pub check: String,
    /// Which of the things that the check finds.
    #[serde(default)]
    pub thing: Option<String>,
    pub kind: String,
    /// `auto` for a built-in check, else file and line.
    pub origin: String,
    /// State of the last result; `PENDING` before the first.
    pub state: String,
    /// `HARD` or `SOFT`.
    pub state_type: String,
    pub attempt: u8,
    pub max_attempts: u8,
    /// How long a problem must last to be hard, if it is not results that count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub must_last_s: Option<f64>,
    /// How long the present problem has lasted so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasted_s: Option<f64>,
    pub flapping: bool,
    pub flapping_percent: f64,
    /// When the last announced hard state began; `None` if it was always OK.
    pub since: Option<Timestamp>,
    pub last_run: Option<Timestamp>,
    pub next_run: Option<Timestamp>,
    pub duration_s: Option<f64>,
    pub output: String,
    pub detail: String,
    pub perfdata: String,
}

/// Something that is not watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlindStatus {
    pub check: String,
    pub thing: String,
    pub why: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Events that alertd has not acknowledged.
    pub events: usize,
    pub dropped: u64,
    pub alertd_failures: u32,
}

/// A request to the loop.
#[derive(Debug)]
pub enum Ask {
    Status(oneshot::Sender<Status>),
    /// For the metrics page: the services after this one.
    Measures {
        after: Option<Arc<str>>,
        answer: oneshot::Sender<Measures>,
    },
    Submit {
        submit: Submit,
        peer: Peer,
        answer: oneshot::Sender<Result<(), Refused>>,
    },
    Start {
        start: Start,
        peer: Peer,
        answer: oneshot::Sender<Result<(), Refused>>,
    },
    Forget {
        forget: Forget,
        peer: Peer,
        answer: oneshot::Sender<Result<(), Refused>>,
    },
}

/// A job that begins. The caller reports its end with a [`Submit`]; if it ends without, the job's
/// service is CRITICAL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    pub service: String,
    /// As in [`Submit`], for a job that has never ended.
    #[serde(default)]
    pub ttl_s: Option<u64>,
}

/// A job that no longer runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forget {
    pub service: String,
}

/// Why a submitted result was rejected, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    NoSuchService(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    Invalid(String),
}

/// The routes of the socket. Requests go to `asks`.
pub fn router(asks: mpsc::Sender<Ask>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/submit", post(submit))
        .route("/v1/start", post(start))
        .route("/v1/forget", post(forget))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(asks)
}

async fn status(State(asks): State<mpsc::Sender<Ask>>) -> Response {
    match ask(&asks, Ask::Status).await {
        Some(status) => Json(status).into_response(),
        None => busy(),
    }
}

async fn submit(
    State(asks): State<mpsc::Sender<Ask>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<Submit>, JsonRejection>,
) -> Response {
    let submit = match body {
        Ok(Json(submit)) => submit,
        Err(rejection) => return error(rejection.status(), rejection.body_text()),
    };
    done(ask(&asks, |answer| Ask::Submit { submit, peer, answer }).await)
}

async fn start(
    State(asks): State<mpsc::Sender<Ask>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<Start>, JsonRejection>,
) -> Response {
    let start = match body {
        Ok(Json(start)) => start,
        Err(rejection) => return error(rejection.status(), rejection.body_text()),
    };
    done(ask(&asks, |answer| Ask::Start { start, peer, answer }).await)
}

async fn forget(
    State(asks): State<mpsc::Sender<Ask>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Result<Json<Forget>, JsonRejection>,
) -> Response {
    let forget = match body {
        Ok(Json(forget)) => forget,
        Err(rejection) => return error(rejection.status(), rejection.body_text()),
    };
    done(ask(&asks, |answer| Ask::Forget { forget, peer, answer }).await)
}

fn done(outcome: Option<Result<(), Refused>>) -> Response {
    match outcome {
        Some(Ok(())) => Json(()).into_response(),
        Some(Err(refused)) => {
            let status = match refused {
                Refused::NoSuchService(_) => StatusCode::NOT_FOUND,
                Refused::Forbidden(_) => StatusCode::FORBIDDEN,
                Refused::Invalid(_) => StatusCode::BAD_REQUEST,
            };
            error(status, refused.to_string())
        }
        None => busy(),
    }
}

/// Puts a question to the loop; `None` if it does not answer.
pub(crate) async fn ask<T>(
    asks: &mpsc::Sender<Ask>,
    question: impl FnOnce(oneshot::Sender<T>) -> Ask,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    asks.try_send(question(answer)).ok()?;
    timeout(ANSWER_WITHIN, answered).await.ok()?.ok()
}

fn busy() -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "the agent is too busy to answer; try again".into())
}

fn error(status: StatusCode, error: String) -> Response {
    (status, Json(ErrorReply { error })).into_response()
}

/// The loop answers in microseconds. After this time it must be stuck.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The output of a plugin and the JSON around it.
const BODY_BYTES_MAX: usize = 64 * 1_024;
