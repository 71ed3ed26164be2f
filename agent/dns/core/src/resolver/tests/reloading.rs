//! New settings, or a stalled loop, while queries are on their way. Found by the policy model
//! (`tests/src/policy_model.rs`).

use super::*;
use crate::{settings::NoUpstreams, zones::local::LocalNames};

fn upstream(last: u8) -> Endpoint {
    SocketAddr::from(([192, 0, 2, last], 53)).into()
}

#[test]
fn without_upstreams_the_sensor_is_ok_with_a_hint_unless_programs_ask_this_cache() {
    for (is_outage, state, said) in [
        (
            false,
            0,
            "no upstream is configured: /etc/resolv.conf does not exist; set upstreams in dns.toml if",
        ),
        (true, 2, "no upstreams: /etc/resolv.conf does not exist: set upstreams in dns.toml, or"),
    ] {
        let none = NoUpstreams { why: "/etc/resolv.conf does not exist".into(), is_outage };
        let settings = Settings { no_upstreams: Some(none), ..Settings::default() };
        let mut world = World::with_settings(0, settings);
        let sensor =
            |world: &mut World| world.resolver.sensors(world.now, jiff::Timestamp::UNIX_EPOCH).swap_remove(0);
        let first = sensor(&mut world);
        assert_eq!(first.state, state);
        assert!(first.text.starts_with(said), "{}", first.text);
        assert_eq!(first.blind.is_some(), !is_outage);
        // The file appears.
        world.moods = vec!['.'];
        let settings = Settings { upstreams: vec![upstream(0)], ..Settings::default() };
        world.resolver.set(settings, world.now);
        let then = sensor(&mut world);
        assert_eq!((then.state, then.text.as_str(), then.blind), (0, "1 of 1 upstreams up", None));
    }
    // `upstreams = []`.
    let mut world = World::new(0);
    assert_eq!(world.resolver.sensors(world.now, jiff::Timestamp::UNIX_EPOCH)[0].state, 2);
}

#[test]
fn clients_waiting_for_removed_upstreams_are_answered_by_the_new_ones() {
    for waited in [Duration::from_millis(5), Duration::from_millis(1_500), Duration::from_millis(3_500)] {
        let mut world = World::new(1);
        world.moods = vec!['x', '.'];
        world.ask("www.example");
        world.run(waited);
        let settings = Settings { upstreams: vec![upstream(1)], ..world.resolver.settings.clone() };
        world.resolver.set(settings, world.now);
        // A new query joins the flight in progress.
        world.ask("www.example");
        world.run(Duration::from_millis(10));
        let codes: Vec<_> = world.answers.iter().map(|answer| answer.code).collect();
        assert_eq!(codes, [rcode::NOERROR; 2], "after {waited:?}");
        assert_eq!(world.resolver.audit(world.now), Ok(()));
    }
}

#[test]
fn a_doubt_about_the_old_upstreams_is_not_settled_by_the_new_ones() {
    let mut world = World::new(2);
    world.ask("www.example");
    world.run(Duration::from_secs(6));
    // The first says that the name is gone; the second is asked too and stays silent.
    world.moods = vec!['n', 'x', '.'];
    world.ask("www.example");
    world.run(Duration::from_millis(20));
    let settings = Settings { upstreams: vec![upstream(2)], ..world.resolver.settings.clone() };
    world.resolver.set(settings, world.now);
    world.pump();
    world.run(Duration::from_millis(10));
    let last = world.answers.last().unwrap();
    assert_eq!((last.code, last.ttl, last.stale), (rcode::NOERROR, Some(5), false));
}

#[test]
fn a_name_made_local_by_a_reload_is_not_cached_from_upstreams() {
    let mut world = World::new(1);
    world.ask("www.example");
    let local = Arc::new(LocalNames::parse("192.0.2.99 www.example").unwrap());
    world.resolver.set(Settings { local, ..world.resolver.settings.clone() }, world.now);
    world.run(Duration::from_secs(1));
    assert_eq!(world.answers[0].code, rcode::NOERROR, "the earlier query is answered");
    assert!(world.resolver.cache().is_empty());
}

#[test]
fn a_question_that_timed_out_during_a_stall_is_not_retried() {
    let mut world = World::new(2);
    let (packet, mut out) = (query("www.example", 1, true), Vec::new());
    let resolver = &mut world.resolver;
    resolver.on_query(&packet, Client::Stream(0), Transport::Udp, world.now, &mut out);
    let sent = resolver.poll_send().unwrap();
    // The loop stalled for as long as a question may take.
    let now = world.now + flight::RESOLUTION_TIMER;
    resolver.on_error(sent.try_id, TryError::Timeout, now);
    assert!(resolver.poll_send().is_none(), "an answer could not come in time");
    assert!(resolver.poll_reply().is_some());
}
