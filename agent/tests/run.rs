//! The real agent with real plugins against an alertd that remembers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{fs, io::Write as _, process::Command};

use axum::{Json, Router, routing::get};
use common::{Agent, Alertd, Place, stderr, stdout, wait_for};
use dogwatch_daemon::unix_http;
use dogwatch_wire::{EventKind, State};
use rustix::process::Signal;

#[tokio::test]
async fn a_problem_reaches_alertd_and_its_recovery_too() {
    let (place, alertd, agent) = started(&["web"]);
    set(&place, "web", 2);
    assert_eq!(alertd.states_of("web", 1).await, [State::Critical]);
    set(&place, "web", 0);
    assert_eq!(alertd.states_of("web", 2).await, [State::Critical, State::Ok]);
    let status = place.ask(&["status"]);
    assert!(stdout(&status).contains("web      OK"), "{}{}", stdout(&status), stderr(&status));
    assert_eq!(agent.stop(), Some(0));
}

#[tokio::test]
async fn a_restart_announces_nothing_again_and_forgets_nothing() {
    let (place, alertd, agent) = started(&["web"]);
    set(&place, "web", 2);
    alertd.states_of("web", 1).await;
    agent.stop();
    let agent = place.start();
    wait_for_result(&place, "web", "CRITICAL");
    agent.stop();
    set(&place, "web", 0);
    let _agent = place.start();
    assert_eq!(alertd.states_of("web", 2).await, [State::Critical, State::Ok]);
    assert_eq!(alertd.memory(|memory| (memory.gaps, memory.asked_for_states)), (0, 0));
}

#[tokio::test]
async fn what_happens_while_alertd_is_away_is_told_when_it_is_back() {
    let (place, alertd, _agent) = started(&["web"]);
    alertd.memory(|memory| memory.refuse = Some(503));
    for (code, state) in [(2, "CRITICAL"), (1, "WARNING"), (0, "OK"), (2, "CRITICAL")] {
        set(&place, "web", code);
        wait_for_result(&place, "web", state);
    }
    assert_eq!(alertd.memory(|memory| memory.states_of("web")), []);
    alertd.memory(|memory| memory.refuse = None);
    let told = alertd.states_of("web", 4).await;
    assert_eq!(told, [State::Critical, State::Warning, State::Ok, State::Critical]);
}

#[tokio::test]
async fn a_reload_applies_a_valid_config_and_keeps_the_old_one_loudly_if_it_is_invalid() {
    let (place, alertd, agent) = started(&["web", "db"]);
    set(&place, "web", 2);
    set(&place, "db", 2);
    alertd.states_of("web", 1).await;
    alertd.states_of("db", 1).await;

    place.write_config("[check.web]\nkind = \"plugni\"\n");
    agent.signal(Signal::HUP);
    let warning = wait_for("the warning", || {
        stdout(&place.ask(&["status"])).lines().find(|line| line.starts_with("WARNING")).map(str::to_owned)
    });
    assert!(
        warning.contains("the one before is in use") && warning.contains("did you mean `plugin`?"),
        "{warning}"
    );
    set(&place, "db", 1);
    assert_eq!(alertd.states_of("db", 2).await, [State::Critical, State::Warning], "the old config goes on");

    // `db` goes, `web` stays what it is, `mail` comes.
    fs::write(place.path("mail"), "1\n").unwrap();
    place.write_config(&(switch(&place, "web") + &switch(&place, "mail")));
    agent.signal(Signal::HUP);
    assert_eq!(alertd.states_of("mail", 1).await, [State::Warning]);
    alertd
        .wait_for("db to be removed", |memory| {
            let removed = |kind: &EventKind| *kind == EventKind::Removed { service: "db".into() };
            memory.events.iter().any(|event| removed(&event.kind)).then_some(())
        })
        .await;
    assert_eq!(alertd.states_of("web", 1).await, [State::Critical], "told once, before the reload");
    assert!(!stdout(&place.ask(&["status"])).contains("WARNING: the config"));
}

#[tokio::test]
async fn the_first_check_in_a_file_removes_no_built_in_one_on_reload_or_restart() {
    let place = Place::with_built_in_checks("");
    set(&place, "web", 2);
    let alertd = Alertd::new();
    drop(alertd.serve(&place.path("alertd.sock")));
    let agent = place.start();
    place.wait_until_up();
    let services = || {
        let output = place.ask(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let services = status["services"].as_array().unwrap();
        services.iter().map(|service| service["service"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let built_in = services();
    assert!(built_in.len() >= 3, "{built_in:?}");
    let with_web = [&built_in[..], &["web".to_owned()]].concat();

    place.write_config(&switch(&place, "web"));
    agent.signal(Signal::HUP);
    alertd.states_of("web", 1).await;
    assert_eq!(services(), with_web);
    agent.stop();
    let _agent = place.start();
    place.wait_until_up();
    assert_eq!(services(), with_web);
    set(&place, "web", 0);
    alertd.states_of("web", 2).await;
    let removed = alertd.story().into_iter().filter(|event| event.ends_with(" removed"));
    assert_eq!(removed.collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test]
async fn an_agent_without_any_check_warns_in_log_and_status() {
    let place = Place::new("");
    let _agent = place.start();
    place.wait_until_up();
    let warning = "this host is not monitored: auto_checks is false and no [check.NAME] is configured";
    assert!(place.log().contains(warning), "{}", place.log());
    let status = stdout(&place.ask(&["status"]));
    assert!(status.contains(&format!("WARNING: {warning}")), "{status}");
}

#[tokio::test]
async fn a_check_removed_while_the_agent_was_down_is_removed_when_it_starts() {
    let (place, alertd, agent) = started(&["web", "db"]);
    set(&place, "db", 2);
    alertd.states_of("db", 1).await;
    agent.stop();
    place.write_config(&switch(&place, "web"));
    let _agent = place.start();
    alertd.wait_for("db to be gone", |memory| (!memory.states.contains_key("db")).then_some(())).await;
}

#[tokio::test]
async fn new_labels_of_a_firing_service_reach_alertd() {
    let (place, alertd, agent) = started(&["web"]);
    set(&place, "web", 2);
    alertd.states_of("web", 1).await;
    place.write_config(&(switch(&place, "web") + "labels = { team = \"web\" }\n"));
    agent.signal(Signal::HUP);
    alertd
        .wait_for("states with the new label", |memory| {
            let states = memory.batches.iter().filter_map(|batch| batch.states.as_ref()).flatten();
            states
                .into_iter()
                .find(|state| state.labels.get("team").is_some_and(|team| team == "web"))
                .map(drop)
        })
        .await;
}

#[tokio::test]
async fn an_alertd_that_forgot_is_told_the_truth_by_the_next_heartbeat() {
    let (place, alertd, _agent) = started(&["web"]);
    set(&place, "web", 2);
    alertd.states_of("web", 1).await;
    alertd.memory(|memory| memory.states.clear());
    alertd.wait_for("the truth", |memory| memory.states.get("web").copied()).await;
    assert_eq!(alertd.memory(|memory| memory.states["web"]), (State::Critical, false));
}

#[tokio::test]
async fn the_dns_cache_is_felt_through_its_control_socket_and_its_death_too() {
    let place = Place::new("");
    place.write_config("[check.dns-upstream]\n\nkind = \"dns\"\ninterval = \"200ms\"\n[check.dns-stale]\nkind = \"dns\"\ninterval = \"200ms\"\n");
    let alertd = Alertd::new();
    let _serving = alertd.serve(&place.path("alertd.sock"));
    let sensors = serde_json::json!([
        {"name": "dns-upstream", "state": 2, "text": "upstream down, serving stale for 3 s", "perfdata": "runway=259200s"},
        {"name": "dns-stale", "state": 0, "text": "no stale answers", "perfdata": ""},
    ]);
    let router = Router::new().route("/v1/sensors", get(move || async move { Json(sensors) }));
    let listener = unix_http::bind(&place.path("dns.sock"), 0o600).unwrap();
    let cache = tokio::spawn(unix_http::serve(listener, router));
    let _agent = place.start();
    assert_eq!(alertd.states_of("dns-upstream", 1).await, [State::Critical]);
    let said = alertd.memory(|memory| match &memory.events[0].kind {
        EventKind::Transition(transition) => {
            (transition.now.summary.clone(), transition.now.perfdata.clone())
        }
        EventKind::Removed { .. } => panic!("nothing was removed"),
    });
    assert_eq!(said, ("upstream down, serving stale for 3 s".into(), "runway=259200s".into()));

    cache.abort();
    fs::remove_file(place.path("dns.sock")).unwrap();
    // A dead cache is as CRITICAL as a dead upstream: nothing new for dns-upstream, news for dns-stale.
    assert_eq!(alertd.states_of("dns-stale", 1).await, [State::Unknown]);
    let status = wait_for("the reason", || {
        let status = stdout(&place.ask(&["status"]));
        status.contains("dns-upstream  CRITICAL  hard 1/1").then_some(status)
    });
    assert!(status.contains("cannot reach dogwatch dns: "), "{status}");
}

#[tokio::test]
async fn a_full_disk_under_the_spool_loses_nothing_while_the_agent_lives() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (place, alertd, agent) = started_on(&disk);
    set(&place, "web", 1);
    assert_eq!(alertd.states_of("web", 1).await, [State::Warning]);

    disk.fill();
    set(&place, "web", 2);
    assert_eq!(alertd.states_of("web", 2).await, [State::Warning, State::Critical], "sent from memory");
    let status = wait_for("the warning", || {
        let status = stdout(&place.ask(&["status"]));
        status.contains("cannot write the spool").then_some(status)
    });
    assert!(status.contains("No space left on device"), "{status}");
    assert!(place.log().contains("cannot write the spool"), "{}", place.log());

    // Space again: the disk catches up, and a restart knows everything.
    disk.free();
    wait_for("the warning to go", || {
        (!stdout(&place.ask(&["status"])).contains("cannot write the spool")).then_some(())
    });
    agent.kill();
    let _agent = place.start();
    wait_for_result(&place, "web", "CRITICAL");
    set(&place, "web", 0);
    assert_eq!(alertd.states_of("web", 3).await, [State::Warning, State::Critical, State::Ok]);
    assert_eq!(alertd.memory(|memory| memory.gaps), 0);
}

#[tokio::test]
async fn killed_while_the_disk_was_full_the_agent_begins_a_new_epoch_and_alertd_learns_the_truth() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (place, alertd, agent) = started_on(&disk);
    set(&place, "web", 1);
    alertd.states_of("web", 1).await;
    disk.fill();
    set(&place, "web", 2);
    alertd.states_of("web", 2).await;
    set(&place, "web", 0);
    alertd.states_of("web", 3).await;
    agent.kill();
    disk.free();

    // alertd has numbers 2 and 3, the disk does not: were they used again, this CRITICAL would be taken for a repeat.
    set(&place, "web", 2);
    let _agent = place.start();
    alertd
        .wait_for("alertd to know", |memory| (memory.states.get("web")?.0 == State::Critical).then_some(()))
        .await;
    assert!(place.log().contains("a new epoch begins"), "{}", place.log());
}

#[tokio::test]
async fn a_host_without_a_machine_id_gets_one_of_its_own_and_keeps_it() {
    let (place, _alertd, agent) = started(&["web"]);
    let id = || {
        let status: serde_json::Value =
            serde_json::from_slice(&place.ask(&["status", "--json"]).stdout).unwrap();
        status["agent"].as_str().unwrap().to_owned()
    };
    let by_machine = id();
    agent.stop();
    fs::write(place.path("machine-id"), "uninitialized\n").unwrap();
    let own = [(); 2].map(|()| {
        let agent = place.start();
        place.wait_until_up();
        let own = id();
        agent.stop();
        own
    });
    assert_eq!((own[0].len(), &own[0]), (32, &own[1]));
    assert_ne!(own[0], by_machine);
}

/// A plugin that says what is in a file, every 100 ms, believed at once.
fn switch(place: &Place, name: &str) -> String {
    format!(
        "[check.{name}]\nkind = \"plugin\"\ninterval = \"100ms\"\nmax_attempts = 1\nflapping = {{ detect = false }}\n\
         command = [\"/bin/sh\", \"-c\", \"read state < {}/{name}; exit $state\"]\n",
        place.dir.path().display()
    )
}

/// Moved into place: a plugin never reads half a file.
fn set(place: &Place, name: &str, code: u8) {
    fs::write(place.path("next"), format!("{code}\n")).unwrap();
    fs::rename(place.path("next"), place.path(name)).unwrap();
}

fn started(services: &[&str]) -> (Place, Alertd, Agent) {
    let place = Place::new("");
    for service in services {
        set(&place, service, 0);
    }
    place.write_config(&services.iter().map(|service| switch(&place, service)).collect::<String>());
    let alertd = Alertd::new();
    drop(alertd.serve(&place.path("alertd.sock")));
    let agent = place.start();
    place.wait_until_up();
    (place, alertd, agent)
}

/// Waits until this agent itself has seen the state (not remembered it).
fn wait_for_result(place: &Place, service: &str, state: &str) {
    wait_for(&format!("{service} {state}"), || {
        let output = place.ask(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let services = status["services"].as_array()?;
        let found = services.iter().find(|found| found["service"] == service)?;
        (found["state"] == state && found["last_run"].is_string()).then_some(())
    });
}

/// A file system that can be full.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, loudly, without the right to mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(dir.path()).output();
        if mount.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        let strict = std::env::var("DOGWATCH_TEST_STRICT").is_ok_and(|strict| strict == "1");
        assert!(!strict, "cannot mount a tmpfs for the full-disk test: {mount:?}");
        eprintln!("SKIPPED: full-disk test: mounting a tmpfs takes root");
        None
    }

    /// Not a page is left.
    fn fill(&self) {
        let mut filler = fs::File::create(self.0.path().join("filler")).unwrap();
        while filler.write(&[0; 512]).is_ok_and(|written| written > 0) {}
    }

    fn free(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy: the agent may hold a file for a moment.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

/// An agent whose state is on that disk and whose events are longer than a page, so that none fits into what is left of
/// the last one.
fn started_on(disk: &SmallDisk) -> (Place, Alertd, Agent) {
    let place = Place::new("");
    set(&place, "web", 0);
    let long = "read state < DIR/web; printf 'state %s\\n%05000d' $state 0; exit $state";
    let check = switch(&place, "web")
        .replace(&format!("read state < {}/web; exit $state", place.dir.path().display()), long);
    place.write_config(&check.replace("DIR", &place.dir.path().display().to_string()));
    let config = fs::read_to_string(place.config()).unwrap();
    let own = format!("{}/state", place.dir.path().display());
    fs::write(place.config(), config.replace(&own, &format!("{}/state", disk.0.path().display()))).unwrap();
    let alertd = Alertd::new();
    drop(alertd.serve(&place.path("alertd.sock")));
    let agent = place.start();
    place.wait_until_up();
    (place, alertd, agent)
}
