//! ICMP echo over the kernel's unprivileged sockets (`SOCK_DGRAM`, icmp(7)). The kernel sets the
//! identifier and the checksum, and passes only answers to this socket. Times are measured in user
//! space.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, socket_with};
use tokio::{net::UdpSocket, time::sleep_until};

use crate::clock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Types of ICMP messages: echo request and echo reply.
    fn types(self) -> [u8; 2] {
        match self {
            Self::V4 => [8, 0],
            Self::V6 => [128, 129],
        }
    }
}

pub(crate) fn open(family: Family) -> io::Result<UdpSocket> {
    let (family, protocol): (_, Protocol) = match family {
        Family::V4 => (AddressFamily::INET, ipproto::ICMP),
        Family::V6 => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, Some(protocol))?;
    // Not UDP, but sends and receives datagrams in the same way.
    UdpSocket::from_std(socket.into())
}

/// Sends the packets and returns the time of each answer; `None` for a packet without an answer
/// within `patience` after the last one, or until `end`.
pub(crate) async fn exchange(
    socket: &UdpSocket,
    address: SocketAddr,
    packets: u16,
    patience: Duration,
    end: Instant,
) -> io::Result<Vec<Option<Duration>>> {
    socket.connect(address).await?;
    let family = Family::of(address);
    let start = clock::now();
    let mut sent: BTreeMap<u16, Instant> = BTreeMap::new();
    let mut times = vec![None; usize::from(packets)];
    let mut next = 0;
    let mut until = start;
    let mut buffer = [0; 256];
    loop {
        let due = start + PAUSE * u32::from(next);
        tokio::select! {
            received = socket.recv(&mut buffer) => {
                let now = clock::now();
                let number = received.ok().and_then(|length| answer(family, &buffer[..length]));
                if let Some((number, time)) = number.and_then(|number| Some((number, sent.remove(&number)?))) {
                    times[usize::from(number)] = Some(now - time);
                }
                if next == packets && sent.is_empty() {
                    return Ok(times);
                }
            }
            () = sleep_until(due.into()), if next < packets => {
                let now = clock::now();
                match socket.send(&request(family, next)).await {
                    Ok(_) => { sent.insert(next, now); }
                    Err(error) if next == 0 => return Err(error),
                    Err(_) => {} // counts as lost
                }
                next += 1;
                until = end.min(now + patience);
            }
            () = sleep_until(until.into()), if next == packets => return Ok(times),
            () = sleep_until(end.into()) => return Ok(times),
        }
    }
}

/// An echo request with 56 bytes of data, as `ping` sends it.
fn request(family: Family, number: u16) -> [u8; 64] {
    let mut packet = [0; 64];
    packet[0] = family.types()[0];
    packet[6..8].copy_from_slice(&number.to_be_bytes());
    packet[8..16].copy_from_slice(b"dogwatch");
    packet
}

/// The number of the packet that this is an answer to.
fn answer(family: Family, packet: &[u8]) -> Option<u16> {
    let is_ours = packet.first() == Some(&family.types()[1]) && packet.get(8..16)? == b"dogwatch";
    let number = packet.get(6..8)?.try_into().ok()?;
    is_ours.then(|| u16::from_be_bytes(number))
}

/// Between two packets, as in `ping -i 0.2`.
const PAUSE: Duration = Duration::from_millis(200);
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_belongs_to_its_request() {
        for family in [Family::V4, Family::V6] {
            let mut packet = request(family, 3);
            assert_eq!(answer(family, &packet), None, "a request is no answer");
            packet[0] = family.types()[1];
            assert_eq!(answer(family, &packet), Some(3));
            assert_eq!(answer(family, &packet[..12]), None);
        }
    }

    proptest! {
        #[test]
        fn any_packet_is_an_answer_or_not(packet in proptest::collection::vec(any::<u8>(), 0..80)) {
            answer(Family::V4, &packet);
            answer(Family::V6, &packet);
        }
    }
}
