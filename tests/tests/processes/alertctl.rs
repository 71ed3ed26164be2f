//! `alertctl` and alertd's socket: mistakes of users, and clients that send garbage.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    process::Command,
    thread,
    time::Duration,
};

use dogwatch_tests::{
    host::{Host, words},
    process::{binary, wait_for},
};
use serde_json::{Value, json};

#[test]
fn a_mistake_is_refused_with_words_and_an_exit_code_and_changes_nothing() {
    let mut host = Host::new();
    host.start_alertd(
        "[receiver.broken.exec]\ncommand = [\"/bin/sh\", \"-c\", \"echo no credit; exit 3\"]\n",
    );
    let silence = |matcher: &'static str| vec!["silence", matcher, "--for", "2h", "--comment", "x"];
    for (arguments, exit, part) in [
        (vec!["ack", "4711"], 1, "4711"),
        (vec!["unack", "4711"], 1, "4711"),
        (vec!["why", "18446744073709551615"], 1, "18446744073709551615"),
        (vec!["ack", "web1"], 2, "is not a number"),
        (silence("host"), 1, "host"),
        (silence("host=~("), 1, "regular expression"),
        (silence("host=~.*"), 1, "empty"),
        (vec!["silence", "host=web1", "--for", "0s", "--comment", "x"], 1, ""),
        (vec!["silence", "host=web1", "--for", "9999999w", "--comment", "x"], 2, "3660d"),
        (vec!["silence", "host=web1"], 2, "--for"),
        (vec!["silence", "end", "77"], 1, "77"),
        (vec!["test-notify", "onlcall"], 1, "onlcall"),
        (vec!["test-notify", "broken"], 1, "no credit"),
        (vec!["frobnicate"], 2, "frobnicate"),
    ] {
        let output = host.alertctl(&arguments);
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {}", words(&output));
        assert!(words(&output).contains(part), "{arguments:?}: {}", words(&output));
    }
    let output = host.alertctl(&["ack", "4711", "--json"]);
    let said: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(said["exit"], 1, "{said}");
    assert_eq!(host.ask(&["silence", "list"]), json!([]));
    // Another receiver reports the one that refuses; there is nothing else.
    wait_for("word of the broken receiver", || host.maildir("alertd/mail").len() == 1);
    let incidents = host.ask(&["status"])["incidents"].clone();
    assert_eq!(incidents.as_array().unwrap().len(), 1, "{incidents}");
    assert_eq!((&incidents[0]["group"]["receiver"], &incidents[0]["ack"]), (&json!("broken"), &Value::Null));
}

#[test]
fn what_is_right_is_done_and_can_be_undone() {
    let mut host = Host::new();
    host.start_alertd("");
    let tested = host.ask(&["test-notify", "local"]);
    assert_eq!(tested["notification"]["state"], "delivered");
    assert!(host.maildir("alertd/mail")[0].contains("Subject: [test] dogwatch test message to local"));

    let dry = host.ask(&["silence", "host=web1", "--for", "2h", "--comment", "swap", "--dry-run"]);
    assert_eq!((&dry["number"], host.ask(&["silence", "list"])), (&json!(0), json!([])));
    let made = host.ask(&["silence", "host=web1", "service=~disk.*", "--for", "2h", "--comment", "swap"]);
    let number = made["number"].to_string();
    assert_eq!((&made["active"], &made["comment"]), (&json!(true), &json!("swap")));
    let listed = host.alertctl(&["silence", "list"]);
    assert!(words(&listed).contains("swap"), "{}", words(&listed));
    assert_eq!(host.ask(&["silence", "end", &number])["active"], false);

    let history = host.ask(&["history", "--since", "1h", "--limit", "1000"]);
    assert!(history.as_array().unwrap().len() >= 2, "{history}");
    assert_eq!(host.ask(&["history", "--limit", "1"]).as_array().unwrap().len(), 1);
    assert!(host.alertctl(&["history", "--since", "3660d"]).status.success());
}

#[test]
fn garbage_on_the_socket_neither_stops_nor_confuses_alertd() {
    let mut host = Host::new();
    host.start_alertd("");
    let before = host.alertd.as_ref().unwrap().pid();
    let huge = format!(
        "POST /v1/agent/batch HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n{}",
        "{".repeat(2_000_000)
    );
    let post = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let deep = "[".repeat(200_000);
    for (bytes, status) in [
        (b"\0\xff\xfe garbage \r\n\r\n".to_vec(), "400"),
        (b"GET / HTTP/9.9\r\n\r\n".to_vec(), ""),
        (b"DELETE /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(), "405"),
        (b"GET /v1/../../etc/passwd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(), "404"),
        (b"GET /v1/history?since=yesterday HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(), "400"),
        (b"GET /v1/incidents/-1/why HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(), "4"),
        (post("/v1/silences", "{\"matchers\": 5}").into_bytes(), "4"),
        (post("/v1/silences", &deep).into_bytes(), "4"),
        (post("/v1/agent/batch", "null").into_bytes(), "4"),
        (post("/v1/agent/batch", "{\"protocol\": 99}").into_bytes(), "4"),
        (post("/v1/incidents/1/ack", "\"\u{0}\"").into_bytes(), "4"),
        (huge.into_bytes(), "413"),
    ] {
        let answer = say(&host, &bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) || answer.is_empty() && status.is_empty(),
            "{shown:?}: {answer}"
        );
    }
    assert!(host.alertctl(&["status"]).status.success());
    assert_eq!(host.alertd.as_ref().unwrap().pid(), before);
    assert!(!host.log("alertd").contains("panicked"), "{}", host.log("alertd"));
}

#[test]
fn a_socket_that_is_not_alertds_is_said_to_be_so() {
    let host = Host::new();
    let missing = host.alertctl(&["status"]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(words(&missing).contains("systemctl status alertd"), "{}", words(&missing));

    let listener = UnixListener::bind(host.alertd_socket()).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(Result::ok) {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        }
    });
    let mut command = Command::new(binary("alertctl"));
    let strange = command.arg("status").env("ALERTD_SOCKET", host.alertd_socket()).output().unwrap();
    assert_eq!(strange.status.code(), Some(3), "{}", words(&strange));
    assert!(words(&strange).contains("no answer from"), "{}", words(&strange));
}

/// Sends bytes and returns what comes back before the end or a moment's silence.
fn say(host: &Host, bytes: &[u8]) -> String {
    let mut stream = None;
    wait_for("the socket", || {
        stream = UnixStream::connect(host.alertd_socket()).ok();
        stream.is_some()
    });
    let mut stream = stream.unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    // A server may answer and close before it has read all.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        answer.extend_from_slice(&chunk[..n]);
        if answer.windows(4).any(|window| window == b"\r\n\r\n") {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}
