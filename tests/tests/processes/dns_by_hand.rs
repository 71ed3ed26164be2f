//! Commands for a running cache: list and dump, flush, fire drill. With real processes and the real
//! CLI.

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

struct Setup {
    host: Host,
    upstream: Upstream,
}

impl Setup {
    /// A cache that knows some names, the first of them asked for most.
    fn with_names() -> Self {
        let mut host = Host::new();
        let upstream = Upstream::start(([127, 0, 0, 1], free_port()).into()).expect("the port is free");
        host.start_dns(upstream.address);
        let setup = Self { host, upstream };
        for number in 0..NAMES {
            for _ in 0..=(NAMES - number) / 10 {
                wait_for("a right answer", || setup.resolves(number));
            }
        }
        setup
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
    let setup = Setup::with_names();
    let top: Vec<Value> = serde_json::from_str(&stdout(&setup.dns(&["top", "-n", "5", "--json"]))).unwrap();
    assert_eq!(top.len(), 5);
    let uses: Vec<u64> = top.iter().map(|one| one["uses"].as_u64().unwrap()).collect();
    assert!(uses.is_sorted_by(|a, b| a >= b) && uses[0] >= 3, "{uses:?}");
    let table = stdout(&setup.dns(&["top"]));
    assert!(
        table.contains("USES")
            && table.contains(&format!("A {}", std::net::Ipv4Addr::from(right_address(0))))
    );

    let dump = stdout(&setup.dns(&["dump"]));
    for number in 0..NAMES {
        let record = format!("IN A {}", std::net::Ipv4Addr::from(right_address(number)));
        let line = dump.lines().find(|line| line.starts_with(&format!("{} ", name(number, TTL_S))));
        assert!(line.is_some_and(|line| line.contains(&record)), "{number}: {dump}");
    }
    let one = stdout(&setup.dns(&["dump", &name(7, TTL_S), "--json"]));
    assert_eq!(one.lines().count(), 1, "{one}");
    assert_eq!(stdout(&setup.dns(&["dump", "nothing.example"])), "");
}

#[test]
fn what_is_flushed_is_asked_anew_and_an_outage_forbids_it() {
    let setup = Setup::with_names();
    let seven = name(7, TTL_S);
    assert_eq!(stdout(&setup.dns(&["flush", &seven, "AAAA"])), "answers flushed: 0\n");
    assert_eq!(stdout(&setup.dns(&["flush", &seven])), "answers flushed: 1\n");
    assert_eq!(stdout(&setup.dns(&["dump", &seven])), "");
    assert!(setup.resolves(7), "upstream is asked again");

    setup.upstream.set(Mood::Silent);
    wait_for("the breaker to open", || {
        setup.resolves(1);
        setup.health() == "down"
    });
    let refused = setup.dns(&["flush", &seven]);
    let said = words(&refused);
    assert!(
        !refused.status.success() && said.contains("upstreams are failing") && said.contains("--force"),
        "{said}"
    );
    assert!(setup.resolves(7), "it is still there");
    assert_eq!(stdout(&setup.dns(&["flush", &seven, "--force"])), "answers flushed: 1\n");
    assert!(!setup.resolves(7) && setup.resolves(8), "only the one");
}

#[test]
fn a_fire_drill_shows_that_names_resolve_and_that_somebody_is_told_and_then_it_is_over() {
    let mut setup = Setup::with_names();
    setup.host.start_alertd("");
    let often = "kind = \"dns\"\ninterval = \"200ms\"\nretry_interval = \"200ms\"\nmax_attempts = 1\n";
    setup.host.start_agent(&format!("[check.dns-upstream]\n{often}"));
    wait_for("healthy sensors", || {
        setup.host.service("dns-upstream").is_some_and(|service| service["state"] == "OK")
    });
    let heard = setup.upstream.queries();
    let agent = setup.host.path("agent.toml");
    let drill = ["drill", "--for", "8s", "--json", "--agent-config", agent.to_str().unwrap()];
    let report: Value = serde_json::from_str(&stdout(&setup.dns(&drill))).unwrap();
    assert_eq!(report["passed"], true, "{report}");
    assert_eq!(report["asked"], report["resolved"], "{report}");
    assert!(report["told"].as_object().is_some_and(|told| !told.is_empty()), "{report}");
    assert!(setup.upstream.queries() > heard, "after the drill upstream is asked again");
    let mails = setup.host.maildir("alertd/mail");
    assert!(mails.iter().any(|mail| mail.contains("FIRE DRILL")), "{mails:?}");
    wait_for("the end", || setup.health() == "healthy");

    // An alertd on another host, where the agent's token reads nothing: said, and no part of the
    // verdict.
    let far =
        setup.host.write("far.toml", "[alertd]\nurl = \"https://alerts.example:9093\"\ntoken_file = \"t\"\n");
    let drill = ["drill", "--for", "5s", "--json", "--agent-config", far.to_str().unwrap()];
    let report: Value = serde_json::from_str(&stdout(&setup.dns(&drill))).unwrap();
    assert_eq!((&report["passed"], &report["told_known"]), (&json!(true), &json!(false)), "{report}");
    assert!(report["unseen"].to_string().contains("another host"), "{report}");
}

#[test]
fn a_drill_can_be_ended_by_hand_and_mistakes_are_said() {
    let setup = Setup::with_names();
    for (arguments, word) in [
        (&["drill", "--mode", "flood"][..], "blackhole"),
        (&["drill", "--for", "9h"], "4h"),
        (&["drill", "--zone", "a..b"], "not a domain name"),
        (&["drill", "--zone", "nothing.example"], "no recently used name"),
        (&["flush", "a..b"], "not a domain name"),
        (&["flush"], "--zone"),
        (&["flush", "a.example", "NOTYPE"], "not a record type"),
        (&["top", "--by", "size"], "risk"),
        (&["top", "-n", "0"], "from 1 to 2000"),
        (&["dump", "a..b"], "not a domain name"),
    ] {
        let output = setup.dns(arguments);
        assert!(
            !output.status.success() && words(&output).contains(word),
            "{arguments:?}: {}",
            words(&output)
        );
    }
    let config = setup.host.path("dns.toml");
    let mut command = Command::new(binary("dogwatch"));
    command.args(["dns", "drill", "--for", "1h", "--mode", "servfail", "--config"]).arg(&config);
    let mut drill = dogwatch_tests::process::Process::start("drill", &mut command, setup.host.folder());
    wait_for("the drill to be felt", || {
        setup.resolves(1);
        setup.health() == "down"
    });
    let heard = setup.upstream.queries();
    assert!((0..NAMES).all(|number| setup.resolves(number)));
    assert_eq!(setup.upstream.queries(), heard, "a drill is between us and ourselves");
    let status = stdout(&setup.dns(&["status"]));
    assert!(status.starts_with("FIRE DRILL (servfail, all names)"), "{status}");
    let second = setup.dns(&["drill"]);
    assert!(words(&second).contains("--stop"), "{}", words(&second));
    assert_eq!(stdout(&setup.dns(&["drill", "--stop"])), "no drill is running\n");
    wait_for("health", || setup.health() == "healthy");
    wait_for("the watcher to go home", || !drill.running());
}
