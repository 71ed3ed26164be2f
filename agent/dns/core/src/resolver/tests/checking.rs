//! M18: a pinned name's new addresses are believed once they accept a connection, or if the old
//! ones do not either.

use super::*;

const NAME: &str = "db.example";
/// The upstream's address for it, and the one it gives in its other mood.
const HERE: [u8; 4] = [192, 0, 2, 188];
const THERE: [u8; 4] = [203, 0, 113, 66];

fn key() -> Key {
    let name = name::from_text(NAME).unwrap();
    Key::new(&wire::Question { name: &name, kind: 1, class: 1 }, false, false)
}

/// `NAME` is pinned and has been cached for an hour; now upstreams say that it moved.
fn world() -> World {
    let pinned = vec![Pinned { key: key().as_bytes().into(), check_tcp: Some(5432) }];
    let mut world = World::with_settings(1, Settings { pinned, ..Settings::default() });
    world.run(Duration::from_hours(1));
    assert_eq!(address(&world), HERE);
    world.moods[0] = 'c';
    world
}

fn address(world: &World) -> [u8; 4] {
    let slot = world.resolver.cache.find(&key()).unwrap();
    let entry = world.resolver.cache.get(slot).unwrap();
    wire::answers(entry.kept().message).find_map(|(_, data)| data.try_into().ok()).unwrap()
}

/// Runs until the core wants addresses checked.
fn check(world: &mut World) -> TcpCheck {
    for _ in 0..12_000 {
        if let Some(check) = world.resolver.poll_check() {
            return check;
        }
        world.run(STEP * 10);
    }
    panic!("no check requested");
}

fn verdict(world: &mut World, check: &TcpCheck, old: bool, new: bool) {
    world.resolver.on_checked(check, Accepting { old, new }, world.now);
    world.pump();
    world.resolver.audit(world.now).unwrap();
}

fn sensor(world: &mut World) -> SensorResult {
    world.resolver.sensors(world.now, jiff::Timestamp::UNIX_EPOCH).swap_remove(2)
}

fn events(world: &mut World) -> Vec<String> {
    std::iter::from_fn(|| world.resolver.poll_guard_event().map(|(_, event)| event.to_string())).collect()
}

#[test]
fn it_moves_when_the_new_address_accepts_and_waiting_clients_get_it() {
    let mut world = world();
    let tried = check(&mut world);
    assert_eq!((tried.port, &tried.old, &tried.new), (5432, &vec![HERE.into()], &vec![THERE.into()]));
    assert_eq!(address(&world), HERE, "not before");
    world.run(Duration::from_millis(50));
    world.ask(NAME);
    let asked = world.answers.len() - 1;
    verdict(&mut world, &tried, true, true);
    assert_eq!(address(&world), THERE);
    assert!(world.answers[asked].code == rcode::NOERROR && !world.answers[asked].stale);
    let said = events(&mut world).concat();
    assert!(said.contains("pinned db.example had 192.0.2.188 and has 203.0.113.66"), "{said}");
    // A second result for the same check has no effect.
    verdict(&mut world, &tried, true, false);
    assert_eq!((address(&world), sensor(&mut world).state), (THERE, 0));
}

#[test]
fn neither_two_closed_addresses_nor_a_check_without_a_result_is_evidence() {
    let mut world = world();
    let tried = check(&mut world);
    verdict(&mut world, &tried, false, false);
    assert_eq!(address(&world), THERE);
    let mut world = self::world();
    check(&mut world);
    world.run(Duration::from_secs(7));
    world.resolver.audit(world.now).unwrap();
    assert_eq!(address(&world), THERE);
}

#[test]
fn a_closed_new_address_is_held_reported_and_rechecked_until_it_accepts() {
    let mut world = world();
    let tried = check(&mut world);
    verdict(&mut world, &tried, true, false);
    assert_eq!(address(&world), HERE);
    let said = events(&mut world).concat();
    assert!(said.contains("accept no TCP connection") && said.contains("accept db.example"), "{said}");
    let sensor_says = sensor(&mut world);
    assert_eq!(sensor_says.state, 1, "{}", sensor_says.text);
    assert!(sensor_says.text.contains("but an old address does"), "{}", sensor_says.text);
    world.run(Duration::from_secs(6));
    world.ask(NAME);
    let heard = world.answers.last().unwrap().clone();
    assert_eq!((heard.code, heard.stale, heard.asked), (rcode::NOERROR, true, heard.answered));
    let why = world.resolver.why(
        &name::from_text(NAME).unwrap(),
        1,
        |_| Vec::new(),
        world.now,
        jiff::Timestamp::UNIX_EPOCH,
    );
    assert!(why.guard.unwrap().end_with.ends_with("accept db.example"));
    // It is checked again without another message; then it accepts.
    let again = check(&mut world);
    verdict(&mut world, &again, true, false);
    assert_eq!(events(&mut world), Vec::<String>::new());
    let open = check(&mut world);
    verdict(&mut world, &open, true, true);
    assert_eq!((address(&world), sensor(&mut world).state), (THERE, 0));
}

#[test]
fn the_grace_period_ends_it_and_so_does_an_operator() {
    let mut world = world();
    let start = world.now;
    loop {
        let tried = check(&mut world);
        verdict(&mut world, &tried, true, false);
        if address(&world) == THERE {
            break;
        }
        world.ask(NAME);
        world.answers.clear();
    }
    // A quarter of its hour.
    let held = world.now.since(start);
    assert!(held > Duration::from_mins(14) && held < Duration::from_mins(17), "{held:?}");
    let mut world = self::world();
    let tried = check(&mut world);
    verdict(&mut world, &tried, true, false);
    world.resolver.accept(&name::from_text(NAME).unwrap(), world.now);
    world.pump();
    world.run(Duration::from_secs(1));
    assert_eq!((address(&world), world.resolver.poll_check()), (THERE, None));
}

#[test]
fn other_names_and_moves_are_not_checked() {
    let mut world = world();
    // A name that is not pinned.
    world.moods[0] = '.';
    world.ask("www.example");
    world.run(Duration::from_secs(20));
    world.moods[0] = 'c';
    world.ask("www.example");
    world.run(Duration::from_millis(100));
    while let Some(tried) = world.resolver.poll_check() {
        assert_eq!(tried.old, [std::net::IpAddr::from(HERE)], "only of the pinned name");
    }
    // From upstreams removed by a reload.
    let mut world = self::world();
    let tried = check(&mut world);
    let settings = world.resolver.settings.clone();
    let upstreams = vec![SocketAddr::from(([192, 0, 2, 1], 53)).into()];
    world.moods = vec!['c', 'c'];
    world.resolver.set(Settings { upstreams, ..settings }, world.now);
    verdict(&mut world, &tried, true, true);
    assert_eq!(address(&world), HERE);
}
