//! Tests for every implementation of the store.

use std::{hash::RandomState, sync::Arc};

use dogwatch_alertd_core::{
    Change, Core, Loaded,
    testing::{Memory, World},
};
use dogwatch_wire::ctl::HistoryEntry;
use jiff::Timestamp;

use super::{Archive as _, Store, StoreError, sqlite::Sqlite};
use crate::config::Config;

const CONFIG: &str = r#"
    [[route]]
    receiver = "mail"
    group_wait = "0s"
    [receiver.mail.maildir]
    path = "/m"
    [user.ann]
    rules = [{ notify = ["mail"] }]
    [schedule.primary]
    time_zone = "UTC"
    [[schedule.primary.layer]]
    users = ["ann"]
"#;

/// Data of every kind, in every state.
fn story() -> (World, Vec<Change>) {
    let mut world = World::with_rules(Config::rules_of(CONFIG), 1);
    world.moods.insert("mail".into(), dogwatch_alertd_core::testing::Mood::Busy);
    world.report("web1", "disk", 'C');
    world.report("web2", "disk", 'W');
    world.agents_send(None);
    let ask = dogwatch_wire::ctl::NewSilence {
        matchers: vec!["host=db1".into()],
        duration_s: 600,
        comment: "moving".into(),
        ..dogwatch_wire::ctl::NewSilence::default()
    };
    world.core.on_silence(&ask, "eva", world.now).unwrap();
    let ask = dogwatch_wire::ctl::NewOverride {
        schedule: "primary".into(),
        user: "ann".into(),
        from: None,
        until: dogwatch_alertd_core::rules::moment::later(world.now, std::time::Duration::from_hours(1)),
        comment: "swapped".into(),
    };
    world.core.on_override(&ask, "eva", world.now).unwrap();
    let ask = dogwatch_wire::ctl::NewDowntime {
        host: "web1".into(),
        duration_s: 600,
        flexible_s: Some(60),
        ..dogwatch_wire::ctl::NewDowntime::default()
    };
    world.core.on_downtime(&ask, "eva", world.now).unwrap();
    let ask = dogwatch_wire::ctl::NewToken {
        name: "prom".into(),
        scopes: vec!["ingest".into()],
        expires_s: Some(3_600),
        ..dogwatch_wire::ctl::NewToken::default()
    };
    world
        .core
        .on_token(&ask, dogwatch_alertd_core::rules::token::Hash::new([1; 32]), "eva", world.now)
        .unwrap();
    let changes = world.core.take_changes();
    world.store.commit(&changes);
    let everything = as_changes(world.store.load(world.now));
    (world, everything)
}

fn as_changes(loaded: Loaded) -> Vec<Change> {
    let mut changes = vec![Change::Counters(loaded.counters)];
    changes.extend(loaded.agents.into_iter().map(|(id, agent)| Change::Agent(id, Box::new(agent))));
    changes.extend(loaded.alerts.into_iter().map(|(key, alert)| Change::Alert(key, Arc::new(alert))));
    changes.extend(loaded.incidents.into_iter().map(|incident| Change::Incident(Box::new(incident))));
    changes.extend(loaded.told.into_iter().map(|(incident, receiver, told)| Change::Told {
        incident,
        receiver,
        told: Some(told),
    }));
    changes.extend(loaded.silences.into_iter().map(Change::Silence));
    changes.extend(loaded.overrides.into_iter().map(Change::Override));
    changes.extend(loaded.downtimes.into_iter().map(Change::Downtime));
    changes.extend(
        loaded.tokens.into_iter().map(|token| Change::Token(token.name.clone(), Some(Box::new(token)))),
    );
    changes.extend(loaded.outbox.into_iter().map(|row| Change::Outbox(Box::new(row))));
    changes
}

/// Everything that a core would load, as text.
fn shown(store: &mut impl Store, now: Timestamp) -> String {
    let loaded = Loaded { instance: String::new(), ..store.load(now).unwrap() };
    format!("{loaded:#?}")
}

fn same(one: &str, other: &str) {
    let differs = one.lines().zip(other.lines()).find(|(one, other)| one != other);
    assert_eq!((differs, one.len()), (None, other.len()));
}

fn keeps_what_is_committed(mut store: impl Store) {
    let (mut world, everything) = story();
    store.commit(&everything).unwrap();
    same(&shown(&mut store, world.now), &shown(&mut world.store, world.now));
    // The same changes again must not add rows.
    store.commit(&everything).unwrap();
    same(&shown(&mut store, world.now), &shown(&mut world.store, world.now));
}

fn forgets_what_is_gone(mut store: impl Store) {
    let (world, everything) = story();
    store.commit(&everything).unwrap();
    let loaded = store.load(world.now).unwrap();
    let alerts = loaded.alerts.into_iter().map(|(_, alert)| Change::AlertGone(alert.row));
    let tokens = loaded.tokens.into_iter().map(|token| Change::Token(token.name, None));
    let agents = loaded.agents.into_iter().map(|(id, _)| Change::AgentGone(id));
    let gone: Vec<_> = alerts.chain(tokens).chain(agents).collect();
    store.commit(&gone).unwrap();
    let loaded = store.load(world.now).unwrap();
    assert!(loaded.alerts.is_empty() && loaded.tokens.is_empty() && loaded.agents.is_empty(), "{loaded:?}");
}

#[test]
fn what_is_committed_comes_back_and_what_is_gone_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| Sqlite::open(&dir.path().join(name), "test").unwrap();
    keeps_what_is_committed(Memory::default());
    keeps_what_is_committed(open("a"));
    forgets_what_is_gone(Memory::default());
    forgets_what_is_gone(open("b"));
}

#[test]
fn what_was_committed_is_there_after_the_process_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut world, everything) = story();
    let mut store = Sqlite::open(dir.path(), "test").unwrap();
    store.commit(&everything).unwrap();
    // As after SIGKILL: copy the files without closing the store.
    let copy = tempfile::tempdir().unwrap();
    for name in ["alertd.db", "alertd.db-wal"] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let mut again = Sqlite::open(copy.path(), "other").unwrap();
    same(&shown(&mut again, world.now), &shown(&mut world.store, world.now));
    assert_eq!(again.load(world.now).unwrap().instance, "test", "a store keeps its instance");
}

#[test]
fn a_torn_commit_is_as_if_it_never_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Sqlite::open(dir.path(), "test").unwrap();
    let (world, everything) = story();
    store.commit(&everything).unwrap();
    let whole = shown(&mut store, world.now);
    let wal = dir.path().join("alertd.db-wal");
    let before = std::fs::metadata(&wal).unwrap().len();
    let gone: Vec<_> = store
        .load(world.now)
        .unwrap()
        .alerts
        .into_iter()
        .map(|(_, alert)| Change::AlertGone(alert.row))
        .collect();
    store.commit(&gone).unwrap();
    let after = std::fs::metadata(&wal).unwrap().len();
    for cut in (before..after).step_by(997) {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join("alertd.db"), copy.path().join("alertd.db")).unwrap();
        std::fs::write(
            copy.path().join("alertd.db-wal"),
            &std::fs::read(&wal).unwrap()[..usize::try_from(cut).unwrap()],
        )
        .unwrap();
        let mut again = Sqlite::open(copy.path(), "test").unwrap();
        same(&shown(&mut again, world.now), &whole);
    }
}

#[test]
fn a_damaged_file_is_kept_aside_and_alertd_starts_without_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("alertd.db"),
        "this is not a database, and it is long enough to be read".repeat(99),
    )
    .unwrap();
    let mut store = Sqlite::open(dir.path(), "test").unwrap();
    assert!(store.notice.as_ref().unwrap().contains("alertd.damaged-1"), "{:?}", store.notice);
    assert!(dir.path().join("alertd.damaged-1").exists());
    assert!(store.load(Timestamp::UNIX_EPOCH).unwrap().incidents.is_empty());
}

/// A file of the first schema: no overrides table, and no counter for overrides.
#[test]
fn a_file_of_the_first_schema_is_led_forward() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alertd.db");
    let (mut world, everything) = story();
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(include_str!("schema.sql")).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    let put = |sql: &str, values: &[&dyn rusqlite::ToSql]| assert_eq!(old.execute(sql, values).unwrap(), 1);
    put("INSERT INTO meta VALUES ('counters', '{\"incident\":3,\"outbox\":9,\"silence\":2}')", &[]);
    for change in &everything {
        if let Change::Incident(incident) = change {
            let body = serde_json::to_string(incident).unwrap();
            assert!(
                !body.contains("pages"),
                "an incident without pages is written as in the first schema: {body}"
            );
            put("INSERT INTO incident VALUES (?1, 1, 0, NULL, ?2)", &[&incident.number, &body]);
        }
        if let Change::Alert(key, alert) = change {
            let body = serde_json::to_string(alert.as_ref()).unwrap();
            put("INSERT INTO alert VALUES (?1, ?2, ?3)", &[&key.agent, &key.service, &body]);
        }
    }
    drop(old);
    let mut store = Sqlite::open(dir.path(), "test").unwrap();
    let loaded = store.load(world.now).unwrap();
    assert_eq!((loaded.counters.incident, loaded.counters.overrides, loaded.counters.downtime), (3, 1, 1));
    assert_eq!(loaded.incidents.len(), 2);
    let alerts: Vec<_> = loaded.alerts.iter().map(|(key, alert)| (alert.row, &*key.service)).collect();
    assert_eq!(alerts, [(1, "disk"), (2, "disk")]);
    store.commit(&everything).unwrap();
    same(&shown(&mut store, world.now), &shown(&mut world.store, world.now));
}

#[test]
fn a_newer_schema_and_a_second_alertd_are_refused_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(dir.path(), "test").unwrap();
    let refused = |dir: &std::path::Path| match Sqlite::open(dir, "test") {
        Err(StoreError::Unusable(words)) => words,
        other => panic!("{:?}", other.err()),
    };
    assert!(refused(dir.path()).contains("another alertd uses"));
    drop(store);
    let raw = rusqlite::Connection::open(dir.path().join("alertd.db")).unwrap();
    raw.execute_batch("CREATE TABLE of_tomorrow (x)").unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    assert!(refused(dir.path()).contains("has schema 99"));
}

#[test]
fn the_archive_answers_beside_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Sqlite::open(dir.path(), "test").unwrap();
    let (world, everything) = story();
    store.commit(&everything).unwrap();
    let entry = |second, incident| HistoryEntry {
        at: Timestamp::from_second(second).unwrap(),
        incident,
        kind: "opened".into(),
        reason: "reported".into(),
        author: (second == 2).then(|| "eva".into()),
        from: (second == 2).then(|| "uid 1000".into()),
        text: second.to_string(),
        detail: None,
    };
    let entries = [entry(1, Some(1)), entry(2, None), entry(3, Some(1))];
    store.commit(&entries.clone().map(Change::History)).unwrap();
    let archive = store.archive();
    let texts = |found: Vec<HistoryEntry>| found.into_iter().map(|entry| entry.text).collect::<Vec<_>>();
    assert_eq!(texts(archive.history(None, 2).unwrap()), ["3", "2"]);
    assert_eq!(texts(archive.history(Some(Timestamp::from_second(3).unwrap()), 9).unwrap()), ["3"]);
    assert_eq!(texts(archive.decisions(1).unwrap()), ["1", "3"]);
    let audit = archive.audit(None, 9).unwrap();
    assert_eq!(audit, [entries[1].clone()]);
    assert_eq!(archive.notifications(1).unwrap()[0].state, "queued");
    assert!(archive.closed_incident(1).unwrap().is_none());
    store.prune(world.now).unwrap();
    assert_eq!(texts(archive.history(None, 9).unwrap()), ["3", "1"], "an open incident keeps its history");
    let core = Core::new(
        Config::rules_of(CONFIG),
        "x".into(),
        RandomState::new(),
        store.load(world.now).unwrap(),
        world.now,
    );
    assert_eq!(core.outbox_status().queued, 2);
}

/// S5: one bit in the body of a row. What the row's columns still say is used.
#[test]
fn a_damaged_row_is_set_aside_and_named_and_its_alert_fires_on() {
    let dir = tempfile::tempdir().unwrap();
    let (world, everything) = story();
    let mut store = Sqlite::open(dir.path(), "test").unwrap();
    store.commit(&everything).unwrap();
    let firing = world.store.alerts.len();
    drop(store);
    let raw = rusqlite::Connection::open(dir.path().join("alertd.db")).unwrap();
    for table in ["alert", "incident", "outbox"] {
        let changed = raw.execute(
            &format!(
                "UPDATE {table} SET body = substr(body, 1, length(body) - 9) || 'damaged!}}'
                 WHERE rowid = (SELECT MIN(rowid) FROM {table})"
            ),
            [],
        );
        let changed = changed.unwrap();
        assert!(changed > 0, "{table}");
    }
    drop(raw);
    let mut store = Sqlite::open(dir.path(), "test").unwrap();
    let notice = store.notice.clone().unwrap();
    assert!(notice.contains("damaged rows") && notice.contains("incident 1"), "{notice}");
    let loaded = store.load(world.now).unwrap();
    assert!(!loaded.lost.alerts.is_empty() && !loaded.lost.notifications_of.is_empty(), "{:?}", loaded.lost);
    let rules = Config::rules_of(CONFIG);
    let mut core = Core::new(rules, "x".into(), RandomState::new(), loaded, world.now);
    core.settle(world.now);
    assert_eq!(core.sizes(world.now).firing, firing);
    assert_eq!(core.status("1", Vec::new(), world.now).incidents.len(), world.open_incidents().len());
    let raw = rusqlite::Connection::open(dir.path().join("alertd.db")).unwrap();
    let kept: i64 = raw.query_row("SELECT COUNT(*) FROM set_aside", [], |row| row.get(0)).unwrap();
    assert!(kept >= 3);
    drop((raw, store));
    assert_eq!(Sqlite::open(dir.path(), "test").unwrap().notice, None, "said once");
}

/// A damaged header or schema does not make alertd refuse its own file.
#[test]
fn a_damaged_version_number_is_not_a_newer_schema() {
    let dir = tempfile::tempdir().unwrap();
    let (mut world, everything) = story();
    let mut store = Sqlite::open(dir.path(), "test").unwrap();
    store.commit(&everything).unwrap();
    drop(store);
    for wrong in [0, 3, 4_104] {
        let raw = rusqlite::Connection::open(dir.path().join("alertd.db")).unwrap();
        raw.pragma_update(None, "user_version", wrong).unwrap();
        drop(raw);
        let mut store = Sqlite::open(dir.path(), "test").unwrap();
        same(&shown(&mut store, world.now), &shown(&mut world.store, world.now));
    }
}

/// A file whose structure is damaged: every row that can be read is used.
#[test]
fn of_a_file_with_a_damaged_page_all_other_rows_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let (world, everything) = story();
    let mut store = Sqlite::open(dir.path(), "test").unwrap();
    store.commit(&everything).unwrap();
    drop(store);
    let path = dir.path().join("alertd.db");
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let root: usize = raw
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'silence'", [], |row| row.get(0))
        .unwrap();
    drop(raw);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[(root - 1) * 4_096..][..512].fill(0xaa);
    std::fs::write(&path, bytes).unwrap();
    let mut store = Sqlite::open(dir.path(), "test").unwrap();
    assert!(store.notice.as_ref().unwrap().contains("rows could be read"), "{:?}", store.notice);
    let loaded = store.load(world.now).unwrap();
    assert_eq!(loaded.incidents.len(), world.store.incidents.len());
    assert_eq!(loaded.alerts.len(), world.store.alerts.len());
    assert_eq!(loaded.instance, "test");
}
