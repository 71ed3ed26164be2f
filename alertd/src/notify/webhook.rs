//! `[receiver.NAME.webhook]`: one POST with signed JSON per notification.
//!
//! ```toml
//! [receiver.chat.webhook]
//! url = "https://hooks.example.org/dogwatch"
//! secret_file = "/etc/dogwatch/webhook.secret"   # signs requests; one secret per line, newest first
//! token_file = "/etc/dogwatch/webhook.token"     # sent as Authorization: Bearer
//! ```
//!
//! 202 means accepted, any other 2xx delivered. 408, 425, 429 (`Retry-After` is respected), 5xx and
//! a missing answer are retried. Anything else is rejected.
//!
//! Headers, signature and body are a contract with other programs: docs/webhook.md and
//! docs/webhook.schema.json. Fields may be added, never changed. `exec` gets the same body on its
//! stdin.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use data_encoding::HEXLOWER;
use dogwatch_alertd_core::rules::{
    lately::Happened,
    notification::{Accepted, DeliveryError, Digest, DigestLine, Kind, Notification, NotifiedAlert},
};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use dogwatch_wire::{State, ctl::AckInfo};
use hyper::{
    StatusCode,
    header::{AUTHORIZATION, HeaderName},
};
use jiff::Timestamp;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::{
    http::{self, Endpoint},
    mail,
    secret::SecretFile,
    sender::Sender,
    words,
};
use crate::clock;

/// `[receiver.NAME.webhook]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub url: Spanned<String>,
    pub secret_file: Option<Spanned<PathBuf>>,
    pub token_file: Option<Spanned<PathBuf>>,
    /// PEM file with additional CA certificates to trust, for a server with a private CA.
    pub ca_file: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Clone)]
pub struct Webhook {
    to: Endpoint,
    secrets: Option<SecretFile>,
    token: Option<SecretFile>,
}

impl File {
    pub(super) fn resolve(self, source: &Source, problems: &mut Problems) -> Option<Webhook> {
        // A signature reveals no secret; a token does.
        let to = Endpoint::resolve(&self.url, self.ca_file, self.token_file.is_some(), source, problems)?;
        let secret = |path: Spanned<PathBuf>| SecretFile::new(path.into_inner());
        Some(Webhook { to, secrets: self.secret_file.map(secret), token: self.token_file.map(secret) })
    }
}

impl Webhook {
    pub(super) async fn send(
        &self,
        told: &Notification,
        sender: &Sender,
        http: &http::Http,
        deadline: Duration,
    ) -> Result<Accepted, DeliveryError> {
        let rejected = |reason: String| DeliveryError::Rejected { reason };
        let body = match &sender.own_words.json {
            Some(own) => own.clone().into_bytes(),
            None => body(told, sender)?,
        };
        let mut headers = vec![(HeaderName::from_static("x-dogwatch-id"), mail::token(&told.id))];
        if let Some(secrets) = &self.secrets {
            let secrets = secrets.lines().map_err(rejected)?;
            let at = clock::wall().as_second();
            headers.push((HeaderName::from_static("x-dogwatch-timestamp"), at.to_string()));
            headers.push((HeaderName::from_static("x-dogwatch-signature"), signatures(&secrets, at, &body)));
        }
        if let Some(token) = &self.token {
            headers.push((AUTHORIZATION, format!("Bearer {}", token.read().map_err(rejected)?)));
        }
        let answer = http.post(&self.to, &headers, body, deadline).await?;
        match answer.status {
            // Not yet processed (RFC 9110 §15.3.3).
            StatusCode::ACCEPTED => Ok(Accepted::default()),
            status if status.is_success() => Ok(Accepted::delivered()),
            _ => Err(answer.into_error(&self.to)),
        }
    }
}

/// The body; see docs/webhook.md.
#[derive(Serialize)]
struct Body<'a> {
    version: u32,
    id: &'a str,
    incident: u64,
    dedup_key: &'a str,
    receiver: &'a str,
    kind: Kind,
    reason: &'a str,
    state: State,
    title: String,
    created_at: Timestamp,
    group: &'a BTreeMap<String, String>,
    firing: Vec<BodyAlert<'a>>,
    resolved: Vec<BodyAlert<'a>>,
    digest: Vec<BodyDigestLine<'a>>,
    digest_summary: Option<&'a Digest>,
    ack: &'a Option<AckInfo>,
    lately: &'a [Happened],
    sent_by: &'a str,
}

#[derive(Serialize)]
struct BodyAlert<'a> {
    labels: &'a BTreeMap<String, String>,
    annotations: &'a BTreeMap<String, String>,
    state: State,
    flapping: bool,
    summary: &'a str,
    detail: &'a str,
    perfdata: &'a str,
    since: Timestamp,
    resolved_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct BodyDigestLine<'a> {
    incident: u64,
    kind: Kind,
    title: &'a str,
    at: Timestamp,
}

pub(super) fn body(told: &Notification, sender: &Sender) -> Result<Vec<u8>, DeliveryError> {
    let body = Body {
        version: 1,
        id: &told.id,
        incident: told.incident,
        dedup_key: &told.dedup_key,
        receiver: &told.receiver,
        kind: told.kind,
        reason: &told.reason,
        state: words::worst(told),
        title: words::title(told, &sender.zone),
        created_at: told.created_at,
        group: &told.group,
        firing: told.firing.iter().map(BodyAlert::of).collect(),
        resolved: told.resolved.iter().map(BodyAlert::of).collect(),
        digest: told.digest.iter().map(BodyDigestLine::of).collect(),
        digest_summary: told.summary.as_deref(),
        ack: &told.ack,
        lately: &told.lately,
        sent_by: &sender.host,
    };
    serde_json::to_vec(&body)
        .map_err(|error| DeliveryError::Rejected { reason: format!("cannot build the message: {error}") })
}

impl<'a> BodyAlert<'a> {
    fn of(alert: &'a NotifiedAlert) -> Self {
        Self {
            labels: &alert.labels,
            annotations: &alert.annotations,
            state: alert.state,
            flapping: alert.flapping,
            summary: &alert.summary,
            detail: &alert.detail,
            perfdata: &alert.perfdata,
            since: alert.since,
            resolved_at: alert.resolved_at,
        }
    }
}

impl<'a> BodyDigestLine<'a> {
    fn of(line: &'a DigestLine) -> Self {
        Self { incident: line.incident, kind: line.kind, title: &line.title, at: line.at }
    }
}

/// `v1=HEX` for each secret: HMAC-SHA256 over `SECONDS.BODY`, so that an old message cannot be
/// replayed.
fn signatures(secrets: &[String], at: i64, body: &[u8]) -> String {
    let sign = |secret: &String| {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        context.update(format!("{at}.").as_bytes());
        context.update(body);
        format!("v1={}", HEXLOWER.encode(context.sign().as_ref()))
    };
    secrets.iter().map(sign).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use serde_json::{Value, json};

    use super::{super::words::tests::problem, *};

    /// Other programs depend on version 1: a change here breaks them. Add a new version instead.
    #[test]
    fn the_body_is_version_1_of_the_contract() {
        let value: Value = serde_json::from_slice(&body(&problem(), &sender()).unwrap()).unwrap();
        assert_eq!(
            value,
            json!({
                "version": 1,
                "id": "n-0192f3a7-2",
                "incident": 4711,
                "dedup_key": "alertd/web1/4711",
                "receiver": "oncall",
                "kind": "problem",
                "reason": "group_wait_over",
                "state": "CRITICAL",
                "title": "[#4711] CRITICAL web1/disk: /var 96% used",
                "created_at": "2026-11-21T02:16:00Z",
                "group": {"service": "disk"},
                "firing": [{
                    "labels": {"host": "web1", "service": "disk"},
                    "annotations": {"note": "ask storage first", "runbook": "https://wiki.example/disk"},
                    "state": "CRITICAL",
                    "flapping": false,
                    "summary": "/var 96% used",
                    "detail": "/var 96% of 20 GiB\n/ 40% of 10 GiB",
                    "perfdata": "/var=96%;80;90",
                    "since": "2026-11-21T02:12:00Z",
                    "resolved_at": null,
                }],
                "resolved": [],
                "digest": [],
                "digest_summary": null,
                "ack": null,
                "lately": [
                    {"at": "2026-11-21T02:14:00Z", "service": "load", "what": "OK"},
                    {"at": "2026-11-21T01:58:00Z", "service": null, "what": "booted"},
                ],
                "sent_by": "mon1",
            })
        );
    }

    #[test]
    fn each_secret_signs_with_hmac_sha256() {
        // printf '1763691360.{"version":1}' | openssl dgst -sha256 -hmac Jefe
        let one = "v1=5055c080dbc5c5481c38eda85920d2977fb6aaf455a4ffca8afd467cc757a9fb";
        let body = br#"{"version":1}"#;
        assert_eq!(signatures(&["Jefe".into()], 1_763_691_360, body), one);
        let two = signatures(&["Jefe".into(), "old".into()], 1_763_691_360, body);
        assert!(two.starts_with(&format!("{one},v1=")), "{two}");
        assert_ne!(signatures(&["Jefe".into()], 1_763_691_361, body), one);
    }

    #[tokio::test]
    async fn a_post_has_id_signature_and_token() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            Some(SecretFile::new(dir.path().join(name)))
        };
        let server = http::tests::Server::start(204, &[], "").await;
        let hook = Webhook {
            to: http::tests::at(&server.url),
            secrets: file("secret", "s1\ns2\n"),
            token: file("token", "t0k\n"),
        };
        let send = || async {
            hook.send(&problem(), &sender(), &http::Http::default(), Duration::from_secs(10)).await
        };
        send().await.unwrap();
        send().await.unwrap();
        let requests = server.requests();
        let (headers, body) = &requests[0];
        assert_eq!(headers["x-dogwatch-id"], "n-0192f3a7-2");
        assert_eq!(headers["authorization"], "Bearer t0k");
        let at: i64 = headers["x-dogwatch-timestamp"].to_str().unwrap().parse().unwrap();
        assert!((clock::wall().as_second() - at).abs() < 60, "{at}");
        assert_eq!(headers["x-dogwatch-signature"], signatures(&["s1".into(), "s2".into()], at, body));
        assert_eq!(requests[0].1, requests[1].1, "a retry has the same body");
    }

    fn sender() -> Sender {
        Sender {
            host: "mon1".into(),
            zone: TimeZone::UTC,
            links: None,
            own_words: crate::notify::sender::Rendered::default(),
        }
    }
}
