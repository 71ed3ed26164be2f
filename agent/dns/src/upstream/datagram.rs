//! UDP. Forged replies are stepped over, not failures: the kernel drops what does not come from the upstream's address and
//! port, and a reply with another id or question is ignored while the right one may still come (RFC 5452 §9).

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use crate::{
    resolver::TryError,
    wire::{self, HEADER_LEN, rcode},
};

/// Longer than what we say we take: some upstreams do not listen.
const RECEIVE_MAX: usize = 4_096;

pub(super) async fn exchange(upstream: SocketAddr, query: &[u8]) -> Result<Vec<u8>, TryError> {
    let socket = connect(upstream).map_err(|error| failed(&error))?;
    socket.send(query).await.map_err(|error| failed(&error))?;
    loop {
        // "Port unreachable" makes a socket not readable, only faulty.
        let ready =
            socket.ready(Interest::READABLE | Interest::ERROR).await.map_err(|error| failed(&error))?;
        if ready.is_error() {
            let error = socket.take_error().ok().flatten();
            return Err(error.map_or(TryError::Network, |error| failed(&error)));
        }
        match receive(&socket, query) {
            Ok(Some(reply)) => return Ok(reply),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed(&error)),
        }
    }
}

/// A socket of its own for each query: Linux binds it to a random port as it connects.
fn connect(upstream: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(upstream), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.connect(&upstream.into())?;
    UdpSocket::from_std(socket.into())
}

/// Not async, so that the buffer is on the stack of a moment and not in every waiting task.
fn receive(socket: &UdpSocket, query: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0; RECEIVE_MAX];
    let length = socket.try_recv(&mut buffer)?;
    let reply = &buffer[..length];
    Ok(answers(query, reply).then(|| reply.to_vec()))
}

/// Whether this can be the reply to our query. Names are compared without case: what a difference there means the resolver
/// decides.
fn answers(query: &[u8], reply: &[u8]) -> bool {
    let Some(header) = reply.first_chunk::<HEADER_LEN>() else { return false };
    if header[..2] != query[..2] || header[2] & 0x80 == 0 {
        return false;
    }
    let error = !matches!(header[3] & 0x0f, rcode::NOERROR | rcode::NXDOMAIN);
    match (wire::read_question(query), wire::read_question(reply)) {
        // BIND and others leave the question out of an error.
        _ if error && header[4..6] == [0, 0] => true,
        (Some((ours, _)), Some((theirs, _))) => {
            ours.kind == theirs.kind
                && ours.class == theirs.class
                && ours.name.eq_ignore_ascii_case(theirs.name)
        }
        _ => false,
    }
}

fn failed(error: &io::Error) -> TryError {
    if super::session::is_ours(error) { TryError::Local } else { TryError::Network }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{name, wire::Question};

    fn query(id: u16, text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let name = name::from_text(text).unwrap();
        wire::write_query(&mut out, id, &Question { name: &name, kind: 1, class: 1 }, false, false);
        out
    }

    fn reply(id: u16, text: &str, code: u8) -> Vec<u8> {
        let mut reply = query(id, text);
        (reply[2], reply[3]) = (0x81, 0x80 | code);
        reply
    }

    #[test]
    fn only_a_reply_with_our_id_and_question_counts() {
        let query = query(7, "www.example");
        assert!(answers(&query, &reply(7, "www.example", 0)));
        assert!(answers(&query, &reply(7, "WWW.Example", 0)));
        assert!(answers(&query, &reply(7, "www.example", rcode::SERVFAIL)));
        for forged in [
            reply(8, "www.example", 0),
            reply(7, "other.example", 0),
            reply(7, "other.example", rcode::SERVFAIL),
            query.clone(),
            vec![0, 7, 0x81],
            vec![],
        ] {
            assert!(!answers(&query, &forged), "{forged:?}");
        }
        let no_question = [0, 7, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(answers(&query, &no_question), "FORMERR");
        assert!(!answers(&query, &[0, 7, 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]), "NOERROR");
    }

    #[tokio::test]
    async fn a_forged_reply_is_stepped_over_and_a_closed_port_is_seen_at_once() {
        let upstream = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = upstream.local_addr().unwrap();
        let served = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, from) = upstream.recv_from(&mut buffer).unwrap();
            let mut right = buffer[..length].to_vec();
            right[2] |= 0x80;
            let mut forged = right.clone();
            forged[0] ^= 1;
            upstream.send_to(&forged, from).unwrap();
            upstream.send_to(&right, from).unwrap();
            from.port()
        });
        let got = exchange(address, &query(7, "www.example")).await.unwrap();
        assert_eq!(got[..2], [0, 7]);
        served.join().unwrap();
        // The upstream's socket is closed now: the kernel says so, and nobody waits for a timeout.
        assert_eq!(exchange(address, &query(7, "www.example")).await, Err(TryError::Network));
    }
}
