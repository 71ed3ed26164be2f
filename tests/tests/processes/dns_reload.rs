//! A reload by SIGHUP, as `systemctl reload dogwatch-dns` sends it. Cached names stay, a new zone
//! is asked for its own names, and an invalid config changes nothing.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::{Arc, Mutex},
};

use dogwatch_tests::{
    authority::{Data, Fact},
    dns_client::ask_udp,
    dns_message::{A, NOERROR, NXDOMAIN, Reply, SERVFAIL},
    host::words,
    process::{Process, binary, free_port, wait_for},
    upstream::{Mood, Upstream, name, right_address},
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

const LONG_TTL_S: u32 = 3_600;

struct Host {
    folder: TempDir,
    cache: Process,
    address: SocketAddr,
}

fn upstream(facts: &[(&str, Fact)]) -> Upstream {
    let mut data = Data::default();
    for (name, fact) in facts {
        data.set(name, fact.clone());
    }
    let address = ([127, 0, 0, 1], free_port()).into();
    Upstream::start_with(address, Arc::new(Mutex::new(data))).expect("a free port can be bound")
}

fn at(last: u8) -> Fact {
    Fact::Addresses { ttl_s: LONG_TTL_S, addresses: vec![[10, 0, 0, last]] }
}

impl Host {
    /// `dns`: further lines of `[dns]`; `rest`: what follows.
    fn start(dns: &str, rest: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let address = ([127, 0, 0, 1], free_port()).into();
        fs::write(folder.path().join("dns.toml"), config(&folder, address, dns, rest))
            .expect("the test folder is writable");
        let cache = start(&folder);
        let host = Self { folder, cache, address };
        host.wait_for_answers();
        host
    }

    fn wait_for_answers(&self) {
        wait_for("the cache to answer", || self.status()["names"].is_u64());
    }

    /// Writes a config and has it read; returns what the log says of it.
    fn reload(&self, dns: &str, rest: &str) -> String {
        let before = self.cache.log().len();
        fs::write(self.folder.path().join("dns.toml"), config(&self.folder, self.address, dns, rest))
            .expect("the test folder is writable");
        self.cache.signal(Signal::HUP);
        let said = || self.cache.log()[before..].to_owned();
        wait_for("the reload", || {
            said().contains("config reloaded") || said().contains("config not reloaded")
        });
        said()
    }

    fn ask(&self, name: &str) -> Reply {
        ask_udp(self.address, name, A).expect("the cache answers")
    }

    fn addresses(&self, name: &str) -> Vec<[u8; 4]> {
        self.ask(name).addresses()
    }

    fn dns(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(binary("dogwatch"));
        command.arg("dns").args(arguments).arg("--socket").arg(self.folder.path().join("control.sock"));
        command.output().expect("the built binary can be run")
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.dns(&["status", "--json"]).stdout).unwrap_or_default()
    }
}

fn config(folder: &TempDir, address: SocketAddr, dns: &str, rest: &str) -> String {
    let place = |name: &str| folder.path().join(name).display().to_string();
    format!(
        "[dns]\nlisten = [\"{address}\"]\nstate_dir = {:?}\ncontrol_socket = {:?}\nmetrics = \"127.0.0.1:0\"\n{dns}\n{rest}\n",
        place("state"),
        place("control.sock"),
    )
}

fn start(folder: &TempDir) -> Process {
    let mut command = Command::new(binary("dogwatch"));
    command.arg("dns").arg("--config").arg(folder.path().join("dns.toml"));
    Process::start("dns", &mut command, folder.path())
}

fn asks(upstream: &Upstream) -> String {
    format!("upstreams = [\"{}\"]", upstream.address)
}

fn zone(suffix: &str, upstream: &Upstream) -> String {
    format!("[zone.\"{suffix}\"]\n{}", asks(upstream))
}

#[test]
fn other_upstreams_and_zones_come_into_force_and_the_cache_stays() {
    let (first, second, of_zone) = (upstream(&[]), upstream(&[]), upstream(&[]));
    let host = Host::start(&asks(&first), "");
    for number in 0..50 {
        assert_eq!(host.addresses(&name(number, LONG_TTL_S)), [right_address(number)]);
    }
    let said = host.reload(&asks(&second), &zone("corp.test", &of_zone));
    assert!(said.contains("config reloaded; the cache is unchanged"), "{said}");
    let (heard_first, heard_second) = (first.queries(), second.queries());
    for number in 0..50 {
        assert_eq!(host.addresses(&name(number, LONG_TTL_S)), [right_address(number)]);
    }
    // All from the cache; a probe of an idle upstream may be among them.
    assert!(second.queries() - heard_second <= 3, "{}", second.queries() - heard_second);
    assert_eq!(host.addresses(&name(50, LONG_TTL_S)), [right_address(50)]);
    assert!(
        second.queries() > heard_second && first.queries() == heard_first,
        "the first is not asked any more"
    );
    assert_eq!(host.status()["names"], 51);
    let status = words(&host.dns(&["status"]));
    assert!(status.contains(&of_zone.address.to_string()), "{status}");
    assert!(!status.contains(&first.address.to_string()), "{status}");

    let said = host.reload(&format!("{}\nthreads = 2", asks(&second)), "");
    assert!(said.contains("take effect only after a restart"), "{said}");
    assert_eq!(host.addresses(&name(7, LONG_TTL_S)), [right_address(7)]);
}

#[test]
fn a_cache_without_its_metrics_port_answers_and_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it is bound").port();
    let ours = upstream(&[("www.test.", at(3))]);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let address = ([127, 0, 0, 1], free_port()).into();
    let text = config(&folder, address, &asks(&ours), "");
    let text = text.replace("metrics = \"127.0.0.1:0\"", &format!("metrics = \"127.0.0.1:{port}\""));
    fs::write(folder.path().join("dns.toml"), text).expect("it is writable");
    let host = Host { cache: start(&folder), folder, address };
    host.wait_for_answers();
    assert_eq!(host.addresses("www.test."), [[10, 0, 0, 3]]);
    let log = host.cache.log();
    assert!(
        log.contains(&format!("cannot serve metrics on 127.0.0.1:{port}: Address already in use")),
        "{log}"
    );
}

#[test]
fn a_resolv_conf_may_be_missing_appear_and_vanish() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("resolv.conf");
    let address = ([127, 0, 0, 1], free_port()).into();
    let dns = format!("resolv_conf = {:?}", file.display().to_string());
    fs::write(folder.path().join("dns.toml"), config(&folder, address, &dns, "")).expect("it is writable");
    let host = Host { cache: start(&folder), folder, address };
    host.wait_for_answers();
    let sensor = || host.status()["sensors"][0].clone();
    let upstreams = || host.status()["upstreams"].as_array().map_or(0, Vec::len);
    assert_eq!((&sensor()["name"], &sensor()["state"]), (&"dns-upstream".into(), &0.into()));
    let said = sensor()["text"].to_string();
    assert!(said.contains("no upstream is configured") && said.contains("does not exist"), "{said}");
    let agent = host.folder.path().join("agent.toml");
    let control = host.folder.path().join("control.sock");
    let check = "[agent]\nauto_checks = false\n[check.dns-upstream]\nkind = \"dns\"\n";
    fs::write(&agent, format!("[dns]\ncontrol = {control:?}\n{check}")).expect("it is writable");
    let blind = || {
        let mut list = Command::new(binary("dogwatch"));
        list.args(["list", "--blind", "--config"]).arg(&agent);
        String::from_utf8(list.output().expect("the built binary can be run").stdout).expect("it is text")
    };
    let listed = blind();
    assert!(listed.contains("dns-upstream") && listed.contains("does not exist"), "{listed}");

    fs::write(&file, "nameserver 192.0.2.1\n").expect("it is writable");
    wait_for("the server to be picked up", || upstreams() == 1);
    assert_eq!(blind(), "nothing that the checks find is left out\n");
    for text in [Some("# empty\n"), None] {
        match text {
            Some(text) => fs::write(&file, text).expect("it is writable"),
            None => fs::remove_file(&file).expect("it is there"),
        }
        wait_for("the cache to notice", || host.cache.log().contains("the upstreams it had stay in use"));
        assert_eq!(upstreams(), 1, "{text:?}");
    }
    fs::write(&file, "nameserver 192.0.2.2\nnameserver 192.0.2.3\n").expect("it is writable");
    wait_for("the new servers", || upstreams() == 2);
}

#[test]
fn names_of_a_zone_that_is_added_are_the_zones_and_never_again_what_others_said() {
    let outside = upstream(&[("www.corp.test.", at(1)), ("old.corp.test.", at(2)), ("www.test.", at(3))]);
    let inside = upstream(&[("www.corp.test.", at(101)), ("db.corp.test.", at(102))]);
    let mut host = Host::start(&asks(&outside), "");
    assert_eq!(host.addresses("www.corp.test."), [[10, 0, 0, 1]]);
    assert_eq!(host.addresses("old.corp.test."), [[10, 0, 0, 2]]);
    assert_eq!(host.addresses("www.test."), [[10, 0, 0, 3]]);
    assert_eq!(host.ask("db.corp.test.").rcode, NXDOMAIN);
    let heard = outside.queries();

    let with_zone = zone("corp.test", &inside);
    host.reload(&asks(&outside), &with_zone);
    assert_eq!(host.addresses("www.corp.test."), [[10, 0, 0, 101]]);
    assert_eq!(host.addresses("db.corp.test."), [[10, 0, 0, 102]]);
    assert_eq!(host.addresses("www.test."), [[10, 0, 0, 3]]);
    assert_eq!(outside.queries(), heard, "its names are still fresh, the zone's are none of its business");

    // Killed, with the zone's upstream dead: what the zone said is there, what others said is not.
    wait_for("the snapshot", || host.status()["names"] == 4 && snapshot_has(&host, &[10, 0, 0, 102]));
    inside.set(Mood::Silent);
    host.cache.kill();
    host.cache = start(&host.folder);
    host.wait_for_answers();
    assert_eq!(host.addresses("www.corp.test."), [[10, 0, 0, 101]]);
    assert_eq!(host.addresses("db.corp.test."), [[10, 0, 0, 102]]);
    assert_eq!(host.ask("old.corp.test.").rcode, SERVFAIL);
    assert_eq!(host.addresses("www.test."), [[10, 0, 0, 3]]);
}

#[test]
fn a_zone_that_is_added_while_the_cache_is_stopped_is_asked_for_its_names_too() {
    let outside = upstream(&[("www.corp.test.", at(1)), ("old.corp.test.", at(2)), ("www.test.", at(3))]);
    let inside = upstream(&[("www.corp.test.", at(101))]);
    let mut host = Host::start(&asks(&outside), "");
    for name in ["www.corp.test.", "old.corp.test.", "www.test."] {
        assert_eq!(host.ask(name).rcode, NOERROR);
    }
    assert_eq!(host.ask("db.corp.test.").rcode, NXDOMAIN);
    let origin = host.folder.path().join("state/cache.origin");
    wait_for("the snapshot", || origin.exists() && snapshot_has(&host, b"\x02db\x04corp"));
    host.cache.kill();

    let with_zone = config(&host.folder, host.address, &asks(&outside), &zone("corp.test", &inside));
    fs::write(host.folder.path().join("dns.toml"), with_zone).expect("the test folder is writable");
    let heard = outside.queries();
    host.cache = start(&host.folder);
    host.wait_for_answers();
    assert_eq!(host.addresses("www.corp.test."), [[10, 0, 0, 101]]);
    assert_eq!(host.addresses("www.test."), [[10, 0, 0, 3]]);
    assert_eq!(outside.queries(), heard, "the zone's names are none of its business");

    // A damaged file is reported, and no name is lost.
    wait_for("the snapshot", || snapshot_has(&host, &[10, 0, 0, 101]));
    host.cache.kill();
    fs::write(&origin, "[{").expect("the test folder is writable");
    host.cache = start(&host.folder);
    host.wait_for_answers();
    wait_for("the damage in the log", || host.cache.log().contains("cache.origin is damaged: "));
    assert_eq!(host.addresses("www.corp.test."), [[10, 0, 0, 101]]);
    wait_for("a new origin", || fs::read_to_string(&origin).is_ok_and(|text| text.contains("corp.test")));
}

fn snapshot_has(host: &Host, wire: &[u8]) -> bool {
    let log = fs::read(host.folder.path().join("state/cache.log")).unwrap_or_default();
    log.windows(wire.len()).any(|window| window == wire)
}

#[test]
fn a_config_that_is_wrong_changes_nothing_and_all_that_is_wrong_is_said_with_its_place() {
    let (first, second) = (upstream(&[]), upstream(&[]));
    let host = Host::start(&asks(&first), "");
    assert_eq!(host.ask(&name(1, LONG_TTL_S)).rcode, NOERROR);
    let wrong = format!("{}\nmax_stale = \"90d\"\ncache_mb = 5", asks(&second));
    let said = host.reload(&wrong, "[zone.\"corp..test\"]\n[zone.\"lab.test\"]\nupstreams = [\"dns.test\"]");
    assert!(said.contains("config not reloaded, the running config is unchanged"), "{said}");
    // The test's own lines come first.
    for place in ["dns.toml:7:13: max_stale", "dns.toml:8:1: ", "dns.toml:9:7: ", "dns.toml:11:14: "] {
        assert!(said.contains(place), "{place}: {said}");
    }
    let heard = second.queries();
    assert_eq!(host.addresses(&name(2, LONG_TTL_S)), [right_address(2)]);
    assert_eq!((second.queries(), host.status()["names"].as_u64()), (heard, Some(2)));

    let said = host.reload("upstreams = [\"", "");
    assert!(said.contains("config not reloaded") && said.contains("dns.toml:6:"), "{said}");
    let mut command = Command::new(binary("dogwatch"));
    command.args(["dns", "status", "--config"]).arg(host.folder.path().join("dns.toml"));
    let output = command.output().expect("the built binary can be run");
    assert!(!output.status.success() && words(&output).contains("dns.toml:6:"), "{}", words(&output));

    let said = host.reload(&asks(&second), "");
    assert!(said.contains("config reloaded"), "{said}");
    assert_eq!(host.addresses(&name(3, LONG_TTL_S)), [right_address(3)]);
    assert!(second.queries() > heard);
}

/// `ExecReload=` of a packaged unit, one command a line, as systemd runs them: in turn, and none
/// after one that fails.
fn reload_commands(unit: &str) -> Vec<String> {
    let path = format!("{}/../packaging/systemd/{unit}.service", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).expect("the unit is there");
    text.lines().filter_map(|line| line.strip_prefix("ExecReload=")).map(str::to_owned).collect()
}

#[test]
fn systemctl_reload_fails_on_a_broken_config_before_anything_is_signalled() {
    for (unit, program, config) in [
        ("dogwatch-dns", "dogwatch", "dns.toml"),
        ("dogwatch", "dogwatch", "agent.toml"),
        ("alertd", "alertd", "alertd.toml"),
    ] {
        let commands = reload_commands(unit);
        let [check, signal] = commands.as_slice() else { panic!("{unit}: {commands:?}") };
        assert!(signal.contains("kill -HUP $MAINPID"), "{unit}: {signal}");
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join(config);
        let shipped = format!("/etc/dogwatch/{config}");
        assert!(check.contains(&shipped), "{unit}: {check}");
        let run = |text: &str| {
            fs::write(&path, text).expect("the test folder is writable");
            let mut words = check.split(' ');
            let name = words.next().and_then(|path| path.rsplit('/').next());
            assert_eq!(name, Some(program), "{check}");
            let path = path.display().to_string();
            let arguments = words.map(|word| if word == shipped { &path } else { word });
            Command::new(binary(program)).args(arguments).output().expect("the built binary can be run")
        };
        let broken = run("# a comment\n[nobody]\n");
        let said = String::from_utf8_lossy(&broken.stderr).into_owned();
        assert!(!broken.status.success(), "{unit}: {said}");
        assert!(said.contains(&format!("{config}:2:2")) && said.contains("nobody"), "{unit}: {said}");
        let fine = run("");
        assert!(fine.status.success(), "{unit}: {}", String::from_utf8_lossy(&fine.stderr));
    }
}
