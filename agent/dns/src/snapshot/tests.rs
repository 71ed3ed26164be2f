//! Truncated, damaged, locked and oversized files: intact records are loaded, damage is reported,
//! and the cache continues.

use std::{fs, hash::RandomState, path::Path, time::Duration};

use dogwatch_dns_core::{
    message::{name, wire},
    moment::Moment,
    resolver::{Remembered, Resolver, Seeds},
    settings::Settings,
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    age::Anchor,
    record::{Answer, FILE_HEAD, file_head, push_anchor, push_answer},
    *,
};
use crate::clock;

const HOUR: Duration = Duration::from_hours(1);
const SALT: u32 = 0x1234_5678;
const LIMITS: Limits = Limits { bytes_max: 32 << 20 };

/// A message with the question `n<number>` A and nothing else.
fn message(number: u16) -> Vec<u8> {
    let label = format!("n{number}");
    let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
    message.push(u8::try_from(label.len()).unwrap());
    message.extend(label.as_bytes());
    message.extend([0, 0, 1, 0, 1]);
    message
}

fn anchor() -> Anchor {
    Anchor::of([1; 16], HOUR, 1_800_000_000_000)
}

/// A file with an anchor before every fifth answer, as the writer produces it, and the position of
/// each record.
fn file(numbers: std::ops::Range<u16>, uses: u16) -> (Vec<u8>, Vec<usize>) {
    let mut out = file_head(SALT).to_vec();
    let mut starts = Vec::new();
    for number in numbers {
        if number % 5 == 0 {
            starts.push(out.len());
            push_anchor(&mut out, SALT, &anchor());
        }
        starts.push(out.len());
        let message = message(number);
        let answer =
            Answer { boot: anchor().tag(), at: HOUR, uses, good_for_s: 0, flags: 0, message: &message };
        push_answer(&mut out, SALT, &answer);
    }
    (out, starts)
}

fn read_both(snapshot: &[u8], log: &[u8]) -> (Vec<Vec<u8>>, Loaded) {
    let mut messages = Vec::new();
    let loaded = load_bytes(snapshot, log, &anchor(), &mut |answer: &Remembered<'_>| {
        messages.push(answer.message.to_vec());
    });
    (messages, loaded)
}

fn load_dir(dir: &Path) -> (Vec<Vec<u8>>, Loaded) {
    let mut messages = Vec::new();
    let loaded =
        load(dir, &Anchor::now(), &mut |answer: &Remembered<'_>| messages.push(answer.message.to_vec()));
    (messages, loaded)
}

fn learn(dir: &Path, loaded: &Loaded, limits: Limits, numbers: std::ops::Range<u16>) {
    let writer = Writer::start(dir, loaded, limits, Lock::take(dir).ok());
    for number in numbers {
        writer.remember(&Learned {
            at: clock::since_boot(),
            dnssec_ok: false,
            checking_disabled: false,
            uses: 0,
            good_for: Duration::ZERO,
            message: &message(number),
        });
    }
    writer.finish();
}

fn words(loaded: &Loaded) -> String {
    loaded.reports.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_file_cut_at_any_byte_gives_every_record_before_the_cut_and_can_be_appended_to() {
    let (whole, starts) = file(0..20, 0);
    for cut in 0..=whole.len() {
        let complete = starts.iter().filter(|&&start| {
            let next = starts.iter().find(|&&other| other > start).copied().unwrap_or(whole.len());
            next <= cut && whole[start + 12] == 2
        });
        let (messages, loaded) = read_both(&[], &whole[..cut]);
        assert_eq!(messages.len(), complete.count(), "log cut at {cut}");
        let torn = cut > FILE_HEAD && !starts.contains(&cut) && cut != whole.len();
        assert_eq!(!loaded.reports.is_empty(), torn, "log cut at {cut}: {}", words(&loaded));
        let (of_snapshot, _) = read_both(&whole[..cut], &[]);
        assert_eq!(of_snapshot, messages, "snapshot cut at {cut}");
    }
    for cut in (0..whole.len()).step_by(97) {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(LOG), &whole[..cut]).unwrap();
        let (before, loaded) = load_dir(dir.path());
        learn(dir.path(), &loaded, LIMITS, 900..901);
        let (after, loaded) = load_dir(dir.path());
        assert_eq!((after.len(), words(&loaded)), (before.len() + 1, String::new()), "cut at {cut}");
    }
}

#[test]
fn damage_of_a_byte_or_sector_loses_only_the_records_there_and_is_reported() {
    let (whole, starts) = file(0..20, 0);
    for hole in [1, 16, 64] {
        for at in 0..whole.len() - hole {
            let mut damaged = whole.clone();
            damaged[at..at + hole].iter_mut().for_each(|byte| *byte ^= 0x55);
            let touched = (0..starts.len()).filter(|&index| {
                let end = starts.get(index + 1).copied().unwrap_or(whole.len());
                starts[index] < at + hole && at < end
            });
            let lost = touched.filter(|&index| whole[starts[index] + 12] == 2).count();
            let head_lost = at < 16 && at + hole > 16;
            for (snapshot, log) in [(&damaged[..], &[][..]), (&[], &damaged)] {
                let (messages, loaded) = read_both(snapshot, log);
                let expected = if head_lost { 0 } else { 20 - lost };
                assert_eq!(messages.len(), expected, "{hole} bytes at {at}: {}", words(&loaded));
                assert!(!loaded.reports.is_empty(), "{hole} bytes at {at} are not reported");
            }
        }
    }
}

/// Long files are read in pieces by several threads.
#[test]
fn a_long_file_is_read_in_order_and_damage_inside_loses_only_the_records_there() {
    let (whole, starts) = file(0..16_000, 0);
    assert!(whole.len() > 700 << 10, "three pieces");
    let expected = |lost: &[u16]| -> Vec<_> {
        (0..16_000).filter(|number| !lost.contains(number)).map(message).collect()
    };
    let (messages, loaded) = read_both(&whole, &[]);
    assert!(messages == expected(&[]), "all, in their order");
    assert_eq!(words(&loaded), "");
    let answers: Vec<_> = starts.iter().copied().filter(|&start| whole[start + 12] == 2).collect();
    // In the first, the second and the last piece; a checksum, a length, a mark.
    for (lost, at) in [(5, 30), (7_000, 5), (7_001, 1), (15_999, 13)] {
        let mut damaged = whole.clone();
        damaged[answers[usize::from(lost)] + at] ^= 0x11;
        let (messages, loaded) = read_both(&[], &damaged);
        assert!(messages == expected(&[lost]), "{lost}: {} messages", messages.len());
        let said = words(&loaded);
        let torn = usize::from(lost) == answers.len() - 1;
        let place = if torn { "incomplete write" } else { &format!("at {} (", answers[usize::from(lost)]) };
        assert!(said.contains(place), "{place:?} in {said}");
    }
}

#[test]
fn damage_is_reported_with_position_and_reason_repaired_and_kept_aside() {
    let dir = TempDir::new().unwrap();
    let (mut log, starts) = file(0..20, 0);
    log[starts[7] + 20] ^= 1;
    log[starts[13] + 5] ^= 0x7f;
    fs::write(dir.path().join(LOG), &log).unwrap();
    let (messages, loaded) = load_dir(dir.path());
    assert_eq!(messages.len(), 18);
    let said = words(&loaded);
    let place = format!("at {} (checksum)", starts[7]);
    for word in
        ["cache.log is damaged", "2 places", "about 2 records", &place, "(cut short)", "cache.log.damaged"]
    {
        assert!(said.contains(word), "{word:?} in {said}");
    }
    learn(dir.path(), &loaded, LIMITS, 900..901);
    assert!(fs::read(dir.path().join("cache.log.damaged")).unwrap().starts_with(&log));
    let (messages, loaded) = load_dir(dir.path());
    assert_eq!((messages.len(), words(&loaded)), (19, String::new()));
}

#[test]
fn unreadable_files_are_put_aside_and_never_overwritten() {
    for (bytes, word) in [
        (&b"DWDNS001 whatever an older one wrote, and more"[..], "another version"),
        (b"PNG, by mistake, and long enough for a head", "header of"),
    ] {
        for file in [SNAPSHOT, LOG] {
            let dir = TempDir::new().unwrap();
            fs::write(dir.path().join(file), bytes).unwrap();
            let (messages, loaded) = load_dir(dir.path());
            assert!(messages.is_empty() && words(&loaded).contains(word), "{}", words(&loaded));
            learn(dir.path(), &loaded, LIMITS, 0..3);
            assert_eq!(fs::read(dir.path().join(format!("{file}.unread"))).unwrap(), bytes);
            let (messages, loaded) = load_dir(dir.path());
            assert_eq!((messages.len(), words(&loaded)), (3, String::new()));
        }
    }
}

#[test]
fn a_directory_in_place_of_a_file_is_reported_and_the_cache_continues() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join(LOG)).unwrap();
    let (messages, loaded) = load_dir(dir.path());
    assert!(messages.is_empty() && words(&loaded).contains("cannot read cache.log"), "{}", words(&loaded));
    learn(dir.path(), &loaded, LIMITS, 0..3);
    assert_eq!(load_dir(dir.path()).0.len(), 3);

    // A directory cannot be created below a file: nothing is written, nothing hangs.
    let state = dir.path().join("cache.log/state");
    let (_, loaded) = load_dir(&state);
    learn(&state, &loaded, LIMITS, 0..3);
    assert!(load_dir(&state).0.is_empty());
}

#[test]
fn two_caches_in_one_directory_do_not_truncate_each_others_log() {
    let dir = TempDir::new().unwrap();
    let (_, loaded) = load_dir(dir.path());
    let first = Writer::start(dir.path(), &loaded, LIMITS, Lock::take(dir.path()).ok());
    first.remember(&learned(&message(1)));
    // The first write takes the lock.
    while first.counts().records() == 0 || !dir.path().join(LOG).exists() {
        std::thread::yield_now();
    }
    learn(dir.path(), &loaded, LIMITS, 2..5);
    first.finish();
    let (messages, loaded) = load_dir(dir.path());
    assert_eq!((messages, words(&loaded)), (vec![message(1)], String::new()));
}

/// D38: the second cache was started while the first one ran, and goes on when that has ended.
#[test]
fn d38_a_second_cache_is_refused_with_words_and_later_keeps_what_the_first_one_wrote() {
    let dir = TempDir::new().unwrap();
    learn(dir.path(), &Loaded::default(), LIMITS, 0..100);
    let lock = Lock::take(dir.path()).unwrap();
    let (_, loaded) = load_dir(dir.path());
    let first = Writer::start(dir.path(), &loaded, LIMITS, Some(lock));
    let refused = Lock::take(dir.path()).err().unwrap();
    let said = refused.to_string();
    assert!(said.starts_with("another dogwatch dns uses ") && said.contains("state_dir"), "{said}");
    let second = Writer::start(dir.path(), &loaded, LIMITS, None);
    second.remember(&learned(&message(1_000)));
    (100..600).for_each(|number| first.remember(&learned(&message(number))));
    first.finish();
    // The second one tries again every few seconds; when it ends, at once.
    second.remember(&learned(&message(1_001)));
    second.finish();
    let (messages, loaded) = load_dir(dir.path());
    assert_eq!(words(&loaded), "");
    let missing: Vec<u16> = (0..600).filter(|&number| !messages.contains(&message(number))).collect();
    assert_eq!(missing, Vec::<u16>::new());
    assert!(messages.contains(&message(1_001)));
}

/// D38: a merge that was killed leaves no file that keeps a full disk full.
#[test]
fn d38_what_a_killed_merge_left_behind_is_removed_at_the_start() {
    let dir = TempDir::new().unwrap();
    let left = dir.path().join(LEFTOVER);
    fs::write(&left, [0; 4_096]).unwrap();
    learn(dir.path(), &Loaded::default(), LIMITS, 0..3);
    assert!(!left.exists());
    assert_eq!(load_dir(dir.path()).0.len(), 3);
}

fn learned(message: &[u8]) -> Learned<'_> {
    Learned {
        at: clock::since_boot(),
        dnssec_ok: true,
        checking_disabled: false,
        uses: 2,
        good_for: HOUR,
        message,
    }
}

#[test]
fn flags_and_uses_are_restored_and_the_younger_answer_of_a_question_wins() {
    let dir = TempDir::new().unwrap();
    let (_, loaded) = load_dir(dir.path());
    let writer = Writer::start(dir.path(), &loaded, LIMITS, Lock::take(dir.path()).ok());
    let older = [message(1), vec![1]].concat();
    writer.remember(&Learned {
        at: clock::since_boot().saturating_sub(Duration::from_mins(1)),
        ..learned(&older)
    });
    writer.remember(&learned(&message(1)));
    writer.finish();
    let mut last = None;
    load(dir.path(), &Anchor::now(), &mut |answer: &Remembered<'_>| {
        last = Some((answer.message.to_vec(), answer.dnssec_ok, answer.checking_disabled, answer.uses));
    });
    assert_eq!(last, Some((message(1), true, false, 2)));
}

#[test]
fn flushed_answers_stay_flushed_until_they_are_cached_again() {
    let dir = TempDir::new().unwrap();
    let (_, loaded) = load_dir(dir.path());
    let writer = Writer::start(dir.path(), &loaded, LIMITS, Lock::take(dir.path()).ok());
    let ago = |seconds| clock::since_boot().saturating_sub(Duration::from_secs(seconds));
    let key = |number| [&message(number)[wire::HEADER_LEN..], &[1]].concat();
    for number in 0..4 {
        writer.remember(&Learned { at: ago(30), ..learned(&message(number)) });
    }
    writer.forget(ago(20), &key(1));
    writer.forget(ago(20), &key(2));
    // The same name without DO is another question.
    writer.forget(ago(20), &[&message(3)[wire::HEADER_LEN..], &[0]].concat());
    writer.remember(&Learned { at: ago(10), ..learned(&message(2)) });
    // All within one millisecond: the order of the records is the order of the events.
    let at = ago(5);
    for number in [4, 5] {
        writer.remember(&Learned { at, ..learned(&message(number)) });
        writer.forget(at, &key(number));
    }
    writer.remember(&Learned { at, ..learned(&message(4)) });
    writer.finish();
    for _ in 0..2 {
        let (messages, mut loaded) = load_dir(dir.path());
        assert_eq!(messages, [message(0), message(3), message(2), message(4)]);
        // Merging does not restore flushed answers.
        loaded.damaged.push(LOG);
        learn(dir.path(), &loaded, LIMITS, 0..0);
    }
}

#[test]
fn merging_keeps_the_youngest_of_each_question_and_over_the_limit_the_names_in_use() {
    let dir = TempDir::new().unwrap();
    let (snapshot, _) = file(0..50, 7);
    let (log, _) = file(40..400, 0);
    fs::write(dir.path().join(SNAPSHOT), &snapshot).unwrap();
    fs::write(dir.path().join(LOG), &log).unwrap();
    // Damage triggers a merge at once.
    let mut damaged = log.clone();
    damaged[FILE_HEAD + 20] ^= 1;
    fs::write(dir.path().join(LOG), &damaged).unwrap();
    let now = anchor();
    let loaded = load(dir.path(), &now, &mut |_: &Remembered<'_>| {});
    let limits = Limits { bytes_max: 100 * 49 };
    learn(dir.path(), &loaded, limits, 0..0);
    let bytes = fs::read(dir.path().join(SNAPSHOT)).unwrap();
    let (messages, loaded) = read_both(&bytes, &[]);
    assert_eq!(words(&loaded), "");
    assert!(
        bytes.len() <= limits.bytes_max + 200 && messages.len() > 80,
        "{} in {}",
        messages.len(),
        bytes.len()
    );
    // The answers repeated in the log have no uses there; the first forty do.
    assert!((0..40).all(|number| messages.contains(&message(number))));
    let mut distinct = messages.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), messages.len());
}

#[test]
fn forged_record_bytes_inside_a_message_are_never_read_as_a_record() {
    // The attacker knows the format but not the salt; the record around the forged bytes is
    // damaged.
    let mut forged = Vec::new();
    let evil = message(666);
    push_answer(
        &mut forged,
        0,
        &Answer { boot: anchor().tag(), at: HOUR, uses: 9, good_for_s: 0, flags: 0, message: &evil },
    );
    let outer = [message(1), forged].concat();
    let mut log = file_head(SALT).to_vec();
    push_anchor(&mut log, SALT, &anchor());
    let start = log.len();
    push_answer(
        &mut log,
        SALT,
        &Answer { boot: anchor().tag(), at: HOUR, uses: 0, good_for_s: 0, flags: 0, message: &outer },
    );
    push_anchor(&mut log, SALT, &anchor());
    log[start + 14] ^= 1;
    let (messages, loaded) = read_both(&[], &log);
    assert!(messages.is_empty(), "{messages:?}");
    assert!(matches!(loaded.reports[0].trouble, Trouble::Damaged { places: 1, .. }));
}

#[test]
fn a_file_full_of_false_record_starts_is_read_in_bounded_time() {
    // A "record" of maximum length starts every twelve bytes: without a limit, each would cost a
    // checksum over 64 KiB.
    let mut log = file_head(SALT).to_vec();
    for _ in 0..200_000 {
        log.extend(b"REC!\x00\xff\x00\x00\x00\x00\x00\x00");
    }
    assert!(read_both(&[], &log).0.is_empty());
}

proptest! {
    #[test]
    fn no_file_panics(snapshot: Vec<u8>, log: Vec<u8>) {
        read_both(&snapshot, &log);
        read_both(&[file_head(SALT).to_vec(), snapshot].concat(), &[file_head(SALT).to_vec(), log].concat());
    }
}

/// An answer for `n<number>` that says how often it was renewed.
fn restorable(number: u32, renewed: u8) -> Vec<u8> {
    let name = name::from_text(&format!("n{number}.z{}.example", number % 11)).unwrap();
    let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    message.extend(name);
    message.extend([0, 1, 0, 1, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 192, 0, 2, renewed]);
    message
}

/// A log with one answer (TTL one hour) cached ten minutes before `now`, or at `at`.
fn log_of_one(at: Duration, good_for_s: u32, message: &[u8]) -> Vec<u8> {
    let mut log = file_head(SALT).to_vec();
    push_anchor(&mut log, SALT, &anchor());
    push_answer(
        &mut log,
        SALT,
        &Answer { boot: anchor().tag(), at, uses: u16::MAX, good_for_s, flags: 0, message },
    );
    log
}

/// The cache after loading: how long its one answer is fresh, and how long ago it was received.
fn loaded_as(log: &[u8], read_at: &Anchor) -> (Duration, Duration) {
    let now = Moment::START;
    let mut resolver = Resolver::new(Settings::default(), Seeds::repeatable(1, RandomState::new()), now);
    load_bytes(&[], log, read_at, &mut Restoring::new(&mut resolver, now));
    let (_, entry) = resolver.cache().iter().next().expect("the answer is loaded");
    (now.until(entry.expires()), now.since(entry.learned()))
}

/// Issue 13, point 6: the wall clock steps by ten years across a restart or a reboot.
#[test]
fn a_wall_clock_ten_years_off_loses_no_answer_and_keeps_none_fresh() {
    const TEN_YEARS_MS: i64 = 10 * 365 * 24 * 3_600_000;
    let (ten, log) = (Duration::from_mins(10), log_of_one(HOUR, 0, &restorable(1, 0)));
    for step in [-TEN_YEARS_MS, 0, TEN_YEARS_MS] {
        for (boot, at) in [([1; 16], HOUR + ten), ([2; 16], ten)] {
            let read_at = Anchor::of(boot, at, anchor().wall_ms + 600_000 + step);
            let (fresh_for, age) = loaded_as(&log, &read_at);
            assert!(fresh_for + ten <= HOUR, "{step} {boot:?}: fresh for {fresh_for:?}");
            assert!(age >= ten && age <= HOUR * 25, "{step} {boot:?}: {age:?} old");
        }
    }
}

/// The same: whatever a file says, an answer is fresh for a day at most, and counted from now.
#[test]
fn times_that_a_file_claims_are_clamped_when_it_is_loaded() {
    let mut forever = restorable(1, 0);
    let ttl = forever.len() - 10;
    forever[ttl..ttl + 4].copy_from_slice(&0x7fff_ffff_u32.to_be_bytes());
    let day = HOUR * 24;
    for at in [HOUR, HOUR * 2, HOUR * 24 * 3_650, Duration::from_millis(u64::MAX >> 1)] {
        for good_for_s in [0, u32::MAX] {
            for read_at in [anchor(), Anchor::of([2; 16], HOUR, anchor().wall_ms + 1)] {
                let (fresh_for, age) = loaded_as(&log_of_one(at, good_for_s, &forever), &read_at);
                assert!(fresh_for <= day && age <= day * 2, "{at:?}: {fresh_for:?}, {age:?}");
            }
        }
    }
}

/// Several threads, each with a share of the cache. The core has a test without threads that
/// everything else is the same too.
#[test]
fn many_answers_put_back_by_threads_are_those_put_back_one_by_one() {
    let dir = TempDir::new().unwrap();
    let nothing = load(dir.path(), &Anchor::now(), &mut |_: &Remembered<'_>| {});
    let writer = Writer::start(dir.path(), &nothing, Limits { bytes_max: 1 << 30 }, None);
    let at = clock::since_boot().saturating_sub(Duration::from_secs(30));
    for (renewed, numbers) in [(0, 0..9_000), (1, 500..900), (2, 600..700)] {
        for number in numbers {
            writer.remember(&Learned {
                at: at + Duration::from_millis(u64::from(number) + 10_000 * u64::from(renewed)),
                dnssec_ok: number % 3 == 0,
                checking_disabled: false,
                uses: u16::try_from(number % 4).unwrap(),
                good_for: Duration::from_secs(number.into()),
                message: &restorable(number, renewed),
            });
        }
    }
    // Not an answer.
    let empty = [0, 0, 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0];
    for broken in [&[1, 2, 3][..], &empty, &restorable(9_500, 0)[..40]] {
        let (uses, good_for) = (1, Duration::ZERO);
        let (dnssec_ok, checking_disabled) = (false, false);
        writer.remember(&Learned { at, dnssec_ok, checking_disabled, uses, good_for, message: broken });
    }
    writer.finish();
    let now = Moment::START;
    let new = || Resolver::new(Settings::default(), Seeds::repeatable(1, RandomState::new()), now);
    let (mut at_once, mut one_by_one) = (new(), new());
    let anchor = Anchor::now();
    load(dir.path(), &anchor, &mut Restoring::new(&mut at_once, now));
    load(dir.path(), &anchor, &mut |answer: &Remembered<'_>| {
        one_by_one.restore(answer, now);
    });
    let known = |resolver: &Resolver| {
        let mut known: Vec<_> = resolver
            .cache()
            .iter()
            .map(|(_, entry)| {
                let facts = (entry.learned(), entry.past_uses(), entry.good_since(), entry.ttl());
                (entry.key().as_bytes().to_vec(), entry.kept().message.to_vec(), facts)
            })
            .collect();
        known.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        known
    };
    assert_eq!(at_once.cache().len(), 9_000);
    assert!(known(&at_once) == known(&one_by_one));
    assert_eq!(at_once.cache().bytes(), one_by_one.cache().bytes());
}
