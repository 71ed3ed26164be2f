//! Which user a TCP client on this host is. All local clients have the same address, so a share per
//! address would let one user keep the others out.
//!
//! The kernel says who owns the socket at the other end (sock_diag(7)): one question by address and
//! port, a few microseconds, no privileges. Where it does not answer, for example in a sandbox
//! without netlink, the address counts.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use dogwatch_daemon::bounds::Who;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// Who a connection from `peer` to `local` counts for.
pub(super) fn of(peer: SocketAddr, local: SocketAddr) -> Who {
    let on_this_host = peer.ip().to_canonical().is_loopback() || peer.ip() == local.ip();
    let uid = on_this_host.then(|| uid(peer, local).ok().flatten()).flatten();
    uid.map_or_else(|| Who::of_address(peer.ip()), Who::Uid)
}

/// linux/sock_diag.h and linux/inet_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const REQUEST_LEN: u8 = 16 + 56;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP: u8 = 6;
const ESTABLISHED: u8 = 1;
const NO_COOKIE: [u8; 8] = [0xff; 8];
/// In the answer: a header of 16 bytes, then inet_diag_msg.
const STATE_AT: usize = 16 + 1;
const UID_AT: usize = 16 + 4 + 48 + 12;

/// The owner of the socket at `peer` that is connected to `local`. `None` if there is none; a
/// closed one has no owner, and would count as root's.
fn uid(peer: SocketAddr, local: SocketAddr) -> io::Result<Option<u32>> {
    let kernel = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&kernel, &request(peer, local), SendFlags::empty())?;
    // The kernel has answered before `send` returns.
    let mut answer = [0; 512];
    let (length, _) = recv(&kernel, &mut answer, RecvFlags::empty())?;
    Ok(read(answer.get(..length).unwrap_or_default()))
}

fn request(peer: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let (theirs, ours) = (address(peer.ip()), address(local.ip()));
    let family = if peer.ip().to_canonical().is_ipv4() { AF_INET } else { AF_INET6 };
    let mut out = Vec::with_capacity(REQUEST_LEN.into());
    out.extend(u32::from(REQUEST_LEN).to_ne_bytes());
    out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port: none.
    out.extend([0; 8]);
    // No extensions; all states.
    out.extend([family, TCP, 0, 0]);
    out.extend(u32::MAX.to_ne_bytes());
    // Their socket, from their point of view.
    out.extend(peer.port().to_be_bytes());
    out.extend(local.port().to_be_bytes());
    out.extend(theirs);
    out.extend(ours);
    out.extend([0; 4]);
    out.extend(NO_COOKIE);
    out
}

/// 16 bytes, of which an IPv4 address takes the first four.
fn address(address: IpAddr) -> [u8; 16] {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mut out = [0; 16];
            out[..4].copy_from_slice(&address.octets());
            out
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn read(answer: &[u8]) -> Option<u32> {
    let kind = answer.get(4..6)?;
    let uid = answer.get(UID_AT..UID_AT + 4)?;
    let found = kind == SOCK_DIAG_BY_FAMILY.to_ne_bytes() && answer.get(STATE_AT) == Some(&ESTABLISHED);
    found.then(|| u32::from_ne_bytes([uid[0], uid[1], uid[2], uid[3]]))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_owner_of_a_local_connection_is_known_over_both_families() {
        let ours = Who::Uid(rustix::process::geteuid().as_raw());
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let local = server.local_addr().unwrap();
            assert_eq!(of(peer, local), ours, "{address}");
            // Nobody owns a socket that is closed, or that never was.
            drop(client);
            assert_eq!(of(peer, local), Who::of_address(peer.ip()));
            assert_eq!(uid(SocketAddr::new(peer.ip(), 1), local).ok().flatten(), None);
        }
    }

    #[test]
    fn addresses_of_other_hosts_count_as_such_and_damage_does_not_panic() {
        let peer: SocketAddr = "192.0.2.7:40000".parse().unwrap();
        assert_eq!(of(peer, "192.0.2.1:53".parse().unwrap()), Who::of_address(peer.ip()));
        assert_eq!(request(peer, peer).len(), usize::from(REQUEST_LEN));
        (0..UID_AT + 4).for_each(|length| assert_eq!(read(&vec![20; length]), None));
    }
}
