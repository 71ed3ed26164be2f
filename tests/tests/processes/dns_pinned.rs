//! Pinned names: cached before any client asks, and served when everything else is too old.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use dogwatch_tests::{
    authority::{Data, Fact},
    dns_client::ask_udp,
    dns_message::{A, NOERROR, SERVFAIL},
    http,
    process::{Process, binary, free_port, wait_for},
    upstream::{Mood, Upstream, name, right_address},
};
use serde_json::Value;

const PINNED: u32 = 7;
/// In a webhook of alertd.toml.
const OWN: u32 = 8;
const OTHER: u32 = 9;
const TTL_S: u32 = 1;

#[test]
fn pinned_names_are_known_before_anybody_asks_and_outlive_max_stale() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (address, metrics) = (loopback(free_port()), free_port());
    let upstream = Upstream::start(loopback(free_port())).expect("the port was free just now");
    let control = folder.path().join("control.sock");
    let config = format!(
        "[dns]\nlisten = [\"{address}\"]\nupstreams = [\"{}\"]\nstate_dir = {:?}\ncontrol_socket = {control:?}\n\
         metrics = \"127.0.0.1:{metrics}\"\nmax_stale = \"3s\"\npinned = [\"{}\"]\n",
        upstream.address,
        folder.path().join("state"),
        name(PINNED, TTL_S),
    );
    fs::write(folder.path().join("dns.toml"), config).unwrap();
    let own = name(OWN, TTL_S);
    let alertd = format!("[receiver.chat.webhook]\nurl = \"https://{}/hook\"\n", own.trim_end_matches('.'));
    fs::write(folder.path().join("alertd.toml"), alertd).unwrap();
    let mut command = Command::new(binary("dogwatch"));
    command.arg("dns").arg("--config").arg(folder.path().join("dns.toml"));
    let cache = Process::start("dns", &mut command, folder.path());

    let get = |target: &str| get(&control, target);
    let why = |number: u32| get(&format!("/v1/why?name={}&type=A", name(number, TTL_S)));
    for number in [PINNED, OWN] {
        wait_for("a pinned name to be known", || {
            why(number).is_some_and(|why| {
                why["pinned"] == true && why["records"].as_array().is_some_and(|all| !all.is_empty())
            })
        });
    }
    assert_eq!(why(OTHER).unwrap()["held"], "not cached");
    assert_eq!(ask_udp(address, &name(OTHER, TTL_S), A).unwrap().rcode, NOERROR);

    // No client has asked for them, and the upstream fails.
    upstream.set(Mood::Silent);
    let sensor = |wanted: &str| -> Option<Value> {
        get("/v1/sensors")?.as_array()?.iter().find(|sensor| sensor["name"] == wanted).cloned()
    };
    wait_for("the outage to be noticed", || {
        sensor("dns-upstream").is_some_and(|sensor| sensor["state"] == 2)
    });
    wait_for("the other name to be too old", || {
        ask_udp(address, &name(OTHER, TTL_S), A).is_ok_and(|reply| reply.rcode == SERVFAIL)
    });
    for number in [PINNED, OWN] {
        // Past max_stale by now, or soon.
        wait_for("the pinned name to be past max_stale", || {
            why(number).is_some_and(|why| why["left_s"].as_i64().is_some_and(|left| left < -3))
        });
        let reply = ask_udp(address, &name(number, TTL_S), A).unwrap();
        assert_eq!(
            (reply.rcode, reply.addresses()),
            (NOERROR, vec![right_address(number)]),
            "{}",
            cache.log()
        );
    }
    let stale = sensor("dns-stale").unwrap();
    let text = stale["text"].as_str().unwrap();
    assert!(
        stale["state"] == 2
            && text.contains("too old to serve")
            && text.contains("pinned names that are stale"),
        "{text}"
    );
    wait_for("the metrics", || {
        http::get(metrics, "/metrics")
            .is_some_and(|page| page.1.contains("dogwatch_dns_pinned_stale_answers"))
    });

    // It comes back, and they are fresh again, still without a client.
    upstream.set(Mood::Right);
    for number in [PINNED, OWN] {
        wait_for("the pinned name to be learned again", || {
            why(number).is_some_and(|why| why["left_s"].as_i64().is_some_and(|left| left >= -1))
        });
    }
    wait_for("all clear", || sensor("dns-upstream").is_some_and(|sensor| sensor["state"] == 0));
}

/// What the control socket says.
fn get(control: &Path, target: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(control).ok()?;
    stream.write_all(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    serde_json::from_str(reply.split_once("\r\n\r\n")?.1).ok()
}

#[test]
fn m18_a_pinned_name_does_not_move_to_where_nobody_listens() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (address, control) = (loopback(free_port()), folder.path().join("control.sock"));
    let (old, new) = ([127, 0, 0, 2], [127, 0, 0, 3]);
    let listener = TcpListener::bind((Ipv4Addr::from(old), 0)).expect("loopback has many addresses");
    let port = listener.local_addr().unwrap().port();
    let data = Arc::new(Mutex::new(Data::default()));
    let truth = |address| {
        let fact = Fact::Addresses { ttl_s: TTL_S, addresses: vec![address] };
        data.lock().unwrap().set("db.test.", fact);
    };
    truth(old);
    let upstream = Upstream::start_with(loopback(free_port()), Arc::clone(&data)).expect("the port was free");
    let config = format!(
        "[dns]\nlisten = [\"{address}\"]\nupstreams = [\"{}\"]\nstate_dir = {:?}\ncontrol_socket = {control:?}\n\
         metrics = \"127.0.0.1:0\"\npin_own = false\n\
         pinned = [{{ name = \"db.test\", types = [\"A\"], check_tcp = {port} }}]\n",
        upstream.address,
        folder.path().join("state"),
    );
    fs::write(folder.path().join("dns.toml"), config).unwrap();
    let mut command = Command::new(binary("dogwatch"));
    command.arg("dns").arg("--config").arg(folder.path().join("dns.toml"));
    let cache = Process::start("dns", &mut command, folder.path());

    let told = || ask_udp(address, "db.test.", A).ok().map(|reply| reply.addresses());
    let guard = || {
        let sensors = get(&control, "/v1/sensors")?;
        sensors.as_array()?.iter().find(|sensor| sensor["name"] == "dns-guard").cloned()
    };
    wait_for("the name to be known", || told() == Some(vec![old]));
    truth(new);
    wait_for("the hold to be said", || {
        // A client asks all the time and never gets the address where no server listens.
        assert!(told().is_none_or(|told| told == [old]), "{}", cache.log());
        guard().is_some_and(|guard| guard["state"] == 1)
    });
    let text = guard().unwrap()["text"].to_string();
    assert!(text.contains("accept no TCP connection") && text.contains("accept db.test"), "{text}");
    wait_for("the hold in the log", || {
        cache.log().contains("pinned db.test had 127.0.0.2 and has 127.0.0.3, which accept no TCP connection")
    });
    // A server listens there now.
    let there = TcpListener::bind((Ipv4Addr::from(new), port)).expect("nobody else has that address");
    wait_for("the new address to be believed", || told() == Some(vec![new]));
    wait_for("the guard's all clear", || guard().is_some_and(|guard| guard["state"] == 0));
    drop((listener, there));
}
