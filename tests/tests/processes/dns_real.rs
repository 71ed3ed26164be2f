//! The cache in an outage: the real `dogwatch dns`, an upstream process, UDP and TCP clients.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
};

use dogwatch_tests::{
    dns_client::{ask_tcp, ask_udp},
    dns_message::{A, NOERROR, SERVFAIL},
    process::{Process, binary, free_port, root_or_skip, skip, wait_for},
    upstream::{name, right_address},
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

const OK: u64 = 0;
const CRITICAL: u64 = 2;

/// A cache and its only upstream, each a process.
struct Pair {
    folder: TempDir,
    cache: Process,
    upstream: Process,
    address: SocketAddr,
    upstream_address: SocketAddr,
}

impl Pair {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Self::start_in(folder)
    }

    fn start_in(folder: TempDir) -> Self {
        let state = folder.path().join("state").display().to_string();
        let control = folder.path().join("control.sock").display().to_string();
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (address, upstream_address) = (loopback(free_port()), loopback(free_port()));
        let config = format!(
            "[dns]\nlisten = [\"{address}\"]\nupstreams = [\"{upstream_address}\"]\nstate_dir = {state:?}\n\
             control_socket = {control:?}\nmetrics = \"127.0.0.1:0\"\n"
        );
        fs::write(folder.path().join("dns.toml"), config).expect("the test folder is writable");
        let upstream = start_upstream(&folder, upstream_address);
        let cache = start_cache(&folder);
        let pair = Self { folder, cache, upstream, address, upstream_address };
        pair.wait_for_sensor("dns-upstream", OK);
        pair
    }

    fn restart_cache(&mut self) {
        self.cache = start_cache(&self.folder);
        wait_for("the cache to answer again", || self.sensors().is_some());
    }

    fn sensors(&self) -> Option<Value> {
        let mut stream = UnixStream::connect(self.folder.path().join("control.sock")).ok()?;
        stream.write_all(b"GET /v1/sensors HTTP/1.0\r\n\r\n").ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        serde_json::from_str(reply.split_once("\r\n\r\n")?.1).ok()
    }

    fn sensor(&self, name: &str) -> Option<(u64, String)> {
        let sensors = self.sensors()?;
        let sensor = sensors.as_array()?.iter().find(|sensor| sensor["name"] == name)?;
        Some((sensor["state"].as_u64()?, sensor["text"].as_str()?.to_owned()))
    }

    fn wait_for_sensor(&self, name: &str, state: u64) {
        wait_for(&format!("{name} to become {state}"), || {
            self.sensor(name).is_some_and(|(now, _)| now == state)
        });
    }

    /// Asks for each name over UDP and TCP; every answer must be right.
    fn all_right(&self, names: std::ops::Range<u32>) {
        for number in names {
            let name = name(number, TTL_S);
            let reply = if number % 4 == 0 {
                ask_tcp(self.address, &name, A)
            } else {
                ask_udp(self.address, &name, A)
            };
            let reply = reply.unwrap_or_else(|error| panic!("{name}: {error}\n{}", self.cache.log()));
            assert_eq!((reply.rcode, reply.addresses()), (NOERROR, vec![right_address(number)]), "{name}");
            assert!(reply.answers[0].ttl <= TTL_S, "{name}");
        }
    }
}

/// Short, so that everything is stale soon.
const TTL_S: u32 = 1;
const NAMES: std::ops::Range<u32> = 0..50;

fn start_upstream(folder: &TempDir, address: SocketAddr) -> Process {
    let mut command = Command::new(binary("fake-upstream"));
    Process::start("upstream", command.arg(address.to_string()), folder.path())
}

fn start_cache(folder: &TempDir) -> Process {
    let mut command = Command::new(binary("dogwatch"));
    command.arg("dns").arg("--config").arg(folder.path().join("dns.toml"));
    Process::start("dns", &mut command, folder.path())
}

#[test]
fn names_outlive_a_stopped_a_killed_and_a_restarted_upstream_and_a_killed_cache() {
    let mut pair = Pair::start();
    pair.all_right(NAMES);

    // The upstream hangs: no refusal, no answer.
    pair.upstream.signal(Signal::STOP);
    // With a client asking, the cache notices at once; without clients it takes half a minute.
    wait_for("the outage to be noticed", || {
        let _ = ask_udp(pair.address, &name(0, TTL_S), A);
        pair.sensor("dns-upstream").is_some_and(|(state, _)| state == CRITICAL)
    });
    pair.all_right(NAMES);
    let (state, text) = pair.sensor("dns-stale").unwrap();
    assert!(state == 1 && text.contains("runway"), "{text}");
    let (_, text) = pair.sensor("dns-upstream").unwrap();
    assert!(
        text.contains("all upstreams down since") && text.contains("serving cached answers for up to"),
        "{text}"
    );

    // The cache is killed in mid-outage; what it learned is on disk.
    pair.cache.kill();
    pair.restart_cache();
    pair.all_right(NAMES);
    pair.wait_for_sensor("dns-upstream", CRITICAL);

    // A name that was never asked for is not cached: a failure, soon.
    assert_eq!(ask_udp(pair.address, &name(999, TTL_S), A).unwrap().rcode, SERVFAIL);

    // The hanging upstream dies, and a new one takes its place.
    pair.upstream.kill();
    pair.all_right(NAMES);
    pair.upstream = start_upstream(&pair.folder, pair.upstream_address);
    pair.wait_for_sensor("dns-upstream", OK);
    pair.all_right(NAMES);
    wait_for("a name that was unknown in the outage", || {
        ask_udp(pair.address, &name(999, TTL_S), A)
            .is_ok_and(|reply| reply.addresses() == [right_address(999)])
    });
    assert!(pair.cache.stop().success());
}

/// What `status` says of the only upstream: whether it keeps letters, and its state.
fn letter_case(pair: &Pair) -> (String, String) {
    let mut command = Command::new(binary("dogwatch"));
    command.args(["dns", "status", "--json", "--socket"]).arg(pair.folder.path().join("control.sock"));
    let output = command.output().expect("the built binary can be run");
    let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let text = |key: &str| status["upstreams"][0][key].as_str().unwrap_or("-").to_owned();
    (text("letter_case"), text("state"))
}

#[test]
fn an_upstream_that_lowers_letters_is_not_ill_and_one_that_keeps_them_is_held_to_it() {
    let mut pair = Pair::start();
    pair.all_right(0..20);
    assert_eq!(letter_case(&pair), ("kept".into(), "healthy".into()));
    pair.upstream.say("lowercase");
    // New names, so that upstream is asked. Those that it answers in other letters are asked over
    // TCP.
    let mut next = 20;
    wait_for("the upstream's letters to be given up", || {
        pair.all_right(next..next + 1);
        next += 1;
        letter_case(&pair) == ("not_kept".into(), "healthy".into())
    });
    pair.all_right(next..next + 20);
    assert_eq!(letter_case(&pair), ("not_kept".into(), "healthy".into()));
}

#[test]
fn garbage_from_clients_and_callers_changes_nothing() {
    let mut pair = Pair::start();
    pair.all_right(NAMES);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    fastrand::seed(4711);
    for length in 0..600_usize {
        let packet: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(length).collect();
        socket.send_to(&packet, pair.address).unwrap();
        let mut stream = TcpStream::connect(pair.address).unwrap();
        if length % 50 == 0 {
            // Either side may close first.
            let _ = stream.write_all(&packet);
        }
    }
    let control = pair.folder.path().join("control.sock");
    for garbage in [
        &b"\0\xff\r\n\r\n"[..],
        b"GET /v1/why?name=..&type=A HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    ] {
        let mut stream = UnixStream::connect(&control).unwrap();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        assert!(!reply.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&reply));
    }
    pair.all_right(NAMES);
    assert!(pair.cache.running());
    assert!(!pair.cache.log().contains("panicked"), "{}", pair.cache.log());
}

#[test]
fn a_corrupt_snapshot_costs_only_what_is_corrupt() {
    let mut pair = Pair::start();
    pair.all_right(NAMES);
    assert!(pair.cache.stop().success());
    let log = pair.folder.path().join("state/cache.log");
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8].fill(0xff);
    bytes.extend(b"REC!torn");
    fs::write(&log, bytes).unwrap();

    pair.upstream.kill();
    pair.restart_cache();
    wait_for("the names to be restored", || pair.cache.log().contains(" names in "));
    let log = pair.cache.log();
    assert!(
        log.contains("cache.log is damaged: skipped 1 places") && log.contains("removed an incomplete write"),
        "{log}"
    );
    assert!(log.contains("restored 49 names in ") || log.contains("restored 50 names in "), "{log}");
    let right = NAMES.filter(|&number| {
        ask_udp(pair.address, &name(number, TTL_S), A)
            .is_ok_and(|reply| reply.addresses() == [right_address(number)])
    });
    assert!(right.count() >= NAMES.len() - 2);
}

#[test]
fn a_folder_that_takes_no_files_stops_no_answer_and_is_said() {
    if !root_or_skip("a read-only tmpfs") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "ro", "tmpfs"]).arg(&state).status().unwrap();
    if !mounted.success() {
        return skip("this root may not mount");
    }
    let _unmount = Unmount(state.clone());
    let pair = Pair::start_in(folder);
    pair.all_right(NAMES);
    wait_for("it to be said", || {
        pair.cache.log().contains("cannot write the snapshot: Read-only file system")
    });
    pair.all_right(NAMES);
}

#[test]
fn a_full_disk_under_the_snapshot_stops_no_answer_and_is_said() {
    if !root_or_skip("a full tmpfs") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&state).status().unwrap();
    if !mounted.success() {
        return skip("this root may not mount");
    }
    let _unmount = Unmount(state.clone());
    // All that fits.
    let _ = fs::write(state.join("ballast"), vec![0; 128 << 10]);
    let pair = Pair::start_in(folder);
    pair.all_right(NAMES);
    wait_for("the full disk to be said", || pair.cache.log().contains("cannot write the snapshot"));
    pair.all_right(NAMES);

    fs::remove_file(state.join("ballast")).unwrap();
    wait_for("the snapshot to be written again", || {
        pair.all_right(0..1);
        pair.cache.log().contains("the snapshot can be written again")
    });
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        // Lazily: the cache may still hold its file when a test fails.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn what_the_config_gets_wrong_is_said_at_once_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("dns.toml");
    fs::write(&config, "[dns]\nlisten = [\"localhost\"]\nmax_stale = \"90d\"\n").unwrap();
    let output = Command::new(binary("dogwatch")).arg("dns").arg("--config").arg(&config).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("dns.toml:2:") && said.contains("dns.toml:3:"), "{said}");
}
