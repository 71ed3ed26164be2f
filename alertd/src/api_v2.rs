//! Alertmanager's API v2, as far as Prometheus and `amtool` use it: post alerts, ask what fires and to whom it goes.
//!
//! Errors are JSON strings, lists are never null (openapi.yaml of Alertmanager 0.28). What alertd has and Alertmanager has not
//! (acks, escalation) is under `/v1`.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use dogwatch_wire::ctl;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    api::{Api, Body, Failure, PATIENCE},
    engine::{Input, PostError},
    external::Posted,
    matcher::{Labels, Matcher, all_match},
};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v2/alerts", get(alerts).post(post_alerts))
        .route("/api/v2/alerts/groups", get(groups))
        .route("/api/v2/receivers", get(receivers))
        .route("/api/v2/status", get(status))
        .route("/-/healthy", get(async || "OK"))
        .route("/-/ready", get(async || "OK"))
}

/// One alert that fires.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GettableAlert {
    pub labels: Labels,
    pub annotations: Labels,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    pub updated_at: Timestamp,
    #[serde(rename = "generatorURL")]
    pub generator_url: String,
    pub fingerprint: String,
    pub receivers: Vec<Named>,
    pub status: AlertStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Named {
    pub name: String,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertStatus {
    /// `active`, `suppressed`.
    pub state: &'static str,
    pub silenced_by: Vec<String>,
    pub inhibited_by: Vec<String>,
    pub muted_by: Vec<String>,
}

struct Problem(StatusCode, String);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.0, [(header::CACHE_CONTROL, "no-store")], Json(self.1)).into_response()
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let (status, words) = failure.into_parts();
        Self(status, words)
    }
}

type Reply<T> = Result<Json<T>, Problem>;

/// 200 once it is durable. What is no alert is named in a 400; the rest is taken.
async fn post_alerts(State(api): State<Api>, Body(body): Body) -> Result<StatusCode, Problem> {
    let posted: Vec<Posted> = serde_json::from_slice(&body).map_err(|error| {
        Problem(StatusCode::BAD_REQUEST, format!("the body is no list of alerts: {error}"))
    })?;
    match api.ask(PATIENCE, |answer| Input::Posted(posted, answer)).await? {
        Ok(_) => Ok(StatusCode::OK),
        Err(PostError::Bad(problems)) => Err(Problem(StatusCode::BAD_REQUEST, problems.join("; "))),
        Err(error @ PostError::NotDurable(_)) => {
            Err(Problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
        }
    }
}

/// What `amtool alert query` may ask for.
#[derive(Debug)]
struct Filter {
    matchers: Vec<Matcher>,
    receiver: Option<Matcher>,
    /// By name of the state.
    hidden: Vec<&'static str>,
}

impl Filter {
    fn read(query: Option<&str>) -> Result<Self, Problem> {
        let bad = |words| Problem(StatusCode::BAD_REQUEST, words);
        let mut filter = Self { matchers: Vec::new(), receiver: None, hidden: Vec::new() };
        for (name, value) in pairs(query.unwrap_or_default()) {
            let shown = || match value.as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(bad(format!("{name} is true or false, not {value:?}"))),
            };
            match name.as_str() {
                "filter" => filter.matchers.push(value.parse().map_err(bad)?),
                "receiver" => filter.receiver = Some(format!("receiver=~{value}").parse().map_err(bad)?),
                "active" if !shown()? => filter.hidden.push("active"),
                "silenced" if !shown()? => filter.hidden.push("silenced"),
                "inhibited" if !shown()? => filter.hidden.push("inhibited"),
                "muted" if !shown()? => filter.hidden.push("muted"),
                _ => {}
            }
        }
        Ok(filter)
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
        !hidden && of_receiver && all_match(&self.matchers, &alert.labels)
    }
}

/// Decoded pairs of a query string, in order; `filter` may come several times.
fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    };
    query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect()
}

/// Undoes `application/x-www-form-urlencoded`; what is not encoded right stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match (byte, code.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(code)) => {
                out.push(code);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

async fn alerts(State(api): State<Api>, RawQuery(query): RawQuery) -> Reply<Vec<GettableAlert>> {
    let filter = Filter::read(query.as_deref())?;
    let mut alerts = api.ask(PATIENCE, Input::Alerts).await?;
    alerts.retain(|alert| filter.shows(alert));
    alerts.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));
    Ok(Json(alerts))
}

#[derive(Debug, Serialize)]
struct Group {
    labels: Labels,
    receiver: Named,
    alerts: Vec<GettableAlert>,
}

/// Alerts by host and receiver, as a person would look at them.
async fn groups(State(api): State<Api>, RawQuery(query): RawQuery) -> Reply<Vec<Group>> {
    let filter = Filter::read(query.as_deref())?;
    let mut groups: BTreeMap<(String, Named), Vec<GettableAlert>> = BTreeMap::new();
    for alert in api.ask(PATIENCE, Input::Alerts).await?.into_iter().filter(|alert| filter.shows(alert)) {
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
        // Where the config is and what it means is for `alertctl config` to say; it may hold names that are nobody's business.
        "config": { "original": "" },
        "uptime": started_at,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_may_repeat_itself() {
        let found = pairs("filter=host%3D~%22web.%2A%22&filter=a+b%3D1&active=false&x");
        let found: Vec<_> = found.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(
            found,
            [("filter", "host=~\"web.*\""), ("filter", "a b=1"), ("active", "false"), ("x", "")]
        );
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%zz%4"), "%zz%4");
    }
}
