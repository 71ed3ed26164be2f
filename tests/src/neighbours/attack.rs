//! What another user and another address do to every listener. Each attack is a loop in a thread of
//! its own.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    dns_message::{A, query},
    hostile::caller::{Door, ELSEWHERE, NOBODY, Wire, become_user},
};

/// Connections of one attack to one listener: more than a share.
const CONNECTIONS: usize = 300;
const PAUSE: Duration = Duration::from_millis(50);
/// Until connections are given up and opened anew.
const HELD: Duration = Duration::from_secs(4);
/// Datagrams at once, between two pauses.
const BURST: u32 = 50;

/// Shared by all attacks.
#[derive(Clone, Default)]
pub(super) struct War {
    pub(super) stop: Arc<AtomicBool>,
    pub(super) connections: Arc<AtomicU64>,
    pub(super) datagrams: Arc<AtomicU64>,
}

impl War {
    /// Attacks a listener of HTTP in every way.
    pub(super) fn on_http(&self, door: &Door) -> Vec<JoinHandle<()>> {
        [Self::idle, Self::slow_heads, Self::junk, Self::requests]
            .map(|attack| {
                let door = door.clone();
                self.start(move |war| attack(war, &door))
            })
            .into()
    }

    /// Attacks DNS over TCP.
    pub(super) fn on_dns_tcp(&self, port: u16) -> Vec<JoinHandle<()>> {
        let door = Door::Tcp { port, from: ELSEWHERE };
        [Self::idle, Self::half_messages, Self::junk]
            .map(|attack| {
                let door = door.clone();
                self.start(move |war| attack(war, &door))
            })
            .into()
    }

    /// Attacks DNS over UDP.
    pub(super) fn on_dns_udp(&self, port: u16) -> Vec<JoinHandle<()>> {
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        [Self::unknown_names, Self::junk_datagrams]
            .map(|attack| self.start(move |war| attack(war, server)))
            .into()
    }

    fn start(&self, attack: impl Fn(&Self) + Send + 'static) -> JoinHandle<()> {
        let war = self.clone();
        thread::spawn(move || {
            become_user(NOBODY).expect("root can be anyone");
            while !war.stop.load(Relaxed) {
                attack(&war);
                thread::sleep(PAUSE);
            }
        })
    }

    fn open(&self, door: &Door) -> Option<Box<dyn Wire>> {
        self.connections.fetch_add(1, Relaxed);
        door.open().ok()
    }

    fn hold(&self, mut turn: impl FnMut() -> bool) {
        for _ in 0..HELD.as_millis() / PAUSE.as_millis() {
            if self.stop.load(Relaxed) || !turn() {
                return;
            }
            thread::sleep(PAUSE);
        }
    }

    fn idle(&self, door: &Door) {
        let wires: Vec<_> = (0..CONNECTIONS).filter_map(|_| self.open(door)).collect();
        self.hold(|| true);
        drop(wires);
    }

    fn slow_heads(&self, door: &Door) {
        let mut wires: Vec<_> = (0..CONNECTIONS / 3).filter_map(|_| self.open(door)).collect();
        for wire in &mut wires {
            let _ = wire.write_all(b"GET /metrics HTTP/1.1\r\nx: ");
        }
        self.hold(|| {
            wires.retain_mut(|wire| wire.write_all(b"x").is_ok());
            !wires.is_empty()
        });
    }

    fn junk(&self, door: &Door) {
        for _ in 0..10 {
            let Some(mut wire) = self.open(door) else { continue };
            let junk: Vec<u8> = (0..4_096).map(|_| fastrand::u8(..)).collect();
            let _ = wire.write_all(&junk);
        }
    }

    /// Closes each before its answer is read.
    fn requests(&self, door: &Door) {
        for _ in 0..10 {
            let Some(mut wire) = self.open(door) else { continue };
            let _ = wire.write_all(
                b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\nGET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n",
            );
        }
    }

    /// Announces 64 KiB and sends a few bytes of them.
    fn half_messages(&self, door: &Door) {
        let mut wires: Vec<_> = (0..CONNECTIONS / 3).filter_map(|_| self.open(door)).collect();
        for wire in &mut wires {
            let _ = wire.write_all(&[0xff, 0xff, 0, 1, 1]);
        }
        self.hold(|| {
            wires.retain_mut(|wire| wire.write_all(&[0]).is_ok());
            !wires.is_empty()
        });
    }

    /// Names that only the upstream can know.
    fn unknown_names(&self, server: SocketAddr) {
        self.datagrams_to(server, || {
            query(fastrand::u16(..), &format!("n{}.t60.test", fastrand::u32(1_000_000..16_000_000)), A, true)
        });
    }

    fn junk_datagrams(&self, server: SocketAddr) {
        self.datagrams_to(server, || (0..fastrand::usize(..200)).map(|_| fastrand::u8(..)).collect());
    }

    fn datagrams_to(&self, server: SocketAddr, datagram: impl Fn() -> Vec<u8>) {
        let Ok(socket) = UdpSocket::bind(SocketAddr::from((ELSEWHERE, 0))) else { return };
        for _ in 0..BURST {
            self.datagrams.fetch_add(1, Relaxed);
            let _ = socket.send_to(&datagram(), server);
        }
    }
}
