//! F10: what keep-warm costs upstreams, and what clients get for it, beside a cache that keeps each
//! answer for its TTL and asks when a client does.

use std::collections::BTreeMap;

use super::*;

/// Upstream queries and client queries that waited, per minute.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Load {
    upstream: f64,
    waited: f64,
}

/// A host that asks for `names` names `per_minute` times a minute, the n-th most used one 1/n as
/// often as the first, for an hour of virtual time after ten minutes.
fn played(names: usize, per_minute: u32, ttl_s: u32) -> (Load, Load) {
    let mut random = fastrand::Rng::with_seed(10);
    let mut world = World::new(1);
    world.ttl_s = ttl_s;
    let weights: Vec<f64> = (1..=names).map(|rank| 1.0 / f64::from(u32::try_from(rank).unwrap())).collect();
    let all: f64 = weights.iter().sum();
    let mut expires: BTreeMap<usize, Moment> = BTreeMap::new();
    let (mut plain, mut before) = (0_u32, (0, 0));
    let minutes = 70;
    for minute in 0..minutes {
        if minute == 10 {
            (plain, before) = (0, (world.sent, world.answers.len()));
        }
        for _ in 0..per_minute {
            let mut point = random.f64() * all;
            let name = weights.iter().position(|weight| {
                point -= weight;
                point < 0.0
            });
            let name = name.unwrap_or(0);
            world.ask(&format!("www.n{name}.example"));
            let expiry = expires.entry(name).or_insert(Moment::START);
            if *expiry <= world.now {
                plain += 1;
                *expiry = world.now + Duration::from_secs(ttl_s.into());
            }
            let mean = 60.0 / f64::from(per_minute);
            world.run(Duration::from_secs_f64(-mean * (1.0 - random.f64()).ln()));
        }
    }
    let hour = f64::from(minutes - 10);
    let answers = &world.answers[before.1..];
    let waited = answers.iter().filter(|answer| answer.answered > answer.asked).count();
    let number = |count: usize| f64::from(u32::try_from(count).unwrap());
    let ours = Load { upstream: number(world.sent - before.0) / hour, waited: number(waited) / hour };
    let plain = f64::from(plain) / hour;
    (ours, Load { upstream: plain, waited: plain })
}

#[test]
fn f10_keep_warm_costs_a_few_queries_and_spares_clients_many_waits() {
    for (names, per_minute, ttl_s) in [(60, 120, 60), (200, 120, 300), (300, 600, 60), (40, 30, 60)] {
        let (ours, plain) = played(names, per_minute, ttl_s);
        println!(
            "| {names} | {per_minute} | {ttl_s} s | {:.1} | {:.1} | {:.1} | {:.1} |",
            plain.upstream, ours.upstream, plain.waited, ours.waited
        );
        assert!(ours.upstream <= plain.upstream * 1.1, "{ours:?} beside {plain:?}");
        assert!(ours.waited <= plain.waited * 0.87, "{ours:?} beside {plain:?}");
        let spared = (plain.waited - ours.waited) / (ours.upstream - plain.upstream);
        assert!(spared >= 3.0, "each additional query spares {spared:.1} waits");
    }
}
