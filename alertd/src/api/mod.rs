//! The HTTP API on the unix socket and over TCP, for agents, Prometheus and `alertctl`.
//!
//! Handlers make no decisions and keep no state: they pass requests to the engine and wait for its
//! answer with a time limit, or read finished incidents from the archive.
//!
//! | file | contents |
//! | --- | --- |
//! | `access.rs` | authentication and authorization |
//! | `routes.rs` | routes and the scopes they need |
//! | `rights.rs` | what users of the unix socket may do |
//! | `rate.rs`, `body.rs` | rate limits; limits for the size and duration of bodies |
//! | `failure.rs` | error answers |
//! | `tokens.rs` | `/v1/tokens` |
//! | `backup.rs` | `/v1/backup` |

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use dogwatch_alertd_core::{
    BadBatch,
    rules::{
        external::Posted,
        token::Scope::{Ack, Admin, Ingest, Read, Silence},
    },
};
use dogwatch_daemon::bounds::Bodies;
use dogwatch_wire::{Batch, PROTOCOL_PARTS, ctl, limits};
use governor::Quota;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc, oneshot};

mod access;
mod backup;
mod body;
mod failure;
#[cfg(test)]
mod openapi_tests;
mod rate;
mod rights;
mod routes;
mod tokens;
pub(crate) mod v2;

pub(crate) use self::{access::Caller, body::Body, failure::Failure, routes::Routes};
pub use self::{
    access::{Gate, Needs},
    rights::UserRights,
    routes::Endpoint,
};

use self::rate::Rates;
use crate::{
    engine::{BatchError, Input, PostError},
    store::{Archive, StoreError},
};

/// How long to wait for the engine. It usually answers within one commit.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// How long to wait for a test notification, which waits for the receiver.
const TEST_PATIENCE: Duration = Duration::from_secs(40);
/// Agents with a rate limit of their own.
const AGENTS_MAX: usize = 150_000;
/// Batches of one agent: one per heartbeat, more after an outage.
const BATCHES_A_SECOND: NonZeroU32 = NonZeroU32::new(5).unwrap();
const BATCHES_AT_ONCE: NonZeroU32 = NonZeroU32::new(60).unwrap();
const HISTORY_LIMIT_DEFAULT: u32 = 100;
const HISTORY_LIMIT_MAX: u32 = 10_000;

/// The state shared by all handlers.
#[derive(Clone)]
pub(crate) struct Api {
    inputs: mpsc::Sender<Input>,
    archive: Arc<dyn Archive>,
    /// One permit, because a backup needs disk time and space.
    backup: Arc<Semaphore>,
    /// Bytes of all bodies under way.
    bodies: Arc<Bodies>,
    /// Per agent.
    agents: Arc<Rates<String>>,
}

/// The router, the same for the unix socket and for TCP.
pub fn router(inputs: mpsc::Sender<Input>, archive: Arc<dyn Archive>, gate: Gate) -> Router {
    let all = routes(&Arc::new(gate)).router.fallback(nowhere);
    let all = all.layer(DefaultBodyLimit::disable()); // `Body` has its own
    all.with_state(Api {
        inputs,
        archive,
        backup: Arc::new(Semaphore::new(1)),
        bodies: Arc::default(),
        agents: Arc::new(Rates::of(
            AGENTS_MAX,
            Quota::per_second(BATCHES_A_SECOND).allow_burst(BATCHES_AT_ONCE),
        )),
    })
}

/// The table of all routes and the scopes they need.
fn routes(gate: &Arc<Gate>) -> Routes {
    use Needs::Scope;
    let routes = Routes::new(gate)
        .post("/v1/agent/batch", Needs::Report, batch)
        .post("/v1/alerts", Scope(Ingest), post_alerts)
        .get("/v1/status", Scope(Read), status)
        .get("/v1/health", Needs::Health, health)
        .get("/v1/incidents/{number}/why", Scope(Read), why)
        .get("/v1/history", Scope(Read), history)
        .get("/v1/oncall", Scope(Read), on_call)
        .get("/v1/replay", Scope(Read), replay)
        .post("/v1/route-test", Scope(Read), route_test)
        .post("/v1/incidents/{number}/ack", Scope(Ack), ack)
        .post("/v1/incidents/{number}/unack", Scope(Ack), unack)
        .get("/v1/overrides", Scope(Read), overrides)
        .post("/v1/overrides", Scope(Ack), make_override)
        .delete("/v1/overrides/{number}", Scope(Ack), end_override)
        .get("/v1/silences", Scope(Read), silences)
        .post("/v1/silences", Scope(Silence), silence)
        .post("/v1/silences/{number}/extend", Scope(Silence), extend_silence)
        .delete("/v1/silences/{number}", Scope(Silence), end_silence)
        .get("/v1/downtimes", Scope(Read), downtimes)
        .post("/v1/downtimes", Scope(Silence), make_downtime)
        .delete("/v1/downtimes/{number}", Scope(Silence), cancel_downtime)
        .post("/v1/test-notify", Scope(Admin), test_notify)
        .get("/v1/audit", Scope(Admin), audit)
        .post("/v1/backup", Scope(Admin), backup::back_up)
        .get("/v1/tokens", Scope(Admin), tokens::list)
        .post("/v1/tokens", Scope(Admin), tokens::create)
        .delete("/v1/tokens/{name}", Scope(Admin), tokens::revoke)
        .get("/v1/openapi.json", Needs::Nothing, openapi);
    v2::add(routes)
}

const OPENAPI: &str = include_str!("../../../docs/openapi.json");

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

/// All routes and the scopes they need, for tests and docs.
pub fn endpoints() -> Vec<Endpoint> {
    routes(&Arc::default()).endpoints
}

type Reply<T> = Result<Json<T>, Failure>;

impl Api {
    /// Sends an input to the engine and waits for its answer.
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
            Ok(Err(())) => Err(Failure::Unavailable("alertd is stopping; try again in a moment".into())),
            Err(_) => Err(Failure::Unavailable(format!("alertd is busy: no answer within {patience:?}"))),
        }
    }

    /// The same for inputs that are recorded with the caller's origin.
    pub(crate) async fn ask_by<T>(
        &self,
        caller: &Caller,
        patience: Duration,
        input: impl FnOnce(oneshot::Sender<T>) -> Input,
    ) -> Result<T, Failure> {
        let from = caller.origin();
        self.ask(patience, |answer| Input::From(from, Box::new(input(answer)))).await
    }

    /// Reads from the archive, off the async threads.
    pub(crate) async fn look_up<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Archive) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        let archive = Arc::clone(&self.archive);
        let reading = tokio::task::spawn_blocking(move || read(archive.as_ref()));
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(Ok(found)) => Ok(found?),
            Ok(Err(error)) => Err(Failure::Unavailable(format!("cannot read the store: {error}"))),
            Err(_) => Err(Failure::Unavailable("the disk is not responding".into())),
        }
    }
}

/// A batch of a newer protocol may not parse, but its version does.
#[derive(Deserialize)]
struct VersionOnly {
    protocol: u32,
}

async fn batch(State(api): State<Api>, caller: Caller, body: Body) -> Result<Response, Failure> {
    let Body { bytes: body, held } = body;
    let mut batch: Batch = serde_json::from_slice(&body).map_err(|error| {
        match serde_json::from_slice::<VersionOnly>(&body) {
            Ok(VersionOnly { protocol }) if protocol > PROTOCOL_PARTS => {
                Failure::Bad(BadBatch::Version { theirs: protocol }.to_string())
            }
            _ => Failure::Bad(format!("this is not a batch of protocol {PROTOCOL_PARTS}: {error}")),
        }
    })?;
    if let Some(host) = caller.host() {
        bind(&mut batch, host);
    }
    api.agents.take(&batch.agent).map_err(Failure::TooMany)?;
    let sender = caller.sender();
    let input = |answer| Input::Batch(Box::new(batch), sender, answer);
    let asked = api.ask_by(&caller, PATIENCE, |answer| Input::Holding(held, Box::new(input(answer))));
    match asked.await? {
        Ok(reply) => Ok(Json(reply).into_response()),
        Err(BatchError::Bad(BadBatch::OverQuota(words))) => Err(Failure::OverQuota(words)),
        Err(BatchError::Bad(bad)) => Err(Failure::Bad(bad.to_string())),
        Err(error @ BatchError::NotDurable(_)) => Err(Failure::Unavailable(error.to_string())),
    }
}

/// With a token for one host, the batch belongs to this host whatever it claims, and its agent's id
/// is kept apart from those of other hosts.
fn bind(batch: &mut Batch, host: &str) {
    host.clone_into(&mut batch.host);
    batch.agent = format!("{host}#{}", batch.agent);
}

async fn post_alerts(State(api): State<Api>, caller: Caller, body: Body) -> Reply<ctl::Posted> {
    let Body { bytes, held } = body;
    let posted: Vec<Posted> =
        serde_json::from_slice(&bytes).map_err(|error| Failure::Bad(format!("invalid body: {error}")))?;
    drop(bytes);
    let input = |answer| Input::Posted(posted, caller.sender(), answer);
    match api.ask(PATIENCE, |answer| Input::Holding(held, Box::new(input(answer)))).await? {
        Ok(incidents) => Ok(Json(ctl::Posted { incidents })),
        Err(PostError::OverQuota(words)) => Err(Failure::OverQuota(words)),
        Err(PostError::Bad(problems)) => Err(Failure::Bad(problems.join("; "))),
        Err(error @ PostError::NotDurable(_)) => Err(Failure::Unavailable(error.to_string())),
    }
}

async fn status(State(api): State<Api>) -> Reply<ctl::Status> {
    Ok(Json(api.ask(PATIENCE, Input::Status).await?))
}

async fn health(State(api): State<Api>) -> Reply<ctl::Health> {
    Ok(Json(api.ask(PATIENCE, Input::Health).await?))
}

async fn ack(
    State(api): State<Api>,
    caller: Caller,
    Path(number): Path<String>,
    body: Body,
) -> Reply<ctl::Incident> {
    let (number, ask) = (number_of(&number)?, body.json()?);
    Ok(Json(api.ask_by(&caller, PATIENCE, |answer| Input::Ack(number, ask, caller.name(), answer)).await??))
}

async fn unack(
    State(api): State<Api>,
    caller: Caller,
    Path(number): Path<String>,
    body: Body,
) -> Reply<ctl::Incident> {
    let (number, ask) = (number_of(&number)?, body.json()?);
    Ok(Json(api.ask_by(&caller, PATIENCE, |answer| Input::Unack(number, ask, caller.name(), answer)).await??))
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
    let missing = || {
        Failure::NotFound(format!("there is no incident {number}; `alertctl status` lists open incidents"))
    };
    why.map(Json).ok_or_else(missing)
}

#[derive(Deserialize)]
struct HistoryQuery {
    since: Option<String>,
    limit: Option<String>,
}

impl HistoryQuery {
    fn read(self) -> Result<(Option<Timestamp>, u32), Failure> {
        let since = self.since.map(|text| text.parse()).transpose();
        let since =
            since.map_err(|_| Failure::Bad("since must be a time like 2026-11-21T04:30:00Z".into()))?;
        let limit = self.limit.map(|text| text.parse()).transpose();
        let limit: Option<u32> = limit.map_err(|_| Failure::Bad("limit must be a number".into()))?;
        Ok((since, limit.unwrap_or(HISTORY_LIMIT_DEFAULT).min(HISTORY_LIMIT_MAX)))
    }
}

async fn history(State(api): State<Api>, Query(query): Query<HistoryQuery>) -> Reply<Vec<ctl::HistoryEntry>> {
    let (since, limit) = query.read()?;
    Ok(Json(api.look_up(move |archive| archive.history(since, limit)).await?))
}

async fn audit(State(api): State<Api>, Query(query): Query<HistoryQuery>) -> Reply<Vec<ctl::HistoryEntry>> {
    let (since, limit) = query.read()?;
    Ok(Json(api.look_up(move |archive| archive.audit(since, limit)).await?))
}

async fn silences(State(api): State<Api>) -> Reply<Vec<ctl::Silence>> {
    Ok(Json(api.ask(PATIENCE, Input::Silences).await?))
}

async fn silence(State(api): State<Api>, caller: Caller, body: Body) -> Reply<ctl::Silence> {
    let ask = body.json()?;
    Ok(Json(api.ask_by(&caller, PATIENCE, |answer| Input::Silence(ask, caller.name(), answer)).await??))
}

async fn extend_silence(
    State(api): State<Api>,
    caller: Caller,
    Path(number): Path<String>,
    body: Body,
) -> Reply<ctl::Silence> {
    let (number, ask) = (number_of(&number)?, body.json()?);
    Ok(Json(
        api.ask_by(&caller, PATIENCE, |answer| Input::ExtendSilence(number, ask, caller.name(), answer))
            .await??,
    ))
}

async fn downtimes(State(api): State<Api>) -> Reply<Vec<ctl::Downtime>> {
    Ok(Json(api.ask(PATIENCE, Input::Downtimes).await?))
}

async fn make_downtime(State(api): State<Api>, caller: Caller, body: Body) -> Reply<ctl::Downtime> {
    let ask = body.json()?;
    Ok(Json(api.ask_by(&caller, PATIENCE, |answer| Input::Downtime(ask, caller.name(), answer)).await??))
}

async fn cancel_downtime(
    State(api): State<Api>,
    caller: Caller,
    Path(number): Path<String>,
) -> Reply<ctl::Downtime> {
    let number = number_of(&number)?;
    Ok(Json(
        api.ask_by(&caller, PATIENCE, |answer| Input::CancelDowntime(number, caller.name(), answer))
            .await??,
    ))
}

async fn end_silence(
    State(api): State<Api>,
    caller: Caller,
    Path(number): Path<String>,
) -> Reply<ctl::Silence> {
    let number = number_of(&number)?;
    Ok(Json(api.ask_by(&caller, PATIENCE, |answer| Input::EndSilence(number, caller.name(), answer)).await??))
}

#[derive(Deserialize)]
struct OnCallQuery {
    at: Option<String>,
    until: Option<String>,
}

async fn on_call(State(api): State<Api>, Query(query): Query<OnCallQuery>) -> Reply<ctl::OnCall> {
    let time = |text: Option<String>| text.map(|text| text.parse()).transpose();
    let wrong = |_| Failure::Bad("at and until must be times like 2026-11-21T04:30:00Z".into());
    let (at, until) = (time(query.at).map_err(wrong)?, time(query.until).map_err(wrong)?);
    Ok(Json(api.ask(PATIENCE, |answer| Input::OnCall(at, until, answer)).await?))
}

async fn route_test(State(api): State<Api>, body: Body) -> Reply<Vec<ctl::Routed>> {
    let ask: ctl::AskRoute = body.json()?;
    if ask.alerts.len() > limits::ROUTED_MAX {
        return Err(Failure::Bad(format!(
            "at most {} alerts per request; ask for the rest in another request",
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
    let since = since.map_err(|_| Failure::Bad("since must be a time like 2026-11-21T04:30:00Z".into()))?;
    let after = query.after.unwrap_or(0);
    Ok(Json(api.look_up(move |archive| archive.recorded(since, after)).await?))
}

async fn overrides(State(api): State<Api>) -> Reply<Vec<ctl::Override>> {
    Ok(Json(api.ask(PATIENCE, Input::Overrides).await?))
}

async fn make_override(State(api): State<Api>, caller: Caller, body: Body) -> Reply<ctl::Override> {
    let ask = body.json()?;
    Ok(Json(api.ask_by(&caller, PATIENCE, |answer| Input::Override(ask, caller.name(), answer)).await??))
}

async fn end_override(
    State(api): State<Api>,
    caller: Caller,
    Path(number): Path<String>,
) -> Reply<ctl::Override> {
    let number = number_of(&number)?;
    Ok(Json(
        api.ask_by(&caller, PATIENCE, |answer| Input::EndOverride(number, caller.name(), answer)).await??,
    ))
}

async fn test_notify(State(api): State<Api>, caller: Caller, body: Body) -> Reply<ctl::TestResult> {
    let ctl::TestNotify { receiver } = body.json()?;
    let test = |answer| Input::Test(receiver, caller.name(), answer);
    let notification = api.ask_by(&caller, TEST_PATIENCE, test).await??;
    Ok(Json(ctl::TestResult { notification }))
}

async fn nowhere() -> Failure {
    Failure::NotFound("not found; alertd's API is below /v1/ and /api/v2/".into())
}

/// Reads a number. The store holds only numbers up to `i64::MAX`, so larger ones do not exist.
fn number_of(text: &str) -> Result<u64, Failure> {
    let number: u64 = text.parse().map_err(|_| Failure::Bad(format!("{text:?} is not a number")))?;
    let nobodys = |_| Failure::NotFound(format!("there is nothing with the number {number}"));
    i64::try_from(number).map(|_| number).map_err(nobodys)
}
