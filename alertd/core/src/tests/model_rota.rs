//! The random worlds of `model.rs` with people: a rota with gaps, personal rules, and random
//! overrides, compared with a reference that computes from [`ROTA`] who is on call in each second.

use jiff::Timestamp;

use super::model::{
    Chaos, SECOND, a_recovery_goes_only_to_receivers_that_may_know_the_problem,
    every_duplicate_has_the_same_id_and_content, every_problem_is_notified_within, run, seeds,
    what_people_believe_is_true,
};
use crate::testing::World;

/// The world starts at 01:46:40 UTC and runs for about ten minutes. `desk` is the catch-all.
pub(super) const ROTA: &str = r#"
    [alertd]
    catch_all = "desk"
    [[route]]
    policy = "oncall"
    group_wait = "1s"
    group_interval = "20s"
    repeat_interval = "5m"
    [policy.oncall]
    repeat = 3
    repeat_every = "4m"
    step = [{ notify = ["primary"] }, { after = "3m", notify = ["boss", "primary"] }]
    [schedule.primary]
    time_zone = "America/St_Johns" # three and a half hours behind, two and a half in summer
    [[schedule.primary.layer]]
    users = ["ann"]
    hours = ["23:16-23:20", "23:22-23:26"]
    [[schedule.primary.layer]]
    users = ["ben"]
    hours = ["23:24-23:27"]
    [user.ann]
    rules = [{ notify = ["mail"] }, { after = "20s", notify = ["pager"] }]
    critical = [{ notify = ["pager"] }, { after = "30s", notify = ["mail"] }]
    [user.ben]
    rules = [{ notify = ["chat"] }]
    [user.boss]
    rules = [{ notify = ["mail"] }]
    [receiver.mail]
    fallback = "desk"
    rate = { burst = 3, every = "10s" }
    [receiver.mail.maildir]
    path = "/m"
    [receiver.desk.maildir]
    path = "/d"
    [receiver.pager.maildir]
    path = "/p"
    [receiver.chat.maildir]
    path = "/c"
"#;

/// Who is on call at that time.
fn on_call_at(world: &World, at: Timestamp) -> Option<&str> {
    let by_hand = world.store.overrides.values().rev().find(|one| one.from <= at && at < one.until);
    // Minutes after 01:00 UTC, which is 22:30 local time.
    let minute = at.as_second() / 60 % (24 * 60) - 60;
    match by_hand {
        Some(one) => one.user.as_deref(),
        None if (54..57).contains(&minute) => Some("ben"),
        None if (46..50).contains(&minute) || (52..56).contains(&minute) => Some("ann"),
        None => None,
    }
}

/// Every page went to whoever was on call at that moment, or to the catch-all if nobody was.
fn whoever_is_on_call_is_paged(world: &World, seed: u64) -> usize {
    let mut pages = 0;
    for entry in &world.history {
        let told = match entry.kind.as_str() {
            "paged" => entry.text.strip_suffix(", on call in primary").map(Some),
            "nobody_on_call" => Some(None),
            _ => None,
        };
        if let Some(user) = told {
            assert_eq!(user, on_call_at(world, entry.at), "seed {seed}: at {}", entry.at);
            pages += 1;
        }
    }
    pages
}

#[test]
fn whoever_is_on_call_is_paged_and_knows_the_truth() {
    let chaos = Chaos {
        acks: true,
        silences: true,
        moods: true,
        crashes: true,
        suppression: false,
        rota: true,
        limits: false,
        slow: false,
    };
    let mut pages = 0;
    for seed in seeds(40) {
        let world = run(seed, &chaos);
        every_duplicate_has_the_same_id_and_content(&world, seed);
        a_recovery_goes_only_to_receivers_that_may_know_the_problem(&world, seed);
        what_people_believe_is_true(&world, seed);
        pages += whoever_is_on_call_is_paged(&world, seed);
    }
    assert!(pages > 0, "nobody was paged");
}

#[test]
fn even_with_nobody_on_call_every_problem_is_notified_within_the_policys_time() {
    let bound = 60 * SECOND;
    let chaos = Chaos {
        acks: false,
        silences: false,
        moods: false,
        crashes: true,
        suppression: false,
        rota: true,
        limits: false,
        slow: false,
    };
    for seed in seeds(30) {
        let mut world = World::new(ROTA, seed);
        every_problem_is_notified_within(bound, &mut world, &chaos, seed, &|_, _| false);
    }
}
