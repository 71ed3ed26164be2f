//! Silences: while a silence is active, the alerts that it matches are suppressed.
//!
//! ```text
//!   pending ──starts_at──▶ active ──ends_at, or a person──▶ over
//!                           │  ▲ with a period: only while that is in effect (waiting otherwise)
//!                           └ once, before its end: people who know of a suppressed problem are reminded
//! ```
//!
//! When a silence ends, the current state is compared with the last notification (`review.rs`).
//! Recoveries are never silenced, because people who were notified of a problem expect its end.

use std::{collections::BTreeSet, time::Duration};

use dogwatch_wire::ctl;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rules::{
    matcher::{Labels, Matcher, all_match},
    moment::between,
    period::Periods,
};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Silence {
    pub number: u64,
    pub matchers: Vec<Matcher>,
    pub author: String,
    pub comment: String,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    /// Active only while this period is in effect. A period missing in the config never is.
    #[serde(default)]
    pub period: Option<String>,
    /// The reminder before its end was sent.
    #[serde(default)]
    pub reminded: bool,
}

/// When people are reminded, before the end.
const REMINDER: Duration = Duration::from_mins(15);

impl Silence {
    pub fn is_active(&self, periods: &Periods, now: Timestamp) -> bool {
        let inside = self.period.as_ref().is_none_or(|period| periods.is_inside(period));
        self.starts_at <= now && now < self.ends_at && inside
    }

    /// When the current active time ends.
    pub fn until(&self, periods: &Periods) -> Timestamp {
        let pause = self.period.as_ref().and_then(|period| periods.until(period));
        pause.map_or(self.ends_at, |pause| pause.min(self.ends_at))
    }

    /// `pending`, `active`, `waiting` (for its period) or `over`.
    pub fn state(&self, periods: &Periods, now: Timestamp) -> &'static str {
        match () {
            () if self.ends_at <= now => "over",
            () if now < self.starts_at => "pending",
            () if self.is_active(periods, now) => "active",
            () => "waiting",
        }
    }

    /// When to send the reminder; a short silence has none.
    pub fn remind_at(&self) -> Option<Timestamp> {
        let long = between(self.starts_at, self.ends_at) >= 2 * REMINDER;
        let at = self.ends_at.saturating_sub(REMINDER).unwrap_or(Timestamp::MIN);
        (long && !self.reminded).then_some(at)
    }

    /// The silence in words, with its matchers as people write them.
    pub fn text(&self) -> String {
        let matchers: Vec<_> = self.matchers.iter().map(ToString::to_string).collect();
        let what = if matchers.is_empty() { "everything".into() } else { matchers.join(" ") };
        format!("silence {}: {what}", self.number)
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        all_match(&self.matchers, labels)
    }

    /// How the API shows it when it is over.
    pub fn ended_view(self) -> ctl::Silence {
        ctl::Silence {
            number: self.number,
            matchers: self.matchers.iter().map(ToString::to_string).collect(),
            author: self.author,
            comment: self.comment,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            active: false,
            state: "over".into(),
            period: self.period,
            matches: 0,
            hosts: 0,
            alerts: Vec::new(),
            broad: None,
        }
    }

    /// Whether it matches an alert without labels, and therefore everything.
    pub fn is_of_everything(&self) -> bool {
        self.matchers.iter().all(Matcher::matches_missing)
    }

    /// Whether it only has matchers for the host.
    pub fn is_of_hosts(&self) -> bool {
        self.matchers.iter().all(|matcher| matcher.name() == "host")
    }
}

/// Parses matchers. The error says what is wrong.
pub fn parse_matchers(texts: &[String]) -> Result<Vec<Matcher>, String> {
    texts.iter().map(|text| text.parse()).collect()
}

/// How much a silence matches now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Matching firing alerts.
    pub alerts: usize,
    pub all_alerts: usize,
    /// Hosts of these alerts, and known hosts that it matches as a whole.
    pub hosts: usize,
    pub all_hosts: usize,
}

/// More alerts than a person would check before silencing them.
const ALERTS_MAX: usize = 50;
const HOSTS_MAX: usize = 10;
/// Silencing all firing alerts is only broad if there are at least this many.
const ALL_LEAST: usize = 5;

impl Reach {
    /// Why it needs a confirmation, or `None` if it is narrow.
    pub fn is_broad(&self, silence: &Silence) -> Option<String> {
        let Self { alerts, all_alerts, hosts, all_hosts } = *self;
        if silence.is_of_everything() {
            return Some(
                "it would silence everything, because every matcher also matches an empty value".into(),
            );
        }
        if silence.is_of_hosts() && hosts == all_hosts && hosts > 1 {
            return Some(format!("it would silence all {hosts} hosts"));
        }
        if hosts > HOSTS_MAX {
            return Some(format!("it would silence {hosts} of {all_hosts} hosts"));
        }
        if alerts > ALERTS_MAX || (alerts == all_alerts && alerts >= ALL_LEAST) {
            return Some(format!("it would silence {alerts} of {all_alerts} firing alerts"));
        }
        None
    }
}

/// All current and future silences.
#[derive(Debug, Default)]
pub struct Silences {
    current: Vec<Silence>,
    /// Starts and ends up to this time were handled.
    seen: Option<Timestamp>,
}

/// Changes since the last call.
#[derive(Debug, Default)]
pub struct Turn {
    pub started: bool,
    pub ended: Vec<Silence>,
    /// Silences whose reminder is due.
    pub ending: Vec<Silence>,
}

impl Silences {
    pub fn add(&mut self, silence: Silence) {
        self.current.push(silence);
    }

    pub fn len(&self) -> usize {
        self.current.len()
    }

    pub fn is_empty(&self) -> bool {
        self.current.is_empty()
    }

    pub fn get(&self, number: u64) -> Option<&Silence> {
        self.current.iter().find(|silence| silence.number == number)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Silence> {
        self.current.iter()
    }

    /// Numbers of the silences that suppress an alert with these labels now.
    pub fn muting(&self, labels: &Labels, periods: &Periods, now: Timestamp) -> BTreeSet<u64> {
        let muting = self.current.iter().filter(|silence| silence.is_active(periods, now));
        muting.filter(|silence| silence.matches(labels)).map(|silence| silence.number).collect()
    }

    /// The silence that suppresses an alert with these labels longest.
    pub fn muting_last(&self, labels: &Labels, periods: &Periods, now: Timestamp) -> Option<&Silence> {
        let muting = self.current.iter().filter(|silence| silence.is_active(periods, now));
        muting.filter(|s| s.matches(labels)).max_by_key(|silence| (silence.until(periods), silence.number))
    }

    /// Ends a silence now; `None` if it does not exist.
    pub fn end(&mut self, number: u64, now: Timestamp) -> Option<Silence> {
        let at = self.current.iter().position(|silence| silence.number == number)?;
        let mut ended = self.current.remove(at);
        ended.ends_at = now.min(ended.ends_at);
        Some(ended)
    }

    /// Changes the end of a silence; a new reminder will be sent.
    pub fn extend(&mut self, number: u64, ends_at: Timestamp) -> Option<Silence> {
        let silence = self.current.iter_mut().find(|silence| silence.number == number)?;
        (silence.ends_at, silence.reminded) = (ends_at, false);
        Some(silence.clone())
    }

    /// Returns the silences that started or ended since the last call, and due reminders.
    pub fn turn(&mut self, now: Timestamp) -> Turn {
        let seen = self.seen.replace(now);
        let since = |at: Timestamp| at <= now && seen.is_none_or(|seen| at > seen);
        let mut turn = Turn {
            started: self.current.iter().any(|silence| since(silence.starts_at)),
            ended: self.current.extract_if(.., |silence| silence.ends_at <= now).collect(),
            ending: Vec::new(),
        };
        for silence in &mut self.current {
            if silence.remind_at().is_some_and(|at| at <= now) {
                silence.reminded = true;
                turn.ending.push(silence.clone());
            }
        }
        turn
    }

    /// When the next silence starts or ends, or a reminder is due.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let to_come = |at: &Timestamp| self.seen.is_none_or(|seen| *at > seen);
        let times = |silence: &Silence| {
            let starts_at = Some(silence.starts_at).filter(to_come);
            [starts_at, Some(silence.ends_at), silence.remind_at()].into_iter().flatten().min()
        };
        self.current.iter().filter_map(times).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn silence(matchers: &[&str], from: i64, until: i64) -> Silence {
        Silence {
            number: 1,
            matchers: matchers.iter().map(|text| text.parse().unwrap()).collect(),
            author: "eva".into(),
            comment: String::new(),
            starts_at: at(from),
            ends_at: at(until),
            period: None,
            reminded: false,
        }
    }

    #[test]
    fn a_silence_of_more_alerts_than_anyone_would_check_is_broad() {
        let some = Reach { alerts: 2, all_alerts: 9, hosts: 1, all_hosts: 30 };
        for (matchers, reach, broad) in [
            (&["host=web1"][..], some, ""),
            (&[], some, "everything"),
            (&["host=~.*"], some, "everything"),
            (&["host!=web1", "team="], some, "everything"),
            (&["host=~.*", "service=disk"], some, ""),
            (&["host=~web.*"], Reach { hosts: 11, ..some }, "11 of 30 hosts"),
            (&["host=~web.*"], Reach { hosts: 10, ..some }, ""),
            (&["host=~.+"], Reach { hosts: 2, all_hosts: 2, ..some }, "all 2 hosts"),
            (&["host=web1"], Reach { hosts: 1, all_hosts: 1, ..some }, ""), // the only host
            (&["service=~.+"], Reach { alerts: 51, all_alerts: 90, ..some }, "51 of 90 firing alerts"),
            (&["service=~.+"], Reach { alerts: 5, all_alerts: 5, ..some }, "5 of 5 firing alerts"),
            (&["service=disk"], Reach { alerts: 4, all_alerts: 4, ..some }, ""),
        ] {
            let said = reach.is_broad(&silence(matchers, 0, 9)).unwrap_or_default();
            assert!(
                said.contains(broad) && said.is_empty() == broad.is_empty(),
                "{matchers:?} {reach:?}: {said}"
            );
        }
    }

    #[test]
    fn it_suppresses_from_its_start_until_just_before_its_end() {
        let mut silences = Silences::default();
        silences.add(silence(&["host=web1"], 2, 5));
        let web1 = [("host".to_owned(), "web1".to_owned())].into();
        let periods = Periods::default();
        let muted =
            (0..7).map(|s| if silences.muting(&web1, &periods, at(s)).is_empty() { '.' } else { 'm' });
        assert_eq!(muted.collect::<String>(), "..mmm..");
        assert_eq!(silences.next_wakeup(), Some(at(2)));
        assert!(!silences.turn(at(1)).started);
        assert!(silences.turn(at(2)).started);
        assert_eq!(silences.next_wakeup(), Some(at(5)));
        assert_eq!(silences.turn(at(5)).ended.len(), 1);
        assert_eq!(silences.next_wakeup(), None);
    }

    #[test]
    fn its_end_is_announced_once_and_again_after_an_extension() {
        let mut silences = Silences::default();
        silences.add(silence(&["host=web1"], 0, 7_200));
        silences.turn(at(0));
        assert_eq!(silences.next_wakeup(), Some(at(6_300)));
        assert_eq!(silences.turn(at(6_299)).ending.len(), 0);
        assert_eq!(silences.turn(at(6_300)).ending.len(), 1);
        assert_eq!(silences.turn(at(6_301)).ending.len(), 0);
        silences.extend(1, at(10_800)).unwrap();
        assert_eq!(silences.next_wakeup(), Some(at(9_900)));
        assert_eq!(silences.turn(at(9_900)).ending.len(), 1);

        let mut short = Silences::default();
        short.add(silence(&["host=web1"], 0, 1_799));
        assert_eq!(short.next_wakeup(), Some(at(0)));
        short.turn(at(0));
        assert_eq!(short.next_wakeup(), Some(at(1_799)), "short ones just end");
    }
}
