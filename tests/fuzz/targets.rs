//! What a stranger can send, each as a function of bytes that panics when something does not hold.
//!
//! Used twice: by `main.rs` under libFuzzer (`cargo xtask fuzz`), and by
//! `tests/tests/in_process/fuzz.rs`, which replays the corpus and a bounded number of mutations in
//! every test run.

use std::{fs, hash::RandomState, path::PathBuf, sync::OnceLock, time::Duration};

use dogwatch_checks::{State, output, perfdata};
use dogwatch_dns::{
    config::Config,
    snapshot::{self, Anchor},
};
use dogwatch_dns_core::{
    message::{
        name::{self, read_key},
        reply::Transport,
        wire,
    },
    moment::Moment,
    resolver::{Client, Outcome, Remembered, Resolver, Seeds},
    settings::Settings,
};

use super::{irc_line, policy_model};

pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
}

pub(crate) const ALL: &[Target] = &[
    Target { name: "client", run: client },
    Target { name: "upstream", run: upstream },
    Target { name: "session", run: session },
    Target { name: "snapshot", run: snapshot },
    Target { name: "config", run: config },
    Target { name: "resolv_conf", run: resolv_conf },
    Target { name: "alertd_batch", run: alertd_batch },
    Target { name: "plugin", run: plugin },
    Target { name: "irc", run: irc },
];

const CLIENT: Client = Client::Stream(7);

fn resolver() -> Resolver {
    let upstreams = vec![std::net::SocketAddr::from(([192, 0, 2, 1], 53)).into()];
    let seeds = Seeds::repeatable(1, RandomState::new());
    Resolver::new(Settings { upstreams, ..Settings::default() }, seeds, Moment::START)
}

/// A client's packet: first byte even for UDP. Whatever it is, the answer is well formed, fits, and
/// is to this packet.
fn client(bytes: &[u8]) {
    let Some((&first, packet)) = bytes.split_first() else { return };
    let transport = if first & 1 == 0 { Transport::Udp } else { Transport::Tcp };
    let (mut resolver, mut out) = (resolver(), Vec::new());
    let now = Moment::START;
    match resolver.on_query(packet, CLIENT, transport, now, &mut out) {
        Outcome::Drop => assert!(packet.len() < 12 || packet[2] & 0x80 != 0, "a query is dropped"),
        Outcome::Reply => is_answer_to(&out, packet),
        Outcome::Wait => {
            let send = resolver.poll_send().expect("somebody is asked");
            let asked = wire::read_question(packet).expect("it was read").0;
            let passed_on = wire::read_question(&send.message).expect("ours").0;
            assert!(passed_on.name.eq_ignore_ascii_case(asked.name) && passed_on.kind == asked.kind);
            assert_eq!((wire::read_query(&send.message).map(|query| query.edns.is_some())), Ok(true));
            // An answer of forty addresses: whole over TCP, within the client's limit over UDP.
            let reply = many_addresses(&send.message);
            resolver.on_reply(send.try_id, &reply, now);
            let (_, answer) = resolver.poll_reply().expect("an answer");
            is_answer_to(&answer, packet);
            assert!(transport == Transport::Tcp || answer.len() <= 1_232, "{} bytes", answer.len());
            // And the hit is the same as the miss.
            let again = resolver.on_query(packet, CLIENT, transport, now, &mut out);
            assert!(again == Outcome::Reply && out == answer, "hit and miss differ");
            assert!(resolver.poll_reply().is_none() && resolver.poll_send().is_none());
        }
    }
    resolver.audit(now).expect("tables agree");
}

fn is_answer_to(answer: &[u8], packet: &[u8]) {
    assert!(answer.len() >= 12 && answer[..2] == packet[..2] && answer[2] & 0x80 != 0, "{answer:?}");
    assert_eq!(answer[2] & 0x79, packet[2] & 0x79, "opcode and RD");
    walk(answer);
    if answer[5] == 1 {
        let asked = wire::read_question(packet).expect("a question was read").1;
        assert_eq!(wire::read_question(answer).expect("a question").1, asked);
        assert_eq!(answer[12..asked], packet[12..asked], "the question, in the client's case");
    }
}

/// Every record is whole, and nothing follows the last.
fn walk(message: &[u8]) {
    let count = |at: usize| usize::from(message[at]) << 8 | usize::from(message[at + 1]);
    let mut at = 12;
    for number in 0..count(4) + count(6) + count(8) + count(10) {
        loop {
            match message[at] {
                0 => break at += 1,
                len if len >= 0xc0 => break at += 2,
                len => at += 1 + usize::from(len),
            }
        }
        at += if number < count(4) { 4 } else { 10 + count(at + 8) };
    }
    assert_eq!(at, message.len(), "bytes behind the last record");
}

fn many_addresses(query: &[u8]) -> Vec<u8> {
    let (question, end) = wire::read_question(query).expect("ours");
    let mut reply = query[..end].to_vec();
    reply[2] = 0x81;
    reply[3] |= 0x80;
    reply[4..12].copy_from_slice(&[0, 1, 0, 40, 0, 0, 0, 0]);
    for last in 0..40 {
        reply.extend([0xc0, 12]);
        reply.extend(question.kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 60, 0, 16, last]);
        reply.extend([last; 15]);
    }
    reply
}

/// An upstream's message, to a client that asked for what stands in it, or for something else
/// (first byte odd). What is told to the client is well formed, then, later and after a restart.
fn upstream(bytes: &[u8]) {
    let Some((&first, message)) = bytes.split_first() else { return };
    let mut query = Vec::new();
    let own = wire::read_question(message).map(|(question, _)| question);
    let other = name::from_text("www.example").expect("a name");
    let question = match own {
        Some(question) if first & 1 == 0 && question.class == 1 => question,
        _ => wire::Question { name: &other, kind: 1, class: 1 },
    };
    wire::write_query(&mut query, 4_711, &question, first & 2 != 0, first & 4 != 0);
    let (mut resolver, mut out) = (resolver(), Vec::new());
    let mut now = Moment::START;
    if resolver.on_query(&query, CLIENT, Transport::Tcp, now, &mut out) != Outcome::Wait {
        return;
    }
    let mut told = false;
    while let Some(send) = resolver.poll_send() {
        resolver.on_reply(send.try_id, message, now);
        // Twice is once.
        resolver.on_reply(send.try_id, message, now);
    }
    while let Some((_, answer)) = resolver.poll_reply() {
        is_answer_to(&answer, &query);
        assert!(!std::mem::replace(&mut told, true), "answered twice");
    }
    resolver.on_wakeup(now);
    resolver.audit(now).expect("tables agree");
    // Every try has come to something, so the client knows.
    assert!(told, "the client waits for nothing");
    let learned = resolver.poll_learned().map(|entry| {
        let flags =
            read_key(&entry.key()).map(|(_, dnssec_ok, checking_disabled)| (dnssec_ok, checking_disabled));
        (entry.kept().message.to_vec(), flags.expect("a key"))
    });
    let Some((message, (dnssec_ok, checking_disabled))) = learned else { return };
    now = now + Duration::from_hours(30);
    let mut restarted = self::resolver();
    let remembered = Remembered {
        dnssec_ok,
        checking_disabled,
        uses: 1,
        age: Duration::from_hours(30),
        ..Remembered::new(&message)
    };
    assert!(restarted.restore(&remembered, now), "what was learned can be restored");
    for mut resolver in [resolver, restarted] {
        // No upstream answers any more: stale, at the latest when the client timer runs out.
        let outcome = resolver.on_query(&query, CLIENT, Transport::Tcp, now, &mut out);
        let mut answer = (outcome == Outcome::Reply).then(|| out.clone());
        resolver.on_wakeup(now + Duration::from_secs(2));
        answer = answer.or_else(|| resolver.poll_reply().map(|(_, answer)| answer));
        let answer = answer.expect("a stale answer in time");
        is_answer_to(&answer, &query);
        assert!(matches!(answer[3] & 15, 0 | 3), "a known name fails");
    }
}

/// A story of queries, replies and time, four bytes a step, against the reference.
fn session(bytes: &[u8]) {
    let Some((&seed, story)) = bytes.split_first() else { return };
    let _ =
        policy_model::play(u64::from(seed), &policy_model::Step::all_from(&story[..story.len().min(600)]));
}

/// A snapshot and a log. First byte: 0 raw bytes; else records with right checksums around the
/// bytes between 0xff.
fn snapshot(bytes: &[u8]) {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let file = |bytes: &[u8]| {
        if first == 0 { bytes.to_vec() } else { snapshot::framed(bytes.split(|&byte| byte == 0xff)) }
    };
    let (older, log) = rest.split_at(rest.len() / 2);
    let (older, log) = (file(older), file(log));
    let now = Anchor::of([7; 16], Duration::from_hours(1), 1_800_000_000_000);
    let mut resolver = resolver();
    let mut last = Duration::MAX;
    let loaded = snapshot::load_bytes(&older, &log, &now, &mut |answer: &Remembered<'_>| {
        assert!(answer.age <= last, "oldest first");
        last = answer.age;
        resolver.restore(answer, Moment::START);
    });
    assert!(resolver.cache().len() <= loaded.answers);
    for report in &loaded.reports {
        assert!(!report.to_string().is_empty());
    }
    // Everything restored can be asked for.
    let names: Vec<_> = resolver.cache().iter().map(|(_, entry)| entry.key().as_bytes().to_vec()).collect();
    for key in names {
        let Some((question, dnssec_ok, checking_disabled)) = read_key(&key) else {
            panic!("no key: {key:?}")
        };
        let (mut query, mut out) = (Vec::new(), Vec::new());
        wire::write_query(&mut query, 1, &question, dnssec_ok, checking_disabled);
        if resolver.on_query(&query, CLIENT, Transport::Tcp, Moment::START, &mut out) == Outcome::Reply {
            is_answer_to(&out, &query);
        }
    }
}

fn scratch(file: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let base = if PathBuf::from("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
        let folder = base.join(format!("dogwatch-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a scratch folder");
        folder
    });
    folder.join(file)
}

/// A dns.toml: right, or every mistake with its place.
fn config(bytes: &[u8]) {
    let path = scratch("dns.toml");
    fs::write(&path, bytes).expect("scratch is writable");
    if let Err(problems) = Config::load(&path) {
        assert!(!problems.0.is_empty(), "refused without a reason");
        assert!(problems.to_string().lines().count() >= 1);
    }
}

/// A resolv.conf, which others write.
fn resolv_conf(bytes: &[u8]) {
    let (path, main) = (scratch("resolv.conf"), scratch("of-resolv.toml"));
    fs::write(&path, bytes).expect("scratch is writable");
    if !main.exists() {
        fs::write(&main, format!("[dns]\nresolv_conf = \"{}\"\n", path.display()))
            .expect("scratch is writable");
    }
    let config = Config::load(&main).expect("a right config");
    let upstreams = config.settings().upstreams;
    assert!(upstreams.iter().all(|upstream| !config.listen.contains(&upstream.address)), "asks itself");
}

/// What an agent posts to alertd: read, written, read again: the same.
fn alertd_batch(bytes: &[u8]) {
    let Ok(batch) = serde_json::from_slice::<dogwatch_wire::Batch>(bytes) else { return };
    let written = serde_json::to_vec(&batch).expect("what was read can be written");
    let again: dogwatch_wire::Batch = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, batch);
}

/// What an IRC server sends, and text of strangers that goes into its channel.
fn irc(bytes: &[u8]) {
    if let Some(message) = irc_line::Message::parse(bytes) {
        assert!(!message.command.is_empty() && message.parameters.len() <= 15, "{message:?}");
        // Said again in our own words it is one line, and the same message.
        let words: Vec<_> = message.parameters.iter().map(String::as_str).collect();
        let said = irc_line::line(&[&message.command], Some(words.join(" ").as_str()));
        let again = irc_line::Message::parse(&said).expect("what we write is a line");
        assert!(again.command == message.command || message.command.len() > 500, "{again:?}");
    }
    let text = String::from_utf8_lossy(bytes);
    for piece in irc_line::pieces(&text, "#ops") {
        let said = irc_line::line(&["PRIVMSG", "#ops"], Some(&piece));
        assert!(said.len() <= 512 && said.ends_with(b"\r\n"), "{} bytes", said.len());
        assert!(!said[..said.len() - 2].iter().any(u8::is_ascii_control), "{said:?}");
        let room = said.len() + 110;
        assert!(room <= 512, "a server would cut it: {room} bytes");
    }
    assert_eq!(irc_line::fold(&text), irc_line::fold(&irc_line::fold(&text)));
}

/// What a plugin prints.
fn plugin(bytes: &[u8]) {
    let Some((&first, printed)) = bytes.split_first() else { return };
    let state = State::from_exit_code(i32::from(first % 4)).expect("0 to 3");
    let result = output::parse(state, printed);
    assert_eq!(result.state, state);
    assert!(result.summary.len() <= output::SUMMARY_MAX && result.detail.len() <= output::DETAIL_MAX);
    let control = |text: &str| text.chars().any(|sign| sign.is_control() && sign != '\n' && sign != '\t');
    assert!(!control(&result.summary) && !control(&result.detail) && !result.summary.contains('\n'));
    // What we pass on as perfdata reads as what we read.
    assert_eq!(perfdata::parse(&perfdata::print(&result.perfdata)).items, result.perfdata);
}
