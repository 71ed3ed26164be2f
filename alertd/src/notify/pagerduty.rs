//! `[receiver.NAME.pagerduty]`: PagerDuty Events API v2, and compatible services.
//!
//! ```toml
//! [receiver.pager.pagerduty]
//! routing_key_file = "/etc/dogwatch/pagerduty.key"   # the integration's 32 characters
//! dedup = "alert"                                    # default: "incident"
//! ```
//!
//! With `dedup = "incident"`, one alertd incident is one PagerDuty incident with the same
//! `dedup_key`, so a repeat after a crash joins it instead of paging twice. Problems, updates and
//! reminders *trigger*, an ack *acknowledges*, a recovery *resolves*. PagerDuty does not page again
//! for events that join an open incident: new alerts of the group appear only in its log.
//!
//! With `dedup = "alert"`, each alert is a separate PagerDuty incident, identified by the
//! incident's key and the alert's labels: each new alert pages, and each resolves separately. This
//! needs one event per alert, and PagerDuty accepts about 120 per minute, so use it for groups of
//! tens of alerts. A retry does not repeat events that were accepted.
//!
//! A digest and a test each trigger a separate incident that a person must resolve.
//!
//! | alertd | severity |
//! | --- | --- |
//! | CRITICAL | critical |
//! | UNKNOWN | error |
//! | WARNING | warning |
//! | OK, test | info |

use std::{borrow::Cow, path::PathBuf, sync::Arc, time::Duration};

use dogwatch_alertd_core::rules::{
    notification::{Accepted, DeliveryError, Kind, Notification, NotifiedAlert},
    text,
};
use dogwatch_daemon::config::{Problems, Source, Spanned};
use dogwatch_wire::State;
use hyper::Uri;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    delivered::Delivered,
    held,
    http::{self, Endpoint},
    mail, perfdata,
    secret::SecretFile,
    sender::Sender,
    words::{self, ALERTS_MAX, DIGEST_LINES_MAX},
};

/// `[receiver.NAME.pagerduty]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub routing_key_file: Spanned<PathBuf>,
    /// Default: PagerDuty's Events API.
    pub url: Option<Spanned<String>>,
    /// PEM file with additional CA certificates to trust, for a `url` with a private CA.
    pub ca_file: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub dedup: Dedup,
}

/// What becomes one incident at PagerDuty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dedup {
    Alert,
    #[default]
    Incident,
}

const EVENTS_URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// The API's limits (developer docs, Events API v2).
const DEDUP_KEY_CHARS_MAX: usize = 255;
const SUMMARY_CHARS_MAX: usize = 1_024;
/// The limit is 512 KB; the margin allows for how PagerDuty counts.
const EVENT_BYTES_MAX: usize = 500_000;

#[derive(Debug, Clone)]
pub struct PagerDuty {
    routing_key: SecretFile,
    to: Endpoint,
    dedup: Dedup,
    delivered: Arc<Delivered>,
}

impl File {
    pub(super) fn resolve(self, source: &Source, problems: &mut Problems) -> Option<PagerDuty> {
        let to = match self.url {
            Some(url) => Endpoint::resolve(&url, self.ca_file, true, source, problems)?,
            None => {
                Endpoint { url: Uri::from_static(EVENTS_URL), ca_file: self.ca_file.map(Spanned::into_inner) }
            }
        };
        let routing_key = SecretFile::new(self.routing_key_file.into_inner());
        Some(PagerDuty { routing_key, to, dedup: self.dedup, delivered: Arc::default() })
    }
}

impl PagerDuty {
    pub(super) fn is_by_alert(&self) -> bool {
        self.dedup == Dedup::Alert
    }

    pub(super) async fn send(
        &self,
        told: &Notification,
        sender: &Sender,
        http: &http::Http,
        deadline: Duration,
    ) -> Result<Accepted, DeliveryError> {
        let rejected = |reason: String| DeliveryError::Rejected { reason };
        let key = self.routing_key.read().map_err(rejected)?;
        let parts = parts(told, self.dedup);
        let mut taken = None;
        let all = async {
            for part in &parts {
                let name = dedup_key(part);
                if parts.len() > 1 && self.delivered.has(&told.id, &name) {
                    continue;
                }
                let answer = http.post(&self.to, &[], event(part, sender, &key)?, deadline).await?;
                if answer.status.as_u16() != 202 {
                    return Err(answer.into_error(&self.to));
                }
                self.delivered.note(&told.id, &name);
                taken = serde_json::from_slice::<Reply>(&answer.body).ok().and_then(|reply| reply.dedup_key);
            }
            Ok(())
        };
        tokio::time::timeout(deadline, all).await.unwrap_or_else(|_| {
            let reason =
                format!("{} did not accept all events within {deadline:?}", http::shown(&self.to.url));
            Err(DeliveryError::Retry { after: None, reason })
        })?;
        let provider_id = taken.map(|key| text::line(&key, DEDUP_KEY_CHARS_MAX));
        Ok(Accepted { provider_id: provider_id.filter(|_| parts.len() == 1), ..Accepted::default() })
    }
}

/// The events to send for one notification.
fn parts(told: &Notification, dedup: Dedup) -> Vec<Cow<'_, Notification>> {
    if dedup == Dedup::Incident || matches!(told.kind, Kind::Digest | Kind::Test) {
        return vec![Cow::Borrowed(told)];
    }
    let part = |alert: &NotifiedAlert, kind: Kind| {
        let labels: Vec<_> = alert.labels.iter().map(|(name, value)| format!("{name}\x1f{value}")).collect();
        let alert = vec![alert.clone()];
        let (firing, resolved) =
            if kind == Kind::Recovery { (Vec::new(), alert) } else { (alert, Vec::new()) };
        let dedup_key = format!("{}/{}", told.dedup_key, mail::hex_of(&labels.join("\x1e")));
        Cow::Owned(Notification { dedup_key, kind, firing, resolved, ..told.clone() })
    };
    let firing = told.firing.iter().map(|alert| part(alert, told.kind));
    firing.chain(told.resolved.iter().map(|alert| part(alert, Kind::Recovery))).collect()
}

#[derive(Deserialize)]
struct Reply {
    dedup_key: Option<String>,
}

#[derive(Serialize)]
struct Event<'a> {
    routing_key: &'a str,
    #[serde(rename = "event_action")]
    action: &'static str,
    dedup_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Payload>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<Link>,
    client: &'static str,
}

#[derive(Serialize)]
struct Payload {
    summary: String,
    source: String,
    severity: &'static str,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<String>,
    group: String,
    custom_details: serde_json::Value,
}

#[derive(Serialize)]
struct Link {
    href: String,
    text: String,
}

/// How much of each alert is included; less if the event would be too large.
#[derive(Clone, Copy)]
enum Detail {
    Full,
    SummariesOnly,
    None,
}

/// The event as JSON, never above the API's limit.
fn event(told: &Notification, sender: &Sender, routing_key: &str) -> Result<Vec<u8>, DeliveryError> {
    let rejected = |reason: String| DeliveryError::Rejected { reason };
    for detail in [Detail::Full, Detail::SummariesOnly, Detail::None] {
        let bytes = serde_json::to_vec(&event_with(told, sender, routing_key, detail))
            .map_err(|error| rejected(format!("cannot build the event: {error}")))?;
        if bytes.len() <= EVENT_BYTES_MAX {
            return Ok(bytes);
        }
    }
    Err(rejected("the event is too large even without details".into()))
}

fn event_with<'a>(told: &Notification, sender: &Sender, routing_key: &'a str, detail: Detail) -> Event<'a> {
    let action = match told.kind {
        Kind::Problem | Kind::Update | Kind::Reminder | Kind::Digest | Kind::Test => "trigger",
        Kind::Acknowledged => "acknowledge",
        Kind::Recovery => "resolve",
    };
    let trigger = action == "trigger";
    Event {
        routing_key,
        action,
        dedup_key: dedup_key(told),
        payload: trigger.then(|| payload(told, sender, detail)),
        links: if trigger { links(told) } else { Vec::new() },
        client: "dogwatch",
    }
}

fn dedup_key(told: &Notification) -> String {
    let key = text::line(&told.dedup_key, usize::MAX);
    if key.is_empty() || key.chars().count() > DEDUP_KEY_CHARS_MAX {
        mail::hex_of(&told.dedup_key)
    } else {
        key
    }
}

fn payload(told: &Notification, sender: &Sender, detail: Detail) -> Payload {
    let label = |name: &str| told.firing.first().and_then(|alert| alert.labels.get(name));
    Payload {
        summary: text::line(&sender.title(told), SUMMARY_CHARS_MAX),
        source: text::line(label("host").unwrap_or(&sender.host), 255),
        severity: severity(told),
        timestamp: told.created_at.to_string(),
        component: label("service").map(|service| text::line(service, 255)),
        group: words::group(told),
        custom_details: details(told, sender, detail),
    }
}

fn severity(told: &Notification) -> &'static str {
    match (told.kind, words::worst(told)) {
        (Kind::Test, _) => "info",
        // A digest of an older version does not contain the states.
        (Kind::Digest, State::Ok) if told.summary.is_none() => "critical",
        (_, State::Critical) => "critical",
        (_, State::Unknown) => "error",
        (_, State::Warning) => "warning",
        (_, State::Ok) => "info",
    }
}

fn details(told: &Notification, sender: &Sender, detail: Detail) -> serde_json::Value {
    let alerts = |alerts: &[NotifiedAlert]| -> serde_json::Value {
        alerts.iter().take(ALERTS_MAX).map(|alert| one_alert(alert, sender, detail)).collect()
    };
    let mut details = json!({
        "reason": text::line(&told.reason, 80),
        "notification": text::line(&told.id, 200),
        "firing_count": told.firing.len(),
        "resolved_count": told.resolved.len(),
    });
    if told.incident > 0 {
        details["ack"] = format!("alertctl ack {} (on {})", told.incident, sender.host).into();
        details["why"] = format!("alertctl why {}", told.incident).into();
    }
    if !told.lately.is_empty() {
        details["lately"] = words::lately(told, &sender.zone).into();
    }
    if !matches!(detail, Detail::None) {
        details["firing"] = alerts(&told.firing);
        details["resolved"] = alerts(&told.resolved);
        details["held_back"] = held::lines(told, &sender.zone, DIGEST_LINES_MAX).into();
    }
    details
}

fn one_alert(alert: &NotifiedAlert, sender: &Sender, detail: Detail) -> serde_json::Value {
    let mut value = json!({
        "name": words::alert_name(alert),
        "state": alert.state.name(),
        "summary": text::line(&alert.summary, 500),
        "since": text::clock_time(alert.since, &sender.zone),
    });
    if matches!(detail, Detail::Full) {
        value["value"] = perfdata::in_words(&alert.perfdata, 500).into();
        value["detail"] = text::block(&alert.detail, 40).into();
        for (name, text) in alert.annotations.iter().take(20) {
            value[text::line(name, 40)] = text::line(text, 500).into();
        }
    }
    value
}

/// Annotations that are URLs, such as the runbook.
fn links(told: &Notification) -> Vec<Link> {
    let annotations = told.firing.iter().take(ALERTS_MAX).flat_map(|alert| &alert.annotations);
    let mut links: Vec<Link> = Vec::new();
    for (name, value) in annotations {
        let is_url = value.starts_with("https://") || value.starts_with("http://");
        if is_url && links.len() < 10 && !links.iter().any(|link| link.href == *value) {
            links.push(Link { href: text::line(value, 1_000), text: text::line(name, 100) });
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use serde_json::Value;

    use super::{super::words::tests::problem, *};

    #[test]
    fn a_problem_triggers_with_summary_source_and_severity() {
        assert_eq!(
            json_of(&problem()),
            json!({
                "routing_key": "k".repeat(32),
                "event_action": "trigger",
                "dedup_key": "alertd/web1/4711",
                "client": "dogwatch",
                "links": [{"href": "https://wiki.example/disk", "text": "runbook"}],
                "payload": {
                    "summary": "[#4711] CRITICAL web1/disk: /var 96% used",
                    "source": "web1",
                    "severity": "critical",
                    "timestamp": "2026-11-21T02:16:00Z",
                    "component": "disk",
                    "group": "service=disk",
                    "custom_details": {
                        "reason": "group_wait_over",
                        "notification": "n-0192f3a7-2",
                        "firing_count": 1,
                        "resolved_count": 0,
                        "ack": "alertctl ack 4711 (on mon1)",
                        "why": "alertctl why 4711",
                        "lately": "load OK 02:14, booted 01:58",
                        "firing": [{
                            "name": "web1/disk",
                            "state": "CRITICAL",
                            "summary": "/var 96% used",
                            "since": "02:12 Sat 21 Nov 2026 UTC",
                            "value": "/var 96% (warning above 80, critical above 90)",
                            "detail": ["/var 96% of 20 GiB", "/ 40% of 10 GiB"],
                            "note": "ask storage first",
                            "runbook": "https://wiki.example/disk",
                        }],
                        "resolved": [],
                        "held_back": [],
                    },
                },
            })
        );
    }

    #[test]
    fn an_ack_acknowledges_and_a_recovery_resolves_the_same_incident() {
        let action = |kind| {
            let event = json_of(&Notification { kind, ..problem() });
            assert_eq!(event["dedup_key"], "alertd/web1/4711");
            (event["event_action"].clone(), event.get("payload").is_some())
        };
        assert_eq!(action(Kind::Acknowledged), (json!("acknowledge"), false));
        assert_eq!(action(Kind::Recovery), (json!("resolve"), false));
        assert_eq!(action(Kind::Reminder), (json!("trigger"), true));
    }

    #[test]
    fn no_plugin_output_exceeds_the_apis_limits() {
        let mut told = problem();
        let loud = "\"\\ü<\u{7}\n".repeat(2_000);
        let alert = &mut told.firing[0];
        alert.summary.clone_from(&loud);
        alert.detail.clone_from(&loud);
        alert.labels.insert("host".into(), loud.clone());
        for n in 0..50 {
            alert.annotations.insert(format!("a{n}"), format!("https://{loud}"));
        }
        told.firing = vec![told.firing[0].clone(); 100];
        told.dedup_key = "k".repeat(256);
        let event = json_of(&told);
        assert!(event.to_string().len() <= 512_000);
        assert!(event["payload"]["summary"].as_str().unwrap().chars().count() <= 1_024);
        assert_eq!(event["dedup_key"].as_str().unwrap().len(), 32);
        assert_eq!(event["payload"]["custom_details"]["firing_count"], 100);
    }

    #[tokio::test]
    async fn only_202_means_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, "secret-key\n").unwrap();
        let send = async |status, body: &str| {
            let server = http::tests::Server::start(status, &[], body).await;
            let pager = PagerDuty {
                routing_key: SecretFile::new(key.clone()),
                to: http::tests::at(&server.url),
                dedup: Dedup::Incident,
                delivered: Arc::default(),
            };
            let result =
                pager.send(&problem(), &sender(), &http::Http::default(), Duration::from_secs(10)).await;
            let sent: Value = serde_json::from_slice(&server.requests()[0].1).unwrap();
            assert_eq!(sent["routing_key"], "secret-key");
            result
        };
        let accepted = send(202, r#"{"status":"success","dedup_key":"alertd/web1/4711"}"#).await.unwrap();
        assert_eq!(accepted.provider_id.unwrap(), "alertd/web1/4711");
        assert!(matches!(send(200, "").await.unwrap_err(), DeliveryError::Rejected { .. }));
        let error = send(400, r#"{"status":"invalid event"}"#).await.unwrap_err();
        assert!(matches!(&error, DeliveryError::Rejected { reason } if reason.contains("invalid event")));
        assert!(!error.to_string().contains("secret-key"));
        assert!(matches!(send(429, "").await.unwrap_err(), DeliveryError::Retry { after: Some(_), .. }));
    }

    #[tokio::test]
    async fn with_dedup_alert_each_alert_has_its_own_event_and_retries_skip_accepted_ones() {
        let mut told = problem();
        let mut other = told.firing[0].clone();
        other.labels.insert("host".into(), "web2".into());
        let mut gone = other.clone();
        gone.labels.insert("host".into(), "web3".into());
        told.firing.push(other);
        told.resolved = vec![gone];
        told.kind = Kind::Update;
        let of = |told: &Notification| -> Vec<(String, &'static str)> {
            let parts = parts(told, Dedup::Alert);
            parts
                .iter()
                .map(|part| (dedup_key(part), event_with(part, &sender(), "", Detail::None).action))
                .collect()
        };
        let events = of(&told);
        assert_eq!(events.iter().map(|event| event.1).collect::<Vec<_>>(), ["trigger", "trigger", "resolve"]);
        assert!(events.iter().all(|event| event.0.starts_with("alertd/web1/4711/")), "{events:?}");
        assert!(events[0].0 != events[1].0 && events[1].0 != events[2].0);
        // An ack and the recovery have the same keys.
        told.resolved = Vec::new();
        told.kind = Kind::Acknowledged;
        assert_eq!(of(&told), [(events[0].0.clone(), "acknowledge"), (events[1].0.clone(), "acknowledge")]);
        told.resolved = std::mem::take(&mut told.firing);
        told.kind = Kind::Recovery;
        assert_eq!(of(&told), [(events[0].0.clone(), "resolve"), (events[1].0.clone(), "resolve")]);

        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, "secret-key\n").unwrap();
        let server = http::tests::Server::start(202, &[], "{}").await;
        let pager = PagerDuty {
            routing_key: SecretFile::new(key),
            to: http::tests::at(&server.url),
            dedup: Dedup::Alert,
            delivered: Arc::default(),
        };
        let send =
            || async { pager.send(&told, &sender(), &http::Http::default(), Duration::from_secs(10)).await };
        pager.delivered.note(&told.id, &events[0].0);
        send().await.unwrap();
        assert_eq!(server.requests().len(), 1, "the first was accepted before");
        send().await.unwrap();
        assert_eq!(server.requests().len(), 1);
    }

    fn json_of(told: &Notification) -> Value {
        serde_json::from_slice(&event(told, &sender(), &"k".repeat(32)).unwrap()).unwrap()
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
