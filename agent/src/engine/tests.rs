//! The loop with real threads and tasks, one of which panics. An agent that is deaf or mute must not
//! go on and feed the watchdog: it ends, and systemd starts it again.

use std::fs;

use super::*;
use crate::{
    api, config,
    store::{self, Order},
};

/// An agent without checks in a temporary directory, ready to run.
struct Ready {
    _dir: tempfile::TempDir,
    parts: Parts,
    inputs: Inputs,
    asks_to: mpsc::Sender<Ask>,
}

impl Ready {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config_path = dir.path().join("agent.toml");
        fs::write(&config_path, "[agent]\nauto_checks = false\n").unwrap();
        let host = Host::live();
        let config = config::load(&config_path, &host).unwrap();
        let (done_to, done) = mpsc::channel(1);
        let (store, found) = store::open(&dir.path().join("state"), 7, done_to).unwrap();
        let (reports_to, reports) = mpsc::channel(1);
        let (answers_to, answers) = mpsc::channel(1);
        let (asks_to, asks) = mpsc::channel(1);
        let parts = Parts {
            clock: Clock::new().unwrap(),
            config_path,
            host,
            config,
            agent_id: "0123456789abcdef0123456789abcdef".into(),
            process: Process::new(1),
            changes: Changes::watch(),
            store,
            found,
            runner: Runner::new(reports_to),
            answers: answers_to,
            metrics_problem: None,
            history: None,
        };
        let signals = Signals::listen().unwrap();
        Self { _dir: dir, parts, inputs: Inputs { reports, done, answers, asks, signals }, asks_to }
    }
}

/// How the loop ends, which it must do by itself.
async fn end_of(parts: Parts, inputs: Inputs) -> Result<(), &'static str> {
    let run = Engine::new(parts).run(inputs);
    tokio::time::timeout(Duration::from_secs(20), run).await.expect("it ends")
}

#[tokio::test]
async fn if_the_thread_that_writes_to_the_disk_panics_the_agent_ends() {
    let Ready { _dir, parts, inputs, asks_to: _asks_to } = Ready::new();
    // There is no event 0, so this is a bug in the loop, which the thread does not survive.
    let order = Order { epoch: 7, events: Vec::new(), next_seq: 0, settled: 0, state: Saved::default() };
    parts.store.send(order).unwrap();
    assert_eq!(end_of(parts, inputs).await, Err("the thread that writes to the disk"));
}

#[tokio::test]
async fn if_the_server_of_the_socket_panics_the_agent_ends() {
    let Ready { _dir, parts, inputs, asks_to } = Ready::new();
    let router = api::router(asks_to);
    tokio::spawn(async move {
        let _router = router;
        panic!("on purpose");
    });
    assert_eq!(end_of(parts, inputs).await, Err("the server of the agent's socket"));
}

#[test]
fn systemd_starts_a_daemon_that_has_ended_again_however_often_it_ends() {
    for unit in [
        include_str!("../../../packaging/systemd/dogwatch.service"),
        include_str!("../../../packaging/systemd/dogwatch-dns.service"),
        include_str!("../../../packaging/systemd/alertd.service"),
    ] {
        for line in ["Restart=always", "StartLimitIntervalSec=0"] {
            assert!(unit.lines().any(|there| there == line), "{line} is not in\n{unit}");
        }
    }
}
