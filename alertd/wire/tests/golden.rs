//! Every released message is still read and written as before. Old files never change; a new field
//! or message kind gets a new file. After a deliberate addition,
//! `DOGWATCH_WRITE_GOLDEN=1 cargo test -p dogwatch-wire` writes missing files and never overwrites
//! existing ones.

use std::{fmt::Debug, fs, path::PathBuf};

use dogwatch_wire::{
    Batch, BatchReply, ErrorReply, Event, EventKind, Heartbeat, HostChange, PROTOCOL, PROTOCOL_PARTS,
    ServiceState, State, StatesPart, Transition, digest,
};
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};

#[test]
fn a_batch_with_every_kind_of_event() {
    let transition = EventKind::Transition(Transition { from: State::Ok, now: disk() });
    let flapping = EventKind::Transition(Transition {
        from: State::Critical,
        now: ServiceState { flapping: true, ..plain("web", State::Warning) },
    });
    let removed = EventKind::Removed { service: "old".into() };
    let events = [transition, flapping, removed].into_iter().zip(17..);
    let batch = Batch {
        events: events.map(|(kind, seq)| Event { seq, at: at(1_700_000_060), kind }).collect(),
        heartbeat: Some(heartbeat()),
        ..empty()
    };
    golden("batch-1", &batch);
}

#[test]
fn a_heartbeat_with_changes_of_the_host() {
    let change = |seconds, what: &str| HostChange { at: at(seconds), what: what.into() };
    let changes = vec![change(1_700_000_020, "booted"), change(1_700_000_010, "1 package upgraded: curl")];
    golden("batch-changes-1", &Batch { heartbeat: Some(Heartbeat { changes, ..heartbeat() }), ..empty() });
}

#[test]
fn a_batch_that_only_asks() {
    golden("batch-empty-1", &empty());
}

#[test]
fn a_batch_that_names_its_process() {
    let boot = "6f9619ff-8b86-d011-b42d-00cf4fc964ff".into();
    golden("batch-run-1", &Batch { run: "00000000cafe0001".into(), boot, ..empty() });
}

#[test]
fn a_batch_with_all_states() {
    let states = vec![disk(), plain("load", State::Ok), plain("web", State::Unknown)];
    golden("batch-states-1", &Batch { states: Some(states), ..empty() });
}

#[test]
fn a_batch_with_a_part_of_the_states() {
    let part = StatesPart { after: "disk /".into(), through: Some("load".into()) };
    let batch = Batch {
        protocol: PROTOCOL_PARTS,
        states: Some(vec![plain("load", State::Ok)]),
        states_part: Some(part),
        ..empty()
    };
    golden("batch-states-part-2", &batch);
}

#[test]
fn parts_cover_every_name_once() {
    let middle = StatesPart { after: "a".into(), through: Some("disk /".into()) };
    assert_eq!(["a", "a b", "disk /", "disk /a"].map(|name| middle.has(name)), [false, true, true, false]);
    let (first, last) =
        (StatesPart { after: String::new(), ..middle }, StatesPart { after: "disk /".into(), through: None });
    assert_eq!(["a", "disk /", "disk /a", "z"].map(|name| first.has(name)), [true, true, false, false]);
    assert_eq!(["a", "disk /", "disk /a", "z"].map(|name| last.has(name)), [false, false, true, true]);
    assert!(last.is_last() && !first.is_last());
}

#[test]
fn the_answers() {
    let reply = BatchReply { protocol: PROTOCOL, acked_seq: 19, want_states: true, start_epoch: false };
    golden("reply-1", &reply);
    golden("reply-epoch-1", &BatchReply { start_epoch: true, ..reply });
    let error = "protocol 2 is newer than the 1 that this alertd speaks; upgrade alertd first".into();
    golden("error-1", &ErrorReply { error });
}

#[test]
fn unknown_fields_of_a_newer_sender_are_ignored() {
    let text = fs::read_to_string(path("batch-1")).expect("the file is there");
    let newer =
        text.replacen('{', "{\"colour\": \"blue\",", 1).replacen("\"seq\":", "\"weight\": 3, \"seq\":", 1);
    let read: Batch = serde_json::from_str(&newer).expect("unknown fields are no error");
    assert_eq!(read, serde_json::from_str(&text).expect("it reads"));
}

fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, message: &T) {
    let path = path(name);
    let mut written = serde_json::to_string_pretty(message).expect("it can be written");
    written.push('\n');
    if !path.exists() && std::env::var_os("DOGWATCH_WRITE_GOLDEN").is_some() {
        fs::write(&path, &written).expect("the golden file can be written");
    }
    let text = fs::read_to_string(&path).expect("the golden file is there");
    assert_eq!(
        &serde_json::from_str::<T>(&text).expect("the golden file reads"),
        message,
        "{name} reads as before"
    );
    assert_eq!(written, text, "{name} is written as before");
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR")))
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        digest: digest([("disk", State::Critical, false), ("web", State::Warning, true)]),
        next_within_s: 30,
        version: "0.1.0".into(),
        services: 6,
        changes: Vec::new(),
    }
}

fn empty() -> Batch {
    Batch {
        protocol: PROTOCOL,
        agent: "0123456789abcdef0123456789abcdef".into(),
        host: "web1".into(),
        epoch: "00000000deadbeef".into(),
        run: String::new(),
        boot: String::new(),
        sent_at: at(1_700_000_061),
        events: Vec::new(),
        heartbeat: None,
        states: None,
        states_part: None,
    }
}

fn disk() -> ServiceState {
    ServiceState {
        detail: "second line\nthird line".into(),
        perfdata: "/=97%;90;95;0;100".into(),
        labels: [("env".into(), "prod".into()), ("team".into(), "db".into())].into(),
        annotations: [("runbook".into(), "https://example.org/disk".into())].into(),
        ..plain("disk", State::Critical)
    }
}

fn plain(service: &str, state: State) -> ServiceState {
    ServiceState {
        service: service.into(),
        state,
        since: at(1_700_000_000),
        flapping: false,
        summary: "/ is 97 % full – “äöü”".into(),
        detail: String::new(),
        perfdata: String::new(),
        labels: [].into(),
        annotations: [].into(),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time of this age")
}
