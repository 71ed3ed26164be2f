//! A scriptable upstream over UDP and TCP on one loopback port.
//!
//! Names say what is right: `n<NUMBER>.t<TTL>.test.` has the A record `10.x.y.z` made of NUMBER, with that TTL. So a
//! test knows the right answer without asking. How the upstream behaves is a [`Mood`] that can change at any time. As a
//! process of its own (`fake-upstream`) it can be stopped and killed like a real one.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::dns_message::{A, NOERROR, NXDOMAIN, REFUSED, SERVFAIL, push_name, read_name};

/// How the upstream behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    Right = 0,
    /// Hears and says nothing.
    Silent,
    Servfail,
    Refused,
    /// Every name is NXDOMAIN with a SOA.
    Nxdomain,
    /// NOERROR without any record.
    Empty,
    /// TC over UDP, and TCP hangs up.
    Truncated,
    /// Right, five seconds late.
    Slow,
}

impl Mood {
    const ALL: [(&'static str, Self); 8] = [
        ("right", Self::Right),
        ("silent", Self::Silent),
        ("servfail", Self::Servfail),
        ("refused", Self::Refused),
        ("nxdomain", Self::Nxdomain),
        ("empty", Self::Empty),
        ("truncated", Self::Truncated),
        ("slow", Self::Slow),
    ];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, mood)| mood)
    }
}

/// Handle on a running upstream. Its threads end with the process.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    mood: Arc<AtomicU8>,
    queries: Arc<AtomicU64>,
}

impl Upstream {
    /// Starts one at `address`, in two threads; see [`crate::process::free_port`].
    pub fn start(address: SocketAddr) -> io::Result<Self> {
        let udp = UdpSocket::bind(address)?;
        let address = udp.local_addr()?;
        let tcp = TcpListener::bind(address)?;
        let upstream = Self { address, mood: Arc::default(), queries: Arc::default() };
        let (for_udp, for_tcp) = (upstream.clone(), upstream.clone());
        thread::spawn(move || for_udp.serve_udp(&Arc::new(udp)));
        thread::spawn(move || for_tcp.serve_tcp(&tcp));
        Ok(upstream)
    }

    pub fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::Relaxed);
    }

    /// Queries heard since the start, whatever came of them.
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    fn mood(&self) -> Mood {
        Mood::ALL[usize::from(self.mood.load(Ordering::Relaxed))].1
    }

    fn serve_udp(&self, socket: &Arc<UdpSocket>) {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            self.queries.fetch_add(1, Ordering::Relaxed);
            let mood = self.mood();
            let Some(reply) = reply(&buffer[..length], mood) else { continue };
            if mood == Mood::Slow {
                let socket = Arc::clone(socket);
                thread::spawn(move || {
                    thread::sleep(SLOW);
                    let _ = socket.send_to(&reply, from);
                });
            } else {
                let _ = socket.send_to(&reply, from);
            }
        }
    }

    fn serve_tcp(&self, listener: &TcpListener) {
        for stream in listener.incoming().flatten() {
            let this = self.clone();
            thread::spawn(move || this.serve_stream(stream));
        }
    }

    fn serve_stream(&self, mut stream: TcpStream) -> Option<()> {
        loop {
            let mut length = [0; 2];
            stream.read_exact(&mut length).ok()?;
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut message).ok()?;
            self.queries.fetch_add(1, Ordering::Relaxed);
            match self.mood() {
                Mood::Truncated => return None,
                Mood::Silent => thread::park(),
                Mood::Slow => thread::sleep(SLOW),
                _ => {}
            }
            let reply = reply(&message, self.mood())?;
            stream.write_all(&u16::try_from(reply.len()).ok()?.to_be_bytes()).ok()?;
            stream.write_all(&reply).ok()?;
        }
    }
}

const SLOW: Duration = Duration::from_secs(5);

/// The address that is right for `n<number>.…`.
pub fn right_address(number: u32) -> [u8; 4] {
    let [_, b, c, d] = number.to_be_bytes();
    [10, b, c, d]
}

/// Name number `number` with a TTL.
pub fn name(number: u32, ttl_s: u32) -> String {
    format!("n{number}.t{ttl_s}.test.")
}

/// The answer to a query in this mood; `None` for silence.
pub fn reply(query: &[u8], mood: Mood) -> Option<Vec<u8>> {
    if query.len() < 17 || mood == Mood::Silent {
        return None;
    }
    let (name, after) = read_name(query, 12);
    let kind = u16::from_be_bytes([query[after], query[after + 1]]);
    let known = parse(&name);
    let (rcode, answers) = match mood {
        Mood::Servfail => (SERVFAIL, None),
        Mood::Refused => (REFUSED, None),
        Mood::Nxdomain => (NXDOMAIN, None),
        Mood::Empty | Mood::Truncated => (NOERROR, None),
        Mood::Right | Mood::Slow | Mood::Silent => match known {
            Some(known) if kind == A => (NOERROR, Some(known)),
            Some(_) => (NOERROR, None),
            None => (NXDOMAIN, None),
        },
    };
    // The root's NS question is the probe of many a forwarder: right for any healthy upstream.
    let rcode = if name.is_empty() && rcode == NXDOMAIN && mood == Mood::Right { NOERROR } else { rcode };
    let truncated = mood == Mood::Truncated;
    let negative =
        answers.is_none() && matches!(rcode, NOERROR | NXDOMAIN) && mood != Mood::Empty && !truncated;
    let mut reply = query[..after + 4].to_vec();
    reply[2] = 0x80 | query[2] & 0x01 | u8::from(truncated) << 1;
    reply[3] = 0x80 | rcode;
    reply[4..12].copy_from_slice(&[0, 1, 0, u8::from(answers.is_some()), 0, u8::from(negative), 0, 0]);
    if let Some((number, ttl)) = answers {
        reply.extend([0xc0, 12, 0, 1, 0, 1]);
        reply.extend(ttl.to_be_bytes());
        reply.extend([0, 4]);
        reply.extend(right_address(number));
    }
    if negative {
        push_soa(&mut reply);
    }
    Some(reply)
}

/// A SOA of `test.` whose TTL and minimum are 30 s (RFC 2308).
fn push_soa(reply: &mut Vec<u8>) {
    push_name(reply, "test.");
    reply.extend([0, 6, 0, 1, 0, 0, 0, 30]);
    let mut data = Vec::new();
    push_name(&mut data, "ns.test.");
    push_name(&mut data, "admin.test.");
    for value in [1_u32, 3_600, 600, 86_400, 30] {
        data.extend(value.to_be_bytes());
    }
    reply.extend(u16::try_from(data.len()).expect("a SOA is short").to_be_bytes());
    reply.extend(data);
}

fn parse(name: &str) -> Option<(u32, u32)> {
    let lower = name.to_ascii_lowercase();
    let (number, rest) = lower.strip_prefix('n')?.split_once('.')?;
    let ttl = rest.strip_prefix('t')?.strip_suffix(".test.")?;
    Some((number.parse().ok()?, ttl.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dns_client::{ask_tcp, ask_udp},
        dns_message::Reply,
        process::free_port,
    };

    #[test]
    fn it_answers_right_over_both_transports_and_can_be_ill() {
        let upstream = Upstream::start(([127, 0, 0, 1], free_port()).into()).unwrap();
        for ask in [ask_udp, ask_tcp] {
            let reply = ask(upstream.address, &name(4711, 60), A).unwrap();
            assert_eq!((reply.rcode, reply.addresses()), (NOERROR, vec![right_address(4711)]));
            assert_eq!(reply.answers[0].ttl, 60);
        }
        upstream.set(Mood::Servfail);
        assert_eq!(ask_udp(upstream.address, &name(1, 60), A).unwrap().rcode, SERVFAIL);
        assert_eq!(upstream.queries(), 3);
    }

    #[test]
    fn what_it_denies_it_denies_with_a_soa() {
        let query = crate::dns_message::query(7, "nonsense.test.", A, false);
        let bytes = reply(&query, Mood::Right).unwrap();
        assert_eq!((Reply::parse(&bytes).rcode, u16::from_be_bytes([bytes[8], bytes[9]])), (NXDOMAIN, 1));
    }
}
