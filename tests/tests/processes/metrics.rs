//! The three metrics pages, checked by promtool and scraped by a real Prometheus.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fmt::Write as _,
    fs,
    io::Write,
    net::UdpSocket,
    path::Path,
    process::{Command, Stdio},
};

use dogwatch_tests::{
    host::{Host, words},
    http,
    process::{Process, debian_program, free_port, wait_for},
};

#[test]
fn promtool_finds_nothing_to_say_and_prometheus_scrapes_all_three() {
    let Some(promtool) = debian_program("promtool", "prometheus") else { return };
    let Some(prometheus) = debian_program("prometheus", "prometheus") else { return };
    let mut host = Host::new();
    // An upstream that never answers: the outage's metrics are on the page too.
    let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
    host.start_dns(upstream.local_addr().unwrap());
    host.start_alertd("");
    host.start_agent("[check.load]\ninterval = \"1s\"\nretry_interval = \"1s\"\n[check.broken]\nkind = \"plugin\"\ncommand = [\"/bin/false\"]\ninterval = \"1s\"\nretry_interval = \"1s\"\nmax_attempts = 1\n");
    // Numbers appear with their first event: wait until an alert went all the way.
    wait_for("a notification", || !host.maildir("alertd/mail").is_empty());

    let pages = [("agent", host.agent_metrics), ("alertd", host.alertd_metrics), ("dns", host.dns_metrics)];
    let prefixes = ["dogwatch_", "alertd_", "dogwatch_dns_"];
    for ((name, port), prefix) in pages.iter().zip(prefixes) {
        let (status, page) = http::get(*port, "/metrics").unwrap();
        assert_eq!(status, 200, "{name}");
        judge(&promtool, name, &page);
        let metrics = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        for line in metrics {
            assert!(line.starts_with(prefix), "{name}: {line}");
        }
    }

    // What takes a walk over the cache comes every few seconds.
    wait_for("the walk", || {
        http::get(host.dns_metrics, "/metrics")
            .is_some_and(|page| page.1.contains("dogwatch_dns_runway_seconds"))
    });
    let (_, dns_page) = http::get(host.dns_metrics, "/metrics").unwrap();
    judge_rules(&promtool, "dogwatch-dns", "dogwatch_dns_", &dns_page);
    let (_, alertd_page) = http::get(host.alertd_metrics, "/metrics").unwrap();
    judge_rules(&promtool, "dogwatch-alertd", "alertd_", &alertd_page);

    let (_process, port) = start_prometheus(&prometheus, &host, &pages);
    wait_for("three targets that are up", || {
        let (_, answer) = http::get(port, "/api/v1/query?query=sum(up)").unwrap_or_default();
        answer.contains(",\"3\"]")
    });
    // A number of each daemon arrived with its labels.
    for query in ["dogwatch_build_info", "alertd_build_info", "dogwatch_dns_build_info"] {
        let (_, answer) = http::get(port, &format!("/api/v1/query?query={query}")).unwrap();
        assert!(answer.contains("\"version\":\""), "{query}: {answer}");
    }
}

/// The shipped alert rules are sound, fire when they should, and speak only of metrics that there
/// are.
fn judge_rules(promtool: &Path, group: &str, prefix: &str, page: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus");
    for arguments in [
        ["check", "rules", &format!("{group}.rules.yml")],
        ["test", "rules", &format!("{group}.rules.test.yml")],
    ] {
        let output = Command::new(promtool).args(arguments).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{}", words(&output));
    }
    let rules = fs::read_to_string(folder.join(format!("{group}.rules.yml"))).unwrap();
    let named = rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    for name in named.filter(|word| word.starts_with(prefix)) {
        assert!(page.contains(&format!("# TYPE {name} ")), "no metric {name} on the page");
    }
}

/// `promtool check metrics` must be silent: not even advice.
fn judge(promtool: &Path, name: &str, page: &str) {
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{name}: {}", String::from_utf8_lossy(&said));
}

fn start_prometheus(prometheus: &Path, host: &Host, pages: &[(&str, u16)]) -> (Process, u16) {
    let mut config =
        String::from("global: { scrape_interval: 500ms, scrape_timeout: 500ms }\nscrape_configs:\n");
    for (name, port) in pages {
        let _ = writeln!(
            config,
            "  - {{ job_name: {name}, static_configs: [{{ targets: [\"127.0.0.1:{port}\"] }}] }}"
        );
    }
    let file = host.write("prometheus.yml", &config);
    let port = free_port();
    let data = host.path("prometheus");
    fs::create_dir(&data).unwrap();
    let mut command = Command::new(prometheus);
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    (Process::start("prometheus", &mut command, host.folder()), port)
}
