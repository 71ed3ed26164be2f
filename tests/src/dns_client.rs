//! Queries a DNS server like a stub resolver: one question, one deadline.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use crate::dns_message::{Reply, query};

/// What glibc waits for one try.
pub const STUB_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks over UDP with EDNS.
pub fn ask_udp(server: SocketAddr, name: &str, kind: u16) -> io::Result<Reply> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(STUB_TIMEOUT))?;
    let id = fastrand::u16(..);
    socket.send(&query(id, name, kind, true))?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer)?;
        let reply = Reply::parse(&buffer[..length]);
        if reply.id == id {
            return Ok(reply);
        }
    }
}

/// Asks over TCP (RFC 7766: two bytes of length first).
pub fn ask_tcp(server: SocketAddr, name: &str, kind: u16) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&server, STUB_TIMEOUT)?;
    stream.set_read_timeout(Some(STUB_TIMEOUT))?;
    let message = query(fastrand::u16(..), name, kind, true);
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&message)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(Reply::parse(&answer))
}
