//! External alerts, posted through Alertmanager's API v2 (`POST /api/v2/alerts`) by Prometheus,
//! scripts and others.
//!
//! The labels and who may speak for the alert identify it: SHA-256 over both. A token for one host
//! speaks for that host; every other sender speaks for any host, so two Prometheus servers that
//! post the same labels mean the same alert. Nothing that a token for one host posts can have the
//! key of an alert that it may not speak for. On a hit the labels are compared too. Alertmanager's
//! fingerprint (FNV-1a, 64 bits) is easy to collide with and only shown. It was the key once: an
//! alert from a store of that time keeps its key until it ends, and its next sender claims it.
//!
//! An alert fires from `startsAt` until `endsAt`, and its sender repeats it
//! before that; a repeat that changes only `endsAt` is not written to the store. An alert posted
//! with an `endsAt` in the past is resolved by its sender. If `endsAt` passes without another post,
//! the alert ends as *no longer reported*, and alertd does not claim that the problem is solved,
//! unlike Alertmanager.
//!
//! Labels are kept as posted. `host` and `service`, which routes group by, are added if missing:
//! from `instance` without its port, and from `alertname`.

use std::{net::SocketAddr, time::Duration};

use data_encoding::HEXLOWER;
use dogwatch_wire::{ServiceState, State, fnv1a, limits};
use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::rules::{
    alert::{Alert, AlertKey, External, NAME_BYTES_MAX},
    matcher::Labels,
    moment::later,
    sender::Sender,
};

pub use crate::rules::alert::EXTERNAL;

/// One posted alert: `postableAlert` of Alertmanager 0.28's openapi.yaml.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Posted {
    pub labels: Labels,
    #[serde(default)]
    pub annotations: Labels,
    #[serde(default)]
    pub starts_at: Option<Timestamp>,
    #[serde(default)]
    pub ends_at: Option<Timestamp>,
    #[serde(default, rename = "generatorURL")]
    pub generator_url: String,
}

/// A posted alert, validated and completed.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub key: AlertKey,
    pub host: String,
    pub report: ServiceState,
    pub external: External,
}

impl Posted {
    /// Validates and completes it. `key` is its key if that is known. The error is for the sender.
    pub fn read(
        self,
        key: Option<AlertKey>,
        sender: &Sender,
        resolve_timeout: Duration,
        now: Timestamp,
    ) -> Result<Reading, String> {
        let ends_at = self.until(resolve_timeout, now);
        let since = self.starts_at.or(self.ends_at).unwrap_or(now).min(now);
        let Self { mut labels, mut annotations, generator_url, .. } = self;
        if let Some(host) = &sender.host {
            labels.insert("host".into(), host.clone());
        }
        labels.retain(|_, value| !value.is_empty());
        if labels.is_empty() {
            return Err("an alert needs at least one label with a value".into());
        }
        if labels.len() > limits::LABELS_MAX {
            return Err(format!("{} labels, but the maximum is {}", labels.len(), limits::LABELS_MAX));
        }
        if let Some((name, value)) = labels
            .iter()
            .find(|(name, value)| name.is_empty() || name.len().max(value.len()) > NAME_BYTES_MAX)
        {
            let shown: String = name.chars().take(64).collect();
            let bytes = value.len();
            return Err(format!(
                "label {shown:?} with a value of {bytes} bytes: the name must not be empty, and neither name nor value \
                 may be longer than {NAME_BYTES_MAX} bytes"
            ));
        }
        if ends_at < since {
            return Err("endsAt is before startsAt".into());
        }
        let host = labels.get("host").cloned().or_else(|| labels.get("instance").map(|it| host_of(it)));
        let service = labels.get("service").or_else(|| labels.get("alertname")).cloned();
        let added = ["host", "service"].iter().filter(|name| !labels.contains_key(**name));
        let state = state_of(&labels, &annotations);
        let (summary, detail) = texts_of(&labels, &annotations);
        let (summary, detail) = (summary.to_owned(), detail.to_owned());
        if let Some(runbook) = annotations.remove(RUNBOOK_URL) {
            annotations.entry(RUNBOOK.into()).or_insert(runbook);
        }
        Ok(Reading {
            key: key.unwrap_or_else(|| key_of(&labels, sender.host.as_deref())),
            host: host.unwrap_or_else(|| "external".into()),
            external: External {
                ends_at,
                generator_url: generator_url.chars().take(URL_CHARS_MAX).collect(),
                sender: Some(sender.clone()),
                added: added.map(|name| (*name).to_owned()).collect(),
            },
            report: ServiceState {
                service: service.unwrap_or_else(|| "alert".into()),
                state,
                since,
                flapping: false,
                summary,
                detail,
                perfdata: String::new(),
                labels,
                annotations,
            },
        })
    }

    /// Its key if it is complete as posted: reading it does not change its labels.
    pub fn key_as_posted(&self, sender: &Sender) -> Option<AlertKey> {
        let is_complete = self.labels.values().all(|value| !value.is_empty())
            && sender.host.as_ref().is_none_or(|host| self.labels.get("host") == Some(host));
        is_complete.then(|| key_of(&self.labels, sender.host.as_deref()))
    }

    /// When it ends unless it is posted again.
    pub fn until(&self, resolve_timeout: Duration, now: Timestamp) -> Timestamp {
        self.ends_at.unwrap_or_else(|| later(now, resolve_timeout))
    }

    /// Whether reading and applying it would change nothing in `alert` but the time when it ends.
    /// May be false although nothing would change, never the other way round. Its key is that of
    /// the alert, and it has not ended. Copies nothing: most of what Prometheus posts is a repeat.
    pub fn repeats(&self, alert: &Alert, now: Timestamp) -> bool {
        let Some(external) = alert.external.as_ref().filter(|_| alert.resolved_at.is_none()) else {
            return false;
        };
        let since = self.starts_at.or(self.ends_at).unwrap_or(now).min(now);
        external.sender.is_some()
            && since >= alert.since
            && !alert.flapping
            && external.generator_url == self.generator_url
            && self.labels.iter().eq(shown_labels(alert))
            && self.annotates_like(alert)
            && alert.state == state_of(&self.labels, &self.annotations)
            && texts_of(&self.labels, &self.annotations) == (&alert.summary, &alert.detail)
    }

    fn annotates_like(&self, alert: &Alert) -> bool {
        let (posted, kept) = (&self.annotations, &alert.annotations);
        if !posted.contains_key(RUNBOOK_URL) {
            return posted == kept;
        }
        let kept_as = |name: &str| kept.get(if name == RUNBOOK_URL { RUNBOOK } else { name });
        !posted.contains_key(RUNBOOK)
            && posted.len() == kept.len()
            && posted.iter().all(|(name, value)| kept_as(name) == Some(value))
    }
}

/// The labels of an alert as its sender posted them, in order.
pub fn shown_labels(alert: &Alert) -> impl Iterator<Item = (&String, &String)> {
    let added = alert.external.as_ref().map_or(&[][..], |external| &external.added);
    alert.labels.iter().filter(|(name, _)| !added.contains(name))
}

/// The name that Prometheus mixins use, and ours.
const RUNBOOK_URL: &str = "runbook_url";
const RUNBOOK: &str = "runbook";

const URL_CHARS_MAX: usize = 2_000;

/// `web1:9100` is an exporter on `web1`.
fn host_of(instance: &str) -> String {
    if let Ok(address) = instance.parse::<SocketAddr>() {
        return address.ip().to_string();
    }
    match instance.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            host.into()
        }
        _ => instance.into(),
    }
}

/// Summary and detail: the first line of the annotation, and the rest.
fn texts_of<'a>(labels: &'a Labels, annotations: &'a Labels) -> (&'a str, &'a str) {
    let summary = ["summary", "message", "description"].iter().find_map(|name| annotations.get(*name));
    let summary = summary.or_else(|| labels.get("alertname")).map_or("", String::as_str);
    summary.split_once('\n').unwrap_or((summary, ""))
}

/// Recognizes common names for severities. Anything else, or nothing, is CRITICAL. As an
/// annotation, the severity may change without making a different alert.
fn state_of(labels: &Labels, annotations: &Labels) -> State {
    const WARNING: [&str; 8] = ["warning", "warn", "info", "notice", "low", "minor", "none", "ticket"];
    let severity = labels.get("severity").or_else(|| annotations.get("severity"));
    let severity = severity.map_or("", String::as_str);
    match severity {
        _ if WARNING.iter().any(|name| severity.eq_ignore_ascii_case(name)) => State::Warning,
        _ if severity.eq_ignore_ascii_case("unknown") => State::Unknown,
        _ => State::Critical,
    }
}

/// The key of an external alert. `speaker` is the host of a token that is bound to one.
pub fn key_of(labels: &Labels, speaker: Option<&str>) -> AlertKey {
    let mut context = Context::new(&SHA256);
    let mut add = |text: &str| {
        // With its length, so that no two lists of texts have the same bytes.
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    };
    add(speaker.map_or("any", |_| "host"));
    add(speaker.unwrap_or_default());
    for (name, value) in labels {
        add(name);
        add(value);
    }
    AlertKey::new(EXTERNAL, HEXLOWER.encode(context.finish().as_ref()))
}

/// The key that alerts have in old stores.
pub fn old_key_of(labels: &Labels) -> AlertKey {
    AlertKey::new(EXTERNAL, format!("{:016x}", fingerprint(labels)))
}

/// FNV-1a over the sorted labels, as in `prometheus/common/model`: the id that other tools show.
pub fn fingerprint(labels: &Labels) -> u64 {
    const SEPARATOR: u8 = 0xff;
    let bytes = labels
        .iter()
        .flat_map(|(name, value)| name.bytes().chain([SEPARATOR]).chain(value.bytes()).chain([SEPARATOR]));
    fnv1a(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Reading, String> {
        let posted = Posted { labels: labels(pairs), ..Posted::default() };
        posted.read(None, &Sender::default(), Duration::from_mins(5), at(1_000))
    }

    #[test]
    fn host_service_and_state_come_from_the_labels() {
        let table = [
            ("alertname=Disk instance=web1:9100 severity=warning", ("web1", "Disk", State::Warning)),
            ("alertname=Disk instance=[2001:db8::1]:9100", ("2001:db8::1", "Disk", State::Critical)),
            ("alertname=Disk instance=https://x.test/a", ("https://x.test/a", "Disk", State::Critical)),
            ("alertname=Up host=db1 service=db severity=page", ("db1", "db", State::Critical)),
            ("alertname=Watchdog severity=none", ("external", "Watchdog", State::Warning)),
            ("a=1 empty=", ("external", "alert", State::Critical)),
        ];
        for (pairs, (host, service, state)) in table {
            let pairs: Vec<_> = pairs.split(' ').filter_map(|pair| pair.split_once('=')).collect();
            let Reading { host: found, report, .. } = read(&pairs).unwrap();
            assert_eq!((&*found, &*report.service, report.state), (host, service, state), "{pairs:?}");
        }
        assert_eq!(read(&[("alertname", "x")]).unwrap().external.added, ["host", "service"]);
    }

    #[test]
    fn invalid_alerts_are_refused_with_a_reason() {
        let long = "x".repeat(300);
        for (pairs, word) in [
            (vec![], "at least one label"),
            (vec![("a", "")], "at least one label"),
            (vec![("a", long.as_str())], "256 bytes"),
            (vec![("", "b")], "must not be empty"),
        ] {
            let error = read(&pairs).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        let posted = Posted {
            labels: labels(&[("a", "b")]),
            starts_at: Some(at(900)),
            ends_at: Some(at(800)),
            ..Posted::default()
        };
        assert!(
            posted
                .read(None, &Sender::default(), Duration::from_mins(5), at(1_000))
                .unwrap_err()
                .contains("before startsAt")
        );
    }

    #[test]
    fn an_alert_without_an_end_ends_after_the_resolve_timeout() {
        assert_eq!(read(&[("a", "b")]).unwrap().external.ends_at, at(1_300));
    }

    /// S3: the key is no 64-bit hash, depends on who speaks, and has no two readings.
    #[test]
    fn the_key_includes_who_may_speak_for_the_alert() {
        let key = |pairs: &[(&str, &str)], speaker| key_of(&labels(pairs), speaker).service.clone();
        let any = key(&[("a", "b")], None);
        assert_eq!(any.len(), 64);
        assert_eq!(any, key(&[("a", "b")], None));
        let others = [
            key(&[("a", "b")], Some("web1")),
            key(&[("a", "b")], Some("web2")),
            key(&[("a", "b")], Some("")),
            key(&[("ab", "")], None),
            key(&[("", "ab")], None),
            key(&[("a", "b"), ("c", "d")], None),
            key(&[("a", "bcd")], None),
        ];
        let all: std::collections::BTreeSet<_> = others.iter().chain([&any]).collect();
        assert_eq!(all.len(), others.len() + 1);
    }

    #[test]
    fn a_token_for_one_host_cannot_speak_for_another() {
        let posted = Posted { labels: labels(&[("a", "b"), ("host", "web2")]), ..Posted::default() };
        let web1 = Sender { name: "token:web1".into(), host: Some("web1".into()) };
        let reading = posted.read(None, &web1, Duration::from_mins(5), at(1_000)).unwrap();
        assert_eq!((reading.host.as_str(), reading.report.labels["host"].as_str()), ("web1", "web1"));
    }

    /// From prometheus/common: the empty set, and labels that any Prometheus shows.
    #[test]
    fn the_fingerprint_equals_that_of_prometheus() {
        assert_eq!(fingerprint(&Labels::new()), 14_695_981_039_346_656_037);
        // Computed by hand from the definition of FNV-1a: a 0xff b 0xff.
        let by_hand = [b'a', 0xff, b'b', 0xff].iter().fold(14_695_981_039_346_656_037_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211)
        });
        assert_eq!(fingerprint(&labels(&[("a", "b")])), by_hand);
    }
}
