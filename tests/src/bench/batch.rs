//! Receives and sends many datagrams at a time, with recvmmsg(2) and sendmmsg(2).
//!
//! The only unsafe code of the benchmarks. rustix has no recvmmsg, and nix's sets all headers up
//! anew for each call, which the bare echo, the yardstick of the others, must not pay for.

#![expect(
    unsafe_code,
    reason = "recvmmsg and sendmmsg take raw pointers; no safe crate is bare enough to be the yardstick"
)]

use std::{io, mem, net::UdpSocket, ops::Range, os::fd::AsRawFd, ptr, time::Duration};

/// Room for a datagram; ours have one question and at most a few records.
const DATAGRAM_MAX: usize = 512;

/// Ancillary data of one datagram: a `cmsghdr` (16 bytes) and a `timespec` (16 bytes), with room to
/// spare.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Buffers for up to so many datagrams, and the kernel's view of them.
///
/// The headers point into the other vectors, which never grow: their heap places stay, wherever the
/// batch is moved.
pub struct Batch {
    buffers: Vec<[u8; DATAGRAM_MAX]>,
    addresses: Vec<libc::sockaddr_in>,
    controls: Vec<Control>,
    slices: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// So many headers carry what the last call left there.
    used: usize,
    kind: Kind,
}

/// What the batch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A server's: each datagram has an address, where it came from and where its reply goes.
    Addressed,
    /// A connected client's.
    Connected,
    /// A connected client's, with the kernel's receive time; see [`stamp_arrivals`].
    Stamped,
}

impl Batch {
    pub fn new(size: usize, kind: Kind) -> Self {
        // SAFETY: both are plain C structs for which all zeroes is a valid value (null pointers,
        // zero lengths).
        let (address, header) =
            unsafe { (mem::zeroed::<libc::sockaddr_in>(), mem::zeroed::<libc::mmsghdr>()) };
        let mut batch = Self {
            buffers: vec![[0; DATAGRAM_MAX]; size],
            addresses: vec![address; size],
            controls: vec![Control([0; 64]); size],
            slices: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; size],
            headers: vec![header; size],
            used: size,
            kind,
        };
        for index in 0..size {
            batch.slices[index].iov_base = batch.buffers[index].as_mut_ptr().cast();
            let header = &mut batch.headers[index].msg_hdr;
            header.msg_iov = &raw mut batch.slices[index];
            header.msg_iovlen = 1;
            if kind == Kind::Addressed {
                header.msg_name = (&raw mut batch.addresses[index]).cast();
            }
            if kind == Kind::Stamped {
                header.msg_control = (&raw mut batch.controls[index]).cast();
            }
        }
        batch
    }

    /// Receives what is there. With `wait` it blocks for the first datagram, as long as the
    /// socket's read timeout says; nothing there is 0.
    pub fn receive(&mut self, socket: &UdpSocket, wait: bool) -> io::Result<usize> {
        for index in 0..self.used {
            self.slices[index].iov_len = DATAGRAM_MAX;
            let header = &mut self.headers[index].msg_hdr;
            match self.kind {
                Kind::Addressed => header.msg_namelen = ADDRESS_LENGTH,
                Kind::Stamped => header.msg_controllen = size_of::<Control>(),
                Kind::Connected => {}
            }
        }
        let flags = if wait { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        let size = libc::c_uint::try_from(self.headers.len()).unwrap_or(libc::c_uint::MAX);
        // SAFETY: the first `size` headers are ours; each points to one iovec with `DATAGRAM_MAX`
        // writable bytes, and to name and control buffers of the lengths set above (or null with
        // length 0). All outlive the call.
        let received = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), size, flags, ptr::null_mut())
        };
        self.used = usize::try_from(received).unwrap_or(0);
        if received < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
        }
        Ok(self.used)
    }

    /// Datagram `index` of the last [`Self::receive`].
    pub fn datagram(&self, index: usize) -> &[u8] {
        let length = usize::try_from(self.headers[index].msg_len).unwrap_or(0);
        &self.buffers[index][..length.min(DATAGRAM_MAX)]
    }

    /// The same, to be turned into a reply of the same length.
    pub fn datagram_mut(&mut self, index: usize) -> &mut [u8] {
        let length = usize::try_from(self.headers[index].msg_len).unwrap_or(0);
        self.slices[index].iov_len = length.min(DATAGRAM_MAX);
        &mut self.buffers[index][..length.min(DATAGRAM_MAX)]
    }

    /// Makes `message` what place `index` sends, to where the datagram received there came from.
    pub fn put(&mut self, index: usize, message: &[u8]) {
        let length = message.len().min(DATAGRAM_MAX);
        self.buffers[index][..length].copy_from_slice(&message[..length]);
        self.slices[index].iov_len = length;
        self.used = self.used.max(index + 1);
    }

    /// Where datagram `index` came from.
    pub fn source(&self, index: usize) -> std::net::SocketAddr {
        let address = &self.addresses[index];
        (address.sin_addr.s_addr.to_ne_bytes(), u16::from_be(address.sin_port)).into()
    }

    /// When the kernel received datagram `index`, since the epoch; `None` if it does not say.
    pub fn received_at(&self, index: usize) -> Option<Duration> {
        if self.headers[index].msg_hdr.msg_controllen < 32 {
            return None;
        }
        // cmsg_len (8 bytes), cmsg_level (4), cmsg_type (4), then a timespec of two 8-byte numbers.
        let bytes = &self.controls[index].0;
        let number = |at: usize| Some(u64::from_ne_bytes(bytes[at..at + 8].try_into().ok()?));
        let kind = i32::from_ne_bytes(bytes[12..16].try_into().ok()?);
        let stamp = || Some(Duration::new(number(16)?, u32::try_from(number(24)?).ok()?));
        (kind == libc::SCM_TIMESTAMPNS).then(stamp).flatten()
    }

    /// Sends the messages at `range`. Returns how many went; the rest did not fit into the socket's
    /// buffer.
    pub fn send(&mut self, socket: &UdpSocket, range: Range<usize>) -> io::Result<usize> {
        if self.kind == Kind::Stamped {
            for header in &mut self.headers[range.clone()] {
                header.msg_hdr.msg_controllen = 0;
            }
        }
        let headers = &mut self.headers[range];
        let count = libc::c_uint::try_from(headers.len()).unwrap_or(libc::c_uint::MAX);
        // SAFETY: `headers` are `count` headers of ours; each points to one iovec whose first
        // `iov_len` bytes are initialised, and to an address that a receive filled in (or null with
        // length 0). All outlive the call.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "16")]
const ADDRESS_LENGTH: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;

/// Asks the kernel for the receive time of each datagram (`SO_TIMESTAMPNS`): it does not suffer
/// from a late reader.
pub fn stamp_arrivals(socket: &UdpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    #[expect(clippy::cast_possible_truncation, reason = "4")]
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the option takes an int, and is given the address and size of one that outlives the
    // call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            length,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_goes_to_the_server_and_back_with_its_arrival_times() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        stamp_arrivals(&client).unwrap();
        let mut ours = Batch::new(4, Kind::Stamped);
        let mut theirs = Batch::new(4, Kind::Addressed);
        for round in 0..3_u8 {
            for index in 0..3_u8 {
                ours.put(usize::from(index), &[round, index, 7]);
            }
            assert_eq!(ours.send(&client, 0..3).unwrap(), 3);
            assert_eq!(theirs.receive(&server, true).unwrap(), 3);
            assert_eq!(theirs.source(2), client.local_addr().unwrap());
            theirs.datagram_mut(0)[2] = 8;
            theirs.put(1, b"longer than it was");
            theirs.datagram_mut(2)[2] = 9;
            assert_eq!(theirs.send(&server, 0..3).unwrap(), 3);
            assert_eq!(ours.receive(&client, true).unwrap(), 3);
            assert_eq!(ours.datagram(0), [round, 0, 8]);
            assert_eq!(ours.datagram(1), b"longer than it was");
            assert_eq!(ours.datagram(2), [round, 2, 9]);
            let age = crate::bench::since_epoch().abs_diff(ours.received_at(2).unwrap());
            assert!(age < Duration::from_mins(1), "{age:?}");
        }
        assert_eq!(ours.receive(&client, false).unwrap(), 0);
    }
}
