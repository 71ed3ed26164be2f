//! The bounds of every listener: what strangers may use of a daemon.
//!
//! | bound | against |
//! | --- | --- |
//! | [`Bounds::connections`], [`Bounds::share`] | many callers, or one, that use up descriptors and memory |
//! | [`Bounds::handshake`] | a TLS handshake that never ends |
//! | [`Bounds::head`] | a request head that arrives byte by byte, and an idle connection |
//! | [`Bounds::life`], [`Bounds::last_answer`] | a connection that never ends, a caller that does not read |
//! | [`Bounds::body`], [`Bodies`] | bodies that are held half-sent |
//! | [`DESCRIPTORS_RESERVED`] | listeners that leave no descriptor for files, mail and upstreams |
//!
//! A share belongs to one user of a unix socket, to one IPv4 address, or to one IPv6 /64. If a
//! share or all places are taken, the connection that has been idle for longest gives way to the
//! new one; first those that never sent a whole request. So callers behind one address, or an
//! attacker among them, cannot keep the others out by doing nothing. If no connection is idle, the
//! new one is closed.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Notify;

/// The bounds of one listener.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// For people, and for the table in docs/security.md.
    pub listener: &'static str,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once of one user or address.
    pub share: usize,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// From the start of a connection, or the end of an answer, to the end of the next head.
    pub head: Duration,
    /// After this time the answer under way is the last one.
    pub life: Duration,
    /// How long that last answer may take, unless its handler asked for more time ([`Life`]).
    pub last_answer: Duration,
    /// Bytes of one body.
    pub body: usize,
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// Small pages and small requests of local users.
const LOCAL: Bounds = Bounds {
    listener: "",
    connections: 128,
    share: 32,
    handshake: SECOND.saturating_mul(10),
    head: SECOND.saturating_mul(10),
    life: MINUTE.saturating_mul(2),
    last_answer: MINUTE,
    body: 64 << 10,
};

/// Every local user has the same address there, so a share would exclude nobody.
const METRICS: Bounds = Bounds {
    connections: 64,
    share: 64,
    life: MINUTE,
    last_answer: SECOND.saturating_mul(10),
    body: 0,
    ..LOCAL
};

pub const AGENT_METRICS: Bounds = Bounds { listener: "agent: metrics", ..METRICS };
pub const AGENT_SOCKET: Bounds = Bounds { listener: "agent: socket", ..LOCAL };
pub const DNS_METRICS: Bounds = Bounds { listener: "dns: metrics", ..METRICS };
pub const DNS_CONTROL: Bounds = Bounds { listener: "dns: control socket", ..LOCAL };
pub const ALERTD_METRICS: Bounds = Bounds { listener: "alertd: metrics", ..METRICS };
/// A whole fleet can be behind one user of the socket, and a test message takes a while.
pub const ALERTD_SOCKET: Bounds =
    Bounds { listener: "alertd: socket", connections: 1_024, share: 512, body: 1 << 20, ..LOCAL };
/// A whole fleet can be behind one address.
pub const ALERTD_API: Bounds = Bounds {
    listener: "alertd: API over TCP",
    connections: 2_048,
    share: 1_024,
    head: SECOND.saturating_mul(30),
    life: MINUTE.saturating_mul(5),
    body: 1 << 20,
    ..LOCAL
};
/// Behind a reverse proxy, all visitors have one address.
pub const ALERTD_WEB: Bounds = Bounds {
    listener: "alertd: web page",
    connections: 128,
    share: 128,
    life: SECOND.saturating_mul(20),
    last_answer: SECOND.saturating_mul(20),
    body: 1_024,
    ..LOCAL
};

/// All listeners that speak HTTP. DNS over TCP has its own bounds (`serve/stream.rs` of the cache).
pub const ALL: [Bounds; 8] = [
    AGENT_METRICS,
    AGENT_SOCKET,
    DNS_METRICS,
    DNS_CONTROL,
    ALERTD_METRICS,
    ALERTD_SOCKET,
    ALERTD_API,
    ALERTD_WEB,
];

/// All listeners of a process together leave this many descriptors, or half of its limit if that is
/// less, for everything else: spool, store, mail, secrets, upstreams, plugins.
pub const DESCRIPTORS_RESERVED: usize = 1_024;

/// Bytes of bodies in memory at once, over all listeners of a process.
pub const BODIES_TOTAL: usize = 32 << 20;
/// Of these, bytes of one user or address.
pub const BODIES_SHARE: usize = 8 << 20;
/// Callers with no more than this get room beyond the total, so that a few that use it up cannot
/// keep heartbeats out.
pub const BODIES_SMALL: usize = 256 << 10;
const BODIES_ROOM: usize = BODIES_TOTAL / 4;

/// Who a connection counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    Uid(u32),
    Network(IpAddr),
}

impl Who {
    pub fn of_address(address: IpAddr) -> Self {
        Self::Network(network(address))
    }
}

/// The addresses that count as one caller: an IPv4 address, or an IPv6 /64, which is the least that
/// a site gets (RFC 6177).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & (u128::MAX << 64))),
        four @ IpAddr::V4(_) => four,
    }
}

/// The places of one listener.
#[derive(Debug)]
pub struct Places {
    bounds: Bounds,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// In the order of arrival.
    by_number: BTreeMap<u64, Seat>,
    counts: HashMap<Who, usize>,
    /// Counts arrivals and answers: the order in which connections became idle.
    tick: u64,
}

#[derive(Debug)]
struct Seat {
    who: Who,
    /// Requests being answered.
    busy: usize,
    /// Never gives way.
    protected: bool,
    /// Whether it had an answer already.
    served: bool,
    idle_since: u64,
    leave: Arc<Notify>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    number: u64,
    leave: Arc<Notify>,
    _descriptor: Descriptor,
}

impl Places {
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, taken: Mutex::default() })
    }

    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Takes a place for a new connection. `None`: close it, there is no place and nobody is idle.
    pub fn enter(self: &Arc<Self>, who: Who) -> Option<Place> {
        let mut taken = self.lock();
        if taken.counts.get(&who).is_some_and(|count| *count >= self.bounds.share) {
            taken.make_room(Some(who)).then_some(())?;
        } else if taken.by_number.len() >= self.bounds.connections {
            taken.make_room(None).then_some(())?;
        }
        let descriptor = if let Some(descriptor) = Descriptor::take() {
            descriptor
        } else {
            taken.make_room(None).then_some(())?;
            // The one that leaves gives its descriptor back soon.
            Descriptor::take_anyway()
        };
        let number = taken.tick;
        taken.tick += 1;
        *taken.counts.entry(who).or_default() += 1;
        let leave = Arc::new(Notify::new());
        let seat = Seat {
            who,
            busy: 0,
            protected: false,
            served: false,
            idle_since: number,
            leave: Arc::clone(&leave),
        };
        taken.by_number.insert(number, seat);
        Some(Place { places: Arc::clone(self), number, leave, _descriptor: descriptor })
    }

    /// Connections at the moment.
    pub fn count(&self) -> usize {
        self.lock().by_number.len()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Asks the connection to leave that has been idle for longest: any, or one of this caller.
    fn make_room(&mut self, of: Option<Who>) -> bool {
        let idle = self.by_number.iter().filter(|(_, seat)| seat.busy == 0 && !seat.protected);
        let idle = idle.filter(|(_, seat)| of.is_none_or(|who| seat.who == who));
        let Some(number) = idle.min_by_key(|(_, seat)| (seat.served, seat.idle_since)).map(|(n, _)| *n)
        else {
            return false;
        };
        if let Some(seat) = self.remove(number) {
            seat.leave.notify_one();
        }
        true
    }

    fn remove(&mut self, number: u64) -> Option<Seat> {
        let seat = self.by_number.remove(&number)?;
        if let Some(count) = self.counts.get_mut(&seat.who) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&seat.who);
            }
        }
        Some(seat)
    }
}

impl Place {
    /// A request is being answered until the returned value is dropped.
    pub fn begin(&self) -> Busy {
        if let Some(seat) = self.places.lock().by_number.get_mut(&self.number) {
            seat.busy += 1;
        }
        Busy { places: Arc::clone(&self.places), number: self.number }
    }

    /// Its answer takes long: it does not give way.
    pub fn protect(&self) {
        if let Some(seat) = self.places.lock().by_number.get_mut(&self.number) {
            seat.protected = true;
        }
    }

    /// Waits until the place is needed for somebody else.
    pub async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(self.number);
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Busy {
    places: Arc<Places>,
    number: u64,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.tick += 1;
        let tick = taken.tick;
        if let Some(seat) = taken.by_number.get_mut(&self.number) {
            seat.busy -= 1;
            (seat.served, seat.idle_since) = (true, tick);
        }
    }
}

/// Descriptors that connections of strangers use, in the whole process.
static IN_USE: AtomicUsize = AtomicUsize::new(0);
/// How many they may use.
static FOR_STRANGERS: LazyLock<usize> = LazyLock::new(|| {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Many daemons raise it; what keeps it low by default is select(2), which we do not use.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    limit - DESCRIPTORS_RESERVED.min(limit / 2)
});

/// A descriptor of a stranger's connection, for listeners of any kind. Counts until it is dropped.
#[derive(Debug)]
pub struct Descriptor(());

impl Descriptor {
    /// `None`: the rest is reserved.
    pub fn take() -> Option<Self> {
        let taken = Self::take_anyway();
        (IN_USE.load(Relaxed) <= *FOR_STRANGERS).then_some(taken)
    }

    fn take_anyway() -> Self {
        IN_USE.fetch_add(1, Relaxed);
        Self(())
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        IN_USE.fetch_sub(1, Relaxed);
    }
}

/// The bytes of bodies that are in memory: being received, or waiting for their answer.
#[derive(Debug, Default)]
pub struct Bodies(Mutex<BodyBytes>);

#[derive(Debug, Default)]
struct BodyBytes {
    all: usize,
    by: HashMap<Who, usize>,
}

/// The bytes of one body, given back when this is dropped.
#[derive(Debug)]
pub struct Held {
    bodies: Arc<Bodies>,
    who: Who,
    bytes: usize,
}

impl Bodies {
    pub fn hold(self: &Arc<Self>, who: Who) -> Held {
        Held { bodies: Arc::clone(self), who, bytes: 0 }
    }

    /// Bytes at the moment.
    pub fn bytes(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Held {
    /// Counts more bytes. False: there is no room for them.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let mut held = self.bodies.0.lock().unwrap_or_else(PoisonError::into_inner);
        let share = held.by.get(&self.who).copied().unwrap_or_default() + bytes;
        let total = if share <= BODIES_SMALL { BODIES_TOTAL + BODIES_ROOM } else { BODIES_TOTAL };
        if share > BODIES_SHARE || held.all + bytes > total {
            return false;
        }
        held.all += bytes;
        held.by.insert(self.who, share);
        self.bytes += bytes;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.bodies.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= self.bytes;
        if let Some(share) = held.by.get_mut(&self.who) {
            *share -= self.bytes;
            if *share == 0 {
                held.by.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Who = Who::Uid(1);
    const EVE: Who = Who::Uid(666);

    fn places(connections: usize, share: usize) -> Arc<Places> {
        Places::new(Bounds { connections, share, ..AGENT_SOCKET })
    }

    async fn must_leave(place: &Place) -> bool {
        tokio::select! {
            biased;
            () = place.asked_to_leave() => true,
            () = std::future::ready(()) => false,
        }
    }

    /// S9 and F6.
    #[tokio::test]
    async fn the_longest_idle_of_a_full_share_gives_way_and_no_other_caller_notices() {
        let places = places(10, 2);
        let ann = places.enter(ANN).unwrap();
        let (first, second) = (places.enter(EVE).unwrap(), places.enter(EVE).unwrap());
        drop(first.begin());
        let third = places.enter(EVE).unwrap();
        assert!(must_leave(&second).await, "the first had an answer already");
        assert!(!must_leave(&first).await && !must_leave(&ann).await);
        drop(places.enter(EVE).unwrap());
        assert!(must_leave(&third).await);
        assert_eq!(places.count(), 2, "who was asked to leave does not count");
    }

    /// S1: half requests never keep a whole one out.
    #[tokio::test]
    async fn when_all_places_are_taken_the_longest_idle_gives_way() {
        let places = places(4, 4);
        let busy = places.enter(ANN).unwrap();
        let request = busy.begin();
        let idle: Vec<_> = (0..100).filter_map(|_| places.enter(EVE)).collect();
        assert_eq!((idle.len(), places.count()), (100, 4));
        assert!(!must_leave(&busy).await, "an answer is under way");
        assert!(must_leave(&idle[96]).await && !must_leave(&idle[97]).await);
        drop(request);
        let _served = places.enter(EVE).unwrap();
        assert!(!must_leave(&busy).await, "those that never asked anything leave first");
    }

    #[test]
    fn when_nobody_is_idle_a_new_connection_is_closed() {
        let places = places(2, 2);
        let (one, two) = (places.enter(ANN).unwrap(), places.enter(ANN).unwrap());
        let busy = one.begin();
        two.protect();
        assert!(places.enter(EVE).is_none() && places.enter(ANN).is_none());
        drop(busy);
        assert!(places.enter(EVE).is_some());
    }

    /// S8, with its numbers: a thousand bodies of 1 MiB from four addresses.
    #[test]
    fn half_sent_bodies_are_bounded_and_heartbeats_still_have_room() {
        let bodies = Arc::new(Bodies::default());
        let mut held = Vec::new();
        for number in 0..1_000_u32 {
            let mut body =
                bodies.hold(Who::Network(IpAddr::from([192, 0, 2, u8::try_from(number % 4).unwrap()])));
            for _ in 0..16 {
                if !body.grow(64 << 10) {
                    break;
                }
            }
            held.push(body);
        }
        assert_eq!(bodies.bytes(), BODIES_TOTAL);
        let mut beats: Vec<_> = (0..200).map(|uid| bodies.hold(Who::Uid(uid))).collect();
        assert!(beats.iter_mut().all(|beat| beat.grow(4_000)));
        assert!(!bodies.hold(Who::Uid(999)).grow(1 << 20));
        drop((held, beats));
        assert_eq!(bodies.bytes(), 0);
        assert!(bodies.0.lock().unwrap().by.is_empty());
    }

    #[test]
    fn addresses_of_one_site_count_as_one_caller() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    /// Every listener of every daemon: in the table of the docs, with bounds that are bounds. The
    /// sources show the listeners: a file that binds a socket is listed here with what bounds it.
    #[test]
    fn every_listener_has_bounds() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let docs = std::fs::read_to_string(format!("{root}/docs/security.md")).unwrap();
        for bounds in ALL {
            let Bounds { listener, connections, share, head, life, .. } = bounds;
            assert!((1..=4_096).contains(&connections) && (1..=connections).contains(&share), "{listener}");
            assert!(head <= MINUTE && life <= 10 * MINUTE && bounds.body <= 1 << 20, "{listener}");
            let row = format!(
                "| {listener} | {connections} | {share} | {} s | {} s | {} KiB |",
                head.as_secs(),
                life.as_secs(),
                bounds.body.div_ceil(1024)
            );
            assert!(docs.contains(&row), "docs/security.md lacks the row\n{row}");
        }
        let bound_by = [
            ("agent/daemon/src/tcp_http.rs", "Bounds"),
            ("agent/daemon/src/unix_http.rs", "Bounds"),
            // DNS over UDP and TCP, with limits of its own.
            ("agent/dns/src/serve/server.rs", "Streams"),
            ("agent/dns/src/serve/stream.rs", "CONNECTIONS_MAX"),
        ];
        let mut found = Vec::new();
        for folder in ["agent", "alertd"] {
            listeners_below(&format!("{root}/{folder}").into(), &mut found);
        }
        for file in found {
            let known = bound_by.iter().find(|(known, _)| file.ends_with(known));
            let Some((_, by)) = known else { panic!("{file:?} opens a listener without bounds") };
            assert!(std::fs::read_to_string(&file).unwrap().contains(by), "{file:?} no longer uses {by}");
        }
    }

    /// Files that open a listener outside their tests.
    fn listeners_below(folder: &std::path::PathBuf, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["tests", "testing", "examples", "target"].contains(&&*name) {
                    listeners_below(&path, found);
                }
                continue;
            }
            if path.extension().is_none_or(|end| end != "rs") || name.contains("tests") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let is_tests =
                |part: &&str| part.trim_start().split('\n').next().is_some_and(|line| line.contains("mod "));
            let mut parts = text.split("#[cfg(test)]");
            let first = parts.next().unwrap_or_default();
            let code: String = [first].into_iter().chain(parts.take_while(|part| !is_tests(part))).collect();
            // `Signals::listen` and the like have no dot.
            let opens = ["TcpListener::bind", "UnixListener::bind", "TcpListener::from_std", ".listen("];
            if opens.iter().any(|call| code.contains(call)) {
                found.push(path);
            }
        }
    }
}
