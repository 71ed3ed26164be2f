//! On-call schedules: layers of rotations in local time, with overrides on top.
//!
//! Hand-overs happen at a local time of the schedule's zone, so "Mondays at 9" stays at 9 when the
//! clocks change, and the shift of that night is an hour longer or shorter. A local time that does
//! not exist that day means the moment after the gap; one that occurs twice means the first (RFC
//! 5545 §3.3.5; "compatible" in jiff). A day that a zone skips (Samoa, 30 December 2011) has no
//! shift: its hand-over coincides with the next day's, which wins. A rotation by hours counts
//! elapsed hours, whatever the local time.
//!
//! Of several layers, the last one with someone on call at that time wins. Overrides win over all
//! layers, and the later override wins. A gap is therefore a time at which no layer and no override
//! names anyone; it is reported ([`Schedule::gaps`]).
//!
//! Test vectors for all of this, usable by other programs: `tests/vectors/schedules.json`.

use std::ops::RangeInclusive;

use jiff::{
    SignedDuration, Span, Timestamp, ToSpan,
    civil::{DateTime, Time},
    tz::TimeZone,
};

/// Used in place of a user name, it means that nobody is on call.
pub const NOBODY: &str = "nobody";

/// One validated schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub name: String,
    pub zone: TimeZone,
    /// Later layers take precedence.
    pub layers: Vec<Layer>,
    /// Of two that overlap, the later one wins.
    pub overrides: Vec<Override>,
    /// Times with nobody on call are intended and not reported.
    pub gaps_are_meant: bool,
}

/// Users who take turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// At least one; the first one has the first shift.
    pub users: Vec<String>,
    pub every: Every,
    /// The first hand-over, in local time. Before it, this layer has nobody on call.
    pub since: DateTime,
    /// The hours in which the layer has someone on call, in local time; empty means always.
    pub hours: Vec<Hours>,
}

/// The length of a shift. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Every {
    /// In local days; weekly is seven.
    Days(u16),
    /// Elapsed hours.
    Hours(u16),
}

/// A time range on some weekdays. If `until` is not after `from`, it is on the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// One bit for each weekday on which it begins, Monday lowest.
    pub days: u8,
    pub from: Time,
    pub until: Time,
}

/// A temporary replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// `None` for nobody, on purpose.
    pub user: Option<String>,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// A span of time with one person, or nobody, on call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shift {
    pub user: Option<String>,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Yesterday's hours may last until today, and the zone may have skipped a day in between.
const FIRST_DAY: i64 = -2;
/// Most changes in one look ahead: more than a month of hourly hand-overs with overrides in
/// between.
const CHANGES_MAX: usize = 2_000;

impl Schedule {
    /// Who is on call at `now`.
    pub fn at(&self, now: Timestamp) -> Option<&str> {
        match self.override_at(now) {
            Some(by_hand) => by_hand.user.as_deref(),
            None => self.layers.iter().rev().find_map(|layer| layer.at(now, &self.zone)),
        }
    }

    /// The override in effect, if any.
    pub fn override_at(&self, now: Timestamp) -> Option<&Override> {
        self.overrides.iter().rev().find(|one| one.from <= now && now < one.until)
    }

    /// Who is on call from `from` to `until`: consecutive shifts without gaps between them, the
    /// first and last cut to fit. Ends early if there are more changes than anyone would read.
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

    /// Unintended times with nobody on call.
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

    /// The first moment after `now` at which something may change; the end of time if nothing will.
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

    /// The number of hand-overs since the first; `None` before it.
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
                // The date alone may be off by one: today's hand-over may be still to come, a clock
                // set back at midnight repeats yesterday, and a skipped day takes its hand-over
                // with it.
                let latest = i64::from(passed) / i64::from(days.max(1)) + 1;
                let begun = |turn: &i64| self.begins(*turn, zone).is_some_and(|at| at <= now);
                (0..=latest).rev().find(begun)
            }
        }
    }

    /// When this turn starts.
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
    /// Start and end of these hours on the days around `now`. A day that the zone skips has none.
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

/// The moment at which the local clock shows `time`; see the module header for times that do not
/// exist or occur twice.
pub fn on_the_wall(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_ambiguous_zoned(time).compatible().ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests;
