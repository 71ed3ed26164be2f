//! M26: how many upstream queries a search list causes.

use super::*;

#[test]
fn m26_a_search_list_costs_one_upstream_query_per_name_and_type_in_a_negative_ttl() {
    let mut world = World::new(1);
    (world.ttl_s, world.ipv6, world.gone) = (300, Some(true), Some("cluster.test"));
    let suffixes =
        ["default.svc.cluster.test", "svc.cluster.test", "cluster.test", "a.cluster.test", "b.cluster.test"];
    let names: Vec<String> = suffixes.iter().map(|suffix| format!("www.example.{suffix}")).collect();
    // A program looks up one name twenty times a second, for both types, with ndots:5.
    let (seconds, a_second) = (600, 20);
    for _ in 0..seconds * a_second {
        for name in names.iter().map(String::as_str).chain(["www.example"]) {
            world.ask_with(name, 1, true);
            world.ask_with(name, 28, true);
        }
        world.run(Duration::from_secs(1) / a_second);
    }
    // With so few queries the upstream is idle for over half a minute at a time, and is probed.
    let probes = usize::try_from(world.resolver.counts.probes).unwrap();
    let (asked, sent) = (world.answers.len(), world.sent - probes);
    assert!(probes <= 600 / 30, "{probes} probes");
    assert_eq!(asked, 144_000);
    // The scripted SOA gives a minute; a name in use is refreshed after nine tenths of that, while
    // the cached answer is still served.
    let rounds = |ttl_s: u32| usize::try_from(seconds / (ttl_s * 9 / 10) + 1).unwrap();
    let most = names.len() * 2 * rounds(60) + 2 * rounds(300);
    println!("{asked} questions, {sent} upstream, {probes} probes; {most} at most");
    assert!(sent <= most, "{sent} of {asked}, {most} at most");
    // Queries were really sent.
    assert!(sent >= most / 2, "{sent} of {asked}");
    let waited = world.answers.iter().filter(|answer| answer.answered > answer.asked).count();
    assert!(waited <= 12, "{waited} waited, only the first round should wait");
    assert!(world.answers.iter().all(|answer| matches!(answer.code, rcode::NOERROR | rcode::NXDOMAIN)));
}
