//! The bot in the channel of a real IRC server: notifications arrive, people acknowledge, the bot
//! reconnects.

use dogwatch_tests::{
    certificates::Certificates,
    host::{Host, words},
    irc_server::{IrcServer, Person},
    process::wait_for,
};
use dogwatch_wire::State;

fn config(server: &str, more: &str) -> String {
    format!(
        "[[route]]\nreceiver = \"team\"\ngroup_wait = \"0s\"\n\n\
         [receiver.team.irc]\nserver = \"127.0.0.1\"\nchannel = \"#ops\"\nnick = \"dogwatch\"\nrequire_account = false\n\
         nicks = {{ ann_ = \"ann\" }}\n{server}{more}"
    )
}

#[tokio::test]
async fn a_page_arrives_in_the_channel_and_an_ack_from_there_is_an_ack() {
    let mut host = Host::new();
    let Some(server) = IrcServer::start(host.folder(), None) else { return };
    let mut ann = Person::join(server.port, "ann_", "#ops");
    let mut eve = Person::join(server.port, "eve", "#ops");
    let on_call = "[user.bob]\nrules = [{ notify = [\"team\"] }]\n[schedule.primary]\ntime_zone = \"UTC\"\n\
                   [[schedule.primary.layer]]\nusers = [\"bob\"]\nrotate = \"weekly\"\nsince = \"2026-01-05 09:00\"\n";
    host.start_alertd(&config(&format!("port = {}\n", server.port), on_call));
    host.report("web1", "disk", State::Critical, 1).await;
    ann.wait_to_hear("[#1] CRITICAL web1/disk: disk is CRITICAL");
    ann.wait_to_hear("https://wiki.example/disk · !ack 1 COMMENT");
    wait_for("the server's word for it", || {
        host.ask(&["why", "1"])["notifications"][0]["state"] == "delivered"
    });

    eve.say("!ack 1 me");
    ann.wait_to_hear("eve: eve may not do this");
    ann.say("!ack disk");
    ann.wait_to_hear("ann_: \"disk\" is not an incident number");
    ann.say("!ack 99");
    ann.wait_to_hear("ann_: there is no open incident 99; !status lists them");
    assert!(host.ask(&["why", "1"])["incident"]["ack"].is_null(), "nobody acked so far");
    eve.say("!status");
    ann.wait_to_hear("eve: #1 CRITICAL web1/disk");

    ann.say("!ack 1 looking into it");
    ann.wait_to_hear("ann_: #1 acknowledged");
    ann.wait_to_hear("acknowledged by ann (irc): web1/disk");
    let shown = words(&host.alertctl(&["status"]));
    assert!(shown.contains("ann (irc)"), "{shown}");
    let ack = host.ask(&["why", "1"])["incident"]["ack"].clone();
    assert_eq!(
        (ack["author"].as_str(), ack["comment"].as_str()),
        (Some("ann (irc)"), Some("looking into it"))
    );

    let audit = host.ask(&["audit"]);
    let from = &audit.as_array().unwrap().iter().find(|entry| entry["kind"] == "acked").unwrap()["from"];
    assert!(from.as_str().unwrap().starts_with("nick ann"), "{audit}");
    ann.say("!unack 1 cannot do it");
    ann.wait_to_hear("ann_: #1 is no longer acknowledged");
    host.report("web1", "disk", State::Ok, 2).await;
    ann.wait_to_hear("[#1] OK web1/disk");
    eve.say("!oncall");
    ann.wait_to_hear("eve: primary: bob");
    eve.say("!help");
    ann.wait_to_hear("eve: !ack NUMBER [comment]");
}

#[tokio::test]
async fn the_bot_comes_back_after_the_server_and_what_was_said_meanwhile_arrives() {
    let mut host = Host::new();
    let Some(certificates) = Certificates::make(host.folder()) else { return };
    let Some(mut server) = IrcServer::start(host.folder(), Some(&certificates)) else { return };
    let tls = format!(
        "port = {}\ntls = true\nca_file = \"{}\"\n",
        server.tls_port.expect("it has certificates"),
        certificates.authority.display()
    );
    host.start_alertd(&config(&tls, ""));
    assert!(
        host.alertctl(&["test-notify", "team"]).status.success(),
        "{}\n{}",
        host.log("alertd"),
        server.log()
    );
    // A reload that changes nothing of it keeps the connection.
    let watcher = Person::join(server.port, "watcher", "#ops");
    host.alertd.as_ref().expect("it runs").signal(rustix::process::Signal::HUP);
    wait_for("the reload", || host.log("alertd").contains("the new config is in effect"));
    assert!(host.alertctl(&["test-notify", "team"]).status.success());
    assert_eq!(watcher.heard("JOIN").iter().filter(|line| line.starts_with(":dogwatch")).count(), 0);

    server.kill();
    host.report("web1", "disk", State::Critical, 1).await;
    wait_for("a try that failed", || host.log("alertd").contains("retrying"));
    assert_ne!(host.ask(&["why", "1"])["notifications"][0]["state"], "delivered");
    // The same ports again, plain and TLS.
    let server = server.start_again(host.folder());
    let ann = Person::join(server.port, "ann_", "#ops");
    ann.wait_to_hear("[#1] CRITICAL web1/disk: disk is CRITICAL");
    wait_for("the server's word for it", || {
        host.ask(&["why", "1"])["notifications"][0]["state"] == "delivered"
    });
}

#[test]
fn a_certificate_that_nobody_vouches_for_gets_no_word() {
    let mut host = Host::new();
    let Some(certificates) = Certificates::make(host.folder()) else { return };
    let Some(server) = IrcServer::start(host.folder(), Some(&certificates)) else { return };
    let watcher = Person::join(server.port, "watcher", "#ops");
    let tls = format!("port = {}\ntls = true\n", server.tls_port.expect("it has certificates"));
    host.start_alertd(&config(&tls, ""));
    let output = host.alertctl(&["test-notify", "team"]);
    assert!(!output.status.success() && words(&output).contains("certificate"), "{}", words(&output));
    assert_eq!(watcher.heard("dogwatch").iter().filter(|line| line.contains("PRIVMSG")).count(), 0);
}
