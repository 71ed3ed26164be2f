//! alertd's API over TCP: scopes, TLS, tokens, and limits against untrusted clients.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use dogwatch_alertd::api::{Needs, endpoints};
use dogwatch_alertd_core::rules::token::Scope;
use dogwatch_daemon::http_client::{CallError, Client, Remote};
use dogwatch_tests::{
    certificates::Certificates,
    host::{Host, words},
    http,
    process::{free_port, wait_for},
};
use dogwatch_wire::ctl;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Status and body of one request in the clear.
fn ask(port: u16, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\n{token}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    let _ = stream.write_all(text.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn token(host: &Host, name: &str, scope: &str, rest: &[&str]) -> String {
    let output = host.alertctl(&[&["token", "create", name, "--scope", scope], rest].concat());
    assert!(output.status.success(), "{}", words(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits until the metrics count requests that were refused for this reason.
fn wait_for_refusals(host: &Host, reason: &str) {
    let metric = format!("alertd_http_refused_total{{reason=\"{reason}\"}}");
    wait_for(&metric, || {
        http::get(host.alertd_metrics, "/metrics").is_some_and(|(_, page)| page.contains(&metric))
    });
}

/// `[alertd.listen]` with a certificate of a private CA.
fn listen(port: u16, certificates: &Certificates) -> String {
    format!(
        "[alertd.listen]\naddress = \"127.0.0.1:{port}\"\ncertificate = \"{}\"\nkey = \"{}\"\n\n",
        certificates.certificate.display(),
        certificates.key.display()
    )
}

fn client(host: &Host, port: u16, token: &str, authority: &std::path::Path) -> Client {
    let file = host.write(&format!("{}.token", &token[..20]), &format!("{token}\n"));
    let url = format!("https://localhost:{port}");
    Client::remote(Remote::new(&url, file, Some(authority.to_owned())).unwrap(), Duration::from_secs(20))
}

#[test]
fn every_route_asks_for_a_token_and_for_its_scope() {
    let mut host = Host::new();
    let port = free_port();
    host.start_alertd(&format!("[alertd.listen]\naddress = \"127.0.0.1:{port}\"\n"));
    let tokens: Vec<_> =
        Scope::ALL.into_iter().map(|scope| (scope, token(&host, scope.name(), scope.name(), &[]))).collect();
    let all = endpoints();
    assert!(all.len() > 30, "{all:?}");
    for endpoint in &all {
        let path = endpoint.path.replace("{number}", "77").replace("{name}", "none").replace("{id}", "77");
        // Nothing of this is done: the bodies are no JSON.
        let status = |token| ask(port, endpoint.method.as_str(), &path, token, "[").0;
        let needed = match endpoint.needs {
            Needs::Scope(scope) => scope,
            Needs::Report => Scope::Ingest,
            Needs::Health => Scope::Read,
            Needs::Nothing => {
                assert_eq!(status(None), 200, "{endpoint:?}");
                continue;
            }
        };
        for (scope, token) in &tokens {
            let may = *scope == needed
                || *scope == Scope::Admin
                || (needed == Scope::Read && matches!(scope, Scope::Ack | Scope::Silence));
            let status = status(Some(token));
            assert_eq!(![401, 403, 429].contains(&status), may, "{endpoint:?} with {scope}: {status}");
            assert!(may || status == 403, "{endpoint:?} with {scope}: {status}");
        }
    }
    // Last, because requests without a token are soon rate-limited.
    let mut refused = 0;
    for endpoint in all.iter().filter(|endpoint| endpoint.needs != Needs::Nothing) {
        let path = endpoint.path.replace("{number}", "77").replace("{name}", "none").replace("{id}", "77");
        let (status, words) = ask(port, endpoint.method.as_str(), &path, None, "");
        assert!([401, 429].contains(&status), "{endpoint:?}: {status} {words}");
        refused += u32::from(status == 401);
    }
    assert!(refused >= 10, "{refused} were told why");
    assert_eq!(host.ask(&["status"])["incidents"], json!([]), "nobody did anything");
    let history = host.ask(&["history", "--limit", "1000"]);
    let kinds = |kind| history.as_array().unwrap().iter().filter(|entry| entry["kind"] == kind).count();
    assert_eq!(kinds("token_created"), 5, "{history}");
    assert_eq!(kinds("token_created") + kinds("refused"), history.as_array().unwrap().len(), "{history}");
}

#[test]
fn a_token_is_of_no_use_once_it_is_revoked_or_over_and_never_stands_in_a_file() {
    let mut host = Host::new();
    let port = free_port();
    host.start_alertd(&format!("[alertd.listen]\naddress = \"127.0.0.1:{port}\"\n"));
    let secret = token(&host, "ops", "ack,silence", &["--expires", "90d"]);
    let short = token(&host, "short", "read", &["--expires", "6s"]);
    assert_eq!(ask(port, "GET", "/v1/status", Some(&short), "").0, 200);
    let silence = r#"{"matchers": ["host=web1"], "duration_s": 600, "comment": "disk swap"}"#;
    let (status, body) = ask(port, "POST", "/v1/silences", Some(&secret), silence);
    assert_eq!(status, 200, "{body}");
    assert_eq!(host.ask(&["silence", "list"])[0]["author"], "token:ops");
    wait_for("the use to be noted", || host.ask(&["token", "list"])[0]["last_used_at"] != Value::Null);

    host.alertd.as_mut().unwrap().kill();
    host.restart_alertd();
    assert_eq!(ask(port, "GET", "/v1/status", Some(&secret), "").0, 200, "after kill -9 it is still good");
    wait_for("the short one's end", || ask(port, "GET", "/v1/status", Some(&short), "").0 == 401);
    let (_, body) = ask(port, "GET", "/v1/status", Some(&short), "");
    assert!(body.contains("has expired") || body.contains("too many"), "{body}");

    let revoked = host.alertctl(&["token", "revoke", "ops"]);
    assert!(revoked.status.success(), "{}", words(&revoked));
    let after = ask(port, "GET", "/v1/status", Some(&secret), "");
    assert!([401, 429].contains(&after.0), "{after:?}");
    let again = host.alertctl(&["token", "revoke", "ops"]);
    assert!(words(&again).contains("there is no token \"ops\""), "{}", words(&again));

    assert!(host.alertctl(&["status"]).status.success(), "the socket needs none");
    for entry in fs::read_dir(host.path("alertd")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let secret = secret.as_bytes();
        assert!(!bytes.windows(64).any(|part| part == &secret[9..73]), "{}", path.display());
    }
    assert!(!host.log("alertd").contains(&secret[9..]), "a secret in the log");
}

#[test]
fn too_much_too_slow_and_too_often_is_answered_and_counted() {
    let mut host = Host::new();
    let port = free_port();
    host.start_alertd(&format!("[alertd.listen]\naddress = \"127.0.0.1:{port}\"\n"));
    let secret = token(&host, "prom", "ingest", &[]);
    let (status, body) = ask(
        port,
        "POST",
        "/api/v2/alerts",
        Some(&secret),
        &"[".repeat(dogwatch_wire::limits::BODY_BYTES_MAX + 1),
    );
    assert!(status == 413 && body.starts_with('"'), "{status} {body}");

    // A body that never arrives completely is answered and delays no other request.
    let mut slow = TcpStream::connect(("127.0.0.1", port)).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!(
        "POST /v1/alerts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\ncontent-length: 9\r\n\r\n[{{"
    );
    slow.write_all(head.as_bytes()).unwrap();

    // From several threads, so that a busy machine comes to more than 50 a second too.
    let ask_until_refused = || {
        let mut answers = (0..5_000).map(|_| ask(port, "POST", "/v1/alerts", Some(&secret), "[]"));
        answers.find(|(status, _)| *status != 200)
    };
    let refusals: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask_until_refused)).collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let (status, words) = refusals.into_iter().next().expect("more than 50 a second");
    assert!(status == 429 && words.contains("try again in 1 s"), "{status} {words}");
    assert!(host.alertctl(&["status"]).status.success(), "the socket has no such limit");

    let mut answer = [0; 12];
    slow.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");

    for nonsense in [&b"\x16\x03\x01\x02\x00\x01"[..], b"\x00\xff", b"GET / HTTP/9\r\n\r\n", b"\r\n\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _ = stream.write_all(nonsense);
    }
    for reason in ["size", "slow", "rate"] {
        wait_for_refusals(&host, reason);
    }
    assert!(!host.log("alertd").contains("panicked"), "{}", host.log("alertd"));
}

#[tokio::test]
async fn over_tls_a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let mut host = Host::new();
    let Some(old) = Certificates::make(host.folder()) else { return };
    let port = free_port();
    host.start_alertd(&listen(port, &old));
    let secret = token(&host, "ada", "ack", &[]);
    let by_old = client(&host, port, &secret, &old.authority);
    let status: ctl::Status = by_old.get("/v1/status").await.unwrap();
    assert_eq!(status.incidents, []);

    let other = host.path("renewed");
    fs::create_dir(&other).unwrap();
    let new = Certificates::make(&other).unwrap();
    let by_new = client(&host, port, &secret, &new.authority);
    let words_of = |error: CallError| match error {
        CallError::NoAnswer { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    let stranger = words_of(by_new.get::<Value>("/v1/status").await.unwrap_err());
    assert!(stranger.contains("invalid peer certificate"), "{stranger}");

    // Half of a renewal: the certificate is there, its key is not.
    fs::copy(&new.certificate, &old.certificate).unwrap();
    host.alertd.as_ref().unwrap().signal(Signal::HUP);
    wait_for("alertd to say so", || host.ask(&["status"])["warnings"].to_string().contains("do not match"));
    by_old.get::<ctl::Status>("/v1/status").await.expect("the old one is still shown");

    fs::copy(&new.key, &old.key).unwrap();
    host.alertd.as_ref().unwrap().signal(Signal::HUP);
    wait_for("the warning to go", || host.ask(&["status"])["warnings"] == json!([]));
    by_new.get::<ctl::Status>("/v1/status").await.expect("the new one is shown");
    assert!(
        words_of(by_old.get::<Value>("/v1/status").await.unwrap_err()).contains("invalid peer certificate")
    );

    let config = fs::read_to_string(host.path("alertd.toml")).unwrap();
    host.write("alertd.toml", &config.replace(&port.to_string(), &free_port().to_string()));
    host.alertd.as_ref().unwrap().signal(Signal::HUP);
    wait_for("alertd to say that it takes a restart", || {
        host.ask(&["status"])["warnings"].to_string().contains("needs a restart")
    });
}

#[tokio::test]
async fn handshakes_that_never_end_hold_up_nobody() {
    let mut host = Host::new();
    let Some(certificates) = Certificates::make(host.folder()) else { return };
    let port = free_port();
    host.start_alertd(&listen(port, &certificates));
    let secret = token(&host, "ada", "read", &[]);
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    let mut half = TcpStream::connect(("127.0.0.1", port)).unwrap();
    half.write_all(b"\x16\x03\x01\x02").unwrap();
    // Sooner than any of those handshakes is given up.
    let client = client(&host, port, &secret, &certificates.authority).patient(Duration::from_secs(8));
    client.get::<ctl::Status>("/v1/status").await.expect("it is served");
    half.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut rest = Vec::new();
    let ended = half.read_to_end(&mut rest);
    assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock));
    wait_for_refusals(&host, "handshake");
    drop(silent);
}

#[test]
fn an_agent_and_alertctl_work_from_another_host() {
    let mut host = Host::new();
    let Some(certificates) = Certificates::make(host.folder()) else { return };
    let port = free_port();
    host.start_alertd(
        &(listen(port, &certificates) + "[[route]]\nreceiver = \"local\"\ngroup_wait = \"0s\"\n"),
    );
    let url = format!("https://localhost:{port}");
    let authority = certificates.authority.display().to_string();

    // The agent calls itself web1; its token says that it is db7.
    let agent_token = host.write("agent.token", &token(&host, "db7", "ingest", &["--host", "db7"]));
    let checks = "[check.always]\nkind = \"plugin\"\ncommand = [\"/bin/sh\", \"-c\", \"echo broken; exit 2\"]\n\
                  interval = \"1s\"\nretry_interval = \"1s\"\nmax_attempts = 1\n";
    host.alertd_link =
        format!("url = \"{url}\"\ntoken_file = \"{}\"\nca_file = \"{authority}\"", agent_token.display());
    host.start_agent(checks);
    wait_for("the agent's alert", || host.ask(&["status"])["incidents"].as_array().unwrap().len() == 1);
    let status = host.ask(&["status"]);
    assert_eq!(status["incidents"][0]["title"], "CRITICAL db7/always: broken", "{status}");
    assert_eq!(status["agents"][0]["host"], "db7");

    // A person elsewhere.
    let ops = host.write("ops.token", &token(&host, "ops", "ack", &[]));
    let ops = ops.display().to_string();
    let far = |rest: &[&str]| {
        let place = ["--url", &url, "--token-file", &ops, "--ca-file", &authority];
        let mut command = std::process::Command::new(dogwatch_tests::process::binary("alertctl"));
        command.args(place).args(rest).env("HOME", host.folder()).output().unwrap()
    };
    let acked = far(&["ack", "1", "looking"]);
    assert!(acked.status.success(), "{}", words(&acked));
    assert_eq!(host.ask(&["status"])["incidents"][0]["ack"]["author"], "token:ops");
    let refused = far(&["token", "list"]);
    assert!(
        refused.status.code() == Some(1)
            && words(&refused).contains("requires the scope admin; token ops has ack"),
        "{}",
        words(&refused)
    );

    // The same from the environment and from the file.
    let folder = host.path(".config/dogwatch");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(&ops, folder.join("token")).unwrap();
    let text = format!("url = \"{url}\"\ntoken_file = \"token\"\nca_file = \"{authority}\"\n");
    fs::write(folder.join("alertctl.toml"), text).unwrap();
    let by_file = |environment: &[(&str, &str)]| {
        let mut command = std::process::Command::new(dogwatch_tests::process::binary("alertctl"));
        command.arg("status").env("HOME", host.folder()).env_remove("XDG_CONFIG_HOME");
        command.envs(environment.iter().copied()).output().unwrap()
    };
    let shown = by_file(&[]);
    assert!(words(&shown).contains("always"), "{}", words(&shown));
    let elsewhere = by_file(&[("ALERTD_URL", "https://localhost:1")]);
    assert!(
        elsewhere.status.code() == Some(3) && words(&elsewhere).contains("cannot reach https://localhost:1"),
        "{}",
        words(&elsewhere)
    );

    // Its token is revoked: it keeps its events and sends them with a new token.
    assert!(host.alertctl(&["token", "revoke", "db7"]).status.success());
    wait_for("the agent to notice", || host.log("dogwatch").contains("unknown token"));
    let again = token(&host, "db7-b", "ingest", &["--host", "db7"]);
    fs::write(&agent_token, again).unwrap();
    wait_for("the agent to be heard again", || host.log("dogwatch").contains("reports reach alertd again"));
    let status = host.ask(&["status"]);
    assert_eq!(status["agents"].as_array().unwrap().len(), 1, "the same agent: {status}");
}
