//! On call with the real programs: config, alertd, agent, alertctl, and a kill in between.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fmt::Write as _;

use dogwatch_tests::{
    host::{Host, words},
    process::wait_for,
};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[policy.default]
step = [{ notify = ["primary"] }]

[schedule.primary]
time_zone = "Europe/Berlin"
[[schedule.primary.layer]]
users = ["ann", "ben"]
rotate = "daily"
since = "2026-01-05 09:00"

[user.ann]
rules = [{ notify = ["ann-mail"] }]
[user.ben]
rules = [{ notify = ["ben-mail"] }]
[user.cem]
rules = [{ notify = ["cem-mail"] }, { after = "1s", notify = ["cem-pager"] }]
"#;

#[test]
fn who_is_on_call_is_paged_by_their_own_rules_and_an_override_survives_a_kill() {
    let mut host = Host::new();
    let mut config = CONFIG.to_owned();
    for name in ["ann-mail", "ben-mail", "cem-mail", "cem-pager"] {
        let path = host.path(name);
        let _ = writeln!(config, "[receiver.{name}.maildir]\npath = \"{}\"", path.display());
    }
    host.start_alertd(&config);
    let on_call = host.ask(&["oncall"])["schedules"][0].clone();
    let user = on_call["user"].as_str().unwrap().to_owned();
    assert!(["ann", "ben"].contains(&user.as_str()), "{on_call}");
    assert_eq!(on_call["receivers"], json!([format!("{user}-mail")]));
    assert_eq!(on_call["gaps"], json!([]));
    let tomorrow = host.ask(&["oncall", "--at", "+24h"])["schedules"][0]["user"].clone();
    assert_ne!(tomorrow, json!(user), "they take turns");
    let week = words(&host.alertctl(&["oncall", "--week"]));
    assert!(week.contains("primary (Europe/Berlin)") && week.contains("ON CALL"), "{week}");
    assert!(week.matches("ann").count() >= 3 && week.matches("ben").count() >= 3, "{week}");

    for (arguments, exit, part) in [
        (vec!["override", "primry", "cem", "--until", "+2h"], 1, "there is no schedule \"primry\""),
        (vec!["override", "primary", "zoe", "--until", "+2h"], 1, "users: ann, ben, cem"),
        (vec!["override", "primary", "cem", "--from", "+3h", "--until", "+2h"], 1, "must end in the future"),
        (vec!["override", "primary", "cem"], 2, "--until"),
        (vec!["override", "end", "9"], 1, "there is no override 9"),
        (vec!["oncall", "--at", "someday"], 2, "is not a time"),
    ] {
        let output = host.alertctl(&arguments);
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {}", words(&output));
        assert!(words(&output).contains(part), "{arguments:?}: {}", words(&output));
    }
    let made = host.alertctl(&["override", "primary", "cem", "--until", "+2h", "--comment", "swapped"]);
    assert!(words(&made).contains("to end it now: alertctl override end 1"), "{}", words(&made));
    host.alertd.take().unwrap().kill();
    host.restart_alertd();
    assert_eq!(host.ask(&["oncall"])["schedules"][0]["user"], "cem");
    assert_eq!(host.ask(&["override", "list"])[0]["comment"], "swapped");

    say(&host, "echo it burns; exit 2");
    host.start_agent(&check(&host));
    wait_for("both of cem's rules", || {
        host.maildir("cem-mail").len() == 1 && host.maildir("cem-pager").len() == 1
    });
    let why = words(&host.alertctl(&["why", "1"]));
    assert!(why.contains("primary (cem)") && why.contains("personal_rule"), "{why}");
    assert_eq!((host.maildir("ann-mail").len(), host.maildir("ben-mail").len()), (0, 0));

    let routed = words(&host.alertctl(&["route", "test", "host=web1", "service=demo"]));
    assert!(
        routed.contains("=> everything") && routed.contains("immediately primary (cem): cem-mail"),
        "{routed}"
    );
    let same = words(&host.alertctl(&[
        "config",
        "diff",
        "--config",
        &host.path("alertd.toml").display().to_string(),
    ]));
    assert!(same.contains("no change for 1 firing alert"), "{same}");
    let text = std::fs::read_to_string(host.path("alertd.toml")).unwrap();
    let new = host.write("new.toml", &text.replace("{ notify = [\"primary\"] }", "{ notify = [\"ben\"] }"));
    let diff = host.alertctl(&["config", "diff", "--config", &new.display().to_string()]);
    assert!(words(&diff).contains("1 of 1 firing alert would be routed differently"), "{}", words(&diff));
    assert!(
        words(&diff).contains("+ everything: policy default; immediately ben: ben-mail"),
        "{}",
        words(&diff)
    );

    host.ask(&["override", "end", "1"]);
    assert_eq!(host.ask(&["oncall"])["schedules"][0]["user"], json!(user));
    say(&host, "echo all is well; exit 0");
    wait_for("the recovery where the problem was told", || {
        host.maildir("cem-mail").len() == 2 && host.maildir("cem-pager").len() == 2
    });
    assert_eq!((host.maildir("ann-mail").len(), host.maildir("ben-mail").len()), (0, 0));

    // What really was sent, and what the other config would have sent: ben, and not cem.
    let other = new.display().to_string();
    let replay = || host.ask(&["replay", "--since", "1h", "--config", &other]);
    // A file in the maildir is there before its delivery is recorded.
    wait_for("all four to be recorded", || replay()["sent"].as_array().is_some_and(|sent| sent.len() == 4));
    let replayed = replay();
    let receivers = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|sent| format!("{} {}", sent["kind"], sent["receiver"])).collect()
    };
    let told = |names: [&str; 2], kind| names.map(|name| format!("\"{kind}\" \"{name}\""));
    let (problem, recovery) =
        (told(["cem-mail", "cem-pager"], "problem"), told(["cem-mail", "cem-pager"], "recovery"));
    let mut sent = receivers(&replayed["sent"]);
    sent.sort();
    assert_eq!(sent, [problem, recovery].concat(), "{replayed}");
    assert_eq!(
        receivers(&replayed["would_be"]),
        ["\"problem\" \"ben-mail\"", "\"recovery\" \"ben-mail\""],
        "{replayed}"
    );
    let table = words(&host.alertctl(&["replay", "--config", &other, "--list"]));
    assert!(
        table.contains("NEW CONFIG") && table.contains("4 notifications sent, 2 with the new config"),
        "{table}"
    );
}

#[test]
fn with_nobody_on_call_the_catch_all_is_told_and_alertd_says_so() {
    let mut host = Host::new();
    host.start_alertd(
        r#"
[policy.default]
step = [{ notify = ["primary"] }]
[user.ann]
rules = [{ notify = ["local"] }]
[schedule.primary]
time_zone = "UTC"
[[schedule.primary.layer]]
users = ["ann"]
since = "2999-01-01 00:00"
"#,
    );
    let status = words(&host.alertctl(&["status"]));
    assert!(status.contains("nobody is on call in schedule primary"), "{status}");
    let on_call = words(&host.alertctl(&["oncall"]));
    assert!(on_call.contains("nobody") && on_call.contains("local (catch_all)"), "{on_call}");
    say(&host, "echo it burns; exit 2");
    host.start_agent(&check(&host));
    wait_for("the page and alertd's own alert", || host.maildir("alertd/mail").len() == 2);
    let mails = host.maildir("alertd/mail").join("\n");
    assert!(mails.contains("it burns") && mails.contains("nobody is on call in schedule primary"), "{mails}");
    host.ask(&["override", "primary", "ann", "--until", "+1h"]);
    wait_for("the end of alertd's own alert", || {
        host.ask(&["status"])["incidents"].as_array().unwrap().len() == 1
    });
}

/// A check that says what the script says.
fn check(host: &Host) -> String {
    let script = host.path("demo.sh").display().to_string();
    format!(
        "[check.demo]\nkind = \"plugin\"\ncommand = [\"/bin/sh\", \"{script}\"]\ninterval = \"1s\"\nretry_interval = \"1s\"\nmax_attempts = 1\n"
    )
}

fn say(host: &Host, script: &str) {
    host.write("demo.new", script);
    std::fs::rename(host.path("demo.new"), host.path("demo.sh")).unwrap();
}
