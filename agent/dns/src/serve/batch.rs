//! Batched datagrams: recvmmsg(2) and sendmmsg(2) move many packets in one system call.
//!
//! Needs `unsafe`: no safe wrapper reuses its buffers across calls (nix rebuilds and copies the
//! addresses, and ties the buffers to the result). All pointers are created for each call from
//! buffers owned by this structure, and are not used after the call returns. If the kernel lacks
//! the calls (ENOSYS, or EPERM from a seccomp filter), packets are moved one by one through std.
#![expect(
    unsafe_code,
    reason = "recvmmsg and sendmmsg take raw pointers; every block explains why it is sound"
)]

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd,
    ptr,
};

/// Maximum number of datagrams per call.
pub(crate) const BATCH: usize = 64;
/// Longest query that is read whole, far above any real one; a longer query is cut and becomes a
/// format error. An odd number of cache lines, so that the packets of a batch do not compete for
/// the same sets of the CPU cache.
const PACKET: usize = 31 * 64;

/// A socket address as the kernel writes it: `sockaddr_in` or `sockaddr_in6`, depending on the
/// family.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Name([u8; NAME_LEN]);

const NAME_LEN: usize = size_of::<libc::sockaddr_in6>();
#[expect(clippy::cast_possible_truncation, reason = "28")]
const NAME_LEN_C: libc::socklen_t = NAME_LEN as libc::socklen_t;
const INET: [u8; 2] = family(libc::AF_INET);
const INET6: [u8; 2] = family(libc::AF_INET6);

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "2 and 10")]
const fn family(number: libc::c_int) -> [u8; 2] {
    (number as libc::sa_family_t).to_ne_bytes()
}

impl Name {
    fn of(address: SocketAddr) -> Self {
        let mut bytes = [0; NAME_LEN];
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(address) => {
                bytes[..2].copy_from_slice(&INET);
                bytes[4..8].copy_from_slice(&address.ip().octets());
            }
            SocketAddr::V6(address) => {
                bytes[..2].copy_from_slice(&INET6);
                bytes[4..8].copy_from_slice(&address.flowinfo().to_ne_bytes());
                bytes[8..24].copy_from_slice(&address.ip().octets());
                bytes[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
            }
        }
        Self(bytes)
    }

    fn address(&self) -> Option<SocketAddr> {
        let bytes = &self.0;
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        match [bytes[0], bytes[1]] {
            INET => Some((Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]), port).into()),
            INET6 => {
                let ip = <[u8; 16]>::try_from(&bytes[8..24]).ok().map(Ipv6Addr::from)?;
                Some(SocketAddrV6::new(ip, port, word(4), word(24)).into())
            }
            _ => None,
        }
    }
}

/// The last received packets, and their buffers.
pub(crate) struct Batch {
    packets: Vec<[u8; PACKET]>,
    lengths: Vec<usize>,
    names: Vec<Name>,
    headers: Vec<libc::mmsghdr>,
    pieces: Vec<libc::iovec>,
    /// Expected number of packets: when few are expected, most headers need not be written.
    wanted: usize,
    one_by_one: bool,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            packets: vec![[0; PACKET]; BATCH],
            lengths: vec![0; BATCH],
            names: vec![Name([0; NAME_LEN]); BATCH],
            headers: Vec::with_capacity(BATCH),
            pieces: Vec::with_capacity(BATCH),
            wanted: 1,
            one_by_one: false,
        }
    }

    /// Behaves as on a kernel without the batched calls.
    #[cfg(test)]
    pub(crate) fn one_by_one() -> Self {
        Self { one_by_one: true, ..Self::new() }
    }

    /// Waits for a datagram (up to the socket's read timeout) and receives all that are queued.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        if self.one_by_one {
            return self.receive_one(socket);
        }
        self.headers.clear();
        self.pieces.clear();
        for (packet, name) in self.packets.iter_mut().zip(&mut self.names).take(self.wanted) {
            self.pieces.push(libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: PACKET });
            self.headers.push(header(ptr::from_mut(name)));
        }
        self.join_pieces();
        #[expect(clippy::cast_possible_truncation, reason = "at most BATCH")]
        let count = self.headers.len() as libc::c_uint;
        // SAFETY: the pointer and count describe `headers`. Each header points at one name of
        // NAME_LEN bytes and one iovec, which points at one packet of PACKET bytes; all are owned
        // by `self`, distinct, alive and not otherwise touched until the call returns. A null
        // timeout is allowed. The kernel writes initialised plain bytes.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count,
                libc::MSG_WAITFORONE,
                ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
                self.one_by_one = true;
                return self.receive_one(socket);
            }
            return Err(error);
        };
        for (length, header) in self.lengths.iter_mut().zip(&self.headers).take(received) {
            *length = header.msg_len as usize;
        }
        self.wanted = if received == self.wanted { (received * 2).min(BATCH) } else { received.max(1) + 1 };
        Ok(received)
    }

    fn receive_one(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let (length, peer) = socket.recv_from(&mut self.packets[0])?;
        (self.lengths[0], self.names[0]) = (length, Name::of(peer));
        Ok(1)
    }

    /// The datagram at this index, and its sender.
    pub(crate) fn get(&self, place: usize) -> Option<(&[u8], SocketAddr)> {
        let packet = self.packets.get(place)?.get(..*self.lengths.get(place)?)?;
        Some((packet, self.names.get(place)?.address()?))
    }

    fn join_pieces(&mut self) {
        for (header, piece) in self.headers.iter_mut().zip(&mut self.pieces) {
            header.msg_hdr.msg_iov = ptr::from_mut(piece);
        }
    }

    /// Sends the answers at these indices. Never blocks: an answer that does not fit into the send
    /// buffer is lost, as on the network; the client asks again.
    pub(crate) fn send(&mut self, socket: &UdpSocket, places: &[usize], answers: &[Vec<u8>]) {
        if self.one_by_one {
            for (answer, peer) in
                places.iter().filter_map(|&at| Some((answers.get(at)?, self.names.get(at)?.address()?)))
            {
                let _ = socket.send_to(answer, peer);
            }
            return;
        }
        self.headers.clear();
        self.pieces.clear();
        for &place in places {
            let (Some(name), Some(answer)) = (self.names.get(place), answers.get(place)) else { continue };
            // sendmmsg only reads; the C types have no const.
            self.pieces
                .push(libc::iovec { iov_base: answer.as_ptr().cast_mut().cast(), iov_len: answer.len() });
            self.headers.push(header(ptr::from_ref(name).cast_mut()));
        }
        self.join_pieces();
        let mut rest = &mut self.headers[..];
        while !rest.is_empty() {
            #[expect(clippy::cast_possible_truncation, reason = "at most BATCH")]
            let count = rest.len() as libc::c_uint;
            // SAFETY: the pointer and count describe `rest`. Each header points at one name of
            // NAME_LEN bytes and one iovec, which points at one answer with its length; names and
            // iovecs are owned by `self`, answers are borrowed for this whole call. The kernel
            // reads them and writes `msg_len` in the headers only.
            let sent =
                unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
            let done = match usize::try_from(sent) {
                Ok(sent) => sent.max(1),
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => 0,
                // This one cannot be sent; try the others.
                Err(_) => 1,
            };
            rest = rest.get_mut(done..).unwrap_or_default();
        }
    }
}

/// One message with one piece, which [`Batch::join_pieces`] fills in later.
fn header(name: *mut Name) -> libc::mmsghdr {
    // SAFETY: mmsghdr is plain data (integers and pointers); all zeroes is a valid value of it.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_name = name.cast();
    header.msg_hdr.msg_namelen = NAME_LEN_C;
    header.msg_hdr.msg_iovlen = 1;
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `count` datagrams from two clients; each must get its own bytes back.
    fn echoed(mut batch: Batch, address: &str, count: u8) {
        let server = UdpSocket::bind(address).unwrap();
        let clients = [UdpSocket::bind(address).unwrap(), UdpSocket::bind(address).unwrap()];
        for number in 0..count {
            clients[usize::from(number % 2)].send_to(&[number; 20], server.local_addr().unwrap()).unwrap();
        }
        let mut answers = vec![Vec::new(); BATCH];
        let mut left = usize::from(count);
        while left > 0 {
            let received = batch.receive(&server).unwrap();
            for (place, answer) in answers.iter_mut().enumerate().take(received) {
                let (packet, peer) = batch.get(place).unwrap();
                assert_eq!(peer, clients[usize::from(packet[0] % 2)].local_addr().unwrap());
                *answer = packet.to_vec();
            }
            let places: Vec<_> = (0..received).collect();
            batch.send(&server, &places, &answers);
            left -= received;
        }
        for number in 0..count {
            let mut buffer = [0; 32];
            let length = clients[usize::from(number % 2)].recv(&mut buffer).unwrap();
            assert_eq!(buffer[..length], [number; 20]);
        }
    }

    #[test]
    fn every_datagram_keeps_its_peer_in_batches_and_one_by_one() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            echoed(Batch::new(), address, 100);
            echoed(Batch::one_by_one(), address, 10);
        }
    }

    #[test]
    fn an_unreachable_peer_does_not_affect_the_others() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut batch = Batch::new();
        batch.names[0] = Name::of("127.0.0.1:0".parse().unwrap());
        batch.names[1] = Name::of(client.local_addr().unwrap());
        batch.send(&server, &[0, 1], &[b"lost".to_vec(), b"kept".to_vec()]);
        let mut buffer = [0; 8];
        assert_eq!(client.recv(&mut buffer).unwrap(), 4);
        assert_eq!(buffer[..4], *b"kept");
    }

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for text in ["192.0.2.1:53", "[2001:db8::7]:5353", "[fe80::1%3]:53"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Name::of(address).address(), Some(address));
        }
    }
}
