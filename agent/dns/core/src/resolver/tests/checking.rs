//! M18: a pinned name's new addresses are believed once they take a connection, or if the old ones do not either.

use super::*;

const NAME: &str = "db.example";
/// Where upstream says it is, and where it says it is in its other mood.
const HERE: [u8; 4] = [192, 0, 2, 188];
const THERE: [u8; 4] = [203, 0, 113, 66];

fn key() -> Key {
    let name = name::from_text(NAME).unwrap();
    Key::new(&wire::Question { name: &name, kind: 1, class: 1 }, false, false)
}

/// `NAME` is pinned, has been known for an hour, and upstream says that it is elsewhere now.
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

/// Runs until the core wants addresses tried.
fn check(world: &mut World) -> TcpCheck {
    for _ in 0..12_000 {
        if let Some(check) = world.resolver.poll_check() {
            return check;
        }
        world.run(STEP * 10);
    }
    panic!("nothing is tried");
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
fn it_moves_when_the_new_place_is_open_and_whoever_waits_gets_it() {
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
    // A verdict that comes twice is of nothing.
    verdict(&mut world, &tried, true, false);
    assert_eq!((address(&world), sensor(&mut world).state), (THERE, 0));
}

#[test]
fn nobody_at_either_place_is_no_evidence_nor_is_a_check_without_an_end() {
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
fn a_closed_new_place_is_held_said_tried_again_and_over_when_it_opens() {
    let mut world = world();
    let tried = check(&mut world);
    verdict(&mut world, &tried, true, false);
    assert_eq!(address(&world), HERE);
    let said = events(&mut world).concat();
    assert!(said.contains("nobody takes a TCP connection") && said.contains("accept db.example"), "{said}");
    let sensor_says = sensor(&mut world);
    assert_eq!(sensor_says.state, 1, "{}", sensor_says.text);
    assert!(sensor_says.text.contains("while an old one does"), "{}", sensor_says.text);
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
    // It is tried again, with no new word about it; then somebody is there.
    let again = check(&mut world);
    verdict(&mut world, &again, true, false);
    assert_eq!(events(&mut world), Vec::<String>::new());
    let open = check(&mut world);
    verdict(&mut world, &open, true, true);
    assert_eq!((address(&world), sensor(&mut world).state), (THERE, 0));
}

#[test]
fn the_grace_ends_it_and_so_does_a_person() {
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
fn names_and_moves_that_are_not_meant_are_not_tried() {
    let mut world = world();
    // Of a name that is not pinned.
    world.moods[0] = '.';
    world.ask("www.example");
    world.run(Duration::from_secs(20));
    world.moods[0] = 'c';
    world.ask("www.example");
    world.run(Duration::from_millis(100));
    while let Some(tried) = world.resolver.poll_check() {
        assert_eq!(tried.old, [std::net::IpAddr::from(HERE)], "only of the pinned one");
    }
    // Of a reload's old upstreams.
    let mut world = self::world();
    let tried = check(&mut world);
    let settings = world.resolver.settings.clone();
    let upstreams = vec![SocketAddr::from(([192, 0, 2, 1], 53)).into()];
    world.moods = vec!['c', 'c'];
    world.resolver.set(Settings { upstreams, ..settings }, world.now);
    verdict(&mut world, &tried, true, true);
    assert_eq!(address(&world), HERE);
}
