//! Zones that come and go: answers from other upstreams for their names are no longer fresh, and
//! are no evidence.

use super::*;

/// Upstream 0 is the root's; upstream 1 is the zone's and gives one address for all names, which
/// shows who was asked.
fn world() -> World {
    let mut world = World::new(1);
    world.ttl_s = 3_600;
    world.moods.push('c');
    world
}

fn set_zone(world: &mut World, upstream: Option<u8>) {
    let mut settings = world.resolver.settings.clone();
    let zone = |n: u8| ZoneSettings {
        suffix: name::from_text("corp.example").unwrap().into(),
        upstreams: vec![SocketAddr::from(([192, 0, 2, n], 53)).into()],
        max_stale: Duration::from_hours(1),
        serve_stale: true,
        guard: guard::Rules::default(),
        rebinding: guard::Rebinding::default(),
    };
    settings.zones = upstream.map(zone).into_iter().collect();
    world.resolver.set(settings, world.now);
    world.pump();
}

/// Asks and waits; returns the address and the outcome.
fn ask(world: &mut World, name: &str) -> (Option<[u8; 4]>, char) {
    world.ask(name);
    world.run(Duration::from_secs(1));
    let wire_name = name::from_text(name).unwrap();
    let key = Key::new(&wire::Question { name: &wire_name, kind: 1, class: 1 }, false, false);
    let entry = world.resolver.cache.find(key.as_bytes()).and_then(|slot| world.resolver.cache.get(slot));
    let address = entry
        .and_then(|entry| wire::answers(entry.kept().message).find_map(|(_, data)| data.try_into().ok()));
    (address, world.answers.last().unwrap().sign())
}

const THE_ZONES: Option<[u8; 4]> = Some([203, 0, 113, 66]);

fn guard_state(world: &mut World) -> u8 {
    world.state(2)
}

#[test]
fn an_added_zone_answers_for_its_names_at_once_and_trips_no_guard() {
    let mut world = world();
    let names: Vec<String> = (0..20).map(|n| format!("n{n}.corp.example")).collect();
    for name in names.iter().map(String::as_str).chain(["www.example"]) {
        assert_eq!(ask(&mut world, name).1, 'f');
    }
    let old = ask(&mut world, "www.example");
    set_zone(&mut world, Some(1));
    let sent = world.sent;
    // They all move to one address never seen before, which would be a trip if it were the same
    // view.
    for name in &names {
        assert_eq!(ask(&mut world, name), (THE_ZONES, 'f'), "{name}");
    }
    assert_eq!(guard_state(&mut world), 0);
    let asked = world.sent - sent;
    assert!((20..=24).contains(&asked), "{asked}, including a probe or two");
    assert_eq!((ask(&mut world, "www.example"), old.1), (old, 'f'));
    assert_eq!(ask(&mut world, &names[0]), (THE_ZONES, 'f'), "kept");
    let mut forgotten = std::iter::from_fn(|| world.resolver.poll_forgotten());
    assert!(forgotten.all(|key| name::to_text(name::name_of(&key)).ends_with("corp.example")));

    // And back: the zone's answers are not the root's.
    set_zone(&mut world, None);
    let (address, sign) = ask(&mut world, &names[3]);
    assert!(address.is_some() && address != THE_ZONES && sign == 'f');
    assert_eq!(guard_state(&mut world), 0);
}

#[test]
fn the_old_answer_is_served_until_the_new_zones_upstream_replies() {
    let mut world = world();
    let (old, _) = ask(&mut world, "www.corp.example");
    world.moods[1] = 'x';
    set_zone(&mut world, Some(1));
    assert_eq!(ask(&mut world, "www.corp.example"), (old, 'l'), "stale, after the client timer");
    world.run(Duration::from_secs(2));
    assert_eq!(ask(&mut world, "www.corp.example"), (old, 's'), "its breaker is open");
    world.moods[1] = 'c';
    world.run(Duration::from_secs(30));
    assert_eq!(ask(&mut world, "www.corp.example").0, THE_ZONES);
}

#[test]
fn negative_answers_from_another_view_are_dropped() {
    let mut world = world();
    world.gone = Some("corp.example");
    ask(&mut world, "db.corp.example");
    assert_eq!(world.answers.last().unwrap().code, rcode::NXDOMAIN);
    world.gone = None;
    world.moods[1] = 'x';
    set_zone(&mut world, Some(1));
    world.ask("db.corp.example");
    world.run(Duration::from_secs(7));
    assert_eq!(world.answers.last().unwrap().code, rcode::SERVFAIL, "no answer is cached");
    world.moods[1] = 'c';
    world.run(Duration::from_secs(15));
    assert_eq!(ask(&mut world, "db.corp.example").0, THE_ZONES);
}

#[test]
fn a_hold_against_the_roots_upstreams_does_not_apply_to_the_new_zones() {
    let mut world = world();
    world.ttl_s = 5;
    let names: Vec<String> = (0..10).map(|n| format!("n{n}.corp.example")).collect();
    for _ in 0..30 {
        for name in &names {
            ask(&mut world, name);
        }
    }
    world.moods[0] = 'n';
    for name in names.iter().chain(&names) {
        ask(&mut world, name);
        assert_eq!(world.answers.last().unwrap().code, rcode::NOERROR);
    }
    assert_eq!(guard_state(&mut world), 2);
    world.moods[1] = 'n';
    set_zone(&mut world, Some(1));
    assert_eq!(guard_state(&mut world), 0);
    for name in &names {
        ask(&mut world, name);
        assert_eq!(world.answers.last().unwrap().code, rcode::NXDOMAIN, "{name}");
    }
    assert_eq!(guard_state(&mut world), 0);
}

#[test]
fn other_upstreams_for_a_zone_are_another_view_and_other_upstreams_for_all_are_not() {
    let mut world = world();
    set_zone(&mut world, Some(1));
    assert_eq!(ask(&mut world, "www.corp.example"), (THE_ZONES, 'f'));
    let (old, _) = ask(&mut world, "www.example");
    world.moods.extend(['.', '.']);
    set_zone(&mut world, Some(2));
    let (address, sign) = ask(&mut world, "www.corp.example");
    assert!(address != THE_ZONES && sign == 'f');
    // A roaming host keeps its fresh answers.
    let mut settings = world.resolver.settings.clone();
    settings.upstreams = vec![SocketAddr::from(([192, 0, 2, 3], 53)).into()];
    world.resolver.set(settings, world.now);
    assert_eq!(ask(&mut world, "www.example"), (old, 'f'));
    assert_eq!(ask(&mut world, "www.corp.example"), (address, 'f'));
}

#[test]
fn a_pinned_name_is_queried_again_before_any_client_asks() {
    let name = name::from_text("db.corp.example").unwrap();
    let key = Key::new(&wire::Question { name: &name, kind: 1, class: 1 }, false, false);
    let pinned = vec![Pinned { key: key.as_bytes().into(), check_tcp: None }];
    let mut world = World::with_settings(1, Settings { pinned, ..Settings::default() });
    (world.ttl_s, world.moods) = (3_600, vec!['.', 'c']);
    world.run(Duration::from_secs(2));
    set_zone(&mut world, Some(1));
    world.run(Duration::from_secs(1));
    assert_eq!(ask(&mut world, "db.corp.example"), (THE_ZONES, 'f'));
}
