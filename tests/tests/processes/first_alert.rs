//! The first alert, end to end: agent, cache, alertd, a disk that fills up, a mail server, a
//! stand-in for PagerDuty, a person with `alertctl`.
//!
//! ```text
//! disk     ok  fills ──soft──hard────────────────────────────────────freed─────
//! mail              (nothing)  PROBLEM                       ACK     RECOVERY
//! pager                                  TRIGGER             ACK     RESOLVE
//! chief                                               (never)
//! person                                       alertctl ack
//! ```

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use dogwatch_tests::{
    host::{Host, words},
    mail_server::{Mail, MailServer},
    pagerduty::{PagerDuty, ROUTING_KEY},
    process::{binary, free_port, root_or_skip, wait_for},
    upstream::Upstream,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

#[test]
fn a_filling_disk_wakes_the_right_people_once_until_one_says_i_am_on_it() {
    let mut host = Host::new();
    let Some(mails) = MailServer::start(&make_folder(&host, "smtpd")) else { return };
    let pager = PagerDuty::start();
    let disk = Disk::make(&host);
    let upstream = Upstream::start(([127, 0, 0, 1], free_port()).into()).unwrap();
    host.start_dns(upstream.address);
    host.start_alertd(&receivers_and_policy(&host, mails.port, &pager.url));
    host.start_agent(&format!("{}\n[check.dns-upstream]\nkind = \"dns\"\n", disk.check()));
    wait_for("word of the cache", || host.service("dns-upstream").is_some_and(|it| it["state"] == "OK"));
    wait_for("the first result", || state(&host) == Some(("OK".into(), "HARD".into())));

    disk.fill();
    wait_for("a soft problem", || state(&host) == Some(("CRITICAL".into(), "SOFT".into())));
    assert_eq!(mails.mails().len(), 0, "a soft problem is nobody's business");
    wait_for("the hard problem", || state(&host) == Some(("CRITICAL".into(), "HARD".into())));

    wait_for("the mail", || !mails.mails().is_empty());
    let mail = mails.mails().remove(0);
    assert!(mail.header("Subject").contains("CRITICAL web1/disk: "), "{}", mail.text);
    assert_eq!(mail.header("X-Dogwatch-State"), "CRITICAL");
    assert!(mail.text.contains("https://wiki.example/disk"), "the runbook: {}", mail.text);
    let number = mail.header("X-Dogwatch-Incident");

    // No one acknowledges.
    wait_for("the page", || !pager.accepted().is_empty());
    let page = pager.accepted().remove(0);
    assert_eq!(
        (&page["event_action"], &page["payload"]["severity"]),
        (&"trigger".into(), &"critical".into())
    );
    assert_eq!(page["payload"]["source"], "web1");
    assert_eq!(mails.mails().len(), 1, "one mail, not one for each step");

    let before = incident(&host, &number);
    assert_eq!(before["told"], serde_json::json!(["mail", "pager"]));
    assert_eq!(before["next_step"]["targets"], serde_json::json!(["chief"]));
    let third_step: Timestamp = before["next_step"]["at"].as_str().unwrap().parse().unwrap();
    let acked = host.alertctl(&["ack", &number, "looking", "at", "it"]);
    assert!(acked.status.success(), "{}", words(&acked));
    assert!(now() < third_step, "the machine is too slow for this test's policy");
    assert_eq!(incident(&host, &number)["next_step"], Value::Null);
    wait_for("the pager to know of the ack", || actions(&pager) == ["trigger", "acknowledge"]);
    wait_for("the time of the third step to pass", || now() > third_step + SignedDuration::from_secs(2));

    disk.free();
    wait_for("the pager's incident to be resolved", || {
        actions(&pager) == ["trigger", "acknowledge", "resolve"]
    });
    wait_for("the mail of the recovery", || {
        subjects(&mails).last().is_some_and(|last| last.contains(" OK "))
    });
    wait_for("no open incident", || host.ask(&["status"])["incidents"] == serde_json::json!([]));
    assert_eq!(pager.refused(), Vec::<String>::new());
    let keys: Vec<_> = pager.accepted().iter().map(|event| event["dedup_key"].clone()).collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(
        host.maildir("chief"),
        Vec::<String>::new(),
        "the third step never came, nor a recovery of nothing"
    );
    each_mail_came_once_and_in_one_thread(&mails.mails());

    let why = host.alertctl(&["why", &number]);
    let story = String::from_utf8(why.stdout).unwrap();
    for part in
        ["web1/disk", "looking at it", "escalation_step", "all_resolved", "mail: ", "pager: ", "acknowledged"]
    {
        assert!(story.contains(part), "{part:?} is missing in\n{story}");
    }
    eprintln!("{story}");
}

fn each_mail_came_once_and_in_one_thread(mails: &[Mail]) {
    let headers = |name: &str| mails.iter().map(|mail| mail.header(name)).collect::<Vec<_>>();
    let (mut ids, threads) = (headers("Message-ID"), headers("References"));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), mails.len(), "no mail came twice");
    assert!(threads.iter().all(|thread| *thread == threads[0]), "{threads:?}");
    // Problem, ack, recovery.
    assert_eq!(mails.len(), 3, "{:?}", headers("Subject"));
}

#[test]
fn who_acked_is_whoever_called_and_who_may_not_call_is_told_how_to() {
    if !root_or_skip("becoming somebody else") {
        return;
    }
    let mut host = Host::new();
    let disk = Disk::make(&host);
    let group = "[policy.default]\nstep = [{ notify = [\"chief\"] }]\n[receiver.chief.maildir]\n";
    host.start_alertd(&format!("{group}path = \"{}\"\n", host.path("chief").display()));
    host.start_agent(&disk.check());
    disk.fill();
    wait_for("the alert", || host.maildir("chief").len() == 1);
    let number = host.ask(&["status"])["incidents"][0]["number"].to_string();

    host.ask(&["ack", &number, "mine"]);
    assert_eq!(incident(&host, &number)["ack"]["author"], "root");

    let refused = as_nobody(&host, None, &["ack", &number]);
    assert_eq!(refused.status.code(), Some(3), "{}", words(&refused));
    assert!(words(&refused).contains("join the group"), "{}", words(&refused));
    assert_eq!(incident(&host, &number)["ack"]["author"], "root");

    let taken = as_nobody(&host, Some(0), &["ack", &number, "no, mine"]);
    assert!(taken.status.success(), "{}", words(&taken));
    let ack = &incident(&host, &number)["ack"];
    assert_eq!((&ack["author"], &ack["comment"]), (&"nobody".into(), &"no, mine".into()));
}

/// Steps are far enough apart for a busy machine, near enough for a patient reader.
fn receivers_and_policy(host: &Host, smtp_port: u16, pager_url: &str) -> String {
    let key = host.write("pager.key", &format!("{ROUTING_KEY}\n"));
    format!(
        "[policy.default]\n\
         step = [\n  {{ notify = [\"mail\"] }},\n  {{ after = \"4s\", notify = [\"pager\"] }},\n  {{ after = \"10s\", notify = [\"chief\"] }},\n]\n\n\
         [receiver.mail.email]\nto = [\"ada@example.org\"]\nfrom = \"dogwatch <dogwatch@example.org>\"\n\
         server = \"127.0.0.1\"\nport = {smtp_port}\n\n\
         [receiver.pager.pagerduty]\nrouting_key_file = \"{}\"\nurl = \"{pager_url}\"\n\n\
         [receiver.chief.maildir]\npath = \"{}\"\n",
        key.display(),
        host.path("chief").display()
    )
}

fn make_folder(host: &Host, name: &str) -> PathBuf {
    let path = host.path(name);
    fs::create_dir(&path).unwrap();
    path
}

/// State and state type of the service under test.
fn state(host: &Host) -> Option<(String, String)> {
    let service = host.service("disk")?;
    Some((service["state"].as_str()?.into(), service["state_type"].as_str()?.into()))
}

fn incident(host: &Host, number: &str) -> Value {
    host.ask(&["why", number])["incident"].clone()
}

fn actions(pager: &PagerDuty) -> Vec<String> {
    let action = |event: &Value| event["event_action"].as_str().unwrap_or_default().to_owned();
    pager.accepted().iter().map(action).collect()
}

fn subjects(mails: &MailServer) -> Vec<String> {
    mails.mails().iter().map(|mail| mail.header("Subject")).collect()
}

/// Runs a copy of `alertctl` as `nobody`, in group `gid` if given.
fn as_nobody(host: &Host, gid: Option<u32>, arguments: &[&str]) -> std::process::Output {
    let copy = host.path("alertctl");
    fs::copy(binary("alertctl"), &copy).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--clear-groups", &format!("--regid={}", gid.unwrap_or(65_534))]);
    command.arg(copy).arg("--socket").arg(host.alertd_socket()).args(arguments);
    command.output().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// Something that fills: a small tmpfs of its own for root, a plugin that looks at a file for
/// anybody else.
enum Disk {
    Tmpfs(PathBuf),
    Pretended(PathBuf),
}

const TIMINGS: &str =
    "interval = \"1s\"\nretry_interval = \"1s\"\nmax_attempts = 3\nrunbook = \"https://wiki.example/disk\"\n";

impl Disk {
    fn make(host: &Host) -> Self {
        let path = make_folder(host, "disk");
        if !root_or_skip("a real filling disk (a plugin pretends instead)") {
            fs::write(path.join("usage"), "10").unwrap();
            return Self::Pretended(path);
        }
        mount(&["-t", "tmpfs", "-o", "size=8m", "tmpfs"], &path);
        Self::Tmpfs(path)
    }

    fn check(&self) -> String {
        match self {
            Self::Tmpfs(path) => format!(
                "[check.disk]\npath = \"{}\"\nwarn = \"20%\"\ncrit = \"10%\"\n{TIMINGS}",
                path.display()
            ),
            Self::Pretended(path) => {
                let script = "read n < \"$1/usage\"; if [ $n -gt 90 ]; then echo \"DISK CRITICAL - $n% used\"; exit 2; fi; echo \"DISK OK - $n% used\"";
                format!(
                    "[check.disk]\nkind = \"plugin\"\ncommand = [\"/bin/sh\", \"-c\", '{script}', \"sh\", \"{}\"]\n{TIMINGS}",
                    path.display()
                )
            }
        }
    }

    fn fill(&self) {
        match self {
            Self::Tmpfs(path) => fs::write(path.join("ballast"), vec![0; 7_900_000]).unwrap(),
            Self::Pretended(path) => fs::write(path.join("usage"), "96").unwrap(),
        }
    }

    fn free(&self) {
        match self {
            Self::Tmpfs(path) => fs::remove_file(path.join("ballast")).unwrap(),
            Self::Pretended(path) => fs::write(path.join("usage"), "10").unwrap(),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Self::Tmpfs(path) = self {
            let _ = Command::new("umount").arg("--lazy").arg(path).status();
        }
    }
}

fn mount(arguments: &[&str], path: &Path) {
    let mounted = Command::new("mount").args(arguments).arg(path).status().unwrap();
    assert!(mounted.success(), "mount {arguments:?} {}", path.display());
}
