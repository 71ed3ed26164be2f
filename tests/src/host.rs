//! One monitored host: alertd, the agent and the DNS cache as real processes with their files in
//! one directory.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use dogwatch_daemon::unix_http::Client;
use dogwatch_wire::{Batch, BatchReply, Event, EventKind, PROTOCOL, ServiceState, State, Transition};
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    http,
    process::{Process, binary, free_port, wait_for},
};

pub struct Host {
    pub alertd: Option<Process>,
    pub agent: Option<Process>,
    pub dns: Option<Process>,
    pub alertd_metrics: u16,
    pub agent_metrics: u16,
    pub dns_metrics: u16,
    pub dns_port: u16,
    /// How the agent reaches alertd: lines of its `[alertd]`; empty for the socket.
    pub alertd_link: String,
    // Last, so that it outlives the processes and their logs can be shown.
    folder: TempDir,
}

impl Host {
    /// Nothing runs yet.
    ///
    /// # Panics
    /// If there is no temporary folder.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        // Other users' commands must get at the socket and at a copy of the binaries.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        Self {
            alertd: None,
            agent: None,
            dns: None,
            alertd_metrics: free_port(),
            agent_metrics: free_port(),
            dns_metrics: free_port(),
            dns_port: free_port(),
            alertd_link: String::new(),
            folder,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("the test folder is writable");
        path
    }

    pub fn alertd_socket(&self) -> PathBuf {
        self.path("alertd.sock")
    }

    /// Writes `alertd.toml` (places of files and ports, then `rest`) and starts alertd; waits until
    /// it answers.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start_alertd(&mut self, rest: &str) {
        self.write_alertd_config(rest);
        self.restart_alertd();
    }

    /// Writes another `alertd.toml` and asks alertd to read it (SIGHUP); does not wait for it.
    pub fn reload_alertd(&self, rest: &str) {
        self.write_alertd_config(rest);
        if let Some(alertd) = &self.alertd {
            alertd.signal(rustix::process::Signal::HUP);
        }
    }

    fn write_alertd_config(&self, rest: &str) {
        let text = format!(
            "[alertd]\nsocket = \"{}\"\nstate_dir = \"{}\"\nmetrics = \"127.0.0.1:{}\"\nhost = \"mon1\"\n\n{rest}",
            self.alertd_socket().display(),
            self.path("alertd").display(),
            self.alertd_metrics
        );
        self.write("alertd.toml", &text);
    }

    /// Starts alertd with the config that is there; the one before must have ended.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn restart_alertd(&mut self) {
        let mut command = Command::new(binary("alertd"));
        command.arg("--config").arg(self.path("alertd.toml"));
        let process = Process::start("alertd", &mut command, self.folder());
        self.alertd = Some(process);
        wait_for("alertd to answer", || {
            assert!(
                self.alertd.as_mut().is_some_and(Process::running),
                "alertd ended:\n{}",
                self.log("alertd")
            );
            self.alertctl(&["status"]).status.success()
        });
    }

    /// Writes `agent.toml` (paths, no built-in checks, then `checks`) and starts the agent;
    /// waits until it answers.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start_agent(&mut self, checks: &str) {
        let socket = format!("sockets = [\"{}\"]", self.alertd_socket().display());
        let link = if self.alertd_link.is_empty() { &socket } else { &self.alertd_link };
        let text = format!(
            "[agent]\nhost = \"web1\"\nstate_dir = \"{}\"\nsocket = \"{}\"\nmetrics = \"127.0.0.1:{}\"\n\
             auto_checks = false\nboot_grace = \"0s\"\n\n\
             [alertd]\n{link}\nheartbeat = \"1s\"\n\n\
             [dns]\ncontrol = \"{}\"\n\n{checks}",
            self.path("agent").display(),
            self.path("agent.sock").display(),
            self.agent_metrics,
            self.path("dns.sock").display(),
        );
        let config = self.write("agent.toml", &text);
        let mut command = Command::new(binary("dogwatch"));
        command.arg("run").arg("--config").arg(config);
        self.agent = Some(Process::start("dogwatch", &mut command, self.folder()));
        wait_for("the agent to answer", || {
            assert!(
                self.agent.as_mut().is_some_and(Process::running),
                "dogwatch ended:\n{}",
                self.log("dogwatch")
            );
            self.agent_status().is_some()
        });
    }

    /// Writes `dns.toml` and starts the cache in front of `upstream`; waits until it answers.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start_dns(&mut self, upstream: SocketAddr) {
        let text = format!(
            "[dns]\nlisten = [\"127.0.0.1:{}\"]\nupstreams = [\"{upstream}\"]\nstate_dir = \"{}\"\n\
             control_socket = \"{}\"\nmetrics = \"127.0.0.1:{}\"\n",
            self.dns_port,
            self.path("dns").display(),
            self.path("dns.sock").display(),
            self.dns_metrics
        );
        let config = self.write("dns.toml", &text);
        let mut command = Command::new(binary("dogwatch"));
        command.arg("dns").arg("--config").arg(config);
        self.dns = Some(Process::start("dns", &mut command, self.folder()));
        wait_for("the cache to be up", || {
            assert!(self.dns.as_mut().is_some_and(Process::running), "dns ended:\n{}", self.log("dns"));
            http::get(self.dns_metrics, "/metrics").is_some()
        });
    }

    /// What `dogwatch status` says; `None` while the agent does not answer.
    pub fn agent_status(&self) -> Option<Value> {
        let config = self.path("agent.toml");
        let output =
            Command::new(binary("dogwatch")).arg("status").arg("--config").arg(config).arg("--json").output();
        let output = output.ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// One service of [`Self::agent_status`].
    pub fn service(&self, name: &str) -> Option<Value> {
        let status = self.agent_status()?;
        status["services"].as_array()?.iter().find(|service| service["service"] == name).cloned()
    }

    /// Runs `alertctl` against this host's alertd.
    ///
    /// # Panics
    /// If it does not start.
    pub fn alertctl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary("alertctl"));
        command.arg("--socket").arg(self.alertd_socket()).args(arguments).env("TZ", "UTC");
        command.output().expect("alertctl starts")
    }

    /// Runs `alertctl … --json` and reads what it says.
    ///
    /// # Panics
    /// If it fails.
    pub fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.alertctl(&[arguments, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "alertctl {arguments:?}: {}", words(&output));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("alertctl {arguments:?}: {error}: {said}"))
    }

    /// Says to alertd what an agent on `host` would say of one service; `seq` goes up with each of
    /// that host.
    ///
    /// # Panics
    /// If alertd does not take it.
    pub async fn report(&self, host: &str, service: &str, state: State, seq: u64) {
        let now = ServiceState {
            service: service.into(),
            state,
            since: Timestamp::UNIX_EPOCH,
            flapping: false,
            summary: format!("{service} is {}", state.name()),
            detail: String::new(),
            perfdata: "used=96%;80;90".into(),
            labels: [].into(),
            annotations: [("runbook".to_owned(), "https://wiki.example/disk".to_owned())].into(),
        };
        let from = if state == State::Ok { State::Critical } else { State::Ok };
        let kind = EventKind::Transition(Transition { from, now });
        let batch = Batch {
            protocol: PROTOCOL,
            agent: format!("id-{host}"),
            host: host.into(),
            epoch: "e1".into(),
            run: String::new(),
            boot: String::new(),
            sent_at: Timestamp::UNIX_EPOCH,
            events: vec![Event { seq, at: Timestamp::UNIX_EPOCH, kind }],
            heartbeat: None,
            states: None,
            states_part: None,
        };
        let client = Client::new(self.alertd_socket(), Duration::from_secs(20));
        let reply: BatchReply = client.post("/v1/agent/batch", &batch).await.expect("alertd takes the batch");
        assert_eq!(reply.acked_seq, seq);
    }

    /// The logs of all that ran, for a failed test.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// Mails in a maildir receiver's folder.
    pub fn maildir(&self, name: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(name).join("new")) else { return Vec::new() };
        entries.filter_map(Result::ok).filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect()
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

/// Everything a command said, for a message.
pub fn words(output: &Output) -> String {
    let mut text = format!("{}", output.status);
    let _ = write!(
        text,
        "\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
