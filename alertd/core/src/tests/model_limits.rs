//! The random worlds of `model.rs` with three kinds of rate limits: per receiver, per user, and for
//! all together. The reference counts: in any time range, at most the burst plus one per interval,
//! less the reserve for notifications that are not urgent.

use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use dogwatch_wire::State;
use jiff::Timestamp;

use super::model::{
    Chaos, SECOND, a_recovery_goes_only_to_receivers_that_may_know_the_problem,
    every_duplicate_has_the_same_id_and_content, every_problem_is_notified_within, run, seeds,
    what_people_believe_is_true,
};
use crate::{
    rules::{
        moment::between,
        notification::{Kind, Notification, NotifiedAlert},
        ratelimit::Rate,
    },
    testing::World,
};

/// `mail` and `pager` belong to ann; `chat` belongs to nobody, because two users name it.
pub(super) const LIMITS: &str = r#"
    [alertd]
    rate = { burst = 5, every = "4s", reserve = 2 }
    catch_all = "desk"
    [[route]]
    policy = "oncall"
    group_wait = "1s"
    group_interval = "20s"
    repeat_interval = "5m"
    group_by = ["host", "service"]
    [policy.oncall]
    repeat = 3
    repeat_every = "4m"
    step = [{ notify = ["ann"] }, { after = "1m", notify = ["ben", "desk"] }]
    [user.ann]
    rules = [{ notify = ["mail", "chat"] }, { after = "20s", notify = ["pager"] }]
    critical = [{ notify = ["pager", "mail"] }]
    rate = { burst = 4, every = "8s", reserve = 1 }
    [user.ben]
    rules = [{ notify = ["chat"] }]
    rate = { burst = 1, every = "1h" }
    [receiver.mail]
    fallback = "desk"
    rate = { burst = 3, every = "10s", reserve = 2 }
    [receiver.mail.maildir]
    path = "/m"
    [receiver.desk.maildir]
    path = "/d"
    [receiver.pager]
    rate = { burst = 2, every = "5s", reserve = 0 }
    [receiver.pager.maildir]
    path = "/p"
    [receiver.chat.maildir]
    path = "/c"
"#;

/// The limits in [`LIMITS`]: burst, every, reserve, and whose notifications count.
const BUDGETS: [(u32, u64, u32, &[&str]); 6] = [
    (3, 10, 2, &["mail"]),
    (2, 5, 0, &["pager"]),
    (10, 30, 3, &["desk"]),
    (10, 30, 3, &["chat"]),
    (4, 8, 1, &["mail", "pager"]),
    (5, 4, 2, &["mail", "pager", "desk", "chat"]),
];

/// A digest is urgent if any of its notifications is. This uses its lines, because the rows it
/// replaces may change later.
fn is_urgent(told: &Notification) -> bool {
    let is_word = |kind| matches!(kind, Kind::Problem | Kind::Update | Kind::Reminder);
    let is_critical = |alert: &NotifiedAlert| alert.state == State::Critical && !alert.flapping;
    let alone = is_word(told.kind) && told.firing.iter().any(is_critical);
    alone || told.digest.iter().any(|line| is_word(line.kind) && line.title.starts_with("CRITICAL "))
}

/// First attempts only, because retries do not count.
fn first_tries(world: &World, receivers: &[&str]) -> Vec<(Timestamp, bool)> {
    let mut seen = BTreeSet::new();
    let all = world.attempted.iter().zip(&world.attempted_at);
    let first = all.filter(|(told, _)| seen.insert(told.id.clone()));
    first
        .filter(|(told, _)| receivers.contains(&told.receiver.as_str()))
        .map(|(told, at)| (*at, is_urgent(told)))
        .collect()
}

/// Returns how many notifications were sent exactly at the limit, because a test that never reaches
/// it proves nothing.
pub(super) fn no_more_than(rate: Rate, tries: &[(Timestamp, bool)], case: &str) -> usize {
    let mut at_the_limit = 0;
    for (last, (now, urgent)) in tries.iter().enumerate() {
        let most = rate.burst.get() - if *urgent { 0 } else { rate.reserve };
        for (first, (then, _)) in tries[..=last].iter().enumerate() {
            let sent = last - first + 1;
            let allowed = u128::from(most) + between(*then, *now).as_micros() / rate.every.as_micros();
            assert!(
                sent as u128 <= allowed,
                "{case}: {sent} sent from {then} until {now}, {allowed} allowed"
            );
            at_the_limit += usize::from(sent as u128 == allowed && first < last);
        }
    }
    at_the_limit
}

fn limits_are_held(world: &World, seed: u64) -> usize {
    BUDGETS
        .iter()
        .map(|&(burst, every_s, reserve, receivers)| {
            let rate =
                Rate { burst: NonZeroU32::new(burst).unwrap(), every: Duration::from_secs(every_s), reserve };
            no_more_than(rate, &first_tries(world, receivers), &format!("seed {seed}, {receivers:?}"))
        })
        .sum()
}

#[test]
fn the_limits_of_receivers_users_and_all_survive_crashes_and_nothing_is_lost() {
    let chaos = Chaos {
        acks: true,
        silences: true,
        moods: true,
        crashes: true,
        suppression: false,
        rota: false,
        limits: true,
        slow: false,
    };
    let (mut at_the_limit, mut digests) = (0, 0);
    for seed in seeds(60) {
        let world = run(seed, &chaos);
        every_duplicate_has_the_same_id_and_content(&world, seed);
        a_recovery_goes_only_to_receivers_that_may_know_the_problem(&world, seed);
        what_people_believe_is_true(&world, seed);
        at_the_limit += limits_are_held(&world, seed);
        digests += world.heard.iter().filter(|heard| heard.notification.kind == Kind::Digest).count();
    }
    assert!(at_the_limit > 100 && digests > 20, "{at_the_limit} at the limit, {digests} digests");
}

#[test]
fn however_tight_the_limits_every_problem_is_notified_within_the_policys_time() {
    let chaos = Chaos {
        acks: false,
        silences: false,
        moods: false,
        crashes: true,
        suppression: false,
        rota: false,
        limits: true,
        slow: false,
    };
    for seed in seeds(30) {
        let mut world = World::new(LIMITS, seed);
        every_problem_is_notified_within(60 * SECOND, &mut world, &chaos, seed, &|_, _| false);
        limits_are_held(&world, seed);
    }
}
