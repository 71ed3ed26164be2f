//! The same questions to Unbound and to dogwatch, both forwarding to one NSD, must get the same
//! answers.
//!
//! Zones are made here, the same in each run: real-looking names of all common types, a signed
//! zone, wildcards, aliases, texts that do not fit a datagram, types that nobody knows. Each
//! question is asked in each [`Form`] over UDP, as a miss and as a hit, and over TCP. Compared:
//! rcode, the flags, the answer section as a set (owner, type, data; names without case), TTLs
//! within bounds, the SOA of a negative answer, the question's exact spelling.
//!
//! Tolerated, each for its reason:
//!
//! 1. *Authority and additional sections of positive answers*: Unbound leaves them out
//!    (`minimal-responses`), we pass on what upstream gave.
//! 2. *NSEC, RRSIG and the like beside a SOA in a negative answer without DO* are compared by
//!    neither: Unbound puts a denial together from its own cache of records, we hand on the
//!    message. The SOA must be the same.
//! 3. *TC near the edge*: Unbound compresses anew and may be some bytes longer or shorter; only
//!    when our answer over TCP is within [`EDGE`] bytes of the limit may one truncate and the other
//!    not. What a truncated answer still holds differs too (we send none: RFC 2181 §9); so
//!    truncated answers are compared over TCP only.
//! 4. *TTLs* differ by the seconds between the two misses, and Unbound counts down to 0 where we
//!    round up.
//!
//! Not asked: ANY (Unbound answers with any one record set, RFC 8482), RRSIG as a type of its own
//! (Unbound gives what it happens to hold), aliases that leave their zone (NSD does not follow
//! them; a recursive upstream would, and Unbound goes on by itself where a pure forwarder must
//! not).

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use dogwatch_tests::{
    dns_client::{STUB_TIMEOUT, ask_udp},
    dns_message::{NOERROR, NXDOMAIN, Reply, SOA, query, read_name},
    process::{Process, binary, debian_program, free_port, wait_for},
};

const EDGE: usize = 64;
/// Between a question's first miss and its last hit, generously.
const SLACK_S: u32 = 60;
const THREADS: usize = 4;

/// How a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Edns,
    Do,
    DoCd,
    Cd,
}

const FORMS: [Form; 5] = [Form::Plain, Form::Edns, Form::Do, Form::DoCd, Form::Cd];

#[derive(Debug, Clone)]
struct Question {
    name: String,
    kind: u16,
}

#[test]
fn unbound_and_we_give_the_same_answers() {
    let Some(programs) = ["nsd", "unbound", "ldns-signzone", "ldns-keygen"]
        .into_iter()
        .map(|name| debian_program(name, if name.starts_with("ldns") { "ldnsutils" } else { name }))
        .collect::<Option<Vec<_>>>()
    else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let dir = folder.path();
    let questions = write_zones(dir, &programs[2], &programs[3]);
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (nsd, unbound, ours) = (loopback(free_port()), loopback(free_port()), loopback(free_port()));
    let _nsd = start_nsd(&programs[0], dir, nsd);
    let _unbound = start_unbound(&programs[1], dir, unbound, nsd);
    let mut cache = start_cache(dir, ours, nsd);
    for server in [nsd, unbound, ours] {
        wait_for(&format!("{server} to answer"), || {
            ask_udp(server, "plain.example.", SOA)
                .is_ok_and(|reply| reply.rcode == NOERROR && !reply.answers.is_empty())
        });
    }

    let chunks: Vec<_> = questions.chunks(questions.len().div_ceil(THREADS)).collect();
    let found: Vec<Tally> = thread::scope(|scope| {
        let threads: Vec<_> =
            chunks.iter().map(|chunk| scope.spawn(move || compare(chunk, unbound, ours))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no comparison panics")).collect()
    });
    let total = found.iter().fold(Tally::default(), |mut total, tally| {
        total.add(tally);
        total
    });
    println!(
        "{} questions in {} forms: {} comparisons, {} positive, {} NXDOMAIN, {} NODATA, {} truncated, {} at the edge",
        questions.len(),
        FORMS.len(),
        total.compared,
        total.positive,
        total.nxdomain,
        total.nodata,
        total.truncated,
        total.at_the_edge
    );
    assert!(
        total.different.is_empty(),
        "{} differ:\n{}",
        total.different.len(),
        total.different[..total.different.len().min(20)].join("\n")
    );
    assert!(questions.len() > 2_500 && total.positive > 5_000 && total.nxdomain > 500 && total.nodata > 500);
    assert!(total.truncated > 100 && total.at_the_edge < 100);
    assert!(cache.stop().success());
    assert!(!cache.log().contains("panicked"), "{}", cache.log());
}

#[derive(Debug, Default)]
struct Tally {
    compared: usize,
    positive: usize,
    nxdomain: usize,
    nodata: usize,
    truncated: usize,
    at_the_edge: usize,
    different: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.compared += other.compared;
        self.positive += other.positive;
        self.nxdomain += other.nxdomain;
        self.nodata += other.nodata;
        self.truncated += other.truncated;
        self.at_the_edge += other.at_the_edge;
        self.different.extend_from_slice(&other.different);
    }
}

fn compare(questions: &[Question], unbound: SocketAddr, ours: SocketAddr) -> Tally {
    let mut tally = Tally::default();
    let (mut theirs, mut mine) = (Asker::new(unbound), Asker::new(ours));
    for (number, question) in questions.iter().enumerate() {
        for form in FORMS {
            // The first round is a miss, the second a hit for both.
            for round in ["miss", "hit"] {
                let packet = packet(question, form, u16::try_from(number & 0xffff).unwrap_or(0));
                let whole = (theirs.tcp(&packet), mine.tcp(&packet));
                let datagram = (theirs.udp(&packet), mine.udp(&packet));
                let limit = if form == Form::Plain || form == Form::Cd { 512 } else { 1_232 };
                let what = |transport| {
                    format!("{} TYPE{} {form:?} {transport} {round}", question.name, question.kind)
                };
                judge(&mut tally, &what("TCP"), &packet, &whole.0, &whole.1);
                let cut = |message: &[u8]| message[2] & 2 != 0;
                match (cut(&datagram.0), cut(&datagram.1)) {
                    (false, false) => judge(&mut tally, &what("UDP"), &packet, &datagram.0, &datagram.1),
                    (true, true) => {
                        tally.truncated += 1;
                        if Reply::parse(&datagram.1).id != Reply::parse(&datagram.0).id
                            || datagram.1.len() > limit
                        {
                            tally.different.push(format!("{}: a bad truncated answer", what("UDP")));
                        }
                    }
                    _ if whole.1.len().abs_diff(limit) <= EDGE => tally.at_the_edge += 1,
                    (they, we) => tally.different.push(format!(
                        "{}: TC {they} there, {we} here; {} and {} bytes over TCP",
                        what("UDP"),
                        whole.0.len(),
                        whole.1.len()
                    )),
                }
            }
        }
    }
    tally
}

fn judge(tally: &mut Tally, what: &str, packet: &[u8], theirs: &[u8], ours: &[u8]) {
    let (they, we) = (Reply::parse(theirs), Reply::parse(ours));
    tally.compared += 1;
    match we.rcode {
        NOERROR if we.answers.is_empty() => tally.nodata += 1,
        NOERROR => tally.positive += 1,
        NXDOMAIN => tally.nxdomain += 1,
        _ => {}
    }
    let mut differ = |part: &str, theirs: String, ours: String| {
        if theirs != ours {
            tally.different.push(format!("{what}: {part}\n  there {theirs}\n  here  {ours}"));
        }
    };
    // QR, opcode, AA, TC, RD, RA, Z, AD, CD, rcode: all sixteen.
    differ("flags", format!("{:04x}", they.flags), format!("{:04x}", we.flags));
    differ("OPT", format!("{:?}", they.edns), format!("{:?}", we.edns));
    let question_end = read_name(packet, 12).1 + 4;
    differ("question", format!("{:?}", &packet[12..question_end]), format!("{:?}", &ours[12..question_end]));
    let (their_records, our_records) = (records(theirs), records(ours));
    let set = |records: &[Canonical]| -> BTreeSet<String> {
        records.iter().filter(|record| record.section == 0).map(Canonical::text).collect()
    };
    differ("answers", format!("{:#?}", set(&their_records)), format!("{:#?}", set(&our_records)));
    let count = |records: &[Canonical]| records.iter().filter(|record| record.section == 0).count();
    differ("number of answers", count(&their_records).to_string(), count(&our_records).to_string());
    if we.answers.is_empty() || we.rcode == NXDOMAIN {
        let soa = |records: &[Canonical]| -> BTreeSet<String> {
            records
                .iter()
                .filter(|record| record.section == 1 && record.kind == SOA)
                .map(Canonical::text)
                .collect()
        };
        differ("SOA", format!("{:?}", soa(&their_records)), format!("{:?}", soa(&our_records)));
    }
    for ours in our_records.iter().filter(|record| record.section == 0) {
        let theirs = their_records.iter().find(|record| record.section == 0 && record.text() == ours.text());
        if let Some(theirs) = theirs
            && theirs.ttl.abs_diff(ours.ttl) > SLACK_S
        {
            differ("TTL", format!("{} {}", ours.text(), theirs.ttl), format!("{} {}", ours.text(), ours.ttl));
        }
    }
}

/// A record with its names written out, in lower case.
struct Canonical {
    section: u8,
    owner: String,
    kind: u16,
    ttl: u32,
    data: Vec<u8>,
}

impl Canonical {
    fn text(&self) -> String {
        let mut text = format!("{} TYPE{} ", self.owner, self.kind);
        for byte in &self.data {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

fn records(message: &[u8]) -> Vec<Canonical> {
    let be16 = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    let mut at = read_name(message, 12).1 + 4;
    let counts = [be16(6), be16(8), be16(10)];
    let mut all = Vec::new();
    for (section, count) in (0_u8..).zip(counts) {
        for _ in 0..count {
            let (owner, fixed) = read_name(message, at);
            let (kind, length) = (be16(fixed), usize::from(be16(fixed + 8)));
            let ttl = u32::from(be16(fixed + 4)) << 16 | u32::from(be16(fixed + 6));
            let (start, end) = (fixed + 10, fixed + 10 + length);
            // Only the types of RFC 1035 (and DNAME, SRV in practice) have names that may be
            // compressed.
            let data = match kind {
                2 | 5 | 12 | 39 => written_out(message, start, 1, end),
                6 => written_out(message, start, 2, end),
                15 => [message[start..start + 2].to_vec(), written_out(message, start + 2, 1, end)].concat(),
                33 => [message[start..start + 6].to_vec(), written_out(message, start + 6, 1, end)].concat(),
                _ => message[start..end].to_vec(),
            };
            all.push(Canonical { section, owner: owner.to_lowercase(), kind, ttl, data });
            at = end;
        }
    }
    all
}

/// So many names from `at` on, then what is left until `end`.
fn written_out(message: &[u8], mut at: usize, names: usize, end: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..names {
        let (name, after) = read_name(message, at);
        out.extend(name.to_lowercase().bytes());
        out.push(b' ');
        at = after;
    }
    out.extend(&message[at..end]);
    out
}

fn packet(question: &Question, form: Form, id: u16) -> Vec<u8> {
    let edns = matches!(form, Form::Edns | Form::Do | Form::DoCd);
    let mut packet = query(id, &question.name, question.kind, edns);
    if matches!(form, Form::Do | Form::DoCd) {
        let flags = packet.len() - 4;
        packet[flags] |= 0x80;
    }
    if matches!(form, Form::DoCd | Form::Cd) {
        packet[3] |= 0x10;
    }
    packet
}

/// One client with one UDP socket and one TCP connection, which is opened again when the server has
/// closed it.
struct Asker {
    server: SocketAddr,
    socket: UdpSocket,
    stream: Option<TcpStream>,
}

impl Asker {
    fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a loopback port is free");
        socket.connect(server).expect("loopback is there");
        socket.set_read_timeout(Some(STUB_TIMEOUT)).expect("not zero");
        Self { server, socket, stream: None }
    }

    fn udp(&self, packet: &[u8]) -> Vec<u8> {
        for _ in 0..3 {
            self.socket.send(packet).expect("loopback is there");
            let mut buffer = [0; 4_096];
            // A datagram may be lost on a busy machine.
            while let Ok(length) = self.socket.recv(&mut buffer) {
                if buffer[..2] == packet[..2] {
                    return buffer[..length].to_vec();
                }
            }
        }
        panic!("{} does not answer {packet:?}", self.server)
    }

    fn tcp(&mut self, packet: &[u8]) -> Vec<u8> {
        for _ in 0..3 {
            let stream =
                self.stream.take().or_else(|| TcpStream::connect_timeout(&self.server, STUB_TIMEOUT).ok());
            let Some(mut stream) = stream else { continue };
            if let Some(answer) = exchange(&mut stream, packet) {
                self.stream = Some(stream);
                return answer;
            }
        }
        panic!("{} does not answer {packet:?} over TCP", self.server)
    }
}

fn exchange(stream: &mut TcpStream, packet: &[u8]) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(Duration::from_secs(8))).ok()?;
    stream.set_nodelay(true).ok()?;
    let framed = [&u16::try_from(packet.len()).ok()?.to_be_bytes()[..], packet].concat();
    stream.write_all(&framed).ok()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).ok()?;
    Some(answer)
}

/// Writes the zones and signs one; returns what to ask.
fn write_zones(dir: &Path, signzone: &Path, keygen: &Path) -> Vec<Question> {
    let mut random = fastrand::Rng::with_seed(4_711);
    let mut questions = Vec::new();
    let plain = zone("plain.example", 500, &mut random, &mut questions);
    let signed = zone("signed.example", 120, &mut random, &mut questions);
    let mut reverse = head("100.51.198.in-addr.arpa");
    for host in 1..120 {
        let _ = writeln!(reverse, "{host} {} PTR h{host}.plain.example.", 60 + host);
        questions.push(Question { name: format!("{host}.100.51.198.in-addr.arpa."), kind: 12 });
    }
    fs::write(dir.join("plain.example"), plain).expect("the test folder is writable");
    fs::write(dir.join("100.51.198.in-addr.arpa"), reverse).expect("the test folder is writable");
    fs::write(dir.join("signed.example.unsigned"), signed).expect("the test folder is writable");
    let key = Command::new(keygen)
        .args(["-a", "ECDSAP256SHA256", "-k", "signed.example"])
        .current_dir(dir)
        .output();
    let key = String::from_utf8(key.expect("ldns-keygen starts").stdout).expect("a file's name");
    let mut sign = Command::new(signzone);
    sign.args(["-f", "signed.example", "-e", "20991231000000", "signed.example.unsigned", key.trim()]);
    let output = sign.current_dir(dir).output().expect("ldns-signzone starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    questions
}

fn head(origin: &str) -> String {
    format!(
        "$ORIGIN {origin}.\n$TTL 3600\n@ SOA ns1.{origin}. hostmaster.{origin}. 2026112101 7200 3600 1209600 300\n\
         @ NS ns1.{origin}.\n@ NS ns2.{origin}.\n"
    )
}

/// What real zones have: per number one name of each kind, with the questions that find it, miss
/// its type, or miss it.
#[expect(clippy::too_many_lines, reason = "a table: one arm for each kind of name")]
fn zone(origin: &str, size: u32, random: &mut fastrand::Rng, questions: &mut Vec<Question>) -> String {
    let mut text = head(origin);
    let mut ask = |name: &str, kind: u16| {
        let full = if name.is_empty() { format!("{origin}.") } else { format!("{name}.{origin}.") };
        questions.push(Question { name: full, kind });
    };
    text.push_str("ns1 A 192.0.2.53\nns2 A 192.0.2.54\n*.wild 120 A 198.51.100.9\n*.wild 120 TXT \"any\"\n");
    text.push_str("sub NS ns.sub\nns.sub A 192.0.2.99\n");
    text.push_str("sub DS 60485 13 2 D4B7D520E7BB5F0F67674A0CCEB1E3E0614B93C4F9E99B8383F6A1E4469DA50A\n");
    for kind in [2, 6, 48, 16, 1] {
        ask("", kind);
    }
    ask("sub", 43);
    ask("below.ent", 1);
    ask("ent", 1);
    text.push_str("below.ent A 192.0.2.77\n");
    for number in 0..size {
        let ttl = *random.choice(&[0, 1, 5, 30, 60, 300, 3_600, 86_400]).unwrap_or(&60).max(&60);
        let [_, _, c, d] = number.to_be_bytes();
        let line = |text: &mut String, line: std::fmt::Arguments<'_>| {
            let _ = text.write_fmt(line);
            text.push('\n');
        };
        match number % 10 {
            0 => {
                line(&mut text, format_args!("h{number} {ttl} A 203.0.{c}.{d}"));
                line(&mut text, format_args!("h{number} {ttl} AAAA 2001:db8::{number:x}"));
                for kind in [1, 28, 16, 15] {
                    ask(&format!("h{number}"), kind);
                }
                ask(&format!("H{number}"), 1);
            }
            1 => {
                for address in 0..=random.u8(1..8) {
                    line(&mut text, format_args!("many{number} {ttl} A 203.0.{address}.{d}"));
                }
                for kind in [1, 28] {
                    ask(&format!("MaNy{number}"), kind);
                }
            }
            2 => {
                // A chain of one to six aliases.
                let links = random.u32(1..=6);
                for link in 0..links {
                    line(
                        &mut text,
                        format_args!("l{link}.chain{number} {ttl} CNAME l{}.chain{number}", link + 1),
                    );
                }
                line(&mut text, format_args!("l{links}.chain{number} {ttl} A 203.0.113.{d}"));
                for link in 0..=links {
                    for kind in [1, 5, 28] {
                        ask(&format!("l{link}.chain{number}"), kind);
                    }
                }
            }
            3 => {
                line(&mut text, format_args!("m{number} {ttl} MX 10 mx1.m{number}"));
                line(&mut text, format_args!("m{number} {ttl} MX 20 mx2.m{number}"));
                line(&mut text, format_args!("mx1.m{number} A 203.0.113.1"));
                for kind in [15, 1, 99] {
                    ask(&format!("m{number}"), kind);
                }
                ask(&format!("mx1.m{number}"), 1);
                ask(&format!("nosuch.m{number}"), 1);
            }
            4 => {
                // Texts of 100 bytes to 4 KB: below and above 512 and 1232.
                for part in 0..random.u32(1..22) {
                    line(&mut text, format_args!("t{number} {ttl} TXT \"{part}-{}\"", "x".repeat(190)));
                }
                for kind in [16, 1] {
                    ask(&format!("t{number}"), kind);
                }
            }
            5 => {
                line(&mut text, format_args!("_sip._tcp.s{number} {ttl} SRV 10 60 5060 h0"));
                line(&mut text, format_args!("_sip._tcp.s{number} {ttl} SRV 20 60 5061 h10"));
                line(
                    &mut text,
                    format_args!(
                        "s{number} {ttl} NAPTR 100 10 \"u\" \"E2U+sip\" \"!^.*$!sip:a@example.com!\" ."
                    ),
                );
                ask(&format!("_sip._tcp.s{number}"), 33);
                for kind in [35, 33] {
                    ask(&format!("s{number}"), kind);
                }
            }
            6 => {
                line(&mut text, format_args!("w{number} {ttl} HTTPS 1 . alpn=h2,h3 ipv4hint=203.0.113.7"));
                line(&mut text, format_args!("_8443.w{number} {ttl} SVCB 2 h0 port=8443"));
                ask(&format!("w{number}"), 65);
                ask(&format!("_8443.w{number}"), 64);
                ask(&format!("w{number}"), 64);
            }
            7 => {
                line(&mut text, format_args!("c{number} {ttl} CAA 0 issue \"ca.example\""));
                line(&mut text, format_args!("c{number} {ttl} TYPE65280 \\# 6 0a0b0c0d{c:02x}{d:02x}"));
                line(&mut text, format_args!("c{number} {ttl} TLSA 3 1 1 {}", "ab".repeat(32)));
                for kind in [257, 65_280, 65_281, 52] {
                    ask(&format!("c{number}"), kind);
                }
            }
            8 => {
                for kind in [1, 16, 28] {
                    ask(&format!("x{number}.wild"), kind);
                }
                ask(&format!("a.b{number}.wild"), 1);
                ask(&format!("X{number}.WiLd"), 1);
            }
            _ => {
                for kind in [1, 28, 65] {
                    ask(&format!("no{number}"), kind);
                }
                ask(&format!("a.b.c.no{number}"), 1);
                ask(&format!("_dmarc.no{number}"), 16);
            }
        }
        if number % 7 == 0 {
            for kind in [47, 43, 48] {
                ask(&format!("h{}", number - number % 10), kind);
            }
        }
    }
    text
}

fn start_nsd(nsd: &Path, dir: &Path, address: SocketAddr) -> Process {
    let mut config = format!(
        "server:\n  ip-address: {}@{}\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{dir}\"\n  database: \"\"\n  \
         pidfile: \"{dir}/nsd.pid\"\n  xfrdfile: \"{dir}/xfrd.state\"\n  zonelistfile: \"{dir}/zone.list\"\n  \
         server-count: 1\n  minimal-responses: yes\n  rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\n\
         remote-control:\n  control-enable: no\n",
        address.ip(),
        address.port(),
        dir = dir.display()
    );
    for zone in ["plain.example", "signed.example", "100.51.198.in-addr.arpa"] {
        let _ = write!(config, "zone:\n  name: \"{zone}\"\n  zonefile: \"{zone}\"\n");
    }
    let file = dir.join("nsd.conf");
    fs::write(&file, config).expect("the test folder is writable");
    Process::start("nsd", Command::new(nsd).arg("-d").arg("-c").arg(file), dir)
}

fn start_unbound(unbound: &Path, dir: &Path, address: SocketAddr, upstream: SocketAddr) -> Process {
    let config = format!(
        "server:\n  interface: {ip}@{port}\n  port: {port}\n  username: \"\"\n  chroot: \"\"\n  directory: \"{dir}\"\n  \
         pidfile: \"\"\n  use-syslog: no\n  do-daemonize: no\n  num-threads: 1\n  do-not-query-localhost: no\n  \
         edns-buffer-size: 1232\n  max-udp-size: 1232\n  tcp-idle-timeout: 30000\n  incoming-num-tcp: 64\n  \
         ip-ratelimit: 0\n  qname-minimisation: no\n  aggressive-nsec: no\n  harden-below-nxdomain: no\n  \
         local-zone: \"100.51.198.in-addr.arpa.\" nodefault\n\
         remote-control:\n  control-enable: no\n\
         forward-zone:\n  name: \".\"\n  forward-addr: {up_ip}@{up_port}\n",
        ip = address.ip(),
        port = address.port(),
        dir = dir.display(),
        up_ip = upstream.ip(),
        up_port = upstream.port()
    );
    let file = dir.join("unbound.conf");
    fs::write(&file, config).expect("the test folder is writable");
    Process::start("unbound", Command::new(unbound).arg("-d").arg("-c").arg(file), dir)
}

fn start_cache(dir: &Path, address: SocketAddr, upstream: SocketAddr) -> Process {
    let config = format!(
        "[dns]\nlisten = [\"{address}\"]\nupstreams = [\"{upstream}\"]\nstate_dir = \"{dir}/state\"\n\
         control_socket = \"{dir}/control.sock\"\nmetrics = \"127.0.0.1:0\"\n",
        dir = dir.display()
    );
    let file = dir.join("dns.toml");
    fs::write(&file, config).expect("the test folder is writable");
    Process::start("dns", Command::new(binary("dogwatch")).arg("dns").arg("--config").arg(file), dir)
}
