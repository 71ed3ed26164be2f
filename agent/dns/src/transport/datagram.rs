//! UDP. Forged replies are ignored and do not fail the try: the kernel drops packets that do not
//! come from the upstream's address and port, and a reply with another ID or question is skipped
//! while the right one may still arrive (RFC 5452 §9).

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use dogwatch_dns_core::{
    message::wire::{self, HEADER_LEN, rcode},
    resolver::{Send, TryError},
};

/// Larger than the size that our queries announce, because some upstreams ignore it.
const RECEIVE_MAX: usize = 4_096;

/// Sends the query and waits for the reply. Runs `other_case` at the first reply whose letter case
/// differs, if it matters. Counts replies that cannot be the upstream's in `forged`.
pub(super) async fn exchange(
    send: &Send,
    forged: &AtomicU32,
    other_case: impl Future<Output = ()>,
) -> Result<Vec<u8>, TryError> {
    let socket = connect(send.upstream.address).map_err(|error| failed(&error))?;
    socket.send(&send.message).await.map_err(|error| failed(&error))?;
    let mut other_case = Some(other_case);
    loop {
        // "Port unreachable" sets only the error state; the socket does not become readable.
        let ready =
            socket.ready(Interest::READABLE | Interest::ERROR).await.map_err(|error| failed(&error))?;
        if ready.is_error() {
            let error = socket.take_error().ok().flatten();
            return Err(error.map_or(TryError::Network, |error| failed(&error)));
        }
        match receive(&socket, send) {
            Ok((Heard::Reply, reply)) => return Ok(reply),
            Ok((Heard::OtherCase, _)) => {
                if let Some(tell) = other_case.take() {
                    tell.await;
                }
            }
            Ok((Heard::Noise, _)) => {
                forged.fetch_add(1, Ordering::Relaxed);
                // A flood to this port must not keep the loop from its other work.
                tokio::task::yield_now().await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed(&error)),
        }
    }
}

/// A new socket for each query: Linux gives it a random port on connect.
fn connect(upstream: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(upstream), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.connect(&upstream.into())?;
    UdpSocket::from_std(socket.into())
}

/// Not async, so that the buffer is on the stack and not in every waiting task.
fn receive(socket: &UdpSocket, send: &Send) -> io::Result<(Heard, Vec<u8>)> {
    let mut buffer = [0; RECEIVE_MAX];
    let length = socket.try_recv(&mut buffer)?;
    let reply = &buffer[..length];
    let heard = hear(&send.message, reply, send.letters_matter);
    Ok((heard, if heard == Heard::Reply { reply.to_vec() } else { Vec::new() }))
}

/// A packet received on a query's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Reply,
    /// It matches except for the letter case.
    OtherCase,
    /// Unrelated or forged.
    Noise,
}

/// Whether this can be the reply to our query. The resolver decides whether the letter case
/// matters.
fn hear(query: &[u8], reply: &[u8], letters_matter: bool) -> Heard {
    let Some(header) = reply.first_chunk::<HEADER_LEN>() else { return Heard::Noise };
    if header[..2] != query[..2] || header[2] & 0x80 == 0 {
        return Heard::Noise;
    }
    let error = !matches!(header[3] & 0x0f, rcode::NOERROR | rcode::NXDOMAIN);
    match (wire::read_question(query), wire::read_question(reply)) {
        // BIND and others omit the question in an error reply.
        _ if error && header[4..6] == [0, 0] => Heard::Reply,
        (Some((ours, _)), Some((theirs, _))) if ours.kind == theirs.kind && ours.class == theirs.class => {
            match ours.name.eq_ignore_ascii_case(theirs.name) {
                true if letters_matter && ours.name != theirs.name => Heard::OtherCase,
                true => Heard::Reply,
                false => Heard::Noise,
            }
        }
        _ => Heard::Noise,
    }
}

fn failed(error: &io::Error) -> TryError {
    if super::session::is_ours(error) { TryError::Local } else { TryError::Network }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicBool, time::Duration};

    use super::*;
    use dogwatch_dns_core::message::{name, reply::Transport, wire::Question};

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
    fn only_a_reply_with_our_id_and_question_is_accepted() {
        let query = query(7, "www.example");
        let answers = |query: &[u8], reply: &[u8]| hear(query, reply, false) == Heard::Reply;
        assert!(answers(&query, &reply(7, "www.example", 0)));
        assert!(answers(&query, &reply(7, "WWW.Example", 0)));
        assert_eq!(hear(&query, &reply(7, "www.example", 0), true), Heard::Reply);
        assert_eq!(hear(&query, &reply(7, "WWW.Example", 0), true), Heard::OtherCase);
        assert_eq!(hear(&query, &reply(8, "WWW.Example", 0), true), Heard::Noise);
        assert!(answers(&query, &reply(7, "www.example", rcode::SERVFAIL)));
        for forged in [
            reply(8, "www.example", 0),
            reply(7, "other.example", 0),
            reply(7, "other.example", rcode::SERVFAIL),
            query.clone(),
            vec![0, 7, 0x81],
            vec![],
        ] {
            assert_eq!(hear(&query, &forged, true), Heard::Noise, "{forged:?}");
            assert_eq!(hear(&query, &forged, false), Heard::Noise, "{forged:?}");
        }
        let no_question = [0, 7, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(answers(&query, &no_question), "FORMERR");
        assert!(!answers(&query, &[0, 7, 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]), "NOERROR");
    }

    #[tokio::test]
    async fn a_forged_reply_is_ignored_and_a_closed_port_fails_at_once() {
        let upstream = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = upstream.local_addr().unwrap();
        let served = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, from) = upstream.recv_from(&mut buffer).unwrap();
            let mut right = buffer[..length].to_vec();
            right[2] |= 0x80;
            for (at, change) in [(0, 1), (13, 0x20), (13, 0x20)] {
                let mut forged = right.clone();
                forged[at] ^= change;
                upstream.send_to(&forged, from).unwrap();
            }
            upstream.send_to(&right, from).unwrap();
            from.port()
        });
        let send = Send {
            try_id: 1,
            upstream: address.into(),
            transport: Transport::Udp,
            message: query(7, "www.example"),
            letters_matter: true,
            late_after: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            probe: false,
        };
        let told = AtomicBool::new(false);
        let forged = AtomicU32::new(0);
        let got = exchange(&send, &forged, async { told.store(true, Ordering::Relaxed) }).await.unwrap();
        assert_eq!((&got[..2], got[13]), (&[0, 7][..], b'w'));
        assert!(told.load(Ordering::Relaxed));
        assert_eq!(forged.into_inner(), 1, "the wrong id");
        served.join().unwrap();
        // The upstream's socket is closed now: the try fails at once instead of timing out.
        assert_eq!(exchange(&send, &AtomicU32::new(0), async {}).await, Err(TryError::Network));
    }
}
