//! What a check remembers between its runs: counters for rates, values over time for trends, and
//! facts such as "this fan has turned".
//!
//! Bounded: at most [`KEYS_MAX`] keys of each sort, [`SAMPLES_MAX`] samples per key. A counter or a
//! window that no run has touched for [`KEPT`] is dropped. Facts survive a restart, the rest does
//! not. Nothing here reads a clock: [`crate::Judgement::judge`] sets the time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::State;

/// The memory of one check.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// Time since boot of the current run.
    #[serde(skip)]
    now: Duration,
    #[serde(skip)]
    counters: BTreeMap<String, Counter>,
    #[serde(skip)]
    windows: BTreeMap<String, Window>,
    #[serde(skip)]
    conditions: BTreeMap<String, Duration>,
    #[serde(skip)]
    states: BTreeMap<Option<String>, State>,
    facts: BTreeMap<String, f64>,
    /// A rate was asked for that needs one more reading.
    #[serde(skip)]
    incomplete: bool,
    /// Facts have changed since [`Self::take_news`].
    #[serde(skip)]
    news: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Counter {
    value: u64,
    at: Duration,
}

/// Samples of one value, oldest first. When it is full, every second sample is dropped, so it
/// always covers its whole span.
#[derive(Debug, Clone, Default, PartialEq)]
struct Window(VecDeque<(Duration, f64)>);

impl Past {
    /// Time since boot, including suspend.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Increase per second of a counter since the run before. `None` at its first reading, and when
    /// it went back, because then it was reset.
    pub fn rate(&mut self, key: &str, counter: u64) -> Option<f64> {
        let (increase, seconds) = self.advance(key, counter)?;
        #[expect(clippy::cast_precision_loss, reason = "a rate; the error does not matter")]
        Some(increase as f64 / seconds)
    }

    /// Increase of a counter since the run before. `None` like [`Self::rate`].
    pub fn increase(&mut self, key: &str, counter: u64) -> Option<u64> {
        self.advance(key, counter).map(|(increase, _)| increase)
    }

    /// Increase of a counter within about `span`. At its first reading it is 0.
    #[expect(clippy::cast_precision_loss, reason = "a count of events")]
    pub fn increase_within(&mut self, key: &str, counter: u64, span: Duration) -> f64 {
        let value = counter as f64;
        let now = self.now;
        let Some(window) = bounded(&mut self.windows, key) else { return 0.0 };
        if window.0.back().is_some_and(|&(_, last)| value < last) {
            window.0.clear();
        }
        window.push(now, value, span);
        window.0.front().map_or(0.0, |&(_, first)| value - first)
    }

    /// Increase of a counter and the seconds since the run before. `None` like [`Self::rate`].
    pub(crate) fn advance(&mut self, key: &str, value: u64) -> Option<(u64, f64)> {
        let now = self.now;
        let missing = !self.counters.contains_key(key);
        if missing && self.counters.len() >= KEYS_MAX {
            return None;
        }
        let before = self.counters.insert(key.to_owned(), Counter { value, at: now });
        self.incomplete |= before.is_none();
        let before = before?;
        let seconds = now.saturating_sub(before.at).as_secs_f64();
        let increase = value.checked_sub(before.value)?;
        (seconds > 0.0).then_some((increase, seconds))
    }

    /// Records a value and returns its average over `span`; `None` while less than half of the span
    /// is known.
    pub fn average(&mut self, key: &str, value: f64, span: Duration) -> Option<f64> {
        let now = self.now;
        let window = bounded(&mut self.windows, key)?;
        window.push(now, value, span);
        #[expect(clippy::cast_precision_loss, reason = "at most SAMPLES_MAX")]
        let count = window.0.len() as f64;
        window.covers(span / 2).then(|| window.0.iter().map(|(_, value)| value).sum::<f64>() / count)
    }

    /// Records a value and returns its trend over `span`, per second (least squares); `None` while
    /// less than half of the span is known, or with fewer than five samples.
    pub fn trend(&mut self, key: &str, value: f64, span: Duration) -> Option<f64> {
        let now = self.now;
        let window = bounded(&mut self.windows, key)?;
        window.push(now, value, span);
        (window.covers(span / 2) && window.0.len() >= 5).then(|| window.slope()).flatten()
    }

    /// How long a condition has held without a break; `None` if it does not hold now.
    pub fn holds_for(&mut self, key: &str, holds: bool) -> Option<Duration> {
        if !holds {
            self.conditions.remove(key);
            return None;
        }
        let now = self.now;
        let since = bounded(&mut self.conditions, key).map(|since| {
            if since.is_zero() {
                *since = now;
            }
            *since
        })?;
        Some(now.saturating_sub(since))
    }

    /// Forgets what was recorded under keys that start with `prefix`, except for facts and for the
    /// keys whose rest `exists`. For things that come and go, such as processes.
    pub fn keep_only(&mut self, prefix: &str, exists: impl Fn(&str) -> bool) {
        let stays = |key: &str| key.strip_prefix(prefix).is_none_or(&exists);
        self.counters.retain(|key, _| stays(key));
        self.windows.retain(|key, _| stays(key));
        self.conditions.retain(|key, _| stays(key));
    }

    /// The state that this check last reported for a thing; OK before the first run.
    pub fn was(&self, thing: Option<&str>) -> State {
        self.states.get(&thing.map(str::to_owned)).copied().unwrap_or(State::Ok)
    }

    /// The things that had a problem in the run before, each with its state.
    pub fn problems(&self) -> impl Iterator<Item = (&str, State)> {
        let named = self.states.iter().filter_map(|(thing, state)| Some((thing.as_deref()?, *state)));
        named.filter(|(_, state)| *state != State::Ok)
    }

    /// A fact that an earlier run has learnt.
    pub fn fact(&self, key: &str) -> Option<f64> {
        self.facts.get(key).copied()
    }

    /// All facts whose key starts with `prefix`, with the rest of the key.
    pub fn facts<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.facts
            .range(prefix.to_owned()..)
            .map_while(move |(key, fact)| Some((key.strip_prefix(prefix)?, *fact)))
    }

    /// Learns a fact, for this and later runs of the agent. Returns whether it is news.
    pub fn learn(&mut self, key: &str, fact: f64) -> bool {
        if self.facts.get(key) == Some(&fact) {
            return false;
        }
        match bounded(&mut self.facts, key) {
            Some(slot) => {
                *slot = fact;
                self.news = true;
                true
            }
            None => false,
        }
    }

    pub fn forget(&mut self, key: &str) {
        self.news |= self.facts.remove(key).is_some();
    }

    /// Whether another reading a moment later would tell more (for a check that runs once).
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Whether there is anything to save.
    pub fn has_facts(&self) -> bool {
        !self.facts.is_empty()
    }

    /// Whether facts have changed since the last call.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// What is saved.
    #[must_use]
    pub fn facts_only(&self) -> Self {
        Self { facts: self.facts.clone(), ..Self::default() }
    }

    pub(crate) fn begin(&mut self, now: Duration) {
        self.now = now;
        self.incomplete = false;
        self.counters.retain(|_, counter| now.saturating_sub(counter.at) < KEPT);
        self.windows
            .retain(|_, window| window.0.back().is_some_and(|&(at, _)| now.saturating_sub(at) < KEPT));
    }

    pub(crate) fn end(&mut self, states: impl Iterator<Item = (Option<String>, State)>) {
        self.states = states.collect();
    }
}

impl Window {
    fn push(&mut self, now: Duration, value: f64, span: Duration) {
        while self.0.len() > 1 && self.0.get(1).is_some_and(|&(at, _)| now.saturating_sub(at) >= span) {
            self.0.pop_front();
        }
        if self.0.len() >= SAMPLES_MAX {
            let mut odd = false;
            self.0.retain(|_| {
                odd = !odd;
                odd
            });
        }
        self.0.push_back((now, value));
    }

    fn covers(&self, span: Duration) -> bool {
        match (self.0.front(), self.0.back()) {
            (Some((first, _)), Some((last, _))) => last.saturating_sub(*first) >= span,
            _ => false,
        }
    }

    fn slope(&self) -> Option<f64> {
        let (origin, _) = *self.0.front()?;
        let points = || self.0.iter().map(|&(at, value)| (at.saturating_sub(origin).as_secs_f64(), value));
        #[expect(clippy::cast_precision_loss, reason = "at most SAMPLES_MAX")]
        let count = self.0.len() as f64;
        let mean = |sum: f64| sum / count;
        let x = mean(points().map(|(x, _)| x).sum());
        let y = mean(points().map(|(_, y)| y).sum());
        let spread: f64 = points().map(|(at, _)| (at - x).powi(2)).sum();
        let joint: f64 = points().map(|(at, value)| (at - x) * (value - y)).sum();
        (spread > 0.0).then_some(joint / spread)
    }
}

/// The entry of `key`, unless that would be one too many.
fn bounded<'a, T: Default>(map: &'a mut BTreeMap<String, T>, key: &str) -> Option<&'a mut T> {
    if map.len() >= KEYS_MAX && !map.contains_key(key) {
        return None;
    }
    Some(map.entry(key.to_owned()).or_default())
}

const KEYS_MAX: usize = 4_096;
const SAMPLES_MAX: usize = 128;
/// Longer than the longest usual interval of a check of the host.
const KEPT: Duration = Duration::from_hours(26);

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(past: &mut Past, minute: u64) {
        past.begin(Duration::from_mins(minute));
    }

    #[test]
    fn a_rate_needs_two_readings_and_a_reset_starts_anew() {
        let mut past = Past::default();
        minutes(&mut past, 1);
        assert_eq!(past.rate("read", 100), None);
        assert!(past.is_incomplete());
        minutes(&mut past, 2);
        assert_eq!(past.rate("read", 700), Some(10.0));
        assert!(!past.is_incomplete());
        minutes(&mut past, 3);
        assert_eq!(past.rate("read", 60), None, "the host was rebooted or the device replaced");
        minutes(&mut past, 4);
        assert_eq!(past.rate("read", 120), Some(1.0));
        assert_eq!(past.rate("read", 180), None, "two readings at the same time");
    }

    #[test]
    fn a_trend_needs_half_of_its_span_and_follows_the_values() {
        let mut past = Past::default();
        let span = Duration::from_hours(1);
        let mut trend = None;
        for minute in 0..=90 {
            minutes(&mut past, minute);
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let value = 5.0 + 60.0 * minute as f64;
            trend = past.trend("free", value, span);
            assert_eq!(trend.is_some(), minute >= 30, "{minute}");
        }
        assert!((trend.unwrap() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_long_window_thins_out_instead_of_growing() {
        let mut past = Past::default();
        for minute in 0..10_000 {
            minutes(&mut past, minute);
            past.average("load", 1.0, Duration::from_hours(24 * 7));
        }
        let window = past.windows.get("load").unwrap();
        assert!(window.0.len() <= SAMPLES_MAX);
        assert!(window.covers(Duration::from_hours(160)), "{:?}", window.0.front());
    }

    #[test]
    fn events_within_a_span_are_counted_and_old_ones_are_not() {
        let mut past = Past::default();
        let mut within = |minute, counter| {
            minutes(&mut past, minute);
            past.increase_within("oom", counter, Duration::from_mins(30))
        };
        assert!(within(0, 7) < 0.5, "what happened before the first reading is not news");
        assert!((within(1, 9) - 2.0).abs() < 0.5);
        assert!((within(20, 9) - 2.0).abs() < 0.5);
        assert!(within(60, 9) < 0.5);
        assert!(within(61, 0) < 0.5, "after a reboot");
        assert!((within(62, 1) - 1.0).abs() < 0.5);
    }

    #[test]
    fn a_condition_is_timed_from_its_start() {
        let mut past = Past::default();
        minutes(&mut past, 1);
        assert_eq!(past.holds_for("d", true), Some(Duration::ZERO));
        minutes(&mut past, 6);
        assert_eq!(past.holds_for("d", true), Some(Duration::from_mins(5)));
        assert_eq!(past.holds_for("d", false), None);
        assert_eq!(past.holds_for("d", true), Some(Duration::ZERO));
    }

    #[test]
    fn things_that_no_longer_exist_are_forgotten() {
        let mut past = Past::default();
        minutes(&mut past, 1);
        for key in ["process 1", "process 2", "other 1"] {
            past.holds_for(key, true);
            past.rate(key, 1);
        }
        past.keep_only("process ", |pid| pid == "2");
        assert_eq!(past.conditions.keys().collect::<Vec<_>>(), ["other 1", "process 2"]);
        assert_eq!(past.counters.keys().collect::<Vec<_>>(), ["other 1", "process 2"]);
    }

    #[test]
    fn problems_are_those_of_the_run_before() {
        let mut past = Past::default();
        past.end([(Some("a".to_owned()), State::Ok), (Some("b".to_owned()), State::Warning)].into_iter());
        assert_eq!(past.problems().collect::<Vec<_>>(), [("b", State::Warning)]);
        past.end([(None, State::Critical)].into_iter());
        assert_eq!(past.problems().count(), 0);
    }

    #[test]
    fn facts_survive_a_restart_and_the_number_of_keys_is_bounded() {
        let mut past = Past::default();
        assert!(past.learn("fan1", 1.0));
        assert!(!past.learn("fan1", 1.0));
        minutes(&mut past, 1);
        past.rate("read", 1);
        let mut past: Past = serde_json::from_str(&serde_json::to_string(&past).unwrap()).unwrap();
        assert_eq!(past.fact("fan1"), Some(1.0));
        assert_eq!(past.facts("fa").collect::<Vec<_>>(), [("n1", 1.0)]);
        for at in 0..2 * KEYS_MAX {
            past.learn(&at.to_string(), 0.0);
            past.rate(&at.to_string(), 0);
        }
        assert!(past.facts.len() <= KEYS_MAX && past.counters.len() <= KEYS_MAX);
    }
}
