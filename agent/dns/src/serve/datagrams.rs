//! UDP from clients: threads answer from the cache and pass everything else to the core.
//!
//! Each thread waits on its own socket (a shared one if systemd passed it), receives a batch,
//! answers the cache hits at once, and sends the rest to the core over a bounded queue; the core
//! answers through the same sockets. If the queue is full, the query is dropped and counted, as on
//! a lossy network. A thread that panicked is restarted.

use std::{
    cell::Cell,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use dogwatch_dns_core::{
    message::name::Key,
    moment::Moment,
    policy::StaleReason,
    resolver::{
        Client, Tally,
        hit::{Asked, Hit, Odd, Reader},
    },
};
use parking_lot::RwLock;
use rustix::net::{SendFlags, sendto};
use tokio::sync::mpsc;

use crate::{
    clock::Clock,
    config::Prefix,
    serve::{
        batch::{BATCH, Batch},
        counters::{Counters, add_one},
        event::Event,
    },
};

/// How long a thread waits before it checks whether it should stop.
const WAIT: Duration = Duration::from_millis(250);

/// For names held by a trip: queries before the core is notified, and the minimum time between two
/// notifications. Rare queries still trigger an upstream query in time; a flood does not wake the
/// core for each query.
const FROZEN_TOLD: u16 = 8;
const FROZEN_GAP: Duration = Duration::from_millis(5);

/// With at least this many queries, their entries are prefetched from memory.
const WORTH_PREFETCH: usize = 3;

/// The threads and their sockets.
pub(crate) struct Datagrams {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    taken: Tally,
}

struct Shared {
    reader: Reader,
    clock: Clock,
    allow: Arc<RwLock<Vec<Prefix>>>,
    core: mpsc::Sender<Event>,
    stop: AtomicBool,
}

struct Thread {
    place: u16,
    socket: Arc<UdpSocket>,
    counters: Arc<Counters>,
    handle: Option<JoinHandle<()>>,
}

impl Datagrams {
    /// Starts a thread for each socket. The list may contain the same socket more than once.
    pub(crate) fn start(
        sockets: Vec<Arc<UdpSocket>>,
        reader: Reader,
        clock: Clock,
        allow: Arc<RwLock<Vec<Prefix>>>,
        core: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared { reader, clock, allow, core, stop: AtomicBool::new(false) });
        let mut threads = Vec::new();
        for (place, socket) in (0..).zip(sockets) {
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(WAIT))?;
            let mut thread = Thread { place, socket, counters: Arc::default(), handle: None };
            thread.spawn(&shared)?;
            threads.push(thread);
        }
        Ok(Self { shared, threads, taken: Tally::default() })
    }

    /// Sends an answer to a waiting client. Never blocks: if the send buffer is full, the answer is
    /// lost.
    pub(crate) fn send(&self, place: u16, peer: SocketAddr, answer: &[u8]) {
        if let Some(thread) = self.threads.get(usize::from(place)) {
            let _ = sendto(&*thread.socket, answer, SendFlags::DONTWAIT, &peer);
        }
    }

    /// Returns the counts since the last call, and restarts threads that have ended.
    pub(crate) fn look(&mut self) -> Tally {
        let stopping = self.shared.stop.load(Relaxed);
        for thread in self.threads.iter_mut().filter(|_| !stopping) {
            if thread.handle.as_ref().is_none_or(JoinHandle::is_finished) {
                tracing::error!(thread = thread.place, "an answering thread has died; restarting it");
                if let Err(error) = thread.spawn(&self.shared) {
                    tracing::error!(%error, "cannot start an answering thread; will retry in one second");
                }
            }
        }
        let mut total = Tally::default();
        self.threads.iter().for_each(|thread| thread.counters.add_to(&mut total));
        let news = total.less(&self.taken);
        self.taken = total;
        news
    }

    /// Stops the threads, within [`WAIT`]. Later packets stay in the sockets for the next process.
    pub(crate) fn stop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        for handle in self.threads.iter_mut().filter_map(|thread| thread.handle.take()) {
            // A panic is already in the log.
            let _ = handle.join();
        }
    }
}

impl Thread {
    fn spawn(&mut self, shared: &Arc<Shared>) -> io::Result<()> {
        let worker = Worker {
            place: self.place,
            socket: Arc::clone(&self.socket),
            counters: Arc::clone(&self.counters),
            shared: Arc::clone(shared),
            frozen: Cell::default(),
        };
        let name = format!("answer-{}", self.place);
        self.handle = Some(thread::Builder::new().name(name).spawn(move || worker.run())?);
        Ok(())
    }
}

struct Worker {
    place: u16,
    socket: Arc<UdpSocket>,
    counters: Arc<Counters>,
    shared: Arc<Shared>,
    frozen: Cell<Frozen>,
}

/// Queries of which the core has not been notified.
#[derive(Clone, Copy, Default)]
struct Frozen {
    queries: u16,
    told_at: Option<Moment>,
}

impl Worker {
    fn run(self) {
        let mut batch = Batch::new();
        let mut answers = vec![Vec::new(); BATCH];
        let mut answered = Vec::with_capacity(BATCH);
        while !self.shared.stop.load(Relaxed) {
            match batch.receive(&self.socket) {
                Ok(received) => {
                    self.answer(&batch, received, &mut answers, &mut answered);
                    batch.send(&self.socket, &answered, &answers);
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => {
                    tracing::debug!(%error, "cannot receive");
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    /// Fills `answered` with the indices of the queries whose answers can be sent now.
    fn answer(&self, batch: &Batch, received: usize, answers: &mut [Vec<u8>], answered: &mut Vec<usize>) {
        let now = self.shared.clock.now();
        let allow = self.shared.allow.read();
        answered.clear();
        if received < WORTH_PREFETCH {
            for (place, out) in answers.iter_mut().enumerate().take(received) {
                if let Some(asked) = self.read(&allow, batch, place, out, answered) {
                    self.look_up(&asked, batch, place, now, out, answered);
                }
            }
            return;
        }
        let mut asked = [const { None }; BATCH];
        for ((place, out), asked) in answers.iter_mut().enumerate().take(received).zip(&mut asked) {
            *asked = self.read(&allow, batch, place, out, answered);
        }
        self.shared.reader.prefetch(asked.iter().flatten());
        for ((place, out), asked) in answers.iter_mut().enumerate().zip(&asked) {
            if let Some(asked) = asked {
                self.look_up(asked, batch, place, now, out, answered);
            }
        }
    }

    /// Reads one packet; `None` if there is nothing to look up. An error answer may be in `out`
    /// then.
    fn read<'a>(
        &self,
        allow: &[Prefix],
        batch: &'a Batch,
        place: usize,
        out: &mut Vec<u8>,
        answered: &mut Vec<usize>,
    ) -> Option<Asked<'a>> {
        let (packet, peer) = batch.get(place)?;
        if !allow.iter().any(|prefix| prefix.contains(peer.ip())) {
            add_one(&self.counters.refused_clients);
            return None;
        }
        match self.shared.reader.read(packet, out) {
            Ok(asked) => Some(asked),
            Err(odd) => {
                add_one(&self.counters.unreadable);
                answered.extend((odd == Odd::Refused).then_some(place));
                None
            }
        }
    }

    fn look_up(
        &self,
        asked: &Asked<'_>,
        batch: &Batch,
        place: usize,
        now: Moment,
        out: &mut Vec<u8>,
        answered: &mut Vec<usize>,
    ) {
        let mut hit = self.shared.reader.answer(asked, now, out);
        if matches!(hit, Hit::Miss) {
            let Some((packet, peer)) = batch.get(place) else { return };
            let client = Client::Datagram { socket: self.place, peer };
            if self.shared.core.try_send(Event::Query(client, packet.into())).is_ok() {
                return;
            }
            // While a flood of misses fills the queue, cached names are still answered.
            hit = self.shared.reader.answer_overloaded(asked, now, out).unwrap_or(Hit::Miss);
        }
        match hit {
            Hit::Fresh { refresh } => {
                add_one(&self.counters.hits_fresh);
                answered.push(place);
                self.ask_refresh(refresh);
            }
            Hit::Stale { reason, refresh } => {
                add_one(&self.counters.hits_stale[reason as usize]);
                answered.push(place);
                self.ask_refresh(refresh);
            }
            Hit::Frozen => {
                add_one(&self.counters.hits_stale[StaleReason::HeldTrip as usize]);
                answered.push(place);
                self.tell_frozen(asked, now);
            }
            Hit::Miss => add_one(&self.counters.dropped),
        }
    }

    /// Notifies the core of queries for names held by a trip, so that it asks the upstream for
    /// some.
    fn tell_frozen(&self, asked: &Asked<'_>, now: Moment) {
        let Frozen { queries, told_at } = self.frozen.get();
        let queries = queries.saturating_add(1);
        let soon = told_at.is_some_and(|at| now.since(at) < FROZEN_GAP);
        let told = queries >= FROZEN_TOLD && !soon && {
            let key = Key::of(&asked.query).as_bytes().into();
            self.shared.core.try_send(Event::Frozen(key, queries)).is_ok()
        };
        self.frozen.set(if told {
            Frozen { queries: 0, told_at: Some(now) }
        } else {
            Frozen { queries, told_at }
        });
    }

    fn ask_refresh(&self, key: Option<Box<[u8]>>) {
        let Some(key) = key else { return };
        if let Err(error) = self.shared.core.try_send(Event::Refresh(key))
            && let Event::Refresh(key) = error.into_inner()
        {
            self.shared.reader.forget_refresh(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;
    use dogwatch_dns_core::{
        message::{
            name::from_text,
            reply::Transport,
            wire::{Question, rcode, write_query},
        },
        moment::Moment,
        resolver::{Remembered, Resolver, Seeds},
        settings::Settings,
    };

    fn query(name: &str) -> Vec<u8> {
        let name = from_text(name).unwrap();
        let mut packet = Vec::new();
        write_query(&mut packet, 7, &Question { name: &name, kind: 1, class: 1 }, false, false);
        packet
    }

    /// An address for a minute.
    fn answer(name: &str) -> Vec<u8> {
        let packet = query(name);
        let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        message.extend(&packet[12..packet.len() - 11]);
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        message
    }

    /// NXDOMAIN to an upstream query, with a SOA record of the root.
    fn denial(query: &[u8]) -> Vec<u8> {
        let mut message = query[..query.len() - 11].to_vec();
        (message[2], message[3]) = (0x81, 0x83);
        message[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        message.extend([0, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0]);
        message.extend([0; 16]);
        message.extend([0, 0, 0, 60]);
        message
    }

    /// Answers `known.example`, cached at `learned`; passes on the rest.
    fn start(learned: Moment, threads: usize) -> (Datagrams, Resolver, mpsc::Receiver<Event>, UdpSocket) {
        let clock = Clock::start();
        let seeds = Seeds::repeatable(1, RandomState::new());
        let mut resolver = Resolver::new(Settings::default(), seeds, clock.now());
        let message = answer("known.example");
        let now = clock.now();
        let remembered = Remembered { age: now.since(learned), ..Remembered::new(&message) };
        assert!(resolver.restore(&remembered, now));
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(socket.local_addr().unwrap()).unwrap();
        let (core, inbox) = mpsc::channel(4);
        let allow = Arc::new(RwLock::new(vec!["127.0.0.1".parse().unwrap()]));
        let sockets = vec![socket; threads];
        let datagrams = Datagrams::start(sockets, resolver.reader(), clock, allow, core).unwrap();
        (datagrams, resolver, inbox, client)
    }

    fn ask(client: &UdpSocket, packet: &[u8]) -> Vec<u8> {
        client.send(packet).unwrap();
        let mut buffer = [0; 512];
        let length = client.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn threads_answer_hits_pass_on_misses_and_stop_on_request() {
        let (mut datagrams, _resolver, mut inbox, client) = start(Moment::START, 2);
        let answer = ask(&client, &query("KNOWN.example"));
        assert_eq!((answer[3] & 15, answer[7]), (rcode::NOERROR, 1));
        assert_eq!(answer[12..19], b"\x05KNOWN\x07"[..], "the question in the client's case");
        // A response is dropped, two questions are a format error.
        let mut odd = query("known.example");
        odd[2] |= 0x80;
        client.send(&odd).unwrap();
        (odd[2], odd[5]) = (0, 2);
        assert_eq!(ask(&client, &odd)[3] & 15, rcode::FORMERR);
        client.send(&query("unknown.example")).unwrap();
        let Some(Event::Query(Client::Datagram { socket, peer }, packet)) = inbox.blocking_recv() else {
            panic!("not passed on")
        };
        assert_eq!((peer, &*packet), (client.local_addr().unwrap(), &*query("unknown.example")));
        datagrams.send(socket, peer, b"from the core");
        let mut buffer = [0; 64];
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..length], *b"from the core");
        datagrams.stop();
        let tally = datagrams.look();
        assert_eq!((tally.hits_fresh, tally.unreadable), (1, 2));
        assert_eq!(datagrams.look(), Tally::default(), "counted once");
    }

    #[test]
    fn while_the_queue_is_full_a_known_name_is_answered_stale_and_an_unknown_name_is_dropped() {
        // A second past its TTL: with healthy upstreams the core would ask them first.
        let (mut datagrams, _resolver, mut inbox, client) = start(Moment::START - Duration::from_secs(61), 1);
        for _ in 0..6 {
            client.send(&query("unknown.example")).unwrap();
        }
        let answer = ask(&client, &query("known.example"));
        assert_eq!((answer[3] & 15, answer[7]), (rcode::NOERROR, 1));
        assert!(answer.windows(10).any(|text| text == b"overloaded"), "the EDE text gives the reason");
        datagrams.stop();
        let tally = datagrams.look();
        assert_eq!((tally.dropped, tally.hits_stale[StaleReason::Overloaded as usize]), (2, 1));
        assert_eq!(std::iter::from_fn(|| inbox.try_recv().ok()).count(), 4, "the queue's length");
    }

    #[test]
    fn held_names_are_answered_at_once_and_the_core_is_notified_every_eighth_query_until_they_are_accepted() {
        let (mut datagrams, mut resolver, mut inbox, client) =
            start(Moment::START - Duration::from_secs(61), 1);
        let now = Moment::START;
        let upstreams = vec![SocketAddr::from(([192, 0, 2, 53], 53)).into()];
        resolver.set(Settings { upstreams, ..Settings::default() }, now);
        for name in ["a.one.test", "b.two.test", "c.three.test", "d.four.test", "e.five.test"] {
            let (age, good_for) = (Duration::from_secs(61), Duration::from_hours(1));
            resolver.restore(&Remembered { age, good_for, ..Remembered::new(&answer(name)) }, now);
            resolver.on_query(&query(name), Client::Stream(0), Transport::Udp, now, &mut Vec::new());
            let send = resolver.poll_send().expect("upstream is asked first");
            resolver.on_reply(send.try_id, &denial(&send.message), now);
        }
        assert_eq!(resolver.guard_holding(now).trips, 1);
        resolver.publish_zones();
        for _ in 0..20 {
            let answer = ask(&client, &query("known.example"));
            assert_eq!((answer[3] & 15, answer[7]), (rcode::NOERROR, 1));
            assert!(answer.windows(10).any(|text| text == b"many names"), "the EDE text gives the reason");
            thread::sleep(FROZEN_GAP / 4);
        }
        let mut told = Vec::new();
        while let Ok(Event::Frozen(key, queries)) = inbox.try_recv() {
            assert!(key.ends_with(&[0, 1, 0, 1, 0]));
            told.push(queries);
        }
        assert_eq!(told, [8, 8]);
        // Once the upstream's answers are accepted, queries go to the core.
        resolver.accept(&from_text("known.example").unwrap(), now).unwrap();
        resolver.publish_zones();
        client.send(&query("known.example")).unwrap();
        assert!(matches!(inbox.blocking_recv(), Some(Event::Query(..))));
        datagrams.stop();
        assert_eq!(datagrams.look().hits_stale[StaleReason::HeldTrip as usize], 20);
    }

    #[test]
    fn a_hit_near_expiry_requests_one_refresh_and_a_client_outside_allow_gets_no_answer() {
        // 58.5 of 60 seconds are over.
        let (mut datagrams, _resolver, mut inbox, client) =
            start(Moment::START - Duration::from_millis(58_500), 1);
        let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
        stranger.send_to(&query("known.example"), client.peer_addr().unwrap()).unwrap();
        for _ in 0..3 {
            ask(&client, &query("known.example"));
        }
        datagrams.stop();
        assert!(matches!(inbox.try_recv(), Ok(Event::Refresh(key)) if key.ends_with(&[0, 1, 0, 1, 0])));
        assert!(inbox.try_recv().is_err());
        let tally = datagrams.look();
        assert_eq!((tally.hits_fresh, tally.refused_clients), (3, 1));
    }
}
