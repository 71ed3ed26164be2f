//! Alertmanager's API v2, as far as Prometheus and `amtool` use it: post alerts, list firing alerts
//! and their receivers, and manage silences (`silences.rs`).
//!
//! Errors are JSON strings, and lists are never null (openapi.yaml of Alertmanager 0.28). Features
//! that Alertmanager does not have, such as acks and escalation, are under `/v1`.

mod silences;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use dogwatch_alertd_core::{
    alertmanager_view::{GettableAlert, Named},
    rules::{
        external::Posted,
        matcher::{Labels, Matcher},
        token::Scope::{Ingest, Read, Silence},
    },
};
use dogwatch_wire::ctl;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    api::{Api, Body, Caller, Failure, Needs, PATIENCE, Routes},
    engine::{Input, PostError},
};

pub(crate) fn add(routes: Routes) -> Routes {
    use Needs::{Nothing, Scope};
    routes
        .get("/api/v2/alerts", Scope(Read), alerts)
        .post("/api/v2/alerts", Scope(Ingest), post_alerts)
        .get("/api/v2/alerts/groups", Scope(Read), groups)
        .get("/api/v2/silences", Scope(Read), silences::list)
        .post("/api/v2/silences", Scope(Silence), silences::create)
        .get("/api/v2/silence/{id}", Scope(Read), silences::one)
        .delete("/api/v2/silence/{id}", Scope(Silence), silences::end)
        .get("/api/v2/receivers", Scope(Read), receivers)
        .get("/api/v2/status", Scope(Read), status)
        .get("/-/healthy", Nothing, async || "OK")
        .get("/-/ready", Nothing, async || "OK")
}

/// An error in Alertmanager's format.
struct Problem(Failure);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.0.with(Json)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

fn bad(words: String) -> Problem {
    Problem(Failure::Bad(words))
}

type Reply<T> = Result<Json<T>, Problem>;

/// Answers 200 when the alerts are on disk. If some are invalid, a 400 names them; the others are
/// accepted.
async fn post_alerts(State(api): State<Api>, caller: Caller, body: Body) -> Result<StatusCode, Problem> {
    let Body { bytes, held } = body;
    let posted: Vec<Posted> = serde_json::from_slice(&bytes)
        .map_err(|error| bad(format!("the body is not a list of alerts: {error}")))?;
    drop(bytes);
    let input = |answer| Input::Posted(posted, caller.sender(), answer);
    match api.ask(PATIENCE, |answer| Input::Holding(held, Box::new(input(answer)))).await? {
        Ok(_) => Ok(StatusCode::OK),
        Err(PostError::OverQuota(words)) => Err(Failure::OverQuota(words).into()),
        Err(PostError::Bad(problems)) => Err(bad(problems.join("; "))),
        // Prometheus retries after any 5xx.
        Err(error @ PostError::NotDurable(_)) => Err(Failure::Unavailable(error.to_string()).into()),
    }
}

/// The filters of `amtool alert query`.
#[derive(Debug)]
struct Filter {
    matchers: Arc<[Matcher]>,
    receiver: Option<Matcher>,
    /// Names of states that are not shown.
    hidden: Vec<&'static str>,
}

impl Filter {
    fn read(query: Option<&str>) -> Result<Self, Problem> {
        let mut matchers = Vec::new();
        let mut filter = Self { matchers: Arc::default(), receiver: None, hidden: Vec::new() };
        for (name, value) in pairs(query.unwrap_or_default()) {
            let shown = || match value.as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(bad(format!("{name} must be true or false, not {value:?}"))),
            };
            match name.as_str() {
                "filter" => matchers.push(value.parse().map_err(bad)?),
                "receiver" => filter.receiver = Some(format!("receiver=~{value}").parse().map_err(bad)?),
                "active" if !shown()? => filter.hidden.push("active"),
                "silenced" if !shown()? => filter.hidden.push("silenced"),
                "inhibited" if !shown()? => filter.hidden.push("inhibited"),
                "muted" if !shown()? => filter.hidden.push("muted"),
                _ => {}
            }
        }
        Ok(Self { matchers: matchers.into(), ..filter })
    }

    /// Returns all matching alerts. Reads them in pages, so that a long list does not block the
    /// engine.
    async fn find(&self, api: &Api) -> Result<Vec<GettableAlert>, Failure> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let matchers = Arc::clone(&self.matchers);
            let page = api.ask(PATIENCE, |answer| Input::Alerts(matchers, after, answer)).await?;
            found.extend(page.alerts.into_iter().filter(|alert| self.shows(alert)));
            after = page.more_after;
            if after.is_none() {
                return Ok(found);
            }
        }
    }

    fn shows(&self, alert: &GettableAlert) -> bool {
        let status = &alert.status;
        let hidden = self.hidden.iter().any(|hidden| match *hidden {
            "active" => status.state == "active",
            "silenced" => !status.silenced_by.is_empty(),
            "inhibited" => !status.inhibited_by.is_empty(),
            _ => !status.muted_by.is_empty(),
        });
        let of_receiver = self.receiver.as_ref().is_none_or(|matcher| {
            let is = |named: &Named| matcher.matches(&[("receiver".to_owned(), named.name.clone())].into());
            alert.receivers.iter().any(is)
        });
        !hidden && of_receiver
    }
}

/// Decoded pairs of a query string, in order; `filter` may come several times. What is not encoded
/// right stays as it is.
fn pairs(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

async fn alerts(State(api): State<Api>, RawQuery(query): RawQuery) -> Reply<Vec<GettableAlert>> {
    let filter = Filter::read(query.as_deref())?;
    let mut alerts = filter.find(&api).await?;
    alerts.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));
    Ok(Json(alerts))
}

#[derive(Debug, Serialize)]
struct Group {
    labels: Labels,
    receiver: Named,
    alerts: Vec<GettableAlert>,
}

/// Alerts grouped by host and receiver.
async fn groups(State(api): State<Api>, RawQuery(query): RawQuery) -> Reply<Vec<Group>> {
    let filter = Filter::read(query.as_deref())?;
    let mut groups: BTreeMap<(String, Named), Vec<GettableAlert>> = BTreeMap::new();
    for alert in filter.find(&api).await? {
        let host = alert.labels.get("host").cloned().unwrap_or_default();
        for receiver in &alert.receivers {
            groups.entry((host.clone(), receiver.clone())).or_default().push(alert.clone());
        }
    }
    let group =
        |((host, receiver), alerts)| Group { labels: [("host".to_owned(), host)].into(), receiver, alerts };
    Ok(Json(groups.into_iter().map(group).collect()))
}

async fn receivers(State(api): State<Api>) -> Reply<Vec<Named>> {
    let names = api.ask(PATIENCE, Input::Receivers).await?;
    Ok(Json(names.into_iter().map(|name| Named { name }).collect()))
}

async fn status(State(api): State<Api>) -> Reply<Value> {
    let ctl::Status { version, started_at, .. } = api.ask(PATIENCE, Input::Status).await?;
    Ok(Json(json!({
        "cluster": { "status": "disabled", "peers": [] },
        "versionInfo": {
            "version": version, "revision": "", "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
        },
        // Not shown: it may contain names that callers should not see. Use `alertctl config`.
        "config": { "original": "" },
        "uptime": started_at,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_may_repeat_a_name() {
        let found = pairs("filter=host%3D~%22web.%2A%22&filter=a+b%3D1&active=false&x");
        let found: Vec<_> = found.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(
            found,
            [("filter", "host=~\"web.*\""), ("filter", "a b=1"), ("active", "false"), ("x", "")]
        );
        let wrong = [("q".to_owned(), "100%".to_owned()), ("r".to_owned(), "%zz%4".to_owned())];
        assert_eq!(pairs("q=100%&r=%zz%4"), wrong);
    }
}
