//! `dnsquery`: a DNS server gives the expected answer in time.
//!
//! Asks over UDP, and over TCP if the answer is truncated. Without `server`, the system's servers
//! are asked in turn until one answers. Every failure is CRITICAL: no answer, an error code, no
//! record, another answer than expected. It does not validate DNSSEC and knows no search list. The
//! health of dogwatch's own DNS cache is kind `dns`.

use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::proto::{
    op::ResponseCode,
    rr::{Name, RecordType},
};
use tokio::{net::lookup_host, time::timeout};

use crate::{
    Async, BuiltIn, Check, Host, Judgement, Kind, Lane, State, Things, clock, dns_client,
    kinds::tcp::{in_ms, time_perf, times},
    options::{OptionSpec, Reader},
    pattern::Pattern,
    result::CheckResult,
    root::Root,
    threshold::Thresholds,
};

pub(crate) const KIND: Kind = Kind {
    name: "dnsquery",
    about: "answer of a DNS server and its response time",
    options: OPTIONS,
    lane: Lane::Network,
    built_in: BuiltIn::Never,
    interval: None,
    things: Things::None,
    make,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "name", value: "NAME", help: "name, or an address for PTR (required)" },
    OptionSpec { name: "type", value: "TYPE", help: "type of the records [A; PTR for an address]" },
    OptionSpec {
        name: "server",
        value: "HOST[:PORT]",
        help: "server to ask [the servers in /etc/resolv.conf, in turn]",
    },
    OptionSpec {
        name: "expect",
        value: "ANSWER",
        help: "expected record, with * and ? as wildcards, for example 192.0.2.* or \"10 mx1.example.org\"; \
               can be a list, which must match all records; or NXDOMAIN, NODATA or REFUSED [any record]",
    },
    OptionSpec { name: "warn", value: "DURATION", help: "WARNING if the answer takes longer [1s]" },
    OptionSpec { name: "crit", value: "DURATION", help: "CRITICAL if the answer takes longer [5s]" },
];

fn make(reader: &mut Reader<'_>, host: &Host) -> Option<Check> {
    let text = reader.text("name");
    let text = reader.required("name", text)?;
    let address: Option<IpAddr> = text.parse().ok();
    let mut name = address
        .map_or_else(|| Name::from_utf8(&text), |address| Ok(Name::from(address)))
        .map_err(|error| reader.error("name", format!("{text:?} is not a DNS name: {error}")))
        .ok()?;
    name.set_fqdn(true); // without a dot at the end, too
    let kind = reader.parsed("type", |text| {
        RecordType::from_str(&text.to_uppercase())
            .map_err(|_| format!("{text:?} is not a record type; write for example \"AAAA\" or \"MX\""))
    });
    let default = if address.is_some() { RecordType::PTR } else { RecordType::A };
    let expect = reader.list("expect");
    let expect = expect.map_or(Expect::Any, |list| Expect::of(&list));
    if expect == Expect::Records(Vec::new()) {
        reader.error("expect", "must not be empty; write NODATA if no record is expected");
    }
    let server = reader.parsed("server", server);
    let time = times(reader, [Some(Duration::from_secs(1)), Some(Duration::from_secs(5))]);
    Some(Check::asynchronous(DnsQuery {
        asked: Asked { shown: text, name, kind: kind.unwrap_or(default), expect, time },
        server,
        root: host.root.clone(),
    }))
}

/// A host and a port: `ns1.example.org`, `192.0.2.1:5353`, `::1`, `[::1]:53`.
fn server(text: &str) -> Result<(String, u16), String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((address.ip().to_string(), address.port()));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text.to_owned(), PORT));
    }
    match text.rsplit_once(':') {
        _ if text.is_empty() => Err("must not be empty".into()),
        None => Ok((text.to_owned(), PORT)),
        Some((host, port)) if !host.is_empty() && !host.contains(':') => {
            let port = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
            Ok((host.to_owned(), port))
        }
        Some(_) => Err(format!("{text:?} is not a host; write for example \"192.0.2.1\" or \"[::1]:53\"")),
    }
}

const PORT: u16 = 53;

/// What the answer must be.
#[derive(Debug, PartialEq)]
enum Expect {
    /// At least one record.
    Any,
    /// Each record matches a pattern, and each pattern a record.
    Records(Vec<Pattern>),
    /// A name without records of this type.
    NoData,
    Code(ResponseCode),
}

impl Expect {
    fn of(list: &[String]) -> Self {
        match list {
            [one] if one == "NODATA" => Self::NoData,
            [one] if one == "NXDOMAIN" => Self::Code(ResponseCode::NXDomain),
            [one] if one == "REFUSED" => Self::Code(ResponseCode::Refused),
            list => Self::Records(list.iter().map(|text| Pattern::new(normal(text))).collect()),
        }
    }
}

/// Names are the same in any case, with or without a dot at the end.
fn normal(record: &str) -> String {
    record.trim_end_matches('.').to_lowercase()
}

struct DnsQuery {
    asked: Asked,
    server: Option<(String, u16)>,
    root: Root,
}

/// The question, and what the answer must be.
struct Asked {
    /// As in the config.
    shown: String,
    name: Name,
    kind: RecordType,
    expect: Expect,
    time: Thresholds,
}

/// What a server said.
#[derive(Debug)]
struct Answer {
    server: String,
    code: ResponseCode,
    /// The records of the type that was asked for, in zone-file format.
    records: Vec<String>,
}

impl Async for DnsQuery {
    fn run(self: Arc<Self>, limit: Duration) -> Pin<Box<dyn Future<Output = Judgement> + Send>> {
        Box::pin(async move {
            let started = clock::now();
            let mut problem = "no answer".to_owned();
            let answer = timeout(limit, self.ask(&mut problem)).await.ok().flatten();
            match answer {
                Some(answer) => self.asked.judge(&answer, started.elapsed()).into(),
                None => self.asked.critical(&problem).into(),
            }
        })
    }
}

impl DnsQuery {
    /// Asks the servers in turn until one answers. `problem` is the last one, also if the caller's
    /// deadline ends this.
    async fn ask(&self, problem: &mut String) -> Option<Answer> {
        let servers = match &self.server {
            Some(server) => vec![server.clone()],
            None => system_servers(&self.root),
        };
        for _ in 0..ROUNDS {
            for (host, port) in &servers {
                let shown = shown(host, *port);
                *problem = format!("no answer from {shown}");
                match timeout(PATIENCE, self.asked.exchange(host, *port)).await {
                    Ok(Ok((code, records))) => return Some(Answer { server: shown, code, records }),
                    Ok(Err(error)) => {
                        *problem = format!("no answer from {shown} ({error})");
                        tokio::time::sleep(PAUSE).await;
                    }
                    Err(_) => {}
                }
            }
        }
        None
    }
}

const ROUNDS: u8 = 3;
/// For one server, before the next one or another attempt.
const PATIENCE: Duration = Duration::from_secs(2);
/// After an error, which may come at once.
const PAUSE: Duration = Duration::from_millis(200);

fn shown(host: &str, port: u16) -> String {
    match (port, host.contains(':')) {
        (PORT, _) => host.to_owned(),
        (port, true) => format!("[{host}]:{port}"),
        (port, false) => format!("{host}:{port}"),
    }
}

/// The servers in resolv.conf. Without any, the C library asks this host.
fn system_servers(root: &Root) -> Vec<(String, u16)> {
    let text = std::fs::read_to_string(root.path("/etc/resolv.conf")).unwrap_or_default();
    let servers = name_servers(&text);
    if servers.is_empty() { vec![("127.0.0.1".to_owned(), PORT)] } else { servers }
}

fn name_servers(resolv_conf: &str) -> Vec<(String, u16)> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten().map(str::to_owned)
    };
    resolv_conf.lines().filter_map(server).take(SERVERS_MAX).map(|server| (server, PORT)).collect()
}

/// The C library reads no more.
const SERVERS_MAX: usize = 3;

impl Asked {
    async fn exchange(&self, host: &str, port: u16) -> Result<(ResponseCode, Vec<String>), String> {
        let found = lookup_host((host, port)).await;
        let mut found = found.map_err(|error| format!("cannot resolve {host}: {error}"))?;
        let server = found.next().ok_or_else(|| format!("{host} has no address"))?;
        let answer = dns_client::ask(server, &self.name, self.kind).await?;
        let records = answer.answers.iter().filter(|record| record.record_type() == self.kind);
        let mut records: Vec<_> = records.map(|record| record.data.to_string()).collect();
        records.sort();
        Ok((answer.metadata.response_code, records))
    }

    fn critical(&self, problem: &str) -> CheckResult {
        CheckResult::new(State::Critical, format!("{} {}: {problem}", self.shown, self.kind))
    }

    fn judge(&self, answer: &Answer, took: Duration) -> CheckResult {
        let seconds = took.as_secs_f64();
        let mut state = self.time.judge(seconds);
        let said = said(answer.code, &answer.records);
        let mut summary =
            format!("{} {}: {said} from {} in {}", self.shown, self.kind, answer.server, in_ms(took));
        if let Some(wanted) = self.missed(answer) {
            state = State::Critical;
            summary.push_str(&wanted);
        }
        let shown = crate::output::clean(&summary).replace('\n', " ");
        let cut = shown.floor_char_boundary(crate::output::SUMMARY_MAX);
        CheckResult::new(state, &shown[..cut]).with_perfdata(vec![time_perf(seconds, self.time)])
    }

    /// What was expected, if the answer is something else.
    fn missed(&self, answer: &Answer) -> Option<String> {
        let fine = answer.code == ResponseCode::NoError;
        match &self.expect {
            Expect::Any if fine && !answer.records.is_empty() => None,
            Expect::Any => Some(String::new()),
            Expect::NoData if fine && answer.records.is_empty() => None,
            Expect::NoData => Some(", expected no record".to_owned()),
            Expect::Code(code) if *code == answer.code => None,
            Expect::Code(code) => Some(format!(", expected {}", code_name(*code))),
            Expect::Records(patterns) => {
                let records: Vec<_> = answer.records.iter().map(|record| normal(record)).collect();
                let matched = fine
                    && records.iter().all(|record| patterns.iter().any(|pattern| pattern.matches(record)))
                    && patterns.iter().all(|pattern| records.iter().any(|record| pattern.matches(record)));
                let wanted: Vec<_> = patterns.iter().map(Pattern::as_str).collect();
                (!matched).then(|| format!(", expected {}", wanted.join(", ")))
            }
        }
    }
}

fn said(code: ResponseCode, records: &[String]) -> String {
    match code {
        ResponseCode::NoError if records.is_empty() => "no record".to_owned(),
        ResponseCode::NoError => records.join(", "),
        code => code_name(code),
    }
}

/// The names that other tools print.
fn code_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::NXDomain => "NXDOMAIN (no such name)".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        other => format!("error code {}", u16::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::{
        op::Message,
        rr::{
            RData, Record,
            rdata::{CNAME, MX, TXT},
        },
    };
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, UdpSocket},
    };

    use super::*;
    use crate::{
        kind,
        testing::{fixture, run_async},
    };

    /// A server that knows a few names and refuses the rest. Returns its address.
    async fn stub() -> String {
        let (udp, tcp, address) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = udp.local_addr().unwrap();
            // Another test may listen on this port.
            if let Ok(tcp) = TcpListener::bind(address).await {
                break (udp, tcp, address);
            }
        };
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                // A forged answer comes first.
                let mut forged = reply(&question, false);
                forged.metadata.id = forged.metadata.id.wrapping_add(1);
                udp.send_to(&forged.to_vec().unwrap(), client).await.unwrap();
                udp.send_to(&reply(&question, true).to_vec().unwrap(), client).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await.unwrap();
                let answer = reply(&Message::from_vec(&question).unwrap(), false).to_vec().unwrap();
                stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        address.to_string()
    }

    fn reply(question: &Message, udp: bool) -> Message {
        let mut answer = question.clone().into_response();
        let query = question.queries[0].clone();
        let name = query.name().clone();
        let a = |last| RData::A(std::net::Ipv4Addr::new(192, 0, 2, last).into());
        let code = ResponseCode::NoError;
        let (code, data) = match (name.to_string().as_str(), query.query_type()) {
            ("www.example.", RecordType::A) => {
                let target = Name::from_ascii("Web.example.").unwrap();
                (code, vec![RData::CNAME(CNAME(target)), a(2), a(1)])
            }
            ("example.", RecordType::MX) => {
                (code, vec![RData::MX(MX::new(10, Name::from_ascii("Mail.Example.").unwrap()))])
            }
            ("1.2.0.192.in-addr.arpa.", RecordType::PTR) => {
                (code, vec![RData::TXT(TXT::new(vec!["x".into()]))])
            }
            ("long.example.", RecordType::TXT) => {
                answer.metadata.truncation = udp;
                (code, if udp { vec![] } else { vec![RData::TXT(TXT::new(vec!["v=spf1\n -all".into()]))] })
            }
            ("www.example.", _) => (code, vec![]),
            ("gone.example.", _) => (ResponseCode::NXDomain, vec![]),
            _ => {
                answer.queries.clear();
                (ResponseCode::Refused, vec![])
            }
        };
        answer.metadata.response_code = code;
        answer.add_answers(data.into_iter().map(|data| Record::from_rdata(name.clone(), 60, data)));
        answer
    }

    async fn asked(options: &[(&str, &str)]) -> (State, String) {
        let server = stub().await;
        let result = run_async("dnsquery", &[options, &[("server", &server)]].concat()).await;
        let (said, rest) = result.summary.split_once(&format!(" from {server} in ")).unwrap();
        let after = rest.split_once(" ms").unwrap().1;
        (result.state, format!("{said}{after}"))
    }

    #[tokio::test]
    async fn each_expectation_is_compared_with_the_answer() {
        use State::{Critical, Ok};
        const WWW: &str = "www.example A: 192.0.2.1, 192.0.2.2";
        const GONE: &str = "gone.example A: NXDOMAIN (no such name)";
        for (name, expect, state, said) in [
            ("www.example", &[][..], Ok, WWW.to_owned()),
            ("www.example", &["192.0.2.2", "192.0.2.1"], Ok, WWW.to_owned()),
            ("www.example", &["192.0.2.*"], Ok, WWW.to_owned()),
            ("www.example", &["192.0.2.1"], Critical, format!("{WWW}, expected 192.0.2.1")),
            ("www.example", &["192.0.2.*", "10.*"], Critical, format!("{WWW}, expected 192.0.2.*, 10.*")),
            ("www.example", &["NODATA"], Critical, format!("{WWW}, expected no record")),
            ("gone.example", &[], Critical, GONE.to_owned()),
            ("gone.example", &["NXDOMAIN"], Ok, GONE.to_owned()),
            ("gone.example", &["NODATA"], Critical, format!("{GONE}, expected no record")),
            ("else.example", &["REFUSED"], Ok, "else.example A: REFUSED".to_owned()),
            ("else.example", &["*"], Critical, "else.example A: REFUSED, expected *".to_owned()),
        ] {
            let mut options = vec![("name", name)];
            options.extend(expect.iter().map(|expect| ("expect", *expect)));
            assert_eq!(asked(&options).await, (state, said));
        }
    }

    #[tokio::test]
    async fn names_are_the_same_in_any_case_and_with_or_without_a_final_dot() {
        let mail = [("name", "EXAMPLE."), ("type", "mx"), ("expect", "10 mail.example")];
        assert_eq!(asked(&mail).await.0, State::Ok);
    }

    #[tokio::test]
    async fn a_truncated_answer_is_asked_for_again_over_tcp_and_its_text_is_cleaned() {
        let (state, said) = asked(&[("name", "long.example"), ("type", "TXT"), ("expect", "v=spf1*")]).await;
        assert_eq!((state, said.as_str()), (State::Ok, "long.example TXT: v=spf1  -all"));
    }

    #[tokio::test]
    async fn an_answer_without_records_of_the_type_is_critical_unless_expected() {
        let ipv6 = [("name", "www.example"), ("type", "AAAA"), ("expect", "NODATA")];
        assert_eq!(asked(&ipv6).await, (State::Ok, "www.example AAAA: no record".into()));
        assert_eq!(asked(&ipv6[..2]).await, (State::Critical, "www.example AAAA: no record".into()));
        let other = asked(&[("name", "192.0.2.1")]).await;
        assert_eq!(other, (State::Critical, "192.0.2.1 PTR: no record".into()), "the answer has only a TXT");
    }

    #[tokio::test]
    async fn a_refused_port_and_silence_are_critical() {
        let free = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let refused = run_async("dnsquery", &[("name", "a.example"), ("server", &free)]).await;
        let summary = format!("a.example A: no answer from {free} (UDP: connection refused)");
        assert_eq!((refused.state, refused.summary), (State::Critical, summary));

        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = silent.local_addr().unwrap().to_string();
        let options = [("name", "a.example"), ("server", server.as_str())].into_iter().collect();
        let Ok(Check::Async(check)) = kind("dnsquery").unwrap().build(&options, &Host::live()) else {
            panic!()
        };
        let result = check.run(Duration::from_millis(50)).await.once();
        assert_eq!(result.summary, format!("a.example A: no answer from {server}"));
    }

    #[test]
    fn servers_are_written_with_and_without_a_port() {
        let ok = |text: &str| server(text).map(|(host, port)| shown(&host, port));
        for (text, canonical) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("::1", "::1"),
            ("[::1]:53", "::1"),
            ("[::1]:5353", "[::1]:5353"),
            ("ns1.example:54", "ns1.example:54"),
        ] {
            assert_eq!(ok(text).as_deref(), Ok(canonical));
        }
        for wrong in ["", ":53", "ns1:x", "a:b:c", "ns1:99999"] {
            assert!(server(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_servers_of_the_system_are_those_that_the_c_library_asks() {
        let conf = "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\n nameserver\tfe80::1%eth0 \n\
                    nameserver\nnameserver 192.0.2.2\nnameserver 192.0.2.3\noptions edns0\n";
        let hosts: Vec<_> = name_servers(conf).into_iter().map(|(host, _)| host).collect();
        assert_eq!(hosts, ["192.0.2.1", "fe80::1%eth0", "192.0.2.2"]);
        assert_eq!(system_servers(&fixture("no such tree").root), [("127.0.0.1".to_owned(), 53)]);
    }

    #[test]
    fn options_are_validated() {
        let options = [("name", "a..b"), ("type", "MXX"), ("server", "a:b"), ("warn", "x")];
        for (option, value) in options {
            let options =
                [("name", "a.example"), (option, value)].into_iter().skip(usize::from(option == "name"));
            let errors = kind("dnsquery").unwrap().build(&options.collect(), &Host::live()).unwrap_err();
            assert_eq!(errors[0].option, option, "{errors:?}");
        }
    }

    proptest! {
        #[test]
        fn any_resolv_conf_is_read(text in "(nameserver|[ a-z0-9.:#%\n])*|\\PC*") {
            prop_assert!(name_servers(&text).len() <= SERVERS_MAX);
        }
    }
}
