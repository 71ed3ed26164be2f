//! The agent on an ordinary server: silent targets, a clock that was wrong, missing files, restarts
//! while a problem lasts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::TcpListener,
    process::{Command, Output, Stdio},
};

use common::{AgentDir, Alertd, dogwatch, stderr, stdout, wait_for};
use dogwatch::{
    api::{ServiceStatus, Status},
    service::Service,
    state::{Saved, SavedService},
};
use dogwatch_wire::{EventKind, State};
use jiff::Timestamp;

fn services(agent_dir: &AgentDir) -> BTreeMap<String, ServiceStatus> {
    let status: Status = serde_json::from_slice(&agent_dir.ask(&["status", "--json"]).stdout).unwrap();
    status.services.into_iter().map(|one| (one.service.clone(), one)).collect()
}

fn check_config(agent_dir: &AgentDir) -> Output {
    dogwatch(["config", "check", "--config", agent_dir.config().to_str().unwrap()])
}

/// What `config check` says of these checks, and whether it accepts them.
fn said_of(checks: &str) -> (bool, String) {
    let output = check_config(&AgentDir::new(checks));
    (output.status.success(), stdout(&output) + &stderr(&output))
}

#[test]
fn targets_that_never_answer_and_plugins_that_hang_delay_no_local_check() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut checks = "[check.load]\ninterval = \"100ms\"\n[check.memory]\ninterval = \"100ms\"\n".to_owned();
    for number in 0..40 {
        write!(
            checks,
            "[check.tcp{number}]\nkind = \"tcp\"\nhost = \"127.0.0.1\"\nport = {port}\nexpect = \"x\"\n\
             interval = \"1s\"\ntimeout = \"50s\"\n\
             [check.hangs{number}]\nkind = \"plugin\"\ncommand = [\"/bin/sleep\", \"600\"]\n\
             interval = \"1s\"\ntimeout = \"50s\"\n"
        )
        .unwrap();
    }
    let agent_dir = AgentDir::new(&checks);
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    wait_for("all targets to be asked", || {
        let waiting = services(&agent_dir);
        waiting.get("load")?.last_run
    });
    for name in ["load", "memory"] {
        for _ in 0..5 {
            let before = services(&agent_dir)[name].last_run;
            wait_for("the next run", || (services(&agent_dir)[name].last_run != before).then_some(()));
        }
    }
    let all = services(&agent_dir);
    let waiting = all.values().filter(|one| one.service.starts_with("tcp") && one.state == "PENDING");
    assert_eq!(waiting.count(), 40, "all of them still wait");
    assert!(all["load"].output.contains("per processor"), "{:?}", all["load"]);
}

#[tokio::test]
async fn a_deadline_from_a_wrong_clock_is_clamped_to_what_the_config_allows() {
    let ahead = dogwatch::clock::wall().checked_add(jiff::SignedDuration::from_hours(30 * 24)).unwrap();
    for (name, fresh_until) in
        [("ahead", ahead), ("far-ahead", Timestamp::MAX), ("behind", Timestamp::UNIX_EPOCH)]
    {
        let agent_dir = AgentDir::new(&format!("[check.{name}]\nkind = \"passive\"\nfreshness = \"2s\"\n"));
        let alertd = Alertd::new();
        drop(alertd.serve(&agent_dir.path("alertd.sock")));
        let saved = SavedService { service: Service::default(), fresh_until: Some(fresh_until), last: None };
        let services = [(name.to_owned(), saved)].into();
        let saved = Saved { epoch: 1, services, ..Saved::default() };
        fs::create_dir_all(agent_dir.path("state")).unwrap();
        saved.store(&agent_dir.path("state")).unwrap();
        let _agent = agent_dir.start();
        assert_eq!(alertd.states_of(name, 1).await, [State::Unknown], "{name}");
    }
}

#[test]
fn whatever_is_wrong_with_the_metrics_address_the_agent_watches() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for address in ["192.0.2.77:9847".to_owned(), format!("127.0.0.1:{port}")] {
        let agent_dir = AgentDir::new("[check.load]\ninterval = \"100ms\"\n");
        let config = fs::read_to_string(agent_dir.config()).unwrap();
        let config = config.replace("metrics = \"off\"", &format!("metrics = \"{address}\""));
        fs::write(agent_dir.config(), config).unwrap();
        let agent = agent_dir.start();
        wait_for("a result", || stdout(&agent_dir.ask(&["status"])).contains("per processor").then_some(()));
        let status = stdout(&agent_dir.ask(&["status"]));
        assert!(status.contains(&format!("cannot serve metrics on {address}")), "{status}");
        assert_eq!(agent.stop(), Some(0));
    }
    // The port is free at the next start.
    drop(taken);
    let agent_dir = AgentDir::new("[check.load]\n");
    let config = fs::read_to_string(agent_dir.config()).unwrap();
    fs::write(agent_dir.config(), config.replace("\"off\"", &format!("\"127.0.0.1:{port}\""))).unwrap();
    let _agent = agent_dir.start();
    agent_dir.wait_until_up();
    assert!(!stdout(&agent_dir.ask(&["status"])).contains("cannot serve metrics"), "{}", agent_dir.log());
}

#[tokio::test]
async fn a_cache_that_was_stopped_is_still_critical_after_a_restart_of_the_agent() {
    let agent_dir =
        AgentDir::new("[check.dns-upstream]\nkind = \"dns\"\ninterval = \"200ms\"\nmax_attempts = 1\n");
    let alertd = Alertd::new();
    drop(alertd.serve(&agent_dir.path("alertd.sock")));
    let agent = agent_dir.start();
    assert_eq!(alertd.states_of("dns-upstream", 1).await, [State::Critical]);
    let before = services(&agent_dir)["dns-upstream"].last_run;
    assert_eq!(agent.stop(), Some(0));
    // A restart, and a restart after a kill.
    for _ in 0..2 {
        let agent = agent_dir.start();
        agent_dir.wait_until_up();
        wait_for("a run after the restart", || {
            let now = services(&agent_dir)["dns-upstream"].clone();
            (now.last_run.is_some() && now.last_run != before).then_some(())
        });
        assert_eq!(services(&agent_dir)["dns-upstream"].state, "CRITICAL");
        agent.kill();
    }
    let removed = |memory: &mut common::Memory| {
        memory.events.iter().filter(|event| matches!(event.kind, EventKind::Removed { .. })).count()
    };
    assert_eq!(alertd.memory(removed), 0);
    assert_eq!(alertd.memory(|memory| memory.states_of("dns-upstream")), [State::Critical], "one event");
}

#[test]
fn config_check_refuses_or_warns_about_what_cannot_work() {
    let plugin = "[check.one]\nkind = \"plugin\"\ncommand = ";
    for (checks, words) in [
        (format!("{plugin}[\"/no/such/check_x\"]\n"), "there is no program /no/such/check_x"),
        (format!("{plugin}[\"check_of_nobody\"]\n"), "there is no program check_of_nobody in "),
        (
            format!("{plugin}[\"/bin/true\"]\nhandler = {{ command = [\"/no/such/handler\"] }}\n"),
            "there is no program /no/such/handler",
        ),
    ] {
        let (accepted, said) = said_of(&checks);
        assert!(accepted && said.contains("warning: ") && said.contains(words), "{words}: {said}");
    }
    for (checks, words) in [
        ("[check.disk]\nwarn = \"15%\"\ncrit = \"20%\"\n", "crit"),
        ("[check.disk]\nwarn = \"15\"\ncrit = \"20%\"\n", "warn"),
        ("[check.load]\nwarn = \"5\"\ncrit = \"3\"\n", "crit"),
        ("[check.disk]\nwarn = 15\n", "warn"),
    ] {
        let (accepted, said) = said_of(checks);
        assert!(!accepted && said.contains(words) && said.contains("agent.toml:"), "{checks}: {said}");
    }
    let (accepted, said) = said_of("[check.disk]\nwarn = \"20%\"\ncrit = \"10%\"\n");
    assert!(accepted && !said.contains("warning"), "{said}");
}

#[test]
fn a_missing_token_file_is_a_warning() {
    let agent_dir = AgentDir::new("");
    let config = fs::read_to_string(agent_dir.config()).unwrap();
    let sockets = config.lines().find(|line| line.contains("sockets = ")).unwrap().to_owned();
    let at = sockets.find("sockets = ").unwrap();
    let remote = "url = \"https://alertd.example.org\"\ntoken_file = \"/nonexistent/token\"";
    fs::write(agent_dir.config(), config.replace(&sockets[at..], remote)).unwrap();
    let said = check_config(&agent_dir);
    assert!(said.status.success(), "{}", stderr(&said));
    assert!(stderr(&said).contains("token_file /nonexistent/token does not exist"), "{}", stderr(&said));
}

/// The agent and the cache; the test of alertd is in `alertd/tests/cli.rs`.
#[test]
fn nothing_but_a_terminal_gets_colour() {
    let agent_dir = AgentDir::new("[check.nonsense]\n");
    let config = agent_dir.config();
    fs::write(agent_dir.path("dns.toml"), "[dns]\nnonsense = 1\n").unwrap();
    let dns = agent_dir.path("dns.toml");
    for words in [
        ["run", "--config", config.to_str().unwrap()].as_slice(),
        &["dns", "--config", dns.to_str().unwrap()],
    ] {
        for journal in [None, Some("8:12345")] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_dogwatch"));
            command.args(words).env_remove("JOURNAL_STREAM").stdin(Stdio::null());
            if let Some(stream) = journal {
                command.env("JOURNAL_STREAM", stream);
            }
            let said = stderr(&command.output().unwrap());
            assert!(!said.is_empty() && !said.contains('\u{1b}'), "{words:?} {journal:?}: {said:?}");
            if journal.is_some() {
                assert!(said.starts_with("<3>"), "the priority for the journal: {said:?}");
            }
        }
    }
}
