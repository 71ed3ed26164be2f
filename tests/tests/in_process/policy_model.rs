//! The cache's policy against its reference on many random histories; see
//! [`dogwatch_tests::policy_model`].

use dogwatch_tests::policy_model::{Seen, Step, play};
use proptest::{collection::vec, prelude::*, test_runner::Config};

proptest! {
    // `PROPTEST_CASES=100000 cargo test -p dogwatch-tests --test in_process policy_model` looks
    // harder; CI's share is seconds.
    #![proptest_config(Config {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(250),
        max_shrink_iters: 20_000,
        // A find becomes a named test, not a number in a file.
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn whatever_happens_nobody_is_told_what_upstream_never_said_and_what_is_known_is_answered(
        seed in 0..32_u64,
        steps in vec(any::<[u8; 4]>().prop_map(Step::from), 1..120),
    ) {
        play(seed, &steps);
    }
}

/// A model that never gets to an outage, an eviction or a late answer proves nothing of them.
#[test]
fn the_stories_come_to_what_they_are_about() {
    let mut random = fastrand::Rng::with_seed(4_711);
    let mut seen = Seen::default();
    for seed in 0..300 {
        let steps: Vec<_> = (0..100).map(|_| Step::from(random.u32(..).to_le_bytes())).collect();
        seen.add(&play(seed, &steps));
    }
    println!("{seen:?}");
    let Seen { fresh, stale, held, failures, truncated, learned_late, .. } = seen;
    let Seen { ignored_twice, evicted, reloads, restored, outages, .. } = seen;
    for (count, least) in [
        (fresh, 1_000),
        (stale, 300),
        (held, 10),
        (failures, 100),
        (truncated, 10),
        (learned_late, 20),
        (ignored_twice, 100),
        (evicted, 10),
        (reloads, 500),
        (restored, 500),
        (outages, 100),
    ] {
        assert!(count >= least, "{seen:?}");
    }
}
