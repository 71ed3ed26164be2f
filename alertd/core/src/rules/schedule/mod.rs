//! Who is on call: layers of rotations in local time, and overrides on top of them.
//!
//! Hand-overs are at a time on the wall of the schedule's zone, so "Mondays at 9" stays there when the clocks change; the
//! shift that night is an hour longer or shorter. A time that does not exist that day is when the clock has jumped past it,
//! one that comes twice is the first of both (RFC 5545 §3.3.5; jiff calls it "compatible"). A day that a zone leaves out
//! (Samoa, 30 December 2011) has no shift: its hand-over falls together with the next day's, which counts. A rotation by
//! hours counts hours as they pass, whatever the wall says.
//!
//! Of several layers the last that has somebody at that time counts; an override counts before all layers, and of two the
//! later one. So a gap is only where nothing has anybody, and that is news ([`Schedule::gaps`]).
//!
//! Vectors for all of this, readable by any program: `tests/vectors/schedules.json`.

use std::ops::RangeInclusive;

use jiff::{
    SignedDuration, Span, Timestamp, ToSpan,
    civil::{DateTime, Time},
    tz::TimeZone,
};

/// Means nobody where a user is named.
pub const NOBODY: &str = "nobody";

/// One schedule, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub name: String,
    pub zone: TimeZone,
    /// Later ones count before earlier ones.
    pub layers: Vec<Layer>,
    /// Of two that overlap the later one counts.
    pub overrides: Vec<Override>,
    /// That nobody is on call at times is meant so, and no news.
    pub gaps_are_meant: bool,
}

/// People who take turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// At least one; the first has the first shift.
    pub users: Vec<String>,
    pub every: Every,
    /// The first hand-over, on the wall. Before it nobody is on call by this layer.
    pub since: DateTime,
    /// When somebody is on call at all, on the wall; none: always.
    pub hours: Vec<Hours>,
}

/// How long a shift is. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Every {
    /// By the wall; weekly is seven.
    Days(u16),
    /// As they pass.
    Hours(u16),
}

/// A time of day on some days. `until` before `from` or equal to it is on the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// A bit for each day on which it begins, Monday the lowest.
    pub days: u8,
    pub from: Time,
    pub until: Time,
}

/// Somebody else for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// `None`: nobody, on purpose.
    pub user: Option<String>,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Somebody, or nobody, for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shift {
    pub user: Option<String>,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Yesterday's hours may last until today, and a zone may have left out a day between.
const FIRST_DAY: i64 = -2;
/// Most changes of one look ahead: more than a month of hourly hand-overs with overrides between them.
const CHANGES_MAX: usize = 2_000;

impl Schedule {
    /// Who is on call.
    pub fn at(&self, now: Timestamp) -> Option<&str> {
        match self.override_at(now) {
            Some(by_hand) => by_hand.user.as_deref(),
            None => self.layers.iter().rev().find_map(|layer| layer.at(now, &self.zone)),
        }
    }

    /// The override that counts, if one does.
    pub fn override_at(&self, now: Timestamp) -> Option<&Override> {
        self.overrides.iter().rev().find(|one| one.from <= now && now < one.until)
    }

    /// Who is on call from `from` to `until`: shifts in order and without a hole, the first and last cut to it. Shorter than
    /// asked if there are more changes in it than anyone will read.
    pub fn shifts(&self, from: Timestamp, until: Timestamp) -> Vec<Shift> {
        let mut shifts: Vec<Shift> = Vec::new();
        let mut at = from;
        for _ in 0..CHANGES_MAX {
            if at >= until {
                break;
            }
            let next = self.next_change(at).min(until);
            let user = self.at(at).map(str::to_owned);
            match shifts.last_mut().filter(|last| last.user == user) {
                Some(last) => last.until = next,
                None => shifts.push(Shift { user, from: at, until: next }),
            }
            at = next;
        }
        shifts
    }

    /// When nobody is on call and nobody said that this is meant so.
    pub fn gaps(&self, from: Timestamp, until: Timestamp) -> Vec<Shift> {
        if self.gaps_are_meant {
            return Vec::new();
        }
        let mut gaps: Vec<Shift> = Vec::new();
        let mut at = from;
        for _ in 0..CHANGES_MAX {
            if at >= until {
                break;
            }
            let next = self.next_change(at).min(until);
            if self.at(at).is_none() && self.override_at(at).is_none() {
                match gaps.last_mut().filter(|last| last.until == at) {
                    Some(last) => last.until = next,
                    None => gaps.push(Shift { user: None, from: at, until: next }),
                }
            }
            at = next;
        }
        gaps
    }

    /// The first moment after `now` at which something may be different; the end of time if nothing will.
    pub fn next_change(&self, now: Timestamp) -> Timestamp {
        let edges = self.overrides.iter().flat_map(|one| [one.from, one.until]);
        let of_layers = self.layers.iter().map(|layer| layer.next_change(now, &self.zone));
        edges.chain(of_layers).filter(|&at| at > now).min().unwrap_or(Timestamp::MAX)
    }
}

impl Layer {
    fn at(&self, now: Timestamp, zone: &TimeZone) -> Option<&str> {
        let turn = self.turn(now, zone)?;
        let on = self.hours.is_empty() || self.hours.iter().any(|hours| hours.cover(now, zone));
        let place = usize::try_from(turn).ok()? % self.users.len().max(1);
        self.users.get(place).filter(|_| on).map(String::as_str)
    }

    /// How many hand-overs there were since the first; `None` before that.
    fn turn(&self, now: Timestamp, zone: &TimeZone) -> Option<i64> {
        let start = on_the_wall(self.since, zone)?;
        if now < start {
            return None;
        }
        match self.every {
            Every::Hours(hours) => {
                Some(now.duration_since(start).as_secs() / (i64::from(hours.max(1)) * 3_600))
            }
            Every::Days(days) => {
                let local = zone.to_datetime(now).date();
                let passed = self.since.date().until(local).ok()?.get_days();
                // The date alone may be one off: it may not be time yet today, a clock set back at midnight repeats
                // yesterday, and a day that is left out takes its hand-over with it.
                let latest = i64::from(passed) / i64::from(days.max(1)) + 1;
                let begun = |turn: &i64| self.begins(*turn, zone).is_some_and(|at| at <= now);
                (0..=latest).rev().find(begun)
            }
        }
    }

    /// When this turn begins.
    fn begins(&self, turn: i64, zone: &TimeZone) -> Option<Timestamp> {
        match self.every {
            Every::Hours(hours) => {
                let start = on_the_wall(self.since, zone)?;
                let passed = turn.checked_mul(i64::from(hours.max(1)) * 3_600)?;
                start.checked_add(SignedDuration::from_secs(passed)).ok()
            }
            Every::Days(days) => {
                let passed = turn.checked_mul(i64::from(days.max(1)))?;
                let span = Span::new().try_days(passed).ok()?;
                on_the_wall(self.since.checked_add(span).ok()?, zone)
            }
        }
    }

    fn next_change(&self, now: Timestamp, zone: &TimeZone) -> Timestamp {
        let turn = self.turn(now, zone).map_or(0, |turn| turn + 1);
        let hand_over = self.begins(turn, zone);
        let edges = self.hours.iter().flat_map(|hours| hours.edges(now, zone));
        edges.chain(hand_over).filter(|&at| at > now).min().unwrap_or(Timestamp::MAX)
    }
}

impl Hours {
    /// Those of some of the days around `now`: begin and end. A day that the zone leaves out has none.
    fn around<'a>(
        &'a self,
        days: RangeInclusive<i64>,
        now: Timestamp,
        zone: &'a TimeZone,
    ) -> impl Iterator<Item = (Timestamp, Timestamp)> + 'a {
        let today = zone.to_datetime(now).date();
        days.filter_map(move |offset| {
            let day = today.checked_add(offset.days()).ok()?;
            if self.days & (1 << day.weekday().to_monday_zero_offset()) == 0 {
                return None;
            }
            let last = if self.until > self.from { day } else { day.tomorrow().ok()? };
            let from = on_the_wall(day.to_datetime(self.from), zone)?;
            let until = on_the_wall(last.to_datetime(self.until), zone)?;
            (zone.to_datetime(from).date() == day).then_some((from, until))
        })
    }

    fn cover(&self, now: Timestamp, zone: &TimeZone) -> bool {
        self.around(FIRST_DAY..=1, now, zone).any(|(from, until)| from <= now && now < until)
    }

    fn edges(&self, now: Timestamp, zone: &TimeZone) -> Vec<Timestamp> {
        self.around(FIRST_DAY..=8, now, zone).flat_map(|(from, until)| [from, until]).collect()
    }
}

/// The moment at which a clock on the wall shows `time`; see the top for times that come never or twice.
pub fn on_the_wall(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_ambiguous_zoned(time).compatible().ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests;
