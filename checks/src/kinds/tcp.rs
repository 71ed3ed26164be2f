//! `tcp`: a port accepts connections in time and sends the expected text.
//!
//! Every failure of the target is CRITICAL: connection refused, no answer, unknown name, unexpected
//! text. All addresses of a name are tried until one answers. Without TLS; for that use `http`.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use crate::{
    Async, BuiltIn, Check, Host, Judgement, Kind, Lane, State, Things, clock,
    options::{OptionSpec, Reader},
    perfdata::Perf,
    result::CheckResult,
    threshold::{Range, Thresholds},
};

pub(crate) const KIND: Kind = Kind {
    name: "tcp",
    about: "connection to a port, response time, expected text",
    options: OPTIONS,
    lane: Lane::Network,
    built_in: BuiltIn::Never,
    interval: None,
    things: Things::None,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "host", value: "HOST", help: "name or address (required)" },
    OptionSpec { name: "port", value: "PORT", help: "port (required)" },
    OptionSpec { name: "send", value: "TEXT", help: "text to send; may contain \\r \\n \\t \\\\" },
    OptionSpec {
        name: "expect",
        value: "TEXT",
        help: "text that the server must send; may contain \\r \\n \\t \\\\",
    },
    OptionSpec {
        name: "warn",
        value: "DURATION",
        help: "WARNING if connection and answer take longer, for example 250ms or 1s",
    },
    OptionSpec { name: "crit", value: "DURATION", help: "CRITICAL if they take longer" },
];

fn make(reader: &mut Reader<'_>, _: &Host) -> Option<Check> {
    let host = reader.text("host");
    let host = reader.required("host", host);
    let port = reader.whole("port", 1..=u16::MAX);
    let port = reader.required("port", port);
    let [send, expect] = ["send", "expect"].map(|name| reader.text(name).map(|text| unescape(&text)));
    let thresholds = times(reader, [None, None]);
    Some(Check::asynchronous(Tcp { host: host?, port: port?, send, expect, thresholds }))
}

/// The `warn` and `crit` options of a check that measures time. The ranges are in seconds.
pub(crate) fn times(reader: &mut Reader<'_>, defaults: [Option<Duration>; 2]) -> Thresholds {
    let limits = reader.times(["warn", "crit"], defaults, Reader::time);
    let [warn, crit] = limits.map(|limit| limit.map(|limit| Range::above(limit.as_secs_f64())));
    Thresholds { warn, crit }
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(code @ ('r' | 'n' | 't' | '\\'))) => {
                out.push(match code {
                    'r' => '\r',
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                });
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

struct Tcp {
    host: String,
    port: u16,
    send: Option<String>,
    expect: Option<String>,
    thresholds: Thresholds,
}

impl Async for Tcp {
    fn run(self: Arc<Self>, limit: Duration) -> Pin<Box<dyn Future<Output = Judgement> + Send>> {
        Box::pin(async move {
            let started = clock::now();
            let mut said = Vec::new();
            let outcome = timeout(limit, self.talk(&mut said)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(self.late(&said, limit)));
            judge(&self.target(), outcome, started.elapsed(), self.thresholds).into()
        })
    }
}

impl Tcp {
    fn target(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Waits for the expected text of the server, if there is one. What it sends is added to
    /// `said`. The error is for people.
    async fn talk(&self, said: &mut Vec<u8>) -> Result<(), String> {
        let reached = reach(&self.host, self.port).await?;
        if self.send.is_none() && self.expect.is_none() {
            return Ok(());
        }
        let mut stream = reached.stream()?;
        if let Some(text) = &self.send {
            stream.write_all(text.as_bytes()).await.map_err(|error| format!("cannot send: {error}"))?;
        }
        match &self.expect {
            Some(wanted) => expect(&mut stream, wanted, said).await,
            None => Ok(()),
        }
    }

    fn late(&self, said: &[u8], limit: Duration) -> String {
        let limit = limit.as_secs_f64();
        match &self.expect {
            Some(wanted) if !said.is_empty() => {
                format!("expected {wanted:?} within {limit} s, got {}", quoted(said))
            }
            _ => format!("no answer within {limit} s"),
        }
    }
}

/// Connects to the first address of `host` that answers. The caller sets the deadline.
pub(crate) async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    reach(host, port).await?.stream()
}

/// A connection.
enum Reached {
    /// At once, as on this host: the runtime does not know of it yet.
    AtOnce(std::net::TcpStream),
    Later(TcpStream),
}

impl Reached {
    fn stream(self) -> Result<TcpStream, String> {
        match self {
            Self::AtOnce(stream) => TcpStream::from_std(stream).map_err(|error| refused(&error)),
            Self::Later(stream) => Ok(stream),
        }
    }
}

/// Tries one address after the other. If one does not answer within [`ADDRESS_PATIENCE`], the next
/// one is tried.
async fn reach(host: &str, port: u16) -> Result<Reached, String> {
    let found = lookup_host((host, port)).await.map_err(|error| format!("cannot resolve {host}: {error}"))?;
    let addresses: Vec<SocketAddr> = found.collect();
    let mut problem = format!("{host} has no address");
    for (at, address) in addresses.iter().enumerate() {
        let last = at + 1 == addresses.len();
        let patience = if last { Duration::MAX } else { ADDRESS_PATIENCE };
        match timeout(patience, dial(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => problem = refused(&error),
            Err(_) => problem = format!("{address} does not answer"),
        }
    }
    Err(problem)
}

/// Waiting for a connection that exists already costs more than asking once whether it does.
async fn dial(address: &SocketAddr) -> io::Result<Reached> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, address) {
        Ok(()) => return Ok(Reached::AtOnce(socket.into())),
        Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let at_once = poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&Timespec::default()))?;
    let stream = std::net::TcpStream::from(socket);
    if at_once > 0 {
        return stream.take_error()?.map_or(Ok(Reached::AtOnce(stream)), Err);
    }
    let stream = TcpStream::from_std(stream)?;
    stream.writable().await?;
    stream.take_error()?.map_or(Ok(Reached::Later(stream)), Err)
}

/// Enough for a lost SYN and its first retransmission.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(3);

fn refused(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        _ => format!("cannot connect: {error}"),
    }
}

/// Reads until the text arrives, up to [`ANSWER_MAX`] bytes.
async fn expect(stream: &mut TcpStream, wanted: &str, said: &mut Vec<u8>) -> Result<(), String> {
    let mut buffer = [0; 1_024];
    loop {
        let length = stream.read(&mut buffer).await.map_err(|error| format!("cannot read: {error}"))?;
        said.extend_from_slice(&buffer[..length]);
        if said.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
            return Ok(());
        }
        if length == 0 && said.is_empty() {
            return Err(format!(
                "expected {wanted:?}, but the server closed the connection without sending anything"
            ));
        }
        if length == 0 || said.len() >= ANSWER_MAX {
            return Err(format!("expected {wanted:?}, got {}", quoted(said)));
        }
    }
}

/// The first line of what the server said, or its first bytes if that is not text.
fn quoted(said: &[u8]) -> String {
    let text = crate::output::clean(&String::from_utf8_lossy(said));
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    if line.is_empty() || line.contains(char::REPLACEMENT_CHARACTER) {
        return format!("\"{}\"", said[..said.len().min(20)].escape_ascii());
    }
    format!("{:?}", line.chars().take(80).collect::<String>())
}

/// No greeting is longer than this.
const ANSWER_MAX: usize = 64 * 1_024;

fn judge(target: &str, outcome: Result<(), String>, took: Duration, thresholds: Thresholds) -> CheckResult {
    let seconds = took.as_secs_f64();
    match outcome {
        Err(problem) => CheckResult::new(State::Critical, format!("{target}: {problem}")),
        Ok(()) => {
            CheckResult::new(thresholds.judge(seconds), format!("{target} answered in {}", in_ms(took)))
                .with_perfdata(vec![time_perf(seconds, thresholds)])
        }
    }
}

pub(crate) fn time_perf(seconds: f64, thresholds: Thresholds) -> Perf {
    // In microseconds: more digits would be noise.
    let rounded = (seconds * 1e6).round() / 1e6;
    Perf::new("time", rounded, "s").thresholds(thresholds.warn, thresholds.crit).bounds(0.0, None)
}

pub(crate) fn in_ms(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::{kind, testing::run_async};

    /// A server that sends a greeting, reads, and sends an answer. Returns its port.
    async fn server(greeting: &'static str, answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(greeting.as_bytes()).await.unwrap();
                let mut buffer = [0; 100];
                let length = stream.read(&mut buffer).await.unwrap_or(0);
                let _ = stream.write_all(&buffer[..length]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        port.to_string()
    }

    #[tokio::test]
    async fn a_port_that_answers_is_ok_with_its_time() {
        let port = server("220 hello\r\n", "").await;
        let result = run_async("tcp", &[("host", "127.0.0.1"), ("port", &port), ("warn", "5s")]).await;
        assert_eq!(result.state, State::Ok, "{}", result.summary);
        let time = &result.perfdata[0];
        assert_eq!(
            (time.label.as_str(), time.unit.as_str(), time.warn),
            ("time", "s", Some(Range::above(5.0)))
        );
        assert!(time.value.unwrap() > 0.0);
    }

    #[tokio::test]
    async fn the_text_is_sent_and_the_expected_answer_is_awaited() {
        let port = server("220 hello\r\n", "221 bye\r\n").await;
        let target = [("host", "localhost"), ("port", &port), ("send", r"QUIT\r\n")];
        let with = async |wanted| run_async("tcp", &[&target[..], &[("expect", wanted)]].concat()).await;
        assert_eq!(with(r"hello\r\nQUIT\r\n221").await.state, State::Ok);
        let wrong = with("250 ok").await;
        assert!(wrong.summary.ends_with("expected \"250 ok\", got \"220 hello\""), "{}", wrong.summary);
    }

    #[tokio::test]
    async fn a_refused_connection_and_an_unknown_name_are_critical() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port().to_string();
        let refused = run_async("tcp", &[("host", "127.0.0.1"), ("port", &free)]).await;
        assert_eq!(refused.state, State::Critical);
        assert_eq!(refused.summary, format!("127.0.0.1:{free}: connection refused"));
        // A label of 64 bytes is too long for a query, so none leaves this host.
        let name = format!("{}.invalid", "x".repeat(64));
        let unknown = run_async("tcp", &[("host", &name), ("port", "1")]).await;
        assert_eq!(unknown.state, State::Critical);
        assert!(unknown.summary.contains(&format!("cannot resolve {name}")), "{}", unknown.summary);
    }

    #[tokio::test]
    async fn a_silent_server_is_critical_at_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let options =
            [("host", "127.0.0.1"), ("port", port.as_str()), ("expect", "220")].into_iter().collect();
        let Ok(Check::Async(check)) = kind("tcp").unwrap().build(&options, &Host::live()) else { panic!() };
        let result = check.run(Duration::from_millis(50)).await.once();
        assert_eq!(result.summary, format!("127.0.0.1:{port}: no answer within 0.05 s"));
    }

    #[tokio::test]
    async fn another_banner_is_shown_with_the_expected_one_even_if_the_server_goes_on_waiting() {
        let said = async |greeting, wanted| {
            let options = [("host", "127.0.0.1"), ("port", &server(greeting, "").await), ("expect", wanted)]
                .into_iter()
                .collect();
            let Ok(Check::Async(check)) = kind("tcp").unwrap().build(&options, &Host::live()) else {
                panic!()
            };
            let summary = check.run(Duration::from_millis(100)).await.once().summary;
            summary.split_once(": ").unwrap().1.to_owned()
        };
        assert_eq!(
            said("SSH-2.0-OpenSSH_9.2\r\n", "220").await,
            "expected \"220\" within 0.1 s, got \"SSH-2.0-OpenSSH_9.2\""
        );
        // A prefix of what is wanted, and a server of another protocol.
        assert_eq!(said("22", "220").await, "expected \"220\" within 0.1 s, got \"22\"");
        assert_eq!(
            said("\x05\0\0\x01\u{0}", "+PONG").await,
            "expected \"+PONG\" within 0.1 s, got \"\\x05\\x00\\x00\\x01\\x00\""
        );
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_at_once_is_not_said_to_have_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let result = run_async("tcp", &[("host", "127.0.0.1"), ("port", &port), ("expect", "220")]).await;
        assert!(
            result.summary.ends_with("the server closed the connection without sending anything"),
            "{}",
            result.summary
        );
    }

    #[test]
    fn slow_answers_are_compared_with_the_thresholds() {
        let thresholds = Thresholds { warn: Some(Range::above(0.1)), crit: Some(Range::above(1.0)) };
        let state = |millis| judge("x", Ok(()), Duration::from_millis(millis), thresholds).state;
        assert_eq!([50, 500, 1_500].map(state), [State::Ok, State::Warning, State::Critical]);
    }

    #[test]
    fn host_and_port_are_required_and_validated() {
        let build = |pairs: &[(&str, &str)]| {
            let errors =
                kind("tcp").unwrap().build(&pairs.iter().copied().collect(), &Host::live()).unwrap_err();
            errors.into_iter().map(|error| error.option).collect::<Vec<_>>()
        };
        assert_eq!(build(&[]), ["host", "port"]);
        assert_eq!(build(&[("host", "x"), ("port", "0"), ("warn", "soon")]), ["port", "warn"]);
    }
}
