//! D31: no state of an upstream without a way out, whatever happens while its probes are out.

use super::*;

/// One random life: moods change, names are asked for by the thousand, upstream lists are
/// reloaded. `audit` checks after each step that every upstream has a next step.
fn live(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(2);
    let upstream = |last: u8| Endpoint::from(SocketAddr::from(([192, 0, 2, last], 53)));
    let tcp = |last: u8| Endpoint::parse(&format!("tcp://192.0.2.{last}"), None).unwrap();
    let mut asked = 0;
    for _ in 0..60 {
        match random.u8(..12) {
            0 => world.moods = vec!['.', '.'],
            1 => world.moods = vec!['x', 'x'],
            2 => {
                world.moods[0] =
                    *random.choice(&['.', 'x', 'S', 'R', 'u', 's', '%', 't', 'n', 'L', 'b']).unwrap();
            }
            3 => {
                world.moods[1] = *random.choice(&['.', 'x', 'S', 'e', 'u', 's', '%', 't', 'd', 'B']).unwrap();
            }
            4..=6 => {
                let lists = [
                    vec![upstream(0)],
                    vec![upstream(1)],
                    vec![upstream(0), upstream(1)],
                    vec![upstream(1), upstream(0)],
                    vec![tcp(0)],
                    vec![tcp(0), upstream(1)],
                ];
                let upstreams = random.choice(&lists).unwrap().clone();
                let settings = Settings { upstreams, ..world.resolver.settings.clone() };
                world.resolver.set(settings, world.now);
                world.resolver.on_wakeup(world.now);
                world.pump();
            }
            7 => {
                // Dead names fill the flights.
                for _ in 0..1_100 {
                    asked += 1;
                    world.ask(&format!("dead{asked}.example"));
                }
            }
            8 => world.resolver.on_network_change(world.now),
            9 => {
                let last = world.wire.len().saturating_sub(random.usize(..4));
                world.wire.truncate(last);
            }
            _ => (0..random.u8(..5)).for_each(|name| world.ask(&format!("www{name}.example"))),
        }
        world.run(Duration::from_millis(random.u64(..3_000)));
        if let Err(problem) = world.resolver.audit(world.now) {
            panic!("seed {seed}: {problem}");
        }
    }
    // Everything works again: it is noticed, without a client.
    world.moods = vec!['.', '.'];
    world.run(Duration::from_secs(150));
    for zone in world.resolver.zones.iter() {
        let states: Vec<_> = zone.group.all().iter().map(|upstream| upstream.breaker.state()).collect();
        assert_eq!(zone.group.health(world.now), Upstreams::Healthy, "seed {seed}: {states:?}");
    }
    // And so is it that nothing does.
    world.moods = vec!['x', 'x'];
    world.run(Duration::from_mins(1));
    let health = world.resolver.zones.get(ZoneId::ROOT).group.health(world.now);
    assert_eq!(health, Upstreams::Down, "seed {seed}");
}

#[test]
fn d31_every_state_has_a_way_out_whatever_happens_while_probes_are_out() {
    (0..60).for_each(live);
}

/// D31: dead names fill the flights, then the upstream goes silent.
#[test]
fn d31_an_upstream_that_goes_silent_under_a_flood_of_dead_names_is_found_down() {
    let mut world = World::new(1);
    let tcp = Endpoint::parse("tcp://192.0.2.0", None).unwrap();
    let settings = Settings { upstreams: vec![tcp], ..world.resolver.settings.clone() };
    world.resolver.set(settings, world.now);
    world.ask("www.example");
    world.run(Duration::from_secs(6));
    world.moods = vec!['x'];
    (0..1_100).for_each(|name| world.ask(&format!("dead{name}.example")));
    world.run(Duration::from_secs(3));
    assert_eq!(world.state(0), 2, "dns-upstream CRITICAL");
    world.ask("www.example");
    world.run(Duration::from_millis(5));
    assert_eq!(world.answers.last().unwrap().sign(), 's', "stale at once");
}

/// D35: 400 questions a second for names of dead servers take no answer from other new names, nor
/// from known ones.
#[test]
fn d35_a_flood_of_dead_names_keeps_no_good_name_out_while_the_upstream_is_well() {
    let mut world = World::new(1);
    (0..20).for_each(|name| world.ask(&format!("known{name}.example")));
    world.run(Duration::from_secs(6));
    let (mut good, mut dead) = (Vec::new(), 0);
    for second in 0..10 {
        for hundredth in 0..100 {
            for _ in 0..4 {
                dead += 1;
                world.ask(&format!("n{dead}.silent.test"));
            }
            if hundredth % 5 == 0 {
                good.push(world.answers.len());
                world.ask(&format!("good{hundredth}.s{second}.example"));
                good.push(world.answers.len());
                world.ask(&format!("known{}.example", hundredth / 5));
            }
            world.run(Duration::from_millis(10));
        }
        assert_eq!(world.resolver.audit(world.now), Ok(()));
    }
    world.run(Duration::from_secs(1));
    let failed = good.iter().filter(|&&answer| world.answers[answer].code != rcode::NOERROR).count();
    assert_eq!(failed, 0, "of {}", good.len());
    assert_eq!(world.state(0), 0);
}

/// D35: many clients ask for one new name at once.
#[test]
fn d35_six_hundred_clients_that_ask_for_one_new_name_get_its_address() {
    let mut world = World::new(1);
    (0..600).for_each(|_| world.ask("new.example"));
    world.run(Duration::from_millis(10));
    assert_eq!(world.answers.iter().filter(|answer| answer.code == rcode::NOERROR).count(), 600);
    assert!(world.sent <= 2, "{}", world.sent);
}

/// D31: the probes of a suspect upstream are out when the list changes around it.
#[test]
fn d31_a_reload_while_probes_are_out_leaves_no_upstream_suspect() {
    let mut world = World::new(1);
    world.ask("www.example");
    world.run(Duration::from_secs(6));
    world.moods = vec!['x', 'x'];
    world.ask("www.example");
    world.run(Duration::from_millis(200));
    let state = world.resolver.zones.get(ZoneId::ROOT).group.all()[0].breaker.state();
    assert!(matches!(state, crate::health::breaker::State::Suspect { .. }), "{state:?}");
    let upstreams = (0..2).map(|last| SocketAddr::from(([192, 0, 2, last], 53)).into()).collect();
    let settings = Settings { upstreams, ..world.resolver.settings.clone() };
    world.resolver.set(settings, world.now);
    world.run(Duration::from_mins(1));
    assert_eq!(world.state(0), 2, "dns-upstream CRITICAL");
}

/// F8: probes while upstreams are down, per minute.
#[test]
fn f8_probes_back_off_and_a_new_question_or_another_network_brings_them_back() {
    let mut world = World::new(1);
    world.ask("www.example");
    world.run(Duration::from_secs(6));
    world.moods = vec!['x'];
    world.ask("www.example");
    let a_minute = |world: &mut World| {
        let before = world.sent;
        world.run(Duration::from_mins(1));
        world.sent - before
    };
    let minutes: Vec<usize> = (0..12).map(|_| a_minute(&mut world)).collect();
    assert!(minutes[0] <= 30 && minutes[1..3].iter().all(|sent| (12..=16).contains(sent)), "{minutes:?}");
    assert!(minutes[6..].iter().all(|sent| (5..=6).contains(sent)), "{minutes:?}");
    world.resolver.on_network_change(world.now);
    assert!((12..=26).contains(&a_minute(&mut world)));
    (0..6).for_each(|_| _ = a_minute(&mut world));
    assert!((5..=6).contains(&a_minute(&mut world)));
    world.ask("new.example");
    assert!((13..=30).contains(&a_minute(&mut world)));
}

/// F8: the first minute after an outage, a host that usually sends 0.85 queries a second.
#[test]
fn f8_recovery_sends_no_more_than_usual_because_probes_come_out_of_its_rate() {
    for down_s in [30, 600] {
        let mut world = World::new(1);
        world.ttl_s = 30;
        let names: Vec<String> = (0..51).map(|name| format!("www{name}.d{name}.example")).collect();
        // Each name once a minute.
        let mut turn = 0;
        let mut second = |world: &mut World| {
            let before = world.sent;
            if turn % 20 < 17 {
                world.ask(&names[turn % names.len()]);
            }
            turn += 1;
            world.run(Duration::from_secs(1));
            world.sent - before
        };
        let sent: usize = (0..300).map(|_| second(&mut world)).skip(120).sum();
        let per_second =
            |sent: usize, seconds: u32| f64::from(u32::try_from(sent).unwrap()) / f64::from(seconds);
        let usual = per_second(sent, 180);
        world.moods = vec!['x'];
        (0..down_s).for_each(|_| _ = second(&mut world));
        world.moods = vec!['.'];
        let after: Vec<usize> = (0..60).map(|_| second(&mut world)).collect();
        let busiest = per_second(after.windows(5).map(|five| five.iter().sum()).max().unwrap(), 5);
        assert!((0.5..1.0).contains(&usual), "{usual}");
        assert!(busiest <= usual * 1.5, "usual {usual}, busiest five seconds {busiest}: {after:?}");
        (0..120).for_each(|_| _ = second(&mut world));
        assert_eq!(world.state(0), 0);
    }
}
