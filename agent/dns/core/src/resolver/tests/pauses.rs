//! D2: this daemon does not run for a while. Its own lateness is no evidence against upstreams.

use super::*;
use crate::health::breaker::State;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|name| format!("www.n{name}.example")).collect()
}

/// All names known and just expired.
fn known(names: &[String]) -> World {
    let mut world = World::new(1);
    world.ttl_s = 60;
    for name in names {
        world.ask(name);
    }
    world.run(Duration::from_secs(61));
    world
}

/// Nothing runs for this long; what upstreams sent waits in the sockets.
fn pause(world: &mut World, span: Duration) {
    world.now = world.now + span;
}

fn judged(world: &World) -> (u64, u32, Duration) {
    let group = &world.resolver.zones.get(ZoneId::ROOT).group;
    (world.resolver.counts.transitions, group.all()[0].breaker.unanswered(), group.late_after(0))
}

const PAUSES_MS: [u64; 6] = [300, 700, 2_000, 7_000, 60_000, 8 * 3_600_000];

#[test]
fn d2_answers_that_waited_while_the_process_was_stopped_are_not_late() {
    let names = names(40);
    for pause_ms in PAUSES_MS {
        let mut world = known(&names);
        let before = judged(&world);
        for name in &names {
            world.ask(name);
        }
        pause(&mut world, Duration::from_millis(pause_ms));
        world.run(Duration::from_secs(1));
        assert_eq!(judged(&world), before, "{pause_ms} ms");
        assert_eq!(world.state(0), 0, "{pause_ms} ms");
        assert_eq!(world.resolver.counts.pauses, 1, "{pause_ms} ms");
        assert_eq!(world.resolver.audit(world.now), Ok(()));
    }
}

#[test]
fn d2_questions_whose_answers_were_lost_in_a_pause_are_asked_again_and_count_against_nobody() {
    let names = names(40);
    for pause_ms in PAUSES_MS {
        let mut world = known(&names);
        let before = judged(&world);
        for name in &names {
            world.ask(name);
        }
        // The machine was suspended.
        let under_way = world.wire.len();
        for (at, _, what) in &mut world.wire {
            (*at, *what) = (world.now + flight::RESOLUTION_TIMER, Err(TryError::Timeout));
        }
        pause(&mut world, Duration::from_millis(pause_ms));
        let sent = world.sent;
        world.run(Duration::from_secs(1));
        if pause_ms < 6_000 {
            assert!(
                under_way > 30 && world.sent >= sent + under_way,
                "{pause_ms} ms: {} sent",
                world.sent - sent
            );
        }
        for name in &names {
            world.ask(name);
        }
        world.run(Duration::from_secs(1));
        let fresh = world.answers[world.answers.len() - names.len()..].iter().filter(|one| !one.stale);
        assert_eq!(fresh.count(), names.len(), "{pause_ms} ms: no failure is remembered");
        assert_eq!(judged(&world), before, "{pause_ms} ms");
        assert_eq!(world.state(0), 0, "{pause_ms} ms");
    }
}

#[test]
fn d2_a_pause_while_the_deciding_probes_are_out_decides_nothing() {
    for pause_ms in PAUSES_MS {
        let mut world = known(&names(8));
        let state = |world: &World| world.resolver.zones.get(ZoneId::ROOT).group.all()[0].breaker.state();
        world.broken = Some("n5.example");
        world.ask("www.n5.example");
        world.run(ROUND_TRIP + STEP);
        assert!(matches!(state(&world), State::Suspect { .. }), "{:?}", state(&world));
        assert_eq!(world.wire.len(), 2, "the probes");
        pause(&mut world, Duration::from_millis(pause_ms));
        world.run(Duration::from_secs(3));
        assert_eq!((world.resolver.counts.transitions, state(&world)), (0, State::Healthy), "{pause_ms} ms");
    }
}

/// The question of a client that was under way for longer than any may be: it fails, and the next
/// client's is asked at once.
#[test]
fn d2_a_failure_of_our_own_is_not_remembered() {
    let mut world = known(&names(1));
    world.ask("new.example");
    world.wire.clear();
    pause(&mut world, Duration::from_secs(20));
    world.run(Duration::from_millis(10));
    assert_eq!(world.answers.last().unwrap().code, rcode::SERVFAIL);
    world.ask("new.example");
    world.run(Duration::from_millis(10));
    assert_eq!(world.answers.last().unwrap().code, rcode::NOERROR);
}

/// An overloaded host: every timer is late, by a pause or more.
#[test]
fn d2_an_outage_is_found_on_an_overloaded_host_too() {
    let mut world = known(&names(1));
    let late = Duration::from_millis(120);
    let turn = |world: &mut World, mood: char| {
        world.moods[0] = mood;
        world.ask("www.n0.example");
        for _ in 0..20 {
            let due = world.resolver.next_wakeup().unwrap_or(world.now);
            pause(world, (world.now.until(due) + late).min(Duration::from_millis(400)));
            world.run(STEP);
        }
    };
    (0..20).for_each(|_| turn(&mut world, '.'));
    assert_eq!((world.resolver.counts.transitions, world.state(0)), (0, 0), "it answers");
    assert!(world.resolver.counts.pauses > 0);
    (0..20).for_each(|_| turn(&mut world, 'x'));
    assert_eq!(world.state(0), 2, "it does not");
}

/// The wall clock shows that a virtual machine did not run; the boot clock did not.
#[test]
fn d2_time_that_no_clock_counted_is_a_pause_too() {
    let names = names(40);
    let mut world = known(&names);
    let before = judged(&world);
    for name in &names {
        world.ask(name);
    }
    for (at, _, what) in &mut world.wire {
        (*at, *what) = (world.now + flight::RESOLUTION_TIMER, Err(TryError::Timeout));
    }
    world.resolver.on_unseen_time(Duration::from_mins(10), world.now);
    world.run(Duration::from_secs(7));
    assert_eq!((judged(&world), world.state(0)), (before, 0));
}
