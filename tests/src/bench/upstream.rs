//! The fake upstream of the benchmarks: fast, fails in many ways, and records what it received and
//! sent.
//!
//! It lives in threads of the benchmark itself, so that a mode begins at a known moment and its
//! counters are plain memory. Answers come from the name ([`super::names`]); negative answers carry
//! a SOA of 5 s, so that caches may keep them.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use serde::Serialize;

use super::{
    batch::{Batch, Kind},
    names::number_and_ttl,
    now, since_epoch,
    sockets::bound,
};
use crate::{
    dns_message::{A, NXDOMAIN, REFUSED, SERVFAIL, after_name, be16, push_name},
    upstream::right_address,
};

/// How the upstream behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Well,
    /// Receives and does not answer.
    Blackhole,
    Servfail,
    Refused,
    /// Every name is NXDOMAIN.
    Nxdomain,
    /// Every name exists without records.
    Empty,
    /// Right, 5 s late.
    Delay,
    /// Every other query is lost, at random.
    Loss,
}

const MODES: [Mode; 8] = [
    Mode::Well,
    Mode::Blackhole,
    Mode::Servfail,
    Mode::Refused,
    Mode::Nxdomain,
    Mode::Empty,
    Mode::Delay,
    Mode::Loss,
];

const DELAY: Duration = Duration::from_secs(5);
const SOA_TTL_S: u32 = 5;
/// Length of one counter.
pub const TENTH: Duration = Duration::from_millis(100);
/// Ten minutes of counters.
const TENTHS: usize = 6_000;

/// Handle on a running upstream; its threads end with the process.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    mode: AtomicU8,
    /// The counters' time 0.
    start: Instant,
    /// Queries in each tenth of a second.
    heard: Vec<AtomicU32>,
    /// When each of the first names was last answered right, and the time before that: µs since the
    /// epoch.
    answered: Vec<[AtomicU64; 2]>,
    late: Mutex<VecDeque<(Instant, SocketAddr, Vec<u8>)>>,
}

impl Upstream {
    /// Starts one. It remembers when it answered each of the names 0 to `remembered`.
    pub fn start(port: u16, remembered: u32) -> io::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let socket = Arc::new(bound(address)?);
        let listener = TcpListener::bind(address)?;
        let shared = Arc::new(Shared {
            mode: AtomicU8::new(Mode::Well as u8),
            start: now(),
            heard: (0..TENTHS).map(|_| AtomicU32::new(0)).collect(),
            answered: (0..remembered).map(|_| <[AtomicU64; 2]>::default()).collect(),
            late: Mutex::default(),
        });
        let (for_udp, for_late, for_tcp) = (Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&shared));
        let late_socket = Arc::clone(&socket);
        thread::spawn(move || for_udp.serve_udp(&socket));
        thread::spawn(move || for_late.send_late(&late_socket));
        thread::spawn(move || for_tcp.serve_tcp(&listener));
        Ok(Self { address, shared })
    }

    pub fn set(&self, mode: Mode) {
        self.shared.mode.store(mode as u8, Relaxed);
    }

    /// Queries since the start.
    pub fn heard(&self) -> u64 {
        self.shared.heard.iter().map(|tenth| u64::from(tenth.load(Relaxed))).sum()
    }

    /// Queries in each tenth of a second from `from` to `to`.
    pub fn tenths(&self, from: Instant, to: Instant) -> Vec<u32> {
        let tenth = |at: Instant| self.shared.tenth(at);
        self.shared.heard[tenth(from)..tenth(to)].iter().map(|count| count.load(Relaxed)).collect()
    }

    /// When name `number` was last answered right before `limit`; both since the epoch.
    pub fn answered_before(&self, number: u32, limit: Duration) -> Option<Duration> {
        let times = self.shared.answered.get(usize::try_from(number).ok()?)?;
        let times = times.each_ref().map(|time| Duration::from_micros(time.load(Relaxed)));
        times.into_iter().filter(|time| !time.is_zero() && *time <= limit).max()
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        MODES[usize::from(self.mode.load(Relaxed))]
    }

    fn tenth(&self, at: Instant) -> usize {
        let tenth = at.saturating_duration_since(self.start).as_millis() / TENTH.as_millis();
        usize::try_from(tenth).unwrap_or(usize::MAX).min(TENTHS - 1)
    }

    fn note_heard(&self, count: usize) {
        self.heard[self.tenth(now())].fetch_add(u32::try_from(count).unwrap_or(u32::MAX), Relaxed);
    }

    fn note_answered(&self, message: &[u8]) {
        let number = number_and_ttl(message).and_then(|(number, _)| usize::try_from(number).ok());
        if let Some([last, before]) = number.and_then(|number| self.answered.get(number)) {
            let at = u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX);
            before.store(last.swap(at, Relaxed), Relaxed);
        }
    }

    fn serve_udp(&self, socket: &UdpSocket) {
        let mut batch = Batch::new(64, Kind::Addressed);
        let mut random = fastrand::Rng::new();
        let mut reply = Vec::with_capacity(256);
        loop {
            let Ok(count) = batch.receive(socket, true) else { continue };
            self.note_heard(count);
            let mode = self.mode();
            // Where the messages to send begin that follow each other without a gap.
            let mut run = 0;
            for index in 0..count {
                let heard = mode != Mode::Blackhole && !(mode == Mode::Loss && random.bool());
                let replied = heard && answer(batch.datagram(index), mode, &mut reply);
                if replied && mode == Mode::Delay {
                    let late = (now() + DELAY, batch.source(index), reply.clone());
                    self.late.lock().unwrap_or_else(PoisonError::into_inner).push_back(late);
                } else if replied {
                    self.note_answered(&reply);
                    batch.put(index, &reply);
                    continue;
                }
                let _ = batch.send(socket, run..index);
                run = index + 1;
            }
            while run < count {
                run += batch.send(socket, run..count).unwrap_or(1);
            }
        }
    }

    /// Sends what was put off, in order.
    fn send_late(&self, socket: &UdpSocket) {
        loop {
            thread::sleep(Duration::from_millis(5));
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            while late.front().is_some_and(|(at, ..)| *at <= now()) {
                if let Some((_, to, message)) = late.pop_front() {
                    self.note_answered(&message);
                    let _ = socket.send_to(&message, to);
                }
            }
        }
    }

    fn serve_tcp(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming().flatten() {
            let this = Arc::clone(self);
            thread::spawn(move || this.serve_stream(stream));
        }
    }

    fn serve_stream(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        loop {
            let mut length = [0; 2];
            stream.read_exact(&mut length).ok()?;
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut message).ok()?;
            self.note_heard(1);
            let mode = self.mode();
            match mode {
                Mode::Blackhole => continue,
                Mode::Loss if fastrand::bool() => continue,
                Mode::Delay => thread::sleep(DELAY),
                _ => {}
            }
            let mut reply = Vec::new();
            if answer(&message, mode, &mut reply) {
                self.note_answered(&reply);
                stream.write_all(&u16::try_from(reply.len()).ok()?.to_be_bytes()).ok()?;
                stream.write_all(&reply).ok()?;
            }
        }
    }
}

/// Writes the answer to `query` into `reply`; false if it is no query.
fn answer(query: &[u8], mode: Mode, reply: &mut Vec<u8>) -> bool {
    let Some(end) = after_name(query, 12).map(|end| end + 4).filter(|end| *end <= query.len()) else {
        return false;
    };
    if query[2] & 0x80 != 0 {
        return false;
    }
    let kind = be16(query, end - 4);
    let ours = number_and_ttl(query);
    let (rcode, record): (u8, Option<(u16, u32, Vec<u8>)>) = match mode {
        Mode::Servfail => (SERVFAIL, None),
        Mode::Refused => (REFUSED, None),
        Mode::Nxdomain => (NXDOMAIN, None),
        Mode::Empty => (0, None),
        Mode::Well | Mode::Delay | Mode::Loss | Mode::Blackhole => match ours {
            Some((number, ttl_s)) if kind == Some(A) => (0, Some((A, ttl_s, right_address(number).into()))),
            Some(_) => (0, None),
            // What forwarders ask to see whether we live: the root's NS, and dnsdist its
            // A.ROOT-SERVERS.NET.
            None if query[12] == 0 => (0, Some((2, 60, b"\x01a\x0croot-servers\x03net\0".to_vec()))),
            None if query[12..].starts_with(b"\x01a\x0c") && kind == Some(A) => {
                (0, Some((A, 60, vec![198, 41, 0, 4])))
            }
            // The parents of our names exist.
            None if query[..end - 4].to_ascii_lowercase().ends_with(b"\x02zz\0") => (0, None),
            None => (NXDOMAIN, None),
        },
    };
    let negative = record.is_none() && (rcode == 0 || rcode == NXDOMAIN);
    reply.clear();
    reply.extend(&query[..end]);
    reply[2] = 0x80 | query[2] & 0x79;
    reply[3] = 0x80 | query[3] & 0x10 | rcode;
    let edns = be16(query, 10).is_some_and(|additional| additional > 0);
    let counts = [record.is_some(), negative, edns].map(u8::from);
    reply[4..12].copy_from_slice(&[0, 1, 0, counts[0], 0, counts[1], 0, counts[2]]);
    if let Some((kind, ttl_s, data)) = record {
        push_record(reply, &[0xc0, 12], kind, ttl_s, &data);
    }
    if negative {
        push_soa(reply, ours.is_some());
    }
    if edns {
        reply.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    }
    true
}

/// A SOA (RFC 2308) of `bench.zz.`, or of the root for what is not ours.
fn push_soa(reply: &mut Vec<u8>, ours: bool) {
    let mut owner = Vec::new();
    push_name(&mut owner, if ours { "bench.zz." } else { "." });
    let mut data = Vec::new();
    push_name(&mut data, "ns.bench.zz.");
    push_name(&mut data, "admin.bench.zz.");
    for value in [1, 3_600, 600, 86_400, SOA_TTL_S] {
        data.extend(value.to_be_bytes());
    }
    push_record(reply, &owner, 6, SOA_TTL_S, &data);
}

fn push_record(reply: &mut Vec<u8>, owner: &[u8], kind: u16, ttl_s: u32, data: &[u8]) {
    reply.extend(owner);
    reply.extend(kind.to_be_bytes());
    reply.extend([0, 1]);
    reply.extend(ttl_s.to_be_bytes());
    reply.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    reply.extend(&data[..usize::from(u16::try_from(data.len()).unwrap_or(0))]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bench::names::{Verdict, judge, name, question},
        dns_client::{ask_tcp, ask_udp},
        dns_message::{Reply, query},
        process::free_port,
    };

    #[test]
    fn it_answers_counts_and_remembers_over_both_transports() {
        let upstream = Upstream::start(free_port(), 10).unwrap();
        let (from, before) = (now(), since_epoch());
        for ask in [ask_udp, ask_tcp] {
            let reply = ask(upstream.address, &name(7, 60), A).unwrap();
            assert_eq!((reply.addresses(), reply.answers[0].ttl), (vec![right_address(7)], 60));
        }
        assert_eq!(upstream.heard(), 2);
        assert_eq!(upstream.tenths(from, now() + 2 * TENTH).iter().sum::<u32>(), 2);
        assert_eq!(upstream.answered_before(7, before.saturating_sub(Duration::from_secs(1))), None);
        assert!(upstream.answered_before(7, since_epoch() + Duration::from_secs(1)).is_some());
        assert_eq!(upstream.answered_before(8, since_epoch() + Duration::from_secs(1)), None);
    }

    #[test]
    fn each_illness_shows_as_itself() {
        let said = |mode| {
            let mut reply = Vec::new();
            assert!(answer(&question(1, 3, 5), mode, &mut reply));
            (judge(&reply, 3), be16(&reply, 8))
        };
        assert_eq!(said(Mode::Well), (Verdict::Right, Some(0)));
        assert_eq!(said(Mode::Servfail), (Verdict::Rcode(SERVFAIL), Some(0)));
        assert_eq!(said(Mode::Refused), (Verdict::Rcode(REFUSED), Some(0)));
        assert_eq!(said(Mode::Nxdomain), (Verdict::Rcode(NXDOMAIN), Some(1)));
        assert_eq!(said(Mode::Empty), (Verdict::NoData, Some(1)));
        for (number, mode) in MODES.iter().enumerate() {
            assert_eq!(usize::from(*mode as u8), number);
        }
    }

    #[test]
    fn what_forwarders_probe_with_is_answered() {
        let said = |name: &str, kind| {
            let mut bytes = Vec::new();
            assert!(answer(&query(1, name, kind, true), Mode::Well, &mut bytes));
            let reply = Reply::parse(&bytes);
            (reply.rcode, reply.answers.len())
        };
        assert_eq!(said(".", 2), (0, 1));
        assert_eq!(said("a.root-servers.net.", A), (0, 1));
        assert_eq!(said("t5.bench.zz.", A), (0, 0));
        assert_eq!(said("n1.t5.bench.zz.", 28), (0, 0));
        assert_eq!(said("elsewhere.org.", A), (NXDOMAIN, 0));
    }
}
