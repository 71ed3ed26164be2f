//! The real agent with real plugins, and a fake alertd that records everything.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{collections::BTreeSet, fs, io::Write as _, process::Command, time::Duration};

use axum::{Json, Router, routing::get};
use common::{Agent, AgentDir, Alertd, stderr, stdout, wait_for};
use dogwatch_daemon::unix_http;
use dogwatch_wire::{EventKind, State};
use rustix::process::Signal;

#[tokio::test]
async fn a_problem_and_its_recovery_reach_alertd() {
    let (agent_dir, alertd, agent) = started(&["web"]);
    set(&agent_dir, "web", 2);
    assert_eq!(alertd.states_of("web", 1).await, [State::Critical]);
    set(&agent_dir, "web", 0);
    assert_eq!(alertd.states_of("web", 2).await, [State::Critical, State::Ok]);
    let status = agent_dir.ask(&["status"]);
    assert!(stdout(&status).contains("web      OK"), "{}{}", stdout(&status), stderr(&status));
    assert_eq!(agent.stop(), Some(0));
}

#[tokio::test]
async fn a_restart_repeats_and_loses_nothing() {
    let (agent_dir, alertd, agent) = started(&["web"]);
    set(&agent_dir, "web", 2);
    alertd.states_of("web", 1).await;
    agent.stop();
    let agent = agent_dir.start();
    wait_for_result(&agent_dir, "web", "CRITICAL");
    agent.stop();
    set(&agent_dir, "web", 0);
    let _agent = agent_dir.start();
    assert_eq!(alertd.states_of("web", 2).await, [State::Critical, State::Ok]);
    assert_eq!(alertd.memory(|memory| (memory.gaps, memory.asked_for_states)), (0, 0));
}

#[tokio::test]
async fn changes_during_an_outage_of_alertd_are_reported_afterwards() {
    let (agent_dir, alertd, _agent) = started(&["web"]);
    alertd.memory(|memory| memory.refuse = Some(503));
    for (code, state) in [(2, "CRITICAL"), (1, "WARNING"), (0, "OK"), (2, "CRITICAL")] {
        set(&agent_dir, "web", code);
        wait_for_result(&agent_dir, "web", state);
    }
    assert_eq!(alertd.memory(|memory| memory.states_of("web")), []);
    alertd.memory(|memory| memory.refuse = None);
    let told = alertd.states_of("web", 4).await;
    assert_eq!(told, [State::Critical, State::Warning, State::Ok, State::Critical]);
}

#[tokio::test]
async fn a_reload_applies_a_valid_config_and_warns_about_an_invalid_one() {
    let (agent_dir, alertd, agent) = started(&["web", "db"]);
    set(&agent_dir, "web", 2);
    set(&agent_dir, "db", 2);
    alertd.states_of("web", 1).await;
    alertd.states_of("db", 1).await;

    agent_dir.write_config("[check.web]\nkind = \"plugni\"\n");
    agent.signal(Signal::HUP);
    let warning = wait_for("the warning", || {
        stdout(&agent_dir.ask(&["status"]))
            .lines()
            .find(|line| line.starts_with("WARNING"))
            .map(str::to_owned)
    });
    assert!(
        warning.contains("the running config is unchanged") && warning.contains("did you mean `plugin`?"),
        "{warning}"
    );
    set(&agent_dir, "db", 1);
    assert_eq!(
        alertd.states_of("db", 2).await,
        [State::Critical, State::Warning],
        "the running config is unchanged"
    );

    // `db` is removed, `web` is unchanged, `mail` is new.
    fs::write(agent_dir.path("mail"), "1\n").unwrap();
    agent_dir.write_config(&(switch(&agent_dir, "web") + &switch(&agent_dir, "mail")));
    agent.signal(Signal::HUP);
    assert_eq!(alertd.states_of("mail", 1).await, [State::Warning]);
    alertd
        .wait_for("db to be removed", |memory| {
            let removed = |kind: &EventKind| *kind == EventKind::Removed { service: "db".into() };
            memory.events.iter().any(|event| removed(&event.kind)).then_some(())
        })
        .await;
    assert_eq!(alertd.states_of("web", 1).await, [State::Critical], "reported once, before the reload");
    assert!(!stdout(&agent_dir.ask(&["status"])).contains("WARNING: invalid config"));
}

#[tokio::test]
async fn the_first_check_in_a_file_removes_no_built_in_one_on_reload_or_restart() {
    let agent_dir = AgentDir::with_built_in_checks("");
    set(&agent_dir, "web", 2);
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let agent = agent_dir.start();
    agent_dir.wait_until_up();
    let services = || {
        let output = agent_dir.ask(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let services = status["services"].as_array().unwrap();
        services.iter().map(|service| service["check"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let built_in = services();
    assert!(built_in.len() >= 3, "{built_in:?}");
    let mut with_web = built_in.clone();
    with_web.insert("web".to_owned());

    agent_dir.write_config(&switch(&agent_dir, "web"));
    agent.signal(Signal::HUP);
    alertd.states_of("web", 1).await;
    assert_eq!(services(), with_web);
    agent.stop();
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    assert_eq!(services(), with_web);
    set(&agent_dir, "web", 0);
    alertd.states_of("web", 2).await;
    let removed = alertd.story().into_iter().filter(|event| event.ends_with(" removed"));
    assert_eq!(removed.collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test]
async fn an_agent_without_any_check_warns_in_log_and_status() {
    let agent_dir = AgentDir::new("");
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    let warning = "this host is not monitored: auto_checks is false and no [check.NAME] is configured";
    assert!(agent_dir.log().contains(warning), "{}", agent_dir.log());
    let status = stdout(&agent_dir.ask(&["status"]));
    assert!(status.contains(&format!("WARNING: {warning}")), "{status}");
}

#[tokio::test]
async fn a_check_removed_while_the_agent_was_down_is_removed_when_it_starts() {
    let (agent_dir, alertd, agent) = started(&["web", "db"]);
    set(&agent_dir, "db", 2);
    alertd.states_of("db", 1).await;
    agent.stop();
    agent_dir.write_config(&switch(&agent_dir, "web"));
    let _agent = agent_dir.start();
    alertd.wait_for("db to be gone", |memory| (!memory.states.contains_key("db")).then_some(())).await;
}

#[tokio::test]
async fn more_services_than_fit_into_one_body_are_reported_part_by_part() {
    let checks = |label: &str| {
        let one = |n| format!("[check.p{n:04}]\nkind = \"passive\"\nlabels = {{ n = \"{label}\" }}\n");
        (0..2_100).map(one).collect::<String>()
    };
    let agent_dir = AgentDir::new(&checks("old"));
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let agent = agent_dir.start();
    alertd
        .wait_for("a heartbeat", |memory| {
            memory.batches.iter().any(|batch| batch.heartbeat.is_some()).then_some(())
        })
        .await;
    // New labels are sent with all states.
    agent_dir.write_config(&checks("new"));
    agent.signal(Signal::HUP);
    let parts = alertd
        .wait_for("the last part", |memory| {
            let parts = memory.batches.iter().filter_map(|batch| {
                let part = batch.states_part.clone()?;
                Some((batch.protocol, part, batch.states.clone()?))
            });
            let parts: Vec<_> = parts.collect();
            parts.last().is_some_and(|(_, part, _)| part.is_last()).then_some(parts)
        })
        .await;
    let lengths: Vec<_> = parts.iter().map(|(_, _, states)| states.len()).collect();
    assert_eq!(lengths, [500, 500, 500, 500, 100]);
    let mut after = String::new();
    for (protocol, part, states) in parts {
        assert_eq!((protocol, &part.after), (2, &after), "an old alertd would take it for all states");
        assert!(states.iter().all(|state| part.has(&state.service)));
        after = part.through.unwrap_or_default();
    }
    assert_eq!(alertd.memory(|memory| memory.states.len()), 2_100);
    assert_eq!(agent.stop(), Some(0));
}

#[tokio::test]
async fn new_labels_of_a_firing_service_reach_alertd() {
    let (agent_dir, alertd, agent) = started(&["web"]);
    set(&agent_dir, "web", 2);
    alertd.states_of("web", 1).await;
    agent_dir.write_config(&(switch(&agent_dir, "web") + "labels = { team = \"web\" }\n"));
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
async fn an_alertd_without_states_is_corrected_by_the_next_heartbeat() {
    let (agent_dir, alertd, _agent) = started(&["web"]);
    set(&agent_dir, "web", 2);
    alertd.states_of("web", 1).await;
    alertd.memory(|memory| memory.states.clear());
    alertd.wait_for("the truth", |memory| memory.states.get("web").copied()).await;
    assert_eq!(alertd.memory(|memory| memory.states["web"]), (State::Critical, false));
}

#[tokio::test]
async fn the_dns_sensors_are_read_and_a_dead_cache_is_noticed() {
    let agent_dir = AgentDir::new("");
    agent_dir.write_config("[check.dns-upstream]\n\nkind = \"dns\"\ninterval = \"200ms\"\n[check.dns-stale]\nkind = \"dns\"\ninterval = \"200ms\"\n");
    let alertd = Alertd::new();
    let _serving = alertd.serve(&agent_dir.path("alertd.sock"));
    let sensors = serde_json::json!([
        {"name": "dns-upstream", "state": 2, "text": "upstream down, serving stale for 3 s", "perfdata": "runway=259200s"},
        {"name": "dns-stale", "state": 0, "text": "no stale answers", "perfdata": ""},
    ]);
    let router = Router::new().route("/v1/sensors", get(move || async move { Json(sensors) }));
    let listener = unix_http::bind(&agent_dir.path("dns.sock"), 0o600).unwrap();
    let cache = tokio::spawn(unix_http::serve(listener, router, dogwatch_daemon::bounds::DNS_CONTROL));
    let _agent = agent_dir.start();
    assert_eq!(alertd.states_of("dns-upstream", 1).await, [State::Critical]);
    let said = alertd.memory(|memory| match &memory.events[0].kind {
        EventKind::Transition(transition) => {
            (transition.now.summary.clone(), transition.now.perfdata.clone())
        }
        EventKind::Removed { .. } => panic!("nothing was removed"),
    });
    assert_eq!(said, ("upstream down, serving stale for 3 s".into(), "runway=259200s".into()));

    cache.abort();
    fs::remove_file(agent_dir.path("dns.sock")).unwrap();
    // A dead cache is as CRITICAL as a dead upstream: no change for dns-upstream, a change for
    // dns-stale.
    assert_eq!(alertd.states_of("dns-stale", 1).await, [State::Unknown]);
    let status = wait_for("the reason", || {
        let status = stdout(&agent_dir.ask(&["status"]));
        status.contains("dns-upstream  CRITICAL  hard 1/1").then_some(status)
    });
    assert!(status.contains("cannot reach dogwatch dns: "), "{status}");
}

#[tokio::test]
async fn a_run_that_our_own_pause_fell_into_does_not_count() {
    let agent_dir = AgentDir::new("");
    let dir = agent_dir.dir.path().display();
    // The first run outlasts the pause, and its deadline passes in it.
    agent_dir.write_config(&format!(
        "[check.slow]\nkind = \"plugin\"\ninterval = \"10s\"\ntimeout = \"3s\"\nmax_attempts = 1\n\
         command = [\"/bin/sh\", \"-c\", \"if [ -e {dir}/begun ]; then echo fine; else : > {dir}/begun; sleep 20; fi\"]\n"
    ));
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let agent = agent_dir.start();
    wait_for("the first run", || agent_dir.path("begun").exists().then_some(()));
    agent.signal(Signal::STOP);
    tokio::time::sleep(Duration::from_secs(9)).await;
    agent.signal(Signal::CONT);
    wait_for_result(&agent_dir, "slow", "OK");
    assert!(agent_dir.log().contains("the agent did not run for a while"), "{}", agent_dir.log());
    assert!(!agent_dir.log().contains("to=\"UNKNOWN\""), "{}", agent_dir.log());
    assert_eq!(alertd.memory(|memory| memory.events.len()), 0, "nothing to tell");
}

#[tokio::test]
async fn a_full_disk_loses_nothing_while_the_agent_runs() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (agent_dir, alertd, agent) = started_on(&disk);
    set(&agent_dir, "web", 1);
    assert_eq!(alertd.states_of("web", 1).await, [State::Warning]);

    disk.fill();
    set(&agent_dir, "web", 2);
    assert_eq!(alertd.states_of("web", 2).await, [State::Warning, State::Critical], "sent from memory");
    let status = wait_for("the warning", || {
        let status = stdout(&agent_dir.ask(&["status"]));
        status.contains("cannot write the spool").then_some(status)
    });
    assert!(status.contains("No space left on device"), "{status}");
    assert!(agent_dir.log().contains("cannot write the spool"), "{}", agent_dir.log());

    // With free space the spool catches up, and a restart loses nothing.
    disk.free();
    wait_for("the warning to go", || {
        (!stdout(&agent_dir.ask(&["status"])).contains("cannot write the spool")).then_some(())
    });
    agent.kill();
    let _agent = agent_dir.start();
    wait_for_result(&agent_dir, "web", "CRITICAL");
    set(&agent_dir, "web", 0);
    assert_eq!(alertd.states_of("web", 3).await, [State::Warning, State::Critical, State::Ok]);
    assert_eq!(alertd.memory(|memory| memory.gaps), 0);
}

#[tokio::test]
async fn an_agent_killed_with_a_full_disk_starts_a_new_epoch_and_corrects_alertd() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (agent_dir, alertd, agent) = started_on(&disk);
    set(&agent_dir, "web", 1);
    alertd.states_of("web", 1).await;
    disk.fill();
    set(&agent_dir, "web", 2);
    alertd.states_of("web", 2).await;
    set(&agent_dir, "web", 0);
    alertd.states_of("web", 3).await;
    agent.kill();
    disk.free();

    // alertd has numbers 2 and 3, the disk does not. If they were used again, alertd would take
    // this CRITICAL for a repeat.
    set(&agent_dir, "web", 2);
    let _agent = agent_dir.start();
    alertd
        .wait_for("alertd to know", |memory| (memory.states.get("web")?.0 == State::Critical).then_some(()))
        .await;
    assert!(agent_dir.log().contains("starting a new epoch"), "{}", agent_dir.log());
}

#[tokio::test]
async fn a_host_without_a_machine_id_gets_a_random_id_and_keeps_it() {
    let (agent_dir, _alertd, agent) = started(&["web"]);
    let id = || {
        let status: serde_json::Value =
            serde_json::from_slice(&agent_dir.ask(&["status", "--json"]).stdout).unwrap();
        status["agent"].as_str().unwrap().to_owned()
    };
    let by_machine = id();
    agent.stop();
    fs::write(agent_dir.path("machine-id"), "uninitialized\n").unwrap();
    let own = [(); 2].map(|()| {
        let agent = agent_dir.start();
        agent_dir.wait_until_up();
        let own = id();
        agent.stop();
        own
    });
    assert_eq!((own[0].len(), &own[0]), (32, &own[1]));
    assert_ne!(own[0], by_machine);
}

/// A plugin that returns the state from a file, every 100 ms, hard at once.
fn switch(agent_dir: &AgentDir, name: &str) -> String {
    format!(
        "[check.{name}]\nkind = \"plugin\"\ninterval = \"100ms\"\nmax_attempts = 1\nflapping = {{ detect = false }}\n\
         command = [\"/bin/sh\", \"-c\", \"read state < {}/{name}; exit $state\"]\n",
        agent_dir.dir.path().display()
    )
}

/// Renamed, so that a plugin never reads half a file.
fn set(agent_dir: &AgentDir, name: &str, code: u8) {
    fs::write(agent_dir.path("next"), format!("{code}\n")).unwrap();
    fs::rename(agent_dir.path("next"), agent_dir.path(name)).unwrap();
}

fn started(services: &[&str]) -> (AgentDir, Alertd, Agent) {
    let agent_dir = AgentDir::new("");
    for service in services {
        set(&agent_dir, service, 0);
    }
    agent_dir.write_config(&services.iter().map(|service| switch(&agent_dir, service)).collect::<String>());
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let agent = agent_dir.start();
    agent_dir.wait_until_up();
    (agent_dir, alertd, agent)
}

/// Waits until a run of this agent has had this state.
fn wait_for_result(agent_dir: &AgentDir, service: &str, state: &str) {
    wait_for(&format!("{service} {state}"), || {
        let output = agent_dir.ask(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let services = status["services"].as_array()?;
        let found = services.iter().find(|found| found["service"] == service)?;
        (found["state"] == state && found["last_run"].is_string()).then_some(())
    });
}

/// A small file system that a test can fill.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with a message, if the test may not mount.
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

    /// Fills the last page.
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
        // Lazy, because the agent may have a file open for another moment.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

/// An agent with its state on that disk. Its events are longer than a page, so that none fits into
/// the rest of the last page.
fn started_on(disk: &SmallDisk) -> (AgentDir, Alertd, Agent) {
    let agent_dir = AgentDir::new("");
    set(&agent_dir, "web", 0);
    let long = "read state < DIR/web; printf 'state %s\\n%05000d' $state 0; exit $state";
    let check = switch(&agent_dir, "web")
        .replace(&format!("read state < {}/web; exit $state", agent_dir.dir.path().display()), long);
    agent_dir.write_config(&check.replace("DIR", &agent_dir.dir.path().display().to_string()));
    let config = fs::read_to_string(agent_dir.config()).unwrap();
    let own = format!("{}/state", agent_dir.dir.path().display());
    fs::write(agent_dir.config(), config.replace(&own, &format!("{}/state", disk.0.path().display())))
        .unwrap();
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let agent = agent_dir.start();
    agent_dir.wait_until_up();
    (agent_dir, alertd, agent)
}
