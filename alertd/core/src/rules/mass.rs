//! Whether hosts are silent one by one or together. Pure.
//!
//! ```text
//!            enough late and silent hosts               few, for a while
//! one by one ─────────────────────────────▶ together ─────────────────────▶ one by one
//!                                              │ none                           ▲
//!                                              └────────────────────────────────┘
//! ```
//!
//! Hosts that are cut off together become silent one after the other, for as long as one interval
//! of their heartbeats. When the first does, all others have missed a heartbeat, so they are
//! counted then, and nobody is notified of a single host.

use std::time::Duration;

use jiff::Timestamp;

use crate::rules::{agent::Agent, moment::later};

/// When many silent hosts are one problem: both must be reached, or [`MANY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mass {
    pub hosts: usize,
    pub percent: usize,
}

/// So many are a mass in any fleet. It bounds the alerts of silent hosts.
pub const MANY: usize = 500;

impl Default for Mass {
    /// More than a rack or two: what they depend on says more about them than their number.
    fn default() -> Self {
        Self { hosts: 10, percent: 20 }
    }
}

/// Hosts that became silent one by one count for this long.
pub const TOGETHER: Duration = Duration::from_mins(5);
/// Few silent hosts for this long end it. The last ones have time to come back.
pub const CALM: Duration = Duration::from_mins(1);

impl Mass {
    /// The number of hosts of `all` that is a mass.
    pub fn least(self, all: usize) -> usize {
        self.hosts.max(all.saturating_mul(self.percent).div_ceil(100)).clamp(2, MANY)
    }

    /// Few enough to be named one by one. Half of what makes a mass, so that it does not flap.
    pub fn is_few(self, silent: usize, all: usize) -> bool {
        silent < self.least(all).div_ceil(2)
    }
}

/// An agent that has missed a heartbeat, `silent_at` being the time at which it is silent.
pub fn is_late(agent: &Agent, silent_at: Timestamp, now: Timestamp) -> bool {
    silent_at <= later(now, agent.interval())
}

/// `94,984 of 100,000 hosts silent since 14:02; alertd itself may be cut off`.
pub fn words(silent: usize, all: usize, since: Timestamp) -> String {
    let doubt = if silent.saturating_mul(2) >= all { "; alertd itself may be cut off" } else { "" };
    format!(
        "{} of {} hosts silent since {} UTC{doubt}",
        thousands(silent),
        thousands(all),
        since.strftime("%H:%M")
    )
}

/// `94,984`.
fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mass_needs_a_number_and_a_share() {
        let mass = Mass::default();
        let least = [0, 10, 499, 1_000, 100_000].map(|all| mass.least(all));
        assert_eq!(least, [10, 10, 100, 200, MANY]);
        assert_eq!([9, 10].map(|silent| mass.is_few(silent, 100)), [true, false]);
        assert_eq!(Mass { hosts: 0, percent: 0 }.least(50), 2, "one host is never a mass");
    }

    #[test]
    fn the_text_says_how_many_and_whom_to_doubt() {
        let since = Timestamp::constant(1_000_000_000, 0);
        let doubted = "94,984 of 100,000 hosts silent since 01:46 UTC; alertd itself may be cut off";
        assert_eq!(words(94_984, 100_000, since), doubted);
        assert_eq!(words(12, 1_000, since), "12 of 1,000 hosts silent since 01:46 UTC");
    }
}
