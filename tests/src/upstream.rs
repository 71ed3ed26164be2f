//! A scriptable upstream over UDP and TCP on one loopback port. [`crate::authority`] decides its
//! answers.
//!
//! As a process of its own (`fake-upstream`) it can be stopped and killed like a real one.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::authority::{Act, Behaviour, Data, QUERY_LEN_MIN};
pub use crate::authority::{Mood, name, reply, right_address};

/// Handle on a running upstream. Its threads end with the process.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    data: Arc<Mutex<Data>>,
    queries: Arc<AtomicU64>,
    forge: Arc<AtomicU32>,
    forged: Arc<AtomicU64>,
    started: Instant,
}

impl Upstream {
    /// Starts one at `address`, in two threads; see [`crate::process::free_port`].
    pub fn start(address: SocketAddr) -> io::Result<Self> {
        Self::start_with(address, Arc::default())
    }

    /// Starts one that knows what the other owners of `data` put there.
    #[expect(clippy::disallowed_methods, reason = "a real upstream flaps in real time")]
    pub fn start_with(address: SocketAddr, data: Arc<Mutex<Data>>) -> io::Result<Self> {
        let udp = bind_again(|| UdpSocket::bind(address))?;
        let address = udp.local_addr()?;
        let tcp = bind_again(|| TcpListener::bind(address))?;
        let upstream = Self {
            address,
            behaviour: Arc::default(),
            data,
            queries: Arc::default(),
            forge: Arc::default(),
            forged: Arc::default(),
            started: Instant::now(),
        };
        let (for_udp, for_tcp) = (upstream.clone(), upstream.clone());
        thread::spawn(move || for_udp.serve_udp(udp));
        thread::spawn(move || for_tcp.serve_tcp(&tcp));
        Ok(upstream)
    }

    pub fn set(&self, mood: Mood) {
        self.behaviour().set(mood);
    }

    /// For names that end so.
    pub fn set_only(&self, suffix: &str, mood: Mood) {
        self.behaviour().set_only(suffix, mood);
    }

    /// Queries received since the start, answered or not.
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    /// Sends so many forged replies before each reply over UDP: [`FORGED_ADDRESS`], as of
    /// someone who knows everything but the id.
    pub fn forge(&self, each: u32) {
        self.forge.store(each, Ordering::Relaxed);
    }

    /// Forged replies so far.
    pub fn forged(&self) -> u64 {
        self.forged.load(Ordering::Relaxed)
    }

    fn forgeries(&self, query: &[u8]) -> Vec<Vec<u8>> {
        let each = self.forge.load(Ordering::Relaxed);
        let mut forger = Behaviour::default();
        forger.set(Mood::Sinkhole(FORGED_ADDRESS));
        let data = Data::default();
        let replies = (0..each).filter_map(|_| {
            match forger.act(query, false, &data, Duration::ZERO, &mut fastrand::Rng::new()) {
                Act::Reply(mut reply) => {
                    *reply.get_mut(1)? ^= fastrand::u8(1..);
                    Some(reply)
                }
                _ => None,
            }
        });
        replies.collect()
    }

    fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn act(&self, query: &[u8], over_tcp: bool) -> Act {
        self.queries.fetch_add(1, Ordering::Relaxed);
        if query.len() < QUERY_LEN_MIN {
            return Act::Silence;
        }
        let data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        self.behaviour().act(query, over_tcp, &data, self.started.elapsed(), &mut fastrand::Rng::new())
    }

    fn serve_udp(&self, mut socket: UdpSocket) {
        let mut buffer = [0; 4096];
        loop {
            if self.behaviour().closed() {
                socket = match self.reopen(socket) {
                    Some(socket) => socket,
                    None => return,
                };
            }
            // Looks up now and then whether its port is to be closed.
            let _ = socket.set_read_timeout(Some(TICK));
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            for forged in self.forgeries(&buffer[..length]) {
                self.forged.fetch_add(1, Ordering::Relaxed);
                let _ = socket.send_to(&forged, from);
            }
            match self.act(&buffer[..length], false) {
                Act::Reply(reply) => drop(socket.send_to(&reply, from)),
                Act::Late(late, reply) => {
                    let Ok(socket) = socket.try_clone() else { continue };
                    thread::spawn(move || {
                        thread::sleep(late);
                        let _ = socket.send_to(&reply, from);
                    });
                }
                Act::Silence | Act::Unreachable => {}
            }
        }
    }

    /// Closes the port until the mood changes.
    fn reopen(&self, socket: UdpSocket) -> Option<UdpSocket> {
        drop(socket);
        while self.behaviour().closed() {
            thread::sleep(TICK);
        }
        // Another process may have the port for a moment.
        (0..1_000).find_map(|_| {
            let bound = UdpSocket::bind(self.address).ok();
            if bound.is_none() {
                thread::sleep(TICK);
            }
            bound
        })
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
            let reply = match self.act(&message, true) {
                Act::Reply(reply) => reply,
                Act::Late(late, reply) => {
                    thread::sleep(late);
                    reply
                }
                // As long as anyone waits.
                Act::Silence => {
                    thread::sleep(TCP_SILENCE);
                    return None;
                }
                Act::Unreachable => return None,
            };
            stream.write_all(&u16::try_from(reply.len()).ok()?.to_be_bytes()).ok()?;
            stream.write_all(&reply).ok()?;
        }
    }
}

/// Binds, patiently: a process that is just being started holds a copy of every socket of its
/// parent until it is exec'd.
fn bind_again<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..BINDS_MAX {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(TICK),
            bound => return bound,
        }
    }
    bind()
}

/// What forged replies say.
pub const FORGED_ADDRESS: [u8; 4] = [6, 6, 6, 6];
const TICK: Duration = Duration::from_millis(20);
const BINDS_MAX: u32 = 100;
const TCP_SILENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dns_client::{ask_tcp, ask_udp},
        dns_message::{A, NOERROR, SERVFAIL},
        process::{free_port, wait_for},
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
    fn its_port_can_close_and_open_again() {
        let upstream = Upstream::start(([127, 0, 0, 1], free_port()).into()).unwrap();
        let ask = || ask_udp(upstream.address, &name(1, 60), A);
        assert!(ask().is_ok());
        upstream.set(Mood::Unreachable);
        wait_for("the port to close", || {
            ask().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        });
        upstream.set(Mood::Right);
        wait_for("the port to open", || ask().is_ok());
    }
}
