//! The demo's upstream, and a client that prints answers.
//!
//! The upstream is a relay in front of the real one, so it can be stopped without cutting off the
//! machine. It answers for every name below `demo.test`, with a TTL of 5 s, so that the demo needs
//! no network and names expire soon. It forwards everything else unchanged, one socket per query.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net,
    sync::Semaphore,
    time::timeout,
};

use crate::{
    clock,
    dns_message::{A, REFUSED, Record, Reply, SERVFAIL, be16, name_at, query},
};

const AAAA: u16 = 28;

const DEMO_ZONE: &str = "demo.test";
const DEMO_TTL_S: u32 = 5;
/// The longest that `dogwatch dns` waits for an upstream.
const FORWARD_LIMIT: Duration = Duration::from_secs(5);
const IN_FLIGHT_MAX: usize = 256;

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Action {
    Stop,
    Start,
}

#[derive(Args)]
pub(crate) struct Ask {
    /// The names to query (type A)
    #[arg(required = true)]
    names: Vec<String>,
    /// The server; the default is the cache of `cargo xtask up`
    #[arg(long, default_value = "127.0.0.1:5300")]
    server: SocketAddr,
    /// Query once a second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Send this many queries a second and print only a summary
    #[arg(long, requires = "seconds")]
    rate: Option<u32>,
    /// Duration of --rate
    #[arg(long)]
    seconds: Option<u64>,
}

/// While this file exists, `up` keeps the relay stopped.
pub(crate) fn off_file(dir: &Path) -> PathBuf {
    dir.join("upstream.off")
}

/// `cargo xtask upstream stop|start`.
pub(crate) fn switch(action: Action, dir: &Path) -> Result<()> {
    let off = off_file(dir);
    if !dir.join("upstream.pid").exists() {
        bail!("no `cargo xtask up` is running in {}", dir.display());
    }
    match action {
        Action::Stop => fs::write(&off, "").with_context(|| format!("cannot write {}", off.display()))?,
        Action::Start => {
            if let Err(error) = fs::remove_file(&off) {
                bail!("the upstream is already running ({}: {error})", off.display());
            }
        }
    }
    Ok(())
}

/// Serves until it is killed.
pub(crate) fn relay(listen: SocketAddr, to: Option<SocketAddr>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let udp = net::UdpSocket::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        let tcp =
            net::TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        println!("relay on {listen}");
        let room = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        tokio::try_join!(relay_udp(Arc::new(udp), to, room.clone()), relay_tcp(tcp, to, room))?;
        Ok(())
    })
}

async fn relay_udp(socket: Arc<net::UdpSocket>, to: Option<SocketAddr>, room: Arc<Semaphore>) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(permit) = room.clone().try_acquire_owned() else { continue };
        let (query, socket) = (buffer[..length].to_vec(), socket.clone());
        tokio::spawn(async move {
            if let Some(reply) = answer(&query, to).await {
                let _ = socket.send_to(&reply, from).await;
            }
            drop(permit);
        });
    }
}

async fn relay_tcp(listener: net::TcpListener, to: Option<SocketAddr>, room: Arc<Semaphore>) -> Result<()> {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let Ok(permit) = room.clone().try_acquire_owned() else { continue };
        tokio::spawn(async move {
            while let Ok(Ok(query)) = timeout(FORWARD_LIMIT, read_framed(&mut stream)).await {
                let Some(reply) = answer(&query, to).await else { break };
                if write_framed(&mut stream, &reply).await.is_err() {
                    break;
                }
            }
            drop(permit);
        });
    }
}

/// The answer of the demo zone or of the upstream. `None` for no answer, like a dead server.
async fn answer(query: &[u8], to: Option<SocketAddr>) -> Option<Vec<u8>> {
    let question = Question::of(query)?;
    if question.name == DEMO_ZONE || question.name.ends_with(&format!(".{DEMO_ZONE}")) {
        let address = (question.kind == A).then_some(demo_address(&question.name));
        return Some(question.reply(address, DEMO_TTL_S));
    }
    let Some(to) = to else {
        return Some(question.header(REFUSED, 0, 0));
    };
    match timeout(FORWARD_LIMIT, forward(query, to)).await {
        Ok(Ok(reply)) => Some(reply),
        Ok(Err(_)) => Some(question.header(SERVFAIL, 0, 0)),
        Err(_) => None,
    }
}

/// The only question of a query.
struct Question<'a> {
    /// The query up to and including the question.
    query: &'a [u8],
    /// Lower case, without the last dot.
    name: String,
    kind: u16,
}

impl<'a> Question<'a> {
    fn of(query: &'a [u8]) -> Option<Self> {
        if be16(query, 4)? != 1 {
            return None;
        }
        let (name, end) = name_at(query, 12)?;
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        Some(Self { query: query.get(..end + 4)?, name, kind: be16(query, end)? })
    }

    /// One A record, or no record and a SOA, with which a cache may keep the answer (RFC 2308 §5).
    fn reply(&self, address: Option<Ipv4Addr>, ttl_s: u32) -> Vec<u8> {
        let mut message = self.header(0, u8::from(address.is_some()), u8::from(address.is_none()));
        // The owner is the question's name; type and class.
        message.extend([0xc0, 12, 0, if address.is_some() { 1 } else { 6 }, 0, 1]);
        message.extend(ttl_s.to_be_bytes());
        if let Some(address) = address {
            message.extend([0, 4]);
            message.extend(address.octets());
            return message;
        }
        // Both names are the root. Serial, refresh, retry, expire, minimum follow.
        message.extend([0, 22, 0, 0]);
        message.extend([1, 3_600, 600, 86_400, ttl_s].into_iter().flat_map(u32::to_be_bytes));
        message
    }

    fn header(&self, rcode: u8, answers: u8, authorities: u8) -> Vec<u8> {
        let mut message = self.query.to_vec();
        message[2] = 0x80 | self.query[2] & 1;
        message[3] = 0x80 | rcode;
        message[4..12].copy_from_slice(&[0, 1, 0, answers, 0, authorities, 0, 0]);
        message
    }
}

/// Always over TCP: the reply is complete and cannot be a forged datagram.
async fn forward(query: &[u8], to: SocketAddr) -> Result<Vec<u8>> {
    let mut stream = net::TcpStream::connect(to).await?;
    write_framed(&mut stream, query).await?;
    read_framed(&mut stream).await
}

async fn read_framed(stream: &mut net::TcpStream) -> Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_framed(stream: &mut net::TcpStream, message: &[u8]) -> Result<()> {
    let mut framed = u16::try_from(message.len())?.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await?;
    Ok(())
}

/// An address from the documentation range (RFC 5737) that depends on the name.
fn demo_address(name: &str) -> Ipv4Addr {
    let sum = name.bytes().fold(0u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    Ipv4Addr::new(192, 0, 2, sum)
}

/// `cargo xtask ask`.
pub(crate) fn ask(options: &Ask) -> Result<()> {
    if let (Some(rate), Some(seconds)) = (options.rate, options.seconds) {
        return flood(options, rate.max(1), Duration::from_secs(seconds));
    }
    let mut id = 0;
    loop {
        let mut failed = 0;
        for name in &options.names {
            id += 1;
            let from = clock::now();
            let line = match exchange(options.server, id, name, Duration::from_secs(5)) {
                Ok(reply) => show(&reply),
                Err(error) => {
                    failed += 1;
                    format!("{error:#}")
                }
            };
            println!("{name:<24} {line}  ({:.1} ms)", from.elapsed().as_secs_f64() * 1000.0);
        }
        if !options.watch {
            if failed > 0 {
                bail!("{failed} of {} names got no answer from {}", options.names.len(), options.server);
            }
            return Ok(());
        }
        thread::sleep(Duration::from_secs(1));
    }
}

fn show(reply: &Reply) -> String {
    let addresses: Vec<_> = reply.answers.iter().filter_map(address).collect();
    let what = match (reply.rcode, addresses.is_empty()) {
        (0, false) => addresses.join(" "),
        (0, true) => "no address".into(),
        (2, _) => "SERVFAIL".into(),
        (3, _) => "NXDOMAIN".into(),
        (5, _) => "REFUSED".into(),
        (other, _) => format!("rcode {other}"),
    };
    let ttl = reply.answers.iter().map(|record| record.ttl).min();
    let ttl = ttl.map_or(String::new(), |ttl| format!("  ttl {ttl}"));
    let error = reply.extended_error.as_ref();
    let error = error.map_or(String::new(), |(code, text)| format!("  EDE {code} {text}"));
    format!("{what}{ttl}{error}")
}

fn address(record: &Record) -> Option<String> {
    let data = record.data.as_slice();
    match record.kind {
        A => <[u8; 4]>::try_from(data).ok().map(|octets| Ipv4Addr::from(octets).to_string()),
        AAAA => <[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).to_string()),
        _ => None,
    }
}

/// Queries at a steady rate. A query without a usable answer within 2 s is lost; fails if any is.
fn flood(options: &Ask, rate: u32, duration: Duration) -> Result<()> {
    let (from, pause) = (clock::now(), Duration::from_secs(1) / rate);
    let (mut asked, mut lost, mut worst) = (0u32, 0, Duration::ZERO);
    while clock::now().duration_since(from) < duration {
        let due: Instant = from + pause * asked;
        thread::sleep(due.saturating_duration_since(clock::now()));
        let name = &options.names[asked as usize % options.names.len()];
        let sent = clock::now();
        let id = u16::try_from(asked & 0xFFFF)?;
        match exchange(options.server, id, name, Duration::from_secs(2)) {
            Ok(reply) if reply.rcode == 0 && !reply.answers.is_empty() => {}
            Ok(reply) => {
                lost += 1;
                eprintln!("{name}: {}", show(&reply));
            }
            Err(error) => {
                lost += 1;
                eprintln!("{name}: {error:#}");
            }
        }
        worst = worst.max(sent.elapsed());
        asked += 1;
    }
    println!("{asked} queries, {lost} lost, slowest {:.1} ms", worst.as_secs_f64() * 1000.0);
    if lost > 0 {
        bail!("{lost} of {asked} queries were not answered");
    }
    Ok(())
}

/// Sends one query over UDP from a new socket.
pub(crate) fn exchange(server: SocketAddr, id: u16, name: &str, limit: Duration) -> Result<Reply> {
    let local = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let local = if server.ip().is_loopback() { local } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(local)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(limit))?;
    socket.send(&query(id, name, A, true))?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).with_context(|| format!("no answer from {server}"))?;
    match Reply::read(&buffer[..length]) {
        Some(reply) if reply.id == id => Ok(reply),
        _ => bail!("unreadable answer from {server}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_client_reads_what_the_demo_upstream_answers() {
        let asked = query(7, "WWW.demo.test", A, true);
        let question = Question::of(&asked).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("www.demo.test", A));
        let shown = |bytes: &[u8]| show(&Reply::read(bytes).unwrap());
        assert_eq!(shown(&question.reply(Some([192, 0, 2, 1].into()), 5)), "192.0.2.1  ttl 5");
        assert_eq!(shown(&question.reply(None, 5)), "no address");
        assert_eq!(shown(&question.header(REFUSED, 0, 0)), "REFUSED");
    }

    #[test]
    fn a_stale_answer_shows_its_extended_error() {
        let asked = query(7, "www.demo.test", A, false);
        let mut bytes = Question::of(&asked).unwrap().reply(Some([192, 0, 2, 1].into()), 5);
        bytes[11] = 1;
        bytes.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 10, 0, 15, 0, 6, 0, 3]);
        bytes.extend(b"down");
        assert_eq!(show(&Reply::read(&bytes).unwrap()), "192.0.2.1  ttl 5  EDE 3 down");
    }
}
