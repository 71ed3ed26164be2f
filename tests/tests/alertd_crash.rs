//! alertd killed between every two steps of an alert's life, and at random under load: no notification is lost, and what
//! comes twice comes under the same id with the same words. And with a full disk below it.
//!
//! Real alertd, real agents' protocol, real HTTP; only the receiver's far end is a stand-in that counts.

#![expect(clippy::unwrap_used, reason = "a test says where it failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use dogwatch_daemon::unix_http::{CallError, Client};
use dogwatch_tests::process::{Process, binary, free_port, skip, wait_for};
use dogwatch_wire::{
    Batch, BatchReply, Event, EventKind, PROTOCOL, ServiceState, State, Transition,
    ctl::{self, Status},
};
use jiff::Timestamp;
use serde_json::Value;

/// Longer than any of them may take on a busy machine; a notification that takes longer counts as lost.
const LOST_AFTER: Duration = Duration::from_mins(1);
/// For a campaign: `DOGWATCH_KILLS=1000 DOGWATCH_HOSTS=64 cargo test -p dogwatch-tests --test alertd_crash times -- --nocapture`.
fn kills() -> u32 {
    from_environment("DOGWATCH_KILLS").unwrap_or(200)
}

fn host_count() -> u32 {
    from_environment("DOGWATCH_HOSTS").unwrap_or(16)
}

fn from_environment(name: &str) -> Option<u32> {
    Some(std::env::var(name).ok()?.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The receiver's far end: takes everything, keeps everything.
#[derive(Clone, Default)]
struct Counter(Arc<Mutex<Counted>>);

#[derive(Default)]
struct Counted {
    all: Vec<Value>,
    /// Ids of the different notifications, by host and kind.
    ids: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Counter {
    fn listen() -> (Self, u16) {
        let counter = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let counting = counter.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counting = counting.clone();
                thread::spawn(move || counting.serve(&stream));
            }
        });
        (counter, port)
    }

    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let (mut id, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                let line = line.trim_end().to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
                if let Some(value) = line.strip_prefix("x-dogwatch-id:") {
                    value.trim().clone_into(&mut id);
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let body: Value = serde_json::from_slice(&body).ok()?;
            assert_eq!(body["id"], id, "the header names the id of the body");
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let of = (text(&body["group"]["host"]), text(&body["kind"]));
            let mut counted = self.0.lock().unwrap();
            counted.ids.entry(of).or_default().insert(body["id"].to_string());
            counted.all.push(body);
            drop(counted);
            let mut stream = stream;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
        }
    }

    fn all(&self) -> Vec<Value> {
        self.0.lock().unwrap().all.clone()
    }

    /// How many different notifications of this kind came for this host.
    fn count(&self, host: &str, kind: &str) -> usize {
        let counted = self.0.lock().unwrap();
        counted.ids.get(&(host.to_owned(), kind.to_owned())).map_or(0, BTreeSet::len)
    }

    /// Returns how many came twice.
    fn assert_every_duplicate_has_one_id_and_the_same_words(&self) -> usize {
        let (mut by_id, mut by_meaning) = (BTreeMap::new(), BTreeMap::new());
        let (mut duplicates, all) = (0, self.all());
        for body in &all {
            let id = body["id"].to_string();
            if let Some(before) = by_id.insert(id.clone(), body) {
                duplicates += 1;
                assert_eq!(before, body, "one id, other words");
            }
            let meaning = (body["incident"].to_string(), body["kind"].to_string());
            let before = by_meaning.insert(meaning.clone(), id.clone());
            assert!(before.is_none_or(|before| before == id), "{meaning:?} was told under two ids");
        }
        duplicates
    }
}

/// alertd with its files in one folder.
struct Alertd {
    process: Option<Process>,
    socket: PathBuf,
    config: PathBuf,
    metrics: u16,
    // Last: outlives the process.
    folder: tempfile::TempDir,
}

impl Alertd {
    fn new(port: u16, state_dir: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (socket, config) = (folder.path().join("alertd.sock"), folder.path().join("alertd.toml"));
        let state_dir = state_dir.map_or_else(|| folder.path().join("state"), Path::to_owned);
        let metrics = free_port();
        let text = format!(
            r#"
            [alertd]
            socket = "{}"
            state_dir = "{}"
            metrics = "127.0.0.1:{metrics}"
            [[route]]
            receiver = "far"
            group_wait = "0s"
            group_interval = "0s"
            [receiver.far]
            rate = {{ burst = 1000000, every = "1ms" }}
            [receiver.far.webhook]
            url = "http://127.0.0.1:{port}/"
            "#,
            socket.display(),
            state_dir.display(),
        );
        fs::write(&config, text).unwrap();
        Self { process: None, socket, config, metrics, folder }
    }

    fn start(&mut self, crash_at: Option<&str>) {
        let mut command = Command::new(binary("alertd"));
        command.arg("--config").arg(&self.config).env("DOGWATCH_LOG", "warn");
        if let Some(point) = crash_at {
            command.env("ALERTD_CRASH_AT", point);
        }
        self.process = Some(Process::start("alertd", &mut command, self.folder.path()));
    }

    fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    fn client(&self) -> Client {
        Client::new(&self.socket, Duration::from_secs(20))
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics)).ok()?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
}

/// An agent as far as alertd can see: keeps what is not acknowledged, sends it again.
struct Agent {
    host: String,
    client: Client,
    spool: Vec<Event>,
    seq: u64,
}

impl Agent {
    fn new(host: &str, client: Client) -> Self {
        Self { host: host.into(), client, spool: Vec::new(), seq: 0 }
    }

    fn report(&mut self, state: State) {
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

    async fn send(&mut self) -> Result<(), CallError> {
        let batch = Batch {
            protocol: PROTOCOL,
            agent: format!("id-{}", self.host),
            host: self.host.clone(),
            epoch: "e1".into(),
            sent_at: Timestamp::UNIX_EPOCH,
            events: self.spool.clone(),
            heartbeat: None,
            states: None,
        };
        let reply: BatchReply = self.client.post("/v1/agent/batch", &batch).await?;
        self.spool.retain(|event| event.seq > reply.acked_seq);
        Ok(())
    }

    async fn send_until_acked(&mut self) {
        while !self.spool.is_empty() {
            if self.send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Breaks, waits until somebody was told, mends, waits until they were told of that too.
    async fn one_episode(&mut self, counter: &Counter, episode: usize) {
        for (state, kind) in [(State::Critical, "problem"), (State::Ok, "recovery")] {
            self.report(state);
            let heard = async {
                self.send_until_acked().await;
                while counter.count(&self.host, kind) < episode {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            let heard = tokio::time::timeout(LOST_AFTER, heard).await;
            assert!(heard.is_ok(), "lost: {kind} {episode} of {}", self.host);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_any_two_steps_alertd_loses_nothing_and_repeats_only_under_the_same_id() {
    for point in ["decided", "committed", "leased", "sent", "recorded"] {
        for nth in [1, 2, 3] {
            let (counter, port) = Counter::listen();
            let mut alertd = Alertd::new(port, None);
            alertd.start(Some(&format!("{point}:{nth}")));
            let mut agent = Agent::new("web1", alertd.client());
            let play = tokio::spawn({
                let counter = counter.clone();
                async move {
                    for episode in 1..=3 {
                        agent.one_episode(&counter, episode).await;
                    }
                }
            });
            tokio::task::block_in_place(|| {
                let status = alertd.process.as_mut().unwrap().wait();
                assert!(!status.success(), "{point}:{nth} did not crash");
            });
            alertd.start(None);
            play.await.unwrap_or_else(|error| panic!("{point}:{nth}: {error}\n{}", alertd.log()));
            let duplicates = counter.assert_every_duplicate_has_one_id_and_the_same_words();
            if point == "sent" {
                assert!(duplicates >= 1, "what was sent and not recorded is sent again");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_hundreds_of_times_under_load_alertd_loses_nothing_and_repeats_only_under_the_same_id() {
    let (counter, port) = Counter::listen();
    let mut alertd = Alertd::new(port, None);
    alertd.start(None);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut hosts = tokio::task::JoinSet::new();
    let start = dogwatch_tests::bench::now();
    for host in 0..host_count() {
        let mut agent = Agent::new(&format!("web{host}"), alertd.client());
        let (counter, stopped) = (counter.clone(), stopped.clone());
        hosts.spawn(async move {
            let mut episodes = 0;
            while !*stopped.borrow() {
                episodes += 1;
                agent.one_episode(&counter, episodes).await;
            }
            episodes
        });
    }
    let mut random = fastrand::Rng::with_seed(1);
    let kills = kills();
    for kill in 0..kills {
        // From before it listens to well under way.
        tokio::time::sleep(Duration::from_millis(random.u64(10..250))).await;
        assert!(hosts.try_join_next().is_none(), "a host gave up after kill {kill}\n{}", alertd.log());
        tokio::task::block_in_place(|| {
            alertd.process.as_mut().unwrap().kill();
            alertd.start(None);
        });
    }
    stop.send(true).unwrap();
    let mut episodes = 0;
    while let Some(host) = hosts.join_next().await {
        episodes += host.unwrap_or_else(|error| panic!("{error}\n{}", alertd.log()));
    }
    let duplicates = counter.assert_every_duplicate_has_one_id_and_the_same_words();
    let took_s = usize::try_from(start.elapsed().as_secs()).unwrap_or(usize::MAX);
    println!(
        "{kills} kills in {took_s} s, {episodes} incidents, {} notifications, {duplicates} of them repeated under their ids, 0 lost, \
         0 told twice; {} alerts a second",
        counter.all().len(),
        2 * episodes / took_s.max(1),
    );
    let status: Status = alertd.client().get("/v1/status").await.unwrap();
    assert_eq!((status.incidents.len(), status.outbox.queued), (0, 0));
    assert_eq!(status.warnings, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_full_disk_alertd_still_tells_people_and_catches_up_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (counter, port) = Counter::listen();
    let mut alertd = Alertd::new(port, Some(&disk.path().join("state")));
    alertd.start(None);
    let mut agent = Agent::new("web1", alertd.client());
    agent.one_episode(&counter, 1).await;

    let filler = disk.fill();
    agent.report(State::Critical);
    wait_for_async("somebody to be told from memory", async || {
        let refused = agent.send().await.unwrap_err();
        assert!(refused.to_string().contains("keep these events and send them again"), "{refused}");
        counter.count("web1", "problem") == 2
    })
    .await;
    let status: Status = alertd.client().get("/v1/status").await.unwrap();
    assert!(status.warnings[0].contains("the store fails"), "{:?}", status.warnings);
    assert_eq!(alertd.metric("alertd_store_up"), Some(0.0));
    let acked: ctl::Incident =
        alertd.client().post("/v1/incidents/2/ack", &ctl::Ack::default()).await.unwrap();
    assert!(acked.ack.is_some());

    fs::remove_file(filler).unwrap();
    wait_for("the store to catch up", || alertd.metric("alertd_store_up") == Some(1.0));
    agent.send_until_acked().await;
    tokio::task::block_in_place(|| {
        alertd.process.as_mut().unwrap().kill();
        alertd.start(None);
    });
    wait_for_async("alertd to answer", async || alertd.client().get::<Status>("/v1/status").await.is_ok())
        .await;
    let status: Status = alertd.client().get("/v1/status").await.unwrap();
    assert!(status.incidents[0].ack.is_some(), "what was decided while the disk was full is durable now");
    agent.report(State::Ok);
    agent.send_until_acked().await;
    wait_for("the recovery", || counter.count("web1", "recovery") == 2);
    assert_eq!(counter.count("web1", "problem"), 2);
    counter.assert_every_duplicate_has_one_id_and_the_same_words();
}

/// Awaits a condition that has to be asked for.
async fn wait_for_async(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(LOST_AFTER, waiting).await.is_ok(), "waited in vain for {what}");
}

/// A tmpfs of 4 MiB; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, loudly, where that is not allowed; a failure where it has to be.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(folder.path()).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        skip(&format!("the full disk: mounting a tmpfs needs root: {mounted:?}"));
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path).unwrap();
        for size in [65_536, 4_096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
