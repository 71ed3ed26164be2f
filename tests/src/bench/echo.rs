//! The lower bound: a UDP server that only sends each datagram back, in batches of up to 64.
//!
//! What a DNS server costs above this is its own; the rest is the kernel's UDP path.

use std::{io, net::SocketAddr};

use super::{
    batch::{Batch, Kind},
    sockets::bound,
};

/// Serves for ever.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let socket = bound(address)?;
    let mut batch = Batch::new(64, Kind::Addressed);
    loop {
        let count = batch.receive(&socket, true)?;
        for index in 0..count {
            // QR and RA: the clients take it for an answer.
            if let [_, _, flags, more, ..] = batch.datagram_mut(index) {
                *flags |= 0x80;
                *more |= 0x80;
            }
        }
        let mut sent = 0;
        while sent < count {
            match batch.send(&socket, sent..count) {
                Ok(went) => sent += went,
                // The first of them cannot be delivered (its client is gone): on with the next.
                Err(_) => sent += 1,
            }
        }
    }
}
