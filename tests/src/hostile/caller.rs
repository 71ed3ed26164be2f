//! One request, or a part of one, from another user of this host or from another address.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use rustix::process::{Resource, Uid, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// Where a daemon listens.
#[derive(Debug, Clone)]
pub enum Door {
    /// A port of 127.0.0.1, called from this address.
    Tcp {
        port: u16,
        from: [u8; 4],
    },
    Unix(PathBuf),
}

/// A connection of either kind.
pub trait Wire: Read + Write + Send {}

impl<T: Read + Write + Send> Wire for T {}

/// `nobody`: an ordinary user.
pub const NOBODY: u32 = 65_534;
/// `daemon`: a second one.
pub const DAEMON: u32 = 1;
/// The address of the attackers. Everybody else calls from 127.0.0.1.
pub const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

const PATIENCE: Duration = Duration::from_secs(20);
/// Descriptors for the attackers' connections.
const DESCRIPTORS: u64 = 16_384;

/// Makes the calling thread another user's, for good. Its group stays, so that it can open sockets
/// of mode 0660, like a member of the group `dogwatch`.
pub fn become_user(uid: u32) -> io::Result<()> {
    let uid = Uid::from_raw(uid);
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Lets this process hold many connections.
pub fn raise_descriptors() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    limit.current = Some(most);
    Ok(setrlimit(Resource::Nofile, limit)?)
}

impl Door {
    pub fn open(&self) -> io::Result<Box<dyn Wire>> {
        Ok(match self {
            Self::Tcp { port, from } => {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.bind(&SocketAddr::from((*from, 0)).into())?;
                socket.connect_timeout(&SocketAddr::from(([127, 0, 0, 1], *port)).into(), PATIENCE)?;
                let stream = TcpStream::from(socket);
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
        })
    }

    /// Posts and returns the status; `None` if there is no answer.
    pub fn post(&self, path: &str, token: Option<&str>, body: &[u8]) -> Option<u16> {
        let mut wire = self.open().ok()?;
        // The answer may come, and the connection end, before all is sent.
        let _ = wire.write_all(head(path, token, body.len()).as_bytes());
        let _ = wire.write_all(body);
        status(&mut *wire)
    }
}

pub fn head(path: &str, token: Option<&str>, length: usize) -> String {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\n{token}content-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n"
    )
}

/// Of the answer that comes.
pub fn status(wire: &mut dyn Wire) -> Option<u16> {
    let mut start = [0; 12];
    wire.read_exact(&mut start).ok()?;
    String::from_utf8_lossy(&start[9..]).parse().ok()
}
