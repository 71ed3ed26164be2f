//! An outage that the cache hides: names still resolve, and yet someone is notified. With three
//! real processes, a scriptable upstream and the built-in receiver.
//!
//! ```text
//! upstream   answers   silent─────────────────────answers
//! client     right     right (stale)              right
//! mail                       PROBLEM dns-upstream        RECOVERY
//! ```

use dogwatch_tests::{
    dns_client::ask_udp,
    host::Host,
    process::{free_port, wait_for},
    upstream::{Mood, Upstream, name, right_address},
};

/// Of an address record.
const A: u16 = 1;

#[test]
fn the_cache_masks_the_outage_and_a_person_is_told_of_it_and_of_its_end() {
    let mut host = Host::new();
    let upstream = Upstream::start(([127, 0, 0, 1], free_port()).into()).unwrap();
    host.start_dns(upstream.address);
    host.start_alertd("");
    let often = "kind = \"dns\"\ninterval = \"200ms\"\nretry_interval = \"200ms\"\nmax_attempts = 1\n";
    host.start_agent(&format!("[check.dns-upstream]\n{often}"));
    let cache = ([127, 0, 0, 1], host.dns_port).into();
    // A TTL that is over in a second: the name must be asked for again in the outage.
    let resolves = || {
        ask_udp(cache, &name(7, 1), A).is_ok_and(|reply| {
            reply.rcode == 0 && reply.answers.iter().any(|record| record.data == right_address(7))
        })
    };
    wait_for("the first answer", resolves);
    wait_for("healthy sensors", || {
        host.service("dns-upstream").is_some_and(|service| service["state"] == "OK")
    });
    assert_eq!(host.maildir("alertd/mail").len(), 0, "nothing is wrong yet");

    upstream.set(Mood::Silent);
    let of_upstream = |host: &Host, word: &str| {
        let subjects = host.maildir("alertd/mail");
        subjects.iter().any(|mail| {
            let subject = mail.lines().find(|line| line.starts_with("Subject: ")).unwrap_or_default();
            subject.contains(word) && mail.contains("dns-upstream")
        })
    };
    wait_for("the mail", || {
        assert!(resolves(), "names go on resolving");
        of_upstream(&host, "CRITICAL") || of_upstream(&host, "WARNING")
    });

    upstream.set(Mood::Right);
    wait_for("the mail of the end", || {
        assert!(resolves(), "names go on resolving");
        of_upstream(&host, " OK ")
    });
    wait_for("no open incident", || host.ask(&["status"])["incidents"] == serde_json::json!([]));
}
