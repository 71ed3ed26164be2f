//! DNS over TCP (RFC 7766): pipelining and out-of-order answers, with limits on connections, idle
//! time, queries in flight and bytes.
//!
//! All connections share one thread, which answers cache hits itself; only misses reach the core,
//! through a queue of their own, so that no number of pipelined queries takes the core from UDP.
//!
//! When a connection has [`UNDER_WAY_MAX`] queries in flight, it is not read until some are
//! answered, so every answer has room in the queue. Nor is it read while 128 KiB of
//! answers wait for a client that does not read them; if more come from the core, it is closed. A
//! connection is idle when nothing is in flight and nothing arrives. A client that half-closes the
//! connection still gets its answers. A client that sends or reads too slowly is disconnected. When
//! a user or an address has its share of the places, or all are taken, [`Places`] says which
//! connection gives way to a new one.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use dogwatch_daemon::bounds::Who;
use dogwatch_dns_core::{
    message::{name::Key, reply::Transport},
    policy::StaleReason,
    resolver::{
        Tally,
        hit::{Hit, Odd, Reader},
    },
};
use parking_lot::{Mutex, RwLock};
use socket2::SockRef;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, Semaphore, mpsc},
    time::timeout,
};

use crate::{
    clock::Clock,
    config::Prefix,
    serve::{
        answers::{Answer, Answers, room_for},
        counters::{Counters, add_one},
        event::Event,
        owner,
        places::Places,
    },
};

/// Time limits for a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Between queries, with nothing in flight.
    idle: Duration,
    /// The same while few places are free.
    idle_crowded: Duration,
    /// From the first byte of a query to its last.
    read: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            // RFC 7766 §6.2.3 leaves it to the server; Unbound and BIND use 10 s.
            idle: Duration::from_secs(10),
            idle_crowded: Duration::from_secs(1),
            read: Duration::from_secs(5),
        }
    }
}

/// Longer than any query is in flight (a flight ends after six seconds).
const UNDER_WAY: Duration = Duration::from_secs(7);
/// A client that does not read its answers is disconnected.
const WRITE: Duration = Duration::from_secs(5);
const CONNECTIONS_MAX: usize = 128;
/// Of one address, or of one user on this host.
const CONNECTIONS_SHARE: usize = 64;
/// Queries in flight on one connection, and answers waiting to be written.
const UNDER_WAY_MAX: u16 = 64;
/// The kernel's buffers of one connection, which count against the unit's memory too. Linux doubles
/// it, and would otherwise grow them to megabytes.
const SOCKET_BUFFER: usize = 64 << 10;
/// For names held by a trip: queries before the core is notified.
const FROZEN_TOLD: u16 = 8;

/// The thread that serves all TCP connections.
pub(crate) struct Streams {
    shared: Arc<Shared>,
    taken: Tally,
}

struct Shared {
    reader: Reader,
    clock: Clock,
    allow: Arc<RwLock<Vec<Prefix>>>,
    core: mpsc::Sender<Event>,
    patience: Patience,
    /// Who a connection counts for, by its two ends.
    owner: fn(SocketAddr, SocketAddr) -> Who,
    counters: Counters,
    connections: Mutex<Connections>,
}

struct Connections {
    next_id: u64,
    places: Places,
    /// Closes each.
    close: BTreeMap<u64, Arc<Notify>>,
}

impl Streams {
    /// Serves the listeners on a thread of their own until the process ends.
    pub(crate) fn start(
        listeners: Vec<StdTcpListener>,
        reader: Reader,
        clock: Clock,
        allow: Arc<RwLock<Vec<Prefix>>>,
        core: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(reader, clock, allow, core, Patience::default(), owner::of));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serving = Arc::clone(&shared);
        thread::Builder::new().name("streams".into()).spawn(move || {
            runtime.block_on(async {
                for listener in listeners {
                    match TcpListener::from_std(listener) {
                        Ok(listener) => drop(tokio::spawn(accept(listener, Arc::clone(&serving)))),
                        Err(error) => tracing::error!(%error, "cannot serve DNS over TCP"),
                    }
                }
                std::future::pending::<()>().await;
            });
        })?;
        Ok(Self { shared, taken: Tally::default() })
    }

    /// Returns the counts since the last call.
    pub(crate) fn look(&mut self) -> Tally {
        let mut total = Tally::default();
        self.shared.counters.add_to(&mut total);
        let news = total.less(&self.taken);
        self.taken = total;
        news
    }
}

impl Shared {
    fn new(
        reader: Reader,
        clock: Clock,
        allow: Arc<RwLock<Vec<Prefix>>>,
        core: mpsc::Sender<Event>,
        patience: Patience,
        owner: fn(SocketAddr, SocketAddr) -> Who,
    ) -> Self {
        let places = Places::new(CONNECTIONS_MAX, CONNECTIONS_SHARE);
        let connections = Mutex::new(Connections { next_id: 0, places, close: BTreeMap::new() });
        Self { reader, clock, allow, core, patience, owner, counters: Counters::default(), connections }
    }

    fn allows(&self, peer: SocketAddr) -> bool {
        self.allow.read().iter().any(|prefix| prefix.contains(peer.ip()))
    }

    /// A place for a new connection; another may have to give way.
    fn admit(&self, holder: Who) -> (u64, Arc<Notify>) {
        let (now, close) = (self.clock.now(), Arc::<Notify>::default());
        let mut connections = self.connections.lock();
        let id = connections.next_id;
        connections.next_id += 1;
        if let Some(victim) = connections.places.admit(id, holder, now)
            && let Some(close) = connections.close.remove(&victim)
        {
            close.notify_one();
        }
        connections.close.insert(id, Arc::clone(&close));
        (id, close)
    }

    fn leave(&self, id: u64) {
        let mut connections = self.connections.lock();
        connections.places.leave(id);
        connections.close.remove(&id);
    }

    fn on_active(&self, id: u64) {
        let now = self.clock.now();
        self.connections.lock().places.on_active(id, now);
    }

    fn idle(&self) -> Duration {
        let crowded = self.connections.lock().places.crowded();
        if crowded { self.patience.idle_crowded } else { self.patience.idle }
    }
}

/// Accepts connections forever.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if shared.allows(peer) => {
                let holder = match stream.local_addr() {
                    Ok(local) => (shared.owner)(peer, local),
                    Err(_) => Who::of_address(peer.ip()),
                };
                let (id, close) = shared.admit(holder);
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    serve(id, stream, &close, &shared).await;
                    shared.leave(id);
                });
            }
            Ok((_, peer)) => {
                tracing::debug!(%peer, "client not allowed");
                add_one(&shared.counters.refused_clients);
            }
            Err(error) => {
                // Most likely out of descriptors, which passes.
                tracing::warn!(%error, "cannot accept a TCP connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(id: u64, stream: TcpStream, close: &Arc<Notify>, shared: &Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(&stream);
    let _ = (socket.set_send_buffer_size(SOCKET_BUFFER), socket.set_recv_buffer_size(SOCKET_BUFFER));
    let (reader, writer) = stream.into_split();
    let (queue, waiting) = mpsc::channel(usize::from(UNDER_WAY_MAX));
    let answers = Answers::new(queue, Arc::clone(close));
    let places = Arc::new(Semaphore::new(usize::from(UNDER_WAY_MAX)));
    let mut client =
        Client { id, shared: Arc::clone(shared), answers, known: false, frozen: 0, out: Vec::new() };
    let mut write = tokio::spawn(write_all(id, writer, waiting, Arc::clone(&places), Arc::clone(shared)));
    tokio::select! {
        ended = client.read_all(reader, &places) => {
            if ended.is_ok() {
                // The client is done asking; when all permits are back, everything is answered.
                let _ = timeout(UNDER_WAY, places.acquire_many(u32::from(UNDER_WAY_MAX))).await;
            }
        }
        _ = &mut write => {}
        () = close.notified() => {}
    }
    write.abort();
    if client.known {
        let _ = shared.core.send(Event::StreamClosed(id)).await;
    }
}

/// The reading side of one connection.
struct Client {
    id: u64,
    shared: Arc<Shared>,
    answers: Answers,
    /// The core knows where its answers go.
    known: bool,
    /// Queries for frozen names of which the core has not been notified.
    frozen: u16,
    out: Vec<u8>,
}

impl Client {
    /// Returns `Ok` when the client closes its side, or is idle.
    async fn read_all(&mut self, reader: OwnedReadHalf, places: &Semaphore) -> io::Result<()> {
        let mut reader = BufReader::new(reader);
        loop {
            // A timeout in `fill_buf` loses no bytes.
            match timeout(self.shared.idle(), reader.fill_buf()).await {
                Ok(Ok([])) => return Ok(()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) if places.available_permits() < usize::from(UNDER_WAY_MAX) => continue,
                Err(_) => return Ok(()),
            }
            let packet = timeout(self.shared.patience.read, read_one(&mut reader)).await??;
            match places.acquire().await {
                Ok(place) => place.forget(),
                Err(_) => return Ok(()),
            }
            self.shared.on_active(self.id);
            if self.answer_here(&packet) {
                let message = std::mem::take(&mut self.out);
                // Waits until the client has read enough of the earlier ones.
                let Ok(room) = Arc::clone(&self.answers.bytes).acquire_many_owned(room_for(&message)).await
                else {
                    return Ok(());
                };
                let _ = self.answers.queue.send(Answer { message, _room: room }).await;
            } else if !self.pass_on(packet).await {
                return Ok(());
            }
        }
    }

    /// Puts the answer into `out`, if the cache has one; an empty one if there is nothing to say.
    fn answer_here(&mut self, packet: &[u8]) -> bool {
        let (shared, now) = (&self.shared, self.shared.clock.now());
        self.out.clear();
        let asked = match shared.reader.read(packet, &mut self.out) {
            Ok(asked) => asked,
            Err(odd) => {
                add_one(&shared.counters.unreadable);
                if odd == Odd::Dropped {
                    self.out.clear();
                }
                return true;
            }
        };
        match shared.reader.answer_over(&asked, Transport::Tcp, now, &mut self.out) {
            Hit::Fresh { refresh } => {
                add_one(&shared.counters.hits_fresh);
                self.ask_refresh(refresh);
            }
            Hit::Stale { reason, refresh } => {
                add_one(&shared.counters.hits_stale[reason as usize]);
                self.ask_refresh(refresh);
            }
            Hit::Frozen => {
                add_one(&shared.counters.hits_stale[StaleReason::HeldTrip as usize]);
                self.frozen = self.frozen.saturating_add(1);
                let key = || Key::of(&asked.query).as_bytes().into();
                if self.frozen >= FROZEN_TOLD
                    && shared.core.try_send(Event::Frozen(key(), self.frozen)).is_ok()
                {
                    self.frozen = 0;
                }
            }
            Hit::Miss => return false,
        }
        true
    }

    fn ask_refresh(&self, key: Option<Box<[u8]>>) {
        let Some(key) = key else { return };
        if let Err(error) = self.shared.core.try_send(Event::Refresh(key))
            && let Event::Refresh(key) = error.into_inner()
        {
            self.shared.reader.forget_refresh(&key);
        }
    }

    /// False if the core is gone.
    async fn pass_on(&mut self, packet: Vec<u8>) -> bool {
        let core = &self.shared.core;
        if !std::mem::replace(&mut self.known, true)
            && core.send(Event::StreamOpened(self.id, self.answers.clone())).await.is_err()
        {
            return false;
        }
        core.send(Event::StreamQuery(self.id, packet)).await.is_ok()
    }
}

async fn read_one(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let length = reader.read_u16().await?;
    let mut packet = vec![0; usize::from(length)];
    reader.read_exact(&mut packet).await?;
    Ok(packet)
}

/// An empty answer is not sent; it only frees its place.
async fn write_all(
    id: u64,
    mut writer: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Answer>,
    places: Arc<Semaphore>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    while let Some(answer) = queue.recv().await {
        if let Ok(length @ 1..) = u16::try_from(answer.message.len()) {
            let mut framed = Vec::with_capacity(answer.message.len() + 2);
            framed.extend(length.to_be_bytes());
            framed.extend(&answer.message);
            timeout(WRITE, writer.write_all(&framed)).await??;
            shared.on_active(id);
        }
        places.add_permits(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use dogwatch_dns_core::{
        message::{
            name::from_text,
            wire::{Question, write_query},
        },
        resolver::{Remembered, Resolver, Seeds},
        settings::Settings,
    };

    use super::*;
    use crate::serve::answers;

    /// A server whose misses are answered by the test.
    struct World {
        address: SocketAddr,
        events: mpsc::Receiver<Event>,
        answers: Option<Answers>,
        shared: Arc<Shared>,
        _resolver: Resolver,
    }

    /// Whoever runs the tests is one user.
    fn by_address(peer: SocketAddr, _: SocketAddr) -> Who {
        Who::of_address(peer.ip())
    }

    fn query(name: &str) -> Vec<u8> {
        let mut packet = Vec::new();
        let name = from_text(name).unwrap();
        write_query(&mut packet, 7, &Question { name: &name, kind: TXT, class: 1 }, false, false);
        packet
    }

    const TXT: u16 = 16;

    /// `large.example`: a TXT record set of almost 64 KiB.
    fn large() -> Vec<u8> {
        let question = query("large.example");
        let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(&question[12..question.len() - 11]);
        let records = 240_u8;
        message[7] = records;
        for number in 0..records {
            message.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 14, 16, 1, 0, 255]);
            message.extend([number; 255]);
        }
        message
    }

    impl World {
        async fn start(patience: Patience) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (sender, events) = mpsc::channel(256);
            let clock = Clock::start();
            let seeds = Seeds::repeatable(1, RandomState::new());
            let mut resolver = Resolver::new(Settings::default(), seeds, clock.now());
            assert!(resolver.restore(&Remembered::new(&large()), clock.now()));
            let allow = Arc::new(RwLock::new(vec!["127.0.0.0/8".parse().unwrap()]));
            let shared = Arc::new(Shared::new(resolver.reader(), clock, allow, sender, patience, by_address));
            tokio::spawn(accept(listener, Arc::clone(&shared)));
            Self { address, events, answers: None, shared, _resolver: resolver }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        /// The next query that the cache cannot answer.
        async fn question(&mut self) -> Vec<u8> {
            loop {
                match self.events.recv().await.unwrap() {
                    Event::StreamOpened(_, answers) => self.answers = Some(answers),
                    Event::StreamQuery(_, packet) => return packet,
                    _ => {}
                }
            }
        }

        fn answer(&self, packet: &[u8]) {
            self.answers.as_ref().unwrap().send(packet.to_vec());
        }

        async fn closed(&mut self) {
            while !matches!(self.events.recv().await.unwrap(), Event::StreamClosed(_)) {}
        }

        fn open(&self) -> usize {
            self.shared.connections.lock().close.len()
        }

        async fn until_open(&self, wanted: usize) {
            while self.open() != wanted {
                tokio::task::yield_now().await;
            }
        }
    }

    fn framed(packet: &[u8]) -> Vec<u8> {
        let mut framed = u16::try_from(packet.len()).unwrap().to_be_bytes().to_vec();
        framed.extend(packet);
        framed
    }

    async fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
        let mut packet = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut packet).await.unwrap();
        packet
    }

    #[tokio::test]
    async fn queries_are_pipelined_and_answered_out_of_order_even_after_a_half_close() {
        let mut world = World::start(Patience::default()).await;
        let mut client = world.connect().await;
        let [one, two, three] = ["one", "two", "three"].map(query);
        // Two and a half queries in one segment, the rest in another.
        client.write_all(&[framed(&one), framed(&two), vec![0]].concat()).await.unwrap();
        assert_eq!((world.question().await, world.question().await), (one, two));
        client.write_all(&framed(&three)[1..]).await.unwrap();
        assert_eq!(world.question().await, three);
        world.answer(b"2");
        assert_eq!(read_frame(&mut client).await, b"2");
        client.shutdown().await.unwrap();
        // No answer is sent, but the place is free again.
        world.answer(b"");
        world.answer(b"1");
        assert_eq!(read_frame(&mut client).await, b"1");
        world.closed().await;
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_connection_with_too_many_queries_in_flight_is_not_read_until_some_are_answered() {
        let mut world = World::start(Patience::default()).await;
        let mut client = world.connect().await;
        let name = |number: u16| query(&format!("n{number}.example"));
        for number in 0..=UNDER_WAY_MAX {
            client.write_all(&framed(&name(number))).await.unwrap();
        }
        for number in 0..UNDER_WAY_MAX {
            assert_eq!(world.question().await, name(number));
        }
        tokio::task::yield_now().await;
        assert!(world.events.try_recv().is_err(), "one too many");
        world.answer(b"0");
        assert_eq!(world.question().await, name(UNDER_WAY_MAX));
    }

    #[tokio::test]
    async fn idle_and_slow_clients_are_disconnected() {
        let short = Duration::from_millis(20);
        let world = World::start(Patience { idle: short, idle_crowded: short, read: short }).await;
        // Nothing; a length and then nothing, a slow-loris; half a length.
        for sent in [&[][..], &[0, 40, 1], &[0]] {
            let mut client = world.connect().await;
            client.write_all(sent).await.unwrap();
            assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
        }
        world.until_open(0).await;
    }

    /// D36: pipelined cached questions do not reach the core.
    #[tokio::test]
    async fn d36_cached_questions_are_answered_without_the_core() {
        let mut world = World::start(Patience::default()).await;
        let mut client = world.connect().await;
        let expected = large().len();
        for _ in 0..40 {
            client.write_all(&framed(&query("large.example"))).await.unwrap();
        }
        // Not a query, and one that is not supported.
        client.write_all(&framed(b"nonsense")).await.unwrap();
        for _ in 0..40 {
            let answer = read_frame(&mut client).await;
            assert!(answer.len() >= expected && answer[7] == 240, "{} bytes", answer.len());
        }
        assert!(world.events.try_recv().is_err(), "nothing for the core");
        let mut tally = Tally::default();
        world.shared.counters.add_to(&mut tally);
        assert_eq!((tally.hits_fresh, tally.unreadable), (40, 1));
    }

    /// D33: 64 questions for a cached answer of almost 64 KiB on each connection, never read.
    #[tokio::test]
    async fn d33_answers_that_nobody_reads_take_bounded_memory() {
        let world = World::start(Patience::default()).await;
        let mut clients = Vec::new();
        for _ in 0..8 {
            let mut client = world.connect().await;
            for _ in 0..64 {
                client.write_all(&framed(&query("large.example"))).await.unwrap();
            }
            clients.push(client);
        }
        // As much as fits is computed, and not more.
        let answered = || world.shared.counters.hits_fresh.load(std::sync::atomic::Ordering::Relaxed);
        let mut before = u64::MAX;
        while answered() != before {
            before = answered();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(answered() >= 8 * 2, "{}", answered());
        let kernel = u64::try_from(4 * SOCKET_BUFFER).unwrap() + (4 << 20);
        let most = 8 * (u64::from(answers::BYTES_MAX) + kernel) / 61_000 + 8 * 3;
        assert!(answered() < most.min(8 * 64), "{}", answered());
        // They all get their answers once they read.
        for client in &mut clients {
            for _ in 0..64 {
                read_frame(client).await;
            }
        }
    }

    /// D33, the same from the core: a client that does not read is disconnected.
    #[tokio::test]
    async fn d33_a_client_that_does_not_read_the_answers_of_the_core_is_disconnected() {
        let mut world = World::start(Patience::default()).await;
        let mut client = world.connect().await;
        for number in 0..UNDER_WAY_MAX {
            client.write_all(&framed(&query(&format!("n{number}.example")))).await.unwrap();
            world.question().await;
        }
        let answer = vec![1; 65_535];
        for _ in 0..UNDER_WAY_MAX {
            world.answer(&answer);
        }
        world.until_open(0).await;
        let room = world.answers.as_ref().unwrap().bytes.available_permits();
        assert_eq!(room, answers::BYTES_MAX as usize, "all given back");
    }

    /// S9: an address that holds all places keeps nobody out.
    #[tokio::test]
    async fn s9_four_hundred_idle_connections_of_one_address_take_nobody_dns_over_tcp() {
        let world = World::start(Patience::default()).await;
        let mut hostile = Vec::new();
        for _ in 0..400 {
            hostile.push(world.connect().await);
        }
        let from = tokio::net::TcpSocket::new_v4().unwrap();
        from.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = from.connect(world.address).await.unwrap();
        other.write_all(&framed(&query("large.example"))).await.unwrap();
        assert!(read_frame(&mut other).await.len() > 60_000);
        // And one from the same address gets in too.
        let mut same = world.connect().await;
        same.write_all(&framed(&query("large.example"))).await.unwrap();
        assert!(read_frame(&mut same).await.len() > 60_000);
        world.until_open(CONNECTIONS_SHARE + 1).await;
        for _ in 0..200 {
            hostile.push(world.connect().await);
        }
        other.write_all(&framed(&query("large.example"))).await.unwrap();
        assert!(read_frame(&mut other).await.len() > 60_000, "it was not the one to give way");
    }
}
