//! New settings, and a stalled loop, while questions are on their way. Found by the policy model (`tests/src/policy_model.rs`).

use super::*;
use crate::zones::local::LocalNames;

fn upstream(last: u8) -> Endpoint {
    SocketAddr::from(([192, 0, 2, last], 53)).into()
}

#[test]
fn who_waits_for_upstreams_that_are_no_longer_configured_is_answered_by_the_new_ones() {
    for waited in [Duration::from_millis(5), Duration::from_millis(1_500), Duration::from_millis(3_500)] {
        let mut world = World::new(1);
        world.moods = vec!['x', '.'];
        world.ask("www.example");
        world.run(waited);
        let settings = Settings { upstreams: vec![upstream(1)], ..world.resolver.settings.clone() };
        world.resolver.set(settings, world.now);
        // Who asks now joins the question that is on its way.
        world.ask("www.example");
        world.run(Duration::from_millis(10));
        let codes: Vec<_> = world.answers.iter().map(|answer| answer.code).collect();
        assert_eq!(codes, [rcode::NOERROR; 2], "after {waited:?}");
        assert_eq!(world.resolver.audit(world.now), Ok(()));
    }
}

#[test]
fn a_doubt_of_the_old_upstreams_is_not_settled_by_the_new_ones() {
    let mut world = World::new(2);
    world.ask("www.example");
    world.run(Duration::from_secs(6));
    // The first says that it is gone, the second is asked too and silent.
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
fn what_a_reload_made_local_is_not_learned_from_upstream() {
    let mut world = World::new(1);
    world.ask("www.example");
    let local = Arc::new(LocalNames::parse("192.0.2.99 www.example").unwrap());
    world.resolver.set(Settings { local, ..world.resolver.settings.clone() }, world.now);
    world.run(Duration::from_secs(1));
    assert_eq!(world.answers[0].code, rcode::NOERROR, "who asked before is answered");
    assert!(world.resolver.cache().is_empty());
}

#[test]
fn a_question_that_a_stall_has_ended_is_not_asked_once_more() {
    let mut world = World::new(2);
    let (packet, mut out) = (query("www.example", 1, true), Vec::new());
    let resolver = &mut world.resolver;
    resolver.on_query(&packet, Client::Stream(0), Transport::Udp, world.now, &mut out);
    let sent = resolver.poll_send().unwrap();
    // The loop stood still for as long as a question may take.
    let now = world.now + flight::RESOLUTION_TIMER;
    resolver.on_error(sent.try_id, TryError::Timeout, now);
    assert!(resolver.poll_send().is_none(), "an answer could not come in time");
    assert!(resolver.poll_reply().is_some());
}
