//! Debian's Prometheus and amtool with alertd over TLS, with the configs shown in docs/api.md.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use dogwatch_tests::{
    certificates::Certificates,
    host::{Host, words},
    process::{Process, debian_program, free_port, wait_for},
};
use dogwatch_wire::State;
use serde_json::{Value, json};

struct Setup {
    host: Host,
    port: u16,
    certificates: Certificates,
}

impl Setup {
    fn start() -> Option<Self> {
        let mut host = Host::new();
        let certificates = Certificates::make(host.folder())?;
        let port = free_port();
        host.start_alertd(&format!(
            "[alertd.listen]\naddress = \"127.0.0.1:{port}\"\ncertificate = \"{}\"\nkey = \"{}\"\n\n\
             [[route]]\nreceiver = \"local\"\ngroup_wait = \"0s\"\n",
            certificates.certificate.display(),
            certificates.key.display()
        ));
        Some(Self { host, port, certificates })
    }

    fn token(&self, name: &str, scope: &str) -> PathBuf {
        let output = self.host.alertctl(&["token", "create", name, "--scope", scope]);
        assert!(output.status.success(), "{}", words(&output));
        // The way that the manual shows: `> file`.
        self.host.write(&format!("{name}.token"), &String::from_utf8(output.stdout).unwrap())
    }
}

#[test]
fn a_rule_that_fires_in_prometheus_is_an_incident_and_its_end_a_recovery() {
    let Some(prometheus) = debian_program("prometheus", "prometheus") else { return };
    let Some(setup) = Setup::start() else { return };
    let token = setup.token("prometheus", "ingest");
    let rules = |expression: &str| {
        setup.host.write(
            "rules.yml",
            &format!(
                "groups:\n  - name: test\n    interval: 1s\n    rules:\n      - alert: DiskFull\n        expr: {expression}\n        \
                 labels: {{severity: warning, host: db1}}\n        annotations: {{summary: '97 % full'}}\n"
            ),
        )
    };
    rules("vector(1) == 1");
    let config = setup.host.write(
        "prometheus.yml",
        &format!(
            "global: {{evaluation_interval: 1s}}\nrule_files: [rules.yml]\nalerting:\n  alertmanagers:\n    - scheme: https\n      \
             static_configs: [{{targets: ['localhost:{}']}}]\n      authorization: {{credentials_file: {}}}\n      \
             tls_config: {{ca_file: {}}}\n",
            setup.port,
            token.display(),
            setup.certificates.authority.display()
        ),
    );
    let web = free_port();
    let mut command = Command::new(prometheus);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", setup.host.path("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{web}"))
        .args(["--rules.alert.resend-delay=1s", "--web.enable-lifecycle"]);
    let server = Process::start("prometheus", &mut command, setup.host.folder());
    wait_for("Prometheus' alert", || {
        setup.host.ask(&["status"])["incidents"][0]["title"] == "WARNING db1/DiskFull: 97 % full"
    });
    wait_for("its use of the token to be noted", || {
        setup.host.ask(&["token", "list"])[0]["last_used_at"] != Value::Null
    });
    rules("vector(1) == 2");
    server.signal(rustix::process::Signal::HUP);
    wait_for("the recovery", || setup.host.ask(&["status"])["incidents"] == json!([]));
    let why = words(&setup.host.alertctl(&["why", "1"]));
    assert!(why.contains("all_resolved") || why.contains("resolved"), "{why}");
}

#[tokio::test]
async fn amtool_asks_silences_and_ends_silences() {
    let Some(amtool) = debian_program("amtool", "prometheus-alertmanager") else { return };
    let Some(setup) = Setup::start() else { return };
    let Setup { host, port, certificates } = &setup;
    let token = setup.token("ops", "silence");
    let http = host.write(
        "amtool-http.yml",
        &format!(
            "authorization: {{credentials_file: {}}}\ntls_config: {{ca_file: {}}}\n",
            token.display(),
            certificates.authority.display()
        ),
    );
    let amtool = |rest: &[&str]| -> Output {
        let mut command = Command::new(&amtool);
        command.arg(format!("--alertmanager.url=https://localhost:{port}"));
        command.arg(format!("--http.config.file={}", http.display())).args(rest);
        command.env("HOME", host.folder()).env("USER", "ada").output().unwrap()
    };
    let done = |rest: &[&str]| {
        let output = amtool(rest);
        assert!(output.status.success(), "amtool {rest:?}: {}", words(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, seq) in [("web1", 1), ("web2", 1)] {
        host.report(name, "disk", State::Critical, seq).await;
    }
    let shown = done(&["alert", "query", "host=web1"]);
    assert!(shown.contains("disk is CRITICAL") && shown.lines().count() == 2, "{shown}");
    assert!(done(&["alert", "query"]).lines().count() >= 3);

    let id = done(&[
        "silence",
        "add",
        "--author=ada",
        "host=web1",
        "service=~dis.",
        "--comment=swap",
        "--duration=1h",
    ]);
    let id = id.trim();
    let ours = host.ask(&["silence", "list"]);
    assert_eq!(ours[0]["number"].to_string(), id);
    assert_eq!(ours[0]["matchers"], json!(["host=\"web1\"", "service=~\"dis.\""]));
    assert_eq!(ours[0]["author"], "token:ops (ada)");
    let listed = done(&["silence", "query"]);
    assert!(listed.contains(id) && listed.contains("swap"), "{listed}");
    assert!(done(&["silence", "query", "host=web2"]).lines().count() <= 1, "a filter");
    assert_eq!(done(&["alert", "query", "host=web1"]).lines().count(), 1, "a silenced alert is not shown");
    assert_eq!(done(&["alert", "query", "--silenced", "host=web1"]).lines().count(), 2);

    let updated = done(&["silence", "update", id, "--duration=2h"]);
    assert!(updated.contains(id), "{updated}");
    let until = host.ask(&["silence", "list"])[0]["ends_at"].clone();
    assert_ne!(until, ours[0]["ends_at"]);

    done(&["silence", "expire", id]);
    assert_eq!(host.ask(&["silence", "list"]), json!([]));
    assert!(!done(&["silence", "query"]).contains("swap"));
    assert!(done(&["silence", "query", "--expired"]).contains("swap"), "what is over can still be read");
    assert!(!amtool(&["silence", "expire", id]).status.success(), "twice is an error");

    let broad = amtool(&["silence", "add", "host=~.+", "--comment=x", "--duration=1h"]);
    assert!(!broad.status.success() && words(&broad).contains("all 2 hosts"), "{}", words(&broad));
    assert_eq!(host.ask(&["silence", "list"]), json!([]));

    let alert = amtool(&["alert", "add", "Backup", "host=db1"]);
    assert!(!alert.status.success() && words(&alert).contains("status 403"), "{}", words(&alert));
    let audit = host.ask(&["audit"]);
    let lines: Vec<_> = audit.as_array().unwrap().iter().map(|entry| &entry["text"]).collect();
    assert_eq!(lines[0], "POST /api/v2/alerts: 403 Forbidden", "{audit}");
    assert_eq!(lines[1], "POST /api/v2/silences: 400 Bad Request", "{audit}");
    assert_eq!((&audit[0]["author"], &audit[0]["from"]), (&json!("token:ops"), &json!("127.0.0.1")));
    let silenced = audit.as_array().unwrap().iter().find(|entry| entry["kind"] == "silenced").unwrap();
    assert_eq!((&silenced["author"], &silenced["from"]), (&json!("token:ops (ada)"), &json!("127.0.0.1")));
}
