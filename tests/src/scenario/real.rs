//! Plays a scenario with the real `dogwatch dns`, real sockets and upstreams on loopback, at the
//! times of its `real` lines.
//!
//! What the virtual run does to a core this does to processes: `crash` is a kill -9, an upstream
//! that is `unreachable` has closed its port. What cannot be done to a machine that others use
//! (sleep, wall clock) has no real run.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    Clients, Event, Names, Scenario,
    log::{Answered, Asker, Log, Sample},
};
use crate::{
    authority::{Data, Judgement},
    dns_message::{A, Reply, query},
    process::{Process, binary, free_port, wait_for},
    upstream::Upstream,
};

/// A client gives up then; glibc would ask the next server.
const STUB_TIMEOUT: Duration = Duration::from_secs(5);
/// Then it asks once more, as stubs do: on a machine that is busy the kernel drops datagrams.
const ASKS_AGAIN_AFTER: Duration = Duration::from_millis(2_500);
const LOOK_EVERY: Duration = Duration::from_millis(150);
const WARM_UP_GAP: Duration = Duration::from_millis(2);

struct Asked {
    index: Option<usize>,
    text: String,
    at: Duration,
    why: Asker,
    known: bool,
    repeated: bool,
}

struct World {
    folder: TempDir,
    address: SocketAddr,
    upstreams: Vec<Upstream>,
    data: Arc<Mutex<Data>>,
    names: Names,
    weights: Vec<f64>,
    clients: Clients,
    flood: f64,
    noise: f64,
    cache: Option<Process>,
    socket: UdpSocket,
    waiting: HashMap<u16, Asked>,
    seen: Vec<bool>,
    random: fastrand::Rng,
    started: Instant,
    log: Log,
}

/// Plays the scenario, whose times must be those of the real run ([`Scenario::mapped`]).
///
/// # Panics
/// If a process cannot be started or a socket cannot be opened.
#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
pub fn run(scenario: &Scenario, seed: u64) -> Log {
    let mut random = fastrand::Rng::with_seed(seed);
    let names = scenario.names(&mut random);
    let data = Arc::new(Mutex::new(scenario.data()));
    let loopback = || SocketAddr::from(([127, 0, 0, 1], free_port()));
    let upstreams: Vec<_> = (0..scenario.upstreams)
        .map(|_| Upstream::start_with(loopback(), Arc::clone(&data)).expect("a free port can be bound"))
        .collect();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let address = loopback();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("the kernel has a port");
    let mut world = World {
        weights: names.weights(),
        seen: vec![false; names.all.len()],
        clients: scenario.clients,
        flood: 0.0,
        noise: 0.0,
        cache: None,
        waiting: HashMap::new(),
        started: Instant::now(),
        log: Log::default(),
        folder,
        address,
        upstreams,
        data,
        names,
        socket,
        random,
    };
    world.write_config(scenario, &scenario.used);
    world.start_cache();
    let (at_first, later): (Vec<_>, Vec<_>) = scenario.events.iter().partition(|(at, _)| at.is_zero());
    for (_, event) in at_first {
        world.happen(scenario, event);
    }
    world.warm_up();
    let watch = Watch::start(world.folder.path(), &world.upstreams, world.started);
    let mut next = [world.elapsed(); 3];
    for (at, event) in later {
        world.run_until(*at, &mut next);
        world.happen(scenario, event);
        next = next.map(|due| due.max(world.elapsed()));
    }
    world.run_until(scenario.end, &mut next);
    let (clients_end, deadline) = (world.elapsed(), world.elapsed() + STUB_TIMEOUT);
    while !world.waiting.is_empty() && world.elapsed() < deadline {
        world.listen(Duration::from_millis(5));
    }
    world.give_up(clients_end + STUB_TIMEOUT);
    let mut log = std::mem::take(&mut world.log);
    let watched = watch.stop();
    (log.alerts, log.sent, log.samples) = (watched.alerts, watched.sent, watched.samples);
    let printed = world.cache.as_ref().map(Process::log).unwrap_or_default();
    if printed.contains("panicked") {
        log.complaints.push(format!("the cache panicked:\n{printed}"));
    }
    log
}

impl World {
    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn write_config(&self, scenario: &Scenario, used: &[usize]) {
        let used: Vec<_> =
            used.iter().map(|&place| format!("\"{}\"", self.upstreams[place].address)).collect();
        let place = |name: &str| self.folder.path().join(name).display().to_string();
        let mut text = format!(
            "[dns]\nlisten = [\"{}\"]\nupstreams = [{}]\nstate_dir = {:?}\ncontrol_socket = {:?}\n\
             metrics = \"127.0.0.1:0\"\n",
            self.address,
            used.join(", "),
            place("state"),
            place("control.sock"),
        );
        if let Some(max_stale) = scenario.max_stale {
            let _ = writeln!(text, "max_stale = \"{}s\"", max_stale.as_secs());
        }
        if !scenario.pinned.is_empty() {
            // Programs here ask for A only.
            let pin = |(name, port): &(String, Option<u16>)| {
                let check = port.map_or_else(String::new, |port| format!(", check_tcp = {port}"));
                format!("{{ name = {name:?}, types = [\"A\"]{check} }}")
            };
            let all: Vec<_> = scenario.pinned.iter().map(pin).collect();
            let _ = writeln!(text, "pinned = [{}]", all.join(", "));
        }
        if let Some(bytes) = scenario.cache_bytes {
            let _ = writeln!(text, "cache_mib = {}", (bytes >> 20).max(1));
        }
        fs::write(self.folder.path().join("dns.toml"), text).expect("the test folder is writable");
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary("dogwatch"));
        command.arg("dns").arg("--config").arg(self.folder.path().join("dns.toml"));
        command
    }

    fn start_cache(&mut self) {
        self.cache = Some(Process::start("dns", &mut self.command(), self.folder.path()));
        let folder = self.folder.path();
        wait_for("the cache to answer", || status(folder).is_some());
    }

    /// Asks for each name once, before the time counts: the virtual run has more time until its
    /// outage than this one.
    #[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
    fn warm_up(&mut self) {
        for index in 0..self.names.all.len() {
            self.ask(Some(index), self.names.all[index].clone(), Asker::Program);
            self.listen(WARM_UP_GAP);
        }
        let deadline = self.elapsed() + STUB_TIMEOUT;
        while !self.waiting.is_empty() && self.elapsed() < deadline {
            self.listen(Duration::from_millis(5));
        }
        self.waiting.clear();
        self.log = Log::default();
        self.started = Instant::now();
    }

    fn happen(&mut self, scenario: &Scenario, event: &Event) {
        match event {
            Event::Mood { upstreams, of, mood } => {
                for &place in upstreams {
                    match of {
                        None => self.upstreams[place].set(*mood),
                        Some(name) => self.upstreams[place].set_only(&self.names.text(name), *mood),
                    }
                }
            }
            Event::Truth { name, fact } => {
                let name = self.names.text(name);
                self.data.lock().unwrap_or_else(PoisonError::into_inner).set(&name, fact.clone());
            }
            Event::Clients(per_second) => self.clients.per_second = *per_second,
            Event::Flood(per_second) => self.flood = *per_second,
            Event::Noise(per_second) => self.noise = *per_second,
            Event::Use(used) => {
                self.write_config(scenario, used);
                if let Some(cache) = &self.cache {
                    cache.signal(rustix::process::Signal::HUP);
                }
            }
            Event::Restart { down, orderly, stolen } => self.restart(*down, *orderly, *stolen),
            Event::Ask { line, name } => {
                let text = self.names.text(name);
                let index = self.names.all.iter().position(|known| *known == text);
                self.ask(index, text, Asker::Line(u32::try_from(*line).unwrap_or(u32::MAX)));
            }
            Event::Sleep(_) | Event::Wall { .. } | Event::Closed(_) => {
                self.log.complaints.push("a machine that others use cannot sleep or lose its clock".into());
            }
        }
    }

    fn restart(&mut self, down: Duration, orderly: bool, stolen: bool) {
        let ends = self.elapsed() + down;
        if let Some(mut cache) = self.cache.take() {
            if orderly {
                cache.stop();
            } else {
                cache.kill();
            }
        }
        // They ask the second name server of resolv.conf.
        self.waiting.clear();
        if stolen {
            let thief = (UdpSocket::bind(self.address), TcpListener::bind(self.address));
            let mut robbed = Process::start("robbed", &mut self.command(), self.folder.path());
            let status = robbed.wait();
            if status.success() || !robbed.log().contains(&self.address.to_string()) {
                let said = robbed.log();
                self.log
                    .complaints
                    .push(format!("with its port taken it ends with {status} and says: {said}"));
            }
            drop(thief);
        }
        thread::sleep(ends.saturating_sub(self.elapsed()));
        self.start_cache();
    }

    fn run_until(&mut self, end: Duration, next: &mut [Duration; 3]) {
        while self.elapsed() < end {
            for (place, per_second) in
                [self.clients.per_second, self.flood, self.noise].into_iter().enumerate()
            {
                while per_second > 0.0 && next[place] <= self.elapsed() {
                    let gap = -(1.0 - self.random.f64()).ln() / per_second;
                    // What could not be asked in time is not caught up with: that would be a burst
                    // of our making.
                    next[place] = (next[place] + Duration::from_secs_f64(gap))
                        .max(self.elapsed().saturating_sub(Duration::from_millis(100)));
                    self.ask_as(place);
                }
                if per_second <= 0.0 {
                    next[place] = self.elapsed();
                }
            }
            let due = next.iter().copied().filter(|&due| due > self.elapsed()).min().unwrap_or(end).min(end);
            self.listen(due.saturating_sub(self.elapsed()).min(Duration::from_millis(20)));
        }
    }

    fn ask_as(&mut self, place: usize) {
        let index = self.names.draw(&self.clients, &self.weights, &mut self.random);
        match place {
            0 => self.ask(Some(index), self.names.all[index].clone(), Asker::Program),
            1 => {
                let text = format!("n{}.t300.test.", self.random.u32(1 << 20..1 << 24));
                self.ask(None, text, Asker::Flood);
            }
            _ => {
                let text = format!("{}svc.cluster.test.", self.names.all[index]);
                self.ask(None, text, Asker::Noise);
            }
        }
    }

    fn ask(&mut self, index: Option<usize>, text: String, why: Asker) {
        let id = loop {
            let id = self.random.u16(..);
            if !self.waiting.contains_key(&id) {
                break id;
            }
        };
        let known = index.is_some_and(|index| self.seen[index]);
        let asked = Asked { index, text, at: self.elapsed(), why, known, repeated: false };
        let sent = self.socket.send_to(&query(id, &asked.text, A, true), self.address);
        if sent.is_ok() {
            self.waiting.insert(id, asked);
        }
        // Answers must not pile up in the socket.
        self.listen(Duration::ZERO);
    }

    /// Takes what answers there are; waits for the first at most so long.
    fn listen(&mut self, wait: Duration) {
        let _ = self.socket.set_read_timeout(Some(wait.max(Duration::from_micros(50))));
        let _ = self.socket.set_nonblocking(wait.is_zero());
        let mut buffer = [0; 4096];
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((length, _)) => {
                    let reply = Reply::parse(&buffer[..length]);
                    if let Some(asked) = self.waiting.remove(&reply.id) {
                        self.note(&asked, Some(&reply));
                    }
                    let _ = self.socket.set_nonblocking(true);
                }
                // A restarting cache's port is closed for a moment.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(_) => break,
            }
        }
        let _ = self.socket.set_nonblocking(false);
        self.ask_again();
        self.give_up(self.elapsed());
    }

    fn ask_again(&mut self) {
        let now = self.started.elapsed();
        for (&id, asked) in &mut self.waiting {
            if !asked.repeated && asked.at + ASKS_AGAIN_AFTER <= now {
                asked.repeated = true;
                let _ = self.socket.send_to(&query(id, &asked.text, A, true), self.address);
            }
        }
    }

    fn give_up(&mut self, now: Duration) {
        let late = |asked: &Asked| asked.at + STUB_TIMEOUT <= now;
        let ids: Vec<u16> = self.waiting.iter().filter(|(_, asked)| late(asked)).map(|(&id, _)| id).collect();
        for id in ids {
            if let Some(asked) = self.waiting.remove(&id) {
                self.note(&asked, None);
            }
        }
    }

    fn note(&mut self, asked: &Asked, reply: Option<&Reply>) {
        let data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        let worth = reply.map_or(Judgement::Failed, |reply| data.judge(&asked.text, reply));
        drop(data);
        if let Some(index) = asked.index {
            self.seen[index] |= worth == Judgement::Right;
        }
        let took = self.elapsed().saturating_sub(asked.at);
        self.log.answers.push(Answered::new(
            asked.index,
            asked.at,
            took,
            asked.why,
            asked.known,
            worth,
            reply,
        ));
    }
}

/// Looks at the check results and at the upstreams' counts, beside the clients.
struct Watch {
    thread: thread::JoinHandle<Log>,
    ends: Arc<AtomicBool>,
}

impl Watch {
    fn start(folder: &Path, upstreams: &[Upstream], started: Instant) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let (folder, upstreams, end) = (folder.to_owned(), upstreams.to_vec(), Arc::clone(&ends));
        let thread = thread::spawn(move || {
            let mut log = Log::default();
            let mut heard: Vec<u64> = upstreams.iter().map(Upstream::queries).collect();
            while !end.load(Ordering::Relaxed) {
                look(&mut log, &folder, started);
                for (place, upstream) in upstreams.iter().enumerate() {
                    let total = upstream.queries();
                    if total > heard[place] {
                        log.sent.push((started.elapsed(), place, total - heard[place]));
                        heard[place] = total;
                    }
                }
                thread::sleep(LOOK_EVERY);
            }
            log
        });
        Self { thread, ends }
    }

    fn stop(self) -> Log {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn look(log: &mut Log, folder: &Path, started: Instant) {
    let Some(status) = status(folder) else { return };
    let at = started.elapsed();
    for sensor in status["sensors"].as_array().into_iter().flatten() {
        let state = sensor["state"].as_u64().and_then(|state| u8::try_from(state).ok()).unwrap_or(3);
        let text = |field: &str| sensor[field].as_str().unwrap_or_default();
        log.on_sensor(at, text("name"), state, text("text"));
    }
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let runway = Duration::from_secs(number(&status["masking"]["runway_s"]));
    log.samples.push(Sample { at, bytes: number(&status["bytes"]), runway });
}

fn status(folder: &Path) -> Option<Value> {
    let mut stream = UnixStream::connect(folder.join("control.sock")).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"GET /v1/status HTTP/1.0\r\n\r\n").ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    serde_json::from_str(reply.split_once("\r\n\r\n")?.1).ok()
}
