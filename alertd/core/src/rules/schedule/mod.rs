//! On-call schedules: layers of rotations in local time, and overrides.
//!
//! - Handovers are at a local time in the schedule's time zone and stay there when clocks change;
//!   the shift of that night is an hour longer or shorter.
//! - If that local time does not exist, the handover is when the clock jumps past it. If it occurs
//!   twice, the first one counts (RFC 5545 §3.3.5; "compatible" in jiff).
//! - A day that a time zone skips (Samoa, 30 December 2011) has no shift. Its handover coincides
//!   with that of the next day, which counts.
//! - A rotation in hours counts real hours.
//! - The last layer that has somebody on call wins. An override wins over all layers, and the later
//!   of two overrides wins. A gap is a time without anybody, which alertd reports
//!   ([`Schedule::gaps`]).
//!
//! Test vectors for all of this are in `tests/vectors/schedules.json`.

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
    /// Later layers win over earlier ones.
    pub layers: Vec<Layer>,
    /// If two overlap, the later one wins.
    pub overrides: Vec<Override>,
    /// Times without anybody on call are intended and not reported.
    pub gaps_are_meant: bool,
}

/// Users who take turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// At least one; the first one has the first shift.
    pub users: Vec<String>,
    pub every: Every,
    /// Local time of the first handover. Before it, this layer has nobody on call.
    pub since: DateTime,
    /// Local times at which this layer has somebody on call. Empty for always.
    pub hours: Vec<Hours>,
}

/// The length of a shift. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Every {
    /// Local days; weekly is 7.
    Days(u16),
    /// Real hours.
    Hours(u16),
}

/// A time of day on some days. If `until` is not after `from`, it is on the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// One bit for each day on which it starts; Monday is the lowest.
    pub days: u8,
    pub from: Time,
    pub until: Time,
}

/// Puts somebody else on call for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// `None` for nobody, on purpose.
    pub user: Option<String>,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Somebody, or nobody, on call for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shift {
    pub user: Option<String>,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Yesterday's hours may last until today, and a time zone may skip a day in between.
const FIRST_DAY: i64 = -2;
/// Maximum number of shifts computed at once: more than a month of hourly handovers with overrides.
const CHANGES_MAX: usize = 2_000;

impl Schedule {
    /// Returns who is on call.
    pub fn at(&self, now: Timestamp) -> Option<&str> {
        match self.override_at(now) {
            Some(by_hand) => by_hand.user.as_deref(),
            None => self.layers.iter().rev().find_map(|layer| layer.at(now, &self.zone)),
        }
    }

    /// The override in effect, if there is one.
    pub fn override_at(&self, now: Timestamp) -> Option<&Override> {
        self.overrides.iter().rev().find(|one| one.from <= now && now < one.until)
    }

    /// The shifts between `from` and `until`, in order and without holes, clipped to this range.
    /// The list ends early if there are too many.
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

    /// Times when nobody is on call and the config does not say that this is intended.
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

    /// The first moment after `now` at which the result may change, or the latest representable
    /// time.
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

    /// The number of handovers since the first; `None` before it.
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
                // The date alone may be off by one: today's handover may still be ahead, a clock
                // set back at midnight repeats yesterday, and a skipped day has no handover of its
                // own.
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
    /// Starts and ends on the days around `now`. A skipped day has none.
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

/// The moment of a local time; see the top of this file for times that do not exist or occur twice.
pub fn on_the_wall(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_ambiguous_zoned(time).compatible().ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests;
