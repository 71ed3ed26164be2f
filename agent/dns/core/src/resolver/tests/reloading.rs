//! New settings, or a stalled loop, while queries are on their way. Found by the policy model
//! (`tests/src/policy_model.rs`).

use super::*;
use crate::zones::local::LocalNames;

fn upstream(last: u8) -> Endpoint {
    SocketAddr::from(([192, 0, 2, last], 53)).into()
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
