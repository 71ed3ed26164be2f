//! alertd's self-monitoring: the real program, a dead man's switch that counts pings, and a
//! stand-in for systemd's watchdog.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::UnixDatagram,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use dogwatch_tests::{
    host::{Host, words},
    http,
    process::{Process, binary, wait_for},
};
use dogwatch_wire::State;
use serde_json::Value;

/// Counts requests, answers each 200.
struct DeadMan {
    url: String,
    pings: Arc<AtomicUsize>,
}

impl DeadMan {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/ping/secret-id", listener.local_addr().unwrap());
        let pings = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&pings);
        thread::spawn(move || {
            for mut stream in listener.incoming().filter_map(Result::ok) {
                let mut request = [0; 1_024];
                let read = stream.read(&mut request).unwrap_or(0);
                if request[..read].starts_with(b"GET /ping/secret-id ") {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nOK");
            }
        });
        Self { url, pings }
    }

    fn pings(&self) -> usize {
        self.pings.load(Ordering::SeqCst)
    }
}

/// What systemd would get on NOTIFY_SOCKET.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(host: &Host) -> Self {
        let socket = UnixDatagram::bind(host.path("notify.sock")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    /// How often the watchdog was fed since the last call.
    fn fed(&self) -> usize {
        let mut message = [0; 4_096];
        let mut count = 0;
        while let Ok(read) = self.0.recv(&mut message) {
            count += usize::from(message[..read].windows(10).any(|part| part == b"WATCHDOG=1"));
        }
        count
    }
}

/// The state of one check of alertd's health. Not the exit code of all, which depends on the
/// machine's disk.
fn health(host: &Host, check: &str) -> String {
    let output = host.alertctl(&["health", "--json"]);
    let health: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let all = health["checks"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|one| one["name"] == check);
    found.map(|one| one["state"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn a_loop_that_hangs_feeds_no_watchdog_and_pings_nobody_though_the_process_lives() {
    let mut host = Host::new();
    let (dead_man, manager) = (DeadMan::start(), Manager::listen(&host));
    host.start_alertd(&format!("[dead_man]\nurl = \"{}\"\nevery = \"10s\"\n", dead_man.url));
    host.alertd.as_mut().unwrap().stop();
    let mut command = Command::new(binary("alertd"));
    command.arg("--config").arg(host.path("alertd.toml"));
    command.env("NOTIFY_SOCKET", host.path("notify.sock")).env("ALERTD_HANG_AT", "committed");
    let pinged_before = dead_man.pings();
    host.alertd = Some(Process::start("alertd", &mut command, host.folder()));
    wait_for("the first ping", || dead_man.pings() > pinged_before);
    let mut fed = 0;
    wait_for("food for the watchdog", || {
        fed += manager.fed();
        fed > 2
    });
    let well = words(&host.alertctl(&["health"]));
    assert!(well.contains("pings arrive") && !well.contains("secret-id"), "{well}");
    for check in ["store", "loop", "dead-man"] {
        assert_eq!(health(&host, check), "OK", "{check}: {well}");
    }

    // It hangs at the first commit and answers no more.
    let socket = host.alertd_socket();
    let report = tokio::spawn(async move {
        let client = dogwatch_daemon::unix_http::Client::new(socket, Duration::from_secs(2));
        let alert = serde_json::json!([{ "labels": { "alertname": "Backup", "host": "web1" } }]);
        client.post::<Value>("/v1/alerts", &alert).await
    });
    assert!(report.await.unwrap().is_err(), "nothing is answered before it is committed");
    manager.fed();
    let before = dead_man.pings();
    wait_for("the log to say that pings stopped", || {
        host.log("alertd").contains("stopped pinging the dead man's switch at http://127.0.0.1:")
    });
    // That took ten seconds at least; a loop that turns feeds it every other second.
    assert_eq!(manager.fed(), 0, "the watchdog is fed by a loop that hangs");
    // One may have been asked for just before.
    assert!(dead_man.pings() <= before + 1, "{} pings after {before}", dead_man.pings());
    assert!(host.alertd.as_mut().unwrap().running());
    assert!(http::get(host.alertd_metrics, "/metrics").is_some(), "the rest of the process lives");
    let ill = host.alertctl(&["health"]);
    assert_eq!(ill.status.code(), Some(2), "{}", words(&ill));
}

#[tokio::test]
async fn health_says_what_is_wrong_with_the_exit_codes_of_a_plugin() {
    let mut host = Host::new();
    host.start_alertd(
        "[[route]]\nreceiver = \"broken\"\ngroup_wait = \"0s\"\n\
         [receiver.broken.exec]\ncommand = [\"/bin/sh\", \"-c\", \"echo no credit; exit 3\"]\n\
         [dead_man]\nurl = \"http://127.0.0.1:9/x\"\nevery = \"10s\"\n",
    );
    wait_for("the failing ping", || {
        health(&host, "dead-man") == "WARNING"
            && words(&host.alertctl(&["health"])).contains("last ping failed: http://127.0.0.1:9")
    });
    let json: Value = serde_json::from_slice(&host.alertctl(&["health", "--json"]).stdout).unwrap();
    // The disk of this machine may be worse.
    let code = if json["state"] == "WARNING" { 1 } else { 2 };
    assert_eq!(host.alertctl(&["health"]).status.code(), Some(code), "{json}");
    host.report("web1", "disk", State::Critical, 1).await;
    wait_for("the failing receiver", || health(&host, "receivers") == "CRITICAL");
    let output = host.alertctl(&["health"]);
    assert!(words(&output).contains("broken has accepted nothing for"), "{}", words(&output));
    let json = host.alertctl(&["health", "--json"]);
    let health: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.status.code(), &health["state"]), (Some(2), &"CRITICAL".into()));
    let names: Vec<_> =
        health["checks"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "store",
            "loop",
            "outbox",
            "receivers",
            "auditor",
            "agents",
            "senders",
            "on call",
            "disk",
            "dead-man"
        ]
    );
    host.alertd.as_mut().unwrap().stop();
    let gone = host.alertctl(&["health"]);
    assert_eq!(gone.status.code(), Some(2), "{}", words(&gone));
    assert!(words(&gone).contains("CRITICAL: no socket at"), "{}", words(&gone));
}
