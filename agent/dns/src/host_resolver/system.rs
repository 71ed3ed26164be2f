//! The effects of a switch other than files: commands, DNS queries, time. A trait, so that tests
//! can inject a failure at any point.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use dogwatch_dns_core::message::name;
use jiff::Timestamp;
use serde::Serialize;

use super::layout::{Resolved, Running};
use crate::{clock, random, serve::control::Control};

/// The result of a DNS query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// An answer with this response code.
    Code(u8),
    Silence,
    PortClosed,
    Unreachable,
}

impl Answer {
    /// Whether it is conclusive: the name exists, or it does not.
    pub fn settles(self) -> bool {
        matches!(self, Self::Code(0 | 3))
    }

    pub fn text(self) -> &'static str {
        match self {
            Self::Code(0) => "an answer",
            Self::Code(2) => "SERVFAIL",
            Self::Code(3) => "NXDOMAIN",
            Self::Code(5) => "REFUSED",
            Self::Code(_) => "an error code",
            Self::Silence => "no answer",
            Self::PortClosed => "port closed",
            Self::Unreachable => "unreachable",
        }
    }
}

/// The result of getaddrinfo(3), as programs on the host get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    Found,
    NoSuchName,
    Failed,
}

pub trait System {
    fn running(&mut self) -> Running;
    fn run(&mut self, words: &[String]) -> Result<(), String>;
    fn ask(&mut self, server: IpAddr, name: &str) -> Answer;
    fn look_up(&mut self, name: &str) -> Lookup;
    /// The cache's upstreams.
    fn cache_upstreams(&mut self) -> Result<Vec<IpAddr>, String>;
    /// Whether a query for `name` has reached the cache.
    fn cache_knows(&mut self, name: &str) -> Result<bool, String>;
    /// A label that was never used before.
    fn fresh_label(&mut self) -> String;
    fn pause(&mut self, span: Duration);
    fn now(&self) -> Timestamp;
    /// Called around every lasting change. An error stops everything at once, like a power failure.
    fn step(&mut self) -> Result<(), Died> {
        Ok(())
    }
}

/// The process was killed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Died;

const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// glibc's worst case with two hanging servers and a timeout of one second.
const LOOKUP_WITHIN: Duration = Duration::from_secs(12);

/// The real host. Its calls block, so do not use it on an async thread.
pub struct Real {
    control: Control,
    runtime: tokio::runtime::Handle,
}

impl Real {
    pub fn new(control: Control, runtime: tokio::runtime::Handle) -> Self {
        Self { control, runtime }
    }
}

impl System for Real {
    fn running(&mut self) -> Running {
        let active =
            |unit: &str| said(&["systemctl", "is-active", unit]).is_ok_and(|state| state.trim() == "active");
        let resolved = active("systemd-resolved.service").then(|| {
            let ask = |what| said(&["resolvectl", "--no-pager", what]).unwrap_or_default();
            Resolved::parse(&ask("dns"), &ask("domain"), &ask("default-route"), &ask("dnsovertls"))
        });
        Running {
            resolved,
            network_manager: active("NetworkManager.service"),
            dhclient: processes_named("dhclient"),
        }
    }

    fn run(&mut self, words: &[String]) -> Result<(), String> {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        said(&words).map(drop)
    }

    fn ask(&mut self, server: IpAddr, name: &str) -> Answer {
        match exchange(SocketAddr::new(server, 53), name) {
            Ok(code) => Answer::Code(code),
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => Answer::PortClosed,
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Answer::Silence,
                _ => Answer::Unreachable,
            },
        }
    }

    fn look_up(&mut self, name: &str) -> Lookup {
        // The final dot bypasses the search list. The thread may hang; we do not wait for it.
        let host = (format!("{}.", name.trim_end_matches('.')), 0_u16);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let _ = sender.send(host.to_socket_addrs().map(|mut all| all.next().is_some()));
        });
        match receiver.recv_timeout(LOOKUP_WITHIN) {
            Ok(Ok(true)) => Lookup::Found,
            // EAI_AGAIN means that no server answered; other errors mean no such name or record.
            Ok(Err(error)) if error.to_string().contains("Temporary failure") => Lookup::Failed,
            Ok(_) => Lookup::NoSuchName,
            Err(_) => Lookup::Failed,
        }
    }

    fn cache_upstreams(&mut self) -> Result<Vec<IpAddr>, String> {
        let status = self.runtime.block_on(self.control.status()).map_err(|error| error.to_string())?;
        let addresses = status
            .upstreams
            .iter()
            .filter_map(|upstream| upstream.address.parse::<SocketAddr>().map(|address| address.ip()).ok());
        Ok(addresses.collect())
    }

    fn cache_knows(&mut self, name: &str) -> Result<bool, String> {
        for kind in ["A", "AAAA"] {
            let why =
                self.runtime.block_on(self.control.why(name, kind)).map_err(|error| error.to_string())?;
            if why.held != "not cached" {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn fresh_label(&mut self) -> String {
        format!("dogwatch-check-{:08x}", random::number_u32())
    }

    fn pause(&mut self, span: Duration) {
        thread::sleep(span);
    }

    fn now(&self) -> Timestamp {
        clock::wall()
    }
}

/// Runs a command, without a terminal and in English, and returns its output.
fn said(words: &[&str]) -> Result<String, String> {
    let Some((program, arguments)) = words.split_first() else { return Err("no command".into()) };
    let line = words.join(" ");
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run `{line}`: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{line}` failed with {}: {}", output.status, error.trim()))
}

fn processes_named(name: &str) -> bool {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut names = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok());
    names.any(|comm| comm.trim_end() == name)
}

/// Queries an A record over UDP and returns the response code.
fn exchange(server: SocketAddr, name: &str) -> io::Result<u8> {
    let name = name::from_text(name).ok_or_else(|| io::Error::other("not a domain name"))?;
    let id = {
        let [a, b, ..] = random::number().to_le_bytes();
        u16::from_le_bytes([a, b])
    };
    let mut query = Vec::with_capacity(name.len() + 16);
    // Recursion desired, one question.
    for word in [id, 0x0100, 1, 0, 0, 0] {
        query.extend_from_slice(&word.to_be_bytes());
    }
    query.extend_from_slice(&name);
    query.extend_from_slice(&[0, 1, 0, 1]);
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    // Connected, so only this server's packets arrive, and a closed port is an immediate error.
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    socket.send(&query)?;
    let mut buffer = [0; 4_096];
    for _ in 0..16 {
        let length = socket.recv(&mut buffer)?;
        if length >= 12 && buffer[..2] == id.to_be_bytes() && buffer[2] & 0x80 != 0 {
            return Ok(buffer[3] & 0x0F);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}
