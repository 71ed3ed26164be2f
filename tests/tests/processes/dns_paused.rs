//! D2: the cache is stopped by a signal while questions are under way, and continued.

use std::{net::UdpSocket, thread, time::Duration};

use dogwatch_tests::{
    dns_message::{A, NOERROR, Reply, query},
    host::Host,
    http,
    process::{holds_within, wait_for},
    upstream::{Mood, Upstream, name, right_address},
};
use rustix::process::Signal;

const NAMES: u16 = 60;
const TTL_S: u32 = 1;
/// Longer than any question is under way (six seconds).
const STOPPED: Duration = Duration::from_secs(8);

/// A counter or gauge of the cache, all labels together.
fn metric(host: &Host, name: &str) -> f64 {
    let (_, page) = http::get(host.dns_metrics, "/metrics").unwrap_or_default();
    let of_it = |line: &str| {
        let (key, value) = line.rsplit_once(' ')?;
        (key.split('{').next()? == name).then(|| value.parse::<f64>().ok())?
    };
    page.lines().filter_map(of_it).sum()
}

fn ask_all(client: &UdpSocket) {
    for number in 0..NAMES {
        client.send(&query(number, &name(number.into(), TTL_S), A, true)).expect("the cache listens");
    }
}

/// How many of the names were answered correctly.
fn answered(client: &UdpSocket) -> usize {
    let mut buffer = [0; 4_096];
    let mut right = vec![false; NAMES.into()];
    while right.contains(&false) {
        let Ok(length) = client.recv(&mut buffer) else { break };
        let reply = Reply::parse(&buffer[..length]);
        let number = usize::from(reply.id);
        right[number] |= reply.rcode == NOERROR && reply.addresses() == [right_address(u32::from(reply.id))];
    }
    right.into_iter().filter(|&right| right).count()
}

#[test]
fn d2_a_cache_that_was_stopped_does_not_call_its_upstream_ill() {
    let upstream = Upstream::start(([127, 0, 0, 1], dogwatch_tests::process::free_port()).into())
        .expect("a free port can be bound");
    upstream.set(Mood::Slow(Duration::from_millis(300)));
    let mut host = Host::new();
    host.start_dns(upstream.address);
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    client.connect(("127.0.0.1", host.dns_port)).expect("UDP connects at once");
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("it is no zero");
    ask_all(&client);
    assert_eq!(answered(&client), usize::from(NAMES));
    wait_for("the names to expire", || metric(&host, "dogwatch_dns_stale_names") >= f64::from(NAMES));
    let transitions = metric(&host, "dogwatch_dns_health_transitions_total");

    let heard = upstream.queries();
    ask_all(&client);
    wait_for("the questions to be under way", || upstream.queries() >= heard + u64::from(NAMES));
    let cache = host.dns.as_ref().expect("it runs");
    cache.signal(Signal::STOP);
    // The answers come now, and wait.
    thread::sleep(STOPPED);
    cache.signal(Signal::CONT);
    wait_for("the cache to notice", || metric(&host, "dogwatch_dns_pauses_total") >= 1.0);
    assert_eq!(answered(&client), usize::from(NAMES), "whoever still waits gets an answer");

    let ill = || {
        metric(&host, "dogwatch_dns_health_transitions_total") > transitions
            || metric(&host, "dogwatch_dns_health") > 0.0
    };
    assert!(!holds_within(Duration::from_secs(3), ill), "{}", host.log("dns"));
    assert!(metric(&host, "dogwatch_dns_upstream_failures_total").abs() < 0.5, "{}", host.log("dns"));
    ask_all(&client);
    assert_eq!(answered(&client), usize::from(NAMES));
}
