//! The guard settings of one zone.

use std::time::Duration;

use super::hold::{self, Reason};

/// The guard settings of one zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub vanish: bool,
    pub mass_vanish: bool,
    pub convergence: bool,
    pub vanish_grace: Duration,
    /// For names that are asked for often.
    pub hot_vanish_grace: Duration,
    /// For names that were good for at least half an hour and now have an empty answer.
    pub empty_grace: Duration,
    pub mass_grace: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            vanish: true,
            mass_vanish: true,
            convergence: true,
            vanish_grace: Duration::from_mins(15),
            hot_vanish_grace: Duration::from_hours(4),
            // AWS's empty record lasted 2 h 37 min (October 2025).
            empty_grace: Duration::from_hours(4),
            // Facebook was down for 6 h (October 2021); by then someone has been paged.
            mass_grace: Duration::from_hours(6),
        }
    }
}

impl Rules {
    pub fn off() -> Self {
        Self { vanish: false, mass_vanish: false, convergence: false, ..Self::default() }
    }

    pub(super) fn cares(&self, reason: Reason) -> bool {
        match reason {
            Reason::Gone | Reason::Empty => self.vanish || self.mass_vanish,
            Reason::Nowhere => self.vanish || self.mass_vanish || self.convergence,
            Reason::Converged(_) => self.convergence,
            Reason::Refused => true,
        }
    }

    /// The longest time that any name may be held.
    pub fn bound(&self) -> Duration {
        self.mass_grace
            .max(self.hot_vanish_grace)
            .max(self.empty_grace)
            .max(self.vanish_grace)
            .max(hold::JUDGING)
    }
}
