//! The state of a service, and which of two is worse.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// A service's state; the numbers are the plugin exit codes.
///
/// States are ordered by severity: OK < WARNING < UNKNOWN < CRITICAL, as Icinga orders problems. UNKNOWN is worse than
/// WARNING, because a check that says nothing may hide anything. It is less than CRITICAL, because CRITICAL is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

impl State {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// From 0 for OK to 3 for CRITICAL.
    pub fn severity(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Unknown => 2,
            Self::Critical => 3,
        }
    }
}

impl Ord for State {
    fn cmp(&self, other: &Self) -> Ordering {
        self.severity().cmp(&other.severity())
    }
}

impl PartialOrd for State {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::State::{self, Critical, Ok, Unknown, Warning};

    #[test]
    fn states_are_ordered_by_severity_and_numbered_by_exit_code() {
        let mut states = [Unknown, Critical, Ok, Warning];
        states.sort();
        assert_eq!(states, [Ok, Warning, Unknown, Critical]);
        assert_eq!([Ok, Warning, Critical, Unknown].map(|state: State| state as u8), [0, 1, 2, 3]);
    }
}
