//! Checks values against docs/webhook.schema.json and docs/openapi.json, with the part of JSON
//! Schema that they use. Tests only.
//!
//! Stricter than the standard: a field that the schema does not name is an error, so that every
//! field is documented.

use dogwatch_alertd_core::rules::{
    notification::{Digest, DigestLine, Kind, Notification},
    storm::{Group, Shared},
};
use dogwatch_wire::{State, ctl::AckInfo};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use super::{sender::Sender, webhook::body, words::tests::problem};

#[test]
fn the_webhooks_body_matches_its_schema() {
    let schema: Value = serde_json::from_str(include_str!("../../../docs/webhook.schema.json")).unwrap();
    let sender = Sender {
        host: "mon1".into(),
        zone: TimeZone::UTC,
        links: None,
        own_words: crate::notify::sender::Rendered::default(),
    };
    for told in one_of_each_kind() {
        let sent: Value = serde_json::from_slice(&body(&told, &sender).unwrap()).unwrap();
        let mut wrong = Vec::new();
        check(&schema, &schema, &sent, "body", &mut wrong);
        assert_eq!(wrong, Vec::<String>::new(), "{:?}", told.kind);
    }
    let sent: Value = serde_json::from_slice(&body(&problem(), &sender).unwrap()).unwrap();
    for (at, value) in [
        ("/kind", "party".into()),
        ("/firing/0/since", "yesterday".into()),
        ("/firing/0/labels/host", 7.into()),
        ("/incident", (-1).into()),
        ("/ack", "ann".into()),
    ] {
        let mut spoilt = sent.clone();
        *spoilt.pointer_mut(at).unwrap() = value;
        let mut wrong = Vec::new();
        check(&schema, &schema, &spoilt, "body", &mut wrong);
        assert_eq!(wrong.len(), 1, "{at}: {wrong:?}");
    }
}

fn one_of_each_kind() -> Vec<Notification> {
    let at: Timestamp = "2026-11-21T02:20:00.25Z".parse().unwrap();
    let mut recovery = Notification { kind: Kind::Recovery, ..problem() };
    recovery.resolved = std::mem::take(&mut recovery.firing);
    recovery.resolved[0].resolved_at = Some(at);
    let ack =
        AckInfo { author: "ann".into(), comment: String::new(), at, sticky: true, expires_at: Some(at) };
    let acked = Notification { kind: Kind::Acknowledged, ack: Some(ack), ..problem() };
    let line = DigestLine { incident: 7, kind: Kind::Problem, title: "web1/disk".into(), at };
    let digest = Notification { incident: 0, kind: Kind::Digest, digest: vec![line], ..problem() };
    let shared = vec![Shared { label: "dc".into(), value: "fra1".into(), percent: 97 }];
    let group =
        Group { state: State::Critical, check: "disk".into(), alerts: 400, hosts: 412, since: at, shared };
    let summary = Digest {
        problems: 400,
        recoveries: 1,
        acks: 2,
        groups: vec![group],
        more_groups: 1,
        held_by: "the rate of user ann".into(),
    };
    let storm = Notification { summary: Some(Box::new(summary)), ..digest.clone() };
    let mut unknown = problem();
    unknown.firing[0].state = State::Unknown;
    let other = [Kind::Problem, Kind::Update, Kind::Reminder, Kind::Test];
    let other = other.map(|kind| Notification { kind, ..problem() });
    [recovery, acked, digest, storm, unknown].into_iter().chain(other).collect()
}

pub(crate) fn check(root: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    for (keyword, wants) in schema.as_object().unwrap() {
        let holds = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let target = wants.as_str().unwrap().strip_prefix('#').unwrap();
                check(root, root.pointer(target).unwrap(), value, at, wrong);
                true
            }
            "const" => value == wants,
            "enum" => wants.as_array().unwrap().contains(value),
            "type" => is_a(value, wants.as_str().unwrap()),
            "format" => value.as_str().is_some_and(|text| text.parse::<Timestamp>().is_ok()),
            "minimum" => value.as_i64() >= wants.as_i64(),
            "maxLength" => value.as_str().unwrap().chars().count() as u64 <= wants.as_u64().unwrap(),
            "anyOf" => wants.as_array().unwrap().iter().any(|one| {
                let mut trouble = Vec::new();
                check(root, one, value, at, &mut trouble);
                trouble.is_empty()
            }),
            "required" => {
                let missing = |name: &&Value| value.get(name.as_str().unwrap()).is_none();
                wants.as_array().unwrap().iter().find(missing).is_none()
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, wants, item, &format!("{at}[{n}]"), wrong);
                }
                true
            }
            "additionalProperties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    check(root, wants, field, &format!("{at}.{name}"), wrong);
                }
                true
            }
            "properties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    match wants.get(name) {
                        Some(wants) => check(root, wants, field, &format!("{at}.{name}"), wrong),
                        None => wrong.push(format!("{at}.{name} is not documented")),
                    }
                }
                true
            }
            other => panic!("unknown keyword {other} in the schema"),
        };
        if !holds {
            wrong.push(format!("{at}: {value} against {keyword} {wants}"));
        }
    }
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("unknown type {other} in the schema"),
    }
}
