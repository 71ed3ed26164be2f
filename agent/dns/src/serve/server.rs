//! The daemon: the sockets, the loop that owns the resolver, and the tasks around it.
//!
//! One loop on a current-thread runtime owns the core. Cache misses from the answering threads, TCP
//! queries and control requests reach it as an [`Event`]; upstream replies have a queue of their
//! own. The snapshot is loaded before the first socket is read. No other task or thread touches the
//! core; the answering threads read its cache.

use std::{
    collections::HashMap,
    hash::RandomState,
    io, iter,
    net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dogwatch_daemon::{
    bounds,
    config::Problems,
    metrics_page::Metrics,
    signals::{Asked, Signals},
    systemd, unix_http,
};
use dogwatch_dns_core::{
    guard,
    message::{name, reply::Transport},
    moment::Moment,
    resolver::{Client, Outcome, Resolver, Restored, Seeds},
    settings::NoUpstreams,
    zones::{origin, zone::Zone},
};
use parking_lot::RwLock;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    clock::{self, Clock},
    config::{Config, Prefix, UpstreamSource},
    random,
    serve::{
        answers, control, datagrams::Datagrams, event::Event, memory, metrics, stream::Streams, tcp_check,
    },
    snapshot::{self, Anchor, GapWatch, Learned, Limits, Lock, Restoring, Writer},
    transport::{Reply, Upstreams, route},
};

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Config(#[from] Problems),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot use the sockets that systemd passed: {0}")]
    Inherited(io::Error),
    #[error("cannot open the control socket {}: {source}", path.display())]
    Control { path: PathBuf, source: io::Error },
    #[error("cannot set up: {0}")]
    Setup(String),
}

const EVENTS_MAX: usize = 1_024;
/// Events handled in one turn of the loop besides the first, before timers, health and sending.
const TURN_MAX: usize = 31;
/// The same for TCP connections, which wait when there is no room; UDP queries would be lost.
const STREAM_EVENTS_MAX: usize = 256;
const STREAM_TURN_MAX: usize = 7;
/// Room for queries that arrive while the snapshot loads.
const RECEIVE_BUFFER: usize = 1 << 20;
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two walks over all entries, and between two reads of resolv.conf.
const TICKS_PER_WALK: u32 = 5;

/// Runs `dogwatch dns` until a signal stops it. Needs a current-thread runtime.
pub async fn run(config_file: PathBuf) -> Result<(), RunError> {
    memory::keep_small();
    let inherited = systemd::inherited_sockets().map_err(RunError::Inherited)?;
    let mut signals = Signals::listen().map_err(|error| RunError::Setup(error.to_string()))?;
    let config = Config::load(&config_file)?;
    let page = Metrics::install();
    metrics::describe();

    // Listen first, so that no query is lost while the snapshot loads; read later.
    let sockets = Sockets::open(&config, inherited)?;
    let clock = Clock::start();
    let key = random::key()
        .map_err(|error| RunError::Setup(format!("no random numbers from the kernel: {error}")))?;
    let seeds = Seeds { key, hash_keys: RandomState::new() };
    let mut resolver = Resolver::new(config.settings(), seeds, clock.now());
    let lock = lock_state(&config.state_dir)?;
    let writer = restore(&config, &mut resolver, lock, clock.now());

    let (events, inbox) = mpsc::channel(EVENTS_MAX);
    let (replies, reply_inbox) = mpsc::channel(EVENTS_MAX);
    let control = unix_http::bind(&config.control_socket, 0o660)
        .map_err(|source| RunError::Control { path: config.control_socket.clone(), source })?;
    tokio::spawn(unix_http::serve(control, control::router(events.clone()), bounds::DNS_CONTROL));
    if let Err(error) = page.serve(config.metrics, page.router(), bounds::DNS_METRICS) {
        // Names that resolve matter more than being scraped.
        let address = config.metrics;
        tracing::error!(
            "cannot serve metrics on {address}: {error}; running without them; set [dns] metrics"
        );
    }
    let allow = Arc::new(RwLock::new(config.allow.clone()));
    let upstreams = Upstreams::new(replies);
    metrics::publish_restored(&resolver.restored);
    let said = announce(&config, &resolver);
    let health = resolver.zones().iter().map(Zone::health_number).collect();
    systemd::ready(&said);
    let to_loop = events.clone();
    let datagrams = Datagrams::start(sockets.datagrams, resolver.reader(), clock, Arc::clone(&allow), events)
        .map_err(|error| RunError::Setup(format!("cannot start the answering threads: {error}")))?;
    let (stream_events, stream_inbox) = mpsc::channel(STREAM_EVENTS_MAX);
    let reader = resolver.reader();
    let stream_thread = Streams::start(sockets.streams, reader, clock, Arc::clone(&allow), stream_events)
        .map_err(|error| RunError::Setup(format!("cannot start the thread for TCP: {error}")))?;
    let mut server = Server {
        clock,
        resolver,
        datagrams,
        to_loop,
        allow,
        streams: HashMap::new(),
        stream_thread,
        upstreams,
        writer,
        refused_clients: 0,
        config,
        out: Vec::with_capacity(4_096),
        gaps: GapWatch::new(Anchor::now()),
        origin: origin::Watch::default(),
        routes: route::Watch::default(),
        ticks: 0,
        health,
        lost_upstreams: None,
    };
    let inboxes = Inboxes { events: inbox, stream_events: stream_inbox, replies: reply_inbox };
    server.turn_until_stopped(&config_file, &mut signals, inboxes).await;
    systemd::stopping();
    server.datagrams.stop();
    server.take_tally();
    metrics::publish(&server.resolver, server.refused_clients, server.writer.counts());
    server.writer.finish();
    Ok(())
}

fn announce(config: &Config, resolver: &Resolver) -> String {
    let upstreams: Vec<_> = resolver
        .zones()
        .iter()
        .flat_map(|zone| {
            let of = if zone.is_root() { String::new() } else { format!(" ({})", zone.name()) };
            zone.group().all().iter().map(move |upstream| format!("{}{of}", upstream.endpoint))
        })
        .collect();
    if upstreams.is_empty() {
        let none = config.settings().no_upstreams;
        let why = none.as_ref().map(|none| format!("{}: ", none.why)).unwrap_or_default();
        let said = format!(
            "no upstreams: {why}set upstreams = [\"192.0.2.1\"] in dns.toml, or name servers in resolv.conf"
        );
        match none {
            Some(NoUpstreams { is_outage: false, .. }) => tracing::warn!("{said}"),
            _ => tracing::error!("{said}"),
        }
    }
    let said = format!("serving {} names; upstreams: {}", resolver.cache().len(), upstreams.join(", "));
    tracing::info!(listen = ?config.listen, "{said}");
    said
}

/// Without a usable directory the cache works from memory; the writer says so and tries again. A
/// directory that another cache uses is a mistake to refuse.
fn lock_state(dir: &Path) -> Result<Option<Lock>, RunError> {
    match Lock::take(dir) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(RunError::Setup(error.to_string())),
        Err(_) => Ok(None),
    }
}

/// Loads the snapshot into the resolver and starts the writer.
fn restore(config: &Config, resolver: &mut Resolver, lock: Option<Lock>, now: Moment) -> Writer {
    let (dir, began) = (&config.state_dir, clock::since_boot());
    let loaded = snapshot::load(dir, &Anchor::now(), &mut Restoring::new(resolver, now));
    let mut troubles = 0;
    match snapshot::load_origin(dir) {
        Ok(Some(origin)) => resolver.restore_origin(&origin, now),
        Ok(None) => {}
        Err(why) => {
            troubles += 1;
            tracing::warn!(dir = %dir.display(), "{why}");
        }
    }
    let took = clock::since_boot().saturating_sub(began);
    let names = resolver.cache().len();
    for report in &loaded.reports {
        if report.harmless() {
            tracing::info!(dir = %dir.display(), "{report}");
        } else {
            tracing::warn!(dir = %dir.display(), "{report}");
        }
    }
    let ms = took.as_secs_f64() * 1_000.0;
    tracing::info!("restored {names} names in {ms:.1} ms");
    troubles += loaded.reports.iter().filter(|report| !report.harmless()).count();
    resolver.restored = Restored { names, ms, troubles };
    Writer::start(dir, &loaded, Limits { bytes_max: config.cache_bytes }, lock)
}

/// The sockets to serve on: those passed by systemd, else our own.
struct Sockets {
    /// One for each answering thread.
    datagrams: Vec<Arc<StdUdpSocket>>,
    streams: Vec<StdTcpListener>,
}

impl Sockets {
    fn open(config: &Config, inherited: Vec<(String, std::os::fd::OwnedFd)>) -> Result<Self, RunError> {
        let mut sockets = Self { datagrams: Vec::new(), streams: Vec::new() };
        if !inherited.is_empty() {
            for (_, descriptor) in inherited {
                sockets.adopt(descriptor.into()).map_err(RunError::Inherited)?;
            }
            // Only systemd could open more of these, so the threads share them.
            let once = sockets.datagrams.clone();
            (1..config.threads).for_each(|_| sockets.datagrams.extend(once.iter().cloned()));
            return Ok(sockets);
        }
        for &address in &config.listen {
            sockets.bind(address, config.threads).map_err(|source| RunError::Listen { address, source })?;
        }
        Ok(sockets)
    }

    fn bind(&mut self, address: SocketAddr, threads: usize) -> io::Result<()> {
        for _ in 0..threads {
            let udp = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
            // With several threads, the kernel spreads the clients over them. With one thread, a
            // second daemon must fail to bind.
            udp.set_reuse_port(threads > 1)?;
            udp.bind(&address.into())?;
            self.adopt(udp)?;
        }
        let tcp = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for old connections to time out.
        tcp.set_reuse_address(true)?;
        tcp.bind(&address.into())?;
        tcp.listen(512)?;
        self.adopt(tcp)
    }

    fn adopt(&mut self, socket: Socket) -> io::Result<()> {
        if socket.r#type()? == Type::DGRAM {
            // The kernel caps it at rmem_max, which is fine.
            let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
            self.datagrams.push(Arc::new(socket.into()));
        } else {
            socket.set_nonblocking(true)?;
            self.streams.push(socket.into());
        }
        Ok(())
    }
}

struct Server {
    clock: Clock,
    resolver: Resolver,
    datagrams: Datagrams,
    /// For tasks that report a result.
    to_loop: mpsc::Sender<Event>,
    /// The clients that may ask, shared with threads and streams.
    allow: Arc<RwLock<Vec<Prefix>>>,
    /// TCP connections that wait for answers, or have.
    streams: HashMap<u64, answers::Answers>,
    stream_thread: Streams,
    upstreams: Upstreams,
    writer: Writer,
    refused_clients: u64,
    config: Config,
    /// The answer buffer, reused for every query.
    out: Vec<u8>,
    gaps: GapWatch,
    origin: origin::Watch,
    routes: route::Watch,
    ticks: u32,
    /// The health of each zone when it was last logged.
    health: Vec<u8>,
    /// Why the upstreams of an earlier resolv.conf are used.
    lost_upstreams: Option<NoUpstreams>,
}

/// What reaches the loop.
struct Inboxes {
    /// From the answering threads and the control socket.
    events: mpsc::Receiver<Event>,
    /// From TCP connections, apart so that they take no room from UDP.
    stream_events: mpsc::Receiver<Event>,
    replies: mpsc::Receiver<Reply>,
}

/// Why the loop woke up.
enum Woken {
    Event(Event),
    StreamEvent(Event),
    Reply(Reply),
    Time,
    Tick,
    Asked(Asked),
}

impl Server {
    async fn turn_until_stopped(
        &mut self,
        config_file: &Path,
        signals: &mut Signals,
        Inboxes { mut events, mut stream_events, mut replies }: Inboxes,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut alarm = Alarm::new();
        loop {
            alarm.set(self.resolver.next_wakeup(), self.clock.now());
            let woken = tokio::select! {
                Some(reply) = replies.recv() => Woken::Reply(reply),
                Some(event) = events.recv() => Woken::Event(event),
                Some(event) = stream_events.recv() => Woken::StreamEvent(event),
                () = alarm.sleep.as_mut() => Woken::Time,
                _ = tick.tick() => Woken::Tick,
                asked = signals.next() => Woken::Asked(asked),
            };
            match woken {
                Woken::Reply(reply) => self.on_replies(reply, &mut replies),
                Woken::Event(event) => {
                    self.on_event(event);
                    for event in iter::from_fn(|| events.try_recv().ok()).take(TURN_MAX) {
                        self.on_event(event);
                    }
                }
                Woken::StreamEvent(event) => {
                    self.on_event(event);
                    for event in iter::from_fn(|| stream_events.try_recv().ok()).take(STREAM_TURN_MAX) {
                        self.on_event(event);
                    }
                }
                Woken::Time => {
                    alarm.rang();
                    // Answers that have arrived count before their deadlines do.
                    match replies.try_recv() {
                        Ok(reply) => self.on_replies(reply, &mut replies),
                        Err(_) => self.resolver.on_wakeup(self.clock.now()),
                    }
                }
                Woken::Tick => self.on_tick(),
                Woken::Asked(Asked::Stop) => return,
                Woken::Asked(Asked::Reload) => self.reload(config_file),
            }
            self.carry_out();
            self.log_health();
            self.log_guard();
        }
    }

    /// Handles a reply and others that are already in the queue.
    fn on_replies(&mut self, first: Reply, others: &mut mpsc::Receiver<Reply>) {
        let mut now = self.clock.now();
        for reply in iter::once(first).chain(iter::from_fn(|| others.try_recv().ok()).take(TURN_MAX)) {
            now = self.clock.now();
            if let Some(forged) = reply.forged {
                self.resolver.on_forged(&forged.upstream, forged.packets, now);
            }
            match reply.message {
                Ok(message) => self.resolver.on_reply(reply.try_id, &message, now),
                Err(error) => self.resolver.on_error(reply.try_id, error, now),
            }
        }
        // The replies may call for a probe at once.
        self.resolver.on_wakeup(now);
    }

    fn on_event(&mut self, event: Event) {
        let now = self.clock.now();
        match event {
            Event::Query(client, packet) => {
                let outcome = self.resolver.on_query(&packet, client, Transport::Udp, now, &mut self.out);
                if let (Outcome::Reply, Client::Datagram { socket, peer }) = (outcome, client) {
                    self.datagrams.send(socket, peer, &self.out);
                }
            }
            Event::Refresh(key) => self.resolver.on_refresh_wanted(Some(&key), now),
            Event::Frozen(key, queries) => self.resolver.on_frozen(&key, queries, now),
            Event::StreamOpened(id, answers) => drop(self.streams.insert(id, answers)),
            Event::StreamClosed(id) => drop(self.streams.remove(&id)),
            Event::Checked(check, accepting) => self.resolver.on_checked(&check, accepting, now),
            Event::StreamQuery(id, packet) => {
                let outcome =
                    self.resolver.on_query(&packet, Client::Stream(id), Transport::Tcp, now, &mut self.out);
                let answer = match outcome {
                    Outcome::Reply => self.out.clone(),
                    Outcome::Drop => Vec::new(),
                    Outcome::Wait => return,
                };
                if let Some(stream) = self.streams.get(&id) {
                    stream.send(answer);
                }
            }
            Event::Question(question) => {
                self.take_tally();
                question.answer(&mut self.resolver, now, clock::wall());
            }
        }
    }

    /// Carries out what the core decided.
    fn carry_out(&mut self) {
        self.resolver.publish_zones();
        let now = self.clock.now();
        while let Some(send) = self.resolver.poll_send() {
            if !self.resolver.pretend(&send, now) {
                self.upstreams.start(send);
            }
        }
        while let Some(check) = self.resolver.poll_check() {
            let to_loop = self.to_loop.clone();
            tokio::spawn(async move {
                let accepting = tcp_check::run(&check).await;
                // The loop is gone only when the process ends.
                let _ = to_loop.send(Event::Checked(check, accepting)).await;
            });
        }
        while let Some((client, answer)) = self.resolver.poll_reply() {
            match client {
                Client::Datagram { socket, peer } => {
                    self.datagrams.send(socket, peer, &answer);
                }
                Client::Stream(id) => {
                    if let Some(stream) = self.streams.get(&id) {
                        stream.send(answer);
                    }
                }
            }
        }
        while let Some(entry) = self.resolver.poll_learned() {
            let key = entry.key();
            let Some((_, dnssec_ok, checking_disabled)) = name::read_key(&key) else { continue };
            self.writer.remember(&Learned {
                at: self.clock.boot_time(entry.learned()),
                dnssec_ok,
                checking_disabled,
                uses: u16::try_from(entry.popularity()).unwrap_or(u16::MAX),
                good_for: entry.good_since().map_or(Duration::ZERO, |since| entry.learned().since(since)),
                message: entry.kept().message,
            });
        }
        while let Some(key) = self.resolver.poll_forgotten() {
            self.writer.forget(self.clock.boot_time(self.clock.now()), &key);
        }
    }

    /// Logs each change of a zone's upstream health once.
    fn log_health(&mut self) {
        let zones = self.resolver.zones();
        if zones.iter().map(Zone::health_number).eq(self.health.iter().copied()) {
            return;
        }
        self.health = zones.iter().map(Zone::health_number).collect();
        let now = self.clock.now();
        let Some(sensor) = self.resolver.sensors(now, clock::wall()).into_iter().next() else { return };
        match sensor.state {
            0 => tracing::info!("{}", sensor.text),
            1 => tracing::warn!("{}", sensor.text),
            _ => tracing::error!("{}", sensor.text),
        }
        systemd::status(&sensor.text);
    }

    /// Logs the events of the guards.
    fn log_guard(&mut self) {
        while let Some((zone, event)) = self.resolver.poll_guard_event() {
            match event {
                guard::Event::TripStarted { .. } => tracing::error!(zone, "{event}"),
                guard::Event::UpstreamLies { .. }
                | guard::Event::Rebinding { .. }
                | guard::Event::Changed { believed: false, .. } => {
                    tracing::warn!(zone, "{event}");
                }
                guard::Event::TripEnded { .. }
                | guard::Event::Moved { .. }
                | guard::Event::Changed { .. }
                | guard::Event::Shrunk { .. } => tracing::info!(zone, "{event}"),
            }
        }
    }

    /// Collects the counters of the answering threads.
    fn take_tally(&mut self) {
        for tally in [self.datagrams.look(), self.stream_thread.look()] {
            self.refused_clients += tally.refused_clients;
            self.resolver.on_tally(&tally, self.clock.now());
        }
    }

    fn on_tick(&mut self) {
        let now = self.clock.now();
        let unseen = self.gaps.look(Anchor::now());
        if !unseen.is_zero() {
            tracing::warn!(
                "the wall clock jumped ahead by {} s: this machine was paused, or its clock was set; all cached \
                names will be refreshed",
                unseen.as_secs()
            );
            self.resolver.on_unseen_time(unseen, now);
        }
        self.take_tally();
        self.resolver.on_wakeup(now);
        self.ticks = self.ticks.wrapping_add(1);
        metrics::publish(&self.resolver, self.refused_clients, self.writer.counts());
        if self.ticks.is_multiple_of(TICKS_PER_WALK) {
            metrics::publish_masking(&self.resolver.masking(now));
            metrics::publish_guard(&self.resolver, now);
            self.watch_routes(now);
            if matches!(self.config.upstreams, UpstreamSource::ResolvConf(_)) {
                self.take_settings(true, now);
            }
        }
        self.note_origin(now);
        systemd::alive();
    }

    /// While upstreams are down, a change of the network is a reason to try them at once.
    fn watch_routes(&mut self, now: Moment) {
        let upstreams = self.resolver.zones().iter().flat_map(|zone| zone.group().all());
        if self.routes.look(upstreams.map(|upstream| upstream.endpoint.address)) {
            tracing::info!("the network has changed: upstreams that are down are probed again soon");
            self.resolver.on_network_change(now);
        }
    }

    /// Stores which upstreams the answers in the snapshot came from.
    fn note_origin(&mut self, now: Moment) {
        if let Some(origin) = self.origin.look(self.resolver.zones(), now) {
            self.writer.note_origin(origin);
        }
    }

    /// Applies a new config if it is valid; otherwise keeps the running one and logs the errors.
    /// Addresses, paths and threads need a restart.
    fn reload(&mut self, config_file: &Path) {
        match Config::load(config_file) {
            Ok(config) => {
                let fixed = (config.listen != self.config.listen)
                    || config.threads != self.config.threads
                    || config.state_dir != self.config.state_dir
                    || config.control_socket != self.config.control_socket
                    || config.metrics != self.config.metrics;
                if fixed {
                    tracing::warn!(
                        "listen addresses, metrics address, paths and threads take effect only after a restart"
                    );
                }
                let (listen, metrics) = (self.config.listen.clone(), self.config.metrics);
                let same_source = config.upstreams == self.config.upstreams;
                self.config = Config { listen, metrics, ..config };
                self.take_settings(same_source, self.clock.now());
                tracing::info!("config reloaded; the cache is unchanged");
            }
            Err(problems) => {
                tracing::error!("config not reloaded, the running config is unchanged:\n{problems}");
            }
        }
    }

    /// If the upstreams come from the same resolv.conf as before and it has none now, the old ones
    /// stay: a file that is being replaced, or lost, must not end name resolution.
    fn take_settings(&mut self, same_source: bool, now: Moment) {
        let mut settings = self.config.settings();
        let before = self.resolver.zones().iter().find(|zone| zone.is_root());
        let before = before.map(|zone| zone.settings().upstreams.clone()).unwrap_or_default();
        let lost = settings.no_upstreams.take_if(|_| same_source && !before.is_empty());
        if lost.is_some() {
            settings.upstreams = before;
        }
        match (&lost, &self.lost_upstreams) {
            (Some(lost), None) => tracing::warn!("{}; the upstreams it had stay in use", lost.why),
            (None, Some(_)) => tracing::info!("resolv.conf has name servers again"),
            _ => {}
        }
        self.lost_upstreams = lost;
        self.allow.write().clone_from(&self.config.allow);
        self.resolver.set(settings, now);
        let asked = self.resolver.zones().iter().flat_map(|zone| &zone.settings().upstreams);
        self.upstreams.keep_only(&asked.collect::<Vec<_>>());
    }
}

/// One timer, reset only when the core's next wake-up changes; cache hits do not change it.
struct Alarm {
    sleep: std::pin::Pin<Box<Sleep>>,
    set_to: Option<Moment>,
}

impl Alarm {
    fn new() -> Self {
        Self { sleep: Box::pin(sleep_until(far_away())), set_to: None }
    }

    fn set(&mut self, wanted: Option<Moment>, now: Moment) {
        if self.set_to == wanted {
            return;
        }
        self.set_to = wanted;
        let at = wanted.map_or_else(far_away, |moment| tokio_now() + now.until(moment));
        self.sleep.as_mut().reset(at);
    }

    fn rang(&mut self) {
        // Reset it even for the same moment: the machine may have been suspended.
        self.set_to = None;
        self.sleep.as_mut().reset(far_away());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tokio's timers take tokio's instants; no decision rests on this one"
)]
fn tokio_now() -> Instant {
    Instant::now()
}

fn far_away() -> Instant {
    tokio_now() + Duration::from_hours(24)
}
