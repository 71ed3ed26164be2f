//! An upstream that lies: `dogwatch dns` holds known answers and reports it, and a person ends the
//! hold with `dogwatch dns accept`.

use std::{
    fs,
    net::SocketAddr,
    process::{Command, Output},
};

use dogwatch_tests::{
    dns_client::ask_udp,
    dns_message::{A, NOERROR, NXDOMAIN},
    host::words,
    process::{Process, binary, free_port, holds_within, wait_for},
    upstream::{Mood, Upstream, name, right_address},
};
use serde_json::Value;
use tempfile::TempDir;

const TTL_S: u32 = 1;
const NAMES: std::ops::Range<u32> = 0..40;

struct Host {
    folder: TempDir,
    cache: Process,
    upstream: Upstream,
    address: SocketAddr,
}

impl Host {
    fn start() -> Self {
        Self::start_with("")
    }

    /// With more lines in `[dns]`.
    fn start_with(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let address = loopback(free_port());
        let upstream = Upstream::start(loopback(free_port())).expect("a free port can be bound");
        let state = folder.path().join("state").display().to_string();
        let control = folder.path().join("control.sock").display().to_string();
        let config = format!(
            "[dns]\nlisten = [\"{address}\"]\nupstreams = [\"{}\"]\nstate_dir = {state:?}\n\
             control_socket = {control:?}\nmetrics = \"127.0.0.1:0\"\n{more}",
            upstream.address
        );
        fs::write(folder.path().join("dns.toml"), config).expect("the test folder is writable");
        let mut command = Command::new(binary("dogwatch"));
        command.arg("dns").arg("--config").arg(folder.path().join("dns.toml"));
        let cache = Process::start("dns", &mut command, folder.path());
        let host = Self { folder, cache, upstream, address };
        wait_for("the cache to answer", || ask_udp(host.address, &name(0, TTL_S), A).is_ok());
        host
    }

    /// Asks for each name; returns how many answers were right.
    fn right(&self, names: std::ops::Range<u32>) -> usize {
        let right = |number: &u32| {
            ask_udp(self.address, &name(*number, TTL_S), A)
                .is_ok_and(|reply| reply.rcode == NOERROR && reply.addresses() == [right_address(*number)])
        };
        names.filter(right).count()
    }

    fn try_to_run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary("dogwatch"));
        command.arg("dns").args(arguments).arg("--socket").arg(self.folder.path().join("control.sock"));
        command.output().expect("the built binary can be run")
    }

    /// Runs `dogwatch dns …`; returns what it prints.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_to_run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", words(&output));
        String::from_utf8(output.stdout).expect("dogwatch prints UTF-8")
    }

    fn guard(&self) -> (u64, String) {
        let status: Value = serde_json::from_str(&self.run(&["status", "--json"])).expect("valid JSON");
        let sensors = status["sensors"].as_array().or_else(|| status["cache"]["sensors"].as_array());
        let sensor = sensors
            .and_then(|sensors| sensors.iter().find(|sensor| sensor["name"] == "dns-guard"))
            .unwrap_or_else(|| panic!("no dns-guard in {status}"));
        (sensor["state"].as_u64().unwrap_or(9), sensor["text"].as_str().unwrap_or_default().to_owned())
    }
}

#[test]
fn one_name_that_vanishes_is_held_and_says_so_and_its_deletion_is_honoured_after_the_grace() {
    let host = Host::start_with("vanish_grace = \"10s\"\nhot_vanish_grace = \"10s\"\n");
    assert_eq!(host.right(NAMES), NAMES.len());
    let gone = name(7, TTL_S);
    let ask = || ask_udp(host.address, &gone, A).expect("the cache answers");
    host.upstream.set_only(&gone, Mood::Nxdomain);
    wait_for("the answer to be held", || {
        let reply = ask();
        assert_eq!(
            (reply.rcode, reply.addresses()),
            (NOERROR, vec![right_address(7)]),
            "{}",
            host.cache.log()
        );
        reply.extended_error == Some((3, "held: upstreams say the name is gone".into()))
    });
    let (state, text) = host.guard();
    assert!(
        state == 0 && text.starts_with("rarely used names held") && text.ends_with(": 1"),
        "{state} {text}"
    );
    let why = host.run(&["why", &gone]);
    assert!(why.contains("the upstream says the name or its records are gone"), "{why}");
    assert!(why.contains("the last time by 1 of 1 upstreams"), "{why}");
    wait_for("the deletion to be believed", || ask().rcode == NXDOMAIN);
    wait_for("nothing to be held", || host.guard().1 == "no answers are being held");
    assert_eq!(host.right(8..40), 32);
}

#[test]
fn nxdomain_for_all_is_held_and_paged_and_over_as_soon_as_it_is_over() {
    let host = Host::start();
    assert_eq!(host.right(NAMES), NAMES.len());
    host.upstream.set(Mood::Nxdomain);
    // Until every TTL is over and the guard has seen enough.
    wait_for("the guard to trip", || {
        assert_eq!(host.right(NAMES), NAMES.len(), "{}", host.cache.log());
        host.guard().0 == 2
    });
    let before = host.upstream.queries();
    for _ in 0..50 {
        assert_eq!(host.right(NAMES), NAMES.len());
    }
    let asked = host.upstream.queries() - before;
    assert!(asked <= 50 * NAMES.len() as u64 / 20, "{asked} upstream queries for 2,000");
    let (_, text) = host.guard();
    for part in ["many names in t1.test are gone", "dogwatch dns accept t1.test"] {
        assert!(text.contains(part), "{text}");
    }
    host.upstream.set(Mood::Right);
    wait_for("the guard to see that it is over", || host.guard().0 == 0);
    assert_eq!(host.right(NAMES), NAMES.len());
    wait_for("the log of begin and end", || {
        host.cache.log().matches("says that many names are gone below t1.test").count() == 2
    });
}

#[test]
fn a_person_ends_a_hold_at_once_and_the_log_says_who() {
    let mut host = Host::start();
    assert_eq!(host.right(NAMES), NAMES.len());
    host.upstream.set(Mood::Nxdomain);
    wait_for("the guard to trip", || host.right(NAMES) == NAMES.len() && host.guard().0 == 2);
    let held = name(3, TTL_S);
    wait_for("the name to be held", || {
        host.right(3..4);
        host.run(&["why", &held]).contains(": held")
    });
    let why = host.run(&["why", &held]);
    assert!(why.contains("if the upstream is right: dogwatch dns accept n3.t1.test"), "{why}");

    // One name first: the others stay.
    let said = host.run(&["accept", &held]);
    assert!(said.contains("1 no longer held") || said.contains("no single name"), "{said}");
    wait_for("the upstream's answer for that name", || {
        ask_udp(host.address, &held, A).is_ok_and(|reply| reply.rcode == NXDOMAIN)
    });
    assert_eq!(host.right(4..20), 16);

    let done: Value = serde_json::from_str(&host.run(&["accept", "t1.test", "--json"])).expect("valid JSON");
    assert_eq!((&done["groups"], &done["unguarded_s"]), (&1.into(), &3_600.into()), "{done}");
    assert_eq!(host.guard().0, 0);
    wait_for("the upstream's answers for all names", || {
        NAMES.clone().all(|number| {
            ask_udp(host.address, &name(number, TTL_S), A).is_ok_and(|reply| reply.rcode == NXDOMAIN)
        })
    });
    // Upstream is right again within the hour that nothing is guarded.
    host.upstream.set(Mood::Right);
    wait_for("the names to be back", || host.right(NAMES) == NAMES.len());
    let log = host.cache.log();
    let line = log
        .lines()
        .find(|line| line.contains("upstream answers accepted by hand") && line.contains("t1.test"));
    assert!(line.is_some_and(|line| line.contains("user")), "{log}");
    assert!(host.cache.stop().success());
}

#[test]
fn a_name_that_cannot_be_meant_is_refused_and_nothing_is_let_go() {
    let host = Host::start();
    assert_eq!(host.right(NAMES), NAMES.len());
    host.upstream.set(Mood::Nxdomain);
    wait_for("the guard to trip", || host.right(NAMES) == NAMES.len() && host.guard().0 == 2);
    for (wrong, said) in [
        ("a..b", "\"a..b\" is not a domain name"),
        ("", "\"\" is not a domain name"),
        ("t1.tset", "no name at or below \"t1.tset\" is cached, so none is held: check the spelling"),
        ("n41.t1.test", "no name at or below"),
    ] {
        let output = host.try_to_run(&["accept", wrong]);
        assert!(!output.status.success() && words(&output).contains(said), "{wrong:?}: {}", words(&output));
    }
    assert!(!holds_within(std::time::Duration::from_secs(2), || host.right(NAMES) < NAMES.len()));
    assert_eq!(host.guard().0, 2);
}
