//! The age of an answer, across reboots and clock changes.
//!
//! There are two clocks. The boot clock (CLOCK_BOOTTIME) never jumps and includes suspend, but
//! restarts at each boot and stops while a virtual machine is paused. The wall clock continues
//! across both, but may be wrong and be corrected by days. So the time since a reading of both
//! clocks is split into time that has certainly *passed* and time that may have passed *unseen*.
//! Passed time ages an answer in every way. Unseen time only ends its freshness: the answer is
//! refreshed, but in an outage it can still be served. So no clock jump makes the cache lose
//! answers, or keeps an answer fresh forever.
//!
//! ```text
//! same boot, wall clock agrees             passed: boot clock difference
//! same boot, wall clock > 1 min ahead      passed: boot clock difference  unseen: extra wall time
//! same boot, wall clock back, or unset     passed: boot clock difference
//! other boot, wall clock <= 30 days ahead  passed: wall clock difference, but at least the uptime
//! other boot, wall clock ahead by more     passed: this boot's uptime     unseen: a day
//! other boot, wall clock back, or unset    passed: this boot's uptime     unseen: a day
//! ```
//!
//! "Unset" is a wall clock before 2025: a machine without a battery, before NTP has set its clock.

use std::{fs, sync::OnceLock, time::Duration};

use crate::{clock, random};

/// ID of a boot (proc(5), random/boot_id).
pub(super) type Boot = [u8; 16];

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    pub(super) boot: Boot,
    pub(super) at: Duration,
    pub(super) wall_ms: i64,
}

/// Time between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lapse {
    pub passed: Duration,
    pub unseen: Duration,
}

/// Differences between wall and boot clock up to this are normal NTP corrections.
const DRIFT_MAX: Duration = Duration::from_mins(1);
/// A longer time off is more likely a wrong wall clock.
const OFF_MAX: Duration = Duration::from_hours(30 * 24);
/// Ends the freshness of every answer: the longest TTL in the cache.
const LONGEST_FRESH: Duration = Duration::from_hours(24);
/// 2025-01-01T00:00:00Z, before this code was written.
const WALL_MIN_MS: i64 = 1_735_689_600_000;

impl Anchor {
    pub fn now() -> Self {
        Self { boot: boot_id(), at: clock::since_boot(), wall_ms: clock::wall().as_millisecond() }
    }

    /// Builds a reading from its parts.
    pub fn of(boot: [u8; 16], at: Duration, wall_ms: i64) -> Self {
        Self { boot, at, wall_ms }
    }

    /// Time from `earlier` to this reading.
    pub fn since(&self, earlier: &Self) -> Lapse {
        let walls_known = self.wall_ms >= WALL_MIN_MS && earlier.wall_ms >= WALL_MIN_MS;
        let ahead = u64::try_from(self.wall_ms.saturating_sub(earlier.wall_ms)).ok().filter(|_| walls_known);
        let ahead = ahead.map(Duration::from_millis);
        if self.boot == earlier.boot {
            let passed = self.at.saturating_sub(earlier.at);
            let unseen = ahead.map_or(Duration::ZERO, |ahead| ahead.saturating_sub(passed));
            let unseen = if unseen > DRIFT_MAX { unseen } else { Duration::ZERO };
            return Lapse { passed, unseen };
        }
        match ahead.filter(|&ahead| ahead <= OFF_MAX) {
            Some(ahead) => Lapse { passed: ahead.max(self.at), unseen: Duration::ZERO },
            None => Lapse { passed: self.at, unseen: LONGEST_FRESH },
        }
    }

    pub(super) fn tag(&self) -> u32 {
        tag(self.boot)
    }
}

pub(super) fn tag(boot: Boot) -> u32 {
    u32::from_le_bytes([boot[0], boot[1], boot[2], boot[3]])
}

fn boot_id() -> Boot {
    static BOOT: OnceLock<Boot> = OnceLock::new();
    *BOOT.get_or_init(read_boot_id)
}

fn read_boot_id() -> Boot {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    // Without a boot ID, each start of the cache counts as a boot.
    u128::from_str_radix(&digits, 16).unwrap_or_else(|_| random::number().into()).to_be_bytes()
}

/// Detects, while running, time that passed without the boot clock counting it.
#[derive(Debug)]
pub struct GapWatch {
    last: Anchor,
    /// How far the wall clock was set back: it may go forward again by as much without time having
    /// passed.
    set_back: Duration,
}

impl GapWatch {
    pub fn new(now: Anchor) -> Self {
        Self { last: now, set_back: Duration::ZERO }
    }

    /// Time that passed unseen since the last call.
    pub fn look(&mut self, now: Anchor) -> Duration {
        let Lapse { passed, unseen: forward } = now.since(&self.last);
        let went_back = self.last.wall_ms.saturating_sub(now.wall_ms);
        let back = u64::try_from(went_back).map_or(Duration::ZERO, |ms| passed + Duration::from_millis(ms));
        self.last = now;
        if back > DRIFT_MAX {
            self.set_back = self.set_back.saturating_add(back);
        }
        let gap = forward.saturating_sub(self.set_back);
        self.set_back = self.set_back.saturating_sub(forward);
        if gap > DRIFT_MAX { gap } else { Duration::ZERO }
    }
}

/// All readings on disk, in stretches during which both clocks agreed. Keeps the last reading of
/// each.
#[derive(Debug, Default)]
pub(super) struct Stretches(Vec<Anchor>);

impl Stretches {
    /// Adds the next reading, in file order.
    pub(super) fn push(&mut self, anchor: Anchor) {
        // After a crash during a merge, it can appear twice.
        let known = self.0.iter().any(|last| last.boot == anchor.boot && last.at >= anchor.at);
        if known {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.boot == anchor.boot && anchor.since(last).unseen.is_zero() => *last = anchor,
            _ => self.0.push(anchor),
        }
    }

    pub(super) fn all(&self) -> &[Anchor] {
        &self.0
    }

    /// Time from the end of each stretch until now.
    pub(super) fn until(self, now: &Anchor) -> Ages {
        let mut total = Lapse::default();
        let mut later = now;
        let mut lapses = vec![Lapse::default(); self.0.len()];
        for (index, anchor) in self.0.iter().enumerate().rev() {
            let lapse = later.since(anchor);
            total.passed = total.passed.saturating_add(lapse.passed);
            total.unseen = total.unseen.saturating_add(lapse.unseen);
            lapses[index] = total;
            later = anchor;
        }
        Ages { stretches: self.0, lapses, last_used: 0 }
    }
}

pub(super) struct Ages {
    stretches: Vec<Anchor>,
    lapses: Vec<Lapse>,
    last_used: usize,
}

impl Ages {
    /// Time since a record was written; `None` if its boot is unknown.
    pub(super) fn of(&mut self, boot: u32, at: Duration) -> Option<Lapse> {
        if !self.covers(self.last_used, boot, at) {
            let mut of_boot =
                self.stretches.iter().enumerate().filter(|(_, anchor)| anchor.tag() == boot).map(|(i, _)| i);
            // A record after the last reading belongs to the last stretch.
            let last = of_boot.clone().next_back()?;
            self.last_used = of_boot.find(|&index| self.stretches[index].at >= at).unwrap_or(last);
        }
        let (end, lapse) = (self.stretches[self.last_used].at, self.lapses[self.last_used]);
        Some(Lapse { passed: lapse.passed.saturating_add(end.saturating_sub(at)), ..lapse })
    }

    fn covers(&self, index: usize, boot: u32, at: Duration) -> bool {
        let fits = |anchor: &Anchor| anchor.tag() == boot && anchor.at >= at;
        self.stretches.get(index).is_some_and(fits)
            && !index.checked_sub(1).is_some_and(|before| fits(&self.stretches[before]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const DAY: i64 = 24;
    const TEN_YEARS: i64 = 10 * 365 * DAY;
    /// Hours from 1970 to some day in 2026.
    const TODAY: i64 = 495_000;

    /// Boot ID, hours since boot, hours on the wall clock.
    fn anchor(boot: u8, at: u32, wall: i64) -> Anchor {
        Anchor::of([boot; 16], HOUR * at, wall * 3_600_000)
    }

    fn hours(span: Duration) -> u64 {
        span.as_secs() / 3_600
    }

    #[test]
    fn time_between_two_readings_is_split_into_passed_and_unseen() {
        // Case; earlier reading; current reading; hours passed, hours unseen.
        let table = [
            ("nothing", (1, 10, TODAY), (1, 12, TODAY + 2), (2, 0)),
            ("suspended, counted by the boot clock", (1, 10, TODAY), (1, 82, TODAY + 72), (72, 0)),
            ("paused virtual machine", (1, 10, TODAY), (1, 11, TODAY + 73), (1, 72)),
            ("wall clock set back by days", (1, 10, TODAY), (1, 11, TODAY - 5 * DAY), (1, 0)),
            ("no battery, then NTP", (1, 0, 0), (1, 1, TODAY), (1, 0)),
            ("reboot", (1, 10, TODAY), (2, 1, TODAY + 5), (5, 0)),
            ("off over the weekend", (1, 10, TODAY), (2, 1, TODAY + 3 * DAY), (72, 0)),
            ("reboot, wall clock in 1970", (1, 10, TODAY), (2, 3, 0), (3, 24)),
            ("reboot, wall clock in 2099", (1, 10, TODAY), (2, 3, TODAY + 73 * 365 * DAY), (3, 24)),
            ("reboot, wall clock two days back", (1, 10, TODAY), (2, 3, TODAY - 2 * DAY), (3, 24)),
            ("reboot, wall clock behind uptime", (1, 10, TODAY), (2, 30, TODAY + 1), (30, 0)),
            ("same boot, ten years ahead", (1, 10, TODAY), (1, 11, TODAY + TEN_YEARS), (1, 87_599)),
            ("same boot, ten years back", (1, 10, TODAY), (1, 11, TODAY - TEN_YEARS), (1, 0)),
            ("reboot, ten years ahead", (1, 10, TODAY), (2, 3, TODAY + TEN_YEARS), (3, 24)),
            ("reboot, ten years back", (1, 10, TODAY), (2, 3, TODAY - TEN_YEARS), (3, 24)),
            ("written in 1970, read with a correct clock", (1, 10, 0), (2, 3, TODAY), (3, 24)),
            ("the boot clock cannot go back, but a file can claim so", (1, 10, TODAY), (1, 9, TODAY), (0, 0)),
        ];
        for (what, before, now, expected) in table {
            let lapse = anchor(now.0, now.1, now.2).since(&anchor(before.0, before.1, before.2));
            assert_eq!((hours(lapse.passed), hours(lapse.unseen)), expected, "{what}");
        }
    }

    #[test]
    fn ages_add_up_over_reboots_even_if_no_wall_clock_is_right() {
        let mut stretches = Stretches::default();
        for boot in 1..=5 {
            stretches.push(anchor(boot, 1, 0));
            stretches.push(anchor(boot, 20, 0));
        }
        let mut ages = stretches.until(&anchor(6, 3, 0));
        let lapse = ages.of(anchor(1, 0, 0).tag(), HOUR * 15).unwrap();
        // Five hours of the first boot, four whole boots, three hours of this one.
        assert_eq!(hours(lapse.passed), 5 + 4 * 20 + 3);
        assert_eq!(ages.of(99, HOUR), None, "a boot without a reading");
    }

    #[test]
    fn only_answers_cached_before_a_pause_get_unseen_time() {
        let mut stretches = Stretches::default();
        for (at, wall) in [(1, TODAY), (2, TODAY + 1), (3, TODAY + 74), (4, TODAY + 75)] {
            stretches.push(anchor(1, at, wall));
        }
        assert_eq!(stretches.all().len(), 2);
        let boot = anchor(1, 0, 0).tag();
        let mut ages = stretches.until(&anchor(1, 5, TODAY + 76));
        let mut of =
            |at: u32| ages.of(boot, HOUR * at).map(|lapse| (hours(lapse.passed), hours(lapse.unseen)));
        assert_eq!([of(1), of(2), of(3), of(4)], [Some((4, 72)), Some((3, 72)), Some((2, 0)), Some((1, 0))]);
        assert_eq!(of(2), Some((3, 72)), "in any order");
    }

    #[test]
    fn a_wall_clock_that_jumps_back_and_forth_counts_once() {
        let mut watch = GapWatch::new(anchor(1, 0, TODAY));
        let mut look = |at, wall| hours(watch.look(anchor(1, at, TODAY + wall)));
        assert_eq!(look(1, 1), 0);
        assert_eq!(look(2, 50), 48, "paused, or set ahead");
        assert_eq!(look(3, 3), 0, "set back");
        assert_eq!(look(4, 52), 0, "ahead again: nothing new");
        assert_eq!(look(5, 80), 27);
    }

    #[test]
    fn a_step_of_ten_years_while_running_is_seen_once_and_one_back_not_at_all() {
        let steps = [0, 1, 1, 0, 1, -1, 0, 1, -1, 0];
        let mut watch = GapWatch::new(anchor(1, 0, TODAY));
        let unseen: Vec<u64> = (1..)
            .zip(steps)
            .map(|(at, step)| hours(watch.look(anchor(1, at, TODAY + i64::from(at) + step * TEN_YEARS))))
            .collect();
        assert_eq!(unseen[1], 87_600, "perhaps a pause: everything is refreshed once");
        assert_eq!(unseen.iter().filter(|&&unseen| unseen > 0).count(), 1, "{unseen:?}");
    }
}
