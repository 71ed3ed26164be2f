//! Two agents with one machine id, as on copies of one image (case G2), and a real alertd that is
//! killed in between.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{fs, process::Command};

use dogwatch_tests::{
    host::{Host, words},
    process::{Process, binary, free_port, holds_within, wait_for},
};
use serde_json::Value;

const ID: &str = "0123456789abcdef0123456789abcdef";

/// Starts an agent with files below `name`, one check and its own host name.
fn start(host: &Host, name: &str, host_name: &str, machine_id: &str, service: &str) -> Process {
    let dir = host.path(name);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("machine-id"), format!("{machine_id}\n")).unwrap();
    let text = format!(
        "[agent]\nhost = \"{host_name}\"\nstate_dir = \"{dir}/state\"\nsocket = \"{dir}/agent.sock\"\n\
         machine_id_file = \"{dir}/machine-id\"\nmetrics = \"127.0.0.1:{}\"\nauto_checks = false\n\
         boot_grace = \"0s\"\n\n[alertd]\nsockets = [\"{}\"]\nheartbeat = \"1s\"\n\n\
         [check.{service}]\nkind = \"plugin\"\ncommand = [\"/bin/sh\", \"-c\", \"echo {service} is full; exit 2\"]\n\
         interval = \"1s\"\nmax_attempts = 1\n",
        free_port(),
        host.alertd_socket().display(),
        dir = dir.display(),
    );
    let config = host.write(&format!("{name}.toml"), &text);
    Process::start(
        name,
        Command::new(binary("dogwatch")).arg("run").arg("--config").arg(config),
        host.folder(),
    )
}

fn mails(host: &Host) -> Vec<String> {
    host.maildir("alertd/mail")
}

/// Firing alerts as `host/service`, sorted.
fn firing(host: &Host) -> Vec<String> {
    let status = host.ask(&["status"]);
    let incidents = status["incidents"].as_array().unwrap().iter();
    let alerts = incidents.flat_map(|incident| incident["alerts"].as_array().unwrap());
    let firing = alerts.filter(|alert| alert["resolved_at"] == Value::Null);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let name =
        |alert: &Value| format!("{}/{}", text(&alert["labels"]["host"]), text(&alert["labels"]["service"]));
    let mut names: Vec<_> = firing.map(name).collect();
    names.sort();
    names
}

/// The agents that alertd knows: host name and whether it is silent.
fn agents(host: &Host) -> Vec<(String, bool)> {
    let status = host.ask(&["status"]);
    let agents = status["agents"].as_array().unwrap().iter();
    agents.map(|agent| (agent["host"].as_str().unwrap().to_owned(), agent["silent"] == true)).collect()
}

/// Waits until every agent was heard some more times.
fn some_heartbeats(host: &Host) {
    let heard = |host: &Host| -> Vec<Value> {
        let status = host.ask(&["status"]);
        status["agents"].as_array().unwrap().iter().map(|agent| agent["last_heard_at"].clone()).collect()
    };
    for _ in 0..4 {
        let before = heard(host);
        wait_for("the next heartbeats", || {
            let now = heard(host);
            now.len() == before.len() && now.iter().zip(&before).all(|(now, before)| now != before)
        });
    }
}

fn assert_no_false_end(host: &Host) {
    let ended =
        mails(host).into_iter().find(|mail| mail.contains("no longer watched") || mail.contains(" OK "));
    assert_eq!(ended, None, "alertd's log:\n{}", host.log("alertd"));
}

#[test]
fn g2_two_agents_with_one_machine_id_are_both_watched_until_one_is_mended() {
    let mut host = Host::new();
    host.start_alertd("");
    let _first = start(&host, "first", "web1", ID, "disk");
    wait_for("the first alert", || firing(&host) == ["web1/disk"]);
    let mut second = start(&host, "second", "web2", ID, "swap");
    let both = ["mon1/alertd", "web1/disk", "web2/swap"];
    wait_for("both alerts, and the one about the id", || firing(&host) == both);
    let status = words(&host.alertctl(&["status"]));
    assert!(status.contains("web1 and web2 have the same /etc/machine-id"), "{status}");
    wait_for("three mails", || mails(&host).len() == 3);
    some_heartbeats(&host);

    host.alertd.take().unwrap().kill();
    host.restart_alertd();
    some_heartbeats(&host);
    assert_eq!(agents(&host), [("web1".into(), false), ("web2".into(), false)]);
    assert_eq!((firing(&host), mails(&host).len()), (both.map(str::to_owned).to_vec(), 3));
    assert_no_false_end(&host);

    second.kill();
    wait_for("the dead copy to be missed", || agents(&host).contains(&("web2".into(), true)));
    wait_for("its mail", || {
        mails(&host).iter().any(|mail| mail.contains("no heartbeat from the agent on web2"))
    });

    let _second = start(&host, "second", "web2", "ffffffffffffffffffffffffffffffff", "swap");
    wait_for("the mended copy", || firing(&host) == ["web1/disk", "web2/swap"]);
    some_heartbeats(&host);
    assert_eq!(agents(&host).len(), 2, "{:?}", agents(&host));
    let wrong = mails(&host).into_iter().find(|mail| mail.contains("no longer watched"));
    assert_eq!(wrong, None, "nobody was told that a problem is gone");
    assert_eq!(firing(&host), ["web1/disk", "web2/swap"]);
}

#[test]
fn g2_a_copy_with_the_same_name_and_a_copied_state_is_told_apart_too() {
    let mut host = Host::new();
    host.start_alertd("");
    let mut first = start(&host, "first", "web1", ID, "disk");
    wait_for("the first alert", || firing(&host) == ["web1/disk"]);
    first.stop();
    fs::create_dir_all(host.path("second/state")).unwrap();
    for file in ["spool.log", "state.json"] {
        fs::copy(host.path("first/state").join(file), host.path("second/state").join(file)).unwrap();
    }
    let _first = start(&host, "first", "web1", ID, "disk");
    let _second = start(&host, "second", "web1", ID, "swap");
    wait_for("two agents", || agents(&host).len() == 2);
    wait_for("both alerts", || firing(&host) == ["mon1/alertd", "web1/disk", "web1/swap"]);
    some_heartbeats(&host);
    let settled = mails(&host).len();
    assert!(!holds_within(std::time::Duration::from_secs(5), || mails(&host).len() != settled), "more mails");
    assert_eq!(firing(&host), ["mon1/alertd", "web1/disk", "web1/swap"]);
    assert!(words(&host.alertctl(&["status"])).contains("2 hosts named web1 have the same /etc/machine-id"));
    // If the copy reports first, the original only finds that its events are acknowledged.
    let heard = |name: &str, words: &str| host.log(name).contains(words);
    let copied = |name: &str| heard(name, "another host reports with the id of this one");
    let has_own = |name: &str| copied(name) || heard(name, "starting a new epoch");
    wait_for("an epoch for each", || has_own("first") && has_own("second"));
    assert!(copied("first") || copied("second"));
}
