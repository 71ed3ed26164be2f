//! The real agent in a temporary directory, and a fake alertd that records everything.

#![allow(dead_code, reason = "no test file uses all of it")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Json, Router, extract::State as Shared, http::StatusCode, response::IntoResponse, routing::post};
use dogwatch_daemon::unix_http;
use dogwatch_wire::{Batch, BatchReply, Event, EventKind, PROTOCOL, ServiceState, State, digest};
use tokio::sync::watch;

/// Long enough for a loaded machine. Tests do not wait longer than they have to.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// The directory of one agent: config, socket, state and log.
pub(crate) struct AgentDir {
    pub(crate) dir: tempfile::TempDir,
    built_in_checks: bool,
}

impl AgentDir {
    /// An agent with only these checks. They are TOML after the parts that point into this
    /// directory.
    pub(crate) fn new(checks: &str) -> Self {
        Self::make(checks, false)
    }

    /// An agent with the built-in checks of this host and these.
    pub(crate) fn with_built_in_checks(checks: &str) -> Self {
        Self::make(checks, true)
    }

    fn make(checks: &str, built_in_checks: bool) -> Self {
        let agent_dir = Self { dir: tempfile::tempdir().unwrap(), built_in_checks };
        agent_dir.write_config(checks);
        agent_dir
    }

    pub(crate) fn write_config(&self, checks: &str) {
        let dir = self.dir.path().display();
        fs::write(self.path("machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        let auto_checks = if self.built_in_checks { "" } else { "auto_checks = false\n" };
        let config = format!(
            "[agent]\nhost = \"web1\"\nstate_dir = \"{dir}/state\"\nsocket = \"{dir}/agent.sock\"\nmetrics = \"off\"\n\
             machine_id_file = \"{dir}/machine-id\"\nboot_grace = \"0s\"\n{auto_checks}\
             [alertd]\nsockets = [\"{dir}/nobody.sock\", \"{dir}/alertd.sock\"]\nheartbeat = \"1s\"\n\
             [dns]\ncontrol = \"{dir}/dns.sock\"\n{checks}"
        );
        fs::write(self.config(), config).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("agent.toml")
    }

    /// Starts `dogwatch run`; its log goes to `agent.log`.
    pub(crate) fn start(&self) -> Agent {
        let log = fs::File::options().create(true).append(true).open(self.path("agent.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_dogwatch"))
            .arg("run")
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Agent(child)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// Runs `dogwatch` with these arguments and the socket of this agent.
    pub(crate) fn ask(&self, words: &[&str]) -> Output {
        dogwatch(words.iter().copied().chain(["--socket", self.path("agent.sock").to_str().unwrap()]))
    }

    /// Waits until the agent answers on its socket.
    pub(crate) fn wait_until_up(&self) {
        wait_for("the agent's socket", || self.ask(&["status"]).status.success().then_some(()));
    }
}

/// A running `dogwatch run`. Killed when dropped.
pub(crate) struct Agent(Child);

impl Agent {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Sends SIGTERM and returns the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        wait_for("the agent's end", || self.0.try_wait().unwrap()).code()
    }

    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.0.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the binary to its end.
pub(crate) fn dogwatch<'a>(words: impl IntoIterator<Item = &'a str>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dogwatch")).args(words).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Polls until `probe` returns something. Panics after the deadline.
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    #[expect(clippy::disallowed_methods, reason = "a test's deadline is real time")]
    let now = Instant::now;
    let end = now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A fake alertd: follows the protocol and records everything.
#[derive(Clone)]
pub(crate) struct Alertd {
    memory: Arc<Mutex<Memory>>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
pub(crate) struct Memory {
    /// Every event once, in order. Repeats are recognized by epoch and number.
    pub(crate) events: Vec<Event>,
    pub(crate) batches: Vec<Batch>,
    /// Service → state, flapping.
    pub(crate) states: BTreeMap<String, (State, bool)>,
    acked: BTreeMap<String, u64>,
    pub(crate) repeats: u64,
    pub(crate) gaps: u64,
    pub(crate) asked_for_states: u64,
    /// Answers with this status instead of accepting the batch.
    pub(crate) refuse: Option<u16>,
    /// Accepts every second batch, but answers with an error: the agent cannot know.
    pub(crate) lose_answers: bool,
}

impl Alertd {
    pub(crate) fn new() -> Self {
        Self { memory: Arc::default(), changed: watch::channel(0).0 }
    }

    /// Serves `path` until the returned task is aborted.
    pub(crate) fn serve(&self, path: &Path) -> tokio::task::JoinHandle<()> {
        let router = Router::new().route("/v1/agent/batch", post(take)).with_state(self.clone());
        let listener = unix_http::bind(path, 0o600).unwrap();
        tokio::spawn(unix_http::serve(listener, router, dogwatch_daemon::bounds::ALERTD_SOCKET))
    }

    pub(crate) fn memory<T>(&self, read: impl FnOnce(&mut Memory) -> T) -> T {
        read(&mut self.memory.lock().unwrap())
    }

    /// Waits until `probe` returns something.
    pub(crate) async fn wait_for<T>(&self, what: &str, mut probe: impl FnMut(&Memory) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(found) = probe(&self.memory.lock().unwrap()) {
                    return found;
                }
                changed.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(DEADLINE, wait).await.ok();
        found.unwrap_or_else(|| panic!("waited in vain for {what}; it has {:#?}", self.story()))
    }

    /// Waits for this many events of a service. Returns all of its states in order.
    pub(crate) async fn states_of(&self, service: &str, count: usize) -> Vec<State> {
        self.wait_for(&format!("{count} events of {service}"), |memory| {
            let states = memory.states_of(service);
            (states.len() >= count).then_some(states)
        })
        .await
    }

    /// All events, one line each.
    pub(crate) fn story(&self) -> Vec<String> {
        self.memory(|memory| memory.events.iter().map(line).collect())
    }
}

impl Memory {
    pub(crate) fn states_of(&self, service: &str) -> Vec<State> {
        let states = self.events.iter().filter_map(|event| match &event.kind {
            EventKind::Transition(transition) if transition.now.service == service => {
                Some(transition.now.state)
            }
            _ => None,
        });
        states.collect()
    }

    /// Handles a batch as alertd does.
    pub(crate) fn take(&mut self, batch: Batch) -> BatchReply {
        let acked = self.acked.entry(batch.epoch.clone()).or_default();
        let mut want_states = false;
        for event in &batch.events {
            if event.seq <= *acked {
                self.repeats += 1;
                continue;
            }
            if event.seq != *acked + 1 {
                self.gaps += 1;
                want_states = true;
            }
            *acked = event.seq;
            match &event.kind {
                EventKind::Transition(transition) => {
                    let now = &transition.now;
                    self.states.insert(now.service.clone(), (now.state, now.flapping));
                }
                EventKind::Removed { service } => drop(self.states.remove(service)),
            }
            self.events.push(event.clone());
        }
        let acked_seq = *acked;
        if let Some(states) = &batch.states {
            let state = |state: &ServiceState| (state.service.clone(), (state.state, state.flapping));
            let part = batch.states_part.clone().unwrap_or_default();
            self.states.retain(|name, _| !part.has(name));
            self.states.extend(states.iter().map(state));
        }
        if let Some(heartbeat) = &batch.heartbeat {
            let own =
                digest(self.states.iter().map(|(name, &(state, flapping))| (name.as_str(), state, flapping)));
            want_states |= batch.states.is_none() && own != heartbeat.digest;
        }
        self.asked_for_states += u64::from(want_states);
        self.batches.push(batch);
        BatchReply { protocol: PROTOCOL, acked_seq, want_states, start_epoch: false }
    }
}

async fn take(Shared(alertd): Shared<Alertd>, Json(batch): Json<Batch>) -> axum::response::Response {
    let answer = alertd.memory(|memory| {
        if let Some(status) = memory.refuse {
            return StatusCode::from_u16(status).unwrap().into_response();
        }
        let reply = memory.take(batch);
        if memory.lose_answers && memory.batches.len().is_multiple_of(2) {
            return StatusCode::BAD_GATEWAY.into_response();
        }
        Json(reply).into_response()
    });
    alertd.changed.send_modify(|turn| *turn += 1);
    answer
}

fn line(event: &Event) -> String {
    match &event.kind {
        EventKind::Transition(transition) => format!(
            "{} {} {} -> {}{}",
            event.seq,
            transition.now.service,
            transition.from.name(),
            transition.now.state.name(),
            if transition.now.flapping { " flapping" } else { "" }
        ),
        EventKind::Removed { service } => format!("{} {service} removed", event.seq),
    }
}
