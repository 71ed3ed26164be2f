//! UDP sockets with large receive buffers, so that datagrams are lost only by the server under
//! test.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use socket2::{Domain, SockRef, Socket, Type};

const BUFFER: usize = 4 << 20;

/// A socket for a server.
pub fn bound(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A socket for a client.
pub fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    SockRef::from(&socket).set_recv_buffer_size(BUFFER)?;
    Ok(socket)
}
