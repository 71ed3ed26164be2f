//! Replies that someone else sent in an upstream's name: a wrong id, another question, or the wrong
//! letter case where the right one came too. All are rejected; a wave of them is reported.
//!
//! ```text
//!           ten within a minute             five minutes without any
//!   quiet ──────────────────────▶ wave ──────────────────────────────▶ quiet
//! ```
//!
//! A single odd packet is no alarm: a late answer can meet a new socket on the same port. An
//! attacker who sprays all ports hits the open one about once in 28,000 packets (the range in
//! ip_local_port_range), so ten hits are a quarter of a million forged packets or someone who knows
//! the port.

use std::{collections::VecDeque, time::Duration};

use crate::moment::Moment;

const WINDOW: Duration = Duration::from_mins(1);
const WAVE_AT: u32 = 10;
const QUIET_AFTER: Duration = Duration::from_mins(5);
/// Most reports kept; each stands for the packets that one query received.
const REPORTS_MAX: usize = 64;

#[derive(Debug, Default)]
pub struct Forgeries {
    total: u64,
    recent: VecDeque<(Moment, u32)>,
    wave: Option<Wave>,
    last: Option<Moment>,
}

/// Someone is forging answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wave {
    /// The first forged reply of it.
    pub since: Moment,
    pub packets: u64,
}

impl Forgeries {
    /// This many forged replies came for one query.
    pub fn on_forged(&mut self, packets: u32, now: Moment) {
        self.total += u64::from(packets);
        if self.wave(now).is_none() {
            self.wave = None;
        }
        self.last = Some(now);
        while self.recent.front().is_some_and(|(at, _)| now.since(*at) >= WINDOW)
            || self.recent.len() >= REPORTS_MAX
        {
            self.recent.pop_front();
        }
        self.recent.push_back((now, packets));
        if let Some(wave) = &mut self.wave {
            wave.packets += u64::from(packets);
            return;
        }
        let within = self.recent.iter().map(|(_, packets)| *packets).fold(0, u32::saturating_add);
        if within >= WAVE_AT {
            let since = self.recent.front().map_or(now, |(at, _)| *at);
            self.wave = Some(Wave { since, packets: within.into() });
        }
    }

    /// The wave that is going on.
    pub fn wave(&self, now: Moment) -> Option<Wave> {
        self.wave.filter(|_| self.last.is_some_and(|last| now.since(last) < QUIET_AFTER))
    }

    /// All since the start.
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays forged replies, one sign per ten seconds: a digit is that many for one query. Returns
    /// `!` where a wave is reported.
    fn waves(forged: &str) -> String {
        let (mut now, mut forgeries) = (Moment::START, Forgeries::default());
        let one = |sign: char| {
            now = now + Duration::from_secs(10);
            if let Some(packets) = sign.to_digit(10) {
                forgeries.on_forged(packets, now);
            }
            if forgeries.wave(now).is_some() { '!' } else { '-' }
        };
        forged.chars().map(one).collect()
    }

    #[test]
    fn s12_ten_forged_replies_within_a_minute_are_a_wave_and_five_quiet_minutes_end_it() {
        let forged = "..433.........................................1";
        let waves_ = "----!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!-------------";
        assert_eq!(waves(forged), waves_);
        let forged = "..9.........9....5";
        let waves_ = "-----------------!";
        assert_eq!(waves(forged), waves_);
    }

    #[test]
    fn s12_odd_packets_now_and_then_are_none() {
        assert_eq!(waves(&"1..".repeat(200)), "-".repeat(600));
        assert_eq!(waves("9......9......9......9"), "-".repeat(22));
    }

    #[test]
    fn s12_a_wave_counts_all_of_it_and_memory_is_bounded() {
        let (now, mut forgeries) = (Moment::START, Forgeries::default());
        (0..100_000).for_each(|_| forgeries.on_forged(3, now));
        assert_eq!(forgeries.wave(now), Some(Wave { since: now, packets: 300_000 }));
        assert!(forgeries.recent.len() <= REPORTS_MAX);
        let later = now + QUIET_AFTER;
        assert_eq!((forgeries.wave(later), forgeries.total()), (None, 300_000));
        forgeries.on_forged(1, later);
        assert_eq!(forgeries.wave(later), None, "one more is not the same wave");
    }
}
