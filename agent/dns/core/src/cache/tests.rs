use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::message::{
    name::{Key, from_text, read_key, to_text},
    wire::{Question, Verdict, read_answer},
};

fn key(name: &str) -> Key {
    Key::new(&Question { name: &from_text(name).unwrap(), kind: 1, class: 1 }, false, false)
}

/// An answer to `key` with one A record.
fn message(key: &Key, ttl_s: u32) -> Vec<u8> {
    let mut message = vec![0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    message.extend(&key[..key.len() - 1]);
    message.extend([0xc0, 12, 0, 1, 0, 1]);
    message.extend(ttl_s.to_be_bytes());
    message.extend([0, 4, 192, 0, 2, 1]);
    message
}

fn cache(bytes_max: usize) -> Cache {
    #[expect(clippy::disallowed_methods, reason = "a test is its own shell")]
    let hash_keys = RandomState::new();
    Cache::new(Bounds { bytes_max, ..Bounds::default() }, hash_keys)
}

fn insert(cache: &mut Cache, name: &str, ttl_s: u32, verdict: Verdict) -> Option<Slot> {
    let key = key(name);
    let message = message(&key, ttl_s);
    let (question, ..) = read_key(&key).unwrap();
    let answer = Answer { verdict, ..read_answer(&message, &question).unwrap() };
    cache.insert(&key, &message, &answer, Moment::START)
}

fn insert_plain(cache: &mut Cache, name: &str) -> Slot {
    insert(cache, name, 60, Verdict::Positive).unwrap()
}

fn touch(cache: &Cache, name: &str) {
    let slot = cache.find(&key(name)).unwrap_or_else(|| panic!("{name} is gone"));
    cache.get(slot).unwrap().touch(Moment::START);
}

/// Like a query for a name that was never asked for.
fn miss(cache: &mut Cache, name: &str, verdict: Verdict) {
    insert(cache, name, 60, verdict).unwrap();
    touch(cache, name);
}

#[test]
fn lifetimes_are_bounded_and_uncacheable_answers_are_not_kept() {
    let mut cache = cache(1 << 20);
    let slot = insert(&mut cache, "long", 7 * 86_400, Verdict::Positive).unwrap();
    assert_eq!(cache.get(slot).unwrap().ttl(), Duration::from_hours(24));
    let slot = insert(&mut cache, "no", 86_400, Verdict::NxDomain).unwrap();
    assert_eq!(cache.get(slot).unwrap().ttl(), Duration::from_mins(15));
    let unkept =
        Answer { verdict: Verdict::NoData, ttl_s: None, len: 40, additionals: 0, ttl_offsets: vec![] };
    assert_eq!(cache.insert(&key("none"), &[0; 40], &unkept, Moment::START), None);
}

#[test]
fn a_key_is_found_whatever_case_the_upstream_used() {
    let mut cache = cache(1 << 20);
    for (dnssec_ok, checking_disabled) in [(false, false), (true, false), (false, true)] {
        let name = from_text("www.example.com").unwrap();
        let key = Key::new(&Question { name: &name, kind: 28, class: 1 }, dnssec_ok, checking_disabled);
        let mut message = message(&key, 60);
        message[14] = b'W';
        let answer = Answer {
            verdict: Verdict::Positive,
            ttl_s: Some(60),
            len: message.len(),
            additionals: 0,
            ttl_offsets: vec![],
        };
        let slot = cache.insert(&key, &message, &answer, Moment::START).unwrap();
        assert_eq!(&*cache.get(slot).unwrap().key(), &*key);
        assert_eq!(cache.find(&key), Some(slot));
    }
    assert_eq!(cache.len(), 3, "DO and CD are never mixed");
    assert_eq!(cache.find(&key("www.example.com")), None, "another type");
}

/// A refreshed entry keeps its place in the queue. Found by the policy model test.
#[test]
fn a_refreshed_answer_that_grew_makes_room_even_when_it_is_next_to_be_evicted() {
    let mut cache = cache(2_000);
    let names: Vec<String> = (0..12).map(|number| format!("n{number}.test")).collect();
    for name in &names {
        insert_plain(&mut cache, name);
    }
    let oldest = names.iter().find(|name| cache.find(&key(name)).is_some()).unwrap();
    let grown = key(oldest);
    let mut message = message(&grown, 60);
    message[7] = 20;
    for last in 1..20 {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
    }
    let (question, ..) = read_key(&grown).unwrap();
    let answer = read_answer(&message, &question).unwrap();
    assert!(cache.insert(&grown, &message, &answer, Moment::START).is_some());
    assert!(cache.bytes() <= 2_000, "{} bytes", cache.bytes());
    assert!(cache.find(&grown).is_some(), "it must not evict itself");
}

#[test]
fn a_name_with_one_address_costs_less_than_150_bytes() {
    let mut cache = cache(1 << 30);
    let names = 20_000;
    for number in 0..names {
        insert_plain(&mut cache, &format!("n{number}.t3600.test"));
    }
    let each = cache.bytes() / names;
    assert!(each < 150, "{each} bytes");
}

#[test]
fn an_outage_does_not_make_a_name_look_busier() {
    let mut cache = cache(1 << 20);
    let past_uses = |cache: &mut Cache, lived_s: u64, uses: u32| {
        let key = key("a.test");
        let message = message(&key, 60);
        let answer = read_answer(&message, &read_key(&key).unwrap().0).unwrap();
        cache.insert(&key, &message, &answer, Moment::START);
        let slot = cache.find(&key).unwrap();
        cache.edit(slot, |entry| entry.resume(0, Duration::ZERO));
        (0..uses).for_each(|_| touch(cache, "a.test"));
        cache.insert(&key, &message, &answer, Moment::START + Duration::from_secs(lived_s));
        let past_uses = cache.get(slot).unwrap().past_uses();
        cache.remove(slot);
        past_uses
    };
    assert_eq!(past_uses(&mut cache, 60, 100), 100);
    assert_eq!(past_uses(&mut cache, 30, 100), 100);
    assert_eq!(past_uses(&mut cache, 6_000, 100), 1);
    assert_eq!(past_uses(&mut cache, 6_000, 1), 1, "asked for, if rarely");
    assert_eq!(past_uses(&mut cache, 6_000, 0), 0);
}

#[test]
fn a_flood_of_names_asked_for_once_does_not_push_out_names_in_use() {
    for verdict in [Verdict::Positive, Verdict::NxDomain] {
        let mut cache = cache(200_000);
        let used: Vec<String> = (0..500).map(|number| format!("u{number}.example")).collect();
        for name in &used {
            miss(&mut cache, name, Verdict::Positive);
            touch(&cache, name);
        }
        for number in 0..30_000 {
            miss(&mut cache, &format!("x{number}.example"), verdict);
            // Asked for rarely: one-time names worth many times the cache's size come in between.
            if number % 10_000 == 9_999 {
                for name in &used {
                    touch(&cache, name);
                }
            }
        }
        assert!(cache.evicted > 25_000 && cache.bytes() <= 200_000);
    }
}

#[test]
fn names_asked_for_twice_do_not_push_out_names_in_constant_use() {
    let mut cache = cache(200_000);
    let used: Vec<String> = (0..500).map(|number| format!("u{number}.example")).collect();
    for name in &used {
        insert_plain(&mut cache, name);
    }
    for number in 0..30_000 {
        let stranger = format!("x{number}.example");
        miss(&mut cache, &stranger, Verdict::NxDomain);
        touch(&cache, &stranger);
        if number % 100 == 0 {
            for name in &used {
                touch(&cache, name);
            }
        }
    }
    assert!(cache.evicted > 25_000);
}

#[test]
fn pinned_entries_stay_and_take_at_most_half_of_the_cap() {
    let mut cache = cache(40_000);
    let mut pinned = Vec::new();
    for number in 0..1_000 {
        let name = format!("p{number}.example");
        let slot = insert_plain(&mut cache, &name);
        if cache.pin(slot, true) {
            pinned.push(name);
        }
    }
    assert!(cache.pinned_bytes() <= 20_000 && cache.pinned_bytes() > 19_000);
    for number in 0..5_000 {
        insert_plain(&mut cache, &format!("x{number}.example"));
    }
    assert!(pinned.iter().all(|name| cache.find(&key(name)).is_some()));
    for name in &pinned {
        // A refresh keeps the pin.
        let slot = insert_plain(&mut cache, name);
        assert!(cache.get(slot).unwrap().pinned());
        assert!(cache.pin(slot, false));
    }
    assert_eq!(cache.pinned_bytes(), 0);
    for number in 0..5_000 {
        insert_plain(&mut cache, &format!("y{number}.example"));
    }
    assert!(pinned.iter().all(|name| cache.find(&key(name)).is_none()), "unpinned entries can be evicted");
}

#[test]
fn good_since_survives_refreshes_and_ends_with_a_negative_answer() {
    let mut cache = cache(1 << 20);
    let slot = insert_plain(&mut cache, "www.example");
    let later = Moment::START + Duration::from_hours(5);
    let key = key("www.example");
    let message = message(&key, 60);
    let (question, ..) = read_key(&key).unwrap();
    let good = read_answer(&message, &question).unwrap();
    cache.insert(&key, &message, &good, later);
    assert_eq!(cache.get(slot).unwrap().good_since(), Some(Moment::START));
    cache.insert(
        &key,
        &message,
        &Answer { verdict: Verdict::NxDomain, ..read_answer(&message, &question).unwrap() },
        later,
    );
    assert_eq!(cache.get(slot).unwrap().good_since(), None);
    cache.insert(&key, &message, &good, later);
    assert_eq!(cache.get(slot).unwrap().good_since(), Some(later));
}

#[test]
fn a_reader_never_waits_for_the_writer() {
    let mut cache = cache(1 << 20);
    let slot = insert_plain(&mut cache, "www.example");
    let table = cache.table();
    assert!(table.try_find(&key("www.example")).unwrap().is_some());
    assert!(table.try_find(&key("ftp.example")).unwrap().is_none());
    // The writer is working in that shard.
    let held = table.hold_shard_of(slot);
    assert!(matches!(table.try_find(&key("www.example")), Err(Busy)));
    drop(held);
}

proptest! {
    /// After any sequence of insert, remove, pin and touch, a lookup finds the last insert and the
    /// byte counts add up.
    #[test]
    fn it_agrees_with_a_plain_map(steps in proptest::collection::vec((0..6_u8, 0..40_u8, 1..60_u32), 0..300)) {
        let mut cache = cache(4_000);
        let mut model: BTreeMap<String, u32> = BTreeMap::new();
        for (step, name, ttl) in steps {
            let name = format!("n{name}.example");
            let found = cache.find(&key(&name));
            match (step, found) {
                (0..=2, _) => {
                    prop_assert!(insert(&mut cache, &name, ttl, Verdict::Positive).is_some());
                    model.insert(name, ttl);
                }
                (3, Some(slot)) => {
                    prop_assert!(cache.remove(slot));
                    model.remove(&name);
                }
                (4, Some(slot)) => {
cache.pin(slot, ttl % 2 == 0);
}
                (_, Some(slot)) => cache.get(slot).unwrap().touch(Moment::START),
                (_, None) => {}
            }
            let mut pinned_bytes = 0;
            for (slot, entry) in cache.iter() {
                let name = to_text(read_key(&entry.key()).unwrap().0.name);
                let expected = model.get(&name).map(|&ttl| Duration::from_secs(u64::from(ttl)));
                prop_assert_eq!(Some(entry.ttl()), expected);
                prop_assert_eq!(cache.find(&entry.key()), Some(slot));
                pinned_bytes += if entry.pinned() { entry.cost() } else { 0 };
            }
            prop_assert_eq!(cache.bytes(), cache.iter().map(|(_, entry)| entry.cost()).sum::<usize>());
            prop_assert_eq!(cache.pinned_bytes(), pinned_bytes);
            prop_assert_eq!(cache.len(), cache.iter().count());
            prop_assert!(cache.bytes() <= 4_000);
        }
    }
}
