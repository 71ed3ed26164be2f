//! The outage drills: what the cache promises, shown over many seeds in virtual time.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{
    dns_world::{Plan, World},
    upstream::Mood,
};

/// How the upstream of the OpenAI drill is ill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Illness {
    Blackhole,
    Servfail,
}

impl Illness {
    pub const ALL: [Self; 2] = [Self::Blackhole, Self::Servfail];

    fn mood(self) -> Mood {
        match self {
            Self::Blackhole => Mood::Silent,
            Self::Servfail => Mood::Servfail,
        }
    }
}

/// How long before, in and after the outage.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub warm_up: Duration,
    /// Of which normal load is measured.
    pub normal: Duration,
    pub outage: Duration,
    pub after: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            warm_up: Duration::from_mins(20),
            normal: Duration::from_mins(20),
            // 11 December 2024, 15:16 to 19:38 PST, rounded up.
            outage: Duration::from_mins(270),
            after: Duration::from_mins(10),
        }
    }
}

/// One run's figures.
#[derive(Debug, Clone, Serialize)]
pub struct Score {
    pub seed: u64,
    pub illness: Illness,
    pub names_seen: usize,
    /// Queries in the outage for names seen before, and those not answered right.
    pub known_queries: u64,
    pub wrong: u64,
    /// Queries in the ten minutes after it, the same.
    pub wrong_after: u64,
    /// Clients that waited during the outage for a name seen before, and the longest wait.
    pub waited: u64,
    pub longest_wait_ms: u64,
    /// From upstream's death until `dns-upstream` is CRITICAL; `None`: never.
    pub detected_ms: Option<u64>,
    /// From its return until the check result is no longer CRITICAL.
    pub cleared_ms: Option<u64>,
    /// Upstream queries a minute when all is well.
    pub normal_per_minute: f64,
    /// The same during the outage and in the first minute after it, as multiples.
    pub outage_load: f64,
    pub first_minute_load: f64,
}

impl Score {
    pub fn right_percent(&self) -> f64 {
        percent_right(self.wrong, self.known_queries)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn percent_right(wrong: u64, all: u64) -> f64 {
    100.0 * (1.0 - wrong as f64 / all.max(1) as f64)
}

/// The night of OpenAI, 11 December 2024: the upstream is gone for four and a half hours.
pub fn openai(seed: u64, illness: Illness, times: Times, plan: Plan) -> Score {
    let mut world = World::new(seed, plan);
    world.run_for(times.warm_up);
    world.take_tally();
    world.run_for(times.normal);
    let normal = per_minute(world.take_tally().upstream_queries, times.normal);
    world.critical_at = None;
    world.clear_at = None;
    let names_seen = world.seen();

    let died = world.now;
    world.mood = illness.mood();
    world.run_for(times.outage);
    let outage = world.take_tally();
    let detected = world.critical_at;

    let returned = world.now;
    world.clear_at = None;
    world.mood = Mood::Right;
    world.run_for(Duration::from_mins(1));
    let first_minute = world.take_tally();
    world.run_for(times.after.saturating_sub(Duration::from_mins(1)));
    let after = world.take_tally();

    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Score {
        seed,
        illness,
        names_seen,
        known_queries: outage.known,
        wrong: outage.wrong,
        wrong_after: first_minute.wrong + after.wrong,
        waited: outage.waited,
        longest_wait_ms: millis(outage.longest_wait),
        detected_ms: detected.map(|at| millis(at.since(died))),
        cleared_ms: world.clear_at.map(|at| millis(at.since(returned))),
        normal_per_minute: normal,
        outage_load: per_minute(outage.upstream_queries, times.outage) / normal,
        first_minute_load: per_minute(first_minute.upstream_queries, Duration::from_mins(1)) / normal,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn per_minute(count: u64, span: Duration) -> f64 {
    count as f64 * 60.0 / span.as_secs_f64()
}

/// All scores of one illness, worst case by worst case.
pub struct Table<'a>(pub &'a [Score]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10} {:>6} {:>12} {:>9} {:>7} {:>9} {:>9} {:>11} {:>9} {:>11}",
            "upstream",
            "seeds",
            "answers",
            "right",
            "waited",
            "longest",
            "detected",
            "all-clear",
            "load in",
            "first min"
        )?;
        for illness in Illness::ALL {
            let scores: Vec<_> = self.0.iter().filter(|score| score.illness == illness).collect();
            if scores.is_empty() {
                continue;
            }
            let sum = |field: fn(&Score) -> u64| scores.iter().map(|score| field(score)).sum::<u64>();
            let most = |field: fn(&Score) -> Option<u64>| {
                scores.iter().map(|score| field(score)).max_by_key(|value| value.unwrap_or(u64::MAX))
            };
            let highest =
                |field: fn(&Score) -> f64| scores.iter().map(|score| field(score)).fold(0.0, f64::max);
            let time =
                |value: Option<Option<u64>>| value.flatten().map_or("never".into(), |ms| format!("{ms} ms"));
            let right = percent_right(sum(|score| score.wrong), sum(|score| score.known_queries));
            writeln!(
                f,
                "{:<10} {:>6} {:>12} {:>8.4}% {:>7} {:>9} {:>9} {:>11} {:>8.3}x {:>10.2}x",
                format!("{illness:?}").to_lowercase(),
                scores.len(),
                sum(|score| score.known_queries),
                right,
                sum(|score| score.waited),
                time(most(|score| Some(score.longest_wait_ms))),
                time(most(|score| score.detected_ms)),
                time(most(|score| score.cleared_ms)),
                highest(|score| score.outage_load),
                highest(|score| score.first_minute_load),
            )?;
        }
        writeln!(
            f,
            "(worst of all seeds; load: upstream queries, as a multiple of normal; right: names seen before)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_openai_outage_every_name_seen_before_is_answered_right() {
        for seed in 0..2 {
            for illness in Illness::ALL {
                let score = openai(seed, illness, Times::default(), Plan::default());
                assert_eq!((score.wrong, score.wrong_after), (0, 0), "seed {seed}: {score:?}");
                assert!(score.detected_ms.is_some_and(|ms| ms <= 5_000), "seed {seed}: {score:?}");
                assert!(score.cleared_ms.is_some(), "seed {seed}: {score:?}");
                assert!(score.outage_load <= 1.0 && score.first_minute_load <= 1.0, "seed {seed}: {score:?}");
            }
        }
    }
}
