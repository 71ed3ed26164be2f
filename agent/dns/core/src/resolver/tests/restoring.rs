//! Restoring a snapshot.

use super::*;
use crate::{cache::Bounds, workers::Workers, zones::origin::Origin};

/// An answer for `n<number>` that says how often it was renewed.
fn restorable(number: u32, renewed: u8) -> Vec<u8> {
    let name = name::from_text(&format!("n{number}.z{}.example", number % 11)).unwrap();
    let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    message.extend(name);
    message.extend([0, 1, 0, 1, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 192, 0, 2, renewed]);
    message
}

struct Answers(Vec<(Vec<u8>, u32, Duration)>);

impl RememberedAnswers for Answers {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, place: usize) -> Option<Remembered<'_>> {
        let (message, number, age) = self.0.get(place)?;
        Some(Remembered {
            dnssec_ok: number % 3 == 0,
            uses: u16::try_from(number % 4).unwrap(),
            good_for: Duration::from_secs((*number).into()),
            age: *age,
            ..Remembered::new(message)
        })
    }
}

/// Runs the pieces one by one, last first.
struct LastFirst(usize);

impl Workers for LastFirst {
    fn count(&self) -> usize {
        self.0
    }

    fn each<T: std::marker::Send>(&self, _: usize, pieces: &mut [T], work: impl Fn(&mut T) + Sync) {
        pieces.iter_mut().rev().for_each(work);
    }
}

/// A large snapshot is restored share by share.
#[test]
fn restoring_many_answers_at_once_equals_restoring_them_one_by_one() {
    let mut answers = Vec::new();
    for (renewed, numbers) in [(0, 0..9_000), (1, 500..900), (2, 600..700)] {
        for number in numbers {
            let age = Duration::from_secs(30)
                .saturating_sub(Duration::from_millis(u64::from(number) + 10_000 * u64::from(renewed)));
            answers.push((restorable(number, renewed), number, age));
        }
    }
    // Not an answer.
    let empty = [0, 0, 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0];
    for broken in [&[1, 2, 3][..], &empty, &restorable(9_500, 0)[..40]] {
        answers.push((broken.to_vec(), 1, Duration::ZERO));
    }
    let answers = Answers(answers);
    let settings = |bytes_max| Settings {
        bounds: Bounds { bytes_max, ..Bounds::default() },
        upstreams: vec![SocketAddr::from(([192, 0, 2, 1], 53)).into()],
        ..Settings::default()
    };
    let now = Moment::START;
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
    let canaries = |resolver: &mut Resolver| {
        let zone = resolver.zones.get_mut(ZoneId::ROOT);
        (0..20).map(|_| zone.next_canary()).collect::<Vec<_>>()
    };
    for shares in [1, 3, 4] {
        let mut at_once = Resolver::new(settings(32 << 20), seeds(), now);
        let mut one_by_one = Resolver::new(settings(32 << 20), seeds(), now);
        at_once.restore_all(&answers, &LastFirst(shares), now);
        for place in 0..answers.len() {
            one_by_one.restore(&answers.get(place).unwrap(), now);
        }
        assert_eq!(at_once.cache().len(), 9_000);
        // The eviction order under a smaller cap is the same too.
        for bytes_max in [32 << 20, 1 << 20, 700 << 10, 500 << 10, 1 << 10] {
            at_once.set(settings(bytes_max), now);
            one_by_one.set(settings(bytes_max), now);
            assert!(known(&at_once) == known(&one_by_one), "{bytes_max}: {}", at_once.cache().len());
            assert_eq!(at_once.cache().bytes(), one_by_one.cache().bytes());
        }
        assert_eq!(canaries(&mut at_once), canaries(&mut one_by_one));
    }
}

#[test]
fn a_restart_knows_each_zones_normal_query_rate() {
    let now = Moment::START;
    let corp = ZoneSettings {
        suffix: name::from_text("corp.example").unwrap().into(),
        upstreams: vec![Endpoint::parse("192.0.2.2", None).unwrap()],
        max_stale: Duration::from_hours(1),
        serve_stale: true,
        guard: guard::Rules::default(),
        rebinding: guard::Rebinding::default(),
    };
    let mut world = World::with_settings(1, Settings { zones: vec![corp], ..Settings::default() });
    let bytes = br#"[{"suffix":".","upstreams":["192.0.2.1:53"],"per_second":40.5},
        {"suffix":"gone.example","upstreams":["192.0.2.9:53"],"per_second":7},
        {"suffix":"corp.example","upstreams":["192.0.2.2:53"],"per_second":2}]"#;
    world.resolver.restore_origin(&Origin::from_bytes(bytes).unwrap(), now);
    let rates: Vec<_> = world.resolver.zones().iter().map(|zone| zone.baseline.remembered()).collect();
    assert_eq!(rates, [Some(40.5), Some(2.0)]);
}
