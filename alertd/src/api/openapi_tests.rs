//! Checks docs/openapi.json against the server: every route, every scope, and every answer that a
//! test can produce.

use std::collections::BTreeSet;

use dogwatch_alertd_core::{
    rules::token::{Hash, Scope},
    testing::World,
};
use dogwatch_wire::ctl;
use serde_json::{Value, json};

use super::{Needs, endpoints};
use crate::{config::Config, notify::schema::check};

fn document() -> Value {
    serde_json::from_str(super::OPENAPI).unwrap()
}

fn shown(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

#[test]
fn exactly_the_routes_of_the_server_are_documented_with_their_scopes() {
    let document = document();
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let scope = operation["x-scope"].as_str().unwrap_or("-");
            assert_eq!(operation["security"].as_array().unwrap().is_empty(), scope == "-", "{path}");
            let named: Vec<_> = path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
            let in_path: Vec<_> = in_path.filter_map(|parameter| parameter["name"].as_str()).collect();
            assert_eq!(in_path, named, "{path}");
            documented.insert(format!("{} {path} {scope}", method.to_uppercase()));
        }
    }
    let scope = |needs| match needs {
        Needs::Nothing => "-",
        Needs::Report => Scope::Ingest.name(),
        Needs::Health => Scope::Read.name(),
        Needs::Scope(scope) => Scope::name(scope),
    };
    let served: BTreeSet<_> = endpoints()
        .into_iter()
        .map(|endpoint| format!("{} {} {}", endpoint.method, endpoint.path, scope(endpoint.needs)))
        .collect();
    assert_eq!(documented, served);
}

#[test]
fn every_reference_has_a_target() {
    fn follow(document: &Value, value: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(to) = fields.get("$ref") {
                    let to = to.as_str().unwrap().strip_prefix('#').unwrap();
                    assert!(document.pointer(to).is_some(), "{to}");
                }
                fields.values().for_each(|field| follow(document, field));
            }
            Value::Array(items) => items.iter().for_each(|item| follow(document, item)),
            _ => {}
        }
    }
    let document = document();
    follow(&document, &document);
}

/// Compares the engine's answers in a small scenario with their schemas. Undocumented fields are
/// errors.
#[test]
fn answers_match_their_schemas() {
    let config = "[[route]]\nreceiver = \"mail\"\ngroup_wait = \"0s\"\n[receiver.mail.maildir]\npath = \"/m\"\n\
                  [user.ann]\nrules = [{ notify = [\"mail\"] }]\n[schedule.primary]\ntime_zone = \"UTC\"\n\
                  [[schedule.primary.layer]]\nusers = [\"ann\"]\n";
    let mut world = World::with_rules(Config::rules_of(config), 1);
    world.report("web1", "disk", 'C');
    world.report("web2", "disk", 'W');
    world.agents_send(None);
    let now = world.now;
    let document = document();
    let holds = |name: &str, value: Value| {
        let schema = json!({ "$ref": format!("#/components/schemas/{name}") });
        let mut wrong = Vec::new();
        check(&document, &schema, &value, name, &mut wrong);
        assert_eq!(wrong, Vec::<String>::new());
    };
    let each = |name: &str, values: Value| {
        let values = values.as_array().unwrap();
        assert!(!values.is_empty(), "no {name}");
        for value in values {
            holds(name, value.clone());
        }
    };
    let core = &mut world.core;
    let silence =
        ctl::NewSilence { matchers: vec!["host=db1".into()], duration_s: 600, ..ctl::NewSilence::default() };
    holds("Silence", shown(&core.on_silence(&silence, "eva", now).unwrap()));
    each("Silence", shown(&core.silences(now)));
    let downtime = ctl::NewDowntime { host: "web2".into(), duration_s: 600, ..ctl::NewDowntime::default() };
    holds("Downtime", shown(&core.on_downtime(&downtime, "eva", now).unwrap()));
    let by_hand = ctl::NewOverride {
        schedule: "primary".into(),
        user: "ann".into(),
        from: None,
        until: dogwatch_alertd_core::rules::moment::later(now, std::time::Duration::from_hours(1)),
        comment: "swapped".into(),
    };
    holds("Override", shown(&core.on_override(&by_hand, "eva", now).unwrap()));
    each("Override", shown(&core.overrides(now)));
    let on_call = core
        .on_call(now, dogwatch_alertd_core::rules::moment::later(now, std::time::Duration::from_hours(48)));
    holds("OnCall", shown(&on_call));
    let ack = ctl::Ack { comment: "looking".into(), sticky: true, expire_s: Some(600) };
    holds("Incident", shown(&core.on_ack(1, &ack, "eva", now).unwrap()));
    holds("Status", shown(&core.status("0.1.0", vec!["a warning".into()], now)));
    let health = dogwatch_alertd_core::rules::health::health(
        &core.vitals(now),
        &dogwatch_alertd_core::rules::health::Process::default(),
        "0.1.0",
        now,
    );
    holds("Health", shown(&health));
    let asked = ctl::AskedAlert { labels: [("host".to_owned(), "web1".to_owned())].into(), critical: true };
    holds("AskedAlert", shown(&asked));
    holds("Routed", shown(&core.routed(&asked, now)));
    let token = ctl::NewToken {
        name: "web1".into(),
        scopes: vec!["ingest".into()],
        expires_s: Some(60),
        host: Some("web1".into()),
    };
    holds("NewToken", shown(&token));
    let token = core.on_token(&token, Hash::new([1; 32]), "eva", now).unwrap();
    holds("Token", shown(&token));
    let backup = ctl::Backup {
        taken_at: now,
        bytes: 4_096,
        sha256: "00".into(),
        open_incidents: 1,
        incidents: 1,
        alerts: 2,
        silences: 1,
        store: "/s/alertd.db".into(),
        warning: Some("cannot write to the store".into()),
    };
    holds("Backup", shown(&backup));
    holds("NewBackup", shown(&ctl::NewBackup {}));
    holds("TokenMade", shown(&ctl::TokenMade { token, secret: "dogwatch_".into() }));
    each("GettableAlert", shown(&core.alerts_v2(&[], None, now).alerts));
    let entries: Vec<_> = core
        .take_changes()
        .into_iter()
        .filter_map(|change| match change {
            dogwatch_alertd_core::Change::History(entry) => Some(entry),
            _ => None,
        })
        .collect();
    each("HistoryEntry", shown(&entries));
    let (incident, route_path) = core.incident(1, now).unwrap();
    let why = ctl::Why { incident, route_path, decisions: entries, notifications: Vec::new() };
    holds("Why", shown(&why));
    for (name, value) in [
        ("NewSilence", shown(&silence)),
        ("NewDowntime", shown(&downtime)),
        ("NewOverride", shown(&by_hand)),
        ("Ack", shown(&ack)),
        ("Error", shown(&dogwatch_wire::ErrorReply { error: "no".into() })),
    ] {
        holds(name, value);
    }
}

#[test]
fn batches_match_their_schema() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/wire/tests/golden");
    let document = document();
    for (file, schema) in [
        ("batch-1", "Batch"),
        ("batch-empty-1", "Batch"),
        ("batch-states-1", "Batch"),
        ("reply-1", "BatchReply"),
        ("error-1", "Error"),
    ] {
        let text = std::fs::read_to_string(format!("{folder}/{file}.json")).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let mut wrong = Vec::new();
        let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
        check(&document, &schema, &value, file, &mut wrong);
        assert_eq!(wrong, Vec::<String>::new());
    }
}
