//! Each rule as a timeline, beside its legitimate counterpart; and the promises under any order of
//! events.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::message::{
    name::{self, Key},
    wire::Question,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const ALONE: Witnesses = Witnesses { asked: 1, agreed: 1 };
const TWO: Witnesses = Witnesses { asked: 2, agreed: 2 };

fn key(name: &str) -> Box<[u8]> {
    let name = name::from_text(name).unwrap();
    Key::new(&Question { name: &name, kind: 1, class: 1 }, false, false).as_bytes().into()
}

fn suffix(name: &str) -> Vec<u8> {
    name::from_text(name).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn guard() -> Guard {
    Guard::new(&[0], Rules::default())
}

fn cold(good_for: Duration) -> Known {
    Known { good_for, hot: false, uses: 0 }
}

fn hot(good_for: Duration) -> Known {
    Known { good_for, hot: true, uses: 0 }
}

/// Asks for `name` every ten seconds while upstreams say that it is gone. Returns how long it was
/// held.
fn held_for(guard: &mut Guard, name: &str, known: Known, witnesses: Witnesses) -> Duration {
    let mut now = Moment::START;
    while guard.on_gone(&key(name), known, Reason::Gone, witnesses, now) {
        now = now + SECOND * 10;
        assert!(now.since(Moment::START) < HOUR * 24, "held forever");
    }
    now.since(Moment::START)
}

/// Five names of one domain vanish at `now`, after an hour each.
fn trip_of_a_domain(guard: &mut Guard, now: Moment) {
    for n in 0..5 {
        let known = cold(HOUR);
        assert!(guard.on_gone(&key(&format!("n{n}.corp.example")), known, Reason::Gone, ALONE, now));
    }
    assert!(guard.tripped());
}

#[test]
fn a_name_that_vanishes_alone_is_held_for_a_quarter_of_its_good_time_within_bounds() {
    let of = |known, witnesses| held_for(&mut guard(), "www.example", known, witnesses);
    // A real deletion always takes effect within the grace period.
    assert_eq!(of(cold(SECOND * 10), ALONE), MINUTE);
    assert_eq!(of(cold(MINUTE * 20), ALONE), MINUTE * 5);
    assert_eq!(of(cold(HOUR * 100), ALONE), MINUTE * 15);
    // Names that are asked for often are held longer: AWS's empty record of October 2025 lasted 2 h
    // 37 min.
    assert_eq!(of(hot(HOUR * 100), ALONE), HOUR * 4);
    assert_eq!(of(hot(HOUR), ALONE), MINUTE * 15);
    assert_eq!(of(hot(MINUTE * 5), ALONE), SECOND * 80);
}

#[test]
fn an_empty_answer_for_a_hot_and_steady_name_is_held_for_hours_then_believed() {
    let held_for = |known, rules: Rules| {
        let mut guard = Guard::new(&[0], rules);
        let mut now = Moment::START;
        while guard.on_gone(&key("dynamodb.example"), known, Reason::Empty, TWO, now) {
            now = now + SECOND * 10;
            assert!(now.since(Moment::START) < HOUR * 24, "held forever");
        }
        now.since(Moment::START)
    };
    // The outage lasted 2 h 37 min; this host has known the name for forty minutes.
    assert_eq!(held_for(hot(MINUTE * 40), Rules::default()), HOUR * 4);
    assert_eq!(held_for(hot(MINUTE * 20), Rules::default()), MINUTE * 5);
    assert_eq!(held_for(cold(HOUR * 100), Rules::default()), MINUTE);
    let short = Rules { empty_grace: MINUTE * 30, ..Rules::default() };
    assert_eq!(held_for(hot(HOUR * 100), short), MINUTE * 30);
    let off = Rules { vanish: false, ..Rules::default() };
    assert_eq!(held_for(hot(HOUR * 100), off), MINUTE);
}

#[test]
fn agreement_of_a_second_upstream_shortens_the_hold_unless_the_name_is_hot() {
    let of = |known| held_for(&mut guard(), "www.example", known, TWO);
    assert_eq!(of(cold(HOUR * 100)), MINUTE);
    // All upstreams may ask the same broken authority.
    assert_eq!(of(hot(HOUR * 100)), HOUR * 4);
}

#[test]
fn a_name_asked_for_often_while_held_becomes_hot() {
    // As after a restart: the answer has been known for long, but its use count is lost.
    let held = |per_minute: u32| {
        let mut guard = guard();
        let mut now = Moment::START;
        let known = |now: Moment| {
            let minutes = u32::try_from(now.since(Moment::START).as_secs()).unwrap() / 60;
            let seconds = u32::try_from(now.since(Moment::START).as_secs()).unwrap() % 60;
            Known { uses: per_minute * minutes + per_minute * seconds / 60, ..cold(HOUR * 100) }
        };
        while guard.on_gone(&key("www.example"), known(now), Reason::Gone, TWO, now) {
            now = now + SECOND * 10;
        }
        now.since(Moment::START)
    };
    assert_eq!((held(1), held(3), held(30)), (MINUTE, MINUTE, HOUR * 4));
}

#[test]
fn switching_a_rule_off_ends_its_holds() {
    let mut guard = guard();
    let now = Moment::START;
    trip_of_a_domain(&mut guard, now);
    guard.set_rules(Rules::off(), now);
    assert!(!guard.tripped());
    assert_eq!(guard.stance(&key("n0.corp.example"), 1, now), None);
    assert!(!guard.on_gone(&key("n0.corp.example"), hot(HOUR * 100), Reason::Gone, ALONE, now));
    // With only the mass rule on, a name is held while it is judged, no longer.
    let mut guard = Guard::new(&[0], Rules { vanish: false, ..Rules::default() });
    assert_eq!(held_for(&mut guard, "www.example", hot(HOUR * 100), ALONE), MINUTE);
}

#[test]
fn upstreams_are_asked_at_growing_intervals_and_the_first_good_answer_ends_the_hold() {
    let mut guard = guard();
    let (name, mut now) = (key("www.example"), Moment::START);
    assert!(guard.on_gone(&name, hot(HOUR * 20), Reason::Gone, ALONE, now));
    let mut asks = Vec::new();
    for _ in 0..200 {
        now = now + SECOND;
        let stance = guard.stance(&name, 1, now).unwrap();
        assert_eq!(stance.why, Why::Hold(Reason::Gone));
        if stance.ask {
            asks.push(now.since(Moment::START).as_secs());
            guard.on_ask(&name, 1, now);
            assert!(guard.on_gone(&name, hot(HOUR * 20), Reason::Gone, ALONE, now));
        }
    }
    assert_eq!(asks, [5, 15, 35, 65, 95, 125, 155, 185]);
    guard.on_good(&name, &[], now);
    assert_eq!((guard.stance(&name, 1, now), guard.counts.returned), (None, 1));
}

#[test]
fn five_names_of_one_domain_trip_that_domain_only() {
    let mut guard = guard();
    let now = Moment::START;
    trip_of_a_domain(&mut guard, now);
    let Some(Event::TripStarted { cause: Cause::Gone, scope, examples }) = guard.poll_event() else {
        panic!("no event")
    };
    assert_eq!((&*scope, examples.len()), (&*suffix("corp.example"), 5));
    // Names of the domain that were not asked for yet are held too; names of other domains are not.
    assert_eq!(guard.stance(&key("other.corp.example"), 1, now).map(|stance| stance.why), Some(Why::Trip));
    assert_eq!(guard.stance(&key("www.example"), 1, now), None);
    assert!(guard.distrusts_new(&key("new.corp.example"), &[]));
    assert!(!guard.distrusts_new(&key("new.example"), &[]));
    assert_eq!(guard.poll_event(), None, "one event per trip, not one per name");
}

#[test]
fn names_of_several_domains_trip_the_zone_but_the_end_of_one_domain_does_not() {
    let now = Moment::START;
    let gone = |guard: &mut Guard, name: &str| {
        guard.on_gone(&key(name), cold(HOUR), Reason::Gone, ALONE, now);
    };
    let mut lying = guard();
    for name in ["www.a.example", "www.b.test", "mail.b.test", "www.c.test", "www.d.test"] {
        gone(&mut lying, name);
    }
    assert_eq!(lying.trips().len(), 1);
    assert_eq!(*lying.trips()[0].scope, [0]);
    // One domain is taken down, and someone deletes one name of another.
    let mut honest = guard();
    trip_of_a_domain(&mut honest, now);
    gone(&mut honest, "old.b.test");
    assert_eq!(honest.trips().len(), 1);
    assert_eq!(*honest.trips()[0].scope, *suffix("corp.example"));
}

#[test]
fn four_names_or_five_among_many_good_answers_or_one_name_with_many_types_trip_nothing() {
    let mut now = Moment::START;
    let mut few = guard();
    for n in 0..4 {
        few.on_gone(&key(&format!("n{n}.corp.example")), cold(HOUR), Reason::Gone, ALONE, now);
    }
    assert!(!few.tripped());
    let mut rare = guard();
    for n in 0..20 {
        rare.on_gone(&key(&format!("gone{n}.corp.example")), cold(HOUR), Reason::Gone, ALONE, now);
        for m in 0..7 {
            rare.on_good(&key(&format!("there{m}.corp.example")), &[], now);
        }
    }
    assert!(!rare.tripped(), "one in eight");
    let mut slow = guard();
    for n in 0..20 {
        now = now + SECOND * 16;
        slow.on_gone(&key(&format!("n{n}.corp.example")), cold(HOUR), Reason::Gone, ALONE, now);
    }
    assert!(!slow.tripped(), "fewer than five a minute");
    let mut one = guard();
    let name = suffix("www.example");
    for kind in 1..20 {
        let key = Key::new(&Question { name: &name, kind, class: 1 }, false, false);
        one.on_gone(key.as_bytes(), cold(HOUR), Reason::Gone, ALONE, now);
    }
    assert!(!one.tripped(), "one name is one name");
}

#[test]
fn a_trip_asks_upstream_three_times_for_a_hundred_queries() {
    let mut guard = guard();
    let now = Moment::START;
    trip_of_a_domain(&mut guard, now);
    for (upstreams, most) in [(1, 300), (2, 150), (3, 100)] {
        let mut asks = 0;
        for n in 0..10_000 {
            let key = key(&format!("m{n}.corp.example"));
            if guard.stance(&key, upstreams, now).unwrap().ask {
                guard.on_ask(&key, upstreams, now);
                asks += 1;
            }
        }
        assert!((most - 5..=most + 2).contains(&asks), "{asks} asks, {upstreams} upstreams each");
    }
}

#[test]
fn canaries_find_the_end_within_seconds_without_client_queries_and_with_some_names_really_gone() {
    let mut guard = guard();
    let mut now = Moment::START;
    trip_of_a_domain(&mut guard, now);
    let back_at = now + MINUTE * 2;
    while guard.tripped() {
        assert!(now < back_at + SECOND * 5, "still tripped");
        now = guard.next_wakeup().unwrap().max(now + Duration::from_millis(1));
        while let Some(canary) = guard.poll_canary(now) {
            if now < back_at || canary == key("n3.corp.example") {
                assert!(guard.on_gone(&canary, cold(HOUR), Reason::Gone, ALONE, now));
            } else {
                guard.on_good(&canary, &[], now);
            }
        }
    }
    assert!(now >= back_at);
    assert!(guard.take_recovered() && !guard.take_recovered());
    // The name that is really gone stays held on its own, for a quarter of the hour it was good.
    let deleted = key("n3.corp.example");
    assert!(guard.stance(&deleted, 1, now).is_some());
    assert!(guard.on_gone(&deleted, cold(HOUR), Reason::Gone, ALONE, Moment::START + MINUTE * 14));
    assert!(!guard.on_gone(&deleted, cold(HOUR), Reason::Gone, ALONE, Moment::START + MINUTE * 15));
}

#[test]
fn a_real_decommission_is_believed_once_the_bound_of_the_steadiest_name_is_over() {
    let mut guard = guard();
    let start = Moment::START;
    trip_of_a_domain(&mut guard, start);
    let name = key("n1.corp.example");
    assert!(guard.on_gone(&name, cold(HOUR), Reason::Gone, ALONE, start + MINUTE * 59));
    assert!(!guard.on_gone(&name, cold(HOUR), Reason::Gone, ALONE, start + HOUR));
    // The domain's other names are believed too, without another trip.
    for n in 0..50 {
        let later = key(&format!("later{n}.corp.example"));
        assert!(!guard.on_gone(&later, cold(HOUR), Reason::Gone, ALONE, start + HOUR + SECOND));
    }
    let ends: Vec<_> = std::iter::from_fn(|| guard.poll_event()).collect();
    assert!(matches!(ends[..], [_, Event::TripEnded { end: End::Bound, names: 5, .. }]), "{ends:?}");
}

#[test]
fn a_trip_ends_when_enough_neighbouring_names_are_well() {
    let (mut guard, now) = (guard(), Moment::START);
    trip_of_a_domain(&mut guard, now);
    let well = |guard: &mut Guard, n: u32| {
        guard.on_good(&key(&format!("well{n}.corp.example")), &[ip("192.0.2.1")], now + SECOND);
    };
    // The same name again adds nothing, nor do names of other domains.
    for n in 0..19 {
        well(&mut guard, n);
        well(&mut guard, 0);
        guard.on_good(&key(&format!("n{n}.other.example")), &[ip("192.0.2.1")], now + SECOND);
    }
    assert!(guard.tripped());
    well(&mut guard, 19);
    assert!(!guard.tripped());
    let ends: Vec<Event> = std::iter::from_fn(|| guard.poll_event()).collect();
    assert!(matches!(ends[..], [_, Event::TripEnded { end: End::Few, names: 5, .. }]), "{ends:?}");
    // Each name stays held on its own grace; the same denials do not start another trip.
    for n in 0..5 {
        assert!(guard.on_gone(
            &key(&format!("n{n}.corp.example")),
            cold(HOUR),
            Reason::Gone,
            ALONE,
            now + SECOND * 2
        ));
    }
    assert!(!guard.tripped());
    let later = now + MINUTE * 16;
    assert!(!guard.on_gone(&key("n0.corp.example"), cold(HOUR), Reason::Gone, ALONE, later));
}

#[test]
fn names_steady_for_months_are_held_for_at_most_six_hours() {
    let mut guard = guard();
    let start = Moment::START;
    for n in 0..5 {
        let known = hot(HOUR * 24 * 90);
        guard.on_gone(&key(&format!("n{n}.corp.example")), known, Reason::Gone, TWO, start);
    }
    let name = key("n0.corp.example");
    assert!(guard.stance(&name, 2, start + HOUR * 6 - SECOND).is_some());
    assert_eq!(guard.stance(&name, 2, start + HOUR * 6), None);
}

#[test]
fn an_operator_can_end_a_hold_at_once() {
    let mut guard = guard();
    let now = Moment::START;
    trip_of_a_domain(&mut guard, now);
    guard.on_gone(&key("www.other.test"), hot(HOUR * 100), Reason::Gone, ALONE, now);
    // One name of the trip.
    let accepted = guard.accept(&suffix("n0.corp.example"), now);
    assert_eq!((accepted.keys, accepted.trips), (vec![key("n0.corp.example")], 0));
    assert_eq!(guard.stance(&key("n0.corp.example"), 1, now), None);
    assert!(!guard.on_gone(&key("n0.corp.example"), cold(HOUR), Reason::Gone, ALONE, now));
    assert!(guard.stance(&key("n1.corp.example"), 1, now).is_some());
    // The domain.
    let accepted = guard.accept(&suffix("corp.example"), now);
    assert_eq!((accepted.keys.len(), accepted.trips), (4, 1));
    assert!(!guard.tripped() && guard.stance(&key("n1.corp.example"), 1, now).is_none());
    // Other domains are still held, and the accept applies for an hour.
    assert!(guard.stance(&key("www.other.test"), 1, now).is_some());
    let name = key("n2.corp.example");
    assert!(!guard.on_gone(&name, cold(HOUR), Reason::Gone, ALONE, now + PASS - SECOND));
    assert!(guard.on_gone(&name, cold(HOUR), Reason::Gone, ALONE, now + PASS));
}

#[test]
fn after_each_relapse_more_names_must_return_to_end_a_trip() {
    let mut guard = guard();
    let mut now = Moment::START;
    let mut needed = Vec::new();
    for _ in 0..5 {
        for n in 0..30 {
            guard.on_gone(&key(&format!("n{n}.corp.example")), cold(HOUR), Reason::Gone, ALONE, now);
        }
        now = now + SECOND;
        let mut back = 0;
        while guard.tripped() {
            guard.on_good(&key(&format!("n{back}.corp.example")), &[], now);
            back += 1;
        }
        needed.push(back);
    }
    assert_eq!(needed, [3, 6, 12, 24, 24]);
}

#[test]
fn an_upstream_that_denies_three_names_that_another_has_is_left_out() {
    let mut guard = guard();
    let now = Moment::START;
    let names = ["a.example", "a.example", "a.example", "b.example", "c.example"];
    let lies: Vec<_> = names.iter().map(|name| guard.on_contradicted(1, &key(name), now)).collect();
    assert_eq!(lies, [false, false, false, false, true]);
    // Spread over minutes, they are just differences between upstreams.
    let apart: Vec<_> = (0..5_u32)
        .map(|n| guard.on_contradicted(0, &key(&format!("n{n}.example")), now + SECOND * 40 * n))
        .collect();
    assert_eq!(apart, [false; 5]);
}

/// Moves a name; returns whether it is held.
fn move_one(
    guard: &mut Guard,
    name: &str,
    (from, to): (&str, &str),
    witnesses: Witnesses,
    now: Moment,
) -> bool {
    let displaced = Displaced { key: key(name), message: name.as_bytes().into(), learned: now - MINUTE };
    let (from, to) = ([ip(from)], [ip(to)]);
    let held = guard.on_moved(hot(HOUR), (&from, &to), displaced, witnesses, now);
    if !held {
        guard.on_good(&key(name), &to, now);
    }
    held
}

/// Five names at five addresses move to one new address.
fn convergence(guard: &mut Guard, domain: &str, now: Moment) -> Vec<bool> {
    (0..5)
        .map(|n| {
            let from = format!("192.0.2.{n}");
            move_one(guard, &format!("n{n}.{domain}"), (&from, "203.0.113.66"), ALONE, now)
        })
        .collect()
}

#[test]
fn many_names_that_move_to_one_new_address_are_restored_and_held() {
    let mut guard = guard();
    let now = Moment::START;
    assert_eq!(convergence(&mut guard, "corp.example", now), [false, false, false, false, true]);
    // Answers that were believed before the convergence was detected are restored unchanged.
    let back = guard.take_put_back();
    assert_eq!(back.len(), 5);
    assert!(back.iter().all(|old| old.learned == now - MINUTE));
    let address = ip("203.0.113.66");
    assert_eq!(
        guard.stance(&key("n0.corp.example"), 1, now).map(|stance| stance.why),
        Some(Why::Hold(Reason::Converged(address)))
    );
    // Any other known name that moves there is held too, in any domain; answers for unknown names
    // are passed on but cached only briefly.
    assert!(move_one(&mut guard, "www.other.test", ("198.51.100.7", "203.0.113.66"), ALONE, now));
    assert!(guard.distrusts_new(&key("never.seen.test"), &[address]));
    // A legitimate move to another address is believed and ends the hold of its name.
    assert!(!move_one(&mut guard, "n0.corp.example", ("192.0.2.0", "198.51.100.9"), ALONE, now));
    assert_eq!(guard.stance(&key("n0.corp.example"), 1, now), None);
    // Ten minutes later the names have their old addresses again.
    let later = now + MINUTE * 10;
    assert!(guard.tripped() && guard.stance(&key("n1.corp.example"), 1, later).is_some());
    for n in 1..4 {
        guard.on_good(&key(&format!("n{n}.corp.example")), &[ip(&format!("192.0.2.{n}"))], later);
    }
    assert!(!guard.tripped());
    // The same false address again counts as new.
    assert!(convergence(&mut guard, "again.example", later + MINUTE).contains(&true));
}

#[test]
fn a_convergence_is_believed_when_other_upstreams_confirm_it_or_its_bound_is_over() {
    let now = Moment::START;
    let mut confirmed = guard();
    convergence(&mut confirmed, "corp.example", now);
    let ask = |guard: &mut Guard, n: usize| {
        let (name, from) = (format!("n{n}.corp.example"), format!("192.0.2.{n}"));
        move_one(guard, &name, (&from, "203.0.113.66"), TWO, now)
    };
    assert_eq!([ask(&mut confirmed, 0), ask(&mut confirmed, 0), ask(&mut confirmed, 1)], [true; 3]);
    assert!(!ask(&mut confirmed, 2));
    assert!(!confirmed.tripped());
    assert_eq!(convergence(&mut confirmed, "more.example", now), [false; 5], "known by then");
    // With one upstream only time can tell: names that were good for an hour are held for an hour.
    let mut alone = guard();
    convergence(&mut alone, "corp.example", now);
    let name = "n4.corp.example";
    assert!(move_one(&mut alone, name, ("192.0.2.4", "203.0.113.66"), ALONE, now + MINUTE * 59));
    assert!(!move_one(&mut alone, name, ("192.0.2.4", "203.0.113.66"), ALONE, now + HOUR));
}

#[test]
fn a_renumbering_into_a_new_subnet_a_shared_address_or_a_known_one_is_no_convergence() {
    let now = Moment::START;
    let mut renumbered = guard();
    let mut shared = guard();
    let mut known = guard();
    known.on_good(&key("lb.example"), &[ip("203.0.113.66")], now - MINUTE * 2);
    for n in 0..50 {
        let name = format!("n{n}.corp.example");
        let (old, new) = (format!("192.0.2.{n}"), format!("203.0.113.{n}"));
        assert!(!move_one(&mut renumbered, &name, (&old, &new), ALONE, now));
        assert!(!move_one(&mut shared, &name, ("192.0.2.1", "203.0.113.66"), ALONE, now));
        assert!(!move_one(&mut known, &name, (&old, "203.0.113.66"), ALONE, now));
    }
    assert!(!renumbered.tripped() && !shared.tripped() && !known.tripped());
    assert_eq!(renumbered.counts.moved, 50);
}

#[test]
fn addresses_that_cannot_be_a_server_are_recognised() {
    for address in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "169.254.1.1", "255.255.255.255"] {
        assert!(leads_nowhere(ip(address)), "{address}");
    }
    assert!(["::", "::1", "fe80::1", "::ffff:127.0.0.1"].iter().all(|address| leads_nowhere(ip(address))));
    // Private addresses are common and legitimate.
    for address in
        ["10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "fd00::1", "192.0.2.1", "2001:db8::1"]
    {
        assert!(!leads_nowhere(ip(address)), "{address}");
    }
}

#[test]
fn losing_nine_of_ten_records_is_reported_and_two_of_three_is_not() {
    assert!(shrunk(10, 1) && shrunk(5, 1) && shrunk(10, 2));
    assert!(!shrunk(10, 3) && !shrunk(3, 1) && !shrunk(4, 0) && !shrunk(5, 5) && !shrunk(1, 10));
}

#[test]
fn names_that_do_not_fit_the_table_are_believed() {
    let mut guard = Guard::new(&[0], Rules { mass_vanish: false, ..Rules::default() });
    let now = Moment::START;
    for n in 0..HOLDS_MAX {
        assert!(guard.on_gone(&key(&format!("n{n}.example")), cold(HOUR), Reason::Gone, ALONE, now));
    }
    assert!(!guard.on_gone(&key("one.more.example"), cold(HOUR), Reason::Gone, ALONE, now));
    assert_eq!(guard.counts.not_held, 1);
    // Expired holds make room.
    assert!(guard.on_gone(&key("two.more.example"), cold(HOUR), Reason::Gone, ALONE, now + HOUR));
    assert_eq!(guard.holds(now + HOUR).count(), 1);
}

#[test]
fn a_name_is_below_itself_and_its_parents_compared_by_label() {
    let below = |name: &str, of: &str| is_below(&suffix(name), &suffix(of));
    assert!(below("www.corp.example", "corp.example") && below("corp.example", "corp.example"));
    assert!(below("www.example", ".") && below(".", "."));
    assert!(!below("notcorp.example", "corp.example") && !below("example", "corp.example"));
    assert!(!is_below(&[9, 1], &[0]), "not a terminated name");
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Gone { name: usize, hours: u64, hot: bool, two: bool, nowhere: bool },
    Good(usize),
    Moved { name: usize, to: u8, two: bool },
    Ask(usize),
    Accept(usize),
    Rules(bool, bool, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..12_usize;
    prop_oneof![
        4 => prop_oneof![1..5_u64, 30..600_u64, 3_000..20_000_u64].prop_map(Step::Pass),
        8 => (name.clone(), 0..100_u64, any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(name, hours, hot, two, nowhere)| Step::Gone { name, hours, hot, two, nowhere }),
        3 => name.clone().prop_map(Step::Good),
        6 => (name.clone(), 0..2_u8, any::<bool>()).prop_map(|(name, to, two)| Step::Moved { name, to, two }),
        6 => name.clone().prop_map(Step::Ask),
        1 => name.prop_map(Step::Accept),
        1 => (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(a, b, c)| Step::Rules(a, b, c)),
    ]
}

proptest! {
    /// Every hold ends: at its bound, on a good answer, on accept, or when its rule is switched
    /// off; and its end is always known in advance.
    #[test]
    fn every_hold_is_bounded_whatever_happens(steps in proptest::collection::vec(step(), 0..400)) {
        let mut guard = guard();
        let mut now = Moment::START;
        // When each name's hold began.
        let mut held: BTreeMap<usize, Moment> = BTreeMap::new();
        // The names that are held because they moved.
        let mut moved: BTreeSet<usize> = BTreeSet::new();
        let names: Vec<String> = (0..12).map(|n| format!("n{n}.{}.test", ["a", "b", "c"][n % 3])).collect();
        for step in steps {
            match step {
                Step::Pass(seconds) => now = now + SECOND * u32::try_from(seconds).unwrap(),
                Step::Gone { name, hours, hot, two, nowhere } => {
                    let known = Known { good_for: HOUR * u32::try_from(hours).unwrap(), hot, uses: 0 };
                    let reason = if nowhere { Reason::Nowhere } else { Reason::Gone };
                    let witnesses = if two { TWO } else { ALONE };
                    let cares = guard.rules().cares(reason);
                    // The hold for the move ended between queries; the vanish is a new reason.
                    if moved.contains(&name) && guard.hold(&key(&names[name]), now).is_none() {
                        held.remove(&name);
                    }
                    moved.remove(&name);
                    if guard.on_gone(&key(&names[name]), known, reason, witnesses, now) {
                        prop_assert!(cares, "held although switched off");
                        let since = *held.entry(name).or_insert(now);
                        prop_assert!(now.since(since) < guard.rules().bound(), "held for {:?}", now.since(since));
                    } else {
                        held.remove(&name);
                    }
                }
                Step::Good(name) => {
                    guard.on_good(&key(&names[name]), &[], now);
                    held.remove(&name);
                    prop_assert!(guard.hold(&key(&names[name]), now).is_none());
                }
                Step::Moved { name, to, two } => {
                    let from = format!("192.0.2.{name}");
                    let to = format!("203.0.113.{to}");
                    let witnesses = if two { TWO } else { ALONE };
                    // An earlier hold ended between queries; this is a new one.
                    if guard.hold(&key(&names[name]), now).is_none() {
                        held.remove(&name);
                    }
                    moved.insert(name);
                    if move_one(&mut guard, &names[name], (&from, &to), witnesses, now) {
                        prop_assert!(guard.rules().convergence);
                        let since = *held.entry(name).or_insert(now);
                        prop_assert!(now.since(since) < guard.rules().bound());
                    } else {
                        held.remove(&name);
                    }
                    for old in guard.take_put_back() {
                        let name = names.iter().position(|name| *key(name) == *old.key).unwrap();
                        held.entry(name).or_insert(now);
                        moved.insert(name);
                    }
                }
                Step::Ask(name) => {
                    let key = key(&names[name]);
                    if let Some(stance) = guard.stance(&key, 1, now) {
                        let rules = guard.rules().clone();
                        prop_assert!(rules.vanish || rules.mass_vanish || rules.convergence);
                        if stance.why == Why::Trip {
                            let trip = guard.trip_of(&key).unwrap();
                            prop_assert!(now < trip.until(&rules) && trip.until(&rules) <= trip.since + rules.bound());
                        } else {
                            let (hold, until) = guard.hold(&key, now).unwrap();
                            prop_assert!(now < until && until <= hold.since + rules.bound());
                        }
                    }
                }
                Step::Accept(name) => {
                    guard.accept(&suffix(&names[name]), now);
                    held.remove(&name);
                    prop_assert_eq!(guard.stance(&key(&names[name]), 1, now), None);
                }
                Step::Rules(vanish, mass_vanish, convergence) => {
                    guard.set_rules(Rules { vanish, mass_vanish, convergence, ..Rules::default() }, now);
                    held.retain(|name, _| guard.hold(&key(&names[*name]), now).is_some());
                }
            }
            while guard.poll_canary(now).is_some() {}
            while guard.poll_event().is_some() {}
            prop_assert!(guard.holds.len() <= HOLDS_MAX && guard.trips.len() <= 12);
        }
    }
}
