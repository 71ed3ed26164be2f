//! The real alertd behind its socket: invalid requests, repeated batches, a reload and a shutdown.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use dogwatch_daemon::unix_http::{CallError, Client};
use dogwatch_wire::{BatchReply, ctl, limits};
use hyper::Method;
use serde_json::{Value, json};

/// Killed and reaped on drop.
struct Alertd {
    process: Child,
    client: Client,
    socket: PathBuf,
    folder: tempfile::TempDir,
}

impl Alertd {
    async fn start(rest: &str) -> Self {
        let folder = tempfile::tempdir().expect("cannot create a temporary directory");
        let socket = folder.path().join("alertd.sock");
        let (process, client) = Self::launch(&folder, &socket, rest).await;
        Self { process, client, socket, folder }
    }

    async fn launch(folder: &tempfile::TempDir, socket: &PathBuf, rest: &str) -> (Child, Client) {
        write_config(folder, rest);
        #[expect(clippy::zombie_processes, reason = "reaped by drop, or the test has failed")]
        let process = Command::new(env!("CARGO_BIN_EXE_alertd"))
            .arg("--config")
            .arg(folder.path().join("alertd.toml"))
            .stderr(Stdio::null())
            .spawn()
            .expect("alertd is built");
        let client = Client::new(socket, Duration::from_secs(20));
        for _ in 0..1_500 {
            if client.get::<ctl::Status>("/v1/status").await.is_ok() {
                return (process, client);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("alertd does not answer");
    }

    async fn status(&self) -> ctl::Status {
        self.client.get("/v1/status").await.expect("alertd answers")
    }

    async fn refused(&self, method: Method, target: &str, body: Option<&Value>) -> (u16, String) {
        match self.client.call::<Value>(method, target, body).await {
            Err(CallError::Refused { status, message, .. }) => (status, message),
            other => panic!("{target}: {other:?}"),
        }
    }

    /// Sends a body with `Connection: close` and returns the response.
    fn post_raw(&self, body: &[u8]) -> String {
        let head = format!(
            "POST /v1/agent/batch HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat(), false)
    }

    /// Sends bytes and returns everything that comes back.
    fn raw(&self, bytes: &[u8], hang_up: bool) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("alertd listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket has a timeout");
        // alertd may close the connection, which is also a valid response.
        let _ = stream.write_all(bytes);
        if hang_up {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a process has an id"), signal).expect("it is ours");
    }
}

fn write_config(folder: &tempfile::TempDir, rest: &str) {
    let path = folder.path().display();
    let text = format!(
        "[alertd]\nsocket = \"{path}/alertd.sock\"\nstate_dir = \"{path}/state\"\nmetrics = \"off\"\n{rest}"
    );
    fs::write(folder.path().join("alertd.toml"), text).expect("the folder is ours");
}

impl Drop for Alertd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn batch(seq: u64, state: &str) -> Value {
    let at = "2026-11-21T05:00:00Z";
    json!({
        "protocol": 1, "agent": "a1", "host": "web1", "epoch": "e1", "sent_at": at,
        "events": [{"seq": seq, "at": at, "kind": "transition", "from": "OK", "service": "disk", "state": state,
                    "since": at, "summary": "98 % full", "a_field_of_tomorrow": 1}]
    })
}

#[tokio::test]
async fn garbage_is_answered_with_words_and_harms_nobody() {
    let alertd = Alertd::start("").await;
    let post = Method::POST;
    let newer = json!({"protocol": 7, "shape": "unknown"});
    let (status, words) = alertd.refused(post.clone(), "/v1/agent/batch", Some(&newer)).await;
    assert_eq!((status, words.contains('7') && words.contains('2')), (400, true), "{words}");
    let long = json!({"protocol": 1, "agent": "a".repeat(999), "host": "h", "epoch": "e", "sent_at": "2026-11-21T05:00:00Z"});
    let own = json!({"protocol": 1, "agent": "@alertd", "host": "h", "epoch": "e", "sent_at": "2026-11-21T05:00:00Z"});
    let all = json!({"matchers": ["host=~\".*\""], "duration_s": 60, "comment": ""});
    let regex = json!({"matchers": ["host=~\"(\""], "duration_s": 60, "comment": ""});
    for (method, target, body, expected) in [
        (post.clone(), "/v1/agent/batch", Some(&json!([1, 2])), 400),
        (post.clone(), "/v1/agent/batch", Some(&long), 400),
        (post.clone(), "/v1/agent/batch", Some(&own), 400),
        (post.clone(), "/v1/incidents/x/ack", None, 400),
        (post.clone(), "/v1/incidents/99999999999999999999999/ack", None, 400),
        (post.clone(), "/v1/incidents/7/ack", None, 404),
        (post.clone(), "/v1/incidents/7/unack", None, 404),
        (Method::GET, "/v1/incidents/7/why", None, 404),
        (Method::GET, "/v1/history?limit=-1", None, 400),
        (Method::GET, "/v1/history?since=yesterday", None, 400),
        (post.clone(), "/v1/silences", Some(&all), 400),
        (post.clone(), "/v1/silences", Some(&regex), 400),
        (Method::DELETE, "/v1/silences/1", None, 404),
        (post.clone(), "/v1/test-notify", Some(&json!({"receiver": "nobody"})), 404),
        (Method::GET, "/nothing", None, 404),
    ] {
        let (status, words) = alertd.refused(method, target, body).await;
        assert_eq!(status, expected, "{target}: {words}");
        assert!(words.len() > 10 && !words.starts_with(char::is_uppercase), "{target}: {words}");
    }
    let answer = alertd.post_raw(&vec![b'['; limits::BODY_BYTES_MAX + 1]);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let answer = alertd.post_raw(&[b'['; 10_000]);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let endless = vec![b'A'; 100_000];
    for nonsense in [&b"\x00\xff\x16\x03\x01"[..], b"GET", b"POST / HTTP/9.9\r\n\r\n", &endless, b"\r\n\r\n"]
    {
        alertd.raw(nonsense, true);
    }
    assert_eq!(alertd.status().await.incidents, []);
}

#[tokio::test]
async fn a_batch_that_comes_twice_changes_nothing_and_a_gap_is_asked_about() {
    let alertd = Alertd::start("").await;
    let send = async |seq, state| -> BatchReply {
        alertd.client.post("/v1/agent/batch", &batch(seq, state)).await.expect("it is right")
    };
    assert_eq!(send(1, "CRITICAL").await.acked_seq, 1);
    assert_eq!(
        send(1, "OK").await,
        BatchReply { protocol: 1, acked_seq: 1, want_states: false, start_epoch: false }
    );
    assert_eq!(alertd.status().await.incidents.len(), 1, "event 1 was accepted before");
    assert_eq!(
        send(5, "CRITICAL").await,
        BatchReply { protocol: 1, acked_seq: 5, want_states: true, start_epoch: false }
    );
}

#[tokio::test]
async fn the_caller_is_known_and_everything_said_is_in_the_history() {
    let mut alertd = Alertd::start("").await;
    let _: BatchReply =
        alertd.client.post("/v1/agent/batch", &batch(1, "CRITICAL")).await.expect("it is right");
    let ask = ctl::Ack { comment: "mine".into(), sticky: true, expire_s: None };
    let acked: ctl::Incident = alertd.client.post("/v1/incidents/1/ack", &ask).await.expect("it is open");
    let me = acked.ack.expect("acked just now").author;
    assert!(!me.is_empty());
    let tested: ctl::TestResult =
        alertd.client.post("/v1/test-notify", &json!({"receiver": "local"})).await.expect("it is there");
    assert_eq!(tested.notification.state, "delivered", "{tested:?}");
    let _: BatchReply = alertd.client.post("/v1/agent/batch", &batch(2, "OK")).await.expect("it is right");
    let why: ctl::Why = alertd.client.get("/v1/incidents/1/why").await.expect("it was there");
    let kinds: Vec<_> = why.decisions.iter().map(|entry| entry.kind.as_str()).collect();
    assert!(kinds.starts_with(&["opened", "transition"]) && kinds.contains(&"acked"), "{kinds:?}");
    let history: Vec<ctl::HistoryEntry> =
        alertd.client.get("/v1/history?limit=50").await.expect("it answers");
    assert!(history.iter().any(|entry| entry.author.as_ref() == Some(&me)));

    alertd.signal(rustix::process::Signal::TERM);
    let ended = tokio::task::spawn_blocking(move || (alertd.process.wait(), alertd));
    let (status, alertd) = ended.await.expect("waiting does not panic");
    assert!(status.expect("it was ours").success());
    assert!(!alertd.socket.exists());
}

#[tokio::test]
async fn a_wrong_config_is_refused_at_a_reload_loudly_and_a_right_one_is_used() {
    let alertd = Alertd::start("").await;
    write_config(&alertd.folder, "[[route]]\npolicy = \"nobody\"\n");
    alertd.signal(rustix::process::Signal::HUP);
    let until = async |holds: &dyn Fn(&[String]) -> bool| {
        for _ in 0..1_500 {
            if holds(&alertd.status().await.warnings) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("in vain: {:?}", alertd.status().await.warnings);
    };
    until(&|warnings| warnings.iter().any(|w| w.contains("there is no policy \"nobody\""))).await;
    write_config(
        &alertd.folder,
        "[receiver.new.maildir]\npath = \"/tmp/never-used\"\n[[route]]\nreceiver = \"new\"\n",
    );
    alertd.signal(rustix::process::Signal::HUP);
    until(&<[String]>::is_empty).await;
    let _: BatchReply =
        alertd.client.post("/v1/agent/batch", &batch(1, "CRITICAL")).await.expect("it is right");
    assert_eq!(alertd.status().await.incidents[0].next_step.as_ref().expect("it waits").targets, ["new"]);
}

/// Alerts posted as Prometheus does, read as `amtool` does, and sent from a script.
#[tokio::test]
async fn others_post_alerts_over_alertmanagers_api_and_with_alertctl() {
    let alertd = Alertd::start("[[route]]\nreceiver = \"local\"\ngroup_wait = \"0s\"\n").await;
    let send = |rest: &'static [&'static str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_alertctl"))
            .arg("--socket")
            .arg(&alertd.socket)
            .args(["send", "BackupFailed", "host=db1", "job=nightly"])
            .args(rest)
            .output()
            .expect("alertctl is built");
        (out.status.code(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    let (code, said) = send(&["-m", "no backup since Tuesday"]);
    assert_eq!((code, &*said), (Some(0), "alert sent; incident #1; see: alertctl why 1\n"));

    let posted = json!([
        { "labels": { "alertname": "Disk", "instance": "web1:9100", "severity": "warning" },
          "annotations": { "summary": "97 % full" }, "generatorURL": "http://prometheus.example/g" },
        { "labels": {} },
    ]);
    let (status, error) = alertd.refused(Method::POST, "/api/v2/alerts", Some(&posted)).await;
    assert!(
        status == 400 && error.contains("alert 2: an alert needs at least one label"),
        "{status} {error}"
    );
    let firing: Vec<Value> =
        alertd.client.get("/api/v2/alerts?filter=alertname%3DDisk&active=true").await.expect("it answers");
    assert_eq!(firing.len(), 1, "the valid alerts of a post are accepted: {firing:?}");
    let labels = json!({ "alertname": "Disk", "instance": "web1:9100", "severity": "warning" });
    assert_eq!((&firing[0]["labels"], &firing[0]["status"]["state"]), (&labels, &json!("active")));
    assert_eq!(firing[0]["receivers"], json!([{ "name": "local" }]));
    let groups: Vec<Value> = alertd.client.get("/api/v2/alerts/groups").await.expect("it answers");
    assert_eq!(groups.len(), 2);
    let status = alertd.status().await;
    let titles: Vec<_> = status.incidents.iter().map(|incident| incident.title.as_str()).collect();
    let expected = ["CRITICAL db1/BackupFailed: no backup since Tuesday", "WARNING web1/Disk: 97 % full"];
    assert_eq!(titles, expected);

    let (code, said) = send(&["--ok"]);
    assert!(code == Some(0) && said.starts_with("alert resolved; incident "), "{said}");
    assert_eq!(alertd.status().await.incidents.len(), 1);
    let (code, said) = send(&["nonsense"]);
    assert!(code == Some(2) && said.contains("\"nonsense\" is not a label"), "{said}");
    let (_, error) = alertd.refused(Method::GET, "/api/v2/alerts?active=maybe", None).await;
    assert!(error.contains("true or false"), "{error}");
}

/// S7, with real processes of real users. uid 1 is `daemon`, uid 2 `bin`, on every Debian system.
#[tokio::test]
async fn the_kernel_says_who_calls_and_rights_follow_the_uid() {
    use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can start processes of other users");
        return;
    }
    let alertd = Alertd::start("[alertd.rights]\ndaemon = [\"ingest\"]\nbin = []\n").await;
    fs::set_permissions(alertd.folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    fs::set_permissions(&alertd.socket, fs::Permissions::from_mode(0o666)).expect("it is ours");
    // The build may be below a directory that only root can enter.
    let alertctl = alertd.folder.path().join("alertctl");
    fs::copy(env!("CARGO_BIN_EXE_alertctl"), &alertctl).expect("alertctl is built");
    let run = |uid: u32, arguments: &[&str]| {
        let mut command = Command::new(&alertctl);
        command.uid(uid).gid(uid).env_clear().arg("--socket").arg(&alertd.socket).args(arguments);
        let output = command.output().expect("alertctl starts");
        let words = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&words).into_owned())
    };
    let token = ["token", "create", "mine", "--scope", "admin"];
    for (uid, what) in [(1, "daemon has ingest"), (2, "bin has nothing"), (54_321, "ack, silence")] {
        let (done, words) = run(uid, &token);
        assert!(!done && words.contains("requires the right admin") && words.contains(what), "{words}");
    }
    assert!(run(1, &["send", "Backup", "job=nightly"]).0);
    let health = run(1, &["health"]).1;
    assert!(health.contains("all changes are on disk"), "{health}");
    assert!(!run(1, &["status"]).0);
    assert!(!run(2, &["send", "Backup", "job=nightly"]).0 && run(2, &["health"]).1.contains("requires"));
    assert!(run(54_321, &["status"]).0);
    let silence = run(54_321, &["silence", "job=nightly", "--for", "1h", "--comment", "tape"]);
    assert!(silence.0, "{}", silence.1);
    assert!(!run(54_321, &["test-notify", "local"]).0);
    assert!(run(0, &token).0);
}
