//! What people do to a running cache: look at it, take answers out, rehearse an outage. Real processes, the real CLI.

use std::process::{Command, Output};

use dogwatch_tests::{
    dns_client::ask_udp,
    dns_message::{A, NOERROR},
    host::{Host, words},
    process::{binary, free_port, wait_for},
    upstream::{Mood, Upstream, name, right_address},
};
use serde_json::{Value, json};

const NAMES: u32 = 30;
const TTL_S: u32 = 2;

struct Place {
    host: Host,
    upstream: Upstream,
}

impl Place {
    /// A cache that knows some names, the first of them asked for most.
    fn with_names() -> Self {
        let mut host = Host::new();
        let upstream = Upstream::start(([127, 0, 0, 1], free_port()).into()).expect("the port is free");
        host.start_dns(upstream.address);
        let place = Self { host, upstream };
        for number in 0..NAMES {
            for _ in 0..=(NAMES - number) / 10 {
                wait_for("a right answer", || place.resolves(number));
            }
        }
        place
    }

    fn resolves(&self, number: u32) -> bool {
        let cache = ([127, 0, 0, 1], self.host.dns_port).into();
        ask_udp(cache, &name(number, TTL_S), A)
            .is_ok_and(|reply| reply.rcode == NOERROR && reply.addresses() == [right_address(number)])
    }

    fn dns(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary("dogwatch"));
        command.arg("dns").args(arguments).arg("--config").arg(self.host.path("dns.toml"));
        command.output().expect("dogwatch starts")
    }

    fn health(&self) -> String {
        let output = self.dns(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["health"].as_str().unwrap_or_default().to_owned()
    }
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", words(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_cache_is_listed_and_dumped_as_people_read_it() {
    let place = Place::with_names();
    let top: Vec<Value> = serde_json::from_str(&stdout(&place.dns(&["top", "-n", "5", "--json"]))).unwrap();
    assert_eq!(top.len(), 5);
    let uses: Vec<u64> = top.iter().map(|one| one["uses"].as_u64().unwrap()).collect();
    assert!(uses.is_sorted_by(|a, b| a >= b) && uses[0] >= 3, "{uses:?}");
    let table = stdout(&place.dns(&["top"]));
    assert!(
        table.contains("USES")
            && table.contains(&format!("A {}", std::net::Ipv4Addr::from(right_address(0))))
    );

    let dump = stdout(&place.dns(&["dump"]));
    for number in 0..NAMES {
        let record = format!("IN A {}", std::net::Ipv4Addr::from(right_address(number)));
        let line = dump.lines().find(|line| line.starts_with(&format!("{} ", name(number, TTL_S))));
        assert!(line.is_some_and(|line| line.contains(&record)), "{number}: {dump}");
    }
    let one = stdout(&place.dns(&["dump", &name(7, TTL_S), "--json"]));
    assert_eq!(one.lines().count(), 1, "{one}");
    assert_eq!(stdout(&place.dns(&["dump", "nothing.example"])), "");
}

#[test]
fn what_is_flushed_is_asked_anew_and_an_outage_forbids_it() {
    let place = Place::with_names();
    let seven = name(7, TTL_S);
    assert_eq!(stdout(&place.dns(&["flush", &seven, "AAAA"])), "answers flushed: 0\n");
    assert_eq!(stdout(&place.dns(&["flush", &seven])), "answers flushed: 1\n");
    assert_eq!(stdout(&place.dns(&["dump", &seven])), "");
    assert!(place.resolves(7), "upstream is asked again");

    place.upstream.set(Mood::Silent);
    wait_for("the breaker to open", || {
        place.resolves(1);
        place.health() == "down"
    });
    let refused = place.dns(&["flush", &seven]);
    let said = words(&refused);
    assert!(
        !refused.status.success() && said.contains("upstreams are failing") && said.contains("--force"),
        "{said}"
    );
    assert!(place.resolves(7), "it is still there");
    assert_eq!(stdout(&place.dns(&["flush", &seven, "--force"])), "answers flushed: 1\n");
    assert!(!place.resolves(7) && place.resolves(8), "only the one");
}

#[test]
fn a_fire_drill_shows_that_names_resolve_and_that_somebody_is_told_and_then_it_is_over() {
    let mut place = Place::with_names();
    place.host.start_alertd("");
    let often = "kind = \"dns\"\ninterval = \"200ms\"\nretry_interval = \"200ms\"\nmax_attempts = 1\n";
    place.host.start_agent(&format!("[check.dns-upstream]\n{often}"));
    wait_for("healthy sensors", || {
        place.host.service("dns-upstream").is_some_and(|service| service["state"] == "OK")
    });
    let heard = place.upstream.queries();
    let agent = place.host.path("agent.toml");
    let drill = ["drill", "--for", "8s", "--json", "--agent-config", agent.to_str().unwrap()];
    let report: Value = serde_json::from_str(&stdout(&place.dns(&drill))).unwrap();
    assert_eq!(report["passed"], true, "{report}");
    assert_eq!(report["asked"], report["resolved"], "{report}");
    assert!(report["told"].as_object().is_some_and(|told| !told.is_empty()), "{report}");
    assert!(place.upstream.queries() > heard, "after the drill upstream is asked again");
    let mails = place.host.maildir("alertd/mail");
    assert!(mails.iter().any(|mail| mail.contains("FIRE DRILL")), "{mails:?}");
    wait_for("the end", || place.health() == "healthy");

    // An alertd on another host, where the agent's token reads nothing: said, and no part of the verdict.
    let far =
        place.host.write("far.toml", "[alertd]\nurl = \"https://alerts.example:9093\"\ntoken_file = \"t\"\n");
    let drill = ["drill", "--for", "5s", "--json", "--agent-config", far.to_str().unwrap()];
    let report: Value = serde_json::from_str(&stdout(&place.dns(&drill))).unwrap();
    assert_eq!((&report["passed"], &report["told_known"]), (&json!(true), &json!(false)), "{report}");
    assert!(report["unseen"].to_string().contains("another host"), "{report}");
}

#[test]
fn a_drill_can_be_ended_by_hand_and_mistakes_are_said() {
    let place = Place::with_names();
    for (arguments, word) in [
        (&["drill", "--mode", "flood"][..], "blackhole"),
        (&["drill", "--for", "9h"], "4h"),
        (&["drill", "--zone", "a..b"], "not a domain name"),
        (&["drill", "--zone", "nothing.example"], "no recently used name"),
        (&["flush", "a..b"], "not a domain name"),
        (&["flush"], "--zone"),
        (&["flush", "a.example", "NOTYPE"], "not a record type"),
        (&["top", "--by", "size"], "risk"),
        (&["top", "-n", "0"], "1..=2000"),
        (&["dump", "a..b"], "not a domain name"),
    ] {
        let output = place.dns(arguments);
        assert!(
            !output.status.success() && words(&output).contains(word),
            "{arguments:?}: {}",
            words(&output)
        );
    }
    let config = place.host.path("dns.toml");
    let mut command = Command::new(binary("dogwatch"));
    command.args(["dns", "drill", "--for", "1h", "--mode", "servfail", "--config"]).arg(&config);
    let mut drill = dogwatch_tests::process::Process::start("drill", &mut command, place.host.folder());
    wait_for("the drill to be felt", || {
        place.resolves(1);
        place.health() == "down"
    });
    let heard = place.upstream.queries();
    assert!((0..NAMES).all(|number| place.resolves(number)));
    assert_eq!(place.upstream.queries(), heard, "a drill is between us and ourselves");
    let status = stdout(&place.dns(&["status"]));
    assert!(status.starts_with("FIRE DRILL (servfail, all names)"), "{status}");
    let second = place.dns(&["drill"]);
    assert!(words(&second).contains("--stop"), "{}", words(&second));
    assert_eq!(stdout(&place.dns(&["drill", "--stop"])), "no drill is running\n");
    wait_for("health", || place.health() == "healthy");
    wait_for("the watcher to go home", || !drill.running());
}
