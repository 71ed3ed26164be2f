//! A lying upstream as a timeline: what clients get, what upstreams are asked, and that legitimate
//! changes come through.

use super::*;

/// Asks for `names` in turn, `per_second` a second, for this many seconds. Returns the answers.
fn load(world: &mut World, names: &[String], per_second: usize, seconds: usize) -> Vec<Heard> {
    let start = world.answers.len();
    for n in 0..per_second * seconds {
        world.ask(&names[n % names.len()]);
        world.run(Duration::from_micros(1_000_000 / per_second as u64));
    }
    world.answers[start..].to_vec()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("n{n}.bench.example")).collect()
}

fn right(answers: &[Heard]) -> usize {
    answers.iter().filter(|answer| answer.code == rcode::NOERROR && answer.ttl.is_some()).count()
}

fn sensor(world: &mut World) -> SensorResult {
    world.resolver.sensors(world.now, jiff::Timestamp::UNIX_EPOCH).swap_remove(2)
}

fn event(world: &mut World) -> Option<String> {
    world.resolver.poll_guard_event().map(|(_, event)| event.to_string())
}

/// The address in the answer to a query for `name` now.
fn address(world: &mut World, name: &str) -> Option<[u8; 4]> {
    let slot = world.resolver.cache.find(key(name).as_bytes())?;
    let entry = world.resolver.cache.get(slot)?;
    wire::answers(entry.kept().message).find_map(|(_, data)| data.try_into().ok())
}

fn key(name: &str) -> Key {
    let name = name::from_text(name).unwrap();
    Key::new(&wire::Question { name: &name, kind: 1, class: 1 }, false, false)
}

/// How many of `names` a thread answers as held by a trip.
fn frozen(world: &mut World, names: &[String]) -> usize {
    let reader = world.resolver.reader();
    let mut held = 0;
    for name in names {
        let packet = query(name, 1, true);
        let (mut of_thread, mut of_core) = (Vec::new(), Vec::new());
        let asked = reader.read(&packet, &mut of_thread).ok().unwrap();
        if matches!(reader.answer(&asked, world.now, &mut of_thread), Hit::Frozen) {
            let client = Client::Stream(0);
            let outcome = world.resolver.on_query(&packet, client, Transport::Udp, world.now, &mut of_core);
            assert_eq!((outcome, &of_thread), (Outcome::Reply, &of_core));
            held += 1;
        }
    }
    held
}

#[test]
fn m5_nxdomain_or_empty_for_all_names_after_ten_seconds_affects_no_client() {
    // 1,000 names, TTL 5, 500 q/s, one upstream; 10 s healthy, 120 s of false answers, 30 s
    // healthy.
    for mood in ['n', 'E', 'z'] {
        let (mut world, names) = (World::new(1), names(1_000));
        load(&mut world, &names, 500, 10);
        let healthy = world.sent;
        world.moods[0] = mood;
        let before = world.sent;
        let answers = load(&mut world, &names, 500, 120);
        assert_eq!(right(&answers), answers.len(), "{mood}");
        let asked = world.sent - before;
        assert!(asked * 20 <= answers.len(), "{mood}: {asked} upstream queries for {}", answers.len());
        assert!(answers.iter().all(|answer| answer.answered.since(answer.asked) <= ROUND_TRIP * 3), "{mood}");
        let said = sensor(&mut world);
        assert_eq!(said.state, 2, "{}", said.text);
        assert!(said.text.contains("dogwatch dns accept bench.example"), "{}", said.text);
        // The threads answer with the same bytes as the core, but not for names outside the trip.
        assert_eq!(frozen(&mut world, &names), 1_000, "{mood}");
        let others = [7, 8].map(|n| format!("n{n}.other.example"));
        assert_eq!(frozen(&mut world, &others), 0, "{mood}");
        // After the lies: the page ends within five seconds, names are fresh again, and the
        // upstream is not flooded.
        world.moods[0] = '.';
        let before = world.sent;
        let answers = load(&mut world, &names, 500, 5);
        assert_eq!((right(&answers), sensor(&mut world).state), (answers.len(), 0), "{mood}");
        assert_eq!(frozen(&mut world, &names), 0, "{mood}");
        let rate = healthy / 10;
        let peak = (world.sent - before) / 5;
        assert!(peak <= rate * 11 / 10, "{mood}: {peak} a second after, {rate} before");
        let upstream = world.resolver.sensors(world.now, WALL).swap_remove(0);
        assert!(
            upstream.text.starts_with("upstream answers are accepted again; refreshing"),
            "{}",
            upstream.text
        );
        let fresh = load(&mut world, &names, 500, 25);
        // Names stale now are paced, not held.
        let last = &fresh[fresh.len() - 500..];
        assert!(last.iter().filter(|answer| !answer.stale).count() > 250, "{mood}");
        assert_eq!(world.resolver.guard_holding(world.now).names, 0, "{mood}");
        let first = event(&mut world).unwrap();
        assert!(first.contains("many names"), "{first}");
        assert!(event(&mut world).unwrap().contains("the names are back"));
        assert_eq!(event(&mut world), None, "one event per trip");
    }
}

#[test]
fn m6_a_hot_name_that_is_empty_for_two_and_a_half_hours_is_held_and_fresh_half_a_minute_later() {
    let mut world = World::new(2);
    let names = vec!["dynamodb.example".to_owned(), "www.other.test".to_owned()];
    // Good for a day, asked for every two seconds.
    for _ in 0..24 * 3_600 / 2 {
        for name in &names {
            world.ask(name);
        }
        world.run(Duration::from_secs(2));
    }
    world.answers.clear();
    world.moods = vec!['E', 'E'];
    world.broken = None;
    let gone = |world: &mut World, seconds: u64| {
        let start = world.answers.len();
        for _ in 0..seconds / 2 {
            world.ask("dynamodb.example");
            world.run(Duration::from_secs(2));
        }
        world.answers[start..].to_vec()
    };
    let sent = world.sent;
    let answers = gone(&mut world, 2 * 3_600 + 37 * 60);
    assert_eq!(right(&answers), answers.len());
    // Two upstreams, each asked for it twice a minute and probed twice a minute.
    assert!(world.sent - sent <= 157 * 8, "{}", world.sent - sent);
    let said = sensor(&mut world);
    assert_eq!(said.state, 1, "{}", said.text);
    assert!(said.text.contains("confirmed by 2 of 2 upstreams"), "{}", said.text);
    let why =
        world.resolver.why(&name::from_text("dynamodb.example").unwrap(), 1, |_| Vec::new(), world.now, WALL);
    assert_eq!(why.held, "held");
    let guard = why.guard.unwrap();
    assert_eq!((guard.asked, guard.agreed, guard.mass), (2, 2, false));
    assert!(guard.end_with.ends_with("accept dynamodb.example"));
    world.moods = vec!['.', '.'];
    gone(&mut world, 40);
    let fresh = gone(&mut world, 20);
    assert!(fresh.iter().all(|answer| !answer.stale));
    assert_eq!(sensor(&mut world).state, 0);
}

const WALL: jiff::Timestamp = jiff::Timestamp::UNIX_EPOCH;

#[test]
fn a_real_deletion_is_believed_within_the_grace_period_or_when_an_operator_accepts_it() {
    let mut world = World::new(1);
    let asks = |world: &mut World, minutes: u32| {
        for _ in 0..minutes {
            world.ask("old.example");
            world.run(Duration::from_mins(1));
        }
    };
    asks(&mut world, 4 * 60);
    world.gone = Some("old.example");
    asks(&mut world, 14);
    assert_eq!(world.answers.last().unwrap().code, rcode::NOERROR);
    assert_eq!(sensor(&mut world).state, 0, "asked for once a minute with TTL 5, it is not hot");
    asks(&mut world, 3);
    assert_eq!(world.answers.last().unwrap().code, rcode::NXDOMAIN);
    // Resolves again at once when it is back.
    world.gone = None;
    asks(&mut world, 2);
    assert_eq!(world.answers.last().unwrap().code, rcode::NOERROR);
    asks(&mut world, 60);
    world.gone = Some("old.example");
    asks(&mut world, 2);
    assert_eq!(world.answers.last().unwrap().code, rcode::NOERROR);
    let accepted = world.resolver.accept(&name::from_text("OLD.example").unwrap(), world.now).unwrap();
    assert_eq!(accepted.keys.len(), 1);
    assert!(world.resolver.accept(&name::from_text("odl.example").unwrap(), world.now).is_none());
    world.pump();
    world.run(Duration::from_secs(1));
    asks(&mut world, 1);
    assert_eq!(world.answers.last().unwrap().code, rcode::NXDOMAIN);
}

#[test]
fn d6_names_deleted_during_a_trip_are_not_held_longer_than_their_grace_period() {
    let (mut world, names) = (World::new(1), names(50));
    load(&mut world, &names, 20, 600);
    world.moods[0] = 'n';
    load(&mut world, &names, 20, 30);
    world.gone = Some("n7.bench.example");
    world.moods[0] = '.';
    load(&mut world, &names, 20, 60);
    let said = sensor(&mut world);
    assert_eq!(said.state, 1, "{}", said.text);
    assert!(said.text.contains("n7.bench.example"), "{}", said.text);
    // Good for ten minutes: two and a half minutes of grace since the deletion was noticed within
    // that minute.
    load(&mut world, &names, 20, 160);
    world.ask("n7.bench.example");
    world.run(Duration::from_secs(1));
    assert_eq!(world.answers.last().unwrap().code, rcode::NXDOMAIN);
    world.ask("n8.bench.example");
    world.run(Duration::from_secs(1));
    assert_eq!(world.answers.last().unwrap().code, rcode::NOERROR);
}

#[test]
fn ten_names_deleted_at_once_do_not_keep_ninety_other_names_stale() {
    let (mut world, mut names) = (World::new(1), names(100));
    names.sort_by_key(|name| !name.ends_with("0.bench.example"));
    load(&mut world, &names, 50, 600);
    // n0, n10 … n90, asked for in turn.
    world.gone = Some("0.bench.example");
    let during = load(&mut world, &names, 50, 120);
    assert_eq!(sensor(&mut world).state, 1, "{}", sensor(&mut world).text);
    assert!(during.iter().filter(|answer| answer.stale).count() * 5 <= during.len());
    load(&mut world, &names, 50, 70);
    // Good for ten minutes: two and a half minutes of grace each.
    load(&mut world, &names, 50, 120);
    world.ask("n0.bench.example");
    world.run(Duration::from_secs(1));
    assert_eq!(world.answers.last().unwrap().code, rcode::NXDOMAIN);
    assert_eq!(sensor(&mut world).state, 0, "{}", sensor(&mut world).text);
}

#[test]
fn a_withdrawn_ipv6_address_is_held_for_less_time_than_a_name_without_any_address() {
    let mut world = World::new(1);
    let both = |world: &mut World, seconds: u32| {
        for _ in 0..seconds {
            world.ask_with("www.example", 1, true);
            world.ask_with("www.example", 28, true);
            world.run(Duration::from_secs(1));
        }
    };
    world.ipv6 = Some(true);
    both(&mut world, 3_600);
    world.ipv6 = Some(false);
    both(&mut world, 60);
    assert!(world.answers.last().unwrap().ttl.is_some(), "held for a quarter of an hour");
    both(&mut world, 15 * 60);
    let last = world.answers.last().unwrap();
    assert_eq!((last.code, last.ttl), (rcode::NOERROR, None), "believed, and not held for four hours");
}

#[test]
fn a_real_decommission_is_believed_within_the_mass_grace() {
    let (mut world, names) = (World::new(1), names(30));
    load(&mut world, &names, 1, 3_600);
    world.gone = Some("bench.example");
    load(&mut world, &names, 1, 1_000);
    assert_eq!(sensor(&mut world).state, 2);
    // Good for an hour, so held for an hour.
    load(&mut world, &names, 1, 2_700);
    assert_eq!(sensor(&mut world).state, 0);
    let after = load(&mut world, &names, 1, 30);
    assert!(after.iter().all(|answer| answer.code == rcode::NXDOMAIN));
}

#[test]
fn one_lying_upstream_of_two_is_left_out_without_affecting_clients() {
    for mood in ['n', 'E', 'z'] {
        let (mut world, names) = (World::new(2), names(50));
        load(&mut world, &names, 50, 30);
        world.moods[0] = mood;
        let answers = load(&mut world, &names, 50, 60);
        assert_eq!(right(&answers), answers.len(), "{mood}");
        assert!(answers[2_000..].iter().all(|answer| !answer.stale), "{mood}: the other has them fresh");
        let breaker = world.resolver.zones.get(ZoneId::ROOT).group.all()[0].breaker.state();
        assert!(
            matches!(breaker, crate::health::breaker::State::Down { why: Failure::Lies, .. }),
            "{mood}: {breaker:?}"
        );
        assert_eq!((world.state(UPSTREAM), sensor(&mut world).state), (1, 0), "{mood}");
        // It is used again once it gives correct answers.
        world.moods[0] = '.';
        load(&mut world, &names, 50, 30);
        assert_eq!(world.state(UPSTREAM), 0, "{mood}");
    }
}

#[test]
fn d5_ten_minutes_of_one_address_for_all_names_poison_no_client_for_long() {
    let (mut world, names) = (World::new(1), names(100));
    load(&mut world, &names, 50, 60);
    let before: Vec<_> = names.iter().map(|name| address(&mut world, name)).collect();
    world.moods[0] = 'c';
    load(&mut world, &names, 50, 10);
    let during: Vec<_> = names.iter().map(|name| address(&mut world, name)).collect();
    assert_eq!(before, during, "answers believed before the detection are restored");
    // An unknown name gets the false answer, but not for long.
    world.ask("cold.example");
    world.run(Duration::from_secs(1));
    assert_eq!(address(&mut world, "cold.example"), Some([203, 0, 113, 66]));
    let (answers, sent) = (world.answers.len(), world.sent);
    load(&mut world, &names, 50, 590);
    assert!((world.sent - sent) * 20 <= world.answers.len() - answers, "{}", world.sent - sent);
    let said = sensor(&mut world);
    assert_eq!(said.state, 2, "{}", said.text);
    assert!(said.text.contains("203.0.113.66"), "{}", said.text);
    world.moods[0] = '.';
    load(&mut world, &names, 50, 5);
    assert_eq!(sensor(&mut world).state, 0);
    load(&mut world, &names, 50, 60);
    let after: Vec<_> = names.iter().map(|name| address(&mut world, name)).collect();
    assert_eq!(before, after);
}

#[test]
fn two_upstreams_that_agree_on_one_new_address_are_believed_within_a_minute() {
    let (mut world, names) = (World::new(2), names(30));
    load(&mut world, &names, 30, 60);
    world.moods = vec!['c', 'c'];
    load(&mut world, &names, 30, 60);
    assert_eq!(address(&mut world, &names[0]), Some([203, 0, 113, 66]));
    assert_eq!(sensor(&mut world).state, 0);
}

#[test]
fn a_name_that_never_existed_is_not_held_and_a_guard_that_is_off_holds_nothing() {
    let mut world = World::new(1);
    world.moods[0] = 'n';
    for _ in 0..5 {
        world.ask("never.example");
        world.run(Duration::from_secs(1));
    }
    assert!(world.answers.iter().all(|answer| answer.code == rcode::NXDOMAIN));
    let off = Settings { guard: guard::Rules::off(), ..Settings::default() };
    let (mut world, names) = (World::with_settings(1, off), names(20));
    load(&mut world, &names, 20, 10);
    world.moods[0] = 'n';
    load(&mut world, &names, 20, 10);
    let answers = load(&mut world, &names, 20, 10);
    assert_eq!(right(&answers), 0);
}

#[test]
fn each_zone_has_its_own_guard() {
    let mut world = two_zones(true);
    let corp: Vec<String> = (0..10).map(|n| format!("n{n}.corp.example")).collect();
    let root: Vec<String> = (0..10).map(|n| format!("n{n}.other.test")).collect();
    let both: Vec<String> = corp.iter().chain(&root).cloned().collect();
    load(&mut world, &both, 20, 10);
    world.moods[1] = 'n';
    let answers = load(&mut world, &both, 20, 30);
    assert_eq!(right(&answers), answers.len());
    let tripped: Vec<_> = world.resolver.zones.iter().map(|zone| zone.guard.tripped()).collect();
    assert_eq!(tripped, [false, true]);
    assert!(sensor(&mut world).text.contains("accept corp.example"));
}

#[test]
fn m7_a_set_of_ten_that_shrinks_to_one_is_believed_and_reported() {
    let mut world = World::new(1);
    let question = key("pool.example");
    let (asked, ..) = name::read_key(question.as_bytes()).unwrap();
    let message = |records: u8| {
        let mut message = query("pool.example", 1, false);
        message[2..4].copy_from_slice(&[0x81, 0x80]);
        message[7] = records;
        for n in 0..records {
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 192, 0, 2, n]);
        }
        message
    };
    let ten = message(10);
    let answer = wire::read_answer(&ten, &asked).unwrap();
    world.resolver.cache.insert(question.as_bytes(), &ten, &answer, world.now).unwrap();
    world.run(Duration::from_secs(6));
    world.ask("pool.example");
    // The scripted upstream has another address; answer by hand with one of the ten.
    let try_id = world.wire.pop_back().unwrap().1;
    let one = message(1);
    world.resolver.on_reply(try_id, &one, world.now);
    world.pump();
    assert_eq!(address(&mut world, "pool.example"), Some([192, 0, 2, 0]));
    assert_eq!(event(&mut world).as_deref(), Some("pool.example has 1 records, down from 10"));
}

/// D32: a stranger's names vanish, good for only seconds; the host's own names are not held.
#[test]
fn d32_names_of_strangers_that_vanish_do_not_hold_the_names_of_others() {
    let (mut world, own) = (World::new(1), names(40));
    let mut all = own.clone();
    all.extend((0..8).map(|n| format!("www.site{n}.example")));
    load(&mut world, &all, 50, 20);
    let hostile = ["a.evil.test", "b.evil.test", "c.evil.test", "a.bad.test", "b.bad.test", "c.bad.test"];
    for _ in 0..3 {
        for name in &hostile {
            world.ask(name);
        }
        world.run(Duration::from_secs(6));
    }
    world.gone = Some("test");
    for _ in 0..6 {
        for name in &hostile {
            world.ask(name);
        }
        let answers = load(&mut world, &all, 50, 6);
        assert!(!world.resolver.zones.get(ZoneId::ROOT).guard.tripped(), "no trip");
        let stale = answers.iter().filter(|answer| answer.stale).count();
        assert!(stale * 50 <= answers.len(), "{stale} of {} stale", answers.len());
    }
    assert_eq!(frozen(&mut world, &all), 0);
    // Their own are held, each by itself, and for a minute at most.
    world.ask("a.evil.test");
    world.run(Duration::from_millis(10));
    assert_eq!(world.answers.last().unwrap().code, rcode::NOERROR);
}

/// D24: six of twenty services are removed; the other fourteen stay fresh.
#[test]
fn d24_services_that_are_removed_do_not_hold_those_that_are_still_there() {
    let (mut world, names) = (World::new(1), names(20));
    load(&mut world, &names, 40, 30);
    world.gone_names = names[..6].to_vec();
    let rest = &names[6..];
    for _ in 0..10 {
        names[..6].iter().for_each(|name| world.ask(name));
        let answers = load(&mut world, rest, 40, 6);
        let stale = answers.iter().filter(|answer| answer.stale).count();
        assert_eq!(stale, 0, "of {}", answers.len());
    }
    assert!(!world.resolver.zones.get(ZoneId::ROOT).guard.tripped());
}

/// D32: what an upstream confirms during a trip is not held.
#[test]
fn d32_a_name_that_an_upstream_confirms_during_a_trip_is_not_held_any_more() {
    let (mut world, names) = (World::new(1), names(100));
    load(&mut world, &names, 50, 10);
    world.moods[0] = 'n';
    load(&mut world, &names, 50, 20);
    let guard = |world: &World| world.resolver.zones.get(ZoneId::ROOT).guard.tripped();
    assert!(guard(&world));
    // One name is back; the canaries do not see it.
    world.moods[0] = '.';
    world.gone_names = names[1..].to_vec();
    world.resolver.ask_again(key(&names[0]).as_bytes(), ZoneId::ROOT, world.now);
    world.pump();
    world.run(Duration::from_secs(1));
    assert!(guard(&world));
    assert_eq!(frozen(&mut world, &names[..1]), 0);
    world.run(Duration::from_secs(6));
    assert_eq!(frozen(&mut world, &names[..1]), 0, "expired again");
    assert!(frozen(&mut world, &names[1..]) >= 90);
}

/// S13, in the whole resolver.
#[test]
fn s13_a_blocked_answer_is_no_answer_and_replaces_none() {
    let rebinding = guard::Rebinding { on: true, allow: Vec::new() };
    let mut world = World::with_settings(1, Settings { rebinding, ..Settings::default() });
    world.ask("www.shop.example");
    world.run(Duration::from_secs(6));
    world.moods[0] = 'p';
    for name in ["www.evil.example", "www.shop.example"] {
        world.ask(name);
        world.run(Duration::from_millis(10));
        let last = world.answers.last().unwrap();
        assert_eq!((last.code, last.ttl, last.stale), (rcode::NOERROR, None, false), "{name}: no address");
    }
    assert_eq!(address(&mut world, "www.evil.example"), None);
    assert!(address(&mut world, "www.shop.example").is_some(), "for an outage");
    assert_eq!(world.resolver.zones.get(ZoneId::ROOT).guard.counts.rebinding, 2);
    assert!(matches!(world.resolver.poll_guard_event(), Some((_, guard::Event::Rebinding { .. }))));
    assert!(world.resolver.poll_guard_event().is_none(), "said once in ten seconds");
    assert_eq!(world.state(0), 0, "the upstream is well");
    world.ask("printer.home.arpa");
    world.run(Duration::from_millis(10));
    assert_eq!(world.answers.last().unwrap().ttl, Some(5));
}
