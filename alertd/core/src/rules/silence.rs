//! Silences: while one is active the alerts that it matches are told to nobody.
//!
//! ```text
//!   pending ──starts_at──▶ active ──ends_at, or a person──▶ over
//!                           │  ▲ with a period: only while that is inside (waiting otherwise)
//!                           └ once, a while before its end: those who would be told then are reminded
//! ```
//!
//! A silence suppresses words, not memory: what happened meanwhile is compared with what was last told when it ends
//! (`core/review.rs`). A recovery is never silenced, for those who were told of the problem would wait for ever.

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
    /// Active only while this period is inside; one that the config no longer has never is.
    #[serde(default)]
    pub period: Option<String>,
    /// Its end was announced.
    #[serde(default)]
    pub reminded: bool,
}

/// How long before its end people are reminded of what it holds back.
const REMINDER: Duration = Duration::from_mins(15);

impl Silence {
    pub fn is_active(&self, periods: &Periods, now: Timestamp) -> bool {
        let inside = self.period.as_ref().is_none_or(|period| periods.is_inside(period));
        self.starts_at <= now && now < self.ends_at && inside
    }

    /// Until when it mutes without a break.
    pub fn until(&self, periods: &Periods) -> Timestamp {
        let pause = self.period.as_ref().and_then(|period| periods.until(period));
        pause.map_or(self.ends_at, |pause| pause.min(self.ends_at))
    }

    /// `pending`, `active`, `waiting` for its period, `over`.
    pub fn state(&self, periods: &Periods, now: Timestamp) -> &'static str {
        match () {
            () if self.ends_at <= now => "over",
            () if now < self.starts_at => "pending",
            () if self.is_active(periods, now) => "active",
            () => "waiting",
        }
    }

    /// When to remind people of its end; one that is short needs none.
    pub fn remind_at(&self) -> Option<Timestamp> {
        let long = between(self.starts_at, self.ends_at) >= 2 * REMINDER;
        let at = self.ends_at.saturating_sub(REMINDER).unwrap_or(Timestamp::MIN);
        (long && !self.reminded).then_some(at)
    }

    /// What it matches, as people write it.
    pub fn text(&self) -> String {
        let matchers: Vec<_> = self.matchers.iter().map(ToString::to_string).collect();
        let what = if matchers.is_empty() { "everything".into() } else { matchers.join(" ") };
        format!("silence {}: {what}", self.number)
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        all_match(&self.matchers, labels)
    }

    /// As people see it once it is over.
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

    /// Would match an alert without any labels, and so everything.
    pub fn is_of_everything(&self) -> bool {
        self.matchers.iter().all(Matcher::matches_missing)
    }

    /// The host, if nothing but the host decides.
    pub fn is_of_hosts(&self) -> bool {
        self.matchers.iter().all(|matcher| matcher.name() == "host")
    }
}

/// Reads matchers, or says what is wrong with them.
pub fn parse_matchers(texts: &[String]) -> Result<Vec<Matcher>, String> {
    texts.iter().map(|text| text.parse()).collect()
}

/// How much a silence would mute now, of how much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Firing alerts.
    pub alerts: usize,
    pub all_alerts: usize,
    /// Hosts of those, and all known hosts that it would mute whole.
    pub hosts: usize,
    pub all_hosts: usize,
}

/// More than a person looks through before they mute them.
const ALERTS_MAX: usize = 50;
const HOSTS_MAX: usize = 10;
/// All of a few is not much.
const ALL_LEAST: usize = 5;

impl Reach {
    /// Why a person should say that they mean it; `None` if it is narrow.
    pub fn is_broad(&self, silence: &Silence) -> Option<String> {
        let Self { alerts, all_alerts, hosts, all_hosts } = *self;
        if silence.is_of_everything() {
            return Some("it would silence everything: no matcher refuses the empty string".into());
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

/// All silences that have not ended.
#[derive(Debug, Default)]
pub struct Silences {
    current: Vec<Silence>,
    /// Starts and ends up to here have been seen.
    seen: Option<Timestamp>,
}

/// What became of silences since the last look.
#[derive(Debug, Default)]
pub struct Turn {
    pub started: bool,
    pub ended: Vec<Silence>,
    /// Of whose end people are to be reminded.
    pub ending: Vec<Silence>,
}

impl Silences {
    pub fn add(&mut self, silence: Silence) {
        self.current.push(silence);
    }

    pub fn get(&self, number: u64) -> Option<&Silence> {
        self.current.iter().find(|silence| silence.number == number)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Silence> {
        self.current.iter()
    }

    /// Numbers of those that mute an alert with these labels now.
    pub fn muting(&self, labels: &Labels, periods: &Periods, now: Timestamp) -> BTreeSet<u64> {
        let muting = self.current.iter().filter(|silence| silence.is_active(periods, now));
        muting.filter(|silence| silence.matches(labels)).map(|silence| silence.number).collect()
    }

    /// Of those that mute an alert with these labels now, the one that does so longest.
    pub fn muting_last(&self, labels: &Labels, periods: &Periods, now: Timestamp) -> Option<&Silence> {
        let muting = self.current.iter().filter(|silence| silence.is_active(periods, now));
        muting.filter(|s| s.matches(labels)).max_by_key(|silence| (silence.until(periods), silence.number))
    }

    /// Ends one now; `None` if there is no such silence.
    pub fn end(&mut self, number: u64, now: Timestamp) -> Option<Silence> {
        let at = self.current.iter().position(|silence| silence.number == number)?;
        let mut ended = self.current.remove(at);
        ended.ends_at = now.min(ended.ends_at);
        Some(ended)
    }

    /// Moves the end of one, which is announced anew.
    pub fn extend(&mut self, number: u64, ends_at: Timestamp) -> Option<Silence> {
        let silence = self.current.iter_mut().find(|silence| silence.number == number)?;
        (silence.ends_at, silence.reminded) = (ends_at, false);
        Some(silence.clone())
    }

    /// Looks at the clock.
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

    /// When the next one starts, ends, or is to be announced.
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
    fn a_silence_of_more_than_anyone_looks_through_is_broad() {
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
            (&["host=web1"], Reach { hosts: 1, all_hosts: 1, ..some }, ""), // the only one there is
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
    fn it_mutes_from_its_start_until_just_before_its_end() {
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
    fn its_end_is_announced_once_and_again_after_it_was_extended() {
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
