//! alertd with its files in one directory, and agents as alertd sees them.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail};
use dogwatch_daemon::unix_http::{CallError, Client};
use dogwatch_wire::{Batch, BatchReply, Event, EventKind, PROTOCOL, ServiceState, State, Transition};
use jiff::Timestamp;

use super::heard::Heard;
use crate::process::{Process, binary, free_port};

/// Longer than any notification may take on a busy machine; one that takes longer counts as lost.
pub const LOST_AFTER: Duration = Duration::from_mins(1);

pub struct Alertd {
    /// `None` before the first start.
    pub process: Option<Process>,
    socket: PathBuf,
    config: PathBuf,
    metrics: u16,
    // Last: outlives the process.
    folder: tempfile::TempDir,
}

impl Alertd {
    /// Tells everybody at once: hosts called `post…` by mail to `mail_port`, all others by webhook
    /// to `hook_port`.
    ///
    /// # Errors
    /// If its files cannot be written.
    pub fn new(hook_port: u16, mail_port: Option<u16>, state_dir: Option<&Path>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (socket, config) = (folder.path().join("alertd.sock"), folder.path().join("alertd.toml"));
        let state_dir = state_dir.map_or_else(|| folder.path().join("state"), Path::to_owned);
        let metrics = free_port();
        let timing = "group_wait = \"0s\"\ngroup_interval = \"0s\"\n";
        let rate = "rate = { burst = 1000000, every = \"1ms\" }\n";
        let (dir, at) = (state_dir.display(), socket.display());
        let head = format!(
            "[alertd]\nsocket = \"{at}\"\nstate_dir = \"{dir}\"\nmetrics = \"127.0.0.1:{metrics}\"\n\
             [receiver.far]\n{rate}[receiver.far.webhook]\nurl = \"http://127.0.0.1:{hook_port}/\"\n"
        );
        let by_mail = |port| {
            format!(
                "[[route]]\nmatch = [\"host=~\\\"post.*\\\"\"]\nreceiver = \"post\"\n{timing}[receiver.post]\n{rate}\
                 [receiver.post.email]\nserver = \"127.0.0.1\"\nport = {port}\n\
                 to = [\"oncall@example.org\"]\nfrom = \"dogwatch@example.org\"\n"
            )
        };
        let others = format!("[[route]]\nreceiver = \"far\"\n{timing}");
        let text = [head, mail_port.map(by_mail).unwrap_or_default(), others].concat();
        fs::write(&config, text)?;
        Ok(Self { process: None, socket, config, metrics, folder })
    }

    /// `crash_at`: a point of `alertd/src/crash.rs`.
    pub fn start(&mut self, crash_at: Option<&str>) {
        let mut command = Command::new(binary("alertd"));
        command.arg("--config").arg(&self.config).env("DOGWATCH_LOG", "warn");
        if let Some(point) = crash_at {
            command.env("ALERTD_CRASH_AT", point);
        }
        self.process = Some(Process::start("alertd", &mut command, self.folder.path()));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    pub fn client(&self) -> Client {
        Client::new(&self.socket, Duration::from_secs(20))
    }

    /// One value of its metrics page.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics)).ok()?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
}

/// Keeps what is not acknowledged, sends it again.
pub struct Agent {
    pub host: String,
    client: Client,
    spool: Vec<Event>,
    seq: u64,
}

impl Agent {
    pub fn new(host: &str, client: Client) -> Self {
        Self { host: host.into(), client, spool: Vec::new(), seq: 0 }
    }

    pub fn report(&mut self, state: State) {
        self.seq += 1;
        let now = ServiceState {
            service: "disk".into(),
            state,
            since: Timestamp::UNIX_EPOCH,
            flapping: false,
            summary: format!("change {}", self.seq),
            detail: String::new(),
            perfdata: String::new(),
            labels: [].into(),
            annotations: [].into(),
        };
        let from = if state == State::Ok { State::Critical } else { State::Ok };
        let kind = EventKind::Transition(Transition { from, now });
        self.spool.push(Event { seq: self.seq, at: Timestamp::UNIX_EPOCH, kind });
    }

    /// # Errors
    /// As the socket's; what was not acknowledged is kept.
    pub async fn send(&mut self) -> Result<(), CallError> {
        let batch = Batch {
            protocol: PROTOCOL,
            agent: format!("id-{}", self.host),
            host: self.host.clone(),
            epoch: "e1".into(),
            run: String::new(),
            boot: String::new(),
            sent_at: Timestamp::UNIX_EPOCH,
            events: self.spool.clone(),
            heartbeat: None,
            states: None,
            states_part: None,
        };
        let reply: BatchReply = self.client.post("/v1/agent/batch", &batch).await?;
        self.spool.retain(|event| event.seq > reply.acked_seq);
        Ok(())
    }

    pub async fn send_until_acked(&mut self) {
        while !self.spool.is_empty() {
            if self.send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(5..25))).await;
            }
        }
    }

    /// Changes to `state` and waits until somebody was told of it for the `times`th time, however
    /// long that takes.
    pub async fn change(&mut self, state: State, heard: &Heard, times: usize) {
        self.report(state);
        self.send_until_acked().await;
        while heard.count(&self.host, kind_of(state)) < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Fails and recovers, and waits for the notification each time.
    ///
    /// # Errors
    /// If there is none within [`LOST_AFTER`].
    pub async fn one_episode(&mut self, heard: &Heard, episode: usize) -> Result<()> {
        for state in [State::Critical, State::Ok] {
            let change = self.change(state, heard, episode);
            if tokio::time::timeout(LOST_AFTER, change).await.is_err() {
                bail!("lost: {} {episode} of {}", kind_of(state), self.host);
            }
        }
        Ok(())
    }
}

/// The notification of a change.
pub fn kind_of(state: State) -> &'static str {
    if state == State::Ok { "recovery" } else { "problem" }
}
