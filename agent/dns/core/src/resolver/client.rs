//! The address to which an answer goes.

use std::net::SocketAddr;

/// Where an answer goes. The core only passes it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Datagram { socket: u16, peer: SocketAddr },
    Stream(u64),
}
