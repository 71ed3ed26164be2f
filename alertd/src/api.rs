//! HTTP on the unix socket: what agents and `alertctl` say, handed to the loop, waited for with a bound.
//!
//! A handler decides nothing and reads no state of its own; what is over it reads from the archive. Who asks comes from
//! the socket's peer credentials. Whoever may open the socket may do everything: its mode (0660) is the gate.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, FromRequest, Path, Query, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use dogwatch_daemon::unix_http::Peer;
use dogwatch_wire::{Batch, ErrorReply, PROTOCOL, ctl, limits};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::{mpsc, oneshot};

use crate::{
    api_v2,
    core::{BadBatch, Refused},
    engine::{BatchError, Input, PostError},
    store::{Archive, StoreError},
};

/// The loop answers within a commit; a disk that hangs is noticed before this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// A test waits for the receiver.
const TEST_PATIENCE: Duration = Duration::from_secs(40);
/// What an agent is told to wait before it sends again.
const RETRY_AFTER_S: u64 = 5;
const HISTORY_LIMIT_DEFAULT: u32 = 100;
const HISTORY_LIMIT_MAX: u32 = 10_000;

#[derive(Clone)]
pub(crate) struct Api {
    inputs: mpsc::Sender<Input>,
    archive: Arc<dyn Archive>,
}

pub fn router(inputs: mpsc::Sender<Input>, archive: Arc<dyn Archive>) -> Router {
    Router::new()
        .route("/v1/agent/batch", post(batch))
        .route("/v1/status", get(status))
        .route("/v1/alerts", post(post_alerts))
        .route("/v1/incidents/{number}/ack", post(ack))
        .route("/v1/incidents/{number}/unack", post(unack))
        .route("/v1/incidents/{number}/why", get(why))
        .route("/v1/history", get(history))
        .route("/v1/silences", get(silences).post(silence))
        .route("/v1/silences/{number}", delete(end_silence))
        .route("/v1/oncall", get(on_call))
        .route("/v1/replay", get(replay))
        .route("/v1/route-test", post(route_test))
        .route("/v1/overrides", get(overrides).post(make_override))
        .route("/v1/overrides/{number}", delete(end_override))
        .route("/v1/silences/{number}/extend", post(extend_silence))
        .route("/v1/downtimes", get(downtimes).post(make_downtime))
        .route("/v1/downtimes/{number}", delete(cancel_downtime))
        .route("/v1/test-notify", post(test_notify))
        .merge(api_v2::routes())
        .fallback(nowhere)
        .layer(DefaultBodyLimit::disable()) // `Body` has its own
        .with_state(Api { inputs, archive })
}

/// Why a request got no 2xx.
pub(crate) enum Failure {
    Bad(String),
    NotFound(String),
    TooLarge,
    /// Try again later.
    Unavailable(String),
}

impl Failure {
    pub(crate) fn into_parts(self) -> (StatusCode, String) {
        match self {
            Self::Bad(error) => (StatusCode::BAD_REQUEST, error),
            Self::NotFound(error) => (StatusCode::NOT_FOUND, error),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {} bytes; send less at a time", limits::BODY_BYTES_MAX),
            ),
            Self::Unavailable(error) => (StatusCode::SERVICE_UNAVAILABLE, error),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, error) = self.into_parts();
        let mut response = (status, Json(ErrorReply { error })).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
        }
        response
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::BadSilence(_) | Refused::BadDowntime(_) | Refused::BadOverride(_) => {
                Self::Bad(refused.to_string())
            }
            Refused::NoIncident(_)
            | Refused::LinkUsed(_)
            | Refused::NotAcked(_)
            | Refused::NoSilence(_)
            | Refused::NoDowntime(_)
            | Refused::NoReceiver(..)
            | Refused::NoSchedule(..)
            | Refused::NoUser(..)
            | Refused::NoOverride(_) => Self::NotFound(refused.to_string()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(format!("the store cannot be read: {error}"))
    }
}

type Reply<T> = Result<Json<T>, Failure>;

/// A whole body. One that is too large is read to its end all the same, within reason: whoever still sends does not
/// listen, and a connection that is cut would hide the answer.
pub(crate) struct Body(pub(crate) Bytes);

/// Read and thrown away of a body that is too large.
const DRAINED_BYTES_MAX: usize = 16 * limits::BODY_BYTES_MAX;
/// Who sends nothing for so long listens.
const DRAIN_PAUSE_MAX: Duration = Duration::from_millis(300);

impl FromRequest<Api> for Body {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Failure> {
        let reading = read_whole(request.into_body());
        let slow = |_| Failure::Bad(format!("the body did not arrive within {PATIENCE:?}"));
        tokio::time::timeout(PATIENCE, reading).await.map_err(slow)?.map(Self)
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

impl Api {
    /// Puts a question to the loop and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        patience: Duration,
        input: impl FnOnce(oneshot::Sender<T>) -> Input,
    ) -> Result<T, Failure> {
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            self.inputs.send(input(answer)).await.map_err(|_| ())?;
            answered.await.map_err(|_| ())
        };
        match tokio::time::timeout(patience, exchange).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(())) => Err(Failure::Unavailable("alertd is stopping; ask again in a moment".into())),
            Err(_) => Err(Failure::Unavailable(format!("alertd is busy: no answer within {patience:?}"))),
        }
    }

    /// Reads from the archive, off the async threads.
    async fn look_up<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Archive) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        let archive = Arc::clone(&self.archive);
        let reading = tokio::task::spawn_blocking(move || read(archive.as_ref()));
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(Ok(found)) => Ok(found?),
            Ok(Err(error)) => Err(Failure::Unavailable(format!("the store cannot be read: {error}"))),
            Err(_) => Err(Failure::Unavailable("the disk does not answer".into())),
        }
    }
}

fn read_json<T: DeserializeOwned>(Body(body): Body) -> Result<T, Failure> {
    let body = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
    serde_json::from_slice(&body)
        .map_err(|error| Failure::Bad(format!("the body is not what is asked: {error}")))
}

/// A batch of a newer protocol may not even parse; its version still does.
#[derive(Deserialize)]
struct VersionOnly {
    protocol: u32,
}

async fn batch(State(api): State<Api>, Body(body): Body) -> Result<Response, Failure> {
    let batch: Batch = serde_json::from_slice(&body).map_err(|error| {
        match serde_json::from_slice::<VersionOnly>(&body) {
            Ok(VersionOnly { protocol }) if protocol > PROTOCOL => {
                Failure::Bad(BadBatch::Version { theirs: protocol }.to_string())
            }
            _ => Failure::Bad(format!("this is not a batch of protocol {PROTOCOL}: {error}")),
        }
    })?;
    match api.ask(PATIENCE, |answer| Input::Batch(Box::new(batch), answer)).await? {
        Ok(reply) => Ok(Json(reply).into_response()),
        Err(BatchError::Bad(bad)) => Err(Failure::Bad(bad.to_string())),
        Err(error @ BatchError::NotDurable(_)) => Err(Failure::Unavailable(error.to_string())),
    }
}

async fn post_alerts(State(api): State<Api>, body: Body) -> Reply<ctl::Posted> {
    let posted = read_json(body)?;
    match api.ask(PATIENCE, |answer| Input::Posted(posted, answer)).await? {
        Ok(incidents) => Ok(Json(ctl::Posted { incidents })),
        Err(PostError::Bad(problems)) => Err(Failure::Bad(problems.join("; "))),
        Err(error @ PostError::NotDurable(_)) => Err(Failure::Unavailable(error.to_string())),
    }
}

async fn status(State(api): State<Api>) -> Reply<ctl::Status> {
    Ok(Json(api.ask(PATIENCE, Input::Status).await?))
}

async fn ack(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(number): Path<String>,
    body: Body,
) -> Reply<ctl::Incident> {
    let (number, ask) = (number_of(&number)?, read_json(body)?);
    Ok(Json(api.ask(PATIENCE, |answer| Input::Ack(number, ask, peer.name(), answer)).await??))
}

async fn unack(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(number): Path<String>,
    body: Body,
) -> Reply<ctl::Incident> {
    let (number, ask) = (number_of(&number)?, read_json(body)?);
    Ok(Json(api.ask(PATIENCE, |answer| Input::Unack(number, ask, peer.name(), answer)).await??))
}

async fn why(State(api): State<Api>, Path(number): Path<String>) -> Reply<ctl::Why> {
    let number = number_of(&number)?;
    let open = api.ask(PATIENCE, |answer| Input::Incident(number, answer)).await?;
    let why = api
        .look_up(move |archive| {
            let found = match open {
                Some(found) => Some(found),
                None => archive.closed_incident(number)?,
            };
            let Some((incident, route_path)) = found else { return Ok(None) };
            let decisions = archive.decisions(number)?;
            Ok(Some(ctl::Why {
                incident,
                route_path,
                decisions,
                notifications: archive.notifications(number)?,
            }))
        })
        .await?;
    let missing =
        || Failure::NotFound(format!("there is no incident {number}; `alertctl status` lists those open"));
    why.map(Json).ok_or_else(missing)
}

#[derive(Deserialize)]
struct HistoryQuery {
    since: Option<String>,
    limit: Option<String>,
}

async fn history(State(api): State<Api>, Query(query): Query<HistoryQuery>) -> Reply<Vec<ctl::HistoryEntry>> {
    let since = query.since.map(|text| text.parse()).transpose();
    let since = since.map_err(|_| Failure::Bad("since is a time like 2026-11-21T04:30:00Z".into()))?;
    let limit = query.limit.map(|text| text.parse()).transpose();
    let limit: Option<u32> = limit.map_err(|_| Failure::Bad("limit is a number".into()))?;
    let limit = limit.unwrap_or(HISTORY_LIMIT_DEFAULT).min(HISTORY_LIMIT_MAX);
    Ok(Json(api.look_up(move |archive| archive.history(since, limit)).await?))
}

async fn silences(State(api): State<Api>) -> Reply<Vec<ctl::Silence>> {
    Ok(Json(api.ask(PATIENCE, Input::Silences).await?))
}

async fn silence(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body,
) -> Reply<ctl::Silence> {
    let ask = read_json(body)?;
    Ok(Json(api.ask(PATIENCE, |answer| Input::Silence(ask, peer.name(), answer)).await??))
}

async fn extend_silence(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(number): Path<String>,
    body: Body,
) -> Reply<ctl::Silence> {
    let (number, ask) = (number_of(&number)?, read_json(body)?);
    Ok(Json(api.ask(PATIENCE, |answer| Input::ExtendSilence(number, ask, peer.name(), answer)).await??))
}

async fn downtimes(State(api): State<Api>) -> Reply<Vec<ctl::Downtime>> {
    Ok(Json(api.ask(PATIENCE, Input::Downtimes).await?))
}

async fn make_downtime(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body,
) -> Reply<ctl::Downtime> {
    let ask = read_json(body)?;
    Ok(Json(api.ask(PATIENCE, |answer| Input::Downtime(ask, peer.name(), answer)).await??))
}

async fn cancel_downtime(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(number): Path<String>,
) -> Reply<ctl::Downtime> {
    let number = number_of(&number)?;
    Ok(Json(api.ask(PATIENCE, |answer| Input::CancelDowntime(number, peer.name(), answer)).await??))
}

async fn end_silence(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(number): Path<String>,
) -> Reply<ctl::Silence> {
    let number = number_of(&number)?;
    Ok(Json(api.ask(PATIENCE, |answer| Input::EndSilence(number, peer.name(), answer)).await??))
}

#[derive(Deserialize)]
struct OnCallQuery {
    at: Option<String>,
    until: Option<String>,
}

async fn on_call(State(api): State<Api>, Query(query): Query<OnCallQuery>) -> Reply<ctl::OnCall> {
    let time = |text: Option<String>| text.map(|text| text.parse()).transpose();
    let wrong = |_| Failure::Bad("at and until are times like 2026-11-21T04:30:00Z".into());
    let (at, until) = (time(query.at).map_err(wrong)?, time(query.until).map_err(wrong)?);
    Ok(Json(api.ask(PATIENCE, |answer| Input::OnCall(at, until, answer)).await?))
}

async fn route_test(State(api): State<Api>, body: Body) -> Reply<Vec<ctl::Routed>> {
    let ask: ctl::AskRoute = read_json(body)?;
    if ask.alerts.len() > limits::ROUTED_MAX {
        return Err(Failure::Bad(format!(
            "at most {} alerts at once; ask again for the rest",
            limits::ROUTED_MAX
        )));
    }
    Ok(Json(api.ask(PATIENCE, |answer| Input::Route(ask, answer)).await?))
}

#[derive(Deserialize)]
struct ReplayQuery {
    since: String,
    after: Option<u64>,
}

async fn replay(State(api): State<Api>, Query(query): Query<ReplayQuery>) -> Reply<ctl::Recorded> {
    let since = query.since.parse();
    let since = since.map_err(|_| Failure::Bad("since is a time like 2026-11-21T04:30:00Z".into()))?;
    let after = query.after.unwrap_or(0);
    Ok(Json(api.look_up(move |archive| archive.recorded(since, after)).await?))
}

async fn overrides(State(api): State<Api>) -> Reply<Vec<ctl::Override>> {
    Ok(Json(api.ask(PATIENCE, Input::Overrides).await?))
}

async fn make_override(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body,
) -> Reply<ctl::Override> {
    let ask = read_json(body)?;
    Ok(Json(api.ask(PATIENCE, |answer| Input::Override(ask, peer.name(), answer)).await??))
}

async fn end_override(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(number): Path<String>,
) -> Reply<ctl::Override> {
    let number = number_of(&number)?;
    Ok(Json(api.ask(PATIENCE, |answer| Input::EndOverride(number, peer.name(), answer)).await??))
}

async fn test_notify(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Body,
) -> Reply<ctl::TestResult> {
    let ctl::TestNotify { receiver } = read_json(body)?;
    let test = |answer| Input::Test(receiver, peer.name(), answer);
    let notification = api.ask(TEST_PATIENCE, test).await??;
    Ok(Json(ctl::TestResult { notification }))
}

async fn nowhere() -> Failure {
    Failure::NotFound("there is nothing here; alertd's API begins with /v1/ or /api/v2/".into())
}

/// A number that the store cannot hold is nobody's.
fn number_of(text: &str) -> Result<u64, Failure> {
    let number: u64 = text.parse().map_err(|_| Failure::Bad(format!("{text:?} is not a number")))?;
    let nobodys = |_| Failure::NotFound(format!("nothing has the number {number}"));
    i64::try_from(number).map(|_| number).map_err(nobodys)
}
