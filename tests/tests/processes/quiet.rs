//! Suppression with the real programs: inhibition, downtimes, silences, a silent agent, and kills
//! in between.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;

use dogwatch_tests::{
    host::{Host, words},
    http,
    process::wait_for,
};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[[inhibit]]
source = ["service=net"]
target = ["service=disk"]
equal = ["host"]
[period.never]
time_zone = "UTC"
years = ["1999"]
"#;

#[test]
fn what_is_withheld_is_shown_with_its_reason_and_told_when_that_is_over() {
    let mut host = Host::new();
    fs::create_dir(host.path("alertd.d")).unwrap();
    host.write("alertd.d/settle.toml", "[alertd]\nsettle = \"1s\"\n");
    host.start_alertd(CONFIG);
    say(&host, "net", "echo no carrier; exit 2");
    say(&host, "disk", "echo fine; exit 0");
    host.start_agent(&(check(&host, "net") + &check(&host, "disk")));
    wait_for("the page of the net", || mails(&host) == 1);
    say(&host, "disk", "echo full; exit 2");
    wait_for("the disk to be withheld", || withheld(&host) == json!("inhibited"));
    let why = words(&host.alertctl(&["why", "1"]));
    assert!(why.contains("suppressed   web1/disk: inhibited: web1/net"), "{why}");
    host.alertd.take().unwrap().kill();
    host.restart_alertd();
    assert_eq!((withheld(&host), mails(&host)), (json!("inhibited"), 1));
    say(&host, "net", "echo carrier; exit 0");
    wait_for("its recovery, and then the disk", || mails(&host) == 3);
    assert!(mail_text(&host).contains("inhibition_ended"), "{}", mail_text(&host));

    let refused = host.alertctl(&["downtime", "wbe1", "--for", "1h", "--comment", "x"]);
    assert!(words(&refused).contains("did you mean \"web1\"?"), "{}", words(&refused));
    let made = host.alertctl(&["downtime", "web1", "disk", "--for", "1h", "--comment", "ticket 88"]);
    assert!(words(&made).contains("to cancel it: alertctl downtime cancel 1"), "{}", words(&made));
    wait_for("word of the downtime", || mails(&host) == 4);
    assert!(mail_text(&host).contains("downtime 1 of web1/disk by"), "{}", mail_text(&host));
    host.alertd.take().unwrap().kill();
    host.restart_alertd();
    let status = words(&host.alertctl(&["status"]));
    assert!(status.contains("1 downtime in effect:") && status.contains("ticket 88"), "{status}");
    assert_eq!((withheld(&host), mails(&host)), (json!("downtime"), 4));
    for metric in ["alertd_downtimes_active 1", "alertd_alerts_withheld{reason=\"downtime\"} 1"] {
        wait_for(metric, || {
            http::get(host.alertd_metrics, "/metrics").is_some_and(|(_, page)| page.contains(metric))
        });
    }
    assert_eq!(host.ask(&["downtime", "cancel", "1"])["state"], "over");
    wait_for("word of its end", || mails(&host) == 5);
    assert!(mail_text(&host).contains("downtime_ended"), "{}", mail_text(&host));
    assert_eq!(host.ask(&["downtime", "list"]), json!([]));

    host.agent.take().unwrap().kill();
    wait_for("the page of the silent host", || mails(&host) == 6);
    assert!(mail_text(&host).contains("no heartbeat from the agent on web1"), "{}", mail_text(&host));
    assert_eq!(withheld(&host), json!("host_down"));
}

#[test]
fn silences_are_previewed_extended_and_meant() {
    let mut host = Host::new();
    host.start_alertd(CONFIG);
    say(&host, "disk", "echo full; exit 2");
    host.start_agent(&check(&host, "disk"));
    wait_for("the page", || mails(&host) == 1);
    let preview = words(&host.alertctl(&["silence", "service=disk", "--for", "1h", "--preview"]));
    assert!(
        preview.contains("matches 1 firing alert on 1 host now") && preview.contains("web1/disk: full"),
        "{preview}"
    );
    let refused = host.alertctl(&["silence", "host=~.*", "--for", "1h", "--comment", "x"]);
    assert!(words(&refused).contains("add --broad if you mean it"), "{}", words(&refused));
    let made = host.ask(&["silence", "service=disk", "--from", "+1h", "--until", "+3h", "--comment", "x"]);
    assert_eq!(made["state"], "pending");
    let again = host.ask(&["silence", "service=disk", "--for", "3h", "--during", "never", "--comment", "x"]);
    assert_eq!((&again["state"], &again["period"]), (&json!("waiting"), &json!("never")));
    assert_eq!(withheld(&host), Value::Null);
    let all = host.ask(&["silence", "--broad", "--for", "1h", "--comment", "move"]);
    assert_eq!((&all["state"], &all["matchers"]), (&json!("active"), &json!([])));
    assert_eq!(withheld(&host), json!("silenced"));
    let before = host.ask(&["silence", "list"])[2]["ends_at"].as_str().unwrap().to_owned();
    let extended = host.ask(&["silence", "extend", "3", "--for", "2h"]);
    assert!(extended["ends_at"].as_str().unwrap() > before.as_str(), "{extended}");
    host.alertd.take().unwrap().kill();
    host.restart_alertd();
    assert_eq!(host.ask(&["silence", "list"])[2]["ends_at"], extended["ends_at"]);
    assert_eq!(host.ask(&["silence", "expire", "3"])["state"], "over");
    assert_eq!((withheld(&host), mails(&host)), (Value::Null, 1));
    for (arguments, part) in [
        (vec!["silence", "extend", "9", "--for", "1h"], "no current or future silence 9"),
        (
            vec!["silence", "host=web1", "--for", "1h", "--during", "nights", "--comment", "x"],
            "periods: never",
        ),
        (vec!["downtime", "cancel", "9"], "no current or future downtime 9"),
    ] {
        let output = host.alertctl(&arguments);
        assert_eq!(output.status.code(), Some(1), "{}", words(&output));
        assert!(words(&output).contains(part), "{}", words(&output));
    }
}

/// Why the first withheld alert of the first incident is.
fn withheld(host: &Host) -> Value {
    host.ask(&["status"])["incidents"][0]["withheld"][0]["reason"].clone()
}

fn mails(host: &Host) -> usize {
    host.maildir("alertd/mail").len()
}

fn mail_text(host: &Host) -> String {
    host.maildir("alertd/mail").join("\n")
}

/// A check that says what its script says.
fn check(host: &Host, name: &str) -> String {
    let script = host.path(&format!("{name}.sh")).display().to_string();
    format!(
        "[check.{name}]\nkind = \"plugin\"\ncommand = [\"/bin/sh\", \"{script}\"]\ninterval = \"1s\"\nretry_interval = \"1s\"\nmax_attempts = 1\n"
    )
}

/// As a whole, for the check may run at any moment.
fn say(host: &Host, name: &str, script: &str) {
    let new = host.write("new.sh", script);
    fs::rename(new, host.path(&format!("{name}.sh"))).unwrap();
}
